//! What of the packs is live: kept with every change of extents, exact, and derived like all of the index.
//!
//! A segment is *used* while an extent names it, or names a segment that was coded from it. The index has a key for each
//! use (from the segment back to the file), one with sums for each used segment, and sums for each pack and each method. The sums of packs and methods live in memory
//! and are written together with the position; an index whose last checkpoint was cut off may be ahead of its position,
//! so it is gone through once (`audit`) after the log was replayed.

use std::collections::{BTreeMap, BTreeSet};

use super::content;
use super::error::Error;
use super::index::Index;
use super::keys::{self, Batch, bad, by_number, by_two};
use crate::base::{Ino, PackId, SegmentRef};
use crate::format::{Extent, Reference, decode_extent};

/// Keys looked at in one step of an audit.
const KEYS_PER_STEP: usize = 4096;
/// Differences an audit tells; more are mended, not told.
const WRONG_MAX: usize = 100;

/// How much of a segment is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentUse {
    /// Bytes of the record in the pack.
    pub stored_len: u32,
    /// Plain bytes of the whole segment.
    pub segment_bytes: u32,
    /// Extents that name it.
    pub extents: u32,
    /// Plain bytes that they name. More than the segment has where files share it.
    pub plain_bytes: u64,
    /// Extents whose segments were coded from it. Then all of it is needed, whatever is named.
    pub references: u32,
    /// It was coded from another itself.
    pub refers: bool,
}

impl SegmentUse {
    /// True when something needs it.
    pub fn is_used(&self) -> bool {
        self.extents > 0 || self.references > 0
    }

    /// True when so little is in use that the rest is worth coding anew instead of keeping the record as it is. What was coded
    /// from another takes next to nothing, and would take more by itself.
    pub fn is_sparse(&self) -> bool {
        self.references == 0 && !self.refers && self.plain_bytes * 2 < u64::from(self.segment_bytes)
    }

    /// Bytes of the pack that giving its space back would keep: the record, or its share where it is coded anew.
    pub fn live_bytes(&self) -> u64 {
        match self.is_used() {
            false => 0,
            true if self.is_sparse() => {
                u64::from(self.stored_len) * self.plain_bytes / u64::from(self.segment_bytes.max(1))
            }
            true => u64::from(self.stored_len),
        }
    }

    /// Plain bytes that extents name beyond one whole segment: certainly shared. Where parts of it are not used any more
    /// there may be others.
    pub fn shared_bytes(&self) -> u64 {
        self.plain_bytes.saturating_sub(u64::from(self.segment_bytes))
    }

