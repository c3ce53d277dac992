//! Elementwise arithmetic that gives the same bits on every machine.
//!
//! Only additions, subtractions, multiplications, divisions and square roots, which IEEE 754 rounds correctly, in an order
//! that is written down; no fused operation, no function of a mathematics library. Sums are made in `LANES` lanes and then in
//! a fixed tree, so that a vector unit of any width up to that gives the sum that a loop gives. Comparisons are written out,
//! so that what is not a number always goes the same way.
//!
//! `exp` is the polynomial of the Cephes library (S. Moshier, 1989). Sine, cosine and powers are Taylor series in 64 bits,
//! computed once when a model is loaded.

/// Lanes of a sum.
pub(super) const LANES: usize = 16;

/// Added and taken away, it rounds what is below 2^22 to an integer, ties to the even one; the integer is then in the low
/// bits of the sum.
const ROUNDER: f32 = 12_582_912.0;
const ROUNDER_BITS: u32 = 0x4B40_0000;

/// The greater; the second where either is not a number.
#[inline(always)]
pub(super) fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The less; the second where either is not a number.
#[inline(always)]
pub(super) fn less(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The nearest integer, ties to the even one, within -`bound` and `bound`, which is below 2^22. What is not a number gives
/// `bound`.
#[inline(always)]
pub(super) fn nearest(x: f32, bound: f32) -> i32 {
    let x = greater(less(x, bound), -bound);
    (x + ROUNDER).to_bits().wrapping_sub(ROUNDER_BITS) as i32
}

/// e to the power of `x`, which is at most 0. From -87 down it is as that of -87, which is about 1.6e-38.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = greater(x, -87.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = x - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = (p * r) * r + r + 1.0;
    let power = rounded.to_bits().wrapping_sub(ROUNDER_BITS).wrapping_add(127) << 23;
    y * f32::from_bits(power)
}

/// x / (1 + exp(-x)), the activation of the Llama family.
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    let e = exp(-x.abs());
    let top = if x < 0.0 { e } else { 1.0 };
    x * (top / (1.0 + e))
}

/// x / (1 + exp(-2 r (x + 0.044715 x^3))) with r = root(2 / pi): x / 2 (1 + tanh(r (x + 0.044715 x^3))), the activation of
/// Gemma.
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let y = 1.595_769 * (x + ((0.044_715 * x) * x) * x);
    let e = exp(-y.abs());
    let top = if y < 0.0 { e } else { 1.0 };
    x * (top / (1.0 + e))
}

/// x / (1 + exp(-1.702 x)), the activation of iGPT.
#[inline(always)]
pub(super) fn quick_gelu(x: f32) -> f32 {
    let y = 1.702 * x;
    let e = exp(-y.abs());
    let top = if y < 0.0 { e } else { 1.0 };
    x * (top / (1.0 + e))
}

