//! Reads of segments that are decoded in parts: no more of them than is asked for, as each part takes seconds.
//!
//! What parts a segment has only its payload says, so a worker fetches it first. Each part is then waited for by itself, as whole
//! segments are (cache.rs): who comes first decodes it, together with the others that it is first for, since parts that are
//! decoded together take less time than one after the other. Where they are many, several threads share in them, of a set of
//! their own, so that reads of other files do not wait for them. Damage to some parts does not keep others from being read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Volume;
use super::cache::{Failure, Joined, Plain, Unit};
use super::data::{CodedPiece, Pending};
use super::hot::Piece;
use super::reference::Unread;
use crate::base::{Ino, SegmentRef};
use crate::codec::{self, Basis};
use crate::format::Coding;
use crate::workers::Priority;

/// Parts that a thread decodes together at least, before another is asked to share in them.
const PARTS_PER_JOB_MIN: usize = 4;

/// A segment that was fetched to be decoded in parts.
struct Fetched {
    volume: Arc<Volume>,
    ino: Ino,
    /// Where it is wanted in the file, for messages.
    offset: u64,
    segment: SegmentRef,
    coding: Coding,
    payload: Vec<u8>,
    part_bytes: u32,
}

impl Fetched {
    /// A part of it, to be found as a hot copy or made one.
    fn piece(&self, part: u32) -> Option<Piece> {
        self.volume.hot.as_ref()?;
        Piece::part(&self.coding, &self.payload, self.part_bytes, part)
    }

    fn decode(&self, parts: Range<u32>) -> Result<Vec<u8>, Unread> {
        let basis = Basis::of(&self.volume.library);
        Ok(codec::decode_parts(&self.coding, &self.payload, parts, basis)?)
    }
}

/// Parts being decoded by one job. However it ends, run or dropped, those who wait are told.
struct Run {
    fetched: Arc<Fetched>,
    /// Those that nobody was told of yet.
    parts: Range<u32>,
}

impl Run {
    /// Tells those who wait for the next part.
    fn land(&mut self, outcome: Result<Plain, Failure>) {
        if let Some(part) = self.parts.next() {
            let volume = &self.fetched.volume;
            let plain = outcome.as_ref().ok().cloned();
            volume.segments.finish(Unit { segment: self.fetched.segment, part: Some(part) }, outcome);
            if let Some((piece, plain)) = self.fetched.piece(part).zip(plain) {
                volume.offer_hot(&piece, &plain);
            }
        }
    }

    fn run(mut self) {
        let fetched = self.fetched.clone();
        let settle = |outcome| fetched.volume.settle(fetched.ino, fetched.offset, fetched.segment, outcome);
        if self.parts.len() > 1
            && let Ok(plain) = fetched.decode(self.parts.clone())
            && let Ok(plain) = settle(Ok(plain))
        {
            plain.chunks(fetched.part_bytes.max(1) as usize).for_each(|part| self.land(Ok(Arc::new(part.to_vec()))));
        }
        // One, or one of them is damaged: the others are not lost for it.
        while let Some(part) = self.parts.clone().next() {
            self.land(settle(fetched.decode(part..part + 1)).map(Arc::new));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let why = "too many reads wait for a decode, or the volume is closing; try again";
        while !self.parts.is_empty() {
            self.land(Err(why.to_string().into()));
        }
    }
}

/// Pieces of a read that wait until it is known in which parts they lie.
struct Wanted {
    pieces: Vec<CodedPiece>,
    pending: Arc<Pending>,
    ended: bool,
}

impl Wanted {
    fn end(&mut self, outcome: Result<Plain, Failure>) {
        if !std::mem::replace(&mut self.ended, true) {
            let pieces = if outcome.is_ok() { &[][..] } else { &self.pieces[..] };
            self.pending.arrived(pieces, &outcome);
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.end(Err("too many reads wait for a decode, or the volume is closing; try again".to_string().into()));
    }
}

/// Cuts pieces of a segment where its parts end: those of each part, with offsets in it.
fn by_part(pieces: &[CodedPiece], part_bytes: u32) -> BTreeMap<u32, Vec<CodedPiece>> {
    let mut out: BTreeMap<u32, Vec<CodedPiece>> = BTreeMap::new();
    for piece in pieces {
        let mut rest = *piece;
        while rest.len > 0 {
            let (part, within) = (rest.segment_offset / part_bytes, rest.segment_offset % part_bytes);
            let len = rest.len.min((part_bytes - within) as usize);
            out.entry(part).or_default().push(CodedPiece { segment_offset: within, len, ..rest });
            rest.segment_offset = rest.segment_offset.saturating_add(len as u32);
            rest.at += len;
            rest.file_offset += len as u64;
            rest.len -= len;
        }
    }
    out
}

/// Runs of numbers that follow each other.
fn runs(numbers: &[u32]) -> Vec<Range<u32>> {
    let mut out: Vec<Range<u32>> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some(last) if last.end == *n => last.end += 1,
            _ => out.push(*n..*n + 1),
        }
    }
    out
}

