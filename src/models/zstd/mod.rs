//! `zstd`: one zstd frame without checksum and size. Fast to decode; the fallback of the context model.
//!
//! Payload: the frame; where there is a reference, with it as a dictionary of raw content. Level 19, since a segment is
//! coded once and read often.

use super::{Basis, Coded, Declined, Error, Model, stands_alone};
use crate::base::{Class, MethodId, ModelId};

const LEVEL: i32 = 19;

/// Bytes that the quick level makes of some: it is a hundred times as fast.
pub(super) fn quick_bytes(raw: &[u8]) -> Option<usize> {
    ::zstd::bulk::compress(raw, 3).ok().map(|quick| quick.len())
}

/// zstd by its reference implementation.
pub(crate) struct Zstd;

/// A frame of few bytes that another method puts into its payload; `None` where they do not shrink.
pub(super) fn pack(bytes: &[u8], level: i32) -> Option<Vec<u8>> {
    zstd::bulk::compress(bytes, level).ok().filter(|frame| frame.len() < bytes.len())
}

/// The `len` bytes of such a frame. Any bytes may be given.
pub(super) fn unpack(frame: &[u8], len: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(frame, len).ok().filter(|bytes| bytes.len() == len)
}

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

    fn encode(&self, raw: &[u8], _class: Class, basis: Basis<'_>) -> Result<Coded, Declined> {
        let mut compressor = ::zstd::bulk::Compressor::with_dictionary(LEVEL, basis.reference.unwrap_or_default())
            .map_err(|_| Declined::Failed)?;
        compressor.include_checksum(false).map_err(|_| Declined::Failed)?;
        compressor.include_contentsize(false).map_err(|_| Declined::Failed)?;
        let payload = compressor.compress(raw).map_err(|_| Declined::Failed)?;
        if payload.len() >= raw.len() {
            return Err(Declined::DoesNotShrink);
        }
        Ok(Coded { refers: basis.reference.is_some(), ..Coded::alone(payload) })
    }

    fn decode(
        &self,
        payload: &[u8],
        raw_len: usize,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        stands_alone(model, Basis::of(basis.library))?;
        if revision != 1 {
            return Err(Error::UnknownRevision(revision));
        }
        // The capacity bounds what a damaged frame can ask for.
        let mut decompressor = ::zstd::bulk::Decompressor::with_dictionary(basis.reference.unwrap_or_default())
            .map_err(|_| Error::Corrupt("the reference is no dictionary of zstd"))?;
        let raw =
            decompressor.decompress(payload, raw_len).map_err(|_| Error::Corrupt("zstd frame does not decode"))?;
        if raw.len() == raw_len { Ok(raw) } else { Err(Error::Corrupt("zstd frame is too short")) }
    }
}
