//! Payload of `primed`:
//!
//! ```text
//! number of the prior  u8
//! form of the bytes    u8    0 as they are, 1 machine code with addresses (code.rs)
//! range code           to the end
//! ```

use super::{Error, code};

/// What is done to the bytes of a segment before they are coded, and undone after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Plain,
    Code,
}

impl Form {
    /// The bytes to be coded instead of `raw`.
    pub fn forward(self, raw: &[u8]) -> Vec<u8> {
        let mut bytes = raw.to_vec();
        match self {
            Form::Plain => {}
            Form::Code => code::forward(&mut bytes),
        }
        bytes
    }

    /// Undoes it.
    pub fn back(self, bytes: &mut [u8]) {
        match self {
            Form::Plain => {}
            Form::Code => code::back(bytes),
        }
    }
}

pub(super) fn join(prior: u8, form: Form, code: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(code.len() + 2);
    payload.push(prior);
    payload.push(match form {
        Form::Plain => 0,
        Form::Code => 1,
    });
    payload.extend_from_slice(code);
    payload
}

pub(super) fn split(payload: &[u8]) -> Result<(u8, Form, &[u8]), Error> {
    let Some(([prior, form], code)) = payload.split_first_chunk::<2>() else {
        return Err(Error::Corrupt("primed payload is shorter than its head"));
    };
    let form = match form {
        0 => Form::Plain,
        1 => Form::Code,
        _ => return Err(Error::Corrupt("primed payload names a form of bytes that does not exist")),
    };
    Ok((*prior, form, code))
}
