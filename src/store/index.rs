//! The index: ordered keys and values, derived from the packs.
//!
//! The only place that knows sled. sled 0.34.7 is used with care, since it is known to fail to open after a crash while
//! it opens, to panic on damaged files and to grow: nothing durable depends on it, it is written only at checkpoints, in
//! small batches, every value carries a check of its own, and any error, panic or delay leads to a rebuild from packs. It is
//! opened anew now and then while it is in use: nothing else gives its memory back, or bounds what its next open reads.
//! In front of it stands an overlay in memory, so that a commit costs microseconds and a checkpoint writes each key once.
//!
//! On disk: `index/` (sled's own files; key as in keys.rs, value = CRC32C of key and value, then the value).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::time::Duration;

use super::error::Error;
use super::keys::{self, Batch};
use super::ledger::Live;
use super::recovery::Position;
use crate::base::{crc32c, crc32c_append};
use crate::host::{self, Disk};

/// Directory of sled's files.
pub(crate) const INDEX_DIR: &str = "index";
/// A smaller copy that takes its place at the next open, complete once it has this name; one that is being written; and the
/// index whose place it took, until it is removed.
pub(crate) const NEW_DIR: &str = "index.new";
const DRAFT_DIR: &str = "index.draft";
const OLD_DIR: &str = "index.old";
/// An index is copied when it takes this many times what is in it.
const VACUUM_SHARE: u64 = 4;
/// sled is given this long to open; then it is set aside.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// The file in it that sled locks.
const SLED_FILE: &str = "db";
/// Keys per batch: larger ones are not recovered reliably.
const KEYS_PER_BATCH: usize = 64;
/// sled's page cache, bytes; it uses several times as much.
const CACHE_BYTES: u64 = 24 << 20;
/// Keys written to sled between two opens: it reads at its open what was written since the one before.
const KEYS_PER_OPEN: u64 = 400_000;
/// Bytes that a key in the overlay takes beside key and value: its node of the tree and two allocations.
const OVERLAY_KEY_BYTES: u64 = 112;
/// Space that a checkpoint of few keys takes, bytes: two of sled's segments.
const CHECKPOINT_BYTES_MIN: u64 = 1 << 20;
/// Space that one more key takes, bytes: sled rewrites the page it lies on.
const CHECKPOINT_BYTES_PER_KEY: u64 = 1024;
/// Failed indexes kept for a look.
const BAD_KEPT: usize = 2;

type Map = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);
/// Keys with values, ascending.
pub(crate) type Pairs = Vec<Pair>;

#[derive(Default)]
struct Overlay {
    active: Map,
    /// Bytes of `active` and of `frozen`, about.
    active_bytes: u64,
    frozen_bytes: u64,
    /// What a checkpoint is writing to the engine.
    frozen: Option<Arc<Map>>,
}

/// Where keys and values are kept.
pub(crate) struct Index {
    overlay: RwLock<Overlay>,
    /// Written only to open it anew.
    engine: RwLock<Option<sled::Db>>,
    /// There is an engine, or there was one that did not open again.
    engined: bool,
    dir: PathBuf,
    /// What waits in memory for a checkpoint at most, bytes.
    overlay_bytes: u64,
    /// Keys written to the engine since it was opened.
    written: AtomicU64,
    /// Some keys may be newer than the position: a checkpoint was cut off, and the log is being read over them.
    behind: AtomicBool,
    /// The store is to be closed: what takes long is given up.
    closing: AtomicBool,
    /// Held during a checkpoint: one at a time.
    flushing: Mutex<()>,
    bad: AtomicBool,
    /// The engine met a full disk while it wrote: it takes no more until it is opened again, and is still read.
    stuck: AtomicBool,
    /// The disk failed: the engine is left as it is, and not even closed.
    abandoned: AtomicBool,
    /// What of the packs is live, as of all changes.
    live: Mutex<Live>,
}

impl Drop for Index {
    /// sled panics where its last sync fails.
    fn drop(&mut self) {
        let Some(db) = self.engine.get_mut().unwrap_or_else(|e| e.into_inner()).take() else { return };
        if self.is_bad() || self.is_stuck() || self.abandoned.load(Ordering::Acquire) {
            // The process ends soon, and with it what this holds. Nothing waits in it that the packs do not have.
            std::mem::forget(db);
        } else if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            log::warn!("the index was not closed well; the next mount looks whether it is whole");
        }
    }
}