impl Volume {
    /// Queues the decode of the parts of one segment in which pieces of a read lie.
    pub(super) fn start_parts(self: &Arc<Self>, ino: Ino, pieces: Vec<CodedPiece>, pending: Arc<Pending>) {
        let volume = self.clone();
        let mut wanted = Wanted { pieces, pending, ended: false };
        // Refused, it is dropped, and tells the read so.
        let _ = self.workers.submit(
            Priority::Read,
            Box::new(move || {
                let looked = catch_unwind(AssertUnwindSafe(|| volume.join_parts(ino, &wanted.pieces, &wanted.pending)));
                let (outcome, runs) = match looked {
                    Ok(Ok(runs)) => (Ok(Plain::default()), runs),
                    Ok(Err(failure)) => (Err(failure), Vec::new()),
                    Err(_) => (Err("the decoder failed".to_string().into()), Vec::new()),
                };
                wanted.end(outcome);
                volume.decode_runs(runs);
            }),
        );
    }

    /// Fetches the segment of pieces, and has the read wait for each of the parts that they lie in. Returns those that nobody
    /// else decodes.
    fn join_parts(
        self: &Arc<Self>,
        ino: Ino,
        pieces: &[CodedPiece],
        pending: &Arc<Pending>,
    ) -> Result<Vec<Run>, Failure> {
        let Some(first) = pieces.first() else { return Ok(Vec::new()) };
        let (segment, offset) = (first.segment, first.file_offset);
        let fetched = self.store.fetch_segment_anyhow(segment).map_err(|e| Unread::fetched(&self.store, segment, e));
        let (header, payload, damage) = match fetched {
            Ok(fetched) => fetched,
            Err(e) => return self.settle(ino, offset, segment, Err(e)),
        };
        if let Some(what) = damage {
            // Told once. Parts have checksums of their own: those that are whole are read all the same.
            let _: Result<(), Failure> = self.settle(ino, offset, segment, Err(Unread::Damaged(what)));
        }
        let coding = header.coding;
        if coding.reference.is_some() {
            let what = "it names a reference, and its method uses none".to_string();
            return self.settle(ino, offset, segment, Err(Unread::Damaged(what)));
        }
        let beyond = |p: &CodedPiece| u64::from(p.segment_offset) + p.len as u64 > u64::from(coding.raw_len);
        if pieces.iter().any(beyond) {
            let what = "extent reaches beyond its segment".to_string();
            return self.settle(ino, offset, segment, Err(Unread::Damaged(what)));
        }
        let part_bytes = codec::part_bytes(&coding, &payload);
        self.segments.know_parts(segment, part_bytes);
        let fetched = Arc::new(Fetched { volume: self.clone(), ino, offset, segment, coding, payload, part_bytes });
        let by_part = by_part(pieces, part_bytes);
        pending.expect(by_part.len());
        let mut mine = Vec::new();
        for (part, pieces) in by_part {
            let pending = pending.clone();
            let waiter = Box::new(move |outcome: &Result<Plain, Failure>| pending.arrived(&pieces, outcome));
            match self.segments.join(Unit { segment, part: Some(part) }, Some(waiter)) {
                Joined::Ready(plain, waiter) => waiter(&Ok(plain)),
                Joined::Waiting => {}
                Joined::First => mine.push(part),
            }
        }
        if let Some(hot) = &self.hot {
            mine.retain(|part| match fetched.piece(*part).and_then(|piece| hot.find(&piece)) {
                Some(plain) => {
                    self.segments.finish(Unit { segment, part: Some(*part) }, Ok(plain));
                    false
                }
                None => true,
            });
        }
        let each = mine.len().div_ceil(self.workers.threads().max(1)).max(PARTS_PER_JOB_MIN);
        let cut = runs(&mine).into_iter().flat_map(|run| {
            let starts = (run.start..run.end).step_by(each);
            starts.map(move |start| start..run.end.min(start.saturating_add(each as u32)))
        });
        Ok(cut.map(|parts| Run { fetched: fetched.clone(), parts }).collect())
    }

    /// Decodes runs of parts wherever a thread is free.
    fn decode_runs(&self, runs: Vec<Run>) {
        for run in runs {
            if let Err(job) = self.workers.submit(Priority::SlowRead, Box::new(move || run.run())) {
                job();
            }
        }
    }

    /// Copies pieces of one segment out of parts that are in memory; false where one is not, or it is not known what parts the
    /// segment has.
    pub(super) fn copy_parts(&self, pieces: &[CodedPiece], buf: &mut [u8]) -> bool {
        let Some(segment) = pieces.first().map(|p| p.segment) else { return true };
        let Some(part_bytes) = self.segments.parts_of(segment) else { return false };
        by_part(pieces, part_bytes).into_iter().all(|(part, pieces)| {
            let plain = self.segments.get(Unit { segment, part: Some(part) });
            plain.is_some_and(|plain| pieces.iter().all(|piece| piece.copy(&plain, buf)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PackId;

    #[test]
    fn pieces_are_cut_where_parts_end() {
        let segment = SegmentRef { pack: PackId(1), offset: 8, stored_len: 8 };
        let piece = |segment_offset, at, len, file_offset| CodedPiece {
            segment,
            segment_offset,
            at,
            len,
            file_offset,
            in_parts: true,
        };
        let cut = by_part(&[piece(90, 5, 130, 1000), piece(350, 300, 1, 2000)], 100);
        let flat = cut.into_iter().flat_map(|(part, pieces)| {
            pieces.into_iter().map(move |p| (part, p.segment_offset, p.at, p.len, p.file_offset))
        });
        let expected = [(0, 90, 5, 10, 1000), (1, 0, 15, 100, 1010), (2, 0, 115, 20, 1110), (3, 50, 300, 1, 2000)];
        assert_eq!(flat.collect::<Vec<_>>(), expected);
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [1..4, 7..8, 9..11]);
        assert!(runs(&[]).is_empty());
    }
}
