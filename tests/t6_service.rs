//! The units of systemd: they are well-formed, as hardened as the README says, and their command does what a service manager
//! waits for. systemd need not run here: the command of the unit is started by hand, and a socket of the test listens.
//!
//! Needs root, /dev/fuse, `systemd-analyze`, `setpriv` and `strace`.

mod mounted;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mounted::{BINARY, Dice, arg, ok, run, wait_for};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where the packages put the program.
const INSTALLED: &str = "/usr/bin/tersefs";
/// Longest wait for something that a daemon is to say.
const WORD_MAX: Duration = Duration::from_secs(30);

/// The text of a unit, with the program under test as its command.
fn unit(name: &str) -> String {
    let text = fs::read_to_string(format!("{ROOT}/systemd/{name}")).unwrap();
    text.replace(INSTALLED, BINARY)
}

/// All values of a setting in a unit.
fn settings<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// All units in a directory, templates as their instance `test`.
fn instances() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for entry in fs::read_dir(format!("{ROOT}/systemd")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_file() {
            fs::write(dir.path().join(&name), unit(&name)).unwrap();
            paths.push(dir.path().join(name.replace("@.", "@test.")));
        }
    }
    assert!(paths.len() >= 3, "{paths:?}");
    (dir, paths)
}

#[test]
fn units_are_well_formed() {
    let (_dir, paths) = instances();
    let mut args = vec!["verify", "--man=no"];
    args.extend(paths.iter().map(|p| arg(p)));
    let outcome = run("systemd-analyze", &args, 120);
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (Some(0), "", ""));
    // A mistake is seen at all.
    let wrong = paths.iter().find(|p| p.ends_with("tersefs@test.service")).unwrap();
    fs::write(wrong, unit("tersefs@.service").replace("Type=notify", "Type=whenever")).unwrap();
    assert!(run("systemd-analyze", &["verify", "--man=no", arg(wrong)], 120).err.contains("whenever"));
}

#[test]
fn units_are_as_hard_as_the_readme_says() {
    let readme = fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    for name in ["tersefs@.service", "tersefs-scrub@.service"] {
        let path = format!("{ROOT}/systemd/{name}");
        let said = ok("systemd-analyze", &["security", "--no-pager", "--offline=true", &path], 120);
        let exposure: f64 = said
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for")?.1.split_once(": ")?.1.split(' ').next())
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("{said}"));
        let line = readme.lines().find(|l| l.contains(name) && l.contains("exposure")).expect("a line of the README");
        let promised: f64 = line
            .split_once("exposure")
            .and_then(|(_, rest)| rest.split(|c: char| c != '.' && !c.is_ascii_digit()).find(|w| !w.is_empty()))
            .and_then(|n| n.trim_end_matches('.').parse().ok())
            .unwrap_or_else(|| panic!("{line}"));
        assert!(exposure <= promised, "{name}: {exposure}, and the README says {promised}");
    }
}

/// A service manager that listens.
struct Ear {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<(Instant, String)>,
}

