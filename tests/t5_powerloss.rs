//! Power loss of the mounted daemon: everything that the disk below was told is recorded, and what a machine without power
//! would find is put together, mounted, checked and compared with what was promised.
//!
//! Needs root, /dev/fuse and loop devices. `TERSEFS_SEED` sets the seed, `TERSEFS_IMAGES` the number of images (60),
//! `TERSEFS_STEPS` the operations of a session (60), `TERSEFS_BELOW` the filesystem below (ext4, xfs or btrfs).

mod common;
mod mounted;

use std::path::Path;
use std::time::{Duration, Instant};

use common::setting;
use mounted::journal::Journal;
use mounted::loopfs::LoopFs;
use mounted::recorder::Recorder;
use mounted::workload::{Lasts, Workload};
use mounted::{Mount, arg, ok, tersefs};

/// Mounts of the workload, one after the other: the end of each compacts the metadata log when it has grown.
const SESSIONS: u64 = 3;

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
        journal.compare(&mount.point, at).map_err(|e| format!("{when}: {e}: {}", mount.log()))
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
    let recorder = Recorder::new(dir.path(), &below, mib);
    let (store, point) = (recorder.point.join("store"), dir.path().join("mnt"));
    ok(mounted::BINARY, &["mkfs", arg(&store)], 60);
    ok("sync", &["-f", arg(&store)], 60);
    let start = recorder.position();
    let mut workload = Workload::new(seed, Lasts::Synced, || recorder.position());
    for session in 0..SESSIONS {
        let flags = ["--quiet-seconds=0.2", "--seal-seconds=0.5", "--method=zstd"];
        let mount = Mount::of(&store, &point, &flags);
        for n in 0..steps {
            workload.step(&mount).unwrap_or_else(|e| panic!("session {session}, step {n}: {e}: {}", mount.log()));
            if workload.dice.below(16) == 0 {
                std::thread::sleep(Duration::from_millis(workload.dice.below(800)));
            }
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
    let Workload { mut dice, journal, .. } = workload;
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
