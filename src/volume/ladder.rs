//! Files that come to an age that a rule speaks of are coded anew, by a stronger method than they are.
//!
//! A walk goes over all inodes, and looks at the segments of files that came of age since the last walk that came to its
//! end. A segment climbs when the policy of every file that needs it leads to a stronger method, and it becomes smaller by
//! it; nothing is ever coded by a weaker one. When the last walk was, and where one that was cut off goes on, is in the
//! file `ladder.json` of the store. Nothing depends on it: without it, or with other rules, a walk looks at all files.
//!
//! As with all that moves segments, files do not change by it: generations stay, readers go on, and a crash leaves the old
//! segment or the new one.
//!
//! # Limits
//! A walk holds a page of inodes, a page of one file's segments, and one segment with its plain bytes.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::gc::{Part, Unpacked};
use super::rules::Rules;
use super::types::Error;
use super::{RecodeReport, Volume};
use crate::base::{ByteRange, Ino, MethodId, SegmentRef};
use crate::codec::{self, Policy};
use crate::format::FileKind;
use crate::host::{Disk, OpenMode};
use crate::store;

/// When the last walk was.
const MEMORY_FILE: &str = "ladder.json";
const MEMORY_BYTES_MAX: u64 = 4096;
const MEMORY_VERSION: u32 = 1;
/// Where a walk is, is written this often, milliseconds.
const SAVE_EVERY_MS: u64 = 10_000;
/// Inodes looked at in one step, and extents of a file.
const INODES_PER_STEP: usize = 1024;
const EXTENTS_PER_STEP: usize = 256;
/// Segments coded in one step.
const SEGMENTS_PER_STEP: usize = 4;
/// Segments that a walk remembers having looked at; beyond it they are forgotten, and looked at again.
const SEEN_MAX: usize = 64 << 10;
/// A segment with more owners is left as it is: it is shared by more files than are looked up for it.
const OWNERS_MAX: usize = 4096;
/// A segment is coded anew when it becomes smaller by so many percent.
const SAVES_PERCENT: u32 = 1;
/// Walks follow each other no faster, and no slower, seconds; in between it is a tenth of the lowest age.
const PAUSE_S: (u64, u64) = (1, 3600);

/// `ladder.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
struct Memory {
    version: u32,
    uuid: String,
    /// `Rules::fingerprint` of those that the walks went by.
    rules: u32,
    /// All that came of age until then was looked at, seconds since 1970.
    through: i64,
    /// The time of a walk that has not come to its end, and the last inode that it is through with.
    under_way: Option<(i64, u64)>,
}

impl Memory {
    /// What was written last; nothing when that is missing, damaged, of other rules or another store.
    fn load(disk: &dyn Disk, uuid: &str, rules: u32) -> Memory {
        let read = || -> io::Result<Memory> {
            let file = disk.open(MEMORY_FILE, OpenMode::Read)?;
            let mut bytes = vec![0; file.len()?.min(MEMORY_BYTES_MAX) as usize];
            let got = file.read_at(&mut bytes, 0)?;
            serde_json::from_slice(bytes.get(..got).unwrap_or_default()).map_err(io::Error::other)
        };
        match read() {
            Ok(memory) if (memory.version, memory.rules) == (MEMORY_VERSION, rules) && memory.uuid == uuid => memory,
            Ok(_) | Err(_) => {
                Memory { version: MEMORY_VERSION, uuid: uuid.to_string(), rules, through: i64::MIN, under_way: None }
            }
        }
    }

    fn save(&self, disk: &dyn Disk) -> Result<(), store::Error> {
        let bytes = serde_json::to_vec(self)
            .map_err(|e| store::Error::Io { what: format!("write {MEMORY_FILE}"), source: e.into() })?;
        store::write_whole(disk, "", MEMORY_FILE, MEMORY_FILE, &bytes)
    }
}

