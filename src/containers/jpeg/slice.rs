//! A part of a long picture: whole rows of its blocks, opened as a picture of its own.
//!
//! Baseline pictures in one scan are walked through by their Huffman codes, to where a row ends. A slice is put behind the tables
//! of its picture, with the height that it has, and a row of flat blocks in the colour from which its first one is told; closing
//! drops that and moves it back to the bits where it was. With restart markers a slice ends where their numbers begin anew, and
//! needs neither.
//!
//! The form of the codes: ITU-T T.81, annex F.

use super::{Frame, PIXELS_MAX, close as close_picture, open as open_picture};
use crate::containers::{Declined, Error};

/// Bytes of tables that a picture has; more are not carried from slice to slice.
const TABLES_BYTES_MAX: usize = 16 << 10;
const COMPONENTS: usize = 3;
const END: &[u8] = b"\xff\xd9";
/// Restart markers are numbered by so many.
const RESTARTS: u64 = 8;

/// What was before a slice: tables of its picture, what is left of it, and the first bits of the slice, which lie in a byte
/// before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// From the start of the picture to its scan, without what is not needed to read that.
    tables: Vec<u8>,
    /// Rows of blocks before it.
    rows: u32,
    /// Bits of the last byte before the slice that belong to it, 0 to 7, and that byte.
    bits: u8,
    lead: u8,
    /// The last first value of each component.
    values: [i32; COMPONENTS],
}

/// A slice, opened.
pub struct Slice {
    /// Where it begins and ends in the bytes that were given.
    pub from: usize,
    pub to: usize,
    pub frame: Frame,
    /// Bits in front of its own bytes.
    pub front_bits: usize,
    pub coded: Vec<u8>,
}

/// Where a walk from row to row stopped.
pub struct Walk {
    /// Bytes up to the last row's end, the byte that it lies in among them.
    pub consumed: usize,
    /// What goes on there; none where the scan ends.
    pub before: Option<Before>,
}

/// A code of a table.
#[derive(Clone, Default)]
struct Huffman {
    /// Of each length: the first code, how many there are, and where their symbols begin.
    lengths: [(u32, u32, usize); 16],
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Huffman {
        let mut lengths = [(0, 0, 0); 16];
        let (mut code, mut at) = (0, 0);
        for (length, count) in lengths.iter_mut().zip(counts) {
            *length = (code, u32::from(*count), at);
            code = (code + u32::from(*count)) << 1;
            at += usize::from(*count);
        }
        Huffman { lengths, symbols: symbols.to_vec() }
    }

    fn symbol(&self, bits: &mut Bits) -> Option<u8> {
        let mut code = 0u32;
        for (first, count, at) in self.lengths {
            code = code << 1 | u32::from(bits.bit()?);
            if let Some(n) = code.checked_sub(first).filter(|n| *n < count) {
                return self.symbols.get(at + n as usize).copied();
            }
        }
        None
    }

    /// The code of a symbol, and its bits.
    fn code(&self, symbol: u8) -> Option<(u32, u8)> {
        let n = self.symbols.iter().position(|s| *s == symbol)?;
        let lengths = self.lengths.iter().zip(1u8..=16);
        lengths.rev().find(|((_, _, at), _)| *at <= n).map(|((first, _, at), bits)| (first + (n - at) as u32, bits))
    }
}

/// A row of bits that is written, the highest of a byte first.
#[derive(Default)]
struct Row {
    bytes: Vec<u8>,
    /// Bits behind the last whole byte.
    carry: u8,
    bits: u8,
}

impl Row {
    fn put(&mut self, value: u32, bits: u8) {
        for n in (0..bits).rev() {
            self.carry = self.carry << 1 | (value >> n & 1) as u8;
            self.bits += 1;
            if self.bits == 8 {
                self.bytes.push(self.carry);
                (self.carry, self.bits) = (0, 0);
            }
        }
    }
}

