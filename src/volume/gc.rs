//! Giving space of packs back: a plan from sums, then small steps that copy what lives and end with the pack's deletion.
//!
//! A step copies some segments of one pack to the active one, checked but not decoded; of segments that are used by less
//! than half it codes anew what is used. The copies are made durable, then the extents are swapped under the locks of
//! their inodes, each only where it still names the old segment, then the log is made durable. When nothing names the
//! pack any more it is deleted. A step can be cut off anywhere: what was copied and not swapped is dead weight of the
//! younger pack.
//!
//! Bytes of files do not change by it, so generations stay, and a coder that is under way loses nothing. A reader that
//! looked up its extents before a pack was deleted looks again (`Volume::read`).
//!
//! # Limits
//! A step holds one segment and one bundle per class in memory, and as many moves as it has segments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::inode::{Inode, lock_all, locked};
use super::reference::{self, Unread};
use super::types::Error;
use super::{StoreError, Volume};
use crate::base::{ByteRange, Class, Ino, PackId, RangeSet, SegmentRef};
use crate::codec::{self, Policy};
use crate::format::{Coding, Extent, MetaOp, Owner, Reference, SegmentHeader};
use crate::store::{self, GcAction, GcPack, stored_share};

/// Segments looked at in one step.
const SEGMENTS_PER_STEP: usize = 64;
/// Extents swapped in one transaction.
const OWNERS_PER_SWAP: usize = 1024;
/// A segment that is named anew while it is moved is gone over again this often; then its pack waits for another time.
const ROUNDS_MAX: usize = 64;
/// A pack that could not be given back is left alone for this long, milliseconds: with damage, and for another reason.
const KEPT_DAMAGED_MS: u64 = 3_600_000;
const KEPT_MS: u64 = 30_000;
/// Space is short when less than this part of the filesystem is free.
const SHORT_PART: u64 = 10;
/// What must be free beside the live part of a pack, bytes: a bundle that comes out larger, and the log.
const MARGIN_BYTES: u64 = 1 << 20;

/// Why a pack is kept though it is worth giving back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPack {
    pub pack: u64,
    pub reason: String,
}

/// What is worth giving back now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcPlan {
    /// In the order in which they are taken.
    pub packs: Vec<GcPack>,
    /// Worth it, and kept for the time being.
    pub kept: Vec<KeptPack>,
    /// Bytes of all data packs.
    pub data_bytes: u64,
    /// What they would take with nothing but live bytes in them.
    pub live_bytes: u64,
    /// More is given back than usual, because space is short.
    pub short: bool,
}

/// What was given back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    pub packs_deleted: u64,
    pub bytes_deleted: u64,
    pub segments_copied: u64,
    pub segments_recoded: u64,
    pub bytes_written: u64,
    pub kept: Vec<KeptPack>,
}

/// A plan being applied.
#[derive(Debug, Default)]
pub struct GcRun {
    waiting: VecDeque<GcPack>,
    /// Where the first of them is, by offset; `None` before it was begun.
    at: Option<u64>,
    rounds: usize,
    pub report: GcReport,
}

impl GcRun {
    pub fn new(plan: &GcPlan) -> GcRun {
        GcRun { waiting: plan.packs.iter().copied().collect(), ..GcRun::default() }
    }

    /// True when the plan is applied, as far as it could be.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    fn next(&mut self) {
        self.waiting.pop_front();
        (self.at, self.rounds) = (None, 0);
    }
}

/// What gc remembers between runs.
#[derive(Debug, Default)]
pub(crate) struct GcMemory {
    /// Packs that could not be given back: why, and until when they are left alone (monotonic milliseconds).
    kept: BTreeMap<PackId, (String, u64)>,
    packs_deleted: u64,
    bytes_deleted: u64,
}

/// Where plain bytes of an old segment lie now.
pub(super) struct Part {
    /// In the plain bytes of the old segment.
    pub range: ByteRange,
    pub segment: SegmentRef,
    pub segment_offset: u32,
    pub segment_bytes: u32,
    /// `None` where it is that of the old segment.
    pub method: Option<u16>,
    /// Coded from another if the old segment was: from the same one.
    pub refers: bool,
}

