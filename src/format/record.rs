//! Record: the one envelope of everything in a pack.
//!
//! ```text
//! offset  width  field
//!      0      8  magic 8B 't' 'e' 'r' 's' 'e' 'R' 0A
//!      8      1  kind
//!      9      1  version of the kind's layout (1)
//!     10      2  flags: bit 0 = body is a zstd frame
//!     12      4  header length h, bytes from the magic to the header check
//!     16      4  body length b
//!     20      4  plain length of the body when it is compressed, else b
//!     24      8  txid: the transaction (META), or the last one before (other kinds); the first record of a meta pack says by
//!                it that all transactions up to it were on disk when the pack was made
//!     32   h-32  fields of the kind
//!      h      4  header check: CRC32C of 0..h
//!    h+4      b  body
//!  h+4+b      4  body check: CRC32C of the body
//!  h+8+b      4  length of the record without padding, for walking backwards
//! h+12+b   0..7  zero, up to a multiple of 8
//! ```
//! Both checks start from CRC32C(volume UUID, pack, offset). So a record counts only where it was written: a copy of a
//! pack that a user stores in a file, or another volume's record, never passes when a damaged pack is searched.
//! A torn write leaves a record whose last bytes are missing or zero: its body check or length fails.

use super::wire::{Malformed, Reader, Writer};
use crate::base::{PackId, Uuid, crc32c, crc32c_append};

/// First bytes of every record.
pub const RECORD_MAGIC: [u8; 8] = [0x8b, b't', b'e', b'r', b's', b'e', b'R', 0x0a];
/// Bytes of a header without the fields of its kind.
pub const HEADER_FIXED_BYTES: usize = 32;
/// Longest header, bytes.
pub const HEADER_BYTES_MAX: usize = 1 << 20;
/// Longest body, bytes, stored or plain.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Records start at multiples of this.
pub const RECORD_ALIGN: u64 = 8;

/// Flag: the body is a zstd frame.
const FLAG_ZSTD: u16 = 1;

/// What a record holds. Numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// First record of a pack: `PackHeader`.
    Pack = 1,
    /// A coded segment: `SegmentHeader`, body = payload.
    Segment = 2,
    /// One metadata transaction: body = operations.
    Meta = 3,
    /// Part of a snapshot of all metadata: body = operations.
    Snapshot = 4,
    /// End of a snapshot: `SnapshotEnd`.
    SnapshotEnd = 5,
}

impl RecordKind {
    fn from_u8(value: u8) -> Option<RecordKind> {
        use RecordKind::{Meta, Pack, Segment, Snapshot, SnapshotEnd};
        [Pack, Segment, Meta, Snapshot, SnapshotEnd].into_iter().find(|k| *k as u8 == value)
    }
}

/// Which records a pack collects. Numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Stream {
    Meta = 1,
    Data = 2,
}

/// Fields of a PACK record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackHeader {
    pub pack: PackId,
    pub stream: Stream,
    pub uuid: Uuid,
}

impl PackHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(self.stream as u8);
        w.varint(self.pack.0);
        w.bytes(&self.uuid.0);
        w.0
    }

    pub fn decode(fields: &[u8]) -> Result<PackHeader, Malformed> {
        let mut r = Reader(fields);
        let stream = match r.u8("pack stream")? {
            1 => Stream::Meta,
            2 => Stream::Data,
            _ => return Err(Malformed("pack stream")),
        };
        let pack = PackId(r.varint("pack number")?);
        let uuid = Uuid(r.array("pack volume")?);
        r.end("pack header")?;
        Ok(PackHeader { pack, stream, uuid })
    }
}

/// Fields of a META record. Older builds wrote none, and read past them.
///
/// A disk may keep a later page of what was never synced and lose an earlier one. What a record says here tells such a tail
/// from rot: when some record says that a missing transaction was synced, it was there once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetaHeader {
    /// This transaction less the last one that was known to be on disk when this record was written; at least 1.
    pub unsynced: u64,
}

impl MetaHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.varint(self.unsynced);
        w.0
    }

    /// Reads the fields; `None` for a record of an older build, which has none.
    pub fn decode(fields: &[u8]) -> Result<Option<MetaHeader>, Malformed> {
        if fields.is_empty() {
            return Ok(None);
        }
        let mut r = Reader(fields);
        let header = MetaHeader { unsynced: r.varint("distance to the last sync")? };
        r.end("meta header")?;
        Ok(Some(header))
    }
}

