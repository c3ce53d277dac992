//! Whole models: small ones that the tests make themselves, in the real format.

use std::io::Cursor;
use std::sync::atomic::AtomicBool;

use super::gguf::{Gguf, Kind};
use super::load::Tensors;
use super::step::{Row, Work};
use super::*;
use crate::models::Error;

/// Tests of the whole program make the same.
#[path = "../../../tests/common/llama.rs"]
pub(super) mod llama;

pub(super) use llama::File;
use llama::*;
#[cfg(feature = "lora")]
pub(super) use llama::{tiny, tiny_of};

pub(super) fn loaded(file: &File) -> Result<LanguageModel, LoadError> {
    load(Cursor::new(file.bytes()), None)
}

pub(super) static NEVER: AtomicBool = AtomicBool::new(false);

/// A payload, however long.
pub(super) fn coded(model: &LanguageModel, raw: &[u8], lane_bytes: usize) -> Vec<u8> {
    model.encode(raw, lane_bytes, usize::MAX, &NEVER).unwrap()
}

/// Text of the tokens' kind, and bytes of no kind.
pub(super) fn sample(len: usize) -> Vec<u8> {
    let mut x = 3u64;
    let words: [&[u8]; 12] =
        [b" the", b" and", b" in", b"\r\n", b"12", b"\0", b"\xc3\xa9", b"\xff\xfe", b"{\"a\":", b"\xc8", b"th", b"  "];
    let mut out = Vec::new();
    while out.len() < len {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        out.extend_from_slice(words[(x >> 33) as usize % words.len()]);
    }
    out.truncate(len);
    out
}

/// Every path codes bytes alike and gives them back, in lanes of some lengths, whole and lane by lane.
pub(super) fn comes_back(model: &mut LanguageModel, raw: &[u8], lengths: &[usize]) {
    for lane_bytes in lengths.iter().copied() {
        let mut payloads = Vec::new();
        for path in Path::all() {
            model.path = path;
            payloads.push(coded(model, raw, lane_bytes));
        }
        assert!(payloads.windows(2).all(|two| two[0] == two[1]), "every path codes alike");
        for path in Path::all() {
            model.path = path;
            assert_eq!(model.decode(&payloads[0], raw.len(), &NEVER).unwrap(), raw, "{}", path.name());
        }
        for (n, lane) in raw.chunks(lane_bytes).enumerate() {
            assert_eq!(model.decode_lanes(&payloads[0], raw.len(), n..n + 1, &NEVER).unwrap(), lane);
        }
        assert!(model.decode_lanes(&payloads[0], raw.len(), 9..10, &NEVER).is_err());
    }
}

#[test]
fn any_bytes_come_back_by_every_path_in_lanes_of_any_length() {
    let mut model = loaded(&tiny()).unwrap();
    // Longer than the context, with an end that is no whole lane.
    let raw = sample(4500);
    comes_back(&mut model, &raw, &[1 << 10, 1 << 12]);
    for raw in [&b""[..], b"x", &[0; 1100], &[200; 1024], &[b' '; 3000]] {
        let payload = coded(&model, raw, 1 << 10);
        assert_eq!(model.decode(&payload, raw.len(), &NEVER).unwrap(), raw);
    }
    assert_eq!(model.encode(b"x", 1 << 10, 1, &NEVER), None, "it does not become smaller");
}

#[test]
fn threads_and_company_change_nothing() {
    let model = loaded(&tiny()).unwrap();
    let raw = sample(3000);
    let payload = coded(&model, &raw, 1 << 10);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| coded(&model, &raw, 1 << 10))).collect();
        threads.into_iter().for_each(|t| assert_eq!(t.join().unwrap(), payload));
    });
    // Streams of other texts beside it, ragged: lane by lane, and many tokens of one beside one of another.
    let tokens: Vec<u32> = (0..60).map(|n| n * 17 % 250).collect();
    let alone = model.network.shares_hash(model.path, &tokens, 1);
    for count in [2, 7, 32] {
        let (mut work, mut shares, mut hasher) = (Work::default(), cdf::Shares::default(), blake3::Hasher::new());
        let mut streams = model.network.streams(count);
        for (n, token) in tokens.iter().enumerate() {
            let others =
                (1..count).filter(|s| (n + s) % 3 != 0).map(|stream| Row { stream, token: (n * stream) as u32 % 250 });
            let mut rows: Vec<Row> = others.collect();
            rows.push(Row { stream: 0, token: *token });
            rows.extend((1..count).take(2).map(|stream| Row { stream, token: 5 }));
            model.network.step(model.path, &rows, &mut streams, &mut work);
            let row = rows.iter().position(|r| r.stream == 0).unwrap();
            cdf::spread(model.path, work.logits(&model.network, row), &mut shares);
            shares.hash(&mut hasher);
        }
        assert_eq!(hasher.finalize().as_bytes()[..16], alone, "{count} streams");
    }
}

#[test]
fn a_damaged_lane_harms_no_other() {
    let model = loaded(&tiny()).unwrap();
    let raw = sample(4096);
    let good = coded(&model, &raw, 1 << 10);
    for at in (0..good.len()).step_by(41) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        if let Ok(plain) = model.decode(&bad, raw.len(), &NEVER) {
            assert_eq!(plain, raw, "byte {at}");
        }
        let lanes = (0..4).filter(|n| {
            model.decode_lanes(&bad, raw.len(), *n..*n + 1, &NEVER).is_ok_and(|l| l == raw[n * 1024..][..1024])
        });
        // Two bytes, four lengths of two bytes, four checksums.
        let least = if at < 10 { 0 } else { 3 };
        assert!(lanes.count() >= least, "byte {at}");
    }
    for len in (0..good.len()).step_by(97) {
        assert!(model.decode(&good[..len], raw.len(), &NEVER).is_err(), "{len} bytes");
    }
    assert_eq!(model.decode(&good, raw.len() - 1, &NEVER), Err(Error::Corrupt("a lane is damaged")));
    assert!(model.decode(&[good.clone(), vec![0]].concat(), raw.len(), &NEVER).is_err());
    let mut x = 1u64;
    for len in 0..60 {
        let mut junk = vec![1, 10];
        junk.extend((0..len).map(|_| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 56) as u8
        }));
        assert!(model.decode(&junk, 700, &NEVER).is_err());
    }
}

