//! Samples as numbers that are predicted, of 25 bits at most with their sign, and what is left of each beside that.
//!
//! Low bits that no sample of a segment has are left away. Of whole numbers of four bytes the low byte is left, or what of it is used. A
//! float is `significand * 2^exponent`: the number is the significand as it is beside that of the largest, and bits that are too small
//! for that are left. So floats that were made of whole numbers are these numbers again, and leave nothing. A float that is nothing
//! beside the largest, or no number, is told whole.

use super::format::Format;
use super::predictor::Range;
use crate::entropy::Channel;
use crate::models::values::Counter;

/// Bits of a significand, and those of them that are stored.
const SIGNIFICAND_BITS: u32 = 24;
const STORED_BITS: u32 = SIGNIFICAND_BITS - 1;
/// The exponent of what is no number.
const EXPONENT_NONE: u32 = 255;
/// Bits of a whole number of four bytes that are left.
const LEFT_BITS: u32 = 8;
/// Bits of what is left of which each is told by all before it; the others by whether there was any.
const TREE_BITS: u32 = 8;
const TREE: usize = 1 << TREE_BITS;
const ROW: usize = TREE + 2 * SIGNIFICAND_BITS as usize;
/// What counters learn from at least, one part of so many.
const COUNT_MAX: u32 = 250;

/// A sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// What is predicted.
    pub number: i32,
    /// What is left.
    pub left: u32,
}

/// How samples are taken for numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers {
    pub format: Format,
    /// Low bits of all numbers that are left away, being nothing.
    pub shift: u32,
    /// Something is left of samples.
    pub leaves: bool,
    /// The exponent of the largest float.
    pub power: u8,
}

/// What is left of a number.
enum Left {
    Nothing,
    Bits(u32),
    /// The float is 0, or told whole.
    Whole,
}

fn exponent(word: u32) -> u32 {
    word >> STORED_BITS & 255
}

fn significand(word: u32) -> u32 {
    (word & ((1 << STORED_BITS) - 1)) | 1 << STORED_BITS
}

impl Numbers {
    /// How samples of a format are taken.
    pub fn of(format: Format, bytes: &[u8]) -> Numbers {
        let words = || bytes.chunks_exact(format.width).map(|bytes| format.word(bytes));
        let whole = Numbers { format, shift: 0, leaves: false, power: 0 };
        if format.float {
            let power = words().map(exponent).filter(|e| *e != EXPONENT_NONE).max().unwrap_or(0);
            let told = |word: &u32| {
                exponent(*word) > 0 && exponent(*word) <= power && power - exponent(*word) < SIGNIFICAND_BITS
            };
            // As in the place of the largest, with as many places behind.
            let placed = |word: u32| u64::from(significand(word)) << SIGNIFICAND_BITS >> (power - exponent(word));
            let used = words().filter(told).fold(0, |used, word| used | placed(word));
            let zeros = if used == 0 { SIGNIFICAND_BITS } else { used.trailing_zeros() };
            let leaves = zeros < SIGNIFICAND_BITS;
            return Numbers { shift: zeros.saturating_sub(SIGNIFICAND_BITS), leaves, power: power as u8, ..whole };
        }
        if format.width == 1 {
            return whole;
        }
        let used = words().fold(0, |used, word| used | word);
        let shift = if used == 0 { 0 } else { used.trailing_zeros() };
        Numbers { shift, leaves: format.width == 4 && shift < LEFT_BITS, ..whole }
    }

    /// The same, as a payload says; none where no samples are so.
    pub fn told(format: Format, shift: u32, leaves: bool, power: u8) -> Option<Numbers> {
        let bits = if format.float { SIGNIFICAND_BITS } else { 8 * format.width as u32 };
        let may_leave = if format.float { shift == 0 } else { format.width == 4 && shift < LEFT_BITS };
        let known =
            shift < bits && leaves <= may_leave && (leaves || format.float || format.width < 4 || shift >= LEFT_BITS);
        known.then_some(Numbers { format, shift, leaves, power })
    }

    /// What numbers are between, and which is silence.
    pub fn range(&self) -> Range {
        let Format { width, float, signed, .. } = self.format;
        if width == 1 && !signed {
            return Range { least: 0, most: 255, zero: 128 };
        }
        if float {
            let most = (1 << SIGNIFICAND_BITS >> self.shift) - 1;
            return Range { least: -most, most, zero: 0 };
        }
        let half = 1i32 << (8 * width as u32 - 1 - self.away());
        Range { least: -half, most: half - 1, zero: 0 }
    }

