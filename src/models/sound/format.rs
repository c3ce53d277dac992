//! What samples are like, and what the head of a file tells of them.

/// Most bytes of a sample, and most channels.
pub(super) const WIDTH_MAX: usize = 4;
pub(super) const CHANNELS_MAX: usize = 8;

/// What samples are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    /// Bytes of a sample, 1 to 4.
    pub width: usize,
    /// Samples of one time that follow each other, 1 to 8.
    pub channels: usize,
    /// The highest byte is first.
    pub big: bool,
    /// Samples of one byte are two's complement; longer ones are in any case.
    pub signed: bool,
    /// Samples of four bytes are floats (IEEE 754).
    pub float: bool,
}

impl Format {
    /// Bytes of the samples of one time.
    pub fn frame(&self) -> usize {
        self.width * self.channels
    }

    /// The bits of a sample, those of whole numbers with its sign.
    #[inline(always)]
    pub fn word(&self, bytes: &[u8]) -> u32 {
        let fold = |value: u32, byte: &u8| value << 8 | u32::from(*byte);
        let value = if self.big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) };
        let unused = 32 - 8 * self.width as u32;
        if self.signed || self.width > 1 { ((value << unused) as i32 >> unused) as u32 } else { value }
    }

    /// Writes a sample of such bits.
    pub fn put(&self, word: u32, out: &mut Vec<u8>) {
        let [a, b, c, d] = word.to_le_bytes();
        match (self.width, self.big) {
            (1, _) => out.push(a),
            (2, false) => out.extend([a, b]),
            (2, true) => out.extend([b, a]),
            (3, false) => out.extend([a, b, c]),
            (3, true) => out.extend([c, b, a]),
            (_, false) => out.extend([a, b, c, d]),
            (_, true) => out.extend([d, c, b, a]),
        }
    }

    /// Its byte in a payload: width, order, signs of bytes or floats, channels.
    pub fn to_byte(self) -> u8 {
        (self.width - 1) as u8
            | u8::from(self.big) << 2
            | u8::from(self.signed || self.float) << 3
            | (self.channels as u8 - 1) << 4
    }

    /// Reads it.
    pub fn from_byte(byte: u8) -> Option<Format> {
        let (width, channels) = (usize::from(byte & 3) + 1, usize::from(byte >> 4) + 1);
        let sizes = width <= WIDTH_MAX && channels <= CHANNELS_MAX;
        let other = byte & 8 != 0;
        sizes.then_some(Format {
            width,
            channels,
            big: byte & 4 != 0,
            signed: other && width == 1,
            float: other && width == 4,
        })
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
    pub fn new(format: Format, from: usize, to: usize) -> Option<Found> {
        let frames = to.checked_sub(from)? / format.frame();
        (frames > 0).then_some(Found { format, from, to: from + frames * format.frame() })
    }
}

/// What the head of a file says.
pub(super) enum Head {
    /// There is none that is known.
    None,
    /// Samples that are not for this method: too long ones, or compressed.
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
    [b"RIFF", b"RF64", b"BW64"].iter().any(|name| raw.starts_with(*name)) && form == Some(b"WAVE")
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
    known.then_some(Format { width, channels, big, signed: signed && width == 1, float: false })
}

/// Floats of four bytes.
fn floats(channels: usize, big: bool) -> Option<Format> {
    format(32, channels, big, false).map(|format| Format { float: true, ..format })
}

/// The header of AU.
fn snd(raw: &[u8]) -> Option<Found> {
    let field = |at: usize| number(raw.get(at..at + 4), true);
    let (kind, channels) = (field(12)?, field(20)?);
    let format = match kind {
        2..=5 => format(8 * (kind - 1), channels, true, true)?,
        6 => floats(channels, true)?,
        _ => return None,
    };
    Found::new(format, field(4)?, raw.len())
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
                // Whole numbers or floats, by themselves or as the more general format says.
                let kind = match field(0, 2)? {
                    0xfffe => field(24, 2)?,
                    kind => kind,
                };
                let (channels, frame, bits) = (field(2, 2)?, field(12, 2)?, field(14, 2)?);
                if frame != channels * bits.div_ceil(8) {
                    return None;
                }
                let format = match (kind, bits) {
                    (1, _) => format(bits, channels, false, false)?,
                    (3, 32) => floats(channels, false)?,
                    _ => return None,
                };
                format_is = Some(format);
            }
            b"COMM" => {
                let kind = if raw.get(8..12) == Some(b"AIFC") { raw.get(from + 18..from + 22)? } else { b"NONE" };
                let (bits, channels) = (field(6, 2)?, field(0, 2)?);
                format_is = match kind {
                    b"NONE" | b"twos" | b"in24" | b"in32" => format(bits, channels, true, true),
                    b"sowt" => format(bits, channels, false, true),
                    b"fl32" | b"FL32" => floats(channels, true),
                    _ => return None,
                };
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
