//! Bytes: open, read, write, truncate, allocate, seek, fsync, release.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::cache::{Failure, Joined, Plain, SegmentCache};
use super::coding::MOVED;
use super::inode::{Inode, InodeState};
use super::reference::{self, Unread};
use super::types::{AllocateMode, Error, HandleId, OpenFor, Opened, SeekFor};
use super::{EVERYTHING, FILE_BYTES_MAX, FileKind, ReadDone, Volume, seal, staging};
use crate::base::{ByteRange, Ino, MethodId, SegmentRef};
use crate::format::{Extent, MetaOp, Staging};
use crate::host::Seek;
pub(super) use crate::store::stored_share;
use crate::telemetry;
use crate::workers::Priority;

/// Extents looked up at a time.
pub(super) const EXTENTS_PER_PAGE: usize = 1024;
/// Disjoint overwritten ranges of one file that wait for a sync; one more starts it.
const UNLOGGED_RANGES_MAX: usize = 4096;
/// Extents of one read are looked up this often while packs are given back below it.
const LOOKS_MAX: u32 = 100;
/// Largest read answered at once, bytes; the kernel asks for less.
const READ_BYTES_MAX: u64 = 16 << 20;

/// A piece of a read that must come out of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodedPiece {
    pub segment: SegmentRef,
    pub segment_offset: u32,
    /// Where the piece goes in the buffer.
    pub at: usize,
    pub len: usize,
    /// Where it lies in the file, for messages.
    pub file_offset: u64,
    /// Its segment is decoded in parts.
    pub in_parts: bool,
}

impl CodedPiece {
    /// Copies the piece out of a decoded segment; false when the segment is too short for it.
    pub fn copy(&self, plain: &[u8], buf: &mut [u8]) -> bool {
        let from = self.segment_offset as usize;
        match (plain.get(from..from.saturating_add(self.len)), buf.get_mut(self.at..self.at + self.len)) {
            (Some(from), Some(to)) => {
                to.copy_from_slice(from);
                true
            }
            (_, _) => false,
        }
    }
}

/// True where the segment of an extent is so slow that a read decodes no more of it than it must.
fn is_in_parts(e: &Extent) -> bool {
    e.method == MethodId::Language as u16
}

/// Extents of a file that count, in `range`: those the log names, without what was overwritten since.
pub(super) fn coded_in(volume: &Volume, state: &InodeState, range: ByteRange) -> Result<Vec<Extent>, Error> {
    let mut out = Vec::new();
    if !state.rec.coded || range.is_empty() {
        return Ok(out);
    }
    let mut at = range.start;
    loop {
        let page = volume
            .store
            .extents(state.rec.ino, ByteRange { start: at, end: range.end }, EXTENTS_PER_PAGE)
            .map_err(Error::Store)?;
        for e in &page {
            let whole = ByteRange::at(e.file_offset, u64::from(e.len));
            let part = whole.intersect(&range);
            for r in state.unlogged.gaps(part) {
                out.push(Extent {
                    file_offset: r.start,
                    len: r.len() as u32,
                    segment: e.segment,
                    segment_offset: e.segment_offset + (r.start - e.file_offset) as u32,
                    ..*e
                });
            }
            at = whole.end;
        }
        if page.len() < EXTENTS_PER_PAGE || at >= range.end {
            return Ok(out);
        }
    }
}

/// When a read came, and how often its extents were looked up before.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    tries: u32,
}

