//! The predictor: contexts, histories, two layers of mixing, a last stage.

use super::contexts::{Contexts, HASHED, Kind, ORDERS, SORTS, hash_bytes};
use super::matches::Matches;
use super::slots::{Place, Row, Slots};
use crate::entropy::{HISTORIES, History, LANES, Lanes, Layers, Outcomes, Stage, boxed, squash_within};
use crate::models::Predictor;

/// Contexts with histories: hashed ones, order 0, order 1.
const CONTEXTS: usize = HASHED + 2;
/// The match and a constant follow.
const MATCH: usize = CONTEXTS;
const CONSTANT: usize = CONTEXTS + 1;
const _: () = assert!(CONSTANT < LANES);

/// First weight of every input, 1/16384.
const FIRST_WEIGHT: i16 = 4500;
/// Learning rate of the mixer, 1/256 of an error.
const RATE: i32 = 50;
/// Rows by match, bit and known orders; by last byte; by sorts of the last two bytes and bit.
const ROWS: usize = 4096;
const ROWS_BYTE: usize = 512;
const ROWS_SORTS: usize = 2048;

/// State of a bit predictor.
pub(super) struct Mixing {
    contexts: Contexts,
    slots: Slots,
    /// Order 1: histories by last byte and partial byte. Order 0 by partial byte.
    order1: Box<[[History; 256]; 256]>,
    order0: [History; 256],
    outcomes: Box<[Outcomes; CONTEXTS]>,
    matches: Matches,
    mixer: Layers<ROWS, 256>,
    stage: Stage<65536>,

    /// Hashes of the contexts at the byte's start; their rows in the table, and copies to work on, by nibble.
    hashes: [u32; HASHED],
    places: [Place; HASHED],
    numbers: [u32; HASHED],
    rows: [Row; HASHED],
    /// Histories that predicted this bit.
    seen: [History; CONTEXTS],
    inputs: Lanes,
    /// Bits of this byte so far with a leading 1, bits so far, the node within the nibble.
    partial: usize,
    bit_index: u32,
    node: usize,
}

impl Mixing {
    /// Bytes of the tables, without the history.
    pub const BYTES: u64 =
        Slots::BYTES + Matches::BYTES + (ROWS * 32 + (256 * 12) + 65536 * 32 + 65536 + CONTEXTS * 1024) as u64;

    /// A predictor that knows nothing.
    pub fn new(kind: Kind) -> Mixing {
        let mut weights = [FIRST_WEIGHT; LANES];
        weights[CONSTANT] = 0;
        let mut new = Mixing {
            contexts: Contexts::new(kind),
            slots: Slots::default(),
            order1: boxed([0; 256]),
            order0: [0; 256],
            outcomes: boxed(Outcomes::new()),
            matches: Matches::default(),
            mixer: Layers::new(&weights),
            stage: Stage::new(),
            hashes: [0; HASHED],
            places: [Place::default(); HASHED],
            numbers: [0; HASHED],
            rows: [[0; 16]; HASHED],
            seen: [0; CONTEXTS],
            inputs: Lanes::new(&[0; LANES]),
            partial: 1,
            bit_index: 0,
            node: 1,
        };
        new.begin(kind);
        new
    }

    /// Bytes of memory in use.
    pub fn memory_bytes(&self) -> u64 {
        Mixing::BYTES + self.matches.history_bytes()
    }

    /// Takes what another has learned, and stands at the start of a segment.
    pub fn copy_from(&mut self, other: &Mixing) {
        self.slots.copy_from(&other.slots);
        self.order1.as_mut_slice().copy_from_slice(other.order1.as_slice());
        self.order0 = other.order0;
        self.outcomes.as_mut_slice().clone_from_slice(other.outcomes.as_slice());
        self.matches.copy_from(&other.matches);
        self.mixer.copy_from(&other.mixer);
        self.stage.copy_from(&other.stage);
        self.begin(other.contexts.kind);
    }

    /// Stands at the start of a text, keeping what was learned.
    pub fn begin(&mut self, kind: Kind) {
        self.contexts = Contexts::new(kind);
        self.matches.begin();
        (self.partial, self.bit_index, self.node) = (1, 0, 1);
        self.hashes = self.contexts.hashes();
        self.touch_rows();
        self.find_rows();
    }

