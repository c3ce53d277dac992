//! Bounded pool for computing: reads first, background second.
//!
//! Must not know: what a job does. Two sets of threads: one serves readers (and decodes ahead when no reader waits), one
//! works in the background at the lowest priority, so that the scheduler of the machine gives cores to readers first
//! even in the middle of a background job. A job that panics is caught and logged; the thread lives on.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::host;
use crate::telemetry;

/// A piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait, by priority. The kernel bounds its reads far below the first.
const READS_MAX: usize = 4096;
const AHEAD_MAX: usize = 64;
const BACKGROUND_MAX: usize = 1024;
/// Readers are served a little below the threads that talk to the kernel, so that `stat` stays fast while all decode.
const READ_NICE: i32 = 5;
const BACKGROUND_NICE: i32 = 19;

/// Which queue a job waits in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Priority {
    /// A reader waits for it.
    Read,
    /// A reader will probably want it (decode ahead).
    Ahead,
    /// Nobody waits (coding, scrub).
    Background,
}

#[derive(Default)]
struct Queues {
    read: VecDeque<Job>,
    ahead: VecDeque<Job>,
    background: VecDeque<Job>,
    stopping: bool,
}

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    /// A job for readers, or the end.
    read: Condvar,
    /// A background job, or the end.
    background: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for the next job; `None` at the end.
    fn next(&self, for_readers: bool) -> Option<Job> {
        let mut queues = self.lock();
        loop {
            if queues.stopping {
                return None;
            }
            let job = if for_readers {
                queues.read.pop_front().or_else(|| queues.ahead.pop_front())
            } else {
                queues.background.pop_front()
            };
            if job.is_some() {
                return job;
            }
            let bell = if for_readers { &self.read } else { &self.background };
            queues = bell.wait(queues).unwrap_or_else(|e| e.into_inner());
        }
    }
}

/// Threads that compute. Dropping it finishes running jobs and drops waiting ones.
pub struct Workers {
    shared: Arc<Shared>,
    threads: usize,
    handles: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads` threads (at least one) for readers and as many for background work.
    pub fn new(threads: usize) -> Workers {
        let threads = threads.max(1);
        let shared = Arc::new(Shared::default());
        let mut handles = Vec::new();
        for n in 0..threads * 2 {
            let for_readers = n < threads;
            let shared = shared.clone();
            let name = if for_readers { format!("read-{n}") } else { format!("code-{}", n - threads) };
            let run = move || {
                host::lower_priority(if for_readers { READ_NICE } else { BACKGROUND_NICE }, !for_readers);
                while let Some(job) = shared.next(for_readers) {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        telemetry::JOBS_PANICKED.add(1);
                        log::error!("a job of the pool panicked; the pool goes on");
                    }
                }
            };
            match std::thread::Builder::new().name(name).spawn(run) {
                Ok(handle) => handles.push(handle),
                Err(e) => log::error!("cannot start a worker thread: {e}"),
            }
        }
        Workers { shared, threads, handles }
    }

    /// Queues a job. When the queue of its priority is full, gives the job back.
    pub fn submit(&self, priority: Priority, job: Job) -> Result<(), Job> {
        let mut queues = self.shared.lock();
        let (queue, max, bell) = match priority {
            Priority::Read => (&mut queues.read, READS_MAX, &self.shared.read),
            Priority::Ahead => (&mut queues.ahead, AHEAD_MAX, &self.shared.read),
            Priority::Background => (&mut queues.background, BACKGROUND_MAX, &self.shared.background),
        };
        if queue.len() >= max {
            return Err(job);
        }
        queue.push_back(job);
        bell.notify_one();
        Ok(())
    }

    /// True when a reader waits for a thread.
    pub fn readers_wait(&self) -> bool {
        !self.shared.lock().read.is_empty()
    }

    /// Threads per kind of work.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let waiting = {
            let mut queues = self.shared.lock();
            queues.stopping = true;
            (
                std::mem::take(&mut queues.read),
                std::mem::take(&mut queues.ahead),
                std::mem::take(&mut queues.background),
            )
        };
        // Dropped outside the lock: a job may tell somebody that it will not run.
        drop(waiting);
        self.shared.read.notify_all();
        self.shared.background.notify_all();
        let me = std::thread::current().id();
        for handle in self.handles.drain(..) {
            // The last owner may be a job itself.
            if handle.thread().id() != me {
                let _ = handle.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn runs_jobs_and_survives_a_panic() {
        let workers = Workers::new(1);
        let (tx, rx) = mpsc::channel();
        assert!(workers.submit(Priority::Read, Box::new(|| panic!("a job of a test"))).is_ok());
        for n in 0..10 {
            let tx = tx.clone();
            let priority = [Priority::Read, Priority::Ahead, Priority::Background][n % 3];
            assert!(workers.submit(priority, Box::new(move || tx.send(n).unwrap())).is_ok());
        }
        drop(tx);
        let mut seen: Vec<usize> = rx.iter().collect();
        seen.sort();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let workers = Workers::new(1);
        let (hold, held) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let first = Box::new(move || {
            started.send(()).unwrap();
            let _ = held.recv();
        });
        assert!(workers.submit(Priority::Ahead, first).is_ok());
        start.recv().unwrap();
        for _ in 0..AHEAD_MAX {
            assert!(workers.submit(Priority::Ahead, Box::new(|| ())).is_ok());
        }
        assert!(workers.submit(Priority::Ahead, Box::new(|| ())).is_err());
        drop(hold);
    }
}
