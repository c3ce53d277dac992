//! Bits on their way to a payload or back. A predictor is written once for both ways, so that encoder and decoder cannot step
//! it differently.

use super::{Decoder, Encoder};

/// One way of the two.
pub trait Channel {
    /// Passes a bit on, which was 1 with a probability of `p` (1/65536), and gives back what it is. The way out of a payload
    /// has the bit from there and does not look at the one that is given.
    fn pass(&mut self, bit: u8, p: u16) -> u8;
}

impl Channel for Encoder {
    #[inline(always)]
    fn pass(&mut self, bit: u8, p: u16) -> u8 {
        self.encode(bit, p);
        bit
    }
}

impl Channel for Decoder<'_> {
    #[inline(always)]
    fn pass(&mut self, _bit: u8, p: u16) -> u8 {
        self.decode(p)
    }
}
