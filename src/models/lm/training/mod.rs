//! How a network is trained, whatever it learns: an adapter to a domain (`adapt`), or all it says (`pretrain`).
//!
//! What it is shown is cut into windows, each of which begins as a lane does. Every sixteenth is held out: what it takes is how
//! the network is judged, and the best one is kept. The others are read in an order that a seed chooses, some for each step of
//! AdamW (`optimizer`); what the gradients are of is the bits of all tokens.
//!
//! This is arithmetic in floats, of a library: another machine, number of threads or build trains slightly otherwise. Nothing
//! depends on it being the same: what becomes of it is a file of tensors, and exact from there on.

mod optimizer;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;

use candle_core::{Device, Result as Computed, Tensor, Var};

use super::LoadError;
use super::load::Tensors;
use super::safetensors::{self, Checkpoint};
use optimizer::AdamW;

/// Of so many windows one is held out.
const HELD_PART: usize = 16;
/// Windows that are held out at most: judging by more would take longer than training.
const HELD_MAX: usize = 24;
/// Judged so often without a gain, it is done.
const PATIENCE: u64 = 4;
/// The learning rate rises during this part of all steps.
const WARM_PART: f64 = 0.05;
/// And falls to this part of it until the last.
const COLD: f64 = 0.05;

/// How long and by what steps something is trained.
#[derive(Clone, PartialEq, Debug)]
pub struct Course {
    pub learning_rate: f64,
    /// Tokens of a window, and of all windows of a step.
    pub window: usize,
    pub batch_tokens: usize,
    /// `None`: until every window was read once.
    pub steps: Option<u64>,
    /// Steps from one judgement to the next.
    pub judged_steps: u64,
    pub seed: u64,
}

impl Course {
    /// Feeds all that the outcome depends on to a hash: not how long it is.
    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        let Course { learning_rate, window, batch_tokens, steps: _, judged_steps, seed } = self;
        hasher.update(format!("{learning_rate} {window} {batch_tokens} {seed} {judged_steps}").as_bytes());
    }

    /// What is wrong with it, where windows may have so many tokens.
    pub(super) fn check(&self, windows: std::ops::RangeInclusive<usize>) -> Result<(), TrainError> {
        let refused = |what: String| Err(TrainError::Recipe(what));
        if !windows.contains(&self.window) {
            return refused(format!(
                "windows are of {} to {} tokens, not {}",
                windows.start(),
                windows.end(),
                self.window
            ));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate < 1.0) {
            return refused("its learning rate is between 0 and 1".into());
        }
        if self.judged_steps == 0 || self.steps == Some(0) {
            return refused("it takes one step at least".into());
        }
        Ok(())
    }
}

/// Why nothing came of it.
#[derive(Debug)]
pub enum TrainError {
    /// The model cannot be used.
    Load(LoadError),
    /// The recipe asks for what cannot be.
    Recipe(String),
    /// There is too little to train on and hold some out.
    Text { windows: usize },
    /// What was begun cannot be gone on with.
    Resume(String),
    /// The library that computes gave up.
    Compute(String),
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrainError::Load(e) => e.fmt(f),
            TrainError::Recipe(what) => write!(f, "it cannot be trained so: {what}"),
            TrainError::Text { windows } => write!(f, "the texts have {windows} windows of tokens; it takes two"),
            TrainError::Resume(what) => write!(f, "what was begun cannot be gone on with: {what}"),
            TrainError::Compute(what) => write!(f, "training failed: {what}"),
        }
    }
}

impl std::error::Error for TrainError {}

impl From<LoadError> for TrainError {
    fn from(e: LoadError) -> TrainError {
        TrainError::Load(e)
    }
}

impl From<candle_core::Error> for TrainError {
    fn from(e: candle_core::Error) -> TrainError {
        TrainError::Compute(e.to_string())
    }
}

/// What training did last.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Advance {
    /// A step: tokens that were read, and the bits a byte that they took before it.
    Step { tokens: usize, bits_per_byte: f64 },
    /// What was held out, in bits a byte, and whether no adapter before was as good.
    Judged { bits_per_byte: f64, is_best: bool },
}

/// Tokens that are read together.
#[derive(Clone, PartialEq, Debug)]
pub struct Window {
    pub(super) read: Vec<u32>,
    /// What comes after each.
    pub(super) next: Vec<u32>,
    pub(super) bytes: usize,
    /// Bytes that are coded as they are, beside tokens.
    pub(super) plain: usize,
}

