//! What preflate-rs codes its corrections by: adaptive bits and a binary arithmetic coder, under the names that it asks for.
//!
//! The crate of this name has a licence (LGPL) that this program does not take in. This is another coder with the same names,
//! written for this program: its bytes are its own, and a payload names them by `containers::REVISION`.
//!
//! # Invariants
//! 1. Reader and writer adapt a context by the same function.
//! 2. A reader is given any bytes: a few zeroes behind their end belong to a code, more are an error.
//! 3. A code has no more bits than `bounded` says, for writer and reader alike: whoever reads until a bit comes that never does
//!    ends.

use std::cell::Cell;
use std::io::{Error, ErrorKind, Result};

/// Reads bits by contexts.
pub trait CabacReader<CTX> {
    /// One bit.
    ///
    /// # Errors
    /// Those of what is read from.
    fn get(&mut self, context: &mut CTX) -> Result<bool>;

    /// How many ones come before a zero, of which the last contexts have a share each.
    ///
    /// # Errors
    /// More than 24.
    fn get_unary_encoded<const N: usize>(&mut self, contexts: &mut [CTX; N]) -> Result<usize> {
        for n in 0..=UNARY_MAX {
            if !self.get(context(contexts, n)?)? {
                return Ok(n);
            }
        }
        Err(ErrorKind::InvalidData.into())
    }

    /// A number of `bits` bits, the highest first.
    ///
    /// # Errors
    /// As `get`.
    fn get_n_bits<const N: usize>(&mut self, bits: usize, contexts: &mut [CTX; N]) -> Result<u64> {
        (0..bits).rev().try_fold(0, |value, n| Ok(value << 1 | u64::from(self.get(context(contexts, n)?)?)))
    }
}

/// Writes bits by contexts.
pub trait CabacWriter<CTX> {
    /// One bit.
    ///
    /// # Errors
    /// Those of what is written to.
    fn put(&mut self, bit: bool, context: &mut CTX) -> Result<()>;

    /// Ends the code.
    ///
    /// # Errors
    /// As `put`.
    fn finish(&mut self) -> Result<()>;

    /// As many ones, and a zero.
    ///
    /// # Errors
    /// As `put`; more than 24.
    fn put_unary_encoded<const N: usize>(&mut self, value: usize, contexts: &mut [CTX; N]) -> Result<()> {
        if value > UNARY_MAX {
            return Err(ErrorKind::InvalidInput.into());
        }
        (0..=value).try_for_each(|n| self.put(n < value, context(contexts, n)?))
    }

    /// The lowest `bits` bits of a number, the highest of them first.
    ///
    /// # Errors
    /// As `put`.
    fn put_n_bits<const N: usize>(&mut self, value: u64, bits: usize, contexts: &mut [CTX; N]) -> Result<()> {
        (0..bits).rev().try_for_each(|n| self.put(value >> n & 1 == 1, context(contexts, n)?))
    }
}

