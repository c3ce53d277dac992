//! The index as keys and values, and what each metadata operation does to them.
//!
//! ```text
//! key                              value
//! 'C' parent cookie                0, length of the dentry, dentry, name; or the name alone, as older builds wrote it:
//!                                  readdir in the order of creation
//! 'D' parent name                  dentry
//! 'E' inode file-offset            extent
//! 'G' pack offset                  use of a segment: stored length, plain length, extents (4 bytes each), plain bytes in
//!                                  use (8 bytes); where one of both is not 0: extents of others that it is the reference of
//!                                  (4 bytes), whether it has one (1 byte)
//! 'H' hash                         place of content with this hash (BLAKE3, 8 bytes): pack, offset (8 bytes each), stored
//!                                  length, offset in the segment, length (4 bytes each)
//! 'I' inode                        inode
//! 'J' pack offset segment-offset   the hash of an 'H', back from its segment (the offset in it takes 4 bytes); then what the
//!                                  content looks like, if it is in an 'K' (4 bytes each)
//! 'K' feature value                the hash of an 'H': content that looks like this (number, 1 byte; value, 4 bytes)
//! 'L' pack                         sums of a pack: used segments, live bytes, plain and stored bytes shared (8 bytes each)
//! 'M' method                       sums of a method: extents, plain bytes, stored bytes (8 bytes each)
//! 'O' inode                        (empty)             unlinked while open
//! 'R' pack offset inode file-offset  (empty)           extents by the segment they name, and by its reference
//! 'S' name                         state: "position"
//! 'U' inode                        (empty)             staged and not sealed
//! 'X' inode name                   value of an extended attribute
//! 'Y' inode group                  checksums of staged bytes
//! ```
//! Numbers in keys are big-endian, so that keys of one inode are neighbours in the order of their offsets. 'G' and 'R' follow
//! from 'E' and change with it; 'L' and 'M' are written with the position (ledger.rs). 'H', 'J' and 'K' are hints (content.rs).

use super::error::Error;
use super::index::Index;
use super::ledger;
use crate::base::{ByteRange, Ino, SEGMENT_BYTES_MAX};
use crate::format::{
    Dentry, Extent, InodeRecord, Malformed, MetaOp, decode_dentry, decode_extent, decode_inode, encode_dentry,
    encode_inode, encode_seal,
};

pub(crate) const INODE: u8 = b'I';
pub(crate) const DENTRY: u8 = b'D';
pub(crate) const COOKIE: u8 = b'C';
pub(crate) const EXTENT: u8 = b'E';
pub(crate) const ORPHAN: u8 = b'O';
pub(crate) const XATTR: u8 = b'X';
pub(crate) const UNSEALED: u8 = b'U';
pub(crate) const SEAL: u8 = b'Y';
pub(crate) const SEGMENT: u8 = b'G';
pub(crate) const PACK_USE: u8 = b'L';
pub(crate) const METHOD_USE: u8 = b'M';
pub(crate) const OWNER: u8 = b'R';
pub(crate) const CONTENT: u8 = b'H';
pub(crate) const CONTENT_OF: u8 = b'J';
pub(crate) const LOOKS: u8 = b'K';

/// Where the index stands in the log.
pub(crate) const POSITION: &[u8] = b"Sposition";

/// Extents or keys removed per look-up, so that memory stays bounded whatever the size of a file.
const KEYS_PER_STEP: usize = 4096;

pub(crate) fn by_number(tag: u8, n: u64) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(&n.to_be_bytes());
    key
}

pub(crate) fn by_two(tag: u8, a: u64, b: u64) -> Vec<u8> {
    let mut key = by_number(tag, a);
    key.extend_from_slice(&b.to_be_bytes());
    key
}

pub(crate) fn extent_key(ino: Ino, e: &Extent) -> Vec<u8> {
    by_two(EXTENT, ino.0, e.file_offset)
}

pub(crate) fn by_name(tag: u8, a: u64, name: &[u8]) -> Vec<u8> {
    let mut key = by_number(tag, a);
    key.extend_from_slice(name);
    key
}

/// First key after all that start with `tag` and `n`.
pub(crate) fn after_number(tag: u8, n: u64) -> Vec<u8> {
    match n.checked_add(1) {
        Some(next) => by_number(tag, next),
        None => vec![tag + 1],
    }
}

/// A number at the end of a key.
pub(crate) fn last_number(key: &[u8]) -> Result<u64, Error> {
    key.last_chunk::<8>().map(|n| u64::from_be_bytes(*n)).ok_or_else(|| Error::Index("short key".into()))
}

