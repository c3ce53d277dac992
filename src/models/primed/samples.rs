//! Samples: sound and pictures that nobody has compressed. What a sample differs by from what its neighbours lead to expect is
//! coded in its place.
//!
//! The neighbours (those before it in its channel and in the others, and where there are rows those above it) are weighed by
//! least squares over the samples so far, those long ago forgotten, so that no weights are stored. Any bytes come back:
//! differences are taken modulo what a sample holds, and what belongs to no whole sample stays as it is. What a sample is
//! (`Shape`) is told by the payload; it is found by trial from the bytes of the segment alone, wherever the segment was cut.
//!
//! A difference is written with its sign lowest and its highest byte first, whatever the order of bytes was: large ones are
//! seldom, and how large is to be expected is told by those around it. That is what the contexts are made of.
//!
//! Idea: M. Pais and others, paq8px (least squares as a predictor of samples). Integers only.

use super::contexts::{HASHED_MAX, ORDERS, hash};
use crate::models::Error;

/// Most bytes of a sample, and most channels.
const WIDTH_MAX: u8 = 3;
const CHANNELS_MAX: u8 = 4;
/// Bytes of a `Shape` in a payload.
pub(super) const SHAPE_BYTES: usize = 5;

/// What samples are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Bytes of a sample, 1 to 3.
    pub width: u8,
    /// Samples of different kinds that follow each other: colours, or loudspeakers; 1 to 4.
    pub channels: u8,
    /// The highest byte is first.
    pub big: bool,
    /// Samples below zero are two's complement.
    pub signed: bool,
    /// Bytes from one row of a picture to the next, 0 for sound. It may have a few bytes more than whole pixels.
    pub row: u16,
    /// Where the first whole pixel begins; where rows have bytes besides their pixels, where the first whole row begins.
    pub phase: u16,
}

impl Shape {
    fn pixel(&self) -> usize {
        usize::from(self.width) * usize::from(self.channels)
    }

    /// Bytes after which all is the same again: a pixel, or a row that has bytes besides its pixels.
    fn period(&self) -> usize {
        let (pixel, row) = (self.pixel(), usize::from(self.row));
        if row == 0 || row.is_multiple_of(pixel) { pixel } else { row }
    }

    /// Checks what a payload says.
    fn checked(self) -> Option<Shape> {
        let sizes = (1..=WIDTH_MAX).contains(&self.width) && (1..=CHANNELS_MAX).contains(&self.channels);
        let rows = self.row == 0 || usize::from(self.row) >= 2 * self.pixel();
        (sizes && rows && usize::from(self.phase) < self.period()).then_some(self)
    }

    /// Its bytes in a payload: see layout.rs.
    pub fn to_bytes(self) -> [u8; SHAPE_BYTES] {
        let [row0, row1] = self.row.to_le_bytes();
        let [phase0, phase1] = self.phase.to_le_bytes();
        let flags = u8::from(self.big) << 2 | u8::from(self.signed) << 3;
        [(self.width - 1) | flags | (self.channels - 1) << 4, row0, row1, phase0, phase1]
    }

    /// Reads them.
    pub fn from_bytes([what, row0, row1, phase0, phase1]: [u8; SHAPE_BYTES]) -> Result<Shape, Error> {
        let shape = Shape {
            width: (what & 3) + 1,
            channels: (what >> 4 & 7) + 1,
            big: what & 4 != 0,
            signed: what & 8 != 0,
            row: u16::from_le_bytes([row0, row1]),
            phase: u16::from_le_bytes([phase0, phase1]),
        };
        let wrong = Error::Corrupt("primed payload names samples of a shape that does not exist");
        if what & 0x80 != 0 { Err(wrong) } else { shape.checked().ok_or(wrong) }
    }

    /// The same samples, where so many bytes before them are left out.
    pub fn after(self, bytes: usize) -> Shape {
        let period = self.period();
        Shape { phase: ((usize::from(self.phase) + period - bytes % period) % period) as u16, ..self }
    }

    /// The channel of the sample that begins at a place; `None` where none does.
    fn channel(&self, at: usize) -> Option<usize> {
        let (pixel, width, row, phase) =
            (self.pixel(), usize::from(self.width), usize::from(self.row), usize::from(self.phase));
        if self.period() == pixel {
            let from = (at + pixel) - phase;
            return (from.is_multiple_of(width)).then(|| from % pixel / width);
        }
        let column = (at + row - phase) % row;
        (column + width <= row - row % pixel && column.is_multiple_of(width)).then(|| column % pixel / width)
    }

