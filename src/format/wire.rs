//! Numbers and strings as bytes: LEB128 varints, zigzag for signed differences, length-prefixed byte strings.

use crate::base::put_varint;

/// Bytes are not what they should be; `0` says which field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Appends values to a byte vector.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, v: u8) {
        self.0.push(v);
    }

    pub fn bytes(&mut self, v: &[u8]) {
        self.0.extend_from_slice(v);
    }

    pub fn varint(&mut self, v: u64) {
        put_varint(&mut self.0, v);
    }

    /// The difference of two numbers modulo 2^64, small in either direction.
    pub fn delta(&mut self, v: u64, from: u64) {
        let d = v.wrapping_sub(from) as i64;
        self.varint(((d << 1) ^ (d >> 63)) as u64);
    }

    pub fn string(&mut self, v: &[u8]) {
        self.varint(v.len() as u64);
        self.bytes(v);
    }
}

/// Takes values off the front of a slice.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Malformed(what))?;
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        self.take(N, what)?.try_into().map_err(|_| Malformed(what))
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed(what));
            }
            v |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(v);
            }
        }
        Err(Malformed(what))
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.varint(what)?).map_err(|_| Malformed(what))
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        u16::try_from(self.varint(what)?).map_err(|_| Malformed(what))
    }

    pub fn delta(&mut self, from: u64, what: &'static str) -> Result<u64, Malformed> {
        let z = self.varint(what)?;
        let d = (z >> 1) as i64 ^ -((z & 1) as i64);
        Ok(from.wrapping_add(d as u64))
    }

    pub fn delta_u32(&mut self, from: u32, what: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.delta(u64::from(from), what)?).map_err(|_| Malformed(what))
    }

    /// At most `max` bytes.
    pub fn string(&mut self, max: usize, what: &'static str) -> Result<Vec<u8>, Malformed> {
        let len = usize::try_from(self.varint(what)?).map_err(|_| Malformed(what))?;
        if len > max {
            return Err(Malformed(what));
        }
        Ok(self.take(len, what)?.to_vec())
    }

    /// Nothing may be left.
    pub fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        let mut w = Writer::default();
        for n in numbers {
            w.varint(n);
            w.delta(n, 5);
        }
        let mut r = Reader(&w.0);
        for n in numbers {
            assert_eq!(r.varint("n"), Ok(n));
            assert_eq!(r.delta(5, "d"), Ok(n));
        }
        assert!(r.end("end").is_ok());
        assert!(r.varint("past the end").is_err());
        assert!(Reader(&[0xff; 10]).varint("too long").is_err());
    }
}
