//! Pictures, sound and video as a volume codes them, beside the codecs that are made for them, and models of bytes that a user has.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Progress;
use super::bench::{BenchRow, LANGUAGE_BYTES, Taken, bench_language, read};
use super::measure::measure;
use crate::base::{Class, SEGMENT_BYTES_MAX};
use crate::codec::{self, LanguageModel, Policy};
use crate::host::{self, Disk};
use crate::volume::load_brought;

/// Longest file that is measured: codecs hold all of one.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Bytes looked at to tell the class of a file.
const SAMPLE_BYTES: usize = 64 << 10;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MediaReport {
    pub kinds: Vec<MediaKind>,
    /// Files that are no pictures, sound or video that nobody has compressed.
    pub passed_over: u64,
    /// Programs that are not installed, or failed: with the reason.
    pub missing: Vec<(String, String)>,
}

/// Files of a class in one directory.
#[derive(Clone, Debug, Serialize)]
pub struct MediaKind {
    pub directory: String,
    pub class: &'static str,
    pub files: u64,
    pub bytes: u64,
    /// Ours, called by its method, and the others.
    pub rows: Vec<MediaRow>,
    /// Models, where there are any, and ours, on the first `LANGUAGE_BYTES` of each file.
    pub begun: Vec<MediaRow>,
}

/// One way to code them.
#[derive(Clone, Debug, Serialize)]
pub struct MediaRow {
    #[serde(flatten)]
    pub row: BenchRow,
    /// How many bytes ours are for one of these.
    pub ours_to_it: f64,
}

/// A codec: its name, the ending of its file and of what it gives back, how it is asked to code and to decode. `IN` and `OUT` stand for
/// paths.
struct Codec {
    name: &'static str,
    endings: [&'static str; 2],
    encode: &'static [&'static str],
    decode: &'static [&'static str],
}

macro_rules! ffmpeg {
    ($name:literal, $($option:literal),*) => {
        Codec {
            name: $name,
            endings: ["mkv", "y4m"],
            encode: &["ffmpeg", "-v", "error", "-threads", "1", "-i", "IN", $($option),*, "-threads", "1", "-y", "OUT"],
            decode: &["ffmpeg", "-v", "error", "-threads", "1", "-i", "IN", "-strict", "-1", "-y", "OUT"],
        }
    };
}

const CODECS_OF_PICTURES: [Codec; 2] = [
    Codec {
        name: "cjxl -d 0 -e 7",
        endings: ["jxl", "ppm"],
        encode: &["cjxl", "IN", "OUT", "-d", "0", "-e", "7", "--num_threads=0"],
        decode: &["djxl", "IN", "OUT", "--num_threads=0"],
    },
    Codec {
        name: "cjxl -d 0 -e 9",
        endings: ["jxl", "ppm"],
        encode: &["cjxl", "IN", "OUT", "-d", "0", "-e", "9", "--num_threads=0"],
        decode: &["djxl", "IN", "OUT", "--num_threads=0"],
    },
];
const CODECS_OF_SOUND: [Codec; 2] = [
    Codec {
        name: "flac -8",
        endings: ["flac", "wav"],
        encode: &["flac", "-8", "-s", "-f", "--no-padding", "-o", "OUT", "IN"],
        decode: &["flac", "-d", "-s", "-f", "-o", "OUT", "IN"],
    },
    Codec {
        name: "wavpack -hhx",
        endings: ["wv", "wav"],
        encode: &["wavpack", "-hhx", "-q", "-y", "IN", "-o", "OUT"],
        decode: &["wvunpack", "-q", "-y", "IN", "-o", "OUT"],
    },
];
const CODECS_OF_VIDEO: [Codec; 3] = [
    ffmpeg!("ffv1 -g 1", "-c:v", "ffv1", "-level", "3", "-coder", "1", "-context", "1", "-g", "1"),
    ffmpeg!("ffv1 -g 600", "-c:v", "ffv1", "-level", "3", "-coder", "1", "-context", "1", "-g", "600"),
    ffmpeg!("x264 -qp 0", "-c:v", "libx264", "-preset", "veryslow", "-qp", "0"),
];

/// Codecs of a class, and how files of it are called for them.
fn codecs(class: Class, plain: &[u8]) -> Option<(&'static [Codec], &'static str)> {
    match class {
        Class::Picture => Some((&CODECS_OF_PICTURES, if plain.starts_with(b"P7") { "pam" } else { "ppm" })),
        Class::Sound => Some((&CODECS_OF_SOUND, if plain.starts_with(b"FORM") { "aiff" } else { "wav" })),
        Class::Video => Some((&CODECS_OF_VIDEO, if plain.starts_with(b"RIFF") { "avi" } else { "y4m" })),
        _ => None,
    }
}

