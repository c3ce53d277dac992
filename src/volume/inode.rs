//! Inodes in memory: the truth about attributes, size and staging while a volume is open.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::types::{Error, HandleId, OpenFor};
use crate::base::{Ino, RangeSet};
use crate::format::{FileKind, InodeRecord, Time};
use crate::host::DiskFile;

/// The kernel reads ahead with several requests at once, and they arrive in any order within about this many bytes.
const READ_REORDER_BYTES: u64 = 1 << 20;
/// What it reads ahead is no less than this, bytes: a shorter read that does not begin where the last one ended is of its own.
const READ_AHEAD_BYTES_MIN: u64 = 64 << 10;
/// End of the last read where there was none.
const UNREAD: u64 = u64::MAX;

/// One inode. The lock is never held across a decode, a sync or a reply.
pub(crate) struct Inode {
    pub ino: Ino,
    state: RwLock<InodeState>,
    /// End of the last read, to recognise sequential readers. A hint: races only cost a missed decode-ahead.
    read_end: AtomicU64,
    /// Asked for since the table last looked for one to drop.
    used: AtomicBool,
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

    /// Notes that the filesystem below was synced and the file has not changed since: its bytes, their length and the name
    /// of its staging file are on disk.
    pub fn all_synced(&mut self) {
        (self.unsynced, self.cut, self.name_synced) = (false, false, true);
        self.durable_size = self.rec.size;
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
        !self.dirty && self.handles.is_empty() && self.unlogged.is_empty() && self.rec.nlink > 0
    }
}

impl Inode {
    pub fn new(state: InodeState) -> Inode {
        Inode {
            ino: state.rec.ino,
            state: RwLock::new(state),
            read_end: AtomicU64::new(UNREAD),
            used: AtomicBool::new(false),
        }
    }