    /// What these would take if each had a segment of its own, in proportion.
    pub fn shared_stored_bytes(&self) -> u64 {
        let bytes =
            u128::from(self.shared_bytes()) * u128::from(self.stored_len) / u128::from(self.segment_bytes.max(1));
        bytes as u64
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = self.stored_len.to_le_bytes().to_vec();
        out.extend_from_slice(&self.segment_bytes.to_le_bytes());
        out.extend_from_slice(&self.extents.to_le_bytes());
        out.extend_from_slice(&self.plain_bytes.to_le_bytes());
        if self.references > 0 || self.refers {
            out.extend_from_slice(&self.references.to_le_bytes());
            out.push(u8::from(self.refers));
        }
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<SegmentUse, Error> {
        let short = || Error::Index("use of a segment".into());
        let (stored_len, rest) = value.split_first_chunk::<4>().ok_or_else(short)?;
        let (segment_bytes, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (extents, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (plain_bytes, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (references, refers) = match rest {
            [] => (0, false),
            [a, b, c, d, refers] => (u32::from_le_bytes([*a, *b, *c, *d]), *refers != 0),
            _ => return Err(short()),
        };
        Ok(SegmentUse {
            stored_len: u32::from_le_bytes(*stored_len),
            segment_bytes: u32::from_le_bytes(*segment_bytes),
            extents: u32::from_le_bytes(*extents),
            plain_bytes: u64::from_le_bytes(*plain_bytes),
            references,
            refers,
        })
    }

    /// Counts an extent that begins or ends to name the segment.
    fn count(&mut self, e: &Extent, comes: bool) {
        if comes {
            (self.stored_len, self.segment_bytes) = (e.segment.stored_len, e.segment_bytes);
            self.refers = e.reference.is_some();
            self.extents = self.extents.saturating_add(1);
            self.plain_bytes = self.plain_bytes.saturating_add(u64::from(e.len));
        } else {
            self.extents = self.extents.saturating_sub(1);
            self.plain_bytes = self.plain_bytes.saturating_sub(u64::from(e.len));
        }
    }

    /// Counts an extent that begins or ends to need it as a reference.
    fn count_reference(&mut self, r: &Reference, comes: bool) {
        if comes {
            (self.stored_len, self.segment_bytes) = (r.segment.stored_len, r.segment_bytes);
            self.references = self.references.saturating_add(1);
        } else {
            self.references = self.references.saturating_sub(1);
        }
    }
}

/// Sums over the used segments of a pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackUse {
    pub segments: u64,
    /// Bytes of the pack that giving its space back would keep.
    pub live_bytes: u64,
    /// Plain bytes that are named more than once, at least (`SegmentUse::shared_bytes`), and what they would take alone.
    pub shared_bytes: u64,
    pub shared_stored_bytes: u64,
}

/// Sums over the extents whose segments are coded by one method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MethodUse {
    pub extents: u64,
    pub plain_bytes: u64,
    /// Their shares of the stored bytes.
    pub stored_bytes: u64,
}

/// The sums. Packs and methods without any use are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub packs: BTreeMap<PackId, PackUse>,
    pub methods: BTreeMap<u16, MethodUse>,
}

/// The ledger in memory, and what of it the engine does not have yet.
#[derive(Debug, Default)]
pub(crate) struct Live {
    ledger: Ledger,
    packs_changed: BTreeSet<PackId>,
    methods_changed: BTreeSet<u16>,
}

/// Part of a segment's stored bytes that an extent is charged for.
pub fn stored_share(e: &Extent) -> u64 {
    u64::from(e.segment.stored_len) * u64::from(e.len) / u64::from(e.segment_bytes.max(1))
}

fn two(a: u64, b: u64) -> Vec<u8> {
    let mut out = a.to_le_bytes().to_vec();
    out.extend_from_slice(&b.to_le_bytes());
    out
}

fn numbers(value: &[u8]) -> Vec<u64> {
    value.chunks_exact(8).filter_map(|c| c.try_into().ok().map(u64::from_le_bytes)).collect()
}

impl PackUse {
    fn encode(&self) -> Vec<u8> {
        let mut out = two(self.segments, self.live_bytes);
        out.extend(two(self.shared_bytes, self.shared_stored_bytes));
        out
    }
}

impl MethodUse {
    fn encode(&self) -> Vec<u8> {
        let mut out = two(self.extents, self.plain_bytes);
        out.extend_from_slice(&self.stored_bytes.to_le_bytes());
        out
    }
}

impl Live {
    fn segment(&mut self, pack: PackId, before: &SegmentUse, after: &SegmentUse) {
        let sums = self.ledger.packs.entry(pack).or_default();
        let used = |s: &SegmentUse| u64::from(s.is_used());
        sums.segments = (sums.segments + used(after)).saturating_sub(used(before));
        let step = |sum: &mut u64, f: fn(&SegmentUse) -> u64| *sum = (*sum + f(after)).saturating_sub(f(before));
        step(&mut sums.live_bytes, SegmentUse::live_bytes);
        step(&mut sums.shared_bytes, SegmentUse::shared_bytes);
        step(&mut sums.shared_stored_bytes, SegmentUse::shared_stored_bytes);
        if *sums == PackUse::default() {
            self.ledger.packs.remove(&pack);
        }
        self.packs_changed.insert(pack);
    }

