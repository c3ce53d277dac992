//! Full disks, low limits of open files and failing filesystems below a mounted volume.
//!
//! Needs root, /dev/fuse and loop devices.

mod mounted;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use mounted::loopfs::LoopFs;
use mounted::recorder::Recorder;
use mounted::{BINARY, Dice, Mount, arg, ok, run, tersefs};

const ENOSPC: i32 = 28;

fn write_synced(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(data)?;
    file.sync_all()
}

fn is_full(e: &io::Error) -> bool {
    e.raw_os_error() == Some(ENOSPC)
}

fn sync_names(mount: &Mount) {
    File::open(&mount.point).and_then(|d| d.sync_all()).expect("fsync of the directory");
}

fn all_exact(mount: &Mount, files: &BTreeMap<String, Vec<u8>>, when: &str) {
    for (name, data) in files {
        let found = fs::read(mount.path(name)).unwrap_or_else(|e| panic!("{when}: {name}: {e}: {}", mount.log()));
        assert!(found == *data, "{when}: {name} is not what was synced");
    }
}

/// Fills with synced files until the disk is full; then renames, attributes, deletes, syncs work, and what was deleted can
/// be written again.
#[test]
fn a_small_disk_is_filled_emptied_and_filled_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopFs::ext4(dir.path(), 80);
    let (store, point) = (disk.point.join("store"), dir.path().join("mnt"));
    let mut dice = Dice(7);
    let mut files = BTreeMap::new();
    let mount = Mount::of(&store, &point, &["--quiet-seconds=0.5", "--method=raw"]);
    let mut fill = |files: &mut BTreeMap<String, Vec<u8>>, round: u32| -> usize {
        let mut written = 0;
        let mut largest = 900_000;
        for n in 0.. {
            let len = 1 + dice.below(largest) as usize;
            let (name, data) = (format!("{round} {n}"), dice.noise(len));
            match write_synced(&mount.path(&name), &data) {
                Ok(()) => {
                    written += data.len();
                    files.insert(name, data);
                }
                Err(e) => {
                    assert!(is_full(&e), "{name}: {e}: {}", mount.log());
                    // What was refused may be there in part, and can go.
                    match fs::remove_file(mount.path(&name)) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => panic!("{name}: {e}: {}", mount.log()),
                        _ => {}
                    }
                    sync_names(&mount);
                    // Smaller and smaller, until there is no room for anything.
                    if largest < 1000 {
                        return written;
                    }
                    largest /= 4;
                }
            }
        }
        unreachable!("a disk without an end")
    };
    let first = fill(&mut files, 1);
    assert!(first > 30 << 20, "full after {first} bytes of 80 MiB");
    // New data is refused, once what coding gives back is used up too; what needs no room works.
    let refused = (0..100).find_map(|n| write_synced(&mount.path(&format!("new{n}")), &[1; 900_000]).err());
    assert!(refused.is_some_and(|e| is_full(&e)));
    let (some, data) = files.pop_first().unwrap();
    fs::rename(mount.path(&some), mount.path("renamed")).expect("rename on a full disk");
    files.insert("renamed".into(), data);
    ok("chmod", &["600", arg(&mount.path("renamed"))], 10);
    ok("touch", &["-d", "2001-02-03", arg(&mount.path("renamed"))], 10);
    sync_names(&mount);
    let status = mount.status();
    assert_eq!(status["read_only"], false, "{status}");
    all_exact(&mount, &files, "full");
    // Half of it goes; that much can be written again, though with nothing collected only what is not in packs yet.
    let gone: Vec<String> = files.keys().step_by(2).cloned().collect();
    let mut freed = 0;
    for name in gone {
        fs::remove_file(mount.path(&name)).unwrap_or_else(|e| panic!("unlink on a full disk: {e}"));
        freed += files.remove(&name).unwrap().len();
    }
    sync_names(&mount);
    println!("{first} bytes filled the disk, {freed} deleted");
    all_exact(&mount, &files, "half deleted");
    mount.is_sound();
    mount.umount(&["--now"]);
    let fsck = tersefs(&["fsck", arg(&store)]);
    assert_eq!(fsck.code, Some(0), "{fsck:?}");
    let mount = Mount::of(&store, &point, &["--no-coding"]);
    all_exact(&mount, &files, "mounted again");
    // And an index made anew has room.
    mount.umount(&["--now"]);
    ok(BINARY, &["fsck", "--rebuild-index", arg(&store)], 60);
    let mount = Mount::of(&store, &point, &["--no-coding"]);
    all_exact(&mount, &files, "index made anew");
    mount.is_sound();
    mount.umount(&["--now"]);
}

