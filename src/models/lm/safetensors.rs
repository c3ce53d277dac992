//! Reads checkpoints: tensors in files of the format safetensors (Hugging Face), one or several with an index.
//!
//! A file is the length of its header in 64 bits, the header in JSON, which says of each tensor its kind, its shape and where
//! it is, and the tensors. As with GGUF, everything is doubted.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use serde_json::Value as Json;

use super::LoadError;
use super::gguf::{Kind, ROW_ELEMENTS_MAX, ROWS_MAX, Tensor, read_rows};
use super::load::{EachRow, Tensors};
use super::plan::Family;

/// Longest JSON, bytes: tokenizers of 256 Ki tokens take 30 MiB.
const JSON_BYTES_MAX: u64 = 128 << 20;
const PARTS_MAX: usize = 1024;
/// Where a header says more than tensors, in texts.
const NOTES: &str = "__metadata__";

/// A tensor, the file it is in, and where in that, bytes.
#[derive(Debug)]
struct Place {
    part: usize,
    at: u64,
    tensor: Tensor,
}

/// A tensor that is written: name, kind, shape, elements.
#[cfg(feature = "lora")]
pub(super) type Written = (String, &'static str, Vec<usize>, Vec<u8>);

/// Puts a file of tensors together, with notes beside them.
#[cfg(feature = "lora")]
pub(super) fn file(notes: &BTreeMap<String, String>, tensors: &[Written]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert(NOTES.into(), serde_json::json!(notes));
    let mut end = 0;
    for (name, kind, shape, elements) in tensors {
        let from = end;
        end += elements.len();
        let fields = serde_json::json!({ "dtype": kind, "shape": shape, "data_offsets": [from, end] });
        header.insert(name.clone(), fields);
    }
    let mut header = Json::Object(header).to_string();
    // Tensors begin at a multiple of eight bytes.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut out = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    tensors.iter().for_each(|(.., elements)| out.extend_from_slice(elements));
    out
}

/// Gives the name a tensor goes by here; `None` where it is of no use.
type Known<'a> = &'a dyn Fn(&str) -> Result<Option<String>, LoadError>;

/// A checkpoint, its headers read.
pub(super) struct Checkpoint<R> {
    parts: Vec<R>,
    tensors: BTreeMap<String, Place>,
    /// What the files say beside their tensors.
    notes: BTreeMap<String, String>,
}

/// Reads a file of JSON.
///
/// # Errors
/// When it cannot be read, is too long, or is none.
pub(super) fn json<R: Read>(open: &dyn Fn(&str) -> io::Result<R>, name: &str) -> Result<Json, LoadError> {
    json_of(open(name).map_err(|e| LoadError::Read(io::Error::new(e.kind(), format!("{name}: {e}"))))?, name)
}

/// Reads an open file of JSON, of some name.
///
/// # Errors
/// As `json`.
pub(super) fn json_of(file: impl Read, name: &str) -> Result<Json, LoadError> {
    let mut bytes = Vec::new();
    file.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(LoadError::Read)?;
    parse(&bytes, name)
}

fn parse(bytes: &[u8], name: &str) -> Result<Json, LoadError> {
    if bytes.len() as u64 > JSON_BYTES_MAX {
        return Err(LoadError::Malformed(format!("{name} is longer than {JSON_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(bytes).map_err(|e| LoadError::Malformed(format!("{name} is not JSON: {e}")))
}

/// Matrices of a layer, as checkpoints and as GGUF call them.
pub(super) const MATRICES: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const VECTORS: [(&str, &str); 4] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
];
/// Where Gemma's norms are.
const OF_GEMMA: [(&str, &str); 3] = [
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// The name that GGUF has for a tensor.
fn known(name: &str, family: Family) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".into()),
        "model.norm.weight" => return Some("output_norm.weight".into()),
        "lm_head.weight" => return Some("output.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (what, kind) = rest.rsplit_once('.')?;
    let of_family = if family == Family::Gemma3 { &OF_GEMMA[..] } else { &[] };
    let (_, what) = of_family.iter().chain(&MATRICES).chain(&VECTORS).find(|(of_hub, _)| *of_hub == what)?;
    Some(format!("blk.{layer}.{what}.{kind}"))
}

/// Tensors of old checkpoints that follow from their numbers.
const IDLE: &str = ".rotary_emb.inv_freq";

impl<R: Read + Seek> Checkpoint<R> {
    /// Reads the headers of a checkpoint's files. Tensors that are not known keep their names.
    ///
    /// # Errors
    /// Where it is none, or breaks a bound.
    pub fn open(open: &dyn Fn(&str) -> io::Result<R>, family: Family) -> Result<Checkpoint<R>, LoadError> {
        let mut names = vec!["model.safetensors".to_string()];
        let first = match open("model.safetensors") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let index = json(open, "model.safetensors.index.json")?;
                let files = index.get("weight_map").and_then(Json::as_object).map(|map| map.values());
                let mut parts: Vec<String> =
                    files.into_iter().flatten().filter_map(Json::as_str).map(str::to_string).collect();
                parts.sort();
                parts.dedup();
                if parts.is_empty() || parts.len() > PARTS_MAX || parts.iter().any(|p| p.contains(['/', '\\'])) {
                    return Err(LoadError::Malformed("model.safetensors.index.json names no files beside it".into()));
                }
                names = parts;
                None
            }
            file => Some(file.map_err(LoadError::Read)?),
        };
        let parts = first.into_iter().collect();
        let mut checkpoint = Checkpoint { parts, tensors: BTreeMap::new(), notes: BTreeMap::new() };
        for (part, name) in names.iter().enumerate() {
            if checkpoint.parts.len() == part {
                let file = open(name).map_err(|e| LoadError::Read(io::Error::new(e.kind(), format!("{name}: {e}"))))?;
                checkpoint.parts.push(file);
            }
            checkpoint.header(part, name, &|name| {
                Ok((!name.ends_with(IDLE)).then(|| known(name, family).unwrap_or_else(|| name.to_string())))
            })?;
        }
        Ok(checkpoint)
    }

    /// Reads the header of one file of tensors of any kind.
    ///
    /// # Errors
    /// As `open`; that of `known`.
    pub fn of_file(file: R, name: &str, known: Known<'_>) -> Result<Checkpoint<R>, LoadError> {
        let mut one = Checkpoint { parts: vec![file], tensors: BTreeMap::new(), notes: BTreeMap::new() };
        one.header(0, name, known)?;
        Ok(one)
    }

    /// What its files say of a name beside their tensors.
    pub fn note(&self, name: &str) -> Option<&str> {
        self.notes.get(name).map(String::as_str)
    }

    fn header(&mut self, part: usize, name: &str, known: Known<'_>) -> Result<(), LoadError> {
        let Some(file) = self.parts.get_mut(part) else { return Ok(()) };
        let file_bytes = file.seek(SeekFrom::End(0)).and_then(|len| file.rewind().map(|()| len));
        let file_bytes = file_bytes.map_err(LoadError::Read)?;
        let mut len = [0; 8];
        file.read_exact(&mut len).map_err(LoadError::Read)?;
        let len = u64::from_le_bytes(len);
        if len > JSON_BYTES_MAX.min(file_bytes) {
            return Err(LoadError::Malformed(format!("{name} is no file of safetensors, or was cut off")));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact(&mut bytes).map_err(LoadError::Read)?;
        let header = parse(&bytes, name)?;
        for (of_file, fields) in header.as_object().into_iter().flatten() {
            if of_file == NOTES {
                let notes = fields.as_object().into_iter().flatten();
                self.notes.extend(notes.filter_map(|(name, note)| Some((name.clone(), note.as_str()?.to_string()))));
                continue;
            }
            let Some(tensor_name) = known(of_file)? else { continue };
            let numbers = |field: &str| -> Option<Vec<u64>> {
                fields.get(field).and_then(Json::as_array)?.iter().map(Json::as_u64).collect()
            };
            let malformed = || LoadError::Malformed(format!("tensor {of_file} of {name} is not as it should be"));
            let kind = match fields.get("dtype").and_then(Json::as_str) {
                Some("F32") => Kind::F32,
                Some("F16") => Kind::F16,
                Some("BF16") => Kind::Bf16,
                other => {
                    let other = other.unwrap_or("none");
                    return Err(LoadError::Unsupported(format!(
                        "tensor {of_file} is of kind {other}; F32, F16 and BF16 are known"
                    )));
                }
            };
            let (rows, columns) = match numbers("shape").as_deref() {
                Some([columns]) => (1, *columns),
                Some([rows, columns]) => (*rows, *columns),
                _ => return Err(malformed()),
            };
            let Some([from, to]) = numbers("data_offsets").and_then(|o| <[u64; 2]>::try_from(o).ok()) else {
                return Err(malformed());
            };
            let bounded = (1..=ROWS_MAX).contains(&rows) && (1..=ROW_ELEMENTS_MAX).contains(&columns);
            if !bounded || to > file_bytes - len.min(file_bytes) {
                return Err(malformed());
            }
            let tensor = Tensor { kind, columns: columns as usize, rows: rows as usize, offset: from };
            if to.checked_sub(from) != tensor.row_bytes().checked_mul(rows) {
                return Err(malformed());
            }
            self.tensors.insert(tensor_name, Place { part, at: 8 + len + from, tensor });
        }
        Ok(())
    }
}

impl<R: Read + Seek> Tensors for Checkpoint<R> {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn extent(&self, name: &str) -> Option<(usize, usize)> {
        self.tensors.get(name).map(|p| (p.tensor.rows, p.tensor.columns))
    }

    fn rows(&mut self, name: &str, each: EachRow<'_>) -> Result<(), LoadError> {
        let place = self.tensors.get(name);
        let Some((place, file)) = place.and_then(|p| self.parts.get_mut(p.part).map(|file| (p, file))) else {
            return Err(LoadError::Malformed(format!("tensor {name} is missing")));
        };
        file.seek(SeekFrom::Start(place.at)).map_err(LoadError::Read)?;
        read_rows(file, name, place.tensor, each)
    }
}
