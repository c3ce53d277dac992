//! `estimate` and `bench`: measurements as tables, plots of plain text, or JSON.

use std::path::{Path, PathBuf};

use super::show::bytes;
use super::{Failure, Outcome, client, offline, plot};
use crate::codec::{Policy, Tier};
use crate::host;
use crate::tools::{self, BenchReport, BenchRow, EstimateReport, LanguageEstimate, MediaRow, TierEstimate};
use crate::volume::Explanation;

/// Width of the longest bar, characters.
const BAR_CHARS: usize = 50;
/// Plot of ratio against speed: columns, which double the speed every few, and rows.
const PLOT: (usize, usize) = (64, 16);
/// Paths that could not be read, shown without --json.
const UNREADABLE_SHOWN: usize = 10;

pub(super) fn estimate(path: &Path, sample_mib: u64, model: Option<&Path>, json: bool) -> Outcome {
    let bar = offline::bar("coding a sample [{bar:30}] {pos}/{len} segments, {elapsed}");
    let report = offline::with_bar(bar, |progress| tools::estimate(path, sample_mib << 20, model, progress));
    let report = report.map_err(|e| Failure(format!("cannot estimate {}: {e}", path.display())))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show_estimate(&path.display().to_string(), &report);
    }
    Ok(0)
}

/// What a file takes, and would take under other policies.
#[derive(serde::Serialize)]
struct WhatIf {
    bytes: u64,
    whole: bool,
    /// What it takes now, where it is one file of a mounted volume.
    now: Option<Explanation>,
    tiers: Vec<TierEstimate>,
}

pub(super) fn what_if(path: &Path, tier: Option<Tier>, decode_ms: Option<u32>, sample_mib: u64, json: bool) -> Outcome {
    let now = client::explained(path).ok();
    let tiers = tier.map_or(Tier::ALL.to_vec(), |tier| vec![tier]);
    let policies: Vec<Policy> = tiers.into_iter().map(|tier| Policy { decode_ms, ..Policy::of(tier) }).collect();
    let bar = offline::bar("coding a sample [{bar:30}] {pos}/{len} segments, {elapsed}");
    let report =
        offline::with_bar(bar, |progress| tools::estimate_under(path, sample_mib << 20, &policies, None, progress));
    let report = report.map_err(|e| Failure(format!("cannot tell of {}: {e}", path.display())))?;
    if let Some((path, why)) = report.unreadable_paths.first() {
        return Err(Failure(format!("{path}: {why}")));
    }
    let found = WhatIf { bytes: report.bytes, whole: report.whole, now, tiers: report.tiers };
    if json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        show_what_if(&path.display().to_string(), &found);
    }
    Ok(0)
}

fn show_what_if(name: &str, found: &WhatIf) {
    println!("{name}: {} of data", bytes(found.bytes));
    println!("  {:<10} {:>11} {:>8} {:>11} {:>11} {:>10}", "", "takes", "ratio", "cold read", "read MB/s", "code MB/s");
    if let Some(now) = &found.now {
        let taken = now.stored_bytes + now.staged_bytes;
        let cold = now.kinds.iter().map(|k| k.cold_read_ms).max().unwrap_or(0);
        let ratio = taken as f64 / found.bytes.max(1) as f64;
        println!("  {:<10} {:>11} {ratio:>8.3} {:>8} ms", "now", bytes(taken), cold);
    }
    for t in &found.tiers {
        println!(
            "  {:<10} {:>11} {:>8.3} {:>8.0} ms {:>11} {:>10}",
            t.tier,
            bytes(t.coded_bytes),
            t.ratio,
            t.cold_read_ms,
            known(t.decode_mb_s, 2),
            known(t.encode_mb_s, 2)
        );
    }
    if !found.whole {
        let margins: Vec<String> = found.tiers.iter().map(|t| bytes(t.margin_bytes)).collect();
        println!("from samples: with 95 % confidence no further off than {}", margins.join(", "));
    }
    println!("without what the volume has learned or has already; small files are coded together there");
}

