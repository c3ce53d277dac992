//! Parity of packs: making it, finding damaged shards by their checksums, computing them again.
//!
//! Optional and beside the packs: a store without parity files is whole, and a parity file that is damaged, missing or
//! older than its pack costs nothing but what it could have mended. Bytes that are computed again count only when their
//! checksum in the parity file is right, and a record made of them only when its own checks are: right bytes or an error.
//!
//! Mended are segments when they are read, whole packs by scrub, and while a writable store is opened those metadata packs
//! that are replayed and packs whose first record is damaged. A pack that is appended to has no parity: it is removed before
//! a pack is gone on with, and comes again when the pack is full.
//!
//! # Limits
//! One stripe in memory at a time, and the checksums: 4 bytes for each 64 KiB of a pack.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::Store;
use super::error::Error;
use super::pack::{self, PackReader};
use crate::base::{PackId, Uuid, crc32c};
use crate::format::{PARITY_HEADER_BYTES, ParityHeader, SHARD_BYTES_MAX};
use crate::host::{Disk, DiskFile, OpenMode};

/// Shards are at least this long, bytes: short packs would drown in checksums.
const SHARD_BYTES_MIN: u64 = 64;

/// How much parity is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParityShape {
    /// Shards of a pack in a stripe.
    pub data: u16,
    /// Parity shards for each stripe: as many damaged ones are mended.
    pub parity: u16,
}

/// What a repair did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mended {
    /// Shards that were damaged and are right again.
    pub mended: u64,
    /// Shards that are damaged and stay so.
    pub left: u64,
}

/// A parity file whose head is good.
struct Parity {
    header: ParityHeader,
    /// Checksums of the shards of the pack, then of the parity shards.
    sums: Vec<u32>,
    file: Arc<dyn DiskFile>,
    /// Both copies of the head are good and the file is as long as it should be.
    whole: bool,
}

/// A read that a bad sector fails is a damaged shard, not the end.
fn read_up_to(file: &dyn DiskFile, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    match file.read_at(&mut buf, offset) {
        Ok(got) => buf.truncate(got),
        Err(_) => buf.clear(),
    }
    buf
}

fn head_at(file: &dyn DiskFile, offset: u64, uuid: Uuid, pack: PackId) -> Option<(ParityHeader, Vec<u8>)> {
    let header = ParityHeader::decode(&read_up_to(file, offset, PARITY_HEADER_BYTES)).ok()?;
    if header.uuid != uuid || header.pack != pack {
        return None;
    }
    let head = read_up_to(file, offset, usize::try_from(header.head_bytes()).ok()?);
    let (body, crc) = head.split_last_chunk::<4>()?;
    (head.len() as u64 == header.head_bytes() && crc32c(body).to_le_bytes() == *crc).then_some((header, head))
}

impl Parity {
    /// The parity of a pack; `None` when there is none, or neither copy of its head is good.
    fn open(disk: &dyn Disk, uuid: Uuid, id: PackId) -> Option<Parity> {
        let file = disk.open(&pack::parity_path(id), OpenMode::Read).ok()?;
        let len = file.len().ok()?;
        let first = head_at(&*file, 0, uuid, id);
        let last = match &first {
            Some((header, _)) => head_at(&*file, header.parity_offset(header.stripes(), 0), uuid, id),
            None => last_head(&*file, len, uuid, id),
        };
        let whole = first.is_some() && first == last && first.as_ref().is_some_and(|(h, _)| h.file_bytes() == len);
        let (header, head) = first.or(last)?;
        let sums = head.get(PARITY_HEADER_BYTES..head.len() - 4)?;
        let sums = sums.chunks_exact(4).filter_map(|c| c.try_into().ok().map(u32::from_le_bytes)).collect();
        Some(Parity { header, sums, file, whole })
    }

    fn shard_bytes(&self) -> u64 {
        u64::from(self.header.shard_bytes)
    }

    /// Shard `i` of the pack, filled with zeros; `None` when it is damaged or cut off. Those beyond the last are zeros.
    fn shard(&self, pack: &dyn DiskFile, i: u64) -> Option<Vec<u8>> {
        let size = self.shard_bytes();
        let len = size.min(self.header.pack_bytes.saturating_sub(i * size)) as usize;
        let mut bytes = read_up_to(pack, i * size, len);
        let complete = bytes.len() == len;
        bytes.resize(size as usize, 0);
        let good = i >= self.header.shards() || self.sums.get(i as usize).is_some_and(|sum| *sum == crc32c(&bytes));
        (complete && good).then_some(bytes)
    }

    fn parity_shard(&self, stripe: u64, number: u16) -> Option<Vec<u8>> {
        let bytes = read_up_to(&*self.file, self.header.parity_offset(stripe, number), self.shard_bytes() as usize);
        let at = self.header.shards() + stripe * u64::from(self.header.parity) + u64::from(number);
        let sum = self.sums.get(usize::try_from(at).ok()?)?;
        (bytes.len() as u64 == self.shard_bytes() && crc32c(&bytes) == *sum).then_some(bytes)
    }

