//! Tasks that decide when: the compressor, the collector, the flush and checkpoint timers, the control socket, metrics, the pulse.
//!
//! Must not know: how anything is done. Tokio waits here; everything that computes or touches the disk runs on the
//! worker pool or on tokio's threads for blocking calls.
//!
//! # Limits
//! Segments in the hands of coders, connections and lengths of requests are bounded by the constants of each file.
//! Nothing is polled faster than every `IDLE_PAUSE` when there is nothing to do.

mod collector;
mod compressor;
mod control;
mod metrics;
mod neighbour;
pub mod protocol;
mod pulse;
mod scrubber;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::host;
use crate::volume::Volume;
use crate::workers::Workers;
use collector::Collector;
use compressor::Compressor;

pub use metrics::MetricsAt;
pub use neighbour::{Hours, Manners};
pub use pulse::Pulse;

/// Changes are made durable this often.
const FLUSH_EVERY: Duration = Duration::from_secs(3);
/// The index is brought up to date this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// The size of the index is looked at this often.
const INDEX_EVERY: Duration = Duration::from_secs(180);
/// Whether the volume has grown so much that it is worth training is looked at this often.
const TRAIN_EVERY: Duration = Duration::from_secs(60);
/// Staged files that have become quiet are sealed this often.
const SEAL_EVERY: Duration = Duration::from_secs(5);
/// And for about this long, when there are many.
const SEAL_FOR: Duration = Duration::from_secs(1);
/// The memory of the process is looked at this often.
const MEMORY_EVERY: Duration = Duration::from_secs(1);
/// Parity is made for one pack this often.
const PARITY_EVERY: Duration = Duration::from_secs(20);
/// Tasks of a volume that is closing are given this long.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// What works on a thread of its own lets all others go first.
const NICE: i32 = 19;

/// Ends the mount. Called from any thread; true means at once, even if files are open.
pub type Unmount = Arc<dyn Fn(bool) -> io::Result<()> + Send + Sync>;

/// What a reload of the settings changes here.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Coding is to go on, or to pause, from now on.
    pub coding: Option<bool>,
    pub scrub_days: u32,
    pub training: bool,
    pub manners: Manners,
}

/// Reads the settings again, and has changes applied. Called from any thread; may touch the disk.
pub type Reload = Arc<dyn Fn(&dyn Fn(Changes)) + Send + Sync>;

/// Settings of tasks that run.
struct Dials {
    scrub_days: AtomicU32,
    training: AtomicBool,
}

/// What runs beside a mounted volume, and where.
#[derive(Clone, Debug)]
pub struct BackgroundOptions {
    /// Where commands are taken.
    pub socket: PathBuf,
    /// Where the volume is mounted.
    pub mountpoint: PathBuf,
    /// False: nothing is coded but on demand.
    pub coding: bool,
    /// The volume is scrubbed when the last scrub is so many days old, or never when they are 0.
    pub scrub_days: u32,
    /// It learns priors as it grows.
    pub training: bool,
    /// What coding makes room for.
    pub manners: Manners,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<MetricsAt>,
    /// Whether the loops answer is found out this often; `None`: nobody wants to know. The mount is in use while the kernel
    /// is asked, for microseconds in which it cannot be unmounted: not often, then.
    pub pulse_every: Option<Duration>,
}

