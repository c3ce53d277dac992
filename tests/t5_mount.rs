//! Real mounts with the built program: wiring, errno, real programs, and what the README promises.
//!
//! Needs root (or fusermount3) and /dev/fuse, and fails with that word where they are missing.

mod mounted;
#[path = "common/until.rs"]
mod until;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mounted::{BINARY, Dice, Mount, arg, ok, tersefs};
use until::Until;

/// Files are quiet soon enough for tests that wait, and not in the middle of one that writes.
const QUIET: &str = "--quiet-seconds=0.3";

fn fresh() -> (tempfile::TempDir, Mount) {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), &[QUIET]);
    (dir, mount)
}

fn store(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("store")
}

fn diff(original: &Path, copy: &Path) {
    ok("diff", &["-r", arg(original), arg(copy)], 300);
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/volume")
}

/// A tree of many small files and a few large ones.
fn tree(dir: &Path, files: usize) {
    let mut dice = Dice(11);
    for n in 0..files {
        let sub = dir.join(format!("d{}", n % 20));
        fs::create_dir_all(&sub).unwrap();
        let len = 200 + dice.below(1800) as usize;
        fs::write(sub.join(format!("f{n}")), dice.text(len)).unwrap();
    }
    fs::write(dir.join("large"), dice.text(3_000_000)).unwrap();
    fs::write(dir.join("noise"), dice.noise(1_000_000)).unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
}

#[test]
fn copy_wait_remount_rebuild_and_move() {
    let (dir, v) = fresh();
    let original = dir.path().join("original");
    fs::create_dir(&original).unwrap();
    tree(&original, 2000);
    ok("cp", &["-a", arg(&original), arg(&v.path("copy"))], 300);
    ok("cp", &["-a", arg(&sources()), arg(&v.path("src"))], 300);
    diff(&original, &v.path("copy"));
    v.wait();
    diff(&original, &v.path("copy"));
    diff(&sources(), &v.path("src"));
    let status = v.status();
    assert_eq!(status["queue_files"], 0);
    let (plain, stored) =
        (status["coded_plain_bytes"].as_u64().unwrap(), status["coded_stored_bytes"].as_u64().unwrap());
    // A million of these bytes are noise.
    assert!(stored < 1_010_000 + (plain - 1_000_000) / 2, "{stored} of {plain}");
    let packs = status["data_pack_bytes"].as_u64().unwrap() + status["meta_pack_bytes"].as_u64().unwrap();
    assert!(packs < plain);
    v.done();
    assert_eq!(fs::read_dir(store(&dir).join("staging")).unwrap().count(), 0, "staging is empty when all is coded");
    let v = Mount::new(dir.path(), &[QUIET]);
    diff(&original, &v.path("copy"));
    v.done();
    // On another machine: a copy of the store, and one without its index.
    let moved = dir.path().join("moved");
    ok("cp", &["-a", arg(&store(&dir)), arg(&moved)], 300);
    fs::remove_dir_all(moved.join("index")).unwrap();
    let v = Mount::of(&moved, &dir.path().join("mnt"), &[QUIET]);
    diff(&original, &v.path("copy"));
    diff(&sources(), &v.path("src"));
    v.done();
    fs::remove_dir_all(store(&dir).join("index")).unwrap();
    ok(BINARY, &["fsck", "--rebuild-index", arg(&store(&dir))], 300);
    let v = Mount::new(dir.path(), &[QUIET]);
    diff(&original, &v.path("copy"));
    v.done();
    ok(BINARY, &["scrub", arg(&store(&dir))], 300);
    assert!(ok(BINARY, &["inspect", arg(&store(&dir))], 300).contains("segment primed.2"));
}

