//! What random operations, crashes and rot brought to light, each as a small test of its own.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Dice, code_all, fresh, open, options, packed, read};
use tersefs::base::{Ino, MethodId};
use tersefs::codec::Policy;
use tersefs::host::{Disk, Fault, OpenMode, RealDisk, SimDisk, Survival};
use tersefs::store::{RecordSummary, Store, Survey};
use tersefs::tools::{FsckOptions, fsck_with};
use tersefs::volume::{Attr, Caller, Error, OpenFor, SetAttr, SetTime, Time, Volume, VolumeOptions};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };

/// Makes a file with content, closed.
fn put(volume: &Volume, name: &str, data: &[u8]) -> Attr {
    let open = OpenFor { read: true, write: true, append: false, truncate: false };
    let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o644, &CALLER, open).unwrap();
    volume.write(attr.ino, opened.handle, 0, data).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    attr
}

fn reopen(disk: &SimDisk, workers: &Arc<Workers>) -> Arc<Volume> {
    open(disk, options(Some(MethodId::Raw)), workers).unwrap()
}

/// `cp -a` sets the old times after the last write. They were lost for files not coded yet, by an unmount and by a kill.
#[test]
fn times_set_by_hand_stay_while_a_file_is_staged() {
    let workers = Arc::new(Workers::new(1));
    // A real disk: the time of its staging file is what came in the way.
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = RealDisk::open(dir.path(), true).unwrap();
    Store::create(&disk, 1 << 20).unwrap();
    let mount = || Volume::open(disk.clone(), options(Some(MethodId::Raw)), workers.clone()).unwrap().0;
    let old = Time { secs: 1_000_000_000, nanos: 5 };
    let volume = mount();
    let ino = put(&volume, "copied", b"some content").ino;
    let set = SetAttr { mtime: Some(SetTime::To(old)), atime: Some(SetTime::To(old)), ..SetAttr::default() };
    volume.setattr(ino, &set).unwrap();
    volume.flush().unwrap();
    // Dropped and not closed: what a kill leaves.
    drop(volume);
    let volume = mount();
    let attr = volume.getattr(ino).unwrap();
    assert_eq!((attr.mtime, attr.atime, attr.size), (old, old, 12), "after a kill");
    volume.close().unwrap();
    drop(volume);
    let attr = mount().getattr(ino).unwrap();
    assert_eq!((attr.mtime, attr.atime, attr.size), (old, old, 12), "after an unmount");
}

/// A file removed while its bundle was coded made all other files of the bundle fail and wait.
#[test]
fn a_file_removed_while_it_is_coded_holds_no_other_up() {
    let workers = Arc::new(Workers::new(1));
    let volume = reopen(&fresh(), &workers);
    for n in 0..10 {
        put(&volume, &format!("small {n}"), format!("content of file {n}").as_bytes());
    }
    let gone = volume.lookup(Ino::ROOT, b"small 3").unwrap().ino;
    let tasks = volume.plan_coding(8, true);
    assert_eq!(tasks.len(), 1, "one bundle");
    volume.unlink(Ino::ROOT, b"small 3").unwrap();
    volume.forget(gone);
    let coded = tasks.into_iter().map(|t| volume.code(t)).collect();
    volume.commit_coded(coded).unwrap();
    let backlog = volume.backlog();
    assert_eq!((backlog.files, backlog.stuck), (0, 0), "{backlog:?}");
    let five = volume.lookup(Ino::ROOT, b"small 5").unwrap().ino;
    assert_eq!(read(&volume, five, 0, 100).unwrap(), b"content of file 5");
}

/// A file that could not be coded kept its pause, up to many minutes, whoever waited after mending what was wrong.
#[test]
fn what_failed_is_tried_again_when_somebody_asks() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    let content = vec![7; 300_000];
    let ino = put(&volume, "a", &content).ino;
    let stuck = |volume: &Arc<Volume>| {
        code_all(volume, || ()).unwrap();
        volume.backlog().stuck
    };
    disk.fail_on(Fault::Open, "staging/", 0, u64::MAX, 24);
    assert_eq!(stuck(&volume), 1);
    volume.try_failed_again();
    assert_eq!(stuck(&volume), 1, "nothing was mended");
    disk.mend();
    assert_eq!(stuck(&volume), 1, "its pause is not over");
    volume.try_failed_again();
    assert_eq!((stuck(&volume), volume.backlog().files), (0, 0));
    assert_eq!(read(&volume, ino, 0, 1 << 20).unwrap(), content);
}

