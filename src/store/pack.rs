//! Packs as files: naming, appending, fetching one record, walking all of them past damage.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::error::Error;
use crate::base::{PackId, Uuid};
use crate::format::{
    BODY_BYTES_MAX, HEADER_FIXED_BYTES, Malformed, PackHeader, Place, Prefix, RECORD_ALIGN, RECORD_MAGIC, RecordHeader,
    RecordKind, Stream, check_body, decode_header, encode_record,
};
use crate::host::{self, Disk, DiskFile, OpenMode};

/// Directory of all packs.
pub(crate) const PACKS_DIR: &str = "packs";
/// Packs kept open for reading.
const OPEN_PACKS_MAX: usize = 128;
/// Bytes searched at a time for the next record after damage.
const SEARCH_BYTES: usize = 1 << 20;

/// Directory of a pack: 256 of them, by the low byte of the number.
pub(crate) fn dir(pack: PackId) -> String {
    format!("{PACKS_DIR}/{:02x}", pack.0 & 0xff)
}

/// File of a pack.
pub(crate) fn path(pack: PackId) -> String {
    format!("{}/pack-{:016x}.tpk", dir(pack), pack.0)
}

/// File of a pack's parity.
pub(crate) fn parity_path(pack: PackId) -> String {
    format!("{}/pack-{:016x}.par", dir(pack), pack.0)
}

/// The pack that a file name in one of the directories stands for; `None` for a file that is none, or is in a directory
/// where no pack of its number is looked for.
pub(crate) fn parse(sub: &str, name: &str) -> Option<PackId> {
    let number = name.strip_prefix("pack-").and_then(|n| n.strip_suffix(".tpk"))?;
    let id = PackId(u64::from_str_radix(number, 16).ok()?);
    (path(id) == format!("{PACKS_DIR}/{sub}/{name}")).then_some(id)
}

/// All packs of a store by their file names, ascending.
pub(crate) fn list(disk: &dyn Disk) -> Result<Vec<PackId>, Error> {
    let mut packs = Vec::new();
    for sub in disk.list(PACKS_DIR).map_err(Error::io("list packs"))? {
        for name in disk.list(&format!("{PACKS_DIR}/{sub}")).map_err(Error::io("list packs"))? {
            packs.extend(parse(&sub, &name));
        }
    }
    packs.sort();
    Ok(packs)
}

/// A pack that records are appended to. Not shared: the owner's lock orders appends.
pub(crate) struct ActivePack {
    pub id: PackId,
    pub file: Arc<dyn DiskFile>,
    pub tail: u64,
    uuid: Uuid,
}

impl ActivePack {
    /// Creates a pack with its first record.
    ///
    /// # Errors
    /// `NoSpace` and `TooManyFiles` leave no pack behind.
    ///
    /// # Durability
    /// File, name and first record are on disk at return.
    pub fn create(disk: &dyn Disk, uuid: Uuid, id: PackId, stream: Stream, txid: u64) -> Result<ActivePack, Error> {
        let created = ActivePack::try_create(disk, uuid, id, stream, txid);
        if created.as_ref().is_err_and(Error::is_refusal) {
            // What is left of it, if anything, is told from a pack at the next open and removed there.
            let _ = disk.remove(&path(id));
        }
        created
    }

    fn try_create(disk: &dyn Disk, uuid: Uuid, id: PackId, stream: Stream, txid: u64) -> Result<ActivePack, Error> {
        let what = format!("create pack {id}");
        let fail = || Error::io(what.clone());
        disk.create_dir(PACKS_DIR).map_err(Error::write(what.clone()))?;
        disk.create_dir(&dir(id)).map_err(Error::write(what.clone()))?;
        let file = disk.open(&path(id), OpenMode::CreateNew).map_err(Error::write(what.clone()))?;
        // That of a deleted pack of the same number: a power cut can leave it.
        remove_parity(disk, id).map_err(Error::write(what.clone()))?;
        let mut pack = ActivePack { id, file, tail: 0, uuid };
        pack.append(RecordKind::Pack, txid, &PackHeader { pack: id, stream, uuid }.encode(), &[], None)?;
        pack.file.sync_data().map_err(fail())?;
        disk.sync_dir(&dir(id)).map_err(fail())?;
        disk.sync_dir(PACKS_DIR).map_err(fail())?;
        disk.sync_dir("").map_err(fail())?;
        Ok(pack)
    }

