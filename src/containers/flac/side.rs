//! What frames say beside their samples, coded: most of it follows from the samples, or is as in the frame before.
//!
//! Heads are alike but for their numbers, which go on. Parameters of Rice codes come from the mean of what is left in a part,
//! by whatever rule the encoder has: it is learned, by an eighth of an octave. So many parts are made as code the residual to
//! the fewest bits, nearly. Coefficients are as those that the samples give (`linear`), but for some roundings.

use super::frame::{CHANNELS_MAX, Form, Head, PARTS_MAX, Part, Predictor, Rice, SIZE_MAX, Subframe};
use super::linear::{Guess, WAYS, Windows};
use crate::entropy::Channel;

/// Probability of a 1, and how much it has seen.
#[derive(Clone, Copy)]
struct Bit {
    p: u16,
    seen: u8,
}

/// What a bit counts at least, as a part of all.
const RATE: u8 = 40;

impl Bit {
    const NEW: Bit = Bit { p: 1 << 15, seen: 0 };

    fn pass(&mut self, coder: &mut impl Channel, bit: u8) -> u8 {
        let bit = coder.pass(bit, self.p);
        let target = if bit != 0 { 65_535 - 16 } else { 16 };
        self.p = (i32::from(self.p) + (target - i32::from(self.p)) * 2 / (2 * i32::from(self.seen) + 3)) as u16;
        self.seen = (self.seen + 1).min(RATE);
        bit
    }
}

fn flag(coder: &mut impl Channel, bit: &mut Bit, value: bool) -> bool {
    bit.pass(coder, value.into()) != 0
}

/// Bits of a number that is not predicted, the highest first.
fn plain(coder: &mut impl Channel, value: u64, bits: u32) -> u64 {
    (0..bits).rev().fold(0, |number, n| number << 1 | u64::from(coder.pass((value >> n) as u8 & 1, 1 << 15)))
}

/// A number of `BITS` bits, each known by those above it.
#[derive(Clone)]
struct Tree<const NODES: usize>([Bit; NODES]);

impl<const NODES: usize> Tree<NODES> {
    const NEW: Tree<NODES> = Tree([Bit::NEW; NODES]);

    fn pass(&mut self, coder: &mut impl Channel, value: u32) -> u32 {
        let bits = NODES.ilog2();
        let mut node = 1;
        for n in (0..bits).rev() {
            let bit = (value >> n) as u8 & 1;
            let bit = self.0.get_mut(node).map_or(0, |at| at.pass(coder, bit));
            node = node << 1 | usize::from(bit);
        }
        (node - NODES) as u32
    }
}

/// A number with a sign, small ones likely: how many bits it has, and those.
#[derive(Clone)]
struct Signed {
    len: Tree<32>,
    sign: Bit,
    next: [Bit; 32],
}

impl Signed {
    const NEW: Signed = Signed { len: Tree::NEW, sign: Bit::NEW, next: [Bit::NEW; 32] };

    fn pass(&mut self, coder: &mut impl Channel, value: i32) -> i32 {
        let size = value.unsigned_abs();
        let len = self.len.pass(coder, 32 - size.leading_zeros());
        let Some(rest) = len.checked_sub(1) else { return 0 };
        let negative = flag(coder, &mut self.sign, value < 0);
        let mut size_is = 1u32;
        for n in (0..rest).rev() {
            let bit = (size >> n) as u8 & 1;
            // The highest one is worth a look.
            let bit = match self.next.get_mut(len as usize).filter(|_| n + 1 == rest) {
                Some(next) => next.pass(coder, bit),
                None => coder.pass(bit, 1 << 15),
            };
            size_is = size_is << 1 | u32::from(bit);
        }
        let size = size_is as i32;
        if negative { size.wrapping_neg() } else { size }
    }
}

/// Steps of an octave by which means are told apart.
const STEPS: u32 = 16;
/// Octaves of small means that are looked at by themselves.
const OCTAVES: usize = 4;
/// Parameters, as what they are above the octave of the mean less this; the last one says that it is none of these.
const BELOW: i32 = 5;
const NONE: u32 = 15;
/// Parts that are tried when their number is guessed, as a power of two: most encoders make no more.
const GUESSED_PARTS_MAX: u32 = 8;

