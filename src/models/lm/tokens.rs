//! Bytes as tokens, and back.
//!
//! The vocabulary is one of byte pairs (P. Gage, 1994; on bytes: A. Radford et al., 2019): every token is a string of bytes,
//! and any bytes are some tokens. What is coded is the tokens; decoding puts their bytes together. So how bytes were cut is
//! nobody's business but the encoder's: a cut as the model was trained on codes smaller, and any cut is right. A byte that no
//! token stands for is an escape, the token that begins a text, and then the byte itself.
//!
//! Before pairs are merged, text is cut where the model's own tokenizer cuts it, as far as rules without tables of Unicode
//! go: letters, digits, marks, blanks.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::LoadError;
use super::cdf::VOCABULARY_MAX;
use super::gguf::{Gguf, Value};

/// Longest piece that pairs are merged in, bytes: work grows with its square.
const PIECE_BYTES_MAX: usize = 128;
/// Longest token, bytes: of a piece that is bounded, no longer one can come.
const TOKEN_BYTES_MAX: usize = 1024;
/// Kinds of tokens in the file: plain text. Others steer a conversation.
const NORMAL: f64 = 1.0;

/// What a text is coded as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Symbol {
    Token(u32),
    /// The escape, then this byte.
    Byte(u8),
}

/// Where text is cut before pairs are merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cuts {
    /// As GPT-2 does; digits stand alone if so said.
    Gpt2 { single_digits: bool },
    /// As Llama 3 does: so many digits at most, marks before letters, line ends after marks.
    Llama3 { digits: usize },
}

/// A vocabulary.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Bytes of all tokens, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Two tokens, what they become, and how soon.
    merges: HashMap<(u32, u32), (u32, u32)>,
    of_byte: [Option<u32>; 256],
    /// The token before a text, which is the escape too: it never comes within one.
    pub start: u32,
    cuts: Cuts,
}

/// The character that stands for a byte where a vocabulary is written as text: printable ones for themselves, the others
/// from U+0100 on.
fn letters() -> HashMap<char, u8> {
    let mut next = 256;
    let mut letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or(' ')
        }
    };
    (0..=255).map(|byte| (letter(byte), byte)).collect()
}

impl Tokens {
    /// The vocabulary of a file.
    ///
    /// # Errors
    /// When it has none, or one of another kind.
    pub fn of_gguf<R: std::io::Read + std::io::Seek>(gguf: &Gguf<R>) -> Result<Tokens, LoadError> {
        let unsupported = |what: &str| Err(LoadError::Unsupported(what.to_string()));
        match gguf.value("tokenizer.ggml.model") {
            Some(Value::Bytes(model)) if model == b"gpt2" => {}
            Some(Value::Bytes(model)) => {
                let model = String::from_utf8_lossy(model);
                return Err(LoadError::Unsupported(format!(
                    "its tokenizer is `{model}`; only those of byte pairs (`gpt2`) are known"
                )));
            }
            _ => return unsupported("it has no tokenizer (tokenizer.ggml.model)"),
        }
        let cuts = match gguf.value("tokenizer.ggml.pre") {
            Some(Value::Bytes(pre)) => match pre.as_slice() {
                b"smollm" => Cuts::Gpt2 { single_digits: true },
                b"llama-bpe" | b"llama3" | b"llama-v3" | b"smaug-bpe" => Cuts::Llama3 { digits: 3 },
                b"qwen2" => Cuts::Llama3 { digits: 1 },
                _ => Cuts::Gpt2 { single_digits: false },
            },
            _ => Cuts::Gpt2 { single_digits: false },
        };
        let texts = match gguf.value("tokenizer.ggml.tokens") {
            Some(Value::Texts(texts)) if !texts.is_empty() && texts.len() <= VOCABULARY_MAX => texts,
            _ => return unsupported("its vocabulary (tokenizer.ggml.tokens) is missing or too large"),
        };
        let kinds = match gguf.value("tokenizer.ggml.token_type") {
            Some(Value::Numbers(kinds)) => kinds.as_slice(),
            _ => &[],
        };
        let pairs = match gguf.value("tokenizer.ggml.merges") {
            Some(Value::Texts(pairs)) => pairs.as_slice(),
            _ => return unsupported("its tokenizer has no merges (tokenizer.ggml.merges)"),
        };
        let number = |name: &str| match gguf.value(name) {
            Some(Value::Number(n)) if *n >= 0.0 && *n < texts.len() as f64 => Some(*n as u32),
            _ => None,
        };
        let (bos, eos) = (number("tokenizer.ggml.bos_token_id"), number("tokenizer.ggml.eos_token_id"));
        // A model that was trained without a token before each text saw the one that ends the text before.
        let begins = !matches!(gguf.value("tokenizer.ggml.add_bos_token"), Some(Value::Number(0.0)));
        let Some(start) = (if begins { bos.or(eos) } else { eos.or(bos) }) else {
            return unsupported("it does not say which token begins a text (tokenizer.ggml.bos_token_id)");
        };
        Tokens::new(texts, kinds, pairs, start, cuts)
    }

