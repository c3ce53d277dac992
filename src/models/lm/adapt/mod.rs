//! Trains an adapter to a domain: what a model says of texts like those it is shown comes to take fewer bits.
//!
//! Texts are cut into tokens as the coder cuts them, and into windows, each of which begins as a lane does. Every sixteenth
//! is held out: what it takes is how the adapter is judged, and the best one is kept. The others are read in an order that a
//! seed chooses, some for each step of AdamW (`optimizer`); what the gradients are of is the bits of all tokens (`network`).
//!
//! This is arithmetic in floats, of a library: another machine, number of threads or build trains a slightly different
//! adapter. Nothing depends on it being the same: what an adapter makes of a model is exact (`adapter`).
//!
//! # Cost
//! Memory: the weights in 32 bits, and about 1 GiB for SmolLM2-135M in windows of 512 tokens. Time: about 95 tokens for each
//! second of a core with AVX-512. Of 154,000 tokens of law, 0.6 MB, that model came to take 10 % fewer bytes for laws that it
//! was not shown, by an adapter of rank 1, 649 KiB, of which a store keeps 163. After 12 steps of 1,024 tokens a learning rate of 0.004 had won 6.9 % of
//! what was held out, one of 0.001 2.7 %.

mod network;
mod optimizer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Cursor, Read, Seek};

use candle_core::{DType, Device, Tensor, Var};

use super::LoadError;
use super::adapter::RANK_MAX;
use super::load::{Open, Opened, Tensors};
use super::safetensors::{self, Checkpoint, MATRICES};
use super::tokens::{Symbol, Tokens};
use network::{Masks, Network, Pair};
use optimizer::AdamW;

/// Longest window, tokens: memory grows with its square.
pub const WINDOW_MAX: usize = 2048;
const WINDOW_MIN: usize = 16;
/// Of so many windows one is held out.
const HELD_PART: usize = 16;
/// Windows that are held out at most: judging by more would take longer than training.
const HELD_MAX: usize = 24;
/// Judged so often without a gain, an adapter is done.
const PATIENCE: u64 = 4;
/// The learning rate rises during this part of all steps.
const WARM_PART: f64 = 0.05;
/// And falls to this part of it until the last.
const COLD: f64 = 0.05;

/// A kind of matrix of each layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Matrix {
    Queries,
    Keys,
    Values,
    Output,
    Gates,
    Ups,
    Down,
}

impl Matrix {
    pub const ALL: [Matrix; 7] =
        [Matrix::Queries, Matrix::Keys, Matrix::Values, Matrix::Output, Matrix::Gates, Matrix::Ups, Matrix::Down];

    /// Its names in checkpoints and in GGUF files.
    fn names(self) -> (&'static str, &'static str) {
        let at = Matrix::ALL.iter().position(|m| *m == self).unwrap_or_default();
        MATRICES[at]
    }

    /// What PEFT calls it: `q_proj`.
    pub fn name(self) -> &'static str {
        let name = self.names().0;
        name.rsplit_once('.').map_or(name, |(_, last)| last)
    }
}

/// How an adapter is trained.
#[derive(Clone, PartialEq, Debug)]
pub struct Recipe {
    /// Width of the products that are added, and how much they count: by alpha / rank.
    pub rank: usize,
    pub alpha: f64,
    /// What they are added to.
    pub matrices: Vec<Matrix>,
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

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            rank: 2,
            alpha: 4.0,
            matrices: Matrix::ALL.to_vec(),
            learning_rate: 4e-3,
            window: 512,
            batch_tokens: 1024,
            steps: None,
            judged_steps: 20,
            seed: 1,
        }
    }
}

/// Why no adapter came of it.
#[derive(Debug)]
pub enum AdaptError {
    /// The model cannot be used.
    Load(LoadError),
    /// The recipe asks for what cannot be.
    Recipe(String),
    /// There is too little text to train on and hold some out.
    Text { windows: usize },
    /// What was begun cannot be gone on with.
    Resume(String),
    /// The library that computes gave up.
    Compute(String),
}

impl fmt::Display for AdaptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdaptError::Load(e) => e.fmt(f),
            AdaptError::Recipe(what) => write!(f, "an adapter cannot be trained so: {what}"),
            AdaptError::Text { windows } => write!(f, "the texts have {windows} windows of tokens; it takes two"),
            AdaptError::Resume(what) => write!(f, "what was begun cannot be gone on with: {what}"),
            AdaptError::Compute(what) => write!(f, "training failed: {what}"),
        }
    }
}