    /// Goes on with a pack whose last good record ends at `tail`; what lies behind it is cut off, on disk at return: records
    /// that were left out must not come back behind new ones.
    pub fn resume(disk: &dyn Disk, uuid: Uuid, id: PackId, tail: u64) -> Result<ActivePack, Error> {
        let what = format!("open pack {id}");
        // Parity of what is cut off would take what is appended for damage. It is gone for good before anything changes.
        if remove_parity(disk, id).map_err(Error::io(what.clone()))? {
            disk.sync_dir(&dir(id)).map_err(Error::io(what.clone()))?;
        }
        let file = disk.open(&path(id), OpenMode::Write).map_err(Error::io(what.clone()))?;
        if file.len().map_err(Error::io(what.clone()))? > tail {
            file.set_len(tail).map_err(Error::io(what.clone()))?;
            file.sync_data().map_err(Error::io(what))?;
        }
        Ok(ActivePack { id, file, tail, uuid })
    }

    /// Appends a record; returns its offset and its length with padding, bytes.
    ///
    /// # Errors
    /// `NoSpace` leaves the pack as it was: what was written of the record is cut off.
    ///
    /// # Durability
    /// In the kernel at return; on disk after `file.sync_data()`.
    pub fn append(
        &mut self,
        kind: RecordKind,
        txid: u64,
        fields: &[u8],
        body: &[u8],
        plain_len: Option<u32>,
    ) -> Result<(u64, u32), Error> {
        let place = Place { uuid: self.uuid, pack: self.id, offset: self.tail };
        let record = encode_record(place, kind, txid, fields, body, plain_len);
        if let Err(e) = self.file.write_at(&record, self.tail) {
            let error = Error::write(format!("write to pack {}", self.id))(e);
            if error.is_refusal() {
                // Where even the cut fails, the next record covers the start of the rest and recovery passes over it.
                let _ = self.file.set_len(self.tail);
            }
            return Err(error);
        }
        let at = self.tail;
        self.tail += record.len() as u64;
        Ok((at, record.len() as u32))
    }
}

/// Reads `len` bytes at `offset`; fewer are a damage of the pack.
fn read(file: &dyn DiskFile, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
    let mut buf = vec![0; len];
    let got = file.read_at(&mut buf, offset).map_err(Error::io(format!("read pack {pack}")))?;
    if got == len { Ok(buf) } else { Err(Error::Corrupt { what: "record (cut off)", pack, offset }) }
}

/// A record with its body as stored.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub offset: u64,
    /// Bytes with padding.
    pub stored_len: u64,
    pub header: RecordHeader,
    pub body: Vec<u8>,
}

impl Record {
    /// The body, decompressed when it is compressed.
    pub fn plain(&self, pack: PackId) -> Result<Vec<u8>, Error> {
        if !self.header.compressed {
            return Ok(self.body.clone());
        }
        let corrupt = || Error::Corrupt { what: "compressed body", pack, offset: self.offset };
        let plain = zstd::bulk::decompress(&self.body, self.header.plain_len as usize).map_err(|_| corrupt())?;
        if plain.len() == self.header.plain_len as usize { Ok(plain) } else { Err(corrupt()) }
    }
}

/// Packs opened for reading.
pub(crate) struct PackReader {
    pub disk: Arc<dyn Disk>,
    pub uuid: Uuid,
    open: Mutex<HashMap<PackId, Arc<dyn DiskFile>>>,
}

impl PackReader {
    pub fn new(disk: Arc<dyn Disk>, uuid: Uuid) -> PackReader {
        PackReader { disk, uuid, open: Mutex::new(HashMap::new()) }
    }

