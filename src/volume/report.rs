//! What `status` and `stat` show.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::types::{Backlog, CodingNow, CodingTask, Error, FileReport, HotStatus, SegmentReport, Status};
use super::{Volume, data::stored_share, staging};
use crate::base::{Class, Ino, MethodId, SegmentRef};
use crate::codec::{self, Tier};
use crate::host;

/// Segments that failed a check and are remembered; more are counted only.
pub(super) const QUARANTINE_MAX: usize = 10_000;
/// Waiting files whose staging is looked at for `status`; for more the sum is extrapolated.
const QUEUED_LOOKED_AT_MAX: usize = 4096;
/// Segments listed one by one for a file; the rest is in its sums.
pub(super) const SEGMENTS_LISTED_MAX: usize = 10_000;
/// Payloads that are read for it, where how long they take to decode is known to nothing else.
const PAYLOADS_READ_MAX: usize = 256;

/// Counts since the volume was opened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub decodes: AtomicU64,
    pub decode_failures: AtomicU64,
    pub segments_coded: AtomicU64,
    /// Plain bytes that were found in the volume instead of being coded.
    pub found_bytes: AtomicU64,
    /// Segments that were coded from others, their plain bytes, and their bytes in packs.
    pub referring: [AtomicU64; 3],
    /// Segments that are being coded, by numbers of their own.
    pub at_work: AtWork,
}

/// One segment that is being coded: its first piece, its files, its plain bytes, and since when (monotonic milliseconds).
#[derive(Debug)]
struct Job {
    first: (Ino, u64),
    files: u64,
    bytes: u64,
    class: Class,
    tier: Tier,
    since_ms: u64,
}

/// Segments that are being coded.
#[derive(Debug, Default)]
pub(crate) struct AtWork(Mutex<(u64, BTreeMap<u64, Job>)>);

impl AtWork {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Job>)> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A segment is being coded until what is returned is dropped.
    pub fn begin(&self, task: &CodingTask) -> Option<Begun<'_>> {
        let first = task.pieces.first()?;
        let job = Job {
            first: (first.ino, first.range.start),
            files: task.pieces.chunk_by(|a, b| a.ino == b.ino).count() as u64,
            bytes: task.pieces.iter().map(|piece| piece.range.len()).sum(),
            class: task.class,
            tier: task.policy.tier,
            since_ms: host::monotonic_ms(),
        };
        let mut jobs = self.lock();
        jobs.0 += 1;
        let number = jobs.0;
        jobs.1.insert(number, job);
        Some(Begun { at_work: self, number })
    }
}

/// A segment that is being coded.
pub(crate) struct Begun<'a> {
    at_work: &'a AtWork,
    number: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.at_work.lock().1.remove(&self.number);
    }
}

/// Name of a method number.
fn method_name(method: u16) -> String {
    MethodId::from_u16(method).map_or_else(|| format!("method {method}"), |m| m.name().to_string())
}

impl Volume {
    /// Files that wait for coding, how many of them are stuck, and why one of them is. Costs nothing.
    pub fn backlog(&self) -> Backlog {
        let queue = self.queue_lock();
        let (stuck, reason) = queue.stuck();
        Backlog { files: queue.len(), stuck, reason: reason.or_else(|| self.coding_waits()) }
    }

    /// Segments that are being coded, the one that takes longest so far first.
    ///
    /// # Blocking
    /// Disk: their files' names are looked up.
    pub fn coding_now(&self) -> Vec<CodingNow> {
        let now_ms = host::monotonic_ms();
        let told = |job: &Job| {
            let now = CodingNow {
                offset: job.first.1,
                files: job.files,
                bytes: job.bytes,
                class: job.class.name().to_string(),
                tier: job.tier.name().to_string(),
                seconds: now_ms.saturating_sub(job.since_ms) / 1000,
                ..CodingNow::default()
            };
            (job.first.0, now)
        };
        let jobs: Vec<(Ino, CodingNow)> = self.counts.at_work.lock().1.values().map(told).collect();
        let named = |(ino, now)| CodingNow { file: self.path_of(ino).unwrap_or_else(|| format!("inode {ino}")), ..now };
        jobs.into_iter().map(named).collect()
    }

