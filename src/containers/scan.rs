//! Finding streams in plain bytes: by what they begin with, and by whether they open.

use super::deflate;
use super::layout::{Tail, Writer, header_fields, weight};
use super::{Before, DEPTH_MAX, Declined, Kind, Limits, Opened, Stream, base64, bz2, flac, jpeg, plain, png, xz, zst};

/// Bytes looked at by vain attempts, for each byte of all that is looked through and beside these: a stream may be looked for
/// at each of its own bytes.
const WORK_FACTOR: usize = 12;
const WORK_BYTES: usize = 8 << 20;
/// Bytes of a name or a remark in the head of a gzip member.
const NAME_BYTES_MAX: usize = 4096;
/// Text of a stream that is looked for by two bytes alone.
const FAINT_TEXT_MIN: usize = 48;
/// Pieces in which bytes between streams are told apart: those that shrink, and those that do not.
const PIECE_BYTES: usize = 4096;
/// Shorter ones are not told apart.
const PIECE_BYTES_MIN: usize = 512;
/// Longer ones that shrink are a text of their own.
const TEXT_BYTES_MIN: usize = 4096;
/// Text in which more containers are looked for,
const NESTED_BYTES_MIN: usize = 256;
/// and left as it is where less than this part of it lies in them.
const NESTED_PART: usize = 16;
/// Bits per byte below those of noise, as far as so few bytes show them.
const NOISE_BITS: f64 = 0.12;
/// Where corrections are more than this part of a stream, encoders at hand are tried.
const DEAR_PART: usize = 100;

/// A place where a deflate stream may begin.
#[derive(Clone, Copy)]
struct Candidate {
    /// Where its first byte is.
    at: usize,
    /// Bytes before that are known for what they are: a head.
    family: Family,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Gzip,
    Zlib {
        /// Its head is not all that tells.
        sure: bool,
    },
    /// Where its head is.
    Zip {
        head: usize,
    },
}

/// The end of a gzip member's head that begins at `at`.
fn gzip_head(bytes: &[u8], at: usize) -> Option<usize> {
    let head = bytes.get(at..)?.first_chunk::<10>()?;
    let [0x1f, 0x8b, 8, flags, ..] = *head else { return None };
    if flags & 0xe0 != 0 {
        return None;
    }
    let mut end = at + 10;
    if flags & 4 != 0 {
        let len = bytes.get(end..)?.first_chunk::<2>()?;
        end += 2 + usize::from(u16::from_le_bytes(*len));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            end += bytes.get(end..)?.iter().take(NAME_BYTES_MAX).position(|b| *b == 0)? + 1;
        }
    }
    end += if flags & 2 != 0 { 2 } else { 0 };
    (end < bytes.len()).then_some(end)
}

/// The end of the head of a zip member that is deflated and not encrypted.
fn zip_head(bytes: &[u8], at: usize) -> Option<usize> {
    let head = bytes.get(at..)?.first_chunk::<30>()?;
    let [b'P', b'K', 3, 4, _, _, flags, _, 8, 0, .., n0, n1, m0, m1] = *head else { return None };
    let end = at + 30 + usize::from(u16::from_le_bytes([n0, n1])) + usize::from(u16::from_le_bytes([m0, m1]));
    (flags & 1 == 0 && end < bytes.len()).then_some(end)
}

/// True where the two bytes may be the head of a zlib stream without dictionary.
fn is_zlib_head(a: u8, b: u8) -> bool {
    a & 0x0f == 8 && a >> 4 <= 7 && b & 0x20 == 0 && (u16::from(a) << 8 | u16::from(b)).is_multiple_of(31)
}

fn candidate(bytes: &[u8], at: usize) -> Option<Candidate> {
    match (*bytes.get(at)?, *bytes.get(at + 1)?) {
        (0x1f, 0x8b) => Some(Candidate { at: gzip_head(bytes, at)?, family: Family::Gzip }),
        (b'P', b'K') => Some(Candidate { at: zip_head(bytes, at)?, family: Family::Zip { head: at } }),
        (a @ (0x48 | 0x58 | 0x68 | 0x78), b) if is_zlib_head(a, b) => {
            let before = bytes.get(at.saturating_sub(8)..at).unwrap_or_default();
            let sure = before.ends_with(b"stream\n") || before.ends_with(b"stream\r\n");
            (sure || a == 0x78).then_some(Candidate { at: at + 2, family: Family::Zlib { sure } })
        }
        _ => None,
    }
}

