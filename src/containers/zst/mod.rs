//! Frames of zstd: the text of each, which the library makes the same frame of at one of its levels.
//!
//! What libzstd makes differs from version to version; `VERSION` is the one at hand, and what others made is opened only where
//! they do the same. A frame is opened as a whole: how an encoder goes on in the middle follows from all that was before. So frames
//! with more text than a segment has room for stay as they are, and files of many are opened frame by frame. The form: RFC 8878.

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective::{self, ZSTD_e_continue, ZSTD_e_end};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer, compress_bound, get_error_name, version_number};

use super::guard::guarded;
use super::{Declined, Error, OUT_OF_MEMORY};

/// The first bytes of a frame.
pub(super) const MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";
/// The version of the library, 10,000 of the first number, 100 of the second.
const VERSION: u32 = 10_507;
/// Bytes of text of a block at most.
const BLOCK_BYTES: usize = 128 << 10;
/// Pieces in which programs hand bytes to the library.
const PIECE_BYTES: usize = BLOCK_BYTES;
/// Text of which encoders with threads make other blocks than those without, where it is known how much comes.
const JOB_BYTES_MIN: usize = 512 << 10;
/// Levels from here on take a second for 2 MB of text.
const SLOW_LEVEL: i32 = 16;
/// Text at these levels from encoders with threads, whose time is not seen as that of the one that reads.
const SLOW_JOB_BYTES_MAX: usize = 1 << 20;
/// Levels above make tables for windows of 32 MiB and more where it is not known how much comes.
const BLIND_LEVEL_MAX: i32 = 19;
/// Levels in the order in which they are tried, those that are usual first; negative ones are quick.
const LEVELS: [i32; 32] = [
    3, 19, 1, 9, 22, 10, 6, 2, 4, 5, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, -1, -2, -3, -4, -5, -6, -7, -8, -9,
    -10,
];
/// Encoders of which the first block is the same are tried on all of a frame, so many at most.
const WHOLE_TRIES_MAX: usize = 8;

/// How bytes were handed to the library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// All at once.
    Once = 0,
    /// In pieces of a block, as programs do.
    Pieces = 1,
    /// To threads that code parts of it: the same whatever their number.
    Jobs = 2,
}

/// What makes a frame of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Maker {
    level: i32,
    way: Way,
    /// It was told before how many bytes come.
    told: bool,
    /// The head says how many there are.
    sized: bool,
    /// A checksum of the text is behind it.
    summed: bool,
}

impl Maker {
    /// The version of the library, the level, and what else tells how.
    pub fn numbers(self) -> [u64; 3] {
        let level = (i64::from(self.level) << 1 ^ i64::from(self.level) >> 63) as u64;
        let flags = u64::from(self.told) | u64::from(self.sized) << 1 | u64::from(self.summed) << 2;
        [VERSION.into(), level, self.way as u64 | flags << 2]
    }

    /// Of what `numbers` gave.
    ///
    /// # Errors
    /// Of others, and of another version's.
    pub fn of([version, level, how]: [u64; 3]) -> Result<Maker, Error> {
        if version != u64::from(VERSION) || version_number() != VERSION {
            return Err(Error("a frame was made by a version of zstd that is not at hand"));
        }
        let level = (level >> 1) as i64 ^ -((level & 1) as i64);
        let level = LEVELS.into_iter().find(|known| i64::from(*known) == level);
        let way = [Way::Once, Way::Pieces, Way::Jobs].into_iter().find(|way| *way as u64 == how & 3);
        let flag = |n: u32| how >> n & 1 == 1;
        match (level, way, how >> 5) {
            (Some(level), Some(way), 0) => Ok(Maker { level, way, told: flag(2), sized: flag(3), summed: flag(4) }),
            _ => Err(Error("an encoder of zstd is not known")),
        }
    }
}

/// What the head of a frame says.
struct Head {
    len: usize,
    text_bytes: Option<u64>,
    summed: bool,
}

fn head(bytes: &[u8]) -> Option<Head> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (flags, rest) = rest.split_first()?;
    let alone = flags >> 5 & 1;
    // What is reserved, and dictionaries, which are not at hand.
    if flags & 0b1011 != 0 {
        return None;
    }
    let size_bytes = match flags >> 6 {
        0 => usize::from(alone),
        n => 1 << n,
    };
    let window_bytes = 1 - usize::from(alone);
    let size = rest.get(window_bytes..window_bytes + size_bytes)?;
    let size = size.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let text_bytes = match size_bytes {
        0 => None,
        2 => Some(size + 256),
        _ => Some(size),
    };
    Some(Head { len: MAGIC.len() + 1 + window_bytes + size_bytes, text_bytes, summed: flags & 4 != 0 })
}

