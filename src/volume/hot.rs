//! Hot copies: plain bytes, on disk, of segments that are read again and again though decoding them is slow. A bounded cache
//! behind the one in memory, which a new mount finds again.
//!
//! On disk: files `cache/<BLAKE3-128 of the segment's plain bytes>-<start>-<length>`, in the store or in a directory that was
//! given, each with these plain bytes and nothing else. They are no part of the store: any of them, or all, may be deleted at
//! any time. A copy is called by what it holds, not by where the segment lies: the header of the segment in its pack says
//! which bytes are wanted, and what a file has is held against that hash (of a part of a segment that is decoded in parts,
//! against the checksum that the segment has of the part) at every read. So a copy cannot be stale, and follows a segment that gc
//! moves without a word. One that a crash cut off, or rot has changed, fails the check and goes; nothing is synced for it.
//!
//! # What is kept
//! What takes `SLOW_MS_MIN` or more to decode and was decoded for a reader once before, as far as is remembered: whoever reads
//! everything once leaves the copies alone. When the budget is full the one that was used longest ago makes room, after a
//! second chance where it was of use since the last look; one that was written a short while ago does not, so that
//! two scans of more than the budget do not write all of it over and over.
//!
//! # Limits
//! Bytes of copies (the budget), their number (`COPIES_MAX`), what is remembered as read once (`SEEN_MAX`). A twentieth of
//! the filesystem stays free besides what new data needs; below that copies are removed, and before new data is refused all of
//! them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Volume;
use super::cache::{Failure, Plain};
use super::types::HotStatus;
use crate::base::{Ino, MethodId, PlainHash, SEGMENT_BYTES_MAX, SegmentRef, crc32c, plain_hash};
use crate::codec;
use crate::format::Coding;
use crate::host::{self, Disk, OpenMode, Space};
use crate::store::Marks;

/// Directory of the copies.
pub(crate) const HOT_DIR: &str = "cache";
/// What decodes faster than this, milliseconds, is not worth a copy: a disk may need as long to find it.
const SLOW_MS_MIN: u32 = 10;
/// Copies at most: each takes some 200 bytes of memory, and a file.
const COPIES_MAX: usize = 1 << 15;
/// Pieces remembered as read once; beyond it the oldest are forgotten.
const SEEN_MAX: usize = 1 << 14;
/// A copy that was written so short a while ago is not removed for another, milliseconds.
const REST_MS: u64 = 10 * 60 * 1000;
/// Copies that get a second chance for one that wants their place.
const SPARED_MAX: usize = 16;
/// The part of the filesystem that copies leave free.
const FREE_PART: u64 = 20;

/// Which copies there may be, and where.
#[derive(Clone)]
pub struct HotOptions {
    /// Bytes of all of them; none where it is 0.
    pub bytes: u64,
    /// What decodes faster than this, milliseconds, gets none.
    pub slow_ms_min: u32,
    /// The directory that has them instead of the store's, of one volume at a time.
    pub elsewhere: Option<Arc<dyn Disk>>,
}

impl Default for HotOptions {
    fn default() -> HotOptions {
        HotOptions { bytes: 0, slow_ms_min: SLOW_MS_MIN, elsewhere: None }
    }
}

impl std::fmt::Debug for HotOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HotOptions { bytes, slow_ms_min, elsewhere } = self;
        write!(f, "HotOptions {{ {bytes} bytes from {slow_ms_min} ms on, elsewhere: {} }}", elsewhere.is_some())
    }
}

/// What a copy is called by: plain bytes of a segment, from a place in them on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    hash: PlainHash,
    start: u32,
    len: u32,
}

impl Key {
    fn name(&self) -> String {
        let hash: String = self.hash.iter().map(|b| format!("{b:02x}")).collect();
        format!("{hash}-{}-{}", self.start, self.len)
    }

    fn path(&self) -> String {
        format!("{HOT_DIR}/{}", self.name())
    }

    /// Reads a name back; `None` for a file that is not ours.
    fn parse(name: &str) -> Option<Key> {
        let (hash, place) = name.split_once('-')?;
        let (start, len) = place.split_once('-')?;
        let mut key = Key { hash: PlainHash::default(), start: start.parse().ok()?, len: len.parse().ok()? };
        for (byte, digits) in key.hash.iter_mut().zip(hash.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        // Written in another way it would be another file.
        (key.name() == name).then_some(key)
    }
}

/// True for names of copies.
pub fn is_hot_copy(name: &str) -> bool {
    Key::parse(name).is_some()
}

/// Plain bytes that a reader needs, and what they are held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    key: Key,
    /// CRC32C of a part; the whole of a segment has its hash.
    crc: Option<u32>,
    /// What decoding it takes, milliseconds.
    cost_ms: u32,
}

