//! Bounds of the mounted volume: memory while there are many files and while many readers decode, the time to mount, and
//! queues that hold a part of what waits.
//!
//! `TERSEFS_FILES` sets the number of files; the promise is made for 1,000,000.

mod mounted;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mounted::{BINARY, Dice, Mount, arg, ok, run, tersefs};

/// A mount serves within this time. The promise is two seconds for a million files; tests share their machine.
const MOUNT_SECONDS_MAX: u64 = 15;

fn files() -> usize {
    std::env::var("TERSEFS_FILES").map_or(20_000, |n| n.parse().expect("TERSEFS_FILES is a number"))
}

/// Highest resident memory of the daemon, MiB.
fn peak_mib(mount: &Mount) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Memory that the daemon may use, MiB: the budget and the tables of models.
fn allowed_mib(mount: &Mount, budget: u64) -> u64 {
    let status = mount.status();
    assert_eq!(status["memory_budget_bytes"].as_u64(), Some(budget << 20), "{status}");
    let models = status["memory_model_bytes"].as_u64().expect("memory of models");
    assert!(models > 0);
    for (name, share) in status["memory_shares"].as_object().expect("shares") {
        assert!(share["share"].as_u64() < Some(budget << 20), "{name}: {share}");
    }
    budget + (models >> 20)
}

fn remount(dir: &Path, flags: &[&str]) -> Mount {
    let started = Instant::now();
    let mount = Mount::new(dir, flags);
    let took = started.elapsed();
    println!("mounted after {took:?}");
    assert!(took < Duration::from_secs(MOUNT_SECONDS_MAX), "the mount took {took:?}");
    mount
}

