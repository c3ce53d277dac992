//! Weights by least squares over what lies around a pixel in its picture: left of it and above it, what is far away counting less.
//!
//! Products are summed for every few columns, and sums of rows above fade with each row; where a prediction is wanted, those of
//! the columns around it are put together. Sums over all that came so far are kept too, and count a little everywhere, so that
//! weights are sensible where little is known.
//!
//! Sums, products and quotients of f32 in one written order: IEEE 754 says every bit of them.

/// Columns whose products are summed together.
pub const COLUMNS: usize = 8;
/// Groups of columns that are put together: these to the left, that of the pixel, and these to the right.
const REACH: usize = 2;
/// What they count.
const NEAR: [f32; 2 * REACH + 1] = [0.6, 1.0, 1.0, 0.9, 0.5];
/// What a row leaves of the sums above it.
const FADE: f32 = 0.85;
/// What all that came counts beside, and what a group of columns leaves of that.
const ALL_PART: f32 = 0.002;
const ALL_KEEP: f32 = 0.99;
/// What is added to sums of squares.
const RIDGE: f32 = 0.05;
/// What a pivot is at least; below it the weights stay what they were.
const PIVOT_MIN: f32 = 1e-6;
/// No weight is larger, either way: it would be a runaway.
const WEIGHT_MAX: f32 = 64.0;
/// Sums below this are none: processors are slow with the smallest numbers.
const SUM_MIN: f32 = 1e-18;
/// Groups of columns between weights of all that came.
const ALL_EVERY: u32 = 8;
const LANES: usize = 4;

/// Sums of products of `N` inputs with each other, of which the upper half is kept, and with what came.
#[derive(Clone)]
struct Sums<const N: usize> {
    each: [[f32; N]; N],
    with: [f32; N],
}

#[inline(always)]
fn held(x: f32) -> f32 {
    if x.abs() < SUM_MIN { 0.0 } else { x }
}

impl<const N: usize> Sums<N> {
    const NONE: Sums<N> = Sums { each: [[0.0; N]; N], with: [0.0; N] };

    /// What is left of these, and others that count by `weight`.
    #[inline(always)]
    fn take_in(&mut self, keep: f32, others: &Sums<N>, weight: f32) {
        for (i, (row, other)) in self.each.iter_mut().zip(&others.each).enumerate() {
            let from = i & !(LANES - 1);
            for (sum, other) in row[from..].iter_mut().zip(&other[from..]) {
                *sum = held(*sum * keep + *other * weight);
            }
        }
        for (sum, other) in self.with.iter_mut().zip(&others.with) {
            *sum = held(*sum * keep + *other * weight);
        }
    }

    #[inline(always)]
    fn add(&mut self, others: &Sums<N>, weight: f32) {
        for (i, (row, other)) in self.each.iter_mut().zip(&others.each).enumerate() {
            let from = i & !(LANES - 1);
            for (sum, other) in row[from..].iter_mut().zip(&other[from..]) {
                *sum += *other * weight;
            }
        }
        for (sum, other) in self.with.iter_mut().zip(&others.with) {
            *sum += *other * weight;
        }
    }

    /// The weights of the first `n` inputs; none where they are not told.
    #[inline(always)]
    fn solved(&self, n: usize, rows: &mut [[f32; N]; N]) -> Option<[f32; N]> {
        let mut right = self.with;
        for (k, (row, sums)) in rows.iter_mut().zip(&self.each).enumerate().take(n) {
            *row = *sums;
            row[k] += RIDGE + row[k] * 1e-5;
        }
        let mut inverses = [0.0; N];
        for k in 0..n {
            let (above, below) = rows.split_at_mut(k + 1);
            let row = &above[k];
            let pivot = row[k];
            let holds = pivot > PIVOT_MIN;
            if !holds {
                return None;
            }
            let inverse = 1.0 / pivot;
            inverses[k] = inverse;
            for (i, other) in (k + 1..n).zip(below.iter_mut()) {
                let part = row[i] * inverse;
                let from = i & !(LANES - 1);
                for (left, taken) in other[from..].iter_mut().zip(&row[from..]) {
                    *left -= part * *taken;
                }
                right[i] -= part * right[k];
            }
        }
        for k in (0..n).rev() {
            let mut sum = right[k];
            for j in k + 1..n {
                sum -= rows[k][j] * right[j];
            }
            let weight = sum * inverses[k];
            right[k] =
                if weight > -WEIGHT_MAX { if weight < WEIGHT_MAX { weight } else { WEIGHT_MAX } } else { -WEIGHT_MAX };
        }
        right[n..].fill(0.0);
        Some(right)
    }
}

/// Predictions by three sets of weights: of all inputs around the pixel, of the first `FEW`, and of all over all that came.
pub struct Around<const N: usize, const FEW: usize> {
    here: Box<Sums<N>>,
    together: Box<Sums<N>>,
    all: Box<Sums<N>>,
    columns: Vec<Sums<N>>,
    rows: Box<[[f32; N]; N]>,
    weights: [[f32; N]; 3],
    turn: u32,
}

impl<const N: usize, const FEW: usize> Around<N, FEW> {
    /// Bytes for a picture of so many columns.
    pub const fn bytes(width: usize) -> u64 {
        ((width.div_ceil(COLUMNS) + 5) * size_of::<Sums<N>>()) as u64
    }

