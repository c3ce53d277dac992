//! Scrub: every record of every pack and every sealed staging file is read and checked, segments are decoded and hashed.
//!
//! Works beside everything else, at a bounded rate, and can be stopped at any time: what was verified when is remembered
//! in the file `scrub.json` of the store, and the next scrub goes on there. Nothing depends on that file: without it a
//! scrub begins anew. Damage is told by the files that need the bytes now, whoever they were written for. Packs with
//! damage are read again by every scrub. A pack that is deleted meanwhile is not missed.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cache::SegmentCache;
use super::reference::{self, Unread};
use super::types::Error;
use super::{Volume, seal, staging};
use crate::base::{Ino, MethodId, ModelId, PackId, SegmentRef};
use crate::codec::Library;
use crate::format::Coding;
use crate::host::{self, Disk, OpenMode};
use crate::store::{self, RecordSummary, Store, Survey};

/// What was verified when.
const MEMORY_FILE: &str = "scrub.json";
/// Longest `scrub.json` that is read, bytes: some hundred thousand packs.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
const MEMORY_VERSION: u32 = 1;
/// The memory is written this often while a pack is read.
const SAVE_EVERY: Duration = Duration::from_secs(10);
/// Plain bytes of references that are kept for the next segment.
const REFERENCES_BYTES: u64 = 4 << 20;
/// Longest sleep before a look at whether to stop.
const NAP: Duration = Duration::from_millis(100);
/// Places of damage listed; more are counted.
const LISTED_MAX: usize = 10_000;
/// Files named for one place of damage.
const FILES_MAX: usize = 1000;
/// Segments and inodes looked up at a time.
const PAGE: usize = 1024;
/// Directories climbed to find a path for a message.
const DEPTH_MAX: usize = 256;

/// How a scrub goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubOptions {
    /// Check the checksums of records only; do not decode segments.
    pub quick: bool,
    /// Bytes of packs read in a second; 0 means as fast as it goes.
    pub bytes_per_s: u64,
    /// Leave out packs that were verified within so many seconds.
    pub max_age_s: Option<u64>,
}

/// Bytes that are damaged.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Damaged {
    /// Pack, or 0 for a file of staging or a model.
    pub pack: u64,
    pub offset: u64,
    pub what: String,
    /// Files that need these bytes. None: nothing that is left does.
    pub files: Vec<String>,
}

/// Outcome of a scrub.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    pub packs: u64,
    /// Packs left out since they were verified not long ago, or before this scrub was interrupted.
    pub packs_skipped: u64,
    pub segments: u64,
    /// Of these, segments of language models, which were not decoded: their checksums are right, and their models there.
    #[serde(default)]
    pub not_decoded: u64,
    pub stored_bytes: u64,
    pub plain_bytes: u64,
    /// Damaged parts of packs that were computed again from parity and written back.
    pub mended: u64,
    /// Sealed staging files read.
    pub staged_files: u64,
    pub damaged: Vec<Damaged>,
    /// Places of damage, those that are not listed too.
    pub damaged_count: u64,
    /// It came to its end; otherwise the next one goes on where it was stopped.
    pub complete: bool,
}

/// What `status` shows of scrubs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ScrubStatus {
    pub running: bool,
    /// Bytes of packs that this scrub is through with, and all there were when it began.
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Time of the end of the last whole scrub, seconds since 1970.
    pub last_full: Option<i64>,
    /// Places of damage that the last or the running scrub found.
    pub damaged: u64,
}

/// What is known of one pack.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
struct PackMemory {
    /// Time when it was last read to its end, seconds since 1970, and the bytes it had.
    verified: i64,
    bytes: u64,
    /// The scrub that did.
    pass: u64,
    /// Where a scrub that was stopped goes on; 0 when none was.
    upto: u64,
    /// Segments were not decoded.
    quick: bool,
    /// Places of damage.
    damaged: u64,
}

/// `scrub.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Memory {
    version: u32,
    uuid: String,
    /// Number of the last scrub, and whether it has come to its end.
    pass: u64,
    under_way: bool,
    last_full: Option<i64>,
    damaged: u64,
    packs: BTreeMap<u64, PackMemory>,
}

