//! Matrices of weights in eight bits, and the rows they are multiplied with.
//!
//! A row of weights is whole numbers from -127 to 127 and a scale; they are kept as unsigned bytes, 128 more, in the order
//! in which a kernel wants them:
//!
//! ```text
//! for each 48 rows, for each 4 columns: 3 times 16 rows of 4 columns
//! ```
//!
//! Rows on the other side are whole numbers too: `Coarse` ones of 8 bits, `Fine` ones of 14 in two planes, of which the first
//! counts 128 times. Sums of products are exact; the 128 that each weight has too much is taken away as 128 times the sum of
//! the other side.

use std::ops::Range;

use super::exact::{greatest, nearest};
use super::kernels::{COLUMNS_MAX, Dot, Sums, by_path, in_parts};
use super::pages::{Line, Pages};

/// Registers of 16 rows that stand together.
const GROUP: usize = 3;
const GROUP_ROWS: usize = GROUP * 16;
/// What is added to a weight to make it unsigned.
const OFFSET: i32 = 128;
const COARSE_BOUND: f32 = 127.0;
/// 63.5 * 128: both planes then are within -64 to 64.
const FINE_BOUND: f32 = 8128.0;

/// How finely the rows are cut that weights are multiplied with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Grain {
    Coarse,
    Fine,
}

impl Grain {
    pub const fn planes(self) -> usize {
        match self {
            Grain::Coarse => 1,
            Grain::Fine => 2,
        }
    }
}

/// Cuts a row into whole numbers, plane after plane; gives its scale. `sums` are those of the planes.
#[inline(always)]
pub(super) fn cut(row: &[f32], grain: Grain, planes: &mut [i8], sums: &mut [i32]) -> f32 {
    let peak = greatest(row, 0.0, f32::abs);
    let bound = match grain {
        Grain::Coarse => COARSE_BOUND,
        Grain::Fine => FINE_BOUND,
    };
    let factor = if peak > 0.0 { bound / peak } else { 0.0 };
    match grain {
        Grain::Coarse => {
            let mut sum = 0;
            for (q, x) in planes.iter_mut().zip(row) {
                let n = nearest(*x * factor, bound);
                sum += n;
                *q = n as i8;
            }
            sums[0] = sum;
        }
        Grain::Fine => {
            // Sixteen at a time, and the last few one at a time: a compiler does not always find by itself that it may.
            let (high, low) = planes.split_at_mut(row.len());
            let (mut of_high, mut of_low) = ([0; 16], [0; 16]);
            let upper = |n: i32| (n + 64) >> 7;
            let (rows, rest) = row.as_chunks::<16>();
            let ((highs, last_high), (lows, last_low)) = (high.as_chunks_mut::<16>(), low.as_chunks_mut::<16>());
            for ((h, l), x) in highs.iter_mut().zip(lows).zip(rows) {
                let mut bytes = [[0; 16]; 2];
                for lane in 0..16 {
                    let n = nearest(x[lane] * factor, bound);
                    let lower = n - (upper(n) << 7);
                    of_high[lane] += upper(n);
                    of_low[lane] += lower;
                    (bytes[0][lane], bytes[1][lane]) = (upper(n) as i8, lower as i8);
                }
                [*h, *l] = bytes;
            }
            (sums[0], sums[1]) = (of_high.iter().sum(), of_low.iter().sum());
            for ((h, l), x) in last_high.iter_mut().zip(last_low).zip(rest) {
                let n = nearest(*x * factor, bound);
                let lower = n - (upper(n) << 7);
                sums[0] += upper(n);
                sums[1] += lower;
                (*h, *l) = (upper(n) as i8, lower as i8);
            }
        }
    }
    peak / bound
}

/// The values of sums of products of two planes, each with what its offset added; `sums` are those of the planes.
///
/// All of them are computed before any is stored, here and where one plane is scaled: a compiler that has to think that a store
/// changes what is read next computes one at a time.
#[inline(always)]
pub(super) fn joined(high: &Sums, low: &Sums, sums: [i32; 2]) -> [f32; 16] {
    let [of_high, of_low] = sums.map(|sum| OFFSET * sum);
    std::array::from_fn(|lane| (high.0[lane] - of_high) as f32 * 128.0 + (low.0[lane] - of_low) as f32)
}

/// Rows that weights are multiplied with.
#[derive(Debug, Default)]
pub(super) struct Factors {
    rows: usize,
    columns: usize,
    planes: usize,
    /// Bytes of rows, in fours; plane after plane.
    bytes: Vec<i32>,
    /// For each row.
    scales: Vec<f32>,
    /// For each plane of each row.
    sums: Vec<i32>,
}

