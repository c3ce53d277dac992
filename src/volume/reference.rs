//! Segments that were coded from another, their reference: its bytes, and where they lie.
//!
//! The header of a segment says by a hash from which plain bytes it was coded. The extents that name the segment say where
//! these lie, and keep them there: a reference is used as long as one of them is. Its place is looked up when its bytes are
//! needed and not before, since gc may move it at any time. A reference has none itself: a read decodes two segments at most.
//!
//! A reference is chosen by what content looks like (similar.rs, `Store::find_alike`): of whole files that are like others,
//! when it is planned how they are bundled; else when a segment is coded, by the parts of others that it repeats
//! (`Store::find_most_alike`). That is a hint: the coder keeps what it gains by it, or codes without. Its bytes are read from the disk for that, past the cache. The commit looks whether the
//! reference is still used in a pack that is there, under the same lock and for the same reasons as with content that was
//! found (sharing.rs).

use super::Volume;
use super::cache::{Plain, SegmentCache};
use super::sharing::{Place, worth_decoding};
use super::similar::{self, Sketch};
use crate::base::{Class, MethodId, SegmentRef};
use crate::codec::{self, Basis, Library, Policy};
use crate::format::{Coding, Reference};
use crate::host;
use crate::store::{Error as StoreError, Looks, SegmentUse, Store};

/// Content below this is coded from no other: what a reference costs would be most of what it saves, bytes.
const ALIKE_BYTES_MIN: u64 = 2 << 10;
/// A segment below this is no reference for parts of others, bytes.
const PARTS_BYTES_MIN: usize = 32 << 10;
/// A reference is looked up anew this often while gc moves it.
const LOOKS_MAX: usize = 16;
/// Owners of a segment among which one is looked for that names it.
const OWNERS_MAX: usize = 16;

/// Why the bytes of a segment are not to be had.
#[derive(Debug)]
pub(super) enum Unread {
    /// It was moved since its extents were looked up, or nobody needs it any more.
    Moved(String),
    /// The disk could not be read; the bytes may be good.
    Disk(StoreError),
    /// The sentence says how.
    Damaged(String),
    /// The volume is closing.
    Stopped,
}

impl Unread {
    /// What it means that a segment could not be fetched.
    pub fn fetched(store: &Store, at: SegmentRef, e: StoreError) -> Unread {
        match e {
            e if store.has_deleted(at.pack) => Unread::Moved(e.to_string()),
            e @ (StoreError::Io { .. } | StoreError::TooManyFiles { .. }) => Unread::Disk(e),
            e => Unread::Damaged(e.to_string()),
        }
    }
}

impl From<codec::Error> for Unread {
    fn from(e: codec::Error) -> Unread {
        match e {
            codec::Error::Stopped => Unread::Stopped,
            // Nothing is wrong with the segment.
            codec::Error::NoLanguageModel { .. } | codec::Error::OutOfMemory { .. } => {
                Unread::Disk(StoreError::Unusable(e.to_string()))
            }
            codec::Error::UnknownMethod { .. }
            | codec::Error::Corrupt { .. }
            | codec::Error::MissingModel { .. }
            | codec::Error::MissingReference { .. }
            | codec::Error::BadLength { .. } => Unread::Damaged(e.to_string()),
        }
    }
}

/// The reference of a segment, as an extent that names it says now; `None` when none does.
pub(super) fn place(store: &Store, at: SegmentRef) -> Result<Option<Option<Reference>>, StoreError> {
    let owners = store.owners_of(at, OWNERS_MAX)?;
    Ok(owners.iter().find(|(_, e)| e.segment == at).map(|(_, e)| e.reference))
}

/// The plain bytes of the reference of a segment, checked by its own header. Which bytes it should have the decoder knows.
fn open(store: &Store, library: &Library, cache: &SegmentCache, at: SegmentRef) -> Result<Plain, Unread> {
    let mut why = "nothing names it any more".to_string();
    for _ in 0..LOOKS_MAX {
        let r = match place(store, at) {
            Ok(Some(Some(r))) => r.segment,
            Ok(Some(None)) => {
                return Err(Unread::Damaged("it was coded from another segment, and no extent says from which".into()));
            }
            Ok(None) => return Err(Unread::Moved(why)),
            Err(e) => return Err(Unread::Disk(e)),
        };
        if let Some(plain) = cache.get(r) {
            return Ok(plain);
        }
        let bad = |what: String| Unread::Damaged(format!("it was coded from {r}: {what}"));
        match store.fetch_segment(r).map_err(|e| Unread::fetched(store, r, e)) {
            Ok((header, _)) if header.coding.reference.is_some() => {
                return Err(bad("that was coded from another itself".to_string()));
            }
            Ok((header, payload)) => {
                let plain = codec::decode(&header.coding, &payload, Basis::of(library));
                let plain = Plain::new(plain.map_err(|e| match Unread::from(e) {
                    Unread::Damaged(what) => bad(what),
                    e => e,
                })?);
                cache.put(r, plain.clone());
                return Ok(plain);
            }
            Err(Unread::Moved(what)) => why = what,
            Err(Unread::Damaged(what)) => return Err(bad(what)),
            Err(e @ (Unread::Disk(_) | Unread::Stopped)) => return Err(e),
        }
    }
    Err(Unread::Moved(why))
}

