//! A model from its file: numbers of the network, tensors by their names, tokens, and the proof that this machine computes
//! as others do.

use std::io::{Read, Seek};

use super::cache::VALUE_PART;
use super::cdf::{Shares, VOCABULARY_MAX, spread};
use super::exact::{self, LANES};
use super::gguf::{Gguf, Tensor, Value};
use super::kernels::{COLUMNS_MAX, Path};
use super::step::{Layer, Network, Row, Shape, Work};
use super::tokens::Tokens;
use super::weights::Matrix;
use super::{LanguageModel, LoadError};
use crate::base::ModelId;

/// Revision of the arithmetic: raised when any share may come out otherwise. It is part of a model's name.
const ARITHMETIC: u32 = 1;
/// Longest context that is used, tokens: that of a model may be longer.
pub(super) const CONTEXT_MAX: usize = 8192;
const LAYERS_MAX: usize = 512;

/// A file that is being read, and its faults.
struct Source<R>(Gguf<R>);

impl<R: Read + Seek> Source<R> {
    fn number(&self, name: &str) -> Option<f64> {
        match self.0.value(name) {
            Some(Value::Number(n)) => Some(*n),
            _ => None,
        }
    }

    /// A whole number from 1 to `most`.
    fn count(&self, name: &str, most: usize) -> Result<usize, LoadError> {
        match self.number(name) {
            Some(n) if n >= 1.0 && n <= most as f64 && n.fract() == 0.0 => Ok(n as usize),
            Some(n) => Err(LoadError::Unsupported(format!("its {name} is {n}; known are 1 to {most}"))),
            None => Err(LoadError::Malformed(format!("it does not say its {name}"))),
        }
    }

    /// A tensor of a shape that follows from the network's numbers.
    fn tensor(&self, name: &str, rows: usize, columns: usize) -> Result<Tensor, LoadError> {
        match self.0.tensor(name) {
            Some(t) if (t.rows, t.columns) == (rows, columns) => Ok(t),
            Some(t) => Err(LoadError::Malformed(format!(
                "tensor {name} has {} rows of {} elements, and should have {rows} of {columns}",
                t.rows, t.columns
            ))),
            None => Err(LoadError::Malformed(format!("tensor {name} is missing"))),
        }
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.tensor(name, 1, len)?;
        let mut out = Vec::new();
        self.0.rows(name, tensor, |_, row| {
            out.extend_from_slice(row);
            Ok(())
        })?;
        Ok(out)
    }

    /// Rows of a tensor into a matrix, each at the place that a function says.
    fn fill(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        matrix: &mut Matrix,
        place: impl Fn(usize) -> usize,
    ) -> Result<(), LoadError> {
        let tensor = self.tensor(name, rows, columns)?;
        self.0.rows(name, tensor, |n, row| {
            matrix.set_row(place(n), row);
            Ok(())
        })
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        self.tensor(name, rows, columns)?;
        let mut matrix = Matrix::new(rows, columns);
        self.fill(name, rows, columns, &mut matrix, |n| n)?;
        Ok(matrix)
    }

