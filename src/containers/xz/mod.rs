//! Blocks of xz: the text of each, of which the library makes the same LZMA2 data by one of its presets. What is around them (heads
//! of streams and blocks, checks, indexes) stays as it is, so that it does not matter how many threads there were.
//!
//! A block is opened as a whole: how an encoder goes on in the middle follows from all that was before, and `xz` makes one block
//! of a file, or of 24 MB at its usual level. So those with more text than a segment has room for stay as they are. Filters before
//! LZMA2 are not opened. The form: the .xz file format, version 1.2.1, and `lzma2_decoder.c` of XZ Utils.

use liblzma::stream::{Action, Error as Refused, Filters, LzmaOptions, PRESET_EXTREME, Status, Stream};

use super::guard::guarded;
use super::{Declined, Error, OUT_OF_MEMORY};

/// The first bytes of a stream, and bytes of its head.
const MAGIC: &[u8] = b"\xfd7zXZ\0";
const HEAD_BYTES: usize = 12;
/// XZ Utils 5.8.4: ten million of the first number, ten thousand of the second, ten of the third.
const VERSION: u64 = 50_080_040;
const LZMA2: u8 = 0x21;
/// How a dictionary of 64 MiB, that of the strongest preset, is told.
const DICTIONARY_MAX: u8 = 28;
const PRESET_MAX: u32 = 9;
/// Dictionaries of the presets, as they are told.
const DICTIONARIES: [u8; 10] = [12, 16, 18, 20, 20, 22, 22, 24, 26, 28];
/// Presets that are tried where a dictionary is of none.
const USUAL: [u32; 2] = [6, 9];
/// Bytes of what stands behind blocks to check them, the usual first.
const CHECK_BYTES: [usize; 4] = [8, 4, 32, 0];
/// Text is handed over so, and what came out is looked at.
const PIECE_BYTES: usize = 64 << 10;

/// What makes the data of a block of its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Maker {
    preset: u32,
    extreme: bool,
    dictionary: u8,
}

/// Where the first block of the stream that some bytes begin with may be.
pub(super) fn head(bytes: &[u8]) -> Option<usize> {
    let is_head = bytes.starts_with(MAGIC) && is_block(bytes.get(HEAD_BYTES..)?);
    is_head.then_some(HEAD_BYTES)
}

/// True where some bytes begin with the head of a block that may open.
pub(super) fn is_block(bytes: &[u8]) -> bool {
    block_head(bytes).is_some()
}

/// The length of the head of a block, and the dictionary of its only filter.
fn block_head(bytes: &[u8]) -> Option<(usize, u8)> {
    let len = 4 * (usize::from(*bytes.first().filter(|n| **n > 0)?) + 1);
    let (fields, sum) = bytes.get(..len)?.split_last_chunk::<4>()?;
    if crc32fast::hash(fields) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (flags, mut rest) = fields.get(1..)?.split_first()?;
    // What is reserved, and more filters than one.
    if flags & 0x3f != 0 {
        return None;
    }
    // Sizes are told where one bit each says so.
    for _ in 0..(flags >> 6).count_ones() {
        let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
        rest = rest.get(end + 1..)?;
    }
    match rest {
        [LZMA2, 1, dictionary @ 0..=DICTIONARY_MAX, ..] => Some((len, *dictionary)),
        _ => None,
    }
}

/// A block of which all is there.
struct Extent {
    /// Where its data begins, and where it ends.
    from: usize,
    to: usize,
    text_bytes: usize,
    dictionary: u8,
}

/// Where the data of the block is that some bytes begin with.
///
/// # Errors
/// `TooLarge` where its end is not there, `Foreign` where it is none.
fn extent(bytes: &[u8]) -> Result<Extent, Declined> {
    let (from, dictionary) = block_head(bytes).ok_or(Declined::Foreign)?;
    let (mut to, mut text_bytes) = (from, 0usize);
    loop {
        let control = *bytes.get(to).ok_or(Declined::TooLarge)?;
        let number = |at: usize| {
            let two = bytes.get(to + at..).and_then(|rest| rest.first_chunk::<2>()).ok_or(Declined::TooLarge)?;
            Ok(usize::from(u16::from_be_bytes(*two)) + 1)
        };
        match control {
            0 => {
                to += 1;
                break;
            }
            1 | 2 => {
                let len = number(1)?;
                (to, text_bytes) = (to + 3 + len, text_bytes + len);
            }
            0x80.. => {
                // With a byte of properties where these are new.
                let head = 5 + usize::from(control >= 0xc0);
                text_bytes += (usize::from(control & 0x1f) << 16) + number(1)?;
                to += head + number(3)?;
            }
            _ => return Err(Declined::Foreign),
        }
    }
    if to <= bytes.len() { Ok(Extent { from, to, text_bytes, dictionary }) } else { Err(Declined::TooLarge) }
}

