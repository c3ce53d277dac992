//! What `report` shows: what a volume takes, by class of data, by method, and by directory.

use std::collections::{BTreeMap, HashMap};

use super::{FileKind, Volume, types::Error};
use crate::base::{Class, Ino, MethodId};
use crate::codec;

/// Inodes, and segments of a pack, looked at in one step.
const PER_STEP: usize = 1024;
/// Directories climbed to the root.
const DEPTH_MAX: usize = 4096;

/// Segments that are coded by one method, or of one class of data; each counts once, whoever names it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct UseReport {
    pub name: String,
    pub segments: u64,
    /// Plain bytes of them that are in use, and what they take in packs.
    pub plain_bytes: u64,
    pub stored_bytes: u64,
    /// Times that a read of a few bytes takes of one core, as far as is known: the mean over the plain bytes, and the longest;
    /// milliseconds. Of what is decoded in parts, for the whole segment.
    pub cold_read_ms: f64,
    pub cold_read_ms_max: u32,
}

/// A directory with all below it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DirectoryReport {
    /// From the root of the volume.
    pub path: String,
    pub files: u64,
    /// Sum of the sizes of files, holes included, and what they take: coded, with their parts of what is shared, and staged.
    pub bytes: u64,
    pub taken_bytes: u64,
}

/// What a volume takes.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct VolumeReport {
    pub uuid: String,
    pub all: DirectoryReport,
    /// Inodes that are no regular files.
    pub others: u64,
    pub staged_files: u64,
    pub staged_bytes: u64,
    /// By the bytes that they take, the most first.
    pub classes: Vec<UseReport>,
    pub methods: Vec<UseReport>,
    /// Those that take most.
    pub directories: Vec<DirectoryReport>,
    /// Directories that are not told of.
    pub untold_directories: u64,
    /// Segments in use whose headers cannot be read.
    pub unreadable_segments: u64,
}

/// Sums while segments are gone through.
#[derive(Default)]
struct Sums {
    of: UseReport,
    weighed_ms: f64,
}

impl Sums {
    fn add(&mut self, plain: u64, stored: u64, ms: u32) {
        self.of.segments += 1;
        self.of.plain_bytes += plain;
        self.of.stored_bytes += stored;
        self.weighed_ms += f64::from(ms) * plain as f64;
        self.of.cold_read_ms_max = self.of.cold_read_ms_max.max(ms);
    }
}

/// Reports of all that were met, the largest first.
fn finished(sums: BTreeMap<&'static str, Sums>) -> Vec<UseReport> {
    let one = |(name, sums): (&str, Sums)| UseReport {
        name: name.to_string(),
        cold_read_ms: sums.weighed_ms / (sums.of.plain_bytes as f64).max(1.0),
        ..sums.of
    };
    let mut out: Vec<UseReport> = sums.into_iter().map(one).collect();
    out.sort_by_key(|u| std::cmp::Reverse(u.stored_bytes));
    out
}

impl Volume {
    /// What the volume takes, by class, by method, and by directory down to a depth: the `top` that take most.
    ///
    /// # Errors
    /// The index fails.
    ///
    /// # Blocking
    /// Disk: goes through all inodes, and reads the header of every segment.
    pub fn survey(&self, depth: usize, top: usize) -> Result<VolumeReport, Error> {
        let mut report = VolumeReport { uuid: self.store.uuid().to_string(), ..VolumeReport::default() };
        self.survey_segments(&mut report)?;
        self.survey_inodes(&mut report, depth, top)?;
        Ok(report)
    }