/// The first bytes of everything that is known.
fn is_mark(byte: u8) -> bool {
    matches!(byte, 0x1f | b'(' | b'B' | b'P' | 0x48 | 0x58 | 0x68 | 0x78 | 0x89 | 0xfd | 0xff) || plain::is_mark(byte)
}

/// The next place from `at` on where something may begin.
pub(super) fn next_mark(bytes: &[u8], at: usize) -> Option<usize> {
    Some(at + bytes.get(at..)?.iter().position(|b| is_mark(*b))?)
}

/// What begins somewhere, as far as it is known without opening it.
pub(super) enum Start {
    Whole {
        len: usize,
        text_bytes: usize,
    },
    /// Its end is not there.
    CutOff,
    /// A picture whose end is not there, or that is too large to be opened as a whole.
    Picture,
    /// A frame of sound.
    Frames,
    /// The head of a member of a plain container.
    Member(plain::Head),
    /// Blocks of bzip2, the first of them so many bytes later.
    Blocks(usize),
    /// Blocks of xz likewise.
    Lzma(usize),
    /// A deflate stream begins at `at`, with so many bytes behind it that belong to it.
    Stream {
        at: usize,
        tail: usize,
    },
}

/// Bytes that may be looked at in vain in some bytes.
pub(super) fn work_for(bytes: &[u8]) -> usize {
    WORK_BYTES + WORK_FACTOR * bytes.len()
}

/// What is known of what begins at an offset. What is looked at in vain is taken from `work`.
pub(super) fn starts_at(bytes: &[u8], at: usize, work: &mut usize) -> Option<Start> {
    let rest = bytes.get(at..)?;
    if rest.starts_with(b"\xff\xd8\xff") {
        return Some(match jpeg::extent(rest, work) {
            Some((len, _)) => Start::Whole { len, text_bytes: weight(Kind::Lepton, len) },
            None => Start::Picture,
        });
    }
    if rest.starts_with(png::SIGNATURE) {
        return Some(match png::data(rest, work) {
            Some(data) => Start::Whole { len: data.start + data.len, text_bytes: data.text_bytes },
            None => Start::CutOff,
        });
    }
    if flac::is_mark(rest) {
        return flac::begins(rest).then_some(Start::Frames);
    }
    if let Some(head) = bz2::head(rest) {
        return Some(Start::Blocks(head));
    }
    if let Some(head) = xz::head(rest) {
        return Some(Start::Lzma(head));
    }
    if rest.starts_with(zst::MAGIC) {
        let extent = match zst::extent(rest) {
            Ok(extent) => extent,
            Err(why) => return (why == Declined::TooLarge).then_some(Start::CutOff),
        };
        return Some(Start::Whole { len: extent.len, text_bytes: zst::text_bytes(rest, &extent, *work) });
    }
    let found = candidate(bytes, at)?;
    let sure = at == 0 || found.family != Family::Zlib { sure: false };
    let tail = match found.family {
        Family::Gzip => 8,
        Family::Zlib { .. } => 4,
        // Not every member has one, and the next has a head.
        Family::Zip { .. } => 0,
    };
    sure.then_some(Start::Stream { at: found.at, tail })
}

/// What belongs to a stream that is found.
struct Follows {
    /// What is behind it.
    tail: Tail,
    /// Where the fields of its head are.
    header: Option<usize>,
    /// What its text is.
    kind: Kind,
}

struct Scan {
    recipe: Writer,
    frame: Vec<u8>,
    packed: Vec<u8>,
    corrections: Vec<u8>,
    streams: Vec<Stream>,
    opened_bytes: usize,
    /// The same in the text that is being looked through.
    nested_bytes: usize,
    /// Bytes of text that may still be opened.
    room: usize,
    /// Bytes that may still be looked at in vain, or be made on the way to what is in them.
    work: usize,
    /// Pixels of pictures that may still be opened.
    pixels: u64,
    /// Why the last stream did not open.
    last: Declined,
    heads: plain::Heads,
    /// Layers around what is looked through.
    depth: u8,
}

