//! `report`: what a volume takes, as tables with bars, as JSON, or as a page of its own with plots.
//!
//! The plots are bars alone, so they are written as SVG by hand: a crate for plots brings fonts and layers that none of them
//! needs. Names in them are whatever somebody called a file, so every text goes through `escaped`.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;

use super::show::{bytes, ms, percent, span, visible};
use super::{Failure, Outcome, client};
use crate::background::protocol::{Times, Work};
use crate::host;
use crate::volume::{DirectoryReport, Status, UseReport, VolumeReport};

/// Width of the longest bar in a terminal, characters.
const BAR_CHARS: usize = 30;
/// Eighths of a character.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// Green, and back.
const COLOUR: (&str, &str) = ("\x1b[32m", "\x1b[0m");

pub(super) struct Options<'a> {
    pub top: usize,
    pub depth: usize,
    pub html: Option<&'a Path>,
    pub json: bool,
}

pub(super) fn report(path: &Path, options: &Options) -> Outcome {
    let (report, status, work) = client::survey(path, options.depth, options.top)?;
    if let Some(file) = options.html {
        let page = page(&report, &status, work.as_ref());
        host::write_file(file, page.as_bytes())
            .map_err(|e| Failure(format!("cannot write {}: {e}", file.display())))?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if options.html.is_none() {
        let terminal = std::io::stdout().is_terminal();
        let coloured = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let bar = Bar { blocks: terminal, coloured };
        text(&report, &bar).iter().for_each(|line| println!("{line}"));
    }
    Ok(0)
}

/// How bars are drawn.
struct Bar {
    blocks: bool,
    coloured: bool,
}

impl Bar {
    /// As long as a share of one is of all.
    fn of(&self, share: f64) -> String {
        let eighths = (share.clamp(0.0, 1.0) * (BAR_CHARS * 8) as f64).round() as usize;
        if !self.blocks {
            return "#".repeat((eighths + 4) / 8);
        }
        let mut bar = "█".repeat(eighths / 8);
        bar.extend(EIGHTHS.get(eighths % 8).filter(|c| **c != ' '));
        if self.coloured { format!("{}{bar}{}", COLOUR.0, COLOUR.1) } else { bar }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    percent(part, whole) / 100.0
}

fn bits(u: &UseReport) -> f64 {
    u.stored_bytes as f64 * 8.0 / (u.plain_bytes as f64).max(1.0)
}

fn sum(uses: &[UseReport]) -> (u64, u64) {
    (uses.iter().map(|u| u.plain_bytes).sum(), uses.iter().map(|u| u.stored_bytes).sum())
}

fn text(r: &VolumeReport, bar: &Bar) -> Vec<String> {
    let mut out = vec![
        format!(
            "volume {}: {} files of {} take {} ({:.1} %); {} of it in {} files are plain as yet",
            r.uuid,
            r.all.files,
            bytes(r.all.bytes),
            bytes(r.all.taken_bytes),
            percent(r.all.taken_bytes, r.all.bytes),
            bytes(r.staged_bytes),
            r.staged_files
        ),
        "what is shared counts once below, and in part for each of those that share it in directories".to_string(),
    ];
    for (what, uses) in [("class", &r.classes), ("method", &r.methods)] {
        out.push(String::new());
        out.push(format!(
            "{what:<16} {:>9} {:>11} {:>11} {:>7} {:>7} {:>10}",
            "segments", "plain", "takes", "%", "bpb", "cold read"
        ));
        for u in uses {
            out.push(format!(
                "{:<16} {:>9} {:>11} {:>11} {:>7.1} {:>7.3} {:>10} {}",
                u.name,
                u.segments,
                bytes(u.plain_bytes),
                bytes(u.stored_bytes),
                percent(u.stored_bytes, u.plain_bytes),
                bits(u),
                ms(u.cold_read_ms.round() as u64),
                bar.of(share(u.stored_bytes, u.plain_bytes))
            ));
        }
        let (plain, stored) = sum(uses);
        let total = format!("{:.1}", percent(stored, plain));
        out.push(format!("{:<16} {:>9} {:>11} {:>11} {total:>7}", "all", "", bytes(plain), bytes(stored)));
    }
    out.push(String::new());
    out.push(format!("{:>9} {:>11} {:>11} {:>7}  {:<BAR_CHARS$} directory", "files", "bytes", "takes", "%", ""));
    for d in &r.directories {
        let drawn = bar.of(share(d.taken_bytes, r.all.taken_bytes));
        // Counted by characters, without colours.
        let blank = BAR_CHARS.saturating_sub(drawn.chars().filter(|c| "#█▏▎▍▌▋▊▉".contains(*c)).count());
        out.push(format!(
            "{:>9} {:>11} {:>11} {:>7.1}  {drawn}{} {}",
            d.files,
            bytes(d.bytes),
            bytes(d.taken_bytes),
            percent(d.taken_bytes, d.bytes),
            " ".repeat(blank),
            visible(&d.path)
        ));
    }
    if r.untold_directories > 0 {
        out.push(format!("and {} smaller ones (--top)", r.untold_directories));
    }
    if r.unreadable_segments > 0 {
        out.push(format!("{} segments could not be read: see `tersefs scrub`", r.unreadable_segments));
    }
    out
}

/// A text within HTML and SVG, whatever it is.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A row of a plot: its name, its value, and the value in words.
type Row = (String, f64, String);

/// Horizontal bars, the full width for `most`.
fn plot(title: &str, rows: &[Row], most: f64) -> String {
    const ROW: usize = 22;
    let height = rows.len() * ROW + 6;
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 760 {height}\" role=\"img\" aria-label=\"{}\">",
        escaped(title),
        escaped(title)
    );
    for (n, (name, value, words)) in rows.iter().enumerate() {
        let (top, middle) = (n * ROW + 4, n * ROW + 18);
        let width = if most > 0.0 { (value / most).clamp(0.0, 1.0) * 380.0 } else { 0.0 };
        let full = name.chars().count();
        // The end of a path tells more than its beginning.
        let short: String =
            if full > 34 { "…".chars().chain(name.chars().skip(full - 33)).collect() } else { name.clone() };
        // A String takes everything.
        let _ = write!(
            svg,
            "<g><title>{}: {}</title><text x=\"236\" y=\"{middle}\" text-anchor=\"end\">{}</text>\
             <rect x=\"244\" y=\"{top}\" width=\"{width:.1}\" height=\"16\"/><text x=\"{:.1}\" y=\"{middle}\">{}</text></g>",
            escaped(name),
            escaped(words),
            escaped(&short),
            250.0 + width,
            escaped(words)
        );
    }
    svg + "</svg></figure>\n"
}

/// A row for each span of times between the shortest and the longest that there are.
fn latencies(times: &Times) -> Vec<Row> {
    let all = times.count();
    let met = |n: &u64| *n > 0;
    let (Some(first), Some(last)) = (times.counts.iter().position(met), times.counts.iter().rposition(met)) else {
        return Vec::new();
    };
    let row = |(n, count): (usize, &u64)| {
        let name = match times.up_to_us.get(n) {
            Some(bound) => format!("up to {}", span(*bound)),
            None => format!("above {}", span(times.up_to_us.last().copied().unwrap_or(0))),
        };
        (name, *count as f64, format!("{:.1} %: {count}", percent(*count, all)))
    };
    times.counts.iter().enumerate().take(last + 1).skip(first).map(row).collect()
}

fn table(rows: &[(&str, String)]) -> String {
    let row =
        |(name, value): &(&str, String)| format!("<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value));
    format!("<table>{}</table>\n", rows.iter().map(row).collect::<String>())
}

/// What the page may do, which is to show itself.
const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
    <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<title>tersefs report</title>\n<style>\
    body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
    figure{margin:1.5em 0}figcaption{font-weight:bold}svg{width:100%;font:13px sans-serif}rect{fill:#3a7d5c}\
    table{border-collapse:collapse}th{text-align:left;font-weight:normal;padding-right:2em;color:#555}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}svg{fill:#ddd}th{color:#aaa}}\
    </style></head><body>\n";

/// The report as a page that needs nothing beside it.
fn page(r: &VolumeReport, s: &Status, work: Option<&Work>) -> String {
    let mut out = HEAD.to_string();
    let _ = writeln!(out, "<h1>Volume {}</h1>", escaped(&r.uuid));
    out += &table(&[
        ("files", format!("{} of {}", r.all.files, bytes(r.all.bytes))),
        ("take", format!("{} ({:.1} %)", bytes(r.all.taken_bytes), percent(r.all.taken_bytes, r.all.bytes))),
        ("plain as yet", format!("{} in {} files", bytes(r.staged_bytes), r.staged_files)),
        ("metadata", bytes(s.meta_pack_bytes)),
    ]);
    let of_uses = |uses: &[UseReport], value: fn(&UseReport) -> f64, words: fn(&UseReport) -> String| -> Vec<Row> {
        uses.iter().map(|u| (u.name.clone(), value(u), words(u))).collect()
    };
    let ratio = |u: &UseReport| share(u.stored_bytes, u.plain_bytes);
    let in_words = |u: &UseReport| {
        let percent = percent(u.stored_bytes, u.plain_bytes);
        format!("{percent:.1} %: {} in {}", bytes(u.plain_bytes), bytes(u.stored_bytes))
    };
    out += &plot("What is left, by class of data", &of_uses(&r.classes, ratio, in_words), 1.0);
    out += &plot("What is left, by method", &of_uses(&r.methods, ratio, in_words), 1.0);
    let rows = of_uses(&r.classes, bits, |u| format!("{:.3}", bits(u)));
    out += &plot("Bits per byte, by class of data", &rows, 8.0);
    let of_directory = |d: &DirectoryReport| {
        let left = share(d.taken_bytes, d.bytes);
        (d.path.clone(), left, format!("{:.1} %: {} files, {}", left * 100.0, d.files, bytes(d.taken_bytes)))
    };
    let rows: Vec<Row> = r.directories.iter().map(of_directory).collect();
    out += &plot("What is left, by directory: those that take most", &rows, 1.0);
    let rows = of_uses(
        &r.classes,
        |u| f64::from(u.cold_read_ms_max),
        |u| format!("{} at most, {} on average", ms(u64::from(u.cold_read_ms_max)), ms(u.cold_read_ms.round() as u64)),
    );
    let most = rows.iter().map(|(_, value, _)| *value).fold(0.0, f64::max);
    out += &plot("Time of one core for a cold read of a few bytes, as far as speeds are known", &rows, most);
    if let Some(w) = work {
        let reads = [
            ("decoded segments in memory".to_string(), s.cache_hits as f64, s.cache_hits.to_string()),
            ("segments that had to be decoded".to_string(), s.cache_misses as f64, s.cache_misses.to_string()),
        ];
        let most = s.cache_hits.max(s.cache_misses) as f64;
        out += &plot("Reads of coded files since the mount, by what they met", &reads, most);
        for (title, times) in [
            ("How long reads took since the mount: those answered at once", &w.reads_warm),
            ("How long reads took since the mount: those that waited for a segment", &w.reads_cold),
        ] {
            let rows = latencies(times);
            if !rows.is_empty() {
                out += &plot(title, &rows, rows.iter().map(|(_, value, _)| *value).fold(0.0, f64::max));
            }
        }
        let speed = |bytes: u64, us: u64| {
            if us == 0 {
                "not measured yet".to_string()
            } else {
                format!("{:.2} MB/s of one core", bytes as f64 / us as f64)
            }
        };
        out += "<h2>The daemon</h2>\n";
        out += &table(&[
            ("coding, with verification", speed(w.encoded_bytes, w.encode_us)),
            ("decoding", speed(w.decoded_bytes, w.decode_us)),
            ("memory", bytes(w.memory_bytes)),
            ("jobs that panicked", w.jobs_panicked.to_string()),
        ]);
    }
    out += "<h2>Queue and health</h2>\n";
    let stuck = s.stuck_reason.as_deref().map_or(String::new(), |why| format!(": {why}"));
    let (now, _) = host::now();
    let scrubbed = s
        .scrub
        .last_full
        .map_or("never".to_string(), |at| format!("{} days ago", now.saturating_sub(at).max(0) / 86_400));
    out += &table(&[
        ("files that wait for coding", format!("{}, {} in staging", s.queue_files, bytes(s.queue_bytes))),
        ("files that cannot be coded", format!("{}{stuck}", s.stuck_files)),
        ("coding waits", s.coding_waits.clone().unwrap_or_else(|| "for nothing".into())),
        ("decodes that failed", s.decode_failures.to_string()),
        ("segments in quarantine", s.quarantined.to_string()),
        ("staged files that are damaged", s.damaged_staged.to_string()),
        ("segments that cannot be read", r.unreadable_segments.to_string()),
        ("scrubbed as a whole", scrubbed),
        ("packs", format!("{}, {} of them in use", bytes(s.data_pack_bytes), bytes(s.data_live_bytes))),
    ]);
    out + "</body></html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> VolumeReport {
        let text = UseReport {
            name: "text".into(),
            segments: 2,
            plain_bytes: 1000,
            stored_bytes: 250,
            cold_read_ms: 40.0,
            cold_read_ms_max: 60,
        };
        let hostile = "/</title></svg><script>alert(1)</script>\x1b[2J\u{202e}\" onload='x'&amp;".to_string();
        VolumeReport {
            uuid: "u".into(),
            all: DirectoryReport { path: "/".into(), files: 3, bytes: 2000, taken_bytes: 500 },
            methods: vec![UseReport { name: "primed".into(), ..text.clone() }],
            classes: vec![text],
            directories: vec![DirectoryReport { path: hostile, files: 3, bytes: 2000, taken_bytes: 500 }],
            ..VolumeReport::default()
        }
    }

    #[test]
    fn bars_are_as_long_as_what_they_stand_for() {
        let plain = Bar { blocks: false, coloured: false };
        assert_eq!((plain.of(0.5).len(), plain.of(0.0).len(), plain.of(7.0).len()), (BAR_CHARS / 2, 0, BAR_CHARS));
        let blocks = Bar { blocks: true, coloured: false };
        assert_eq!(blocks.of(1.0), "█".repeat(BAR_CHARS));
        assert_eq!(blocks.of(1.5 / BAR_CHARS as f64), "█▌");
        assert_eq!(Bar { blocks: true, coloured: true }.of(1.0 / BAR_CHARS as f64), "\x1b[32m█\x1b[0m");
    }

    #[test]
    fn tables_say_what_was_found() {
        let lines = text(&example(), &Bar { blocks: false, coloured: false });
        let told = lines.join("\n");
        assert!(lines.iter().any(|l| l.starts_with("text ") && l.contains("25.0") && l.contains("2.000")), "{told}");
        assert!(lines.iter().any(|l| l.starts_with("primed ") && l.ends_with("########")), "{told}");
        assert!(!told.contains('\x1b') && !told.contains('\u{202e}') && told.contains('\u{fffd}'), "{told}");
    }

    #[test]
    fn latencies_are_rows_from_the_shortest_to_the_longest() {
        let times = Times { up_to_us: vec![100, 2_500, 1_000_000, 5_000_000], counts: vec![0, 3, 0, 0, 1], sum_us: 0 };
        let rows = latencies(&times);
        let told: Vec<(&str, &str)> = rows.iter().map(|(name, _, words)| (name.as_str(), words.as_str())).collect();
        let none = "0.0 %: 0";
        assert_eq!(
            told,
            [("up to 2.5 ms", "75.0 %: 3"), ("up to 1 s", none), ("up to 5 s", none), ("above 5 s", "25.0 %: 1")]
        );
        assert!(latencies(&Times::default()).is_empty());
    }

    #[test]
    fn names_are_text_in_the_page_and_nothing_else() {
        let mut status = Status { stuck_files: 1, ..Status::default() };
        status.stuck_reason = Some("</td><img src=x onerror=alert(2)>".into());
        let page = page(&example(), &status, None);
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("onload='"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("&amp;amp;"), "{page}");
        assert!(!page.contains('\x1b') && !page.contains('\u{202e}'), "{page}");
        // Nothing comes from elsewhere, and what is opened is closed.
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<link"), "{page}");
        for tag in ["svg", "figure", "table", "g", "text", "title", "style", "body", "html"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        // Nothing at all is a report too.
        let empty = super::page(&VolumeReport::default(), &Status::default(), None);
        assert!(empty.ends_with("</body></html>\n") && !empty.contains("NaN"), "{empty}");
    }
}