/// What is trained.
pub trait Taught {
    /// Bits that the tokens of a window take, each predicted from what is read before it, and with `learn` a number whose
    /// gradients are those of their sum, in nats.
    fn bits(&mut self, window: &Window, learn: bool) -> Computed<(f64, Option<Tensor>)>;

    /// What is made of variables, in the order of those that are trained: files by their names.
    ///
    /// # Errors
    /// `Compute`.
    fn files(&self, variables: &[Tensor]) -> Result<Vec<(&'static str, Vec<u8>)>, TrainError>;
}

/// A generator of numbers whose order a seed fixes (G. Steele et al., SplitMix64, 2014).
#[derive(Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Near a normal one of variance 1: the sum of twelve.
    pub(super) fn normal(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum();
        (sum - 6.0) as f32
    }

    /// The numbers below `count` in some order.
    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for n in (1..count).rev() {
            order.swap(n, (self.next() % (n as u64 + 1)) as usize);
        }
        order
    }
}

/// What is being trained.
pub struct Trainer<T> {
    pub(super) subject: T,
    course: Course,
    pub(super) optimizer: AdamW,
    pub(super) training: Vec<Window>,
    held: Vec<Window>,
    /// Which order windows have, and how often all were read before.
    order: (u64, Vec<usize>),
    steps: u64,
    /// The step that was judged last, and the first judgement.
    judged: Option<u64>,
    first: f64,
    pub(super) best: Best,
    /// Judgements since the best.
    idle: u64,
    /// Hash of all that decides what comes out.
    begun: String,
}

pub(super) struct Best {
    bits_per_byte: f64,
    step: u64,
    pub tensors: Vec<Tensor>,
}

/// Where training is done.
pub(super) fn device() -> Result<Device, TrainError> {
    #[cfg(feature = "cuda")]
    return Ok(Device::new_cuda(0)?);
    #[cfg(not(feature = "cuda"))]
    Ok(Device::Cpu)
}

/// Windows to train on, and those that are held out.
///
/// # Errors
/// `Text` when there are too few.
pub(super) fn apart(windows: Vec<Window>) -> Result<[Vec<Window>; 2], TrainError> {
    let count = windows.len();
    let (held, training) = parted(windows);
    if held.is_empty() || training.is_empty() { Err(TrainError::Text { windows: count }) } else { Ok([training, held]) }
}

impl<T: Taught> Trainer<T> {
    /// Begins, or goes on from what `kept` gave, with a hash of all that decides what comes out.
    ///
    /// # Errors
    /// `Resume`, `Compute`.
    pub(super) fn begin(
        subject: T,
        variables: Vec<Var>,
        [training, held]: [Vec<Window>; 2],
        course: Course,
        begun: &blake3::Hasher,
        kept: Option<&[u8]>,
    ) -> Result<Trainer<T>, TrainError> {
        let of_step = (course.batch_tokens / course.window).max(1);
        let steps = course.steps.unwrap_or(training.len().div_ceil(of_step) as u64);
        let mut trainer = Trainer {
            subject,
            optimizer: AdamW::new(variables)?,
            order: (0, Chance(course.seed ^ 1).order(training.len())),
            training,
            held,
            steps,
            judged: None,
            first: f64::INFINITY,
            best: Best { bits_per_byte: f64::INFINITY, step: 0, tensors: Vec::new() },
            idle: 0,
            begun: begun.finalize().to_hex().to_string(),
            course,
        };
        if let Some(kept) = kept {
            trainer.go_on(kept)?;
        }
        Ok(trainer)
    }

    /// Steps that were done, and all there are to be.
    pub fn steps(&self) -> (u64, u64) {
        (self.optimizer.steps, self.steps)
    }

    /// Windows to train on, and held out.
    pub fn windows(&self) -> (usize, usize) {
        (self.training.len(), self.held.len())
    }

    /// What was held out, in bits a byte: without an adapter, and with the best.
    pub fn held_out(&self) -> (f64, f64) {
        (self.first, self.best.bits_per_byte)
    }

    /// The step after which the adapter was best.
    pub fn best_step(&self) -> u64 {
        self.best.step
    }

    /// Numbers that are trained.
    pub fn parameters(&self) -> usize {
        self.optimizer.vars.iter().map(|var| var.elem_count()).sum()
    }

