//! `scrub`: reads every segment of a store, decodes it and checks its hash. Works beside a mount; writes nothing.

use std::sync::Arc;

use serde::Serialize;

use super::{Progress, tree};
use crate::codec;
use crate::format::Owner;
use crate::host::Disk;
use crate::store::{Error, IndexEngine, RecordSummary, Store, StoreOptions, Survey};

/// Bytes that are lost.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Damaged {
    pub pack: u64,
    pub offset: u64,
    pub what: String,
    /// Files that had bytes there when the segment was written. A later version of a file may lie elsewhere.
    pub files: Vec<String>,
}

/// Outcome of a scrub.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ScrubReport {
    pub packs: u64,
    pub segments: u64,
    pub stored_bytes: u64,
    pub plain_bytes: u64,
    pub damaged: Vec<Damaged>,
}

/// Reads and decodes everything. `progress` is told bytes of packs.
///
/// # Errors
/// Only when the scrub itself cannot go on; damage is in the report.
pub fn scrub(disk: Arc<dyn Disk>, progress: Progress<'_>) -> Result<ScrubReport, Error> {
    let survey = Survey::open(disk.clone())?;
    let options = StoreOptions {
        engine: IndexEngine::Memory,
        read_only: true,
        peek: true,
        rebuild: false,
        pack_bytes_max: u64::MAX,
    };
    let (store, _) = Store::open(disk, options)?;
    let tree = tree::walk(&store)?;
    let name = |o: &Owner| tree.paths.get(&o.ino).cloned().unwrap_or_else(|| format!("inode {} (deleted)", o.ino));
    let packs = survey.packs()?;
    let total: u64 = packs.iter().map(|(_, _, len)| len).sum();
    let mut report = ScrubReport::default();
    let mut before = 0;
    for (id, _, len) in packs {
        report.packs += 1;
        survey.walk(id, true, |offset, record_len, record| {
            progress(before + offset, total);
            report.stored_bytes += record_len;
            match record {
                RecordSummary::Segment { header, payload: Some(payload), .. } => {
                    report.segments += 1;
                    report.plain_bytes += u64::from(header.coding.raw_len);
                    if let Err(e) = codec::decode(&header.coding, &payload) {
                        let mut files: Vec<String> = header.owners.iter().map(name).collect();
                        files.dedup();
                        report.damaged.push(Damaged { pack: id.0, offset, what: e.to_string(), files });
                    }
                }
                // A record cut off at the end of a pack was never acknowledged.
                RecordSummary::Damage { at_end: true, .. } => {}
                RecordSummary::Damage { what, .. } => {
                    // What was there is asked of the metadata: which files have extents in these bytes.
                    let range = offset..offset + record_len;
                    let files = files_at(&store, &tree, id, &range)?;
                    report.damaged.push(Damaged { pack: id.0, offset, what, files });
                }
                RecordSummary::Segment { .. }
                | RecordSummary::Pack { .. }
                | RecordSummary::Meta { .. }
                | RecordSummary::Snapshot { .. }
                | RecordSummary::SnapshotEnd { .. } => {}
            }
            Ok(())
        })?;
        before += len;
    }
    progress(total, total);
    Ok(report)
}

/// Paths of files with segments in a range of a pack.
fn files_at(
    store: &Store,
    tree: &tree::Tree,
    pack: crate::base::PackId,
    range: &std::ops::Range<u64>,
) -> Result<Vec<String>, Error> {
    let mut files = Vec::new();
    tree::each_inode(store, |rec| {
        let mut from = 0;
        loop {
            let page = store.extents(rec.ino, crate::base::ByteRange { start: from, end: u64::MAX }, 4096)?;
            if page.iter().any(|e| e.segment.pack == pack && range.contains(&e.segment.offset)) {
                files.push(tree.paths.get(&rec.ino).cloned().unwrap_or_else(|| format!("inode {}", rec.ino)));
                return Ok(());
            }
            match page.last() {
                Some(e) if page.len() == 4096 => from = e.file_offset + u64::from(e.len),
                _ => return Ok(()),
            }
        }
    })?;
    Ok(files)
}
