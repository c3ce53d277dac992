//! What is left of files whose inodes are lost: segments name their owners, extents and staging files their inodes. It
//! is put together again under lost+found.

use std::collections::BTreeMap;

use super::files::{PAGE, share};
use super::names::Nodes;
use super::{Check, Findings, Fix, Kind};
use crate::base::{ByteRange, Ino, RangeSet};
use crate::format::{Dentry, Extent, FileKind, InodeRecord, MetaOp, Staging, Time};
use crate::host::{self, OpenMode, Seek};
use crate::store::{Error, RecordSummary, Store, Survey};

/// Directory of what has no place, in the root.
const LOST_FOUND: &[u8] = b"lost+found";
/// Extents put together in one look: what is beyond waits for the next.
const EXTENTS_MAX: usize = 1_000_000;
/// Extents in one transaction.
const EXTENTS_PER_COMMIT: usize = 4096;

/// A directory with nothing in it.
pub(super) fn directory(ino: Ino, mode: u16, parent: Ino) -> InodeRecord {
    InodeRecord { kind: FileKind::Directory, mode, nlink: 2, parent, ..file(ino) }
}

/// An empty file of the user who repairs.
fn file(ino: Ino) -> InodeRecord {
    let (secs, nanos) = host::now();
    let now = Time { secs, nanos };
    InodeRecord {
        mode: 0o600,
        uid: host::effective_uid(),
        gid: host::effective_gid(),
        ..InodeRecord::new(ino, FileKind::Regular, now)
    }
}

/// What is left of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost {
    /// The inode it was.
    ino: Ino,
    /// Its number is free: it gets it again.
    free: bool,
    /// Extents to make from segments, oldest first: later ones end earlier ones.
    extents: Vec<Extent>,
    staging: Option<(u64, u64)>,
    /// Ranges that the staging file holds, which is newer than any segment.
    staged: RangeSet,
}

impl Lost {
    /// The inode it gets.
    pub fn number(&self, store: &Store) -> Ino {
        if self.free { self.ino } else { store.allocate_ino() }
    }
}

