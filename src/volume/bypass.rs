//! Handles that the kernel serves by itself, on the staging file (FUSE passthrough): hot files at the speed of the
//! filesystem below.
//!
//! Only files without coded extents are served so, since nothing stands between the kernel and staging then. Size and
//! time of modification are read back from the staging file wherever they matter (`absorb`). The kernel wants all handles
//! of an inode served the same way at one time; the caller keeps to that.
//!
//! What is mapped into memory through such a handle stays mapped to the staging file when the handle is closed, and nobody
//! tells us of it. So a file is neither coded nor sealed before its staging file is known to be ours alone
//! (`staging::is_shared`).

use std::sync::{Arc, MutexGuard};

use roaring::RoaringTreemap;

use super::inode::InodeState;
use super::types::{Error, HandleId};
use super::{Time, Volume, space, staging};
use crate::base::Ino;
use crate::format::MetaOp;
use crate::host::DiskFile;

/// Files up to this size, bytes, that are opened only for writing are mostly rewritten: cut to nothing and written anew.
/// A cut of what the kernel writes to costs a sync, more than it wins with so few bytes.
const REWRITTEN_BYTES_MAX: u64 = 1 << 20;

impl Volume {
    /// Hands the staging file of a handle over to the kernel; `None` when the file is not to be served so. The first such
    /// handle of a file must be one for writing with no other beside it; any may follow.
    pub fn bypass(&self, ino: Ino, handle: HandleId) -> Result<Option<Arc<dyn DiskFile>>, Error> {
        if self.writable().is_err() {
            return Ok(None);
        }
        let inode = self.live(ino)?;
        if inode.read().bypassing.is_empty() && self.admit(space::BYPASS_BYTES).is_err() {
            return Ok(None);
        }
        let mut state = inode.write();
        let Some(open) = state.handles.get(&handle).copied() else { return Err(Error::BadHandle) };
        let first = state.bypassing.is_empty();
        if !state.is_regular() || state.rec.coded || (first && (!open.write || state.handles.len() > 1)) {
            return Ok(None);
        }
        if first && !open.read && (1..REWRITTEN_BYTES_MAX).contains(&state.rec.size) {
            return Ok(None);
        }
        // As if the file were about to grow, since nobody will say when it does.
        let end = state.rec.size + 1;
        let file = self.prepare_staging(&mut state, end)?;
        if file.fd().is_none() || file.is_shared().is_err() {
            return Ok(None);
        }
        if first {
            // What was planned of the file is void: nobody will say when it changes. And whether it is synced is not known
            // as long as it may change so; two changes may even have the same time.
            state.rec.generation.0 += 1;
            state.unsynced = true;
            state.dirty = true;
            self.mark_dirty(ino);
            if file.len().map_err(|e| staging::io_error("stat", ino, e))? < state.rec.size {
                file.set_len(state.rec.size).map_err(|e| staging::io_error("extend", ino, e))?;
            }
            state.seen_modified = file.modified().map_err(|e| staging::io_error("stat", ino, e))?;
        }
        state.file = Some(file.clone());
        state.bypassing.insert(handle);
        self.stale_pages().insert(ino.0);
        Ok(Some(file))
    }

    pub(super) fn stale_pages(&self) -> MutexGuard<'_, RoaringTreemap> {
        self.stale_pages.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// True when the pages that the kernel has cached of a file may not be what it holds. They are dropped when the file is
    /// opened, and from then on they are good again unless its bytes are still mapped.
    pub(super) fn drops_pages(&self, state: &InodeState) -> bool {
        let stale = self.stale_pages().contains(state.rec.ino.0);
        if stale && state.bypassing.is_empty() && !staging::is_shared(state.file.as_deref()) {
            self.stale_pages().remove(state.rec.ino.0);
        }
        stale
    }

    /// Takes a handle back that the kernel would not serve.
    pub fn end_bypass(&self, ino: Ino, handle: HandleId) {
        if let Some(inode) = self.inodes.get(ino) {
            inode.write().bypassing.remove(&handle);
        }
    }

    /// Takes in what happened to the staging file past us. Does nothing for files that we serve ourselves.
    pub(super) fn absorb(&self, state: &mut InodeState) -> Result<(), Error> {
        if state.bypassing.is_empty() {
            return Ok(());
        }
        let Some(file) = state.file.clone() else { return Ok(()) };
        let ino = state.rec.ino;
        let len = file.len().map_err(|e| staging::io_error("stat", ino, e))?;
        let modified = file.modified().map_err(|e| staging::io_error("stat", ino, e))?;
        if len == state.rec.size && modified == state.seen_modified {
            return Ok(());
        }
        state.seen_modified = modified;
        state.rec.size = len;
        state.unsynced = true;
        // The clock of the filesystem below goes in ticks and may be behind ours by one: nothing was written before the file was
        // made, and a time of access of that moment is no later than the first write.
        let written = Time { secs: modified.0, nanos: modified.1 };
        state.touch_data(written.max(state.rec.btime), self.now_ms());
        self.mark_dirty(ino);
        if len > 0 {
            self.enqueue(state);
        }
        Ok(())
    }

    /// Truncate of a file that the kernel writes to: the staging file stays the same one.
    pub(super) fn truncate_bypassed(&self, state: &mut InodeState, size: u64) -> Result<(), Error> {
        let ino = state.rec.ino;
        let Some(file) = state.file.clone() else { return Err(Error::BadHandle) };
        let fail = |e| staging::io_error("cut", ino, e);
        if size < state.rec.size {
            // The log must not fall behind a shorter file: exact size, cut, sync, and only then may it grow again.
            let mut exact = state.record_for_log();
            exact.size = size;
            if let Some(s) = &mut exact.staging {
                s.growing = false;
            }
            self.log(&[MetaOp::PutInode(exact)])?;
            file.set_len(size).map_err(fail)?;
            if let Err(e) = file.sync_data() {
                self.fail(&format!("sync of staging of inode {ino} failed: {e}"));
                return Err(staging::io_error("sync", ino, e));
            }
            (state.rec.size, state.durable_size) = (size, size);
            self.log_record(state)?;
        } else {
            file.set_len(size).map_err(fail)?;
            state.rec.size = size;
        }
        state.seen_modified = file.modified().map_err(fail)?;
        state.unsynced = true;
        state.swaps += 1;
        state.touch_data(self.now(), self.now_ms());
        self.mark_dirty(ino);
        Ok(())
    }
}
