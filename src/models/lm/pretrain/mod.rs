//! Trains a model of images or of bytes from nothing, or from a checkpoint (`training`): an iGPT of grey values or a bGPT of patches, in
//! the layouts that `gpt` reads, which say all there is to know of their architecture.
//!
//! A window is what a lane is read as: a beginning, then bytes in their order. An iGPT reads one grey value after the other; a bGPT
//! reads patches, each as the sum of what its bytes are at their places, and then the bytes of the next one from what it made of those.
//! Weights begin as GPT-2's do (A. Radford et al., 2019): small and normal, those that add to the state smaller the more layers
//! there are. Those of a checkpoint begin as they are there; an iGPT that knows other tokens than grey values, as the published ones do,
//! gets a new embedding and a new head, and keeps its layers and positions.
//!
//! # Cost
//! Memory: four times the weights in 32 bits, and what a window leaves for the way back, which grows with the square of its tokens
//! (of its patches, for a bGPT) in each layer.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Cursor;

use candle_core::{D, DType, Device, Result, Tensor, Var, bail};
use candle_nn::ops::{log_softmax, sigmoid, softmax};

use super::ModelKind;
use super::gpt::{
    HEAD_OF_BYTES, HEAD_OF_IMAGES, Learned, OF_BYTES, OF_IMAGES, OF_PATCHES, PATCH_EMBEDDING, load_tensors,
};
use super::lanes::channels_of;
use super::patches::{BEGINNINGS, CLASSES, PADDING};
use super::safetensors;
use super::training::{Chance, Course, Taught, TrainError, Trainer, Window, apart, device, elements};

/// Bytes of a patch, as published.
const PATCH: usize = 16;
/// Shortest and longest window, bytes: what reads patches has sixteen positions at least, and a published bGPT reads 8,160 bytes.
const WINDOW_MIN: usize = 256;
const WINDOW_MAX: usize = 8160;
const DEVIATION: f32 = 0.02;
const EPSILON: f64 = 1e-5;
/// What an iGPT reads before an image.
const START: u32 = 256;
const BYTES: usize = 256;
/// Of so many layers that read patches there is one that reads their bytes, as in what is published.
const LAYERS_OF_BYTES: usize = 4;

/// What is trained, and how.
#[derive(Clone, PartialEq, Debug)]
pub struct Pretraining {
    /// `Image` or `Bytes`.
    pub kind: ModelKind,
    /// Those of a checkpoint that it begins with, if there is one, and so are the next two.
    pub layers: usize,
    /// Elements of the state, and heads that they are shared by.
    pub width: usize,
    pub heads: usize,
    /// Its tokens are bytes.
    pub course: Course,
}

impl Pretraining {
    pub fn new(kind: ModelKind) -> Pretraining {
        let course =
            Course { learning_rate: 2e-3, window: 1024, batch_tokens: 4096, steps: None, judged_steps: 50, seed: 1 };
        Pretraining { kind, layers: 4, width: 128, heads: 2, course }
    }

    /// All variables of a network that begins with noise.
    fn variables<'a>(&self) -> Vec<Variable<'a>> {
        let Pretraining { kind, layers, width, course, .. } = self;
        let (width, mut out) = (*width, Vec::new());
        let normal = Begin::Normal(DEVIATION);
        let mut network = |prefix: &str, positions: usize, layers: usize| {
            let centred = *kind == ModelKind::Bytes;
            let adds = Begin::Normal(DEVIATION / (2.0 * layers as f32).sqrt());
            let mut put = |name: String, shape, begin| out.push((format!("{prefix}{name}"), shape, begin));
            put("wpe.weight".into(), (positions, width), normal);
            for n in 0..layers {
                for norm in ["ln_1", "ln_2"] {
                    put(format!("h.{n}.{norm}.weight"), (1, width), Begin::Ones);
                    if centred {
                        put(format!("h.{n}.{norm}.bias"), (1, width), Begin::Zeros);
                    }
                }
                for (what, inputs, outputs, begin) in [
                    ("attn.c_attn", width, 3 * width, normal),
                    ("attn.c_proj", width, width, adds),
                    ("mlp.c_fc", width, 4 * width, normal),
                    ("mlp.c_proj", 4 * width, width, adds),
                ] {
                    put(format!("h.{n}.{what}.weight"), (inputs, outputs), begin);
                    if centred {
                        put(format!("h.{n}.{what}.bias"), (1, outputs), Begin::Zeros);
                    }
                }
            }
            put("ln_f.weight".into(), (1, width), Begin::Ones);
            if centred {
                put("ln_f.bias".into(), (1, width), Begin::Zeros);
            }
        };
        if *kind == ModelKind::Image {
            network(OF_IMAGES, course.window, *layers);
            out.push((format!("{OF_IMAGES}wte.weight"), (BYTES + 1, width), normal));
            out.push((HEAD_OF_IMAGES.into(), (BYTES, width), normal));
        } else {
            // A beginning, and one that would end it, as in what is published.
            network(OF_PATCHES, course.window / PATCH + 2, *layers);
            network(OF_BYTES, PATCH + 1, layers.div_ceil(LAYERS_OF_BYTES));
            // Rows for each place and what is there: the way they are read.
            out.push((PATCH_EMBEDDING[0].into(), (PATCH * CLASSES, width), normal));
            out.push((PATCH_EMBEDDING[1].into(), (1, width), Begin::Zeros));
            out.push((format!("{OF_BYTES}wte.weight"), (CLASSES, width), normal));
        }
        out
    }

