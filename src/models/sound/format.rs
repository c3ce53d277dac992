//! What samples are like: told by the head of a file, or found from bytes alone, wherever a segment was cut.

/// Most bytes of a sample, and most channels.
pub(super) const WIDTH_MAX: usize = 3;
pub(super) const CHANNELS_MAX: usize = 8;

/// What samples are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    /// Bytes of a sample, 1 to 3.
    pub width: usize,
    /// Samples of one time that follow each other, 1 to 8.
    pub channels: usize,
    /// The highest byte is first.
    pub big: bool,
    /// Samples of one byte are two's complement; longer ones are in any case.
    pub signed: bool,
}

impl Format {
    /// Bytes of the samples of one time.
    pub fn frame(&self) -> usize {
        self.width * self.channels
    }

    fn is_signed(&self) -> bool {
        self.signed || self.width > 1
    }

    /// Least and most that a sample may be, and silence.
    pub fn range(&self) -> (i32, i32, i32) {
        let half = 1i32 << (8 * self.width - 1);
        if self.is_signed() { (-half, half - 1, 0) } else { (0, 2 * half - 1, half) }
    }

    /// The sample whose bytes these are.
    #[inline(always)]
    pub fn sample(&self, bytes: &[u8]) -> i32 {
        let fold = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        let value = if self.big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) };
        let unused = 32 - 8 * self.width as u32;
        if self.is_signed() { (value << unused) as i32 >> unused } else { value as i32 }
    }

    /// Writes a sample.
    pub fn put(&self, sample: i32, out: &mut Vec<u8>) {
        let [a, b, c, _] = sample.to_le_bytes();
        match (self.width, self.big) {
            (1, _) => out.push(a),
            (2, false) => out.extend([a, b]),
            (2, true) => out.extend([b, a]),
            (_, false) => out.extend([a, b, c]),
            (_, true) => out.extend([c, b, a]),
        }
    }

    /// Its byte in a payload: width, order, sign, channels.
    pub fn to_byte(self) -> u8 {
        (self.width - 1) as u8 | u8::from(self.big) << 2 | u8::from(self.signed) << 3 | (self.channels as u8 - 1) << 4
    }

    /// Reads it.
    pub fn from_byte(byte: u8) -> Option<Format> {
        let (width, channels) = (usize::from(byte & 3) + 1, usize::from(byte >> 4) + 1);
        let sizes = width <= WIDTH_MAX && channels <= CHANNELS_MAX;
        sizes.then_some(Format { width, channels, big: byte & 4 != 0, signed: byte & 8 != 0 })
    }
}

/// Samples, and where in a segment they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub format: Format,
    pub from: usize,
    /// A whole number of frames later.
    pub to: usize,
}

impl Found {
    /// Whole frames from a place on, to another at most.
    fn new(format: Format, from: usize, to: usize) -> Option<Found> {
        let frames = to.checked_sub(from)? / format.frame();
        (frames > 0).then_some(Found { format, from, to: from + frames * format.frame() })
    }
}

/// What the head of a file says.
pub(super) enum Head {
    /// There is none that is known.
    None,
    /// Samples that are not for this method: too long ones, floats, or compressed.
    Foreign,
    Samples(Found),
}

