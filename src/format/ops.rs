//! Metadata operations as bytes: bodies of META and SNAPSHOT records, and the same values one by one for the index.
//!
//! A body is a sequence of operations, each a tag byte and its fields. Fields are differences from what the operations
//! before suggest (the last inode, the end of the last extent), so that a run of similar files costs a few bytes each
//! before compression. The state starts anew with each body: every record stands alone.

use super::meta::{Dentry, Extent, FileKind, InodeRecord, MetaOp, Reference, SEAL_GRAINS, Staging, Time};
use super::wire::{Malformed, Reader, Writer};
use crate::base::{Generation, Ino, PackId, SegmentRef};

const PUT_INODE: u8 = 1;
const REMOVE_INODE: u8 = 2;
const PUT_DENTRY: u8 = 3;
const REMOVE_DENTRY: u8 = 4;
const PUT_EXTENT: u8 = 5;
const REMOVE_EXTENTS: u8 = 6;
const PUT_XATTR: u8 = 7;
const REMOVE_XATTR: u8 = 8;
const PUT_SEAL: u8 = 9;
const REMOVE_SEALS: u8 = 10;

/// Longest name, symlink target and xattr value in a body, bytes.
const NAME_MAX: usize = 255;
const TARGET_MAX: usize = 4095;
const VALUE_MAX: usize = 64 << 10;

/// Flags of an inode: which fields are as usual and left out.
const INODE_ATIME_IS_MTIME: u64 = 1;
const INODE_CTIME_IS_MTIME: u64 = 1 << 1;
const INODE_BTIME_IS_MTIME: u64 = 1 << 2;
const INODE_STAGED: u64 = 1 << 3;
const INODE_GROWING: u64 = 1 << 4;
const INODE_CODED: u64 = 1 << 5;
const INODE_RDEV: u64 = 1 << 6;
const INODE_TARGET: u64 = 1 << 7;
/// uid, gid, mode and parent are those of the last inode.
const INODE_LIKE_LAST: u64 = 1 << 8;
const INODE_ONE_LINK: u64 = 1 << 9;
const INODE_SEALED: u64 = 1 << 10;

/// Whose bytes an extent names: those of another segment than the last, of the same, of another one that has a reference.
const SEGMENT_OTHER: u8 = 0;
const SEGMENT_SAME: u8 = 1;
const SEGMENT_REFERS: u8 = 2;

fn kind_of(value: u8) -> Result<FileKind, Malformed> {
    use FileKind::{BlockDevice, CharDevice, Directory, Fifo, Regular, Socket, Symlink};
    [Regular, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice]
        .into_iter()
        .find(|k| *k as u8 == value)
        .ok_or(Malformed("kind of inode"))
}

const NOWHERE: SegmentRef = SegmentRef { pack: PackId(0), offset: 0, stored_len: 0 };

/// What the operations before suggest.
struct Last {
    inode: InodeRecord,
    dentry_parent: u64,
    dentry_ino: u64,
    cookie: u64,
    extent_ino: u64,
    file_end: u64,
    segment: SegmentRef,
    segment_end: u32,
    segment_bytes: u32,
    method: u16,
    reference: Option<Reference>,
    /// The last reference there was.
    referred: Reference,
}

impl Default for Last {
    fn default() -> Last {
        Last {
            inode: InodeRecord { mode: 0o644, ..InodeRecord::new(Ino(0), FileKind::Regular, Time::default()) },
            dentry_parent: 0,
            dentry_ino: 0,
            cookie: 0,
            extent_ino: 0,
            file_end: 0,
            segment: NOWHERE,
            segment_end: 0,
            segment_bytes: 0,
            method: 0,
            reference: None,
            referred: Reference { segment: NOWHERE, segment_bytes: 0 },
        }
    }
}

fn put_time(w: &mut Writer, t: Time, from: Time) {
    w.delta(t.secs as u64, from.secs as u64);
    w.varint(u64::from(t.nanos));
}

fn time(r: &mut Reader<'_>, from: Time) -> Result<Time, Malformed> {
    let secs = r.delta(from.secs as u64, "time")? as i64;
    let nanos = r.u32("time")?;
    if nanos >= 1_000_000_000 { Err(Malformed("time")) } else { Ok(Time { secs, nanos }) }
}

