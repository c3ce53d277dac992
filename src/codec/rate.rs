//! How fast each method decodes on this machine: moving averages of the processor time that was measured, for short and long
//! segments apart, since a segment has costs that do not depend on its length. What disturbs a measurement makes it longer, never
//! shorter, so the average follows shorter times at once and longer ones slowly: it is what a machine does that is not busy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::MethodId;
use crate::models::{self, Opened};

/// Shorter decodes say more about the clock than about the method, bytes.
const BYTES_MIN: u64 = 16 << 10;
/// Lengths that are told apart: from `BYTES_MIN` on, each twice the one before.
const LENGTHS: usize = 7;

/// Nanoseconds per KiB, by length; 0 until the first measurement.
type Rates = [AtomicU64; LENGTHS];

/// By method number.
static NS_PER_KIB: [Rates; MethodId::NUMBERS] = [const { [const { AtomicU64::new(0) }; LENGTHS] }; MethodId::NUMBERS];

fn rates_of(id: MethodId) -> Option<&'static Rates> {
    NS_PER_KIB.get(usize::from(id as u16))
}

fn length(bytes: u64) -> usize {
    ((bytes / BYTES_MIN).max(1).ilog2() as usize).min(LENGTHS - 1)
}

/// Nanoseconds per KiB of what is in containers that closing them takes, before anything was measured: 20 MB/s.
const CLOSING_NS_PER_KIB: u64 = 51_200;

/// Takes a measurement in. Races lose one, which does not matter.
pub(super) fn learn(id: MethodId, payload: &[u8], bytes: u64, took: Duration) {
    if id == MethodId::Opened {
        learn_closing(payload, took);
        return;
    }
    // What takes seconds can be measured however short it is.
    if bytes < BYTES_MIN && id != MethodId::Language {
        return;
    }
    if let Some(rates) = rates_of(id) {
        // Short times of a language model are those of text of long tokens, not of a machine that is not busy.
        let slow_down = if id == MethodId::Language { 4 } else { 16 };
        take_in(rates, bytes, took, slow_down);
    }
}

/// Of what was opened the speed is that of closing it: what it took beyond its parts, where those are known.
fn learn_closing(payload: &[u8], took: Duration) {
    let (mut text_bytes, mut parts_ns) = (0, 0);
    for (method, bytes) in Opened::parts(payload) {
        if !is_known(method) && method != MethodId::Raw {
            return;
        }
        text_bytes += u64::from(bytes);
        parts_ns += predicted_ns(method, bytes);
    }
    if let Some(rates) = rates_of(MethodId::Opened)
        && text_bytes >= BYTES_MIN
    {
        // Streams of quick encoders are closed much faster than those of slow ones.
        take_in(rates, text_bytes, took.saturating_sub(Duration::from_nanos(parts_ns)), 4);
    }
}

fn take_in(rates: &Rates, bytes: u64, took: Duration, slow_down: u64) {
    if let Some(slot) = rates.get(length(bytes)) {
        let now = (took.as_nanos() as u64 * 1024 / bytes).max(1);
        let old = slot.load(Ordering::Relaxed);
        let next = match old {
            0 => now,
            _ if now < old => old.midpoint(now),
            _ => old + (now - old) / slow_down,
        };
        slot.store(next.max(1), Ordering::Relaxed);
    }
}

/// The method by whose speed that of another is told: opened segments have no more text than keeps the budget.
fn timed_as(method: MethodId) -> MethodId {
    if method == MethodId::Opened { MethodId::Primed } else { method }
}

/// Forgets what was measured of a method: it is another now.
pub fn forget(id: MethodId) {
    rates_of(id).into_iter().flatten().for_each(|rate| rate.store(0, Ordering::Relaxed));
}

/// What is known of a length, or else of the next longer one, or else of the next shorter one.
fn known(rates: &Rates, bytes: u64) -> Option<u64> {
    let own = length(bytes);
    let nearest = (own..LENGTHS).chain((0..own).rev());
    nearest.filter_map(|n| rates.get(n)).map(|rate| rate.load(Ordering::Relaxed)).find(|rate| *rate > 0)
}

/// True when decoding by a method was measured on this machine.
pub(super) fn is_known(method: MethodId) -> bool {
    rates_of(timed_as(method)).is_some_and(|rates| known(rates, 0).is_some())
}

fn predicted_ns(method: MethodId, bytes: u32) -> u64 {
    let guess = 1_000_000 * 1024 / models::model(method).decode_rate_guess().max(1);
    u64::from(bytes) * rates_of(method).and_then(|rates| known(rates, u64::from(bytes))).unwrap_or(guess) / 1024
}

fn whole_ms(ns: u64) -> u32 {
    ns.div_ceil(1_000_000).min(u64::from(u32::MAX)) as u32
}

/// Milliseconds that decoding `raw_len` bytes of a method takes on this machine, rounded up; of a method that decodes parts
/// alone, as one part. Of what is opened it is what so much text of it takes, whatever is in it: `predicted_payload_ms` knows.
pub fn predicted_decode_ms(method: MethodId, raw_len: u32) -> u32 {
    whole_ms(predicted_ns(timed_as(method), raw_len))
}

/// As `predicted_decode_ms`, of a payload that is at hand: of opened containers, what all that is in them takes, and closing
/// them. Any bytes may be given.
pub fn predicted_payload_ms(method: MethodId, payload: &[u8], raw_len: u32) -> u32 {
    if method != MethodId::Opened {
        return predicted_decode_ms(method, raw_len);
    }
    let (ns, text_bytes) = Opened::parts(payload).fold((0u64, 0u64), |(ns, text), (method, bytes)| {
        (ns.saturating_add(predicted_ns(method, bytes)), text + u64::from(bytes))
    });
    let closing = rates_of(MethodId::Opened).and_then(|rates| known(rates, text_bytes));
    whole_ms(ns.saturating_add(text_bytes.saturating_mul(closing.unwrap_or(CLOSING_NS_PER_KIB)) / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_segments_have_a_speed_of_their_own() {
        let rates: Rates = [const { AtomicU64::new(0) }; LENGTHS];
        assert_eq!(known(&rates, 100), None);
        take_in(&rates, 256 << 10, Duration::from_nanos(256_000), 16);
        for bytes in [1, 16 << 10, 300 << 10, 1 << 20] {
            assert_eq!(known(&rates, bytes), Some(1000), "the only one that is known");
        }
        take_in(&rates, 16 << 10, Duration::from_nanos(80_000), 16);
        assert_eq!(known(&rates, 20 << 10), Some(5000));
        assert_eq!(known(&rates, 32 << 10), Some(1000), "the next longer one");
        assert_eq!(known(&rates, 1 << 20), Some(1000));
        take_in(&rates, 17 << 10, Duration::from_nanos(17 * 21_000), 16);
        assert_eq!(known(&rates, 16 << 10), Some(6000), "a sixteenth of the way up");
        take_in(&rates, 17 << 10, Duration::from_nanos(17 * 2000), 16);
        assert_eq!(known(&rates, 16 << 10), Some(4000), "half of the way down");
    }
}
