//! The predictor: contexts, histories, two layers of mixing, a last stage. Its profiles differ in how many there are.
//!
//! It is bound by how much there is to do for each bit, not by waiting: two segments decoded in turns of a bit, on one
//! thread, were 2 to 7 % faster than one after the other with the usual profile and no faster with the swift one, and
//! fetching rows of the last stages a bit earlier changed nothing.

use super::contexts::{Contexts, HASHED_MAX, Kind, ORDERS};
use super::matches::Matches;
use super::profile::{PROFILES, Profile, SPECS, Spec};
use super::slots::{Place, Slots};
use crate::entropy::{HISTORIES, History, LANES, Lanes, Layers, Link, Outcomes, Stage, boxed, squash_within};
use crate::models::Predictor;

/// Contexts with histories: hashed ones, order 1, order 0.
const CONTEXTS_MAX: usize = HASHED_MAX + 2;

/// First weight of every input, 1/16384.
const FIRST_WEIGHT: i16 = 4500;
/// Rows of the mixer by match, bit and known orders; by last byte, the byte before it, the expected byte, partial byte; by
/// sorts of the last two bytes and bit.
const ROWS: usize = 4096;
const ROWS_BYTE: usize = 512;
const ROWS_BEFORE: usize = ROWS_BYTE + 256;
const ROWS_EXPECTED: usize = ROWS_BEFORE + 256;
const ROWS_PARTIAL: usize = ROWS_EXPECTED + 256;
const ROWS_SORTS: usize = 2048;
const _: () = assert!(ROWS_PARTIAL + 256 <= ROWS_SORTS);

/// A predictor of some profile.
pub(super) trait Tables: Predictor + Send + Sync + Sized + 'static {
    /// Which of the profiles it is.
    const PROFILE: Profile;
    /// Bytes of the tables, without the history.
    const BYTES: u64;
    /// Bytes at the end of a prior's text that it learns from.
    const TEXT_BYTES: usize;
    /// Most bytes that a reference takes beside them.
    const REFERENCE_BYTES: u64;

    /// A predictor that knows nothing.
    fn new(kind: Kind) -> Box<Self>;

    /// Which contexts it uses.
    fn kind(&self) -> Kind;

    /// All that it has read.
    fn history(&self) -> &[u8];

    /// Bytes of memory in use.
    fn memory_bytes(&self) -> u64 {
        Self::BYTES + self.history().len() as u64
    }

    /// Takes what another has learned, and stands at the start of a segment.
    fn copy_from(&mut self, other: &Self);

    /// Stands at the start of a text, keeping what was learned.
    fn begin(&mut self, kind: Kind) {
        self.begin_with(Contexts::new(kind));
    }

    /// The same with contexts that need more than a kind.
    fn begin_with(&mut self, contexts: Contexts);

    /// Takes text in that a segment is likely to repeat, before its first byte.
    fn read(&mut self, text: &[u8]);

    /// Learns from a text what follows which contexts, and nothing of how to mix and correct predictions: five times as fast
    /// as byte by byte. Where it is `remembered` it predicts what repeats it. Stands at the start of a text before and after.
    fn skim(&mut self, text: &[u8], remembered: bool);

    /// Fades all histories: what comes next is like what came before, and yet other data.
    fn fade(&mut self);

    /// Takes a byte in by asking for one bit after the other: `code` is told what is asked and how probable a 1 is, and says
    /// what it is.
    fn next_byte(&mut self, code: impl FnMut(Asked, u16) -> u8) -> u8;
}

/// What a bit says.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// Whether the byte is this one.
    Whole(u8),
    /// A bit of it: by so many it is shifted.
    Bit(u32),
}

/// State of a bit predictor of profile number `P`: `TABLE` bytes of hashed contexts, `PLACES` bytes for each table of places
/// of matches, mixers of `V` vectors with `CHOSEN` rows for each bit, last stages of `STAGE` contexts; a chain of `LINKS` of
/// the hashed contexts, and one more last stage, of `STAGE2` contexts, where there is a chain.
pub(super) struct Mixing<
    const P: usize,
    const TABLE: usize,
    const PLACES: usize,
    const V: usize,
    const CHOSEN: usize,
    const STAGE: usize,
    const LINKS: usize,
    const STAGE2: usize,
