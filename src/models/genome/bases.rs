//! Predicts nucleotides, two bits each, from the strand that is read and from its reverse complement.
//!
//! Contexts of 3 to 9 bases have counters, and one of 11 bit histories; six matches, three of each strand, follow
//! the last place where the latest 12, 16 or 24 bases occurred and go on behind a base that differs. What is learned
//! in a context is learned in that of the other strand too (inverted repeats: D. Pratas, GeCo, 2016). Contexts of 2 to 6 bases
//! are also told apart by the place in the codon, which `phase` finds.
//!
//! Twice as many contexts, up to 24 bases, and matches made data no more than 0.1 % smaller, and took twice the time. Most of
//! that is waiting for memory: rows are asked for one base before they are used.

use prefetch_index::prefetch_index;

use super::counter::Counter;
use super::phase::{CLASSES, Phase};
use crate::entropy::{Channel, HISTORIES, History, Lanes, Layers, Outcomes, Stage, squash_within, stretch};

/// Bases of the contexts with counters.
const ORDERS: [u32; 4] = [3, 6, 8, 9];
/// The same, with a place in the codon.
const PHASED: [u32; 4] = [2, 3, 4, 6];
/// The same, with bit histories, in a table of two rows for each base to come.
const LONG: u32 = 11;
/// Bases of what a match is found by.
const MATCHES: [u32; 3] = [12, 16, 24];
/// Bases that must be the same where a match begins, and the most that are compared.
const SAME_MIN: u32 = 20;
const SAME_MAX: usize = 32;
/// Of the last sixteen bases of a match at most this many differ.
const MISSES_MAX: u32 = 8;

/// Contexts from this many bases on learn from the other strand too; shorter ones know enough.
const STRAND_ORDER_MIN: u32 = 6;
const STRAND_PHASED_MIN: u32 = 3;

/// Inputs: a constant, and one of each of the above, matches for both strands.
const INPUTS: usize = 1 + ORDERS.len() + PHASED.len() + 1 + 2 * MATCHES.len();
const VECTORS: usize = 2;
const _: () = assert!(INPUTS <= VECTORS * 8);
/// First weight of an input, 1/16384.
const FIRST_WEIGHT: i16 = 2500;
/// Step of the mixer, 1/256 of an error: at the end, and what is added at the start.
const RATE: u32 = 18;
const RATE_FIRST: u32 = 30;
/// Bases after which half of `RATE_FIRST` is left.
const RATE_HALF: u32 = 2000;
/// Slowest learning of counters, and of what matches are worth.
const LIMIT: u32 = 1000;
const MATCH_LIMIT: u32 = 255;
/// Observations that the start of a counter counts as: bases are nearly random, and one of them says little.
const START_SEEN: u32 = 4;

/// Bases before the latest from which the other strand is learned.
const STRAND_MIN: usize = 32;
/// Most bases: the plain bytes of a segment.
const BASES_MAX: u64 = crate::base::SEGMENT_BYTES_MAX as u64;

/// Bytes of memory for the most bases.
pub(super) const BYTES: u64 = (2 + MATCHES.len() as u64) * 4 * BASES_MAX
    + BASES_MAX
    + ((1u64 << (2 * 9)) + (1 << (2 * 8)) + (1 << 17)) * 16
    + (4 << 20);

/// What has its lines in cache lines: rows that are neighbours are fetched with one access.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line<T, const N: usize>([T; N]);

/// A table of rows, a power of two of them, in lines of `N`, a power of two as well.
struct Rows<T, const N: usize>(Vec<Line<T, N>>);

impl<T: Copy, const N: usize> Rows<T, N> {
    fn new(row: T, len: usize) -> Rows<T, N> {
        Rows(vec![Line([row; N]); len.div_ceil(N)])
    }

    fn len(&self) -> usize {
        self.0.len() * N
    }

