//! One segment: classify, choose, encode, verify, decode.
//!
//! Must not know: files, packs, the index. Decoded bytes are returned only when their hash is right; encoded bytes only
//! when they were decoded and compared.

mod bounds;
mod policy;
mod rate;
mod why;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::base::{Class, MethodId, ModelId, PlainHash, SEGMENT_BYTES_MAX, plain_hash};
use crate::containers;
use crate::format::Coding;
use crate::host;
use crate::models::{self, Aim, BY_STRENGTH, Coded, Declined, Language, Opened, Room};
use crate::telemetry;

pub use crate::containers::Before;
#[cfg(feature = "lora")]
pub use crate::models::{
    AdaptedMatrix, AdapterTrainer, Advance, Course, Learned, Pretrainer, Pretraining, Recipe, Taught, TrainError,
    Trainer, Window,
};
pub use crate::models::{
    Basis, Facts, LANE_BYTES_MAX, LANE_BYTES_MIN, LanguageModel, Library, Likeness, LoadError, Loader, ModelKind, Open,
    Shelf, Spliced, TEXT_BYTES_MAX, VolumePrior, as_safetensors, classify, kind_of_tensors, load_checkpoint,
    load_language_model, load_tensors, segment_bytes, starts_from_priors, train_from,
};
pub use bounds::{Bounds, Ends, FirstCut, bounds, first_cut};
pub use policy::{DECODE_MS_MAX, Policy, SEGMENT_BYTES_MIN, Tier, climbs, cut, cut_beside, outgrows, planned};
pub use rate::{forget as forget_rate, predicted_decode_ms, predicted_payload_ms};
pub use why::{Against, against_stronger};

/// True where a policy has a language model tried on a class, or one of bytes: its shortest lanes keep the budget.
pub fn uses_language(class: Class, policy: &Policy) -> bool {
    policy::lane_bytes(class, policy).is_some()
}

/// Bytes tried before a segment is called incompressible.
const PROBE_BYTES: usize = 4 << 10;
/// Places in the segment where they are taken.
const PROBES: usize = 4;
/// What a reference costs beside the payload, bytes: its hash in the header, and its place in the extents and in the index.
const REFERENCE_COST_BYTES: usize = 64;
/// A payload that is this part of what zstd's quick level makes of the data is smaller than any without a reference would be.
const SURELY_SMALLER_PART: usize = 2;
/// Of text at least this part is base64 where that is opened.
const BASE64_PART: usize = 8;
/// A probe that zstd's fastest level does not shrink below this share (1/1000) counts against coding.
const PROBE_SHARE: usize = 985;

/// A segment coded, decoded again and compared.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub coding: Coding,
    pub payload: Vec<u8>,
}

/// Why a segment could not be coded or decoded.
#[derive(Debug)]
pub enum Error {
    /// The method or revision is not known to this build.
    UnknownMethod { method: u16, revision: u16 },
    /// The payload is damaged, or does not give the bytes its header promises.
    Corrupt { what: &'static str },
    /// It was coded from a prior of the volume that is not there.
    MissingModel { id: ModelId },
    /// It was coded from another segment, with plain bytes of this hash, which are not there, or not those that are given.
    MissingReference { hash: PlainHash },
    /// It was coded by a language model that cannot be used.
    NoLanguageModel { id: ModelId, why: String },
    /// The volume is closing: nothing is said of the segment.
    Stopped,
    /// Memory was refused: nothing is said of the segment.
    OutOfMemory { what: &'static str },
    /// More plain bytes than a segment may have, or none.
    BadLength { len: u64 },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownMethod { method, revision } => {
                write!(f, "segment is coded by method {method} revision {revision}, which this build does not know")
            }
            Error::Corrupt { what } | Error::OutOfMemory { what } => write!(f, "segment does not decode: {what}"),
            Error::MissingModel { id } => write!(f, "segment does not decode: {}", models::Error::MissingModel(*id)),
            Error::NoLanguageModel { id, why } => {
                write!(f, "segment does not decode: {}", models::Error::NoLanguageModel(*id, why.clone()))
            }
            Error::Stopped => write!(f, "{}", models::Error::Stopped),
            Error::MissingReference { hash } => {
                let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
                write!(
                    f,
                    "segment does not decode: it was coded from a segment with plain bytes of hash {hash}, which is lost"
                )
            }
            Error::BadLength { len } => write!(f, "a segment cannot hold {len} bytes"),
        }
    }
}

