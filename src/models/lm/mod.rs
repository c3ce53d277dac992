//! Language models of the Llama family and its relatives predict tokens of text, exactly, on any machine.
//!
//! A model that somebody brings, as a GGUF file or a checkpoint of safetensors, is cut into whole numbers of eight bits once,
//! when it is loaded. Every sum of products is one of whole numbers and so has no order; what is left is elementwise, in
//! 32-bit floats, in an order that is written down (`exact`). So a token's shares come out the same for every number of
//! streams, tokens at a time, threads, vector unit and compiler, which libraries for such networks do not promise: their
//! floats change with all of these, and with one wrong bit everything after it is lost. Integers cost 0 to 1 % against
//! floats. That a language model and arithmetic coding compress text as nothing else does is from "Language Modeling Is Compression" (G. Delétang et al., 2023) and LLMZip (C. Valmeekam et al., 2023).
//!
//! Text is cut into tokens (`tokens`), each is predicted from those before it (`step`), and coded by integers (`cdf`, after
//! candidates that the lane's own past names, `memory`) in lanes that stand alone (`lanes`). A volume that keeps models
//! (`shelf`) codes segments with the one that came last (`method`). What a model is to say of one domain it can be taught
//! (`adapt`), which gives an adapter that it is loaded with (`adapter`).
//!
//! # Limits
//! Contexts of `CONTEXT_MAX` tokens, of which a lane that is longer reads the next part anew; sums of `COLUMNS_MAX` elements;
//! vocabularies of `VOCABULARY_MAX` tokens. Dense networks of the families in `plan::FAMILIES`, with a tokenizer of byte pairs or
//! of pieces; adapters are trained for Llamas only.
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
mod kernels;
mod lanes;
mod load;
mod memory;
mod method;
mod pages;
#[cfg(all(test, feature = "lora"))]
mod peers;
mod plan;
mod safetensors;
mod shelf;
mod step;
mod tokens;
mod weights;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

use crate::base::ModelId;
use step::Network;
use tokens::Tokens;

#[cfg(feature = "lora")]
pub use adapt::{AdaptError, Advance, Matrix, Recipe, Trainer, WINDOW_MAX};
pub use kernels::Path;
pub use lanes::{LANE_BYTES_MAX, LANE_BYTES_MIN, lane_bytes};
pub use load::{Open, load, load_checkpoint};
pub use method::{Aim, Language};
pub use shelf::{Loader, Shelf};

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

/// A model, ready to code.
#[derive(Debug)]
pub struct LanguageModel {
    id: ModelId,
    path: Path,
    network: Network,
    tokens: Tokens,
}

/// What a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Hash of all that decoding depends on: weights as they are computed with, tokens, revision of the arithmetic.
    pub id: ModelId,
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

fn decode_bytes(network: &Network) -> u64 {
    let lanes = lanes::LANES_AT_ONCE * memory::Memory::bytes(LANE_BYTES_MAX);
    cache::STREAMS_BYTES_MAX as u64 + lanes as u64 + network.step_bytes()
}

impl LanguageModel {
    /// What it is.
    pub fn facts(&self) -> Facts {
        let shape = &self.network.shape;
        Facts {
            id: self.id,
            layers: shape.layers,
            width: shape.width,
            vocabulary: shape.vocabulary,
            context: shape.context,
            bytes: self.network.bytes(),
            lane_bytes: self.network.stream_bytes(1024),
            decode_bytes: decode_bytes(&self.network),
            path: self.path.name(),
        }
    }
}
