//! Every byte of the envelope on disk: superblock, pack records, segment headers, metadata operations.
//!
//! Must not know: files, packs as files, models. It turns values into bytes and bytes into values.

mod meta;
mod segment;

pub use meta::{Dentry, Extent, FileKind, InodeRecord, MetaOp, Staging, Time};
pub use segment::{Coding, Owner, SegmentHeader};
