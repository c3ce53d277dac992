//! What a segment is made of: sequences, reads, and text between them; and how that is told in the payload.
//!
//! ```text
//! u8       FLAG_CR, FLAG_URACIL; the other bits are 0
//! varint   bytes of the layout
//! varint   bytes of text, names of reads among them
//! ...      range code to the end: the layout, then item by item what it is made of
//! ```
//!
//! The layout is a row of varints (LEB128): how many values qualities have, 0 where there are no reads, and of each value
//! how far it is from the one before and its frequency (`Weight`); then items to the end, each with a first number whose
//! lowest two bits are its kind and whose others are flags:
//!
//! ```text
//! text      lines, FLAG_TAIL: bytes behind the last line end
//! sequence  residues, FLAG_WIDTH: residues of a line, until told otherwise; FLAG_FIRST: those of the first line;
//!           FLAG_ENDED: a line end follows; FLAG_CASES: how many changes of case, and residues before each;
//!           FLAG_ODD: how many runs of what is no base, and of each how far it is from the last, its byte, its length
//! reads     how many, then until there are that many: how many of a length, and the length;
//!           FLAG_TWICE: names are repeated; FLAG_LOWER: bases are in lower case; FLAG_OTHERS: some are none
//! ```
//!
//! Any bytes have a layout: what is neither sequence nor read is text.

use super::Error;
use crate::base::{put_varint, take_varint};

/// Lines end in carriage return and line feed.
const FLAG_CR: u8 = 1;
/// The fourth base is U.
const FLAG_URACIL: u8 = 2;

const KIND_TEXT: u32 = 0;
const KIND_SEQUENCE: u32 = 1;
const KIND_READS: u32 = 2;
const FLAG_TAIL: u32 = 4;
const FLAG_ENDED: u32 = 4;
const FLAG_WIDTH: u32 = 8;
const FLAG_FIRST: u32 = 16;
const FLAG_CASES: u32 = 32;
const FLAG_ODD: u32 = 64;
const FLAG_TWICE: u32 = 4;
const FLAG_LOWER: u32 = 8;
const FLAG_OTHERS: u32 = 16;
const FLAGS_SEQUENCE: u32 = FLAG_ENDED | FLAG_WIDTH | FLAG_FIRST | FLAG_CASES | FLAG_ODD;
const FLAGS_READS: u32 = FLAG_TWICE | FLAG_LOWER | FLAG_OTHERS;

/// Values of qualities: printable bytes.
const VALUES: std::ops::RangeInclusive<u8> = 33..=126;

/// Residues of a line until told otherwise.
const WIDTH_FIRST: u32 = 60;
/// A line is of a sequence when no more than this part of it is letters for several bases.
const AMBIGUOUS_PART: usize = 10;
/// Data is taken for nucleotides from this many bytes of sequences and reads on, which are half of it,
const OWN_BYTES_MIN: usize = 100;
/// and have at least three bases, each of them more than this part of all.
const BASE_PART: usize = 64;
/// Part of some data that may be something else where others need not be tried. Names of an eighth, in English, made it 1 % larger
/// than what knows English, and reads whose qualities are all copies four times as large as what looks for them.
const OTHER_PART: usize = 16;

/// Bytes of a layout for a segment, at most: that of data for which this model is takes a tenth of it and less, and items take
/// thirty times the memory that their bytes do. The values of qualities alone take 189.
pub(super) const fn layout_bytes_max(raw_len: usize) -> usize {
    raw_len / 4 + 256
}

/// How often a value occurs, with two bits of precision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Weight {
    pub value: u8,
    /// Four times the logarithm, and two bits behind the first.
    log: u8,
}

impl Weight {
    /// Of a value that occurs at least once.
    pub fn new(value: u8, count: u64) -> Weight {
        let count = count.clamp(1, 1 << 32) << 2;
        let log = count.ilog2() - 2;
        Weight { value, log: (log << 2) as u8 | (count >> log & 3) as u8 }
    }