#[test]
fn a_kill_in_the_middle_of_a_copy_loses_nothing_synced() {
    let (dir, v) = fresh();
    let mut dice = Dice(3);
    let stop = AtomicBool::new(false);
    let (synced, written) = std::thread::scope(|s| {
        let copier = s.spawn(|| {
            let (mut synced, mut written) = (Vec::new(), Vec::new());
            let mut dice = Dice(8);
            for n in 0..100_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let len = 1 + dice.below(40_000) as usize;
                let data = dice.text(len);
                let name = format!("f{n}");
                written.push((name.clone(), data.clone()));
                let Ok(mut file) = File::create(v.path(&name)) else { break };
                if file.write_all(&data).is_err() {
                    break;
                }
                if n % 5 == 0 && file.sync_all().is_ok() && File::open(&v.point).and_then(|d| d.sync_all()).is_ok() {
                    synced.push((name, data));
                }
            }
            (synced, written)
        });
        std::thread::sleep(Duration::from_millis(1500 + dice.below(500)));
        v.strike();
        stop.store(true, Ordering::Relaxed);
        copier.join().unwrap()
    });
    v.kill();
    assert!(synced.len() > 5, "something was synced before the kill: {}", synced.len());
    let v = Mount::new(dir.path(), &[QUIET]);
    for (name, data) in &synced {
        assert!(fs::read(v.path(name)).unwrap() == *data, "{name} was synced");
    }
    let (mut whole, mut part) = (0, 0);
    for (name, data) in &written {
        match fs::read(v.path(name)) {
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
        assert!(fs::read(v.path(name)).unwrap() == *data, "{name} after coding");
    }
    v.done();
    ok(BINARY, &["fsck", arg(&store(&dir))], 300);
}

#[test]
fn random_reads_of_cold_files_while_another_writes() {
    let (dir, v) = fresh();
    let mut dice = Dice(21);
    let data = dice.text(4_000_000);
    fs::write(v.path("cold"), &data).unwrap();
    v.wait();
    v.done();
    let v = Mount::new(dir.path(), &[QUIET, "--cache-mib=1"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                fs::write(v.path(&format!("hot{}", n % 10)), vec![n as u8; 300_000]).unwrap();
                n += 1;
            }
        });
        let _until = Until(&stop);
        let file = File::open(v.path("cold")).unwrap();
        let mut buf = [0; 4096];
        for _ in 0..60 {
            let at = dice.below(data.len() as u64 - 4096);
            file.read_exact_at(&mut buf, at).unwrap();
            assert!(buf[..] == data[at as usize..at as usize + 4096], "4 KiB at {at}");
        }
    });
}

