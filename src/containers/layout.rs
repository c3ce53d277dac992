//! What a recipe says, and closing by it.
//!
//! A row of varints (LEB128): steps to `END`, each of which appends bytes.
//!
//! ```text
//! END       0
//! FRAME     1, bytes of the frame stream
//! PACKED    2, bytes of the packed stream
//! DEFLATE   3 + 16 x flags, bytes of corrections; FLAG_HEADER: how far before it the checksum in the head of a zip member is,
//!           which is 0 in the frame stream, as are the two lengths behind it; then its text: with FLAG_NESTED the steps that
//!           make it, else the next stream, of pixels with their filters in the frame stream. FLAG_ADLER, FLAG_GZIP, FLAG_DESCRIPTOR: the checksum of the text follows as zlib,
//!           gzip or zip write it. FLAG_KNOWN: its corrections name an encoder (`deflate::known`)
//! SLICE     4 + 16 x flags, bytes of corrections, bytes of the window in front of the text, bits of the lead, bytes; the text,
//!           with FLAG_NESTED the steps that make it
//! PNG       5 + 16 x flags, how many chunks of data, bytes of each; then the steps that make the bytes of all of them.
//!           FLAG_CRC: their checksums are right, else they are in the frame stream
//! JPEG      6, pixels of a row, rows; the next stream
//! TEXT      7: the next stream
//! PICTURE   8, pixels of a row, rows, bits in front, bytes: a slice of a picture, from the next stream
//! MEMBER    9 + 16 x flags, the form of the head (FORM_*) in the lowest two: a head of a plain container, of which the frame
//!           stream has what the one before it and the length of the data do not tell (`plain`); the steps that make the data;
//!           FLAG_PADDED: what fills its last unit up
//! BASE64    10 + 16 x what is between lines, letters of the first line, letters of a line or 0 where they are not in lines; the
//!           steps that make the bytes
//! PIXELS    11 + 16 x flags; FLAG_GOES_ON: bytes that are left of a chunk, and its checksum so far; how many chunks begin, bytes
//!           of each; the steps that make their data: a slice of a PNG. FLAG_CRC as there
//! ROWS      12 + 16 x flags: the next stream, of pixels, with their filters in the frame stream. FLAG_BELOW: its first row is above
//!           those that are made
//! MADE      13 + 16 x flags, three numbers that say what encoder (`zst`): the frame of zstd that it makes of the next stream, with
//!           FLAG_NESTED of the steps that make it. FLAG_LZMA: the data of a block of xz (`xz`)
//! BLOCKS    14 + 16 x flags, bits of the first that lie before, what the last byte has behind the last, how many, bytes of text of
//!           each: blocks of bzip2, of the next stream, with FLAG_NESTED of the steps that make it
//! FRAMES    15, how many, bytes of what they say, of the packed stream: frames of FLAC, of the samples of the next stream
//! ```

use super::{DEPTH_MAX, Error, Kind, Stream, base64, bz2, deflate, flac, jpeg, plain, png, xz, zst};
use crate::base::{put_varint, take_varint};

const END: u64 = 0;
const FRAME: u64 = 1;
const PACKED: u64 = 2;
const DEFLATE: u64 = 3;
const SLICE: u64 = 4;
const PNG: u64 = 5;
const JPEG: u64 = 6;
const TEXT: u64 = 7;
const PICTURE: u64 = 8;
const MEMBER: u64 = 9;
const BASE64: u64 = 10;
const PIXELS: u64 = 11;
const ROWS: u64 = 12;
const MADE: u64 = 13;
const BLOCKS: u64 = 14;
const FRAMES: u64 = 15;
/// Flags stand above the number of a step.
const STEP_BITS: u32 = 4;

const FLAG_NESTED: u64 = 1;
const FLAG_ADLER: u64 = 2;
const FLAG_GZIP: u64 = 4;
const FLAG_DESCRIPTOR: u64 = 8;
const FLAG_HEADER: u64 = 16;
const FLAG_KNOWN: u64 = 32;
const FLAG_CRC: u64 = 1;
const FLAG_GOES_ON: u64 = 2;
const FLAG_BELOW: u64 = 1;
const FLAG_PADDED: u64 = 4;
const FLAG_LZMA: u64 = 2;
const FORM_TAR: u64 = 0;
const FORM_CPIO: u64 = 1;
const FORM_AR: u64 = 2;