    /// All variables of a network that begins with a checkpoint, whose shape the recipe takes.
    ///
    /// # Errors
    /// `Recipe`, where they do not go together.
    fn variables_of<'a>(&mut self, learned: &'a Learned) -> std::result::Result<Vec<Variable<'a>>, TrainError> {
        let refused = |what: String| Err(TrainError::Recipe(what));
        if learned.kind != self.kind {
            return refused(format!(
                "the checkpoint is a model of {}, not of {}",
                learned.kind.name(),
                self.kind.name()
            ));
        }
        let rows = |name: &str| learned.tensors.get(name).map_or(0, |(rows, ..)| *rows);
        let (prefix, bytes) = if self.kind == ModelKind::Image { (OF_IMAGES, 1) } else { (OF_PATCHES, PATCH) };
        let positions = format!("{prefix}wpe.weight");
        let Some((count, width, _)) = learned.tensors.get(&positions) else {
            return refused(format!("the checkpoint has no tensor {positions}"));
        };
        // A beginning is a patch of its own.
        let window_max = (count - (bytes - 1).min(1)) * bytes;
        if self.course.window > window_max {
            return refused(format!(
                "the checkpoint has {count} positions: its windows have {window_max} bytes at most"
            ));
        }
        (self.width, self.heads) = (*width, learned.heads);
        let embedding = format!("{OF_IMAGES}wte.weight");
        let is_grey = rows(&embedding) == BYTES + 1 && rows(HEAD_OF_IMAGES) == BYTES;
        let mut out = Vec::new();
        for (name, (rows, columns, elements)) in &learned.tensors {
            let is_of_tokens = self.kind == ModelKind::Image && (*name == embedding || name == HEAD_OF_IMAGES);
            out.push(if name == HEAD_OF_BYTES {
                // Here it is the embedding.
                let tied = learned.tensors.get(&format!("{OF_BYTES}wte.weight"));
                if tied.is_none_or(|(.., tied)| tied != elements) {
                    return refused(
                        "the checkpoint has a head of its own: known is one whose head is its embedding".into(),
                    );
                }
                continue;
            } else if is_of_tokens && !is_grey {
                let rows = if *name == embedding { BYTES + 1 } else { BYTES };
                (name.clone(), (rows, *width), Begin::Normal(DEVIATION))
            } else if name == PATCH_EMBEDDING[0] {
                if *columns != PATCH * CLASSES {
                    return refused(format!(
                        "its patches have {columns} inputs; known are {CLASSES} for each of {PATCH} bytes"
                    ));
                }
                (name.clone(), (*columns, *rows), Begin::Turned(elements))
            } else {
                (name.clone(), (*rows, *columns), Begin::Known(elements))
            });
        }
        Ok(out)
    }
}

/// What the elements of a variable are at first.
#[derive(Clone, Copy, Debug)]
enum Begin<'a> {
    Zeros,
    Ones,
    /// Normal, of this deviation.
    Normal(f32),
    /// These, and these by columns.
    Known(&'a [f32]),
    Turned(&'a [f32]),
}

/// Name and shape of a variable, which is as this at first; a vector has one row.
type Variable<'a> = (String, (usize, usize), Begin<'a>);

