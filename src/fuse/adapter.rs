//! Operations of the kernel, each a few lines around a call of the volume.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::convert::{
    STATFS_UNIT, allocate_mode, caller, file_attr, file_type, ino, keeps_setgid, kind_of_mode, new_mode, open_for,
    plain_time, reads_quietly, set_time, syncs,
};
use super::errno::errno;
use super::mount::MountOptions;
use super::served::{Opening, Served};
use crate::base::ByteRange;
use crate::volume::{Attr, Error, HandleId, OpenFor, Opened, RenameMode, SeekFor, SetAttr, Volume, XattrMode};

/// The kernel may keep names this long: all changes of names go through it.
const ENTRY_TTL: Duration = Duration::from_secs(60);
/// Attributes are kept shorter: coding changes the blocks of a file behind the kernel's back.
const ATTR_TTL: Duration = Duration::from_secs(1);
/// Largest request, bytes.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Requests the kernel may have under way in the background (reads ahead, writes behind).
const BACKGROUND_MAX: u16 = 64;
/// Entries fetched at a time for readdir, with and without attributes: about what the kernel's page takes, since what
/// does not fit is asked for again.
const ENTRIES_PER_PAGE: usize = 128;
const ENTRIES_PLUS_PER_PAGE: usize = 24;
/// The filesystem as fuser sees it.
pub(super) struct Adapter {
    pub volume: Arc<Volume>,
    served: Served,
    writeback_cache: bool,
}

impl Adapter {
    pub fn new(volume: Arc<Volume>, options: &MountOptions) -> Adapter {
        let passthrough = options.passthrough && !options.writeback_cache;
        Adapter { served: Served::new(passthrough), volume, writeback_cache: options.writeback_cache }
    }

    /// Flags of an open that the kernel serves from its pages. What it has cached of a file stays true across opens, since
    /// every change goes through it; but not when the open itself changes the size, or when bytes went past the pages.
    /// Pages are given up too when reading must move the time of access: only what reaches us can.
    fn cached(&self, n: INodeNo, opened: Opened, open: OpenFor, quiet: bool) -> FopenFlags {
        let unseen = open.read && !quiet && self.volume.access_due(ino(n));
        if opened.keep_pages && !unseen { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() }
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
        // One by one: asking for one that the kernel lacks would lose them all. Not FUSE_ATOMIC_O_TRUNC: the kernel looks
        // after such an open only whether the file is a running program (ETXTBSY), which would be cut by then.
        for flag in [
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ] {
            if config.add_capabilities(flag).is_err() {
                log::debug!("the kernel does not offer {flag:?}");
            }
        }
        if self.writeback_cache && config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE).is_err() {
            log::warn!("the kernel has no writeback cache: writes go through");
        }
        // Stacked one deep: staging lies on an ordinary filesystem. Root only; others are refused when they register.
        self.served.passthrough &=
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
            Ok(target) => {
                self.volume.accessed(ino(n));
                reply.data(&target);
            }
            Err(e) => reply.error(errno("readlink", &e)),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let Some(kind) = kind_of_mode(mode) else { return reply.error(fuser::Errno::EINVAL) };
        let made = self.volume.mknod(ino(parent), name.as_bytes(), kind, new_mode(mode, umask), rdev, &caller(req));
        entry("mknod", made, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entry("mkdir", self.volume.mkdir(ino(parent), name.as_bytes(), new_mode(mode, umask), &caller(req)), reply);
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

    fn open(&self, req: &Request, n: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (open, quiet) = (open_for(flags.0), reads_quietly(flags.0));
        match self.volume.open_file(ino(n), open) {
            Ok(opened) => {
                let fh = FileHandle(opened.handle.0);
                let opening = Opening { open, thread: req.pid(), syncs: syncs(flags.0) };
                match self.served.begin(&self.volume, ino(n), opened, opening, |fd| reply.open_backing(fd)) {
                    Some(backing) => {
                        // Reads will not reach us.
                        if open.read && !quiet {
                            self.volume.accessed(ino(n));
                        }
                        reply.opened_passthrough(fh, FopenFlags::empty(), &backing);
                    }
                    None => reply.opened(fh, self.cached(n, opened, open, quiet)),
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
        match self.volume.create(ino(parent), name.as_bytes(), new_mode(mode, umask), &caller(req), open) {
            Ok((a, opened)) => {
                let fh = FileHandle(opened.handle.0);
                let attr = file_attr(&a);
                let opening = Opening { open, thread: req.pid(), syncs: syncs(flags) };
                match self.served.begin(&self.volume, a.ino, opened, opening, |fd| reply.open_backing(fd)) {
                    Some(id) => {
                        reply.created_passthrough(&ATTR_TTL, &attr, Generation(0), fh, FopenFlags::empty(), &id);
                    }
                    None => reply.created(&ATTR_TTL, &attr, Generation(0), fh, FopenFlags::FOPEN_KEEP_CACHE),
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
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if !reads_quietly(flags.0) {
            self.volume.accessed(ino(n));
        }
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

    fn flush(&self, _req: &Request, n: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        empty("flush", self.volume.flush_file(ino(n)), reply);
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
        // In this order: a handle opened in between must not be served with a staging file that the volume may have let go.
        self.served.end(ino(n), HandleId(fh.0));
        empty("release", self.volume.release(ino(n), HandleId(fh.0)), reply);
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
        self.volume.accessed(ino(n));
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
        self.volume.accessed(ino(n));
        let mut at = offset;
        loop {
            let page = match self.volume.readdir(ino(n), at, ENTRIES_PLUS_PER_PAGE) {
                Ok(page) => page,
                Err(e) => return reply.error(errno("readdirplus", &e)),
            };
            let Some(last) = page.last() else { return reply.ok() };
            at = last.cookie;
            for e in page {
                // An entry removed since the page was read is passed over.
                let Ok(a) = self.volume.glance(e.ino) else { continue };
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
        req: &Request,
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
        let done = self.volume.setxattr_by(ino(n), name.as_bytes(), value, mode, |gid| keeps_setgid(req, gid));
        empty("setxattr", done, reply);
    }

    fn getxattr(&self, _req: &Request, n: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr("getxattr", self.volume.getxattr(ino(n), name.as_bytes()), size, reply);
    }

    fn listxattr(&self, req: &Request, n: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.volume.listxattr(ino(n)).map(|names| {
            // What only root may read only root is told of.
            names.into_iter().filter(|name| req.uid() == 0 || !name.starts_with(b"trusted.")).fold(
                Vec::new(),
                |mut all, name| {
                    all.extend_from_slice(&name);
                    all.push(0);
                    all
                },
            )
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
        from: INodeNo,
        _fh_in: FileHandle,
        offset: u64,
        to: INodeNo,
        fh: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // Where this is declined (EOPNOTSUPP) the kernel copies by itself.
        match self.volume.clone_range(ino(from), offset, ino(to), HandleId(fh.0), to_offset, len) {
            Ok(copied) => {
                self.volume.accessed(ino(from));
                reply.written(copied as u32);
            }
            Err(e) => reply.error(errno("copy_file_range", &e)),
        }
    }
}
