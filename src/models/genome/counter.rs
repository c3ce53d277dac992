//! Counters of bits in a context: what nucleotides, qualities and names have in common.

/// Parts of the probability that an observation moves, by how many came before: 65536 / (n + 1.5).
const fn shares() -> [u32; 1024] {
    let mut table = [0; 1024];
    let mut n = 0;
    while n < 1024 {
        table[n] = (131_072 / (2 * n + 3)) as u32;
        n += 1;
    }
    table
}

static SHARES: [u32; 1024] = shares();

/// Probability of a 1 in 22 bits, and in the lowest ten how many observations it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter(u32);

impl Counter {
    /// Even odds, as if `seen` bits (at most 1023) had been seen.
    pub const fn even(seen: u32) -> Counter {
        Counter(1 << 31 | seen)
    }

    /// A probability in 1/65536 that counts as much as `seen` bits.
    pub const fn of(p: u16, seen: u32) -> Counter {
        Counter((p as u32) << 16 | seen)
    }

    /// Probability of a 1, 1/65536; may be 0.
    #[inline(always)]
    pub fn p(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Learns a bit. `limit` (at most 1023) bounds the count, so that 1/limit is the slowest rate.
    #[inline(always)]
    pub fn learn(&mut self, bit: u8, limit: u32) {
        let (p, seen) = (self.0 >> 10, self.0 & 1023);
        let target = u32::from(bit & 1) * 0x3f_ffff;
        let share = i64::from(SHARES[(seen & 1023) as usize]);
        let moved = (i64::from(p) + (((i64::from(target) - i64::from(p)) * share) >> 16)) as u32;
        self.0 = moved << 10 | (seen + u32::from(seen < limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_approaches_what_comes_and_stays_in_bounds() {
        let mut counter = Counter::even(0);
        for _ in 0..5000 {
            counter.learn(1, 1023);
        }
        assert!(counter.p() > 65_400);
        for _ in 0..20_000 {
            counter.learn(0, 1023);
        }
        assert!(counter.p() < 100);
        assert_eq!(Counter::of(777, 3).p(), 777);
    }
}
