use std::collections::BTreeMap;
use std::io::Cursor;

use super::super::peers::{TOKENS, hold, relatives_in_candle, tensors, token};
use candle_core::Device;
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama};

use super::super::load;
use super::super::tests::{
    Files, NEVER, checkpoint, coded, loaded, loaded_checkpoint, merged, opening, reference, relatives, sample, tiny,
    tiny_of,
};
use super::super::training::{Advance, parted};
use super::*;

fn recipe() -> Recipe {
    let course =
        Course { learning_rate: 2e-2, window: 64, batch_tokens: 256, steps: Some(24), judged_steps: 8, seed: 1 };
    Recipe { rank: 4, alpha: 8.0, course, ..Recipe::default() }
}

/// A text that a model of noise has much to learn of.
fn text(lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|n| format!("the and 12 in the {} and\r\n", n % 7).into_bytes()).collect()
}

fn trainer(texts: &[Vec<u8>], recipe: Recipe, kept: Option<&[u8]>) -> Result<AdapterTrainer, TrainError> {
    AdapterTrainer::of_gguf(Cursor::new(tiny().bytes()), texts, recipe, kept)
}

/// Does all steps; gives what was judged.
fn run(trainer: &mut AdapterTrainer) -> Vec<f64> {
    let mut judged = Vec::new();
    while let Some(advance) = trainer.advance().unwrap() {
        if let Advance::Judged { bits_per_byte, .. } = advance {
            judged.push(bits_per_byte);
        }
    }
    judged
}

fn files(trainer: &AdapterTrainer) -> Files {
    trainer.files().unwrap().into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect()
}

/// Gives variables that are nothing yet some noise.
fn stir(trainer: &AdapterTrainer) {
    let mut chance = Chance(7);
    for var in &trainer.optimizer.vars {
        let noise: Vec<f32> = (0..var.elem_count()).map(|_| chance.normal() * 0.05).collect();
        var.set(&Tensor::from_vec(noise, var.dims2().unwrap(), var.device()).unwrap()).unwrap();
    }
}

/// What is trained is what is coded with: the network's outcome is that of the papers, also with an adapter.
#[test]
fn logits_are_those_of_the_network_in_64_bits() {
    let file = tiny();
    let mut trainer = trainer(&[text(80)], recipe(), None).unwrap();
    let tokens: Vec<u32> = (0..60).map(|n| n * n * 13 % 250).collect();
    let check = |trainer: &AdapterTrainer, exact: Vec<Vec<f64>>| {
        let ours = trainer.subject.network.logits(&tokens).unwrap();
        for (ours, exact) in ours.iter().zip(&exact) {
            for (a, b) in ours.iter().zip(exact) {
                assert!((f64::from(*a) - b).abs() < 2e-3, "{a}, {b}");
            }
        }
    };
    check(&trainer, reference(&file, &tokens));
    stir(&trainer);
    trainer.judge().unwrap();
    let mut adapter = files(&trainer);
    let tensors: Vec<_> = trainer
        .subject
        .places
        .iter()
        .zip(trainer.best.tensors.as_chunks::<2>().0)
        .flat_map(|((layer, which), pair)| {
            ["lora_A", "lora_B"].into_iter().zip(pair).map(move |(half, tensor)| {
                let name = format!("base_model.model.model.layers.{layer}.{}.{half}.weight", which.names().0);
                (name, "F32", tensor.dims().to_vec(), elements(tensor).unwrap())
            })
        })
        .collect();
    adapter.insert("adapter_model.safetensors".into(), safetensors::file(&BTreeMap::new(), &tensors));
    check(&trainer, reference(&merged(&file, &adapter, 2.0), &tokens));
}

/// The arithmetic of whole numbers, and ours in floats, beside a Llama that others wrote: candle-transformers', by the same
/// checkpoint.
#[test]
fn a_checkpoint_says_here_what_it_says_in_candle() {
    let mut file = tiny_of(2, 1);
    file.tensors.retain(|(name, ..)| name != "rope_freqs.weight");
    let files = checkpoint(&file);
    let model = loaded_checkpoint(&files).unwrap();
    let ours = AdapterTrainer::of_checkpoint(&opening(&files), &[text(80)], recipe(), None).unwrap();

    let tensors = tensors(&files);
    let shape = &model.network.shape;
    let config = Config {
        hidden_size: shape.width,
        intermediate_size: shape.hidden,
        vocab_size: shape.vocabulary,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        num_key_value_heads: shape.key_heads,
        max_position_embeddings: shape.context,
        ..Config::config_7b_v1(false)
    };
    let config = Config { rms_norm_eps: 1e-5, ..config };
    let theirs = Llama::load(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config).unwrap();
    let mut cache = Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();

    let tokens: Vec<u32> = (0..TOKENS).map(token).collect();
    let in_floats = ours.subject.network.logits(&tokens).unwrap();
    hold(&model, |position, read| {
        let theirs = theirs.forward(read, position, &mut cache).unwrap().squeeze(0).unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in in_floats[position].iter().zip(&theirs) {
            assert!((a - b).abs() < 1e-3, "token {position}: {a}, {b}");
        }
        theirs
    });
}