/// A frozen state of the index: what all keys were at one moment.
pub(crate) struct Frozen<'a> {
    index: &'a Index,
    map: Arc<Map>,
    _one: std::sync::MutexGuard<'a, ()>,
}

fn check(key: &[u8], value: &[u8]) -> [u8; 4] {
    crc32c_append(crc32c(key), value).to_le_bytes()
}

fn unwrap_value(key: &[u8], stored: &[u8]) -> Result<Vec<u8>, Error> {
    let (crc, value) = stored.split_first_chunk::<4>().ok_or_else(|| Error::Index("short value".into()))?;
    if *crc == check(key, value) { Ok(value.to_vec()) } else { Err(Error::Index("value check".into())) }
}

impl Index {
    /// An index in memory alone.
    pub fn memory() -> Index {
        Index {
            overlay: RwLock::new(Overlay::default()),
            engine: RwLock::new(None),
            engined: false,
            dir: PathBuf::new(),
            overlay_bytes: u64::MAX,
            written: AtomicU64::new(0),
            behind: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            flushing: Mutex::new(()),
            bad: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            live: Mutex::new(Live::default()),
        }
    }

    fn with(db: sled::Db, dir: PathBuf, overlay_bytes: u64) -> Index {
        let mut index = Index::memory();
        (index.engine, index.engined, index.dir) = (RwLock::new(Some(db)), true, dir);
        index.overlay_bytes = overlay_bytes;
        index
    }

    /// Leaves the engine alone from now on: the disk failed.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Opens sled in `index/`. An index that does not open, in whatever way, is renamed to `index.bad-<n>`, and a new,
    /// empty one takes its place; the flag says so. `overlay_bytes` may wait in memory for a checkpoint.
    ///
    /// # Errors
    /// `NoSpace` and `TooManyFiles` say nothing about the index, which stays as it is.
    pub fn sled(disk: &dyn Disk, root: &Path, overlay_bytes: u64) -> Result<(Index, bool), Error> {
        let dir = root.join(INDEX_DIR);
        take_new(disk).map_err(Error::io("put the smaller copy of the index in its place"))?;
        // A kill while sled opens leaves a snapshot that it will choose and fail on.
        for name in disk.list(INDEX_DIR).map_err(Error::io("list index"))? {
            if name.starts_with("snap.") && name.ends_with(".generating") {
                disk.remove(&format!("{INDEX_DIR}/{name}"))
                    .map_err(Error::io("remove an unfinished index snapshot"))?;
            }
        }
        match open_within(dir.clone(), OPEN_TIMEOUT) {
            Ok(db) => Ok((Index::with(db, dir, overlay_bytes), false)),
            Err(e) if e.is_refusal() => Err(e),
            Err(e) => {
                log::warn!("{e}; it is set aside and rebuilt from the packs");
                set_aside(disk)?;
                let db = open_within(dir.clone(), OPEN_TIMEOUT)?;
                Ok((Index::with(db, dir, overlay_bytes), true))
            }
        }
    }