impl Factors {
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Clone for Factors {
    fn clone(&self) -> Factors {
        let mut copy = Factors::default();
        copy.clone_from(self);
        copy
    }

    /// Takes no new memory where there is enough.
    fn clone_from(&mut self, other: &Factors) {
        (self.rows, self.columns, self.planes) = (other.rows, other.columns, other.planes);
        self.bytes.clone_from(&other.bytes);
        self.scales.clone_from(&other.scales);
        self.sums.clone_from(&other.sums);
    }
}

#[inline(always)]
fn fill_body(_d: impl Dot, rows: &[f32], columns: usize, grain: Grain, out: &mut Factors) {
    let planes = grain.planes();
    (out.rows, out.columns, out.planes) = (rows.len() / columns, columns, planes);
    out.bytes.resize(out.rows * planes * columns / 4, 0);
    out.scales.resize(out.rows, 0.0);
    out.sums.resize(out.rows * planes, 0);
    let bytes: &mut [i8] = bytemuck::cast_slice_mut(&mut out.bytes);
    let targets = bytes.chunks_exact_mut(planes * columns).zip(out.sums.chunks_exact_mut(planes));
    for ((row, (bytes, sums)), scale) in rows.chunks_exact(columns).zip(targets).zip(&mut out.scales) {
        *scale = cut(row, grain, bytes, sums);
    }
}

by_path! {
    /// Cuts rows of `columns` elements, a multiple of four.
    pub(super) fn fill(rows: &[f32], columns: usize, grain: Grain, out: &mut Factors) = fill_body;
}

/// A matrix of weights.
#[derive(Debug)]
pub(super) struct Matrix {
    rows: usize,
    columns: usize,
    groups: Pages,
    scales: Vec<f32>,
}

impl Matrix {
    /// A matrix whose rows come later. Columns are a multiple of four and at most `COLUMNS_MAX`, which the caller has seen to.
    pub fn new(rows: usize, columns: usize) -> Matrix {
        assert!(columns.is_multiple_of(4) && columns <= COLUMNS_MAX, "{columns} columns");
        let groups = rows.div_ceil(GROUP_ROWS);
        let lines = groups * (columns / 4) * GROUP;
        let mut pages = Pages::zeroed(lines);
        // Rows of the last group that the matrix does not have.
        let last = lines.saturating_sub(columns / 4 * GROUP);
        pages.lines_mut()[last..].as_flattened_mut().fill(OFFSET as u8);
        Matrix { rows, columns, groups: pages, scales: vec![0.0; groups * GROUP_ROWS] }
    }

    /// Elements from the beginning of a row of a product to that of the next.
    pub fn stride(&self) -> usize {
        self.scales.len()
    }

    /// Groups of rows that a product can be made of by itself.
    pub fn groups_count(&self) -> usize {
        self.scales.len() / GROUP_ROWS
    }

    #[inline(always)]
    fn groups(&self) -> &[[Line; GROUP]] {
        self.groups.lines().as_chunks().0
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        (size_of_val(self.groups()) + size_of_val(&self.scales[..])) as u64
    }

    /// Takes a row in, in whole numbers.
    pub fn set_row(&mut self, row: usize, values: &[f32]) {
        let mut planes = vec![0i8; values.len()];
        self.scales[row] = cut(values, Grain::Coarse, &mut planes, &mut [0]);
        let steps = self.columns / 4;
        let (group, part, lane) = (row / GROUP_ROWS, row % GROUP_ROWS / 16, row % 16);
        let groups: &mut [[Line; GROUP]] = self.groups.lines_mut().as_chunks_mut().0;
        for (step, four) in groups[group * steps..][..steps].iter_mut().zip(planes.as_chunks::<4>().0) {
            for (byte, q) in step[part][lane * 4..].iter_mut().zip(four) {
                *byte = (i32::from(*q) + OFFSET) as u8;
            }
        }
    }

    /// Gives a row back, as it is in whole numbers.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let steps = self.columns / 4;
        let (group, part, lane) = (row / GROUP_ROWS, row % GROUP_ROWS / 16, row % 16);
        let scale = self.scales[row];
        for (step, out) in self.groups()[group * steps..][..steps].iter().zip(out.as_chunks_mut::<4>().0) {
            for (byte, out) in step[part][lane * 4..].iter().zip(out) {
                *out = (i32::from(*byte) - OFFSET) as f32 * scale;
            }
        }
    }

    /// Feeds all that it is made of to a hash.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        for n in [self.rows, self.columns] {
            hasher.update(&(n as u64).to_le_bytes());
        }
        hasher.update(self.groups.lines().as_flattened());
        for scale in &self.scales {
            hasher.update(&scale.to_bits().to_le_bytes());
        }
    }
}

