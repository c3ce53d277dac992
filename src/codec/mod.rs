//! One segment: classify, choose, encode, verify, decode.

use std::fmt;

use crate::base::{Class, MethodId};
use crate::format::Coding;

/// What bounds the choice of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Longest time one segment may take to decode on this machine, milliseconds.
    pub decode_ms_max: u32,
    /// Use this method only (still falling back to raw when it does not shrink); `None` tries all and takes the smallest.
    pub only: Option<MethodId>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { decode_ms_max: 2_000, only: None }
    }
}

/// A segment coded, decoded again and compared.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub coding: Coding,
    pub payload: Vec<u8>,
}

/// Why a segment could not be coded or decoded.
#[derive(Debug)]
pub enum Error {
    /// The method or revision is not known to this build.
    UnknownMethod { method: u16, revision: u16 },
    /// The payload is damaged, or does not give the bytes its header promises.
    Corrupt { what: &'static str },
    /// More plain bytes than a segment may have, or none.
    BadLength { len: u64 },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownMethod { method, revision } => {
                write!(f, "segment is coded by method {method} revision {revision}, which this build does not know")
            }
            Error::Corrupt { what } => write!(f, "segment does not decode: {what}"),
            Error::BadLength { len } => write!(f, "a segment cannot hold {len} bytes"),
        }
    }
}

impl std::error::Error for Error {}

/// Tells the kind of data from its first bytes (pass up to 64 KiB, or a whole small file).
pub fn classify(_sample: &[u8]) -> Class {
    todo!()
}

/// Plain bytes per segment of a class: a power of two from 64 KiB to 1 MiB.
pub fn segment_bytes(_class: Class) -> u32 {
    todo!()
}

/// Codes `raw` (1 to `SEGMENT_BYTES_MAX` bytes) by the smallest method within the policy, and proves that it decodes.
/// Never larger than `raw` itself: raw storage is always legal.
pub fn encode(_raw: &[u8], _class: Class, _policy: &Policy) -> Result<Encoded, Error> {
    todo!()
}

/// Decodes a payload and checks it against the plain hash. Never returns bytes that fail the check, never panics.
pub fn decode(_coding: &Coding, _payload: &[u8]) -> Result<Vec<u8>, Error> {
    todo!()
}

/// Milliseconds that decoding `raw_len` bytes of `method` takes on this machine: a measured rate, refined as decodes happen.
pub fn predicted_decode_ms(_method: MethodId, _raw_len: u32) -> u32 {
    todo!()
}