/// Value of a cookie's key: the entry whole, so that a directory is read by one walk over neighbours.
pub(crate) fn encode_entry(name: &[u8], dentry: &Dentry) -> Vec<u8> {
    let dentry = encode_dentry(dentry);
    let mut out = vec![0, dentry.len() as u8];
    out.extend_from_slice(&dentry);
    out.extend_from_slice(name);
    out
}

/// Reads `encode_entry`. Without a dentry the value was written by an older build: no name begins with a zero.
pub(crate) fn decode_entry(value: &[u8]) -> Result<(&[u8], Option<Dentry>), Error> {
    match value {
        [0, len, rest @ ..] => {
            let (dentry, name) =
                rest.split_at_checked(usize::from(*len)).ok_or_else(|| Error::Index("short entry".into()))?;
            Ok((name, Some(decode_dentry(dentry).map_err(bad)?)))
        }
        name => Ok((name, None)),
    }
}

pub(crate) fn bad(e: Malformed) -> Error {
    Error::Index(e.to_string())
}

/// Keys to set, or to remove where the value is `None`. Later ones win.
pub(crate) type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Numbers that follow from operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Highest {
    pub ino: u64,
    pub serial: u64,
    /// Inodes added less inodes removed.
    pub inodes: i64,
}

impl Highest {
    fn see(&mut self, op: &MetaOp) {
        match op {
            MetaOp::PutInode(rec) => {
                self.ino = self.ino.max(rec.ino.0);
                self.serial = self.serial.max(rec.staging.map_or(0, |s| s.epoch));
            }
            MetaOp::PutDentry { dentry, .. } => self.serial = self.serial.max(dentry.cookie),
            MetaOp::RemoveInode(_)
            | MetaOp::RemoveDentry { .. }
            | MetaOp::PutExtent { .. }
            | MetaOp::RemoveExtents { .. }
            | MetaOp::PutXattr { .. }
            | MetaOp::RemoveXattr { .. }
            | MetaOp::PutSeal { .. }
            | MetaOp::RemoveSeals { .. } => {}
        }
    }
}

/// Extents that meet `range`, ascending, at most `limit`.
pub(crate) fn extents(index: &Index, ino: Ino, range: ByteRange, limit: usize) -> Result<Vec<Extent>, Error> {
    let mut out = Vec::new();
    // No extent is longer than a segment, so one that reaches into the range starts at most that far before it.
    let mut from = by_two(EXTENT, ino.0, range.start.saturating_sub(u64::from(SEGMENT_BYTES_MAX)));
    let end = by_two(EXTENT, ino.0, range.end);
    loop {
        let page = index.range(&from, &end, limit.saturating_add(16).min(KEYS_PER_STEP))?;
        let Some((last, _)) = page.last() else { return Ok(out) };
        from = last.clone();
        from.push(0);
        for (_, value) in page {
            let e = decode_extent(&value).map_err(bad)?;
            if !ByteRange::at(e.file_offset, u64::from(e.len)).intersect(&range).is_empty() {
                out.push(e);
                if out.len() >= limit {
                    return Ok(out);
                }
            }
        }
    }
}