/// One bad byte in the last record of a snapshot, or in the header of any other, emptied the volume without a word.
#[test]
fn rot_in_a_snapshot_loses_what_it_hit_and_says_so() {
    const FILES: usize = 3000;
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    for n in 0..FILES {
        put(&volume, &format!("file {n}"), format!("content {n}").as_bytes());
    }
    code_all(&volume, || ()).unwrap();
    volume.close().unwrap();
    let disk = disk.survivor(Survival::Kernel);
    // The log was compacted: the first pack is gone, and the snapshot ends in a record of its own.
    let packs: Vec<(String, u64)> = disk.files().into_iter().filter(|(p, _)| p.starts_with("packs/")).collect();
    assert!(!packs.iter().any(|(p, _)| p.contains("0001.tpk")), "the log was not compacted: {packs:?}");
    let store: Arc<dyn Disk> = Arc::new(disk.clone());
    let survey = Survey::open(store).unwrap();
    let mut ends = Vec::new();
    for (id, _, _) in survey.packs().unwrap() {
        survey
            .walk(id, false, |offset, _, record| {
                if matches!(record, RecordSummary::SnapshotEnd { .. }) {
                    ends.push((id, offset));
                }
                Ok(())
            })
            .unwrap();
    }
    let (id, offset) = ends.pop().expect("a snapshot with its end");
    let (path, _) = packs.iter().find(|(p, _)| p.ends_with(&format!("{:04x}.tpk", id.0))).unwrap();
    let rotten = disk.survivor(Survival::Kernel);
    assert!(rotten.rot(path, offset + 9, 1));
    let (volume, recovery) =
        Volume::open(Arc::new(rotten.clone()), options(Some(MethodId::Raw)), workers.clone()).unwrap();
    assert!(!recovery.damage.is_empty(), "damage is told");
    for n in 0..FILES {
        let ino = match volume.lookup(Ino::ROOT, format!("file {n}").as_bytes()) {
            Ok(attr) => attr.ino,
            Err(e @ Error::NotFound) => panic!("file {n} is lost though only the end mark was hit: {e}"),
            Err(e) => panic!("{e}"),
        };
        assert_eq!(read(&volume, ino, 0, 100).unwrap(), format!("content {n}").as_bytes());
    }
}

/// What a file is after a cut: its bytes, or none when it has no name.
fn after_cut(disk: &SimDisk, workers: &Arc<Workers>, name: &str) -> Option<Vec<u8>> {
    let volume = reopen(&disk.survivor(Survival::Synced), workers);
    match volume.lookup(Ino::ROOT, name.as_bytes()) {
        Ok(attr) => Some(read(&volume, attr.ino, 0, attr.size + 1).unwrap()),
        Err(Error::NotFound) => None,
        Err(e) => panic!("{e}"),
    }
}

/// The staging file of a removed or emptied file went before the log that said so was on disk: a power cut in between
/// brought the file back as zeros, though it had been synced.
#[test]
fn old_bytes_stay_until_the_log_is_on_disk() {
    let workers = Arc::new(Workers::new(1));
    let old = vec![b'o'; 10_000];
    for empties in [false, true] {
        for later in 1..6 {
            let disk = fresh();
            let volume = reopen(&disk, &workers);
            let ino = put(&volume, "file", &old).ino;
            volume.fsync(ino, false).unwrap();
            if empties {
                let open = OpenFor { read: true, write: true, append: false, truncate: true };
                let handle = volume.open_file(ino, open).unwrap().handle;
                volume.write(ino, handle, 0, b"new").unwrap();
                volume.release(ino, handle).unwrap();
            } else {
                volume.unlink(Ino::ROOT, b"file").unwrap();
                volume.forget(ino);
            }
            let other = put(&volume, "other", b"of another file").ino;
            disk.cut_power_at_sync(disk.syncs() + later);
            let synced = volume.fsync(other, false).is_ok();
            let found = after_cut(&disk, &workers, "file");
            let right = match found.as_deref() {
                None => !empties,
                Some(bytes) => bytes == old || (empties && (bytes.is_empty() || bytes == b"new")),
            };
            assert!(
                right,
                "empties {empties}, cut {later} syncs later: {:?}",
                found.map(|f| (f.len(), f.first().copied()))
            );
            if synced {
                break;
            }
        }
    }
}

