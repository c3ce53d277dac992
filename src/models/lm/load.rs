//! A model from its file: numbers of the network, tensors by their names, tokens, and the proof that this machine computes
//! as others do.

use std::io::{self, Read, Seek};

use super::adapter::{Adapted, Adapter};
use super::cdf::{Shares, spread};
use super::exact;
use super::gguf::Gguf;
use super::kernels::Path;
use super::patches::Patches;
use super::plan::{self, BIASES, Family, HEAD_NORMS, POST_NORMS, Plan};
use super::safetensors::{self, Checkpoint};
use super::step::{Activation, Extras, Layer, Near, Network, Norm, Row, Shape, Work};
use super::tokens::Tokens;
use super::weights::Matrix;
use super::{DECODE_BYTES_MAX, LanguageModel, LoadError, ModelKind};
use crate::base::ModelId;

/// Revision of the arithmetic: raised when any share may come out otherwise. It is part of a model's name.
const ARITHMETIC: u32 = 2;

/// Told the number of a row and the row, plain.
pub(super) type EachRow<'a> = &'a mut dyn FnMut(usize, &[f32]) -> Result<(), LoadError>;

/// Tensors of a model, by the names that GGUF has for them.
pub(super) trait Tensors {
    /// Names of all.
    fn names(&self) -> Vec<String>;

    /// Rows and columns of a tensor that is there.
    fn extent(&self, name: &str) -> Option<(usize, usize)>;

    /// Gives every row of a tensor in turn to a function, plain.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or has an element that is not a finite number.
    fn rows(&mut self, name: &str, each: EachRow<'_>) -> Result<(), LoadError>;
}

/// Tensors that are being read, of shapes that follow from the network's numbers.
pub(super) struct Source<T>(pub T);

impl<T: Tensors> Source<T> {
    fn expect(&self, name: &str, rows: usize, columns: usize) -> Result<(), LoadError> {
        match self.0.extent(name) {
            Some(extent) if extent == (rows, columns) => Ok(()),
            Some((r, c)) => Err(LoadError::Malformed(format!(
                "tensor {name} has {r} rows of {c} elements, and should have {rows} of {columns}"
            ))),
            None => Err(LoadError::Malformed(format!("tensor {name} is missing"))),
        }
    }

    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        self.table(name, 1, len)
    }

    /// All rows of a tensor, plain.
    pub fn table(&mut self, name: &str, rows: usize, columns: usize) -> Result<Vec<f32>, LoadError> {
        self.expect(name, rows, columns)?;
        let mut out = Vec::new();
        self.0.rows(name, &mut |_, row| {
            out.extend_from_slice(row);
            Ok(())
        })?;
        Ok(out)
    }

    /// The first rows of a tensor of so many rows and columns.
    pub fn first_rows(
        &mut self,
        name: &str,
        (rows, columns): (usize, usize),
        first: usize,
    ) -> Result<Matrix, LoadError> {
        self.expect(name, rows, columns)?;
        let mut matrix = Matrix::new(first, columns);
        self.0.rows(name, &mut |n, row| {
            if n < first {
                matrix.set_row(n, row);
            }
            Ok(())
        })?;
        Ok(matrix)
    }

    /// A matrix of `columns` rows, of a tensor that has them for columns.
    pub fn turned(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        let table = self.table(name, rows, columns)?;
        let mut matrix = Matrix::new(columns, rows);
        let mut row = vec![0.0; rows];
        for n in 0..columns {
            row.iter_mut().zip(table.iter().skip(n).step_by(columns)).for_each(|(to, x)| *to = *x);
            matrix.set_row(n, &row);
        }
        Ok(matrix)
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
        self.expect(name, rows, columns)?;
        self.0.rows(name, &mut |n, row| {
            matrix.set_row(place(n), row);
            Ok(())
        })
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        self.expect(name, rows, columns)?;
        let mut matrix = Matrix::new(rows, columns);
        self.fill(name, rows, columns, &mut matrix, |n| n)?;
        Ok(matrix)
    }

