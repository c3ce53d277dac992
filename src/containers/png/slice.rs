//! A part of a picture whose pixels are more than a segment has room for: its deflate stream is cut between blocks, as other
//! streams are, wherever in its chunks and rows that is.
//!
//! What goes on behind a cut is told by how much of the chunk and of the row is left, and by the row of pixels above the first
//! whole one of what the stream may repeat.

use super::super::deflate::{self, End};
use super::super::{Error, Kind, StreamBefore};
use super::{CHUNK_BYTES, SIGNATURE, chunk, pixels, unfiltered_below};

/// Rows longer than this are not told apart from each other: the one above might not be whole where a cut is.
const ROW_BYTES_MAX: usize = 16 << 10;
/// Chunks of data in a slice.
const CHUNKS_MAX: usize = 1 << 12;
/// Times the text that was asked for that one block may have.
const BLOCK_FACTOR: usize = 4;

/// What goes on of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    pub stream: StreamBefore,
    /// Bytes of the chunk that are left, and the checksum of those that were.
    pub left: usize,
    pub crc: u32,
    pub rows: Option<Rows>,
}

/// Where rows of pixels lie in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Bytes of a row and its filter, and from a pixel to the next.
    pub row: u32,
    pub pixel: u8,
    /// Bytes of the text that belong to a row which began before it.
    pub lead: usize,
    /// Pixels above the first whole row: zeroes where it is the first of all.
    pub above: Vec<u8>,
}

/// The rows of a text: bytes before the first whole one, filters, pixels, and bytes behind the last whole one.
pub struct Taken<'a> {
    pub lead: &'a [u8],
    pub filters: Vec<u8>,
    pub pixels: Vec<u8>,
    pub trail: &'a [u8],
}

impl Rows {
    /// Those of a picture from its first on.
    fn of(head: &[u8]) -> Option<Rows> {
        let Some(Kind::Pixels { row, pixel }) = pixels(head) else { return None };
        let width = (row as usize).checked_sub(1).filter(|width| *width > 0 && *width < ROW_BYTES_MAX)?;
        Some(Rows { row, pixel, lead: 0, above: vec![0; width] })
    }

    pub fn take<'a>(&self, text: &'a [u8]) -> Option<Taken<'a>> {
        let row = self.row as usize;
        let (lead, rest) = text.split_at_checked(self.lead)?;
        let (rows, trail) = rest.split_at_checked(rest.len() / row.max(1) * row)?;
        let (filters, pixels) = unfiltered_below(rows, self.row, self.pixel, &self.above)?;
        Some(Taken { lead, filters, pixels, trail })
    }

    /// Those of a text that begins `at` bytes behind the start of `text`.
    fn behind(&self, text: &[u8], at: usize) -> Option<Rows> {
        let row = self.row as usize;
        let taken = self.take(text)?;
        // The first that begins there or behind it.
        let skipped = at.saturating_sub(self.lead).div_ceil(row);
        let above = match skipped.checked_sub(1) {
            None => self.above.clone(),
            Some(n) => taken.pixels.chunks_exact(row - 1).nth(n)?.to_vec(),
        };
        let lead = (self.lead + skipped * row).checked_sub(at)?;
        Some(Rows { lead, above, ..self.clone() })
    }
}

/// The data of chunks that follow each other, taken out of them.
pub struct Gathered {
    pub bytes: Vec<u8>,
    /// Lengths of the chunks that begin here, as they say.
    lens: Vec<usize>,
    goes_on: Option<(usize, u32)>,
}

/// Bytes of the picture's head up to its first chunk of data.
pub fn head_len(bytes: &[u8]) -> Option<(usize, Option<Rows>)> {
    let (mut at, mut rows) = (SIGNATURE.len(), None);
    if !bytes.starts_with(SIGNATURE) {
        return None;
    }
    for _ in 0..CHUNKS_MAX {
        if bytes.get(at + 4..at + 8)? == b"IDAT" {
            return Some((at, rows));
        }
        let (name, body, _) = chunk(bytes, at)?;
        if name == b"IHDR" {
            rows = Rows::of(body);
        }
        at += CHUNK_BYTES + body.len();
    }
    None
}

/// Takes data out of its chunks: of the one that goes on, `left` bytes and the checksum of those that were, or of the first.
pub fn gathered(bytes: &[u8], goes_on: Option<(usize, u32)>) -> Option<Gathered> {
    let mut out = Gathered { bytes: Vec::new(), lens: Vec::new(), goes_on };
    let mut at = 0;
    if let Some((left, _)) = goes_on {
        let part = bytes.get(..left).unwrap_or(bytes);
        out.bytes.extend_from_slice(part);
        at = part.len() + 4;
        if part.len() < left {
            return Some(out);
        }
    }
    while out.lens.len() < CHUNKS_MAX
        && let Some(head) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>)
    {
        let [l0, l1, l2, l3, b'I', b'D', b'A', b'T'] = *head else { break };
        let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let rest = bytes.get(at + 8..).unwrap_or_default();
        let part = rest.get(..len).unwrap_or(rest);
        out.lens.push(len);
        out.bytes.extend_from_slice(part);
        if part.len() < len {
            break;
        }
        at += CHUNK_BYTES + len;
    }
    (!out.bytes.is_empty()).then_some(out)
}