/// A segment that was copied, or coded anew.
pub(super) struct Move {
    pub old: SegmentRef,
    pub parts: Vec<Part>,
}

/// A segment that was decoded to be coded anew.
pub(super) struct Unpacked {
    pub coding: Coding,
    pub payload_bytes: u64,
    pub plain: Vec<u8>,
    /// The extents that name it, one at least, and the policy of the first one's file.
    pub owners: Vec<(Ino, Extent)>,
    pub policy: Policy,
}

/// Damage of a segment, told by the first place that needs it.
fn damaged(owners: &[(Ino, Extent)], what: String) -> Error {
    let (ino, offset) = owners.first().map_or((Ino(0), 0), |(ino, e)| (*ino, e.file_offset));
    Error::Damaged { ino, offset, what }
}

/// Pieces of sparse segments that are coded together.
#[derive(Default)]
struct Bundle {
    raw: Vec<u8>,
    owners: Vec<Owner>,
    /// Old segment, range in it, and where it lies in `raw`.
    from: Vec<(SegmentRef, ByteRange, u32)>,
}

impl Move {
    fn part(&self, range: &ByteRange) -> Option<&Part> {
        self.parts.iter().find(|p| p.range.start <= range.start && range.end <= p.range.end)
    }

    /// Where a range of the plain bytes of the old segment lies now.
    fn place(&self, range: &ByteRange) -> Option<(SegmentRef, u32)> {
        let part = self.part(range)?;
        Some((part.segment, part.segment_offset + (range.start - part.range.start) as u32))
    }

    /// The extent with the new place of the bytes that it needs: its own, or those of its reference, which must still lie in
    /// one segment alone.
    fn moved(&self, e: &Extent) -> Option<Extent> {
        if let Some(r) = e.reference.filter(|r| r.segment == self.old) {
            let whole = ByteRange { start: 0, end: u64::from(r.segment_bytes) };
            let part = self.parts.iter().find(|p| p.range == whole && p.segment_bytes == r.segment_bytes)?;
            return Some(Extent { reference: Some(Reference { segment: part.segment, ..r }), ..*e });
        }
        let range = ByteRange::at(u64::from(e.segment_offset), u64::from(e.len));
        let part = self.part(&range)?;
        Some(Extent {
            segment: part.segment,
            segment_offset: part.segment_offset + (range.start - part.range.start) as u32,
            segment_bytes: part.segment_bytes,
            method: part.method.unwrap_or(e.method),
            reference: e.reference.filter(|_| part.refers),
            ..*e
        })
    }
}

impl Volume {
    /// What is worth giving back now. Costs a look at sums that are in memory.
    pub fn plan_gc(&self) -> Result<GcPlan, Error> {
        let packs = self.store.data_packs();
        let ledger = self.store.ledger();
        let space = self.disk.space().map_err(|source| Error::Io { what: "statfs of the store".into(), source })?;
        let short = space.available_bytes < space.total_bytes / SHORT_PART;
        let mut plan = GcPlan {
            packs: store::plan_gc(&packs, &ledger.packs, short, self.options.pack_bytes_max),
            kept: Vec::new(),
            data_bytes: packs.iter().map(|p| p.bytes).sum(),
            live_bytes: ledger.packs.values().map(|p| p.live_bytes).sum(),
            short,
        };
        let now = self.now_ms();
        let mut memory = self.gc_lock();
        memory.kept.retain(|_, (_, until)| *until > now);
        plan.packs.retain(|p| match memory.kept.get(&PackId(p.pack)) {
            // Dead meanwhile: nothing stands in the way.
            Some(_) if p.action == GcAction::Delete => true,
            Some((reason, _)) => {
                plan.kept.push(KeptPack { pack: p.pack, reason: reason.clone() });
                false
            }
            None => true,
        });
        Ok(plan)
    }

