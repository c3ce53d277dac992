//! One memory budget, and what becomes of it.
//!
//! `Shares::of` splits the budget; every cache and queue takes its bound from there and nowhere else. Tables of models are
//! counted apart: each worker thread keeps one set, whatever the budget (`model_bytes`). What a share bounds is measured in
//! bytes of its own, which allocator and engine exceed, so the resident memory of the process is watched too
//! (`tend_memory`): above the budget everything that can be had again is dropped, and the engine of the index is opened anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::types::Share;
use super::{Volume, coding, inode};
use crate::base::MethodId;
use crate::codec;
use crate::host;

const MIB: u64 = 1 << 20;
/// Smaller budgets are taken for this one, bytes: the program, its threads and the largest requests need as much.
pub const BUDGET_BYTES_MIN: u64 = 64 * MIB;
/// Memory is given back from this part of the budget on, in hundredths, before it is exceeded.
const HIGH: u64 = 85;
/// After the engine was opened anew it is left alone for this long, milliseconds: if that did not help, doing it again
/// will not either.
const REOPEN_EVERY_MS: u64 = 30_000;
/// Bytes that an inode takes in memory, with its share of the tables' room.
const INODE_BYTES: u64 = 1024;

/// Bounds in bytes, parts of one budget. What is left over is for the program itself, its threads, and segments on their
/// way through the coders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shares {
    /// All of it, without the tables of models.
    pub budget: u64,
    /// Decoded segments.
    pub segments: u64,
    /// Changes of the index that wait for a checkpoint, and those that one is writing: half each.
    pub overlay: u64,
    /// The engine of the index. Nothing bounds it but being opened anew: it uses several times the cache it is given.
    pub engine: u64,
    /// Inodes kept beyond those in use.
    pub inodes: u64,
    /// The window of the coding queue.
    pub queue: u64,
}

impl Shares {
    /// Splits `budget` bytes. `segments` asks for another share of the cache of decoded segments, at most half of all.
    pub fn of(budget: u64, segments: Option<u64>) -> Shares {
        let budget = budget.max(BUDGET_BYTES_MIN);
        let part = |n: u64| budget / 32 * n;
        Shares {
            budget,
            segments: segments.unwrap_or(part(8)).min(part(16)),
            overlay: part(6),
            engine: part(6),
            inodes: part(2),
            queue: part(1),
        }
    }

    /// Inodes that the share holds.
    pub(super) fn inodes_max(&self) -> usize {
        (self.inodes / INODE_BYTES) as usize
    }

    /// Files that the share of the queue holds.
    pub(super) fn queue_files_max(&self) -> usize {
        (self.queue / coding::ITEM_BYTES) as usize
    }
}

/// What the watch over the memory has done.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Times that memory was given back.
    shrunk: AtomicU64,
    reopened_ms: AtomicU64,
    /// It was said that the budget is exceeded, and it still is.
    said: AtomicBool,
}

impl Watch {
    pub fn shrunk(&self) -> u64 {
        self.shrunk.load(Ordering::Relaxed)
    }
}

impl Volume {
    /// Bytes that the tables of models take at most: one set for each thread of the pool, the priors and language models in use,
    /// and what each thread computes with these.
    pub fn model_bytes(&self) -> u64 {
        // Threads that do what takes minutes have tables too.
        let each = match self.library.languages.is_empty() {
            true => codec::model_bytes(),
            false => 2 * codec::model_bytes() + codec::method_memory_bytes(MethodId::Language),
        };
        each * 2 * self.workers.threads() as u64 + codec::kept_model_bytes()
    }

    /// Looks at the memory of the process and gives some back when it nears the budget. Called by a timer.
    ///
    /// # Blocking
    /// When the engine of the index is opened anew, look-ups wait for it: a second or so for a million files.
    pub fn tend_memory(&self) {
        let limit = self.shares.budget + self.model_bytes();
        let high = limit / 100 * HIGH;
        if host::memory().0 <= high {
            self.watch.said.store(false, Ordering::Relaxed);
            return;
        }
        self.watch.shrunk.fetch_add(1, Ordering::Relaxed);
        self.inodes.shrink();
        host::give_memory_back();
        if host::memory().0 > high {
            self.segments.trim(self.shares.segments / 4);
            host::give_memory_back();
        }
        let now = self.now_ms();
        let rested = now.saturating_sub(self.watch.reopened_ms.load(Ordering::Relaxed)) > REOPEN_EVERY_MS;
        if host::memory().0 > high && rested && self.writable().is_ok() {
            if let Err(e) = self.checkpoint() {
                log::warn!("checkpoint: {e}");
            }
            self.store.reopen_index();
            self.watch.reopened_ms.store(now, Ordering::Relaxed);
            host::give_memory_back();
        }
        let (rss, _) = host::memory();
        if rss > limit && !self.watch.said.swap(true, Ordering::Relaxed) {
            log::warn!(
                "memory is {} MiB, above the budget of {} MiB and {} MiB for models; caches were emptied, `status` shows more",
                rss / MIB,
                self.shares.budget / MIB,
                self.model_bytes() / MIB
            );
        }
    }

    /// Bytes in use and bytes allowed, for each share that can be counted.
    pub(super) fn memory_shares(&self) -> BTreeMap<String, Share> {
        let queue = self.queue_lock().memory_bytes();
        [
            ("decoded segments", self.segments.counts().0, self.shares.segments),
            ("index changes", self.store.overlay_bytes(), self.shares.overlay),
            ("inodes", self.inodes.len() as u64 * INODE_BYTES, self.shares.inodes),
            ("coding queue", queue, self.shares.queue),
        ]
        .into_iter()
        .map(|(name, used, share)| (name.to_string(), Share { used, share }))
        .collect()
    }
}

// An inode with its state, its lock and its place in a table must fit what it is counted as.
const _: () = assert!(size_of::<inode::Inode>() + 2 * size_of::<usize>() * 4 < INODE_BYTES as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_leave_room_for_the_program() {
        for mib in [0, 1, 64, 100, 128, 512, 4096, 1 << 20] {
            for segments in [None, Some(0), Some(4 * MIB), Some(u64::MAX)] {
                let s = Shares::of(mib * MIB, segments);
                let given = s.segments + s.overlay + s.engine + s.inodes + s.queue;
                assert!(s.budget >= BUDGET_BYTES_MIN && s.budget >= mib * MIB);
                assert!(given + s.budget / 32 <= s.budget, "{mib} MiB, {segments:?}: {s:?}");
                assert!(s.inodes_max() >= 4096 && s.queue_files_max() >= 4096, "{s:?}");
            }
        }
    }

    #[test]
    fn a_wish_for_the_cache_is_met_up_to_half() {
        assert_eq!(Shares::of(512 * MIB, None).segments, 128 * MIB);
        assert_eq!(Shares::of(512 * MIB, Some(7 * MIB)).segments, 7 * MIB);
        assert_eq!(Shares::of(512 * MIB, Some(u64::MAX)).segments, 256 * MIB);
    }
}
