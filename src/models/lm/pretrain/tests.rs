use super::super::step::{Row, Work};
use super::super::tests::{NEVER, coded};
use super::super::tests_of_bytes::gpt::{CONFIG, Tensor as Made, bgpt, igpt, igpt_of, safetensors as file_of};
use super::super::{LanguageModel, training::Advance};
use super::*;

fn recipe(kind: ModelKind) -> Pretraining {
    let course =
        Course { learning_rate: 1e-2, window: 256, batch_tokens: 512, steps: Some(30), judged_steps: 10, seed: 1 };
    Pretraining { layers: 2, width: 64, heads: 2, course, ..Pretraining::new(kind) }
}

/// Thirty-two values, each of which says what the next is but for a bit.
fn values(len: usize) -> Vec<u8> {
    let (mut chance, mut state) = (Chance(5), 0);
    let mut value = |_| {
        state = (state * 5 + 3) % 16;
        100 + state * 2 + u8::from(chance.normal() > 0.0)
    };
    (0..len).map(&mut value).collect()
}

fn loaded(trainer: &Pretrainer) -> LanguageModel {
    let (_, file) = trainer.files().unwrap().remove(0);
    load_tensors(Cursor::new(file), None).unwrap()
}

const KINDS: [ModelKind; 2] = [ModelKind::Image, ModelKind::Bytes];

/// What is trained is what is coded with: the network in floats and that of whole numbers say the same.
#[test]
fn what_is_trained_is_what_codes() {
    for kind in KINDS {
        let mut trainer = Pretrainer::pretraining(&[values(4000)], recipe(kind), None, None).unwrap();
        (0..12).for_each(|_| {
            trainer.advance().unwrap();
        });
        trainer.judge().unwrap();
        for (var, best) in trainer.optimizer.vars.iter().zip(&trainer.best.tensors) {
            var.set(best).unwrap();
        }
        let model = loaded(&trainer);
        // Not a whole number of patches.
        let next: Vec<u32> = values(123).into_iter().map(u32::from).collect();
        let read: Vec<u32> = std::iter::once(model.tokens.start).chain(next.iter().copied()).take(123).collect();
        let floats: Vec<Vec<f32>> = trainer.subject.logits(&read).unwrap().to_vec2().unwrap();
        assert_eq!(floats.len(), read.len());
        let (mut work, mut streams) = (Work::default(), model.streams(1));
        for (token, floats) in read.iter().zip(&floats) {
            model.step(&[Row { stream: 0, token: *token }], &mut streams, &mut work);
            let shares = |logits: &[f32]| {
                let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
                logits.iter().map(|x| f64::from(*x).exp() / total).collect::<Vec<f64>>()
            };
            let (ours, theirs) = (shares(work.logits(&model.network, 0)), shares(floats));
            let excess: f64 = theirs.iter().zip(&ours).map(|(p, q)| p * (p / q).log2()).sum();
            assert!(excess < 0.02, "{kind:?}: {excess} bits");
        }
    }
}

/// It comes to know the data, in floats and in the coder, and a run that was stopped comes to the same.
#[test]
fn data_that_has_an_order_comes_to_take_fewer_bits() {
    for kind in KINDS {
        let data = [values(20_000)];
        let begin = |kept: Option<&[u8]>| Pretrainer::pretraining(&data, recipe(kind), None, kept).unwrap();
        let run = |trainer: &mut Pretrainer| while trainer.advance().unwrap().is_some() {};
        let mut whole = begin(None);
        assert!(matches!(whole.advance().unwrap(), Some(Advance::Judged { is_best: true, .. })));
        run(&mut whole);
        let (before, after) = whole.held_out();
        assert!((7.9..8.2).contains(&before) && after < 6.5, "{kind:?}: {before}, {after}");
        let model = loaded(&whole);
        let raw = &values(24_000)[20_000..];
        let payload = coded(&model, raw, 1 << 11);
        assert!(payload.len() < raw.len() * 3 / 4, "{kind:?}: {} bytes", payload.len());
        assert_eq!(model.decode(&payload, raw.len(), &NEVER).unwrap(), raw);

        let mut part = begin(None);
        (0..7).for_each(|_| {
            part.advance().unwrap();
        });
        let mut rest = begin(Some(&part.kept().unwrap()));
        run(&mut rest);
        assert!(rest.files().unwrap() == whole.files().unwrap());
    }
}

