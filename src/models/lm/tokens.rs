//! Bytes as tokens, and back.
//!
//! Two kinds of vocabularies are known. In one of byte pairs (P. Gage, 1994; on bytes: A. Radford et al., 2019) every token is a
//! string of bytes, written in letters that stand for them. In one of pieces (SentencePiece, T. Kudo and J. Richardson, 2018)
//! tokens are strings of characters, with U+2581 for a space, and a byte that is in none of them has a token of its own.
//!
//! What is coded is the tokens; decoding puts their bytes together, and needs nothing else of a tokenizer. So how bytes were cut
//! is nobody's business but the encoder's: a cut as the model was trained on codes smaller, and any cut is right. The cut is
//! that of the model's own tokenizer, as the library `tokenizers` knows it; what it leaves out or changes is put right here,
//! so that tokens always give back the bytes they were cut from. A byte that no token stands for is an escape, the token that
//! begins a text, and then the byte itself. For models of bytes every byte is a token.
//!
//! A tokenizer of pieces puts a space before a text. None is put here: a lane seldom begins where a text does, and what a
//! first word takes more without it is some bits.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Value as Json, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer};

use super::LoadError;
use super::cdf::VOCABULARY_MAX;
use super::gguf::{Gguf, Value};

/// Longest token, bytes.
const TOKEN_BYTES_MAX: usize = 1024;
/// Words whose tokens the library remembers, for each thread.
const WORDS_KEPT: usize = 4096;
/// Kinds of tokens in a GGUF file: plain text, such that is found before all other, and a byte. Others steer a conversation.
const NORMAL: f64 = 1.0;
const WHOLE: f64 = 4.0;
const BYTE: f64 = 6.0;
/// Stands for a space in pieces.
const SPACE: char = '\u{2581}';
/// What the library calls a character that it does not know: no token is written so, and no character.
const UNKNOWN: &str = "\0\0unknown";

/// What a text is coded as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Symbol {
    Token(u32),
    /// The escape, then this byte.
    Byte(u8),
}

/// A vocabulary.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Bytes of all tokens, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    of_byte: [Option<u32>; 256],
    /// The token before a text, which is the escape too: it never comes within one.
    pub start: u32,
    /// `None` where each byte is a token.
    cutting: Option<Cutting>,
    /// Tokens are pieces.
    pieces: bool,
}

/// What the library is told when text is cut first: until then, as in all that reads, it takes a tenth of its memory.
#[derive(Debug)]
struct Cutting {
    /// Tokens that are written as the name of a byte, and those that are found before pairs are merged, ascending.
    named: Vec<u32>,
    whole: Vec<u32>,
    /// Pairs that become one token, the soonest first.
    merges: Vec<[u32; 2]>,
    cuts: Json,
    ignore_merges: bool,
    /// `None` where the library takes none of it.
    made: OnceLock<Option<Tokenizer>>,
}

/// A token of a text.
#[derive(Clone, Debug)]
struct Token {
    /// As its tokenizer writes it.
    text: String,
    bytes: Vec<u8>,
    /// It is found before pairs are merged.
    whole: bool,
}

/// What a vocabulary is made of.
struct Parts {
    /// `None` for those that are not of a text.
    tokens: Vec<Option<Token>>,
    /// Pairs that become one token, the soonest first.
    merges: Vec<(String, String)>,
    start: u32,
    pieces: bool,
    /// Where text is cut before pairs are merged, as `tokenizer.json` says it.
    cuts: Json,
    /// What is one token as a whole is not put together of pairs.
    ignore_merges: bool,
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

/// The byte of a token `<0x0A>`.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

impl Token {
    /// One of byte pairs.
    fn of_letters(text: &str, letters: &HashMap<char, u8>) -> Option<Token> {
        let bytes: Vec<u8> = text.chars().map(|c| letters.get(&c).copied()).collect::<Option<_>>()?;
        Token { text: text.to_string(), bytes, whole: false }.bounded()
    }

    /// A piece. Some files write a space as it is in those that are found as a whole.
    fn of_piece(text: &str, whole: bool) -> Option<Token> {
        let bytes = text.replace(SPACE, " ").into_bytes();
        Token { text: text.replace(' ', "\u{2581}"), bytes, whole }.bounded()
    }

    fn of_byte(text: &str) -> Option<Token> {
        let byte = byte_of(text)?;
        // The library writes them so.
        Some(Token { text: format!("<{byte:#04X}>"), bytes: vec![byte], whole: false })
    }