    /// Judges, or does a step; `None` when all are done, or nothing was gained for long.
    ///
    /// # Errors
    /// `Compute`.
    ///
    /// # Blocking
    /// Seconds, or minutes.
    pub fn advance(&mut self) -> Result<Option<Advance>, TrainError> {
        let done = self.optimizer.steps;
        let is_last = done >= self.steps;
        if self.judged != Some(done) && (is_last || done.is_multiple_of(self.course.judged_steps)) {
            return self.judge().map(Some);
        }
        if is_last || self.idle >= PATIENCE { Ok(None) } else { self.step().map(Some) }
    }

    /// Judges the adapter as it is by what was held out, unless that was done.
    ///
    /// # Errors
    /// `Compute`.
    pub fn judge(&mut self) -> Result<Advance, TrainError> {
        let (mut bits, mut bytes) = (0.0, 0);
        for window in &self.held {
            bits += self.subject.bits(window, false)?.0 + 8.0 * window.plain as f64;
            bytes += window.bytes;
        }
        let bits_per_byte = bits / bytes.max(1) as f64;
        if self.judged.is_none() {
            self.first = bits_per_byte;
        }
        self.judged = Some(self.optimizer.steps);
        let is_best = bits_per_byte < self.best.bits_per_byte;
        if is_best {
            let tensors =
                self.optimizer.vars.iter().map(|var| var.as_detached_tensor().copy()).collect::<Result<_, _>>()?;
            self.best = Best { bits_per_byte, step: self.optimizer.steps, tensors };
            self.idle = 0;
        } else {
            self.idle += 1;
        }
        Ok(Advance::Judged { bits_per_byte, is_best })
    }

    /// The window that is read at a place in the order of all.
    fn window(&mut self, at: u64) -> usize {
        let count = self.training.len() as u64;
        let round = at / count;
        if self.order.0 != round {
            let mut chance = Chance(self.course.seed ^ (round * 2 + 1));
            self.order = (round, chance.order(self.training.len()));
        }
        self.order.1.get((at % count) as usize).copied().unwrap_or_default()
    }

    fn learning_rate(&self) -> f64 {
        let (step, steps) = (self.optimizer.steps as f64 + 1.0, self.steps as f64);
        let warm = (steps * WARM_PART).max(1.0);
        let fallen = ((step - warm) / (steps - warm).max(1.0)).clamp(0.0, 1.0);
        let cosine = 0.5 + 0.5 * (std::f64::consts::PI * fallen).cos();
        self.course.learning_rate * (step / warm).min(1.0) * (COLD + (1.0 - COLD) * cosine)
    }

    fn step(&mut self) -> Result<Advance, TrainError> {
        let of_step = (self.course.batch_tokens / self.course.window).max(1) as u64;
        let first = self.optimizer.steps * of_step;
        let chosen: Vec<usize> = (first..first + of_step).map(|at| self.window(at)).collect();
        let windows = || chosen.iter().filter_map(|n| self.training.get(*n));
        let tokens: usize = windows().map(|window| window.next.len()).sum();
        let bytes: usize = windows().map(|window| window.bytes).sum();
        let (mut bits, mut gradients) = (0.0, Vec::<Tensor>::new());
        for window in windows() {
            let (of_window, mean) = self.subject.bits(window, true)?;
            bits += of_window + 8.0 * window.plain as f64;
            let Some(mean) = mean else { continue };
            let store = (mean / tokens as f64)?.backward()?;
            for (n, var) in self.optimizer.vars.iter().enumerate() {
                // It remembers how it came about, with all that was computed for it.
                let gradient = match store.get(var) {
                    Some(gradient) => gradient.detach(),
                    None => var.zeros_like()?,
                };
                match gradients.get_mut(n) {
                    Some(sum) => *sum = (&*sum + gradient)?,
                    None => gradients.push(gradient),
                }
            }
        }
        let learning_rate = self.learning_rate();
        self.optimizer.step(&gradients, learning_rate)?;
        Ok(Advance::Step { tokens, bits_per_byte: bits / bytes.max(1) as f64 })
    }

    /// What the best is, as files by their names.
    ///
    /// # Errors
    /// `Compute`.
    pub fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>, TrainError> {
        self.subject.files(&self.best.tensors)
    }

