//! `primed`: bytewise context mixing that starts from a prior. The default method.
//!
//! Each bit is predicted by contexts of one to six bytes, words, columns or what encloses, and the longest match in the
//! segment and in the text of the prior; a mixer of two layers and an adaptive stage make one probability of them, which
//! a binary range coder codes. A segment stands alone, but it does not start knowing nothing: it starts from tables that
//! have read a megabyte or two of data of its kind (`priors`), or of the volume's own files (`library`), copied for
//! each segment. It may have a reference too: bytes of another segment that it is likely to repeat. They are followed where
//! they are repeated, which takes milliseconds to prepare, and teach nothing else.
//!
//! Machine code is coded with addresses in the place of distances (`code`, `arm`); words of a text as numbers where the prior
//! has them (`words`); records of one length, which are found by trial
//! (`records`), have contexts of their own and no prior; and so have samples, which are coded by what they differ by from what
//! their neighbours lead to expect (`samples`).
//!
//! It comes in three profiles (`profile`), each a method on disk: `swift`, `primed` itself, and `strong`.
//!
//! Idea: M. Mahoney, lpaq1, paq8 and zpaq; bit histories, tables and priors are our own. Limits: the tables of a profile for
//! each thread that uses it, and as much for each prior in use; half a second or more for the first segment of each prior;
//! decoding is as fast as encoding.

mod arm;
mod code;
mod contexts;
mod layout;
mod library;
mod likeness;
mod matches;
mod memory;
mod predictor;
mod priors;
mod profile;
mod records;
mod samples;
mod slots;
mod words;

use std::marker::PhantomData;
use std::sync::Arc;

use super::{Basis, Coded, Declined, Error, Model, keep};
use crate::base::{Class, MethodId, ModelId, SEGMENT_BYTES_MAX};
use crate::entropy::{Decoder, Encoder};
use contexts::Contexts;
use layout::Form;
use predictor::{Asked, Tables};
use profile::{Held, Profile, Strong, Swift, Usual};
use samples::Shape;
use words::Words;

pub use contexts::Kind;
pub use library::{Priors, VolumePrior, train_from};
pub use likeness::Likeness;
pub use priors::{PACKED_BYTES_MAX, TEXT_BYTES_MAX, prior_name, train};

/// Bytes after which an encoder looks whether it has lost already.
const CHECK_EVERY: usize = 4096;
/// Bytes from the middle of a segment that are coded from each candidate, to choose the prior.
const TRIAL_BYTES: usize = 4096;
/// The same where there may be records or samples: some rows of them.
const TRIAL_BINARY_BYTES: usize = 16384;

/// Bytes before those of a trial that samples are predicted from, or two rows.
const TRIAL_SAMPLES_BYTES: usize = 8192;
/// Quarters of a bit by which a byte of samples may seem dearer than it is otherwise, and still be tried.
const EXCESS_MAX: u64 = 8;

/// Bytes of a reference that are used; what comes behind them is passed over.
const REFERENCE_BYTES_MAX: usize = SEGMENT_BYTES_MAX as usize;

/// Revision of the payloads that are written. Revision 1 had `priors::OF_REVISION_1` priors and no
/// samples; it goes on being decoded.
const REVISION: u16 = 2;

/// In place of a prior's number: the segment's header names a prior of the volume.
const NAMED: u8 = 255;

/// Context mixing from priors, by a predictor of one profile.
struct Primed<M>(PhantomData<fn() -> M>);

pub(super) const SWIFT: &dyn Model = &Primed::<Swift>(PhantomData);
pub(super) const USUAL: &dyn Model = &Primed::<Usual>(PhantomData);
pub(super) const STRONG: &dyn Model = &Primed::<Strong>(PhantomData);

