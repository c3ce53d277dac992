//! Plain types between the volume and its callers.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::hot::HotOptions;
use super::rules::Rules;
use crate::base::{ByteRange, Class, Generation, Ino, PACK_BYTES_MAX, PlainHash};
use crate::codec::{Encoded, Policy};
use crate::format::{Extent, FileKind, Owner, Reference, Time};
use crate::store::{self, IndexEngine, Looks};

/// Settings that can be changed while a volume is open.
#[derive(Clone, Debug)]
pub struct Adjustable {
    pub policy: Policy,
    /// A file is coded after it was closed and unchanged for this long.
    pub quiet_ms: u64,
    /// A staged file is sealed after it was closed and unchanged for this long.
    pub seal_ms: u64,
    /// What holds for files by their paths, kinds and ages.
    pub rules: Arc<Rules>,
}

/// How a volume behaves.
#[derive(Clone, Debug)]
pub struct VolumeOptions {
    pub read_only: bool,
    /// Forget the index and rebuild it from packs at open.
    pub rebuild_index: bool,
    pub engine: IndexEngine,
    /// Memory beyond the tables of models, bytes (`Shares`).
    pub memory_bytes: u64,
    /// Decoded segments kept in memory, bytes; `None` for their usual share of the memory.
    pub cache_bytes: Option<u64>,
    /// A file is coded after it has been closed and unchanged for this long, milliseconds.
    pub quiet_ms: u64,
    /// A file that stays in staging is sealed after it has been unchanged for this long, milliseconds.
    pub seal_ms: u64,
    /// Policy of files for which attributes ask for nothing else.
    pub policy: Policy,
    /// What holds for files by their paths, kinds and ages.
    pub rules: Arc<Rules>,
    /// What is in the volume already is not coded again: files share segments.
    pub sharing: bool,
    /// A pack is closed when it grows beyond this, bytes.
    pub pack_bytes_max: u64,
    /// Leave what need not be done before the first request to a call of `tidy_staging`.
    pub tidy_later: bool,
    /// Parity made for packs that are not appended to any more.
    pub parity: Option<store::ParityShape>,
    /// Segments decoded ahead of a sequential reader; 0 turns it off.
    pub ahead: usize,
    pub atime: Atime,
    /// Decoded copies on disk of what is read again and again.
    pub hot: HotOptions,
}

impl Default for VolumeOptions {
    fn default() -> VolumeOptions {
        VolumeOptions {
            read_only: false,
            rebuild_index: false,
            engine: IndexEngine::Sled,
            memory_bytes: 512 << 20,
            cache_bytes: None,
            quiet_ms: 3_000,
            seal_ms: 10_000,
            policy: Policy::default(),
            rules: Arc::default(),
            sharing: true,
            pack_bytes_max: PACK_BYTES_MAX,
            tidy_later: false,
            parity: None,
            ahead: 2,
            atime: Atime::default(),
            hot: HotOptions::default(),
        }
    }
}