    pub fn file(&self, pack: PackId) -> Result<Arc<dyn DiskFile>, Error> {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(file) = open.get(&pack) {
            return Ok(file.clone());
        }
        let file = match self.disk.open(&path(pack), OpenMode::Read) {
            Err(e) if host::is_out_of_files(&e) && !open.is_empty() => {
                // Those that are kept only to be faster give way.
                open.clear();
                self.disk.open(&path(pack), OpenMode::Read)
            }
            other => other,
        };
        let file = file.map_err(Error::io(format!("open pack {pack}")))?;
        if open.len() >= OPEN_PACKS_MAX {
            open.clear();
        }
        open.insert(pack, file.clone());
        Ok(file)
    }

    /// Closes packs that are kept open only to be faster. True when there were any.
    pub fn close_all(&self) -> bool {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        !std::mem::take(&mut *open).is_empty()
    }

    /// Forgets a pack that was deleted.
    pub fn close(&self, pack: PackId) {
        self.open.lock().unwrap_or_else(|e| e.into_inner()).remove(&pack);
    }

    /// Reads one record and checks all of it.
    pub fn fetch(&self, pack: PackId, offset: u64) -> Result<Record, Error> {
        let file = self.file(pack)?;
        let record = self.fetch_header(&*file, pack, offset)?;
        self.with_body(&*file, pack, record)
    }

    /// Reads a record and checks its header alone.
    pub fn fetch_unchecked(&self, pack: PackId, offset: u64) -> Result<Record, Error> {
        let file = self.file(pack)?;
        let mut record = self.fetch_header(&*file, pack, offset)?;
        let start = offset + (HEADER_FIXED_BYTES + record.header.fields.len()) as u64 + 4;
        record.body = read(&*file, pack, start, record.header.body_len as usize)?;
        Ok(record)
    }

    /// Reads and checks a header; the body is left empty.
    pub fn fetch_header(&self, file: &dyn DiskFile, pack: PackId, offset: u64) -> Result<Record, Error> {
        let corrupt = |e: Malformed| Error::Corrupt { what: e.0, pack, offset };
        let start = read(file, pack, offset, HEADER_FIXED_BYTES)?;
        let prefix = Prefix::decode(&start).map_err(corrupt)?;
        let head = read(file, pack, offset, prefix.header_len + 4)?;
        let header = decode_header(Place { uuid: self.uuid, pack, offset }, &head).map_err(corrupt)?;
        Ok(Record { offset, stored_len: prefix.stored_len(), header, body: Vec::new() })
    }

    fn with_body(&self, file: &dyn DiskFile, pack: PackId, mut record: Record) -> Result<Record, Error> {
        let corrupt = |e: Malformed| Error::Corrupt { what: e.0, pack, offset: record.offset };
        let prefix = Prefix {
            header_len: HEADER_FIXED_BYTES + record.header.fields.len(),
            body_len: record.header.body_len as usize,
        };
        let start = record.offset + prefix.header_len as u64 + 4;
        let mut bytes = read(file, pack, start, prefix.body_len + 8)?;
        let place = Place { uuid: self.uuid, pack, offset: record.offset };
        let len = check_body(place, &prefix, &bytes).map_err(corrupt)?.len();
        bytes.truncate(len);
        record.body = bytes;
        Ok(record)
    }

    /// Walks a pack from `from`. See `Walk`.
    pub fn walk(&self, pack: PackId, from: u64, bodies: bool) -> Result<Walk<'_>, Error> {
        let file = self.file(pack)?;
        let end = file.len().map_err(Error::io(format!("stat pack {pack}")))?;
        Ok(Walk { reader: self, file, pack, at: from, end, bodies })
    }

    /// The stream of a pack; `None` when its first record is damaged.
    pub fn stream(&self, pack: PackId) -> Option<Stream> {
        let file = self.file(pack).ok()?;
        let record = self.fetch_header(&*file, pack, 0).ok()?;
        if record.header.kind != RecordKind::Pack {
            return None;
        }
        PackHeader::decode(&record.header.fields).ok().filter(|h| h.pack == pack).map(|h| h.stream)
    }
}

