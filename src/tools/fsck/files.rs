//! Inodes one by one: links, extents and the segments they name, what is charged; xattrs and orphans.

use std::collections::{BTreeMap, HashMap};

use super::names::{Nodes, each_inode};
use super::{Check, Findings, Fix, FsckReport, Kind};
use crate::base::{ByteRange, Ino, PlainHash, SEGMENT_BYTES_MAX, SegmentRef};
use crate::format::{Extent, FileKind, InodeRecord, MetaOp, Reference, SegmentHeader};
use crate::store::{Error, RecordSummary, Survey};
use crate::tools::Progress;

/// Extents read at a time.
pub(super) const PAGE: usize = 4096;
/// Extents of one file that are put in order in one transaction.
const UNTANGLED_MAX: usize = 65_536;
/// A charge may lag behind the extents by this many bytes, since it is written less often than they are.
const CHARGE_SLACK_BYTES: u64 = 4096;

/// Bytes of a segment's record that an extent is charged for.
pub(super) fn share(e: &Extent) -> u64 {
    u64::from(e.segment.stored_len) * u64::from(e.len) / u64::from(e.segment_bytes.max(1))
}

/// What a look at the record of a segment says of an extent.
enum Segment {
    Whole,
    /// The extent as it should be.
    Other(Extent),
    /// Missing or damaged; the sentence says how.
    Lost(String),
    /// Whole, but without the bytes that the extent names.
    TooShort(String),
}

