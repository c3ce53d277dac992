//! kill -9 of the daemon in whatever it does: writing, coding, committing, compacting its log, ending a mount, sealing,
//! scrubbing, giving space back, mounting, making the index anew, repairing. What was promised is there at the next
//! mount, which is quick.
//!
//! A kill that came before or after what it was meant for does not count, and is tried again. `TERSEFS_SEED` sets the
//! seed, `TERSEFS_ROUNDS` the number of kills that count (one of each kind).

mod common;
mod mounted;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::setting;
use mounted::workload::{Lasts, Workload};
use mounted::{BINARY, Mount, arg, ok, wait_for};

/// What the daemon, or a command on the store, is killed at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Writing,
    Coding,
    Committing,
    Compacting,
    Unmounting,
    Scrubbing,
    Collecting,
    Sealing,
    Remounting,
    Rebuilding,
    Repairing,
}

const PHASES: [Phase; 11] = [
    Phase::Writing,
    Phase::Coding,
    Phase::Committing,
    Phase::Compacting,
    Phase::Unmounting,
    Phase::Scrubbing,
    Phase::Collecting,
    Phase::Sealing,
    Phase::Remounting,
    Phase::Rebuilding,
    Phase::Repairing,
];

/// Kills of a phase that may miss what they are meant for, one after the other.
const MISSES_MAX: u32 = 20;
/// A command that has not begun its work after this time will not.
const BEGIN_MAX: Duration = Duration::from_secs(20);
/// A segment at least: the log grows by less while nobody changes anything.
const COPIED_BYTES_MIN: u64 = 60_000;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Sizes of all files below a directory. Files may come and go meanwhile.
fn sizes(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut out = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(m) if m.is_dir() => dirs.push(entry.path()),
                Ok(m) => drop(out.insert(entry.path(), m.len())),
                Err(_) => {}
            }
        }
    }
    out
}

/// True when something was copied: a pack has become longer by so much, or was given back.
fn moved(before: &BTreeMap<PathBuf, u64>, now: &BTreeMap<PathBuf, u64>) -> bool {
    let sum = |of: &BTreeMap<PathBuf, u64>| of.values().sum::<u64>();
    sum(now) > sum(before) + COPIED_BYTES_MIN || before.keys().any(|path| !now.contains_key(path))
}

