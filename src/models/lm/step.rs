//! One step of a network of the Llama family, for any rows of any streams; and what its relatives and networks of the shape of
//! GPT-2 do otherwise (`Extras`).
//!
//! Encoder and decoder call the same function. The encoder gives it many tokens of a stream at once, the decoder one of each
//! of many streams; every row comes out the same in any company, since every sum that is shared is one of whole numbers, and
//! what is elementwise looks at its own row alone.

use prefetch_index::prefetch_index;

use super::cache::{PAGE, Page, Streams, VALUE_PART, page_bytes};
use super::exact::{self, greatest};
use super::kernels::{Dot, Path, Sums, by_path, in_parts};
use super::pages::Line;
use super::pair::Mate;
use super::weights::{Factors, Grain, Matrix, cut, fill, joined, multiply};

/// Rows of one step: what scratch memory is bounded by.
pub(super) const ROWS_MAX: usize = 64;
/// Rows of queries that attention looks at together.
const QUERIES: usize = 24;
/// Keys and values of a page that attention looks at together, bytes: those of all pages of a context of a thousand tokens fit the
/// second cache of a core.
const GROUP_BYTES: usize = 64 << 10;

/// Grains of the five kinds of products. Part of the arithmetic: another choice is another revision of it. On 32 KiB of
/// Dickens, SmolLM2-135M takes 1.0 % more bits with all coarse than with all fine; fine queries win a quarter of that for
/// 12 % more products, and the others win less for what they take. A network may ask for all of them fine (`Extras`).
const GRAIN_QUERIES: Grain = Grain::Fine;
const GRAIN_OUTPUT: Grain = Grain::Coarse;
const GRAIN_GATES: Grain = Grain::Coarse;
const GRAIN_DOWN: Grain = Grain::Coarse;
const GRAIN_HEAD: Grain = Grain::Coarse;

/// The numbers of a network. Each is at least 1; `weights`' needs are seen to where a model is loaded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub vocabulary: usize,
    pub width: usize,
    pub heads: usize,
    pub key_heads: usize,
    /// Elements of a head, a multiple of `VALUE_PART`.
    pub elements: usize,
    pub hidden: usize,
    pub layers: usize,
    /// Tokens that a stream may have read.
    pub context: usize,
    pub epsilon: f32,
    pub extras: Extras,
}

/// What networks do that a Llama does not, beside what a `Layer` has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Extras {
    /// Embeddings of tokens are multiplied by this.
    pub embedding_factor: Option<f32>,
    /// Scores are divided by the root of this, and not of the elements of a head.
    pub score_square: Option<f32>,
    pub activation: Activation,
    /// There are no gates: what is hidden is what the activation makes of the products.
    pub ungated: bool,
    /// All products are of fine rows. Some elements of the state of a GPT-2 are many times as large as the others, of which a
    /// coarse row leaves little.
    pub fine: bool,
    pub near: Option<Near>,
}

/// What gates, or hidden elements, are made by: functions of `exact`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Activation {
    #[default]
    Silu,
    Gelu,
    QuickGelu,
}

/// Layers that look back only so far, by angles of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Near {
    /// Of so many layers all but the last.
    pub every: usize,
    /// Tokens, with the one that looks.
    pub window: usize,
}

impl Shape {
    /// What a layer sees of the past, where that is not all: tokens.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.extras.near.filter(|near| !(layer + 1).is_multiple_of(near.every)).map(|near| near.window)
    }

    /// The grain of a product that usually has another.
    fn grain(&self, usual: Grain) -> Grain {
        if self.extras.fine { Grain::Fine } else { usual }
    }

    /// What scores are multiplied by.
    pub fn root(&self) -> f32 {
        1.0 / self.extras.score_square.unwrap_or(self.elements as f32).sqrt()
    }
}

