//! Bounded pool for computing: reads first, background second.
//!
//! Must not know: what a job does. Jobs that panic are caught, logged and counted; the thread lives on.

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

/// Threads that compute. Dropping it finishes running jobs and drops queued ones.
pub struct Workers {}

impl Workers {
    /// Starts `threads` threads for reads and as many for background work, at lower scheduling priorities than the caller.
    pub fn new(_threads: usize) -> Workers {
        todo!()
    }

    /// Queues a job. When the queue of its priority is full, gives the job back.
    pub fn submit(&self, _priority: Priority, _job: Box<dyn FnOnce() + Send>) -> Result<(), Box<dyn FnOnce() + Send>> {
        todo!()
    }

    /// Threads per kind of work.
    pub fn threads(&self) -> usize {
        todo!()
    }
}
