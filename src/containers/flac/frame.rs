//! One frame, taken apart and written again: its head, and for each channel how it is predicted and what is left is coded.

use super::bits::{Reader, Writer, crc8, crc16};

/// Samples of a channel in a frame.
pub(super) const SIZE_MAX: u32 = 1 << 16;
/// Parts of a channel's residual, as a power of two.
pub(super) const PARTS_MAX: u32 = 15;
pub(super) const CHANNELS_MAX: usize = 8;
/// Bits of a sample: `sound` takes no more.
const BITS_MAX: u32 = 24;
/// Parameters that say that numbers follow as they are, of four bits and of five.
const ESCAPES: [u32; 2] = [15, 31];
/// Numbers of frames have at most this many bits.
const NUMBER_BITS_MAX: u32 = 36;

/// What is alike in all frames of a file, but for the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Form {
    /// Frames are numbered by their first sample, as they are not of one size.
    pub variable: bool,
    /// How the size is told, 4 bits; the rate, 4; the bits of a sample, 3.
    pub size_code: u8,
    pub rate_code: u8,
    pub bits_code: u8,
    /// The rate, where that is told at the end of the head.
    pub rate: u16,
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    pub form: Form,
    /// How channels depend on each other.
    pub assignment: u8,
    pub number: u64,
    /// Samples of a channel.
    pub size: u32,
}

impl Head {
    pub fn channels(&self) -> usize {
        if self.assignment < 8 { usize::from(self.assignment) + 1 } else { 2 }
    }

    /// Bits of a sample; `None` where they are told elsewhere, or are too many.
    pub fn bits(&self) -> Option<u32> {
        Some(match self.form.bits_code {
            1 => 8,
            2 => 12,
            4 => 16,
            5 => 20,
            6 => 24,
            _ => return None,
        })
    }

    /// Bits of a sample as a channel has it: differences take one more.
    pub fn bits_of(&self, channel: usize) -> Option<u32> {
        let differs = matches!((self.assignment, channel), (8, 1) | (9, 0) | (10, 1));
        Some(self.bits()? + u32::from(differs))
    }

    /// The size that its code tells; `Some(0)` where the code says that it follows.
    fn size_by_code(code: u8) -> Option<u32> {
        Some(match code {
            1 => 192,
            2..=5 => 576 << (code - 2),
            6 | 7 => 0,
            8..=15 => 256 << (code - 8),
            _ => return None,
        })
    }

    /// False where the fields do not go together.
    pub fn is_sound(&self) -> bool {
        let by_size = match (Head::size_by_code(self.form.size_code), self.form.size_code) {
            (Some(_), 6) => (1..=1 << 8).contains(&self.size),
            (Some(_), 7) => (1..=SIZE_MAX).contains(&self.size),
            (Some(size), _) => size == self.size,
            (None, _) => false,
        };
        by_size
            && self.bits().is_some_and(|bits| bits <= BITS_MAX)
            && self.form.rate_code < 15
            && (self.form.rate == 0 || self.form.rate_code >= 12)
            && (self.form.rate < 256 || self.form.rate_code > 12)
            && self.assignment <= 10
            && self.number < 1 << NUMBER_BITS_MAX
    }

    fn read(reader: &mut Reader<'_>) -> Option<Head> {
        if reader.bits(15)? != 0x7ffc {
            return None;
        }
        let variable = reader.bits(1)? == 1;
        let mut code = |bits| reader.bits(bits).map(|code| code as u8);
        let (size_code, rate_code, assignment) = (code(4)?, code(4)?, code(4)?);
        let (bits_code, zero) = (code(3)?, code(1)?);
        let mut size = Head::size_by_code(size_code)?;
        // As UTF-8 numbers letters, up to seven bytes.
        let first = reader.bits(8)?;
        let more = match (first as u8).leading_ones() {
            0 => 0,
            ones @ 2..=7 => ones - 1,
            _ => return None,
        };
        let mut number = if more == 0 { u64::from(first) } else { u64::from(first) & ((1 << (6 - more)) - 1) };
        for _ in 0..more {
            let byte = reader.bits(8)?;
            if byte >> 6 != 2 {
                return None;
            }
            number = number << 6 | u64::from(byte & 63);
        }
        // Numbers with more bytes than they need are not written.
        if more > 0 && number_bytes(number).len() != more as usize + 1 {
            return None;
        }
        match size_code {
            6 => size = reader.bits(8)? + 1,
            7 => size = reader.bits(16)? + 1,
            _ => {}
        }
        let rate = match rate_code {
            12 => reader.bits(8)?,
            13 | 14 => reader.bits(16)?,
            _ => 0,
        };
        let form = Form { variable, size_code, rate_code, bits_code, rate: rate as u16 };
        let head = Head { form, assignment, number, size };
        (zero == 0 && head.is_sound()).then_some(head)
    }