    /// About as often, times four.
    pub fn count(self) -> u64 {
        u64::from(4 | self.log & 3) << (self.log >> 2)
    }
}

/// One thing of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    Text { lines: u32, tail: u32 },
    Sequence(Sequence),
    Reads(Reads),
}

impl Item {
    /// Bytes that it has at least, names of reads and lines of text counted as empty. `end`: bytes of a line end.
    fn bytes_min(&self, end: u64) -> u64 {
        match self {
            Item::Text { lines, tail } => u64::from(*lines) + u64::from(*tail),
            Item::Sequence(sequence) => u64::from(sequence.residues) + end * sequence.breaks(),
            Item::Reads(reads) => 2 * reads.bases() + (2 + 4 * end) * reads.count(),
        }
    }
}

/// Lines of nucleotides, all of a length but for the first and the last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sequence {
    pub residues: u32,
    /// Residues of the first line and of the others, at least 1.
    pub first: u32,
    pub width: u32,
    /// A line end follows the last residue.
    pub ended: bool,
    /// Residues between changes of case; the first are in upper case.
    pub cases: Vec<u32>,
    /// Runs of residues that are no base: distance from the end of the last one, byte in upper case, length.
    pub odd: Vec<(u32, u8, u32)>,
}

impl Sequence {
    /// Line ends.
    fn breaks(&self) -> u64 {
        let behind = u64::from(self.residues.saturating_sub(self.first));
        behind.div_ceil(u64::from(self.width.max(1))) + u64::from(self.ended)
    }

    /// Residues that are bases.
    pub fn bases(&self) -> u64 {
        u64::from(self.residues) - self.odd.iter().map(|(_, _, len)| u64::from(*len)).sum::<u64>()
    }
}

/// Records of four lines: name, bases, `+`, qualities.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Reads {
    /// How many of a length, and the length.
    pub lengths: Vec<(u32, u32)>,
    pub named_twice: bool,
    pub lower: bool,
    /// There are bytes that are no base of this case.
    pub others: bool,
}

impl Reads {
    /// Bases, of each of which there is a quality.
    pub fn bases(&self) -> u64 {
        self.lengths.iter().map(|(count, len)| u64::from(*count) * u64::from(*len)).sum()
    }

    fn count(&self) -> u64 {
        self.lengths.iter().map(|(count, _)| u64::from(*count)).sum()
    }
}

/// The layout of a segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Layout {
    pub carriage_returns: bool,
    /// The fourth base is U.
    pub uracil: bool,
    /// Values of qualities in rising order.
    pub values: Vec<Weight>,
    pub items: Vec<Item>,
}

/// What the items of a layout are made of, each in its order.
#[derive(Clone, Default, Debug)]
pub(super) struct Given {
    /// Texts, and names of reads with a line feed behind each.
    pub text: Vec<u8>,
    /// Residues and bases of reads as they are.
    pub letters: Vec<u8>,
    pub qualities: Vec<u8>,
    /// Bytes that are neither of sequences nor of reads.
    pub foreign: u64,
}

/// What a byte may be in a sequence: nothing, a letter for several bases, or a base, N among them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Letter {
    Foreign,
    Ambiguous,
    Base,
}

const fn letters() -> [Letter; 256] {
    let mut table = [Letter::Foreign; 256];
    let (bases, ambiguous) = (b"ACGTUNacgtun", b"RYKMSWBDHVryksmwbdhv-*");
    let mut n = 0;
    while n < bases.len() {
        table[bases[n] as usize] = Letter::Base;
        n += 1;
    }
    n = 0;
    while n < ambiguous.len() {
        table[ambiguous[n] as usize] = Letter::Ambiguous;
        n += 1;
    }
    table
}

static LETTERS: [Letter; 256] = letters();