/// Runs `f` with a predictor that has read a prior.
fn with_predictor<M: Held, T>(snapshot: &M, f: impl FnOnce(&mut M) -> T) -> T {
    M::local().with(|tables| {
        // Taken out while in use: a panic in between only costs the tables.
        let mut predictor = tables.take().unwrap_or_else(|| {
            if M::PROFILE == Profile::Strong {
                // Most threads never need it.
                keep(M::BYTES);
            }
            M::new(Kind::Binary)
        });
        predictor.copy_from(snapshot);
        let out = f(&mut predictor);
        tables.replace(Some(predictor));
        out
    })
}

/// What is answered where the byte is known.
#[inline(always)]
fn answer(byte: u8, asked: Asked) -> u8 {
    match asked {
        Asked::Whole(other) => u8::from(byte == other),
        Asked::Bit(shift) => byte >> shift & 1,
    }
}

/// The code of `raw`; `None` when it becomes longer than `limit`.
fn encode_with<M: Tables>(predictor: &mut M, raw: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut coder = Encoder::new(limit);
    for (n, byte) in raw.iter().enumerate() {
        predictor.next_byte(|asked, p| {
            let bit = answer(*byte, asked);
            coder.encode(bit, p);
            bit
        });
        if n % CHECK_EVERY == 0 && coder.is_over() {
            return None;
        }
    }
    Some(coder.finish())
}

/// The `raw_len` bytes of a code.
fn decode_with<M: Tables>(predictor: &mut M, code: &[u8], raw_len: usize) -> Vec<u8> {
    let mut coder = Decoder::new(code);
    let mut raw = Vec::with_capacity(raw_len);
    for _ in 0..raw_len {
        raw.push(predictor.next_byte(|_, p| coder.decode(p)));
    }
    raw
}

/// Learns from as much of the end of a text as the profile does; in full from the last `full` bytes alone, what comes before
/// is skimmed, and what comes before the last `TEXT_BYTES_MAX` bytes is not remembered. As a segment is of other data than
/// the text, what was learned is faded.
fn learn_with<M: Tables>(predictor: &mut M, text: &[u8], full: usize) {
    let (_, text) = text.split_at(text.len().saturating_sub(M::TEXT_BYTES));
    let (skimmed, read) = text.split_at(text.len().saturating_sub(full.min(TEXT_BYTES_MAX)));
    let (forgotten, remembered) = skimmed.split_at(text.len().saturating_sub(TEXT_BYTES_MAX));
    predictor.skim(forgotten, false);
    predictor.skim(remembered, true);
    read_with(predictor, read);
    predictor.fade();
}

/// Learns from a text.
fn read_with<M: Tables>(predictor: &mut M, text: &[u8]) {
    for byte in text {
        predictor.next_byte(|asked, _| answer(*byte, asked));
    }
}

/// What a segment may start from.
enum Start {
    Own(u8),
    Named(ModelId),
    /// Nothing, with the contexts of records of a length.
    Records(u16),
    /// Nothing, with the contexts of the differences of samples.
    Samples(Shape),
}

impl Start {
    /// The words that are numbers in what starts from it; `None` where none are.
    fn words(&self, library: &Priors) -> Option<Arc<Words>> {
        match self {
            Start::Own(number) => priors::words(*number),
            Start::Named(id) => library.words(*id),
            Start::Records(_) | Start::Samples(_) => None,
        }
    }

    /// Runs `f` with a predictor that stands at the start of a segment, with a reference in the form of its bytes before it.
    fn run<M: Held, T>(&self, library: &Priors, reference: Option<&[u8]>, f: impl FnOnce(&mut M) -> T) -> Option<T> {
        let f = |p: &mut M| {
            if let Some(text) = reference {
                p.read(text.get(..REFERENCE_BYTES_MAX).unwrap_or(text));
            }
            f(p)
        };
        let contexts = match self {
            Start::Own(number) => return priors::snapshot::<M>(*number).map(|snapshot| with_predictor(&*snapshot, f)),
            Start::Named(id) => return library.snapshot::<M>(*id).map(|snapshot| with_predictor(&*snapshot, f)),
            Start::Records(len) => Contexts::of_records_of(usize::from(*len)),
            Start::Samples(shape) => Contexts::of_samples(*shape),
        };
        priors::snapshot::<M>(0).map(|snapshot| {
            with_predictor(&*snapshot, |p| {
                p.begin_with(contexts);
                f(p)
            })
        })
    }
}