impl std::error::Error for AdaptError {}

impl From<LoadError> for AdaptError {
    fn from(e: LoadError) -> AdaptError {
        AdaptError::Load(e)
    }
}

impl From<candle_core::Error> for AdaptError {
    fn from(e: candle_core::Error) -> AdaptError {
        AdaptError::Compute(e.to_string())
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
struct Window {
    read: Vec<u32>,
    /// What comes after each.
    next: Vec<u32>,
    bytes: usize,
    /// Bytes that are coded as they are, beside tokens.
    plain: usize,
}

impl Window {
    fn of(symbols: &[Symbol], tokens: &Tokens) -> Window {
        let next: Vec<u32> = symbols
            .iter()
            .map(|symbol| match symbol {
                Symbol::Token(token) => *token,
                Symbol::Byte(_) => tokens.start,
            })
            .collect();
        let read = std::iter::once(tokens.start).chain(next.iter().copied()).take(next.len()).collect();
        let plain = symbols.iter().filter(|symbol| matches!(symbol, Symbol::Byte(_))).count();
        let bytes = plain + next.iter().map(|token| tokens.bytes(*token).len()).sum::<usize>();
        Window { read, next, bytes, plain }
    }
}

/// A generator of numbers whose order a seed fixes (G. Steele et al., SplitMix64, 2014).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Near a normal one of variance 1: the sum of twelve.
    fn normal(&mut self) -> f32 {
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

/// An adapter that is being trained.
pub struct Trainer {
    recipe: Recipe,
    network: Network,
    masks: Masks,
    /// What is trained, each of a layer's matrix.
    places: Vec<(usize, Matrix)>,
    optimizer: AdamW,
    training: Vec<Window>,
    held: Vec<Window>,
    /// Which order windows have, and how often all were read before.
    order: (u64, Vec<usize>),
    steps: u64,
    /// The step that was judged last, and the first judgement.
    judged: Option<u64>,
    first: f64,
    best: Best,
    /// Judgements since the best.
    idle: u64,
    /// Hash of all that decides what comes out.
    begun: String,
}

struct Best {
    bits_per_byte: f64,
    step: u64,
    tensors: Vec<Tensor>,
}

/// Where training is done.
fn device() -> Result<Device, AdaptError> {
    #[cfg(feature = "cuda")]
    return Ok(Device::new_cuda(0)?);
    #[cfg(not(feature = "cuda"))]
    Ok(Device::Cpu)
}

impl Trainer {
    /// Begins with a model of a GGUF file, or goes on from what `kept` gave.
    ///
    /// # Errors
    /// Says what is wrong with the file, the recipe, the texts or what was kept.
    ///
    /// # Blocking
    /// Reads the whole model and cuts all texts into tokens: seconds.
    pub fn of_gguf<R: Read + Seek>(
        file: R,
        texts: &[Vec<u8>],
        recipe: Recipe,
        kept: Option<&[u8]>,
    ) -> Result<Trainer, AdaptError> {
        Trainer::new(Opened::gguf(file)?, texts, recipe, kept)
    }

    /// As `of_gguf`, with a model of a checkpoint.
    pub fn of_checkpoint<R: Read + Seek>(
        open: Open<'_, R>,
        texts: &[Vec<u8>],
        recipe: Recipe,
        kept: Option<&[u8]>,
    ) -> Result<Trainer, AdaptError> {
        Trainer::new(Opened::checkpoint(open)?, texts, recipe, kept)
    }

    fn new(
        opened: Opened<impl Tensors>,
        texts: &[Vec<u8>],
        recipe: Recipe,
        kept: Option<&[u8]>,
    ) -> Result<Trainer, AdaptError> {
        let Opened { mut tensors, plan, tokens } = opened;
        let window_max = WINDOW_MAX.min(plan.shape.context);
        let refused = |what: String| Err(AdaptError::Recipe(what));
        if !(1..=RANK_MAX).contains(&recipe.rank) {
            return refused(format!("its rank is {}; known are 1 to {RANK_MAX}", recipe.rank));
        }
        if !(WINDOW_MIN..=window_max).contains(&recipe.window) {
            return refused(format!("windows are of {WINDOW_MIN} to {window_max} tokens, not {}", recipe.window));
        }
        if !(recipe.learning_rate > 0.0 && recipe.learning_rate < 1.0 && recipe.alpha > 0.0 && recipe.alpha < 1e6) {
            return refused("its learning rate is between 0 and 1, and its alpha above 0".into());
        }
        if recipe.matrices.is_empty() || recipe.judged_steps == 0 || recipe.steps == Some(0) {
            return refused("it changes one matrix at least, in one step at least".into());
        }
        let mut hasher = blake3::Hasher::new();
        tokens.hash(&mut hasher);
        let windows = windows(texts, &tokens, recipe.window);
        for window in &windows {
            hasher.update(bytemuck::cast_slice(&window.next));
        }
        let Recipe { rank, alpha, matrices, learning_rate, window, batch_tokens, seed, steps: _, judged_steps } =
            &recipe;
        let numbers =
            format!("{rank} {alpha} {matrices:?} {learning_rate} {window} {batch_tokens} {seed} {judged_steps}");
        hasher.update(numbers.as_bytes());
        let count = windows.len();
        let (held, training) = parted(windows);
        if held.is_empty() || training.is_empty() {
            return Err(AdaptError::Text { windows: count });
        }

        let device = device()?;
        let mut chance = Chance(recipe.seed);
        let (mut places, mut vars) = (Vec::new(), Vec::new());
        let rank = recipe.rank;
        let mut begin = |layer: usize, which: Matrix, rows: usize, columns: usize| {
            if !recipe.matrices.contains(&which) {
                return Ok(None);
            }
            let deviation = 1.0 / (columns as f32).sqrt();
            let noise: Vec<f32> = (0..rank * columns).map(|_| chance.normal() * deviation).collect();
            let wide = Var::from_vec(noise, (rank, columns), &device)?;
            let tall = Var::zeros((rows, rank), DType::F32, &device)?;
            places.push((layer, which));
            vars.extend([wide.clone(), tall.clone()]);
            Ok(Some(Pair { wide, tall }))
        };
        let scale = recipe.alpha / rank as f64;
        let network = Network::new(&mut tensors, &plan, &device, scale, &mut hasher, &mut begin)?;
        let of_step = (recipe.batch_tokens / recipe.window).max(1);
        let steps = recipe.steps.unwrap_or(training.len().div_ceil(of_step) as u64);
        let mut trainer = Trainer {
            network,
            masks: Masks::default(),
            places,
            optimizer: AdamW::new(vars)?,
            order: (0, Chance(recipe.seed ^ 1).order(training.len())),
            training,
            held,
            steps,
            judged: None,
            first: f64::INFINITY,
            best: Best { bits_per_byte: f64::INFINITY, step: 0, tensors: Vec::new() },
            idle: 0,
            begun: hasher.finalize().to_hex().to_string(),
            recipe,
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
    pub fn advance(&mut self) -> Result<Option<Advance>, AdaptError> {
        let done = self.optimizer.steps;
        let is_last = done >= self.steps;
        if self.judged != Some(done) && (is_last || done.is_multiple_of(self.recipe.judged_steps)) {
            return self.judge().map(Some);
        }
        if is_last || self.idle >= PATIENCE { Ok(None) } else { self.step().map(Some) }
    }

    /// Judges the adapter as it is by what was held out, unless that was done.
    ///
    /// # Errors
    /// `Compute`.
    pub fn judge(&mut self) -> Result<Advance, AdaptError> {
        let (mut bits, mut bytes) = (0.0, 0);
        for window in &self.held {
            bits +=
                self.network.bits(&window.read, &window.next, false, &mut self.masks)?.0 + 8.0 * window.plain as f64;
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
            let mut chance = Chance(self.recipe.seed ^ (round * 2 + 1));
            self.order = (round, chance.order(self.training.len()));
        }
        self.order.1.get((at % count) as usize).copied().unwrap_or_default()
    }

    fn learning_rate(&self) -> f64 {
        let (step, steps) = (self.optimizer.steps as f64 + 1.0, self.steps as f64);
        let warm = (steps * WARM_PART).max(1.0);
        let fallen = ((step - warm) / (steps - warm).max(1.0)).clamp(0.0, 1.0);
        let cosine = 0.5 + 0.5 * (std::f64::consts::PI * fallen).cos();
        self.recipe.learning_rate * (step / warm).min(1.0) * (COLD + (1.0 - COLD) * cosine)
    }

    fn step(&mut self) -> Result<Advance, AdaptError> {
        let of_step = (self.recipe.batch_tokens / self.recipe.window).max(1) as u64;
        let first = self.optimizer.steps * of_step;
        let chosen: Vec<usize> = (first..first + of_step).map(|at| self.window(at)).collect();
        let windows = || chosen.iter().filter_map(|n| self.training.get(*n));
        let tokens: usize = windows().map(|window| window.next.len()).sum();
        let bytes: usize = windows().map(|window| window.bytes).sum();
        let (mut bits, mut gradients) = (0.0, Vec::<Tensor>::new());
        for window in windows() {
            let (of_window, mean) = self.network.bits(&window.read, &window.next, true, &mut self.masks)?;
            bits += of_window + 8.0 * window.plain as f64;
            let Some(mean) = mean else { continue };
            let store = (mean / tokens as f64)?.backward()?;
            for (n, var) in self.optimizer.vars.iter().enumerate() {
                let gradient = match store.get(var) {
                    Some(gradient) => gradient.clone(),
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

    /// The best adapter, as PEFT reads it: `adapter_config.json` and `adapter_model.safetensors`. Its elements have 16 bits, of
    /// which most are zeros (`rounded`).
    ///
    /// # Errors
    /// `Compute`.
    pub fn adapter(&self) -> Result<[(&'static str, Vec<u8>); 2], AdaptError> {
        let names: Vec<&str> =
            Matrix::ALL.into_iter().filter(|m| self.recipe.matrices.contains(m)).map(Matrix::name).collect();
        let config = serde_json::json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": null, "inference_mode": true,
            "r": self.recipe.rank, "lora_alpha": self.recipe.alpha, "lora_dropout": 0.0, "target_modules": names,
            "bias": "none", "use_rslora": false, "use_dora": false, "fan_in_fan_out": false, "init_lora_weights": true,
            "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {},
        });
        let mut tensors = Vec::new();
        let (pairs, _) = self.best.tensors.as_chunks::<2>();
        for ((layer, which), pair) in self.places.iter().zip(pairs) {
            for (half, tensor) in ["lora_A", "lora_B"].into_iter().zip(pair) {
                let name = format!("base_model.model.model.layers.{layer}.{}.{half}.weight", which.names().0);
                tensors.push((name, "F16", tensor.dims().to_vec(), elements(&rounded(tensor)?.to_dtype(DType::F16)?)?));
            }
        }
        let notes = [("format".to_string(), "pt".to_string())].into();
        let config = serde_json::to_vec_pretty(&config).map_err(|e| AdaptError::Compute(e.to_string()))?;
        Ok([(super::adapter::CONFIG, config), (super::adapter::TENSORS, safetensors::file(&notes, &tensors))])
    }

    /// All that training goes on from, to the same outcome as if it had not stopped.
    ///
    /// # Errors
    /// `Compute`.
    pub fn kept(&self) -> Result<Vec<u8>, AdaptError> {
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

    fn go_on(&mut self, kept: &[u8]) -> Result<(), AdaptError> {
        let known = |name: &str| Ok(Some(name.to_string()));
        let refused = |what: &str| AdaptError::Resume(what.to_string());
        let unusable = |e: LoadError| AdaptError::Resume(e.to_string());
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
                if file.extent(&name) != Some(var.dims2()?) {
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
                of_part.push(Tensor::from_vec(elements, var.dims2()?, var.device())?);
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

/// A tensor with its elements rounded to multiples of the power of two that is nearest to half of their root mean square: about
/// three bits of each are left, which a store keeps in a quarter of the space. What is lost is a fiftieth part of what they add,
/// in no direction.
fn rounded(tensor: &Tensor) -> Result<Tensor, AdaptError> {
    let mean = f64::from(tensor.sqr()?.mean_all()?.to_scalar::<f32>()?);
    if mean.is_nan() || mean <= 0.0 {
        return Ok(tensor.clone());
    }
    let step = (mean.sqrt() / 2.0).log2().round().exp2();
    Ok(((tensor / step)?.round()? * step)?)
}

/// Elements of a tensor, in bytes.
fn elements(tensor: &Tensor) -> Result<Vec<u8>, AdaptError> {
    let mut out = Vec::new();
    tensor.write_bytes(&mut out)?;
    Ok(out)
}

/// Cuts texts into windows. The last of each text is left out, unless it is the only one: it would be a short one.
fn windows(texts: &[Vec<u8>], tokens: &Tokens, window: usize) -> Vec<Window> {
    let mut out = Vec::new();
    for text in texts {
        let symbols = tokens.cut(text);
        let whole = symbols.chunks(window).filter(|part| part.len() == window.min(symbols.len()));
        out.extend(whole.map(|symbols| Window::of(symbols, tokens)));
    }
    out
}

/// What is held out, and the rest.
fn parted(windows: Vec<Window>) -> (Vec<Window>, Vec<Window>) {
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