impl Ear {
    fn new(dir: &Path) -> Ear {
        let path = dir.join("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Ear { socket, path, heard: Vec::new() }
    }

    /// Listens until a line comes that begins like this; returns it.
    fn until(&mut self, start: &str) -> String {
        self.within(start, WORD_MAX).unwrap_or_else(|| panic!("no {start} within {WORD_MAX:?}: {:#?}", self.heard))
    }

    fn within(&mut self, start: &str, limit: Duration) -> Option<String> {
        let begun = Instant::now();
        let mut buf = [0; 4096];
        while begun.elapsed() < limit {
            if let Ok(n) = self.socket.recv(&mut buf) {
                let lines = String::from_utf8_lossy(&buf[..n]).into_owned();
                self.heard.extend(lines.lines().map(|line| (Instant::now(), line.to_string())));
                if let Some(line) = lines.lines().find(|line| line.starts_with(start)) {
                    return Some(line.to_string());
                }
            }
        }
        None
    }
}

/// The daemon of the service, started as the unit has it, with its capabilities and no more; killed when dropped.
struct Service {
    child: Child,
    point: PathBuf,
}

impl Service {
    fn start(dir: &Path, ear: &Ear, watchdog: Duration, settings: &str) -> Service {
        let unit = unit("tersefs@.service");
        let (file, store, point) = (dir.join("test.toml"), dir.join("store"), dir.join("mnt"));
        fs::create_dir_all(&point).unwrap();
        fs::write(&file, format!("store = {store:?}\nmountpoint = {point:?}\n{settings}\n")).unwrap();
        // As systemd does for the instance `test`, but for the place of its file.
        let command = self::settings(&unit, "ExecStart")[0].replace("/etc/tersefs/%i.toml", arg(&file));
        let command: Vec<&str> = command.split(' ').collect();
        assert!(command.contains(&arg(&file)), "{command:?}");
        let kept: Vec<String> = self::settings(&unit, "CapabilityBoundingSet")[0]
            .split(' ')
            .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
            .collect();
        let child = Command::new("setpriv")
            .args(["--no-new-privs", "--bounding-set", &format!("-all,{}", kept.join(","))])
            .args(["sh", "-c", "umask 0077; exec \"$@\"", "sh"])
            .args(&command)
            .env("NOTIFY_SOCKET", &ear.path)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        Service { child, point }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the id is that of a child that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    fn ended(&mut self, limit: Duration) -> std::process::ExitStatus {
        wait_for(&mut self.child, limit).expect("it ends")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.point).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_service_manager_hears_when_it_is_ready_how_it_is_and_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut ear = Ear::new(dir.path());
    let watchdog = Duration::from_secs(2);
    let mut service = Service::start(dir.path(), &ear, watchdog, "quiet-seconds = 0.2\nstop-seconds = 1");
    ear.until("READY=1");
    // The mount answered before that was said.
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(mounts.contains(&format!(" {} fuse.tersefs ", arg(&service.point))), "{mounts}");
    assert!(ear.heard.iter().any(|(_, line)| line == "STATUS=opening the store"), "{:?}", ear.heard);
    assert_eq!(ear.until("STATUS="), "STATUS=nothing waits for coding");
    let text = Dice(5).text(300_000);
    fs::write(service.point.join("text"), &text).unwrap();
    ok(BINARY, &["wait", arg(&service.point)], 60);
    // Signs of life, sooner than the watchdog wants them.
    ear.heard.clear();
    for _ in 0..5 {
        ear.until("WATCHDOG=1");
    }
    for pair in ear.heard.iter().filter(|(_, line)| line == "WATCHDOG=1").collect::<Vec<_>>().windows(2) {
        assert!(pair[1].0 - pair[0].0 < watchdog, "{:?}", ear.heard);
    }
    // A program that keeps a file open holds up the end for as long as it was given, and loses nothing.
    let mut open = File::create(service.point.join("open")).unwrap();
    open.write_all(b"written before the end").unwrap();
    let asked = Instant::now();
    service.signal(libc::SIGTERM);
    ear.until("STOPPING=1");
    let status = service.ended(Duration::from_secs(30));
    assert!(status.success(), "{status}: {}", fs::read_to_string(dir.path().join("log")).unwrap());
    assert!(asked.elapsed() > Duration::from_millis(900), "{:?}", asked.elapsed());
    drop(open);
    let mut service = Service::start(dir.path(), &ear, watchdog, "no-coding = true");
    ear.until("READY=1");
    assert_eq!(fs::read(service.point.join("text")).unwrap(), text);
    assert_eq!(fs::read(service.point.join("open")).unwrap(), b"written before the end");
    let said = ear.until("STATUS=");
    assert!(
        said.starts_with("STATUS=1 files wait for coding (") && said.contains("; 293.0 KiB are coded in "),
        "{said}"
    );
    // Settings are read again; what is wrong in them changes nothing, and what cannot be changed is said.
    let status = || -> serde_json::Value {
        serde_json::from_str(&ok(BINARY, &["status", "--json", arg(&dir.path().join("store"))], 60)).unwrap()
    };
    assert_eq!(status()["coding_paused"], true);
    let file = dir.path().join("test.toml");
    let before = fs::read_to_string(&file).unwrap();
    let set = |settings: &str| fs::write(&file, before.replace("no-coding = true", settings)).unwrap();
    let log = || fs::read_to_string(dir.path().join("log")).unwrap();
    set("no-coding = perhaps");
    service.signal(libc::SIGHUP);
    ear.until("RELOADING=1");
    ear.until("READY=1");
    assert!(log().contains("test.toml:3: ") && status()["coding_paused"] == true, "{}", log());
    fs::write(service.point.join("more"), Dice(6).text(100_000)).unwrap();
    set("no-coding = false\nquiet-seconds = 0.2\nmethod = \"zstd\"\nmemory = 100");
    service.signal(libc::SIGHUP);
    ear.heard.clear();
    ear.until("RELOADING=1");
    assert!(ear.heard.iter().any(|(_, line)| line.starts_with("MONOTONIC_USEC=")), "{:?}", ear.heard);
    ear.until("READY=1");
    assert!(log().contains("memory changed too, which needs a new mount"), "{}", log());
    let begun = Instant::now();
    while status()["queue_files"] != 0 {
        assert!(begun.elapsed() < WORD_MAX, "{}", status());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(status()["methods"].get("zstd").is_some(), "{}", status());
    // Of one that stands still nothing is heard.
    service.signal(libc::SIGSTOP);
    while ear.within("", Duration::from_millis(300)).is_some() {}
    assert_eq!(ear.within("WATCHDOG=1", watchdog * 2), None);
    service.signal(libc::SIGCONT);
    ear.until("WATCHDOG=1");
    service.signal(libc::SIGTERM);
    assert!(service.ended(Duration::from_secs(30)).success());
}

#[test]
fn putting_away_is_given_more_time_while_it_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut ear = Ear::new(dir.path());
    let settings = "quiet-seconds = 0.2\nstop-seconds = 25\nno-passthrough = true\nno-coding = true";
    let mut service = Service::start(dir.path(), &ear, WORD_MAX, settings);
    ear.until("READY=1");
    // A program goes on writing into its file, so the daemon waits for it, and works.
    let mut open = File::create(service.point.join("open")).unwrap();
    service.signal(libc::SIGTERM);
    ear.until("STOPPING=1");
    ear.heard.clear();
    let begun = Instant::now();
    let mut longer = 0;
    // The first is for what was done before, the next for what is done now.
    while longer < 2 && begun.elapsed() < Duration::from_secs(20) {
        open.write_all(&[7; 1 << 16]).unwrap();
        open.sync_data().unwrap();
        let heard = ear.within("EXTEND_TIMEOUT_USEC=", Duration::from_millis(1));
        longer += usize::from(heard.is_some_and(|line| line == "EXTEND_TIMEOUT_USEC=300000000"));
    }
    assert!(longer == 2 && begun.elapsed() > Duration::from_secs(3), "{:?}", ear.heard);
    drop(open);
    let status = service.ended(Duration::from_secs(30));
    assert!(status.success(), "{status}: {}", fs::read_to_string(dir.path().join("log")).unwrap());
}

#[test]
fn the_journal_is_told_priorities_and_nobody_else() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    for (n, is_journal) in [true, false].into_iter().enumerate() {
        let (store, point) = (dir.path().join(format!("store {n}")), dir.path().join(format!("mnt {n}")));
        fs::create_dir(&point).unwrap();
        let log = File::create(dir.path().join(format!("log {n}"))).unwrap();
        // What a journal's stream is known by; or one that a parent had.
        let about = log.metadata().unwrap();
        let stream = format!("{}:{}", about.dev(), about.ino() + u64::from(!is_journal));
        let mut daemon = Command::new(BINARY)
            .args(["mount", arg(&store), arg(&point)])
            .env("JOURNAL_STREAM", stream)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Instant::now();
        let shown = arg(&point).replace(' ', "\\040");
        while !fs::read_to_string("/proc/mounts").unwrap().contains(&shown) {
            assert!(started.elapsed() < WORD_MAX, "it mounts");
            std::thread::sleep(Duration::from_millis(20));
        }
        let refused = run("setfattr", &["-n", "user.tersefs.tier", "-v", "warp", arg(&point)], 30);
        assert_ne!(refused.code, Some(0));
        ok(BINARY, &["umount", arg(&point)], 60);
        assert!(wait_for(&mut daemon, WORD_MAX).expect("it ends").success());
        let said = fs::read_to_string(dir.path().join(format!("log {n}"))).unwrap();
        let warning =
            said.lines().find(|line| line.contains("\"warp\" is refused")).unwrap_or_else(|| panic!("{said}"));
        assert_eq!(warning.starts_with("<4>"), is_journal, "{said}");
        // The journal knows the time; whoever reads a file does not.
        assert_eq!(said.lines().all(|line| line.starts_with('<')), is_journal, "{said}");
        assert_eq!(said.lines().any(|line| line.starts_with("<6>")), is_journal, "{said}");
    }
}

#[test]
fn a_service_that_cannot_start_says_why_and_is_never_ready() {
    let dir = tempfile::tempdir().unwrap();
    let mut ear = Ear::new(dir.path());
    fs::create_dir(dir.path().join("store")).unwrap();
    fs::write(dir.path().join("store/FORMAT"), b"something else").unwrap();
    let mut service = Service::start(dir.path(), &ear, WORD_MAX, "");
    assert_eq!(service.ended(WORD_MAX).code(), Some(1));
    assert_eq!(ear.within("READY=1", Duration::from_millis(300)), None);
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("store"), "{log}");
    // Wrong settings are not tried again.
    let mut service = Service::start(dir.path(), &ear, WORD_MAX, "no-such-flag = 1");
    let code = service.ended(WORD_MAX).code().unwrap().to_string();
    assert_eq!(settings(&unit("tersefs@.service"), "RestartPreventExitStatus"), [code.as_str()]);
}

