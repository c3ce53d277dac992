//! NEON, which every 64-bit ARM has.

use archmage::prelude::*;

use super::{Dot, Line, Sums};

/// Steps whose right sides are widened at a time.
const WIDENED: usize = 64;

impl Dot for NeonToken {
    #[inline(always)]
    fn dot<const M: usize, const T: usize, const N: usize>(
        self,
        left: &[[Line; T]],
        right: [&[i32]; M],
        sums: &mut [[Sums; T]; M],
        _next: &[[Line; N]],
    ) {
        neon(self, left, right, sums);
    }
}

/// Both sides widened to 16 bits, four products of a row added to four sums. (The instructions that add four products of bytes
/// at once are not in stable Rust, and are not in every machine.)
#[arcane(import_intrinsics)]
fn neon<const M: usize, const T: usize>(
    _token: NeonToken,
    left: &[[Line; T]],
    right: [&[i32]; M],
    sums: &mut [[Sums; T]; M],
) {
    let steps = right.iter().fold(left.len(), |n, r| n.min(r.len()));
    let mut at = 0;
    while at < steps {
        let len = (steps - at).min(WIDENED);
        let left = &left[at..at + len];
        let mut wide = [[[0i16; 4]; M]; WIDENED];
        for (m, right) in right.iter().enumerate() {
            for (wide, r) in wide.iter_mut().zip(&right[at..at + len]) {
                wide[m] = r.to_le_bytes().map(|r| i16::from(r as i8));
            }
        }
        for t in 0..T {
            // Two rows at a time: their sums of eight right sides fill half of the registers.
            for pair in 0..8 {
                let mut registers = [[vdupq_n_s32(0); 2]; M];
                for (left, wide) in left.iter().zip(&wide) {
                    let bytes: &[u8; 8] = &left[t].as_chunks::<8>().0[pair];
                    let l = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(bytes)));
                    for m in 0..M {
                        let r = vld1_s16(&wide[m]);
                        registers[m][0] = vmlal_s16(registers[m][0], vget_low_s16(l), r);
                        registers[m][1] = vmlal_s16(registers[m][1], vget_high_s16(l), r);
                    }
                }
                for m in 0..M {
                    for (sum, register) in sums[m][t].0[pair * 2..].iter_mut().zip(registers[m]) {
                        *sum += vaddvq_s32(register);
                    }
                }
            }
        }
        at += len;
    }
}
