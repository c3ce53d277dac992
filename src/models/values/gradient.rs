//! Weights of many values before one, moved after each a little in the direction that would have predicted it better, by as
//! much as the values are large (normalised least mean squares). f32, in lanes that are summed in one written order.

const LANES: usize = 16;
/// Values that come before the history is moved to the end of its room again.
const ROOM: usize = 2048;
/// What is added to the sum of squares, lest silence divides by nothing.
const FLOOR: f32 = 1.0;

/// Predicts a value from the `N` before it.
pub struct Gradient<const N: usize> {
    weights: Box<[f32; N]>,
    /// The latest first, from `at` on.
    history: Vec<f32>,
    at: usize,
    rate: f32,
    /// The sum of squares of the history, if it is not summed anew for each value.
    squares: Option<f64>,
}

impl<const N: usize> Gradient<N> {
    /// Bytes of it.
    pub const BYTES: u64 = ((2 * N + ROOM) * size_of::<f32>()) as u64;

    pub fn new(rate: f32) -> Gradient<N> {
        const { assert!(N.is_multiple_of(LANES)) };
        Gradient { weights: Box::new([0.0; N]), history: vec![0.0; N + ROOM], at: ROOM, rate, squares: None }
    }

    /// The same, with a sum of squares that runs along: a third less work.
    pub fn running(rate: f32) -> Gradient<N> {
        Gradient { squares: Some(0.0), ..Gradient::new(rate) }
    }

    /// The sum of squares of the history.
    #[inline(always)]
    fn squares(&self) -> f32 {
        if let Some(squares) = self.squares {
            return squares as f32;
        }
        let mut lanes = [0.0; LANES];
        for history in self.history[self.at..self.at + N].chunks_exact(LANES) {
            for lane in 0..LANES {
                lanes[lane] += history[lane] * history[lane];
            }
        }
        Self::sum(lanes)
    }

    fn sum(lanes: [f32; LANES]) -> f32 {
        let four: [f32; 4] = std::array::from_fn(|l| (lanes[l] + lanes[l + 4]) + (lanes[l + 8] + lanes[l + 12]));
        (four[0] + four[2]) + (four[1] + four[3])
    }

    /// What the values before lead to expect.
    #[inline(always)]
    pub fn predict(&self) -> f32 {
        let mut lanes = [0.0; LANES];
        let history = self.history[self.at..self.at + N].chunks_exact(LANES);
        for (weights, history) in self.weights.chunks_exact(LANES).zip(history) {
            for lane in 0..LANES {
                lanes[lane] += weights[lane] * history[lane];
            }
        }
        Self::sum(lanes)
    }

    /// Takes the value that came, which the prediction had `missed` by so much.
    #[inline(always)]
    pub fn observe(&mut self, missed: f32, came: f32) {
        let step = self.rate * missed / (self.squares() + FLOOR);
        let history = &self.history[self.at..self.at + N];
        if let Some(squares) = &mut self.squares {
            let (came, goes) = (f64::from(came), f64::from(history[N - 1]));
            let sum = *squares + came * came - goes * goes;
            // What is lost by rounding may leave less than nothing.
            *squares = if sum > 0.0 { sum } else { 0.0 };
        }
        for (weights, history) in self.weights.chunks_exact_mut(LANES).zip(history.chunks_exact(LANES)) {
            for lane in 0..LANES {
                weights[lane] += step * history[lane];
            }
        }
        if self.at == 0 {
            self.history.copy_within(0..N, ROOM);
            self.at = ROOM;
        }
        self.at -= 1;
        self.history[self.at] = came;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_learned() {
        for mut gradient in [Gradient::<32>::new(0.05), Gradient::running(0.05)] {
            let mut missed = [0.0; 2];
            for n in 0..6000 {
                let came = if n / 8 % 2 == 0 { 100.0 } else { -100.0 };
                let off = came - gradient.predict();
                missed[usize::from(n >= 5000)] += off.abs();
                gradient.observe(off, came);
            }
            assert!(missed[1] < 1000.0 && missed[0] > 20.0 * missed[1], "{missed:?}");
        }
    }
}
