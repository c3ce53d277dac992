//! From staging to segments: what is planned, coded on workers, and committed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLockWriteGuard};

use roaring::RoaringTreemap;

use super::data::{EXTENTS_PER_PAGE, coded_in, stored_share};
use super::inode::{Inode, InodeState, lock_all, locked};
use super::policy::{self, Readiness, SmallFile};
use super::sharing::{Claims, Gathered, Place, SHARED_BYTES_MIN, worth_decoding};
use super::types::{Coded, CodedSegment, CodingTask, Error, Piece};
use super::{EVERYTHING, Volume, WaitingReport, seal, similar, staging};
use crate::base::{ByteRange, Class, Generation, Ino, MethodId, PlainHash};
use crate::codec::{self, Basis, Before, Policy};
use crate::format::{Extent, InodeRecord, MetaOp, SegmentHeader};
use crate::host::{DiskFile, Seek};
use crate::store::{Content, Looks};

/// Bytes looked at to tell the class of a file.
const SAMPLE_BYTES: u64 = similar::SKETCH_BYTES;
/// Runs of data in one grid cell that are looked up; the rest of a more fragmented cell is coded with its holes.
const RUNS_LOOKED_UP_MAX: usize = 1024;
/// Files looked at in one plan, and files that wait for others like them.
const FILES_PER_PLAN_MAX: usize = 4096;
/// Plain bytes of small files among which those that are alike are put together.
const POOL_BYTES: u64 = 8 << 20;
/// Inodes looked at under one lock of the queue.
const INODES_PER_PAGE: usize = 1024;
/// Inodes finished in one transaction.
const FINISH_PER_STEP: usize = 256;
/// Files that take minutes are looked at again after this time while others like them are being coded, milliseconds.
const SLOW_PAUSE_MS: u64 = 10_000;
/// Plain bytes and number of small files among the pool that take minutes: more wait outside, and leave room for others.
const SLOW_POOL: (u64, usize) = (2 << 20, 1024);

/// A file on its way through the coder.
#[derive(Debug)]
struct Progress {
    generation: Generation,
    class: Class,
    policy: Policy,
    /// Next byte to plan.
    cursor: u64,
    /// What was before it in a stream that goes on there. After a restart in the middle of one the last segment tells it, where
    /// that was opened; else the stream is coded as it is from there on.
    before: Option<Arc<Before>>,
    /// End of the last cell that was handed out.
    planned: u64,
    /// All cells were handed out.
    exhausted: bool,
    /// Tasks handed out and not yet committed.
    outstanding: u32,
    /// A task failed or the file moved on: it starts again later.
    failed: bool,
}

#[derive(Debug, Default)]
struct Item {
    /// Where the item stands in `ready`, milliseconds; meaningless while in progress.
    ready_ms: u64,
    progress: Option<Progress>,
    /// Waits for the commit of a file with the same content.
    parked: bool,
    /// Was looked at and waits for others like it.
    pooled: bool,
    /// Was looked at, and takes minutes while others that do are being coded: not before its time.
    held_up: bool,
    attempts: u32,
    reason: Option<String>,
}

/// Bytes that one waiting file takes in memory, with its share of the tables' room.
pub(crate) const ITEM_BYTES: u64 = 320;

/// Files whose staging holds bytes to code. Derived from staging, so it survives a restart without being written.
///
/// Bounded: it is a window on the staged files, and `Volume::refill` moves it on in the order of inodes when half of it is
/// done. A file that is refused a place is found again by that walk, since the log says that it is staged.
#[derive(Debug)]
pub(crate) struct Queue {
    items: HashMap<Ino, Item>,
    /// Waiting items by the time they are looked at.
    ready: BTreeSet<(u64, Ino)>,
    /// Large files partly handed out.
    continuing: BTreeSet<Ino>,
    files_max: usize,
    /// Staged files may lie outside of the window.
    more: bool,
    /// How many, as far as is known: exact after a walk over all inodes, less exact while files come and go.
    beyond: u64,
    /// Where the walk over the inodes goes on.
    cursor: Ino,
    /// A file was refused a place since the walk began.
    refused: bool,
    /// Staged files that are to stay plain: the walk passes over them. A bit or a few bytes each.
    plain: RoaringTreemap,
    /// Content that is being coded.
    claims: Claims,
    /// Small files that were looked at, and wait for others like them.
    pool: Vec<Pooled>,
    /// Changes of attributes there had been when they were looked at.
    pool_changes: u64,
}

/// A small file that was looked at, and a segment that seems to hold its content.
type Pooled = (SmallFile, Option<Place>);

