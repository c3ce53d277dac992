//! `RealDisk`: a directory of this machine.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, OpenMode, Seek, Space, sys};

/// Name of the file that carries the store's lock.
const LOCK: &str = "LOCK";

/// The directory of a store on this machine. Files it makes are for their owner only.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// The root, open, so that a sync of everything needs no descriptor when there is none left.
    dir: File,
}

/// Waits until nobody holds the lock of a file. Nobody does where there is none.
///
/// # Blocking
/// As long as it is held.
pub fn wait_for_lock(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.lock(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

impl RealDisk {
    /// Uses a directory. With `create` it is made, with its parents, when it does not exist.
    ///
    /// # Errors
    /// `NotFound` when it does not exist and may not be made, `NotADirectory` when it is something else.
    pub fn open(root: &Path, create: bool) -> io::Result<Arc<RealDisk>> {
        if create {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        }
        if !fs::metadata(root)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let root = fs::canonicalize(root)?;
        let dir = File::open(&root)?;
        Ok(Arc::new(RealDisk { root, dir }))
    }

    /// Only plain relative paths reach the machine.
    fn path(&self, path: &str) -> io::Result<PathBuf> {
        let plain = path.is_empty() || path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !plain || path.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a path inside the store: {path}")));
        }
        Ok(if path.is_empty() { self.root.clone() } else { self.root.join(path) })
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile(options.open(self.path(path)?)?)))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from)?, self.path(to)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path(from)?, self.path(to)?)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(self.path(path)?) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.path(path)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(path)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned())).collect()
    }

    fn each_name(&self, path: &str, f: &mut dyn FnMut(&str) -> bool) -> io::Result<()> {
        // One by one: a directory of a million names is never in memory.
        let entries = match fs::read_dir(self.path(path)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            if !f(&entry?.file_name().to_string_lossy()) {
                break;
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return self.dir.sync_all();
        }
        File::open(self.path(path)?)?.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        sys::syncfs(self.dir.as_raw_fd())
    }

    fn space(&self) -> io::Result<Space> {
        sys::space(&self.root)
    }

    fn lock(&self, shared: bool) -> io::Result<Box<dyn Send + Sync>> {
        let path = self.path(LOCK)?;
        let make = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = if shared {
            // Whoever only reads changes nothing where it can be helped: a lock is taken on a file that is there. Read-only media
            // carry the one they were made with, or none, and then nobody can come to write.
            match File::open(&path).or_else(|_| make()) {
                Ok(file) => file,
                Err(_) => return Ok(Box::new(())),
            }
        } else {
            make()?
        };
        sys::lock(file.as_raw_fd(), shared)?;
        Ok(Box::new(file))
    }

    fn native_path(&self) -> Option<&Path> {
        Some(&self.root)
    }
}

/// An open file of this machine.
#[derive(Debug)]
pub(super) struct RealFile(pub(super) File);

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut got = 0;
        while let Some(rest) = buf.get_mut(got..).filter(|r| !r.is_empty()) {
            match self.0.read_at(rest, offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(got)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        match sys::fallocate(self.0.as_raw_fd(), sys::Allocate::Punch, offset, len) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => zero(self, offset, len),
            other => other,
        }
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        sys::fallocate(self.0.as_raw_fd(), sys::Allocate::KeepSize, offset, len)
    }

    fn seek(&self, offset: u64, what: Seek) -> io::Result<Option<u64>> {
        sys::seek(self.0.as_raw_fd(), offset, what)
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks() * 512)
    }

    fn modified(&self) -> io::Result<(i64, u32)> {
        let meta = self.0.metadata()?;
        Ok((meta.mtime(), meta.mtime_nsec() as u32))
    }

    fn is_shared(&self) -> io::Result<bool> {
        sys::is_shared(self.0.as_raw_fd())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// Writes zeros within the file where the filesystem below has no holes.
fn zero(file: &RealFile, offset: u64, len: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let end = offset.saturating_add(len).min(file.len()?);
    let mut at = offset;
    while at < end {
        let n = (end - at).min(ZEROS.len() as u64);
        file.write_at(ZEROS.get(..n as usize).unwrap_or_default(), at)?;
        at += n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, Arc<RealDisk>) {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), true).unwrap();
        (dir, disk)
    }

    #[test]
    fn a_lock_is_waited_for() {
        let (dir, _disk) = disk();
        let path = dir.path().join("locked");
        wait_for_lock(&path).unwrap();
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        std::thread::scope(|s| {
            s.spawn(|| tx.send(wait_for_lock(&path)));
            assert!(rx.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "it is held");
            drop(held);
            rx.recv_timeout(std::time::Duration::from_secs(60)).unwrap().unwrap();
        });
    }

    #[test]
    fn holes_are_found_and_made() {
        let (_dir, disk) = disk();
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        file.write_at(&[1; 4096], 1 << 20).unwrap();
        assert_eq!(file.seek(0, Seek::Data).unwrap(), Some(1 << 20));
        assert_eq!(file.seek(1 << 20, Seek::Hole).unwrap(), Some((1 << 20) + 4096));
        assert_eq!(file.seek(2 << 20, Seek::Data).unwrap(), None);
        file.punch(1 << 20, 4096).unwrap();
        assert_eq!(file.seek(0, Seek::Data).unwrap(), None);
        assert_eq!(file.len().unwrap(), (1 << 20) + 4096);
    }

    #[test]
    fn a_file_that_another_has_open_is_shared() {
        let (_dir, disk) = disk();
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        assert!(!file.is_shared().unwrap());
        for mode in [OpenMode::Read, OpenMode::Write] {
            let other = disk.open("f", mode).unwrap();
            assert!(file.is_shared().unwrap(), "{mode:?}");
            drop(other);
            assert!(!file.is_shared().unwrap());
        }
        let reader = disk.open("f", OpenMode::Read).unwrap();
        drop(file);
        assert!(!reader.is_shared().unwrap());
    }

    #[test]
    fn paths_stay_inside() {
        let (_dir, disk) = disk();
        for bad in ["../x", "/etc/passwd", "a//b", "a/../b", "."] {
            assert!(disk.open(bad, OpenMode::Read).is_err(), "{bad}");
        }
        assert!(disk.list("none").unwrap().is_empty());
    }

    #[test]
    fn one_writer_holds_the_lock() {
        let (_dir, disk) = disk();
        let held = disk.lock(false).unwrap();
        assert_eq!(disk.lock(false).err().map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
        assert!(disk.lock(true).is_err());
        drop(held);
        let (_a, _b) = (disk.lock(true).unwrap(), disk.lock(true).unwrap());
    }
}