/// What lanes are read is nothing to the others, and what is no lane is said.
#[test]
fn some_lanes_are_read_alone() {
    let model = loaded(&tiny()).unwrap();
    let raw = sample(5000);
    let payload = coded(&model, &raw, 1 << 10);
    assert_eq!(lane_bytes(&payload), Some(1 << 10));
    for lanes in [0..5, 1..3, 4..5, 2..2, 0..1] {
        let plain = &raw[lanes.start << 10..(lanes.end << 10).min(raw.len())];
        assert_eq!(model.decode_lanes(&payload, raw.len(), lanes, &NEVER).unwrap(), plain);
    }
    for lanes in [0..6, 5..6, 7..9, usize::MAX - 1..usize::MAX] {
        assert!(model.decode_lanes(&payload, raw.len(), lanes, &NEVER).is_err());
    }
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = 3..2;
    assert!(model.decode_lanes(&payload, raw.len(), backwards, &NEVER).is_err());
    for junk in [&b""[..], &[1], &[1, 9, 0], &[3, 10, 0], &[1, 17], &[2, 9, 0]] {
        assert_eq!((lane_bytes(junk), model.decode(junk, 100, &NEVER).is_err()), (None, true), "{junk:?}");
    }
}

/// Lanes for which there is no memory wait for those that began before.
#[test]
fn lanes_beyond_memory_are_read_in_turns() {
    let model = loaded(&tiny()).unwrap();
    let raw = sample(40_000);
    let payload = coded(&model, &raw, 1 << 10);
    let lanes = lanes::split(&payload, raw.len()).unwrap();
    assert!(lanes.len() > lanes::LANES_AT_ONCE);
    // A lane takes two pages, of which the second comes late.
    for pages in [2, 3, 5, 33, 1000] {
        let mut streams = model.streams(lanes::LANES_AT_ONCE);
        streams.limit(pages);
        assert_eq!(
            model.read(&lanes, &NEVER, &mut streams, &mut Work::default()).unwrap().concat(),
            raw,
            "{pages} pages"
        );
    }
    let facts = model.facts();
    assert!(facts.decode_bytes <= DECODE_BYTES_MAX && facts.decode_bytes > cache::STREAMS_BYTES_MAX as u64);
}

#[test]
fn coding_and_reading_end_where_they_are_told_to() {
    let model = loaded(&tiny()).unwrap();
    let raw = sample(9000);
    let payload = coded(&model, &raw, 1 << 10);
    let encode = |below| model.encode(&raw, 1 << 10, below, &NEVER);
    assert_eq!(encode(payload.len() + 200).as_ref(), Some(&payload), "lanes are told apart by their order alone");
    for below in [payload.len(), payload.len() * 2 / 3, 100, 1, 0] {
        assert_eq!(encode(below), None, "{below} bytes");
    }
    let stopped = AtomicBool::new(true);
    assert_eq!(model.encode(&raw, 1 << 10, usize::MAX, &stopped), None);
    assert!(model.decode(&payload, raw.len(), &stopped).is_err());
}

/// What models coded once, they must read for ever: a change of these hashes is a change of the arithmetic or the layout.
#[test]
fn golden_model_and_payload() {
    let model = loaded(&tiny()).unwrap();
    assert_eq!(model.facts().id.to_string(), GOLDEN_MODEL);
    let payload = coded(&model, &sample(2500), 1 << 10);
    assert_eq!((payload.len(), crate::base::crc32c(&payload)), GOLDEN_PAYLOAD);
}

const GOLDEN_MODEL: &str = "739e282d33387d07d756a0573dd673fe";
const GOLDEN_PAYLOAD: (usize, u32) = (2006, 2_358_008_632);

