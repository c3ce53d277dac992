//! Operations of the kernel, each a few lines around a call of the volume.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::errno::errno;
use crate::base::{ByteRange, Ino};
use crate::volume::{
    AllocateMode, Attr, Caller, Error, FileKind, HandleId, OpenFor, Opened, RenameMode, SeekFor, SetAttr, SetTime,
    Time, Volume, XattrMode,
};

/// The kernel may keep names this long: all changes of names go through it.
const ENTRY_TTL: Duration = Duration::from_secs(60);
/// Attributes are kept shorter: coding changes the blocks of a file behind the kernel's back.
const ATTR_TTL: Duration = Duration::from_secs(1);
/// Largest request, bytes.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests the kernel may have under way in the background (reads ahead, writes behind).
const BACKGROUND_MAX: u16 = 64;
/// Entries fetched at a time for readdir.
const ENTRIES_PER_PAGE: usize = 256;
/// Size of a unit of statfs, bytes.
const STATFS_UNIT: u64 = 4096;

/// How the open handles of an inode are served: all in one way, as the kernel has it.
struct Service {
    handles: usize,
    /// The staging file, registered with the kernel, when it serves them by itself.
    backing: Option<Arc<BackingId>>,
}

/// The filesystem as fuser sees it.
pub(super) struct Adapter {
    pub volume: Arc<Volume>,
    /// The kernel can serve handles by itself, and we may let it.
    passthrough: bool,
    served: Mutex<HashMap<Ino, Service>>,
}

impl Adapter {
    pub fn new(volume: Arc<Volume>) -> Adapter {
        Adapter { volume, passthrough: false, served: Mutex::new(HashMap::new()) }
    }

    /// Decides how a new handle is served, and counts it. `register` makes the staging file known to the kernel.
    fn serve(
        &self,
        n: Ino,
        handle: HandleId,
        open: OpenFor,
        register: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let mut served = self.served.lock().unwrap_or_else(|e| e.into_inner());
        let backing = match served.get(&n) {
            Some(Service { backing: None, .. }) => None,
            Some(Service { backing: Some(id), .. }) => {
                // What serves the others must serve this one; the volume agrees as long as there are others.
                self.volume.bypass(n, handle).ok().flatten().map(|_| id.clone())
            }
            None if self.passthrough && open.write => self.volume.bypass(n, handle).ok().flatten().and_then(|file| {
                let id = file.fd().and_then(|fd| register(fd).ok());
                if id.is_none() {
                    self.volume.end_bypass(n, handle);
                }
                id.map(Arc::new)
            }),
            None => None,
        };
        served.entry(n).or_insert_with(|| Service { handles: 0, backing: backing.clone() }).handles += 1;
        backing
    }

    fn served_no_more(&self, n: Ino) {
        let mut served = self.served.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(service) = served.get_mut(&n) {
            service.handles -= 1;
            if service.handles == 0 {
                served.remove(&n);
            }
        }
    }
}

fn ino(n: INodeNo) -> Ino {
    Ino(n.0)
}

fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid() }
}

fn system_time(t: Time) -> SystemTime {
    let whole = Duration::from_secs(t.secs.unsigned_abs());
    let at = if t.secs >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    at.and_then(|at| at.checked_add(Duration::from_nanos(u64::from(t.nanos)))).unwrap_or(UNIX_EPOCH)
}

/// fuser 0.18 subtracts the nanoseconds of times before 1970 where they should be added; this gives them back.
fn plain_time(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Time { secs: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            Time { secs: i64::try_from(d.as_secs()).map_or(i64::MIN, |s| -s), nanos: d.subsec_nanos() }
        }
    }
}

fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(t) => SetTime::To(plain_time(t)),
    }
}

fn file_type(kind: FileKind) -> FileType {
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

fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(FileKind::Regular),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    }
}

fn file_attr(a: &Attr) -> FileAttr {
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
fn open_for(flags: i32) -> OpenFor {
    let mode = OpenFlags(flags).acc_mode();
    OpenFor {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        append: false,
        truncate: flags & libc::O_TRUNC != 0,
    }
}

/// What was cached of a file stays true across opens, since every change goes through the kernel; but not when the open
/// itself changes the size, or when bytes went past the cached pages.
fn fopen_flags(opened: Opened) -> FopenFlags {
    if opened.keep_pages { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() }
}

fn masked(mode: u32, umask: u32) -> u16 {
    (mode & !umask & 0o7777) as u16
}

fn allocate_mode(mode: i32) -> Option<AllocateMode> {
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

fn entry(op: &str, outcome: Result<Attr, Error>, reply: ReplyEntry) {
    match outcome {
        Ok(a) => reply.entry_with_ttls(&ATTR_TTL, &ENTRY_TTL, &file_attr(&a), Generation(0)),
        Err(e) => reply.error(errno(op, &e)),
    }
}

fn empty(op: &str, outcome: Result<(), Error>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(op, &e)),
    }
}

