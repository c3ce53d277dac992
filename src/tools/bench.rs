//! Methods of this build beside other compressors, on the same bytes, on this machine.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::Progress;
use super::language::spend;
use super::measure::measure;
use crate::base::{Class, MethodId};
use crate::codec::{self, DECODE_MS_MAX, LanguageModel, Policy};
use crate::host;
use crate::volume::load_brought;

/// Lengths of segments that each method is tried with, bytes.
pub const BENCH_SEGMENT_BYTES: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];
/// Bytes of a file that are looked at: its beginning. zpaq takes a minute for so many.
pub const BENCH_FILE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of the beginning of a file that a language model codes, and its lanes.
pub(super) const LANGUAGE_BYTES: usize = 64 << 10;
const LANGUAGE_LANES: [usize; 2] = [4 << 10, 64 << 10];
/// Bytes looked at to tell the class of a file.
const SAMPLE_BYTES: usize = 64 << 10;
/// Bytes of each sample that is used where no file is given.
const BUILTIN_BYTES: usize = 256 << 10;

/// What a bench found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BenchReport {
    pub files: Vec<BenchFile>,
    /// Sums over all files, by method.
    pub all: Vec<BenchRow>,
    /// Programs that are not installed, or failed: with the reason.
    pub missing: Vec<(String, String)>,
}

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct BenchFile {
    pub name: String,
    pub class: &'static str,
    pub bytes: u64,
    pub rows: Vec<BenchRow>,
}

/// One way to code it.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    pub method: String,
    /// Plain bytes of each segment, which stands alone; `None` where the file is one stream.
    pub segment_bytes: Option<u32>,
    pub plain_bytes: u64,
    /// With all headers.
    pub coded_bytes: u64,
    pub bits_per_byte: f64,
    /// Of one core, by processor time. Coding with a method of ours includes the proof that it decodes.
    pub encode_mb_s: f64,
    pub decode_mb_s: f64,
    /// Of a method of ours: its tables; of another program: all it took at most, coding or decoding.
    pub memory_bytes: u64,
}

impl BenchRow {
    pub(super) fn of(method: &str, segment_bytes: Option<u32>, m: Taken) -> BenchRow {
        let mb = m.plain_bytes as f64 / 1e6;
        let rate = |seconds: f64| if seconds > 0.0 { mb / seconds } else { 0.0 };
        BenchRow {
            method: method.to_string(),
            segment_bytes,
            plain_bytes: m.plain_bytes,
            coded_bytes: m.coded_bytes,
            bits_per_byte: m.coded_bytes as f64 * 8.0 / m.plain_bytes.max(1) as f64,
            encode_mb_s: rate(m.encode_s),
            decode_mb_s: rate(m.decode_s),
            memory_bytes: m.memory_bytes,
        }
    }
}

/// What coding and decoding some bytes took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    pub plain_bytes: u64,
    pub coded_bytes: u64,
    /// Processor time, seconds.
    pub encode_s: f64,
    pub decode_s: f64,
    pub memory_bytes: u64,
}

impl Taken {
    pub(super) fn add(&mut self, other: &Taken) {
        self.plain_bytes += other.plain_bytes;
        self.coded_bytes += other.coded_bytes;
        self.encode_s += other.encode_s;
        self.decode_s += other.decode_s;
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
    }
}

/// Another compressor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Zstd,
    Xz,
    Zpaq,
}

impl Peer {
    /// All that are known.
    pub const ALL: [Peer; 3] = [Peer::Zstd, Peer::Xz, Peer::Zpaq];

    /// Its command.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Zstd => "zstd -19",
            Peer::Xz => "xz -9e",
            Peer::Zpaq => "zpaq -m5",
        }
    }

    /// Codes the whole of some bytes as one stream on one core, decodes it, and compares.
    ///
    /// # Errors
    /// `NotFound` when it is not installed; it failed, or gave other bytes back.
    pub fn run(self, plain: &[u8]) -> io::Result<Taken> {
        let (out, coded_bytes, encode, decode) = match self {
            Peer::Zstd => filter("zstd", &["-19", "-c", "-q", "-T1"], &["-dc", "-q"], plain)?,
            Peer::Xz => filter("xz", &["-9e", "-c", "-T1"], &["-dc", "-T1"], plain)?,
            Peer::Zpaq => zpaq(plain)?,
        };
        if out != plain {
            return Err(io::Error::other("it does not give back what it was given"));
        }
        Ok(Taken {
            plain_bytes: plain.len() as u64,
            coded_bytes,
            encode_s: encode.cpu_seconds,
            decode_s: decode.cpu_seconds,
            memory_bytes: encode.memory_peak_bytes.max(decode.memory_peak_bytes),
        })
    }
}

