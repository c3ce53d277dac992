//! AVX2 and AVX-512 VNNI.

use archmage::prelude::*;
use prefetch_index::prefetch_index;
use safe_arch::prefetch_t1;

use super::{Dot, Line, Sums};

/// Steps whose right sides AVX2 widens at a time.
const WIDENED: usize = 64;

impl Dot for X64V4xToken {
    #[inline(always)]
    fn dot<const M: usize, const T: usize, const N: usize>(
        self,
        left: &[[Line; T]],
        right: [&[i32]; M],
        sums: &mut [[Sums; T]; M],
        next: &[[Line; N]],
    ) {
        vnni(self, left, right, sums, next);
    }

    #[inline(always)]
    fn fetch(self, lines: &[Line]) {
        lines.iter().for_each(prefetch_t1);
    }
}

impl Dot for X64V3Token {
    #[inline(always)]
    fn dot<const M: usize, const T: usize, const N: usize>(
        self,
        left: &[[Line; T]],
        right: [&[i32]; M],
        sums: &mut [[Sums; T]; M],
        next: &[[Line; N]],
    ) {
        avx2(self, left, right, sums, next);
    }

    #[inline(always)]
    fn fetch(self, lines: &[Line]) {
        lines.iter().for_each(prefetch_t1);
    }
}

/// One instruction adds four products to each of sixteen sums.
#[arcane(import_intrinsics)]
fn vnni<const M: usize, const T: usize, const N: usize>(
    _token: X64V4xToken,
    left: &[[Line; T]],
    right: [&[i32]; M],
    sums: &mut [[Sums; T]; M],
    next: &[[Line; N]],
) {
    let steps = right.iter().fold(left.len(), |n, r| n.min(r.len()));
    let left = &left[..steps];
    let mut rows: [&[i32]; M] = right;
    let mut registers = [[_mm512_setzero_si512(); T]; M];
    for m in 0..M {
        rows[m] = &right[m][..steps];
        for t in 0..T {
            registers[m][t] = _mm512_loadu_si512(&sums[m][t].0);
        }
    }
    for (k, left) in left.iter().enumerate() {
        // To the second cache: there may be twice as many on their way to it as to the first.
        if let Some(next) = next.get(k) {
            next.iter().for_each(prefetch_t1);
        }
        let mut l = [_mm512_setzero_si512(); T];
        for t in 0..T {
            l[t] = _mm512_loadu_si512(&left[t]);
        }
        for m in 0..M {
            let r = _mm512_set1_epi32(rows[m][k]);
            for t in 0..T {
                registers[m][t] = _mm512_dpbusd_epi32(registers[m][t], l[t], r);
            }
        }
    }
    for m in 0..M {
        for t in 0..T {
            _mm512_storeu_si512(&mut sums[m][t].0, registers[m][t]);
        }
    }
}

/// Both sides widened to 16 bits, products of two added in 32 bits. (The product of bytes that AVX2 has saturates.)
#[arcane(import_intrinsics)]
fn avx2<const M: usize, const T: usize, const N: usize>(
    _token: X64V3Token,
    left: &[[Line; T]],
    right: [&[i32]; M],
    sums: &mut [[Sums; T]; M],
    next: &[[Line; N]],
) {
    let steps = right.iter().fold(left.len(), |n, r| n.min(r.len()));
    let mut at = 0;
    while at < steps {
        let len = (steps - at).min(WIDENED);
        let left = &left[at..at + len];
        for n in at * N..(at + len) * N {
            prefetch_index(next.as_flattened(), n);
        }
        let mut wide = [[0i64; M]; WIDENED];
        for (m, right) in right.iter().enumerate() {
            for (wide, r) in wide.iter_mut().zip(&right[at..at + len]) {
                wide[m] = _mm_cvtsi128_si64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(*r)));
            }
        }
        for t in 0..T {
            for quarter in 0..4 {
                // Four rows of two sums each.
                let mut registers = [_mm256_setzero_si256(); M];
                for (left, wide) in left.iter().zip(&wide) {
                    let bytes: &[u8; 16] = &left[t].as_chunks::<16>().0[quarter];
                    let l = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes));
                    for m in 0..M {
                        let r = _mm256_set1_epi64x(wide[m]);
                        registers[m] = _mm256_add_epi32(registers[m], _mm256_madd_epi16(l, r));
                    }
                }
                for m in 0..M {
                    let mut pairs = [0i32; 8];
                    _mm256_storeu_si256(&mut pairs, registers[m]);
                    for (sum, pair) in sums[m][t].0[quarter * 4..].iter_mut().zip(pairs.as_chunks::<2>().0) {
                        *sum += pair[0] + pair[1];
                    }
                }
            }
        }
        at += len;
    }
}
