//! Names: lookup, create, link, unlink, rename, readdir.
//!
//! Every change holds the names lock, so that checks and the transaction they lead to are one step.

use std::sync::Arc;

use super::inode::{Inode, InodeState, lock_all, locked};
use super::types::{Attr, Caller, Entry, Error, NewMode, OpenFor, Opened, RenameMode};
use super::{FileKind, Volume, acl, new_record, space, staging};
use crate::base::Ino;
use crate::format::{Dentry, MetaOp};

/// Longest name, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest symlink target, bytes.
pub const TARGET_BYTES_MAX: usize = 4095;
/// Cookie of ".." in readdir; entries of the directory have larger ones.
const COOKIE_DOTDOT: u64 = 2;
/// Links of one inode; beyond it `link` and `mkdir` fail.
const LINKS_MAX: u32 = u32::MAX - 1;

fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(Error::Invalid("not a file name"));
    }
    Ok(())
}

impl Volume {
    fn find(&self, parent: Ino, name: &[u8]) -> Result<Option<Dentry>, Error> {
        self.store.dentry(parent, name).map_err(Error::Store)
    }

    fn require(&self, parent: Ino, name: &[u8]) -> Result<Dentry, Error> {
        self.find(parent, name)?.ok_or(Error::NotFound)
    }

    /// A directory that names can be added to.
    fn directory(&self, ino: Ino) -> Result<Arc<Inode>, Error> {
        let dir = self.live(ino)?;
        {
            let state = dir.read();
            if !state.is_directory() {
                return Err(Error::NotDirectory);
            }
            if state.rec.nlink == 0 {
                return Err(Error::NotFound);
            }
        }
        Ok(dir)
    }

    /// Notes that the entries of a directory changed. Its times are logged by the next flush.
    fn touch_directory(&self, dir: &Inode) {
        self.touch_directory_state(&mut dir.write());
    }

    fn touch_directory_state(&self, state: &mut InodeState) {
        let now = self.now();
        state.rec.mtime = now;
        state.rec.ctime = now;
        state.dirty = true;
        self.mark_dirty(state.rec.ino);
    }

