//! `fsck`: holds all metadata of a store against itself and against the packs.
//!
//! Checks: every name leads to an inode, every inode has as many names as it says and can be reached, every extent lies in
//! its file and its segment's record is whole, staging belongs to inodes. With `rebuild_index` the index is made anew from
//! the packs first. Repairs beyond that are not made here; nothing else is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::{Progress, tree};
use crate::base::{ByteRange, Ino, SegmentRef};
use crate::format::FileKind;
use crate::host::Disk;
use crate::store::{Error, IndexEngine, Recovery, Store, StoreOptions};

/// Extents read at a time.
const PAGE: usize = 4096;

/// Something that is not as it should be.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file, or what part of the store.
    pub at: String,
    pub what: String,
}

/// Outcome of a check.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FsckReport {
    pub inodes: u64,
    pub extents: u64,
    pub segments: u64,
    /// Metadata transactions read from the packs.
    pub replayed: u64,
    pub index_rebuilt: bool,
    pub problems: Vec<Problem>,
}

/// Checks a store that is not mounted.
///
/// # Errors
/// Only when the check itself cannot go on: no store, in use, the disk fails.
pub fn fsck(disk: Arc<dyn Disk>, rebuild_index: bool, progress: Progress<'_>) -> Result<FsckReport, Error> {
    let options = |read_only, rebuild| StoreOptions {
        engine: IndexEngine::Sled,
        read_only,
        peek: false,
        rebuild,
        pack_bytes_max: u64::MAX,
    };
    let mut rebuilt = None;
    if rebuild_index {
        let (store, recovery) = Store::open(disk.clone(), options(false, true))?;
        store.close()?;
        rebuilt = Some(recovery);
    }
    // From the packs alone: what the index says must follow from them.
    let (store, recovery) = Store::open(disk.clone(), options(true, false))?;
    let mut report = FsckReport {
        replayed: recovery.replayed,
        index_rebuilt: rebuilt.is_some(),
        problems: damage(recovery).chain(rebuilt.into_iter().flat_map(damage)).collect(),
        ..FsckReport::default()
    };
    report.problems.dedup();
    check(&store, &mut report, progress)?;
    check_staging(&*disk, &store, &mut report)?;
    for what in store.audit()? {
        report.problems.push(Problem { at: "sums of the index".into(), what });
    }
    Ok(report)
}

fn damage(recovery: Recovery) -> impl Iterator<Item = Problem> {
    recovery.damage.into_iter().map(|what| Problem { at: "packs".into(), what })
}

fn check(store: &Store, report: &mut FsckReport, progress: Progress<'_>) -> Result<(), Error> {
    let tree = tree::walk(store)?;
    for (at, what) in &tree.wrong {
        report.problems.push(Problem { at: at.clone(), what: what.clone() });
    }
    let total = store.usage().inodes;
    let mut whole: BTreeSet<SegmentRef> = BTreeSet::new();
    tree::each_inode(store, |rec| {
        report.inodes += 1;
        progress(report.inodes, total);
        let at = tree.paths.get(&rec.ino).cloned().unwrap_or_else(|| format!("inode {}", rec.ino));
        let mut wrong = |what: String| report.problems.push(Problem { at: at.clone(), what });
        let names = tree.links.get(&rec.ino).copied().unwrap_or(0);
        if names == 0 && rec.nlink > 0 {
            wrong(format!("inode {} has no name", rec.ino));
        } else if names != u64::from(rec.nlink) {
            wrong(format!("inode {} has {names} links, its record says {}", rec.ino, rec.nlink));
        }
        if rec.kind != FileKind::Regular {
            return Ok(());
        }
        let mut from = 0;
        loop {
            let page = store.extents(rec.ino, ByteRange { start: from, end: u64::MAX }, PAGE)?;
            for e in &page {
                report.extents += 1;
                let end = e.file_offset + u64::from(e.len);
                if e.file_offset < from {
                    wrong(format!("two extents hold byte {}", e.file_offset));
                }
                if end > rec.size && rec.staging.is_none() {
                    wrong(format!("an extent ends at {end}, beyond the size {}", rec.size));
                }
                from = end;
                if whole.insert(e.segment) {
                    report.segments += 1;
                    match store.fetch_segment(e.segment) {
                        Ok((header, _)) if header.coding.raw_len != e.segment_bytes => {
                            wrong(format!("segment at {} is not as long as its extent says", e.segment));
                        }
                        Ok(_) => {}
                        Err(Error::Io { what, source }) if source.kind() != std::io::ErrorKind::NotFound => {
                            return Err(Error::Io { what, source });
                        }
                        Err(e) => wrong(e.to_string()),
                    }
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    })
}

fn check_staging(disk: &dyn Disk, store: &Store, report: &mut FsckReport) -> Result<(), Error> {
    for name in disk.list("staging").map_err(|source| Error::Io { what: "list staging".into(), source })? {
        let inode = name.split_once('.').and_then(|(ino, epoch)| Some((ino.parse().ok()?, epoch.parse::<u64>().ok()?)));
        let ours = match inode {
            Some((ino, epoch)) => store.inode(Ino(ino))?.is_some_and(|r| r.staging.is_some_and(|s| s.epoch == epoch)),
            None => false,
        };
        if !ours {
            let what = "belongs to no inode; the next mount removes it".to_string();
            report.problems.push(Problem { at: format!("staging/{name}"), what });
        }
    }
    Ok(())
}