impl std::error::Error for Error {}

/// True when samples of the data do not shrink even a little: then no model is tried, and the cost is that of a glance.
fn looks_incompressible(raw: &[u8]) -> bool {
    if raw.len() < PROBE_BYTES {
        return false;
    }
    let stride = (raw.len() - PROBE_BYTES) / (PROBES - 1).max(1);
    (0..PROBES).all(|n| {
        let Some(probe) = raw.get(n * stride..n * stride + PROBE_BYTES) else { return true };
        match zstd::bulk::compress(probe, 1) {
            Ok(c) => c.len() * 1000 > probe.len() * PROBE_SHARE,
            Err(_) => false,
        }
    })
}

/// Bytes that models keep beyond one set of tables for each thread, so far.
pub fn kept_model_bytes() -> u64 {
    models::kept_bytes()
}

/// Bytes of tables that a thread keeps for the default method, and for the one that chooses its priors. What others take
/// counts from when they are used: `kept_model_bytes`.
pub fn model_bytes() -> u64 {
    method_memory_bytes(MethodId::Primed) + method_memory_bytes(MethodId::Swift)
}

/// Bytes of memory that coding or decoding a segment by a method takes besides the segment itself.
pub fn method_memory_bytes(method: MethodId) -> u64 {
    models::model(method).memory_bytes()
}

/// True when zstd's quick level is so far behind the `best` bytes of a method that its slow one will not catch up, which costs a
/// hundred times as much. It gains a third; on sequences and reads, where they do not repeat, 12 to 18 %. Where they do it gains
/// as much as elsewhere, and the quick one is twice as large as what `genome` makes of them.
fn zstd_cannot_win(raw: &[u8], method: MethodId, best: usize) -> bool {
    let (quick_part, best_part) = if method == MethodId::Genome { (4, 5) } else { (2, 3) };
    zstd::bulk::compress(raw, 3).is_ok_and(|quick| quick.len() * quick_part > best * best_part)
}

/// True when zstd's quick level comes near the `best` bytes of a method that looks at what is near alone: then what is for any
/// data may gain on it.
fn repeats(raw: &[u8], best: usize) -> bool {
    zstd::bulk::compress(raw, 3).is_ok_and(|quick| quick.len() * 4 < best * 5)
}

