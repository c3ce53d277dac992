//! Whole numbers in as few bytes as they need (LEB128): seven bits a byte, the lowest first, and in all but the last the top bit.

/// Appends a number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number of at most so many bytes, nine or less, from the front. `None` where it ends early or is longer.
pub fn take_varint(rest: &mut &[u8], bytes_max: u32) -> Option<u64> {
    let mut value = 0;
    for n in 0..bytes_max {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << (7 * n);
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_longer_ones_are_refused() {
        for value in [0, 1, 127, 128, 16_383, 16_384, (1 << 35) - 1, 1 << 35, (1 << 63) - 1] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let len = bytes.len() as u32;
            bytes.push(7);
            let mut rest = &bytes[..];
            assert_eq!((take_varint(&mut rest, len), rest), (Some(value), &[7][..]));
            assert_eq!(take_varint(&mut &bytes[..], len - 1), None, "too long");
            assert_eq!(take_varint(&mut &bytes[..bytes.len() - 2], len), None, "cut off");
        }
    }
}