pub(super) fn bench(files: &[PathBuf], model: Option<&Path>, svg: Option<&Path>, json: bool) -> Outcome {
    let bar = offline::bar("measuring [{bar:30}] {pos}/{len}, {elapsed}");
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let report = offline::with_bar(bar, |progress| tools::bench(&paths, model, progress)).map_err(Failure)?;
    if let Some(file) = svg {
        host::write_file(file, plot::svg(&report).as_bytes())
            .map_err(|e| Failure(format!("cannot write {}: {e}", file.display())))?;
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show_bench(&report);
    }
    Ok(0)
}

pub(super) fn bench_media(paths: &[PathBuf], models: &[PathBuf], json: bool) -> Outcome {
    let bar = offline::bar("measuring [{bar:30}] {pos}/{len}, {elapsed}");
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let models: Vec<&Path> = models.iter().map(PathBuf::as_path).collect();
    let report = offline::with_bar(bar, |progress| tools::bench_media(&paths, &models, progress)).map_err(Failure)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(0);
    }
    println!(
        "{:<18} {:>11} {:>7} {:>10} {:>10} {:>10} {:>8}",
        "codec", "bytes", "bpb", "code MB/s", "read MB/s", "memory", "ours"
    );
    for kind in &report.kinds {
        println!("{}: {} of class {} in {} files", kind.directory, bytes(kind.bytes), kind.class, kind.files);
        show_media(&kind.rows);
        if let Some(ours) = kind.begun.first() {
            println!("{}: the first 64 KiB of each, {}", kind.directory, bytes(ours.row.plain_bytes));
            show_media(&kind.begun);
        }
    }
    println!("ours: how much more or less tersefs takes than the codec of the line");
    if report.passed_over > 0 {
        println!("passed over: {} files of other kinds, or of more than 256 MiB", report.passed_over);
    }
    for (program, why) in &report.missing {
        println!("left out: {program}: {why}");
    }
    Ok(0)
}

fn show_media(rows: &[MediaRow]) {
    for MediaRow { row, ours_to_it } in rows {
        println!(
            "  {:<16} {:>11} {:>7.3} {:>10.2} {:>10.2} {:>10} {:>+7.1}%",
            row.method,
            row.coded_bytes,
            row.bits_per_byte,
            row.encode_mb_s,
            row.decode_mb_s,
            bytes(row.memory_bytes),
            (ours_to_it - 1.0) * 100.0
        );
    }
}

/// A method with the length of its segments.
fn named(row: &BenchRow) -> String {
    match row.segment_bytes {
        Some(segment) => format!("{} {} KiB", row.method, segment >> 10),
        None => row.method.clone(),
    }
}

fn show_bench(report: &BenchReport) {
    let table = |rows: &[BenchRow]| {
        println!(
            "  {:<18} {:>11} {:>7} {:>10} {:>10} {:>10}",
            "method", "bytes", "bpb", "code MB/s", "read MB/s", "memory"
        );
        for row in rows {
            println!(
                "  {:<18} {:>11} {:>7.3} {:>10.2} {:>10.2} {:>10}",
                named(row),
                row.coded_bytes,
                row.bits_per_byte,
                row.encode_mb_s,
                row.decode_mb_s,
                bytes(row.memory_bytes)
            );
        }
    };
    for f in &report.files {
        println!("{}: {} of class {}", f.name, bytes(f.bytes), f.class);
        table(&f.rows);
    }
    if report.files.len() > 1 {
        println!("all files");
        table(&report.all);
    }
    for (program, why) in &report.missing {
        println!("left out: {program}: {why}");
    }
    println!("\nbits per byte (down is better) against MB/s of decoding (right is better); * marks the frontier");
    plot(&report.all).into_iter().for_each(|line| println!("{line}"));
}

/// True when no other way is both smaller and faster.
fn is_best(row: &BenchRow, rows: &[BenchRow]) -> bool {
    !rows.iter().any(|r| {
        (r.coded_bytes < row.coded_bytes && r.decode_mb_s >= row.decode_mb_s)
            || (r.coded_bytes <= row.coded_bytes && r.decode_mb_s > row.decode_mb_s)
    })
}

