//! Attributes, extended attributes, and the numbers of the volume.

use super::acl::{self, Acl};
use super::inode::{Inode, InodeState};
use super::types::{Atime, Attr, Error, SetAttr, SetTime, StatFs, XattrMode};
use super::{FILE_BYTES_MAX, FileKind, SETGID, Volume, space};
use crate::base::Ino;
use crate::format::{MetaOp, Time};
use crate::store::Marks;

/// Longest name of an extended attribute, bytes (Linux XATTR_NAME_MAX).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Largest value of an extended attribute, bytes (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;

/// Relative times of access are moved at least this often, seconds.
const ATIME_SECS_MAX: i64 = 24 * 60 * 60;

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

/// The namespaces of Linux. Of `system.` only ACLs: storing what we do not honour would be a lie.
fn check_namespace(name: &[u8]) -> Result<(), Error> {
    let rest = [&b"user."[..], b"trusted.", b"security."].into_iter().find_map(|space| name.strip_prefix(space));
    match rest {
        Some([]) => Err(Error::Invalid("an extended attribute has no name behind its namespace")),
        Some(_) => Ok(()),
        None if is_acl(name) => Ok(()),
        None => Err(Error::Unsupported),
    }
}

impl Volume {
    pub fn getattr(&self, ino: Ino) -> Result<Attr, Error> {
        self.attr_of(&*self.inode(ino)?)
    }

    /// As `getattr`, but an inode that is not in memory is not put there: a walk over a million files leaves those in
    /// memory that are in use.
    pub fn glance(&self, ino: Ino) -> Result<Attr, Error> {
        let Some(inode) = self.inodes.get(ino) else {
            let (state, _) = self.load(ino)?;
            return match self.inodes.get(ino) {
                // Taken up while it was looked at: what was seen may be half of a change.
                Some(inode) => self.attr_of(&inode),
                None => Ok(self.attr(&state)),
            };
        };
        self.attr_of(&inode)
    }

    fn attr_of(&self, inode: &Inode) -> Result<Attr, Error> {
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
        // The middle digit of a mode is the mask of an ACL.
        let access = match set.mode {
            Some(mode) => self.acl(ino, acl::ACCESS)?.map(|access| access.with_mode(mode)),
            None => None,
        };
        let before = state.rec.clone();
        let rec = &mut state.rec;
        if let Some(mode) = set.mode {
            rec.mode = mode & 0o7777;
        }
        rec.uid = set.uid.unwrap_or(rec.uid);
        rec.gid = set.gid.unwrap_or(rec.gid);
        rec.atime = set.atime.map_or(rec.atime, time);
        rec.mtime = set.mtime.map_or(rec.mtime, time);
        rec.ctime = set.ctime.unwrap_or(now);
        if let Some(access) = access {
            let put = MetaOp::PutXattr { ino, name: acl::ACCESS.to_vec(), value: access.encode() };
            if let Err(e) = self.log(&[put, MetaOp::PutInode(state.record_for_log())]) {
                state.rec = before;
                return Err(e);
            }
        }
        state.dirty = true;
        self.mark_dirty(ino);
        Ok(self.attr(&state))
    }

    /// True when reading the inode now would move its time of access.
    pub fn access_due(&self, ino: Ino) -> bool {
        if self.options.atime == Atime::Never || self.writable().is_err() {
            return false;
        }
        self.inode(ino).is_ok_and(|inode| {
            let state = inode.read();
            // What the kernel writes past us is not known yet: the file may have changed.
            !state.bypassing.is_empty() || self.access_moves(&state, self.now())
        })
    }

    fn access_moves(&self, state: &InodeState, now: Time) -> bool {
        let rec = &state.rec;
        match self.options.atime {
            Atime::Always => now > rec.atime,
            Atime::Never => false,
            Atime::Relative => {
                rec.atime <= rec.mtime
                    || rec.atime <= rec.ctime
                    || now.secs.saturating_sub(rec.atime.secs) >= ATIME_SECS_MAX
            }
        }
    }