#[test]
fn staging_of_removed_and_emptied_files_goes_with_the_next_sync() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    for name in ["removed", "emptied"] {
        put(&volume, name, &[b'x'; 10_000]);
    }
    let (removed, emptied) =
        (volume.lookup(Ino::ROOT, b"removed").unwrap().ino, volume.lookup(Ino::ROOT, b"emptied").unwrap().ino);
    volume.unlink(Ino::ROOT, b"removed").unwrap();
    volume.forget(removed);
    volume.setattr(emptied, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    volume.flush().unwrap();
    let left: Vec<(String, u64)> =
        disk.files().into_iter().filter(|(p, n)| p.starts_with("staging/") && *n > 0).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Cells of a file were coded while its size was no promise yet: after a power cut they lay beyond its end.
#[test]
fn coded_cells_of_a_file_that_was_never_synced_are_inside_it() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    let mut dice = common::Dice::new(1);
    let noise: Vec<u8> = (0..300_000).map(|_| dice.roll(256) as u8).collect();
    put(&volume, "noise", &noise);
    let tasks = volume.plan_coding(1, true);
    let coded = tasks.into_iter().map(|t| volume.code(t)).collect();
    volume.commit_coded(coded).unwrap();
    let left = disk.survivor(Survival::Synced);
    let volume = reopen(&left, &workers);
    let attr = volume.lookup(Ino::ROOT, b"noise").unwrap();
    let found = read(&volume, attr.ino, 0, 300_000).unwrap();
    assert!(found.len() > 60_000 && noise.starts_with(&found), "{} bytes", found.len());
    code_all(&volume, || ()).unwrap();
    volume.close().unwrap();
    drop(volume);
    let report = tersefs::tools::fsck(Arc::new(left.survivor(Survival::Kernel)), false, &mut |_, _| ()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// A pack that a power cut left without its first record was called damaged for ever.
#[test]
fn a_pack_cut_off_at_its_making_is_no_damage() {
    let workers = Arc::new(Workers::new(1));
    for later in 1..8 {
        let disk = fresh();
        let volume = reopen(&disk, &workers);
        put(&volume, "file", b"some bytes");
        disk.cut_power_at_sync(disk.syncs() + later);
        let _ = code_all(&volume, || ());
        for seed in 0..8 {
            let left = disk.survivor(Survival::Random(seed));
            let volume = reopen(&left, &workers);
            volume.close().unwrap();
            let end = left.survivor(Survival::Kernel);
            let report = tersefs::tools::fsck(Arc::new(end), false, &mut |_, _| ()).unwrap();
            let packs: Vec<_> = report.problems.iter().filter(|p| p.what.contains("first record")).collect();
            assert!(packs.is_empty(), "cut {later}, seed {seed}: {packs:?}");
        }
    }
}

/// After the death of a process the log may be in the kernel only. The next process took it for durable.
#[test]
fn a_sync_after_a_kill_covers_what_the_killed_process_wrote() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    volume.mkdir(Ino::ROOT, b"directory", 0o755, &CALLER).unwrap();
    drop(volume);
    let volume = reopen(&disk, &workers);
    volume.fsync_dir(Ino::ROOT).unwrap();
    let volume = reopen(&disk.survivor(Survival::Synced), &workers);
    assert!(volume.lookup(Ino::ROOT, b"directory").is_ok(), "a name was synced and is lost");
}

/// Half of a write on a full disk lay behind the end of the file and showed when the file grew.
#[test]
fn bytes_of_a_failed_write_do_not_show() {
    const ENOSPC: i32 = 28;
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    let ino = put(&volume, "file", b"12345").ino;
    let open = OpenFor { read: true, write: true, append: false, truncate: false };
    let handle = volume.open_file(ino, open).unwrap().handle;
    disk.fail_at(Fault::Write, disk.writes() + 1, ENOSPC);
    assert!(matches!(volume.write(ino, handle, 5, &[b'x'; 1000]), Err(Error::NoSpace)));
    volume.setattr(ino, &SetAttr { size: Some(2000), ..SetAttr::default() }).unwrap();
    let mut expected = b"12345".to_vec();
    expected.resize(2000, 0);
    assert!(read(&volume, ino, 0, 2000).unwrap() == expected);
}

/// A file on a real disk, which the kernel can be given: the volume, the directory, and how to mount again.
fn on_real_disk() -> (tempfile::TempDir, Arc<Volume>) {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = RealDisk::open(dir.path(), true).unwrap();
    Store::create(&disk, 1 << 20).unwrap();
    let volume = Volume::open(disk, options(Some(MethodId::Raw)), Arc::new(Workers::new(1))).unwrap().0;
    (dir, volume)
}

const WRITING: OpenFor = OpenFor { read: true, write: true, append: false, truncate: false };

/// What the kernel wrote by itself, to a file that was planned for coding before it was opened, went with its staging.
#[test]
fn a_file_that_the_kernel_writes_to_is_not_what_was_planned() {
    let (_dir, volume) = on_real_disk();
    let ino = put(&volume, "log", &[1; 10_000]).ino;
    let tasks = volume.plan_coding(8, true);
    assert_eq!(tasks.len(), 1);
    let coded = tasks.into_iter().map(|t| volume.code(t)).collect();
    let handle = volume.open_file(ino, WRITING).unwrap().handle;
    let file = volume.bypass(ino, handle).unwrap().expect("a file that is not coded yet");
    file.write_at(b"new", 100).unwrap();
    volume.commit_coded(coded).unwrap();
    file.write_at(b"newer", 200).unwrap();
    drop(file);
    volume.release(ino, handle).unwrap();
    let mut expected = vec![1; 10_000];
    expected[100..103].copy_from_slice(b"new");
    expected[200..205].copy_from_slice(b"newer");
    assert!(read(&volume, ino, 0, 20_000).unwrap() == expected, "staged");
    code_all(&volume, || ()).unwrap();
    assert_eq!(volume.backlog().files, 0);
    assert!(read(&volume, ino, 0, 20_000).unwrap() == expected, "coded");
}

/// A file mapped into memory through a handle that the kernel serves by itself changes after the handle was closed. It was
/// coded meanwhile, and what the program wrote went to a file without a name. Here another open file stands for the
/// mapping, which is one to the kernel.
#[test]
fn a_file_that_is_still_mapped_is_neither_coded_nor_sealed() {
    let (dir, volume) = on_real_disk();
    let ino = put(&volume, "mapped", &[1; 10_000]).ino;
    let handle = volume.open_file(ino, WRITING).unwrap().handle;
    drop(volume.bypass(ino, handle).unwrap().expect("a file that is not coded yet"));
    let staging = std::fs::read_dir(dir.path().join("staging")).unwrap().next().unwrap().unwrap().path();
    let mapping = std::fs::OpenOptions::new().write(true).open(staging).unwrap();
    volume.release(ino, handle).unwrap();
    volume.seal_quiet().unwrap();
    code_all(&volume, || ()).unwrap();
    assert_eq!(volume.report(ino).unwrap().stored_bytes, 0, "coded though it is mapped");
    std::os::unix::fs::FileExt::write_all_at(&mapping, b"new", 100).unwrap();
    let reading = OpenFor { write: false, ..WRITING };
    for _ in 0..2 {
        let opened = volume.open_file(ino, reading).unwrap();
        assert!(!opened.keep_pages, "the kernel must not trust its pages while the bytes change past them");
        volume.release(ino, opened.handle).unwrap();
    }
    drop(mapping);
    let mut expected = vec![1; 10_000];
    expected[100..103].copy_from_slice(b"new");
    volume.seal_quiet().unwrap();
    volume.seal_quiet().unwrap();
    assert!(read(&volume, ino, 0, 20_000).unwrap() == expected, "staged, under fresh seals");
    code_all(&volume, || ()).unwrap();
    assert!(volume.report(ino).unwrap().stored_bytes > 0, "coded when nobody has it any more");
    assert!(read(&volume, ino, 0, 20_000).unwrap() == expected, "coded");
}

/// The last segment of a pack rotted; the next mount cut it off and put another of the same length in its place, and the
/// file whose extent named it became another file.
#[test]
fn another_segment_never_takes_the_place_of_a_rotten_one() {
    const BYTES: usize = 100_000;
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    let first = put(&volume, "first", &[1; BYTES]).ino;
    code_all(&volume, || ()).unwrap();
    let at = volume.report(first).unwrap().segments[0].clone();
    volume.close().unwrap();
    let path = format!("packs/{:02x}/pack-{:016x}.tpk", at.pack & 0xff, at.pack);
    for offset in [at.pack_offset + 9, at.pack_offset + at.stored_bytes / 2] {
        let rotten = disk.survivor(Survival::Kernel);
        assert!(rotten.rot(&path, offset, 1));
        let volume = reopen(&rotten, &workers);
        let second = put(&volume, "second", &[2; BYTES]).ino;
        code_all(&volume, || ()).unwrap();
        assert!(matches!(read(&volume, first, 0, 10), Err(Error::Damaged { .. })), "byte {offset}");
        assert_eq!(read(&volume, second, 0, 10).unwrap(), [2; 10]);
        volume.close().unwrap();
    }
}

/// A staging file whose inode a power cut took from the log became the staging of the next new file, with its old bytes,
/// when it was kept or came back.
#[test]
fn numbers_of_a_staging_file_that_is_left_are_not_given_out() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let left = disk.open("staging/1000.5000", OpenMode::CreateNew).unwrap();
    left.write_at(b"old", 0).unwrap();
    // Beyond all numbers: nobody's, and no reason to begin again at zero.
    disk.open(&format!("staging/{}.7", u64::MAX), OpenMode::CreateNew).unwrap();
    let volume = reopen(&disk, &workers);
    let attr = put(&volume, "new", b"");
    assert_eq!(attr.ino, Ino(1001));
    let handle = volume.open_file(attr.ino, WRITING).unwrap().handle;
    volume.write(attr.ino, handle, 0, b"n").unwrap();
    let staged: Vec<String> = disk.files().into_iter().map(|(p, _)| p).filter(|p| p.starts_with("staging/")).collect();
    assert_eq!(staged.len(), 1, "{staged:?}");
    let epoch: u64 = staged[0].rsplit('.').next().unwrap().parse().unwrap();
    assert!(epoch > 5000, "{staged:?}");
}

