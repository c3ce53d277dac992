//! What the service manager (systemd) is told: readiness, status, signs of life, and that more time is needed.
//!
//! Without `NOTIFY_SOCKET` in the environment nobody wants to know, and all of this does nothing. Opening a store and
//! putting it away are given more time for as long as this process is seen to work, so that a large store is not killed
//! amid recovery, and one whose disk hangs is.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::show;
use crate::background::Pulse;
use crate::host;
use crate::volume::Volume;

/// What is done for a start or a stop is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From each look that sees work the manager waits so much longer, seconds.
const PATIENCE_S: u32 = 300;
/// The status is told this often, when it has changed.
const STATUS_EVERY: Duration = Duration::from_secs(30);
/// Of the time of the watchdog, how often it is looked whether the loops have answered, and how often they are asked.
const LOOKS_PER_WATCHDOG: u32 = 8;
const BEATS_PER_WATCHDOG: u32 = 4;

/// What the daemon is at.
enum Phase {
    Opening,
    Serving {
        volume: Arc<Volume>,
        pulse: Arc<Pulse>,
    },
    /// Unmounting, and putting the store away.
    Closing,
    Ended,
}

struct Shared {
    phase: Mutex<Phase>,
    changed: Condvar,
    watchdog: Option<Duration>,
}

/// The service manager, where there is one.
pub(super) struct Manager {
    shared: Option<Arc<Shared>>,
    teller: Option<JoinHandle<()>>,
}

/// Tells; a manager that does not listen is its own affair.
fn tell(states: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(states) {
        log::debug!("the service manager was not told: {e}");
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn begin(&self, phase: Phase, states: &[NotifyState]) {
        // Told under the lock, so that the thread says nothing of the phase before after it.
        let mut now = self.lock();
        tell(states);
        *now = phase;
        self.changed.notify_one();
    }

    /// Tells what there is to tell, until the end.
    fn run(&self) {
        let (mut effort, mut beats) = (host::effort(), 0);
        let (mut status, mut told) = (String::new(), Instant::now());
        let mut now = self.lock();
        loop {
            let mut pause = LOOK_EVERY;
            match &*now {
                Phase::Ended => return,
                Phase::Opening | Phase::Closing => {
                    let last = std::mem::replace(&mut effort, host::effort());
                    // One tick may be that of this thread.
                    if effort > last + 1 {
                        let longer = NotifyState::ExtendTimeoutUsec(PATIENCE_S * 1_000_000);
                        let alive = self.watchdog.map(|_| NotifyState::Watchdog);
                        tell(&std::iter::once(longer).chain(alive).collect::<Vec<_>>());
                    }
                }
                Phase::Serving { volume, pulse } => {
                    if let Some(watchdog) = self.watchdog {
                        pause = pause.min(watchdog / LOOKS_PER_WATCHDOG);
                        let last = std::mem::replace(&mut beats, pulse.beats());
                        if beats != last {
                            tell(&[NotifyState::Watchdog]);
                        }
                    }
                    if status.is_empty() || told.elapsed() >= STATUS_EVERY {
                        let new = sentence(volume);
                        told = Instant::now();
                        if new != status {
                            tell(&[NotifyState::Status(&new)]);
                            status = new;
                        }
                    }
                }
            }
            now = self.changed.wait_timeout(now, pause).unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

impl Manager {
    /// Begins to tell, if somebody listens. To be called first of all.
    pub fn new() -> Manager {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Manager { shared: None, teller: None };
        }
        let shared = Arc::new(Shared {
            phase: Mutex::new(Phase::Opening),
            changed: Condvar::new(),
            watchdog: sd_notify::watchdog_enabled(),
        });
        tell(&[NotifyState::Status("opening the store")]);
        let run = shared.clone();
        let teller = std::thread::Builder::new().name("manager".into()).spawn(move || run.run());
        Manager { shared: Some(shared), teller: teller.ok() }
    }

    /// How often the loops are to be asked; `None` where there is no watchdog.
    pub fn pulse_every(&self) -> Option<Duration> {
        self.shared.as_ref()?.watchdog.map(|watchdog| watchdog / BEATS_PER_WATCHDOG)
    }

    /// What says that requests to the mount are answered, from any thread.
    pub fn ready(&self, volume: &Arc<Volume>, pulse: Arc<Pulse>) -> impl FnOnce() + Send + 'static {
        let (shared, volume) = (self.shared.clone(), volume.clone());
        move || {
            // The end may have begun meanwhile.
            if let Some(shared) = shared
                && matches!(*shared.lock(), Phase::Opening)
            {
                shared.begin(Phase::Serving { volume, pulse }, &[NotifyState::Ready]);
            }
        }
    }

    /// What says that settings are read again, from any thread; and that it is done, when what it returns is dropped.
    pub fn reloading(&self) -> impl Fn() -> Reloading + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || {
            if shared.is_some() {
                // The manager wants the time, so as not to take an older word for the answer.
                let now = NotifyState::monotonic_usec_now().ok();
                tell(&std::iter::once(NotifyState::Reloading).chain(now).collect::<Vec<_>>());
            }
            Reloading(shared.is_some())
        }
    }

    /// What says that the end has begun, from any thread.
    pub fn stopping(&self) -> impl Fn() + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || {
            if let Some(shared) = &shared {
                let why = "unmounting; what is not coded stays safe in the store";
                shared.begin(Phase::Closing, &[NotifyState::Stopping, NotifyState::Status(why)]);
            }
        }
    }
}

/// Settings are being read again.
pub(super) struct Reloading(bool);

impl Drop for Reloading {
    fn drop(&mut self) {
        if self.0 {
            tell(&[NotifyState::Ready]);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.begin(Phase::Ended, &[]);
        }
        if let Some(teller) = self.teller.take() {
            let _ = teller.join();
        }
    }
}

/// The state of a volume in a line.
fn sentence(volume: &Volume) -> String {
    let Ok(s) = volume.status() else { return "the state of the volume is not known".to_string() };
    let mut line = if s.queue_files == 0 {
        "nothing waits for coding".to_string()
    } else {
        format!("{} files wait for coding ({})", s.queue_files, show::bytes(s.queue_bytes))
    };
    if s.read_only {
        line = "read-only".to_string();
    } else if s.stuck_files > 0 {
        line += &format!(", {} of them cannot be coded", s.stuck_files);
    }
    if s.coded_plain_bytes > 0 {
        let percent = s.coded_stored_bytes as f64 * 100.0 / s.coded_plain_bytes as f64;
        line += &format!(
            "; {} are coded in {} ({percent:.1} %)",
            show::bytes(s.coded_plain_bytes),
            show::bytes(s.coded_stored_bytes)
        );
    }
    if s.decode_failures > 0 || s.damaged_staged > 0 {
        line += "; there is damage, see `tersefs scrub`";
    }
    line
}
