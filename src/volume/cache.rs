//! Decoded segments, and parts of such as are decoded in parts: a bounded cache, and one decode in flight for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::base::SegmentRef;

/// Plain bytes of a decoded segment, or of a part of one.
pub(crate) type Plain = Arc<Vec<u8>>;

/// Segments of which it is remembered what parts they have; beyond it all are forgotten.
const PARTS_KNOWN_MAX: usize = 1 << 16;

/// What is decoded at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Unit {
    pub segment: SegmentRef,
    /// The number of a part; all of the segment where there is none.
    pub part: Option<u32>,
}

impl From<SegmentRef> for Unit {
    fn from(segment: SegmentRef) -> Unit {
        Unit { segment, part: None }
    }
}

/// Why a segment was not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub what: String,
    /// Its extents are to be looked up again: what it needs has been moved since.
    pub moved: bool,
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure { what, moved: false }
    }
}

/// Called with the outcome of a decode; the sentence of a failure goes to every waiter.
pub(crate) type Waiter = Box<dyn FnOnce(&Result<Plain, Failure>) + Send>;

struct Held {
    plain: Plain,
    tick: u64,
}

#[derive(Default)]
struct Inner {
    held: BTreeMap<Unit, Held>,
    /// tick -> unit, oldest first.
    order: BTreeMap<u64, Unit>,
    /// What is being decoded, with those who wait.
    flights: BTreeMap<Unit, Vec<Waiter>>,
    /// Plain bytes of the parts of segments that were decoded in parts.
    parts: BTreeMap<SegmentRef, u32>,
    bytes: u64,
    tick: u64,
    hits: u64,
    misses: u64,
}

/// What `join` found.
pub(crate) enum Joined {
    /// Decoded already; the waiter was not used.
    Ready(Plain, Waiter),
    /// Somebody decodes it; the waiter will be called.
    Waiting,
    /// The caller must start the decode and end it with `finish`.
    First,
}

/// Bounded by `bytes_max`; the least recently used segment goes first.
pub(crate) struct SegmentCache {
    inner: Mutex<Inner>,
    bytes_max: u64,
}

