//! Seals: checksums of staged bytes that nobody writes to, so that rot in staging is an error and never data.
//!
//! A file that stays in staging (coding is paused, far behind, or the volume is not mounted) is plain bytes on the
//! filesystem below. Once it has been quiet for a while its bytes are made durable, the CRC32C of each grain goes into the
//! log, and its staging is marked `sealed`: the size is exact, every read of it is checked, and so is what the coder reads.
//! The first change of the file takes the mark away, durably, before any byte is touched; so a power cut never leaves new
//! bytes under old checksums. What is coded of a grain counts as zeros in its checksum, whatever staging still holds there;
//! when more of it is coded, the transaction that says so puts the new checksum beside it (`seals_after_swap`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::Ordering;

use super::inode::{Inode, InodeState};
use super::types::Error;
use super::{EVERYTHING, Volume, staging};
use crate::base::{ByteRange, Ino, RangeSet, crc32c};
use crate::format::{Extent, INCOMPAT_SEALS, InodeRecord, MetaOp, SEAL_GRAIN_BYTES, SEAL_GRAINS, Staging};
use crate::host::{DiskFile, Seek};
use crate::store::Store;

/// Bytes under one key of checksums.
const GROUP_BYTES: u64 = SEAL_GRAIN_BYTES * SEAL_GRAINS;
/// Groups in one transaction: 128 KiB of checksums.
const GROUPS_PER_STEP: usize = 1024;
/// Runs of data looked up at a time.
const RUNS_PER_STEP: usize = 256;
/// Extents looked up at a time.
const EXTENTS_PER_PAGE: usize = 256;
/// Files and bytes of one round: what `seal_quiet` may take before it gives its thread back. One file is always taken.
const FILES_PER_ROUND: usize = 256;
const BYTES_PER_ROUND: u64 = 256 << 20;
/// From this many files on one sync of the whole filesystem costs less than one for each.
const SYNC_ALL_FROM: usize = 16;
/// An unmount seals for this long at most, milliseconds; what is left has the safety of the filesystem below.
const CLOSE_MS_MAX: u64 = 5_000;
/// Files whose staging failed a check and are remembered, so that each is logged once.
const DAMAGED_MAX: usize = 10_000;

/// Sums of the grains of one group, as far as the file reaches.
fn sums_of(store: &Store, rec: &InodeRecord, file: &dyn DiskFile, group: u64) -> Result<Vec<u32>, Error> {
    let range = ByteRange::at(group * GROUP_BYTES, GROUP_BYTES).intersect(&ByteRange { start: 0, end: rec.size });
    let mut buf = vec![0u8; range.len() as usize];
    staging::read(file, rec.ino, &mut buf, range.start)?;
    blank_coded(store, rec, range, &mut buf)?;
    Ok(buf.chunks(SEAL_GRAIN_BYTES as usize).map(crc32c).collect())
}

/// The groups of a file that hold data at or after `from`, ascending, a few at a time; empty at the end.
fn groups_with_data(file: &dyn DiskFile, ino: Ino, from: u64, size: u64) -> Result<Vec<u64>, Error> {
    let range = ByteRange { start: from.saturating_mul(GROUP_BYTES), end: size };
    let runs = staging::data_runs(file, ino, range, RUNS_PER_STEP)?;
    let mut groups: Vec<u64> = Vec::new();
    for run in runs {
        let first = (run.start / GROUP_BYTES).max(groups.last().map_or(from, |last| last + 1));
        let room = GROUPS_PER_STEP - groups.len();
        groups.extend((first..run.end.div_ceil(GROUP_BYTES)).take(room));
        if groups.len() >= GROUPS_PER_STEP {
            break;
        }
    }
    Ok(groups)
}

const DAMAGE: &str = "staged bytes are not what they were when they were sealed";

fn damaged(ino: Ino, offset: u64) -> Error {
    Error::Damaged { ino, offset, what: DAMAGE.to_string() }
}

