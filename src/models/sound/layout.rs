//! Payload of `sound`.
//!
//! ```text
//! ┌────────┬───────┬────────┬────────┬───────┬────────┬────────┬──────┐
//! │ format │ taken │ power  │ before │ after │ bytes  │ others │ code │
//! │ 1      │ 1     │ 0 or 1 │ 1 to 4 │ 1 to 4│ 1 to 4 │ bytes  │ rest │
//! └────────┴───────┴────────┴────────┴───────┴────────┴────────┴──────┘
//! ```
//! `format`: bytes of a sample less one (2 bits), highest byte first (1), samples of a byte are signed, or those of four are floats
//! (1), channels less one (4). `taken`: low bits that no sample has (5 bits), something is left of samples (1) (`numbers`). `power`:
//! the exponent of the largest float, where samples are floats. `before` and `after`: plain bytes before and behind the samples, seven
//! bits a byte, the lowest first, the highest bit says that more follow. `others`: those bytes as they are, or, where `bytes` is less
//! than they are, as a zstd frame. Revision 1 has neither `taken` nor `power`, and samples of three bytes at most.

use super::format::{Format, Found};
use super::numbers::Numbers;
use crate::models::Error;
use crate::models::zstd::{pack, unpack};

const WRONG: Error = Error::Corrupt("sound payload is damaged in its head");
/// How hard zstd tries: heads are short.
const ZSTD_LEVEL: i32 = 19;

fn put_number(mut number: usize, out: &mut Vec<u8>) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Numbers here are below 2^28.
fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in [0, 7, 14, 21] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(number);
        }
    }
    None
}

pub(super) fn join(found: &Found, numbers: &Numbers, raw: &[u8], code: &[u8]) -> Vec<u8> {
    let (before, after) = (raw.get(..found.from).unwrap_or_default(), raw.get(found.to..).unwrap_or_default());
    let others = [before, after].concat();
    let packed = pack(&others, ZSTD_LEVEL);
    let stored = packed.as_ref().unwrap_or(&others);
    let mut payload = vec![found.format.to_byte(), numbers.shift as u8 | u8::from(numbers.leaves) << 5];
    payload.extend(found.format.float.then_some(numbers.power));
    [before.len(), after.len(), stored.len()].into_iter().for_each(|number| put_number(number, &mut payload));
    payload.extend_from_slice(stored);
    payload.extend_from_slice(code);
    payload
}

/// What a payload says.
pub(super) struct Parts<'a> {
    pub numbers: Numbers,
    /// Plain bytes before and behind the samples.
    pub before: Vec<u8>,
    pub behind: Vec<u8>,
    /// Samples of all channels.
    pub samples: usize,
    pub code: &'a [u8],
}

/// Takes the payload of `raw_len` plain bytes apart, of this revision or an older one.
pub(super) fn split(mut payload: &[u8], raw_len: usize, revision: u16) -> Result<Parts<'_>, Error> {
    let mut byte = || {
        let (byte, rest) = payload.split_first().ok_or(WRONG)?;
        payload = rest;
        Ok(*byte)
    };
    let format = Format::from_byte(byte()?).ok_or(WRONG)?;
    let taken = if revision > 1 { byte()? } else { 0 };
    let power = if revision > 1 && format.float { byte()? } else { 0 };
    let numbers = Numbers::told(format, u32::from(taken & 31), taken & 32 != 0, power);
    let numbers = numbers.filter(|_| taken < 64).ok_or(WRONG)?;
    let mut number = || take_number(&mut payload).ok_or(WRONG);
    let (before, after, stored) = (number()?, number()?, number()?);
    let samples = raw_len.checked_sub(before + after).ok_or(WRONG)?;
    if !samples.is_multiple_of(format.frame()) || stored > payload.len() || stored > before + after {
        return Err(WRONG);
    }
    let (others, code) = payload.split_at(stored);
    let mut others = match stored < before + after {
        true => unpack(others, before + after).ok_or(WRONG)?,
        false => others.to_vec(),
    };
    let behind = others.split_off(before);
    Ok(Parts { numbers, before: others, behind, samples: samples / format.width, code })
}
