//! Stores that nothing is written into: on read-only media, and under several read-only mounts at once.
//!
//! Needs root, /dev/fuse and loop devices, and fails with that word where they are missing.

mod mounted;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mounted::loopfs::LoopFs;
use mounted::{BINARY, Dice, Mount, arg, ok, tersefs};

/// Every file below a directory, with what a change of it would change.
fn state(dir: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let m = fs::symlink_metadata(&path).unwrap();
        if m.is_dir() {
            found.extend(state(&path));
        }
        found.insert(path, (m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()));
    }
    found
}

/// A store with coded files and one that is not coded.
fn fill(store: &Path, point: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let mut dice = Dice(41);
    let v = Mount::of(store, point, &["--quiet-seconds=0.1", "--method=zstd"]);
    let files = vec![("large", dice.text(700_000)), ("small", dice.text(900)), ("staged", dice.noise(50_000))];
    for (name, data) in files.iter().filter(|(name, _)| *name != "staged") {
        fs::write(v.path(name), data).unwrap();
    }
    v.wait();
    ok(BINARY, &["pause", arg(&v.point)], 60);
    fs::write(v.path("staged"), &files[2].1).unwrap();
    v.umount(&["--now"]);
    files
}

fn holds(v: &Mount, files: &[(&str, Vec<u8>)]) {
    for (name, data) in files {
        assert!(fs::read(v.path(name)).unwrap() == *data, "{name}");
    }
}

#[test]
fn several_read_only_mounts_read_one_store_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (dir.path().join("store"), dir.path().join("other"));
    let files = fill(&store, &dir.path().join("mnt"));
    let before = state(&store);
    let a = Mount::of(&store, &dir.path().join("mnt"), &["--read-only"]);
    let b = Mount::of(&store, &other, &["--read-only"]);
    holds(&a, &files);
    holds(&b, &files);
    assert_eq!(fs::write(b.path("no"), b"").unwrap_err().raw_os_error(), Some(30));
    // Each answers for itself, and any of them for the store.
    for v in [&a, &b] {
        assert_eq!(v.status()["read_only"], true);
        assert_eq!(v.stat("large")["segments"][0]["method"], "zstd");
    }
    assert!(tersefs(&["status", arg(&store)]).out.contains("read-only"));
    // Nobody comes to write beside them, nor do they come beside one who writes.
    let point = dir.path().join("third");
    fs::create_dir(&point).unwrap();
    let writer = tersefs(&["mount", arg(&store), arg(&point)]);
    assert!(writer.code == Some(1) && writer.err.contains("in use"), "{writer:?}");
    let end = a.umount(&[]);
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(b.status()["read_only"], true);
    holds(&b, &files);
    b.umount(&[]);
    assert_eq!(state(&store), before, "a read-only mount has changed something");
    let v = Mount::of(&store, &point, &["--no-coding"]);
    let reader = tersefs(&["mount", "--read-only", arg(&store), arg(&other)]);
    assert!(reader.code == Some(1) && reader.err.contains("in use"), "{reader:?}");
    holds(&v, &files);
    v.done();
}

#[test]
fn a_store_on_read_only_media_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let disk = LoopFs::ext4(dir.path(), 64);
    let store = disk.point.join("store");
    let files = fill(&store, &dir.path().join("mnt"));
    let point = disk.point.clone();
    drop(disk);
    ok("mount", &["-o", "loop,ro", arg(&image), arg(&point)], 60);
    let _disk = LoopFs { point };
    assert!(fs::write(store.join("x"), b"").is_err(), "the medium can be written to");
    // As asked for, and where nobody asked; one beside the other.
    let a = Mount::of(&store, &dir.path().join("mnt"), &["--read-only"]);
    let b = Mount::of(&store, &dir.path().join("other"), &[]);
    holds(&a, &files);
    holds(&b, &files);
    assert_eq!(b.status()["read_only"], true);
    let scrub = tersefs(&["scrub", arg(&store)]);
    assert_eq!(scrub.code, Some(0), "{scrub:?}");
    assert_eq!(a.umount(&[]).code, Some(0));
    assert_eq!(b.umount(&[]).code, Some(0));
    let fsck = tersefs(&["fsck", arg(&store)]);
    assert_eq!(fsck.code, Some(0), "{fsck:?}");
}
