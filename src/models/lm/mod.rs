//! Language models of the Llama family and its relatives predict tokens of text, exactly, on any machine.
//!
//! A model that somebody brings, as a GGUF file or a checkpoint of safetensors, is cut into whole numbers of eight bits once,
//! when it is loaded. Every sum of products is one of whole numbers and so has no order; what is left is elementwise, in
//! 32-bit floats, in an order that is written down (`exact`). So a token's shares come out the same for every number of
//! streams, tokens at a time, threads, vector unit and compiler, which libraries for such networks do not promise: their
//! floats change with all of these, and with one wrong bit everything after it is lost. Integers cost 0 to 1 % against
//! floats. That a language model and arithmetic coding compress text as nothing else does is from "Language Modeling Is Compression" (G. Delétang et al., 2023) and LLMZip (C. Valmeekam et al., 2023).
//!
//! Networks of the shape of GPT-2 that were shown images or bytes (`gpt`, `patches`; their files: `safetensors`, `pickle`) are computed
//! by the same functions, and code binary data by the same lanes, with bytes for tokens.
//!
//! Text is cut into tokens (`tokens`), each is predicted from those before it (`step`), and coded by integers (`cdf`, after
//! candidates that the lane's own past names, `memory`) in lanes that stand alone (`lanes`). A volume that keeps models
//! (`shelf`) codes segments with the one of a kind that came last (`method`). What a model is to say of one domain it can be taught
//! (`adapt`), which gives an adapter that it is loaded with (`adapter`).
//!
//! # Limits
//! Contexts of `CONTEXT_MAX` tokens, of which a lane that is longer reads the next part anew; sums of `COLUMNS_MAX` elements;
//! vocabularies of `VOCABULARY_MAX` tokens. Dense networks of the families in `plan::FAMILIES`, with a tokenizer of byte pairs or
//! of pieces, and adapters to them. Of bytes: iGPT and bGPT, patches of `patches::PATCH_BYTES_MAX` bytes.
//!
//! # Cost
//! Memory: the weights in eight bits; for each lane that is read at the same time (32 at most) about as many bytes a token as
//! the layers have elements of keys and values, `cache::STREAMS_BYTES_MAX` for all lanes of a segment; and some for each step.
//! Time: about a hundred million products a token for the smallest models: this is for what is written once and seldom read.

#[cfg(feature = "lora")]
mod adapt;
mod adapter;
mod cache;
mod cdf;
mod exact;
mod gguf;
mod gpt;
mod kernels;
mod lanes;
mod load;
mod memory;
mod method;
mod pages;
mod pair;
mod patches;
#[cfg(all(test, feature = "lora"))]
mod peers;
mod pickle;
mod plan;
#[cfg(feature = "lora")]
mod pretrain;
mod safetensors;
mod shelf;
mod step;
mod tokens;
#[cfg(feature = "lora")]
mod training;
mod weights;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_bytes;

use std::fmt;
use std::io;

use crate::base::{Class, ModelId};
use patches::{BEGINNINGS, Patches, Reading};
use step::{Network, Row, Work};
use tokens::Tokens;

#[cfg(feature = "lora")]
pub use adapt::{AdapterTrainer, Matrix, Recipe};
#[cfg(feature = "lora")]
pub use gpt::Learned;
pub use gpt::{kind_of_tensors, load_tensors};
pub use kernels::Path;
pub use lanes::{LANE_BYTES_MAX, LANE_BYTES_MIN, lane_bytes, lane_check};
pub use load::{Open, load, load_checkpoint};
pub use method::{Aim, Language};
pub use pickle::{Spliced, as_safetensors};
#[cfg(feature = "lora")]
pub use pretrain::{Pretrainer, Pretraining};
pub use shelf::{Loader, Shelf};
#[cfg(feature = "lora")]
pub use training::{Advance, Course, Taught, TrainError, Trainer, Window};

/// Why a model cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// Its file cannot be read.
    Read(io::Error),
    /// Its file is damaged, or not what it says.
    Malformed(String),
    /// It is of a kind that this build does not know.
    Unsupported(String),
    /// This machine computes otherwise than others by a path: nothing may be coded with it.
    Inexact(&'static str),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Read(e) => write!(f, "the model cannot be read: {e}"),
            LoadError::Malformed(what) => write!(f, "the model is damaged: {what}"),
            LoadError::Unsupported(what) => write!(f, "the model cannot be used: {what}"),
            LoadError::Inexact(path) => write!(
                f,
                "this machine computes otherwise than others do by its {path} instructions: what it coded, no other machine \
                 could read, so nothing is coded or read with language models here"
            ),
        }
    }
}

impl std::error::Error for LoadError {}

/// What a model was shown, and predicts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ModelKind {
    /// Text, in tokens: language models.
    Text,
    /// Grey values of images, row by row: iGPT.
    Image,
    /// Bytes of any files, in patches: bGPT.
    Bytes,
}