    /// The vocabulary of a checkpoint: its `tokenizer.json`, and its `config.json`, which says what begins a text.
    ///
    /// # Errors
    /// When it is one of another kind.
    pub fn of_json(json: &Json, config: &Json) -> Result<Tokens, LoadError> {
        let unsupported = |what: &str| Err(LoadError::Unsupported(what.to_string()));
        let model = json.get("model").unwrap_or(&Json::Null);
        let by_bytes = |name: &str| json.get(name).is_some_and(|part| part.to_string().contains("\"ByteLevel\""));
        let (Some(vocabulary), Some(merges)) =
            (model.get("vocab").and_then(Json::as_object), model.get("merges").and_then(Json::as_array))
        else {
            return unsupported("its tokenizer.json has no vocabulary of pairs");
        };
        if !by_bytes("pre_tokenizer") && !by_bytes("decoder") {
            return unsupported("its tokenizer is not one of pairs of bytes (ByteLevel)");
        }
        let added: Vec<(usize, &str)> = json
            .get("added_tokens")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(|t| Some((t.get("id")?.as_u64()? as usize, t.get("content")?.as_str()?)))
            .collect();
        let normal: Vec<(usize, &str)> =
            vocabulary.iter().filter_map(|(text, id)| Some((id.as_u64()? as usize, text.as_str()))).collect();
        let count = normal.iter().chain(&added).map(|(id, _)| id.saturating_add(1)).max().unwrap_or(0);
        if count > VOCABULARY_MAX {
            return unsupported("its vocabulary is too large");
        }
        let (mut texts, mut kinds) = (vec![Vec::new(); count], vec![0.0; count]);
        for (tokens, kind) in [(normal, NORMAL), (added, 0.0)] {
            for (id, text) in tokens {
                if let (Some(t), Some(k)) = (texts.get_mut(id), kinds.get_mut(id)) {
                    (*t, *k) = (text.as_bytes().to_vec(), kind);
                }
            }
        }
        let pairs: Vec<Vec<u8>> = merges
            .iter()
            .filter_map(|merge| match merge {
                Json::String(pair) => Some(pair.as_bytes().to_vec()),
                Json::Array(two) => {
                    let texts: Option<Vec<&str>> = two.iter().map(Json::as_str).collect();
                    texts.map(|t| t.join(" ").into_bytes())
                }
                _ => None,
            })
            .collect();
        let number = |name: &str| match config.get(name) {
            // Where several end a text, the first does.
            Some(Json::Array(many)) => many.first().and_then(Json::as_u64),
            Some(one) => one.as_u64(),
            None => None,
        };
        let token = |name: &str| number(name).filter(|n| (*n as usize) < count).map(|n| n as u32);
        let begins = json.get("post_processor").is_some_and(|p| p.to_string().contains("\"TemplateProcessing\""));
        let (bos, eos) = (token("bos_token_id"), token("eos_token_id"));
        let Some(start) = (if begins { bos.or(eos) } else { eos.or(bos) }) else {
            return unsupported("its config.json does not say which token begins a text (bos_token_id)");
        };
        let before = json.get("pre_tokenizer").map(Json::to_string).unwrap_or_default();
        let cuts = if before.contains("\"individual_digits\":true") {
            Cuts::Gpt2 { single_digits: true }
        } else if before.contains("p{N}{1,3}") {
            Cuts::Llama3 { digits: 3 }
        } else if before.contains("p{N}") {
            Cuts::Llama3 { digits: 1 }
        } else {
            Cuts::Gpt2 { single_digits: false }
        };
        Tokens::new(&texts, &kinds, &pairs, start, cuts)
    }