/// A norm of a row.
#[derive(Debug)]
pub(super) struct Norm {
    pub weights: Vec<f32>,
    /// Added afterwards. A norm that has them takes the mean away before.
    pub biases: Option<Vec<f32>>,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub attention_norm: Norm,
    /// Rows of queries, then of keys, then of values; halves of a head are what is rotated.
    pub queries: Matrix,
    /// What is added to their products; nothing where it is empty.
    pub biases: Vec<f32>,
    /// Weights of the norms of each head of queries, and of keys.
    pub head_norms: Option<[Vec<f32>; 2]>,
    pub output: Matrix,
    pub feed_norm: Norm,
    /// Rows of gates, then of what they let through; or of what is hidden.
    pub gates: Matrix,
    pub down: Matrix,
    /// What is added to the products of output, gates and down; nothing where they are empty.
    pub other_biases: [Vec<f32>; 3],
    /// Weights of the norms of what attention and gates add to the state.
    pub post_norms: Option<[Vec<f32>; 2]>,
}

#[derive(Debug)]
pub(super) struct Network {
    pub shape: Shape,
    pub embeddings: Matrix,
    pub layers: Vec<Layer>,
    pub norm: Norm,
    /// `None` where the embeddings serve.
    pub head: Option<Matrix>,
    /// What is added to the embeddings at each position; empty where positions turn elements.
    pub positions: Vec<f32>,
    /// Cosine and sine, for each position and pair of elements: cosines of a position first. Empty where positions are added.
    pub rotary: Vec<f32>,
    /// The same of layers that see only what is near; empty where there are none.
    pub near_rotary: Vec<f32>,
}

/// A token that a stream reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub stream: usize,
    pub token: u32,
}

/// Rows of one stream that stand together.
#[derive(Clone, Copy, Debug)]
struct Run {
    stream: usize,
    first: usize,
    rows: usize,
    /// Of the first.
    position: usize,
}

/// Scratch memory of a step, and its outcome.
#[derive(Default)]
pub(super) struct Work<'n> {
    /// Computes half of each product of one row.
    mate: Option<Mate<'n>>,
    runs: Vec<Run>,
    state: Vec<f32>,
    normed: Vec<f32>,
    factors: Factors,
    queries: Vec<f32>,
    mixed: Vec<f32>,
    product: Vec<f32>,
    gates: Vec<f32>,
    hidden: Vec<f32>,
    attention: Attention,
    logits: Vec<f32>,
}

impl<'n> Work<'n> {
    /// Memory of one core, or of two.
    pub fn of(mate: Option<Mate<'n>>) -> Work<'n> {
        Work { mate, ..Work::default() }
    }

    /// The logits of a row of the last step.
    pub fn logits<'a>(&'a self, network: &Network, row: usize) -> &'a [f32] {
        let head = network.head.as_ref().unwrap_or(&network.embeddings);
        &self.logits[row * head.stride()..][..network.shape.vocabulary]
    }

    /// The states of all rows of the last step, normed: what logits are made of.
    pub fn states(&self) -> &[f32] {
        &self.normed
    }
}

/// Scratch memory of attention.
#[derive(Debug, Default)]
struct Attention {
    query: Vec<i32>,
    query_sums: Vec<i32>,
    query_scales: Vec<f32>,
    scores: Vec<f32>,
    shares: Vec<i32>,
    share_sums: Vec<i32>,
    share_scales: Vec<f32>,
    sums: Vec<[Sums; 2]>,
}

impl Network {
    /// Streams that have read nothing.
    pub fn streams(&self, count: usize) -> Streams {
        let shape = &self.shape;
        Streams::new(count, shape.layers, shape.key_heads, shape.elements)
    }

