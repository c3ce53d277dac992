//! Reports as text.

use crate::background::protocol::{Times, Work};
use crate::host;
use crate::tools::{Finding, FsckReport, Health, InspectLine};
use crate::volume::{
    CodingNow, Explanation, FileReport, GcAction, GcPlan, GcReport, KeptPack, RecodeReport, ScrubStatus, SegmentReport,
    Status, TrainReport,
};

/// Bytes in a unit that reads well.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = UNITS.iter();
    let mut name = unit.next().unwrap_or(&"B");
    for next in unit {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        name = next;
    }
    if *name == "B" { format!("{n} B") } else { format!("{value:.1} {name}") }
}

pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// A text whose characters stand for themselves: names of files may hold what moves the cursor, or turns the direction.
pub(super) fn visible(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// A segment that is being coded.
pub(super) fn coding_now(now: &CodingNow) -> String {
    let others = if now.files > 1 { format!(" and {} others", now.files - 1) } else { String::new() };
    format!(
        "coding    {}{others} from {} on: {} of {}, tier {}, since {} s",
        visible(&now.file),
        now.offset,
        bytes(now.bytes),
        now.class,
        now.tier,
        now.seconds
    )
}

/// What `doctor` found, a line each.
pub(super) fn findings(found: &[Finding]) {
    for f in found {
        let health = match f.health {
            Health::Ok => "ok",
            Health::Warn => "warn",
            Health::Bad => "bad",
        };
        println!("{health:<5} {:<17} {}", f.what, f.says);
        if let Some(advice) = &f.advice {
            println!("{:<23} -> {advice}", "");
        }
    }
}

pub(super) fn status(s: &Status, work: &Work) {
    let state = match (s.read_only, work.coding_paused) {
        (true, _) => "read-only",
        (false, true) => "coding is paused",
        (false, false) if s.queue_files > 0 => "coding",
        (false, false) => "idle",
    };
    println!("volume    {} ({state})", s.uuid);
    println!("inodes    {}, {} of them in memory", s.inodes, s.inodes_in_memory);
    let about = if s.queue_in_memory < s.queue_files { "about " } else { "" };
    println!("queue     {about}{} files, {about}{} in staging", s.queue_files, bytes(s.queue_bytes));
    work.coding_now.iter().for_each(|now| println!("{}", coding_now(now)));
    if s.plain_files > 0 {
        println!("plain     {} files stay plain, as user.tersefs.nocompress asks for", s.plain_files);
    }
    if s.stuck_files > 0 {
        let why = s.stuck_reason.as_deref().unwrap_or("no reason is known");
        println!("stuck     {} files: {why}", s.stuck_files);
    }
    if let Some(why) = &s.coding_waits {
        println!("waiting   {why}");
    }
    println!(
        "coded     {} in {}: {:.1} % of plain, {:.3} bits per byte",
        bytes(s.coded_plain_bytes),
        bytes(s.coded_stored_bytes),
        percent(s.coded_stored_bytes, s.coded_plain_bytes),
        s.coded_stored_bytes as f64 * 8.0 / s.coded_plain_bytes.max(1) as f64
    );
    for (name, (extents, plain, stored)) in &s.methods {
        println!(
            "  {name:<7} {extents} extents, {} in {} ({:.1} %)",
            bytes(*plain),
            bytes(*stored),
            percent(*stored, *plain)
        );
    }
    for p in &work.priors {
        println!("prior     {} for {}: {} of text in {}", p.id, p.class, bytes(p.text_bytes), bytes(p.file_bytes));
    }
    for l in &work.languages {
        let codes = if l.codes { ", codes the tier deep" } else { "" };
        println!("language  {}: {}{codes}", l.id, bytes(l.bytes));
    }
    if s.shared_plain_bytes > 0 {
        println!(
            "shared    {} are in the volume once and named more often: {} saved",
            bytes(s.shared_plain_bytes),
            bytes(s.shared_stored_bytes)
        );
    }
    if s.referring_segments > 0 {
        println!(
            "alike     {} in {} segments were coded from others like them, in {}",
            bytes(s.referring_plain_bytes),
            s.referring_segments,
            bytes(s.referring_stored_bytes)
        );
    }
    println!(
        "packs     {} of segments, {} of them live, {} of metadata",
        bytes(s.data_pack_bytes),
        bytes(s.data_live_bytes),
        bytes(s.meta_pack_bytes)
    );
    if s.gc_packs_deleted > 0 {
        println!("gc        {} packs given back, {}", s.gc_packs_deleted, bytes(s.gc_bytes_deleted));
    }
    for k in &s.gc_kept {
        println!("gc        pack {} is kept: {}", k.pack, k.reason);
    }
    println!(
        "cache     {}, {} hits, {} misses, {} decodes",
        bytes(s.cache_bytes),
        s.cache_hits,
        s.cache_misses,
        s.decodes
    );
    for (how, times) in [("at once", &work.reads_warm), ("from cold", &work.reads_cold)] {
        if times.count() > 0 {
            println!(
                "reads     {} answered {how}: half {}, 99 % {}",
                times.count(),
                within(times, 50),
                within(times, 99)
            );
        }
    }
    if s.hot.budget_bytes > 0 {
        let h = &s.hot;
        let frozen = if h.frozen { "; none are made in this mount" } else { "" };
        println!(
            "hot       {} of {} in {} copies on disk: {} hits, {} misses, {} written, {} made room, {} were wrong{frozen}",
            bytes(h.bytes),
            bytes(h.budget_bytes),
            h.copies,
            h.hits,
            h.misses,
            bytes(h.written_bytes),
            h.evicted,
            h.wrong
        );
    }
    if s.decode_failures > 0 {
        println!("damage    {} decodes failed, {} segments in quarantine", s.decode_failures, s.quarantined);
    }
    scrub(&s.scrub);
    let rate = |bytes: u64, us: u64| bytes as f64 / us.max(1) as f64;
    println!(
        "work      {} coded and verified at {:.2} MB/s per core, {} decoded at {:.2} MB/s, {} segments left raw at a glance",
        bytes(work.encoded_bytes),
        rate(work.encoded_bytes, work.encode_us),
        bytes(work.decoded_bytes),
        rate(work.decoded_bytes, work.decode_us),
        work.early_aborts
    );
    println!(
        "memory    {}, at most {}; budget {} and {} for models",
        bytes(work.memory_bytes),
        bytes(work.memory_peak_bytes),
        bytes(s.memory_budget_bytes),
        bytes(s.memory_model_bytes)
    );
    for (name, share) in &s.memory_shares {
        println!("  {name:<16} {} of {}", bytes(share.used), bytes(share.share));
    }
    if s.memory_shrunk > 0 {
        println!("  given back {} times when the budget was near", s.memory_shrunk);
    }
}

/// How long so many hundredths of some times took at most.
fn within(times: &Times, hundredths: u64) -> String {
    match times.within(hundredths) {
        Some(us) => format!("within {}", span(us)),
        None => format!("in more than {}", span(times.up_to_us.last().copied().unwrap_or(0))),
    }
}

/// A time that begins as microseconds, in a unit that reads well.
pub(super) fn span(us: u64) -> String {
    match us {
        0..=999_999 => format!("{} ms", us as f64 / 1e3),
        _ => format!("{} s", us as f64 / 1e6),
    }
}

fn kept(kept: &[KeptPack]) {
    for k in kept {
        println!("pack {:>8}  is kept: {}", k.pack, k.reason);
    }
}

pub(super) fn gc_plan(plan: &GcPlan, json: bool) -> Result<(), serde_json::Error> {
    if json {
        println!("{}", serde_json::to_string_pretty(plan)?);
        return Ok(());
    }
    println!("{} of packs, {} of them live", bytes(plan.data_bytes), bytes(plan.live_bytes));
    for p in &plan.packs {
        let action = match p.action {
            GcAction::Delete => "delete".to_string(),
            GcAction::Rewrite => format!("rewrite {}, then delete", bytes(p.live_bytes)),
        };
        println!("pack {:>8}  {:>10}  {action}", p.pack, bytes(p.bytes));
    }
    kept(&plan.kept);
    if plan.packs.is_empty() {
        println!("nothing is worth giving back");
    }
    Ok(())
}

pub(super) fn gc_report(report: &GcReport, json: bool) -> Result<(), serde_json::Error> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    kept(&report.kept);
    println!(
        "{} packs given back, {}; {} segments copied, {} coded anew, {} written",
        report.packs_deleted,
        bytes(report.bytes_deleted),
        report.segments_copied,
        report.segments_recoded,
        bytes(report.bytes_written)
    );
    Ok(())
}