    fn survey_segments(&self, report: &mut VolumeReport) -> Result<(), Error> {
        let (mut classes, mut methods) = (BTreeMap::<_, Sums>::new(), BTreeMap::<_, Sums>::new());
        for pack in self.store.ledger().packs.keys() {
            let mut from = 0;
            loop {
                let page = self.store.segments_of(*pack, from, PER_STEP).map_err(Error::Store)?;
                let Some((last, _)) = page.last() else { break };
                from = last.offset + 1;
                for (at, used) in &page {
                    let Ok(header) = self.store.segment_header(*at) else {
                        // Given back meanwhile, or damaged.
                        report.unreadable_segments += u64::from(!self.store.has_deleted(*pack));
                        continue;
                    };
                    let plain = used.plain_bytes.min(u64::from(used.segment_bytes));
                    let method = MethodId::from_u16(header.coding.method);
                    let ms = method.map_or(0, |m| codec::predicted_decode_ms(m, used.segment_bytes));
                    let class = Class::name(header.coding.class);
                    classes.entry(class).or_default().add(plain, used.live_bytes(), ms);
                    let method = method.map_or("unknown", MethodId::name);
                    methods.entry(method).or_default().add(plain, used.live_bytes(), ms);
                }
            }
        }
        (report.classes, report.methods) = (finished(classes), finished(methods));
        Ok(())
    }

    fn survey_inodes(&self, report: &mut VolumeReport, depth: usize, top: usize) -> Result<(), Error> {
        // What lies in a directory itself, and the directory that it lies in.
        let mut own: HashMap<Ino, DirectoryReport> = HashMap::new();
        let mut above: HashMap<Ino, Ino> = HashMap::new();
        let mut after = Ino(0);
        loop {
            let page = self.store.inodes(after, PER_STEP).map_err(Error::Store)?;
            let Some(last) = page.last() else { break };
            after = last.ino;
            for rec in page {
                if rec.kind != FileKind::Regular {
                    report.others += 1;
                    if rec.kind == FileKind::Directory {
                        above.insert(rec.ino, rec.parent);
                    }
                    continue;
                }
                let (mut size, mut taken) = (rec.size, rec.stored_bytes);
                // What is staged only the file below knows. One that is gone meanwhile counts as it was.
                if rec.staging.is_some()
                    && let Ok(attr) = self.glance(rec.ino)
                {
                    (size, taken) = (attr.size, attr.blocks.saturating_mul(512));
                    report.staged_files += 1;
                    report.staged_bytes += taken.saturating_sub(rec.stored_bytes);
                }
                let sums = own.entry(rec.parent).or_default();
                sums.files += 1;
                sums.bytes = sums.bytes.saturating_add(size);
                sums.taken_bytes = sums.taken_bytes.saturating_add(taken);
            }
        }
        let mut sums: HashMap<Ino, DirectoryReport> = HashMap::new();
        for (directory, found) in own {
            let mut way = vec![directory];
            while let Some(at) = way.last().copied().filter(|at| *at != Ino::ROOT && way.len() < DEPTH_MAX) {
                let Some(parent) = above.get(&at) else { break };
                way.push(*parent);
            }
            let is_rooted = way.last() == Some(&Ino::ROOT);
            add(&mut report.all, &found);
            // From the root on, which is the sum of all. Files whose directory is gone have none.
            for at in way.iter().rev().skip(1).take(if is_rooted { depth } else { 0 }) {
                add(sums.entry(*at).or_default(), &found);
            }
        }
        report.all.path = "/".to_string();
        let mut sorted: Vec<(Ino, DirectoryReport)> = sums.into_iter().collect();
        sorted.sort_by_key(|(ino, d)| (std::cmp::Reverse(d.taken_bytes), *ino));
        report.untold_directories = sorted.len().saturating_sub(top) as u64;
        for (ino, found) in sorted.into_iter().take(top) {
            let path = self.path_of(ino).unwrap_or_else(|| format!("directory inode {ino}"));
            report.directories.push(DirectoryReport { path, ..found });
        }
        Ok(())
    }
}

fn add(sums: &mut DirectoryReport, more: &DirectoryReport) {
    sums.files += more.files;
    sums.bytes = sums.bytes.saturating_add(more.bytes);
    sums.taken_bytes = sums.taken_bytes.saturating_add(more.taken_bytes);
}