/// Empty files were sealed together by one sync of the disk, and their staging files, which were yet to be made, taken for
/// synced with their names.
#[test]
fn a_staging_file_made_after_a_seal_is_synced_with_its_name() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    let files: Vec<Ino> = (0..20).map(|n| put_empty(&volume, &format!("empty {n}"))).collect();
    while volume.seal_quiet().unwrap() {}
    for ino in &files {
        let handle = volume.open_file(*ino, WRITING).unwrap().handle;
        volume.write(*ino, handle, 0, b"promised").unwrap();
        volume.fsync(*ino, false).unwrap();
        volume.release(*ino, handle).unwrap();
    }
    let after = reopen(&disk.survivor(Survival::Synced), &workers);
    for ino in files {
        assert_eq!(read(&after, ino, 0, 100).unwrap(), b"promised");
    }
}

/// Makes a file and writes nothing to it.
fn put_empty(volume: &Volume, name: &str) -> Ino {
    let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o644, &CALLER, WRITING).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    attr.ino
}

/// Staged bytes whose inode was lost were kept by the mount that met the damage and removed by the next one, whose log did
/// not show it any more.
#[test]
fn what_a_loss_of_metadata_left_is_kept_until_a_repair() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = reopen(&disk, &workers);
    let ino = put(&volume, "lost", b"all that is left of it").ino;
    volume.fsync(ino, false).unwrap();
    put(&volume, "later", b"x");
    volume.close().unwrap();
    drop(volume);
    // Every record that speaks of the file.
    let survey = Survey::open(Arc::new(disk.clone())).unwrap();
    for (pack, _, _) in survey.packs().unwrap() {
        let mut hit = Vec::new();
        let speaks = |ops: &[tersefs::format::MetaOp]| format!("{ops:?}").contains(&format!("Ino({ino})"));
        survey
            .walk(pack, false, |offset, _, record| {
                if let RecordSummary::Meta { ops, .. } = record
                    && speaks(&ops)
                {
                    hit.push(offset);
                }
                Ok(())
            })
            .unwrap();
        let path = format!("packs/{:02x}/pack-{:016x}.tpk", pack.0 & 0xff, pack.0);
        hit.into_iter().for_each(|offset| assert!(disk.rot(&path, offset + 40, 0x10)));
    }
    let staging = |disk: &SimDisk| disk.files().into_iter().any(|(p, _)| p.starts_with(&format!("staging/{ino}.")));
    for mount in 0..3 {
        let volume = reopen(&disk, &workers);
        assert!(volume.lookup(Ino::ROOT, b"lost").is_err(), "mount {mount}");
        put(&volume, &format!("new {mount}"), b"y");
        volume.checkpoint().unwrap();
        volume.close().unwrap();
        assert!(staging(&disk), "mount {mount} removed what was left");
    }
    let repair = FsckOptions { repair: true, ..FsckOptions::default() };
    let store: Arc<dyn Disk> = Arc::new(disk.clone());
    fsck_with(store.clone(), repair, &mut |_, _| ()).unwrap();
    let volume = reopen(&disk, &workers);
    let found = volume.lookup(Ino::ROOT, b"lost+found").unwrap().ino;
    let names = volume.readdir(found, 2, 10).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(read(&volume, names[0].ino, 0, 100).unwrap(), b"all that is left of it");
    volume.close().unwrap();
    drop(volume);
    assert!(fsck_with(store, FsckOptions::default(), &mut |_, _| ()).unwrap().problems.is_empty());
}

