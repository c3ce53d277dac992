//! The control socket: commands of `tersefs status`, `stat`, `wait`, `umount` and others. For the owner of the store only.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::collector::Collector;
use super::compressor::Compressor;
use super::protocol::{Request, Response, Times, Work};
use super::scrubber;
use super::{Unmount, quietly};
use crate::base::Ino;
use crate::host;
use crate::telemetry;
use crate::volume::{ScrubOptions, Status, Volume, WaitingReport};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// Longest request, bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Progress is told this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Takes the place of a socket that a dead daemon left: the lock of the store says that it is dead.
pub(super) fn bind(socket: &Path) -> io::Result<UnixListener> {
    host::remove_socket(socket)?;
    let listener = UnixListener::bind(socket)?;
    host::restrict_to_owner(socket)?;
    Ok(listener)
}

/// Answers connections until `stop`.
pub(super) async fn serve(
    listener: UnixListener,
    volume: Arc<Volume>,
    compressor: Arc<Compressor>,
    collector: Arc<Collector>,
    unmount: Unmount,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    log::warn!("control socket: {e}");
                    tokio::time::sleep(PROGRESS_EVERY).await;
                    continue;
                }
            },
            _ = stop.changed() => break,
        };
        let (volume, compressor, collector, unmount, mut stop) =
            (volume.clone(), compressor.clone(), collector.clone(), unmount.clone(), stop.clone());
        conversations.spawn(async move {
            let _place = place;
            // A client that went away is no failure of ours.
            let _ = converse(stream, &volume, &compressor, &collector, &unmount, &mut stop).await;
        });
    }
    // Whoever asked for the unmount is still owed an answer.
    while conversations.join_next().await.is_some() {}
}

async fn converse(
    stream: UnixStream,
    volume: &Arc<Volume>,
    compressor: &Compressor,
    collector: &Collector,
    unmount: &Unmount,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        let mut limited = (&mut reader).take(REQUEST_BYTES_MAX);
        let got = tokio::select! {
            got = limited.read_line(&mut line) => got?,
            _ = stop.changed() => 0,
        };
        if got == 0 {
            return Ok(());
        }
        let request = match serde_json::from_str::<Request>(&line) {
            Ok(request) => request,
            Err(e) => {
                let message = format!("not a request: {e}");
                send(&mut writer, &Response::Error { message }).await?;
                return Ok(());
            }
        };
        if let Request::Scrub { options } = request {
            scrub(volume, options, &mut writer, stop).await?;
            continue;
        }
        if request == Request::Wait {
            tokio::select! {
                waited = wait(volume, compressor, &mut writer) => waited?,
                _ = stop.changed() => return Ok(()),
            }
        }
        let response = answer(request, volume, compressor, collector, unmount).await;
        send(&mut writer, &response).await?;
    }
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Tells the progress until nothing is left to code. What failed before is tried once more: whoever asks may have mended
/// what was wrong.
async fn wait(volume: &Volume, compressor: &Compressor, writer: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
    volume.try_failed_again();
    let _draining = compressor.drain();
    let mut progress = tokio::time::interval(PROGRESS_EVERY);
    // The kernel tells of the end of a handle after close(2) has returned: what is left is looked at a second time.
    for _ in 0..2 {
        let mut settled = std::pin::pin!(compressor.settled());
        loop {
            tokio::select! {
                _ = &mut settled => break,
                _ = progress.tick() => {}
            }
            let (backlog, encoded_bytes) = (volume.backlog(), telemetry::ENCODED_BYTES.get());
            send(writer, &Response::Progress { backlog, encoded_bytes }).await?;
        }
        if volume.backlog().files == 0 {
            break;
        }
    }
    Ok(())
}

/// Scrubs and tells the progress. When nobody listens any more the scrub is stopped: the next one goes on there.
async fn scrub(
    volume: &Arc<Volume>,
    options: ScrubOptions,
    writer: &mut (impl AsyncWriteExt + Unpin),
    stop: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let mut running = std::pin::pin!(scrubber::run(volume.clone(), options));
    loop {
        let outcome = tokio::select! {
            outcome = &mut running => outcome,
            _ = tokio::time::sleep(PROGRESS_EVERY) => {
                let told = send(writer, &Response::Scrubbing { scrub: volume.scrub_status() }).await;
                if told.is_err() {
                    volume.stop_scrub();
                    // Its end is waited for, so that it is not taken for the scrub of somebody else.
                    let _ = running.await;
                    return told;
                }
                continue;
            }
            _ = stop.changed() => {
                volume.stop_scrub();
                running.await
            }
        };
        let response = match outcome {
            Ok(report) => Response::Scrubbed { report },
            Err(message) => Response::Error { message },
        };
        return send(writer, &response).await;
    }
}

