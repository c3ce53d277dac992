//! Space that comes back from a mounted volume, by itself and when asked for.
//!
//! Needs root and /dev/fuse.

mod mounted;
#[path = "common/until.rs"]
mod until;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mounted::{Dice, Mount, arg, ok, tersefs};
use until::Until;

/// Bytes that a directory takes on disk.
fn du(path: &Path) -> u64 {
    let text = ok("du", &["-sB1", arg(path)], 60);
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("du: {text}"))
}

/// Large files of noise and small ones of text.
fn plant(root: &Path, large: usize, small: usize) -> BTreeMap<String, Vec<u8>> {
    let mut dice = Dice(5);
    let mut files = BTreeMap::new();
    for n in 0..large + small {
        let (name, data) = if n < large {
            (format!("large {n}"), dice.noise(200_000 + n * 1000))
        } else {
            (format!("small {n}"), dice.text(1 + n * 7 % 3000))
        };
        fs::write(root.join(&name), &data).unwrap();
        files.insert(name, data);
    }
    files
}

#[test]
fn what_is_deleted_comes_back_by_itself_while_a_reader_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), &["--quiet-seconds=0.2", "--method=zstd", "--cache-mib=1"]);
    let mut files = plant(&mount.point, 150, 800);
    mount.wait();
    let store = dir.path().join("store");
    let packs = store.join("packs");
    let before = du(&packs);
    assert!(before > 35_000_000, "{before} bytes of packs");
    let mut dice = Dice(3);
    let gone: Vec<String> = files.keys().filter(|_| dice.below(10) > 0).cloned().collect();
    for name in &gone {
        files.remove(name);
    }
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let took = std::thread::scope(|s| {
        s.spawn(|| {
            let mut dice = Dice(8);
            let names: Vec<&String> = files.keys().collect();
            while !stop.load(Ordering::Acquire) {
                let name = names[dice.below(names.len() as u64) as usize];
                let found = fs::read(mount.path(name)).unwrap_or_else(|e| panic!("{name}: {e}: {}", mount.log()));
                assert!(found == files[name], "{name} is not what was written");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _until = Until(&stop);
        for name in &gone {
            fs::remove_file(mount.path(name)).unwrap();
        }
        let started = Instant::now();
        // Nobody asks for it.
        while du(&packs) > before * 15 / 100 + 2_000_000 {
            if started.elapsed() > Duration::from_secs(120) {
                panic!("{} of {before} bytes are left after two minutes: {}", du(&packs), mount.status());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        std::thread::sleep(Duration::from_secs(1));
        started.elapsed()
    });
    let after = du(&packs);
    eprintln!(
        "packs: {before} bytes before, {after} after {took:?}; {} reads meanwhile",
        reads.load(Ordering::Relaxed)
    );
    assert!(reads.load(Ordering::Relaxed) > 20);
    let status = mount.status();
    assert!(status["gc_packs_deleted"].as_u64() > Some(0) && status["decode_failures"] == 0, "{status}");
    for (name, data) in &files {
        assert!(fs::read(mount.path(name)).unwrap() == *data, "{name}");
    }
    mount.is_sound();
    mount.done();
}

#[test]
fn gc_is_asked_for_mounted_and_not() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), &["--quiet-seconds=0.2", "--method=raw"]);
    let mut files = plant(&mount.point, 40, 50);
    mount.wait();
    let (store, point) = (dir.path().join("store"), mount.point.clone());
    let remove = |files: &mut BTreeMap<String, Vec<u8>>, ending: &[&str]| {
        let gone: Vec<String> = files.keys().filter(|n| ending.iter().any(|e| n.ends_with(e))).cloned().collect();
        for name in gone {
            fs::remove_file(point.join(&name)).unwrap();
            files.remove(&name);
        }
    };
    remove(&mut files, &["1", "2", "3", "4", "5", "6"]);
    let before = du(&store.join("packs"));
    let outcome = tersefs(&["gc", arg(&point)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.out.contains("given back"), "{outcome:?}");
    let left = du(&store.join("packs"));
    assert!(left < before * 6 / 10, "{left} of {before} bytes after {outcome:?}");
    remove(&mut files, &["7", "8", "9"]);
    mount.umount(&["--now"]);
    // A plan changes nothing.
    let packs = || ok("find", &[arg(&store.join("packs")), "-name", "*.tpk", "-printf", "%P %s\n"], 10);
    let known = packs();
    let outcome = tersefs(&["gc", "--dry-run", "--json", arg(&store)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let plan: serde_json::Value = serde_json::from_str(&outcome.out).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    let left_before = du(&store.join("packs"));
    if plan["packs"].as_array().is_some_and(|p| !p.is_empty()) {
        assert_eq!(packs(), known, "a dry run changed something");
        let outcome = tersefs(&["gc", "--json", arg(&store)]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let report: serde_json::Value =
            serde_json::from_str(&outcome.out).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
        assert!(report["packs_deleted"].as_u64() > Some(0), "{report}");
        assert!(du(&store.join("packs")) < left_before * 7 / 10);
    } else {
        panic!("most of what is left was deleted, and nothing is worth giving back: {plan}");
    }
    let outcome = tersefs(&["fsck", arg(&store)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let mount = Mount::new(dir.path(), &["--no-coding"]);
    for (name, data) in &files {
        assert!(fs::read(mount.path(name)).unwrap() == *data, "{name}");
    }
    mount.umount(&["--now"]);
    let outcome = tersefs(&["gc", arg(dir.path())]);
    assert!(outcome.code == Some(1) && outcome.err.contains("neither a store"), "{outcome:?}");
}
