//! Whole models of images and of bytes: small ones that the tests make themselves, in the layouts that are published.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::atomic::AtomicBool;

use super::step::{Row, Work};
use super::tests::{NEVER, coded, comes_back, sample};
use super::*;
use crate::models::Error;

/// Tests of the whole program make the same.
#[path = "../../../tests/common/gpt.rs"]
pub(super) mod gpt;

use gpt::*;

pub(super) fn loaded(tensors: &[Tensor], config: Option<&str>) -> Result<LanguageModel, LoadError> {
    load_tensors(Cursor::new(safetensors(tensors)), config.map(|text| Cursor::new(text.as_bytes().to_vec())))
}

pub(super) fn of_images() -> LanguageModel {
    loaded(&igpt(), Some(CONFIG)).unwrap()
}

pub(super) fn of_bytes() -> LanguageModel {
    loaded(&bgpt(), None).unwrap()
}

/// What is read of `Spliced`.
fn whole(spliced: &Spliced, source: &[u8]) -> Vec<u8> {
    let parts = spliced.parts.iter().flat_map(|(at, len)| &source[*at as usize..][..*len as usize]);
    spliced.head.iter().chain(parts).copied().collect()
}

/// Three slow waves with some noise, one byte of each in turn: pixels.
fn pixels(len: usize) -> Vec<u8> {
    let mut x = 5u64;
    let pixel = |n: usize| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let wave = ((n / 3) as f64 * 0.05 + (n % 3) as f64 * 2.0).sin() * 90.0 + 128.0;
        (wave as i64 + (x >> 62) as i64) as u8
    };
    (0..len).map(pixel).collect()
}

#[test]
fn any_bytes_come_back_by_every_path_in_lanes_of_any_length() {
    for (mut model, context) in [(of_images(), PIXELS), (of_bytes(), (PATCHES - 2) * PATCH)] {
        assert_eq!(model.facts().context, context);
        // Longer than the context, with an end that is no whole lane, channel or patch.
        for raw in [sample(2101), pixels(2101)] {
            comes_back(&mut model, &raw, &[1 << 10, 1 << 11]);
        }
        for raw in [&b""[..], b"x", b"xyz", &[0; 1100], &[200; 1024], &[b' '; 17]] {
            let payload = coded(&model, raw, 1 << 10);
            assert_eq!(model.decode(&payload, raw.len(), &NEVER).unwrap(), raw);
        }
        assert_eq!(model.encode(b"x", 1 << 10, 1, &NEVER), None, "it does not become smaller");
    }
}

/// An image whose colours stand side by side is read a colour after the other, and what is no image as it stands.
#[test]
fn channels_are_read_each_alone() {
    let model = of_images();
    let channels = |raw: &[u8]| coded(&model, raw, 1 << 12)[2] & 3;
    assert_eq!((channels(&pixels(6000)), channels(&sample(6000)), channels(b"")), (2, 0, 0));
    // Of one channel nothing depends on what is between its bytes.
    let one: Vec<u8> = pixels(900).into_iter().step_by(3).collect();
    let (mut alone, three) = (coded(&model, &one, 1 << 10), coded(&model, &pixels(900), 1 << 10));
    assert_eq!((alone[2], three[2]), (0, 2));
    alone.truncate(60);
    assert_eq!(alone[9..40], three[9..40], "the first channel of both is the same");
    // Bytes are read as they stand.
    assert_eq!(coded(&of_bytes(), &pixels(3000), 1 << 12)[2] & 3, 0);
}

#[test]
fn company_changes_nothing() {
    for model in [of_images(), of_bytes()] {
        let start = model.tokens.start;
        let tokens: Vec<u32> = (0..90).map(|n| n * n * 17 % 256).collect();
        // What comes after each token of stream 0, which is read beside others that are elsewhere in their patches.
        let hash = |count: usize, at_a_time: usize| {
            let (mut work, mut shares, mut hasher) = (Work::default(), cdf::Shares::default(), blake3::Hasher::new());
            let mut streams = model.streams(count);
            (0..count).for_each(|stream| model.step(&[Row { stream, token: start }], &mut streams, &mut work));
            for (n, part) in tokens.chunks(at_a_time).enumerate() {
                let others = (1..count).filter(|s| (n + s) % 3 != 0);
                let mut rows: Vec<Row> =
                    others.map(|stream| Row { stream, token: (n * stream) as u32 % 256 }).collect();
                let first = rows.len();
                rows.extend(part.iter().map(|token| Row { stream: 0, token: *token }));
                rows.extend((1..count).take(2).map(|stream| Row { stream, token: 5 }));
                model.step(&rows, &mut streams, &mut work);
                for row in first..first + part.len() {
                    cdf::spread(model.path, work.logits(&model.network, row), &mut shares);
                    shares.hash(&mut hasher);
                }
            }
            assert_eq!(streams.len(0), tokens.len() + 1);
            hasher.finalize()
        };
        let alone = hash(1, 1);
        for (count, at_a_time) in [(1, 7), (1, 64), (2, 16), (7, 3), (32, 1)] {
            assert_eq!(hash(count, at_a_time), alone, "{count} streams, {at_a_time} at a time");
        }
    }
}