/// Why an operation of the volume failed. `fuse/errno.rs` turns these into errno.
#[derive(Debug)]
pub enum Error {
    NotFound,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    /// Not a symlink, a bad flag, a rename of a directory into itself: the sentence says which.
    Invalid(&'static str),
    /// A name longer than 255 bytes or a symlink target longer than 4,095.
    NameTooLong,
    /// Beyond the largest file offset.
    TooBig,
    TooManyLinks,
    NoXattr,
    /// No data or hole at or after the offset.
    NoData,
    /// Not permitted for this kind of inode.
    NotPermitted,
    Unsupported,
    BadHandle,
    /// The store's filesystem is full, or nearly.
    NoSpace,
    /// The daemon has no descriptor left.
    TooManyFiles,
    ReadOnly,
    /// A check failed: the bytes are not returned. Inode, offset, and what the store or codec said.
    Damaged {
        ino: Ino,
        offset: u64,
        what: String,
    },
    Io {
        what: String,
        source: io::Error,
    },
    Store(store::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound => f.write_str("no such file or directory"),
            Error::Exists => f.write_str("it exists already"),
            Error::NotDirectory => f.write_str("not a directory"),
            Error::IsDirectory => f.write_str("is a directory"),
            Error::NotEmpty => f.write_str("directory is not empty"),
            Error::Invalid(why) => f.write_str(why),
            Error::NameTooLong => f.write_str("name is too long"),
            Error::TooBig => f.write_str("beyond the largest file offset"),
            Error::TooManyLinks => f.write_str("too many links"),
            Error::NoXattr => f.write_str("no such extended attribute"),
            Error::NoData => f.write_str("no data or hole after this offset"),
            Error::NotPermitted => f.write_str("not permitted for this kind of inode"),
            Error::Unsupported => f.write_str("not supported"),
            Error::BadHandle => f.write_str("handle is not open for this"),
            Error::NoSpace => f.write_str("no space left in the store's filesystem"),
            Error::TooManyFiles => f.write_str("the daemon has too many files open; raise its limit (`ulimit -n`)"),
            Error::ReadOnly => f.write_str("the volume is read-only"),
            Error::Damaged { ino, offset, what } => write!(f, "inode {ino} at offset {offset} is damaged: {what}"),
            Error::Io { what, source } => write!(f, "{what}: {source}"),
            Error::Store(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// True when the machine had no room for a step: nothing was changed, and it may be tried again.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Error::NoSpace | Error::TooManyFiles => true,
            Error::Store(e) => e.is_refusal(),
            _ => false,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
}

/// Permissions asked for a new inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewMode {
    /// 0o7777 bits.
    pub mode: u16,
    /// Bits taken away, unless the directory has a default ACL: that counts instead.
    pub umask: u16,
}

impl From<u16> for NewMode {
    fn from(mode: u16) -> NewMode {
        NewMode { mode, umask: 0 }
    }
}

/// When reading moves the time of access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Atime {
    /// When it is not later than the last change, or a day old.
    #[default]
    Relative,
    Never,
    Always,
}

/// Attributes as `stat` shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    pub ino: Ino,
    pub kind: FileKind,
    /// 0o7777 bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u32,
    pub size: u64,
    /// What the file takes in the store, coded and staged, in units of 512 bytes.
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    Now,
    To(Time),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    pub ctime: Option<Time>,
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenFor {
    pub read: bool,
    pub write: bool,
    pub append: bool,
    pub truncate: bool,
}

/// Names an open handle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct HandleId(pub u64);

/// An opened file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    pub handle: HandleId,
    /// Pages of the file that the kernel has cached are still true.
    pub keep_pages: bool,
    /// Parts of the file are coded.
    pub coded: bool,
}

/// What rename does with an existing target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// One directory entry with the attributes of what it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Position to continue after this entry.
    pub cookie: u64,
    pub name: Vec<u8>,
    pub ino: Ino,
    pub kind: FileKind,
}

/// Modes of fallocate(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocateMode {
    /// Reserve and extend the size.
    Extend,
    /// Reserve, keep the size.
    KeepSize,
    /// Make a hole, keep the size.
    Punch,
    /// Zeros, extend the size.
    Zero,
    /// Zeros, keep the size.
    ZeroKeepSize,
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeekFor {
    Data,
    Hole,
}

/// Flags of setxattr(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    Set,
    Create,
    Replace,
}

/// Numbers of statfs(2), bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

/// A piece of a file that a coding task will put into a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub ino: Ino,
    pub generation: Generation,
    pub range: ByteRange,
}

