//! Commands that work on a store directly.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::client::store_of;
use super::{Failure, Outcome, config, show};
use crate::base::{ModelId, PACK_BYTES_MAX};
use crate::host::{self, Disk, RealDisk};
use crate::store::Store;
use crate::tools;
use crate::volume::{
    Error as VolumeError, GcRun, LanguageReport, RecodeReport, ScrubOptions, ScrubReport, Status, TrainReport, Volume,
    VolumeOptions, VolumeReport,
};
use crate::workers::Workers;

/// Exit code when a check found damage.
pub(super) const DAMAGED: i32 = 3;
/// Exit code when damage was found, and all of it repaired.
const REPAIRED: i32 = 5;

pub(super) fn disk(store: &Path, create: bool) -> Result<Arc<dyn Disk>, Failure> {
    let disk = RealDisk::open(store, create)
        .map_err(|e| Failure(format!("cannot use {} as a store: {e}", store.display())))?;
    Ok(disk)
}

pub(super) fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

pub(super) fn mkfs(store: &Path) -> Outcome {
    let uuid = tools::mkfs(&disk(store, true)?, PACK_BYTES_MAX)?;
    println!("made store {uuid} in {}; mount it with `tersefs mount {0} MOUNTPOINT`", store.display());
    Ok(0)
}

