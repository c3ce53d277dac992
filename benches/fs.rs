//! The filesystem's own speed, beside the filesystem below it and, where it is installed, a passthrough (bindfs).
//!
//! `cargo bench --bench fs`. Mounts in a temporary directory; needs root or fusermount3. Prints MB/s, operations a second
//! and ratios; asserts nothing, since machines differ.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of the large file.
const LARGE: usize = 512 << 20;
const FILES: usize = 10_000;

fn program() -> PathBuf {
    // The benchmark lies in target/release/deps, the program beside that.
    let mut path = std::env::current_exe().expect("own path");
    path.pop();
    path.pop();
    path.join("tersefs")
}

fn seconds(f: impl FnOnce()) -> f64 {
    let started = Instant::now();
    f();
    started.elapsed().as_secs_f64()
}

fn median(mut f: impl FnMut() -> f64) -> f64 {
    let mut all = [f(), f(), f()];
    all.sort_by(f64::total_cmp);
    all[1]
}

fn write(dir: &Path) -> f64 {
    let buf = vec![b'x'; 1 << 20];
    let path = dir.join("large");
    let t = seconds(|| {
        let mut file = File::create(&path).expect("create");
        for _ in 0..LARGE >> 20 {
            file.write_all(&buf).expect("write");
        }
    });
    LARGE as f64 / 1e6 / t
}

fn read(path: &Path) -> f64 {
    let mut buf = vec![0; 1 << 20];
    let mut total = 0;
    let t = seconds(|| {
        let mut file = File::open(path).expect("open");
        loop {
            let n = file.read(&mut buf).expect("read");
            if n == 0 {
                break;
            }
            total += n;
        }
    });
    total as f64 / 1e6 / t
}

/// Creates, stats and unlinks small files: operations a second each.
fn small(dir: &Path) -> [f64; 3] {
    let dir = dir.join("small");
    fs::create_dir(&dir).expect("mkdir");
    let name = |n: usize| dir.join(format!("file-{n}"));
    let create = seconds(|| {
        for n in 0..FILES {
            File::create(name(n)).expect("create").write_all(b"small").expect("write");
        }
    });
    let stat = seconds(|| {
        for n in 0..FILES {
            fs::metadata(name(n)).expect("stat");
        }
    });
    let unlink = seconds(|| {
        for n in 0..FILES {
            fs::remove_file(name(n)).expect("unlink");
        }
    });
    fs::remove_dir(&dir).expect("rmdir");
    [create, stat, unlink].map(|t| FILES as f64 / t)
}

fn tersefs(args: &[&str]) {
    let status = Command::new(program()).args(args).stdout(std::process::Stdio::null()).status().expect("tersefs");
    assert!(status.success(), "tersefs {args:?}");
}

fn main() {
    let dir = std::env::temp_dir().join(format!("tersefs-bench-{}", std::process::id()));
    let (native, store, mnt, bind) = (dir.join("native"), dir.join("store"), dir.join("mnt"), dir.join("bind"));
    for d in [&dir, &native, &mnt, &bind] {
        fs::create_dir_all(d).expect("mkdir");
    }
    let text = |p: &Path| p.to_string_lossy().into_owned();
    tersefs(&["mount", "--daemon", "--no-coding", &text(&store), &text(&mnt)]);
    let bound = Command::new("bindfs").arg(&native).arg(&bind).status().is_ok_and(|s| s.success());

    println!("sequential write, {} MiB in requests of 1 MiB, median of 3:", LARGE >> 20);
    let (below, ours) = (median(|| write(&native)), median(|| write(&mnt)));
    println!("  below {below:.0} MB/s, tersefs {ours:.0} MB/s ({:.0} %)", ours * 100.0 / below);
    if bound {
        let passthrough = median(|| write(&bind));
        println!("  bindfs {passthrough:.0} MB/s ({:.0} % of below)", passthrough * 100.0 / below);
    }
    println!(
        "sequential read, hot: below {:.0} MB/s, tersefs {:.0} MB/s",
        read(&native.join("large")),
        median(|| read(&mnt.join("large")))
    );

    println!("{FILES} files of 5 bytes, operations a second (create+write+close, stat, unlink):");
    let show = |name: &str, r: [f64; 3]| println!("  {name:<8} {:>8.0} {:>8.0} {:>8.0}", r[0], r[1], r[2]);
    show("below", small(&native));
    show("tersefs", small(&mnt));
    if bound {
        show("bindfs", small(&bind));
    }

    // Text, coded; then read cold, from the cache of the daemon, and from the pages of the kernel.
    let words: Vec<u8> = (0..8_000_000u64)
        .flat_map(|n| format!("{} ", n.wrapping_mul(2654435761) % 5000).into_bytes())
        .take(24 << 20)
        .collect();
    fs::remove_file(mnt.join("large")).expect("unlink");
    fs::write(mnt.join("text"), &words).expect("write");
    for n in 0..8 {
        fs::write(mnt.join(format!("cold{n}")), &words[n * 100..][..4 << 20]).expect("write");
    }
    tersefs(&["resume", &text(&mnt)]);
    let coding = seconds(|| tersefs(&["wait", &text(&mnt)]));
    println!("coding with verification: {:.2} MB/s on all cores", 56.0 * 1.048_576 / coding);
    tersefs(&["umount", &text(&mnt)]);
    tersefs(&["mount", "--daemon", &text(&store), &text(&mnt)]);
    println!("sequential read, cold: {:.2} MB/s on all cores", read(&mnt.join("text")));
    println!("sequential read, pages of the kernel: {:.0} MB/s", median(|| read(&mnt.join("text"))));
    drop_pages(&mnt.join("text"));
    println!("sequential read, decoded segments of the daemon: {:.0} MB/s", read(&mnt.join("text")));

    let stop = AtomicBool::new(false);
    let mut times = Vec::new();
    std::thread::scope(|s| {
        for n in 0..8 {
            let (file, stop) = (File::open(mnt.join(format!("cold{n}"))).expect("open"), &stop);
            s.spawn(move || {
                let mut buf = [0; 4096];
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) && file.read_at(&mut buf, at).is_ok_and(|n| n > 0) {
                    at += 4096;
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        for n in 0..500 {
            let started = Instant::now();
            let _ = fs::metadata(mnt.join(format!("missing{n}")));
            times.push(started.elapsed());
            std::thread::sleep(Duration::from_millis(3));
        }
        stop.store(true, Ordering::Relaxed);
    });
    times.sort();
    println!("stat beside 8 cold readers: p50 {:?}, p99 {:?}, max {:?}", times[250], times[495], times[499]);
    let memory = Command::new(program()).args(["status", "--json", &text(&mnt)]).output().expect("status").stdout;
    let peak = serde_json::from_slice::<serde_json::Value>(&memory).ok().and_then(|v| v["memory_peak_bytes"].as_u64());
    println!("memory of the daemon, highest: {} MiB", peak.unwrap_or(0) >> 20);
    tersefs(&["umount", &text(&mnt)]);
    if bound {
        let _ = Command::new("umount").arg(&bind).status();
    }
    let _ = fs::remove_dir_all(&dir);
}

/// Has the kernel forget the pages of a file.
fn drop_pages(path: &Path) {
    let of = format!("of={}", path.display());
    let _ = Command::new("dd").args([&of, "oflag=nocache", "conv=notrunc", "count=0", "status=none"]).status();
}
