//! Range coder of many symbols: each has a share of a total, both whole numbers, and the totals may change with every symbol.
//!
//! After G. N. N. Martin, "Range encoding", 1979, with 64 bits: the interval is at least 2^56 wide before a symbol, so that
//! totals up to `TOTAL_MAX` lose less than 2^-12 of a bit to rounding. A carry goes back into bytes that are out already.

/// Greatest total of shares.
pub const TOTAL_MAX: u64 = 1 << 43;
/// The interval is widened by bytes until it is this wide.
const WIDTH_MIN: u64 = 1 << 56;

/// Codes symbols into bytes.
#[derive(Debug)]
pub struct ShareEncoder {
    low: u64,
    width: u64,
    out: Vec<u8>,
}

impl Default for ShareEncoder {
    fn default() -> ShareEncoder {
        ShareEncoder { low: 0, width: u64::MAX, out: Vec::new() }
    }
}

impl ShareEncoder {
    /// Codes a symbol whose share is from `before` on, `share` of `total`; the share at least 1, the total at most
    /// `TOTAL_MAX`.
    pub fn encode(&mut self, before: u64, share: u64, total: u64) {
        debug_assert!(share > 0 && before + share <= total && total <= TOTAL_MAX);
        let unit = self.width / total;
        self.advance(unit * before);
        // The last symbol has what rounding leaves.
        self.width = if before + share == total { self.width - unit * before } else { unit * share };
        while self.width < WIDTH_MIN {
            self.out.push((self.low >> 56) as u8);
            self.low <<= 8;
            self.width <<= 8;
        }
    }

    /// Adds to the lower bound.
    fn advance(&mut self, by: u64) {
        let (low, carry) = self.low.overflowing_add(by);
        self.low = low;
        if carry {
            for byte in self.out.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
    }

    /// Bytes that are out.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Ends the code with as few bytes as tell the interval apart, given that the decoder reads zeros past the end.
    pub fn finish(mut self) -> Vec<u8> {
        for bytes in 0..=8 {
            let rest = u64::MAX.checked_shr(8 * bytes).unwrap_or(0);
            // To the next number whose last bytes are zeros.
            let by = self.low.wrapping_neg() & rest;
            if by < self.width {
                self.advance(by);
                let low = self.low.to_be_bytes();
                self.out.extend(low.iter().take(bytes as usize));
                break;
            }
        }
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

/// Reads symbols back. Any bytes may be given: what comes out is symbols, never an error.
#[derive(Debug)]
pub struct ShareDecoder<'a> {
    /// Of the code, from the lower bound on.
    above: u64,
    width: u64,
    rest: std::slice::Iter<'a, u8>,
}

impl<'a> ShareDecoder<'a> {
    pub fn new(bytes: &'a [u8]) -> ShareDecoder<'a> {
        let mut decoder = ShareDecoder { above: 0, width: u64::MAX, rest: bytes.iter() };
        for _ in 0..8 {
            decoder.shift();
        }
        decoder
    }

    fn shift(&mut self) {
        self.above = self.above << 8 | u64::from(self.rest.next().copied().unwrap_or(0));
    }

    /// Where in `total`, which is from 1 to `TOTAL_MAX`, the next symbol's share is: below it.
    pub fn place(&self, total: u64) -> u64 {
        (self.above / (self.width / total)).min(total - 1)
    }

    /// Moves past the symbol whose share, as given to `ShareEncoder::encode`, has that place in it.
    pub fn pass(&mut self, before: u64, share: u64, total: u64) {
        let unit = self.width / total;
        self.above = self.above.saturating_sub(unit * before);
        self.width = if before + share == total { self.width - unit * before } else { unit * share };
        while self.width < WIDTH_MIN {
            self.width <<= 8;
            self.shift();
        }
    }

    /// True when every byte was looked at. Past the end it reads zeros.
    pub fn is_at_end(&self) -> bool {
        self.rest.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symbols from a fixed generator: shares of all sizes and totals up to the greatest.
    fn symbols(n: usize) -> Vec<(u64, u64, u64)> {
        let mut x = 1u64;
        let mut next = |below: u64| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 20) % below
        };
        let mut symbol = || {
            let bits = next(43) + 1;
            let total = next(1 << bits) + 1;
            let before = if next(3) == 0 { 0 } else { next(total) };
            let share = match next(4) {
                0 => 1,
                1 => total - before,
                _ => next(total - before) + 1,
            };
            (before, share, total)
        };
        (0..n).map(|_| symbol()).collect()
    }

    #[test]
    fn symbols_come_back_for_every_length() {
        let all = symbols(3000);
        for n in (0..200).chain([2999, 3000]) {
            let mut encoder = ShareEncoder::default();
            let mut bits = 0.0;
            for (before, share, total) in &all[..n] {
                encoder.encode(*before, *share, *total);
                bits -= (*share as f64 / *total as f64).log2();
            }
            let code = encoder.finish();
            assert!((code.len() as f64) * 8.0 <= bits * 1.001 + 10.0, "{} bytes for {bits} bits", code.len());
            let mut decoder = ShareDecoder::new(&code);
            for (i, (before, share, total)) in all[..n].iter().enumerate() {
                let place = decoder.place(*total);
                assert!(place >= *before && place < before + share, "symbol {i} of {n}");
                decoder.pass(*before, *share, *total);
            }
            assert!(decoder.is_at_end());
        }
    }

    #[test]
    fn carries_go_back_through_many_bytes() {
        let mut encoder = ShareEncoder::default();
        // An interval that stays around a bound of many bytes.
        let many: Vec<(u64, u64, u64)> = (0..300).map(|i| if i == 299 { (2, 1, 3) } else { (1, 1, 3) }).collect();
        many.iter().for_each(|(b, s, t)| encoder.encode(*b, *s, *t));
        let code = encoder.finish();
        let mut decoder = ShareDecoder::new(&code);
        for (before, share, total) in many {
            assert_eq!(decoder.place(total), before);
            decoder.pass(before, share, total);
        }
    }

    #[test]
    fn any_bytes_are_safe() {
        for seed in 0..=255u8 {
            let junk = [seed; 30];
            let mut decoder = ShareDecoder::new(&junk);
            for (before, share, total) in symbols(500) {
                let place = decoder.place(total);
                assert!(place < total);
                let (before, share) =
                    if place >= before && place < before + share { (before, share) } else { (place, 1) };
                decoder.pass(before, share, total);
            }
        }
    }

    #[test]
    fn golden_code() {
        let mut encoder = ShareEncoder::default();
        symbols(100).iter().for_each(|(b, s, t)| encoder.encode(*b, *s, *t));
        assert_eq!(crate::base::crc32c(&encoder.finish()), GOLDEN);
    }

    const GOLDEN: u32 = 2449818085;
}
