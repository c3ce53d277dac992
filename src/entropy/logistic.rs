//! The logistic function and its inverse as tables, computed by integers at compile time.

/// Largest stretched value either way: ln(p / (1 - p)) = 12 in 1/256, less one.
pub const STRETCH_MAX: i32 = 3071;

const SQUASH_LEN: usize = 2 * STRETCH_MAX as usize + 2;

/// e^(-1/256) in 1/2^62, by its series.
const fn decay() -> u128 {
    let one: u128 = 1 << 62;
    let mut sum = one;
    let mut term = one;
    let mut k = 1;
    while term > 0 {
        term = term / 256 / k;
        if k % 2 == 1 {
            sum -= term;
        } else {
            sum += term;
        }
        k += 1;
    }
    sum
}

/// 65536 / (1 + e^(-x/256)) for x from -STRETCH_MAX-1 to STRETCH_MAX, within 1 to 65535.
const fn squash_table() -> [u16; SQUASH_LEN] {
    let one: u128 = 1 << 62;
    let step = decay();
    let mut table = [0u16; SQUASH_LEN];
    let mut e = one;
    let mut x = 0;
    while x <= STRETCH_MAX as usize + 1 {
        let p = (one * 65536 + (one + e) / 2) / (one + e);
        let p = if p > 65535 { 65535 } else { p as u16 };
        if x <= STRETCH_MAX as usize {
            table[STRETCH_MAX as usize + 1 + x] = p;
        }
        let q = 65536 - p as u32;
        table[STRETCH_MAX as usize + 1 - x] = if q > 65535 { 65535 } else { q as u16 };
        e = (e * step) >> 62;
        x += 1;
    }
    table
}

/// Inverse of `squash` for 4096 probabilities: the smallest x whose squash is not below the middle of the step.
const fn stretch_table() -> [i16; 4096] {
    let mut table = [0i16; 4096];
    let mut x = 0;
    let mut i = 0;
    while i < 4096 {
        let p = i as u32 * 16 + 8;
        while x < SQUASH_LEN - 1 && (SQUASH[x] as u32) < p {
            x += 1;
        }
        table[i] = (x as i32 - STRETCH_MAX - 1) as i16;
        i += 1;
    }
    table
}

static SQUASH: [u16; SQUASH_LEN] = squash_table();
pub(super) static STRETCH: [i16; 4096] = stretch_table();

/// `SQUASH` from -4096 to 4095: the index needs no bounds.
const fn wide_squash_table() -> [u16; 8192] {
    let mut table = [0; 8192];
    let mut i = 0;
    while i < 8192 {
        let x = i - 4096;
        let x = if x < -STRETCH_MAX {
            -STRETCH_MAX
        } else if x > STRETCH_MAX {
            STRETCH_MAX
        } else {
            x
        };
        table[i as usize] = SQUASH[(x + STRETCH_MAX + 1) as usize];
        i += 1;
    }
    table
}

static WIDE_SQUASH: [u16; 8192] = wide_squash_table();

/// `squash` of a value that is within the bounds already.
#[inline(always)]
pub fn squash_within(x: i32) -> u16 {
    WIDE_SQUASH[(x + 4096) as usize & 8191]
}

/// Probability (1/65536) of a stretched value; beyond the bounds it is that of the bound.
#[inline]
pub fn squash(x: i32) -> u16 {
    let i = (x.clamp(-STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX + 1) as usize;
    SQUASH.get(i).copied().unwrap_or(1)
}

/// Stretched value of a probability (1/65536), which is taken to a precision of 1/4096.
#[inline]
pub fn stretch(p: u16) -> i32 {
    i32::from(STRETCH.get(usize::from(p >> 4)).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::crc32c;

    #[test]
    fn tables_are_pinned() {
        let squash: Vec<u8> = SQUASH.iter().flat_map(|p| p.to_le_bytes()).collect();
        let stretch: Vec<u8> = STRETCH.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!((crc32c(&squash), crc32c(&stretch)), GOLDEN);
    }

    const GOLDEN: (u32, u32) = (1959605371, 688779034);

    #[test]
    fn they_are_inverse_and_symmetric() {
        assert_eq!(squash(0), 32768);
        assert!((-STRETCH_MAX..STRETCH_MAX).all(|x| squash(x) <= squash(x + 1) && squash(x) == squash_within(x)));
        assert!((1..STRETCH_MAX).all(|x| u32::from(squash(x)) + u32::from(squash(-x)) == 65536));
        for p in (1000..65000u16).step_by(100) {
            assert!(squash(stretch(p)).abs_diff(p) < 100, "{p}");
        }
        assert!(squash(i32::MAX) == squash(STRETCH_MAX) && squash(i32::MIN) == squash(-STRETCH_MAX));
    }
}
