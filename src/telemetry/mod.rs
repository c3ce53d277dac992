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