> {
    contexts: Contexts,
    slots: Slots<TABLE>,
    /// Order 1: histories by last byte and partial byte. Order 0 by partial byte.
    order1: Box<[[History; 256]; 256]>,
    order0: [History; 256],
    outcomes: Box<[Outcomes; CONTEXTS_MAX]>,
    matches: Matches<PLACES>,
    /// Each corrects what the one before it predicts, the first one order 1.
    chain: Box<[Link; LINKS]>,
    chained: [i32; LINKS],
    mixer: Layers<V, CHOSEN, ROWS, 256>,
    /// Last stages: by last byte and partial byte; by the last two; by the byte that is expected, or what is known in its
    /// stead.
    stage: Stage<STAGE>,
    stage2: Stage<STAGE2>,
    stage_match: Stage<STAGE>,

    /// Hashes of the contexts at the byte's start; their rows in the table, by nibble.
    hashes: [u32; HASHED_MAX],
    rows: [u32; HASHED_MAX],
    /// The byte that this one is taken to become, before its last bit is known, and the hashes after it.
    guess: Option<u8>,
    hashes_guessed: [u32; HASHED_MAX],
    /// Histories that predicted this bit.
    seen: [History; CONTEXTS_MAX],
    inputs: Lanes<V>,
    /// Bits of this byte so far with a leading 1, bits so far, the node within the nibble.
    partial: usize,
    bit_index: u32,
    node: usize,
    /// Bytes so far, and whether what comes after histories is learned in this one.
    place: u32,
    learns: bool,
}

impl<
    const P: usize,
    const TABLE: usize,
    const PLACES: usize,
    const V: usize,
    const CHOSEN: usize,
    const STAGE: usize,
    const LINKS: usize,
    const STAGE2: usize,
> Mixing<P, TABLE, PLACES, V, CHOSEN, STAGE, LINKS, STAGE2>
{
    const SPEC: &Spec = &SPECS[P];
    const HASHED: usize = Self::SPEC.hashed;
    const ORDER1: usize = Self::HASHED;
    const ORDER0: usize = Self::HASHED + 1;
    const CONTEXTS: usize = Self::HASHED + 1 + Self::SPEC.order0 as usize;
    /// The match and a constant follow.
    const MATCH: usize = Self::CONTEXTS;
    const CONSTANT: usize = Self::CONTEXTS + 1;
    const CHAINED: usize = Self::CONSTANT + 1;

    const TABLES: u64 = Slots::<TABLE>::BYTES
        + Matches::<PLACES>::BYTES
        + Layers::<V, CHOSEN, ROWS, 256>::BYTES
        + 2 * Stage::<STAGE>::BYTES
        + Stage::<STAGE2>::BYTES
        + (65536 + CONTEXTS_MAX * size_of::<Outcomes>() + LINKS * size_of::<Link>()) as u64;

    fn first_weights() -> Lanes<V> {
        Lanes::new(|i| if i == Self::CONSTANT { 0 } else { FIRST_WEIGHT })
    }

    /// What order 1 predicts of this bit, stretched.
    #[inline(always)]
    fn order1_input(&self) -> i32 {
        i32::from(self.outcomes[Self::ORDER1].stretched(self.seen[Self::ORDER1]))
    }

    /// Finds the rows of all contexts, for the first or the second nibble.
    #[inline(always)]
    fn find_rows(&mut self) {
        let nibble = self.partial as u32;
        for i in 0..Self::HASHED {
            let hash = self.hashes[i];
            let place = if self.bit_index == 0 { Place::first(hash) } else { Place::second(hash, nibble) };
            self.rows[i] = self.slots.find(place);
        }
    }

    /// Finds what predicts the first bits of a byte.
    #[inline(always)]
    fn begin_byte(&mut self) {
        (self.partial, self.bit_index, self.node) = (1, 0, 1);
        self.learns = self.place.is_multiple_of(Self::SPEC.learn_every);
        self.find_rows();
    }

    /// Starts to fetch the first rows of the next byte, which is likely to be reached by this bit.
    #[inline(always)]
    fn guess(&mut self, bit: bool) {
        let byte = (self.partial << 1) as u8 | u8::from(bit);
        if let Some(hashes) = self.contexts.hashes_after(byte) {
            (self.guess, self.hashes_guessed) = (Some(byte), hashes);
            hashes.iter().take(Self::HASHED).for_each(|hash| self.slots.fetch(Place::first(*hash).line));
        }
    }

    /// Takes a whole byte into the contexts.
    #[inline(always)]
    fn end_byte(&mut self, byte: u8) {
        self.contexts.observe(byte);
        self.matches.end_byte(byte);
        self.place = self.place.wrapping_add(1);
        let guessed = self.guess.take() == Some(byte);
        if self.sure().is_none() {
            if guessed {
                self.hashes = self.hashes_guessed
            } else {
                self.fetch_hashes()
            }
            self.begin_byte();
        }
    }

    /// Hashes of the contexts that nobody has guessed.
    #[inline(never)]
    fn fetch_hashes(&mut self) {
        self.hashes = self.contexts.hashes();
        self.hashes.iter().take(Self::HASHED).for_each(|hash| self.slots.fetch(Place::first(*hash).line));
    }

    /// At the start of a byte: the byte that is expected, where it is so likely that it is asked for as a whole.
    #[inline(always)]
    fn sure(&self) -> Option<u8> {
        self.matches.sure(Self::SPEC.sure_len)
    }

    /// Takes whether that byte came. Where it did the byte has ended, where not its bits follow.
    #[inline(always)]
    fn observe_sure(&mut self, byte: u8, came: u8) {
        self.matches.observe_sure(came);
        if came != 0 {
            self.matches.half_byte(self.contexts.now.last, u32::from(byte) >> 4 | 16);
            self.end_byte(byte);
        } else {
            self.fetch_hashes();
            self.begin_byte();
        }
    }
}