    fn write(&self, writer: &mut Writer) -> Option<()> {
        writer.bits(0x7ffc << 1 | u32::from(self.form.variable), 16)?;
        writer.bits(self.form.size_code.into(), 4)?;
        writer.bits(self.form.rate_code.into(), 4)?;
        writer.bits(self.assignment.into(), 4)?;
        writer.bits(u32::from(self.form.bits_code) << 1, 4)?;
        for byte in number_bytes(self.number) {
            writer.bits(byte.into(), 8)?;
        }
        match self.form.size_code {
            6 => writer.bits(self.size - 1, 8)?,
            7 => writer.bits(self.size - 1, 16)?,
            _ => {}
        }
        match self.form.rate_code {
            12 => writer.bits(self.form.rate.into(), 8)?,
            13 | 14 => writer.bits(self.form.rate.into(), 16)?,
            _ => {}
        }
        let crc = crc8(&writer.bytes);
        writer.bits(crc.into(), 8)
    }
}

/// A number in the manner of UTF-8.
fn number_bytes(number: u64) -> Vec<u8> {
    if number < 0x80 {
        return vec![number as u8];
    }
    let more = (1..7).find(|more| number >> (5 * more + 6) == 0).unwrap_or(6);
    let lead = (0xff80 >> more) as u8;
    let first = lead | (number >> (6 * more)) as u8;
    std::iter::once(first).chain((0..more).rev().map(|n| 0x80 | (number >> (6 * n)) as u8 & 63)).collect()
}

/// How a channel is predicted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Predictor {
    Constant,
    Verbatim,
    /// By a polynomial through the last samples.
    Fixed(u8),
    Linear {
        /// Bits of a coefficient, 1 to 15.
        precision: u8,
        shift: u8,
        coefficients: Vec<i32>,
    },
}

impl Predictor {
    /// Samples that come before the first that is predicted.
    pub fn order(&self) -> usize {
        match self {
            Predictor::Constant | Predictor::Verbatim => 0,
            Predictor::Fixed(order) => usize::from(*order),
            Predictor::Linear { coefficients, .. } => coefficients.len(),
        }
    }

    pub fn has_residual(&self) -> bool {
        matches!(self, Predictor::Fixed(_) | Predictor::Linear { .. })
    }

    /// Coefficients from the last sample on, and by how much their sum is shifted.
    fn weights(&self) -> (Vec<i64>, u32) {
        match self {
            Predictor::Constant | Predictor::Verbatim => (Vec::new(), 0),
            Predictor::Fixed(order) => {
                let weights: &[i64] = match order {
                    0 => &[],
                    1 => &[1],
                    2 => &[2, -1],
                    3 => &[3, -3, 1],
                    _ => &[4, -6, 4, -1],
                };
                (weights.to_vec(), 0)
            }
            Predictor::Linear { shift, coefficients, .. } => {
                (coefficients.iter().map(|c| i64::from(*c)).collect(), (*shift).into())
            }
        }
    }

    /// What samples differ from what is predicted, behind those that come before.
    pub fn residual(&self, samples: &[i32]) -> Vec<i64> {
        let (mut weights, shift) = self.weights();
        weights.reverse();
        let windows = samples.windows(weights.len() + 1);
        let left = |window: &[i32]| {
            let (last, before) = window.split_last().unwrap_or((&0, &[]));
            let sum: i64 = before.iter().zip(&weights).map(|(sample, weight)| i64::from(*sample) * weight).sum();
            i64::from(*last) - (sum >> shift)
        };
        windows.map(left).collect()
    }
}

/// How one part of a residual is coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Rice(u8),
    /// As numbers of so many bits.
    Plain(u8),
}

/// How a residual is coded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Rice {
    /// Parameters have five bits, else four.
    pub long: bool,
    pub parts: Vec<Part>,
}

impl Rice {
    /// Parameters of Rice codes are less than this.
    pub fn escape(long: bool) -> u32 {
        let [short, five] = ESCAPES;
        if long { five } else { short }
    }