/// How far a scan has come, to go back there.
struct Mark {
    lens: [usize; 4],
    streams: usize,
    room: usize,
    pixels: u64,
    last: Declined,
    heads: plain::Heads,
}

/// Takes apart what some bytes hold; with `before`, they go on with a deflate stream.
///
/// # Errors
/// When nothing opens.
pub fn open(bytes: &[u8], before: Option<&Before>, limits: Limits) -> Result<Opened, Declined> {
    let mut scan = Scan {
        recipe: Writer::default(),
        frame: Vec::new(),
        packed: Vec::new(),
        corrections: Vec::new(),
        streams: Vec::new(),
        opened_bytes: 0,
        nested_bytes: 0,
        room: limits.text_bytes,
        work: work_for(bytes),
        pixels: jpeg::PIXELS_TOGETHER_MAX,
        last: Declined::NothingFound,
        heads: plain::Heads::default(),
        depth: 0,
    };
    let mut from = 0;
    if let Some(before) = before {
        from = scan.slice(before, bytes);
    }
    if from == 0
        && let Some(missing) = bz2::missing(bytes)
    {
        from = scan.blocks(bytes, 0, 0, missing, 0).unwrap_or(0);
    }
    if from == 0 && xz::is_block(bytes) {
        from = scan.lzma(bytes, 0, 0, 0).unwrap_or(0);
    }
    scan.steps(bytes, from, 0);
    if scan.opened_bytes == 0 {
        return Err(scan.last);
    }
    let shared = [(Kind::Frame, scan.frame), (Kind::Packed, scan.packed), (Kind::Corrections, scan.corrections)];
    let mut streams: Vec<Stream> = shared.map(|(kind, bytes)| Stream { kind, bytes }).into();
    streams.append(&mut scan.streams);
    Ok(Opened { recipe: scan.recipe.bytes, streams, opened_bytes: scan.opened_bytes })
}

impl Scan {
    /// Opens what is found in some bytes from an offset on, at a depth, and ends the row of steps.
    fn steps(&mut self, bytes: &[u8], from: usize, depth: u8) {
        let (mut done, mut at) = (from, from);
        let around = std::mem::replace(&mut self.depth, depth);
        while self.room > 0 && self.work > 0 {
            let Some(next) = next_mark(bytes, at) else { break };
            at = next;
            match self.open_at(bytes, done, at, depth) {
                Some(end) => (done, at) = (end, end),
                None => at += 1,
            }
        }
        self.gap(bytes.get(done..).unwrap_or_default());
        self.recipe.end();
        self.depth = around;
    }

    /// Counts a stream, which takes room.
    fn push(&mut self, kind: Kind, bytes: Vec<u8>) {
        self.room = self.room.saturating_sub(weight(kind, bytes.len()));
        self.streams.push(Stream { kind, bytes });
    }

    /// Counts bytes that were taken out of their container.
    fn opened(&mut self, bytes: usize, depth: u8) {
        if depth == 0 {
            self.opened_bytes += bytes;
        } else {
            self.nested_bytes += bytes;
        }
    }

    fn vain(&mut self, looked_at: usize, why: Declined) {
        self.work = self.work.saturating_sub(looked_at + 64);
        self.last = why;
    }

    /// Opens what begins at `at`; bytes from `done` on were not told of yet. The end of it.
    fn open_at(&mut self, bytes: &[u8], done: usize, at: usize, depth: u8) -> Option<usize> {
        let rest = bytes.get(at..)?;
        if rest.starts_with(b"\xff\xd8\xff") {
            let Some((len, frame)) = jpeg::extent(rest, &mut self.work) else {
                return self.picture(bytes, done, at, None, depth);
            };
            if frame.pixels() > self.pixels {
                self.vain(len, Declined::TooLarge);
                return None;
            }
            self.work = self.work.saturating_sub(frame.pixels() as usize / 4);
            return match jpeg::open(rest.get(..len)?, frame) {
                Ok(coded) => {
                    self.pixels -= frame.pixels();
                    self.gap(bytes.get(done..at)?);
                    self.recipe.jpeg(frame);
                    self.push(Kind::Lepton, coded);
                    self.opened(len, depth);
                    Some(at + len)
                }
                Err(why) => {
                    self.vain(8 * len, why);
                    None
                }
            };
        }
        if rest.starts_with(png::SIGNATURE) {
            return self.png(bytes, done, at, depth);
        }
        if flac::is_mark(rest) {
            return self.frames(bytes, done, at, depth);
        }
        if let Some((head, _)) = plain::found(bytes, done, at) {
            return self.members(bytes, done, head, depth);
        }
        if let Some(head) = bz2::head(rest) {
            return self.blocks(bytes, done, at + head, 0, depth);
        }
        if let Some(head) = xz::head(rest) {
            return self.lzma(bytes, done, at + head, depth);
        }
        if rest.starts_with(zst::MAGIC) {
            return self.made(bytes, done, at, depth);
        }
        let Some(candidate) = candidate(bytes, at) else {
            // Most are no head at all, and cost nothing.
            self.work = self.work.saturating_sub(1);
            return None;
        };
        self.deflate(bytes, done, candidate, depth)
    }

