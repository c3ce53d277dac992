//! What a tree would take under each tier: from a sample of segments as the compressor would cut and bundle them.
//!
//! A small tree is coded as a whole. Of a larger one places are drawn by chance, each byte as likely as the other, and the
//! segments that hold them are coded: the mean of their ratios is that of the tree, and its spread says how sure that is.
//! Files that are the same are not found out, nor what metadata takes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use serde::Serialize;

use super::Progress;
use super::language::{LanguageEstimate, Places, estimate_language};
use super::measure::{Measured, measure};
use crate::base::{ByteRange, Class};
use crate::codec::{self, Before, Policy, Tier};
use crate::host::{self, DiskFile, Met, Seek, TreeFile};
use crate::volume::{FILES_PER_BUNDLE_MAX, bundle, is_small};

/// Bytes looked at to tell the class of a file, as the compressor does.
const SAMPLE_BYTES: u64 = 64 << 10;
/// Places drawn for each MiB of the sample, and least and most of them.
const PLACES_PER_MIB: u64 = 4;
const PLACES: (u64, u64) = (16, 1024);
/// Places coded for a tier, at least, whatever their segments add up to.
const PLACES_PER_TIER_MIN: usize = 8;
/// Files drawn to count files by class.
const COUNTED_FILES: usize = 512;
/// Files of a tree that is coded as a whole; beyond it a sample is drawn.
const FILES_WHOLE_MAX: usize = 1 << 16;
/// Segments of the greatest length before a place, from where on it is cut.
const CUTS_BEFORE: u64 = 4;
/// Bytes of a container that are walked through to a place in it.
const WALKED_BYTES_MAX: u64 = 64 << 20;
/// Runs of data looked up in a file with holes; the rest counts as data.
const RUNS_MAX: usize = 1024;
/// Paths named in the report; more are counted.
const NAMED_MAX: usize = 100;
/// Of a normal distribution, 95 % lie within so many standard deviations.
const DEVIATIONS: f64 = 1.96;

/// What an estimate found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EstimateReport {
    pub files: u64,
    /// Plain bytes, holes left out.
    pub bytes: u64,
    pub directories: u64,
    pub symlinks: u64,
    /// Further names of files that are counted already.
    pub hard_links: u64,
    /// Sockets, pipes, devices.
    pub special_files: u64,
    pub unreadable: u64,
    /// Paths of the first of them, with the reason.
    pub unreadable_paths: Vec<(String, String)>,
    /// All of the tree was coded: nothing is extrapolated.
    pub whole: bool,
    pub classes: Vec<ClassCount>,
    pub tiers: Vec<TierEstimate>,
    /// The tier deep with a language model, where one was given.
    pub language: Option<LanguageEstimate>,
}

/// Files and bytes of a class; estimates unless `whole`.
#[derive(Clone, Debug, Serialize)]
pub struct ClassCount {
    pub class: &'static str,
    pub files: u64,
    pub bytes: u64,
}

/// What a tier makes of the tree.
#[derive(Clone, Debug, Serialize)]
pub struct TierEstimate {
    pub tier: &'static str,
    /// Longest time that a segment may take to decode, milliseconds.
    pub decode_ms_max: u32,
    pub sampled_bytes: u64,
    pub segments: u64,
    /// Records of segments with their headers, without metadata of files.
    pub coded_bytes: u64,
    /// With 95 % confidence it is no further from that.
    pub margin_bytes: u64,
    /// Coded by plain.
    pub ratio: f64,
    /// Of one core, with verification.
    pub encode_mb_s: f64,
    pub decode_mb_s: f64,
    /// Time of one core for a cold read of 4 KiB, which decodes a segment; the disk comes on top.
    pub cold_read_ms: f64,
    pub classes: Vec<ClassEstimate>,
}

/// What a tier makes of a class of data. Of a class of which no segment was coded only the size is known.
#[derive(Clone, Debug, Serialize)]
pub struct ClassEstimate {
    pub class: &'static str,
    pub files: u64,
    pub bytes: u64,
    pub coded_bytes: u64,
    pub ratio: f64,
    pub encode_mb_s: f64,
    pub decode_mb_s: f64,
    pub cold_read_ms: f64,
    pub segments: u64,
}

