//! The superblock and its copy: one of them damaged, missing or old costs nothing; both lost are made anew from packs.

mod common;

use std::sync::Arc;

use common::{fresh, open, options};
use tersefs::base::Ino;
use tersefs::format::Superblock;
use tersefs::host::{Disk, OpenMode, SimDisk, Survival};
use tersefs::store::{Error, IndexEngine, Store, StoreOptions, Survey};
use tersefs::volume::{Caller, OpenFor};
use tersefs::workers::Workers;

const BOTH: [&str; 2] = ["FORMAT", "FORMAT.copy"];

fn bytes(disk: &SimDisk, path: &str) -> Vec<u8> {
    let Ok(file) = disk.open(path, OpenMode::Read) else { return Vec::new() };
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn damage(disk: &SimDisk, path: &str, how: &str) {
    match how {
        "missing" => disk.remove(path).unwrap(),
        "cut" => disk.open(path, OpenMode::Write).unwrap().set_len(1000).unwrap(),
        "empty" => disk.open(path, OpenMode::Write).unwrap().set_len(0).unwrap(),
        "zeros" => disk.open(path, OpenMode::Write).unwrap().write_at(&[0; 4096], 0).unwrap(),
        _ => assert!(disk.rot(path, 100, 4)),
    }
}

const HOW: [&str; 5] = ["missing", "cut", "empty", "zeros", "flipped"];

fn store_options(read_only: bool) -> StoreOptions {
    StoreOptions { engine: IndexEngine::Memory, read_only, pack_bytes_max: 1 << 20, ..StoreOptions::default() }
}

/// A store with one file, closed.
fn with_file(workers: &Arc<Workers>) -> SimDisk {
    let disk = fresh();
    let volume = open(&disk, options(None), workers).unwrap();
    let caller = Caller { uid: 0, gid: 0 };
    let write = OpenFor { write: true, ..OpenFor::default() };
    let (attr, opened) = volume.create(Ino::ROOT, b"file", 0o600, &caller, write).unwrap();
    volume.write(attr.ino, opened.handle, 0, &[7; 5000]).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    common::code_all(&volume, || ()).unwrap();
    volume.close().unwrap();
    disk
}

fn reads_well(disk: &SimDisk, workers: &Arc<Workers>, case: &str) {
    let volume = open(disk, options(None), workers).unwrap_or_else(|e| panic!("{case}: {e}"));
    let attr = volume.lookup(Ino::ROOT, b"file").unwrap();
    assert_eq!(common::read(&volume, attr.ino, 0, 6000).unwrap(), [7; 5000], "{case}");
    volume.close().unwrap();
}

#[test]
fn one_of_two_is_enough_and_is_written_again() {
    let workers = Arc::new(Workers::new(1));
    let whole = with_file(&workers);
    let good = bytes(&whole, "FORMAT");
    assert_eq!(good, bytes(&whole, "FORMAT.copy"));
    for path in BOTH {
        for how in HOW {
            let case = format!("{path} {how}");
            let disk = whole.survivor(Survival::Kernel);
            damage(&disk, path, how);
            let damaged = bytes(&disk, path);
            // Looking changes nothing, and finds the store all the same.
            let (store, recovery) = Store::open(Arc::new(disk.clone()), store_options(true)).unwrap();
            // A store from before there were copies is not damaged.
            let quiet = path == "FORMAT.copy" && how == "missing";
            assert_eq!(recovery.superblock.is_empty(), quiet, "{case}: {recovery:?}");
            assert!(recovery.damage.is_empty(), "{case}: no metadata is lost");
            assert!(Survey::open(Arc::new(disk.clone())).is_ok(), "{case}");
            drop(store);
            assert_eq!(bytes(&disk, path), damaged, "{case}");
            reads_well(&disk, &workers, &case);
            for path in BOTH {
                assert_eq!(bytes(&disk, path), good, "{case}: both are good again");
            }
        }
    }
}

#[test]
fn both_lost_are_an_error_until_made_anew_from_the_packs() {
    let workers = Arc::new(Workers::new(1));
    let whole = with_file(&workers);
    for how in HOW {
        let disk = whole.survivor(Survival::Kernel);
        BOTH.iter().for_each(|path| damage(&disk, path, how));
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let error = Store::open(shared.clone(), store_options(false)).err().unwrap();
        assert!(matches!(&error, Error::Unusable(why) if why.contains("fsck --repair")), "{how}: {error}");
        assert!(Store::create(&shared, 1 << 20).is_err(), "{how}: mkfs must not take the packs for its own");
        assert!(Store::rescue_superblock(&shared, 1 << 20).unwrap());
        assert!(!Store::rescue_superblock(&shared, 1 << 20).unwrap(), "once");
        reads_well(&disk, &workers, how);
        let found = Superblock::decode(&bytes(&disk, "FORMAT")).unwrap();
        assert_eq!(found.uuid, Superblock::decode(&bytes(&whole, "FORMAT")).unwrap().uuid);
    }
    let empty: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let error = Store::open(empty.clone(), store_options(false)).err().unwrap();
    assert!(error.to_string().contains("tersefs mkfs"), "{error}");
    assert!(Store::rescue_superblock(&empty, 1 << 20).is_err());
}

/// A feature claimed is on disk, in both, whenever the call has returned; a power cut leaves a store that opens.
#[test]
fn a_feature_is_claimed_durably() {
    const FEATURE: u64 = 1 << 40;
    let claim = |disk: &SimDisk| {
        let (store, _) = Store::open(Arc::new(disk.clone()), store_options(false))?;
        store.set_compat(FEATURE)?;
        store.set_compat(FEATURE)
    };
    let before = fresh().syncs();
    let disk = fresh();
    claim(&disk).unwrap();
    for path in BOTH {
        assert_eq!(Superblock::decode(&bytes(&disk.survivor(Survival::Synced), path)).unwrap().compat, FEATURE);
    }
    let syncs = disk.syncs();
    assert!(syncs >= before + 4);
    for n in before + 1..=syncs {
        for seed in 0..4 {
            let disk = fresh();
            disk.cut_power_at_sync(n);
            assert!(claim(&disk).is_err());
            let left = disk.survivor(Survival::Random(seed));
            let (_, recovery) = Store::open(Arc::new(left.clone()), store_options(true)).unwrap();
            assert!(recovery.superblock.is_empty(), "cut {n}: no damage: {recovery:?}");
            let (store, _) = Store::open(Arc::new(left.clone()), store_options(false)).unwrap();
            assert!([0, FEATURE].contains(&store.superblock().compat));
            assert_eq!(bytes(&left, "FORMAT"), bytes(&left, "FORMAT.copy"), "cut {n}");
        }
    }
}

#[test]
fn an_unknown_feature_is_refused_even_by_the_copy() {
    let disk = fresh();
    let (store, _) = Store::open(Arc::new(disk.clone()), store_options(false)).unwrap();
    store.set_incompat(1 << 63).unwrap();
    drop(store);
    damage(&disk, "FORMAT", "flipped");
    let error = Store::open(Arc::new(disk.clone()), store_options(false)).err().unwrap();
    assert!(error.to_string().contains("newer tersefs"), "{error}");
}

#[test]
fn a_copy_that_is_not_an_older_one_is_told() {
    let (disk, other) = (fresh(), fresh());
    let strange = bytes(&other, "FORMAT");
    let mut newer = Superblock::decode(&bytes(&disk, "FORMAT")).unwrap();
    newer.compat |= 1;
    for copy in [strange, newer.encode()] {
        let disk = disk.survivor(Survival::Kernel);
        disk.open("FORMAT.copy", OpenMode::Write).unwrap().write_at(&copy, 0).unwrap();
        let (store, recovery) = Store::open(Arc::new(disk.clone()), store_options(true)).unwrap();
        assert!(recovery.superblock.iter().any(|what| what.contains("differs")), "{recovery:?}");
        assert_eq!(store.superblock().compat, 0);
    }
}