    /// The residual in the parts that so many make; `None` where they do not divide it.
    pub fn split(residual: &[i64], order: usize, parts: usize) -> Option<impl Iterator<Item = &[i64]>> {
        let size = residual.len() + order;
        let part = size / parts.max(1);
        if parts == 0 || !size.is_multiple_of(parts) || part < order {
            return None;
        }
        let (first, others) = residual.split_at_checked(part - order)?;
        Some(std::iter::once(first).chain(others.chunks(part.max(1))))
    }
}

/// A channel of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Subframe {
    pub predictor: Predictor,
    /// Lowest bits of all samples that are zero, and left out.
    pub wasted: u8,
    pub rice: Rice,
}

/// A frame, read.
pub(super) struct Frame {
    pub head: Head,
    pub subframes: Vec<Subframe>,
    /// Samples of each channel as it has them: without what is left out, and as differences.
    pub samples: Vec<Vec<i32>>,
    /// Bytes of the frame.
    pub len: usize,
}

/// The head of the frame at the start of some bytes, where its checksum is right.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    checked_head(&mut Reader::new(bytes), bytes)
}

fn checked_head(reader: &mut Reader<'_>, bytes: &[u8]) -> Option<Head> {
    let head = Head::read(reader)?;
    let len = reader.aligned()?;
    (u32::from(crc8(bytes.get(..len)?)) == reader.bits(8)?).then_some(head)
}

/// Reads the frame at the start of some bytes, of at most `samples_max` samples of all channels. `None` where there is none whose
/// checksums are right, or it would not be written like that.
pub(super) fn read(bytes: &[u8], samples_max: usize) -> Option<Frame> {
    let mut reader = Reader::new(bytes);
    let head = checked_head(&mut reader, bytes)?;
    if head.size as usize * head.channels() > samples_max {
        return None;
    }
    let (mut subframes, mut samples) = (Vec::new(), Vec::new());
    for channel in 0..head.channels() {
        let (subframe, values) = subframe(&mut reader, head.bits_of(channel)?, head.size as usize)?;
        subframes.push(subframe);
        samples.push(values);
    }
    let len = reader.aligned()?;
    if u32::from(crc16(bytes.get(..len)?)) != reader.bits(16)? {
        return None;
    }
    Some(Frame { head, subframes, samples, len: len + 2 })
}

fn fits(sample: i64, bits: u32) -> Option<i32> {
    let half = 1i64 << (bits - 1);
    if (-half..half).contains(&sample) { i32::try_from(sample).ok() } else { None }
}

fn subframe(reader: &mut Reader<'_>, bits: u32, size: usize) -> Option<(Subframe, Vec<i32>)> {
    if reader.bits(1)? != 0 {
        return None;
    }
    let kind = reader.bits(6)?;
    let wasted = if reader.bits(1)? == 1 { u32::try_from(reader.zeros()?).ok()?.checked_add(1)? } else { 0 };
    let bits = bits.checked_sub(wasted).filter(|bits| *bits > 0)?;
    let sample = |reader: &mut Reader<'_>| reader.signed(bits).map(|sample| sample as i32);
    let plain = |predictor| Subframe { predictor, wasted: wasted as u8, rice: Rice::default() };
    let order = match kind {
        0 => {
            let value = sample(reader)?;
            return Some((plain(Predictor::Constant), vec![value; size]));
        }
        1 => {
            let values = (0..size).map(|_| sample(reader)).collect::<Option<Vec<_>>>()?;
            return Some((plain(Predictor::Verbatim), values));
        }
        8..=12 => kind as usize - 8,
        32..=63 => kind as usize - 31,
        _ => return None,
    };
    if order > size {
        return None;
    }
    let mut values = Vec::with_capacity(size);
    for _ in 0..order {
        values.push(sample(reader)?);
    }
    let predictor = if kind < 32 {
        Predictor::Fixed(order as u8)
    } else {
        let precision = reader.bits(4)? + 1;
        let shift = reader.signed(5)?;
        if precision > 15 || shift < 0 {
            return None;
        }
        let coefficient = |_| reader.signed(precision).map(|c| c as i32);
        let coefficients = (0..order).map(coefficient).collect::<Option<Vec<_>>>()?;
        Predictor::Linear { precision: precision as u8, shift: shift as u8, coefficients }
    };
    let rice = residual(reader, &predictor, bits, size, &mut values)?;
    Some((Subframe { predictor, wasted: wasted as u8, rice }, values))
}