    /// Bytes of weights.
    pub fn bytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(|l| [&l.queries, &l.output, &l.gates, &l.down]);
        layers.chain([&self.embeddings]).chain(self.head.as_ref()).map(Matrix::bytes).sum()
    }

    /// Bytes that a stream takes when it has read so many tokens.
    pub fn stream_bytes(&self, tokens: usize) -> u64 {
        let heads = self.shape.layers * self.shape.key_heads;
        (tokens.div_ceil(PAGE) * page_bytes(heads, self.shape.elements)) as u64
    }

    /// Bytes that a step takes besides weights and streams.
    pub fn step_bytes(&self) -> u64 {
        let s = &self.shape;
        let heads = (s.heads + 2 * s.key_heads) * s.elements;
        // Products are padded to whole groups of rows.
        let row = s.vocabulary + heads * 2 + s.hidden * 3 + s.width * 4 + 256;
        let together = QUERIES.max(s.heads / s.key_heads);
        (ROWS_MAX * row * size_of::<f32>() + together * s.context * 2 * size_of::<f32>()) as u64
    }

    /// Lets streams read tokens, each the next of its stream; rows of one stream had best stand together. The logits of what comes
    /// after each are then in `work`. The caller sees to it that no stream reads more than `context` tokens, that there are
    /// at most `ROWS_MAX` rows, and that tokens are of the vocabulary.
    pub fn step<'n>(&'n self, path: Path, rows: &[Row], streams: &mut Streams, work: &mut Work<'n>) {
        let embed = |n: usize, state: &mut [f32]| {
            let token = rows.get(n).map_or(0, |row: &Row| row.token);
            self.embed(token, state);
        };
        self.advance(path, rows.iter().map(|row| row.stream), embed, streams, work);
        self.conclude(path, work);
    }

    /// What a token is read as.
    pub fn embed(&self, token: u32, state: &mut [f32]) {
        self.embeddings.row(token as usize, state);
        if let Some(factor) = self.shape.extras.embedding_factor {
            state.iter_mut().for_each(|x| *x *= factor);
        }
    }

    /// Makes logits of the states of the last `advance`.
    pub fn conclude<'n>(&'n self, path: Path, work: &mut Work<'n>) {
        fill(path, &work.normed, self.shape.width, self.shape.grain(GRAIN_HEAD), &mut work.factors);
        multiplied(
            path,
            self.head.as_ref().unwrap_or(&self.embeddings),
            &work.factors,
            &mut work.mate,
            &mut work.logits,
        );
    }

    /// As `step`, up to the states that logits are made of, for rows of the streams that are given; `enter` puts down what each
    /// is, by its number.
    pub fn advance<'n>(
        &'n self,
        path: Path,
        rows: impl ExactSizeIterator<Item = usize>,
        mut enter: impl FnMut(usize, &mut [f32]),
        streams: &mut Streams,
        work: &mut Work<'n>,
    ) {
        let (shape, count) = (&self.shape, rows.len());
        assert!(count <= ROWS_MAX, "{count} rows");
        work.runs.clear();
        for (n, stream) in rows.enumerate() {
            match work.runs.last_mut() {
                Some(run) if run.stream == stream => run.rows += 1,
                _ => work.runs.push(Run { stream, first: n, rows: 1, position: streams.len(stream) }),
            }
            streams.push(stream);
            assert!(streams.len(stream) <= shape.context, "a stream reads beyond its context");
        }
        work.state.resize(count * shape.width, 0.0);
        for (n, state) in work.state.chunks_exact_mut(shape.width).enumerate() {
            enter(n, state);
        }
        if !self.positions.is_empty() {
            for run in &work.runs {
                let rows = work.state[run.first * shape.width..].chunks_exact_mut(shape.width).take(run.rows);
                for (state, position) in rows.zip(self.positions.chunks_exact(shape.width).skip(run.position)) {
                    state.iter_mut().zip(position).for_each(|(x, y)| *x += *y);
                }
            }
        }
        let (mixed, hidden) = (count * shape.heads * shape.elements, count * shape.hidden);
        work.mixed.resize(mixed, 0.0);
        work.hidden.resize(hidden, 0.0);
        for (n, layer) in self.layers.iter().enumerate() {
            normalised(path, &work.state, &layer.attention_norm, shape.epsilon, &mut work.normed);
            fill(path, &work.normed, shape.width, shape.grain(GRAIN_QUERIES), &mut work.factors);
            multiplied(path, &layer.queries, &work.factors, &mut work.mate, &mut work.queries);
            let stride = layer.queries.stride();
            place(path, self, n, &work.runs, &mut work.queries, stride, streams);
            attend(path, self, n, &work.runs, &work.queries, stride, streams, &mut work.attention, &mut work.mixed);
            fill(path, &work.mixed, shape.heads * shape.elements, shape.grain(GRAIN_OUTPUT), &mut work.factors);
            multiplied(path, &layer.output, &work.factors, &mut work.mate, &mut work.product);
            let (of_output, of_down) = match &layer.post_norms {
                Some([of_output, of_down]) => (Some(of_output.as_slice()), Some(of_down.as_slice())),
                None => (None, None),
            };
            let [output_biases, gate_biases, down_biases] = &layer.other_biases;
            let stride = layer.output.stride();
            add(path, &mut work.product, stride, shape, output_biases, of_output, &mut work.state);
            normalised(path, &work.state, &layer.feed_norm, shape.epsilon, &mut work.normed);
            fill(path, &work.normed, shape.width, shape.grain(GRAIN_GATES), &mut work.factors);
            multiplied(path, &layer.gates, &work.factors, &mut work.mate, &mut work.gates);
            if shape.extras.ungated {
                activate(path, &work.gates, layer.gates.stride(), shape, gate_biases, &mut work.hidden);
            } else {
                open_gates(path, &work.gates, layer.gates.stride(), shape, &mut work.hidden);
            }
            fill(path, &work.hidden, shape.hidden, shape.grain(GRAIN_DOWN), &mut work.factors);
            multiplied(path, &layer.down, &work.factors, &mut work.mate, &mut work.product);
            let stride = layer.down.stride();
            add(path, &mut work.product, stride, shape, down_biases, of_down, &mut work.state);
        }
        normalised(path, &work.state, &self.norm, shape.epsilon, &mut work.normed);
    }
}