/// Bytes of checksum and lengths in the head of a zip member.
const HEADER_FIELD_BYTES: usize = 12;
/// What a slice of a picture takes beside its own bytes while it is made: tables, and zeroes that moved bits need.
const PICTURE_BYTES: usize = 64 << 10;
/// Chunks of data in one PNG.
pub(super) const CHUNKS_MAX: usize = 1 << 16;

/// What is behind a stream and follows from its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tail {
    Nothing,
    Adler,
    Gzip,
    Descriptor,
}

impl Tail {
    const ALL: [Tail; 4] = [Tail::Nothing, Tail::Adler, Tail::Gzip, Tail::Descriptor];

    /// The bytes, of a stream of `coded` bytes.
    pub fn bytes(self, text: &[u8], coded: usize) -> Vec<u8> {
        let fields = |fields: &[u32]| fields.iter().flat_map(|n| n.to_le_bytes()).collect();
        match self {
            Tail::Nothing => Vec::new(),
            Tail::Adler => adler2::adler32_slice(text).to_be_bytes().to_vec(),
            Tail::Gzip => fields(&[crc32fast::hash(text), text.len() as u32]),
            Tail::Descriptor => {
                fields(&[u32::from_le_bytes(*b"PK\x07\x08"), crc32fast::hash(text), coded as u32, text.len() as u32])
            }
        }
    }

    fn flag(self) -> u64 {
        match self {
            Tail::Nothing => 0,
            Tail::Adler => FLAG_ADLER,
            Tail::Gzip => FLAG_GZIP,
            Tail::Descriptor => FLAG_DESCRIPTOR,
        }
    }
}

/// Checksum and lengths as the head of a zip member has them.
pub(super) fn header_fields(text: &[u8], coded: usize) -> [u8; HEADER_FIELD_BYTES] {
    let mut out = [0; HEADER_FIELD_BYTES];
    let fields = [crc32fast::hash(text), coded as u32, text.len() as u32];
    out.iter_mut().zip(fields.iter().flat_map(|n| n.to_le_bytes())).for_each(|(to, from)| *to = from);
    out
}