impl Check<'_> {
    /// Files without inodes.
    pub(super) fn lost(&mut self, nodes: &Nodes, found: &mut Findings) -> Result<(), Error> {
        let mut files: BTreeMap<Ino, Lost> = BTreeMap::new();
        if self.metadata_lost {
            self.read_removed()?;
            self.segments_of_nobody(nodes, &mut files)?;
        }
        let mut after = Ino(0);
        while let Some(ino) = self.store.next_with_extents(after)? {
            after = ino;
            if nodes.get(ino).is_none() {
                files.entry(ino).or_default();
            }
        }
        if self.metadata_lost {
            self.staging_of_nobody(nodes, &mut files)?;
        }
        for (ino, mut lost) in files {
            lost.ino = ino;
            let exists = nodes.get(ino).is_some();
            lost.free = !exists;
            let at = if exists { found.path(self.store, nodes, ino) } else { format!("inode {ino}") };
            let repair = format!("put what is left together as lost+found/{ino}");
            let fix = Some((repair, Fix::Restore(Box::new(lost))));
            if exists {
                let what = "there are bytes in segments or staging that it may have named before metadata was lost";
                found.add(Kind::LostExtents, at, what.into(), fix);
            } else {
                let what = format!("inode {ino} is lost, but not its bytes");
                found.add(Kind::LostFile, at, what, fix);
            }
        }
        Ok(())
    }

    /// Inodes that what is left of the log calls removed: what is left of them is not lost.
    fn read_removed(&mut self) -> Result<(), Error> {
        let survey = Survey::open(self.disk.clone())?;
        for (id, _, _) in survey.packs()?.into_iter().filter(|(id, _, _)| self.store.is_meta_pack(*id)) {
            let removed = &mut self.removed;
            survey.walk(id, false, |_, _, record| {
                if let RecordSummary::Meta { ops, .. } = record {
                    removed.extend(
                        ops.iter().filter_map(|op| if let MetaOp::RemoveInode(ino) = op { Some(*ino) } else { None }),
                    );
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Segments whose owners have no inode, or no extent there, and were not removed as far as the log says.
    fn segments_of_nobody(&mut self, nodes: &Nodes, files: &mut BTreeMap<Ino, Lost>) -> Result<(), Error> {
        let survey = Survey::open(self.disk.clone())?;
        let mut count = 0;
        let mut limit = Ino(u64::MAX);
        for (id, _, _) in survey.packs()? {
            survey.walk(id, false, |_, _, record| {
                let RecordSummary::Segment { at, header, .. } = record else { return Ok(()) };
                for o in &header.owners {
                    self.store.skip_numbers(o.ino, 0);
                    if o.ino >= limit || o.len == 0 || self.removed.contains(&o.ino) {
                        continue;
                    }
                    let extent = Extent {
                        file_offset: o.file_offset,
                        len: o.len,
                        segment: at,
                        segment_offset: o.segment_offset,
                        segment_bytes: header.coding.raw_len,
                        method: header.coding.method,
                        reference: match header.coding.reference {
                            Some(hash) => self.reference(&hash)?,
                            None => None,
                        },
                    };
                    if o.file_offset.checked_add(u64::from(o.len)).is_none()
                        || !self.is_missing(nodes, o.ino, &extent)?
                    {
                        continue;
                    }
                    files.entry(o.ino).or_default().extents.push(extent);
                    count += 1;
                    while count > EXTENTS_MAX && files.len() > 1 {
                        let Some((highest, dropped)) = files.pop_last() else { break };
                        limit = highest;
                        count -= dropped.extents.len();
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// True when a range that a segment names belongs to no inode, or reads as a hole in one that lost metadata.
    fn is_missing(&self, nodes: &Nodes, ino: Ino, extent: &Extent) -> Result<bool, Error> {
        let Some(node) = nodes.get(ino) else { return Ok(true) };
        if node.kind != FileKind::Regular {
            return Ok(false);
        }
        let Some(rec) = self.store.inode(ino)? else { return Ok(true) };
        let range =
            ByteRange::at(extent.file_offset, u64::from(extent.len)).intersect(&ByteRange { start: 0, end: rec.size });
        if range.is_empty() || self.already_kept(ino)? {
            return Ok(false);
        }
        let mut held = RangeSet::default();
        for e in self.store.extents(ino, range, PAGE)? {
            held.insert(ByteRange::at(e.file_offset, u64::from(e.len)));
        }
        if let Some(s) = rec.staging {
            held = self.staged(ino, s.epoch, held)?;
        }
        Ok(!held.gaps(range).is_empty())
    }

    /// True when an earlier run kept what segments say of this inode.
    fn already_kept(&self, ino: Ino) -> Result<bool, Error> {
        let Some(dir) = self.lost_found()? else { return Ok(false) };
        Ok(self.store.dentry(dir, ino.to_string().as_bytes())?.is_some())
    }

    /// Adds the runs of data of a staging file.
    fn staged(&self, ino: Ino, epoch: u64, mut held: RangeSet) -> Result<RangeSet, Error> {
        let path = format!("staging/{ino}.{epoch}");
        let fail = |source| Error::Io { what: format!("read {path}"), source };
        let file = match self.disk.open(&path, OpenMode::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(held),
            other => other.map_err(fail)?,
        };
        let mut at = 0;
        while let Some(start) = file.seek(at, Seek::Data).map_err(fail)? {
            let end = file.seek(start, Seek::Hole).map_err(fail)?.unwrap_or(start + 1);
            held.insert(ByteRange { start, end });
            at = end.max(at + 1);
        }
        Ok(held)
    }

    /// True for a staging file that may hold bytes which the lost metadata named: its inode is lost and was not removed, or
    /// what is left of the log only knows an older one.
    pub(super) fn may_be_lost(&self, nodes: &Nodes, ino: Ino, epoch: u64) -> Result<bool, Error> {
        if !self.metadata_lost || self.removed.contains(&ino) {
            return Ok(false);
        }
        if nodes.get(ino).is_none() {
            return Ok(true);
        }
        let known = self.store.inode(ino)?.and_then(|rec| rec.staging).map_or(0, |s| s.epoch);
        Ok(epoch > known)
    }

    /// Staging files whose inode is lost; of several the newest.
    fn staging_of_nobody(&self, nodes: &Nodes, files: &mut BTreeMap<Ino, Lost>) -> Result<(), Error> {
        for (ino, epoch, name) in super::stray::staging(self.disk)? {
            self.store.skip_numbers(ino, epoch);
            if !self.may_be_lost(nodes, ino, epoch)? {
                continue;
            }
            let path = format!("staging/{name}");
            let fail = |source| Error::Io { what: format!("read {path}"), source };
            let len = self.disk.open(&path, OpenMode::Read).map_err(fail)?.len().map_err(fail)?;
            let lost = files.entry(ino).or_default();
            if len > 0 && lost.staging.is_none_or(|(other, _)| other < epoch) {
                lost.staging = Some((epoch, len));
                lost.staged = self.staged(ino, epoch, RangeSet::default())?;
            }
        }
        files.retain(|ino, lost| {
            !lost.extents.is_empty() || lost.staging.is_some() || {
                matches!(self.store.next_with_extents(Ino(ino.0.saturating_sub(1))), Ok(Some(next)) if next == *ino)
            }
        });
        Ok(())
    }

    /// lost+found, when there is one.
    fn lost_found(&self) -> Result<Option<Ino>, Error> {
        let found = self.store.dentry(Ino::ROOT, LOST_FOUND)?;
        Ok(found.filter(|d| d.kind == FileKind::Directory).map(|d| d.ino))
    }

    /// lost+found, made when there is none, and a name in it that is free. Operations to make it, its record (for a
    /// directory to be counted in), and the name.
    fn place(&self, wanted: &str) -> Result<(Vec<MetaOp>, InodeRecord, Vec<u8>), Error> {
        let store = self.store;
        let mut ops = Vec::new();
        let existing = match self.lost_found()? {
            Some(ino) => store.inode(ino)?,
            None => None,
        };
        let dir = match existing {
            Some(rec) => rec,
            None => {
                let mut name = LOST_FOUND.to_vec();
                if store.dentry(Ino::ROOT, &name)?.is_some() {
                    // A file has the name: it keeps it, under another.
                    let mut n = 1;
                    while store.dentry(Ino::ROOT, &name)?.is_some() {
                        name = format!("lost+found.{n}").into_bytes();
                        n += 1;
                    }
                    if let Some(dentry) = store.dentry(Ino::ROOT, LOST_FOUND)? {
                        ops.push(MetaOp::RemoveDentry { parent: Ino::ROOT, name: LOST_FOUND.to_vec() });
                        let dentry = Dentry { cookie: store.allocate_serial(), ..dentry };
                        ops.push(MetaOp::PutDentry { parent: Ino::ROOT, name, dentry });
                    }
                }
                let rec = directory(store.allocate_ino(), 0o700, Ino::ROOT);
                if let Some(mut root) = store.inode(Ino::ROOT)? {
                    root.nlink += 1;
                    ops.push(MetaOp::PutInode(root));
                }
                let dentry = Dentry { ino: rec.ino, kind: FileKind::Directory, cookie: store.allocate_serial() };
                ops.push(MetaOp::PutInode(rec.clone()));
                ops.push(MetaOp::PutDentry { parent: Ino::ROOT, name: LOST_FOUND.to_vec(), dentry });
                rec
            }
        };
        let mut name = wanted.as_bytes().to_vec();
        let mut n = 1;
        while store.dentry(dir.ino, &name)?.is_some() {
            name = format!("{wanted}.{n}").into_bytes();
            n += 1;
        }
        Ok((ops, dir, name))
    }

    /// Names an inode in lost+found, a directory with all that is below it.
    pub(super) fn attach(&self, ino: Ino) -> Result<(), Error> {
        let store = self.store;
        let Some(mut rec) = store.inode(ino)? else { return Ok(()) };
        let (mut ops, mut dir, name) = self.place(&ino.to_string())?;
        if rec.kind == FileKind::Directory {
            dir.nlink += 1;
            ops.push(MetaOp::PutInode(dir.clone()));
        } else {
            rec.nlink = 1;
        }
        rec.parent = dir.ino;
        let dentry = Dentry { ino, kind: rec.kind, cookie: store.allocate_serial() };
        ops.push(MetaOp::PutInode(rec));
        ops.push(MetaOp::PutDentry { parent: dir.ino, name, dentry });
        store.commit(&ops)?;
        Ok(())
    }

    /// Gives the inode that a file will have its extents. The inode itself comes when they are on disk: a crash before
    /// leaves extents of no inode, which the next run finds.
    pub(super) fn restore_extents(&self, lost: &Lost, ino: Ino) -> Result<(), Error> {
        let store = self.store;
        // Extents that the log still has are right where segments only say what once was.
        let mut known = Vec::new();
        let mut from = 0;
        loop {
            let page = store.extents(ino, ByteRange { start: from, end: u64::MAX }, PAGE)?;
            let Some(last) = page.last() else { break };
            from = last.file_offset + u64::from(last.len);
            known.extend(page);
        }
        let put = |extent: &Extent| MetaOp::PutExtent { ino, extent: *extent };
        let mut ops: Vec<MetaOp> = lost.extents.iter().chain(&known).map(put).collect();
        ops.extend(lost.staged.iter().map(|r| MetaOp::RemoveExtents { ino, start: r.start, end: r.end }));
        for step in ops.chunks(EXTENTS_PER_COMMIT) {
            store.commit(step)?;
        }
        Ok(())
    }

    /// Names a file that was put together in lost+found.
    pub(super) fn restore(&self, lost: &Lost, ino: Ino) -> Result<(), Error> {
        let store = self.store;
        let everything = ByteRange { start: 0, end: u64::MAX };
        let mut rec = file(ino);
        let mut from = 0;
        loop {
            let page = store.extents(ino, ByteRange { start: from, ..everything }, PAGE)?;
            let Some(last) = page.last() else { break };
            from = last.file_offset + u64::from(last.len);
            rec.stored_bytes += page.iter().map(share).sum::<u64>();
            rec.size = rec.size.max(from);
            rec.coded = true;
        }
        if let Some((epoch, len)) = lost.staging {
            if ino != lost.ino {
                // A crash from here on leaves a staging file of no inode, which the next run puts in lost+found.
                let fail = |source| Error::Io { what: format!("rename staging of inode {}", lost.ino), source };
                let (from, to) = (format!("staging/{}.{epoch}", lost.ino), format!("staging/{ino}.{epoch}"));
                self.disk.rename(&from, &to).and_then(|()| self.disk.sync_dir("staging")).map_err(fail)?;
            }
            rec.size = rec.size.max(len);
            rec.staging = Some(Staging { epoch, growing: false, sealed: false });
        }
        let (mut ops, dir, name) = self.place(&lost.ino.to_string())?;
        rec.parent = dir.ino;
        let dentry = Dentry { ino, kind: FileKind::Regular, cookie: store.allocate_serial() };
        ops.push(MetaOp::PutInode(rec));
        ops.push(MetaOp::PutDentry { parent: dir.ino, name, dentry });
        store.commit(&ops)?;
        Ok(())
    }
}