    /// Copies what is in the engine to a new one that takes its place, when the old one takes much more than that and at least
    /// `bytes_min`; sled never gives space back. Bytes of the old and of what is in it. A crash in between leaves either: the
    /// index is derived and says how far it has read the log.
    ///
    /// # Durability
    /// On disk at return.
    ///
    /// # Blocking
    /// Checkpoints wait, so it is given up (`None`) when one is due, and when the store is to be closed; look-ups wait for the
    /// new engine to open.
    pub fn vacuum(&self, disk: &dyn Disk, root: &Path, bytes_min: u64) -> Result<Option<(u64, u64)>, Error> {
        let _one = self.flushing.lock().unwrap_or_else(|e| e.into_inner());
        if !self.engined || self.is_bad() || self.is_stuck() || self.read().frozen.is_some() {
            return Ok(None);
        }
        let copied = self.guarded(|db| {
            let fail = |e| engine_failed("copy the index", e);
            let size = db.size_on_disk().map_err(fail)?;
            if size < bytes_min {
                return Ok(None);
            }
            let mut live = 0;
            for pair in db.iter() {
                if self.is_closing() {
                    return Ok(None);
                }
                let (key, value) = pair.map_err(fail)?;
                live += (key.len() + value.len()) as u64;
            }
            if size < live.saturating_mul(VACUUM_SHARE) {
                return Ok(None);
            }
            let write = || Error::write("copy the index");
            disk.remove_dir_all(DRAFT_DIR).map_err(write())?;
            let new = open_within(root.join(DRAFT_DIR), OPEN_TIMEOUT)?;
            let mut batch = sled::Batch::default();
            for (n, pair) in db.iter().enumerate() {
                let (key, value) = pair.map_err(fail)?;
                batch.insert(key, value);
                if n % KEYS_PER_BATCH == KEYS_PER_BATCH - 1 {
                    if self.is_full() || self.is_closing() {
                        drop(new);
                        disk.remove_dir_all(DRAFT_DIR).map_err(write())?;
                        return Ok(None);
                    }
                    new.apply_batch(std::mem::take(&mut batch)).map_err(fail)?;
                }
            }
            new.apply_batch(batch).map_err(fail)?;
            new.flush().map_err(fail)?;
            drop(new);
            disk.sync_dir(DRAFT_DIR).map_err(write())?;
            disk.remove_dir_all(NEW_DIR).map_err(write())?;
            disk.rename(DRAFT_DIR, NEW_DIR).map_err(write())?;
            disk.sync_dir("").map_err(write())?;
            Ok(Some((size, live)))
        })?;
        let copied = copied.flatten();
        if copied.is_some() {
            self.open_anew(|| {
                if let Err(e) = take_new(disk) {
                    log::warn!("the smaller copy of the index takes its place another time: {e}");
                }
            });
        }
        Ok(copied)
    }

    /// Bytes that the engine takes on disk; nothing where there is none.
    pub fn size_on_disk(&self) -> Result<u64, Error> {
        let size = self.guarded(|db| db.size_on_disk().map_err(|e| engine_failed("measure the index", e)))?;
        Ok(size.unwrap_or(0))
    }

    /// What of the packs is live.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn read(&self) -> RwLockReadGuard<'_, Overlay> {
        self.overlay.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Overlay> {
        self.overlay.write().unwrap_or_else(|e| e.into_inner())
    }

    /// Runs a step of the engine. The first failure marks the index: it is not asked again and the next open rebuilds it.
    fn guarded<T>(&self, step: impl FnOnce(&sled::Db) -> Result<T, Error>) -> Result<Option<T>, Error> {
        if !self.engined {
            return Ok(None);
        }
        let engine = self.engine.read().unwrap_or_else(|e| e.into_inner());
        if self.bad.load(Ordering::Acquire) {
            return Err(Error::Index("it failed before".into()));
        }
        let Some(db) = &*engine else { return Err(Error::Index("it is closed".into())) };
        let outcome = catch_unwind(AssertUnwindSafe(|| step(db)))
            .unwrap_or_else(|_| Err(Error::Index("the engine panicked".into())));
        if let Err(e) = &outcome
            && !e.is_refusal()
            && !self.bad.swap(true, Ordering::AcqRel)
        {
            log::error!("{e}");
        }
        outcome.map(Some)
    }

    /// True when it is kept on disk from one open to the next.
    pub fn is_kept(&self) -> bool {
        self.engined
    }

    /// True when the index failed and must be rebuilt.
    pub fn is_bad(&self) -> bool {
        self.bad.load(Ordering::Acquire)
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let overlay = self.read();
        if let Some(found) = overlay.active.get(key) {
            return Ok(found.clone());
        }
        if let Some(found) = overlay.frozen.as_ref().and_then(|f| f.get(key)) {
            return Ok(found.clone());
        }
        let stored = self.guarded(|db| {
            let stored = db.get(key).map_err(|e| Error::Index(e.to_string()))?;
            stored.map(|v| unwrap_value(key, &v)).transpose()
        })?;
        Ok(stored.flatten())
    }

    /// Up to `limit` keys from `from` (included) to `end` (excluded), ascending.
    pub fn range(&self, from: &[u8], end: &[u8], limit: usize) -> Result<Pairs, Error> {
        let overlay = self.read();
        self.merged(Some(&overlay.active), overlay.frozen.as_deref(), from, end, limit)
    }