    /// Bits of whole numbers that are not predicted.
    fn away(&self) -> u32 {
        if self.leaves { LEFT_BITS } else { self.shift }
    }

    /// A sample.
    #[inline(always)]
    pub fn apart(&self, bytes: &[u8]) -> Sample {
        let word = self.format.word(bytes);
        if !self.format.float {
            let left = if self.leaves { (word & ((1 << LEFT_BITS) - 1)) >> self.shift } else { 0 };
            return Sample { number: word as i32 >> self.away(), left };
        }
        let less = u32::from(self.power).wrapping_sub(exponent(word));
        if exponent(word) == 0 || less >= SIGNIFICAND_BITS {
            return Sample { number: 0, left: word };
        }
        let size = (significand(word) >> less >> self.shift) as i32;
        let number = if word >> 31 == 1 { -size } else { size };
        Sample { number, left: if self.leaves { significand(word) & ((1 << less) - 1) } else { 0 } }
    }

    /// Writes a sample.
    pub fn together(&self, sample: Sample, out: &mut Vec<u8>) {
        let Sample { number, left } = sample;
        let word = if !self.format.float {
            let low = if self.leaves { left << self.shift } else { 0 };
            (number as u32) << self.away() | low
        } else if number == 0 {
            left
        } else {
            let size = number.unsigned_abs() << self.shift;
            let less = SIGNIFICAND_BITS.saturating_sub(u32::BITS - size.leading_zeros());
            let significand = size << less | left;
            let exponent = u32::from(self.power).wrapping_sub(less) & 255;
            u32::from(number < 0) << 31 | exponent << STORED_BITS | (significand & ((1 << STORED_BITS) - 1))
        };
        self.format.put(word, out);
    }

    fn left(&self, number: i32) -> Left {
        if self.format.float && number == 0 {
            Left::Whole
        } else if !self.leaves {
            Left::Nothing
        } else if self.format.float {
            Left::Bits(number.unsigned_abs().leading_zeros().saturating_sub(u32::BITS - SIGNIFICAND_BITS))
        } else {
            Left::Bits(LEFT_BITS - self.shift)
        }
    }

    /// Bits that are left of a sample, at most.
    pub fn left_bits(&self, sample: &Sample) -> u32 {
        match self.left(sample.number) {
            Left::Bits(bits) => bits,
            Left::Whole if sample.left != 0 => u32::BITS,
            Left::Nothing | Left::Whole => 0,
        }
    }
}

/// Codes what is left of the samples of a channel.
pub struct Rest {
    /// By how many bits are left: of a float that says how large it is.
    rows: Vec<[Counter; ROW]>,
    is_zero: Counter,
    bytes: Vec<[Counter; TREE]>,
}

/// Passes a bit on, or gets it.
#[inline(always)]
fn pass_bit(channel: &mut impl Channel, counter: &mut Counter, bit: u32) -> u32 {
    let bit = channel.pass((bit & 1) as u8, counter.p().max(1)) & 1;
    counter.learn_within(bit, COUNT_MAX);
    bit.into()
}

impl Rest {
    /// Bytes of it.
    pub const BYTES: u64 = ((SIGNIFICAND_BITS as usize * ROW + 4 * TREE) * size_of::<Counter>()) as u64;

    pub fn new() -> Rest {
        Rest {
            rows: vec![[Counter::NEW; ROW]; SIGNIFICAND_BITS as usize],
            is_zero: Counter::NEW,
            bytes: vec![[Counter::NEW; TREE]; 4],
        }
    }