impl Queue {
    /// An empty window of `files_max` files. What is staged already is found by the first walk.
    pub fn new(files_max: usize) -> Queue {
        Queue {
            items: HashMap::new(),
            ready: BTreeSet::new(),
            continuing: BTreeSet::new(),
            files_max: files_max.max(1),
            more: true,
            beyond: 0,
            cursor: Ino(0),
            refused: false,
            plain: RoaringTreemap::new(),
            claims: Claims::default(),
            pool: Vec::new(),
            pool_changes: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.items.len() < self.files_max
    }

    /// True when it is time to look for files outside of the window.
    fn wants_more(&self) -> bool {
        self.more && self.items.len() <= self.files_max / 2
    }

    /// Gives a file a place; false when there is none.
    pub fn add(&mut self, ino: Ino, ready_ms: u64) -> bool {
        if self.items.contains_key(&ino) {
            return true;
        }
        if !self.has_room() {
            (self.more, self.refused) = (true, true);
            self.beyond += 1;
            return false;
        }
        self.items.insert(ino, Item { ready_ms, ..Item::default() });
        self.ready.insert((ready_ms, ino));
        true
    }

    /// The first `limit` files, in no order.
    pub fn some(&self, limit: usize) -> Vec<Ino> {
        self.items.keys().take(limit).copied().collect()
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.items.len() as u64 * ITEM_BYTES
    }

    pub fn knows(&self, ino: Ino) -> bool {
        self.items.contains_key(&ino)
    }

    pub fn forget(&mut self, ino: Ino) {
        if let Some(item) = self.items.remove(&ino) {
            self.ready.remove(&(item.ready_ms, ino));
            self.continuing.remove(&ino);
        }
    }

    /// Files that wait, in the window and outside.
    pub fn len(&self) -> u64 {
        self.items.len() as u64 + if self.more { self.beyond } else { 0 }
    }

    /// A file is left as it is until its attributes change, or it is written again.
    fn stays_plain(&mut self, ino: Ino) {
        self.forget(ino);
        self.plain.insert(ino.0);
    }

    pub fn plain_no_more(&mut self, ino: Ino) {
        self.plain.remove(ino.0);
    }

    /// Staged files that are to stay plain, as far as they were met.
    pub fn plain_files(&self) -> u64 {
        self.plain.len()
    }

    /// Has all staged files looked for anew: some that were to stay plain may be coded now.
    pub fn look_again(&mut self) {
        self.plain.clear();
        (self.more, self.refused) = (true, true);
        // At least one: a queue that is empty looks for no more.
        self.beyond = self.beyond.max(1);
    }

    /// Files in the window.
    pub fn window(&self) -> u64 {
        self.items.len() as u64
    }

    /// Files that failed, with one reason.
    pub fn stuck(&self) -> (u64, Option<String>) {
        let stuck = self.items.values().filter(|i| i.attempts > 0);
        (stuck.clone().count() as u64, stuck.filter_map(|i| i.reason.clone()).next())
    }

    /// Files that failed are due now instead of after their pause: what held them up may be over. They are no more fresh
    /// than before, and fail for as long as they did.
    pub fn try_failed_again(&mut self, now_ms: u64) {
        for (ino, item) in self.items.iter_mut().filter(|(_, item)| item.attempts > 0) {
            if self.ready.remove(&(item.ready_ms, *ino)) {
                item.ready_ms = now_ms;
                self.ready.insert((now_ms, *ino));
            }
        }
    }

    /// The next waiting file that is due. It leaves `ready`. Draining takes files before their time, but not those that
    /// failed: they keep their pause.
    fn pop(&mut self, now_ms: u64, drain: bool) -> Option<Ino> {
        let fresh = |ino: &Ino| self.items.get(ino).is_some_and(|i| i.attempts == 0 && !i.held_up);
        let next = match self.ready.first() {
            Some((at, ino)) if *at <= now_ms => (*at, *ino),
            _ if drain => *self.ready.iter().find(|(_, ino)| fresh(ino))?,
            _ => return None,
        };
        self.ready.remove(&next);
        self.items.get_mut(&next.1).into_iter().for_each(|item| item.held_up = false);
        Some(next.1)
    }

    /// Puts a file back until others that take minutes are coded.
    fn hold_up(&mut self, ino: Ino, until_ms: u64) {
        self.wait(ino, until_ms);
        self.items.get_mut(&ino).into_iter().for_each(|item| item.held_up = true);
    }

    /// Puts a file back to be looked at later.
    fn wait(&mut self, ino: Ino, until_ms: u64) {
        if let Some(item) = self.items.get_mut(&ino) {
            self.ready.remove(&(item.ready_ms, ino));
            item.progress = None;
            item.ready_ms = until_ms;
            self.ready.insert((until_ms, ino));
            self.continuing.remove(&ino);
        }
    }

    /// What a file of the window waits for; `None` for one outside of it.
    pub fn about(&self, ino: Ino, now_ms: u64) -> Option<WaitingReport> {
        let item = self.items.get(&ino)?;
        let why = match &item.reason {
            _ if item.progress.is_some() => "it is being coded".to_string(),
            _ if item.pooled => "it is put beside others like it".to_string(),
            _ if item.parked => "another file with the same content is being coded".to_string(),
            _ if item.held_up => "others that take minutes are being coded".to_string(),
            Some(why) => format!("it could not be coded: {why}"),
            None if item.ready_ms > now_ms => "it was changed a moment ago".to_string(),
            None => "it is next in line".to_string(),
        };
        let waits = self.ready.contains(&(item.ready_ms, ino));
        let seconds = waits.then(|| item.ready_ms.saturating_sub(now_ms).div_ceil(1000)).filter(|seconds| *seconds > 0);
        Some(WaitingReport { why, seconds })
    }

    /// Has a file that was taken out wait for the commit of another with the same content. False when there is none: then
    /// the caller has claimed the content, and codes it.
    fn park(&mut self, ino: Ino, hash: &PlainHash) -> bool {
        if self.claims.claim(*hash) || !self.claims.park(hash, ino) {
            return false;
        }
        if let Some(item) = self.items.get_mut(&ino) {
            item.parked = true;
        }
        true
    }

    /// Ends claims to contents: files that waited for them are looked at again.
    fn release(&mut self, claims: &[PlainHash], now_ms: u64) {
        for ino in claims.iter().flat_map(|hash| self.claims.release(hash)).collect::<Vec<_>>() {
            if let Some(item) = self.items.get_mut(&ino).filter(|item| item.parked) {
                item.parked = false;
                self.wait(ino, now_ms);
            }
        }
    }

    /// Notes a failure and puts the file back for a later try.
    fn fail(&mut self, ino: Ino, why: String, now_ms: u64) {
        let Some(item) = self.items.get_mut(&ino) else { return };
        item.attempts += 1;
        item.reason = Some(why);
        let pause = policy::backoff_ms(item.attempts);
        self.wait(ino, now_ms + pause);
    }

    /// Ends a task of a file. True when it was the last and all went well: the file is wholly coded.
    fn task_done(&mut self, ino: Ino, failure: Option<String>, now_ms: u64, quiet_ms: u64) -> bool {
        let Some(item) = self.items.get_mut(&ino) else { return false };
        let Some(progress) = &mut item.progress else { return false };
        progress.outstanding = progress.outstanding.saturating_sub(1);
        if let Some(why) = failure {
            progress.failed = true;
            if why.is_empty() {
                // The file changed meanwhile: no failure of anybody.
                item.reason = None;
            } else {
                item.attempts += 1;
                item.reason = Some(why);
            }
        }
        if progress.outstanding > 0 || !(progress.exhausted || progress.failed) {
            return false;
        }
        if progress.failed {
            let pause = if item.reason.is_some() { policy::backoff_ms(item.attempts) } else { quiet_ms };
            self.wait(ino, now_ms + pause);
            return false;
        }
        true
    }
}

impl Queue {
    /// A task that was counted as done is not in the log after all: the file is coded again later, and is not taken for
    /// wholly coded when its other tasks end.
    fn undo(&mut self, ino: Ino, why: &str, now_ms: u64) {
        let Some(item) = self.items.get_mut(&ino) else { return };
        item.attempts += 1;
        item.reason = Some(why.to_string());
        let pause = policy::backoff_ms(item.attempts);
        match &mut item.progress {
            Some(progress) if progress.outstanding > 0 => progress.failed = true,
            _ => self.wait(ino, now_ms + pause),
        }
    }
}

/// What one look at a file found.
enum Found {
    /// Not to be coded any more: removed, or nothing staged.
    Gone,
    /// Look again at this time.
    Later(u64),
    /// Staging holds nothing that is not coded: it can go.
    Clean,
    /// To stay plain, by attributes that were looked up when there had been so many changes of them.
    Plain(u64),
    Small(SmallFile),
    Large(Progress),
}

impl Found {
    fn takes_minutes(&self) -> bool {
        match self {
            Found::Small(file) => takes_minutes(file.class, &file.policy),
            Found::Large(progress) => takes_minutes(progress.class, &progress.policy),
            Found::Gone | Found::Later(_) | Found::Clean | Found::Plain(_) => false,
        }
    }
}

/// True where coding a segment may take minutes.
pub(super) fn takes_minutes(class: Class, policy: &Policy) -> bool {
    policy.tries(MethodId::Language, class)
}

/// Tasks that may take minutes.
fn slow_in(tasks: &[CodingTask]) -> usize {
    tasks.iter().filter(|task| task.takes_minutes()).count()
}

/// Segments between the last that was opened and staged bytes that are looked through for what those go on with.
const CLOSED_BEHIND_MAX: usize = 16;

/// Bytes of a large file that are coded as one segment.
struct Cell {
    pieces: Vec<Piece>,
    /// Bytes of all of them.
    len: u64,
    /// Where it is not that of the file.
    class: Option<Class>,
    /// Where to go on.
    next: u64,
    /// What is before that in a stream.
    next_before: Option<Arc<Before>>,
    /// It goes on with what was before the cursor.
    goes_on: bool,
    /// Hash of its content, where it is looked for in the volume.
    hash: Option<PlainHash>,
    looks: similar::Sketch,
}

/// What a commit does to one inode, worked out under its lock.
#[derive(Default)]
struct Swap {
    extents: Vec<Extent>,
    finish: bool,
}

impl Volume {
    /// Up to `limit` segments worth coding now: of files that are closed and quiet. `drain` ignores the quiet time.
    /// A segment handed out is not handed out again until `commit_coded` is called with it.
    ///
    /// # Blocking
    /// Disk: staging is looked at, and files found wholly coded are finished.
    pub fn plan_coding(&self, limit: usize, drain: bool) -> Vec<CodingTask> {
        self.plan_coding_beside(limit, limit, drain)
    }

