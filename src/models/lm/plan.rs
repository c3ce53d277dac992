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
use super::step::{Activation, Extras, Near, Shape};

/// Longest context that is used, tokens: that of a model may be longer.
pub(super) const CONTEXT_MAX: usize = 8192;
pub(super) const LAYERS_MAX: usize = 512;
/// As many tokens as there are bytes: more than the candidates that are asked about before shares.
const VOCABULARY_MIN: usize = 256;

/// What a model's files say before their tensors are read.
#[derive(Debug)]
pub(super) struct Plan {
    pub shape: Shape,
    /// How fast each pair of elements turns, radians a position.
    pub frequencies: Vec<f64>,
    /// The same where only what is near is seen.
    pub near_frequencies: Vec<f64>,
    /// Elements that turn together are neighbours in the file's rows, not half a head apart.
    pub neighbours: bool,
    pub family: Family,
    /// Weights of norms are this less in the file than they are.
    pub norm_offset: f32,
    /// Whether tokens are predicted by their embeddings; `None` where the file has what they are predicted by, or not.
    pub tied: Option<bool>,
}

/// A family of networks. What else differs between them is in a `Shape`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    /// Llama, SmolLM2, Mistral.
    Llama,
    /// With biases of queries, keys and values.
    Qwen2,
    /// With norms of the heads of queries and keys.
    Qwen3,
    /// With those, and norms after attention and gates.
    Gemma3,
}

/// Names that GGUF files and checkpoints have for families.
const FAMILIES: [(&str, &str, Family); 5] = [
    ("llama", "llama", Family::Llama),
    ("llama", "mistral", Family::Llama),
    ("qwen2", "qwen2", Family::Qwen2),
    ("qwen3", "qwen3", Family::Qwen3),
    ("gemma3", "gemma3_text", Family::Gemma3),
];
/// Tensors of a layer of any family.
const OF_LAYER: [&str; 9] = [
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
];
/// Those of some families.
pub(super) const BIASES: [&str; 3] = ["attn_q.bias", "attn_k.bias", "attn_v.bias"];
pub(super) const HEAD_NORMS: [&str; 2] = ["attn_q_norm.weight", "attn_k_norm.weight"];
pub(super) const POST_NORMS: [&str; 2] = ["post_attention_norm.weight", "post_ffw_norm.weight"];

impl Family {
    pub fn has_biases(self) -> bool {
        self == Family::Qwen2
    }

    pub fn has_head_norms(self) -> bool {
        matches!(self, Family::Qwen3 | Family::Gemma3)
    }

    pub fn has_post_norms(self) -> bool {
        self == Family::Gemma3
    }

    /// The family that a checkpoint's `config.json` says it is of.
    ///
    /// # Errors
    /// When it is another.
    pub fn of_config(config: &Json) -> Result<Family, LoadError> {
        let kind = text(config, "model_type");
        let found = FAMILIES.iter().find(|(_, of_hub, _)| *of_hub == kind);
        found.map(|(.., family)| *family).ok_or_else(|| {
            let known = FAMILIES.map(|(_, of_hub, _)| of_hub).join(", ");
            LoadError::Unsupported(format!("its model_type is `{kind}`; known are {known}"))
        })
    }
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json.get(name).and_then(Json::as_str).unwrap_or("")
}

impl Plan {
    /// True for tensors that networks of the family have, by the names that GGUF has for them.
    pub fn has(&self, tensor: &str) -> bool {
        let of_layer = |rest: &str| {
            let (layer, what) = rest.split_once('.')?;
            let layer: usize = layer.parse().ok()?;
            let more = [
                (self.family.has_biases(), &BIASES[..]),
                (self.family.has_head_norms(), &HEAD_NORMS),
                (self.family.has_post_norms(), &POST_NORMS),
            ];
            let known = OF_LAYER.contains(&what) || more.iter().any(|(has, names)| *has && names.contains(&what));
            Some(layer < self.shape.layers && known)
        };
        match tensor.strip_prefix("blk.") {
            Some(rest) => of_layer(rest) == Some(true),
            None => ["token_embd.weight", "output.weight", "output_norm.weight", STRETCH].contains(&tensor),
        }
    }

