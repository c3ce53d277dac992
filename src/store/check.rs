//! What a check needs beyond what a volume asks: everything of a kind in order, whoever it belongs to, and the log made anew.

use std::sync::atomic::Ordering;

use super::error::Error;
use super::keys::{self, bad, by_name, last_number};
use super::pack::{self, Met};
use super::recovery::LOST_FILE;
use super::{Store, snapshot};
use crate::base::{Ino, PackId, SegmentRef};
use crate::format::{Dentry, PackHeader, Place, RecordKind, SegmentHeader, Stream, decode_dentry, encode_record};
use crate::host::OpenMode;

/// A name: its directory, the name itself, what it points to.
pub type Named = (Ino, Vec<u8>, Dentry);

impl Store {
    /// Up to `limit` names of the whole volume behind `after`, in the order of directories and of bytes. Names in
    /// directories that do not exist are among them.
    pub fn names(&self, after: Option<(Ino, &[u8])>, limit: usize) -> Result<Vec<Named>, Error> {
        let mut from = match after {
            Some((parent, name)) => by_name(keys::DENTRY, parent.0, name),
            None => vec![keys::DENTRY],
        };
        if after.is_some() {
            from.push(0);
        }
        let page = self.index.range(&from, &[keys::DENTRY + 1], limit)?;
        let mut out = Vec::with_capacity(page.len());
        for (key, value) in page {
            let parent = key.get(..9).ok_or_else(|| Error::Index("short key".into())).and_then(last_number)?;
            out.push((Ino(parent), key.get(9..).unwrap_or_default().to_vec(), decode_dentry(&value).map_err(bad)?));
        }
        Ok(out)
    }

    /// The name that a directory lists at a cookie.
    pub fn name_at(&self, parent: Ino, cookie: u64) -> Result<Option<Vec<u8>>, Error> {
        let listed = self.dentries(parent, cookie.saturating_sub(1), 1)?;
        Ok(listed.into_iter().next().filter(|(_, dentry)| dentry.cookie == cookie).map(|(name, _)| name))
    }

    /// The first inode number behind `after` that has extents, whether the inode exists or not.
    pub fn next_with_extents(&self, after: Ino) -> Result<Option<Ino>, Error> {
        self.next_with(keys::EXTENT, after)
    }

    /// The first inode number behind `after` that has extended attributes, whether the inode exists or not.
    pub fn next_with_xattrs(&self, after: Ino) -> Result<Option<Ino>, Error> {
        self.next_with(keys::XATTR, after)
    }

    fn next_with(&self, tag: u8, after: Ino) -> Result<Option<Ino>, Error> {
        let page = self.index.range(&keys::after_number(tag, after.0), &[tag + 1], 1)?;
        let Some((key, _)) = page.first() else { return Ok(None) };
        key.get(..9).ok_or_else(|| Error::Index("short key".into())).and_then(last_number).map(|n| Some(Ino(n)))
    }

    /// Reads the whole segment record at a place, however long an extent says it is, and checks it.
    pub fn segment_at(&self, pack: PackId, offset: u64) -> Result<(SegmentRef, SegmentHeader), Error> {
        let record = self.reader.fetch(pack, offset)?;
        let corrupt = |what| Error::Corrupt { what, pack, offset };
        let stored_len = u32::try_from(record.stored_len).map_err(|_| corrupt("record length"))?;
        if record.header.kind != RecordKind::Segment {
            return Err(corrupt("segment reference"));
        }
        let header = SegmentHeader::decode(&record.header.fields).map_err(|e| corrupt(e.0))?;
        Ok((SegmentRef { pack, offset, stored_len }, header))
    }

    /// Has no number up to these given out again: something is left of inodes and staging files that had them. Numbers
    /// that no store reaches are nobody's; behind them there would be none left to give out.
    pub fn skip_numbers(&self, ino: Ino, serial: u64) {
        if ino.0.max(serial) < u64::MAX / 2 {
            self.next_ino.fetch_max(ino.0 + 1, Ordering::Relaxed);
            self.next_serial.fetch_max(serial + 1, Ordering::Relaxed);
        }
    }

