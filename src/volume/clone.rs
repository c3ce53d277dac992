//! Copies of ranges between files of the volume that share what is coded (copy_file_range, `cp --reflink`).
//!
//! A coded range costs one extent for each segment, whatever its length: nothing is decoded and no byte is copied. Holes
//! become holes. Staged bytes are copied, a bounded number at a time: a short answer is legal and the kernel asks again.
//! Files that the kernel writes to by itself are declined; it then copies through its own pages.

use super::data::{EXTENTS_PER_PAGE, coded_in, stored_share};
use super::inode::{InodeState, lock_all, locked};
use super::types::{Error, HandleId};
use super::{FILE_BYTES_MAX, Volume, staging};
use crate::base::{ByteRange, Ino};
use crate::format::{Extent, MetaOp};

/// Bytes of a file looked at in one call.
const RANGE_BYTES_MAX: u64 = 1 << 31;
/// Extents shared in one call: they go into one transaction.
const EXTENTS_MAX: usize = 8192;
/// Staged bytes copied in one call, with both files locked.
const STAGED_BYTES_MAX: u64 = 4 << 20;
/// Runs of staged data looked up between two extents.
const RUNS_MAX: usize = 256;
/// Staged bytes read at a time; zeros of this length, where holes are not to be trusted, become a hole.
const STEP_BYTES: u64 = 64 << 10;

/// A part of what is copied, at its place in the source.
enum Part {
    Coded(Extent),
    Staged(u64, Vec<u8>),
    Hole(ByteRange),
}

/// Parts of the source in order, without gaps, up to `end`.
struct Plan {
    parts: Vec<Part>,
    end: u64,
    staged_left: u64,
}

impl Plan {
    fn hole(&mut self, until: u64) {
        if until > self.end {
            self.parts.push(Part::Hole(ByteRange { start: self.end, end: until }));
            self.end = until;
        }
    }
}