    fn bounded(self) -> Option<Token> {
        (1..=TOKEN_BYTES_MAX).contains(&self.bytes.len()).then_some(self)
    }
}

/// What text is cut by before pairs are merged, by the name that GGUF files have for it (llama.cpp), as the models' own
/// `tokenizer.json` say it.
fn cuts_called(name: &[u8]) -> Json {
    const ENDINGS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    const MARKS: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";
    let by = |pattern: String| {
        json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
            by_bytes(false),
        ] })
    };
    let words = |digits: &str| {
        by(format!(r"{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{MARKS}"))
    };
    match name {
        b"smollm" => json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Digits", "individual_digits": true }, by_bytes(true),
        ] }),
        b"llama-bpe" | b"llama3" | b"llama-v3" | b"smaug-bpe" => words("{1,3}"),
        b"qwen2" => words(""),
        b"tekken" => {
            let lead = r"[^\r\n\p{L}\p{N}]?";
            let (upper, lower) = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]");
            by(format!(r"{lead}{upper}*{lower}+|{lead}{upper}+{lower}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{MARKS}"))
        }
        _ => by_bytes(true),
    }
}

/// Bytes become letters; text is cut as GPT-2 does before, if so said.
fn by_bytes(cut: bool) -> Json {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cut })
}

/// Sees to it that a part of a tokenizer adds no space of its own.
fn without_prefix(part: &mut Json) {
    match part {
        Json::Object(fields) => {
            if let Some(adds) = fields.get_mut("add_prefix_space") {
                *adds = false.into();
            }
            fields.values_mut().for_each(without_prefix);
        }
        Json::Array(parts) => parts.iter_mut().for_each(without_prefix),
        _ => {}
    }
}

/// Most pairs of pieces that are one: that of Gemma, of 262,144 tokens, has some 600,000.
const PAIRS_MAX: usize = 4 << 20;

/// Pairs of pieces that are a piece, by how likely that is: which SentencePiece goes by where others have a list.
///
/// # Errors
/// `Unsupported` when there are more than any vocabulary that was learned has.
fn merges_by_score(tokens: &[Option<Token>], scores: &[f64]) -> Result<Vec<(String, String)>, LoadError> {
    let merged = || (0u32..).zip(tokens).filter_map(|(n, t)| Some((n, t.as_ref().filter(|t| !t.whole)?.text.as_str())));
    let by_text: HashMap<&str, u32> = merged().map(|(n, text)| (text, n)).collect();
    let mut pairs = Vec::new();
    for (n, text) in merged().filter(|(_, text)| byte_of(text).is_none()) {
        let score = scores.get(n as usize).copied().unwrap_or(0.0);
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(l), Some(r)) = (by_text.get(left), by_text.get(right)) {
                pairs.push((score, *l, *r, left, right));
            }
        }
        if pairs.len() > PAIRS_MAX {
            return unsupported(format!("its pieces are put together of others in more than {PAIRS_MAX} ways"));
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    Ok(pairs.into_iter().map(|(_, _, _, left, right)| (left.to_string(), right.to_string())).collect())
}

fn unsupported<T>(what: impl Into<String>) -> Result<T, LoadError> {
    Err(LoadError::Unsupported(what.into()))
}

