//! A network of the Llama family or of its relatives in floats of 32 bits, whose outcome has gradients of its adapter.
//!
//! The weights of the model stay as they are, so that nothing is computed for them. Where candle's own gradients would be
//! (every product has one for both sides), or where it has none (fused operations), an operation brings the rule by which
//! its gradient goes back, `Written`. What is kept of a window for the way back is about 30 MiB a layer of SmolLM2-135M at
//! 512 tokens.

use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp3, D, Device, Layout, Result, Shape, Storage};
use candle_core::{Tensor, Var, bail};
use candle_nn::ops::{rms_norm, softmax_last_dim};
use candle_nn::rotary_emb::rope;

use super::super::LoadError;
use super::super::exact;
use super::super::load::Tensors;
use super::super::plan::{BIASES, HEAD_NORMS, POST_NORMS, Plan};
use super::super::step::{Activation, Shape as Numbers};
use super::Matrix;

/// Rows whose logits are in memory at the same time.
const LOGIT_ROWS: usize = 128;
/// The least probability that is counted: 2^-100.
const LEAST: f64 = 7.9e-31;

/// An operation that was computed already, and how its gradient goes back to what it was computed from.
struct Written<F> {
    name: &'static str,
    out: Mutex<Option<Tensor>>,
    back: F,
}

impl<F> Written<F> {
    fn new(name: &'static str, out: Tensor, back: F) -> Written<F> {
        Written { name, out: Mutex::new(Some(out)), back }
    }

    /// The outcome, which is not kept here.
    fn out(&self) -> Result<Tensor> {
        match self.out.lock().ok().and_then(|mut out| out.take()) {
            Some(out) => out.contiguous(),
            None => bail!("{} is computed twice", self.name),
        }
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let out = self.out()?;
        match &*out.storage_and_layout().0 {
            Storage::Cpu(storage) => Ok((storage.clone(), out.shape().clone())),
            _ => bail!("{} is not where its arguments are", self.name),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let out = self.out()?;
        let (storage, layout) = out.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, out.shape().clone())),
            _ => bail!("{} is not where its arguments are", self.name),
        }
    }
}

/// Of the argument and the gradient of the outcome.
type BackOne = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;
/// Of three arguments, the outcome, and its gradient.
type BackThree = Box<dyn Fn([&Tensor; 3], &Tensor, &Tensor) -> Result<[Tensor; 3]> + Send + Sync>;

impl CustomOp1 for Written<BackOne> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        // Apart from the graph, which gradients that are kept would keep.
        (self.back)(&x.detach(), gradient).map(Some)
    }
}

/// Gradients of three arguments.
type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl CustomOp3 for Written<BackThree> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, c: &Tensor, out: &Tensor, gradient: &Tensor) -> Result<Three> {
        let [a, b, c] = (self.back)([&a.detach(), &b.detach(), &c.detach()], &out.detach(), gradient)?;
        Ok((Some(a), Some(b), Some(c)))
    }
}

fn one(
    name: &'static str,
    x: &Tensor,
    out: Tensor,
    back: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let back: BackOne = Box::new(back);
    if x.track_op() { x.apply_op1(Written::new(name, out, back)) } else { Ok(out) }
}

fn three(
    name: &'static str,
    [a, b, c]: [&Tensor; 3],
    out: Tensor,
    back: impl Fn([&Tensor; 3], &Tensor, &Tensor) -> Result<[Tensor; 3]> + Send + Sync + 'static,
) -> Result<Tensor> {
    let back: BackThree = Box::new(back);
    let tracked = a.track_op() || b.track_op() || c.track_op();
    if tracked { a.apply_op3(b, c, Written::new(name, out, back)) } else { Ok(out) }
}

/// The two sides of what is added to a matrix: `wide` is rank by columns, `tall` rows by rank.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub wide: Var,
    pub tall: Var,
}

/// A matrix of the model, what is added to its products, and what is added to it.
#[derive(Debug)]
struct Adapted {
    weights: Tensor,
    biases: Option<Tensor>,
    pair: Option<Pair>,
}