/// Codes `raw` (1 to `SEGMENT_BYTES_MAX` bytes) by the smallest method within the policy, and proves that it decodes.
/// Priors of the library are used where they help; the coding names the one that was. A reference is used where it saves an
/// eighth at least and more than it costs; the coding names it then.
/// Never larger than `raw` itself: raw storage is always legal.
pub fn encode(raw: &[u8], class: Class, policy: &Policy, basis: Basis<'_>) -> Result<Encoded, Error> {
    if raw.is_empty() || raw.len() > SEGMENT_BYTES_MAX as usize {
        return Err(Error::BadLength { len: raw.len() as u64 });
    }
    let started = host::thread_cpu_seconds();
    let by_reference = basis.reference.map(|_| smallest(raw, class, policy, basis)).transpose()?;
    let by_reference = by_reference.flatten();
    let surely = by_reference.as_ref().is_some_and(|(_, c)| c.refers && surely_smaller(raw, c.payload.len()));
    let opened = if surely { None } else { opened(raw, class, policy, basis) };
    let is_packed = !surely
        && (class == Class::Incompressible
            || (!matches!(class, Class::Sound | Class::Picture | Class::Video) && looks_incompressible(raw)));
    let best = match by_reference {
        Some(from) if surely => Some(from),
        // Even what no method shrinks by itself may be there already.
        from if opened.is_none() && is_packed => {
            telemetry::EARLY_ABORTS.add(1);
            from.filter(|(_, coded)| coded.refers && reference_pays(coded.payload.len(), raw.len()))
        }
        from => {
            let alone = match opened {
                Some(opened) if is_packed => Some(opened),
                // What is compressed in part only may be coded as it is.
                Some(opened) => smallest(raw, class, policy, Basis::of(basis.library))?
                    .filter(|(_, coded)| coded.payload.len() < opened.1.payload.len())
                    .or(Some(opened)),
                None => smallest(raw, class, policy, Basis::of(basis.library))?,
            };
            let bytes = alone.as_ref().map_or(raw.len(), |(_, coded)| coded.payload.len());
            from.filter(|(_, coded)| coded.refers && reference_pays(coded.payload.len(), bytes)).or(alone)
        }
    };
    let is_opened = matches!(best, Some((MethodId::Opened, _)));
    let is_pixels = |(method, _)| method == MethodId::Picture;
    let has_pixels = best.as_ref().is_some_and(|(_, coded)| is_opened && Opened::parts(&coded.payload).any(is_pixels));
    let mut chosen = proven(raw, best, policy, basis)?;
    // Text may decode slower than the data by which the speed of its method is known: by faster ones then, as far as there are any.
    // So may pixels: fewer of them then.
    let mut rooms = policy::rooms(policy);
    if has_pixels && chosen.is_none() {
        rooms.iter_mut().filter(|room| room.method == MethodId::Picture).for_each(|room| room.text_bytes /= 2);
        chosen = proven(raw, opened_in(raw, basis, &rooms), policy, basis)?;
    }
    let is_text = |room: &&Room| !matches!(room.method, MethodId::Sound | MethodId::Picture);
    while is_opened && chosen.is_none() && rooms.iter().filter(is_text).count() > 1 {
        rooms.remove(0);
        chosen = proven(raw, opened_in(raw, basis, &rooms), policy, basis)?;
    }
    if is_opened && chosen.is_none() && !is_packed {
        chosen = proven(raw, smallest(raw, class, policy, Basis::of(basis.library))?, policy, basis)?;
    }
    let (id, Coded { payload, model, refers }) = chosen.unwrap_or_else(|| (MethodId::Raw, Coded::alone(raw.to_vec())));
    telemetry::ENCODED_BYTES.add(raw.len() as u64);
    telemetry::ENCODE_US.add(cpu_since(started).as_micros() as u64);
    let coding = Coding {
        method: id as u16,
        revision: models::model(id).revision(),
        profile: 0,
        class,
        raw_len: raw.len() as u32,
        model: model.0,
        plain_hash: plain_hash(raw),
        reference: basis.reference.filter(|_| refers).map(plain_hash),
    };
    Ok(Encoded { coding, payload })
}

/// Decodes what is to be stored, and gives it back where that gives the bytes.
///
/// # Errors
/// The volume is closing.
fn proven(
    raw: &[u8],
    best: Option<(MethodId, Coded)>,
    policy: &Policy,
    basis: Basis<'_>,
) -> Result<Option<(MethodId, Coded)>, Error> {
    let Some((id, coded)) = best else { return Ok(None) };
    // As a reader will: the reference of a segment that was coded alone is nobody's.
    let basis = if coded.refers { basis } else { Basis::of(basis.library) };
    let read = Stored { id, payload: &coded.payload, raw_len: raw.len(), revision: models::model(id).revision() };
    let started = host::thread_cpu_seconds();
    match read.decode_timed(coded.model, basis) {
        // How long closing takes is seen only when it was done: by what encoder a stream was made says more than its length.
        Ok(_) if id == MethodId::Opened && cpu_since(started).as_millis() > u128::from(policy.decode_ms_max()) => {
            log::debug!("containers in a segment are closed too slowly");
            Ok(None)
        }
        Ok(plain) if plain == raw => {
            read.learn_cold(coded.model, basis);
            Ok(Some((id, coded)))
        }
        Err(models::Error::Stopped) => Err(Error::Stopped),
        Ok(_) | Err(_) => {
            log::error!("method {} did not give back the bytes of a segment; it is not used", id.name());
            Ok(None)
        }
    }
}