/// What came back, the bytes coded, and both runs.
type RoundTrip = (Vec<u8>, u64, host::Ran, host::Ran);

/// A program that codes its standard input.
fn filter(program: &str, encode: &[&str], decode: &[&str], plain: &[u8]) -> io::Result<RoundTrip> {
    let mut encoded = host::run_measured(program, encode, plain)?;
    let coded = std::mem::take(&mut encoded.out);
    let mut decoded = host::run_measured(program, decode, &coded)?;
    let out = std::mem::take(&mut decoded.out);
    Ok((out, coded.len() as u64, encoded, decoded))
}

/// zpaq works on files.
fn zpaq(plain: &[u8]) -> io::Result<RoundTrip> {
    use crate::host::Disk;
    let scratch = host::scratch()?;
    let disk = host::RealDisk::open(scratch.path(), false)?;
    disk.open("plain", host::OpenMode::CreateNew)?.write_at(plain, 0)?;
    let path = |name: &str| scratch.path().join(name).to_string_lossy().into_owned();
    let (archive, from, to) = (path("coded.zpaq"), path("plain"), path("out"));
    let encoded = host::run_measured("zpaq", &["a", &archive, &from, "-m5", "-t1"], &[])?;
    let decoded = host::run_measured("zpaq", &["x", &archive, &from, "-to", &to, "-t1"], &[])?;
    let coded_bytes = host::open_file(Path::new(&archive))?.len()?;
    let out = read(Path::new(&to), u64::MAX)?;
    Ok((out, coded_bytes, encoded, decoded))
}

/// The first bytes of a file, at most so many.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = host::open_file(path)?;
    let mut plain = vec![0; file.len()?.min(bytes_max) as usize];
    let got = file.read_at(&mut plain, 0)?;
    plain.truncate(got);
    Ok(plain)
}

/// Codes and decodes some bytes by one method, in segments that stand alone.
///
/// # Errors
/// A sentence: a segment did not come back.
pub fn bench_method(plain: &[u8], class: Class, method: MethodId, segment_bytes: u32) -> Result<Taken, String> {
    let policy = Policy { only: Some(method), decode_ms: Some(DECODE_MS_MAX), ..Policy::default() };
    let mut taken = Taken { memory_bytes: codec::method_memory_bytes(method), ..Taken::default() };
    for raw in plain.chunks(segment_bytes as usize) {
        let m = measure(raw, class, &policy, &[raw.len() as u32], None)?;
        taken.plain_bytes += m.plain_bytes;
        taken.coded_bytes += m.coded_bytes;
        taken.encode_s += m.encode_s;
        taken.decode_s += m.decode_s;
    }
    Ok(taken)
}

/// Codes and decodes some bytes by a language model, as one segment with lanes of a length. Speeds are those of all lanes
/// together.
///
/// # Errors
/// A sentence: it did not come back.
pub(super) fn bench_language(plain: &[u8], model: &LanguageModel, lane_bytes: usize) -> Result<Taken, String> {
    let spent = spend(model, plain, lane_bytes)?;
    Ok(Taken {
        plain_bytes: spent.plain,
        coded_bytes: spent.coded,
        encode_s: spent.encode_s,
        decode_s: spent.decode_s,
        memory_bytes: model.facts().bytes + codec::method_memory_bytes(MethodId::Language),
    })
}

