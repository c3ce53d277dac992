//! How far predictions of values were off: what each of them is worth by that, how far the best of them will be off, and to which
//! side. What pictures and frames of video have in common.

use crate::entropy::boxed;
use crate::models::values::GUESSES;

/// Sizes of errors around, quarters of octaves, that are told apart.
pub const ENERGIES: usize = 48;
/// Predictions of which sizes of errors are known one by one.
pub const SINGLE: usize = 4;
/// What is added to squares of errors where predictions are weighed.
const ERROR_FLOOR: f32 = 1.0;
/// Contexts of means of errors.
const MEANS: usize = 1024;
/// What came counts by one part of so many at least, in sizes of errors, in their signed means, in sizes for one prediction.
const SIZES_RATE: f32 = 1.0 / 256.0;
const BIAS_RATE: f32 = 1.0 / 128.0;
const OWN_RATE: f32 = 0.02;
/// Errors of a context after which its mean counts half, and what all means count.
const BIAS_AFTER: f32 = 8.0;
const BIAS_PART: f32 = 0.2;
/// Errors that a guess of their size counts for.
const GUESS_COUNTS: f32 = 3.0;

#[inline(always)]
pub fn size(x: f32) -> f32 {
    if x < 0.0 { -x } else { x }
}

/// The mean of predictions, each weighed by how far it was off in the row above and to the left; errors count in units of
/// `1 / unit`. `column` has two columns to its left, and one to its right.
#[inline(always)]
pub fn blend<const P: usize>(
    predictions: &[f32; P],
    unit: f32,
    column: usize,
    (above, here): (&[[f32; P]], &[[f32; P]]),
) -> f32 {
    let (mut sum, mut total) = (0.0f32, 0.0f32);
    for i in 0..P {
        let near = above[column][i] + here[column - 1][i];
        let off = near + (above[column + 1][i] + above[column - 1][i] + here[column - 2][i]) * 0.5;
        let square = off * off * (unit * unit) + ERROR_FLOOR;
        let weight = 1.0 / (square * square);
        sum += weight * predictions[i];
        total += weight;
    }
    sum / total
}

/// What the best prediction missed around a pixel, which `missed` tells of so many columns to the right and rows down.
#[derive(Clone, Copy, Debug)]
pub struct Missed {
    pub left: f32,
    pub above: f32,
    /// How far it was off over six places, the nearest of which count most.
    pub energy: f32,
}

impl Missed {
    // Place by place: a closure that is mapped over an array is a call for each, some percent of all time.
    #[inline(always)]
    pub fn around(missed: impl Fn(isize, isize) -> f32) -> Missed {
        let (left, above) = (missed(-1, 0), missed(0, -1));
        let (corners, far) = ((missed(-1, -1), missed(1, -1)), (missed(-2, 0), missed(0, -2)));
        let near = size(left) * 2.0 + size(above) * 2.0 + size(corners.0) + size(corners.1);
        Missed { left, above, energy: (near + size(far.0) * 0.5 + size(far.1) * 0.5) / 7.0 }
    }
}

/// Twice the mean of how far it was off beside, above and below a pixel whose plane or frame is known already.
#[inline(always)]
pub fn beside(missed: impl Fn(isize, isize) -> f32) -> f32 {
    (size(missed(1, 0)) + size(missed(0, 1)) + size(missed(-1, 0)) + size(missed(0, -1))) * 0.5
}

/// Means in contexts, the first of each all alike, the later ones by a rate.
struct Means([Box<[(f32, f32); MEANS]>; 3]);

impl Means {
    fn new() -> Means {
        Means(std::array::from_fn(|_| boxed((0.0, 0.0))))
    }

    #[inline(always)]
    fn take(&mut self, contexts: [usize; 3], came: f32, rate: f32) {
        for (means, context) in self.0.iter_mut().zip(contexts) {
            let (mean, n) = &mut means[context & (MEANS - 1)];
            let share = 1.0 / (*n + 1.0);
            *mean += (came - *mean) * if share > rate { share } else { rate };
            *n = if *n < 255.0 { *n + 1.0 } else { *n };
        }
    }

    /// The mean of a context, where a guess counts as so many that came.
    #[inline(always)]
    fn get(&self, which: usize, context: usize, guess: f32, counts: f32) -> f32 {
        let (mean, n) = self.0[which][context & (MEANS - 1)];
        (mean * n + guess * counts) / (n + counts)
    }
}

/// What the errors of a plane were in contexts.
pub struct Errors {
    sizes: Means,
    bias: Means,
    single: [[f32; ENERGIES]; SINGLE],
}