/// Bytes from the middle of a segment, by which priors are compared; `None` where it is too short for that.
fn sample(raw: &[u8], len: usize) -> Option<&[u8]> {
    let start = raw.len().saturating_sub(len) / 2;
    raw.get(start..start + len)
}

/// What the swift profile makes of a sample, bytes, whichever profile codes the segment.
fn trial(start: &Start, sample: &[u8], library: &Priors) -> usize {
    let words = start.words(library).map(|words| words.forward(sample));
    let sample = words.as_deref().unwrap_or(sample);
    let code = start.run::<Swift, _>(library, None, |p| encode_with(p, sample, usize::MAX));
    code.flatten().map_or(usize::MAX, |code| code.len())
}

/// The candidate from which a sample of a segment is coded best, and to how many bytes; the first where the segment is too
/// short to tell.
fn choose(sample: Option<&[u8]>, mut candidates: Vec<Start>, library: &Priors) -> Option<(Start, usize)> {
    let sample = sample.filter(|_| candidates.len() > 1);
    let sizes = candidates.iter().map(|start| sample.map_or(0, |sample| trial(start, sample, library)));
    let (at, size) = sizes.enumerate().min_by_key(|(_, size)| *size)?;
    Some((candidates.swap_remove(at), size))
}

/// The number of the program's own prior that codes a sample best.
fn choose_own(raw: &[u8], class: Class) -> u8 {
    let candidates = priors::candidates(class, raw).into_iter().map(Start::Own).collect();
    match choose(sample(raw, TRIAL_BYTES), candidates, &Priors::default()) {
        Some((Start::Own(number), _)) => number,
        Some((Start::Named(_) | Start::Records(_) | Start::Samples(_), _)) | None => 0,
    }
}

/// What samples are like, where the sample of a segment is coded better as such than to `size` bytes.
fn choose_samples(raw: &[u8], sample: &[u8], size: usize, library: &Priors) -> Option<Shape> {
    let (shape, cost) = samples::likely(raw)?;
    let excess = (cost * sample.len() as u64 / 256).saturating_sub(8 * size as u64);
    if excess * 4 > sample.len() as u64 * EXCESS_MAX {
        return None;
    }
    let at = raw.len().saturating_sub(sample.len()) / 2;
    let sized = samples::shapes(raw, shape).into_iter().map(|shape| {
        let lead = at.min(TRIAL_SAMPLES_BYTES.max(2 * usize::from(shape.row)));
        let mut bytes = raw.get(at - lead..at + sample.len()).unwrap_or_default().to_vec();
        samples::forward(shape.after(at - lead), &mut bytes);
        (trial(&Start::Samples(shape.after(at)), bytes.get(lead..).unwrap_or_default(), library), shape)
    });
    sized.min_by_key(|(size, _)| *size).filter(|(best, _)| *best < size).map(|(_, shape)| shape)
}

/// The best of the volume's priors and the program's own, of records and, where the segment stands `alone`, of samples, for
/// bytes of a form.
fn choose_any(raw: &[u8], form: Form, class: Class, library: &Priors, alone: bool) -> Option<Start> {
    let mut candidates: Vec<Start> =
        library.candidates(class, raw).iter().map(|prior| Start::Named(prior.id)).collect();
    candidates.extend(priors::candidates(class, raw).into_iter().map(Start::Own));
    if !matches!(class, Class::Binary | Class::Sound | Class::Picture | Class::Video) || form != Form::Plain {
        return choose(sample(raw, TRIAL_BYTES), candidates, library).map(|(start, _)| start);
    }
    candidates.extend(records::lengths(raw).into_iter().map(Start::Records));
    let sample = sample(raw, TRIAL_BINARY_BYTES.min(raw.len().max(TRIAL_BYTES)));
    let (start, size) = choose(sample, candidates, library)?;
    let shape = sample.filter(|_| alone).and_then(|sample| choose_samples(raw, sample, size, library));
    Some(shape.map_or(start, Start::Samples))
}