    /// Whether there is a matrix of its own that tokens are predicted by.
    pub fn has_head(&self, tensors: &impl Tensors) -> bool {
        self.tied.map_or_else(|| tensors.extent("output.weight").is_some(), |tied| !tied)
    }

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
pub(super) fn checked(shape: Shape) -> Result<Shape, LoadError> {
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

/// What every pair's angle is divided by, where a file has it.
const STRETCH: &str = "rope_freqs.weight";
/// Of so many layers of Gemma 3, all but the last look back only so far.
const NEAR_EVERY: usize = 6;

/// What is Gemma's own: scores by `score_square`, a window, and how fast pairs turn within it.
fn gemma(width: usize, score_square: f64, near: Near) -> Extras {
    Extras {
        embedding_factor: Some((width as f32).sqrt()),
        score_square: Some(score_square as f32),
        activation: Activation::Gelu,
        near: Some(near),
        ..Extras::default()
    }
}

/// The plan of a GGUF file.
///
/// # Errors
/// What is missing, unknown or out of bounds.
pub(super) fn of_gguf<R: Read + Seek>(gguf: &mut Gguf<R>) -> Result<Plan, LoadError> {
    let architecture = match gguf.value("general.architecture") {
        Some(Value::Bytes(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => return Err(LoadError::Malformed("it does not say its architecture".into())),
    };
    let unsupported = |what: String| Err(LoadError::Unsupported(what));
    let Some((_, _, family)) = FAMILIES.iter().copied().find(|(of_gguf, ..)| *of_gguf == architecture) else {
        let mut known = FAMILIES.map(|(of_gguf, ..)| of_gguf).to_vec();
        known.dedup();
        return unsupported(format!("its architecture is `{architecture}`; known are {}", known.join(", ")));
    };
    let name = |what: &str| format!("{architecture}.{what}");
    if gguf.number(&name("expert_count")).is_some_and(|n| n > 0.0) {
        return unsupported("it is a mixture of experts".into());
    }
    let strange =
        ["attn_logit_softcapping", "final_logit_softcapping", "attention.scale", "logit_scale", "residual_scale"];
    if let Some(what) = strange.iter().find(|what| gguf.number(&name(what)).is_some_and(|n| n != 0.0)) {
        return unsupported(format!("it has an {what}, which is not known"));
    }
    if gguf.number(&name("attention.causal")) == Some(0.0) {
        return unsupported("it looks at what comes after a token, too".into());
    }
    let width = gguf.count(&name("embedding_length"), COLUMNS_MAX)?;
    let heads = gguf.count(&name("attention.head_count"), width)?;
    let elements = gguf.count_or(&name("attention.key_length"), COLUMNS_MAX, width / heads)?;
    if gguf.number(&name("attention.value_length")).is_some_and(|n| n != elements as f64) {
        return unsupported("its values have other heads than its keys".into());
    }
    let layers = gguf.count(&name("block_count"), LAYERS_MAX)?;
    let mut context = gguf.count(&name("context_length"), 1 << 24)?.min(CONTEXT_MAX);
    let window = gguf.number(&name("attention.sliding_window")).filter(|n| *n > 0.0);
    let (mut extras, mut near_frequencies) = (Extras::default(), Vec::new());
    if family == Family::Gemma3 {
        let Some(window) = window else {
            return Err(LoadError::Malformed("it does not say its attention.sliding_window".into()));
        };
        let pattern = name("attention.sliding_window_pattern");
        let known = match gguf.value(&pattern) {
            None => true,
            Some(Value::Number(every)) => *every == NEAR_EVERY as f64,
            Some(Value::Numbers(each)) => {
                (1..).zip(each).all(|(n, is_near)| (n % NEAR_EVERY != 0) == (*is_near != 0.0))
            }
            Some(_) => false,
        };
        if !known {
            return unsupported(format!("its {pattern} is not that of one in {NEAR_EVERY} layers"));
        }
        // The largest, of 62 layers, divides by another number, which files do not say.
        let score_square = if layers == 62 { width / heads } else { elements };
        extras = gemma(width, score_square as f64, Near { every: NEAR_EVERY, window: window as usize });
        let base = gguf.number(&name("rope.freq_base_swa")).unwrap_or(10_000.0);
        near_frequencies = frequencies(base, elements)?;
    } else if let Some(window) = window {
        // A stream that reads no more than the window sees all that it would in the model's own way.
        context = context.min(window as usize);
    }
    let shape = checked(Shape {
        vocabulary: gguf.extent("token_embd.weight").map_or(0, |(rows, _)| rows),
        width,
        heads,
        key_heads: gguf.count_or(&name("attention.head_count_kv"), heads, heads)?,
        elements,
        hidden: gguf.count(&name("feed_forward_length"), COLUMNS_MAX)?,
        layers,
        context,
        epsilon: gguf.number(&name("attention.layer_norm_rms_epsilon")).unwrap_or(1e-5) as f32,
        extras,
    })?;
    if gguf.number(&name("rope.dimension_count")).is_some_and(|n| n != elements as f64) {
        return unsupported("only some elements of its heads turn with the position".into());
    }
    let mut frequencies = frequencies(gguf.number(&name("rope.freq_base")).unwrap_or(10_000.0), elements)?;
    match gguf.value(&name("rope.scaling.type")) {
        None => {}
        Some(Value::Bytes(kind)) if kind == b"none" => {}
        Some(Value::Bytes(kind)) if kind == b"linear" => {
            let factor = gguf.number(&name("rope.scaling.factor")).unwrap_or(1.0);
            stretched(&mut frequencies, std::iter::repeat(factor))?;
        }
        Some(_) => return unsupported("its positions are scaled otherwise than linearly".into()),
    }
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
    // The makers of GGUF files turn round the rows of Llamas only.
    let neighbours = family == Family::Llama;
    Ok(Plan { shape, frequencies, near_frequencies, neighbours, family, norm_offset: 0.0, tied: None })
}

/// The plan of a checkpoint, from its `config.json`, and the rows of its embeddings.
///
/// # Errors
/// What is missing, unknown or out of bounds.
pub(super) fn of_config(config: &Json, vocabulary: usize) -> Result<Plan, LoadError> {
    let family = Family::of_config(config)?;
    let unsupported = |what: String| Err(LoadError::Unsupported(what));
    let is_set = |name: &str| !matches!(config.get(name), None | Some(Json::Null | Json::Bool(false)));
    let strange = ["attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention", "mlp_bias"];
    if let Some(what) = strange.iter().find(|what| is_set(what)) {
        return unsupported(format!("it has a {what}, which is not known"));
    }
    // Qwen 2 has some of them, and does not say so.
    if is_set("attention_bias") {
        return unsupported("it has an attention_bias, which is not known".into());
    }
    if config.number("partial_rotary_factor").is_some_and(|part| part != 1.0) {
        return unsupported("only some elements of its heads turn with the position".into());
    }
    let is_gemma = family == Family::Gemma3;
    let activations = ["hidden_act", "hidden_activation"].map(|name| text(config, name));
    let known = if is_gemma { "gelu_pytorch_tanh" } else { "silu" };
    if let Some(other) = activations.iter().find(|activation| !activation.is_empty() && **activation != known) {
        return unsupported(format!("its activation is `{other}`; only `{known}` is known"));
    }
    let width = config.count("hidden_size", COLUMNS_MAX)?;
    let heads = config.count("num_attention_heads", width)?;
    let elements = config.count_or("head_dim", COLUMNS_MAX, width / heads)?;
    let layers = config.count("num_hidden_layers", LAYERS_MAX)?;
    let mut context = config.count("max_position_embeddings", 1 << 24)?.min(CONTEXT_MAX);
    // Newer files put the base among what older ones call the scaling, and have one for each kind of layers.
    let of_kind = |kind: &str| config.get("rope_parameters").and_then(|all| all.get(kind)).filter(|p| p.is_object());
    let positions = of_kind("full_attention")
        .or(["rope_parameters", "rope_scaling"].iter().find_map(|n| config.get(n).filter(|p| p.is_object())))
        .unwrap_or(&Json::Null);
    let (mut extras, mut near_frequencies) = (Extras::default(), Vec::new());
    let slides = config.get("use_sliding_window").and_then(Json::as_bool) != Some(false);
    if is_gemma {
        let window = config.count("sliding_window", 1 << 24)?;
        let every = ["sliding_window_pattern", "_sliding_window_pattern"].iter().find_map(|n| config.number(n));
        let kinds = config.get("layer_types").and_then(Json::as_array).into_iter().flatten();
        let is_near = |kind: &Json| kind.as_str() == Some("sliding_attention");
        if every.is_some_and(|every| every != NEAR_EVERY as f64)
            || !(1..).zip(kinds).all(|(n, kind)| (n % NEAR_EVERY != 0) == is_near(kind))
        {
            return unsupported(format!("its layers with a window are not those of one in {NEAR_EVERY}"));
        }
        let score_square = config.number("query_pre_attn_scalar").unwrap_or(256.0);
        if !(1.0..=1e6).contains(&score_square) {
            return Err(LoadError::Malformed(format!("its query_pre_attn_scalar is {score_square}")));
        }
        extras = gemma(width, score_square, Near { every: NEAR_EVERY, window });
        let base = of_kind("sliding_attention").and_then(|p| p.number("rope_theta"));
        near_frequencies = frequencies(base.or(config.number("rope_local_base_freq")).unwrap_or(10_000.0), elements)?;
    } else if slides && config.get("sliding_window").is_some_and(|window| !window.is_null()) {
        // A stream that reads no more than the window sees all that it would in the model's own way.
        context = context.min(config.count("sliding_window", 1 << 24)?);
    }
    let shape = checked(Shape {
        vocabulary,
        width,
        heads,
        key_heads: config.count_or("num_key_value_heads", heads, heads)?,
        elements,
        hidden: config.count("intermediate_size", COLUMNS_MAX)?,
        layers,
        context,
        epsilon: config.number("rms_norm_eps").unwrap_or(1e-6) as f32,
        extras,
    })?;
    let base = positions.number("rope_theta").or(config.number("rope_theta"));
    let mut frequencies = frequencies(base.unwrap_or(if is_gemma { 1e6 } else { 10_000.0 }), elements)?;
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
        _ => return unsupported(format!("its positions are scaled by `{kind}`")),
    }
    let norm_offset = if is_gemma { 1.0 } else { 0.0 };
    let tied = config.get("tie_word_embeddings").and_then(Json::as_bool);
    Ok(Plan { shape, frequencies, near_frequencies, neighbours: false, family, norm_offset, tied })
}