    /// The damaged shards of a stripe, computed again; those that cannot be are only counted.
    fn mend(&self, pack: &dyn DiskFile, stripe: u64) -> (BTreeMap<u64, Vec<u8>>, Mended) {
        let (k, m) = (usize::from(self.header.data), usize::from(self.header.parity));
        let number = |n: usize| n as u64 * self.header.stripes() + stripe;
        let shards: Vec<Option<Vec<u8>>> = (0..k).map(|n| self.shard(pack, number(n))).collect();
        let missing: Vec<usize> = shards.iter().enumerate().filter(|(_, s)| s.is_none()).map(|(n, _)| n).collect();
        let mut mended = BTreeMap::new();
        if missing.is_empty() {
            return (mended, Mended::default());
        }
        let parity: Vec<(usize, Vec<u8>)> =
            (0..m).filter_map(|n| self.parity_shard(stripe, n as u16).map(|bytes| (n, bytes))).collect();
        if missing.len() <= parity.len() {
            let good = shards.iter().enumerate().filter_map(|(n, s)| s.as_ref().map(|s| (n, s)));
            let again = reed_solomon_simd::decode(k, m, good, parity.iter().map(|(n, p)| (*n, p)));
            for (n, bytes) in again.into_iter().flatten() {
                let i = number(n);
                if missing.contains(&n) && self.sums.get(i as usize).is_some_and(|sum| *sum == crc32c(&bytes)) {
                    mended.insert(i, bytes);
                }
            }
        }
        let left = (missing.len() - mended.len()) as u64;
        let count = Mended { mended: mended.len() as u64, left };
        (mended, count)
    }

    /// Shards that hold bytes of a range of the pack.
    fn shards_of(&self, range: &Range<u64>) -> Range<u64> {
        let end = range.end.min(self.header.pack_bytes);
        range.start / self.shard_bytes()..end.div_ceil(self.shard_bytes()).max(range.start / self.shard_bytes())
    }
}

/// The head at the end of a file whose first one is damaged. Where it begins follows from its length, which it says itself:
/// it is looked for by its check.
fn last_head(file: &dyn DiskFile, len: u64, uuid: Uuid, pack: PackId) -> Option<(ParityHeader, Vec<u8>)> {
    // A head takes less than the pack's share of checksums, and its length is a multiple of four.
    let from = len.saturating_sub(HEAD_BYTES_MAX) / 4 * 4;
    let tail = read_up_to(file, from, (len - from) as usize);
    let mut at = tail.len().checked_sub(PARITY_HEADER_BYTES)?;
    loop {
        let header = tail.get(at..).and_then(|bytes| ParityHeader::decode(bytes).ok());
        if header.is_some_and(|h| h.head_bytes() == (tail.len() - at) as u64) {
            return head_at(file, from + at as u64, uuid, pack);
        }
        at = at.checked_sub(2)?;
    }
}

/// Longest head looked for, bytes: that of a pack of some gigabytes.
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a pack with some shards in the place of what is on disk.
struct Overlay {
    below: Arc<dyn DiskFile>,
    shard_bytes: u64,
    shards: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// Reads a range; fewer bytes only at the end.
    fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let i = at / self.shard_bytes;
            let skip = (at % self.shard_bytes) as usize;
            let n = (self.shard_bytes - skip as u64).min(range.end - at) as usize;
            let part = match self.shards.get(&i) {
                Some(shard) => shard.get(skip..skip + n).unwrap_or_default().to_vec(),
                None => read_up_to(&*self.below, at, n),
            };
            out.extend_from_slice(&part);
            if part.len() < n {
                break;
            }
            at += n as u64;
        }
        out
    }
}