impl Check<'_> {
    /// All inodes with everything that belongs to them.
    pub(super) fn files(
        &mut self,
        nodes: &Nodes,
        found: &mut Findings,
        report: &mut FsckReport,
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        let store = self.store;
        let total = store.usage().inodes;
        each_inode(store, |mut rec| {
            report.inodes += 1;
            progress(report.inodes, total);
            let mut changed = self.links(nodes, found, &mut rec);
            if rec.kind == FileKind::Regular {
                changed |= self.extents(nodes, found, report, &mut rec)?;
            }
            if changed {
                found.records.push(MetaOp::PutInode(rec));
            }
            Ok(())
        })?;
        let mut after = Ino(0);
        while let Some(ino) = store.next_with_xattrs(after)? {
            after = ino;
            // A file that is put together from its extents keeps them.
            let extents = store.next_with_extents(Ino(ino.0.saturating_sub(1)))? == Some(ino);
            if nodes.get(ino).is_none() && !extents {
                let what = format!("extended attributes belong to inode {ino}, which does not exist");
                let fix = ("remove them".to_string(), Fix::Ops(vec![MetaOp::RemoveInode(ino)]));
                found.add(Kind::XattrsOfNoInode, format!("inode {ino}"), what, Some(fix));
            }
        }
        Ok(())
    }

    /// The extents of one file. True when its record is to be written.
    fn extents(
        &mut self,
        nodes: &Nodes,
        found: &mut Findings,
        report: &mut FsckReport,
        rec: &mut InodeRecord,
    ) -> Result<bool, Error> {
        let store = self.store;
        let (mut from, mut charge) = (0, 0);
        let mut overlap = None;
        let mut beyond = None;
        let mut other: Vec<MetaOp> = Vec::new();
        let mut lost: Vec<(u64, u64)> = Vec::new();
        let mut why = String::new();
        // Extents of one bundle or one cut segment follow each other: it is read once.
        let mut known: BTreeMap<(SegmentRef, Option<SegmentRef>), String> = BTreeMap::new();
        loop {
            let page = store.extents(rec.ino, ByteRange { start: from, end: u64::MAX }, PAGE)?;
            for e in &page {
                report.extents += 1;
                charge += share(e);
                let end = e.file_offset + u64::from(e.len);
                if e.file_offset < from {
                    overlap.get_or_insert(e.file_offset);
                    if let Some(last) = lost.last_mut().filter(|last| last.1 > e.file_offset) {
                        // The later one counts.
                        last.1 = e.file_offset;
                    }
                }
                if end > rec.size && rec.staging.is_none_or(|s| !s.growing) {
                    beyond.get_or_insert(end);
                }
                from = from.max(end);
                let verdict = match known.get(&needs(e)) {
                    Some(why) => Segment::Lost(why.clone()),
                    None => self.segment(e, report)?,
                };
                let what = match verdict {
                    Segment::Whole => continue,
                    Segment::Other(mended) => {
                        other.push(MetaOp::PutExtent { ino: rec.ino, extent: mended });
                        continue;
                    }
                    Segment::TooShort(what) => what,
                    Segment::Lost(what) => {
                        if known.len() < PAGE {
                            known.insert(needs(e), what.clone());
                        }
                        what
                    }
                };
                match lost.last_mut() {
                    Some(last) if last.1 == e.file_offset => last.1 = end,
                    _ => lost.push((e.file_offset, end)),
                }
                if why.is_empty() {
                    why = what;
                }
            }
            if page.len() < PAGE {
                break;
            }
        }
        let ino = rec.ino;
        let mut changed = false;
        if let Some(byte) = overlap {
            let at = found.path(store, nodes, ino);
            let fix = self.untangle(ino)?.map(|ops| ("let the later one end the earlier".to_string(), Fix::Ops(ops)));
            found.add(Kind::OverlappingExtents, at, format!("two extents hold byte {byte}"), fix);
        }
        if let Some(end) = beyond {
            let at = found.path(store, nodes, ino);
            let op = MetaOp::RemoveExtents { ino, start: rec.size, end: u64::MAX };
            let fix = (format!("cut the extents at {}", rec.size), Fix::Ops(vec![op]));
            let what = format!("an extent ends at {end}, beyond the size {}", rec.size);
            found.add(Kind::ExtentBeyondSize, at, what, Some(fix));
        }
        if !other.is_empty() {
            let at = found.path(store, nodes, ino);
            let what = "a segment is not as long, or not coded as or from what its extent says".to_string();
            let fix = ("let the extent say what the segment's own header says".to_string(), Fix::Ops(other));
            found.add(Kind::WrongSegmentLength, at, what, Some(fix));
        }
        if !lost.is_empty() {
            let at = found.path(store, nodes, ino);
            let drop = self.options.drop_damaged.then(|| {
                let ops = lost.iter().map(|(start, end)| MetaOp::RemoveExtents { ino, start: *start, end: *end });
                ("make these bytes a hole".to_string(), Fix::Ops(ops.collect()))
            });
            let bytes: u64 = lost.iter().map(|(start, end)| end - start).sum();
            found.add(Kind::DamagedSegment, at, format!("{bytes} bytes cannot be read: {why}"), drop);
            if let Some(last) = found.list.last_mut().filter(|f| f.problem.kind == Kind::DamagedSegment) {
                last.problem.ranges = lost;
            }
        } else if overlap.is_none() && beyond.is_none() {
            let slack = CHARGE_SLACK_BYTES.max(charge / 64);
            if rec.stored_bytes.abs_diff(charge) > slack {
                let at = found.path(store, nodes, ino);
                let what = format!("it is charged {} bytes, its extents take {charge}", rec.stored_bytes);
                found.note(Kind::WrongCharge, at, what, Some((format!("charge {charge}"), Fix::InRecord)));
                rec.stored_bytes = charge;
                changed = true;
            }
        }
        if charge > 0 && !rec.coded {
            // The flag only spares looking for extents; a file that has some must say so, or they are not read.
            let at = found.path(store, nodes, ino);
            let what = "it has extents, its record says that it has none".to_string();
            found.add(Kind::WrongCharge, at, what, Some(("let it say so".to_string(), Fix::InRecord)));
            rec.coded = true;
            rec.stored_bytes = charge;
            changed = true;
        }
        Ok(changed)
    }

    /// Reads the segment of an extent, once.
    fn segment(&mut self, e: &Extent, report: &mut FsckReport) -> Result<Segment, Error> {
        let sane = e.len <= SEGMENT_BYTES_MAX;
        if sane && self.whole.contains(&needs(e)) {
            return Ok(Segment::Whole);
        }
        report.segments += 1;
        let lost = |e: Error| match e {
            Error::Io { what, source } if source.kind() != std::io::ErrorKind::NotFound && !is_rot(&source) => {
                Err(Error::Io { what, source })
            }
            e => Ok(Segment::Lost(e.to_string())),
        };
        let (at, coding) = match self.store.fetch_segment(e.segment) {
            Ok((header, _)) => (e.segment, header.coding),
            Err(first) => match self.store.segment_at(e.segment.pack, e.segment.offset) {
                Ok((at, header)) => (at, header.coding),
                Err(_) => return lost(first),
            },
        };
        let reference = match coding.reference {
            None => None,
            Some(hash) => match self.reference_of(e, &hash)? {
                Ok(reference) => Some(reference),
                Err(why) => return Ok(Segment::Lost(why)),
            },
        };
        let mended = Extent { segment: at, segment_bytes: coding.raw_len, method: coding.method, reference, ..*e };
        if mended == *e {
            self.whole.insert(needs(e));
            return Ok(Segment::Whole);
        }
        if u64::from(e.segment_offset) + u64::from(e.len) > u64::from(coding.raw_len) {
            return Ok(Segment::TooShort(format!("the segment at {} has only {} bytes", e.segment, coding.raw_len)));
        }
        Ok(Segment::Other(mended))
    }

    /// The segment that an extent's was coded from: the one that it names, if it has these plain bytes and can be read, or
    /// another; why there is none.
    fn reference_of(&mut self, e: &Extent, hash: &PlainHash) -> Result<Result<Reference, String>, Error> {
        let mut why = "it is not what the extent says".to_string();
        let named = e.reference;
        let other = self.reference(hash)?.filter(|r| Some(*r) != named);
        for r in named.into_iter().chain(other) {
            match self.store.fetch_segment(r.segment) {
                Ok((SegmentHeader { coding, .. }, _)) if coding.reference.is_none() && coding.plain_hash == *hash => {
                    return Ok(Ok(Reference { segment_bytes: coding.raw_len, ..r }));
                }
                Ok(_) => {}
                Err(Error::Io { what, source })
                    if source.kind() != std::io::ErrorKind::NotFound && !is_rot(&source) =>
                {
                    return Err(Error::Io { what, source });
                }
                Err(e) => why = e.to_string(),
            }
        }
        let at = named.map_or(String::new(), |r| format!(" at {}", r.segment));
        Ok(Err(format!("the segment{at} that it was coded from is lost: {why}")))
    }

    /// Where plain bytes of a hash lie in a segment that was coded from no other.
    pub(super) fn reference(&mut self, hash: &PlainHash) -> Result<Option<Reference>, Error> {
        if self.references.is_none() {
            let mut references = HashMap::new();
            let survey = Survey::open(self.disk.clone())?;
            for (id, _, _) in survey.packs()? {
                survey.walk(id, false, |_, _, record| {
                    if let RecordSummary::Segment { at, header: SegmentHeader { coding, .. }, .. } = record
                        && coding.reference.is_none()
                    {
                        let reference = Reference { segment: at, segment_bytes: coding.raw_len };
                        references.insert(coding.plain_hash, reference);
                    }
                    Ok(())
                })?;
            }
            self.references = Some(references);
        }
        Ok(self.references.as_ref().and_then(|references| references.get(hash).copied()))
    }

    /// Operations that put the extents of a file in order, each ended by the next; `None` for a file with too many.
    fn untangle(&self, ino: Ino) -> Result<Option<Vec<MetaOp>>, Error> {
        let all = self.store.extents(ino, ByteRange { start: 0, end: u64::MAX }, UNTANGLED_MAX)?;
        if all.len() >= UNTANGLED_MAX {
            return Ok(None);
        }
        let mut ops = vec![MetaOp::RemoveExtents { ino, start: 0, end: u64::MAX }];
        for (n, e) in all.iter().enumerate() {
            let room = all.get(n + 1).map_or(u64::MAX, |next| next.file_offset - e.file_offset);
            let len = u64::from(e.len).min(room) as u32;
            ops.push(MetaOp::PutExtent { ino, extent: Extent { len, ..*e } });
        }
        Ok(Some(ops))
    }
}

/// The segments that an extent needs.
fn needs(e: &Extent) -> (SegmentRef, Option<SegmentRef>) {
    (e.segment, e.reference.map(|r| r.segment))
}

/// A disk that cannot read a sector is damage; one that cannot do anything is not.
fn is_rot(e: &std::io::Error) -> bool {
    const EIO: i32 = 5;
    const EILSEQ: i32 = 84;
    matches!(e.raw_os_error(), Some(EIO | EILSEQ))
}
