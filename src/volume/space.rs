//! Admission: new data is taken only while there is space to make it durable.
//!
//! Below the mark of new data (`Marks::data` of the store, and what the reserve lacks) writes of new bytes, new files and
//! new attributes fail with `NoSpace`, and the kernel is not given more files to write to by itself. What makes space or
//! needs little goes on, with the reserve: deletes, renames, truncates, syncs. Below a lower mark nothing is coded; coding
//! goes on by itself when there is space again.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::types::Error;
use super::{Volume, policy};
use crate::store::Marks;

/// The filesystem is asked for its space this often, milliseconds, and in between only when what it had is used up:
/// other programs write to it too.
const LOOK_EVERY_MS: u64 = 50;
/// Inodes of the filesystem below that are left to what is not new files of users.
const FILES_LEFT: u64 = 16;

/// That new data is refused is said this often, milliseconds.
const SAY_EVERY_MS: u64 = 60_000;
/// What a new name may take in the log, bytes.
pub(super) const NAME_BYTES: u64 = 4096;
/// What must be free before the kernel is given a file to write to by itself, bytes: it asks nobody how much it may.
pub(super) const BYPASS_BYTES: u64 = 1 << 20;
/// Values of extended attributes up to this length, bytes, are taken like changes of attributes.
pub(super) const VALUE_BYTES_SMALL: usize = 1024;

/// What was last known of the space.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Bytes that may still be taken.
    left: AtomicI64,
    looked_ms: AtomicU64,
    /// When it was last said that new data is refused.
    said_ms: AtomicU64,
    /// Coding waits for space.
    coding_waits: AtomicBool,
}

impl Volume {
    /// Takes room for `bytes` of new data and their metadata.
    ///
    /// # Locks
    /// Called without any: it may sync the log.
    ///
    /// # Errors
    /// `NoSpace` when they might not become durable.
    pub(super) fn admit(&self, bytes: u64) -> Result<(), Error> {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        let now = self.now_ms();
        let fresh = now.saturating_sub(self.room.looked_ms.load(Ordering::Acquire)) < LOOK_EVERY_MS;
        if fresh && self.room.left.fetch_sub(wanted, Ordering::AcqRel) >= wanted {
            return Ok(());
        }
        let mut left = self.look(wanted);
        if left < wanted && !self.doomed_lock().is_empty() && self.writable().is_ok() {
            // Bytes of deleted files go when the log that ended them is on disk: now, instead of with the next flush.
            self.sync_log()?;
            left = self.look(wanted);
        }
        if left < wanted && self.hot.as_ref().is_some_and(|hot| hot.yield_to_store()) {
            left = self.look(wanted);
        }
        let admitted = left >= wanted;
        self.room.left.store(if admitted { left - wanted } else { 0 }, Ordering::Release);
        self.room.looked_ms.store(now, Ordering::Release);
        let said = self.room.said_ms.load(Ordering::Acquire);
        if !admitted && (said == 0 || now.saturating_sub(said) > SAY_EVERY_MS) {
            self.room.said_ms.store(now.max(1), Ordering::Release);
            log::warn!("the store's filesystem is full: new data is refused, deletes and syncs go on");
        }
        if admitted { Ok(()) } else { Err(Error::NoSpace) }
    }

    /// Bytes that new data may take now; `wanted` where the filesystem does not tell, since it refuses by itself when it is
    /// full.
    fn look(&self, wanted: i64) -> i64 {
        let Ok(space) = self.disk.space() else { return wanted };
        if space.total_files > 0 && space.free_files <= FILES_LEFT {
            return -1;
        }
        let marks = Marks::of(space.total_bytes);
        let held = marks.data.saturating_add(self.store.reserve_missing(&marks));
        i64::try_from(space.available_bytes).unwrap_or(i64::MAX).saturating_sub_unsigned(held)
    }

    /// How many segments there is room to code now, at most `limit`.
    pub(super) fn room_to_code(&self, limit: usize) -> usize {
        let look = || match self.disk.space() {
            Ok(space) => {
                let free = space.available_bytes.saturating_sub(Marks::of(space.total_bytes).coding);
                usize::try_from(free / policy::SEGMENT_STORED_BYTES_MAX).unwrap_or(usize::MAX).min(limit)
            }
            Err(_) => limit,
        };
        let mut segments = look();
        if limit > 0 && segments == 0 && self.hot.as_ref().is_some_and(|hot| hot.yield_to_store()) {
            segments = look();
        }
        self.room.coding_waits.store(limit > 0 && segments == 0, Ordering::Release);
        segments
    }

    /// Why nothing is coded, when the space is why.
    pub(super) fn coding_waits(&self) -> Option<String> {
        let waits = self.room.coding_waits.load(Ordering::Acquire);
        waits.then(|| "the store's filesystem is full: coding goes on when there is space".to_string())
    }
}