/// Ratio against speed, speed in logarithms, each row of the table by a letter.
fn plot(rows: &[BenchRow]) -> Vec<String> {
    let speed = |r: &BenchRow| r.decode_mb_s.max(1e-3).log2();
    let span = |values: &dyn Fn(&BenchRow) -> f64| {
        let (low, high) = rows.iter().map(values).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        (low, (high - low).max(1e-9))
    };
    let ((x0, width), (y0, height)) = (span(&speed), span(&|r| r.bits_per_byte));
    let mut grid = vec![vec![' '; PLOT.0]; PLOT.1];
    let mut legend = Vec::new();
    for (row, letter) in rows.iter().zip('a'..='z') {
        let x = ((speed(row) - x0) / width * (PLOT.0 - 1) as f64).round() as usize;
        let y = ((y0 + height - row.bits_per_byte) / height * (PLOT.1 - 1) as f64).round() as usize;
        // Of two in one place the first is seen.
        if let Some(place) = grid.get_mut(y).and_then(|line| line.get_mut(x)).filter(|c| **c == ' ') {
            *place = letter;
        }
        let mark = if is_best(row, rows) { '*' } else { ' ' };
        legend.push(format!(
            "  {mark} {letter} {:<18} {:>7.3} {:>10.2}",
            named(row),
            row.bits_per_byte,
            row.decode_mb_s
        ));
    }
    let label = |n: usize| match n {
        0 => format!("{:>7.3}", y0 + height),
        n if n + 1 == PLOT.1 => format!("{y0:>7.3}"),
        _ => " ".repeat(7),
    };
    let mut out: Vec<String> =
        grid.into_iter().enumerate().map(|(n, line)| format!("{} |{}", label(n), String::from_iter(line))).collect();
    out.push(format!("        +{}", "-".repeat(PLOT.0)));
    let (slow, fast) = (format!("{:.2}", x0.exp2()), format!("{:.2} MB/s", (x0 + width).exp2()));
    out.push(format!("         {slow:<half$}{fast:>half$}", half = PLOT.0 / 2));
    out.extend(legend);
    out
}

/// A bar as long as `value` is of `largest`.
fn bar_of(value: f64, largest: f64) -> String {
    let chars = if largest > 0.0 { (value / largest * BAR_CHARS as f64).round() as usize } else { 0 };
    "#".repeat(chars.min(BAR_CHARS))
}

/// What is unknown shows as a dash.
fn known(value: f64, digits: usize) -> String {
    if value > 0.0 { format!("{value:.digits$}") } else { "-".to_string() }
}

fn show_estimate(name: &str, r: &EstimateReport) {
    println!("{name}: {} files, {} in {} directories", r.files, bytes(r.bytes), r.directories);
    let others = [
        (r.hard_links, "further names of the same files"),
        (r.symlinks, "symlinks, not followed"),
        (r.special_files, "special files"),
    ];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        println!("  left out: {count} {what}");
    }
    if r.unreadable > 0 {
        println!("  unreadable: {}", r.unreadable);
        for (path, why) in r.unreadable_paths.iter().take(UNREADABLE_SHOWN) {
            println!("    {path}: {why}");
        }
    }
    if r.bytes == 0 {
        println!("there is nothing to code");
        return;
    }
    for t in &r.tiers {
        let margin = if r.whole { "all of it coded".to_string() } else { format!("+- {}", bytes(t.margin_bytes)) };
        println!(
            "\n{}: {} ({:.1} %, {margin}), from {} in {} segments",
            t.tier,
            bytes(t.coded_bytes),
            t.ratio * 100.0,
            bytes(t.sampled_bytes),
            t.segments
        );
        println!(
            "  {:<14} {:>9} {:>11} {:>11} {:>7} {:>10} {:>10} {:>10}",
            "class", "files", "bytes", "coded", "ratio", "code MB/s", "read MB/s", "cold read"
        );
        let row = |class: &str, files: u64, plain: u64, coded: u64, ratio: f64, speeds: [f64; 3]| {
            println!(
                "  {class:<14} {files:>9} {:>11} {:>11} {ratio:>7.3} {:>10} {:>10} {:>7} ms",
                bytes(plain),
                bytes(coded),
                known(speeds[0], 2),
                known(speeds[1], 2),
                known(speeds[2], 1)
            );
        };
        for c in &t.classes {
            let speeds = [c.encode_mb_s, c.decode_mb_s, c.cold_read_ms];
            row(c.class, c.files, c.bytes, c.coded_bytes, c.ratio, speeds);
        }
        let speeds = [t.encode_mb_s, t.decode_mb_s, t.cold_read_ms];
        row("all", r.files, r.bytes, t.coded_bytes, t.ratio, speeds);
    }
    r.language.iter().for_each(show_language);
    println!("\nsize, and time of a cold 4 KiB read (of one core; the disk comes on top)");
    let largest = r.bytes as f64;
    println!("  {:<9} {:<BAR_CHARS$} {:>11}", "plain", bar_of(largest, largest), bytes(r.bytes));
    for t in &r.tiers {
        let bar = bar_of(t.coded_bytes as f64, largest);
        println!("  {:<9} {bar:<BAR_CHARS$} {:>11} {:>9.1} ms", t.tier, bytes(t.coded_bytes), t.cold_read_ms);
    }
    if let Some(l) = &r.language {
        let bar = bar_of(l.coded_bytes as f64, largest);
        println!("  {:<9} {bar:<BAR_CHARS$} {:>11} {:>9.1} s", "language", bytes(l.coded_bytes), l.cold_read_s);
    }
}

