//! What programs do to files, on real mounts by the real binary: links, renames, holes, maps, attributes, errno.

mod mounted;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use mounted::{BINARY, Dice, Mount, Outcome, arg, ok, plant_tree, same_attributes, same_trees, sys, tersefs};

/// Coding starts soon, by the fast method: tests of the whole and not of models.
const FAST: [&str; 4] = ["--quiet-seconds", "0.1", "--method", "zstd"];
/// Nothing is coded unless a test asks for it.
const PLAIN: [&str; 3] = ["--no-coding", "--method", "zstd"];

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tersefs-t5-").tempdir().unwrap()
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

#[test]
fn umount_now_keeps_everything_and_says_what_is_left() {
    let dir = temp();
    let tree = dir.path().join("tree");
    plant_tree(&tree, 50);
    let mount = Mount::new(dir.path(), &PLAIN);
    ok("cp", &["-a", arg(&tree), arg(&mount.path("tree"))], 120);
    let outcome = mount.umount(&["--now"]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(outcome.out.contains("not coded yet"), "{outcome:?}");
    let mount = Mount::new(dir.path(), &PLAIN);
    same_trees(&tree, &mount.path("tree"));
    same_attributes(&tree, &mount.path("tree"));
    assert!(mount.status()["queue_files"].as_u64().unwrap() > 20, "the queue survives");
    // And umount without --now codes them all.
    mount.done();
    let mount = Mount::new(dir.path(), &PLAIN);
    assert_eq!(mount.status()["queue_files"], 0);
    same_trees(&tree, &mount.path("tree"));
    mount.done();
}

#[test]
fn what_programs_do_to_files() {
    let dir = temp();
    let mount = Mount::new(dir.path(), &PLAIN);
    let p = |name: &str| mount.path(name);
    // Names, links, kinds.
    fs::write(p("a"), b"one").unwrap();
    fs::hard_link(p("a"), p("b")).unwrap();
    assert_eq!(fs::metadata(p("a")).unwrap().nlink(), 2);
    std::os::unix::fs::symlink("a", p("link")).unwrap();
    assert_eq!(fs::read(p("link")).unwrap(), b"one");
    assert_eq!(errno(fs::write(p(&"x".repeat(256)), b"")), Some(libc::ENAMETOOLONG));
    fs::write(p(&"x".repeat(255)), b"long name").unwrap();
    fs::create_dir_all(p("d/e")).unwrap();
    assert_eq!(errno(fs::remove_dir(p("d"))), Some(libc::ENOTEMPTY));
    assert_eq!(errno(fs::rename(p("d"), p("d/e/f"))), Some(libc::EINVAL));
    assert_eq!(errno(File::options().write(true).create_new(true).open(p("a"))), Some(libc::EEXIST));
    assert_eq!(errno(fs::read(p("none"))), Some(libc::ENOENT));
    assert_eq!(errno(fs::read_dir(p("a"))), Some(libc::ENOTDIR));
    ok("mkfifo", &[arg(&p("pipe"))], 10);
    assert_eq!(ok("stat", &["-c", "%F", arg(&p("pipe"))], 10).trim(), "fifo");
    // Renames.
    fs::write(p("c"), b"two").unwrap();
    assert_eq!(errno(sys::rename(&p("a"), &p("c"), libc::RENAME_NOREPLACE)), Some(libc::EEXIST));
    sys::rename(&p("a"), &p("c"), libc::RENAME_EXCHANGE).unwrap();
    assert_eq!((fs::read(p("a")).unwrap(), fs::read(p("c")).unwrap()), (b"two".to_vec(), b"one".to_vec()));
    fs::rename(p("c"), p("a")).unwrap();
    assert_eq!((fs::read(p("a")).unwrap(), p("c").exists()), (b"one".to_vec(), false));
    // Append, truncate, bytes in the middle.
    let mut log = File::options().append(true).create(true).open(p("log")).unwrap();
    for n in 0..100 {
        writeln!(log, "line {n}").unwrap();
    }
    assert_eq!(ok("tail", &["-n", "1", arg(&p("log"))], 10), "line 99\n");
    assert_eq!(ok("grep", &["-c", "^line ", arg(&p("log"))], 10), "100\n");
    log.set_len(10).unwrap();
    assert_eq!(fs::read(p("log")).unwrap(), b"line 0\nlin");
    // What is open keeps a mount busy.
    drop(log);
    ok("dd", &["if=/dev/zero", &format!("of={}", arg(&p("dd"))), "bs=1000", "count=7", "seek=3", "status=none"], 20);
    assert_eq!(fs::metadata(p("dd")).unwrap().len(), 10_000);
    // An open file lives on without its name.
    let mut open = File::options().read(true).write(true).open(p("a")).unwrap();
    fs::remove_file(p("a")).unwrap();
    fs::remove_file(p("b")).unwrap();
    open.write_all(b"ONE and more").unwrap();
    open.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ONE and more");
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    drop(open);
    // Attributes.
    fs::set_permissions(p("log"), fs::Permissions::from_mode(0o640)).unwrap();
    ok("touch", &["-d", "2001-02-03 04:05:06.789 UTC", arg(&p("log"))], 10);
    ok("touch", &["-h", "-d", "1965-02-03 04:05:06 UTC", arg(&p("link"))], 10);
    let meta = fs::metadata(p("log")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o640, 981_173_106, 789_000_000));
    assert_eq!(fs::symlink_metadata(p("link")).unwrap().mtime(), -154_900_494);
    sys::set_xattr(&p("log"), "user.colour", b"blue", 0).unwrap();
    assert_eq!(errno(sys::set_xattr(&p("log"), "user.colour", b"x", libc::XATTR_CREATE)), Some(libc::EEXIST));
    assert_eq!(sys::get_xattr(&p("log"), "user.colour").unwrap(), b"blue");
    assert_eq!(sys::list_xattr(&p("log")).unwrap(), ["user.colour"]);
    assert_eq!(errno(sys::get_xattr(&p("log"), "user.none")), Some(libc::ENODATA));
    sys::remove_xattr(&p("log"), "user.colour").unwrap();
    assert!(sys::list_xattr(&p("log")).unwrap().is_empty());
    // Many names in one directory, and removing them while reading it.
    fs::create_dir(p("many")).unwrap();
    for n in 0..3000 {
        File::create(p(&format!("many/{n}"))).unwrap();
    }
    assert_eq!(fs::read_dir(p("many")).unwrap().count(), 3000);
    ok("rm", &["-rf", arg(&p("many"))], 60);
    assert!(!p("many").exists());
    // Space is that of the filesystem below.
    let ((total, free, _), (below, ..)) = (sys::space(&mount.point).unwrap(), sys::space(dir.path()).unwrap());
    assert!(total == below && free > 0 && free < total, "{total} {free} {below}");
    mount.done();
}