/// The prior of the volume that a segment would start from.
pub fn prior_for(raw: &[u8], class: Class, library: &Priors) -> ModelId {
    let form = choose_form(raw, class);
    match choose_any(&form.forward(raw), form, class, library, true) {
        Some(Start::Named(id)) => id,
        Some(Start::Own(_) | Start::Records(_) | Start::Samples(_)) | None => ModelId::NONE,
    }
}

/// What pixels are like, and where the first whole one begins; where rows have bytes besides their pixels, where the first row does.
#[derive(Clone, Copy, Debug)]
pub(super) struct PixelShape {
    pub bytes: usize,
    pub planes: usize,
    pub big: bool,
    pub signed: bool,
    pub row: usize,
    pub phase: usize,
}

/// Pixels that bytes may be, the more likely first; those of one byte in rows, of longer ones nobody has looked for rows where it is 0.
pub(super) fn pixel_shapes(raw: &[u8]) -> Vec<PixelShape> {
    let shapes = samples::likely(raw).map_or_else(Vec::new, |(shape, _)| samples::shapes(raw, shape));
    let in_rows = shapes.into_iter().filter(|shape| shape.width == 2 || shape.row > 0 && shape.width == 1);
    let named = |shape: Shape| PixelShape {
        bytes: shape.width.into(),
        planes: shape.channels.into(),
        big: shape.big,
        signed: shape.signed,
        row: shape.row.into(),
        phase: shape.phase.into(),
    };
    in_rows.map(named).collect()
}

/// The form in which the bytes of a segment are coded.
fn choose_form(raw: &[u8], class: Class) -> Form {
    if !matches!(class, Class::Exec | Class::Binary | Class::Sound | Class::Picture | Class::Video) {
        return Form::Plain;
    }
    match (code::saves(raw), arm::saves(raw)) {
        (0, 0) => Form::Plain,
        (x86, arm) if x86 >= arm => Form::Code,
        _ => Form::Arm,
    }
}

/// What the head of a payload, and the prior that the segment's header names, say that it starts from.
fn start_of(revision: u16, number: u8, model: ModelId, form: Form) -> Result<Start, Error> {
    if revision == 1 && matches!(form, Form::Samples(_) | Form::Arm | Form::Words(_)) {
        return Err(Error::Corrupt("primed payload of revision 1 names a form of bytes that came later"));
    }
    if revision == 1 && (priors::OF_REVISION_1..NAMED).contains(&number) {
        return Err(Error::Corrupt("primed payload of revision 1 names a prior that came later"));
    }
    match (number, model, form) {
        (NAMED, ModelId::NONE, _) => Err(Error::Corrupt("it needs a prior of the volume and names none")),
        (0, ModelId::NONE, Form::Records(len)) => Ok(Start::Records(len)),
        (0, ModelId::NONE, Form::Samples(shape)) => Ok(Start::Samples(shape)),
        (_, _, Form::Samples(_)) => Err(Error::Corrupt("it names a prior, and samples start from none")),
        (_, _, Form::Records(_)) => Err(Error::Corrupt("it names a prior, and records start from none")),
        (NAMED, id, _) => Ok(Start::Named(id)),
        (number, ModelId::NONE, _) => Ok(Start::Own(number)),
        _ => Err(Error::Corrupt("it names a prior of the volume and does not use it")),
    }
}

impl<M: Held> Model for Primed<M> {
    fn id(&self) -> MethodId {
        M::PROFILE.method()
    }

    fn revision(&self) -> u16 {
        REVISION
    }

    fn memory_bytes(&self) -> u64 {
        // Texts of a prior of the program and of one of the volume.
        M::BYTES + M::REFERENCE_BYTES + 2 * TEXT_BYTES_MAX as u64 + u64::from(SEGMENT_BYTES_MAX)
    }