impl Memory {
    /// What was written last; nothing when that is missing, damaged, or of another store.
    fn load(disk: &dyn Disk, uuid: &str) -> Memory {
        let read = || -> io::Result<Memory> {
            let file = disk.open(MEMORY_FILE, OpenMode::Read)?;
            let mut bytes = vec![0; file.len()?.min(MEMORY_BYTES_MAX) as usize];
            let got = file.read_at(&mut bytes, 0)?;
            serde_json::from_slice(bytes.get(..got).unwrap_or_default()).map_err(io::Error::other)
        };
        let fresh = || Memory { version: MEMORY_VERSION, uuid: uuid.to_string(), ..Memory::default() };
        match read() {
            Ok(memory) if memory.version == MEMORY_VERSION && memory.uuid == uuid => memory,
            Ok(_) => fresh(),
            Err(e) => {
                if e.kind() != io::ErrorKind::NotFound {
                    log::warn!("{MEMORY_FILE}: {e}; the scrub begins anew");
                }
                fresh()
            }
        }
    }

    fn save(&self, disk: &dyn Disk) -> Result<(), store::Error> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| store::Error::Io { what: format!("write {MEMORY_FILE}"), source: e.into() })?;
        store::write_whole(disk, "", MEMORY_FILE, MEMORY_FILE, &bytes)
    }
}

/// What `status` shows of scrubs before one has run in this process.
pub(super) fn remembered(disk: &dyn Disk, store: &Store) -> ScrubStatus {
    let memory = Memory::load(disk, &store.uuid().to_string());
    ScrubStatus { last_full: memory.last_full, damaged: memory.damaged, ..ScrubStatus::default() }
}

/// A scrub at work.
struct Scrub<'a> {
    disk: &'a Arc<dyn Disk>,
    store: &'a Store,
    library: &'a Library,
    options: ScrubOptions,
    /// Nothing is written, not even what was verified.
    read_only: bool,
    stop: &'a AtomicBool,
    told: &'a mut dyn FnMut(&ScrubStatus),
    memory: Memory,
    report: ScrubReport,
    status: ScrubStatus,
    started: Instant,
    read_bytes: u64,
    saved: Instant,
}

/// Reads and checks a whole store. `told` hears of the progress after each record. With `read_only` what was verified is
/// not remembered. `stop` ends it early, with what was found so far.
///
/// # Errors
/// Only when the scrub itself cannot go on; damage is in the report.
///
/// # Blocking
/// For as long as it takes to read all packs at the given rate, and to decode all segments.
pub fn scrub(
    disk: &Arc<dyn Disk>,
    store: &Store,
    library: &Library,
    options: ScrubOptions,
    read_only: bool,
    stop: &AtomicBool,
    told: &mut dyn FnMut(&ScrubStatus),
) -> Result<ScrubReport, store::Error> {
    let memory = Memory::load(&**disk, &store.uuid().to_string());
    let status = ScrubStatus { running: true, last_full: memory.last_full, ..ScrubStatus::default() };
    let now = Instant::now();
    let mut scrub = Scrub {
        disk,
        store,
        library,
        options,
        read_only,
        stop,
        told,
        memory,
        report: ScrubReport::default(),
        status,
        started: now,
        read_bytes: 0,
        saved: now,
    };
    scrub.run()?;
    Ok(scrub.report)
}