    /// The value whose bytes these are.
    fn value(&self, bytes: &[u8]) -> i32 {
        let fold = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        let value = if self.big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) };
        self.wrapped(value)
    }

    /// A number as a value: what does not fit falls away.
    fn wrapped(&self, value: u32) -> i32 {
        let unused = 32 - 8 * u32::from(self.width);
        if self.signed { (value << unused) as i32 >> unused } else { (value << unused >> unused) as i32 }
    }

    /// A difference as it is coded: the sign lowest.
    fn folded(&self, difference: i32) -> u32 {
        let unused = 32 - 8 * u32::from(self.width);
        let signed = difference << unused >> unused;
        (signed << 1 ^ signed >> 31) as u32
    }
}

/// The difference that `Shape::folded` has made this of.
fn unfolded(folded: u32) -> i32 {
    (folded >> 1) as i32 ^ -((folded & 1) as i32)
}

/// Most neighbours that a sample is weighed from.
const INPUTS_MAX: usize = 28;
/// Neighbours of sound: of its own channel, of each other.
const SOUND_OWN: usize = 20;
const SOUND_OTHER: usize = 6;
/// Of pictures: of the own channel, of each that is known of the same pixel.
const PICTURE_OWN: usize = 6;
const PICTURE_BEFORE: usize = 4;
/// Samples between two solutions. Each time, one part in 2^SOUND_FORGET or 2^PICTURE_FORGET of the sums is forgotten: what is
/// 256 or 2048 samples back counts for little. Measured: sound changes that fast, and pictures gain up to twice as far.
const EVERY: u32 = 8;
const SOUND_FORGET: u32 = 5;
const PICTURE_FORGET: u32 = 8;
/// Fraction bits of sums by width, so that those of small samples are forgotten too. Of the longest samples, products of 50
/// bits are summed 2^11 times at most.
const FRACTION_BITS: [u32; WIDTH_MAX as usize] = [12, 6, 0];
/// Fraction bits of weights, and of what is between them in the solution.
const WEIGHT_BITS: u32 = 16;
const PART_BITS: u32 = 24;
/// Bits that sums are brought to before they are solved.
const SUM_BITS: u32 = 40;
/// What is added to each sum of squares, of the largest: one in 2^20.
const RIDGE_BITS: u32 = 20;

/// Sums of products, of which least squares makes weights.
struct Weighed {
    inputs: usize,
    forget: u32,
    fraction: u32,
    /// Samples since the last solution.
    since: u32,
    sums: Box<[[i64; INPUTS_MAX]; INPUTS_MAX]>,
    with: [i64; INPUTS_MAX],
    weights: [i64; INPUTS_MAX],
    values: [i32; INPUTS_MAX],
}

impl Weighed {
    fn new(inputs: usize, forget: u32, fraction: u32) -> Weighed {
        Weighed {
            inputs: inputs.min(INPUTS_MAX),
            forget,
            fraction,
            since: 0,
            sums: Box::new([[0; INPUTS_MAX]; INPUTS_MAX]),
            with: [0; INPUTS_MAX],
            weights: [0; INPUTS_MAX],
            values: [0; INPUTS_MAX],
        }
    }

