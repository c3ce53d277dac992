//! Priors of a volume: trained on samples of its files, kept where they pay for themselves; and segments coded anew from
//! them.
//!
//! Samples are taken at even distances over all bytes of all files, so a class of data has as many of them as it has
//! bytes. Those of a class that are alike (`clusters`) make one part of it, and each part has a prior of its own. Texts for
//! it are made of most of a part's samples: some bytes of each, which teach what the data is like, or the pieces that the
//! others repeat most (`cover`). The rest, of other files where there are enough of them, tell which text saves most. It is
//! kept when that is more than its prior takes on disk.
//!
//! # Limits
//! A training holds some texts and the samples of one class in memory, some tens of megabytes, and decodes a segment for
//! each sample of a coded file, at most `SAMPLES_READ_MAX` of a class.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::cache::Plain;
use super::gc::{Move, Part, Unpacked};
use super::types::Error;
use super::{Volume, clusters, cover, languages};
use crate::base::{ByteRange, Class, Ino, MethodId, ModelId, PackId, SegmentRef};
use crate::codec::{self, Library, Likeness};
use crate::format::{Coding, Extent, FileKind, Owner, SegmentHeader};
use crate::host::{Disk, OpenMode};
use crate::store::{self, Store};

/// Samples of a volume.
const SAMPLES: u64 = 320;
/// Bytes by which the class of a file is told that is not coded yet.
const HEAD_BYTES: usize = 16 << 10;
/// Inodes looked at under one read of the index.
const INODES_PER_PAGE: usize = 1024;
/// A class with fewer bytes is left to the priors of the program: a prior must be paid for.
const CLASS_BYTES_MIN: u64 = 4 << 20;
/// Every so many files of a class, or samples where it has few files, are held back to judge a prior.
const HELD_BACK: u64 = 5;
/// Files below which samples are held back instead.
const FILES_MIN: usize = 10;
/// Segments that a prior is judged by.
const JUDGED_MAX: usize = 10;
/// Part of a class's bytes that become the text of a prior, and the least that is worth it, bytes.
const TEXT_PART: u64 = 32;
const TEXT_BYTES_MIN: usize = 32 << 10;
/// Bytes of a text that come from one sample, at least and at most.
const CUT_BYTES: usize = 8 << 10;
const CUT_BYTES_MAX: usize = 64 << 10;
/// Samples of a class that are read.
const SAMPLES_READ_MAX: usize = 160;
/// Samples that a part of a class has at least: fewer say too little of what a prior gains.
const PART_SAMPLES_MIN: u64 = 12;
/// More than the text are read, so that there is something to choose from.
const READ_FACTOR: u64 = 4;
/// A prior must save this part of what its class takes, 1/1000, beyond its own files.
const GAIN_MIN: u64 = 10;
/// Priors of a volume.
const PRIORS_MAX: usize = 64;
/// Segments looked at in one step of coding anew.
const SEGMENTS_PER_STEP: usize = 8;

/// A volume is trained by itself from so many coded bytes on.
const GROWN_BYTES_MIN: u64 = 48 << 20;
/// Coded bytes of the volume when it was last trained by itself, in decimal.
const TRAINED_FILE: &str = "trained";

/// What training did for one class of data, or a part of it that is alike.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Trained {
    pub class: String,
    /// Which of the parts of its class; 1 of 1 where all of it is alike.
    pub part: u32,
    pub parts: u32,
    /// Plain bytes of it, estimated from the samples.
    pub class_bytes: u64,
    /// Bytes of the prior's text, and of its file; 0 when none was tried.
    pub text_bytes: u64,
    pub prior_bytes: u64,
    /// Plain bytes that were held back, what they take without the prior, and with it.
    pub judged_bytes: u64,
    pub before_bytes: u64,
    pub after_bytes: u64,
    /// The prior, when it was kept.
    pub prior: Option<String>,
    /// Why it was not.
    pub reason: Option<String>,
}