#[test]
fn a_damaged_lane_harms_no_other() {
    for model in [of_images(), of_bytes()] {
        let raw = pixels(3000);
        let good = coded(&model, &raw, 1 << 10);
        for at in (0..good.len()).step_by(151) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            if let Ok(plain) = model.decode(&bad, raw.len(), &NEVER) {
                assert_eq!(plain, raw, "byte {at}");
            }
            let is_right = |n: usize| {
                let lane = raw.chunks(1 << 10).nth(n).unwrap();
                model.decode_lanes(&bad, raw.len(), n..n + 1, &NEVER).is_ok_and(|plain| plain == lane)
            };
            // Version, length, form, and three lengths of two bytes.
            let least = if at < 9 { 0 } else { 2 };
            assert!((0..3).filter(|n| is_right(*n)).count() >= least, "byte {at}");
        }
        for form in 0..=255 {
            let mut bad = good.clone();
            bad[2] = form;
            if let Ok(plain) = model.decode(&bad, raw.len(), &NEVER) {
                assert_eq!((plain, form), (raw.clone(), good[2]));
            }
        }
        for len in (0..good.len()).step_by(97) {
            assert!(model.decode(&good[..len], raw.len(), &NEVER).is_err(), "{len} bytes");
        }
    }
    // Lanes of a model of bytes are none of a model of text.
    let text = super::tests::loaded(&super::tests::llama::tiny()).unwrap();
    let other = coded(&of_bytes(), b"some bytes", 1 << 10);
    let form = [&[2, 10, 4][..], &other[3..]].concat();
    assert_eq!(text.decode(&form, 10, &NEVER), Err(Error::Corrupt("its lanes are those of another kind of model")));
}

/// Lanes for which there is no memory wait for those that began before.
#[test]
fn lanes_beyond_memory_are_read_in_turns() {
    let model = of_bytes();
    let raw = pixels(33_500);
    let payload = coded(&model, &raw, 1 << 10);
    let lanes = lanes::split(&payload, raw.len()).unwrap();
    assert!(lanes.len() > lanes::LANES_AT_ONCE);
    for pages in [3, 1000] {
        let mut streams = model.streams(lanes::LANES_AT_ONCE);
        streams.limit(pages);
        assert_eq!(
            model.read(&lanes, &NEVER, &mut streams, &mut Work::default()).unwrap().concat(),
            raw,
            "{pages} pages"
        );
    }
    assert!(model.facts().decode_bytes <= DECODE_BYTES_MAX);
    let stopped = AtomicBool::new(true);
    assert_eq!(model.encode(&raw, 1 << 10, usize::MAX, &stopped), None);
    assert!(model.decode(&payload, raw.len(), &stopped).is_err());
}

/// What models coded once, they must read for ever: a change of these is a change of the arithmetic or the layout.
#[test]
fn golden_models_and_payloads() {
    let golden = [of_images(), of_bytes()].map(|model| {
        let payload = coded(&model, &pixels(1500), 1 << 10);
        (model.facts().id.to_string(), payload.len(), crate::base::crc32c(&payload))
    });
    assert_eq!(golden.each_ref().map(|(id, len, crc)| (id.as_str(), *len, *crc)), GOLDEN);
}

const GOLDEN: [(&str, usize, u32); 2] = [
    ("0d246a3d3461ee14796ff7c3bf961c1b", 2418, 3_352_529_092),
    ("874b658a1733dcd09b0c6b38acc5e7d2", 2784, 1_528_387_268),
];

