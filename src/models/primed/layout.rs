//! Payload of `primed`: one byte for the number of the prior, then the range code to the end.

use super::Error;

pub(super) fn join(prior: u8, code: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(code.len() + 1);
    payload.push(prior);
    payload.extend_from_slice(code);
    payload
}

pub(super) fn split(payload: &[u8]) -> Result<(u8, &[u8]), Error> {
    payload.split_first().map(|(prior, code)| (*prior, code)).ok_or(Error::Corrupt("primed payload is empty"))
}
