//! Superblock: the file `FORMAT` of a store, and its copy `FORMAT.copy`.
//!
//! ```text
//! offset  width  field
//!      0     64  "tersefs store, format 1\n", padded with NUL: what `head -1` shows
//!     64      8  magic "TERSEFS\n"
//!     72      4  format version
//!     76      4  (zero)
//!     80      8  compat features: an older build may ignore them
//!     88      8  ro-compat features: an older build may only read
//!     96      8  incompat features: an older build must not open
//!    104     16  volume UUID
//!    120      8  time of creation, seconds since 1970
//!    128      8  bytes after which a pack is closed, when created
//!    136   3956  zero
//!   4092      4  CRC32C of bytes 0..4092
//! ```
//! Written by rename over its name, so that it is there whole or not at all: when the store is made, when a feature is
//! used for the first time, and when one of the two is found damaged.

use super::wire::Malformed;
use crate::base::{Uuid, crc32c};

/// Bytes of the superblock.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Version of the format that this build writes.
pub const FORMAT_VERSION: u32 = 1;
/// Features of each kind that this build knows.
const KNOWN_RO_COMPAT: u64 = 0;
const KNOWN_INCOMPAT: u64 = INCOMPAT_SEALS | INCOMPAT_MODELS | INCOMPAT_REFERENCES | INCOMPAT_LANGUAGES;
/// The log holds seals of staged bytes (`MetaOp::PutSeal`, `Staging::sealed`).
pub const INCOMPAT_SEALS: u64 = 1;
/// Segments name models of the volume (`Coding::model`), which are files in `models/`.
pub const INCOMPAT_MODELS: u64 = 2;
/// Segments were coded from others (`Coding::reference`, `Extent::reference`).
pub const INCOMPAT_REFERENCES: u64 = 4;
/// Segments may be coded by language models, which are directories in `languages/`.
pub const INCOMPAT_LANGUAGES: u64 = 8;
const MAGIC: &[u8; 8] = b"TERSEFS\n";
const CRC_AT: usize = SUPERBLOCK_BYTES - 4;

/// Identity and format of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    pub version: u32,
    pub compat: u64,
    pub ro_compat: u64,
    pub incompat: u64,
    pub uuid: Uuid,
    /// Seconds since 1970.
    pub created: i64,
    pub pack_bytes_max: u64,
}

/// What this build may do with a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Usable {
    ReadWrite,
    /// The sentence says why.
    ReadOnly(String),
    No(String),
}

impl Superblock {
    /// A new store of the current version.
    pub fn new(uuid: Uuid, created: i64, pack_bytes_max: u64) -> Superblock {
        Superblock { version: FORMAT_VERSION, compat: 0, ro_compat: 0, incompat: 0, uuid, created, pack_bytes_max }
    }

    /// A superblock for packs that lost theirs: they may use any feature that this build knows.
    pub fn claiming_all(uuid: Uuid, created: i64, pack_bytes_max: u64) -> Superblock {
        Superblock {
            ro_compat: KNOWN_RO_COMPAT,
            incompat: KNOWN_INCOMPAT,
            ..Superblock::new(uuid, created, pack_bytes_max)
        }
    }

    /// True when this is the superblock of the same store as it was written after `old`: with a later version or more
    /// features, and nothing else changed.
    pub fn follows(&self, old: &Superblock) -> bool {
        let Superblock { version, compat, ro_compat, incompat, .. } = *old;
        let before = Superblock { version, compat, ro_compat, incompat, ..*self };
        before == *old
            && version <= self.version
            && [(compat, self.compat), (ro_compat, self.ro_compat), (incompat, self.incompat)]
                .iter()
                .all(|(old, new)| old & !new == 0)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("tersefs store, format {}\n", self.version).into_bytes();
        out.resize(64, 0);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for features in [self.compat, self.ro_compat, self.incompat] {
            out.extend_from_slice(&features.to_le_bytes());
        }
        out.extend_from_slice(&self.uuid.0);
        out.extend_from_slice(&self.created.to_le_bytes());
        out.extend_from_slice(&self.pack_bytes_max.to_le_bytes());
        out.resize(CRC_AT, 0);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a superblock of any version.
    ///
    /// # Errors
    /// Names the part that is wrong: length, magic, checksum.
    pub fn decode(bytes: &[u8]) -> Result<Superblock, Malformed> {
        let mut r = super::wire::Reader(bytes);
        r.take(64, "superblock length")?;
        if r.take(8, "superblock length")? != MAGIC {
            return Err(Malformed("superblock magic"));
        }
        let version = u32::from_le_bytes(r.array("superblock length")?);
        r.take(4, "superblock length")?;
        let compat = u64::from_le_bytes(r.array("superblock length")?);
        let ro_compat = u64::from_le_bytes(r.array("superblock length")?);
        let incompat = u64::from_le_bytes(r.array("superblock length")?);
        let uuid = Uuid(r.array("superblock length")?);
        let created = i64::from_le_bytes(r.array("superblock length")?);
        let pack_bytes_max = u64::from_le_bytes(r.array("superblock length")?);
        let (body, crc) = bytes.split_at_checked(CRC_AT).ok_or(Malformed("superblock length"))?;
        if crc != crc32c(body).to_le_bytes() {
            return Err(Malformed("superblock checksum"));
        }
        Ok(Superblock { version, compat, ro_compat, incompat, uuid, created, pack_bytes_max })
    }

    /// Holds version and features against what this build knows.
    pub fn usable(&self) -> Usable {
        if self.version > FORMAT_VERSION {
            return Usable::No(format!(
                "the store has format version {}, this build knows up to {FORMAT_VERSION}; use a newer tersefs",
                self.version
            ));
        }
        let unknown = self.incompat & !KNOWN_INCOMPAT;
        if unknown != 0 {
            return Usable::No(format!(
                "the store needs incompatible features {unknown:#x} that this build does not know; use a newer tersefs"
            ));
        }
        let unknown = self.ro_compat & !KNOWN_RO_COMPAT;
        if unknown != 0 {
            return Usable::ReadOnly(format!(
                "the store has features {unknown:#x} that this build cannot write; it is opened read-only"
            ));
        }
        Usable::ReadWrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_every_flipped_byte_is_noticed() {
        let block = Superblock::new(Uuid(*b"0123456789abcdef"), 1_700_000_000, 1 << 28);
        let bytes = block.encode();
        assert_eq!(bytes.len(), SUPERBLOCK_BYTES);
        assert_eq!(Superblock::decode(&bytes), Ok(block));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Superblock::decode(&bad).is_err(), "byte {at}");
        }
        assert!(Superblock::decode(&bytes[..100]).is_err());
    }

    #[test]
    fn newer_stores_are_refused_by_name() {
        let mut block = Superblock::new(Uuid::default(), 0, 0);
        assert_eq!(block.usable(), Usable::ReadWrite);
        block.ro_compat = 4;
        assert!(matches!(block.usable(), Usable::ReadOnly(why) if why.contains("0x4")));
        block.incompat = INCOMPAT_SEALS | 1 << 62;
        assert!(matches!(block.usable(), Usable::No(why) if why.contains("0x4000000000000000")));
        block.version = 9;
        assert!(matches!(block.usable(), Usable::No(why) if why.contains("version 9")));
    }
}