/// How far predictions of a value will be off.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The best of them, by all that is known.
    pub mean: f32,
    /// The best by each context.
    pub by_context: [f32; 3],
    /// Single predictions.
    pub single: [f32; SINGLE],
}

impl Expected {
    /// In the order of guesses: the best by all contexts and by each, and single predictions.
    #[inline(always)]
    pub fn all(&self) -> [f32; GUESSES] {
        let ([first, second, third], [a, b, c, d]) = (self.by_context, self.single);
        [self.mean, first, second, third, a, b, c, d]
    }
}

impl Errors {
    pub fn new() -> Errors {
        Errors { sizes: Means::new(), bias: Means::new(), single: [[0.0; ENERGIES]; SINGLE] }
    }

    /// What is to be added to a blend of predictions in contexts.
    #[inline(always)]
    pub fn shift(&self, contexts: [usize; 3]) -> f32 {
        let mut shift = 0.0;
        for (which, context) in contexts.into_iter().enumerate() {
            shift += self.bias.get(which, context, 0.0, BIAS_AFTER);
        }
        shift * BIAS_PART
    }

    /// How far off in contexts, where errors around are `around`, in quarters of octaves `energy`.
    #[inline(always)]
    pub fn expected(&self, contexts: [usize; 3], around: f32, energy: usize) -> Expected {
        let first = self.sizes.get(0, contexts[0], around * 0.8 + 0.3, GUESS_COUNTS);
        let second = self.sizes.get(1, contexts[1], first, GUESS_COUNTS);
        let third = self.sizes.get(2, contexts[2], first, GUESS_COUNTS);
        let mean = (first * 2.0 + second + third) * 0.25;
        let single = std::array::from_fn(|i| {
            let size = self.single[i][energy];
            if size > 0.0 { size } else { mean }
        });
        Expected { mean, by_context: [first, second, third], single }
    }

    /// Takes in what the best prediction missed, by the contexts of `expected`.
    #[inline(always)]
    pub fn take_size(&mut self, contexts: [usize; 3], missed: f32) {
        self.sizes.take(contexts, size(missed), SIZES_RATE);
    }

    /// Takes in what a blend missed, by the contexts of `shift`.
    #[inline(always)]
    pub fn take_shift(&mut self, contexts: [usize; 3], missed: f32) {
        self.bias.take(contexts, missed, BIAS_RATE);
    }

    /// Takes in what single predictions missed.
    #[inline(always)]
    pub fn take_single(&mut self, energy: usize, mean: f32, missed: [f32; SINGLE]) {
        for (sizes, missed) in self.single.iter_mut().zip(missed) {
            let own = &mut sizes[energy];
            let before = if *own > 0.0 { *own } else { mean };
            *own = before + (size(missed) - before) * OWN_RATE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_right_around_is_believed() {
        let right = [[0.0, 9.0, 9.0]; 6];
        let blended = blend(&[100.0, 20.0, 60.0], 1.0, 3, (&right, &right));
        assert!((blended - 100.0).abs() < 0.5, "{blended}");
        // What was alike counts alike.
        let alike = [[4.0; 3]; 6];
        let blended = blend(&[30.0, 60.0, 90.0], 1.0, 3, (&alike, &alike));
        assert!((blended - 60.0).abs() < 1e-3, "{blended}");
    }

    #[test]
    fn means_begin_with_a_guess_and_go_to_what_came() {
        let (mut errors, contexts) = (Errors::new(), [1, 2, 3]);
        let before = errors.expected(contexts, 10.0, 5);
        assert!((before.mean - 8.3).abs() < 1e-3 && before.single == [before.mean; SINGLE], "{before:?}");
        for n in 0..500 {
            errors.take_size(contexts, if n % 2 == 0 { 2.0 } else { -2.0 });
            errors.take_shift(contexts, 1.5);
            errors.take_single(5, before.mean, [1.0, -2.0, 3.0, 0.0]);
        }
        let after = errors.expected(contexts, 10.0, 5);
        assert!((after.mean - 2.0).abs() < 0.2, "{after:?}");
        assert!(after.single.iter().zip([1.0, 2.0, 3.0]).all(|(x, came)| (x - came).abs() < 0.1), "{after:?}");
        // Three contexts that agree shift by less than what came: each has seen the same errors.
        let shift = errors.shift(contexts);
        assert!((shift - 3.0 * BIAS_PART * 1.5).abs() < 0.05, "{shift}");
        assert_eq!(errors.shift([7, 8, 9]), 0.0);
        assert_eq!(errors.expected([7, 8, 9], 10.0, 6).mean, before.mean, "others know nothing");
    }
}
