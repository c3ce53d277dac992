//! Two layers of gated logistic mixing (M. Mahoney, paq8): several small contexts choose a row of weights each; every
//! row makes a prediction of its own and learns from its own error, and a last row weighs the predictions.
//!
//! Rows have lanes of 16 bits in vectors of eight, a register of any CPU since 2003. The vector operations of `wide` are
//! exact integers, with the same result where they are done one lane after the other. Wider registers, chosen when the program
//! runs, win nothing: rows are two or three vectors. With all of the predictor compiled for AVX2 or AVX-512 the usual profile
//! was as fast as without, within 2 %, and the swift one 14 to 18 % slower (compilers then gather small tables).

use wide::i16x8;

use super::logistic::{STRETCH_MAX, squash_within};

/// Inputs or weights of one vector.
pub const LANES: usize = 8;

/// Inputs or weights: `V` vectors of them.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub struct Lanes<const V: usize>([i16x8; V]);

impl<const V: usize> Lanes<V> {
    /// Lane by lane.
    #[inline(always)]
    pub fn new(mut lane: impl FnMut(usize) -> i16) -> Lanes<V> {
        // Put together in registers: a vector that is read from memory waits until its lanes have been written there.
        let mut half = |v: usize, at: usize| {
            (0..4).fold(0u64, |half, i| half | u64::from(lane(v * LANES + at + i) as u16) << (16 * i))
        };
        Lanes(std::array::from_fn(|v| bytemuck::cast([half(v, 0), half(v, 4)].map(u64::to_le))))
    }

    /// All lanes alike.
    pub fn splat(lane: i16) -> Lanes<V> {
        Lanes([i16x8::splat(lane); V])
    }

    /// Sum of the products, modulo 2^32.
    #[inline(always)]
    fn product(&self, other: &Lanes<V>) -> i32 {
        let mut sums = self.0[0].dot(other.0[0]);
        for v in 1..V {
            sums += self.0[v].dot(other.0[v]);
        }
        let sums = sums.to_array();
        sums[0].wrapping_add(sums[2]).wrapping_add(sums[1].wrapping_add(sums[3]))
    }