pub(super) fn train_report(report: &TrainReport, json: bool) -> Result<(), serde_json::Error> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    for c in &report.classes {
        let part = if c.parts > 1 { format!(" ({} of {})", c.part, c.parts) } else { String::new() };
        print!("{:<14} {:>10}", format!("{}{part}", c.class), bytes(c.class_bytes));
        if c.prior_bytes > 0 {
            print!(
                ", held-back samples: {:.1} % without, {:.1} % with a prior of {} ({} of text)",
                percent(c.before_bytes, c.judged_bytes),
                percent(c.after_bytes, c.judged_bytes),
                bytes(c.prior_bytes),
                bytes(c.text_bytes)
            );
        }
        match (&c.prior, &c.reason) {
            (Some(id), _) => println!(": kept as {id}"),
            (None, Some(why)) => println!(": {why}"),
            (None, None) => println!(),
        }
    }
    println!("{} samples, {} of them could not be read", report.samples, report.unreadable);
    Ok(())
}

pub(super) fn recode_report(report: &RecodeReport, json: bool) -> Result<(), serde_json::Error> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    println!(
        "{} segments looked at, {} coded anew: {} instead of {}; {} could not be read",
        report.segments_looked_at,
        report.segments_recoded,
        bytes(report.after_bytes),
        bytes(report.before_bytes),
        report.unreadable
    );
    Ok(())
}

