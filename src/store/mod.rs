//! Packs, index, recovery. Sees opaque bytes only: what a payload means is not known here.
//!
//! Must not know: models, files of users, the kernel. It keeps segments and metadata, and finds them again.
//!
//! # Invariants
//! 1. The packs are the truth. The index holds nothing that `open` with `rebuild` does not restore from packs alone.
//! 2. A pack is only appended to; a record is whole or not there.
//! 3. A transaction is one record: all of its operations or none, in the order of their txids. What is replayed is the log
//!    up to some transaction: where one is missing that was never synced, the log ends before it, whatever a disk kept of
//!    those behind it. Only rot leaves a gap that is passed over, and it is told.
//! 4. An index says with its position how far it has read the log. Replaying from an older position changes nothing but
//!    to bring it up to date, so whatever sled made of a crash is set right or found out.
//! 5. A data pack is deleted when no extent names a segment in it, the log that says so is on disk, and nobody is about to
//!    name one. A pack with a segment that fails its check is kept.
//! 6. After a failed sync, or a write that failed for another reason than a full disk, the store takes no more changes
//!    (`Error::ReadOnly`): nobody knows what is on disk. A full disk and too many open files change nothing: the step is
//!    undone, metadata is tried again with space of the reserve, and only then the caller is told.
//!
//! # Locks
//! log (appending and applying one transaction) → index overlay. data (appending segments). Neither is held over a sync,
//! but where a pack is full and the next one begins.

mod check;
mod content;
mod draft;
mod error;
mod gc;
mod index;
mod keys;
mod languages;
mod ledger;
mod models;
mod pack;
mod parity;
mod recovery;
mod replica;
mod reserve;
mod snapshot;
mod superblock;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::base::{ByteRange, Ino, PACK_BYTES_MAX, PackId, SegmentRef, TxId, Uuid};
use crate::format::{
    BODY_BYTES_MAX, Dentry, Extent, FileKind, InodeRecord, MetaHeader, MetaOp, RecordKind, SegmentHeader, Stream,
    Superblock, Time, Usable, decode_dentry, decode_seal, encode_ops,
};
use crate::host::{self, Disk, OpenMode};

pub use check::{Glance, Named, health, superblocks_lost};
pub use content::{Content, Looks};
pub use draft::write_whole;
pub use error::Error;
pub use gc::{GcAction, GcPack, PackState, plan as plan_gc};
pub use languages::{
    LanguageEntry, LanguageFile, Told, export_language, language_names, languages, open_language_file, verify_language,
};
pub use ledger::{Ledger, MethodUse, PackUse, SegmentUse, stored_share};
pub use parity::{Mended, ParityShape};
pub use recovery::Recovery;
pub use replica::{
    Comes, LIST_BYTES_MAX, Receiver, StoreFile, comes, finish, is_replica, list_from_text, list_to_text, promote,
    replica_files, store_files, volume_of,
};
pub use reserve::Marks;
pub use survey::{RecordSummary, Survey};

use index::Index;
use keys::{Highest, bad, by_name, by_number, by_two};
use ledger::Live;
use pack::{ActivePack, PackReader};
use recovery::{Packs, Position};
use reserve::Reserve;

/// A meta pack is closed when it grows beyond this, bytes.
const META_PACK_BYTES_MAX: u64 = 64 << 20;
/// What mkfs writes to the first pack, at most, bytes: its header and the root. One transaction more is longer than this.
const FIRST_PACK_BYTES_MAX: u64 = 160;
/// Bodies of transactions shorter than this are stored as they are: compressing them gains little.
const COMPRESS_BYTES_MIN: usize = 512;
/// zstd level of transactions: they are on the path of commits.
const COMMIT_LEVEL: i32 = 1;

/// Which engine keeps the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexEngine {
    /// sled in `index/`, opened again at the next start.
    Sled,
    /// Ordered map in memory, rebuilt from packs at each open. For read-only media and for simulations.
    Memory,
}

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreOptions {
    pub engine: IndexEngine,
    /// Take the lock of readers, change nothing on disk.
    pub read_only: bool,
    /// Read without any lock, beside a mount: what is appended meanwhile is not seen. Implies `read_only`.
    pub peek: bool,
    /// Forget the index and rebuild it from the packs.
    pub rebuild: bool,
    /// A data pack is closed when it grows beyond this, bytes.
    pub pack_bytes_max: u64,
    /// What the index keeps in memory until a checkpoint, bytes: at half of it one is due, beyond it commits wait for one.
    pub overlay_bytes: u64,
}

impl Default for StoreOptions {
    /// The engine on disk, to be written, with packs of the usual size.
    fn default() -> StoreOptions {
        StoreOptions {
            engine: IndexEngine::Sled,
            read_only: false,
            peek: false,
            rebuild: false,
            pack_bytes_max: PACK_BYTES_MAX,
            overlay_bytes: 16 << 20,
        }
    }
}

/// Bytes used on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packs of segments.
    pub data_bytes: u64,
    /// Packs of metadata.
    pub meta_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// The metadata log.
struct Log {
    active: Option<ActivePack>,
    position: Position,
    /// Bytes of all meta packs but the active one.
    closed_bytes: u64,
    packs: Vec<PackId>,
}

/// The packs of segments.
struct Data {
    active: Option<ActivePack>,
    /// All others, with their bytes.
    closed: BTreeMap<PackId, u64>,
    /// Deleted since the store was opened: a reader that looked extents up before looks again.
    deleted: BTreeSet<PackId>,
    /// Segments appended so far.
    appended: u64,
}

