//! From packs to an index: where the log begins, what is replayed, what is done about damage.

use super::error::Error;
use super::index::Index;
use super::keys::{self, Highest, POSITION};
use super::pack::{self, Met, PackReader};
use super::parity;
use crate::base::PackId;
use crate::format::{MetaHeader, PackHeader, RecordKind, SnapshotEnd, Stream, decode_ops};
use crate::host::{Disk, OpenMode};

/// What opening found and did.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Metadata transactions applied from packs.
    pub replayed: u64,
    /// True when the index was made anew.
    pub rebuilt: bool,
    /// Sentences about the superblock and its copy. A writable open has mended them.
    pub superblock: Vec<String>,
    /// True when the log was ended before transactions that a power cut left behind a lost one. None of them was synced.
    pub cut: bool,
    /// Sentences about damage found on the way, one each: what, pack, offset.
    pub damage: Vec<String>,
    /// True when metadata was lost at an earlier opening and nothing was repaired since.
    pub lost_before: bool,
}

/// File in the store that says that metadata was lost: until a repair, what nobody names is kept. The log that is written
/// after the damage does not show it any more.
pub(crate) const LOST_FILE: &str = "metadata-lost";

/// The log of a new store begins in this pack, without a snapshot.
const FIRST_PACK: PackId = PackId(1);
/// Sentences about damage kept; more are counted in the last one.
const DAMAGE_MAX: usize = 1000;

impl Recovery {
    /// True when files may have lost their metadata: what belongs to none may be all that is left of one.
    pub fn has_lost_metadata(&self) -> bool {
        self.lost_before || !self.damage.is_empty()
    }

    /// Remembers a loss in the store, for openings that will not meet the damage again.
    ///
    /// # Durability
    /// On disk at return.
    pub(crate) fn remember(&mut self, disk: &dyn Disk, read_only: bool) -> Result<(), Error> {
        let fail = || Error::io(format!("note in {LOST_FILE} that metadata was lost"));
        self.lost_before = disk.list("").map_err(fail())?.iter().any(|name| name == LOST_FILE);
        if self.lost_before {
            log::warn!(
                "metadata was lost before, and staged files that nobody names are kept: run `tersefs fsck --repair`"
            );
        } else if !read_only && !self.damage.is_empty() {
            let file = disk.open(LOST_FILE, OpenMode::Create).map_err(fail())?;
            file.sync_data().map_err(fail())?;
            disk.sync_dir("").map_err(fail())?;
        }
        Ok(())
    }

    pub(crate) fn note(&mut self, sentence: String) {
        log::warn!("{sentence}");
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(sentence);
        }
    }
}

/// How far the log has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Pack and offset of the last record taken in, and its txid: what proves that the log is the same one.
    pub pack: u64,
    pub last_offset: u64,
    pub txid: u64,
    /// Where to go on in that pack.
    pub next_offset: u64,
    pub next_ino: u64,
    pub next_serial: u64,
    pub inodes: u64,
    /// Keys of the index may be newer: a checkpoint has begun and not ended.
    pub behind: bool,
}

/// Which keys an index has. One of another layout is made anew: 1 had no `G`, `L`, `M` and `R`, and no number here; 2 had
/// no sums of what is shared in `L`.
const INDEX_LAYOUT: u64 = 3;

impl Position {
    /// Nine numbers of 8 bytes: the fields in their order, then the layout.
    pub fn encode(&self) -> Vec<u8> {
        [
            self.pack,
            self.last_offset,
            self.txid,
            self.next_offset,
            self.next_ino,
            self.next_serial,
            self.inodes,
            u64::from(self.behind),
            INDEX_LAYOUT,
        ]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect()
    }

    /// `None` for an index of another layout too.
    pub fn decode(bytes: &[u8]) -> Option<Position> {
        let mut n = bytes.chunks_exact(8).filter_map(|c| c.try_into().ok().map(u64::from_le_bytes));
        let p = Position {
            pack: n.next()?,
            last_offset: n.next()?,
            txid: n.next()?,
            next_offset: n.next()?,
            next_ino: n.next()?,
            next_serial: n.next()?,
            inodes: n.next()?,
            behind: n.next()? != 0,
        };
        (n.next()? == INDEX_LAYOUT && bytes.len() == 72).then_some(p)
    }

