//! What a language model would make of a tree: from a few pieces of text of each class, since each takes minutes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::Progress;
use super::estimate::{Found, Shares, TierEstimate, gather};
use crate::base::{ByteRange, Class};
use crate::codec::{LANE_BYTES_MAX, LANE_BYTES_MIN, LanguageModel, Tier};
use crate::host;
use crate::volume::load_brought;

/// Pieces coded of a class, and bytes of each.
const PIECES: usize = 4;
const PIECE_BYTES: u64 = 16 << 10;
/// Lanes by which the speed of reading one alone is measured, bytes.
const TRIED_BYTES: usize = 2 << 10;

/// What the tier deep makes of a tree with a language model.
#[derive(Clone, Debug, Serialize)]
pub struct LanguageEstimate {
    pub model: String,
    /// What the model itself takes in the store, bytes.
    pub model_bytes: u64,
    /// Plain bytes of the lanes that the decode budget of the tier allows on this machine.
    pub lane_bytes: u64,
    /// Segments of all classes, those coded without the model too, bytes.
    pub coded_bytes: u64,
    /// Of one core: to code it with the model where that is smaller, with verification; to read all of that; to read a few
    /// bytes of it.
    pub encode_hours: f64,
    pub decode_hours: f64,
    pub cold_read_s: f64,
    pub classes: Vec<LanguageClass>,
}

/// What the model makes of a class that it is tried on.
#[derive(Clone, Debug, Serialize)]
pub struct LanguageClass {
    pub class: &'static str,
    pub bytes: u64,
    pub sampled_bytes: u64,
    /// Coded by plain, and without the model.
    pub ratio: f64,
    pub ratio_without: f64,
    pub encode_hours: f64,
    pub decode_hours: f64,
}

/// Places in files from which pieces are taken.
pub(super) type Places = Vec<(Class, Arc<Found>, u64)>;

/// Bytes and processor time, that of coding with the proof that it decodes.
#[derive(Clone, Copy, Default)]
pub(super) struct Spent {
    pub plain: u64,
    pub coded: u64,
    pub encode_s: f64,
    pub decode_s: f64,
}

/// Codes `raw` in lanes and decodes it, all lanes together.
///
/// # Errors
/// A sentence: it did not come back.
pub(super) fn spend(model: &LanguageModel, raw: &[u8], lane_bytes: usize) -> Result<Spent, String> {
    let never = AtomicBool::new(false);
    let started = host::thread_cpu_seconds();
    let payload = model.encode(raw, lane_bytes, raw.len(), &never);
    let coded = host::thread_cpu_seconds();
    let Some(payload) = payload else {
        // What it does not shrink is found out soon, and coded otherwise.
        let (plain, encode_s) = (raw.len() as u64, coded - started);
        return Ok(Spent { plain, coded: plain, encode_s, ..Spent::default() });
    };
    let back = model.decode(&payload, raw.len(), &never).map_err(|e| e.to_string())?;
    if back != raw {
        return Err("the language model does not give back what it was given".to_string());
    }
    let decode_s = host::thread_cpu_seconds() - coded;
    Ok(Spent { plain: raw.len() as u64, coded: payload.len() as u64, encode_s: coded - started + decode_s, decode_s })
}

/// The longest lanes that are read alone within the budget of the tier with a quarter to spare, and what one takes, seconds.
fn lanes(model: &LanguageModel, raw: &[u8]) -> Result<(usize, f64), String> {
    let piece = raw.get(..TRIED_BYTES).unwrap_or(raw);
    let spent = spend(model, piece, LANE_BYTES_MAX)?;
    // Coding what does not shrink takes about as long, a token at a time.
    let s = if spent.decode_s > 0.0 { spent.decode_s } else { 2.0 * spent.encode_s };
    let s_per_byte = s / piece.len().max(1) as f64;
    let budget_s = f64::from(Tier::Deep.decode_ms_max()) / 1e3 * 0.8;
    let fits = |n: &usize| *n as f64 * s_per_byte <= budget_s;
    let longest = std::iter::successors(Some(LANE_BYTES_MAX), |n| Some(n / 2)).take_while(|n| *n >= LANE_BYTES_MIN);
    let lane = longest.into_iter().find(fits).unwrap_or(LANE_BYTES_MIN);
    Ok((lane, lane as f64 * s_per_byte))
}

/// Estimates what the tier `deep` takes with a model, from pieces at `places` of files. Told: pieces coded, of how many.
///
/// # Errors
/// A sentence: the model cannot be loaded, or a piece does not come back.
///
/// # Blocking
/// About a minute for each class.
pub(super) fn estimate_language(
    path: &Path,
    places: &Places,
    shares: &Shares,
    deep: &TierEstimate,
    progress: Progress<'_>,
) -> Result<LanguageEstimate, String> {
    let model = load_brought(path, None)?;
    let mut pieces: BTreeMap<Class, Vec<Vec<u8>>> = BTreeMap::new();
    for (class, found, offset) in places.iter().filter(|(class, _, _)| model.facts().kind.suits(*class)) {
        let of_class = pieces.entry(*class).or_default();
        if of_class.len() < PIECES
            && let Ok(raw) = gather(found, ByteRange::at(*offset, PIECE_BYTES))
            && !raw.is_empty()
        {
            of_class.push(raw);
        }
    }
    let total = pieces.values().map(|p| p.len() as u64).sum();
    let first = pieces.values().flatten().max_by_key(|raw| raw.len());
    let (lane_bytes, cold_read_s) = first.map_or(Ok((LANE_BYTES_MIN, 0.0)), |raw| lanes(&model, raw))?;
    let mut done = 0;
    let mut out = LanguageEstimate {
        model: model.facts().id.to_string(),
        model_bytes: model.facts().bytes,
        lane_bytes: lane_bytes as u64,
        coded_bytes: deep.coded_bytes,
        encode_hours: 0.0,
        decode_hours: 0.0,
        cold_read_s,
        classes: Vec::new(),
    };
    for (class, raws) in pieces {
        let mut sum = Spent::default();
        for raw in raws {
            let spent = spend(&model, &raw, lane_bytes)?;
            sum.plain += spent.plain;
            sum.coded += spent.coded;
            sum.encode_s += spent.encode_s;
            sum.decode_s += spent.decode_s;
            done += 1;
            progress(done, total);
        }
        let bytes = shares.get(&class).map_or(0, |(_, bytes)| *bytes);
        let without = deep.classes.iter().find(|c| c.class == class.name());
        let ratio_without = without.map_or(1.0, |c| c.ratio);
        let ratio = sum.coded as f64 / sum.plain.max(1) as f64;
        let hours = |s: f64| s / sum.plain.max(1) as f64 * bytes as f64 / 3600.0;
        let row = LanguageClass {
            class: class.name(),
            bytes,
            sampled_bytes: sum.plain,
            ratio,
            ratio_without,
            encode_hours: hours(sum.encode_s),
            decode_hours: hours(sum.decode_s),
        };
        if ratio < ratio_without {
            let saved = (bytes as f64 * (ratio_without - ratio)) as u64;
            out.coded_bytes = out.coded_bytes.saturating_sub(saved);
            out.encode_hours += row.encode_hours;
            out.decode_hours += row.decode_hours;
        }
        out.classes.push(row);
    }
    Ok(out)
}
