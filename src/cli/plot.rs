//! What `bench` found as a picture of its own: SVG with nothing beside it, from the numbers that were measured and no others.

use std::fmt::Write;

use super::report::escaped;
use crate::tools::{BenchReport, BenchRow};

/// Width of the picture, and of its left margin, points.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 52.0;
/// Height of the plot of all files, and where it begins.
const PLOT_HEIGHT: f64 = 300.0;
const PLOT_TOP: f64 = 46.0;
/// Room right of it for names.
const NAMES: f64 = 120.0;
/// Height of a bar, and of a line of text.
const BAR: f64 = 13.0;
const LINE: f64 = 13.0;
/// What leaves more than this share of the bytes is not for this data.
const SHARE_MAX: f64 = 0.95;
/// What bars are drawn for, of each file: the method, and whether it is of this program.
const IN_BARS: [(&str, bool); 5] =
    [("strong", true), ("primed", true), ("zpaq -m5", false), ("xz -9e", false), ("zstd -19", false)];
const OURS: &str = "#3a7d5c";
const THEIRS: &str = "#8a6d3b";

fn share(row: &BenchRow) -> f64 {
    row.coded_bytes as f64 / row.plain_bytes.max(1) as f64
}

fn is_ours(row: &BenchRow) -> bool {
    row.segment_bytes.is_some()
}

/// The rows of each method, segments from short to long, without those that are not for this data.
fn by_method(rows: &[BenchRow]) -> Vec<Vec<&BenchRow>> {
    let mut methods: Vec<Vec<&BenchRow>> = Vec::new();
    for row in rows.iter().filter(|row| share(row) <= SHARE_MAX && row.decode_mb_s > 0.0) {
        match methods.iter_mut().find(|known| known.first().is_some_and(|first| first.method == row.method)) {
            Some(known) => known.push(row),
            None => methods.push(vec![row]),
        }
    }
    methods
}

/// A label of a plot, `x` and `y` being its left end.
fn label(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    // A String takes everything.
    let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text));
}

/// Share of the bytes against speed of decoding, a line for each method through its lengths of segments.
fn scatter(out: &mut String, rows: &[BenchRow]) {
    let methods = by_method(rows);
    let points = || methods.iter().flatten();
    let speeds = points().map(|row| row.decode_mb_s.log10());
    let (low, high) = speeds.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v.floor()), h.max(v.ceil())));
    let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
    let most = (points().map(|row| share(row)).fold(0.0, f64::max) * 10.0).ceil().max(1.0) / 10.0;
    let x = |row: &BenchRow| LEFT + (row.decode_mb_s.log10() - low) / (high - low) * (WIDTH - LEFT - NAMES);
    let y_of = |share: f64| PLOT_TOP + (1.0 - share / most) * PLOT_HEIGHT;
    for step in 0..=5 {
        let part = most * f64::from(step) / 5.0;
        let _ = write!(out, "<path class=\"grid\" d=\"M{LEFT} {0:.1}H{1:.1}\"/>", y_of(part), WIDTH - NAMES);
        label(out, LEFT - 6.0, y_of(part) + 4.0, "end", &format!("{:.0} %", part * 100.0));
    }
    let mut power = low;
    while power <= high {
        let at = LEFT + (power - low) / (high - low) * (WIDTH - LEFT - NAMES);
        let _ = write!(out, "<path class=\"grid\" d=\"M{at:.1} {PLOT_TOP}v{PLOT_HEIGHT}\"/>");
        label(out, at, PLOT_TOP + PLOT_HEIGHT + 16.0, "middle", &format!("{} MB/s", 10f64.powf(power)));
        power += 1.0;
    }
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for method in &methods {
        let colour = if method.iter().all(|row| is_ours(row)) { OURS } else { THEIRS };
        let mut path = String::new();
        for (n, row) in method.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if n == 0 { 'M' } else { 'L' }, x(row), y_of(share(row)));
        }
        let _ = write!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\"/>");
        for row in method {
            let segment = row.segment_bytes.map_or(String::new(), |bytes| format!(", segments of {} KiB", bytes >> 10));
            let _ = write!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{}{segment}: {:.1} %, {:.2} MB/s</title></circle>",
                x(row),
                y_of(share(row)),
                escaped(&row.method),
                share(row) * 100.0,
                row.decode_mb_s
            );
        }
        let Some(last) = method.last() else { continue };
        // Names that would lie upon each other stand one below the other.
        let (right, mut down) = (x(last) + 7.0, y_of(share(last)) + 4.0);
        while taken.iter().any(|(a, b)| (a - right).abs() < 70.0 && (b - down).abs() < LINE) {
            down += LINE;
        }
        taken.push((right, down));
        label(out, right, down, "start", &last.method);
    }
}