/// What is in the containers of a segment, coded, where the policy has them opened and that is smaller.
fn opened(raw: &[u8], class: Class, policy: &Policy, basis: Basis<'_>) -> Option<(MethodId, Coded)> {
    // Archives of containers, and programs with pictures in them, are of other classes.
    let may_hold = matches!(class, Class::Incompressible | Class::Binary | Class::Unknown | Class::Exec);
    // So are mails, pages and certificates with letters in them that stand for bytes.
    let in_letters = || containers::holds_base64(raw, BASE64_PART);
    if !policy.allows(MethodId::Opened) || !(may_hold || models::suits(MethodId::Opened, class) || in_letters()) {
        return None;
    }
    opened_in(raw, basis, &policy::rooms(policy))
}

/// As `opened`, by methods that have room for so much text.
fn opened_in(raw: &[u8], basis: Basis<'_>, rooms: &[Room]) -> Option<(MethodId, Coded)> {
    let coded = Opened::encode_for(raw, Basis { reference: None, ..basis }, rooms).ok()?;
    (coded.payload.len() < raw.len()).then_some((MethodId::Opened, coded))
}

/// The smallest that the methods within the policy make of a segment.
fn smallest(raw: &[u8], class: Class, policy: &Policy, basis: Basis<'_>) -> Result<Option<(MethodId, Coded)>, Error> {
    let mut best: Option<(MethodId, Coded)> = None;
    // The strongest first, so that weaker ones are tried only where they have a chance.
    let mut primed = false;
    for id in BY_STRENGTH {
        let slow = || predicted_decode_ms(id, raw.len() as u32) > policy.decode_ms_max();
        // A language model costs so much that it has to know what it must come below, and opened containers have a budget.
        if matches!(id, MethodId::Raw | MethodId::Language | MethodId::Opened) || !policy.tries(id, class) || slow() {
            continue;
        }
        // Frames are pictures, and more.
        if id == MethodId::Picture && best.is_some() {
            continue;
        }
        if models::starts_from_priors(id) {
            // Nor does what is for any data on what is for this kind alone, where there is no other.
            if best.as_ref().is_some_and(|(best, _)| *best == MethodId::Genome) && models::is_nucleotides_alone(raw) {
                continue;
            }
            // What has rows may be a table, too, which gains more than sound.
            let wide = |(id, b): &(MethodId, Coded)| {
                matches!(id, MethodId::Picture | MethodId::Video) && !repeats(raw, b.payload.len() / 5 * 6)
            };
            if best.as_ref().is_some_and(wide) {
                continue;
            }
            if best.as_ref().is_some_and(|(id, b)| *id == MethodId::Sound && !repeats(raw, b.payload.len())) {
                continue;
            }
            // Of the profiles of one predictor a weaker one never gains on a stronger.
            if primed {
                continue;
            }
            primed = true;
        }
        if id == MethodId::Zstd && best.as_ref().is_some_and(|(id, b)| zstd_cannot_win(raw, *id, b.payload.len())) {
            continue;
        }
        if let Ok(coded) = models::model(id).encode(raw, class, basis)
            && best.as_ref().is_none_or(|(_, b)| coded.payload.len() < b.payload.len())
        {
            best = Some((id, coded));
        }
    }
    if let Some(lane_bytes) = policy::lane_bytes(class, policy).filter(|_| basis.reference.is_none()) {
        let below = best.as_ref().map_or(raw.len(), |(_, coded)| coded.payload.len());
        match Language::encode_for(raw, class, basis.library, Aim { lane_bytes, below }) {
            Ok(coded) => best = Some((MethodId::Language, coded)),
            Err(Declined::Stopped) => return Err(Error::Stopped),
            Err(Declined::DoesNotShrink | Declined::Failed | Declined::Foreign) => {}
        }
    }
    Ok(best)
}

/// True when a payload that needs a reference is worth it beside one of `alone` bytes that does not.
fn reference_pays(bytes: usize, alone: usize) -> bool {
    (bytes + REFERENCE_COST_BYTES) * 8 < alone * 7
}