    /// What the neighbours lead to expect.
    fn predict(&self) -> i32 {
        let sum: i64 = self
            .values
            .iter()
            .zip(&self.weights)
            .map(|(v, w)| i64::from(*v).wrapping_mul(*w))
            .fold(0, i64::wrapping_add);
        ((sum.wrapping_add(1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS).clamp(-(1 << 26), 1 << 26) as i32
    }

    /// Takes what came.
    fn observe(&mut self, came: i32) {
        let n = self.inputs;
        for i in 0..n {
            let value = i64::from(self.values[i]) << self.fraction;
            for (sum, other) in self.sums[i][..=i].iter_mut().zip(&self.values[..=i]) {
                *sum += value * i64::from(*other);
            }
            self.with[i] += value * i64::from(came);
        }
        self.since += 1;
        if self.since >= EVERY {
            self.since = 0;
            self.solve();
            for sum in self.sums.iter_mut().flatten().chain(&mut self.with) {
                *sum -= *sum >> self.forget;
            }
        }
    }

    /// Finds the weights: the sums as a product of a triangle, a diagonal and the triangle's mirror image.
    fn solve(&mut self) {
        let n = self.inputs;
        let largest = (0..n).map(|i| self.sums[i][i]).max().unwrap_or(0);
        if largest <= 0 {
            return;
        }
        let bits = 64 - largest.leading_zeros();
        let scale = |sum: i64| if bits > SUM_BITS { sum >> (bits - SUM_BITS) } else { sum << (SUM_BITS - bits) };
        let mut triangle = [[0i64; INPUTS_MAX]; INPUTS_MAX];
        let mut inverse = [0i64; INPUTS_MAX];
        let mut solved = [0i64; INPUTS_MAX];
        // What is far too large comes of rounding; it is cut off, lest products of it do not fit.
        let narrow = |value: i128| value.clamp(-(1 << 40), 1 << 40) as i64;
        let dot = |a: &[i64], b: &[i64]| -> i64 {
            let sum: i128 = a.iter().zip(b).map(|(a, b)| i128::from(*a) * i128::from(*b)).sum();
            narrow(sum >> PART_BITS)
        };
        let ridge = 1i64 << (SUM_BITS - RIDGE_BITS);
        // Row by row: `parts` are a row of the triangle times the diagonal.
        for i in 0..n {
            let mut parts = [0i64; INPUTS_MAX];
            let mut row = [0i64; INPUTS_MAX];
            for j in 0..i {
                parts[j] = scale(self.sums[i][j]) - dot(&triangle[j][..j], &parts[..j]);
                row[j] = narrow((i128::from(parts[j]) * i128::from(inverse[j])) >> (62 - PART_BITS));
            }
            let diagonal = scale(self.sums[i][i]) + ridge - dot(&row[..i], &parts[..i]);
            inverse[i] = (1i64 << 62) / diagonal.max(ridge);
            solved[i] = scale(self.with[i]) - dot(&row[..i], &solved[..i]);
            triangle[i] = row;
        }
        for i in (0..n).rev() {
            let column: [i64; INPUTS_MAX] = std::array::from_fn(|k| triangle[k][i]);
            let own = narrow((i128::from(solved[i]) * i128::from(inverse[i])) >> (62 - PART_BITS));
            solved[i] = narrow(i128::from(own - dot(&column[i + 1..n], &solved[i + 1..n])));
            self.weights[i] = solved[i] >> (PART_BITS - WEIGHT_BITS);
        }
    }
}

/// Predicts samples from those before them.
struct Neighbours {
    shape: Shape,
    /// The value of each sample, where it begins.
    values: Vec<i32>,
    channels: Vec<Weighed>,
}

impl Neighbours {
    fn new(shape: Shape, len: usize) -> Neighbours {
        let channels = usize::from(shape.channels);
        let inputs = |channel: usize| {
            if shape.row == 0 {
                1 + SOUND_OWN + SOUND_OTHER * (channels - 1).min(1)
            } else {
                PICTURE_OWN + PICTURE_BEFORE * channel + (channels - 1 - channel)
            }
        };
        let forget = if shape.row == 0 { SOUND_FORGET } else { PICTURE_FORGET };
        Neighbours {
            shape,
            values: vec![0; len],
            channels: (0..channels)
                .map(|c| Weighed::new(inputs(c), forget, FRACTION_BITS[usize::from(shape.width) - 1]))
                .collect(),
        }
    }

    /// What a sample at a place is expected to be.
    fn predict(&mut self, at: usize, channel: usize) -> i32 {
        let (width, pixel, row) = (usize::from(self.shape.width), self.shape.pixel(), usize::from(self.shape.row));
        let values = &self.values;
        let back = |n: usize| at.checked_sub(n).and_then(|at| values.get(at)).copied();
        let Some(weighed) = self.channels.get_mut(channel) else { return 0 };
        let left = back(pixel).unwrap_or(0);
        let mut count = 0;
        let mut push = |value: i32| {
            if let Some(slot) = weighed.values.get_mut(count) {
                *slot = value;
                count += 1;
            }
        };
        if row == 0 {
            let mut near = left;
            push(left);
            for n in 2..SOUND_OWN + 2 {
                let far = back(n * pixel).unwrap_or(near);
                push(near - far);
                near = far;
            }
            // The channel before this one, or the last one where this is the first.
            if self.shape.channels > 1 {
                let lag = if channel > 0 { width } else { pixel - (usize::from(self.shape.channels) - 1) * width };
                let mut near = back(lag).unwrap_or(0);
                for n in 1..=SOUND_OTHER {
                    let far = back(lag + n * pixel).unwrap_or(near);
                    push(near - far);
                    near = far;
                }
            }
        } else {
            for lag in [row, row + pixel, row - pixel, 2 * pixel, 2 * row, 2 * row - pixel] {
                push(back(lag).unwrap_or(left) - left);
            }
            for other in 0..usize::from(self.shape.channels) {
                if other < channel {
                    let lag = (channel - other) * width;
                    let left = back(lag + pixel).unwrap_or(0);
                    for lag in [lag, lag + row, lag + row + pixel, lag + row - pixel] {
                        push(back(lag).unwrap_or(left) - left);
                    }
                } else if other > channel {
                    let lag = pixel - (other - channel) * width;
                    let left = back(lag).unwrap_or(0);
                    push(back(lag + row - pixel).unwrap_or(left) - left);
                }
            }
        }
        let value = left.saturating_add(weighed.predict());
        let (least, most) = match (self.shape.signed, 8 * u32::from(self.shape.width)) {
            (true, bits) => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            (false, bits) => (0, (1 << bits) - 1),
        };
        value.clamp(least, most)
    }

    /// Takes what it was.
    fn observe(&mut self, at: usize, channel: usize, value: i32) {
        let left = at.checked_sub(self.shape.pixel()).and_then(|at| self.values.get(at)).copied().unwrap_or(0);
        if let Some(slot) = self.values.get_mut(at) {
            *slot = value;
        }
        if let Some(weighed) = self.channels.get_mut(channel) {
            weighed.observe(value - left);
        }
    }
}

/// Runs over the whole samples of `bytes`; `change` turns the bytes of one, given what is expected, and returns its value.
fn each(shape: Shape, bytes: &mut [u8], mut change: impl FnMut(&mut [u8], i32) -> i32) {
    let mut neighbours = Neighbours::new(shape, bytes.len());
    let width = usize::from(shape.width);
    let mut at = 0;
    while at < bytes.len() {
        match (shape.channel(at), bytes.get_mut(at..at + width)) {
            (Some(channel), Some(sample)) => {
                let expected = neighbours.predict(at, channel);
                let value = change(sample, expected);
                neighbours.observe(at, channel, value);
                at += width;
            }
            _ => at += 1,
        }
    }
}

/// Turns samples into differences.
pub(super) fn forward(shape: Shape, bytes: &mut [u8]) {
    each(shape, bytes, |sample, expected| {
        let value = shape.value(sample);
        let folded = shape.folded(value.wrapping_sub(expected));
        let [_, high @ ..] = folded.to_be_bytes();
        let unused = high.len() - sample.len();
        sample.copy_from_slice(&high[unused..]);
        value
    });
}

/// Turns differences into samples.
pub(super) fn back(shape: Shape, bytes: &mut [u8]) {
    each(shape, bytes, |sample, expected| {
        let folded = sample.iter().fold(0, |folded, byte| folded << 8 | u32::from(*byte));
        let value = shape.wrapped(expected.wrapping_add(unfolded(folded)) as u32);
        let bytes = value.to_le_bytes();
        for (n, byte) in sample.iter_mut().enumerate() {
            let from = if shape.big { usize::from(shape.width) - 1 - n } else { n };
            *byte = bytes[from];
        }
        value
    });
}

/// Contexts of differences: how large those around are.
pub(super) struct Differences {
    shape: Shape,
    /// The last differences, where they begin, of two rows and a little more: a power of two.
    recent: Vec<i32>,
    place: usize,
    /// Of the sample that is being read: its channel, its bytes so far and how many.
    channel: usize,
    prefix: u32,
    count: usize,
    begun: usize,
    /// Usual size in each channel, 1/64.
    usual: [u32; CHANNELS_MAX as usize],
    /// Sizes of the neighbours, for the contexts of this sample.
    around: Around,
}

#[derive(Clone, Copy, Default)]
struct Around {
    /// Sum of sizes, half octaves; the same in quarters; of more of them; how large the last were.
    size: u32,
    size_fine: u32,
    usual: u32,
    left: i32,
    above: i32,
    above_left: i32,
    above_right: i32,
    beside: i32,
    beside2: i32,
}

/// Octaves of a size, in parts of 1/2^parts.
fn octaves(size: u32, parts: u32) -> u32 {
    let size = size.saturating_add(1 << parts);
    let octave = size.ilog2();
    ((octave - parts) << parts) + (size >> (octave - parts)) - (1 << parts)
}

/// A difference, roughly: its sign and how large it is.
fn rough(difference: i32, long: bool) -> u32 {
    ((octaves(difference.unsigned_abs(), 0) >> u32::from(long)).min(7) << 1) | u32::from(difference < 0)
}

impl Differences {
    pub fn new(shape: Shape) -> Differences {
        let recent = (2 * usize::from(shape.row) + 64 * shape.pixel()).next_power_of_two();
        let mut new = Differences {
            shape,
            recent: vec![0; recent],
            place: 0,
            channel: 0,
            prefix: 0,
            count: 0,
            begun: 0,
            usual: [0; CHANNELS_MAX as usize],
            around: Around::default(),
        };
        new.begin();
        new
    }

    /// Looks around before a sample.
    fn begin(&mut self) {
        let Some(channel) = self.shape.channel(self.place) else {
            (self.channel, self.prefix, self.count) = (0, 0, 0);
            return;
        };
        (self.channel, self.prefix, self.count, self.begun) = (channel, 0, usize::from(self.shape.width), self.place);
        let (width, pixel, row) = (usize::from(self.shape.width), self.shape.pixel(), usize::from(self.shape.row));
        let mask = self.recent.len() - 1;
        let back = |n: usize| self.recent.get(self.place.wrapping_sub(n) & mask).copied().unwrap_or(0);
        let [left, above, above_left, above_right, left2, above2] = if row == 0 {
            [1, 2, 3, 4, 5, 6].map(|n| back(n * pixel))
        } else {
            [pixel, row, row + pixel, row - pixel, 2 * pixel, 2 * row].map(back)
        };
        let channels = usize::from(self.shape.channels);
        let beside = |n: usize| if channels > n { back(n * width) } else { 0 };
        let (beside, beside2) = (beside(1), beside(2));
        let s = |d: i32| d.unsigned_abs();
        let near = 3 * s(left) + 3 * s(above) + 2 * s(above_left) + 2 * s(above_right) + s(left2) + s(above2);
        let size = if channels > 1 { near + 2 * (2 * s(beside) + s(beside2)) } else { near + near / 2 };
        let usual = self.usual.get(channel).copied().unwrap_or(0);
        self.around = Around {
            size: octaves(size, 1).saturating_sub(2).min(31),
            size_fine: octaves(size, 2),
            usual: octaves(usual, 1).saturating_sub(8).min(31),
            left,
            above,
            above_left,
            above_right,
            beside,
            beside2,
        };
    }

    /// Remembers a whole sample.
    fn end(&mut self) {
        let mask = self.recent.len() - 1;
        // Of long samples the lowest byte is noise.
        let difference = unfolded(self.prefix) >> if self.shape.width > 2 { 8 } else { 0 };
        if let Some(slot) = self.recent.get_mut(self.begun & mask) {
            *slot = difference;
        }
        if let Some(usual) = self.usual.get_mut(self.channel) {
            *usual = *usual - (*usual >> 4) + (difference.unsigned_abs() << 2);
        }
    }

    /// Takes a byte. Returns what stands for the last bytes in contexts.
    pub fn observe(&mut self, byte: u8) -> u64 {
        self.place += 1;
        if self.count > 0 {
            self.prefix = self.prefix << 8 | u32::from(byte);
            self.count -= 1;
            if self.count == 0 {
                self.end();
            }
        }
        if self.count == 0 {
            self.begin();
        }
        self.last()
    }

    /// What stands for the last bytes: of this sample, how large it is likely to be, what is around it; latest lowest.
    pub fn last(&self) -> u64 {
        let a = &self.around;
        let rough = |d: i32| rough(d, self.shape.width > 1);
        let channel = self.channel as u32;
        let first = self.count == usize::from(self.shape.width) || self.count == 0;
        let c1 = if first {
            channel << 5 | a.size
        } else if self.prefix == 0 {
            128 + ((self.count as u32 & 1) << 5 | a.size)
        } else {
            192 + self.prefix.min(63)
        };
        let c2 = a.usual << 3 | rough(a.beside) >> 1;
        let c3 = rough(a.beside) << 4 | rough(a.left);
        let c4 = rough(a.above) << 4 | rough(a.beside2);
        let c5 = rough(a.above_left) << 4 | rough(a.above_right);
        u64::from(c1) | u64::from(c2) << 8 | u64::from(c3) << 16 | u64::from(c4) << 24 | u64::from(c5) << 32
    }

    /// Hashes of contexts.
    pub fn hashes(&self) -> [u32; HASHED_MAX - ORDERS] {
        let a = &self.around;
        let rough = |d: i32| rough(d, self.shape.width > 1);
        let this = hash(self.prefix, (self.channel as u32) << 8 | self.count as u32);
        let pair = |x: i32, y: i32| (x as u32) << 16 ^ (y as u32) & 0xffff;
        [
            hash(this, hash(a.size_fine, 11)),
            hash(this, hash(pair(a.beside, 0), hash(a.size, 12))),
            hash(this, hash(a.usual, hash(rough(a.left), 13))),
            hash(this, hash(rough(a.left) << 8 | rough(a.above), 14)),
            hash(this, hash(pair(a.left, 1), 15)),
            hash(this, hash(pair(a.beside, a.beside2), 16)),
        ]
    }
}

/// Places whose neighbours are looked at to find what samples are like.
const PLACES: usize = 600;
/// Pixels from one to another that it has nothing to do with.
const FAR: usize = 61;
/// Bytes that are compared with those a row above them, and places where they are.
const ROW_BYTES: usize = 16;
const ROW_PLACES: usize = 128;
/// The same where a length is looked at closely, and how far from the first guess.
const ROW_PLACES_NEAR: usize = 1000;
const NEAR: usize = 48;
/// Of what rows of any length differ by, what those of the right one do at most.
const ROW_SHARE: (u64, u64) = (9, 10);
/// Longest row that is looked for.
const ROW_MAX: usize = 24 << 10;

/// What samples are like, if there are any, and about how many 1/256 bits a byte of them costs: more than it will.
pub(super) fn likely(raw: &[u8]) -> Option<(Shape, u64)> {
    let mut best: Option<(u64, Shape)> = None;
    for width in 1..=WIDTH_MAX {
        for channels in 1..=CHANNELS_MAX {
            for big in [false, true].into_iter().take(usize::from(width.min(2))) {
                for signed in [false, true] {
                    for phase in 0..u16::from(width) {
                        let shape = Shape { width, channels, big, signed, row: 0, phase };
                        best = match (cost(shape, raw), best) {
                            // More channels than need be must be worth it.
                            (Some(cost), Some((least, other)))
                                if cost >= least || (channels > other.channels && cost * 50 >= least * 49) =>
                            {
                                best
                            }
                            (Some(cost), _) => Some((cost, shape)),
                            (None, _) => best,
                        };
                    }
                }
            }
        }
    }
    best.map(|(cost, shape)| (whole(shape, raw), cost))
}

/// Shapes worth a trial, the more likely one first: with the rows that were found, without.
pub(super) fn shapes(raw: &[u8], shape: Shape) -> Vec<Shape> {
    // Of samples of more than a byte, those of sound are below zero as often as above, and those of pictures never.
    let row = if shape.signed && shape.width > 1 { None } else { row(raw, shape) };
    row.map(|row| Shape { row, ..shape }).into_iter().chain([shape]).collect()
}

/// About how many 1/256 bits a byte costs that is coded as what differs from the samples before it; `None` where it is hardly
/// less than what differs from any: by half a bit for each sample.
fn cost(shape: Shape, raw: &[u8]) -> Option<u64> {
    let (width, pixel) = (usize::from(shape.width), shape.pixel());
    let first = usize::from(shape.phase) + FAR * pixel;
    let count = raw.len().saturating_sub(first) / width;
    let value = |at: usize| raw.get(at..at + width).map_or(0, |bytes| shape.value(bytes));
    let size = |a: i32, b: i32| u64::from(octaves(a.wrapping_sub(b).unsigned_abs() << 4, 4));
    let (mut near, mut slope, mut far, mut places) = (0, 0, 0, 0);
    // A step that has no factor of any number of channels, so that all are seen.
    for at in (0..count).step_by(count / PLACES / 12 * 12 + 1).map(|n| first + n * width) {
        let [now, left, left2, other] = [0, pixel, 2 * pixel, FAR * pixel].map(|n| value(at - n));
        near += size(now, left);
        slope += size(now, left.wrapping_mul(2).wrapping_sub(left2));
        far += size(now, other);
        places += 1;
    }
    let least = near.min(slope);
    // The sign, and what sizes differ among themselves.
    (places > 0 && least + 8 * places < far).then(|| (least + 32 * places) * 16 / (places * width as u64))
}

/// The same shape from the first channel on: the one that has least in common with that before it.
fn whole(shape: Shape, raw: &[u8]) -> Shape {
    let (width, pixel) = (usize::from(shape.width), shape.pixel());
    let step = (raw.len() / pixel / PLACES).max(1) * pixel;
    let value = |at: usize| raw.get(at..at + width).map_or(0, |bytes| shape.value(bytes));
    let gained = |channel: usize| -> i64 {
        let first = pixel + usize::from(shape.phase) + channel * width;
        let cost = |difference: i32| i64::from(octaves(difference.unsigned_abs() << 4, 4));
        let slope = |at: usize| value(at).wrapping_sub(value(at - pixel));
        let pairs = (first + pixel..raw.len()).step_by(step).map(|at| (slope(at), slope(at - width)));
        pairs.map(|(own, other)| cost(own) - cost(own.wrapping_sub(other))).sum()
    };
    let first = (0..usize::from(shape.channels)).min_by_key(|channel| gained(*channel)).unwrap_or(0);
    Shape { phase: ((usize::from(shape.phase) + first * width) % pixel) as u16, ..shape }
}

/// The length of rows, bytes: how far back bytes are most like these.
fn row(raw: &[u8], shape: Shape) -> Option<u16> {
    let (longest, shortest) = (ROW_MAX.min(raw.len() / 4), (8 * shape.pixel()).max(ROW_BYTES));
    let from = longest + ROW_BYTES;
    // What a byte differs by from the pixel before it: where it is the same a row above, that is no smoothness alone.
    let slopes: Vec<u8> = raw.iter().zip(raw.get(shape.pixel()..)?).map(|(a, b)| b.wrapping_sub(*a)).collect();
    let raw = &slopes;
    let differ = |lag: usize, places: usize| -> u32 {
        let step = raw.len().saturating_sub(from + ROW_BYTES) / places;
        let bytes = |at: usize| raw.get(at..).and_then(|bytes| bytes.first_chunk::<ROW_BYTES>());
        let pairs = (0..places).filter_map(|n| Some((bytes(from + n * step)?, bytes(from + n * step - lag)?)));
        let differ = |now: &[u8; ROW_BYTES], then: &[u8; ROW_BYTES]| -> u16 {
            now.iter().zip(then).map(|(a, b)| u16::from((a.wrapping_sub(*b) as i8).unsigned_abs())).sum()
        };
        pairs.map(|(now, then)| u32::from(differ(now, then))).sum()
    };
    let lags: Vec<(u32, usize)> = (shortest..=longest).map(|lag| (differ(lag, ROW_PLACES), lag)).collect();
    let usual = lags.iter().map(|(sum, _)| u64::from(*sum)).sum::<u64>() / lags.len().max(1) as u64;
    let least = lags.iter().map(|(sum, _)| *sum).min()?;
    if u64::from(least) * ROW_SHARE.1 > usual * ROW_SHARE.0 {
        return None;
    }
    // Of a length and its multiples the first is taken, and of those near it the best, looked at in more places.
    let (_, best) = *lags.iter().min()?;
    let sum = |lag: usize| lag.checked_sub(shortest).and_then(|at| lags.get(at)).map_or(u32::MAX, |(sum, _)| *sum);
    let first = (1..=8).rev().map(|n| best / n).find(|lag| sum(*lag) <= least + least / 16).unwrap_or(best);
    let near = first.saturating_sub(NEAR).max(shortest)..=(first + NEAR).min(longest);
    near.min_by_key(|lag| differ(*lag, ROW_PLACES_NEAR)).and_then(|lag| u16::try_from(lag).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(raw: &[u8]) -> Vec<Shape> {
        likely(raw).map_or_else(Vec::new, |(shape, _)| shapes(raw, shape))
    }

    fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut x = seed;
        move |bound| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) % bound
        }
    }