impl Adapted {
    /// Rows times the transposed matrix. Without gradients where `apart` from the graph.
    fn apply(&self, x: &Tensor, scale: f64, apart: bool) -> Result<Tensor> {
        let plain = x.detach();
        let mut out = plain.matmul(&self.weights.t()?)?;
        if let Some(biases) = &self.biases {
            out = out.broadcast_add(biases)?;
        }
        let weights = self.weights.clone();
        let Some(pair) = &self.pair else {
            return one("frozen", x, out, move |_, gradient| gradient.matmul(&weights));
        };
        let (wide, tall) = (pair.wide.as_detached_tensor(), pair.tall.as_detached_tensor());
        let thin = (plain.matmul(&wide.t()?)? * scale)?;
        let out = (out + thin.matmul(&tall.t()?)?)?;
        if apart {
            return Ok(out);
        }
        three("adapted", [x, &pair.wide, &pair.tall], out, move |[x, wide, tall], _, gradient| {
            let of_thin = (gradient.matmul(tall)? * scale)?;
            let of_tall = gradient.t()?.matmul(&thin)?;
            let of_wide = of_thin.t()?.matmul(x)?;
            Ok([(gradient.matmul(&weights)? + of_thin.matmul(wide)?)?, of_wide, of_tall])
        })
    }
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    feed_norm: Tensor,
    /// Weights of the norms of each head of queries, and of keys.
    head_norms: Option<[Tensor; 2]>,
    /// Weights of the norms of what attention and gates add to the state.
    post_norms: Option<[Tensor; 2]>,
    /// In the order of `Matrix::ALL`.
    matrices: Vec<Adapted>,
    /// What it sees of the past, where that is not all: tokens.
    window: Option<usize>,
}

/// Angles by which heads are turned, at each position.
#[derive(Debug)]
struct Turns {
    cosines: Tensor,
    sines: Tensor,
}

impl Turns {
    fn new(frequencies: &[f64], positions: usize, device: &Device) -> Result<Turns> {
        let (mut cosines, mut sines) = (Vec::new(), Vec::new());
        for position in 0..positions {
            for frequency in frequencies {
                let (sine, cosine) = exact::sine_cosine(position as f64 * frequency);
                cosines.push(cosine as f32);
                sines.push(sine as f32);
            }
        }
        let shape = (positions, frequencies.len());
        let [cosines, sines] = [cosines, sines].map(|all| Tensor::from_vec(all, shape, device));
        Ok(Turns { cosines: cosines?, sines: sines? })
    }
}

/// The model, with its adapter.
#[derive(Debug)]
pub(super) struct Network {
    numbers: Numbers,
    device: Device,
    embeddings: Tensor,
    head: Tensor,
    norm: Tensor,
    layers: Vec<Layer>,
    scale: f64,
    turns: Turns,
    /// Of layers that see only what is near.
    near_turns: Turns,
}

/// What a function of a window is computed with once, and kept for the next window of the same length; by how far back a layer
/// sees.
#[derive(Debug, Default)]
pub(super) struct Masks(BTreeMap<Option<usize>, Tensor>);

impl Masks {
    /// Nothing where a token is seen, and minus infinity where it is not yet, or not any more: key heads, then queries of a
    /// head of keys.
    fn of(&mut self, tokens: usize, window: Option<usize>, numbers: &Numbers, device: &Device) -> Result<Tensor> {
        let each = numbers.heads / numbers.key_heads;
        let shape = (numbers.key_heads, each * tokens, tokens);
        match self.0.get(&window) {
            Some(mask) if mask.dims3()? == shape => Ok(mask.clone()),
            _ => {
                let sees = move |at: usize, t: usize| t <= at && window.is_none_or(|window| at - t < window);
                let row = |at: usize| (0..tokens).map(move |t| if sees(at, t) { 0.0 } else { f32::NEG_INFINITY });
                let one: Vec<f32> = (0..tokens).flat_map(row).collect();
                let one = Tensor::from_vec(one, (1, tokens, tokens), device)?;
                let mask = one.repeat((numbers.heads, 1, 1))?.reshape(shape)?.contiguous()?;
                self.0.insert(window, mask.clone());
                Ok(mask)
            }
        }
    }
}

/// Divides rows by the roots of their mean squares, and weighs them.
fn normalised(x: &Tensor, weights: &Tensor, epsilon: f32) -> Result<Tensor> {
    let out = rms_norm(&x.detach().contiguous()?, weights, epsilon)?;
    let weights = weights.clone();
    one("norm", x, out, move |x, gradient| {
        let width = x.dim(D::Minus1)? as f64;
        // With f = 1 / root(mean(x^2) + e) and h = gradient * weights: f * h - x * f^3 * mean(x * h).
        let mean = (x.sqr()?.sum_keepdim(D::Minus1)? / width)?;
        let factor = (mean + f64::from(epsilon))?.sqrt()?.recip()?;
        let weighed = gradient.broadcast_mul(&weights)?;
        let along = ((x * &weighed)?.sum_keepdim(D::Minus1)? / width)?;
        let along = (along * factor.powf(3.0)?)?;
        weighed.broadcast_mul(&factor)? - x.broadcast_mul(&along)?
    })
}