/// Reads a residual, and adds it to what is predicted.
fn residual(
    reader: &mut Reader<'_>,
    predictor: &Predictor,
    bits: u32,
    size: usize,
    values: &mut Vec<i32>,
) -> Option<Rice> {
    let long = match reader.bits(2)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let parts = 1usize << reader.bits(4)?;
    let (weights, shift) = predictor.weights();
    let part = size / parts;
    if !size.is_multiple_of(parts) || part < weights.len() {
        return None;
    }
    let mut rice = Rice { long, parts: Vec::with_capacity(parts) };
    for n in 0..parts {
        let count = if n == 0 { part - weights.len() } else { part };
        let parameter = reader.bits(if long { 5 } else { 4 })?;
        let is_plain = parameter == Rice::escape(long);
        let plain_bits = if is_plain { reader.bits(5)? } else { 0 };
        rice.parts.push(if is_plain { Part::Plain(plain_bits as u8) } else { Part::Rice(parameter as u8) });
        for _ in 0..count {
            let left = if is_plain {
                reader.signed(plain_bits)?
            } else {
                let high = reader.zeros()?;
                if high >> 40 != 0 {
                    return None;
                }
                let folded = high << parameter | u64::from(reader.bits(parameter)?);
                (folded >> 1) as i64 ^ -((folded & 1) as i64)
            };
            let before = values.get(values.len() - weights.len()..)?;
            let sum: i64 = before.iter().rev().zip(&weights).map(|(sample, weight)| i64::from(*sample) * weight).sum();
            values.push(fits(left.checked_add(sum >> shift)?, bits)?);
        }
    }
    Some(rice)
}

/// Begins a frame.
pub(super) fn begin(head: &Head, room: usize) -> Option<Writer> {
    let mut writer = Writer::new(room);
    head.write(&mut writer)?;
    Some(writer)
}

/// Writes a channel, whose samples take so many bits beside what is left out.
pub(super) fn put(
    writer: &mut Writer,
    subframe: &Subframe,
    bits: u32,
    samples: &[i32],
    residual: &[i64],
) -> Option<()> {
    let order = subframe.predictor.order();
    let kind = match &subframe.predictor {
        Predictor::Constant => 0,
        Predictor::Verbatim => 1,
        Predictor::Fixed(_) => 8 + order as u32,
        Predictor::Linear { .. } => 31 + order as u32,
    };
    writer.bits(kind << 1 | u32::from(subframe.wasted > 0), 8)?;
    if let Some(zeros) = subframe.wasted.checked_sub(1) {
        writer.zeros(zeros.into())?;
    }
    let before = match subframe.predictor {
        Predictor::Constant => 1,
        Predictor::Verbatim => samples.len(),
        Predictor::Fixed(_) | Predictor::Linear { .. } => order,
    };
    for sample in samples.get(..before)? {
        writer.bits(fits((*sample).into(), bits)? as u32, bits)?;
    }
    if let Predictor::Linear { precision, shift, coefficients } = &subframe.predictor {
        let precision = u32::from(*precision);
        writer.bits(precision - 1, 4)?;
        writer.bits((*shift).into(), 5)?;
        for coefficient in coefficients {
            writer.bits(fits((*coefficient).into(), precision)? as u32, precision)?;
        }
    }
    if !subframe.predictor.has_residual() {
        return Some(());
    }
    let Rice { long, parts } = &subframe.rice;
    writer.bits((*long).into(), 2)?;
    writer.bits(parts.len().checked_ilog2()?, 4)?;
    for (part, left) in parts.iter().zip(Rice::split(residual, order, parts.len())?) {
        let parameter_bits = if *long { 5 } else { 4 };
        match *part {
            Part::Plain(bits) => {
                let bits = u32::from(bits);
                writer.bits(Rice::escape(*long), parameter_bits)?;
                writer.bits(bits, 5)?;
                for value in left {
                    let value = if bits == 0 { (*value == 0).then_some(0) } else { fits(*value, bits) };
                    writer.bits(value? as u32, bits)?;
                }
            }
            Part::Rice(parameter) => {
                let parameter = u32::from(parameter);
                writer.bits(parameter, parameter_bits)?;
                for value in left {
                    let folded = (*value << 1 ^ *value >> 63) as u64;
                    writer.zeros(folded >> parameter)?;
                    writer.bits(folded as u32, parameter)?;
                }
            }
        }
    }
    Some(())
}

/// Ends a frame.
pub(super) fn end(mut writer: Writer) -> Option<Vec<u8>> {
    writer.align()?;
    let crc = crc16(&writer.bytes);
    writer.bits(crc.into(), 16)?;
    Some(writer.bytes)
}