/// Products of all rows of a matrix with all factors, `stride` apart.
fn multiplied<'n>(path: Path, matrix: &'n Matrix, factors: &Factors, mate: &mut Option<Mate<'n>>, out: &mut Vec<f32>) {
    match mate {
        Some(mate) if factors.rows() == 1 => mate.multiply(path, matrix, factors, out),
        _ => multiply(path, matrix, factors, 0..matrix.groups_count(), out),
    }
}

#[inline(always)]
fn normalised_body(_d: impl Dot, rows: &[f32], norm: &Norm, epsilon: f32, out: &mut Vec<f32>) {
    let Norm { weights, biases } = norm;
    out.resize(rows.len(), 0.0);
    for (row, out) in rows.chunks_exact(weights.len()).zip(out.chunks_exact_mut(weights.len())) {
        match biases {
            None => exact::normalise(row, weights, epsilon, out),
            Some(biases) => exact::centre(row, weights, biases, epsilon, out),
        }
    }
}

by_path! {
    /// Divides each row by the root of its mean square, and weighs it; one that has biases is centred before.
    fn normalised(rows: &[f32], norm: &Norm, epsilon: f32, out: &mut Vec<f32>) = normalised_body;
}

#[inline(always)]
fn add_body(
    _d: impl Dot,
    product: &mut [f32],
    stride: usize,
    shape: &Shape,
    biases: &[f32],
    norm: Option<&[f32]>,
    state: &mut [f32],
) {
    for (state, product) in state.chunks_exact_mut(shape.width).zip(product.chunks_exact_mut(stride)) {
        let product = &mut product[..shape.width];
        product.iter_mut().zip(biases).for_each(|(x, bias)| *x += *bias);
        if let Some(weights) = norm {
            exact::normalise_in_place(product, weights, shape.epsilon);
        }
        for (x, y) in state.iter_mut().zip(product) {
            *x += *y;
        }
    }
}

by_path! {
    /// Adds products to the state of each row, with what is added to them, and normalised if so said.
    fn add(
        product: &mut [f32],
        stride: usize,
        shape: &Shape,
        biases: &[f32],
        norm: Option<&[f32]>,
        state: &mut [f32],
    ) = add_body;
}

#[inline(always)]
fn open_gates_body(_d: impl Dot, gates: &[f32], stride: usize, shape: &Shape, out: &mut [f32]) {
    for (out, row) in out.chunks_exact_mut(shape.hidden).zip(gates.chunks_exact(stride)) {
        let (gates, ups) = row.split_at(shape.hidden);
        let all = out.iter_mut().zip(gates).zip(ups);
        match shape.extras.activation {
            Activation::Silu => all.for_each(|((out, gate), up)| *out = exact::silu(*gate) * *up),
            Activation::Gelu => all.for_each(|((out, gate), up)| *out = exact::gelu(*gate) * *up),
            Activation::QuickGelu => all.for_each(|((out, gate), up)| *out = exact::quick_gelu(*gate) * *up),
        }
    }
}

by_path! {
    /// What gates let through.
    fn open_gates(gates: &[f32], stride: usize, shape: &Shape, out: &mut [f32]) = open_gates_body;
}