#[test]
fn holes_maps_and_programs_on_coded_files() {
    let dir = temp();
    let mount = Mount::new(dir.path(), &FAST);
    let p = |name: &str| mount.path(name);
    // A terabyte of nothing with one page in it: copying it takes no time only if holes are told.
    let sparse = File::create(p("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(&[7; 4096], 1 << 39).unwrap();
    drop(sparse);
    for coded in [false, true] {
        if coded {
            mount.wait();
        }
        let file = File::open(p("sparse")).unwrap();
        let data = sys::seek(&file, 0, libc::SEEK_DATA).unwrap();
        assert!(data <= 1 << 39 && data > (1 << 39) - (4 << 20), "data at {data}, coded {coded}");
        let hole = sys::seek(&file, 1 << 39, libc::SEEK_HOLE).unwrap();
        let near = (1 << 39) + 4096..(1 << 39) + (4 << 20);
        assert!(near.contains(&hole), "hole at {hole}, coded {coded}");
        assert_eq!(errno(sys::seek(&file, 1 << 40, libc::SEEK_DATA)), Some(libc::ENXIO));
        let copy = dir.path().join("copy");
        ok("cp", &["--sparse=auto", arg(&p("sparse")), arg(&copy)], 60);
        let meta = fs::metadata(&copy).unwrap();
        assert!(meta.len() == 1 << 40 && meta.blocks() * 512 < 16 << 20);
        let mut page = [0; 4096];
        File::open(&copy).unwrap().read_exact_at(&mut page, 1 << 39).unwrap();
        assert_eq!(page, [7; 4096]);
        fs::remove_file(copy).unwrap();
    }
    // One byte of a coded file: what is around stays, and coding it again works.
    let mut text = Dice(3).text(1_000_000);
    fs::write(p("text"), &text).unwrap();
    mount.wait();
    let blocks = fs::metadata(p("text")).unwrap().blocks();
    assert!(blocks * 512 < 700_000, "coded: {blocks}");
    let file = File::options().read(true).write(true).open(p("text")).unwrap();
    file.write_all_at(b"!", 500_000).unwrap();
    text[500_000] = b'!';
    assert!(fs::read(p("text")).unwrap() == text);
    assert!(sys::mapped(&file, text.len()).unwrap() == text, "through a mapping");
    sys::write_mapped(&file, b"written through a mapping").unwrap();
    text[..25].copy_from_slice(b"written through a mapping");
    assert!(fs::read(p("text")).unwrap() == text);
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    sys::allocate(&file, punch, 600_000, 100_000).unwrap();
    text[600_000..700_000].fill(0);
    sys::allocate(&file, 0, 1_000_000, 50_000).unwrap();
    text.resize(1_050_000, 0);
    file.set_len(1_040_000).unwrap();
    text.truncate(1_040_000);
    assert!(fs::read(p("text")).unwrap() == text);
    drop(file);
    mount.wait();
    assert!(fs::read(p("text")).unwrap() == text, "after coding again");
    let original = dir.path().join("original");
    fs::write(&original, &text).unwrap();
    ok("cmp", &[arg(&original), arg(&p("text"))], 30);
    // Programs run from the mount.
    ok("cp", &["/bin/true", arg(&p("program"))], 10);
    mount.wait();
    ok(arg(&p("program")), &[], 10);
    mount.done();
    let mount = Mount::new(dir.path(), &FAST);
    assert!(fs::read(mount.path("text")).unwrap() == text, "after a remount");
    ok(arg(&mount.path("program")), &[], 10);
    mount.done();
}

#[test]
fn status_stat_and_the_daemon_flag() {
    let dir = temp();
    let (store, point) = (dir.path().join("store"), dir.path().join("mnt"));
    fs::create_dir(&point).unwrap();
    let said = ok(BINARY, &["mount", arg(&store), arg(&point), "--daemon", "--method", "zstd"], 60);
    assert!(said.contains("tersefs umount"), "the mount says what to do next: {said}");
    let guard = Detached(&point);
    fs::write(point.join("text"), Dice(1).text(300_000)).unwrap();
    ok(BINARY, &["wait", arg(&point)], 60);
    let status: serde_json::Value = serde_json::from_str(&ok(BINARY, &["status", "--json", arg(&point)], 60)).unwrap();
    for field in ["uuid", "queue_files", "coded_plain_bytes", "coded_stored_bytes", "methods", "cache_hits"] {
        assert!(!status[field].is_null(), "{field} is missing: {status}");
    }
    assert_eq!(status["coded_plain_bytes"], 300_000);
    assert!(ok(BINARY, &["status", arg(&store)], 60).contains("zstd"));
    let stat: serde_json::Value =
        serde_json::from_str(&ok(BINARY, &["stat", "--json", arg(&point.join("text"))], 60)).unwrap();
    assert_eq!((&stat["size"], &stat["segments"][0]["method"]), (&300_000.into(), &"zstd".into()), "{stat}");
    ok(BINARY, &["pause", arg(&point)], 60);
    fs::write(point.join("more"), Dice(2).text(100_000)).unwrap();
    let outcome = tersefs(&["umount", "--now", "--json", arg(&point)]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    let left: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(left["files"], 1, "{left}");
    // The store was given back when umount returned.
    ok(BINARY, &["fsck", arg(&store)], 60);
    for verb in ["status", "wait", "stat"] {
        let Outcome { code, err, .. } = tersefs(&[verb, arg(&point)]);
        assert!(code == Some(1) && err.starts_with("tersefs: "), "{verb} without a mount: {code:?} {err}");
    }
    drop(guard);
}

/// Takes a mount away whose daemon nobody holds.
struct Detached<'a>(&'a Path);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
}

#[test]
fn strange_features_and_read_only_mounts() {
    let dir = temp();
    let mount = Mount::new(dir.path(), &PLAIN);
    let store = mount.store.clone();
    fs::write(mount.path("x"), b"x").unwrap();
    mount.done();
    let path = store.join("FORMAT");
    let block = fs::read(&path).unwrap();
    let known = tersefs::format::Superblock::decode(&block).unwrap();
    fs::write(&path, tersefs::format::Superblock { incompat: 1 << 63, ..known }.encode()).unwrap();
    let refused = tersefs(&["mount", arg(&store), arg(&dir.path().join("mnt"))]);
    assert!(refused.code == Some(1) && refused.err.contains("feature"), "{refused:?}");
    // A feature that only writers must know.
    fs::write(&path, tersefs::format::Superblock { ro_compat: 1 << 63, ..known }.encode()).unwrap();
    for flags in [&PLAIN[..], &["--read-only"]] {
        let mount = Mount::new(dir.path(), flags);
        assert_eq!(fs::read(mount.path("x")).unwrap(), b"x");
        assert_eq!(errno(fs::write(mount.path("y"), b"y")), Some(libc::EROFS));
        let outcome = mount.umount(&[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
    fs::write(&path, &block).unwrap();
    let mount = Mount::new(dir.path(), &PLAIN);
    fs::write(mount.path("y"), b"y").unwrap();
    mount.done();
}
