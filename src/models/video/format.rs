//! Where the frames of a segment are and what they are like: told by the head of a file, or found from what stands between frames and
//! from pixels alone, wherever a file was cut.

use super::predictor::Plane;
use crate::base::SEGMENT_BYTES_MAX;

/// Least and most columns, and rows, of a frame.
const SIDE_MIN: usize = 16;
pub(super) const SIDE_MAX: usize = 8192;
/// How much longer one side is than the other at most, where nobody says.
const SIDES_MAX: usize = 5;
/// Pairs of pixels of a plane that are compared to find what frames are like.
const COMPARED: usize = 6000;
/// Bytes of the line before a frame, and of the head of a file that are looked through.
const LINE_MAX: usize = 256;
const HEAD_MAX: usize = 32 << 10;
/// What stands before a frame of Y4M, and at the beginning of its file.
const LINE: &[u8] = b"FRAME";
const MAGIC: &[u8] = b"YUV4MPEG2 ";

/// How the values of a frame lie. Numbers are in payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Grey = 0,
    /// Planes, the second and third of half the columns and rows.
    Yuv420 = 1,
    Yuv422 = 2,
    Yuv444 = 3,
    Yuv411 = 4,
    Yuv444Alpha = 5,
    /// Rows of pixels of three and four values, filled up to four bytes.
    Bgr = 6,
    Bgra = 7,
    /// Rows of two pixels in four bytes.
    Yuyv = 8,
    Uyvy = 9,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Grey,
        Kind::Yuv420,
        Kind::Yuv422,
        Kind::Yuv444,
        Kind::Yuv411,
        Kind::Yuv444Alpha,
        Kind::Bgr,
        Kind::Bgra,
        Kind::Yuyv,
        Kind::Uyvy,
    ];

    pub fn from_u8(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What frames are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    pub kind: Kind,
    /// Bytes of a value, 1 or 2, the lower first.
    pub bytes: usize,
    pub width: usize,
    pub rows: usize,
}

/// Where in a frame the values of a plane lie: the first one, one from the next, one row from the next, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub first: usize,
    pub step: usize,
    pub stride: usize,
}

impl Format {
    /// Checks what a payload or a head says of frames that a segment has room for.
    pub fn checked(self) -> Option<Format> {
        self.possible().filter(|format| format.frame_bytes() <= SEGMENT_BYTES_MAX as usize)
    }

    /// Checks what a head says of frames of any length.
    fn possible(self) -> Option<Format> {
        let sides = [self.width, self.rows].into_iter().all(|side| (SIDE_MIN..=SIDE_MAX).contains(&side));
        let packed = !matches!(self.kind, Kind::Yuyv | Kind::Uyvy) || self.width.is_multiple_of(2);
        let bytes = self.bytes == 1 || self.bytes == 2 && (self.kind as u8) < Kind::Bgr as u8;
        (sides && packed && bytes).then_some(self)
    }

    /// Planes, the one first that others are told from, and where their values lie.
    pub fn planes(&self) -> Vec<(Plane, Place)> {
        let Format { kind, bytes, width, rows } = *self;
        let plane =
            |wide: usize, high: usize| Plane { width: width.div_ceil(wide), rows: rows.div_ceil(high), wide, high };
        let apart = |shrunk: &[(usize, usize)]| {
            let mut end = 0;
            let place = |(wide, high): &(usize, usize)| {
                let plane = plane(*wide, *high);
                let place = Place { first: end, step: bytes, stride: plane.width * bytes };
                end += plane.width * plane.rows * bytes;
                (plane, place)
            };
            shrunk.iter().map(place).collect()
        };
        let packed = |pixel: usize, firsts: &[usize]| {
            let stride = (width * pixel).next_multiple_of(4);
            firsts.iter().map(|first| (plane(1, 1), Place { first: *first, step: pixel, stride })).collect()
        };
        let in_twos = |[luma, first, second]: [usize; 3]| {
            let of = |first, step| Place { first, step, stride: width * 2 };
            vec![(plane(1, 1), of(luma, 2)), (plane(2, 1), of(first, 4)), (plane(2, 1), of(second, 4))]
        };
        match kind {
            Kind::Grey => apart(&[(1, 1)]),
            Kind::Yuv420 => apart(&[(1, 1), (2, 2), (2, 2)]),
            Kind::Yuv422 => apart(&[(1, 1), (2, 1), (2, 1)]),
            Kind::Yuv444 => apart(&[(1, 1); 3]),
            Kind::Yuv411 => apart(&[(1, 1), (4, 1), (4, 1)]),
            Kind::Yuv444Alpha => apart(&[(1, 1); 4]),
            // Green first.
            Kind::Bgr => packed(3, &[1, 0, 2]),
            Kind::Bgra => packed(4, &[1, 0, 2, 3]),
            Kind::Yuyv => in_twos([0, 1, 3]),
            Kind::Uyvy => in_twos([1, 0, 2]),
        }
    }