/// Numbers by chance, the same for the same tree (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

/// A file with where its data lies.
#[derive(Clone, Debug)]
pub(super) struct Found {
    file: TreeFile,
    /// Runs of data; one of all of it where there are no holes.
    runs: Vec<ByteRange>,
}

impl Found {
    fn bytes(&self) -> u64 {
        self.runs.iter().map(ByteRange::len).sum()
    }

    /// Offset in the file of the `n`th byte of data.
    fn offset(&self, mut n: u64) -> u64 {
        for run in &self.runs {
            if n < run.len() {
                return run.start + n;
            }
            n -= run.len();
        }
        self.runs.last().map_or(0, |run| run.end.saturating_sub(1))
    }
}

/// A place drawn from the tree: a byte of a file, and the files met after it, with which it would be bundled if it is small.
#[derive(Clone, Debug)]
struct Place {
    file: Arc<Found>,
    byte: u64,
    followers: Vec<Arc<Found>>,
    follower_bytes: u64,
}

/// What a walk over the tree gathers.
struct Survey {
    report: EstimateReport,
    /// All files, as long as they are few and small.
    all: Option<Vec<Arc<Found>>>,
    sample_bytes: u64,
    places: Vec<Place>,
    /// Drawn with the same chance for each file.
    drawn: Vec<Arc<Found>>,
    chance: Chance,
}

/// Followers that a place remembers: enough that a segment of one class can be bundled from a mixture.
const FOLLOWER_BYTES: u64 = 4 * crate::base::SEGMENT_BYTES_MAX as u64;

impl Survey {
    fn meet(&mut self, met: Met) {
        let r = &mut self.report;
        match met {
            Met::Directory => r.directories += 1,
            Met::Symlink => r.symlinks += 1,
            Met::HardLink => r.hard_links += 1,
            Met::Special => r.special_files += 1,
            Met::Unreadable(path, e) => self.unreadable(&path, &e.to_string()),
            Met::File(file) => match found(file.clone()) {
                Ok(found) => self.add(Arc::new(found)),
                Err(e) => self.unreadable(&file.path, &e.to_string()),
            },
        }
    }

    fn unreadable(&mut self, path: &Path, why: &str) {
        self.report.unreadable += 1;
        if self.report.unreadable_paths.len() < NAMED_MAX {
            self.report.unreadable_paths.push((path.display().to_string(), why.to_string()));
        }
    }

    fn add(&mut self, found: Arc<Found>) {
        let bytes = found.bytes();
        self.report.files += 1;
        self.report.bytes += bytes;
        for place in &mut self.places {
            if place.follower_bytes < FOLLOWER_BYTES
                && place.followers.len() < FILES_PER_BUNDLE_MAX
                && is_small(bytes, crate::base::SEGMENT_BYTES_MAX)
            {
                place.followers.push(found.clone());
                place.follower_bytes += bytes;
            }
        }
        // Each place is the byte it would be if only the tree met so far were drawn from.
        let count = (self.sample_bytes >> 20).saturating_mul(PLACES_PER_MIB).clamp(PLACES.0, PLACES.1) as usize;
        for n in 0..if bytes > 0 { count } else { 0 } {
            let at = self.chance.below(self.report.bytes);
            if at < bytes {
                let place = Place { file: found.clone(), byte: at, followers: Vec::new(), follower_bytes: 0 };
                match self.places.get_mut(n) {
                    Some(old) => *old = place,
                    None => self.places.push(place),
                }
            }
        }
        if self.drawn.len() < COUNTED_FILES {
            self.drawn.push(found.clone());
        } else {
            let n = self.chance.below(self.report.files) as usize;
            if let Some(old) = self.drawn.get_mut(n) {
                *old = found.clone();
            }
        }
        match &mut self.all {
            Some(all) if self.report.bytes <= self.sample_bytes && all.len() < FILES_WHOLE_MAX => all.push(found),
            all => *all = None,
        }
    }
}

