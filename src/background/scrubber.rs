//! Scrubs of a mounted volume: on demand, and every so many days by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::{Dials, quietly, waited};
use crate::host;
use crate::volume::{ScrubOptions, ScrubReport, Volume};

/// Bytes of packs read in a second by a scrub that nobody asked for.
pub(super) const QUIET_BYTES_PER_S: u64 = 8 << 20;
/// How often it is looked whether one is due. The first look comes as long after the mount.
const LOOK_EVERY: Duration = Duration::from_secs(600);
const DAY_S: i64 = 86_400;

/// Scrubs on a thread of its own, whose priority is the lowest.
pub(super) async fn run(volume: Arc<Volume>, options: ScrubOptions) -> Result<ScrubReport, String> {
    quietly("scrub", move || volume.scrub(options).map_err(|e| e.to_string())).await
}

/// Scrubs when the last whole scrub is older than the days that are set, unless they are 0, and goes on with one that was cut off.
pub(super) async fn every(dials: Arc<Dials>, volume: Arc<Volume>, mut stop: watch::Receiver<bool>) {
    let options = ScrubOptions { bytes_per_s: QUIET_BYTES_PER_S, ..ScrubOptions::default() };
    loop {
        if !waited(LOOK_EVERY, &mut stop).await {
            return;
        }
        let days = dials.scrub_days.load(Ordering::Relaxed);
        let status = volume.scrub_status();
        let (now, _) = host::now();
        let due = status.last_full.is_none_or(|last| now.saturating_sub(last) >= i64::from(days) * DAY_S);
        if days == 0 || status.running || !due || volume.is_read_only() {
            continue;
        }
        tokio::select! {
            outcome = run(volume.clone(), options) => match outcome {
                Ok(report) if report.damaged_count > 0 => {
                    log::error!("the scrub found {} places of damage; `tersefs scrub` lists them", report.damaged_count);
                }
                Ok(report) => log::info!("scrub: {} segments are whole", report.segments),
                Err(e) => log::warn!("scrub: {e}"),
            },
            _ = stop.changed() => {
                volume.stop_scrub();
                return;
            }
        }
    }
}
