//! Gated logistic mixing: a weighted sum of stretched probabilities, weights chosen by small contexts and trained online
//! (M. Mahoney, paq7 to lpaq). 16-bit weights and inputs, so that compilers use the vector instructions of any CPU; sums
//! are exact integers, so that the order of additions does not matter.

use super::logistic::{STRETCH_MAX, squash};

/// Inputs of a mixer; unused ones are zero.
pub const INPUTS: usize = 16;

/// Weight of one, 1/65536 of a mixed sum: 1.0 is 1 << 14.
const ONE: i32 = 14;

/// A set of weight rows; several contexts choose one row each, and the rows add up.
#[derive(Clone, Debug)]
pub struct Mixer {
    rows: Vec<[i16; INPUTS]>,
    chosen: [usize; 3],
    dot: i32,
}

impl Mixer {
    /// `rows` rows with the same first weight (1/16384) for each of `inputs`.
    pub fn new(rows: usize, inputs: usize, weight: i16) -> Mixer {
        let mut row = [0; INPUTS];
        row.iter_mut().take(inputs).for_each(|w| *w = weight);
        Mixer { rows: vec![row; rows], chosen: [0; 3], dot: 0 }
    }

    /// Back to the start, keeping the memory.
    pub fn reset(&mut self, inputs: usize, weight: i16) {
        let mut row = [0; INPUTS];
        row.iter_mut().take(inputs).for_each(|w| *w = weight);
        self.rows.fill(row);
    }

    /// Mixes stretched inputs with the sum of three rows; returns the stretched mix.
    #[inline]
    pub fn mix(&mut self, inputs: &[i16; INPUTS], chosen: [usize; 3]) -> i32 {
        let mut dot = 0i64;
        for row in chosen {
            if let Some(row) = self.rows.get(row) {
                dot += i64::from(product(inputs, row));
            }
        }
        self.chosen = chosen;
        self.dot = (dot >> ONE).clamp(i64::from(-STRETCH_MAX), i64::from(STRETCH_MAX)) as i32;
        self.dot
    }

    /// Trains the rows that were used: `rate` scales the step.
    #[inline]
    pub fn update(&mut self, inputs: &[i16; INPUTS], bit: u8, rate: i32) {
        let target = if bit != 0 { 65535 } else { 0 };
        let error = ((target - i32::from(squash(self.dot))) * rate) >> 8;
        let error = error.clamp(-32767, 32767) as i16;
        for row in self.chosen {
            if let Some(row) = self.rows.get_mut(row) {
                train(inputs, row, error);
            }
        }
    }
}

#[inline]
fn product(inputs: &[i16; INPUTS], row: &[i16; INPUTS]) -> i32 {
    let mut sum = 0i32;
    for i in 0..INPUTS {
        sum = sum.wrapping_add(i32::from(inputs[i]) * i32::from(row[i]));
    }
    sum
}

#[inline]
fn train(inputs: &[i16; INPUTS], row: &mut [i16; INPUTS], error: i16) {
    for i in 0..INPUTS {
        let step = (i32::from(inputs[i]) * i32::from(error) + (1 << 13)) >> 14;
        row[i] = row[i].saturating_add(step as i16);
    }
}