    /// Merges up to three sources; the earlier one wins.
    fn merged(
        &self,
        first: Option<&Map>,
        second: Option<&Map>,
        from: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Pairs, Error> {
        if from >= end {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(end));
        let mut maps: Vec<_> =
            [first, second].into_iter().flatten().map(|m| m.range::<[u8], _>(bounds).peekable()).collect();
        let pairs = self.guarded(|db| {
            let mut base = db.range(from..end);
            let mut ahead = next_pair(&mut base)?;
            let mut out: Pairs = Vec::new();
            while out.len() < limit {
                let lowest = maps
                    .iter_mut()
                    .filter_map(|m| m.peek().map(|(k, _)| k.as_slice()))
                    .chain(ahead.as_ref().map(|(k, _)| k.as_slice()))
                    .min()
                    .map(<[u8]>::to_vec);
                let Some(key) = lowest else { break };
                let mut value: Option<Option<Vec<u8>>> = None;
                for map in &mut maps {
                    if let Some((_, v)) = map.next_if(|(k, _)| **k == key) {
                        value.get_or_insert_with(|| v.clone());
                    }
                }
                if let Some((_, v)) = ahead.take_if(|(k, _)| *k == key) {
                    value.get_or_insert(Some(v));
                    ahead = next_pair(&mut base)?;
                }
                out.extend(value.flatten().map(|v| (key, v)));
            }
            Ok(out)
        })?;
        match pairs {
            Some(pairs) => Ok(pairs),
            // In memory alone there is one map, and nothing removed is kept in it.
            None => Ok(first
                .or(second)
                .into_iter()
                .flat_map(|m| m.range::<[u8], _>(bounds))
                .filter_map(|(k, v)| v.as_ref().map(|v| (k.clone(), v.clone())))
                .take(limit)
                .collect()),
        }
    }

    /// Sets and removes keys. In memory: the engine sees them at the next checkpoint.
    pub fn put(&self, batch: Batch) {
        let mut overlay = self.write();
        for (key, value) in batch {
            if value.is_none() && !self.engined {
                overlay.active.remove(&key);
                continue;
            }
            let (key_len, value_len) = (key.len() as u64, value.as_ref().map_or(0, |v| v.len() as u64));
            match overlay.active.insert(key, value) {
                None => overlay.active_bytes += key_len + value_len + OVERLAY_KEY_BYTES,
                Some(old) => {
                    let old_len = old.map_or(0, |v| v.len() as u64);
                    overlay.active_bytes = (overlay.active_bytes + value_len).saturating_sub(old_len);
                }
            }
        }
    }

    /// True when no checkpoint is possible until the next open: what is changed stays in memory, and in the log.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    /// True when so much waits in memory that a checkpoint is due.
    pub fn is_full(&self) -> bool {
        self.engined && !self.is_stuck() && self.read().active_bytes > self.overlay_bytes / 2
    }

    /// True when a checkpoint cannot wait any longer: what bounds the memory of the overlay.
    pub fn is_overfull(&self) -> bool {
        self.engined && !self.is_stuck() && self.read().active_bytes > self.overlay_bytes
    }

    /// Space that a checkpoint may take, bytes: generous, since an engine that meets a full disk is lost until the next
    /// mount.
    pub fn bytes_to_write(&self) -> u64 {
        if !self.engined {
            return 0;
        }
        let overlay = self.read();
        let keys = overlay.active.len() + overlay.frozen.as_ref().map_or(0, |f| f.len());
        CHECKPOINT_BYTES_MIN + keys as u64 * CHECKPOINT_BYTES_PER_KEY
    }

    /// Bytes that changes take in memory until the engine has them.
    pub fn overlay_bytes(&self) -> u64 {
        let overlay = self.read();
        overlay.active_bytes + overlay.frozen_bytes
    }

    /// Closes the engine and opens it again: the only way to have its memory back. Its own snapshot is written by that,
    /// so the next open is faster too. A failure marks the index, which the next mount rebuilds.
    ///
    /// # Blocking
    /// Until a checkpoint under way ends; look-ups wait for the engine.
    pub fn reopen(&self) {
        let _one = self.flushing.lock().unwrap_or_else(|e| e.into_inner());
        self.open_anew(|| {});
    }

    /// `reopen` for a caller that holds `flushing`; `between` is called while the engine is closed.
    fn open_anew(&self, between: impl FnOnce()) {
        if !self.engined || self.is_bad() || self.is_stuck() || self.abandoned.load(Ordering::Acquire) {
            return;
        }
        let mut engine = self.engine.write().unwrap_or_else(|e| e.into_inner());
        let Some(db) = engine.take() else { return };
        // It may panic when it is dropped, as it does anywhere else.
        let closed = catch_unwind(AssertUnwindSafe(|| {
            db.flush().is_ok() && {
                drop(db);
                true
            }
        }));
        between();
        match open_within(self.dir.clone(), OPEN_TIMEOUT) {
            Ok(db) => *engine = Some(db),
            Err(e) => {
                self.bad.store(true, Ordering::Release);
                log::error!("the index did not open again: {e}");
            }
        }
        self.written.store(0, Ordering::Relaxed);
        if closed.is_err() {
            log::warn!("the index did not close well");
        }
    }

    /// Housekeeping that takes long is given up from now on, or no longer.
    pub fn set_closing(&self, closing: bool) {
        self.closing.store(closing, Ordering::Release);
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Says that keys may be newer than the position that the log is read from, or no longer.
    pub fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Release);
    }

    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// Keys that wait for a checkpoint.
    pub fn waiting(&self) -> usize {
        if self.engined { self.read().active.len() } else { 0 }
    }