/// What training did.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct TrainReport {
    pub samples: u64,
    /// Samples that could not be read: damaged, or changed meanwhile.
    pub unreadable: u64,
    pub classes: Vec<Trained>,
}

/// A prior of the volume, for reports.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct PriorReport {
    pub id: String,
    pub class: String,
    pub serial: u32,
    pub text_bytes: u64,
    pub file_bytes: u64,
}

/// What coding anew did.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct RecodeReport {
    pub segments_looked_at: u64,
    pub segments_recoded: u64,
    /// Stored bytes of those, before and after.
    pub before_bytes: u64,
    pub after_bytes: u64,
    /// Segments that could not be read.
    pub unreadable: u64,
}

/// Segments being coded anew.
#[derive(Debug)]
pub struct RecodeRun {
    /// What is left, and where the first of them is gone on with.
    packs: Vec<PackId>,
    at: u64,
    saves_percent: u32,
    pub report: RecodeReport,
}

impl RecodeRun {
    pub fn is_done(&self) -> bool {
        self.packs.is_empty()
    }
}

/// A sample with bytes from its place.
type Read = (Sample, Vec<u8>);

/// A place in a file, and the class that its data has.
#[derive(Clone, Copy)]
struct Sample {
    ino: Ino,
    offset: u64,
    size: u64,
    class: Class,
}

/// The priors and language models that a store keeps in `disk`. One that is damaged is told, and the segments that name it are
/// errors when they are read.
pub fn library_of(disk: &Arc<dyn Disk>, store: &Store) -> Library {
    let library = Library::default();
    let ids = store.models().unwrap_or_else(|e| {
        log::error!("{e}");
        Vec::new()
    });
    for id in ids {
        match store.model(id) {
            Err(e) => log::error!("{e}"),
            Ok(file) => {
                if let Err(e) = library.add(&file) {
                    log::error!("models/{id}: {e}");
                }
            }
        }
    }
    languages::fill(&library.languages, disk);
    library
}