/// The network as it is written in papers, in floats of 64 bits, with the pairs of the file's order.
pub(super) fn reference(file: &File, tokens: &[u32]) -> Vec<Vec<f64>> {
    let tensor = |name: &str| -> Vec<f64> {
        let (_, _, _, bytes) = file.tensors.iter().find(|(n, ..)| n == name).unwrap();
        bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
    };
    let product = |name: &str, x: &[f64]| -> Vec<f64> {
        tensor(name).chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    };
    let norm = |name: &str, x: &[f64]| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(tensor(name)).map(|(x, w)| x / (mean + 1e-5).sqrt() * w).collect()
    };
    let stretch = tensor("rope_freqs.weight");
    let turned = |mut x: Vec<f64>, position: usize| {
        for head in x.chunks_mut(ELEMENTS) {
            for (pair, two) in head.chunks_mut(2).enumerate() {
                let speed = 10_000f64.powf(-2.0 * pair as f64 / ELEMENTS as f64) / stretch[pair];
                let (sine, cosine) = (position as f64 * speed).sin_cos();
                (two[0], two[1]) = (two[0] * cosine - two[1] * sine, two[0] * sine + two[1] * cosine);
            }
        }
        x
    };
    let embeddings = tensor("token_embd.weight");
    let mut caches = vec![(Vec::new(), Vec::new()); LAYERS];
    let mut out = Vec::new();
    for (position, token) in tokens.iter().enumerate() {
        let mut x = embeddings[*token as usize * WIDTH..][..WIDTH].to_vec();
        for (layer, (keys, values)) in caches.iter_mut().enumerate() {
            let name = |what: &str| format!("blk.{layer}.{what}.weight");
            let normed = norm(&name("attn_norm"), &x);
            let query = turned(product(&name("attn_q"), &normed), position);
            keys.push(turned(product(&name("attn_k"), &normed), position));
            values.push(product(&name("attn_v"), &normed));
            let mut mixed = Vec::new();
            for (head, query) in query.chunks(ELEMENTS).enumerate() {
                let at = head / (HEADS / KEY_HEADS) * ELEMENTS;
                let score = |key: &Vec<f64>| {
                    let dot: f64 = key[at..][..ELEMENTS].iter().zip(query).map(|(a, b)| a * b).sum();
                    (dot / (ELEMENTS as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = keys.iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                let of = |e: usize| values.iter().zip(&scores).map(|(v, s)| v[at + e] * s / total).sum::<f64>();
                mixed.extend((0..ELEMENTS).map(of));
            }
            let add = |x: &mut Vec<f64>, y: Vec<f64>| x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            add(&mut x, product(&name("attn_output"), &mixed));
            let normed = norm(&name("ffn_norm"), &x);
            let (gates, ups) = (product(&name("ffn_gate"), &normed), product(&name("ffn_up"), &normed));
            let hidden: Vec<f64> = gates.iter().zip(ups).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            add(&mut x, product(&name("ffn_down"), &hidden));
        }
        out.push(product("output.weight", &norm("output_norm.weight", &x)));
    }
    out
}

/// Integers cost little: shares are near those of floats, and bits of a text that the floats would choose are within 2 %.
#[test]
fn shares_are_near_those_of_floats() {
    let file = tiny();
    let model = loaded(&file).unwrap();
    let tokens: Vec<u32> = (0..150).map(|n| n * n * 13 % 250).collect();
    let exact = reference(&file, &tokens);
    let (mut work, mut streams) = (Work::default(), model.network.streams(1));
    let (mut by_floats, mut by_integers, mut ours) = (0.0, 0.0, Vec::new());
    for part in tokens.chunks(40) {
        let rows: Vec<Row> = part.iter().map(|token| Row { stream: 0, token: *token }).collect();
        model.network.step(model.path, &rows, &mut streams, &mut work);
        ours.extend((0..rows.len()).map(|n| work.logits(&model.network, n).to_vec()));
    }
    for (exact, ours) in exact.iter().zip(&ours) {
        let shares = |logits: &[f64]| -> Vec<f64> {
            let total: f64 = logits.iter().map(|x| x.exp()).sum();
            logits.iter().map(|x| x.exp() / total).collect()
        };
        let (p, q) = (shares(exact), shares(&ours.iter().map(|x| f64::from(*x)).collect::<Vec<_>>()));
        by_floats -= p.iter().map(|p| p * p.log2()).sum::<f64>();
        by_integers -= p.iter().zip(&q).map(|(p, q)| p * q.log2()).sum::<f64>();
    }
    assert!(by_floats < 150.0 * 7.5, "{by_floats}: the network has something to say");
    assert!(by_integers < by_floats * 1.02, "{by_integers} bits, {by_floats} by floats");
}

/// Plain values of a unit of noise of every kind, against those of the format's own reference (gguf-py 0.17).
#[test]
fn every_kind_of_tensor_is_read_as_its_makers_do() {
    for (kind, bytes, halves, sum, weighed) in [
        (Kind::Q4_0, 18, &[0][..], 0.048_442_84, 0.233_665_47),
        (Kind::Q4_1, 20, &[0, 2], 1.573_402_4, 25.436_817),
        (Kind::Q5_0, 22, &[0], 0.145_328_52, 2.989_208_2),
        (Kind::Q5_1, 24, &[0, 2], 2.485_267_6, 41.405_857),
        (Kind::Q8_0, 34, &[0], -0.413_188_93, -10.110_305_8),
        (Kind::Q4K, 144, &[0, 2], -83.510_696, -7_976.458_6),
        (Kind::Q5K, 176, &[0, 2], 145.880_4, 24_470.367_9),
        (Kind::Q6K, 210, &[208], 2_577.048_3, 583_892.197),
    ] {
        let mut x = 1u64;
        let mut unit: Vec<u8> = (0..bytes)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 33) as u8
            })
            .collect();
        // Scales that are small numbers.
        halves.iter().for_each(|at| unit[at + 1] &= 0x3F);
        let mut out = Vec::new();
        kind.plain(&unit, &mut out);
        let plain: f64 = out.iter().map(|x| f64::from(*x)).sum();
        let ramp: f64 = out.iter().zip(1..).map(|(x, n)| f64::from(*x) * f64::from(n)).sum();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * b.abs().max(1.0);
        assert!(near(plain, sum) && near(ramp, weighed), "{kind:?}: {plain} {ramp}");
    }
    let mut out = Vec::new();
    Kind::F16.plain(&[0x00, 0x3C, 0x01, 0x00, 0x00, 0xC0, 0xFF, 0x7B, 0x00, 0x80], &mut out);
    assert_eq!(out, [1.0, 2f32.powi(-24), -2.0, 65_504.0, 0.0]);
    out.clear();
    Kind::Bf16.plain(&[0x80, 0x3F, 0x20, 0xC1], &mut out);
    assert_eq!(out, [1.0, -10.0]);
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let refused = |change: &dyn Fn(&mut File), word: &str| {
        let mut file = tiny();
        change(&mut file);
        let e = loaded(&file).expect_err(word).to_string();
        assert!(e.contains(word), "{word}: {e}");
    };
    fn put(file: &mut File, name: &str, value: &str) {
        file.metadata.retain(|(n, _)| n != name);
        file.text(name, value);
    }
    fn tensor<'a>(file: &'a mut File, name: &str) -> &'a mut (String, Vec<usize>, u32, Vec<u8>) {
        file.tensors.iter_mut().find(|(n, ..)| n == name).unwrap()
    }
    refused(&|f| put(f, "general.architecture", "qwen3moe"), "qwen3moe");
    refused(&|f| put(f, "tokenizer.ggml.model", "t5"), "byte pairs");
    refused(&|f| f.number("llama.expert_count", 8), "experts");
    refused(&|f| f.float("llama.attn_logit_softcapping", 50.0), "softcapping");
    refused(&|f| f.number("llama.attention.causal", 0), "after");
    refused(&|f| f.number("llama.attention.value_length", 64), "values");
    refused(&|f| put(f, "llama.rope.scaling.type", "yarn"), "scaled");
    refused(&|f| f.metadata.retain(|(n, _)| n != "llama.block_count"), "block_count");
    refused(&|f| f.tensors.retain(|(n, ..)| n != "blk.1.ffn_down.weight"), "blk.1.ffn_down.weight");
    refused(&|f| tensor(f, "blk.0.attn_v.weight").1 = vec![KEY_HEADS * ELEMENTS * 2, WIDTH / 2], "blk.0.attn_v.weight");
    refused(&|f| tensor(f, "blk.0.attn_q.weight").2 = 16, "Q8_0");
    refused(&|f| f.floats("blk.0.attn_q.bias", &[HEADS * ELEMENTS], &[0.0; HEADS * ELEMENTS]), "attn_q.bias");
    refused(&|f| f.floats("blk.0.ffn_gate_inp.weight", &[WIDTH], &[0.0; WIDTH]), "ffn_gate_inp");
    refused(&|f| f.floats("blk.2.attn_norm.weight", &[WIDTH], &[0.0; WIDTH]), "blk.2");
    refused(&|f| f.floats("output.bias", &[4], &[0.0; 4]), "output.bias");
    for strange in [f32::NAN, f32::INFINITY] {
        refused(&|f| tensor(f, "blk.1.ffn_up.weight").3[..4].copy_from_slice(&strange.to_le_bytes()), "blk.1.ffn_up");
    }
    assert!(loaded(&File::default()).is_err());
}

