//! Ids, ranges, units, checksums and closed sets that every room may name.
//!
//! Must not know: files, the kernel, any other room. No I/O happens here.
//! Invariants: ids are newtypes, on-disk widths are fixed, nothing here allocates without a bound given by its caller.

mod checksum;
mod ids;
mod range;
mod varint;

pub use checksum::{PlainHash, crc32c, crc32c_append, plain_hash};
pub use ids::{Class, Generation, Ino, MethodId, ModelId, PackId, SegmentRef, TxId, Uuid};
pub use range::{ByteRange, RangeSet};
pub use varint::{put_varint, take_varint};

/// Largest raw size of one segment, bytes. Every header that claims more is refused before anything is allocated.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 20;

/// A data pack is closed when it grows beyond this, bytes, unless told otherwise.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