/// A walk.
#[derive(Debug)]
pub struct LadderRun {
    rules: Arc<Rules>,
    memory: Memory,
    /// What comes of age after `memory.through` and until then is looked at.
    now: i64,
    /// The last inode that was looked at.
    after: Ino,
    /// Inodes that came of age, and the one of which segments are looked up from an offset on.
    files: VecDeque<Ino>,
    file: Option<(Ino, u64)>,
    segments: VecDeque<SegmentRef>,
    seen: BTreeSet<SegmentRef>,
    saved_ms: u64,
    is_done: bool,
    pub report: RecodeReport,
}

impl LadderRun {
    /// True when it came to its end, or was given up because the rules are others now.
    pub fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Volume {
    /// Seconds from one walk to the next; `None` where no rule goes by age.
    pub fn ladder_pause_s(&self) -> Option<u64> {
        let first = self.adjustable().rules.first_age_s()?;
        Some((first / 10).clamp(PAUSE_S.0, PAUSE_S.1))
    }

    /// Begins a walk, or goes on with one that was cut off; `None` where no rule goes by age.
    pub fn plan_ladder(&self) -> Option<LadderRun> {
        let rules = self.adjustable().rules;
        rules.first_age_s()?;
        if rules.ends_plain_by_age() {
            self.queue_lock().look_again();
        }
        let mut memory = Memory::load(&*self.disk, &self.store.uuid().to_string(), rules.fingerprint());
        let clock = self.now().secs;
        if memory.through > clock || memory.under_way.is_some_and(|(then, _)| then > clock) {
            // The clock was ahead once: what came of age since would be passed over until it is as late again.
            (memory.through, memory.under_way) = (i64::MIN, None);
        }
        let (now, after) = memory.under_way.unwrap_or((self.now().secs, 0));
        Some(LadderRun {
            rules,
            memory,
            now,
            after: Ino(after),
            files: VecDeque::new(),
            file: None,
            segments: VecDeque::new(),
            seen: BTreeSet::new(),
            saved_ms: self.now_ms(),
            is_done: false,
            report: RecodeReport::default(),
        })
    }

    /// Goes on by some inodes, or some segments. Must not run at the same time as `gc_step`.
    ///
    /// # Errors
    /// When nothing can go on: the volume is read-only, the index fails, the disk is full.
    ///
    /// # Durability
    /// What was swapped is on disk at return; the old segments are given back by gc.
    ///
    /// # Blocking
    /// Disk, decoding and coding of the segments.
    pub fn ladder_step(&self, run: &mut LadderRun) -> Result<(), Error> {
        self.writable()?;
        if self.adjustable().rules != run.rules {
            run.is_done = true;
            return Ok(());
        }
        if !run.segments.is_empty() {
            return self.climb_some(run);
        }
        if let Some((ino, from)) = run.file {
            let rest = ByteRange { start: from, end: u64::MAX };
            let page = self.store.extents(ino, rest, EXTENTS_PER_STEP).map_err(Error::Store)?;
            run.file = page.last().map(|e| (ino, e.file_offset.saturating_add(u64::from(e.len).max(1))));
            for segment in page.iter().map(|e| e.segment) {
                if run.seen.len() >= SEEN_MAX {
                    run.seen.clear();
                }
                if run.seen.insert(segment) {
                    run.segments.push_back(segment);
                }
            }
            return Ok(());
        }
        if let Some(ino) = run.files.pop_front() {
            run.file = Some((ino, 0));
            return Ok(());
        }
        self.remember_ladder(run, false)?;
        let page = self.store.inodes(run.after, INODES_PER_STEP).map_err(Error::Store)?;
        let Some(last) = page.last() else { return self.remember_ladder(run, true) };
        run.after = last.ino;
        for rec in page.iter().filter(|rec| rec.kind == FileKind::Regular && rec.coded) {
            let path = || self.path_in(rec.ino, rec.parent).ok().flatten();
            if run.rules.came_of_age(rec.mtime.secs, run.memory.through, run.now, path) {
                run.files.push_back(rec.ino);
            }
        }
        Ok(())
    }

    /// Writes how far a walk is, now and then, or that it is at its end. All that came of age up to `after` was looked at.
    fn remember_ladder(&self, run: &mut LadderRun, at_end: bool) -> Result<(), Error> {
        run.is_done = at_end;
        if at_end {
            (run.memory.through, run.memory.under_way) = (run.now, None);
        } else if self.now_ms().saturating_sub(run.saved_ms) < SAVE_EVERY_MS {
            return Ok(());
        } else {
            run.memory.under_way = Some((run.now, run.after.0));
        }
        run.saved_ms = self.now_ms();
        if let Err(e) = run.memory.save(&*self.disk) {
            // The next walk looks at more than it must.
            log::warn!("{e}");
        }
        Ok(())
    }

    fn climb_some(&self, run: &mut LadderRun) -> Result<(), Error> {
        // What is left of a full disk is for new files, and for giving space back.
        if self.room_to_code(1) == 0 {
            return Err(Error::Store(store::Error::NoSpace { what: "code anew what came of age".into() }));
        }
        let mut moves = Vec::new();
        for _ in 0..SEGMENTS_PER_STEP {
            if self.hurried.load(Ordering::Relaxed) {
                break;
            }
            let Some(at) = run.segments.pop_front() else { break };
            run.report.segments_looked_at += 1;
            let coded = self.climb(at);
            if !self.take_anew(at, coded, &mut moves, &mut run.report)? {
                break;
            }
        }
        self.apply_moves(&moves)
    }

    /// Codes a segment anew and appends it, where all who need it may have it by a stronger method.
    fn climb(&self, at: SegmentRef) -> Result<Option<Part>, Error> {
        let coding = self.store.segment_header(at).map_err(Error::Store)?.coding;
        let Some(method) = MethodId::from_u16(coding.method) else { return Ok(None) };
        let owners = self.store.owners_of(at, OWNERS_MAX).map_err(Error::Store)?;
        if owners.is_empty() || owners.len() >= OWNERS_MAX {
            return Ok(None);
        }
        let (mut policy, mut last): (Option<Policy>, Option<Ino>) = (None, None);
        for (ino, _) in &owners {
            if last.replace(*ino) != Some(*ino) {
                let one = self.policy_of(*ino, coding.class)?;
                policy = Some(policy.map_or(one, |all| all.weaker_of(&one)));
            }
        }
        let Some(policy) = policy.filter(|policy| codec::climbs(coding.class, method, policy)) else {
            return Ok(None);
        };
        // What is coded from this one takes the time of both.
        let own = codec::predicted_decode_ms(codec::planned(coding.class, &policy), coding.raw_len);
        let too_slow = |e: &crate::format::Extent| {
            let referring = MethodId::from_u16(e.method).map_or(0, |m| codec::predicted_decode_ms(m, e.segment_bytes));
            own.saturating_add(referring) > policy.decode_ms_max()
        };
        if owners.iter().any(|(_, e)| e.segment != at && too_slow(e)) {
            return Ok(None);
        }
        let Some(unpacked) = self.unpack(at)? else { return Ok(None) };
        self.code_anew(at, &Unpacked { policy, ..unpacked }, SAVES_PERCENT, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SimDisk;

    #[test]
    fn a_memory_is_of_its_store_and_its_rules() {
        let disk = SimDisk::new();
        let fresh = Memory::load(&disk, "u", 7);
        assert_eq!((fresh.through, fresh.under_way), (i64::MIN, None));
        let memory = Memory { through: 5, under_way: Some((9, 3)), ..fresh.clone() };
        memory.save(&disk).unwrap();
        assert_eq!(Memory::load(&disk, "u", 7), memory);
        assert_eq!(Memory::load(&disk, "v", 7).through, i64::MIN);
        assert_eq!(Memory::load(&disk, "u", 8).through, i64::MIN);
        let file = disk.open(MEMORY_FILE, OpenMode::Write).unwrap();
        file.write_at(b"{", 0).unwrap();
        file.set_len(1).unwrap();
        assert_eq!(Memory::load(&disk, "u", 7), fresh);
    }
}