/// A number by chance below the given one.
type Roll<'a> = &'a mut dyn FnMut(u64) -> u64;
/// Adds a line or a record to a sample.
type Line<'a> = &'a mut dyn FnMut(&mut Vec<u8>, Roll<'_>);

/// Samples of kinds of data that every machine has, made up from the same numbers each time.
pub fn builtin_samples() -> Vec<(String, Vec<u8>)> {
    let mut state = 1u64;
    let mut roll = move |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let mut made = |name: &str, line: Line<'_>| {
        let mut out = Vec::with_capacity(BUILTIN_BYTES + 1024);
        while out.len() < BUILTIN_BYTES {
            line(&mut out, &mut roll);
        }
        out.truncate(BUILTIN_BYTES);
        (name.to_string(), out)
    };
    let mut clock = 1_700_000_000u64;
    let mut log = |out: &mut Vec<u8>, roll: Roll<'_>| {
        clock += roll(4);
        let status = ["200", "200", "200", "304", "404"];
        let path = ["/", "/index.html", "/api/items", "/api/users", "/static/app.js"];
        let pick = |of: &[&str; 5], n: u64| of.get(n as usize).copied().unwrap_or("").to_string();
        let (a, b, bytes) = (roll(250), roll(250), roll(90_000));
        let (path, status) = (pick(&path, roll(5)), pick(&status, roll(5)));
        out.extend_from_slice(format!("{clock} 10.0.{a}.{b} GET {path} {status} {bytes}\n").as_bytes());
    };
    let logs = made("log (made up)", &mut log);
    let mut serial = 0u64;
    let mut json = |out: &mut Vec<u8>, roll: Roll<'_>| {
        serial += 1;
        let (x, y, on) = (roll(10_000), roll(360), roll(2) == 1);
        out.extend_from_slice(
            format!("{{\"id\":{serial},\"position\":{{\"x\":{x},\"angle\":{y}}},\"active\":{on}}}\n").as_bytes(),
        );
    };
    let json = made("json (made up)", &mut json);
    let mut level = 0i32;
    let mut records = |out: &mut Vec<u8>, roll: Roll<'_>| {
        level += roll(41) as i32 - 20;
        out.extend_from_slice(&level.to_le_bytes());
        out.extend_from_slice(&(roll(8) as u16).to_le_bytes());
        out.extend_from_slice(&[0, 1]);
    };
    let records = made("records (made up)", &mut records);
    // The one real thing that the program has with it.
    let source = [
        include_str!("estimate.rs"),
        include_str!("../volume/coding.rs"),
        include_str!("../volume/data.rs"),
        include_str!("../volume/names.rs"),
    ];
    vec![("source (this program)".to_string(), source.concat().into_bytes()), logs, json, records]
}