/// A network that is trained from nothing, or further.
pub struct Untaught {
    recipe: Pretraining,
    device: Device,
    /// Names and shapes of all variables, in the order in which they are trained.
    shapes: Vec<(String, (usize, usize))>,
    variables: BTreeMap<String, Var>,
    /// Nothing where a token is seen, and minus infinity where it is not yet; by tokens.
    masks: BTreeMap<usize, Tensor>,
}

/// A model of images or bytes that is being trained.
pub type Pretrainer = Trainer<Untaught>;

impl Pretrainer {
    /// Begins with a network of noise, or with a checkpoint, or goes on from what `kept` gave.
    ///
    /// # Errors
    /// Says what is wrong with the recipe, the checkpoint, the data or what was kept.
    pub fn pretraining(
        data: &[Vec<u8>],
        mut recipe: Pretraining,
        learned: Option<&Learned>,
        kept: Option<&[u8]>,
    ) -> std::result::Result<Pretrainer, TrainError> {
        let refused = |what: &str| Err(TrainError::Recipe(what.to_string()));
        recipe.course.check(WINDOW_MIN..=WINDOW_MAX)?;
        if !matches!(recipe.kind, ModelKind::Image | ModelKind::Bytes) {
            return refused("models of images and bytes are trained from nothing; a model of text is adapted");
        }
        if !recipe.course.window.is_multiple_of(PATCH) {
            return refused("its windows are whole patches of 16 bytes");
        }
        let begun = match learned {
            Some(learned) => recipe.variables_of(learned)?,
            None => recipe.variables(),
        };
        if recipe.heads == 0 || recipe.layers == 0 || !recipe.width.is_multiple_of(recipe.heads) {
            return refused("its width is a multiple of its heads, of which there is one at least, as of layers");
        }
        let mut hasher = blake3::Hasher::new();
        let Pretraining { kind, layers, width, heads, course } = &recipe;
        hasher.update(format!("{kind:?} {layers} {width} {heads} ").as_bytes());
        course.hash(&mut hasher);
        for (name, (.., elements)) in learned.iter().flat_map(|learned| &learned.tensors) {
            hasher.update(name.as_bytes()).update(bytemuck::cast_slice(elements));
        }
        let windows = windows(data, course.window, *kind);
        windows.iter().for_each(|window| {
            hasher.update(bytemuck::cast_slice(&window.next));
        });
        let windows = apart(windows)?;
        let (device, mut chance) = (device()?, Chance(course.seed));
        let (mut variables, mut all, mut shapes) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (name, shape, begin) in begun {
            let len = shape.0 * shape.1;
            let values = match begin {
                Begin::Zeros => vec![0.0; len],
                Begin::Ones => vec![1.0; len],
                Begin::Normal(deviation) => (0..len).map(|_| chance.normal() * deviation).collect(),
                Begin::Known(elements) => elements.to_vec(),
                Begin::Turned(elements) => {
                    (0..shape.0).flat_map(|n| elements.iter().skip(n).step_by(shape.0).copied()).collect()
                }
            };
            let var = Var::from_vec(values, shape, &device)?;
            all.push(var.clone());
            shapes.push((name.clone(), shape));
            variables.insert(name, var);
        }
        let subject = Untaught { recipe, device, shapes, variables, masks: BTreeMap::new() };
        // That it can be coded with is known before days are spent on it.
        let begun: Vec<Tensor> = all.iter().map(Var::as_detached_tensor).collect();
        for (_, file) in subject.files(&begun)? {
            load_tensors(Cursor::new(file), None)?;
        }
        let course = subject.recipe.course.clone();
        Trainer::begin(subject, all, windows, course, &hasher, kept)
    }
}

/// Cuts files into windows, each after a beginning; of what has channels, as pixels have, each channel for itself where an iGPT is to
/// read it. The last of each is left out, unless it is the only one: it would be a short one.
fn windows(data: &[Vec<u8>], window: usize, kind: ModelKind) -> Vec<Window> {
    let mut out = Vec::new();
    for bytes in data {
        let channels = if kind == ModelKind::Image { channels_of(bytes) } else { 1 };
        for channel in 0..channels {
            let bytes: Vec<u32> = bytes.iter().skip(channel).step_by(channels).map(|byte| u32::from(*byte)).collect();
            for next in bytes.chunks(window).filter(|part| part.len() == window.min(bytes.len())) {
                // A bGPT learns all of its beginnings alike.
                let start = match kind {
                    ModelKind::Bytes => PADDING + (out.len() % BEGINNINGS.len()) as u32,
                    _ => START,
                };
                let read = std::iter::once(start).chain(next.iter().copied()).take(next.len()).collect();
                out.push(Window { read, next: next.to_vec(), bytes: next.len(), plain: 0 });
            }
        }
    }
    out
}