#[test]
fn files_behave_as_elsewhere() {
    let (_dir, v) = fresh();
    let at = |p: &str| v.path(p);
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
    ok("dd", &["if=/dev/zero", &format!("of={}", arg(&at("sparse"))), "bs=4096", "count=1", "seek=50000"], 300);
    assert_eq!(fs::metadata(at("sparse")).unwrap().len(), 50_001 * 4096);
    assert!(fs::metadata(at("sparse")).unwrap().blocks() < 100, "a hole takes no space");
    v.wait();
    assert!(fs::metadata(at("sparse")).unwrap().blocks() < 100, "also when coded");
    ok("cp", &["--sparse=auto", arg(&at("sparse")), arg(&at("sparse2"))], 300);
    assert!(fs::metadata(at("sparse2")).unwrap().blocks() < 100, "cp finds the holes");
    ok("cmp", &[arg(&at("sparse")), arg(&at("sparse2"))], 300);
    ok("fallocate", &["-p", "-o", "0", "-l", "4096", arg(&at("b"))], 300);
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
    let (dir, v) = fresh();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(v.path("gone")).unwrap();
    file.write_all(b"still here").unwrap();
    fs::remove_file(v.path("gone")).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut found = String::new();
    file.read_to_string(&mut found).unwrap();
    assert_eq!((found.as_str(), file.metadata().unwrap().nlink()), ("still here", 0));
    drop(file);
    fs::write(v.path("f"), b"x").unwrap();
    ok("chmod", &["4751", arg(&v.path("f"))], 300);
    ok("chown", &["12:34", arg(&v.path("f"))], 300);
    ok("touch", &["-d", "1969-12-31 23:59:58.5 UTC", arg(&v.path("f"))], 300);
    ok("setfattr", &["-n", "user.note", "-v", "kept", arg(&v.path("f"))], 300);
    ok("mkfifo", &[arg(&v.path("fifo"))], 300);
    let seen = |v: &Mount| {
        let m = fs::metadata(v.path("f")).unwrap();
        let xattr = ok("getfattr", &["--only-values", "-n", "user.note", arg(&v.path("f"))], 300);
        (m.mode() & 0o7777, m.uid(), m.gid(), m.mtime(), m.mtime_nsec(), xattr)
    };
    let before = seen(&v);
    // chown clears setuid, as elsewhere.
    assert_eq!((before.0, before.1, before.2, before.5.as_str()), (0o751, 12, 34, "kept"));
    assert_eq!((before.3, before.4), (-2, 500_000_000));
    let df = ok("df", &["-B1", "--output=size,avail", arg(&v.point)], 300);
    let below = ok("df", &["-B1", "--output=size,avail", arg(&store(&dir))], 300);
    let size = |t: &str| t.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_string();
    assert_eq!(size(&df), size(&below), "statfs tells the space of the filesystem below");
    v.done();
    let v = Mount::new(dir.path(), &[QUIET]);
    assert_eq!(seen(&v), before);
    assert!(!v.path("gone").exists());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let (dir, v) = fresh();
    fs::write(v.path("f"), b"data").unwrap();
    // A second mount, on the same place and elsewhere.
    let again = tersefs(&["mount", "--daemon", arg(&store(&dir)), arg(&v.point)]);
    assert!(again.code == Some(1) && again.err.contains("already"), "{again:?}");
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    for how in [&["mount"][..], &["mount", "--daemon"]] {
        let elsewhere = tersefs(&[how, &[arg(&store(&dir)), arg(&other)]].concat());
        assert!(elsewhere.code == Some(1) && elsewhere.err.contains("in use"), "{elsewhere:?}");
    }
    let fsck = tersefs(&["fsck", arg(&store(&dir))]);
    assert!(fsck.code == Some(1) && fsck.err.contains("in use"), "{fsck:?}");
    // Unmounting now tells what is left; it is there after the next mount.
    ok(BINARY, &["pause", arg(&v.point)], 300);
    fs::write(v.path("late"), vec![b'x'; 100_000]).unwrap();
    let (store, point) = (store(&dir), v.point.clone());
    let now = v.umount(&["--now"]);
    assert!(now.code == Some(4) && now.out.contains("not coded yet"), "{now:?}");
    let v = Mount::of(&store, &point, &["--read-only"]);
    assert_eq!(fs::read(v.path("late")).unwrap(), vec![b'x'; 100_000]);
    assert_eq!(fs::write(v.path("no"), b"").unwrap_err().raw_os_error(), Some(30));
    v.done();
    // A newer format.
    let format = store.join("FORMAT");
    let mut block = tersefs::format::Superblock::decode(&fs::read(&format).unwrap()).unwrap();
    block.version = 9;
    fs::write(&format, block.encode()).unwrap();
    let newer = tersefs(&["mount", arg(&store), arg(&point)]);
    assert!(newer.code == Some(1) && newer.err.contains("format version 9"), "{newer:?}");
    // A directory that is not ours.
    fs::write(other.join("letter"), b"mine").unwrap();
    let stranger = tersefs(&["mount", arg(&other), arg(&point)]);
    assert!(stranger.code == Some(1) && stranger.err.contains("not empty"), "{stranger:?}");
}