/// True for a line of nucleotides.
fn is_sequence(line: &[u8]) -> bool {
    let mut ambiguous = 0;
    for byte in line {
        match LETTERS[usize::from(*byte)] {
            Letter::Foreign => return false,
            Letter::Ambiguous => ambiguous += 1,
            Letter::Base => {}
        }
    }
    !line.is_empty() && ambiguous * AMBIGUOUS_PART <= line.len()
}

/// Number of a base in upper case, of which the first two are one kind (purines) and the others the other, and 3 less the
/// number is that of what pairs with it: a base is more often replaced by one of its kind.
#[inline(always)]
pub(super) fn number_of(letter: u8, uracil: bool) -> Option<u8> {
    match letter {
        b'A' => Some(0),
        b'G' => Some(1),
        b'C' => Some(2),
        b'T' if !uracil => Some(3),
        b'U' if uracil => Some(3),
        _ => None,
    }
}

/// The letter of a number.
#[inline(always)]
pub(super) fn letter_of(number: u8, uracil: bool) -> u8 {
    match number {
        0 => b'A',
        1 => b'G',
        2 => b'C',
        _ if uracil => b'U',
        _ => b'T',
    }
}

/// A line, and what is behind it.
struct Line<'a> {
    /// Without its end.
    bytes: &'a [u8],
    /// It has the end that lines of this segment have.
    ended: bool,
    /// With whatever end it has.
    whole: &'a [u8],
    rest: &'a [u8],
}

/// The first line of some bytes.
fn line(bytes: &[u8], carriage_returns: bool) -> Line<'_> {
    let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
    let (whole, rest) = bytes.split_at(end);
    let content = if carriage_returns { whole.strip_suffix(b"\r\n") } else { whole.strip_suffix(b"\n") };
    Line { bytes: content.unwrap_or(whole), ended: content.is_some(), whole, rest }
}

/// A record of a read.
struct Record<'a> {
    name: &'a [u8],
    bases: &'a [u8],
    qualities: &'a [u8],
    named_twice: bool,
    rest: &'a [u8],
}

/// The record that some bytes begin with.
fn record(bytes: &[u8], carriage_returns: bool) -> Option<Record<'_>> {
    let name = line(bytes, carriage_returns);
    let own = name.bytes.strip_prefix(b"@").filter(|_| name.ended)?;
    let bases = line(name.rest, carriage_returns);
    let plus = line(bases.rest, carriage_returns);
    let again = plus.bytes.strip_prefix(b"+").filter(|again| again.is_empty() || *again == own)?;
    let qualities = line(plus.rest, carriage_returns);
    let fits = bases.ended && plus.ended && qualities.ended && bases.bytes.len() == qualities.bytes.len();
    (fits && qualities.bytes.iter().all(|q| VALUES.contains(q))).then_some(Record {
        name: own,
        bases: bases.bytes,
        qualities: qualities.bytes,
        // A name of no bytes is repeated, and is not: it is one of those that are not.
        named_twice: !again.is_empty(),
        rest: qualities.rest,
    })
}

/// Lines of a sequence that some bytes begin with, as letters behind `letters`, and what is behind them.
fn sequence<'a>(
    bytes: &'a [u8],
    carriage_returns: bool,
    width: u32,
    letters: &mut Vec<u8>,
) -> Option<(Sequence, &'a [u8])> {
    let mut last = line(bytes, carriage_returns);
    if !is_sequence(last.bytes) {
        return None;
    }
    let start = letters.len();
    letters.extend_from_slice(last.bytes);
    let first = last.bytes.len();
    let mut width = (width as usize).max(first);
    let mut lines = 1;
    while last.ended {
        let next = line(last.rest, carriage_returns);
        // The second line says how long lines are; one that is shorter is the last.
        let is_longer = if lines == 1 { false } else { next.bytes.len() > width };
        if (lines > 1 && last.bytes.len() < width) || is_longer || !is_sequence(next.bytes) {
            break;
        }
        if lines == 1 {
            width = first.max(next.bytes.len());
        }
        letters.extend_from_slice(next.bytes);
        (last, lines) = (next, lines + 1);
    }
    let residues = (letters.len() - start) as u32;
    let mut sequence =
        Sequence { residues, first: first as u32, width: width as u32, ended: last.ended, ..Sequence::default() };
    if lines == 1 {
        sequence.first = sequence.width;
    }
    Some((sequence, last.rest))
}

