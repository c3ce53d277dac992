//! Logarithms of the logistic distribution, in 1/256 nats, as tables. They are computed when the program is built, by sums,
//! products and quotients of f64 alone, which are exact everywhere, and pinned by a test.

use crate::entropy::STRETCH_MAX;

/// Arguments go from `-Z_MAX - 1` to `Z_MAX`, 1/256.
pub const Z_MAX: i32 = STRETCH_MAX;
const ENTRIES: usize = 2 * Z_MAX as usize + 2;

/// e^(1/256), by its series.
const fn step() -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while k < 12.0 {
        term = term / (256.0 * k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// Natural logarithm of a positive number: what powers of two leave of it by the series of the inverse hyperbolic tangent.
const fn ln(mut y: f64) -> f64 {
    let mut twos = 0.0;
    while y > 1.5 {
        y *= 0.5;
        twos += 1.0;
    }
    while y < 0.75 {
        y *= 2.0;
        twos -= 1.0;
    }
    let t = (y - 1.0) / (y + 1.0);
    let (mut sum, mut power, mut k) = (0.0, t, 1.0);
    while k < 40.0 {
        sum += power / k;
        power *= t * t;
        k += 2.0;
    }
    2.0 * sum + twos * std::f64::consts::LN_2
}

const fn rounded(x: f64) -> i16 {
    (if x < 0.0 { x * 256.0 - 0.5 } else { x * 256.0 + 0.5 }) as i16
}

/// ln(1 + e^-z).
const fn tails() -> [i16; ENTRIES] {
    let mut table = [0; ENTRIES];
    let (step, mut e, mut i) = (step(), 1.0, 0);
    while i <= Z_MAX as usize + 1 {
        table[Z_MAX as usize + 1 - i] = rounded(ln(1.0 + e));
        if i <= Z_MAX as usize {
            table[Z_MAX as usize + 1 + i] = rounded(ln(1.0 + 1.0 / e));
        }
        e *= step;
        i += 1;
    }
    table
}

/// ln(e^d - 1); for no distance at all that of half a unit.
const fn gaps() -> [i16; Z_MAX as usize + 1] {
    let mut table = [0; Z_MAX as usize + 1];
    let (step, mut e, mut i) = (step(), 1.0, 0);
    while i <= Z_MAX as usize {
        table[i] = rounded(ln(if i == 0 { 1.0 / 512.0 } else { e - 1.0 }));
        e *= step;
        i += 1;
    }
    table
}

static TAILS: [i16; ENTRIES] = tails();
static GAPS: [i16; Z_MAX as usize + 1] = gaps();

/// ln(1 + e^-z): what the part of the distribution above `z` is short of all of it.
#[inline(always)]
pub fn tail(z: i32) -> i32 {
    i32::from(TAILS[((z + Z_MAX + 1).max(0) as usize).min(ENTRIES - 1)])
}

/// ln(e^d - 1), of a distance of two places.
#[inline(always)]
pub fn gap(d: i32) -> i32 {
    i32::from(GAPS[(d.max(0) as usize).min(Z_MAX as usize)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::crc32c;

    #[test]
    fn tables_are_pinned_and_right() {
        let bytes = |table: &[i16]| crc32c(&table.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        for z in (-Z_MAX..=Z_MAX).step_by(7) {
            let x = f64::from(z) / 256.0;
            assert!((f64::from(tail(z)) - 256.0 * (-x).exp().ln_1p()).abs() < 0.51, "{z}");
            assert!(z <= 0 || (f64::from(gap(z)) - 256.0 * x.exp_m1().ln()).abs() < 0.51, "{z}");
        }
        assert_eq!((bytes(&TAILS), bytes(&GAPS)), GOLDEN);
    }

    const GOLDEN: (u32, u32) = (2836137880, 3881762625);
}