/// Where the data of a file lies. Only files that may have holes are opened.
fn found(file: TreeFile) -> io::Result<Found> {
    let whole = ByteRange { start: 0, end: file.len };
    let mut runs = Vec::new();
    if file.is_sparse {
        let open = host::open_file(&file.path)?;
        let mut at = 0;
        while let Some(start) = open.seek(at, Seek::Data)?.filter(|start| *start < file.len) {
            let end = if runs.len() < RUNS_MAX { open.seek(start, Seek::Hole)?.unwrap_or(file.len) } else { file.len };
            runs.push(ByteRange { start, end: end.min(file.len) });
            at = end.max(start + 1);
        }
    } else if file.len > 0 {
        runs.push(whole);
    }
    Ok(Found { file, runs })
}

/// Bytes of a range; fewer where the file has become shorter.
fn read(open: &dyn DiskFile, range: ByteRange) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; range.len() as usize];
    let got = open.read_at(&mut buf, range.start)?;
    buf.truncate(got);
    Ok(buf)
}

/// Class of a file, from where its data begins.
fn class_of(found: &Found) -> io::Result<Class> {
    let Some(first) = found.runs.first() else { return Ok(Class::Unknown) };
    let open = host::open_file(&found.file.path)?;
    let sample = ByteRange { start: first.start, end: found.file.len.min(first.start + SAMPLE_BYTES) };
    Ok(codec::classify(&read(&*open, sample)?))
}

/// Data of a file within a range.
pub(super) fn gather(found: &Found, range: ByteRange) -> io::Result<Vec<u8>> {
    let open = host::open_file(&found.file.path)?;
    let mut raw = Vec::new();
    for run in found.runs.iter().map(|run| run.intersect(&range)).filter(|run| !run.is_empty()) {
        raw.append(&mut read(&*open, run)?);
    }
    Ok(raw)
}

/// What coding a segment came to; or the file that kept it from being coded, with the reason.
type Coded = Result<Option<Measured>, (Arc<Found>, String)>;

/// One segment to be coded.
struct Task {
    policy: Policy,
    class: Class,
    what: What,
}

/// Bytes of a file, and what was before them in a stream that they go on with.
struct Segment {
    range: ByteRange,
    before: Option<Arc<Before>>,
    /// Where it is not that of the file.
    class: Option<Class>,
}

enum What {
    Cut(Arc<Found>, Segment),
    /// What holds this offset of a file's.
    Around(Arc<Found>, u64),
    /// Files of one class.
    Bundle(Vec<Arc<Found>>),
    /// A bundle of those of one class among these, the first in any case.
    Gathered(Arc<Found>, Vec<Arc<Found>>),
}

/// Where the segments of a file lie from an offset on, up to one that ends behind `until`: its content says where they end,
/// as it does in a volume.
fn cuts(
    found: &Found,
    class: Class,
    policy: &Policy,
    from: u64,
    until: u64,
    keep_from: u64,
) -> io::Result<Vec<Segment>> {
    let open = host::open_file(&found.file.path)?;
    let bounds = codec::bounds(class, policy);
    let mut out = Vec::new();
    for run in found.runs.iter().filter(|run| run.end > from) {
        let (mut at, mut before) = (run.start.max(from), None::<Arc<Before>>);
        while at < run.end && at <= until {
            let looked_at = ByteRange { start: at, end: run.end.min(at + u64::from(bounds.max)) };
            let bytes = read(&*open, looked_at)?;
            if bytes.is_empty() {
                // It has become shorter.
                return Ok(out);
            }
            let cut = codec::first_cut(&bytes, bounds, run.end - at, (before.as_deref(), policy));
            let range = ByteRange::at(at, cut.len as u64);
            // Long files are walked through to get to a place: what is not wanted is not kept.
            if range.end > keep_from {
                out.push(Segment { range, before, class: cut.class });
            }
            (at, before) = (range.end, cut.before.map(Arc::new));
        }
    }
    Ok(out)
}

/// The segment that holds an offset. Wherever one begins to cut, the places are soon the same.
fn cut_around(found: &Found, class: Class, policy: &Policy, offset: u64) -> io::Result<Option<Segment>> {
    let run_up = CUTS_BEFORE * u64::from(codec::bounds(class, policy).max);
    let begin = found.runs.iter().map(|run| run.start).rfind(|start| *start <= offset).unwrap_or(0);
    let begin = if class == Class::Container && offset - begin.min(offset) <= WALKED_BYTES_MAX {
        // A stream is followed from its start.
        begin
    } else {
        begin.max(offset.saturating_sub(run_up))
    };
    let cuts = cuts(found, class, policy, begin, offset, offset)?;
    Ok(cuts.into_iter().find(|cut| cut.range.start <= offset && offset < cut.range.end))
}

