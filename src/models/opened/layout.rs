//! The payload of an opened segment.
//!
//! ```text
//! u32      CRC-32C of the rest: what closes containers is not asked about damaged bytes
//! u8       containers::REVISION
//! part     the head: varint bytes of the recipe; the recipe; then for each stream u8 kind (KIND_*; of pixels varint bytes of
//!          a row with its filter, u8 bytes of a pixel; of samples u8 channels, u8 bytes of one), varint number of its group, varint bytes
//! parts    to the end: the groups in the order of their numbers, each all the bytes of its streams, in parts of 1 MiB at most
//!
//! part     u8 method, u8 revision of it, varint plain bytes, varint bytes, payload of that method
//! ```

use super::{TEXT_BYTES_MAX, containers};
use crate::base::{MethodId, ModelId, SEGMENT_BYTES_MAX, crc32c, put_varint as put, take_varint};
use crate::containers::Kind;
use crate::models::{Basis, Error, model};

const CRC_BYTES: usize = 4;
const KIND_FRAME: u8 = 0;
const KIND_PACKED: u8 = 1;
const KIND_CORRECTIONS: u8 = 2;
const KIND_TEXT: u8 = 3;
const KIND_PIXELS: u8 = 4;
const KIND_LEPTON: u8 = 5;
const KIND_SAMPLES: u8 = 60;
/// Streams of a segment.
const STREAMS_MAX: usize = 1 << 17;

/// Where a stream lies: behind those before it in the same group.
pub struct Group {
    pub number: usize,
    pub len: usize,
}

/// What is told of streams.
pub struct Head {
    pub recipe: Vec<u8>,
    pub streams: Vec<(Kind, Group)>,
}

/// Bytes as a method codes them.
pub struct Part {
    pub method: MethodId,
    pub payload: Vec<u8>,
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(front)
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    take(bytes, 1)?.first().copied()
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(take_varint(bytes, 5)?).ok()
}

impl Head {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.recipe.len() + 6 * self.streams.len());
        put(&mut out, self.recipe.len() as u64);
        out.extend_from_slice(&self.recipe);
        for (kind, group) in &self.streams {
            out.push(match kind {
                Kind::Frame => KIND_FRAME,
                Kind::Packed => KIND_PACKED,
                Kind::Corrections => KIND_CORRECTIONS,
                Kind::Text => KIND_TEXT,
                Kind::Pixels { .. } => KIND_PIXELS,
                Kind::Lepton => KIND_LEPTON,
                Kind::Samples { .. } => KIND_SAMPLES,
            });
            if let Kind::Pixels { row, pixel } = kind {
                put(&mut out, u64::from(*row));
                out.push(*pixel);
            }
            if let Kind::Samples { channels, width } = kind {
                out.extend([*channels, *width]);
            }
            put(&mut out, group.number as u64);
            put(&mut out, group.len as u64);
        }
        out
    }

    fn read(mut bytes: &[u8]) -> Option<Head> {
        let len = number(&mut bytes)?;
        let recipe = take(&mut bytes, len)?.to_vec();
        let mut streams = Vec::new();
        while let Some(kind) = byte(&mut bytes) {
            let kind = match kind {
                KIND_FRAME => Kind::Frame,
                KIND_PACKED => Kind::Packed,
                KIND_CORRECTIONS => Kind::Corrections,
                KIND_TEXT => Kind::Text,
                KIND_PIXELS => Kind::Pixels { row: u32::try_from(number(&mut bytes)?).ok()?, pixel: byte(&mut bytes)? },
                KIND_LEPTON => Kind::Lepton,
                KIND_SAMPLES => Kind::Samples { channels: byte(&mut bytes)?, width: byte(&mut bytes)? },
                _ => return None,
            };
            streams.push((kind, Group { number: number(&mut bytes)?, len: number(&mut bytes)? }));
            // They are numbered as they are met.
            let groups = streams.iter().map(|(_, group)| group.number + 1).rev().take(1).max()?;
            if groups > streams.len() || streams.len() > STREAMS_MAX {
                return None;
            }
        }
        Some(Head { recipe, streams })
    }
}

/// Writes a payload.
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub fn new(revision: u8, head: &Head, code: impl FnOnce(&[u8]) -> Part) -> Writer {
        let mut writer = Writer { out: vec![0; CRC_BYTES] };
        writer.out.push(revision);
        let head = head.bytes();
        writer.part(head.len(), &code(&head));
        writer
    }

    pub fn part(&mut self, plain_len: usize, part: &Part) {
        self.out.push(part.method as u16 as u8);
        self.out.push(model(part.method).revision() as u8);
        put(&mut self.out, plain_len as u64);
        put(&mut self.out, part.payload.len() as u64);
        self.out.extend_from_slice(&part.payload);
    }

    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn finish(mut self) -> Vec<u8> {
        if let Some((crc, rest)) = self.out.split_first_chunk_mut::<CRC_BYTES>() {
            *crc = crc32c(rest).to_le_bytes();
        }
        self.out
    }
}