/// Makes the parity of the first `len` bytes of a pack.
///
/// # Durability
/// On disk under its name at return; a crash before leaves a draft.
fn make(disk: &dyn Disk, uuid: Uuid, id: PackId, shape: ParityShape, len: u64) -> Result<(), Error> {
    let fail = |step: &str| Error::io(format!("{step} the parity of pack {id}"));
    let pack_file = disk.open(&pack::path(id), OpenMode::Read).map_err(fail("read"))?;
    let per_shard = len.div_ceil(u64::from(shape.data.max(1)));
    let shard_bytes = per_shard.max(SHARD_BYTES_MIN).next_multiple_of(64).min(u64::from(SHARD_BYTES_MAX)) as u32;
    let header = ParityHeader { data: shape.data, parity: shape.parity, shard_bytes, pack: id, pack_bytes: len, uuid };
    let path = pack::parity_path(id);
    let draft = format!("{path}.new");
    let file = disk.open(&draft, OpenMode::Create).map_err(fail("create"))?;
    file.set_len(0).map_err(fail("create"))?;
    let mut sums = vec![0u32; header.shards() as usize];
    let mut parity_sums = Vec::new();
    for stripe in 0..header.stripes() {
        let mut shards = Vec::with_capacity(usize::from(shape.data));
        for n in 0..u64::from(shape.data) {
            let i = n * header.stripes() + stripe;
            let at = i * u64::from(shard_bytes);
            let mut bytes = vec![0; u64::from(shard_bytes).min(len.saturating_sub(at)) as usize];
            let got = pack_file.read_at(&mut bytes, at).map_err(fail("read the pack for"))?;
            if got < bytes.len() {
                return Err(Error::Corrupt { what: "pack (cut off)", pack: id, offset: at });
            }
            bytes.resize(shard_bytes as usize, 0);
            if let Some(sum) = sums.get_mut(i as usize) {
                *sum = crc32c(&bytes);
            }
            shards.push(bytes);
        }
        let parity = reed_solomon_simd::encode(usize::from(shape.data), usize::from(shape.parity), &shards)
            .map_err(|e| io::Error::other(e.to_string()))
            .map_err(fail("compute"))?;
        for (number, bytes) in parity.iter().enumerate() {
            parity_sums.push(crc32c(bytes));
            file.write_at(bytes, header.parity_offset(stripe, number as u16)).map_err(fail("write"))?;
        }
    }
    let mut head = header.encode();
    sums.iter().chain(&parity_sums).for_each(|sum| head.extend_from_slice(&sum.to_le_bytes()));
    let crc = crc32c(&head);
    head.extend_from_slice(&crc.to_le_bytes());
    file.write_at(&head, 0).map_err(fail("write"))?;
    file.write_at(&head, header.parity_offset(header.stripes(), 0)).map_err(fail("write"))?;
    file.sync_data().map_err(fail("sync"))?;
    disk.rename(&draft, &path).map_err(fail("name"))?;
    disk.sync_dir(&pack::dir(id)).map_err(fail("name"))
}

/// Puts shards back to where they were.
///
/// # Durability
/// On disk at return. A crash before leaves shards that are damaged as before, or right.
fn write_shards(disk: &dyn Disk, parity: &Parity, shards: &BTreeMap<u64, Vec<u8>>) -> Result<(), Error> {
    let id = parity.header.pack;
    let fail = || Error::io(format!("mend pack {id}"));
    let file = disk.open(&pack::path(id), OpenMode::Write).map_err(fail())?;
    for (i, bytes) in shards {
        let at = i * parity.shard_bytes();
        let len = (parity.header.pack_bytes - at).min(parity.shard_bytes()) as usize;
        file.write_at(bytes.get(..len).unwrap_or_default(), at).map_err(fail())?;
    }
    file.sync_data().map_err(fail())
}

fn mend(reader: &PackReader, id: PackId) -> Result<Option<Mended>, Error> {
    let Some(parity) = Parity::open(&*reader.disk, reader.uuid, id) else { return Ok(None) };
    let file = reader.file(id)?;
    let mut sum = Mended::default();
    for stripe in 0..parity.header.stripes() {
        let (shards, count) = parity.mend(&*file, stripe);
        if !shards.is_empty() {
            write_shards(&*reader.disk, &parity, &shards)?;
        }
        sum.mended += count.mended;
        sum.left += count.left;
    }
    Ok(Some(sum))
}

/// Mends a pack before its records are taken for the truth, while a store is being opened. True when something was mended.
/// What cannot be mended is met by who reads it.
pub(super) fn mend_at_open(reader: &PackReader, id: PackId) -> bool {
    match mend(reader, id) {
        Ok(Some(count)) if count.mended > 0 => {
            log::warn!("{} damaged parts of pack {id} were computed again from parity", count.mended);
            true
        }
        Ok(_) => false,
        Err(e) => {
            log::warn!("pack {id} is not mended from its parity: {e}");
            false
        }
    }
}