impl Task {
    /// Codes it. `None` when nothing is left of its bytes.
    fn run(self) -> Coded {
        let policy = self.policy;
        let (mut raw, mut owners, mut before, mut class) = (Vec::new(), Vec::new(), None, self.class);
        let mut add = |found: &Arc<Found>, range: ByteRange| {
            let mut bytes = gather(found, range).map_err(|e| (found.clone(), e.to_string()))?;
            owners.push(bytes.len() as u32);
            raw.append(&mut bytes);
            Ok(())
        };
        let first = match self.what {
            What::Cut(found, segment) => {
                add(&found, segment.range)?;
                (before, class) = (segment.before, segment.class.unwrap_or(class));
                found
            }
            What::Around(found, offset) => {
                let cut =
                    cut_around(&found, self.class, &policy, offset).map_err(|e| (found.clone(), e.to_string()))?;
                let Some(cut) = cut else { return Ok(None) };
                add(&found, cut.range)?;
                (before, class) = (cut.before, cut.class.unwrap_or(class));
                found
            }
            What::Bundle(files) => {
                for found in &files {
                    add(found, EVERYTHING)?;
                }
                match files.into_iter().next() {
                    Some(first) => first,
                    None => return Ok(None),
                }
            }
            What::Gathered(first, followers) => {
                let segment_bytes = codec::cut(self.class, &policy);
                let mut alike = vec![first.clone()];
                let mut bytes = first.bytes();
                for found in followers {
                    if bytes > u64::from(segment_bytes) {
                        break;
                    }
                    let fits = is_small(found.file.len, segment_bytes) && found.bytes() > 0;
                    if fits && class_of(&found).is_ok_and(|class| class == self.class) {
                        bytes += found.bytes();
                        alike.push(found);
                    }
                }
                let about = |found: &Arc<Found>| (self.class, policy, found.bytes());
                let files = bundle(alike, about, codec::cut).into_iter().next().map(|b| b.files).unwrap_or_default();
                add(&first, EVERYTHING)?;
                // One that cannot be read is not in the bundle.
                files.iter().skip(1).for_each(|found| drop(add(found, EVERYTHING)));
                first
            }
        };
        if raw.is_empty() {
            return Ok(None);
        }
        measure(&raw, class, &policy, &owners, before.as_deref()).map(Some).map_err(|e| (first, e))
    }
}

const EVERYTHING: ByteRange = ByteRange { start: 0, end: u64::MAX };

/// Every segment of a tree under a policy. Those that cannot be read go to `failed`.
fn cut_all(
    files: &[(Class, Arc<Found>)],
    policy: Policy,
    tasks: &mut Vec<Task>,
    failed: &mut dyn FnMut(&Found, io::Error),
) {
    let mut small = Vec::new();
    for (class, found) in files {
        if is_small(found.file.len, codec::cut(*class, &policy)) {
            small.extend((found.bytes() > 0).then_some((*class, found)));
            continue;
        }
        match cuts(found, *class, &policy, 0, u64::MAX, 0) {
            Ok(cuts) => tasks.extend(cuts.into_iter().map(|segment| Task {
                policy,
                class: *class,
                what: What::Cut(found.clone(), segment),
            })),
            Err(e) => failed(found, e),
        }
    }
    small.sort_by_key(|(class, _)| *class);
    for bundle in bundle(small, |(class, found)| (*class, policy, found.bytes()), codec::cut) {
        let files = bundle.files.into_iter().map(|(_, found)| found.clone()).collect();
        tasks.push(Task { policy, class: bundle.class, what: What::Bundle(files) });
    }
}

