//! `cm`: bytewise context mixing. The default method until `primed`; its segments are decoded, and coded when asked for.
//!
//! Each bit is predicted by contexts of one to six bytes, the word and the word before it, two contexts by class of data,
//! and the longest match in the segment; a gated mixer and two adaptive stages make one probability of them, which a
//! binary range coder codes. Every segment starts fresh and stands alone.
//!
//! Idea: M. Mahoney, lpaq1 (2007) and zpaq; bit histories and tables are our own. Limits: 16 MiB of tables per thread,
//! which are kept for the next segment; decoding is as fast as encoding, one to three megabytes a second and core.

mod layout;
mod matches;
mod predictor;
mod slots;

use std::cell::RefCell;

use super::{Basis, Coded, Declined, Error, Model, Predictor, stands_alone};
use crate::base::{Class, MethodId, ModelId};
use crate::entropy::{Decoder, Encoder};
use layout::Kind;
use predictor::ContextMixing;

/// Bits after which an encoder looks whether it has lost already.
const CHECK_EVERY: usize = 4096;

/// Context mixing.
pub(crate) struct Cm;

thread_local! {
    /// The tables of this thread: megabytes that are cleared and used again.
    static TABLES: RefCell<Option<Box<ContextMixing>>> = const { RefCell::new(None) };
}

/// Runs `f` with a fresh predictor.
fn with_predictor<T>(kind: Kind, raw_len: usize, f: impl FnOnce(&mut ContextMixing) -> T) -> T {
    TABLES.with(|tables| {
        // Taken out while in use: a panic in between only costs the tables.
        let mut predictor = tables.take().unwrap_or_else(|| {
            super::keep(predictor::MEMORY_BYTES);
            Default::default()
        });
        predictor.reset(kind, raw_len);
        let out = f(&mut predictor);
        tables.replace(Some(predictor));
        out
    })
}

impl Model for Cm {
    fn id(&self) -> MethodId {
        MethodId::Cm
    }

    fn revision(&self) -> u16 {
        1
    }

    fn memory_bytes(&self) -> u64 {
        predictor::MEMORY_BYTES
    }

    fn decode_rate_guess(&self) -> u64 {
        1_000
    }

    fn encode(&self, raw: &[u8], class: Class, _basis: Basis<'_>) -> Result<Coded, Declined> {
        let kind = Kind::of(class);
        with_predictor(kind, raw.len(), |predictor| {
            let mut coder = Encoder::new(raw.len());
            for (n, byte) in raw.iter().enumerate() {
                for shift in (0..8).rev() {
                    let bit = byte >> shift & 1;
                    coder.encode(bit, predictor.predict());
                    predictor.observe(bit);
                }
                if n % CHECK_EVERY == 0 && coder.is_over() {
                    return Err(Declined::DoesNotShrink);
                }
            }
            let payload = layout::join(kind, &coder.finish());
            if payload.len() < raw.len() { Ok(Coded::alone(payload)) } else { Err(Declined::DoesNotShrink) }
        })
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
        let (kind, code) = layout::split(payload)?;
        Ok(with_predictor(kind, raw_len, |predictor| {
            let mut coder = Decoder::new(code);
            let mut raw = Vec::with_capacity(raw_len);
            for _ in 0..raw_len {
                let mut byte = 0u8;
                for _ in 0..8 {
                    let bit = coder.decode(predictor.predict());
                    predictor.observe(bit);
                    byte = byte << 1 | bit;
                }
                raw.push(byte);
            }
            raw
        }))
    }
}
