//! Predictors and coders, one folder each, behind one trait.
//!
//! Must not know: segments' headers, packs, files, who calls on which thread. A model turns plain bytes into a payload and back.
//!
//! # Invariants
//! 1. Encoder and decoder step a predictor through the same function, in the same order, on integers, or on floats that are
//!    only added, subtracted, multiplied, divided and compared, in one written order: the same payload decodes to the same
//!    bytes on every machine.
//! 2. A decoder is given any bytes. It gives back exactly `raw_len` bytes or an error; it never panics, and its work and
//!    memory are bounded by `raw_len`.
//! 3. `revision` is raised whenever the bytes that a model writes change; older revisions keep decoding.

mod classify;
mod cm;
mod genome;
mod library;
mod lm;
mod opened;
mod picture;
mod primed;
mod raw;
mod sound;
mod values;
mod video;
mod zstd;

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::{Class, MethodId, ModelId};
use crate::containers::Before;

pub use classify::{classify, segment_bytes};
pub use genome::{is_nucleotides, is_nucleotides_alone};
pub use library::Library;
#[cfg(feature = "lora")]
pub use lm::{
    AdapterTrainer, Advance, Course, Learned, Matrix as AdaptedMatrix, Pretrainer, Pretraining, Recipe, Taught,
    TrainError, Trainer, Window,
};
pub use lm::{
    Aim, Facts, LANE_BYTES_MAX, LANE_BYTES_MIN, Language, LanguageModel, LoadError, Loader, ModelKind, Open, Shelf,
    Spliced, as_safetensors, kind_of_tensors, load as load_language_model, load_checkpoint, load_tensors,
};
pub use opened::{Opened, Room, TEXT_BYTES_MAX as OPENED_TEXT_BYTES_MAX};
pub use picture::{begins_as_picture, picture_part};
pub use primed::{Kind, Likeness, PACKED_BYTES_MAX, TEXT_BYTES_MAX, VolumePrior, prior_name, train, train_from};
pub use sound::{begins_as_sound, sound_part};
pub use video::{begins_as_video, video_frames_end};

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

/// Memory that a segment takes while it is coded or decoded, counted for so long.
struct InUse(u64);

impl InUse {
    fn new(bytes: u64) -> InUse {
        keep(bytes);
        InUse(bytes)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        release(self.0);
    }
}

/// Why a model does not code a segment. Not an error: the segment is coded otherwise. Numbers are counted and never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Declined {
    /// The payload would not be smaller than the plain bytes.
    DoesNotShrink = 1,
    /// The model's library failed.
    Failed = 2,
    /// It is of another kind than the model is for.
    Foreign = 3,
    /// The volume is closing.
    Stopped = 4,
}

/// A payload that does not decode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not what the model writes.
    Corrupt(&'static str),
    /// Written by a revision this build does not know.
    UnknownRevision(u16),
    /// It needs a model or prior of the volume that is not there.
    MissingModel(ModelId),
    /// It needs a language model that cannot be used; the sentence says why.
    NoLanguageModel(ModelId, String),
    /// The volume is closing: nothing is said of the payload.
    Stopped,
    /// Memory was refused: nothing is said of the payload.
    OutOfMemory(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Corrupt(what) | Error::OutOfMemory(what) => f.write_str(what),
            Error::UnknownRevision(r) => write!(f, "revision {r} of the method is not known to this build"),
            Error::MissingModel(id) => {
                write!(
                    f,
                    "it needs the prior {id}, which the volume has lost: put a copy of it to models/{id} in the store"
                )
            }
            Error::NoLanguageModel(id, why) => write!(f, "it needs the language model {id}: {why}"),
            Error::Stopped => f.write_str("the volume is closing"),
        }
    }
}

impl std::error::Error for Error {}

/// What is known before the first byte of a segment. Decoding needs what coding had.
#[derive(Clone, Copy)]
pub struct Basis<'a> {
    /// What the volume keeps for it.
    pub library: &'a Library,
    /// Plain bytes of another segment that this one is likely to repeat, at most `SEGMENT_BYTES_MAX`.
    pub reference: Option<&'a [u8]>,
    /// What was before it in a stream that it goes on with. Decoding does not need it.
    pub before: Option<&'a Before>,
}

impl<'a> Basis<'a> {
    /// What a volume has learned, and no reference.
    pub fn of(library: &'a Library) -> Basis<'a> {
        Basis { library, reference: None, before: None }
    }
}

impl Default for Basis<'_> {
    /// Nothing but the program's own priors.
    fn default() -> Self {
        static EMPTY: LazyLock<Library> = LazyLock::new(Library::default);
        Basis::of(&EMPTY)
    }
}

/// A segment coded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coded {
    pub payload: Vec<u8>,
    /// The library's prior that decoding needs.
    pub model: ModelId,
    /// Decoding needs the reference.
    pub refers: bool,
}

impl Coded {
    /// One that stands alone.
    pub fn alone(payload: Vec<u8>) -> Coded {
        Coded { payload, model: ModelId::NONE, refers: false }
    }
}

