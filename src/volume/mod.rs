//! A mounted volume below the kernel: inodes, dentries, extents, staging, cache, policy; read, write, fsync, commit.
//!
//! Must not know: the kernel's structures and errno, when background work happens, how a model works, where a record
//! lies in a pack.
//!
//! # How bytes are kept
//! A byte of a file is *coded* when an extent names it, else *staged* when the staging file has data there, else zero.
//! What stays staged is sealed with checksums once it is quiet (seal.rs).
//! A write never decodes: it puts bytes into staging and ends the codedness of exactly these bytes. Coding collects a
//! grid cell of a file (or a bundle of small files), codes it, and swaps extents if the inode's generation is the same.
//!
//! # Durability
//! | call | promise at return |
//! | --- | --- |
//! | `write` | in the kernel's cache of the store: survives the death of this process, but for overwrites of coded ranges, which show the old bytes until the next `flush`, `release` or `fsync` |
//! | `release` | the same, with overwrites and attributes |
//! | `fsync` | data and metadata on disk |
//! | `fsync_dir`, `flush` | all names and attributes on disk; `flush` runs every few seconds |
//! | `rename` over a file | the bytes of the new file are on disk before the name is |
//!
//! # Invariants
//! 1. Data durable, then pointer durable, then the old copy goes: segments are synced before extents are logged,
//!    extents are synced before staging is removed; staging is synced before the log ends the codedness of a range.
//! 2. The log is written under the lock of the inode it speaks of, so records of one inode are in the order of its states.
//! 3. After a failed sync nothing is changed any more (`Error::ReadOnly`).
//!
//! # Locks
//! commits (see the field) → names (one mutex for all changes of names) → inodes (ascending) → queue, cache, store. None is held across a decode or
//! a reply, and no inode lock across a sync but for the rare one that must precede the next byte (a cut, a seal).

mod acl;
mod attrs;
mod bypass;
mod cache;
mod clone;
mod clusters;
mod coding;
mod cover;
mod data;
mod explain;
mod gc;
mod hot;
mod inode;
mod ladder;
mod languages;
mod memory;
mod names;
mod parts;
mod paths;
mod policy;
mod reference;
mod report;
mod rules;
mod scrub;
mod seal;
mod sharing;
mod similar;
mod space;
mod staging;
mod survey;
mod training;
mod types;
mod wishes;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use roaring::RoaringTreemap;

use crate::base::{ByteRange, Ino, RangeSet};
use crate::codec::Library;
use crate::format::{InodeRecord, MetaOp, Staging};
use crate::host::{self, Disk};
use crate::store::{Recovery, Store, StoreOptions};
use crate::workers::Workers;

pub use crate::format::{FileKind, Time};
pub use crate::host::may_set_group;
pub use crate::store::{Error as StoreError, ParityShape};
pub use crate::store::{GcAction, GcPack};
pub use acl::{acl_from_text, acl_to_text};
pub use explain::{AgainstReport, Explanation, KindReport, WaitingReport};
pub use gc::{GcPlan, GcReport, GcRun, KeptPack};
pub use hot::{HotOptions, is_hot_copy};
pub use ladder::LadderRun;
#[cfg(feature = "hub")]
pub use languages::TENSORS_ENDS;
#[cfg(feature = "lora")]
pub use languages::learned_of;
pub use languages::{LanguageReport, language_reports, load_brought};
pub use memory::{BUDGET_BYTES_MIN, Shares};
pub use names::NAME_BYTES_MAX;
pub use policy::{FILES_PER_BUNDLE_MAX, bundle, is_small};
pub use rules::{PathPattern, RULES_MAX, Rule, Rules, parse_age};
pub use scrub::{Damaged, ScrubOptions, ScrubReport, ScrubStatus, scrub};
pub use seal::check_staged;
pub use survey::{DirectoryReport, UseReport, VolumeReport};
pub use training::{PriorReport, RecodeReport, RecodeRun, TrainReport, Trained, library_of};
pub use types::{
    Adjustable, AllocateMode, Atime, Attr, Backlog, Caller, CodedSegment, CodingNow, CodingTask, Entry, Error,
    FileReport, HandleId, HotStatus, NewMode, OpenFor, Opened, PolicyReport, RenameMode, SeekFor, SegmentReport,
    SetAttr, SetTime, Share, StatFs, Status, VolumeOptions, XattrMode,
};