/// Who found a new file in the log before its creator had put it into memory made another inode of it, without the handle
/// that it was created with: the first write failed. The coder looks for staged files so, right after a mount.
#[test]
fn a_file_that_is_found_while_it_is_created_keeps_its_handle() {
    const FILES: usize = 20_000;
    let workers = Arc::new(Workers::new(1));
    let volume = reopen(&fresh(), &workers);
    let open = OpenFor { read: false, write: true, append: false, truncate: false };
    let next = AtomicU64::new(2);
    std::thread::scope(|s| {
        s.spawn(|| {
            while let ino @ 1.. = next.load(Ordering::Acquire) {
                let _ = volume.getattr(Ino(ino));
            }
        });
        for n in 0..FILES {
            let (attr, opened) = volume.create(Ino::ROOT, format!("{n}").as_bytes(), 0o644, &CALLER, open).unwrap();
            let written = volume.write(attr.ino, opened.handle, 0, b"x");
            // A scope waits for its threads, also where it fails.
            next.store(if written.is_ok() { attr.ino.0 + 1 } else { 0 }, Ordering::Release);
            assert_eq!(written.unwrap(), 1, "file {n}");
            volume.release(attr.ino, opened.handle).unwrap();
        }
        next.store(0, Ordering::Release);
    });
}