/// Zeros what is coded of `range` in a buffer of its bytes: staging holds a hole there, or what it held before.
fn blank_coded(store: &Store, rec: &InodeRecord, range: ByteRange, buf: &mut [u8]) -> Result<(), Error> {
    let mut at = range.start;
    while rec.coded && at < range.end {
        let rest = ByteRange { start: at, end: range.end };
        let page = store.extents(rec.ino, rest, EXTENTS_PER_PAGE).map_err(Error::Store)?;
        for e in &page {
            let part = ByteRange::at(e.file_offset, u64::from(e.len)).intersect(&range);
            let (from, to) = ((part.start - range.start) as usize, (part.end - range.start) as usize);
            buf.get_mut(from..to).unwrap_or_default().fill(0);
            at = part.end;
        }
        if page.len() < EXTENTS_PER_PAGE {
            break;
        }
    }
    Ok(())
}

/// Checksum of a grain of zeros.
fn sum_of_zeros(len: u64) -> u32 {
    static ZEROS: [u8; SEAL_GRAIN_BYTES as usize] = [0; SEAL_GRAIN_BYTES as usize];
    crc32c(ZEROS.get(..len as usize).unwrap_or(&ZEROS))
}

/// What the transaction that swaps extents into a sealed file says of its checksums. Nothing is left in staging of the grains
/// that the extents fill; what is left of one that they fill in part is checked before it gets a new checksum. Where that
/// fails the old one stays, so that the rest goes on being damaged.
pub(super) fn seals_after_swap(
    store: &Store,
    rec: &InodeRecord,
    file: Option<&dyn DiskFile>,
    extents: &[Extent],
) -> Result<Vec<MetaOp>, Error> {
    let mut coded = RangeSet::default();
    extents.iter().for_each(|e| coded.insert(ByteRange::at(e.file_offset, u64::from(e.len))));
    let mut grain_buf = Vec::new();
    let mut groups: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for e in extents {
        let end = e.file_offset + u64::from(e.len);
        for n in e.file_offset / SEAL_GRAIN_BYTES..end.div_ceil(SEAL_GRAIN_BYTES) {
            let group = n / SEAL_GRAINS;
            let sums = match groups.entry(group) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(store.seal(rec.ino, group).map_err(Error::Store)?.unwrap_or_default()),
            };
            let Some(sum) = sums.get_mut((n % SEAL_GRAINS) as usize) else { continue };
            let grain = ByteRange::at(n * SEAL_GRAIN_BYTES, SEAL_GRAIN_BYTES);
            let grain = grain.intersect(&ByteRange { start: 0, end: rec.size });
            let parts = coded.within(grain);
            if parts.iter().map(|r| r.len()).sum::<u64>() == grain.len() {
                *sum = sum_of_zeros(grain.len());
                continue;
            }
            grain_buf.resize(grain.len() as usize, 0);
            match read_checked(store, rec, file, grain, &mut grain_buf) {
                Ok(()) => {}
                Err(Error::Damaged { .. }) => continue,
                Err(e) => return Err(e),
            }
            for part in parts.iter() {
                let (from, to) = ((part.start - grain.start) as usize, (part.end - grain.start) as usize);
                grain_buf.get_mut(from..to).unwrap_or_default().fill(0);
            }
            *sum = crc32c(&grain_buf);
        }
    }
    let known = groups.into_iter().filter(|(_, sums)| !sums.is_empty());
    Ok(known.map(|(group, sums)| MetaOp::PutSeal { ino: rec.ino, group, sums }).collect())
}