/// Starts `tersefs` with arguments.
fn start(args: &[&str]) -> Child {
    Command::new(BINARY).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until the work of a command has begun, and for a while; true if the command runs still.
fn is_at_work(command: &mut Child, begun: impl Fn() -> bool, after: Duration) -> bool {
    let started = Instant::now();
    while command.try_wait().unwrap().is_none() && started.elapsed() < BEGIN_MAX {
        if begun() {
            std::thread::sleep(after);
            return command.try_wait().unwrap().is_none();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    false
}

/// Asks the daemon for something by a command and kills the daemon in the middle of it. True if that is where it died: the
/// command had not ended, and, but for `umount`, never heard the end of it.
fn strike(mount: Mount, args: &[&str], begun: impl Fn() -> bool, after: Duration) -> bool {
    let mut command = start(args);
    let at_work = is_at_work(&mut command, begun, after);
    mount.strike();
    let ended = wait_for(&mut command, Duration::from_secs(60)).expect("a command ends with the daemon");
    let unheard = args[0] == "umount" || !ended.success();
    mount.kill().signal() == Some(libc::SIGKILL) && at_work && unheard
}

/// Starts a command on a store and kills it in its middle. True if that is where it died.
fn killed(args: &[&str], begun: impl Fn(u32) -> bool, after: Duration) -> bool {
    let mut command = start(args);
    let pid = command.id();
    let at_work = is_at_work(&mut command, || begun(pid), after);
    let _ = command.kill();
    command.wait().unwrap().signal() == Some(libc::SIGKILL) && at_work
}

/// What was found is the past of what comes next.
fn settle(work: &mut Workload, mount: &Mount) {
    let now = (work.clock)();
    let names: Vec<String> = work.journal.files.keys().cloned().collect();
    for name in names {
        let found = fs::read(mount.path(&name)).ok();
        work.journal.files.remove(&name);
        if found.is_some() {
            work.journal.begin(&name, found, true, now);
            work.journal.promise(&name, now);
        }
    }
    let _ = fs::remove_file(mount.path("new"));
}

/// Kills once. True if it came where it was meant to; and the number of syncs before it.
fn round(phase: Phase, mount: Mount, work: &mut Workload, case: &str) -> (bool, u32) {
    let (store, point) = (mount.store.clone(), mount.point.clone());
    let packs = store.join("packs");
    let mut syncs = 0;
    if matches!(phase, Phase::Writing | Phase::Coding | Phase::Sealing) {
        let after = millis(150 + work.dice.below(1200));
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(after);
                mount.strike();
            });
            // Until the mount is dead.
            while let Ok(n) = work.step(&mount) {
                syncs += n;
            }
        });
        return (mount.kill().signal() == Some(libc::SIGKILL), syncs);
    }
    if phase == Phase::Committing {
        ok(BINARY, &["pause", arg(&point)], 60);
    }
    for _ in 0..30 {
        syncs += work.step(&mount).unwrap_or_else(|e| panic!("{case}: {e}: {}", mount.log()));
    }
    // What goes on by itself is over: what changes from now on is what was asked for.
    let quiet = |mount: &Mount| {
        mount.wait();
        ok(BINARY, &["sync", arg(&mount.point)], 60);
        sizes(&packs)
    };
    let later = |most: u64, work: &mut Workload| Duration::from_micros(work.dice.below(most * 1000));
    let caught = match phase {
        Phase::Writing | Phase::Coding | Phase::Sealing => unreachable!("done above"),
        Phase::Committing => {
            let before = sizes(&packs);
            ok(BINARY, &["resume", arg(&point)], 60);
            strike(mount, &["wait", arg(&point)], || moved(&before, &sizes(&packs)), later(100, work))
        }
        Phase::Compacting => {
            let name = work.create(&mount, b"with a long attribute".to_vec(), false).unwrap();
            for _ in 0..40 {
                work.annotate(&mount, &name).unwrap_or_else(|e| panic!("{case}: {e}: {}", mount.log()));
            }
            let before = quiet(&mount);
            // The log goes on in a new pack before the old ones go.
            let begun = || sizes(&packs).keys().any(|path| !before.contains_key(path));
            strike(mount, &["gc", arg(&point)], begun, later(15, work))
        }
        Phase::Unmounting => {
            // The kernel is through with it; the daemon flushes, seals, compacts and lets go of the store.
            let begun = || !is_mounted(&point);
            if work.dice.below(2) == 0 {
                strike(mount, &["umount", "--now", arg(&point)], begun, later(30, work))
            } else {
                strike(mount, &["umount", arg(&point)], begun, later(30, work))
            }
        }
        Phase::Scrubbing => {
            quiet(&mount);
            let running = || {
                let status = Command::new(BINARY).args(["status", "--json", arg(&point)]).output().unwrap();
                let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
                status["scrub"]["running"] == true
            };
            strike(mount, &["scrub", "--mib-per-s=1", arg(&point)], running, later(200, work))
        }
        Phase::Collecting => {
            let mut gone = Vec::new();
            for n in 0..40 {
                let len = 100_000 + work.dice.below(300_000) as usize;
                let data = work.dice.noise(len);
                let name = work.create(&mount, data, n % 10 == 0).unwrap_or_else(|e| panic!("{case}: {e}"));
                if n % 5 > 0 {
                    gone.push(name);
                }
            }
            mount.wait();
            for name in gone {
                work.remove(&mount, &name, false).unwrap_or_else(|e| panic!("{case}: {e}"));
            }
            let before = quiet(&mount);
            strike(mount, &["gc", arg(&point)], || moved(&before, &sizes(&packs)), later(60, work))
        }
        Phase::Remounting => {
            mount.kill();
            let mut at_work = 0;
            for _ in 0..3 {
                let flag = if work.dice.below(2) == 0 { "--rebuild-index" } else { "--no-coding" };
                let args = ["mount", flag, arg(&store), arg(&point)];
                let caught = killed(&args, |pid| has_open(pid, &store.join("index")), later(40, work));
                at_work += u32::from(caught && !is_mounted(&point));
                let _ = Command::new("umount").arg("-l").arg(&point).stderr(Stdio::null()).status();
            }
            at_work > 0
        }
        Phase::Rebuilding | Phase::Repairing => {
            drop(mount.umount(&["--now"]));
            let mut at_work = 0;
            for _ in 0..3 {
                let args = if phase == Phase::Rebuilding {
                    ["fsck", "--rebuild-index", arg(&store)]
                } else {
                    // Something to repair.
                    let _ = fs::remove_file(store.join("FORMAT.copy"));
                    let _ = fs::remove_dir_all(store.join("index"));
                    ["fsck", "--repair", arg(&store)]
                };
                let before = sizes(&store);
                at_work += u32::from(killed(&args, |_| sizes(&store) != before, later(60, work)));
            }
            at_work > 0
        }
    };
    (caught, syncs)
}

