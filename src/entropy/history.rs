//! Bit histories: what has been seen in a context, in one byte.
//!
//! A history is a pair of counts of zeros and ones, bounded so that all fit a byte, and the last bit where both occurred.
//! A new bit raises its count; a large count of the other bit is cut, since what was true is true no more (the idea of
//! indirect context models, M. Mahoney, paq6 to zpaq; states and rules here are our own).

/// Number of a history. 0 has seen nothing.
pub type History = u8;

/// Largest count of a faded history.
const FADED_MAX: u8 = 8;

/// Largest count of one bit, by the count of the other.
const LIMITS: [u8; 8] = [40, 24, 12, 7, 5, 4, 0, 0];

/// All histories: counts, next ones, and a first guess of the probability.
pub struct Table {
    /// Next history after a 0 and after a 1.
    pub next: [[History; 2]; 256],
    /// (zeros, ones) of each.
    pub counts: [(u8, u8); 256],
    /// What is left of each where the data changes: counts of no more than `FADED_MAX`, in about the same ratio.
    pub faded: [History; 256],
    /// Histories in use.
    pub len: usize,
}

const fn allowed(n0: u8, n1: u8) -> bool {
    let (low, high) = if n0 < n1 { (n0, n1) } else { (n1, n0) };
    high <= LIMITS[if low > 7 { 7 } else { low } as usize]
}

/// Count of the bit that did not come, after it was contradicted.
const fn discount(n: u8) -> u8 {
    match n {
        0..=2 => n,
        3..=4 => n - 1,
        5..=8 => 4,
        9..=16 => 5,
        _ => 6,
    }
}

/// A count of a history whose larger one is `most`, when it is faded.
const fn fade(n: u8, most: u8) -> u8 {
    let scaled = ((n as u32 * FADED_MAX as u32 + most as u32 / 2) / most as u32) as u8;
    // What was seen once is not forgotten.
    if most <= FADED_MAX || n == 0 {
        n
    } else if scaled == 0 {
        1
    } else {
        scaled
    }
}

/// Counts after a bit: (zeros, ones).
const fn advance(n0: u8, n1: u8, bit: u8) -> (u8, u8) {
    let (mut same, mut other) = if bit == 0 { (n0, n1) } else { (n1, n0) };
    other = discount(other);
    if allowed(same + 1, other) {
        same += 1;
    } else {
        // The bound is reached: keep the ratio as far as it can be kept.
        while !allowed(same, other) {
            if same > 0 && same >= other { same -= 1 } else { other -= 1 }
        }
    }
    if bit == 0 { (same, other) } else { (other, same) }
}

const fn table() -> Table {
    // index[n0][n1][last]: number + 1 of a history, 0 where there is none.
    let mut index = [[[0u16; 2]; 41]; 41];
    let mut counts = [(0u8, 0u8); 256];
    let mut lasts = [0; 256];
    let mut len = 0;
    let mut total = 0;
    // In the order of their totals, so that a low number means little seen: replacement looks at it.
    while total <= 80 {
        let mut n0 = 0;
        while n0 <= total {
            let n1 = total - n0;
            if n0 <= 40 && n1 <= 40 && allowed(n0 as u8, n1 as u8) {
                // The last bit matters where both have been seen.
                let kinds = if n0 > 0 && n1 > 0 { 2 } else { 1 };
                let mut last = 0;
                while last < 2 {
                    if last < kinds {
                        index[n0][n1][last] = len as u16 + 1;
                        counts[len] = (n0 as u8, n1 as u8);
                        lasts[len] = last;
                        len += 1;
                    } else {
                        index[n0][n1][last] = index[n0][n1][0];
                    }
                    last += 1;
                }
            }
            n0 += 1;
        }
        total += 1;
    }
    assert!(len <= 256);
    let mut next = [[0u8; 2]; 256];
    let mut faded = [0u8; 256];
    let mut i = 0;
    while i < len {
        let mut bit = 0;
        while bit < 2 {
            let (n0, n1) = advance(counts[i].0, counts[i].1, bit as u8);
            let number = index[n0 as usize][n1 as usize][bit];
            assert!(number > 0);
            next[i][bit] = (number - 1) as u8;
            bit += 1;
        }
        let (n0, n1) = counts[i];
        let most = if n0 > n1 { n0 } else { n1 };
        if most > 0 {
            let number = index[fade(n0, most) as usize][fade(n1, most) as usize][lasts[i]];
            assert!(number > 0);
            faded[i] = (number - 1) as u8;
        }
        i += 1;
    }
    Table { next, counts, faded, len }
}

/// The one table of histories.
pub static HISTORIES: Table = table();

impl Table {
    /// The history after one more bit.
    #[inline]
    pub fn after(&self, history: History, bit: u8) -> History {
        self.next[usize::from(history)][usize::from(bit & 1)]
    }

    /// What is left of a history where the data changes.
    #[inline]
    pub fn fade(&self, history: History) -> History {
        self.faded[usize::from(history)]
    }

    /// First guess of the probability of a 1 after a history, in 1/65536.
    pub fn guess(&self, history: History) -> u16 {
        let (n0, n1) = self.counts[usize::from(history)];
        let (n0, n1) = (u32::from(n0), u32::from(n1));
        // A pure history is worth more than its counts say: (n1 + 1/4) / (n0 + n1 + 1/2).
        ((65536 * (4 * n1 + 1)) / (4 * (n0 + n1) + 2)).clamp(32, 65504) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_a_byte_and_leads_only_to_histories() {
        assert!(HISTORIES.len > 150 && HISTORIES.len <= 256, "{}", HISTORIES.len);
        for h in 0..HISTORIES.len {
            for bit in 0..2 {
                assert!(usize::from(HISTORIES.after(h as u8, bit)) < HISTORIES.len);
            }
        }
    }

    #[test]
    fn what_is_faded_says_the_same_and_is_sooner_contradicted() {
        for h in 0..HISTORIES.len {
            let faded = HISTORIES.fade(h as u8);
            let ((a, b), (x, y)) = (HISTORIES.counts[h], HISTORIES.counts[usize::from(faded)]);
            assert!(x.max(y) == a.max(b).min(FADED_MAX) && (x == 0) == (a == 0) && (y == 0) == (b == 0));
            assert_eq!((x.cmp(&y), HISTORIES.fade(faded)), (a.cmp(&b), faded));
        }
        let sure = (0..40).fold(0, |h, _| HISTORIES.after(h, 1));
        assert!(HISTORIES.guess(HISTORIES.fade(sure)) < HISTORIES.guess(sure));
    }

    #[test]
    fn repeated_bits_make_the_guess_surer() {
        let mut h = 0;
        let mut last = HISTORIES.guess(h);
        for _ in 0..40 {
            h = HISTORIES.after(h, 1);
            assert!(HISTORIES.guess(h) >= last);
            last = HISTORIES.guess(h);
        }
        assert!(last > 64000);
        assert!(HISTORIES.guess(HISTORIES.after(h, 0)) < last);
    }
}