/// Writes a recipe.
#[derive(Default)]
pub(super) struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    fn varint(&mut self, value: u64) {
        put_varint(&mut self.bytes, value);
    }

    fn step(&mut self, step: u64, flags: u64) {
        self.varint(step | flags << STEP_BITS);
    }

    pub fn frame(&mut self, len: usize) {
        self.step(FRAME, 0);
        self.varint(len as u64);
    }

    pub fn packed(&mut self, len: usize) {
        self.step(PACKED, 0);
        self.varint(len as u64);
    }

    /// Steps that make its text, to `end`, follow where it is nested.
    pub fn deflate(&mut self, corrections: usize, known: bool, tail: Tail, header: Option<usize>, nested: bool) {
        let flags = [(nested, FLAG_NESTED), (header.is_some(), FLAG_HEADER), (known, FLAG_KNOWN)];
        let flags = flags.into_iter().filter(|(is, _)| *is).fold(tail.flag(), |flags, (_, flag)| flags | flag);
        self.step(DEFLATE, flags);
        self.varint(corrections as u64);
        header.into_iter().for_each(|back| self.varint(back as u64));
    }

    /// Steps that make its text, to `end`, follow where it is nested.
    pub fn slice(&mut self, corrections: usize, window: usize, bits: u8, len: usize, nested: bool) {
        self.step(SLICE, if nested { FLAG_NESTED } else { 0 });
        [corrections as u64, window as u64, u64::from(bits), len as u64].into_iter().for_each(|n| self.varint(n));
    }

    /// Steps that make the bytes of all chunks, to `end`, follow.
    pub fn png(&mut self, chunks: &[usize], right: bool) {
        self.step(PNG, if right { FLAG_CRC } else { 0 });
        self.varint(chunks.len() as u64);
        chunks.iter().for_each(|len| self.varint(*len as u64));
    }

    /// Steps that make the bytes of all chunks, to `end`, follow.
    pub fn pixels(&mut self, goes_on: Option<(usize, u32)>, lens: &[usize], right: bool) {
        let flags = if right { FLAG_CRC } else { 0 } | if goes_on.is_some() { FLAG_GOES_ON } else { 0 };
        self.step(PIXELS, flags);
        if let Some((left, crc)) = goes_on {
            self.varint(left as u64);
            self.varint(crc.into());
        }
        self.varint(lens.len() as u64);
        lens.iter().for_each(|len| self.varint(*len as u64));
    }

    pub fn rows(&mut self, below: bool) {
        self.step(ROWS, if below { FLAG_BELOW } else { 0 });
    }

    pub fn text(&mut self) {
        self.step(TEXT, 0);
    }

    pub fn picture(&mut self, slice: &jpeg::Slice) {
        self.step(PICTURE, 0);
        let jpeg::Frame { width, height } = slice.frame;
        let numbers = [width.into(), height.into(), slice.front_bits as u64, (slice.to - slice.from) as u64];
        numbers.into_iter().for_each(|n| self.varint(n));
    }

    /// Steps that make its text, to `end`, follow where it is nested.
    pub fn blocks(&mut self, missing: u8, tail: u8, lens: &[usize], nested: bool) {
        self.step(BLOCKS, if nested { FLAG_NESTED } else { 0 });
        [missing.into(), tail.into(), lens.len() as u64].into_iter().for_each(|n| self.varint(n));
        lens.iter().for_each(|len| self.varint(*len as u64));
    }

    /// Steps that make its text, to `end`, follow where it is nested.
    pub fn made(&mut self, maker: zst::Maker, nested: bool) {
        self.step(MADE, if nested { FLAG_NESTED } else { 0 });
        maker.numbers().into_iter().for_each(|n| self.varint(n));
    }

    /// Likewise.
    pub fn lzma(&mut self, maker: xz::Maker, nested: bool) {
        self.step(MADE, FLAG_LZMA | if nested { FLAG_NESTED } else { 0 });
        maker.numbers().into_iter().for_each(|n| self.varint(n));
    }

    pub fn frames(&mut self, row: &flac::Row) {
        self.step(FRAMES, 0);
        [row.frames, row.side.len()].into_iter().for_each(|n| self.varint(n as u64));
    }

    /// What is new in its head is in the frame stream; steps that make its data, to `end`, follow.
    pub fn member(&mut self, form: plain::Form, padded: bool) {
        let form = match form {
            plain::Form::Tar => FORM_TAR,
            plain::Form::Cpio => FORM_CPIO,
            plain::Form::Ar => FORM_AR,
        };
        self.step(MEMBER, form | if padded { FLAG_PADDED } else { 0 });
    }

    /// Steps that make the bytes, to `end`, follow.
    pub fn base64(&mut self, lines: base64::Lines) {
        self.step(BASE64, lines.end as u64);
        [lines.first, lines.len].into_iter().for_each(|n| self.varint(n as u64));
    }

    pub fn jpeg(&mut self, frame: jpeg::Frame) {
        self.step(JPEG, 0);
        [frame.width, frame.height].into_iter().for_each(|n| self.varint(n.into()));
    }

    pub fn end(&mut self) {
        self.step(END, 0);
    }
}

const LESS: Error = Error("a recipe asks for more than its streams have");
const MORE: Error = Error("a recipe makes more bytes than it may");

/// Takes from the front of some bytes.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(front)
}

struct Closer<'a> {
    recipe: &'a [u8],
    frame: &'a [u8],
    packed: &'a [u8],
    corrections: &'a [u8],
    streams: std::slice::Iter<'a, Stream>,
    /// Bytes that may still be made, at all depths together.
    room: usize,
    /// Pixels of pictures likewise.
    pixels: u64,
    heads: plain::Heads,
    /// What was before the first bytes, where they go on with a stream of deflate.
    before: Option<deflate::Before>,
}

