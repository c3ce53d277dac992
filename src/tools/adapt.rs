//! `model adapt`: trains an adapter to texts, and writes it down.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::bench::read;
use crate::codec::{AdaptedMatrix, Advance, Recipe, Trainer};
use crate::host::{self, Disk, FileReader, Met, OpenMode, RealDisk};

/// Texts that are taken at most, bytes: more than a model of any size is trained on in a week here.
const TEXT_BYTES_MAX: u64 = 256 << 20;
/// A read of a model's file fetches so many bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// What a run goes on from, beside the adapter's own files; it is removed when all is done.
const KEPT: &str = "adapter_training.safetensors";
/// And where it is written before it takes that name.
const NEW: &str = "adapter_new";

/// How an adapter is trained: as `Recipe`, and how long.
#[derive(Clone, Debug)]
pub struct AdaptOptions {
    pub rank: usize,
    pub alpha: f64,
    /// `q`, `k`, `v`, `o`, `gate`, `up`, `down`.
    pub matrices: Vec<String>,
    pub learning_rate: f64,
    pub window: usize,
    pub batch_tokens: usize,
    pub steps: Option<u64>,
    pub minutes: Option<f64>,
    pub judged_steps: u64,
    pub seed: u64,
    /// Goes on where a run into the same directory stopped, if one did.
    pub resume: bool,
}