fn scrub(s: &ScrubStatus) {
    let (now, _) = host::now();
    let last = match s.last_full {
        Some(at) => format!("last whole one {} days ago", now.saturating_sub(at).max(0) / 86_400),
        None => "no whole one yet".to_string(),
    };
    let running =
        if s.running { format!("{} of {} read, ", bytes(s.done_bytes), bytes(s.total_bytes)) } else { String::new() };
    println!("scrub     {running}{last}, {} places of damage", s.damaged);
}

pub(super) fn file(name: &str, r: &FileReport) {
    println!("{name}: inode {}, {}", r.ino, bytes(r.size));
    println!(
        "staged {}, coded {}, saved {:.1} % of the coded part",
        bytes(r.staged_bytes),
        bytes(r.stored_bytes),
        r.saved * 100.0
    );
    let p = &r.policy;
    let only = p.method.as_ref().map_or(String::new(), |m| format!(", method {m} only"));
    println!("tier {} ({}), {} ms to decode a segment ({}){only}", p.tier, p.tier_from, p.decode_ms, p.decode_ms_from);
    if p.stays_plain {
        println!("stays plain: user.tersefs.nocompress ({})", p.stays_plain_from);
    }
    if r.shared_bytes > 0 {
        println!("{} of it lie in segments that other places name too", bytes(r.shared_bytes));
    }
    slow_reads(&r.segments);
    println!(
        "{:>14} {:>10} {:<15} {:<10} {:>10} {:>7} {:>9}",
        "offset", "bytes", "method", "class", "stored", "bpb", "decode"
    );
    for s in &r.segments {
        if s.segment_bytes == 0 {
            println!("{:>14} {:>10} {:<15}", s.file_offset, s.bytes, s.method);
        } else {
            println!(
                "{:>14} {:>10} {:<15} {:<10} {:>10} {:>7.3} {:>6} ms",
                s.file_offset, s.bytes, s.method, s.class, s.stored_bytes, s.bits_per_byte, s.predicted_decode_ms
            );
        }
    }
}

/// What a file costs and why.
pub(super) fn explanation(name: &str, e: &Explanation, json: bool) -> Result<(), serde_json::Error> {
    if json {
        println!("{}", serde_json::to_string_pretty(e)?);
        return Ok(());
    }
    let taken = e.stored_bytes + e.staged_bytes;
    println!("{}: {} take {} ({:.1} %)", visible(name), bytes(e.size), bytes(taken), percent(taken, e.size));
    for k in &e.kinds {
        println!(
            "\n{} by {} as {}, in {} segments: {} in {}, {:.3} bits per byte",
            if k.method == "raw" { "kept" } else { "coded" },
            k.method,
            k.class,
            k.segments,
            bytes(k.bytes),
            bytes(k.stored_bytes),
            k.bits_per_byte
        );
        if let Some(model) = &k.model {
            println!("  with what the volume learned or was given: model {model}");
        }
        if k.referring > 0 {
            println!("  {} of them from segments that they are like, which a read decodes too", k.referring);
        }
        if k.shared_bytes > 0 {
            println!("  {} are named by other places too, and charged to all of them in part", bytes(k.shared_bytes));
        }
        if k.partly > 0 {
            println!("  {} of the segments hold other files or places too", k.partly);
        }
        println!(
            "  a cold read of a few bytes takes up to {}, all of it {}",
            ms(u64::from(k.cold_read_ms)),
            ms(k.read_all_ms)
        );
        if let Some(at) = k.coded_before {
            println!("  coded no later than {} ago", age(at));
        }
        for a in &k.against {
            println!("  not by {}: {}", a.method, a.why);
        }
        if k.outdated {
            println!("  what holds for it now would code it in another way: `tersefs recode` does");
        }
    }
    if e.untold_bytes > 0 {
        println!("\n{} more in further segments", bytes(e.untold_bytes));
    }
    if let Some(w) = &e.waiting {
        let when = w.seconds.map_or(String::new(), |s| format!("; looked at again in {s} s"));
        println!("\nplain as yet: {}: {}{when}", bytes(e.staged_bytes), w.why);
    }
    let p = &e.policy;
    let only = p.method.as_ref().map_or(String::new(), |m| format!(", method {m} only"));
    println!(
        "\nwhat holds: tier {} ({}), {} ms to decode a segment ({}){only}",
        p.tier, p.tier_from, p.decode_ms, p.decode_ms_from
    );
    Ok(())
}