/// What runs beside a mounted volume.
pub struct Background {
    pulse: Arc<Pulse>,
    runtime: Runtime,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Background {
    /// Starts everything. The kernel is asked at the mountpoint from then on, which is answered once requests are served.
    pub fn start(
        volume: Arc<Volume>,
        workers: Arc<Workers>,
        options: &BackgroundOptions,
        unmount: Unmount,
        reload: Reload,
    ) -> io::Result<Background> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(16)
            .thread_name("background")
            .enable_all()
            .build()?;
        // Before any task is there: one that waits for the mount, which is not served yet, could not be ended.
        let (listener, of_metrics) = {
            let _inside = runtime.enter();
            let of_metrics = options
                .metrics
                .as_ref()
                .map(|at| metrics::bind(at).map_err(|e| io::Error::new(e.kind(), format!("metrics at {at}: {e}"))));
            (control::bind(&options.socket)?, of_metrics.transpose()?)
        };
        let (stop, stopped) = watch::channel(false);
        let collector = Arc::new(Collector::new(volume.clone(), workers.clone(), stopped.clone()));
        let compressor =
            Arc::new(Compressor::new(volume.clone(), workers.clone(), options.coding, options.manners.clone()));
        let dials = Arc::new(Dials {
            scrub_days: AtomicU32::new(options.scrub_days),
            training: AtomicBool::new(options.training && options.coding),
        });
        let mut tasks = JoinSet::new();
        let mut spawn = |task: Pin<Box<dyn Future<Output = ()> + Send>>| {
            tasks.spawn_on(task, runtime.handle());
        };
        spawn(Box::pin(compressor.clone().run(stopped.clone())));
        spawn(Box::pin(collector.clone().run()));
        spawn(Box::pin(collector.clone().climb(compressor.clone())));
        spawn(Box::pin(every(FLUSH_EVERY, stopped.clone(), volume.clone(), |v: &Volume| {
            if let (false, Err(e)) = (v.is_read_only(), v.flush()) {
                log::warn!("changes are not on disk yet: {e}");
            }
        })));
        spawn(Box::pin(every(CHECKPOINT_EVERY, stopped.clone(), volume.clone(), |v: &Volume| {
            if let (false, Err(e)) = (v.is_read_only(), v.checkpoint()) {
                log::warn!("checkpoint: {e}");
            }
        })));
        spawn(Box::pin(every(INDEX_EVERY, stopped.clone(), volume.clone(), Volume::tend_index)));
        spawn(Box::pin(every(SEAL_EVERY, stopped.clone(), volume.clone(), |v: &Volume| {
            let started = Instant::now();
            while !v.is_read_only() && started.elapsed() < SEAL_FOR {
                match v.seal_quiet() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(e) => {
                        log::warn!("staged files are not sealed: {e}");
                        break;
                    }
                }
            }
        })));
        spawn(Box::pin(every(PARITY_EVERY, stopped.clone(), volume.clone(), |v: &Volume| {
            if let Err(e) = v.make_parity() {
                log::warn!("no parity was made: {e}");
            }
        })));
        spawn(Box::pin(scrubber::every(dials.clone(), volume.clone(), stopped.clone())));
        spawn(Box::pin(every(MEMORY_EVERY, stopped.clone(), volume.clone(), Volume::tend_memory)));
        spawn(Box::pin(every(MEMORY_EVERY, stopped.clone(), volume.clone(), Volume::tend_hot)));
        spawn(Box::pin(tidy(volume.clone())));
        spawn(Box::pin(signals(stopped.clone(), unmount.clone())));
        let (turned, coder) = (dials.clone(), compressor.clone());
        spawn(Box::pin(reloads(stopped.clone(), reload, move |changes| {
            if let Some(coding) = changes.coding {
                coder.pause(!coding);
            }
            coder.change_manners(changes.manners);
            turned.scrub_days.store(changes.scrub_days, Ordering::Relaxed);
            turned.training.store(changes.training, Ordering::Relaxed);
        })));
        let coder = compressor.clone();
        spawn(Box::pin(train(dials, coder, volume.clone(), stopped.clone())));
        let pulse = Arc::new(Pulse::default());
        if let Some(period) = options.pulse_every {
            let (touched, touch) = (volume.clone(), touch(options.mountpoint.clone()));
            let touch = Arc::new(move || {
                touched.backlog();
                touch();
            });
            let (pulse, stopped) = (pulse.clone(), stopped.clone());
            spawn(Box::pin(pulse::run(pulse, period, touch, workers, compressor.clone(), stopped)));
        }
        if let Some(listener) = of_metrics {
            spawn(Box::pin(metrics::serve(listener, volume.clone(), compressor.clone(), stopped.clone())));
        }
        spawn(Box::pin(control::serve(listener, volume, compressor, collector, unmount, stopped)));
        Ok(Background { pulse, runtime, stop, tasks })
    }

    /// Whether its loops answer.
    pub fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    /// Ends all tasks. Segments being coded are finished and left out; their bytes stay in staging.
    ///
    /// # Blocking
    /// Until they have ended, at most a minute.
    pub fn stop(mut self) {
        // Nobody listens any more only if all tasks ended already.
        let _ = self.stop.send(true);
        let ended = self.runtime.block_on(async {
            let all = async { while self.tasks.join_next().await.is_some() {} };
            tokio::time::timeout(SHUTDOWN_TIMEOUT, all).await
        });
        if ended.is_err() {
            log::warn!("background tasks did not end in time");
        }
        self.runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    }
}