/// Fields of a SNAPSHOT_END record: what a rebuild cannot find in the operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotEnd {
    /// SNAPSHOT records that belong to it, all in the same pack before it.
    pub records: u64,
    pub next_ino: u64,
    pub next_serial: u64,
}

impl SnapshotEnd {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.varint(self.records);
        w.varint(self.next_ino);
        w.varint(self.next_serial);
        w.0
    }

    pub fn decode(fields: &[u8]) -> Result<SnapshotEnd, Malformed> {
        let mut r = Reader(fields);
        let end = SnapshotEnd {
            records: r.varint("snapshot records")?,
            next_ino: r.varint("snapshot next inode")?,
            next_serial: r.varint("snapshot next serial")?,
        };
        r.end("snapshot end")?;
        Ok(end)
    }
}

/// A header that passed its check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    pub kind: RecordKind,
    /// Body is a zstd frame of `plain_len` bytes.
    pub compressed: bool,
    pub body_len: u32,
    pub plain_len: u32,
    pub txid: u64,
    /// Fields of the kind.
    pub fields: Vec<u8>,
}

/// Lengths read from the first 32 bytes, before any check but bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Header without its check, bytes.
    pub header_len: usize,
    pub body_len: usize,
}

impl Prefix {
    /// Reads the lengths of a record from its first bytes and refuses those beyond the bounds.
    pub fn decode(bytes: &[u8]) -> Result<Prefix, Malformed> {
        let mut r = Reader(bytes);
        if r.array::<8>("record magic")? != RECORD_MAGIC {
            return Err(Malformed("record magic"));
        }
        r.take(4, "record header")?;
        let header_len = u32::from_le_bytes(r.array("record header")?) as usize;
        let body_len = u32::from_le_bytes(r.array("record header")?) as usize;
        if !(HEADER_FIXED_BYTES..=HEADER_BYTES_MAX).contains(&header_len) {
            return Err(Malformed("record header length"));
        }
        if body_len > BODY_BYTES_MAX {
            return Err(Malformed("record body length"));
        }
        Ok(Prefix { header_len, body_len })
    }

    /// Bytes of the whole record with padding.
    pub fn stored_len(&self) -> u64 {
        (self.header_len as u64 + self.body_len as u64 + 12).next_multiple_of(RECORD_ALIGN)
    }
}

fn seed(uuid: Uuid, pack: PackId, offset: u64) -> u32 {
    let crc = crc32c(&uuid.0);
    crc32c_append(crc32c_append(crc, &pack.0.to_le_bytes()), &offset.to_le_bytes())
}

/// Where a record stands: part of its checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub uuid: Uuid,
    pub pack: PackId,
    pub offset: u64,
}

