//! Models of bytes, from tensors by the names that their makers gave them: networks of the shape of GPT-2 (A. Radford et al., 2019),
//! with positions that are learned, and no gates.
//!
//! iGPT ("Generative Pretraining from Pixels", M. Chen et al., 2020), as the library transformers saves it (`imagegpt`), reads the
//! grey values of an image, row by row. Its published checkpoints do not: they know 512 colours, to which each pixel was rounded,
//! and are refused. bGPT (`patches`) reads the bytes of a file, in patches; its checkpoints are as its makers publish them.
//!
//! Matrices stand with a row for each input there, and are turned here.

#[cfg(feature = "lora")]
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io::{Read, Seek};

use serde_json::Value as Json;

use super::cache::STREAMS_BYTES_MAX;
use super::exact::LANES;
use super::kernels::COLUMNS_MAX;
use super::load::{Source, Tensors, prove};
use super::patches::{CLASSES, PADDING, PATCH_BYTES_MAX, Patches};
use super::plan::{CONTEXT_MAX, LAYERS_MAX, checked};
use super::safetensors::{self, Checkpoint};
use super::step::{Activation, Extras, Layer, Network, Norm, Shape};
use super::tokens::Tokens;
use super::weights::Matrix;
use super::{LanguageModel, LoadError, ModelKind, Path};

/// Values that are coded: bytes.
const BYTES: usize = 256;
/// Colours of the palette that the published iGPTs know.
const PALETTE: usize = 512;
/// Elements of a head where nothing says otherwise.
const ELEMENTS: usize = 64;
/// The published iGPTs whose heads are longer: width, heads.
const LONG_HEADS: [(usize, usize); 2] = [(1024, 8), (1536, 16)];
const EPSILON: f32 = 1e-5;

pub(super) const OF_IMAGES: &str = "transformer.";
pub(super) const OF_PATCHES: &str = "patch_level_decoder.base.";
pub(super) const OF_BYTES: &str = "byte_level_decoder.base.transformer.";
pub(super) const PATCH_EMBEDDING: [&str; 2] =
    ["patch_level_decoder.patch_embedding.weight", "patch_level_decoder.patch_embedding.bias"];
pub(super) const HEAD_OF_IMAGES: &str = "lm_head.weight";
pub(super) const HEAD_OF_BYTES: &str = "byte_level_decoder.base.lm_head.weight";
/// What checkpoints have beside weights: masks, and an embedding of one row that no token has.
const IDLE: [&str; 2] = [".attn.bias", ".attn.masked_bias"];
const IDLE_TABLE: &str = "patch_level_decoder.base.wte.weight";

fn malformed<T>(what: impl Into<String>) -> Result<T, LoadError> {
    Err(LoadError::Malformed(what.into()))
}

fn unsupported<T>(what: impl Into<String>) -> Result<T, LoadError> {
    Err(LoadError::Unsupported(what.into()))
}

/// Opens a file of tensors, without those that are of no use.
fn open<R: Read + Seek>(file: R) -> Result<Checkpoint<R>, LoadError> {
    Checkpoint::of_file(file, "the checkpoint", &|name| {
        let idle = name == IDLE_TABLE || IDLE.iter().any(|end| name.ends_with(end));
        Ok((!idle).then(|| name.to_string()))
    })
}

fn kind_of(names: &[String]) -> Option<ModelKind> {
    let has = |name: &str| names.iter().any(|n| n == name);
    if has(PATCH_EMBEDDING[0]) {
        Some(ModelKind::Bytes)
    } else if has("transformer.wpe.weight") && has("transformer.h.0.ln_1.weight") && !has("transformer.h.0.ln_1.bias") {
        Some(ModelKind::Image)
    } else {
        None
    }
}

/// What a file of tensors (safetensors) is a model of, by their names: images or bytes.
///
/// # Errors
/// When it is no such file, or a model of neither.
pub fn kind_of_tensors<R: Read + Seek>(file: R) -> Result<ModelKind, LoadError> {
    kind_of(&open(file)?.names()).ok_or_else(|| {
        LoadError::Unsupported(
            "its tensors are neither those of an iGPT (transformer.wpe.weight, transformer.h.0.ln_1.weight without a bias) nor \
             of a bGPT (patch_level_decoder.patch_embedding.weight); a language model is a GGUF file, or a directory with \
             config.json and tokenizer.json"
                .into(),
        )
    })
}

/// What is known of a checkpoint beside its tensors.
struct Beside {
    heads: Option<usize>,
    epsilon: f32,
}

