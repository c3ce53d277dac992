//! The two checks that stand behind every returned byte: CRC32C over stored bytes, BLAKE3 over plain bytes.

/// BLAKE3 of plain bytes, cut to 128 bits.
pub type PlainHash = [u8; 16];

/// CRC32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC32C continued from `crc` over `bytes`.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// BLAKE3-128 of plain bytes: the identity a decoded segment is held against.
pub fn plain_hash(bytes: &[u8]) -> PlainHash {
    let mut out = [0u8; 16];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    out
}
