//! The match model: the last place where what was just seen was seen before predicts what comes. The text of the prior
//! is part of the history, and so predicts too.
//!
//! Places are found by hashes of the last five and of the last eight bytes. All but the low half of the last byte tell a
//! cache line, which is fetched when that half begins; an entry has some bits of the hash beside the place, so that the
//! history is looked at only where it is likely to agree.

use prefetch_index::prefetch_index;

use super::contexts::hash_bytes;
use super::memory::Memory;
use crate::entropy::{StateMap, stretch};

/// Bytes that must agree before a place is followed.
const MIN_LEN: u32 = 5;
/// The same for a place that was found by the hash of eight bytes.
const LONG_LEN: u32 = 8;
/// The same for a place in a reference, where what is repeated runs on for long: short ones lie at many places.
const FAR_LEN: u32 = 21;
/// Each step moves what a byte adds three bits up: after `FAR_LEN` steps it is gone.
const FAR_STEP: u64 = 0x9E37_79B9_7F4A_7C15 << 3;
/// Most places of the table of a reference.
const FAR_PLACES_MAX: usize = 1 << 19;
/// A match this long is not given up for another.
const SURE_LEN: u32 = 16;
/// Lengths beyond this are alike.
const LEN_MAX: u32 = 400;
/// Mistakes after which a place is left.
const MISSES_MAX: u32 = 8;
/// Bits of an entry that are the place; above them is the check.
const PLACE_BITS: u32 = 22;
// The text of a prior of the program and of one of the volume, a reference, and a segment.
const _: () = assert!(2 * super::TEXT_BYTES_MAX + 2 * crate::base::SEGMENT_BYTES_MAX as usize <= 1 << PLACE_BITS);
/// Contexts of the predicted bit: length (64 steps), mistakes, whether it is the first of its byte.
const CONTEXTS: usize = 1024;
/// Contexts of a whole byte: length (32 steps), mistakes.
const SURE_CONTEXTS: usize = 128;

/// Follows one place in the history. Tables of places have `TABLE` bytes each, a power of two; a place is four.
pub(super) struct Matches<const TABLE: usize> {
    /// Text of the prior, reference, and plain bytes so far.
    history: Vec<u8>,
    /// Hash of the last bytes -> position after them. Both tables, and the hashes of all but half a byte.
    tables: [Memory<TABLE>; 2],
    hashes: [u32; 2],
    /// Hash of the last `FAR_LEN` bytes -> position after them in the reference; empty without one. And that hash now.
    far: Vec<u32>,
    far_hash: u64,
    map: StateMap<CONTEXTS>,
    /// Next byte of the place that is followed; 0 when there is none.
    at: usize,
    /// Bytes that agreed.
    len: u32,
    /// Mistakes since the place was found.
    misses: u32,
    /// The byte that is expected, with a leading 1; 0 when nothing is.
    expected: u32,
    context: usize,
    /// Whether the whole byte that is expected comes, by length and mistakes.
    sure: StateMap<SURE_CONTEXTS>,
}

impl<const TABLE: usize> Default for Matches<TABLE> {
    fn default() -> Self {
        const { assert!(TABLE.is_power_of_two()) };
        Matches {
            history: Vec::new(),
            tables: [Memory::zeroed(), Memory::zeroed()],
            hashes: [0; 2],
            far: Vec::new(),
            far_hash: 0,
            // A match is believed by its length from the start.
            map: StateMap::new(|c| {
                let doubt = if c >= 64 { 12_000 } else { 6_000 } / ((c & 63) as u32 + 2);
                (65_535 - doubt.max(24)) as u16
            }),
            at: 0,
            len: 0,
            misses: 0,
            expected: 0,
            context: 0,
            sure: StateMap::new(|_| 65_000),
        }
    }
}

impl<const TABLE: usize> Matches<TABLE> {
    /// Bytes of the tables, without the history and the table of a reference.
    pub const BYTES: u64 = 2 * TABLE as u64;
    /// Most bytes that a reference takes, its text and its table.
    pub const REFERENCE_BYTES: u64 = (crate::base::SEGMENT_BYTES_MAX as usize + 4 * FAR_PLACES_MAX) as u64;

    /// Everything so far.
    pub fn history(&self) -> &[u8] {
        &self.history
    }

