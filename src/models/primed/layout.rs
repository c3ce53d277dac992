//! Payload of `primed`:
//!
//! ```text
//! number of the prior  u8
//! form of the bytes    u8    0 as they are, 1 machine code of x86 with addresses (code.rs), 2 records of one length, 3 samples
//!                            as differences (samples.rs), 4 machine code of 64-bit ARM (arm.rs), 16 words as numbers (words.rs);
//!                            and REFERS where the bytes of a reference, in the same form, come
//!                            before: not with form 3. Revision 1 has forms 0 to 2
//! length of a record   u16   little-endian, bytes, 1 to LEN_MAX; only with form 2
//! shape of samples     5 bytes, only with form 3: u8, bits 0-1 bytes of a sample less one, 2 the highest byte is first, 3 they
//!                            may be below zero, 4-6 channels less one, 7 is 0; u16 bytes of a row, 0 for sound; u16 where
//!                            the first pixel begins, or the first row where it is not a multiple of pixels
//! bytes that are coded u24   little-endian, at most the plain bytes; only with form 16
//! range code           to the end
//! ```

use super::records::LEN_MAX;
use super::samples::{SHAPE_BYTES, Shape};
use super::{Error, arm, code, samples};
use crate::base::SEGMENT_BYTES_MAX;

/// Added to the form: the segment is coded from a reference.
const REFERS: u8 = 128;
/// The form of words.
const WORDS: u8 = 16;

/// What is done to the bytes of a segment before they are coded, and undone after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Plain,
    Code,
    /// Nothing is done; the contexts are those of records.
    Records(u16),
    Samples(Shape),
    /// Machine code of 64-bit ARM.
    Arm,
    /// Words are numbers, those of the prior; so many bytes are coded instead.
    Words(u32),
}

impl Form {
    /// The bytes to be coded instead of `raw`. Words are left to those who have the prior.
    pub fn forward(self, raw: &[u8]) -> Vec<u8> {
        let mut bytes = raw.to_vec();
        match self {
            Form::Plain | Form::Records(_) | Form::Words(_) => {}
            Form::Code => code::forward(&mut bytes),
            Form::Arm => arm::forward(&mut bytes),
            Form::Samples(shape) => samples::forward(shape, &mut bytes),
        }
        bytes
    }

    /// Undoes it.
    pub fn back(self, bytes: &mut [u8]) {
        match self {
            Form::Plain | Form::Records(_) | Form::Words(_) => {}
            Form::Code => code::back(bytes),
            Form::Arm => arm::back(bytes),
            Form::Samples(shape) => samples::back(shape, bytes),
        }
    }
}

pub(super) fn join(prior: u8, form: Form, refers: bool, code: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(code.len() + 4);
    payload.push(prior);
    let refers = if refers { REFERS } else { 0 };
    match form {
        Form::Plain => payload.push(refers),
        Form::Code => payload.push(1 | refers),
        Form::Arm => payload.push(4 | refers),
        Form::Records(len) => {
            payload.push(2 | refers);
            payload.extend_from_slice(&len.to_le_bytes());
        }
        Form::Samples(shape) => {
            payload.push(3 | refers);
            payload.extend_from_slice(&shape.to_bytes());
        }
        Form::Words(len) => {
            payload.push(WORDS | refers);
            payload.extend(len.to_le_bytes().iter().take(3));
        }
    }
    payload.extend_from_slice(code);
    payload
}

/// The number of the prior, the form, whether a reference comes before, and the code.
pub(super) fn split(payload: &[u8]) -> Result<(u8, Form, bool, &[u8]), Error> {
    let short = Error::Corrupt("primed payload is shorter than its head");
    let Some(([prior, form], rest)) = payload.split_first_chunk::<2>() else { return Err(short) };
    let refers = form & REFERS != 0;
    match form & !REFERS {
        0 => Ok((*prior, Form::Plain, refers, rest)),
        1 => Ok((*prior, Form::Code, refers, rest)),
        4 => Ok((*prior, Form::Arm, refers, rest)),
        2 => {
            let Some((len, code)) = rest.split_first_chunk::<2>() else { return Err(short) };
            let len = u16::from_le_bytes(*len);
            if len == 0 || usize::from(len) > LEN_MAX {
                return Err(Error::Corrupt("primed payload names records that are too long, or empty"));
            }
            Ok((*prior, Form::Records(len), refers, code))
        }
        3 if refers => Err(Error::Corrupt("primed payload names a reference, and samples use none")),
        3 => {
            let Some((shape, code)) = rest.split_first_chunk::<SHAPE_BYTES>() else { return Err(short) };
            Ok((*prior, Form::Samples(Shape::from_bytes(*shape)?), refers, code))
        }
        WORDS => {
            let Some(([a, b, c], code)) = rest.split_first_chunk::<3>() else { return Err(short) };
            let len = u32::from_le_bytes([*a, *b, *c, 0]);
            if len > SEGMENT_BYTES_MAX {
                return Err(Error::Corrupt("primed payload has more words than a segment holds"));
            }
            Ok((*prior, Form::Words(len), refers, code))
        }
        _ => Err(Error::Corrupt("primed payload names a form of bytes that does not exist")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_and_others_are_refused() {
        let shape = Shape { width: 3, channels: 2, big: true, signed: true, row: 600, phase: 5 };
        let forms =
            [Form::Plain, Form::Code, Form::Arm, Form::Records(1), Form::Records(LEN_MAX as u16), Form::Samples(shape)];
        for form in forms.into_iter().chain([1, SEGMENT_BYTES_MAX].map(Form::Words)) {
            for code in [&[][..], &[7, 8, 9]] {
                for refers in [false, true].into_iter().take(if form == Form::Samples(shape) { 1 } else { 2 }) {
                    assert_eq!(split(&join(3, form, refers, code)).unwrap(), (3, form, refers, code));
                }
            }
        }
        for bad in [
            &[][..],
            &[3],
            &[3, 3],
            &[3, 2],
            &[3, 2, 9],
            &[3, 2, 0, 0],
            &[3, 2, 1, 16, 5],
            &[0, 3, 0, 0, 0, 0],
            &[0, 131, 0, 0, 0, 0, 0],
            &[0, 255, 1],
            &[3, 16, 1, 0],
            &[3, 16, 1, 0, 16],
        ] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }
}
