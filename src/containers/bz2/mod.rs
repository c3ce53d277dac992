//! bzip2, block by block: the text of each, which the library makes the same block of, whatever the size of blocks in its file
//! was, as that only says where they end.
//!
//! Blocks begin at any bit with the same 48 of them, and stand alone: files are cut behind the byte in which one ends, and what
//! the next lacks of its first bits is known. What is around blocks (heads of files, sums of checksums) stays as it is, as do
//! blocks of other encoders where they differ.

use bzip2::{Action, Compress, Compression, Decompress, Status};

use super::guard::guarded;
use super::{Declined, Error};

/// The first bits of a block, and of what ends a file.
const BLOCK: u64 = 0x3141_5926_5359;
const END: u64 = 0x1772_4538_5090;
const MAGIC_BITS: usize = 48;
/// The head of a file: letters, and the size of its blocks, 1 to 9, in 100,000 bytes.
const HEAD_BYTES: usize = 4;
/// Bytes of a block's text, but for what repeats.
const BLOCK_BYTES_MAX: usize = 900_000;
/// Compressed blocks are no longer than this.
const CODED_BYTES_MAX: usize = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 50 + 1024;

/// Blocks of a run: of more than a segment has text for in blocks of the smallest size.
pub(super) const BLOCKS_MAX: usize = 128;

/// Text of a run may be this many times as long as its blocks.
const EXPANSION_MAX: usize = 400;

/// A run of blocks, opened.
pub(super) struct Run {
    /// Bytes from that in which it begins to that in which it ends.
    pub len: usize,
    /// Bits of the first block that lie before, 0 to 7.
    pub missing: u8,
    /// Bytes of text of each block, and of all.
    pub lens: Vec<usize>,
    pub text: Vec<u8>,
    /// Bits of the last byte that belong to what comes behind, as the lowest ones.
    pub tail: u8,
}

/// Where blocks may begin in some bytes: behind a head at the start of them.
pub(super) fn head(bytes: &[u8]) -> Option<usize> {
    let is_head = matches!(bytes, [b'B', b'Z', b'h', b'1'..=b'9', ..]);
    (is_head && magic_at(bytes, 8 * HEAD_BYTES) == BLOCK).then_some(HEAD_BYTES)
}

/// How many bits of the block with which some bytes begin lie before them.
pub(super) fn missing(bytes: &[u8]) -> Option<u8> {
    if bytes.len() < MAGIC_BITS / 8 {
        return None;
    }
    let first = magic_at(bytes, 0);
    (0u8..8).find(|missing| first >> missing == BLOCK & (u64::MAX >> (64 - MAGIC_BITS + usize::from(*missing))))
}

/// So many bits from a bit on; zeros behind the end.
fn magic_at(bytes: &[u8], bit: usize) -> u64 {
    let rest = bytes.get(bit / 8..).unwrap_or_default();
    let word = match rest.first_chunk::<8>() {
        Some(word) => u64::from_be_bytes(*word),
        None => (0..8).fold(0, |word, n| word << 8 | u64::from(rest.get(n).copied().unwrap_or(0))),
    };
    word << (bit % 8) >> (64 - MAGIC_BITS)
}

/// The bit where the next block or the end of the file begins, from a bit on.
fn next_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let last = bytes.len().checked_sub(MAGIC_BITS / 8)?;
    let to = last.min((from / 8).saturating_add(CODED_BYTES_MAX));
    for at in from / 8..=to {
        let rest = bytes.get(at..)?;
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_be_bytes(*word),
            None => (0..8).fold(0, |word, n| word << 8 | u64::from(rest.get(n).copied().unwrap_or(0))),
        };
        for shift in 0..8 {
            let found = word << shift >> (64 - MAGIC_BITS);
            let bit = 8 * at + shift;
            if (found == BLOCK || found == END) && bit >= from && bit + MAGIC_BITS <= 8 * bytes.len() {
                return Some(bit);
            }
        }
    }
    None
}

/// Bits as they are put together, the highest of a byte first.
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are there, 1 to 8; 8 where there is none.
    used: u8,
}

impl Bits {
    fn new() -> Bits {
        Bits { bytes: Vec::new(), used: 8 }
    }

    fn len(&self) -> usize {
        8 * self.bytes.len() - usize::from(8 - self.used)
    }