    /// Attributes of what a name points to.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, Error> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        let found = self.find(parent, name)?;
        match found {
            Some(dentry) => self.getattr(dentry.ino),
            None => {
                // Tell a missing name from a parent that is no directory.
                let parent = self.live(parent)?;
                if parent.read().is_directory() { Err(Error::NotFound) } else { Err(Error::NotDirectory) }
            }
        }
    }

    /// The kernel holds no reference any more: an unlinked inode without handles is removed.
    pub fn forget(&self, ino: Ino) {
        let Some(inode) = self.inodes.get(ino) else {
            self.stale_pages().remove(ino.0);
            return;
        };
        {
            let state = inode.read();
            if state.handles.is_empty() {
                // Its pages went with it.
                self.stale_pages().remove(ino.0);
            }
            if state.removed || state.rec.nlink > 0 || !state.handles.is_empty() {
                return;
            }
        }
        if self.writable().is_err() {
            return;
        }
        if let Err(e) = self.end_unlinked(&inode) {
            log::error!("cannot remove unlinked inode {ino}: {e}");
        }
    }

    /// Removes an inode without names and handles, if it is one. Where that fails the next flush tries again.
    pub(super) fn end_unlinked(&self, inode: &Inode) -> Result<(), Error> {
        let mut state = inode.write();
        if state.rec.nlink > 0 || !state.handles.is_empty() || state.removed {
            return Ok(());
        }
        self.remove_inode(inode, &mut state)
    }

    /// Adds a new inode under a name. `fill` completes its record.
    fn add(
        &self,
        parent: Ino,
        name: &[u8],
        kind: FileKind,
        mode: NewMode,
        caller: &Caller,
        fill: impl FnOnce(&mut InodeState),
    ) -> Result<Arc<Inode>, Error> {
        self.writable()?;
        check_name(name)?;
        self.admit(space::NAME_BYTES)?;
        let _names = self.names_lock();
        let dir = self.directory(parent)?;
        if self.find(parent, name)?.is_some() {
            return Err(Error::Exists);
        }
        let mut dir_state = dir.write();
        let now = self.now();
        let ino = self.store.allocate_ino();
        let (mode, mut ops) = self.inherit_acl(parent, ino, kind, mode)?;
        let mut state = InodeState::new(new_record(ino, kind, mode, caller, &dir_state.rec, now));
        fill(&mut state);
        let dentry = Dentry { ino, kind, cookie: self.store.allocate_serial() };
        ops.push(MetaOp::PutInode(state.record_for_log()));
        ops.push(MetaOp::PutDentry { parent, name: name.to_vec(), dentry });
        if kind == FileKind::Directory {
            if dir_state.rec.nlink >= LINKS_MAX {
                return Err(Error::TooManyLinks);
            }
            let mut rec = dir_state.record_for_log();
            rec.nlink += 1;
            (rec.mtime, rec.ctime) = (now, now);
            ops.push(MetaOp::PutInode(rec));
        }
        // Before the log speaks of it: whoever finds it there (the coder, looking for staged files) must find this one, with
        // its handle, and not make another from the log.
        let inode = self.inodes.insert(Inode::new(state));
        if let Err(e) = self.log(&ops) {
            self.inodes.remove(ino);
            return Err(e);
        }
        if kind == FileKind::Directory {
            dir_state.rec.nlink += 1;
        }
        self.touch_directory_state(&mut dir_state);
        Ok(inode)
    }

    /// The mode of a new inode, and the ACLs it takes over from the default one of its directory.
    fn inherit_acl(
        &self,
        parent: Ino,
        ino: Ino,
        kind: FileKind,
        NewMode { mode, umask }: NewMode,
    ) -> Result<(u16, Vec<MetaOp>), Error> {
        if kind == FileKind::Symlink {
            return Ok((mode, Vec::new()));
        }
        let Some(default) = self.acl(parent, acl::DEFAULT)? else { return Ok((mode & !umask, Vec::new())) };
        let inherited = default.inherit(mode);
        let put = |name: &[u8], acl: &acl::Acl| MetaOp::PutXattr { ino, name: name.to_vec(), value: acl.encode() };
        let mut ops: Vec<MetaOp> = inherited.access.iter().map(|access| put(acl::ACCESS, access)).collect();
        if kind == FileKind::Directory {
            ops.push(put(acl::DEFAULT, &default));
        }
        Ok((inherited.mode, ops))
    }

    /// Makes a node of any kind but directory and symlink.
    pub fn mknod(
        &self,
        parent: Ino,
        name: &[u8],
        kind: FileKind,
        mode: impl Into<NewMode>,
        rdev: u32,
        caller: &Caller,
    ) -> Result<Attr, Error> {
        if matches!(kind, FileKind::Directory | FileKind::Symlink) {
            return Err(Error::Invalid("mknod makes no directories and no symlinks"));
        }
        let inode = self.add(parent, name, kind, mode.into(), caller, |s| s.rec.rdev = rdev)?;
        let state = inode.read();
        Ok(self.attr(&state))
    }

    pub fn mkdir(&self, parent: Ino, name: &[u8], mode: impl Into<NewMode>, caller: &Caller) -> Result<Attr, Error> {
        let inode = self.add(parent, name, FileKind::Directory, mode.into(), caller, |_| ())?;
        let state = inode.read();
        Ok(self.attr(&state))
    }

    pub fn symlink(&self, parent: Ino, name: &[u8], target: &[u8], caller: &Caller) -> Result<Attr, Error> {
        if target.len() > TARGET_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        if target.is_empty() {
            return Err(Error::NotFound);
        }
        let inode = self.add(parent, name, FileKind::Symlink, NewMode::from(0o777), caller, |s| {
            s.rec.target = target.to_vec();
            s.rec.size = target.len() as u64;
            s.durable_size = s.rec.size;
        })?;
        let state = inode.read();
        Ok(self.attr(&state))
    }

    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, Error> {
        let inode = self.live(ino)?;
        let state = inode.read();
        if state.rec.kind != FileKind::Symlink {
            return Err(Error::Invalid("not a symlink"));
        }
        Ok(state.rec.target.clone())
    }

    /// Creates a regular file and opens it.
    pub fn create(
        &self,
        parent: Ino,
        name: &[u8],
        mode: impl Into<NewMode>,
        caller: &Caller,
        open: OpenFor,
    ) -> Result<(Attr, Opened), Error> {
        let handle = self.new_handle();
        let epoch = self.store.allocate_serial();
        let inode = self.add(parent, name, FileKind::Regular, mode.into(), caller, |s| {
            // The epoch goes into the creating transaction, so that the first write needs none of its own.
            s.rec.staging = Some(crate::format::Staging { epoch, growing: true, sealed: false });
            s.handles.insert(handle, open);
        })?;
        let state = inode.read();
        Ok((self.attr(&state), Opened { handle, keep_pages: true, coded: false }))
    }

    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, Error> {
        self.writable()?;
        check_name(name)?;
        self.admit(space::NAME_BYTES)?;
        let _names = self.names_lock();
        let dir = self.directory(parent)?;
        let inode = self.live(ino)?;
        if self.find(parent, name)?.is_some() {
            return Err(Error::Exists);
        }
        let attr = {
            let mut state = inode.write();
            state.alive()?;
            if state.is_directory() {
                return Err(Error::NotPermitted);
            }
            if state.rec.nlink == 0 {
                return Err(Error::NotFound);
            }
            if state.rec.nlink >= LINKS_MAX {
                return Err(Error::TooManyLinks);
            }
            let mut rec = state.record_for_log();
            rec.nlink += 1;
            rec.ctime = self.now();
            let (nlink, ctime) = (rec.nlink, rec.ctime);
            let dentry = Dentry { ino, kind: rec.kind, cookie: self.store.allocate_serial() };
            self.log(&[MetaOp::PutInode(rec), MetaOp::PutDentry { parent, name: name.to_vec(), dentry }])?;
            state.rec.nlink = nlink;
            state.rec.ctime = ctime;
            self.attr(&state)
        };
        self.touch_directory(&dir);
        Ok(attr)
    }

    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), Error> {
        self.writable()?;
        let _names = self.names_lock();
        let dir = self.directory(parent)?;
        let dentry = self.require(parent, name)?;
        if dentry.kind == FileKind::Directory {
            return Err(Error::IsDirectory);
        }
        let inode = self.inode(dentry.ino)?;
        {
            let mut state = inode.write();
            let mut rec = state.record_for_log();
            rec.nlink = rec.nlink.saturating_sub(1);
            rec.ctime = self.now();
            let (nlink, ctime) = (rec.nlink, rec.ctime);
            self.log(&[MetaOp::RemoveDentry { parent, name: name.to_vec() }, MetaOp::PutInode(rec)])?;
            state.rec.nlink = nlink;
            state.rec.ctime = ctime;
        }
        self.touch_directory(&dir);
        Ok(())
    }

    fn is_empty(&self, dir: Ino) -> Result<bool, Error> {
        Ok(self.store.dentries(dir, 0, 1).map_err(Error::Store)?.is_empty())
    }

    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), Error> {
        self.writable()?;
        let _names = self.names_lock();
        let dir = self.directory(parent)?;
        let dentry = self.require(parent, name)?;
        if dentry.kind != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        if !self.is_empty(dentry.ino)? {
            return Err(Error::NotEmpty);
        }
        let child = self.inode(dentry.ino)?;
        let both = [dir.clone(), child];
        let mut guards = lock_all(&both);
        let now = self.now();
        let mut ops = vec![MetaOp::RemoveDentry { parent, name: name.to_vec() }];
        if let Some(state) = locked(&mut guards, dentry.ino) {
            let mut rec = state.record_for_log();
            rec.nlink = 0;
            rec.ctime = now;
            ops.push(MetaOp::PutInode(rec));
        }
        if let Some(state) = locked(&mut guards, parent) {
            let mut rec = state.record_for_log();
            rec.nlink = rec.nlink.saturating_sub(1);
            (rec.mtime, rec.ctime) = (now, now);
            ops.push(MetaOp::PutInode(rec));
        }
        self.log(&ops)?;
        if let Some(state) = locked(&mut guards, dentry.ino) {
            state.rec.nlink = 0;
            state.rec.ctime = now;
        }
        if let Some(state) = locked(&mut guards, parent) {
            state.rec.nlink = state.rec.nlink.saturating_sub(1);
            (state.rec.mtime, state.rec.ctime) = (now, now);
        }
        Ok(())
    }

    /// True when `dir` is `ancestor` or lies below it.
    fn is_below(&self, dir: Ino, ancestor: Ino) -> Result<bool, Error> {
        let mut at = dir;
        loop {
            if at == ancestor {
                return Ok(true);
            }
            if at == Ino::ROOT {
                return Ok(false);
            }
            let parent = self.inode(at)?.read().rec.parent;
            if parent == at {
                return Ok(false);
            }
            at = parent;
        }
    }

    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        to_parent: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), Error> {
        self.writable()?;
        check_name(to_name)?;
        self.sync_before_replace(parent, name, to_parent, to_name, mode)?;
        let _names = self.names_lock();
        let from_dir = self.directory(parent)?;
        let to_dir = self.directory(to_parent)?;
        let moved = self.require(parent, name)?;
        let target = self.find(to_parent, to_name)?;
        if moved.kind == FileKind::Directory && self.is_below(to_parent, moved.ino)? {
            return Err(Error::Invalid("a directory cannot move below itself"));
        }
        match (mode, &target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Error::Exists),
            (RenameMode::Exchange, None) => return Err(Error::NotFound),
            (RenameMode::Exchange, Some(t)) => {
                if t.kind == FileKind::Directory && self.is_below(parent, t.ino)? {
                    return Err(Error::Invalid("a directory cannot move below itself"));
                }
            }
            (RenameMode::Replace, Some(t)) => {
                if t.ino == moved.ino {
                    return Ok(());
                }
                match (moved.kind == FileKind::Directory, t.kind == FileKind::Directory) {
                    (true, false) => return Err(Error::NotDirectory),
                    (false, true) => return Err(Error::IsDirectory),
                    (true, true) if !self.is_empty(t.ino)? => return Err(Error::NotEmpty),
                    (true, true) | (false, false) => {}
                }
            }
            (RenameMode::Replace | RenameMode::NoReplace, None) => {}
        }
        if mode == RenameMode::Exchange && target.is_some_and(|t| t.ino == moved.ino) {
            return Ok(());
        }

        let mut inodes = vec![from_dir, to_dir, self.inode(moved.ino)?];
        if let Some(t) = &target {
            inodes.push(self.inode(t.ino)?);
        }
        let mut guards = lock_all(&inodes);
        let now = self.now();

        // Plan: the new records of everything involved, then one transaction, then memory.
        let mut plan: Vec<(Ino, Change)> = vec![(moved.ino, Change { parent: Some(to_parent), ..Change::default() })];
        let mut links: Vec<(Ino, i64)> = Vec::new();
        let mut ops = vec![MetaOp::RemoveDentry { parent, name: name.to_vec() }];
        match (mode, &target) {
            (RenameMode::Exchange, Some(t)) => {
                ops.push(MetaOp::RemoveDentry { parent: to_parent, name: to_name.to_vec() });
                let back = Dentry { cookie: self.store.allocate_serial(), ..*t };
                ops.push(MetaOp::PutDentry { parent, name: name.to_vec(), dentry: back });
                plan.push((t.ino, Change { parent: Some(parent), ..Change::default() }));
                links.push((parent, i64::from(t.kind == FileKind::Directory)));
                links.push((to_parent, -i64::from(t.kind == FileKind::Directory)));
            }
            (RenameMode::Replace | RenameMode::NoReplace, Some(t)) => {
                ops.push(MetaOp::RemoveDentry { parent: to_parent, name: to_name.to_vec() });
                let drop = if t.kind == FileKind::Directory { DROP_ALL } else { -1 };
                plan.push((t.ino, Change { links: drop, ..Change::default() }));
                links.push((to_parent, -i64::from(t.kind == FileKind::Directory)));
            }
            (RenameMode::Replace | RenameMode::NoReplace | RenameMode::Exchange, None) => {}
        }
        let there = Dentry { cookie: self.store.allocate_serial(), ..moved };
        ops.push(MetaOp::PutDentry { parent: to_parent, name: to_name.to_vec(), dentry: there });
        links.push((parent, -i64::from(moved.kind == FileKind::Directory)));
        links.push((to_parent, i64::from(moved.kind == FileKind::Directory)));
        for dir in [parent, to_parent] {
            let change = links.iter().filter(|(d, _)| *d == dir).map(|(_, n)| n).sum();
            if !plan.iter().any(|(i, _)| *i == dir) {
                plan.push((dir, Change { links: change, directory: true, ..Change::default() }));
            }
        }
        let mut after = Vec::new();
        for (ino, change) in &plan {
            if let Some(state) = locked(&mut guards, *ino) {
                let mut rec = state.record_for_log();
                change.apply(&mut rec, now);
                // Files whose attributes alone change are logged with the next flush; directories that only saw their
                // times change too.
                if !change.directory || change.links != 0 {
                    ops.push(MetaOp::PutInode(rec));
                } else {
                    self.mark_dirty(*ino);
                }
                after.push((*ino, *change));
            }
        }
        self.log(&ops)?;
        for (ino, change) in after {
            if let Some(state) = locked(&mut guards, ino) {
                change.apply(&mut state.rec, now);
                state.dirty |= change.directory && change.links == 0;
            }
        }
        if parent != to_parent {
            let back = target.filter(|_| mode == RenameMode::Exchange).map(|t| (t, to_parent));
            for (dentry, from) in [Some((moved, parent)), back].into_iter().flatten() {
                if let Some(state) = locked(&mut guards, dentry.ino) {
                    self.wishes_moved(state, from, dentry.kind);
                }
            }
        }
        Ok(())
    }

    /// Programs replace a file by writing a new one and renaming it over the old, often without fsync. The bytes of the
    /// new file go to disk before its name does, so that a power cut leaves the old file or the new one.
    fn sync_before_replace(
        &self,
        parent: Ino,
        name: &[u8],
        to: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), Error> {
        if mode != RenameMode::Replace || self.find(to, to_name)?.is_none() {
            return Ok(());
        }
        let Some(dentry) = self.find(parent, name)? else { return Ok(()) };
        if dentry.kind != FileKind::Regular {
            return Ok(());
        }
        let inode = self.inode(dentry.ino)?;
        self.log_inode(&inode, true)
    }

    /// Up to `limit` entries after position `cookie` (0 starts). Position 1 is ".", 2 is "..", entries follow in the order
    /// in which they were made, which changes of the directory do not disturb.
    pub fn readdir(&self, dir: Ino, cookie: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        let inode = self.live(dir)?;
        let parent = {
            let state = inode.read();
            if !state.is_directory() {
                return Err(Error::NotDirectory);
            }
            state.rec.parent
        };
        let mut out = Vec::new();
        if cookie < 1 {
            out.push(Entry { cookie: 1, name: b".".to_vec(), ino: dir, kind: FileKind::Directory });
        }
        if cookie < COOKIE_DOTDOT {
            out.push(Entry { cookie: COOKIE_DOTDOT, name: b"..".to_vec(), ino: parent, kind: FileKind::Directory });
        }
        let wanted = limit.saturating_sub(out.len());
        if wanted > 0 {
            let page = self.store.dentries(dir, cookie.max(COOKIE_DOTDOT), wanted).map_err(Error::Store)?;
            out.extend(page.into_iter().map(|(name, d)| Entry { cookie: d.cookie, name, ino: d.ino, kind: d.kind }));
        }
        out.truncate(limit);
        Ok(out)
    }

    pub(super) fn new_handle(&self) -> super::HandleId {
        super::HandleId(self.next_handle.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    /// Ends a file whose last name went while it had no handles: called at release.
    pub(super) fn end_if_orphan(&self, inode: &Inode, state: &mut InodeState) -> Result<(), Error> {
        if state.rec.nlink == 0 && state.handles.is_empty() && !state.removed && self.writable().is_ok() {
            self.remove_inode(inode, state)?;
        } else if state.handles.is_empty() {
            let file = staging::open(&*self.disk, state)?;
            state.staged_bytes = match &file {
                Some(file) => file.allocated().unwrap_or(state.staged_bytes),
                None => 0,
            };
            state.file = None;
            if let (Some(file), Some(s)) = (file, state.rec.staging) {
                // Made for an open, never written: nothing to keep. The epoch stays, for the first write.
                if !state.queued && self.writable().is_ok() && file.len().is_ok_and(|len| len == 0) {
                    self.remove_staging(inode.ino, s.epoch);
                }
            }
        }
        Ok(())
    }
}

/// Change of links that removes a directory with its two.
const DROP_ALL: i64 = i64::MIN;

/// What a rename does to one inode.
#[derive(Clone, Copy, Default)]
struct Change {
    /// Links gained.
    links: i64,
    /// New parent.
    parent: Option<Ino>,
    /// One of the two directories: modification time changes too.
    directory: bool,
}

impl Change {
    fn apply(&self, rec: &mut crate::format::InodeRecord, now: crate::format::Time) {
        rec.nlink = match self.links {
            DROP_ALL => 0,
            n => (i64::from(rec.nlink) + n).clamp(0, i64::from(u32::MAX)) as u32,
        };
        if let Some(parent) = self.parent {
            rec.parent = parent;
        }
        rec.ctime = now;
        if self.directory {
            rec.mtime = now;
        }
    }
}