/// An open store. Calls may come from any thread.
pub struct Store {
    disk: Arc<dyn Disk>,
    uuid: Uuid,
    superblock: Mutex<Superblock>,
    options: StoreOptions,
    reader: PackReader,
    index: Index,
    log: Mutex<Log>,
    data: Mutex<Data>,
    /// Of the segments appended so far, how many are on disk.
    segments_synced: Mutex<u64>,
    /// Held while a language model comes or goes.
    languages: Mutex<()>,
    /// Number of the next pack.
    next_pack: AtomicU64,
    next_ino: AtomicU64,
    next_serial: AtomicU64,
    inodes: AtomicU64,
    /// Txid of the last transaction in the kernel, and of the last one on disk.
    committed: AtomicU64,
    synced: Mutex<u64>,
    /// As `synced`, for records that are being written: they say how far they know the log to be on disk.
    durable: AtomicU64,
    /// Txid of the last transaction when the store was opened. Where there are more, the last record of a clean end is an
    /// empty one: it says that all before it is on disk, so that rot in it is never taken for what was not synced.
    opened_at: u64,
    /// Bytes of the metadata log when it was last compacted, and inodes it spoke of.
    snapshot_bytes: AtomicU64,
    snapshot_inodes: AtomicU64,
    /// Size of the index when it was last found to be no larger than it must be.
    index_looked_bytes: AtomicU64,
    /// The index was made anew when the store was opened.
    index_made_anew: bool,
    read_only: AtomicBool,
    closed: AtomicBool,
    reserve: Reserve,
    /// Packs that were found damaged when they were to get parity.
    no_parity: Mutex<BTreeSet<PackId>>,
    _lock: Box<dyn Send + Sync>,
}

impl Store {
    /// Creates an empty store (root directory, first pack, superblock) in a directory.
    ///
    /// # Errors
    /// `Unusable` when there is a store already, or other packs.
    ///
    /// # Durability
    /// All of it is on disk at return; before, there is no superblock and so no store.
    pub fn create(disk: &Arc<dyn Disk>, pack_bytes_max: u64) -> Result<Uuid, Error> {
        let _lock = lock(&**disk, false)?;
        replica::check_not_half_placed(&**disk)?;
        if Store::exists(disk)? {
            return Err(Error::Unusable("there is a tersefs store here already".into()));
        }
        if is_replica(&**disk)? {
            return Err(Error::Unusable(
                "a store that follows another is to come here: `tersefs receive` brings it".into(),
            ));
        }
        let uuid = Uuid(host::random_id().map_err(Error::io("random bytes for the volume's UUID"))?);
        // Only a mkfs that was cut off leaves packs without a superblock, and only the first one with the root.
        let left = pack::list(&**disk)?;
        for id in &left {
            let len = disk.open(&pack::path(*id), OpenMode::Read).and_then(|f| f.len());
            let len = len.map_err(Error::io(format!("stat pack {id}")))?;
            if left.len() > 1 || *id != PackId(1) || len > FIRST_PACK_BYTES_MAX {
                return Err(Error::Unusable(format!(
                    "there is no superblock but a pack {id}: `tersefs fsck --repair` gives a store its superblock back"
                )));
            }
        }
        for id in left {
            pack::remove(&**disk, id).map_err(Error::io("remove what an unfinished mkfs left"))?;
        }
        let mut first = ActivePack::create(&**disk, uuid, PackId(1), Stream::Meta, 0)?;
        let (secs, nanos) = host::now();
        let now = Time { secs, nanos };
        let root = InodeRecord {
            mode: 0o755,
            uid: host::effective_uid(),
            gid: host::effective_gid(),
            parent: Ino::ROOT,
            ..InodeRecord::new(Ino::ROOT, FileKind::Directory, now)
        };
        first.append(RecordKind::Meta, 1, &[], &encode_ops(&[MetaOp::PutInode(root)]), None)?;
        first.file.sync_data().map_err(Error::io("sync the first pack"))?;
        disk.create_dir("staging").map_err(Error::io("create staging"))?;
        superblock::write(&**disk, &Superblock::new(uuid, secs, pack_bytes_max))?;
        Reserve::new(disk.clone()).fill();
        Ok(uuid)
    }

    /// True when the directory holds a store (of any version), if only by one of its two superblocks.
    pub fn exists(disk: &Arc<dyn Disk>) -> Result<bool, Error> {
        superblock::exists(&**disk)
    }

