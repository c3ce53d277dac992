//! A store mounted by the real binary: started, asked, killed and always taken down again; nothing waits for ever.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod journal;
pub mod loopfs;
pub mod recorder;
pub mod sys;
pub mod tools;
pub mod workload;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tersefs");
/// A mount that is not there after this time will not come.
const MOUNT_MAX: Duration = Duration::from_secs(30);
/// A daemon that was told to end has ended after this time.
const END_MAX: Duration = Duration::from_secs(60);

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a program; panics when it is not there or takes longer than `seconds`.
pub fn run(program: &str, args: &[&str], seconds: u64) -> Outcome {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let collect = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = collect(child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let err = collect(child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let code = match wait_for(&mut child, Duration::from_secs(seconds)) {
        Some(status) => status.code(),
        None => {
            let _ = child.kill();
            panic!("`{program} {}` did not end within {seconds} s", args.join(" "));
        }
    };
    Outcome { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

/// Runs a program that must succeed; returns what it said.
pub fn ok(program: &str, args: &[&str], seconds: u64) -> String {
    let outcome = run(program, args, seconds);
    assert_eq!(outcome.code, Some(0), "`{program} {}`: {}{}", args.join(" "), outcome.out, outcome.err);
    outcome.out
}

/// Runs `tersefs`.
pub fn tersefs(args: &[&str]) -> Outcome {
    run(BINARY, args, 300)
}

pub fn wait_for(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if started.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A store, a mountpoint, and the daemon between them.
pub struct Mount {
    pub store: PathBuf,
    pub point: PathBuf,
    log: PathBuf,
    daemon: Option<Child>,
}

impl Mount {
    /// Mounts `dir/store` on `dir/mnt` in the foreground of a child, and waits until it serves.
    pub fn new(dir: &Path, flags: &[&str]) -> Mount {
        Mount::of(&dir.join("store"), &dir.join("mnt"), flags)
    }

    pub fn of(store: &Path, point: &Path, flags: &[&str]) -> Mount {
        match Mount::try_of(store, point, flags) {
            Ok(mount) => mount,
            Err(why) => panic!("{} was not mounted: {why}", store.display()),
        }
    }

    /// As `of`; a daemon that ends instead of serving is an error with its messages, one that does neither a panic.
    pub fn try_of(store: &Path, point: &Path, flags: &[&str]) -> Result<Mount, String> {
        assert!(
            Path::new("/dev/fuse").exists(),
            "there is no /dev/fuse: the tests of the mounted volume need it (`modprobe fuse`, or a container with --device /dev/fuse)"
        );
        fs::create_dir_all(point).unwrap();
        let log = point.with_extension("log");
        let mut daemon = Command::new(BINARY)
            .arg("mount")
            .args([store, point])
            .args(["--threads", "2"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let out = daemon.stdout.take().unwrap();
        let mut mount = Mount { store: store.into(), point: point.into(), log, daemon: Some(daemon) };
        let (tx, rx) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if line.contains("is mounted on") {
                    let _ = tx.send(());
                }
            }
        });
        match rx.recv_timeout(MOUNT_MAX) {
            Ok(()) => Ok(mount),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                // It ended by itself: there is nothing to take down.
                let status = mount.daemon.take().map(|mut d| d.wait());
                Err(format!("{status:?}: {}", mount.log()))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("{} neither mounts nor fails: {}", store.display(), mount.log())
            }
        }
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon").id()
    }

    /// Codes everything.
    pub fn wait(&self) {
        let outcome = tersefs(&["wait", arg(&self.point)]);
        assert_eq!(outcome.code, Some(0), "wait: {}{} {}", outcome.out, outcome.err, self.log());
    }

    pub fn status(&self) -> serde_json::Value {
        let text = ok(BINARY, &["status", "--json", arg(&self.point)], 60);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("status --json: {e}: {text}"))
    }

    pub fn stat(&self, name: &str) -> serde_json::Value {
        let text = ok(BINARY, &["stat", "--json", arg(&self.path(name))], 60);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("stat --json: {e}: {text}"))
    }

    /// `tersefs umount` with flags; returns what it said, and holds the daemon to ending well.
    pub fn umount(mut self, flags: &[&str]) -> Outcome {
        let mut args = vec!["umount"];
        args.extend(flags);
        let point = self.point.clone();
        args.push(arg(&point));
        let mut outcome = tersefs(&args);
        // What another test of this process forks has our files open until it becomes another program.
        for _ in 0..20 {
            if outcome.code != Some(1) || !outcome.err.contains("busy") {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
            outcome = tersefs(&args);
        }
        let mut daemon = self.daemon.take().expect("a daemon");
        match wait_for(&mut daemon, END_MAX) {
            Some(status) => assert!(status.success(), "the daemon ended with {status}: {}", self.log()),
            None => {
                let _ = daemon.kill();
                panic!("the daemon lives on after umount: {outcome:?} {}", self.log());
            }
        }
        outcome
    }

    /// Unmounts after all is coded, which must go well.
    pub fn done(self) {
        let outcome = self.umount(&[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }

    /// No bug of the daemon showed: no job panicked, no thread did.
    pub fn is_sound(&self) {
        assert_eq!(self.status()["jobs_panicked"], 0, "{}", self.log());
        // The engine of the index panics at files that a kill left while it made them: as it opens them, for which it has a thread
        // of its own, or when it is asked. Both is caught, and the index is made anew.
        let expected = ["thread 'index-open'", "the engine panicked", "/sled-0.34.7/src/"];
        let log = self.log();
        let panics = log.lines().filter(|l| l.contains("panicked") && !expected.iter().any(|e| l.contains(e)));
        assert_eq!(panics.count(), 0, "{log}");
    }

    /// Ends a mount whose store may have failed: `umount --now`, or else a lazy unmount; how the daemon ended.
    pub fn end(mut self) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().expect("a daemon");
        let point = self.point.clone();
        let asked = tersefs(&["umount", "--now", arg(&point)]);
        if asked.code.is_none_or(|c| c != 0 && c != 4) {
            run("umount", &["-l", arg(&point)], 30);
        }
        match wait_for(&mut daemon, END_MAX) {
            Some(status) => status,
            None => {
                let _ = daemon.kill();
                panic!("the daemon lives on after umount: {asked:?} {}", self.log());
            }
        }
    }

    /// kill -9, from any thread; `kill` clears up after it.
    pub fn strike(&self) {
        // SAFETY: the id is that of a child that was not waited for.
        unsafe { libc::kill(self.pid() as i32, libc::SIGKILL) };
    }

    /// kill -9, and the dead mount taken away; how the daemon ended, which may have been before.
    pub fn kill(mut self) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().expect("a daemon");
        daemon.kill().unwrap();
        let status = daemon.wait().unwrap();
        run("umount", &["-l", arg(&self.point)], 30);
        status
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // A test failed: take the mount away first, or its readers hang.
            let _ = Command::new("umount").arg("-l").arg(&self.point).status();
            if wait_for(&mut daemon, Duration::from_secs(5)).is_none() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            if std::thread::panicking() {
                eprintln!("log of the daemon:\n{}", self.log());
            }
        }
    }
}

/// Numbers by chance from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n.max(1)
    }

    /// Text of a kind that models shrink: words in an order by chance.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "the ",
            "store ",
            "keeps ",
            "segments ",
            "in ",
            "packs ",
            "and ",
            "reads ",
            "them ",
            "back,\n",
            "bit ",
            "for ",
            "bit, ",
            "at ",
            "any ",
            "offset. ",
        ];
        let mut out = Vec::with_capacity(len + 16);
        while out.len() < len {
            out.extend_from_slice(WORDS[self.below(16) as usize].as_bytes());
        }
        out.truncate(len);
        out
    }

    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 3);
        while out.len() < len {
            self.below(1);
            // The low bits of such numbers have short periods.
            out.extend_from_slice(&self.0.to_le_bytes()[4..]);
        }
        out.truncate(len);
        out
    }
}

