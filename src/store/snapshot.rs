//! Compaction of the metadata log: all live metadata written anew, sorted and compressed, then the old log deleted.
//!
//! Steps, each durable before the next: the log goes on in a new pack N+1 and the index is frozen in the same moment;
//! the frozen state is written to pack N; the index learns that it stands at the start of N+1; packs before N go.
//! A crash leaves either the old packs (N is incomplete and is passed over) or a complete N.

use std::sync::atomic::Ordering;

use super::error::Error;
use super::index::{Frozen, Pair};
use super::keys::{self, bad, last_number};
use super::pack::{self, ActivePack};
use super::{Position, Store};
use crate::base::{Ino, PackId};
use crate::format::{
    MetaOp, RecordKind, SnapshotEnd, Stream, decode_dentry, decode_extent, decode_inode, decode_seal, encode_ops,
};

/// The log is compacted when it is this many times its size after the last compaction.
pub(super) const GROWTH_ONLINE: u64 = 4;
pub(super) const GROWTH_AT_CLOSE: u64 = 2;
/// Smaller logs are left alone, bytes.
const LOG_BYTES_MIN: u64 = 128 << 10;
/// Operations in one SNAPSHOT record: what one damaged record loses.
const OPS_PER_RECORD: usize = 1024;
/// Keys read at a time.
const KEYS_PER_PAGE: usize = 4096;
/// zstd level of a snapshot: written rarely, kept long.
const LEVEL: i32 = 12;

/// True when the log has grown enough since it was last compacted.
pub(super) fn is_due(store: &Store, growth: u64) -> bool {
    let bytes = store.usage().meta_bytes;
    let mut last = store.snapshot_bytes.load(Ordering::Relaxed);
    let (inodes, then) = (store.inodes.load(Ordering::Relaxed), store.snapshot_inodes.load(Ordering::Relaxed));
    if inodes < then {
        // Most may have been deleted since: what a compaction would leave shrinks with them.
        last = (u128::from(last) * u128::from(inodes) / u128::from(then)) as u64;
    }
    bytes > LOG_BYTES_MIN && bytes > growth * last
}

/// True when the filesystem has room for the old log beside the new one, with the space that is kept for coding.
pub(super) fn has_room(store: &Store) -> bool {
    store.has_room(store.usage().meta_bytes)
}

/// Compacts the log.
///
/// # Errors
/// `NoSpace` and `TooManyFiles` leave the old log in use, and the store goes on.
pub(super) fn compact(store: &Store) -> Result<(), Error> {
    let (frozen, position, snapshot, old) = {
        let mut log = store.log_lock();
        let snapshot = store.next_pack();
        let old = log.packs.clone();
        store.next_meta_pack(&mut log)?;
        (store.index.freeze(), store.position(&log), snapshot, old)
    };
    let bytes = match write(store, &frozen, snapshot, &position) {
        Err(e) if e.is_refusal() => {
            // Without its end it counts for nothing; the log that goes on in the pack after it needs the old packs.
            if let Err(e) = pack::remove(&*store.disk, snapshot) {
                log::warn!("cannot remove the unfinished metadata pack {snapshot}: {e}");
            }
            return Err(e);
        }
        other => other?,
    };
    if let Err(e) = frozen.write_out(&position) {
        // The index keeps its old position, which needs the old packs.
        log::warn!("the index was not brought up to date: {e}; the old metadata log is kept");
        return Ok(());
    }
    let mut freed = 0;
    for id in &old {
        freed += store.file_len(*id).unwrap_or(0);
        store.reader.close(*id);
        if let Err(e) = pack::remove(&*store.disk, *id) {
            log::warn!("cannot remove the old metadata pack {id}: {e}");
        }
    }
    let mut log = store.log_lock();
    log.packs.retain(|id| !old.contains(id));
    log.packs.push(snapshot);
    log.packs.sort();
    log.closed_bytes = log.closed_bytes.saturating_sub(freed) + bytes;
    store.snapshot_bytes.store(bytes, Ordering::Relaxed);
    store.snapshot_inodes.store(position.inodes, Ordering::Relaxed);
    Ok(())
}