/// Reads `range` of a sealed staging file into `buf` and checks every grain it touches. What is coded of it
/// is left zero.
fn read_checked(
    store: &Store,
    rec: &InodeRecord,
    file: Option<&dyn DiskFile>,
    range: ByteRange,
    buf: &mut [u8],
) -> Result<(), Error> {
    let ino = rec.ino;
    let read = |buf: &mut [u8], at: u64| match file {
        Some(file) => staging::read(file, ino, buf, at),
        None => {
            buf.fill(0);
            Ok(())
        }
    };
    let mut sums: Option<(u64, Option<Vec<u32>>)> = None;
    let mut grain_buf = Vec::new();
    for n in range.start / SEAL_GRAIN_BYTES..range.end.div_ceil(SEAL_GRAIN_BYTES) {
        let grain = ByteRange::at(n * SEAL_GRAIN_BYTES, SEAL_GRAIN_BYTES);
        let grain = grain.intersect(&ByteRange { start: 0, end: rec.size });
        let part = grain.intersect(&range);
        let (from, to) = ((part.start - range.start) as usize, (part.end - range.start) as usize);
        let target = buf.get_mut(from..to).unwrap_or_default();
        let group = n / SEAL_GRAINS;
        if sums.as_ref().is_none_or(|(g, _)| *g != group) {
            sums = Some((group, store.seal(ino, group).map_err(Error::Store)?));
        }
        let sum = sums.as_ref().and_then(|(_, s)| s.as_ref()?.get((n % SEAL_GRAINS) as usize).copied());
        match sum {
            Some(sum) => {
                grain_buf.resize(grain.len() as usize, 0);
                read(&mut grain_buf, grain.start)?;
                blank_coded(store, rec, grain, &mut grain_buf)?;
                if crc32c(&grain_buf) != sum {
                    return Err(damaged(ino, grain.start));
                }
                let skip = (part.start - grain.start) as usize;
                target.copy_from_slice(grain_buf.get(skip..skip + target.len()).unwrap_or_default());
            }
            None => read(target, part.start)?,
        }
    }
    Ok(())
}

/// Calls `f` with every group of a sealed file that has checksums and meets `range`: what held no data is passed over by
/// what the log knows, not by what the file has.
fn each_group(
    store: &Store,
    rec: &InodeRecord,
    range: ByteRange,
    mut f: impl FnMut(u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut next, end) = (range.start / GROUP_BYTES, range.end.div_ceil(GROUP_BYTES));
    while rec.staging.is_some_and(|s| s.sealed) {
        let Some(group) = store.next_seal(rec.ino, next).map_err(Error::Store)?.filter(|g| *g < end) else { break };
        f(group)?;
        next = group + 1;
    }
    Ok(())
}

/// Checks all of a sealed staging file (`None`: it is not there); the error is the first damage. For tools. A file that is
/// not sealed has nothing to check.
pub fn check_staged(store: &Store, rec: &InodeRecord, file: Option<&dyn DiskFile>) -> Result<(), Error> {
    let mut buf = Vec::new();
    each_group(store, rec, EVERYTHING, |group| {
        let range = ByteRange::at(group * GROUP_BYTES, GROUP_BYTES).intersect(&ByteRange { start: 0, end: rec.size });
        buf.resize(range.len() as usize, 0);
        read_checked(store, rec, file, range, &mut buf)
    })
}

/// Fails when a sealed staging file has a hole in `range` where its checksums say that there was data: what is planned by the holes
/// of a file would take lost bytes for zeros. Reads no data.
pub(super) fn check_holes(
    store: &Store,
    rec: &InodeRecord,
    file: Option<&dyn DiskFile>,
    range: ByteRange,
) -> Result<(), Error> {
    each_group(store, rec, range, |group| {
        let sums = store.seal(rec.ino, group).map_err(Error::Store)?.unwrap_or_default();
        for (n, sum) in sums.into_iter().enumerate() {
            let start = group * GROUP_BYTES + n as u64 * SEAL_GRAIN_BYTES;
            let grain = ByteRange::at(start, SEAL_GRAIN_BYTES).intersect(&ByteRange { start: 0, end: rec.size });
            if sum == sum_of_zeros(grain.len()) || grain.intersect(&range).is_empty() {
                continue;
            }
            let data = match file {
                Some(file) => file.seek(start, Seek::Data).map_err(|e| staging::io_error("seek in", rec.ino, e))?,
                None => None,
            };
            if data.is_none_or(|at| at >= grain.end) {
                return Err(damaged(rec.ino, start));
            }
        }
        Ok(())
    })
}