    /// Starts reading the rows of all contexts, for the first or the second nibble.
    #[inline(always)]
    fn touch_rows(&mut self) {
        let nibble = self.partial as u32;
        for i in 0..HASHED {
            let hash = self.hashes[i];
            self.places[i] = if self.bit_index == 0 { Place::first(hash) } else { Place::second(hash, nibble) };
        }
        std::hint::black_box(self.places.iter().fold(0, |all, place| all ^ self.slots.touch(*place)));
    }

    #[inline(always)]
    fn find_rows(&mut self) {
        for i in 0..HASHED {
            self.numbers[i] = self.slots.find(self.places[i], &mut self.rows[i]);
        }
    }

    #[inline(always)]
    fn store_rows(&mut self) {
        for i in 0..HASHED {
            self.slots.store(self.numbers[i], &self.rows[i]);
        }
    }

    /// Takes a whole byte into the contexts.
    fn end_byte(&mut self) {
        let byte = self.partial as u8;
        self.contexts.observe(byte);
        (self.partial, self.bit_index, self.node) = (1, 0, 1);
        self.hashes = self.contexts.hashes();
        self.touch_rows();
        // The match model has its own cache misses: they overlap with those of the rows.
        let last = self.contexts.last;
        self.matches.end_byte(byte, hash_bytes(last & 0xff_ffff_ffff, 13), hash_bytes(last, 14));
        self.find_rows();
    }
}

impl Predictor for Mixing {
    #[inline(always)]
    fn predict(&mut self) -> u16 {
        let c1 = (self.contexts.last & 0xff) as usize;
        let c2 = (self.contexts.last >> 8 & 0xff) as usize;
        let partial = self.partial & 255;
        self.stage.choose(partial | c1 << 8);
        let mut inputs = [0; LANES];
        for i in 0..HASHED {
            self.seen[i] = self.rows[i][self.node & 15];
        }
        self.seen[HASHED] = self.order0[partial];
        self.seen[HASHED + 1] = self.order1[c1][partial];
        for (i, input) in inputs.iter_mut().take(CONTEXTS).enumerate() {
            *input = self.outcomes[i].stretched(self.seen[i]);
        }
        let known: usize = self.seen.iter().take(ORDERS).map(|h| usize::from(*h != 0)).sum();
        inputs[MATCH] = self.matches.predict(self.bit_index);
        inputs[CONSTANT] = 256;
        self.inputs = Lanes::new(&inputs);
        let bit = self.bit_index as usize;
        let sorts = usize::from(SORTS[c1]) << 4 | usize::from(SORTS[c2]);
        let chosen =
            [(self.matches.confidence() << 3 | bit) << 3 | known, ROWS_BYTE + c1, ROWS_SORTS + (sorts << 3 | bit)];
        let mixed = self.mixer.mix(&self.inputs, chosen, partial);
        let p = u32::from(squash_within(mixed)) + u32::from(self.stage.refine(mixed));
        (p.div_ceil(2)).clamp(1, 65_535) as u16
    }

    #[inline(always)]
    fn observe(&mut self, bit: u8) {
        self.stage.update(bit);
        for i in 0..CONTEXTS {
            self.outcomes[i].update(self.seen[i], bit);
        }
        for i in 0..HASHED {
            self.rows[i][self.node & 15] = HISTORIES.after(self.seen[i], bit);
        }
        let partial = self.partial & 255;
        self.order0[partial] = HISTORIES.after(self.seen[HASHED], bit);
        let c1 = (self.contexts.last & 0xff) as usize;
        self.order1[c1][partial] = HISTORIES.after(self.seen[HASHED + 1], bit);
        self.matches.observe(self.bit_index, bit);

        self.partial = self.partial << 1 | usize::from(bit);
        self.bit_index += 1;
        self.node = self.node << 1 | usize::from(bit);
        if self.bit_index == 4 {
            self.node = 1;
            self.store_rows();
            self.touch_rows();
            self.mixer.update(&self.inputs, bit, RATE);
            self.find_rows();
        } else {
            self.mixer.update(&self.inputs, bit, RATE);
            if self.bit_index == 8 {
                self.store_rows();
                self.end_byte();
            }
        }
    }
}