/// Puts together what was opened: `len` bytes. `text_bytes` bounds what is made on the way.
///
/// # Errors
/// When recipe and streams are not what `open` made.
pub fn close(recipe: &[u8], streams: &[Stream], len: usize, text_bytes: usize) -> Result<Vec<u8>, Error> {
    close_slice(recipe, streams, len, text_bytes).map(|(bytes, _)| bytes)
}

/// As `close`, and what was before the bytes where they go on with a stream of deflate.
pub fn close_slice(
    recipe: &[u8],
    streams: &[Stream],
    len: usize,
    text_bytes: usize,
) -> Result<(Vec<u8>, Option<deflate::Before>), Error> {
    let [frame, packed, corrections, others @ ..] = streams else { return Err(LESS) };
    if [frame, packed, corrections].map(|s| s.kind) != [Kind::Frame, Kind::Packed, Kind::Corrections] {
        return Err(Error("the first streams of an opened container are of other kinds"));
    }
    let mut closer = Closer {
        recipe,
        frame: &frame.bytes,
        packed: &packed.bytes,
        corrections: &corrections.bytes,
        streams: others.iter(),
        room: len.saturating_add(text_bytes.saturating_mul(2)),
        pixels: jpeg::PIXELS_TOGETHER_MAX,
        heads: plain::Heads::default(),
        before: None,
    };
    let out = closer.steps(0)?;
    if out.len() == len { Ok((out, closer.before)) } else { Err(Error("a recipe makes another number of bytes")) }
}

/// Bytes of text that streams hold, by which time is measured: what a picture takes is a sixth of what its bytes would.
pub fn text_bytes(streams: &[Stream]) -> usize {
    streams.iter().map(|s| weight(s.kind, s.bytes.len())).sum()
}

pub(super) fn weight(kind: Kind, len: usize) -> usize {
    match kind {
        Kind::Frame | Kind::Corrections | Kind::Text | Kind::Pixels { .. } | Kind::Samples { .. } => len,
        Kind::Packed => 0,
        Kind::Lepton => len / 6,
    }
}

impl<'a> Closer<'a> {
    fn varint(&mut self) -> Result<u64, Error> {
        take_varint(&mut self.recipe, 9).ok_or(Error("a recipe is too short, or a number of it is too long"))
    }

    fn size(&mut self) -> Result<usize, Error> {
        usize::try_from(self.varint()?).map_err(|_| MORE)
    }

    fn frame(&mut self) -> Result<jpeg::Frame, Error> {
        let mut side = || self.size().and_then(|n| u16::try_from(n).map_err(|_| MORE));
        let frame = jpeg::Frame { width: side()?, height: side()? };
        self.pixels = self.pixels.checked_sub(frame.pixels()).ok_or(MORE)?;
        Ok(frame)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.room = self.room.checked_sub(bytes).ok_or(MORE)?;
        Ok(())
    }