/// The names that a set of system calls of systemd holds.
fn calls_of(set: &str) -> BTreeSet<String> {
    let said = ok("systemd-analyze", &["syscall-filter", "--no-pager", set], 60);
    let members = said.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    members.flat_map(|name| if name.starts_with('@') { calls_of(name) } else { [name.to_string()].into() }).collect()
}

#[test]
fn the_service_makes_no_system_call_that_its_unit_forbids() {
    let mut allowed = BTreeSet::new();
    let text = unit("tersefs@.service");
    for line in settings(&text, "SystemCallFilter") {
        let (names, forbids) = line.strip_prefix('~').map_or((line, false), |names| (names, true));
        for name in names.split(' ') {
            let calls = if name.starts_with('@') { calls_of(name) } else { [name.to_string()].into() };
            if forbids {
                allowed = &allowed - &calls;
            } else {
                allowed.extend(calls);
            }
        }
    }
    assert!(allowed.contains("mount") && !allowed.contains("chown") && !allowed.contains("ptrace"));
    let dir = tempfile::tempdir().unwrap();
    let (store, point, trace) = (dir.path().join("store"), dir.path().join("mnt"), dir.path().join("trace"));
    fs::create_dir(&point).unwrap();
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-o", arg(&trace), BINARY, "mount", "--quiet-seconds", "0.2", "--parity", "10+1"])
        .args([&store, &point])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !fs::read_to_string("/proc/mounts").unwrap().contains(arg(&point)) {
        assert!(started.elapsed() < WORD_MAX, "it mounts");
        std::thread::sleep(Duration::from_millis(20));
    }
    ok("cp", &["-r", &format!("{ROOT}/src/volume"), arg(&point)], 60);
    fs::write(point.join("f"), Dice(8).text(100_000)).unwrap();
    ok("chmod", &["4755", arg(&point.join("f"))], 60);
    ok("chown", &["1:1", arg(&point.join("f"))], 60);
    ok(BINARY, &["wait", arg(&point)], 120);
    ok("cat", &[arg(&point.join("f"))], 60);
    fs::remove_dir_all(point.join("volume")).unwrap();
    ok(BINARY, &["gc", arg(&point)], 120);
    ok(BINARY, &["scrub", arg(&point)], 120);
    ok(BINARY, &["sync", arg(&point)], 60);
    ok(BINARY, &["umount", arg(&point)], 120);
    assert!(wait_for(&mut tracer, WORD_MAX).expect("it ends").success());
    let mut made = BTreeSet::new();
    for line in fs::read_to_string(&trace).unwrap().lines() {
        let call = line.split_whitespace().nth(1).unwrap_or("").split('(').next().unwrap_or("");
        // What begins otherwise is a signal, an exit or the rest of a call.
        if call.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains('(') {
            made.insert(call.to_string());
        }
    }
    assert!(made.contains("mount") && made.contains("fsync") && made.len() > 30, "{made:?}");
    let forbidden: Vec<_> = made.difference(&allowed).collect();
    assert!(forbidden.is_empty(), "{forbidden:?}");
}