    /// Weights of a norm.
    fn norm(&mut self, name: &str, len: usize, plan: &Plan) -> Result<Vec<f32>, LoadError> {
        let mut weights = self.vector(name, len)?;
        if plan.norm_offset != 0.0 {
            weights.iter_mut().for_each(|w| *w += plan.norm_offset);
        }
        Ok(weights)
    }

    fn row_norm(&mut self, name: &str, len: usize, plan: &Plan) -> Result<Norm, LoadError> {
        Ok(Norm { weights: self.norm(name, len, plan)?, biases: None })
    }

    fn network(&mut self, plan: &Plan) -> Result<Network, LoadError> {
        let Shape { vocabulary, width, heads, key_heads, elements, hidden, .. } = plan.shape;
        let embeddings = self.matrix("token_embd.weight", vocabulary, width)?;
        let has_head = plan.has_head(&self.0);
        let head = has_head.then(|| self.matrix("output.weight", vocabulary, width)).transpose()?;
        let norm = self.row_norm("output_norm.weight", width, plan)?;
        let mut layers = Vec::new();
        for n in 0..plan.shape.layers {
            let name = |what: &str| format!("blk.{n}.{what}.weight");
            let (of_queries, of_keys) = (heads * elements, key_heads * elements);
            let mut biases = Vec::new();
            if plan.family.has_biases() {
                biases.resize(of_queries + 2 * of_keys, 0.0);
                let mut from = 0;
                for (what, len) in BIASES.iter().zip([of_queries, of_keys, of_keys]) {
                    let turns = *what != "attn_v.bias";
                    for (row, x) in self.vector(&format!("blk.{n}.{what}"), len)?.into_iter().enumerate() {
                        let at = from + if turns { plan.apart(row) } else { row };
                        if let Some(bias) = biases.get_mut(at) {
                            *bias = x;
                        }
                    }
                    from += len;
                }
            }
            let mut two = |has: bool, names: [&str; 2], len: usize| -> Result<_, LoadError> {
                let [first, second] = names.map(|what| format!("blk.{n}.{what}"));
                has.then(|| Ok([self.norm(&first, len, plan)?, self.norm(&second, len, plan)?])).transpose()
            };
            let head_norms = two(plan.family.has_head_norms(), HEAD_NORMS, elements)?;
            let post_norms = two(plan.family.has_post_norms(), POST_NORMS, width)?;
            let mut queries = Matrix::new(of_queries + 2 * of_keys, width);
            self.fill(&name("attn_q"), of_queries, width, &mut queries, |row| plan.apart(row))?;
            self.fill(&name("attn_k"), of_keys, width, &mut queries, |row| of_queries + plan.apart(row))?;
            self.fill(&name("attn_v"), of_keys, width, &mut queries, |row| of_queries + of_keys + row)?;
            let mut gates = Matrix::new(2 * hidden, width);
            self.fill(&name("ffn_gate"), hidden, width, &mut gates, |row| row)?;
            self.fill(&name("ffn_up"), hidden, width, &mut gates, |row| hidden + row)?;
            layers.push(Layer {
                attention_norm: self.row_norm(&name("attn_norm"), width, plan)?,
                queries,
                biases,
                head_norms,
                output: self.matrix(&name("attn_output"), width, heads * elements)?,
                feed_norm: self.row_norm(&name("ffn_norm"), width, plan)?,
                gates,
                down: self.matrix(&name("ffn_down"), width, hidden)?,
                other_biases: Default::default(),
                post_norms,
            });
        }
        let near_rotary = rotary(&plan.near_frequencies, plan.shape.context);
        let rotary = rotary(&plan.frequencies, plan.shape.context);
        let positions = Vec::new();
        Ok(Network { shape: plan.shape.clone(), embeddings, layers, norm, head, positions, rotary, near_rotary })
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
    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
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
            floats(hasher, &layer.attention_norm.weights);
            floats(hasher, &layer.feed_norm.weights);
            [&layer.queries, &layer.output, &layer.gates, &layer.down].into_iter().for_each(|m| m.hash(hasher));
        }
        floats(hasher, &self.norm.weights);
        floats(hasher, &self.rotary);
        self.embeddings.hash(hasher);
        hasher.update(&[u8::from(self.head.is_some())]);
        self.head.iter().for_each(|m| m.hash(hasher));
        // What a Llama does not have. It was named before there was any other.
        let Extras { embedding_factor, score_square, activation, ungated, fine, near } = &s.extras;
        for (kind, factor) in [(1, embedding_factor), (2, score_square)] {
            if let Some(x) = factor {
                hasher.update(&[kind]);
                floats(hasher, &[*x]);
            }
        }
        match activation {
            Activation::Silu => {}
            Activation::Gelu => {
                hasher.update(&[3]);
            }
            Activation::QuickGelu => {
                hasher.update(&[8]);
            }
        }
        for (kind, is_so) in [(9, *ungated), (10, *fine)] {
            if is_so {
                hasher.update(&[kind]);
            }
        }
        if let Some(Near { every, window }) = near {
            hasher.update(&[4]);
            for n in [*every, *window] {
                hasher.update(&(n as u64).to_le_bytes());
            }
            floats(hasher, &self.near_rotary);
        }
        for layer in &self.layers {
            if !layer.biases.is_empty() {
                hasher.update(&[5]);
                floats(hasher, &layer.biases);
            }
            for (kind, norms) in [(6, &layer.head_norms), (7, &layer.post_norms)] {
                norms.iter().flatten().for_each(|norm| {
                    hasher.update(&[kind]);
                    floats(hasher, norm);
                });
            }
            for (kind, biases) in [(11, &layer.attention_norm.biases), (12, &layer.feed_norm.biases)] {
                biases.iter().for_each(|biases| {
                    hasher.update(&[kind]);
                    floats(hasher, biases);
                });
            }
            for (kind, biases) in (13..).zip(&layer.other_biases) {
                if !biases.is_empty() {
                    hasher.update(&[kind]);
                    floats(hasher, biases);
                }
            }
        }
        for (kind, more) in [(16, self.norm.biases.as_ref()), (17, Some(&self.positions).filter(|p| !p.is_empty()))] {
            more.iter().for_each(|more| {
                hasher.update(&[kind]);
                floats(hasher, more);
            });
        }
    }

    /// A small network of fixed noise, with which a machine shows that it computes as others do: a Llama, one that has all
    /// that its relatives have, or one of the shape of GPT-2.
    fn of_noise(kind: Noise) -> Network {
        let mut x = 1u64;
        let mut noise = |len: usize| -> Vec<f32> {
            let mut next = || {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((x >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32
            };
            (0..len).map(|_| next() * next()).collect()
        };
        let (vocabulary, width, heads, key_heads, elements, hidden, layers) = (320, 96, 6, 2, 32, 160, 2);
        let key_heads = if kind == Noise::Gpt { heads } else { key_heads };
        let mut matrix = |rows: usize, columns: usize| {
            let mut matrix = Matrix::new(rows, columns);
            (0..rows).for_each(|row| matrix.set_row(row, &noise(columns)));
            matrix
        };
        let norm = |weight: f32| Norm { weights: vec![weight; width], biases: None };
        let gates = if kind == Noise::Gpt { hidden } else { 2 * hidden };
        let mut layer = || Layer {
            attention_norm: norm(1.5),
            queries: matrix((heads + 2 * key_heads) * elements, width),
            output: matrix(width, heads * elements),
            feed_norm: norm(0.75),
            gates: matrix(gates, width),
            down: matrix(width, hidden),
            biases: Vec::new(),
            other_biases: Default::default(),
            head_norms: None,
            post_norms: None,
        };
        let mut layers_made: Vec<Layer> = (0..layers).map(|_| layer()).collect();
        let frequencies: Vec<f64> =
            (0..elements / 2).map(|pair| exact::power(10_000.0, -((2 * pair) as f64) / elements as f64)).collect();
        let mut more = Extras::default();
        let (mut last, mut positions) = (norm(1.25), Vec::new());
        let ramp = |len: usize, slope: f32| (0..len).map(|n| 0.5 + n as f32 * slope).collect::<Vec<f32>>();
        if kind == Noise::Relative {
            for layer in &mut layers_made {
                layer.biases = ramp((heads + 2 * key_heads) * elements, -0.004);
                layer.head_norms = Some([ramp(elements, 0.03), ramp(elements, 0.02)]);
                layer.post_norms = Some([ramp(width, 0.01), ramp(width, 0.005)]);
            }
            more = Extras {
                embedding_factor: Some((width as f32).sqrt()),
                score_square: Some(48.0),
                activation: Activation::Gelu,
                near: Some(Near { every: 2, window: 37 }),
                ..Extras::default()
            };
        }
        if kind == Noise::Gpt {
            for layer in &mut layers_made {
                layer.biases = ramp(3 * heads * elements, -0.004);
                layer.attention_norm.biases = Some(ramp(width, -0.02));
                layer.feed_norm.biases = Some(ramp(width, 0.01));
                layer.other_biases = [ramp(width, -0.01), ramp(hidden, -0.006), ramp(width, -0.02)];
            }
            last.biases = Some(ramp(width, -0.01));
            positions = (0..PROOF_TOKENS * width).map(|n| (n * n % 97) as f32 * 0.01 - 0.5).collect();
            more = Extras { activation: Activation::QuickGelu, ungated: true, fine: true, ..Extras::default() };
        }
        Network {
            embeddings: matrix(vocabulary, width),
            head: Some(matrix(vocabulary, width)),
            layers: layers_made,
            norm: last,
            positions,
            rotary: rotary(if kind == Noise::Gpt { &[] } else { &frequencies[..] }, PROOF_TOKENS),
            near_rotary: rotary(if kind == Noise::Relative { &frequencies[..] } else { &[] }, PROOF_TOKENS),
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
                extras: more,
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

/// Networks of noise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Noise {
    Llama,
    /// With all that the relatives of a Llama have.
    Relative,
    Gpt,
}

/// Tokens of the proof: more than a page of a stream.
const PROOF_TOKENS: usize = 150;
/// What `shares_hash` gives for them on every machine.
const PROOFS: [(Noise, [u8; 16]); 3] = [
    (Noise::Llama, [76, 1, 227, 245, 61, 214, 114, 165, 199, 165, 102, 126, 200, 92, 207, 91]),
    (Noise::Relative, [113, 206, 25, 190, 21, 91, 148, 115, 79, 183, 241, 71, 105, 12, 201, 150]),
    (Noise::Gpt, [98, 229, 138, 18, 100, 172, 239, 218, 164, 114, 128, 97, 9, 42, 204, 196]),
];

fn proof(path: Path, kind: Noise) -> [u8; 16] {
    let tokens: Vec<u32> = (0..PROOF_TOKENS as u32).map(|n| n * n * 7 % 320).collect();
    Network::of_noise(kind).shares_hash(path, &tokens, 11)
}

/// Shows that a path computes as it does on every other machine, in a few milliseconds.
///
/// # Errors
/// `Inexact` when it does not.
pub(super) fn prove(path: Path) -> Result<(), LoadError> {
    let is_exact = |(kind, hash)| proof(path, kind) == hash;
    if PROOFS.into_iter().all(is_exact) { Ok(()) } else { Err(LoadError::Inexact(path.name())) }
}

/// A model whose files are open, its weights not read yet.
pub(super) struct Opened<T> {
    pub tensors: T,
    pub plan: Plan,
    pub tokens: Tokens,
}

impl<R: Read + Seek> Opened<Gguf<R>> {
    pub fn gguf(file: R) -> Result<Self, LoadError> {
        let mut tensors = Gguf::open(file)?;
        let tokens = Tokens::of_gguf(&tensors)?;
        let plan = plan::of_gguf(&mut tensors)?;
        Opened { tensors, plan, tokens }.checked()
    }
}

impl<R: Read + Seek> Opened<Checkpoint<R>> {
    pub fn checkpoint(open: Open<'_, R>) -> Result<Self, LoadError> {
        let config = safetensors::json(open, "config.json")?;
        let family = Family::of_config(&config)?;
        let tokens = Tokens::of_json(&safetensors::json(open, "tokenizer.json")?, &config)?;
        let tensors = Checkpoint::open(open, family)?;
        let vocabulary = tensors.extent("token_embd.weight").map_or(0, |(rows, _)| rows);
        let plan = plan::of_config(&config, vocabulary)?;
        Opened { tensors, plan, tokens }.checked()
    }
}

impl<T: Tensors> Opened<T> {
    /// That it has no tensors which would change what it says and are not known, and rows for all tokens.
    fn checked(self) -> Result<Self, LoadError> {
        if self.tokens.count() > self.plan.shape.vocabulary {
            return Err(LoadError::Malformed("it has more tokens than rows of embeddings".into()));
        }
        if let Some(name) = self.tensors.names().iter().find(|name| !self.plan.has(name)) {
            return Err(LoadError::Unsupported(format!("it has a tensor {name}, which is not known")));
        }
        Ok(self)
    }

    /// Puts the model together.
    fn model<R: Read + Seek>(self, path: Path, adapter: Option<Open<'_, R>>) -> Result<LanguageModel, LoadError> {
        let Opened { tensors, plan, tokens } = self;
        let network = match adapter {
            None => Source(tensors).network(&plan)?,
            Some(open) => Source(Adapted::new(tensors, &plan, Adapter::open(open)?)?).network(&plan)?,
        };
        LanguageModel::named(path, ModelKind::Text, network, None, tokens)
    }
}

impl LanguageModel {
    /// A model of its parts, named by all that its shares depend on.
    pub(super) fn named(
        path: Path,
        kind: ModelKind,
        network: Network,
        patches: Option<Patches>,
        tokens: Tokens,
    ) -> Result<LanguageModel, LoadError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&ARITHMETIC.to_le_bytes());
        tokens.hash(&mut hasher);
        network.hash(&mut hasher);
        patches.iter().for_each(|patches| patches.hash(&mut hasher));
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        let model = LanguageModel { id: ModelId(id), path, kind, network, patches, tokens };
        let bytes = model.decode_bytes();
        if bytes > DECODE_BYTES_MAX {
            return Err(LoadError::Unsupported(format!("one decode would take {bytes} bytes of memory")));
        }
        Ok(model)
    }
}

/// Opens a file of a directory by its name.
pub type Open<'a, R> = &'a dyn Fn(&str) -> io::Result<R>;

/// Loads a model from a GGUF file, and an adapter to it: a directory as PEFT writes it, with `adapter_config.json` and
/// `adapter_model.safetensors`.
///
/// # Errors
/// Says what is wrong with a file, or that this machine cannot use language models.
///
/// # Blocking
/// Reads the whole file: a second or two for each GiB.
pub fn load<R: Read + Seek>(file: R, adapter: Option<Open<'_, R>>) -> Result<LanguageModel, LoadError> {
    let path = Path::best();
    prove(path)?;
    Opened::gguf(file)?.model(path, adapter)
}

/// Loads a model from a checkpoint: a directory with `config.json`, `tokenizer.json`, and `model.safetensors` or its parts
/// and their `model.safetensors.index.json`; and an adapter to it.
///
/// # Errors
/// As `load`.
///
/// # Blocking
/// As `load`.
pub fn load_checkpoint<R: Read + Seek>(
    open: Open<'_, R>,
    adapter: Option<Open<'_, R>>,
) -> Result<LanguageModel, LoadError> {
    let path = Path::best();
    prove(path)?;
    Opened::checkpoint(open)?.model(path, adapter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_proves_itself() {
        for path in Path::all() {
            assert_eq!(PROOFS.map(|(kind, _)| (kind, proof(path, kind))), PROOFS, "{}", path.name());
        }
    }

    #[test]
    fn shares_do_not_depend_on_the_tokens_at_a_time() {
        let tokens: Vec<u32> = (0..PROOF_TOKENS as u32).map(|n| n * 31 % 320).collect();
        for network in [Noise::Llama, Noise::Relative, Noise::Gpt].map(Network::of_noise) {
            for path in Path::all() {
                let hashes = [1, 3, 16, 64].map(|n| network.shares_hash(path, &tokens, n));
                assert!(hashes.windows(2).all(|two| two[0] == two[1]), "{}", path.name());
            }
        }
    }
}
