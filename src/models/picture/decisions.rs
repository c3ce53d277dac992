//! What a value is, decided in a few steps: above or below the best prediction, then further away or not, by steps of about the
//! scale of errors, then where in the last step.
//!
//! Each decision is told by distributions around predictions, by counters in contexts of how such steps went, and by counters of
//! the very value that lies behind it, alone and beside other values of the pixel: few pictures have all values alike, since most
//! were brightened, converted or reduced once. As `models::values`, with those.

use crate::entropy::{Channel, Lanes, Layers, boxed, squash_within, stretch};
use crate::models::values::{Counter, GUESSES, Z_MAX, gap, nearest, quarters, tail, within_f32};

/// Counters in contexts of how steps went.
pub const COUNTERS: usize = 14;
/// Contexts that each is one of.
pub const CONTEXTS: usize = 1024;
/// Counters of values, each less something else.
pub const KEYS: usize = 5;
const KEYED: usize = 4096;
/// Decisions that are told apart by them.
const KINDS: usize = 16;
const ABOVE: usize = 0;
const FURTHER: usize = 1;
const WIDTHS: usize = 5;
const HALF: usize = FURTHER + 2 * WIDTHS;
const _: () = assert!(HALF + 4 <= KINDS);
/// Decisions that are told apart in each context.
const NODES: usize = 64;
/// Vectors of inputs, the last of which is a constant.
const VECTORS: usize = 4;
const _: () = assert!(GUESSES + COUNTERS + KEYS < VECTORS * 8);
/// Rows of the mixer: of the decision alone, with the scale, and with two things that the caller says.
const ROWS: usize = 8192;
const BY_SCALE: usize = 1024;
const BY_WEIGHTS: [usize; 2] = [2048, 4096];
/// Steps to one side: so many of one width, then each twice as wide as the one before.
const STEPS: usize = 28;
const EVEN_STEPS: usize = 4;
/// Steps near the prediction, of which the counters lie in one line of the cache with those of the other side.
const NEAR_STEPS: usize = 7;
const FAR: usize = 16;
const _: () = assert!(2 * NEAR_STEPS < FAR && FAR + 2 * (STEPS - NEAR_STEPS) <= NODES);
/// Width of a step, in scales.
const STEP: f32 = 0.7;
const STEP_MAX: f32 = 1e6;
/// Halvings of the last step that are predicted; what is left is even.
const HALVINGS: usize = 3;
/// Most a distribution says, 1/256 nats.
const SURE_MAX: i32 = 2047;
/// Steps of learning: of the mixer, of that of halvings, 1/256; slowest of counters.
const RATE: i32 = 90;
const HALVINGS_RATE: i32 = 8;
const COUNT_MAX: u32 = 100;
/// First weights of distributions and of counters.
const FIRST_WEIGHTS: (i16, i16) = (2867, 1966);

/// What is known of a value before it comes.
#[derive(Clone, Copy)]
pub struct Outlook {
    /// Where distributions have their middle. The first is that of the best prediction.
    pub middles: [f32; GUESSES],
    /// How wide they are.
    pub scales: [f32; GUESSES],
    /// Contexts of counters, each below `CONTEXTS`.
    pub contexts: [usize; COUNTERS],
    /// What is taken from values before they are counted.
    pub keys: [i32; KEYS],
    /// Weights of the mixer are chosen by these, below 16 and below 32.
    pub weights: [usize; 2],
    /// The value is one of these.
    pub least: i32,
    pub most: i32,
}

/// Codes values.
pub struct Decisions {
    counters: [Box<[Counter; CONTEXTS * NODES]>; COUNTERS],
    keyed: [Box<[Counter; KEYED * KINDS]>; KEYS],
    mixer: Layers<VECTORS, 4, ROWS, NODES>,
    halvings: Layers<2, 1, 32, 1>,
}

/// Bytes of its tables.
pub const BYTES: u64 = ((COUNTERS * CONTEXTS * NODES + KEYS * KEYED * KINDS) * size_of::<Counter>()) as u64
    + Layers::<VECTORS, 4, ROWS, NODES>::BYTES;

/// Distances from middles, in scales, 1/256.
#[inline(always)]
fn places(distance: f32, from: &[f32; GUESSES], inverse: &[f32; GUESSES]) -> [i32; GUESSES] {
    let mut places = [0; GUESSES];
    for i in 0..GUESSES {
        places[i] = nearest(within_f32((distance + from[i]) * inverse[i], -(Z_MAX as f32), Z_MAX as f32));
    }
    places
}

/// What counters of values say.
#[inline(always)]
fn heard(keyed: &[Box<[Counter; KEYED * KINDS]>; KEYS], at: &[usize; KEYS]) -> [i16; KEYS] {
    let mut heard = [0; KEYS];
    for i in 0..KEYS {
        heard[i] = stretch(keyed[i][at[i]].p()) as i16;
    }
    heard
}

