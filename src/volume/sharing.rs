//! Content that is in the volume already is not coded again: its extents name the segment that holds it.
//!
//! The store remembers where pieces of content lie, by their hash. That is a hint. Before a piece is taken for found, the
//! segment is fetched, checked and decoded, past the cache, and compared with the bytes of the piece; only then its staging
//! may go. A segment that does not decode is told as damage of the files it has, and forgotten: the piece is coded.
//!
//! # Races
//! Between the comparison and the commit the segment may lose its last owner, or be moved by gc. The commit holds `commits`,
//! so that no pack is deleted meanwhile, and looks whether the segment is still used in a pack that is there: if not, the
//! piece is planned again. If its last owner goes after that look, the bytes are there all the same, and the pack is not
//! deleted, since it is in use again before `commits` is let go.
//!
//! Two pieces of the same content that wait at the same time: the first claims its hash, the others are parked until the
//! commit of the first, and find it.
//!
//! # Limits
//! Pieces below `SHARED_BYTES_MIN` are neither looked for nor remembered. A segment is decoded only when what it may save is
//! worth it (`worth_decoding`). Contents of bundles are forgotten when the index is made anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::Volume;
use super::cache::{Failure, Plain};
use super::coding::MOVED;
use super::types::{Coded, Error};
use crate::base::{ByteRange, Class, Ino, MethodId, PlainHash, SegmentRef, plain_hash};
use crate::codec::{self, Before, Policy};
use crate::format::{Extent, Owner, Reference};
use crate::host;
use crate::store::{Content, Looks, SegmentUse};

/// Content below this is not worth two keys of the index and a decode, bytes.
pub(super) const SHARED_BYTES_MIN: u64 = 512;
/// A segment is decoded for this part of its plain bytes or more: decoding it takes as long as coding a part of it does, and
/// a hundred small files from a hundred segments would take longer to find than to code.
const WORTH_PART: u64 = 64;
/// Segments of which headers are read in one step when the index was made anew.
const RELEARN_PER_STEP: usize = 1024;
/// Owners of a segment looked at for `stat`.
const OWNERS_LOOKED_AT_MAX: usize = 1024;

/// A segment, and its plain bytes.
pub(super) type Place = (SegmentRef, u32);

/// Hashes that are being coded, and the files that wait for one of them.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<PlainHash, Vec<Ino>>);

impl Claims {
    /// True when nobody codes this content now; from now on the caller does.
    pub fn claim(&mut self, hash: PlainHash) -> bool {
        match self.0.entry(hash) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(Vec::new());
                true
            }
        }
    }

    /// Has a file wait for who codes its content. False when nobody does.
    pub fn park(&mut self, hash: &PlainHash, ino: Ino) -> bool {
        self.0.get_mut(hash).map(|waiting| waiting.push(ino)).is_some()
    }

    /// Ends a claim; who waited for it.
    pub fn release(&mut self, hash: &PlainHash) -> Vec<Ino> {
        self.0.remove(hash).unwrap_or_default()
    }
}

/// Bytes of one piece of a task.
pub(super) struct Gathered {
    pub ino: Ino,
    pub file_offset: u64,
    pub bytes: Vec<u8>,
}

impl Volume {
    /// The hash by which content is looked for, where it is worth it.
    pub(super) fn content_hash(&self, bytes: &[u8]) -> Option<PlainHash> {
        (self.options.sharing && bytes.len() as u64 >= SHARED_BYTES_MIN).then(|| plain_hash(bytes))
    }

    /// Where content may lie in the volume, and how its segment is used. A failure of the index is no reason not to code.
    pub(super) fn look_for(&self, hash: &PlainHash, len: u64) -> Option<(Content, SegmentUse)> {
        let len = u32::try_from(len).ok()?;
        self.store.find_content(hash, len).unwrap_or_else(|e| {
            log::warn!("content of the volume is not looked for: {e}");
            None
        })
    }