    /// Fixes the state of now. The caller holds its own lock against changes while it calls.
    ///
    /// # Blocking
    /// Until a checkpoint under way ends.
    pub fn freeze(&self) -> Frozen<'_> {
        let one = self.flushing.lock().unwrap_or_else(|e| e.into_inner());
        if self.engined {
            let changes = self.live().take_changes();
            self.put(changes);
        }
        let mut overlay = self.write();
        let map = match (self.engined, &overlay.frozen) {
            // Without an engine the map stays where it is: it is the index.
            (false, _) => Arc::new(overlay.active.clone()),
            (true, None) => {
                overlay.frozen_bytes = std::mem::take(&mut overlay.active_bytes);
                let map = Arc::new(std::mem::take(&mut overlay.active));
                overlay.frozen = Some(map.clone());
                map
            }
            (true, Some(left)) => {
                // A checkpoint that failed left its keys: they go with those of now.
                let mut all = (**left).clone();
                all.append(&mut std::mem::take(&mut overlay.active));
                let map = Arc::new(all);
                overlay.frozen_bytes += std::mem::take(&mut overlay.active_bytes);
                overlay.frozen = Some(map.clone());
                map
            }
        };
        Frozen { index: self, map, _one: one }
    }
}

impl Frozen<'_> {
    /// As `Index::range`, of the frozen state.
    pub fn range(&self, from: &[u8], end: &[u8], limit: usize) -> Result<Pairs, Error> {
        self.index.merged(None, Some(&self.map), from, end, limit)
    }

    /// Writes the frozen keys to the engine, then `position`, and flushes: a crash in between leaves an older position
    /// with some newer keys, which replaying the log from there sets right. Sums are not set right by that, so the old
    /// position is marked before the first key is written.
    ///
    /// # Durability
    /// On disk at return, as far as sled keeps its word; nothing depends on it.
    pub fn write_out(self, position: &Position) -> Result<(), Error> {
        let written = self.index.guarded(|db| {
            let fail = |e| engine_failed("write the index", e);
            let place = |position: &Position| {
                let value = position.encode();
                db.insert(keys::POSITION, stored(keys::POSITION, &value)).map_err(fail)?;
                db.flush().map_err(fail)
            };
            if let Some(old) = db.get(keys::POSITION).map_err(fail)?
                && let Some(old) = Position::decode(&unwrap_value(keys::POSITION, &old)?)
            {
                place(&Position { behind: true, ..old })?;
            }
            let mut batch = sled::Batch::default();
            let mut count = 0;
            for (key, value) in self.map.iter() {
                match value {
                    Some(value) => batch.insert(key.as_slice(), stored(key, value)),
                    None => batch.remove(key.as_slice()),
                }
                count += 1;
                if count == KEYS_PER_BATCH {
                    db.apply_batch(std::mem::take(&mut batch)).map_err(fail)?;
                    count = 0;
                }
            }
            db.apply_batch(batch).map_err(fail)?;
            db.flush().map_err(fail)?;
            place(position)?;
            Ok(())
        });
        if written.as_ref().is_err_and(Error::is_refusal) {
            self.index.stuck.store(true, Ordering::Release);
        }
        written?;
        if self.index.engined {
            {
                let mut overlay = self.index.write();
                (overlay.frozen, overlay.frozen_bytes) = (None, 0);
            }
            let keys = self.map.len() as u64;
            if self.index.written.fetch_add(keys, Ordering::Relaxed) + keys > KEYS_PER_OPEN {
                drop(self.map);
                self.index.open_anew(|| {});
            }
        }
        Ok(())
    }
}