/// Sum of what a function makes of the elements, whose number is a multiple of `LANES`.
#[inline(always)]
pub(super) fn sum(xs: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for part in xs.as_chunks::<LANES>().0 {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane += f(*x);
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// The greatest of what a function makes of the elements, and of `least`. A maximum has no order.
#[inline(always)]
pub(super) fn greatest(xs: &[f32], least: f32, f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [least; LANES];
    let (parts, rest) = xs.as_chunks::<LANES>();
    for part in parts {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane = greater(f(*x), *lane);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = greater(f(*x), *lane);
    }
    lanes.iter().fold(least, |a, b| greater(*b, a))
}

/// 1 by the root of the mean square of a row.
#[inline(always)]
fn factor_of(row: &[f32], epsilon: f32) -> f32 {
    let mean = sum(row, |x| x * x) / row.len() as f32;
    1.0 / (mean + epsilon).sqrt()
}

/// Divides a row by the root of its mean square, and weighs it.
#[inline(always)]
pub(super) fn normalise(row: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]) {
    let factor = factor_of(row, epsilon);
    for ((out, x), w) in out.iter_mut().zip(row).zip(weights) {
        *out = (*x * factor) * *w;
    }
}

/// Takes the mean away from a row, divides it by the root of what its mean square then is, weighs it, and adds to it.
#[inline(always)]
pub(super) fn centre(row: &[f32], weights: &[f32], biases: &[f32], epsilon: f32, out: &mut [f32]) {
    let mean = sum(row, |x| x) / row.len() as f32;
    let variance = sum(row, |x| (x - mean) * (x - mean)) / row.len() as f32;
    let factor = 1.0 / (variance + epsilon).sqrt();
    for (((out, x), w), b) in out.iter_mut().zip(row).zip(weights).zip(biases) {
        *out = ((*x - mean) * factor) * *w + *b;
    }
}

/// As `normalise`, in place.
#[inline(always)]
pub(super) fn normalise_in_place(row: &mut [f32], weights: &[f32], epsilon: f32) {
    let factor = factor_of(row, epsilon);
    for (x, w) in row.iter_mut().zip(weights) {
        *x = (*x * factor) * *w;
    }
}

/// The integer below, and ln 2, pi / 2 in three parts whose products with small integers are exact.
const LN_2: f64 = std::f64::consts::LN_2;
const HALF_PI: [f64; 3] = [1.570_796_251_296_997, 7.549_789_415_861_596e-8, 5.390_302_858_158_12e-15];
/// `ROUNDER` of 64 bits.
const ROUNDER_64: f64 = 6_755_399_441_055_744.0;

/// Sine and cosine of an angle below 2^20.
pub(super) fn sine_cosine(angle: f64) -> (f64, f64) {
    let n = (angle * std::f64::consts::FRAC_2_PI + ROUNDER_64) - ROUNDER_64;
    let r = ((angle - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2];
    let series = |first: f64, from: f64| {
        let (mut term, mut total, mut k) = (first, first, from);
        for _ in 0..12 {
            term = -term * r * r / (k * (k + 1.0));
            total += term;
            k += 2.0;
        }
        total
    };
    let (sine, cosine) = (series(r, 2.0), series(1.0, 1.0));
    match (n as i64).rem_euclid(4) {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

/// `base` to the power of `exponent`; the base at least 1, the result below 2^1000.
pub(super) fn power(base: f64, exponent: f64) -> f64 {
    let (mut mantissa, mut twos) = (base, 0.0);
    while mantissa > 1.5 {
        mantissa /= 2.0;
        twos += 1.0;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)).
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let (mut term, mut logarithm, mut k) = (z, z, 1.0);
    for _ in 0..24 {
        term = term * z * z;
        k += 2.0;
        logarithm += term / k;
    }
    let x = exponent * (2.0 * logarithm + twos * LN_2);
    let n = (x / LN_2 + ROUNDER_64) - ROUNDER_64;
    let r = x - n * LN_2;
    let (mut term, mut total, mut k) = (1.0, 1.0, 1.0);
    for _ in 0..20 {
        term = term * r / k;
        total += term;
        k += 1.0;
    }
    let halves = if n < 0.0 { 0.5 } else { 2.0 };
    (0..(n.abs() as u32).min(1000)).fold(total, |t, _| t * halves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_near_those_of_the_library() {
        for i in 0..20_000 {
            let x = -(i as f32) * 0.004;
            assert!((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs() < 3e-7, "exp {x}");
            let x = (i - 10_000) as f32 * 0.002;
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(silu(x)) - exact).abs() < 1e-6 * exact.abs().max(1e-3), "silu {x}");
            let y = f64::from(x);
            let exact = 0.5 * y * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (y + 0.044_715 * y * y * y)).tanh());
            assert!((f64::from(gelu(x)) - exact).abs() < 2e-6 * exact.abs().max(1e-3), "gelu {x}");
            let exact = y / (1.0 + (-1.702 * y).exp());
            assert!((f64::from(quick_gelu(x)) - exact).abs() < 2e-6 * exact.abs().max(1e-3), "quick_gelu {x}");
            let angle = f64::from(i) * 1.37;
            let (sine, cosine) = sine_cosine(angle);
            assert!((sine - angle.sin()).abs() < 1e-11 && (cosine - angle.cos()).abs() < 1e-11, "{angle}");
        }
        for (base, exponent) in [(10_000.0, 0.5), (500_000.0, 0.984), (100_000.0, 1.0 / 32.0), (2.0, 10.0), (9.0, -1.5)]
        {
            let exact = f64::powf(base, exponent);
            assert!((power(base, exponent) / exact - 1.0).abs() < 1e-13, "{base} {exponent}");
        }
    }

    #[test]
    fn rows_are_centred() {
        let row: Vec<f32> = (0..48).map(|i| 3.0 + (i * i % 17) as f32 * 0.25).collect();
        let (weights, biases): (Vec<f32>, Vec<f32>) = (0..48).map(|i| (1.0 + i as f32 * 0.01, i as f32 * 0.1)).unzip();
        let mut out = vec![0.0; 48];
        centre(&row, &weights, &biases, 1e-5, &mut out);
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / 48.0;
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 48.0;
        for (((x, w), b), got) in row.iter().zip(&weights).zip(&biases).zip(out) {
            let exact = (f64::from(*x) - mean) / (variance + 1e-5).sqrt() * f64::from(*w) + f64::from(*b);
            assert!((f64::from(got) - exact).abs() < 1e-5, "{got}, {exact}");
        }
    }

    #[test]
    fn what_is_not_a_number_goes_one_way() {
        assert_eq!(nearest(f32::NAN, 127.0), 127);
        assert_eq!((nearest(1e30, 127.0), nearest(-1e30, 8128.0)), (127, -8128));
        assert_eq!((nearest(2.5, 127.0), nearest(-2.5, 127.0), nearest(3.5, 127.0)), (2, -2, 4));
        assert_eq!(greatest(&[f32::NAN, 3.0, f32::NAN], 0.0, |x| x), 3.0);
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert_eq!(exp(0.0), 1.0);
        assert_eq!((gelu(1e30), gelu(-1e30), gelu(0.0)), (1e30, -1e30 * exp(-87.0), 0.0));
    }

    #[test]
    fn sums_have_one_order() {
        let xs: Vec<f32> = (0..64).map(|i| 1.0 / (i as f32 + 0.3)).collect();
        let mut longer = xs.clone();
        longer.extend([0.0; 32]);
        assert_eq!(sum(&xs, |x| x * x).to_bits(), sum(&longer, |x| x * x).to_bits());
        assert_eq!(sum(&xs, |x| x).to_bits(), GOLDEN_SUM);
    }

    const GOLDEN_SUM: u32 = 1_089_802_417;
}