impl Asked {
    /// Counts a read that is answered now.
    fn count(&self, times: &telemetry::Histogram) {
        times.add(u64::try_from(self.at.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

/// A read whose segments are on their way.
pub(super) struct Pending {
    volume: Arc<Volume>,
    ino: Ino,
    range: ByteRange,
    asked: Asked,
    /// A pack was given back since the extents were looked up: they lie elsewhere now.
    moved: AtomicBool,
    buf: Mutex<Vec<u8>>,
    /// Segments, and parts of such, still missing.
    left: AtomicUsize,
    failure: Mutex<Option<Error>>,
    done: Mutex<Option<ReadDone>>,
}

impl Pending {
    /// So many more are missing than was known. For who holds one that is.
    pub fn expect(&self, more: usize) {
        self.left.fetch_add(more, Ordering::AcqRel);
    }

    /// Takes what pieces are cut from, or why it is not to be had. The last one ends the read.
    pub fn arrived(&self, pieces: &[CodedPiece], outcome: &Result<Plain, Failure>) {
        let offset = pieces.first().map_or(0, |p| p.file_offset);
        let bad = match outcome {
            Ok(plain) => {
                let mut buf = self.buf.lock().unwrap_or_else(|e| e.into_inner());
                if pieces.iter().all(|p| p.copy(plain, &mut buf)) {
                    None
                } else {
                    Some("extent reaches beyond its segment".to_string())
                }
            }
            Err(failure) => {
                if failure.moved || pieces.first().is_some_and(|p| self.volume.store.has_deleted(p.segment.pack)) {
                    self.moved.store(true, Ordering::Release);
                }
                Some(failure.what.clone())
            }
        };
        if let Some(what) = bad {
            *self.failure.lock().unwrap_or_else(|e| e.into_inner()) =
                Some(Error::Damaged { ino: self.ino, offset, what });
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let done = self.done.lock().unwrap_or_else(|e| e.into_inner()).take();
            let failure = self.failure.lock().unwrap_or_else(|e| e.into_inner()).take();
            let buf = std::mem::take(&mut *self.buf.lock().unwrap_or_else(|e| e.into_inner()));
            if let Some(done) = done {
                match failure {
                    Some(_) if self.moved.load(Ordering::Acquire) && self.asked.tries < LOOKS_MAX => {
                        let asked = Asked { tries: self.asked.tries + 1, ..self.asked };
                        self.volume.look_and_read(self.ino, self.range, asked, done);
                    }
                    Some(e) => done(Err(e)),
                    None => {
                        self.asked.count(&telemetry::READS_COLD);
                        done(Ok(&buf));
                    }
                }
            }
        }
    }
}

/// A decode under way. However it ends, run or dropped, those who wait are told.
struct Flight {
    volume: Arc<Volume>,
    segment: SegmentRef,
    landed: bool,
}

impl Flight {
    fn land(&mut self, outcome: Result<Plain, Failure>) {
        if !std::mem::replace(&mut self.landed, true) {
            self.volume.segments.finish(self.segment, outcome);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.land(Err("too many reads wait for a decode, or the volume is closing; try again".to_string().into()));
    }
}

impl Volume {
    pub fn open_file(&self, ino: Ino, open: OpenFor) -> Result<Opened, Error> {
        if open.write || open.truncate {
            self.writable()?;
        }
        let inode = self.live(ino)?;
        let mut state = inode.write();
        state.alive()?;
        match state.rec.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Error::IsDirectory),
            FileKind::Symlink | FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                return Err(Error::Invalid("only regular files are opened here"));
            }
        }
        if open.truncate {
            self.truncate(&mut state, 0)?;
        }
        if state.file.is_none() {
            state.file = staging::open(&*self.disk, &state)?;
        }
        let handle = self.new_handle();
        state.handles.insert(handle, open);
        let keep_pages = !self.drops_pages(&state) && !open.truncate;
        Ok(Opened { handle, keep_pages, coded: state.rec.coded })
    }

    /// Copies what is not coded of `range` into a buffer and lists the pieces that are: under the inode's lock, so that
    /// staging is not freed meanwhile.
    pub(super) fn gather(&self, state: &InodeState, range: ByteRange) -> Result<(Vec<u8>, Vec<CodedPiece>), Error> {
        let mut buf = vec![0u8; range.len() as usize];
        let extents = coded_in(self, state, range)?;
        let mut pieces = Vec::with_capacity(extents.len());
        let file = staging::open(&*self.disk, state)?;
        let mut at = range.start;
        let staged = |from: u64, to: u64, buf: &mut Vec<u8>| -> Result<(), Error> {
            let (a, b) = ((from - range.start) as usize, (to - range.start) as usize);
            let part = ByteRange { start: from, end: to };
            self.read_staged(state, file.as_deref(), part, buf.get_mut(a..b).unwrap_or_default())
        };
        for e in extents {
            if e.file_offset > at {
                staged(at, e.file_offset, &mut buf)?;
            }
            pieces.push(CodedPiece {
                segment: e.segment,
                segment_offset: e.segment_offset,
                at: (e.file_offset - range.start) as usize,
                len: e.len as usize,
                file_offset: e.file_offset,
                in_parts: is_in_parts(&e),
            });
            at = e.file_offset + u64::from(e.len);
        }
        if at < range.end {
            staged(at, range.end, &mut buf)?;
        }
        Ok((buf, pieces))
    }

    /// Reads `range`. Staged bytes and cached segments answer before the call returns; otherwise `done` is called later on
    /// a worker. No decode runs on the calling thread.
    pub fn read(self: &Arc<Self>, ino: Ino, range: ByteRange, done: ReadDone) {
        self.look_and_read(ino, range, Asked { at: Instant::now(), tries: 0 }, done);
    }

    fn look_and_read(self: &Arc<Self>, ino: Ino, range: ByteRange, asked: Asked, done: ReadDone) {
        let started = self.live(ino).and_then(|inode| {
            let state = inode.read();
            state.alive()?;
            if !state.is_regular() {
                return Err(if state.is_directory() {
                    Error::IsDirectory
                } else {
                    Error::Invalid("not a regular file")
                });
            }
            let end = range.end.min(state.rec.size).min(range.start.saturating_add(READ_BYTES_MAX));
            let range = ByteRange { start: range.start, end: end.max(range.start) };
            let (buf, pieces) = self.gather(&state, range)?;
            let sequential = asked.tries == 0 && inode.continues(range.start, range.end);
            let ahead =
                if sequential && !pieces.is_empty() { self.segments_after(&state, range.end) } else { Vec::new() };
            Ok((range, buf, pieces, ahead))
        });
        match started {
            Err(e) => {
                self.note_staged_damage(&e);
                done(Err(e));
            }
            Ok((range, buf, pieces, ahead)) => {
                self.complete(ino, range, asked, buf, pieces, done);
                for segment in ahead {
                    self.decode_ahead(ino, segment);
                }
            }
        }
    }

    /// Fills in what is decoded already, and waits for the rest.
    fn complete(
        self: &Arc<Self>,
        ino: Ino,
        range: ByteRange,
        asked: Asked,
        mut buf: Vec<u8>,
        pieces: Vec<CodedPiece>,
        done: ReadDone,
    ) {
        let mut missing: Vec<Vec<CodedPiece>> = Vec::new();
        for piece in pieces {
            if let Some(last) = missing.iter_mut().find(|m| m.first().is_some_and(|p| p.segment == piece.segment)) {
                last.push(piece);
                continue;
            }
            let held = if piece.in_parts { None } else { self.segments.get(piece.segment) };
            match held {
                Some(plain) => {
                    if !piece.copy(&plain, &mut buf) {
                        let what = "extent reaches beyond its segment".to_string();
                        return done(Err(Error::Damaged { ino, offset: piece.file_offset, what }));
                    }
                }
                None => missing.push(vec![piece]),
            }
        }
        missing.retain(|pieces| !(pieces.iter().all(|p| p.in_parts) && self.copy_parts(pieces, &mut buf)));
        if missing.is_empty() {
            // One that was to wait for what has moved since has waited.
            asked.count(if asked.tries == 0 { &telemetry::READS_WARM } else { &telemetry::READS_COLD });
            return done(Ok(&buf));
        }
        let pending = Arc::new(Pending {
            volume: self.clone(),
            ino,
            range,
            asked,
            moved: AtomicBool::new(false),
            buf: Mutex::new(buf),
            left: AtomicUsize::new(missing.len()),
            failure: Mutex::new(None),
            done: Mutex::new(Some(done)),
        });
        for pieces in missing {
            let Some(segment) = pieces.first().map(|p| p.segment) else { continue };
            let offset = pieces.first().map_or(0, |p| p.file_offset);
            let pending = pending.clone();
            if pieces.iter().all(|p| p.in_parts) {
                self.start_parts(ino, pieces, pending);
                continue;
            }
            let waiter = Box::new(move |outcome: &Result<Plain, Failure>| pending.arrived(&pieces, outcome));
            match self.segments.join(segment, Some(waiter)) {
                Joined::Ready(plain, waiter) => waiter(&Ok(plain)),
                Joined::Waiting => {}
                Joined::First => self.start_decode(ino, offset, segment, Priority::Read),
            }
        }
    }

    /// Queues the decode of a segment that this caller is the first to want. When the queue of its priority is full a
    /// decode ahead is tried as a read, since a reader may have joined it meanwhile.
    fn start_decode(self: &Arc<Self>, ino: Ino, offset: u64, segment: SegmentRef, priority: Priority) {
        let mut flight = Flight { volume: self.clone(), segment, landed: false };
        let job: Box<dyn FnOnce() + Send> = Box::new(move || {
            // A flight always lands: a panic in a decoder would otherwise leave its readers waiting for ever.
            let (outcome, piece) = catch_unwind(AssertUnwindSafe(|| flight.volume.read_segment(ino, offset, segment)))
                .unwrap_or_else(|_| (Err("the decoder failed".to_string().into()), None));
            let copied = piece.zip(outcome.as_ref().ok().cloned());
            flight.land(outcome);
            if let Some((piece, plain)) = copied {
                flight.volume.offer_hot(&piece, &plain);
            }
        });
        if let Err(job) = self.workers.submit(priority, job)
            && priority == Priority::Ahead
        {
            // Refused again: the job is dropped, and its flight lands with an error.
            let _ = self.workers.submit(Priority::Read, job);
        }
    }

    /// Fetches, checks, decodes and checks a segment, and its reference if that is not in the cache. A failure is logged once
    /// per segment, with the file's path.
    pub(super) fn decode(&self, ino: Ino, offset: u64, segment: SegmentRef) -> Result<Plain, Failure> {
        self.decode_with(&self.segments, ino, offset, segment)
    }

    /// The same from the disk alone, whatever the cache has.
    pub(super) fn decode_anew(&self, ino: Ino, offset: u64, segment: SegmentRef) -> Result<Plain, Failure> {
        self.decode_with(&SegmentCache::new(0), ino, offset, segment)
    }

    fn decode_with(&self, cache: &SegmentCache, ino: Ino, offset: u64, segment: SegmentRef) -> Result<Plain, Failure> {
        let outcome = match self.store.fetch_segment(segment) {
            Ok((header, payload)) => {
                reference::decode(&self.store, &self.library, cache, segment, (&header.coding, &payload))
            }
            Err(e) => Err(Unread::fetched(&self.store, segment, e)),
        };
        self.settle(ino, offset, segment, outcome).map(Arc::new)
    }

    /// Counts a decode, and tells of one that failed: once per segment where it is damaged, with the file's path.
    pub(super) fn settle<T>(
        &self,
        ino: Ino,
        offset: u64,
        segment: SegmentRef,
        outcome: Result<T, Unread>,
    ) -> Result<T, Failure> {
        let outcome = match outcome {
            // Who wanted it looks its extents up again.
            Err(Unread::Moved(what)) => return Err(Failure { what, moved: true }),
            Err(Unread::Stopped) => return Err("the volume is closing".to_string().into()),
            Err(Unread::Disk(e)) => {
                // The bytes may be good: the next read tries again.
                log::error!("inode {ino} cannot be read near offset {offset}: {segment}: {e}");
                return Err(e.to_string().into());
            }
            Err(Unread::Damaged(what)) => Err(what),
            Ok(plain) => Ok(plain),
        };
        self.counts.decodes.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(plain) => Ok(plain),
            Err(what) => {
                self.counts.decode_failures.fetch_add(1, Ordering::Relaxed);
                let mut bad = self.quarantine.lock().unwrap_or_else(|e| e.into_inner());
                if bad.len() < super::report::QUARANTINE_MAX && bad.insert(segment) {
                    drop(bad);
                    let path = self.path_of(ino).unwrap_or_else(|| format!("inode {ino}"));
                    log::error!("{path} (inode {ino}) is damaged near offset {offset}: {segment}: {what}");
                }
                Err(what.into())
            }
        }
    }

    /// The plain bytes of a segment for background work on this thread, from the cache when it has them.
    pub(super) fn plain(&self, ino: Ino, offset: u64, segment: SegmentRef) -> Result<Plain, Error> {
        match self.segments.get(segment) {
            Some(plain) => Ok(plain),
            None => self.decode(ino, offset, segment).map_err(|failure| match failure {
                Failure { moved: true, .. } => Error::Invalid(MOVED),
                Failure { what, .. } => Error::Damaged { ino, offset, what },
            }),
        }
    }

    /// Copies coded pieces that `gather` listed into its buffer, for background work on this thread. `last` is the segment that
    /// was decoded last: pieces of one follow each other.
    ///
    /// # Errors
    /// `Invalid(MOVED)` when a segment's pack was given back since: the file is to be looked at again.
    pub(super) fn fill(
        &self,
        ino: Ino,
        buf: &mut [u8],
        coded: &[CodedPiece],
        last: &mut Option<(SegmentRef, Plain)>,
    ) -> Result<(), Error> {
        for piece in coded {
            let plain = match last {
                Some((segment, plain)) if *segment == piece.segment => plain.clone(),
                _ => match self.plain(ino, piece.file_offset, piece.segment) {
                    Err(_) if self.store.has_deleted(piece.segment.pack) => return Err(Error::Invalid(MOVED)),
                    other => other?,
                },
            };
            *last = Some((piece.segment, plain.clone()));
            if !piece.copy(&plain, buf) {
                let what = "extent reaches beyond its segment".to_string();
                return Err(Error::Damaged { ino, offset: piece.file_offset, what });
            }
        }
        Ok(())
    }

    /// Segments that follow `offset` in a file, for decode-ahead; not those that are decoded in parts, of which the kernel asks
    /// for as many as it reads ahead by itself.
    fn segments_after(&self, state: &InodeState, offset: u64) -> Vec<SegmentRef> {
        if self.options.ahead == 0 {
            return Vec::new();
        }
        let range = ByteRange { start: offset, end: u64::MAX };
        let Ok(page) = self.store.extents(state.rec.ino, range, self.options.ahead + 1) else { return Vec::new() };
        let mut next: Vec<SegmentRef> = page.into_iter().filter(|e| !is_in_parts(e)).map(|e| e.segment).collect();
        next.dedup();
        next
    }

    fn decode_ahead(self: &Arc<Self>, ino: Ino, segment: SegmentRef) {
        if !self.segments.is_near(segment) && matches!(self.segments.join(segment, None), Joined::First) {
            self.start_decode(ino, 0, segment, Priority::Ahead);
        }
    }

    /// Writes all of `data` to staging: at `offset`, or at the end for a handle opened to append. Never decodes, never syncs
    /// but when thousands of overwritten ranges wait.
    pub fn write(&self, ino: Ino, handle: HandleId, offset: u64, data: &[u8]) -> Result<usize, Error> {
        self.writable()?;
        self.admit(data.len() as u64)?;
        let inode = self.live(ino)?;
        let (crowded, was_dirty) = {
            let mut state = inode.write();
            state.alive()?;
            let open = state.handles.get(&handle).copied().ok_or(Error::BadHandle)?;
            if !open.write {
                return Err(Error::BadHandle);
            }
            let offset = if open.append { state.rec.size } else { offset };
            if offset.checked_add(data.len() as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
                return Err(Error::TooBig);
            }
            if data.is_empty() {
                return Ok(0);
            }
            let was_dirty = state.dirty;
            self.stage(&mut state, offset, data)?;
            state.touch_data(self.now(), self.now_ms());
            self.enqueue(&mut state);
            (state.unlogged.len() > UNLOGGED_RANGES_MAX, was_dirty)
        };
        if !was_dirty {
            self.mark_dirty(ino);
        }
        if crowded {
            self.log_inode(&inode, false)?;
        }
        Ok(data.len())
    }

    /// Puts bytes into staging, under the inode's lock. Times and the queue are left to the caller.
    pub(super) fn stage(&self, state: &mut InodeState, offset: u64, data: &[u8]) -> Result<(), Error> {
        let ino = state.rec.ino;
        let range = ByteRange::at(offset, data.len() as u64);
        let file = self.prepare_staging(state, range.end)?;
        let overwrites = state.rec.coded && !self.store.extents(ino, range, 1).map_err(Error::Store)?.is_empty();
        if let Err(e) = file.write_at(data, offset) {
            // A part of it may be there, as when the disk is full: beyond the size it would show as soon as the file
            // grows, so it is cut off. Where even that fails the next mount finds a longer file.
            if file.len().is_ok_and(|len| len > state.rec.size) && file.set_len(state.rec.size).is_ok() {
                state.cut = true;
            }
            // Within the size they show: like any change they are to be synced before they are sealed, and coded.
            state.unsynced = true;
            state.rec.generation.0 += 1;
            state.changed_ms = self.now_ms();
            self.enqueue(state);
            return Err(staging::io_error("write", ino, e));
        }
        if overwrites {
            state.unlogged.insert(range);
        }
        state.rec.size = state.rec.size.max(range.end);
        state.unsynced = true;
        Ok(())
    }

    /// What close(2) waits for: overwrites of coded ranges become part of the log, so that they survive the death of this
    /// process as other writes do. Costs nothing for files without any.
    pub fn flush_file(&self, ino: Ino) -> Result<(), Error> {
        match self.inodes.get(ino) {
            Some(inode) if !inode.read().unlogged.is_empty() && self.writable().is_ok() => {
                self.log_inode(&inode, false)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Ends a handle; attributes become part of the log, the file a candidate for coding.
    pub fn release(&self, ino: Ino, handle: HandleId) -> Result<(), Error> {
        let inode = self.inode(ino)?;
        let (wrote, last) = {
            let mut state = inode.write();
            self.absorb(&mut state)?;
            state.bypassing.remove(&handle);
            let open = state.handles.remove(&handle).ok_or(Error::BadHandle)?;
            (open.write, state.handles.is_empty())
        };
        let logged = if wrote && self.writable().is_ok() { self.log_inode(&inode, false) } else { Ok(()) };
        if last {
            let mut state = inode.write();
            if state.handles.is_empty() {
                self.end_if_orphan(&inode, &mut state)?;
            }
        }
        logged
    }

    /// # Durability
    /// Data and metadata of the file are on disk at return. Never waits for a model.
    pub fn fsync(&self, ino: Ino, _data_only: bool) -> Result<(), Error> {
        if self.options.read_only {
            return Ok(());
        }
        self.writable()?;
        let inode = self.inode(ino)?;
        self.log_inode(&inode, true)?;
        self.sync_log()
    }

    /// # Durability
    /// All names committed before the call are on disk at return.
    pub fn fsync_dir(&self, ino: Ino) -> Result<(), Error> {
        if self.options.read_only {
            return Ok(());
        }
        self.writable()?;
        let inode = self.inode(ino)?;
        self.log_inode(&inode, false)?;
        self.sync_log()
    }

    /// Sets the size of a regular file, under its lock.
    pub(super) fn truncate(&self, state: &mut InodeState, size: u64) -> Result<(), Error> {
        if !state.bypassing.is_empty() {
            return self.truncate_bypassed(state, size);
        }
        let ino = state.rec.ino;
        let old = state.rec.size;
        let sealed = state.rec.staging.is_some_and(|s| s.sealed);
        if size != 0 {
            self.unseal(state)?;
        }
        let mut rec = state.record_for_log();
        rec.size = size;
        rec.generation.0 += 1;
        (rec.mtime, rec.ctime) = (self.now(), self.now());
        if size == 0 {
            // A new epoch instead of a cut: no order of steps can bring old bytes back.
            let gone = rec.staging;
            rec.staging = Some(Staging { epoch: self.store.allocate_serial(), growing: true, sealed: false });
            rec.coded = false;
            rec.stored_bytes = 0;
            let mut ops = vec![MetaOp::PutInode(rec.clone())];
            if state.rec.coded {
                ops.push(MetaOp::RemoveExtents { ino, start: 0, end: u64::MAX });
            }
            if sealed {
                ops.push(MetaOp::RemoveSeals { ino });
            }
            self.log(&ops)?;
            state.rec = rec;
            state.file = None;
            state.unlogged.clear();
            (state.cut, state.unsynced, state.name_synced) = (false, false, false);
            (state.durable_size, state.staged_bytes) = (0, 0);
            if let Some(s) = gone {
                self.doom_staging(ino, s.epoch);
            }
        } else if size < old {
            if let Some(s) = &mut rec.staging {
                s.growing = false;
            }
            let mut ops = vec![MetaOp::PutInode(rec.clone())];
            let range = ByteRange { start: size, end: u64::MAX };
            // Opened before anything is logged: there may be no descriptor left.
            let file = staging::open(&*self.disk, state)?;
            if state.rec.coded {
                rec.stored_bytes = self.charge_without(state, range)?;
                ops = vec![
                    MetaOp::PutInode(rec.clone()),
                    MetaOp::RemoveExtents { ino, start: range.start, end: range.end },
                ];
            }
            self.log(&ops)?;
            state.rec = rec;
            state.durable_size = size;
            state.unlogged.remove(range);
            if let Some(file) = file
                && file.len().map_err(|e| staging::io_error("stat", ino, e))? > size
            {
                file.set_len(size).map_err(|e| staging::io_error("cut", ino, e))?;
                (state.cut, state.unsynced) = (true, true);
            }
        } else {
            // Growing by a hole: zeros need no staging, only a size.
            self.cut_staging(state)?;
            self.log(&[MetaOp::PutInode(rec.clone())])?;
            state.rec = rec;
            state.durable_size = size;
        }
        state.swaps += 1;
        state.changed_ms = self.now_ms();
        state.dirty = false;
        Ok(())
    }

    /// What the file is charged for its coded bytes when those in `range` go: in proportion.
    pub(super) fn charge_without(&self, state: &InodeState, range: ByteRange) -> Result<u64, Error> {
        let gone: u64 = coded_in(self, state, range.intersect(&ByteRange { start: 0, end: state.rec.size }))?
            .iter()
            .map(stored_share)
            .sum();
        Ok(state.rec.stored_bytes.saturating_sub(gone))
    }

    pub fn allocate(&self, ino: Ino, mode: AllocateMode, range: ByteRange) -> Result<(), Error> {
        self.writable()?;
        if range.is_empty() {
            return Err(Error::Invalid("fallocate of no bytes"));
        }
        if range.end > FILE_BYTES_MAX {
            return Err(Error::TooBig);
        }
        match mode {
            AllocateMode::Extend | AllocateMode::KeepSize => self.admit(range.len())?,
            AllocateMode::Punch | AllocateMode::Zero | AllocateMode::ZeroKeepSize => {}
        }
        let inode = self.live(ino)?;
        let mut state = inode.write();
        state.alive()?;
        if !state.is_regular() {
            return Err(if state.is_directory() { Error::IsDirectory } else { Error::Unsupported });
        }
        self.absorb(&mut state)?;
        match mode {
            AllocateMode::Extend | AllocateMode::KeepSize => {
                // Reserved beyond the size, so a growing file's length is not touched; best effort where not supported.
                let end = state.rec.size;
                let file = self.prepare_staging(&mut state, end)?;
                match file.allocate(range.start, range.len()) {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::Unsupported => {}
                    Err(e) => return Err(staging::io_error("reserve", ino, e)),
                }
            }
            AllocateMode::Punch | AllocateMode::Zero | AllocateMode::ZeroKeepSize => self.punch(&mut state, range)?,
        }
        match mode {
            AllocateMode::Extend | AllocateMode::Zero => {
                if range.end > state.rec.size {
                    self.truncate(&mut state, range.end)?;
                }
            }
            AllocateMode::KeepSize | AllocateMode::Punch | AllocateMode::ZeroKeepSize => {}
        }
        state.touch_data(self.now(), self.now_ms());
        self.enqueue(&mut state);
        self.mark_dirty(ino);
        Ok(())
    }

    /// Makes a range zero and not coded. The log goes first: until staging is punched the range shows old bytes.
    pub(super) fn punch(&self, state: &mut InodeState, range: ByteRange) -> Result<(), Error> {
        let ino = state.rec.ino;
        let inside = range.intersect(&ByteRange { start: 0, end: state.rec.size });
        if inside.is_empty() {
            return Ok(());
        }
        self.unseal(state)?;
        let file = staging::open(&*self.disk, state)?;
        if state.rec.coded {
            let mut rec = state.record_for_log();
            rec.stored_bytes = self.charge_without(state, inside)?;
            let stored_bytes = rec.stored_bytes;
            self.log(&[MetaOp::RemoveExtents { ino, start: inside.start, end: inside.end }, MetaOp::PutInode(rec)])?;
            state.rec.stored_bytes = stored_bytes;
            state.unlogged.remove(inside);
            state.swaps += 1;
        }
        if let Some(file) = file {
            let len = file.len().map_err(|e| staging::io_error("stat", ino, e))?;
            let part = inside.intersect(&ByteRange { start: 0, end: len });
            if !part.is_empty() {
                file.punch(part.start, part.len()).map_err(|e| staging::io_error("punch", ino, e))?;
                state.unsynced = true;
            }
        }
        Ok(())
    }

    /// First offset at or after `offset` that is data, or hole. The end of the file is a hole.
    pub fn seek(&self, ino: Ino, offset: u64, what: SeekFor) -> Result<u64, Error> {
        let size = self.getattr(ino)?.size;
        let inode = self.live(ino)?;
        let state = inode.read();
        state.alive()?;
        if offset >= size {
            return Err(Error::NoData);
        }
        let file = staging::open(&*self.disk, &state)?;
        let staged = |at: u64, what: Seek| -> Result<Option<u64>, Error> {
            match &file {
                Some(file) => file.seek(at, what).map_err(|e| staging::io_error("seek in", ino, e)),
                None => Ok(None),
            }
        };
        let coded_at = |at: u64| -> Result<Option<Extent>, Error> {
            if !state.rec.coded {
                return Ok(None);
            }
            let page = self.store.extents(ino, ByteRange { start: at, end: size }, 1).map_err(Error::Store)?;
            Ok(page.into_iter().next())
        };
        // Bytes that a sealed file lost must not pass for a hole: whoever copies by the holes would take zeros for them.
        let no_loss = |from: u64, to: u64| {
            seal::check_holes(&self.store, &state.rec, file.as_deref(), ByteRange { start: from, end: to })
        };
        match what {
            SeekFor::Data => {
                let coded = coded_at(offset)?.map(|e| e.file_offset.max(offset));
                let staged = staged(offset, Seek::Data)?.map(|d| d.max(offset));
                let at = coded.into_iter().chain(staged).min().filter(|at| *at < size);
                no_loss(offset, at.unwrap_or(size))?;
                at.ok_or(Error::NoData)
            }
            SeekFor::Hole => {
                let mut at = offset;
                while at < size {
                    if let Some(e) = coded_at(at)?.filter(|e| e.file_offset <= at) {
                        at = e.file_offset + u64::from(e.len);
                    } else if staged(at, Seek::Data)?.is_some_and(|d| d <= at) {
                        at = staged(at, Seek::Hole)?.unwrap_or(size).max(at + 1);
                    } else {
                        no_loss(at, at + 1)?;
                        break;
                    }
                }
                Ok(at.min(size))
            }
        }
    }

    /// Everything of a file that is coded, for reports.
    pub(super) fn all_coded(&self, inode: &Inode) -> Result<Vec<Extent>, Error> {
        let state = inode.read();
        coded_in(self, &state, EVERYTHING)
    }
}
