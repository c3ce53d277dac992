//! A small language model in the real format, made by the tests themselves: a Llama of noise, or a relative of it, and its few
//! tokens.

#![allow(dead_code)]

/// A file being made.
#[derive(Clone, Default)]
pub struct File {
    pub metadata: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

pub fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

impl File {
    pub fn number(&mut self, name: &str, n: u32) {
        self.metadata.push((name.into(), [4u32.to_le_bytes(), n.to_le_bytes()].concat()));
    }

    pub fn float(&mut self, name: &str, x: f32) {
        self.metadata.push((name.into(), [6u32.to_le_bytes(), x.to_le_bytes()].concat()));
    }

    pub fn text(&mut self, name: &str, value: &str) {
        self.metadata.push((name.into(), [&8u32.to_le_bytes()[..], &text(value.as_bytes())].concat()));
    }

    pub fn numbers(&mut self, name: &str, values: &[f32]) {
        let head = [&9u32.to_le_bytes()[..], &6u32.to_le_bytes(), &(values.len() as u64).to_le_bytes()].concat();
        let values: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.metadata.push((name.into(), [head, values].concat()));
    }

    pub fn texts(&mut self, name: &str, values: &[Vec<u8>]) {
        let head = [&9u32.to_le_bytes()[..], &8u32.to_le_bytes(), &(values.len() as u64).to_le_bytes()].concat();
        let values: Vec<u8> = values.iter().flat_map(|v| text(v)).collect();
        self.metadata.push((name.into(), [head, values].concat()));
    }

    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name.into(), shape.to_vec(), 0, bytes));
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (name, value) in &self.metadata {
            out.extend(text(name.as_bytes()));
            out.extend(value);
        }
        let mut offset = 0;
        for (name, shape, kind, bytes) in &self.tensors {
            out.extend(text(name.as_bytes()));
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|n| out.extend((*n as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + bytes.len()).next_multiple_of(32);
        }
        for (_, _, _, bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out
    }
}

pub const WIDTH: usize = 64;
pub const HEADS: usize = 4;
pub const KEY_HEADS: usize = 2;
pub const ELEMENTS: usize = 32;
pub const HIDDEN: usize = 96;
pub const LAYERS: usize = 2;
pub const CONTEXT: usize = 200;
/// What the layers of `gemma3` see that do not see all: tokens.
pub const WINDOW: usize = 48;

/// A Llama of two layers, of noise, with `small`'s tokens.
pub fn tiny() -> File {
    tiny_of(HEADS, KEY_HEADS)
}

/// The same with so many heads.
pub fn tiny_of(heads: usize, key_heads: usize) -> File {
    tiny_as("llama", heads, key_heads, LAYERS)
}

