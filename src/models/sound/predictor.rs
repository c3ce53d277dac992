//! Predicts samples from those before them in their channel and in the one beside it: least squares over the last fifty, five
//! hundred and two thousand samples, then three cascaded stages of 256, 32 and 16 values, each of which predicts what the one
//! before leaves; four stages of 512, 128, 32 and 16 values likewise behind the long least squares; then least squares over what all of
//! these say. Errors count by how large errors are at the time.

use archmage::autoversion;

use super::numbers::{Numbers, Rest, Sample};
use crate::entropy::Channel;
use crate::models::values::{GUESSES, Gradient, Least, Outlook, Values, quarters, scale_of, within};

/// Samples that least squares look at: the longer ones, the short one; half of them from the other channel, if there is one.
const INPUTS: usize = 32;
const INPUTS_SHORT: usize = 16;
/// What a sample leaves of the means before it, what is added to squares, and samples between two solutions.
const SHORT: (f64, f64, u32) = (0.985, 1e-3, 8);
const USUAL: (f64, f64, u32) = (0.998, 1e-3, 32);
const LONG: (f64, f64, u32) = (0.9995, 1e-3, 64);
const MIX: (f64, f64, u32) = (0.998, 1e-3, 1);
/// Steps of the stages.
const RATES: [f32; STAGES] = [0.2, 0.2, 0.2];
const FURTHER_RATES: [f32; FURTHER_STAGES] = [0.1, 0.1, 0.1, 0.05];
const STAGES: usize = 3;
const FURTHER_STAGES: usize = 4;
/// Predictions that are mixed.
const MIXED: usize = 12;
/// Samples after which the mix of all predictions is trusted.
const MIX_AFTER: u32 = 50;
/// What the error of a sample itself adds to that of those before it, and what both are at least, where samples are weighed.
const OWN_ERROR: f64 = 0.5;
const ERROR_MIN: f64 = 0.5;
const ERROR_RATE: f64 = 0.05;
/// Stages say no more than this, either way.
const LOUD: f64 = (1u32 << 25) as f64;
/// What a new error counts in the scales of the distributions.
const SCALE_RATES: [f32; GUESSES] =
    [1.0 / 20.0, 1.0 / 8.0, 1.0 / 128.0, 1.0 / 32.0, 1.0 / 32.0, 1.0 / 32.0, 1.0 / 400.0, 1.0 / 24.0];
const COUNTERS: usize = 7;
/// Vectors of inputs.
const VECTORS: usize = 2;

/// Bytes of the predictor of one channel.
pub const CHANNEL_BYTES: u64 = Values::<VECTORS, COUNTERS>::BYTES
    + 2 * Least::<INPUTS>::BYTES
    + Least::<INPUTS_SHORT>::BYTES
    + Near::BYTES
    + Further::BYTES
    + Rest::BYTES
    + 4096;

/// Predictions, by name.
#[derive(Clone, Copy, Default)]
struct Predictions {
    short: f64,
    usual: f64,
    long: f64,
    /// The usual one with all stages, and what each of them adds.
    staged: f64,
    stages: [f32; STAGES],
    /// What the further stages add to the long one.
    further: [f32; FURTHER_STAGES],
    /// The mix of all.
    mixed: f64,
}

/// Stages, each of which predicts what the ones before it leave.
trait Stages {
    /// Bytes of them.
    const BYTES: u64;

    /// What each of them adds to a prediction.
    fn predict(&self, stages: &mut [f32]);

    /// Takes what was left of a sample, of which the stages had predicted this.
    fn observe(&mut self, left: f32, was: &[f32]);
}

/// None.
impl Stages for () {
    const BYTES: u64 = 0;

    #[inline(always)]
    fn predict(&self, _: &mut [f32]) {}

    #[inline(always)]
    fn observe(&mut self, _: f32, _: &[f32]) {}
}

/// One, and those behind it.
struct Stage<const N: usize, Behind>(Gradient<N>, Behind);

impl<const N: usize, Behind: Stages> Stages for Stage<N, Behind> {
    const BYTES: u64 = Gradient::<N>::BYTES + Behind::BYTES;

    #[inline(always)]
    fn predict(&self, stages: &mut [f32]) {
        if let Some((stage, behind)) = stages.split_first_mut() {
            *stage = self.0.predict();
            self.1.predict(behind);
        }
    }

    #[inline(always)]
    fn observe(&mut self, left: f32, was: &[f32]) {
        if let Some((predicted, behind)) = was.split_first() {
            let missed = left - predicted;
            self.0.observe(missed, left);
            self.1.observe(missed, behind);
        }
    }
}

/// Those behind the usual least squares, and those behind the long ones.
type Near = Stage<256, Stage<32, Stage<16, ()>>>;
type Further = Stage<512, Stage<128, Stage<32, Stage<16, ()>>>>;