/// Segments that hold the places drawn, for a policy: as many as the sample may have bytes.
fn cut_places(places: &[(Class, Place)], policy: Policy, sample_bytes: u64, tasks: &mut Vec<Task>) {
    let mut bytes = 0;
    for (n, (class, place)) in places.iter().enumerate() {
        if bytes >= sample_bytes && n >= PLACES_PER_TIER_MIN {
            break;
        }
        let segment_bytes = codec::cut(*class, &policy);
        let what = if is_small(place.file.file.len, segment_bytes) {
            bytes += u64::from(segment_bytes);
            What::Gathered(place.file.clone(), place.followers.clone())
        } else {
            bytes += u64::from(codec::bounds(*class, &policy).usual);
            What::Around(place.file.clone(), place.file.offset(place.byte))
        };
        tasks.push(Task { policy, class: *class, what });
    }
}

/// Sums over segments, each with its weight: by its bytes where all are coded, the same for each that was drawn by bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    segments: u64,
    plain_bytes: u64,
    weight: f64,
    ratio: f64,
    ratio_squared: f64,
    /// Seconds per plain byte.
    encode: f64,
    decode: f64,
    /// Seconds per segment.
    cold: f64,
}

impl Sums {
    fn add(&mut self, m: &Measured, weight: f64) {
        let plain = m.plain_bytes as f64;
        let ratio = m.coded_bytes as f64 / plain;
        self.segments += 1;
        self.plain_bytes += m.plain_bytes;
        self.weight += weight;
        self.ratio += weight * ratio;
        self.ratio_squared += weight * ratio * ratio;
        self.encode += weight * m.encode_s / plain;
        self.decode += weight * m.decode_s / plain;
        self.cold += weight * m.decode_s;
    }

    fn mean(&self, sum: f64) -> f64 {
        if self.weight > 0.0 { sum / self.weight } else { 0.0 }
    }

    /// Half of the 95 % interval of the mean ratio, from segments drawn by chance.
    fn margin(&self) -> f64 {
        if self.segments < 2 {
            return 1.0;
        }
        let n = self.segments as f64;
        let variance = (self.mean(self.ratio_squared) - self.mean(self.ratio).powi(2)).max(0.0) * n / (n - 1.0);
        DEVIATIONS * (variance / n).sqrt()
    }
}

/// Million bytes in a second, from seconds per byte.
fn mb_s(seconds_per_byte: f64) -> f64 {
    if seconds_per_byte > 0.0 { 1e-6 / seconds_per_byte } else { 0.0 }
}

/// Files and bytes of each class.
pub(super) type Shares = BTreeMap<Class, (u64, u64)>;

fn estimate_of(policy: &Policy, sums: &BTreeMap<Class, Sums>, shares: &Shares, whole: bool) -> TierEstimate {
    let mut all = Sums::default();
    for s in sums.values() {
        all.segments += s.segments;
        all.plain_bytes += s.plain_bytes;
        all.weight += s.weight;
        all.ratio += s.ratio;
        all.ratio_squared += s.ratio_squared;
        all.encode += s.encode;
        all.decode += s.decode;
        all.cold += s.cold;
    }
    let bytes: u64 = shares.values().map(|(_, bytes)| bytes).sum();
    let of_class = |(class, (files, bytes)): (&Class, &(u64, u64))| {
        let own = sums.get(class).copied().unwrap_or_default();
        // Of a class that was not met among the segments coded, the tree's own ratio is the best guess.
        let ratio = if own.segments > 0 { own.mean(own.ratio) } else { all.mean(all.ratio) };
        ClassEstimate {
            class: class.name(),
            files: *files,
            bytes: *bytes,
            coded_bytes: (*bytes as f64 * ratio) as u64,
            ratio,
            encode_mb_s: mb_s(own.mean(own.encode)),
            decode_mb_s: mb_s(own.mean(own.decode)),
            cold_read_ms: own.mean(own.cold) * 1e3,
            segments: own.segments,
        }
    };
    let classes: Vec<ClassEstimate> = shares.iter().map(of_class).collect();
    let coded_bytes: u64 = classes.iter().map(|c| c.coded_bytes).sum();
    TierEstimate {
        tier: policy.tier.name(),
        decode_ms_max: policy.decode_ms_max(),
        sampled_bytes: all.plain_bytes,
        segments: all.segments,
        coded_bytes,
        margin_bytes: if whole { 0 } else { (all.margin() * bytes as f64) as u64 },
        ratio: if bytes > 0 { coded_bytes as f64 / bytes as f64 } else { 0.0 },
        encode_mb_s: mb_s(all.mean(all.encode)),
        decode_mb_s: mb_s(all.mean(all.decode)),
        cold_read_ms: all.mean(all.cold) * 1e3,
        classes,
    }
}