    /// As `plan_coding`, with at most `slow_limit` segments that take minutes; files of which others would be wait.
    pub fn plan_coding_beside(&self, limit: usize, slow_limit: usize, drain: bool) -> Vec<CodingTask> {
        if self.writable().is_err() {
            return Vec::new();
        }
        // Nothing waits: then space is no reason for anything.
        let nothing = self.counted.load(Ordering::Acquire) && self.queue_lock().len() == 0;
        let wanted = if nothing { 0 } else { limit };
        let limit = self.room_to_code(wanted);
        if limit == 0 {
            return Vec::new();
        }
        self.refill();
        let now_ms = self.now_ms();
        let mut tasks = Vec::new();
        let mut pool = self.take_pool();
        let mut clean = Vec::new();
        let mut later = Vec::new();

        let continuing: Vec<Ino> = self.queue_lock().continuing.iter().copied().collect();
        let limits = (limit, slow_limit);
        for ino in continuing {
            self.plan_cells(ino, limits, &mut tasks);
        }
        let is_slow = |file: &SmallFile| takes_minutes(file.class, &file.policy);
        let mut pool_bytes: u64 = pool.iter().filter(|(f, _)| !is_slow(f)).map(|(f, _)| f.bytes).sum();
        let slow = pool.iter().filter(|(f, _)| is_slow(f));
        let mut slow_pool = (slow.clone().map(|(f, _)| f.bytes).sum::<u64>(), slow.count());
        let mut held_up = Vec::new();
        let (mut looked_at, mut all) = (0, false);
        while tasks.len() < limit
            && pool_bytes < POOL_BYTES
            && pool.len() < FILES_PER_PLAN_MAX
            && looked_at < FILES_PER_PLAN_MAX
        {
            let Some(ino) = self.queue_lock().pop(now_ms, drain) else {
                all = true;
                break;
            };
            looked_at += 1;
            match self.look_at(ino, now_ms, drain) {
                Ok(found)
                    if found.takes_minutes()
                        && (slow_in(&tasks) >= slow_limit
                            || slow_pool.0 >= SLOW_POOL.0
                            || slow_pool.1 >= SLOW_POOL.1) =>
                {
                    held_up.push(ino);
                }
                Ok(Found::Gone) => self.drop_from_queue(ino),
                Ok(Found::Later(at)) => later.push((ino, at)),
                Ok(Found::Clean) => clean.push(ino),
                Ok(Found::Plain(changes)) => self.leave_plain(ino, changes),
                Ok(Found::Small(mut file)) => {
                    let place = file.hash.as_ref().and_then(|hash| self.look_for(hash, file.bytes));
                    if place.is_some() || !file.hash.is_some_and(|hash| self.queue_lock().park(ino, &hash)) {
                        if place.is_none() && file.hash.is_some() {
                            file.reference = self.alike(&file.sketch, file.bytes);
                        }
                        if is_slow(&file) {
                            slow_pool = (slow_pool.0 + file.bytes, slow_pool.1 + 1);
                        } else {
                            pool_bytes += file.bytes;
                        }
                        pool.push((file, place.map(|(at, used)| (at.segment, used.segment_bytes))));
                    }
                }
                Ok(Found::Large(progress)) => {
                    {
                        let mut queue = self.queue_lock();
                        if let Some(item) = queue.items.get_mut(&ino) {
                            item.progress = Some(progress);
                            queue.continuing.insert(ino);
                        }
                    }
                    self.plan_cells(ino, limits, &mut tasks);
                }
                Err(e) => {
                    self.note_staged_damage(&e);
                    self.queue_lock().fail(ino, e.to_string(), now_ms);
                }
            }
        }
        {
            let mut queue = self.queue_lock();
            for (ino, at) in later {
                queue.wait(ino, at);
            }
            for ino in held_up {
                queue.hold_up(ino, now_ms + SLOW_PAUSE_MS);
            }
        }
        self.plan_bundles(pool, all, limits, &mut tasks);
        if !clean.is_empty()
            && let Err(e) = self.finish_clean(&clean)
        {
            log::warn!("cannot finish files that are coded: {e}");
            let mut queue = self.queue_lock();
            for ino in clean {
                // Those that were finished are not in the queue any more.
                queue.undo(ino, &e.to_string(), now_ms);
            }
        }
        tasks
    }

    /// Small files that were looked at by earlier plans and not handed out; without those that are gone. When attributes have
    /// changed since, they are looked at again.
    fn take_pool(&self) -> Vec<Pooled> {
        let changes = self.wish_changes();
        let mut queue = self.queue_lock();
        let stale = std::mem::replace(&mut queue.pool_changes, changes) != changes;
        let pool = std::mem::take(&mut queue.pool);
        let (here, gone): (Vec<Pooled>, Vec<Pooled>) = pool.into_iter().partition(|(file, _)| {
            queue.items.get_mut(&file.ino).is_some_and(|item| std::mem::replace(&mut item.pooled, false))
        });
        let claims: Vec<PlainHash> =
            gone.into_iter().filter(|(_, place)| place.is_none()).filter_map(|(file, _)| file.hash).collect();
        queue.release(&claims, self.now_ms());
        if stale {
            for (file, place) in here {
                let claims: Vec<PlainHash> = file.hash.into_iter().filter(|_| place.is_none()).collect();
                queue.release(&claims, self.now_ms());
                queue.wait(file.ino, self.now_ms());
            }
            return Vec::new();
        }
        here
    }