/// Reads and checks a record that is in memory whole, with its padding.
pub(crate) fn record_in(uuid: Uuid, pack: PackId, offset: u64, bytes: &[u8]) -> Result<Record, Error> {
    let corrupt = |e: Malformed| Error::Corrupt { what: e.0, pack, offset };
    let prefix = Prefix::decode(bytes).map_err(corrupt)?;
    let place = Place { uuid, pack, offset };
    let (head, rest) = bytes.split_at_checked(prefix.header_len + 4).ok_or(corrupt(Malformed("record (cut off)")))?;
    let header = decode_header(place, head).map_err(corrupt)?;
    let body = check_body(place, &prefix, rest).map_err(corrupt)?.to_vec();
    Ok(Record { offset, stored_len: prefix.stored_len(), header, body })
}

/// What a walk meets.
#[derive(Debug)]
pub(crate) enum Met {
    Record(Record),
    /// Bytes that are no good record, up to the next good one or the end of the pack.
    Damage {
        offset: u64,
        len: u64,
        what: String,
        at_end: bool,
    },
}

/// Goes through all records of a pack in order. Damage is skipped: the next record is searched at every aligned offset by
/// magic and header check. With `bodies` false only headers are read and checked.
pub(crate) struct Walk<'a> {
    reader: &'a PackReader,
    file: Arc<dyn DiskFile>,
    pack: PackId,
    at: u64,
    end: u64,
    bodies: bool,
}

impl Walk<'_> {
    fn record_at(&self, at: u64) -> Result<Record, Error> {
        let record = self.reader.fetch_header(&*self.file, self.pack, at)?;
        if record.header.body_len as usize > BODY_BYTES_MAX
            || at + record.stored_len > self.end.next_multiple_of(RECORD_ALIGN)
        {
            return Err(Error::Corrupt { what: "record (cut off)", pack: self.pack, offset: at });
        }
        if self.bodies { self.reader.with_body(&*self.file, self.pack, record) } else { Ok(record) }
    }

    /// Offset of the next header that passes its check, at or after `from`.
    fn search(&self, from: u64) -> Result<Option<u64>, Error> {
        let mut at = from.next_multiple_of(RECORD_ALIGN);
        let mut window = vec![0; SEARCH_BYTES];
        while at < self.end {
            let got = self.file.read_at(&mut window, at).map_err(Error::io(format!("read pack {}", self.pack)))?;
            for (n, chunk) in window.get(..got).unwrap_or_default().chunks_exact(RECORD_ALIGN as usize).enumerate() {
                let offset = at + n as u64 * RECORD_ALIGN;
                if chunk == RECORD_MAGIC && self.reader.fetch_header(&*self.file, self.pack, offset).is_ok() {
                    return Ok(Some(offset));
                }
            }
            if got < window.len() {
                break;
            }
            at += got as u64;
        }
        Ok(None)
    }

    /// The next thing in the pack; `None` at its end.
    ///
    /// # Errors
    /// Only when the disk fails.
    pub fn next(&mut self) -> Result<Option<Met>, Error> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let why = match self.record_at(at) {
            Ok(record) => {
                self.at += record.stored_len;
                return Ok(Some(Met::Record(record)));
            }
            Err(Error::Corrupt { what, .. }) => what.to_string(),
            Err(e) => return Err(e),
        };
        // Where the header is good its length leads on; the record after it tells whether that can be believed.
        let next = self.search(at + RECORD_ALIGN)?;
        self.at = next.unwrap_or(self.end);
        Ok(Some(Met::Damage { offset: at, len: self.at - at, what: why, at_end: next.is_none() }))
    }
}

/// Removes a pack's file, and its parity. Durable after the directory is synced, which a stale pack can wait for.
pub(crate) fn remove(disk: &dyn Disk, pack: PackId) -> io::Result<()> {
    disk.remove(&path(pack))?;
    remove_parity(disk, pack)?;
    disk.sync_dir(&dir(pack))
}

/// Removes a pack's parity. True when there was one. Durable after the directory is synced.
fn remove_parity(disk: &dyn Disk, pack: PackId) -> io::Result<bool> {
    match disk.remove(&parity_path(pack)) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
