//! Predicts qualities of reads: how sure the sequencer was of each base.
//!
//! A quality depends on the ones right before it, on how much they have varied in the read so far, on the place in the read
//! (the contexts of J. Bonfield's fqzcomp, 2013), and on the base it is of. Each context has a prediction of its own, bit by
//! bit, and they are mixed. Of reads of 101 bases the place alone, as one context more and in a last stage, gained 0.8 %, the base
//! 1.6 %.

use super::counter::Counter;
use super::layout::Weight;
use super::tree::{Step, Tree};
use crate::entropy::{Channel, Lanes, Layers, Stage, squash_within, stretch};

/// Contexts.
const CONTEXTS: usize = 11;
/// Vectors of inputs: the contexts and a constant.
const VECTORS: usize = 2;
/// First weight of an input, 1/16384.
const FIRST_WEIGHT: i16 = 2600;
/// Step of the mixer, 1/256 of an error: at the end, and what is added at the start.
const RATE: u32 = 10;
const RATE_FIRST: u32 = 40;
/// Qualities after which half of `RATE_FIRST` is left.
const RATE_HALF: u32 = 4000;
/// Slowest learning of the counters.
const LIMIT: u32 = 1000;
/// Qualities are printable bytes, so that a number of one takes seven bits.
const BITS_MAX: u32 = 7;
/// Counters of a context, by qualities to come.
const COUNTERS_MIN: usize = 1 << 14;
const COUNTERS_MAX: usize = 1 << 19;
/// Nodes of a quality's bits and 128 contexts.
const STAGE: usize = 1 << (2 * BITS_MAX);

/// Bytes of memory for the most qualities.
pub(super) const BYTES: u64 = (CONTEXTS * COUNTERS_MAX * 4) as u64 + 2 * Stage::<STAGE>::BYTES + (1 << 17);

/// Predictor of qualities.
pub(super) struct Quality {
    tree: Tree,
    /// The number of each byte.
    numbers: [u8; 256],
    /// Bits of a row of nodes.
    bits: u32,
    /// By context: rows of nodes.
    counters: [Vec<Counter>; CONTEXTS],
    mixer: Layers<VECTORS, 4, 2048, 128>,
    by_change: Stage<STAGE>,
    by_place: Stage<STAGE>,
    /// Qualities so far.
    seen: u32,
    read: Read,
}

/// What is known of a read.
#[derive(Default)]
struct Read {
    /// The last four qualities, the latest first.
    last: [u8; 4],
    /// Qualities so far.
    at: u32,
    /// Sum of the differences between neighbours, sum of all, and how many were very good or very bad.
    changes: u32,
    sum: u32,
    extremes: u32,
}

impl Quality {
    /// For `len` qualities of 1 to 128 values, in rising order.
    pub fn new(values: &[Weight], len: usize) -> Quality {
        let mut numbers = [0; 256];
        for (number, weight) in values.iter().enumerate() {
            numbers[usize::from(weight.value)] = number as u8;
        }
        let counters = len.next_power_of_two().clamp(COUNTERS_MIN, COUNTERS_MAX);
        Quality {
            tree: Tree::new(values),
            numbers,
            bits: values.len().max(2).next_power_of_two().ilog2().min(BITS_MAX),
            counters: std::array::from_fn(|_| vec![Counter::even(0); counters]),
            mixer: Layers::new(Lanes::new(|i| if i < CONTEXTS { FIRST_WEIGHT } else { 0 })),
            by_change: Stage::new(),
            by_place: Stage::new(),
            seen: 0,
            read: Read::default(),
        }
    }

    /// A new read begins.
    pub fn begin(&mut self) {
        self.read = Read::default();
    }

    /// Where the rows of the contexts begin. `bases`: number of the base and of the one before.
    #[inline(always)]
    fn rows(&self, bases: (u32, u32)) -> [usize; CONTEXTS] {
        let read = &self.read;
        let [a, b, c, d] = read.last.map(u32::from);
        let at = read.at;
        let changes = (read.changes / 2).min(63);
        let mean = (read.sum * 2).checked_div(at).unwrap_or(0);
        let alike = u32::from(a == b) | u32::from(b == c) << 1 | u32::from(c == d) << 2;
        let bases = bases.0 << 2 | bases.1 & 3;
        let contexts = [
            a << 7 | b,
            (a << 7 | b.max(c)) << 7 | changes.min(15),
            a << 10 | at.min(1023),
            ((a << 7 | b) << 7 | c.max(d)) << 7 | changes >> 2,
            (a << 6 | changes) << 4 | (at / 8).min(15),
            mean.min(127) << 7 | a,
            (a.max(b) << 7 | c.max(d)) << 3 | alike,
            (a << 7 | b) << 5 | bases,
            (a << 5 | bases) << 1 | u32::from(at < 2),
            at,
            (read.extremes.min(15) << 6 | changes) << 7 | a,
        ];
        contexts.map(|context| {
            let hash = (u64::from(context) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            (hash as usize) << self.bits
        })
    }

    /// Passes a quality. `bases`: number of the base and of the one before, 4 where it is none of the four.
    pub fn code(&mut self, channel: &mut impl Channel, value: u8, bases: (u32, u32)) -> u8 {
        let number = self.numbers[usize::from(value)];
        let rows = self.rows(bases);
        let mask = self.counters[0].len() - 1;
        let (last, at) = (usize::from(self.read.last[0]), self.read.at as usize);
        let changes = (self.read.changes / 2).min(63) as usize;
        let rate = (RATE + RATE_FIRST * RATE_HALF / (RATE_HALF + self.seen)) as i32;
        let mut node = 1usize;
        let mut depth = 0;
        let number = loop {
            let mut inputs = [0i16; VECTORS * 8];
            for ((input, counters), row) in inputs.iter_mut().zip(&self.counters).zip(rows) {
                *input = stretch(counters[(row | node) & mask].p()) as i16;
            }
            inputs[CONTEXTS] = 256;
            let inputs = Lanes::new(|i| inputs[i]);
            let place = depth.min(7);
            let chosen = [node, 128 + last, 256 + (changes << 3 | place), 1024 + ((at / 4).min(63) << 3 | place)];
            let mixed = self.mixer.mix(&inputs, chosen, node);
            self.by_change.choose(node << 7 | changes);
            self.by_place.choose(node << 7 | at.min(127));
            let refined = u32::from(self.by_change.refine(mixed)) + u32::from(self.by_place.refine(mixed));
            let p = ((2 * u32::from(squash_within(mixed)) + refined) / 4).clamp(1, 65_535) as u16;
            let bit = channel.pass(self.tree.bit(node, number), p) & 1;
            self.mixer.update(&inputs, bit, rate);
            self.by_change.update(bit);
            self.by_place.update(bit);
            for (counters, row) in self.counters.iter_mut().zip(rows) {
                counters[(row | node) & mask].learn(bit, LIMIT);
            }
            depth += 1;
            match self.tree.step(node, bit) {
                Step::Node(next) => node = usize::from(next),
                Step::Value(number) => break number,
            }
        };
        self.take(number);
        self.tree.value(number)
    }

    /// Takes the number of a quality into what is known of the read.
    fn take(&mut self, number: u8) {
        let best = self.tree.len().saturating_sub(1);
        let read = &mut self.read;
        if read.at > 0 {
            read.changes += u32::from(number.abs_diff(read.last[0]));
        }
        read.extremes += u32::from(usize::from(number) == best || number < 4);
        read.sum += u32::from(number);
        read.at += 1;
        read.last = [number, read.last[0], read.last[1], read.last[2]];
        self.seen += 1;
    }
}
