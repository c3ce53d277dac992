//! Predictors and coders, one folder each, behind one trait.
//!
//! Must not know: segments' headers, packs, files, threads. A model turns plain bytes into a payload and back.
//!
//! # Invariants
//! 1. Encoder and decoder step a predictor through the same function, in the same order, on integers alone: the same
//!    payload decodes to the same bytes on every machine.
//! 2. A decoder is given any bytes. It gives back exactly `raw_len` bytes or an error; it never panics, and its work and
//!    memory are bounded by `raw_len`.
//! 3. `revision` is raised whenever the bytes that a model writes change; older revisions keep decoding.

mod cm;
mod primed;
mod raw;
mod zstd;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::{Class, MethodId, ModelId};

pub use primed::{Kind, Library, TEXT_BYTES_MAX, VolumePrior, prior_name, train, train_from};

/// Bytes that are kept beside the tables of the default method.
static KEPT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes of memory that models keep beyond one set of tables for each thread: the priors in use, shared by all threads,
/// and the tables of threads that have decoded an older method.
pub fn kept_bytes() -> u64 {
    KEPT_BYTES.load(Ordering::Relaxed)
}

/// Counts memory that is kept until the end.
fn keep(bytes: u64) {
    KEPT_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// Takes back `keep`.
fn release(bytes: u64) {
    KEPT_BYTES.fetch_sub(bytes, Ordering::Relaxed);
}

/// Why a model does not code a segment. Not an error: the segment is coded otherwise. Numbers are counted and never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Declined {
    /// The payload would not be smaller than the plain bytes.
    DoesNotShrink = 1,
    /// The model's library failed.
    Failed = 2,
}

/// A payload that does not decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not what the model writes.
    Corrupt(&'static str),
    /// Written by a revision this build does not know.
    UnknownRevision(u16),
    /// It needs a model or prior of the volume that is not there.
    MissingModel(ModelId),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Corrupt(what) => f.write_str(what),
            Error::UnknownRevision(r) => write!(f, "revision {r} of the method is not known to this build"),
            Error::MissingModel(id) => {
                write!(
                    f,
                    "it needs the prior {id}, which the volume has lost: put a copy of it to models/{id} in the store"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// A way to code whole segments. Called once per segment.
pub trait Model: Sync {
    /// Its number on disk.
    fn id(&self) -> MethodId;

    /// Revision of the bytes it writes.
    fn revision(&self) -> u16;

    /// Memory that one encode or decode takes besides its input and output, bytes.
    fn memory_bytes(&self) -> u64;

    /// Plain bytes per millisecond that one core decodes, before anything was measured on this machine.
    fn decode_rate_guess(&self) -> u64;

    /// Builds what decoding a payload needs and what is then kept for the next, so that the time of it is not taken for
    /// that of a segment. Any bytes may be given.
    fn prepare(&self, _payload: &[u8]) {}

    /// Codes a segment of at least one byte.
    ///
    /// # Errors
    /// `Declined` when the payload would not be smaller than `raw`; nothing is lost but time.
    fn encode(&self, raw: &[u8], class: Class) -> Result<Vec<u8>, Declined>;

    /// Gives back the `raw_len` plain bytes of a payload.
    fn decode(&self, payload: &[u8], raw_len: usize, revision: u16) -> Result<Vec<u8>, Error>;
}

/// Predicts one bit after the other. Called once per symbol, so never through dyn.
pub trait Predictor {
    /// Probability that the next bit is 1, in 1/65536, 1 to 65535.
    fn predict(&mut self) -> u16;

    /// Takes the bit that came, and moves on.
    fn observe(&mut self, bit: u8);
}

/// Every model of this build, in the order of their numbers.
pub static MODELS: [&dyn Model; 4] = [&raw::Raw, &zstd::Zstd, &cm::Cm, &primed::Primed];

/// The model of a method.
pub fn model(id: MethodId) -> &'static dyn Model {
    match id {
        MethodId::Raw => &raw::Raw,
        MethodId::Zstd => &zstd::Zstd,
        MethodId::Cm => &cm::Cm,
        MethodId::Primed => &primed::Primed,
    }
}

/// Codes a segment by a method, with what the volume taught. Also returns which of the library's priors decoding needs.
///
/// # Errors
/// As `Model::encode`.
pub fn encode(id: MethodId, raw: &[u8], class: Class, library: &Library) -> Result<(Vec<u8>, ModelId), Declined> {
    match id {
        MethodId::Primed => primed::encode_named(raw, class, library),
        MethodId::Raw | MethodId::Zstd | MethodId::Cm => {
            model(id).encode(raw, class).map(|payload| (payload, ModelId::NONE))
        }
    }
}

/// The library's prior that a segment would start from; `NONE` where the program's own promise more.
pub fn prior_for(raw: &[u8], class: Class, library: &Library) -> ModelId {
    primed::prior_for(raw, class, library)
}

/// Builds what decoding needs beforehand: `Model::prepare`.
pub fn prepare(id: MethodId, payload: &[u8], named: ModelId, library: &Library) {
    match id {
        MethodId::Primed => primed::prepare_named(payload, named, library),
        MethodId::Raw | MethodId::Zstd | MethodId::Cm => model(id).prepare(payload),
    }
}

/// Gives back the plain bytes of a payload, whose segment names `named`.
///
/// # Errors
/// As `Model::decode`; `MissingModel` when the library lacks what is named.
pub fn decode(
    id: MethodId,
    payload: &[u8],
    raw_len: usize,
    revision: u16,
    named: ModelId,
    library: &Library,
) -> Result<Vec<u8>, Error> {
    match id {
        MethodId::Primed if revision == model(id).revision() => primed::decode_named(payload, raw_len, named, library),
        _ if named != ModelId::NONE => Err(Error::Corrupt("it names a prior, and its method uses none")),
        MethodId::Raw | MethodId::Zstd | MethodId::Cm | MethodId::Primed => {
            model(id).decode(payload, raw_len, revision)
        }
    }
}
