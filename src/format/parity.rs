//! Parity file of a pack: `pack-<16 hex>.par` beside `pack-<16 hex>.tpk`.
//!
//! The first `pack_bytes` of the pack are cut into shards of `shard_bytes`, the last one filled with zeros. With n shards
//! there are S = ceil(n / K) stripes: shard i is number i / S of stripe i mod S, and shards beyond the last are zeros. So
//! neighbours lie in different stripes, and a damaged run as long as S shards costs each stripe one. Each stripe of K
//! shards has M parity shards (Reed-Solomon over GF(2^16) as reed-solomon-simd computes it).
//!
//! ```text
//! bytes            field
//! 64               header: magic 8B 't' 'e' 'r' 's' 'e' 'P' 0A; version u32; K u16; M u16; shard_bytes u32; zero u32;
//!                  pack u64; pack_bytes u64; volume UUID 16; zero u32; CRC32C of the 60 bytes before
//! 4 n              CRC32C of each shard of the pack
//! 4 M S            CRC32C of each parity shard, stripe by stripe
//! 4                CRC32C of header and checksums
//! M S shard_bytes  parity shards, stripe by stripe
//! the first 68 + 4 n + 4 M S bytes once more
//! ```
//! All numbers are little-endian. The head stands at both ends, since without it no shard can be told good from bad. A
//! parity file is written under another name and renamed when it is on disk.

use super::wire::{Malformed, Reader};
use crate::base::{PackId, Uuid, crc32c};

/// Bytes of the header.
pub const PARITY_HEADER_BYTES: usize = 64;
/// Longest shard, bytes.
pub const SHARD_BYTES_MAX: u32 = 64 << 10;
/// Shards of a stripe, of either kind.
pub const SHARDS_MAX: u16 = 255;

const MAGIC: [u8; 8] = [0x8b, b't', b'e', b'r', b's', b'e', b'P', 0x0a];
const VERSION: u32 = 1;

/// Shape of a parity file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParityHeader {
    /// Shards of the pack in a stripe (K).
    pub data: u16,
    /// Parity shards of a stripe (M).
    pub parity: u16,
    pub shard_bytes: u32,
    pub pack: PackId,
    /// Bytes of the pack that are covered, at least one.
    pub pack_bytes: u64,
    pub uuid: Uuid,
}

impl ParityHeader {
    /// Shards of the pack (n).
    pub fn shards(&self) -> u64 {
        self.pack_bytes.div_ceil(u64::from(self.shard_bytes.max(1)))
    }

    /// Stripes (S).
    pub fn stripes(&self) -> u64 {
        self.shards().div_ceil(u64::from(self.data.max(1)))
    }

    /// Bytes of header, checksums and their check.
    pub fn head_bytes(&self) -> u64 {
        PARITY_HEADER_BYTES as u64 + 4 * self.shards() + 4 * u64::from(self.parity) * self.stripes() + 4
    }

    /// Offset of a parity shard in the parity file.
    pub fn parity_offset(&self, stripe: u64, number: u16) -> u64 {
        let before = stripe * u64::from(self.parity) + u64::from(number);
        self.head_bytes() + before * u64::from(self.shard_bytes)
    }

    /// Bytes of the whole parity file.
    pub fn file_bytes(&self) -> u64 {
        self.parity_offset(self.stripes(), 0) + self.head_bytes()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.data.to_le_bytes());
        out.extend_from_slice(&self.parity.to_le_bytes());
        out.extend_from_slice(&self.shard_bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.pack.0.to_le_bytes());
        out.extend_from_slice(&self.pack_bytes.to_le_bytes());
        out.extend_from_slice(&self.uuid.0);
        out.extend_from_slice(&[0; 4]);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header and refuses shapes beyond the bounds.
    pub fn decode(bytes: &[u8]) -> Result<ParityHeader, Malformed> {
        let (body, crc) = bytes
            .get(..PARITY_HEADER_BYTES)
            .and_then(|b| b.split_last_chunk::<4>())
            .ok_or(Malformed("parity header length"))?;
        if crc32c(body).to_le_bytes() != *crc {
            return Err(Malformed("parity header check"));
        }
        let mut r = Reader(body);
        if r.array::<8>("parity magic")? != MAGIC {
            return Err(Malformed("parity magic"));
        }
        if u32::from_le_bytes(r.array("parity version")?) != VERSION {
            return Err(Malformed("parity version"));
        }
        let data = u16::from_le_bytes(r.array("parity shape")?);
        let parity = u16::from_le_bytes(r.array("parity shape")?);
        let shard_bytes = u32::from_le_bytes(r.array("parity shape")?);
        r.take(4, "parity header")?;
        let pack = PackId(u64::from_le_bytes(r.array("parity pack")?));
        let pack_bytes = u64::from_le_bytes(r.array("parity pack")?);
        let uuid = Uuid(r.array("parity volume")?);
        let counts = 1..=SHARDS_MAX;
        let even = shard_bytes.is_multiple_of(2) && (2..=SHARD_BYTES_MAX).contains(&shard_bytes);
        if !counts.contains(&data) || !counts.contains(&parity) || !even || pack_bytes == 0 || pack_bytes > 1 << 40 {
            return Err(Malformed("parity shape"));
        }
        Ok(ParityHeader { data, parity, shard_bytes, pack, pack_bytes, uuid })
    }
}