/// Reads a payload.
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Plain bytes that may still come.
    room: usize,
}

/// One part as it lies.
struct Lies<'a> {
    method: MethodId,
    revision: u16,
    plain_len: usize,
    payload: &'a [u8],
}

fn part<'a>(bytes: &mut &'a [u8]) -> Option<Lies<'a>> {
    let method = MethodId::from_u16(u16::from(byte(bytes)?))?;
    let revision = u16::from(byte(bytes)?);
    let plain_len = number(bytes)?;
    let len = number(bytes)?;
    Some(Lies { method, revision, plain_len, payload: take(bytes, len)? })
}

/// The parts of a payload, as far as they are there: their methods, plain bytes and payloads.
pub fn parts(payload: &[u8]) -> impl Iterator<Item = (MethodId, usize, &[u8])> {
    let mut rest = payload.get(CRC_BYTES + 1..).unwrap_or_default();
    std::iter::from_fn(move || part(&mut rest).map(|part| (part.method, part.plain_len, part.payload)))
        .filter(|(method, plain_len, _)| may_code(*method) && *plain_len <= SEGMENT_BYTES_MAX as usize)
}

/// Methods that parts are coded by: none that needs what only a volume has, and none of parts of its own.
fn may_code(method: MethodId) -> bool {
    match method {
        MethodId::Raw
        | MethodId::Zstd
        | MethodId::Primed
        | MethodId::Swift
        | MethodId::Strong
        | MethodId::Genome
        | MethodId::Sound
        | MethodId::Picture => true,
        MethodId::Cm | MethodId::Language | MethodId::Opened | MethodId::Video => false,
    }
}

impl<'a> Reader<'a> {
    /// Checks a payload and reads its head.
    pub fn new(payload: &'a [u8], raw_len: usize) -> Result<(Head, Reader<'a>), Error> {
        const CORRUPT: Error = Error::Corrupt("the head of an opened segment is damaged");
        let (crc, rest) = payload.split_first_chunk::<CRC_BYTES>().ok_or(CORRUPT)?;
        if u32::from_le_bytes(*crc) != crc32c(rest) {
            return Err(Error::Corrupt("an opened segment fails its checksum"));
        }
        let (revision, rest) = rest.split_first().ok_or(CORRUPT)?;
        // What the first one wrote is a part of what the second does.
        if !(1..=containers::REVISION).contains(revision) {
            return Err(Error::UnknownRevision((*revision).into()));
        }
        // Of the text, what is kept as it is, and what closing needs beside.
        let mut reader = Reader { rest, room: 2 * TEXT_BYTES_MAX + 3 * raw_len };
        let head = reader.part()?;
        Ok((Head::read(&head).ok_or(CORRUPT)?, reader))
    }

    fn part(&mut self) -> Result<Vec<u8>, Error> {
        const CORRUPT: Error = Error::Corrupt("a part of an opened segment is damaged");
        let Lies { method, revision, plain_len, payload } = part(&mut self.rest).ok_or(CORRUPT)?;
        self.room = self.room.checked_sub(plain_len).ok_or(CORRUPT)?;
        if !may_code(method) || plain_len == 0 || plain_len > SEGMENT_BYTES_MAX as usize {
            return Err(CORRUPT);
        }
        model(method).decode(payload, plain_len, revision, ModelId::NONE, Basis::default())
    }

    /// The bytes of all groups, and where the next stream of each begins.
    pub fn groups(&mut self, head: &Head) -> Result<Vec<(Vec<u8>, usize)>, Error> {
        let count = head.streams.iter().map(|(_, group)| group.number + 1).max().unwrap_or(0);
        let mut wanted = vec![0usize; count];
        for (_, group) in &head.streams {
            if let Some(len) = wanted.get_mut(group.number) {
                *len = len.saturating_add(group.len);
            }
        }
        let mut out = Vec::with_capacity(count);
        for len in wanted {
            let mut bytes = Vec::new();
            while bytes.len() < len {
                bytes.append(&mut self.part()?);
            }
            if bytes.len() != len {
                return Err(Error::Corrupt("a group of an opened segment has another length"));
            }
            out.push((bytes, 0));
        }
        Ok(out)
    }
}