/// Builds a whole record with checks and padding.
///
/// # Panics
/// When `fields` or `body` exceed their bounds: the caller limits them.
pub fn encode_record(
    place: Place,
    kind: RecordKind,
    txid: u64,
    fields: &[u8],
    body: &[u8],
    plain_len: Option<u32>,
) -> Vec<u8> {
    let header_len = HEADER_FIXED_BYTES + fields.len();
    assert!(header_len <= HEADER_BYTES_MAX && body.len() <= BODY_BYTES_MAX, "record within its bounds");
    let seed = seed(place.uuid, place.pack, place.offset);
    let mut out = Vec::with_capacity(header_len + body.len() + 20);
    out.extend_from_slice(&RECORD_MAGIC);
    out.push(kind as u8);
    out.push(1);
    out.extend_from_slice(&(if plain_len.is_some() { FLAG_ZSTD } else { 0 }).to_le_bytes());
    out.extend_from_slice(&(header_len as u32).to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&plain_len.unwrap_or(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&txid.to_le_bytes());
    out.extend_from_slice(fields);
    let crc = crc32c_append(seed, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32c_append(seed, body).to_le_bytes());
    let len = out.len() as u32 + 4;
    out.extend_from_slice(&len.to_le_bytes());
    out.resize(out.len().next_multiple_of(RECORD_ALIGN as usize), 0);
    out
}

/// Checks and reads a header: `bytes` are the header and its check (`header_len` + 4 bytes).
pub fn decode_header(place: Place, bytes: &[u8]) -> Result<RecordHeader, Malformed> {
    let prefix = Prefix::decode(bytes)?;
    let (header, rest) = bytes.split_at_checked(prefix.header_len).ok_or(Malformed("record header length"))?;
    let mut r = Reader(rest);
    if u32::from_le_bytes(r.array("record header")?)
        != crc32c_append(seed(place.uuid, place.pack, place.offset), header)
    {
        return Err(Malformed("record header check"));
    }
    let mut r = Reader(header);
    r.take(8, "record magic")?;
    let kind = RecordKind::from_u8(r.u8("record kind")?).ok_or(Malformed("record kind"))?;
    if r.u8("record version")? != 1 {
        return Err(Malformed("record version"));
    }
    let flags = u16::from_le_bytes(r.array("record flags")?);
    if flags & !FLAG_ZSTD != 0 {
        return Err(Malformed("record flags"));
    }
    r.take(4, "record header")?;
    let body_len = u32::from_le_bytes(r.array("record header")?);
    let plain_len = u32::from_le_bytes(r.array("record header")?);
    if plain_len as usize > BODY_BYTES_MAX {
        return Err(Malformed("record body length"));
    }
    let txid = u64::from_le_bytes(r.array("record header")?);
    Ok(RecordHeader { kind, compressed: flags & FLAG_ZSTD != 0, body_len, plain_len, txid, fields: r.0.to_vec() })
}

/// The volume that a pack says it belongs to: `bytes` begin with its first record, which is checked.
pub fn uuid_of_first_record(pack: PackId, bytes: &[u8]) -> Option<Uuid> {
    let prefix = Prefix::decode(bytes).ok()?;
    let fields = bytes.get(HEADER_FIXED_BYTES..prefix.header_len)?;
    let named = PackHeader::decode(fields).ok().filter(|h| h.pack == pack)?;
    let place = Place { uuid: named.uuid, pack, offset: 0 };
    let header = decode_header(place, bytes.get(..prefix.header_len + 4)?).ok()?;
    (header.kind == RecordKind::Pack).then_some(named.uuid)
}

/// Checks a body: `bytes` are the body, its check and the length of the record.
pub fn check_body<'a>(place: Place, prefix: &Prefix, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (body, rest) = bytes.split_at_checked(prefix.body_len).ok_or(Malformed("record body length"))?;
    let mut r = Reader(rest);
    if u32::from_le_bytes(r.array("record body")?) != crc32c_append(seed(place.uuid, place.pack, place.offset), body) {
        return Err(Malformed("record body check"));
    }
    if u32::from_le_bytes(r.array("record length")?) as usize != prefix.header_len + prefix.body_len + 12 {
        return Err(Malformed("record length"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { uuid: Uuid(*b"0123456789abcdef"), pack: PackId(3), offset: 4096 };

    fn whole(place: Place, bytes: &[u8]) -> Result<(RecordHeader, Vec<u8>), Malformed> {
        let prefix = Prefix::decode(bytes)?;
        let (head, body) = bytes.split_at_checked(prefix.header_len + 4).ok_or(Malformed("short"))?;
        let header = decode_header(place, head)?;
        Ok((header, check_body(place, &prefix, body)?.to_vec()))
    }

    #[test]
    fn comes_back_only_from_its_place() {
        let bytes = encode_record(PLACE, RecordKind::Meta, 7, b"fields", b"a body", None);
        assert_eq!(bytes.len() as u64, Prefix::decode(&bytes).unwrap().stored_len());
        let (header, body) = whole(PLACE, &bytes).unwrap();
        assert_eq!(
            (header.kind, header.txid, header.fields.as_slice(), body.as_slice()),
            (RecordKind::Meta, 7, &b"fields"[..], &b"a body"[..])
        );
        for other in [
            Place { uuid: Uuid::default(), ..PLACE },
            Place { pack: PackId(4), ..PLACE },
            Place { offset: 4104, ..PLACE },
        ] {
            assert!(whole(other, &bytes).is_err());
        }
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let bytes = encode_record(PLACE, RecordKind::Segment, 1, b"", &[5; 100], None);
        let checked = 32 + 4 + 100 + 8;
        for at in 0..checked {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(whole(PLACE, &bad).is_err(), "byte {at}");
            assert!(whole(PLACE, &bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
