//! Metrics: what `tersefs status` shows, in the text format of Prometheus, over HTTP on a Unix socket or a port of the loopback
//! device. Off unless asked for; names of files are never in it.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use super::compressor::Compressor;
use super::control;
use super::protocol::{Times, Work};
use crate::host;
use crate::volume::{Status, Volume};

/// Conversations at a time; more wait.
const CONNECTIONS_MAX: usize = 8;
/// Longest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// A conversation is given this long.
const CONVERSATION_MAX: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken.
const FAILED_PAUSE: Duration = Duration::from_millis(200);

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAt {
    /// A socket that is made for its owner alone.
    Unix(PathBuf),
    /// An address of the loopback device.
    Port(SocketAddr),
}

impl MetricsAt {
    /// Reads `unix:PATH` or `127.0.0.1:PORT`; what is wrong otherwise.
    pub fn parse(text: &str) -> Result<MetricsAt, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(MetricsAt::Unix(path.into()))
            } else {
                Err("give the socket by its whole path, like unix:/run/tersefs/cold.sock".into())
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(MetricsAt::Port(address)),
            Ok(_) => Err("metrics are served to this machine alone: give 127.0.0.1:PORT, and let a proxy that asks \
                          who it is serve others"
                .into()),
            Err(_) => Err("give unix:PATH or 127.0.0.1:PORT".into()),
        }
    }
}

impl std::fmt::Display for MetricsAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MetricsAt::Unix(path) => write!(f, "unix:{}", path.display()),
            MetricsAt::Port(address) => write!(f, "{address}"),
        }
    }
}

/// A place where connections come in.
pub(super) enum Listener {
    Unix(UnixListener, PathBuf),
    Port(TcpListener),
}

/// Begins to listen. A socket that a daemon left which was killed is taken away; anything else in its place is not.
pub(super) fn bind(at: &MetricsAt) -> io::Result<Listener> {
    match at {
        MetricsAt::Unix(path) => {
            if host::exists(path) && !host::is_socket(path) {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
            }
            Ok(Listener::Unix(control::bind(path)?, path.clone()))
        }
        MetricsAt::Port(address) => {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(Listener::Port(TcpListener::from_std(listener)?))
        }
    }
}

/// Either kind of connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Answers until `stop`.
pub(super) async fn serve(
    listener: Listener,
    volume: Arc<Volume>,
    compressor: Arc<Compressor>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accept = async {
            Ok::<Box<dyn Stream>, io::Error>(match &listener {
                Listener::Unix(listener, _) => Box::new(listener.accept().await?.0),
                Listener::Port(listener) => Box::new(listener.accept().await?.0),
            })
        };
        let stream = tokio::select! {
            accepted = accept => accepted,
            _ = stop.changed() => break,
        };
        match stream {
            Ok(stream) => {
                let (volume, compressor) = (volume.clone(), compressor.clone());
                tokio::spawn(async move {
                    let _place = place;
                    // Whoever went away, or never came to the point, is no failure of ours.
                    let _ = tokio::time::timeout(CONVERSATION_MAX, converse(stream, &volume, &compressor)).await;
                });
            }
            Err(e) => {
                log::warn!("metrics: {e}");
                tokio::time::sleep(FAILED_PAUSE).await;
            }
        }
    }
    if let Listener::Unix(_, path) = &listener {
        let _ = host::remove_socket(path);
    }
}