use cache::SegmentCache;
use coding::Queue;
use inode::{Inode, InodeState, InodeTable};

/// Answer of a read: the bytes (fewer than asked only at the end of the file) or why not.
pub type ReadDone = Box<dyn FnOnce(Result<&[u8], Error>) + Send>;

/// Largest file offset, as on Linux.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Names of staging held against the index at a time, and sentences about them.
const NAMES_PER_STEP: usize = 1024;
const SENTENCES_MAX: usize = 1000;
/// Orphans removed per step at start.
const ORPHANS_PER_STEP: usize = 1024;

/// An open volume. Every call takes `&self` and may come from any thread.
pub struct Volume {
    disk: Arc<dyn Disk>,
    store: Store,
    workers: Arc<Workers>,
    options: VolumeOptions,
    /// Those of them that can be changed.
    adjustable: RwLock<Adjustable>,
    /// Held while names change.
    names: Mutex<()>,
    inodes: InodeTable,
    segments: SegmentCache,
    /// Decoded segments on disk.
    hot: Option<hot::HotCache>,
    queue: Mutex<Queue>,
    /// What attributes ask for in directories.
    wishes: wishes::SharedWishes,
    /// Names of files, for rules that go by them.
    paths: paths::SharedPaths,
    /// Held for reading from the append of coded segments to their swap, for writing while a pack is deleted.
    commits: RwLock<()>,
    gc: Mutex<gc::GcMemory>,
    /// Held while staged files are looked for: one at a time.
    refilling: Mutex<()>,
    /// All staged files were counted once.
    counted: AtomicBool,
    /// Metadata was lost when the store was opened: staging that nobody names is kept.
    lost_metadata: AtomicBool,
    /// Files whose bytes were changed past the pages that the kernel has cached of them: those are stale at the next open that
    /// the kernel does not serve by itself.
    stale_pages: Mutex<RoaringTreemap>,
    /// Inodes whose attributes the log does not have yet.
    dirty: Mutex<BTreeSet<Ino>>,
    /// Segments that failed a check; each is logged once.
    quarantine: Mutex<BTreeSet<crate::base::SegmentRef>>,
    /// Files whose staged bytes failed their seal; each is logged once.
    damaged_staging: Mutex<BTreeSet<Ino>>,
    /// Where the next round of sealing goes on.
    seal_cursor: AtomicU64,
    next_handle: AtomicU64,
    /// Staging files that the log no longer speaks of, though the log on disk may still: they go after its next sync.
    doomed: Mutex<Vec<(Ino, u64)>>,
    /// Inodes without names and handles whose removal the log had no room for; the next flush tries again.
    lingering: Mutex<BTreeSet<Ino>>,
    /// A sync failed: nothing may change any more.
    failed: AtomicBool,
    closed: AtomicBool,
    /// It is closed soon.
    hurried: AtomicBool,
    room: space::Room,
    shares: Shares,
    watch: memory::Watch,
    counts: report::Counts,
    scrubbing: scrub::Scrubbing,
    /// Priors that the volume's own files taught.
    library: Library,
    /// Held while priors are trained or segments coded anew from them.
    training: Mutex<()>,
}