    /// Has files that could not be coded tried once more at the next look, instead of after their pause.
    pub fn try_failed_again(&self) {
        let now_ms = self.now_ms();
        self.queue_lock().try_failed_again(now_ms);
    }

    /// Counts for `status`. Costs no more than a look at the files that wait for coding.
    pub fn status(&self) -> Result<Status, Error> {
        let usage = self.store.usage();
        let (cache_bytes, cache_hits, cache_misses) = self.segments.counts();
        let (queued, queue_files, in_window, plain_files, stuck_files, stuck_reason) = {
            let queue = self.queue_lock();
            let (stuck, reason) = queue.stuck();
            (queue.some(QUEUED_LOOKED_AT_MAX), queue.len(), queue.window(), queue.plain_files(), stuck, reason)
        };
        let mut status = Status {
            uuid: self.store.uuid().to_string(),
            read_only: self.writable().is_err(),
            queue_files,
            queue_in_memory: in_window,
            plain_files,
            stuck_files,
            stuck_reason,
            coding_waits: self.coding_waits(),
            inodes: usage.inodes,
            inodes_in_memory: self.inodes.len() as u64,
            memory_budget_bytes: self.shares.budget,
            memory_model_bytes: self.model_bytes(),
            memory_shares: self.memory_shares(),
            memory_shrunk: self.watch.shrunk(),
            data_pack_bytes: usage.data_bytes,
            meta_pack_bytes: usage.meta_bytes,
            cache_bytes,
            cache_hits,
            cache_misses,
            hot: self.hot.as_ref().map_or_else(HotStatus::default, |hot| hot.status()),
            decodes: self.counts.decodes.load(Ordering::Relaxed),
            decode_failures: self.counts.decode_failures.load(Ordering::Relaxed),
            quarantined: self.quarantine.lock().unwrap_or_else(|e| e.into_inner()).len() as u64,
            damaged_staged: self.damaged_staging.lock().unwrap_or_else(|e| e.into_inner()).len() as u64,
            scrub: self.scrub_status(),
            ..Status::default()
        };
        let looked_at = queued.len() as u64;
        for ino in queued {
            if let Some(inode) = self.inodes.get(ino) {
                status.queue_bytes += self.staged_bytes(&inode.read());
            } else if let Ok((state, _)) = self.load(ino) {
                status.queue_bytes += state.staged_bytes;
            }
        }
        if looked_at > 0 && looked_at < queue_files {
            status.queue_bytes =
                (u128::from(status.queue_bytes) * u128::from(queue_files) / u128::from(looked_at)) as u64;
        }
        (status.gc_packs_deleted, status.gc_bytes_deleted, status.gc_kept) = self.gc_counts();
        let ledger = self.store.ledger();
        status.data_live_bytes = ledger.packs.values().map(|p| p.live_bytes).sum();
        status.shared_plain_bytes = ledger.packs.values().map(|p| p.shared_bytes).sum();
        status.shared_stored_bytes = ledger.packs.values().map(|p| p.shared_stored_bytes).sum();
        status.found_bytes = self.counts.found_bytes.load(Ordering::Relaxed);
        let [segments, plain, stored] = &self.counts.referring;
        status.referring_segments = segments.load(Ordering::Relaxed);
        status.referring_plain_bytes = plain.load(Ordering::Relaxed);
        status.referring_stored_bytes = stored.load(Ordering::Relaxed);
        for (method, sums) in ledger.methods {
            status.coded_plain_bytes += sums.plain_bytes;
            status.coded_stored_bytes += sums.stored_bytes;
            let known = status.methods.entry(method_name(method)).or_default();
            *known = (sums.extents, sums.plain_bytes, sums.stored_bytes);
        }
        Ok(status)
    }

    /// Holds what the index keeps of the use of packs against all extents; sentences about differences. For tests.
    pub fn audit(&self) -> Result<Vec<String>, Error> {
        self.store.audit().map_err(Error::Store)
    }

    pub(super) fn staged_bytes(&self, state: &super::InodeState) -> u64 {
        match staging::open(&*self.disk, state) {
            Ok(Some(file)) => file.allocated().unwrap_or(state.staged_bytes),
            Ok(None) => 0,
            Err(_) => state.staged_bytes,
        }
    }

