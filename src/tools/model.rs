//! `model`: what a language model is, and what it makes of files on this machine.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::Progress;
use super::bench::read;
use crate::base::ModelId;
use crate::codec::LanguageModel;
use crate::host::{self, Disk, RealDisk};
use crate::store;
use crate::volume::{LanguageReport, language_reports, load_brought};

/// What a model is.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    pub id: String,
    /// What it is a model of: `text`, `image` or `bytes`.
    pub kind: &'static str,
    pub layers: usize,
    pub width: usize,
    pub vocabulary: usize,
    pub context_tokens: usize,
    /// Memory of its weights.
    pub weights_bytes: u64,
    /// Memory of a lane that has read 1,024 tokens.
    pub lane_memory_bytes: u64,
    /// Instructions that are used here; they do not change what comes out.
    pub instructions: &'static str,
    pub load_s: f64,
}

/// What a model made of the beginning of a file.
#[derive(Clone, Debug, Serialize)]
pub struct ModelCheck {
    pub name: String,
    pub plain_bytes: u64,
    /// With all that a payload says of its lanes.
    pub coded_bytes: u64,
    pub bits_per_byte: f64,
    pub tokens: u64,
    /// Of one core, by processor time.
    pub encode_tokens_s: f64,
    pub decode_tokens_s: f64,
}

/// Language models of a store.
///
/// # Errors
/// When they cannot be listed.
pub fn model_list(disk: &dyn Disk) -> Result<Vec<LanguageReport>, String> {
    language_reports(disk).map_err(|e| e.to_string())
}

/// Holds the files of language models of a store against what came: a sentence for each that is damaged. Without `only`, of
/// all that it has. Told: bytes of a model read, of how many.
///
/// # Errors
/// When they cannot be listed.
///
/// # Blocking
/// Reads all of them.
pub fn model_verify(disk: &dyn Disk, only: Option<ModelId>, progress: Progress<'_>) -> Result<Vec<String>, String> {
    let ids = match only {
        Some(id) => vec![id],
        None => store::language_names(disk).map_err(|e| e.to_string())?,
    };
    let mut wrong = Vec::new();
    for id in ids {
        wrong.extend(store::verify_language(disk, id, progress).unwrap_or_else(|e| vec![e.to_string()]));
    }
    Ok(wrong)
}

/// Copies the files of a language model of a store to a directory. Told: bytes copied, of how many.
///
/// # Errors
/// When there is no such model, it is damaged, or a file of that name is there.
pub fn model_export(disk: &dyn Disk, id: ModelId, to: &Path, progress: Progress<'_>) -> Result<(), String> {
    if !store::language_names(disk).map_err(|e| e.to_string())?.contains(&id) {
        return Err(format!("the store has no language model {id}"));
    }
    let target = RealDisk::open(to, true).map_err(|e| format!("{}: {e}", to.display()))?;
    store::export_language(disk, id, &*target, progress).map_err(|e| format!("{}: {e}", to.display()))
}

fn load(path: &Path, adapter: Option<&Path>) -> Result<(LanguageModel, ModelReport), String> {
    let started = host::thread_cpu_seconds();
    let model = load_brought(path, adapter)?;
    let facts = model.facts();
    let report = ModelReport {
        id: facts.id.to_string(),
        kind: facts.kind.name(),
        layers: facts.layers,
        width: facts.width,
        vocabulary: facts.vocabulary,
        context_tokens: facts.context,
        weights_bytes: facts.bytes,
        lane_memory_bytes: facts.lane_bytes,
        instructions: facts.path,
        load_s: host::thread_cpu_seconds() - started,
    };
    Ok((model, report))
}

/// Loads a model that somebody brings, with an adapter from a directory, and says what it is.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn model_show(path: &Path, adapter: Option<&Path>) -> Result<ModelReport, String> {
    load(path, adapter).map(|(_, report)| report)
}

/// Loads a model, codes the first bytes of files with it in segments and lanes of these lengths, decodes them, all of it
/// and a lane alone, and compares; or codes them only. Told: bytes done, of how many.
///
/// # Errors
/// A sentence that names the file; that what came back is not what was coded.
///
/// # Blocking
/// Minutes for each MiB.
#[allow(clippy::too_many_arguments)]
pub fn model_check(
    path: &Path,
    adapter: Option<&Path>,
    files: &[&Path],
    bytes_max: u64,
    segment_bytes: usize,
    lane_bytes: usize,
    sizes_only: bool,
    progress: Progress<'_>,
) -> Result<(ModelReport, Vec<ModelCheck>), String> {
    let mut texts = Vec::new();
    for path in files {
        let text = read(path, bytes_max).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        texts.push((path.display().to_string(), text));
    }
    let (model, report) = load(path, adapter)?;
    let total: usize = texts.iter().map(|(_, text)| text.len()).sum();
    let never = AtomicBool::new(false);
    let mut done = 0;
    let mut checks = Vec::new();
    for (name, text) in texts {
        let (mut coded_bytes, mut tokens, mut encode_s, mut decode_s) = (0, 0, 0.0, 0.0);
        for raw in text.chunks(segment_bytes) {
            progress(done, total as u64);
            tokens += model.tokens(raw);
            let started = host::thread_cpu_seconds();
            let payload = model.encode(raw, lane_bytes, raw.len(), &never);
            let coded = host::thread_cpu_seconds();
            encode_s += coded - started;
            // What does not become smaller is not coded with a model.
            coded_bytes += payload.as_ref().map_or(raw.len(), Vec::len) as u64;
            if let Some(payload) = payload.filter(|_| !sizes_only) {
                let back = model.decode(&payload, raw.len(), &never).map_err(|e| format!("{name}: {e}"))?;
                decode_s += host::thread_cpu_seconds() - coded;
                let last = raw.chunks(lane_bytes).enumerate().next_back();
                let alone = last.map(|(n, lane)| {
                    model.decode_lanes(&payload, raw.len(), n..n + 1, &never).is_ok_and(|alone| alone == lane)
                });
                if back != raw || alone == Some(false) {
                    return Err(format!("{name}: what was decoded is not what was coded"));
                }
            }
            done += raw.len() as u64;
        }
        checks.push(ModelCheck {
            name,
            plain_bytes: text.len() as u64,
            coded_bytes,
            bits_per_byte: coded_bytes as f64 * 8.0 / text.len().max(1) as f64,
            tokens,
            encode_tokens_s: tokens as f64 / encode_s.max(1e-9),
            decode_tokens_s: if decode_s > 0.0 { tokens as f64 / decode_s } else { 0.0 },
        });
    }
    Ok((report, checks))
}
