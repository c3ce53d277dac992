//! Header of one coded segment.

use super::wire::{Malformed, Reader, Writer};
use crate::base::{Class, Ino, PlainHash, SEGMENT_BYTES_MAX};

/// How the payload of a segment is coded, and what must come out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coding {
    /// Number of the method (`base::MethodId`); kept as a number so that a header of a newer build can still be shown.
    pub method: u16,
    /// Revision of the method's output; old revisions keep decoding.
    pub revision: u16,
    /// Numeric profile: 0 means integers only.
    pub profile: u8,
    /// Class of the data, informative.
    pub class: Class,
    /// Plain bytes, at most `SEGMENT_BYTES_MAX`.
    pub raw_len: u32,
    /// Fingerprint of the model's weights; zero for models that are part of the method.
    pub model: [u8; 16],
    /// BLAKE3-128 of the plain bytes.
    pub plain_hash: PlainHash,
    /// BLAKE3-128 of the plain bytes of the segment that this one was coded from, which was coded from no other. Extents
    /// say where it lies (`Extent::reference`); by this it is found when they are lost.
    pub reference: Option<PlainHash>,
}

/// Which bytes of which file a part of a segment was made from. A bundle of small files has one owner per file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub ino: Ino,
    /// Offset in the file, bytes.
    pub file_offset: u64,
    /// Offset in the plain bytes of the segment.
    pub segment_offset: u32,
    /// Bytes.
    pub len: u32,
}

/// Everything known of a segment without decoding it. Owners let a rebuild place segments whose metadata is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub coding: Coding,
    pub owners: Vec<Owner>,
}

/// What follows the plain length: a model, a reference.
const HAS_MODEL: u8 = 1;
const HAS_REFERENCE: u8 = 2;

/// Owners of one segment.
const OWNERS_MAX: u64 = 1 << 17;

impl SegmentHeader {
    /// Fields of a SEGMENT record: method, revision, profile, class, plain length, then which of the next two follow
    /// (`HAS_MODEL`, `HAS_REFERENCE`), model, hash of the reference, plain hash, owners. Owners lie one after the other in
    /// the plain bytes as a rule, so offsets are differences from where the last one ended.
    pub fn encode(&self) -> Vec<u8> {
        let c = &self.coding;
        let mut w = Writer::default();
        w.varint(u64::from(c.method));
        w.varint(u64::from(c.revision));
        w.u8(c.profile);
        w.u8(c.class as u8);
        w.varint(u64::from(c.raw_len));
        let model = if c.model == [0; 16] { 0 } else { HAS_MODEL };
        w.u8(model | if c.reference.is_some() { HAS_REFERENCE } else { 0 });
        if model != 0 {
            w.bytes(&c.model);
        }
        if let Some(reference) = &c.reference {
            w.bytes(reference);
        }
        w.bytes(&c.plain_hash);
        w.varint(self.owners.len() as u64);
        let (mut ino, mut file_end, mut segment_end) = (0, 0, 0);
        for o in &self.owners {
            w.delta(o.ino.0, ino);
            w.delta(o.file_offset, if o.ino.0 == ino { file_end } else { 0 });
            w.delta(u64::from(o.segment_offset), segment_end);
            w.varint(u64::from(o.len));
            ino = o.ino.0;
            file_end = o.file_offset.wrapping_add(u64::from(o.len));
            segment_end = u64::from(o.segment_offset) + u64::from(o.len);
        }
        w.0
    }

    /// Reads the fields of a SEGMENT record.
    pub fn decode(fields: &[u8]) -> Result<SegmentHeader, Malformed> {
        let mut r = Reader(fields);
        let method = r.u16("segment method")?;
        let revision = r.u16("segment revision")?;
        let profile = r.u8("segment profile")?;
        let class = Class::from_u8(r.u8("segment class")?);
        let raw_len = r.u32("segment plain length")?;
        if raw_len > SEGMENT_BYTES_MAX {
            return Err(Malformed("segment plain length"));
        }
        let has = r.u8("segment model")?;
        if has & !(HAS_MODEL | HAS_REFERENCE) != 0 {
            return Err(Malformed("segment model"));
        }
        let model = if has & HAS_MODEL == 0 { [0; 16] } else { r.array("segment model")? };
        let reference = if has & HAS_REFERENCE == 0 { None } else { Some(r.array("segment reference")?) };
        let plain_hash = r.array("segment hash")?;
        let count = r.varint("segment owners")?;
        // Every owner takes four bytes at least.
        if count > OWNERS_MAX || count > (r.0.len() / 4) as u64 {
            return Err(Malformed("segment owners"));
        }
        let mut owners = Vec::with_capacity(count as usize);
        let (mut ino, mut file_end, mut segment_end) = (0u64, 0u64, 0u64);
        for _ in 0..count {
            let number = r.delta(ino, "owner inode")?;
            let file_offset = r.delta(if number == ino { file_end } else { 0 }, "owner offset")?;
            let segment_offset = r.delta(segment_end, "owner segment offset")?;
            let len = r.u32("owner length")?;
            segment_end = segment_offset.checked_add(u64::from(len)).ok_or(Malformed("owner length"))?;
            if segment_end > u64::from(raw_len) {
                return Err(Malformed("owner length"));
            }
            ino = number;
            file_end = file_offset.wrapping_add(u64::from(len));
            owners.push(Owner { ino: Ino(number), file_offset, segment_offset: segment_offset as u32, len });
        }
        r.end("segment header")?;
        let coding = Coding { method, revision, profile, class, raw_len, model, plain_hash, reference };
        Ok(SegmentHeader { coding, owners })
    }
}