/// A stream of which some segments were coded when the daemon ended stayed closed from there on. Here it ends after each, by a kill
/// or an unmount in turn, behind opened segments and behind one that stays closed, as its blocks have far too much text.
#[test]
fn a_stream_is_opened_further_after_a_restart() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let mut dice = Dice::new(21);
    let text = [packed::prose(&mut dice, 1_000_000), vec![0; 9_000_000], packed::prose(&mut dice, 1_000_000)].concat();
    let raw = packed::gzip(&text, 6);
    let policy = Policy { decode_ms: Some(1000), ..Policy::default() };
    let mount = || open(&disk, VolumeOptions { policy, ..options(None) }, &workers).unwrap();
    let ino = put(&mount(), "stream.gz", &raw).ino;
    for n in 0.. {
        let volume = mount();
        let tasks = volume.plan_coding(1, true);
        if tasks.is_empty() {
            break;
        }
        volume.commit_coded(tasks.into_iter().map(|t| volume.code(t)).collect()).unwrap();
        if n % 2 == 0 {
            volume.close().unwrap();
        }
    }
    let volume = mount();
    let report = volume.report(ino).unwrap();
    let closed = report.segments.iter().filter(|s| s.method != "opened");
    let (n, bytes) = closed.fold((0, 0), |(n, sum), s| (n + 1, sum + s.bytes));
    assert!(report.segments.len() > n + 2 && n > 0 && bytes < 150_000, "{:#?}", report.segments);
    assert!(read(&volume, ino, 0, raw.len() as u64).unwrap() == raw);
}