#[inline(always)]
fn activate_body(_d: impl Dot, rows: &[f32], stride: usize, shape: &Shape, biases: &[f32], out: &mut [f32]) {
    for (out, row) in out.chunks_exact_mut(shape.hidden).zip(rows.chunks_exact(stride)) {
        out.copy_from_slice(&row[..shape.hidden]);
        out.iter_mut().zip(biases).for_each(|(x, bias)| *x += *bias);
        match shape.extras.activation {
            Activation::Silu => out.iter_mut().for_each(|x| *x = exact::silu(*x)),
            Activation::Gelu => out.iter_mut().for_each(|x| *x = exact::gelu(*x)),
            Activation::QuickGelu => out.iter_mut().for_each(|x| *x = exact::quick_gelu(*x)),
        }
    }
}

by_path! {
    /// What is hidden where there are no gates.
    fn activate(rows: &[f32], stride: usize, shape: &Shape, biases: &[f32], out: &mut [f32]) = activate_body;
}

/// Turns pairs of elements, each of one half, by the angles of a position.
#[inline(always)]
fn rotate(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = head.split_at_mut(head.len() / 2);
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * *cosine - *b * *sine, *b * *cosine + *a * *sine);
    }
}

#[inline(always)]
fn place_body(
    _d: impl Dot,
    network: &Network,
    layer: usize,
    runs: &[Run],
    queries: &mut [f32],
    stride: usize,
    streams: &mut Streams,
) {
    let Shape { heads, key_heads, elements, epsilon, .. } = network.shape;
    let Layer { biases, head_norms, .. } = &network.layers[layer];
    let rotary = if network.shape.window(layer).is_some() { &network.near_rotary } else { &network.rotary };
    let mut bytes = vec![0i8; elements];
    for run in runs {
        let rows = queries[run.first * stride..].chunks_exact_mut(stride).take(run.rows);
        for (row, position) in rows.zip(run.position..) {
            for (x, bias) in row.iter_mut().zip(biases) {
                *x += *bias;
            }
            let (turned, values) = row.split_at_mut((heads + key_heads) * elements);
            if let Some([of_queries, of_keys]) = head_norms {
                for (head, n) in turned.chunks_exact_mut(elements).zip(0..) {
                    exact::normalise_in_place(head, if n < heads { of_queries } else { of_keys }, epsilon);
                }
            }
            if !rotary.is_empty() {
                let (cosines, sines) = rotary[position * elements..][..elements].split_at(elements / 2);
                turned.chunks_exact_mut(elements).for_each(|head| rotate(head, cosines, sines));
            }
            let keys = turned[heads * elements..].chunks_exact(elements);
            for ((key, value), head) in keys.zip(values.chunks_exact(elements)).zip(0..key_heads) {
                streams.put(run.stream, layer, head, position, key, value, &mut bytes);
            }
        }
    }
}