    /// Takes history, places and what was learned from another.
    pub fn copy_from(&mut self, other: &Self) {
        self.history.clone_from(&other.history);
        for (table, other) in self.tables.iter_mut().zip(&other.tables) {
            table.bytes_mut().copy_from_slice(other.bytes());
        }
        self.map.clone_from(&other.map);
        self.sure.clone_from(&other.sure);
        self.far.clear();
        self.begin();
    }

    /// Follows nothing: at the start of a segment.
    pub fn begin(&mut self) {
        (self.at, self.len, self.misses, self.expected, self.context) = (0, 0, 0, 0, 0);
        self.far_hash = 0;
    }

    /// Length class of the match that predicts now, 0 to 7: 0 when none does.
    #[inline(always)]
    pub fn confidence(&self) -> usize {
        match (self.expected, self.len) {
            (0, _) => 0,
            (_, 0) => 1,
            (_, 1..=7) => 2,
            (_, 8..=15) => 3,
            (_, 16..=23) => 4,
            (_, 24..=31) => 5,
            (_, 32..=63) => 6,
            (_, _) => 7,
        }
    }

    /// The byte that is expected, while the bits so far agree with it.
    #[inline(always)]
    pub fn expected(&self) -> Option<u8> {
        (self.expected != 0).then_some(self.expected as u8)
    }

    /// Stretched probability that the next bit is 1; 0 when nothing is expected.
    #[inline(always)]
    pub fn predict(&mut self, bit_index: u32) -> i16 {
        if self.expected == 0 {
            return 0;
        }
        let steps = if self.len < 32 { self.len } else { (32 + (self.len - 32) / 12).min(63) };
        self.context = steps as usize + 64 * self.misses.min(7) as usize + CONTEXTS / 2 * usize::from(bit_index == 0);
        let p = stretch(self.map.p(self.context)) as i16;
        if self.expected >> (7 - bit_index) & 1 == 1 { p } else { -p }
    }

    /// Takes a bit: bit `bit_index` (0 first) of the byte.
    #[inline(always)]
    pub fn observe(&mut self, bit_index: u32, bit: u8) {
        if self.expected == 0 {
            return;
        }
        let right = (self.expected >> (7 - bit_index) & 1) as u8 == bit;
        self.map.update(self.context, u8::from(right), 1023);
        if !right {
            (self.expected, self.len) = (0, 0);
            self.misses += 1;
        }
    }

    /// The whole byte that is expected after a match of `len` bytes or more: at the start of a byte.
    #[inline(always)]
    pub fn sure(&self, len: u32) -> Option<u8> {
        (self.len >= len && self.expected != 0).then_some(self.expected as u8)
    }

    /// Probability that it comes.
    #[inline(always)]
    pub fn predict_sure(&mut self) -> u16 {
        self.context = (self.len / 13).min(31) as usize + 32 * self.misses.min(3) as usize;
        self.sure.p(self.context).max(1)
    }

    /// Takes whether it came. Where not, nothing is expected of this byte.
    #[inline(always)]
    pub fn observe_sure(&mut self, came: u8) {
        self.sure.update(self.context, came, 1023);
        if came == 0 {
            (self.expected, self.len) = (0, 0);
            self.misses += 1;
        }
    }

    /// Takes half a byte: the last seven bytes, latest lowest, and the high half of the next with a leading 1.
    #[inline(always)]
    pub fn half_byte(&mut self, last: u64, high: u32) {
        self.hashes = hashes_of(last, high);
        self.fetch_of(self.hashes);
    }

    /// Starts to fetch what `half_byte` of the same will need.
    #[inline(always)]
    pub fn fetch(&self, last: u64, high: u32) {
        self.fetch_of(hashes_of(last, high));
    }

    #[inline(always)]
    fn fetch_of(&self, hashes: [u32; 2]) {
        for (table, hash) in self.tables.iter().zip(hashes) {
            prefetch_index(table.bytes(), entry::<TABLE>(hash, 0));
        }
    }