impl Scrub<'_> {
    fn run(&mut self) -> Result<(), store::Error> {
        let survey = Survey::open(self.disk.clone())?;
        let packs = survey.packs()?;
        let (now, _) = host::now();
        if !std::mem::replace(&mut self.memory.under_way, true) {
            self.memory.pass += 1;
        }
        let young = self.options.max_age_s.map(|age| now.saturating_sub_unsigned(age));
        self.memory.packs.retain(|id, _| packs.iter().any(|(pack, _, _)| pack.0 == *id));
        self.status.total_bytes = packs.iter().map(|(_, _, len)| len).sum();
        let mut before = 0;
        for (id, _, len) in &packs {
            let known = self.memory.packs.get(&id.0).copied().unwrap_or_default();
            let verified = known.pass == self.memory.pass || young.is_some_and(|young| known.verified >= young);
            let fresh = verified && known.damaged == 0 && (!known.quick || self.options.quick);
            if fresh && known.bytes == *len {
                self.report.packs_skipped += 1;
            } else {
                // What came to a pack since it was verified is read, what was there is not.
                let from = if fresh { known.bytes } else { known.upto };
                self.parity(&survey, *id)?;
                if !self.pack(&survey, *id, *len, if known.damaged > 0 { 0 } else { from.min(*len) }, before)? {
                    return self.end(false);
                }
            }
            before += len;
            self.tell(before);
        }
        self.missing_packs(&packs)?;
        self.models()?;
        let staged = self.staged()?;
        self.end(staged)
    }

    fn end(&mut self, complete: bool) -> Result<(), store::Error> {
        self.report.complete = complete;
        self.status.running = false;
        if complete {
            let (now, _) = host::now();
            self.memory.under_way = false;
            self.memory.last_full = if self.options.quick { self.memory.last_full } else { Some(now) };
            self.memory.damaged = self.report.damaged_count;
        }
        self.status.last_full = self.memory.last_full;
        self.save();
        (self.told)(&self.status);
        Ok(())
    }

    /// A memory that cannot be written costs a scrub its place, no more.
    fn save(&mut self) {
        self.saved = Instant::now();
        if !self.read_only
            && let Err(e) = self.memory.save(&**self.disk)
        {
            log::warn!("{MEMORY_FILE} cannot be written: {e}");
        }
    }

    fn tell(&mut self, done: u64) {
        self.status.done_bytes = done;
        self.status.damaged = self.report.damaged_count;
        (self.told)(&self.status);
    }

    /// Sleeps as long as the rate asks for. False when the scrub is to stop.
    fn pace(&mut self, bytes: u64) -> bool {
        self.read_bytes += bytes;
        while self.options.bytes_per_s > 0 && !self.stop.load(Ordering::Acquire) {
            let due = Duration::from_secs_f64(self.read_bytes as f64 / self.options.bytes_per_s as f64);
            let early = due.saturating_sub(self.started.elapsed());
            if early.is_zero() {
                break;
            }
            std::thread::sleep(early.min(NAP));
        }
        !self.stop.load(Ordering::Acquire)
    }

    /// Mends what the parity of a pack can mend, before the pack is read; a parity file that is damaged itself goes.
    fn parity(&mut self, survey: &Survey, id: PackId) -> Result<(), store::Error> {
        if self.read_only || self.store.is_read_only() {
            return Ok(());
        }
        match self.store.mend_pack(id) {
            Ok(Some(count)) => {
                if count.mended > 0 {
                    log::warn!("scrub: {} damaged parts of pack {id} were computed again from parity", count.mended);
                }
                self.report.mended += count.mended;
            }
            Ok(None) => {}
            Err(store::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
        if self.store.check_parity(id)? && survey.packs()?.iter().any(|(pack, _, _)| *pack == id) {
            log::warn!("scrub: the parity of pack {id} was damaged; it is made anew");
        }
        Ok(())
    }

    /// Decodes a segment, but one of a language model, which takes minutes: of these the model is looked for. That its arithmetic
    /// is right was shown when it was loaded, and what rots shows in the checksum of the record, which is read in any case.
    fn decode(
        &mut self,
        references: &SegmentCache,
        at: SegmentRef,
        (coding, payload): (&Coding, &[u8]),
    ) -> Result<(), Unread> {
        if coding.method != MethodId::Language as u16 {
            return reference::decode(self.store, self.library, references, at, (coding, payload)).map(drop);
        }
        self.report.not_decoded += 1;
        let id = ModelId(coding.model);
        if self.library.languages.has(id) {
            return Ok(());
        }
        Err(Unread::Damaged(format!("it was coded by the language model {id}, which the volume lacks")))
    }

    /// One pack. False when the scrub was stopped.
    fn pack(&mut self, survey: &Survey, id: PackId, len: u64, from: u64, before: u64) -> Result<bool, store::Error> {
        let mut damaged: Vec<(u64, u64, String)> = Vec::new();
        let mut good_end = from;
        let mut torn = false;
        let mut going = true;
        // Segments that follow each other were often coded from the same one.
        let references = SegmentCache::new(REFERENCES_BYTES);
        let walked = survey.walk_from(id, from, true, |offset, record_len, record| {
            match record {
                RecordSummary::Segment { at, header, payload: Some(payload) } => {
                    self.report.segments += 1;
                    self.report.plain_bytes += u64::from(header.coding.raw_len);
                    if !self.options.quick
                        && let Err(e) = self.decode(&references, at, (&header.coding, &payload))
                    {
                        match e {
                            // What nobody needs has no reference to be decoded with.
                            Unread::Moved(_) | Unread::Stopped => {}
                            Unread::Disk(e) => damaged.push((offset, record_len, e.to_string())),
                            Unread::Damaged(what) => damaged.push((offset, record_len, what)),
                        }
                    }
                    good_end = offset + record_len;
                }
                // A record cut off at the end of a pack was never acknowledged, unless some file needs it.
                RecordSummary::Damage { at_end: true, .. } => torn = true,
                RecordSummary::Damage { what, .. } => damaged.push((offset, record_len, what)),
                RecordSummary::Segment { .. }
                | RecordSummary::Pack { .. }
                | RecordSummary::Meta { .. }
                | RecordSummary::Snapshot { .. }
                | RecordSummary::SnapshotEnd { .. } => good_end = offset + record_len,
            }
            self.report.stored_bytes += record_len;
            self.tell(before + offset + record_len);
            let known = self.memory.packs.entry(id.0).or_default();
            known.upto = good_end;
            known.damaged = known.damaged.max(damaged.len() as u64);
            if self.saved.elapsed() >= SAVE_EVERY {
                self.save();
            }
            going = self.pace(record_len);
            Ok(if going { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        });
        match walked {
            Ok(()) => {}
            Err(store::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(e) => return Err(e),
        }
        if going {
            // Bytes that files need beyond what was read: a pack that was cut, or whose end is damaged.
            let mut at = good_end;
            loop {
                let page = self.store.segments_of(id, at, PAGE)?;
                for (segment, _) in &page {
                    at = segment.offset + 1;
                    let was_there = torn || segment.offset + u64::from(segment.stored_len) > len;
                    if was_there && let Err(e) = self.store.fetch_segment(*segment) {
                        damaged.push((segment.offset, u64::from(segment.stored_len), e.to_string()));
                    }
                }
                if page.len() < PAGE {
                    break;
                }
            }
        }
        if !damaged.is_empty() && !survey.packs()?.iter().any(|(pack, _, _)| *pack == id) {
            // Deleted meanwhile: whatever was needed of it lies elsewhere.
            self.memory.packs.remove(&id.0);
            return Ok(going);
        }
        let (now, _) = host::now();
        let count = damaged.len() as u64;
        let known = self.memory.packs.entry(id.0).or_default();
        known.damaged = count;
        if going {
            let (pass, quick) = (self.memory.pass, self.options.quick);
            *known = PackMemory { verified: now, bytes: len, pass, upto: 0, quick, damaged: count };
            self.report.packs += 1;
        }
        for (offset, bytes, what) in damaged {
            let files = self.files_at(id, offset, bytes)?;
            self.damage(Damaged { pack: id.0, offset, what, files });
        }
        Ok(going)
    }

    fn damage(&mut self, damaged: Damaged) {
        log::error!(
            "scrub: pack {} offset {}: {}: {}",
            damaged.pack,
            damaged.offset,
            damaged.what,
            damaged.files.join(", ")
        );
        self.report.damaged_count += 1;
        if self.report.damaged.len() < LISTED_MAX {
            self.report.damaged.push(damaged);
        }
    }

    /// Models that segments name: both copies of priors are read, and mended where one is good; files of language models are held
    /// against what came.
    fn models(&mut self) -> Result<(), store::Error> {
        for id in self.store.models()? {
            if let Err(e) = self.store.model(id) {
                log::error!("scrub: {e}");
                self.report.damaged_count += 1;
                self.report.damaged.push(Damaged { pack: 0, offset: 0, what: e.to_string(), files: Vec::new() });
            }
        }
        if self.options.quick {
            return Ok(());
        }
        for id in store::language_names(&**self.disk)? {
            let wrong = store::verify_language(&**self.disk, id, &mut |_, _| ());
            for what in wrong.unwrap_or_else(|e| vec![e.to_string()]) {
                self.damage(Damaged { pack: 0, offset: 0, what, files: Vec::new() });
            }
        }
        Ok(())
    }

    /// Packs that files need and that are not there.
    fn missing_packs(&mut self, packs: &[(PackId, Option<crate::format::Stream>, u64)]) -> Result<(), store::Error> {
        for id in self.store.ledger().packs.keys().filter(|id| !packs.iter().any(|(pack, _, _)| pack == *id)) {
            // It may be younger than the list, or gone by now.
            let Some((segment, _)) = self.store.segments_of(*id, 0, 1)?.into_iter().next() else { continue };
            if let Err(e) = self.store.fetch_segment(segment)
                && self.store.segments_of(*id, 0, 1)?.iter().any(|(s, _)| *s == segment)
            {
                let files = self.files_at(*id, 0, u64::MAX)?;
                self.damage(Damaged { pack: id.0, offset: 0, what: e.to_string(), files });
            }
        }
        Ok(())
    }

    /// Paths of the files that need bytes of a pack now.
    fn files_at(&self, pack: PackId, offset: u64, bytes: u64) -> Result<Vec<String>, store::Error> {
        let mut inodes: Vec<Ino> = Vec::new();
        let mut at = offset;
        'search: loop {
            let page = self.store.segments_of(pack, at, PAGE)?;
            for (segment, _) in &page {
                if segment.offset >= offset.saturating_add(bytes) {
                    break 'search;
                }
                at = segment.offset + 1;
                inodes.extend(self.owners(*segment)?);
                inodes.sort();
                inodes.dedup();
            }
            if page.len() < PAGE || inodes.len() > FILES_MAX {
                break;
            }
        }
        Ok(inodes.into_iter().take(FILES_MAX).map(|ino| shown(self.store, ino)).collect())
    }

    fn owners(&self, segment: SegmentRef) -> Result<impl Iterator<Item = Ino>, store::Error> {
        Ok(self.store.owners_of(segment, FILES_MAX)?.into_iter().map(|(ino, _)| ino))
    }

    /// Staging files that have checksums. False when the scrub was stopped.
    fn staged(&mut self) -> Result<bool, store::Error> {
        let mut after = Ino(0);
        loop {
            let page = self.store.inodes(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(true) };
            after = last.ino;
            for rec in page.iter().filter(|r| r.staging.is_some_and(|s| s.sealed)) {
                let Some(staged) = rec.staging else { continue };
                let file = self.disk.open(&staging::path(rec.ino, staged.epoch), OpenMode::Read).ok();
                self.report.staged_files += 1;
                if let Err(e) = seal::check_staged(self.store, rec, file.as_deref()) {
                    // Whoever changes a file takes the seal away first.
                    let unchanged = self.store.inode(rec.ino)?.is_some_and(|r| r.staging == rec.staging);
                    if unchanged {
                        let files = vec![shown(self.store, rec.ino)];
                        self.damage(Damaged { pack: 0, offset: 0, what: e.to_string(), files });
                    }
                }
                if !self.pace(rec.size) {
                    return Ok(false);
                }
            }
        }
    }
}

/// A path of an inode, or its number.
fn shown(store: &Store, ino: Ino) -> String {
    path(store, ino).unwrap_or_else(|| format!("inode {ino}"))
}

fn path(store: &Store, ino: Ino) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT && parts.len() < DEPTH_MAX {
        let parent = store.inode(at).ok()??.parent;
        let mut after = 0;
        let name = 'search: loop {
            let page = store.dentries(parent, after, PAGE).ok()?;
            after = page.last()?.1.cookie;
            for (name, dentry) in page {
                if dentry.ino == at {
                    break 'search name;
                }
            }
        };
        parts.push(String::from_utf8_lossy(&name).into_owned());
        at = parent;
    }
    parts.reverse();
    (at == Ino::ROOT).then(|| format!("/{}", parts.join("/")))
}

/// The scrub of a volume: one at a time.
pub(super) struct Scrubbing {
    status: Mutex<ScrubStatus>,
    turn: Mutex<()>,
    /// Asks the one under way to stop.
    stop: AtomicBool,
}

impl Scrubbing {
    pub fn new(status: ScrubStatus) -> Scrubbing {
        Scrubbing { status: Mutex::new(status), turn: Mutex::new(()), stop: AtomicBool::new(false) }
    }

    pub fn status(&self) -> ScrubStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Volume {
    /// What `status` shows of scrubs.
    pub fn scrub_status(&self) -> ScrubStatus {
        self.scrubbing.status()
    }

    /// Scrubs the volume while it is in use. One that is under way is stopped; this one goes on where it was.
    ///
    /// # Blocking
    /// As `scrub`. `stop_scrub` ends it.
    pub fn scrub(&self, options: ScrubOptions) -> Result<ScrubReport, Error> {
        self.scrubbing.stop.store(true, Ordering::Release);
        let _turn = self.scrubbing.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.scrubbing.stop.store(self.closed.load(Ordering::Acquire), Ordering::Release);
        let mut told = |status: &ScrubStatus| {
            *self.scrubbing.status.lock().unwrap_or_else(PoisonError::into_inner) = status.clone();
        };
        let read_only = self.writable().is_err();
        scrub(&self.disk, &self.store, &self.library, options, read_only, &self.scrubbing.stop, &mut told)
            .map_err(Error::Store)
    }

    /// Stops a scrub; the next one goes on where it was.
    pub fn stop_scrub(&self) {
        self.scrubbing.stop.store(true, Ordering::Release);
    }
}