impl Decisions {
    /// Knows nothing but what distributions say.
    pub fn new() -> Decisions {
        let first = |i: usize| match i {
            _ if i < GUESSES => FIRST_WEIGHTS.0,
            _ if i < GUESSES + COUNTERS + KEYS => FIRST_WEIGHTS.1,
            _ => 0,
        };
        let first_of_halvings = |i: usize| match i {
            _ if i < GUESSES => (1 << 14) / GUESSES as i16,
            _ if i < GUESSES + KEYS => FIRST_WEIGHTS.1,
            _ => 0,
        };
        Decisions {
            counters: std::array::from_fn(|_| boxed(Counter::NEW)),
            keyed: std::array::from_fn(|_| boxed(Counter::NEW)),
            mixer: Layers::new(Lanes::new(first)),
            halvings: Layers::new(Lanes::new(first_of_halvings)),
        }
    }

    /// One decision, of which distributions say this.
    #[inline(always)]
    fn decide(
        &mut self,
        channel: &mut impl Channel,
        outlook: &Outlook,
        (node, level): (usize, usize),
        keyed: [usize; KEYS],
        said: &[i32; GUESSES],
        bit: u8,
    ) -> u8 {
        let mut at = [0usize; COUNTERS];
        let mut in_contexts = [0i16; COUNTERS];
        for i in 0..COUNTERS {
            at[i] = (outlook.contexts[i] & (CONTEXTS - 1)) * NODES + node;
            in_contexts[i] = stretch(self.counters[i][at[i]].p()) as i16;
        }
        let by_value = heard(&self.keyed, &keyed);
        let inputs = Lanes::<VECTORS>::new(|i| match i {
            _ if i < GUESSES => said[i].clamp(-SURE_MAX, SURE_MAX) as i16,
            _ if i < GUESSES + COUNTERS => in_contexts[i - GUESSES],
            _ if i < GUESSES + COUNTERS + KEYS => by_value[i - GUESSES - COUNTERS],
            _ if i == VECTORS * 8 - 1 => 256,
            _ => 0,
        });
        let by_scale = BY_SCALE + level * NODES + node;
        let by_first = BY_WEIGHTS[0] + (outlook.weights[0] & 15) * NODES + node;
        let by_second = BY_WEIGHTS[1] + (outlook.weights[1] & 31) * NODES + node;
        let mixed = self.mixer.mix(&inputs, [node, by_scale, by_first, by_second], node);
        let bit = channel.pass(bit, squash_within(mixed).clamp(1, 65_535)) & 1;
        self.mixer.update(&inputs, bit, RATE);
        for (counters, at) in self.counters.iter_mut().zip(at) {
            counters[at].learn_within(bit, COUNT_MAX);
        }
        for (counters, at) in self.keyed.iter_mut().zip(keyed) {
            counters[at].learn_within(bit, COUNT_MAX);
        }
        bit
    }

    /// One decision of where in a step a value is.
    #[inline(always)]
    fn halve(
        &mut self,
        channel: &mut impl Channel,
        halving: usize,
        keyed: [usize; KEYS],
        said: &[i32; GUESSES],
        bit: u8,
    ) -> u8 {
        let by_value = heard(&self.keyed, &keyed);
        let inputs = Lanes::<2>::new(|i| match i {
            _ if i < GUESSES => said[i].clamp(-SURE_MAX, SURE_MAX) as i16,
            _ if i < GUESSES + KEYS => by_value[i - GUESSES],
            _ => 0,
        });
        let p = squash_within(self.halvings.mix(&inputs, [halving * 8], 0)).clamp(1, 65_535);
        let bit = channel.pass(bit, p) & 1;
        self.halvings.update(&inputs, bit, HALVINGS_RATE);
        for (counters, at) in self.keyed.iter_mut().zip(keyed) {
            counters[at].learn_within(bit, COUNT_MAX);
        }
        bit
    }