/// So it is with the relatives of a Llama: biases, norms of heads and of what is added, and layers that see what is near.
#[test]
fn relatives_say_here_what_they_say_in_candle() {
    let tokens: Vec<u32> = (0..TOKENS).map(token).collect();
    for (files, theirs) in relatives_in_candle() {
        let ours = AdapterTrainer::of_checkpoint(&opening(&files), &[text(80)], recipe(), None).unwrap();
        for (ours, theirs) in ours.subject.network.logits(&tokens).unwrap().iter().zip(&theirs) {
            for (a, b) in ours.iter().zip(theirs) {
                assert!((a - b).abs() < 2e-3, "{a}, {b}");
            }
        }
    }
}

/// Gradients are those that differences show.
#[test]
fn gradients_are_slopes() {
    slopes(trainer(&[text(80)], recipe(), None).unwrap());
    for file in relatives() {
        slopes(AdapterTrainer::of_gguf(Cursor::new(file.bytes()), &[text(80)], recipe(), None).unwrap());
    }
}

fn slopes(trainer: AdapterTrainer) {
    stir(&trainer);
    let window = &trainer.training[0];
    let mut masks = Masks::default();
    let mut nats = || {
        let (bits, mean) = trainer.subject.network.bits(&window.read, &window.next, true, &mut masks).unwrap();
        (bits * std::f64::consts::LN_2, mean.unwrap())
    };
    let store = nats().1.backward().unwrap();
    // Each matrix of both layers, both sides: along the gradient, which floats resolve.
    for (n, var) in trainer.optimizer.vars.iter().enumerate() {
        let gradient = store.get(var).unwrap();
        let square = f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        let begin = var.as_detached_tensor().copy().unwrap();
        let mut moved = |by: f64| {
            var.set(&(&begin + (gradient * (by / square.sqrt())).unwrap()).unwrap()).unwrap();
            nats().0
        };
        let by = 2e-2;
        let slope = (moved(by) - moved(-by)) / (2.0 * by);
        moved(0.0);
        assert!((slope / square.sqrt() - 1.0).abs() < 0.02, "variable {n}: {slope}, {}", square.sqrt());
    }
}

/// An adapter that was trained to a relative is added to it as to any other.
#[test]
fn relatives_learn_what_they_are_coded_with() {
    for file in relatives() {
        let mut trainer = AdapterTrainer::of_gguf(Cursor::new(file.bytes()), &[text(400)], recipe(), None).unwrap();
        run(&mut trainer);
        let (before, after) = trainer.held_out();
        assert!(after < before * 0.8, "{before}, {after}");
        let adapter = files(&trainer);
        let with = load(Cursor::new(file.bytes()), Some(&opening(&adapter))).unwrap();
        let raw = &text(500)[9000..];
        let (with_it, without_it) = (coded(&with, raw, 1 << 12), coded(&loaded(&file).unwrap(), raw, 1 << 12));
        assert!(with_it.len() < without_it.len(), "{}, {}", with_it.len(), without_it.len());
        assert_eq!(with.decode(&with_it, raw.len(), &NEVER).unwrap(), raw);
    }
}

#[test]
fn a_text_that_repeats_comes_to_take_fewer_bits() {
    let mut trainer = trainer(&[text(400)], recipe(), None).unwrap();
    let judged = run(&mut trainer);
    assert_eq!(judged.len(), 4);
    let (before, after) = trainer.held_out();
    assert_eq!(before, judged[0]);
    assert!(after < before * 0.7, "{judged:?}");
    // So it does in the coder, on a text of the kind that it was not shown.
    let adapter = files(&trainer);
    let with = load(Cursor::new(tiny().bytes()), Some(&opening(&adapter))).unwrap();
    let without = loaded(&tiny()).unwrap();
    let raw = &text(500)[9000..];
    let (with_it, without_it) = (coded(&with, raw, 1 << 12), coded(&without, raw, 1 << 12));
    assert!(with_it.len() < without_it.len(), "{}, {}", with_it.len(), without_it.len());
    assert_eq!(with.decode(&with_it, raw.len(), &NEVER).unwrap(), raw);
}

