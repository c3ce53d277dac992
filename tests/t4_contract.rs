//! The table "What is promised" of the README, row by row, on a simulated disk: what a call promised at its return is there
//! in every disk that could be left, by the death of the daemon or by a loss of power.

mod common;

use std::sync::Arc;

use common::{Dice, code_all, fresh, open, options, read};
use tersefs::base::{Ino, MethodId};
use tersefs::host::{SimDisk, Survival};
use tersefs::volume::{Caller, Error, OpenFor, RenameMode, SetAttr, Volume, XattrMode};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const WRITE: OpenFor = OpenFor { read: true, write: true, append: false, truncate: false };

fn mount(disk: &SimDisk, workers: &Arc<Workers>) -> Arc<Volume> {
    open(disk, options(Some(MethodId::Raw)), workers).unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..len).map(|_| dice.next() as u8).collect()
}

/// Makes a file, written and not closed.
fn begin(volume: &Volume, name: &str, data: &[u8]) -> (Ino, tersefs::volume::HandleId) {
    let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o644, &CALLER, WRITE).unwrap();
    volume.write(attr.ino, opened.handle, 0, data).unwrap();
    (attr.ino, opened.handle)
}

fn put(volume: &Volume, name: &str, data: &[u8]) -> Ino {
    let (ino, handle) = begin(volume, name, data);
    volume.release(ino, handle).unwrap();
    ino
}

fn content(volume: &Arc<Volume>, name: &str) -> Result<Vec<u8>, Error> {
    let attr = volume.lookup(Ino::ROOT, name.as_bytes())?;
    read(volume, attr.ino, 0, attr.size)
}

/// Every disk that could be left now by a loss of power.
fn power_lost(disk: &SimDisk) -> impl Iterator<Item = SimDisk> + '_ {
    let by_chance = (0..12).flat_map(|seed| [Survival::Random(seed), Survival::Ordered(seed)]);
    [Survival::Synced, Survival::Kernel].into_iter().chain(by_chance).map(|survival| disk.survivor(survival))
}

#[test]
fn write_survives_the_death_of_the_daemon() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = mount(&disk, &workers);
    let data = noise(1, 100_000);
    begin(&volume, "open", &data);
    let left = mount(&disk.survivor(Survival::Kernel), &workers);
    assert_eq!(content(&left, "open").unwrap(), data);
}

#[test]
fn close_makes_overwrites_of_coded_ranges_survive_it_too() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = mount(&disk, &workers);
    let old = noise(2, 100_000);
    let ino = put(&volume, "coded", &old);
    assert!(code_all(&volume, || ()).unwrap() > 0);
    let handle = volume.open_file(ino, WRITE).unwrap().handle;
    volume.write(ino, handle, 5000, &[7; 3000]).unwrap();
    // close(2) waits for this, not for the release that follows.
    volume.flush_file(ino).unwrap();
    let mut new = old.clone();
    new[5000..8000].fill(7);
    assert_eq!(content(&mount(&disk.survivor(Survival::Kernel), &workers), "coded").unwrap(), new);
    // Nobody synced: a loss of power may leave the old bytes, but no others.
    for left in power_lost(&disk) {
        let got = content(&mount(&left, &workers), "coded").unwrap();
        assert!(got == new || got == old);
    }
}

#[test]
fn fsync_makes_a_file_and_its_name_durable() {
    for data_only in [false, true] {
        let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
        let volume = mount(&disk, &workers);
        let data = noise(3, 300_000);
        let (ino, handle) = begin(&volume, "synced", &data);
        volume.fsync(ino, data_only).unwrap();
        // What comes after it takes nothing back.
        volume.write(ino, handle, 300_000, &[1; 5000]).unwrap();
        for left in power_lost(&disk) {
            let got = content(&mount(&left, &workers), "synced").unwrap();
            assert!(got.len() >= 300_000 && got[..300_000] == data[..], "fdatasync: {data_only}");
        }
    }
}

