//! `model adapt` and `model pretrain`: train an adapter to texts, or a model of images or bytes, and write it down.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::bench::read;
use crate::codec::{
    AdaptedMatrix, AdapterTrainer, Advance, Course, ModelKind, Pretrainer, Pretraining, Recipe, Taught, TrainError,
    Trainer,
};
use crate::host::{self, Disk, FileReader, Met, OpenMode, RealDisk};
use crate::volume::learned_of;

/// Texts that are taken at most, bytes: more than a model of any size is trained on in a week here.
const TEXT_BYTES_MAX: u64 = 256 << 20;
/// A read of a model's file fetches so many bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// What a run goes on from, beside the files that it makes; it is removed when all is done.
const KEPT_OF_ADAPTER: &str = "adapter_training.safetensors";
const KEPT_OF_MODEL: &str = "model_training.state";
/// And where it is written before it takes that name.
const NEW: &str = "training_new";

/// How something is trained: as `Course`, and how long.
#[derive(Clone, Debug)]
pub struct TrainOptions {
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

impl TrainOptions {
    fn course(&self) -> Course {
        let TrainOptions { learning_rate, window, batch_tokens, steps, judged_steps, seed, .. } = *self;
        Course { learning_rate, window, batch_tokens, steps, judged_steps, seed }
    }
}

/// How an adapter is trained: as `Recipe`.
#[derive(Clone, Debug)]
pub struct AdaptOptions {
    pub rank: usize,
    pub alpha: f64,
    /// `q`, `k`, `v`, `o`, `gate`, `up`, `down`.
    pub matrices: Vec<String>,
    pub training: TrainOptions,
}

/// How a model is trained from nothing: as `Pretraining`.
#[derive(Clone, Debug)]
pub struct PretrainOptions {
    /// A checkpoint that it begins with, and whose layers, width and heads it has.
    pub from: Option<PathBuf>,
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub training: TrainOptions,
}

/// Names of the networks that are trained from nothing.
pub const PRETRAINED: [&str; 2] = ["igpt", "bgpt"];

/// What is told while it runs.
#[derive(Clone, Copy, Debug)]
pub enum News {
    Step { step: u64, steps: u64, bits_per_byte: f64, tokens_s: f64 },
    Judged { step: u64, bits_per_byte: f64, first: f64, is_best: bool },
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct TrainReport {
    pub parameters: usize,
    /// What was made, bytes of its files.
    pub bytes: u64,
    pub training_windows: usize,
    pub held_windows: usize,
    /// Steps done, and the one after which it was best.
    pub steps: u64,
    pub best_step: u64,
    /// Of what was held out, before and with what was learned, in floats.
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

/// What a run into a directory goes on from.
fn kept(out: &Path, name: &str, options: &TrainOptions) -> Option<Vec<u8>> {
    if options.resume { read(&out.join(name), u64::MAX).ok() } else { None }
}

fn directory(out: &Path) -> Result<Arc<RealDisk>, String> {
    RealDisk::open(out, true).map_err(|e| format!("cannot use {}: {e}", out.display()))
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
) -> Result<TrainReport, String> {
    let matrices = AdaptedMatrix::ALL.into_iter();
    let recipe = Recipe {
        rank: options.rank,
        alpha: options.alpha,
        matrices: matrices.filter(|m| options.matrices.iter().any(|name| m.name() == format!("{name}_proj"))).collect(),
        course: options.training.course(),
    };
    let (texts, disk) = (texts(data)?, directory(out)?);
    let kept = kept(out, KEPT_OF_ADAPTER, &options.training);
    let trainer = if host::is_directory(model) {
        AdapterTrainer::of_checkpoint(&|name| reading(&model.join(name)), &texts, recipe, kept.as_deref())
    } else {
        let file = reading(model).map_err(|e| format!("{}: {e}", model.display()))?;
        AdapterTrainer::of_gguf(file, &texts, recipe, kept.as_deref())
    };
    let trainer = trainer.map_err(|e| format!("{}: {e}", model.display()))?;
    drop((texts, kept));
    run(trainer, &disk, KEPT_OF_ADAPTER, options.training.minutes, tell)
}

/// Trains a network of `PRETRAINED`, from nothing or from a checkpoint, on files and directories, and writes it to a directory as `model add` takes it. What
/// it can be gone on from is written there at every judgement, and removed at the end.
///
/// # Errors
/// A sentence that says what is wrong with the data, the options or the directory.
///
/// # Blocking
/// As long as it takes: three times the reading of all data, if not told otherwise.
pub fn model_pretrain(
    network: &str,
    data: &[PathBuf],
    out: &Path,
    options: &PretrainOptions,
    tell: &mut dyn FnMut(News),
) -> Result<TrainReport, String> {
    let kind = match PRETRAINED.iter().position(|name| *name == network) {
        Some(0) => ModelKind::Image,
        Some(_) => ModelKind::Bytes,
        None => return Err(format!("there is no network {network}; known are {}", PRETRAINED.join(", "))),
    };
    let PretrainOptions { from, layers, width, heads, training } = options;
    let learned = from.as_deref().map(learned_of).transpose()?;
    let recipe = Pretraining { kind, layers: *layers, width: *width, heads: *heads, course: training.course() };
    let (data, disk) = (texts(data)?, directory(out)?);
    let kept = kept(out, KEPT_OF_MODEL, training);
    let trainer =
        Pretrainer::pretraining(&data, recipe, learned.as_ref(), kept.as_deref()).map_err(|e| e.to_string())?;
    drop((data, learned, kept));
    run(trainer, &disk, KEPT_OF_MODEL, training.minutes, tell)
}

/// Does all steps, or those of so many minutes, and writes down what comes of it.
fn run(
    mut trainer: Trainer<impl Taught>,
    disk: &Arc<RealDisk>,
    kept: &str,
    minutes: Option<f64>,
    tell: &mut dyn FnMut(News),
) -> Result<TrainReport, String> {
    let failed = |e: TrainError| e.to_string();
    let started_ms = host::monotonic_ms();
    let seconds = |from: u64| (host::monotonic_ms() - from) as f64 / 1000.0;
    let (mut tokens, mut spent_s, mut is_done) = (0u64, 0.0, false);
    loop {
        if minutes.is_some_and(|minutes| seconds(started_ms) > minutes * 60.0) {
            break;
        }
        let before_ms = host::monotonic_ms();
        let Some(advance) = trainer.advance().map_err(failed)? else {
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
                write(disk, kept, &trainer.kept().map_err(failed)?)?;
            }
        }
    }
    if !is_done {
        let (step, _) = trainer.steps();
        if let Advance::Judged { bits_per_byte, is_best } = trainer.judge().map_err(failed)? {
            tell(News::Judged { step, bits_per_byte, first: trainer.held_out().0, is_best });
        }
        write(disk, kept, &trainer.kept().map_err(failed)?)?;
    }
    let mut made_bytes = 0;
    for (name, bytes) in trainer.files().map_err(failed)? {
        made_bytes += bytes.len() as u64;
        write(disk, name, &bytes)?;
    }
    if is_done {
        disk.remove(kept).map_err(|e| format!("cannot remove {kept}: {e}"))?;
    }
    let ((training_windows, held_windows), (first, best)) = (trainer.windows(), trainer.held_out());
    Ok(TrainReport {
        parameters: trainer.parameters(),
        bytes: made_bytes,
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
