//! The numbers of a network, from the metadata of a GGUF file or the `config.json` of a checkpoint.

use std::io::{Read, Seek};

use serde_json::Value as Json;

use super::LoadError;
use super::cache::{VALUE_PART, tokens_max};
use super::cdf::VOCABULARY_MAX;
use super::exact::{self, LANES};
use super::gguf::{Gguf, Value};
use super::kernels::COLUMNS_MAX;
use super::load::Tensors;
use super::step::Shape;

/// Longest context that is used, tokens: that of a model may be longer.
pub(super) const CONTEXT_MAX: usize = 8192;
const LAYERS_MAX: usize = 512;
/// As many tokens as there are bytes: more than the candidates that are asked about before shares.
const VOCABULARY_MIN: usize = 256;

/// What a model's files say before their tensors are read.
#[derive(Debug)]
pub(super) struct Plan {
    pub shape: Shape,
    /// How fast each pair of elements turns, radians a position.
    pub frequencies: Vec<f64>,
    /// Elements that turn together are neighbours in the file's rows, not half a head apart.
    pub neighbours: bool,
}

impl Plan {
    /// Where a row of queries or keys stands when two elements that turn together are half a head apart, as they are here
    /// and in checkpoints.
    pub fn apart(&self, row: usize) -> usize {
        let elements = self.shape.elements;
        match self.neighbours {
            true => row / elements * elements + row % 2 * (elements / 2) + row % elements / 2,
            false => row,
        }
    }
}

/// Numbers by their names, wherever they are from.
trait Numbers {
    fn number(&self, name: &str) -> Option<f64>;

    /// A whole number from 1 to `most`.
    fn count(&self, name: &str, most: usize) -> Result<usize, LoadError> {
        match self.number(name) {
            Some(n) if n >= 1.0 && n <= most as f64 && n.fract() == 0.0 => Ok(n as usize),
            Some(n) => Err(LoadError::Unsupported(format!("its {name} is {n}; known are 1 to {most}"))),
            None => Err(LoadError::Malformed(format!("it does not say its {name}"))),
        }
    }

    /// As `count`; `other` where there is none.
    fn count_or(&self, name: &str, most: usize, other: usize) -> Result<usize, LoadError> {
        if self.number(name).is_some() { self.count(name, most) } else { Ok(other) }
    }
}

impl<R> Numbers for Gguf<R> {
    fn number(&self, name: &str) -> Option<f64> {
        match self.value(name) {
            Some(Value::Number(n)) => Some(*n),
            _ => None,
        }
    }
}

impl Numbers for Json {
    fn number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Json::as_f64)
    }
}

/// A shape that the kernels can serve.
fn checked(shape: Shape) -> Result<Shape, LoadError> {
    let Shape { vocabulary, width, heads, key_heads, elements, hidden, layers, epsilon, .. } = shape;
    let whole = |n: usize, of: usize| n > 0 && n.is_multiple_of(of);
    if !whole(heads, key_heads) || !whole(elements, VALUE_PART) || !whole(width, LANES) || !whole(hidden, LANES) {
        return Err(LoadError::Unsupported(format!(
            "it has {heads} heads for {key_heads} of keys, of {elements} elements, in a width of {width} and {hidden}: heads \
             must be a multiple of those of keys, their elements one of {VALUE_PART}, widths of {LANES}"
        )));
    }
    // Of a large model, fewer tokens are remembered than it could.
    let context = shape.context.min(tokens_max(layers * key_heads, elements));
    if heads.saturating_mul(elements) > COLUMNS_MAX
        || !(VOCABULARY_MIN..=VOCABULARY_MAX).contains(&vocabulary)
        || context < 16
    {
        return Err(LoadError::Unsupported("its heads, vocabulary or context are out of bounds".into()));
    }
    if !(0.0..1.0).contains(&epsilon) {
        return Err(LoadError::Malformed("its epsilon is no small number".into()));
    }
    Ok(Shape { context, ..shape })
}

/// How fast pairs turn before they are stretched.
fn frequencies(base: f64, elements: usize) -> Result<Vec<f64>, LoadError> {
    if !(1.0..=1e12).contains(&base) {
        return Err(LoadError::Malformed(format!("the base of its positions is {base}")));
    }
    Ok((0..elements / 2).map(|pair| exact::power(base, -((2 * pair) as f64) / elements as f64)).collect())
}

/// Divides frequencies, which stays within what sines are computed for.
fn stretched(frequencies: &mut [f64], factors: impl Iterator<Item = f64>) -> Result<(), LoadError> {
    for (frequency, factor) in frequencies.iter_mut().zip(factors) {
        if !(0.1..=1e6).contains(&factor) {
            return Err(LoadError::Unsupported(format!("its positions are stretched by {factor}")));
        }
        *frequency /= factor;
    }
    Ok(())
}

