//! Counters of the process. Each is named here once, with its unit and meaning.
//!
//! Must not know: who counts or who looks. Counters only grow; they start at zero with the process.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the times that a histogram counts together, microseconds. What took longer than all comes last.
pub const UP_TO_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 60_000_000,
];

/// How many times were how long.
#[derive(Debug)]
pub struct Histogram {
    counts: [Counter; UP_TO_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    const fn new() -> Histogram {
        Histogram { counts: [const { Counter::new() }; UP_TO_US.len() + 1], sum_us: Counter::new() }
    }

    /// Counts a time, microseconds.
    pub fn add(&self, us: u64) {
        let at = UP_TO_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(at) {
            count.add(1);
        }
        self.sum_us.add(us);
    }

    /// For each bound the times up to it and above the one before, then those above all; and the sum of all, microseconds.
    pub fn get(&self) -> (Vec<u64>, u64) {
        (self.counts.iter().map(Counter::get).collect(), self.sum_us.get())
    }
}

/// Jobs of the worker pool that ended in a panic: bugs.
pub static JOBS_PANICKED: Counter = Counter::new();
/// Plain bytes coded into segments.
pub static ENCODED_BYTES: Counter = Counter::new();
/// Processor time spent coding and verifying segments, microseconds.
pub static ENCODE_US: Counter = Counter::new();
/// Plain bytes decoded from segments.
pub static DECODED_BYTES: Counter = Counter::new();
/// Processor time spent decoding segments, microseconds.
pub static DECODE_US: Counter = Counter::new();
/// Segments stored raw after a look at a sample.
pub static EARLY_ABORTS: Counter = Counter::new();
/// Reads that were answered at once: staged bytes, and segments that were in memory.
pub static READS_WARM: Histogram = Histogram::new();
/// Reads that waited for a segment: for its decode, or for its copy on disk.
pub static READS_COLD: Histogram = Histogram::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_where_they_belong() {
        let times = Histogram::new();
        [0, 100, 101, 60_000_000, 60_000_001, u64::MAX / 2].into_iter().for_each(|us| times.add(us));
        let (counts, sum_us) = times.get();
        assert_eq!((counts[0], counts[1], counts[16], counts[17]), (2, 1, 1, 2));
        assert_eq!((counts.iter().sum::<u64>(), counts.len(), sum_us), (6, 18, 120_000_202 + u64::MAX / 2));
    }
}