/// The same of each head of every token.
fn heads_normalised(x: &Tensor, weights: &Tensor, epsilon: f32) -> Result<Tensor> {
    let (tokens, all) = x.dims2()?;
    let elements = weights.dim(0)?;
    normalised(&x.reshape((tokens * all / elements, elements))?, weights, epsilon)?.reshape((tokens, all))
}

/// Tokens by elements of all heads, as heads by tokens by elements.
fn by_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (tokens, all) = x.dims2()?;
    x.reshape((tokens, heads, all / heads))?.transpose(0, 1)?.contiguous()
}

/// The other way round.
fn by_tokens(x: &Tensor) -> Result<Tensor> {
    let (heads, tokens, elements) = x.dims3()?;
    x.transpose(0, 1)?.contiguous()?.reshape((tokens, heads * elements))
}

/// Turns heads by the positions of their tokens; back where the sines are those of the opposite angles.
fn turned(x: &Tensor, cosines: &Tensor, sines: &Tensor) -> Result<Tensor> {
    rope(&x.unsqueeze(0)?, cosines, sines)?.squeeze(0)
}

/// A model that is being read onto a device, and hashed.
struct Reading<'a, T> {
    tensors: &'a mut T,
    plan: &'a Plan,
    device: &'a Device,
    hasher: &'a mut blake3::Hasher,
}

impl<T: Tensors> Reading<'_, T> {
    /// All elements of a tensor, rows put where `place` says.
    fn elements(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        place: impl Fn(usize) -> usize,
    ) -> std::result::Result<Vec<f32>, LoadError> {
        if self.tensors.extent(name) != Some((rows, columns)) {
            let what = format!("tensor {name} is missing, or has not {rows} rows of {columns} elements");
            return Err(LoadError::Malformed(what));
        }
        let mut all = vec![0.0f32; rows * columns];
        let hasher = &mut *self.hasher;
        self.tensors.rows(name, &mut |n, row| {
            hasher.update(bytemuck::cast_slice(row));
            all.chunks_exact_mut(columns).skip(place(n)).take(1).for_each(|to| to.copy_from_slice(row));
            Ok(())
        })?;
        Ok(all)
    }

    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        turns: bool,
    ) -> std::result::Result<Tensor, super::TrainError> {
        let plan = self.plan;
        let all = self.elements(name, rows, columns, |n| if turns { plan.apart(n) } else { n })?;
        Ok(Tensor::from_vec(all, (rows, columns), self.device)?)
    }

    /// What is added to the products of a matrix of queries, keys or values.
    fn biases(&mut self, name: &str, len: usize, turns: bool) -> std::result::Result<Tensor, super::TrainError> {
        let all = self.elements(name, 1, len, |n| n)?;
        let mut out = vec![0.0; len];
        for (n, x) in all.into_iter().enumerate() {
            let at = if turns { self.plan.apart(n) } else { n };
            out.iter_mut().skip(at).take(1).for_each(|to| *to = x);
        }
        Ok(Tensor::from_vec(out, len, self.device)?)
    }

    /// Weights of a norm.
    fn norm(&mut self, name: &str, len: usize) -> std::result::Result<Tensor, super::TrainError> {
        let weights = self.elements(name, 1, len, |n| n)?;
        let weights = weights.into_iter().map(|w| w + self.plan.norm_offset).collect();
        Ok(Tensor::from_vec(weights, len, self.device)?)
    }

    /// Weights of two norms of a layer, where there are some.
    fn norms(
        &mut self,
        has: bool,
        layer: usize,
        names: [&str; 2],
        len: usize,
    ) -> std::result::Result<Option<[Tensor; 2]>, super::TrainError> {
        if !has {
            return Ok(None);
        }
        let [first, second] = names.map(|what| format!("blk.{layer}.{what}"));
        Ok(Some([self.norm(&first, len)?, self.norm(&second, len)?]))
    }
}