/// A network of a family by the name that GGUF has for it.
pub fn tiny_as(family: &str, heads: usize, key_heads: usize, layers: usize) -> File {
    let mut x = 1u64;
    let mut noise = |len: usize, scale: f32| -> Vec<f32> {
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((x >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32
        };
        (0..len).map(|_| (next() + next() + next()) * scale).collect()
    };
    let (texts, pairs) = small();
    let mut file = File::default();
    file.text("general.architecture", family);
    for (name, n) in [
        ("embedding_length", WIDTH),
        ("attention.head_count", heads),
        ("attention.head_count_kv", key_heads),
        ("attention.key_length", ELEMENTS),
        ("feed_forward_length", HIDDEN),
        ("block_count", layers),
        ("context_length", CONTEXT),
    ] {
        file.number(&format!("{family}.{name}"), n as u32);
    }
    let is_gemma = family == "gemma3";
    if is_gemma {
        file.number("gemma3.attention.sliding_window", WINDOW as u32);
    }
    file.float(&format!("{family}.rope.freq_base"), if is_gemma { 100_000.0 } else { 10_000.0 });
    file.float(&format!("{family}.attention.layer_norm_rms_epsilon"), 1e-5);
    file.text("tokenizer.ggml.model", "gpt2");
    file.text("tokenizer.ggml.pre", "llama-bpe");
    file.texts("tokenizer.ggml.tokens", &texts);
    file.texts("tokenizer.ggml.merges", &pairs);
    file.number("tokenizer.ggml.bos_token_id", 0);
    file.floats("token_embd.weight", &[WIDTH, texts.len()], &noise(texts.len() * WIDTH, 0.5));
    if !is_gemma {
        file.floats("output.weight", &[WIDTH, texts.len()], &noise(texts.len() * WIDTH, 0.35));
    }
    // Norms around 1. Checkpoints of Gemma have them less 1, which changes no bit of these.
    let round = |x: &f32| if is_gemma { (x * 1024.0).round() / 1024.0 + 1.0 } else { x + 1.0 };
    file.floats("output_norm.weight", &[WIDTH], &noise(WIDTH, 0.2).iter().map(round).collect::<Vec<_>>());
    if family == "llama" {
        // As Llama 3.1 stretches its slow pairs.
        let stretch: Vec<f32> = (0..ELEMENTS / 2).map(|pair| if pair < 8 { 1.0 } else { 8.0 }).collect();
        file.floats("rope_freqs.weight", &[ELEMENTS / 2], &stretch);
    }
    for layer in 0..layers {
        for (name, rows, columns) in [
            ("attn_q", heads * ELEMENTS, WIDTH),
            ("attn_k", key_heads * ELEMENTS, WIDTH),
            ("attn_v", key_heads * ELEMENTS, WIDTH),
            ("attn_output", WIDTH, heads * ELEMENTS),
            ("ffn_gate", HIDDEN, WIDTH),
            ("ffn_up", HIDDEN, WIDTH),
            ("ffn_down", WIDTH, HIDDEN),
        ] {
            let scale = 1.6 / (columns as f32).sqrt();
            file.floats(&format!("blk.{layer}.{name}.weight"), &[columns, rows], &noise(rows * columns, scale));
        }
        let more: &[(&str, usize)] = match family {
            "qwen3" => &[("attn_q_norm", ELEMENTS), ("attn_k_norm", ELEMENTS)],
            "gemma3" => &[
                ("attn_q_norm", ELEMENTS),
                ("attn_k_norm", ELEMENTS),
                ("post_attention_norm", WIDTH),
                ("post_ffw_norm", WIDTH),
            ],
            _ => &[],
        };
        for (name, len) in [("attn_norm", WIDTH), ("ffn_norm", WIDTH)].iter().chain(more) {
            let weights: Vec<f32> = noise(*len, 0.3).iter().map(round).collect();
            file.floats(&format!("blk.{layer}.{name}.weight"), &[*len], &weights);
        }
        if family == "qwen2" {
            for (name, heads) in [("attn_q", heads), ("attn_k", key_heads), ("attn_v", key_heads)] {
                let len = heads * ELEMENTS;
                file.floats(&format!("blk.{layer}.{name}.bias"), &[len], &noise(len, 0.4));
            }
        }
    }
    file
}

/// Gives a model of `small`'s tokens as many pieces for tokens, as SentencePiece makes them.
pub fn with_pieces(file: &mut File) {
    file.metadata.retain(|(name, _)| !name.starts_with("tokenizer."));
    let pieces = pieces();
    let texts: Vec<Vec<u8>> = pieces.iter().map(|(text, ..)| text.clone().into_bytes()).collect();
    let scores: Vec<f32> = pieces.iter().map(|(_, score, _)| *score).collect();
    let kinds: Vec<f32> = pieces.iter().map(|(.., kind)| *kind as f32).collect();
    file.text("tokenizer.ggml.model", "llama");
    file.texts("tokenizer.ggml.tokens", &texts);
    file.numbers("tokenizer.ggml.scores", &scores);
    file.numbers("tokenizer.ggml.token_type", &kinds);
    file.number("tokenizer.ggml.bos_token_id", 1);
}

/// A small vocabulary of pieces, with their scores and kinds: no text, bytes but two, a few pieces, and one that is found before
/// all others.
pub fn pieces() -> Vec<(String, f32, u32)> {
    let mut out = vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3)];
    out.extend((0..=255u8).filter(|b| ![0, 200].contains(b)).map(|b| (format!("<0x{b:02X}>"), 0.0, 6)));
    let words = ["th", "the", "\u{2581}the", "\u{2581}", "e", "t", "h"];
    out.extend(words.iter().enumerate().map(|(n, word)| (word.to_string(), -(n as f32), 1)));
    out.push(("\u{2581}\u{2581}\u{2581}\u{2581}".into(), 0.0, 4));
    out
}

/// Texts and pairs of a small vocabulary: single bytes but two, and a few words.
pub fn small() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut texts = vec![b"<start>".to_vec()];
    texts.extend(
        letters().iter().enumerate().filter(|(b, _)| ![0, 200].contains(b)).map(|(_, c)| c.to_string().into_bytes()),
    );
    let pairs = ["t h", "th e", "\u{120} the", "a n", "an d", "\u{120} and", "\u{120} a", "i n", "\u{10a} \u{10a}"];
    texts.extend(pairs.iter().map(|p| p.replace(' ', "").into_bytes()));
    (texts, pairs.iter().map(|p| p.as_bytes().to_vec()).collect())
}

/// The character that stands for each byte where a vocabulary is written as text (GPT-2): printable ones for themselves, the
/// others from U+0100 on.
fn letters() -> Vec<char> {
    let mut next = 256;
    let mut letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap()
        }
    };
    (0..=255).map(&mut letter).collect()
}
