//! The predictor: contexts, mixing, final stages.

use super::Predictor;
use super::layout::Kind;
use super::matches::Matches;
use super::slots::Slots;
use crate::entropy::{Apm, HISTORIES, History, INPUTS, Mixer, StateMap, squash, stretch};

/// Hashed contexts: orders 2 to 6, word, word pair, two by kind.
const HASHED: usize = 9;
/// Direct contexts (orders 0 and 1), hashed ones, two of the match, one constant.
const USED: usize = 2 + HASHED + 3;
const _: () = assert!(USED <= INPUTS);

/// First weight of every input, 1/16384, in each of the three rows that add up.
const FIRST_WEIGHT: i16 = 1700;
/// Rows: by partial byte, by match and bit, by last byte.
const ROWS: usize = 256 + 4 * 8 * 4 + 256;
/// Learning rate of the mixer, 1/256 of an error.
const RATE: i32 = 10;
/// Slowest learning of the maps.
const LIMIT: u32 = 255;

/// Memory of one predictor, bytes, without the history of the segment.
pub(super) const MEMORY_BYTES: u64 = Slots::BYTES + (1 << 20) + (1 << 22);

/// State of a bit predictor for one segment.
pub(super) struct ContextMixing {
    kind: Kind,
    slots: Slots,
    /// Order 1: histories by last byte and partial byte. Order 0 by partial byte.
    order1: Box<[[History; 256]; 256]>,
    order0: [History; 256],
    maps: [StateMap<256>; HASHED + 2],
    matches: Matches,
    mixer: Mixer,
    apm0: Apm<1024>,
    apm1: Apm<65536>,

    /// Hashes of the contexts at the byte's start; rows at the nibble's start.
    hashes: [u32; HASHED],
    rows: [usize; HASHED],
    /// Histories that predicted this bit.
    seen: [History; HASHED + 2],
    inputs: [i16; INPUTS],

    /// Bits of this byte so far with a leading 1, bits so far, the node within the nibble.
    partial: usize,
    bit_index: u32,
    node: usize,
    /// The last eight bytes, latest lowest.
    last: u64,
    word: u32,
    word_before: u32,
    /// By kind: hash of the enclosing tag or the last key; of the field's number and so on.
    scope: u32,
    column: u32,
    /// The line before, by column.
    above: Vec<u8>,
    line: Vec<u8>,
    field: u32,

    stretched: i32,
}

impl Default for Box<ContextMixing> {
    fn default() -> Box<ContextMixing> {
        Box::new(ContextMixing {
            kind: Kind::Text,
            slots: Slots::default(),
            order1: Box::new([[0; 256]; 256]),
            order0: [0; 256],
            maps: std::array::from_fn(|_| StateMap::of_histories()),
            matches: Matches::default(),
            mixer: Mixer::new(ROWS, USED, FIRST_WEIGHT),
            apm0: Apm::new(),
            apm1: Apm::new(),
            hashes: [0; HASHED],
            rows: [0; HASHED],
            seen: [0; HASHED + 2],
            inputs: [0; INPUTS],
            partial: 1,
            bit_index: 0,
            node: 1,
            last: 0,
            word: 0,
            word_before: 0,
            scope: 0,
            column: 0,
            above: Vec::new(),
            line: Vec::new(),
            field: 0,
            stretched: 0,
        })
    }
}

/// Longest line whose columns are remembered.
const COLUMNS_MAX: usize = 4096;

#[inline]
fn hash(a: u32, b: u32) -> u32 {
    let h = (a ^ b.rotate_left(15)).wrapping_mul(0x85EB_CA6B);
    (h ^ h >> 15).wrapping_mul(0xC2B2_AE35)
}