    /// Appends the lowest bits of a number, 8 at most.
    fn push(&mut self, value: u8, count: u8) {
        if count == 0 {
            return;
        }
        let free = 8 - self.used;
        let value = u16::from(value) & ((1 << count) - 1);
        // The first of them at the top of two bytes, behind what is there.
        let [a, b] = (value << (16 - count) >> if free == 0 { 0 } else { self.used }).to_be_bytes();
        if free == 0 {
            self.bytes.push(a);
            self.used = count;
            return;
        }
        self.bytes.iter_mut().next_back().into_iter().for_each(|last| *last |= a);
        if count > free {
            self.bytes.push(b);
            self.used = count - free;
        } else {
            self.used += count;
        }
    }

    /// Appends the bits of some bytes from one to another.
    fn append(&mut self, bytes: &[u8], from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let count = (to - at).min(8);
            let byte = (magic_at(bytes, at) >> (MAGIC_BITS - 8)) as u8;
            self.push(byte >> (8 - count), count as u8);
            at += count;
        }
    }
}

/// The text of the block between two bits, of which the first `missing` lie before.
fn text_of(bytes: &[u8], from: usize, to: usize, missing: u8, room: usize) -> Result<Vec<u8>, Declined> {
    let mut whole = Bits::new();
    b"BZh9".iter().for_each(|byte| whole.push(*byte, 8));
    let mut magic = Bits::new();
    BLOCK.to_be_bytes().iter().skip(2).for_each(|byte| magic.push(*byte, 8));
    whole.append(&magic.bytes, 0, missing.into());
    whole.append(bytes, from, to);
    END.to_be_bytes().iter().skip(2).for_each(|byte| whole.push(*byte, 8));
    // The sum of the checksums is that of the one block.
    let sum = whole.bytes.get(HEAD_BYTES + MAGIC_BITS / 8..).and_then(|rest| rest.first_chunk::<4>());
    sum.copied().unwrap_or_default().iter().for_each(|byte| whole.push(*byte, 8));
    let limit = room.min(EXPANSION_MAX * (to - from) / 8 + 4096);
    let decoded = guarded(|| {
        let mut decoder = Decompress::new(false);
        let mut text = Vec::with_capacity(limit.min(BLOCK_BYTES_MAX + 4096));
        loop {
            let consumed = decoder.total_in() as usize;
            if text.len() > limit {
                return Err(Declined::TooLarge);
            }
            if text.len() == text.capacity() {
                text.reserve(text.len().clamp(4096, limit + 1));
            }
            let rest = whole.bytes.get(consumed..).unwrap_or_default();
            let before = (consumed, text.len());
            match decoder.decompress_vec(rest, &mut text) {
                Ok(Status::StreamEnd) => return Ok(text),
                Ok(_) if (decoder.total_in() as usize, text.len()) != before => {}
                // Where the end of the block is not known, what ends it does not follow; whether it is right is seen later.
                Ok(_) | Err(_) if !text.is_empty() => return Ok(text),
                Ok(_) | Err(_) => return Err(Declined::Foreign),
            }
        }
    });
    let text = decoded.ok_or(Declined::Failed)??;
    if text.len() > limit { Err(Declined::TooLarge) } else { Ok(text) }
}

/// The block that the library makes of a text, as bits behind a head of `HEAD_BYTES`, and where they end. `None` where it is more than one.
fn block_of(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let coded = guarded(|| {
        let mut out = Vec::with_capacity(text.len().min(CODED_BYTES_MAX) + text.len() / 50 + 1024);
        let mut encoder = Compress::new(Compression::new(9), 0);
        loop {
            let consumed = encoder.total_in() as usize;
            let before = (consumed, out.len());
            match encoder.compress_vec(text.get(consumed..).unwrap_or_default(), &mut out, Action::Finish) {
                Ok(Status::StreamEnd) => return Some(out),
                Ok(_) if (encoder.total_in() as usize, out.len()) != before || out.len() == out.capacity() => {}
                Ok(_) | Err(_) => return None,
            }
            out.reserve(4096);
        }
    });
    let coded = coded.flatten()?;
    let first = next_magic(&coded, 8 * HEAD_BYTES)?;
    let end = next_magic(&coded, first + MAGIC_BITS)?;
    (first == 8 * HEAD_BYTES && magic_at(&coded, end) == END).then_some((coded, end))
}

/// How far blocks go.
pub(super) struct Walk {
    /// Bytes to that in which the last block ends that was reached.
    pub consumed: usize,
    pub text_bytes: usize,
    /// More follows than there is room for.
    pub full: bool,
}