/// One model, however it is brought; and it is named by every part it has.
#[test]
fn a_checkpoint_of_pytorch_is_the_same_model() {
    for (tensors, config, kind) in [(igpt(), Some(CONFIG), ModelKind::Image), (bgpt(), None, ModelKind::Bytes)] {
        let plain = loaded(&tensors, config).unwrap().facts();
        assert_eq!((plain.kind, kind_of_tensors(Cursor::new(safetensors(&tensors))).unwrap()), (kind, kind));
        let parts = if kind == ModelKind::Image { [None, Some("state_dict")] } else { [Some("model"), None] };
        for part in parts {
            let file = pth(&tensors, part);
            let spliced = as_safetensors(Cursor::new(&file)).unwrap();
            let config = config.map(|text| Cursor::new(text.as_bytes().to_vec()));
            assert_eq!(load_tensors(Cursor::new(whole(&spliced, &file)), config).unwrap().facts(), plain);
        }
        let mut ids = BTreeSet::from([plain.id]);
        for n in 0..tensors.len() {
            let mut other = tensors.clone();
            let (name, _, elements) = &mut other[n];
            // Rows that have a scale of their own, and floats.
            elements.iter_mut().for_each(|x| *x *= 1.5);
            let name = name.clone();
            if name.ends_with(".attn.bias")
                || name.ends_with("masked_bias")
                || name == "patch_level_decoder.base.wte.weight"
            {
                assert_eq!(loaded(&other, config).unwrap().facts().id, plain.id, "{name}");
                continue;
            }
            assert!(ids.insert(loaded(&other, config).unwrap().facts().id), "{name}");
            other.remove(n);
            let is_spare =
                name == "byte_level_decoder.base.lm_head.weight" || kind == ModelKind::Image && name.ends_with(".bias");
            match loaded(&other, config) {
                Ok(_) => assert!(is_spare, "{name} is missing"),
                Err(e) => assert!(!is_spare && !e.to_string().is_empty(), "{name}: {e}"),
            }
        }
    }
    // A head that is tied may be left out.
    let mut tied = bgpt();
    tied.retain(|(name, ..)| !name.contains("lm_head"));
    assert_eq!(loaded(&tied, None).unwrap().facts(), of_bytes().facts());
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_said() {
    let refused = |tensors: &[Tensor], config: Option<&str>, word: &str| {
        let e = loaded(tensors, config).expect_err(word).to_string();
        assert!(e.contains(word), "{word}: {e}");
    };
    fn changed(mut tensors: Vec<Tensor>, name: &str, shape: &[usize]) -> Vec<Tensor> {
        let tensor = tensors.iter_mut().find(|(n, ..)| n == name).unwrap();
        (tensor.1, tensor.2) = (shape.to_vec(), vec![0.25; shape.iter().product()]);
        tensors
    }
    // The published ones.
    refused(&igpt_of(512), Some(CONFIG), "palette");
    refused(&igpt_of(200), Some(CONFIG), "256 grey values");
    assert!(loaded(&igpt_of(300), Some(CONFIG)).is_ok(), "what is above a byte is never said");
    refused(&changed(igpt(), "transformer.wte.weight", &[256, WIDTH]), Some(CONFIG), "reads 256 tokens");
    refused(&igpt(), Some(r#"{ "model_type": "gpt2" }"#), "gpt2");
    refused(&igpt(), Some(r#"{ "model_type": "imagegpt", "activation_function": "gelu" }"#), "`gelu`");
    refused(&igpt(), Some(r#"{ "scale_attn_by_inverse_layer_idx": true }"#), "scaled");
    refused(&igpt(), Some(r#"{ "n_head": 3 }"#), "n_head");
    refused(&igpt(), Some(r#"{ "n_head": 4 }"#), "elements");
    refused(&igpt(), Some("{"), "config.json");
    let attention = "transformer.h.1.attn.c_attn.weight";
    refused(&changed(igpt(), attention, &[3 * WIDTH, WIDTH]), Some(CONFIG), attention);
    let hidden = "patch_level_decoder.base.h.0.mlp.c_proj.weight";
    refused(&changed(bgpt(), hidden, &[WIDTH, HIDDEN]), None, hidden);
    refused(&changed(bgpt(), "patch_level_decoder.patch_embedding.weight", &[WIDTH, 4000]), None, "4000 inputs");
    refused(&changed(bgpt(), "patch_level_decoder.base.wpe.weight", &[9000, WIDTH]), None, "9000 positions");
    refused(&changed(bgpt(), "byte_level_decoder.base.transformer.wpe.weight", &[2, WIDTH]), None, "context");
    let mut more = bgpt();
    more.push(("patch_level_decoder.base.h.9.ln_1.weight".into(), vec![WIDTH], vec![1.0; WIDTH]));
    refused(&more, None, "h.9.ln_1.weight");
    let mut strange = bgpt();
    strange[0].2[77] = f32::NAN;
    refused(&strange, None, "no numbers");
    let mut text = igpt();
    text.push(("transformer.h.0.ln_1.bias".into(), vec![WIDTH], vec![0.0; WIDTH]));
    let e = kind_of_tensors(Cursor::new(safetensors(&text))).unwrap_err().to_string();
    assert!(e.contains("neither"), "{e}");
    assert!(kind_of_tensors(Cursor::new(&b"\x05\0\0\0\0\0\0\0{"[..])).is_err());
}

#[test]
fn what_is_wrong_with_an_archive_is_said() {
    let refused = |file: &[u8], word: &str| {
        let e = as_safetensors(Cursor::new(file)).expect_err(word).to_string();
        assert!(e.contains(word), "{word}: {e}");
    };
    let tensors = vec![
        ("transformer.wpe.weight".to_string(), vec![2, 3], vec![1.0; 6]),
        ("transformer.h.0.attn.bias".to_string(), vec![1, 1, 2, 2], vec![1.0; 4]),
    ];
    let good = pth(&tensors, Some("model"));
    let spliced = as_safetensors(Cursor::new(&good)).unwrap();
    assert_eq!(spliced.parts.len(), 1, "masks are left out");
    assert!(String::from_utf8_lossy(&spliced.head).contains("[2,3]"));
    refused(b"\x80\x02\x8a\x0a", "since version 1.6");
    refused(&archive(&[("a/b".into(), vec![1])]), "none of PyTorch's");
    let with = |pickle: Vec<u8>| archive(&[("x/data.pkl".into(), pickle), ("x/data/0".into(), vec![0; 24])]);
    refused(&with(Vec::new()), "cut off");
    refused(&with(b"\x80\x02}.".to_vec()), "0 tensors");
    refused(&with(b"\x80\x02t.".to_vec()), "not there");
    refused(&with(b"\x80\x02h\x05.".to_vec()), "has not made");
    refused(&with(b"\x80\x02\x99.".to_vec()), "0x99");
    refused(&with(vec![b'}'; 2 << 20]), "longer than");
    // A list in a list, and so on, and one that doubles by being named again.
    refused(&with([&vec![b']'; 1][..], &vec![0x85; 900_000], b"."].concat()), "0 tensors");
    refused(&with([&b"]q\0"[..], &b"h\0h\0\x86q\0".repeat(50_000), b"."].concat()), "0 tensors");
    let mut longer = pickle(&tensors[..1], None);
    let at = longer.windows(5).position(|w| w == b"J\x03\0\0\0").unwrap();
    longer[at + 1] = 4;
    refused(&with(longer.clone()), "row after row");
    let strided = longer.iter().enumerate().filter(|(_, b)| **b == b'J').map(|(n, _)| n).nth(3).unwrap();
    longer[strided + 1] = 4;
    refused(&with(longer), "longer than its elements");
    refused(&archive(&[("data.pkl".into(), pickle(&tensors[..1], None))]), "no elements");
    let mut big = vec![("data.pkl".to_string(), pickle(&tensors[..1], None))];
    big.extend([("byteorder".to_string(), b"big".to_vec()), ("data/0".into(), vec![0; 24])]);
    refused(&archive(&big), "highest byte");
    let mut packed = with(pickle(&tensors[..1], None));
    let entry = packed.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    packed[entry + 10] = 8;
    refused(&packed, "compressed");
    // No bytes make a panic.
    let mut x = 1u64;
    for _ in 0..3000 {
        let mut bad = good.clone();
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at = (x >> 33) as usize % bad.len();
        bad[at] = (x >> 20) as u8;
        if let Ok(spliced) = as_safetensors(Cursor::new(&bad)) {
            assert!(spliced.parts.iter().all(|(at, len)| at + len <= bad.len() as u64));
        }
    }
    let file = safetensors(&bgpt());
    for _ in 0..300 {
        let mut bad = file.clone();
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bad[(x >> 33) as usize % 4000] = (x >> 20) as u8;
        let _ = kind_of_tensors(Cursor::new(bad));
    }
}