    /// Adds `inputs` times `error`, 1/65536, rounded, to the weights, which stay within 16 bits.
    #[inline(always)]
    fn train(&mut self, inputs: &Lanes<V>, error: i16) {
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

/// The mixer: rows of `V` vectors in the first layer, of which `CHOSEN` are chosen for each bit; `LAST` rows in the last
/// layer, a power of two. Where one row is chosen there is no last layer.
#[derive(Clone, Debug)]
pub struct Layers<const V: usize, const CHOSEN: usize, const ROWS: usize, const LAST: usize> {
    rows: Box<[Lanes<V>; ROWS]>,
    last: Box<[[i32; CHOSEN]; LAST]>,
    chosen: [usize; CHOSEN],
    chosen_last: usize,
    outputs: [i32; CHOSEN],
    output: i32,
}

impl<const V: usize, const CHOSEN: usize, const ROWS: usize, const LAST: usize> Layers<V, CHOSEN, ROWS, LAST> {
    /// Bytes of the weights.
    pub const BYTES: u64 = (ROWS * V * 16 + LAST * CHOSEN * 4) as u64;

    /// All rows alike.
    pub fn new(first: Lanes<V>) -> Self {
        const { assert!(ROWS.is_power_of_two() && LAST.is_power_of_two() && CHOSEN > 0 && V > 0) };
        Layers {
            rows: super::boxed(first),
            last: super::boxed([(1 << LAST_ONE) / CHOSEN as i32; CHOSEN]),
            chosen: [0; CHOSEN],
            chosen_last: 0,
            outputs: [0; CHOSEN],
            output: 0,
        }
    }

    /// Takes the weights of another.
    pub fn copy_from(&mut self, other: &Self) {
        self.rows.as_mut_slice().copy_from_slice(other.rows.as_slice());
        self.last.as_mut_slice().copy_from_slice(other.last.as_slice());
        (self.chosen, self.chosen_last) = (other.chosen, other.chosen_last);
        (self.outputs, self.output) = (other.outputs, other.output);
    }

    /// Mixes stretched inputs; returns the stretched mix.
    #[inline(always)]
    pub fn mix(&mut self, inputs: &Lanes<V>, chosen: [usize; CHOSEN], chosen_last: usize) -> i32 {
        let last = &self.last[chosen_last & (LAST - 1)];
        let mut sum = 0i32;
        for s in 0..CHOSEN {
            let dot = inputs.product(&self.rows[chosen[s] & (ROWS - 1)]);
            let output = (dot >> ONE).clamp(-STRETCH_MAX, STRETCH_MAX);
            self.outputs[s] = output;
            sum = sum.wrapping_add(output.wrapping_mul(last[s]) >> 4);
        }
        (self.chosen, self.chosen_last) = (chosen, chosen_last);
        self.output = match self.outputs.first() {
            Some(only) if CHOSEN == 1 => *only,
            _ => (sum >> (LAST_ONE - 4)).clamp(-STRETCH_MAX, STRETCH_MAX),
        };
        self.output
    }

    /// Trains what was used. `rate`: step of the first layer, 1/256 of an error, at most 127.
    #[inline(always)]
    pub fn update(&mut self, inputs: &Lanes<V>, bit: u8, rate: i32) {
        let target = if bit != 0 { 65_535 } else { 0 };
        let error = (target - i32::from(squash_within(self.output))) >> 4;
        let last = &mut self.last[self.chosen_last & (LAST - 1)];
        for (s, weight) in last.iter_mut().enumerate() {
            let output = self.outputs[s];
            if CHOSEN > 1 {
                // A weight beyond eight either way is a runaway, and would overflow the sum.
                *weight = (*weight + ((output * error + (1 << 11)) >> 12)).clamp(-(8 << LAST_ONE), 8 << LAST_ONE);
            }
            let error = ((target - i32::from(squash_within(output))) * rate) >> 8;
            self.rows[self.chosen[s] & (ROWS - 1)].train(inputs, error as i16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the vector operations must give, one lane after the other.
    fn product(x: &[[i16; LANES]; 3], w: &[[i16; LANES]; 3]) -> i32 {
        x.iter()
            .flatten()
            .zip(w.iter().flatten())
            .fold(0i32, |sum, (x, w)| sum.wrapping_add(i32::from(*x) * i32::from(*w)))
    }

    fn of(lanes: &[[i16; LANES]; 3]) -> Lanes<3> {
        Lanes::new(|i| lanes[i / LANES][i % LANES])
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
            let inputs: [[i16; LANES]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| next(STRETCH_MAX)));
            let mut weight = |_| if n % 9 == 0 { i16::MAX } else { next(32_767) };
            let weights: [[i16; LANES]; 3] = std::array::from_fn(|_| std::array::from_fn(&mut weight));
            let error = if n % 7 == 0 { i16::MIN + 1 } else { next(32_000) };
            let mut lanes = of(&weights);
            assert_eq!(of(&inputs).product(&lanes), product(&inputs, &weights));
            lanes.train(&of(&inputs), error);
            let after: Vec<i16> = lanes.0.iter().flat_map(|l| l.to_array()).collect();
            let lanes = weights.iter().flatten().zip(inputs.iter().flatten());
            let expected: Vec<i16> = lanes.map(|(w, x)| trained(*w, *x, error)).collect();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn weights_go_to_the_input_that_knows() {
        let mut mixer: Layers<1, 3, 4, 2> = Layers::new(Lanes::splat(1000));
        let mut x = 1u64;
        for n in 0..4000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let bit = (x >> 60 & 1) as u8;
            let mut inputs = [0; LANES];
            inputs[3] = if bit == 1 { 800 } else { -800 };
            inputs[5] = if x >> 50 & 1 == 1 { 800 } else { -800 };
            let inputs = Lanes::new(|i| inputs[i]);
            let mixed = mixer.mix(&inputs, [n % 4, 1, 2], 0);
            assert!(n < 3000 || (mixed > 900) == (bit == 1) && mixed.abs() > 900, "{n}: {mixed}");
            mixer.update(&inputs, bit, 40);
        }
    }
}