/// Writes the frozen state as pack `id`; returns its bytes.
///
/// # Durability
/// On disk at return.
fn write(store: &Store, frozen: &Frozen<'_>, id: PackId, position: &Position) -> Result<u64, Error> {
    let mut pack = ActivePack::create(&*store.disk, store.uuid, id, Stream::Meta, position.txid)?;
    let mut records = 0;
    let mut pending: Vec<MetaOp> = Vec::new();
    let mut put = |ops: &mut Vec<MetaOp>, all: bool| -> Result<(), Error> {
        while ops.len() >= OPS_PER_RECORD || (all && !ops.is_empty()) {
            let rest = ops.split_off(ops.len().min(OPS_PER_RECORD));
            append(&mut pack, ops, position.txid, &mut records)?;
            *ops = rest;
        }
        Ok(())
    };
    // Extents and attributes go with their inode, names with their directory: neighbours look alike.
    let mut extents = Cursor::new(frozen, keys::EXTENT);
    let mut xattrs = Cursor::new(frozen, keys::XATTR);
    let mut seals = Cursor::new(frozen, keys::SEAL);
    each(frozen, keys::INODE, |_, value| {
        if store.index.is_closing() {
            return Err(Error::Closing);
        }
        let rec = decode_inode(value).map_err(bad)?;
        let (ino, sealed) = (rec.ino, rec.staging.is_some_and(|s| s.sealed));
        pending.push(MetaOp::PutInode(rec));
        while let Some((_, value)) = extents.next_of(ino)? {
            pending.push(MetaOp::PutExtent { ino, extent: decode_extent(&value).map_err(bad)? });
            put(&mut pending, false)?;
        }
        while let Some((name, value)) = xattrs.next_of(ino)? {
            pending.push(MetaOp::PutXattr { ino, name, value });
            put(&mut pending, false)?;
        }
        while let Some((group, value)) = seals.next_of(ino)? {
            if sealed {
                let (group, sums) = (last_number(&group)?, decode_seal(&value).map_err(bad)?);
                pending.push(MetaOp::PutSeal { ino, group, sums });
                put(&mut pending, false)?;
            }
        }
        put(&mut pending, false)
    })?;
    each(frozen, keys::COOKIE, |key, value| {
        let (name, dentry) = keys::decode_entry(value)?;
        let (parent, cookie) = key.split_first_chunk::<8>().ok_or_else(|| Error::Index("short key".into()))?;
        let parent = Ino(u64::from_be_bytes(*parent));
        let dentry = match dentry {
            Some(dentry) => dentry,
            None => {
                let dentry_key = keys::by_name(keys::DENTRY, parent.0, name);
                let mut end = dentry_key.clone();
                end.push(0);
                match frozen.range(&dentry_key, &end, 1)?.first() {
                    Some((_, value)) => decode_dentry(value).map_err(bad)?,
                    None => return Err(Error::Index("a cookie without its entry".into())),
                }
            }
        };
        if dentry.cookie == last_number(cookie)? {
            pending.push(MetaOp::PutDentry { parent, name: name.to_vec(), dentry });
        }
        put(&mut pending, false)
    })?;
    put(&mut pending, true)?;
    let end = SnapshotEnd { records, next_ino: position.next_ino, next_serial: position.next_serial };
    pack.append(RecordKind::SnapshotEnd, position.txid, &end.encode(), &[], None)?;
    pack.file.sync_data().map_err(Error::io(format!("sync pack {id}")))?;
    Ok(pack.tail)
}

fn append(pack: &mut ActivePack, ops: &[MetaOp], txid: u64, records: &mut u64) -> Result<(), Error> {
    let body = encode_ops(ops);
    let compressed = zstd::bulk::compress(&body, LEVEL).map_err(Error::io("compress metadata"))?;
    if compressed.len() < body.len() {
        pack.append(RecordKind::Snapshot, txid, &[], &compressed, Some(body.len() as u32))?;
    } else {
        pack.append(RecordKind::Snapshot, txid, &[], &body, None)?;
    }
    *records += 1;
    Ok(())
}

/// Calls `f` with each key (without its tag) and value of a tag.
fn each(frozen: &Frozen<'_>, tag: u8, mut f: impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let (mut from, end) = (vec![tag], vec![tag + 1]);
    loop {
        let page = frozen.range(&from, &end, KEYS_PER_PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &page {
            f(key.get(1..).unwrap_or_default(), value)?;
        }
    }
}

/// The keys of a tag, inode by inode, for a caller that goes through all inodes in their order: one pass over neighbours.
struct Cursor<'a, 'b> {
    frozen: &'a Frozen<'b>,
    from: Vec<u8>,
    end: Vec<u8>,
    page: std::iter::Peekable<std::vec::IntoIter<Pair>>,
}

impl<'a, 'b> Cursor<'a, 'b> {
    fn new(frozen: &'a Frozen<'b>, tag: u8) -> Cursor<'a, 'b> {
        Cursor { frozen, from: vec![tag], end: vec![tag + 1], page: Vec::new().into_iter().peekable() }
    }

    /// The next key (without tag and inode) and value of `ino`; those of inodes before it, which are gone, are passed over.
    fn next_of(&mut self, ino: Ino) -> Result<Option<Pair>, Error> {
        loop {
            if self.page.peek().is_none() {
                let page = self.frozen.range(&self.from, &self.end, KEYS_PER_PAGE)?;
                let Some((last, _)) = page.last() else { return Ok(None) };
                self.from.clone_from(last);
                self.from.push(0);
                self.page = page.into_iter().peekable();
            }
            let number = |key: &[u8]| key.get(1..9).and_then(|n| last_number(n).ok());
            match self.page.next_if(|(key, _)| number(key).is_none_or(|n| n <= ino.0)) {
                Some((key, value)) if number(&key) == Some(ino.0) => {
                    return Ok(Some((key.get(9..).unwrap_or_default().to_vec(), value)));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}