    /// The next stream, of a kind that holds text or not.
    fn stream(&mut self, lepton: bool) -> Result<&'a Stream, Error> {
        let stream = self.streams.next().ok_or(LESS)?;
        if (stream.kind == Kind::Lepton) != lepton {
            return Err(Error("a stream of an opened container is of another kind"));
        }
        Ok(stream)
    }

    fn steps(&mut self, depth: u8) -> Result<Vec<u8>, Error> {
        if depth > 2 * DEPTH_MAX {
            return Err(Error("a recipe is nested too deep"));
        }
        let mut out = Vec::new();
        loop {
            let step = self.varint()?;
            let flags = step >> STEP_BITS;
            let before = out.len();
            match step & ((1 << STEP_BITS) - 1) {
                END => return Ok(out),
                FRAME => {
                    let len = self.size()?;
                    out.extend_from_slice(take(&mut self.frame, len).ok_or(LESS)?);
                }
                PACKED => {
                    let len = self.size()?;
                    out.extend_from_slice(take(&mut self.packed, len).ok_or(LESS)?);
                }
                DEFLATE => self.deflate(flags, depth, &mut out)?,
                SLICE => {
                    let corrections = self.size()?;
                    let corrections = take(&mut self.corrections, corrections).ok_or(LESS)?;
                    let (window, bits, len) = (self.size()?, self.size()?, self.size()?);
                    let bits = u8::try_from(bits).ok().filter(|bits| *bits < 8).ok_or(MORE)?;
                    let made;
                    let text = if flags & FLAG_NESTED != 0 {
                        made = self.steps(depth + 1)?;
                        &made
                    } else {
                        &self.stream(false)?.bytes
                    };
                    let (mut slice, before) = deflate::close_slice(text, corrections, window, bits, len)?;
                    if depth == 0 && out.is_empty() {
                        self.before = Some(before);
                    }
                    out.append(&mut slice);
                }
                PNG => {
                    let lens = self.lens()?;
                    let data = self.steps(depth + 1)?;
                    png::put_chunks(&mut out, &data, &lens, (flags & FLAG_CRC == 0).then_some(&mut self.frame))?;
                }
                TEXT => out.extend_from_slice(&self.stream(false)?.bytes),
                JPEG => {
                    let frame = self.frame()?;
                    let coded = &self.stream(true)?.bytes;
                    out.append(&mut jpeg::close(coded, frame, self.room)?);
                }
                PICTURE => {
                    let frame = self.frame()?;
                    let (bits, len) = (self.size()?, self.size()?);
                    let coded = &self.stream(true)?.bytes;
                    let room = self.room.saturating_add(PICTURE_BYTES);
                    out.append(&mut jpeg::close_slice(coded, frame, bits, len, room)?);
                }
                BLOCKS => {
                    let mut byte = || self.size().and_then(|n| u8::try_from(n).map_err(|_| MORE));
                    let (missing, tail) = (byte()?, byte()?);
                    let count = self.size()?;
                    if count > bz2::BLOCKS_MAX {
                        return Err(MORE);
                    }
                    let lens = (0..count).map(|_| self.size()).collect::<Result<Vec<_>, _>>()?;
                    let made;
                    let text = if flags & FLAG_NESTED != 0 {
                        made = self.steps(depth + 1)?;
                        &made
                    } else {
                        &self.stream(false)?.bytes
                    };
                    out.append(&mut bz2::close(text, &lens, missing, tail)?);
                }
                MADE => {
                    let encoder = [self.varint()?, self.varint()?, self.varint()?];
                    let made;
                    let text = if flags & FLAG_NESTED != 0 {
                        made = self.steps(depth + 1)?;
                        &made
                    } else {
                        &self.stream(false)?.bytes
                    };
                    out.append(&mut if flags & FLAG_LZMA != 0 {
                        xz::close(text, xz::Maker::of(encoder)?, self.room)?
                    } else {
                        zst::close(text, zst::Maker::of(encoder)?, self.room)?
                    });
                }
                FRAMES => {
                    let (frames, side) = (self.size()?, self.size()?);
                    let side = take(&mut self.packed, side).ok_or(LESS)?;
                    let Stream { kind: Kind::Samples { channels, width }, bytes } = self.stream(false)? else {
                        return Err(Error("a stream of an opened container holds no samples"));
                    };
                    let form = flac::Samples { channels: *channels, width: *width };
                    out.append(&mut flac::close(side, frames, form, bytes, self.room)?);
                }
                MEMBER => {
                    self.member(flags, depth, &mut out)?;
                    // Its data is made once, and counted there.
                    continue;
                }
                PIXELS => {
                    let goes_on = if flags & FLAG_GOES_ON != 0 {
                        let left = self.size()?;
                        Some((left, u32::try_from(self.varint()?).map_err(|_| MORE)?))
                    } else {
                        None
                    };
                    let lens = self.lens()?;
                    let data = self.steps(depth + 1)?;
                    let given = (flags & FLAG_CRC == 0).then_some(&mut self.frame);
                    png::put_slice(&mut out, &data, goes_on, &lens, given)?;
                }
                ROWS => {
                    let Stream { kind: Kind::Pixels { row, pixel }, bytes } = self.stream(false)? else {
                        return Err(Error("a stream of an opened container holds no pixels"));
                    };
                    out.append(&mut self.filtered(bytes, *row, *pixel, flags & FLAG_BELOW != 0)?);
                }
                BASE64 => {
                    let end = usize::try_from(flags).map_err(|_| MORE)?;
                    let lines = base64::Lines { first: self.size()?, len: self.size()?, end };
                    let data = self.steps(depth + 1)?;
                    let len = base64::written_len(data.len(), lines).ok_or(MORE)?;
                    if len > self.room {
                        return Err(MORE);
                    }
                    base64::write(&data, lines, &mut out);
                }
                _ => return Err(Error("a recipe has a step that is not known")),
            }
            self.spend(out.len() - before)?;
        }
    }

    fn member(&mut self, flags: u64, depth: u8, out: &mut Vec<u8>) -> Result<(), Error> {
        let form = match flags & 3 {
            FORM_TAR => plain::Form::Tar,
            FORM_CPIO => plain::Form::Cpio,
            FORM_AR => plain::Form::Ar,
            _ => return Err(Error("a recipe names a form of heads that is not known")),
        };
        let head = self.heads.take(form, &mut self.frame).ok_or(LESS)?;
        let mut data = self.steps(depth + 1)?;
        let head = head.finish(data.len());
        let bytes = head.len() + data.len();
        self.spend(head.len() + form.padding(bytes).count())?;
        out.extend_from_slice(&head);
        out.append(&mut data);
        if flags & FLAG_PADDED != 0 {
            out.extend(form.padding(bytes));
        }
        Ok(())
    }

    /// Lengths of chunks.
    fn lens(&mut self) -> Result<Vec<usize>, Error> {
        let count = self.size()?;
        if count > CHUNKS_MAX {
            return Err(MORE);
        }
        (0..count).map(|_| self.size()).collect()
    }

    fn filtered(&mut self, pixels: &[u8], row: u32, pixel: u8, below: bool) -> Result<Vec<u8>, Error> {
        let width = (row as usize).checked_sub(1).filter(|width| *width > 0 && pixel > 0);
        let rows = width.filter(|width| pixels.len().is_multiple_of(*width)).map(|width| pixels.len() / width);
        let rows = rows.and_then(|rows| rows.checked_sub(usize::from(below)));
        let filters = rows.and_then(|rows| take(&mut self.frame, rows)).ok_or(LESS)?;
        Ok(png::filtered(pixels, filters, row, pixel, below))
    }

    fn deflate(&mut self, flags: u64, depth: u8, out: &mut Vec<u8>) -> Result<(), Error> {
        let corrections = self.size()?;
        let corrections = take(&mut self.corrections, corrections).ok_or(LESS)?;
        let header = if flags & FLAG_HEADER != 0 { Some(self.size()?) } else { None };
        let made;
        let text = if flags & FLAG_NESTED != 0 {
            made = self.steps(depth + 1)?;
            &made
        } else {
            let stream = self.stream(false)?;
            match stream.kind {
                Kind::Pixels { row, pixel } => {
                    made = self.filtered(&stream.bytes, row, pixel, false)?;
                    &made
                }
                _ => &stream.bytes,
            }
        };
        let mut coded = if flags & FLAG_KNOWN != 0 {
            deflate::known::close(text, corrections)?
        } else {
            deflate::close(text, corrections)?
        };
        if let Some(back) = header {
            let at = out.len().checked_sub(back).ok_or(LESS)?;
            let fields = out.get_mut(at..).and_then(|b| b.get_mut(..HEADER_FIELD_BYTES)).ok_or(LESS)?;
            fields.copy_from_slice(&header_fields(text, coded.len()));
        }
        let len = coded.len();
        out.append(&mut coded);
        for tail in Tail::ALL.into_iter().filter(|tail| flags & tail.flag() != 0) {
            out.append(&mut tail.bytes(text, len));
        }
        Ok(())
    }
}
