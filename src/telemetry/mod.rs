//! Counters of the process. Each is named here once, with its unit and meaning.
//!
//! Must not know: who counts or who looks. Counters only grow; they start at zero with the process.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that grows.
#[derive(Debug)]
pub struct Counter {
    /// Name with the unit last.
    pub name: &'static str,
    /// What is counted, in a sentence.
    pub meaning: &'static str,
    value: AtomicU64,
}

impl Counter {
    const fn new(name: &'static str, meaning: &'static str) -> Counter {
        Counter { name, meaning, value: AtomicU64::new(0) }
    }

    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// Jobs of the worker pool that ended in a panic: bugs.
pub static JOBS_PANICKED: Counter = Counter::new("jobs_panicked", "Jobs of the worker pool that panicked.");
/// Plain bytes coded into segments.
pub static ENCODED_BYTES: Counter = Counter::new("encoded_bytes", "Plain bytes coded into segments.");
/// Time spent coding, with verification, microseconds.
pub static ENCODE_US: Counter = Counter::new("encode_us", "Time spent coding and verifying segments, microseconds.");
/// Plain bytes decoded from segments.
pub static DECODED_BYTES: Counter = Counter::new("decoded_bytes", "Plain bytes decoded from segments.");
/// Time spent decoding, microseconds.
pub static DECODE_US: Counter = Counter::new("decode_us", "Time spent decoding segments, microseconds.");
/// Segments stored raw because they looked incompressible.
pub static EARLY_ABORTS: Counter = Counter::new("early_aborts", "Segments stored raw after a look at a sample.");

/// Every counter, for reports.
pub static ALL: [&Counter; 6] = [&JOBS_PANICKED, &ENCODED_BYTES, &ENCODE_US, &DECODED_BYTES, &DECODE_US, &EARLY_ABORTS];
