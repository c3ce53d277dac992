//! Payload of `picture`.
//!
//! ```text
//! u8       bytes of a value less one (1 bit), higher byte first (1), values are signed (1), values of a pixel less one (3), drawn (1)
//! varints  bytes of a row; pixels of its row before the first one; plain bytes before the pixels, and behind them; least value;
//!          greatest value less the least; bytes of what follows
//! bytes    what is no pixel: before the pixels, beside rows, behind the pixels; as it is, or, where it is shorter than that, as a
//!          zstd frame
//! bytes    code
//! ```
//! Bytes of a row are those of its pixels and less than a pixel more, which are beside it.

use super::format::{Format, Found};
use crate::base::{put_varint, take_varint};
use crate::models::Error;
use crate::models::zstd::{pack, unpack};

const WRONG: Error = Error::Corrupt("picture payload is damaged in its head");
/// How hard zstd tries: heads are short.
const ZSTD_LEVEL: i32 = 19;

/// What is coded, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub found: Found,
    /// Values are likely to be just those of other pixels.
    pub drawn: bool,
    pub least: i32,
    pub most: i32,
}

/// Values of all pixels, and what is no pixel.
pub(super) fn apart(found: &Found, raw: &[u8]) -> (Vec<i32>, Vec<u8>) {
    let Format { bytes, row, .. } = found.format;
    let (pixel, width) = (found.format.pixel(), found.format.width());
    let mut others = raw.get(..found.from).unwrap_or_default().to_vec();
    let mut rest = raw.get(found.from..found.to).unwrap_or_default();
    let mut values = Vec::with_capacity(rest.len() / bytes);
    let mut pixels = (width - found.skip) * pixel;
    while !rest.is_empty() {
        let (row_of, behind) = rest.split_at(pixels.min(rest.len()));
        values.extend(row_of.chunks_exact(bytes).map(|bytes| found.format.value(bytes)));
        let (beside, behind) = behind.split_at((row - width * pixel).min(behind.len()));
        others.extend_from_slice(beside);
        (rest, pixels) = (behind, width * pixel);
    }
    others.extend_from_slice(raw.get(found.to..).unwrap_or_default());
    (values, others)
}

/// Puts together what `apart` took apart.
pub(super) fn together(found: &Found, values: &[i32], others: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    let Format { planes, row, .. } = found.format;
    let (pixel, width) = (found.format.pixel(), found.format.width());
    let mut raw = Vec::with_capacity(raw_len);
    let (before, mut others) = others.split_at_checked(found.from)?;
    raw.extend_from_slice(before);
    let (mut values, mut of_row) = (values, width - found.skip);
    while !values.is_empty() {
        let (row_of, behind) = values.split_at((of_row * planes).min(values.len()));
        row_of.iter().for_each(|value| found.format.put(*value, &mut raw));
        let (beside, behind_it) =
            others.split_at((row - width * pixel).min(found.to.checked_sub(raw.len())?).min(others.len()));
        raw.extend_from_slice(beside);
        (values, others, of_row) = (behind, behind_it, width);
    }
    raw.extend_from_slice(others);
    (raw.len() == raw_len).then_some(raw)
}

pub(super) fn join(plan: &Plan, raw_len: usize, others: &[u8], code: &[u8]) -> Vec<u8> {
    let Plan { found: Found { format, from, to, skip }, drawn, least, most } = plan;
    let packed = pack(others, ZSTD_LEVEL);
    let stored = packed.as_deref().unwrap_or(others);
    let flags = [format.bytes == 2, format.big, format.signed]
        .into_iter()
        .rev()
        .fold(0, |flags, flag| flags << 1 | u8::from(flag));
    let mut payload = vec![flags | (format.planes as u8 - 1) << 3 | u8::from(*drawn) << 6];
    let numbers = [format.row, *skip, *from, raw_len - to, *least as usize, (most - least) as usize, stored.len()];
    numbers.into_iter().for_each(|number| put_varint(&mut payload, number as u64));
    payload.extend_from_slice(stored);
    payload.extend_from_slice(code);
    payload
}

/// What a payload says.
pub(super) struct Parts<'a> {
    pub plan: Plan,
    pub pixels: usize,
    pub others: Vec<u8>,
    pub code: &'a [u8],
}

/// Takes the payload of `raw_len` plain bytes apart.
pub(super) fn split(payload: &[u8], raw_len: usize) -> Result<Parts<'_>, Error> {
    let (flags, mut rest) = payload.split_first().ok_or(WRONG)?;
    let mut number = || take_varint(&mut rest, 4).and_then(|n| usize::try_from(n).ok()).ok_or(WRONG);
    let (row, skip, from, after) = (number()?, number()?, number()?, number()?);
    let (least, over, stored) = (number()?, number()?, number()?);
    let (bytes, planes) = (usize::from(flags & 1) + 1, usize::from(flags >> 3 & 7) + 1);
    let format = Format { bytes, planes, big: flags & 2 != 0, signed: flags & 4 != 0, row }.checked().ok_or(WRONG)?;
    let to = raw_len.checked_sub(after).filter(|to| from <= *to).ok_or(WRONG)?;
    let found = Found { format, from, to, skip };
    let pixels = found.count().ok_or(WRONG)?;
    let others_len = raw_len.checked_sub(pixels * format.pixel()).ok_or(WRONG)?;
    if flags & 128 != 0 || stored > rest.len() || stored > others_len || least + over > format.most() as usize {
        return Err(WRONG);
    }
    let (others, code) = rest.split_at(stored);
    let others = if stored < others_len { unpack(others, others_len).ok_or(WRONG)? } else { others.to_vec() };
    let (least, most) = (least as i32, (least + over) as i32);
    Ok(Parts { plan: Plan { found, drawn: flags & 64 != 0, least, most }, pixels, others, code })
}
