//! Beside networks that others wrote in floats, candle-transformers', by the same checkpoints; and beside a GPT-2 in floats that is
//! written here, which that library does not have.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{gemma3, qwen2, qwen3};

use super::patches::{CLASSES, PADDING};
use super::step::{Row, Work};
use super::tests::llama::WINDOW;
use super::tests::{Files, checkpoint, loaded_checkpoint, relatives};
use super::tests_of_bytes::{gpt, of_bytes, of_images};
use super::{BEGINNINGS, LanguageModel};

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

/// How far logits are from those of another.
struct Apart {
    least: f64,
    excess: f64,
    entropy: f64,
}

impl Apart {
    fn new() -> Apart {
        Apart { least: 1.0, excess: 0.0, entropy: 0.0 }
    }

    fn add(&mut self, ours: &[f32], theirs: &[f32]) {
        assert_eq!(ours.len(), theirs.len());
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        self.least = self.least.min(dot(ours, theirs) / (dot(ours, ours) * dot(theirs, theirs)).sqrt());
        let shares = |logits: &[f32]| -> Vec<f64> {
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            logits.iter().map(|x| f64::from(*x).exp() / total).collect()
        };
        for (p, q) in shares(theirs).into_iter().zip(shares(ours)) {
            self.excess += p * (p / q).log2();
            self.entropy -= p * p.log2();
        }
    }

    fn hold(&self) {
        let Apart { least, excess, entropy } = self;
        assert!(*least > 0.98, "the least cosine is {least}");
        assert!(*excess < entropy * 0.02, "{excess} bits too many of {entropy}");
    }
}

/// Holds what a model says after each token against what another says, told the position and the token.
pub(super) fn hold(model: &LanguageModel, mut theirs: impl FnMut(usize, &Tensor) -> Vec<f32>) {
    let (mut work, mut streams, mut apart) = (Work::default(), model.network.streams(1), Apart::new());
    for position in 0..TOKENS {
        let token = token(position);
        let theirs = theirs(position as usize, &Tensor::new(&[[token]], &Device::Cpu).unwrap());
        model.network.step(model.path, &[Row { stream: 0, token }], &mut streams, &mut work);
        apart.add(work.logits(&model.network, 0), &theirs);
    }
    apart.hold();
}

#[test]
fn relatives_of_a_llama_say_here_what_they_say_in_candle() {
    for (files, theirs) in relatives_in_candle() {
        hold(&loaded_checkpoint(&files).unwrap(), |position, _| theirs[position].clone());
    }
}

/// What a network of candle says after a token at a position.
type Forward = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;

/// A checkpoint of each family but Llama's, and what candle says after each token.
pub(super) fn relatives_in_candle() -> [(Files, Vec<Vec<f32>>); 3] {
    let [of_qwen2, of_qwen3, of_gemma3] = relatives().map(|file| {
        let files = checkpoint(&file);
        let weights = VarBuilder::from_tensors(tensors(&files), DType::F32, &Device::Cpu);
        let shape = loaded_checkpoint(&files).unwrap().network.shape.clone();
        (files, shape, weights)
    });
    let said = |mut theirs: Forward| -> Vec<Vec<f32>> {
        let token = |n| Tensor::new(&[[token(n)]], &Device::Cpu).unwrap();
        let mut after = |n: u32| theirs(&token(n), n as usize).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        (0..TOKENS).map(&mut after).collect()
    };

    let (files, shape, weights) = of_qwen2;
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
    let by_qwen2 = (files, said(Box::new(move |read, position| theirs.forward(read, position))));

    let (files, shape, weights) = of_qwen3;
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
    let by_qwen3 = (files, said(Box::new(move |read, position| theirs.forward(read, position))));

    let (files, shape, weights) = of_gemma3;
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
    let by_gemma3 = (files, said(Box::new(move |read, position| theirs.forward(read, position))));

    [by_qwen2, by_qwen3, by_gemma3]
}

