//! kill -9 of the daemon in whatever it does: writing, coding, committing, ending a mount with its compaction and
//! checkpoint, sealing, scrubbing, making the index anew, checking. What was promised is there at the next mount, which is quick.
//!
//! `TERSEFS_SEED` sets the seed, `TERSEFS_ROUNDS` the number of kills (10).

mod common;
mod mounted;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::setting;
use mounted::journal::Journal;
use mounted::{BINARY, Dice, Mount, arg, ok, tersefs};

/// One operation. What `write`, `rename` and others promise for the death of the daemon is promised when they return;
/// an overwrite of what may be coded promises nothing before `fsync` or `close`. Returns the number of syncs.
fn step(mount: &Mount, dice: &mut Dice, journal: &mut Journal, clock: &mut usize) -> io::Result<u32> {
    let live = journal.live();
    let some = |dice: &mut Dice| live.get(dice.below(live.len() as u64) as usize).cloned();
    let bytes = |dice: &mut Dice| {
        let most = if dice.below(5) == 0 { 600_000 } else { 20_000 };
        let len = 1 + dice.below(most) as usize;
        if dice.below(2) == 0 { dice.text(len) } else { dice.noise(len) }
    };
    *clock += 2;
    let (begun, done) = (*clock, *clock + 1);
    match (dice.below(100), some(dice)) {
        (0..=34, _) | (_, None) => {
            let (name, data) = (format!("f{begun}"), bytes(dice));
            journal.begin(&name, Some(data.clone()), false, begun);
            let mut file = File::create(mount.path(&name))?;
            file.write_all(&data)?;
            journal.promise(&name, done);
            if dice.below(3) == 0 {
                file.sync_all()?;
                return Ok(1);
            }
        }
        (35..=54, Some(name)) => {
            let mut now = journal.now(&name).unwrap();
            let data = bytes(dice);
            let at = dice.below(now.len() as u64 + 1) as usize;
            now.resize(now.len().max(at + data.len()), 0);
            now[at..at + data.len()].copy_from_slice(&data);
            journal.begin(&name, Some(now), false, begun);
            let file = OpenOptions::new().write(true).open(mount.path(&name))?;
            file.write_all_at(&data, at as u64)?;
            if dice.below(2) == 0 {
                file.sync_data()?;
                journal.promise(&name, done);
                return Ok(1);
            }
            // close(2) as a program sees it: with its errors.
            close(file)?;
            journal.promise(&name, done);
        }
        (55..=69, Some(name)) => {
            let data = bytes(dice);
            journal.begin(&name, Some(data.clone()), true, begun);
            fs::write(mount.path("new"), &data)?;
            fs::rename(mount.path("new"), mount.path(&name))?;
            journal.promise(&name, done);
        }
        (70..=76, Some(name)) => {
            let mut now = journal.now(&name).unwrap();
            let len = dice.below(now.len() as u64 + 5000);
            now.resize(len as usize, 0);
            journal.begin(&name, Some(now), false, begun);
            OpenOptions::new().write(true).open(mount.path(&name))?.set_len(len)?;
            journal.promise(&name, done);
        }
        (77..=84, Some(name)) => {
            journal.begin(&name, None, true, begun);
            fs::remove_file(mount.path(&name))?;
            journal.promise(&name, done);
        }
        (85..=89, Some(_)) => {
            let name = format!("d{begun}");
            fs::create_dir(mount.path(&name))?;
            journal.dirs.insert(name, done);
        }
        (90..=94, Some(_)) => {
            File::open(&mount.point)?.sync_all()?;
            return Ok(1);
        }
        (_, Some(name)) => {
            let value = format!("0x{}", "5a".repeat(30_000));
            let set = Command::new("setfattr")
                .args(["-n", "user.note", "-v", &value, arg(&mount.path(&name))])
                .stderr(Stdio::null())
                .status()?;
            if !set.success() {
                return Err(io::Error::other("setfattr"));
            }
        }
    }
    Ok(0)
}