    fn shape(&self) -> Result<Shape, LoadError> {
        match self.0.value("general.architecture") {
            Some(Value::Bytes(name)) if name == b"llama" => {}
            Some(Value::Bytes(name)) => {
                let name = String::from_utf8_lossy(name);
                return Err(LoadError::Unsupported(format!("its architecture is `{name}`; only `llama` is known")));
            }
            _ => return Err(LoadError::Malformed("it does not say its architecture".into())),
        }
        let width = self.count("llama.embedding_length", COLUMNS_MAX)?;
        let heads = self.count("llama.attention.head_count", width)?;
        let key_heads = match self.number("llama.attention.head_count_kv") {
            Some(_) => self.count("llama.attention.head_count_kv", heads)?,
            None => heads,
        };
        let elements = match self.number("llama.attention.key_length") {
            Some(_) => self.count("llama.attention.key_length", COLUMNS_MAX)?,
            None => width / heads,
        };
        let hidden = self.count("llama.feed_forward_length", COLUMNS_MAX)?;
        let layers = self.count("llama.block_count", LAYERS_MAX)?;
        let context = self.count("llama.context_length", 1 << 24)?.min(CONTEXT_MAX);
        let Some(embeddings) = self.0.tensor("token_embd.weight") else {
            return Err(LoadError::Malformed("tensor token_embd.weight is missing".into()));
        };
        let vocabulary = embeddings.rows;
        let epsilon = self.number("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5) as f32;
        let whole = |n: usize, of: usize| n.is_multiple_of(of);
        if !whole(heads, key_heads) || !whole(elements, VALUE_PART) || !whole(width, LANES) || !whole(hidden, LANES) {
            return Err(LoadError::Unsupported(format!(
                "it has {heads} heads for {key_heads} of keys, of {elements} elements, in a width of {width} and {hidden}: \
                 heads must be a multiple of those of keys, their elements one of {VALUE_PART}, widths of {LANES}"
            )));
        }
        if heads.saturating_mul(elements) > COLUMNS_MAX || vocabulary > VOCABULARY_MAX || context < 16 {
            return Err(LoadError::Unsupported("its heads, vocabulary or context are out of bounds".into()));
        }
        if !epsilon.is_finite() || epsilon < 0.0 {
            return Err(LoadError::Malformed("its epsilon is no small number".into()));
        }
        if self.number("llama.expert_count").is_some_and(|n| n > 0.0) {
            return Err(LoadError::Unsupported("it is a mixture of experts".into()));
        }
        Ok(Shape { vocabulary, width, heads, key_heads, elements, hidden, layers, context, epsilon })
    }

    /// How fast each pair of elements turns, radians a position.
    fn frequencies(&mut self, elements: usize) -> Result<Vec<f64>, LoadError> {
        if self.number("llama.rope.dimension_count").is_some_and(|n| n != elements as f64) {
            return Err(LoadError::Unsupported("only some elements of its heads turn with the position".into()));
        }
        let base = self.number("llama.rope.freq_base").unwrap_or(10_000.0);
        if !(1.0..=1e12).contains(&base) {
            return Err(LoadError::Malformed(format!("its llama.rope.freq_base is {base}")));
        }
        let scale = match self.0.value("llama.rope.scaling.type") {
            None => 1.0,
            Some(Value::Bytes(kind)) if kind == b"none" => 1.0,
            Some(Value::Bytes(kind)) if kind == b"linear" => {
                self.number("llama.rope.scaling.factor").filter(|f| *f >= 1.0).unwrap_or(1.0)
            }
            Some(_) => return Err(LoadError::Unsupported("its positions are scaled otherwise than linearly".into())),
        };
        let factors = match self.0.tensor("rope_freqs.weight") {
            Some(_) => self.vector("rope_freqs.weight", elements / 2)?,
            None => vec![1.0; elements / 2],
        };
        if factors.iter().any(|f| *f <= 0.0) {
            return Err(LoadError::Malformed("tensor rope_freqs.weight has elements that are not above zero".into()));
        }
        let of_pair = |(pair, factor): (usize, &f32)| {
            exact::power(base, -((2 * pair) as f64) / elements as f64) / f64::from(*factor) / scale
        };
        Ok(factors.iter().enumerate().map(of_pair).collect())
    }

    fn network(&mut self) -> Result<Network, LoadError> {
        let shape = self.shape()?;
        let Shape { vocabulary, width, heads, key_heads, elements, hidden, .. } = shape;
        let frequencies = self.frequencies(elements)?;
        let embeddings = self.matrix("token_embd.weight", vocabulary, width)?;
        let head = match self.0.tensor("output.weight") {
            Some(_) => Some(self.matrix("output.weight", vocabulary, width)?),
            None => None,
        };
        let norm = self.vector("output_norm.weight", width)?;
        let mut layers = Vec::new();
        for n in 0..shape.layers {
            let name = |what: &str| format!("blk.{n}.{what}.weight");
            for unknown in ["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"] {
                if self.0.tensor(&format!("blk.{n}.{unknown}")).is_some() {
                    return Err(LoadError::Unsupported(format!(
                        "it has a tensor blk.{n}.{unknown}, which is not known"
                    )));
                }
            }
            // In the file, two elements that turn together are neighbours; here they are half a head apart.
            let apart = |row: usize| row / elements * elements + row % 2 * (elements / 2) + row % elements / 2;
            let (of_queries, of_keys) = (heads * elements, key_heads * elements);
            let mut queries = Matrix::new(of_queries + 2 * of_keys, width);
            self.fill(&name("attn_q"), of_queries, width, &mut queries, apart)?;
            self.fill(&name("attn_k"), of_keys, width, &mut queries, |row| of_queries + apart(row))?;
            self.fill(&name("attn_v"), of_keys, width, &mut queries, |row| of_queries + of_keys + row)?;
            let mut gates = Matrix::new(2 * hidden, width);
            self.fill(&name("ffn_gate"), hidden, width, &mut gates, |row| row)?;
            self.fill(&name("ffn_up"), hidden, width, &mut gates, |row| hidden + row)?;
            layers.push(Layer {
                attention_norm: self.vector(&name("attn_norm"), width)?,
                queries,
                output: self.matrix(&name("attn_output"), width, heads * elements)?,
                feed_norm: self.vector(&name("ffn_norm"), width)?,
                gates,
                down: self.matrix(&name("ffn_down"), width, hidden)?,
            });
        }
        let rotary = rotary(&frequencies, shape.context);
        Ok(Network { shape, embeddings, layers, norm, head, rotary })
    }
}

/// Cosines, then sines, of every position.
fn rotary(frequencies: &[f64], positions: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(positions * frequencies.len() * 2);
    for position in 0..positions {
        let both: Vec<(f64, f64)> = frequencies.iter().map(|f| exact::sine_cosine(position as f64 * f)).collect();
        out.extend(both.iter().map(|(_, cosine)| *cosine as f32));
        out.extend(both.iter().map(|(sine, _)| *sine as f32));
    }
    out
}

impl Network {
    /// Feeds all that its shares depend on to a hash.
    fn hash(&self, hasher: &mut blake3::Hasher) {
        let s = &self.shape;
        let numbers = [s.vocabulary, s.width, s.heads, s.key_heads, s.elements, s.hidden, s.layers, s.context];
        for n in numbers {
            hasher.update(&(n as u64).to_le_bytes());
        }
        let floats = |hasher: &mut blake3::Hasher, floats: &[f32]| {
            floats.iter().for_each(|x| {
                hasher.update(&x.to_bits().to_le_bytes());
            });
        };
        floats(hasher, &[s.epsilon]);
        for layer in &self.layers {
            floats(hasher, &layer.attention_norm);
            floats(hasher, &layer.feed_norm);
            [&layer.queries, &layer.output, &layer.gates, &layer.down].into_iter().for_each(|m| m.hash(hasher));
        }
        floats(hasher, &self.norm);
        floats(hasher, &self.rotary);
        self.embeddings.hash(hasher);
        hasher.update(&[u8::from(self.head.is_some())]);
        self.head.iter().for_each(|m| m.hash(hasher));
    }

