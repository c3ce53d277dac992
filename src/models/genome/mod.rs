//! `genome`: nucleotides. Sequences (FASTA, or bare), with names, soft masks and letters for several bases, and reads with
//! qualities (FASTQ).
//!
//! A segment is taken apart (`layout`): bases, two bits each (`bases`), qualities (`quality`), and names and other lines
//! (`text`) are predicted by what suits them, bit by bit, and all go into one range code. Lengths of lines and whatever
//! else is told are bytes before it. Any bytes can be taken apart and come back; those that are mostly something else are
//! declined.
//!
//! What was found, in segments of 1 MiB (Klebsiella 1084, C. elegans of 1999, Illumina reads of 101 bases), as parts of what
//! `zpaq -m5` makes: contexts of bases alone give 0.980, 0.927 and 0.96, whichever orders from 1 to 24 they are of; contexts of the
//! place in the codon, which is found without being told (`phase`), 0.937 for Klebsiella; the other strand 0.002; matches at three
//! lengths rather than two 0.005 for C. elegans; places of reads, and bases, as contexts of qualities 0.02 of the qualities.
//!
//! Idea: two-bit coding with contexts of both strands, D. Pratas, GeCo (2016); streams of FASTQ, J. Bonfield, fqzcomp
//! (2013); mixing, M. Mahoney, paq8. Limits: memory as `memory_bytes` says, taken for a segment and given back; decoding is as fast as
//! encoding, some two megabytes a second.

mod bases;
mod counter;
mod layout;
mod phase;
mod quality;
mod text;
mod tree;

use std::slice::Iter;

use super::{Basis, Coded, Declined, Error, InUse, Model, stands_alone};
use crate::base::{Class, MethodId, ModelId, SEGMENT_BYTES_MAX};
use crate::entropy::{Channel, Decoder, Encoder};
use bases::Bases;
use counter::Counter;
use layout::{Given, Item, Layout, Reads, Sequence, letter_of, number_of};
use quality::Quality;
use text::Text;

pub use layout::{is_nucleotides, is_nucleotides_alone};

/// Revision of the payloads that are written.
const REVISION: u16 = 1;

/// Nucleotides.
pub(crate) struct Genome;

/// Bytes of memory that the largest segment takes: the tables of all predictors, and what it is taken apart to. An item is told
/// in two bytes at least, and a row of them grows by doubling.
const BYTES: u64 = bases::BYTES
    + quality::BYTES
    + 2 * text::BYTES
    + 3 * SEGMENT_BYTES_MAX as u64
    + (layout::layout_bytes_max(SEGMENT_BYTES_MAX as usize) * size_of::<Item>()) as u64;

/// What a segment is made of, where that is known, item by item; zeros where it is to be decoded.
struct Streams<'a> {
    text: Iter<'a, u8>,
    letters: Iter<'a, u8>,
    qualities: Iter<'a, u8>,
}

impl<'a> Streams<'a> {
    fn of(given: &'a Given) -> Streams<'a> {
        Streams { text: given.text.iter(), letters: given.letters.iter(), qualities: given.qualities.iter() }
    }
}

/// The next byte of a stream.
#[inline(always)]
fn next(stream: &mut Iter<'_, u8>) -> u8 {
    stream.next().copied().unwrap_or(0)
}

/// Bits of the bytes in reads that are no base.
struct Others {
    /// That there is one, by place in the read, and whether there was one before.
    flags: Vec<Counter>,
    /// Which one, bit by bit.
    bytes: Vec<Counter>,
}

/// Places in a read that are told apart.
const PLACES: usize = 256;
/// Slowest learning of `Others`.
const OTHERS_LIMIT: u32 = 255;

impl Others {
    fn new() -> Others {
        // They are rare: one in a thousand, to begin with.
        Others { flags: vec![Counter::of(64, 8); 2 * PLACES], bytes: vec![Counter::even(0); 256] }
    }