/// A frame of which all is there.
pub(super) struct Extent {
    pub len: usize,
    /// Bytes of text at most.
    pub text_bytes: usize,
    head: Head,
}

/// Where the frame with which some bytes begin ends.
///
/// # Errors
/// `TooLarge` where its end is not there, `Foreign` where it is none.
pub(super) fn extent(bytes: &[u8]) -> Result<Extent, Declined> {
    let head = head(bytes).ok_or(Declined::Foreign)?;
    let (mut at, mut blocks) = (head.len, 0);
    loop {
        let [a, b, c] = *bytes.get(at..).and_then(|rest| rest.first_chunk::<3>()).ok_or(Declined::TooLarge)?;
        let word = u32::from_le_bytes([a, b, c, 0]);
        let (last, kind, len) = (word & 1, word >> 1 & 3, word as usize >> 3);
        if kind == 3 || len > BLOCK_BYTES {
            return Err(Declined::Foreign);
        }
        // Of one byte that repeats it is the number.
        at += 3 + if kind == 1 { 1 } else { len };
        blocks += 1;
        if last == 1 {
            break;
        }
    }
    at += if head.summed { 4 } else { 0 };
    let text_bytes = match head.text_bytes {
        Some(text_bytes) => usize::try_from(text_bytes).map_err(|_| Declined::TooLarge)?,
        None => BLOCK_BYTES * blocks,
    };
    if at <= bytes.len() { Ok(Extent { len: at, text_bytes, head }) } else { Err(Declined::TooLarge) }
}

/// A frame, opened.
pub(super) struct Frame {
    pub len: usize,
    pub text: Vec<u8>,
    pub maker: Maker,
}

/// The text of a frame that has no more than `room` bytes of it.
fn text_of(frame: &[u8], extent: &Extent, room: usize) -> Result<Vec<u8>, Declined> {
    let sized = extent.head.text_bytes.is_some();
    if sized && extent.text_bytes > room {
        return Err(Declined::TooLarge);
    }
    let mut text = Vec::with_capacity(extent.text_bytes.min(room));
    let decoded = guarded(|| DCtx::try_create().map(|mut decoder| decoder.decompress(&mut text, frame).is_ok()));
    match decoded.ok_or(Declined::Failed)?.ok_or(Declined::OutOfMemory)? {
        true => Ok(text),
        // Where it has no room the same is said as where it is damaged.
        false if !sized && extent.text_bytes > room => Err(Declined::TooLarge),
        false => Err(Declined::Foreign),
    }
}

/// Bytes of the text of a whole frame where there are no more than `text_max`: at most as many as its blocks may have.
pub(super) fn text_bytes(bytes: &[u8], extent: &Extent, text_max: usize) -> usize {
    let known = extent.head.text_bytes.is_some() || extent.text_bytes <= text_max;
    let frame = bytes.get(..extent.len).unwrap_or_default();
    let text = if known { None } else { text_of(frame, extent, text_max).ok() };
    text.map_or(extent.text_bytes, |text| text.len())
}

/// Opens the frame with which some bytes begin.
///
/// # Errors
/// Where it is none, or not made again; and how many bytes were looked at.
pub(super) fn open(bytes: &[u8], room: usize) -> Result<Frame, (Declined, usize)> {
    let extent = extent(bytes).map_err(|why| (why, MAGIC.len()))?;
    let frame = bytes.get(..extent.len).unwrap_or_default();
    if version_number() != VERSION {
        return Err((Declined::Foreign, 0));
    }
    let text = text_of(frame, &extent, room).map_err(|why| (why, extent.len))?;
    match maker_of(frame, &extent.head, &text) {
        Some(maker) => Ok(Frame { len: extent.len, text, maker }),
        None => Err((Declined::Differs, text.len() + 4 * LEVELS.len() * text.len().min(BLOCK_BYTES))),
    }
}

