//! Commands that work on a store directly.

use std::path::Path;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::client::store_of;
use super::{Failure, Outcome, show};
use crate::host::{Disk, RealDisk};
use crate::tools;

/// Exit code when a check found damage.
const DAMAGED: i32 = 3;
/// Exit code when damage was found, and all of it repaired.
const REPAIRED: i32 = 5;
/// Bytes after which a pack is closed.
const PACK_BYTES_MAX: u64 = 256 << 20;

fn disk(store: &Path, create: bool) -> Result<Arc<dyn Disk>, Failure> {
    let disk = RealDisk::open(store, create)
        .map_err(|e| Failure(format!("cannot use {} as a store: {e}", store.display())))?;
    Ok(disk)
}

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

pub(super) fn mkfs(store: &Path) -> Outcome {
    let uuid = tools::mkfs(&disk(store, true)?, PACK_BYTES_MAX)?;
    println!("made store {uuid} in {}; mount it with `tersefs mount {0} MOUNTPOINT`", store.display());
    Ok(0)
}

pub(super) fn fsck(store: &Path, options: tools::FsckOptions, json: bool) -> Outcome {
    let bar = bar("checking [{bar:30}] {pos}/{len} inodes, {elapsed}");
    let report = tools::fsck_with(disk(store, false)?, options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.map_err(|e| Failure(format!("{}: {e}", store.display())))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show::fsck(&report, options.repair);
    }
    Ok(match (report.problems.is_empty(), report.left()) {
        (true, _) => 0,
        (false, 0) => REPAIRED,
        (false, _) => DAMAGED,
    })
}

pub(super) fn scrub(path: &Path, json: bool) -> Outcome {
    let bar = bar("scrubbing [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left");
    let report = tools::scrub(disk(&store_of(path)?, false)?, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.map_err(|e| Failure(format!("{}: {e}", path.display())))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for d in &report.damaged {
            println!("pack {} offset {}: {}: {}", d.pack, d.offset, d.what, d.files.join(", "));
        }
        println!(
            "{} packs, {} segments, {} of plain data read: {} damaged",
            report.packs,
            report.segments,
            show::bytes(report.plain_bytes),
            report.damaged.len()
        );
    }
    Ok(if report.damaged.is_empty() { 0 } else { DAMAGED })
}

pub(super) fn inspect(path: &Path, json: bool) -> Outcome {
    let mut failed = None;
    tools::inspect(disk(&store_of(path)?, false)?, |line| {
        if json {
            match serde_json::to_string(&line) {
                Ok(text) => println!("{text}"),
                Err(e) => failed = Some(e),
            }
        } else {
            show::inspect_line(&line);
        }
    })?;
    failed.map_or(Ok(0), |e| Err(e.into()))
}