    /// Passes a byte, if it is no base.
    #[inline(always)]
    fn code(&mut self, channel: &mut impl Channel, place: usize, before: bool, other: Option<u8>) -> Option<u8> {
        let flag = &mut self.flags[usize::from(before) * PLACES + place.min(PLACES - 1)];
        let bit = channel.pass(u8::from(other.is_some()), flag.p().max(1)) & 1;
        flag.learn(bit, OTHERS_LIMIT);
        if bit == 0 {
            return None;
        }
        let mut partial = 1usize;
        for shift in (0..8).rev() {
            let counter = &mut self.bytes[partial & 255];
            let bit = channel.pass(other.unwrap_or(0) >> shift & 1, counter.p().max(1)) & 1;
            counter.learn(bit, OTHERS_LIMIT);
            partial = partial << 1 | usize::from(bit);
        }
        Some(partial as u8)
    }
}

/// Passes the items of a segment through a channel, in the same way in both directions.
struct Passage<'a, C> {
    channel: &'a mut C,
    layout: &'a Layout,
    streams: Streams<'a>,
    /// Plain bytes, at most `raw_len`.
    out: Vec<u8>,
    raw_len: usize,
    text: Text,
    bases: Bases,
    quality: Option<Quality>,
    others: Others,
}

/// What there is more of than the segment's header says.
const TOO_LONG: Error = Error::Corrupt("genome payload is longer than its segment");

impl<'a, C: Channel> Passage<'a, C> {
    fn new(channel: &'a mut C, layout: &'a Layout, given: &'a Given, text_len: usize, raw_len: usize) -> Self {
        let quality = Some(&layout.values).filter(|values| !values.is_empty());
        Passage {
            channel,
            layout,
            streams: Streams::of(given),
            out: Vec::with_capacity(raw_len),
            raw_len,
            text: Text::new(text_len),
            bases: Bases::new(layout.bases() as usize),
            quality: quality.map(|values| Quality::new(values, layout.qualities() as usize)),
            others: Others::new(),
        }
    }

    /// The plain bytes of all items.
    fn run(mut self) -> Result<Vec<u8>, Error> {
        let layout = self.layout;
        for item in &layout.items {
            match item {
                Item::Text { lines, tail } => {
                    for _ in 0..*lines {
                        self.line()?;
                        self.push(b'\n')?;
                    }
                    for _ in 0..*tail {
                        let byte = next(&mut self.streams.text);
                        let byte = self.text.code(self.channel, byte);
                        self.push(byte)?;
                    }
                }
                Item::Sequence(sequence) => self.sequence(sequence)?,
                Item::Reads(reads) => self.reads(reads)?,
            }
        }
        if self.out.len() == self.raw_len { Ok(self.out) } else { Err(Error::Corrupt("genome payload is too short")) }
    }

    #[inline(always)]
    fn push(&mut self, byte: u8) -> Result<(), Error> {
        if self.out.len() >= self.raw_len {
            return Err(TOO_LONG);
        }
        self.out.push(byte);
        Ok(())
    }

    /// A line end as they are in this segment.
    fn end_line(&mut self) -> Result<(), Error> {
        if self.layout.carriage_returns {
            self.push(b'\r')?;
        }
        self.push(b'\n')
    }

    /// A line of text, without the line feed behind it.
    fn line(&mut self) -> Result<(), Error> {
        loop {
            let byte = next(&mut self.streams.text);
            match self.text.code(self.channel, byte) {
                b'\n' => return Ok(()),
                byte => self.push(byte)?,
            }
        }
    }