/// A time in a unit that reads well.
pub(super) fn ms(ms: u64) -> String {
    match ms {
        0..=9_999 => format!("{ms} ms"),
        10_000..=7_199_999 => format!("{} s", ms / 1000),
        _ => format!("{:.1} hours", ms as f64 / 3.6e6),
    }
}

/// How long ago something was, from seconds since 1970.
fn age(at: i64) -> String {
    let (now, _) = host::now();
    match now.saturating_sub(at).max(0) {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} minutes", s / 60),
        s @ 7_200..=172_799 => format!("{} hours", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// Says what reading takes where it takes seconds.
fn slow_reads(segments: &[SegmentReport]) {
    let slow = segments.iter().filter(|s| s.part_bytes > 0 && s.part_bytes < s.segment_bytes);
    let Some(worst) = slow.clone().max_by_key(|s| s.predicted_decode_ms) else { return };
    let parts = |s: &SegmentReport| s.bytes.div_ceil(s.part_bytes.max(1));
    let all_ms: u64 = slow.map(|s| parts(s) * u64::from(s.predicted_decode_ms)).sum();
    println!(
        "coded by a language model: a cold read of some bytes takes about {:.1} s, of {} at once; reading all of it up to {:.2} hours of one core",
        f64::from(worst.predicted_decode_ms) / 1e3,
        bytes(worst.part_bytes),
        all_ms as f64 / 3.6e6
    );
}

pub(super) fn inspect_line(line: &InspectLine) {
    match line {
        InspectLine::Superblock { version, compat, ro_compat, incompat, uuid, created } => {
            println!(
                "store {uuid}, format {version}, features {compat:#x}/{ro_compat:#x}/{incompat:#x}, made {created}"
            );
        }
        InspectLine::Pack { pack, stream, bytes } => println!("pack {pack}: {stream}, {bytes} bytes"),
        InspectLine::Segment { offset, bytes, method, revision, class, plain_bytes, plain_hash, owners, .. } => {
            println!("{offset:>12} {bytes:>9} segment {method}.{revision} {class} {plain_bytes} plain {plain_hash}");
            for (ino, file, segment, len) in owners {
                println!("{:>23} inode {ino} {file}+{len} at {segment}", "");
            }
        }
        InspectLine::Meta { offset, bytes, txid, ops, .. } => show_ops("transaction", *offset, *bytes, *txid, ops),
        InspectLine::Snapshot { offset, bytes, txid, ops, .. } => show_ops("snapshot", *offset, *bytes, *txid, ops),
        InspectLine::SnapshotEnd { offset, records, .. } => {
            println!("{offset:>12} end of a snapshot of {records} records")
        }
        InspectLine::Damage { offset, bytes, what, at_end, .. } => {
            let kind = if *at_end { "cut off" } else { "DAMAGED" };
            println!("{offset:>12} {bytes:>9} {kind}: {what}");
        }
    }
}

fn show_ops(kind: &str, offset: u64, bytes: u64, txid: u64, ops: &[String]) {
    println!("{offset:>12} {bytes:>9} {kind} {txid}");
    for op in ops {
        println!("{:>23} {op}", "");
    }
}

/// Problems of a check, one a line, what is done about them, and a sum.
pub(super) fn fsck(report: &FsckReport, repair: bool) {
    let notes = report.notes.iter().map(|p| ("note: ", p));
    for (mark, p) in report.problems.iter().map(|p| ("", p)).chain(notes) {
        let done = match (&p.repair, p.repaired) {
            (Some(how), true) => format!(" [repaired: {how}]"),
            (Some(how), false) if repair => format!(" [would be repaired: {how}]"),
            (Some(_), false) | (None, _) => String::new(),
        };
        println!("{mark}{}: {}{done}", p.at, p.what);
        for (start, end) in &p.ranges {
            println!("    bytes {start} to {end}");
        }
    }
    if report.unlisted > 0 {
        println!("and {} more", report.unlisted);
    }
    let index = if report.index_rebuilt { ", index rebuilt" } else { "" };
    println!(
        "{} inodes, {} extents, {} segments{index}: {} problems, {} of them left",
        report.inodes,
        report.extents,
        report.segments,
        report.problems.len(),
        report.left()
    );
    if report.left() > 0 && !repair {
        println!("`tersefs fsck --repair --dry-run` shows what a repair would do");
    }
}