/// Runs a step that may touch the disk.
async fn blocking<T: Send + 'static>(step: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(step)
        .await
        .unwrap_or_else(|_| Err("the daemon failed at this; see its log".to_string()))
}

/// The state of the volume, and what the daemon has done.
pub(super) async fn look(volume: &Arc<Volume>, compressor: &Compressor) -> Result<(Status, Work), String> {
    let v = volume.clone();
    let mut status = blocking(move || v.status().map_err(|e| e.to_string())).await?;
    if !compressor.is_paused() {
        status.coding_waits = status.coding_waits.or_else(|| compressor.waits());
    }
    let (memory_bytes, memory_peak_bytes) = host::memory();
    let work = Work {
        encoded_bytes: telemetry::ENCODED_BYTES.get(),
        encode_us: telemetry::ENCODE_US.get(),
        decoded_bytes: telemetry::DECODED_BYTES.get(),
        decode_us: telemetry::DECODE_US.get(),
        early_aborts: telemetry::EARLY_ABORTS.get(),
        jobs_panicked: telemetry::JOBS_PANICKED.get(),
        memory_bytes,
        memory_peak_bytes,
        coding_paused: compressor.is_paused(),
        reads_warm: Times::of(&telemetry::READS_WARM),
        reads_cold: Times::of(&telemetry::READS_COLD),
        // Names are looked up for whoever asks for them, and are nothing for metrics.
        coding_now: Vec::new(),
        priors: volume.priors(),
        languages: volume.languages().unwrap_or_default(),
    };
    Ok((status, work))
}

/// The outcome of a step as an answer.
fn respond<T>(outcome: Result<T, String>, good: impl FnOnce(T) -> Response) -> Response {
    outcome.map_or_else(|message| Response::Error { message }, good)
}

async fn answer(
    request: Request,
    volume: &Arc<Volume>,
    compressor: &Compressor,
    collector: &Collector,
    unmount: &Unmount,
) -> Response {
    let v = volume.clone();
    let done = match request {
        Request::Ping | Request::Wait | Request::Scrub { .. } => Ok(()),
        Request::Status => {
            return match look(volume, compressor).await {
                Ok((status, mut work)) => {
                    work.coding_now = blocking(move || Ok(v.coding_now())).await.unwrap_or_default();
                    Response::Status { status: Box::new(status), work }
                }
                Err(message) => Response::Error { message },
            };
        }
        Request::Stat { ino } => {
            let done = blocking(move || v.report(Ino(ino)).map_err(|e| e.to_string())).await;
            return respond(done, |report| Response::Stat { report });
        }
        Request::Explain { ino } => {
            let done = blocking(move || v.explain(Ino(ino)).map_err(|e| e.to_string())).await;
            let waits = if compressor.is_paused() {
                Some("coding is paused (`tersefs resume`)".to_string())
            } else {
                compressor.waits()
            };
            return respond(done, |mut explanation| {
                if let (Some(waiting), Some(why)) = (&mut explanation.waiting, waits) {
                    *waiting = WaitingReport { why, seconds: None };
                }
                Response::Explained { explanation }
            });
        }
        Request::Survey { depth, top } => {
            let done = blocking(move || v.survey(depth, top).map_err(|e| e.to_string())).await;
            return respond(done, |report| Response::Surveyed { report });
        }
        Request::GcPlan => {
            let done = collector.plan().await;
            return respond(done, |plan| Response::GcPlan { plan });
        }
        Request::Gc => {
            let done = collector.collect().await;
            return respond(done, |report| Response::Gc { report });
        }
        Request::Train { dry_run } => {
            let done = quietly("training", move || v.train(dry_run).map_err(|e| e.to_string())).await;
            return respond(done, |report| Response::Trained { report });
        }
        Request::Recode { saves_percent } => {
            let done = collector.recode(saves_percent).await;
            return respond(done, |report| Response::Recoded { report });
        }
        Request::AddLanguage { path, adapter } => {
            let add = move || v.add_language(&path, adapter.as_deref(), &mut |_, _| ()).map_err(|e| e.to_string());
            let done = blocking(add).await;
            return respond(done, |report| Response::LanguageAdded { report });
        }
        Request::Pause => {
            compressor.pause(true);
            Ok(())
        }
        Request::Resume => {
            compressor.pause(false);
            Ok(())
        }
        Request::Sync => blocking(move || v.sync().map_err(|e| e.to_string())).await,
        Request::Unmount { lazy } => {
            let unmount = unmount.clone();
            blocking(move || unmount(lazy).map_err(|e| format!("cannot unmount: {e}"))).await
        }
    };
    match done {
        Ok(()) => Response::Ok { backlog: volume.backlog() },
        Err(message) => Response::Error { message },
    }
}
