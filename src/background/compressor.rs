//! The compressor: asks the volume what is worth coding, has it coded on the pool, has it committed in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use super::neighbour::{Manners, Neighbour};
use crate::host;
use crate::volume::{CodedSegment, CodingTask, Volume};
use crate::workers::{Priority, Workers};

/// Segments handed out per thread of the pool.
const SEGMENTS_PER_THREAD: usize = 4;
/// The same of those that take minutes, beside the others: each is lost when the volume closes.
const SLOW_PER_THREAD: usize = 2;
/// Segments that are committed together: each commit syncs twice.
const BATCH: usize = 32;
/// A coded segment waits at most this long for others.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Pause when there is nothing to code.
const IDLE_PAUSE: Duration = Duration::from_millis(500);
/// Pause when there is nothing to code and somebody waits for the end.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// State shared with the control socket.
pub(super) struct Compressor {
    volume: Arc<Volume>,
    workers: Arc<Workers>,
    paused: AtomicBool,
    /// Whether coding makes room for others.
    neighbour: Arc<Neighbour>,
    /// Callers of `wait`: while there are any, neither quiet times nor others are waited for.
    drainers: AtomicUsize,
    /// The last look that found nothing to code, with nothing under way.
    settled: watch::Sender<u64>,
    /// Nothing was being coded at the last look, and nothing waited for it.
    idle: AtomicBool,
    /// Raised each time the next look begins.
    rounds: AtomicU64,
    wake: Notify,
}

/// Asks for draining as long as it lives.
pub(super) struct Draining<'a>(&'a Compressor);

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        self.0.drainers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Compressor {
    pub fn new(volume: Arc<Volume>, workers: Arc<Workers>, coding: bool, manners: Manners) -> Compressor {
        Compressor {
            volume,
            workers,
            paused: AtomicBool::new(!coding),
            neighbour: Arc::new(Neighbour::new(manners)),
            drainers: AtomicUsize::new(0),
            settled: watch::Sender::new(0),
            idle: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }

    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.wake.notify_one();
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Makes room for others in another way from now on.
    pub fn change_manners(&self, manners: Manners) {
        self.neighbour.change(manners);
        self.wake.notify_one();
    }

    /// Why coding in the background makes room for others now, if it does.
    pub fn waits(&self) -> Option<String> {
        self.neighbour.waits()
    }

    /// Counts processor time that was taken for coding elsewhere, seconds.
    pub fn charge(&self, cpu_s: f64) {
        self.neighbour.charge(cpu_s);
    }

    /// True when nothing is being coded, and nothing waits for it.
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    /// Looks that have begun so far. One begins at least every few seconds, whatever the coders do.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }

    /// Codes everything that can be coded, without waiting for quiet times, while the guard lives.
    pub fn drain(&self) -> Draining<'_> {
        // In one order with `rounds`: a look that begins from now on knows that it drains.
        self.drainers.fetch_add(1, Ordering::SeqCst);
        self.wake.notify_one();
        Draining(self)
    }

    /// Waits for a look that begins from now on and finds nothing to code, with nothing under way.
    pub async fn settled(&self) {
        let round = self.rounds.load(Ordering::SeqCst) + 1;
        // The sender lives as long as this does.
        let _ = self.settled.subscribe().wait_for(|last| *last >= round).await;
    }

    /// Works until `stop`.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let (done, mut coded) = mpsc::unbounded_channel::<CodedSegment>();
        // Of these, some that take minutes; they do not hold up the others.
        let (mut under_way, mut slow) = (0, 0);
        let mut batch: Vec<CodedSegment> = Vec::new();
        let mut oldest = Instant::now();
        while !*stop.borrow() {
            let round = self.rounds.fetch_add(1, Ordering::SeqCst) + 1;
            let draining = self.drainers.load(Ordering::SeqCst) > 0;
            let mut planned = 0;
            let quick = under_way - slow;
            // One segment in hand after the other keeps to a share of the processor.
            let threads = self.workers.threads();
            let (room, slow_room) = if !draining && self.neighbour.has_quota() {
                (1, 1)
            } else {
                (threads * SEGMENTS_PER_THREAD, threads * SLOW_PER_THREAD)
            };
            let may = draining || self.neighbour.waits().is_none();
            if may && !self.is_paused() && quick + batch.len() < room.max(BATCH) && quick < room {
                let volume = self.volume.clone();
                let slow_limit = slow_room.saturating_sub(slow);
                let limit = room - quick + slow_limit;
                let plan = move || volume.plan_coding_beside(limit, slow_limit, draining);
                for task in tokio::task::spawn_blocking(plan).await.unwrap_or_default() {
                    planned += 1;
                    slow += usize::from(task.takes_minutes());
                    self.submit(task, &done);
                }
                under_way += planned;
            }
            if under_way == 0 && batch.is_empty() {
                self.idle.store(true, Ordering::Release);
                self.settled.send_replace(round);
                let pause = if draining { DRAIN_PAUSE } else { IDLE_PAUSE };
                tokio::select! {
                    _ = tokio::time::sleep(pause) => {}
                    _ = self.wake.notified() => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
            self.idle.store(false, Ordering::Release);
            if under_way > 0 {
                let patience = if batch.is_empty() { IDLE_PAUSE } else { BATCH_AGE.saturating_sub(oldest.elapsed()) };
                tokio::select! {
                    Some(segment) = coded.recv() => {
                        if batch.is_empty() {
                            oldest = Instant::now();
                        }
                        let next = std::iter::once(segment).chain(std::iter::from_fn(|| coded.try_recv().ok()));
                        for segment in next {
                            under_way -= 1;
                            slow -= usize::from(segment.took_minutes());
                            batch.push(segment);
                        }
                    }
                    _ = tokio::time::sleep(patience) => {}
                    _ = stop.changed() => {}
                }
            }
            let due = batch.len() >= BATCH || oldest.elapsed() >= BATCH_AGE || under_way == 0;
            if !batch.is_empty() && due {
                let ready = std::mem::take(&mut batch);
                let volume = self.volume.clone();
                match tokio::task::spawn_blocking(move || volume.commit_coded(ready)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => {
                        log::error!("coded segments were not committed: {e}");
                        tokio::time::sleep(IDLE_PAUSE).await;
                    }
                    Err(_) => log::error!("the commit of coded segments failed"),
                }
            }
        }
    }

    /// Hands a task to the pool; a full queue is waited for, on the pool's own account, by coding it right away there.
    fn submit(&self, task: CodingTask, done: &mpsc::UnboundedSender<CodedSegment>) {
        let volume = self.volume.clone();
        let (done, neighbour) = (done.clone(), self.neighbour.clone());
        let asked_for = self.drainers.load(Ordering::SeqCst) > 0;
        let priority = if task.takes_minutes() { Priority::SlowBackground } else { Priority::Background };
        let job = Box::new(move || {
            let before = host::thread_cpu_seconds();
            let coded = volume.code(task);
            // What somebody asked for is not owed by what nobody did.
            if !asked_for {
                neighbour.charge(host::thread_cpu_seconds() - before);
            }
            // Nobody listens when the volume is closing: the bytes stay in staging.
            let _ = done.send(coded);
        });
        if let Err(job) = self.workers.submit(priority, job) {
            // The bound of the queue is far above what is handed out; a thread of its own keeps the promise all the same.
            if std::thread::Builder::new().name("code-extra".into()).spawn(job).is_err() {
                log::error!("no thread to code a segment; its file is coded after the next mount");
            }
        }
    }
}