    /// Opens what is there of a picture that begins at `at`, or goes on there. The end of it.
    fn picture(
        &mut self,
        bytes: &[u8],
        done: usize,
        at: usize,
        before: Option<&jpeg::Before>,
        depth: u8,
    ) -> Option<usize> {
        let rest = bytes.get(at..)?;
        match jpeg::open_slice(before, rest) {
            Ok(slice) if slice.frame.pixels() > self.pixels => {
                self.vain(rest.len(), Declined::TooLarge);
                None
            }
            Ok(slice) => {
                self.pixels -= slice.frame.pixels();
                self.gap(bytes.get(done..at + slice.from)?);
                self.recipe.picture(&slice);
                self.opened(slice.to - slice.from, depth);
                let end = at + slice.to;
                self.push(Kind::Lepton, slice.coded);
                Some(end)
            }
            Err(why) => {
                let why = if before.is_none() && jpeg::is_of_four(rest) { Declined::FourColours } else { why };
                // As far as its head goes at least.
                self.vain(if rest.len() > TEXT_BYTES_MIN { rest.len() } else { 64 }, why);
                None
            }
        }
    }

    /// Opens the blocks of bzip2 that begin at `at`, or a few bits before. The end of them.
    fn blocks(&mut self, bytes: &[u8], done: usize, at: usize, missing: u8, depth: u8) -> Option<usize> {
        match bz2::open(bytes.get(at..)?, missing, self.room) {
            Ok(bz2::Run { len, missing, lens, text, tail }) => {
                self.gap(bytes.get(done..at)?);
                self.opened(len, depth);
                let tell = |recipe: &mut Writer, nested| recipe.blocks(missing, tail, &lens, nested);
                if !self.nested(&text, |recipe| tell(recipe, true), depth) {
                    tell(&mut self.recipe, false);
                    self.push(Kind::Text, text);
                }
                Some(at + len)
            }
            Err((why, looked_at)) => {
                self.vain(looked_at, why);
                None
            }
        }
    }

    /// Opens the frame of zstd that begins at `at`. The end of it.
    fn made(&mut self, bytes: &[u8], done: usize, at: usize, depth: u8) -> Option<usize> {
        match zst::open(bytes.get(at..)?, self.room) {
            Ok(zst::Frame { len, text, maker }) => {
                self.gap(bytes.get(done..at)?);
                self.opened(len, depth);
                let tell = |recipe: &mut Writer, nested| recipe.made(maker, nested);
                if !self.nested(&text, |recipe| tell(recipe, true), depth) {
                    tell(&mut self.recipe, false);
                    self.push(Kind::Text, text);
                }
                Some(at + len)
            }
            Err((why, looked_at)) => {
                self.vain(looked_at, why);
                None
            }
        }
    }

    /// Opens the blocks of xz of which the first begins at `at`. The end of the last.
    fn lzma(&mut self, bytes: &[u8], mut done: usize, at: usize, depth: u8) -> Option<usize> {
        let (mut next, mut end) = (Some(at), None);
        while let Some(at) = next {
            match xz::open(bytes.get(at..)?, self.room) {
                Ok(block) => {
                    self.gap(bytes.get(done..at + block.from)?);
                    self.opened(block.to - block.from, depth);
                    let tell = |recipe: &mut Writer, nested| recipe.lzma(block.maker, nested);
                    if !self.nested(&block.text, |recipe| tell(recipe, true), depth) {
                        tell(&mut self.recipe, false);
                        self.push(Kind::Text, block.text);
                    }
                    (done, end) = (at + block.to, Some(at + block.to));
                    next = block.next.map(|next| at + next);
                }
                Err((why, looked_at)) => {
                    self.vain(looked_at, why);
                    next = None;
                }
            }
        }
        end
    }