#[test]
fn many_files_stay_within_the_budget_and_are_mounted_again_at_once() {
    const BUDGET: u64 = 128;
    let flags = ["--memory", "128", "--no-coding"];
    let dir = tempfile::tempdir().unwrap();
    let n = files();
    let mount = Mount::new(dir.path(), &flags);
    fs::create_dir(mount.path("d")).unwrap();
    // The kernel has pages of this file, and then writes past them; that must be known when we no longer know the file.
    let hot = mount.path("hot");
    fs::write(&hot, vec![b'o'; 2 << 20]).unwrap();
    assert!(fs::read(&hot).unwrap() == vec![b'o'; 2 << 20]);
    File::options().write(true).open(&hot).unwrap().write_all_at(&[b'n'; 100], 1000).unwrap();
    let started = Instant::now();
    let content = |i: usize| format!("{i} small {}", i % 7);
    for i in 0..n {
        fs::write(mount.path(&format!("d/file-{i}")), content(i)).unwrap();
    }
    println!("{n} files made at {:.0} a second", n as f64 / started.elapsed().as_secs_f64());
    let listed = || {
        let started = Instant::now();
        let count = fs::read_dir(mount.path("d")).unwrap().inspect(|e| assert!(e.is_ok(), "{e:?}")).count();
        println!("{count} entries listed at {:.0} a second", count as f64 / started.elapsed().as_secs_f64());
        count
    };
    assert_eq!(listed(), n);
    // Inodes are kept as long as they were changed and not logged; then only as many as have a place.
    let inodes = || {
        let share = &mount.status()["memory_shares"]["inodes"];
        (share["used"].as_u64().unwrap(), share["share"].as_u64().unwrap())
    };
    let started = Instant::now();
    while inodes().0 > inodes().1 {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", inodes());
        for i in 0..100 {
            fs::metadata(mount.path(&format!("d/file-{i}"))).unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut read = fs::read(&hot).unwrap();
    assert!(read[1000..1100] == [b'n'; 100], "old bytes are read from pages that are stale");
    read[1000..1100].fill(b'o');
    assert!(read == vec![b'o'; 2 << 20]);
    fs::remove_file(&hot).unwrap();
    let allowed = allowed_mib(&mount, BUDGET);
    println!("memory while staged: {} of {allowed} MiB", peak_mib(&mount));
    assert!(peak_mib(&mount) <= allowed, "{} MiB of {allowed}: {}", peak_mib(&mount), mount.status());
    mount.kill();

    // Killed: the log is replayed and staging is looked through, the latter while the volume serves.
    let mount = remount(dir.path(), &flags);
    assert_eq!(fs::read_dir(mount.path("d")).unwrap().count(), n);
    let mut dice = Dice(7);
    for _ in 0..1000 {
        let i = dice.below(n as u64) as usize;
        assert_eq!(fs::read_to_string(mount.path(&format!("d/file-{i}"))).unwrap(), content(i));
    }
    // The queue knows all of them, and holds a part.
    let counted = || mount.status()["queue_files"].as_u64().unwrap();
    let started = Instant::now();
    while counted() < n as u64 {
        assert!(started.elapsed() < Duration::from_secs(60), "{} of {n} files are queued", counted());
        std::thread::sleep(Duration::from_millis(100));
    }
    let share = &mount.status()["memory_shares"]["coding queue"];
    assert!(share["used"].as_u64() <= share["share"].as_u64(), "{share}");

    assert_eq!(tersefs(&["resume", arg(&mount.point)]).code, Some(0));
    let started = Instant::now();
    mount.wait();
    println!("coded at {:.0} files a second", n as f64 / started.elapsed().as_secs_f64());
    let status = mount.status();
    assert_eq!(status["queue_files"].as_u64(), Some(0), "wait ends when all windows are done: {status}");
    assert!(fs::read_dir(mount.store.join("staging")).unwrap().next().is_none(), "nothing is left in staging");
    let allowed = allowed_mib(&mount, BUDGET);
    println!("memory while coding: {} of {allowed} MiB", peak_mib(&mount));
    assert!(peak_mib(&mount) <= allowed, "{} MiB of {allowed}: {status}", peak_mib(&mount));
    mount.done();

    let mount = remount(dir.path(), &flags);
    for _ in 0..200 {
        let i = dice.below(n as u64) as usize;
        assert_eq!(fs::read_to_string(mount.path(&format!("d/file-{i}"))).unwrap(), content(i));
    }
    println!("memory when all are coded: {} MiB", peak_mib(&mount));
    mount.done();
}

#[test]
fn sixteen_readers_decode_within_the_budget() {
    const BUDGET: u64 = 64;
    const FILE: usize = 384 << 10;
    const DECODES_MIN: u64 = 32;
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), &["--memory", "64", "--cache-mib", "1", "--quiet-seconds", "0"]);
    let texts: Vec<Vec<u8>> = (0..16).map(|n| Dice(n + 1).text(FILE)).collect();
    for (n, text) in texts.iter().enumerate() {
        fs::write(mount.path(&format!("text{n}")), text).unwrap();
    }
    mount.wait();
    mount.done();

    let mount = Mount::new(dir.path(), &["--memory", "64", "--cache-mib", "1", "--no-coding"]);
    let reads = AtomicU64::new(0);
    // For a while, and on a busy machine until something was decoded often enough.
    let (until, last) = (Instant::now() + Duration::from_secs(8), Instant::now() + Duration::from_secs(120));
    let going = || {
        let now = Instant::now();
        now < until || (now < last && mount.status()["decodes"].as_u64() < Some(DECODES_MIN))
    };
    std::thread::scope(|s| {
        for (n, text) in texts.iter().enumerate() {
            let (mount, reads) = (&mount, &reads);
            s.spawn(move || {
                // Past the pages of the kernel, so that all reads come to the daemon.
                let path = mount.path(&format!("text{n}"));
                let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
                let mut dice = Dice(n as u64 + 100);
                let mut buf = vec![0; 64 << 10];
                while going() {
                    let at = dice.below((FILE - buf.len()) as u64) as usize;
                    file.read_exact_at(&mut buf, at as u64).unwrap();
                    assert!(buf == text[at..at + buf.len()], "text{n} at {at}");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (status, allowed) = (mount.status(), allowed_mib(&mount, BUDGET));
    let decodes = status["decodes"].as_u64().unwrap();
    println!("{} reads, {decodes} decodes, {} of {allowed} MiB", reads.load(Ordering::Relaxed), peak_mib(&mount));
    assert!(decodes >= DECODES_MIN, "the readers must have decoded: {status}");
    assert!(status["cache_bytes"].as_u64() <= Some(1 << 20), "{status}");
    assert!(peak_mib(&mount) <= allowed, "{} MiB of {allowed}: {status}", peak_mib(&mount));
    mount.done();
}

/// Files of a directory of hot copies.
fn copies(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map_or(Vec::new(), |dir| dir.map(|entry| entry.unwrap().path()).collect())
}

/// What is slow to decode and was read twice from cold is read from its decoded copy, by the next mount too; whatever becomes of
/// the copies, the bytes are right.
#[test]
fn what_is_read_again_is_decoded_no_more() {
    // Nothing stays decoded in memory.
    let flags = ["--cache-mib=0", "--quiet-seconds=0.3", "--no-training", "--hot-cache-mib=16"];
    let dir = tempfile::tempdir().unwrap();
    let (store, point) = (dir.path().join("store"), dir.path().join("mnt"));
    let text = Dice(5).text(300_000);
    // Past the pages of the kernel, in one request.
    let read = |mount: &Mount| {
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(mount.path("text")).unwrap();
        let mut buf = vec![0; 1 << 20];
        let got = file.read_at(&mut buf, 0).unwrap();
        assert!(buf[..got] == text, "{got} bytes");
    };
    let looked = |mount: &Mount, what: &str| mount.status()["hot"][what].as_u64().unwrap();
    let settled = |mount: &Mount| {
        // A copy is made when the reader has its bytes.
        let (started, segments) = (Instant::now(), mount.stat("text")["segments"].as_array().unwrap().len() as u64);
        while looked(mount, "copies") < segments {
            assert!(started.elapsed() < Duration::from_secs(30), "{}", mount.status());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let mount = Mount::of(&store, &point, &flags);
    fs::write(mount.path("text"), &text).unwrap();
    mount.wait();
    (0..2).for_each(|_| read(&mount));
    settled(&mount);
    let cache = store.join("cache");
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(copies(&cache).iter().all(|copy| fs::metadata(copy).unwrap().permissions().mode() & 0o777 == 0o600));
    let shown = ok(BINARY, &["status", arg(&point)], 30);
    assert!(shown.contains("\nhot       293.0 KiB of 16.0 MiB in "), "{shown}");
    mount.done();

    let mount = Mount::of(&store, &point, &flags);
    read(&mount);
    let status = mount.status();
    assert_eq!((status["decodes"].as_u64(), status["hot"]["misses"].as_u64()), (Some(0), Some(0)), "{status}");
    // Neither what the volume takes nor what is left of the disk speaks of them.
    let report: serde_json::Value = serde_json::from_str(&ok(BINARY, &["report", "--json", arg(&point)], 60)).unwrap();
    assert!(report["all"]["taken_bytes"].as_u64() < Some(150_000), "{report}");
    // Rot, and a directory that is gone.
    for copy in copies(&cache) {
        let file = File::options().write(true).open(copy).unwrap();
        file.write_all_at(b"\0\0\0\0", 1000).unwrap();
    }
    read(&mount);
    assert!(looked(&mount, "wrong") > 0, "{}", mount.status());
    fs::remove_dir_all(&cache).unwrap();
    (0..2).for_each(|_| read(&mount));
    settled(&mount);
    mount.is_sound();
    mount.done();
    assert_eq!(tersefs(&["fsck", arg(&store)]).code, Some(0));

    // A mount that is not to have any takes them away; one that may not write has a place elsewhere.
    Mount::of(&store, &point, &flags[..3]).done();
    assert!(!cache.exists());
    let elsewhere = dir.path().join("elsewhere");
    let place = format!("--hot-cache-dir={}", arg(&elsewhere));
    let mount = Mount::of(&store, &point, &[&flags[..], &["--read-only", &place]].concat());
    (0..2).for_each(|_| read(&mount));
    settled(&mount);
    let decodes = mount.status()["decodes"].as_u64();
    read(&mount);
    assert!(mount.status()["decodes"].as_u64() == decodes && !copies(&elsewhere.join("cache")).is_empty());
    assert!(!cache.exists());
    mount.done();
    let inside = format!("--hot-cache-dir={}", arg(&point.join("d")));
    let refused = run(BINARY, &["mount", "--hot-cache-mib=1", &inside, arg(&store), arg(&point)], 30);
    assert!(refused.code == Some(1) && refused.err.contains("lies inside the mountpoint"), "{refused:?}");
}