impl Sequence {
    /// Takes case and what is no base from its letters.
    fn describe(&mut self, letters: &[u8], uracil: bool) {
        let (mut lower, mut since, mut behind) = (false, 0u32, 0u32);
        for letter in letters {
            if letter.is_ascii_alphabetic() && letter.is_ascii_lowercase() != lower {
                self.cases.push(since);
                (lower, since) = (!lower, 0);
            }
            since += 1;
            let upper = letter.to_ascii_uppercase();
            if number_of(upper, uracil).is_some() {
                behind += 1;
                continue;
            }
            match self.odd.last_mut() {
                Some((_, byte, len)) if behind == 0 && *byte == upper => *len += 1,
                _ => self.odd.push((behind, upper, 1)),
            }
            behind = 0;
        }
    }
}

impl Layout {
    /// The layout of any bytes, and what it is of.
    pub fn of(raw: &[u8]) -> (Layout, Given) {
        let first = raw.iter().position(|b| *b == b'\n').unwrap_or(0);
        let carriage_returns = first > 0 && raw.get(first - 1) == Some(&b'\r');
        let mut layout = Layout { carriage_returns, ..Layout::default() };
        let mut given = Given::default();
        let mut counts = [0u64; 256];
        let mut width = WIDTH_FIRST;
        let mut rest = raw;
        while !rest.is_empty() {
            if rest.first() == Some(&b'@')
                && let Some(record) = record(rest, carriage_returns)
            {
                layout.add_read(&record);
                given.text.extend_from_slice(record.name);
                given.text.push(b'\n');
                given.letters.extend_from_slice(record.bases);
                given.qualities.extend_from_slice(record.qualities);
                record.qualities.iter().for_each(|q| counts[usize::from(*q)] += 1);
                rest = record.rest;
            } else if let Some((found, behind)) = sequence(rest, carriage_returns, width, &mut given.letters) {
                width = found.width;
                layout.items.push(Item::Sequence(found));
                rest = behind;
            } else {
                let text = line(rest, carriage_returns);
                given.text.extend_from_slice(text.whole);
                given.foreign += text.whole.len() as u64;
                layout.add_text(text.whole);
                rest = text.rest;
            }
        }
        let frequent = |letter: u8| given.letters.iter().filter(|l| l.to_ascii_uppercase() == letter).count();
        layout.uracil = frequent(b'U') > frequent(b'T');
        layout.values =
            (0..=255).zip(counts).filter(|(_, count)| *count > 0).map(|(q, count)| Weight::new(q, count)).collect();
        layout.describe(&given.letters);
        (layout, given)
    }

    /// Adds a line of text.
    fn add_text(&mut self, bytes: &[u8]) {
        let (line, rest) = if bytes.ends_with(b"\n") { (1, 0) } else { (0, bytes.len() as u32) };
        match self.items.last_mut() {
            // Only the last line of all has no end.
            Some(Item::Text { lines, tail }) => (*lines, *tail) = (*lines + line, rest),
            _ => self.items.push(Item::Text { lines: line, tail: rest }),
        }
    }

    /// Adds a read to those before it, where it is like them.
    fn add_read(&mut self, record: &Record<'_>) {
        let len = record.bases.len() as u32;
        match self.items.last_mut() {
            Some(Item::Reads(reads)) if reads.named_twice == record.named_twice => match reads.lengths.last_mut() {
                Some((count, of)) if *of == len => *count += 1,
                _ => reads.lengths.push((1, len)),
            },
            _ => {
                let lower = record.bases.iter().filter(|b| b.is_ascii_lowercase()).count() * 2 > record.bases.len();
                let lengths = vec![(1, len)];
                self.items.push(Item::Reads(Reads { lengths, named_twice: record.named_twice, lower, others: false }));
            }
        }
    }