/// Bits of a scan, the highest of a byte first. Behind 0xff comes a zero that is not one of them.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Behind the byte that bits are taken from.
    at: usize,
    byte: u8,
    left: u8,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u8> {
        if self.left == 0 {
            self.byte = *self.bytes.get(self.at)?;
            if self.byte == 0xff && *self.bytes.get(self.at + 1)? != 0 {
                return None;
            }
            self.at += if self.byte == 0xff { 2 } else { 1 };
            self.left = 8;
        }
        self.left -= 1;
        Some(self.byte >> self.left & 1)
    }

    fn skip(&mut self, bits: u8) -> Option<()> {
        (0..bits).try_for_each(|_| self.bit().map(|_| ()))
    }

    /// A value of so many bits: negative ones begin with zero.
    fn value(&mut self, bits: u8) -> Option<i32> {
        if bits > 15 {
            return None;
        }
        let value = (0..bits).try_fold(0, |value, _| Some(value << 1 | i32::from(self.bit()?)))?;
        Some(if bits > 0 && value >> (bits - 1) == 0 { value + 1 - (1 << bits) } else { value })
    }

    /// A restart marker of that number; what is left of the byte before it is nothing.
    fn restart(&mut self, number: u64) -> Option<()> {
        self.left = 0;
        let marker = self.bytes.get(self.at..)?.first_chunk::<2>()?;
        self.at += 2;
        (*marker == [0xff, 0xd0 | (number % RESTARTS) as u8]).then_some(())
    }
}

/// A component as the frame names it: its number, and its blocks in a group, in a row and one below the other.
struct Component {
    id: u8,
    across: u8,
    down: u8,
}

/// A block of a group.
#[derive(Clone)]
struct Block {
    component: usize,
    /// Which table codes its first value, and which the others.
    first: usize,
    others: usize,
}

/// What is read at the head of a picture.
struct Head {
    tables: Vec<u8>,
    /// Where the height of the frame is in them.
    height_at: usize,
    frame: Frame,
    /// Where the scan begins.
    scan: usize,
    blocks: Vec<Block>,
    first: [Huffman; 4],
    others: [Huffman; 4],
    /// Rows of pixels in a row of groups, and groups in it.
    group_height: u32,
    groups: u64,
    /// Groups between restart markers, or 0.
    interval: u64,
}

/// Tables of codes, one behind the other.
fn read_codes(mut body: &[u8], first: &mut [Huffman; 4], others: &mut [Huffman; 4]) -> Option<()> {
    while let Some((kind, rest)) = body.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let (symbols, rest) = rest.split_at_checked(counts.iter().map(|n| usize::from(*n)).sum())?;
        let tables = match kind >> 4 {
            0 => &mut *first,
            1 => &mut *others,
            _ => return None,
        };
        *tables.get_mut(usize::from(kind & 15))? = Huffman::new(counts, symbols);
        body = rest;
    }
    Some(())
}