#[inline(always)]
fn multiply_body(d: impl Dot, matrix: &Matrix, factors: &Factors, part: Range<usize>, out: &mut Vec<f32>) {
    let steps = matrix.columns / 4;
    assert_eq!(factors.columns, matrix.columns, "rows as long as those of the matrix");
    let stride = part.len() * GROUP_ROWS;
    out.resize(factors.rows * stride, 0.0);
    // Of the next group, so many lines with each step: all of it by the end, and as evenly as memory likes it.
    let lines = matrix.groups.lines();
    let mut next_group = part.start * steps * GROUP;
    let rows = factors.rows * factors.planes;
    let groups = matrix.groups().chunks_exact(steps).zip(matrix.scales.as_chunks::<GROUP_ROWS>().0);
    let groups = groups.skip(part.start).take(part.len());
    for ((left, scales), at) in groups.zip((0..).step_by(GROUP_ROWS)) {
        next_group += steps * GROUP;
        in_parts!(rows, |first, M| {
            let right: [&[i32]; M] = std::array::from_fn(|m| &factors.bytes[(first + m) * steps..][..steps]);
            let mut sums = [[Sums::ZERO; GROUP]; M];
            let next = |n: usize| &lines[(next_group + first / 8 * steps * n).min(lines.len())..];
            match rows {
                0..=8 => d.dot(left, right, &mut sums, next(3).as_chunks::<3>().0),
                9..=16 => d.dot(left, right, &mut sums, next(2).as_chunks::<2>().0),
                _ => d.dot(left, right, &mut sums, next(1).as_chunks::<1>().0),
            }
            // Rows of two planes come in pairs, and parts of them in even numbers.
            for n in 0..M / factors.planes {
                let row = first / factors.planes + n;
                let (of_row, scale) = (&factors.sums[row * factors.planes..][..factors.planes], factors.scales[row]);
                let out = &mut out[row * stride + at..][..GROUP_ROWS];
                let parts = out.as_chunks_mut::<16>().0.iter_mut().zip(scales.as_chunks::<16>().0);
                for (part, (out, scales)) in parts.enumerate() {
                    let values: [f32; 16] = match of_row {
                        [high, low, ..] => joined(&sums[n * 2][part], &sums[n * 2 + 1][part], [*high, *low]),
                        [] | [_] => {
                            let offset = OFFSET * of_row.first().copied().unwrap_or(0);
                            std::array::from_fn(|lane| (sums[n][part].0[lane] - offset) as f32)
                        }
                    };
                    *out = std::array::from_fn(|lane| (values[lane] * scales[lane]) * scale);
                }
            }
        });
    }
}

by_path! {
    /// Products of the rows of some groups of a matrix with all `factors`, as many apart as these groups have rows.
    pub(super) fn multiply(matrix: &Matrix, factors: &Factors, part: Range<usize>, out: &mut Vec<f32>) = multiply_body;
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Path;
    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<f32> {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next() * next() * next()).collect()
    }

    fn product(path: Path, matrix: &Matrix, rows: &[f32], grain: Grain) -> Vec<f32> {
        let (mut factors, mut out) = (Factors::default(), Vec::new());
        fill(path, rows, matrix.columns, grain, &mut factors);
        multiply(path, matrix, &factors, 0..matrix.groups_count(), &mut out);
        out
    }

    /// Also of the lengths that the largest models have, where every weight and every factor is as great as can be.
    #[test]
    fn products_are_near_those_of_floats_and_the_same_by_every_path() {
        for (rows, columns, count) in [(50, 64, 1), (96, 576, 5), (10, 4096, 9), (3, 14_336, 2), (48, 32, 17)] {
            let weights = noise(1, rows * columns);
            let mut matrix = Matrix::new(rows, columns);
            weights.chunks(columns).enumerate().for_each(|(n, row)| matrix.set_row(n, row));
            let factors = noise(2, count * columns);
            for (grain, bound) in [(Grain::Coarse, 0.02), (Grain::Fine, 0.01)] {
                let out = product(Path::Plain, &matrix, &factors, grain);
                for (n, factor) in factors.chunks(columns).enumerate() {
                    let length = |xs: &[f32]| xs.iter().map(|x| x * x).sum::<f32>().sqrt();
                    for (m, row) in weights.chunks(columns).enumerate() {
                        let exact: f32 = row.iter().zip(factor).map(|(a, b)| a * b).sum();
                        let off = (out[n * matrix.stride() + m] - exact).abs() / (length(row) * length(factor));
                        assert!(off < bound, "{off} for {columns} columns, {grain:?}");
                    }
                }
                for path in Path::all() {
                    for part in [1, 2, count] {
                        let by_path: Vec<f32> = factors
                            .chunks(part * columns)
                            .flat_map(|rows| product(path, &matrix, rows, grain))
                            .collect();
                        let same = out.iter().zip(&by_path).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same && out.len() == by_path.len(), "{} by {part}, {grain:?}", path.name());
                    }
                }
            }
        }
    }

    #[test]
    fn sums_stay_within_their_bits() {
        for (columns, grain) in [(14_336, Grain::Fine), (COLUMNS_MAX, Grain::Coarse)] {
            let mut matrix = Matrix::new(1, columns);
            matrix.set_row(0, &vec![1.0; columns]);
            for path in Path::all() {
                let out = product(path, &matrix, &vec![-3.0; columns], grain);
                assert!((out[0] / columns as f32 + 3.0).abs() < 1e-4, "{}: {}", path.name(), out[0]);
            }
        }
    }

    #[test]
    fn rows_come_back() {
        let values = noise(5, 70 * 64);
        let mut matrix = Matrix::new(70, 64);
        values.chunks(64).enumerate().for_each(|(n, row)| matrix.set_row(n, row));
        let mut row = [0.0; 64];
        for (n, values) in values.chunks(64).enumerate() {
            matrix.row(n, &mut row);
            let peak = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            assert!(row.iter().zip(values).all(|(a, b)| (a - b).abs() <= peak / 253.0), "{n}");
        }
    }
}