impl ModelKind {
    pub const ALL: [ModelKind; 3] = [ModelKind::Text, ModelKind::Image, ModelKind::Bytes];

    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Text => "text",
            ModelKind::Image => "image",
            ModelKind::Bytes => "bytes",
        }
    }

    /// True for data that such a model is tried on.
    pub fn suits(self, class: Class) -> bool {
        match class {
            Class::Text | Class::Markup | Class::Source | Class::Json | Class::Log => self == ModelKind::Text,
            Class::Binary | Class::Sound | Class::Picture | Class::Video => self != ModelKind::Text,
            Class::Unknown
            | Class::Exec
            | Class::Incompressible
            | Class::Nucleotides
            | Class::Container
            | Class::Jpeg => false,
        }
    }
}

/// A model, ready to code.
#[derive(Debug)]
pub struct LanguageModel {
    id: ModelId,
    path: Path,
    kind: ModelKind,
    /// What says the next token.
    network: Network,
    /// What reads patches of them before, where there are any.
    patches: Option<Patches>,
    tokens: Tokens,
}

/// What a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Hash of all that decoding depends on: weights as they are computed with, tokens, revision of the arithmetic.
    pub id: ModelId,
    pub kind: ModelKind,
    /// Of both networks where there are two.
    pub layers: usize,
    pub width: usize,
    pub vocabulary: usize,
    /// Tokens that a lane is read with at most before it is begun anew.
    pub context: usize,
    /// Weights in memory.
    pub bytes: u64,
    /// What a lane takes that has read 1,024 tokens.
    pub lane_bytes: u64,
    /// Memory that coding or decoding one segment takes at most besides weights and the plain bytes: lanes beyond it are read
    /// in turns. It is taken as tokens come. Below `DECODE_BYTES_MAX`.
    pub decode_bytes: u64,
    /// Name of the instructions that are used.
    pub path: &'static str,
}

/// What coding or decoding one segment takes at most, with any model, besides its weights, bytes.
pub const DECODE_BYTES_MAX: u64 = 512 << 20;

impl LanguageModel {
    /// Streams that have read nothing.
    fn streams(&self, count: usize) -> Reading {
        Reading::new(count, &self.network, self.patches.as_ref())
    }

    /// Tokens that a stream may have read.
    fn context(&self) -> usize {
        self.patches.as_ref().map_or(self.network.shape.context, Patches::context)
    }

    /// Tokens that a stream can begin with, from `tokens.start` on.
    fn beginnings(&self) -> usize {
        if self.patches.is_some() { BEGINNINGS.len() } else { 1 }
    }

    /// Lets streams read tokens: `Network::step` says what is to be seen to.
    fn step<'n>(&'n self, rows: &[Row], reading: &mut Reading, work: &mut Work<'n>) {
        match &self.patches {
            None => self.network.step(self.path, rows, reading.only(), work),
            Some(patches) => patches.step(self.path, &self.network, rows, reading, work),
        }
    }

    /// Names of the instructions by which this machine can compute, the fastest first. What is loaded uses those.
    pub fn instructions() -> Vec<&'static str> {
        Path::all().into_iter().map(Path::name).collect()
    }

    /// Computes by other instructions from now on. All give the same; this is for who wants to see that.
    ///
    /// # Errors
    /// `Unsupported` where this machine has none of that name; `Inexact` as when a model is loaded.
    pub fn use_instructions(&mut self, name: &str) -> Result<(), LoadError> {
        let path = Path::all().into_iter().find(|path| path.name() == name);
        let path = path.ok_or_else(|| LoadError::Unsupported(format!("this machine has no instructions {name}")))?;
        load::prove(path)?;
        self.path = path;
        Ok(())
    }

    fn decode_bytes(&self) -> u64 {
        let lanes = lanes::LANES_AT_ONCE * memory::Memory::bytes(LANE_BYTES_MAX);
        let parts = self.patches.as_ref().map_or(0, |_| Patches::parts_bytes(&self.network));
        let step = self.networks().map(Network::step_bytes).max().unwrap_or(0);
        (cache::STREAMS_BYTES_MAX + lanes + parts) as u64 + step
    }

    fn networks(&self) -> impl Iterator<Item = &Network> {
        [Some(&self.network), self.patches.as_ref().map(|patches| &patches.network)].into_iter().flatten()
    }

    /// What reads all of a stream: patches where there are any.
    fn long(&self) -> &Network {
        self.patches.as_ref().map_or(&self.network, |patches| &patches.network)
    }

    /// What it is.
    pub fn facts(&self) -> Facts {
        let shape = &self.network.shape;
        Facts {
            id: self.id,
            kind: self.kind,
            layers: self.networks().map(|network| network.shape.layers).sum(),
            width: shape.width,
            vocabulary: shape.vocabulary,
            context: self.context(),
            bytes: self.networks().map(Network::bytes).sum::<u64>()
                + self.patches.as_ref().map_or(0, |patches| patches.embeddings.bytes()),
            lane_bytes: self
                .long()
                .stream_bytes(1024usize.div_ceil(self.patches.as_ref().map_or(1, |patches| patches.len))),
            decode_bytes: self.decode_bytes(),
            path: self.path.name(),
        }
    }
}