by_path! {
    /// Turns queries and keys by their positions, where these turn, after what the layer adds to them and their norms, and puts
    /// keys and values into the streams.
    fn place(
        network: &Network,
        layer: usize,
        runs: &[Run],
        queries: &mut [f32],
        stride: usize,
        streams: &mut Streams,
    ) = place_body;
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn attend_body(
    d: impl Dot,
    network: &Network,
    layer: usize,
    runs: &[Run],
    queries: &[f32],
    stride: usize,
    streams: &Streams,
    work: &mut Attention,
    mixed: &mut [f32],
) {
    let Shape { heads, key_heads, elements, .. } = network.shape;
    let each = heads / key_heads;
    let together = (QUERIES / each).max(1);
    let root = network.shape.root();
    let window = network.shape.window(layer).unwrap_or(usize::MAX);
    for (n, run) in runs.iter().enumerate() {
        let after = runs.get(n + 1).unwrap_or(run);
        for part in (0..run.rows).step_by(together) {
            let rows = (run.rows - part).min(together);
            let count = rows * each;
            let group = group_of(count, elements);
            for from in (0..key_heads).step_by(group) {
                let heads_now = group.min(key_heads - from);
                let page = |head: usize, n: usize| streams.page(run.stream, layer, from + head, n);
                // Looked at next.
                let is_last = from + group >= key_heads;
                let (stream, beyond) = if is_last { (after.stream, 0) } else { (run.stream, from + group) };
                let last = streams.pages(stream) - 1;
                let next = |head: usize, n: usize| {
                    streams.page(stream, layer, (beyond + head).min(key_heads - 1), n.min(last))
                };
                let first = run.first + part;
                let of_head = |n: usize| {
                    let (row, of_key) = (first + n % count / each, (from + n / count) * each + n % each);
                    (row * stride + of_key * elements, row * heads * elements + of_key * elements)
                };
                let query = |n: usize| &queries[of_head(n).0..][..elements];
                attend_heads(d, query, heads_now, count, each, run.position + part, window, page, next, root, work);
                let shares = work.share_scales.iter().zip(work.share_sums.as_chunks::<2>().0);
                let parts = elements / VALUE_PART;
                for (n, (scale, sums)) in shares.enumerate() {
                    let out = &mut mixed[of_head(n).1..][..elements];
                    let (high, low) = work.sums[n * 2 * parts..][..2 * parts].split_at(parts);
                    let both = high.as_flattened().iter().zip(low.as_flattened());
                    for (out, (high, low)) in out.as_chunks_mut::<16>().0.iter_mut().zip(both) {
                        let values = joined(high, low, *sums);
                        *out = std::array::from_fn(|lane| values[lane] * *scale);
                    }
                }
            }
        }
    }
}

/// Heads of keys that are looked at together, where so many queries look at each: as many as `QUERIES` and `GROUP_BYTES` allow.
fn group_of(queries: usize, elements: usize) -> usize {
    (QUERIES / queries).min(GROUP_BYTES / (2 * PAGE * elements)).max(1)
}

/// Fetches lines from memory: the part `n` of `count` of them.
#[inline(always)]
fn fetch(d: impl Dot, lines: &[Line], n: usize, count: usize) {
    d.fetch(&lines[lines.len() * n / count..lines.len() * (n + 1) / count]);
}

/// Fetches scales of a page from memory.
#[inline(always)]
fn fetch_scales(page: &Page<'_>) {
    for at in (0..PAGE).step_by(16) {
        prefetch_index(page.key_scales, at);
        prefetch_index(page.value_scales, at);
    }
}

/// What `count` queries of each of some heads, `each` of one position, find in the last `window` tokens: in `work`, head after
/// head, sums that are still to be scaled.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn attend_heads<'a>(
    d: impl Dot,
    query: impl Fn(usize) -> &'a [f32],
    heads: usize,
    count: usize,
    each: usize,
    position: usize,
    window: usize,
    page: impl Fn(usize, usize) -> Page<'a>,
    next: impl Fn(usize, usize) -> Page<'a>,
    root: f32,
    work: &mut Attention,
) {
    let elements = query(0).len();
    let steps = elements / 4;
    let all = heads * count;
    // Pages that even the first position does not see are left out, which changes no bit: they are zeros in every sum. Then as
    // many tokens as the last position sees, and some more to a whole register: those are computed and not looked at.
    let first_page = (position + 1).saturating_sub(window) / PAGE;
    let tokens = (position + count / each).next_multiple_of(16) - first_page * PAGE;
    let page = |head: usize, n: usize| page(head, first_page + n);
    let next = |head: usize, n: usize| next(head, first_page + n);
    work.query.resize(all * 2 * steps, 0);
    work.query_sums.resize(all * 2, 0);
    work.query_scales.resize(all, 0.0);
    let bytes: &mut [i8] = bytemuck::cast_slice_mut(&mut work.query);
    let targets = bytes.chunks_exact_mut(2 * elements).zip(work.query_sums.chunks_exact_mut(2));
    for ((n, scale), (bytes, sums)) in work.query_scales.iter_mut().enumerate().zip(targets) {
        *scale = cut(query(n), Grain::Fine, bytes, sums) * root;
    }
    work.scores.resize(all * tokens, 0.0);
    // Page after page, of all heads: they lie side by side there, and a page elsewhere costs a processor that has to look up
    // where it is as much as reading some kilobytes of it.
    for (base, head) in (0..tokens).step_by(PAGE).flat_map(|base| (0..heads).map(move |head| (base, head))) {
        let page = page(head, base / PAGE);
        let tiles = (tokens - base).min(PAGE) / 16;
        in_parts!(count * 2, |first, M| {
            let first = head * count * 2 + first;
            let right: [&[i32]; M] = std::array::from_fn(|m| &work.query[(first + m) * steps..][..steps]);
            for tile in 0..tiles {
                let mut sums = [[Sums::ZERO; 1]; M];
                // Half of the values of the page, of each second tile; the others come later.
                let values = if tile % 2 == 0 { &page.values[tile / 2 * steps..] } else { &[] };
                d.dot(
                    page.keys[tile * steps..][..steps].as_chunks::<1>().0,
                    right,
                    &mut sums,
                    values.as_chunks::<1>().0,
                );
                let scales = &page.key_scales.as_chunks::<16>().0[tile];
                for (n, [high, low]) in sums.as_chunks::<2>().0.iter().enumerate() {
                    let row = first / 2 + n;
                    let (of_row, scale) = (work.query_sums.as_chunks().0[row], work.query_scales[row]);
                    let scores = &mut work.scores[row * tokens..][..tokens].as_chunks_mut::<16>().0[base / 16 + tile];
                    let values = joined(&high[0], &low[0], of_row);
                    *scores = std::array::from_fn(|lane| (values[lane] * scale) * scales[lane]);
                }
            }
        });
    }
    let share_steps = tokens / 4;
    work.shares.resize(all * 2 * share_steps, 0);
    work.share_sums.resize(all * 2, 0);
    work.share_scales.resize(all, 0.0);
    let bytes: &mut [i8] = bytemuck::cast_slice_mut(&mut work.shares);
    let targets = bytes.chunks_exact_mut(2 * tokens).zip(work.share_sums.chunks_exact_mut(2));
    for ((n, scale), (bytes, sums)) in work.share_scales.iter_mut().enumerate().zip(targets) {
        let scores = &mut work.scores[n * tokens..][..tokens];
        let seen = position + n % count / each + 1;
        let far = seen.saturating_sub(window).saturating_sub(first_page * PAGE);
        let seen = seen - first_page * PAGE;
        let peak = greatest(&scores[far..seen], f32::MIN, |x| x);
        for (scores, at) in scores.chunks_mut(PAGE).zip(0..) {
            fetch(d, page(n / count, at).values, n % count + count, 2 * count);
            scores.iter_mut().for_each(|x| *x = exact::exp(*x - peak));
        }
        scores[..far].fill(0.0);
        scores[seen..].fill(0.0);
        let total = exact::sum(scores, |x| x);
        for (scores, at) in scores.chunks_mut(PAGE).zip(0..) {
            fetch(d, next(n / count, at).keys, n % count, 2 * count);
            scores.iter_mut().zip(page(n / count, at).value_scales).for_each(|(x, scale)| *x *= *scale);
        }
        *scale = cut(scores, Grain::Fine, bytes, sums) / total;
    }
    let parts = elements / VALUE_PART;
    work.sums.clear();
    work.sums.resize(all * 2 * parts, [Sums::ZERO; 2]);
    for (base, head) in (0..tokens).step_by(PAGE).flat_map(|base| (0..heads).map(move |head| (base, head))) {
        let (page, next) = (page(head, base / PAGE), next(head, base / PAGE));
        let steps = (tokens - base).min(PAGE) / 4;
        fetch_scales(&next);
        for part in 0..parts {
            let next = next.keys[next.keys.len() / 2 + part * (PAGE / 4)..].as_chunks::<1>().0;
            let left = &page.values.as_chunks::<2>().0[part * (PAGE / 4)..][..steps];
            in_parts!(count * 2, |first, M| {
                let first = head * count * 2 + first;
                let right: [&[i32]; M] =
                    std::array::from_fn(|m| &work.shares[(first + m) * share_steps + base / 4..][..steps]);
                let mut sums: [[Sums; 2]; M] = std::array::from_fn(|m| work.sums[(first + m) * parts + part]);
                d.dot(left, right, &mut sums, next);
                for (m, sums) in sums.iter().enumerate() {
                    work.sums[(first + m) * parts + part] = *sums;
                }
            });
        }
    }
}

by_path! {
    /// What every row finds in what its stream has read up to it.
    fn attend(
        network: &Network,
        layer: usize,
        runs: &[Run],
        queries: &[f32],
        stride: usize,
        streams: &Streams,
        work: &mut Attention,
        mixed: &mut [f32],
    ) = attend_body;
}