    fn new(texts: &[Vec<u8>], kinds: &[f64], pairs: &[Vec<u8>], start: u32, cuts: Cuts) -> Result<Tokens, LoadError> {
        let letters = letters();
        let mut tokens =
            Tokens { bytes: Vec::new(), ends: Vec::new(), merges: HashMap::new(), of_byte: [None; 256], start, cuts };
        let mut by_text = HashMap::new();
        for (n, text) in (0u32..).zip(texts) {
            let normal = kinds.get(n as usize).is_none_or(|kind| *kind == NORMAL) && n != start;
            let bytes: Option<Vec<u8>> = std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.chars().map(|c| letters.get(&c).copied()).collect());
            if let Some(bytes) = bytes.filter(|b| normal && !b.is_empty() && b.len() <= TOKEN_BYTES_MAX) {
                if let [byte] = bytes.as_slice()
                    && let Some(of_byte) = tokens.of_byte.get_mut(usize::from(*byte))
                {
                    of_byte.get_or_insert(n);
                }
                tokens.bytes.extend_from_slice(&bytes);
                by_text.entry(text.as_slice()).or_insert(n);
            }
            tokens.ends.push(tokens.bytes.len() as u32);
        }
        for (rank, pair) in (0u32..).zip(pairs) {
            // A merge of what is no token is of no use, and does no harm.
            let Some(at) = pair.iter().position(|b| *b == b' ') else { continue };
            let (left, right) = (&pair[..at], &pair[at + 1..]);
            let both = [left, right].concat();
            if let (Some(l), Some(r), Some(t)) = (by_text.get(left), by_text.get(right), by_text.get(both.as_slice())) {
                tokens.merges.entry((*l, *r)).or_insert((rank, *t));
            }
        }
        Ok(tokens)
    }

    /// Tokens there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of a token; none of one that is not of a text.
    pub fn bytes(&self, token: u32) -> &[u8] {
        let token = token as usize;
        let from = token.checked_sub(1).and_then(|t| self.ends.get(t)).copied().unwrap_or(0);
        let to = self.ends.get(token).copied().unwrap_or(from);
        self.bytes.get(from as usize..to as usize).unwrap_or_default()
    }

    /// Feeds what decoding depends on to a hash.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.start.to_le_bytes());
        self.ends.iter().for_each(|end| {
            hasher.update(&end.to_le_bytes());
        });
        hasher.update(&self.bytes);
    }

    /// Cuts bytes into tokens.
    pub fn cut(&self, mut bytes: &[u8]) -> Vec<Symbol> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let len = self.cuts.piece(bytes).clamp(1, PIECE_BYTES_MAX.min(bytes.len()));
            let (piece, rest) = bytes.split_at(len);
            for part in piece.split_inclusive(|b| self.of_byte[usize::from(*b)].is_none()) {
                let known = part.iter().map_while(|b| self.of_byte[usize::from(*b)]).collect();
                out.extend(self.merge(known).into_iter().map(Symbol::Token));
                out.extend(part.last().filter(|b| self.of_byte[usize::from(**b)].is_none()).map(|b| Symbol::Byte(*b)));
            }
            bytes = rest;
        }
        out
    }

    /// Merges pairs, the soonest first.
    fn merge(&self, mut piece: Vec<u32>) -> Vec<u32> {
        loop {
            let ranks = piece.windows(2).enumerate();
            let best = ranks.filter_map(|(at, two)| self.merges.get(&(two[0], two[1])).map(|m| (m.0, at, m.1))).min();
            let Some((_, at, token)) = best else { return piece };
            piece[at] = token;
            piece.remove(at + 1);
        }
    }
}

