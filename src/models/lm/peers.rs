//! Beside networks that others wrote in floats, candle-transformers', by the same checkpoints.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{gemma3, qwen2, qwen3};

use super::LanguageModel;
use super::step::{Row, Work};
use super::tests::llama::WINDOW;
use super::tests::{Files, checkpoint, loaded_checkpoint, relatives};

/// Tokens that are read: more than a window.
pub(super) const TOKENS: u32 = 120;

pub(super) fn token(n: u32) -> u32 {
    n * n * 13 % 250
}

/// All tensors of a checkpoint.
pub(super) fn tensors(files: &Files) -> HashMap<String, Tensor> {
    let parts = files.iter().filter(|(name, _)| name.ends_with(".safetensors"));
    parts.flat_map(|(_, bytes)| candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap()).collect()
}

/// Holds what a model says after each token against what another says, told the position and the token.
pub(super) fn hold(model: &LanguageModel, mut theirs: impl FnMut(usize, &Tensor) -> Vec<f32>) {
    let (mut work, mut streams) = (Work::default(), model.network.streams(1));
    let (mut least, mut excess, mut entropy) = (1f64, 0.0, 0.0);
    for position in 0..TOKENS {
        let token = token(position);
        let theirs = theirs(position as usize, &Tensor::new(&[[token]], &Device::Cpu).unwrap());
        model.network.step(model.path, &[Row { stream: 0, token }], &mut streams, &mut work);
        let whole = work.logits(&model.network, 0);
        assert_eq!(whole.len(), theirs.len());
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        least = least.min(dot(whole, &theirs) / (dot(whole, whole) * dot(&theirs, &theirs)).sqrt());
        let shares = |logits: &[f32]| -> Vec<f64> {
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            logits.iter().map(|x| f64::from(*x).exp() / total).collect()
        };
        for (p, q) in shares(&theirs).into_iter().zip(shares(whole)) {
            excess += p * (p / q).log2();
            entropy -= p * p.log2();
        }
    }
    assert!(least > 0.98, "the least cosine is {least}");
    assert!(excess < entropy * 0.02, "{excess} bits too many of {entropy}");
}

#[test]
fn relatives_of_a_llama_say_here_what_they_say_in_candle() {
    let [of_qwen2, of_qwen3, of_gemma3] = relatives().map(|file| {
        let files = checkpoint(&file);
        let weights = VarBuilder::from_tensors(tensors(&files), DType::F32, &Device::Cpu);
        (loaded_checkpoint(&files).unwrap(), weights)
    });
    let last = |logits: Tensor| logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();

    let (model, weights) = of_qwen2;
    let shape = &model.network.shape;
    let config = qwen2::Config {
        vocab_size: shape.vocabulary,
        hidden_size: shape.width,
        intermediate_size: shape.hidden,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        num_key_value_heads: shape.key_heads,
        max_position_embeddings: shape.context,
        sliding_window: shape.context,
        max_window_layers: 0,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    };
    let mut theirs = qwen2::ModelForCausalLM::new(&config, weights).unwrap();
    hold(&model, |position, read| last(theirs.forward(read, position).unwrap()));

    let (model, weights) = of_qwen3;
    let shape = &model.network.shape;
    let config = qwen3::Config {
        vocab_size: shape.vocabulary,
        hidden_size: shape.width,
        intermediate_size: shape.hidden,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        head_dim: shape.elements,
        attention_bias: false,
        num_key_value_heads: shape.key_heads,
        max_position_embeddings: shape.context,
        sliding_window: None,
        max_window_layers: 0,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    };
    let mut theirs = qwen3::ModelForCausalLM::new(&config, weights).unwrap();
    hold(&model, |position, read| last(theirs.forward(read, position).unwrap()));

    let (model, weights) = of_gemma3;
    let shape = &model.network.shape;
    let config = gemma3::Config {
        attention_bias: false,
        head_dim: shape.elements,
        hidden_activation: Activation::GeluPytorchTanh,
        hidden_size: shape.width,
        intermediate_size: shape.hidden,
        num_attention_heads: shape.heads,
        num_hidden_layers: shape.layers,
        num_key_value_heads: shape.key_heads,
        rms_norm_eps: 1e-5,
        rope_theta: 100_000.0,
        rope_local_base_freq: 10_000.0,
        vocab_size: shape.vocabulary,
        final_logit_softcapping: None,
        attn_logit_softcapping: None,
        query_pre_attn_scalar: shape.elements,
        sliding_window: WINDOW,
        sliding_window_pattern: 6,
        max_position_embeddings: shape.context,
    };
    let mut theirs = gemma3::Model::new(false, &config, weights).unwrap();
    hold(&model, |position, read| last(theirs.forward(read, position).unwrap()));
}