    /// Passes on what is left of a number, or gets it.
    pub fn pass(&mut self, channel: &mut impl Channel, numbers: &Numbers, number: i32, left: u32) -> u32 {
        match numbers.left(number) {
            Left::Nothing => 0,
            Left::Bits(bits) => {
                let Some(row) = self.rows.get_mut(bits as usize) else { return 0 };
                let (mut node, mut came) = (1, 0);
                for n in 0..bits {
                    let at = if n < TREE_BITS { node } else { TREE + 2 * n as usize + usize::from(came != 0) };
                    let Some(counter) = row.get_mut(at) else { continue };
                    let bit = pass_bit(channel, counter, left >> (bits - 1 - n));
                    came = came << 1 | bit;
                    node = node << 1 | bit as usize;
                }
                came
            }
            Left::Whole => {
                if pass_bit(channel, &mut self.is_zero, u32::from(left == 0)) == 1 {
                    return 0;
                }
                let mut came = 0;
                for (counters, byte) in self.bytes.iter_mut().zip(left.to_be_bytes()) {
                    let mut node = 1;
                    for n in (0..8).rev() {
                        let Some(counter) = counters.get_mut(node) else { continue };
                        node = node << 1 | pass_bit(channel, counter, u32::from(byte) >> n) as usize;
                    }
                    came = came << 8 | (node as u32 & 255);
                }
                came
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(width: usize, float: bool) -> Format {
        Format { width, channels: 1, big: false, signed: false, float }
    }

    /// Samples as numbers and back; how many bits are left away and how many are left, of all together.
    fn through(bytes: &[u8], format: Format) -> (u32, u32) {
        let numbers = Numbers::of(format, bytes);
        let Numbers { shift, leaves, power, .. } = numbers;
        assert_eq!(Numbers::told(format, shift, leaves, power), Some(numbers));
        let (range, mut out, mut left) = (numbers.range(), Vec::new(), 0);
        for sample in bytes.chunks_exact(format.width).map(|bytes| numbers.apart(bytes)) {
            assert!((range.least..=range.most).contains(&sample.number), "{sample:?}");
            left += numbers.left_bits(&sample);
            numbers.together(sample, &mut out);
        }
        assert!(out == bytes);
        (shift, left)
    }

    fn floats(of: &[f32]) -> Vec<u8> {
        of.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn floats_of_whole_numbers_are_these() {
        let whole: Vec<f32> = (-500..500).map(|n| n as f32 * 65.0 / 32768.0).collect();
        let (shift, left) = through(&floats(&whole), format(4, true));
        assert_eq!(left, 0, "zero is 0");
        assert!(shift >= 8, "{shift}");
        let numbers = Numbers::of(format(4, true), &floats(&whole));
        let steps = |a: f32, b: f32| numbers.apart(&b.to_le_bytes()).number - numbers.apart(&a.to_le_bytes()).number;
        assert_eq!(steps(whole[0], whole[1]), steps(whole[700], whole[701]));
    }

    #[test]
    fn every_float_comes_back() {
        let mut x = 1u32;
        let mut any = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(x ^ x >> 15)
        };
        let wild: Vec<f32> = (0..20_000).map(|_| any()).collect();
        through(&floats(&wild), format(4, true));
        let odd = [0.0, -0.0, f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MIN_POSITIVE, 1e-40, -1.0, 1.0, 1e-3, 0.3];
        through(&floats(&odd), format(4, true));
        let quiet: Vec<f32> = (0..999).map(|n| (n as f32 * 0.01).sin() * 0.7).collect();
        let (shift, left) = through(&floats(&quiet), format(4, true));
        assert!(shift == 0 && left > 0 && left < 999 * 4, "{left}");
        for all in [0.0, -0.0, f32::NAN, f32::MIN_POSITIVE / 2.0, f32::MAX] {
            through(&floats(&[all; 5]), format(4, true));
        }
    }

    #[test]
    fn low_bits_that_are_nothing_are_left_away() {
        let words =
            |shift: u32| -> Vec<u8> { (0..400i32).flat_map(|n| ((n * n - 9_999) << shift).to_le_bytes()).collect() };
        assert_eq!(through(&words(12), format(4, false)), (12, 0));
        assert_eq!(through(&words(3), format(4, false)), (3, 400 * 5));
        assert_eq!(through(&words(0), format(4, false)), (0, 400 * 8));
        let three: Vec<u8> = words(8).chunks(4).flat_map(|bytes| bytes[..3].to_vec()).collect();
        assert_eq!(through(&three, format(3, false)), (8, 0));
        assert_eq!(through(&[0; 300], format(3, false)), (0, 0));
        assert_eq!(through(&[0, 128, 0, 0, 128, 0], format(3, false)), (15, 0));
    }

    #[test]
    fn what_is_no_plan_is_none() {
        assert_eq!(Numbers::told(format(4, false), 0, false, 0), None, "25 bits at most");
        assert_eq!(Numbers::told(format(4, false), 9, true, 0), None);
        assert_eq!(Numbers::told(format(4, true), 1, true, 9), None);
        assert_eq!(Numbers::told(format(4, true), 24, false, 9), None);
        assert_eq!(Numbers::told(format(2, false), 16, false, 0), None);
        // Of a forged payload anything comes out, without a panic.
        let mut out = Vec::new();
        for (number, left) in [(-(1 << 24) + 1, u32::MAX), (1, 0), (-1, 1 << 23), (0, 7)] {
            Numbers::told(format(4, true), 0, true, 3).unwrap().together(Sample { number, left }, &mut out);
        }
        assert_eq!(out.len(), 16);
    }
}