    /// Finds pieces in the volume, and codes the others as one segment. With `known` the plan has seen to it that what is to
    /// be decoded is worth it; with `reference` it has found a segment that the others are likely to repeat.
    pub(super) fn share_or_code(
        &self,
        (class, policy): (Class, &Policy),
        pieces: Vec<Gathered>,
        known: bool,
        (reference, before): (Option<Place>, Option<&Before>),
    ) -> Result<Coded, Error> {
        let mut coded = Coded::default();
        let hashes: Vec<Option<PlainHash>> = pieces.iter().map(|p| self.content_hash(&p.bytes)).collect();
        let mut candidates: BTreeMap<SegmentRef, Vec<(usize, Content)>> = BTreeMap::new();
        for (n, (piece, hash)) in pieces.iter().zip(&hashes).enumerate() {
            if let Some(hash) = hash
                && let Some((at, _)) = self.look_for(hash, piece.bytes.len() as u64)
            {
                candidates.entry(at.segment).or_default().push((n, at));
            }
        }
        let mut found: HashSet<usize> = HashSet::new();
        for (segment, places) in candidates {
            let wanted = if known { u64::MAX } else { places.iter().map(|(_, at)| u64::from(at.len)).sum() };
            let opened = self.open_shared(segment, policy, wanted)?;
            for (n, at) in places {
                let (Some(piece), Some(Some(hash))) = (pieces.get(n), hashes.get(n)) else { continue };
                let range = at.start as usize..(at.start as usize).saturating_add(at.len as usize);
                match &opened {
                    Opened::Plain(plain, method, reference) if plain.get(range) == Some(piece.bytes.as_slice()) => {
                        let extent = Extent {
                            file_offset: piece.file_offset,
                            len: at.len,
                            segment,
                            segment_offset: at.start,
                            segment_bytes: plain.len() as u32,
                            method: *method,
                            reference: *reference,
                        };
                        coded.found.push((piece.ino, extent));
                        found.insert(n);
                    }
                    Opened::Declined => {}
                    Opened::Plain(..) | Opened::Damaged => {
                        self.store.forget_content(hash, &at).map_err(Error::Store)?;
                    }
                }
            }
        }
        let mut raw = Vec::new();
        let mut owners = Vec::new();
        for (n, piece) in pieces.into_iter().enumerate().filter(|(n, _)| !found.contains(n)) {
            if let Some(Some(hash)) = hashes.get(n) {
                coded.learned.push((owners.len(), *hash, self.looks_of(&piece.bytes).to_vec()));
            }
            owners.push(Owner {
                ino: piece.ino,
                file_offset: piece.file_offset,
                segment_offset: raw.len() as u32,
                len: piece.bytes.len() as u32,
            });
            raw.extend_from_slice(&piece.bytes);
        }
        if !raw.is_empty() {
            if codec::outgrows(&raw, class, policy) {
                return Err(Error::Invalid(MOVED));
            }
            let traces = self.traces_of(&raw);
            let reference = match reference {
                Some(at) => self.open_reference(at, class, policy, raw.len()),
                None => self.open_most_alike(&traces, class, policy, &raw),
            };
            let reference_plain = reference.as_ref().map(|(_, plain)| plain.as_slice());
            let encoded = self.encode(&raw, class, policy, reference_plain, before)?;
            if encoded.coding.reference.is_some() {
                coded.reference = reference.map(|(at, _)| at);
                // What was coded from another is no reference itself.
                coded.learned.iter_mut().for_each(|(_, _, looks)| *looks = Looks::default());
            } else if let Some((_, _, looks)) = coded.learned.first_mut() {
                // The first of its files stands for the segment.
                looks.extend(traces.into_iter().skip(looks.len()));
            }
            coded.segment = Some((encoded, owners));
        }
        if coded.segment.is_none() && coded.found.is_empty() {
            return Err(Error::Invalid(MOVED));
        }
        Ok(coded)
    }

