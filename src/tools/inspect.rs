//! `inspect`: shows the superblock, packs and records of a store, damaged ones too. Never writes, drops nothing.

use std::sync::Arc;

use serde::Serialize;

use crate::base::{Class, MethodId, PlainHash};
use crate::format::MetaOp;
use crate::host::Disk;
use crate::store::{Error, RecordSummary, Survey};

/// One line of the dump.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum InspectLine {
    Superblock {
        version: u32,
        compat: u64,
        ro_compat: u64,
        incompat: u64,
        uuid: String,
        created: i64,
    },
    Pack {
        pack: u64,
        stream: String,
        bytes: u64,
    },
    Segment {
        pack: u64,
        offset: u64,
        bytes: u64,
        method: String,
        revision: u16,
        class: String,
        plain_bytes: u32,
        plain_hash: String,
        /// Hash of the plain bytes that it was coded from.
        #[serde(skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
        /// inode, offset in the file, offset in the segment, bytes
        owners: Vec<(u64, u64, u32, u32)>,
    },
    Meta {
        pack: u64,
        offset: u64,
        bytes: u64,
        txid: u64,
        ops: Vec<String>,
    },
    Snapshot {
        pack: u64,
        offset: u64,
        bytes: u64,
        txid: u64,
        ops: Vec<String>,
    },
    SnapshotEnd {
        pack: u64,
        offset: u64,
        records: u64,
    },
    Damage {
        pack: u64,
        offset: u64,
        bytes: u64,
        what: String,
        at_end: bool,
    },
}

fn hex(hash: &PlainHash) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn op(op: &MetaOp) -> String {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    match op {
        MetaOp::PutInode(r) => {
            let staged = r
                .staging
                .map_or(String::new(), |s| format!(" staged {} growing {} sealed {}", s.epoch, s.growing, s.sealed));
            format!("inode {} {:?} {:o} size {} links {}{staged}", r.ino, r.kind, r.mode, r.size, r.nlink)
        }
        MetaOp::RemoveInode(ino) => format!("remove inode {ino}"),
        MetaOp::PutDentry { parent, name, dentry } => format!("name {parent}/{} = {}", text(name), dentry.ino),
        MetaOp::RemoveDentry { parent, name } => format!("remove name {parent}/{}", text(name)),
        MetaOp::PutExtent { ino, extent: e } => {
            let from = e.reference.map_or(String::new(), |r| format!(" from {}", r.segment));
            format!("extent {ino} {}+{} = {} +{}{from}", e.file_offset, e.len, e.segment, e.segment_offset)
        }
        MetaOp::RemoveExtents { ino, start, end } => format!("remove extents {ino} {start}..{end}"),
        MetaOp::PutXattr { ino, name, value } => format!("xattr {ino} {} ({} bytes)", text(name), value.len()),
        MetaOp::RemoveXattr { ino, name } => format!("remove xattr {ino} {}", text(name)),
        MetaOp::PutSeal { ino, group, sums } => format!("seal {ino} group {group} ({} checksums)", sums.len()),
        MetaOp::RemoveSeals { ino } => format!("remove seals {ino}"),
    }
}

/// Calls `show` with every line.
pub fn inspect(disk: Arc<dyn Disk>, mut show: impl FnMut(InspectLine)) -> Result<(), Error> {
    let survey = Survey::open(disk)?;
    let s = survey.superblock;
    show(InspectLine::Superblock {
        version: s.version,
        compat: s.compat,
        ro_compat: s.ro_compat,
        incompat: s.incompat,
        uuid: s.uuid.to_string(),
        created: s.created,
    });
    for (id, stream, bytes) in survey.packs()? {
        let stream = stream.map_or("damaged".to_string(), |s| format!("{s:?}").to_lowercase());
        show(InspectLine::Pack { pack: id.0, stream, bytes });
        let pack = id.0;
        survey.walk(id, false, |offset, bytes, record| {
            match record {
                RecordSummary::Pack { .. } => {}
                RecordSummary::Segment { header, .. } => {
                    let c = header.coding;
                    show(InspectLine::Segment {
                        pack,
                        offset,
                        bytes,
                        method: MethodId::from_u16(c.method).map_or_else(|| c.method.to_string(), |m| m.name().into()),
                        revision: c.revision,
                        class: Class::name(c.class).to_string(),
                        plain_bytes: c.raw_len,
                        plain_hash: hex(&c.plain_hash),
                        reference: c.reference.as_ref().map(hex),
                        owners: header
                            .owners
                            .iter()
                            .map(|o| (o.ino.0, o.file_offset, o.segment_offset, o.len))
                            .collect(),
                    });
                }
                RecordSummary::Meta { txid, ops } => {
                    show(InspectLine::Meta { pack, offset, bytes, txid, ops: ops.iter().map(op).collect() });
                }
                RecordSummary::Snapshot { txid, ops } => {
                    show(InspectLine::Snapshot { pack, offset, bytes, txid, ops: ops.iter().map(op).collect() });
                }
                RecordSummary::SnapshotEnd { records } => show(InspectLine::SnapshotEnd { pack, offset, records }),
                RecordSummary::Damage { len, what, at_end } => {
                    show(InspectLine::Damage { pack, offset, bytes: len, what, at_end });
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