impl Piece {
    /// All of a segment.
    pub fn whole(coding: &Coding) -> Piece {
        let key = Key { hash: coding.plain_hash, start: 0, len: coding.raw_len };
        let ms = MethodId::from_u16(coding.method).map_or(0, |m| codec::predicted_decode_ms(m, coding.raw_len));
        // Its reference is decoded too, most often.
        Piece { key, crc: None, cost_ms: if coding.reference.is_some() { ms.saturating_mul(2) } else { ms } }
    }

    /// A part of a segment that is decoded in parts of so many bytes; `None` where there is no such part, or nothing to check
    /// it by.
    pub fn part(coding: &Coding, payload: &[u8], part_bytes: u32, part: u32) -> Option<Piece> {
        let start = part.checked_mul(part_bytes).filter(|start| *start < coding.raw_len)?;
        let len = part_bytes.min(coding.raw_len - start);
        if len == coding.raw_len {
            return Some(Piece::whole(coding));
        }
        let method = MethodId::from_u16(coding.method)?;
        Some(Piece {
            key: Key { hash: coding.plain_hash, start, len },
            crc: Some(codec::part_check(coding, payload, part)?),
            cost_ms: codec::predicted_decode_ms(method, len),
        })
    }

    fn is_right(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.key.len as usize
            && match self.crc {
                Some(crc) => crc32c(bytes) == crc,
                None => plain_hash(bytes) == self.key.hash,
            }
    }
}

struct Held {
    tick: u64,
    /// It was of use since it was last looked at for room.
    used: bool,
    /// When it was written, where that was in this mount.
    written_ms: Option<u64>,
}

/// What becomes of bytes that were decoded.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// They are not kept.
    No,
    /// They are written; those that make room for them are removed before.
    Write,
}

/// What there is, and who makes room. Knows no files.
#[derive(Default)]
struct Table {
    held: BTreeMap<Key, Held>,
    /// tick -> copy, the one that was used longest ago first.
    order: BTreeMap<u64, Key>,
    /// Those that are being written.
    writing: BTreeSet<Key>,
    /// Of both.
    bytes: u64,
    tick: u64,
    seen: BTreeSet<Key>,
    seen_order: VecDeque<Key>,
    /// What lies in the directory is in the table.
    settled: bool,
}

impl Table {
    fn hold(&mut self, key: Key, written_ms: Option<u64>) {
        self.tick += 1;
        if self.held.insert(key, Held { tick: self.tick, used: false, written_ms }).is_none() {
            self.order.insert(self.tick, key);
            self.bytes += u64::from(key.len);
        }
    }

