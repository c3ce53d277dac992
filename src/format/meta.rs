//! Metadata: inodes, names, extents, xattrs, and the operations that change them.

use crate::base::{Generation, Ino, SegmentRef};

/// Type of an inode. Numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum FileKind {
    Regular = 1,
    Directory = 2,
    Symlink = 3,
    Fifo = 4,
    Socket = 5,
    CharDevice = 6,
    BlockDevice = 7,
}

/// Seconds and nanoseconds since 1970 (seconds may be negative, nanoseconds are 0..1e9 and count forward).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

/// Staging file of an inode: the plain bytes that are not coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Staging {
    /// The file's name is `staging/<ino>.<epoch>`; a file with another epoch is stale and is deleted at recovery.
    pub epoch: u64,
    /// True while writes may extend the file: the size is then the larger of the inode's size and the staging length.
    /// False: the inode's size is exact and a longer staging file is cut to it at recovery.
    pub growing: bool,
    /// True when the log holds checksums of the staged bytes (`MetaOp::PutSeal`) and they hold: the file is on disk and is
    /// not changed before this flag is durably gone. Never together with `growing`.
    pub sealed: bool,
}

/// Bytes of a staging file under one checksum of a seal; the last ones of a file are fewer.
pub const SEAL_GRAIN_BYTES: u64 = 64 << 10;
/// Checksums in one `PutSeal`: small enough for a value of the index.
pub const SEAL_GRAINS: u64 = 32;

/// Attributes of an inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InodeRecord {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission bits with setuid, setgid, sticky (0o7777).
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Names that point here; 0 while unlinked but open.
    pub nlink: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Bytes. For a symlink the length of its target.
    pub size: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// Time of creation.
    pub btime: Time,
    /// Version of the data.
    pub generation: Generation,
    /// Present while plain bytes of the file are kept in staging.
    pub staging: Option<Staging>,
    /// True when the file has, or had since it was last truncated to zero, coded extents.
    pub coded: bool,
    /// Bytes of packs charged to this file by its extents: what `st_blocks` shows besides staging.
    pub stored_bytes: u64,
    /// Target of a symlink (at most 4,095 bytes), empty otherwise.
    pub target: Vec<u8>,
    /// Parent of a directory (itself for the root), 0 for other kinds.
    pub parent: Ino,
}

impl InodeRecord {
    /// An inode of a kind without bytes, names and rights, of user 0, made at a time.
    pub fn new(ino: Ino, kind: FileKind, time: Time) -> InodeRecord {
        InodeRecord {
            ino,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            rdev: 0,
            size: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            generation: Generation(0),
            staging: None,
            coded: false,
            stored_bytes: 0,
            target: Vec::new(),
            parent: Ino(0),
        }
    }
}

/// What a name points to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dentry {
    pub ino: Ino,
    pub kind: FileKind,
    /// Position of the entry in readdir: unique in its directory, ascending in the order of creation, never reused. At least 3.
    pub cookie: u64,
}

/// `len` bytes of a file that are bytes `segment_offset..` of a decoded segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte in the file.
    pub file_offset: u64,
    /// Bytes.
    pub len: u32,
    pub segment: SegmentRef,
    /// Offset of the first byte in the plain bytes of the segment.
    pub segment_offset: u32,
    /// Plain bytes of the whole segment: what its stored bytes are shared out by.
    pub segment_bytes: u32,
    /// Number of the method of the segment, for reports; its header decides.
    pub method: u16,
    /// The segment that this one was coded from, where its header says so.
    pub reference: Option<Reference>,
}

/// A segment that others were coded from: their bytes cannot be had without its own. It was coded from no other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reference {
    pub segment: SegmentRef,
    /// Its plain bytes.
    pub segment_bytes: u32,
}

/// One step of a metadata transaction. Applying the same steps again changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetaOp {
    /// Writes all attributes of an inode. An inode with `nlink` 0 is an orphan until removed.
    PutInode(InodeRecord),
    /// Removes an inode with its extents and xattrs (its names are removed by their own steps).
    RemoveInode(Ino),
    PutDentry {
        parent: Ino,
        name: Vec<u8>,
        dentry: Dentry,
    },
    RemoveDentry {
        parent: Ino,
        name: Vec<u8>,
    },
    /// Makes the bytes of the extent coded; what other extents say of these bytes ends.
    PutExtent {
        ino: Ino,
        extent: Extent,
    },
    /// Makes the bytes `start..end` not coded: staging or a hole. Extents across a border are cut.
    RemoveExtents {
        ino: Ino,
        start: u64,
        end: u64,
    },
    PutXattr {
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    RemoveXattr {
        ino: Ino,
        name: Vec<u8>,
    },
    /// Keeps the CRC32C of each of up to `SEAL_GRAINS` grains of a staging file, from grain `group * SEAL_GRAINS` on. A group
    /// without one holds no data. They count while the inode's staging is `sealed`.
    PutSeal {
        ino: Ino,
        group: u64,
        sums: Vec<u32>,
    },
    /// Forgets all checksums of an inode's staging file.
    RemoveSeals {
        ino: Ino,
    },
}