/// Reads the head of a picture that can be cut: baseline, of one scan with one or three components.
fn head(bytes: &[u8]) -> Option<Head> {
    if !bytes.starts_with(b"\xff\xd8") {
        return None;
    }
    let (mut tables, mut at) = (bytes.get(..2)?.to_vec(), 2);
    let (mut first, mut others) = (<[Huffman; 4]>::default(), <[Huffman; 4]>::default());
    let mut sizes: Option<(usize, Frame, Vec<Component>)> = None;
    let mut interval = 0;
    loop {
        let [0xff, marker, l0, l1] = *bytes.get(at..)?.first_chunk::<4>()? else { return None };
        let len = 2 + usize::from(u16::from_be_bytes([l0, l1]));
        let segment = bytes.get(at..at + len)?;
        let body = segment.get(4..)?;
        at += len;
        // What programs say to each other is not needed.
        if !matches!(marker, 0xe0..=0xef | 0xfe) {
            if tables.len() + len > TABLES_BYTES_MAX {
                return None;
            }
            tables.extend_from_slice(segment);
        }
        match marker {
            0xc0 if sizes.is_none() => {
                let ([8, h0, h1, w0, w1, count], rest) = body.split_first_chunk::<6>()? else { return None };
                let frame = Frame { width: u16::from_be_bytes([*w0, *w1]), height: u16::from_be_bytes([*h0, *h1]) };
                let components = rest.chunks_exact(3).map(|c| match c {
                    [id, sides, _] => Some(Component { id: *id, across: sides >> 4, down: sides & 15 }),
                    _ => None,
                });
                let components: Vec<Component> = components.collect::<Option<_>>()?;
                let counted = matches!(components.len(), 1 | 3) && components.len() == usize::from(*count);
                let sampled = components.iter().all(|c| (1..=4).contains(&c.across) && (1..=4).contains(&c.down));
                if !counted || !sampled || frame.width == 0 || frame.height == 0 {
                    return None;
                }
                sizes = Some((tables.len() - len + 5, frame, components));
            }
            0xc4 => read_codes(body, &mut first, &mut others)?,
            0xdb | 0xe0..=0xef | 0xfe => {}
            0xdd => interval = u64::from(u16::from_be_bytes(*body.first_chunk::<2>()?)),
            0xda => {
                let (height_at, frame, components) = sizes?;
                let (count, rest) = body.split_first()?;
                let ([.., 0, 63, 0], 3) = (rest, rest.len() - 2 * components.len().min(rest.len() / 2)) else {
                    return None;
                };
                if usize::from(*count) != components.len() {
                    return None;
                }
                let mut blocks = Vec::new();
                let alone = components.len() == 1;
                for (n, (component, coded)) in components.iter().zip(rest.chunks_exact(2)).enumerate() {
                    let [of, codes] = *coded else { return None };
                    if of != component.id || codes >> 4 > 3 || codes & 15 > 3 {
                        return None;
                    }
                    // One component alone is not in groups, whatever it says.
                    let many = if alone { 1 } else { usize::from(component.across * component.down) };
                    let block = Block { component: n, first: usize::from(codes >> 4), others: usize::from(codes & 15) };
                    blocks.extend(std::iter::repeat_n(block, many));
                }
                let side = |of: fn(&Component) -> u8| {
                    if alone { 8 } else { 8 * components.iter().map(of).max().map_or(1, u32::from) }
                };
                let (width, group_height) = (side(|c| c.across), side(|c| c.down));
                let groups = u64::from(u32::from(frame.width).div_ceil(width));
                return Some(Head {
                    tables,
                    height_at,
                    frame,
                    scan: at,
                    blocks,
                    first,
                    others,
                    group_height,
                    groups,
                    interval,
                });
            }
            _ => return None,
        }
    }
}

/// Where whole rows end.
struct Rows {
    count: u32,
    /// The scan ends with them.
    all: bool,
    /// Behind the byte in which they end, and the bits of that byte that are behind them.
    at: usize,
    left: u8,
    byte: u8,
    values: [i32; COMPONENTS],
}

impl Head {
    fn group(&self, bits: &mut Bits, values: &mut [i32; COMPONENTS]) -> Option<()> {
        for block in &self.blocks {
            let size = self.first.get(block.first)?.symbol(bits)?;
            let value = values.get_mut(block.component)?;
            *value = value.checked_add(bits.value(size)?)?;
            let others = self.others.get(block.others)?;
            let mut place = 1;
            while place < 64 {
                let symbol = others.symbol(bits)?;
                match (symbol >> 4, symbol & 15) {
                    (15, 0) => place += 16,
                    (_, 0) => break,
                    (zeros, size) => {
                        place += zeros + 1;
                        bits.skip(size)?;
                    }
                }
            }
        }
        Some(())
    }

    /// Walks through a scan that goes on behind `rows` rows, as far as whole rows go after which it may be cut.
    fn rows(&self, mut bits: Bits, rows: u32, mut values: [i32; COMPONENTS]) -> Option<Rows> {
        let total = u32::from(self.frame.height).div_ceil(self.group_height);
        // A row of flat blocks comes in front.
        let most = (PIXELS_MAX / u64::from(self.frame.width).max(1)) as u32 / self.group_height - 1;
        let mut found = None;
        for row in rows..total.min(rows.saturating_add(most)) {
            for group in u64::from(row) * self.groups..u64::from(row + 1) * self.groups {
                let begins = group == u64::from(rows) * self.groups;
                if self.interval > 0 && group.is_multiple_of(self.interval) && !begins {
                    match bits.restart(group / self.interval - 1) {
                        Some(()) => values = [0; COMPONENTS],
                        None => return found,
                    }
                }
                if self.group(&mut bits, &mut values).is_none() {
                    return found;
                }
            }
            let done = u64::from(row + 1) * self.groups;
            if row + 1 == total || self.interval == 0 || done.is_multiple_of(RESTARTS * self.interval) {
                let (count, all) = (row + 1 - rows, row + 1 == total);
                found = Some(Rows { count, all, at: bits.at, left: bits.left, byte: bits.byte, values });
            }
        }
        found
    }