    /// Puts small files together and hands bundles out until there are `limit` tasks. The others wait for the next plan, so
    /// that what comes is put beside what is like it; with `all` nothing more is there to come.
    fn plan_bundles(
        &self,
        pool: Vec<Pooled>,
        all: bool,
        (limit, slow_limit): (usize, usize),
        tasks: &mut Vec<CodingTask>,
    ) {
        let (mut known, mut small): (Vec<_>, Vec<_>) = pool.into_iter().partition(|(_, place)| place.is_some());
        // Side by side where they lie in one segment, so that it is decoded once; few of them from a large one are coded.
        known.sort_by_key(|(file, place)| (file.class, file.policy, *place, file.ino));
        let mut shared: Vec<SmallFile> = Vec::new();
        for group in known.chunk_by(|a, b| a.1 == b.1) {
            let bytes = group.iter().map(|(file, _)| file.bytes).sum();
            let worth = group.iter().all(|(_, place)| place.is_none_or(|(_, of)| worth_decoding(bytes, u64::from(of))));
            if worth || !all {
                shared.extend(group.iter().map(|(file, _)| file.clone()));
            } else {
                // Their content is known: nobody waits for it.
                small.extend(group.iter().map(|(file, _)| (SmallFile { hash: None, ..file.clone() }, None)));
            }
        }
        let places: HashMap<Ino, Place> =
            known.iter().filter_map(|(file, place)| Some((file.ino, (*place)?))).collect();
        let mut small: Vec<SmallFile> = small.into_iter().map(|(file, _)| file).collect();
        let referring = refer(&mut small, all);
        similar::order(&mut small);
        let mut bundles = policy::bundle(shared, SmallFile::about, codec::cut);
        for group in referring {
            let beside = group.first().and_then(|file| file.reference).map_or(0, |(_, bytes)| bytes);
            let cut =
                |class, policy: &Policy| codec::cut_beside(class, policy, beside).unwrap_or(codec::cut(class, policy));
            bundles.extend(policy::bundle(group, SmallFile::about, cut));
        }
        bundles.extend(policy::bundle(small, SmallFile::about, codec::cut));
        // Full ones first while more may come, and the oldest first.
        bundles.sort_by_key(|b| (!all && !b.full, b.files.iter().map(|f| f.ino).min()));
        let mut queue = self.queue_lock();
        for policy::Bundle { class, policy, files, .. } in bundles {
            // Those of one bundle have one, or none.
            let reference = files.first().and_then(|file| file.reference);
            let held_up = takes_minutes(class, &policy) && slow_in(tasks) >= slow_limit;
            if tasks.len() >= limit || held_up {
                for file in files {
                    if let Some(item) = queue.items.get_mut(&file.ino) {
                        item.pooled = true;
                    }
                    let place = places.get(&file.ino).copied().filter(|_| file.hash.is_some());
                    queue.pool.push((file, place));
                }
                continue;
            }
            let known = files.iter().all(|file| file.hash.is_some() && places.contains_key(&file.ino));
            let claims = if known { Vec::new() } else { files.iter().filter_map(|file| file.hash).collect() };
            let pieces: Vec<Piece> = files.into_iter().flat_map(|file| file.pieces).collect();
            for piece in &pieces {
                if let Some(item) = queue.items.get_mut(&piece.ino)
                    && item.progress.is_none()
                {
                    item.progress = Some(Progress {
                        generation: piece.generation,
                        class,
                        policy,
                        cursor: u64::MAX,
                        before: None,
                        planned: 0,
                        exhausted: true,
                        outstanding: 1,
                        failed: false,
                    });
                }
            }
            tasks.push(CodingTask { class, policy, pieces, claims, known, reference, before: None });
        }
    }

    /// Moves the window of the queue on, when half of it is done and staged files lie outside. The first walk goes over all
    /// inodes and counts; later ones end when the window is full.
    ///
    /// # Blocking
    /// Reads of the index, for as many inodes as lie between the files found: about a second for a million.
    pub(super) fn refill(&self) {
        let _one = self.refilling.lock().unwrap_or_else(|e| e.into_inner());
        let (start, count_all) = {
            let mut queue = self.queue_lock();
            if !queue.wants_more() {
                return;
            }
            queue.refused = false;
            if !self.counted.load(Ordering::Acquire) {
                queue.beyond = 0;
            }
            (queue.cursor, !self.counted.load(Ordering::Acquire))
        };
        let (mut after, mut wrapped) = (start, false);
        let mut full_at = None;
        loop {
            if self.hurried.load(Ordering::Relaxed) {
                return;
            }
            let page = match self.store.inodes(after, INODES_PER_PAGE) {
                Ok(page) => page,
                Err(e) => {
                    log::warn!("staged files are looked for later: {e}");
                    return;
                }
            };
            let mut queue = self.queue_lock();
            for rec in &page {
                if wrapped && rec.ino > start {
                    break;
                }
                if rec.staging.is_none() || queue.items.contains_key(&rec.ino) || queue.plain.contains(rec.ino.0) {
                    continue;
                }
                if queue.has_room() {
                    queue.add(rec.ino, 0);
                    queue.beyond = queue.beyond.saturating_sub(u64::from(!count_all));
                } else if count_all {
                    full_at.get_or_insert(Ino(rec.ino.0 - 1));
                    queue.beyond += 1;
                } else {
                    queue.cursor = Ino(rec.ino.0 - 1);
                    return;
                }
            }
            let ended = wrapped && page.iter().any(|rec| rec.ino > start);
            match page.last() {
                Some(last) if !ended => after = last.ino,
                // From where it began it has been everywhere when it comes to the end.
                None if !wrapped && start > Ino(0) => (after, wrapped) = (Ino(0), true),
                Some(_) | None => {
                    self.counted.store(true, Ordering::Release);
                    queue.cursor = full_at.unwrap_or_default();
                    if full_at.is_none() {
                        queue.more = queue.refused;
                        queue.beyond = u64::from(queue.refused);
                    }
                    return;
                }
            }
        }
    }

    /// The file needs no coding; its next write queues it again.
    fn drop_from_queue(&self, ino: Ino) {
        match self.inode(ino) {
            Ok(inode) => {
                let mut state = inode.write();
                state.queued = false;
                self.queue_lock().forget(ino);
            }
            Err(_) => self.queue_lock().forget(ino),
        }
    }

    /// The file is to stay plain: it leaves the queue. Its next write, or a change of attributes, queues it again.
    fn leave_plain(&self, ino: Ino, changes: u64) {
        let Ok(inode) = self.inode(ino) else { return self.queue_lock().forget(ino) };
        let mut state = inode.write();
        let mut queue = self.queue_lock();
        if self.wish_changes() == changes {
            queue.stays_plain(ino);
            state.queued = false;
        } else {
            queue.wait(ino, self.now_ms());
        }
    }

    /// Looks at one waiting file.
    fn look_at(&self, ino: Ino, now_ms: u64, drain: bool) -> Result<Found, Error> {
        let inode = match self.inode(ino) {
            Ok(inode) => inode,
            Err(Error::NotFound) => return Ok(Found::Gone),
            Err(e) => return Err(e),
        };
        let state = inode.read();
        if state.removed || state.rec.staging.is_none() {
            return Ok(Found::Gone);
        }
        match policy::readiness(state.has_writers(), state.changed_ms, self.adjustable().quiet_ms, now_ms, drain) {
            Readiness::Now => {}
            Readiness::At(at) => return Ok(Found::Later(at)),
        }
        let changes = self.wish_changes();
        let wishes = self.wishes_of(ino, state.rec.parent)?;
        if wishes.stays_plain() {
            return Ok(Found::Plain(changes));
        }
        let file = staging::open(&*self.disk, &state)?;
        if staging::is_shared(file.as_deref()) {
            return Ok(Found::Later(policy::after_writers(now_ms, self.adjustable().quiet_ms)));
        }
        let Some(first) = self.first_staged(&state, file.as_deref())? else { return Ok(Found::Clean) };
        let Some(file) = file else { return Ok(Found::Clean) };
        let mut sample = vec![0u8; SAMPLE_BYTES.min(state.rec.size - first) as usize];
        staging::read(&*file, ino, &mut sample, first)?;
        let class = match codec::classify(&sample) {
            Class::Incompressible | Class::Binary | Class::Unknown if self.opened_before(ino, first).is_some() => {
                Class::Container
            }
            class => class,
        };
        let said = self.said_of(ino, state.rec.parent, Some(class), state.rec.mtime)?;
        if wishes.stays_plain_by(&said) {
            return Ok(Found::Plain(changes));
        }
        let policy = wishes.policy(&said, &self.policy());
        let segment_bytes = codec::cut(class, &policy);
        let generation = state.rec.generation;
        if policy::is_small(state.rec.size, segment_bytes) {
            let whole = ByteRange { start: 0, end: state.rec.size };
            let runs = self.runs(&state, &*file, whole)?;
            let bytes = runs.iter().map(ByteRange::len).sum();
            let hash = match runs.as_slice() {
                // What is coded in part is decoded first; it is looked for then.
                [run] if !state.rec.coded => self.hash_staged(&*file, ino, *run, first, &sample)?,
                _ => None,
            };
            let pieces = runs.into_iter().map(|range| Piece { ino, generation, range }).collect();
            let sketch = similar::sketch(&sample);
            return Ok(Found::Small(SmallFile { ino, class, policy, pieces, bytes, hash, sketch, reference: None }));
        }
        Ok(Found::Large(Progress {
            generation,
            class,
            policy,
            cursor: first,
            before: None,
            planned: 0,
            exhausted: false,
            outstanding: 0,
            failed: false,
        }))
    }