    /// Every width, order of bytes, sign and number of channels, with and without rows, some with bytes beside the pixels.
    fn all_shapes(next: &mut impl FnMut(u64) -> u64) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for flags in 0..3 * 4 * 2 * 2 * 4u8 {
            let (width, channels) = (flags % 3 + 1, flags / 3 % 4 + 1);
            let (big, signed, rows) = (flags / 12 % 2 == 1, flags / 24 % 2 == 1, flags / 48);
            let pixel = u16::from(width) * u16::from(channels);
            let row = if rows == 0 { 0 } else { pixel * (2 + next(60) as u16) + u16::from(rows - 1) };
            let whole = if row.is_multiple_of(pixel) { pixel } else { row };
            shapes.push(Shape { width, channels, big, signed, row, phase: next(u64::from(whole)) as u16 });
        }
        shapes
    }

    #[test]
    fn any_bytes_come_back_in_any_shape() {
        let mut next = dice(11);
        for shape in all_shapes(&mut next) {
            assert_eq!(Shape::from_bytes(shape.to_bytes()).unwrap(), shape);
            for kind in 0..5 {
                let len = [0, 1, 2, 7, 1500][kind] + next(6) as usize;
                let mut level = 100i64;
                let plain: Vec<u8> = (0..len)
                    .map(|n| {
                        level += next(7) as i64 - 3;
                        match (n / 300 + kind) % 4 {
                            0 => next(256) as u8,
                            1 => [0, 255, 128, 127][next(4) as usize],
                            2 => level as u8,
                            _ => 255 * (n % 2) as u8,
                        }
                    })
                    .collect();
                let mut bytes = plain.clone();
                forward(shape, &mut bytes);
                back(shape, &mut bytes);
                assert!(bytes == plain, "{shape:?}, {len} bytes");
                // What a damaged payload decodes to has samples too.
                back(shape, &mut bytes);
                forward(shape, &mut bytes);
                assert!(bytes == plain, "{shape:?}, {len} bytes");
                let mut contexts = Differences::new(shape);
                for byte in bytes {
                    contexts.observe(byte);
                    contexts.hashes();
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_exist_are_refused() {
        for bad in [
            [3, 0, 0, 0, 0],
            [0x80, 0, 0, 0, 0],
            [0x40, 0, 0, 0, 0],
            [0, 0, 0, 1, 0],
            [0x20, 0, 0, 3, 0],
            [0x20, 5, 0, 0, 0],
            [0x20, 7, 0, 7, 0],
        ] {
            assert!(Shape::from_bytes(bad).is_err(), "{bad:?}");
        }
        let mut next = dice(12);
        for _ in 0..20_000 {
            let bytes = std::array::from_fn(|_| next(256) as u8);
            if let Ok(shape) = Shape::from_bytes(bytes) {
                assert_eq!(shape.to_bytes(), bytes);
                assert!(shape.after(next(70_000) as usize).checked().is_some(), "{shape:?}");
            }
        }
    }

    /// A picture of this many pixels in a row, with bytes beside them.
    fn picture(width: usize, channels: usize, beside: usize, rows: usize) -> Vec<u8> {
        let mut next = dice(13);
        let mut bytes = Vec::new();
        let mut level = 100;
        let mut light: Vec<i32> = (0..width)
            .map(|_| {
                level = (level + next(21) as i32 - 10).clamp(40, 140);
                level
            })
            .collect();
        for _ in 0..rows {
            for light in &mut light {
                *light = (*light + next(5) as i32 - 2).clamp(40, 140);
                (0..channels).for_each(|c| bytes.push((*light as usize + 30 * c + next(4) as usize) as u8));
            }
            bytes.resize(bytes.len() + beside, 0);
        }
        bytes
    }

    fn sound(channels: usize, width: usize, big: bool, frames: usize) -> Vec<u8> {
        let mut next = dice(14);
        let mut bytes = Vec::new();
        for n in 0..frames {
            for channel in 0..channels {
                let t = n as f64;
                let loud = (t / 31.0).sin() + 0.5 * (t / 7.3).sin() + 0.2 * channel as f64 * (t / 11.0).cos();
                let fine = (next(40 * 256) >> (8 * (3 - width))) as i32;
                let value = ((loud * 9000.0) as i32).wrapping_shl(8 * (width as u32 - 2)) + fine;
                let bytes4 = value.to_be_bytes();
                let mut sample = bytes4[4 - width..].to_vec();
                if !big {
                    sample.reverse();
                }
                bytes.extend(sample);
            }
        }
        bytes
    }

    #[test]
    fn what_samples_are_like_is_found_wherever_they_are_cut() {
        for (channels, beside) in [(1, 0), (3, 0), (3, 2), (4, 0)] {
            let row = (331 * channels + beside) as u16;
            let all = picture(331, channels, beside, 300);
            for cut in [0, 1, 1000] {
                let found = found(&all[cut..]);
                let right = found.iter().any(|s| s.row == row && usize::from(s.channels) == channels && s.width == 1);
                assert!(right, "{channels} channels, {beside} beside, from {cut}: {found:?}");
            }
        }
        for (channels, width, big) in [(1, 2, false), (2, 2, true), (2, 3, false), (1, 3, true)] {
            let all = sound(channels, width, big, 30_000);
            for cut in 0..4 {
                let found = found(&all[cut..]);
                let right = found.iter().any(|s| {
                    (usize::from(s.channels), usize::from(s.width), s.big) == (channels, width, big)
                        && (cut + usize::from(s.phase)).is_multiple_of(width)
                        && s.row == 0
                });
                assert!(right, "{channels} channels of {width}, {big}, from {cut}: {found:?}");
            }
        }
    }

    #[test]
    fn what_is_not_samples_is_not_taken_for_them() {
        let mut next = dice(15);
        let noise: Vec<u8> = (0..60_000).map(|_| next(256) as u8).collect();
        let skewed: Vec<u8> = (0..60_000).map(|_| (next(16) * next(16)) as u8).collect();
        assert!(found(&noise).is_empty() && found(&skewed).is_empty());
        for len in 0..40 {
            found(&noise[..len]);
            found(&vec![7; len]);
        }
        assert!(found(&vec![7; 60_000]).is_empty());
    }

    #[test]
    fn differences_are_small_where_neighbours_foretell() {
        let mean = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum::<u64>() / bytes.len() as u64;
        let mut bytes = picture(200, 3, 0, 200);
        forward(Shape { width: 1, channels: 3, big: false, signed: false, row: 600, phase: 0 }, &mut bytes);
        // Twice the noise of 0 to 3 and of the level, and the sign.
        assert!(mean(&bytes[6000..]) < 4, "{}", mean(&bytes[6000..]));
        let mut bytes = sound(2, 2, false, 20_000);
        forward(Shape { width: 2, channels: 2, big: false, signed: true, row: 0, phase: 0 }, &mut bytes);
        assert!(bytes[4000..].iter().step_by(2).all(|high| *high <= 1));
    }
}