    /// Per-segment facts of one file for `stat`. Headers are read from the packs, and payloads of some
    /// hundred segments of which nothing else tells how long they take; a damaged one shows as class "damaged".
    pub fn report(&self, ino: Ino) -> Result<FileReport, Error> {
        let inode = self.live(ino)?;
        let (size, staged_bytes, stored_bytes, parent, modified) = {
            let state = inode.read();
            if !state.is_regular() {
                return Err(Error::Invalid("only regular files have segments"));
            }
            (state.rec.size, self.staged_bytes(&state), state.rec.stored_bytes, state.rec.parent, state.rec.mtime)
        };
        let extents = self.all_coded(&inode)?;
        let coded: u64 = extents.iter().map(|e| u64::from(e.len)).sum();
        let stored: u64 = extents.iter().map(stored_share).sum();
        let (mut segments, mut class) = (Vec::new(), None);
        let (mut at, mut payloads_left) = (0, PAYLOADS_READ_MAX);
        let plain = |from: u64, to: u64| -> Option<SegmentReport> {
            (from < to).then(|| SegmentReport {
                file_offset: from,
                bytes: to - from,
                method: "staged or hole".to_string(),
                ..SegmentReport::default()
            })
        };
        for e in extents.iter().take(SEGMENTS_LISTED_MAX) {
            segments.extend(plain(at, e.file_offset));
            at = e.file_offset + u64::from(e.len);
            let header = self.store.segment_header(e.segment).map(|header| header.coding);
            class = class.or(header.as_ref().ok().map(|h| h.class));
            let unread = if self.store.has_deleted(e.segment.pack) { "moving" } else { "damaged" };
            let method = MethodId::from_u16(e.method);
            let (own_ms, part_bytes) =
                method.map_or((0, None), |m| self.cold(e.segment, m, e.segment_bytes, &mut payloads_left));
            let reference_ms = e.reference.map_or(0, |r| {
                let header = self.store.segment_header(r.segment).ok();
                let method = header.and_then(|header| MethodId::from_u16(header.coding.method));
                method.map_or(0, |m| self.cold(r.segment, m, r.segment_bytes, &mut payloads_left).0)
            });
            segments.push(SegmentReport {
                file_offset: e.file_offset,
                bytes: u64::from(e.len),
                method: method_name(e.method),
                class: header.as_ref().map_or(unread, |h| Class::name(h.class)).to_string(),
                revision: header.as_ref().map_or(0, |h| h.revision),
                pack: e.segment.pack.0,
                pack_offset: e.segment.offset,
                stored_bytes: u64::from(e.segment.stored_len),
                segment_bytes: u64::from(e.segment_bytes),
                bits_per_byte: f64::from(e.segment.stored_len) * 8.0 / f64::from(e.segment_bytes.max(1)),
                predicted_decode_ms: own_ms.saturating_add(reference_ms),
                part_bytes: u64::from(part_bytes.unwrap_or(e.segment_bytes)),
                reference: e.reference.map(|r| (r.segment.pack.0, r.segment.offset)),
                shared_bytes: self.shared_in(ino, e)?,
            });
        }
        segments.extend(plain(at, size));
        let saved = if coded == 0 { 0.0 } else { 1.0 - stored as f64 / coded as f64 };
        let shared_bytes = segments.iter().map(|s| s.shared_bytes).sum();
        let policy = self.policy_report(ino, parent, class, modified)?;
        Ok(FileReport { ino: ino.0, size, staged_bytes, stored_bytes, saved, shared_bytes, policy, segments })
    }

    /// Milliseconds that a cold read of a byte of a segment is expected to take, and the plain bytes of the parts that it is
    /// decoded in, where it has some. In which parts, and what else is in it, its payload says, of which `payloads_left` are read;
    /// without it opened containers are told by the bytes of the file.
    fn cold(&self, at: SegmentRef, method: MethodId, bytes: u32, payloads_left: &mut usize) -> (u32, Option<u32>) {
        let told = matches!(method, MethodId::Language | MethodId::Opened) && *payloads_left > 0;
        let Some((header, payload)) = told.then(|| self.store.fetch_segment(at).ok()).flatten() else {
            return (codec::predicted_decode_ms(method, bytes), None);
        };
        *payloads_left -= 1;
        let part_bytes = codec::part_bytes(&header.coding, &payload);
        (codec::predicted_payload_ms(method, &payload, part_bytes), Some(part_bytes))
    }
}