impl Tokens {
    /// The vocabulary of a file.
    ///
    /// # Errors
    /// When it has none, or one of another kind.
    pub fn of_gguf<R: std::io::Read + std::io::Seek>(gguf: &Gguf<R>) -> Result<Tokens, LoadError> {
        let pieces = match gguf.value("tokenizer.ggml.model") {
            Some(Value::Bytes(model)) if model == b"gpt2" => false,
            Some(Value::Bytes(model)) if model == b"llama" => true,
            Some(Value::Bytes(model)) => {
                let model = String::from_utf8_lossy(model);
                return unsupported(format!(
                    "its tokenizer is `{model}`; those of byte pairs (`gpt2`) and of pieces (`llama`) are known"
                ));
            }
            _ => return unsupported("it has no tokenizer (tokenizer.ggml.model)"),
        };
        let texts = match gguf.value("tokenizer.ggml.tokens") {
            Some(Value::Texts(texts)) if !texts.is_empty() && texts.len() <= VOCABULARY_MAX => texts,
            _ => return unsupported("its vocabulary (tokenizer.ggml.tokens) is missing or too large"),
        };
        let numbers = |name: &str| match gguf.value(name) {
            Some(Value::Numbers(numbers)) => numbers.as_slice(),
            _ => &[],
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
        let (kinds, letters) = (numbers("tokenizer.ggml.token_type"), letters());
        let tokens: Vec<Option<Token>> = texts
            .iter()
            .enumerate()
            .map(|(n, text)| {
                let text = std::str::from_utf8(text).ok()?;
                match kinds.get(n).copied().unwrap_or(NORMAL) {
                    NORMAL if pieces && kinds.is_empty() => Token::of_byte(text).or(Token::of_piece(text, false)),
                    NORMAL if pieces => Token::of_piece(text, false),
                    NORMAL => Token::of_letters(text, &letters),
                    WHOLE if pieces => Token::of_piece(text, true),
                    BYTE if pieces => Token::of_byte(text),
                    _ => None,
                }
            })
            .collect();
        let merges = match gguf.value("tokenizer.ggml.merges") {
            _ if pieces => merges_by_score(&tokens, numbers("tokenizer.ggml.scores"))?,
            Some(Value::Texts(pairs)) => pairs
                .iter()
                .filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once(' '))
                .map(|(left, right)| (left.to_string(), right.to_string()))
                .collect(),
            _ => return unsupported("its tokenizer has no merges (tokenizer.ggml.merges)"),
        };
        let name = match gguf.value("tokenizer.ggml.pre") {
            Some(Value::Bytes(name)) => name.as_slice(),
            _ => b"",
        };
        let cuts = if pieces { Json::Null } else { cuts_called(name) };
        Ok(Tokens::new(Parts { tokens, merges, start, pieces, cuts, ignore_merges: false }))
    }

