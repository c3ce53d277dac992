//! Inodes in memory: the truth about attributes, size and staging while a volume is open.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::types::{Error, HandleId, OpenFor};
use crate::base::{Ino, RangeSet};
use crate::format::{FileKind, InodeRecord, Time};
use crate::host::DiskFile;

/// Inodes kept in memory beyond those in use. More are dropped, clean ones only.
const INODES_KEPT_MAX: usize = 50_000;

/// The kernel reads ahead with several requests at once, and they arrive in any order within about this many bytes.
const READ_REORDER_BYTES: u64 = 1 << 20;

/// One inode. The lock is never held across a decode, a sync or a reply.
pub(crate) struct Inode {
    pub ino: Ino,
    state: RwLock<InodeState>,
    /// End of the last read, to recognise sequential readers. A hint: races only cost a missed decode-ahead.
    pub read_end: AtomicU64,
}

/// What an inode is now. The log may lag behind in the ways the fields say.
pub(crate) struct InodeState {
    /// Attributes as callers see them; `rec.size` is the size now.
    pub rec: InodeRecord,
    /// The size that the log may promise: every byte below it is durable, coded or a hole.
    pub durable_size: u64,
    /// `rec` has changes the log does not have.
    pub dirty: bool,
    /// Staging was written since its last sync.
    pub unsynced: bool,
    /// The staging file's name is known to be durable.
    pub name_synced: bool,
    /// Staging was cut since its last sync: it must be synced before the log lets the file grow again.
    pub cut: bool,
    /// Coded ranges that were overwritten in staging. The log still calls them coded until staging is synced, so that
    /// a crash finds the old bytes and never a range that is promised to staging but not there.
    pub unlogged: RangeSet,
    /// Raised whenever extents change by other means than a write; tells `log_inode` that what it captured is stale.
    pub swaps: u64,
    /// Open staging file, kept while the inode has handles.
    pub file: Option<Arc<dyn DiskFile>>,
    pub handles: HashMap<HandleId, OpenFor>,
    /// Handles whose reads and writes the kernel does on the staging file by itself. While there are any, the staging file
    /// is as long as the file, and what it was last seen to be tells what happened past us.
    pub bypassing: HashSet<HandleId>,
    pub seen_modified: (i64, u32),
    /// Bytes changed past the kernel's cached pages of this file: they are stale at the next cached open.
    pub stale_pages: bool,
    /// Bytes staging takes on disk, as last seen.
    pub staged_bytes: u64,
    /// Monotonic time of the last change of data, milliseconds.
    pub changed_ms: u64,
    /// The coding queue knows this inode.
    pub queued: bool,
    /// Removed from the volume; the object only waits to be dropped.
    pub removed: bool,
}

impl InodeState {
    pub fn new(rec: InodeRecord) -> InodeState {
        let durable_size = rec.size;
        InodeState {
            rec,
            durable_size,
            dirty: false,
            unsynced: false,
            name_synced: false,
            cut: false,
            unlogged: RangeSet::default(),
            swaps: 0,
            file: None,
            handles: HashMap::new(),
            bypassing: HashSet::new(),
            seen_modified: (0, 0),
            stale_pages: false,
            staged_bytes: 0,
            changed_ms: 0,
            queued: false,
            removed: false,
        }
    }

    /// The record as the log may hold it: while staging may grow the file, the size is the durable one, and recovery
    /// takes the larger of it and the staging length.
    pub fn record_for_log(&self) -> InodeRecord {
        let mut rec = self.rec.clone();
        if rec.staging.is_some_and(|s| s.growing) {
            rec.size = self.durable_size;
        }
        rec
    }

    pub fn is_regular(&self) -> bool {
        self.rec.kind == FileKind::Regular
    }

    pub fn is_directory(&self) -> bool {
        self.rec.kind == FileKind::Directory
    }

    pub fn has_writers(&self) -> bool {
        !self.bypassing.is_empty() || self.handles.values().any(|h| h.write)
    }

    /// Notes a change of data at `now`.
    pub fn touch_data(&mut self, now: Time, now_ms: u64) {
        self.rec.generation.0 += 1;
        self.rec.mtime = now;
        self.rec.ctime = now;
        self.changed_ms = now_ms;
        self.dirty = true;
    }

    /// Fails when the inode has been removed.
    pub fn alive(&self) -> Result<(), Error> {
        if self.removed { Err(Error::NotFound) } else { Ok(()) }
    }

    /// What is lost by dropping a clean inode is found again or assumed for the worse when it is loaded.
    fn evictable(&self) -> bool {
        !self.dirty && self.handles.is_empty() && self.unlogged.is_empty() && self.rec.nlink > 0 && !self.stale_pages
    }
}

impl Inode {
    pub fn new(state: InodeState) -> Inode {
        Inode { ino: state.rec.ino, state: RwLock::new(state), read_end: AtomicU64::new(0) }
    }

    /// A thread that panicked while it held the lock left whole fields behind (each is set after its disk step), so
    /// the state is used as it is.
    pub fn read(&self) -> RwLockReadGuard<'_, InodeState> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, InodeState> {
        self.state.write().unwrap_or_else(|e| e.into_inner())
    }

    /// True when `start` continues the last read, give or take what the kernel reorders; remembers `end`.
    pub fn continues(&self, start: u64, end: u64) -> bool {
        let last = self.read_end.swap(end, Ordering::Relaxed);
        start > 0 && start.abs_diff(last) <= READ_REORDER_BYTES
    }
}

/// Locks several inodes for writing, ascending by number, each once.
pub(crate) fn lock_all(inodes: &[Arc<Inode>]) -> Vec<(Ino, RwLockWriteGuard<'_, InodeState>)> {
    let mut order: Vec<&Arc<Inode>> = inodes.iter().collect();
    order.sort_by_key(|i| i.ino);
    order.dedup_by_key(|i| i.ino);
    order.into_iter().map(|i| (i.ino, i.write())).collect()
}

/// The guard of one of the inodes locked by `lock_all`.
pub(crate) fn locked<'a, 'b>(
    guards: &'a mut [(Ino, RwLockWriteGuard<'b, InodeState>)],
    ino: Ino,
) -> Option<&'a mut RwLockWriteGuard<'b, InodeState>> {
    guards.iter_mut().find(|(i, _)| *i == ino).map(|(_, g)| g)
}

/// Inodes in memory, by number.
#[derive(Default)]
pub(crate) struct InodeTable {
    map: Mutex<HashMap<Ino, Arc<Inode>>>,
}

impl InodeTable {
    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Arc<Inode>>> {
        self.map.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn get(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.lock().get(&ino).cloned()
    }

    /// Adds an inode unless another thread was faster; returns the one that is in the table.
    pub fn insert(&self, inode: Inode) -> Arc<Inode> {
        let mut map = self.lock();
        if map.len() >= INODES_KEPT_MAX {
            // Only inodes that nobody else holds: their state cannot change while the table is locked.
            map.retain(|_, i| Arc::strong_count(i) > 1 || !i.read().evictable());
        }
        map.entry(inode.ino).or_insert_with(|| Arc::new(inode)).clone()
    }

    pub fn remove(&self, ino: Ino) {
        self.lock().remove(&ino);
    }
}