/// The plan of a GGUF file.
///
/// # Errors
/// What is missing, unknown or out of bounds.
pub(super) fn of_gguf<R: Read + Seek>(gguf: &mut Gguf<R>) -> Result<Plan, LoadError> {
    match gguf.value("general.architecture") {
        Some(Value::Bytes(name)) if name == b"llama" => {}
        Some(Value::Bytes(name)) => {
            let name = String::from_utf8_lossy(name);
            return Err(LoadError::Unsupported(format!("its architecture is `{name}`; only `llama` is known")));
        }
        _ => return Err(LoadError::Malformed("it does not say its architecture".into())),
    }
    if gguf.number("llama.expert_count").is_some_and(|n| n > 0.0) {
        return Err(LoadError::Unsupported("it is a mixture of experts".into()));
    }
    let width = gguf.count("llama.embedding_length", COLUMNS_MAX)?;
    let heads = gguf.count("llama.attention.head_count", width)?;
    let elements = gguf.count_or("llama.attention.key_length", COLUMNS_MAX, width / heads)?;
    let shape = checked(Shape {
        vocabulary: gguf.extent("token_embd.weight").map_or(0, |(rows, _)| rows),
        width,
        heads,
        key_heads: gguf.count_or("llama.attention.head_count_kv", heads, heads)?,
        elements,
        hidden: gguf.count("llama.feed_forward_length", COLUMNS_MAX)?,
        layers: gguf.count("llama.block_count", LAYERS_MAX)?,
        context: gguf.count("llama.context_length", 1 << 24)?.min(CONTEXT_MAX),
        epsilon: gguf.number("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5) as f32,
    })?;
    if gguf.number("llama.rope.dimension_count").is_some_and(|n| n != elements as f64) {
        return Err(LoadError::Unsupported("only some elements of its heads turn with the position".into()));
    }
    let mut frequencies = frequencies(gguf.number("llama.rope.freq_base").unwrap_or(10_000.0), elements)?;
    match gguf.value("llama.rope.scaling.type") {
        None => {}
        Some(Value::Bytes(kind)) if kind == b"none" => {}
        Some(Value::Bytes(kind)) if kind == b"linear" => {
            let factor = gguf.number("llama.rope.scaling.factor").unwrap_or(1.0);
            stretched(&mut frequencies, std::iter::repeat(factor))?;
        }
        Some(_) => return Err(LoadError::Unsupported("its positions are scaled otherwise than linearly".into())),
    }
    const STRETCH: &str = "rope_freqs.weight";
    match gguf.extent(STRETCH) {
        None => {}
        Some((1, pairs)) if pairs == elements / 2 => {
            let mut factors = Vec::new();
            gguf.rows(STRETCH, &mut |_, row| {
                factors.extend(row.iter().map(|f| f64::from(*f)));
                Ok(())
            })?;
            stretched(&mut frequencies, factors.into_iter())?;
        }
        Some(_) => return Err(LoadError::Malformed(format!("tensor {STRETCH} is of another length than half a head"))),
    }
    Ok(Plan { shape, frequencies, neighbours: true })
}

/// The plan of a checkpoint, from its `config.json`, and the rows of its embeddings.
///
/// # Errors
/// What is missing, unknown or out of bounds.
pub(super) fn of_config(config: &Json, vocabulary: usize) -> Result<Plan, LoadError> {
    let text = |json: &Json, name: &str| json.get(name).and_then(Json::as_str).unwrap_or("").to_string();
    let kind = text(config, "model_type");
    if !matches!(kind.as_str(), "llama" | "mistral") {
        return Err(LoadError::Unsupported(format!("its model_type is `{kind}`; `llama` and `mistral` are known")));
    }
    for bias in ["attention_bias", "mlp_bias"] {
        if config.get(bias).and_then(Json::as_bool) == Some(true) {
            return Err(LoadError::Unsupported(format!("it has an {bias}")));
        }
    }
    let activation = text(config, "hidden_act");
    if !matches!(activation.as_str(), "silu" | "") {
        return Err(LoadError::Unsupported(format!("its hidden_act is `{activation}`; only `silu` is known")));
    }
    let width = config.count("hidden_size", COLUMNS_MAX)?;
    let heads = config.count("num_attention_heads", width)?;
    let elements = config.count_or("head_dim", COLUMNS_MAX, width / heads)?;
    let shape = checked(Shape {
        vocabulary,
        width,
        heads,
        key_heads: config.count_or("num_key_value_heads", heads, heads)?,
        elements,
        hidden: config.count("intermediate_size", COLUMNS_MAX)?,
        layers: config.count("num_hidden_layers", LAYERS_MAX)?,
        context: config.count("max_position_embeddings", 1 << 24)?.min(CONTEXT_MAX),
        epsilon: config.number("rms_norm_eps").unwrap_or(1e-6) as f32,
    })?;
    // Newer files put the base among what older ones call the scaling.
    let positions = ["rope_parameters", "rope_scaling"].iter().find_map(|n| config.get(n).filter(|p| p.is_object()));
    let positions = positions.unwrap_or(&Json::Null);
    let base = positions.number("rope_theta").or(config.number("rope_theta")).unwrap_or(10_000.0);
    let mut frequencies = frequencies(base, elements)?;
    let kind = ["rope_type", "type"].map(|name| text(positions, name)).concat();
    match kind.as_str() {
        "" | "default" | "defaultdefault" => {}
        "linear" | "linearlinear" => {
            let factor = positions.number("factor").unwrap_or(1.0);
            stretched(&mut frequencies, std::iter::repeat(factor))?;
        }
        "llama3" | "llama3llama3" => {
            let number = |name: &str| {
                positions.number(name).ok_or_else(|| LoadError::Malformed(format!("it does not say its {name}")))
            };
            let (factor, trained) = (number("factor")?, number("original_max_position_embeddings")?);
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            // Pairs that turn fast stay, slow ones are stretched, and those between in part.
            let factors: Vec<f64> = frequencies
                .iter()
                .map(|f| {
                    let turns = trained * f / std::f64::consts::TAU;
                    let part = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    1.0 / ((1.0 - part) / factor + part)
                })
                .collect();
            stretched(&mut frequencies, factors.into_iter())?;
        }
        _ => return Err(LoadError::Unsupported(format!("its positions are scaled by `{kind}`"))),
    }
    Ok(Plan { shape, frequencies, neighbours: false })
}