    fn learn(&mut self, highest: &Highest) {
        self.next_ino = self.next_ino.max(highest.ino + 1);
        self.next_serial = self.next_serial.max(highest.serial + 1);
        self.inodes = self.inodes.saturating_add_signed(highest.inodes);
    }
}

/// Packs of a store by stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packs {
    pub meta: Vec<PackId>,
    pub data: Vec<PackId>,
    /// Packs whose first record is damaged: read as both.
    pub unknown: Vec<PackId>,
    /// Packs that a crash cut off while they were made: nothing was ever in them.
    pub unfinished: Vec<PackId>,
    pub highest: u64,
    /// Damage may be mended from parity: the store is opened to be written.
    pub mend: bool,
}

/// Bytes of a pack's first record, at most. Only when that one is on disk does another follow.
const FIRST_RECORD_BYTES_MAX: u64 = 256;

/// True when a pack is no longer than its first record and holds none that is good.
fn is_unfinished(reader: &PackReader, id: PackId) -> Result<bool, Error> {
    let len = reader.file(id)?.len().map_err(Error::io(format!("stat pack {id}")))?;
    Ok(len <= FIRST_RECORD_BYTES_MAX && tail_of(reader, id)? == 0)
}

/// Finds all packs and sorts them by stream.
pub(crate) fn sort_packs(
    disk: &dyn Disk,
    reader: &PackReader,
    mend: bool,
    recovery: &mut Recovery,
) -> Result<Packs, Error> {
    let mut packs = Packs { mend, ..Packs::default() };
    for id in pack::list(disk)? {
        packs.highest = packs.highest.max(id.0);
        let mended = || (mend && parity::mend_at_open(reader, id)).then(|| reader.stream(id)).flatten();
        match reader.stream(id).or_else(mended) {
            Some(Stream::Meta) => packs.meta.push(id),
            Some(Stream::Data) => packs.data.push(id),
            None if is_unfinished(reader, id)? => {
                log::info!("pack {id} was never finished");
                packs.unfinished.push(id);
            }
            None => {
                recovery.note(format!("the first record of pack {id} is damaged"));
                packs.unknown.push(id);
            }
        }
    }
    Ok(packs)
}

/// True when the pack holds a snapshot and its end.
fn has_snapshot(reader: &PackReader, id: PackId) -> Result<bool, Error> {
    let mut walk = reader.walk(id, 0, false)?;
    let mut records = 0;
    while let Some(met) = walk.next()? {
        if let Met::Record(record) = met {
            match record.header.kind {
                RecordKind::Snapshot => records += 1,
                RecordKind::SnapshotEnd => {
                    return Ok(SnapshotEnd::decode(&record.header.fields).is_ok_and(|end| end.records <= records));
                }
                RecordKind::Meta => return Ok(false),
                RecordKind::Pack | RecordKind::Segment => {}
            }
        }
    }
    Ok(false)
}

/// Bytes of the newest snapshot of the log; nothing before the first.
pub(crate) fn snapshot_bytes(reader: &PackReader, packs: &Packs) -> Result<u64, Error> {
    for id in packs.meta.iter().rev() {
        if has_snapshot(reader, *id)? {
            return reader.file(*id)?.len().map_err(Error::io(format!("stat pack {id}")));
        }
    }
    Ok(0)
}

