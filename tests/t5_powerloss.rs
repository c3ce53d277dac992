//! Power loss of the mounted daemon: everything that the disk below was told is recorded, and what a machine without power
//! would find is put together, mounted, checked and compared with what was promised.
//!
//! Needs root, /dev/fuse and loop devices. `TERSEFS_SEED` sets the seed, `TERSEFS_IMAGES` the number of images (60),
//! `TERSEFS_STEPS` the operations of a session (60), `TERSEFS_BELOW` the filesystem below (ext4, xfs or btrfs).

mod common;
mod mounted;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::setting;
use mounted::journal::Journal;
use mounted::loopfs::LoopFs;
use mounted::recorder::Recorder;
use mounted::{Dice, Mount, arg, ok, tersefs};

/// Mounts of the workload, one after the other: the end of each compacts the metadata log when it has grown.
const SESSIONS: u64 = 3;

/// One operation on the mount, with what it promises.
fn step(recorder: &Recorder, mount: &Mount, dice: &mut Dice, journal: &mut Journal) -> io::Result<()> {
    let sync_names = || File::open(&mount.point).and_then(|d| d.sync_all());
    let live = journal.live();
    let some = |dice: &mut Dice| live.get(dice.below(live.len() as u64) as usize).cloned();
    let bytes = |dice: &mut Dice| {
        let most = if dice.below(4) == 0 { 400_000 } else { 30_000 };
        let len = 1 + dice.below(most) as usize;
        if dice.below(2) == 0 { dice.text(len) } else { dice.noise(len) }
    };
    let begun = recorder.position();
    match (dice.below(100), some(dice)) {
        (0..=29, _) | (_, None) => {
            let (name, data) = (format!("f{}", begun), bytes(dice));
            journal.begin(&name, Some(data.clone()), false, begun);
            let mut file = File::create(mount.path(&name))?;
            file.write_all(&data)?;
            if dice.below(3) > 0 {
                file.sync_all()?;
                journal.promise(&name, recorder.position());
            }
        }
        (30..=49, Some(name)) => {
            let mut now = journal.now(&name).unwrap();
            let data = bytes(dice);
            let at = dice.below(now.len() as u64 + 1) as usize;
            now.resize(now.len().max(at + data.len()), 0);
            now[at..at + data.len()].copy_from_slice(&data);
            journal.begin(&name, Some(now), false, begun);
            let file = OpenOptions::new().write(true).open(mount.path(&name))?;
            file.write_all_at(&data, at as u64)?;
            if dice.below(3) > 0 {
                file.sync_data()?;
                journal.promise(&name, recorder.position());
            }
        }
        (50..=64, Some(name)) => {
            // As programs save: a new file, renamed over the old one, and nobody calls fsync on it.
            let data = bytes(dice);
            journal.begin(&name, Some(data.clone()), true, begun);
            fs::write(mount.path("new"), &data)?;
            fs::rename(mount.path("new"), mount.path(&name))?;
            if dice.below(2) == 0 {
                sync_names()?;
                journal.promise(&name, recorder.position());
            }
        }
        (65..=74, Some(name)) => {
            let mut now = journal.now(&name).unwrap();
            let len = dice.below(now.len() as u64 + 5000);
            now.resize(len as usize, 0);
            journal.begin(&name, Some(now), false, begun);
            let file = OpenOptions::new().write(true).open(mount.path(&name))?;
            file.set_len(len)?;
            if dice.below(2) == 0 {
                file.sync_all()?;
                journal.promise(&name, recorder.position());
            }
        }
        (75..=81, Some(name)) => {
            journal.begin(&name, None, true, begun);
            fs::remove_file(mount.path(&name))?;
            if dice.below(2) == 0 {
                sync_names()?;
                journal.promise(&name, recorder.position());
            }
        }
        (82..=86, Some(_)) => {
            let name = format!("d{begun}");
            fs::create_dir(mount.path(&name))?;
            sync_names()?;
            journal.dirs.insert(name, recorder.position());
        }
        (87..=93, Some(name)) => {
            // Makes the log long, so that it is worth compacting.
            ok(
                "setfattr",
                &["-n", "user.note", "-v", &format!("0x{}", "5a".repeat(30_000)), arg(&mount.path(&name))],
                10,
            );
        }
        _ => std::thread::sleep(Duration::from_millis(dice.below(800))),
    }
    Ok(())
}