    fn decode_rate_guess(&self) -> u64 {
        match M::PROFILE {
            Profile::Swift => 2500,
            Profile::Usual => 900,
            Profile::Strong => 400,
        }
    }

    fn prepare(&self, payload: &[u8], model: ModelId, basis: Basis<'_>) {
        match payload.first() {
            Some(&NAMED) => {
                basis.library.priors.snapshot::<M>(model);
            }
            Some(number) => {
                priors::snapshot::<M>(*number);
            }
            None => {}
        }
    }

    fn encode(&self, raw: &[u8], class: Class, basis: Basis<'_>) -> Result<Coded, Declined> {
        let mut form = choose_form(raw, class);
        let mut bytes = form.forward(raw);
        let alone = basis.reference.is_none();
        let mut start = choose_any(&bytes, form, class, &basis.library.priors, alone).ok_or(Declined::Failed)?;
        let mut reference = basis.reference.map(|reference| form.forward(reference));
        if let Start::Samples(shape) = start {
            samples::forward(shape, &mut bytes);
        } else if let Some(words) = start.words(&basis.library.priors) {
            match words.forward_if_it_fits(&bytes) {
                Some(coded) => {
                    (form, bytes) = (Form::Words(coded.len() as u32), coded);
                    reference = reference.map(|reference| words.forward(&reference));
                }
                // The part that was tried is unlike the rest.
                None => start = Start::Own(0),
            }
        }
        let code = start
            .run::<M, _>(&basis.library.priors, reference.as_deref(), |p| encode_with(p, &bytes, raw.len()))
            .ok_or(Declined::Failed)?
            .ok_or(Declined::DoesNotShrink)?;
        let (number, form, model) = match start {
            Start::Own(number) => (number, form, ModelId::NONE),
            Start::Named(id) => (NAMED, form, id),
            Start::Records(len) => (0, Form::Records(len), ModelId::NONE),
            Start::Samples(shape) => (0, Form::Samples(shape), ModelId::NONE),
        };
        let refers = reference.is_some();
        let payload = layout::join(number, form, refers, &code);
        if payload.len() < raw.len() { Ok(Coded { payload, model, refers }) } else { Err(Declined::DoesNotShrink) }
    }

    fn decode(
        &self,
        payload: &[u8],
        raw_len: usize,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        if !(1..=REVISION).contains(&revision) {
            return Err(Error::UnknownRevision(revision));
        }
        let (number, form, refers, code) = layout::split(payload)?;
        let start = start_of(revision, number, model, form)?;
        if let Start::Named(id) = start
            && !basis.library.priors.has(id)
        {
            return Err(Error::MissingModel(id));
        }
        let words = start.words(&basis.library.priors);
        let coded_len = match (form, &words) {
            (Form::Words(len), Some(_)) if len as usize <= raw_len => len as usize,
            (Form::Words(_), Some(_)) => return Err(Error::Corrupt("its words are longer than its bytes")),
            (Form::Words(_), None) => return Err(Error::Corrupt("it has words, and its prior has none")),
            (_, Some(_)) => return Err(Error::Corrupt("its prior has words, and it has none")),
            (_, None) => raw_len,
        };
        let reference = match (refers, basis.reference) {
            (true, Some(reference)) => Some(match &words {
                Some(words) => words.forward(reference),
                None => form.forward(reference),
            }),
            (false, None) => None,
            (true, None) => return Err(Error::Corrupt("it needs a reference and names none")),
            (false, Some(_)) => return Err(Error::Corrupt("it names a reference and does not use it")),
        };
        let decoded =
            start.run::<M, _>(&basis.library.priors, reference.as_deref(), |p| decode_with(p, code, coded_len));
        let mut bytes = decoded.ok_or(Error::Corrupt("primed payload names a prior that does not exist"))?;
        if let Some(words) = words {
            return words.back(&bytes, raw_len);
        }
        form.back(&mut bytes);
        Ok(bytes)
    }
}