    /// Takes a whole byte of a text that is only remembered.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        self.history.push(byte);
        self.index(self.history.len(), byte);
    }

    /// Takes a whole byte.
    pub fn end_byte(&mut self, byte: u8) {
        self.history.push(byte);
        let now = self.history.len();
        if self.at > 0 {
            self.at += 1;
            self.len = (self.len + 1).min(LEN_MAX);
        }
        let found = self.index(now, byte);
        self.far_step(byte);
        // After a mistake the place is kept for a while: most texts that differ in a word go on alike.
        if self.at == 0 || self.len < SURE_LEN || self.misses > MISSES_MAX {
            let [short, long] = found;
            self.look(now, [(self.far_place(), FAR_LEN), (long, LONG_LEN), (short, MIN_LEN)]);
        }
        self.expected = match self.history.get(self.at) {
            Some(next) if self.at > 0 && self.at < now => u32::from(*next) | 0x100,
            _ => 0,
        };
    }

    /// Takes text in that may be repeated, before the first byte of a segment: it predicts where it is repeated, and teaches
    /// nothing else.
    pub fn read(&mut self, text: &[u8]) {
        self.history.reserve(text.len());
        self.far.resize((2 * text.len()).next_power_of_two().min(FAR_PLACES_MAX), 0);
        let mut last = 0;
        for byte in text {
            self.half_byte(last, u32::from(byte >> 4) | 16);
            self.push(*byte);
            self.far_step(*byte);
            let at = self.far_entry();
            if let Some(place) = self.far.get_mut(at) {
                *place = self.history.len() as u32;
            }
            last = last << 8 | u64::from(*byte);
        }
        self.begin();
    }

    #[inline(always)]
    fn far_step(&mut self, byte: u8) {
        self.far_hash = self.far_hash.wrapping_add(u64::from(byte) + 1).wrapping_mul(FAR_STEP);
    }

    /// Where the entry of the last bytes is in `far`, which has a power of two of them.
    #[inline(always)]
    fn far_entry(&self) -> usize {
        (self.far_hash >> 32) as usize & self.far.len().wrapping_sub(1)
    }

    /// A place in the reference that seems to follow the same bytes; 0 for none.
    #[inline(always)]
    fn far_place(&self) -> usize {
        self.far.get(self.far_entry()).map_or(0, |place| *place as usize)
    }

    /// Remembers that the history up to `now`, of which this is the last byte, has the hashes that it has; where it had them
    /// before.
    #[inline(always)]
    fn index(&mut self, now: usize, byte: u8) -> [usize; 2] {
        let mut found = [0; 2];
        for ((found, table), hash) in found.iter_mut().zip(&mut self.tables).zip(self.hashes) {
            let at = entry::<TABLE>(hash, byte);
            let Some(place) = table.bytes_mut().get_mut(at..).and_then(|t| t.first_chunk_mut::<4>()) else {
                continue;
            };
            let old = u32::from_le_bytes(*place);
            let check = hash << PLACE_BITS;
            *place = (now as u32 | check).to_le_bytes();
            if (old ^ check) >> PLACE_BITS == 0 {
                *found = (old & ((1 << PLACE_BITS) - 1)) as usize;
            }
        }
        found
    }

    /// Takes the longest of the candidates, each with the bytes that must agree, if it is longer than what is followed.
    #[inline(always)]
    fn look(&mut self, now: usize, candidates: [(usize, u32); 3]) {
        let lost = self.at == 0 || self.misses > MISSES_MAX;
        let (mut best_len, mut best) = (if lost { 0 } else { self.len }, 0);
        for (candidate, least) in candidates {
            if candidate > 0 && candidate != self.at {
                let len = common(&self.history, candidate, now);
                if len >= least && len > best_len {
                    (best_len, best) = (len, candidate);
                }
            }
        }
        if best > 0 {
            (self.at, self.len, self.misses) = (best, best_len, 0);
        } else if self.misses > MISSES_MAX {
            self.at = 0;
        }
    }
}

/// Hashes of the last bytes, of which the latest is half a byte with a leading 1: for short places and for long ones.
#[inline(always)]
fn hashes_of(last: u64, high: u32) -> [u32; 2] {
    let last = last << 8 | u64::from(high);
    [hash_bytes(last & 0xff_ffff_ffff, 13), hash_bytes(last, 14)]
}

/// Where the entry of a hash begins: its line by the hash, its place there by half a byte.
#[inline(always)]
fn entry<const TABLE: usize>(hash: u32, byte: u8) -> usize {
    (((hash >> 12) as usize * 64) | (usize::from(byte & 15) * 4)) & (TABLE - 1)
}

/// Bytes before positions `a` and `b` that agree, at most `LEN_MAX`.
fn common(history: &[u8], a: usize, b: usize) -> u32 {
    let (Some(a), Some(b)) = (history.get(..a), history.get(..b)) else { return 0 };
    a.iter().rev().zip(b.iter().rev()).take(LEN_MAX as usize).take_while(|(x, y)| x == y).count() as u32
}