    /// A copy was of use.
    fn touch(&mut self, key: Key) {
        self.tick += 1;
        if let Some(held) = self.held.get_mut(&key) {
            self.order.remove(&held.tick);
            (held.tick, held.used) = (self.tick, true);
            self.order.insert(self.tick, key);
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(held) = self.held.remove(&key) {
            self.order.remove(&held.tick);
            self.bytes -= u64::from(key.len);
        }
    }

    /// The copy that was used longest ago.
    fn oldest(&self) -> Option<Key> {
        self.order.first_key_value().map(|(_, key)| *key)
    }

    /// True when it was decoded before; else it is remembered.
    fn was_seen(&mut self, key: Key) -> bool {
        if !self.seen.insert(key) {
            return true;
        }
        self.seen_order.push_back(key);
        if self.seen_order.len() > SEEN_MAX
            && let Some(old) = self.seen_order.pop_front()
        {
            self.seen.remove(&old);
        }
        false
    }

    /// Decides about bytes that were decoded for a reader. Adds to `gone` what makes room for them.
    fn weigh(&mut self, key: Key, budget: u64, now_ms: u64, gone: &mut Vec<Key>) -> Verdict {
        let len = u64::from(key.len);
        let again = self.was_seen(key);
        if !again || !self.settled || len > budget || self.held.contains_key(&key) || self.writing.contains(&key) {
            return Verdict::No;
        }
        let mut spared = 0;
        while self.bytes + len > budget || self.held.len() + self.writing.len() >= COPIES_MAX {
            let Some(oldest) = self.oldest() else { return Verdict::No };
            let held = self.held.get_mut(&oldest);
            let (used, written_ms) = held.as_ref().map_or((false, None), |held| (held.used, held.written_ms));
            if used && spared < SPARED_MAX {
                self.touch(oldest);
                if let Some(held) = self.held.get_mut(&oldest) {
                    held.used = false;
                }
                spared += 1;
            } else if used || written_ms.is_some_and(|at| now_ms.saturating_sub(at) < REST_MS) {
                return Verdict::No;
            } else {
                self.forget(oldest);
                gone.push(oldest);
            }
        }
        self.writing.insert(key);
        self.bytes += len;
        Verdict::Write
    }

    /// A write has ended, well or not.
    fn written(&mut self, key: Key, well: bool, now_ms: u64) {
        if self.writing.remove(&key) {
            self.bytes -= u64::from(key.len);
        }
        if well {
            self.hold(key, Some(now_ms));
        }
    }
}

/// The copies of an open volume.
pub(crate) struct HotCache {
    disk: Arc<dyn Disk>,
    budget: u64,
    slow_ms_min: u32,
    /// Nothing is written or removed: the store is read-only, or writing failed.
    frozen: AtomicBool,
    /// Space that copies take is taken from the store.
    beside_store: bool,
    table: Mutex<Table>,
    hits: AtomicU64,
    misses: AtomicU64,
    written_bytes: AtomicU64,
    evicted: AtomicU64,
    wrong: AtomicU64,
    /// Of a directory that is not the store's.
    _lock: Option<Box<dyn Send + Sync>>,
}

/// Free space below which no copy is written, and copies go.
fn kept_free(space: &Space) -> u64 {
    Marks::of(space.total_bytes).data.saturating_add(space.total_bytes / FREE_PART)
}

/// True when two directories lie on one filesystem, as far as can be told.
fn on_one_disk(a: &dyn Disk, b: &dyn Disk) -> bool {
    let device = |disk: &dyn Disk| disk.native_path().and_then(|path| host::device_of(path).ok());
    matches!((device(a), device(b)), (Some(a), Some(b)) if a == b)
}

impl HotCache {
    /// The copies that options ask for; `None` where there are to be none. What is wrong is told, and is no reason not to serve a
    /// volume. What lies there already is used at once, and counted by `settle`, before which nothing is written.
    pub fn open(store: &Arc<dyn Disk>, options: &HotOptions, read_only: bool) -> Option<HotCache> {
        if options.bytes == 0 {
            return None;
        }
        let lock = match options.elsewhere.as_ref().map(|disk| disk.lock(false)).transpose() {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                log::warn!("no hot copies: their directory is that of another mount");
                return None;
            }
            Err(e) => {
                log::warn!("no hot copies: their directory cannot be locked: {e}");
                return None;
            }
        };
        let disk = options.elsewhere.as_ref().unwrap_or(store).clone();
        let mut frozen = read_only && options.elsewhere.is_none();
        if frozen {
            log::info!(
                "the store is read-only: hot copies in it are used, and none are made; `hot-cache-dir` names a place for them"
            );
        } else if let Err(e) = disk.create_dir(HOT_DIR) {
            log::warn!("no hot copies are made: {e}");
            frozen = true;
        }
        Some(HotCache {
            beside_store: options.elsewhere.as_ref().is_none_or(|other| on_one_disk(&**store, &**other)),
            disk,
            budget: options.bytes,
            slow_ms_min: options.slow_ms_min,
            frozen: AtomicBool::new(frozen),
            table: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            _lock: lock,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// True where a copy is looked for, and may be made.
    fn is_worth(&self, piece: &Piece) -> bool {
        piece.cost_ms >= self.slow_ms_min && piece.key.len > 0 && piece.key.len <= SEGMENT_BYTES_MAX
    }

    fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Writing or removing failed: nothing of it is tried again, so that one sentence is enough.
    fn freeze(&self, what: &str, e: &io::Error) {
        if !self.frozen.swap(true, Ordering::Relaxed) {
            log::warn!("no more hot copies are made in this mount: {what}: {e}");
        }
    }

    /// Takes the table from what lies in the directory. The oldest go where there is more than the budget.
    ///
    /// # Blocking
    /// Disk: every copy is opened.
    pub fn settle(&self) {
        let (mut found, mut surplus) = (Vec::new(), Vec::new());
        let listed = self.disk.each_name(HOT_DIR, &mut |name| {
            // What is not ours is left alone: somebody may have given a directory with other things in it.
            if let Some(key) = Key::parse(name) {
                let looked = self.disk.open(&key.path(), OpenMode::Read).and_then(|f| Ok((f.modified()?, f.len()?)));
                match looked {
                    Ok((modified, len)) if len == u64::from(key.len) && found.len() < COPIES_MAX => {
                        found.push((modified, key));
                    }
                    // Cut off by a crash, or too many; what cannot be looked at is of no use.
                    _ => surplus.push(key),
                }
            }
            surplus.len() < COPIES_MAX
        });
        if let Err(e) = listed {
            self.freeze("their directory cannot be listed", &e);
        }
        found.sort_unstable();
        let mut table = self.table();
        found.into_iter().for_each(|(_, key)| table.hold(key, None));
        while table.bytes > self.budget
            && let Some(oldest) = table.oldest()
        {
            table.forget(oldest);
            surplus.push(oldest);
        }
        table.settled = true;
        drop(table);
        surplus.iter().for_each(|key| self.remove(*key));
    }

    /// Removes the file of a copy that is not in the table any more.
    fn remove(&self, key: Key) {
        if self.is_frozen() {
            return;
        }
        match self.disk.remove(&key.path()) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => self.freeze("one cannot be removed", &e),
        }
    }

    /// The bytes of a piece when there is a copy that has them.
    ///
    /// # Blocking
    /// Disk: reads the copy.
    pub fn find(&self, piece: &Piece) -> Option<Plain> {
        if !self.is_worth(piece) {
            return None;
        }
        let key = piece.key;
        let absent = {
            let table = self.table();
            table.settled && !table.held.contains_key(&key)
        };
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; key.len as usize];
            let got = self.disk.open(&key.path(), OpenMode::Read)?.read_at(&mut bytes, 0)?;
            bytes.truncate(got);
            Ok(bytes)
        };
        let bytes = if absent { None } else { Some(read()) };
        match bytes {
            Some(Ok(bytes)) if piece.is_right(&bytes) => {
                self.table().touch(key);
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Some(Plain::new(bytes));
            }
            Some(Err(e)) if e.kind() == io::ErrorKind::NotFound => self.table().forget(key),
            Some(wrong) => {
                // Rot, or what a crash left: the segment has the bytes.
                let what = wrong.err().map_or("its bytes are not what they were".to_string(), |e| e.to_string());
                log::warn!("the hot copy {} is not used: {what}", key.name());
                self.wrong.fetch_add(1, Ordering::Relaxed);
                self.table().forget(key);
                self.remove(key);
            }
            None => {}
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Takes bytes that were decoded for a reader, checked, and makes a copy of them where that is worth it.
    ///
    /// # Durability
    /// None: what a crash leaves of it is found out when it is read.
    ///
    /// # Blocking
    /// Disk: a write of at most a segment, which nobody waits for.
    pub fn offer(&self, piece: &Piece, plain: &[u8], now_ms: u64) {
        if !self.is_worth(piece) || self.is_frozen() || plain.len() != piece.key.len as usize {
            return;
        }
        let key = piece.key;
        let mut gone = Vec::new();
        let verdict = self.table().weigh(key, self.budget, now_ms, &mut gone);
        self.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
        gone.iter().for_each(|key| self.remove(*key));
        if verdict == Verdict::No {
            return;
        }
        let room =
            self.disk.space().is_ok_and(|s| s.available_bytes >= kept_free(&s).saturating_add(plain.len() as u64));
        let written = if room { self.write(key, plain) } else { Ok(false) };
        self.table().written(key, matches!(written, Ok(true)), now_ms);
        match written {
            Ok(true) => {
                self.written_bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
            }
            Ok(false) => self.tend(),
            Err(e) if host::is_out_of_space(&e) => self.give_way(u64::MAX),
            // The next one may go well.
            Err(e) if host::is_out_of_files(&e) => {}
            Err(e) => self.freeze("one cannot be written", &e),
        }
    }

    /// False where something that is not in the table has its place: it goes, and the next one that comes is written.
    fn write(&self, key: Key, plain: &[u8]) -> io::Result<bool> {
        let make = || self.disk.open(&key.path(), OpenMode::CreateNew);
        let file = match make() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // All of the directory was deleted, which may be done at any time.
                self.disk.create_dir(HOT_DIR)?;
                make()?
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(key);
                return Ok(false);
            }
            other => other?,
        };
        if let Err(e) = file.write_at(plain, 0) {
            drop(file);
            self.remove(key);
            return Err(e);
        }
        Ok(true)
    }