impl Beside {
    fn of<R: Read + Seek>(
        tensors: &Checkpoint<R>,
        config: Option<&Json>,
        kind: ModelKind,
    ) -> Result<Beside, LoadError> {
        // Written by who trains one whose heads are not as they usually are.
        let noted = tensors.note("n_head").and_then(|n| n.parse().ok());
        let Some(config) = config else { return Ok(Beside { heads: noted, epsilon: EPSILON }) };
        let text = |name: &str| config.get(name).and_then(Json::as_str);
        let is_set = |name: &str| config.get(name).and_then(Json::as_bool) == Some(true);
        if kind == ModelKind::Image {
            match text("model_type") {
                Some("imagegpt") | None => {}
                Some(other) => {
                    return unsupported(format!("its model_type is `{other}`, and its tensors those of an imagegpt"));
                }
            }
            match text("activation_function") {
                Some("quick_gelu") | None => {}
                Some(other) => return unsupported(format!("its activation is `{other}`; only `quick_gelu` is known")),
            }
            if is_set("scale_attn_by_inverse_layer_idx") || config.get("scale_attn_weights") == Some(&Json::Bool(false))
            {
                return unsupported("its scores are scaled otherwise than by the root of the elements of a head");
            }
        }
        let heads = config.get("n_head").and_then(Json::as_u64).map(|n| n as usize).or(noted);
        let epsilon = config.get("layer_norm_epsilon").and_then(Json::as_f64).map_or(EPSILON, |e| e as f32);
        Ok(Beside { heads, epsilon })
    }

    fn heads(&self, width: usize) -> usize {
        let usual = LONG_HEADS.iter().find(|(of, _)| *of == width).map_or(width / ELEMENTS, |(_, heads)| *heads);
        self.heads.unwrap_or(usual)
    }
}

/// Tensors of a network, whose names begin alike.
struct Part<'a, R> {
    tensors: &'a mut Source<Checkpoint<R>>,
    /// Names that were asked for.
    known: &'a mut BTreeSet<String>,
    prefix: &'static str,
    kind: ModelKind,
}

impl<R: Read + Seek> Part<'_, R> {
    fn extent(&self, name: &str) -> Option<(usize, usize)> {
        self.tensors.0.extent(&format!("{}{name}", self.prefix))
    }

    fn name(&mut self, name: &str) -> String {
        let name = format!("{}{name}", self.prefix);
        self.known.insert(name.clone());
        name
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let name = self.name(name);
        self.tensors.vector(&name, len)
    }

    /// Of an iGPT, which was trained without: empty where it is not there.
    fn biases(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        match self.extent(name) {
            None if self.kind == ModelKind::Image => Ok(Vec::new()),
            _ => self.vector(name, len),
        }
    }

    fn norm(&mut self, name: &str, len: usize) -> Result<Norm, LoadError> {
        let weights = self.vector(&format!("{name}.weight"), len)?;
        let centred = self.kind == ModelKind::Bytes;
        let biases = centred.then(|| self.vector(&format!("{name}.bias"), len)).transpose()?;
        Ok(Norm { weights, biases })
    }

    /// The first rows of a table.
    fn rows(&mut self, name: &str, rows: usize, columns: usize, first: usize) -> Result<Matrix, LoadError> {
        let name = self.name(name);
        self.tensors.first_rows(&name, (rows, columns), first)
    }

    /// A matrix that stands with a row for each input.
    fn turned(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Matrix, LoadError> {
        let name = self.name(name);
        self.tensors.turned(&name, inputs, outputs)
    }

    /// The shape that the tensors have.
    fn shape(&self, beside: &Beside) -> Result<Shape, LoadError> {
        let Some((context, width)) = self.extent("wpe.weight") else {
            return malformed(format!("tensor {}wpe.weight is missing", self.prefix));
        };
        let layers = (0..=LAYERS_MAX).take_while(|n| self.extent(&format!("h.{n}.ln_1.weight")).is_some()).count();
        let hidden = self.extent("h.0.mlp.c_fc.weight").map_or(0, |(_, hidden)| hidden);
        let heads = beside.heads(width);
        if layers == 0 || layers > LAYERS_MAX || width > COLUMNS_MAX || hidden > COLUMNS_MAX || context > CONTEXT_MAX {
            return unsupported(format!(
                "it has {layers} layers of {width} and {hidden} elements, and {context} positions; known are up to {LAYERS_MAX}, \
                 {COLUMNS_MAX} and {CONTEXT_MAX}"
            ));
        }
        if heads == 0 || !width.is_multiple_of(heads) {
            return unsupported(format!(
                "its width of {width} is no multiple of its {heads} heads; where it has others than 1 for each {ELEMENTS} elements, \
                 a config.json beside it says so (n_head)"
            ));
        }
        let is_image = self.kind == ModelKind::Image;
        let shape = checked(Shape {
            vocabulary: BYTES,
            width,
            heads,
            key_heads: heads,
            elements: width / heads,
            hidden,
            layers,
            context,
            epsilon: beside.epsilon,
            extras: Extras {
                activation: if is_image { Activation::QuickGelu } else { Activation::Gelu },
                ungated: true,
                fine: true,
                ..Extras::default()
            },
        })?;
        // What remembers less than it was trained with would be another network.
        if shape.context < context { unsupported("it takes too much memory") } else { Ok(shape) }
    }

    fn network(&mut self, shape: Shape, embeddings: Matrix, head: Option<Matrix>) -> Result<Network, LoadError> {
        let Shape { width, hidden, context, .. } = shape;
        let name = self.name("wpe.weight");
        let positions = self.tensors.table(&name, context, width)?;
        let mut layers = Vec::new();
        for n in 0..shape.layers {
            let of = |what: &str| format!("h.{n}.{what}");
            layers.push(Layer {
                attention_norm: self.norm(&of("ln_1"), width)?,
                queries: self.turned(&of("attn.c_attn.weight"), width, 3 * width)?,
                biases: self.biases(&of("attn.c_attn.bias"), 3 * width)?,
                head_norms: None,
                output: self.turned(&of("attn.c_proj.weight"), width, width)?,
                feed_norm: self.norm(&of("ln_2"), width)?,
                gates: self.turned(&of("mlp.c_fc.weight"), width, hidden)?,
                down: self.turned(&of("mlp.c_proj.weight"), hidden, width)?,
                other_biases: [
                    self.biases(&of("attn.c_proj.bias"), width)?,
                    self.biases(&of("mlp.c_fc.bias"), hidden)?,
                    self.biases(&of("mlp.c_proj.bias"), width)?,
                ],
                post_norms: None,
            });
        }
        let norm = self.norm("ln_f", width)?;
        let (rotary, near_rotary) = (Vec::new(), Vec::new());
        Ok(Network { shape, embeddings, layers, norm, head, positions, rotary, near_rotary })
    }
}