/// What a character is to the cuts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sort {
    Letter,
    Digit,
    Line,
    Blank,
    Mark,
}

/// The first character's sort, and its length. What is no UTF-8 is a mark of one byte.
fn first(bytes: &[u8]) -> Option<(Sort, usize)> {
    let lead = *bytes.first()?;
    if lead < 128 {
        return Some((
            match lead {
                b'A'..=b'Z' | b'a'..=b'z' => Sort::Letter,
                b'0'..=b'9' => Sort::Digit,
                b'\n' | b'\r' => Sort::Line,
                b' ' | 9..=12 => Sort::Blank,
                _ => Sort::Mark,
            },
            1,
        ));
    }
    let len = match lead {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    let text = bytes.get(..len).and_then(|b| std::str::from_utf8(b).ok()).and_then(|t| t.chars().next());
    Some(match text {
        None => (Sort::Mark, 1),
        Some(c) if c.is_alphabetic() => (Sort::Letter, len),
        Some(c) if c.is_numeric() => (Sort::Digit, len),
        Some(c) if c.is_whitespace() => (Sort::Blank, len),
        Some(_) => (Sort::Mark, len),
    })
}

/// Bytes of as many characters of some sorts as stand at the beginning, at most so many.
fn run(bytes: &[u8], sorts: &[Sort], most: usize) -> usize {
    let mut len = 0;
    for _ in 0..most {
        match bytes.get(len..).and_then(first) {
            Some((sort, of_char)) if sorts.contains(&sort) && len < PIECE_BYTES_MAX => len += of_char,
            _ => break,
        }
    }
    len
}

/// An English ending after an apostrophe.
fn ending(bytes: &[u8], any_case: bool) -> Option<usize> {
    let rest = bytes.strip_prefix(b"'")?;
    ["re", "ve", "ll", "s", "t", "m", "d"].iter().find_map(|ending| {
        let start = rest.get(..ending.len())?;
        let same = if any_case { start.eq_ignore_ascii_case(ending.as_bytes()) } else { start == ending.as_bytes() };
        same.then_some(1 + ending.len())
    })
}

impl Cuts {
    /// Bytes of the first piece.
    fn piece(self, bytes: &[u8]) -> usize {
        const ALL: usize = usize::MAX;
        const BLANKS: [Sort; 2] = [Sort::Blank, Sort::Line];
        let any_case = matches!(self, Cuts::Llama3 { .. });
        if let Some(len) = ending(bytes, any_case) {
            return len;
        }
        let space = usize::from(bytes.first() == Some(&b' '));
        let after = bytes.get(space..).unwrap_or_default();
        let blanks = || {
            let len = run(bytes, &BLANKS, ALL);
            // The last blank goes to what comes after it.
            match bytes.get(..len) {
                Some(all) if len > 1 && len < bytes.len() => {
                    let back = (1..=4).find(|n| all.get(len - n).is_some_and(|b| b & 0xC0 != 0x80)).unwrap_or(1);
                    if back < len { len - back } else { len }
                }
                _ => len,
            }
        };
        match self {
            Cuts::Gpt2 { single_digits } => {
                if single_digits && let Some((Sort::Digit, len)) = first(bytes) {
                    return len;
                }
                match first(after) {
                    Some((Sort::Letter, _)) => space + run(after, &[Sort::Letter], ALL),
                    Some((Sort::Digit, _)) if single_digits => space.max(1),
                    Some((Sort::Digit, _)) => space + run(after, &[Sort::Digit], ALL),
                    Some((Sort::Mark, _)) => space + run(after, &[Sort::Mark], ALL),
                    _ => blanks(),
                }
            }
            Cuts::Llama3 { digits } => {
                let lead = match first(bytes) {
                    Some((Sort::Mark | Sort::Blank, len)) => len,
                    _ => 0,
                };
                let letters = bytes.get(lead..).map_or(0, |rest| run(rest, &[Sort::Letter], ALL));
                if letters > 0 {
                    return lead + letters;
                }
                let run_of_digits = run(bytes, &[Sort::Digit], digits);
                if run_of_digits > 0 {
                    return run_of_digits;
                }
                let marks = run(after, &[Sort::Mark], ALL);
                if marks > 0 {
                    let rest = after.get(marks..).unwrap_or_default();
                    return space + marks + run(rest, &[Sort::Line], ALL);
                }
                // Blanks up to the last line end of them.
                let all = run(bytes, &BLANKS, ALL);
                match bytes.get(..all).and_then(|b| b.iter().rposition(|b| matches!(b, b'\n' | b'\r'))) {
                    Some(at) => at + 1,
                    None => blanks(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::llama::small;
    use super::*;

    fn vocabulary(cuts: Cuts) -> Tokens {
        let (texts, pairs) = small();
        Tokens::new(&texts, &[], &pairs, 0, cuts).unwrap()
    }

    fn whole(tokens: &Tokens, symbols: &[Symbol]) -> Vec<u8> {
        let bytes = |symbol: &Symbol| match symbol {
            Symbol::Token(token) => tokens.bytes(*token).to_vec(),
            Symbol::Byte(byte) => vec![*byte],
        };
        symbols.iter().flat_map(bytes).collect()
    }

    #[test]
    fn any_bytes_are_tokens() {
        let mut x = 1u64;
        let mut noise = |len: usize| -> Vec<u8> {
            (0..len)
                .map(|_| {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    if x >> 60 < 8 { b" the\n\r0\xc3\xa9\0"[(x >> 33) as usize % 10] } else { (x >> 40) as u8 }
                })
                .collect()
        };
        let mut texts = vec![vec![], vec![0; 500], vec![b' '; 1000], b"the\r\n\r\n  the and 12345 don't\xc3".to_vec()];
        texts.extend((1..60).map(|n| noise(n * 7)));
        texts.push("Ünïcödé — «мир» 漢字\u{3000}\u{a0} x".as_bytes().to_vec());
        for cuts in [
            Cuts::Gpt2 { single_digits: true },
            Cuts::Gpt2 { single_digits: false },
            Cuts::Llama3 { digits: 3 },
            Cuts::Llama3 { digits: 1 },
        ] {
            let tokens = vocabulary(cuts);
            for text in &texts {
                let symbols = tokens.cut(text);
                assert_eq!(whole(&tokens, &symbols), *text, "{cuts:?}");
                assert!(symbols.iter().all(|s| *s != Symbol::Token(tokens.start)));
            }
        }
    }

    #[test]
    fn pieces_are_cut_as_tokenizers_do() {
        let check = |cuts: Cuts, text: &str, expected: &[&str]| {
            let (mut rest, mut pieces) = (text, Vec::new());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts.piece(rest.as_bytes()));
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(pieces, expected, "{cuts:?}");
        };
        let text = "Don't  go, 1234\n\n\tx();";
        let gpt2 = |single_digits| Cuts::Gpt2 { single_digits };
        check(gpt2(false), text, &["Don", "'t", " ", " go", ",", " 1234", "\n\n", "\t", "x", "();"]);
        check(gpt2(true), text, &["Don", "'t", " ", " go", ",", " ", "1", "2", "3", "4", "\n\n", "\t", "x", "();"]);
        let digits = |digits| Cuts::Llama3 { digits };
        check(digits(3), text, &["Don", "'t", " ", " go", ",", " ", "123", "4", "\n\n", "\tx", "();"]);
        check(digits(1), "a\n  b;\n", &["a", "\n", " ", " b", ";\n"]);
    }

    #[test]
    fn pairs_are_merged_the_soonest_first() {
        let tokens = vocabulary(Cuts::Gpt2 { single_digits: true });
        let texts: Vec<Vec<u8>> =
            tokens.cut(b"the and then").iter().map(|s| whole(&tokens, std::slice::from_ref(s))).collect();
        assert_eq!(texts, [&b"the"[..], b" and", b" the", b"n"]);
        assert_eq!(tokens.cut(b"a\0b")[1], Symbol::Byte(0));
    }
}
