//! Whole numbers that were predicted: what sound and pictures are coded with.
//!
//! Several predictions of a number, each with a scale of its error, are logistic distributions. A number is coded by a few
//! decisions: above or below the best prediction, then further away or not, by steps of about that scale, then where in the
//! last step. Each distribution says how likely a decision is; so do counters in small contexts, which learn what the
//! distributions do not know; a mixer makes one probability of all of them, and two stages correct it.
//!
//! Invariant: floats are added, subtracted, multiplied and divided in one written order, and compared, nothing else, so
//! that every machine has the same bits; what is no number any more is taken for a bound before it is turned into an integer.
//! The range coder and what it is given are integers.
//!
//! Idea: distributions as inputs of a mixer, M. Pais and others, paq8px; decisions by steps of the scale are our own.

mod gradient;
mod least;
mod tables;

use crate::entropy::{Channel, Lanes, Layers, Stage, boxed, squash_within, stretch};

pub use gradient::Gradient;
pub use least::Least;
pub use tables::{Z_MAX, gap, tail};

/// Distributions that are mixed.
pub const GUESSES: usize = 8;
/// Contexts that each counter's context is one of.
pub const CONTEXTS: usize = 1024;
/// Decisions that are told apart in each context.
const NODES: usize = 64;
/// Rows of the mixer, of which the decision chooses one by itself, one with the scale, one with what the caller says.
const ROWS: usize = 4096;
const BY_SCALE: usize = 1024;
const BY_CALLER: usize = 2048;
/// Steps to one side: so many of one width, then each twice as wide as the one before.
const STEPS: usize = 28;
const EVEN_STEPS: usize = 4;
const _: () = assert!(2 * STEPS < NODES && BY_CALLER + 16 * NODES <= ROWS);
/// Width of a step, in scales.
const STEP: f32 = 0.7;
const STEP_MAX: f32 = 1e6;
/// Halvings of the last step that the distributions decide; what is left is even.
const HALVINGS: usize = 3;
/// Most a distribution says, 1/256 nats: beyond it is what nobody knows.
const SURE_MAX: i32 = 2047;
/// Steps of learning: of the mixer, of that of halvings, 1/256; slowest of counters.
const RATE: i32 = 14;
const HALVINGS_RATE: i32 = 2;
const COUNT_MAX: u32 = 250;
/// First weights of the distributions and of counters; of an input that says nothing 0.
const FIRST_WEIGHTS: (i16, i16) = (2867, 1966);
/// Scales are no smaller than this, so that nothing is ever certain.
const SCALE_MIN: f32 = 0.06;
/// Scale of a logistic distribution whose numbers are off by one on average.
const SCALE_OF_MEAN: f32 = 0.72;

/// A number within bounds; what is no number is the lower bound.
#[inline(always)]
pub fn within(x: f64, least: f64, most: f64) -> f64 {
    if x > least { if x < most { x } else { most } } else { least }
}

/// The same of shorter floats.
#[inline(always)]
pub fn within_f32(x: f32, least: f32, most: f32) -> f32 {
    if x > least { if x < most { x } else { most } } else { least }
}

/// The nearest whole number, of those below 2^21 either way.
#[inline(always)]
pub fn nearest(x: f32) -> i32 {
    // In a float of that size the last bit counts one.
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32
}

/// Scale of a distribution whose numbers are off by `mean` on average.
#[inline(always)]
pub fn scale_of(mean: f32) -> f32 {
    let scale = mean * SCALE_OF_MEAN;
    if scale > SCALE_MIN { scale } else { SCALE_MIN }
}

/// Quarters of octaves of a number that is not negative, from 1/32 on.
#[inline(always)]
pub fn quarters(x: f32) -> usize {
    // Exponent and two bits behind it.
    ((x.to_bits() >> 21) as usize & 1023).saturating_sub((127 - 5) << 2)
}

/// What is known of a number before it comes, given `N` counters.
#[derive(Clone, Copy)]
pub struct Outlook<const N: usize> {
    /// Where distributions have their middle. The first is that of the best prediction.
    pub middles: [f32; GUESSES],
    /// How wide they are.
    pub scales: [f32; GUESSES],
    /// Contexts of counters, each below `CONTEXTS`.
    pub contexts: [usize; N],
    /// Weights of the mixer are chosen by this, below 16, and corrections by this, below 64.
    pub weights: usize,
    pub correction: usize,
    /// The number is one of these. `most - least` is below 2^25.
    pub least: i32,
    pub most: i32,
}

/// A probability that adapts: 24 bits, and 8 bits of how often it did.
#[derive(Clone, Copy)]
pub struct Counter(u32);

/// 65536 / (n + 1.6): what a bit counts after `n` others.
static SHARES: [u32; 256] = {
    let mut shares = [0; 256];
    let mut n = 0;
    while n < 256 {
        shares[n] = (655_360 / (10 * n + 16)) as u32;
        n += 1;
    }
    shares
};

impl Counter {
    pub const NEW: Counter = Counter(1 << 31);