/// What is told while it runs.
#[derive(Clone, Copy, Debug)]
pub enum News {
    Step { step: u64, steps: u64, bits_per_byte: f64, tokens_s: f64 },
    Judged { step: u64, bits_per_byte: f64, first: f64, is_best: bool },
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct AdaptReport {
    pub parameters: usize,
    pub adapter_bytes: u64,
    pub training_windows: usize,
    pub held_windows: usize,
    /// Steps done, and the one after which the adapter was best.
    pub steps: u64,
    pub best_step: u64,
    /// Of what was held out, without and with the adapter, in floats.
    pub first_bits_per_byte: f64,
    pub bits_per_byte: f64,
    /// Of this run, by the clock.
    pub tokens: u64,
    pub tokens_s: f64,
    /// Not stopped by the clock.
    pub is_done: bool,
}

/// What model hubs keep is symbolic links.
fn reading(path: &Path) -> io::Result<BufReader<FileReader>> {
    Ok(BufReader::with_capacity(BUFFER_BYTES, FileReader::new(host::open_file(&host::canonical(path)?)?)))
}

/// Files below paths, in a fixed order.
fn texts(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let (mut files, mut unread) = (Vec::new(), None);
    for path in paths {
        let walked = host::canonical(path).and_then(|path| {
            host::walk(&path, &mut |met| match met {
                Met::File(file) => files.push(file.path),
                Met::Unreadable(path, e) => unread = Some(format!("cannot read {}: {e}", path.display())),
                Met::Directory | Met::Symlink | Met::Special | Met::HardLink => {}
            })
        });
        walked.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    }
    if let Some(unread) = unread {
        return Err(unread);
    }
    let (mut texts, mut left) = (Vec::new(), TEXT_BYTES_MAX);
    for file in files {
        let text = read(&file, left).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        left -= text.len() as u64;
        texts.push(text);
    }
    Ok(texts)
}

/// Writes a file whole, under its name or not at all.
///
/// # Durability
/// The file and its name are, on return.
fn write(disk: &Arc<RealDisk>, name: &str, bytes: &[u8]) -> Result<(), String> {
    let written = disk.open(NEW, OpenMode::Create).and_then(|file| {
        file.set_len(0)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        disk.rename(NEW, name)?;
        disk.sync_dir("")
    });
    written.map_err(|e| format!("cannot write {name}: {e}"))
}

/// Trains an adapter of a model to the texts in files and directories, and writes it to a directory as PEFT does. What it can
/// be gone on from is written there at every judgement, and removed at the end.
///
/// # Errors
/// A sentence that says what is wrong with the model, the texts, the options or the directory.
///
/// # Blocking
/// As long as it takes: three times the reading of all texts, if not told otherwise.
pub fn model_adapt(
    model: &Path,
    data: &[PathBuf],
    out: &Path,
    options: &AdaptOptions,
    tell: &mut dyn FnMut(News),
) -> Result<AdaptReport, String> {
    let matrices = AdaptedMatrix::ALL.into_iter();
    let recipe = Recipe {
        rank: options.rank,
        alpha: options.alpha,
        matrices: matrices.filter(|m| options.matrices.iter().any(|name| m.name() == format!("{name}_proj"))).collect(),
        learning_rate: options.learning_rate,
        window: options.window,
        batch_tokens: options.batch_tokens,
        steps: options.steps,
        judged_steps: options.judged_steps,
        seed: options.seed,
    };
    let texts = texts(data)?;
    let disk = RealDisk::open(out, true).map_err(|e| format!("cannot use {}: {e}", out.display()))?;
    let kept = match read(&out.join(KEPT), u64::MAX) {
        Ok(kept) if options.resume => Some(kept),
        _ => None,
    };
    let trainer = if host::is_directory(model) {
        Trainer::of_checkpoint(&|name| reading(&model.join(name)), &texts, recipe, kept.as_deref())
    } else {
        let file = reading(model).map_err(|e| format!("{}: {e}", model.display()))?;
        Trainer::of_gguf(file, &texts, recipe, kept.as_deref())
    };
    let mut trainer = trainer.map_err(|e| format!("{}: {e}", model.display()))?;
    drop((texts, kept));
    let started_ms = host::monotonic_ms();
    let seconds = |from: u64| (host::monotonic_ms() - from) as f64 / 1000.0;
    let (mut tokens, mut spent_s, mut is_done) = (0u64, 0.0, false);
    loop {
        if options.minutes.is_some_and(|minutes| seconds(started_ms) > minutes * 60.0) {
            break;
        }
        let before_ms = host::monotonic_ms();
        let Some(advance) = trainer.advance().map_err(|e| e.to_string())? else {
            is_done = true;
            break;
        };
        let (step, steps) = trainer.steps();
        match advance {
            Advance::Step { tokens: read, bits_per_byte } => {
                tokens += read as u64;
                spent_s += seconds(before_ms);
                tell(News::Step { step, steps, bits_per_byte, tokens_s: tokens as f64 / spent_s.max(1e-3) });
            }
            Advance::Judged { bits_per_byte, is_best } => {
                tell(News::Judged { step, bits_per_byte, first: trainer.held_out().0, is_best });
                write(&disk, KEPT, &trainer.kept().map_err(|e| e.to_string())?)?;
            }
        }
    }
    if !is_done {
        let (step, _) = trainer.steps();
        if let Advance::Judged { bits_per_byte, is_best } = trainer.judge().map_err(|e| e.to_string())? {
            tell(News::Judged { step, bits_per_byte, first: trainer.held_out().0, is_best });
        }
        write(&disk, KEPT, &trainer.kept().map_err(|e| e.to_string())?)?;
    }
    let mut adapter_bytes = 0;
    for (name, bytes) in trainer.adapter().map_err(|e| e.to_string())? {
        adapter_bytes += bytes.len() as u64;
        write(&disk, name, &bytes)?;
    }
    if is_done {
        disk.remove(KEPT).map_err(|e| format!("cannot remove {KEPT}: {e}"))?;
    }
    let ((training_windows, held_windows), (first, best)) = (trainer.windows(), trainer.held_out());
    Ok(AdaptReport {
        parameters: trainer.parameters(),
        adapter_bytes,
        training_windows,
        held_windows,
        steps: trainer.steps().0,
        best_step: trainer.best_step(),
        first_bits_per_byte: first,
        bits_per_byte: best,
        tokens,
        tokens_s: tokens as f64 / spent_s.max(1e-3),
        is_done,
    })
}
