//! Where the pixels of a segment are and what they are like: told by the head of a file, or found from bytes alone, wherever a
//! segment was cut.

use crate::models::primed::{PixelShape, pixel_shapes};

/// Most bytes of a value, values of a pixel, and pixels of a row.
pub(super) const BYTES_MAX: usize = 2;
pub(super) const PLANES_MAX: usize = 8;
pub(super) const WIDTH_MIN: usize = 4;
pub(super) const WIDTH_MAX: usize = 32 << 10;
/// Lines of a head, and cards of FITS, that are looked through.
const LINES_MAX: usize = 400;

/// What pixels are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    /// Bytes of a value, 1 or 2.
    pub bytes: usize,
    /// Values of a pixel.
    pub planes: usize,
    /// The higher byte is first.
    pub big: bool,
    /// Values are two's complement.
    pub signed: bool,
    /// Bytes from one row to the next: those of its pixels, and less than a pixel more.
    pub row: usize,
}

impl Format {
    /// Bytes of a pixel.
    pub fn pixel(&self) -> usize {
        self.bytes * self.planes
    }

    /// Pixels of a row.
    pub fn width(&self) -> usize {
        self.row / self.pixel()
    }

    /// Checks what a payload or a head says.
    pub fn checked(self) -> Option<Format> {
        let sizes = (1..=BYTES_MAX).contains(&self.bytes) && (1..=PLANES_MAX).contains(&self.planes);
        (sizes && (WIDTH_MIN..=WIDTH_MAX).contains(&self.width())).then_some(self)
    }

    /// The value whose bytes these are, from 0 on.
    #[inline(always)]
    pub fn value(&self, bytes: &[u8]) -> i32 {
        let value = match *bytes {
            [a, b] if self.big => u16::from_be_bytes([a, b]),
            [a, b] => u16::from_le_bytes([a, b]),
            [a] => a.into(),
            _ => 0,
        };
        i32::from(value ^ self.zero())
    }

    /// Zero, among values that are counted from the least on.
    fn zero(&self) -> u16 {
        if self.signed { 1 << (8 * self.bytes - 1) } else { 0 }
    }

    /// Writes a value.
    pub fn put(&self, value: i32, out: &mut Vec<u8>) {
        let [low, high] = (value as u16 ^ self.zero()).to_le_bytes();
        match (self.bytes, self.big) {
            (1, _) => out.push(low),
            (_, false) => out.extend([low, high]),
            (_, true) => out.extend([high, low]),
        }
    }

    /// Greatest value.
    pub fn most(&self) -> i32 {
        (1 << (8 * self.bytes)) - 1
    }
}

/// Pixels, and where in a segment they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub format: Format,
    /// Bytes of the segment before the first pixel, and before what is behind the last.
    pub from: usize,
    pub to: usize,
    /// Pixels of its row before the first one.
    pub skip: usize,
}

impl Found {
    /// Whole rows from a place on, to another at most, with whole pixels at the end.
    fn new(format: Format, from: usize, to: usize) -> Option<Found> {
        let format = format.checked()?;
        let len = to.checked_sub(from)?;
        let beyond = len % format.row;
        let beyond = beyond.min(format.width() * format.pixel()) % format.pixel();
        // Bytes beside the last row, if it is whole but for them, stay with it.
        (len - beyond >= format.pixel()).then_some(Found { format, from, to: to - beyond, skip: 0 })
    }

    /// Pixels, and bytes beside rows, in so many bytes from a pixel on; `None` where they do not end with a pixel or a row.
    pub fn count(&self) -> Option<usize> {
        let Format { row, .. } = self.format;
        let (pixel, width) = (self.format.pixel(), self.format.width());
        let in_row = |bytes: usize| {
            let pixels = bytes.min(width * pixel);
            pixels.is_multiple_of(pixel).then_some(pixels / pixel)
        };
        let from = self.skip.checked_mul(pixel).filter(|from| *from < width * pixel)?;
        let bytes = from + self.to.checked_sub(self.from)?;
        let count = bytes / row * width + in_row(bytes % row)?;
        count.checked_sub(self.skip).filter(|count| *count > 0)
    }
}