/// True when no method would come near without a reference, so that none needs to be tried.
fn surely_smaller(raw: &[u8], bytes: usize) -> bool {
    let alone = zstd::bulk::compress(raw, 3).map_or(0, |quick| quick.len());
    reference_pays(bytes, alone / SURELY_SMALLER_PART)
}

/// Bytes that a segment would take, by the method that starts from priors; without proof, so at less than half the cost of
/// `encode`.
pub fn stored_bytes(raw: &[u8], class: Class, library: &Library) -> u64 {
    let coded = models::model(MethodId::Primed).encode(raw, class, Basis::of(library));
    coded.map_or(raw.len(), |coded| coded.payload.len()) as u64
}

/// Processor time of this thread since `started`, which is what a method takes however busy the machine is.
fn cpu_since(started: f64) -> Duration {
    Duration::try_from_secs_f64(host::thread_cpu_seconds() - started).unwrap_or_default()
}

/// A payload and what its header says of it.
struct Stored<'a> {
    id: MethodId,
    payload: &'a [u8],
    raw_len: usize,
    revision: u16,
}

impl Stored<'_> {
    fn decode_timed(&self, named: ModelId, basis: Basis<'_>) -> Result<Vec<u8>, models::Error> {
        let model = models::model(self.id);
        let whole = model.part_bytes(self.payload, self.raw_len) >= self.raw_len;
        self.timed(named, basis, whole, || model.decode(self.payload, self.raw_len, self.revision, named, basis))
    }

    /// Parts of a payload, each checked by itself.
    fn parts_timed(&self, parts: Range<usize>, named: ModelId, basis: Basis<'_>) -> Result<Vec<u8>, models::Error> {
        let model = models::model(self.id);
        self.timed(named, basis, parts.len() == 1, || {
            model.decode_parts(self.payload, self.raw_len, parts, self.revision, named, basis)
        })
    }

    /// The speed of a method is that of what a cold read decodes: one part.
    fn timed(
        &self,
        named: ModelId,
        basis: Basis<'_>,
        one_part: bool,
        decode: impl FnOnce() -> Result<Vec<u8>, models::Error>,
    ) -> Result<Vec<u8>, models::Error> {
        models::model(self.id).prepare(self.payload, named, basis);
        let started = host::thread_cpu_seconds();
        let plain = decode()?;
        let elapsed = cpu_since(started);
        // What is copied from a reference says nothing of other data.
        if one_part && basis.reference.is_none() {
            rate::learn(self.id, self.payload, plain.len() as u64, elapsed);
        }
        telemetry::DECODED_BYTES.add(plain.len() as u64);
        telemetry::DECODE_US.add(elapsed.as_micros() as u64);
        Ok(plain)
    }

    /// Measures a cold read where the speed of it is not known: all parts of a segment together are decoded faster.
    fn learn_cold(&self, named: ModelId, basis: Basis<'_>) {
        if !rate::is_known(self.id) && models::model(self.id).part_bytes(self.payload, self.raw_len) < self.raw_len {
            let _ = self.parts_timed(0..1, named, basis);
        }
    }
}

/// What a coding says of a payload, and what decodes it.
fn stored<'a, 'b>(
    coding: &Coding,
    payload: &'a [u8],
    basis: Basis<'b>,
) -> Result<(Stored<'a>, ModelId, Basis<'b>), Error> {
    if coding.raw_len == 0 || coding.raw_len > SEGMENT_BYTES_MAX {
        return Err(Error::BadLength { len: u64::from(coding.raw_len) });
    }
    let Some(id) = MethodId::from_u16(coding.method) else { return Err(unknown(coding)) };
    if coding.profile != 0 {
        return Err(Error::Corrupt { what: "it names a numeric profile that this build does not have" });
    }
    let basis = match (coding.reference, basis.reference) {
        (None, _) => Basis::of(basis.library),
        (Some(hash), Some(reference)) if plain_hash(reference) == hash => basis,
        (Some(hash), _) => return Err(Error::MissingReference { hash }),
    };
    let stored = Stored { id, payload, raw_len: coding.raw_len as usize, revision: coding.revision };
    Ok((stored, ModelId(coding.model), basis))
}