/// One segment to be coded: a cell of one file, or a bundle of whole small files. Or pieces that may be found in segments of
/// the volume, and are coded only where they are not.
#[derive(Debug)]
pub struct CodingTask {
    pub(crate) class: Class,
    pub(crate) policy: Policy,
    pub(crate) pieces: Vec<Piece>,
    /// Content that nobody else codes until this is committed.
    pub(crate) claims: Vec<PlainHash>,
    /// All of it seems to be in the volume already, in segments that are worth decoding for it.
    pub(crate) known: bool,
    /// A segment that it is likely to repeat.
    pub(crate) reference: Option<super::sharing::Place>,
    /// What was before it in a stream that it goes on with.
    pub(crate) before: Option<std::sync::Arc<crate::codec::Before>>,
}

impl CodingTask {
    /// It may be coded by what takes minutes.
    pub fn takes_minutes(&self) -> bool {
        super::coding::takes_minutes(self.class, &self.policy)
    }
}

/// What became of the pieces of a task.
#[derive(Debug, Default)]
pub(crate) struct Coded {
    /// A new segment, with what lies in it.
    pub segment: Option<(Encoded, Vec<Owner>)>,
    /// The segment that it was coded from.
    pub reference: Option<Reference>,
    /// Content of the new segment worth remembering, by the number of its owner, and what it looks like.
    pub learned: Vec<(usize, PlainHash, Looks)>,
    /// Pieces that were found in segments of the volume, and compared.
    pub found: Vec<(Ino, Extent)>,
}

/// Outcome of a task.
#[derive(Debug)]
pub struct CodedSegment {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) claims: Vec<PlainHash>,
    pub(crate) slow: bool,
    pub(crate) outcome: Result<Coded, Error>,
}

impl CodedSegment {
    /// As `CodingTask::takes_minutes` said of it.
    pub fn took_minutes(&self) -> bool {
        self.slow
    }
}

/// Files that wait for coding.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Backlog {
    pub files: u64,
    /// Files among them that could not be coded, with a reason; or why nothing is coded at all.
    pub stuck: u64,
    pub reason: Option<String>,
}

/// Bytes in use of a share of the memory, and bytes allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Share {
    pub used: u64,
    pub share: u64,
}

/// Decoded copies on disk, and what became of them since the volume was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HotStatus {
    /// Bytes that they may take; 0 where there are to be none.
    pub budget_bytes: u64,
    pub bytes: u64,
    pub copies: u64,
    /// Slow segments, or parts of such, that were read from a copy instead of being decoded, and those that had none.
    pub hits: u64,
    pub misses: u64,
    pub written_bytes: u64,
    /// Copies that made room for others, or for new data.
    pub evicted: u64,
    /// Copies whose bytes failed their check, and were not used.
    pub wrong: u64,
    /// None are made in this mount: the store is read-only, or writing failed.
    pub frozen: bool,
}