    fn extent(&mut self, e: &Extent, comes: bool) {
        let sums = self.ledger.methods.entry(e.method).or_default();
        let step = |sum: &mut u64, by: u64| *sum = if comes { *sum + by } else { sum.saturating_sub(by) };
        step(&mut sums.extents, 1);
        step(&mut sums.plain_bytes, u64::from(e.len));
        step(&mut sums.stored_bytes, stored_share(e));
        if *sums == MethodUse::default() {
            self.ledger.methods.remove(&e.method);
        }
        self.methods_changed.insert(e.method);
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Keys and values that the engine lacks, for a checkpoint of this moment.
    pub fn take_changes(&mut self) -> Batch {
        let mut batch = Batch::new();
        for pack in std::mem::take(&mut self.packs_changed) {
            let value = self.ledger.packs.get(&pack).map(PackUse::encode);
            batch.push((by_number(keys::PACK_USE, pack.0), value));
        }
        for method in std::mem::take(&mut self.methods_changed) {
            let value = self.ledger.methods.get(&method).map(MethodUse::encode);
            batch.push((by_number(keys::METHOD_USE, u64::from(method)), value));
        }
        batch
    }

    /// Reads the sums of an index that is as its position says.
    pub fn load(index: &Index) -> Result<Live, Error> {
        let mut live = Live::default();
        each(index, vec![keys::PACK_USE], vec![keys::PACK_USE + 1], |key, value| match numbers(value).as_slice() {
            [segments, live_bytes, shared_bytes, shared_stored_bytes] => {
                let sums = PackUse {
                    segments: *segments,
                    live_bytes: *live_bytes,
                    shared_bytes: *shared_bytes,
                    shared_stored_bytes: *shared_stored_bytes,
                };
                live.ledger.packs.insert(PackId(keys::last_number(key)?), sums);
                Ok(())
            }
            _ => Err(Error::Index("sums of a pack".into())),
        })?;
        each(index, vec![keys::METHOD_USE], vec![keys::METHOD_USE + 1], |key, value| {
            match numbers(value).as_slice() {
                [extents, plain_bytes, stored_bytes] => {
                    let sums = MethodUse { extents: *extents, plain_bytes: *plain_bytes, stored_bytes: *stored_bytes };
                    live.ledger.methods.insert(keys::last_number(key)? as u16, sums);
                    Ok(())
                }
                _ => Err(Error::Index("sums of a method".into())),
            }
        })?;
        Ok(live)
    }
}

fn each(
    index: &Index,
    mut from: Vec<u8>,
    end: Vec<u8>,
    mut f: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    loop {
        let page = index.range(&from, &end, KEYS_PER_STEP)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from = last.clone();
        from.push(0);
        for (key, value) in &page {
            f(key, value)?;
        }
    }
}

fn use_key(segment: &SegmentRef) -> Vec<u8> {
    by_two(keys::SEGMENT, segment.pack.0, segment.offset)
}

/// The key by which an extent is found from a segment that it needs.
fn owner_key(segment: &SegmentRef, ino: Ino, e: &Extent) -> Vec<u8> {
    let mut key = by_two(keys::OWNER, segment.pack.0, segment.offset);
    key.extend_from_slice(&ino.0.to_be_bytes());
    key.extend_from_slice(&e.file_offset.to_be_bytes());
    key
}

/// The segments that an extent needs: that of its bytes, and its reference.
fn needed(e: &Extent) -> impl Iterator<Item = SegmentRef> {
    std::iter::once(e.segment).chain(e.reference.map(|r| r.segment))
}

/// Counts in the use of `at` what an extent needs of it.
fn count(used: &mut SegmentUse, at: &SegmentRef, e: &Extent, comes: bool) {
    if e.segment == *at {
        used.count(e, comes);
    }
    if let Some(r) = e.reference.filter(|r| r.segment == *at) {
        used.count_reference(&r, comes);
    }
}

/// Segment (pack and offset), inode and file offset of an owner's key.
fn owner(key: &[u8]) -> Result<(u64, u64, Ino, u64), Error> {
    let n: Vec<u64> = key
        .get(1..)
        .unwrap_or_default()
        .chunks_exact(8)
        .filter_map(|c| c.try_into().ok().map(u64::from_be_bytes))
        .collect();
    match n.as_slice() {
        [pack, offset, ino, file_offset] => Ok((*pack, *offset, Ino(*ino), *file_offset)),
        _ => Err(Error::Index("owner of a segment".into())),
    }
}

/// Extents of an inode that go and that come, with all keys and sums that follow from them.
pub(crate) fn exchange(index: &Index, ino: Ino, gone: &[Extent], new: &[Extent]) -> Result<(), Error> {
    if gone.is_empty() && new.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    let mut uses: BTreeMap<Vec<u8>, (PackId, SegmentUse, SegmentUse)> = BTreeMap::new();
    for (e, comes) in gone.iter().map(|e| (e, false)).chain(new.iter().map(|e| (e, true))) {
        batch.push((keys::extent_key(ino, e), comes.then(|| crate::format::encode_extent(e))));
        for at in needed(e) {
            let key = use_key(&at);
            if !uses.contains_key(&key) {
                let before = index.get(&key)?.map(|v| SegmentUse::decode(&v)).transpose()?.unwrap_or_default();
                uses.insert(key.clone(), (at.pack, before, before));
            }
            if let Some((_, _, after)) = uses.get_mut(&key) {
                count(after, &at, e, comes);
            }
            batch.push((owner_key(&at, ino, e), comes.then(Vec::new)));
        }
    }
    for (key, (pack, before, after)) in &uses {
        if before.is_used() && !after.is_used() {
            content::forget_segment(index, *pack, keys::last_number(key)?)?;
        }
    }
    let mut live = index.live();
    for (key, (pack, before, after)) in uses {
        live.segment(pack, &before, &after);
        batch.push((key, after.is_used().then(|| after.encode())));
    }
    gone.iter().for_each(|e| live.extent(e, false));
    new.iter().for_each(|e| live.extent(e, true));
    drop(live);
    index.put(batch);
    Ok(())
}

/// Up to `limit` used segments of a pack at or behind `from`, ascending by offset.
pub(crate) fn segments_of(
    index: &Index,
    pack: PackId,
    from: u64,
    limit: usize,
) -> Result<Vec<(SegmentRef, SegmentUse)>, Error> {
    let page = index.range(&by_two(keys::SEGMENT, pack.0, from), &keys::after_number(keys::SEGMENT, pack.0), limit)?;
    page.iter()
        .map(|(key, value)| {
            let used = SegmentUse::decode(value)?;
            let offset = keys::last_number(key)?;
            Ok((SegmentRef { pack, offset, stored_len: used.stored_len }, used))
        })
        .collect()
}

/// Up to `limit` extents that name a segment, or were coded from it.
pub(crate) fn owners_of(index: &Index, segment: SegmentRef, limit: usize) -> Result<Vec<(Ino, Extent)>, Error> {
    let from = by_two(keys::OWNER, segment.pack.0, segment.offset);
    let mut end = from.clone();
    // Longer than any key of the segment, and before the next one's.
    end.extend_from_slice(&[0xff; 17]);
    let mut out = Vec::new();
    for (key, _) in index.range(&from, &end, limit)? {
        let (_, _, ino, file_offset) = owner(&key)?;
        // One that changed between the two look-ups is passed over.
        if let Some(value) = index.get(&by_two(keys::EXTENT, ino.0, file_offset))? {
            let e = decode_extent(&value).map_err(bad)?;
            if needed(&e).any(|at| at == segment) {
                out.push((ino, e));
            }
        }
    }
    Ok(out)
}

/// Outcome of going through all extents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    pub ledger: Ledger,
    pub inodes: u64,
    /// What was not as the extents say, in the order of finding.
    pub wrong: Vec<String>,
}

/// Works the keys and sums out anew from the extents, and holds what is there against them. With `mend` all of it is set
/// right. The caller sees to it that nothing changes meanwhile. Memory is bounded whatever the size of the index.
pub(crate) fn audit(index: &Index, mend: bool) -> Result<Audit, Error> {
    let mut audit = Audit::default();
    let mut wrong: Vec<String> = Vec::new();
    let mut differs = |what: String, fix: Batch| {
        if wrong.len() < WRONG_MAX {
            wrong.push(what);
        }
        if mend {
            index.put(fix);
        }
    };
    each(index, vec![keys::INODE], vec![keys::INODE + 1], |_, _| {
        audit.inodes += 1;
        Ok(())
    })?;
    // Owners that no extent names.
    each(index, vec![keys::OWNER], vec![keys::OWNER + 1], |key, _| {
        let (pack, offset, ino, file_offset) = owner(key)?;
        let named = match index.get(&by_two(keys::EXTENT, ino.0, file_offset))? {
            Some(value) => {
                let e = decode_extent(&value).map_err(bad)?;
                needed(&e).any(|at| (at.pack.0, at.offset) == (pack, offset))
            }
            None => false,
        };
        if !named {
            let what = format!("inode {ino} offset {file_offset} is no owner of pack {pack} offset {offset}");
            differs(what, vec![(key.to_vec(), None)]);
        }
        Ok(())
    })?;
    // Extents without their owner.
    let mut live = Live::default();
    each(index, vec![keys::EXTENT], vec![keys::EXTENT + 1], |key, value| {
        let e = decode_extent(value).map_err(bad)?;
        let ino = Ino(u64::from_be_bytes(*key.get(1..).and_then(|k| k.first_chunk::<8>()).unwrap_or(&[0; 8])));
        live.extent(&e, true);
        for at in needed(&e) {
            let owner = owner_key(&at, ino, &e);
            if index.get(&owner)?.is_none() {
                differs(
                    format!("inode {ino} offset {} has no key as an owner of {at}", e.file_offset),
                    vec![(owner, Some(Vec::new()))],
                );
            }
        }
        Ok(())
    })?;
    // Sums of segments, from their owners; those of no owner.
    let mut current: Option<(SegmentRef, SegmentUse)> = None;
    let mut close = |current: &mut Option<(SegmentRef, SegmentUse)>| -> Result<(), Error> {
        let Some((at, sums)) = current.take() else { return Ok(()) };
        live.segment(at.pack, &SegmentUse::default(), &sums);
        let key = use_key(&at);
        let known = index.get(&key)?.map(|v| SegmentUse::decode(&v)).transpose()?;
        if known != Some(sums) {
            differs(format!("{at}: {known:?} instead of {sums:?}"), vec![(key, Some(sums.encode()))]);
        }
        Ok(())
    };
    each(index, vec![keys::OWNER], vec![keys::OWNER + 1], |key, _| {
        let (pack, offset, ino, file_offset) = owner(key)?;
        let Some(value) = index.get(&by_two(keys::EXTENT, ino.0, file_offset))? else { return Ok(()) };
        let e = decode_extent(&value).map_err(bad)?;
        let Some(at) = needed(&e).find(|at| (at.pack.0, at.offset) == (pack, offset)) else { return Ok(()) };
        if current.as_ref().is_some_and(|(last, _)| *last != at) {
            close(&mut current)?;
        }
        count(&mut current.get_or_insert((at, SegmentUse::default())).1, &at, &e, true);
        Ok(())
    })?;
    close(&mut current)?;
    each(index, vec![keys::SEGMENT], vec![keys::SEGMENT + 1], |key, _| {
        let pack = key.get(1..9).and_then(|k| k.first_chunk::<8>()).map_or(0, |k| u64::from_be_bytes(*k));
        let at = SegmentRef { pack: PackId(pack), offset: keys::last_number(key)?, stored_len: 0 };
        let from = by_two(keys::OWNER, at.pack.0, at.offset);
        let mut end = from.clone();
        end.extend_from_slice(&[0xff; 17]);
        if index.range(&from, &end, 1)?.is_empty() {
            differs(format!("{at} is used by nobody"), vec![(key.to_vec(), None)]);
        }
        Ok(())
    })?;
    audit.ledger = std::mem::take(&mut live.ledger);
    if mend {
        // All sums are written again, and those that are no more are removed.
        let old = Live::load(index).unwrap_or_default();
        live.packs_changed.extend(old.ledger.packs.keys());
        live.methods_changed.extend(old.ledger.methods.keys());
        live.ledger = audit.ledger.clone();
        *index.live() = live;
    } else {
        let known = index.live().ledger().clone();
        for pack in known.packs.keys().chain(audit.ledger.packs.keys()) {
            let (known, counted) = (known.packs.get(pack), audit.ledger.packs.get(pack));
            if known != counted {
                differs(format!("pack {pack}: {known:?} instead of {counted:?}"), Batch::new());
            }
        }
        if known.methods != audit.ledger.methods {
            differs(format!("methods: {:?} instead of {:?}", known.methods, audit.ledger.methods), Batch::new());
        }
    }
    audit.wrong = wrong;
    Ok(audit)
}
