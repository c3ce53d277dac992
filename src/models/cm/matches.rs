//! The match model: the last place where what was just seen was seen before predicts what comes.

use crate::entropy::{StateMap, stretch};

/// Bytes that must agree before a place is followed.
const MIN_LEN: u32 = 5;
/// Lengths beyond this are alike.
const LEN_MAX: u32 = 400;
const HASH_BITS: u32 = 18;
/// Contexts of the predicted bit: length (64 steps) and whether the place has failed lately.
const CONTEXTS: usize = 256;

/// Follows one place in the history of the segment.
pub(super) struct Matches {
    /// Plain bytes so far.
    history: Vec<u8>,
    /// Hash of the last bytes -> position after them.
    places: Vec<u32>,
    /// Next byte of the place that is followed; 0 when there is none.
    at: usize,
    /// Bytes that agreed.
    len: u32,
    /// Mistakes since the place was found.
    misses: u32,
    /// The byte that is expected, with a leading 1; 0 when nothing is.
    expected: u32,
    map: StateMap<CONTEXTS>,
    context: usize,
}

impl Default for Matches {
    fn default() -> Matches {
        Matches {
            history: Vec::new(),
            places: vec![0; 1 << HASH_BITS],
            at: 0,
            len: 0,
            misses: 0,
            expected: 0,
            map: fresh(),
            context: 0,
        }
    }
}

/// A match is believed by its length from the start.
fn fresh() -> StateMap<CONTEXTS> {
    StateMap::new(|c| {
        let len = (c & 63) as u32;
        let doubt = if c >= 64 { 12_000 } else { 6_000 } / (len + 2);
        (65_535 - doubt.max(24)) as u16
    })
}

impl Matches {
    pub fn reset(&mut self, raw_len: usize) {
        self.history.clear();
        self.history.reserve(raw_len);
        self.places.fill(0);
        (self.at, self.len, self.misses, self.expected, self.context) = (0, 0, 0, 0, 0);
        self.map = fresh();
    }

    /// Length class of the match that predicts now: 0 when none does.
    #[inline]
    pub fn confidence(&self) -> usize {
        match (self.expected, self.len) {
            (0, _) => 0,
            (_, 0..=15) => 1,
            (_, 16..=31) => 2,
            (_, _) => 3,
        }
    }

    /// Two stretched inputs for the mixer: what the map has learned of such matches, and what their length alone says.
    #[inline]
    pub fn predict(&mut self, bit_index: u32) -> [i16; 2] {
        if self.expected == 0 {
            return [0, 0];
        }
        let bit = self.expected >> (7 - bit_index) & 1;
        let steps = if self.len < 32 { self.len } else { (32 + (self.len - 32) / 12).min(63) };
        self.context = steps as usize + 64 * self.misses.min(3) as usize;
        let p = stretch(self.map.p(self.context));
        let by_len = (self.len.min(32) * 16) as i32;
        if bit == 1 { [p as i16, by_len as i16] } else { [-p as i16, -by_len as i16] }
    }

    /// Takes a bit: bit `bit_index` (0 first) of the byte.
    #[inline]
    pub fn observe(&mut self, bit_index: u32, bit: u8) {
        if self.expected == 0 {
            return;
        }
        let right = (self.expected >> (7 - bit_index) & 1) as u8 == bit;
        self.map.update(self.context, u8::from(right), 255);
        if !right {
            self.expected = 0;
            self.len = 0;
            self.misses += 1;
        }
    }

    /// Takes a whole byte; `hash` is of the last `MIN_LEN` or more bytes.
    pub fn end_byte(&mut self, byte: u8, hash: u32) {
        self.history.push(byte);
        let now = self.history.len();
        if self.at > 0 {
            self.at += 1;
            self.len = (self.len + 1).min(LEN_MAX);
        }
        let place = (hash.wrapping_mul(0x2F0B_4C47) >> (32 - HASH_BITS)) as usize;
        let slot = &mut self.places[place & ((1 << HASH_BITS) - 1)];
        // After a mistake the place is kept for a while: most texts that differ in a word go on alike.
        if self.at == 0 || self.len < MIN_LEN || self.misses > 8 {
            let candidate = *slot as usize;
            if candidate > 0 {
                let len = common(&self.history, candidate, now);
                if len >= MIN_LEN && (self.at == 0 || len > self.len) {
                    if self.at != candidate {
                        self.misses = 0;
                    }
                    (self.at, self.len) = (candidate, len);
                } else if self.misses > 8 {
                    self.at = 0;
                }
            } else if self.misses > 8 {
                self.at = 0;
            }
        }
        *slot = now as u32;
        self.expected = match self.history.get(self.at) {
            Some(next) if self.at > 0 && self.at < now => u32::from(*next) | 0x100,
            _ => 0,
        };
    }
}

/// Bytes before positions `a` and `b` that agree, at most `LEN_MAX`.
fn common(history: &[u8], a: usize, b: usize) -> u32 {
    let (Some(a), Some(b)) = (history.get(..a), history.get(..b)) else { return 0 };
    a.iter().rev().zip(b.iter().rev()).take(LEN_MAX as usize).take_while(|(x, y)| x == y).count() as u32
}