fn near() -> Near {
    let [first, second, third] = RATES;
    Stage(Gradient::new(first), Stage(Gradient::new(second), Stage(Gradient::new(third), ())))
}

fn further() -> Further {
    let [first, second, third, fourth] = FURTHER_RATES;
    let last = Stage(Gradient::running(third), Stage(Gradient::running(fourth), ()));
    Stage(Gradient::running(first), Stage(Gradient::running(second), last))
}

/// A prediction within what stages say at most.
#[inline(always)]
fn bounded(x: f64) -> f64 {
    within(x, -LOUD, LOUD)
}

#[inline(always)]
fn quiet(stage: f32) -> f32 {
    bounded(f64::from(stage)) as f32
}

/// One channel.
struct Voice {
    short: Least<INPUTS_SHORT>,
    usual: Least<INPUTS>,
    long: Least<INPUTS>,
    near: Near,
    /// None in revision 1.
    further: Option<Further>,
    mix: Least<MIXED>,
    /// Means of the errors of `short`, `usual`, `long`, `mix`.
    errors: [f64; 4],
    /// The same of what distributions have their middles at.
    scales: [f32; GUESSES],
    /// The last errors of the best prediction.
    missed: [f32; 2],
    /// The last samples, the latest first, around zero.
    history: [f64; INPUTS],
    seen: u32,
    values: Values<VECTORS, COUNTERS>,
    rest: Rest,
}

fn least<const N: usize>((keep, ridge, every): (f64, f64, u32)) -> Least<N> {
    Least::new(keep, ridge, every)
}

impl Voice {
    fn new(with_further: bool) -> Voice {
        Voice {
            short: least(SHORT),
            usual: least(USUAL),
            long: least(LONG),
            near: near(),
            further: with_further.then(further),
            mix: least(MIX),
            errors: [10.0; 4],
            scales: [8.0; GUESSES],
            missed: [0.0; 2],
            history: [0.0; INPUTS],
            seen: 0,
            values: Values::new(),
            rest: Rest::new(),
        }
    }

    /// What the sample after these is expected to be; `beside` are those of the other channel.
    #[inline(always)]
    fn predict(&mut self, beside: Option<&[f64; INPUTS]>) -> Predictions {
        let mut inputs = self.history;
        if let Some(beside) = beside {
            inputs[INPUTS / 2..].copy_from_slice(&beside[..INPUTS / 2]);
            self.short.inputs[..INPUTS_SHORT / 2].copy_from_slice(&inputs[..INPUTS_SHORT / 2]);
            self.short.inputs[INPUTS_SHORT / 2..].copy_from_slice(&beside[..INPUTS_SHORT / 2]);
        } else {
            self.short.inputs.copy_from_slice(&inputs[..INPUTS_SHORT]);
        }
        (self.usual.inputs, self.long.inputs) = (inputs, inputs);
        let (short, usual, long) = (self.short.predict(), self.usual.predict(), self.long.predict());
        let (short, usual, long) = (bounded(short), bounded(usual), bounded(long));
        let (mut stages, mut further) = ([0.0; STAGES], [0.0; FURTHER_STAGES]);
        self.near.predict(&mut stages);
        if let Some(stages) = &self.further {
            stages.predict(&mut further);
        }
        let (stages, further) = (stages.map(quiet), further.map(quiet));
        let [first, second, third] = stages.map(f64::from);
        let staged = usual + first + second + third;
        let [last, ..] = self.history;
        let last_beside = beside.map_or(0.0, |[last, ..]| *last);
        let known = [usual, first, second, third, short - usual, long - usual, last, last_beside];
        self.mix.inputs[..8].copy_from_slice(&known);
        self.mix.inputs[8..].copy_from_slice(&further.map(f64::from));
        let mixed = if self.seen < MIX_AFTER { staged } else { self.mix.predict() };
        Predictions { short, usual, long, staged, stages, further, mixed }
    }

    /// Learns a sample, around zero.
    #[inline(always)]
    fn observe(&mut self, came: f64, was: &Predictions) {
        let mut weight = |n: usize, predicted: f64| {
            let missed = came - predicted;
            let missed = if missed < 0.0 { -missed } else { missed };
            let usual = self.errors[n] + OWN_ERROR * missed + ERROR_MIN;
            self.errors[n] += (missed - self.errors[n]) * ERROR_RATE;
            1.0 / (usual * usual)
        };
        let weights = [weight(0, was.short), weight(1, was.usual), weight(2, was.long), weight(3, was.mixed)];
        self.short.observe(came, weights[0]);
        self.usual.observe(came, weights[1]);
        self.long.observe(came, weights[2]);
        self.mix.observe(came, weights[3]);
        self.near.observe((came - was.usual) as f32, &was.stages);
        if let Some(further) = &mut self.further {
            further.observe((came - was.long) as f32, &was.further);
        }
        self.history.copy_within(0..INPUTS - 1, 1);
        self.history[0] = came;
        self.seen = self.seen.saturating_add(1);
    }