    /// Bytes of a frame.
    pub fn frame_bytes(&self) -> usize {
        let Format { kind, bytes, width, rows } = *self;
        let apart = |wide: usize, high: usize| width.div_ceil(wide) * rows.div_ceil(high);
        match kind {
            Kind::Grey => bytes * width * rows,
            Kind::Yuv420 => bytes * (width * rows + 2 * apart(2, 2)),
            Kind::Yuv422 => bytes * (width * rows + 2 * apart(2, 1)),
            Kind::Yuv444 => bytes * 3 * width * rows,
            Kind::Yuv411 => bytes * (width * rows + 2 * apart(4, 1)),
            Kind::Yuv444Alpha => bytes * 4 * width * rows,
            Kind::Bgr => (3 * width).next_multiple_of(4) * rows,
            Kind::Bgra => 4 * width * rows,
            Kind::Yuyv | Kind::Uyvy => 2 * width * rows,
        }
    }

    /// Where the values of a frame that begins at a place are, plane by plane.
    pub fn places(&self, start: usize) -> impl Iterator<Item = usize> {
        self.planes().into_iter().flat_map(move |(plane, Place { first, step, stride })| {
            let row = move |y: usize| (0..plane.width).map(move |x| start + first + y * stride + x * step);
            (0..plane.rows).flat_map(row)
        })
    }
}

/// Frames of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub format: Format,
    /// Where each of them begins.
    pub starts: Vec<usize>,
}

/// Whole frames in some bytes.
struct Walk {
    format: Option<Format>,
    frame_bytes: usize,
    starts: Vec<usize>,
    /// Behind the last.
    end: usize,
    /// Of an AVI: rows may be packed.
    pieces: bool,
}

/// What the head of a file says, of frames of any length.
pub(super) fn head(raw: &[u8]) -> Option<Format> {
    if raw.starts_with(MAGIC) { y4m(raw).map(|(format, _)| format) } else { avi(raw).map(|(format, _)| format) }
}

/// The first line of Y4M: what frames are like, and its length.
fn y4m(raw: &[u8]) -> Option<(Format, usize)> {
    let line = raw.get(..LINE_MAX.min(raw.len()))?.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line.strip_prefix(MAGIC)?).ok()?;
    let (mut width, mut rows, mut colours) = (0, 0, "420");
    for word in text.split(' ') {
        match word.split_at_checked(1) {
            Some(("W", number)) => width = number.parse().ok()?,
            Some(("H", number)) => rows = number.parse().ok()?,
            Some(("C", name)) => colours = name,
            _ => {}
        }
    }
    let (name, bits) = match colours.rsplit_once(['p', 'o']).map(|(name, bits)| (name, bits.parse::<u32>())) {
        // `mono12` and `420p10`; `420jpeg` and `420paldv` have no number there.
        Some((name, Ok(bits))) => (name, bits),
        _ => (colours, 8),
    };
    let kind = match name {
        "mon" | "mono" => Kind::Grey,
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Kind::Yuv420,
        "422" => Kind::Yuv422,
        "444" => Kind::Yuv444,
        "411" => Kind::Yuv411,
        "444alpha" => Kind::Yuv444Alpha,
        _ => return None,
    };
    let bytes = match bits {
        8 => 1,
        9..=16 => 2,
        _ => return None,
    };
    Some((Format { kind, bytes, width, rows }.possible()?, line.len() + 1))
}

