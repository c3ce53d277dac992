//! Weights by least squares over what came so far, what is long ago forgotten. Errors count by a weight of their own, so that
//! loud parts do not decide what is right for quiet ones.
//!
//! Sums, products and quotients of f64 in one written order: IEEE 754 says every bit of them, and compilers neither join nor
//! reorder them.

use archmage::autoversion;

use super::within;

/// What a pivot is at least; below it the weights stay what they were.
const PIVOT_MIN: f64 = 1e-9;
/// A mean below this is none. Otherwise the means of a silence shrink to numbers so small that processors take a hundred times as
/// long for each, and stay there.
const MEAN_MIN: f64 = 1e-150;
/// No weight is larger, either way: it would be a runaway.
const WEIGHT_MAX: f64 = 1e6;

/// A mean, or nothing.
#[inline(always)]
fn held(mean: f64) -> f64 {
    if mean.abs() < MEAN_MIN { 0.0 } else { mean }
}

/// Predicts a value from `N` others.
pub struct Least<const N: usize> {
    /// Means of products, of which the upper half is kept.
    means: Box<[[f64; N]; N]>,
    with: [f64; N],
    weights: [f64; N],
    solved: Box<[[f64; N]; N]>,
    /// What the value is predicted from, and is then to be learned with.
    pub inputs: [f64; N],
    keep: f64,
    ridge: f64,
    every: u32,
    since: u32,
}

impl<const N: usize> Least<N> {
    /// Bytes of it, but for what is as long as a row.
    pub const BYTES: u64 = (2 * N * N * size_of::<f64>()) as u64;

    /// `keep` is what a step leaves of the means before it; `ridge` is added to the means of squares; weights are found anew
    /// every so many steps.
    pub fn new(keep: f64, ridge: f64, every: u32) -> Least<N> {
        const { assert!(N.is_multiple_of(4)) };
        Least {
            means: Box::new([[0.0; N]; N]),
            with: [0.0; N],
            weights: [0.0; N],
            solved: Box::new([[0.0; N]; N]),
            inputs: [0.0; N],
            keep,
            ridge,
            every,
            since: 0,
        }
    }

    /// What the inputs lead to expect.
    #[inline(always)]
    pub fn predict(&self) -> f64 {
        let mut sums = [0.0f64; 4];
        for (weights, inputs) in self.weights.chunks_exact(4).zip(self.inputs.chunks_exact(4)) {
            for lane in 0..4 {
                sums[lane] += weights[lane] * inputs[lane];
            }
        }
        (sums[0] + sums[2]) + (sums[1] + sums[3])
    }

    /// Takes what came of the inputs, which counts by `weight`.
    #[inline(always)]
    pub fn observe(&mut self, came: f64, weight: f64) {
        let (keep, fresh) = (self.keep, (1.0 - self.keep) * weight);
        for i in 0..N {
            let scaled = self.inputs[i] * fresh;
            let row = &mut self.means[i];
            // From the last whole vector before the diagonal on.
            let from = i & !3;
            for (mean, input) in row[from..].iter_mut().zip(&self.inputs[from..]) {
                *mean = held(*mean * keep + scaled * input);
            }
            self.with[i] = held(self.with[i] * keep + scaled * came);
        }
        self.since += 1;
        if self.since >= self.every {
            self.since = 0;
            *self.solved = *self.means;
            if let Some(weights) = solve(&mut self.solved, &self.with, self.ridge) {
                self.weights = weights;
            }
        }
    }
}

/// Finds weights, if there are any: rows are taken from those below them until a triangle is left.
///
/// It is compiled for AVX2 too: the same operations in the same order, four at a time.
#[autoversion(v3, scalar)]
fn solve<const N: usize>(rows: &mut [[f64; N]; N], with: &[f64; N], ridge: f64) -> Option<[f64; N]> {
    let mut right = *with;
    for (k, row) in rows.iter_mut().enumerate() {
        row[k] += ridge;
    }
    for k in 0..N {
        let (above, below) = rows.split_at_mut(k + 1);
        let row = &above[k];
        let pivot = row[k];
        let holds = pivot > PIVOT_MIN;
        if !holds {
            return None;
        }
        let inverse = 1.0 / pivot;
        for (i, other) in (k + 1..N).zip(below.iter_mut()) {
            let part = row[i] * inverse;
            let from = i & !1;
            for (left, taken) in other[from..].iter_mut().zip(&row[from..]) {
                *left -= part * taken;
            }
            right[i] -= part * right[k];
        }
    }
    for k in (0..N).rev() {
        let mut sum = right[k];
        for j in k + 1..N {
            sum -= rows[k][j] * right[j];
        }
        right[k] = within(sum / rows[k][k], -WEIGHT_MAX, WEIGHT_MAX);
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_that_values_are_made_with() {
        let mut least: Least<8> = Least::new(0.99, 1e-6, 4);
        let mut x = 1u64;
        let made_with = [0.5, -1.25, 3.0, 0.0, 0.1, -0.7, 2.0, 1.0];
        for n in 0..400 {
            for input in &mut least.inputs {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *input = (x >> 40) as f64 / f64::from(1 << 20) - 8.0;
            }
            let came: f64 = least.inputs.iter().zip(made_with).map(|(x, w)| x * w).sum();
            assert!(n < 100 || (least.predict() - came).abs() < 1e-3, "{n}: {} for {came}", least.predict());
            least.observe(came, 1.0);
        }
    }

    /// After a second of silence nothing is left that is smaller than what processors are fast with.
    #[test]
    fn silence_leaves_no_tiny_numbers() {
        let mut least: Least<4> = Least::new(0.985, 1e-3, 8);
        for n in 0..60_000 {
            least.inputs = if n < 100 { [1.0, -2.0, f64::from(n), 0.5] } else { [0.0; 4] };
            least.observe(if n < 100 { 3.0 } else { 0.0 }, 1.0);
        }
        let all = least.means.iter().flatten().chain(&least.with).chain(&least.weights);
        assert!(all.into_iter().all(|x| *x == 0.0 || x.is_normal()));
        assert!(least.means.iter().flatten().all(|x| *x == 0.0));
    }

    #[test]
    fn what_is_always_the_same_or_huge_gives_numbers() {
        for scale in [0.0, 1.0, 1e7] {
            let mut least: Least<4> = Least::new(0.998, 1e-3, 1);
            for n in 0..300 {
                least.inputs = [scale, -scale, scale, if n % 97 == 0 { -scale } else { scale }];
                assert!(least.predict().is_finite());
                least.observe(-scale, if n % 2 == 0 { 4.0 } else { 1e-15 });
            }
        }
    }
}