    /// Removes copies until so many bytes are freed, those that were used longest ago first.
    fn give_way(&self, bytes: u64) {
        let mut freed = 0;
        while freed < bytes && !self.is_frozen() {
            let mut table = self.table();
            let Some(oldest) = table.oldest() else { return };
            table.forget(oldest);
            drop(table);
            self.remove(oldest);
            self.evicted.fetch_add(1, Ordering::Relaxed);
            freed += u64::from(oldest.len);
        }
    }

    /// Gives space back where the filesystem has little of it left. Called by a timer.
    pub fn tend(&self) {
        if let Ok(space) = self.disk.space() {
            self.give_way(kept_free(&space).saturating_sub(space.available_bytes));
        }
    }

    /// Gives all back to a store that needs space; false when there was nothing to give.
    pub fn yield_to_store(&self) -> bool {
        let there = self.lent_bytes() > 0;
        if there {
            self.give_way(u64::MAX);
        }
        there
    }

    /// Bytes of the store's filesystem that copies take, and give back when they are needed.
    pub fn lent_bytes(&self) -> u64 {
        if self.beside_store && !self.is_frozen() { self.table().bytes } else { 0 }
    }

    pub fn status(&self) -> HotStatus {
        let (copies, bytes) = {
            let table = self.table();
            (table.held.len() as u64, table.bytes)
        };
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        HotStatus {
            budget_bytes: self.budget,
            bytes,
            copies,
            hits: count(&self.hits),
            misses: count(&self.misses),
            written_bytes: count(&self.written_bytes),
            evicted: count(&self.evicted),
            wrong: count(&self.wrong),
            frozen: self.is_frozen(),
        }
    }
}