#[test]
fn fsync_of_a_directory_makes_all_names_durable() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = mount(&disk, &workers);
    for name in ["moved", "removed", "linked"] {
        put(&volume, name, b"x");
    }
    volume.flush().unwrap();
    let dir = volume.mkdir(Ino::ROOT, b"dir", 0o750, &CALLER).unwrap().ino;
    volume.symlink(Ino::ROOT, b"symlink", b"some/where", &CALLER).unwrap();
    volume.rename(Ino::ROOT, b"moved", dir, b"here", RenameMode::Replace).unwrap();
    volume.unlink(Ino::ROOT, b"removed").unwrap();
    let linked = volume.lookup(Ino::ROOT, b"linked").unwrap().ino;
    volume.link(linked, dir, b"again").unwrap();
    volume.fsync_dir(Ino::ROOT).unwrap();
    for left in power_lost(&disk) {
        let left = mount(&left, &workers);
        assert_eq!(left.lookup(Ino::ROOT, b"dir").unwrap().mode, 0o750);
        let symlink = left.lookup(Ino::ROOT, b"symlink").unwrap().ino;
        assert_eq!(left.readlink(symlink).unwrap(), b"some/where");
        assert!(left.lookup(dir, b"here").is_ok() && left.lookup(Ino::ROOT, b"moved").is_err());
        assert!(left.lookup(Ino::ROOT, b"removed").is_err());
        assert_eq!((left.lookup(dir, b"again").unwrap().ino, left.getattr(linked).unwrap().nlink), (linked, 2));
    }
}

#[test]
fn names_and_attributes_are_durable_when_the_timer_has_run() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = mount(&disk, &workers);
    let ino = put(&volume, "file", b"x");
    volume.setattr(ino, &SetAttr { mode: Some(0o4711), uid: Some(9), ..SetAttr::default() }).unwrap();
    volume.setxattr(ino, b"user.a", b"value", XattrMode::Set).unwrap();
    volume.flush().unwrap();
    for left in power_lost(&disk) {
        let left = mount(&left, &workers);
        let attr = left.lookup(Ino::ROOT, b"file").unwrap();
        assert_eq!((attr.mode, attr.uid), (0o4711, 9));
        assert_eq!(left.getxattr(attr.ino, b"user.a").unwrap(), b"value");
    }
}

#[test]
fn rename_over_a_file_leaves_the_old_or_the_new_one() {
    let workers = Arc::new(Workers::new(1));
    let (old, new) = (noise(4, 70_000), noise(5, 90_000));
    let run = |cut: Option<u64>| {
        let disk = fresh();
        let volume = mount(&disk, &workers);
        let ino = put(&volume, "kept", &old);
        volume.fsync(ino, false).unwrap();
        put(&volume, "new", &new);
        let before = disk.syncs();
        if let Some(n) = cut {
            disk.cut_power_at_sync(before + n);
        }
        let done = volume.rename(Ino::ROOT, b"new", Ino::ROOT, b"kept", RenameMode::Replace);
        let done = done.and_then(|()| volume.fsync_dir(Ino::ROOT)).is_ok();
        (disk.clone(), done, disk.syncs() - before)
    };
    let (_, whole, syncs) = run(None);
    assert!(whole && syncs > 0);
    for cut in (1..=syncs).map(Some).chain([None]) {
        let (disk, done, _) = run(cut);
        for left in power_lost(&disk) {
            let got = content(&mount(&left, &workers), "kept").unwrap();
            assert!(got == new || (got == old && !done), "cut at sync {cut:?}: {} bytes", got.len());
        }
    }
}

/// Files written, overwritten, renamed and changed, none of them synced.
fn many_things(volume: &Arc<Volume>) -> Vec<(&'static str, Vec<u8>)> {
    let mut coded = noise(6, 200_000);
    let ino = put(volume, "coded", &coded);
    code_all(volume, || ()).unwrap();
    let handle = volume.open_file(ino, WRITE).unwrap().handle;
    volume.write(ino, handle, 100, &[9; 50_000]).unwrap();
    coded[100..50_100].fill(9);
    let (plain, open, moved) = (noise(7, 80_000), noise(8, 1000), noise(9, 10));
    put(volume, "plain", &plain);
    begin(volume, "open", &open);
    put(volume, "before", &moved);
    volume.rename(Ino::ROOT, b"before", Ino::ROOT, b"moved", RenameMode::Replace).unwrap();
    vec![("coded", coded), ("plain", plain), ("open", open), ("moved", moved)]
}

#[test]
fn sync_makes_everything_durable() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = mount(&disk, &workers);
    let expected = many_things(&volume);
    volume.sync().unwrap();
    for left in power_lost(&disk) {
        let left = mount(&left, &workers);
        expected.iter().for_each(|(name, data)| assert!(content(&left, name).unwrap() == *data, "{name}"));
    }
}

#[test]
fn an_unmount_makes_everything_durable() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = mount(&disk, &workers);
    let expected = many_things(&volume);
    volume.close().unwrap();
    for left in power_lost(&disk) {
        let left = mount(&left, &workers);
        expected.iter().for_each(|(name, data)| assert!(content(&left, name).unwrap() == *data, "{name}"));
    }
}
