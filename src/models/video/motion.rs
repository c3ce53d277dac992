//! Where blocks of a frame moved from.

use archmage::autoversion;

use super::predictor::{MARGIN, Plane};
use crate::entropy::Channel;
use crate::models::values::Counter;

/// Columns and rows of the first plane that move together.
pub const BLOCK: usize = 16;
/// How far a block may have moved, columns and rows.
const FAR: i32 = 24;
/// What a vector must save for each bit that it takes.
const BIT_COST: u32 = 12;
/// Halves and quarters of what is left of a number that are told one by one.
const SIZES: usize = 8;

/// How far a block moved: it is found so many columns and rows further on in the frame before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vector {
    pub right: i32,
    pub down: i32,
}

/// Blocks beside each other in so many columns.
pub fn across(width: usize) -> usize {
    width.div_ceil(BLOCK)
}

/// Blocks of a frame.
pub fn blocks(luma: &Plane) -> usize {
    across(luma.width) * luma.rows.div_ceil(BLOCK)
}

impl Vector {
    /// Places from a pixel to the one that it moved from, in a plane of other size than the first, no further beyond its edges than
    /// it is filled there.
    pub fn places(self, times: i32, (x, y): (usize, usize), plane: &Plane, stride: usize) -> isize {
        let Plane { width, rows, wide, high } = *plane;
        let within = |far: i32, scale: usize, from: usize, size: usize| {
            let scale = scale as i32;
            let far = (far * times + if far > 0 { scale / 2 } else { -(scale / 2) }) / scale;
            let block = BLOCK as i32 / scale;
            let (from, size, spare) = (from as i32, size as i32, MARGIN as i32 - 4);
            far.max(-from - spare + 1).min((size + spare - block - from).max(0)) as isize
        };
        within(self.down, high, y / (BLOCK / high) * (BLOCK / high), rows) * stride as isize
            + within(self.right, wide, x / (BLOCK / wide) * (BLOCK / wide), width)
    }
}

/// Codes vectors.
pub struct Coder {
    same: [Counter; 3],
    sizes: [[Counter; SIZES]; 2],
    signs: [Counter; 2],
}

impl Coder {
    pub fn new() -> Coder {
        Coder { same: [Counter::NEW; 3], sizes: [[Counter::NEW; SIZES]; 2], signs: [Counter::NEW; 2] }
    }

    fn bit(channel: &mut impl Channel, counter: &mut Counter, bit: bool) -> bool {
        let bit = channel.pass(u8::from(bit), counter.p().clamp(1, 65_535)) & 1;
        counter.learn_within(bit, 60);
        bit == 1
    }

    /// A number from -`2 * FAR` to that: how many bits it has, those below the highest, its sign.
    fn number(&mut self, channel: &mut impl Channel, which: usize, value: i32) -> i32 {
        let size = value.unsigned_abs().saturating_add(1);
        let (mut bits, mut highest) = (0, size.ilog2() as usize);
        while bits < SIZES - 1 && Self::bit(channel, &mut self.sizes[which][bits], highest > bits) {
            bits += 1;
        }
        highest = bits;
        let mut low = 0;
        for n in (0..highest).rev() {
            low = low << 1 | u32::from(channel.pass((size >> n) as u8 & 1, 1 << 15) & 1);
        }
        let size = (1 << highest | low) as i32 - 1;
        if size > 0 && Self::bit(channel, &mut self.signs[which], value < 0) { -size } else { size }
    }

    /// Passes the vectors of a frame on, or gets them.
    pub fn pass(&mut self, channel: &mut impl Channel, luma: &Plane, vectors: &mut [Vector]) {
        let across = across(luma.width);
        let mut differed = 0;
        for at in 0..vectors.len() {
            let expected = expected(vectors, at, across);
            let vector = vectors[at];
            let same = Self::bit(channel, &mut self.same[differed], vector == expected);
            differed = if same { 0 } else { (differed + 1).min(2) };
            if !same {
                let right = self.number(channel, 0, vector.right - expected.right);
                let down = self.number(channel, 1, vector.down - expected.down);
                let held = |x: i32| x.clamp(-FAR, FAR);
                vectors[at] = Vector { right: held(expected.right + right), down: held(expected.down + down) };
            } else {
                vectors[at] = expected;
            }
        }
    }
}

/// The middle one of those to the left, above, and above to the right.
fn expected(vectors: &[Vector], at: usize, across: usize) -> Vector {
    let column = at % across;
    let left = if column > 0 { vectors[at - 1] } else { Vector::default() };
    let above = at.checked_sub(across).map_or(left, |at| vectors[at]);
    let beyond = if column + 1 < across { at.checked_sub(across - 1).map_or(above, |at| vectors[at]) } else { above };
    let middle = |a: i32, b: i32, c: i32| a.max(b).min(a.min(b).max(c));
    Vector { right: middle(left.right, above.right, beyond.right), down: middle(left.down, above.down, beyond.down) }
}

/// Bits that a vector takes, about.
fn bits(vector: Vector, expected: Vector) -> u32 {
    let of = |x: i32| 2 * (x.unsigned_abs() + 1).ilog2() + 1;
    if vector == expected { 0 } else { 1 + of(vector.right - expected.right) + of(vector.down - expected.down) }
}

/// Looks for where the blocks of a frame moved from: rows of the first plane of it and of the frame before. It is compiled for AVX2 too.
#[autoversion(v3, scalar)]
pub fn search(now: &[i32], before: &[i32], luma: &Plane, vectors: &mut [Vector]) {
    let (width, rows) = (luma.width, luma.rows);
    // Filled around the edges, so that all of a block is always there.
    let margin = FAR as usize + BLOCK;
    let stride = width + 2 * margin;
    let held = |x: usize, most: usize| x.saturating_sub(margin).min(most - 1);
    let old: Vec<u16> = (0..rows + 2 * margin)
        .flat_map(|y| (0..stride).map(move |x| before[held(y, rows) * width + held(x, width)] as u16))
        .collect();
    let across = across(width);
    for at in 0..vectors.len() {
        let (x, y) = (at % across * BLOCK, at / across * BLOCK);
        let (wide, high) = ((width - x).min(BLOCK), (rows - y).min(BLOCK));
        let block: Vec<u16> =
            (0..high).flat_map(|row| now[(y + row) * width + x..][..wide].iter().map(|x| *x as u16)).collect();
        let differs = |vector: Vector, most: u32| {
            let from = (y + margin).wrapping_add_signed(vector.down as isize) * stride
                + (x + margin).wrapping_add_signed(vector.right as isize);
            let mut sum = 0;
            for (n, row) in block.chunks_exact(wide).enumerate() {
                let other = &old[from + n * stride..][..wide];
                sum += row.iter().zip(other).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
                if sum >= most {
                    break;
                }
            }
            sum
        };
        let expected = expected(vectors, at, across);
        let mut best = (differs(expected, u32::MAX), expected);
        let mut consider = |vector: Vector| {
            let cost = bits(vector, expected) * BIT_COST;
            if cost < best.0 {
                let sum = differs(vector, best.0 - cost) + cost;
                if sum < best.0 {
                    best = (sum, vector);
                }
            }
        };
        consider(Vector::default());
        for down in -FAR..=FAR {
            for right in -FAR..=FAR {
                consider(Vector { right, down });
            }
        }
        vectors[at] = best.1;
    }
}