/// A network that reads grey values, and the token that begins an image.
fn image<R: Read + Seek>(mut part: Part<'_, R>, beside: &Beside) -> Result<(Network, u32), LoadError> {
    let values = part.tensors.0.extent(HEAD_OF_IMAGES).map_or(0, |(rows, _)| rows);
    let (read, width) = part.extent("wte.weight").unwrap_or_default();
    if values == PALETTE || read == PALETTE + 1 {
        return unsupported(format!(
            "its tokens are {PALETTE} colours of a palette, as those of the published iGPT checkpoints are: a picture rounded to them \
             cannot be given back as it was. One whose tokens are grey values has {BYTES} of them, and one that begins an image"
        ));
    }
    if values < BYTES || read != values + 1 {
        return unsupported(format!(
            "it reads {read} tokens and says {values}; known are {BYTES} grey values at least, and one token more that begins an image"
        ));
    }
    let shape = part.shape(beside)?;
    let embeddings = part.rows("wte.weight", read, width, read)?;
    part.known.insert(HEAD_OF_IMAGES.into());
    let head = part.tensors.first_rows(HEAD_OF_IMAGES, (values, width), BYTES)?;
    Ok((part.network(shape, embeddings, Some(head))?, values as u32))
}

/// A network that reads the bytes of patches.
fn bytes<R: Read + Seek>(mut part: Part<'_, R>, beside: &Beside) -> Result<Network, LoadError> {
    let shape = part.shape(beside)?;
    let width = shape.width;
    let embeddings = part.rows("wte.weight", CLASSES, width, CLASSES)?;
    // Padding is never said: its class is left out, and shares are made of the rest.
    let has_head = part.tensors.0.extent(HEAD_OF_BYTES).is_some();
    let head = if has_head {
        part.known.insert(HEAD_OF_BYTES.into());
        part.tensors.first_rows(HEAD_OF_BYTES, (CLASSES, width), BYTES)?
    } else {
        part.rows("wte.weight", CLASSES, width, BYTES)?
    };
    part.network(shape, embeddings, Some(head))
}

/// What reads patches.
fn patches<R: Read + Seek>(mut part: Part<'_, R>, beside: &Beside) -> Result<Patches, LoadError> {
    let shape = part.shape(beside)?;
    let width = shape.width;
    let columns = part.tensors.0.extent(PATCH_EMBEDDING[0]).map_or(0, |(_, columns)| columns);
    let len = columns / CLASSES;
    if !columns.is_multiple_of(CLASSES) || !(1..=PATCH_BYTES_MAX).contains(&len) {
        return unsupported(format!(
            "its patches have {columns} inputs; known are {CLASSES} for each of 1 to {PATCH_BYTES_MAX} bytes"
        ));
    }
    part.known.extend(PATCH_EMBEDDING.map(String::from));
    // Stands with a row for each output, and is wanted by inputs.
    let embeddings = part.tensors.turned(PATCH_EMBEDDING[0], width, columns)?;
    let biases = part.tensors.vector(PATCH_EMBEDDING[1], width)?;
    let network = part.network(shape, Matrix::new(0, LANES), None)?;
    Ok(Patches { network, embeddings, biases, len })
}