/// A tree with the sources of this crate and files of many kinds and sizes.
pub fn plant_tree(root: &Path, small_files: usize) {
    let mut dice = Dice(1);
    fs::create_dir_all(root).unwrap();
    ok("cp", &["-a", concat!(env!("CARGO_MANIFEST_DIR"), "/src"), arg(&root.join("src"))], 60);
    for n in 0..small_files {
        let dir = root.join(format!("small/{}", n / 100));
        fs::create_dir_all(&dir).unwrap();
        let len = dice.below(2000) as usize;
        let data = if n % 10 == 0 { dice.noise(len) } else { dice.text(len) };
        fs::write(dir.join(format!("file {n}")), data).unwrap();
    }
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("text"), dice.text(1_200_000)).unwrap();
    fs::write(root.join("noise"), dice.noise(700_001)).unwrap();
    fs::write(root.join("zeros"), vec![0; 300_000]).unwrap();
    fs::create_dir_all(root.join("an/empty/directory")).unwrap();
    std::os::unix::fs::symlink("../text", root.join("an/link to text")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("text"), root.join("an/other name of text")).unwrap();
    ok("truncate", &["-s", "5000000", arg(&root.join("sparse"))], 10);
    fs::set_permissions(root.join("zeros"), std::os::unix::fs::PermissionsExt::from_mode(0o4750)).unwrap();
}

/// Both trees hold the same names and bytes.
pub fn same_trees(a: &Path, b: &Path) {
    let outcome = run("diff", &["-r", "--no-dereference", arg(a), arg(b)], 300);
    assert_eq!(outcome.code, Some(0), "{} and {} differ: {}{}", a.display(), b.display(), outcome.out, outcome.err);
}

/// Type, permissions, links, owner, size and time of everything below a directory, but sizes and times of directories.
pub fn attributes(root: &Path) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (kind, shown) in [("d", "%P %y %m %U %G"), ("f", "%P %y %m %U %G %n %s %T@"), ("l", "%P %y %m %U %G %s %l %T@")]
    {
        let format = format!("{shown}\\n");
        let text = ok("find", &[arg(root), "-mindepth", "1", "-type", kind, "-printf", &format], 120);
        out.extend(text.lines().map(str::to_string));
    }
    out.sort();
    out
}

/// Both trees have the same attributes; says only what differs.
pub fn same_attributes(a: &Path, b: &Path) {
    let (left, right) = (attributes(a), attributes(b));
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).take(10).cloned().collect()
    };
    let (left_only, right_only) = (only(&left, &right), only(&right, &left));
    let same = left_only.is_empty() && right_only.is_empty() && left.len() == right.len();
    assert!(same, "{}: {left_only:#?}\n{}: {right_only:#?}", a.display(), b.display());
}
