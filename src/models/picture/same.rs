//! Pictures that are drawn: whether a value is just that of another pixel.
//!
//! In the first plane that is the one at which all around looked alike before; in the others one that is alike in the planes that
//! are known. Counters in a few contexts say how likely it is, and are mixed.

use crate::entropy::{Channel, Lanes, Layers, boxed, squash_within, stretch};
use crate::models::values::Counter;

/// Contexts of each counter.
const CONTEXTS: usize = 1 << 16;
const COUNTERS: usize = 6;
const RATE: i32 = 20;
const COUNT_MAX: u32 = 250;
const FIRST_WEIGHT: i16 = 4096;
/// Rows of the mixer.
const ROWS: usize = 1024;

/// Bytes of its tables.
pub const BYTES: u64 = (COUNTERS * CONTEXTS * size_of::<Counter>()) as u64;

/// A number from a few others.
#[inline(always)]
pub fn hash(numbers: &[i32]) -> u32 {
    numbers.iter().fold(0u32, |hash, n| (hash ^ *n as u32).wrapping_mul(0x9e37_79b1).rotate_left(13))
}

/// Tells whether values are those that are expected.
pub struct Same {
    counters: [Box<[Counter; CONTEXTS]>; COUNTERS],
    mixer: Layers<1, 2, ROWS, 1>,
}

impl Same {
    pub fn new() -> Same {
        let first = |i| if i < COUNTERS { FIRST_WEIGHT } else { 0 };
        Same { counters: std::array::from_fn(|_| boxed(Counter::NEW)), mixer: Layers::new(Lanes::new(first)) }
    }

    /// Passes on whether a value is the same, or gets it from where that comes. Weights are chosen by two numbers below 512.
    #[inline(always)]
    pub fn pass(
        &mut self,
        channel: &mut impl Channel,
        contexts: [u32; COUNTERS],
        weights: [usize; 2],
        same: bool,
    ) -> bool {
        let at = contexts.map(|context| (context.wrapping_mul(0x9e37_79b1) >> 16) as usize);
        let mut heard = [0; COUNTERS];
        for i in 0..COUNTERS {
            heard[i] = stretch(self.counters[i][at[i]].p()) as i16;
        }
        let inputs = Lanes::<1>::new(|i| if i < COUNTERS { heard[i] } else { 256 * (i == COUNTERS) as i16 });
        let mixed = self.mixer.mix(&inputs, [weights[0] & 511, 512 + (weights[1] & 511)], 0);
        let bit = channel.pass(u8::from(same), squash_within(mixed).clamp(1, 65_535)) & 1;
        self.mixer.update(&inputs, bit, RATE);
        for (counters, at) in self.counters.iter_mut().zip(at) {
            counters[at].learn_within(bit, COUNT_MAX);
        }
        bit == 1
    }
}