/// Runs tasks on all cores; hands each result to `done`.
fn run_all(tasks: Vec<Task>, done: &mut dyn FnMut(Policy, Class, Coded)) {
    let tasks: Vec<std::sync::Mutex<Option<Task>>> =
        tasks.into_iter().map(|t| std::sync::Mutex::new(Some(t))).collect();
    let next = AtomicUsize::new(0);
    let (tx, rx) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..host::cores().min(tasks.len()) {
            let (tx, tasks, next) = (tx.clone(), &tasks, &next);
            scope.spawn(move || {
                while let Some(slot) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let task = slot.lock().unwrap_or_else(|e| e.into_inner()).take();
                    if let Some(task) = task {
                        let (policy, class) = (task.policy, task.class);
                        let _ = tx.send((policy, class, task.run()));
                    }
                }
            });
        }
        drop(tx);
        rx.into_iter().for_each(|(policy, class, outcome)| done(policy, class, outcome));
    });
}

/// Estimates what a file, or a directory with all below it, takes under each tier, from `sample_bytes` of it at most for
/// each; and what the tier deep takes with a language model, if one is given. The same tree gives the same sample. Told: segments,
/// then pieces of text coded, of how many.
///
/// # Errors
/// `root` is not there or cannot be looked at, or the model cannot be used. What cannot be read below it is counted and named in
/// the report.
///
/// # Blocking
/// Reads the names of the whole tree; codes and decodes the sample three times, on all cores.
pub fn estimate(
    root: &Path,
    sample_bytes: u64,
    model: Option<&Path>,
    progress: Progress<'_>,
) -> io::Result<EstimateReport> {
    estimate_under(root, sample_bytes, &Tier::ALL.map(Policy::of), model, progress)
}