/// A file that the kernel writes by itself fills the disk to the last byte, past the marks: the reserve is what is left to
/// delete it with.
#[test]
fn one_file_takes_all_there_is_and_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopFs::ext4(dir.path(), 64);
    let (store, point) = (disk.point.join("store"), dir.path().join("mnt"));
    let mount = Mount::of(&store, &point, &["--no-coding"]);
    write_synced(&mount.path("kept"), b"kept").unwrap();
    for round in 0..5 {
        let mut large = File::create(mount.path("large")).expect("room for a new file");
        let noise = Dice(round).noise(1 << 20);
        let full = loop {
            if let Err(e) = large.write_all(&noise) {
                break e;
            }
        };
        assert!(is_full(&full), "{full}");
        large.sync_all().expect("what was taken is durable");
        let len = large.metadata().unwrap().len();
        assert!(len > 40 << 20, "{len}");
        println!("round {round}: {len} bytes, {} left below", disk.available());
        for n in 0..50 {
            let (from, to) = (["kept", "moved"][n % 2], ["moved", "kept"][n % 2]);
            fs::rename(mount.path(from), mount.path(to)).expect("rename on a full disk");
        }
        sync_names(&mount);
        drop(large);
        if round == 3 {
            // The end of a mount, and a mount, on a disk without a free byte.
            drop_and_check(&store, &disk);
        }
        fs::remove_file(mount.path("large")).expect("unlink on a full disk");
        sync_names(&mount);
        let started = Instant::now();
        // The timer fills the reserve again.
        while fs::metadata(store.join("reserve")).unwrap().len() < 4 << 20 {
            assert!(started.elapsed() < Duration::from_secs(20), "the reserve is not filled again: {}", mount.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(fs::read(mount.path("kept")).unwrap(), b"kept");
    }
    mount.is_sound();
    mount.done();
    assert_eq!(tersefs(&["fsck", arg(&store)]).code, Some(0));
}

/// The store as it is now, beside the running mount, on a disk as full as it is.
fn drop_and_check(store: &Path, disk: &LoopFs) {
    let inspected = run(BINARY, &["inspect", arg(store)], 60);
    assert_eq!(inspected.code, Some(0), "{} left: {inspected:?}", disk.available());
}

/// Unmount, check, mount, all without a free byte.
#[test]
fn a_full_disk_is_unmounted_checked_and_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopFs::ext4(dir.path(), 64);
    let (store, point) = (disk.point.join("store"), dir.path().join("mnt"));
    let mount = Mount::of(&store, &point, &["--no-coding"]);
    let mut files = BTreeMap::new();
    let mut dice = Dice(3);
    for n in 0..300 {
        let (name, data) = (format!("f{n}"), dice.text(5_000));
        fs::write(mount.path(&name), &data).unwrap();
        files.insert(name, data);
    }
    sync_names(&mount);
    // Not ours: the filesystem below is filled by somebody else, as root to the last block.
    let other = disk.point.join("other");
    let mut hog = File::create(&other).unwrap();
    while hog.write_all(&[1; 65_536]).is_ok() {}
    while hog.write_all(&[1; 512]).is_ok() {}
    let _ = hog.sync_all();
    assert!(is_full(&fs::write(mount.path("new"), b"x").unwrap_err()));
    fs::remove_file(mount.path("f0")).expect("unlink on a full disk");
    files.remove("f0");
    fs::rename(mount.path("f1"), mount.path("g1")).expect("rename on a full disk");
    let data = files.remove("f1").unwrap();
    files.insert("g1".into(), data);
    File::open(mount.path("f2")).unwrap().sync_all().expect("fsync on a full disk");
    sync_names(&mount);
    all_exact(&mount, &files, "full");
    mount.is_sound();
    mount.umount(&["--now"]);
    for round in 0..3 {
        while hog.write_all(&[1; 4096]).is_ok() {}
        let fsck = tersefs(&["fsck", arg(&store)]);
        // After a kill the bytes of a deleted file may be left, for the next mount to remove.
        assert!(fsck.code == Some(0) || round == 2 && fsck.out.contains("1 problems"), "round {round}: {fsck:?}");
        let mount = Mount::of(&store, &point, &["--no-coding"]);
        all_exact(&mount, &files, "mounted on a full disk");
        let name = files.keys().next().cloned().unwrap();
        fs::remove_file(mount.path(&name)).unwrap_or_else(|e| panic!("round {round}: unlink: {e}: {}", mount.log()));
        files.remove(&name);
        mount.is_sound();
        if round == 1 {
            mount.kill();
        } else {
            mount.umount(&["--now"]);
        }
    }
    fs::remove_file(&other).unwrap();
    drop(hog);
    let mount = Mount::of(&store, &point, &[]);
    all_exact(&mount, &files, "room again");
    write_synced(&mount.path("new"), b"new").expect("room again");
    mount.wait();
    all_exact(&mount, &files, "coded");
    mount.is_sound();
    mount.done();
}

