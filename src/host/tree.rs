//! Trees of files anywhere on this machine, looked at and never changed.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DiskFile;
use super::real::RealFile;

/// Files with several names that are remembered, so that each counts once; beyond it names count for themselves.
const LINKED_MAX: usize = 1 << 20;

/// A regular file of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeFile {
    pub path: PathBuf,
    /// Bytes.
    pub len: u64,
    /// It takes less space than that: there may be holes in it.
    pub is_sparse: bool,
}

/// What a walk meets.
#[derive(Debug)]
pub enum Met {
    File(TreeFile),
    Directory,
    Symlink,
    /// Another name of a file that was met.
    HardLink,
    /// Socket, pipe, device.
    Special,
    /// It cannot be looked at; the walk goes on.
    Unreadable(PathBuf, io::Error),
}

/// Goes over a file, or a directory and all below it, in the order of names, files before directories. Symlinks are not
/// followed, but for `root` itself.
///
/// # Errors
/// `root` is not there or cannot be looked at.
pub fn walk(root: &Path, met: &mut dyn FnMut(Met)) -> io::Result<()> {
    let root = fs::canonicalize(root)?;
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    let mut directories = Vec::new();
    let mut meet = |path: PathBuf, directories: &mut Vec<PathBuf>, met: &mut dyn FnMut(Met)| {
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) => return met(Met::Unreadable(path, e)),
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            met(Met::Directory);
            directories.push(path);
        } else if kind.is_symlink() {
            met(Met::Symlink);
        } else if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            met(Met::Special);
        } else if meta.nlink() > 1 && seen.len() < LINKED_MAX && !seen.insert((meta.dev(), meta.ino())) {
            met(Met::HardLink);
        } else {
            met(Met::File(TreeFile { path, len: meta.len(), is_sparse: meta.blocks() * 512 < meta.len() }));
        }
    };
    meet(root, &mut directories, met);
    while let Some(directory) = directories.pop() {
        let names = fs::read_dir(&directory).and_then(|entries| {
            let mut names = entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        });
        let mut below = Vec::new();
        match names {
            Ok(names) => names.into_iter().for_each(|name| meet(directory.join(name), &mut below, met)),
            Err(e) => met(Met::Unreadable(directory, e)),
        }
        directories.extend(below.into_iter().rev());
    }
    Ok(())
}

/// Opens a file anywhere on this machine for reading. Never waits, as the opening of a pipe would.
pub fn open_file(path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(Arc::new(RealFile(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_met_once_and_nothing_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        for name in ["z", "a", "b/one", "b/c/two"] {
            fs::write(at(name), name).unwrap();
        }
        fs::hard_link(at("a"), at("b/again")).unwrap();
        std::os::unix::fs::symlink("..", at("b/loop")).unwrap();
        let (mut files, mut counts) = (Vec::new(), [0; 4]);
        walk(dir.path(), &mut |met| match met {
            Met::File(f) => files.push((f.path.file_name().unwrap().to_string_lossy().into_owned(), f.len)),
            Met::Directory => counts[0] += 1,
            Met::Symlink => counts[1] += 1,
            Met::HardLink => counts[2] += 1,
            Met::Special | Met::Unreadable(..) => counts[3] += 1,
        })
        .unwrap();
        let expected = [("a", 1), ("z", 1), ("one", 5), ("two", 7)];
        assert_eq!(files, expected.map(|(name, len)| (name.to_string(), len)));
        assert_eq!(counts, [3, 1, 1, 0]);
        assert!(walk(&at("none"), &mut |_| ()).is_err());
        assert!(open_file(&at("b")).is_err() && open_file(&at("b/loop")).is_err());
        assert_eq!(open_file(&at("z")).unwrap().len().unwrap(), 1);
    }
}
