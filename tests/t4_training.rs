//! Priors that a volume learns from its own files: they pay, they are durable before they are named, and no byte depends
//! on anything that can get lost with one of their files.

mod common;

use std::sync::Arc;

use common::{Dice, code_all, fresh, gc_all, open, options, read, shut};
use tersefs::base::{Ino, MethodId};
use tersefs::codec::{DECODE_MS_MAX, Policy};
use tersefs::host::{Disk, OpenMode, SimDisk, Survival};
use tersefs::store::{Error as StoreError, IndexEngine, Store, StoreOptions};
use tersefs::tools;
use tersefs::volume::{Caller, OpenFor, ScrubOptions, Volume, VolumeOptions};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const FILES: u64 = 40;
const FILE_BYTES: usize = 120_000;

/// Text of words that no prior of the program has seen; the same words in every file of a volume.
fn words(seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut out = Vec::new();
    while out.len() < FILE_BYTES {
        let word = dice.roll(3000);
        out.extend_from_slice(
            format!("qx{:x}{} ", word * 7919 + 99_991, if word.is_multiple_of(7) { "\n" } else { "" }).as_bytes(),
        );
    }
    out
}

/// However slow the machine is now.
fn patient(only: Option<MethodId>) -> VolumeOptions {
    VolumeOptions { policy: Policy { only, decode_ms: Some(DECODE_MS_MAX), ..Policy::default() }, ..options(only) }
}

fn put(volume: &Volume, n: u64) {
    put_bytes(volume, &format!("f{n}"), &words(n));
}

fn put_bytes(volume: &Volume, name: &str, bytes: &[u8]) -> Ino {
    let open = OpenFor { read: false, write: true, append: false, truncate: false };
    let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o644, &CALLER, open).unwrap();
    volume.write(attr.ino, opened.handle, 0, bytes).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    attr.ino
}

fn holds(volume: &Arc<Volume>, files: impl Iterator<Item = u64>) {
    for n in files {
        let ino = volume.lookup(Ino::ROOT, format!("f{n}").as_bytes()).unwrap().ino;
        assert!(read(volume, ino, 0, 1 << 20).unwrap() == words(n), "file {n}");
    }
}

fn store(disk: &SimDisk) -> Store {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open(disk, StoreOptions { engine: IndexEngine::Memory, ..StoreOptions::default() }).unwrap().0
}

fn flip(disk: &SimDisk, path: &str) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 100).unwrap();
    file.write_at(&[byte[0] ^ 1], 100).unwrap();
}

/// Files that wait for coding teach as well as others: whoever stops coding, copies and trains has all coded from the prior.
#[test]
fn what_is_not_coded_yet_teaches_too() {
    let workers = Arc::new(Workers::new(2));
    let volume = open(&fresh(), patient(Some(MethodId::Primed)), &workers).unwrap();
    for n in 0..FILES {
        put(&volume, n);
    }
    let report = volume.train(false).unwrap();
    assert!(report.samples > 100 && report.classes.iter().any(|class| class.prior.is_some()), "{report:?}");
}