fn number(raw: &[u8], at: usize, len: usize) -> Option<usize> {
    let bytes = raw.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// The head of an AVI whose frames are not compressed: what they are like, and where the first piece of its data is.
fn avi(raw: &[u8]) -> Option<(Format, usize)> {
    if !raw.starts_with(b"RIFF") || raw.get(8..12) != Some(b"AVI ") {
        return None;
    }
    let (mut at, mut video, mut format) = (12, false, None);
    while at < HEAD_MAX {
        let (name, len) = (raw.get(at..at + 4)?, number(raw, at + 4, 4)?);
        let inside = raw.get(at + 8..at + 12);
        match name {
            b"LIST" if inside == Some(b"movi") => return Some((format?, at + 12)),
            // What is in these is looked through.
            b"LIST" if matches!(inside, Some(b"hdrl" | b"strl")) => {
                at += 12;
                continue;
            }
            b"strh" => video = inside == Some(b"vids"),
            b"strf" if video && format.is_none() => format = Some(frames_of(raw, at + 8)?),
            _ => {}
        }
        at = at.checked_add(8)?.checked_add(len)?.checked_add(len & 1)?;
    }
    None
}

/// What frames are like by their head in an AVI.
fn frames_of(raw: &[u8], at: usize) -> Option<Format> {
    let (width, rows) = (number(raw, at + 4, 4)?, number(raw, at + 8, 4)?);
    // Rows from the top down have a height below zero.
    let rows = (rows as u32 as i32).unsigned_abs() as usize;
    let kind = match (raw.get(at + 16..at + 20)?, number(raw, at + 14, 2)?) {
        (b"\0\0\0\0" | b"DIB ", 24) => Kind::Bgr,
        (b"\0\0\0\0" | b"DIB ", 32) => Kind::Bgra,
        (b"Y800" | b"GREY" | b"Y8  ", _) => Kind::Grey,
        (b"I420" | b"IYUV" | b"YV12", _) => Kind::Yuv420,
        (b"YV16" | b"Y42B", _) => Kind::Yuv422,
        (b"YV24" | b"444P", _) => Kind::Yuv444,
        (b"YUY2" | b"YUYV" | b"YUNV", _) => Kind::Yuyv,
        (b"UYVY" | b"2vuy" | b"HDYC", _) => Kind::Uyvy,
        _ => return None,
    };
    Format { kind, bytes: 1, width, rows }.possible()
}

/// The line before a frame of Y4M.
fn line(raw: &[u8], at: usize) -> Option<&[u8]> {
    let rest = raw.get(at..)?;
    let rest = rest.get(..LINE_MAX).unwrap_or(rest);
    let len = rest.iter().position(|byte| *byte == b'\n')? + 1;
    rest.get(..len).filter(|line| line.starts_with(LINE) && matches!(line.get(LINE.len()), Some(b' ' | b'\n')))
}

/// Walks along the frames of Y4M from a line before one on.
fn walk_lines(raw: &[u8], from: usize, format: Option<Format>) -> Option<Walk> {
    let frame_bytes = match format {
        Some(format) => format.frame_bytes(),
        // The same line comes before the next one.
        None => {
            let line = line(raw, from)?;
            let start = from + line.len();
            let far = raw.get(start..)?.windows(line.len()).position(|bytes| bytes == line);
            far.unwrap_or(raw.len() - start)
        }
    };
    let (mut at, mut starts) = (from, Vec::new());
    while let Some(line) = line(raw, at).filter(|line| raw.len() - at - line.len() >= frame_bytes) {
        starts.push(at + line.len());
        at += line.len() + frame_bytes;
    }
    (frame_bytes > 0 && !starts.is_empty()).then_some(Walk { format, frame_bytes, starts, end: at, pieces: false })
}

/// Walks along the pieces of an AVI.
fn walk_pieces(raw: &[u8], from: usize, format: Option<Format>) -> Option<Walk> {
    let mut frame_bytes = format.map(|format| format.frame_bytes());
    let (mut at, mut starts, mut end) = (from, Vec::new(), 0);
    while let Some((name, len)) = raw.get(at..at + 4).zip(number(raw, at + 4, 4)) {
        if name == b"LIST" {
            at += 12;
            continue;
        }
        let known = match name {
            [a, b, c, d] => {
                a.is_ascii_digit() && b.is_ascii_digit() && c.is_ascii_lowercase() && d.is_ascii_lowercase()
            }
            _ => false,
        };
        let behind = (at + 8).checked_add(len)?;
        if !known && name != b"JUNK" || behind > raw.len() {
            break;
        }
        if matches!(name.get(2..), Some(b"db" | b"dc")) && len > 0 && *frame_bytes.get_or_insert(len) == len {
            starts.push(at + 8);
            end = (behind + (len & 1)).min(raw.len());
        }
        at = behind + (len & 1);
    }
    let frame_bytes = frame_bytes?;
    (!starts.is_empty()).then_some(Walk { format, frame_bytes, starts, end, pieces: true })
}

fn walk(raw: &[u8]) -> Option<Walk> {
    if let Some((format, from)) = y4m(raw) {
        return walk_lines(raw, from, Some(format));
    }
    if let Some((format, from)) = avi(raw) {
        return walk_pieces(raw, from, Some(format));
    }
    if raw.starts_with(LINE) { walk_lines(raw, 0, None) } else { walk_pieces(raw, 0, None) }
}

/// Behind the last whole frame of what begins with a head, or with what stands before a frame.
pub(super) fn frames_end(raw: &[u8]) -> Option<usize> {
    walk(raw).map(|walk| walk.end)
}

/// The frames of a segment.
pub(super) fn found(raw: &[u8]) -> Option<Found> {
    let Walk { format, frame_bytes, starts, pieces, .. } = walk(raw)?;
    let first = *starts.first()?;
    let frame = raw.get(first..first + frame_bytes)?;
    let format = match format {
        Some(format) => format,
        None => likely(frame, pieces)?,
    };
    Some(Found { format, starts })
}

/// What a frame is like: of all that have so many bytes, that by which values differ least from those beside and above them.
fn likely(frame: &[u8], pieces: bool) -> Option<Format> {
    let kinds = Kind::ALL.into_iter().filter(|kind| pieces || (*kind as u8) < Kind::Bgr as u8);
    let of_kind = |kind: Kind| {
        let sizes: &[usize] = if (kind as u8) < Kind::Bgr as u8 { &[1, 2] } else { &[1] };
        sizes.iter().flat_map(move |bytes| {
            (SIDE_MIN..=SIDE_MAX).filter_map(move |width| {
                // About so many rows; those of planes that are shrunk are rounded up.
                let one = Format { kind, bytes: *bytes, width, rows: 16 }.frame_bytes();
                let about = frame.len() * 16 / one;
                let rows = (about.saturating_sub(1)..=about + 1)
                    .find(|rows| Format { kind, bytes: *bytes, width, rows: *rows }.frame_bytes() == frame.len())?;
                let alike = width <= rows * SIDES_MAX && rows <= width * SIDES_MAX;
                Format { kind, bytes: *bytes, width, rows }.checked().filter(|_| alike)
            })
        })
    };
    let mut spread = [1, 2].map(|bytes| spread(frame, bytes));
    spread.iter_mut().for_each(|spread| *spread = (*spread).max(1));
    let part = |format: Format| {
        let spread = if format.bytes == 1 { spread[0] } else { spread[1] };
        (differs(frame, &format) * 1000 / spread, format)
    };
    let best = kinds.flat_map(of_kind).map(part).min_by_key(|(part, _)| *part).map(|(_, format)| format)?;
    // One plane above the other is as one that is as high as all of them, but for where the next begins.
    let planes = match best.kind {
        Kind::Grey => 1,
        Kind::Yuv444 => 3,
        Kind::Yuv444Alpha => 4,
        Kind::Yuv420 | Kind::Yuv422 | Kind::Yuv411 | Kind::Bgr | Kind::Bgra | Kind::Yuyv | Kind::Uyvy => {
            return Some(best);
        }
    };
    let all = best.rows * planes;
    let parted = [(Kind::Yuv444Alpha, 4), (Kind::Yuv444, 3)].into_iter().filter_map(|(kind, planes)| {
        let format = all.is_multiple_of(planes).then_some(Format { kind, rows: all / planes, ..best })?.checked()?;
        (1..planes).all(|plane| is_seam(frame, &format, plane * format.rows)).then_some(format)
    });
    parted.chain(Format { kind: Kind::Grey, rows: all, ..best }.checked()).next()
}

/// True where a row differs from the one above it by more than the rows around do from theirs together.
fn is_seam(frame: &[u8], format: &Format, row: usize) -> bool {
    let Format { bytes, width, .. } = *format;
    let at = |x: usize, y: usize| value(frame, (y * width + x) * bytes, bytes);
    let step = |y: usize| (0..width).map(|x| at(x, y).abs_diff(at(x, y - 1))).sum::<u64>();
    step(row) > step(row - 1) + step(row + 1)
}

fn value(frame: &[u8], at: usize, bytes: usize) -> u64 {
    let byte = |at: usize| frame.get(at).map_or(0, |byte| u64::from(*byte));
    if bytes == 1 { byte(at) } else { byte(at) | byte(at + 1) << 8 }
}

/// How far values are from each other that have nothing to do with each other, a thousand times on average.
fn spread(frame: &[u8], bytes: usize) -> u64 {
    let count = (frame.len() / bytes / 2).max(1);
    let step = (count / COMPARED).max(1) | 1;
    let pairs = (0..count).step_by(step).map(|n| (n * bytes, (n + count) * bytes));
    let (sum, n) =
        pairs.fold((0, 0), |(sum, n), (a, b)| (sum + value(frame, a, bytes).abs_diff(value(frame, b, bytes)), n + 1));
    sum * 1000 / n
}

/// How far values are from those beside and above them, likewise.
fn differs(frame: &[u8], format: &Format) -> u64 {
    let bytes = format.bytes;
    let (mut sum, mut n) = (0, 0);
    for (plane, Place { first, step, stride }) in format.planes() {
        let count = plane.width * (plane.rows - 1);
        // As many of each plane as it has of all, so that none hides another.
        let every = (count * plane.wide * plane.high / COMPARED).max(1) | 1;
        for at in (0..count).step_by(every) {
            let (x, y) = (at % plane.width, at / plane.width + 1);
            let here = first + y * stride + x * step;
            let beside = if x > 0 { here - step } else { here + step };
            let came = value(frame, here, bytes);
            sum += came.abs_diff(value(frame, beside, bytes)) + came.abs_diff(value(frame, here - stride, bytes));
            n += 1;
        }
    }
    sum * 1000 / n.max(1)
}
