//! What daemon and commands say to each other over the control socket: one JSON value a line, a request and then
//! responses, of which the last is neither `Progress` nor `Scrubbing`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host;
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
    fn requests_are_read_back() {
        for request in [Request::Ping, Request::Stat { ino: 7 }, Request::Unmount { lazy: true }] {
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        assert!(serde_json::from_str::<Request>("{\"verb\":\"format_disk\"}").is_err());
    }
}