    /// A thread that panicked while it held the lock left whole fields behind (each is set after its disk step), so
    /// the state is used as it is.
    pub fn read(&self) -> RwLockReadGuard<'_, InodeState> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, InodeState> {
        self.state.write().unwrap_or_else(|e| e.into_inner())
    }

    /// True when a read continues the last one, give or take what the kernel reorders; remembers its end. Reads of a few bytes here
    /// and there do not, however near they lie: segments that are decoded for nobody cost each of them seconds.
    pub fn continues(&self, start: u64, end: u64) -> bool {
        let last = self.read_end.swap(end, Ordering::Relaxed);
        let reordered =
            || end.saturating_sub(start) >= READ_AHEAD_BYTES_MIN && start.abs_diff(last) <= READ_REORDER_BYTES;
        start > 0 && last != UNREAD && (start == last || reordered())
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

/// Parts of the table, each with a lock of its own: threads that work on different inodes rarely meet.
const SHARDS: usize = 16;
/// Inodes looked at for one that can go, at each insert into a full shard: what an insert costs at most.
const LOOKED_AT_MAX: usize = 8;

#[derive(Default)]
struct Shard {
    map: HashMap<Ino, Arc<Inode>>,
    /// Numbers in the order in which they are looked at when the shard is full; those removed meanwhile are passed over.
    clock: VecDeque<Ino>,
}

impl Shard {
    /// Drops inodes that nobody holds until `kept` are left, looking at no more than `looks`. One that was used since it
    /// was last looked at gets a second round.
    fn evict(&mut self, kept: usize, looks: usize) {
        for _ in 0..looks {
            if self.map.len() <= kept {
                return;
            }
            let Some(ino) = self.clock.pop_front() else { return };
            let Some(inode) = self.map.get(&ino) else { continue };
            // Only inodes that nobody else holds: their state cannot change while the shard is locked.
            let idle = !inode.used.swap(false, Ordering::Relaxed);
            if idle && Arc::strong_count(inode) == 1 && inode.read().evictable() {
                self.map.remove(&ino);
            } else {
                self.clock.push_back(ino);
            }
        }
    }
}

/// Inodes in memory, by number. Bounded but for those in use: open, or changed and not logged yet.
pub(crate) struct InodeTable {
    shards: [Mutex<Shard>; SHARDS],
    /// Inodes kept beyond those in use.
    kept_max: AtomicUsize,
}

impl InodeTable {
    pub fn new(kept_max: usize) -> InodeTable {
        InodeTable { shards: Default::default(), kept_max: AtomicUsize::new(kept_max) }
    }

    fn lock(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[ino.0 as usize % SHARDS];
        shard.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn kept_per_shard(&self) -> usize {
        self.kept_max.load(Ordering::Relaxed).div_ceil(SHARDS)
    }

    pub fn get(&self, ino: Ino) -> Option<Arc<Inode>> {
        let inode = self.lock(ino).map.get(&ino).cloned();
        if let Some(inode) = &inode {
            inode.used.store(true, Ordering::Relaxed);
        }
        inode
    }

    /// Adds an inode unless another thread was faster; returns the one that is in the table.
    pub fn insert(&self, inode: Inode) -> Arc<Inode> {
        let ino = inode.ino;
        let mut shard = self.lock(ino);
        shard.evict(self.kept_per_shard().saturating_sub(1), LOOKED_AT_MAX);
        if let Some(there) = shard.map.get(&ino) {
            return there.clone();
        }
        let inode = Arc::new(inode);
        shard.clock.push_back(ino);
        shard.map.insert(ino, inode.clone());
        inode
    }

    pub fn remove(&self, ino: Ino) {
        let mut shard = self.lock(ino);
        shard.map.remove(&ino);
        // Numbers are never used again, so what is left of them is swept out when it is the larger part.
        if shard.clock.len() > 2 * shard.map.len() + SHARDS {
            let Shard { map, clock } = &mut *shard;
            clock.retain(|ino| map.contains_key(ino));
        }
    }

    /// Inodes in memory.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap_or_else(|e| e.into_inner()).map.len()).sum()
    }

    /// Drops what can go of what is beyond the bound, and gives the room of the tables back.
    pub fn shrink(&self) {
        let kept = self.kept_per_shard();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(|e| e.into_inner());
            // Twice round: the first round may only take the marks of use away.
            let looks = 2 * shard.clock.len();
            shard.evict(kept, looks);
            shard.map.shrink_to_fit();
            shard.clock.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(n: u64) -> Inode {
        let time = Time { secs: 1, nanos: 0 };
        Inode::new(InodeState::new(InodeRecord::new(Ino(n), FileKind::Regular, time)))
    }

    #[test]
    fn what_reads_on_is_told_from_what_reads_here_and_there() {
        let at = |reads: &[(u64, u64)]| {
            let inode = inode(1);
            reads.iter().map(|(start, len)| inode.continues(*start, start + len)).collect::<Vec<bool>>()
        };
        assert_eq!(at(&[(0, 4096), (4096, 4096), (8192, 4096)]), [false, true, true]);
        assert_eq!(at(&[(151_552, 8192)]), [false], "the first of all, near the front");
        assert_eq!(at(&[(0, 8192), (300_000, 8192), (100_000, 8192)]), [false; 3], "here and there");
        let kib = |n: u64| n << 10;
        let ahead = at(&[(0, kib(128)), (kib(384), kib(256)), (kib(128), kib(256)), (kib(640), kib(512))]);
        assert_eq!(ahead, [false, true, true, true], "as the kernel reads ahead, in another order");
        assert_eq!(at(&[(0, kib(128)), (kib(4096), kib(128))]), [false, false], "far away");
    }

    #[test]
    fn a_full_table_drops_what_nobody_uses_and_keeps_the_rest() {
        let table = InodeTable::new(1024);
        let held: Vec<_> = (1..=100).map(|n| table.insert(inode(n))).collect();
        for n in 101..=200 {
            table.insert(inode(n)).write().dirty = true;
        }
        for n in 201..=20_000 {
            table.insert(inode(n));
            assert!(table.get(Ino(150)).is_some(), "used all the time");
        }
        assert!(table.len() <= 1024 + SHARDS, "{} are kept", table.len());
        for n in 1..=200 {
            assert!(table.get(Ino(n)).is_some(), "{n} is in use and cannot go");
        }
        assert!(
            held.iter().all(|i| Arc::ptr_eq(i, &table.get(i.ino).unwrap())),
            "the same object as long as it is held"
        );
        drop(held);
        table.kept_max.store(0, Ordering::Relaxed);
        table.shrink();
        assert_eq!(table.len(), 100, "the changed ones are left");
        for n in 101..=200 {
            table.remove(Ino(n));
        }
        assert_eq!(table.len(), 0);
        assert!(table.shards.iter().all(|s| s.lock().unwrap().clock.len() <= SHARDS), "no numbers pile up");
    }

    #[test]
    fn an_insert_never_looks_at_the_whole_table() {
        let table = InodeTable::new(16);
        for n in 1..=50_000 {
            table.insert(inode(n)).write().dirty = true;
        }
        assert_eq!(table.len(), 50_000, "none of them can go");
        // With a look at all of them at each insert this took minutes.
        let started = std::time::Instant::now();
        for n in 50_001..=100_000 {
            table.insert(inode(n)).write().dirty = true;
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