/// Walks along the blocks from a byte on, as far as they and `text_max` bytes of text go.
pub(super) fn walk(bytes: &[u8], missing: u8, text_max: usize) -> Walk {
    let mut walk = Walk { consumed: 0, text_bytes: 0, full: false };
    let (mut at, mut lacks) = (0, missing);
    while let Some(to) = next_magic(bytes, at + MAGIC_BITS - usize::from(lacks)) {
        match text_of(bytes, at, to, lacks, text_max.saturating_sub(walk.text_bytes)) {
            Ok(text) => walk.text_bytes += text.len(),
            Err(why) => {
                walk.full = why == Declined::TooLarge;
                break;
            }
        }
        walk.consumed = to.div_ceil(8);
        if magic_at(bytes, to) != BLOCK {
            break;
        }
        (at, lacks) = (to, 0);
    }
    walk
}

/// Opens the blocks from a byte on, as far as they and `room` bytes of text go.
///
/// # Errors
/// Where there is none; and how many bytes were looked at.
pub(super) fn open(bytes: &[u8], missing: u8, room: usize) -> Result<Run, (Declined, usize)> {
    let mut run = Run { len: 0, missing, lens: Vec::new(), text: Vec::new(), tail: 0 };
    let (mut at, mut lacks, mut last) = (0, missing, (Declined::Foreign, 0));
    while at + MAGIC_BITS < 8 * bytes.len() && run.lens.len() < BLOCKS_MAX {
        let next = next_magic(bytes, at + MAGIC_BITS - usize::from(lacks));
        let to = next.unwrap_or(8 * bytes.len());
        // What breaks off is looked at only where it may be a whole block.
        let near = to - at < 8 * CODED_BYTES_MAX;
        let text = match text_of(bytes, at, to, lacks, room.saturating_sub(run.text.len())) {
            Ok(text) if near => Ok((text, at)),
            Ok(_) => Err(Declined::Foreign),
            Err(why) => Err(why),
        };
        let same = text.and_then(|(text, at)| {
            let (again, end) = block_of(&text).ok_or(Declined::Differs)?;
            let again = own_bits(&again, end, lacks);
            let own_to = at + again.len();
            let mut own = Bits::new();
            own.append(bytes, at, own_to.min(to));
            // To the next one, or to the last byte.
            let ends = next.map_or(own_to <= to && to - own_to < 8, |next| next == own_to);
            if ends && again.bytes == own.bytes { Ok((own_to, text)) } else { Err(Declined::Differs) }
        });
        let (to, mut text) = match same {
            Ok(same) => same,
            Err(why) => {
                last = (why, (to - at) / 8 + BLOCK_BYTES_MAX);
                break;
            }
        };
        run.lens.push(text.len());
        run.text.append(&mut text);
        run.len = to.div_ceil(8);
        let unused = (8 - to % 8) % 8;
        run.tail = bytes.get(to / 8).map_or(0, |byte| if unused > 0 { byte & ((1 << unused) - 1) } else { 0 });
        if magic_at(bytes, to) != BLOCK {
            break;
        }
        (at, lacks) = (to, 0);
    }
    if run.lens.is_empty() { Err(last) } else { Ok(run) }
}

/// The bits of a block behind a head, but for its first ones.
fn own_bits(coded: &[u8], end: usize, missing: u8) -> Bits {
    let mut own = Bits::new();
    own.append(coded, 8 * HEAD_BYTES + usize::from(missing), end);
    own
}

/// Makes blocks of a text again: of so many bytes each.
///
/// # Errors
/// When there are more bytes than the text has, or a block does not hold them.
pub(super) fn close(text: &[u8], lens: &[usize], missing: u8, tail: u8) -> Result<Vec<u8>, Error> {
    const DIFFERS: Error = Error("a text does not go with the blocks that it was in");
    let (mut out, mut rest, mut lacks) = (Bits::new(), text, missing);
    for len in lens {
        let (own, behind) = rest.split_at_checked(*len).ok_or(DIFFERS)?;
        rest = behind;
        let (coded, end) = block_of(own).ok_or(DIFFERS)?;
        out.append(&coded, 8 * HEAD_BYTES + usize::from(lacks), end);
        lacks = 0;
    }
    if !rest.is_empty() || missing > 7 {
        return Err(DIFFERS);
    }
    let unused = 8 - out.used;
    out.push(tail, unused);
    Ok(out.bytes)
}