    /// Opens the frames of sound that begin at `at`. The end of them.
    fn frames(&mut self, bytes: &[u8], done: usize, at: usize, depth: u8) -> Option<usize> {
        match flac::open(bytes.get(at..)?, self.room) {
            Ok(row) => {
                self.gap(bytes.get(done..at)?);
                self.recipe.frames(&row);
                self.packed.extend_from_slice(&row.side);
                let flac::Samples { channels, width } = row.form;
                self.push(Kind::Samples { channels, width }, row.samples);
                self.opened(row.len, depth);
                Some(at + row.len)
            }
            Err((why, looked_at)) => {
                self.vain(looked_at, why);
                None
            }
        }
    }

    /// Opens the part of a picture that holds its data.
    fn png(&mut self, bytes: &[u8], done: usize, at: usize, depth: u8) -> Option<usize> {
        let rest = bytes.get(at..)?;
        let Some(data) = png::data(rest, &mut self.work).filter(|data| data.text_bytes <= self.room) else {
            return if depth == 0 { self.pixels(bytes, done, at, None) } else { None };
        };
        if !matches!(*data.bytes, [a, b, _, ..] if is_zlib_head(a, b)) {
            self.vain(data.start + data.len, Declined::Foreign);
            return None;
        }
        // Tried before anything is told of it.
        let Some(stream) = self.inflated(data.bytes.get(2..)?, &[]) else {
            self.work = self.work.saturating_sub(data.start + data.len);
            return None;
        };
        self.gap(bytes.get(done..at + data.start)?);
        self.recipe.png(&data.lens, data.right);
        self.gap(data.bytes.get(..2)?);
        let follows = Follows { tail: Tail::Adler, header: None, kind: data.kind };
        let end = self.told(&data.bytes, 2, stream, follows, depth + 1);
        self.gap(data.bytes.get(end..).unwrap_or_default());
        self.recipe.end();
        if !data.right {
            // Behind what the bytes of the data take, as closing makes those first.
            self.frame.extend_from_slice(&png::checksums(rest, &data));
        }
        self.opened(data.len, depth);
        Some(at + data.start + data.len)
    }

    /// Opens what is there of a picture in PNG that begins at `at` and is too large to be opened as a whole, or goes on there. The
    /// end of it.
    fn pixels(&mut self, bytes: &[u8], done: usize, at: usize, before: Option<&png::Before>) -> Option<usize> {
        let rest = bytes.get(at..)?;
        let (head, rows) = match before {
            Some(before) => (0, before.rows.clone()),
            None => png::head_len(rest)?,
        };
        let rest = rest.get(head..)?;
        let goes_on = before.map(|before| (before.left, before.crc));
        let gathered = png::gathered(rest, goes_on)?;
        let skipped = if before.is_none() { 2 } else { 0 };
        let (zlib, data) = gathered.bytes.split_at_checked(skipped)?;
        let stream = match before {
            Some(before) => deflate::open_slice(&before.stream, data, self.room),
            None if matches!(*zlib, [a, b] if is_zlib_head(a, b)) => deflate::open(data, self.room),
            None => Err(Declined::Foreign),
        };
        let stream = match stream {
            Ok(stream) if !deflate::expands(stream.text.len(), stream.consumed) => stream,
            Ok(_) | Err(_) => {
                self.vain(4 * rest.len(), Declined::Foreign);
                return None;
            }
        };
        let framed = gathered.framed(rest, skipped + stream.consumed)?;
        self.gap(bytes.get(done..at + head)?);
        self.recipe.pixels(goes_on, &framed.lens, framed.right);
        let deflate::Stream { consumed, text, mut corrections, .. } = stream;
        match before {
            Some(before) => {
                let told = (corrections.len(), before.stream.window.len(), before.stream.bits);
                self.recipe.slice(told.0, told.1, told.2, consumed, true);
            }
            None => {
                self.recipe.frame(zlib.len());
                self.frame.extend_from_slice(zlib);
                self.recipe.deflate(corrections.len(), false, Tail::Nothing, None, true);
            }
        }
        self.corrections.append(&mut corrections);
        self.rows(text, rows.as_ref());
        self.recipe.end();
        self.recipe.end();
        if !framed.right {
            // Behind what the bytes of the data take, as closing makes those first.
            self.frame.extend_from_slice(&framed.checksums);
        }
        self.opened_bytes += framed.len;
        Some(at + head + framed.len)
    }