    /// A row of flat blocks of these values. `None` where the tables have no codes for it.
    fn flat_row(&self, values: [i32; COMPONENTS]) -> Option<Row> {
        let (mut row, mut told) = (Row::default(), [0; COMPONENTS]);
        for _ in 0..self.groups {
            for block in &self.blocks {
                let from = told.get_mut(block.component)?;
                let differs = values.get(block.component)?.checked_sub(*from)?;
                *from += differs;
                let size = (32 - differs.unsigned_abs().leading_zeros()) as u8;
                if size > 15 {
                    return None;
                }
                let (code, bits) = self.first.get(block.first)?.code(size)?;
                row.put(code, bits);
                row.put(if differs < 0 { differs + (1 << size) - 1 } else { differs } as u32, size);
                let (code, bits) = self.others.get(block.others)?.code(0)?;
                row.put(code, bits);
            }
        }
        Some(row)
    }

    /// The head of a picture of so many rows behind those that are done, with `more` in front, and its frame.
    fn of_slice(&self, done: u32, rows: &Rows, more: u32) -> (Vec<u8>, Frame) {
        let height = match u32::from(self.frame.height).saturating_sub(done * self.group_height) {
            rest if rows.all => rest,
            rest => rest.min(rows.count * self.group_height),
        };
        let height = u16::try_from(height + more * self.group_height).unwrap_or(0);
        let frame = Frame { height, ..self.frame };
        let mut tables = self.tables.clone();
        tables.iter_mut().skip(self.height_at).zip(frame.height.to_be_bytes()).for_each(|(byte, of)| *byte = of);
        (tables, frame)
    }
}

/// Where some bytes go on with a picture, or begin one.
struct Begin<'a> {
    head: Head,
    /// Rows that are done.
    done: u32,
    values: [i32; COMPONENTS],
    /// The scan from there on.
    bits: Bits<'a>,
}

fn begin<'a>(before: Option<&Before>, bytes: &'a [u8]) -> Option<Begin<'a>> {
    Some(match before {
        None => {
            let head = head(bytes)?;
            let bits = Bits { bytes, at: head.scan, byte: 0, left: 0 };
            Begin { head, done: 0, values: [0; COMPONENTS], bits }
        }
        Some(before) => {
            let bits = Bits { bytes, at: 0, byte: before.lead, left: before.bits.min(7) };
            Begin { head: head(&before.tables)?, done: before.rows, values: before.values, bits }
        }
    })
}

/// Walks along a picture that begins with `bytes`, or goes on with them, as far as they go. `None` where not one row is whole, or
/// it is of another kind.
pub fn walk(before: Option<&Before>, bytes: &[u8]) -> Option<Walk> {
    let Begin { head, done, values, bits } = begin(before, bytes)?;
    let rows = head.rows(bits, done, values)?;
    if rows.all {
        return Some(Walk { consumed: rows.at, before: None });
    }
    let marked = bytes.get(rows.at..).is_some_and(|rest| rest.starts_with(&[0xff, 0xd7]));
    let (consumed, bits, values) = match head.interval {
        0 => (rows.at, rows.left, rows.values),
        _ if marked => (rows.at + 2, 0, [0; COMPONENTS]),
        _ => return None,
    };
    let before = Before { tables: head.tables, rows: done + rows.count, bits, lead: rows.byte, values };
    Some(Walk { consumed, before: Some(before) })
}