/// Puts a complete copy in the place of the index, and removes what is left of earlier ones. Whatever step a crash ends it
/// at, the next open goes on, or finds no index and makes it anew.
fn take_new(disk: &dyn Disk) -> std::io::Result<()> {
    let there = disk.list("")?;
    let has = |name: &str| there.iter().any(|n| n == name);
    if has(NEW_DIR) {
        disk.remove_dir_all(OLD_DIR)?;
        if has(INDEX_DIR) {
            disk.rename(INDEX_DIR, OLD_DIR)?;
        }
        disk.rename(NEW_DIR, INDEX_DIR)?;
        disk.sync_dir("")?;
    }
    if has(NEW_DIR) || has(OLD_DIR) {
        disk.remove_dir_all(OLD_DIR)?;
    }
    if has(DRAFT_DIR) { disk.remove_dir_all(DRAFT_DIR) } else { Ok(()) }
}

fn stored(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = check(key, value).to_vec();
    out.extend_from_slice(value);
    out
}

/// The next pair of sled's iterator, which must not be used past an error.
fn next_pair(iter: &mut sled::Iter) -> Result<Option<Pair>, Error> {
    match iter.next() {
        None => Ok(None),
        Some(Err(e)) => Err(Error::Index(e.to_string())),
        Some(Ok((key, value))) => {
            let value = unwrap_value(&key, &value)?;
            Ok(Some((key.to_vec(), value)))
        }
    }
}

/// What a failure of the engine means: damage, unless the machine had no room.
fn engine_failed(what: &str, e: sled::Error) -> Error {
    match e {
        sled::Error::Io(e) if host::is_out_of_space(&e) || host::is_out_of_files(&e) => Error::write(what)(e),
        e => Error::Index(e.to_string()),
    }
}

/// Opens sled on a thread of its own, since it may panic or hang on damaged files.
fn open_within(dir: PathBuf, limit: Duration) -> Result<sled::Db, Error> {
    let (tx, rx) = mpsc::channel();
    let open = move || {
        // sled closes its file, and lets go of its lock, on threads of its own some time after it was dropped, and does not wait
        // for the lock as it opens.
        if let Err(e) = host::wait_for_lock(&dir.join(SLED_FILE)) {
            log::warn!("wait for the lock of the index: {e}");
        }
        let opened = catch_unwind(|| {
            sled::Config::new()
                .path(&dir)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .use_compression(false)
                .open()
        });
        let opened = match opened {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(e)) => Err(engine_failed("open the index", e)),
            Err(_) => Err(Error::Index("the engine panicked as it opened".to_string())),
        };
        // The receiver is gone when the limit has passed: then the database is closed again.
        let _ = tx.send(opened);
    };
    std::thread::Builder::new().name("index-open".into()).spawn(open).map_err(Error::io("open the index"))?;
    rx.recv_timeout(limit).unwrap_or_else(|_| Err(Error::Index(format!("not open after {} s", limit.as_secs()))))
}

/// Renames `index/` to the next free `index.bad-<n>` and deletes the oldest beyond those kept.
pub(crate) fn set_aside(disk: &dyn Disk) -> Result<(), Error> {
    let fail = || Error::io("set the failed index aside");
    let mut old: Vec<u64> = disk
        .list("")
        .map_err(fail())?
        .iter()
        .filter_map(|n| n.strip_prefix("index.bad-").and_then(|n| n.parse().ok()))
        .collect();
    old.sort();
    let next = old.last().map_or(1, |n| n + 1);
    disk.rename(INDEX_DIR, &format!("index.bad-{next}")).map_err(fail())?;
    let excess = (old.len() + 1).saturating_sub(BAD_KEPT);
    for n in old.into_iter().take(excess) {
        disk.remove_dir_all(&format!("index.bad-{n}")).map_err(fail())?;
    }
    Ok(())
}