    /// What distributions and counters are told of a sample whose predictions these are.
    #[inline(always)]
    fn outlook(&self, p: &Predictions, beside: f32, range: &Range) -> Outlook<COUNTERS> {
        let value = |x: f64| {
            (within(x, f64::from(range.least - range.zero), f64::from(range.most - range.zero)) + f64::from(range.zero))
                as f32
        };
        let best = value(p.mixed);
        let (staged, usual, long) = (value(p.staged), value(p.usual), value(p.long));
        let short = value(p.short);
        let middles = [best, best, best, staged, usual, long, best, short];
        let mut scales = self.scales.map(scale_of);
        scales[0] = scale_of((self.scales[0] + self.scales[1] * 0.5 + self.scales[2] * 0.5) * 0.5);
        let scale = quarters(scales[0]).min(63);
        let fraction = ((best - (best as i32) as f32) * 4.0) as i32 as usize & 3;
        let ratio = (quarters(scales[1]) as i32 - quarters(scales[2]) as i32).clamp(-8, 7) + 8;
        let ratio = ratio as usize;
        // How an error was, by the scale of this one: its size and its sign.
        let error = |x: f32| {
            let size = quarters(if x < 0.0 { -x } else { x }) as i32 - scale as i32;
            (size + 8).clamp(0, 15) as usize * 2 + usize::from(x < 0.0)
        };
        // How far another prediction is off.
        let off = |other: f32| {
            let off = f64::from((other - best) / scales[0] * 4.0);
            (within(off, -8.0, 7.0) as i32 + 8) as usize
        };
        Outlook {
            middles,
            scales,
            contexts: [
                scale.min(47) * 4 + fraction,
                ratio * 32 + error(self.missed[0]),
                error(self.missed[0]) * 32 + error(self.missed[1]),
                off(short) * 16 + off(staged),
                off(usual) * 16 + ratio,
                error(beside) * 16 + (scale / 2).min(15),
                (scale / 2) * 16 + quarters(scales[6]).min(63) / 4,
            ],
            weights: ratio,
            correction: fraction * 16 + (scale / 3).min(15),
            least: range.least,
            most: range.most,
        }
    }

    /// Learns how far off distributions were.
    #[inline(always)]
    fn measure(&mut self, value: i32, outlook: &Outlook<COUNTERS>) {
        // The first ones count alike.
        let begins = 1.0 / (self.seen as f32 + 1.5);
        for ((scale, middle), rate) in self.scales.iter_mut().zip(outlook.middles).zip(SCALE_RATES) {
            let missed = value as f32 - middle;
            let missed = if missed < 0.0 { -missed } else { missed };
            *scale += (missed - *scale) * if begins > rate { begins } else { rate };
        }
        self.missed = [value as f32 - outlook.middles[0], self.missed[0]];
    }
}

/// What samples may be.
#[derive(Clone, Copy)]
pub struct Range {
    pub least: i32,
    pub most: i32,
    /// Silence.
    pub zero: i32,
}

/// Passes samples on, or gets them: whole frames of all channels. Stages behind the long least squares are `further`.
///
/// It is compiled for AVX2 too, which is chosen when the program runs: the same sums, products and quotients in the same order, more of
/// them at a time.
#[autoversion(v3, scalar)]
pub fn pass<C: Channel>(coder: &mut C, samples: &mut [Sample], numbers: &Numbers, further: bool) {
    let (range, channels) = (numbers.range(), numbers.format.channels);
    let mut voices: Vec<Voice> = (0..channels).map(|_| Voice::new(further)).collect();
    for frame in samples.chunks_exact_mut(channels) {
        for (n, sample) in frame.iter_mut().enumerate() {
            // The channel before this one has its sample of this frame already; the last one, beside the first, does not.
            let other = if n > 0 { n - 1 } else { channels - 1 };
            let beside = voices.get(other).map(|other| (other.history, other.missed[0]));
            let Some(voice) = voices.get_mut(n) else { continue };
            let (history, missed) = beside.unwrap_or_default();
            let predictions = voice.predict((channels > 1).then_some(&history));
            let outlook = voice.outlook(&predictions, missed, &range);
            let number = voice.values.pass(coder, &outlook, sample.number);
            *sample = Sample { number, left: voice.rest.pass(coder, numbers, number, sample.left) };
            voice.measure(number, &outlook);
            voice.observe(f64::from(number - range.zero), &predictions);
        }
    }
}
