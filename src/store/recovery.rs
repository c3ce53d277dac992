//! From packs to an index: where the log begins, what is replayed, what is done about damage.

use super::error::Error;
use super::index::Index;
use super::keys::{self, Highest, POSITION};
use super::pack::{self, Met, PackReader};
use crate::base::PackId;
use crate::format::{RecordKind, SnapshotEnd, Stream, decode_ops};
use crate::host::Disk;

/// What opening found and did.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Metadata transactions applied from packs.
    pub replayed: u64,
    /// True when the index was made anew.
    pub rebuilt: bool,
    /// Sentences about the superblock and its copy. A writable open has mended them.
    pub superblock: Vec<String>,
    /// Sentences about damage found on the way, one each: what, pack, offset.
    pub damage: Vec<String>,
}

/// The log of a new store begins in this pack, without a snapshot.
const FIRST_PACK: PackId = PackId(1);
/// Sentences about damage kept; more are counted in the last one.
const DAMAGE_MAX: usize = 1000;

impl Recovery {
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
}

impl Position {
    pub fn encode(&self) -> Vec<u8> {
        [self.pack, self.last_offset, self.txid, self.next_offset, self.next_ino, self.next_serial, self.inodes]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect()
    }

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
        };
        (bytes.len() == 56).then_some(p)
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
}

/// Bytes of a pack's first record, at most. Only when that one is on disk does another follow.
const FIRST_RECORD_BYTES_MAX: u64 = 256;

/// True when a pack is no longer than its first record and holds none that is good.
fn is_unfinished(reader: &PackReader, id: PackId) -> Result<bool, Error> {
    let len = reader.file(id)?.len().map_err(Error::io(format!("stat pack {id}")))?;
    Ok(len <= FIRST_RECORD_BYTES_MAX && tail_of(reader, id)? == 0)
}

/// Finds all packs and sorts them by stream.
pub(crate) fn sort_packs(disk: &dyn Disk, reader: &PackReader, recovery: &mut Recovery) -> Result<Packs, Error> {
    let mut packs = Packs::default();
    for id in pack::list(disk)? {
        packs.highest = packs.highest.max(id.0);
        match reader.stream(id) {
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

/// Takes the log into the index: from `position`, or from the newest snapshot (or the first meta pack) without one.
/// Returns where the log ends, and the pack it ends in.
pub(crate) fn replay(
    index: &Index,
    reader: &PackReader,
    packs: &Packs,
    position: Option<Position>,
    recovery: &mut Recovery,
) -> Result<Position, Error> {
    let mut meta: Vec<PackId> = packs.meta.iter().chain(&packs.unknown).copied().collect();
    meta.sort();
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
    for id in meta.into_iter().filter(|id| *id >= first) {
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
                        recovery.note(format!("pack {id} offset {offset}: {len} bytes of metadata are lost: {what}"));
                    }
                    continue;
                }
            };
            let mut highest = Highest::default();
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
                RecordKind::Pack => {}
                RecordKind::Segment => continue,
            }
            if matches!(record.header.kind, RecordKind::Meta | RecordKind::Snapshot) {
                let ops = record.plain(id).and_then(|body| decode_ops(&body).map_err(keys::bad));
                match ops {
                    Ok(ops) => keys::apply(index, &ops, &mut highest)?,
                    Err(e) => {
                        recovery.note(format!("pack {id} offset {}: metadata is lost: {e}", record.offset));
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