/// Files that repeat a part of others are coded from them, and after training anew from the same ones.
#[test]
fn what_was_coded_from_another_is_coded_anew_from_it() {
    let workers = Arc::new(Workers::new(2));
    let disk = fresh();
    let volume = open(&disk, patient(Some(MethodId::Primed)), &workers).unwrap();
    for n in 0..FILES {
        put(&volume, n);
    }
    code_all(&volume, || ()).unwrap();
    let mixed = |n: u64| [&words(n)[10_000..60_000], &words(n + 1000)[..70_000]].concat();
    let files: Vec<(u64, Ino)> = (0..6).map(|n| (n, put_bytes(&volume, &format!("mixed{n}"), &mixed(n)))).collect();
    code_all(&volume, || ()).unwrap();
    let refers = |volume: &Arc<Volume>, ino: Ino| -> (bool, u64) {
        let segments = volume.report(ino).unwrap().segments;
        (segments.iter().any(|s| s.reference.is_some()), segments.iter().map(|s| s.stored_bytes).sum())
    };
    let before: Vec<(bool, u64)> = files.iter().map(|(_, ino)| refers(&volume, *ino)).collect();
    assert!(before.iter().filter(|(refers, _)| *refers).count() >= 5, "{before:?}");
    assert!(volume.train(false).unwrap().classes.iter().any(|class| class.prior.is_some()));
    let mut run = volume.plan_recode(3);
    while !run.is_done() {
        volume.recode_step(&mut run).unwrap();
    }
    assert_eq!(run.report.unreadable, 0);
    volume.flush().unwrap();
    gc_all(&volume, 1 << 20, || ()).unwrap();
    let check = |volume: &Arc<Volume>| {
        for ((n, ino), (referred, stored)) in files.iter().zip(&before) {
            assert!(read(volume, *ino, 0, 1 << 20).unwrap() == mixed(*n), "{n}");
            let (refers, now) = refers(volume, *ino);
            assert!(refers == *referred && now * 100 < stored * 97, "{n}: {now} of {stored}, {refers}");
        }
        assert_eq!(volume.audit().unwrap(), [""; 0]);
    };
    check(&volume);
    holds(&volume, 0..FILES);
    shut(volume);
    check(&open(&disk, patient(None), &workers).unwrap());
}

#[test]
fn a_volume_learns_and_what_it_had_is_coded_anew() {
    let workers = Arc::new(Workers::new(2));
    let disk = fresh();
    let volume = open(&disk, patient(Some(MethodId::Zstd)), &workers).unwrap();
    for n in 0..FILES {
        put(&volume, n);
    }
    code_all(&volume, || ()).unwrap();
    shut(volume);
    let volume = open(&disk, patient(Some(MethodId::Primed)), &workers).unwrap();
    let tried = volume.train(true).unwrap();
    assert!(volume.priors().is_empty() && disk.list("models").unwrap().is_empty(), "a dry run keeps nothing");
    let report = volume.train(false).unwrap();
    assert_eq!(tried.classes.len(), report.classes.len());
    let [class] = report.classes.as_slice() else { panic!("one class of data: {report:?}") };
    assert!(report.unreadable == 0 && class.prior.is_some(), "{report:?}");
    assert!(class.after_bytes * 100 < class.before_bytes * 97, "{class:?}");
    let [prior] = volume.priors().try_into().unwrap_or_else(|p| panic!("{p:?}"));
    assert_eq!(Some(prior.id.clone()), class.prior);

    let before = volume.status().unwrap().data_live_bytes;
    let mut run = volume.plan_recode(3);
    let mut steps = 0;
    while !run.is_done() {
        volume.recode_step(&mut run).unwrap();
        steps += 1;
        // What a loss of power in between would leave.
        let left = disk.survivor(if steps % 2 == 0 { Survival::Synced } else { Survival::Random(steps) });
        let other = open(&left, patient(None), &workers).unwrap();
        assert_eq!(other.priors().len(), 1, "on disk before it is named");
        holds(&other, [steps % FILES].into_iter());
        assert_eq!(other.audit().unwrap(), [""; 0]);
    }
    assert!(run.report.segments_recoded > 5 && run.report.unreadable == 0, "{:?}", run.report);
    assert!(run.report.after_bytes * 10 < run.report.before_bytes * 9, "{:?}", run.report);
    volume.flush().unwrap();
    gc_all(&volume, 1 << 20, || ()).unwrap();
    let after = volume.status().unwrap().data_live_bytes;
    assert!(after * 10 < before * 9, "{after} of {before}");
    // Nothing is left to gain.
    let mut again = volume.plan_recode(3);
    while !again.is_done() {
        volume.recode_step(&mut again).unwrap();
    }
    assert_eq!(again.report.segments_recoded, 0, "{:?}", again.report);
    // What comes later starts from it.
    put(&volume, FILES);
    code_all(&volume, || ()).unwrap();
    holds(&volume, 0..=FILES);
    shut(volume);

    // One of its two files goes bad: it is mended. Both: what needs it is an error that says so, and scrub names it.
    let path = format!("models/{}", prior.id);
    flip(&disk, &path);
    let volume = open(&disk, patient(None), &workers).unwrap();
    holds(&volume, [3, FILES].into_iter());
    shut(volume);
    let scrub = |disk: &SimDisk| tools::scrub(Arc::new(disk.clone()), ScrubOptions::default(), &mut |_, _| ()).unwrap();
    assert_eq!(scrub(&disk).damaged_count, 0);
    let fsck = tools::fsck(Arc::new(disk.clone()), false, &mut |_, _| ()).unwrap();
    assert!(fsck.problems.is_empty() && fsck.notes.is_empty(), "{fsck:?}");
    let good = disk.survivor(Survival::Kernel);
    flip(&disk, &path);
    flip(&disk, &format!("{path}.copy"));
    assert!(scrub(&disk).damaged.iter().any(|d| d.what.contains(&prior.id)));
    let fsck = tools::fsck(Arc::new(disk.clone()), false, &mut |_, _| ()).unwrap();
    assert!(fsck.problems.iter().any(|p| p.kind == tools::Kind::DamagedModel && p.what.contains(&prior.id)));
    let volume = open(&disk, patient(None), &workers).unwrap();
    let ino = volume.lookup(Ino::ROOT, b"f0").unwrap().ino;
    assert!(read(&volume, ino, 0, 100).is_err(), "never wrong bytes");
    shut(volume);
    // Put back from elsewhere it serves again.
    let mut bytes = vec![0; prior.file_bytes as usize];
    good.open(&path, OpenMode::Read).unwrap().read_at(&mut bytes, 0).unwrap();
    disk.open(&path, OpenMode::Write).unwrap().write_at(&bytes, 0).unwrap();
    let volume = open(&disk, patient(None), &workers).unwrap();
    holds(&volume, [0, 7].into_iter());
}

