//! Products of small integers, summed exactly: unsigned bytes by signed bytes into 32 bits.
//!
//! Whole numbers have no order: every way of computing these sums gives the same, on any machine, for any number of rows
//! at a time. Four ways are here: plain Rust, NEON, AVX2 and AVX-512 VNNI; which one a machine has is found out when it runs.
//!
//! A product of a byte and a signed byte is below 2^15 in magnitude, so that sums of `COLUMNS_MAX` of them stay within 32
//! bits. No way may saturate on the way there: AVX2's product of unsigned by signed bytes does, and is not used.

#[cfg(target_arch = "aarch64")]
mod arm;
mod plain;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::pages::Line;
use archmage::{NeonToken, SimdToken, X64V3Token, X64V4xToken};

/// Longest sum: 255 * 128 * COLUMNS_MAX is below 2^31.
pub(in crate::models::lm) const COLUMNS_MAX: usize = 65_536;
const _: () = assert!(255 * 128 * (COLUMNS_MAX as u64) < 1 << 31);

/// Sums of sixteen rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(in crate::models::lm) struct Sums(pub [i32; 16]);

impl Sums {
    pub const ZERO: Sums = Sums([0; 16]);
}

/// A way to compute, which the machine has.
#[derive(Clone, Copy, Debug)]
pub enum Path {
    Plain,
    Neon(NeonToken),
    Avx2(X64V3Token),
    Vnni(X64V4xToken),
}

impl Path {
    /// Those that this machine has, the fastest first.
    pub fn all() -> Vec<Path> {
        let vnni = X64V4xToken::summon().map(Path::Vnni);
        let avx2 = X64V3Token::summon().map(Path::Avx2);
        let neon = NeonToken::summon().map(Path::Neon);
        vnni.into_iter().chain(avx2).chain(neon).chain([Path::Plain]).collect()
    }

    /// The fastest.
    pub fn best() -> Path {
        Path::all().first().copied().unwrap_or(Path::Plain)
    }

    pub fn name(self) -> &'static str {
        match self {
            Path::Plain => "plain",
            Path::Neon(_) => "NEON",
            Path::Avx2(_) => "AVX2",
            Path::Vnni(_) => "AVX-512 VNNI",
        }
    }
}

/// Sums products of bytes: one way of it.
pub(in crate::models::lm) trait Dot: Copy {
    /// Adds to `sums[m][t]` the products of the bytes `left[k][t]`, sixteen rows of four, with the four signed bytes
    /// `right[m][k]`, the first in the lowest bits, for every `k` that both have. Meanwhile `next[k]`, which is wanted next, is
    /// fetched from memory.
    fn dot<const M: usize, const T: usize, const N: usize>(
        self,
        left: &[[Line; T]],
        right: [&[i32]; M],
        sums: &mut [[Sums; T]; M],
        next: &[[Line; N]],
    );

    /// Fetches lines from memory, where the machine has a way to do that.
    fn fetch(self, _lines: &[Line]) {}
}

/// Calls `f` for parts of `rows` rows of the sizes that a kernel is made for, from the first row on.
macro_rules! in_parts {
    ($rows:expr, |$at:ident, $m:ident| $body:expr) => {{
        let rows: usize = $rows;
        let mut $at = 0;
        while $at < rows {
            match rows - $at {
                1 => {
                    const $m: usize = 1;
                    $body;
                    $at += 1;
                }
                2 | 3 => {
                    const $m: usize = 2;
                    $body;
                    $at += 2;
                }
                4 | 5 => {
                    const $m: usize = 4;
                    $body;
                    $at += 4;
                }
                6 | 7 => {
                    const $m: usize = 6;
                    $body;
                    $at += 6;
                }
                _ => {
                    const $m: usize = 8;
                    $body;
                    $at += 8;
                }
            }
        }
    }};
}
pub(in crate::models::lm) use in_parts;

/// Defines a function that runs the same text by every path, compiled for each: `fn name(arguments) = body`, where `body` is
/// generic over `Dot`, takes one as its first argument, and is always inlined.
macro_rules! by_path {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $body:path;) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(path: $crate::models::lm::kernels::Path, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[archmage::arcane]
            fn avx2(token: archmage::X64V3Token, $($arg: $type),*) {
                $body(token, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[archmage::arcane]
            fn vnni(token: archmage::X64V4xToken, $($arg: $type),*) {
                $body(token, $($arg),*)
            }
            #[cfg(target_arch = "aarch64")]
            #[archmage::arcane]
            fn neon(token: archmage::NeonToken, $($arg: $type),*) {
                $body(token, $($arg),*)
            }
            match path {
                #[cfg(target_arch = "aarch64")]
                $crate::models::lm::kernels::Path::Neon(token) => neon(token, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::models::lm::kernels::Path::Avx2(token) => avx2(token, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::models::lm::kernels::Path::Vnni(token) => vnni(token, $($arg),*),
                _ => $body($crate::models::lm::kernels::Plain, $($arg),*),
            }
        }
    };
}
pub(in crate::models::lm) use by_path;
pub(in crate::models::lm) use plain::Plain;

#[cfg(test)]
mod tests {
    use super::*;

    fn sums_body(d: impl Dot, left: &[[Line; 3]], right: &[Vec<i32>], out: &mut Vec<[Sums; 3]>) {
        in_parts!(right.len(), |at, M| {
            let rows: [&[i32]; M] = std::array::from_fn(|m| &right[at + m][..]);
            let mut sums = [[Sums([7; 16]); 3]; M];
            d.dot(left, rows, &mut sums, left);
            out.extend(sums);
        });
    }

    by_path! { fn sums(left: &[[Line; 3]], right: &[Vec<i32>], out: &mut Vec<[Sums; 3]>) = sums_body; }

    #[test]
    fn every_path_gives_the_sums_that_integers_have() {
        let mut x = 1u64;
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // The extremes come often: they are what would saturate.
            match x >> 33 & 7 {
                0 => 255,
                1 => 128,
                2 => 127,
                _ => (x >> 40) as u8,
            }
        };
        for (steps, rows) in [(1, 1), (7, 3), (144, 8), (145, 31), (0, 2), (300, 13)] {
            let left: Vec<[Line; 3]> = (0..steps).map(|_| [(); 3].map(|()| [(); 64].map(|()| next()))).collect();
            let right: Vec<Vec<i32>> =
                (0..rows).map(|_| (0..steps).map(|_| i32::from_le_bytes([(); 4].map(|()| next()))).collect()).collect();
            let mut expected = Vec::new();
            for row in &right {
                let mut of_row = [Sums([7; 16]); 3];
                for (l, r) in left.iter().zip(row) {
                    for (t, sums) in of_row.iter_mut().enumerate() {
                        for (lane, sum) in sums.0.iter_mut().enumerate() {
                            for (j, r) in r.to_le_bytes().into_iter().enumerate() {
                                *sum += i32::from(l[t][lane * 4 + j]) * i32::from(r as i8);
                            }
                        }
                    }
                }
                expected.push(of_row);
            }
            for path in Path::all() {
                let mut out = Vec::new();
                sums(path, &left, &right, &mut out);
                assert!(out == expected, "{} with {steps} steps of {rows} rows", path.name());
            }
        }
    }
}