impl Store {
    /// Makes parity for one pack that is not appended to any more and has none, or one that is damaged, of another shape, or
    /// older than the pack. False when there is nothing to do. A pack that is damaged gets none: its damage would be
    /// taken for truth.
    ///
    /// # Blocking
    /// Reads the pack, twice, and writes its share of parity.
    pub fn make_parity(&self, shape: ParityShape) -> Result<bool, Error> {
        self.writable()?;
        for id in pack::list(&*self.disk)? {
            if !self.is_closed(id) || self.no_parity.lock().unwrap_or_else(|e| e.into_inner()).contains(&id) {
                continue;
            }
            let Ok(file) = self.reader.file(id) else { continue };
            let len = file.len().map_err(Error::io(format!("stat pack {id}")))?;
            let known = Parity::open(&*self.disk, self.uuid, id);
            let current = known.is_some_and(|p| {
                let h = p.header;
                p.whole && (h.data, h.parity, h.pack_bytes) == (shape.data, shape.parity, len)
            });
            if current || len == 0 {
                continue;
            }
            if !self.has_room(len.div_ceil(u64::from(shape.data.max(1))) * u64::from(shape.parity)) {
                log::debug!("parity waits for space");
                return Ok(false);
            }
            if self.is_whole(id)? {
                let made = make(&*self.disk, self.uuid, id, shape, len);
                if made.is_err() {
                    let _ = self.disk.remove(&format!("{}.new", pack::parity_path(id)));
                }
                made?;
                if !pack::list(&*self.disk)?.contains(&id) {
                    // Deleted meanwhile: its parity goes too.
                    let _ = self.disk.remove(&pack::parity_path(id));
                }
                return Ok(true);
            }
            log::warn!("pack {id} is damaged and gets no parity");
            self.no_parity.lock().unwrap_or_else(|e| e.into_inner()).insert(id);
        }
        Ok(false)
    }

    /// True for a pack that is appended to.
    fn is_active(&self, id: PackId) -> bool {
        let log = self.log_lock().active.as_ref().is_some_and(|a| a.id == id);
        log || self.data_lock().active.as_ref().is_some_and(|a| a.id == id)
    }

    /// True for a pack that is complete. A snapshot that is being written is not.
    fn is_closed(&self, id: PackId) -> bool {
        let data = self.data_lock().closed.contains_key(&id);
        !self.is_active(id) && (data || self.log_lock().packs.contains(&id))
    }

    /// True when every record of a pack passes its checks.
    fn is_whole(&self, id: PackId) -> Result<bool, Error> {
        let mut walk = self.reader.walk(id, 0, true)?;
        while let Some(met) = walk.next()? {
            if let pack::Met::Damage { .. } = met {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A record that failed its check, out of the pack's parity. What was computed again is written to the pack too, where
    /// that is allowed; when it cannot be, the next read computes it again.
    pub(super) fn fetch_mended(&self, id: PackId, offset: u64, stored_len: u64) -> Option<pack::Record> {
        let parity = Parity::open(&*self.disk, self.uuid, id)?;
        let below = self.reader.file(id).ok()?;
        let range = offset..offset.checked_add(stored_len)?;
        let mut shards = BTreeMap::new();
        let mut stripes: Vec<u64> = parity.shards_of(&range).map(|i| i % parity.header.stripes()).collect();
        stripes.sort();
        stripes.dedup();
        for stripe in stripes {
            shards.extend(parity.mend(&*below, stripe).0);
        }
        let overlay = Overlay { below, shard_bytes: parity.shard_bytes(), shards };
        let record = pack::record_in(self.uuid, id, offset, &overlay.read(range)).ok()?;
        log::warn!("pack {id} offset {offset} was damaged; its bytes were computed again from parity");
        if self.writable().is_ok()
            && !self.is_active(id)
            && let Err(e) = write_shards(&*self.disk, &parity, &overlay.shards)
        {
            log::warn!("pack {id} stays damaged on disk: {e}");
        }
        Some(record)
    }

    /// Mends all of a pack that its parity can mend; `None` when it has no parity, or is appended to.
    ///
    /// # Durability
    /// What was mended is on disk at return.
    pub fn mend_pack(&self, id: PackId) -> Result<Option<Mended>, Error> {
        self.writable()?;
        if self.is_active(id) { Ok(None) } else { mend(&self.reader, id) }
    }

    /// Mends all packs that have parity. Returns how many damaged shards are right again.
    ///
    /// # Durability
    /// What was mended is on disk at return.
    pub fn mend_packs(&self) -> Result<u64, Error> {
        let mut mended = 0;
        for id in pack::list(&*self.disk)? {
            mended += self.mend_pack(id)?.map_or(0, |count| count.mended);
        }
        Ok(mended)
    }

    /// Checks the parity file of a pack, and removes one that is damaged while the pack is whole: it is made anew. True
    /// when it was damaged.
    pub fn check_parity(&self, id: PackId) -> Result<bool, Error> {
        let path = pack::parity_path(id);
        if self.disk.open(&path, OpenMode::Read).is_err() {
            return Ok(false);
        }
        let parity = Parity::open(&*self.disk, self.uuid, id);
        let good = parity.is_some_and(|p| {
            p.whole && (0..p.header.stripes()).all(|s| (0..p.header.parity).all(|n| p.parity_shard(s, n).is_some()))
        });
        if !good && self.writable().is_ok() && self.is_whole(id)? {
            self.disk.remove(&path).map_err(Error::io(format!("remove the damaged parity of pack {id}")))?;
        }
        Ok(!good)
    }
}