/// A daemon at its limit of open files: its callers are told, nothing is lost, and when files are closed all goes on.
#[test]
fn a_daemon_without_descriptors_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, point) = (dir.path().join("store"), dir.path().join("mnt"));
    let mut dice = Dice(11);
    let mut files = BTreeMap::new();
    // Segments in several packs are read with it; the first mount makes them.
    let mount = Mount::of(&store, &point, &["--method=zstd"]);
    for n in 0..10 {
        let (name, data) = (format!("cold{n}"), dice.text(300_000));
        fs::write(mount.path(&name), &data).unwrap();
        files.insert(name, data);
    }
    mount.wait();
    mount.done();
    let mount = Mount::of(&store, &point, &["--quiet-seconds=0.2"]);
    let used = fs::read_dir(format!("/proc/{}/fd", mount.pid())).unwrap().count();
    for spare in [0, 1, 3, 40] {
        // The soft limit alone, which can be raised again.
        let limit = format!("--nofile={}:", used + spare);
        ok("prlimit", &["--pid", &mount.pid().to_string(), &limit], 10);
        let mut held = Vec::new();
        let mut refused = 0;
        for n in 0..60 {
            let (name, data) = (format!("{spare} {n}"), dice.noise(1000));
            let written = File::create(mount.path(&name)).and_then(|mut file| {
                file.write_all(&data)?;
                file.sync_all()?;
                Ok(file)
            });
            match written {
                Ok(file) => {
                    held.push(file);
                    files.insert(name, data);
                }
                Err(e) => {
                    let told = [libc::EMFILE, libc::ENFILE, libc::EIO].map(Some).contains(&e.raw_os_error());
                    assert!(told, "{name}: {e}: {}", mount.log());
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "the limit of {} was never met", used + spare);
        // Names do not need descriptors; reads of cold files may be refused and are never wrong.
        for name in files.keys() {
            assert!(mount.path(name).exists(), "{name}");
        }
        for (name, data) in files.iter().filter(|(n, _)| n.starts_with("cold")) {
            if let Ok(found) = fs::read(mount.path(name)) {
                assert!(found == *data, "{name}");
            }
        }
        drop(held);
    }
    // What can hold a descriptor back for a moment is the end of the last handles, which the kernel tells later.
    ok("prlimit", &["--pid", &mount.pid().to_string(), "--nofile=1024:"], 10);
    let started = Instant::now();
    while let Err(e) = write_synced(&mount.path("after"), b"after") {
        assert!(started.elapsed() < Duration::from_secs(20), "{e}: {}", mount.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(mount.status()["read_only"], false, "{}", mount.log());
    all_exact(&mount, &files, "with descriptors again");
    mount.wait();
    all_exact(&mount, &files, "coded");
    mount.is_sound();
    mount.done();
    let mount = Mount::of(&store, &point, &[]);
    all_exact(&mount, &files, "mounted again");
    mount.done();
    assert_eq!(tersefs(&["fsck", arg(&store)]).code, Some(0));
}

/// Cold and hot files on a mount, all synced.
fn some_files(mount: &Mount, dice: &mut Dice) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for n in 0..5 {
        let (name, data) = (format!("cold{n}"), dice.text(200_000));
        fs::write(mount.path(&name), &data).unwrap();
        files.insert(name, data);
    }
    mount.wait();
    for n in 0..5 {
        let (name, data) = (format!("hot{n}"), dice.noise(20_000));
        write_synced(&mount.path(&name), &data).unwrap();
        files.insert(name, data);
    }
    sync_names(mount);
    files
}

/// Writes until one is refused, which must come soon; what was synced until then is kept account of.
fn write_until_refused(mount: &Mount, dice: &mut Dice, files: &mut BTreeMap<String, Vec<u8>>) -> io::Error {
    for n in 0..100 {
        let (name, data) = (format!("late{n}"), dice.noise(5000));
        let written = write_synced(&mount.path(&name), &data).and_then(|()| File::open(&mount.point)?.sync_all());
        match written {
            Ok(()) => {
                files.insert(name, data);
            }
            Err(e) => return e,
        }
    }
    panic!("the failing filesystem below was never noticed: {}", mount.log());
}

/// What is read is right or an error.
fn never_wrong(mount: &Mount, files: &BTreeMap<String, Vec<u8>>) -> usize {
    let mut right = 0;
    for (name, data) in files {
        match fs::read(mount.path(name)) {
            Ok(found) => {
                assert!(found == *data, "{name} is not what was synced");
                right += 1;
            }
            Err(e) => assert!([libc::EIO, libc::ENOENT].map(Some).contains(&e.raw_os_error()), "{name}: {e}"),
        }
    }
    right
}

/// The filesystem below turns read-only under the daemon, as ext4 does on an error of its own.
#[test]
fn a_filesystem_that_turns_read_only_is_told_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopFs::ext4(dir.path(), 64);
    let (store, point) = (disk.point.join("store"), dir.path().join("mnt"));
    let mut dice = Dice(4);
    let mount = Mount::of(&store, &point, &["--method=zstd"]);
    let mut files = some_files(&mount, &mut dice);
    ok("mount", &["-o", "remount,abort", arg(&disk.point)], 10);
    let refused = write_until_refused(&mount, &mut dice, &mut files);
    assert!([libc::EROFS, libc::EIO].map(Some).contains(&refused.raw_os_error()), "{refused}");
    assert_eq!(mount.status()["read_only"], true, "{}", mount.log());
    let late = fs::write(mount.path("later"), b"x").unwrap_err();
    assert_eq!(late.raw_os_error(), Some(libc::EROFS), "{late}");
    assert_eq!(never_wrong(&mount, &files), files.len(), "reads go on: {}", mount.log());
    mount.is_sound();
    let status = mount.end();
    println!("{refused}; the daemon ended with {status}");
    disk.remount(&dir.path().join("image"));
    assert_eq!(tersefs(&["fsck", "--json", arg(&store)]).err, "");
    let mount = Mount::of(&store, &point, &["--method=zstd"]);
    all_exact(&mount, &files, "after the repair");
    write_synced(&mount.path("new"), b"new").unwrap();
    mount.wait();
    all_exact(&mount, &files, "coded");
    mount.is_sound();
    mount.done();
}

/// The device below fails everything, as one that was pulled out.
#[test]
fn a_device_that_goes_away_costs_nothing_that_was_synced() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk = Recorder::new(dir.path(), "ext4", 64);
    let (store, point) = (disk.point.join("store"), dir.path().join("mnt"));
    let mut dice = Dice(6);
    let mount = Mount::of(&store, &point, &["--method=zstd"]);
    let mut files = some_files(&mount, &mut dice);
    disk.set_gone(true);
    let refused = write_until_refused(&mount, &mut dice, &mut files);
    assert!([libc::EROFS, libc::EIO].map(Some).contains(&refused.raw_os_error()), "{refused}");
    never_wrong(&mount, &files);
    assert_eq!(mount.status()["read_only"], true, "{}", mount.log());
    mount.is_sound();
    let status = mount.end();
    println!("{refused}; the daemon ended with {status}");
    disk.set_gone(false);
    disk.remount();
    let mount = Mount::of(&store, &point, &["--method=zstd"]);
    all_exact(&mount, &files, "the device is back");
    mount.is_sound();
    mount.done();
}
