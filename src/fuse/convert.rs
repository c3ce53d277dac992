//! Plain types of the volume and those of fuser, into each other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, Request, TimeOrNow};

use crate::base::Ino;
use crate::volume::{AllocateMode, Attr, Caller, FileKind, NewMode, OpenFor, SetTime, Time};

/// Size of a unit of statfs, bytes.
pub(super) const STATFS_UNIT: u64 = 4096;

pub(super) fn ino(n: INodeNo) -> Ino {
    Ino(n.0)
}

pub(super) fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid() }
}

fn system_time(t: Time) -> SystemTime {
    let whole = Duration::from_secs(t.secs.unsigned_abs());
    let at = if t.secs >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    at.and_then(|at| at.checked_add(Duration::from_nanos(u64::from(t.nanos)))).unwrap_or(UNIX_EPOCH)
}

/// fuser 0.18 subtracts the nanoseconds of times before 1970 where they should be added; this gives them back.
pub(super) fn plain_time(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Time { secs: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            Time { secs: i64::try_from(d.as_secs()).map_or(i64::MIN, |s| -s), nanos: d.subsec_nanos() }
        }
    }
}

pub(super) fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(t) => SetTime::To(plain_time(t)),
    }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(FileKind::Regular),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    }
}

pub(super) fn file_attr(a: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(a.ino.0),
        size: a.size,
        blocks: a.blocks,
        atime: system_time(a.atime),
        mtime: system_time(a.mtime),
        ctime: system_time(a.ctime),
        crtime: system_time(a.btime),
        kind: file_type(a.kind),
        perm: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: STATFS_UNIT as u32,
        flags: 0,
    }
}

/// The kernel places appended bytes itself, so a handle is never told to append: bytes written back from a mapping go
/// through the same handle and have their own offsets.
pub(super) fn open_for(flags: i32) -> OpenFor {
    let mode = OpenFlags(flags).acc_mode();
    OpenFor {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        append: false,
        truncate: flags & libc::O_TRUNC != 0,
    }
}

pub(super) fn new_mode(mode: u32, umask: u32) -> NewMode {
    NewMode { mode: (mode & 0o7777) as u16, umask: (umask & 0o777) as u16 }
}

/// O_SYNC or O_DSYNC, whose bit the other includes.
pub(super) fn syncs(flags: i32) -> bool {
    flags & libc::O_DSYNC != 0
}

/// O_NOATIME.
pub(super) fn reads_quietly(flags: i32) -> bool {
    flags & libc::O_NOATIME != 0
}

/// Whether the caller may give a setgid file to a group: is in it, or privileged. fuser 0.18 is not told by the kernel.
pub(super) fn keeps_setgid(req: &Request, gid: u32) -> bool {
    req.gid() == gid || crate::volume::may_set_group(req.pid(), gid)
}

pub(super) fn allocate_mode(mode: i32) -> Option<AllocateMode> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Some(AllocateMode::Extend),
        libc::FALLOC_FL_KEEP_SIZE => Some(AllocateMode::KeepSize),
        PUNCH => Some(AllocateMode::Punch),
        libc::FALLOC_FL_ZERO_RANGE => Some(AllocateMode::Zero),
        ZERO_KEEP => Some(AllocateMode::ZeroKeepSize),
        _ => None,
    }
}
