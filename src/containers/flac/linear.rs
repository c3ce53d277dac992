//! The coefficients that an encoder is expected to find for samples: those of least squares (Levinson, Durbin) over the samples
//! under a window, rounded so that what is rounded off of one is added to the next. Encoders agree about all of it but the
//! window, of which some have several that they try, and how long their floats are.
//!
//! What is computed here decides how coefficients are coded, so it is done in one written order, by plain arithmetic alone.

use std::f64::consts::PI;

/// Ways that are known.
pub(super) const WAYS: usize = 30;
/// Coefficients at most.
const ORDER_MAX: usize = 32;
const SHIFT_MAX: u32 = 15;

/// What is expected.
#[derive(Default)]
pub(super) struct Guess {
    pub shift: u32,
    pub coefficients: Vec<i32>,
}

/// The cosine, to about 1e-10, of 0 to pi.
fn cosine(x: f64) -> f64 {
    // Nearer to zero the row is shorter.
    let (x, sign) = if x > PI / 2.0 { (PI - x, -1.0) } else { (x, 1.0) };
    let square = x * x;
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..9 {
        term = -term * square / f64::from((2 * n - 1) * (2 * n));
        sum += term;
    }
    sign * sum
}

/// The rise of a window that takes `of` samples, at one of them.
fn rise(n: usize, of: usize) -> f64 {
    if n >= of { 1.0 } else { 0.5 - 0.5 * cosine(PI * n as f64 / of as f64) }
}

/// Samples that rise at each end, as a part of all.
fn tukey(n: usize, len: usize, part: f64) -> f64 {
    let of = (part / 2.0 * len as f64) as usize;
    let Some(of) = of.checked_sub(1).filter(|of| *of > 0) else { return 1.0 };
    rise(n.min(len - 1 - n), of)
}

/// A part of the samples, between two places that are parts of all; nothing beside it.
fn partial(n: usize, len: usize, from: f64, to: f64) -> f64 {
    let (from, to) = ((from * len as f64) as usize, (to * len as f64) as usize);
    let of = (0.1 * to.saturating_sub(from) as f64) as usize;
    if n < from || n >= to { 0.0 } else { rise((n - from + 1).min(to - n), of) }
}

/// All samples but such a part.
fn punched(n: usize, len: usize, from: f64, to: f64) -> f64 {
    let (from, to) = ((from * len as f64) as usize, (to * len as f64) as usize);
    if n < from {
        rise((n + 1).min(from - n), (0.1 * from as f64) as usize)
    } else if n < to {
        0.0
    } else {
        rise((n - to + 1).min(len - n), (0.1 * len.saturating_sub(to) as f64) as usize)
    }
}

/// What autocorrelations are summed up in: encoders differ.
trait Sum: Copy + Default + std::ops::Mul<Output = Self> + std::ops::AddAssign + Into<f64> {
    fn of(x: f64) -> Self;
}

impl Sum for f64 {
    fn of(x: f64) -> f64 {
        x
    }
}

impl Sum for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
}

type Sums = [f64; ORDER_MAX + 1];

/// Products of samples under a window with those up to `order` later, summed up in their order.
fn under<S: Sum>(samples: &[i32], order: usize, window: impl Iterator<Item = f64>) -> Sums {
    let windowed = samples.iter().zip(window).map(|(sample, weight)| S::of(f64::from(*sample)) * S::of(weight));
    let windowed: Vec<S> = windowed.collect();
    let mut sums = [S::default(); ORDER_MAX + 1];
    let used = sums.get_mut(..=order).unwrap_or_default();
    for n in 0..windowed.len() {
        let later = windowed.get(n..).unwrap_or_default();
        let Some(first) = later.first() else { break };
        used.iter_mut().zip(later).for_each(|(sum, other)| *sum += *first * *other);
    }
    sums.map(Into::into)
}

/// Windows that were computed, for one number of samples.
#[derive(Default)]
pub(super) struct Windows {
    len: usize,
    shapes: [Vec<f64>; SHAPES],
}

/// The first six are those of libFLAC up to 1.3: all samples, two parts, and all but each of three. Then all samples, for two
/// parts and for three of them, as it is since 1.4; FFmpeg's, which is steep in the middle; and Welch's.
const SHAPES: usize = 10;
const DIVIDED: usize = 6;
const STEEP: usize = 8;
const WELCH: usize = 9;

/// One of them, at a sample.
fn weight(shape: usize, n: usize, len: usize) -> f64 {
    const HALVES: f64 = 1.0 / 0.9 - 1.0;
    const THIRDS: f64 = 1.0 / 0.8 - 1.0;
    let between =
        |n: usize, parts: f64, over: f64| (n as f64 / (parts + over), (n as f64 + 1.0 + over) / (parts + over));
    match shape {
        0 => tukey(n, len, 0.5),
        1 | 2 => {
            let (from, to) = between(shape - 1, 2.0, HALVES);
            partial(n, len, from, to)
        }
        3..=5 => {
            let (from, to) = between(shape - 3, 3.0, THIRDS);
            punched(n, len, from, to)
        }
        STEEP => {
            let x = 2.0 / (len as f64 - 1.0) - 1.0 - n.min(len - 1 - n) as f64;
            1.0 - x * x
        }
        WELCH => {
            let x = if len > 1 { 2.0 * n as f64 / (len - 1) as f64 - 1.0 } else { 0.0 };
            1.0 - x * x
        }
        _ => tukey(n, len, 0.5 / (shape - DIVIDED + 2) as f64),
    }
}