/// Where the next block begins, in bytes that begin where the data of one of `len` bytes ends.
fn next(bytes: &[u8], len: usize) -> Option<usize> {
    let padding = len.next_multiple_of(4) - len;
    let at = CHECK_BYTES.into_iter().map(|check| padding + check);
    at.into_iter().find(|at| bytes.get(*at..).is_some_and(is_block))
}

/// How far blocks go.
pub(super) struct Walk {
    /// Bytes to where the last block ends that was reached, or where the next begins.
    pub consumed: usize,
    pub text_bytes: usize,
    /// More follows than there is room for, or than is there.
    pub full: bool,
}

/// Walks along the blocks from a byte on, as far as they and `text_max` bytes of text go.
pub(super) fn walk(bytes: &[u8], text_max: usize) -> Walk {
    let mut walk = Walk { consumed: 0, text_bytes: 0, full: false };
    let mut at = Some(0);
    while let Some(rest) = at.and_then(|at| bytes.get(at..)) {
        match extent(rest) {
            Ok(block) if walk.text_bytes.saturating_add(block.text_bytes) <= text_max => {
                walk.text_bytes += block.text_bytes;
                let end = walk.consumed + block.to;
                at = bytes.get(end..).and_then(|rest| next(rest, block.to)).map(|next| end + next);
                walk.consumed = at.unwrap_or(end);
            }
            Ok(_) | Err(Declined::TooLarge) => {
                walk.full = true;
                break;
            }
            Err(_) => break,
        }
    }
    walk
}

/// A block, opened.
pub(super) struct Block {
    /// Where its data begins, where it ends, and where the next block may begin.
    pub from: usize,
    pub to: usize,
    pub next: Option<usize>,
    pub text: Vec<u8>,
    pub maker: Maker,
}

/// Opens the block that some bytes begin with.
///
/// # Errors
/// Where it is none, or not made again; and how many bytes were looked at.
pub(super) fn open(bytes: &[u8], room: usize) -> Result<Block, (Declined, usize)> {
    let Extent { from, to, text_bytes, dictionary } = extent(bytes).map_err(|why| (why, HEAD_BYTES))?;
    if text_bytes > room {
        return Err((Declined::TooLarge, HEAD_BYTES));
    }
    let data = bytes.get(from..to).unwrap_or_default();
    let text = text_of(data, text_bytes, dictionary).map_err(|why| (why, text_bytes))?;
    let maker = makers(dictionary).find(|maker| matches!(maker.data_of(&text, data.len(), Some(data)), Ok(Some(_))));
    let maker = maker.ok_or((Declined::Differs, 8 * text_bytes))?;
    let behind = bytes.get(to..).unwrap_or_default();
    Ok(Block { from, to, next: next(behind, to).map(|next| to + next), text, maker })
}

/// What may make data with a dictionary, the usual first.
fn makers(dictionary: u8) -> impl Iterator<Item = Maker> {
    let own = (0..=PRESET_MAX).rev().filter(move |preset| DICTIONARIES.get(*preset as usize) == Some(&dictionary));
    let others = USUAL.into_iter().filter(move |_| !DICTIONARIES.contains(&dictionary));
    let presets: Vec<u32> = own.chain(others).collect();
    [false, true]
        .into_iter()
        .flat_map(move |extreme| presets.clone().into_iter().map(move |preset| Maker { preset, extreme, dictionary }))
}

