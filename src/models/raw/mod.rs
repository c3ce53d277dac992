//! `raw`: the plain bytes. What everything falls back to.

use super::{Basis, Coded, Declined, Error, Model, stands_alone};
use crate::base::{Class, MethodId, ModelId};

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

    fn encode(&self, raw: &[u8], _class: Class, _basis: Basis<'_>) -> Result<Coded, Declined> {
        Ok(Coded::alone(raw.to_vec()))
    }

    fn decode(
        &self,
        payload: &[u8],
        raw_len: usize,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        stands_alone(model, basis)?;
        if revision != 1 {
            return Err(Error::UnknownRevision(revision));
        }
        if payload.len() != raw_len {
            return Err(Error::Corrupt("raw payload is not as long as the plain bytes"));
        }
        Ok(payload.to_vec())
    }
}
