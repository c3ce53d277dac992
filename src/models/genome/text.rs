//! Predicts names of reads, headers and other lines of text: bytes, by those before them and by the line above, token by
//! token (the idea of the name models of J. Bonfield's fqzcomp, 2013, here mixed bit by bit).

use super::counter::Counter;
use crate::entropy::{Channel, Lanes, Layers, Stage, squash_within, stretch};

/// Contexts.
const CONTEXTS: usize = 11;
/// Vectors of inputs: the contexts and a constant.
const VECTORS: usize = 2;
/// First weight of an input, 1/16384.
const FIRST_WEIGHT: i16 = 4000;
/// Step of the mixer, 1/256 of an error.
const RATE: i32 = 14;
/// Slowest learning of the counters.
const LIMIT: u32 = 127;
/// Tokens and bytes of the line above that are remembered; what is longer is predicted without it.
const LINE_MAX: usize = 1024;

/// Rows of counters, by bytes to come.
const ROWS_MIN: usize = 1 << 10;
const ROWS_MAX: usize = 1 << 16;

/// Bytes of memory for the most text.
pub(super) const BYTES: u64 = (ROWS_MAX * 64) as u64 + Stage::<32768>::BYTES + (1 << 18);

/// A line in tokens.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    /// Where each token begins.
    starts: Vec<usize>,
}

impl Line {
    fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// A byte of a token, 0 where it has ended.
    fn at(&self, token: usize, place: usize) -> u8 {
        let Some(start) = self.starts.get(token) else { return 0 };
        let end = self.starts.get(token + 1).copied().unwrap_or(self.bytes.len());
        if start + place < end { self.bytes.get(start + place).copied().unwrap_or(0) } else { 0 }
    }

    /// Bytes of a token.
    fn len(&self, token: usize) -> usize {
        let start = self.starts.get(token).copied().unwrap_or(self.bytes.len());
        self.starts.get(token + 1).copied().unwrap_or(self.bytes.len()) - start
    }
}

/// Kinds of bytes: a token is a row of one kind.
fn kind(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => 0,
        b'a'..=b'z' | b'A'..=b'Z' => 1,
        // Each a token of its own.
        _ => 2,
    }
}

/// Predictor of lines.
pub(super) struct Text {
    counters: Vec<[Counter; 16]>,
    mixer: Layers<VECTORS, 3, 4096, 16>,
    stage: Stage<32768>,
    hashes: [u32; CONTEXTS],
    /// The last eight bytes, latest lowest.
    last: u64,
    above: Line,
    line: Line,
    /// Place within the token.
    place: usize,
    /// The token has been that of the line above so far.
    same: bool,
    /// Hash of the token so far.
    token: u32,
    /// Whether the last token was that of the line above.
    was_same: u32,
}

fn hash(a: u32, b: u32) -> u32 {
    let h = (a ^ b.rotate_left(15)).wrapping_mul(0x85EB_CA6B);
    (h ^ h >> 15).wrapping_mul(0xC2B2_AE35)
}

