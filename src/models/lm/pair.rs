//! Two cores for one lane. A lane that is read alone waits for weights to come from memory, and one core cannot fetch them as
//! fast as a machine has them: a second one multiplies half of the rows of each matrix.
//!
//! Sums of whole numbers are the same whoever computes them, and each row is computed whole by one of the two. The second core
//! is not waited for: where it has other work, the first soon computes that half too, and goes on alone until the other answers.

use std::hint::spin_loop;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, Scope};

use super::kernels::Path;
use super::weights::{Factors, Matrix, multiply};

/// Turns of a loop that the first core gives the second when its own half is done: some tens of microseconds.
const PATIENCE: u32 = 500;
/// Turns that the second waits for more to do without giving up its core: longer than all that is done between two products.
const SPINS: u32 = 4_000;
/// And times that it then offers its core to others before it sleeps.
const YIELDS: u32 = 200;

/// Half of a product.
struct Half<'a> {
    matrix: &'a Matrix,
    factors: Factors,
    out: Vec<f32>,
}

/// A second core.
pub(super) struct Mate<'a> {
    tasks: Sender<Half<'a>>,
    done: Receiver<Half<'a>>,
    state: State,
}

enum State {
    /// It has nothing to do; here is memory for the next half.
    Idle(Factors, Vec<f32>),
    /// It has not answered in time.
    Behind,
    /// It has ended before its time, by a panic, which shows where the threads are joined.
    Gone,
}

/// Takes what comes next, at once if it comes soon. `None` when nothing will.
fn next<T>(from: &Receiver<T>) -> Option<T> {
    for turn in 0..SPINS + YIELDS {
        match from.try_recv() {
            Ok(got) => return Some(got),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if turn < SPINS => spin_loop(),
            Err(TryRecvError::Empty) => thread::yield_now(),
        }
    }
    from.recv().ok()
}

impl<'a> Mate<'a> {
    /// Starts one, which ends when it is dropped. `None` where the machine has one core, or gives no thread.
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, path: Path) -> Option<Mate<'a>>
    where
        'a: 'scope,
    {
        if thread::available_parallelism().map_or(1, |n| n.get()) < 2 {
            return None;
        }
        let (tasks, asked) = channel::<Half<'a>>();
        let (answers, done) = channel();
        let work = move || {
            while let Some(mut half) = next(&asked) {
                let groups = half.matrix.groups_count();
                multiply(path, half.matrix, &half.factors, groups / 2..groups, &mut half.out);
                if answers.send(half).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("tersefs-lane".into()).spawn_scoped(scope, work).ok()?;
        Some(Mate { tasks, done, state: State::Idle(Factors::default(), Vec::new()) })
    }

    /// The answer to what was asked last, if it comes within so many turns.
    fn answer(&mut self, turns: u32) -> Option<Half<'a>> {
        for _ in 0..turns {
            match self.done.try_recv() {
                Ok(half) => return Some(half),
                Err(TryRecvError::Empty) => spin_loop(),
                Err(TryRecvError::Disconnected) => {
                    self.state = State::Gone;
                    return None;
                }
            }
        }
        None
    }

    /// As `multiply` of all groups, for one row of factors.
    pub fn multiply(&mut self, path: Path, matrix: &'a Matrix, factors: &Factors, out: &mut Vec<f32>) {
        let groups = matrix.groups_count();
        if let State::Behind = self.state
            && let Some(late) = self.answer(1)
        {
            self.state = State::Idle(late.factors, late.out);
        }
        let State::Idle(copy, spare) = &mut self.state else {
            return multiply(path, matrix, factors, 0..groups, out);
        };
        copy.clone_from(factors);
        let half = Half { matrix, factors: std::mem::take(copy), out: std::mem::take(spare) };
        self.state = State::Behind;
        if self.tasks.send(half).is_err() {
            self.state = State::Gone;
            return multiply(path, matrix, factors, 0..groups, out);
        }
        multiply(path, matrix, factors, 0..groups / 2, out);
        match self.answer(PATIENCE) {
            Some(half) => {
                out.extend_from_slice(&half.out);
                self.state = State::Idle(half.factors, half.out);
            }
            None => {
                let mut rest = Vec::new();
                multiply(path, matrix, factors, groups / 2..groups, &mut rest);
                out.append(&mut rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::weights::{Grain, fill};
    use super::*;

    fn matrix(rows: usize) -> Matrix {
        let mut matrix = Matrix::new(rows, 64);
        (0..rows).for_each(|n| matrix.set_row(n, &[(); 64].map(|()| n as f32 - 20.5)));
        matrix
    }

    /// Of matrices with nothing in the first half, too, and whether the second core answers in time or not.
    #[test]
    fn two_give_what_one_gives() {
        let matrices = [1, 48, 96, 145, 4000].map(matrix);
        let (path, mut factors) = (Path::best(), Factors::default());
        fill(path, &[(); 64].map(|()| 0.7), 64, Grain::Fine, &mut factors);
        thread::scope(|scope| {
            let Some(mut mate) = Mate::start(scope, path) else { return };
            for turn in 0..300 {
                let matrix = &matrices[turn % matrices.len()];
                let (mut one, mut two) = (Vec::new(), Vec::new());
                multiply(path, matrix, &factors, 0..matrix.groups_count(), &mut one);
                mate.multiply(path, matrix, &factors, &mut two);
                assert!(one.iter().map(|x| x.to_bits()).eq(two.iter().map(|x| x.to_bits())), "turn {turn}");
                assert!(!matches!(mate.state, State::Gone));
                if turn % 50 == 49 {
                    // What came late is taken at last.
                    let late = matches!(mate.state, State::Behind).then(|| mate.done.recv().unwrap());
                    if let Some(late) = late {
                        mate.state = State::Idle(late.factors, late.out);
                    }
                }
            }
        });
    }
}
