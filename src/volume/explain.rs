//! What `explain` shows: what a file costs, by which methods, what stands against smaller ones, and what waits for what.

use std::collections::BTreeMap;

use super::Volume;
use super::report::SEGMENTS_LISTED_MAX;
use super::types::{Error, PolicyReport, SegmentReport};
use crate::base::{Class, Ino, MethodId, ModelId, PackId, SegmentRef};
use crate::codec;

/// Segments of a file that are coded in the same way.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct KindReport {
    pub method: String,
    pub revision: u16,
    pub class: String,
    /// The prior that the volume's own files taught, or the language model that somebody brought, which they are coded with.
    pub model: Option<String>,
    /// Parts of the file, of a segment each.
    pub segments: u64,
    /// Plain bytes of the file in them, and their part of what the segments take.
    pub bytes: u64,
    pub stored_bytes: u64,
    pub bits_per_byte: f64,
    /// Parts of segments that hold other files too, or other places of this one: bundles of small files, and what is shared.
    pub partly: u64,
    /// Bytes that other places name too.
    pub shared_bytes: u64,
    /// Those that were coded from another segment, which a read decodes too.
    pub referring: u64,
    /// Longest time that a read of a few bytes takes of one core, milliseconds; the disk comes on top.
    pub cold_read_ms: u32,
    /// Time of one core for reading all of it.
    pub read_all_ms: u64,
    /// When the packs that hold them were last written, the latest, seconds since 1970: they were coded no later.
    pub coded_before: Option<i64>,
    /// Stronger methods, and what stands against each.
    pub against: Vec<AgainstReport>,
    /// What holds for the file by now would not have coded them so: `recode`, or a copy, codes them anew.
    pub outdated: bool,
}

/// A method that was not used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AgainstReport {
    pub method: String,
    pub why: String,
}

/// What keeps staged bytes from being coded now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WaitingReport {
    pub why: String,
    /// It is looked at again then.
    pub seconds: Option<u64>,
}

/// What a file costs, and why.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Explanation {
    pub ino: u64,
    pub size: u64,
    pub staged_bytes: u64,
    /// The file's part of what its segments take.
    pub stored_bytes: u64,
    pub shared_bytes: u64,
    /// What holds for the file from now on, and who says so.
    pub policy: PolicyReport,
    /// The one that holds most of the file first.
    pub kinds: Vec<KindReport>,
    /// Plain bytes of segments that are not told of, since they are too many.
    pub untold_bytes: u64,
    /// Set where there are staged bytes.
    pub waiting: Option<WaitingReport>,
}

impl Volume {
    /// What a file costs and why.
    ///
    /// # Errors
    /// It is no regular file, or gone; or the index fails.
    ///
    /// # Blocking
    /// Disk: a small read for each segment of the file, of ten thousand at most; some hundred that were opened, or coded by a
    /// language model, are read whole.
    pub fn explain(&self, ino: Ino) -> Result<Explanation, Error> {
        let report = self.report(ino)?;
        let mut kinds: BTreeMap<(String, u16, String, ModelId), (KindReport, u64)> = BTreeMap::new();
        let (mut coded, mut untold_bytes) = (0, 0);
        for s in &report.segments {
            if s.segment_bytes == 0 {
                // What comes behind the last that is listed is not told apart.
                untold_bytes = if coded == SEGMENTS_LISTED_MAX { s.bytes } else { 0 };
                continue;
            }
            coded += 1;
            let at = SegmentRef {
                pack: PackId(s.pack),
                offset: s.pack_offset,
                stored_len: u32::try_from(s.stored_bytes).unwrap_or(u32::MAX),
            };
            let model = self.store.segment_header(at).map_or(ModelId::NONE, |header| ModelId(header.coding.model));
            let key = (s.method.clone(), s.revision, s.class.clone(), model);
            let (kind, longest) = kinds.entry(key).or_insert_with(|| {
                let of = KindReport { method: s.method.clone(), class: s.class.clone(), ..KindReport::default() };
                let model = (model != ModelId::NONE).then(|| model.to_string());
                (KindReport { revision: s.revision, model, ..of }, 0)
            });
            *longest = (*longest).max(s.segment_bytes);
            kind.add(s, self.store.pack_modified(at.pack));
        }
        let judged = kinds.into_values().map(|(kind, longest)| self.judged(ino, kind, longest));
        let mut kinds: Vec<KindReport> = judged.collect::<Result<_, Error>>()?;
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.bytes));
        let waiting = if report.staged_bytes > 0 { Some(self.waiting(ino, &report.policy)?) } else { None };
        Ok(Explanation {
            ino: ino.0,
            size: report.size,
            staged_bytes: report.staged_bytes,
            stored_bytes: report.stored_bytes,
            shared_bytes: report.shared_bytes,
            policy: report.policy,
            kinds,
            untold_bytes,
            waiting,
        })
    }

    /// Adds what is known of all segments of a kind; rules may say something else for each class.
    fn judged(&self, ino: Ino, mut kind: KindReport, longest: u64) -> Result<KindReport, Error> {
        kind.bits_per_byte = kind.stored_bytes as f64 * 8.0 / kind.bytes.max(1) as f64;
        let len = u32::try_from(longest).unwrap_or(u32::MAX);
        let class = Class::ALL.into_iter().find(|class| class.name() == kind.class);
        let method = MethodId::ALL.into_iter().find(|method| method.name() == kind.method);
        if let (Some(class), Some(method)) = (class, method) {
            let policy = self.policy_of(ino, class)?;
            let against = codec::against_stronger(class, len, method, &policy);
            let told = |(method, why): (MethodId, codec::Against)| AgainstReport {
                method: method.name().to_string(),
                why: why.to_string(),
            };
            kind.against = against.into_iter().map(told).collect();
            kind.outdated = !policy.accepts(method, len);
        }
        Ok(kind)
    }

    /// What keeps the staged bytes of a file from being coded now.
    fn waiting(&self, ino: Ino, policy: &PolicyReport) -> Result<WaitingReport, Error> {
        let told = |why: &str| WaitingReport { why: why.to_string(), seconds: None };
        if policy.stays_plain {
            return Ok(told(&format!(
                "it stays plain, as user.tersefs.nocompress asks for ({})",
                policy.stays_plain_from
            )));
        }
        if self.writable().is_err() {
            return Ok(told("nothing is coded while the volume is read-only or not mounted"));
        }
        if let Some(why) = self.coding_waits() {
            return Ok(told(&why));
        }
        if self.live(ino)?.read().has_writers() {
            return Ok(told("somebody has it open for writing"));
        }
        Ok(self.queue_lock().about(ino, self.now_ms()).unwrap_or_else(|| told("it is in line behind others")))
    }
}

impl KindReport {
    fn add(&mut self, s: &SegmentReport, written: Option<i64>) {
        self.segments += 1;
        self.bytes += s.bytes;
        // As `stat` and `du` charge it.
        let share = u128::from(s.stored_bytes) * u128::from(s.bytes) / u128::from(s.segment_bytes.max(1));
        self.stored_bytes += share as u64;
        self.partly += u64::from(s.bytes < s.segment_bytes);
        self.shared_bytes += s.shared_bytes;
        self.referring += u64::from(s.reference.is_some());
        self.cold_read_ms = self.cold_read_ms.max(s.predicted_decode_ms);
        let parts = s.bytes.div_ceil(s.part_bytes.max(1)).max(1);
        self.read_all_ms = self.read_all_ms.saturating_add(parts.saturating_mul(u64::from(s.predicted_decode_ms)));
        self.coded_before = self.coded_before.max(written);
    }
}