    fn sequence(&mut self, sequence: &Sequence) -> Result<(), Error> {
        let uracil = self.layout.uracil;
        let mut cases = sequence.cases.iter().copied();
        let mut runs = sequence.odd.iter().copied();
        // Residues until the case changes, the line ends, and the next that is no base; and how many those are.
        let mut until_case = cases.next();
        let mut until_end = sequence.first;
        let mut odd = runs.next();
        let mut lower = false;
        for _ in 0..sequence.residues {
            if until_end == 0 {
                self.end_line()?;
                until_end = sequence.width;
            }
            until_end -= 1;
            while until_case == Some(0) {
                lower = !lower;
                until_case = cases.next();
            }
            until_case = until_case.map(|n| n - 1);
            let given = next(&mut self.streams.letters);
            let letter = match &mut odd {
                Some((0, byte, len)) => {
                    let byte = *byte;
                    *len -= 1;
                    if *len == 0 {
                        odd = runs.next();
                    }
                    byte
                }
                other => {
                    if let Some((behind, _, _)) = other {
                        *behind -= 1;
                    }
                    let number = number_of(given.to_ascii_uppercase(), uracil).unwrap_or(0);
                    letter_of(self.bases.code(self.channel, number), uracil)
                }
            };
            self.push(if lower { letter.to_ascii_lowercase() } else { letter })?;
        }
        if sequence.ended { self.end_line() } else { Ok(()) }
    }

    fn reads(&mut self, reads: &Reads) -> Result<(), Error> {
        for (count, len) in &reads.lengths {
            for _ in 0..*count {
                self.push(b'@')?;
                let start = self.out.len();
                self.line()?;
                let name = start..self.out.len();
                self.end_line()?;
                let bases = self.read(*len as usize, reads)?;
                self.end_line()?;
                self.push(b'+')?;
                if reads.named_twice {
                    if self.raw_len - self.out.len() < name.len() {
                        return Err(TOO_LONG);
                    }
                    self.out.extend_from_within(name);
                }
                self.end_line()?;
                self.qualities(bases, *len as usize)?;
                self.end_line()?;
            }
        }
        Ok(())
    }

    /// The bases of a read; gives back where they are.
    fn read(&mut self, len: usize, reads: &Reads) -> Result<usize, Error> {
        let start = self.out.len();
        let uracil = self.layout.uracil;
        let flip = if reads.lower { 0x20 } else { 0 };
        let mut before = false;
        for place in 0..len {
            let given = next(&mut self.streams.letters);
            let number = number_of(given ^ flip, uracil);
            let other = if reads.others {
                let other = if number.is_none() { Some(given) } else { None };
                self.others.code(self.channel, place, before, other)
            } else {
                None
            };
            before = other.is_some();
            let byte = match other {
                Some(byte) => byte,
                None => letter_of(self.bases.code(self.channel, number.unwrap_or(0)), uracil) ^ flip,
            };
            self.push(byte)?;
        }
        Ok(start)
    }

    /// The qualities of a read whose bases begin at `bases`.
    fn qualities(&mut self, bases: usize, len: usize) -> Result<(), Error> {
        let Some(quality) = &mut self.quality else { return Ok(()) };
        if self.raw_len - self.out.len() < len {
            return Err(TOO_LONG);
        }
        quality.begin();
        let mut before = 0;
        for place in 0..len {
            let base = self.out.get(bases + place).map_or(4, |letter| match letter.to_ascii_uppercase() {
                b'U' => 3,
                letter => number_of(letter, false).map_or(4, u32::from),
            });
            let given = next(&mut self.streams.qualities);
            self.out.push(quality.code(self.channel, given, (base, before)));
            before = base;
        }
        Ok(())
    }
}

/// Passes the bytes of a layout.
fn pass_layout(channel: &mut impl Channel, bytes: &[u8], len: usize) -> Vec<u8> {
    let mut text = Text::new(len);
    let mut bytes = bytes.iter();
    (0..len).map(|_| text.code(channel, next(&mut bytes))).collect()
}

impl Model for Genome {
    fn id(&self) -> MethodId {
        MethodId::Genome
    }

    fn revision(&self) -> u16 {
        REVISION
    }

    fn memory_bytes(&self) -> u64 {
        BYTES
    }

    fn decode_rate_guess(&self) -> u64 {
        1500
    }