impl<
    const P: usize,
    const TABLE: usize,
    const PLACES: usize,
    const V: usize,
    const CHOSEN: usize,
    const STAGE: usize,
    const LINKS: usize,
    const STAGE2: usize,
> Tables for Mixing<P, TABLE, PLACES, V, CHOSEN, STAGE, LINKS, STAGE2>
{
    const PROFILE: Profile = PROFILES[P];
    const BYTES: u64 = Self::TABLES;
    const TEXT_BYTES: usize = Self::SPEC.text_bytes;
    const REFERENCE_BYTES: u64 = Matches::<PLACES>::REFERENCE_BYTES;

    fn new(kind: Kind) -> Box<Self> {
        const { assert!(Self::CHAINED + LINKS <= V * LANES && Self::HASHED <= HASHED_MAX && LINKS <= Self::HASHED) };
        let mut new = Box::new(Mixing {
            contexts: Contexts::new(kind),
            slots: Slots::default(),
            order1: boxed([0; 256]),
            order0: [0; 256],
            outcomes: boxed(Outcomes::new()),
            matches: Matches::default(),
            chain: boxed(Link::new()),
            chained: [0; LINKS],
            mixer: Layers::new(Self::first_weights()),
            stage: Stage::new(),
            stage2: Stage::new(),
            stage_match: Stage::new(),
            hashes: [0; HASHED_MAX],
            rows: [0; HASHED_MAX],
            guess: None,
            hashes_guessed: [0; HASHED_MAX],
            seen: [0; CONTEXTS_MAX],
            inputs: Lanes::splat(0),
            partial: 1,
            bit_index: 0,
            node: 1,
            place: 0,
            learns: true,
        });
        new.begin(kind);
        new
    }

    fn kind(&self) -> Kind {
        self.contexts.kind
    }

    fn history(&self) -> &[u8] {
        self.matches.history()
    }

    fn copy_from(&mut self, other: &Self) {
        self.slots.copy_from(&other.slots);
        self.order1.as_mut_slice().copy_from_slice(other.order1.as_slice());
        self.order0 = other.order0;
        self.outcomes.as_mut_slice().clone_from_slice(other.outcomes.as_slice());
        self.matches.copy_from(&other.matches);
        self.chain.as_mut_slice().clone_from_slice(other.chain.as_slice());
        self.mixer.copy_from(&other.mixer);
        self.stage.copy_from(&other.stage);
        self.stage2.copy_from(&other.stage2);
        self.stage_match.copy_from(&other.stage_match);
        self.begin(other.contexts.kind);
    }

    fn begin_with(&mut self, contexts: Contexts) {
        self.contexts = contexts;
        self.matches.begin();
        self.place = 0;
        self.guess = None;
        self.fetch_hashes();
        self.begin_byte();
    }

    fn read(&mut self, text: &[u8]) {
        self.matches.read(text);
    }

    fn skim(&mut self, text: &[u8], remembered: bool) {
        let mut hashes = self.contexts.hashes();
        let mut bytes = text.iter().peekable();
        while let Some(byte) = bytes.next() {
            let (now, last) = (hashes, self.contexts.now.last);
            self.contexts.observe(*byte);
            if let Some(next) = bytes.peek() {
                // Which rows come next is certain, and they are fetched while this byte is learned.
                hashes = self.contexts.hashes();
                for hash in hashes.iter().take(Self::HASHED) {
                    self.slots.fetch(Place::first(*hash).line);
                    self.slots.fetch(Place::line_of_second(*hash, u32::from(**next >> 5) | 8));
                }
                if remembered {
                    self.matches.fetch(self.contexts.now.last, u32::from(**next >> 4) | 16);
                }
            }
            let (high, low) = (u32::from(*byte >> 4), u32::from(*byte & 15));
            for hash in now.iter().take(Self::HASHED) {
                self.slots.learn(Place::first(*hash), high);
                self.slots.learn(Place::second(*hash, high | 16), low);
            }
            let order1 = &mut self.order1[(last & 0xff) as usize];
            let mut partial = 1;
            for shift in (0..8).rev() {
                let bit = *byte >> shift & 1;
                order1[partial & 255] = HISTORIES.after(order1[partial & 255], bit);
                if Self::SPEC.order0 {
                    self.order0[partial & 255] = HISTORIES.after(self.order0[partial & 255], bit);
                }
                partial = partial << 1 | usize::from(bit);
            }
            if remembered {
                self.matches.half_byte(last, high | 16);
                self.matches.push(*byte);
            }
        }
        self.begin(self.contexts.kind);
    }

    fn fade(&mut self) {
        self.slots.fade();
        let small = self.order1.as_flattened_mut().iter_mut().chain(&mut self.order0);
        small.for_each(|history| *history = HISTORIES.fade(*history));
    }

    #[inline(always)]
    fn next_byte(&mut self, mut code: impl FnMut(Asked, u16) -> u8) -> u8 {
        if let Some(byte) = self.sure() {
            let came = code(Asked::Whole(byte), self.matches.predict_sure());
            self.observe_sure(byte, came);
            if came != 0 {
                return byte;
            }
        }
        let mut byte = 0;
        for shift in (0..8).rev() {
            let bit = code(Asked::Bit(shift), self.predict());
            self.observe(bit);
            byte = byte << 1 | bit;
        }
        byte
    }
}