#[test]
fn no_bytes_of_a_file_make_a_panic() {
    let bytes = tiny().bytes();
    let gguf = Gguf::open(Cursor::new(&bytes[..])).map_err(|e| e.to_string());
    assert!(gguf.is_ok_and(|g| g.extent("output_norm.weight").is_some()));
    for len in (0..20_000).step_by(61).chain([bytes.len() - 1]) {
        assert!(load(Cursor::new(&bytes[..len]), None).is_err(), "{len} bytes");
    }
    let mut x = 1u64;
    for _ in 0..1500 {
        let mut bad = bytes.clone();
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bad[(x >> 33) as usize % 16_000] = (x >> 20) as u8;
        // Opened only: that tensors are what they say is seen to before they are read.
        let _ = Gguf::open(Cursor::new(bad));
    }
}

/// Files of a checkpoint, by their names.
pub(super) type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// The name that checkpoints have for a tensor.
fn of_hub(name: &str, is_gemma: bool) -> String {
    let Some((layer, what)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        let whole = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
        ];
        return whole.iter().find(|(of_gguf, _)| *of_gguf == name).unwrap().1.into();
    };
    let (what, kind) = what.rsplit_once('.').unwrap();
    let what = match what {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "attn_norm" => "input_layernorm",
        "ffn_norm" if is_gemma => "pre_feedforward_layernorm",
        "post_attention_norm" | "ffn_norm" => "post_attention_layernorm",
        "post_ffw_norm" => "post_feedforward_layernorm",
        other => panic!("{other}"),
    };
    format!("model.layers.{layer}.{what}.{kind}")
}

/// The same model as a checkpoint of two files, as its maker would have saved it: pairs that turn together half a head apart,
/// and Gemma's norms less 1.
pub(super) fn checkpoint(file: &File) -> Files {
    let family = file.metadata.iter().find(|(name, _)| name == "general.architecture").unwrap();
    let family = String::from_utf8(family.1[12..].to_vec()).unwrap();
    let is_gemma = family == "gemma3";
    let mut parts = [(String::new(), Vec::<u8>::new()), (String::new(), Vec::new())];
    let mut map = String::new();
    for (n, (name, shape, _, bytes)) in file.tensors.iter().enumerate() {
        let hub = of_hub(name, is_gemma);
        let mut bytes = bytes.clone();
        if is_gemma && name.ends_with("norm.weight") {
            let less = |x: &[u8; 4]| (f32::from_le_bytes(*x) - 1.0).to_le_bytes();
            bytes = bytes.as_chunks::<4>().0.iter().flat_map(less).collect();
        }
        let mut rows: Vec<&[u8]> = bytes.chunks(shape[0] * 4).collect();
        if family == "llama" && (hub.contains("q_proj") || hub.contains("k_proj")) {
            let half = ELEMENTS / 2;
            let order = (0..rows.len()).map(|r| r / ELEMENTS * ELEMENTS + r % half * 2 + r % ELEMENTS / half);
            rows = order.map(|r| rows[r]).collect();
        }
        let (header, data) = &mut parts[n % 2];
        let from = data.len();
        data.extend(rows.concat());
        let shape: Vec<usize> = shape.iter().rev().copied().collect();
        let comma = if header.is_empty() { "" } else { "," };
        *header += &format!(
            "{comma}\"{hub}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{from},{}]}}",
            data.len()
        );
        map += &format!("{}\"{hub}\":\"part-{}.safetensors\"", if n == 0 { "" } else { "," }, n % 2);
    }
    let mut files = Files::new();
    for (n, (header, data)) in parts.into_iter().enumerate() {
        let header = format!("{{{header}}}");
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        files.insert(format!("part-{n}.safetensors"), bytes);
    }
    files.insert("model.safetensors.index.json".into(), format!("{{\"weight_map\":{{{map}}}}}").into_bytes());
    let rows = |name: &str| file.tensors.iter().find(|(n, ..)| n == name).unwrap().1[1];
    let layers = file.tensors.iter().filter(|(name, ..)| name.ends_with("ffn_down.weight")).count();
    let mut config = serde_json::json!({
        "model_type": family, "hidden_size": WIDTH, "num_attention_heads": rows("blk.0.attn_q.weight") / ELEMENTS,
        "num_key_value_heads": rows("blk.0.attn_k.weight") / ELEMENTS,
        "head_dim": ELEMENTS, "intermediate_size": HIDDEN, "num_hidden_layers": layers, "hidden_act": "silu",
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "rope_scaling": null,
        "bos_token_id": 0, "eos_token_id": [5, 6], "tie_word_embeddings": is_gemma,
    });
    let more = match family.as_str() {
        "gemma3" => serde_json::json!({
            "model_type": "gemma3_text", "hidden_act": null, "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": ELEMENTS, "sliding_window": WINDOW, "sliding_window_pattern": 6,
            "rope_theta": 100_000.0, "rope_local_base_freq": 10_000.0, "attn_logit_softcapping": null,
        }),
        "qwen2" | "qwen3" => serde_json::json!({ "use_sliding_window": false, "sliding_window": 20 }),
        _ => serde_json::json!({}),
    };
    more.as_object().unwrap().iter().for_each(|(name, value)| config[name] = value.clone());
    files.insert("config.json".into(), config.to_string().into_bytes());
    let (texts, pairs) = small();
    let utf8 = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    let vocabulary: serde_json::Map<_, _> =
        texts.iter().enumerate().skip(1).map(|(n, t)| (utf8(t), n.into())).collect();
    let merges: Vec<Vec<String>> = pairs.iter().map(|p| utf8(p).split(' ').map(str::to_string).collect()).collect();
    let words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let tokenizer = serde_json::json!({
        "model": { "type": "BPE", "vocab": vocabulary, "merges": merges },
        "added_tokens": [{ "id": 0, "content": "<start>", "special": true }],
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": words }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false },
        ] },
        "post_processor": { "type": "TemplateProcessing" },
    });
    files.insert("tokenizer.json".into(), tokenizer.to_string().into_bytes());
    files
}