/// Decodes a segment that was fetched, with its reference where it has one: from the cache, or put there.
pub(super) fn decode(
    store: &Store,
    library: &Library,
    cache: &SegmentCache,
    at: SegmentRef,
    (coding, payload): (&Coding, &[u8]),
) -> Result<Vec<u8>, Unread> {
    let reference = coding.reference.map(|_| open(store, library, cache, at)).transpose()?;
    let basis = Basis { reference: reference.as_ref().map(|plain| plain.as_slice()), ..Basis::of(library) };
    codec::decode(coding, payload, basis).map_err(Unread::from)
}

/// The place of a segment that was looked for by its looks. A failure of the index is no reason not to code.
fn found(outcome: Result<Option<(SegmentRef, SegmentUse)>, StoreError>) -> Option<Place> {
    let found = outcome.unwrap_or_else(|e| {
        log::warn!("nothing alike is looked for in the volume: {e}");
        None
    });
    found.map(|(at, used)| (at, used.segment_bytes))
}

impl Volume {
    /// A segment that content of these looks is likely to repeat, and its plain bytes.
    pub(super) fn alike(&self, looks: &Sketch, bytes: u64) -> Option<Place> {
        if !self.options.sharing || bytes < ALIKE_BYTES_MIN {
            return None;
        }
        found(self.store.find_alike(looks))
    }

    /// What a new segment looks like, where parts of others may be coded from it.
    pub(super) fn traces_of(&self, raw: &[u8]) -> Looks {
        if self.options.sharing && raw.len() >= PARTS_BYTES_MIN { similar::traces(raw) } else { Looks::new() }
    }

    /// The bytes of the segment of which a new one of these traces repeats most, if that is enough to code it from there.
    pub(super) fn open_most_alike(
        &self,
        traces: &[u32],
        class: Class,
        policy: &Policy,
        raw: &[u8],
    ) -> Option<(Reference, Plain)> {
        let place = found(self.store.find_most_alike(traces, similar::TRACES_MIN))?;
        let (at, plain) = self.open_reference(place, class, policy, raw.len())?;
        similar::repeats(raw, plain.as_slice()).then_some((at, plain))
    }

    /// The bytes from which a segment was coded, to code it from them anew: as `open_reference`.
    pub(super) fn open_reference_of(
        &self,
        at: SegmentRef,
        class: Class,
        policy: &Policy,
        bytes: usize,
    ) -> Option<Plain> {
        let of = place(&self.store, at).ok()??;
        let (_, plain) = of.and_then(|r| self.open_reference((r.segment, r.segment_bytes), class, policy, bytes))?;
        Some(plain)
    }

    /// What new content looks like, where others may be coded from its segment.
    pub(super) fn looks_of(&self, bytes: &[u8]) -> Sketch {
        if bytes.len() as u64 >= ALIKE_BYTES_MIN { similar::sketch(bytes) } else { Sketch::default() }
    }

    /// The bytes from which a segment of `bytes` may be coded: from the disk, checked, whatever the cache has. `None` where
    /// the policy does not allow it, it is not worth it, or they cannot be read.
    pub(super) fn open_reference(
        &self,
        (segment, segment_bytes): Place,
        class: Class,
        policy: &Policy,
        bytes: usize,
    ) -> Option<(Reference, Plain)> {
        if !worth_decoding(bytes as u64, u64::from(segment_bytes)) {
            return None;
        }
        let owners = self.store.owners_of(segment, 1).ok()?;
        let (ino, e) = owners.first()?;
        let coding = self.store.segment_header(segment).ok()?.coding;
        let method = MethodId::from_u16(coding.method)?;
        if coding.reference.is_some()
            || coding.raw_len != segment_bytes
            || !policy.may_refer(class, bytes as u32, (method, segment_bytes))
        {
            return None;
        }
        let started = host::thread_cpu_seconds();
        let plain = self.decode_anew(*ino, e.file_offset, segment).ok()?;
        let ms = (host::thread_cpu_seconds() - started) * 1000.0;
        if method == MethodId::Opened && ms > f64::from(policy.opened_ms_max()) {
            return None;
        }
        Some((Reference { segment, segment_bytes }, plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fails for lack of memory is read again later, and no segment is put aside for it.
    #[test]
    fn a_lack_of_memory_is_no_damage() {
        let lack = codec::Error::OutOfMemory { what: "there is not enough memory" };
        assert!(matches!(Unread::from(lack), Unread::Disk(StoreError::Unusable(_))));
        assert!(matches!(Unread::from(codec::Error::Corrupt { what: "it is not whole" }), Unread::Damaged(_)));
    }
}