impl Windows {
    fn shape(&mut self, shape: usize, len: usize) -> &[f64] {
        if self.len != len {
            *self = Windows { len, ..Windows::default() };
        }
        let Some(of) = self.shapes.get_mut(shape) else { return &[] };
        if of.is_empty() {
            of.extend((0..len).map(|n| weight(shape, n, len)));
        }
        of
    }

    fn all<S: Sum>(&mut self, samples: &[i32], order: usize, shape: usize) -> Sums {
        under::<S>(samples, order, self.shape(shape, samples.len()).iter().copied())
    }

    /// All samples, then halves and what is left without each of them, then thirds likewise, as far as there are so many parts.
    /// A part lies under the two ends of the window of all.
    fn divided(&mut self, samples: &[i32], order: usize, parts_max: usize, n: usize) -> Sums {
        let (shape, len) = (DIVIDED + parts_max - 2, samples.len());
        let (parts, n) = match n {
            0 => return self.all::<f64>(samples, order, shape),
            1..=4 => (2, n - 1),
            _ => (3, n - 5),
        };
        let half = len / parts / 2;
        let own = samples.get(n % parts * len / parts..).unwrap_or_default();
        let own = own.get(..2 * half).unwrap_or(own);
        let window = self.shape(shape, len).iter();
        let part = under::<f64>(own, order, window.clone().take(half).chain(window.skip(len - half)).copied());
        if n < parts {
            return part;
        }
        let mut sums = self.all::<f64>(samples, order, shape);
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum -= part);
        sums
    }

    /// By one of the ways that encoders have: 0 to 5 and, with shorter floats, 6 to 11 by the first shapes, 12 to 16 and 17 to
    /// 27 by two parts and by three, then by the last two shapes.
    fn correlations(&mut self, samples: &[i32], order: usize, way: usize) -> Sums {
        match way {
            0..6 => self.all::<f64>(samples, order, way),
            6..12 => self.all::<f32>(samples, order, way - 6),
            12..17 => self.divided(samples, order, 2, way - 12),
            17..28 => self.divided(samples, order, 3, way - 17),
            28 => self.all::<f64>(samples, order, STEEP),
            _ => self.all::<f64>(samples, order, WELCH),
        }
    }
}

/// The coefficients of an order that predict samples with such correlations best.
fn solved(sums: &Sums, order: usize) -> Vec<f64> {
    let [mut error, ..] = *sums;
    let mut row: Vec<f64> = Vec::with_capacity(order);
    for n in 0..order {
        if error <= 0.0 {
            row.resize(order, 0.0);
            break;
        }
        let at = |n: usize| sums.get(n).copied().unwrap_or(0.0);
        let mut reflected = -at(n + 1);
        for (j, c) in row.iter().enumerate() {
            reflected -= c * at(n - j);
        }
        reflected /= error;
        let turned: Vec<f64> = row.iter().rev().copied().collect();
        row.iter_mut().zip(turned).for_each(|(c, other)| *c += reflected * other);
        row.push(reflected);
        error *= 1.0 - reflected * reflected;
    }
    row.iter().map(|c| -c).collect()
}

/// The nearest whole number, away from zero where there are two.
fn rounded(x: f64) -> i32 {
    (if x < 0.0 { x - 0.5 } else { x + 0.5 }) as i32
}

impl Windows {
    /// What is expected of an order, for coefficients of so many bits, by one of the ways.
    pub fn guess(&mut self, samples: &[i32], order: usize, precision: u32, way: usize) -> Guess {
        let order = order.min(ORDER_MAX);
        let precision = precision.clamp(1, 15);
        let row = solved(&self.correlations(samples, order, way), order);
        let most = row.iter().fold(0.0, |most: f64, c| {
            let size = if *c < 0.0 { -c } else { *c };
            if size > most { size } else { most }
        });
        // So that the largest has all its bits.
        let limit = f64::from(1u32 << (precision - 1));
        let fits = |shift: &u32| most * f64::from(1u32 << *shift) < limit;
        let shift = (0..=SHIFT_MAX).rev().find(fits).unwrap_or(0);
        let (least, most) = (-(1i32 << (precision - 1)), (1i32 << (precision - 1)) - 1);
        let mut off = 0.0;
        let rounded_off = |c: &f64| {
            off += c * f64::from(1u32 << shift);
            let whole = rounded(off).clamp(least, most);
            off -= f64::from(whole);
            whole
        };
        Guess { shift, coefficients: row.iter().map(rounded_off).collect() }
    }
}