thread_local! {
    static BITS_LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Runs `f`, in which a code on this thread has so many bits at most; outside it has none.
pub fn bounded<T>(bits: u32, f: impl FnOnce() -> T) -> T {
    /// Puts back what held before, after a panic too.
    struct Before(u32);
    impl Drop for Before {
        fn drop(&mut self) {
            BITS_LEFT.set(self.0);
        }
    }
    let _before = Before(BITS_LEFT.replace(bits));
    f()
}

/// Numbers are told by their length: none counts more than twice the 4 MiB of a text.
const UNARY_MAX: usize = 24;

/// The context of a place, or the last one.
fn context<CTX, const N: usize>(contexts: &mut [CTX; N], n: usize) -> Result<&mut CTX> {
    contexts.get_mut(n.min(N.saturating_sub(1))).ok_or_else(|| Error::from(ErrorKind::InvalidInput))
}

pub mod vp8 {
    //! The coder, by the name that it is asked for.

    use std::io::{ErrorKind, Read, Result, Write};

    use super::{BITS_LEFT, CabacReader, CabacWriter};

    /// Bits of a probability.
    const BITS: u32 = 16;
    /// How fast a context follows at first, and in the end: by what part of the difference, in powers of two.
    const RATES: (u8, u8) = (2, 6);

    /// How likely a one is, and how many bits that is known from.
    #[derive(Clone, Copy, Debug)]
    pub struct VP8Context {
        one: u16,
        rate: u8,
    }

    impl Default for VP8Context {
        fn default() -> Self {
            VP8Context { one: 1 << (BITS - 1), rate: RATES.0 }
        }
    }

    impl VP8Context {
        /// Where a range is split: what lies below is a one.
        fn split(self, low: u32, high: u32) -> u32 {
            low + ((u64::from(high - low) * u64::from(self.one)) >> BITS) as u32
        }

        fn adapt(&mut self, bit: bool) {
            // It stays away from both ends, so that no bit is impossible.
            let aim = if bit { 65535 - 32 } else { 32 };
            let moved = i32::from(self.one) + ((aim - i32::from(self.one)) >> self.rate);
            self.one = moved.clamp(32, 65535 - 32) as u16;
            self.rate = (self.rate + 1).min(RATES.1);
        }
    }

    /// Writes a code.
    #[derive(Debug)]
    pub struct VP8Writer<W> {
        to: W,
        low: u32,
        high: u32,
        left: u32,
    }

    impl<W: Write> VP8Writer<W> {
        /// Begins a code.
        ///
        /// # Errors
        /// None.
        pub fn new(to: W) -> Result<Self> {
            Ok(VP8Writer { to, low: 0, high: u32::MAX, left: BITS_LEFT.get() })
        }
    }

    impl<W: Write> CabacWriter<VP8Context> for VP8Writer<W> {
        fn put(&mut self, bit: bool, context: &mut VP8Context) -> Result<()> {
            self.left = self.left.checked_sub(1).ok_or(ErrorKind::FileTooLarge)?;
            let split = context.split(self.low, self.high);
            if bit {
                self.high = split
            } else {
                self.low = split + 1
            }
            context.adapt(bit);
            while (self.low ^ self.high) >> 24 == 0 {
                self.to.write_all(&[(self.high >> 24) as u8])?;
                self.low <<= 8;
                self.high = self.high << 8 | 0xff;
            }
            Ok(())
        }

        fn finish(&mut self) -> Result<()> {
            // As few bytes as tell the range, with zeroes behind.
            if self.low > 0 {
                self.to.write_all(&[((self.low >> 24) + 1) as u8])?;
            }
            Ok(())
        }
    }

    /// Reads a code.
    #[derive(Debug)]
    pub struct VP8Reader<R> {
        from: R,
        low: u32,
        high: u32,
        code: u32,
        left: u32,
        /// Bytes that may still be read behind the end.
        behind: u8,
    }

    impl<R: Read> VP8Reader<R> {
        /// Begins to read.
        ///
        /// # Errors
        /// Those of what is read from.
        pub fn new(from: R) -> Result<Self> {
            let mut reader = VP8Reader { from, low: 0, high: u32::MAX, code: 0, left: BITS_LEFT.get(), behind: 4 };
            for _ in 0..4 {
                reader.code = reader.code << 8 | reader.byte()?;
            }
            Ok(reader)
        }

        fn byte(&mut self) -> Result<u32> {
            let mut byte = [0];
            if self.from.read(&mut byte)? == 0 {
                // The writer leaves out the zeroes at the end of what is read ahead.
                self.behind = self.behind.checked_sub(1).ok_or(ErrorKind::UnexpectedEof)?;
            }
            Ok(u32::from(byte[0]))
        }
    }

    impl<R: Read> CabacReader<VP8Context> for VP8Reader<R> {
        fn get(&mut self, context: &mut VP8Context) -> Result<bool> {
            self.left = self.left.checked_sub(1).ok_or(ErrorKind::FileTooLarge)?;
            let split = context.split(self.low, self.high);
            let bit = self.code <= split;
            if bit {
                self.high = split
            } else {
                self.low = split + 1
            }
            context.adapt(bit);
            while (self.low ^ self.high) >> 24 == 0 {
                self.low <<= 8;
                self.high = self.high << 8 | 0xff;
                self.code = self.code << 8 | self.byte()?;
            }
            Ok(bit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::vp8::{VP8Context, VP8Reader, VP8Writer};
    use super::*;

    #[test]
    fn numbers_come_back() {
        bounded(1 << 20, come_back);
    }

    fn come_back() {
        let numbers: Vec<(usize, u64)> =
            (0..5000u64).map(|n| ((n * n % 25) as usize, n.wrapping_mul(0x9e37_79b9))).collect();
        let mut code = Vec::new();
        let mut writer = VP8Writer::new(&mut code).unwrap();
        let (mut a, mut b) = ([VP8Context::default(); 32], [VP8Context::default(); 32]);
        for (unary, bits) in &numbers {
            writer.put_unary_encoded(*unary, &mut a).unwrap();
            writer.put_n_bits(*bits, 20, &mut b).unwrap();
        }
        writer.finish().unwrap();
        let (mut a, mut b) = ([VP8Context::default(); 32], [VP8Context::default(); 32]);
        let mut reader = VP8Reader::new(&code[..]).unwrap();
        for (unary, bits) in &numbers {
            assert_eq!(reader.get_unary_encoded(&mut a).unwrap(), *unary);
            assert_eq!(reader.get_n_bits(20, &mut b).unwrap(), bits & 0xf_ffff);
        }
        assert!(VP8Reader::new(&code[..]).unwrap().get_unary_encoded(&mut [VP8Context::default(); 1]).is_ok());
    }

    #[test]
    fn numbers_are_no_longer_than_any_of_a_text() {
        let mut contexts = [VP8Context::default(); 32];
        let mut code = Vec::new();
        bounded(1 << 20, || {
            let mut writer = VP8Writer::new(&mut code).unwrap();
            (0..40).for_each(|_| writer.put(true, &mut contexts[0]).unwrap());
            assert!(writer.put_unary_encoded(UNARY_MAX + 1, &mut contexts).is_err());
            writer.finish().unwrap();
            let mut reader = VP8Reader::new(&code[..]).unwrap();
            assert!(reader.get_unary_encoded(&mut [VP8Context::default(); 1]).is_err());
        });
    }

    #[test]
    fn a_code_without_end_ends() {
        for code in [&[][..], &[0; 9], &[255; 9], &[7; 9]] {
            let bits = bounded(1 << 20, || {
                let mut reader = VP8Reader::new(code).unwrap();
                let mut context = VP8Context::default();
                (0u32..).take_while(|_| reader.get(&mut context).is_ok()).count()
            });
            assert!(bits < 1 << 18, "{code:?}: {bits}");
            let mut reader = VP8Reader::new(code).unwrap();
            assert!(reader.get(&mut VP8Context::default()).is_err(), "none outside");
        }
    }
}