impl<
    const P: usize,
    const TABLE: usize,
    const PLACES: usize,
    const V: usize,
    const CHOSEN: usize,
    const STAGE: usize,
    const LINKS: usize,
    const STAGE2: usize,
> Predictor for Mixing<P, TABLE, PLACES, V, CHOSEN, STAGE, LINKS, STAGE2>
{
    #[inline(always)]
    fn predict(&mut self) -> u16 {
        let c1 = (self.contexts.now.last & 0xff) as usize;
        let c2 = (self.contexts.now.last >> 8 & 0xff) as usize;
        let partial = self.partial & 255;
        self.stage.choose(partial | c1 << 8);
        if LINKS > 0 {
            // The first of the hashed contexts is that of two bytes.
            self.stage2.choose((self.hashes[0] as usize).wrapping_add(partial * 0x9E35));
        }
        let expected = self.matches.expected();
        let confidence = self.matches.confidence();
        self.stage_match.choose(match expected {
            Some(byte) => 1 << 14 | confidence << 11 | (self.bit_index as usize) << 8 | usize::from(byte),
            None => usize::from(self.contexts.now.sorts >> 4) << 8 | partial,
        });
        let (table, node) = (self.slots.table(), self.node);
        for i in 0..Self::HASHED {
            self.seen[i] = table[Slots::<TABLE>::at(self.rows[i], node)];
        }
        self.seen[Self::ORDER1] = self.order1[c1][partial];
        if Self::SPEC.order0 {
            self.seen[Self::ORDER0] = self.order0[partial];
        }
        let by_match = self.matches.predict(self.bit_index);
        let mut prediction = self.order1_input();
        for k in 0..LINKS {
            prediction = self.chain[k].refine(self.seen[k], prediction);
            self.chained[k] = prediction;
        }
        self.inputs = Lanes::new(|i| match i {
            _ if i < Self::CONTEXTS => self.outcomes[i].stretched(self.seen[i]),
            _ if i == Self::MATCH => by_match,
            _ if i == Self::CONSTANT => 256,
            _ if i < Self::CHAINED + LINKS => self.chained[i - Self::CHAINED] as i16,
            _ => 0,
        });
        let known: usize = self.seen.iter().take(ORDERS).map(|h| usize::from(*h != 0)).sum();
        let bit = self.bit_index as usize;
        let sorts = usize::from(self.contexts.now.sorts);
        let sets = [
            (confidence << 3 | bit) << 3 | known,
            ROWS_BYTE + c1,
            ROWS_SORTS + (sorts << 3 | bit),
            ROWS_BEFORE + c2,
            ROWS_EXPECTED + expected.map_or(0, usize::from),
            ROWS_PARTIAL + partial,
        ];
        let mixed = self.mixer.mix(&self.inputs, std::array::from_fn(|s| sets[s]), partial);
        let plain = u32::from(squash_within(mixed)).max(1);
        let by_bytes = u32::from(self.stage.refine(mixed));
        let by_match = u32::from(self.stage_match.refine(mixed));
        // Half by what is expected, half by the rest.
        let p = if LINKS > 0 {
            (2 * plain + by_bytes + u32::from(self.stage2.refine(mixed)) + 4 * by_match).div_ceil(8)
        } else {
            (plain + by_bytes + 2 * by_match).div_ceil(4)
        };
        let p = p.clamp(1, 65_535) as u16;
        if self.bit_index == 7 {
            self.guess(p > 32_767);
        }
        p
    }

    #[inline(always)]
    fn observe(&mut self, bit: u8) {
        self.stage.update(bit);
        if LINKS > 0 {
            self.stage2.update(bit);
        }
        let mut prediction = self.order1_input();
        for k in 0..LINKS {
            self.chain[k].update(self.seen[k], prediction, self.chained[k], bit);
            prediction = self.chained[k];
        }
        self.stage_match.update(bit);
        if self.learns {
            for i in 0..Self::CONTEXTS {
                self.outcomes[i].update(self.seen[i], bit);
            }
        }
        let (table, node) = (self.slots.table(), self.node);
        for i in 0..Self::HASHED {
            table[Slots::<TABLE>::at(self.rows[i], node)] = HISTORIES.after(self.seen[i], bit);
        }
        let partial = self.partial & 255;
        let c1 = (self.contexts.now.last & 0xff) as usize;
        self.order1[c1][partial] = HISTORIES.after(self.seen[Self::ORDER1], bit);
        if Self::SPEC.order0 {
            self.order0[partial] = HISTORIES.after(self.seen[Self::ORDER0], bit);
        }
        self.matches.observe(self.bit_index, bit);

        self.partial = self.partial << 1 | usize::from(bit);
        self.bit_index += 1;
        self.node = self.node << 1 | usize::from(bit);
        self.mixer.update(&self.inputs, bit, Self::SPEC.rate);
        match self.bit_index {
            3 => {
                let three = self.partial as u32;
                let hashes = self.hashes.iter().take(Self::HASHED);
                hashes.for_each(|hash| self.slots.fetch(Place::line_of_second(*hash, three)));
            }
            4 => {
                self.node = 1;
                self.matches.half_byte(self.contexts.now.last, self.partial as u32);
                self.find_rows();
            }
            8 => self.end_byte(self.partial as u8),
            _ => {}
        }
    }
}