impl Untaught {
    fn variable(&self, name: &str) -> Result<&Tensor> {
        match self.variables.get(name) {
            Some(var) => Ok(var.as_tensor()),
            None => bail!("there is no variable {name}"),
        }
    }

    fn mask(&mut self, tokens: usize) -> Result<Tensor> {
        if let Some(mask) = self.masks.get(&tokens) {
            return Ok(mask.clone());
        }
        let row = |at: usize| (0..tokens).map(move |t| if t > at { f32::NEG_INFINITY } else { 0.0 });
        let mask: Vec<f32> = (0..tokens).flat_map(row).collect();
        let mask = Tensor::from_vec(mask, (tokens, tokens), &self.device)?;
        self.masks.insert(tokens, mask.clone());
        Ok(mask)
    }

    /// Divides rows by the roots of their mean squares, and weighs them; those of bytes are centred before.
    fn normalised(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let weights = self.variable(&format!("{name}.weight"))?;
        let centred = self.recipe.kind == ModelKind::Bytes;
        let x = if centred { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x.clone() };
        let root = (x.sqr()?.mean_keepdim(D::Minus1)? + EPSILON)?.sqrt()?;
        let x = x.broadcast_div(&root)?.broadcast_mul(weights)?;
        if centred { x.broadcast_add(self.variable(&format!("{name}.bias"))?) } else { Ok(x) }
    }

    /// Rows times a matrix that has a row for each input.
    fn product(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let (many, tokens, inputs) = x.dims3()?;
        let weights = self.variable(&format!("{name}.weight"))?;
        let out = x.reshape((many * tokens, inputs))?.matmul(weights)?.reshape((many, tokens, weights.dim(1)?))?;
        match self.variables.get(&format!("{name}.bias")) {
            Some(biases) => out.broadcast_add(biases.as_tensor()),
            None => Ok(out),
        }
    }

    /// What queries find.
    fn mixed(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (many, tokens, _) = x.dims3()?;
        let Pretraining { width, heads, .. } = self.recipe;
        let elements = width / heads;
        let part = |n: usize| {
            let part = x.narrow(2, n * width, width)?.reshape((many, tokens, heads, elements))?;
            part.transpose(1, 2)?.contiguous()
        };
        let (queries, keys, values) = (part(0)?, part(1)?, part(2)?);
        let scores = (queries.matmul(&keys.t()?.contiguous()?)? * (1.0 / (elements as f64).sqrt()))?;
        let shares = softmax(&scores.broadcast_add(mask)?, D::Minus1)?;
        shares.matmul(&values)?.transpose(1, 2)?.contiguous()?.reshape((many, tokens, width))
    }

    /// States after all layers of a network, normed, of texts by tokens by elements.
    fn states(&mut self, prefix: &str, x: &Tensor) -> Result<Tensor> {
        let tokens = x.dim(1)?;
        let mask = self.mask(tokens)?;
        let mut x = x.broadcast_add(&self.variable(&format!("{prefix}wpe.weight"))?.narrow(0, 0, tokens)?)?;
        let names = (0..).map(|n| format!("{prefix}h.{n}."));
        for layer in names.take_while(|layer| self.variables.contains_key(&format!("{layer}ln_1.weight"))) {
            let name = |what: &str| format!("{layer}{what}");
            let all = self.product(&name("attn.c_attn"), &self.normalised(&name("ln_1"), &x)?)?;
            x = (x + self.product(&name("attn.c_proj"), &self.mixed(&all, &mask)?)?)?;
            let hidden = self.product(&name("mlp.c_fc"), &self.normalised(&name("ln_2"), &x)?)?;
            let hidden = match self.recipe.kind {
                ModelKind::Image => (sigmoid(&(&hidden * 1.702)?)? * hidden)?,
                _ => hidden.gelu()?,
            };
            x = (x + self.product(&name("mlp.c_proj"), &hidden)?)?;
        }
        self.normalised(&format!("{prefix}ln_f"), &x)
    }

    fn rows(&self, table: &str, ids: &[u32]) -> Result<Tensor> {
        self.variable(table)?.index_select(&Tensor::new(ids, &self.device)?, 0)
    }

