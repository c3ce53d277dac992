//! Logits as shares of whole numbers, for the range coder.
//!
//! A token's share is 1 + floor(exp(logit - greatest logit) * 2^24): none is without one, and the floor of 1 costs at most
//! the size of the vocabulary / 2^24, 0.3 % of the total for 49,152 tokens. The total is their sum, in 64 bits; it is found
//! in two levels, parts of `PART` tokens and tokens.

use super::exact::{exp, greatest};
use super::kernels::{Dot, by_path};
use crate::entropy::{ShareDecoder, ShareEncoder, TOTAL_MAX};

/// Tokens of a part.
const PART: usize = 128;
/// Share of the likeliest token, less 1.
const SCALE: f32 = (1 << 24) as f32;
/// Greatest vocabulary, tokens.
pub(super) const VOCABULARY_MAX: usize = 1 << 18;
const _: () = assert!((VOCABULARY_MAX as u64) * ((1 << 24) + 1) <= TOTAL_MAX);

/// Shares of all tokens.
#[derive(Debug, Default)]
pub(super) struct Shares {
    each: Vec<u32>,
    /// Sums of parts.
    parts: Vec<u64>,
    total: u64,
}

/// The integer that is not above a number from 0 to 2^24. (A cast is made one number at a time, since it has to bring what is out
/// of bounds into them.)
#[inline(always)]
fn floor(x: f32) -> u32 {
    const WHOLE: f32 = (1 << 23) as f32;
    // Numbers from `WHOLE` on are whole, and stand in their bits as such; to others it is added, which rounds them.
    let sum = x + WHOLE;
    let below = sum.to_bits().wrapping_sub(WHOLE.to_bits()).wrapping_sub(u32::from(sum - WHOLE > x));
    let whole = x.to_bits().wrapping_sub(WHOLE.to_bits()).wrapping_add(1 << 23);
    if x < WHOLE { below } else { whole }
}

#[inline(always)]
fn spread_body(_d: impl Dot, logits: &[f32], out: &mut Shares) {
    let peak = greatest(logits, f32::MIN, |x| x);
    out.each.resize(logits.len(), 0);
    for (share, logit) in out.each.iter_mut().zip(logits) {
        *share = 1 + floor(exp(*logit - peak) * SCALE);
    }
    out.parts.resize(logits.len().div_ceil(PART), 0);
    for (sum, part) in out.parts.iter_mut().zip(out.each.chunks(PART)) {
        // 128 shares of 2^24 are 2^31.
        *sum = u64::from(part.iter().sum::<u32>());
    }
    out.total = out.parts.iter().sum();
}

by_path! {
    /// Makes shares of logits.
    pub(super) fn spread(logits: &[f32], out: &mut Shares) = spread_body;
}

impl Shares {
    fn before(&self, token: usize) -> u64 {
        let part = token / PART;
        let within = self.each[part * PART..token].iter().map(|s| u64::from(*s));
        self.parts[..part].iter().sum::<u64>() + within.sum::<u64>()
    }

    /// Probability of a token, in 1/65536, 1 to 65535.
    pub fn probability(&self, token: u32) -> u16 {
        let share = self.each.get(token as usize).map_or(0, |s| u64::from(*s));
        ((share << 16) / self.total).clamp(1, 65_535) as u16
    }

    /// Takes the share of a token away: it is known not to come. The caller leaves one at least.
    pub fn remove(&mut self, token: u32) {
        let token = token as usize;
        if let (Some(share), Some(part)) = (self.each.get_mut(token), self.parts.get_mut(token / PART)) {
            *part -= u64::from(*share);
            self.total -= u64::from(*share);
            *share = 0;
        }
    }

    /// Codes a token of the vocabulary.
    pub fn encode(&self, token: u32, encoder: &mut ShareEncoder) {
        let token = token as usize;
        encoder.encode(self.before(token), u64::from(self.each[token]), self.total);
    }

    /// Reads a token.
    pub fn decode(&self, decoder: &mut ShareDecoder<'_>) -> u32 {
        let mut rest = decoder.place(self.total);
        let (mut part, mut before) = (0, 0);
        while rest >= self.parts[part] {
            rest -= self.parts[part];
            before += self.parts[part];
            part += 1;
        }
        let mut token = part * PART;
        while rest >= u64::from(self.each[token]) {
            rest -= u64::from(self.each[token]);
            before += u64::from(self.each[token]);
            token += 1;
        }
        decoder.pass(before, u64::from(self.each[token]), self.total);
        token as u32
    }

    /// Feeds all shares to a hash.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        self.each.iter().for_each(|share| {
            hasher.update(&share.to_le_bytes());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Path;
    use super::*;

    #[test]
    fn tokens_come_back_by_every_path() {
        let logits: Vec<f32> = (0..1000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 * 0.005).collect();
        let tokens: Vec<u32> = (0..1000).chain([999, 0, 127, 128]).collect();
        let mut codes = Vec::new();
        for path in Path::all() {
            let mut shares = Shares::default();
            spread(path, &logits, &mut shares);
            assert_eq!(shares.total, shares.each.iter().map(|s| u64::from(*s)).sum::<u64>());
            assert_eq!(shares.each.iter().max(), Some(&((1 << 24) + 1)));
            let mut encoder = ShareEncoder::default();
            tokens.iter().for_each(|t| shares.encode(*t, &mut encoder));
            let code = encoder.finish();
            let mut decoder = ShareDecoder::new(&code);
            tokens.iter().for_each(|t| assert_eq!(shares.decode(&mut decoder), *t));
            codes.push(code);
        }
        assert!(codes.windows(2).all(|two| two[0] == two[1]));
    }

    #[test]
    fn floors_are_those_of_a_cast() {
        let bits = (0..1 << 20).map(|n: u32| n.wrapping_mul(0x9E37_79B1) % (((1 << 24) as f32).to_bits() + 1));
        let whole = (0..=64).flat_map(|n| [n, (1 << 23) - 32 + n, (1 << 24) - n]).map(|n| (n as f32).to_bits());
        for bits in bits.chain(whole.flat_map(|bits| [bits, bits.saturating_sub(1)])) {
            let x = f32::from_bits(bits);
            assert_eq!(floor(x), x as u32, "{x}");
        }
    }

    /// Logits that are no numbers, which weights out of all bounds can give, still are shares.
    #[test]
    fn no_logits_are_without_shares() {
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let mut logits = vec![0.0; 300];
            logits[7] = strange;
            let mut shares = Shares::default();
            spread(Path::Plain, &logits, &mut shares);
            assert!(shares.each.iter().all(|s| (1..=(1 << 24) + 1).contains(s)), "{strange}");
        }
    }
}