    /// Tells of rows of pixels that begin and end anywhere in a text, without their filters where it is known where they lie.
    fn rows(&mut self, text: Vec<u8>, rows: Option<&png::Rows>) {
        let Some((rows, taken)) = rows.and_then(|rows| Some((rows, rows.take(&text)?))) else {
            self.recipe.text();
            self.push(Kind::Text, text);
            return;
        };
        self.side(taken.lead);
        let below = rows.above.iter().any(|b| *b != 0);
        self.recipe.rows(below);
        self.frame.extend_from_slice(&taken.filters);
        let above = if below { &rows.above[..] } else { &[] };
        self.push(Kind::Pixels { row: rows.row, pixel: rows.pixel }, [above, &taken.pixels].concat());
        self.side(taken.trail);
    }

    /// Tells of bytes as they are.
    fn side(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.recipe.frame(bytes.len());
            self.frame.extend_from_slice(bytes);
        }
    }

    /// Opens the stream at the start of some bytes, where it is one and has the checksum behind it that one of `tails` has.
    fn inflated(&mut self, bytes: &[u8], tails: &[Tail]) -> Option<deflate::Stream> {
        let glance = deflate::glance(bytes, self.room);
        let glance = match glance {
            Ok(glance) => glance,
            Err(looked_at) => {
                self.vain(512 + looked_at, Declined::Foreign);
                return None;
            }
        };
        let tailed = |tail: &Tail| {
            let expected = tail.bytes(&glance.text, glance.consumed);
            bytes.get(glance.consumed..).is_some_and(|rest| rest.starts_with(&expected))
        };
        let faint = !tails.is_empty();
        if faint && !(glance.whole && glance.text.len() >= FAINT_TEXT_MIN && tails.iter().any(tailed)) {
            self.vain(glance.text.len() + glance.consumed, Declined::Foreign);
            return None;
        }
        if deflate::expands(glance.text.len(), glance.consumed) {
            self.vain(glance.text.len() + glance.consumed, Declined::TooLarge);
            return None;
        }
        let bytes = if glance.whole { bytes.get(..glance.consumed)? } else { bytes };
        let opened = deflate::open(bytes, self.room);
        let cheap = |stream: &deflate::Stream| stream.corrections.len() * DEAR_PART <= stream.consumed;
        if glance.whole
            && !matches!(&opened, Ok(stream) if cheap(stream))
            && let Some(corrections) = deflate::known::open(bytes, &glance.text)
        {
            let deflate::Glance { consumed, text, whole } = glance;
            return Some(deflate::Stream { consumed, text, corrections, whole, known: true });
        }
        match opened {
            Ok(stream) => Some(stream),
            Err(why) => {
                self.vain(4 * glance.text.len() + glance.consumed, why);
                None
            }
        }
    }

    fn deflate(&mut self, bytes: &[u8], done: usize, c: Candidate, depth: u8) -> Option<usize> {
        let sure = c.family != Family::Zlib { sure: false };
        let stream = self.inflated(bytes.get(c.at..)?, if sure { &[] } else { &[Tail::Adler] })?;
        self.gap(bytes.get(done..c.at)?);
        let (tail, header) = match c.family {
            Family::Gzip => (Tail::Gzip, None),
            Family::Zlib { .. } => (Tail::Adler, None),
            Family::Zip { head } => (Tail::Descriptor, Some(head + 14).filter(|_| head >= done)),
        };
        self.opened(stream.consumed, depth);
        Some(self.told(bytes, c.at, stream, Follows { tail, header, kind: Kind::Text }, depth))
    }

    /// Writes the step of a stream that lies at `at`, with what follows from its text where that is there. The end of it.
    fn told(&mut self, bytes: &[u8], at: usize, stream: deflate::Stream, follows: Follows, depth: u8) -> usize {
        let deflate::Stream { consumed, text, mut corrections, whole, known } = stream;
        let end = at + consumed;
        let expected = follows.tail.bytes(&text, consumed);
        let is_there = whole && bytes.get(end..).is_some_and(|rest| rest.starts_with(&expected));
        let tail = if is_there { follows.tail } else { Tail::Nothing };
        let header = follows.header.filter(|field| self.blank(*field, at, &header_fields(&text, consumed)));
        let told = (corrections.len(), tail, header.map(|field| at - field));
        self.corrections.append(&mut corrections);
        let tell = |recipe: &mut Writer, nested| recipe.deflate(told.0, known, told.1, told.2, nested);
        if follows.kind != Kind::Text || !self.nested(&text, |recipe| tell(recipe, true), depth) {
            tell(&mut self.recipe, false);
            let rows = match follows.kind {
                Kind::Pixels { row, pixel } => png::unfiltered(&text, row, pixel),
                _ => None,
            };
            match rows {
                Some((mut filters, pixels)) => {
                    self.frame.append(&mut filters);
                    self.push(follows.kind, pixels);
                }
                None => self.push(Kind::Text, text),
            }
        }
        end + if is_there { expected.len() } else { 0 }
    }

    /// Puts zeroes in the place of fields that follow from a text, of which the first is at `field`, where they are what was
    /// told of the bytes before `at`.
    fn blank(&mut self, field: usize, at: usize, expected: &[u8]) -> bool {
        let from = self.frame.len().checked_sub(at - field);
        let fields = from.and_then(|from| self.frame.get_mut(from..from + expected.len()));
        match fields.filter(|fields| *fields == expected) {
            Some(fields) => {
                fields.fill(0);
                true
            }
            None => false,
        }
    }

    /// Opens what a text holds. False where it is to be coded as it is: nothing is told of it then.
    fn nested(&mut self, text: &[u8], tell: impl Fn(&mut Writer), depth: u8) -> bool {
        if depth + 1 >= DEPTH_MAX || text.len() < NESTED_BYTES_MIN {
            return false;
        }
        let (mark, before) = (self.mark(), std::mem::replace(&mut self.nested_bytes, 0));
        tell(&mut self.recipe);
        // It takes no room, but time.
        self.work = self.work.saturating_sub(text.len());
        self.steps(text, 0, depth + 1);
        let opened = std::mem::replace(&mut self.nested_bytes, before);
        if opened * NESTED_PART > text.len() {
            return true;
        }
        self.back_to(mark);
        false
    }

    fn mark(&self) -> Mark {
        Mark {
            lens: [&self.recipe.bytes, &self.frame, &self.packed, &self.corrections].map(Vec::len),
            streams: self.streams.len(),
            room: self.room,
            pixels: self.pixels,
            last: self.last,
            heads: self.heads.clone(),
        }
    }

    /// Forgets what was told since.
    fn back_to(&mut self, mark: Mark) {
        let all = [&mut self.recipe.bytes, &mut self.frame, &mut self.packed, &mut self.corrections];
        all.into_iter().zip(mark.lens).for_each(|(bytes, len)| bytes.truncate(len));
        self.streams.truncate(mark.streams);
        (self.room, self.pixels, self.last, self.heads) = (mark.room, mark.pixels, mark.last, mark.heads);
    }

    /// Tells of members of a plain container, of which the first begins at `at`. The end of the last.
    fn members(&mut self, bytes: &[u8], mut done: usize, mut at: usize, depth: u8) -> Option<usize> {
        let first = at;
        while let Some(head) = plain::head(bytes.get(at..)?) {
            let (told, rest) = bytes.get(at..)?.split_at_checked(head.len)?;
            let data = rest.get(..usize::try_from(head.data).unwrap_or(usize::MAX)).unwrap_or(rest);
            // Looked at before anything is told of it.
            if !self.heads.clone().put(head.form, told, data.len(), &mut Vec::new()) {
                break;
            }
            self.gap(bytes.get(done..at)?);
            let padding = head.form.padding(head.len + data.len()).collect::<Vec<u8>>();
            let padded = rest.get(data.len()..)?.starts_with(&padding);
            self.recipe.member(head.form, padded);
            self.heads.put(head.form, told, data.len(), &mut self.frame);
            self.data(data, depth + 1);
            self.opened(data.len(), depth);
            at += head.len + data.len() + if padded { padding.len() } else { 0 };
            done = at;
        }
        (at > first).then_some(at)
    }

    /// Tells of what stands alone, at a depth: of what opens in it, or of all of it as one text; and ends the row of steps.
    fn data(&mut self, bytes: &[u8], depth: u8) {
        if depth < DEPTH_MAX && bytes.len() >= NESTED_BYTES_MIN {
            let (mark, before) = (self.mark(), std::mem::replace(&mut self.nested_bytes, 0));
            self.steps(bytes, 0, depth);
            let opened = std::mem::replace(&mut self.nested_bytes, before);
            if opened * NESTED_PART > bytes.len() {
                return;
            }
            self.back_to(mark);
        }
        let noise = bytes.chunks(PIECE_BYTES).filter(|piece| is_noise(piece)).map(<[u8]>::len).sum::<usize>();
        if noise * 2 > bytes.len() {
            self.gap(bytes);
        } else if !bytes.is_empty() {
            self.recipe.text();
            self.push(Kind::Text, bytes.to_vec());
        }
        self.recipe.end();
    }

    /// Opens what was cut off before `bytes`, as far as it goes.
    fn slice(&mut self, before: &Before, bytes: &[u8]) -> usize {
        let before = match before {
            Before::Stream(before) => before,
            Before::Picture(before) => return self.picture(bytes, 0, 0, Some(before), 0).unwrap_or(0),
            Before::Pixels(before) => return self.pixels(bytes, 0, 0, Some(before)).unwrap_or(0),
            Before::Member(member) => return member.before.as_ref().map_or(0, |before| self.slice(before, bytes)),
        };
        let Ok(stream) = deflate::open_slice(before, bytes, self.room) else { return 0 };
        let deflate::Stream { consumed, text, mut corrections, .. } = stream;
        let told = (corrections.len(), before.window.len(), before.bits);
        self.corrections.append(&mut corrections);
        self.opened_bytes += consumed;
        let tell = |recipe: &mut Writer, nested| recipe.slice(told.0, told.1, told.2, consumed, nested);
        if !self.nested(&text, |recipe| tell(recipe, true), 0) {
            tell(&mut self.recipe, false);
            self.push(Kind::Text, text);
        }
        consumed
    }

    /// Tells of bytes between streams: of what letters in them stand for, and of the others as they are.
    fn gap(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.depth + 1 < DEPTH_MAX
            && self.room > 0
            && let Some(run) = base64::find(rest, 0)
        {
            let depth = self.depth;
            self.between(rest.get(..run.start).unwrap_or_default());
            self.recipe.base64(run.lines);
            self.data(&run.data, depth + 1);
            self.opened(run.end - run.start, depth);
            rest = rest.get(run.end..).unwrap_or_default();
        }
        self.between(rest);
    }

    fn between(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Pieces of one kind together.
            let noise = is_noise(rest.get(..PIECE_BYTES).unwrap_or(rest));
            let mut pieces = rest.chunks(PIECE_BYTES);
            let len = pieces.by_ref().take_while(|piece| is_noise(piece) == noise).map(<[u8]>::len).sum();
            let (run, after) = rest.split_at(len);
            rest = after;
            if noise {
                self.recipe.packed(len);
                self.packed.extend_from_slice(run);
            } else if len >= TEXT_BYTES_MIN {
                self.recipe.text();
                self.push(Kind::Text, run.to_vec());
            } else {
                self.recipe.frame(len);
                self.frame.extend_from_slice(run);
            }
        }
    }
}

/// True for bytes that are spread as evenly as noise.
fn is_noise(bytes: &[u8]) -> bool {
    if bytes.len() < PIECE_BYTES_MIN {
        return false;
    }
    let mut counts = [0u32; 256];
    bytes.iter().for_each(|b| counts.iter_mut().skip(usize::from(*b)).take(1).for_each(|n| *n += 1));
    let n = bytes.len() as f64;
    let bits: f64 = counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / n).map(|p| -p * p.log2()).sum();
    // What so few bytes of noise show of their eight bits.
    bits > 8.0 - 255.0 / (2.0 * n * std::f64::consts::LN_2) - NOISE_BITS
}