/// Coded bytes when the volume was last trained by itself; 0 when that is not known.
fn trained_bytes(disk: &dyn Disk) -> u64 {
    let mut digits = [0; 20];
    let read = disk.open(TRAINED_FILE, OpenMode::Read).and_then(|file| file.read_at(&mut digits, 0));
    let digits = digits.get(..read.unwrap_or(0)).unwrap_or_default();
    std::str::from_utf8(digits).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

impl Volume {
    /// Trains a prior for each class of data that has enough bytes and gains by one. With `dry_run` none is kept.
    ///
    /// # Errors
    /// When the volume cannot be changed (unless `dry_run`), or the index fails. Samples that cannot be read are counted.
    ///
    /// # Durability
    /// A prior that is kept is on disk before any segment can name it.
    ///
    /// # Blocking
    /// A minute or two of one core.
    pub fn train(&self, dry_run: bool) -> Result<TrainReport, Error> {
        if !dry_run {
            self.writable()?;
        }
        let _one = self.training.lock().unwrap_or_else(|e| e.into_inner());
        let (total, samples) = self.samples()?;
        let mut report = TrainReport { samples: samples.len() as u64, ..TrainReport::default() };
        let mut by_class: BTreeMap<Class, Vec<Sample>> = BTreeMap::new();
        for sample in &samples {
            by_class.entry(sample.class).or_default().push(*sample);
        }
        for (class, of_class) in by_class {
            if self.hurried.load(Ordering::Relaxed) {
                break;
            }
            let class_bytes = (u128::from(total) * of_class.len() as u128 / samples.len().max(1) as u128) as u64;
            let whole = Trained { class: class.name().into(), part: 1, parts: 1, class_bytes, ..Trained::default() };
            if let Some(why) = not_trained(class, class_bytes) {
                report.classes.push(Trained { reason: Some(why), ..whole });
                continue;
            }
            let read = self.read_samples(&of_class, class_bytes, &mut report.unreadable);
            let parts = parts_of(&read, class_bytes);
            for (number, part) in (1..).zip(&parts) {
                let mut trained = Trained {
                    part: number,
                    parts: parts.len() as u32,
                    class_bytes: class_bytes * part.len() as u64 / read.len().max(1) as u64,
                    ..whole.clone()
                };
                if let Err(why) = self.train_part(class, part, &mut trained, &mut report.unreadable, dry_run)? {
                    trained.reason = Some(why);
                }
                report.classes.push(trained);
            }
        }
        Ok(report)
    }

    /// Samples of a class with bytes from their places: together as many as the texts of its priors may need.
    fn read_samples(&self, samples: &[Sample], class_bytes: u64, unreadable: &mut u64) -> Vec<Read> {
        let stride = samples.len().div_ceil(SAMPLES_READ_MAX).max(1);
        let each = READ_FACTOR * (class_bytes / TEXT_PART) / (samples.len() / stride).max(1) as u64;
        let each = each.clamp(CUT_BYTES as u64, CUT_BYTES_MAX as u64) as usize;
        let mut last = None;
        let mut read = Vec::new();
        for sample in samples.iter().step_by(stride) {
            if self.hurried.load(Ordering::Relaxed) {
                break;
            }
            match self.sample_bytes(sample, each, &mut last) {
                Ok(bytes) => read.push((*sample, bytes)),
                Err(_) => *unreadable += 1,
            }
        }
        read
    }

    /// Trains when twice as much is coded as when it was last done so. Costs nothing otherwise.
    ///
    /// # Errors
    /// As `train`.
    pub fn train_if_grown(&self) -> Result<(), Error> {
        let uses_priors = self.adjustable().policy.only.is_none_or(codec::starts_from_priors);
        if !uses_priors || self.writable().is_err() {
            return Ok(());
        }
        let coded: u64 = self.store.ledger().methods.values().map(|m| m.plain_bytes).sum();
        if coded < GROWN_BYTES_MIN || coded < 2 * trained_bytes(&*self.disk) {
            return Ok(());
        }
        self.train(false)?;
        // A hint: without it the next mount trains once more than it must.
        if let Err(e) = store::write_whole(&*self.disk, "", TRAINED_FILE, TRAINED_FILE, format!("{coded}\n").as_bytes())
        {
            log::warn!("{TRAINED_FILE} cannot be written: {e}");
        }
        Ok(())
    }

    /// Trains a prior for what is alike in a class. The inner error says why none is kept.
    fn train_part(
        &self,
        class: Class,
        samples: &[&Read],
        trained: &mut Trained,
        unreadable: &mut u64,
        dry_run: bool,
    ) -> Result<Result<(), String>, Error> {
        let known = self.library.priors();
        if known.len() >= PRIORS_MAX {
            return Ok(Err(format!("the volume has {PRIORS_MAX} priors, which is all it may have")));
        }
        let (taught, held) = hold_back(samples);
        let wanted = (trained.class_bytes / TEXT_PART).min(codec::TEXT_BYTES_MAX as u64) as usize;
        let taught: Vec<&[u8]> = taught.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let texts = [even(&taught, wanted), even(&taught, wanted / 4), cover::choose(&taught, wanted)];
        let mut last = None;
        let mut judged: Vec<Vec<u8>> = Vec::new();
        let stride = held.len().div_ceil(JUDGED_MAX).max(1);
        for (sample, _) in held.into_iter().step_by(stride) {
            match self.sample_bytes(sample, codec::segment_bytes(class) as usize, &mut last) {
                Ok(bytes) => judged.push(bytes),
                Err(_) => *unreadable += 1,
            }
        }
        if texts.iter().all(|text| text.len() < TEXT_BYTES_MIN) || judged.is_empty() {
            return Ok(Err("too little of it could be read".into()));
        }
        trained.judged_bytes = judged.iter().map(|raw| raw.len() as u64).sum();
        trained.before_bytes = judged.iter().map(|raw| codec::stored_bytes(raw, class, &self.library)).sum();
        let class_stored = |judged_stored: u64| {
            (u128::from(trained.class_bytes) * u128::from(judged_stored) / u128::from(trained.judged_bytes.max(1)))
                as u64
        };
        let serial = known.iter().map(|p| p.serial).max().unwrap_or(0) + 1;
        // What a volume would take with each text, the files of its prior included.
        let mut best: Option<(u64, Vec<u8>, u64, usize)> = None;
        for text in texts.iter().filter(|text| text.len() >= TEXT_BYTES_MIN / 4) {
            if self.hurried.load(Ordering::Relaxed) {
                return Ok(Err("the volume is about to be unmounted".into()));
            }
            let Ok(file) = codec::train_from(class, serial, text) else { continue };
            let Ok(library) = self.library.with(&file) else { continue };
            let after: u64 = judged.iter().map(|raw| codec::stored_bytes(raw, class, &library)).sum();
            // It is stored twice.
            let whole = class_stored(after) + 2 * file.len() as u64;
            if best.as_ref().is_none_or(|(least, ..)| whole < *least) {
                best = Some((whole, file, after, text.len()));
            }
        }
        let Some((whole, file, after, text_bytes)) = best else {
            return Ok(Err("no prior could be made of it".into()));
        };
        (trained.text_bytes, trained.prior_bytes, trained.after_bytes) = (text_bytes as u64, file.len() as u64, after);
        let before = class_stored(trained.before_bytes);
        if whole + before * GAIN_MIN / 1000 >= before {
            return Ok(Err(format!("it would save too little: {whole} bytes with it, {before} without")));
        }
        if dry_run {
            return Ok(Err("only tried".into()));
        }
        let id = self.store.add_model(&file).map_err(|e| self.store_failed(e))?;
        if let Err(e) = self.library.add(&file) {
            return Ok(Err(e.to_string()));
        }
        log::info!("prior {id} for {} saves {} of {before} bytes", class.name(), before - whole);
        trained.prior = Some(id.to_string());
        Ok(Ok(()))
    }

    /// Bytes of all files, and places at even distances over them.
    fn samples(&self) -> Result<(u64, Vec<Sample>), Error> {
        let mut total = 0u64;
        self.each_file(|_, size| total += size)?;
        let step = (total / SAMPLES).max(CUT_BYTES as u64);
        let (mut next, mut passed) = (step / 2, 0u64);
        let mut places = Vec::new();
        self.each_file(|ino, size| {
            while next < passed + size && places.len() < SAMPLES as usize {
                places.push((ino, next - passed, size));
                next += step;
            }
            passed += size;
        })?;
        let mut samples = Vec::with_capacity(places.len());
        // Of a file that is being coded hundreds of places may not be coded yet.
        let mut head: Option<(Ino, Option<Class>)> = None;
        for (ino, offset, size) in places {
            let class = self.coded_class(ino, offset).or_else(|| {
                let known = head.filter(|(of, _)| *of == ino);
                let (_, class) = *head.insert(known.unwrap_or_else(|| (ino, self.head_class(ino, size))));
                class
            });
            samples.extend(class.map(|class| Sample { ino, offset, size, class }));
        }
        Ok((total, samples))
    }

    /// Calls `f` with each file that has bytes, and how many.
    fn each_file(&self, mut f: impl FnMut(Ino, u64)) -> Result<(), Error> {
        let mut after = Ino(0);
        loop {
            let page = self.store.inodes(after, INODES_PER_PAGE).map_err(Error::Store)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.ino;
            for rec in page.iter().filter(|rec| rec.kind == FileKind::Regular) {
                // The log has the size that is durable, which of a file that was never synced is nothing.
                let size = match rec.staging {
                    Some(_) => self.inode(rec.ino).map_or(0, |inode| inode.read().rec.size),
                    None => rec.size,
                };
                // Holes of sparse files teach nothing: what a file takes is at most what it has.
                if size > 0 && (rec.coded || rec.staging.is_some()) {
                    f(rec.ino, size);
                }
            }
        }
    }

    /// The class that a place of a file was coded as. `None` where it is not coded, or cannot be read.
    fn coded_class(&self, ino: Ino, offset: u64) -> Option<Class> {
        let extents = self.store.extents(ino, ByteRange::at(offset, 1), 1).ok()?;
        self.store.segment_header(extents.first()?.segment).ok().map(|header| header.coding.class)
    }

    /// The class that a file would be coded as by its first bytes. `None` when they cannot be read.
    fn head_class(&self, ino: Ino, size: u64) -> Option<Class> {
        let head = Sample { ino, offset: 0, size, class: Class::Unknown };
        let sniffed = || self.sample_bytes(&head, HEAD_BYTES, &mut None).ok().map(|bytes| codec::classify(&bytes));
        self.coded_class(ino, 0).or_else(sniffed)
    }

    /// Up to `len` plain bytes of a file from a sample's offset on, or before it at the end of the file. Samples come in the
    /// order of their places, so the segment that was decoded last is kept for the next.
    fn sample_bytes(
        &self,
        sample: &Sample,
        len: usize,
        last: &mut Option<(SegmentRef, Plain)>,
    ) -> Result<Vec<u8>, Error> {
        let start = sample.offset.min(sample.size.saturating_sub(len as u64));
        let range = ByteRange { start, end: sample.size.min(start + len as u64) };
        let inode = self.inode(sample.ino)?;
        let (mut bytes, coded) = {
            let state = inode.read();
            state.alive()?;
            self.gather(&state, range)?
        };
        if coded.iter().any(|piece| piece.in_parts) {
            return Err(Error::Invalid("a sample of what a language model codes would take minutes to decode"));
        }
        self.fill(sample.ino, &mut bytes, &coded, last)?;
        Ok(bytes)
    }

    /// The priors of the volume.
    pub fn priors(&self) -> Vec<PriorReport> {
        let report = |p: &std::sync::Arc<codec::VolumePrior>| PriorReport {
            id: p.id.to_string(),
            class: p.class.name().into(),
            serial: p.serial,
            text_bytes: u64::from(p.text_bytes),
            file_bytes: u64::from(p.file_bytes),
        };
        self.library.priors().iter().map(report).collect()
    }

    /// Plans to code segments anew where that saves `saves_percent` of a segment.
    pub fn plan_recode(&self, saves_percent: u32) -> RecodeRun {
        let packs = self.store.data_packs().iter().map(|p| p.pack).collect();
        RecodeRun { packs, at: 0, saves_percent, report: RecodeReport::default() }
    }

    /// Goes on by some segments. Must not run at the same time as `gc_step`.
    ///
    /// # Errors
    /// When nothing can go on: the volume is read-only, the index fails, the disk is full.
    ///
    /// # Durability
    /// What was swapped is on disk at return; the old segments are given back by gc.
    ///
    /// # Blocking
    /// Disk, decoding and coding of the segments.
    pub fn recode_step(&self, run: &mut RecodeRun) -> Result<(), Error> {
        self.writable()?;
        let Some(pack) = run.packs.last().copied() else { return Ok(()) };
        let page = self.store.segments_of(pack, run.at, SEGMENTS_PER_STEP).map_err(Error::Store)?;
        let Some((last, _)) = page.last() else {
            run.packs.pop();
            run.at = 0;
            return Ok(());
        };
        run.at = last.offset + 1;
        let mut moves = Vec::new();
        for (at, used) in page {
            run.at = at.offset + 1;
            run.report.segments_looked_at += 1;
            // What is hardly used is gc's to code anew.
            if used.is_sparse() || self.hurried.load(Ordering::Relaxed) {
                continue;
            }
            let coded = self.recode(at, run.saves_percent);
            if !self.take_anew(at, coded, &mut moves, &mut run.report)? {
                break;
            }
        }
        self.apply_moves(&moves)
    }

    /// Takes in what became of a segment that was to be coded anew. False where the step is to end with it: it took minutes,
    /// and is not to be lost with the next.
    ///
    /// # Errors
    /// When nothing can go on. What was coded before is in its place then, where that could be.
    pub(super) fn take_anew(
        &self,
        at: SegmentRef,
        coded: Result<Option<Part>, Error>,
        moves: &mut Vec<Move>,
        report: &mut RecodeReport,
    ) -> Result<bool, Error> {
        match coded {
            Ok(None) => {}
            Ok(Some(part)) => {
                report.segments_recoded += 1;
                report.before_bytes += u64::from(at.stored_len);
                report.after_bytes += u64::from(part.segment.stored_len);
                let slow = part.method == Some(MethodId::Language as u16);
                moves.push(Move { old: at, parts: vec![part] });
                return Ok(!slow);
            }
            Err(e) if e.is_refusal() || self.writable().is_err() => {
                self.apply_moves(moves)?;
                return Err(e);
            }
            Err(_) if self.store.has_deleted(at.pack) => {}
            Err(e) => {
                log::warn!("{at} is not coded anew: {e}");
                report.unreadable += 1;
            }
        }
        Ok(true)
    }

    /// Codes one segment anew and appends it, where another prior than that it has, or a language model, promises more and it
    /// becomes smaller; and where its policy has no language model any more, whatever it then takes.
    fn recode(&self, at: SegmentRef, saves_percent: u32) -> Result<Option<Part>, Error> {
        let before = self.store.segment_header(at).map_err(Error::Store)?.coding;
        // What no method could code then may be coded now.
        let is_raw = before.method == MethodId::Raw as u16 && before.class != Class::Incompressible;
        let (comes, goes) = self.language_comes_or_goes(at, &before)?;
        if before.method == MethodId::Language as u16 && !(comes || goes) {
            return Ok(None);
        }
        if !(is_raw || comes || goes || self.library.knows(before.class)) {
            return Ok(None);
        }
        let Some(unpacked) = self.unpack(at)? else { return Ok(None) };
        if !(is_raw || comes || goes) {
            let promised = self.library.prior_for(&unpacked.plain, unpacked.coding.class);
            if promised == ModelId::NONE || promised == ModelId(unpacked.coding.model) {
                return Ok(None);
            }
        }
        self.code_anew(at, &unpacked, saves_percent, goes)
    }

    /// Codes a segment by the policy that is given with it and appends it, where it becomes smaller by so much; with
    /// `leaves_model` whatever it takes, where it then needs another model.
    pub(super) fn code_anew(
        &self,
        at: SegmentRef,
        unpacked: &Unpacked,
        saves_percent: u32,
        leaves_model: bool,
    ) -> Result<Option<Part>, Error> {
        let Unpacked { coding, payload_bytes, plain, owners, policy } = unpacked;
        // What was coded from another is coded from the same one, or from none: what else it is like is not looked for.
        let reference = coding.reference.and_then(|_| self.open_reference_of(at, coding.class, policy, plain.len()));
        if coding.reference.is_some() && reference.is_none() {
            return Ok(None);
        }
        let encoded =
            self.encode(plain, coding.class, policy, reference.as_ref().map(|plain| plain.as_slice()), None)?;
        let smaller = encoded.payload.len() as u64 * 100 <= payload_bytes * u64::from(100 - saves_percent.min(100));
        if !(smaller || leaves_model && encoded.coding.model != coding.model) {
            return Ok(None);
        }
        let owner = |(ino, e): &(Ino, Extent)| Owner {
            ino: *ino,
            file_offset: e.file_offset,
            segment_offset: e.segment_offset,
            len: e.len,
        };
        let (segment_bytes, method) = (encoded.coding.raw_len, Some(encoded.coding.method));
        let refers = encoded.coding.reference.is_some();
        let header = SegmentHeader { coding: encoded.coding, owners: owners.iter().map(owner).collect() };
        let segment = self.store.append_segment(&header, &encoded.payload).map_err(|e| self.store_failed(e))?;
        let range = ByteRange { start: 0, end: u64::from(segment_bytes) };
        Ok(Some(Part { range, segment, segment_offset: 0, segment_bytes, method, refers }))
    }

    /// Whether a segment may be coded by a language model now and is not, or by one that codes no more; or may not and is,
    /// by the policy of its first file.
    fn language_comes_or_goes(&self, at: SegmentRef, coding: &Coding) -> Result<(bool, bool), Error> {
        let is = coding.method == MethodId::Language as u16;
        if !is && (self.library.languages.is_empty() || coding.reference.is_some()) {
            return Ok((false, false));
        }
        let owners = self.store.owners_of(at, 1).map_err(Error::Store)?;
        let Some((ino, _)) = owners.first() else { return Ok((false, false)) };
        let may = codec::uses_language(coding.class, &self.policy_of(*ino, coding.class)?);
        let other = !self.library.languages.codes(coding.class, ModelId(coding.model));
        Ok((may && !is, is && (!may || other)))
    }
}

/// Why a class is not trained for, if it is not.
fn not_trained(class: Class, bytes: u64) -> Option<String> {
    if matches!(
        class,
        Class::Incompressible
            | Class::Nucleotides
            | Class::Container
            | Class::Jpeg
            | Class::Sound
            | Class::Picture
            | Class::Video
    ) {
        return Some("no prior helps with it".into());
    }
    (bytes < CLASS_BYTES_MIN).then(|| format!("a prior pays from {} MiB of a class on", CLASS_BYTES_MIN >> 20))
}

/// The parts of a class that are alike in themselves, each large enough for a prior where there are several.
fn parts_of(read: &[Read], class_bytes: u64) -> Vec<Vec<&Read>> {
    let like: Vec<Likeness> = read.iter().map(|(_, bytes)| Likeness::of(bytes)).collect();
    let least = (CLASS_BYTES_MIN * read.len() as u64).div_ceil(class_bytes.max(1)).max(PART_SAMPLES_MIN);
    let parts = clusters::parts(&like, least as usize);
    parts.iter().map(|part| part.iter().filter_map(|n| read.get(*n)).collect()).collect()
}

/// Bytes of samples, as many of each.
fn even(samples: &[&[u8]], bytes: usize) -> Vec<u8> {
    let cut = (bytes / samples.len().max(1)).max(CUT_BYTES);
    let stride = (samples.len() * cut).div_ceil(bytes.max(1)).max(1);
    samples.iter().step_by(stride).flat_map(|sample| sample.get(..cut).unwrap_or(sample)).take(bytes).copied().collect()
}

/// Parts samples into those that teach and those that judge: by files where there are enough, else by turns.
fn hold_back<'a>(samples: &[&'a Read]) -> (Vec<&'a Read>, Vec<&'a Read>) {
    let mut files: Vec<Ino> = samples.iter().map(|(s, _)| s.ino).collect();
    files.dedup();
    let by_file = files.len() >= FILES_MIN;
    let turn = |at: usize, s: &Sample| {
        let turn = if by_file { files.partition_point(|ino| *ino < s.ino) } else { at };
        turn as u64 % HELD_BACK == HELD_BACK / 2
    };
    let (held, taught): (Vec<_>, Vec<_>) = samples.iter().enumerate().partition(|(at, (s, _))| turn(*at, s));
    let without = |numbered: Vec<(usize, &&'a Read)>| numbered.into_iter().map(|(_, read)| *read).collect();
    (without(taught), without(held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_judge_do_not_teach() {
        let sample = |ino, offset| (Sample { ino: Ino(ino), offset, size: 100, class: Class::Text }, Vec::new());
        let many: Vec<Read> = (0..40).map(|n| sample(n / 2, n)).collect();
        let many: Vec<&Read> = many.iter().collect();
        let (taught, held) = hold_back(&many);
        assert!(held.iter().all(|h| taught.iter().all(|t| t.0.ino != h.0.ino)));
        assert!(held.len() == 8 && taught.len() == 32);
        let one: Vec<Read> = (0..40).map(|n| sample(7, n)).collect();
        let one: Vec<&Read> = one.iter().collect();
        let (taught, held) = hold_back(&one);
        assert!(held.len() == 8 && taught.len() == 32);
    }
}