impl SegmentCache {
    pub fn new(bytes_max: u64) -> SegmentCache {
        SegmentCache { inner: Mutex::new(Inner::default()), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The plain bytes of a segment when they are in memory.
    pub fn get(&self, at: impl Into<Unit>) -> Option<Plain> {
        let mut inner = self.lock();
        let found = inner.touch(at.into());
        if found.is_some() {
            inner.hits += 1
        } else {
            inner.misses += 1
        }
        found
    }

    /// Notes what parts a segment has.
    pub fn know_parts(&self, at: SegmentRef, part_bytes: u32) {
        let mut inner = self.lock();
        if inner.parts.len() >= PARTS_KNOWN_MAX {
            inner.parts.clear();
        }
        inner.parts.insert(at, part_bytes);
    }

    /// Plain bytes of the parts of a segment; `None` where that is not known.
    pub fn parts_of(&self, at: SegmentRef) -> Option<u32> {
        self.lock().parts.get(&at).copied()
    }

    /// True when the segment is in memory or on its way.
    pub fn is_near(&self, at: SegmentRef) -> bool {
        let (at, inner) = (Unit::from(at), self.lock());
        inner.held.contains_key(&at) || inner.flights.contains_key(&at)
    }

    /// Waits for a segment: takes it, joins a decode in flight, or becomes the one who decodes.
    pub fn join(&self, at: impl Into<Unit>, waiter: Option<Waiter>) -> Joined {
        let (at, mut inner) = (at.into(), self.lock());
        if let Some(plain) = inner.touch(at) {
            return Joined::Ready(plain, waiter.unwrap_or_else(|| Box::new(|_| ())));
        }
        match inner.flights.get_mut(&at) {
            Some(waiters) => {
                waiters.extend(waiter);
                Joined::Waiting
            }
            None => {
                inner.flights.insert(at, waiter.into_iter().collect());
                Joined::First
            }
        }
    }

    /// Ends a decode: keeps the bytes, calls everybody who waited.
    pub fn finish(&self, at: impl Into<Unit>, outcome: Result<Plain, Failure>) {
        let at = at.into();
        let waiters = {
            let mut inner = self.lock();
            if let Ok(plain) = &outcome {
                inner.keep(at, plain.clone(), self.bytes_max);
            }
            inner.flights.remove(&at).unwrap_or_default()
        };
        for waiter in waiters {
            waiter(&outcome);
        }
    }

    /// Keeps plain bytes that were decoded for another segment.
    pub fn put(&self, at: SegmentRef, plain: Plain) {
        self.lock().keep(at.into(), plain, self.bytes_max);
    }

    /// A segment was copied as it is: its plain bytes are kept under the new name.
    pub fn rename(&self, old: SegmentRef, new: SegmentRef) {
        let mut inner = self.lock();
        let all = Unit { segment: old, part: None }..=Unit { segment: old, part: Some(u32::MAX) };
        if let Some(part_bytes) = inner.parts.remove(&old) {
            inner.parts.insert(new, part_bytes);
        }
        let units: Vec<Unit> = inner.held.range(all).map(|(unit, _)| *unit).collect();
        for old in units {
            if let Some(held) = inner.held.remove(&old) {
                let new = Unit { segment: new, ..old };
                inner.order.insert(held.tick, new);
                inner.held.insert(new, held);
            }
        }
    }

    /// Drops the least recently used segments until no more than `bytes` are held.
    pub fn trim(&self, bytes: u64) {
        let mut inner = self.lock();
        inner.make_room(0, bytes);
    }

    /// Bytes held, hits, misses.
    pub fn counts(&self) -> (u64, u64, u64) {
        let inner = self.lock();
        (inner.bytes, inner.hits, inner.misses)
    }
}

impl Inner {
    fn touch(&mut self, at: Unit) -> Option<Plain> {
        self.tick += 1;
        let tick = self.tick;
        let held = self.held.get_mut(&at)?;
        self.order.remove(&held.tick);
        held.tick = tick;
        self.order.insert(tick, at);
        Some(held.plain.clone())
    }

    fn keep(&mut self, at: Unit, plain: Plain, bytes_max: u64) {
        let size = plain.len() as u64;
        if size > bytes_max || self.held.contains_key(&at) {
            return;
        }
        self.make_room(size, bytes_max);
        self.tick += 1;
        self.order.insert(self.tick, at);
        self.held.insert(at, Held { plain, tick: self.tick });
        self.bytes += size;
    }

    fn make_room(&mut self, size: u64, bytes_max: u64) {
        while self.bytes + size > bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some(gone) = self.held.remove(&oldest) {
                self.bytes -= gone.plain.len() as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PackId;

    fn at(n: u64) -> SegmentRef {
        SegmentRef { pack: PackId(1), offset: n * 8, stored_len: 8 }
    }

    #[test]
    fn keeps_within_its_bound_and_drops_the_oldest() {
        let cache = SegmentCache::new(300);
        for n in 0..3 {
            assert!(matches!(cache.join(at(n), None), Joined::First));
            cache.finish(at(n), Ok(Arc::new(vec![n as u8; 100])));
        }
        assert!(cache.get(at(0)).is_some());
        assert!(matches!(cache.join(at(3), None), Joined::First));
        cache.finish(at(3), Ok(Arc::new(vec![3; 100])));
        assert!(cache.get(at(1)).is_none(), "the least recently used went");
        assert!(cache.get(at(0)).is_some());
        assert_eq!(cache.counts().0, 300);
    }

    #[test]
    fn what_is_held_follows_its_segment() {
        let cache = SegmentCache::new(300);
        assert!(matches!(cache.join(at(0), None), Joined::First));
        cache.finish(at(0), Ok(Arc::new(vec![7; 100])));
        let part = |n, part| Unit { segment: at(n), part: Some(part) };
        assert!(matches!(cache.join(part(0, 3), None), Joined::First));
        cache.finish(part(0, 3), Ok(Arc::new(vec![8; 10])));
        cache.rename(at(0), at(9));
        cache.rename(at(5), at(6));
        assert!(cache.get(part(0, 3)).is_none() && cache.get(part(9, 2)).is_none());
        assert_eq!(*cache.get(part(9, 3)).unwrap(), vec![8; 10]);
        assert!(cache.get(at(0)).is_none() && cache.get(at(6)).is_none());
        assert_eq!(*cache.get(at(9)).unwrap(), vec![7; 100]);
        for n in 1..4 {
            assert!(matches!(cache.join(at(n), None), Joined::First));
            cache.finish(at(n), Ok(Arc::new(vec![n as u8; 100])));
        }
        assert!(cache.get(at(9)).is_none() && cache.get(part(9, 3)).is_none(), "it is dropped in its turn");
        assert_eq!(cache.counts().0, 300);
    }

    #[test]
    fn one_flight_serves_all_who_wait() {
        let cache = SegmentCache::new(1000);
        let (tx, rx) = std::sync::mpsc::channel();
        let waiter = |tx: std::sync::mpsc::Sender<bool>| -> Option<Waiter> {
            Some(Box::new(move |r: &Result<Plain, Failure>| {
                let _ = tx.send(r.is_ok());
            }))
        };
        assert!(matches!(cache.join(at(1), waiter(tx.clone())), Joined::First));
        assert!(matches!(cache.join(at(1), waiter(tx.clone())), Joined::Waiting));
        cache.finish(at(1), Err("gone".to_string().into()));
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [false, false]);
        assert!(matches!(cache.join(at(1), None), Joined::First), "a failure is not kept");
    }
}