/// What is known of a channel from its last frames.
#[derive(Clone)]
struct Voice {
    kind: u32,
    wasted: u32,
    precision: u32,
    shift: u32,
    way: usize,
    same_kind: [Bit; 2],
    kinds: Tree<64>,
    wasteds: [Tree<32>; 2],
    precisions: [Tree<16>; 2],
}

impl Voice {
    const NEW: Voice = Voice {
        kind: 0,
        wasted: 0,
        precision: 0,
        shift: 0,
        way: 0,
        same_kind: [Bit::NEW; 2],
        kinds: Tree::NEW,
        wasteds: [Tree::NEW; 2],
        precisions: [Tree::NEW; 2],
    };
}

/// What frames say, as it is learned.
pub(super) struct Side {
    last: Head,
    same_form: Bit,
    same_size: Bit,
    goes_on: Bit,
    assignments: Vec<Tree<16>>,
    voices: Vec<Voice>,
    windows: Windows,
    same_way: Bit,
    ways: Tree<32>,
    same_shift: Bit,
    shifts: Tree<32>,
    /// How coefficients differ from what is expected: by whether the one before was right, and where in the row they are.
    coefficients: Vec<Signed>,
    long: [Bit; 2],
    was_long: bool,
    /// The most parts so far, as a power of two.
    top: u32,
    parts: Vec<Tree<16>>,
    parameters: Vec<Tree<16>>,
    others: Tree<64>,
}

impl Side {
    pub fn new() -> Side {
        Side {
            last: Head::default(),
            same_form: Bit::NEW,
            same_size: Bit::NEW,
            goes_on: Bit::NEW,
            assignments: vec![Tree::NEW; 16],
            voices: vec![Voice::NEW; CHANNELS_MAX],
            windows: Windows::default(),
            same_way: Bit::NEW,
            ways: Tree::NEW,
            same_shift: Bit::NEW,
            shifts: Tree::NEW,
            coefficients: vec![Signed::NEW; 8],
            long: [Bit::NEW; 2],
            was_long: false,
            top: 0,
            parts: vec![Tree::NEW; 256],
            parameters: vec![Tree::NEW; (OCTAVES + 1) * STEPS as usize],
            others: Tree::NEW,
        }
    }

    /// A head, which is given or comes back.
    pub fn head(&mut self, coder: &mut impl Channel, head: &Head) -> Head {
        let mut out = Head { form: self.last.form, ..*head };
        if !flag(coder, &mut self.same_form, head.form == self.last.form) {
            let mut field = |value: u16, bits| plain(coder, value.into(), bits) as u16;
            let form = head.form;
            out.form = Form {
                variable: field(form.variable.into(), 1) != 0,
                size_code: field(form.size_code.into(), 4) as u8,
                rate_code: field(form.rate_code.into(), 4) as u8,
                bits_code: field(form.bits_code.into(), 3) as u8,
                rate: field(form.rate, 16),
            };
        }
        out.size = self.last.size;
        if !flag(coder, &mut self.same_size, head.size == self.last.size) {
            out.size = plain(coder, u64::from(head.size.wrapping_sub(1) & (SIZE_MAX - 1)), 16) as u32 + 1;
        }
        let expected = self.last.number + if self.last.form.variable { u64::from(self.last.size) } else { 1 };
        out.number = expected;
        if !flag(coder, &mut self.goes_on, head.number == expected) {
            out.number = plain(coder, head.number, 36);
        }
        let tree = self.assignments.get_mut(usize::from(self.last.assignment));
        out.assignment = tree.map_or(0, |tree| tree.pass(coder, head.assignment.into())) as u8;
        self.last = out;
        out
    }