async fn converse(mut stream: impl Stream, volume: &Arc<Volume>, compressor: &Compressor) -> io::Result<()> {
    let mut head = Vec::new();
    let ends = |head: &[u8]| head.windows(4).any(|w| w == b"\r\n\r\n") || head.windows(2).any(|w| w == b"\n\n");
    while !ends(&head) {
        let mut part = [0; 1024];
        let got = stream.read(&mut part).await?;
        head.extend(part.iter().take(got));
        if got == 0 || head.len() > HEAD_BYTES_MAX {
            break;
        }
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_string();
    let mut words = line.split(' ');
    let (status, body) = match (words.next(), words.next().map(|path| path.split('?').next().unwrap_or_default())) {
        (Some("GET"), Some("/metrics" | "/")) => match control::look(volume, compressor).await {
            Ok((status, work)) => ("200 OK", text(&status, &work)),
            Err(message) => ("500 Internal Server Error", format!("{message}\n")),
        },
        (Some("GET"), Some(_)) => ("404 Not Found", "there is only /metrics\n".to_string()),
        (Some(_), Some(_)) => ("405 Method Not Allowed", "there is only GET\n".to_string()),
        _ => ("400 Bad Request", "this is HTTP\n".to_string()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Lines of one metric after another.
struct Page(String);

impl Page {
    /// A metric with a value for each of some labels.
    fn each(&mut self, name: &str, kind: &str, help: &str, values: impl IntoIterator<Item = (String, f64)>) {
        // A String takes everything.
        let _ = writeln!(self.0, "# HELP tersefs_{name} {help}\n# TYPE tersefs_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "tersefs_{name}{labels} {value}");
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.each(name, "gauge", help, [(String::new(), value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.each(name, "counter", help, [(String::new(), value)]);
    }
}

/// A histogram as lines of its buckets, each with all that is below it, then sum and count.
fn histogram(page: &mut Page, name: &str, help: &str, of: &[(&str, &Times)]) {
    page.each(name, "histogram", help, []);
    for (kind, times) in of {
        let mut below = 0;
        for (bound, count) in times.up_to_us.iter().zip(&times.counts) {
            below += count;
            let _ = writeln!(page.0, "tersefs_{name}_bucket{{kind=\"{kind}\",le=\"{}\"}} {below}", *bound as f64 / 1e6);
        }
        let (all, seconds) = (times.count(), times.sum_us as f64 / 1e6);
        let _ = writeln!(page.0, "tersefs_{name}_bucket{{kind=\"{kind}\",le=\"+Inf\"}} {all}");
        let _ = writeln!(page.0, "tersefs_{name}_sum{{kind=\"{kind}\"}} {seconds}");
        let _ = writeln!(page.0, "tersefs_{name}_count{{kind=\"{kind}\"}} {all}");
    }
}

fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{}\"}}", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The state of a volume and what its daemon has done.
fn text(s: &Status, work: &Work) -> String {
    let mut page = Page(String::new());
    let p = &mut page;
    p.each("info", "gauge", "The volume, always 1.", [(label("uuid", &s.uuid), 1.0)]);
    p.gauge(
        "read_only",
        "1 when nothing can be written, by wish or after a failed sync.",
        f64::from(u8::from(s.read_only)),
    );
    p.gauge("coding_paused", "1 when nothing is coded by wish.", f64::from(u8::from(work.coding_paused)));
    p.gauge("coding_waits", "1 when something holds coding up.", f64::from(u8::from(s.coding_waits.is_some())));
    p.gauge("queue_files", "Files that wait for coding.", s.queue_files as f64);
    p.gauge("queue_bytes", "Their plain bytes in staging, estimated when they are many.", s.queue_bytes as f64);
    p.gauge("stuck_files", "Files that could not be coded.", s.stuck_files as f64);
    p.gauge("plain_files", "Files met that stay plain by wish.", s.plain_files as f64);
    p.gauge("inodes", "Files, directories and all else with an inode.", s.inodes as f64);
    p.gauge("inodes_in_memory", "Those of them in memory.", s.inodes_in_memory as f64);
    p.gauge("coded_plain_bytes", "Plain bytes that are coded.", s.coded_plain_bytes as f64);
    p.gauge("coded_stored_bytes", "What they take in packs.", s.coded_stored_bytes as f64);
    let of_methods = |value: fn(&(u64, u64, u64)) -> u64| {
        s.methods.iter().map(move |(name, sums)| (label("method", name), value(sums) as f64)).collect::<Vec<_>>()
    };
    p.each("method_extents", "gauge", "Extents of files by method.", of_methods(|m| m.0));
    p.each("method_plain_bytes", "gauge", "Plain bytes coded, by method.", of_methods(|m| m.1));
    p.each("method_stored_bytes", "gauge", "What they take in packs, by method.", of_methods(|m| m.2));
    p.gauge(
        "shared_plain_bytes",
        "Plain bytes that files share, counted once less than named.",
        s.shared_plain_bytes as f64,
    );
    p.gauge("shared_stored_bytes", "What they would take if they did not.", s.shared_stored_bytes as f64);
    p.gauge("data_pack_bytes", "Packs of segments.", s.data_pack_bytes as f64);
    p.gauge("data_live_bytes", "What of them is in use.", s.data_live_bytes as f64);
    p.gauge("meta_pack_bytes", "Packs of metadata.", s.meta_pack_bytes as f64);
    p.counter("gc_packs_deleted_total", "Packs given back.", s.gc_packs_deleted as f64);
    p.counter("gc_bytes_deleted_total", "Their bytes.", s.gc_bytes_deleted as f64);
    p.gauge("cache_bytes", "Decoded segments in memory.", s.cache_bytes as f64);
    p.counter("cache_hits_total", "Reads of segments that were in memory.", s.cache_hits as f64);
    p.counter("cache_misses_total", "Reads of segments that were not.", s.cache_misses as f64);
    p.gauge(
        "hot_budget_bytes",
        "What decoded copies on disk may take; 0 when there are none.",
        s.hot.budget_bytes as f64,
    );
    p.gauge("hot_bytes", "What they take.", s.hot.bytes as f64);
    p.gauge("hot_copies", "How many there are.", s.hot.copies as f64);
    p.counter("hot_hits_total", "Slow segments read from a copy instead of being decoded.", s.hot.hits as f64);
    p.counter("hot_misses_total", "Slow segments read that had none.", s.hot.misses as f64);
    p.counter("hot_written_bytes_total", "Bytes of copies written.", s.hot.written_bytes as f64);
    p.counter("hot_evicted_total", "Copies that made room for others or for new data.", s.hot.evicted as f64);
    p.counter("hot_wrong_total", "Copies that failed their check and were not used.", s.hot.wrong as f64);
    p.counter("decodes_total", "Segments decoded.", s.decodes as f64);
    p.counter("decode_failures_total", "Decodes whose bytes failed a check: damage.", s.decode_failures as f64);
    p.gauge("quarantined_segments", "Segments that failed a check.", s.quarantined as f64);
    p.gauge("damaged_staged_files", "Files whose staged bytes failed a check.", s.damaged_staged as f64);
    p.counter("encoded_bytes_total", "Plain bytes coded since the mount.", work.encoded_bytes as f64);
    p.counter("encode_seconds_total", "Processor time of that, with verification.", work.encode_us as f64 / 1e6);
    p.counter("decoded_bytes_total", "Plain bytes decoded since the mount.", work.decoded_bytes as f64);
    p.counter("decode_seconds_total", "Processor time of that.", work.decode_us as f64 / 1e6);
    histogram(
        p,
        "read_seconds",
        "How long reads took that were answered at once (warm), and that waited for a segment (cold).",
        &[("warm", &work.reads_warm), ("cold", &work.reads_cold)],
    );
    p.counter("early_aborts_total", "Segments left raw after a look at a sample.", work.early_aborts as f64);
    p.counter("jobs_panicked_total", "Bugs.", work.jobs_panicked as f64);
    p.gauge("memory_bytes", "Resident memory of the daemon.", work.memory_bytes as f64);
    p.gauge("memory_peak_bytes", "Its highest value.", work.memory_peak_bytes as f64);
    p.gauge("memory_budget_bytes", "Memory it may use beyond the tables of models.", s.memory_budget_bytes as f64);
    p.gauge("memory_model_bytes", "What those tables take.", s.memory_model_bytes as f64);
    let shares = s.memory_shares.iter().map(|(name, share)| (label("share", name), share.used as f64));
    p.each("memory_share_bytes", "gauge", "Parts of the budget in use.", shares.collect::<Vec<_>>());
    p.counter(
        "memory_shrunk_total",
        "Times that memory was given back as the budget was near.",
        s.memory_shrunk as f64,
    );
    p.gauge("scrub_running", "1 while the volume is scrubbed.", f64::from(u8::from(s.scrub.running)));
    if let Some(last) = s.scrub.last_full {
        p.gauge("scrub_last_full_timestamp_seconds", "When the last whole scrub ended.", last as f64);
    }
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let mut s = Status { uuid: "a \"b\"\\".into(), queue_files: 3, ..Status::default() };
        s.methods.insert("primed".into(), (1, 200, 50));
        s.scrub.last_full = Some(1_700_000_000);
        let work: Work = serde_json::from_value(serde_json::json!({
            "encoded_bytes": 7, "encode_us": 1_500_000, "decoded_bytes": 0, "decode_us": 0, "early_aborts": 0,
            "jobs_panicked": 0, "memory_bytes": 1, "memory_peak_bytes": 2, "coding_paused": true,
            "reads_cold": { "up_to_us": [100, 250_000], "counts": [2, 3, 1], "sum_us": 2_500_000 }
        }))
        .unwrap();
        text(&s, &work)
    }

    /// The name of the histogram that a line is of, if it is of one.
    fn of_histogram(name: &str) -> &str {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
    }

    #[test]
    fn the_page_is_in_the_format_of_prometheus() {
        let page = page();
        let mut named = std::collections::BTreeSet::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (kind, name, says) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                assert!(name.starts_with("tersefs_") && !says.is_empty(), "{line}");
                match kind {
                    "HELP" => assert!(named.insert(name.to_string()), "{name} comes twice"),
                    "TYPE" => assert_eq!(says == "counter", name.ends_with("_total"), "{line}"),
                    _ => panic!("{line}"),
                }
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = name.split('{').next().unwrap();
                assert!(named.contains(name) || named.contains(of_histogram(name)), "{line}");
            }
        }
        for line in [
            "tersefs_info{uuid=\"a \\\"b\\\"\\\\\"} 1",
            "tersefs_queue_files 3",
            "tersefs_method_stored_bytes{method=\"primed\"} 50",
            "tersefs_encode_seconds_total 1.5",
            "# TYPE tersefs_read_seconds histogram",
            "tersefs_read_seconds_bucket{kind=\"cold\",le=\"0.0001\"} 2",
            "tersefs_read_seconds_bucket{kind=\"cold\",le=\"0.25\"} 5",
            "tersefs_read_seconds_bucket{kind=\"cold\",le=\"+Inf\"} 6",
            "tersefs_read_seconds_sum{kind=\"cold\"} 2.5",
            "tersefs_read_seconds_count{kind=\"cold\"} 6",
            "tersefs_read_seconds_count{kind=\"warm\"} 0",
            "tersefs_coding_paused 1",
            "tersefs_scrub_last_full_timestamp_seconds 1700000000",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}: {page}");
        }
    }

    #[test]
    fn the_dashboard_asks_for_what_is_there() {
        let board: serde_json::Value =
            serde_json::from_str(include_str!("../../dashboards/tersefs.json")).expect("the dashboard is JSON");
        let panels = board["panels"].as_array().unwrap();
        let page = page();
        let mut asked = 0;
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in words.filter(|w| w.starts_with("tersefs_")) {
                assert!(page.contains(&format!("# HELP {} ", of_histogram(name))), "{name} in {expression}");
                asked += 1;
            }
        }
        assert!(asked > 15, "{asked}");
    }

    #[test]
    fn only_this_machine_is_served() {
        assert_eq!(MetricsAt::parse("unix:/run/a b.sock"), Ok(MetricsAt::Unix("/run/a b.sock".into())));
        assert_eq!(MetricsAt::parse("127.0.0.1:9750"), Ok(MetricsAt::Port("127.0.0.1:9750".parse().unwrap())));
        assert!(MetricsAt::parse("[::1]:9750").is_ok());
        for (text, says) in [
            ("0.0.0.0:9750", "this machine alone"),
            ("192.168.0.1:9750", "this machine alone"),
            ("[::]:9750", "this machine alone"),
            ("9750", "unix:PATH or 127.0.0.1:PORT"),
            ("localhost:9750", "unix:PATH or 127.0.0.1:PORT"),
            ("unix:relative", "whole path"),
            ("", "unix:PATH"),
        ] {
            assert!(MetricsAt::parse(text).unwrap_err().contains(says), "{text}");
        }
    }
}