impl Volume {
    /// The plain bytes of a segment for a reader: its hot copy, or decoded. Returns too what is to be offered once the reader has
    /// its bytes.
    pub(super) fn read_segment(
        &self,
        ino: Ino,
        offset: u64,
        segment: SegmentRef,
    ) -> (Result<Plain, Failure>, Option<Piece>) {
        // A header that cannot be read is told of by the decode.
        let header = self.hot.as_ref().and_then(|hot| Some((hot, self.store.segment_header(segment).ok()?)));
        let Some((hot, header)) = header else { return (self.decode(ino, offset, segment), None) };
        let piece = Piece::whole(&header.coding);
        match hot.find(&piece) {
            Some(plain) => (Ok(plain), None),
            None => (self.decode(ino, offset, segment), Some(piece)),
        }
    }

    /// Takes what was decoded for a reader.
    pub(super) fn offer_hot(&self, piece: &Piece, plain: &[u8]) {
        // After a failed sync nothing more is written into the store.
        if let Some(hot) = &self.hot
            && (self.options.read_only || !self.failed.load(Ordering::Acquire))
        {
            hot.offer(piece, plain, self.now_ms());
        }
    }

    /// Gives the space of hot copies back where little is left. Called by a timer.
    ///
    /// # Blocking
    /// Disk: asks for the space, and removes files.
    pub fn tend_hot(&self) {
        if let Some(hot) = &self.hot {
            hot.tend();
        }
    }