impl Last {
    fn put_inode(&mut self, w: &mut Writer, rec: &InodeRecord) {
        let last = &self.inode;
        let like_last =
            rec.uid == last.uid && rec.gid == last.gid && rec.mode == last.mode && rec.parent == last.parent;
        let flags = [
            (rec.atime == rec.mtime, INODE_ATIME_IS_MTIME),
            (rec.ctime == rec.mtime, INODE_CTIME_IS_MTIME),
            (rec.btime == rec.mtime, INODE_BTIME_IS_MTIME),
            (rec.staging.is_some(), INODE_STAGED),
            (rec.staging.is_some_and(|s| s.growing), INODE_GROWING),
            (rec.staging.is_some_and(|s| s.sealed), INODE_SEALED),
            (rec.coded, INODE_CODED),
            (rec.rdev != 0, INODE_RDEV),
            (!rec.target.is_empty(), INODE_TARGET),
            (like_last, INODE_LIKE_LAST),
            (rec.nlink == 1, INODE_ONE_LINK),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, bit)| bit)
        .sum();
        w.varint(flags);
        w.u8(rec.kind as u8);
        w.delta(rec.ino.0, last.ino.0);
        w.varint(rec.size);
        put_time(w, rec.mtime, last.mtime);
        if flags & INODE_ATIME_IS_MTIME == 0 {
            put_time(w, rec.atime, rec.mtime);
        }
        if flags & INODE_CTIME_IS_MTIME == 0 {
            put_time(w, rec.ctime, rec.mtime);
        }
        if flags & INODE_BTIME_IS_MTIME == 0 {
            put_time(w, rec.btime, rec.ctime);
        }
        if !like_last {
            w.varint(u64::from(rec.uid));
            w.varint(u64::from(rec.gid));
            w.varint(u64::from(rec.mode));
            w.varint(rec.parent.0);
        }
        if flags & INODE_ONE_LINK == 0 {
            w.varint(u64::from(rec.nlink));
        }
        w.varint(rec.generation.0);
        if let Some(s) = rec.staging {
            w.delta(s.epoch, last.staging.map_or(0, |s| s.epoch));
        }
        if rec.coded {
            w.varint(rec.stored_bytes);
        }
        if flags & INODE_RDEV != 0 {
            w.varint(u64::from(rec.rdev));
        }
        if flags & INODE_TARGET != 0 {
            w.string(&rec.target);
        }
        self.inode = rec.clone();
    }

    fn inode(&mut self, r: &mut Reader<'_>) -> Result<InodeRecord, Malformed> {
        let last = &self.inode;
        let flags = r.varint("inode flags")?;
        let has = |bit: u64| flags & bit != 0;
        let kind = kind_of(r.u8("inode kind")?)?;
        let ino = Ino(r.delta(last.ino.0, "inode number")?);
        let size = r.varint("inode size")?;
        let mtime = time(r, last.mtime)?;
        let atime = if has(INODE_ATIME_IS_MTIME) { mtime } else { time(r, mtime)? };
        let ctime = if has(INODE_CTIME_IS_MTIME) { mtime } else { time(r, mtime)? };
        let btime = if has(INODE_BTIME_IS_MTIME) { mtime } else { time(r, ctime)? };
        let (uid, gid, mode, parent) = if has(INODE_LIKE_LAST) {
            (last.uid, last.gid, last.mode, last.parent)
        } else {
            (r.u32("inode uid")?, r.u32("inode gid")?, r.u16("inode mode")?, Ino(r.varint("inode parent")?))
        };
        let nlink = if has(INODE_ONE_LINK) { 1 } else { r.u32("inode links")? };
        let generation = Generation(r.varint("inode generation")?);
        let staging = if has(INODE_STAGED) {
            let epoch = r.delta(last.staging.map_or(0, |s| s.epoch), "inode staging")?;
            Some(Staging { epoch, growing: has(INODE_GROWING), sealed: has(INODE_SEALED) })
        } else {
            None
        };
        let coded = has(INODE_CODED);
        let stored_bytes = if coded { r.varint("inode stored bytes")? } else { 0 };
        let rdev = if has(INODE_RDEV) { r.u32("inode device")? } else { 0 };
        let target = if has(INODE_TARGET) { r.string(TARGET_MAX, "symlink target")? } else { Vec::new() };
        let rec = InodeRecord {
            ino,
            kind,
            mode,
            uid,
            gid,
            nlink,
            rdev,
            size,
            atime,
            mtime,
            ctime,
            btime,
            generation,
            staging,
            coded,
            stored_bytes,
            target,
            parent,
        };
        self.inode = rec.clone();
        Ok(rec)
    }

    fn put_dentry(&mut self, w: &mut Writer, d: &Dentry) {
        w.u8(d.kind as u8);
        w.delta(d.ino.0, self.dentry_ino);
        w.delta(d.cookie, self.cookie);
        (self.dentry_ino, self.cookie) = (d.ino.0, d.cookie);
    }

    fn dentry(&mut self, r: &mut Reader<'_>) -> Result<Dentry, Malformed> {
        let kind = kind_of(r.u8("entry kind")?)?;
        let ino = Ino(r.delta(self.dentry_ino, "entry inode")?);
        let cookie = r.delta(self.cookie, "entry cookie")?;
        (self.dentry_ino, self.cookie) = (ino.0, cookie);
        Ok(Dentry { ino, kind, cookie })
    }

    fn put_extent(&mut self, w: &mut Writer, ino: Ino, e: &Extent) {
        let same_segment = e.segment == self.segment
            && e.segment_bytes == self.segment_bytes
            && e.method == self.method
            && e.reference == self.reference;
        w.delta(ino.0, self.extent_ino);
        w.delta(e.file_offset, if ino.0 == self.extent_ino { self.file_end } else { 0 });
        w.varint(u64::from(e.len));
        w.u8(match (same_segment, e.reference) {
            (true, _) => SEGMENT_SAME,
            (false, None) => SEGMENT_OTHER,
            (false, Some(_)) => SEGMENT_REFERS,
        });
        if !same_segment {
            let last = &self.segment;
            w.delta(e.segment.pack.0, last.pack.0);
            // Segments written one after the other touch.
            let next =
                if e.segment.pack == last.pack { last.offset.wrapping_add(u64::from(last.stored_len)) } else { 0 };
            w.delta(e.segment.offset, next);
            w.varint(u64::from(e.segment.stored_len));
            w.delta(u64::from(e.segment_bytes), u64::from(self.segment_bytes));
            w.delta(u64::from(e.method), u64::from(self.method));
            if let Some(r) = e.reference {
                self.put_reference(w, r);
            }
        }
        w.delta(u64::from(e.segment_offset), if same_segment { u64::from(self.segment_end) } else { 0 });
        self.remember_extent(ino, e);
    }

    fn put_reference(&mut self, w: &mut Writer, r: Reference) {
        let last = self.referred;
        w.delta(r.segment.pack.0, last.segment.pack.0);
        w.delta(r.segment.offset, last.segment.offset);
        w.delta(u64::from(r.segment.stored_len), u64::from(last.segment.stored_len));
        w.delta(u64::from(r.segment_bytes), u64::from(last.segment_bytes));
        self.referred = r;
    }

    fn reference(&mut self, r: &mut Reader<'_>) -> Result<Reference, Malformed> {
        let last = self.referred;
        let segment = SegmentRef {
            pack: PackId(r.delta(last.segment.pack.0, "reference pack")?),
            offset: r.delta(last.segment.offset, "reference offset")?,
            stored_len: r.delta_u32(last.segment.stored_len, "reference stored length")?,
        };
        let segment_bytes = r.delta_u32(last.segment_bytes, "reference length")?;
        self.referred = Reference { segment, segment_bytes };
        Ok(self.referred)
    }

    fn remember_extent(&mut self, ino: Ino, e: &Extent) {
        self.extent_ino = ino.0;
        self.file_end = e.file_offset.wrapping_add(u64::from(e.len));
        self.segment = e.segment;
        self.segment_end = e.segment_offset.wrapping_add(e.len);
        self.segment_bytes = e.segment_bytes;
        self.method = e.method;
        self.reference = e.reference;
    }

    fn extent(&mut self, r: &mut Reader<'_>) -> Result<(Ino, Extent), Malformed> {
        let ino = r.delta(self.extent_ino, "extent inode")?;
        let file_offset = r.delta(if ino == self.extent_ino { self.file_end } else { 0 }, "extent offset")?;
        let len = r.u32("extent length")?;
        let whose = r.u8("extent segment")?;
        if whose > SEGMENT_REFERS {
            return Err(Malformed("extent segment"));
        }
        let same_segment = whose == SEGMENT_SAME;
        let (mut segment, mut segment_bytes, mut method) = (self.segment, self.segment_bytes, self.method);
        let mut reference = self.reference;
        if !same_segment {
            let last = self.segment;
            segment.pack = PackId(r.delta(last.pack.0, "extent pack")?);
            let next = if segment.pack == last.pack { last.offset.wrapping_add(u64::from(last.stored_len)) } else { 0 };
            segment.offset = r.delta(next, "extent pack offset")?;
            segment.stored_len = r.u32("extent stored length")?;
            segment_bytes = r.delta_u32(self.segment_bytes, "extent segment length")?;
            let m = r.delta(u64::from(self.method), "extent method")?;
            method = u16::try_from(m).map_err(|_| Malformed("extent method"))?;
            reference = if whose == SEGMENT_REFERS { Some(self.reference(r)?) } else { None };
        }
        let segment_offset = r.delta_u32(if same_segment { self.segment_end } else { 0 }, "extent segment offset")?;
        let fits = u64::from(segment_offset) + u64::from(len) <= u64::from(segment_bytes);
        if !fits || file_offset.checked_add(u64::from(len)).is_none() || len == 0 {
            return Err(Malformed("extent length"));
        }
        let extent = Extent { file_offset, len, segment, segment_offset, segment_bytes, method, reference };
        self.remember_extent(Ino(ino), &extent);
        Ok((Ino(ino), extent))
    }

    fn put_parent(&mut self, w: &mut Writer, parent: Ino) {
        w.delta(parent.0, self.dentry_parent);
        self.dentry_parent = parent.0;
    }

    fn parent(&mut self, r: &mut Reader<'_>) -> Result<Ino, Malformed> {
        self.dentry_parent = r.delta(self.dentry_parent, "entry parent")?;
        Ok(Ino(self.dentry_parent))
    }
}