fn show_language(l: &LanguageEstimate) {
    println!(
        "\ndeep with the language model {}: {}, beside the model ({}), in lanes of {}",
        l.model,
        bytes(l.coded_bytes),
        bytes(l.model_bytes),
        bytes(l.lane_bytes)
    );
    println!(
        "  {:.2} hours of one core to code it, {:.2} to read all of it, {:.1} s for a few bytes",
        l.encode_hours, l.decode_hours, l.cold_read_s
    );
    println!(
        "  {:<14} {:>11} {:>7} {:>9} {:>12} {:>12}",
        "class", "bytes", "ratio", "without", "code, hours", "read, hours"
    );
    for c in &l.classes {
        println!(
            "  {:<14} {:>11} {:>7.3} {:>9.3} {:>12.2} {:>12.2}",
            c.class,
            bytes(c.bytes),
            c.ratio,
            c.ratio_without,
            c.encode_hours,
            c.decode_hours
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontier_is_marked_and_everything_has_its_place() {
        let row = |method: &str, coded_bytes: u64, decode_mb_s: f64| BenchRow {
            method: method.to_string(),
            segment_bytes: None,
            plain_bytes: 1000,
            coded_bytes,
            bits_per_byte: coded_bytes as f64 * 8.0 / 1000.0,
            encode_mb_s: 1.0,
            decode_mb_s,
            memory_bytes: 1,
        };
        let rows = [row("small", 100, 1.0), row("fast", 300, 256.0), row("neither", 310, 2.0)];
        let lines = plot(&rows);
        assert!(lines[PLOT.1 - 1].ends_with(&format!("|a{}", " ".repeat(PLOT.0 - 1))), "{lines:#?}");
        assert!(lines[1].ends_with('b') && lines[0].contains('c'), "{lines:#?}");
        let legend = &lines[lines.len() - 3..];
        assert_eq!(legend.iter().map(|l| l.starts_with("  * ")).collect::<Vec<_>>(), [true, true, false]);
        // One alone, and none.
        assert!(plot(&rows[..1]).len() > PLOT.1 && plot(&[]).len() > PLOT.1);
    }

    #[test]
    fn bars_are_as_long_as_what_they_stand_for() {
        assert_eq!(bar_of(10.0, 10.0).len(), BAR_CHARS);
        assert_eq!(bar_of(5.0, 10.0).len(), BAR_CHARS / 2);
        assert_eq!((bar_of(0.0, 10.0).len(), bar_of(1.0, 0.0).len(), bar_of(20.0, 10.0).len()), (0, 0, BAR_CHARS));
        assert_eq!((known(0.0, 1).as_str(), known(2.25, 1).as_str()), ("-", "2.2"));
    }
}
