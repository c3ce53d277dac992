//! Which content lies where in the packs: what lets a file be stored as a range of a segment that is there already.
//!
//! Two keys for each piece of content: from its hash to its place, and back from the segment, so that what is known of a
//! segment goes, or moves, with it. And where it may serve as a reference, one for each feature of what it looks like: content
//! that looks like it is likely to repeat it. Nothing depends on them: an entry is a hint that the caller holds against the bytes
//! themselves, it keeps no segment alive, and one that is missing costs space only. They follow neither from the log nor
//! change with it; an index that is made anew learns from the headers of segments what lies in one whole (`relearn`), and
//! not what lies in bundles.
//!
//! # Limits
//! An entry takes about 70 bytes of keys and values, and 18 more for each feature of what it looks like. The caller remembers
//! no content that is too small to be worth that.

use std::collections::HashMap;

use super::Store;
use super::error::Error;
use super::index::Index;
use super::keys::{self, Batch, by_two};
use super::ledger::SegmentUse;
use crate::base::{ByteRange, PackId, PlainHash, SegmentRef};

/// Entries looked up in one step.
const KEYS_PER_STEP: usize = 1024;
/// Bytes of a hash that are kept: who finds an entry compares bytes, so one that two contents share costs a look.
const HASH_BYTES: usize = 8;
/// Most features of what content looks like.
const LOOKS_MAX: usize = 255;

/// Where plain bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub segment: SegmentRef,
    /// Offset in the plain bytes of the segment.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