pub(super) fn opening(files: &Files) -> impl Fn(&str) -> io::Result<Cursor<Vec<u8>>> {
    |name| files.get(name).cloned().map(Cursor::new).ok_or(io::ErrorKind::NotFound.into())
}

pub(super) fn loaded_checkpoint(files: &Files) -> Result<LanguageModel, LoadError> {
    load_checkpoint(&opening(files), None)
}

#[test]
fn a_checkpoint_is_the_same_model() {
    let mut file = tiny();
    file.tensors.retain(|(name, ..)| name != "rope_freqs.weight");
    let files = checkpoint(&file);
    let (one, other) = (loaded(&file).unwrap(), loaded_checkpoint(&files).unwrap());
    assert_eq!(one.facts(), other.facts(), "its name is that of what it computes, not of its files");
    let raw = sample(1500);
    let payload = coded(&one, &raw, 1 << 10);
    assert_eq!(other.decode(&payload, raw.len(), &NEVER).unwrap(), raw);
}

/// A network of each family but Llama's, of the fewest layers that show all it has.
pub(super) fn relatives() -> [File; 3] {
    [tiny_as("qwen2", 2, 1, 2), tiny_as("qwen3", HEADS, KEY_HEADS, 2), tiny_as("gemma3", HEADS, KEY_HEADS, 7)]
}

#[test]
fn relatives_of_a_llama_are_coded_with() {
    // Longer than a window and a context.
    let raw = sample(2000);
    let mut ids = std::collections::BTreeSet::from([loaded(&tiny()).unwrap().facts().id]);
    for file in relatives() {
        let mut model = loaded(&file).unwrap();
        assert_eq!(model.facts(), loaded_checkpoint(&checkpoint(&file)).unwrap().facts());
        assert!(ids.insert(model.facts().id));
        let mut payloads = Vec::new();
        for path in Path::all() {
            model.path = path;
            payloads.push(coded(&model, &raw, 1 << 11));
        }
        assert!(payloads.windows(2).all(|two| two[0] == two[1]), "every path codes alike");
        assert_eq!(model.decode(&payloads[0], raw.len(), &NEVER).unwrap(), raw);
        assert!(payloads[0].len() < raw.len());
    }
}

/// What these coded once, they must read for ever.
#[test]
fn golden_relatives() {
    let golden = relatives().map(|file| {
        let model = loaded(&file).unwrap();
        let payload = coded(&model, &sample(1200), 1 << 11);
        (model.facts().id.to_string(), payload.len(), crate::base::crc32c(&payload))
    });
    assert_eq!(golden.each_ref().map(|(id, len, crc)| (id.as_str(), *len, *crc)), GOLDEN_RELATIVES);
}

const GOLDEN_RELATIVES: [(&str, usize, u32); 3] = [
    ("670b03afb47e9e20508002105754c819", 893, 1_628_107_724),
    ("feb80acfc50463368251555f3e9c9fe4", 995, 847_841_246),
    ("0810157e67118c402fdc1a8a827902ff", 1242, 116_066_144),
];

/// A part that a family has is a part that its name depends on.
#[test]
fn what_a_family_has_more_names_it() {
    for (file, names) in relatives().into_iter().zip([
        &["blk.1.attn_q.bias", "blk.0.attn_v.bias"][..],
        &["blk.1.attn_q_norm.weight", "blk.0.attn_k_norm.weight"],
        &["blk.0.attn_q_norm.weight", "blk.3.post_attention_norm.weight", "blk.6.post_ffw_norm.weight"],
    ]) {
        let plain = loaded(&file).unwrap().facts().id;
        for name in names {
            let mut other = file.clone();
            other.tensors.iter_mut().find(|(n, ..)| n == name).unwrap().3[1] ^= 1;
            assert_ne!(loaded(&other).unwrap().facts().id, plain, "{name}");
            other.tensors.retain(|(n, ..)| n != name);
            assert!(loaded(&other).is_err_and(|e| e.to_string().contains(name)), "{name}");
        }
    }
    let mut wider = relatives()[2].clone();
    let plain = loaded(&wider).unwrap().facts().id;
    wider.metadata.retain(|(name, _)| !name.contains("sliding_window"));
    assert!(loaded(&wider).is_err_and(|e| e.to_string().contains("sliding_window")));
    wider.number("gemma3.attention.sliding_window", WINDOW as u32 + 1);
    assert_ne!(loaded(&wider).unwrap().facts().id, plain);
    wider.number("gemma3.attention.sliding_window_pattern", 4);
    assert!(loaded(&wider).is_err_and(|e| e.to_string().contains("one in 6")));
}