fn unknown(coding: &Coding) -> Error {
    Error::UnknownMethod { method: coding.method, revision: coding.revision }
}

fn undecoded(coding: &Coding, e: models::Error) -> Error {
    match e {
        models::Error::Corrupt(what) => Error::Corrupt { what },
        models::Error::UnknownRevision(_) => unknown(coding),
        models::Error::MissingModel(id) => Error::MissingModel { id },
        models::Error::NoLanguageModel(id, why) => Error::NoLanguageModel { id, why },
        models::Error::Stopped => Error::Stopped,
        models::Error::OutOfMemory(what) => Error::OutOfMemory { what },
    }
}

/// Decodes a payload and checks it against the plain hash. A reference must be given when the coding names one. Never returns
/// bytes that fail the check, never panics.
pub fn decode(coding: &Coding, payload: &[u8], basis: Basis<'_>) -> Result<Vec<u8>, Error> {
    let (stored, model, basis) = stored(coding, payload, basis)?;
    let plain = stored.decode_timed(model, basis).map_err(|e| undecoded(coding, e))?;
    if plain_hash(&plain) != coding.plain_hash {
        return Err(Error::Corrupt { what: "the decoded bytes fail their hash" });
    }
    Ok(plain)
}

/// What the bytes behind a segment go on with, where its payload tells: for who was stopped in the middle of a stream. It is of use
/// only if it is right, which nothing but coding them shows. Costs what decoding the segment does.
pub fn before_behind(coding: &Coding, payload: &[u8]) -> Option<Before> {
    let is_opened = coding.method == MethodId::Opened as u16 && coding.raw_len <= SEGMENT_BYTES_MAX;
    is_opened.then(|| Opened::before_behind(payload, coding.raw_len as usize)).flatten()
}

/// As `before_behind`, of plain bytes that stayed closed and go on with a stream themselves.
pub fn before_behind_closed(plain: &[u8], before: &Before) -> Option<Before> {
    match before {
        Before::Stream(before) => containers::before_behind(plain, Some(before)),
        Before::Picture(_) | Before::Pixels(_) | Before::Member(_) => None,
    }
}

/// Plain bytes of the parts that a segment can be decoded in, of which the last may be shorter; its length where it has none.
pub fn part_bytes(coding: &Coding, payload: &[u8]) -> u32 {
    let Some(id) = MethodId::from_u16(coding.method) else { return coding.raw_len };
    let bytes = models::model(id).part_bytes(payload, coding.raw_len as usize);
    u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, coding.raw_len.max(1))
}

/// The checksum (CRC32C) that a payload has of the plain bytes of one of its parts; `None` where it has none.
pub fn part_check(coding: &Coding, payload: &[u8], part: u32) -> Option<u32> {
    models::model(MethodId::from_u16(coding.method)?).part_check(payload, coding.raw_len as usize, part as usize)
}

/// Decodes some parts of a payload: their plain bytes, one after the other. Parts have checksums of their own (32 bits), by
/// which they are checked, as the hash of the segment is that of all of it. Never panics.
pub fn decode_parts(coding: &Coding, payload: &[u8], parts: Range<u32>, basis: Basis<'_>) -> Result<Vec<u8>, Error> {
    let part = part_bytes(coding, payload);
    let whole = 0..coding.raw_len.div_ceil(part);
    if parts == whole {
        return decode(coding, payload, basis);
    }
    if parts.is_empty() || parts.end > whole.end {
        return Err(Error::Corrupt { what: "it has no such part" });
    }
    let (stored, model, basis) = stored(coding, payload, basis)?;
    let wanted = (parts.end.saturating_mul(part).min(coding.raw_len) - parts.start * part) as usize;
    let parts = parts.start as usize..parts.end as usize;
    let plain = stored.parts_timed(parts, model, basis).map_err(|e| undecoded(coding, e))?;
    if plain.len() != wanted {
        return Err(Error::Corrupt { what: "a part of it has another length" });
    }
    Ok(plain)
}
