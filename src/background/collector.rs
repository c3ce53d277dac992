//! The collector: gives space of packs back when it is worth it, slowly, and never beside a reader who waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};

use super::compressor::Compressor;
use crate::host;
use crate::volume::{Error, GcAction, GcPlan, GcReport, GcRun, LadderRun, RecodeReport, Volume};
use crate::workers::{Priority, Workers};

/// Pause between looks at what is worth giving back.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// While files are being deleted a pack is not rewritten for what is deleted next: a plan is applied when it is the one
/// of the last look, or after this many looks.
const LOOKS_MAX: u32 = 15;
/// Bytes of packs gone through per step: a reader waits for one step at most.
const STEP_BYTES: u64 = 4 << 20;
/// Bytes of packs gone through per second, when nobody asked for it.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// Pause while readers wait for decodes, and how often in a row.
const YIELD: Duration = Duration::from_millis(20);
const YIELDS_MAX: u32 = 50;
/// Pause before it is looked again whether files may be coded anew, and whether rules ask for it at all.
const LADDER_PAUSE: Duration = Duration::from_secs(1);
const NO_LADDER_PAUSE: Duration = Duration::from_secs(10);
/// Pause after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// State shared with the control socket.
pub(super) struct Collector {
    volume: Arc<Volume>,
    workers: Arc<Workers>,
    /// Held while a plan is applied: one at a time.
    one: Mutex<()>,
    stop: watch::Receiver<bool>,
}

impl Collector {
    pub fn new(volume: Arc<Volume>, workers: Arc<Workers>, stop: watch::Receiver<bool>) -> Collector {
        Collector { volume, workers, one: Mutex::new(()), stop }
    }

    /// What is worth giving back now.
    pub async fn plan(&self) -> Result<GcPlan, String> {
        let volume = self.volume.clone();
        match tokio::task::spawn_blocking(move || volume.plan_gc()).await {
            Ok(plan) => plan.map_err(|e| e.to_string()),
            Err(_) => Err("the daemon failed at this; see its log".to_string()),
        }
    }

    /// Applies what is worth it now, as fast as readers let it, and compacts the metadata when that is worth it too.
    pub async fn collect(&self) -> Result<GcReport, String> {
        let _one = self.one.lock().await;
        let plan = self.plan().await?;
        let report = self.apply(&plan, u64::MAX).await?;
        let volume = self.volume.clone();
        match tokio::task::spawn_blocking(move || volume.checkpoint()).await {
            Ok(done) => done.map_err(|e| e.to_string())?,
            Err(_) => return Err("the checkpoint failed; see the log of the daemon".to_string()),
        }
        Ok(report)
    }

    /// Works until the end.
    pub async fn run(self: Arc<Self>) {
        let mut stop = self.stop.clone();
        let mut last = Vec::new();
        let mut looks = 0;
        let mut pause = LOOK_EVERY;
        loop {
            tokio::select! {
                _ = tokio::time::sleep(pause) => {}
                _ = stop.changed() => return,
            }
            pause = LOOK_EVERY;
            if self.volume.is_read_only() {
                continue;
            }
            let _one = self.one.lock().await;
            let plan = match self.plan().await {
                Ok(plan) => plan,
                Err(e) => {
                    log::warn!("what of the packs is live is not known: {e}");
                    pause = FAILED_PAUSE;
                    continue;
                }
            };
            looks = if plan.packs.is_empty() { 0 } else { looks + 1 };
            let settled = plan.packs == last || looks > LOOKS_MAX;
            let mut ready = plan.clone();
            if !settled {
                ready.packs.retain(|p| p.action == GcAction::Delete);
            }
            last = plan.packs;
            if ready.packs.is_empty() {
                continue;
            }
            match self.apply(&ready, BYTES_PER_SECOND).await {
                Ok(report) => {
                    if report.packs_deleted > 0 {
                        log::info!("{} packs are given back: {} bytes", report.packs_deleted, report.bytes_deleted);
                    }
                }
                Err(e) => {
                    if !self.volume.is_read_only() {
                        log::warn!("space of packs is not given back: {e}");
                    }
                    pause = FAILED_PAUSE;
                }
            }
            if settled {
                looks = 0;
            }
        }
    }

