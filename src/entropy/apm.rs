//! Adaptive maps from a small context to a probability.

use super::history::HISTORIES;
use super::logistic::{STRETCH_MAX, squash};

/// 65536 / (n + 1.5): the share of a new observation after `n` others.
const fn reciprocals() -> [u32; 1024] {
    let mut t = [0; 1024];
    let mut n = 0;
    while n < 1024 {
        t[n] = (131072 / (2 * n + 3)) as u32;
        n += 1;
    }
    t
}

static SHARE: [u32; 1024] = reciprocals();

/// Probability per context: 22 bits of probability, 10 bits of count. A context learns fast at first, then at the rate of
/// the limit.
#[derive(Clone, Debug)]
pub struct StateMap<const N: usize> {
    slots: [u32; N],
}

/// Observations that a first guess counts as.
const GUESS_WEIGHT: u32 = 6;

impl StateMap<256> {
    /// One context per bit history, starting from its own guess.
    pub fn of_histories() -> StateMap<256> {
        StateMap::new(|h| HISTORIES.guess(h as u8))
    }
}

impl<const N: usize> StateMap<N> {
    /// `N` contexts (a power of two) with a first guess each.
    pub fn new(p: impl Fn(usize) -> u16) -> StateMap<N> {
        let mut slots = [0; N];
        for (i, slot) in slots.iter_mut().enumerate() {
            *slot = u32::from(p(i)) << 16 | GUESS_WEIGHT;
        }
        StateMap { slots }
    }

    /// Probability of a 1 in a context, 1/65536.
    #[inline]
    pub fn p(&self, context: usize) -> u16 {
        (self.slots[context & (N - 1)] >> 16) as u16
    }

    /// Learns a bit. `limit` bounds the count: 1/limit is the slowest rate.
    #[inline]
    pub fn update(&mut self, context: usize, bit: u8, limit: u32) {
        let slot = &mut self.slots[context & (N - 1)];
        let n = *slot & 1023;
        let p = *slot >> 10;
        let target = u32::from(bit) * 0x3f_ffff;
        let step = ((i64::from(target) - i64::from(p)) * i64::from(SHARE[n as usize])) >> 16;
        let p = (i64::from(p) + step) as u32;
        *slot = p << 10 | if n < limit { n + 1 } else { n };
    }
}

/// Steps of the probability axis of an `Apm`.
const STEPS: usize = 25;
/// Stretched width of a step: the axis spans STEPS - 1 of them around zero.
const STEP: i32 = 256;
const _: () = assert!(STEP * (STEPS as i32 - 1) == 2 * (STRETCH_MAX + 1));

/// Adaptive probability map (secondary estimation): corrects a probability in a context by what came of such
/// probabilities before, interpolating between two steps.
#[derive(Clone, Debug)]
pub struct Apm<const N: usize> {
    slots: Vec<[u16; STEPS]>,
    /// Context and step that the last probability came from.
    at: (usize, usize),
}

impl<const N: usize> Apm<N> {
    /// `N` contexts (a power of two), each giving back what it is given.
    pub fn new() -> Apm<N> {
        let mut row = [0; STEPS];
        for (i, slot) in row.iter_mut().enumerate() {
            *slot = squash(i as i32 * STEP - STRETCH_MAX - 1);
        }
        Apm { slots: vec![row; N], at: (0, 0) }
    }

    /// Back to the start, keeping the memory.
    pub fn reset(&mut self) {
        let fresh = Apm::<1>::new();
        if let Some(row) = fresh.slots.first() {
            self.slots.fill(*row);
        }
        self.at = (0, 0);
    }

    /// Corrected probability (1/65536) of a stretched one in a context.
    #[inline]
    pub fn refine(&mut self, stretched: i32, context: usize) -> u16 {
        let x = (stretched.clamp(-STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX + 1) as usize;
        let (i, w) = ((x / STEP as usize).min(STEPS - 2), x % STEP as usize);
        let context = context & (N - 1);
        let Some(row) = self.slots.get(context) else { return 32768 };
        let (a, b) = (row[i] as usize, row[i + 1] as usize);
        self.at = (context, if w * 2 > STEP as usize { i + 1 } else { i });
        ((a * (STEP as usize - w) + b * w) / STEP as usize) as u16
    }

    /// Learns the bit that came, in the step that counted most.
    #[inline]
    pub fn update(&mut self, bit: u8, rate: u32) {
        let (context, i) = self.at;
        if let Some(slot) = self.slots.get_mut(context).and_then(|row| row.get_mut(i)) {
            let target = if bit != 0 { 65535i32 } else { 0 };
            let p = i32::from(*slot);
            *slot = (p + ((target - p) >> rate)) as u16;
        }
    }
}

impl<const N: usize> Default for Apm<N> {
    fn default() -> Apm<N> {
        Apm::new()
    }
}
