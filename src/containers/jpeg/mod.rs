//! JPEG, baseline and progressive, by lepton: coefficients predicted from their neighbours, bit for bit.
//!
//! The whole file is one stream, or each of the slices of a long one (`slice`). It takes two bytes for each coefficient in memory, so pictures are bounded by their pixels.
//! lepton takes some progressive files that it does not give back, so each is decoded and compared.

mod slice;

use std::io::Cursor;

use lepton_jpeg::{EnabledFeatures, ExitCode, SingleThreadPool, decode_lepton, encode_lepton};

use super::deflate::inflated;
use super::guard::guarded;
use super::{Declined, Error, OUT_OF_MEMORY};
pub use slice::Before;
pub(super) use slice::{Slice, Walk, close as close_slice, open as open_slice, walk};

/// Pixels of a picture, by the size of its frame: so many take 36 to 72 MB, progressive ones twice that.
const PIXELS_MAX: u64 = 12 << 20;
/// Pixels of all pictures that are opened together, which take a tenth of a microsecond each.
pub(super) const PIXELS_TOGETHER_MAX: u64 = 64 << 20;
/// Scans of a picture, for each of which all its coefficients are walked through. Encoders make ten, and some a picture in the
/// head of the picture has its own.
const SCANS_MAX: usize = 64;
/// Where lepton's own head says how long its part with the head of the picture is, and what stands before that part.
const LEPTON_HEAD_BYTES: usize = 28;
/// Components of a picture: lepton refuses more, which printers use.
const COMPONENTS_MAX: u8 = 3;

/// The size of a picture's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub width: u16,
    pub height: u16,
}

impl Frame {
    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// False where a picture of that size takes too much memory.
    pub fn fits(self) -> bool {
        (1..=PIXELS_MAX).contains(&self.pixels())
    }
}

/// No more than a file of so many bytes, with a frame of that size, is read and written.
fn features(frame: Frame, bytes: usize) -> EnabledFeatures {
    EnabledFeatures {
        max_jpeg_width: frame.width.into(),
        max_jpeg_height: frame.height.into(),
        max_jpeg_file_size: u32::try_from(bytes).unwrap_or(u32::MAX),
        // Others cost 0.2 to 2.6 % and decode no faster on one thread.
        max_partitions: 1,
        max_processor_threads: 1,
        ..EnabledFeatures::compat_lepton_vector_write()
    }
}

/// Bytes of the JPEG file at the start of some bytes, to the marker of its end, and its frame. `None` where there is none, or it
/// is of a kind that lepton refuses, or too large. What was walked through in vain is taken from `work`.
pub(super) fn extent(bytes: &[u8], work: &mut usize) -> Option<(usize, Frame)> {
    let mut at = 0;
    let found = walked(bytes, &mut at);
    if found.is_none() {
        *work = work.saturating_sub(at);
    }
    found
}

/// True for the head of a picture that has more components than lepton codes: it has no option for them.
pub(super) fn is_of_four(bytes: &[u8]) -> bool {
    let mut at = 2;
    // Heads are short: as many markers as tables and remarks may have.
    for _ in 0..64 {
        let Some([0xff, marker, a, b, ..]) = bytes.get(at..) else { return false };
        if (0xc0..=0xc2).contains(marker) {
            return bytes.get(at + 9).is_some_and(|components| *components > COMPONENTS_MAX);
        }
        at += 2 + usize::from(u16::from_be_bytes([*a, *b]));
    }
    false
}

/// Walks from marker to marker; `walked` is how far.
fn walked(bytes: &[u8], walked: &mut usize) -> Option<(usize, Frame)> {
    if !bytes.starts_with(b"\xff\xd8\xff") {
        return None;
    }
    let mut at = 2;
    let (mut framed, mut scans) = (None, 0);
    loop {
        *walked = at;
        if *bytes.get(at)? != 0xff {
            return None;
        }
        let marker = *bytes.get(at + 1)?;
        match marker {
            // Fill.
            0xff => at += 1,
            0xd9 => return framed.filter(|_| scans > 0).map(|frame| (at + 2, frame)),
            0x01 | 0xd0..=0xd7 => at += 2,
            0xc0..=0xfe => {
                let len = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
                let body = bytes.get(at + 4..(at + 2).checked_add(len)?)?;
                match marker {
                    0xc0..=0xc2 => {
                        let [8, h0, h1, w0, w1, components, ..] = *body else { return None };
                        let frame = Frame { width: u16::from_be_bytes([w0, w1]), height: u16::from_be_bytes([h0, h1]) };
                        if framed.is_some() || !frame.fits() || components > COMPONENTS_MAX {
                            return None;
                        }
                        framed = Some(frame);
                    }
                    // Lossless, hierarchical, arithmetic.
                    0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return None,
                    _ => {}
                }
                at += 2 + len;
                if marker == 0xda {
                    scans += 1;
                    if scans > SCANS_MAX {
                        return None;
                    }
                    // To the next marker that is not a part of the scan.
                    loop {
                        *walked = bytes.len();
                        let rest = bytes.get(at..)?;
                        at += rest.iter().position(|b| *b == 0xff)?;
                        match *bytes.get(at + 1)? {
                            0 | 0xd0..=0xd7 => at += 2,
                            _ => break,
                        }
                    }
                }
            }
            _ => return None,
        }
    }
}