/// The position the index was left at, when the log proves that it belongs to it.
pub(crate) fn position_of(index: &Index, reader: &PackReader) -> Result<Option<Position>, Error> {
    let Some(position) = index.get(POSITION)?.and_then(|v| Position::decode(&v)) else { return Ok(None) };
    match reader.fetch(PackId(position.pack), position.last_offset) {
        Ok(record) if record.header.txid == position.txid => Ok(Some(position)),
        Ok(_) | Err(Error::Corrupt { .. }) => Ok(None),
        // The pack is gone: the index belongs to another time of this store.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the records behind a gap of the log say of what was on disk when they were written.
struct Claims {
    /// All transactions up to this one were synced once.
    synced: u64,
    /// The last transaction of a build that said nothing of it.
    silent: u64,
}

impl Claims {
    /// Reads the rest of the log: `first` from `offset`, and all packs of `later`. Headers are enough: what they say is true
    /// whatever became of the body.
    fn read(reader: &PackReader, first: PackId, offset: u64, later: &[PackId]) -> Result<Claims, Error> {
        let mut claims = Claims { synced: 0, silent: 0 };
        for (id, from) in std::iter::once((first, offset)).chain(later.iter().map(|id| (*id, 0))) {
            let mut walk = reader.walk(id, from, false)?;
            while let Some(met) = walk.next()? {
                let Met::Record(record) = met else { continue };
                let (txid, fields) = (record.header.txid, &record.header.fields);
                match record.header.kind {
                    RecordKind::Meta => match MetaHeader::decode(fields) {
                        Ok(Some(header)) => claims.synced = claims.synced.max(txid.saturating_sub(header.unsynced)),
                        Ok(None) | Err(_) => claims.silent = claims.silent.max(txid),
                    },
                    // A meta pack is begun when all before it is on disk.
                    RecordKind::Pack if PackHeader::decode(fields).is_ok_and(|h| h.stream == Stream::Meta) => {
                        claims.synced = claims.synced.max(txid);
                    }
                    RecordKind::Pack | RecordKind::Segment | RecordKind::Snapshot | RecordKind::SnapshotEnd => {}
                }
            }
        }
        Ok(claims)
    }

    /// True when nothing from transaction `txid` on was ever synced.
    fn unsynced_from(&self, txid: u64) -> bool {
        self.synced < txid && self.silent < txid
    }
}

/// Takes the log into the index: from `position`, or from the newest snapshot (or the first meta pack) without one.
/// Returns where the log ends, and the pack it ends in.
///
/// Where transactions are missing, the records behind say whether they were synced once. If so it is rot: it is noted and
/// the rest is applied. If not, a power cut left a later write and lost an earlier one: the log ends before the gap.
pub(crate) fn replay(
    index: &Index,
    reader: &PackReader,
    packs: &Packs,
    position: Option<Position>,
    recovery: &mut Recovery,
) -> Result<Position, Error> {
    let mut meta: Vec<PackId> = packs.meta.iter().chain(&packs.unknown).copied().collect();
    meta.sort();
    for id in meta.iter().filter(|id| packs.mend && position.is_none_or(|p| id.0 >= p.pack)) {
        parity::mend_at_open(reader, *id);
    }
    let mut at = position.unwrap_or(Position { next_ino: 2, next_serial: 3, ..Position::default() });
    let first = match position {
        Some(p) => PackId(p.pack),
        None => {
            let mut first = meta.first().copied().unwrap_or_default();
            for id in meta.iter().rev() {
                if has_snapshot(reader, *id)? {
                    first = *id;
                    break;
                }
            }
            first
        }
    };
    let oldest = meta.first().copied().unwrap_or_default();
    meta.retain(|id| *id >= first);
    let mut claims: Option<Claims> = None;
    let mut begun = position.is_some();
    for (n, id) in meta.iter().copied().enumerate() {
        let later = meta.get(n + 1..).unwrap_or_default();
        let mut ends_before = |txid: u64, offset: u64| -> Result<bool, Error> {
            let read = match claims.take() {
                Some(read) => read,
                None => Claims::read(reader, id, offset, later)?,
            };
            Ok(claims.insert(read).unsynced_from(txid))
        };
        // Damage since the last good record. The next one tells what was in it.
        let mut damage: Option<String> = None;
        let from = match position {
            Some(p) if PackId(p.pack) == id => p.next_offset,
            _ => 0,
        };
        let mut complete = from > 0 || has_snapshot(reader, id)?;
        if !complete && id == oldest && id != FIRST_PACK {
            // The log before it was deleted, so this snapshot was whole once: what is left of it is all there is.
            recovery.note(format!("the snapshot in pack {id} is damaged: some metadata is lost"));
            complete = true;
        }
        let mut walk = reader.walk(id, from, true)?;
        while let Some(met) = walk.next()? {
            let record = match met {
                Met::Record(record) => record,
                Met::Damage { offset, len, what, at_end } => {
                    if at_end {
                        log::info!("pack {id} ends in {len} bytes that were never finished ({what})");
                    } else {
                        let what = format!("pack {id} offset {offset}: {len} bytes of metadata are lost: {what}");
                        damage.get_or_insert(what);
                    }
                    continue;
                }
            };
            let mut highest = Highest::default();
            let before = match record.header.kind {
                RecordKind::Segment => continue,
                RecordKind::Meta => record.header.txid.saturating_sub(1),
                RecordKind::Pack | RecordKind::Snapshot | RecordKind::SnapshotEnd => record.header.txid,
            };
            let missing = begun && before > at.txid;
            if missing && ends_before(at.txid + 1, record.offset)? {
                log::info!("pack {id} ends at offset {}: what lies behind was never synced", at.next_offset);
                recovery.cut = true;
                return Ok(at);
            }
            let is_snapshot = matches!(record.header.kind, RecordKind::Snapshot | RecordKind::SnapshotEnd);
            match damage.take() {
                // A snapshot without its end is passed over, whole or not.
                Some(_) if is_snapshot && !complete => {}
                Some(what) => recovery.note(what),
                None if missing => recovery.note(format!(
                    "transactions {} to {before} are lost: pack {id} offset {} goes on behind them",
                    at.txid + 1,
                    record.offset
                )),
                None => {}
            }
            begun = true;
            match record.header.kind {
                RecordKind::Meta => {}
                // Without its end a snapshot is not the whole state; the packs before it still are.
                RecordKind::Snapshot if complete => {}
                RecordKind::Snapshot => continue,
                RecordKind::SnapshotEnd => {
                    if let Ok(end) = SnapshotEnd::decode(&record.header.fields) {
                        at.next_ino = at.next_ino.max(end.next_ino);
                        at.next_serial = at.next_serial.max(end.next_serial);
                    }
                }
                RecordKind::Pack | RecordKind::Segment => {}
            }
            if matches!(record.header.kind, RecordKind::Meta | RecordKind::Snapshot) {
                let ops = record.plain(id).and_then(|body| decode_ops(&body).map_err(keys::bad));
                match ops {
                    Ok(ops) => keys::apply(index, &ops, &mut highest)?,
                    Err(e) => {
                        recovery.note(format!("pack {id} offset {}: metadata is lost: {e}", record.offset));
                        // Known and told, so that the next record is not taken for one behind a gap.
                        at.txid = at.txid.max(record.header.txid);
                        continue;
                    }
                }
                recovery.replayed += u64::from(record.header.kind == RecordKind::Meta);
            }
            at.learn(&highest);
            at.pack = id.0;
            at.last_offset = record.offset;
            at.txid = at.txid.max(record.header.txid);
            at.next_offset = record.offset + record.stored_len;
            if index.is_overfull() {
                // A long log is taken in by parts, so that memory stays bounded. What the next open does not read again is not
                // lost without a trace by that.
                if !recovery.damage.is_empty() {
                    recovery.remember(&*reader.disk, false)?;
                }
                match index.freeze().write_out(&Position { behind: index.is_behind(), ..at }) {
                    Err(e) if e.is_refusal() => log::warn!("the index stays in memory until the next mount: {e}"),
                    other => other?,
                }
            }
        }
    }
    Ok(at)
}

/// End of the last good record of a pack, by its headers; the last body is checked too, since a torn write may end in it.
pub(crate) fn tail_of(reader: &PackReader, id: PackId) -> Result<u64, Error> {
    let mut walk = reader.walk(id, 0, false)?;
    let (mut tail, mut last) = (0, None);
    while let Some(met) = walk.next()? {
        if let Met::Record(record) = met {
            tail = record.offset + record.stored_len;
            last = Some(record.offset);
        }
    }
    match last {
        Some(offset) => match reader.fetch(id, offset) {
            Ok(_) => Ok(tail),
            Err(Error::Corrupt { .. }) => Ok(offset),
            Err(e) => Err(e),
        },
        None => Ok(0),
    }
}