    /// Notes that the inode was read: moves its time of access when it is due. Fails silently: reading goes on without.
    ///
    /// # Durability
    /// With the next `flush`.
    pub fn accessed(&self, ino: Ino) {
        if !self.access_due(ino) {
            return;
        }
        let Ok(inode) = self.inode(ino) else { return };
        let mut state = inode.write();
        if state.removed || self.absorb(&mut state).is_err() {
            return;
        }
        let now = self.now();
        if self.access_moves(&state, now) {
            state.rec.atime = now;
            state.dirty = true;
            self.mark_dirty(ino);
        }
    }

    /// The ACL of an inode, when it has one.
    pub(super) fn acl(&self, ino: Ino, name: &[u8]) -> Result<Option<Acl>, Error> {
        self.store.xattr(ino, name).map_err(Error::Store)?.map(|value| Acl::decode(&value)).transpose()
    }

    /// Sets an ACL, and what the mode says of it. `keeps_setgid` is asked whether the caller may give files to
    /// the group with the number it is given; if not, the setgid bit goes.
    fn set_acl(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        keeps_setgid: impl FnOnce(u32) -> bool,
    ) -> Result<(), Error> {
        self.writable()?;
        let acl = Acl::decode(value)?;
        let inode = self.live(ino)?;
        let mut state = inode.write();
        state.alive()?;
        let is_access = name == acl::ACCESS;
        if state.rec.kind == FileKind::Symlink {
            return Err(Error::Unsupported);
        }
        if !is_access && !state.is_directory() {
            return Err(Error::NotPermitted);
        }
        let exists = self.store.xattr(ino, name).map_err(Error::Store)?.is_some();
        let mut mode = state.rec.mode;
        if is_access {
            mode = mode & !0o777 | acl.mode();
            if mode & SETGID != 0 && !keeps_setgid(state.rec.gid) {
                mode &= !SETGID;
            }
        }
        let mut ops = if is_access && acl.is_mode_only() {
            // The mode says the same.
            exists.then(|| MetaOp::RemoveXattr { ino, name: name.to_vec() }).into_iter().collect()
        } else {
            vec![MetaOp::PutXattr { ino, name: name.to_vec(), value: acl.encode() }]
        };
        let mut rec = state.record_for_log();
        (rec.mode, rec.ctime) = (mode, self.now());
        let ctime = rec.ctime;
        ops.push(MetaOp::PutInode(rec));
        self.log(&ops)?;
        (state.rec.mode, state.rec.ctime) = (mode, ctime);
        Ok(())
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

    /// Sets an extended attribute, by a caller who may do all.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Error> {
        self.setxattr_by(ino, name, value, mode, |_| true)
    }

    /// Sets an extended attribute. `keeps_setgid` is for ACLs, see `set_acl`.
    pub fn setxattr_by(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        keeps_setgid: impl FnOnce(u32) -> bool,
    ) -> Result<(), Error> {
        self.writable()?;
        check_namespace(name)?;
        if is_acl(name) {
            return self.set_acl(ino, name, value, keeps_setgid);
        }
        if name.len() > XATTR_NAME_BYTES_MAX {
            return Err(Error::Invalid("name of an extended attribute is longer than 255 bytes"));
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::TooBig);
        }
        self.check_wish(ino, name, value)?;
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
        self.wish_changed(&mut state, name);
        Ok(())
    }

    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), Error> {
        self.writable()?;
        check_namespace(name)?;
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
        self.wish_changed(&mut state, name);
        Ok(())
    }

    /// Space of the filesystem below, which is the space of the volume: what is free there can be written here, plain, but
    /// for what is kept so that a full disk can be tidied up.
    pub fn statfs(&self) -> Result<StatFs, Error> {
        let space = self.disk.space().map_err(|source| Error::Io { what: "statfs of the store".into(), source })?;
        let usage = self.store.usage();
        let marks = Marks::of(space.total_bytes);
        let held = marks.data.saturating_add(self.store.reserve_missing(&marks));
        // Hot copies make room for whatever comes.
        let lent = self.hot.as_ref().map_or(0, |hot| hot.lent_bytes());
        Ok(StatFs {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes.saturating_add(lent).min(space.total_bytes),
            available_bytes: space.available_bytes.saturating_add(lent).saturating_sub(held),
            inodes: usage.inodes.saturating_add(space.free_files),
            free_inodes: space.free_files,
        })
    }
}