/// The states of all tokens after a network of the shape of GPT-2, as its papers write it, of tensors whose names begin so.
fn states(tensors: &HashMap<String, Tensor>, prefix: &str, heads: usize, x: &Tensor) -> Tensor {
    let of = |name: &str| tensors.get(&format!("{prefix}{name}"));
    let linear = |name: &str, x: &Tensor| {
        let (weights, bias) = (of(&format!("{name}.weight")).unwrap(), of(&format!("{name}.bias")).unwrap());
        x.matmul(weights).unwrap().broadcast_add(bias).unwrap()
    };
    let norm = |name: &str, x: &Tensor| {
        let (weights, bias) = (of(&format!("{name}.weight")).unwrap(), of(&format!("{name}.bias")));
        let mean = x.mean_keepdim(D::Minus1).unwrap();
        let x = if bias.is_some() { x.broadcast_sub(&mean).unwrap() } else { x.clone() };
        let root = (x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + 1e-5).unwrap().sqrt().unwrap();
        let x = x.broadcast_div(&root).unwrap().broadcast_mul(weights).unwrap();
        bias.map_or(x.clone(), |bias| x.broadcast_add(bias).unwrap())
    };
    let (tokens, width) = x.dims2().unwrap();
    let elements = width / heads;
    let mask = |at: usize| (0..tokens).map(move |t| if t > at { f32::NEG_INFINITY } else { 0.0 });
    let mask: Vec<f32> = (0..tokens).flat_map(mask).collect();
    let mask = Tensor::from_vec(mask, (tokens, tokens), &Device::Cpu).unwrap();
    let mut x = (x + of("wpe.weight").unwrap().narrow(0, 0, tokens).unwrap()).unwrap();
    let layers = (0..).map(|n| format!("h.{n}")).take_while(|layer| of(&format!("{layer}.ln_1.weight")).is_some());
    for layer in layers {
        let name = |what: &str| format!("{layer}.{what}");
        let all = linear(&name("attn.c_attn"), &norm(&name("ln_1"), &x));
        let [queries, keys, values] = [0, 1, 2].map(|n| {
            let part = all.narrow(1, n * width, width).unwrap().reshape((tokens, heads, elements)).unwrap();
            part.transpose(0, 1).unwrap().contiguous().unwrap()
        });
        let scores = (queries.matmul(&keys.t().unwrap()).unwrap() / (elements as f64).sqrt()).unwrap();
        let shares = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), D::Minus1).unwrap();
        let mixed = shares.matmul(&values).unwrap().transpose(0, 1).unwrap().contiguous().unwrap();
        x = (x + linear(&name("attn.c_proj"), &mixed.reshape((tokens, width)).unwrap())).unwrap();
        let hidden = linear(&name("mlp.c_fc"), &norm(&name("ln_2"), &x));
        let is_centred = of(&name("ln_1.bias")).is_some();
        let hidden = match is_centred {
            true => hidden.gelu().unwrap(),
            false => (candle_nn::ops::sigmoid(&(&hidden * 1.702).unwrap()).unwrap() * hidden).unwrap(),
        };
        x = (x + linear(&name("mlp.c_proj"), &hidden)).unwrap();
    }
    norm("ln_f", &x)
}

/// Values below 256 of each row.
fn said(logits: &Tensor) -> Vec<Vec<f32>> {
    logits.narrow(1, 0, 256).unwrap().to_vec2().unwrap()
}

/// What a model of bytes says after each of the tokens, and after the beginning before them.
fn ours(model: &LanguageModel, tokens: &[u32], mut each: impl FnMut(&[f32])) {
    let (mut work, mut streams) = (Work::default(), model.streams(1));
    for token in [model.tokens.start].iter().chain(tokens) {
        model.step(&[Row { stream: 0, token: *token }], &mut streams, &mut work);
        each(work.logits(&model.network, 0));
    }
}

