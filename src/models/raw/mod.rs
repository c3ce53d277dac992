//! `raw`: the plain bytes. What everything falls back to.

use super::{Declined, Error, Model};
use crate::base::{Class, MethodId};

/// The identity.
pub(crate) struct Raw;

impl Model for Raw {
    fn id(&self) -> MethodId {
        MethodId::Raw
    }

    fn revision(&self) -> u16 {
        1
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn decode_rate_guess(&self) -> u64 {
        1_000_000
    }

    fn encode(&self, raw: &[u8], _class: Class) -> Result<Vec<u8>, Declined> {
        Ok(raw.to_vec())
    }

    fn decode(&self, payload: &[u8], raw_len: usize, revision: u16) -> Result<Vec<u8>, Error> {
        if revision != 1 {
            return Err(Error::UnknownRevision(revision));
        }
        if payload.len() != raw_len {
            return Err(Error::Corrupt("raw payload is not as long as the plain bytes"));
        }
        Ok(payload.to_vec())
    }
}