    /// The vocabulary of a checkpoint: its `tokenizer.json`, and its `config.json`, which says what begins a text.
    ///
    /// # Errors
    /// When it is one of another kind.
    pub fn of_json(json: &Json, config: &Json) -> Result<Tokens, LoadError> {
        let model = json.get("model").unwrap_or(&Json::Null);
        let (Some(vocabulary), Some(merges)) =
            (model.get("vocab").and_then(Json::as_object), model.get("merges").and_then(Json::as_array))
        else {
            return unsupported("its tokenizer.json has no vocabulary of pairs");
        };
        let has_letters = |name: &str| json.get(name).is_some_and(|part| part.to_string().contains("\"ByteLevel\""));
        let pieces = match (has_letters("pre_tokenizer") || has_letters("decoder"), model.get("byte_fallback")) {
            (true, _) => false,
            (false, Some(Json::Bool(true))) => true,
            _ => {
                return unsupported(
                    "its tokenizer is neither one of pairs of bytes (ByteLevel) nor one of pieces and bytes (byte_fallback)",
                );
            }
        };
        for strange in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if model.get(strange).and_then(Json::as_str).is_some_and(|text| !text.is_empty()) {
                return unsupported(format!("its tokenizer has a {strange}"));
            }
        }
        let added: Vec<(usize, &str, bool)> = json
            .get("added_tokens")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(|t| {
                let steers = t.get("special").and_then(Json::as_bool).unwrap_or(true);
                Some((t.get("id")?.as_u64()? as usize, t.get("content")?.as_str()?, steers))
            })
            .collect();
        let normal: Vec<(usize, &str)> =
            vocabulary.iter().filter_map(|(text, id)| Some((id.as_u64()? as usize, text.as_str()))).collect();
        let ids = normal.iter().map(|(id, _)| *id).chain(added.iter().map(|(id, ..)| *id));
        let count = ids.map(|id| id.saturating_add(1)).max().unwrap_or(0);
        if count > VOCABULARY_MAX {
            return unsupported("its vocabulary is too large");
        }
        let (mut tokens, letters) = (vec![None; count], letters());
        for (id, text) in normal {
            if let Some(token) = tokens.get_mut(id) {
                *token = match pieces {
                    true => Token::of_byte(text).or(Token::of_piece(text, false)),
                    false => Token::of_letters(text, &letters),
                };
            }
        }
        for (id, text, steers) in added {
            if let Some(token) = tokens.get_mut(id) {
                *token = if pieces && !steers { Token::of_piece(text, true) } else { None };
            }
        }
        let merges = merges
            .iter()
            .filter_map(|merge| match merge {
                Json::String(pair) => pair.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string())),
                Json::Array(two) => match two.as_slice() {
                    [Json::String(left), Json::String(right)] => Some((left.clone(), right.clone())),
                    _ => None,
                },
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
        let cuts = match json.get("pre_tokenizer") {
            _ if pieces => Json::Null,
            Some(cuts) if has_letters("pre_tokenizer") => {
                let mut cuts = cuts.clone();
                without_prefix(&mut cuts);
                cuts
            }
            _ => by_bytes(true),
        };
        let ignore_merges = model.get("ignore_merges").and_then(Json::as_bool).unwrap_or(false);
        Ok(Tokens::new(Parts { tokens, merges, start, pieces, cuts, ignore_merges }))
    }

    fn new(parts: Parts) -> Tokens {
        let Parts { tokens, merges, start, pieces, cuts, ignore_merges } = parts;
        let (mut bytes, mut ends, mut of_byte) = (Vec::new(), Vec::new(), [None; 256]);
        let (mut vocabulary, mut named, mut whole) = (HashMap::new(), Vec::new(), Vec::new());
        for (n, token) in (0u32..).zip(&tokens) {
            if let Some(token) = token.as_ref().filter(|_| n != start) {
                if let [byte] = token.bytes.as_slice()
                    && let Some(of_byte) = of_byte.get_mut(usize::from(*byte))
                {
                    of_byte.get_or_insert(n);
                }
                bytes.extend_from_slice(&token.bytes);
                vocabulary.entry(token.text.as_str()).or_insert(n);
                named.extend((pieces && byte_of(&token.text).is_some()).then_some(n));
                whole.extend(token.whole.then_some(n));
            }
            ends.push(bytes.len() as u32);
        }
        // A merge of what is no token is of no use, and the library takes none.
        let mut both = String::new();
        let mut known = |(left, right): &(String, String)| {
            both.clear();
            both.extend([left.as_str(), right.as_str()]);
            vocabulary.get(both.as_str())?;
            Some([*vocabulary.get(left.as_str())?, *vocabulary.get(right.as_str())?])
        };
        let merges = merges.iter().filter_map(&mut known).collect();
        let cutting = Cutting { named, whole, merges, cuts, ignore_merges, made: OnceLock::new() };
        Tokens { bytes, ends, of_byte, start, cutting: Some(cutting), pieces }
    }

    /// A token as its tokenizer writes it.
    fn text(&self, cutting: &Cutting, letters: &[char], token: u32) -> String {
        let bytes = self.bytes(token);
        match bytes {
            [byte] if cutting.named.binary_search(&token).is_ok() => format!("<{byte:#04X}>"),
            _ if self.pieces => String::from_utf8_lossy(bytes).replace(' ', "\u{2581}"),
            _ => bytes.iter().filter_map(|byte| letters.get(usize::from(*byte))).collect(),
        }
    }

    /// What cuts text; `None` where each byte is a token.
    fn cutter(&self) -> Option<&Tokenizer> {
        let cutting = self.cutting.as_ref()?;
        let made = || {
            // Any cut is right: without one, bytes are.
            self.make(cutting)
                .inspect_err(|e| log::error!("text is cut into bytes, as its tokenizer is none: {e}"))
                .ok()
        };
        cutting.made.get_or_init(made).as_ref()
    }

    fn make(&self, cutting: &Cutting) -> tokenizers::Result<Tokenizer> {
        let mut letters_of = vec![' '; 256];
        for (letter, byte) in letters() {
            letters_of.iter_mut().skip(usize::from(byte)).take(1).for_each(|to| *to = letter);
        }
        let text = |token: u32| self.text(cutting, &letters_of, token);
        let mut vocabulary = Vocab::default();
        for token in (0..self.count() as u32).filter(|token| !self.bytes(*token).is_empty()) {
            vocabulary.entry(text(token)).or_insert(token);
        }
        vocabulary.insert(UNKNOWN.to_string(), self.start);
        let merges = cutting.merges.iter().map(|[left, right]| (text(*left), text(*right))).collect();
        let pairs = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .unk_token(UNKNOWN.into())
            .byte_fallback(self.pieces)
            .ignore_merges(cutting.ignore_merges)
            .cache_capacity(WORDS_KEPT);
        let mut cutter = Tokenizer::new(pairs.build()?);
        if !cutting.cuts.is_null() {
            let before: PreTokenizerWrapper = serde_json::from_value(cutting.cuts.clone()).or_else(|e| {
                // The model is no worse for it, only what it codes is larger.
                log::warn!("text is cut otherwise than the model's tokenizer cuts it, which is not known: {e}");
                serde_json::from_value(by_bytes(true))
            })?;
            cutter.with_pre_tokenizer(Some(before));
        }
        let whole = cutting.whole.iter().map(|token| AddedToken::from(text(*token), false).normalized(false));
        cutter.add_tokens(whole.collect::<Vec<_>>())?;
        Ok(cutter)
    }

    /// Bytes for tokens, and another one that begins a text.
    pub fn of_bytes(start: u32) -> Tokens {
        let of_byte = std::array::from_fn(|byte| Some(byte as u32));
        Tokens { bytes: (0..=255).collect(), ends: (1..=256).collect(), of_byte, start, cutting: None, pieces: false }
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
    pub fn cut(&self, raw: &[u8]) -> Vec<Symbol> {
        let mut out = Vec::new();
        let Some(cutter) = self.cutter() else {
            self.cut_bytes(raw, &mut out);
            return out;
        };
        for part in raw.utf8_chunks() {
            let mut rest = part.valid();
            // A token of pieces that has what stands for a space would give back a space.
            while let Some((text, after)) = rest.split_once(SPACE).filter(|_| self.pieces) {
                self.cut_text(cutter, text, &mut out);
                self.cut_bytes(SPACE.encode_utf8(&mut [0; 4]).as_bytes(), &mut out);
                rest = after;
            }
            self.cut_text(cutter, rest, &mut out);
            self.cut_bytes(part.invalid(), &mut out);
        }
        out
    }

    /// Each byte for itself.
    fn cut_bytes(&self, raw: &[u8], out: &mut Vec<Symbol>) {
        out.extend(raw.iter().map(|byte| {
            let token = self.of_byte.get(usize::from(*byte)).copied().flatten();
            token.map_or(Symbol::Byte(*byte), Symbol::Token)
        }));
    }

    fn cut_text(&self, cutter: &Tokenizer, text: &str, out: &mut Vec<Symbol>) {
        if text.is_empty() {
            return;
        }
        let cut = match self.pieces {
            true => cutter.encode_fast(text.replace(' ', "\u{2581}"), false),
            false => cutter.encode_fast(text, false),
        };
        // What the library makes of it is a proposal: tokens that come in the text in this order, and bytes between them.
        let mut rest = text.as_bytes();
        for token in cut.iter().flat_map(|cut| cut.get_ids()) {
            let bytes = self.bytes(*token);
            if bytes.is_empty() {
                continue;
            }
            let Some(at) = rest.windows(bytes.len()).position(|part| part == bytes) else { break };
            let (left_out, from) = rest.split_at(at);
            self.cut_bytes(left_out, out);
            out.push(Symbol::Token(*token));
            rest = from.get(bytes.len()..).unwrap_or_default();
        }
        self.cut_bytes(rest, out);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::super::tests::llama::{small, tiny, with_pieces};
    use super::*;

    fn vocabulary(name: &str) -> Tokens {
        let (texts, pairs) = small();
        let (letters, texts) = (letters(), texts.iter().map(|text| std::str::from_utf8(text).unwrap()));
        let pair = |pair: &Vec<u8>| {
            let (left, right) = std::str::from_utf8(pair).unwrap().split_once(' ').unwrap();
            (left.to_string(), right.to_string())
        };
        Tokens::new(Parts {
            tokens: texts.map(|text| Token::of_letters(text, &letters)).collect(),
            merges: pairs.iter().map(pair).collect(),
            start: 0,
            pieces: false,
            cuts: cuts_called(name.as_bytes()),
            ignore_merges: false,
        })
    }

    fn of_pieces() -> Tokens {
        let mut file = tiny();
        with_pieces(&mut file);
        Tokens::of_gguf(&Gguf::open(Cursor::new(file.bytes())).map_err(|e| e.to_string()).unwrap()).unwrap()
    }

    fn whole(tokens: &Tokens, symbols: &[Symbol]) -> Vec<u8> {
        let bytes = |symbol: &Symbol| match symbol {
            Symbol::Token(token) => tokens.bytes(*token).to_vec(),
            Symbol::Byte(byte) => vec![*byte],
        };
        symbols.iter().flat_map(bytes).collect()
    }

    /// Names of the cuts, and what is no cut.
    const NAMES: [&str; 5] = ["smollm", "", "llama-bpe", "qwen2", "tekken"];

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
        let mut texts =
            vec![vec![], vec![0; 500], vec![b' '; 70_000], b"the\r\n\r\n  the and 12345 don't\xc3".to_vec()];
        texts.extend((1..60).map(|n| noise(n * 7)));
        texts.push(
            "Ünïcödé — «мир» 漢字\u{3000}\u{a0} e\u{301} <start><s><0x41> x\u{2581}the\u{2581}".as_bytes().to_vec(),
        );
        texts.push(b"a\0b\0\0unknown\0".to_vec());
        for tokens in NAMES.map(vocabulary).into_iter().chain([of_pieces()]) {
            for text in &texts {
                let symbols = tokens.cut(text);
                assert_eq!(whole(&tokens, &symbols), *text);
                assert!(symbols.iter().all(|s| *s != Symbol::Token(tokens.start)));
            }
        }
    }

    #[test]
    fn pieces_are_cut_as_tokenizers_do() {
        let check = |name: &str, text: &str, expected: &[&str]| {
            let mut cut = PreTokenizedString::from(text);
            let tokens = vocabulary(name);
            tokens.cutter().unwrap().get_pre_tokenizer().unwrap().pre_tokenize(&mut cut).unwrap();
            let parts = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let parts: Vec<&str> = parts.into_iter().map(|(_, (from, to), _)| &text[from..to]).collect();
            assert_eq!(parts, expected, "{name}");
        };
        let text = "Don't  go, 1234\n\n\tx();";
        check("", text, &["Don", "'t", " ", " go", ",", " 1234", "\n\n", "\t", "x", "();"]);
        check("smollm", text, &["Don", "'t", " ", " go", ",", " ", "1", "2", "3", "4", "\n\n", "\t", "x", "();"]);
        check("llama-bpe", text, &["Don", "'t", " ", " go", ",", " ", "123", "4", "\n\n", "\tx", "();"]);
        check("qwen2", "a\n  b;\n12", &["a", "\n", " ", " b", ";\n", "1", "2"]);
        check("tekken", "aBcD/\n12", &["a", "Bc", "D", "/\n", "1", "2"]);
    }

    #[test]
    fn pairs_are_merged_the_soonest_first() {
        let check = |tokens: &Tokens, text: &str, expected: &[&str]| {
            let cut = tokens.cut(text.as_bytes());
            let texts: Vec<Vec<u8>> = cut.iter().map(|s| whole(tokens, std::slice::from_ref(s))).collect();
            assert_eq!(texts, expected.iter().map(|t| t.as_bytes()).collect::<Vec<_>>());
        };
        let pairs = vocabulary("smollm");
        check(&pairs, "the and then", &["the", " and", " the", "n"]);
        assert_eq!(pairs.cut(b"a\0b")[1], Symbol::Byte(0));
        let pieces = of_pieces();
        check(&pieces, "the hee      then", &["the", " ", "h", "e", "e", "    ", " ", " the", "n"]);
        assert_eq!(pieces.cut(b"\0\xc8"), [Symbol::Byte(0), Symbol::Byte(200)]);
        let newline = pieces.cut(b"\n");
        assert!(matches!(newline[..], [Symbol::Token(t)] if pieces.bytes(t) == b"\n"));
    }

    /// What is no merge or no cut is no reason to panic, nor not to read what was coded.
    #[test]
    fn a_strange_tokenizer_cuts_somehow() {
        let config = json!({ "bos_token_id": 0 });
        let (texts, _) = small();
        let vocabulary: serde_json::Map<_, _> =
            texts.iter().enumerate().map(|(n, t)| (String::from_utf8(t.clone()).unwrap(), n.into())).collect();
        let of = |merges: Json, cuts: Json| {
            let json = json!({
                "model": { "vocab": vocabulary, "merges": merges }, "decoder": { "type": "ByteLevel" },
                "pre_tokenizer": cuts, "added_tokens": [{ "id": 0, "content": "<start>", "special": true }],
            });
            Tokens::of_json(&json, &config)
        };
        let split = |pattern: &str| {
            json!({ "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Removed", "invert": false },
                { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true },
            ] })
        };
        let merges = json!(["the the", "zzzz q", "a", "t h", 5, ["t"], ["th", "e"], "\u{120} the"]);
        for cuts in [Json::Null, split("the"), split("(a*)*b"), split("("), json!({ "type": "Lowercase ByteLevel" })] {
            let tokens = of(merges.clone(), cuts).unwrap();
            for text in [&b"the and the"[..], b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", b"\xff the"] {
                assert_eq!(whole(&tokens, &tokens.cut(text)), text);
            }
        }
    }
}
