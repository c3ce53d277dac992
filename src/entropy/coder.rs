//! Binary range coder, carry-free, 32 bits (the arithmetic coder of lpaq and zpaq, after M. Mahoney, "Adaptive Weighing of
//! Context Models for Lossless Data Compression", 2005): low and high bound of the interval, bytes go out as soon as
//! both agree on them.

/// Codes bits into bytes.
#[derive(Debug)]
pub struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
    limit: usize,
}

/// Part of the interval for a 1 bit of probability `p` (1/65536).
fn split(low: u32, high: u32, p: u16) -> u32 {
    let range = high - low;
    low + ((u64::from(range) * u64::from(p)) >> 16) as u32
}

impl Encoder {
    /// An encoder that stops collecting bytes beyond `limit`: the caller then knows that coding does not pay.
    pub fn new(limit: usize) -> Encoder {
        Encoder { low: 0, high: u32::MAX, out: Vec::new(), limit }
    }

    /// Codes one bit whose probability of being 1 is `p`.
    #[inline]
    pub fn encode(&mut self, bit: u8, p: u16) {
        let mid = split(self.low, self.high, p);
        if bit != 0 {
            self.high = mid;
        } else {
            self.low = mid + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
    }

    /// True when more bytes came out than the limit allows.
    pub fn is_over(&self) -> bool {
        self.out.len() > self.limit
    }

    /// Ends the code; as few bytes as tell the interval apart, given that the decoder reads zeros past the end.
    pub fn finish(mut self) -> Vec<u8> {
        if self.low > 0 {
            // One byte above low's first is inside the interval unless the first bytes differ by one only.
            let first = (self.low >> 24) + 1;
            if first <= self.high >> 24 {
                self.out.push(first as u8);
            } else {
                self.out.extend_from_slice(&self.high.to_be_bytes());
            }
        }
        self.out
    }
}

/// Reads bits back. Any bytes may be given: what comes out is bits, never an error.
#[derive(Debug)]
pub struct Decoder<'a> {
    low: u32,
    high: u32,
    code: u32,
    rest: std::slice::Iter<'a, u8>,
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        let mut d = Decoder { low: 0, high: u32::MAX, code: 0, rest: bytes.iter() };
        for _ in 0..4 {
            d.shift();
        }
        d
    }

    fn shift(&mut self) {
        self.code = self.code << 8 | u32::from(self.rest.next().copied().unwrap_or(0));
    }

    /// The next bit, whose probability of being 1 is `p`.
    #[inline]
    pub fn decode(&mut self, p: u16) -> u8 {
        let mid = split(self.low, self.high, p);
        let bit = self.code <= mid;
        if bit {
            self.high = mid;
        } else {
            self.low = mid + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.shift();
        }
        u8::from(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits and probabilities from a fixed generator, skewed so that the bits follow the probabilities.
    fn stream(n: usize) -> Vec<(u8, u16)> {
        let mut x = 1u64;
        (0..n)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let p = ((x >> 33) as u16).max(1);
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (u8::from((x >> 48) as u16 <= p), p)
            })
            .collect()
    }

    #[test]
    fn bits_come_back_for_every_length() {
        let bits = stream(2000);
        for n in (0..100).chain([1999, 2000]) {
            let mut e = Encoder::new(usize::MAX);
            bits[..n].iter().for_each(|(b, p)| e.encode(*b, *p));
            let code = e.finish();
            let mut d = Decoder::new(&code);
            for (i, (b, p)) in bits[..n].iter().enumerate() {
                assert_eq!(d.decode(*p), *b, "bit {i} of {n}");
            }
        }
    }

    #[test]
    fn extreme_probabilities_and_any_bytes_are_safe() {
        for p in [1, 65535] {
            let mut e = Encoder::new(usize::MAX);
            (0..500).for_each(|i| e.encode(u8::from(i % 7 == 0), p));
            let code = e.finish();
            let mut d = Decoder::new(&code);
            assert!((0..500).all(|i| d.decode(p) == u8::from(i % 7 == 0)));
        }
        for seed in 0..=255u8 {
            let junk = [seed; 20];
            let mut d = Decoder::new(&junk);
            stream(1000).iter().for_each(|(_, p)| {
                d.decode(*p);
            });
        }
    }

    #[test]
    fn golden_code() {
        let mut e = Encoder::new(usize::MAX);
        stream(64).iter().for_each(|(b, p)| e.encode(*b, *p));
        assert_eq!(crate::base::crc32c(&e.finish()), GOLDEN);
    }

    const GOLDEN: u32 = 1480797681;
}
