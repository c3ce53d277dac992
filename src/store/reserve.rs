//! The reserve: space held back so that deletes, renames, syncs, checks and the end of a mount work on a full disk.
//!
//! On disk: the file `reserve`, whose bytes mean nothing and whose blocks are the point. It is given back in steps when
//! a write of metadata finds no space, and filled again when there is room. A store without it is whole: it may be deleted
//! at any time. Nothing of it is synced, since a crash costs only blocks that the next mount takes again.
//!
//! Deciding is pure (`Marks`): how much is held back, and below how much free space what is refused.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::host::{self, Disk, DiskFile, OpenMode, Space};

/// File of the reserve.
pub(crate) const RESERVE_FILE: &str = "reserve";
/// Largest reserve, bytes: metadata of a hundred thousand deletes, and room for the index to be opened.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// Smallest reserve worth having, bytes.
const RESERVE_BYTES_MIN: u64 = 4 << 20;
/// Share of the filesystem that the reserve takes between these: one part in this many.
const RESERVE_SHARE: u64 = 50;
/// It is given back in this many steps: a program that writes past us cannot take all of it at once.
const STEPS: u64 = 16;
/// Smallest step, bytes.
const STEP_BYTES_MIN: u64 = 64 << 10;
/// One part in this many is left to deletes alone: if renames and changes of attributes could take it all, nobody could
/// make room any more.
const KEPT_FOR_DELETES: u64 = 4;
/// Zeros written at a time where the filesystem cannot reserve.
const ZEROS: usize = 1 << 20;

/// Amounts of free space that something depends on, bytes. All follow from the size of the filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    /// Bytes of the reserve.
    pub reserve: u64,
    /// Below this much free space nothing is coded.
    pub coding: u64,
    /// Below this much free space no new data and no new files are taken. Higher than `coding`: a volume full of plain
    /// files can still shrink them.
    pub data: u64,
}

impl Marks {
    /// The marks of a filesystem of a size.
    pub fn of(total_bytes: u64) -> Marks {
        // Not more than an eighth of a tiny filesystem.
        let reserve = (total_bytes / RESERVE_SHARE).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX).min(total_bytes / 8);
        Marks { reserve, coding: reserve / 4, data: reserve / 2 + reserve / 4 }
    }
}

struct Held {
    file: Option<Arc<dyn DiskFile>>,
    /// Bytes of the file, all of them allocated.
    bytes: u64,
    /// It was said that the reserve is being used.
    in_use: bool,
    /// Why it could not be filled was said.
    complained: bool,
}

/// The reserve of an open store.
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    held: Mutex<Held>,
}

impl Reserve {
    /// Looks at what there is; nothing is changed until `fill`.
    pub fn new(disk: Arc<dyn Disk>) -> Reserve {
        let bytes = disk.open(RESERVE_FILE, OpenMode::Read).and_then(|f| f.len().map(|len| (len, f.allocated())));
        let bytes = match bytes {
            // One that was cut off while it was filled holds less than it is long.
            Ok((len, allocated)) => allocated.map_or(0, |a| a.min(len)),
            Err(_) => 0,
        };
        Reserve { disk, held: Mutex::new(Held { file: None, bytes, in_use: false, complained: false }) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Bytes held back now.
    pub fn bytes(&self) -> u64 {
        self.held().bytes
    }

    fn file(&self, held: &mut Held) -> std::io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &held.file {
            return Ok(file.clone());
        }
        let file = self.disk.open(RESERVE_FILE, OpenMode::Create)?;
        held.file = Some(file.clone());
        Ok(file)
    }

    /// Gives a step of the reserve back to the filesystem. False when nothing is left; without `last`, when only the part
    /// is left that is kept for deletes.
    pub fn release(&self, last: bool) -> bool {
        let full = Marks::of_disk(&*self.disk).reserve;
        let mut held = self.held();
        if !last && held.bytes <= full / KEPT_FOR_DELETES {
            return false;
        }
        self.shrink(&mut held, (full / STEPS).max(STEP_BYTES_MIN))
    }

    /// Gives all of it back.
    pub fn release_all(&self) {
        let mut held = self.held();
        let all = held.bytes;
        self.shrink(&mut held, all);
    }

    fn shrink(&self, held: &mut Held, step: u64) -> bool {
        if held.bytes == 0 {
            return false;
        }
        let left = held.bytes.saturating_sub(step);
        let Ok(file) = self.file(held) else { return false };
        if file.set_len(left).is_err() {
            return false;
        }
        // The blocks are free for others once the filesystem has committed their release. A failure here is nobody's
        // loss: the write that follows tells whether there is space.
        let _ = file.sync_data();
        if !std::mem::replace(&mut held.in_use, true) {
            log::warn!("the store's filesystem is full: the reserve is used to let deletes and syncs go on");
        }
        held.bytes = left;
        true
    }

    /// Takes the reserve again when there is room for it above the mark of new data. Without room, or where the filesystem
    /// cannot, it stays as it is.
    pub fn fill(&self) {
        let Ok(space) = self.disk.space() else { return };
        let marks = Marks::of(space.total_bytes);
        let mut held = self.held();
        if held.bytes >= marks.reserve {
            return;
        }
        if space.available_bytes < marks.reserve - held.bytes + marks.data {
            return;
        }
        let filled = self.file(&mut held).and_then(|file| {
            let before = held.bytes;
            file.set_len(marks.reserve)?;
            match file.allocate(0, marks.reserve) {
                Err(e) if e.kind() == std::io::ErrorKind::Unsupported => zero(&*file, before, marks.reserve),
                other => other,
            }
            .inspect_err(|_| {
                // Longer than what is held, it would be taken for a full one.
                let _ = file.set_len(before);
            })
        });
        match filled {
            Ok(()) => {
                held.bytes = marks.reserve;
                (held.in_use, held.complained) = (false, false);
            }
            Err(e) if host::is_out_of_space(&e) => {}
            Err(e) => {
                if !std::mem::replace(&mut held.complained, true) {
                    log::warn!("no space can be held back for a full disk: {e}");
                }
            }
        }
    }
}

impl Marks {
    /// The marks of the filesystem of a store; those of a large one when it does not tell.
    pub fn of_disk(disk: &dyn Disk) -> Marks {
        Marks::of(disk.space().unwrap_or(Space { total_bytes: u64::MAX, ..Space::default() }).total_bytes)
    }
}

fn zero(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; ZEROS];
    let mut at = from;
    while at < to {
        let n = (to - at).min(ZEROS as u64);
        file.write_at(zeros.get(..n as usize).unwrap_or_default(), at)?;
        at += n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_follow_the_size_of_the_filesystem() {
        let mib = |n: u64| n << 20;
        assert_eq!(Marks::of(mib(100_000)), Marks { reserve: mib(64), coding: mib(16), data: mib(48) });
        assert_eq!(Marks::of(mib(64)), Marks { reserve: mib(4), coding: mib(1), data: mib(3) });
        assert_eq!(Marks::of(mib(1000)).reserve, mib(20));
        assert_eq!(Marks::of(mib(8)).reserve, mib(1));
        assert_eq!(Marks::of(0), Marks { reserve: 0, coding: 0, data: 0 });
    }
}