    /// All that training goes on from, to the same outcome as if it had not stopped.
    ///
    /// # Errors
    /// `Compute`.
    pub fn kept(&self) -> Result<Vec<u8>, TrainError> {
        let mut tensors = Vec::new();
        let vars: Vec<Tensor> = self.optimizer.vars.iter().map(Var::as_detached_tensor).collect();
        let parts = [&vars, &self.optimizer.means, &self.optimizer.squares, &self.best.tensors];
        for (part, of_part) in KEPT.iter().zip(parts) {
            for (n, tensor) in of_part.iter().enumerate() {
                tensors.push((format!("{part}.{n}"), "F32", tensor.dims().to_vec(), elements(tensor)?));
            }
        }
        let numbers = [
            ("steps", self.optimizer.steps),
            ("judged", self.judged.map_or(0, |step| step + 1)),
            ("first", self.first.to_bits()),
            ("best", self.best.bits_per_byte.to_bits()),
            ("best_step", self.best.step),
            ("idle", self.idle),
        ];
        let mut notes: BTreeMap<String, String> =
            numbers.into_iter().map(|(name, n)| (name.into(), n.to_string())).collect();
        notes.insert("begun".into(), self.begun.clone());
        Ok(safetensors::file(&notes, &tensors))
    }

    fn go_on(&mut self, kept: &[u8]) -> Result<(), TrainError> {
        let known = |name: &str| Ok(Some(name.to_string()));
        let refused = |what: &str| TrainError::Resume(what.to_string());
        let unusable = |e: LoadError| TrainError::Resume(e.to_string());
        let mut file = Checkpoint::of_file(Cursor::new(kept), "what was kept", &known).map_err(unusable)?;
        if file.note("begun") != Some(self.begun.as_str()) {
            return Err(refused("it was begun with another model, other texts or other settings"));
        }
        let number = |name: &str| file.note(name).and_then(|n| n.parse::<u64>().ok()).ok_or(refused("it is damaged"));
        let judged = number("judged")?.checked_sub(1);
        let (steps, best_step, idle) = (number("steps")?, number("best_step")?, number("idle")?);
        let (first, best) = (f64::from_bits(number("first")?), f64::from_bits(number("best")?));
        let mut parts = Vec::new();
        for part in KEPT {
            let mut of_part = Vec::new();
            for (n, var) in self.optimizer.vars.iter().enumerate() {
                let name = format!("{part}.{n}");
                let columns = var.dims().last().copied().unwrap_or(1).max(1);
                if file.extent(&name) != Some((var.elem_count() / columns, columns)) {
                    // Nothing was judged yet.
                    if part == KEPT[3] && judged.is_none() {
                        continue;
                    }
                    return Err(refused("it is damaged"));
                }
                let mut elements = Vec::with_capacity(var.elem_count());
                let taken = file.rows(&name, &mut |_, row| {
                    elements.extend_from_slice(row);
                    Ok(())
                });
                taken.map_err(unusable)?;
                of_part.push(Tensor::from_vec(elements, var.shape(), var.device())?);
            }
            parts.push(of_part);
        }
        let Ok([vars, means, squares, best_tensors]) = <[Vec<Tensor>; 4]>::try_from(parts) else {
            return Err(refused("it is damaged"));
        };
        for (var, kept) in self.optimizer.vars.iter().zip(&vars) {
            var.set(kept)?;
        }
        (self.optimizer.means, self.optimizer.squares, self.optimizer.steps) = (means, squares, steps);
        (self.judged, self.first, self.idle) = (judged, first, idle);
        self.best = Best { bits_per_byte: best, step: best_step, tensors: best_tensors };
        Ok(())
    }
}

/// Names of what is kept of each variable.
const KEPT: [&str; 4] = ["now", "mean", "square", "best"];

/// Elements of a tensor, in bytes.
pub(super) fn elements(tensor: &Tensor) -> Result<Vec<u8>, TrainError> {
    let mut out = Vec::new();
    tensor.write_bytes(&mut out)?;
    Ok(out)
}

/// What is held out, and the rest.
pub(super) fn parted(windows: Vec<Window>) -> (Vec<Window>, Vec<Window>) {
    // Few windows: the last one.
    let part = HELD_PART.min(windows.len()).max(1);
    let (mut held, mut training) = (Vec::new(), Vec::new());
    for (n, window) in windows.into_iter().enumerate() {
        if n % part == part - 1 { held.push(window) } else { training.push(window) }
    }
    // Those that are too many are not trained on either, so that what is judged stays apart.
    let count = held.len();
    let chosen = (0..count.min(HELD_MAX)).map(|n| n * count / count.min(HELD_MAX));
    let held = chosen.filter_map(|n| held.get(n).cloned()).collect();
    (held, training)
}
