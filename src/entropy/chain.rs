//! A link of a chain of small mixers (the ISSE of M. Mahoney's zpaq): the prediction of shorter contexts comes in and is
//! corrected by weights that the history in a longer context chooses, so that a history counts for as much as such
//! histories have proved to be worth.

use super::history::{HISTORIES, History};
use super::logistic::{STRETCH_MAX, squash_within, stretch};

/// Weight of one: 1.0 is 1 << 16.
const ONE: i32 = 16;
/// A weight beyond four either way is a runaway, and would overflow the sum.
const WEIGHT_MAX: i32 = 4 << ONE;

/// Weights of what comes in and of a constant, by history.
#[derive(Clone, Debug)]
pub struct Link([[i32; 2]; 256]);

impl Link {
    /// Lets three quarters of what comes in through, moved towards the history's own guess.
    pub fn new() -> Link {
        Link(std::array::from_fn(|h| [3 << (ONE - 2), stretch(HISTORIES.guess(h as u8)) << (ONE - 10)]))
    }

    /// The prediction after a history, stretched as the one that comes in.
    #[inline(always)]
    pub fn refine(&self, history: History, stretched: i32) -> i32 {
        let [weight, constant] = self.0[usize::from(history)];
        ((weight * (stretched >> 2) + (constant << 6)) >> (ONE - 2)).clamp(-STRETCH_MAX, STRETCH_MAX)
    }

    /// Learns the bit that came after `refine` had made `refined` of `stretched`.
    #[inline(always)]
    pub fn update(&mut self, history: History, stretched: i32, refined: i32, bit: u8) {
        let target = if bit != 0 { 65_535 } else { 0 };
        let error = target - i32::from(squash_within(refined));
        let [weight, constant] = &mut self.0[usize::from(history)];
        *weight = (*weight + ((stretched * (error >> 4) + (1 << 9)) >> 10)).clamp(-WEIGHT_MAX, WEIGHT_MAX);
        *constant = (*constant + ((error + (1 << 3)) >> 4)).clamp(-WEIGHT_MAX, WEIGHT_MAX);
    }
}

impl Default for Link {
    fn default() -> Link {
        Link::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After one history what comes in is right, after another it is wrong: each gets weights of its own.
    #[test]
    fn a_history_says_what_a_prediction_is_worth() {
        let mut link = Link::new();
        let mut x = 1u64;
        for _ in 0..20_000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (bit, history) = ((x >> 60 & 1) as u8, (x >> 50 & 1) as u8);
            let stretched = if u8::from(bit == 1) ^ history == 1 { 500 } else { -500 };
            let refined = link.refine(history, stretched);
            link.update(history, stretched, refined, bit);
        }
        assert!(link.refine(0, 500) > 1000 && link.refine(1, 500) < -1000);
        for extreme in [-STRETCH_MAX, STRETCH_MAX] {
            for bit in [0, 1] {
                (0..5000).for_each(|_| link.update(9, extreme, -extreme, bit));
                assert!(link.refine(9, extreme).abs() <= STRETCH_MAX);
            }
        }
    }
}
