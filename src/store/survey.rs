//! All records of a store, one by one and past damage, for tools that check and show. Never writes.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::error::Error;
use super::pack::{self, Met, PackReader};
use crate::base::{PackId, SegmentRef, Uuid};
use crate::format::{MetaOp, RecordKind, SegmentHeader, SnapshotEnd, Stream, Superblock, decode_ops};
use crate::host::Disk;

/// One thing in a pack.
#[derive(Clone, Debug)]
pub enum RecordSummary {
    Pack {
        stream: Option<Stream>,
    },
    /// A segment, its header, and its payload when it was asked for.
    Segment {
        at: SegmentRef,
        header: SegmentHeader,
        payload: Option<Vec<u8>>,
    },
    Meta {
        txid: u64,
        ops: Vec<MetaOp>,
    },
    Snapshot {
        txid: u64,
        ops: Vec<MetaOp>,
    },
    SnapshotEnd {
        records: u64,
    },
    /// Bytes that are no good record. At the end of a pack they are a write that was cut off.
    Damage {
        len: u64,
        what: String,
        at_end: bool,
    },
}

/// A store looked at from outside, without its index and without its lock.
pub struct Survey {
    disk: Arc<dyn Disk>,
    reader: PackReader,
    pub superblock: Superblock,
}

impl Survey {
    pub fn open(disk: Arc<dyn Disk>) -> Result<Survey, Error> {
        let superblock = super::superblock::find(&*disk)?.block;
        Ok(Survey { reader: PackReader::new(disk.clone(), superblock.uuid), disk, superblock })
    }

    pub fn uuid(&self) -> Uuid {
        self.superblock.uuid
    }

    /// All packs with their stream (`None` when the first record is damaged) and bytes, ascending.
    pub fn packs(&self) -> Result<Vec<(PackId, Option<Stream>, u64)>, Error> {
        let mut out = Vec::new();
        for id in pack::list(&*self.disk)? {
            let file = match self.reader.file(id) {
                // Deleted since it was listed.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let len = file.len().map_err(Error::io(format!("stat pack {id}")))?;
            out.push((id, self.reader.stream(id), len));
        }
        Ok(out)
    }

    /// Calls `f` with every record of a pack, its offset and its bytes. With `payloads` bodies of segments are read and
    /// checked too.
    pub fn walk(
        &self,
        id: PackId,
        payloads: bool,
        mut f: impl FnMut(u64, u64, RecordSummary) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.walk_from(id, 0, payloads, |offset, len, record| f(offset, len, record).map(ControlFlow::Continue))
    }

    /// As `walk`, from the record at `from`, until `f` breaks off.
    pub fn walk_from(
        &self,
        id: PackId,
        from: u64,
        payloads: bool,
        mut f: impl FnMut(u64, u64, RecordSummary) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let meta = self.reader.stream(id) != Some(Stream::Data);
        let mut walk = self.reader.walk(id, from, payloads || meta)?;
        while let Some(met) = walk.next()? {
            match met {
                Met::Damage { offset, len, what, at_end } => {
                    if f(offset, len, RecordSummary::Damage { len, what, at_end })?.is_break() {
                        return Ok(());
                    }
                }
                Met::Record(record) => {
                    let (offset, len) = (record.offset, record.stored_len);
                    let damage = |what: String| RecordSummary::Damage { len, what, at_end: false };
                    let ops = |record: &pack::Record| -> Result<Vec<MetaOp>, String> {
                        let body = record.plain(id).map_err(|e| e.to_string())?;
                        decode_ops(&body).map_err(|e| e.to_string())
                    };
                    let summary = match record.header.kind {
                        RecordKind::Pack => RecordSummary::Pack { stream: self.reader.stream(id) },
                        RecordKind::Segment => match SegmentHeader::decode(&record.header.fields) {
                            Ok(header) => RecordSummary::Segment {
                                at: SegmentRef { pack: id, offset, stored_len: len as u32 },
                                header,
                                payload: (payloads || meta).then_some(record.body),
                            },
                            Err(e) => damage(e.to_string()),
                        },
                        RecordKind::Meta => match ops(&record) {
                            Ok(ops) => RecordSummary::Meta { txid: record.header.txid, ops },
                            Err(e) => damage(e),
                        },
                        RecordKind::Snapshot => match ops(&record) {
                            Ok(ops) => RecordSummary::Snapshot { txid: record.header.txid, ops },
                            Err(e) => damage(e),
                        },
                        RecordKind::SnapshotEnd => match SnapshotEnd::decode(&record.header.fields) {
                            Ok(end) => RecordSummary::SnapshotEnd { records: end.records },
                            Err(e) => damage(e.to_string()),
                        },
                    };
                    if f(offset, len, summary)?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