#[test]
fn models_of_images_and_bytes_say_what_they_say_in_floats() {
    let tokens: Vec<u32> = (0..TOKENS).map(token).collect();
    let load = |tensors: &[gpt::Tensor]| {
        candle_core::safetensors::load_buffer(&gpt::safetensors(tensors), &Device::Cpu).unwrap()
    };
    let rows = |table: &Tensor, ids: &[u32]| table.index_select(&Tensor::new(ids, &Device::Cpu).unwrap(), 0).unwrap();

    let tensors = load(&gpt::igpt());
    let read: Vec<u32> = [256].into_iter().chain(tokens.iter().copied()).collect();
    let x = rows(&tensors["transformer.wte.weight"], &read);
    let states_of_images = states(&tensors, "transformer.", gpt::HEADS, &x);
    let mut theirs = said(&states_of_images.matmul(&tensors["lm_head.weight"].t().unwrap()).unwrap()).into_iter();
    let mut apart = Apart::new();
    ours(&of_images(), &tokens, |ours| apart.add(ours, &theirs.next().unwrap()));
    apart.hold();

    let tensors = load(&gpt::bgpt());
    let beginning: Vec<u32> = BEGINNINGS[0].iter().map(|byte| u32::from(*byte)).collect();
    let mut patches = vec![beginning];
    patches.extend(tokens.chunks(gpt::PATCH).map(<[u32]>::to_vec));
    patches.iter_mut().for_each(|patch| patch.resize(gpt::PATCH, PADDING));
    // A one for each byte at its place, as the network was trained.
    let mut ones = vec![0f32; patches.len() * gpt::PATCH * CLASSES];
    for (n, byte) in patches.iter().flatten().enumerate() {
        ones[n * CLASSES + *byte as usize] = 1.0;
    }
    let ones = Tensor::from_vec(ones, (patches.len(), gpt::PATCH * CLASSES), &Device::Cpu).unwrap();
    let of_patches = ones.matmul(&tensors["patch_level_decoder.patch_embedding.weight"].t().unwrap()).unwrap();
    let of_patches = of_patches.broadcast_add(&tensors["patch_level_decoder.patch_embedding.bias"]).unwrap();
    let of_patches = states(&tensors, "patch_level_decoder.base.", 1, &of_patches);
    let table = &tensors["byte_level_decoder.base.transformer.wte.weight"];
    let mut theirs = Vec::new();
    for (n, patch) in tokens.chunks(gpt::PATCH).enumerate() {
        let first = of_patches.narrow(0, n, 1).unwrap();
        let x = Tensor::cat(&[first, rows(table, patch)], 0).unwrap();
        let x = states(&tensors, "byte_level_decoder.base.transformer.", 1, &x);
        theirs.extend(said(&x.matmul(&table.t().unwrap()).unwrap()).into_iter().take(patch.len()));
    }
    let (mut theirs, mut apart) = (theirs.into_iter(), Apart::new());
    ours(&of_bytes(), &tokens[..TOKENS as usize - 1], |ours| apart.add(ours, &theirs.next().unwrap()));
    assert!(theirs.next().is_none());
    apart.hold();
}

/// The archives that the tests write are such as another reader of them reads.
#[test]
fn archives_are_read_as_candle_reads_them() {
    let tensors = gpt::bgpt();
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = gpt::pth(&tensors, Some("model"));
    std::io::Write::write_all(&mut file.as_file(), &bytes).unwrap();
    let theirs = candle_core::pickle::PthTensors::new(file.path(), Some("model")).unwrap();
    let spliced = super::as_safetensors(std::io::Cursor::new(&bytes)).unwrap();
    let parts = spliced.parts.iter().flat_map(|(at, len)| &bytes[*at as usize..][..*len as usize]);
    let whole: Vec<u8> = spliced.head.iter().chain(parts).copied().collect();
    let ours = candle_core::safetensors::load_buffer(&whole, &Device::Cpu).unwrap();
    assert_eq!(ours.len() + 6, tensors.len(), "all but the masks of three layers");
    for (name, tensor) in ours {
        let theirs = theirs.get(&name).unwrap().unwrap();
        assert_eq!(theirs.dims(), tensor.dims(), "{name}");
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(flat(&theirs) == flat(&tensor), "{name}");
    }
}