/// Everything that can be said about a store that was found after a power cut.
fn examine(journal: &Journal, image: &Path, dir: &Path, at: usize, code: bool) -> Result<(), String> {
    let disk = LoopFs::mount(image, &dir.join("left"));
    let store = disk.point.join("store");
    let fsck = tersefs(&["fsck", arg(&store)]);
    // Untidy things that the next mount puts right are noted and are no damage.
    if fsck.code != Some(0) {
        return Err(format!("fsck: {fsck:?}"));
    }
    let started = Instant::now();
    let flags: &[&str] = if code { &["--quiet-seconds=0"] } else { &["--no-coding"] };
    let mount = Mount::of(&store, &dir.join("again"), flags);
    let mut late = started.elapsed() > Duration::from_secs(2);
    let compare = |when: &str| -> Result<(), String> {
        for name in journal.files.keys() {
            let found = match fs::read(mount.path(name)) {
                Ok(found) => Some(found),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(format!("{when}: {name}: {e}: {}", mount.log())),
            };
            journal.judge(name, found.as_deref(), at).map_err(|e| format!("{when}: {name} {e}"))?;
        }
        for (name, promised) in &journal.dirs {
            if *promised <= at && !mount.path(name).is_dir() {
                return Err(format!("{when}: directory {name} is not there"));
            }
        }
        Ok(())
    };
    compare("mounted")?;
    if code {
        mount.wait();
        compare("coded")?;
        // What is slow may be the machine; not for a mount without work.
        late = false;
    }
    mount.is_sound();
    drop(mount.umount(&["--now"]));
    if late { Err(format!("the mount took {:?}", started.elapsed())) } else { Ok(()) }
}

#[test]
fn what_was_promised_survives_the_loss_of_power() {
    let seed = setting("TERSEFS_SEED").unwrap_or(1);
    let images = setting("TERSEFS_IMAGES").unwrap_or(60);
    let steps = setting("TERSEFS_STEPS").unwrap_or(60);
    let below = std::env::var("TERSEFS_BELOW").unwrap_or_else(|_| "ext4".into());
    let mib = match below.as_str() {
        "ext4" => 96,
        "xfs" => 320,
        _ => 128,
    };
    println!("seed {seed}, {images} images on {below}");
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut dice = Dice(seed);
    let recorder = Recorder::new(dir.path(), &below, mib);
    let (store, point) = (recorder.point.join("store"), dir.path().join("mnt"));
    ok(mounted::BINARY, &["mkfs", arg(&store)], 60);
    ok("sync", &["-f", arg(&store)], 60);
    let start = recorder.position();
    let mut journal = Journal::default();
    for session in 0..SESSIONS {
        let flags = ["--quiet-seconds=0.2", "--seal-seconds=0.5", "--method=zstd"];
        let mount = Mount::of(&store, &point, &flags);
        for n in 0..steps {
            step(&recorder, &mount, &mut dice, &mut journal)
                .unwrap_or_else(|e| panic!("session {session}, step {n}: {e}: {}", mount.log()));
        }
        mount.is_sound();
        if session + 1 < SESSIONS {
            drop(mount.umount(if session % 2 == 0 { &["--now"] } else { &[] }));
        } else {
            // The last one ends in its middle.
            mount.wait();
            mount.kill();
        }
    }
    let end = recorder.position();
    recorder.unmount();
    let flushes = recorder.flushes(start, end);
    println!("{} promises, {} events, {flushes} flushes", journal.promises, end - start);
    assert!(journal.promises > 30 && flushes > 60, "the workload proves nothing");
    // As often as anywhere else the power goes right after a promise: that is when it must be kept.
    let mut promises: Vec<usize> = journal.files.values().flatten().filter_map(|v| v.promised).collect();
    promises.sort();
    for n in 0..images {
        let at = if dice.below(2) == 0 {
            promises[dice.below(promises.len() as u64) as usize]
        } else {
            start + dice.below((end - start) as u64 + 1) as usize
        };
        let image = dir.path().join("left.image");
        let what = recorder.image_at(at, &mut dice, &image);
        if let Err(why) = examine(&journal, &image, dir.path(), at, n % 6 == 5) {
            panic!("seed {seed}, image {n} ({what}): {why}");
        }
    }
}