/// As `estimate`, under any policies, none of them twice. With a language model the last of them is that of the tier deep.
pub fn estimate_under(
    root: &Path,
    sample_bytes: u64,
    policies: &[Policy],
    model: Option<&Path>,
    progress: Progress<'_>,
) -> io::Result<EstimateReport> {
    let mut survey = Survey {
        report: EstimateReport::default(),
        all: Some(Vec::new()),
        sample_bytes,
        places: Vec::new(),
        drawn: Vec::new(),
        chance: Chance(1),
    };
    host::walk(root, &mut |met| survey.meet(met))?;
    let mut shares = Shares::new();
    let mut tasks = Vec::new();
    // Each tier meets what cannot be read anew.
    let mut failed = BTreeMap::new();
    let whole = survey.all.take();
    let mut pieces = Places::new();
    if let Some(all) = &whole {
        let mut files = Vec::new();
        for found in all {
            match class_of(found) {
                Ok(class) => {
                    let share = shares.entry(class).or_default();
                    (share.0, share.1) = (share.0 + 1, share.1 + found.bytes());
                    files.push((class, found.clone()));
                }
                Err(e) => survey.unreadable(&found.file.path, &e.to_string()),
            }
        }
        // The largest files tell most.
        pieces.extend(files.iter().map(|(class, found)| (*class, found.clone(), 0)));
        pieces.sort_by_key(|(_, found, _)| std::cmp::Reverse(found.bytes()));
        for policy in policies {
            cut_all(&files, *policy, &mut tasks, &mut |found, e| {
                failed.insert(found.file.path.clone(), e.to_string());
            });
        }
    } else {
        let mut places = Vec::new();
        for place in std::mem::take(&mut survey.places) {
            match class_of(&place.file) {
                Ok(class) => places.push((class, place)),
                Err(e) => survey.unreadable(&place.file.file.path, &e.to_string()),
            }
        }
        let bytes_each = survey.report.bytes as f64 / places.len().max(1) as f64;
        let drawn: Vec<Class> = survey.drawn.iter().filter_map(|found| class_of(found).ok()).collect();
        let files_each = survey.report.files as f64 / drawn.len().max(1) as f64;
        for class in Class::ALL {
            let files = drawn.iter().filter(|c| **c == class).count() as f64 * files_each;
            let bytes = places.iter().filter(|(c, _)| *c == class).count() as f64 * bytes_each;
            if files > 0.0 || bytes > 0.0 {
                shares.insert(class, (files.round() as u64, bytes as u64));
            }
        }
        pieces.extend(places.iter().map(|(class, p)| (*class, p.file.clone(), p.file.offset(p.byte))));
        policies.iter().for_each(|policy| cut_places(&places, *policy, sample_bytes, &mut tasks));
    }
    let total = tasks.len() as u64;
    let mut sums: BTreeMap<Policy, BTreeMap<Class, Sums>> = BTreeMap::new();
    let mut coded = 0;
    run_all(tasks, &mut |policy, class, outcome| {
        coded += 1;
        progress(coded, total);
        match outcome {
            Ok(Some(m)) => {
                let weight = if whole.is_some() { m.plain_bytes as f64 } else { 1.0 };
                sums.entry(policy).or_default().entry(class).or_default().add(&m, weight);
            }
            Ok(None) => {}
            Err((found, why)) => {
                failed.insert(found.file.path.clone(), why);
            }
        }
    });
    failed.into_iter().for_each(|(path, why)| survey.unreadable(&path, &why));
    let mut report = survey.report;
    report.whole = whole.is_some();
    let count = |(class, (files, bytes)): (&Class, &(u64, u64))| ClassCount {
        class: class.name(),
        files: *files,
        bytes: *bytes,
    };
    report.classes = shares.iter().map(count).collect();
    let of = |policy| estimate_of(policy, &sums.remove(policy).unwrap_or_default(), &shares, report.whole);
    report.tiers = policies.iter().map(of).collect();
    if let (Some(model), Some(deep)) = (model, report.tiers.last()) {
        let estimated = estimate_language(model, &pieces, &shares, deep, progress).map_err(io::Error::other)?;
        report.language = Some(estimated);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_drawn_by_bytes_and_repeat() {
        let draw = || {
            let dir = tempfile::tempdir().unwrap();
            let disk = host::RealDisk::open(dir.path(), true).unwrap();
            for (name, len) in [("a", 100u64), ("b", 3 << 20), ("c", 1 << 20)] {
                use crate::host::Disk;
                disk.open(name, host::OpenMode::Create).unwrap().write_at(&vec![7; len as usize], 0).unwrap();
            }
            let mut survey = Survey {
                report: EstimateReport::default(),
                all: Some(Vec::new()),
                sample_bytes: 200 << 20,
                places: Vec::new(),
                drawn: Vec::new(),
                chance: Chance(1),
            };
            host::walk(dir.path(), &mut |met| survey.meet(met)).unwrap();
            survey.places.iter().map(|p| (p.file.file.path.file_name().unwrap().to_owned(), p.byte)).collect::<Vec<_>>()
        };
        let places = draw();
        assert_eq!(places.len(), 800);
        assert_eq!(places, draw());
        let in_b = places.iter().filter(|(name, _)| name == "b").count();
        assert!((540..660).contains(&in_b), "three quarters of the bytes: {in_b}");
    }

    #[test]
    fn the_margin_is_that_of_the_mean() {
        let measured = |coded_bytes| Measured { plain_bytes: 100, coded_bytes, encode_s: 1e-6, decode_s: 1e-6 };
        let mut sums = Sums::default();
        (0..50).for_each(|n| sums.add(&measured(if n % 2 == 0 { 20 } else { 40 }), 1.0));
        assert!((sums.mean(sums.ratio) - 0.3).abs() < 1e-9);
        // A deviation of a tenth, over the root of fifty.
        assert!((sums.margin() - 1.96 * 0.1 / 49f64.sqrt()).abs() < 1e-6, "{}", sums.margin());
        assert_eq!(mb_s(sums.mean(sums.decode)).round(), 100.0);
        let shares = Shares::from([(Class::Text, (3, 1000))]);
        let e = estimate_of(&Policy::of(Tier::Fast), &BTreeMap::from([(Class::Text, sums)]), &shares, false);
        assert_eq!((e.coded_bytes, e.margin_bytes), (300, 28));
    }
}