    /// Makes a superblock for a store that has lost it and its copy, from what the packs say. Does nothing where one of
    /// the two is good: `open` mends the other. True when one was made.
    ///
    /// # Errors
    /// `Unusable` when no pack names its volume.
    ///
    /// # Durability
    /// Both are on disk at return.
    pub fn rescue_superblock(disk: &Arc<dyn Disk>, pack_bytes_max: u64) -> Result<bool, Error> {
        let _lock = lock(&**disk, false)?;
        replica::check_not_half_placed(&**disk)?;
        match superblock::find(&**disk) {
            Ok(_) => Ok(false),
            Err(Error::Unusable(_)) => {
                superblock::write(&**disk, &superblock::from_packs(&**disk, pack_bytes_max)?)?;
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    /// Opens a store: takes the lock, checks the superblock, opens or rebuilds the index, replays what it has not seen,
    /// cuts off what a crash left unfinished behind the last good record.
    pub fn open(disk: Arc<dyn Disk>, mut options: StoreOptions) -> Result<(Store, Recovery), Error> {
        replica::check_not_half_placed(&*disk)?;
        let found = superblock::find(&*disk)?;
        let block = found.block;
        if !options.read_only && is_replica(&*disk)? {
            log::warn!(
                "the store follows another: it is opened for reading alone (`tersefs receive --promote` ends that)"
            );
            options.read_only = true;
        }
        match block.usable() {
            Usable::ReadWrite => {}
            Usable::ReadOnly(why) => {
                log::warn!("{why}");
                options.read_only = true;
            }
            Usable::No(why) => return Err(Error::Unusable(why)),
        }
        options.read_only |= options.peek;
        let lock = if options.peek { Box::new(()) } else { lock(&*disk, options.read_only)? };
        // Before, somebody may have put other files in their places.
        replica::check_not_half_placed(&*disk)?;
        if !options.peek && superblock::find(&*disk)?.block != block {
            return Err(Error::Locked);
        }
        let mut recovery = Recovery::default();
        for what in found.wrong {
            log::warn!("{what}");
            recovery.superblock.push(what);
        }
        if found.write
            && !options.read_only
            && let Err(e) = superblock::write(&*disk, &block)
        {
            // One of the two is good, and a full disk is no reason not to serve it.
            log::warn!("{e}; the superblock has no second good copy until the next mount");
        }
        let reader = PackReader::new(disk.clone(), block.uuid);
        let packs = recovery::sort_packs(&*disk, &reader, !options.read_only, &mut recovery)?;
        let reserve = Reserve::new(disk.clone());
        if !options.read_only && disk.space().is_ok_and(|s| s.available_bytes < Marks::of(s.total_bytes).coding) {
            // The index is opened, and perhaps made anew, in files of its own.
            reserve.release_all();
        }
        let (index, position) = open_index(&*disk, &reader, &packs, options, &mut recovery)?;
        if index.get(&by_number(keys::INODE, Ino::ROOT.0))?.is_none() {
            // mkfs syncs it before there is a superblock: the log has lost its beginning.
            recovery.note("the root directory is missing: metadata is lost; run `tersefs fsck --repair`".into());
        }
        if let Err(e) = recovery.remember(&*disk, options.read_only) {
            // As on a full disk. This mount keeps what nobody names all the same.
            log::warn!("{e}");
        }
        // A hint: without it the log is compacted once more than it must be.
        let snapshot_bytes = recovery::snapshot_bytes(&reader, &packs).unwrap_or(0);
        let bytes = |id: &PackId| -> Option<u64> { reader.file(*id).ok()?.len().ok() };
        let meta_bytes = packs.meta.iter().filter_map(bytes).sum();
        let closed = packs.data.iter().map(|id| (*id, bytes(id).unwrap_or(0))).collect();
        // A pack that is lost and named must not be taken for another that has its number.
        let named = index.live().ledger().packs.keys().last().map_or(0, |id| id.0);
        let store = Store {
            uuid: block.uuid,
            superblock: Mutex::new(block),
            options,
            index_made_anew: recovery.rebuilt || !index.is_kept(),
            index,
            log: Mutex::new(Log { active: None, position, closed_bytes: meta_bytes, packs: packs.meta.clone() }),
            data: Mutex::new(Data { active: None, closed, deleted: BTreeSet::new(), appended: 0 }),
            segments_synced: Mutex::new(0),
            languages: Mutex::new(()),
            next_pack: AtomicU64::new(packs.highest.max(named) + 1),
            next_ino: AtomicU64::new(position.next_ino.max(2)),
            next_serial: AtomicU64::new(position.next_serial.max(3)),
            inodes: AtomicU64::new(position.inodes),
            committed: AtomicU64::new(position.txid),
            // What was read back may be in the kernel only, after the death of a process: the first sync makes sure.
            synced: Mutex::new(0),
            durable: AtomicU64::new(0),
            opened_at: position.txid,
            snapshot_bytes: AtomicU64::new(snapshot_bytes),
            snapshot_inodes: AtomicU64::new(position.inodes),
            index_looked_bytes: AtomicU64::new(0),
            read_only: AtomicBool::new(options.read_only),
            closed: AtomicBool::new(false),
            reserve,
            no_parity: Mutex::new(BTreeSet::new()),
            _lock: lock,
            reader,
            disk,
        };
        if !options.read_only {
            store.resume(&packs)?;
            store.reserve.fill();
            if recovery.rebuilt {
                store.checkpoint()?;
            }
        }
        Ok((store, recovery))
    }

    /// Goes on with the last pack of each stream, when it has room.
    fn resume(&self, packs: &Packs) -> Result<(), Error> {
        for id in &packs.unfinished {
            self.reader.close(*id);
            pack::remove(&*self.disk, *id).map_err(Error::io(format!("remove the unfinished pack {id}")))?;
        }
        let mut log = self.log_lock();
        if let Some(id) = packs.meta.last().filter(|id| id.0 == log.position.pack) {
            let active = ActivePack::resume(&*self.disk, self.uuid, *id, log.position.next_offset)?;
            log.closed_bytes = log.closed_bytes.saturating_sub(self.file_len(*id)?);
            log.active = Some(active);
        }
        drop(log);
        if let Some(id) = packs.data.last() {
            if self.file_len(*id)? < self.options.pack_bytes_max {
                // One that was full for another size, or was cut off: its parity ends when it is gone on with.
                parity::mend_at_open(&self.reader, *id);
            }
            let tail = recovery::tail_of(&self.reader, *id)?;
            // What is named behind the tail was there once, and rot took it. Something else in its place would be taken for it.
            let rotten = !self.segments_of(*id, tail, 1)?.is_empty();
            if tail > 0 && tail < self.options.pack_bytes_max && !rotten {
                let active = ActivePack::resume(&*self.disk, self.uuid, *id, tail)?;
                let mut data = self.data_lock();
                data.closed.remove(id);
                data.active = Some(active);
            }
        }
        Ok(())
    }

    fn file_len(&self, id: PackId) -> Result<u64, Error> {
        self.reader.file(id)?.len().map_err(Error::io(format!("stat pack {id}")))
    }

    fn log_lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn data_lock(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn next_pack(&self) -> PackId {
        PackId(self.next_pack.fetch_add(1, Ordering::Relaxed))
    }

    /// Identity of the volume.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The superblock as it is on disk.
    pub fn superblock(&self) -> Superblock {
        *self.superblock.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Claims features that an older build must not open (`format::INCOMPAT_*`), before anything on disk uses them.
    /// Costs nothing when they are claimed already.
    ///
    /// # Durability
    /// Superblock and copy are on disk at return. After a failure the feature must not be used; the call may be repeated.
    pub fn set_incompat(&self, features: u64) -> Result<(), Error> {
        self.claim(|block| block.incompat |= features)
    }

    /// As `set_incompat`, for features that an older build may read but not write (`format::RO_COMPAT_*`).
    pub fn set_ro_compat(&self, features: u64) -> Result<(), Error> {
        self.claim(|block| block.ro_compat |= features)
    }

    /// As `set_incompat`, for features that an older build may ignore (`format::COMPAT_*`).
    pub fn set_compat(&self, features: u64) -> Result<(), Error> {
        self.claim(|block| block.compat |= features)
    }

    fn claim(&self, change: impl FnOnce(&mut Superblock)) -> Result<(), Error> {
        let mut block = self.superblock.lock().unwrap_or_else(|e| e.into_inner());
        let mut new = *block;
        change(&mut new);
        if new != *block {
            self.writable()?;
            // Whatever step fails, the disk holds the old one or the new one, and nothing uses the feature. A failed sync is
            // terminal all the same, as any is: that of the directory was asked for other names too.
            self.terminal(superblock::write(&*self.disk, &new))?;
            *block = new;
        }
        Ok(())
    }

    /// True when no change is accepted (opened so, or after a failure).
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    fn writable(&self) -> Result<(), Error> {
        if self.is_read_only() { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// A step that changes the disk: its failure ends all changes, but for a refusal, which changed nothing.
    fn terminal<T>(&self, step: Result<T, Error>) -> Result<T, Error> {
        if let Err(e) = &step
            && !e.is_refusal()
            && !self.read_only.swap(true, Ordering::AcqRel)
        {
            log::error!("the store is read-only from now on: {e}");
            self.index.abandon();
        }
        step
    }

    /// Runs a write of metadata again with space of the reserve, a step at a time, as long as it finds the disk full.
    /// With `frees` down to the last byte; else a part is left for deletes, which are what makes room again.
    fn with_reserve<T>(&self, frees: bool, mut step: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            match step() {
                Err(Error::NoSpace { .. }) if self.reserve.release(frees) => {}
                other => return other,
            }
        }
    }

    /// True when `bytes` can be written without going below the space that coding leaves free.
    pub fn has_room(&self, bytes: u64) -> bool {
        match self.disk.space() {
            Ok(space) => space.available_bytes >= Marks::of(space.total_bytes).coding.saturating_add(bytes),
            // It does not tell: the writes will.
            Err(_) => true,
        }
    }

    /// Bytes that the reserve lacks. New data must leave room for them.
    pub fn reserve_missing(&self, marks: &Marks) -> u64 {
        marks.reserve.saturating_sub(self.reserve.bytes())
    }

    /// Fills the reserve again when there is room. Called by a timer.
    pub fn tend_reserve(&self) {
        if !self.is_read_only() {
            self.reserve.fill();
        }
    }

    /// Closes files that are kept open only to be faster; for a caller that found no descriptor left. True when there
    /// were any.
    pub fn close_idle_files(&self) -> bool {
        self.reader.close_all()
    }

    /// Appends a coded segment to the active data pack.
    ///
    /// # Errors
    /// `NoSpace` when the disk is full: segments do not use the reserve.
    ///
    /// # Durability
    /// None until `sync_segments`.
    pub fn append_segment(&self, header: &SegmentHeader, payload: &[u8]) -> Result<SegmentRef, Error> {
        self.writable()?;
        let fields = header.encode();
        if fields.len() > crate::format::HEADER_BYTES_MAX - 64 || payload.len() > BODY_BYTES_MAX {
            return Err(Error::TooLarge { what: "segment", bytes: (fields.len() + payload.len()) as u64 });
        }
        if header.coding.reference.is_some() {
            self.set_incompat(crate::format::INCOMPAT_REFERENCES)?;
        }
        let mut data = self.data_lock();
        let full = data.active.as_ref().is_none_or(|a| a.tail >= self.options.pack_bytes_max);
        if full {
            let begun = self.terminal(self.next_data_pack(&mut data));
            // A pack that is longer than usual is better than none.
            if !(begun.as_ref().is_err_and(Error::is_refusal) && data.active.is_some()) {
                begun?;
            }
        }
        let txid = self.committed.load(Ordering::Relaxed);
        let Some(active) = &mut data.active else { return Err(Error::ReadOnly) };
        let pack = active.id;
        let appended = active.append(RecordKind::Segment, txid, &fields, payload, None);
        let (offset, stored_len) = self.terminal(appended)?;
        data.appended += 1;
        Ok(SegmentRef { pack, offset, stored_len })
    }

    fn next_data_pack(&self, data: &mut Data) -> Result<(), Error> {
        if let Some(full) = &data.active {
            full.file.sync_data().map_err(Error::io(format!("sync pack {}", full.id)))?;
        }
        let txid = self.committed.load(Ordering::Relaxed);
        let next = ActivePack::create(&*self.disk, self.uuid, self.next_pack(), Stream::Data, txid)?;
        if let Some(full) = data.active.replace(next) {
            data.closed.insert(full.id, full.tail);
        }
        Ok(())
    }

    /// All data packs, ascending.
    pub fn data_packs(&self) -> Vec<PackState> {
        let data = self.data_lock();
        let closed = data.closed.iter().map(|(pack, bytes)| PackState { pack: *pack, bytes: *bytes, active: false });
        let active = data.active.iter().map(|a| PackState { pack: a.id, bytes: a.tail, active: true });
        closed.chain(active).collect()
    }

    /// Sees to it that the next segments go to a younger pack than `pack`, which is closed when it is the active one.
    ///
    /// # Durability
    /// What was appended to it is on disk at return.
    pub fn pass_on_from(&self, pack: PackId) -> Result<(), Error> {
        self.writable()?;
        let mut data = self.data_lock();
        if data.active.as_ref().is_none_or(|a| a.id <= pack) {
            self.terminal(self.next_data_pack(&mut data))?;
        }
        Ok(())
    }

    /// Copies the record of a segment, checked, to the active data pack as it is.
    ///
    /// # Durability
    /// None until `sync_segments`.
    pub fn copy_segment(&self, at: SegmentRef) -> Result<SegmentRef, Error> {
        let (header, payload) = self.fetch_segment(at)?;
        self.append_segment(&header, &payload)
    }

    /// Deletes a closed data pack that nothing in the index uses. The caller has made the log durable since nothing uses
    /// it, and knows of no segment in it that is about to be used. Returns the bytes given back; 0 when it is in use.
    ///
    /// # Durability
    /// Gone from disk at return. Its number is not used again: a younger pack is there.
    pub fn delete_data_pack(&self, pack: PackId) -> Result<u64, Error> {
        self.writable()?;
        let mut data = self.data_lock();
        let younger = data.active.as_ref().is_some_and(|a| a.id > pack);
        if !younger || !data.closed.contains_key(&pack) || self.index.live().ledger().packs.contains_key(&pack) {
            return Ok(0);
        }
        data.deleted.insert(pack);
        let bytes = data.closed.remove(&pack).unwrap_or(0);
        drop(data);
        let removed = pack::remove(&*self.disk, pack);
        self.reader.close(pack);
        self.terminal(removed.map_err(Error::io(format!("delete pack {pack}"))))?;
        self.forget_pack(pack)?;
        Ok(bytes)
    }

    /// True when a pack was deleted since the store was opened.
    pub fn has_deleted(&self, pack: PackId) -> bool {
        self.data_lock().deleted.contains(&pack)
    }

    /// Makes all segments appended so far durable. A failure makes the store read-only.
    pub fn sync_segments(&self) -> Result<(), Error> {
        let wanted = self.data_lock().appended;
        let mut synced = self.segments_synced.lock().unwrap_or_else(|e| e.into_inner());
        if *synced >= wanted {
            return Ok(());
        }
        self.writable()?;
        let (upto, active) = {
            let data = self.data_lock();
            (data.appended, data.active.as_ref().map(|a| (a.id, a.file.clone())))
        };
        if let Some((id, file)) = active {
            self.terminal(file.sync_data().map_err(Error::io(format!("sync pack {id}"))))?;
        }
        *synced = upto;
        Ok(())
    }

    /// Reads one segment record and checks it: header check, body check, and that the record is the one named.
    pub fn fetch_segment(&self, at: SegmentRef) -> Result<(SegmentHeader, Vec<u8>), Error> {
        let record = match self.reader.fetch(at.pack, at.offset) {
            Err(e) => self.fetch_mended(at.pack, at.offset, u64::from(at.stored_len)).ok_or(e)?,
            Ok(record) => record,
        };
        let corrupt = |what| Error::Corrupt { what, pack: at.pack, offset: at.offset };
        if record.header.kind != RecordKind::Segment || record.stored_len != u64::from(at.stored_len) {
            return Err(corrupt("segment reference"));
        }
        let header = SegmentHeader::decode(&record.header.fields).map_err(|e| corrupt(e.0))?;
        Ok((header, record.body))
    }

    /// When a pack was last appended to, seconds since 1970; `None` where it cannot be told.
    pub fn pack_modified(&self, pack: PackId) -> Option<i64> {
        self.reader
            .file(pack)
            .and_then(|file| file.modified().map_err(Error::io("look at a pack")))
            .ok()
            .map(|(secs, _)| secs)
    }

    /// As `fetch_segment`, and of a segment whose payload fails its check the payload as it is, with the sentence about it: for who
    /// can check parts of it by themselves.
    ///
    /// # Errors
    /// As `fetch_segment`, where not even that can be read.
    pub fn fetch_segment_anyhow(&self, at: SegmentRef) -> Result<(SegmentHeader, Vec<u8>, Option<String>), Error> {
        let failed = match self.fetch_segment(at) {
            Ok((header, payload)) => return Ok((header, payload, None)),
            Err(e @ Error::Corrupt { .. }) => e,
            Err(e) => return Err(e),
        };
        match (self.segment_header(at), self.reader.fetch_unchecked(at.pack, at.offset)) {
            (Ok(header), Ok(record)) if record.stored_len == u64::from(at.stored_len) => {
                Ok((header, record.body, Some(failed.to_string())))
            }
            (_, _) => Err(failed),
        }
    }

    /// Reads and checks the header of a segment, without its payload.
    pub fn segment_header(&self, at: SegmentRef) -> Result<SegmentHeader, Error> {
        let record = self.reader.fetch_header(&*self.reader.file(at.pack)?, at.pack, at.offset)?;
        let corrupt = |what| Error::Corrupt { what, pack: at.pack, offset: at.offset };
        if record.header.kind != RecordKind::Segment {
            return Err(corrupt("segment reference"));
        }
        SegmentHeader::decode(&record.header.fields).map_err(|e| corrupt(e.0))
    }

    /// Appends one transaction to the metadata log and applies it to the index: all steps or none, visible at return.
    ///
    /// # Errors
    /// `TooLarge` beyond the bound of a record body, before anything is written. `NoSpace` when the disk is full and the
    /// reserve used up; nothing is changed then.
    ///
    /// # Durability
    /// Survives the death of this process at return (it is in the kernel); survives power loss after `sync_meta`.
    pub fn commit(&self, ops: &[MetaOp]) -> Result<TxId, Error> {
        self.writable()?;
        let body = encode_ops(ops);
        if body.len() > BODY_BYTES_MAX {
            return Err(Error::TooLarge { what: "transaction", bytes: body.len() as u64 });
        }
        let compressed = if body.len() >= COMPRESS_BYTES_MIN {
            zstd::bulk::compress(&body, COMMIT_LEVEL).ok().filter(|c| c.len() < body.len())
        } else {
            None
        };
        let frees = ops.iter().any(|op| {
            matches!(op, MetaOp::RemoveDentry { .. } | MetaOp::RemoveInode(_) | MetaOp::RemoveExtents { .. })
        });
        let mut log = self.log_lock();
        self.writable()?;
        let full = log.active.as_ref().is_none_or(|a| a.tail >= META_PACK_BYTES_MAX);
        if full {
            let begun = self.with_reserve(frees, || self.terminal(self.next_meta_pack(&mut log)));
            if !(begun.as_ref().is_err_and(Error::is_refusal) && log.active.is_some()) {
                begun?;
            }
        }
        let txid = log.position.txid + 1;
        let Some(active) = &mut log.active else { return Err(Error::ReadOnly) };
        let fields = MetaHeader { unsynced: txid - self.durable.load(Ordering::Acquire).min(txid - 1) }.encode();
        let appended = self.with_reserve(frees, || match &compressed {
            Some(c) => active.append(RecordKind::Meta, txid, &fields, c, Some(body.len() as u32)),
            None => active.append(RecordKind::Meta, txid, &fields, &body, None),
        });
        let (pack, tail) = (active.id.0, active.tail);
        let (offset, _) = self.terminal(appended)?;
        let mut highest = Highest::default();
        // The record is in the log: if the index fails now, the next open rebuilds it with this transaction.
        self.terminal(keys::apply(&self.index, ops, &mut highest))?;
        log.position = Position { pack, last_offset: offset, txid, next_offset: tail, ..log.position };
        self.next_ino.fetch_max(highest.ino + 1, Ordering::Relaxed);
        self.next_serial.fetch_max(highest.serial + 1, Ordering::Relaxed);
        self.inodes.fetch_add(highest.inodes as u64, Ordering::Relaxed);
        self.committed.store(txid, Ordering::Release);
        drop(log);
        if self.index.is_overfull()
            && let Err(e) = self.checkpoint()
        {
            // The transaction stands all the same. What cannot go on made the store read-only.
            log::warn!("the index was not brought up to date: {e}");
        }
        Ok(TxId(txid))
    }

    /// Closes the active meta pack and begins another. What was in it is on disk then.
    fn next_meta_pack(&self, log: &mut Log) -> Result<(), Error> {
        let last = PackId(log.position.pack);
        let fail = || Error::io(format!("sync pack {last}"));
        match &log.active {
            Some(full) => full.file.sync_data().map_err(fail())?,
            // What was read back from it may be in the kernel only; the new pack says that it is on disk.
            None if last.0 > 0 => self.reader.file(last)?.sync_data().map_err(fail())?,
            None => {}
        }
        self.durable.fetch_max(log.position.txid, Ordering::AcqRel);
        let id = self.next_pack();
        let active = ActivePack::create(&*self.disk, self.uuid, id, Stream::Meta, log.position.txid)?;
        log.closed_bytes += log.active.as_ref().map_or(0, |full| full.tail);
        log.position = Position { pack: id.0, last_offset: 0, next_offset: active.tail, ..log.position };
        log.packs.push(id);
        log.active = Some(active);
        Ok(())
    }

    /// Makes all transactions committed before the call durable; callers at the same time share one sync.
    pub fn sync_meta(&self) -> Result<(), Error> {
        let wanted = self.committed.load(Ordering::Acquire);
        let mut synced = self.synced.lock().unwrap_or_else(|e| e.into_inner());
        if *synced >= wanted {
            return Ok(());
        }
        self.writable()?;
        let (upto, file) = {
            let log = self.log_lock();
            let file = match &log.active {
                Some(active) => Some(active.file.clone()),
                None if log.position.pack > 0 => Some(self.reader.file(PackId(log.position.pack))?),
                None => None,
            };
            (log.position.txid, file)
        };
        if let Some(file) = file {
            self.terminal(file.sync_data().map_err(Error::io("sync the metadata log")))?;
        }
        *synced = upto;
        self.durable.fetch_max(upto, Ordering::AcqRel);
        Ok(())
    }

    /// A number never used for an inode before.
    pub fn allocate_ino(&self) -> Ino {
        Ino(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }

    /// A number larger than any given before, at least 3: staging epochs, directory cookies.
    pub fn allocate_serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Attributes of an inode.
    pub fn inode(&self, ino: Ino) -> Result<Option<InodeRecord>, Error> {
        self.index.get(&by_number(keys::INODE, ino.0))?.map(|v| keys::inode_value(&v)).transpose()
    }

    /// What a name points to.
    pub fn dentry(&self, parent: Ino, name: &[u8]) -> Result<Option<Dentry>, Error> {
        let value = self.index.get(&by_name(keys::DENTRY, parent.0, name))?;
        value.map(|v| decode_dentry(&v).map_err(bad)).transpose()
    }

    /// Up to `limit` entries of a directory whose cookie is larger than `after`, in the order of cookies.
    pub fn dentries(&self, parent: Ino, after: u64, limit: usize) -> Result<Vec<(Vec<u8>, Dentry)>, Error> {
        let mut from = by_two(keys::COOKIE, parent.0, after);
        from.push(0);
        let page = self.index.range(&from, &keys::after_number(keys::COOKIE, parent.0), limit)?;
        let mut out = Vec::with_capacity(page.len());
        for (key, value) in page {
            let (name, dentry) = keys::decode_entry(&value)?;
            // Where an older build wrote the name alone, one removed between the two look-ups is passed over.
            let dentry = match dentry {
                Some(dentry) => Some(dentry),
                None => self.dentry(parent, name)?,
            };
            if let Some(dentry) = dentry
                && dentry.cookie == keys::last_number(&key)?
            {
                out.push((name.to_vec(), dentry));
            }
        }
        Ok(out)
    }

    /// Up to `limit` extents that meet `range`, ascending.
    pub fn extents(&self, ino: Ino, range: ByteRange, limit: usize) -> Result<Vec<Extent>, Error> {
        keys::extents(&self.index, ino, range, limit)
    }

    /// What of the packs is live. Costs a copy of the sums, whatever the number of files.
    pub fn ledger(&self) -> Ledger {
        self.index.live().ledger().clone()
    }

    /// Up to `limit` segments of a pack that extents name, at or behind an offset, ascending.
    pub fn segments_of(&self, pack: PackId, from: u64, limit: usize) -> Result<Vec<(SegmentRef, SegmentUse)>, Error> {
        ledger::segments_of(&self.index, pack, from, limit)
    }

    /// Up to `limit` extents that name a segment, with their inodes.
    pub fn owners_of(&self, segment: SegmentRef, limit: usize) -> Result<Vec<(Ino, Extent)>, Error> {
        ledger::owners_of(&self.index, segment, limit)
    }

    /// Holds all that the index keeps of the use of packs against the extents; sentences about differences.
    ///
    /// # Blocking
    /// A few seconds per million extents, all in memory or from the index. Commits wait.
    pub fn audit(&self) -> Result<Vec<String>, Error> {
        let _still = self.log_lock();
        let audit = ledger::audit(&self.index, false)?;
        let mut wrong = audit.wrong;
        let inodes = self.inodes.load(Ordering::Relaxed);
        if inodes != audit.inodes {
            wrong.push(format!("{inodes} inodes were counted instead of {}", audit.inodes));
        }
        Ok(wrong)
    }

    /// One extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.index.get(&by_name(keys::XATTR, ino.0, name))
    }

    /// Names of all extended attributes of an inode.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>, Error> {
        let from = by_number(keys::XATTR, ino.0);
        let page = self.index.range(&from, &keys::after_number(keys::XATTR, ino.0), XATTRS_MAX)?;
        Ok(page.into_iter().map(|(key, _)| key.get(9..).unwrap_or_default().to_vec()).collect())
    }

    /// Up to `limit` inodes with a number larger than `after`, ascending.
    pub fn inodes(&self, after: Ino, limit: usize) -> Result<Vec<InodeRecord>, Error> {
        let mut from = by_number(keys::INODE, after.0);
        from.push(0);
        let page = self.index.range(&from, &[keys::INODE + 1], limit)?;
        page.iter().map(|(_, v)| keys::inode_value(v)).collect()
    }

    /// Up to `limit` inodes without a name (unlinked while open) with a number larger than `after`, ascending.
    pub fn orphans(&self, after: Ino, limit: usize) -> Result<Vec<Ino>, Error> {
        let mut from = by_number(keys::ORPHAN, after.0);
        from.push(0);
        let page = self.index.range(&from, &[keys::ORPHAN + 1], limit)?;
        page.iter().map(|(key, _)| keys::last_number(key).map(Ino)).collect()
    }

    /// Up to `limit` inodes with a number larger than `after` whose staged bytes have no seal, ascending. One that has
    /// been sealed meanwhile may be among them.
    pub fn unsealed(&self, after: Ino, limit: usize) -> Result<Vec<Ino>, Error> {
        let mut from = by_number(keys::UNSEALED, after.0);
        from.push(0);
        let page = self.index.range(&from, &[keys::UNSEALED + 1], limit)?;
        page.iter().map(|(key, _)| keys::last_number(key).map(Ino)).collect()
    }

    /// Checksums of one group of grains of a sealed staging file; `None` where it held no data.
    pub fn seal(&self, ino: Ino, group: u64) -> Result<Option<Vec<u32>>, Error> {
        let value = self.index.get(&by_two(keys::SEAL, ino.0, group))?;
        value.map(|v| decode_seal(&v).map_err(bad)).transpose()
    }

    /// The first group at or after `from` that has checksums.
    pub fn next_seal(&self, ino: Ino, from: u64) -> Result<Option<u64>, Error> {
        let page = self.index.range(&by_two(keys::SEAL, ino.0, from), &keys::after_number(keys::SEAL, ino.0), 1)?;
        page.first().map(|(key, _)| keys::last_number(key)).transpose()
    }

    /// Bytes that the index keeps in memory until a checkpoint.
    pub fn overlay_bytes(&self) -> u64 {
        self.index.overlay_bytes()
    }

    /// Gives the memory of the engine of the index back by opening it anew.
    pub fn reopen_index(&self) {
        self.index.reopen();
    }

    /// True when so much waits in memory that `checkpoint` should be called soon.
    pub fn is_checkpoint_due(&self) -> bool {
        self.index.is_full()
    }

    /// Brings the index on disk up to date, so that the next open replays little. Compacts the metadata log when it is
    /// worth it.
    ///
    /// # Blocking
    /// Disk, for as long as it takes to write what changed since the last one; commits go on meanwhile.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.writable()?;
        self.sync_meta()?;
        if snapshot::is_due(self, snapshot::GROWTH_ONLINE) && snapshot::has_room(self) {
            return self.terminal(snapshot::compact(self));
        }
        self.checkpoint_index()
    }

    /// The part of `checkpoint` that leaves the log as it is.
    fn checkpoint_index(&self) -> Result<(), Error> {
        if self.index.waiting() == 0 || self.index.is_stuck() {
            return Ok(());
        }
        if !self.has_room(self.index.bytes_to_write()) {
            log::debug!("the checkpoint waits for space");
            return Ok(());
        }
        let (frozen, position) = {
            let log = self.log_lock();
            (self.index.freeze(), self.position(&log))
        };
        // What the position promises must be on disk: the records that came since the sync above are not.
        self.sync_meta()?;
        if let Err(e) = frozen.write_out(&position) {
            log::warn!("the index was not brought up to date: {e}; the next mount replays more or rebuilds it");
        }
        Ok(())
    }

    fn position(&self, log: &Log) -> Position {
        Position {
            next_ino: self.next_ino.load(Ordering::Relaxed),
            next_serial: self.next_serial.load(Ordering::Relaxed),
            inodes: self.inodes.load(Ordering::Relaxed),
            ..log.position
        }
    }

    /// Bytes used on disk.
    pub fn usage(&self) -> Usage {
        let meta_bytes = {
            let log = self.log_lock();
            log.closed_bytes + log.active.as_ref().map_or(0, |a| a.tail)
        };
        let data = self.data_lock();
        Usage {
            data_bytes: data.closed.values().sum::<u64>() + data.active.as_ref().map_or(0, |a| a.tail),
            meta_bytes,
            inodes: self.inodes.load(Ordering::Relaxed),
        }
    }

    /// Makes everything durable, and tidies up what takes no time: log and index of a small volume, an index that lacks little.
    /// The rest is done while a volume is mounted; until then the next open reads more of the log. The lock is given back
    /// when the store is dropped.
    pub fn close(&self) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::AcqRel) || self.is_read_only() {
            return Ok(());
        }
        self.sync_segments()?;
        self.sync_meta()?;
        if self.committed.load(Ordering::Acquire) > self.opened_at
            && let Err(e) = self.commit(&[])
        {
            log::info!("the log ends without a word on what was synced: {e}");
        }
        self.sync_meta()?;
        self.index.set_closing(false);
        let is_small = self.index_keys() <= CLOSE_KEYS_MAX;
        if is_small && snapshot::is_due(self, snapshot::GROWTH_AT_CLOSE) && snapshot::has_room(self) {
            match self.terminal(snapshot::compact(self)) {
                // It is tidying only: the log as it is serves as well.
                Err(e) if e.is_refusal() => log::info!("the metadata log is compacted another time: {e}"),
                other => other?,
            }
        }
        if self.index.waiting() > CLOSE_KEYS_MAX as usize {
            log::info!("the index is brought up to date by the next mount: {} keys wait", self.index.waiting());
            return Ok(());
        }
        match self.checkpoint_index() {
            Err(e) if e.is_refusal() => {
                log::info!("the index is brought up to date by the next mount: {e}");
                return self.sync_meta();
            }
            other => other?,
        }
        if is_small {
            self.tend_index();
        }
        Ok(())
    }

    /// Says that the store is closed soon: housekeeping under way that takes long is given up.
    pub fn hurry(&self) {
        self.index.set_closing(true);
    }

    /// Keys in the index, about.
    fn index_keys(&self) -> u64 {
        let extents: u64 = self.index.live().ledger().methods.values().map(|m| m.extents).sum();
        self.inodes.load(Ordering::Relaxed) * KEYS_PER_INODE + extents * KEYS_PER_EXTENT
    }

    /// Makes the index smaller when it takes much more than what is in it. To be called now and then.
    ///
    /// # Blocking
    /// Where it is large, a pass over it; where it is too large, a copy of it. Commits and look-ups go on.
    pub fn tend_index(&self) {
        let due = self.index.size_on_disk().map(|size| {
            let grown = size > self.index_looked_bytes.load(Ordering::Relaxed) / 2 * 3;
            (grown && size > VACUUM_BYTES_MIN.max(self.index_keys() * VACUUM_BYTES_PER_KEY)).then_some(size)
        });
        match due {
            Ok(None) => {}
            Ok(Some(size)) if self.has_room(size) => match self.vacuum_index(VACUUM_BYTES_MIN) {
                Ok(true) => self.index_looked_bytes.store(0, Ordering::Relaxed),
                Ok(false) => self.index_looked_bytes.store(size, Ordering::Relaxed),
                // Tidying only: all that counts is on disk.
                Err(e) => log::warn!("the index is made smaller another time: {e}"),
            },
            Ok(Some(_)) => log::debug!("the index is made smaller when there is more space"),
            Err(e) => log::warn!("{e}"),
        }
    }

    /// Copies the index when it takes at least `bytes_min` and several times what is in it; the copy takes its place. True
    /// when it was copied.
    ///
    /// # Blocking
    /// A pass over the index, where it is that large. Commits and look-ups go on.
    pub fn vacuum_index(&self, bytes_min: u64) -> Result<bool, Error> {
        let Some(root) = self.disk.native_path() else { return Ok(false) };
        let copied = self.index.vacuum(&*self.disk, root, bytes_min)?;
        if let Some((size, live)) = copied {
            log::info!("an index of {size} bytes with {live} in it was copied to a smaller one");
        }
        Ok(copied.is_some())
    }
}

/// Keys that a close brings up to date or goes through: a second or so.
const CLOSE_KEYS_MAX: u64 = 50_000;
/// Keys of the index for each inode, and for each extent, about.
const KEYS_PER_INODE: u64 = 4;
const KEYS_PER_EXTENT: u64 = 3;
/// A smaller index is not vacuumed, bytes; nor one that has no more than this for each key.
const VACUUM_BYTES_MIN: u64 = 32 << 20;
const VACUUM_BYTES_PER_KEY: u64 = 400;

/// Extended attributes of one inode.
const XATTRS_MAX: usize = 65_536;

fn lock(disk: &dyn Disk, shared: bool) -> Result<Box<dyn Send + Sync>, Error> {
    match disk.lock(shared) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Err(Error::Locked),
        other => other.map_err(Error::io("lock the store")),
    }
}

/// The index, up to date with the packs, and where the log ends.
fn open_index(
    disk: &dyn Disk,
    reader: &PackReader,
    packs: &Packs,
    options: StoreOptions,
    recovery: &mut Recovery,
) -> Result<(Index, Position), Error> {
    let engine = if options.read_only { IndexEngine::Memory } else { options.engine };
    let root = match (engine, disk.native_path()) {
        (IndexEngine::Sled, Some(root)) => root,
        (IndexEngine::Sled | IndexEngine::Memory, _) => {
            let index = Index::memory();
            let position = recovery::replay(&index, reader, packs, None, recovery)?;
            return Ok((index, position));
        }
    };
    if options.rebuild {
        disk.remove_dir_all(index::NEW_DIR).map_err(Error::io("remove the copy of the index"))?;
        disk.remove_dir_all(index::INDEX_DIR).map_err(Error::io("remove the index"))?;
    }
    let in_memory = |why: Error, recovery: &mut Recovery| {
        log::warn!("{why}: the index is kept in memory until the next mount");
        recovery.replayed = 0;
        let index = Index::memory();
        let position = recovery::replay(&index, reader, packs, None, recovery)?;
        Ok((index, position))
    };
    let index = match Index::sled(disk, root, options.overlay_bytes) {
        Ok((index, _)) => index,
        Err(e @ Error::NoSpace { .. }) => return in_memory(e, recovery),
        Err(e) => return Err(e),
    };
    let outcome = recovery::position_of(&index, reader).and_then(|position| match position {
        Some(mut position) => {
            if !position.behind {
                *index.live() = Live::load(&index)?;
            }
            let behind = std::mem::take(&mut position.behind);
            index.set_behind(behind);
            let mut end = recovery::replay(&index, reader, packs, Some(position), recovery)?;
            if behind {
                // Keys that were newer than the position were counted twice, or not at all.
                log::info!("the last checkpoint of the index was cut off; its sums are counted anew");
                end.inodes = ledger::audit(&index, true)?.inodes;
                index.set_behind(false);
            }
            Ok(Some(end))
        }
        None => Ok(None),
    });
    match outcome {
        Ok(Some(position)) if !index.is_bad() => return Ok((index, position)),
        Ok(_) => {}
        Err(Error::Index(why)) => log::warn!("the index is damaged ({why}); it is rebuilt from the packs"),
        Err(e) => return Err(e),
    }
    // New or unusable: begin with an empty one.
    drop(index);
    disk.remove_dir_all(index::INDEX_DIR).map_err(Error::io("remove the index"))?;
    let index = match Index::sled(disk, root, options.overlay_bytes) {
        Ok((index, _)) => index,
        Err(e @ Error::NoSpace { .. }) => return in_memory(e, recovery),
        Err(e) => return Err(e),
    };
    recovery.rebuilt = true;
    recovery.replayed = 0;
    let position = recovery::replay(&index, reader, packs, None, recovery)?;
    Ok((index, position))
}