impl Volume {
    /// Makes bytes of one file those of another, or of another place in the same. Returns how many, from the start of the
    /// range: fewer than asked at the end of the source, and where only so many are copied at a time.
    ///
    /// # Errors
    /// `Unsupported` for files that the kernel writes to past us, `Invalid` for ranges of one file that overlap.
    ///
    /// # Durability
    /// As of a write: with the next `fsync` of the target.
    pub fn clone_range(
        &self,
        from: Ino,
        offset: u64,
        to: Ino,
        handle: HandleId,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, Error> {
        self.writable()?;
        // Sharing needs some log, copying needs room; where there is none for copies, sharing goes on.
        let may_copy = self.admit(STAGED_BYTES_MAX).is_ok();
        if !may_copy {
            self.admit(super::space::NAME_BYTES)?;
        }
        let both = [self.live(from)?, self.live(to)?];
        let mut guards = lock_all(&both);
        let Some(source) = locked(&mut guards, from) else { return Err(Error::NotFound) };
        check(source)?;
        let end = offset.saturating_add(len.min(RANGE_BYTES_MAX)).min(source.rec.size);
        let range = ByteRange { start: offset, end };
        if range.is_empty() {
            return Ok(0);
        }
        let into = ByteRange::at(to_offset, range.len());
        if into.end > FILE_BYTES_MAX {
            return Err(Error::TooBig);
        }
        if from == to && !range.intersect(&into).is_empty() {
            return Err(Error::Invalid("a range cannot be copied onto itself"));
        }
        let plan = self.plan_clone(source, range, if may_copy { STAGED_BYTES_MAX } else { 0 })?;
        if plan.end == offset {
            return Err(Error::NoSpace);
        }
        let Some(target) = locked(&mut guards, to) else { return Err(Error::NotFound) };
        check(target)?;
        if !target.handles.get(&handle).is_some_and(|open| open.write) {
            return Err(Error::BadHandle);
        }
        self.apply_clone(target, &plan, offset, to_offset)?;
        Ok(plan.end - offset)
    }

    fn plan_clone(&self, source: &InodeState, range: ByteRange, staged_left: u64) -> Result<Plan, Error> {
        let mut plan = Plan { parts: Vec::new(), end: range.start, staged_left };
        let extents = coded_in(self, source, range)?;
        let more = extents.len() > EXTENTS_MAX;
        for e in extents.into_iter().take(EXTENTS_MAX) {
            if !self.plan_gap(source, &mut plan, e.file_offset)? {
                return Ok(plan);
            }
            plan.end = e.file_offset + u64::from(e.len);
            plan.parts.push(Part::Coded(e));
        }
        if !more {
            self.plan_gap(source, &mut plan, range.end)?;
        }
        Ok(plan)
    }

    /// What is not coded up to `until`. False when the plan has become large enough before it.
    fn plan_gap(&self, source: &InodeState, plan: &mut Plan, until: u64) -> Result<bool, Error> {
        let ino = source.rec.ino;
        let gap = ByteRange { start: plan.end, end: until };
        let file = staging::open(&*self.disk, source)?;
        // A sealed file says itself where it has data: a hole in its staging may be bytes that were lost.
        let sealed = source.rec.staging.is_some_and(|s| s.sealed);
        let runs = match &file {
            _ if sealed => vec![gap],
            Some(file) => staging::data_runs(&**file, ino, gap, RUNS_MAX)?,
            None => Vec::new(),
        };
        let more = runs.len() >= RUNS_MAX;
        for run in runs {
            plan.hole(run.start);
            while plan.end < run.end {
                if plan.staged_left == 0 {
                    return Ok(false);
                }
                let step = STEP_BYTES.min(plan.staged_left).min(run.end - plan.end);
                let mut buf = vec![0; step as usize];
                self.read_staged(source, file.as_deref(), ByteRange::at(plan.end, step), &mut buf)?;
                plan.staged_left -= step;
                if sealed && buf.iter().all(|b| *b == 0) {
                    plan.hole(plan.end + step);
                } else {
                    plan.parts.push(Part::Staged(plan.end, buf));
                    plan.end += step;
                }
            }
        }
        if more {
            return Ok(false);
        }
        plan.hole(until);
        Ok(true)
    }

    /// Holes first, then bytes, then extents: what fails on the way leaves old bytes or new ones.
    fn apply_clone(&self, target: &mut InodeState, plan: &Plan, offset: u64, to_offset: u64) -> Result<(), Error> {
        let ino = target.rec.ino;
        let place = |at: u64| at - offset + to_offset;
        self.unseal(target)?;
        for part in &plan.parts {
            if let Part::Hole(hole) = part {
                self.punch(target, ByteRange { start: place(hole.start), end: place(hole.end) })?;
            }
        }
        for part in &plan.parts {
            if let Part::Staged(at, bytes) = part {
                self.stage(target, place(*at), bytes)?;
            }
        }
        let extents: Vec<Extent> = plan
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Coded(e) => Some(Extent { file_offset: place(e.file_offset), ..*e }),
                Part::Staged(..) | Part::Hole(_) => None,
            })
            .collect();
        self.share(target, &extents)?;
        let end = place(plan.end);
        if end > target.rec.size {
            self.truncate(target, end)?;
        }
        target.touch_data(self.now(), self.now_ms());
        if target.rec.staging.is_some() {
            self.enqueue(target);
        }
        self.mark_dirty(ino);
        Ok(())
    }

    /// Makes ranges of a file those of segments that others own too. They are on disk, as is whatever an extent names.
    fn share(&self, target: &mut InodeState, extents: &[Extent]) -> Result<(), Error> {
        let Some(last) = extents.last() else { return Ok(()) };
        let ino = target.rec.ino;
        let mut rec = target.rec.clone();
        let mut ops = Vec::with_capacity(extents.len() + 1);
        for e in extents {
            let range = ByteRange::at(e.file_offset, u64::from(e.len));
            if rec.coded {
                let old = self.store.extents(ino, range, EXTENTS_PER_PAGE).map_err(Error::Store)?;
                let replaced: u64 = old
                    .iter()
                    .map(|old| {
                        let part = ByteRange::at(old.file_offset, u64::from(old.len)).intersect(&range);
                        stored_share(&Extent { len: part.len() as u32, ..*old })
                    })
                    .sum();
                rec.stored_bytes = rec.stored_bytes.saturating_sub(replaced);
            }
            ops.push(MetaOp::PutExtent { ino, extent: *e });
        }
        rec.stored_bytes += extents.iter().map(stored_share).sum::<u64>();
        rec.coded = true;
        rec.size = rec.size.max(last.file_offset + u64::from(last.len));
        // What is coded is durable: only unsynced bytes keep the size from being a promise.
        let durable_size = if target.unsynced { target.durable_size } else { rec.size };
        let mut logged = rec.clone();
        if logged.staging.is_some_and(|s| s.growing) {
            logged.size = durable_size;
        }
        ops.push(MetaOp::PutInode(logged));
        self.log(&ops)?;
        (target.rec, target.durable_size) = (rec, durable_size);
        for e in extents {
            target.unlogged.remove(ByteRange::at(e.file_offset, u64::from(e.len)));
        }
        target.swaps += 1;
        Ok(())
    }
}

/// Only regular files are copied, and only those whose bytes pass through us.
fn check(state: &InodeState) -> Result<(), Error> {
    state.alive()?;
    if !state.is_regular() {
        return Err(if state.is_directory() { Error::IsDirectory } else { Error::Invalid("not a regular file") });
    }
    if state.bypassing.is_empty() { Ok(()) } else { Err(Error::Unsupported) }
}