    /// Codes segments anew from the priors of the volume, where that saves `saves_percent` of one.
    pub async fn recode(&self, saves_percent: u32) -> Result<RecodeReport, String> {
        // Both move segments.
        let _one = self.one.lock().await;
        let mut run = self.volume.plan_recode(saves_percent);
        while !run.is_done() && !*self.stop.borrow() {
            (run, ()) = self.step(run, |volume, run| volume.recode_step(run)).await?;
        }
        Ok(run.report)
    }

    /// Codes files anew that come to an age that a rule speaks of, while nothing else is to be coded, until the end.
    pub async fn climb(self: Arc<Self>, compressor: Arc<Compressor>) {
        let mut stop = self.stop.clone();
        let mut pause = LADDER_PAUSE;
        let mut under_way: Option<LadderRun> = None;
        loop {
            tokio::select! {
                _ = tokio::time::sleep(pause) => {}
                _ = stop.changed() => return,
            }
            pause = LADDER_PAUSE;
            let busy = compressor.is_paused() || !compressor.is_idle() || compressor.waits().is_some();
            if self.volume.is_read_only() || busy {
                continue;
            }
            let Some(run) = under_way.take().or_else(|| self.volume.plan_ladder()) else {
                pause = NO_LADDER_PAUSE;
                continue;
            };
            let outcome = {
                // Segments are moved by one at a time; others come between the steps.
                let _one = self.one.lock().await;
                let step = |volume: &Volume, run: &mut LadderRun| {
                    let before = host::thread_cpu_seconds();
                    let stepped = volume.ladder_step(run);
                    stepped.map(|()| host::thread_cpu_seconds() - before)
                };
                self.step(run, step).await
            };
            if let Ok((_, cpu_s)) = &outcome {
                compressor.charge(*cpu_s);
            }
            match outcome {
                Ok((run, _)) if run.is_done() => {
                    let r = &run.report;
                    if r.segments_recoded > 0 {
                        let (n, before, after) = (r.segments_recoded, r.before_bytes, r.after_bytes);
                        log::info!("{n} segments were coded anew, as files came of age: {before} -> {after} bytes");
                    }
                    pause = self.volume.ladder_pause_s().map_or(NO_LADDER_PAUSE, Duration::from_secs);
                }
                Ok((run, _)) => (under_way, pause) = (Some(run), Duration::ZERO),
                Err(e) => {
                    if !self.volume.is_read_only() {
                        log::warn!("files that came of age are not coded anew: {e}");
                    }
                    pause = FAILED_PAUSE;
                }
            }
        }
    }

    /// Takes one step of a run on the pool, when no reader waits.
    async fn step<R: Send + 'static, T: Send + 'static>(
        &self,
        mut run: R,
        step: impl FnOnce(&Volume, &mut R) -> Result<T, Error> + Send + 'static,
    ) -> Result<(R, T), String> {
        let mut yields = 0;
        while self.workers.readers_wait() && yields < YIELDS_MAX {
            yields += 1;
            tokio::time::sleep(YIELD).await;
        }
        let (done, outcome) = oneshot::channel();
        let volume = self.volume.clone();
        let job = Box::new(move || {
            let stepped = step(&volume, &mut run);
            // Nobody listens when the volume is closing; every step is whole.
            let _ = done.send((run, stepped));
        });
        if let Err(job) = self.workers.submit(Priority::Background, job) {
            // The queue is full of segments to code: wait where waiting is allowed.
            tokio::task::spawn_blocking(job);
        }
        let Ok((run, stepped)) = outcome.await else {
            return Err("a step of it failed, or the volume is closing; see the log".to_string());
        };
        stepped.map(|stepped| (run, stepped)).map_err(|e| e.to_string())
    }

    async fn apply(&self, plan: &GcPlan, bytes_per_second: u64) -> Result<GcReport, String> {
        let mut run = GcRun::new(plan);
        let mut stop = self.stop.clone();
        while !run.is_done() && !*stop.borrow() {
            let bytes;
            (run, bytes) = self.step(run, |volume, run| volume.gc_step(run, STEP_BYTES)).await?;
            let pause = Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
            tokio::select! {
                _ = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
        Ok(run.report)
    }
}
