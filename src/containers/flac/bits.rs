//! Bits of frames, the highest of a byte first, and their checksums.

/// Reads bits.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Bits that were read.
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// The next 57 bits or more, at the top; zeros behind the end.
    fn ahead(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_be_bytes(*word),
            None => (0..8).fold(0, |word, n| word << 8 | u64::from(rest.get(n).copied().unwrap_or(0))),
        };
        word << (self.at % 8)
    }

    fn skip(&mut self, bits: usize) -> Option<()> {
        self.at += bits;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// A number of at most 32 bits.
    pub fn bits(&mut self, bits: u32) -> Option<u32> {
        let value = if bits == 0 { 0 } else { self.ahead() >> (64 - bits) };
        self.skip(bits as usize)?;
        Some(value as u32)
    }

    /// A number of at most 32 bits in two's complement.
    pub fn signed(&mut self, bits: u32) -> Option<i64> {
        let value = u64::from(self.bits(bits)?);
        let unused = 64 - bits;
        Some(if bits == 0 { 0 } else { (value << unused) as i64 >> unused })
    }

    /// Zeros before the next one, which is read too.
    pub fn zeros(&mut self) -> Option<u64> {
        let mut zeros = 0;
        loop {
            let found = self.ahead().leading_zeros() as usize;
            let known = 64 - self.at % 8;
            if found < known {
                self.skip(found + 1)?;
                return Some(zeros + found as u64);
            }
            zeros += known as u64;
            self.skip(known)?;
        }
    }

    /// Bytes up to the next border of one; `None` where bits before it are not zero.
    pub fn aligned(&mut self) -> Option<usize> {
        let unused = (8 - self.at % 8) % 8;
        (self.bits(unused as u32)? == 0).then_some(self.at / 8)
    }
}

/// Writes bits, as many bytes as there is room for.
pub(super) struct Writer {
    pub bytes: Vec<u8>,
    word: u64,
    /// Bits of `word` that are written, fewer than 8 between calls.
    held: u32,
    room: usize,
}

impl Writer {
    pub fn new(room: usize) -> Writer {
        Writer { bytes: Vec::new(), word: 0, held: 0, room }
    }

    /// The lowest bits of a number, at most 32.
    pub fn bits(&mut self, value: u32, bits: u32) -> Option<()> {
        if bits == 0 {
            return Some(());
        }
        self.word = self.word << bits | u64::from(value) & ((1 << bits) - 1);
        self.held += bits;
        while self.held >= 8 {
            self.held -= 8;
            self.bytes.push((self.word >> self.held) as u8);
        }
        (self.bytes.len() <= self.room).then_some(())
    }

    /// So many zeros, and a one.
    pub fn zeros(&mut self, zeros: u64) -> Option<()> {
        let mut left = zeros;
        while left >= 32 {
            self.bits(0, 32)?;
            left -= 32;
        }
        self.bits(0, left as u32)?;
        self.bits(1, 1)
    }

    /// Zeros up to the next border of a byte.
    pub fn align(&mut self) -> Option<()> {
        self.bits(0, (8 - self.held) % 8)
    }
}

/// The checksum of a frame's head.
pub(super) fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 != 0 { crc << 1 ^ 0x07 } else { crc << 1 })
    })
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = (n as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x8005 } else { crc << 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// The checksum of a frame.
pub(super) fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let at = usize::from((crc >> 8) as u8 ^ byte);
        crc << 8 ^ CRC16.get(at).copied().unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back() {
        let fields = [(5u32, 3u32), (0, 0), (1, 1), (0xffff_ffff, 32), (77, 19), (0, 7), (0x1234, 16)];
        let mut writer = Writer::new(1000);
        for (value, bits) in fields {
            writer.bits(value, bits).unwrap();
            writer.zeros(u64::from(value % 150)).unwrap();
        }
        writer.align().unwrap();
        let mut reader = Reader::new(&writer.bytes);
        for (value, bits) in fields {
            assert_eq!((reader.bits(bits), reader.zeros()), (Some(value), Some(u64::from(value % 150))));
        }
        assert_eq!(reader.aligned(), Some(writer.bytes.len()));
        assert_eq!((reader.bits(1), reader.zeros()), (None, None));
        assert!(Writer::new(10).zeros(1 << 40).is_none());
        assert_eq!(Reader::new(&[0xe0]).signed(3), Some(-1));
    }

    #[test]
    fn checksums_are_those_that_are_known() {
        assert_eq!((crc8(b"123456789"), crc16(b"123456789")), (0xf4, 0xfee8));
    }
}