    /// Logits of what comes after each token that is read.
    fn logits(&mut self, read: &[u32]) -> Result<Tensor> {
        let width = self.recipe.width;
        let (states, head) = if self.recipe.kind == ModelKind::Image {
            let x = self.rows(&format!("{OF_IMAGES}wte.weight"), read)?.unsqueeze(0)?;
            (self.states(OF_IMAGES, &x)?, HEAD_OF_IMAGES.to_string())
        } else {
            let Some((start, bytes)) = read.split_first() else { bail!("nothing is read") };
            let beginning =
                BEGINNINGS.get((*start as usize).wrapping_sub(PADDING as usize)).copied().unwrap_or_default();
            let padded = |bytes: &mut dyn Iterator<Item = u32>| {
                let mut patch: Vec<u32> = bytes.take(PATCH).collect();
                patch.resize(PATCH, PADDING);
                patch
            };
            let beginning = padded(&mut beginning.iter().map(|byte| u32::from(*byte)));
            let patches: Vec<Vec<u32>> = bytes.chunks(PATCH).map(|part| padded(&mut part.iter().copied())).collect();
            // Each patch is said from those before it; one that is whole also says the next.
            let count = read.len().div_ceil(PATCH);
            let seen = std::iter::once(&beginning).chain(&patches).take(count).flatten();
            let places: Vec<u32> = seen.enumerate().map(|(n, byte)| (n % PATCH * CLASSES) as u32 + byte).collect();
            let sums = self.rows(PATCH_EMBEDDING[0], &places)?.reshape((count, PATCH, width))?.sum(1)?;
            let x = sums.broadcast_add(self.variable(PATCH_EMBEDDING[1])?)?.unsqueeze(0)?;
            let of_patches = self.states(OF_PATCHES, &x)?.squeeze(0)?.unsqueeze(1)?;
            // The bytes of a patch but its last, after what was made of those before it.
            let none = vec![PADDING; PATCH];
            let within: Vec<u32> =
                (0..count).flat_map(|n| patches.get(n).unwrap_or(&none).iter().take(PATCH - 1).copied()).collect();
            let table = format!("{OF_BYTES}wte.weight");
            let within = self.rows(&table, &within)?.reshape((count, PATCH - 1, width))?;
            (self.states(OF_BYTES, &Tensor::cat(&[of_patches, within], 1)?)?, table)
        };
        let (many, tokens, _) = states.dims3()?;
        let states = states.reshape((many * tokens, width))?.narrow(0, 0, read.len())?;
        states.matmul(&self.variable(&head)?.narrow(0, 0, BYTES)?.t()?)
    }
}

impl Taught for Untaught {
    fn bits(&mut self, window: &Window, learn: bool) -> Result<(f64, Option<Tensor>)> {
        let logits = self.logits(&window.read)?;
        let ids = Tensor::new(window.next.as_slice(), &self.device)?;
        let nats = log_softmax(&logits, D::Minus1)?.gather(&ids.unsqueeze(1)?, 1)?.sum_all()?.neg()?;
        let bits = f64::from(nats.to_scalar::<f32>()?) / std::f64::consts::LN_2;
        Ok((bits, learn.then_some(nats)))
    }

    /// A file of tensors that `model add` takes: of 32 bits, with its heads noted beside them.
    fn files(&self, variables: &[Tensor]) -> std::result::Result<Vec<(&'static str, Vec<u8>)>, TrainError> {
        let mut tensors = Vec::new();
        for ((name, (rows, columns)), tensor) in self.shapes.iter().zip(variables) {
            let (rows, columns, is_patches) = (*rows, *columns, name == PATCH_EMBEDDING[0]);
            let tensor = if is_patches { tensor.t()?.contiguous()? } else { tensor.clone() };
            let shape = match rows {
                1 => vec![columns],
                _ if is_patches => vec![columns, rows],
                _ => vec![rows, columns],
            };
            tensors.push((name.clone(), "F32", shape, elements(&tensor.to_dtype(DType::F32)?)?));
        }
        let notes = [("format", "pt".to_string()), ("n_head", self.recipe.heads.to_string())];
        let notes = notes.map(|(name, value)| (name.to_string(), value)).into();
        let name = if self.recipe.kind == ModelKind::Image { "igpt.safetensors" } else { "bgpt.safetensors" };
        Ok(vec![(name, safetensors::file(&notes, &tensors))])
    }
}
