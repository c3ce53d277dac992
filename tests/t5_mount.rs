//! Real mounts with the built program: wiring, errno, real programs, and what the README promises.
//!
//! Needs root (or fusermount3) and /dev/fuse, and fails with that word where they are missing.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::Dice;

const TERSEFS: &str = env!("CARGO_BIN_EXE_tersefs");

/// Runs a program with a time limit; its output.
fn run(program: &str, args: &[&str]) -> Output {
    Command::new("timeout").arg("300").arg(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Runs a program that must succeed; its standard output.
fn ok(program: &str, args: &[&str]) -> String {
    let out = run(program, args);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {}\n{text}{}", out.status, String::from_utf8_lossy(&out.stderr));
    text
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A store and a mountpoint in a directory of their own; unmounted and removed at the end, come what may.
struct Volume {
    dir: tempfile::TempDir,
}

impl Volume {
    fn new() -> Volume {
        assert!(
            Path::new("/dev/fuse").exists(),
            "these tests mount: they need /dev/fuse (`modprobe fuse`) and root or fusermount3"
        );
        let volume = Volume { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(volume.mnt()).unwrap();
        volume
    }

    fn mounted() -> Volume {
        let volume = Volume::new();
        volume.mount(&[]);
        volume
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.mnt().join(path)
    }

    fn mount(&self, flags: &[&str]) {
        let out = self.try_mount(&self.store(), flags);
        assert!(out.status.success(), "mount: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn try_mount(&self, store: &Path, flags: &[&str]) -> Output {
        let (store, mnt) = (text(store), text(&self.mnt()));
        let mut args = vec!["mount", "--daemon", "--quiet-seconds=0.3", store.as_str(), mnt.as_str()];
        args.extend(flags);
        run(TERSEFS, &args)
    }

    fn wait(&self) {
        ok(TERSEFS, &["wait", &text(&self.mnt())]);
    }

    fn umount(&self) {
        ok(TERSEFS, &["umount", &text(&self.mnt())]);
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&ok(TERSEFS, &["status", "--json", &text(&self.mnt())])).unwrap()
    }

    /// Kills the daemon without warning and clears its mount away.
    fn kill(&self) {
        // Brackets keep the pattern from finding the command that looks for it.
        let pattern = format!("[m]ount {}", text(&fs::canonicalize(self.store()).unwrap()));
        ok("pkill", &["-9", "-f", &pattern]);
        let _ = run("umount", &["-l", &text(&self.mnt())]);
        let started = Instant::now();
        while run("pgrep", &["-f", &pattern]).status.success() {
            assert!(started.elapsed() < Duration::from_secs(20), "the daemon does not die");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn diff(&self, original: &Path, copy: &str) {
        ok("diff", &["-r", &text(original), &text(&self.at(copy))]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.mnt()).output();
        // Give the daemon time to let go of the store before its directory is removed.
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A tree of many small files and a few large ones.
fn tree(dir: &Path, files: usize) {
    let mut dice = Dice::new(11);
    for n in 0..files {
        let sub = dir.join(format!("d{}", n % 20));
        fs::create_dir_all(&sub).unwrap();
        let len = 200 + dice.roll(1800) as usize;
        fs::write(sub.join(format!("f{n}")), dice.text(len)).unwrap();
    }
    fs::write(dir.join("large"), dice.text(3_000_000)).unwrap();
    let noise: Vec<u8> = (0..1_000_000).map(|_| dice.next() as u8).collect();
    fs::write(dir.join("noise"), noise).unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
}

#[test]
fn copy_wait_remount_rebuild_and_move() {
    let v = Volume::mounted();
    let original = v.dir.path().join("original");
    fs::create_dir(&original).unwrap();
    tree(&original, 2000);
    ok("cp", &["-a", &text(&original), &text(&v.at("copy"))]);
    ok("cp", &["-a", &text(&sources()), &text(&v.at("src"))]);
    v.diff(&original, "copy");
    v.wait();
    v.diff(&original, "copy");
    v.diff(&sources(), "src");
    let status = v.status();
    assert_eq!(status["queue_files"], 0);
    let (plain, stored) =
        (status["coded_plain_bytes"].as_u64().unwrap(), status["coded_stored_bytes"].as_u64().unwrap());
    // A million of these bytes are noise.
    assert!(stored < 1_010_000 + (plain - 1_000_000) / 2, "{stored} of {plain}");
    let packs = status["data_pack_bytes"].as_u64().unwrap() + status["meta_pack_bytes"].as_u64().unwrap();
    assert!(packs < plain);
    v.umount();
    assert_eq!(fs::read_dir(v.store().join("staging")).unwrap().count(), 0, "staging is empty when all is coded");
    v.mount(&[]);
    v.diff(&original, "copy");
    v.umount();
    // On another machine: a copy of the store, and one without its index.
    let moved = v.dir.path().join("moved");
    ok("cp", &["-a", &text(&v.store()), &text(&moved)]);
    fs::remove_dir_all(moved.join("index")).unwrap();
    let out = v.try_mount(&moved, &[]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    v.diff(&original, "copy");
    v.diff(&sources(), "src");
    v.umount();
    fs::remove_dir_all(v.store().join("index")).unwrap();
    ok(TERSEFS, &["fsck", "--rebuild-index", &text(&v.store())]);
    v.mount(&[]);
    v.diff(&original, "copy");
    v.umount();
    ok(TERSEFS, &["scrub", &text(&v.store())]);
    assert!(ok(TERSEFS, &["inspect", &text(&v.store())]).contains("segment cm.1"));
}

#[test]
fn a_kill_in_the_middle_of_a_copy_loses_nothing_synced() {
    let v = Volume::mounted();
    let mut dice = Dice::new(3);
    let stop = AtomicBool::new(false);
    let (synced, written) = std::thread::scope(|s| {
        let copier = s.spawn(|| {
            let (mut synced, mut written) = (Vec::new(), Vec::new());
            let mut dice = Dice::new(8);
            for n in 0..100_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let len = 1 + dice.roll(40_000) as usize;
                let data = dice.text(len);
                let name = format!("f{n}");
                written.push((name.clone(), data.clone()));
                let Ok(mut file) = File::create(v.at(&name)) else { break };
                if file.write_all(&data).is_err() {
                    break;
                }
                if n % 5 == 0 && file.sync_all().is_ok() && File::open(v.mnt()).and_then(|d| d.sync_all()).is_ok() {
                    synced.push((name, data));
                }
            }
            (synced, written)
        });
        std::thread::sleep(Duration::from_millis(1500 + dice.roll(500)));
        v.kill();
        stop.store(true, Ordering::Relaxed);
        copier.join().unwrap()
    });
    assert!(synced.len() > 5, "something was synced before the kill: {}", synced.len());
    v.mount(&[]);
    for (name, data) in &synced {
        assert!(fs::read(v.at(name)).unwrap() == *data, "{name} was synced");
    }
    let (mut whole, mut part) = (0, 0);
    for (name, data) in &written {
        match fs::read(v.at(name)) {
            Ok(found) if found == *data => whole += 1,
            Ok(found) => {
                assert!(data.starts_with(&found), "{name}: {} bytes, not the start of what was written", found.len());
                part += 1;
            }
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "{name}"),
        }
    }
    println!("{} synced, {whole} whole, {part} begun, of {}", synced.len(), written.len());
    v.wait();
    for (name, data) in &synced {
        assert!(fs::read(v.at(name)).unwrap() == *data, "{name} after coding");
    }
    v.umount();
    ok(TERSEFS, &["fsck", &text(&v.store())]);
}

#[test]
fn random_reads_of_cold_files_while_another_writes() {
    let v = Volume::mounted();
    let mut dice = Dice::new(21);
    let data = dice.text(4_000_000);
    fs::write(v.at("cold"), &data).unwrap();
    v.wait();
    v.umount();
    v.mount(&["--cache-mib=1"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                fs::write(v.at(&format!("hot{}", n % 10)), vec![n as u8; 300_000]).unwrap();
                n += 1;
            }
        });
        let file = File::open(v.at("cold")).unwrap();
        let mut buf = [0; 4096];
        for _ in 0..60 {
            let at = dice.roll(data.len() as u64 - 4096);
            file.read_exact_at(&mut buf, at).unwrap();
            assert!(buf[..] == data[at as usize..at as usize + 4096], "4 KiB at {at}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn files_behave_as_elsewhere() {
    let v = Volume::mounted();
    let at = |p: &str| v.at(p);
    // Links.
    fs::write(at("a"), b"hello").unwrap();
    fs::hard_link(at("a"), at("b")).unwrap();
    symlink("a", at("s")).unwrap();
    assert_eq!((fs::metadata(at("b")).unwrap().nlink(), fs::read(at("s")).unwrap()), (2, b"hello".to_vec()));
    assert_eq!(fs::read_link(at("s")).unwrap(), Path::new("a"));
    fs::remove_file(at("a")).unwrap();
    assert_eq!((fs::read(at("b")).unwrap(), fs::metadata(at("b")).unwrap().nlink()), (b"hello".to_vec(), 1));
    // Append, truncate, sparse.
    let mut file = OpenOptions::new().append(true).open(at("b")).unwrap();
    file.write_all(b" world").unwrap();
    assert_eq!(fs::read(at("b")).unwrap(), b"hello world");
    OpenOptions::new().write(true).open(at("b")).unwrap().set_len(3).unwrap();
    assert_eq!(fs::read(at("b")).unwrap(), b"hel");
    ok("dd", &["if=/dev/zero", &format!("of={}", text(&at("sparse"))), "bs=4096", "count=1", "seek=50000"]);
    assert_eq!(fs::metadata(at("sparse")).unwrap().len(), 50_001 * 4096);
    assert!(fs::metadata(at("sparse")).unwrap().blocks() < 100, "a hole takes no space");
    v.wait();
    assert!(fs::metadata(at("sparse")).unwrap().blocks() < 100, "also when coded");
    ok("cp", &["--sparse=auto", &text(&at("sparse")), &text(&at("sparse2"))]);
    assert!(fs::metadata(at("sparse2")).unwrap().blocks() < 100, "cp finds the holes");
    ok("cmp", &[&text(&at("sparse")), &text(&at("sparse2"))]);
    ok("fallocate", &["-p", "-o", "0", "-l", "4096", &text(&at("b"))]);
    assert_eq!(fs::read(at("b")).unwrap(), [0; 3]);
    // Directories, rename.
    fs::create_dir_all(at("x/y/z")).unwrap();
    fs::write(at("x/f"), b"1").unwrap();
    assert_eq!(fs::remove_dir(at("x")).unwrap_err().raw_os_error(), Some(39));
    fs::rename(at("x/f"), at("x/y/g")).unwrap();
    assert_eq!(fs::rename(at("x"), at("x/y/z/x")).unwrap_err().raw_os_error(), Some(22));
    fs::rename(at("x/y/g"), at("b")).unwrap();
    assert_eq!(fs::read(at("b")).unwrap(), b"1", "a rename replaces");
}

#[test]
fn unlinked_files_live_while_open_and_attributes_stick() {
    let v = Volume::mounted();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(v.at("gone")).unwrap();
    file.write_all(b"still here").unwrap();
    fs::remove_file(v.at("gone")).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut found = String::new();
    file.read_to_string(&mut found).unwrap();
    assert_eq!((found.as_str(), file.metadata().unwrap().nlink()), ("still here", 0));
    drop(file);
    fs::write(v.at("f"), b"x").unwrap();
    ok("chmod", &["4751", &text(&v.at("f"))]);
    ok("chown", &["12:34", &text(&v.at("f"))]);
    ok("touch", &["-d", "1969-12-31 23:59:58.5 UTC", &text(&v.at("f"))]);
    ok("setfattr", &["-n", "user.note", "-v", "kept", &text(&v.at("f"))]);
    ok("mkfifo", &[&text(&v.at("fifo"))]);
    let seen = |v: &Volume| {
        let m = fs::metadata(v.at("f")).unwrap();
        let xattr = ok("getfattr", &["--only-values", "-n", "user.note", &text(&v.at("f"))]);
        (m.mode() & 0o7777, m.uid(), m.gid(), m.mtime(), m.mtime_nsec(), xattr)
    };
    let before = seen(&v);
    // chown clears setuid, as elsewhere.
    assert_eq!((before.0, before.1, before.2, before.5.as_str()), (0o751, 12, 34, "kept"));
    assert_eq!((before.3, before.4), (-2, 500_000_000));
    let df = ok("df", &["-B1", "--output=size,avail", &text(&v.mnt())]);
    let below = ok("df", &["-B1", "--output=size,avail", &text(&v.store())]);
    let size = |t: &str| t.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_string();
    assert_eq!(size(&df), size(&below), "statfs tells the space of the filesystem below");
    v.umount();
    v.mount(&[]);
    assert_eq!(seen(&v), before);
    assert!(!v.at("gone").exists());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let v = Volume::mounted();
    fs::write(v.at("f"), b"data").unwrap();
    // A second mount, on the same place and elsewhere.
    let again = v.try_mount(&v.store(), &[]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already"));
    let other = v.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let out = run(TERSEFS, &["mount", &text(&v.store()), &text(&other)]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("in use"), "{}", String::from_utf8_lossy(&out.stderr));
    let fsck = run(TERSEFS, &["fsck", &text(&v.store())]);
    assert!(!fsck.status.success() && String::from_utf8_lossy(&fsck.stderr).contains("in use"));
    // Unmounting now tells what is left; it is there after the next mount.
    ok(TERSEFS, &["pause", &text(&v.mnt())]);
    fs::write(v.at("late"), vec![b'x'; 100_000]).unwrap();
    let now = run(TERSEFS, &["umount", "--now", &text(&v.mnt())]);
    assert_eq!(now.status.code(), Some(4), "{}", String::from_utf8_lossy(&now.stderr));
    assert!(String::from_utf8_lossy(&now.stdout).contains("not coded yet"));
    v.mount(&["--read-only"]);
    assert_eq!(fs::read(v.at("late")).unwrap(), vec![b'x'; 100_000]);
    assert_eq!(fs::write(v.at("no"), b"").unwrap_err().raw_os_error(), Some(30));
    v.umount();
    // A newer format.
    let format = v.store().join("FORMAT");
    let mut block = tersefs::format::Superblock::decode(&fs::read(&format).unwrap()).unwrap();
    block.version = 9;
    fs::write(&format, block.encode()).unwrap();
    let newer = v.try_mount(&v.store(), &[]);
    let why = String::from_utf8_lossy(&newer.stderr).into_owned();
    assert!(!newer.status.success() && why.contains("format version 9"), "{why}");
    // A directory that is not ours.
    fs::write(other.join("letter"), b"mine").unwrap();
    let stranger = run(TERSEFS, &["mount", &text(&other), &text(&v.mnt())]);
    assert!(!stranger.status.success() && String::from_utf8_lossy(&stranger.stderr).contains("not empty"));
}

#[test]
fn damage_gives_an_error_and_a_path_and_spares_the_rest() {
    let v = Volume::mounted();
    // However slow the machine is at the moment, the model is within the budget.
    v.umount();
    v.mount(&["--decode-ms", "60000"]);
    let mut dice = Dice::new(6);
    let files: Vec<(String, Vec<u8>)> = (0..4).map(|n| (format!("f{n}"), dice.text(400_000))).collect();
    for (name, data) in &files {
        fs::write(v.at(name), data).unwrap();
    }
    v.wait();
    let stat: serde_json::Value = serde_json::from_str(&ok(TERSEFS, &["stat", "--json", &text(&v.at("f2"))])).unwrap();
    let segment = &stat["segments"][0];
    assert_eq!(segment["method"], "cm");
    assert!(segment["bits_per_byte"].as_f64().unwrap() < 4.0);
    let (pack, offset) = (segment["pack"].as_u64().unwrap(), segment["pack_offset"].as_u64().unwrap());
    v.umount();
    let path = v.store().join(format!("packs/{:02x}/pack-{pack:016x}.tpk", pack & 0xff));
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset as usize + 500] ^= 4;
    fs::write(&path, bytes).unwrap();
    v.mount(&[]);
    for (name, data) in &files {
        match fs::read(v.at(name)) {
            Ok(found) => assert!(found == *data && name != "f2"),
            Err(e) => assert_eq!((e.raw_os_error(), name.as_str()), (Some(5), "f2")),
        }
    }
    let log = fs::read_to_string(v.store().join("daemon.log")).unwrap();
    assert!(log.contains("/f2") && log.contains("damaged"), "{log}");
    let scrub = run(TERSEFS, &["scrub", &text(&v.mnt())]);
    assert_eq!(scrub.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&scrub.stdout).contains("/f2"));
    v.umount();
    assert_eq!(run(TERSEFS, &["fsck", &text(&v.store())]).status.code(), Some(3));
}

#[test]
fn touching_one_byte_of_a_coded_file_decodes_nothing() {
    let v = Volume::mounted();
    let mut data = Dice::new(2).text(3_000_000);
    fs::write(v.at("f"), &data).unwrap();
    v.wait();
    v.umount();
    v.mount(&[]);
    let file = OpenOptions::new().write(true).open(v.at("f")).unwrap();
    file.write_all_at(b"!", 1_500_000).unwrap();
    file.sync_all().unwrap();
    assert_eq!(v.status()["decodes"], 0, "a write decodes nothing");
    drop(file);
    data[1_500_000] = b'!';
    v.wait();
    // One cell was coded again.
    let decodes = v.status()["decodes"].as_u64().unwrap();
    assert!(decodes <= 2, "{decodes} decodes");
    assert!(fs::read(v.at("f")).unwrap() == data);
}

#[test]
fn stat_is_fast_while_readers_decode() {
    let v = Volume::mounted();
    let data = Dice::new(31).text(1_500_000);
    for n in 0..8 {
        fs::write(v.at(&format!("f{n}")), &data[n * 1000..]).unwrap();
    }
    v.wait();
    v.umount();
    v.mount(&["--cache-mib=1"]);
    let stop = AtomicBool::new(false);
    let mut times = Vec::new();
    std::thread::scope(|s| {
        for n in 0..8 {
            let (v, stop) = (&v, &stop);
            s.spawn(move || {
                let mut buf = vec![0; 64 << 10];
                let mut file = File::open(v.at(&format!("f{n}"))).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    if file.read(&mut buf).unwrap() == 0 {
                        // Cold again: the pages of the kernel are dropped with the file's.
                        ok(
                            "dd",
                            &[
                                &format!("of={}", text(&v.at(&format!("f{n}")))),
                                "oflag=nocache",
                                "conv=notrunc,fdatasync",
                                "count=0",
                            ],
                        );
                        file = File::open(v.at(&format!("f{n}"))).unwrap();
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        for n in 0..300 {
            let started = Instant::now();
            // A name that is not there is asked for anew each time: the kernel keeps no answer.
            let _ = fs::metadata(v.at(&format!("missing{n}")));
            times.push(started.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
    });
    times.sort();
    println!("stat beside 8 cold readers: p50 {:?}, p99 {:?}, max {:?}", times[150], times[296], times[299]);
    // Far above the target, which the benchmark prints: here it must only not wait for decodes.
    assert!(times[270] < Duration::from_millis(100), "{:?}", times[270]);
}

#[test]
fn open_files_agree_however_they_are_served() {
    let v = Volume::new();
    v.mount(&["--no-coding"]);
    let path = v.at("f");
    let size = || fs::metadata(&path).unwrap().len();
    let first = File::create(&path).unwrap();
    first.write_all_at(b"first version", 0).unwrap();
    // A reader beside the writer; size and bytes as written, at once.
    assert_eq!((fs::read(&path).unwrap(), size()), (b"first version".to_vec(), 13));
    let second = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    second.write_all_at(b"FIRST", 0).unwrap();
    first.write_all_at(b"!", 13).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"FIRST version!");
    first.set_len(5).unwrap();
    assert_eq!((fs::read(&path).unwrap(), size()), (b"FIRST".to_vec(), 5));
    first.set_len(8).unwrap();
    second.write_all_at(b"end", 8).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"FIRST\0\0\0end");
    // Truncated by name while it is open.
    fs::write(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    drop((first, second));
    // Pages cached by a reader are not served after the next writer.
    assert_eq!(fs::read(&path).unwrap(), b"new");
    let again = OpenOptions::new().write(true).open(&path).unwrap();
    again.write_all_at(b"old", 0).unwrap();
    again.sync_all().unwrap();
    drop(again);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    // A reader that was there first: both are served by the daemon.
    let mut reader = File::open(&path).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b" and longer").unwrap();
    let mut found = String::new();
    reader.read_to_string(&mut found).unwrap();
    assert_eq!(found, "old and longer");
    drop(reader);
    ok("touch", &["-d", "2001-02-03 04:05:06 UTC", &text(&path)]);
    let modified = fs::metadata(&path).unwrap().mtime();
    assert_eq!(modified, 981_173_106);
    v.umount();
    v.mount(&[]);
    assert_eq!(
        (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mtime()),
        (b"old and longer".to_vec(), modified)
    );
    v.wait();
    assert_eq!(
        (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mtime()),
        (b"old and longer".to_vec(), modified)
    );
}