fn number(bytes: Option<&[u8]>, big: bool) -> Option<usize> {
    let fold = |value: usize, byte: &u8| value << 8 | usize::from(*byte);
    bytes.map(|bytes| if big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
}

/// True for the first bytes of a file of sound.
pub(super) fn is_head(raw: &[u8]) -> bool {
    let form = raw.get(8..12);
    (raw.starts_with(b"RIFF") || raw.starts_with(b"RF64")) && form == Some(b"WAVE")
        || raw.starts_with(b"FORM") && (form == Some(b"AIFF") || form == Some(b"AIFC"))
        || raw.starts_with(b".snd")
}

/// Reads the head of WAV, AIFF and AU.
pub(super) fn head(raw: &[u8]) -> Head {
    if !is_head(raw) {
        return Head::None;
    }
    let found = if raw.starts_with(b".snd") { snd(raw) } else { pieces(raw) };
    found.map_or(Head::Foreign, Head::Samples)
}

fn format(width_bits: usize, channels: usize, big: bool, signed: bool) -> Option<Format> {
    let width = width_bits.div_ceil(8);
    let known = (1..=WIDTH_MAX).contains(&width) && (1..=CHANNELS_MAX).contains(&channels);
    known.then_some(Format { width, channels, big, signed: signed && width == 1 })
}

/// The header of AU.
fn snd(raw: &[u8]) -> Option<Found> {
    let field = |at: usize| number(raw.get(at..at + 4), true);
    let bits = match field(12)? {
        2 => 8,
        3 => 16,
        4 => 24,
        _ => return None,
    };
    Found::new(format(bits, field(20)?, true, true)?, field(4)?, raw.len())
}

/// The pieces of WAV and AIFF, each with a name and a length: one says what samples are like, one has them.
fn pieces(raw: &[u8]) -> Option<Found> {
    let big = raw.starts_with(b"FORM");
    let (mut at, mut format_is) = (12usize, None);
    loop {
        let name = raw.get(at..at + 4)?;
        let bytes = number(raw.get(at + 4..at + 8), big)?;
        let from = at + 8;
        let field = |offset: usize, len: usize| number(raw.get(from + offset..from + offset + len), big);
        match name {
            b"fmt " => {
                // Whole numbers, by themselves or as the more general format says.
                let kind = match field(0, 2)? {
                    0xfffe => field(24, 2)?,
                    kind => kind,
                };
                let (channels, frame, bits) = (field(2, 2)?, field(12, 2)?, field(14, 2)?);
                let whole = kind == 1 && frame == channels * bits.div_ceil(8);
                format_is = whole.then(|| format(bits, channels, false, false)).flatten();
                format_is?;
            }
            b"COMM" => {
                let little = match raw.get(from + 18..from + 22) {
                    Some(b"sowt") if raw.get(8..12) == Some(b"AIFC") => true,
                    Some(b"NONE" | b"twos") if raw.get(8..12) == Some(b"AIFC") => false,
                    _ if raw.get(8..12) == Some(b"AIFF") => false,
                    _ => return None,
                };
                format_is = format(field(6, 2)?, field(0, 2)?, !little, true);
            }
            b"data" | b"SSND" => {
                let from = if big { from + 8 } else { from };
                let end = (at + 8).saturating_add(bytes).min(raw.len());
                return Found::new(format_is?, from, end);
            }
            _ => {}
        }
        at = from.checked_add(bytes)?.checked_add(bytes & 1)?;
    }
}

/// Bytes that are looked at, and the most formats of a width that are worth a trial.
const LOOK_BYTES: usize = 12 << 10;
const TRIALS: usize = 3;
/// What samples may differ by from what the two before lead to expect, 1/16 of a bit on average: as much as their own
/// sizes less this.
const GAIN_MIN: u64 = 4;

/// What a sample takes beyond the octaves of its difference, 1/16 of a bit: its sign, and that sizes differ.
const SPREAD: u64 = 48;

/// Octaves of a difference, 1/16.
fn octaves(x: i32) -> u64 {
    let size = u64::from(x.unsigned_abs()) * 16 + 16;
    let whole = size.ilog2();
    u64::from(whole - 4) * 16 + ((size << 4 >> whole) - 16)
}

/// What a sample takes where one guess is made for all of them, 1/16 of a bit: where the guess is right, and beyond the octaves of
/// its difference where it is not.
const GUESS_RIGHT: u64 = 8;
const GUESS_SPREAD: u64 = 24;

/// Formats of one channel that bytes without head may have, each with what comes before its first whole sample, bytes.
fn of_one_channel() -> impl Iterator<Item = (usize, Format)> {
    [(1, false, false), (1, false, true), (2, false, false), (2, true, false), (3, false, false), (3, true, false)]
        .into_iter()
        .flat_map(|(width, big, signed)| {
            (0..width).map(move |phase| (phase, Format { width, channels: 1, big, signed }))
        })
}

fn samples(bytes: &[u8], phase: usize, format: &Format) -> Vec<i32> {
    let bytes = bytes.get(phase..).unwrap_or_default();
    bytes.chunks_exact(format.width).map(|bytes| format.sample(bytes)).collect()
}

/// About what bytes take as samples of one channel or two, of the format that suits them best: bits. Each is guessed from the one
/// before, or from the line through two, whichever is better for all of them.
pub(super) fn guessed_bits(bytes: &[u8]) -> u64 {
    let guesses = of_one_channel().flat_map(|(phase, mono)| {
        let samples = samples(bytes, phase, &mono);
        (1..=2).map(move |channels| {
            let taken = |off: i32| if off == 0 { GUESS_RIGHT } else { octaves(off) + GUESS_SPREAD };
            let (mut step, mut line) = (0, 0);
            for row in samples.windows(2 * channels + 1) {
                let (Some(a), Some(b), Some(c)) = (row.first(), row.get(channels), row.last()) else { continue };
                step += taken(c - b);
                line += taken(c - 2 * b + a);
            }
            step.min(line) / 16
        })
    });
    guesses.min().unwrap_or(u64::MAX)
}

/// Formats that the bytes of a segment without head may have, those first whose samples are nearest to a line through the two
/// before, and where the first frame begins. Each is worth a trial.
pub(super) fn likely(raw: &[u8]) -> Vec<Found> {
    let mut costs: Vec<(u64, Found)> = Vec::new();
    let mut unsigned = u64::MAX;
    let looked_at = raw.get((raw.len().saturating_sub(LOOK_BYTES)) / 2 / 24 * 24..).unwrap_or(raw);
    let looked_at = looked_at.get(..LOOK_BYTES).unwrap_or(looked_at);
    for (phase, mono) in of_one_channel() {
        let (width, signed) = (mono.width, mono.signed);
        let samples = samples(looked_at, phase, &mono);
        let (_, _, zero) = mono.range();
        let sizes: u64 = samples.iter().map(|sample| octaves(sample - zero)).sum();
        // Samples of a byte are nearer to silence by their right sign.
        if width == 1 && !signed {
            unsigned = sizes;
        } else if signed && sizes >= unsigned {
            continue;
        }
        let mut least = u64::MAX;
        for channels in 1..=CHANNELS_MAX {
            let frame = width * channels;
            // From a line, from the sample before, or from that of the channel beside.
            let lines = samples.windows(2 * channels + 1).map(|row| match row {
                [a, .., beside, c] => {
                    let b = row.get(channels).unwrap_or(beside);
                    octaves(c - 2 * b + a).min(octaves(c - b)).min(octaves(c - beside))
                }
                _ => 0,
            });
            let count = (samples.len().saturating_sub(2 * channels)) as u64;
            let cost: u64 = lines.sum();
            if count < 64 || cost + GAIN_MIN * count > sizes {
                continue;
            }
            // Of a byte. More channels than need be must be worth it: samples of two are as near in four.
            let cost = (cost + SPREAD * count) * 1000 / (count * width as u64);
            if channels > 2 && cost >= least - least / 50 {
                continue;
            }
            least = cost.min(least);
            let found = Found::new(Format { channels, ..mono }, phase, raw.len());
            costs.extend(found.filter(|_| frame <= raw.len()).map(|found| (cost, found)));
        }
    }
    costs.sort_by_key(|(cost, _)| *cost);
    let of_width = |width| costs.iter().filter(move |(_, found)| found.format.width == width).take(TRIALS);
    (1..=WIDTH_MAX).flat_map(of_width).map(|(_, found)| *found).collect()
}

/// The same samples, a channel later.
pub(super) fn shifted(found: Found, channels: usize, len: usize) -> Option<Found> {
    Found::new(found.format, found.from + channels * found.format.width, len)
}
