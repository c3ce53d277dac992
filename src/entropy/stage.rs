//! A last stage, and maps of histories: small and quick forms of `Apm` and `StateMap`, a cache line where those have more.

use super::history::{HISTORIES, History};
use super::logistic::{STRETCH, STRETCH_MAX, squash};

/// Points of the probability axis.
const POINTS: usize = 16;
/// Stretched distance between two.
const STEP: usize = 416;
/// The axis reaches a little beyond the bounds, so that its steps are alike.
const REACH: i32 = (STEP * (POINTS - 1) / 2) as i32;
const _: () = assert!(REACH > STRETCH_MAX);
/// A new observation counts 1/64.
const STAGE_RATE: u32 = 6;

#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Points([u16; POINTS]);

/// Corrects a probability in a context by what came of such probabilities before. `N` contexts, a power of two.
#[derive(Clone, Debug)]
pub struct Stage<const N: usize> {
    rows: Box<[Points; N]>,
    context: usize,
    point: usize,
}

impl<const N: usize> Stage<N> {
    /// Bytes of its rows.
    pub const BYTES: u64 = (N * size_of::<Points>()) as u64;

    /// Gives back what it is given, until it has learned.
    pub fn new() -> Stage<N> {
        let points = std::array::from_fn(|i| squash((i * STEP) as i32 - REACH));
        Stage { rows: super::boxed(Points(points)), context: 0, point: 0 }
    }

    /// Takes what another has learned.
    pub fn copy_from(&mut self, other: &Stage<N>) {
        self.rows.as_mut_slice().copy_from_slice(other.rows.as_slice());
        (self.context, self.point) = (other.context, other.point);
    }

    /// Says which context is next, early, so that its cache miss overlaps with other work.
    #[inline(always)]
    pub fn choose(&mut self, context: usize) {
        self.context = context & (N - 1);
        prefetch_index::prefetch_index(self.rows.as_slice(), self.context);
    }

    /// Corrected probability (1/65536) of a stretched one, which is within the bounds.
    #[inline(always)]
    pub fn refine(&mut self, stretched: i32) -> u16 {
        let x = (stretched + REACH).max(0) as usize;
        let (i, w) = (x / STEP, x % STEP);
        let row = &self.rows[self.context & (N - 1)].0;
        let (a, b) = (usize::from(row[i % POINTS]), usize::from(row[(i + 1) % POINTS]));
        self.point = i + usize::from(w * 2 > STEP);
        ((a * (STEP - w) + b * w) / STEP) as u16
    }

    /// Learns the bit that came, at the nearest point.
    #[inline(always)]
    pub fn update(&mut self, bit: u8) {
        let point = &mut self.rows[self.context & (N - 1)].0[self.point % POINTS];
        let target = if bit != 0 { 65_535 } else { 0 };
        let p = i32::from(*point);
        *point = (p + ((target - p) >> STAGE_RATE)) as u16;
    }
}

impl<const N: usize> Default for Stage<N> {
    fn default() -> Stage<N> {
        Stage::new()
    }
}

/// Shift of a new observation in `Outcomes`: it counts 1/128.
const OUTCOME_RATE: u32 = 7;

/// What came after each history: probabilities of a 1 in 1/2^32, and the same stretched.
#[derive(Clone, Debug)]
pub struct Outcomes {
    after: [u32; 256],
    stretched: [i16; 256],
}

impl Outcomes {
    /// From the histories' own guesses.
    pub fn new() -> Outcomes {
        let after = std::array::from_fn(|h| u32::from(HISTORIES.guess(h as u8)) << 16);
        Outcomes { after, stretched: after.map(stretched) }
    }

    /// Stretched probability of a 1 after a history.
    #[inline(always)]
    pub fn stretched(&self, history: History) -> i16 {
        self.stretched[usize::from(history)]
    }

    /// Learns the bit that came after a history.
    #[inline(always)]
    pub fn update(&mut self, history: History, bit: u8) {
        // For a 1 the distance to the top shrinks, for a 0 that to the bottom: the same step on the complement.
        let mask = 0u32.wrapping_sub(u32::from(bit & 1));
        let distance = self.after[usize::from(history)] ^ mask;
        let after = (distance - (distance >> OUTCOME_RATE)) ^ mask;
        self.after[usize::from(history)] = after;
        self.stretched[usize::from(history)] = stretched(after);
    }
}

#[inline(always)]
fn stretched(after: u32) -> i16 {
    STRETCH[(after >> 20) as usize]
}

impl Default for Outcomes {
    fn default() -> Outcomes {
        Outcomes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_gives_back_what_it_gets_and_then_learns() {
        let mut stage: Stage<4> = Stage::new();
        for x in [-STRETCH_MAX, -700, -1, 0, 5, 416, 2000, STRETCH_MAX] {
            stage.choose(1);
            assert!(stage.refine(x).abs_diff(squash(x)) < 2000, "{x}");
        }
        for _ in 0..500 {
            stage.choose(2);
            stage.refine(0);
            stage.update(1);
        }
        stage.choose(2);
        let learned = stage.refine(0);
        stage.choose(3);
        assert!(learned > 50_000 && stage.refine(0).abs_diff(32_768) < 100, "{learned}");
    }

    #[test]
    fn outcomes_approach_what_comes() {
        let mut o = Outcomes::new();
        for _ in 0..4000 {
            o.update(9, 1);
            o.update(10, 0);
        }
        let (ones, zeros) = (o.stretched(9), o.stretched(10));
        assert!(ones > 1500 && zeros < -1500, "{ones} {zeros}");
    }
}