/// A part of gathered data, as closing has to be told of it.
pub struct Framed {
    /// Bytes as they lie.
    pub len: usize,
    /// Lengths of the chunks that begin in it.
    pub lens: Vec<usize>,
    /// The checksums in it, as they lie, and whether they are right.
    pub checksums: Vec<u8>,
    pub right: bool,
    /// What goes on behind it.
    pub left: usize,
    pub crc: u32,
}

impl Gathered {
    /// The first `len` bytes in their chunks, of which `bytes` are those as they lie. Nothing of what comes behind the last byte.
    pub fn framed(&self, bytes: &[u8], len: usize) -> Option<Framed> {
        let mut lens = Vec::new();
        let (mut left, mut crc) = self.goes_on.unwrap_or((0, 0));
        let (mut checksums, mut right) = (Vec::new(), true);
        let (mut at, mut done, mut inside) = (0usize, 0usize, self.goes_on.is_some());
        let mut chunks = self.lens.iter();
        loop {
            let part = self.bytes.get(done..len.min(done.checked_add(left)?))?;
            crc = checksum(crc, part);
            (at, done, left) = (at + part.len(), done + part.len(), left - part.len());
            if done == len {
                return Some(Framed { len: at, lens, checksums, right, left, crc });
            }
            if inside {
                let there = bytes.get(at..at + 4)?;
                right &= there == crc.to_be_bytes();
                checksums.extend_from_slice(there);
                at += 4;
            }
            let chunk_len = chunks.next()?;
            lens.push(*chunk_len);
            (left, crc, inside) = (*chunk_len, checksum(0, b"IDAT"), true);
            at += 8;
        }
    }
}

/// The checksum of a chunk, of which the bytes before had another.
fn checksum(before: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(bytes);
    hasher.finalize()
}

/// Appends data in the chunks of a slice, as `framed` took it out of them; with checksums that are right or those that are given.
pub fn put(
    out: &mut Vec<u8>,
    mut data: &[u8],
    goes_on: Option<(usize, u32)>,
    lens: &[usize],
    mut given: Option<&mut &[u8]>,
) -> Result<(), Error> {
    const DIFFERS: Error = Error("the chunks of a slice of a picture do not hold its data");
    let (mut left, mut crc) = goes_on.unwrap_or((0, 0));
    let (mut inside, mut lens) = (goes_on.is_some(), lens.iter());
    loop {
        let (part, rest) = data.split_at_checked(left).unwrap_or((data, &[]));
        crc = checksum(crc, part);
        out.extend_from_slice(part);
        data = rest;
        if data.is_empty() {
            return if lens.next().is_none() { Ok(()) } else { Err(DIFFERS) };
        }
        if inside {
            match &mut given {
                None => out.extend_from_slice(&crc.to_be_bytes()),
                Some(given) => out.extend_from_slice(super::super::plain::take(given, 4).ok_or(DIFFERS)?),
            }
        }
        let len = *lens.next().ok_or(DIFFERS)?;
        out.extend_from_slice(&u32::try_from(len).map_err(|_| DIFFERS)?.to_be_bytes());
        out.extend_from_slice(b"IDAT");
        (left, crc, inside) = (len, checksum(0, b"IDAT"), true);
    }
}

/// How far a slice goes.
pub struct Walk {
    /// Bytes of it as they lie.
    pub consumed: usize,
    pub text_bytes: usize,
    /// `None` where the stream ends in it.
    pub before: Option<Before>,
}

/// Walks along a picture that begins with `bytes`, or goes on with them, as far as they and `text_max` bytes of text go.
pub fn walk(before: Option<&Before>, bytes: &[u8], text_max: usize) -> Option<Walk> {
    let (head, rows) = match before {
        Some(before) => (0, before.rows.clone()),
        None => head_len(bytes)?,
    };
    let bytes = bytes.get(head..)?;
    let gathered = gathered(bytes, before.map(|before| (before.left, before.crc)))?;
    // The head of the stream.
    let skipped = if before.is_none() { 2 } else { 0 };
    let begin = before.map(|before| before.stream.clone()).unwrap_or_default();
    let data = gathered.bytes.get(skipped..)?;
    let walked = deflate::walk_text(&begin, data, text_max).ok()?;
    let (walked, text) = match walked {
        // One block is too much.
        (walked, _) if walked.consumed == 0 && walked.end == End::Text => {
            deflate::walk_text(&begin, data, text_max.saturating_mul(BLOCK_FACTOR)).ok()?
        }
        walked => walked,
    };
    if walked.consumed == 0 || deflate::expands(walked.text_bytes, walked.consumed) {
        return None;
    }
    let framed = gathered.framed(bytes, skipped + walked.consumed)?;
    let window = walked.before.window.len();
    let rows = rows.and_then(|rows| rows.behind(&text, text.len().checked_sub(window)?));
    let ended = walked.end == End::Done;
    let before = Before { stream: walked.before, left: framed.left, crc: framed.crc, rows };
    Some(Walk { consumed: head + framed.len, text_bytes: walked.text_bytes, before: (!ended).then_some(before) })
}
