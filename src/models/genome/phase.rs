//! Finds genes without being told of any: the strand and the place in the codon of the base that is next.
//!
//! Codons use their three places differently, so bases of genes have a period of three, on either strand. Three groups of
//! three classes each (genes of one strand, genes of the other, anything else) predict every base by the two before it. At
//! each place nine guesses (a group, and which of its classes comes first) are kept of how well they have predicted the
//! last sixty bases or so; the best one is believed, and its class learns the base that came. That starts from noise and
//! sorts itself within some ten thousand bases. It makes bacteria 4 % smaller, and animals no larger.
//!
//! The periodic Markov chains are those of gene finders (M. Borodovsky and J. McIninch, GeneMark, 1993); to have them sort
//! themselves while coding is our own.

/// Classes: three groups of three.
pub(super) const CLASSES: usize = 9;
/// Bases that a class predicts by.
const ORDER: u32 = 2;
const CONTEXTS: usize = 1 << (2 * ORDER);
/// A new base counts 1/256.
const RATE: u32 = 8;
/// Of what is known of a guess 1/64 is forgotten with each base.
const FORGET: u32 = 6;
/// A guess that is better by this much is believed instead: 1.5 bits in 1/256.
const BETTER_BY: i32 = 384;
/// A probability of one.
const ONE: i32 = 1 << 16;

/// Bits in 1/256 that a base takes, by its probability in 1/1024.
const fn costs() -> [i32; 1024] {
    let mut table = [0; 1024];
    let mut i = 0;
    while i < 1024 {
        // The middle of the step, in 1/2048; its logarithm by squaring.
        let mut x = (2 * i as u64 + 1) << 21;
        let mut log = 256;
        while x < 1 << 31 {
            x <<= 1;
            log += 256;
        }
        let mut part = 128;
        while part > 0 {
            x = (x * x) >> 31;
            if x >= 1 << 32 {
                x >>= 1;
                log -= part;
            }
            part /= 2;
        }
        table[i] = log;
        i += 1;
    }
    table
}

static COSTS: [i32; 1024] = costs();

/// The class of each guess at a place, by the place modulo three. The second group is that of the first one's other strand, so its
/// classes come in falling order: the same base has the same place in the codon, whichever way it is read.
const fn class_table() -> [[u8; CLASSES]; 3] {
    let mut table = [[0; CLASSES]; 3];
    let mut at = 0;
    while at < 3 {
        let mut guess = 0;
        while guess < CLASSES {
            let (group, first) = (guess / 3, guess % 3);
            let step = if group == 1 { 2 * at } else { at };
            table[at][guess] = (group * 3 + (first + step) % 3) as u8;
            guess += 1;
        }
        at += 1;
    }
    table
}

static CLASS: [[u8; CLASSES]; 3] = class_table();

/// What is known of phases.
pub(super) struct Phase {
    /// Probabilities of the four bases, by class and context.
    tables: [[[i32; 4]; CONTEXTS]; CLASSES],
    /// Negative costs of the last bases, by guess, 1/256 bit.
    scores: [i32; CLASSES],
    believed: usize,
    /// The place modulo three.
    at: usize,
}

impl Phase {
    pub fn new() -> Phase {
        // Noise of one part in fifty, so that the classes differ at all.
        let mut x = 1u64;
        let mut noise = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 40) as i32 % (ONE / 200)
        };
        let tables =
            std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| ONE / 4 - ONE / 400 + noise())));
        Phase { tables, scores: [0; CLASSES], believed: 0, at: 0 }
    }

    /// The class of the base that is next.
    #[inline(always)]
    pub fn class(&self) -> usize {
        usize::from(CLASS[self.at % 3][self.believed % CLASSES])
    }

    /// The class, read from the other strand, of the base `back` places before the latest.
    #[inline(always)]
    pub fn class_of_other_strand(&self, back: u32) -> usize {
        // The latest is one before the next.
        let at = (self.at + 3 * 32 - 1 - back as usize) % 3;
        match usize::from(CLASS[at][self.believed % CLASSES]) {
            class @ 0..3 => class + 3,
            class @ 3..6 => class - 3,
            class => class,
        }
    }

    /// Learns the base that came after `forward` (the latest bases, the latest lowest), and where `both` says so what it is to the
    /// other strand, whose bases are in `reverse` (the latest highest).
    #[inline(always)]
    pub fn learn(&mut self, forward: u64, reverse: u64, both: bool, base: u8) {
        let context = (forward as usize) % CONTEXTS;
        let mut best = (0, i32::MIN);
        let guesses = CLASS[self.at % 3].iter().zip(&mut self.scores);
        for (guess, (class, score)) in guesses.enumerate() {
            let p = self.tables[usize::from(*class) % CLASSES][context][usize::from(base & 3)];
            *score -= (*score >> FORGET) + COSTS[(p >> 6).clamp(0, 1023) as usize];
            if *score > best.1 {
                best = (guess, *score);
            }
        }
        if best.1 > self.scores[self.believed % CLASSES] + BETTER_BY {
            self.believed = best.0;
        }
        let class = self.class();
        self.at = (self.at + 1) % 3;
        if both {
            let class = self.class_of_other_strand(ORDER);
            let context = ((reverse >> 2 | u64::from(3 - base) << 62) >> (64 - 2 * ORDER)) as usize;
            let other = 3 - ((forward << 2 | u64::from(base)) >> (2 * ORDER) & 3) as usize;
            teach(&mut self.tables[class % CLASSES][context % CONTEXTS], other);
        }
        teach(&mut self.tables[class % CLASSES][context], usize::from(base & 3));
    }
}

/// Moves the probabilities of a row towards a base that came.
#[inline(always)]
fn teach(row: &mut [i32; 4], base: usize) {
    for (n, p) in row.iter_mut().enumerate() {
        let target = if n == base { ONE } else { 0 };
        *p += (target - *p) >> RATE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_logarithms() {
        for (i, cost) in COSTS.iter().enumerate() {
            let exact = -((i as f64 + 0.5) / 1024.0).log2() * 256.0;
            assert!((f64::from(*cost) - exact).abs() < 2.0, "{i}: {cost} {exact}");
        }
    }

    /// A code whose codons use their places differently is sorted by place.
    #[test]
    fn places_of_codons_are_told_apart() {
        let mut phase = Phase::new();
        let mut x = 1u64;
        let (mut forward, mut reverse) = (0u64, 0u64);
        let mut places = [[0u32; CLASSES]; 3];
        for n in 0..60_000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let likely = if x >> 60 < 11 { [0, 2, 3][n % 3] } else { (x >> 50 & 3) as u8 };
            if n > 40_000 {
                places[n % 3][phase.class()] += 1;
            }
            phase.learn(forward, reverse, n >= 32, likely);
            forward = forward << 2 | u64::from(likely);
            reverse = reverse >> 2 | u64::from(3 - likely) << 62;
        }
        let most: Vec<usize> = places.iter().map(|p| (0..CLASSES).max_by_key(|c| p[*c]).unwrap()).collect();
        assert!(most[0] != most[1] && most[1] != most[2] && most[0] != most[2], "{places:?}");
        assert!(most.iter().zip(places).all(|(class, p)| p[*class] > 6000), "{places:?}");
    }
}