    /// The last segment before staged bytes of a file that was opened, and those between, in order; none where they are many.
    fn opened_before(&self, ino: Ino, mut at: u64) -> Option<Vec<Extent>> {
        let mut found = Vec::new();
        while found.len() <= CLOSED_BEHIND_MAX {
            let last = self.store.extents(ino, ByteRange::at(at.checked_sub(1)?, 1), 1).ok()?.pop()?;
            if last.file_offset + u64::from(last.len) != at || last.len != last.segment_bytes {
                return None;
            }
            at = last.file_offset;
            let is_opened = last.method == MethodId::Opened as u16;
            found.push(last);
            if is_opened {
                found.reverse();
                return Some(found);
            }
        }
        None
    }

    /// What staged bytes go on with where coding was broken off in the middle of a stream, by what the segments before them tell.
    fn resumed(&self, ino: Ino, at: u64) -> Option<Arc<Before>> {
        let found = self.opened_before(ino, at)?;
        let (opened, closed) = found.split_first()?;
        let (header, payload) = self.store.fetch_segment(opened.segment).ok()?;
        let first = codec::before_behind(&header.coding, &payload)?;
        let before = closed.iter().try_fold(first, |before, extent| {
            let plain = self.plain(ino, extent.file_offset, extent.segment).ok()?;
            codec::before_behind_closed(&plain, &before)
        });
        before.map(Arc::new)
    }

    /// The hash of staged bytes, of which the first are there in `sample` from `first` on.
    fn hash_staged(
        &self,
        file: &dyn DiskFile,
        ino: Ino,
        run: ByteRange,
        first: u64,
        sample: &[u8],
    ) -> Result<Option<PlainHash>, Error> {
        if run.len() < SHARED_BYTES_MIN || !self.options.sharing {
            return Ok(None);
        }
        if run.start == first && run.len() <= sample.len() as u64 {
            return Ok(self.content_hash(sample.get(..run.len() as usize).unwrap_or_default()));
        }
        let mut bytes = vec![0u8; run.len() as usize];
        staging::read(file, ino, &mut bytes, run.start)?;
        Ok(self.content_hash(&bytes))
    }

    /// Hands out cells of a large file in progress until there are `limit` tasks.
    fn plan_cells(&self, ino: Ino, (limit, slow_limit): (usize, usize), tasks: &mut Vec<CodingTask>) {
        loop {
            let (cursor, before, planned, generation, class, policy) = {
                let queue = self.queue_lock();
                let Some(p) = queue.items.get(&ino).and_then(|i| i.progress.as_ref()) else { return };
                let held_up = takes_minutes(p.class, &p.policy) && slow_in(tasks) >= slow_limit;
                if p.exhausted || p.failed || tasks.len() >= limit || held_up {
                    return;
                }
                (p.cursor, p.before.clone(), p.planned, p.generation, p.class, p.policy)
            };
            let is_first = planned == 0 && before.is_none() && class == Class::Container;
            let before = before.or_else(|| is_first.then(|| self.resumed(ino, cursor)).flatten());
            let cell = self.next_cell(ino, (cursor, before.as_deref()), planned, generation, (class, &policy));
            let known =
                matches!(&cell, Ok(Some(Cell { hash: Some(hash), len, .. })) if self.look_for(hash, *len).is_some());
            let reference = match &cell {
                Ok(Some(cell)) if !known && cell.hash.is_some() => self.alike(&cell.looks, cell.len),
                Ok(_) | Err(_) => None,
            };
            let mut queue = self.queue_lock();
            if let Ok(Some(Cell { hash: Some(hash), .. })) = &cell
                && !known
                && !queue.claims.claim(*hash)
            {
                // Another codes the same: it is found at the next look, after that is committed.
                return;
            }
            let Some(item) = queue.items.get_mut(&ino) else { return };
            let Some(progress) = &mut item.progress else { return };
            match cell {
                Ok(Some(Cell { next, next_before, goes_on, pieces, class: other, hash, .. })) => {
                    (progress.cursor, progress.planned, progress.before) = (next, next, next_before);
                    progress.outstanding += 1;
                    let claims = hash.into_iter().filter(|_| !known).collect();
                    let before = before.filter(|_| goes_on);
                    let class = other.unwrap_or(class);
                    tasks.push(CodingTask { class, policy, pieces, claims, known, reference, before });
                }
                Ok(None) => {
                    progress.exhausted = true;
                    let idle = progress.outstanding == 0;
                    queue.continuing.remove(&ino);
                    if idle {
                        queue.wait(ino, self.now_ms());
                    }
                    return;
                }
                Err(e) => {
                    progress.failed = true;
                    let idle = progress.outstanding == 0;
                    queue.continuing.remove(&ino);
                    if !matches!(e, Error::Invalid(MOVED))
                        && let Some(item) = queue.items.get_mut(&ino)
                    {
                        item.attempts += 1;
                        item.reason = Some(e.to_string());
                    }
                    if idle {
                        queue.wait(ino, self.now_ms() + self.adjustable().quiet_ms);
                    }
                    return;
                }
            }
        }
    }

    /// The next cell at or after `cursor` with bytes that are not coded. Where much is not, its content says where it ends;
    /// else it is one of a grid, so that what was overwritten here and there is put together again. Nothing before `planned`
    /// is handed out twice.
    fn next_cell(
        &self,
        ino: Ino,
        (cursor, before): (u64, Option<&Before>),
        planned: u64,
        generation: Generation,
        (class, policy): (Class, &Policy),
    ) -> Result<Option<Cell>, Error> {
        let inode = self.inode(ino)?;
        let state = inode.read();
        if state.removed || state.rec.generation != generation {
            return Err(Error::Invalid(MOVED));
        }
        let Some(file) = staging::open(&*self.disk, &state)? else { return Ok(None) };
        let Some(at) = self.next_staged(&state, &*file, cursor)? else { return Ok(None) };
        let bounds = codec::bounds(class, policy);
        let before = before.filter(|_| at == cursor);
        if let Some(run) = self.fresh_run(&state, &*file, (at, before.is_some()), bounds)? {
            let len = run.len().min(u64::from(bounds.max));
            let mut bytes = vec![0u8; len as usize];
            staging::read(&*file, ino, &mut bytes, at)?;
            let cut = codec::first_cut(&bytes, bounds, run.len(), (before, policy));
            bytes.truncate(cut.len);
            let len = bytes.len() as u64;
            let range = ByteRange::at(at, len);
            let (hash, looks) = (self.content_hash(&bytes), self.looks_of(&bytes));
            return Ok(Some(Cell {
                next: range.end,
                next_before: cut.before.map(Arc::new),
                goes_on: before.is_some(),
                pieces: vec![Piece { ino, generation, range }],
                len,
                class: cut.class,
                hash,
                looks,
            }));
        }
        let grid = u64::from(codec::cut(class, policy));
        let start = at / grid * grid;
        let cell = ByteRange { start: start.max(planned.min(at)), end: (start + grid).min(state.rec.size) };
        let pieces: Vec<Piece> =
            self.runs(&state, &*file, cell)?.into_iter().map(|range| Piece { ino, generation, range }).collect();
        let len = pieces.iter().map(|p| p.range.len()).sum();
        let (hash, looks, next_before) = (None, similar::Sketch::default(), None);
        Ok(Some(Cell { next: cell.end, next_before, goes_on: false, pieces, len, class: None, hash, looks }))
    }