    /// Counts the hot copies that are there. Those that an earlier mount left in the store go where this one has none there.
    pub(super) fn settle_hot(&self) {
        if let Some(hot) = &self.hot {
            hot.settle();
        }
        if (self.options.hot.bytes == 0 || self.options.hot.elsewhere.is_some()) && self.writable().is_ok() {
            let (mut removed, mut left) = (0, 0);
            let listed = self.disk.each_name(HOT_DIR, &mut |name| {
                match Key::parse(name).map(|key| self.disk.remove(&key.path())) {
                    Some(Ok(())) => removed += 1,
                    Some(Err(_)) | None => left += 1,
                }
                true
            });
            let emptied = listed.and_then(|()| match (removed, left) {
                (1.., 0) => self.disk.remove_dir_all(HOT_DIR),
                _ => Ok(()),
            });
            if let Err(e) = emptied {
                log::warn!("hot copies of an earlier mount stay: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Fault, SimDisk, Survival};

    const KIB: u64 = 1 << 10;
    const HOUR_MS: u64 = 3_600_000;

    fn bytes(n: u8) -> Vec<u8> {
        vec![n; 100 << 10]
    }

    fn piece(n: u8) -> Piece {
        let bytes = bytes(n);
        Piece { key: Key { hash: plain_hash(&bytes), start: 0, len: bytes.len() as u32 }, crc: None, cost_ms: 100 }
    }

    fn open(disk: &SimDisk, budget: u64) -> HotCache {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let cache = HotCache::open(&disk, &HotOptions { bytes: budget, ..HotOptions::default() }, false).unwrap();
        cache.settle();
        cache
    }

    /// Read from cold twice.
    fn keep(cache: &HotCache, n: u8, now_ms: u64) {
        (0..2).for_each(|_| cache.offer(&piece(n), &bytes(n), now_ms));
    }

    fn has(cache: &HotCache, n: u8) -> bool {
        cache.find(&piece(n)).inspect(|found| assert!(**found == bytes(n))).is_some()
    }

    fn files(disk: &SimDisk) -> usize {
        disk.files().iter().filter(|(path, _)| path.starts_with("cache/")).count()
    }

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        let key = piece(7).key;
        assert_eq!(Key::parse(&key.name()), Some(key));
        for name in ["", "photo.jpg", "-", "0-0-0", "xyz-1-2", "é-1-1", "0123456789abcdef0123456789ABCDEF-0-1"] {
            assert!(!is_hot_copy(name), "{name}");
        }
        assert!(is_hot_copy("0123456789abcdef0123456789abcdef-0-1"));
        assert!(!is_hot_copy("0123456789abcdef0123456789abcdef00-0-1"));
        assert!(!is_hot_copy("0123456789abcdef0123456789abcdef-0-01"));
    }

    #[test]
    fn what_is_slow_and_read_again_is_kept_and_found_by_the_next_mount() {
        let disk = SimDisk::new();
        let cache = open(&disk, 1000 * KIB);
        cache.offer(&piece(1), &bytes(1), 0);
        assert!(files(&disk) == 0 && !has(&cache, 1), "once is not often");
        cache.offer(&piece(1), &bytes(1), 0);
        assert!(has(&cache, 1));
        let quick = Piece { cost_ms: SLOW_MS_MIN - 1, ..piece(2) };
        (0..3).for_each(|_| cache.offer(&quick, &bytes(2), 0));
        assert_eq!(files(&disk), 1, "what is quick to decode has no copy");
        let now = cache.status();
        assert_eq!((now.hits, now.misses, now.copies, now.bytes, now.written_bytes), (1, 1, 1, 100 * KIB, 100 * KIB));
        // Nothing was synced, and a kill keeps what the kernel has.
        let cache = open(&disk.survivor(Survival::Kernel), 1000 * KIB);
        assert!(has(&cache, 1));
    }

    #[test]
    fn a_full_budget_evicts_what_was_of_no_use_for_longest() {
        let disk = SimDisk::new();
        let cache = open(&disk, 300 * KIB);
        (1..=3).for_each(|n| keep(&cache, n, 0));
        assert!(has(&cache, 1), "it is of use");
        keep(&cache, 4, 1000);
        assert!(!has(&cache, 4) && files(&disk) == 3, "copies that were just written stay");
        keep(&cache, 4, HOUR_MS);
        assert!(has(&cache, 1) && !has(&cache, 2) && has(&cache, 3) && has(&cache, 4));
        assert_eq!((files(&disk), cache.status().evicted, cache.status().bytes), (3, 1, 300 * KIB));
        // More than all of it is not taken.
        let large = Piece { key: Key { len: 400 << 10, ..piece(9).key }, ..piece(9) };
        (0..2).for_each(|_| cache.offer(&large, &vec![9; 400 << 10], 2 * HOUR_MS));
        assert_eq!(files(&disk), 3);
        // A smaller budget is kept to at once, by the age of the copies.
        let cache = open(&disk, 250 * KIB);
        assert_eq!((files(&disk), cache.status().bytes), (2, 200 * KIB));
    }

    #[test]
    fn bytes_that_are_not_what_they_were_are_never_given() {
        let disk = SimDisk::new();
        let cache = open(&disk, 1000 * KIB);
        (1..=3).for_each(|n| keep(&cache, n, 0));
        assert!(disk.rot(&piece(1).key.path(), 70_000, 4));
        assert!(!has(&cache, 1) && has(&cache, 2));
        assert_eq!((cache.status().wrong, files(&disk)), (1, 2), "it goes");
        cache.offer(&piece(1), &bytes(1), 0);
        assert!(has(&cache, 1), "and is made anew");
        // One that a crash tore, one that somebody took away, one that cannot be read, and what is not ours.
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        handle.open(&piece(1).key.path(), OpenMode::Write).unwrap().set_len(5000).unwrap();
        assert!(!has(&cache, 1));
        handle.remove(&piece(2).key.path()).unwrap();
        assert!(!has(&cache, 2));
        disk.fail_on(Fault::Read, HOT_DIR, 0, 1, 5);
        assert!(!has(&cache, 3));
        disk.mend();
        keep(&cache, 2, 0);
        handle.open(&piece(2).key.path(), OpenMode::Write).unwrap().set_len(5000).unwrap();
        handle.open("cache/notes.txt", OpenMode::Create).unwrap().write_at(b"mine", 0).unwrap();
        drop(cache);
        let cache = open(&disk, 1000 * KIB);
        assert_eq!((cache.status().copies, files(&disk)), (0, 1));
    }

    #[test]
    fn a_part_is_held_against_its_own_checksum() {
        let disk = SimDisk::new();
        let cache = open(&disk, 1000 * KIB);
        let part = Piece { key: Key { start: 8192, ..piece(5).key }, crc: Some(crc32c(&bytes(5))), cost_ms: 5000 };
        (0..2).for_each(|_| cache.offer(&part, &bytes(5), 0));
        assert_eq!(cache.find(&part).map(|found| found.len()), Some(100 << 10));
        let other = Piece { crc: Some(1), ..part };
        assert!(cache.find(&other).is_none() && cache.status().wrong == 1);
    }

    #[test]
    fn they_give_way_to_whatever_needs_the_space() {
        let disk = SimDisk::new();
        disk.set_capacity(8 << 20);
        let cache = open(&disk, 4 << 20);
        (1..=20).for_each(|n| keep(&cache, n, 0));
        assert_eq!(files(&disk), 20);
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let other = handle.open("other", OpenMode::Create).unwrap();
        let space = handle.space().unwrap();
        other.allocate(0, space.available_bytes - kept_free(&space) + 250 * KIB).unwrap();
        cache.tend();
        assert_eq!((files(&disk), cache.status().evicted), (17, 3));
        (21..=25).for_each(|n| keep(&cache, n, 0));
        assert!(files(&disk) <= 17 && !cache.status().frozen, "none are made where little is left");
        assert!(cache.lent_bytes() > 0 && cache.yield_to_store());
        assert_eq!((files(&disk), cache.lent_bytes(), cache.yield_to_store()), (0, 0, false));
        // A disk that is full though it said otherwise.
        other.set_len(0).unwrap();
        keep(&cache, 1, 0);
        disk.fail_on(Fault::Write, HOT_DIR, 1, 1, 28);
        cache.offer(&piece(2), &bytes(2), 0);
        disk.mend();
        assert_eq!((files(&disk), cache.status().bytes, cache.status().frozen), (0, 0, false));
        // Another failure ends it, and what is there is still read.
        cache.offer(&piece(1), &bytes(1), 0);
        disk.fail_on(Fault::Write, HOT_DIR, 1, 1, 5);
        cache.offer(&piece(2), &bytes(2), 0);
        disk.mend();
        cache.offer(&piece(3), &bytes(3), 0);
        assert!(cache.status().frozen && has(&cache, 1) && !has(&cache, 3));
    }

    #[test]
    fn the_directory_may_go_at_any_time() {
        let disk = SimDisk::new();
        let cache = open(&disk, 1000 * KIB);
        keep(&cache, 1, 0);
        Disk::remove_dir_all(&disk, HOT_DIR).unwrap();
        assert!(!has(&cache, 1));
        cache.offer(&piece(1), &bytes(1), 0);
        assert!(has(&cache, 1) && !cache.status().frozen);
    }
}