    /// A small network of fixed noise, with which a machine shows that it computes as others do.
    fn of_noise() -> Network {
        let mut x = 1u64;
        let mut noise = |len: usize| -> Vec<f32> {
            let mut next = || {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((x >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32
            };
            (0..len).map(|_| next() * next()).collect()
        };
        let (vocabulary, width, heads, key_heads, elements, hidden, layers) = (320, 96, 6, 2, 32, 160, 2);
        let mut matrix = |rows: usize, columns: usize| {
            let mut matrix = Matrix::new(rows, columns);
            (0..rows).for_each(|row| matrix.set_row(row, &noise(columns)));
            matrix
        };
        let mut layer = || Layer {
            attention_norm: vec![1.5; width],
            queries: matrix((heads + 2 * key_heads) * elements, width),
            output: matrix(width, heads * elements),
            feed_norm: vec![0.75; width],
            gates: matrix(2 * hidden, width),
            down: matrix(width, hidden),
        };
        let layers_made = (0..layers).map(|_| layer()).collect();
        let frequencies: Vec<f64> =
            (0..elements / 2).map(|pair| exact::power(10_000.0, -((2 * pair) as f64) / elements as f64)).collect();
        Network {
            embeddings: matrix(vocabulary, width),
            head: Some(matrix(vocabulary, width)),
            layers: layers_made,
            norm: vec![1.25; width],
            rotary: rotary(&frequencies, PROOF_TOKENS),
            shape: Shape {
                vocabulary,
                width,
                heads,
                key_heads,
                elements,
                hidden,
                layers,
                context: PROOF_TOKENS,
                epsilon: 1e-5,
            },
        }
    }

    /// Hash of the shares after every token of a text, read so many tokens at a time.
    pub(super) fn shares_hash(&self, path: Path, tokens: &[u32], at_a_time: usize) -> [u8; 16] {
        let (mut hasher, mut work, mut shares) = (blake3::Hasher::new(), Work::default(), Shares::default());
        let mut streams = self.streams(1);
        for part in tokens.chunks(at_a_time) {
            let rows: Vec<Row> = part.iter().map(|token| Row { stream: 0, token: *token }).collect();
            self.step(path, &rows, &mut streams, &mut work);
            for row in 0..rows.len() {
                spread(path, work.logits(self, row), &mut shares);
                shares.hash(&mut hasher);
            }
        }
        let mut out = [0; 16];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        out
    }
}

/// Tokens of the proof: more than a page of a stream.
const PROOF_TOKENS: usize = 150;
/// What `shares_hash` gives for them on every machine.
const PROOF: [u8; 16] = [76, 1, 227, 245, 61, 214, 114, 165, 199, 165, 102, 126, 200, 92, 207, 91];

/// Shows that a path computes as it does on every other machine, in a few milliseconds.
///
/// # Errors
/// `Inexact` when it does not.
pub(super) fn prove(path: Path) -> Result<(), LoadError> {
    let network = Network::of_noise();
    let tokens: Vec<u32> = (0..PROOF_TOKENS as u32).map(|n| n * n * 7 % 320).collect();
    if network.shares_hash(path, &tokens, 11) == PROOF { Ok(()) } else { Err(LoadError::Inexact(path.name())) }
}

/// Loads a model from a GGUF file.
///
/// # Errors
/// Says what is wrong with the file, or that this machine cannot use language models.
///
/// # Blocking
/// Reads the whole file: a second or two for each GiB.
pub fn load<R: Read + Seek>(file: R) -> Result<LanguageModel, LoadError> {
    let path = Path::best();
    prove(path)?;
    let mut source = Source(Gguf::open(file)?);
    let tokens = Tokens::of_gguf(&source.0)?;
    let network = source.network()?;
    if tokens.count() > network.shape.vocabulary {
        return Err(LoadError::Malformed("it has more tokens than rows of embeddings".into()));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&ARITHMETIC.to_le_bytes());
    tokens.hash(&mut hasher);
    network.hash(&mut hasher);
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Ok(LanguageModel { id: ModelId(id), path, network, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_proves_itself() {
        for path in Path::all() {
            prove(path).unwrap();
        }
    }

    #[test]
    fn shares_do_not_depend_on_the_tokens_at_a_time() {
        let network = Network::of_noise();
        let tokens: Vec<u32> = (0..PROOF_TOKENS as u32).map(|n| n * 31 % 320).collect();
        for path in Path::all() {
            let hashes = [1, 3, 16, 64].map(|n| network.shares_hash(path, &tokens, n));
            assert!(hashes.windows(2).all(|two| two[0] == two[1]), "{}", path.name());
        }
    }
}