/// An adapter takes a quarter of the space in a store.
#[test]
fn elements_are_rounded_to_few_levels() {
    let noise: Vec<f32> = text(60)
        .iter()
        .scan(1u32, |x, byte| {
            *x = x.wrapping_mul(1664525).wrapping_add(1013904223 + u32::from(*byte));
            Some(((*x >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.013)
        })
        .collect();
    let tensor = Tensor::from_slice(&noise, noise.len(), &Device::Cpu).unwrap();
    let coarse = rounded(&tensor).unwrap();
    let exact = coarse.to_dtype(DType::F16).unwrap().to_dtype(DType::F32).unwrap();
    let (coarse, exact): (Vec<f32>, Vec<f32>) = (coarse.to_vec1().unwrap(), exact.to_vec1().unwrap());
    assert_eq!(coarse, exact);
    let levels: std::collections::BTreeSet<u32> = coarse.iter().map(|x| x.to_bits()).collect();
    assert!(levels.len() <= 9, "{levels:?}");
    let square = |xs: &mut dyn Iterator<Item = f32>| xs.map(|x| x * x).sum::<f32>();
    let lost = square(&mut noise.iter().zip(&coarse).map(|(a, b)| a - b)) / square(&mut noise.iter().copied());
    assert!(lost < 0.05, "{lost}");
    let zeros = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(rounded(&zeros).unwrap().to_vec1::<f32>().unwrap(), [0.0; 4]);
}

/// On one machine and build: the same bits, whether it was stopped between two steps or not.
#[test]
fn a_stopped_run_goes_on_to_the_same_adapter() {
    let texts = [text(150)];
    let mut whole = trainer(&texts, recipe(), None).unwrap();
    run(&mut whole);
    for stop in [0, 3, 11] {
        let mut part = trainer(&texts, recipe(), None).unwrap();
        for _ in 0..stop {
            part.advance().unwrap().unwrap();
        }
        let kept = part.kept().unwrap();
        drop(part);
        let mut rest = trainer(&texts, recipe(), Some(&kept)).unwrap();
        run(&mut rest);
        assert_eq!(files(&rest), files(&whole), "stopped after {stop}");
        assert_eq!(rest.held_out(), whole.held_out());
    }
}

#[test]
fn either_format_of_a_model_gives_the_same_adapter() {
    let mut file = tiny();
    file.tensors.retain(|(name, ..)| name != "rope_freqs.weight");
    let texts = [text(100), sample(3000)];
    let mut recipe = Recipe { matrices: vec![Matrix::Queries, Matrix::Keys], ..recipe() };
    recipe.course.steps = Some(3);
    let mut of_gguf = AdapterTrainer::of_gguf(Cursor::new(file.bytes()), &texts, recipe.clone(), None).unwrap();
    let hub = checkpoint(&file);
    let mut of_checkpoint = AdapterTrainer::of_checkpoint(&opening(&hub), &texts, recipe, None).unwrap();
    assert_eq!(run(&mut of_gguf), run(&mut of_checkpoint));
    assert_eq!(files(&of_gguf), files(&of_checkpoint));
    assert_eq!(of_gguf.parameters(), 2 * 4 * (64 + 128 + 64 + 64));
}

#[test]
fn windows_count_every_byte_once() {
    let raw = sample(5000);
    let tokens = loaded(&tiny()).unwrap().tokens;
    let symbols = tokens.cut(&raw).len();
    let cut = windows(&[raw.clone(), b"the".to_vec(), Vec::new()], &tokens, 100);
    assert_eq!(cut.len(), symbols / 100 + 1);
    let whole: usize = cut.iter().map(|w| w.bytes).sum();
    assert!(whole <= raw.len() + 3 && whole > raw.len() - 1000, "{whole}");
    assert!(cut.iter().all(|w| w.read[0] == tokens.start && w.read[1..] == w.next[..w.next.len() - 1]));
    assert!(cut.iter().any(|w| w.plain > 0), "bytes that no token stands for");
    let (held, training) = parted(cut);
    assert!(held.iter().all(|h| !training.contains(h)));
}

#[test]
fn what_cannot_be_is_said() {
    let refused = |texts: &[Vec<u8>], change: &dyn Fn(&mut Recipe), kept: Option<&[u8]>, word: &str| {
        let mut recipe = recipe();
        change(&mut recipe);
        let Err(e) = trainer(texts, recipe, kept) else { panic!("{word}") };
        assert!(e.to_string().contains(word), "{word}: {e}");
    };
    let texts = [text(60)];
    refused(&texts, &|r| r.rank = 0, None, "rank");
    refused(&texts, &|r| r.course.window = 201, None, "16 to 200");
    refused(&texts, &|r| r.course.learning_rate = f64::NAN, None, "learning rate");
    refused(&texts, &|r| r.matrices.clear(), None, "matrix");
    refused(&texts, &|r| r.course.steps = Some(0), None, "step");
    refused(&[text(1)], &|_| (), None, "1 windows");
    refused(&[], &|_| (), None, "0 windows");
    let kept = trainer(&texts, recipe(), None).unwrap().kept().unwrap();
    let mut longer = recipe();
    longer.course.steps = Some(99);
    assert!(trainer(&texts, longer, Some(&kept)).is_ok(), "more steps are none other");
    refused(&texts, &|r| r.course.seed = 2, Some(&kept), "another model");
    refused(&[sample(3000)], &|_| (), Some(&kept), "another model");
    for len in [0, 7, 100, kept.len() - 1] {
        refused(&texts, &|_| (), Some(&kept[..len]), "gone on");
    }
    let mut other = tiny();
    other.tensors.iter_mut().find(|(name, ..)| name == "blk.1.ffn_down.weight").unwrap().3[0] ^= 1;
    let e = AdapterTrainer::of_gguf(Cursor::new(other.bytes()), &texts, recipe(), Some(&kept));
    assert!(e.is_err_and(|e| e.to_string().contains("another model")));
    assert!(AdapterTrainer::of_gguf(Cursor::new(b"GGUF"), &texts, recipe(), None).is_err());
}