impl Volume {
    /// Reads staged bytes, zeros where there is no staging file; those of a sealed file are checked.
    pub(super) fn read_staged(
        &self,
        state: &InodeState,
        file: Option<&dyn DiskFile>,
        range: ByteRange,
        buf: &mut [u8],
    ) -> Result<(), Error> {
        match file {
            _ if state.rec.staging.is_some_and(|s| s.sealed) => read_checked(&self.store, &state.rec, file, range, buf),
            Some(file) => staging::read(file, state.rec.ino, buf, range.start),
            None => {
                buf.fill(0);
                Ok(())
            }
        }
    }

    /// Logs damage of staged bytes once a file, with its path. Not under the inode's lock, since paths are looked up.
    pub(super) fn note_staged_damage(&self, error: &Error) {
        let Error::Damaged { ino, offset, what } = error else { return };
        if what != DAMAGE {
            return;
        }
        let fresh = {
            let mut known = self.damaged_staging.lock().unwrap_or_else(|e| e.into_inner());
            known.len() < DAMAGED_MAX && known.insert(*ino)
        };
        if fresh {
            let path = self.path_of(*ino).unwrap_or_else(|| format!("inode {ino}"));
            log::error!("{path} (inode {ino}) is damaged near offset {offset}: {what}");
        }
    }

    /// Takes the seal off, before the first change of a file. Costs nothing where there is none.
    ///
    /// # Durability
    /// The log on disk no longer holds the seal at return.
    ///
    /// # Locks
    /// The inode's is held over a sync: rare, and the file must not be changed before it.
    pub(super) fn unseal(&self, state: &mut InodeState) -> Result<(), Error> {
        let Some(sealed) = state.rec.staging.filter(|s| s.sealed) else { return Ok(()) };
        state.rec.staging = Some(Staging { sealed: false, ..sealed });
        if let Err(e) =
            self.log(&[MetaOp::RemoveSeals { ino: state.rec.ino }, MetaOp::PutInode(state.record_for_log())])
        {
            state.rec.staging = Some(sealed);
            return Err(e);
        }
        state.dirty = false;
        self.sync_log().inspect_err(|_| {
            // The next change is to try again, and not to go on as if the seal were off on disk too.
            state.rec.staging = Some(sealed);
        })
    }

    /// Seals staged files that have been quiet for a while: a round of bounded work. True when more may be waiting.
    ///
    /// # Durability
    /// The bytes of what was sealed are on disk at return; the seals are with the next sync of the log.
    ///
    /// # Blocking
    /// Disk: reads every byte it seals.
    pub fn seal_quiet(&self) -> Result<bool, Error> {
        self.writable()?;
        if self.hurried.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if !self.store.has_room(0) {
            // The reserve is for what makes room, not for checksums.
            return Ok(false);
        }
        let after = Ino(self.seal_cursor.load(Ordering::Relaxed));
        let page = self.store.unsealed(after, FILES_PER_ROUND).map_err(Error::Store)?;
        let Some(last) = page.last().copied() else {
            self.seal_cursor.store(0, Ordering::Relaxed);
            return Ok(false);
        };
        let quiet_before = self.now_ms().saturating_sub(self.adjustable().seal_ms);
        let (mut files, mut bytes, mut reached) = (Vec::new(), 0, last);
        for ino in page {
            if bytes >= BYTES_PER_ROUND {
                break;
            }
            reached = ino;
            let inode = match self.inode(ino) {
                Ok(inode) => inode,
                Err(Error::NotFound) => continue,
                Err(e) => return Err(e),
            };
            let state = inode.read();
            if is_sealable(&state)
                && state.changed_ms <= quiet_before
                && !staging::is_shared(staging::open(&*self.disk, &state)?.as_deref())
            {
                bytes += state.rec.size.min(self.staged_bytes(&state));
                drop(state);
                files.push(inode);
            }
        }
        self.seal_cursor.store(reached.0, Ordering::Relaxed);
        let all_synced = files.len() >= SYNC_ALL_FROM;
        if all_synced {
            self.seal_after_sync(&files)?;
        } else {
            for inode in &files {
                self.log_inode(inode, true)?;
                self.seal(inode)?;
            }
        }
        Ok(true)
    }

