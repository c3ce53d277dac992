//! Plain Rust, for every machine: what the other ways are held against.

use super::{Dot, Line, Sums};

#[derive(Clone, Copy, Debug)]
pub(in crate::models::lm) struct Plain;

impl Dot for Plain {
    #[inline(always)]
    fn dot<const M: usize, const T: usize, const N: usize>(
        self,
        left: &[[Line; T]],
        right: [&[i32]; M],
        sums: &mut [[Sums; T]; M],
        _next: &[[Line; N]],
    ) {
        for (sums, right) in sums.iter_mut().zip(right) {
            for (left, right) in left.iter().zip(right) {
                let [a, b, c, d] = right.to_le_bytes().map(|r| i32::from(r as i8));
                for (sums, left) in sums.iter_mut().zip(left) {
                    for (sum, l) in sums.0.iter_mut().zip(left.as_chunks::<4>().0) {
                        *sum += i32::from(l[0]) * a + i32::from(l[1]) * b + i32::from(l[2]) * c + i32::from(l[3]) * d;
                    }
                }
            }
        }
    }
}
