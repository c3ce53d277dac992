//! `status --watch`: what a daemon does, second by second.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::client::Client;
use super::show::{bytes, percent, visible};
use super::{Failure, Outcome};
use crate::background::protocol::{Request, Response, Work};
use crate::host::{CTRL_C, Keys};
use crate::volume::Status;

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Files that are shown while they are coded.
const NOW_SHOWN: usize = 8;
/// To the upper left, and what is below away.
const HOME: &str = "\x1b[H\x1b[J";
/// A screen of its own, without the cursor; and back.
const SCREEN: (&str, &str) = ("\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l");

/// One look.
struct Look {
    status: Status,
    work: Work,
    at: Instant,
}

/// Shows it until `q` or Ctrl-C, or until the daemon ends. Where the output is no terminal, a line for each second.
pub(super) fn watch(path: Option<&Path>, json: bool) -> Outcome {
    let mut client = Client::connect(path)?;
    let mut look = || match client.ask(&Request::Status)? {
        Response::Status { status, work } => Ok(Look { status: *status, work, at: Instant::now() }),
        _ => Err(Failure("the daemon answered something else".into())),
    };
    let mut out = io::stdout();
    let live = out.is_terminal() && !json;
    let keys = if live { Keys::of_stdin() } else { None };
    let mut before = look()?;
    if live {
        write!(out, "{}", SCREEN.0)?;
    }
    let mut ended = None;
    loop {
        let now = match look() {
            Ok(now) => now,
            Err(Failure(why)) => {
                ended = Some(why);
                break;
            }
        };
        if json {
            super::client::print_status(&now.status, &now.work, false)?;
        } else if live {
            write!(out, "{HOME}{}", page(&before, &now).join("\n"))?;
        } else {
            writeln!(out, "{}", line(&before, &now))?;
        }
        out.flush()?;
        before = now;
        match &keys {
            Some(keys) => {
                if keys.wait(EVERY).is_some_and(|key| matches!(key, b'q' | b'Q' | CTRL_C)) {
                    break;
                }
            }
            None => std::thread::sleep(EVERY),
        }
    }
    drop(keys);
    if live {
        write!(out, "{}", SCREEN.1)?;
        out.flush()?;
    }
    if let Some(why) = ended {
        eprintln!("{why}");
    }
    Ok(0)
}

/// How much a count grew in a second.
fn rate(before: &Look, now: &Look, of: impl Fn(&Look) -> u64) -> f64 {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    if seconds > 0.0 { of(now).saturating_sub(of(before)) as f64 / seconds } else { 0.0 }
}

fn bytes_s(before: &Look, now: &Look, of: impl Fn(&Look) -> u64) -> String {
    format!("{}/s", bytes(rate(before, now, of) as u64))
}

fn state(look: &Look) -> &'static str {
    match (look.status.read_only, look.work.coding_paused) {
        (true, _) => "read-only",
        (false, true) => "coding is paused",
        (false, false) if look.status.queue_files > 0 => "coding",
        (false, false) => "idle",
    }
}

/// All of it in one line.
fn line(before: &Look, now: &Look) -> String {
    let s = &now.status;
    format!(
        "{}: queue {} files, {}; coded {} in {} ({:.1} %), {} coded, {} decoded",
        state(now),
        s.queue_files,
        bytes(s.queue_bytes),
        bytes(s.coded_plain_bytes),
        bytes(s.coded_stored_bytes),
        percent(s.coded_stored_bytes, s.coded_plain_bytes),
        bytes_s(before, now, |l| l.work.encoded_bytes),
        bytes_s(before, now, |l| l.work.decoded_bytes)
    )
}

/// A screen of it.
fn page(before: &Look, now: &Look) -> Vec<String> {
    let (s, w) = (&now.status, &now.work);
    let mut out = vec![
        format!("volume   {} ({}); q ends this", s.uuid, state(now)),
        format!("queue    {} files, {} in staging", s.queue_files, bytes(s.queue_bytes)),
        format!(
            "coded    {} in {}: {:.1} %, {:.3} bits per byte",
            bytes(s.coded_plain_bytes),
            bytes(s.coded_stored_bytes),
            percent(s.coded_stored_bytes, s.coded_plain_bytes),
            s.coded_stored_bytes as f64 * 8.0 / s.coded_plain_bytes.max(1) as f64
        ),
        format!(
            "now      {} coded, {} decoded; {:.0} reads of segments in memory, {:.0} of others a second",
            bytes_s(before, now, |l| l.work.encoded_bytes),
            bytes_s(before, now, |l| l.work.decoded_bytes),
            rate(before, now, |l| l.status.cache_hits),
            rate(before, now, |l| l.status.cache_misses)
        ),
        format!("memory   {}, cache {}", bytes(w.memory_bytes), bytes(s.cache_bytes)),
    ];
    if s.stuck_files > 0 {
        let why = s.stuck_reason.as_deref().unwrap_or("no reason is known");
        out.push(format!("stuck    {} files: {}", s.stuck_files, visible(why)));
    }
    out.extend(s.coding_waits.iter().map(|why| format!("waiting  {why}")));
    if s.decode_failures + s.damaged_staged > 0 {
        out.push(format!("damage   {} decodes failed, {} staged files", s.decode_failures, s.damaged_staged));
    }
    out.extend(w.coding_now.iter().take(NOW_SHOWN).map(super::show::coding_now));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::CodingNow;

    fn look(at: Instant, encoded_bytes: u64, queue_files: u64) -> Look {
        let mut work: Work = serde_json::from_value(serde_json::json!({
            "encoded_bytes": encoded_bytes, "encode_us": 1, "decoded_bytes": 0, "decode_us": 0, "early_aborts": 0,
            "jobs_panicked": 0, "memory_bytes": 1, "memory_peak_bytes": 2, "coding_paused": false
        }))
        .unwrap();
        let file = "/a\x1b[2Jname".to_string();
        work.coding_now.push(CodingNow { file, bytes: 1 << 20, class: "text".into(), ..CodingNow::default() });
        Look { status: Status { queue_files, ..Status::default() }, work, at }
    }

    #[test]
    fn rates_are_those_of_a_second_and_names_do_not_move_the_cursor() {
        let start = Instant::now();
        let (before, now) = (look(start, 1 << 20, 5), look(start + Duration::from_secs(2), 5 << 20, 3));
        let told = line(&before, &now);
        assert!(told.starts_with("coding: queue 3 files") && told.contains("2.0 MiB/s coded"), "{told}");
        let page = page(&before, &now);
        assert!(page.iter().any(|l| l.contains("2.0 MiB/s coded")), "{page:?}");
        assert!(page.iter().any(|l| l.contains("1.0 MiB of text")), "{page:?}");
        assert!(!page.concat().contains('\x1b'), "{page:?}");
        // Two looks at one time, and a daemon that began anew.
        assert_eq!((rate(&now, &now, |_| 7), rate(&now, &before, |l| l.work.encoded_bytes)), (0.0, 0.0));
    }
}