/// Of each file what is left, by some methods with their longest segments. Returns where the next thing begins.
fn bars(out: &mut String, report: &BenchReport, mut top: f64) -> f64 {
    let widest = WIDTH - LEFT - 2.0 * NAMES;
    let chosen = |rows: &[BenchRow]| -> Vec<(f64, String, bool)> {
        let of = |method: &str| rows.iter().rfind(|row| row.method == method);
        IN_BARS.iter().filter_map(|(name, ours)| Some((share(of(name)?), name.to_string(), *ours))).collect()
    };
    let most = report.files.iter().flat_map(|file| chosen(&file.rows)).map(|(share, ..)| share).fold(0.01, f64::max);
    for file in &report.files {
        label(out, LEFT, top + 11.0, "start", &format!("{}: {} bytes, {}", file.name, file.bytes, file.class));
        top += LINE + 4.0;
        for (share, name, ours) in chosen(&file.rows) {
            label(out, LEFT + 66.0, top + 10.5, "end", &name);
            let (width, colour) = (share / most * widest, if ours { OURS } else { THEIRS });
            let (left, height) = (LEFT + 74.0, BAR - 2.0);
            let _ = write!(
                out,
                "<rect x=\"{left}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
            );
            label(out, left + width + 5.0, top + 10.5, "start", &format!("{:.1} %", share * 100.0));
            top += BAR;
        }
        top += 8.0;
    }
    top
}

/// The picture.
pub(super) fn svg(report: &BenchReport) -> String {
    let mut inside = String::new();
    let sum: u64 = report.files.iter().map(|file| file.bytes).sum();
    let what = format!(
        "What is left of {} files of {sum} bytes, and MB/s that one core decodes: lower and further right is better",
        report.files.len()
    );
    label(&mut inside, LEFT, 18.0, "start", &what);
    label(
        &mut inside,
        LEFT,
        34.0,
        "start",
        "Lines join segments of 64 KiB, 256 KiB and 1 MiB, each decoded alone; others code each file as one stream",
    );
    scatter(&mut inside, &report.all);
    let bottom = bars(&mut inside, report, PLOT_TOP + PLOT_HEIGHT + 44.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {bottom:.0}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\"><style>.grid{{stroke:#ddd;fill:none}}text{{fill:#222}}</style>\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{inside}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::BenchFile;

    fn row(method: &str, segment_bytes: Option<u32>, coded_bytes: u64, decode_mb_s: f64) -> BenchRow {
        BenchRow {
            method: method.into(),
            segment_bytes,
            plain_bytes: 1000,
            coded_bytes,
            bits_per_byte: coded_bytes as f64 / 125.0,
            encode_mb_s: 1.0,
            decode_mb_s,
            memory_bytes: 1,
        }
    }

    /// Numbers of an attribute, in order.
    fn numbers(svg: &str, before: &str) -> Vec<f64> {
        svg.split(before).skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn what_is_smaller_lies_lower_and_what_is_faster_further_right() {
        let rows = vec![
            row("primed", Some(64 << 10), 300, 1.0),
            row("primed", Some(256 << 10), 200, 1.1),
            row("sound", Some(64 << 10), 1000, 50.0),
            row("zstd -19", None, 400, 500.0),
        ];
        let name = "</text><script>alert(1)</script>".to_string();
        let file = BenchFile { name, class: "text", bytes: 1000, rows: rows.clone() };
        let svg = svg(&BenchReport { files: vec![file], all: rows, missing: Vec::new() });
        let (x, y) = (numbers(&svg, " cx=\""), numbers(&svg, " cy=\""));
        assert_eq!(x.len(), 3, "what does not suit the data is left out: {svg}");
        assert!(x[0] < x[1] && x[1] < x[2] && y[1] > y[0] && y[0] > y[2], "{x:?} {y:?}");
        assert!(x.iter().all(|x| (LEFT..WIDTH).contains(x)));
        // Of the file, the longest segments.
        assert!(svg.contains(">20.0 %<") && svg.contains(">40.0 %<") && !svg.contains(">30.0 %<"), "{svg}");
        assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;"), "{svg}");
        for tag in ["svg", "text", "circle", "style"] {
            let opened = svg.matches(&format!("<{tag}>")).count() + svg.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}: {svg}");
        }
        // Nothing measured is nothing drawn.
        assert!(super::svg(&BenchReport::default()).ends_with("</svg>\n"));
    }
}