    #[inline(always)]
    fn get(&self, at: usize) -> T {
        self.0[(at / N) & (self.0.len() - 1)].0[at % N]
    }

    #[inline(always)]
    fn at(&mut self, at: usize) -> &mut T {
        let lines = self.0.len();
        &mut self.0[(at / N) & (lines - 1)].0[at % N]
    }

    /// Has a row and its neighbours fetched.
    #[inline(always)]
    fn fetch(&self, at: usize) {
        prefetch_index(self.0.as_slice(), at / N);
    }
}

/// Counters of a context's three nodes; the first is not used.
type Counters = [Counter; 4];

/// A check of a context, and the histories of its three nodes.
type Row = [u8; 4];

/// The context with bit histories.
struct Long {
    rows: Rows<Row, 16>,
    /// What came after each history, for the first bit of a base and the second.
    after: [Outcomes; 2],
    /// The row of the next base.
    at: usize,
}

/// Where the rows of a context lie, by its bases but for the last one, so that four that differ in it are neighbours; and its check.
#[inline(always)]
fn place(context: u64, len: usize) -> (usize, u8) {
    let context = context & ((1 << (2 * LONG)) - 1);
    let hash = (context >> 2).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let hash = (hash ^ hash >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let group = (hash >> 32) as usize & (len / 4 - 1);
    (group << 2 | (context & 3) as usize, (hash >> 16) as u8)
}

impl Long {
    /// The row of a context: its own, or that of one that has seen less.
    #[inline(always)]
    fn row(&mut self, context: u64) -> usize {
        let (at, check) = place(context, self.rows.len());
        let other = at ^ 4;
        let (here, there) = (self.rows.get(at), self.rows.get(other));
        // Without branches: which it is cannot be foretold.
        let (own, others) = (here[0] == check, there[0] == check);
        let row = at ^ usize::from(!own & (others | (there[1] < here[1]))) << 2;
        let kept = 0u32.wrapping_sub(u32::from(own | others));
        let fresh = u32::from_le_bytes([check, 0, 0, 0]);
        let row_bytes = self.rows.at(row);
        *row_bytes = (u32::from_le_bytes(*row_bytes) & kept | fresh & !kept).to_le_bytes();
        row
    }

    /// Has the rows of a context and of its neighbours fetched.
    #[inline(always)]
    fn fetch(&self, context: u64) {
        self.rows.fetch(place(context, self.rows.len()).0);
    }
}

/// Follows an earlier occurrence of the latest bases.
#[derive(Clone, Copy, Default)]
struct Match {
    /// The base that is next, or before it where the other strand is followed.
    at: usize,
    /// Bases that were the same; 0 where there is no match.
    len: u32,
    /// Whether each of the latest bases differed, the latest lowest.
    misses: u32,
    /// What it predicts, and by which of `Worth` that is weighed.
    base: u8,
    worth: usize,
}

/// Lengths of matches that are told apart, by how many of the latest four bases, and of all, differed.
const WORTHS: usize = 32 * 64;

/// Predictor of nucleotides.
pub(super) struct Bases {
    counters: [Rows<Counters, 4>; ORDERS.len()],
    phased: [Rows<Counters, 4>; PHASED.len()],
    long: Long,
    /// By hash of the latest bases: the place behind them.
    places: [Vec<u32>; MATCHES.len()],
    /// Of the strand that is read, then of the other one.
    matches: [[Match; 2]; MATCHES.len()],
    worths: [[Vec<Counter>; 2]; MATCHES.len()],
    phase: Phase,
    mixer: Layers<VECTORS, 3, 512, 4>,
    by_match: Stage<128>,
    by_context: Stage<16384>,
    /// Where in `places` the bases before the latest are, and those of the other strand: they are looked for one base late, so
    /// that memory has had the time to answer.
    slots: [[usize; 2]; MATCHES.len()],
    /// The latest bases, the latest lowest; and the reverse complement of them, the latest highest.
    forward: u64,
    reverse: u64,
    bases: Vec<u8>,
}

impl Bases {
    /// For `len` bases.
    pub fn new(len: usize) -> Bases {
        let places = len.next_power_of_two().clamp(1 << 10, BASES_MAX as usize);
        let even = [Counter::even(START_SEEN); 4];
        let worth = || vec![Counter::of(3 << 14, 6); WORTHS];
        Bases {
            counters: ORDERS.map(|order| Rows::new(even, 1 << (2 * order))),
            phased: PHASED.map(|order| Rows::new(even, 16 << (2 * order))),
            long: Long { rows: Rows::new([0; 4], 2 * places), after: [Outcomes::new(), Outcomes::new()], at: 0 },
            places: MATCHES.map(|_| vec![0; places]),
            matches: Default::default(),
            worths: MATCHES.map(|_| [worth(), worth()]),
            phase: Phase::new(),
            mixer: Layers::new(Lanes::new(|i| if i < INPUTS { FIRST_WEIGHT } else { 0 })),
            by_match: Stage::new(),
            by_context: Stage::new(),
            slots: Default::default(),
            forward: 0,
            reverse: 0,
            bases: Vec::with_capacity(len),
        }
    }

    /// Passes a base, 0 to 3; 3 less it is what pairs with it.
    pub fn code(&mut self, channel: &mut impl Channel, base: u8) -> u8 {
        let class = self.phase.class();
        let forward = self.forward;
        let direct = ORDERS.map(|order| (forward & ((1 << (2 * order)) - 1)) as usize);
        let phased = PHASED.map(|order| ((forward & ((1 << (2 * order)) - 1)) as usize) << 4 | class);
        self.long.at = self.long.row(forward);
        let (likely, p) = self.look_at_matches();
        let trust = [1, 24_000, 36_000, 50_000, 60_000, 64_000, 65_200].iter().filter(|bound| p >= **bound).count();
        let rate = (RATE + RATE_FIRST * RATE_HALF / (RATE_HALF + self.bases.len() as u32)) as i32;
        let mut node = 1usize;
        for second in [false, true] {
            let mut inputs = [0i16; VECTORS * 8];
            inputs[0] = 256;
            let (counted, rest) = inputs[1..].split_at_mut(ORDERS.len());
            for ((input, counters), row) in counted.iter_mut().zip(&self.counters).zip(direct) {
                *input = stretch(counters.get(row)[node & 3].p()) as i16;
            }
            let (counted, rest) = rest.split_at_mut(PHASED.len());
            for ((input, counters), row) in counted.iter_mut().zip(&self.phased).zip(phased) {
                *input = stretch(counters.get(row)[node & 3].p()) as i16;
            }
            let history: History = self.long.rows.get(self.long.at)[node & 3];
            if history != 0 {
                rest[0] = self.long.after[usize::from(second)].stretched(history);
            }
            let matches = self.matches.as_flattened().iter().zip(self.worths.as_flattened());
            for (input, (found, worths)) in rest[1..].iter_mut().zip(matches) {
                if found.len > 0 && (!second || usize::from(found.base >> 1) == node & 1) {
                    let p = u32::from(worths[found.worth % WORTHS].p());
                    // What is left to the other three is shared alike.
                    let half = p + (65_535 - p) / 3;
                    let p = if second { p * 0xffff / half.max(1) } else { half };
                    let bit = if second { found.base & 1 } else { found.base >> 1 };
                    let stretched = stretch(p.min(65_535) as u16) as i16;
                    *input = if bit == 1 { stretched } else { -stretched };
                }
            }
            let inputs = Lanes::new(|i| inputs[i]);
            let expected = match (trust, second) {
                (0, _) => 0,
                (_, false) => 1 + usize::from(likely >> 1),
                (_, true) if usize::from(likely >> 1) == node & 1 => 1 + usize::from(likely & 1),
                (_, true) => 0,
            };
            let bit_node = node - 1;
            let by_match = (trust * 3 + bit_node) * 3 + expected;
            let chosen = [by_match, 128 + (bit_node << 4 | (forward & 15) as usize), 256 + (bit_node << 4 | class)];
            let mixed = self.mixer.mix(&inputs, chosen, bit_node);
            self.by_match.choose(by_match);
            self.by_context.choose((bit_node << 8 | (forward & 255) as usize) << 4 | class);
            let refined = u32::from(self.by_match.refine(mixed)) + u32::from(self.by_context.refine(mixed));
            let p = ((2 * u32::from(squash_within(mixed)) + refined + 2) / 4).clamp(1, 65_535) as u16;
            let bit = channel.pass(base >> u8::from(!second) & 1, p) & 1;
            self.mixer.update(&inputs, bit, rate);
            self.by_match.update(bit);
            self.by_context.update(bit);
            for (counters, row) in self.counters.iter_mut().zip(direct) {
                counters.at(row)[node & 3].learn(bit, LIMIT);
            }
            for (counters, row) in self.phased.iter_mut().zip(phased) {
                counters.at(row)[node & 3].learn(bit, LIMIT);
            }
            let history = &mut self.long.rows.at(self.long.at)[node & 3];
            if *history != 0 {
                self.long.after[usize::from(second)].update(*history, bit);
            }
            *history = HISTORIES.after(*history, bit);
            node = node << 1 | usize::from(bit);
        }
        let base = (node & 3) as u8;
        self.take(base);
        base
    }

    /// What matches predict: the likeliest base, and how likely it is, 1/65536; 0 where there is none.
    #[inline(always)]
    fn look_at_matches(&mut self) -> (u8, u16) {
        let mut best = (0, 0);
        for (pair, worths) in self.matches.iter_mut().zip(&self.worths) {
            for (strand, found) in pair.iter_mut().enumerate().filter(|(_, found)| found.len > 0) {
                let base = self.bases.get(found.at).copied().unwrap_or(0);
                found.base = if strand == 0 { base } else { 3 - base };
                let len = if found.len < 16 { found.len } else { 16 + (found.len.min(32) - 16) / 4 } as usize;
                found.worth = len << 6 | (found.misses.count_ones().min(3) << 4 | found.misses & 15) as usize;
                let p = worths[strand][found.worth % WORTHS].p();
                if p > best.1 {
                    best = (found.base, p);
                }
            }
        }
        best
    }

    /// Takes a base in.
    #[inline(always)]
    fn take(&mut self, base: u8) {
        self.phase.learn(self.forward, self.reverse, self.bases.len() >= STRAND_MIN, base);
        self.bases.push(base);
        self.forward = self.forward << 2 | u64::from(base);
        self.reverse = self.reverse >> 2 | u64::from(3 - base) << 62;
        // Whichever base is next, the context after it is one of four neighbours.
        self.long.fetch(self.forward << 2);
        self.long.fetch(self.reverse >> (64 - 2 * LONG));
        for (counters, order) in self.counters.iter().zip(ORDERS).filter(|(_, order)| *order > 6) {
            counters.fetch(((self.forward << 2) & ((1 << (2 * order)) - 1)) as usize);
            counters.fetch((self.reverse >> (64 - 2 * order)) as usize);
        }
        for (pair, worths) in self.matches.iter_mut().zip(&mut self.worths) {
            for (strand, found) in pair.iter_mut().enumerate().filter(|(_, found)| found.len > 0) {
                let hit = found.base == base;
                worths[strand][found.worth % WORTHS].learn(u8::from(hit), MATCH_LIMIT);
                found.misses = found.misses << 1 | u32::from(!hit);
                found.len = if hit { found.len + 1 } else { (found.len * 3 / 4).max(1) };
                found.at = if strand == 0 { found.at + 1 } else { found.at.wrapping_sub(1) };
                if (found.misses & 0xffff).count_ones() > MISSES_MAX || found.at >= self.bases.len() {
                    found.len = 0;
                }
            }
        }
        if self.bases.len() > STRAND_MIN {
            self.learn_other_strand();
            self.find_matches();
        }
    }

    /// Looks for matches where there are none, or short ones, and remembers where the bases before the latest are.
    #[inline(always)]
    fn find_matches(&mut self) {
        let here = self.bases.len();
        let tables = self.places.iter_mut().zip(&mut self.slots);
        for ((pair, (places, slots)), len) in self.matches.iter_mut().zip(tables).zip(MATCHES) {
            let [forward, reverse] = pair;
            let [own, other] = *slots;
            if forward.len < len {
                let at = places[own] as usize;
                if at > 0 {
                    // The latest base has come since.
                    let at = at + 1;
                    let before = self.bases.get(..at).unwrap_or_default().iter().rev();
                    let pairs = before.zip(self.bases.iter().rev()).take(SAME_MAX);
                    let same = pairs.take_while(|(a, b)| a == b).count() as u32;
                    if same >= len.min(SAME_MIN) && same > forward.len {
                        *forward = Match { at, len: same, ..Match::default() };
                    }
                }
            }
            if reverse.len < len {
                // The latest bases on the other strand: they begin where those of the place do, and go on before them.
                let at = (places[other] as usize).saturating_sub(len as usize + 1);
                if at > 0 {
                    let behind = self.bases.get(at..).unwrap_or_default().iter();
                    let pairs = behind.zip(self.bases.iter().rev()).take(SAME_MAX);
                    let same = pairs.take_while(|(a, b)| **a == 3 - **b).count() as u32;
                    if same >= len.min(SAME_MIN) && same > reverse.len {
                        *reverse = Match { at: at - 1, len: same, ..Match::default() };
                    }
                }
            }
            places[own] = (here - 1) as u32;
            let hash = |bases: u64| {
                let hash = (bases + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                ((hash ^ hash >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32) as usize & (places.len() - 1)
            };
            *slots = [hash(self.forward << (64 - 2 * len) >> (64 - 2 * len)), hash(self.reverse >> (64 - 2 * len))];
            for slot in slots {
                prefetch_index(places.as_slice(), *slot);
            }
        }
    }

    /// Learns what the latest bases are to the other strand: what comes before them there, in the context that they are.
    #[inline(always)]
    fn learn_other_strand(&mut self) {
        // As they were one base ago, when their rows were fetched.
        let (forward, reverse) = (self.forward >> 2, self.reverse << 2);
        let before = |order: u32| 3 - (forward >> (2 * order) & 3) as u8;
        let learn = |row: &mut [Counter; 4], base: u8| {
            row[1].learn(base >> 1, LIMIT);
            row[usize::from(2 | base >> 1)].learn(base & 1, LIMIT);
        };
        for (counters, order) in self.counters.iter_mut().zip(ORDERS).filter(|(_, order)| *order >= STRAND_ORDER_MIN) {
            learn(counters.at((reverse >> (64 - 2 * order)) as usize), before(order));
        }
        for (counters, order) in self.phased.iter_mut().zip(PHASED).filter(|(_, order)| *order >= STRAND_PHASED_MIN) {
            let class = self.phase.class_of_other_strand(order + 1);
            learn(counters.at(((reverse >> (64 - 2 * order)) as usize) << 4 | class), before(order));
        }
        let at = self.long.row(reverse >> (64 - 2 * LONG));
        let (row, base) = (self.long.rows.at(at), before(LONG));
        row[1] = HISTORIES.after(row[1], base >> 1);
        let node = usize::from(2 | base >> 1);
        row[node] = HISTORIES.after(row[node], base & 1);
    }
}

const _: () = assert!(CLASSES <= 16);