    /// Makes the bytes of several files durable by one sync of the filesystem, then seals those that did not change meanwhile.
    fn seal_after_sync(&self, files: &[std::sync::Arc<Inode>]) -> Result<(), Error> {
        let before: Vec<_> = files.iter().map(|inode| inode.read().rec.generation).collect();
        self.sync_disk()?;
        for (inode, generation) in files.iter().zip(before) {
            {
                let mut state = inode.write();
                if state.removed || state.rec.generation != generation {
                    continue;
                }
                state.all_synced();
            }
            self.seal(inode)?;
        }
        Ok(())
    }

    /// Seals one file whose bytes are durable, unless it changes meanwhile.
    fn seal(&self, inode: &Inode) -> Result<(), Error> {
        let ino = inode.ino;
        self.store.set_incompat(INCOMPAT_SEALS).map_err(|e| self.store_failed(e))?;
        let (file, rec, swaps) = {
            let state = inode.read();
            if !is_sealable(&state) || state.unsynced {
                return Ok(());
            }
            let file = staging::open(&*self.disk, &state)?;
            if staging::is_shared(file.as_deref()) {
                return Ok(());
            }
            (file, state.rec.clone(), state.swaps)
        };
        // Checksums first, the mark last: until it is there nobody looks at them.
        let (size, generation) = (rec.size, rec.generation);
        let mut ops = Vec::new();
        if self.store.next_seal(ino, 0).map_err(Error::Store)?.is_some() {
            // Of a time when it was sealed, or begun to be.
            ops.push(MetaOp::RemoveSeals { ino });
        }
        let mut next = 0;
        while let Some(file) = &file {
            let groups = groups_with_data(&**file, ino, next, size)?;
            let Some(last) = groups.last() else { break };
            next = last + 1;
            for group in groups {
                ops.push(MetaOp::PutSeal { ino, group, sums: sums_of(&self.store, &rec, &**file, group)? });
            }
            if ops.len() >= GROUPS_PER_STEP {
                self.log(&std::mem::take(&mut ops))?;
            }
        }
        let mut state = inode.write();
        let Some(staging) = state.rec.staging.filter(|_| is_sealable(&state)) else { return Ok(()) };
        if state.unsynced || state.rec.generation != generation || state.swaps != swaps {
            return Ok(());
        }
        let mut rec = state.rec.clone();
        rec.staging = Some(Staging { growing: false, sealed: true, ..staging });
        ops.push(MetaOp::PutInode(rec.clone()));
        self.log(&ops)?;
        state.rec = rec;
        (state.durable_size, state.dirty) = (size, false);
        Ok(())
    }

    /// Seals what is left when the volume closes: nothing changes any more and everything has been synced.
    pub(super) fn seal_at_close(&self) -> Result<(), Error> {
        if !self.store.has_room(0) {
            return Ok(());
        }
        let until = self.now_ms() + CLOSE_MS_MAX;
        let (mut after, mut left) = (Ino(0), 0u64);
        loop {
            let page = self.store.unsealed(after, FILES_PER_ROUND).map_err(Error::Store)?;
            let Some(last) = page.last().copied() else { break };
            after = last;
            for ino in page {
                if self.now_ms() > until {
                    left += 1;
                    continue;
                }
                let Ok(inode) = self.inode(ino) else { continue };
                {
                    let mut state = inode.write();
                    if !state.has_writers() {
                        state.all_synced();
                    }
                }
                self.seal(&inode)?;
            }
        }
        if left > 0 {
            log::info!(
                "{left} staged files were not sealed in time: rot in them would not be noticed before they are coded"
            );
        }
        Ok(())
    }
}

/// A file that can be sealed: staged, not sealed, nobody writes, and the log knows all that was overwritten.
fn is_sealable(state: &InodeState) -> bool {
    !state.removed
        && state.is_regular()
        && state.rec.staging.is_some_and(|s| !s.sealed)
        && state.rec.nlink > 0
        && !state.has_writers()
        && state.unlogged.is_empty()
}