    /// Passes a value on, or gets it from where it comes.
    #[inline(always)]
    pub fn pass(&mut self, channel: &mut impl Channel, outlook: &Outlook, value: i32) -> i32 {
        let (least, most) = (outlook.least, outlook.most);
        let scale = outlook.scales[0];
        let middle = within_f32(outlook.middles[0], least as f32, most as f32);
        // The first whole number above the prediction.
        let toward_zero = middle as i32;
        let first = (toward_zero + i32::from(toward_zero as f32 <= middle)).clamp(least, most);
        let level = (quarters(scale) / 2).min(15);
        for (counters, context) in self.counters.iter().zip(outlook.contexts) {
            prefetch_index::prefetch_index(counters.as_slice(), (context & (CONTEXTS - 1)) * NODES);
        }
        let keys = |behind: i32, kind: usize| -> [usize; KEYS] {
            outlook.keys.map(|key| (behind.wrapping_sub(key) & (KEYED as i32 - 1)) as usize * KINDS + kind)
        };
        let (mut inverse, mut from) = ([0.0; GUESSES], [0.0; GUESSES]);
        for i in 0..GUESSES {
            inverse[i] = 256.0 / outlook.scales[i];
            from[i] = (first as f32 - 0.5) - outlook.middles[i];
        }
        let mut near = places(0.0, &from, &inverse);
        let mut said = near.map(|z| -z);
        let is_above = u8::from(value >= first);
        let up = first == least || self.decide(channel, outlook, (0, level), keys(first, ABOVE), &said, is_above) == 1;
        // From here on numbers go away from the prediction, on either side.
        let (away, room, side) = if up {
            (value.wrapping_sub(first), most - first, 0)
        } else {
            from = from.map(|x| -x);
            near = said;
            (first.wrapping_sub(1).wrapping_sub(value), first - 1 - least, 1)
        };
        let beyond = |steps: i32| if up { first + steps } else { first - steps };
        let mut begins = 0i32;
        let mut width = nearest(within_f32(scale * STEP, 1.0, STEP_MAX));
        for step in 0.. {
            if begins.saturating_add(width) > room || step + 1 >= STEPS {
                width = room - begins + 1;
                break;
            }
            let far = places((begins + width) as f32, &from, &inverse);
            for i in 0..GUESSES {
                said[i] = tail(near[i]) - gap(far[i] - near[i]);
            }
            let kind = FURTHER + side * WIDTHS + (width.ilog2() as usize).min(WIDTHS - 1);
            let further = u8::from(away >= begins + width);
            let node = if step < NEAR_STEPS {
                1 + side * NEAR_STEPS + step
            } else {
                FAR + side * (STEPS - NEAR_STEPS) + step - NEAR_STEPS
            };
            if self.decide(channel, outlook, (node, level), keys(beyond(begins + width), kind), &said, further) == 0 {
                break;
            }
            near = far;
            begins += width;
            if step + 1 >= EVEN_STEPS {
                width = width.saturating_mul(2);
            }
        }
        let mut halving = 0;
        while width > 1 {
            let half = width / 2;
            let further = u8::from(away >= begins + half);
            let further = if halving < HALVINGS {
                let middle = places((begins + half) as f32, &from, &inverse);
                let far = places((begins + width) as f32, &from, &inverse);
                for i in 0..GUESSES {
                    let gaps = gap(far[i] - middle[i]) - gap(middle[i] - near[i]);
                    said[i] = middle[i] - far[i] + gaps + tail(near[i]) - tail(far[i]);
                }
                let kind = HALF + side * 2 + usize::from(half > 1);
                let further = self.halve(channel, halving, keys(beyond(begins + half), kind), &said, further);
                if further == 1 {
                    near = middle;
                }
                further
            } else {
                channel.pass(further, 1 << 15) & 1
            };
            if further == 1 {
                begins += half;
                width -= half;
            } else {
                width = half;
            }
            halving += 1;
        }
        if up { first + begins } else { first - 1 - begins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Decoder, Encoder};

    fn outlook(middle: f32, scale: f32, (least, most): (i32, i32)) -> Outlook {
        let contexts = std::array::from_fn(|i| (middle as i32 as usize * 7 + i) & (CONTEXTS - 1));
        let keys = std::array::from_fn(|i| i as i32);
        Outlook { middles: [middle; GUESSES], scales: [scale; GUESSES], contexts, keys, weights: [3, 5], least, most }
    }

    /// Every value comes back wherever the prediction is, at the ends of what there is too.
    #[test]
    fn values_come_back() {
        for (least, most) in [(0, 255), (-32_768, 32_767), (5, 6), (9, 9), (0, 65_535)] {
            let span = i64::from(most) - i64::from(least);
            let value = |n: i64| (i64::from(least) + n * n * 7919 % (span + 1)) as i32;
            let guess = |n: i64| (i64::from(least) + n * 104_729 % (span + 1)) as f32 + (n % 4) as f32 * 0.25;
            let scale = |n: i64| [0.06, 0.7, 30.0, 4e4][n as usize % 4];
            let (mut decisions, mut coder) = (Decisions::new(), Encoder::new(1 << 20));
            for n in 0..600 {
                assert_eq!(decisions.pass(&mut coder, &outlook(guess(n), scale(n), (least, most)), value(n)), value(n));
            }
            let code = coder.finish();
            let (mut decisions, mut decoder) = (Decisions::new(), Decoder::new(&code));
            for n in 0..600 {
                let came = decisions.pass(&mut decoder, &outlook(guess(n), scale(n), (least, most)), 0);
                assert_eq!(came, value(n), "{n} of {least} to {most}");
            }
        }
    }

    /// A picture that has every third value alone takes less than its distribution says.
    #[test]
    fn values_that_there_are_none_of_are_learned() {
        let bytes = |step: i64| {
            let (mut decisions, mut coder) = (Decisions::new(), Encoder::new(1 << 20));
            for n in 0..8_000i64 {
                let middle = 60.0 + (n % 90) as f32;
                let off = (n * n * 31 % 23 - 11) as i32;
                let value = (middle as i32 + off).clamp(0, 255) / step as i32 * step as i32;
                decisions.pass(&mut coder, &outlook(middle, 6.0, (0, 255)), value);
            }
            coder.finish().len()
        };
        let (all, third) = (bytes(1), bytes(3));
        assert!(third * 4 < all * 3, "{third} of {all}");
    }
}