    pub(super) fn gc_lock(&self) -> std::sync::MutexGuard<'_, GcMemory> {
        self.gc.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Packs and bytes given back since the volume was opened, and what is kept for the time being.
    pub(super) fn gc_counts(&self) -> (u64, u64, Vec<KeptPack>) {
        let memory = self.gc_lock();
        let kept =
            memory.kept.iter().map(|(pack, (reason, _))| KeptPack { pack: pack.0, reason: reason.clone() }).collect();
        (memory.packs_deleted, memory.bytes_deleted, kept)
    }

    /// Applies a plan by a step that writes about `bytes_max`; returns the bytes read and written. Steps of several runs
    /// must not be taken at the same time.
    ///
    /// # Errors
    /// When nothing can go on: the volume is read-only, the index fails. A pack that cannot be given back is in the report.
    ///
    /// # Durability
    /// What was swapped and deleted is on disk at return.
    ///
    /// # Blocking
    /// Disk, and coding of what is used of sparse segments.
    pub fn gc_step(&self, run: &mut GcRun, bytes_max: u64) -> Result<u64, Error> {
        self.writable()?;
        let Some(victim) = run.waiting.front().copied() else { return Ok(0) };
        let pack = PackId(victim.pack);
        let Some(from) = run.at else {
            let needed = victim.live_bytes.saturating_add(MARGIN_BYTES);
            if victim.action == GcAction::Rewrite && !self.store.has_room(needed) {
                let reason =
                    format!("the live part of a pack, {needed} bytes with what goes with it, does not fit on the disk");
                self.keep(run, pack, reason, KEPT_MS);
                return Ok(0);
            }
            match self.store.pass_on_from(pack) {
                Err(e) if e.is_refusal() => self.keep(run, pack, e.to_string(), KEPT_MS),
                Err(e) => return Err(self.store_failed(e)),
                Ok(()) => run.at = Some(0),
            }
            return Ok(0);
        };
        let page = self.store.segments_of(pack, from, SEGMENTS_PER_STEP).map_err(Error::Store)?;
        if page.is_empty() {
            self.end_pack(run, pack)?;
            return Ok(0);
        }
        let mut moves: Vec<Move> = Vec::new();
        let mut bundles: BTreeMap<(Class, Policy), Bundle> = BTreeMap::new();
        let (mut bytes, mut trouble, mut next) = (0, None, from);
        for (at, used) in page {
            if bytes >= bytes_max {
                break;
            }
            bytes += u64::from(at.stored_len);
            let copied = if used.is_sparse() {
                self.collect_sparse(at, &mut bundles, &mut moves, run)
            } else {
                self.store.copy_segment(at).map_err(Error::Store).map(|new| {
                    run.report.segments_copied += 1;
                    run.report.bytes_written += u64::from(new.stored_len);
                    moves.push(Move { old: at, parts: whole(&used, new) });
                })
            };
            if let Err(e) = copied {
                trouble = Some((at, e));
                break;
            }
            next = at.offset + 1;
        }
        for (kind, bundle) in std::mem::take(&mut bundles) {
            if let Err(e) = self.code_bundle(kind, bundle, &mut moves, run) {
                trouble.get_or_insert((SegmentRef { pack, offset: from, stored_len: 0 }, e));
            }
        }
        self.apply_moves(&moves)?;
        run.at = Some(next);
        if let Some((at, e)) = trouble {
            if self.writable().is_err() {
                return Err(e);
            }
            let damaged = matches!(e, Error::Store(StoreError::Corrupt { .. }) | Error::Damaged { .. });
            if damaged {
                log::error!("pack {pack} is kept because of {at}: {e}");
            }
            self.keep(run, pack, e.to_string(), if damaged { KEPT_DAMAGED_MS } else { KEPT_MS });
        }
        Ok(bytes)
    }

    /// Leaves a pack for another time.
    fn keep(&self, run: &mut GcRun, pack: PackId, reason: String, pause_ms: u64) {
        run.report.kept.push(KeptPack { pack: pack.0, reason: reason.clone() });
        self.gc_lock().kept.insert(pack, (reason, self.now_ms() + pause_ms));
        run.next();
    }