    /// The staged bytes from `at` on, where none of them was coded before and they are so many, or the last of the file and
    /// not a scrap behind a short segment, that what surrounds them is left as it is. What goes on with a stream is no scrap.
    fn fresh_run(
        &self,
        state: &InodeState,
        file: &dyn DiskFile,
        (at, goes_on): (u64, bool),
        bounds: codec::Bounds,
    ) -> Result<Option<ByteRange>, Error> {
        let (ino, size) = (state.rec.ino, state.rec.size);
        let extent = |start: u64, end: u64| -> Result<Option<Extent>, Error> {
            let range = ByteRange { start, end };
            if !state.rec.coded || range.is_empty() {
                return Ok(None);
            }
            Ok(self.store.extents(ino, range, 1).map_err(Error::Store)?.into_iter().next())
        };
        let hole = file.seek(at, Seek::Hole).map_err(|e| staging::io_error("seek in", ino, e))?;
        let next = extent(at, size)?.map_or(size, |e| e.file_offset);
        let run = ByteRange { start: at, end: hole.unwrap_or(size).min(size).min(next) };
        if run.is_empty() {
            // What was coded here was overwritten.
            return Ok(None);
        }
        if run.len() >= u64::from(bounds.max) {
            return Ok(Some(run));
        }
        let short = extent(at.saturating_sub(1), at)?.is_some_and(|before| before.len < bounds.shortest());
        Ok((run.end == size && (goes_on || !short)).then_some(run))
    }

    /// First byte of a file that staging holds and no extent does. Fails where a sealed file has lost bytes, which must not
    /// pass for a hole.
    fn first_staged(&self, state: &InodeState, file: Option<&dyn DiskFile>) -> Result<Option<u64>, Error> {
        seal::check_holes(&self.store, &state.rec, file, EVERYTHING)?;
        match file {
            Some(file) => self.next_staged(state, file, 0),
            None => Ok(None),
        }
    }

    /// First byte at or after `from` that staging holds and no extent does.
    fn next_staged(&self, state: &InodeState, file: &dyn DiskFile, from: u64) -> Result<Option<u64>, Error> {
        let ino = state.rec.ino;
        let mut at = from;
        loop {
            let Some(data) = file.seek(at, Seek::Data).map_err(|e| staging::io_error("seek in", ino, e))? else {
                return Ok(None);
            };
            let data = data.max(at);
            if data >= state.rec.size {
                return Ok(None);
            }
            let extent = if state.rec.coded {
                self.store.extents(ino, ByteRange::at(data, 1), 1).map_err(Error::Store)?.into_iter().next()
            } else {
                None
            };
            match extent {
                None => return Ok(Some(data)),
                Some(e) => {
                    let rest = ByteRange { start: data, end: e.file_offset + u64::from(e.len) };
                    match state.unlogged.within(rest).first() {
                        Some(r) => return Ok(Some(r.start)),
                        None => at = rest.end,
                    }
                }
            }
        }
    }

    /// Runs of data, staged or coded, in a range. Holes between them stay holes.
    fn runs(&self, state: &InodeState, file: &dyn DiskFile, range: ByteRange) -> Result<Vec<ByteRange>, Error> {
        let mut runs = staging::data_runs(file, state.rec.ino, range, RUNS_LOOKED_UP_MAX)?;
        if runs.len() >= RUNS_LOOKED_UP_MAX {
            runs.push(range);
        }
        runs.extend(coded_in(self, state, range)?.iter().map(|e| ByteRange::at(e.file_offset, u64::from(e.len))));
        Ok(policy::merge_runs(runs))
    }