impl Codec {
    /// Codes a file that lies in a directory as `in.ENDING`, and decodes it.
    fn run(&self, directory: &Path, ending: &str, plain_bytes: u64) -> io::Result<Taken> {
        let path = |name: &str, ending: &str| directory.join(format!("{name}.{ending}")).to_string_lossy().into_owned();
        let [coded, out] = [path("coded", self.endings[0]), path("out", self.endings[1])];
        let run = |words: &[&str], from: &str, to: &str| {
            let (program, rest) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
            let put = |word: &&str| match *word {
                "IN" => from.to_string(),
                "OUT" => to.to_string(),
                word => word.to_string(),
            };
            let words: Vec<String> = rest.iter().map(put).collect();
            host::run_measured(program, &words.iter().map(String::as_str).collect::<Vec<_>>(), &[])
        };
        let encoded = run(self.encode, &path("in", ending), &coded)?;
        let coded_bytes = host::open_file(Path::new(&coded))?.len()?;
        let decoded = run(self.decode, &coded, &out)?;
        Ok(Taken {
            plain_bytes,
            coded_bytes,
            encode_s: encoded.cpu_seconds,
            decode_s: decoded.cpu_seconds,
            memory_bytes: encoded.memory_peak_bytes.max(decoded.memory_peak_bytes),
        })
    }
}

/// Codes and decodes a file in segments, as a volume of the usual tier does.
fn ours(plain: &[u8], class: Class) -> Result<Taken, String> {
    let policy = Policy::default();
    let method = codec::planned(class, &policy);
    let mut taken = Taken { memory_bytes: codec::method_memory_bytes(method), ..Taken::default() };
    let (mut rest, mut before) = (plain, None);
    while !rest.is_empty() {
        let cut = if rest.len() == plain.len() && rest.len() as u64 <= u64::from(codec::cut(class, &policy)) {
            codec::FirstCut { len: rest.len(), class: None, before: None }
        } else {
            codec::first_cut(rest, codec::bounds(class, &policy), rest.len() as u64, (before.as_ref(), &policy))
        };
        let (raw, behind) = rest.split_at(cut.len.clamp(1, rest.len().min(SEGMENT_BYTES_MAX as usize)));
        let m = measure(raw, class, &policy, &[raw.len() as u32], before.as_ref())?;
        taken.add(&Taken {
            plain_bytes: m.plain_bytes,
            coded_bytes: m.coded_bytes,
            encode_s: m.encode_s,
            decode_s: m.decode_s,
            memory_bytes: 0,
        });
        (rest, before) = (behind, cut.before);
    }
    Ok(taken)
}

/// The files of some trees that are measured, by directory and class.
fn files(paths: &[&Path], report: &mut MediaReport) -> Result<BTreeMap<(PathBuf, Class), Vec<PathBuf>>, String> {
    let mut kinds: BTreeMap<(PathBuf, Class), Vec<PathBuf>> = BTreeMap::new();
    for root in paths {
        let mut found = Vec::new();
        let walked = host::walk(root, &mut |met| {
            if let host::Met::File(file) = met {
                found.push(file);
            }
        });
        walked.map_err(|e| format!("cannot read {}: {e}", root.display()))?;
        for file in found {
            let sample = read(&file.path, SAMPLE_BYTES as u64);
            let sample = sample.map_err(|e| format!("cannot read {}: {e}", file.path.display()))?;
            let class = codec::classify(&sample);
            if codecs(class, &sample).is_none() || file.len > FILE_BYTES_MAX {
                report.passed_over += 1;
                continue;
            }
            let directory = file.path.parent().unwrap_or(&file.path).to_path_buf();
            kinds.entry((directory, class)).or_default().push(file.path);
        }
    }
    Ok(kinds)
}

/// What each of some codecs took.
#[derive(Default)]
struct Sums(Vec<(String, Taken)>);

impl Sums {
    fn add(&mut self, name: &str, taken: &Taken) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, sum)) => sum.add(taken),
            None => self.0.push((name.to_string(), *taken)),
        }
    }

    /// As rows, beside the first of them. One that failed on a file has no sum that compares.
    fn rows(&self) -> Vec<MediaRow> {
        let ours = self.0.first().map_or(Taken::default(), |(_, ours)| *ours);
        let row = |(name, sum): &(String, Taken)| MediaRow {
            row: BenchRow::of(name, None, *sum),
            ours_to_it: ours.coded_bytes as f64 / sum.coded_bytes.max(1) as f64,
        };
        self.0.iter().filter(|(_, sum)| sum.plain_bytes == ours.plain_bytes).map(row).collect()
    }
}

/// A model by its kind and the beginning of its name.
fn name_of(model: &LanguageModel) -> String {
    let id = model.facts().id.to_string();
    format!("{} {}", model.facts().kind.name(), id.get(..8).unwrap_or(&id))
}