#[test]
fn files_of_the_method_before_are_read_beside_new_ones() {
    let (dir, v) = fresh();
    v.done();
    let slowly = [QUIET, "--decode-ms", "60000"];
    let v = Mount::new(dir.path(), &[&slowly[..], &["--method", "cm"]].concat());
    let (old, new) = (Dice(21).text(300_000), Dice(22).text(300_000));
    fs::write(v.path("old"), &old).unwrap();
    v.wait();
    v.done();
    let v = Mount::new(dir.path(), &slowly);
    fs::write(v.path("new"), &new).unwrap();
    v.wait();
    let method = |name: &str| v.stat(name)["segments"][0]["method"].clone();
    assert_eq!((method("old"), method("new")), ("cm".into(), "primed".into()));
    v.done();
    let checked = tersefs(&["fsck", arg(&store(&dir))]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let scrubbed = tersefs(&["scrub", arg(&store(&dir))]);
    assert_eq!(scrubbed.code, Some(0), "{scrubbed:?}");
    let v = Mount::new(dir.path(), &[QUIET]);
    assert!(fs::read(v.path("old")).unwrap() == old && fs::read(v.path("new")).unwrap() == new);
    v.done();
}

#[test]
fn damage_gives_an_error_and_a_path_and_spares_the_rest() {
    let (dir, v) = fresh();
    // However slow the machine is at the moment, the model is within the budget.
    v.done();
    let v = Mount::new(dir.path(), &[QUIET, "--decode-ms", "60000"]);
    let mut dice = Dice(6);
    let files: Vec<(String, Vec<u8>)> = (0..4).map(|n| (format!("f{n}"), dice.text(400_000))).collect();
    for (name, data) in &files {
        fs::write(v.path(name), data).unwrap();
    }
    v.wait();
    let stat = v.stat("f2");
    let segment = &stat["segments"][0];
    assert_eq!(segment["method"], "primed");
    assert!(segment["bits_per_byte"].as_f64().unwrap() < 4.0);
    let (pack, offset) = (segment["pack"].as_u64().unwrap(), segment["pack_offset"].as_u64().unwrap());
    v.done();
    let path = store(&dir).join(format!("packs/{:02x}/pack-{pack:016x}.tpk", pack & 0xff));
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset as usize + 500] ^= 4;
    fs::write(&path, bytes).unwrap();
    let v = Mount::new(dir.path(), &[QUIET]);
    for (name, data) in &files {
        match fs::read(v.path(name)) {
            Ok(found) => assert!(found == *data && name != "f2"),
            Err(e) => assert_eq!((e.raw_os_error(), name.as_str()), (Some(5), "f2")),
        }
    }
    let log = v.log();
    assert!(log.contains("/f2") && log.contains("damaged"), "{log}");
    let scrub = tersefs(&["scrub", arg(&v.point)]);
    assert!(scrub.code == Some(3) && scrub.out.contains("/f2"), "{scrub:?}");
    v.done();
    assert_eq!(tersefs(&["fsck", arg(&store(&dir))]).code, Some(3));
}

#[test]
fn touching_one_byte_of_a_coded_file_decodes_nothing() {
    let (dir, v) = fresh();
    let mut data = Dice(2).text(3_000_000);
    fs::write(v.path("f"), &data).unwrap();
    v.wait();
    v.done();
    let v = Mount::new(dir.path(), &[QUIET]);
    let file = OpenOptions::new().write(true).open(v.path("f")).unwrap();
    file.write_all_at(b"!", 1_500_000).unwrap();
    file.sync_all().unwrap();
    assert_eq!(v.status()["decodes"], 0, "a write decodes nothing");
    drop(file);
    data[1_500_000] = b'!';
    v.wait();
    // One cell of 256 KiB was coded again: segments end where the content says, so it may lie in three of them.
    let decodes = v.status()["decodes"].as_u64().unwrap();
    assert!(decodes <= 3, "{decodes} decodes");
    assert!(fs::read(v.path("f")).unwrap() == data);
}