#[test]
fn what_cannot_be_is_said() {
    let refused = |kind: ModelKind, change: &dyn Fn(&mut Pretraining), word: &str| {
        let mut recipe = recipe(kind);
        change(&mut recipe);
        let Err(e) = Pretrainer::pretraining(&[values(2000)], recipe, None, None) else { panic!("{word}") };
        assert!(e.to_string().contains(word), "{word}: {e}");
    };
    refused(ModelKind::Text, &|_| (), "adapted");
    refused(ModelKind::Bytes, &|r| r.course.window = 257, "patches");
    refused(ModelKind::Bytes, &|r| r.course.window = 16_000, "8160");
    refused(ModelKind::Image, &|r| r.heads = 0, "heads");
    refused(ModelKind::Image, &|r| r.heads = 3, "multiple");
    // Heads of a length that the exact network does not have.
    refused(ModelKind::Image, &|r| r.heads = 64, "elements");
    refused(ModelKind::Bytes, &|r| r.course.window = 1504, "1 windows");
}

/// Of an iGPT with positions for the shortest window.
fn learned(tensors: &[Made], config: &str) -> Learned {
    let mut made = tensors.to_vec();
    for (_, shape, elements) in made.iter_mut().filter(|(name, ..)| name == "transformer.wpe.weight") {
        shape[0] = 256;
        elements.resize(256 * shape[1], 0.125);
    }
    Learned::read(Cursor::new(file_of(&made)), Some(Cursor::new(config.as_bytes().to_vec()))).unwrap()
}

fn named(file: &[u8]) -> Learned {
    Learned::read(Cursor::new(file.to_vec()), None).unwrap()
}

/// What a checkpoint has learned is there when training begins; of an iGPT of a palette all but what it reads and says.
#[test]
fn a_checkpoint_is_trained_further() {
    let is_of_tokens = |name: &str| name == "transformer.wte.weight" || name == HEAD_OF_IMAGES;
    for (made, palette) in [(igpt_of(512), true), (igpt(), false), (bgpt(), false)] {
        let learned = learned(&made, CONFIG);
        let mut trainer = Pretrainer::pretraining(&[values(4000)], recipe(learned.kind), Some(&learned), None).unwrap();
        trainer.advance().unwrap();
        let (_, file) = trainer.files().unwrap().remove(0);
        let begun = named(&file);
        assert_eq!((begun.kind, begun.heads), (learned.kind, learned.heads));
        for (name, (rows, columns, elements)) in &learned.tensors {
            if palette && is_of_tokens(name) {
                assert_eq!(
                    (*rows - 256, begun.tensors[name].0 - 256),
                    if name == HEAD_OF_IMAGES { (256, 0) } else { (257, 1) }
                );
                assert!(begun.tensors[name].2.iter().all(|x| x.abs() < 0.2 && *x != elements[0]));
            } else if name != HEAD_OF_BYTES {
                let (r, c, same) = &begun.tensors[name];
                assert_eq!((r, c), (rows, columns), "{name}");
                assert!(same == elements, "{name}");
            }
        }
        assert!(!begun.tensors.contains_key(HEAD_OF_BYTES));
    }
    for kind in KINDS {
        let data = [values(20_000)];
        let mut first = Pretrainer::pretraining(&data, recipe(kind), None, None).unwrap();
        while first.advance().unwrap().is_some() {}
        let (_, file) = first.files().unwrap().remove(0);
        let mut further = Pretrainer::pretraining(&data, recipe(kind), Some(&named(&file)), None).unwrap();
        further.advance().unwrap();
        let ((_, reached), (begins, _)) = (first.held_out(), further.held_out());
        assert!((reached - begins).abs() < 1e-3, "{kind:?}: it ended with {reached} and goes on with {begins}");
        // What was kept of a run that began otherwise is not gone on with.
        assert!(Pretrainer::pretraining(&data, recipe(kind), None, Some(&further.kept().unwrap())).is_err());
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_is_said() {
    let refused = |learned: &Learned, recipe: Pretraining, word: &str| {
        let Err(e) = Pretrainer::pretraining(&[values(20_000)], recipe, Some(learned), None) else { panic!("{word}") };
        assert!(e.to_string().contains(word), "{word}: {e}");
    };
    let image = learned(&igpt(), CONFIG);
    refused(&image, recipe(ModelKind::Bytes), "model of image");
    let mut long = recipe(ModelKind::Image);
    (long.course.window, long.course.batch_tokens) = (4096, 4096);
    refused(&image, long, "bytes at most");
    let untied = |name: &str| {
        let mut made = bgpt();
        made.iter_mut().filter(|(n, ..)| n == name).for_each(|(.., elements)| elements[3] += 1.0);
        learned(&made, CONFIG)
    };
    refused(&untied(HEAD_OF_BYTES), recipe(ModelKind::Bytes), "head of its own");
    let mut other = bgpt();
    other.retain(|(name, ..)| name != "patch_level_decoder.base.h.0.ln_2.bias");
    refused(&learned(&other, CONFIG), recipe(ModelKind::Bytes), "ln_2.bias");
    let strange = br#"{ "layer_norm_epsilon": 0.001 }"#.to_vec();
    let e = Learned::read(Cursor::new(file_of(&igpt())), Some(Cursor::new(strange))).unwrap_err().to_string();
    assert!(e.contains("0.001"), "{e}");
}
