//! PNG: the chunks in which its deflate stream lies, and the rows of pixels that come out of it, without their filters.

mod slice;

pub use slice::Before;
pub(super) use slice::{Rows, Walk, gathered, head_len, put as put_slice, walk};

use super::layout::CHUNKS_MAX;
use super::{Error, Kind};

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Length, type and checksum of a chunk.
const CHUNK_BYTES: usize = 12;

/// The data chunks of a picture, which lie one behind the other.
pub(super) struct Data {
    /// Where the first begins.
    pub start: usize,
    /// Bytes of all of them, with their heads.
    pub len: usize,
    /// Bytes of data of each.
    pub lens: Vec<usize>,
    pub bytes: Vec<u8>,
    /// Their checksums are right.
    pub right: bool,
    /// What their text is.
    pub kind: Kind,
    /// Bytes of it, by the head of the picture.
    pub text_bytes: usize,
}

/// Rows of a picture that is not interlaced, from its head.
fn pixels(head: &[u8]) -> Option<Kind> {
    let [w0, w1, w2, w3, _, _, _, _, depth, colour, 0, 0, 0] = *head else { return None };
    let channels = match colour {
        0 | 3 => 1u64,
        2 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    let bits = channels * u64::from(depth);
    let row = (u64::from(u32::from_be_bytes([w0, w1, w2, w3])) * bits).div_ceil(8) + 1;
    Some(Kind::Pixels { row: u32::try_from(row).ok()?, pixel: u8::try_from(bits.div_ceil(8).max(1)).ok()? })
}

/// A chunk at an offset: its type, data, and whether its checksum is right.
fn chunk(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8], bool)> {
    let head = bytes.get(at..)?.first_chunk::<8>()?;
    let [l0, l1, l2, l3, ..] = *head;
    let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    let checked = bytes.get(at + 4..at.checked_add(len)?.checked_add(8)?)?;
    let crc = bytes.get(at + 8 + len..)?.first_chunk::<4>()?;
    let (kind, data) = checked.split_at_checked(4)?;
    Some((kind, data, u32::from_be_bytes(*crc) == crc32fast::hash(checked)))
}

/// The data of the picture that begins with some bytes. `None` where a part of it is missing; what was walked through then is
/// taken from `work`.
pub(super) fn data(bytes: &[u8], work: &mut usize) -> Option<Data> {
    let mut at = SIGNATURE.len();
    let found = walked(bytes, &mut at);
    if found.is_none() {
        *work = work.saturating_sub(at);
    }
    found
}

/// Walks from chunk to chunk, `at` says how far.
fn walked(bytes: &[u8], at: &mut usize) -> Option<Data> {
    if !bytes.starts_with(SIGNATURE) {
        return None;
    }
    let kind = Kind::Text;
    let mut data = Data { start: 0, len: 0, lens: Vec::new(), bytes: Vec::new(), right: true, kind, text_bytes: 0 };
    loop {
        let (name, body, right) = match chunk(bytes, *at) {
            Some(chunk) => chunk,
            // What is cut off behind the data does not matter.
            None if !data.lens.is_empty() && bytes.get(*at + 4..*at + 8).is_some_and(|name| name != b"IDAT") => break,
            None => return None,
        };
        match name {
            b"IHDR" => {
                let height = body.get(4..8).and_then(|h| h.first_chunk::<4>()).map_or(0, |h| u32::from_be_bytes(*h));
                if let Some(Kind::Pixels { row, pixel }) = pixels(body) {
                    data.kind = Kind::Pixels { row, pixel };
                    data.text_bytes = (u64::from(row) * u64::from(height)).min(1 << 40) as usize;
                }
            }
            b"IDAT" if data.lens.len() < CHUNKS_MAX => {
                if data.lens.is_empty() {
                    data.start = *at;
                }
                data.lens.push(body.len());
                data.bytes.extend_from_slice(body);
                data.right &= right;
            }
            _ if !data.lens.is_empty() => break,
            b"IEND" => return None,
            _ => {}
        }
        *at += CHUNK_BYTES + body.len();
    }
    data.len = *at - data.start;
    Some(data)
}

/// The checksums of data chunks, as they lie.
pub(super) fn checksums(bytes: &[u8], data: &Data) -> Vec<u8> {
    let mut at = data.start;
    let mut out = Vec::with_capacity(4 * data.lens.len());
    for len in &data.lens {
        at += CHUNK_BYTES + len;
        out.extend_from_slice(at.checked_sub(4).and_then(|from| bytes.get(from..at)).unwrap_or_default());
    }
    out
}