    /// All segments of a pack were gone over: it is deleted when nothing names it any more, or gone over again.
    fn end_pack(&self, run: &mut GcRun, pack: PackId) -> Result<(), Error> {
        // Segments that were appended to it and are not swapped in yet must not be lost: their commit ends first.
        let still = self.commits.write().unwrap_or_else(|e| e.into_inner());
        if self.store.ledger().packs.contains_key(&pack) {
            drop(still);
            // Swapped in since, or cloned.
            run.rounds += 1;
            run.at = Some(0);
            if run.rounds > ROUNDS_MAX {
                self.keep(run, pack, "its segments are named anew as fast as they are moved".to_string(), KEPT_MS);
            }
            return Ok(());
        }
        self.sync_log()?;
        let bytes = self.store.delete_data_pack(pack).map_err(|e| self.store_failed(e))?;
        drop(still);
        if bytes > 0 {
            log::info!("pack {pack} is given back: {bytes} bytes");
            run.report.packs_deleted += 1;
            run.report.bytes_deleted += bytes;
            let mut memory = self.gc_lock();
            memory.packs_deleted += 1;
            memory.bytes_deleted += bytes;
        }
        run.next();
        Ok(())
    }

    /// Fetches and decodes a segment that is to be coded anew. `None` when nothing names it any more.
    pub(super) fn unpack(&self, at: SegmentRef) -> Result<Option<Unpacked>, Error> {
        let (header, payload) = self.store.fetch_segment(at).map_err(Error::Store)?;
        let mut owners = self.store.owners_of(at, usize::MAX).map_err(Error::Store)?;
        // What was coded from it needs all of it, and has its bytes elsewhere.
        owners.retain(|(_, e)| e.segment == at);
        let Some((ino, _)) = owners.first() else { return Ok(None) };
        let coded = (&header.coding, payload.as_slice());
        let plain = match reference::decode(&self.store, &self.library, &self.segments, at, coded) {
            Ok(plain) => plain,
            Err(Unread::Moved(_) | Unread::Stopped) => return Ok(None),
            Err(Unread::Disk(e)) => return Err(Error::Store(e)),
            Err(Unread::Damaged(what)) => return Err(damaged(&owners, what)),
        };
        // A segment's files had one policy when it was coded, and mostly still have.
        let policy = self.policy_of(*ino, header.coding.class)?;
        Ok(Some(Unpacked { coding: header.coding, payload_bytes: payload.len() as u64, plain, owners, policy }))
    }

    /// Makes copies durable, points extents at them, and makes that durable.
    pub(super) fn apply_moves(&self, moves: &[Move]) -> Result<(), Error> {
        if moves.is_empty() {
            return Ok(());
        }
        self.store.sync_segments().map_err(|e| self.store_failed(e))?;
        for m in moves {
            self.swap_moved(m)?;
            if let [Part { segment, method: None, .. }] = m.parts.as_slice() {
                self.segments.rename(m.old, *segment);
            }
        }
        self.sync_log()
    }

    /// Decodes a segment of which little is used and adds what is used to the bundle of its class.
    fn collect_sparse(
        &self,
        at: SegmentRef,
        bundles: &mut BTreeMap<(Class, Policy), Bundle>,
        moves: &mut Vec<Move>,
        run: &mut GcRun,
    ) -> Result<(), Error> {
        let Some(Unpacked { coding, plain, owners, policy, .. }) = self.unpack(at)? else { return Ok(()) };
        // Whoever needs the space does not wait for a language model: `recode` brings it back.
        let policy = policy.without_models();
        let mut used = RangeSet::default();
        for (_, e) in &owners {
            used.insert(ByteRange::at(u64::from(e.segment_offset), u64::from(e.len)));
        }
        let bytes: u64 = used.iter().map(|r| r.len()).sum();
        let kind = (coding.class, policy);
        let full = |b: &Bundle| b.raw.len() as u64 + bytes > u64::from(codec::cut(kind.0, &kind.1));
        if bundles.get(&kind).is_some_and(full)
            && let Some(bundle) = bundles.remove(&kind)
        {
            self.code_bundle(kind, bundle, moves, run)?;
        }
        let bundle = bundles.entry(kind).or_default();
        for range in used.iter() {
            let beyond = || damaged(&owners, "extent reaches beyond its segment".to_string());
            let piece = plain.get(range.start as usize..range.end as usize).ok_or_else(beyond)?;
            let to = bundle.raw.len() as u32;
            bundle.raw.extend_from_slice(piece);
            bundle.from.push((at, range, to));
            for (ino, e) in &owners {
                let start = u64::from(e.segment_offset);
                if range.start <= start && start < range.end {
                    let segment_offset = to + (start - range.start) as u32;
                    bundle.owners.push(Owner { ino: *ino, file_offset: e.file_offset, segment_offset, len: e.len });
                }
            }
        }
        Ok(())
    }

