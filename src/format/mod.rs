//! Every byte of the envelope on disk: superblock, pack records, segment headers, metadata operations.
//!
//! Must not know: files, packs as files, models. It turns values into bytes and bytes into values.
//! Invariants: fixed fields are little-endian, everything else is LEB128; bytes from outside give a value or
//! `Malformed`, never a panic and never an allocation beyond a bound named here; golden bytes in
//! `tests/t1_format.rs` pin every layout.
//!
//! # A store on disk
//! ```text
//! FORMAT, FORMAT.copy         superblock, twice (superblock.rs)
//! metadata-lost               metadata was lost and not repaired since (store/recovery.rs)
//! LOCK                        flock: shared by readers, exclusive for a mount
//! packs/<xx>/pack-<16 hex>.tpk  records (record.rs), append-only; <xx> = low byte of the number
//! packs/<xx>/pack-<16 hex>.par  parity of a pack, optional (parity.rs)
//! staging/<ino>.<epoch>       plain bytes not coded yet (volume room)
//! index/                      derived, may be deleted at any time (store/index.rs)
//! index.bad-<n>/              an index that failed, kept for a look
//! index.new/                  a smaller copy of it that takes its place at the next mount; .draft and .old on the way
//! control.sock                commands to the daemon
//! cache/<32 hex>-<n>-<n>      decoded copies, may be deleted at any time (volume room)
//! ```
//! A pack of stream *data* holds PACK, then SEGMENT records. A pack of stream *meta* holds PACK, then META records; or
//! PACK, SNAPSHOT records and SNAPSHOT_END. Packs are numbered in the order of their creation and never reused. The
//! state of the volume is: the newest meta pack with a complete snapshot (or nothing), then all META records of later
//! meta packs, in order.

mod meta;
mod ops;
mod parity;
mod record;
mod segment;
mod superblock;
mod wire;

pub use meta::{
    Dentry, Extent, FileKind, InodeRecord, MetaOp, Reference, SEAL_GRAIN_BYTES, SEAL_GRAINS, Staging, Time,
};
pub use ops::{
    decode_dentry, decode_extent, decode_inode, decode_ops, decode_seal, encode_dentry, encode_extent, encode_inode,
    encode_ops, encode_seal,
};
pub use parity::{PARITY_HEADER_BYTES, ParityHeader, SHARD_BYTES_MAX, SHARDS_MAX};
pub use record::{
    BODY_BYTES_MAX, HEADER_BYTES_MAX, HEADER_FIXED_BYTES, MetaHeader, PackHeader, Place, Prefix, RECORD_ALIGN,
    RECORD_MAGIC, RecordHeader, RecordKind, SnapshotEnd, Stream, check_body, decode_header, encode_record,
    uuid_of_first_record,
};
pub use segment::{Coding, Owner, SegmentHeader};
pub use superblock::{
    FORMAT_VERSION, INCOMPAT_LANGUAGES, INCOMPAT_MODELS, INCOMPAT_REFERENCES, INCOMPAT_SEALS, SUPERBLOCK_BYTES,
    Superblock, Usable,
};
pub use wire::Malformed;