/// Runs something long under a bar that it tells how far it is.
pub(super) fn with_bar<T>(bar: ProgressBar, work: impl FnOnce(tools::Progress<'_>) -> T) -> T {
    let done = work(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    done
}

pub(super) fn fsck(store: &Path, options: tools::FsckOptions, json: bool) -> Outcome {
    let disk = disk(store, false)?;
    let report = with_bar(bar("checking [{bar:30}] {pos}/{len} inodes, {elapsed}"), |progress| {
        tools::fsck_with(disk, options, progress)
    });
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

/// Bar of a scrub, in bytes of packs.
pub(super) fn scrub_bar() -> ProgressBar {
    bar("scrubbing [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
}

/// Scrubs a store that no daemon serves.
pub(super) fn scrub(store: &Path, options: ScrubOptions) -> Result<ScrubReport, Failure> {
    let disk = disk(store, false)?;
    with_bar(scrub_bar(), |progress| tools::scrub(disk, options, progress))
        .map_err(|e| Failure(format!("{}: {e}", store.display())))
}

/// Shows what a scrub found; the exit code.
pub(super) fn scrubbed(report: &ScrubReport, json: bool) -> Outcome {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        for d in &report.damaged {
            let files = if d.files.is_empty() { "no file needs these bytes".to_string() } else { d.files.join(", ") };
            match d.pack {
                0 => println!("{}: {files}", d.what),
                pack => println!("pack {pack} offset {}: {}: {files}", d.offset, d.what),
            }
        }
        println!(
            "{} packs read ({} left out, {} parts mended from parity), {} segments{}, {} of plain data, {} staged files: {} damaged{}",
            report.packs,
            report.packs_skipped,
            report.mended,
            report.segments,
            match report.not_decoded {
                0 => String::new(),
                n => format!(" ({n} of language models by their checksums alone)"),
            },
            show::bytes(report.plain_bytes),
            report.staged_files,
            report.damaged_count,
            if report.complete { "" } else { "; stopped early, the next scrub goes on here" }
        );
    }
    Ok(if report.damaged_count == 0 { 0 } else { DAMAGED })
}

/// Bytes of packs gone through per step.
const GC_STEP_BYTES: u64 = 16 << 20;

pub(super) fn gc(store: &Path, dry_run: bool, json: bool) -> Outcome {
    let report = with_volume(store, dry_run, |volume| {
        let plan = volume.plan_gc().map_err(failed(store))?;
        if dry_run || !json {
            show::gc_plan(&plan, json)?;
        }
        let mut run = GcRun::new(&plan);
        if !dry_run {
            let bar = bar("giving back [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left");
            bar.set_length(plan.packs.iter().map(|p| p.live_bytes).sum());
            while !run.is_done() {
                bar.inc(volume.gc_step(&mut run, GC_STEP_BYTES).map_err(failed(store))?);
            }
            bar.finish_and_clear();
        }
        Ok(run.report)
    })?;
    if !dry_run {
        show::gc_report(&report, json)?;
    }
    Ok(0)
}

/// What went wrong with a store's volume, and which store it is.
fn failed(store: &Path) -> impl Fn(VolumeError) -> Failure + '_ {
    move |e| Failure(format!("{}: {e}", store.display()))
}

/// Opens a store that no daemon serves, to be changed by `f`.
fn with_volume<T>(
    store: &Path,
    read_only: bool,
    f: impl FnOnce(&Arc<Volume>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let options = VolumeOptions { read_only, ..VolumeOptions::default() };
    let (volume, _) = Volume::open(disk(store, false)?, options, Arc::new(Workers::new(1))).map_err(failed(store))?;
    let done = f(&volume);
    volume.close().map_err(failed(store))?;
    done
}

pub(super) fn train(store: &Path, dry_run: bool) -> Result<TrainReport, Failure> {
    with_volume(store, dry_run, |volume| volume.train(dry_run).map_err(failed(store)))
}

pub(super) fn recode(store: &Path, saves_percent: u32) -> Result<RecodeReport, Failure> {
    with_volume(store, false, |volume| {
        let mut run = volume.plan_recode(saves_percent);
        while !run.is_done() {
            volume.recode_step(&mut run).map_err(failed(store))?;
        }
        Ok(run.report)
    })
}

/// Takes a language model into a store that no daemon serves.
pub(super) fn add_language(store: &Path, model: &Path, adapter: Option<&Path>) -> Result<LanguageReport, Failure> {
    with_volume(store, false, |volume| {
        with_bar(bar("copying [{bar:30}] {bytes}/{total_bytes}, {elapsed}"), |progress| {
            volume.add_language(model, adapter, progress).map_err(failed(store))
        })
    })
}

/// Removes a language model from a store that no daemon serves.
pub(super) fn remove_language(store: &Path, id: ModelId) -> Result<(), Failure> {
    with_volume(store, false, |volume| volume.remove_language(id).map_err(failed(store)))
}

/// Shows what went through a tar stream; the exit code.
fn archived(report: &tools::ArchiveReport, verb: &str, json: bool) -> Outcome {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        report.left_out.iter().for_each(|what| eprintln!("tersefs: left out: {what}"));
        eprintln!(
            "{verb} {} files of {}, {} directories, {} links and others{}",
            report.files,
            show::bytes(report.bytes),
            report.directories,
            report.others,
            if report.left_out.is_empty() { String::new() } else { format!("; left out {}", report.left_out.len()) }
        );
    }
    Ok(if report.left_out.is_empty() { 0 } else { DAMAGED })
}

fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

/// The store that is meant: the one of a volume that is given by its name, where no directory has that.
pub(super) fn store_to_open(path: &Path) -> Result<PathBuf, Failure> {
    if !host::exists(path) {
        return Ok(config::store_named(path)?.unwrap_or_else(|| path.to_path_buf()));
    }
    match host::mount_of(path).map_err(|e| Failure(format!("{}: {e}", path.display())))? {
        Some(m) if m.kind == "fuse.tersefs" => {
            let what = format!("{} is in a mounted volume: use tar there, or unmount it", path.display());
            Err(Failure(format!("{what} and give its store, {}", m.source)))
        }
        _ => Ok(path.to_path_buf()),
    }
}

/// Writes files of a store that no daemon serves as a tar stream.
pub(super) fn export(store: &Path, paths: &[PathBuf]) -> Outcome {
    let mut paths: Vec<Vec<u8>> = paths.iter().map(|path| path_bytes(path)).collect();
    if paths.is_empty() {
        paths.push(b"/".to_vec());
    }
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        return Err(Failure("a tar stream is not for a terminal: write it to a file or a pipe (`> FILE`)".into()));
    }
    let report = with_volume(&store_to_open(store)?, true, |volume| {
        with_bar(bar("writing [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}"), |progress| {
            tools::export(volume, &paths, &mut out, progress).map_err(Failure)
        })
    })?;
    out.flush()?;
    archived(&report, "wrote", false)
}

/// Takes a tar stream into a store that no daemon serves.
pub(super) fn import(store: &Path, into: &Path, json: bool) -> Outcome {
    let mut stream = io::stdin().lock();
    if stream.is_terminal() {
        return Err(Failure(
            "a tar stream does not come from a terminal: read it from a file or a pipe (`< FILE`)".into(),
        ));
    }
    let known = store_to_open(store)?;
    let store = known.as_path();
    let of_store = disk(store, true)?;
    if !Store::exists(&of_store)? {
        tools::mkfs(&of_store, PACK_BYTES_MAX)?;
        log::info!("made a new store in {}", store.display());
    }
    drop(of_store);
    let report = with_volume(store, false, |volume| {
        with_bar(ProgressBar::new_spinner(), |progress| {
            tools::import(volume, &path_bytes(into), &mut stream, progress).map_err(Failure)
        })
    })?;
    archived(&report, "took in", json)
}

/// Writes the bytes of a file of a store that no daemon serves.
pub(super) fn cat_raw(store: &Path, path: &Path) -> Outcome {
    with_volume(&store_to_open(store)?, true, |volume| {
        let mut out = io::stdout().lock();
        tools::cat(volume, &path_bytes(path), &mut out).map_err(Failure)?;
        Ok(out.flush()?)
    })?;
    Ok(0)
}

/// What a volume that no daemon serves takes, and how it is.
pub(super) fn survey(store: &Path, depth: usize, top: usize) -> Result<(VolumeReport, Status), Failure> {
    with_volume(store, true, |volume| {
        let report = volume.survey(depth, top).map_err(failed(store))?;
        Ok((report, volume.status().map_err(failed(store))?))
    })
}

/// Tells what a file of a store that no daemon serves costs and why.
pub(super) fn explain(store: &Path, path: &Path, json: bool) -> Outcome {
    let report =
        with_volume(&store_to_open(store)?, true, |volume| tools::explain(volume, &path_bytes(path)).map_err(Failure))?;
    show::explanation(&path.display().to_string(), &report, json)?;
    Ok(0)
}

/// The directory of a store, to be looked at beside a daemon that may serve it.
pub(super) fn look_at(store: &Path) -> Result<Arc<dyn Disk>, Failure> {
    disk(store, false)
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