#[inline]
fn hash64(v: u64, salt: u32) -> u32 {
    let h = (v ^ u64::from(salt) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (h >> 32) as u32 ^ (h >> 12) as u32 & 0xfff
}

impl ContextMixing {
    /// Forgets everything: the state before the first bit of a segment.
    pub fn reset(&mut self, kind: Kind, raw_len: usize) {
        self.kind = kind;
        self.slots.reset(raw_len);
        self.order1.fill([0; 256]);
        self.order0 = [0; 256];
        self.maps.fill(StateMap::of_histories());
        self.matches.reset(raw_len);
        self.mixer.reset(USED, FIRST_WEIGHT);
        self.apm0.reset();
        self.apm1.reset();
        (self.hashes, self.seen, self.inputs) = ([0; HASHED], [0; HASHED + 2], [0; INPUTS]);
        (self.partial, self.bit_index, self.node, self.last) = (1, 0, 1, 0);
        (self.word, self.word_before, self.scope, self.column, self.field) = (0, 0, 0, 0, 0);
        self.above.clear();
        self.line.clear();
        self.stretched = 0;
        self.begin_byte();
    }

    /// Looks the rows of all contexts up, for the first or the second nibble.
    fn find_rows(&mut self) {
        let salt = if self.bit_index == 0 { 0 } else { self.partial as u32 };
        let places = self.hashes.map(|h| self.slots.place(hash(h, salt)));
        std::hint::black_box(places.iter().fold(0, |all, (base, _)| all ^ self.slots.touch(*base)));
        for (row, place) in self.rows.iter_mut().zip(places) {
            *row = self.slots.find(place);
        }
    }

    /// Computes the contexts of the next byte.
    fn begin_byte(&mut self) {
        let last = self.last;
        let c1 = (last & 0xff) as u32;
        let above = self.above.get(self.column as usize).copied().unwrap_or(0);
        let above_next = self.above.get(self.column as usize + 1).copied().unwrap_or(0);
        let (special, other) = match self.kind {
            Kind::Text => (hash(self.word_before, hash(c1, 0x51)), hash64(last >> 8 & 0xff_ffff, 8)),
            Kind::Nested => (hash(self.scope, hash(self.word, 0x52)), hash(self.scope, hash64(last & 0xffff, 9))),
            Kind::Lines => (
                hash(u32::from(above) << 8 | u32::from(above_next), hash(c1, 0x53)),
                hash(self.field, hash(self.word, hash(u32::from(above), 10))),
            ),
            Kind::Binary => (hash64(last >> 8 & 0xffff, 11), hash64(last & 0xff00_ffff, 12)),
        };
        self.hashes = [
            hash64(last & 0xffff, 1),
            hash64(last & 0xff_ffff, 2),
            hash64(last & 0xffff_ffff, 3),
            hash64(last & 0xff_ffff_ffff, 4),
            hash64(last & 0xffff_ffff_ffff, 5),
            hash(self.word, hash(c1, 6)),
            hash(self.word, hash(self.word_before, 7)),
            special,
            other,
        ];
        self.find_rows();
    }

    /// Takes a whole byte into the contexts.
    fn end_byte(&mut self) {
        let byte = (self.partial & 0xff) as u8;
        self.last = self.last << 8 | u64::from(byte);
        self.matches.end_byte(byte, hash64(self.last & 0xff_ffff_ffff, 13));
        let lower = byte.to_ascii_lowercase();
        if lower.is_ascii_alphabetic() || byte >= 128 {
            self.word = hash(self.word, u32::from(lower) + 0x100);
        } else if byte.is_ascii_digit() {
            self.word = hash(self.word, 0x30);
        } else if self.word != 0 {
            self.word_before = self.word;
            self.word = 0;
        }
        match byte {
            b'\n' => {
                std::mem::swap(&mut self.above, &mut self.line);
                self.line.clear();
                (self.column, self.field) = (0, 0);
            }
            _ => {
                if self.line.len() < COLUMNS_MAX {
                    self.line.push(byte);
                }
                self.column += 1;
                if matches!(byte, b' ' | b',' | b'\t' | b';' | b'|' | b':' | b'[' | b']' | b'=') {
                    self.field = hash(self.field, u32::from(byte));
                }
            }
        }
        match byte {
            b'<' | b'{' | b'[' => self.scope = hash(u32::from(byte), self.scope >> 20),
            b'>' | b'"' | b':' | b'=' => self.scope = hash(self.word_before, u32::from(byte)),
            _ => {}
        }
        (self.partial, self.bit_index, self.node) = (1, 0, 1);
        self.begin_byte();
    }
}

impl Predictor for ContextMixing {
    #[inline]
    fn predict(&mut self) -> u16 {
        let c1 = (self.last & 0xff) as usize;
        for i in 0..HASHED {
            self.seen[i] = self.slots.get(self.rows[i], self.node);
        }
        self.seen[HASHED] = self.order0[self.partial & 255];
        self.seen[HASHED + 1] = self.order1[c1][self.partial & 255];
        for i in 0..HASHED + 2 {
            self.inputs[i] = stretch(self.maps[i].p(usize::from(self.seen[i]))) as i16;
        }
        let from_match = self.matches.predict(self.bit_index);
        self.inputs[HASHED + 2] = from_match[0];
        self.inputs[HASHED + 3] = from_match[1];
        self.inputs[HASHED + 4] = 256;
        let confidence = self.matches.confidence();
        let class = match c1 as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => 0,
            b'0'..=b'9' => 1,
            0x80..=0xff => 2,
            _ => 3,
        };
        let chosen =
            [self.partial & 255, 256 + confidence * 32 + class * 8 + self.bit_index as usize, 256 + 4 * 8 * 4 + c1];
        self.stretched = self.mixer.mix(&self.inputs, chosen);
        let p = u32::from(squash(self.stretched));
        let p0 = u32::from(self.apm0.refine(self.stretched, self.partial & 255 | confidence << 8));
        let p1 = u32::from(self.apm1.refine(self.stretched, (self.partial & 255) | c1 << 8));
        ((2 * p + p0 + p1 + 2) / 4).clamp(1, 65535) as u16
    }

    #[inline]
    fn observe(&mut self, bit: u8) {
        self.mixer.update(&self.inputs, bit, RATE);
        self.apm0.update(bit, 6);
        self.apm1.update(bit, 6);
        for i in 0..HASHED + 2 {
            self.maps[i].update(usize::from(self.seen[i]), bit, LIMIT);
        }
        for i in 0..HASHED {
            self.slots.set(self.rows[i], self.node, HISTORIES.after(self.seen[i], bit));
        }
        self.order0[self.partial & 255] = HISTORIES.after(self.seen[HASHED], bit);
        let c1 = (self.last & 0xff) as usize;
        self.order1[c1][self.partial & 255] = HISTORIES.after(self.seen[HASHED + 1], bit);
        self.matches.observe(self.bit_index, bit);

        self.partial = self.partial << 1 | usize::from(bit);
        self.bit_index += 1;
        self.node = self.node << 1 | usize::from(bit);
        if self.bit_index == 8 {
            self.end_byte();
        } else if self.bit_index == 4 {
            self.node = 1;
            self.find_rows();
        }
    }
}