/// Bytes of a scan without the zeroes behind 0xff.
fn plain(scan: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(scan.len());
    let mut before = 0;
    for byte in scan {
        if !(before == 0xff && *byte == 0) {
            out.push(*byte);
        }
        before = *byte;
    }
    out
}

fn append_stuffed(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        out.push(byte);
        if byte == 0xff {
            out.push(0);
        }
    }
}

/// Opens the slice of a picture that begins with `bytes`, or goes on with them.
pub fn open(before: Option<&Before>, bytes: &[u8]) -> Result<Slice, Declined> {
    let Begin { head, done, values, bits } = begin(before, bytes).ok_or(Declined::Foreign)?;
    let (from, lead_bits, lead) = (bits.at, bits.left, bits.byte);
    let rows = head.rows(bits, done, values).ok_or(Declined::Foreign)?;
    let told = values != [0; COMPONENTS];
    let mut front = if told { head.flat_row(values).ok_or(Declined::Foreign)? } else { Row::default() };
    front.put(lead.into(), lead_bits);
    let front_bits = 8 * front.bytes.len() + usize::from(front.bits);
    let (mut picture, frame) = head.of_slice(done, &rows, told.into());
    let scan = bytes.get(from..rows.at).ok_or(Declined::Foreign)?;
    let mut to = rows.at;
    if head.interval > 0 {
        picture.extend_from_slice(scan);
    } else {
        // The byte in which it ends is no byte of its own.
        let mut own = plain(scan);
        if rows.left > 0 {
            to -= if rows.byte == 0xff { 2 } else { 1 };
            // Ones fill it up.
            own.iter_mut().last().into_iter().for_each(|last| *last |= (1 << rows.left) - 1);
        }
        // Moved by the bits in front; ones fill the last byte.
        let Row { bytes: whole, mut carry, bits } = front;
        let rest = own.iter().copied().chain((bits > rows.left).then_some(0xff));
        append_stuffed(&mut picture, whole.into_iter());
        append_stuffed(
            &mut picture,
            rest.map(|byte| {
                let both = u16::from(carry) << 8 | u16::from(byte);
                carry = byte & ((1u16 << bits) - 1) as u8;
                (both >> bits) as u8
            }),
        );
    }
    picture.extend_from_slice(END);
    let coded = open_picture(&picture, frame)?;
    let slice = Slice { from, to, frame, front_bits, coded };
    let own = bytes.get(from..to).unwrap_or_default();
    if slice.coded.len() >= own.len() {
        return Err(Declined::TooLarge);
    }
    // That lepton gives the picture back was seen when it coded it.
    match own_of(&picture, front_bits, own.len()) {
        Ok(again) if again == own => Ok(slice),
        Ok(_) | Err(_) => Err(Declined::Differs),
    }
}

/// The `len` bytes of a slice. `room` bounds the picture that it is made from.
pub fn close(coded: &[u8], frame: Frame, front_bits: usize, len: usize, room: usize) -> Result<Vec<u8>, Error> {
    own_of(&close_picture(coded, frame, room)?, front_bits, len)
}

/// The bytes of a slice in the picture that was made of it.
fn own_of(picture: &[u8], front_bits: usize, len: usize) -> Result<Vec<u8>, Error> {
    const SHORT: Error = Error("a slice of a picture is too short");
    let head = head(picture).ok_or(SHORT)?;
    let scan = picture.get(head.scan..picture.len().saturating_sub(END.len())).ok_or(SHORT)?;
    if head.interval > 0 {
        return scan.get(..len).map(<[u8]>::to_vec).ok_or(SHORT);
    }
    let whole = plain(scan);
    let own = whole.get(front_bits / 8..).ok_or(SHORT)?;
    let bits = front_bits % 8;
    let mut out = Vec::with_capacity(own.len());
    // The last byte has nothing behind it that would be its own.
    let pairs = own.iter().zip(own.iter().skip(1).chain([&0]));
    append_stuffed(&mut out, pairs.map(|(a, b)| ((u16::from(*a) << 8 | u16::from(*b)) >> (8 - bits)) as u8));
    out.truncate(len);
    if out.len() == len { Ok(out) } else { Err(SHORT) }
}