    fn code_bundle(
        &self,
        (class, policy): (Class, Policy),
        bundle: Bundle,
        moves: &mut Vec<Move>,
        run: &mut GcRun,
    ) -> Result<(), Error> {
        if bundle.raw.is_empty() {
            return Ok(());
        }
        let encoded = self.encode(&bundle.raw, class, &policy, None, None)?;
        let (segment_bytes, method) = (encoded.coding.raw_len, Some(encoded.coding.method));
        let header = SegmentHeader { coding: encoded.coding, owners: bundle.owners };
        let segment = self.store.append_segment(&header, &encoded.payload).map_err(Error::Store)?;
        run.report.bytes_written += u64::from(segment.stored_len);
        let mut by_segment: BTreeMap<SegmentRef, Vec<Part>> = BTreeMap::new();
        for (old, range, segment_offset) in bundle.from {
            by_segment.entry(old).or_default().push(Part {
                range,
                segment,
                segment_offset,
                segment_bytes,
                method,
                refers: false,
            });
        }
        run.report.segments_recoded += by_segment.len() as u64;
        moves.extend(by_segment.into_iter().map(|(old, parts)| Move { old, parts }));
        Ok(())
    }

    /// Points the extents that name a segment at its copy, under the locks of their inodes. What is named anew meanwhile
    /// is left for the next round.
    fn swap_moved(&self, m: &Move) -> Result<(), Error> {
        // First, or what is known of the old segment goes with its last extent.
        self.store.move_content(m.old, |range| m.place(&range)).map_err(Error::Store)?;
        for _ in 0..ROUNDS_MAX {
            let owners = self.store.owners_of(m.old, OWNERS_PER_SWAP).map_err(Error::Store)?;
            if owners.is_empty() {
                return Ok(());
            }
            let mut inodes: Vec<Arc<Inode>> = Vec::new();
            for (ino, _) in &owners {
                match self.inode(*ino) {
                    Ok(inode) => inodes.push(inode),
                    // Removed since: its extents are gone.
                    Err(Error::NotFound) => {}
                    Err(e) => return Err(e),
                }
            }
            let mut guards = lock_all(&inodes);
            let mut ops = Vec::new();
            let mut charges: BTreeMap<Ino, (u64, u64)> = BTreeMap::new();
            // Under the locks they are what they are; those that came since are of the next round.
            for (ino, e) in self.store.owners_of(m.old, OWNERS_PER_SWAP).map_err(Error::Store)? {
                if locked(&mut guards, ino).is_none_or(|s| s.removed) {
                    continue;
                }
                let Some(extent) = m.moved(&e) else { continue };
                let charge = charges.entry(ino).or_default();
                charge.0 += stored_share(&e);
                charge.1 += stored_share(&extent);
                ops.push(MetaOp::PutExtent { ino, extent });
            }
            if ops.is_empty() {
                return Ok(());
            }
            self.log(&ops)?;
            for (ino, (before, after)) in charges {
                if let Some(state) = locked(&mut guards, ino).filter(|_| before != after) {
                    state.rec.stored_bytes = (state.rec.stored_bytes + after).saturating_sub(before);
                    state.dirty = true;
                    self.mark_dirty(ino);
                }
            }
        }
        Ok(())
    }
}

/// The place of a segment that was copied as it is.
fn whole(used: &store::SegmentUse, new: SegmentRef) -> Vec<Part> {
    vec![Part {
        range: ByteRange { start: 0, end: u64::from(used.segment_bytes) },
        segment: new,
        segment_offset: 0,
        segment_bytes: used.segment_bytes,
        method: None,
        refers: true,
    }]
}