    /// Takes what is to be told of letters from them.
    fn describe(&mut self, mut letters: &[u8]) {
        let uracil = self.uracil;
        for item in &mut self.items {
            let (own, rest) = match item {
                Item::Text { .. } => continue,
                Item::Sequence(sequence) => letters.split_at((sequence.residues as usize).min(letters.len())),
                Item::Reads(reads) => letters.split_at((reads.bases() as usize).min(letters.len())),
            };
            match item {
                Item::Text { .. } => {}
                Item::Sequence(sequence) => sequence.describe(own, uracil),
                Item::Reads(reads) => {
                    let flip = if reads.lower { 0x20 } else { 0 };
                    reads.others = own.iter().any(|letter| number_of(letter ^ flip, uracil).is_none());
                }
            }
            letters = rest;
        }
    }

    /// Bases of sequences and reads.
    pub fn bases(&self) -> u64 {
        self.items
            .iter()
            .map(|item| match item {
                Item::Text { .. } => 0,
                Item::Sequence(sequence) => sequence.bases(),
                Item::Reads(reads) => reads.bases(),
            })
            .sum()
    }

    /// Qualities of reads.
    pub fn qualities(&self) -> u64 {
        self.items.iter().map(|item| if let Item::Reads(reads) = item { reads.bases() } else { 0 }).sum()
    }

    /// The flags, and the layout as bytes.
    pub fn join(&self) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        put(&mut out, self.values.len() as u32);
        let mut before = 0;
        for weight in &self.values {
            put(&mut out, u32::from(weight.value - before));
            put(&mut out, u32::from(weight.log));
            before = weight.value;
        }
        let mut width = WIDTH_FIRST;
        for item in &self.items {
            match item {
                Item::Text { lines, tail } => {
                    put(&mut out, KIND_TEXT | if *tail > 0 { FLAG_TAIL } else { 0 });
                    put(&mut out, *lines);
                    if *tail > 0 {
                        put(&mut out, *tail);
                    }
                }
                Item::Sequence(sequence) => {
                    put_sequence(&mut out, sequence, width);
                    width = sequence.width;
                }
                Item::Reads(reads) => {
                    let flags =
                        [(reads.named_twice, FLAG_TWICE), (reads.lower, FLAG_LOWER), (reads.others, FLAG_OTHERS)];
                    put(&mut out, flags.iter().filter(|(is, _)| *is).fold(KIND_READS, |all, (_, flag)| all | flag));
                    put(&mut out, reads.count() as u32);
                    for (count, len) in &reads.lengths {
                        put(&mut out, *count);
                        put(&mut out, *len);
                    }
                }
            }
        }
        let flags = if self.carriage_returns { FLAG_CR } else { 0 } | if self.uracil { FLAG_URACIL } else { 0 };
        (flags, out)
    }

    /// Reads it back, for a segment of `raw_len` bytes.
    ///
    /// # Errors
    /// `Corrupt` for flags that `join` does not write, for what has no bytes, and for more bytes than the segment has.
    pub fn split(flags: u8, bytes: &[u8], raw_len: usize) -> Result<Layout, Error> {
        const WRONG: Error = Error::Corrupt("the layout of a genome payload is damaged");
        if flags & !(FLAG_CR | FLAG_URACIL) != 0 {
            return Err(Error::Corrupt("genome payload with flags that this build does not know"));
        }
        let mut layout =
            Layout { carriage_returns: flags & FLAG_CR != 0, uracil: flags & FLAG_URACIL != 0, ..Layout::default() };
        let mut rest = bytes;
        let rest = &mut rest;
        let most = raw_len as u64;
        let mut value = 0u8;
        for _ in 0..take(rest).ok_or(WRONG)? {
            let gap = take(rest).and_then(|gap| u8::try_from(gap).ok()).ok_or(WRONG)?;
            let log = take(rest).filter(|log| *log >> 2 <= 32).ok_or(WRONG)?;
            let next = value.checked_add(gap).filter(|next| *next > value && VALUES.contains(next)).ok_or(WRONG)?;
            value = next;
            layout.values.push(Weight { value, log: log as u8 });
        }
        let mut width = WIDTH_FIRST;
        let end = if layout.carriage_returns { 2 } else { 1 };
        let mut bytes_min = 0u64;
        while !rest.is_empty() {
            let head = take(rest).ok_or(WRONG)?;
            let item = match head & 3 {
                KIND_TEXT if head & !(3 | FLAG_TAIL) == 0 => {
                    let lines = take(rest).ok_or(WRONG)?;
                    let tail = if head & FLAG_TAIL != 0 { take(rest).ok_or(WRONG)? } else { 0 };
                    Item::Text { lines, tail }
                }
                KIND_SEQUENCE if head & !(3 | FLAGS_SEQUENCE) == 0 => {
                    let sequence = take_sequence(rest, head, width).ok_or(WRONG)?;
                    width = sequence.width;
                    Item::Sequence(sequence)
                }
                KIND_READS if head & !(3 | FLAGS_READS) == 0 => {
                    let has_values = |reads: &Reads| reads.bases() == 0 || !layout.values.is_empty();
                    Item::Reads(take_reads(rest, head, most).filter(has_values).ok_or(WRONG)?)
                }
                _ => return Err(WRONG),
            };
            let least = item.bytes_min(end);
            bytes_min = bytes_min.saturating_add(least);
            // None is empty, so that there are no more of them than the segment has bytes.
            if least == 0 || bytes_min > most {
                return Err(WRONG);
            }
            layout.items.push(item);
        }
        Ok(layout)
    }
}

