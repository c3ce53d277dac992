//! What daemon and commands say to each other over the control socket: one JSON value a line, a request and then
//! responses, of which the last is neither `Progress` nor `Scrubbing`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host;
use crate::telemetry::{Histogram, UP_TO_US};
use crate::volume::{
    Backlog, CodingNow, Explanation, FileReport, GcPlan, GcReport, LanguageReport, PriorReport, RecodeReport,
    ScrubOptions, ScrubReport, ScrubStatus, Status, TrainReport, VolumeReport,
};

/// Longest line, bytes.
pub const LINE_BYTES_MAX: u64 = 64 << 20;
/// Name of the socket in the store's directory.
pub const SOCKET: &str = "control.sock";

/// Where the daemon of a read-only mount takes commands, by the number of its device: a store may have several of them, and
/// nothing is written into it. `None` where users of this machine have no place for sockets.
pub fn socket_of_reader((major, minor): (u32, u32)) -> Option<PathBuf> {
    Some(host::runtime_directory()?.join(format!("reader-{major}-{minor}.sock")))
}

/// What a command asks for.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    Ping,
    Status,
    Stat {
        ino: u64,
    },
    /// What a file costs and why.
    Explain {
        ino: u64,
    },
    /// What the volume takes, by class, method, and the `top` directories down to a depth.
    Survey {
        depth: usize,
        top: usize,
    },
    /// Answered when nothing is left to code; `Progress` lines come before.
    Wait,
    Pause,
    Resume,
    /// Files below the mountpoint that are open make it fail, unless `lazy`.
    Unmount {
        lazy: bool,
    },
    /// Makes everything durable that has reached the daemon.
    Sync,
    /// What space of packs is worth giving back.
    GcPlan,
    /// Gives it back; answered when it is done.
    Gc,
    /// Trains priors; answered when it is done.
    Train {
        dry_run: bool,
    },
    /// Codes segments anew where that saves so much; answered when it is done.
    Recode {
        saves_percent: u32,
    },
    /// Takes a language model in, and an adapter to it, by their absolute paths; answered when it is there.
    AddLanguage {
        path: PathBuf,
        #[serde(default)]
        adapter: Option<PathBuf>,
    },
    /// Answered when the scrub has ended; `Scrubbing` lines come before. It is stopped when the connection ends.
    Scrub {
        options: ScrubOptions,
    },
}

/// How long something took, how often: `counts` has one number for each of `up_to_us`, of times up to that bound and above the
/// one before, and one more for those above all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub up_to_us: Vec<u64>,
    pub counts: Vec<u64>,
    pub sum_us: u64,
}

impl Times {
    /// What a histogram has counted.
    pub fn of(histogram: &Histogram) -> Times {
        let (counts, sum_us) = histogram.get();
        Times { up_to_us: UP_TO_US.to_vec(), counts, sum_us }
    }

    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bound, microseconds, that so many hundredths of the times keep; `None` without times, or where they exceed all
    /// bounds.
    pub fn within(&self, hundredths: u64) -> Option<u64> {
        let wanted = (self.count() * hundredths).div_ceil(100).max(1);
        let mut so_far = 0;
        self.up_to_us.iter().zip(&self.counts).find_map(|(bound, count)| {
            so_far += count;
            (so_far >= wanted).then_some(*bound)
        })
    }
}

/// What the daemon has done since it started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    pub encoded_bytes: u64,
    /// With verification, microseconds of one core.
    pub encode_us: u64,
    pub decoded_bytes: u64,
    pub decode_us: u64,
    /// Segments stored raw after a look at a sample.
    pub early_aborts: u64,
    /// Jobs that panicked: bugs.
    pub jobs_panicked: u64,
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub coding_paused: bool,
    /// How long reads took that were answered at once, and those that waited for a segment.
    #[serde(default)]
    pub reads_warm: Times,
    #[serde(default)]
    pub reads_cold: Times,
    /// Segments that are being coded.
    #[serde(default)]
    pub coding_now: Vec<CodingNow>,
    /// Priors that the volume's own files taught.
    #[serde(default)]
    pub priors: Vec<PriorReport>,
    /// Language models that somebody brought.
    #[serde(default)]
    pub languages: Vec<LanguageReport>,
}

/// What the daemon answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Response {
    Ok { backlog: Backlog },
    Status { status: Box<Status>, work: Work },
    Stat { report: FileReport },
    Explained { explanation: Explanation },
    Surveyed { report: VolumeReport },
    Progress { backlog: Backlog, encoded_bytes: u64 },
    GcPlan { plan: GcPlan },
    Gc { report: GcReport },
    Trained { report: TrainReport },
    Recoded { report: RecodeReport },
    LanguageAdded { report: LanguageReport },
    Scrubbing { scrub: ScrubStatus },
    Scrubbed { report: ScrubReport },
    Error { message: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_tell_what_most_of_them_keep() {
        let times = Times { up_to_us: vec![10, 100, 1000], counts: vec![50, 48, 1, 1], sum_us: 7 };
        assert_eq!([50, 98, 99, 100].map(|n| times.within(n)), [Some(10), Some(100), Some(1000), None]);
        assert_eq!((times.count(), Times::default().within(50)), (100, None));
    }

    #[test]
    fn requests_are_read_back() {
        for request in [Request::Ping, Request::Stat { ino: 7 }, Request::Unmount { lazy: true }] {
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        assert!(serde_json::from_str::<Request>("{\"verb\":\"format_disk\"}").is_err());
    }
}
