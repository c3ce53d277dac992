//! A store that follows another: what is sent comes, all of it or none, after any cut, and nothing that is damaged.

mod common;
#[path = "common/llama.rs"]
mod llama;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Dice, Files, code_all, fresh, gc_all, holds, open, options, put, remove, shut};
use tersefs::base::Ino;
use tersefs::host::{Disk, SimDisk, Survival};
use tersefs::store::{self, Error as StoreError};
use tersefs::tools;
use tersefs::volume::{Error, OpenFor, VolumeOptions};
use tersefs::workers::Workers;

fn held(disk: &SimDisk) -> String {
    tools::held(disk).unwrap()
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// What `disk` sends to somebody who has what the list says.
fn sent(disk: &SimDisk, have: Option<&str>) -> (Vec<u8>, tools::ReplicaReport) {
    let mut out = Vec::new();
    let report = tools::send(&shared(disk), have, &mut out, &mut |_, _| ()).unwrap();
    (out, report)
}

fn receive(disk: &SimDisk, stream: &[u8]) -> Result<tools::ReplicaReport, String> {
    tools::receive(disk, &mut &stream[..], &mut |_, _| ())
}

fn read_only() -> VolumeOptions {
    VolumeOptions { read_only: true, ..options(None) }
}

/// What a volume holds is what was written, and its store is sound.
fn check(disk: &SimDisk, files: &Files, workers: &Arc<Workers>) {
    let volume = open(disk, read_only(), workers).unwrap();
    holds(&volume, files, "r");
    let names = volume.readdir(Ino::ROOT, 0, 1000).unwrap().into_iter().filter(|e| e.name.starts_with(b"r "));
    assert_eq!(names.count(), files.len(), "names");
    shut(volume);
    common::check(disk);
}

/// Writes, removes and codes some files.
fn change(disk: &SimDisk, files: &mut Files, dice: &mut Dice, workers: &Arc<Workers>) {
    let volume = open(disk, options(None), workers).unwrap();
    for _ in 0..6 {
        let name = format!("{}", dice.roll(12));
        if dice.roll(4) == 0 && files.remove(&name).is_some() {
            remove(&volume, &format!("r {name}")).unwrap();
            continue;
        }
        let len = dice.roll(60_000) as usize + 1;
        let mut data = dice.text(len);
        if dice.roll(3) == 0 {
            // What does not shrink, so that packs grow.
            data = (0..150_000).map(|_| dice.next() as u8).collect();
        }
        put(&volume, &format!("r {name}"), &data).unwrap();
        files.insert(name, data);
        if dice.roll(3) > 0 {
            code_all(&volume, || ()).unwrap();
        }
    }
    if dice.roll(2) == 0 {
        gc_all(&volume, 1 << 20, || ()).unwrap();
    }
    shut(volume);
}

#[test]
fn a_store_follows_another() {
    let workers = Arc::new(Workers::new(2));
    let (disk, replica) = (fresh(), SimDisk::new());
    let (mut files, mut dice) = (Files::new(), Dice::new(1));
    let (mut grown, mut all) = (0, 0);
    for round in 0..12 {
        change(&disk, &mut files, &mut dice, &workers);
        let have = held(&replica);
        let (stream, report) = sent(&disk, Some(&have));
        assert!(stream.len() as u64 >= report.sent_bytes);
        assert_eq!(receive(&replica, &stream).unwrap(), report, "round {round}");
        assert_eq!(
            held(&replica),
            store::list_to_text(&store::store_files(&shared(&disk)).unwrap().0),
            "round {round}"
        );
        check(&replica, &files, &workers);
        all += report.bytes;
        grown += report.sent_bytes;
        // Nothing is new.
        let (_, report) = sent(&disk, Some(&held(&replica)));
        assert_eq!(report.sent_bytes, 0, "round {round}");
    }
    assert!(grown * 10 < all * 7, "{grown} of {all} bytes were sent");
    // It cannot be written, until it is a store of its own.
    let volume = open(&replica, options(None), &workers).unwrap();
    assert!(matches!(put(&volume, "r new", b"x"), Err(Error::ReadOnly)));
    shut(volume);
    assert_eq!(store::promote(&replica).ok(), Some(true));
    let volume = open(&replica, options(None), &workers).unwrap();
    put(&volume, "r new", b"x").unwrap();
    files.insert("new".into(), b"x".to_vec());
    shut(volume);
    check(&replica, &files, &workers);
    let (stream, _) = sent(&disk, None);
    assert!(receive(&replica, &stream).unwrap_err().contains("one of its own"));
    check(&replica, &files, &workers);
}

#[test]
fn holes_of_files_that_are_not_coded_stay_holes() {
    let workers = Arc::new(Workers::new(1));
    let (disk, replica) = (fresh(), SimDisk::new());
    let volume = open(&disk, options(None), &workers).unwrap();
    put(&volume, "r sparse", b"start").unwrap();
    let ino = volume.lookup(Ino::ROOT, b"r sparse").unwrap().ino;
    let write = OpenFor { read: true, write: true, append: false, truncate: false };
    let handle = volume.open_file(ino, write).unwrap().handle;
    volume.write(ino, handle, 800_000, b"end").unwrap();
    volume.release(ino, handle).unwrap();
    shut(volume);
    let (stream, report) = sent(&disk, None);
    assert!(stream.len() < 300_000 && report.sent_bytes > 800_000, "{} {report:?}", stream.len());
    receive(&replica, &stream).unwrap();
    let mut data = b"start".to_vec();
    data.resize(800_000, 0);
    data.extend_from_slice(b"end");
    check(&replica, &BTreeMap::from([("sparse".to_string(), data)]), &workers);
}

/// A store and its follower, with the change that the follower lacks.
fn pair(workers: &Arc<Workers>) -> (SimDisk, SimDisk, Files, Files) {
    let (disk, replica) = (fresh(), SimDisk::new());
    let (mut files, mut dice) = (Files::new(), Dice::new(7));
    for _ in 0..2 {
        change(&disk, &mut files, &mut dice, workers);
    }
    receive(&replica, &sent(&disk, None).0).unwrap();
    let before = files.clone();
    for _ in 0..4 {
        change(&disk, &mut files, &mut dice, workers);
    }
    (disk, replica, before, files)
}

#[test]
fn a_cut_leaves_all_or_nothing() {
    let workers = Arc::new(Workers::new(2));
    let (disk, replica, before, after) = pair(&workers);
    let (stream, report) = sent(&disk, Some(&held(&replica)));
    assert!(report.sent_files > 1 && report.sent_bytes < report.bytes, "{report:?}");
    let (mut old, mut new, mut half) = (0, 0, 0);
    for sync in 1.. {
        let cut = replica.survivor(Survival::Kernel);
        cut.cut_power_at_sync(cut.syncs() + sync);
        if receive(&cut, &stream).is_ok() {
            break;
        }
        let all = [Survival::Synced, Survival::Random(sync), Survival::Kernel, Survival::Ordered(sync)];
        // Two of four at each sync.
        for survival in all.into_iter().skip(sync as usize % 2).step_by(2) {
            let left = cut.survivor(survival);
            match open(&left, read_only(), &workers) {
                Ok(volume) => {
                    // All of one state; which one is told by a file that differs.
                    let is_new =
                        volume.readdir(Ino::ROOT, 0, 1000).unwrap().iter().filter(|e| e.name.starts_with(b"r ")).all(
                            |e| {
                                let name = String::from_utf8_lossy(&e.name[2..]).into_owned();
                                let found = common::read(&volume, e.ino, 0, 1 << 20).unwrap();
                                after.get(&name).is_some_and(|data| *data == found)
                            },
                        );
                    shut(volume);
                    check(&left, if is_new { &after } else { &before }, &workers);
                    if is_new { new += 1 } else { old += 1 }
                }
                Err(Error::Store(StoreError::Unusable(why))) if why.contains("--finish") => {
                    assert!(store::finish(&left).unwrap());
                    check(&left, &after, &workers);
                    half += 1;
                }
                Err(e) => panic!("sync {sync} {survival:?}: {e}"),
            }
            if sync % 3 > 0 {
                continue;
            }
            // Whatever is left, the next stream brings it to the end.
            let (stream, again) = sent(&disk, Some(&held(&left)));
            assert!(again.sent_bytes <= report.sent_bytes, "{again:?}");
            receive(&left, &stream).unwrap();
            check(&left, &after, &workers);
        }
    }
    assert!(old > 3 && half > 3 && new > 0, "{old} old, {half} half, {new} new");
}

#[test]
fn a_finish_that_is_cut_off_is_finished() {
    let workers = Arc::new(Workers::new(1));
    let (disk, replica, _, after) = pair(&workers);
    let (stream, _) = sent(&disk, Some(&held(&replica)));
    // The first cut that leaves files half placed.
    let half = (1..).find_map(|sync| {
        let cut = replica.survivor(Survival::Kernel);
        cut.cut_power_at_sync(cut.syncs() + sync);
        receive(&cut, &stream).unwrap_err();
        let left = cut.survivor(Survival::Kernel);
        tools::held(&left).is_err_and(|e| e.contains("--finish")).then_some(left)
    });
    let half = half.unwrap();
    for sync in 1.. {
        let cut = half.survivor(Survival::Kernel);
        cut.cut_power_at_sync(cut.syncs() + sync);
        if store::finish(&cut).is_ok() {
            assert!(sync > 3, "the power was cut at no step");
            break;
        }
        for survival in [Survival::Synced, Survival::Ordered(sync), Survival::Random(sync)] {
            let left = cut.survivor(survival);
            store::finish(&left).unwrap();
            check(&left, &after, &workers);
        }
    }
}

#[test]
fn damaged_and_foreign_streams_change_nothing() {
    let workers = Arc::new(Workers::new(1));
    let (disk, replica, before, after) = pair(&workers);
    let (stream, _) = sent(&disk, Some(&held(&replica)));
    let mut dice = Dice::new(9);
    let step = stream.len() / 150;
    for at in (0..2000).step_by(13).chain((2000..stream.len()).step_by(step)).chain(stream.len() - 20..stream.len()) {
        let left = replica.survivor(Survival::Kernel);
        let mut bad = stream.clone();
        if dice.roll(2) == 0 {
            bad.truncate(at);
        } else {
            bad[at] ^= 1 << dice.roll(8);
        }
        let e = receive(&left, &bad).unwrap_err();
        assert!(["stream", "list"].iter().any(|word| e.contains(word)), "{at}: {e}");
        if at % 31 == 0 {
            check(&left, &before, &workers);
        }
    }
    // Made for what another has.
    let other = SimDisk::new();
    assert!(receive(&other, &stream).unwrap_err().contains("--have"));
    // Of another volume.
    let (foreign, _) = sent(&fresh(), None);
    assert!(receive(&replica, &foreign).unwrap_err().contains("follows the volume"));
    assert!(tools::send(&shared(&disk), Some("junk"), &mut Vec::new(), &mut |_, _| ()).unwrap_err().contains("--have"));
    // While somebody has it open.
    let volume = open(&replica, read_only(), &workers).unwrap();
    assert!(receive(&replica, &stream).is_err());
    shut(volume);
    check(&replica, &before, &workers);
    receive(&replica, &stream).unwrap();
    check(&replica, &after, &workers);
    // A mounted store sends nothing.
    let volume = open(&disk, options(None), &workers).unwrap();
    assert!(tools::send(&shared(&disk), None, &mut Vec::new(), &mut |_, _| ()).is_err());
    shut(volume);
    assert!(tools::send(&shared(&SimDisk::new()), None, &mut Vec::new(), &mut |_, _| ()).is_err());
}

#[test]
fn models_come_and_go_whole() {
    let workers = Arc::new(Workers::new(1));
    let (disk, replica) = (fresh(), SimDisk::new());
    receive(&replica, &sent(&disk, None).0).unwrap();
    let brought = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(brought.path(), llama::tiny().bytes()).unwrap();
    let volume = open(&disk, options(None), &workers).unwrap();
    let report = volume.add_language(brought.path(), None, &mut |_, _| ()).unwrap();
    shut(volume);
    let (stream, _) = sent(&disk, Some(&held(&replica)));
    // A part of it is no model, and no damage.
    for share in [3, 8] {
        receive(&replica, &stream[..stream.len() * share / 9]).unwrap_err();
        assert!(store::language_names(&replica).unwrap().is_empty());
        check(&replica, &Files::new(), &workers);
    }
    assert_eq!(store::promote(&replica.survivor(Survival::Kernel)).ok(), Some(true));
    receive(&replica, &sent(&disk, Some(&held(&replica))).0).unwrap();
    assert_eq!(store::language_names(&replica).unwrap()[0].to_string(), report.id);
    assert!(tools::model_verify(&replica, None, &mut |_, _| ()).unwrap().is_empty());
    let volume = open(&disk, options(None), &workers).unwrap();
    volume.remove_language(tersefs::base::ModelId::parse(&report.id).unwrap()).unwrap();
    shut(volume);
    receive(&replica, &sent(&disk, Some(&held(&replica))).0).unwrap();
    assert_eq!(replica.list("languages").unwrap(), [""; 0]);
    check(&replica, &Files::new(), &workers);
}

#[test]
fn what_a_crash_tore_is_not_sent_before_it_is_cut_off() {
    let workers = Arc::new(Workers::new(1));
    let (disk, mut files) = (fresh(), Files::new());
    change(&disk, &mut files, &mut Dice::new(3), &workers);
    let packs: Vec<(String, u64)> = disk.files().into_iter().filter(|(path, _)| path.ends_with(".tpk")).collect();
    assert!(packs.len() >= 2, "{packs:?}");
    for (path, len) in packs {
        let torn = disk.survivor(Survival::Kernel);
        // The end of the last record.
        torn.rot(&path, len - 20, 1);
        let sent = tools::send(&shared(&torn), None, &mut Vec::new(), &mut |_, _| ());
        let e = sent.expect_err(&path);
        assert!(e.contains("tore") || e.contains("is lost"), "{path}: {e}");
    }
    let volume = open(&disk, options(None), &workers).unwrap();
    shut(volume);
    let replica = SimDisk::new();
    receive(&replica, &sent(&disk, None).0).unwrap();
    check(&replica, &files, &workers);
}

#[test]
fn a_full_disk_leaves_the_follower_as_it_was() {
    let workers = Arc::new(Workers::new(1));
    let (disk, replica, before, after) = pair(&workers);
    let (stream, report) = sent(&disk, Some(&held(&replica)));
    let used: u64 = replica.files().iter().map(|(_, len)| len.div_ceil(4096) * 4096).sum();
    let mut refused = 0;
    for share in 0..12 {
        let left = replica.survivor(Survival::Kernel);
        left.set_capacity(used + 8192 + report.sent_bytes * share / 4);
        if receive(&left, &stream).is_err() {
            refused += 1;
            check(&left.survivor(Survival::Kernel), &before, &workers);
        } else {
            check(&left.survivor(Survival::Kernel), &after, &workers);
        }
    }
    assert!((2..12).contains(&refused), "{refused}");
}

#[test]
fn nothing_but_an_empty_directory_begins_to_follow() {
    let (stream, _) = sent(&fresh(), None);
    let taken = SimDisk::new();
    taken.create_dir("index").unwrap();
    let file = taken.open("index/page.html", tersefs::host::OpenMode::Create).unwrap();
    file.write_at(b"mine", 0).unwrap();
    assert!(receive(&taken, &stream).unwrap_err().contains("not empty"));
    assert_eq!(taken.files().len(), 1);
    // What follows is not made a store of its own by another way.
    let replica = SimDisk::new();
    receive(&replica, &stream[..stream.len() - 1]).unwrap_err();
    assert!(store::Store::create(&shared(&replica), 1 << 20).unwrap_err().to_string().contains("receive"));
    receive(&replica, &stream).unwrap();
    let repair = tools::FsckOptions { repair: true, ..tools::FsckOptions::default() };
    let e = tools::fsck_with(shared(&replica), repair, &mut |_, _| ()).unwrap_err();
    assert!(e.to_string().contains("--promote"), "{e}");
}