/// Writes operations as a body.
pub fn encode_ops(ops: &[MetaOp]) -> Vec<u8> {
    let mut w = Writer::default();
    let mut last = Last::default();
    for op in ops {
        match op {
            MetaOp::PutInode(rec) => {
                w.u8(PUT_INODE);
                last.put_inode(&mut w, rec);
            }
            MetaOp::RemoveInode(ino) => {
                w.u8(REMOVE_INODE);
                w.varint(ino.0);
            }
            MetaOp::PutDentry { parent, name, dentry } => {
                w.u8(PUT_DENTRY);
                last.put_parent(&mut w, *parent);
                w.string(name);
                last.put_dentry(&mut w, dentry);
            }
            MetaOp::RemoveDentry { parent, name } => {
                w.u8(REMOVE_DENTRY);
                last.put_parent(&mut w, *parent);
                w.string(name);
            }
            MetaOp::PutExtent { ino, extent } => {
                w.u8(PUT_EXTENT);
                last.put_extent(&mut w, *ino, extent);
            }
            MetaOp::RemoveExtents { ino, start, end } => {
                w.u8(REMOVE_EXTENTS);
                w.varint(ino.0);
                w.varint(*start);
                w.delta(*end, *start);
            }
            MetaOp::PutXattr { ino, name, value } => {
                w.u8(PUT_XATTR);
                w.varint(ino.0);
                w.string(name);
                w.string(value);
            }
            MetaOp::RemoveXattr { ino, name } => {
                w.u8(REMOVE_XATTR);
                w.varint(ino.0);
                w.string(name);
            }
            MetaOp::PutSeal { ino, group, sums } => {
                w.u8(PUT_SEAL);
                w.varint(ino.0);
                w.varint(*group);
                w.bytes(&encode_seal(sums));
            }
            MetaOp::RemoveSeals { ino } => {
                w.u8(REMOVE_SEALS);
                w.varint(ino.0);
            }
        }
    }
    w.0
}