/// A lane forgets all before it reads more than the window that every layer of a model has.
#[test]
fn a_window_of_all_layers_bounds_the_context() {
    let mut file = tiny();
    file.number("llama.attention.sliding_window", 100);
    let model = loaded(&file).unwrap();
    assert_eq!((model.facts().context, loaded(&tiny()).unwrap().facts().context), (100, CONTEXT));
    let raw = sample(2000);
    assert_eq!(model.decode(&coded(&model, &raw, 1 << 11), raw.len(), &NEVER).unwrap(), raw);
    let config = |more: &[(&str, serde_json::Value)]| {
        let mut config = serde_json::json!({
            "model_type": "mistral", "hidden_size": 128, "num_attention_heads": 1, "intermediate_size": 64,
            "num_hidden_layers": 1, "max_position_embeddings": 32_768, "sliding_window": 4096,
        });
        more.iter().for_each(|(name, value)| config[*name] = value.clone());
        plan::of_config(&config, 300).map(|plan| plan.shape.context).map_err(|e| e.to_string())
    };
    assert_eq!(config(&[]), Ok(4096));
    assert_eq!(config(&[("sliding_window", serde_json::Value::Null)]), Ok(plan::CONTEXT_MAX));
    assert_eq!(config(&[("model_type", "qwen2".into()), ("use_sliding_window", false.into())]), Ok(plan::CONTEXT_MAX));
    assert_eq!(config(&[("model_type", "qwen2".into()), ("use_sliding_window", true.into())]), Ok(4096));
    for (name, value) in [
        ("attention_bias", true.into()),
        ("partial_rotary_factor", 0.5.into()),
        ("final_logit_softcapping", 30.0.into()),
        ("hidden_act", "gelu".into()),
        ("model_type", "mixtral".into()),
        ("rope_scaling", serde_json::json!({ "rope_type": "dynamic", "factor": 2.0 })),
    ] {
        let e = config(&[(name, value)]).unwrap_err();
        assert!(
            ["attention_bias", "turn", "softcapping", "gelu", "mixtral", "dynamic"].iter().any(|w| e.contains(w)),
            "{e}"
        );
    }
}

/// Of Gemma's newer files, which say everything of each kind of layers.
#[test]
fn kinds_of_layers_are_read_as_they_are_written() {
    let old = serde_json::json!({
        "model_type": "gemma3_text", "hidden_size": 128, "num_attention_heads": 1, "intermediate_size": 64,
        "num_hidden_layers": 7, "max_position_embeddings": 32_768, "sliding_window": 512, "head_dim": 128,
        "rope_theta": 1e6, "rope_local_base_freq": 10_000.0, "sliding_window_pattern": 6,
        "rope_scaling": { "rope_type": "linear", "factor": 8.0 }, "query_pre_attn_scalar": 168,
    });
    let mut new = old.clone();
    for name in ["rope_theta", "rope_local_base_freq", "sliding_window_pattern", "rope_scaling"] {
        new.as_object_mut().unwrap().remove(name);
    }
    let near = "sliding_attention";
    new["layer_types"] = [near, near, near, near, near, "full_attention", near][..].into();
    new["rope_parameters"] = serde_json::json!({
        "full_attention": { "rope_type": "linear", "factor": 8.0, "rope_theta": 1e6 },
        "sliding_attention": { "rope_type": "default", "rope_theta": 10_000.0 },
    });
    let plans = [&old, &new].map(|config| plan::of_config(config, 300).unwrap());
    assert_eq!(plans[0].shape, plans[1].shape);
    assert_eq!(plans[0].frequencies, plans[1].frequencies);
    assert_eq!(plans[0].near_frequencies, plans[1].near_frequencies);
    assert_eq!((plans[0].frequencies[0], plans[0].near_frequencies[0]), (0.125, 1.0));
    let windows: Vec<_> = (0..7).map(|layer| plans[0].shape.window(layer)).collect();
    assert_eq!(windows, [Some(512), Some(512), Some(512), Some(512), Some(512), None, Some(512)]);
    new["layer_types"][2] = "full_attention".into();
    assert!(plan::of_config(&new, 300).is_err());
}

/// What a checkpoint says of its embeddings holds, whatever else is in its files.
#[test]
fn embeddings_are_tied_where_that_is_said() {
    let mut file = tiny();
    file.tensors.retain(|(name, ..)| name != "rope_freqs.weight");
    let with = |file: &File, tied: serde_json::Value| {
        let mut files = checkpoint(file);
        let mut config: serde_json::Value = serde_json::from_slice(&files["config.json"]).unwrap();
        config["tie_word_embeddings"] = tied;
        files.insert("config.json".into(), config.to_string().into_bytes());
        loaded_checkpoint(&files).map(|model| model.facts().id).map_err(|e| e.to_string())
    };
    let apart = with(&file, false.into()).unwrap();
    assert_eq!(with(&file, serde_json::Value::Null), Ok(apart));
    let tied = with(&file, true.into()).unwrap();
    assert_ne!(tied, apart);
    file.tensors.retain(|(name, ..)| name != "output.weight");
    assert_eq!(with(&file, true.into()), Ok(tied));
    assert_eq!(with(&file, serde_json::Value::Null), Ok(tied));
    assert!(with(&file, false.into()).unwrap_err().contains("output.weight"));
}