/// Appends data in chunks, with right checksums or those that are taken from `given`.
pub(super) fn put_chunks(
    out: &mut Vec<u8>,
    mut data: &[u8],
    lens: &[usize],
    mut given: Option<&mut &[u8]>,
) -> Result<(), Error> {
    const DIFFERS: Error = Error("the chunks of a picture do not hold its data");
    for len in lens {
        let (body, rest) = data.split_at_checked(*len).ok_or(DIFFERS)?;
        data = rest;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(b"IDAT");
        hasher.update(body);
        out.extend_from_slice(&u32::try_from(*len).map_err(|_| DIFFERS)?.to_be_bytes());
        out.extend_from_slice(b"IDAT");
        out.extend_from_slice(body);
        match &mut given {
            None => out.extend_from_slice(&hasher.finalize().to_be_bytes()),
            Some(given) => {
                let (crc, rest) = given.split_at_checked(4).ok_or(DIFFERS)?;
                out.extend_from_slice(crc);
                **given = rest;
            }
        }
    }
    if data.is_empty() { Ok(()) } else { Err(DIFFERS) }
}

/// What a byte of a row is predicted from, by the filter of the row: nothing, the pixel before it, the one above, the mean of both,
/// or of them and the one above and before whichever is nearest to their plane. The form: PNG specification, section 9.
fn predicted(filter: u8, before: u8, above: u8, corner: u8) -> u8 {
    match filter {
        1 => before,
        2 => above,
        3 => ((u16::from(before) + u16::from(above)) / 2) as u8,
        4 => {
            let [a, b, c] = [before, above, corner].map(i16::from);
            let [to_a, to_b, to_c] = [(b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs()];
            if to_a <= to_b && to_a <= to_c {
                before
            } else if to_b <= to_c {
                above
            } else {
                corner
            }
        }
        _ => 0,
    }
}

/// Passes rows of pixels through the filters that they have, `put` says for each byte what becomes of it by its prediction, and
/// which of both is the pixel. `above` is the row of pixels above the first.
fn passed(bytes: &[u8], filters: &[u8], above: &[u8], pixel: usize, put: fn(u8, u8) -> (u8, u8)) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut above, mut line) = (above.to_vec(), Vec::with_capacity(above.len()));
    for (bytes, filter) in bytes.chunks_exact(above.len().max(1)).zip(filters) {
        line.clear();
        for (x, (byte, above_it)) in bytes.iter().zip(&above).enumerate() {
            let left = |of: &[u8]| x.checked_sub(pixel).and_then(|x| of.get(x)).copied().unwrap_or(0);
            let (made, is) = put(*byte, predicted(*filter, left(&line), *above_it, left(&above)));
            out.push(made);
            line.push(is);
        }
        std::mem::swap(&mut above, &mut line);
    }
    out
}

/// The filters of rows, `row` bytes with that of the filter each, and their pixels. `None` where they are no such rows.
pub(super) fn unfiltered(rows: &[u8], row: u32, pixel: u8) -> Option<(Vec<u8>, Vec<u8>)> {
    if rows.is_empty() || row < 2 {
        return None;
    }
    unfiltered_below(rows, row, pixel, &vec![0; row as usize - 1])
}

/// The same of rows below one of pixels.
fn unfiltered_below(rows: &[u8], row: u32, pixel: u8, above: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let row = row as usize;
    if row < 2 || pixel == 0 || above.len() != row - 1 || !rows.len().is_multiple_of(row) {
        return None;
    }
    let heads = rows.chunks_exact(row).map(|row| row.split_first());
    let (filters, bytes): (Vec<u8>, Vec<&[u8]>) = heads.flatten().unzip();
    if filters.iter().any(|filter| *filter > 4) {
        return None;
    }
    let put = |byte: u8, predicted: u8| (byte.wrapping_add(predicted), byte.wrapping_add(predicted));
    let pixels = passed(&bytes.concat(), &filters, above, pixel.into(), put);
    Some((filters, pixels))
}

/// The rows of pixels, with their filters in front; `below` says that the first of them has none, and is above the others.
pub(super) fn filtered(pixels: &[u8], filters: &[u8], row: u32, pixel: u8, below: bool) -> Vec<u8> {
    let width = row as usize - 1;
    let put = |byte: u8, predicted: u8| (byte.wrapping_sub(predicted), byte);
    let none = vec![0; width];
    let (above, pixels) =
        if below { pixels.split_at_checked(width).unwrap_or((&none, &[])) } else { (&none[..], pixels) };
    let bytes = passed(pixels, filters, above, pixel.into(), put);
    let rows = bytes.chunks_exact(width.max(1)).zip(filters);
    rows.flat_map(|(bytes, filter)| std::iter::once(*filter).chain(bytes.iter().copied())).collect()
}