fn put_sequence(out: &mut Vec<u8>, sequence: &Sequence, width: u32) {
    let flags = [
        (sequence.ended, FLAG_ENDED),
        (sequence.width != width, FLAG_WIDTH),
        (sequence.first != sequence.width, FLAG_FIRST),
        (!sequence.cases.is_empty(), FLAG_CASES),
        (!sequence.odd.is_empty(), FLAG_ODD),
    ];
    let has = |flag: u32| flags.iter().any(|(is, of)| *is && *of == flag);
    put(out, flags.iter().filter(|(is, _)| *is).fold(KIND_SEQUENCE, |all, (_, flag)| all | flag));
    put(out, sequence.residues);
    if has(FLAG_WIDTH) {
        put(out, sequence.width);
    }
    if has(FLAG_FIRST) {
        put(out, sequence.first);
    }
    if has(FLAG_CASES) {
        put(out, sequence.cases.len() as u32);
        sequence.cases.iter().for_each(|len| put(out, *len));
    }
    if has(FLAG_ODD) {
        put(out, sequence.odd.len() as u32);
        for (behind, byte, len) in &sequence.odd {
            put(out, *behind);
            put(out, u32::from(*byte));
            put(out, *len);
        }
    }
}

fn take_sequence(rest: &mut &[u8], head: u32, width: u32) -> Option<Sequence> {
    let residues = take(rest)?;
    let width = if head & FLAG_WIDTH != 0 { take(rest)? } else { width };
    let first = if head & FLAG_FIRST != 0 { take(rest)? } else { width };
    let mut sequence = Sequence { residues, first, width, ended: head & FLAG_ENDED != 0, ..Sequence::default() };
    if width == 0 || first == 0 {
        return None;
    }
    if head & FLAG_CASES != 0 {
        for _ in 0..take(rest)? {
            sequence.cases.push(take(rest)?);
        }
    }
    if head & FLAG_ODD != 0 {
        let mut at = 0u64;
        for _ in 0..take(rest)? {
            let run = (take(rest)?, u8::try_from(take(rest)?).ok()?, take(rest)?);
            at += u64::from(run.0) + u64::from(run.2);
            if run.2 == 0 || at > u64::from(residues) {
                return None;
            }
            sequence.odd.push(run);
        }
    }
    Some(sequence)
}