/// Applies operations to the index, one after the other: each sees what the ones before it did.
pub(crate) fn apply(index: &Index, ops: &[MetaOp], highest: &mut Highest) -> Result<(), Error> {
    for op in ops {
        highest.see(op);
        let mut batch = Batch::new();
        match op {
            MetaOp::PutInode(rec) => {
                let key = by_number(INODE, rec.ino.0);
                let old = index.get(&key)?.map(|v| inode_value(&v)).transpose()?;
                if old.is_none() {
                    highest.inodes += 1;
                }
                for (tag, is) in [(UNSEALED, is_unsealed as fn(&InodeRecord) -> bool), (ORPHAN, |rec| rec.nlink == 0)] {
                    // Where a crash may have kept the inode's new key and not this one, it is set in any case.
                    if is(rec) || old.as_ref().is_some_and(is) || index.is_behind() {
                        batch.push((by_number(tag, rec.ino.0), is(rec).then(Vec::new)));
                    }
                }
                batch.push((key, Some(encode_inode(rec))));
            }
            MetaOp::RemoveInode(ino) => {
                let key = by_number(INODE, ino.0);
                if index.get(&key)?.is_some() {
                    highest.inodes -= 1;
                }
                batch.push((key, None));
                batch.push((by_number(ORPHAN, ino.0), None));
                batch.push((by_number(UNSEALED, ino.0), None));
                cut(index, *ino, ByteRange { start: 0, end: u64::MAX })?;
                for tag in [XATTR, SEAL] {
                    remove_all(index, by_number(tag, ino.0), after_number(tag, ino.0))?;
                }
            }
            MetaOp::PutDentry { parent, name, dentry } => {
                remove_cookie(index, *parent, name, &mut batch)?;
                batch.push((by_name(DENTRY, parent.0, name), Some(encode_dentry(dentry))));
                batch.push((by_two(COOKIE, parent.0, dentry.cookie), Some(encode_entry(name, dentry))));
            }
            MetaOp::RemoveDentry { parent, name } => {
                remove_cookie(index, *parent, name, &mut batch)?;
                batch.push((by_name(DENTRY, parent.0, name), None));
            }
            MetaOp::PutExtent { ino, extent } => {
                cut(index, *ino, ByteRange::at(extent.file_offset, u64::from(extent.len)))?;
                ledger::exchange(index, *ino, &[], std::slice::from_ref(extent))?;
            }
            MetaOp::RemoveExtents { ino, start, end } => cut(index, *ino, ByteRange { start: *start, end: *end })?,
            MetaOp::PutXattr { ino, name, value } => {
                batch.push((by_name(XATTR, ino.0, name), Some(value.clone())));
            }
            MetaOp::RemoveXattr { ino, name } => batch.push((by_name(XATTR, ino.0, name), None)),
            MetaOp::PutSeal { ino, group, sums } => {
                batch.push((by_two(SEAL, ino.0, *group), Some(encode_seal(sums))));
            }
            MetaOp::RemoveSeals { ino } => {
                remove_all(index, by_number(SEAL, ino.0), after_number(SEAL, ino.0))?;
            }
        }
        index.put(batch);
    }
    Ok(())
}

/// A file whose staged bytes have no checksums yet.
fn is_unsealed(rec: &InodeRecord) -> bool {
    rec.staging.is_some_and(|s| !s.sealed)
}

fn remove_cookie(index: &Index, parent: Ino, name: &[u8], batch: &mut Batch) -> Result<(), Error> {
    if let Some(old) = index.get(&by_name(DENTRY, parent.0, name))? {
        let old = decode_dentry(&old).map_err(bad)?;
        batch.push((by_two(COOKIE, parent.0, old.cookie), None));
    }
    Ok(())
}

fn remove_all(index: &Index, mut from: Vec<u8>, end: Vec<u8>) -> Result<(), Error> {
    loop {
        let page = index.range(&from, &end, KEYS_PER_STEP)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from = last.clone();
        from.push(0);
        index.put(page.into_iter().map(|(key, _)| (key, None)).collect());
    }
}

/// Ends what extents say of `range`; those across a border are cut.
fn cut(index: &Index, ino: Ino, range: ByteRange) -> Result<(), Error> {
    loop {
        let page = extents(index, ino, range, KEYS_PER_STEP)?;
        let mut left_over = Vec::new();
        for e in &page {
            let whole = ByteRange::at(e.file_offset, u64::from(e.len));
            if whole.start < range.start {
                left_over.push(Extent { len: (range.start - whole.start) as u32, ..*e });
            }
            if whole.end > range.end {
                let skip = (range.end - whole.start) as u32;
                left_over.push(Extent {
                    file_offset: range.end,
                    len: e.len - skip,
                    segment_offset: e.segment_offset + skip,
                    ..*e
                });
            }
        }
        ledger::exchange(index, ino, &page, &left_over)?;
        let more = page.len() >= KEYS_PER_STEP;
        if !more {
            return Ok(());
        }
    }
}

/// Reads an inode's value.
pub(crate) fn inode_value(value: &[u8]) -> Result<InodeRecord, Error> {
    decode_inode(value).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FileKind;

    #[test]
    fn an_entry_is_read_back_and_so_is_one_of_an_older_build() {
        let dentry = Dentry { ino: Ino(1 << 40), kind: FileKind::Directory, cookie: u64::MAX };
        for name in [&b"a"[..], &[0xff; 255]] {
            let value = encode_entry(name, &dentry);
            assert_eq!(decode_entry(&value).unwrap(), (name, Some(dentry)));
            assert_eq!(decode_entry(name).unwrap(), (name, None));
        }
        assert!(decode_entry(&[0, 9, 1]).is_err(), "cut off");
    }
}
