//! The machine: files, durability, locks, clock, cores, memory. The only room that touches `std::fs`, wall-clock time
//! and `unsafe`.
//!
//! Must not know: what the bytes mean. Paths are relative to the store's directory, with `/`, never absolute, no `..`.
//! `RealDisk` is the machine; `SimDisk` is its twin for tests: it keeps what a disk could hold after a crash at any
//! sync, and fails on command.

mod load;
mod machine;
mod reader;
mod real;
mod sim;
mod spliced;
mod sys;
mod terminal;
mod tree;

pub use load::{Resource, local_time, on_battery, pressure};
pub use machine::{
    Mount, Scratch, canonical, cores, effort, exists, find_program, inode_of, is_directory, is_socket, kernel_release,
    last_line, make_directory, may_open, may_set_group, memory, mode_of, monotonic_ms, mount_of, mounts, now,
    number_of_name, open_log, random_id, read_text, remove_socket, restrict_to_owner, runtime_directory, scratch,
    set_readahead, stderr_is_journal, sync_filesystem, write_file,
};
pub use reader::FileReader;
pub use real::{RealDisk, wait_for_lock};
pub use sim::{Fault, SimDisk, Survival};
pub use spliced::SplicedFile;
pub use sys::{
    MountFlags, Ran, ask_filesystem, device_of, effective_gid, effective_uid, end_on_closed_pipe, give_memory_back,
    in_new_session, is_disconnected, limit_arenas, lower_priority, open_files_limit, raise_open_files_limit, remount,
    run_measured, thread_cpu_seconds, unmount, without_files,
};
pub use terminal::{CTRL_C, Keys};
pub use tree::{Met, TreeFile, open_file, walk};

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Existing file, reading only.
    Read,
    /// Existing file, reading and writing.
    Write,
    /// Reading and writing, created if missing.
    Create,
    /// Reading and writing, created; an existing file is an error.
    CreateNew,
}

/// What kind of bytes `seek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    Data,
    Hole,
}

/// True when an error says that the space is gone, or the quota of it.
pub fn is_out_of_space(e: &io::Error) -> bool {
    const ENOSPC: i32 = 28;
    const EDQUOT: i32 = 122;
    matches!(e.raw_os_error(), Some(ENOSPC | EDQUOT))
        || matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// True when an error says that this process, or the machine, has too many files open. A step that opens a file first
/// and fails so has not begun.
pub fn is_out_of_files(e: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(e.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Space of the filesystem that holds the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
    /// Free for users without privileges.
    pub available_bytes: u64,
    pub total_files: u64,
    pub free_files: u64,
}

/// The directory of a store. Everything that becomes durable goes through here, so that tests can stop it at any step.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file. Durable after `sync_dir` of its directory.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Renames a file or directory over another. Durable after `sync_dir` of both directories.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file another name as well. Durable after `sync_dir` of its directory. An error where the filesystem knows no such
    /// names.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Creates a directory; an existing one is fine.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Removes a directory with all that is in it; a missing one is fine.
    fn remove_dir_all(&self, path: &str) -> io::Result<()>;
    /// Names in a directory, unordered; empty when it does not exist.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Calls `f` with each name in a directory until it returns false; a directory that does not exist has none. Names that
    /// come or go meanwhile may be met or not.
    fn each_name(&self, path: &str, f: &mut dyn FnMut(&str) -> bool) -> io::Result<()> {
        for name in self.list(path)? {
            if !f(&name) {
                break;
            }
        }
        Ok(())
    }
    /// Makes names created, removed or renamed in a directory durable. "" is the store itself.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Space left.
    fn space(&self) -> io::Result<Space>;
    /// Makes everything written so far durable, all files and directories.
    fn sync_all(&self) -> io::Result<()>;
    /// Takes the lock of the store, held until the returned value is dropped: shared by readers, or alone. `WouldBlock`
    /// when another holds one that conflicts.
    fn lock(&self, shared: bool) -> io::Result<Box<dyn Send + Sync>>;
    /// The directory on this machine, for an engine that needs one; `None` in a simulation.
    fn native_path(&self) -> Option<&Path>;
}

/// One open file. All calls take `&self` and may come from several threads.
#[allow(clippy::len_without_is_empty)] // A file is only ever asked for its length.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data` at `offset`. Not durable before `sync_data`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all bytes written so far, and the length, durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes a range a hole without changing the length; writes zeros where holes are not supported.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Reserves space, also beyond the end, without changing the length or the bytes; `Unsupported` where it cannot.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// First offset at or after `offset` that is data or hole; `None` past the end. A disk without holes has data only.
    fn seek(&self, offset: u64, what: Seek) -> io::Result<Option<u64>>;
    /// Bytes allocated on the disk.
    fn allocated(&self) -> io::Result<u64>;
    /// Time of the last modification, seconds and nanoseconds since 1970.
    fn modified(&self) -> io::Result<(i64, u32)>;
    /// True when anybody else has the file open now or, after it was closed, still mapped into memory: its bytes may change
    /// or be looked at without a word. `Unsupported` where the filesystem cannot tell.
    fn is_shared(&self) -> io::Result<bool>;
    /// The descriptor, for passthrough; `None` in a simulation.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}