/// Asks something of the filesystem at `mountpoint` that the kernel hands on to us. Once something else is mounted there,
/// or nothing, it says nothing of us.
fn touch(mountpoint: PathBuf) -> impl Fn() {
    let ours = OnceLock::new();
    move || {
        let asked = host::without_files(|| {
            let device = host::device_of(&mountpoint).ok()?;
            if ours.get().is_some_and(|known| device != *known) {
                return None;
            }
            // An error is an answer too.
            let _ = host::ask_filesystem(&mountpoint);
            Some(device)
        });
        if let Some(device) = asked {
            let _ = ours.set(device);
        }
    }
}

/// Runs a step again and again until the end.
async fn every(
    period: Duration,
    mut stop: watch::Receiver<bool>,
    volume: Arc<Volume>,
    step: impl Fn(&Volume) + Send + Sync + 'static,
) {
    let step = Arc::new(step);
    loop {
        if !waited(period, &mut stop).await {
            return;
        }
        let (volume, step) = (volume.clone(), step.clone());
        if tokio::task::spawn_blocking(move || step(&volume)).await.is_err() {
            log::error!("a periodic task failed");
        }
    }
}

/// Waits so long, and says whether the daemon goes on.
async fn waited(period: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        _ = tokio::time::sleep(period) => true,
        _ = stop.changed() => false,
    }
}

/// Works on a thread of its own, whose priority is the lowest: readers and coders come first.
async fn quietly<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (tell, told) = oneshot::channel();
    let work = move || {
        host::lower_priority(NICE, true);
        // Nobody listens when the daemon is ending.
        let _ = tell.send(work());
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|e| format!("no thread for the {name}: {e}"))?;
    told.await.unwrap_or_else(|_| Err(format!("the {name} failed; see the log of the daemon")))
}

/// Trains the volume when it has grown, unless that is turned off or coding waits for something.
async fn train(dials: Arc<Dials>, coder: Arc<Compressor>, volume: Arc<Volume>, mut stop: watch::Receiver<bool>) {
    loop {
        if !waited(TRAIN_EVERY, &mut stop).await {
            return;
        }
        if !dials.training.load(Ordering::Relaxed) || coder.waits().is_some() {
            continue;
        }
        let v = volume.clone();
        // It is waited for at the end, too, which makes it hurry.
        if let Err(e) = quietly("training", move || v.train_if_grown().map_err(|e| e.to_string())).await {
            log::warn!("no priors were trained: {e}");
        }
    }
}

/// What the mount left for later: staging is held against the log.
async fn tidy(volume: Arc<Volume>) {
    match tokio::task::spawn_blocking(move || volume.tidy_staging()).await {
        Ok(Ok(found)) => found.iter().for_each(|sentence| log::warn!("{sentence}")),
        Ok(Err(e)) => log::warn!("staging was not looked through: {e}; the next mount will"),
        Err(_) => log::error!("the look through staging failed"),
    }
}

/// SIGHUP has the settings read again.
async fn reloads(mut stop: watch::Receiver<bool>, reload: Reload, apply: impl Fn(Changes) + Send + Sync + 'static) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let apply = Arc::new(apply);
    loop {
        tokio::select! {
            _ = hangup.recv() => log::info!("SIGHUP: reading the settings again"),
            _ = stop.changed() => return,
        }
        let (reload, apply) = (reload.clone(), apply.clone());
        if tokio::task::spawn_blocking(move || reload(&*apply)).await.is_err() {
            log::error!("reading the settings failed");
        }
    }
}

/// A polite request to end unmounts; files that are still open do not hold it up.
async fn signals(mut stop: watch::Receiver<bool>, unmount: Unmount) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        log::warn!("signals are not handled");
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => log::info!("SIGTERM: unmounting"),
            _ = int.recv() => log::info!("SIGINT: unmounting"),
            _ = stop.changed() => return,
        }
        let unmount = unmount.clone();
        match tokio::task::spawn_blocking(move || unmount(true)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => log::error!("cannot unmount: {e}"),
            Err(_) => log::error!("the unmount failed"),
        }
    }
}