/// What lepton makes of a file with a frame of that size.
pub(super) fn open(jpeg: &[u8], frame: Frame) -> Result<Vec<u8>, Declined> {
    let coded = guarded(|| {
        let mut coded = Vec::with_capacity(jpeg.len());
        let (mut from, mut to) = (Cursor::new(jpeg), Cursor::new(&mut coded));
        encode_lepton(&mut from, &mut to, &features(frame, jpeg.len()), &SingleThreadPool::default()).map(|_| coded)
    });
    let coded = coded.ok_or(Declined::Failed)?.map_err(|e| match e.exit_code() {
        ExitCode::OutOfMemory => Declined::OutOfMemory,
        ExitCode::Unsupported4Colors => Declined::FourColours,
        _ => Declined::Foreign,
    })?;
    if coded.len() >= jpeg.len() {
        return Err(Declined::TooLarge);
    }
    match close(&coded, frame, jpeg.len()) {
        Ok(again) if again == jpeg => Ok(coded),
        Ok(_) | Err(_) => Err(Declined::Differs),
    }
}

/// A writer that takes no more than it was given room for.
struct Bounded {
    bytes: Vec<u8>,
    room: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        if buf.len() > self.room - self.bytes.len().min(self.room) {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// True where the head of a picture that lepton coded has no more scans than are walked through, in time that is bounded.
fn has_few_scans(coded: &[u8], room: usize) -> bool {
    let len = coded.get(LEPTON_HEAD_BYTES - 4..LEPTON_HEAD_BYTES).and_then(|len| len.first_chunk::<4>());
    let len = len.map_or(0, |len| u32::from_le_bytes(*len) as usize);
    let Some(packed) = LEPTON_HEAD_BYTES.checked_add(len).and_then(|end| coded.get(LEPTON_HEAD_BYTES..end)) else {
        return false;
    };
    // It holds tables of lepton's own beside what the file has.
    let head = inflated(packed, room.saturating_add(1 << 16));
    head.is_some_and(|head| {
        let scans = head.windows(2).filter(|marker| *marker == b"\xff\xda").count();
        scans <= SCANS_MAX && is_whole(&head).is_some()
    })
}

/// `None` where a part of lepton's head claims to be longer than it is: lepton makes room before it looks.
fn is_whole(mut head: &[u8]) -> Option<()> {
    while !head.is_empty() {
        let (mark, rest) = head.split_first_chunk::<3>()?;
        let counted = rest.first_chunk::<4>().map(|len| u32::from_le_bytes(*len) as usize);
        let len = match mark {
            b"HDR" | b"FRS" | b"GRB" => counted?.checked_add(4)?,
            b"CRS" => counted?.checked_mul(4)?.checked_add(4)?,
            b"P0D" => 1,
            b"EEE" => 28,
            [b'H', b'H', threads] => 16 * usize::from(*threads),
            _ => return None,
        };
        head = rest.get(len..)?;
    }
    Some(())
}

/// The file of `room` bytes at most, with a frame of that size at most, that lepton coded.
pub(super) fn close(coded: &[u8], frame: Frame, room: usize) -> Result<Vec<u8>, Error> {
    if !frame.fits() || !has_few_scans(coded, room) {
        return Err(Error("a picture is larger than any that is opened"));
    }
    let mut out = Bounded { bytes: Vec::new(), room };
    let features = features(frame, room);
    let decoded = guarded(|| decode_lepton(&mut Cursor::new(coded), &mut out, &features, &SingleThreadPool::default()));
    match decoded {
        Some(Ok(_)) => Ok(out.bytes),
        Some(Err(e)) if e.exit_code() == ExitCode::OutOfMemory => Err(OUT_OF_MEMORY),
        Some(Err(_)) => Err(Error("a picture does not decode")),
        None => Err(Error("the decoder of a picture failed")),
    }
}
