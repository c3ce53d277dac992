//! The pulse: whether the loops of the daemon still answer. A service manager is told only what was found out here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::compressor::Compressor;
use crate::workers::{Priority, Workers};

/// Whether something that does not answer has moved is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Counts the times that every loop of the daemon answered.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// Beats so far. One that does not grow for some periods is that of a daemon that does not answer.
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Something that touches the volume and the kernel's way to it, and returns when both have answered.
pub(super) type Touch = Arc<dyn Fn() + Send + Sync>;

/// Asks the loops every `period` until the end. The task itself needs tokio's threads, `touch` one of those for blocking
/// calls and the threads that talk to the kernel; the pool for readers and the compressor are asked by name. Coders are
/// not: where others take all of the machine's time, they may wait for it for as long as it is so.
pub(super) async fn run(
    pulse: Arc<Pulse>,
    period: Duration,
    touch: Touch,
    workers: Arc<Workers>,
    compressor: Arc<Compressor>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let touch = touch.clone();
        let asked = async {
            let touched = tokio::task::spawn_blocking(move || touch()).await.is_ok();
            pool_answers(&workers).await;
            let round = compressor.rounds();
            while compressor.rounds() == round {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            touched
        };
        tokio::select! {
            touched = asked => if touched {
                pulse.0.fetch_add(1, Ordering::AcqRel);
            },
            _ = stop.changed() => return,
        }
        tokio::select! {
            _ = tokio::time::sleep(period) => {}
            _ = stop.changed() => return,
        }
    }
}

/// Waits until the pool has done a job for readers: this one, or one that was before it, since many may wait.
async fn pool_answers(workers: &Workers) {
    let before = workers.reads_done();
    let (tell, mut told) = oneshot::channel::<()>();
    let job = move || {
        let _ = tell.send(());
    };
    // One that finds no place is kept, since its end would be taken for an answer: that of others is waited for.
    let _kept = workers.submit(Priority::Read, Box::new(job)).err();
    loop {
        tokio::select! {
            _ = &mut told => return,
            _ = tokio::time::sleep(LOOK_EVERY) => if workers.reads_done() != before {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn a_pool_that_hangs_does_not_answer_and_one_that_is_busy_does() {
        let workers = Workers::new(1);
        let (hold, held) = mpsc::channel::<()>();
        let (begun, begin) = mpsc::channel::<()>();
        let job = move || {
            begun.send(()).unwrap();
            let _ = held.recv();
        };
        assert!(workers.submit(Priority::Read, Box::new(job)).is_ok());
        begin.recv().unwrap();
        runtime().block_on(async {
            let asked = tokio::time::timeout(LOOK_EVERY * 5, pool_answers(&workers)).await;
            assert!(asked.is_err(), "its only thread hangs");
            // Many wait, and one of them ends: the pool moves.
            for _ in 0..50 {
                assert!(
                    workers.submit(Priority::Read, Box::new(|| std::thread::sleep(Duration::from_millis(100)))).is_ok()
                );
            }
            drop(hold);
            let asked = tokio::time::timeout(Duration::from_secs(4), pool_answers(&workers)).await;
            assert!(asked.is_ok(), "it works on");
        });
    }
}
