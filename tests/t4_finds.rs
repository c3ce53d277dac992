//! What random operations, crashes and rot brought to light, each as a small test of its own.

mod common;

use std::sync::Arc;

use common::{code_all, fresh, open, options, read};
use tersefs::base::{Ino, MethodId};
use tersefs::host::{Disk, RealDisk, SimDisk, Survival};
use tersefs::store::{RecordSummary, Store, Survey};
use tersefs::volume::{Attr, Caller, Error, OpenFor, SetAttr, SetTime, Time, Volume};
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