/// What makes the frame of its text.
fn maker_of(frame: &[u8], head: &Head, text: &[u8]) -> Option<Maker> {
    let sized = head.text_bytes.is_some();
    let mut left = WHOLE_TRIES_MAX;
    // Those who did not know how much comes do not tell; others may keep it to themselves.
    for told in if sized { &[true][..] } else { &[false, true] } {
        for level in LEVELS {
            let maker = Maker { level, way: Way::Pieces, told: *told, sized, summed: head.summed };
            if !maker.is_bounded(text.len()) || !maker.begins(text, frame) {
                continue;
            }
            for way in [Way::Pieces, Way::Jobs, Way::Once] {
                let maker = Maker { way, ..maker };
                // In pieces it was seen already.
                let same = way == Way::Pieces && text.len() <= BLOCK_BYTES;
                if same
                    || (maker.is_bounded(text.len())
                        && maker.frame_of(text, frame.len()).is_ok_and(|made| made == frame))
                {
                    return Some(maker);
                }
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            if left == 0 {
                return None;
            }
        }
    }
    None
}

impl Maker {
    /// True where memory and time that making a frame takes are bounded.
    fn is_bounded(self, text_bytes: usize) -> bool {
        let slow_job = self.way == Way::Jobs && self.level >= SLOW_LEVEL && text_bytes > SLOW_JOB_BYTES_MAX;
        // What is small is not given to threads, and all at once is told by itself.
        let short_job = self.way == Way::Jobs && self.told && text_bytes <= JOB_BYTES_MIN;
        let untold = self.way == Way::Once && !self.told;
        (self.told || self.level <= BLIND_LEVEL_MAX) && !slow_job && !short_job && !untold
    }

    fn encoder(self, text_bytes: usize) -> Result<CCtx<'static>, Error> {
        let mut encoder = CCtx::try_create().ok_or(OUT_OF_MEMORY)?;
        let mut set = |parameter| encoder.set_parameter(parameter).map_err(refused);
        set(CParameter::CompressionLevel(self.level))?;
        set(CParameter::ContentSizeFlag(self.sized))?;
        set(CParameter::ChecksumFlag(self.summed))?;
        if self.way == Way::Jobs {
            set(CParameter::NbWorkers(1))?;
        }
        if self.told && self.way != Way::Once {
            encoder.set_pledged_src_size(Some(text_bytes as u64)).map_err(refused)?;
        }
        Ok(encoder)
    }

    /// True where the first block that it makes is that of the frame, of which it is all where there is one alone.
    fn begins(self, text: &[u8], frame: &[u8]) -> bool {
        let first = text.get(..BLOCK_BYTES).unwrap_or(text);
        let ends = first.len() == text.len();
        let made = guarded(|| {
            let mut out = Vec::with_capacity(compress_bound(first.len()) + 64);
            self.hand(&mut self.encoder(text.len())?, first, ends, &mut out)?;
            Ok::<_, Error>(if ends { out == frame } else { frame.starts_with(&out) })
        });
        matches!(made, Some(Ok(true)))
    }

    /// The frame that it makes of a text.
    ///
    /// # Errors
    /// Where it is longer than `max`, there is no memory for it, or the library fails.
    fn frame_of(self, text: &[u8], max: usize) -> Result<Vec<u8>, Error> {
        let made = guarded(|| {
            let mut encoder = self.encoder(text.len())?;
            // More than it may have, so that what is longer is seen as such.
            let mut out = Vec::with_capacity(max.min(compress_bound(text.len())) + 64);
            if self.way == Way::Once {
                encoder.compress2(&mut out, text).map_err(refused)?;
            } else {
                self.hand(&mut encoder, text, true, &mut out)?;
            }
            Ok(out)
        });
        made.unwrap_or(Err(DIFFERS))
    }

    /// Hands a text over in pieces, to the end of the frame where it `ends`.
    fn hand(self, encoder: &mut CCtx<'_>, text: &[u8], ends: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let pieces = text.chunks(PIECE_BYTES);
        let count = pieces.len();
        for (n, piece) in pieces.enumerate() {
            // Who knows how much comes knows which is the last.
            let last = ends && self.told && n + 1 == count;
            step(encoder, piece, if last { ZSTD_e_end } else { ZSTD_e_continue }, out)?;
        }
        if ends && !(self.told && count > 0) { step(encoder, &[], ZSTD_e_end, out) } else { Ok(()) }
    }
}

const DIFFERS: Error = Error("a text does not go with the frame that it was in");

/// What the library says.
fn refused(code: usize) -> Error {
    if get_error_name(code).contains("not enough memory") { OUT_OF_MEMORY } else { DIFFERS }
}

/// Hands some bytes over, until all are taken, and at the end until all came out.
fn step(encoder: &mut CCtx<'_>, bytes: &[u8], directive: ZSTD_EndDirective, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut input = InBuffer::around(bytes);
    let ends = matches!(directive, ZSTD_e_end);
    loop {
        let at = out.len();
        let mut output = OutBuffer::around_pos(out, at);
        let left = encoder.compress_stream2(&mut output, &mut input, directive).map_err(refused)?;
        let full = output.pos() == output.capacity();
        if if ends { left == 0 } else { input.pos() == bytes.len() } {
            return Ok(());
        }
        if full {
            return Err(DIFFERS);
        }
    }
}

/// Makes the frame of a text again.
///
/// # Errors
/// When it would be longer than `max`, the encoder does not make it, or there is no memory for it.
pub(super) fn close(text: &[u8], maker: Maker, max: usize) -> Result<Vec<u8>, Error> {
    if !maker.is_bounded(text.len()) {
        return Err(Error("an encoder of zstd asks for more than it may"));
    }
    maker.frame_of(text, max)
}
