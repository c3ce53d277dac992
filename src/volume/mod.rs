//! A mounted volume below the kernel: inodes, dentries, extents, staging, cache, policy.

mod types;

use std::sync::Arc;

use crate::base::{ByteRange, Ino};
use crate::host::Disk;
use crate::store::Recovery;
use crate::workers::Workers;

pub use crate::format::{FileKind, Time};
pub use types::{
    AllocateMode, Attr, Caller, CodedSegment, CodingTask, Entry, Error, FileReport, HandleId, Opened, OpenFor, RenameMode,
    SeekFor, SegmentReport, SetAttr, SetTime, StatFs, Status, VolumeOptions, XattrMode,
};

/// Answer of a read: the bytes (fewer than asked only at the end of the file) or why not.
pub type ReadDone = Box<dyn FnOnce(Result<&[u8], Error>) + Send>;

/// An open volume. Every call takes `&self` and may come from any thread.
pub struct Volume {}

impl Volume {
    /// Opens the store in `disk`, recovers, and removes what was unlinked while open.
    pub fn open(_disk: Arc<dyn Disk>, _options: VolumeOptions, _workers: Arc<Workers>) -> Result<(Arc<Volume>, Recovery), Error> {
        todo!()
    }

    // ---- names ----

    pub fn lookup(&self, _parent: Ino, _name: &[u8]) -> Result<Attr, Error> {
        todo!()
    }
    /// The kernel holds no reference any more: the point where an unlinked inode without handles is removed.
    pub fn forget(&self, _ino: Ino) {
        todo!()
    }
    /// Makes a node of any kind but directory and symlink. `mode` is already masked.
    pub fn mknod(&self, _parent: Ino, _name: &[u8], _kind: FileKind, _mode: u16, _rdev: u32, _caller: &Caller) -> Result<Attr, Error> {
        todo!()
    }
    pub fn mkdir(&self, _parent: Ino, _name: &[u8], _mode: u16, _caller: &Caller) -> Result<Attr, Error> {
        todo!()
    }
    pub fn symlink(&self, _parent: Ino, _name: &[u8], _target: &[u8], _caller: &Caller) -> Result<Attr, Error> {
        todo!()
    }
    pub fn readlink(&self, _ino: Ino) -> Result<Vec<u8>, Error> {
        todo!()
    }
    pub fn link(&self, _ino: Ino, _parent: Ino, _name: &[u8]) -> Result<Attr, Error> {
        todo!()
    }
    pub fn unlink(&self, _parent: Ino, _name: &[u8]) -> Result<(), Error> {
        todo!()
    }
    pub fn rmdir(&self, _parent: Ino, _name: &[u8]) -> Result<(), Error> {
        todo!()
    }
    pub fn rename(&self, _parent: Ino, _name: &[u8], _to_parent: Ino, _to_name: &[u8], _mode: RenameMode) -> Result<(), Error> {
        todo!()
    }
    /// Up to `limit` entries after position `cookie` (0 starts). Position 1 is ".", 2 is "..", entries follow in a stable order.
    pub fn readdir(&self, _dir: Ino, _cookie: u64, _limit: usize) -> Result<Vec<Entry>, Error> {
        todo!()
    }

    // ---- attributes ----

    pub fn getattr(&self, _ino: Ino) -> Result<Attr, Error> {
        todo!()
    }
    /// Changes attributes; a change of size is a truncate.
    pub fn setattr(&self, _ino: Ino, _set: &SetAttr) -> Result<Attr, Error> {
        todo!()
    }
    pub fn getxattr(&self, _ino: Ino, _name: &[u8]) -> Result<Vec<u8>, Error> {
        todo!()
    }
    pub fn listxattr(&self, _ino: Ino) -> Result<Vec<Vec<u8>>, Error> {
        todo!()
    }
    pub fn setxattr(&self, _ino: Ino, _name: &[u8], _value: &[u8], _mode: XattrMode) -> Result<(), Error> {
        todo!()
    }
    pub fn removexattr(&self, _ino: Ino, _name: &[u8]) -> Result<(), Error> {
        todo!()
    }
    pub fn statfs(&self) -> Result<StatFs, Error> {
        todo!()
    }

    // ---- data ----

    /// Creates a regular file and opens it.
    pub fn create(&self, _parent: Ino, _name: &[u8], _mode: u16, _caller: &Caller, _open: OpenFor) -> Result<(Attr, Opened), Error> {
        todo!()
    }
    pub fn open_file(&self, _ino: Ino, _open: OpenFor) -> Result<Opened, Error> {
        todo!()
    }
    /// Reads `range`. Staged bytes and cached segments answer before the call returns; otherwise `done` is called later on
    /// a worker. No decode runs on the calling thread.
    pub fn read(self: &Arc<Self>, _ino: Ino, _range: ByteRange, _done: ReadDone) {
        todo!()
    }
    /// Writes all of `data` to staging (at the end of the file for a handle opened to append). Never decodes, never syncs.
    pub fn write(&self, _ino: Ino, _handle: HandleId, _offset: u64, _data: &[u8]) -> Result<usize, Error> {
        todo!()
    }
    /// Ends a handle; the last one makes the file's attributes part of the log and the file a candidate for coding.
    pub fn release(&self, _ino: Ino, _handle: HandleId) -> Result<(), Error> {
        todo!()
    }
    /// # Durability
    /// Data and metadata of the file are on disk at return. Never waits for a model.
    pub fn fsync(&self, _ino: Ino, _data_only: bool) -> Result<(), Error> {
        todo!()
    }
    /// # Durability
    /// All names committed before the call are on disk at return.
    pub fn fsync_dir(&self, _ino: Ino) -> Result<(), Error> {
        todo!()
    }
    pub fn allocate(&self, _ino: Ino, _mode: AllocateMode, _range: ByteRange) -> Result<(), Error> {
        todo!()
    }
    pub fn seek(&self, _ino: Ino, _offset: u64, _what: SeekFor) -> Result<u64, Error> {
        todo!()
    }

    // ---- background ----

    /// Up to `limit` segments worth coding now: of files that are closed and quiet. `drain` ignores the quiet time.
    /// A segment handed out is not handed out again until committed or abandoned.
    pub fn plan_coding(&self, _limit: usize, _drain: bool) -> Vec<CodingTask> {
        todo!()
    }
    /// Collects the plain bytes, codes, decodes, compares. For a worker thread.
    pub fn code(&self, _task: CodingTask) -> CodedSegment {
        todo!()
    }
    /// Appends, syncs, swaps extents of all inodes whose generation has not moved, syncs, frees staging.
    ///
    /// # Durability
    /// What was swapped is on disk at return.
    pub fn commit_coded(&self, _segments: Vec<CodedSegment>) -> Result<(), Error> {
        todo!()
    }
    /// Makes changes older than the flush interval durable; called by a timer every few seconds.
    pub fn flush(&self) -> Result<(), Error> {
        todo!()
    }
    /// Housekeeping: index checkpoint when it is due. Called by a timer when the volume is idle.
    pub fn checkpoint(&self) -> Result<(), Error> {
        todo!()
    }
    /// Counts for `status`.
    pub fn status(&self) -> Result<Status, Error> {
        todo!()
    }
    /// Per-segment facts of one file for `stat`.
    pub fn report(&self, _ino: Ino) -> Result<FileReport, Error> {
        todo!()
    }
    /// Flushes everything, checkpoints, closes the store. Later calls fail.
    pub fn close(&self) -> Result<(), Error> {
        todo!()
    }
}
