//! Payload of `primed`:
//!
//! ```text
//! number of the prior  u8
//! form of the bytes    u8    0 as they are, 1 machine code with addresses (code.rs), 2 records of one length; and REFERS
//!                            where the bytes of a reference, in the same form, come before
//! length of a record   u16   little-endian, bytes, 1 to LEN_MAX; only with form 2
//! range code           to the end
//! ```

use super::records::LEN_MAX;
use super::{Error, code};

/// Added to the form: the segment is coded from a reference.
const REFERS: u8 = 128;

/// What is done to the bytes of a segment before they are coded, and undone after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Plain,
    Code,
    /// Nothing is done; the contexts are those of records.
    Records(u16),
}

impl Form {
    /// The bytes to be coded instead of `raw`.
    pub fn forward(self, raw: &[u8]) -> Vec<u8> {
        let mut bytes = raw.to_vec();
        match self {
            Form::Plain | Form::Records(_) => {}
            Form::Code => code::forward(&mut bytes),
        }
        bytes
    }

    /// Undoes it.
    pub fn back(self, bytes: &mut [u8]) {
        match self {
            Form::Plain | Form::Records(_) => {}
            Form::Code => code::back(bytes),
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
        Form::Records(len) => {
            payload.push(2 | refers);
            payload.extend_from_slice(&len.to_le_bytes());
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
        2 => {
            let Some((len, code)) = rest.split_first_chunk::<2>() else { return Err(short) };
            let len = u16::from_le_bytes(*len);
            if len == 0 || usize::from(len) > LEN_MAX {
                return Err(Error::Corrupt("primed payload names records that are too long, or empty"));
            }
            Ok((*prior, Form::Records(len), refers, code))
        }
        _ => Err(Error::Corrupt("primed payload names a form of bytes that does not exist")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_and_others_are_refused() {
        for form in [Form::Plain, Form::Code, Form::Records(1), Form::Records(LEN_MAX as u16)] {
            for code in [&[][..], &[7, 8, 9]] {
                for refers in [false, true] {
                    assert_eq!(split(&join(3, form, refers, code)).unwrap(), (3, form, refers, code));
                }
            }
        }
        for bad in [&[][..], &[3], &[3, 3], &[3, 2], &[3, 2, 9], &[3, 2, 0, 0], &[3, 2, 1, 16, 5], &[0, 255, 1]] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }
}