/// Reads a body.
///
/// # Errors
/// `Malformed` when any operation is; none is returned then.
pub fn decode_ops(body: &[u8]) -> Result<Vec<MetaOp>, Malformed> {
    let mut r = Reader(body);
    let mut last = Last::default();
    let mut ops = Vec::new();
    while !r.is_empty() {
        ops.push(match r.u8("operation")? {
            PUT_INODE => MetaOp::PutInode(last.inode(&mut r)?),
            REMOVE_INODE => MetaOp::RemoveInode(Ino(r.varint("inode number")?)),
            PUT_DENTRY => {
                let parent = last.parent(&mut r)?;
                let name = r.string(NAME_MAX, "entry name")?;
                MetaOp::PutDentry { parent, name, dentry: last.dentry(&mut r)? }
            }
            REMOVE_DENTRY => {
                MetaOp::RemoveDentry { parent: last.parent(&mut r)?, name: r.string(NAME_MAX, "entry name")? }
            }
            PUT_EXTENT => {
                let (ino, extent) = last.extent(&mut r)?;
                MetaOp::PutExtent { ino, extent }
            }
            REMOVE_EXTENTS => {
                let ino = Ino(r.varint("inode number")?);
                let start = r.varint("range")?;
                MetaOp::RemoveExtents { ino, start, end: r.delta(start, "range")? }
            }
            PUT_XATTR => MetaOp::PutXattr {
                ino: Ino(r.varint("inode number")?),
                name: r.string(NAME_MAX, "xattr name")?,
                value: r.string(VALUE_MAX, "xattr value")?,
            },
            REMOVE_XATTR => {
                MetaOp::RemoveXattr { ino: Ino(r.varint("inode number")?), name: r.string(NAME_MAX, "xattr name")? }
            }
            PUT_SEAL => MetaOp::PutSeal {
                ino: Ino(r.varint("inode number")?),
                group: r.varint("seal group")?,
                sums: seal(&mut r)?,
            },
            REMOVE_SEALS => MetaOp::RemoveSeals { ino: Ino(r.varint("inode number")?) },
            _ => return Err(Malformed("operation")),
        });
    }
    Ok(ops)
}