    /// Writes all metadata anew and deletes the old log, damaged records and all; gives packs that lost their first record
    /// a new one. What was read of the damaged log is what counts from then on.
    ///
    /// # Durability
    /// On disk at return. A crash before leaves the old log.
    pub fn renew_log(&self) -> Result<(), Error> {
        self.writable()?;
        self.sync_meta()?;
        self.terminal(snapshot::compact(self))?;
        for id in pack::list(&*self.disk)? {
            if self.reader.stream(id).is_none() {
                self.terminal(self.renew_first_record(id))?;
            }
        }
        let fail = || Error::io(format!("remove {LOST_FILE}"));
        match self.disk.remove(LOST_FILE) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.disk.sync_dir("")).map_err(fail()),
        }
    }

    /// A pack without a good first record: one of metadata is in the new log already and goes; one of segments gets its
    /// first record back.
    fn renew_first_record(&self, id: PackId) -> Result<(), Error> {
        let mut walk = self.reader.walk(id, 0, false)?;
        let mut first = None;
        let mut segments = false;
        while let Some(met) = walk.next()? {
            if let Met::Record(record) = met {
                first.get_or_insert(record.offset);
                segments |= record.header.kind == RecordKind::Segment;
            }
        }
        if !segments {
            self.reader.close(id);
            return pack::remove(&*self.disk, id)
                .map_err(Error::io(format!("remove the pack {id}, of which nothing is left")));
        }
        let fields = PackHeader { pack: id, stream: Stream::Data, uuid: self.uuid }.encode();
        let place = Place { uuid: self.uuid, pack: id, offset: 0 };
        let record = encode_record(place, RecordKind::Pack, 0, &fields, &[], None);
        if first.is_some_and(|first| first < record.len() as u64) {
            return Err(Error::Corrupt { what: "first record (no room for a new one)", pack: id, offset: 0 });
        }
        let fail = || Error::io(format!("write the first record of pack {id}"));
        let file = self.disk.open(&pack::path(id), OpenMode::Write).map_err(fail())?;
        file.write_at(&record, 0).map_err(fail())?;
        file.sync_data().map_err(fail())
    }

    /// The number of a pack that a file name in a directory of packs stands for.
    pub fn pack_of(dir: &str, name: &str) -> Option<PackId> {
        pack::parse(dir, name)
    }

    /// True when the pack holds records of the metadata log, or may.
    pub fn is_meta_pack(&self, id: PackId) -> bool {
        self.reader.stream(id) != Some(Stream::Data)
    }
}

/// What is wrong with the superblock and its copy when neither is good; `None` when one is, or there is no store at all.
pub fn superblocks_lost(disk: &std::sync::Arc<dyn crate::host::Disk>) -> Result<Option<String>, Error> {
    match super::superblock::find(&**disk) {
        Ok(_) => Ok(None),
        Err(Error::Unusable(why)) if !pack::list(&**disk)?.is_empty() => Ok(Some(why)),
        Err(e) => Err(e),
    }
}

/// What can be said of a store at a glance, whether or not somebody has it open.
#[derive(Clone, Debug)]
pub struct Glance {
    /// Sentences: what is wrong with the superblock or its copy.
    pub wrong: Vec<String>,
    /// Bytes that are held back for a full disk.
    pub reserve_bytes: u64,
    /// The amounts of space that something depends on.
    pub marks: super::Marks,
    pub space: crate::host::Space,
}

/// Looks at a store without opening it.
///
/// # Errors
/// `Unusable` when there is no store, or its superblock and the copy are lost.
pub fn health(disk: &std::sync::Arc<dyn crate::host::Disk>) -> Result<Glance, Error> {
    let found = super::superblock::find(&**disk)?;
    let space = disk.space().map_err(Error::io("ask for the space of the store"))?;
    let reserve_bytes = super::reserve::Reserve::new(disk.clone()).bytes();
    Ok(Glance { wrong: found.wrong, reserve_bytes, marks: super::Marks::of(space.total_bytes), space })
}
