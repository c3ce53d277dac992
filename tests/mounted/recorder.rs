//! A disk that remembers: a FUSE filesystem inside the test program with one file, an image, on which a loop device is put.
//! Every write and every flush of the device is kept in its order, so that what a machine without power would find can be
//! put together afterwards: all writes up to a flush, and of those after it any. It can also fail, as a disk that is gone.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};

use super::{Dice, arg, ok, run};

const IMAGE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);
/// What a disk writes whole or not at all, bytes.
const SECTOR: usize = 512;

/// Something that happened to the disk.
#[derive(Clone)]
enum Event {
    Write { offset: u64, data: Vec<u8> },
    Flush,
}

#[derive(Default)]
struct Tape {
    bytes: Vec<u8>,
    events: Vec<Event>,
}

/// What is shared between the filesystem and its owner.
#[derive(Clone, Default)]
struct Shared {
    tape: Arc<Mutex<Tape>>,
    gone: Arc<AtomicBool>,
}

impl Shared {
    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let size = if ino == IMAGE { self.tape().bytes.len() as u64 } else { 0 };
        let kind = if ino == IMAGE { FileType::RegularFile } else { FileType::Directory };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Shared {
    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "image" {
            reply.entry(&TTL, &self.attr(IMAGE), Generation(0));
        } else {
            reply.error(fuser::Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.is_gone() {
            return reply.error(fuser::Errno::EIO);
        }
        let tape = self.tape();
        let start = (offset as usize).min(tape.bytes.len());
        let end = (start + size as usize).min(tape.bytes.len());
        reply.data(&tape.bytes[start..end]);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.is_gone() {
            return reply.error(fuser::Errno::EIO);
        }
        let mut tape = self.tape();
        let at = offset as usize;
        if at + data.len() > tape.bytes.len() {
            return reply.error(fuser::Errno::ENOSPC);
        }
        tape.bytes[at..at + data.len()].copy_from_slice(data);
        tape.events.push(Event::Write { offset, data: data.to_vec() });
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        if self.is_gone() {
            return reply.error(fuser::Errno::EIO);
        }
        self.tape().events.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// A filesystem on a loop device on the recorded image.
pub struct Recorder {
    shared: Shared,
    below: PathBuf,
    device: String,
    /// Where the filesystem is mounted.
    pub point: PathBuf,
    session: Option<BackgroundSession>,
}

impl Recorder {
    /// Makes a filesystem of a kind ("ext4", "xfs", "btrfs") and a size, and mounts it on `dir/disk`.
    pub fn new(dir: &Path, kind: &str, mib: usize) -> Recorder {
        let shared = Shared::default();
        shared.tape().bytes = vec![0; mib << 20];
        let (below, point) = (dir.join("below"), dir.join("disk"));
        std::fs::create_dir_all(&below).unwrap();
        std::fs::create_dir_all(&point).unwrap();
        let session = Session::new(shared.clone(), &below, &Config::default()).expect("mount of the recorder");
        let session = session.spawn().expect("a thread for the recorder");
        let image = below.join("image");
        let device = ok("losetup", &["--find", "--show", arg(&image)], 30).trim().to_string();
        let recorder = Recorder { shared, below, device, point, session: Some(session) };
        let (program, flags) = match kind {
            "ext4" => ("mkfs.ext4", vec!["-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]),
            "xfs" => ("mkfs.xfs", vec!["-q", "-f", "-K"]),
            _ => ("mkfs.btrfs", vec!["-q", "-f", "-K"]),
        };
        let mut args = flags;
        args.push(&recorder.device);
        ok(program, &args, 60);
        ok("mount", &[&recorder.device, arg(&recorder.point)], 60);
        recorder
    }

    /// Place on the tape: everything recorded so far lies before it.
    pub fn position(&self) -> usize {
        self.shared.tape().events.len()
    }

    /// From now on every read and write of the device fails, or works again.
    pub fn set_gone(&self, gone: bool) {
        self.shared.gone.store(gone, Ordering::SeqCst);
    }

    /// Unmounts the filesystem; the tape stays.
    pub fn unmount(&self) {
        ok("umount", &[arg(&self.point)], 60);
    }

    /// Takes the filesystem down and mounts it again, which repairs what its journal can.
    pub fn remount(&self) {
        self.unmount();
        ok("mount", &[&self.device, arg(&self.point)], 60);
    }

    /// Writes to `image` what a disk could hold that lost its power at a place on the tape: everything up to the last flush,
    /// and of the writes since then those that chance keeps. Says which.
    pub fn image_at(&self, position: usize, dice: &mut Dice, image: &Path) -> String {
        let tape = self.shared.tape();
        let events = &tape.events[..position];
        let flushed = events.iter().rposition(|e| matches!(e, Event::Flush)).map_or(0, |n| n + 1);
        let file = File::create(image).unwrap();
        file.set_len(tape.bytes.len() as u64).unwrap();
        let put = |event: &Event, part: usize| {
            if let Event::Write { offset, data } = event {
                file.write_all_at(&data[..part.min(data.len())], *offset).unwrap();
            }
        };
        events[..flushed].iter().for_each(|e| put(e, usize::MAX));
        let loose = &events[flushed..];
        let how = match dice.below(5) {
            0 => "none",
            1 => "all",
            2 => "some",
            3 => "all but one",
            _ => "the first, the last one torn",
        };
        let (spared, first) = (dice.below(loose.len() as u64), dice.below(loose.len() as u64 + 1) as usize);
        for (n, event) in loose.iter().enumerate() {
            match how {
                "none" => {}
                "some" if dice.below(2) == 0 => {}
                "all but one" if n as u64 == spared => {}
                "the first, the last one torn" if n > first => {}
                "the first, the last one torn" if n == first => put(event, dice.below(64) as usize * SECTOR),
                _ => put(event, usize::MAX),
            }
        }
        format!("event {position} of {}, {how} of {} since the last flush", tape.events.len(), loose.len())
    }

    /// Flushes on the tape between two places.
    pub fn flushes(&self, from: usize, to: usize) -> usize {
        self.shared.tape().events[from..to].iter().filter(|e| matches!(e, Event::Flush)).count()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // A device that fails cannot be unmounted cleanly.
        self.set_gone(false);
        if run("umount", &[arg(&self.point)], 60).code != Some(0) {
            run("umount", &["-l", arg(&self.point)], 60);
        }
        run("losetup", &["-d", &self.device], 30);
        // The loop device lets go of the image some time later.
        for _ in 0..100 {
            if run("umount", &[arg(&self.below)], 30).code == Some(0) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(session) = self.session.take() {
            drop(session);
        }
    }
}