fn take_reads(rest: &mut &[u8], head: u32, bytes_max: u64) -> Option<Reads> {
    let mut reads = Reads {
        lengths: Vec::new(),
        named_twice: head & FLAG_TWICE != 0,
        lower: head & FLAG_LOWER != 0,
        others: head & FLAG_OTHERS != 0,
    };
    let count = u64::from(take(rest)?);
    let (mut so_far, mut bytes) = (0, 0u64);
    while so_far < count {
        let (of, len) = (take(rest)?, take(rest)?);
        so_far += u64::from(of);
        // Both may be as large as 32 bits are.
        bytes = bytes.saturating_add(u64::from(of).saturating_mul(2 * u64::from(len) + 6));
        if of == 0 || so_far > count || bytes > bytes_max {
            return None;
        }
        reads.lengths.push((of, len));
    }
    Some(reads)
}

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, number: u32) {
    put_varint(out, number.into());
}

/// Takes a number from the front.
pub(super) fn take(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(rest, 5)?).ok()
}

/// What there is of sequences and reads in some data.
struct Own {
    /// Bytes of both, names among those of reads.
    bytes: usize,
    /// Bytes of reads whose qualities are those of a read before.
    repeated: usize,
    /// How often each letter occurs, in upper case.
    counts: [usize; 256],
}

fn own(sample: &[u8]) -> Own {
    let mut own = Own { bytes: 0, repeated: 0, counts: [0; 256] };
    let mut qualities = std::collections::HashSet::new();
    let first = sample.iter().position(|b| *b == b'\n').unwrap_or(0);
    let carriage_returns = first > 0 && sample.get(first - 1) == Some(&b'\r');
    let mut rest = sample;
    while !rest.is_empty() {
        let start = rest.len();
        let letters = if rest.first() == Some(&b'@')
            && let Some(record) = record(rest, carriage_returns)
        {
            rest = record.rest;
            own.bytes += start - rest.len();
            own.repeated += if qualities.insert(record.qualities) { 0 } else { start - rest.len() };
            record.bases
        } else {
            let line = line(rest, carriage_returns);
            rest = line.rest;
            if !is_sequence(line.bytes) {
                continue;
            }
            own.bytes += start - rest.len();
            line.bytes
        };
        letters.iter().for_each(|letter| own.counts[usize::from(letter.to_ascii_uppercase())] += 1);
    }
    own
}

/// True when most of some data, from `OWN_BYTES_MIN` bytes on, is sequences or reads of nucleotides.
pub fn is_nucleotides(sample: &[u8]) -> bool {
    let Own { bytes, counts, .. } = own(sample);
    let letters: usize = counts.iter().sum();
    let bases = [counts[usize::from(b'A')], counts[usize::from(b'C')], counts[usize::from(b'G')]];
    let fourth = counts[usize::from(b'T')] + counts[usize::from(b'U')];
    let frequent = bases.into_iter().chain([fourth]).filter(|count| count * BASE_PART > letters).count();
    // Chromosomes begin with what nobody has read, up to megabytes of it.
    let unread = sample.starts_with(b">") && counts[usize::from(b'N')] * 2 > letters;
    bytes >= OWN_BYTES_MIN && bytes * 2 >= sample.len() && (frequent >= 3 || unread)
}

/// True when nothing that is for any data comes near: all but a sixteenth is sequences and reads, since words between them are
/// better known to others, and qualities do not repeat as a whole, which is not looked for here.
pub fn is_nucleotides_alone(raw: &[u8]) -> bool {
    let own = own(raw);
    own.bytes >= raw.len() - raw.len() / OTHER_PART && own.repeated <= raw.len() / OTHER_PART
}
