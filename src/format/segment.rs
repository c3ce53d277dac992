//! Header of one coded segment.

use crate::base::{Class, Ino, PlainHash};

/// How the payload of a segment is coded, and what must come out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coding {
    /// Number of the method (`base::MethodId`); kept as a number so that a header of a newer build can still be shown.
    pub method: u16,
    /// Revision of the method's output; old revisions keep decoding.
    pub revision: u16,
    /// Numeric profile: 0 means integers only.
    pub profile: u8,
    /// Class of the data, informative.
    pub class: Class,
    /// Plain bytes, at most `SEGMENT_BYTES_MAX`.
    pub raw_len: u32,
    /// Fingerprint of the model's weights; zero for models that are part of the method.
    pub model: [u8; 16],
    /// BLAKE3-128 of the plain bytes.
    pub plain_hash: PlainHash,
}

/// Which bytes of which file a part of a segment was made from. A bundle of small files has one owner per file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub ino: Ino,
    /// Offset in the file, bytes.
    pub file_offset: u64,
    /// Offset in the plain bytes of the segment.
    pub segment_offset: u32,
    /// Bytes.
    pub len: u32,
}

/// Everything known of a segment without decoding it. Owners let a rebuild place segments whose metadata is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub coding: Coding,
    pub owners: Vec<Owner>,
}