/// Opens a file of tensors (safetensors), and where it has one its `config.json`.
fn open_with<R: Read + Seek>(
    file: R,
    config: Option<R>,
) -> Result<(Source<Checkpoint<R>>, ModelKind, Beside), LoadError> {
    let tensors = open(file)?;
    let kind = kind_of(&tensors.names()).ok_or(LoadError::Malformed("its tensors are of no known model".into()))?;
    let config = config.map(|file| safetensors::json_of(file, "config.json")).transpose()?;
    let beside = Beside::of(&tensors, config.as_ref(), kind)?;
    Ok((Source(tensors), kind, beside))
}

/// What a checkpoint has learned, to be trained further: an iGPT of any vocabulary, or a bGPT.
#[cfg(feature = "lora")]
#[derive(Debug)]
pub struct Learned {
    pub kind: ModelKind,
    pub(super) heads: usize,
    /// Rows, columns and elements of each, as they stand in the file; a vector has one row.
    pub(super) tensors: BTreeMap<String, (usize, usize, Vec<f32>)>,
}

#[cfg(feature = "lora")]
impl Learned {
    /// Reads all of a file of tensors (safetensors), and where it has one its `config.json`.
    ///
    /// # Errors
    /// Says what is wrong with a file; shapes are looked at when it is trained.
    pub fn read<R: Read + Seek>(file: R, config: Option<R>) -> Result<Learned, LoadError> {
        let (mut source, kind, beside) = open_with(file, config)?;
        // It is not written beside the tensors that come out.
        if beside.epsilon != EPSILON {
            return unsupported(format!(
                "its norms add {}; known in a model that is trained further is {EPSILON}",
                beside.epsilon
            ));
        }
        let prefix = if kind == ModelKind::Image { OF_IMAGES } else { OF_PATCHES };
        let heads = beside.heads(source.0.extent(&format!("{prefix}wpe.weight")).map_or(0, |(_, width)| width));
        let mut tensors = BTreeMap::new();
        for name in source.0.names() {
            let (rows, columns) = source.0.extent(&name).unwrap_or_default();
            let elements = source.table(&name, rows, columns)?;
            tensors.insert(name, (rows, columns, elements));
        }
        Ok(Learned { kind, heads, tensors })
    }
}

/// Loads a model of images or bytes from a file of tensors (safetensors), and where it has one its `config.json`.
///
/// # Errors
/// Says what is wrong with a file, or that this machine cannot use such models.
///
/// # Blocking
/// Reads the whole file: a second or two for each GiB.
pub fn load_tensors<R: Read + Seek>(file: R, config: Option<R>) -> Result<LanguageModel, LoadError> {
    let path = Path::best();
    prove(path)?;
    let (mut tensors, kind, beside) = open_with(file, config)?;
    let mut known = BTreeSet::new();
    let (network, patches, start) = if kind == ModelKind::Image {
        let part = Part { tensors: &mut tensors, known: &mut known, prefix: OF_IMAGES, kind };
        let (network, start) = image(part, &beside)?;
        (network, None, start)
    } else {
        let patches = patches(Part { tensors: &mut tensors, known: &mut known, prefix: OF_PATCHES, kind }, &beside)?;
        let network = bytes(Part { tensors: &mut tensors, known: &mut known, prefix: OF_BYTES, kind }, &beside)?;
        let (of_patches, of_bytes) = (&patches.network.shape, &network.shape);
        if of_patches.width != of_bytes.width || of_bytes.context < patches.len {
            return malformed(format!(
                "what reads its patches is {} elements wide, what reads their bytes {}, with {} positions for {} bytes",
                of_patches.width, of_bytes.width, of_bytes.context, patches.len
            ));
        }
        if Patches::parts_bytes(&network) > STREAMS_BYTES_MAX / 4 {
            return unsupported("what reads the bytes of its patches takes too much memory");
        }
        (network, Some(patches), PADDING)
    };
    if let Some(name) = tensors.0.names().iter().find(|name| !known.contains(*name)) {
        return unsupported(format!("it has a tensor {name}, which is not known"));
    }
    LanguageModel::named(path, kind, network, patches, Tokens::of_bytes(start))
}