impl Content {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.segment.pack.0.to_le_bytes().to_vec();
        out.extend_from_slice(&self.segment.offset.to_le_bytes());
        for n in [self.segment.stored_len, self.start, self.len] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out
    }

    fn decode(value: &[u8]) -> Result<Content, Error> {
        let short = || Error::Index("place of content".into());
        let (pack, rest) = value.split_first_chunk::<8>().ok_or_else(short)?;
        let (offset, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (stored_len, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (start, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let len: [u8; 4] = rest.try_into().map_err(|_| short())?;
        Ok(Content {
            segment: SegmentRef {
                pack: PackId(u64::from_le_bytes(*pack)),
                offset: u64::from_le_bytes(*offset),
                stored_len: u32::from_le_bytes(*stored_len),
            },
            start: u32::from_le_bytes(*start),
            len: u32::from_le_bytes(len),
        })
    }
}

fn hash_key(hash: &[u8]) -> Vec<u8> {
    let mut key = vec![keys::CONTENT];
    key.extend(hash.iter().take(HASH_BYTES));
    key
}

/// What content looks like, feature by feature: values that are the same where it is alike; zeros say nothing. Those beyond
/// `LOOKS_MAX` are not remembered.
pub type Looks = Vec<u32>;

/// Keys of the features that say something.
fn looks_keys(looks: &[u32]) -> impl Iterator<Item = Vec<u8>> {
    (0..LOOKS_MAX as u8).zip(looks).filter(|(_, value)| **value != 0).map(|(n, value)| {
        let mut key = vec![keys::LOOKS, n];
        key.extend_from_slice(&value.to_be_bytes());
        key
    })
}

/// The hash that a key leads back to, and what its content looks like.
fn back_value(value: &[u8]) -> (&[u8], Looks) {
    let (hash, rest) = value.split_at_checked(HASH_BYTES).unwrap_or((value, &[]));
    (hash, rest.as_chunks::<4>().0.iter().map(|value| u32::from_le_bytes(*value)).collect())
}

fn back_key(at: &Content) -> Vec<u8> {
    let mut key = by_two(keys::CONTENT_OF, at.segment.pack.0, at.segment.offset);
    key.extend_from_slice(&at.start.to_be_bytes());
    key
}

/// What is known of a hash.
fn known(index: &Index, hash: &[u8]) -> Result<Option<Content>, Error> {
    index.get(&hash_key(hash))?.map(|value| Content::decode(&value)).transpose()
}

/// How the segment is used, where an extent names it.
fn use_of(index: &Index, at: SegmentRef) -> Result<Option<SegmentUse>, Error> {
    let used = index.get(&by_two(keys::SEGMENT, at.pack.0, at.offset))?.map(|v| SegmentUse::decode(&v)).transpose()?;
    Ok(used.filter(|used| used.is_used() && used.stored_len == at.stored_len))
}

fn put(hash: &[u8], at: &Content, looks: &[u32], batch: &mut Batch) {
    batch.push((hash_key(hash), Some(at.encode())));
    let hash: Vec<u8> = hash.iter().take(HASH_BYTES).copied().collect();
    let mut back = hash.clone();
    let said = looks.iter().rposition(|value| *value != 0).map_or(0, |last| last + 1);
    looks.iter().take(said.min(LOOKS_MAX)).for_each(|value| back.extend_from_slice(&value.to_le_bytes()));
    batch.push((back_key(at), Some(back)));
    batch.extend(looks_keys(looks).map(|key| (key, Some(hash.clone()))));
}

/// Has what content looks like lead to it no more.
fn forget_looks(index: &Index, hash: &[u8], looks: &[u32], batch: &mut Batch) -> Result<(), Error> {
    for key in looks_keys(looks) {
        if index.get(&key)?.as_deref() == hash.get(..HASH_BYTES) {
            batch.push((key, None));
        }
    }
    Ok(())
}

/// Keys from `from` up to `end` that lead back to hashes, a step at a time: entry by entry to `each`.
fn each_back(
    index: &Index,
    mut from: Vec<u8>,
    end: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<Batch, Error>,
) -> Result<(), Error> {
    loop {
        let page = index.range(&from, end, KEYS_PER_STEP)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from = last.clone();
        from.push(0);
        let mut batch = Batch::new();
        for (key, back) in &page {
            batch.append(&mut each(key, back)?);
        }
        index.put(batch);
    }
}

/// The first key behind all that lead back from a segment.
fn after_segment(pack: PackId, offset: u64) -> Vec<u8> {
    let mut end = by_two(keys::CONTENT_OF, pack.0, offset);
    end.extend_from_slice(&[0xff; 5]);
    end
}

fn is_in(at: &Content, key: &[u8]) -> bool {
    back_key(at) == key
}

fn forget_range(index: &Index, from: Vec<u8>, end: &[u8]) -> Result<(), Error> {
    each_back(index, from, end, |key, back| {
        let (hash, looks) = back_value(back);
        let mut batch = vec![(key.to_vec(), None)];
        // The same content may be known at another place by now.
        if known(index, hash)?.is_none_or(|at| is_in(&at, key)) {
            batch.push((hash_key(hash), None));
            forget_looks(index, hash, &looks, &mut batch)?;
        }
        Ok(batch)
    })
}

/// A segment is used no more: what is known of it goes.
pub(crate) fn forget_segment(index: &Index, pack: PackId, offset: u64) -> Result<(), Error> {
    forget_range(index, by_two(keys::CONTENT_OF, pack.0, offset), &after_segment(pack, offset))
}

impl Store {
    /// Remembers where content lies, in a segment that an extent names, and what it looks like where its segment may serve as
    /// a reference. What is known at another place stays known there.
    pub fn remember_content(&self, hash: &PlainHash, at: Content, looks: &[u32]) -> Result<(), Error> {
        self.writable()?;
        if let Some(before) = known(&self.index, hash)?
            && before.len == at.len
            && use_of(&self.index, before.segment)?.is_some()
        {
            return Ok(());
        }
        let mut batch = Batch::new();
        put(hash, &at, looks, &mut batch);
        self.index.put(batch);
        Ok(())
    }

    /// Content that looks like this, in a segment that is used and was coded from no other. Nothing keeps it where it is.
    pub fn find_alike(&self, looks: &[u32]) -> Result<Option<(SegmentRef, SegmentUse)>, Error> {
        for key in looks_keys(looks) {
            if let Some(found) = self.looks_like(key)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The segment that has most features of some, if it has `least` of them, and is used and was coded from no other. Nothing
    /// keeps it where it is.
    pub fn find_most_alike(&self, looks: &[u32], least: usize) -> Result<Option<(SegmentRef, SegmentUse)>, Error> {
        let mut found: HashMap<SegmentRef, (usize, SegmentUse)> = HashMap::new();
        for key in looks_keys(looks) {
            if let Some((at, used)) = self.looks_like(key)? {
                found.entry(at).or_insert((0, used)).0 += 1;
            }
        }
        // Of equals the latest: it is likely to lie near.
        let most = found.into_iter().max_by_key(|(at, (features, _))| (*features, at.pack, at.offset));
        Ok(most.filter(|(_, (features, _))| *features >= least).map(|(at, (_, used))| (at, used)))
    }

    /// The segment to which the key of a feature leads, where it may be a reference.
    fn looks_like(&self, key: Vec<u8>) -> Result<Option<(SegmentRef, SegmentUse)>, Error> {
        let Some(hash) = self.index.get(&key)? else { return Ok(None) };
        if let Some(at) = known(&self.index, &hash)?
            && let Some(used) = use_of(&self.index, at.segment)?
            && !self.has_deleted(at.segment.pack)
        {
            return Ok((!used.refers).then_some((at.segment, used)));
        }
        self.index.put(vec![(key, None)]);
        Ok(None)
    }

    /// Where content of this hash and length may lie, in a segment that is used. Nothing keeps the segment where it is.
    pub fn find_content(&self, hash: &PlainHash, len: u32) -> Result<Option<(Content, SegmentUse)>, Error> {
        let Some(at) = known(&self.index, hash)?.filter(|at| at.len == len) else { return Ok(None) };
        if let Some(used) = use_of(&self.index, at.segment)?
            && !self.has_deleted(at.segment.pack)
        {
            return Ok(Some((at, used)));
        }
        // A crash in a checkpoint may have kept one of its two keys.
        self.forget_content(hash, &at)?;
        Ok(None)
    }

    /// Forgets content that is not what or where it was said to be.
    pub fn forget_content(&self, hash: &PlainHash, at: &Content) -> Result<(), Error> {
        let back = back_key(at);
        let looks = self.index.get(&back)?.map(|value| back_value(&value).1).unwrap_or_default();
        let mut batch = vec![(back, None)];
        if known(&self.index, hash)?.is_some_and(|there| there == *at) {
            batch.push((hash_key(hash), None));
            forget_looks(&self.index, hash, &looks, &mut batch)?;
        }
        self.index.put(batch);
        Ok(())
    }

    /// True when an extent names the segment and its pack is there.
    pub fn is_segment_used(&self, at: SegmentRef) -> Result<bool, Error> {
        Ok(use_of(&self.index, at)?.is_some() && !self.has_deleted(at.pack))
    }

    /// The content of a segment lies elsewhere now: `moved` tells where a range of its plain bytes begins, and in which
    /// segment; `None` where it was left behind.
    pub fn move_content(
        &self,
        old: SegmentRef,
        moved: impl Fn(ByteRange) -> Option<(SegmentRef, u32)>,
    ) -> Result<(), Error> {
        let index = &self.index;
        let from = by_two(keys::CONTENT_OF, old.pack.0, old.offset);
        each_back(index, from, &after_segment(old.pack, old.offset), |key, back| {
            let (hash, looks) = back_value(back);
            let mut batch = vec![(key.to_vec(), None)];
            let Some(at) = known(index, hash)?.filter(|at| is_in(at, key)) else { return Ok(batch) };
            match moved(ByteRange::at(u64::from(at.start), u64::from(at.len))) {
                Some((segment, start)) => put(hash, &Content { segment, start, ..at }, &looks, &mut batch),
                None => {
                    batch.push((hash_key(hash), None));
                    forget_looks(index, hash, &looks, &mut batch)?;
                }
            }
            Ok(batch)
        })
    }

    /// A pack is deleted: what is known of it goes.
    pub(super) fn forget_pack(&self, pack: PackId) -> Result<(), Error> {
        let from = keys::by_number(keys::CONTENT_OF, pack.0);
        forget_range(&self.index, from, &keys::after_number(keys::CONTENT_OF, pack.0))
    }

    /// True when the index was made anew at open, and knows of no content.
    pub fn has_lost_content(&self) -> bool {
        self.index_made_anew
    }

    /// Learns from the headers of up to `limit` used segments of a pack, at or behind an offset, what lies in one whole.
    /// Returns where to go on; `None` at the end of the pack. A header that cannot be read teaches nothing.
    ///
    /// # Blocking
    /// Disk: one read for each segment.
    pub fn relearn(&self, pack: PackId, from: u64, limit: usize, bytes_min: u32) -> Result<Option<u64>, Error> {
        let page = self.segments_of(pack, from, limit)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        let next = last.offset + 1;
        for (at, _) in &page {
            let Ok(header) = self.segment_header(*at) else { continue };
            let len = header.coding.raw_len;
            if let [owner] = header.owners.as_slice()
                && (owner.segment_offset, owner.len) == (0, len)
                && len >= bytes_min
            {
                self.remember_content(&header.coding.plain_hash, Content { segment: *at, start: 0, len }, &[])?;
            }
        }
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64, start: u32) -> Content {
        Content { segment: SegmentRef { pack: PackId(7), offset, stored_len: 96 }, start, len: 1000 }
    }

    fn put_one(index: &Index, hash: [u8; 16], content: &Content) {
        let mut batch = Batch::new();
        put(&hash, content, &[u32::from(hash[0]), 0, 7], &mut batch);
        index.put(batch);
    }

    #[test]
    fn a_place_is_read_back_and_a_short_one_is_told() {
        let place = Content { segment: SegmentRef { pack: PackId(u64::MAX), ..at(8, 0).segment }, ..at(u64::MAX, 5) };
        assert_eq!(Content::decode(&place.encode()).unwrap(), place);
        assert!(Content::decode(&place.encode()[1..]).is_err());
    }

    #[test]
    fn what_is_known_of_a_segment_goes_with_it_and_with_it_alone() {
        let index = Index::memory();
        let entries: Vec<([u8; 16], Content)> = [at(8, 0), at(8, u32::MAX), at(16, 0), at(u64::MAX, 3)]
            .into_iter()
            .enumerate()
            .map(|(n, content)| ([n as u8 + 1; 16], content))
            .collect();
        for (hash, content) in &entries {
            put_one(&index, *hash, content);
        }
        // Known elsewhere since: the old way back must not take the new place away.
        put_one(&index, [2; 16], &at(16, 77));
        forget_segment(&index, PackId(7), 8).unwrap();
        assert_eq!(known(&index, &[1; 16]).unwrap(), None);
        assert_eq!(known(&index, &[2; 16]).unwrap(), Some(at(16, 77)));
        assert_eq!(known(&index, &[3; 16]).unwrap(), Some(at(16, 0)));
        forget_range(&index, vec![keys::CONTENT_OF], &[keys::CONTENT_OF + 1]).unwrap();
        assert!((0..5).all(|n| known(&index, &[n; 16]).unwrap().is_none()));
        assert!(index.range(&[0], &[0xff], 10).unwrap().is_empty(), "no key is left");
    }
}
