//! `scrub` of a store that is not mounted, or beside a mount that does not answer: see volume/scrub.rs. Writes nothing but
//! what was verified when, and not even that while another process holds the store.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Progress;
use crate::host::Disk;
use crate::store::{self, Error, IndexEngine, Store, StoreOptions};
use crate::volume::{self, ScrubOptions, ScrubReport};

/// Reads and checks everything. `progress` is told bytes of packs.
///
/// # Errors
/// Only when the scrub itself cannot go on; damage is in the report.
pub fn scrub(disk: Arc<dyn Disk>, options: ScrubOptions, progress: Progress<'_>) -> Result<ScrubReport, Error> {
    let open = |peek| {
        let options = StoreOptions { engine: IndexEngine::Memory, read_only: true, peek, ..StoreOptions::default() };
        Store::open(disk.clone(), options)
    };
    let ((store, _), peek) = match open(false) {
        // What is put in its place under a follower would be taken for damage.
        Err(Error::Locked) if !store::is_replica(&*disk)? => (open(true)?, true),
        other => (other?, false),
    };
    let stop = AtomicBool::new(false);
    volume::scrub(&disk, &store, &volume::library_of(&disk, &store), options, peek, &stop, &mut |s| {
        progress(s.done_bytes, s.total_bytes)
    })
}