fn hash64(v: u64, salt: u32) -> u32 {
    let h = (v ^ u64::from(salt) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (h >> 32) as u32
}

impl Text {
    /// For about `len` bytes.
    pub fn new(len: usize) -> Text {
        let rows = (len * CONTEXTS).next_power_of_two().clamp(ROWS_MIN, ROWS_MAX);
        let mut text = Text {
            counters: vec![[Counter::even(0); 16]; rows],
            mixer: Layers::new(Lanes::new(|i| if i < CONTEXTS { FIRST_WEIGHT } else { 0 })),
            stage: Stage::new(),
            hashes: [0; CONTEXTS],
            last: 0,
            above: Line::default(),
            line: Line::default(),
            place: 0,
            same: true,
            token: 0,
            was_same: 0,
        };
        text.choose();
        text
    }

    /// The contexts of the next byte.
    fn choose(&mut self) {
        // The token that the next byte belongs to, if it goes on; where it does not, the byte in which it ends is new.
        let token = self.line.starts.len().saturating_sub(1);
        let above = u32::from(self.above.at(token, self.place));
        let next = u32::from(self.above.at(token, self.place + 1));
        let follows = u32::from(self.above.at(token + 1, 0));
        let (field, place) = (token as u32, self.place.min(255) as u32);
        let same = u32::from(self.same) | self.was_same << 1;
        let longer = self.above.len(token) as u32;
        let last = self.last;
        self.hashes = [
            hash(field, above << 8 | same),
            hash(hash(field, place), above << 16 | next << 8 | follows | same << 24),
            hash(hash(field, place), longer << 8 | same),
            hash(hash(field, self.token), above << 8 | 3),
            hash(hash(self.token, above), same << 8 | 4),
            hash64(last & 0xff, 5),
            hash64(last & 0xffff, 6),
            hash64(last & 0xff_ffff, 7),
            hash64(last & 0xffff_ffff, 8),
            hash64(last & 0xffff_ffff_ffff, 9),
            hash(hash64(last & 0xffff, 10), field << 8 | above),
        ];
    }

    /// Takes a byte into the contexts.
    fn take(&mut self, byte: u8) {
        self.last = self.last << 8 | u64::from(byte);
        if byte == b'\n' {
            std::mem::swap(&mut self.above, &mut self.line);
            self.line.clear();
            (self.place, self.same, self.token, self.was_same) = (0, true, 0, 0);
            return;
        }
        let begins = self.line.bytes.last().is_none_or(|last| kind(*last) != kind(byte) || kind(byte) == 2);
        if begins {
            if let Some(token) = self.line.starts.len().checked_sub(1) {
                let whole = self.same && self.above.at(token, self.place) == 0;
                self.was_same = (self.was_same << 1 | u32::from(whole)) & 3;
            }
            (self.place, self.same, self.token) = (0, true, 0);
        }
        if self.line.bytes.len() < LINE_MAX {
            if begins {
                self.line.starts.push(self.line.bytes.len());
            }
            self.line.bytes.push(byte);
        }
        let token = self.line.starts.len().saturating_sub(1);
        self.same &= self.above.at(token, self.place) == byte;
        self.place += 1;
        self.token = hash(self.token, u32::from(byte) + 1);
    }

    /// The rows of the contexts, with the bits of the byte so far.
    #[inline(always)]
    fn rows(&self, partial: usize) -> [usize; CONTEXTS] {
        let mask = self.counters.len() - 1;
        self.hashes.map(|h| hash(h, partial as u32) as usize & mask)
    }

    /// Passes a bit. `chosen`: rows of the mixer; `context`: that of the last stage.
    #[inline(always)]
    fn code_bit(
        &mut self,
        channel: &mut impl Channel,
        rows: &[usize; CONTEXTS],
        node: usize,
        bit: u8,
        context: usize,
        chosen: [usize; 3],
    ) -> u8 {
        let mut inputs = [0i16; VECTORS * 8];
        for (input, row) in inputs.iter_mut().zip(rows) {
            *input = stretch(self.counters[*row][node & 15].p()) as i16;
        }
        inputs[CONTEXTS] = 256;
        let inputs = Lanes::new(|i| inputs[i]);
        let mixed = self.mixer.mix(&inputs, chosen, node);
        self.stage.choose(context);
        let refined = self.stage.refine(mixed);
        let p = ((u32::from(squash_within(mixed)) + u32::from(refined)) / 2).clamp(1, 65_535) as u16;
        let bit = channel.pass(bit, p) & 1;
        self.mixer.update(&inputs, bit, RATE);
        self.stage.update(bit);
        for row in rows {
            self.counters[*row][node & 15].learn(bit, LIMIT);
        }
        bit
    }

    /// Passes a byte.
    pub fn code(&mut self, channel: &mut impl Channel, byte: u8) -> u8 {
        self.choose();
        let token = self.line.starts.len().saturating_sub(1);
        let above = usize::from(self.above.at(token, self.place));
        let guess = if above == 0 { usize::from(self.above.at(token + 1, 0)) } else { above };
        let same = usize::from(self.same);
        let mut rows = self.rows(1);
        // While the token is that of the line above, one bit says that it stays so; most bytes take no more.
        if self.same && guess > 0 {
            let context = 16384 | token.min(63) << 4 | self.place.min(15);
            let bit = self.code_bit(
                channel,
                &rows,
                0,
                u8::from(usize::from(byte) == guess),
                context,
                [8, 1536 | token.min(31) << 3, 2048 | token.min(63) << 4 | self.place.min(15)],
            );
            if bit == 1 {
                self.take(guess as u8);
                return guess as u8;
            }
        }
        let mut partial = 1usize;
        for n in 0..8 {
            if n == 4 {
                rows = self.rows(partial);
            }
            let node = if n < 4 { partial & 15 } else { partial & ((1 << (n - 4)) - 1) | 1 << (n - 4) };
            // What the line above says of this bit, while it agrees with those before.
            let expected = if (guess | 256) >> (8 - n) == partial { 1 + (guess >> (7 - n) & 1) } else { 0 };
            let chosen = [
                expected << 4 | n << 1 | same,
                256 + (token.min(31) << 3 | n),
                1024 + (partial & 255) + 256 * usize::from(expected > 0),
            ];
            let context = (partial & 255) << 6 | expected << 4 | same << 3 | self.place.min(7);
            let bit = self.code_bit(channel, &rows, node, byte >> (7 - n) & 1, context, chosen);
            partial = partial << 1 | usize::from(bit);
        }
        let byte = partial as u8;
        self.take(byte);
        byte
    }
}