#[test]
fn nobody_waits_for_a_volume_with_nothing_to_do() {
    let (dir, mut v) = fresh();
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..10 {
        fs::write(v.path(&format!("f{n}")), b"a few bytes").unwrap();
        v.wait();
        assert_eq!(v.status()["queue_files"], 0, "closed before the wait");
        let started = Instant::now();
        v.wait();
        v.done();
        times.push(started.elapsed());
        v = Mount::new(dir.path(), &[QUIET]);
    }
    println!("wait and umount take {times:?}");
    // The machine may be loaded, but not at each of them; what is looked at again after a while is late every time.
    assert!(times.iter().min() < Some(&Duration::from_millis(150)), "{times:?}");
}

#[test]
fn stat_is_fast_while_readers_decode() {
    let (dir, v) = fresh();
    let data = Dice(31).text(1_500_000);
    for n in 0..8 {
        fs::write(v.path(&format!("f{n}")), &data[n * 1000..]).unwrap();
    }
    v.wait();
    v.done();
    let v = Mount::new(dir.path(), &[QUIET, "--cache-mib=1"]);
    let stop = AtomicBool::new(false);
    let mut times = Vec::new();
    std::thread::scope(|s| {
        for n in 0..8 {
            let (v, stop) = (&v, &stop);
            s.spawn(move || {
                let mut buf = vec![0; 64 << 10];
                let mut file = File::open(v.path(&format!("f{n}"))).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    if file.read(&mut buf).unwrap() == 0 {
                        // Cold again: the pages of the kernel are dropped with the file's.
                        let of = format!("of={}", arg(&v.path(&format!("f{n}"))));
                        ok("dd", &[&of, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"], 60);
                        file = File::open(v.path(&format!("f{n}"))).unwrap();
                    }
                }
            });
        }
        let _until = Until(&stop);
        std::thread::sleep(Duration::from_millis(300));
        for n in 0..300 {
            let started = Instant::now();
            // A name that is not there is asked for anew each time: the kernel keeps no answer.
            let _ = fs::metadata(v.path(&format!("missing{n}")));
            times.push(started.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    times.sort();
    println!("stat beside 8 cold readers: p50 {:?}, p99 {:?}, max {:?}", times[150], times[296], times[299]);
    // Far above the target, which the benchmark prints: here it must only not wait for decodes.
    assert!(times[270] < Duration::from_millis(100), "{:?}", times[270]);
}

#[test]
fn open_files_agree_however_they_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let v = Mount::new(dir.path(), &["--no-coding"]);
    let path = v.path("f");
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
    ok("touch", &["-d", "2001-02-03 04:05:06 UTC", arg(&path)], 300);
    let modified = fs::metadata(&path).unwrap().mtime();
    assert_eq!(modified, 981_173_106);
    v.done();
    let v = Mount::new(dir.path(), &[QUIET]);
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

/// An empty file has nothing to code, so its staging file goes; one that is opened in that moment gets another, and what the
/// kernel writes by itself must not go to the first.
#[test]
fn what_is_written_while_the_staging_file_goes_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), &["--method", "zstd", "--quiet-seconds", "0"]);
    let until = Instant::now() + Duration::from_secs(10);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|s| {
        for n in 0..4 {
            let (path, rounds) = (mount.path(&format!("f{n}")), &rounds);
            s.spawn(move || {
                for round in 0.. {
                    if Instant::now() > until {
                        break;
                    }
                    let text = format!("{n}: {round}");
                    let open =
                        || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
                    File::create(&path).unwrap();
                    drop(open());
                    open().write_all_at(text.as_bytes(), 0).unwrap();
                    assert_eq!(fs::read_to_string(&path).unwrap(), text);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while Instant::now() < until {
            mount.wait();
        }
    });
    println!("{} rounds", rounds.load(Ordering::Relaxed));
    mount.done();
}