    /// What is said of a channel whose samples are known, and its residual. `None` where it cannot be.
    pub fn subframe(
        &mut self,
        coder: &mut impl Channel,
        channel: usize,
        subframe: Option<&Subframe>,
        samples: impl FnOnce(u8) -> Vec<i32>,
    ) -> Option<(Subframe, Vec<i32>, Vec<i64>)> {
        let voice = self.voices.get_mut(channel)?;
        let kind = subframe.map_or(0, |subframe| match &subframe.predictor {
            Predictor::Constant => 0,
            Predictor::Verbatim => 1,
            Predictor::Fixed(order) => 8 + u32::from(*order),
            Predictor::Linear { coefficients, .. } => 31 + coefficients.len() as u32,
        });
        let same = voice.same_kind.get_mut(usize::from(voice.kind >= 32))?;
        if !flag(coder, same, kind == voice.kind) {
            voice.kind = voice.kinds.pass(coder, kind);
        }
        let wasted = subframe.map_or(0, |subframe| u32::from(subframe.wasted));
        let wasted = voice.wasteds.get_mut(usize::from(voice.wasted > 0))?.pass(coder, wasted);
        voice.wasted = wasted;
        let (kind, wasted) = (voice.kind, wasted as u8);
        let samples = samples(wasted);
        let predictor = match kind {
            0 => Predictor::Constant,
            1 => Predictor::Verbatim,
            8..=12 => Predictor::Fixed(kind as u8 - 8),
            32..=63 => self.linear(coder, channel, kind as usize - 31, subframe.map(|s| &s.predictor), &samples)?,
            _ => return None,
        };
        if predictor.order() > samples.len() {
            return None;
        }
        let mut made = Subframe { predictor, wasted, rice: Rice::default() };
        let mut residual = Vec::new();
        if made.predictor.has_residual() {
            residual = made.predictor.residual(&samples);
            made.rice = self.rice(coder, made.predictor.order(), subframe.map(|s| &s.rice), &residual)?;
        }
        Some((made, samples, residual))
    }

    fn linear(
        &mut self,
        coder: &mut impl Channel,
        channel: usize,
        order: usize,
        given: Option<&Predictor>,
        samples: &[i32],
    ) -> Option<Predictor> {
        let voice = self.voices.get_mut(channel)?;
        let (precision, shift, coefficients) = match given {
            Some(Predictor::Linear { precision, shift, coefficients }) => {
                (u32::from(*precision), u32::from(*shift), coefficients.as_slice())
            }
            _ => (0, 0, &[][..]),
        };
        let known = usize::from(voice.precision > 0);
        let precision = voice.precisions.get_mut(known)?.pass(coder, precision);
        if precision == 0 {
            return None;
        }
        voice.precision = precision;
        // The way that leads to the most of them.
        let (last, known) = (voice.way, &mut self.windows);
        let mut cost = |way: usize| {
            let Guess { shift: guessed, coefficients: row } = known.guess(samples, order, precision, way);
            let off: u64 = row.iter().zip(coefficients).map(|(a, b)| u64::from(a.abs_diff(*b).min(1 << 10))).sum();
            off + u64::from(guessed.abs_diff(shift)) * (1 << 10)
        };
        let way = match given {
            // The last one as long as it does.
            Some(_) if cost(last) > order as u64 => {
                std::iter::once(last).chain((0..WAYS).filter(|way| *way != last)).min_by_key(|way| cost(*way))?
            }
            Some(_) | None => last,
        };
        let way = match flag(coder, &mut self.same_way, way == last) {
            true => last,
            false => self.ways.pass(coder, way as u32) as usize,
        };
        voice.way = way;
        let expected = self.windows.guess(samples, order, precision, way);
        let shift = match flag(coder, &mut self.same_shift, shift == expected.shift) {
            true => expected.shift,
            false => self.shifts.pass(coder, shift),
        };
        if shift > 15 {
            return None;
        }
        voice.shift = shift;
        let mut out = Vec::with_capacity(order);
        let mut missed = 3;
        for n in 0..order {
            let guessed = expected.coefficients.get(n).copied().unwrap_or(0);
            let given = coefficients.get(n).copied().unwrap_or(0);
            let off = self.coefficients.get_mut(missed)?.pass(coder, given.wrapping_sub(guessed));
            missed = match off.unsigned_abs() {
                0 => 0,
                1 => 1,
                2..8 => 2,
                8..64 => 4,
                64..512 => 5,
                _ => 6,
            };
            out.push(guessed.wrapping_add(off));
        }
        Some(Predictor::Linear { precision: precision as u8, shift: shift as u8, coefficients: out })
    }