    /// Collects the plain bytes, codes, decodes, compares. For a worker thread; never panics.
    pub fn code(&self, task: CodingTask) -> CodedSegment {
        let slow = task.takes_minutes();
        let _begun = self.counts.at_work.begin(&task);
        let CodingTask { class, policy, pieces, claims, known, reference, before } = task;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.code_pieces((class, &policy), &pieces, known, (reference, before.as_deref()))
        }))
        .unwrap_or(Err(Error::Invalid("the coder failed on this data; the bytes stay in staging")));
        if let Err(e) = &outcome {
            self.note_staged_damage(e);
        }
        CodedSegment { pieces, claims, slow, outcome }
    }

    fn code_pieces(
        &self,
        kind: (Class, &Policy),
        pieces: &[Piece],
        known: bool,
        basis: (Option<Place>, Option<&Before>),
    ) -> Result<Coded, Error> {
        let mut gathered = Vec::with_capacity(pieces.len());
        let mut last = None;
        for piece in pieces {
            let (mut buf, coded) = {
                // The place of a file that is gone or changed stays empty; commit skips it by its generation.
                let inode = match self.inode(piece.ino) {
                    Err(Error::NotFound) => continue,
                    other => other?,
                };
                let state = inode.read();
                if state.removed || state.rec.generation != piece.generation {
                    continue;
                }
                self.gather(&state, piece.range)?
            };
            self.fill(piece.ino, &mut buf, &coded, &mut last)?;
            gathered.push(Gathered { ino: piece.ino, file_offset: piece.range.start, bytes: buf });
        }
        self.share_or_code(kind, gathered, known, basis)
    }

    /// Codes the bytes of a segment, with what the volume has learned, and from the bytes of another where that pays; `before`
    /// says what was before it in a stream that it goes on with.
    pub(super) fn encode(
        &self,
        raw: &[u8],
        class: Class,
        policy: &Policy,
        reference: Option<&[u8]>,
        before: Option<&Before>,
    ) -> Result<codec::Encoded, Error> {
        codec::encode(raw, class, policy, Basis { reference, before, ..Basis::of(&self.library) })
            .map_err(|e| Error::Io { what: "coding".into(), source: std::io::Error::other(e.to_string()) })
    }

    /// Appends, syncs, swaps extents of all inodes whose generation has not moved, syncs, frees staging.
    ///
    /// # Durability
    /// What was swapped is on disk at return.
    pub fn commit_coded(&self, segments: Vec<CodedSegment>) -> Result<(), Error> {
        // Nothing names these segments before the swap: their pack must not be given back in between.
        let _commit = self.commits.read().unwrap_or_else(|e| e.into_inner());
        let mut appended: Vec<(Vec<Piece>, Result<Placed, String>)> = Vec::with_capacity(segments.len());
        let mut claims = Vec::new();
        let (mut failure, mut refusal) = (None, None);
        for CodedSegment { pieces, claims: held, outcome, .. } in segments {
            claims.extend(held);
            let outcome = match outcome {
                Err(Error::Invalid(MOVED)) => Err(String::new()),
                Err(e) => Err(e.to_string()),
                Ok(_) if self.writable().is_err() => Err("the volume is read-only".to_string()),
                Ok(coded) => {
                    match self.place(coded) {
                        Ok(placed) => Ok(placed),
                        Err(e) => {
                            let why = e.to_string();
                            let refused = e.is_refusal();
                            let e = Some(self.store_failed(e));
                            // A full disk keeps this segment out, not the others.
                            *(if refused { &mut refusal } else { &mut failure }) = e;
                            Err(why)
                        }
                    }
                }
            };
            appended.push((pieces, outcome));
        }
        if failure.is_none()
            && let Err(e) = self.store.sync_segments()
        {
            failure = Some(self.store_failed(e));
        }
        let mut finished = Vec::new();
        let mut swapped = Vec::new();
        for (pieces, outcome) in appended {
            let outcome = match (&failure, outcome) {
                (Some(e), _) => Err(e.to_string()),
                (None, outcome) => outcome,
            };
            if let Err(e) = self.swap(&pieces, outcome, &mut finished, &mut swapped) {
                failure = Some(e);
            }
        }
        // Also after a failure: what was swapped before it is coded, and its staging may be what fills the disk.
        if !(finished.is_empty() && swapped.is_empty()) && self.writable().is_ok() {
            match self.sync_log() {
                Ok(()) => self.free_staging(&finished, &swapped),
                Err(e) => failure = Some(e),
            }
        }
        // Only now is what they claimed to be found.
        self.queue_lock().release(&claims, self.now_ms());
        match failure.or(refusal) {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }

    /// Appends the new segment of a task. What was found is named where it is: by the caller's lock its pack stays, and a
    /// segment that was moved meanwhile, or is nobody's any more, is looked for again later.
    fn place(&self, coded: Coded) -> Result<Placed, crate::store::Error> {
        let mut placed = Placed::default();
        for (ino, extent) in coded.found {
            let reference = extent.reference.map_or(Ok(true), |r| self.store.is_segment_used(r.segment))?;
            if reference && self.store.is_segment_used(extent.segment)? {
                placed.found_bytes += u64::from(extent.len);
                placed.extents.push((ino, extent));
            }
        }
        let Some((encoded, owners)) = coded.segment else { return Ok(placed) };
        if let Some(r) = coded.reference
            && !self.store.is_segment_used(r.segment)?
        {
            return Ok(placed);
        }
        let header = SegmentHeader { coding: encoded.coding, owners };
        let segment = self.store.append_segment(&header, &encoded.payload)?;
        placed.appended = true;
        if coded.reference.is_some() {
            placed.referring = [1, u64::from(header.coding.raw_len), u64::from(segment.stored_len)];
        }
        placed.extents.extend(header.owners.iter().map(|o| {
            let extent = Extent {
                file_offset: o.file_offset,
                len: o.len,
                segment,
                segment_offset: o.segment_offset,
                segment_bytes: header.coding.raw_len,
                method: header.coding.method,
                reference: coded.reference,
            };
            (o.ino, extent)
        }));
        for (owner, hash, looks) in coded.learned {
            if let Some(o) = header.owners.get(owner) {
                placed.learned.push((o.ino, hash, Content { segment, start: o.segment_offset, len: o.len }, looks));
            }
        }
        Ok(placed)
    }

    /// Swaps the extents of one segment in, in one transaction for all its files.
    fn swap(
        &self,
        pieces: &[Piece],
        outcome: Result<Placed, String>,
        finished: &mut Vec<(Ino, u64)>,
        swapped: &mut Vec<Piece>,
    ) -> Result<(), Error> {
        let mut inodes: Vec<Arc<Inode>> = Vec::new();
        let mut unreadable = None;
        for piece in pieces {
            match self.inode(piece.ino) {
                Ok(inode) => inodes.push(inode),
                Err(Error::NotFound) => self.queue_lock().forget(piece.ino),
                Err(e) => unreadable = Some(e),
            }
        }
        if let Some(e) = unreadable {
            let inos: BTreeSet<Ino> = pieces.iter().map(|p| p.ino).collect();
            for ino in inos {
                self.queue_lock().task_done(ino, Some(e.to_string()), self.now_ms(), self.adjustable().quiet_ms);
            }
            return Err(e);
        }
        let mut guards = lock_all(&inodes);
        let mut plan: BTreeMap<Ino, Swap> = BTreeMap::new();
        let mut per_inode: BTreeMap<Ino, Generation> = BTreeMap::new();
        for piece in pieces {
            per_inode.insert(piece.ino, piece.generation);
        }
        for (ino, generation) in per_inode {
            let Some(state) = locked(&mut guards, ino) else { continue };
            let moved = state.removed || state.rec.generation != generation;
            let failure = match &outcome {
                _ if moved => Some(String::new()),
                Err(why) => Some(why.clone()),
                Ok(done) => {
                    let extents: Vec<Extent> = done.extents_of(ino);
                    let bytes: u64 = extents.iter().map(|e| u64::from(e.len)).sum();
                    let wanted: u64 = pieces.iter().filter(|p| p.ino == ino).map(|p| p.range.len()).sum();
                    if bytes == wanted {
                        plan.insert(ino, Swap { extents, finish: false });
                        None
                    } else {
                        Some(String::new())
                    }
                }
            };
            let finish = self.queue_lock().task_done(ino, failure, self.now_ms(), self.adjustable().quiet_ms);
            if let Some(swap) = plan.get_mut(&ino) {
                swap.finish = finish;
            }
        }
        if plan.is_empty() {
            return Ok(());
        }
        let swapped_in = self.swap_in(&mut guards, &mut plan, finished, swapped);
        if let (Ok(()), Ok(placed)) = (&swapped_in, &outcome) {
            self.swapped_in(placed, &plan);
        }
        if let Err(e) = &swapped_in {
            let now_ms = self.now_ms();
            let mut queue = self.queue_lock();
            plan.keys().for_each(|ino| queue.undo(*ino, &e.to_string(), now_ms));
        }
        swapped_in
    }

    /// Logs a planned swap of extents, then takes it into memory. On an error nothing is changed.
    fn swap_in(
        &self,
        guards: &mut [(Ino, RwLockWriteGuard<'_, InodeState>)],
        plan: &mut BTreeMap<Ino, Swap>,
        finished: &mut Vec<(Ino, u64)>,
        swapped: &mut Vec<Piece>,
    ) -> Result<(), Error> {
        let mut ops = Vec::new();
        let mut records = Vec::new();
        for (ino, swap) in plan.iter_mut() {
            let Some(state) = locked(guards, *ino) else { continue };
            let mut rec = state.record_for_log();
            let mut charge = state.rec.stored_bytes;
            for e in &swap.extents {
                let range = ByteRange::at(e.file_offset, u64::from(e.len));
                if state.rec.coded {
                    let replaced: u64 = self
                        .store
                        .extents(*ino, range, EXTENTS_PER_PAGE)
                        .map_err(Error::Store)?
                        .iter()
                        .map(|old| {
                            let part = ByteRange::at(old.file_offset, u64::from(old.len)).intersect(&range);
                            stored_share(&Extent { len: part.len() as u32, ..*old })
                        })
                        .sum();
                    charge = charge.saturating_sub(replaced);
                }
                charge += stored_share(e);
                ops.push(MetaOp::PutExtent { ino: *ino, extent: *e });
            }
            rec.stored_bytes = charge;
            let first = !state.rec.coded;
            rec.coded = true;
            // Whatever is left in `unlogged` was written after the plan, and then the generation moved: not this one.
            let clean = swap.extents.iter().fold(state.unlogged.clone(), |mut left, e| {
                left.remove(ByteRange::at(e.file_offset, u64::from(e.len)));
                left
            });
            swap.finish &= clean.is_empty();
            if swap.finish {
                ops.extend(forget_seal(&rec));
                rec.staging = None;
                rec.size = state.rec.size;
            }
            if !swap.finish && rec.staging.is_some_and(|s| s.sealed) {
                let file = staging::open(&*self.disk, state)?;
                ops.extend(seal::seals_after_swap(&self.store, &rec, file.as_deref(), &swap.extents)?);
            }
            if first || swap.finish {
                ops.push(MetaOp::PutInode(rec.clone()));
            }
            records.push((*ino, rec));
        }
        self.log(&ops)?;
        for (ino, rec) in records {
            let (Some(state), Some(swap)) = (locked(guards, ino), plan.get(&ino)) else { continue };
            state.rec.coded = true;
            state.rec.stored_bytes = rec.stored_bytes;
            state.swaps += 1;
            for e in &swap.extents {
                let range = ByteRange::at(e.file_offset, u64::from(e.len));
                state.unlogged.remove(range);
                if !swap.finish {
                    swapped.push(Piece { ino, generation: state.rec.generation, range });
                }
            }
            if swap.finish {
                self.end_staging(state, finished);
            } else {
                state.dirty = true;
                self.mark_dirty(ino);
            }
        }
        Ok(())
    }

    /// Counts what was swapped in, and remembers what lies in the new segment.
    fn swapped_in(&self, placed: &Placed, plan: &BTreeMap<Ino, Swap>) {
        self.counts.segments_coded.fetch_add(u64::from(placed.appended), Ordering::Relaxed);
        for (count, by) in self.counts.referring.iter().zip(placed.referring) {
            count.fetch_add(by, Ordering::Relaxed);
        }
        self.counts.found_bytes.fetch_add(placed.found_bytes, Ordering::Relaxed);
        for (_, hash, at, looks) in placed.learned.iter().filter(|(ino, ..)| plan.contains_key(ino)) {
            if let Err(e) = self.store.remember_content(hash, *at, looks) {
                log::warn!("what lies in {} is not looked for in new files: {e}", at.segment);
                return;
            }
        }
    }

    /// The inode has no staging any more, as the log says already.
    fn end_staging(&self, state: &mut InodeState, finished: &mut Vec<(Ino, u64)>) {
        if let Some(s) = state.rec.staging.take() {
            finished.push((state.rec.ino, s.epoch));
        }
        state.file = None;
        state.durable_size = state.rec.size;
        (state.dirty, state.unsynced, state.cut, state.queued) = (false, false, false, false);
        state.staged_bytes = 0;
        state.swaps += 1;
        self.queue_lock().forget(state.rec.ino);
    }

    /// Frees staging of what is durably coded: whole files, and ranges of files that have more to code.
    fn free_staging(&self, finished: &[(Ino, u64)], swapped: &[Piece]) {
        for (ino, epoch) in finished {
            self.remove_staging(*ino, *epoch);
        }
        for piece in swapped {
            let Ok(inode) = self.inode(piece.ino) else { continue };
            let mut state = inode.write();
            if state.removed || state.rec.generation != piece.generation {
                continue;
            }
            if let Ok(Some(file)) = staging::open(&*self.disk, &state) {
                if let Err(e) = file.punch(piece.range.start, piece.range.len()) {
                    log::warn!("cannot free coded bytes in staging of inode {}: {e}", piece.ino);
                }
                state.staged_bytes = file.allocated().unwrap_or(state.staged_bytes);
            }
        }
    }

    /// Files whose staging holds nothing that is not coded.
    fn finish_clean(&self, inos: &[Ino]) -> Result<(), Error> {
        let mut finished = Vec::new();
        let logged = self.log_finished(inos, &mut finished);
        // Also after a failure: what was logged before it has no use for its staging.
        self.sync_log()?;
        self.free_staging(&finished, &[]);
        logged
    }

    fn log_finished(&self, inos: &[Ino], finished: &mut Vec<(Ino, u64)>) -> Result<(), Error> {
        for step in inos.chunks(FINISH_PER_STEP) {
            let mut inodes = Vec::new();
            for ino in step {
                match self.inode(*ino) {
                    Ok(inode) => inodes.push(inode),
                    Err(_) => self.queue_lock().forget(*ino),
                }
            }
            let mut guards = lock_all(&inodes);
            let mut ops = Vec::new();
            let mut ready = Vec::new();
            for (ino, state) in &mut guards {
                // It was clean when it was looked at; only an unchanged file is still so.
                let looked = staging::open(&*self.disk, state).and_then(|file| {
                    Ok((self.first_staged(state, file.as_deref())?, staging::is_shared(file.as_deref())))
                });
                let (staged, shared) = match looked {
                    Ok(looked) => looked,
                    Err(e) => {
                        self.queue_lock().fail(*ino, e.to_string(), self.now_ms());
                        continue;
                    }
                };
                let busy = state.has_writers() || shared;
                if state.removed || busy || staged.is_some() || !state.unlogged.is_empty() {
                    self.queue_lock().wait(*ino, self.now_ms() + self.adjustable().quiet_ms);
                    continue;
                }
                let mut rec = state.rec.clone();
                ops.extend(forget_seal(&rec));
                rec.staging = None;
                ops.push(MetaOp::PutInode(rec));
                ready.push(*ino);
            }
            if ops.is_empty() {
                continue;
            }
            self.log(&ops)?;
            for ino in ready {
                if let Some(state) = locked(&mut guards, ino) {
                    self.end_staging(state, finished);
                }
            }
        }
        Ok(())
    }
}

/// Takes the files out that are coded from another segment, those of one class and policy together where it is the same, so
/// that it is decoded once. Few of them for a large one, when no more are to come, are left with those that are coded from
/// none; so are those that would take too long to decode.
fn refer(files: &mut Vec<SmallFile>, all: bool) -> Vec<Vec<SmallFile>> {
    let (mut referring, alone): (Vec<_>, Vec<_>) = files.drain(..).partition(|file| file.reference.is_some());
    files.extend(alone);
    referring.sort_by_key(|file| (file.class, file.policy, file.reference, file.ino));
    let mut out = Vec::new();
    for group in referring.chunk_by(|a, b| (a.class, a.policy, a.reference) == (b.class, b.policy, b.reference)) {
        let bytes = group.iter().map(|file| file.bytes).sum();
        let worth = group.iter().all(|file| {
            file.reference.is_some_and(|(_, of)| {
                let fits = codec::cut_beside(file.class, &file.policy, of).is_some();
                fits && (!all || worth_decoding(bytes, u64::from(of)))
            })
        });
        if worth {
            out.push(group.to_vec());
        } else {
            files.extend(group.iter().map(|file| SmallFile { reference: None, ..file.clone() }));
        }
    }
    out
}

/// What the log must forget when the staging of a sealed file ends.
fn forget_seal(rec: &InodeRecord) -> Option<MetaOp> {
    rec.staging.is_some_and(|s| s.sealed).then_some(MetaOp::RemoveSeals { ino: rec.ino })
}

/// The file changed after it was planned, or the speed that it was cut by.
pub(super) const MOVED: &str = "the file changed while it was coded";

/// The pieces of a task in packs.
#[derive(Default)]
struct Placed {
    extents: Vec<(Ino, Extent)>,
    /// A segment was appended for them.
    appended: bool,
    /// It was coded from another: one, its plain bytes, and its bytes in the pack.
    referring: [u64; 3],
    /// Content of the new segment, by the file that has it.
    learned: Vec<(Ino, PlainHash, Content, Looks)>,
    /// Plain bytes that were there before.
    found_bytes: u64,
}

impl Placed {
    fn extents_of(&self, ino: Ino) -> Vec<Extent> {
        self.extents.iter().filter(|(owner, _)| *owner == ino).map(|(_, e)| *e).collect()
    }
}
