//! Payload of `video`.
//!
//! ```text
//! u8       how values lie (4 bits): 0 grey; planes of 1 4:2:0, 2 4:2:2, 3 4:4:4, 4 4:1:1, 5 4:4:4 and a fourth; rows of 6 blue, green,
//!          red, 7 those and a fourth, filled up to four bytes, of 8 Y U Y V, 9 U Y V Y; bytes of a value less one, the lower first (1)
//! varints  columns; rows; frames; least value; greatest value less the least; bytes of what is no pixel; bytes of what follows
//! bytes    varints: plain bytes before the first frame, and between each and the next; then what is no pixel, in its order; as it
//!          is, or, where it is shorter than that, as a zstd frame
//! bytes    code
//! ```
//! The code has for each frame but the first where its blocks moved from, and then the values of each plane: green before the other
//! colours.

use super::format::{Format, Found, Kind};
use super::predictor::{Clip, Plane};
use crate::base::{SEGMENT_BYTES_MAX, put_varint, take_varint};
use crate::models::Error;
use crate::models::zstd::{pack, unpack};

const WRONG: Error = Error::Corrupt("video payload is damaged in its head");
const ZSTD_LEVEL: i32 = 19;

/// What predictors are told of frames.
pub(super) fn clip(format: &Format, least: i32, most: i32) -> Clip {
    let planes: Vec<Plane> = format.planes().into_iter().map(|(plane, _)| plane).collect();
    Clip { planes, least, most }
}

/// Values of all frames, and what is no pixel.
pub(super) fn apart(found: &Found, raw: &[u8]) -> (Vec<i32>, Vec<u8>) {
    let Found { format, starts } = found;
    let byte = |at: usize| raw.get(at).copied().unwrap_or(0);
    let mut covered = vec![false; raw.len()];
    let mut values = Vec::with_capacity(raw.len() / format.bytes);
    for at in starts.iter().flat_map(|start| format.places(*start)) {
        let bytes = at..at + format.bytes;
        values.push(bytes.clone().rev().fold(0, |value, at| value << 8 | i32::from(byte(at))));
        if let Some(covered) = covered.get_mut(bytes) {
            covered.fill(true);
        }
    }
    let others = raw.iter().zip(covered).filter(|(_, covered)| !covered).map(|(byte, _)| *byte).collect();
    (values, others)
}

/// Puts together what `apart` took apart.
pub(super) fn together(found: &Found, values: &[i32], others: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    let Found { format, starts } = found;
    let mut raw = vec![0; raw_len];
    let mut covered = vec![false; raw_len];
    for (at, value) in starts.iter().flat_map(|start| format.places(*start)).zip(values) {
        raw.get_mut(at..at + format.bytes)?.copy_from_slice(value.to_le_bytes().get(..format.bytes)?);
        covered.get_mut(at..at + format.bytes)?.fill(true);
    }
    let mut others = others.iter();
    for (byte, _) in raw.iter_mut().zip(covered).filter(|(_, covered)| !covered) {
        *byte = *others.next()?;
    }
    others.next().is_none().then_some(raw)
}

pub(super) fn join(found: &Found, (least, most): (i32, i32), others: &[u8], code: &[u8]) -> Vec<u8> {
    let Found { format, starts } = found;
    let mut beside = Vec::new();
    let mut end = 0;
    for start in starts {
        put_varint(&mut beside, (start - end) as u64);
        end = start + format.frame_bytes();
    }
    beside.extend_from_slice(others);
    let packed = pack(&beside, ZSTD_LEVEL);
    let stored = packed.as_deref().unwrap_or(&beside);
    let mut payload = vec![format.kind as u8 | (format.bytes as u8 - 1) << 4];
    let numbers =
        [format.width, format.rows, starts.len(), least as usize, (most - least) as usize, beside.len(), stored.len()];
    numbers.into_iter().for_each(|number| put_varint(&mut payload, number as u64));
    payload.extend_from_slice(stored);
    payload.extend_from_slice(code);
    payload
}

/// What a payload says.
pub(super) struct Parts<'a> {
    pub found: Found,
    pub least: i32,
    pub most: i32,
    pub others: Vec<u8>,
    pub code: &'a [u8],
}

/// Takes the payload of `raw_len` plain bytes apart.
pub(super) fn split(payload: &[u8], raw_len: usize) -> Result<Parts<'_>, Error> {
    let (flags, mut rest) = payload.split_first().ok_or(WRONG)?;
    let mut number = || take_varint(&mut rest, 4).and_then(|n| usize::try_from(n).ok()).ok_or(WRONG);
    let (width, rows, frames, least, over) = (number()?, number()?, number()?, number()?, number()?);
    let (beside_len, stored) = (number()?, number()?);
    let (kind, bytes) = (Kind::from_u8(flags & 15).ok_or(WRONG)?, usize::from(flags >> 4 & 1) + 1);
    let format = Format { kind, bytes, width, rows }.checked().ok_or(WRONG)?;
    let most = least.checked_add(over).filter(|most| *most < 1 << (8 * bytes)).ok_or(WRONG)?;
    let fit = frames.checked_mul(format.frame_bytes()).is_some_and(|all| frames > 0 && all <= raw_len);
    let (beside, code) = rest.split_at_checked(stored).ok_or(WRONG)?;
    // A number before each frame has three bytes at most.
    if flags >> 5 != 0 || !fit || beside_len > raw_len + 4 * frames || raw_len > SEGMENT_BYTES_MAX as usize {
        return Err(WRONG);
    }
    let beside = if stored < beside_len { unpack(beside, beside_len).ok_or(WRONG)? } else { beside.to_vec() };
    let (mut others, mut starts, mut end) = (beside.as_slice(), Vec::with_capacity(frames), 0);
    for _ in 0..frames {
        let gap = take_varint(&mut others, 4).and_then(|n| usize::try_from(n).ok()).ok_or(WRONG)?;
        starts.push(end + gap);
        end += gap + format.frame_bytes();
        if end > raw_len {
            return Err(WRONG);
        }
    }
    let others = others.to_vec();
    Ok(Parts { found: Found { format, starts }, least: least as i32, most: most as i32, others, code })
}
