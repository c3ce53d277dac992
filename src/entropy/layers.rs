//! Two layers of gated logistic mixing (M. Mahoney, paq8): several small contexts choose a row of weights each; every
//! row makes a prediction of its own and learns from its own error, and a last row weighs the predictions.
//!
//! Rows have sixteen lanes of 16 bits, two vector registers of any CPU since 2003. The vector operations of `wide` are
//! exact integers, with the same result where they are done one lane after the other.

use wide::i16x8;

use super::logistic::{STRETCH_MAX, squash_within};

/// Inputs of a row.
pub const LANES: usize = 16;
/// Rows that are chosen for each bit.
pub const CHOSEN: usize = 3;

/// Sixteen inputs or weights.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Lanes([i16x8; 2]);

impl Lanes {
    #[inline(always)]
    pub fn new(lanes: &[i16; LANES]) -> Lanes {
        let half = |at: usize| std::array::from_fn(|i| lanes[at + i]);
        Lanes([i16x8::new(half(0)), i16x8::new(half(8))])
    }

    /// Sum of the products, modulo 2^32.
    #[inline(always)]
    fn product(&self, other: &Lanes) -> i32 {
        let sums = (self.0[0].dot(other.0[0]) + self.0[1].dot(other.0[1])).to_array();
        sums[0].wrapping_add(sums[2]).wrapping_add(sums[1].wrapping_add(sums[3]))
    }

    /// Adds `inputs` times `error`, 1/65536, rounded, to the weights, which stay within 16 bits.
    #[inline(always)]
    fn train(&mut self, inputs: &Lanes, error: i16) {
        let (error, one) = (i16x8::splat(error), i16x8::splat(1));
        for (weights, x) in self.0.iter_mut().zip(inputs.0) {
            let twice = i16x8::mul_keep_high(x + x, error);
            *weights = weights.saturating_add((twice + one) >> 1i32);
        }
    }
}

/// Weight of one in the first layer: 1.0 is 1 << 14.
const ONE: i32 = 14;
/// The same in the last one.
const LAST_ONE: i32 = 16;

/// The mixer: `ROWS` rows in the first layer, `LAST` in the last, both powers of two.
#[derive(Clone, Debug)]
pub struct Layers<const ROWS: usize, const LAST: usize> {
    rows: Box<[Lanes; ROWS]>,
    last: Box<[[i32; CHOSEN]; LAST]>,
    chosen: [usize; CHOSEN],
    chosen_last: usize,
    outputs: [i32; CHOSEN],
    output: i32,
}

impl<const ROWS: usize, const LAST: usize> Layers<ROWS, LAST> {
    /// All rows alike.
    pub fn new(first: &[i16; LANES]) -> Layers<ROWS, LAST> {
        Layers {
            rows: super::boxed(Lanes::new(first)),
            last: super::boxed([(1 << LAST_ONE) / CHOSEN as i32; CHOSEN]),
            chosen: [0; CHOSEN],
            chosen_last: 0,
            outputs: [0; CHOSEN],
            output: 0,
        }
    }

    /// Takes the weights of another.
    pub fn copy_from(&mut self, other: &Layers<ROWS, LAST>) {
        self.rows.as_mut_slice().copy_from_slice(other.rows.as_slice());
        self.last.as_mut_slice().copy_from_slice(other.last.as_slice());
        (self.chosen, self.chosen_last) = (other.chosen, other.chosen_last);
        (self.outputs, self.output) = (other.outputs, other.output);
    }

    /// Mixes stretched inputs; returns the stretched mix.
    #[inline(always)]
    pub fn mix(&mut self, inputs: &Lanes, chosen: [usize; CHOSEN], chosen_last: usize) -> i32 {
        let last = &self.last[chosen_last & (LAST - 1)];
        let mut sum = 0i32;
        for s in 0..CHOSEN {
            let dot = inputs.product(&self.rows[chosen[s] & (ROWS - 1)]);
            let output = (dot >> ONE).clamp(-STRETCH_MAX, STRETCH_MAX);
            self.outputs[s] = output;
            sum = sum.wrapping_add(output.wrapping_mul(last[s]) >> 4);
        }
        (self.chosen, self.chosen_last) = (chosen, chosen_last);
        self.output = (sum >> (LAST_ONE - 4)).clamp(-STRETCH_MAX, STRETCH_MAX);
        self.output
    }

    /// Trains what was used. `rate`: step of the first layer, 1/256 of an error, at most 127.
    #[inline(always)]
    pub fn update(&mut self, inputs: &Lanes, bit: u8, rate: i32) {
        let target = if bit != 0 { 65_535 } else { 0 };
        let error = (target - i32::from(squash_within(self.output))) >> 4;
        let last = &mut self.last[self.chosen_last & (LAST - 1)];
        for (s, weight) in last.iter_mut().enumerate() {
            let output = self.outputs[s];
            // A weight beyond eight either way is a runaway, and would overflow the sum.
            *weight = (*weight + ((output * error + (1 << 11)) >> 12)).clamp(-(8 << LAST_ONE), 8 << LAST_ONE);
            let error = ((target - i32::from(squash_within(output))) * rate) >> 8;
            self.rows[self.chosen[s] & (ROWS - 1)].train(inputs, error as i16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the vector operations must give, one lane after the other.
    fn product(x: &[i16; LANES], w: &[i16; LANES]) -> i32 {
        (0..LANES).fold(0i32, |sum, i| sum.wrapping_add(i32::from(x[i]) * i32::from(w[i])))
    }

    fn trained(w: i16, x: i16, error: i16) -> i16 {
        let twice = ((i32::from(x.wrapping_add(x)) * i32::from(error)) >> 16) as i16;
        w.saturating_add(twice.wrapping_add(1) >> 1)
    }

    #[test]
    fn vectors_give_the_bits_of_single_lanes() {
        let mut x = 1u64;
        let mut next = |bound: i32| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((x >> 40) as i32 % (2 * bound + 1) - bound) as i16
        };
        for n in 0..2000 {
            let inputs: [i16; LANES] = std::array::from_fn(|_| next(STRETCH_MAX));
            let weights: [i16; LANES] = std::array::from_fn(|_| if n % 9 == 0 { i16::MAX } else { next(32_767) });
            let error = if n % 7 == 0 { i16::MIN + 1 } else { next(32_000) };
            let mut lanes = Lanes::new(&weights);
            assert_eq!(Lanes::new(&inputs).product(&lanes), product(&inputs, &weights));
            lanes.train(&Lanes::new(&inputs), error);
            let after: Vec<i16> = lanes.0.iter().flat_map(|l| l.to_array()).collect();
            let expected: Vec<i16> = (0..LANES).map(|i| trained(weights[i], inputs[i], error)).collect();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn weights_go_to_the_input_that_knows() {
        let mut mixer: Layers<4, 2> = Layers::new(&[1000; LANES]);
        let mut x = 1u64;
        for n in 0..4000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let bit = (x >> 60 & 1) as u8;
            let mut inputs = [0; LANES];
            inputs[3] = if bit == 1 { 800 } else { -800 };
            inputs[5] = if x >> 50 & 1 == 1 { 800 } else { -800 };
            let inputs = Lanes::new(&inputs);
            let mixed = mixer.mix(&inputs, [n % 4, 1, 2], 0);
            assert!(n < 3000 || (mixed > 900) == (bit == 1) && mixed.abs() > 900, "{n}: {mixed}");
            mixer.update(&inputs, bit, 40);
        }
    }
}