impl Network {
    /// Reads a model, feeds its weights to a hash, and puts pairs beside the matrices that are to be adapted; `begin` makes one of a matrix' rows and
    /// columns.
    ///
    /// # Errors
    /// When a tensor is missing or not as it should be, or the device has not enough memory.
    pub fn new(
        tensors: &mut impl Tensors,
        plan: &Plan,
        device: &Device,
        scale: f64,
        hasher: &mut blake3::Hasher,
        begin: &mut dyn FnMut(usize, Matrix, usize, usize) -> Result<Option<Pair>>,
    ) -> std::result::Result<Network, super::TrainError> {
        let numbers = plan.shape.clone();
        let Numbers { vocabulary, width, heads, key_heads, elements, hidden, .. } = numbers;
        let has_head = plan.has_head(tensors);
        let mut reading = Reading { tensors, plan, device, hasher };
        let embeddings = reading.matrix("token_embd.weight", vocabulary, width, false)?;
        let head = match has_head {
            true => reading.matrix("output.weight", vocabulary, width, false)?,
            false => embeddings.clone(),
        };
        let norm = reading.norm("output_norm.weight", width)?;
        let mut layers = Vec::new();
        for n in 0..numbers.layers {
            let mut matrices = Vec::new();
            for which in Matrix::ALL {
                let (rows, columns) = match which {
                    Matrix::Queries => (heads * elements, width),
                    Matrix::Keys | Matrix::Values => (key_heads * elements, width),
                    Matrix::Output => (width, heads * elements),
                    Matrix::Gates | Matrix::Ups => (hidden, width),
                    Matrix::Down => (width, hidden),
                };
                let turns = matches!(which, Matrix::Queries | Matrix::Keys);
                let name = which.names().1;
                let weights = reading.matrix(&format!("blk.{n}.{name}.weight"), rows, columns, turns)?;
                let bias = format!("{name}.bias");
                let biases = (plan.family.has_biases() && BIASES.contains(&bias.as_str()))
                    .then(|| reading.biases(&format!("blk.{n}.{bias}"), rows, turns))
                    .transpose()?;
                matrices.push(Adapted { weights, biases, pair: begin(n, which, rows, columns)? });
            }
            layers.push(Layer {
                attention_norm: reading.norm(&format!("blk.{n}.attn_norm.weight"), width)?,
                feed_norm: reading.norm(&format!("blk.{n}.ffn_norm.weight"), width)?,
                head_norms: reading.norms(plan.family.has_head_norms(), n, HEAD_NORMS, elements)?,
                post_norms: reading.norms(plan.family.has_post_norms(), n, POST_NORMS, width)?,
                matrices,
                window: numbers.window(n),
            });
        }
        let positions = numbers.context.min(super::WINDOW_MAX);
        Ok(Network {
            turns: Turns::new(&plan.frequencies, positions, device)?,
            near_turns: Turns::new(&plan.near_frequencies, positions, device)?,
            device: device.clone(),
            numbers,
            embeddings,
            head,
            norm,
            layers,
            scale,
        })
    }

    /// What queries find, for each token.
    fn attend(
        &self,
        [queries, keys, values]: [&Tensor; 3],
        window: Option<usize>,
        masks: &mut Masks,
    ) -> Result<Tensor> {
        let Numbers { heads, key_heads, elements, .. } = self.numbers;
        let tokens = queries.dim(0)?;
        let together = (key_heads, heads / key_heads * tokens, elements);
        let root = f64::from(self.numbers.root());
        let turns = if window.is_some() { &self.near_turns } else { &self.turns };
        let cosines = turns.cosines.narrow(0, 0, tokens)?;
        let sines = turns.sines.narrow(0, 0, tokens)?;
        let q = turned(&by_heads(&queries.detach(), heads)?, &cosines, &sines)?;
        let q = (q.reshape(together)? * root)?;
        let k = turned(&by_heads(&keys.detach(), key_heads)?, &cosines, &sines)?;
        let v = by_heads(&values.detach(), key_heads)?;
        let mask = masks.of(tokens, window, &self.numbers, &self.device)?;
        let shares = softmax_last_dim(&(q.matmul(&k.t()?)? + mask)?)?;
        let out = by_tokens(&shares.matmul(&v)?.reshape((heads, tokens, elements))?)?;
        three("attention", [queries, keys, values], out, move |_, out, gradient| {
            let gradient = by_heads(gradient, heads)?;
            // The sum over tokens of gradient * share is that over elements of gradient * outcome.
            let along = (&gradient * by_heads(out, heads)?)?.sum_keepdim(D::Minus1)?;
            let gradient = gradient.reshape(together)?;
            let along = along.reshape((together.0, together.1, 1))?;
            let of_values = shares.t()?.matmul(&gradient)?;
            let of_shares = gradient.matmul(&v.t()?)?;
            let of_scores = (of_shares.broadcast_sub(&along)? * &shares)?;
            let of_queries = (of_scores.matmul(&k)? * root)?.reshape((heads, tokens, elements))?;
            let of_keys = of_scores.t()?.matmul(&q)?;
            let back = sines.neg()?;
            Ok([
                by_tokens(&turned(&of_queries, &cosines, &back)?)?,
                by_tokens(&turned(&of_keys, &cosines, &back)?)?,
                by_tokens(&of_values)?,
            ])
        })
    }

