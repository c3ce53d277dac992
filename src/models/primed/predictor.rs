//! The predictor: contexts, histories, two layers of mixing, a last stage.

use super::contexts::{Contexts, HASHED, Kind, ORDERS, SORTS};
use super::matches::Matches;
use super::slots::{Place, Slots};
use crate::entropy::{HISTORIES, History, LANES, Lanes, Layers, Outcome, Outcomes, Stage, boxed, squash_within};
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
const RATE: i32 = 64;
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
    /// Last stages: by last byte and partial byte; by the byte that is expected, or what is known in its stead.
    stage: Stage<65536>,
    stage_match: Stage<32768>,

    /// Hashes of the contexts at the byte's start; their rows in the table, by nibble.
    hashes: [u32; HASHED],
    rows: [u32; HASHED],
    /// Histories that predicted this bit.
    seen: [History; CONTEXTS],
    after: [Outcome; CONTEXTS],
    inputs: Lanes,
    /// Bits of this byte so far with a leading 1, bits so far, the node within the nibble.
    partial: usize,
    bit_index: u32,
    node: usize,
}

impl Mixing {
    /// Bytes of the tables, without the history.
    pub const BYTES: u64 = Slots::BYTES
        + Matches::BYTES
        + (ROWS * 32 + (256 * 12) + (65536 + 32768) * 32 + 65536 + CONTEXTS * 1024) as u64;

    /// Most bytes that a reference takes beside them.
    pub const REFERENCE_BYTES: u64 = Matches::REFERENCE_BYTES;

    /// A predictor that knows nothing.
    pub fn new(kind: Kind) -> Mixing {
        let mut weights = [FIRST_WEIGHT; LANES];
        weights[CONSTANT] = 0;
        let mut new = Mixing {
            contexts: Contexts::new(kind, 0),
            slots: Slots::default(),
            order1: boxed([0; 256]),
            order0: [0; 256],
            outcomes: boxed(Outcomes::new()),
            matches: Matches::default(),
            mixer: Layers::new(&weights),
            stage: Stage::new(),
            stage_match: Stage::new(),
            hashes: [0; HASHED],
            rows: [0; HASHED],
            seen: [0; CONTEXTS],
            after: [0; CONTEXTS],
            inputs: Lanes::new(&[0; LANES]),
            partial: 1,
            bit_index: 0,
            node: 1,
        };
        new.begin(kind);
        new
    }

    /// Which contexts it uses.
    pub fn kind(&self) -> Kind {
        self.contexts.kind
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
        self.stage_match.copy_from(&other.stage_match);
        self.begin(other.contexts.kind);
    }

    /// Stands at the start of a text, keeping what was learned.
    pub fn begin(&mut self, kind: Kind) {
        self.begin_records(kind, 0);
    }

    /// The same for records of a length.
    pub fn begin_records(&mut self, kind: Kind, record: usize) {
        self.contexts = Contexts::new(kind, record);
        self.matches.begin();
        (self.partial, self.bit_index, self.node) = (1, 0, 1);
        self.hashes = self.contexts.hashes();
        self.find_rows();
    }

    /// Takes text in that a segment is likely to repeat, before its first byte.
    pub fn read(&mut self, text: &[u8]) {
        self.matches.read(text);
    }

    /// Finds the rows of all contexts, for the first or the second nibble.
    #[inline(always)]
    fn find_rows(&mut self) {
        let nibble = self.partial as u32;
        for i in 0..HASHED {
            let hash = self.hashes[i];
            let place = if self.bit_index == 0 { Place::first(hash) } else { Place::second(hash, nibble) };
            self.rows[i] = self.slots.find(place);
        }
    }

    /// Takes a whole byte into the contexts.
    fn end_byte(&mut self) {
        let byte = self.partial as u8;
        self.contexts.observe(byte);
        (self.partial, self.bit_index, self.node) = (1, 0, 1);
        self.hashes = self.contexts.hashes();
        self.hashes.iter().for_each(|hash| self.slots.fetch(Place::first(*hash).line));
        // The match model has its own cache misses: they overlap with those of the rows.
        self.matches.end_byte(byte);
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
        let expected = self.matches.expected();
        let confidence = self.matches.confidence();
        self.stage_match.choose(match expected {
            Some(byte) => 1 << 14 | confidence << 11 | (self.bit_index as usize) << 8 | usize::from(byte),
            None => usize::from(SORTS[c1]) << 8 | partial,
        });
        let mut inputs = [0; LANES];
        let (table, node) = (self.slots.table(), self.node);
        for (seen, row) in self.seen.iter_mut().zip(self.rows) {
            *seen = table[Slots::at(row, node)];
        }
        self.seen[HASHED] = self.order0[partial];
        self.seen[HASHED + 1] = self.order1[c1][partial];
        for (i, input) in inputs.iter_mut().take(CONTEXTS).enumerate() {
            self.after[i] = self.outcomes[i].after(self.seen[i]);
            *input = Outcomes::stretched(self.after[i]);
        }
        let known: usize = self.seen.iter().take(ORDERS).map(|h| usize::from(*h != 0)).sum();
        inputs[MATCH] = self.matches.predict(self.bit_index);
        inputs[CONSTANT] = 256;
        self.inputs = Lanes::new(&inputs);
        let bit = self.bit_index as usize;
        let sorts = usize::from(SORTS[c1]) << 4 | usize::from(SORTS[c2]);
        let chosen = [(confidence << 3 | bit) << 3 | known, ROWS_BYTE + c1, ROWS_SORTS + (sorts << 3 | bit)];
        let mixed = self.mixer.mix(&self.inputs, chosen, partial);
        let p = u32::from(squash_within(mixed)).max(1)
            + u32::from(self.stage.refine(mixed))
            + 2 * u32::from(self.stage_match.refine(mixed));
        (p.div_ceil(4)).clamp(1, 65_535) as u16
    }

    #[inline(always)]
    fn observe(&mut self, bit: u8) {
        self.stage.update(bit);
        self.stage_match.update(bit);
        for i in 0..CONTEXTS {
            self.outcomes[i].set(self.seen[i], Outcomes::moved(self.after[i], bit));
        }
        let (table, node) = (self.slots.table(), self.node);
        for (seen, row) in self.seen.iter().zip(self.rows) {
            table[Slots::at(row, node)] = HISTORIES.after(*seen, bit);
        }
        let partial = self.partial & 255;
        self.order0[partial] = HISTORIES.after(self.seen[HASHED], bit);
        let c1 = (self.contexts.last & 0xff) as usize;
        self.order1[c1][partial] = HISTORIES.after(self.seen[HASHED + 1], bit);
        self.matches.observe(self.bit_index, bit);

        self.partial = self.partial << 1 | usize::from(bit);
        self.bit_index += 1;
        self.node = self.node << 1 | usize::from(bit);
        self.mixer.update(&self.inputs, bit, RATE);
        match self.bit_index {
            3 => {
                let three = self.partial as u32;
                self.hashes.iter().for_each(|hash| self.slots.fetch(Place::line_of_second(*hash, three)));
            }
            4 => {
                self.node = 1;
                self.matches.half_byte(self.contexts.last, self.partial as u32);
                self.find_rows();
            }
            8 => self.end_byte(),
            _ => {}
        }
    }
}