/// Counts of a volume.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Status {
    pub uuid: String,
    pub read_only: bool,
    /// Files that wait for coding, and their plain bytes in staging.
    pub queue_files: u64,
    /// Extrapolated from some of the files when there are many.
    pub queue_bytes: u64,
    /// Files among them that have a place in memory; the others follow as these are coded.
    pub queue_in_memory: u64,
    /// Files among them that could not be coded, with the last reason.
    pub stuck_files: u64,
    pub stuck_reason: Option<String>,
    /// Staged files met that stay plain, as their attributes ask for.
    #[serde(default)]
    pub plain_files: u64,
    /// Why nothing is coded at all, when something holds it up.
    pub coding_waits: Option<String>,
    pub inodes: u64,
    pub inodes_in_memory: u64,
    /// Memory budget, bytes, and what the tables of models may take beside it.
    pub memory_budget_bytes: u64,
    pub memory_model_bytes: u64,
    /// Parts of the budget that can be counted.
    pub memory_shares: BTreeMap<String, Share>,
    /// Times that memory was given back because the budget was near.
    pub memory_shrunk: u64,
    /// Plain bytes coded and their bytes in packs, in this volume.
    pub coded_plain_bytes: u64,
    pub coded_stored_bytes: u64,
    pub data_pack_bytes: u64,
    /// What of them giving space back would keep.
    pub data_live_bytes: u64,
    /// Plain bytes that files share, counted once less than they are named, and what they would take if they did not. At
    /// least: what is shared of segments that are not used whole is not counted.
    #[serde(default)]
    pub shared_plain_bytes: u64,
    #[serde(default)]
    pub shared_stored_bytes: u64,
    /// Plain bytes that were found in the volume instead of being coded, since it was opened.
    #[serde(default)]
    pub found_bytes: u64,
    /// Segments that were coded from others since it was opened, their plain bytes, and what they take.
    #[serde(default)]
    pub referring_segments: u64,
    #[serde(default)]
    pub referring_plain_bytes: u64,
    #[serde(default)]
    pub referring_stored_bytes: u64,
    pub meta_pack_bytes: u64,
    /// Packs given back since the volume was opened, and their bytes.
    pub gc_packs_deleted: u64,
    pub gc_bytes_deleted: u64,
    /// Packs worth giving back that are kept for the time being, and why.
    pub gc_kept: Vec<super::gc::KeptPack>,
    /// Method -> (segments, plain bytes, stored bytes).
    pub methods: BTreeMap<String, (u64, u64, u64)>,
    pub cache_bytes: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    #[serde(default)]
    pub hot: HotStatus,
    pub decodes: u64,
    pub decode_failures: u64,
    pub quarantined: u64,
    #[serde(default)]
    pub scrub: super::scrub::ScrubStatus,
    /// Files whose staged bytes failed a check.
    pub damaged_staged: u64,
}

/// A segment that is being coded.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CodingNow {
    /// The first of its files, from the root of the volume, and where it begins there.
    pub file: String,
    pub offset: u64,
    /// Files that lie in it, and plain bytes of all of them.
    pub files: u64,
    pub bytes: u64,
    pub class: String,
    pub tier: String,
    /// Since when.
    pub seconds: u64,
}

/// One segment of a file.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SegmentReport {
    pub file_offset: u64,
    pub bytes: u64,
    /// The name of the method, or "staged or hole".
    pub method: String,
    pub class: String,
    pub revision: u16,
    pub pack: u64,
    pub pack_offset: u64,
    /// Bytes of the whole record; a bundle's are shared by its files.
    pub stored_bytes: u64,
    /// Plain bytes of the whole segment.
    pub segment_bytes: u64,
    pub bits_per_byte: f64,
    /// What a cold read of a byte takes: of `part_bytes`, and of the segment that it was coded from.
    pub predicted_decode_ms: u32,
    /// Plain bytes that are decoded at once: all of the segment, or less of one that is decoded in parts.
    #[serde(default)]
    pub part_bytes: u64,
    /// Pack and offset of the segment that it was coded from.
    #[serde(default)]
    pub reference: Option<(u64, u64)>,
    /// Bytes of it that other files, or other places of this one, name too.
    #[serde(default)]
    pub shared_bytes: u64,
}

/// What a file is coded by from now on, and who says so: "own" (an attribute of the file), "inherited from" a directory,
/// "volume" (an option of the mount), or "tier" (the usual budget of the tier).
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct PolicyReport {
    pub tier: String,
    pub tier_from: String,
    /// The one method that the volume is told to use.
    pub method: Option<String>,
    /// Longest time to decode a segment.
    pub decode_ms: u32,
    pub decode_ms_from: String,
    /// The file is not coded at all.
    pub stays_plain: bool,
    pub stays_plain_from: String,
}

/// Everything `stat` shows of one file.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct FileReport {
    pub ino: u64,
    pub size: u64,
    pub staged_bytes: u64,
    pub stored_bytes: u64,
    /// 1 - stored / plain of the coded part.
    pub saved: f64,
    /// Plain bytes that lie in ranges of segments which other places name too.
    #[serde(default)]
    pub shared_bytes: u64,
    pub policy: PolicyReport,
    pub segments: Vec<SegmentReport>,
}
