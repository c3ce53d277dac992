//! One segment: classify, choose, encode, verify, decode.
//!
//! Must not know: files, packs, the index. Decoded bytes are returned only when their hash is right; encoded bytes only
//! when they were decoded and compared.

mod bounds;
mod classify;
mod policy;
mod rate;

use std::fmt;
use std::time::Duration;

use crate::base::{Class, MethodId, ModelId, PlainHash, SEGMENT_BYTES_MAX, plain_hash};
use crate::format::Coding;
use crate::host;
use crate::models::{self, BY_STRENGTH, Coded};
use crate::telemetry;

pub use crate::models::{
    Basis, LANE_BYTES_MAX, LANE_BYTES_MIN, LanguageModel, Library, Likeness, TEXT_BYTES_MAX, VolumePrior,
    load_checkpoint, load_language_model, prior_for, starts_from_priors, train_from,
};
pub use bounds::{Bounds, bounds, first_cut};
pub use classify::{classify, segment_bytes};
pub use policy::{DECODE_MS_MAX, Policy, SEGMENT_BYTES_MIN, Tier, cut, cut_beside, outgrows};
pub use rate::predicted_decode_ms;

/// Bytes tried before a segment is called incompressible.
const PROBE_BYTES: usize = 4 << 10;
/// Places in the segment where they are taken.
const PROBES: usize = 4;
/// What a reference costs beside the payload, bytes: its hash in the header, and its place in the extents and in the index.
const REFERENCE_COST_BYTES: usize = 64;
/// A payload that is this part of what zstd's quick level makes of the data is smaller than any without a reference would be.
const SURELY_SMALLER_PART: usize = 2;
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
    /// More plain bytes than a segment may have, or none.
    BadLength { len: u64 },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownMethod { method, revision } => {
                write!(f, "segment is coded by method {method} revision {revision}, which this build does not know")
            }
            Error::Corrupt { what } => write!(f, "segment does not decode: {what}"),
            Error::MissingModel { id } => write!(f, "segment does not decode: {}", models::Error::MissingModel(*id)),
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

/// Codes `raw` (1 to `SEGMENT_BYTES_MAX` bytes) by the smallest method within the policy, and proves that it decodes.
/// Priors of the library are used where they help; the coding names the one that was. A reference is used where it saves an
/// eighth at least and more than it costs; the coding names it then.
/// Never larger than `raw` itself: raw storage is always legal.
pub fn encode(raw: &[u8], class: Class, policy: &Policy, basis: Basis<'_>) -> Result<Encoded, Error> {
    if raw.is_empty() || raw.len() > SEGMENT_BYTES_MAX as usize {
        return Err(Error::BadLength { len: raw.len() as u64 });
    }
    let started = host::thread_cpu_seconds();
    let best = match basis.reference.and_then(|_| smallest(raw, class, policy, basis)) {
        Some(from) if from.1.refers && surely_smaller(raw, from.1.payload.len()) => Some(from),
        // Even what no method shrinks by itself may be there already.
        from if class == Class::Incompressible || looks_incompressible(raw) => {
            telemetry::EARLY_ABORTS.add(1);
            from.filter(|(_, coded)| coded.refers && reference_pays(coded.payload.len(), raw.len()))
        }
        from => {
            let alone = smallest(raw, class, policy, Basis::of(basis.library));
            let bytes = alone.as_ref().map_or(raw.len(), |(_, coded)| coded.payload.len());
            from.filter(|(_, coded)| coded.refers && reference_pays(coded.payload.len(), bytes)).or(alone)
        }
    };
    // Decode what was chosen, and what it falls back to, until one proves itself.
    let chosen = best.filter(|(id, coded)| {
        let revision = models::model(*id).revision();
        // As a reader will: the reference of a segment that was coded alone is nobody's.
        let basis = if coded.refers { basis } else { Basis::of(basis.library) };
        let plain = decode_timed(*id, &coded.payload, raw.len(), revision, coded.model, basis);
        let proven = plain.is_ok_and(|plain| plain == raw);
        if !proven {
            log::error!("method {} did not give back the bytes of a segment; it is stored raw", id.name());
        }
        proven
    });
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

/// The smallest that the methods within the policy make of a segment.
fn smallest(raw: &[u8], class: Class, policy: &Policy, basis: Basis<'_>) -> Option<(MethodId, Coded)> {
    let mut best: Option<(MethodId, Coded)> = None;
    // The strongest first, so that weaker ones are tried only where they have a chance.
    let mut primed = false;
    for id in BY_STRENGTH {
        let slow = || predicted_decode_ms(id, raw.len() as u32) > policy.decode_ms_max();
        if id == MethodId::Raw || !policy.allows(id) || !models::suits(id, class) || slow() {
            continue;
        }
        if models::starts_from_priors(id) {
            // Nor does what is for any data on what is for this kind alone, where there is no other.
            if best.as_ref().is_some_and(|(best, _)| *best == MethodId::Genome) && models::is_nucleotides_alone(raw) {
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
    best
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

fn decode_timed(
    id: MethodId,
    payload: &[u8],
    raw_len: usize,
    revision: u16,
    named: ModelId,
    basis: Basis<'_>,
) -> Result<Vec<u8>, models::Error> {
    let model = models::model(id);
    model.prepare(payload, named, basis);
    let started = host::thread_cpu_seconds();
    let plain = model.decode(payload, raw_len, revision, named, basis)?;
    let elapsed = cpu_since(started);
    rate::learn(id, plain.len() as u64, elapsed);
    telemetry::DECODED_BYTES.add(plain.len() as u64);
    telemetry::DECODE_US.add(elapsed.as_micros() as u64);
    Ok(plain)
}

/// Decodes a payload and checks it against the plain hash. A reference must be given when the coding names one. Never returns
/// bytes that fail the check, never panics.
pub fn decode(coding: &Coding, payload: &[u8], basis: Basis<'_>) -> Result<Vec<u8>, Error> {
    if coding.raw_len == 0 || coding.raw_len > SEGMENT_BYTES_MAX {
        return Err(Error::BadLength { len: u64::from(coding.raw_len) });
    }
    let unknown = Error::UnknownMethod { method: coding.method, revision: coding.revision };
    let Some(id) = MethodId::from_u16(coding.method) else { return Err(unknown) };
    if coding.profile != 0 {
        return Err(Error::Corrupt { what: "it names a numeric profile that this build does not have" });
    }
    let basis = match (coding.reference, basis.reference) {
        (None, _) => Basis::of(basis.library),
        (Some(hash), Some(reference)) if plain_hash(reference) == hash => basis,
        (Some(hash), _) => return Err(Error::MissingReference { hash }),
    };
    let named = ModelId(coding.model);
    let plain =
        decode_timed(id, payload, coding.raw_len as usize, coding.revision, named, basis).map_err(|e| match e {
            models::Error::Corrupt(what) => Error::Corrupt { what },
            models::Error::UnknownRevision(_) => unknown,
            models::Error::MissingModel(id) => Error::MissingModel { id },
        })?;
    if plain_hash(&plain) != coding.plain_hash {
        return Err(Error::Corrupt { what: "the decoded bytes fail their hash" });
    }
    Ok(plain)
}