#[test]
fn a_model_is_on_disk_twice_when_it_is_taken_in() {
    let bytes = words(1);
    let whole = fresh();
    let syncs = {
        let store = store(&whole);
        store.add_model(&bytes).unwrap();
        whole.syncs()
    };
    let mut cuts = 0;
    for n in 1..=syncs {
        let disk = fresh();
        disk.cut_power_at_sync(n);
        let disk2: Arc<dyn Disk> = Arc::new(disk.clone());
        let Ok((store, _)) =
            Store::open(disk2, StoreOptions { engine: IndexEngine::Memory, ..StoreOptions::default() })
        else {
            continue;
        };
        if store.add_model(&bytes).is_ok() {
            continue;
        }
        cuts += 1;
        for image in [Survival::Synced, Survival::Kernel, Survival::Random(n)] {
            let left = disk.survivor(image);
            let store = self::store(&left);
            // Whole, or not there; and it can be taken in again.
            for id in store.models().unwrap() {
                assert!(store.model(id).is_ok_and(|b| b == bytes) || image != Survival::Synced);
            }
            let id = store.add_model(&bytes).unwrap();
            assert!(store.model(id).unwrap() == bytes);
            let kept = self::store(&left.survivor(Survival::Synced));
            assert!(kept.model(id).unwrap() == bytes, "durable at return");
            assert_eq!(left.list("models").unwrap().iter().filter(|n| !n.ends_with(".new")).count(), 2);
        }
    }
    assert!(cuts > 3, "{cuts} cuts prove nothing");
    let store = store(&whole);
    let [id] = store.models().unwrap().try_into().unwrap();
    flip(&whole, &format!("models/{id}.copy"));
    assert!(store.model(id).unwrap() == bytes);
    flip(&whole, &format!("models/{id}"));
    assert!(store.model(id).unwrap() == bytes, "each mends the other");
    flip(&whole, &format!("models/{id}"));
    flip(&whole, &format!("models/{id}.copy"));
    assert!(matches!(store.model(id), Err(StoreError::Unusable(why)) if why.contains(&id.to_string())));
}
