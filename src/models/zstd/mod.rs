//! `zstd`: one zstd frame without checksum, size and dictionary. Fast to decode; the fallback of the context model.
//!
//! Payload: the frame. Level 19, since a segment is coded once and read often.

use super::{Basis, Coded, Declined, Error, Model, stands_alone};
use crate::base::{Class, MethodId, ModelId};

const LEVEL: i32 = 19;

/// zstd by its reference implementation.
pub(crate) struct Zstd;

impl Model for Zstd {
    fn id(&self) -> MethodId {
        MethodId::Zstd
    }

    fn revision(&self) -> u16 {
        1
    }

    fn memory_bytes(&self) -> u64 {
        // Encoder of level 19 for inputs up to 1 MiB.
        24 << 20
    }

    fn decode_rate_guess(&self) -> u64 {
        500_000
    }

    fn encode(&self, raw: &[u8], _class: Class, _basis: Basis<'_>) -> Result<Coded, Declined> {
        let mut compressor = ::zstd::bulk::Compressor::new(LEVEL).map_err(|_| Declined::Failed)?;
        compressor.include_checksum(false).map_err(|_| Declined::Failed)?;
        compressor.include_contentsize(false).map_err(|_| Declined::Failed)?;
        let payload = compressor.compress(raw).map_err(|_| Declined::Failed)?;
        if payload.len() < raw.len() { Ok(Coded::alone(payload)) } else { Err(Declined::DoesNotShrink) }
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
        // The capacity bounds what a damaged frame can ask for.
        let raw =
            ::zstd::bulk::decompress(payload, raw_len).map_err(|_| Error::Corrupt("zstd frame does not decode"))?;
        if raw.len() == raw_len { Ok(raw) } else { Err(Error::Corrupt("zstd frame is too short")) }
    }
}