fn number(raw: &[u8], at: usize, len: usize, big: bool) -> Option<usize> {
    let bytes = raw.get(at..at.checked_add(len)?)?;
    let fold = |value: usize, byte: &u8| value << 8 | usize::from(*byte);
    Some(if big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
}

fn of(bytes: usize, planes: usize, width: usize) -> Option<Format> {
    let row = bytes.checked_mul(planes)?.checked_mul(width)?;
    Format { bytes, planes, big: bytes == 2, signed: false, row }.checked()
}

/// Reads the head of a file of a picture that nobody has compressed.
pub(super) fn head(raw: &[u8]) -> Option<Found> {
    match raw {
        [b'P', b'5' | b'6', ..] => pnm(raw),
        [b'P', b'7', b'\n', ..] => pam(raw),
        [b'B', b'M', ..] => bmp(raw),
        [b'I', b'I', 42, 0, ..] => tiff(raw, false),
        [b'M', b'M', 0, 42, ..] => tiff(raw, true),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => npy(raw),
        [b'S', b'I', b'M', b'P', b'L', b'E', b' ', b' ', b'=', ..] => fits(raw),
        _ if raw.get(344..348) == Some(b"n+1\0") => nifti(raw),
        _ if raw.get(128..132) == Some(b"DICM") => dicom(raw),
        _ => None,
    }
}

fn pnm(raw: &[u8]) -> Option<Found> {
    let mut at = 2;
    let mut fields = [0usize; 3];
    for field in &mut fields {
        while raw.get(at)?.is_ascii_whitespace() || raw.get(at) == Some(&b'#') {
            let comment = raw.get(at) == Some(&b'#');
            at += if comment { raw.get(at..)?.iter().position(|b| *b == b'\n')? } else { 1 };
        }
        let digits = raw.get(at..)?.iter().take(9).take_while(|b| b.is_ascii_digit()).count();
        *field = std::str::from_utf8(raw.get(at..at + digits)?).ok()?.parse().ok()?;
        at += digits;
    }
    let [width, _, most] = fields;
    let bytes = if most < 256 { 1 } else { 2 };
    raw.get(at)?.is_ascii_whitespace().then_some(())?;
    let planes = if raw.get(1) == Some(&b'6') { 3 } else { 1 };
    (1..65_536).contains(&most).then_some(())?;
    Found::new(of(bytes, planes, width)?, at + 1, raw.len())
}

fn pam(raw: &[u8]) -> Option<Found> {
    let (mut at, mut width, mut depth, mut most) = (3, 0usize, 0usize, 0usize);
    for _ in 0..LINES_MAX {
        let line = raw.get(at..)?.split(|b| *b == b'\n').next()?;
        at += line.len() + 1;
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let (name, value) = (words.next(), words.next().and_then(|word| word.parse().ok()));
        match name {
            Some("ENDHDR") => {
                (1..65_536).contains(&most).then_some(())?;
                return Found::new(of(if most < 256 { 1 } else { 2 }, depth, width)?, at, raw.len());
            }
            Some("WIDTH") => width = value?,
            Some("DEPTH") => depth = value?,
            Some("MAXVAL") => most = value?,
            _ => {}
        }
    }
    None
}

fn bmp(raw: &[u8]) -> Option<Found> {
    let field = |at, len| number(raw, at, len, false);
    let (from, width, bits) = (field(10, 4)?, field(18, 4)?, field(28, 2)?);
    let plain = field(14, 4)? >= 40 && field(26, 2)? == 1 && matches!(field(30, 4)?, 0 | 3);
    let format = plain.then(|| of(1, matches!(bits, 8 | 24 | 32).then_some(bits / 8)?, width)).flatten()?;
    // Rows are filled up to four bytes; of one byte a pixel those are pixels too.
    Found::new(Format { row: format.row.next_multiple_of(4), ..format }, from, raw.len())
}

fn tiff(raw: &[u8], big: bool) -> Option<Found> {
    let field = |at, len| number(raw, at, len, big);
    let at = field(4, 4)?;
    let (mut width, mut bits, mut planes, mut from, mut apart) = (0, 1, 1, None, false);
    for n in 0..field(at, 2)?.min(LINES_MAX) {
        let entry = at + 2 + 12 * n;
        let (tag, kind, count) = (field(entry, 2)?, field(entry + 2, 2)?, field(entry + 4, 4)?);
        let len = match kind {
            1 => 1,
            3 => 2,
            4 => 4,
            _ => continue,
        };
        // What does not fit lies elsewhere; the first number says enough.
        let place = if count.checked_mul(len)? <= 4 { entry + 8 } else { field(entry + 8, 4)? };
        let value = field(place, len);
        match tag {
            256 => width = value?,
            258 => bits = value?,
            259 if value? != 1 => return None,
            273 => from = value,
            277 => planes = value?,
            284 => apart = value? == 2,
            322 => return None,
            _ => {}
        }
    }
    let bytes = matches!(bits, 8 | 16).then_some(bits / 8)?;
    let format = of(bytes, if apart { 1 } else { planes }, width)?;
    Found::new(Format { big, ..format }, from?, raw.len())
}

fn npy(raw: &[u8]) -> Option<Found> {
    let (at, len) =
        if raw.get(6) == Some(&1) { (10usize, number(raw, 8, 2, false)?) } else { (12, number(raw, 8, 4, false)?) };
    let head = std::str::from_utf8(raw.get(at..at.checked_add(len)?)?).ok()?;
    let of_key = |key: &str| head.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let kind = of_key("'descr'")?.trim_start_matches('\'').get(..3)?;
    let (bytes, big, signed) = match kind {
        "|u1" => (1, false, false),
        "|i1" => (1, false, true),
        "<u2" => (2, false, false),
        ">u2" => (2, true, false),
        "<i2" => (2, false, true),
        ">i2" => (2, true, true),
        _ => return None,
    };
    of_key("'fortran_order'")?.starts_with("False").then_some(())?;
    let shape = of_key("'shape'")?.trim_start_matches('(').split(')').next()?;
    let sizes: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let (planes, width) = match sizes[..] {
        [.., width, planes] if planes <= 4 => (planes, width),
        [_, .., width] => (1, width),
        _ => return None,
    };
    Found::new(Format { big, signed, ..of(bytes, planes, width)? }, at + len, raw.len())
}

fn fits(raw: &[u8]) -> Option<Found> {
    let (mut bits, mut width) = (0usize, 0usize);
    for (n, card) in raw.chunks_exact(80).take(LINES_MAX).enumerate() {
        let value = || std::str::from_utf8(card.get(10..30)?).ok()?.trim().parse().ok();
        match card.get(..8)? {
            b"BITPIX  " => bits = value()?,
            b"NAXIS1  " => width = value()?,
            b"END     " => {
                let bytes = matches!(bits, 8 | 16).then_some(bits / 8)?;
                let format = Format { signed: bytes == 2, ..of(bytes, 1, width)? };
                return Found::new(format, ((n + 1) * 80).next_multiple_of(2880), raw.len());
            }
            _ => {}
        }
    }
    None
}

fn nifti(raw: &[u8]) -> Option<Found> {
    let big = match number(raw, 0, 4, false)? {
        348 => false,
        0x5c01_0000 => true,
        _ => return None,
    };
    let (bytes, planes, signed) = match number(raw, 70, 2, big)? {
        2 => (1, 1, false),
        4 => (2, 1, true),
        128 => (1, 3, false),
        256 => (1, 1, true),
        512 => (2, 1, false),
        _ => return None,
    };
    let offset = f32::from_bits(number(raw, 108, 4, big)? as u32);
    let from = if (348.0..1e6).contains(&offset) { offset as usize } else { return None };
    Found::new(Format { big, signed, ..of(bytes, planes, number(raw, 42, 2, big)?)? }, from, raw.len())
}

fn dicom(raw: &[u8]) -> Option<Found> {
    // Elements are looked for, with lengths of two bytes written out or not, as nothing else has to be understood.
    let place = |tag: [u8; 4]| raw.windows(4).take(64 << 10).position(|four| four == tag);
    let short = |element: u8| {
        let at = place([0x28, 0, element, 0])?;
        number(raw, at + 8, 2, false)
    };
    let (width, bits, planes) = (short(0x11)?, place([0x28, 0, 0, 1])?, short(2).unwrap_or(1));
    let bits = number(raw, bits + 8, 2, false)?;
    let pixels = place([0xe0, 0x7f, 0x10, 0])?;
    let explicit = raw.get(pixels + 4)?.is_ascii_uppercase();
    let bytes = matches!(bits, 8 | 16).then_some(bits / 8)?;
    let signed = place([0x28, 0, 3, 1]).and_then(|at| number(raw, at + 8, 2, false)) == Some(1);
    let from = pixels + if explicit { 12 } else { 8 };
    // Compressed pixels have no length.
    let len = number(raw, from - 4, 4, false).filter(|len| *len != 0xffff_ffff)?;
    Found::new(Format { big: false, signed, ..of(bytes, planes, width)? }, from, raw.len().min(from.checked_add(len)?))
}

/// By what part rows of another length are longer.
const OTHER_PART: usize = 23;
/// Rows that are looked at to find where they begin.
const SEAM_ROWS: usize = 256;

/// Places where values of two bytes are compared.
const ROW_PLACES: usize = 512;
/// Bytes that tell an edge, and longest row that is looked for by edges.
const EDGE_BYTES: usize = 8;
const ROW_MAX: usize = 64 << 10;
const ROW_MIN: usize = 32;
/// Places of edges that are remembered, a power of two, and edges that are looked at.
const EDGES: usize = 1 << 14;
const EDGES_MAX: usize = 1 << 16;
/// Of edges this part, 1/100, must lie below about the same ones, and so many in one column.
const EDGES_PART: usize = 4;
const VOTES_MIN: u32 = 4;
/// How far off slanted ones may be, and places at which rows of the lengths around are compared.
const SLANT: usize = 48;
const COMPARED: usize = 16 << 10;

/// The length of rows in pictures that are drawn, bytes: how far apart the same edges are.
fn row_by_edges(raw: &[u8]) -> Option<usize> {
    let mut last = vec![0u32; EDGES];
    let mut votes = vec![0u32; ROW_MAX];
    let mut edges = 0;
    for (at, bytes) in raw.windows(EDGE_BYTES).enumerate() {
        // Flat to the left, whatever pixels are, and something else from here on.
        let Some(bytes @ [a, b, c, d, e, f, ..]) = bytes.first_chunk::<EDGE_BYTES>() else { continue };
        if ![a, b, d].contains(&e) || [b, c, d, e].contains(&f) {
            continue;
        }
        let hash = (u64::from_le_bytes(*bytes).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as usize;
        if let Some(last) = last.get_mut(hash) {
            let far = at - *last as usize;
            *last = at as u32;
            if let Some(vote) = votes.get_mut(far).filter(|_| far >= ROW_MIN) {
                *vote += 1;
            }
        }
        edges += 1;
        if edges == EDGES_MAX {
            break;
        }
    }
    let (most, vote) = votes.iter().enumerate().max_by_key(|(row, vote)| (**vote, usize::MAX - row))?;
    // Slanted edges lie a few pixels off.
    let near = most.saturating_sub(SLANT).max(ROW_MIN)..=most + SLANT;
    let together: u32 = near.clone().filter_map(|row| votes.get(row)).sum();
    if together as usize * 100 < edges * EDGES_PART || *vote < VOTES_MIN {
        return None;
    }
    let step = (raw.len() / COMPARED).max(1) | 1;
    let differ = |row: &usize| {
        let pairs = raw.get(*row..).unwrap_or_default().iter().zip(raw).step_by(step);
        pairs.filter(|(a, b)| a != b).count() * 1_000_000 / (raw.len() - row).max(1)
    };
    let rows: Vec<(usize, usize)> = near.filter(|row| *row < raw.len()).map(|row| (differ(&row), row)).collect();
    let usual = rows.iter().map(|(differ, _)| differ).sum::<usize>() / rows.len().max(1);
    // Records and tables have the same edges, and little else.
    rows.into_iter().min().filter(|(least, _)| least * 10 <= usual * 7).map(|(_, row)| row)
}

/// Where pixels of so many bytes begin: where what differs from the pixel before differs first.
fn phase_of(raw: &[u8], pixel: usize) -> usize {
    let mut firsts = vec![0u32; pixel];
    let differs = |at: usize| raw.get(at) != raw.get(at - pixel);
    for at in (pixel + 1..raw.len()).take(EDGES_MAX) {
        if differs(at) && !differs(at - 1) {
            firsts[at % pixel] += 1;
        }
    }
    (0..pixel).max_by_key(|phase| (firsts[*phase], pixel - phase)).unwrap_or(0)
}

/// Pixels that bytes without a head may have, the most likely first.
pub(super) fn likely(raw: &[u8]) -> Vec<Found> {
    let mut shapes = pixel_shapes(raw);
    for shape in &mut shapes {
        shape.row = if shape.bytes == 2 { row_of_values(raw, shape).unwrap_or(0) } else { shape.row };
    }
    shapes.dedup_by_key(|shape| (shape.bytes, shape.planes, shape.big, shape.row, shape.phase));
    let in_rows = shapes.into_iter().filter(|shape| shape.row > 0);
    let mut found: Vec<Found> = in_rows.filter_map(|shape| placed(raw, shape)).collect();
    if found.is_empty()
        && let Some(row) = row_by_edges(raw)
    {
        let differ = |planes: &usize| {
            let pairs = raw.iter().zip(raw.iter().skip(*planes)).step_by((raw.len() / COMPARED) | 1);
            pairs.filter(|(a, b)| a != b).count()
        };
        let mut planes: Vec<usize> = [3, 4, 1, 2].into_iter().filter(|planes| row.is_multiple_of(*planes)).collect();
        planes.sort_by_key(differ);
        for planes in planes.into_iter().take(2) {
            let phase = phase_of(raw, planes);
            found.extend(placed(raw, PixelShape { bytes: 1, planes, big: false, signed: false, row, phase }));
        }
    }
    found
}

/// The length of rows of values of two bytes, bytes: of which there is the least between values above each other. Their lower bytes
/// are noise, so that whole values are compared.
fn row_of_values(raw: &[u8], shape: &PixelShape) -> Option<usize> {
    let format = Format { bytes: 2, planes: shape.planes, big: shape.big, signed: shape.signed, row: 0 };
    let (pixel, longest) = (format.pixel(), ROW_MAX.min(raw.len() / 4));
    let value = |at: usize| raw.get(at..at + 2).map_or(0, |bytes| format.value(bytes));
    let room = raw.len().checked_sub(longest + pixel + 2)?;
    let step = (room / ROW_PLACES).max(1) / pixel * pixel + pixel;
    let places = || (shape.phase + longest..longest + room).step_by(step);
    let differ = |row: usize| -> u64 {
        places().map(|at| u64::from(value(at).abs_diff(value(at - row)).saturating_add(1).ilog2())).sum()
    };
    let rows: Vec<(u64, usize)> = (4..=longest / pixel).map(|n| (differ(n * pixel), n * pixel)).collect();
    let usual = rows.iter().map(|(sum, _)| sum).sum::<u64>() / (rows.len() as u64).max(1);
    let far = rows.iter().filter(|(_, row)| *row >= 8 * pixel);
    let (least, best) = far.min()?;
    let sum = |wanted: usize| rows.iter().find(|(_, row)| *row == wanted).map_or(u64::MAX, |(sum, _)| *sum);
    let first = (1..=8).rev().map(|n| best / n).find(|row| sum(*row) <= least + least / 32)?;
    (least * 10 < usual * 9).then_some(first)
}

/// The same pixels in rows a little longer.
pub(super) fn in_other_rows(found: &Found) -> Option<Found> {
    let format = found.format;
    let by = (format.width() / OTHER_PART).max(5) * format.pixel();
    Found::new(Format { row: format.row + by, ..format }, found.from, found.to)
}

/// Where rows of a length begin: where neighbours have less in common than anywhere else.
fn placed(raw: &[u8], shape: PixelShape) -> Option<Found> {
    let PixelShape { bytes, planes, big, signed, row, phase } = shape;
    let format = Format { bytes, planes, big, signed, row }.checked()?;
    let pixel = format.pixel();
    if !row.is_multiple_of(pixel) {
        // Its phase is that of rows.
        return Found::new(format, phase, raw.len());
    }
    let value = |at: usize| raw.get(at..at + bytes).map_or(0, |bytes| format.value(bytes));
    let rows = (raw.len() / row).saturating_sub(1);
    let step = rows.div_ceil(SEAM_ROWS).max(1);
    let seam = |column: &usize| -> u64 {
        let first = phase + (column + 1) * pixel;
        let pairs = (0..rows).step_by(step).map(|n| first + n * row);
        // Beside the slopes on either side.
        let jump = |at: usize| {
            let [a, b] = [value(at - pixel), value(at)];
            u64::from(a.abs_diff(b).min(64 << (8 * (bytes - 1))))
        };
        pairs.map(jump).sum()
    };
    let width = format.width();
    let seam_at = (0..width).max_by_key(|column| (seam(column), usize::MAX - column))?;
    // The pixel behind the seam is the first of its row.
    let skip = (width - (seam_at + 1) % width) % width;
    let mut found = Found::new(format, phase, raw.len())?;
    found.skip = skip;
    let beyond = (raw.len() - phase) % pixel;
    found.to = raw.len() - beyond;
    Some(found)
}