    fn rice(&mut self, coder: &mut impl Channel, order: usize, given: Option<&Rice>, residual: &[i64]) -> Option<Rice> {
        let was_long = usize::from(self.was_long);
        let long = flag(coder, self.long.get_mut(was_long)?, given.is_some_and(|rice| rice.long));
        self.was_long = long;
        let guessed = guessed_parts(residual, order, self.top);
        let tree = self.parts.get_mut((guessed * 16 + self.top) as usize)?;
        let parts = given.and_then(|rice| rice.parts.len().checked_ilog2()).unwrap_or(0);
        let parts = tree.pass(coder, parts);
        self.top = self.top.max(parts);
        let mut made = Rice { long, parts: Vec::new() };
        let mut given = given.into_iter().flat_map(|rice| &rice.parts);
        for part in Rice::split(residual, order, 1 << parts.min(PARTS_MAX))? {
            let (octave, step) = mean(part.iter().map(|left| left.unsigned_abs()).sum(), part.len());
            let context = (octave.clamp(0, OCTAVES as i32) as u32 * STEPS + step) as usize;
            let of = given.next().copied();
            let relative = match of {
                Some(Part::Rice(parameter)) => i32::from(parameter) - octave + BELOW,
                Some(Part::Plain(_)) | None => NONE as i32,
            };
            let relative = u32::try_from(relative).unwrap_or(NONE).min(NONE);
            let relative = self.parameters.get_mut(context)?.pass(coder, relative);
            made.parts.push(if relative == NONE {
                let other = match of {
                    Some(Part::Rice(parameter)) => u32::from(parameter),
                    Some(Part::Plain(bits)) => 32 + u32::from(bits),
                    None => 0,
                };
                match self.others.pass(coder, other) as u8 {
                    bits @ 32.. => Part::Plain(bits - 32),
                    parameter => Part::Rice(parameter),
                }
            } else {
                Part::Rice(u8::try_from(relative as i32 + octave - BELOW).ok()?)
            });
        }
        let fits = |part: &Part| match *part {
            Part::Rice(parameter) => u32::from(parameter) < Rice::escape(long),
            Part::Plain(bits) => bits < 32,
        };
        made.parts.iter().all(fits).then_some(made)
    }
}

/// The octave of a mean, and which step of it.
fn mean(sum: u64, count: usize) -> (i32, u32) {
    let mean = (u128::from(sum) << 16) / (count.max(1) as u128) + 1;
    let octave = mean.ilog2();
    let step = (mean << 4 >> octave) as u32 & (STEPS - 1);
    (octave as i32 - 16, step)
}

/// About what a part takes by the best parameter: bits.
fn cost(sum: u64, count: usize) -> u64 {
    let (octave, _) = mean(sum, count);
    let parameter = octave.max(0) as u32;
    4 + (u64::from(parameter) + 1) * count as u64 + if parameter > 0 { sum >> (parameter - 1) } else { sum << 1 }
}

/// How many parts code a residual to the fewest bits, nearly, as a power of two, and at most `top`.
fn guessed_parts(residual: &[i64], order: usize, top: u32) -> u32 {
    let most = (0..=GUESSED_PARTS_MAX.min(top)).rev().find(|n| Rice::split(residual, order, 1 << n).is_some());
    let most = most.unwrap_or(0);
    let Some(parts) = Rice::split(residual, order, 1 << most) else { return 0 };
    let sum = |part: &[i64]| part.iter().map(|left| left.unsigned_abs() & ((1 << 40) - 1)).sum();
    let mut sums: Vec<(u64, usize)> = parts.map(|part| (sum(part), part.len())).collect();
    let mut best = (u64::MAX, 0);
    for parts in (0..=most).rev() {
        let bits = sums.iter().map(|(sum, count)| cost(*sum, *count)).sum();
        best = best.min((bits, parts));
        sums = sums.chunks(2).map(|two| two.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))).collect();
    }
    best.1
}
