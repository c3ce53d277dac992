//! How fast each method decodes on this machine: a moving average of what was measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::MethodId;
use crate::models;

/// Nanoseconds per KiB, by method number; 0 until the first measurement.
static NS_PER_KIB: [AtomicU64; MethodId::ALL.len()] = [const { AtomicU64::new(0) }; MethodId::ALL.len()];
/// Shorter decodes say more about the clock than about the method, bytes.
const BYTES_MIN: u64 = 16 << 10;

/// Takes a measurement in. Races lose one, which does not matter.
pub(super) fn learn(id: MethodId, bytes: u64, took: Duration) {
    if bytes < BYTES_MIN {
        return;
    }
    if let Some(slot) = NS_PER_KIB.get(usize::from(id as u16)) {
        let now = (took.as_nanos() as u64 * 1024 / bytes).max(1);
        let old = slot.load(Ordering::Relaxed);
        slot.store(if old == 0 { now } else { (old * 15 + now) / 16 }.max(1), Ordering::Relaxed);
    }
}

/// Milliseconds that decoding `raw_len` bytes of a method takes on this machine, rounded up.
pub fn predicted_decode_ms(method: MethodId, raw_len: u32) -> u32 {
    let guess = 1_000_000 * 1024 / models::model(method).decode_rate_guess().max(1);
    let known = NS_PER_KIB.get(usize::from(method as u16)).map_or(0, |n| n.load(Ordering::Relaxed));
    let ns_per_kib = if known == 0 { guess } else { known };
    (u64::from(raw_len) * ns_per_kib / 1024).div_ceil(1_000_000).min(u64::from(u32::MAX)) as u32
}