fn text_of(data: &[u8], text_bytes: usize, dictionary: u8) -> Result<Vec<u8>, Declined> {
    let decoded = guarded(|| {
        let maker = Maker { preset: 6, extreme: false, dictionary };
        let mut decoder = Stream::new_raw_decoder(&maker.filters()?)?;
        let mut text = Vec::with_capacity(text_bytes.saturating_add(1));
        let status = decoder.process_vec(data, &mut text, Action::Finish)?;
        let whole = status == Status::StreamEnd && decoder.total_in() == data.len() as u64;
        Ok((whole && text.len() == text_bytes).then_some(text))
    });
    match decoded.ok_or(Declined::Failed)? {
        Ok(text) => text.ok_or(Declined::Foreign),
        Err(Refused::Mem) => Err(Declined::OutOfMemory),
        Err(_) => Err(Declined::Foreign),
    }
}

impl Maker {
    /// The version of the library, the preset, and the dictionary.
    pub fn numbers(self) -> [u64; 3] {
        [VERSION, u64::from(self.preset) << 1 | u64::from(self.extreme), self.dictionary.into()]
    }

    /// Of what `numbers` gave.
    ///
    /// # Errors
    /// Of others, and of another version's.
    pub fn of([version, preset, dictionary]: [u64; 3]) -> Result<Maker, Error> {
        if version != VERSION {
            return Err(Error("a block was made by a version of xz that is not at hand"));
        }
        let presets = (0..=PRESET_MAX).find(|known| u64::from(*known) == preset >> 1);
        let dictionaries = (0..=DICTIONARY_MAX).find(|known| u64::from(*known) == dictionary);
        match (presets, dictionaries) {
            (Some(of), Some(dictionary)) => Ok(Maker { preset: of, extreme: preset & 1 == 1, dictionary }),
            _ => Err(Error("an encoder of xz is not known")),
        }
    }

    fn filters(self) -> Result<Filters, Refused> {
        let mut options = LzmaOptions::new_preset(self.preset | if self.extreme { PRESET_EXTREME } else { 0 })?;
        let dictionary = u32::from(self.dictionary);
        options.dict_size((2 | dictionary & 1) << (dictionary / 2 + 11));
        let mut filters = Filters::new();
        filters.lzma2(&options);
        Ok(filters)
    }

    /// What it makes of a text, where that is no longer than `max`, and begins as what is `wanted` as far as that is seen.
    fn data_of(self, text: &[u8], max: usize, wanted: Option<&[u8]>) -> Result<Option<Vec<u8>>, Error> {
        let made = guarded(|| {
            let mut encoder = Stream::new_raw_encoder(&self.filters()?)?;
            // One more than it may have, so that what is longer is seen as such.
            let mut out = Vec::with_capacity(max.saturating_add(1));
            let mut seen = 0;
            let pieces = text.chunks(PIECE_BYTES).map(|piece| (piece, Action::Run)).chain([(&[][..], Action::Finish)]);
            for (piece, action) in pieces {
                let before = encoder.total_in();
                loop {
                    let taken = (encoder.total_in() - before) as usize;
                    let rest = piece.get(taken..).unwrap_or_default();
                    if matches!(action, Action::Run) && rest.is_empty() {
                        break;
                    }
                    let at = out.len();
                    if encoder.process_vec(rest, &mut out, action)? == Status::StreamEnd {
                        break;
                    }
                    // No room is left.
                    if out.len() > max || (out.len() == at && encoder.total_in() - before == taken as u64) {
                        return Ok(None);
                    }
                }
                let differs = wanted.is_some_and(|wanted| wanted.get(seen..out.len()) != out.get(seen..));
                if differs || out.len() > max {
                    return Ok(None);
                }
                seen = out.len();
            }
            Ok(wanted.is_none_or(|wanted| wanted.len() == out.len()).then_some(out))
        });
        match made.ok_or(Error("the library of xz panicked"))? {
            Ok(out) => Ok(out),
            Err(Refused::Mem) => Err(OUT_OF_MEMORY),
            Err(_) => Ok(None),
        }
    }
}

/// Makes the data of a block of its text again.
///
/// # Errors
/// When it would be longer than `max`, the encoder does not make it, or there is no memory for it.
pub(super) fn close(text: &[u8], maker: Maker, max: usize) -> Result<Vec<u8>, Error> {
    maker.data_of(text, max, None)?.ok_or(Error("a text does not go with the block of xz that it was in"))
}