    #[inline(always)]
    pub fn p(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    fn learn(&mut self, bit: u8) {
        self.learn_within(bit, COUNT_MAX);
    }

    /// Learns a bit: it counts by one part in `count_max` at least, which is at most 255.
    #[inline(always)]
    pub fn learn_within(&mut self, bit: u8, count_max: u32) {
        let (n, p) = (self.0 & 255, (self.0 >> 8) as i32);
        let target = if bit != 0 { 0xff_ffff } else { 0 };
        let step = (i64::from(target - p) * i64::from(SHARES[n as usize])) >> 16;
        self.0 = ((p + step as i32) as u32) << 8 | if n < count_max { n + 1 } else { n };
    }
}

/// Codes numbers: `V` vectors of inputs, which are the distributions, `N` counters and a constant.
pub struct Values<const V: usize, const N: usize> {
    counters: [Box<[Counter; CONTEXTS * NODES]>; N],
    mixer: Layers<V, 3, ROWS, NODES>,
    halvings: Layers<1, 1, 32, 1>,
    stages: [Stage<4096>; 2],
}

/// Distances from middles, in scales, 1/256.
#[inline(always)]
fn places(distance: f32, from: &[f32; GUESSES], inverse: &[f32; GUESSES]) -> [i32; GUESSES] {
    let mut places = [0; GUESSES];
    for i in 0..GUESSES {
        places[i] = nearest(within_f32((distance + from[i]) * inverse[i], -(Z_MAX as f32), Z_MAX as f32));
    }
    places
}

impl<const V: usize, const N: usize> Values<V, N> {
    /// Bytes of its tables.
    pub const BYTES: u64 = (N * CONTEXTS * NODES * size_of::<Counter>()) as u64
        + Layers::<V, 3, ROWS, NODES>::BYTES
        + 2 * Stage::<4096>::BYTES;

    /// Knows nothing but what distributions say.
    pub fn new() -> Values<V, N> {
        const { assert!(GUESSES + N < V * 8) };
        let first = |i: usize| match i {
            _ if i < GUESSES => FIRST_WEIGHTS.0,
            _ if i < GUESSES + N => FIRST_WEIGHTS.1,
            _ => 0,
        };
        Values {
            counters: std::array::from_fn(|_| boxed(Counter::NEW)),
            mixer: Layers::new(Lanes::new(first)),
            halvings: Layers::new(Lanes::splat((1 << 14) / GUESSES as i16)),
            stages: [Stage::new(), Stage::new()],
        }
    }

    /// One decision, of which distributions say this.
    #[inline(always)]
    fn decide(
        &mut self,
        channel: &mut impl Channel,
        outlook: &Outlook<N>,
        (node, level): (usize, usize),
        said: &[i32; GUESSES],
        bit: u8,
    ) -> u8 {
        let mut at = [0usize; N];
        let mut heard = [0i16; N];
        for i in 0..N {
            at[i] = (outlook.contexts[i] & (CONTEXTS - 1)) * NODES + node;
            heard[i] = stretch(self.counters[i][at[i]].p()) as i16;
        }
        let inputs = Lanes::<V>::new(|i| match i {
            _ if i < GUESSES => said[i].clamp(-SURE_MAX, SURE_MAX) as i16,
            _ if i < GUESSES + N => heard[i - GUESSES],
            _ if i == V * 8 - 1 => 256,
            _ => 0,
        });
        let by_caller = BY_CALLER + (outlook.weights & 15) * NODES + node;
        let mixed = self.mixer.mix(&inputs, [node, BY_SCALE + level * NODES + node, by_caller], node);
        let [by_level, by_correction] = &mut self.stages;
        by_level.choose(level * NODES + node);
        by_correction.choose((outlook.correction & 63) * NODES + node);
        let refined = u32::from(by_level.refine(mixed)) + u32::from(by_correction.refine(mixed));
        let p = ((2 * u32::from(squash_within(mixed)) + refined + 2) / 4).clamp(1, 65_535) as u16;
        let bit = channel.pass(bit, p) & 1;
        self.mixer.update(&inputs, bit, RATE);
        self.stages.iter_mut().for_each(|stage| stage.update(bit));
        for (counters, at) in self.counters.iter_mut().zip(at) {
            counters[at].learn(bit);
        }
        bit
    }

    /// Passes a number on, or gets it from where it comes.
    #[inline(always)]
    pub fn pass(&mut self, channel: &mut impl Channel, outlook: &Outlook<N>, value: i32) -> i32 {
        let (least, most) = (outlook.least, outlook.most);
        let scale = outlook.scales[0];
        let middle = within_f32(outlook.middles[0], least as f32, most as f32);
        // The first whole number above the prediction.
        let toward_zero = middle as i32;
        let first = (toward_zero + i32::from(toward_zero as f32 <= middle)).clamp(least, most);
        let level = (quarters(scale) / 2).min(15);
        let (mut inverse, mut from) = ([0.0; GUESSES], [0.0; GUESSES]);
        for i in 0..GUESSES {
            inverse[i] = 256.0 / outlook.scales[i];
            from[i] = (first as f32 - 0.5) - outlook.middles[i];
        }
        let mut near = places(0.0, &from, &inverse);
        let mut said = near.map(|z| -z);
        let up = first == least || self.decide(channel, outlook, (0, level), &said, u8::from(value >= first)) == 1;
        // From here on numbers go away from the prediction, on either side.
        let (away, room, side) = if up {
            (value.wrapping_sub(first), most - first, 1)
        } else {
            from = from.map(|x| -x);
            near = said;
            (first.wrapping_sub(1).wrapping_sub(value), first - 1 - least, 1 + STEPS)
        };
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
            let further = u8::from(away >= begins + width);
            if self.decide(channel, outlook, (side + step, level), &said, further) == 0 {
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
                let inputs = Lanes::<1>::new(|i| said[i].clamp(-SURE_MAX, SURE_MAX) as i16);
                let p = squash_within(self.halvings.mix(&inputs, [halving * 8], 0)).clamp(1, 65_535);
                let further = channel.pass(further, p) & 1;
                self.halvings.update(&inputs, further, HALVINGS_RATE);
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