    fn encode(&self, raw: &[u8], _class: Class, _basis: Basis<'_>) -> Result<Coded, Declined> {
        let (layout, given) = Layout::of(raw);
        // Names of many short sequences are coded better by what has read names.
        if given.foreign * 2 > raw.len() as u64 {
            return Err(Declined::Foreign);
        }
        let (flags, bytes) = layout.join();
        // A new sequence with every other line: words that are spelt with these letters.
        if bytes.len() > layout::layout_bytes_max(raw.len()) {
            return Err(Declined::Foreign);
        }
        let _in_use = InUse::new(BYTES);
        let mut payload = vec![flags];
        layout::put(&mut payload, bytes.len() as u32);
        layout::put(&mut payload, given.text.len() as u32);
        let mut coder = Encoder::new(raw.len());
        pass_layout(&mut coder, &bytes, bytes.len());
        let plain = Passage::new(&mut coder, &layout, &given, given.text.len(), raw.len()).run();
        if plain.as_deref() != Ok(raw) {
            return Err(Declined::Failed);
        }
        payload.extend_from_slice(&coder.finish());
        if payload.len() < raw.len() { Ok(Coded::alone(payload)) } else { Err(Declined::DoesNotShrink) }
    }

    fn decode(
        &self,
        payload: &[u8],
        raw_len: usize,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        stands_alone(model, basis)?;
        if revision != REVISION {
            return Err(Error::UnknownRevision(revision));
        }
        const SHORT: Error = Error::Corrupt("genome payload is cut short");
        let (flags, mut rest) = payload.split_first().ok_or(SHORT)?;
        let layout_len = layout::take(&mut rest).ok_or(SHORT)? as usize;
        let text_len = layout::take(&mut rest).ok_or(SHORT)? as usize;
        if layout_len > layout::layout_bytes_max(raw_len) || text_len > raw_len {
            return Err(TOO_LONG);
        }
        let _in_use = InUse::new(BYTES);
        let mut coder = Decoder::new(rest);
        let bytes = pass_layout(&mut coder, &[], layout_len);
        let layout = Layout::split(*flags, &bytes, raw_len)?;
        Passage::new(&mut coder, &layout, &Given::default(), text_len, raw_len).run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) as usize % sides
        }

        fn row(&mut self, of: &[u8], len: usize) -> Vec<u8> {
            (0..len).map(|_| of[self.roll(of.len())]).collect()
        }
    }

    /// Takes bytes apart, puts them through a code and together again, whatever they are; and their layout.
    fn comes_back(raw: &[u8]) -> Layout {
        let (layout, given) = Layout::of(raw);
        let (flags, bytes) = layout.join();
        assert_eq!(Layout::split(flags, &bytes, raw.len()).as_ref(), Ok(&layout), "{:?}", String::from_utf8_lossy(raw));
        let mut coder = Encoder::new(usize::MAX);
        let out = Passage::new(&mut coder, &layout, &given, given.text.len(), raw.len()).run();
        assert_eq!(out.as_deref(), Ok(raw), "{:?}", String::from_utf8_lossy(raw));
        let code = coder.finish();
        let nothing = Given::default();
        let decoded = Passage::new(&mut Decoder::new(&code), &layout, &nothing, given.text.len(), raw.len()).run();
        assert_eq!(decoded.as_deref(), Ok(raw));
        layout
    }

    fn encode(raw: &[u8]) -> Result<Vec<u8>, Declined> {
        Genome.encode(raw, Class::Nucleotides, Basis::default()).map(|coded| coded.payload)
    }

    fn decode(payload: &[u8], raw_len: usize) -> Result<Vec<u8>, Error> {
        Genome.decode(payload, raw_len, REVISION, ModelId::NONE, Basis::default())
    }

    /// A sequence in lines of `width`, with a repeat, a repeat of the other strand, and runs of N.
    fn fasta(dice: &mut Dice, len: usize, width: usize, end: &str) -> Vec<u8> {
        let mut bases = dice.row(b"ACGT", len / 2);
        bases.extend_from_within(..len / 4);
        bases.extend(vec![b'N'; len / 50]);
        let other: Vec<u8> =
            bases[..len / 8].iter().rev().map(|b| letter_of(3 - number_of(*b, false).unwrap(), false)).collect();
        bases.extend(other);
        let mut out = format!(">one of {len}{end}").into_bytes();
        for line in bases.chunks(width) {
            out.extend_from_slice(line);
            out.extend_from_slice(end.as_bytes());
        }
        out
    }

    /// Reads of lengths from `lens`, with names that count.
    fn fastq(dice: &mut Dice, count: usize, lens: std::ops::Range<usize>, twice: bool, letters: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for n in 0..count {
            let len = lens.start + dice.roll(lens.len());
            let name = format!("run:{}:{} 1:N:0", n / 7, 1000 + 3 * n + dice.roll(3));
            let (bases, qualities) = (dice.row(letters, len), dice.row(b"@+!IJJJJFFFF#", len));
            let again = if twice { name.as_str() } else { "" };
            out.extend_from_slice(format!("@{name}\n").as_bytes());
            out.extend(bases);
            out.extend_from_slice(format!("\n+{again}\n").as_bytes());
            out.extend(qualities);
            out.push(b'\n');
        }
        out
    }

    #[test]
    fn any_bytes_come_back() {
        let mut dice = Dice(7);
        let alphabets: [&[u8]; 6] = [
            b"ACGT\n",
            b"ACGTNacgtn\r\n-*RY",
            b"@A\n+I",
            b"@AC\n\n+\r\nI@+>;N",
            b"ACGTACGTACGTACGTACGTACGTACGTACGTACGTACGTUuNn\n>x",
            b"\x00\xff\n\rA@+",
        ];
        for n in 0..3000 {
            let len = dice.roll(if n % 50 == 0 { 3000 } else { 120 });
            let raw = dice.row(alphabets[n % alphabets.len()], len);
            comes_back(&raw);
        }
    }

    #[test]
    fn edges_of_lines_and_records() {
        let cases: [&[u8]; 26] = [
            b"",
            b"A",
            b"\n",
            b"\r\n",
            b"x",
            b"ACGT",
            b"acgt\nAC",
            b"ACGT\nACGT\nACGT\n",
            b"ACGT\nACGT\nAC\nACGT\n",
            b"AC\nACGT\nACGT\nA\n",
            b"ACGT\nAC\n\n\nACGT",
            b">h\r\nACGT\r\nACGT\r\nAC\r\n",
            b">h\r\nACGT\r\nACGT\nAC\r\n",
            b">h\nACGT\r\nAC\n",
            b"CGT\nACGTA\nACGTA\nACG\n>next\nACG\n>third\nACGTA\nACGTA\n",
            b"NNNNNNNN\nNNNNACGT\nACnnNNac\ngtnnnRYa\n",
            b"ACGU\nUUUU\nacgu\nT\n",
            b"@r\nACGT\n+\nIIII\n",
            b"@r\nACGT\n+\nIIII",
            b"@r\nACGT\n+r\nIIII\n@s\nACG\n+s\n@@@\n@t\nA\n+\n@\n",
            b"@r\nACGT\n+x\nIIII\n",
            b"@\n\n+\n\n@\n\n+\n\n",
            b"@r\nacgtn\n+\n@III!\n@r\nACGTN\n+\n+III!\n",
            b"@r\nNNNN\n+\n!!!!\n@r\nA.-T\n+\n!!~~\n",
            b"@r\r\nACGT\r\n+\r\nIIII\r\n@r\r\nACGT\r\n+\r\nIIII\n",
            b"III\n@r\nACGT\n+\nIIII\n@r\nAC",
        ];
        for raw in cases {
            comes_back(raw);
        }
    }

    /// A segment begins and ends anywhere: in the middle of a line, a record, a line end.
    #[test]
    fn records_are_found_again_behind_any_cut() {
        let mut dice = Dice(3);
        let reads = fastq(&mut dice, 40, 30..60, false, b"ACGT");
        let whole = comes_back(&reads);
        assert!(matches!(&whole.items[..], [Item::Reads(reads)] if !reads.others && !reads.named_twice));
        let sequence = fasta(&mut dice, 1000, 60, "\r\n");
        assert!(matches!(&comes_back(&sequence).items[..], [Item::Text { lines: 1, .. }, Item::Sequence(_)]));
        for at in 0..200 {
            let layout = comes_back(&reads[at..reads.len() - at]);
            let found = layout.items.iter().filter(|item| matches!(item, Item::Reads(_))).count();
            assert_eq!(found, 1, "{:?}", layout.items);
            comes_back(&sequence[at..sequence.len() - at]);
        }
    }

    #[test]
    fn kinds_of_reads_are_told_apart() {
        let mut dice = Dice(5);
        let check = |raw: &[u8], expected: Reads| {
            let layout = comes_back(raw);
            let [Item::Reads(reads)] = &layout.items[..] else { panic!("{:?}", layout.items) };
            let plain = Reads { lengths: Vec::new(), ..reads.clone() };
            assert_eq!(plain, expected);
        };
        let plain = Reads::default();
        check(&fastq(&mut dice, 50, 50..51, false, b"ACGT"), plain.clone());
        check(&fastq(&mut dice, 50, 1..90, true, b"ACGT"), Reads { named_twice: true, ..plain.clone() });
        check(&fastq(&mut dice, 50, 50..51, false, b"acgt"), Reads { lower: true, ..plain.clone() });
        check(&fastq(&mut dice, 50, 0..51, false, b"ACGTN"), Reads { others: true, ..plain.clone() });
        check(&fastq(&mut dice, 50, 9..51, false, b"acgtnN."), Reads { others: true, lower: true, ..plain });
        let uracil = fastq(&mut dice, 50, 50..51, false, b"ACGU");
        assert!(comes_back(&uracil).uracil);
    }

    #[test]
    fn bases_take_two_bits_and_repeats_of_either_strand_less() {
        let mut dice = Dice(11);
        for (width, end) in [(60, "\n"), (80, "\r\n"), (1_000_000, "\n")] {
            let raw = fasta(&mut dice, 80_000, width, end);
            let payload = encode(&raw).unwrap();
            assert!(decode(&payload, raw.len()).unwrap() == raw);
            // Half of them are new.
            assert!(payload.len() < 10_700, "{} bytes", payload.len());
            let lower = raw.to_ascii_lowercase();
            assert!(encode(&lower).unwrap().len() < payload.len() + 20);
        }
    }

    #[test]
    fn text_and_proteins_are_declined() {
        let mut dice = Dice(13);
        assert_eq!(encode(&b"some text that is no sequence\n".repeat(50)), Err(Declined::Foreign));
        let protein = dice.row(b"ACDEFGHIKLMNPQRSTVWY", 5000);
        assert_eq!(encode(&protein), Err(Declined::Foreign));
        assert!(!is_nucleotides(&protein) && !is_nucleotides(&dice.row(b"0123456789abcdef", 5000)));
        assert!(!is_nucleotides(&vec![b'a'; 5000]) && !is_nucleotides(&vec![b'N'; 5000]) && !is_nucleotides(b"ACGT"));
        assert!(!is_nucleotides(b"") && !is_nucleotides(&dice.row(b"AT\n", 5000)));
        assert!(is_nucleotides(&fasta(&mut dice, 1000, 60, "\n")));
        assert!(is_nucleotides(&fastq(&mut dice, 20, 50..60, true, b"ACGTN")));
        assert!(is_nucleotides(&dice.row(b"acgu", 500)));
    }

    /// Whatever a payload says, no more comes of it than the segment has, and soon.
    #[test]
    fn damaged_layouts_give_errors_or_bounded_bytes() {
        let mut dice = Dice(17);
        let reads = fastq(&mut dice, 30, 40..60, false, b"ACGTN");
        let raw = [fasta(&mut dice, 2000, 60, "\n"), reads, b"the end".to_vec()].concat();
        let (flags, bytes) = Layout::of(&raw).0.join();
        for _ in 0..4000 {
            let mut bad = bytes.clone();
            for _ in 0..=dice.roll(3) {
                let at = dice.roll(bad.len());
                bad[at] = if dice.roll(2) == 0 { dice.roll(256) as u8 } else { 0xff };
            }
            bad.truncate(dice.roll(bad.len() + 1));
            if let Ok(layout) = Layout::split(flags, &bad, raw.len()) {
                assert!(layout.bases() <= raw.len() as u64 && layout.qualities() <= raw.len() as u64);
                let noise = dice.row(&[0, 1, 77, 200, 255], 3000);
                let nothing = Given::default();
                let out = Passage::new(&mut Decoder::new(&noise), &layout, &nothing, 100, raw.len()).run();
                assert!(out.is_err() || out.is_ok_and(|out| out.len() == raw.len()));
            }
        }
        let payload = encode(&raw).unwrap();
        for len in 0..40 {
            assert!(
                decode(&payload[..len], raw.len()).is_ok_and(|out| out.len() == raw.len())
                    || decode(&payload[..len], raw.len()).is_err()
            );
        }
        for wrong in [raw.len() - 1, raw.len() + 1, 0, 1] {
            assert!(decode(&payload, wrong).is_err());
        }
        assert!(Genome.decode(&payload, raw.len(), 2, ModelId::NONE, Basis::default()).is_err());
    }

    /// A count and a length whose product is beyond 64 bits; flags and items that nobody writes.
    #[test]
    fn layouts_that_nobody_writes_are_refused() {
        let check = |numbers: &[u32]| {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|number| layout::put(&mut bytes, *number));
            assert!(Layout::split(0, &bytes, 1 << 20).is_err(), "{numbers:?}");
        };
        // No values, then reads: 2^31 of 2^32 - 3 bases, of which the bytes are 2^64 and so none.
        check(&[1, 40, 0, 2, 1 << 31, 1 << 31, u32::MAX - 2]);
        check(&[1, 40, 0, 2, u32::MAX, u32::MAX, u32::MAX]);
        check(&[0, 2, 1 << 31, 1 << 31, 0]);
        check(&[0, 0, u32::MAX]);
        check(&[0, 4, 0, u32::MAX]);
        check(&[0, 1, u32::MAX]);
        // Empty ones, and flags of no meaning.
        check(&[0, 0, 0]);
        check(&[0, 1, 0]);
        check(&[0, 2, 0]);
        check(&[0, 128, 1]);
        check(&[0, 8, 1]);
        check(&[0, 3, 1]);
    }

    /// What others code smaller: words between sequences, qualities that are those of another read.
    #[test]
    fn what_others_may_know_better_is_not_nucleotides_alone() {
        let mut dice = Dice(23);
        let reads = fastq(&mut dice, 40, 50..60, false, b"ACGT");
        let sequence = fasta(&mut dice, 3000, 60, "\n");
        assert!(is_nucleotides_alone(&reads) && is_nucleotides_alone(&sequence));
        assert!(!is_nucleotides_alone(&reads.repeat(2)));
        assert!(!is_nucleotides_alone(&[sequence, b"and words, and words\n".repeat(20)].concat()));
    }

    #[test]
    fn words_of_these_letters_are_declined_before_tables_are_made() {
        let mut dice = Dice(19);
        let words: [&[u8]; 6] = [b"TAG\n", b"CATCH\n", b"GNAT\n", b"TUNA\n", b"UNCUT\n", b"ACT\n"];
        let raw: Vec<u8> = (0..20_000).flat_map(|_| words[dice.roll(words.len())]).copied().collect();
        assert_eq!(encode(&raw), Err(Declined::Foreign));
        comes_back(&raw[..4000]);
    }

    /// The first megabytes of some chromosomes.
    #[test]
    fn what_is_not_read_yet_is_nucleotides_behind_a_name() {
        let unread = [b">chr21\n".to_vec(), [vec![b'N'; 60], b"\n".to_vec()].concat().repeat(50)].concat();
        assert!(is_nucleotides(&unread) && !is_nucleotides(&unread[7..]));
        let payload = encode(&unread).unwrap();
        assert!(payload.len() < 40 && decode(&payload, unread.len()).unwrap() == unread);
    }
}