impl Volume {
    /// Opens the store in `disk`, recovers, removes what was unlinked while open, and queues what is staged.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: VolumeOptions,
        workers: Arc<Workers>,
    ) -> Result<(Arc<Volume>, Recovery), Error> {
        let shares = Shares::of(options.memory_bytes, options.cache_bytes);
        let (store, mut recovery) = Store::open(
            disk.clone(),
            StoreOptions {
                engine: options.engine,
                read_only: options.read_only,
                peek: false,
                rebuild: options.rebuild_index,
                pack_bytes_max: options.pack_bytes_max,
                overlay_bytes: (shares.overlay / 2).min(OVERLAY_BYTES_MAX),
            },
        )
        .map_err(Error::Store)?;
        if !store.is_read_only()
            && let Err(e) = store.settle_languages()
        {
            log::error!("{e}");
        }
        let library = training::library_of(&disk, &store);
        let scrubbing = scrub::Scrubbing::new(scrub::remembered(&*disk, &store));
        let volume = Arc::new(Volume {
            hot: hot::HotCache::open(&disk, &options.hot, store.is_read_only()),
            segments: SegmentCache::new(shares.segments),
            disk,
            store,
            workers,
            adjustable: RwLock::new(Adjustable {
                policy: options.policy,
                quiet_ms: options.quiet_ms,
                seal_ms: options.seal_ms,
                rules: options.rules.clone(),
            }),
            options,
            names: Mutex::new(()),
            commits: RwLock::new(()),
            gc: Mutex::new(gc::GcMemory::default()),
            inodes: InodeTable::new(shares.inodes_max()),
            queue: Mutex::new(Queue::new(shares.queue_files_max())),
            wishes: Mutex::default(),
            paths: Mutex::default(),
            refilling: Mutex::new(()),
            counted: AtomicBool::new(false),
            lost_metadata: AtomicBool::new(false),
            stale_pages: Mutex::new(RoaringTreemap::new()),
            dirty: Mutex::new(BTreeSet::new()),
            quarantine: Mutex::new(BTreeSet::new()),
            damaged_staging: Mutex::new(BTreeSet::new()),
            seal_cursor: AtomicU64::new(0),
            next_handle: AtomicU64::new(1),
            doomed: Mutex::new(Vec::new()),
            lingering: Mutex::new(BTreeSet::new()),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            room: space::Room::default(),
            shares,
            watch: memory::Watch::default(),
            counts: report::Counts::default(),
            scrubbing,
            library,
            training: Mutex::new(()),
        });
        volume.recover(&mut recovery)?;
        Ok((volume, recovery))
    }

    /// What is set now of that which can be changed.
    pub(crate) fn adjustable(&self) -> Adjustable {
        self.adjustable.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Changes settings. They count for what is coded from now on.
    pub fn adjust(&self, new: Adjustable) {
        let rules = new.rules.clone();
        let old = std::mem::replace(&mut *self.adjustable.write().unwrap_or_else(|e| e.into_inner()), new);
        if old.rules != rules {
            self.rules_changed(&rules);
        }
    }

    /// What must be done before the first request. The rest goes over all of staging: `tidy_staging`.
    fn recover(&self, recovery: &mut Recovery) -> Result<(), Error> {
        if self.writable().is_ok() {
            self.disk
                .create_dir(staging::STAGING_DIR)
                .map_err(|source| Error::Io { what: "create staging".into(), source })?;
        }
        // Kept, or brought back by a power cut, a file of staging would be taken for that of a new file with its numbers.
        let skip = &mut |name: &str| {
            if let Some((ino, epoch)) = staging::parse(name) {
                self.store.skip_numbers(ino, epoch);
            }
            true
        };
        self.disk
            .each_name(staging::STAGING_DIR, skip)
            .map_err(|source| Error::Io { what: "list staging".into(), source })?;
        self.lost_metadata.store(recovery.has_lost_metadata(), Ordering::Release);
        if !self.options.tidy_later {
            recovery.damage.extend(self.tidy_staging()?);
        }
        Ok(())
    }

    /// Brings staging in line with the log after a crash: removes inodes that were unlinked while open and staging files
    /// that no inode names, counts what waits for coding. Returns sentences about what does not belong there. Safe beside
    /// everything else; called once, at open or in the background after it.
    ///
    /// # Blocking
    /// Disk: all names in staging are held against the index.
    pub fn tidy_staging(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        self.end_orphans()?;
        let mut page: Vec<(Ino, u64)> = Vec::with_capacity(NAMES_PER_STEP);
        let mut failure = None;
        let listed = self.disk.each_name(staging::STAGING_DIR, &mut |name| {
            match staging::parse(name) {
                Some(named) => page.push(named),
                // What another store sends lies beside its place.
                None if name.ends_with(".new") => {}
                None => found.push(format!("staging holds a file that is not ours: {name}")),
            }
            if page.len() >= NAMES_PER_STEP
                && let Err(e) = self.tidy_page(&mut page, &mut found)
            {
                failure = Some(e);
            }
            failure.is_none() && !self.hurried.load(Ordering::Relaxed) && found.len() < SENTENCES_MAX
        });
        listed.map_err(|source| Error::Io { what: "list staging".into(), source })?;
        if let Some(e) = failure {
            return Err(e);
        }
        self.tidy_page(&mut page, &mut found)?;
        self.refill();
        self.relearn_content();
        self.settle_hot();
        Ok(found)
    }

    /// Removes inodes that lost their last name while they were open, when the daemon died. Those of now are in the table.
    fn end_orphans(&self) -> Result<(), Error> {
        let mut after = Ino(0);
        while self.writable().is_ok() && !self.hurried.load(Ordering::Relaxed) {
            let orphans = self.store.orphans(after, ORPHANS_PER_STEP).map_err(Error::Store)?;
            let Some(last) = orphans.last() else { break };
            after = *last;
            let ops: Vec<MetaOp> =
                orphans.into_iter().filter(|ino| self.inodes.get(*ino).is_none()).map(MetaOp::RemoveInode).collect();
            if ops.is_empty() {
                continue;
            }
            match self.log(&ops) {
                Err(e) if e.is_refusal() => {
                    log::warn!("files that were unlinked while open are removed by another mount: {e}");
                    break;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Holds names in staging against the index. An epoch is in the log before its file exists and is used once, so one
    /// that the index does not name never will be; its file goes when the log that says so is on disk.
    fn tidy_page(&self, page: &mut Vec<(Ino, u64)>, found: &mut Vec<String>) -> Result<(), Error> {
        let mut stale = Vec::new();
        for (ino, epoch) in page.drain(..) {
            let rec = self.store.inode(ino).map_err(Error::Store)?;
            if rec.is_none_or(|r| r.staging.is_none_or(|s| s.epoch != epoch)) {
                stale.push((ino, epoch));
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        if self.lost_metadata.load(Ordering::Acquire) {
            // These may be the only bytes left of a file whose inode is among what is lost.
            found.extend(stale.iter().map(|(ino, epoch)| {
                format!("{} belongs to no inode that is left; it is kept", staging::path(*ino, *epoch))
            }));
            return Ok(());
        }
        if self.writable().is_ok() {
            self.sync_log()?;
            for (ino, epoch) in stale {
                log::info!("removing stale staging file {}", staging::path(ino, epoch));
                self.remove_staging(ino, epoch);
            }
        }
        Ok(())
    }

    /// True when nothing can be changed: opened so, or after a failure.
    pub fn is_read_only(&self) -> bool {
        self.writable().is_err()
    }

    // ---- shared steps ----

    fn writable(&self) -> Result<(), Error> {
        if self.options.read_only || self.failed.load(Ordering::Acquire) || self.store.is_read_only() {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    fn names_lock(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn queue_lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn now(&self) -> Time {
        let (secs, nanos) = host::now();
        Time { secs, nanos }
    }

    fn now_ms(&self) -> u64 {
        host::monotonic_ms()
    }

    /// Commits one transaction; it is in the kernel at return, not on disk.
    fn log(&self, ops: &[MetaOp]) -> Result<(), Error> {
        self.store.commit(ops).map_err(|e| self.store_failed(e))?;
        Ok(())
    }

    /// Makes the log durable; then old copies that it no longer speaks of may go. Costs nothing when it is durable;
    /// otherwise returns only when the sync that covers what the caller committed has ended, whoever started it.
    fn sync_log(&self) -> Result<(), Error> {
        let doomed = std::mem::take(&mut *self.doomed_lock());
        if let Err(e) = self.store.sync_meta() {
            self.doomed_lock().extend(doomed);
            return Err(self.store_failed(e));
        }
        for (ino, epoch) in doomed {
            self.remove_staging(ino, epoch);
        }
        Ok(())
    }

    fn doomed_lock(&self) -> MutexGuard<'_, Vec<(Ino, u64)>> {
        self.doomed.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn lingering_lock(&self) -> MutexGuard<'_, BTreeSet<Ino>> {
        self.lingering.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Has a staging file removed once the log that ended it is on disk: a power cut before that brings the file back
    /// whose bytes these are.
    fn doom_staging(&self, ino: Ino, epoch: u64) {
        self.doomed_lock().push((ino, epoch));
    }

    fn store_failed(&self, error: crate::store::Error) -> Error {
        match error {
            crate::store::Error::NoSpace { .. } => return Error::NoSpace,
            crate::store::Error::TooManyFiles { .. } => return Error::TooManyFiles,
            _ => {}
        }
        if self.store.is_read_only() && !self.options.read_only {
            self.fail(&error);
        }
        Error::Store(error)
    }

    /// Rule 7: after a failed sync nobody knows what is on disk, so nothing is changed until the volume is opened again.
    fn fail(&self, why: &dyn std::fmt::Display) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            log::error!("the volume is read-only from now on: {why}; mend the disk and mount again");
        }
    }

    /// The inode, from memory or from the store. While staging may grow a file its size is the larger of the logged one
    /// and the staging length: this is where a size that was never logged comes back after a crash.
    fn inode(&self, ino: Ino) -> Result<Arc<Inode>, Error> {
        if let Some(inode) = self.inodes.get(ino) {
            return Ok(inode);
        }
        let (state, surplus) = self.load(ino)?;
        let inode = self.inodes.insert(Inode::new(state));
        if surplus && self.writable().is_ok() {
            // A truncate was logged and the daemon died before it cut staging. Under the lock: whoever was faster may have
            // let the file grow again, after a cut of its own.
            let mut state = inode.write();
            if state.rec.staging.is_some_and(|s| !s.growing) {
                self.cut_staging(&mut state)?;
            }
        }
        Ok(inode)
    }

    /// What an inode is by the log and its staging file; changes nothing. The flag says that staging is longer than the
    /// file.
    fn load(&self, ino: Ino) -> Result<(InodeState, bool), Error> {
        let rec = self.store.inode(ino).map_err(Error::Store)?.ok_or(Error::NotFound)?;
        let mut state = InodeState::new(rec);
        let mut surplus = false;
        if state.rec.coded && state.rec.staging.is_some_and(|s| s.growing) {
            state.rec.size = self.coded_end(&state.rec)?;
        }
        if let (Some(staged), Some(file)) = (state.rec.staging, staging::open(&*self.disk, &state)?) {
            let len = file.len().map_err(|e| staging::io_error("stat", ino, e))?;
            if staged.growing {
                if len > state.rec.size {
                    state.rec.size = len;
                    if let Ok((secs, nanos)) = file.modified() {
                        let written = Time { secs, nanos };
                        // A record made after the last write knows better, since its time may have been set by hand; and
                        // in a file partly coded the last change of staging may be that coded bytes were freed.
                        if written > state.rec.ctime && !state.rec.coded {
                            (state.rec.mtime, state.rec.ctime) = (written, written);
                        }
                    }
                }
            } else {
                surplus = len > state.rec.size;
            }
            // Whether these bytes were ever synced is not known: assume not.
            state.unsynced = true;
            state.cut |= !staged.growing;
            state.staged_bytes = file.allocated().unwrap_or(0);
            state.queued = self.queue_lock().knows(ino);
        }
        Ok((state, surplus))
    }

    /// The size that a growing file has at least: parts of it are coded before its size is a promise of the log.
    fn coded_end(&self, rec: &InodeRecord) -> Result<u64, Error> {
        let mut end = rec.size;
        loop {
            let beyond = ByteRange { start: end, end: u64::MAX };
            let page = self.store.extents(rec.ino, beyond, data::EXTENTS_PER_PAGE).map_err(Error::Store)?;
            let Some(last) = page.last() else { return Ok(end) };
            end = end.max(last.file_offset + u64::from(last.len));
        }
    }

    /// An inode that has not been removed.
    fn live(&self, ino: Ino) -> Result<Arc<Inode>, Error> {
        let inode = self.inode(ino)?;
        inode.read().alive()?;
        Ok(inode)
    }

    fn mark_dirty(&self, ino: Ino) {
        self.dirty.lock().unwrap_or_else(|e| e.into_inner()).insert(ino);
    }

    fn attr(&self, state: &InodeState) -> Attr {
        let rec = &state.rec;
        let staged = match (&state.file, rec.staging) {
            (Some(file), Some(_)) => file.allocated().unwrap_or(state.staged_bytes),
            (None, Some(_)) => state.staged_bytes,
            (_, None) => 0,
        };
        Attr {
            ino: rec.ino,
            kind: rec.kind,
            mode: rec.mode,
            uid: rec.uid,
            gid: rec.gid,
            nlink: rec.nlink,
            rdev: rec.rdev,
            size: rec.size,
            // Never none for a file with bytes: some archivers take that for a file that is all hole.
            blocks: (rec.stored_bytes + staged).div_ceil(512).max(u64::from(rec.coded && rec.size > 0)),
            atime: rec.atime,
            mtime: rec.mtime,
            ctime: rec.ctime,
            btime: rec.btime,
        }
    }

    /// Logs the inode as it is now, under its lock. Overwritten coded ranges are not part of it (`log_overwrites`).
    fn log_record(&self, state: &mut InodeState) -> Result<(), Error> {
        self.log(&[MetaOp::PutInode(state.record_for_log())])?;
        state.dirty = false;
        Ok(())
    }

    /// Ends the codedness of ranges that were overwritten, in the log: syncs staging first. With `sync_data` staging is
    /// synced in any case and the size becomes a promise.
    ///
    /// # Blocking
    /// Disk; the inode is not locked meanwhile.
    fn log_inode(&self, inode: &Inode, sync_data: bool) -> Result<(), Error> {
        loop {
            let (file, shared, size, ranges, swaps, generation, name_synced);
            {
                let mut state = inode.write();
                if state.removed {
                    return Ok(());
                }
                self.absorb(&mut state)?;
                let needs_sync = (sync_data && state.unsynced) || !state.unlogged.is_empty();
                if !needs_sync {
                    if state.dirty {
                        self.log_record(&mut state)?;
                    }
                    return Ok(());
                }
                file = staging::open(&*self.disk, &state)?;
                shared = !state.bypassing.is_empty() || staging::is_shared(file.as_deref());
                size = state.rec.size;
                ranges = state.unlogged.clone();
                swaps = state.swaps;
                generation = state.rec.generation;
                name_synced = state.name_synced;
            }
            let synced = match &file {
                Some(file) => file
                    .sync_data()
                    .and_then(|()| if name_synced { Ok(()) } else { self.disk.sync_dir(staging::STAGING_DIR) }),
                None => Ok(()),
            };
            if let Err(source) = synced {
                if host::is_out_of_files(&source) {
                    // The directory could not be opened: its sync has not begun, and nothing is lost.
                    return Err(Error::TooManyFiles);
                }
                self.fail(&format!("sync of staging of inode {} failed: {source}", inode.ino));
                return Err(staging::io_error("sync", inode.ino, source));
            }
            let mut state = inode.write();
            if state.removed {
                return Ok(());
            }
            if state.swaps != swaps {
                // Extents moved while staging was synced: what was captured may no longer be true.
                continue;
            }
            state.name_synced = true;
            if state.rec.generation == generation && !shared {
                // Only now: a caller at the same time must not take a sync under way for one that has ended.
                (state.unsynced, state.cut) = (false, false);
            }
            state.durable_size = state.durable_size.max(size.min(state.rec.size));
            let mut ops: Vec<MetaOp> =
                ranges.iter().map(|r| MetaOp::RemoveExtents { ino: inode.ino, start: r.start, end: r.end }).collect();
            ops.push(MetaOp::PutInode(state.record_for_log()));
            self.log(&ops)?;
            for r in ranges.iter() {
                state.unlogged.remove(r);
            }
            state.dirty = false;
            if !state.unlogged.is_empty() {
                // Written while staging was synced: the next flush takes them.
                state.dirty = true;
                self.mark_dirty(inode.ino);
            }
            return Ok(());
        }
    }

    /// Prepares staging for a change up to `end`: gives the inode a staging epoch and lets the log know that the file
    /// may grow, before any byte is written.
    fn prepare_staging(&self, state: &mut InodeState, end: u64) -> Result<Arc<dyn host::DiskFile>, Error> {
        self.unseal(state)?;
        let grows = end > state.rec.size;
        let staging = match state.rec.staging {
            Some(s) if s.growing || !grows => s,
            Some(s) => {
                self.cut_staging(state)?;
                if state.cut {
                    // The cut must be on disk before the length of staging counts again. Rare, so the lock is kept.
                    if let Some(file) = staging::open(&*self.disk, state)?
                        && let Err(e) = file.sync_data()
                    {
                        self.fail(&format!("sync of staging of inode {} failed: {e}", state.rec.ino));
                        return Err(staging::io_error("sync", state.rec.ino, e));
                    }
                    state.cut = false;
                }
                let before = (state.rec.staging, state.durable_size);
                state.durable_size = state.rec.size;
                state.rec.staging = Some(Staging { growing: true, ..s });
                if let Err(e) = self.log_record(state) {
                    (state.rec.staging, state.durable_size) = before;
                    return Err(e);
                }
                Staging { growing: true, ..s }
            }
            None => {
                let s = Staging { epoch: self.store.allocate_serial(), growing: grows, sealed: false };
                let before = state.durable_size;
                state.durable_size = state.rec.size;
                state.rec.staging = Some(s);
                if let Err(e) = self.log_record(state) {
                    state.rec.staging = None;
                    state.durable_size = before;
                    return Err(e);
                }
                state.name_synced = false;
                s
            }
        };
        staging::create(&*self.disk, state, staging)
    }

    /// Cuts staging that is longer than the file, as a cut that failed after its log leaves it: before the file grows, or
    /// the bytes beyond its end would be part of it again.
    fn cut_staging(&self, state: &mut InodeState) -> Result<(), Error> {
        let ino = state.rec.ino;
        if let Some(file) = staging::open(&*self.disk, state)?
            && file.len().map_err(|e| staging::io_error("stat", ino, e))? > state.rec.size
        {
            file.set_len(state.rec.size).map_err(|e| staging::io_error("cut", ino, e))?;
            (state.cut, state.unsynced) = (true, true);
        }
        Ok(())
    }

    /// Notes that staging of the inode has bytes to code.
    fn enqueue(&self, state: &mut InodeState) {
        if !state.queued {
            state.queued = self.queue_lock().add(state.rec.ino, state.changed_ms + self.adjustable().quiet_ms);
        }
    }

    /// Removes a staging file. A failure only leaves a stale file for the next start.
    fn remove_staging(&self, ino: Ino, epoch: u64) {
        match self.disk.remove(&staging::path(ino, epoch)) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => log::warn!("cannot remove staging of inode {ino}: {e}; the next mount will"),
        }
    }

    /// Removes an inode without names and handles from the volume, under its lock.
    fn remove_inode(&self, inode: &Inode, state: &mut InodeState) -> Result<(), Error> {
        if let Err(e) = self.log(&[MetaOp::RemoveInode(inode.ino)]) {
            self.lingering_lock().insert(inode.ino);
            return Err(e);
        }
        state.removed = true;
        state.file = None;
        state.swaps += 1;
        state.rec.generation.0 += 1;
        state.unlogged = RangeSet::default();
        if let Some(s) = state.rec.staging.take() {
            self.doom_staging(inode.ino, s.epoch);
            self.queue_lock().plain_no_more(inode.ino);
        }
        if std::mem::take(&mut state.queued) {
            self.queue_lock().forget(inode.ino);
        }
        self.inodes.remove(inode.ino);
        Ok(())
    }

    /// Makes changes older than the flush interval durable; called by a timer every few seconds.
    ///
    /// # Durability
    /// All names, attributes and overwrites made before the call are on disk at return. Bytes of new files that nobody
    /// synced are left to the kernel, as on other filesystems.
    pub fn flush(&self) -> Result<(), Error> {
        if self.options.read_only {
            return Ok(());
        }
        self.writable()?;
        let lingering = std::mem::take(&mut *self.lingering_lock());
        for inode in lingering.into_iter().filter_map(|ino| self.inodes.get(ino)) {
            // One that fails again is put back.
            let _ = self.end_unlinked(&inode);
        }
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(|e| e.into_inner()));
        let mut outcome = Ok(());
        for ino in dirty {
            if self.writable().is_err() {
                break;
            }
            match self.inode(ino) {
                Ok(inode) => {
                    if let Err(e) = self.log_inode(&inode, false) {
                        self.mark_dirty(ino);
                        outcome = Err(e);
                    }
                }
                Err(Error::NotFound) => {}
                Err(e) => outcome = Err(e),
            }
        }
        outcome.and(self.sync_log())?;
        self.store.tend_reserve();
        if self.writable().is_ok() && self.store.is_checkpoint_due() && !self.hurried.load(Ordering::Relaxed) {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Housekeeping: index checkpoint when it is due. Called by a timer when the volume is idle.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.writable()?;
        // A burst of changes keeps more in memory than may stay, and later inserts only look at a few each.
        self.inodes.shrink();
        self.store.checkpoint().map_err(|e| self.store_failed(e))
    }

    /// Housekeeping: an index that takes too much space is made smaller. Called by a timer.
    pub fn tend_index(&self) {
        if self.writable().is_ok() {
            self.store.tend_index();
        }
    }

    /// Makes everything durable that was written before the call: what `sync` would do if the kernel told a FUSE filesystem.
    ///
    /// # Durability
    /// Names, attributes and bytes of all files, synced by their programs or not, are on disk at return.
    pub fn sync(&self) -> Result<(), Error> {
        self.flush()?;
        if self.options.read_only { Ok(()) } else { self.sync_disk() }
    }

    /// Syncs all of the filesystem below: staged bytes of many files at once.
    fn sync_disk(&self) -> Result<(), Error> {
        self.disk.sync_all().map_err(|source| {
            self.fail(&format!("sync of the store's filesystem failed: {source}"));
            Error::Io { what: "sync the store".into(), source }
        })
    }

    /// Says that the volume is closed soon: housekeeping that takes long is given up, and begun no more.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
        self.library.languages.stop();
        self.store.hurry();
    }

    /// Flushes everything, checkpoints, closes the store. Later changes fail. Staged bytes are made durable too.
    pub fn close(&self) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.hurry();
        let mut flushed = Ok(());
        if self.writable().is_ok() {
            flushed = self.flush();
            if self.writable().is_err() {
                return flushed;
            }
            self.sync_disk()?;
            if let Err(e) = self.seal_at_close() {
                log::warn!("staged files are not sealed: {e}");
            }
        }
        let closed = self.store.close().map_err(Error::Store);
        self.failed.store(true, Ordering::Release);
        flushed.and(closed)
    }

    /// Makes parity for one pack that needs it, when the volume is to have parity. False when there is nothing to do.
    ///
    /// # Blocking
    /// Reads a pack and writes its parity.
    pub fn make_parity(&self) -> Result<bool, Error> {
        match self.options.parity {
            Some(shape) if self.writable().is_ok() => self.store.make_parity(shape).map_err(Error::Store),
            Some(_) | None => Ok(false),
        }
    }

    /// A path that leads to an inode, for messages; `None` when none is found cheaply.
    pub fn path_of(&self, ino: Ino) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            if parts.len() > PATH_DEPTH_MAX {
                return None;
            }
            let parent = self.inode(at).ok()?.read().rec.parent;
            let mut after = 0;
            let name = 'search: loop {
                let page = self.store.dentries(parent, after, 1024).ok()?;
                for (name, d) in &page {
                    if d.ino == at {
                        break 'search name.clone();
                    }
                    after = d.cookie;
                }
                if page.is_empty() {
                    return None;
                }
            };
            parts.push(String::from_utf8_lossy(&name).into_owned());
            at = parent;
        }
        parts.reverse();
        Some(format!("/{}", parts.join("/")))
    }
}

/// Changes of the index that wait for a checkpoint, bytes, however much memory there is: the next mount reads as many from the
/// log, and after a kill it is waited for.
const OVERLAY_BYTES_MAX: u64 = 16 << 20;

/// Directories climbed to find a path for a message.
const PATH_DEPTH_MAX: usize = 256;

/// A new inode of a kind, owned by its creator, before it has a name.
fn new_record(ino: Ino, kind: FileKind, mode: u16, caller: &Caller, parent: &InodeRecord, now: Time) -> InodeRecord {
    // A setgid directory passes its group on, and its own bit to directories, as on other filesystems.
    let inherits = parent.mode & SETGID != 0;
    let mode = if inherits && kind == FileKind::Directory { mode | SETGID } else { mode };
    InodeRecord {
        mode: mode & 0o7777,
        uid: caller.uid,
        gid: if inherits { parent.gid } else { caller.gid },
        parent: parent.ino,
        ..InodeRecord::new(ino, kind, now)
    }
}

const SETGID: u16 = 0o2000;

/// Whole range of a file.
const EVERYTHING: ByteRange = ByteRange { start: 0, end: u64::MAX };
