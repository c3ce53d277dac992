//! Metrics of a mounted volume, over its socket and over a port, and what is refused.

mod mounted;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mounted::{BINARY, Dice, Mount, arg, run};

/// What a server answers to some bytes.
fn answer(mut stream: impl Read + Write, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut out = Vec::new();
    let _ = stream.read_to_end(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nUser-Agent: a test\r\n\r\n";

/// The value of a metric on a page.
fn value(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}: {page}")).parse().unwrap()
}

#[test]
fn metrics_are_what_status_shows() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("metrics.sock");
    let mount = Mount::new(dir.path(), &["--quiet-seconds=0.3", &format!("--metrics=unix:{}", arg(&socket))]);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(mount.path("f"), Dice(3).text(200_000)).unwrap();
    mount.wait();
    let get = |request: &[u8]| answer(UnixStream::connect(&socket).unwrap(), request);
    let page = get(GET);
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let status = mount.status();
    for name in ["queue_files", "coded_plain_bytes", "coded_stored_bytes", "inodes", "encoded_bytes_total"] {
        let shown = status[name.trim_end_matches("_total")].as_f64().unwrap();
        assert_eq!(value(body, &format!("tersefs_{name}")), shown, "{name}");
    }
    assert_eq!(value(body, "tersefs_coded_plain_bytes"), 200_000.0);
    // A read that waits for a segment, and one that does not: past the pages of the kernel.
    let read = || {
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(mount.path("f")).unwrap();
        file.read_at(&mut [0; 4096], 100_000).unwrap();
        let status = mount.status();
        let count = |what: &str| status[what]["counts"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
        let (warm, cold): (u64, u64) = (count("reads_warm"), count("reads_cold"));
        (warm, cold)
    };
    let (cold, warm) = (read(), read());
    assert_eq!((cold.1, warm), (1, (cold.0 + 1, 1)), "one had to wait, and the next did not");
    let body = get(GET);
    assert_eq!(value(&body, "tersefs_read_seconds_count{kind=\"cold\"}"), 1.0);
    assert_eq!(value(&body, "tersefs_read_seconds_bucket{kind=\"warm\",le=\"+Inf\"}"), warm.0 as f64);
    assert!(value(&body, "tersefs_read_seconds_sum{kind=\"cold\"}") > 0.0);
    // What makes no sense is answered, or cut off, and harms nobody.
    assert!(get(b"GET /etc/passwd HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(get(b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(get(b"\xff\xfe\n\n").starts_with("HTTP/1.1 400"));
    get(&vec![b'a'; 100_000]);
    let silent: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert!(get(GET).contains("tersefs_info{uuid="));
    drop(silent);
    // One that a daemon left which was killed is no hindrance, and at the end it goes.
    let store = mount.store.clone();
    mount.kill();
    assert!(socket.exists());
    let mount = Mount::of(&store, &dir.path().join("mnt"), &[&format!("--metrics=unix:{}", arg(&socket))]);
    assert!(get(GET).contains("tersefs_info"));
    mount.done();
    assert!(!socket.exists());
}

#[test]
fn metrics_on_a_port_are_for_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    // Free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mount = Mount::new(dir.path(), &[&format!("--metrics=127.0.0.1:{port}")]);
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert!(answer(stream, GET).contains("tersefs_queue_files 0"));
    // Two cannot have one port: the second says so, and leaves no mount behind.
    let (store, point) = (dir.path().join("other"), dir.path().join("other mnt"));
    fs::create_dir(&point).unwrap();
    let second = run(BINARY, &["mount", &format!("--metrics=127.0.0.1:{port}"), arg(&store), arg(&point)], 60);
    assert!(second.code == Some(1) && second.err.contains(&format!("metrics at 127.0.0.1:{port}")), "{second:?}");
    let file = dir.path().join("a file");
    fs::write(&file, b"mine").unwrap();
    let third = run(BINARY, &["mount", &format!("--metrics=unix:{}", arg(&file)), arg(&store), arg(&point)], 60);
    assert!(third.code == Some(1) && third.err.contains("no socket"), "{third:?}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains("other\\040mnt"), "{mounts}");
    let fourth = run(BINARY, &["mount", "--metrics=0.0.0.0:9", arg(&store), arg(&point)], 60);
    assert!(fourth.code == Some(2) && fourth.err.contains("this machine alone"), "{fourth:?}");
    mount.done();
}