    /// `first`: weights that are used until anything is known.
    pub fn new(width: usize, first: [f32; N]) -> Self {
        const { assert!(N.is_multiple_of(LANES) && FEW <= N) };
        Around {
            here: Box::new(Sums::NONE),
            together: Box::new(Sums::NONE),
            all: Box::new(Sums::NONE),
            columns: vec![Sums::NONE; width.div_ceil(COLUMNS)],
            rows: Box::new([[0.0; N]; N]),
            weights: [first; 3],
            turn: 0,
        }
    }

    /// What the inputs lead to expect.
    #[inline(always)]
    pub fn predict(&self, inputs: &[f32; N]) -> [f32; 3] {
        let mut out = [0.0; 3];
        for (out, weights) in out.iter_mut().zip(&self.weights) {
            let mut sums = [0.0f32; LANES];
            for (weights, inputs) in weights.chunks_exact(LANES).zip(inputs.chunks_exact(LANES)) {
                for lane in 0..LANES {
                    sums[lane] += weights[lane] * inputs[lane];
                }
            }
            *out = (sums[0] + sums[2]) + (sums[1] + sums[3]);
        }
        out
    }

    /// Takes what came of the inputs in a column, which counts by `weight`.
    #[inline(always)]
    pub fn observe(&mut self, inputs: &[f32; N], came: f32, weight: f32) {
        let here = &mut *self.here;
        for i in 0..N {
            let scaled = inputs[i] * weight;
            let from = i & !(LANES - 1);
            for (sum, input) in here.each[i][from..].iter_mut().zip(&inputs[from..]) {
                *sum += scaled * *input;
            }
            here.with[i] += scaled * came;
        }
    }

    /// Closes a group of columns.
    pub fn close(&mut self, column: usize) {
        let Some(sums) = self.columns.get_mut(column / COLUMNS) else { return };
        sums.take_in(FADE, &self.here, 1.0);
        self.all.take_in(ALL_KEEP, &self.here, 1.0);
        *self.here = Sums::NONE;
    }

    /// Finds the weights for the group of columns that begins.
    #[inline(never)]
    pub fn find(&mut self, column: usize) {
        let at = column / COLUMNS;
        *self.together = Sums::NONE;
        self.together.add(&self.all, ALL_PART);
        for (n, weight) in NEAR.into_iter().enumerate() {
            if let Some(sums) = (at + n).checked_sub(REACH).and_then(|at| self.columns.get(at)) {
                self.together.add(sums, weight);
            }
        }
        if let Some(weights) = self.together.solved(N, &mut self.rows) {
            self.weights[0] = weights;
        }
        if let Some(weights) = self.together.solved(FEW, &mut self.rows) {
            self.weights[1] = weights;
        }
        if self.turn.is_multiple_of(ALL_EVERY)
            && let Some(weights) = self.all.solved(N, &mut self.rows)
        {
            self.weights[2] = weights;
        }
        self.turn = self.turn.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(x: &mut u64) -> f32 {
        *x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*x >> 40) as f32 / (1 << 22) as f32 - 2.0
    }

    /// Two halves of a picture follow different rules: weights are those of the half that a pixel is in.
    #[test]
    fn weights_are_those_of_what_is_near() {
        let (width, mut x) = (128usize, 1);
        let mut around: Around<8, 4> = Around::new(width, [0.0; 8]);
        let rules = [[0.5, -1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.5, 0.0, 0.0, -0.5, 0.0, 1.0]];
        let mut missed = [0.0f32; 2];
        for row in 0..40 {
            for column in 0usize..width {
                if column.is_multiple_of(COLUMNS) {
                    around.find(column);
                }
                let half = column * 2 / width;
                let inputs: [f32; 8] = std::array::from_fn(|_| any(&mut x));
                let came: f32 = inputs.iter().zip(&rules[half]).map(|(x, w)| x * w).sum();
                let [near, ..] = around.predict(&inputs);
                let inside = column % (width / 2) > 3 * COLUMNS && column % (width / 2) < width / 2 - 3 * COLUMNS;
                if row > 30 && inside {
                    missed[half] = missed[half].max((near - came).abs());
                }
                around.observe(&inputs, came, 1.0);
                if column % COLUMNS == COLUMNS - 1 {
                    around.close(column);
                }
            }
        }
        assert!(missed.iter().all(|missed| *missed < 0.1), "{missed:?}");
    }

    /// Of nothing, of what is always the same, and of what is huge no weight is beyond its bounds.
    #[test]
    fn weights_are_always_numbers() {
        for scale in [0.0, 1.0, 1e12] {
            let mut around: Around<8, 4> = Around::new(20, [0.5; 8]);
            for n in 0..400usize {
                let column = n % 20;
                if column.is_multiple_of(COLUMNS) {
                    around.find(column);
                }
                let inputs = [scale; 8];
                assert!(around.predict(&inputs).iter().all(|x| x.is_finite()), "{scale}");
                around.observe(&inputs, -scale, 1.0);
                if column % COLUMNS == COLUMNS - 1 || column == 19 {
                    around.close(column);
                }
            }
            assert!(around.weights.iter().flatten().all(|w| (-WEIGHT_MAX..=WEIGHT_MAX).contains(w)));
        }
    }
}