/// Closes a file; the error of close(2) is not lost, as it is when a file is dropped.
fn close(file: File) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is this file's own, given up by it.
    if unsafe { libc::close(file.into_raw_fd()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn compare(journal: &Journal, mount: &Mount, case: &str) {
    for name in journal.files.keys() {
        let found = match fs::read(mount.path(name)) {
            Ok(found) => Some(found),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => panic!("{case}: {name}: {e}: {}", mount.log()),
        };
        if let Err(why) = journal.judge(name, found.as_deref(), usize::MAX) {
            panic!("{case}: {name} {why}: {}", mount.log());
        }
    }
    for name in journal.dirs.keys() {
        assert!(mount.path(name).is_dir(), "{case}: directory {name} is not there");
    }
}

/// What was found is the past of what comes next.
fn settle(journal: &mut Journal, mount: &Mount, clock: &mut usize) {
    *clock += 2;
    let names: Vec<String> = journal.files.keys().cloned().collect();
    for name in names {
        let found = fs::read(mount.path(&name)).ok();
        journal.files.remove(&name);
        if found.is_some() {
            journal.begin(&name, found, true, *clock);
            journal.promise(&name, *clock);
        }
    }
    let _ = fs::remove_file(mount.path("new"));
}

/// Starts a command on a store and kills it after a while, or lets it end.
fn killed(args: &[&str], after: Duration) {
    let mut child = Command::new(BINARY)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let _ = child.kill();
    child.wait().unwrap();
}

fn lazy_umount(point: &Path) {
    let _ = Command::new("umount").arg("-l").arg(point).stderr(Stdio::null()).status();
}

#[test]
fn a_kill_at_any_moment_costs_nothing_that_was_promised() {
    let seed = setting("TERSEFS_SEED").unwrap_or(1);
    let rounds = setting("TERSEFS_ROUNDS").unwrap_or(10);
    println!("seed {seed}, {rounds} rounds");
    let dir = tempfile::tempdir().unwrap();
    let (store, point) = (dir.path().join("store"), dir.path().join("mnt"));
    let mut dice = Dice(seed);
    let mut journal = Journal::default();
    let mut clock = 0;
    let mut syncs = 0;
    let mut times = Vec::new();
    let millis = |n: u64| Duration::from_millis(n);
    for round in 0..rounds {
        let phase = ["writing", "coding", "unmounting", "scrubbing", "index", "remount", "sealing"][round as usize % 7];
        let case = format!("seed {seed}, round {round} ({phase})");
        let flags: &[&str] = match phase {
            "writing" => &["--no-coding"],
            "sealing" => &["--no-coding", "--seal-seconds=0"],
            _ => &["--quiet-seconds=0.05", "--method=zstd"],
        };
        let started = Instant::now();
        let mount = Mount::of(&store, &point, flags);
        times.push(started.elapsed());
        compare(&journal, &mount, &case);
        settle(&mut journal, &mount, &mut clock);
        let mut before_kill = 0;
        match phase {
            "unmounting" | "scrubbing" | "index" | "remount" => {
                for _ in 0..30 {
                    before_kill +=
                        step(&mount, &mut dice, &mut journal, &mut clock).unwrap_or_else(|e| panic!("{case}: {e}"));
                }
            }
            _ => {
                let after = 150 + dice.below(1200);
                std::thread::scope(|s| {
                    s.spawn(|| {
                        std::thread::sleep(millis(after));
                        mount.strike();
                    });
                    // Until the mount is dead.
                    while let Ok(n) = step(&mount, &mut dice, &mut journal, &mut clock) {
                        before_kill += n;
                    }
                });
            }
        }
        match phase {
            "unmounting" => {
                let flag: &[&str] = if dice.below(2) == 0 { &["umount", "--now"] } else { &["umount"] };
                let mut args = flag.to_vec();
                args.push(arg(&point));
                let after = dice.below(300);
                std::thread::scope(|s| {
                    s.spawn(|| {
                        std::thread::sleep(millis(after));
                        mount.strike();
                    });
                    let _ = tersefs(&args);
                });
                mount.kill();
            }
            "scrubbing" => {
                mount.wait();
                std::thread::scope(|s| {
                    s.spawn(|| tersefs(&["scrub", arg(&point)]));
                    std::thread::sleep(millis(dice.below(100)));
                    mount.strike();
                });
                mount.kill();
            }
            "index" => {
                drop(mount.umount(&["--now"]));
                for _ in 0..3 {
                    killed(&["fsck", "--rebuild-index", arg(&store)], millis(dice.below(120)));
                    killed(&["fsck", "--repair", arg(&store)], millis(dice.below(60)));
                }
            }
            "remount" => {
                mount.kill();
                for _ in 0..3 {
                    let flag = if dice.below(2) == 0 { "--rebuild-index" } else { "--no-coding" };
                    killed(&["mount", flag, arg(&store), arg(&point)], millis(dice.below(150)));
                    lazy_umount(&point);
                }
            }
            _ => mount.kill(),
        }
        syncs += before_kill;
    }
    let mount = Mount::of(&store, &point, &["--method=zstd"]);
    compare(&journal, &mount, "at the end");
    mount.wait();
    compare(&journal, &mount, "coded at the end");
    mount.is_sound();
    mount.done();
    let fsck = ok(BINARY, &["fsck", arg(&store)], 60);
    assert!(syncs as u64 > rounds, "{syncs} syncs before {rounds} kills prove nothing");
    times.sort();
    println!(
        "{syncs} syncs; mounts took {:?} (median), {:?} at most; {fsck}",
        times[times.len() / 2],
        times.last().unwrap()
    );
    assert!(times[times.len() * 9 / 10] < Duration::from_secs(2), "mounts took {times:?}");
}
