//! Bounded pool for computing: reads first, background second.
//!
//! Must not know: what a job does. Two sets of threads: one serves readers (and decodes ahead when no reader waits), one
//! works in the background at the lowest priority, so that the scheduler of the machine gives cores to readers first
//! even in the middle of a background job. Each has a twin for jobs that take minutes, so that what takes milliseconds never
//! waits behind them. A job that panics is caught and logged; the thread lives on.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// As `Read`, and takes seconds to minutes.
    SlowRead,
    /// As `Background`, and takes minutes.
    SlowBackground,
}

/// A set of threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Set {
    Readers,
    Background,
    SlowReaders,
    SlowBackground,
}

impl Set {
    const ALL: [Set; 4] = [Set::Readers, Set::Background, Set::SlowReaders, Set::SlowBackground];

    /// How its threads are called, how far the scheduler lets others go first, and whether it has idle time only.
    fn traits(self) -> (&'static str, i32, bool) {
        match self {
            Set::Readers => ("read", READ_NICE, false),
            Set::Background => ("code", BACKGROUND_NICE, true),
            Set::SlowReaders => ("slow-read", READ_NICE, false),
            Set::SlowBackground => ("slow-code", BACKGROUND_NICE, true),
        }
    }
}

#[derive(Default)]
struct Queues {
    read: VecDeque<Job>,
    ahead: VecDeque<Job>,
    background: VecDeque<Job>,
    slow_read: VecDeque<Job>,
    slow_background: VecDeque<Job>,
    stopping: bool,
}

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    /// A job for readers, or the end.
    read: Condvar,
    /// A background job, or the end.
    background: Condvar,
    slow_read: Condvar,
    slow_background: Condvar,
    /// Jobs of the readers' set that have ended.
    reads_done: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for the next job; `None` at the end.
    fn next(&self, set: Set) -> Option<Job> {
        let mut queues = self.lock();
        loop {
            if queues.stopping {
                return None;
            }
            let (job, bell) = match set {
                Set::Readers => (queues.read.pop_front().or_else(|| queues.ahead.pop_front()), &self.read),
                Set::Background => (queues.background.pop_front(), &self.background),
                Set::SlowReaders => (queues.slow_read.pop_front(), &self.slow_read),
                Set::SlowBackground => (queues.slow_background.pop_front(), &self.slow_background),
            };
            if job.is_some() {
                return job;
            }
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
    /// Starts `threads` threads (at least one) for readers and as many for background work, and the same for what takes minutes.
    pub fn new(threads: usize) -> Workers {
        let threads = threads.max(1);
        let shared = Arc::new(Shared::default());
        let mut handles = Vec::new();
        for (set, n) in Set::ALL.into_iter().flat_map(|set| (0..threads).map(move |n| (set, n))) {
            let (name, nice, idle) = set.traits();
            let shared = shared.clone();
            let name = format!("{name}-{n}");
            let run = move || {
                host::lower_priority(nice, idle);
                while let Some(job) = shared.next(set) {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        telemetry::JOBS_PANICKED.add(1);
                        log::error!("a job of the pool panicked; the pool goes on");
                    }
                    if set == Set::Readers {
                        shared.reads_done.fetch_add(1, Ordering::Release);
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
            Priority::SlowRead => (&mut queues.slow_read, READS_MAX, &self.shared.slow_read),
            Priority::SlowBackground => (&mut queues.slow_background, BACKGROUND_MAX, &self.shared.slow_background),
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

    /// Jobs for readers, and of decoding ahead, that have ended so far.
    pub fn reads_done(&self) -> u64 {
        self.shared.reads_done.load(Ordering::Acquire)
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
            [
                std::mem::take(&mut queues.read),
                std::mem::take(&mut queues.ahead),
                std::mem::take(&mut queues.background),
                std::mem::take(&mut queues.slow_read),
                std::mem::take(&mut queues.slow_background),
            ]
        };
        // Dropped outside the lock: a job may tell somebody that it will not run.
        drop(waiting);
        let shared = &self.shared;
        for bell in [&shared.read, &shared.background, &shared.slow_read, &shared.slow_background] {
            bell.notify_all();
        }
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
            let all =
                [Priority::Read, Priority::Ahead, Priority::Background, Priority::SlowRead, Priority::SlowBackground];
            let priority = all[n % 5];
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
