//! Attributes, extended attributes, and the numbers of the volume.

use super::types::{Attr, Error, SetAttr, SetTime, StatFs, XattrMode};
use super::{FILE_BYTES_MAX, FileKind, Volume, space};
use crate::base::Ino;
use crate::format::{MetaOp, Time};
use crate::store::Marks;

/// Longest name of an extended attribute, bytes (Linux XATTR_NAME_MAX).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Largest value of an extended attribute, bytes (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;

/// Names that the kernel gives a meaning of its own (ACLs): storing them without honouring them would be a lie.
fn check_namespace(name: &[u8]) -> Result<(), Error> {
    if name.starts_with(b"system.") { Err(Error::Unsupported) } else { Ok(()) }
}

impl Volume {
    pub fn getattr(&self, ino: Ino) -> Result<Attr, Error> {
        let inode = self.inode(ino)?;
        {
            let state = inode.read();
            state.alive()?;
            if state.bypassing.is_empty() {
                return Ok(self.attr(&state));
            }
        }
        let mut state = inode.write();
        self.absorb(&mut state)?;
        Ok(self.attr(&state))
    }

    /// Changes attributes; a change of size is a truncate.
    ///
    /// # Durability
    /// With the next `flush`, `release` or `fsync`; a truncate is logged at once.
    pub fn setattr(&self, ino: Ino, set: &SetAttr) -> Result<Attr, Error> {
        self.writable()?;
        let inode = self.live(ino)?;
        let mut state = inode.write();
        state.alive()?;
        self.absorb(&mut state)?;
        if let Some(size) = set.size {
            match state.rec.kind {
                FileKind::Regular => {}
                FileKind::Directory => return Err(Error::IsDirectory),
                FileKind::Symlink
                | FileKind::Fifo
                | FileKind::Socket
                | FileKind::CharDevice
                | FileKind::BlockDevice => {
                    return Err(Error::Invalid("only regular files have a size to set"));
                }
            }
            if size > FILE_BYTES_MAX {
                return Err(Error::TooBig);
            }
            self.truncate(&mut state, size)?;
        }
        let now = self.now();
        let time = |t: SetTime| -> Time {
            match t {
                SetTime::Now => now,
                SetTime::To(t) => t,
            }
        };
        let rec = &mut state.rec;
        if let Some(mode) = set.mode {
            rec.mode = mode & 0o7777;
        }
        rec.uid = set.uid.unwrap_or(rec.uid);
        rec.gid = set.gid.unwrap_or(rec.gid);
        rec.atime = set.atime.map_or(rec.atime, time);
        rec.mtime = set.mtime.map_or(rec.mtime, time);
        rec.ctime = set.ctime.unwrap_or(now);
        state.dirty = true;
        self.mark_dirty(ino);
        Ok(self.attr(&state))
    }

    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Error> {
        check_namespace(name)?;
        self.live(ino)?;
        self.store.xattr(ino, name).map_err(Error::Store)?.ok_or(Error::NoXattr)
    }

    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>, Error> {
        self.live(ino)?;
        self.store.xattr_names(ino).map_err(Error::Store)
    }

    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Error> {
        self.writable()?;
        check_namespace(name)?;
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
            return Err(Error::Invalid("name of an extended attribute is empty or longer than 255 bytes"));
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::TooBig);
        }
        if value.len() > space::VALUE_BYTES_SMALL {
            self.admit(value.len() as u64)?;
        }
        let inode = self.live(ino)?;
        let mut state = inode.write();
        state.alive()?;
        let exists = self.store.xattr(ino, name).map_err(Error::Store)?.is_some();
        match (mode, exists) {
            (XattrMode::Create, true) => return Err(Error::Exists),
            (XattrMode::Replace, false) => return Err(Error::NoXattr),
            (XattrMode::Set | XattrMode::Create | XattrMode::Replace, _) => {}
        }
        self.log(&[MetaOp::PutXattr { ino, name: name.to_vec(), value: value.to_vec() }])?;
        state.rec.ctime = self.now();
        state.dirty = true;
        self.mark_dirty(ino);
        Ok(())
    }

    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), Error> {
        self.writable()?;
        let inode = self.live(ino)?;
        let mut state = inode.write();
        state.alive()?;
        if self.store.xattr(ino, name).map_err(Error::Store)?.is_none() {
            return Err(Error::NoXattr);
        }
        self.log(&[MetaOp::RemoveXattr { ino, name: name.to_vec() }])?;
        state.rec.ctime = self.now();
        state.dirty = true;
        self.mark_dirty(ino);
        Ok(())
    }

    /// Space of the filesystem below, which is the space of the volume: what is free there can be written here, plain, but
    /// for what is kept so that a full disk can be tidied up.
    pub fn statfs(&self) -> Result<StatFs, Error> {
        let space = self.disk.space().map_err(|source| Error::Io { what: "statfs of the store".into(), source })?;
        let usage = self.store.usage();
        let marks = Marks::of(space.total_bytes);
        let held = marks.data.saturating_add(self.store.reserve_missing(&marks));
        Ok(StatFs {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            available_bytes: space.available_bytes.saturating_sub(held),
            inodes: usage.inodes.saturating_add(space.free_files),
            free_inodes: space.free_files,
        })
    }
}