/// Tokens that are pieces: any bytes come back, of a GGUF file and of a checkpoint, which are one model.
#[test]
fn any_bytes_come_back_by_pieces() {
    let mut file = tiny();
    file.tensors.retain(|(name, ..)| name != "rope_freqs.weight");
    let mut files = checkpoint(&file);
    with_pieces(&mut file);
    let vocabulary: serde_json::Map<_, _> =
        pieces().into_iter().enumerate().map(|(n, (text, ..))| (text, n.into())).collect();
    let tokenizer = serde_json::json!({
        "model": { "type": "BPE", "vocab": vocabulary, "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>",
            "merges": ["t h", "th e", "\u{2581} the"] },
        "added_tokens": [
            { "id": 0, "content": "<unk>", "special": true }, { "id": 1, "content": "<s>", "special": true },
            { "id": 263, "content": "\u{2581}\u{2581}\u{2581}\u{2581}", "special": false },
        ],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "\u{2581}" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" },
        ] },
        "post_processor": { "type": "TemplateProcessing" },
    });
    files.insert("tokenizer.json".into(), tokenizer.to_string().into_bytes());
    let config =
        String::from_utf8(files["config.json"].clone()).unwrap().replace("bos_token_id\":0", "bos_token_id\":1");
    files.insert("config.json".into(), config.into_bytes());
    let (one, other) = (loaded(&file).unwrap(), loaded_checkpoint(&files).unwrap());
    assert_eq!(one.facts(), other.facts());
    let mark = "  the\u{2581}the \u{2581}".as_bytes();
    for raw in [&sample(2500)[..], b"the the", b" ", mark, &[200; 300], b"<0x41><s><unk>", "\u{2581}".as_bytes()] {
        let payload = coded(&one, raw, 1 << 11);
        assert_eq!(payload, coded(&other, raw, 1 << 11), "both cut alike");
        assert_eq!(other.decode(&payload, raw.len(), &NEVER).unwrap(), raw);
    }
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_said() {
    let mut file = tiny();
    file.tensors.retain(|(name, ..)| name != "rope_freqs.weight");
    let good = checkpoint(&file);
    let refused = |name: &str, bytes: Option<Vec<u8>>, word: &str| {
        let mut files = good.clone();
        files.remove(name);
        bytes.into_iter().for_each(|b| drop(files.insert(name.into(), b)));
        let e = loaded_checkpoint(&files).expect_err(word).to_string();
        assert!(e.contains(word), "{word}: {e}");
    };
    let changed = |name: &str, from: &str, to: &str| {
        let text = String::from_utf8_lossy(&good[name]).replacen(from, to, 1);
        Some(text.into_bytes())
    };
    for name in ["config.json", "tokenizer.json", "part-1.safetensors", "model.safetensors.index.json"] {
        refused(name, None, name);
        let word = if name.starts_with("part") { "not as it should be" } else { "not JSON" };
        let len = if name.starts_with("part") { good[name].len() - 40 } else { 30 };
        refused(name, Some(good[name][..len].to_vec()), word);
    }
    refused("config.json", changed("config.json", "\"llama\"", "\"qwen9\""), "qwen9");
    refused(
        "config.json",
        changed("config.json", "\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"yarn\"}"),
        "yarn",
    );
    refused("config.json", changed("config.json", "\"hidden_size\":64", "\"hidden_size\":72"), "72");
    refused("tokenizer.json", changed("tokenizer.json", "ByteLevel", "Metaspace"), "ByteLevel");
    refused("model.safetensors.index.json", changed("model.safetensors.index.json", "part-0", "../part-0"), "beside");
}

/// Llama 3.1's positions: as its makers compute them.
#[test]
fn slow_pairs_are_stretched_as_llama_3_does() {
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 128, "num_attention_heads": 1, "intermediate_size": 64,
        "num_hidden_layers": 1, "max_position_embeddings": 131_072, "rope_theta": 500_000.0,
        "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192 },
    });
    let plan = plan::of_config(&config, 300).unwrap();
    assert_eq!(plan.shape.context, plan::CONTEXT_MAX);
    for (pair, got) in plan.frequencies.iter().enumerate() {
        let frequency = 500_000f64.powf(-2.0 * pair as f64 / 128.0);
        let wave = std::f64::consts::TAU / frequency;
        let expected = if wave < 8192.0 / 4.0 {
            frequency
        } else if wave > 8192.0 / 1.0 {
            frequency / 8.0
        } else {
            let smooth = (8192.0 / wave - 1.0) / (4.0 - 1.0);
            (1.0 - smooth) * frequency / 8.0 + smooth * frequency
        };
        assert!((got / expected - 1.0).abs() < 1e-12, "pair {pair}: {got}, {expected}");
    }
}

/// An adapter of noise to every matrix of the tiny model, as PEFT writes one.
fn adapter(rank: usize, settings: &[(&str, serde_json::Value)]) -> Files {
    let mut x = 9u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((x >> 40) as i32 - (1 << 23)) as f32 / (1 << 25) as f32
        };
        (0..len).flat_map(|_| next().to_le_bytes()).collect()
    };
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    header.insert("__metadata__".into(), serde_json::json!({ "format": "pt" }));
    for layer in 0..LAYERS {
        for (what, rows, columns) in [
            ("self_attn.q_proj", HEADS * ELEMENTS, WIDTH),
            ("self_attn.k_proj", KEY_HEADS * ELEMENTS, WIDTH),
            ("self_attn.v_proj", KEY_HEADS * ELEMENTS, WIDTH),
            ("self_attn.o_proj", WIDTH, HEADS * ELEMENTS),
            ("mlp.gate_proj", HIDDEN, WIDTH),
            ("mlp.up_proj", HIDDEN, WIDTH),
            ("mlp.down_proj", WIDTH, HIDDEN),
        ] {
            for (half, shape) in [("lora_A", [rank, columns]), ("lora_B", [rows, rank])] {
                let from = data.len();
                data.extend(noise(shape[0] * shape[1]));
                header.insert(
                    format!("base_model.model.model.layers.{layer}.{what}.{half}.weight"),
                    serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, data.len()] }),
                );
            }
        }
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut config = serde_json::json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 12, "lora_dropout": 0.05, "bias": "none",
        "use_dora": false, "use_rslora": false, "fan_in_fan_out": false, "modules_to_save": null, "rank_pattern": {},
        "alpha_pattern": {}, "target_modules": ["q_proj", "k_proj", "v_proj"], "init_lora_weights": true,
    });
    settings.iter().for_each(|(name, value)| config[*name] = value.clone());
    let tensors = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    [("adapter_config.json".into(), config.to_string().into_bytes()), ("adapter_model.safetensors".into(), tensors)]
        .into()
}

fn adapted(file: &File, adapter: &Files) -> Result<LanguageModel, LoadError> {
    load(Cursor::new(file.bytes()), Some(&opening(adapter)))
}

/// Adds an adapter to a file's own tensors, by the definition, whatever order they have.
pub(super) fn merged(file: &File, adapter: &Files, scale: f64) -> File {
    let tensors = &adapter["adapter_model.safetensors"];
    let (len, rest) = tensors.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let half = |name: String| -> Vec<f64> {
        let at = |n: usize| header[&name]["data_offsets"][n].as_u64().unwrap() as usize;
        data[at(0)..at(1)].chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
    };
    let mut file = file.clone();
    for (name, shape, _, bytes) in &mut file.tensors {
        let Some((layer, what)) = name.strip_prefix("blk.").and_then(|r| r.split_once('.')) else { continue };
        let what = what.trim_end_matches(".weight");
        let Some((hub, _)) = safetensors::MATRICES.iter().find(|(_, of_gguf)| *of_gguf == what) else { continue };
        let of = |end: &str| half(format!("base_model.model.model.layers.{layer}.{hub}.{end}.weight"));
        let (a, b) = (of("lora_A"), of("lora_B"));
        let (columns, rows) = (shape[0], shape[1]);
        let rank = a.len() / columns;
        for (n, element) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let (row, column) = (n / columns, n % columns);
            // The makers of GGUF files put the two elements that turn together side by side.
            let of_hub = match what {
                "attn_q" | "attn_k" => row / ELEMENTS * ELEMENTS + row % 2 * (ELEMENTS / 2) + row % ELEMENTS / 2,
                _ => row,
            };
            assert!(of_hub < rows);
            let sum: f64 = (0..rank).map(|k| b[of_hub * rank + k] * a[k * columns + column]).sum();
            *element = ((f64::from(f32::from_le_bytes(*element)) + scale * sum) as f32).to_le_bytes();
        }
    }
    file
}