/// Measures all methods, and other compressors where they are installed, on files, or on samples that the program has
/// with it where none are given; with a language model, it and the others on the beginning of each too. Told: measurements done, of
/// how many.
///
/// # Errors
/// A file that cannot be read, named; a method that does not give back what it was given; a model that cannot be used.
///
/// # Blocking
/// Codes everything ten times and more, on one core; with a language model minutes more for each file.
pub fn bench(paths: &[&Path], model: Option<&Path>, progress: Progress<'_>) -> Result<BenchReport, String> {
    let model = model.map(|path| load_brought(path, None)).transpose()?;
    let mut inputs = Vec::new();
    for path in paths {
        let plain = read(path, BENCH_FILE_BYTES_MAX).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        if plain.is_empty() {
            return Err(format!("{} is empty", path.display()));
        }
        inputs.push((path.display().to_string(), plain));
    }
    if paths.is_empty() {
        inputs = builtin_samples();
    }
    if model.is_some() {
        // Beside the whole of each: what a language model makes of more takes hours.
        let begun = |(name, plain): &(String, Vec<u8>)| {
            let plain = plain.get(..LANGUAGE_BYTES).unwrap_or(plain);
            (format!("{name}, the first {} KiB", plain.len() >> 10), plain.to_vec())
        };
        inputs = inputs.into_iter().flat_map(|input| [begun(&input), input]).collect();
    }
    let by_itself = |id: &MethodId| !matches!(id, MethodId::Raw | MethodId::Language);
    let methods: Vec<MethodId> = MethodId::ALL.into_iter().filter(by_itself).collect();
    let each = methods.len() * BENCH_SEGMENT_BYTES.len() + Peer::ALL.len();
    let total = (inputs.len() * each) as u64;
    let mut done = 0;
    let mut report = BenchReport::default();
    let mut sums: Vec<(String, Option<u32>, Taken)> = Vec::new();
    // Before methods of ours fill this process: what a child takes at most counts from what its parent had.
    let mut by_peers: Vec<Vec<(Peer, Taken)>> = Vec::new();
    for (_, plain) in &inputs {
        let mut taken = Vec::new();
        for peer in Peer::ALL {
            progress(done, total);
            done += 1;
            if report.missing.iter().any(|(missing, _)| missing == peer.name()) {
                continue;
            }
            match peer.run(plain) {
                Ok(t) => taken.push((peer, t)),
                Err(e) => {
                    let why = if e.kind() == io::ErrorKind::NotFound { "not installed".into() } else { e.to_string() };
                    report.missing.push((peer.name().to_string(), why));
                }
            }
        }
        by_peers.push(taken);
    }
    for (n, ((name, plain), peers)) in inputs.into_iter().zip(by_peers).enumerate() {
        let begun = model.as_ref().filter(|_| n % 2 == 0);
        let class = codec::classify(plain.get(..SAMPLE_BYTES).unwrap_or(&plain));
        let mut rows = Vec::new();
        let mut row = |method: &str, segment_bytes: Option<u32>, taken: Taken| {
            rows.push(BenchRow::of(method, segment_bytes, taken));
            if model.is_some() && n % 2 == 0 {
                // Its bytes come again with the whole file.
                return;
            }
            match sums.iter_mut().find(|(m, s, _)| m == method && *s == segment_bytes) {
                Some((_, _, sum)) => sum.add(&taken),
                None => sums.push((method.to_string(), segment_bytes, taken)),
            }
        };
        if let Some(model) = begun.filter(|model| model.facts().kind.suits(class)) {
            for lane_bytes in LANGUAGE_LANES {
                let taken = bench_language(&plain, model, lane_bytes).map_err(|e| format!("{name}: {e}"))?;
                row(&format!("language, lanes {}", lane_bytes >> 10), Some(plain.len() as u32), taken);
            }
        }
        for method in &methods {
            for segment_bytes in BENCH_SEGMENT_BYTES {
                if begun.is_some() && segment_bytes as usize > LANGUAGE_BYTES {
                    done += 1;
                    continue;
                }
                progress(done, total);
                done += 1;
                let taken = bench_method(&plain, class, *method, segment_bytes).map_err(|e| format!("{name}: {e}"))?;
                row(method.name(), Some(segment_bytes), taken);
            }
        }
        for (peer, taken) in peers {
            row(peer.name(), None, taken);
        }
        report.files.push(BenchFile { name, class: class.name(), bytes: plain.len() as u64, rows });
    }
    // A program that failed on one file has no sum that compares.
    sums.retain(|(method, _, _)| report.missing.iter().all(|(missing, _)| missing != method));
    report.all = sums.iter().map(|(method, segment, taken)| BenchRow::of(method, *segment, *taken)).collect();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_of_their_kinds_and_the_same_each_time() {
        let samples = builtin_samples();
        assert_eq!(samples, builtin_samples());
        let classes: Vec<Class> = samples.iter().map(|(_, s)| codec::classify(&s[..64 << 10])).collect();
        assert_eq!(classes, [Class::Source, Class::Log, Class::Json, Class::Binary]);
        assert!(samples.iter().all(|(_, s)| s.len() > 100_000));
    }

    #[test]
    fn programs_that_are_not_there_are_named_so() {
        let e = host::run_measured("tersefs-no-such-program", &[], b"x").unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
        let ran = host::run_measured("cat", &[], &[7; 100_000]).unwrap();
        assert!(ran.out == [7; 100_000] && ran.memory_peak_bytes > 0);
        assert!(host::run_measured("false", &[], b"x").is_err());
    }

    #[test]
    fn a_method_is_measured_in_segments() {
        let plain = b"some words and some more words; ".repeat(4000);
        let one = bench_method(&plain, Class::Text, MethodId::Zstd, 1 << 20).unwrap();
        let many = bench_method(&plain, Class::Text, MethodId::Zstd, 16 << 10).unwrap();
        assert_eq!((one.plain_bytes, many.plain_bytes), (128_000, 128_000));
        assert!(one.coded_bytes < many.coded_bytes && many.coded_bytes < 8_000);
        assert!(one.encode_s > 0.0 && one.decode_s > 0.0);
    }
}