/// True when a process has a file below a directory open.
fn has_open(pid: u32, dir: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    open.into_iter().flatten().flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file.starts_with(dir)))
}

fn is_mounted(point: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(arg(point)))
}

#[test]
fn a_kill_at_any_moment_costs_nothing_that_was_promised() {
    let seed = setting("TERSEFS_SEED").unwrap_or(1);
    let rounds = setting("TERSEFS_ROUNDS").unwrap_or(PHASES.len() as u64);
    println!("seed {seed}, {rounds} rounds");
    let dir = tempfile::tempdir().unwrap();
    let (store, point) = (dir.path().join("store"), dir.path().join("mnt"));
    let mut time = 0;
    let clock = || {
        time += 1;
        time
    };
    let mut work = Workload::new(seed, Lasts::Returned, clock);
    let (mut syncs, mut counted, mut missed, mut misses) = (0, 0, 0, 0);
    let mut times = Vec::new();
    while counted < rounds {
        let phase = PHASES[counted as usize % PHASES.len()];
        let case = format!("seed {seed}, round {counted} ({phase:?})");
        let flags: &[&str] = match phase {
            Phase::Writing => &["--no-coding"],
            Phase::Sealing => &["--no-coding", "--seal-seconds=0"],
            _ => &["--quiet-seconds=0.05", "--method=zstd"],
        };
        let started = Instant::now();
        let mount = Mount::of(&store, &point, flags);
        times.push(started.elapsed());
        if let Err(why) = work.journal.compare(&point, usize::MAX) {
            panic!("{case}: {why}: {}", mount.log());
        }
        settle(&mut work, &mount);
        let (caught, n) = round(phase, mount, &mut work, &case);
        syncs += u64::from(n);
        if caught {
            (counted, misses) = (counted + 1, 0);
        } else {
            (missed, misses) = (missed + 1, misses + 1);
            assert!(misses <= MISSES_MAX, "{case}: no kill comes in its middle");
        }
    }
    let mount = Mount::of(&store, &point, &["--method=zstd"]);
    for when in ["at the end", "coded at the end"] {
        if let Err(why) = work.journal.compare(&point, usize::MAX) {
            panic!("{when}: {why}: {}", mount.log());
        }
        mount.wait();
    }
    mount.is_sound();
    mount.done();
    let fsck = ok(BINARY, &["fsck", arg(&store)], 60);
    assert!(syncs > rounds, "{syncs} syncs before {rounds} kills prove nothing");
    times.sort();
    println!(
        "{counted} kills and {missed} that missed, {syncs} syncs; mounts took {:?} (median), {:?} at most; {fsck}",
        times[times.len() / 2],
        times.last().unwrap()
    );
    assert!(times[times.len() * 9 / 10] < Duration::from_secs(2), "mounts took {times:?}");
}