/// What a method that uses neither prior nor reference makes of a segment that names them.
fn stands_alone(model: ModelId, basis: Basis<'_>) -> Result<(), Error> {
    match (model, basis.reference) {
        (ModelId::NONE, None) => Ok(()),
        (ModelId::NONE, Some(_)) => Err(Error::Corrupt("it names a reference, and its method uses none")),
        _ => Err(Error::Corrupt("it names a prior, and its method uses none")),
    }
}

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
    fn prepare(&self, _payload: &[u8], _model: ModelId, _basis: Basis<'_>) {}

    /// Codes a segment of at least one byte. A method that has no use for what is known passes over it.
    ///
    /// # Errors
    /// `Declined` when the payload would not be smaller than `raw`; nothing is lost but time.
    fn encode(&self, raw: &[u8], class: Class, basis: Basis<'_>) -> Result<Coded, Declined>;

    /// Gives back the `raw_len` plain bytes of a payload, of which the segment's header says that it needs `model`, and the
    /// reference that is given or none.
    ///
    /// # Errors
    /// `MissingModel` when the library lacks what is named. A reference with other bytes than it was coded from gives an
    /// error or other bytes.
    fn decode(
        &self,
        payload: &[u8],
        raw_len: usize,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error>;

    /// Plain bytes of the parts that a payload can be decoded in, the last may be shorter: all of them for most methods.
    fn part_bytes(&self, _payload: &[u8], raw_len: usize) -> usize {
        raw_len
    }

    /// The checksum (CRC32C) that a payload has of the plain bytes of a part; `None` of a method that has no parts, or where there
    /// is no such part.
    fn part_check(&self, _payload: &[u8], _raw_len: usize, _part: usize) -> Option<u32> {
        None
    }

    /// As `decode`, but of some parts only, which are checked: damage to others does not matter. None of a method that has no
    /// parts is asked for.
    fn decode_parts(
        &self,
        payload: &[u8],
        raw_len: usize,
        _parts: Range<usize>,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        self.decode(payload, raw_len, revision, model, basis)
    }
}

/// Predicts one bit after the other. Called once per symbol, so never through dyn.
pub trait Predictor {
    /// Probability that the next bit is 1, in 1/65536, 1 to 65535.
    fn predict(&mut self) -> u16;

    /// Takes the bit that came, and moves on.
    fn observe(&mut self, bit: u8);
}

/// Every model of this build, in the order of their numbers.
pub static MODELS: [&dyn Model; MethodId::ALL.len()] = [
    &raw::Raw,
    &zstd::Zstd,
    &cm::Cm,
    primed::USUAL,
    primed::SWIFT,
    primed::STRONG,
    &genome::Genome,
    &lm::Language,
    &opened::Opened,
    &sound::Sound,
    &picture::Picture,
    &video::Video,
];

/// Methods, the strongest first: each codes most of the data it suits smaller than those behind it, and slower.
pub const BY_STRENGTH: [MethodId; MethodId::ALL.len()] = [
    MethodId::Opened,
    MethodId::Language,
    MethodId::Genome,
    MethodId::Video,
    MethodId::Picture,
    MethodId::Sound,
    MethodId::Strong,
    MethodId::Primed,
    MethodId::Swift,
    MethodId::Cm,
    MethodId::Zstd,
    MethodId::Raw,
];

/// True where a method is worth trying on data of a class. One that is for a class alone comes before all others there.
pub fn suits(id: MethodId, class: Class) -> bool {
    match id {
        MethodId::Opened => matches!(class, Class::Container | Class::Jpeg),
        MethodId::Genome => class == Class::Nucleotides,
        MethodId::Language => ModelKind::ALL.into_iter().any(|kind| kind.suits(class)),
        MethodId::Sound => class == Class::Sound,
        // Frames that are longer than a segment are coded as what they are part of.
        MethodId::Picture => matches!(class, Class::Picture | Class::Video),
        MethodId::Video => class == Class::Video,
        MethodId::Raw | MethodId::Zstd | MethodId::Cm | MethodId::Primed | MethodId::Swift | MethodId::Strong => true,
    }
}

/// True for the methods that start from priors: the profiles of one predictor.
pub fn starts_from_priors(id: MethodId) -> bool {
    match id {
        MethodId::Primed | MethodId::Swift | MethodId::Strong => true,
        MethodId::Raw
        | MethodId::Zstd
        | MethodId::Cm
        | MethodId::Genome
        | MethodId::Language
        | MethodId::Opened
        | MethodId::Sound
        | MethodId::Picture
        | MethodId::Video => false,
    }
}

/// The model of a method.
pub fn model(id: MethodId) -> &'static dyn Model {
    match id {
        MethodId::Raw => &raw::Raw,
        MethodId::Zstd => &zstd::Zstd,
        MethodId::Cm => &cm::Cm,
        MethodId::Primed => primed::USUAL,
        MethodId::Swift => primed::SWIFT,
        MethodId::Strong => primed::STRONG,
        MethodId::Genome => &genome::Genome,
        MethodId::Language => &lm::Language,
        MethodId::Opened => &opened::Opened,
        MethodId::Sound => &sound::Sound,
        MethodId::Picture => &picture::Picture,
        MethodId::Video => &video::Video,
    }
}