/// Measures pictures, sound and video that nobody has compressed, of some trees, as a volume codes them, and by codecs that are installed;
/// and models of bytes or grey values on the beginning of each file that they suit. Told: files done, of how many.
///
/// # Errors
/// A file that cannot be read, named; a segment that does not come back; a model that cannot be used.
///
/// # Blocking
/// Codes everything several times, on one core; with a model minutes more for each file.
pub fn bench_media(paths: &[&Path], models: &[&Path], progress: Progress<'_>) -> Result<MediaReport, String> {
    let mut report = MediaReport::default();
    let models = models.iter().map(|path| load_brought(path, None)).collect::<Result<Vec<_>, _>>()?;
    let kinds = files(paths, &mut report)?;
    let total = kinds.values().map(|files| files.len() as u64).sum();
    let mut done = 0;
    for ((directory, class), files) in kinds {
        let (mut sums, mut begun) = (Sums::default(), Sums::default());
        for path in &files {
            progress(done, total);
            done += 1;
            let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let plain = read(path, FILE_BYTES_MAX).map_err(|e| failed(&e))?;
            sums.add("tersefs", &ours(&plain, class).map_err(|e| failed(&e))?);
            let beginning = plain.get(..LANGUAGE_BYTES).unwrap_or(&plain);
            for (n, model) in models.iter().filter(|model| model.facts().kind.suits(class)).enumerate() {
                if n == 0 {
                    begun.add("tersefs", &ours(beginning, class).map_err(|e| failed(&e))?);
                }
                let taken = bench_language(beginning, model, LANGUAGE_BYTES).map_err(|e| failed(&e))?;
                begun.add(&name_of(model), &taken);
            }
            let Some((codecs, ending)) = codecs(class, &plain) else { continue };
            let scratch = host::scratch().map_err(|e| failed(&e))?;
            let disk = host::RealDisk::open(scratch.path(), false).map_err(|e| failed(&e))?;
            let put = || disk.open(&format!("in.{ending}"), host::OpenMode::CreateNew)?.write_at(&plain, 0);
            put().map_err(|e| failed(&e))?;
            for codec in codecs {
                if report.missing.iter().any(|(missing, _)| missing == codec.name) {
                    continue;
                }
                match codec.run(scratch.path(), ending, plain.len() as u64) {
                    Ok(taken) => sums.add(codec.name, &taken),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        report.missing.push((codec.name.to_string(), "not installed".into()));
                    }
                    Err(e) => report.missing.push((codec.name.to_string(), failed(&e))),
                }
            }
        }
        let (rows, begun) = (sums.rows(), begun.rows());
        let bytes = rows.first().map_or(0, |ours| ours.row.plain_bytes);
        let directory = directory.display().to_string();
        report.kinds.push(MediaKind { directory, class: class.name(), files: files.len() as u64, bytes, rows, begun });
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_of_a_directory_are_measured_together() {
        let dir = host::scratch().unwrap();
        let disk = host::RealDisk::open(dir.path(), false).unwrap();
        let grey: Vec<u8> = (0..20_000u32).map(|n| (40 + n % 100 / 3 + n / 400) as u8).collect();
        let picture = [b"P5 100 200 255\n", &grey[..]].concat();
        let video = [b"YUV4MPEG2 W100 H100 Cmono\nFRAME\n", &grey[..10_000], b"FRAME\n", &grey[..10_000]].concat();
        for (name, bytes) in [("a.pgm", &picture), ("b.pgm", &picture), ("c.y4m", &video), ("d.txt", &vec![b'x'; 500])]
        {
            disk.open(name, host::OpenMode::CreateNew).unwrap().write_at(bytes, 0).unwrap();
        }
        let report = bench_media(&[dir.path()], &[], &mut |_, _| ()).unwrap();
        assert_eq!(report.passed_over, 1);
        let told: Vec<(&str, u64, u64)> = report.kinds.iter().map(|k| (k.class, k.files, k.bytes)).collect();
        assert!(report.kinds.iter().all(|kind| kind.begun.is_empty()), "no models");
        let nothing = Path::new("/no/such/model");
        assert!(bench_media(&[dir.path()], &[nothing], &mut |_, _| ()).is_err());
        assert_eq!(told, [("picture", 2, 2 * picture.len() as u64), ("video", 1, video.len() as u64)]);
        for kind in &report.kinds {
            let ours = &kind.rows[0];
            assert_eq!((ours.row.method.as_str(), ours.ours_to_it), ("tersefs", 1.0));
            assert!(ours.row.coded_bytes < kind.bytes / 4 && ours.row.decode_mb_s > 0.0);
        }
        assert!(bench_media(&[Path::new("/no/such/place")], &[], &mut |_, _| ()).is_err());
    }

    #[test]
    fn what_is_not_installed_is_none_of_the_rows() {
        let codec = Codec { name: "none", endings: ["x", "y"], encode: &["tersefs-no-such-program"], decode: &[] };
        let e = codec.run(Path::new("/tmp"), "z", 1).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
    }
}
