//! `primed`: bytewise context mixing that starts from a prior. The default method.
//!
//! Each bit is predicted by contexts of one to six bytes, words, columns or what encloses, and the longest match in the
//! segment and in the text of the prior; a mixer of two layers and an adaptive stage make one probability of them, which
//! a binary range coder codes. A segment stands alone, but it does not start knowing nothing: it starts from tables that
//! have read half a megabyte or one of data of its kind (`priors`), copied for each segment.
//!
//! Idea: M. Mahoney, lpaq1, paq8 and zpaq; bit histories, tables and priors are our own. Limits: 23 MiB of tables per
//! thread, and as much for each prior in use; a second for the first segment of each prior; decoding is as fast as
//! encoding.

mod code;
mod contexts;
mod layout;
mod matches;
mod memory;
mod predictor;
mod priors;
mod slots;

use std::cell::RefCell;

use super::{Declined, Error, Model, Predictor};
use crate::base::{Class, MethodId, SEGMENT_BYTES_MAX};
use crate::entropy::{Decoder, Encoder};
use layout::Form;
use predictor::Mixing;

pub use contexts::Kind;
pub use priors::{TEXT_BYTES_MAX, prior_name, train};

/// Bytes after which an encoder looks whether it has lost already.
const CHECK_EVERY: usize = 4096;
/// Bytes from the middle of a segment that are coded from each candidate, to choose the prior.
const TRIAL_BYTES: usize = 4096;

/// Context mixing from priors.
pub(crate) struct Primed;

thread_local! {
    /// The tables of this thread: megabytes that are overwritten and used again.
    static TABLES: RefCell<Option<Box<Mixing>>> = const { RefCell::new(None) };
}

/// Runs `f` with a predictor that has read a prior.
fn with_predictor<T>(snapshot: &Mixing, f: impl FnOnce(&mut Mixing) -> T) -> T {
    TABLES.with(|tables| {
        // Taken out while in use: a panic in between only costs the tables.
        let mut predictor = tables.take().unwrap_or_else(|| Box::new(Mixing::new(Kind::Binary)));
        predictor.copy_from(snapshot);
        let out = f(&mut predictor);
        tables.replace(Some(predictor));
        out
    })
}

/// The code of `raw`; `None` when it becomes longer than `limit`.
fn encode_with(predictor: &mut Mixing, raw: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut coder = Encoder::new(limit);
    for (n, byte) in raw.iter().enumerate() {
        for shift in (0..8).rev() {
            let bit = byte >> shift & 1;
            coder.encode(bit, predictor.predict());
            predictor.observe(bit);
        }
        if n % CHECK_EVERY == 0 && coder.is_over() {
            return None;
        }
    }
    Some(coder.finish())
}

/// The `raw_len` bytes of a code.
fn decode_with(predictor: &mut Mixing, code: &[u8], raw_len: usize) -> Vec<u8> {
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
}

/// The prior that codes a sample of a segment best.
fn choose(raw: &[u8], class: Class) -> u8 {
    let candidates = priors::candidates(class);
    let first = candidates.first().copied().unwrap_or(0);
    let start = raw.len().saturating_sub(TRIAL_BYTES) / 2;
    let Some(sample) = raw.get(start..start + TRIAL_BYTES).filter(|_| candidates.len() > 1) else { return first };
    let size = |number: u8| -> usize {
        let Some(snapshot) = priors::snapshot(number) else { return usize::MAX };
        with_predictor(snapshot, |p| encode_with(p, sample, usize::MAX)).map_or(usize::MAX, |code| code.len())
    };
    candidates.iter().copied().min_by_key(|number| size(*number)).unwrap_or(first)
}

/// The form in which the bytes of a segment are coded.
fn choose_form(raw: &[u8], class: Class) -> Form {
    match class {
        Class::Exec | Class::Binary if code::pays(raw) => Form::Code,
        _ => Form::Plain,
    }
}

impl Model for Primed {
    fn id(&self) -> MethodId {
        MethodId::Primed
    }

    fn revision(&self) -> u16 {
        1
    }

    fn memory_bytes(&self) -> u64 {
        Mixing::BYTES + TEXT_BYTES_MAX as u64 + u64::from(SEGMENT_BYTES_MAX)
    }

    fn decode_rate_guess(&self) -> u64 {
        900
    }

    fn prepare(&self, payload: &[u8]) {
        if let Some(number) = payload.first() {
            priors::snapshot(*number);
        }
    }

    fn encode(&self, raw: &[u8], class: Class) -> Result<Vec<u8>, Declined> {
        let form = choose_form(raw, class);
        let bytes = form.forward(raw);
        let number = choose(&bytes, class);
        let snapshot = priors::snapshot(number).ok_or(Declined::Failed)?;
        let code = with_predictor(snapshot, |p| encode_with(p, &bytes, raw.len())).ok_or(Declined::DoesNotShrink)?;
        let payload = layout::join(number, form, &code);
        if payload.len() < raw.len() { Ok(payload) } else { Err(Declined::DoesNotShrink) }
    }

    fn decode(&self, payload: &[u8], raw_len: usize, revision: u16) -> Result<Vec<u8>, Error> {
        if revision != 1 {
            return Err(Error::UnknownRevision(revision));
        }
        let (number, form, code) = layout::split(payload)?;
        let snapshot =
            priors::snapshot(number).ok_or(Error::Corrupt("primed payload names a prior that does not exist"))?;
        let mut bytes = with_predictor(snapshot, |p| decode_with(p, code, raw_len));
        form.back(&mut bytes);
        Ok(bytes)
    }
}