    /// The plain bytes of a segment that `wanted` bytes may be found in: from the disk, checked, whatever the cache has.
    fn open_shared(&self, segment: SegmentRef, policy: &Policy, wanted: u64) -> Result<Opened, Error> {
        let owners = self.store.owners_of(segment, 1).map_err(Error::Store)?;
        // Nobody's any more, since it was looked for.
        let Some((ino, e)) = owners.first() else { return Ok(Opened::Declined) };
        let (method, bytes, reference) = if e.segment == segment {
            (e.method, e.segment_bytes, e.reference)
        } else {
            // It is kept for what was coded from it.
            let Ok(header) = self.store.segment_header(segment) else { return Ok(Opened::Declined) };
            (header.coding.method, header.coding.raw_len, None)
        };
        let decoded = bytes.saturating_add(reference.map_or(0, |r| r.segment_bytes));
        let accepted = MethodId::from_u16(method).is_some_and(|method| policy.accepts(method, decoded));
        if !worth_decoding(wanted, u64::from(decoded)) || !accepted {
            return Ok(Opened::Declined);
        }
        // Damage is told as that of a file that has the segment.
        let started = host::thread_cpu_seconds();
        match self.decode_anew(*ino, e.file_offset, segment) {
            // Nothing was predicted of it.
            Ok(_)
                if method == MethodId::Opened as u16
                    && (host::thread_cpu_seconds() - started) * 1000.0 > f64::from(policy.decode_ms_max()) =>
            {
                Ok(Opened::Declined)
            }
            Ok(plain) => Ok(Opened::Plain(plain, method, reference)),
            Err(Failure { moved: true, .. }) => Ok(Opened::Declined),
            Err(_) if self.store.has_deleted(segment.pack) || self.library.languages.is_stopping() => {
                Ok(Opened::Declined)
            }
            Err(_) => Ok(Opened::Damaged),
        }
    }

    /// Bytes of an extent that other places of the volume name too.
    pub(super) fn shared_in(&self, ino: Ino, e: &Extent) -> Result<u64, Error> {
        let own = ByteRange::at(u64::from(e.segment_offset), u64::from(e.len));
        let mut shared = crate::base::RangeSet::default();
        for (other, o) in self.store.owners_of(e.segment, OWNERS_LOOKED_AT_MAX).map_err(Error::Store)? {
            let inside = other == ino && (e.file_offset..e.file_offset + u64::from(e.len)).contains(&o.file_offset);
            let part = ByteRange::at(u64::from(o.segment_offset), u64::from(o.len)).intersect(&own);
            if o.segment == e.segment && !inside && !part.is_empty() {
                shared.insert(part);
            }
        }
        Ok(shared.iter().map(|r| r.len()).sum())
    }

    /// Learns what lies in the packs, where the index was made anew and does not know it. Called in the background.
    ///
    /// # Blocking
    /// Disk: a small read for each segment of the volume.
    pub(super) fn relearn_content(&self) {
        if !self.options.sharing || !self.store.has_lost_content() || self.writable().is_err() {
            return;
        }
        for pack in self.store.data_packs() {
            let mut from = Some(0);
            while let Some(at) = from {
                if self.hurried.load(Ordering::Relaxed) {
                    return;
                }
                from = match self.store.relearn(pack.pack, at, RELEARN_PER_STEP, SHARED_BYTES_MIN as u32) {
                    Ok(next) => next,
                    Err(e) => {
                        log::warn!("what lies in pack {} is not looked for in new files: {e}", pack.pack);
                        return;
                    }
                };
            }
        }
    }
}

/// A segment that something may be found in.
enum Opened {
    /// Its plain bytes, its method, and the segment that it was coded from.
    Plain(Plain, u16, Option<Reference>),
    /// It is not worth it, or cannot be read now.
    Declined,
    /// It did not decode.
    Damaged,
}

/// True when `wanted` bytes of a segment of `bytes` are worth its decode.
pub(super) fn worth_decoding(wanted: u64, bytes: u64) -> bool {
    wanted.saturating_mul(WORTH_PART) >= bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_codes_and_the_others_wait_for_it() {
        let mut claims = Claims::default();
        let hash = [7; 16];
        assert!(!claims.park(&hash, Ino(4)), "nobody to wait for");
        assert!(claims.claim(hash) && !claims.claim(hash) && claims.claim([8; 16]));
        assert!(claims.park(&hash, Ino(5)) && claims.park(&hash, Ino(6)));
        assert_eq!(claims.release(&hash), [Ino(5), Ino(6)]);
        assert!(claims.release(&hash).is_empty() && claims.claim(hash));
    }

    #[test]
    fn a_small_file_is_not_worth_a_large_segment() {
        assert!(worth_decoding(4096, 256 << 10) && worth_decoding(600, 600));
        assert!(!worth_decoding(4095, 256 << 10) && !worth_decoding(600, 1 << 20));
    }
}