    /// The state of every token of a window after all layers. Without gradients where `apart` from the graph.
    fn states(&self, tokens: &[u32], apart: bool, masks: &mut Masks) -> Result<Tensor> {
        let epsilon = self.numbers.epsilon;
        let extras = &self.numbers.extras;
        let ids = Tensor::new(tokens, &self.device)?;
        let mut x = self.embeddings.index_select(&ids, 0)?;
        if let Some(factor) = extras.embedding_factor {
            x = (x * f64::from(factor))?;
        }
        for layer in &self.layers {
            let [queries, keys, values, output, gates, ups, down] = layer.matrices.as_slice() else {
                bail!("a layer has seven matrices");
            };
            let normed = normalised(&x, &layer.attention_norm, epsilon)?;
            let of = |matrix: &Adapted, x: &Tensor| matrix.apply(x, self.scale, apart);
            let (mut q, mut k) = (of(queries, &normed)?, of(keys, &normed)?);
            if let Some([of_queries, of_keys]) = &layer.head_norms {
                q = heads_normalised(&q, of_queries, epsilon)?;
                k = heads_normalised(&k, of_keys, epsilon)?;
            }
            let mixed = self.attend([&q, &k, &of(values, &normed)?], layer.window, masks)?;
            let after = |x: Tensor, which: usize| match &layer.post_norms {
                Some(norms) => normalised(&x, &norms[which], epsilon),
                None => Ok(x),
            };
            x = (x + after(of(output, &mixed)?, 0)?)?;
            let normed = normalised(&x, &layer.feed_norm, epsilon)?;
            let gates = of(gates, &normed)?;
            let open = match extras.activation {
                Activation::Silu => gates.silu()?,
                Activation::Gelu => gates.gelu()?,
                Activation::QuickGelu => bail!("gates of models of images are not taught"),
            };
            let hidden = (open * of(ups, &normed)?)?;
            x = (x + after(of(down, &hidden)?, 1)?)?;
        }
        normalised(&x, &self.norm, epsilon)
    }

    /// Bits that the tokens of a window take, each predicted from what is read before it, and with `learn` what the gradients
    /// of the mean are made of: a number whose gradients they are.
    pub fn bits(&self, read: &[u32], next: &[u32], learn: bool, masks: &mut Masks) -> Result<(f64, Option<Tensor>)> {
        let states = self.states(read, !learn, masks)?;
        let plain = states.detach();
        let (mut bits, mut gradients) = (0.0, Vec::new());
        for (from, next) in (0..).step_by(LOGIT_ROWS).zip(next.chunks(LOGIT_ROWS)) {
            let ids = Tensor::new(next, &self.device)?;
            let logits = plain.narrow(0, from, next.len())?.matmul(&self.head.t()?)?;
            let shares = softmax_last_dim(&logits)?;
            let of_next = shares.gather(&ids.unsqueeze(1)?, 1)?.flatten_all()?.to_vec1::<f32>()?;
            bits -= of_next.iter().map(|p| f64::from(*p).max(LEAST).log2()).sum::<f64>();
            if learn {
                gradients.push((shares.matmul(&self.head)? - self.head.index_select(&ids, 0)?)?);
            }
        }
        if !learn {
            return Ok((bits, None));
        }
        let gradients = Tensor::cat(&gradients, 0)?;
        Ok((bits, Some((states * gradients)?.sum_all()?)))
    }

    /// Logits after each token.
    #[cfg(test)]
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        self.states(tokens, true, &mut Masks::default())?.matmul(&self.head.t()?)?.to_vec2()
    }
}