/// The rows of queries and keys have another order in GGUF files, and those of adapters that of checkpoints.
#[test]
fn an_adapter_makes_the_same_model_of_either_format() {
    let mut file = tiny();
    file.tensors.retain(|(name, ..)| name != "rope_freqs.weight");
    let files = checkpoint(&file);
    let plain = loaded(&file).unwrap();
    for (rank, by_root, scale) in [(3, false, 4.0), (4, true, 6.0), (1, false, 12.0)] {
        let adapter = adapter(rank, &[("use_rslora", by_root.into())]);
        let of_gguf = adapted(&file, &adapter).unwrap();
        let of_checkpoint = load_checkpoint(&opening(&files), Some(&opening(&adapter))).unwrap();
        assert_eq!(of_gguf.facts(), of_checkpoint.facts());
        assert_ne!(of_gguf.facts().id, plain.facts().id);
        let by_hand = loaded(&merged(&file, &adapter, scale)).unwrap();
        assert_eq!(of_gguf.facts(), by_hand.facts(), "rank {rank}");
        let raw = sample(1500);
        let payload = coded(&of_gguf, &raw, 1 << 10);
        assert_eq!(of_checkpoint.decode(&payload, raw.len(), &NEVER).unwrap(), raw);
        assert!(plain.decode(&payload, raw.len(), &NEVER).is_err(), "it says something else than the model alone");
    }
    // Where a product is nothing, so is what it adds.
    let nothing = adapted(&file, &adapter(2, &[("lora_alpha", 0.into())])).unwrap();
    assert_eq!(nothing.facts().id, plain.facts().id);
}

/// What adapters made of weights once, they must make for ever.
#[test]
fn golden_adapted_model() {
    assert_eq!(adapted(&tiny(), &adapter(5, &[])).unwrap().facts().id.to_string(), GOLDEN_ADAPTED);
}

const GOLDEN_ADAPTED: &str = "43b821957714058ebcae756f9b6cb125";

#[test]
fn what_is_wrong_with_an_adapter_is_said() {
    let file = tiny();
    let refused = |adapter: &Files, word: &str| {
        let e = adapted(&file, adapter).expect_err(word).to_string();
        assert!(e.contains(word), "{word}: {e}");
    };
    let set = |name: &str, value: serde_json::Value, word: &str| refused(&adapter(2, &[(name, value)]), word);
    set("peft_type", "LOHA".into(), "LOHA");
    set("peft_type", serde_json::Value::Null, "peft_type");
    set("r", serde_json::Value::Null, "rank");
    set("r", 0.into(), "rank 0");
    set("r", 4.into(), "rank 4");
    set("lora_alpha", serde_json::Value::Null, "lora_alpha");
    set("lora_alpha", 1e300.into(), "scaled");
    for name in ["use_dora", "fan_in_fan_out", "lora_bias"] {
        set(name, true.into(), name);
    }
    set("bias", "all".into(), "bias");
    set("modules_to_save", ["lm_head"][..].into(), "modules_to_save");
    set("rank_pattern", serde_json::json!({ "q_proj": 8 }), "rank_pattern");
    set("init_lora_weights", "pissa_niter_4".into(), "pissa_niter_4");
    let renamed = |from: &str, to: &str| {
        let mut files = adapter(2, &[]);
        let tensors = files.get_mut("adapter_model.safetensors").unwrap();
        let header = 8 + u64::from_le_bytes(tensors[..8].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&tensors[8..header]).unwrap();
        assert!(text.contains(from));
        let text = text.replacen(from, to, 1);
        *tensors = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &tensors[header..]].concat();
        files
    };
    let layer = "base_model.model.model.layers.";
    refused(&renamed("1.mlp.up_proj.lora_A", "1.mlp.up_proj.lora_magnitude_vector"), "lora_magnitude_vector");
    refused(&renamed(&format!("{layer}1.mlp.up_proj.lora_A"), "base_model.model.lm_head.lora_A"), "lm_head");
    refused(&renamed("1.self_attn.q_proj.lora_B", "7.self_attn.q_proj.lora_B"), "blk.1.attn_q.weight.lora_B");
    // Keys have fewer rows than queries.
    let mut swapped = renamed("0.self_attn.q_proj", "0.self_attn.x_proj");
    refused(&swapped, "x_proj");
    swapped = adapter(2, &[]);
    let tensors = swapped.get_mut("adapter_model.safetensors").unwrap();
    for (at, replaced) in [(b'q', b'!'), (b'k', b'q'), (b'!', b'k')] {
        let from = [b"0.self_attn.", &[at][..], b"_proj"].concat();
        let found: Vec<usize> = (0..4096).filter(|n| tensors[*n..].starts_with(&from)).collect();
        found.into_iter().for_each(|n| tensors[n + 12] = replaced);
    }
    refused(&swapped, "another model");
    for strange in [f32::NAN, f32::INFINITY, 3e38] {
        let mut files = adapter(2, &[]);
        let tensors = files.get_mut("adapter_model.safetensors").unwrap();
        let end = tensors.len();
        tensors[end - 4..].copy_from_slice(&strange.to_le_bytes());
        tensors[end - 8..end - 4].copy_from_slice(&strange.to_le_bytes());
        refused(&files, "no numbers");
    }
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let mut files = adapter(2, &[]);
        files.remove(name);
        refused(&files, name);
        let mut files = adapter(2, &[]);
        files.get_mut(name).unwrap().truncate(60);
        assert!(adapted(&file, &files).is_err());
    }
}
