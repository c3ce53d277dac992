//! `model`: what a language model is, and what it makes of files on this machine.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::Progress;
use super::bench::read;
use crate::codec::{LanguageModel, load_checkpoint, load_language_model};
use crate::host::{self, DiskFile};

/// A read of a model's file fetches so many bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// What a model is.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    pub id: String,
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

/// A file that is read from anywhere.
struct Reading {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Read for Reading {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Reading {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.file.len()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

fn load(path: &Path) -> Result<(LanguageModel, ModelReport), String> {
    let started = host::thread_cpu_seconds();
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    // What model hubs keep is symbolic links.
    let reading = |path: &Path| -> io::Result<BufReader<Reading>> {
        let file = host::open_file(&host::canonical(path)?)?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, Reading { file, at: 0 }))
    };
    let model = if host::is_directory(path) {
        load_checkpoint(&|name| reading(&path.join(name)))
    } else {
        load_language_model(reading(path).map_err(|e| named(&e))?)
    };
    let model = model.map_err(|e| named(&e))?;
    let facts = model.facts();
    let report = ModelReport {
        id: facts.id.to_string(),
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

/// Loads a model from a GGUF file or the directory of a checkpoint, and says what it is.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn model_show(path: &Path) -> Result<ModelReport, String> {
    load(path).map(|(_, report)| report)
}

/// Loads a model, codes the first bytes of files with it in segments and lanes of these lengths, decodes them, all of it
/// and a lane alone, and compares; or codes them only. Told: bytes done, of how many.
///
/// # Errors
/// A sentence that names the file; that what came back is not what was coded.
///
/// # Blocking
/// Minutes for each MiB.
pub fn model_check(
    path: &Path,
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
    let (model, report) = load(path)?;
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