fn xattr(op: &str, outcome: Result<Vec<u8>, Error>, size: u32, reply: ReplyXattr) {
    match outcome {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(e) => reply.error(errno(op, &e)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // One by one: asking for one that the kernel lacks would lose them all.
        for flag in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ] {
            if config.add_capabilities(flag).is_err() {
                log::debug!("the kernel does not offer {flag:?}");
            }
        }
        // Stacked one deep: staging lies on an ordinary filesystem. Root only; others are refused when they register.
        self.passthrough =
            config.set_max_stack_depth(1).is_ok() && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry("lookup", self.volume.lookup(ino(parent), name.as_bytes()), reply);
    }

    fn forget(&self, _req: &Request, n: INodeNo, _nlookup: u64) {
        self.volume.forget(ino(n));
    }

    fn getattr(&self, _req: &Request, n: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.volume.getattr(ino(n)) {
            Ok(a) => reply.attr(&ATTR_TTL, &file_attr(&a)),
            Err(e) => reply.error(errno("getattr", &e)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        n: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(|m| (m & 0o7777) as u16),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(plain_time),
        };
        match self.volume.setattr(ino(n), &set) {
            Ok(a) => reply.attr(&ATTR_TTL, &file_attr(&a)),
            Err(e) => reply.error(errno("setattr", &e)),
        }
    }

    fn readlink(&self, _req: &Request, n: INodeNo, reply: ReplyData) {
        match self.volume.readlink(ino(n)) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno("readlink", &e)),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let Some(kind) = kind_of_mode(mode) else { return reply.error(fuser::Errno::EINVAL) };
        let made = self.volume.mknod(ino(parent), name.as_bytes(), kind, masked(mode, umask), rdev, &caller(req));
        entry("mknod", made, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entry("mkdir", self.volume.mkdir(ino(parent), name.as_bytes(), masked(mode, umask), &caller(req)), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty("unlink", self.volume.unlink(ino(parent), name.as_bytes()), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty("rmdir", self.volume.rmdir(ino(parent), name.as_bytes()), reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        entry("symlink", self.volume.symlink(ino(parent), name.as_bytes(), target, &caller(req)), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags.bits() {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(fuser::Errno::EINVAL),
        };
        let done = self.volume.rename(ino(parent), name.as_bytes(), ino(to), to_name.as_bytes(), mode);
        empty("rename", done, reply);
    }

    fn link(&self, _req: &Request, n: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry("link", self.volume.link(ino(n), ino(parent), name.as_bytes()), reply);
    }

    fn open(&self, _req: &Request, n: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = open_for(flags.0);
        match self.volume.open_file(ino(n), open) {
            Ok(opened) => {
                let fh = FileHandle(opened.handle.0);
                match self.serve(ino(n), opened.handle, open, |fd| reply.open_backing(fd)) {
                    Some(backing) => reply.opened_passthrough(fh, FopenFlags::empty(), &backing),
                    None => reply.opened(fh, fopen_flags(opened)),
                }
            }
            Err(e) => reply.error(errno("open", &e)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let open = OpenFor { truncate: false, ..open_for(flags) };
        match self.volume.create(ino(parent), name.as_bytes(), masked(mode, umask), &caller(req), open) {
            Ok((a, opened)) => {
                let fh = FileHandle(opened.handle.0);
                let attr = file_attr(&a);
                match self.serve(a.ino, opened.handle, open, |fd| reply.open_backing(fd)) {
                    Some(id) => {
                        reply.created_passthrough(&ATTR_TTL, &attr, Generation(0), fh, FopenFlags::empty(), &id);
                    }
                    None => reply.created(&ATTR_TTL, &attr, Generation(0), fh, fopen_flags(opened)),
                }
            }
            Err(e) => reply.error(errno("create", &e)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        n: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let range = ByteRange::at(offset, u64::from(size));
        self.volume.read(
            ino(n),
            range,
            Box::new(move |outcome| match outcome {
                Ok(bytes) => reply.data(bytes),
                Err(e) => reply.error(errno("read", &e)),
            }),
        );
    }

    fn write(
        &self,
        _req: &Request,
        n: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.volume.write(ino(n), HandleId(fh.0), offset, data) {
            Ok(written) => reply.written(written as u32),
            Err(e) => reply.error(errno("write", &e)),
        }
    }

    fn flush(&self, _req: &Request, _n: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // close(2) promises nothing beyond what write did; errors of staging came with the writes.
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        n: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let released = self.volume.release(ino(n), HandleId(fh.0));
        self.served_no_more(ino(n));
        empty("release", released, reply);
    }

    fn fsync(&self, _req: &Request, n: INodeNo, _fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        empty("fsync", self.volume.fsync(ino(n), datasync), reply);
    }

    fn fsyncdir(&self, _req: &Request, n: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty("fsyncdir", self.volume.fsync_dir(ino(n)), reply);
    }

    fn opendir(&self, _req: &Request, _n: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Nothing is kept per open directory: with this answer the kernel stops asking.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, n: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut at = offset;
        loop {
            let page = match self.volume.readdir(ino(n), at, ENTRIES_PER_PAGE) {
                Ok(page) => page,
                Err(e) => return reply.error(errno("readdir", &e)),
            };
            let Some(last) = page.last() else { return reply.ok() };
            at = last.cookie;
            for e in page {
                if reply.add(INodeNo(e.ino.0), e.cookie, file_type(e.kind), OsStr::from_bytes(&e.name)) {
                    return reply.ok();
                }
            }
        }
    }

    fn readdirplus(&self, _req: &Request, n: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let mut at = offset;
        loop {
            let page = match self.volume.readdir(ino(n), at, ENTRIES_PER_PAGE) {
                Ok(page) => page,
                Err(e) => return reply.error(errno("readdirplus", &e)),
            };
            let Some(last) = page.last() else { return reply.ok() };
            at = last.cookie;
            for e in page {
                // An entry removed since the page was read is passed over.
                let Ok(a) = self.volume.getattr(e.ino) else { continue };
                let name = OsStr::from_bytes(&e.name);
                if reply.add(INodeNo(e.ino.0), e.cookie, name, &ATTR_TTL, &file_attr(&a), Generation(0)) {
                    return reply.ok();
                }
            }
        }
    }

    fn statfs(&self, _req: &Request, _n: INodeNo, reply: ReplyStatfs) {
        match self.volume.statfs() {
            Ok(s) => reply.statfs(
                s.total_bytes / STATFS_UNIT,
                s.free_bytes / STATFS_UNIT,
                s.available_bytes / STATFS_UNIT,
                s.inodes,
                s.free_inodes,
                STATFS_UNIT as u32,
                crate::volume::NAME_BYTES_MAX as u32,
                STATFS_UNIT as u32,
            ),
            Err(e) => reply.error(errno("statfs", &e)),
        }
    }

    fn setxattr(
        &self,
        _req: &Request,
        n: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            0 => XattrMode::Set,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(fuser::Errno::EINVAL),
        };
        empty("setxattr", self.volume.setxattr(ino(n), name.as_bytes(), value, mode), reply);
    }

    fn getxattr(&self, _req: &Request, n: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr("getxattr", self.volume.getxattr(ino(n), name.as_bytes()), size, reply);
    }

    fn listxattr(&self, _req: &Request, n: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.volume.listxattr(ino(n)).map(|names| {
            names.into_iter().fold(Vec::new(), |mut all, name| {
                all.extend_from_slice(&name);
                all.push(0);
                all
            })
        });
        xattr("listxattr", names, size, reply);
    }

    fn removexattr(&self, _req: &Request, n: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty("removexattr", self.volume.removexattr(ino(n), name.as_bytes()), reply);
    }

    fn fallocate(
        &self,
        _req: &Request,
        n: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        match allocate_mode(mode) {
            Some(mode) => {
                empty("fallocate", self.volume.allocate(ino(n), mode, ByteRange::at(offset, length)), reply);
            }
            None => reply.error(fuser::Errno::EOPNOTSUPP),
        }
    }

    fn lseek(&self, _req: &Request, n: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let what = match whence {
            libc::SEEK_DATA => SeekFor::Data,
            libc::SEEK_HOLE => SeekFor::Hole,
            _ => return reply.error(fuser::Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(fuser::Errno::ENXIO) };
        match self.volume.seek(ino(n), offset, what) {
            Ok(at) => reply.offset(at as i64),
            Err(e) => reply.error(errno("lseek", &e)),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        _n: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel then copies by itself.
        reply.error(fuser::Errno::ENOSYS);
    }
}