/// One inode alone, for the index.
pub fn encode_inode(rec: &InodeRecord) -> Vec<u8> {
    let mut w = Writer::default();
    Last::default().put_inode(&mut w, rec);
    w.0
}

/// Reads `encode_inode`.
pub fn decode_inode(bytes: &[u8]) -> Result<InodeRecord, Malformed> {
    let mut r = Reader(bytes);
    let rec = Last::default().inode(&mut r)?;
    r.end("inode")?;
    Ok(rec)
}

/// One dentry alone, for the index.
pub fn encode_dentry(d: &Dentry) -> Vec<u8> {
    let mut w = Writer::default();
    Last::default().put_dentry(&mut w, d);
    w.0
}

/// Reads `encode_dentry`.
pub fn decode_dentry(bytes: &[u8]) -> Result<Dentry, Malformed> {
    let mut r = Reader(bytes);
    let d = Last::default().dentry(&mut r)?;
    r.end("dentry")?;
    Ok(d)
}

/// One extent alone, for the index.
pub fn encode_extent(e: &Extent) -> Vec<u8> {
    let mut w = Writer::default();
    Last::default().put_extent(&mut w, Ino(0), e);
    w.0
}

/// Reads `encode_extent`.
pub fn decode_extent(bytes: &[u8]) -> Result<Extent, Malformed> {
    let mut r = Reader(bytes);
    let (_, e) = Last::default().extent(&mut r)?;
    r.end("extent")?;
    Ok(e)
}

/// The checksums of a seal alone: their count, then four bytes each.
pub fn encode_seal(sums: &[u32]) -> Vec<u8> {
    let mut w = Writer::default();
    w.varint(sums.len() as u64);
    sums.iter().for_each(|sum| w.bytes(&sum.to_le_bytes()));
    w.0
}

fn seal(r: &mut Reader<'_>) -> Result<Vec<u32>, Malformed> {
    let count = r.varint("seal length")?;
    if count > SEAL_GRAINS {
        return Err(Malformed("seal length"));
    }
    (0..count).map(|_| r.array("seal").map(u32::from_le_bytes)).collect()
}

/// Reads `encode_seal`.
pub fn decode_seal(bytes: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut r = Reader(bytes);
    let sums = seal(&mut r)?;
    r.end("seal")?;
    Ok(sums)
}
