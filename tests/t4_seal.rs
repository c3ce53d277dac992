//! Seals of staged bytes: rot in staging is an error and never data, and no crash turns good bytes into an error.

mod common;

use std::sync::Arc;

use common::{Dice, code_all, fresh, open, options, read};
use tersefs::base::{ByteRange, Ino, MethodId};
use tersefs::host::{Disk, OpenMode, SimDisk, Survival};
use tersefs::volume::{AllocateMode, Attr, Caller, Error, OpenFor, SeekFor, SetAttr, Volume};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const WRITE: OpenFor = OpenFor { read: true, write: true, append: false, truncate: false };

fn mount(disk: &SimDisk, workers: &Arc<Workers>) -> Arc<Volume> {
    open(disk, options(Some(MethodId::Raw)), workers).unwrap()
}

fn put(volume: &Volume, name: &str, data: &[u8]) -> Attr {
    let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o644, &CALLER, WRITE).unwrap();
    volume.write(attr.ino, opened.handle, 0, data).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    attr
}

fn overwrite(volume: &Volume, ino: Ino, at: u64, data: &[u8]) -> Result<(), Error> {
    let handle = volume.open_file(ino, WRITE)?.handle;
    let written = volume.write(ino, handle, at, data).map(drop);
    volume.release(ino, handle)?;
    written
}

fn seal_all(volume: &Volume) {
    while volume.seal_quiet().unwrap() {}
}

fn staging_of(disk: &SimDisk, ino: Ino) -> String {
    let prefix = format!("staging/{ino}.");
    disk.files().into_iter().map(|(path, _)| path).find(|path| path.starts_with(&prefix)).expect("a staging file")
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..len).map(|_| dice.next() as u8).collect()
}

/// What happens to a staging file below.
#[derive(Clone, Copy, Debug)]
enum Rot {
    Flip(u64),
    Zero(u64, u64),
    Cut(u64),
    Longer(u64),
    Gone,
}

fn strike(disk: &SimDisk, path: &str, rot: Rot) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    match rot {
        Rot::Flip(at) => assert!(disk.rot(path, at, 0x04)),
        Rot::Zero(at, len) => file.punch(at, len).unwrap(),
        Rot::Cut(len) => file.set_len(len).unwrap(),
        Rot::Longer(more) => file.write_at(&vec![7; more as usize], file.len().unwrap()).unwrap(),
        Rot::Gone => disk.remove(path).unwrap(),
    }
}

#[test]
fn rot_in_staging_is_an_error_and_other_grains_are_read() {
    let workers = Arc::new(Workers::new(1));
    let content = noise(1, 300_000);
    let kinds = [
        (Rot::Flip(0), Some(0)),
        (Rot::Flip(299_999), Some(4)),
        (Rot::Flip(70_000), Some(1)),
        (Rot::Zero(131_072, 65_536), Some(2)),
        (Rot::Cut(270_000), Some(4)),
        (Rot::Cut(0), None),
        (Rot::Gone, None),
    ];
    for (rot, only) in kinds {
        let disk = fresh();
        let volume = mount(&disk, &workers);
        let ino = put(&volume, "a", &content).ino;
        volume.close().unwrap();
        drop(volume);
        strike(&disk, &staging_of(&disk, ino), rot);
        let volume = mount(&disk, &workers);
        assert_eq!(volume.getattr(ino).unwrap().size, 300_000, "{rot:?}");
        for grain in 0..5u64 {
            let (start, end) = (grain * 65_536, ((grain + 1) * 65_536).min(300_000));
            let got = read(&volume, ino, start, end - start);
            if only.is_none_or(|bad| bad == grain) {
                assert!(matches!(got, Err(Error::Damaged { .. })), "{rot:?} grain {grain}: {got:?}");
            } else {
                assert_eq!(got.unwrap(), content[start as usize..end as usize], "{rot:?} grain {grain}");
            }
        }
        // Nor does who copies by the holes of a file find one where bytes were lost.
        if let Rot::Zero(at, _) = rot {
            assert!(matches!(volume.seek(ino, at, SeekFor::Hole), Err(Error::Damaged { .. })));
            assert!(matches!(volume.seek(ino, at, SeekFor::Data), Err(Error::Damaged { .. })));
            assert_eq!(volume.seek(ino, 0, SeekFor::Data).unwrap(), 0, "what is there is found");
        }
        // The coder neither codes what is wrong nor takes what is lost for holes: the file waits, and says why.
        code_all(&volume, || ()).unwrap();
        if !matches!(rot, Rot::Gone) {
            let backlog = volume.backlog();
            assert_eq!((backlog.files, backlog.stuck), (1, 1), "{rot:?}");
            assert!(backlog.reason.unwrap().contains("sealed"), "{rot:?}");
        }
        assert!(read(&volume, ino, 0, 300_000).is_err(), "{rot:?} after coding");
        assert_eq!(volume.status().unwrap().damaged_staged, 1);
    }
}

#[test]
fn bytes_added_behind_a_sealed_file_are_not_part_of_it() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = mount(&disk, &workers);
    let content = noise(2, 100_000);
    let ino = put(&volume, "a", &content).ino;
    volume.close().unwrap();
    drop(volume);
    strike(&disk, &staging_of(&disk, ino), Rot::Longer(50_000));
    let volume = mount(&disk, &workers);
    assert_eq!(read(&volume, ino, 0, 1 << 20).unwrap(), content);
    overwrite(&volume, ino, 120_000, b"more").unwrap();
    let mut grown = content;
    grown.resize(120_000, 0);
    grown.extend_from_slice(b"more");
    assert_eq!(read(&volume, ino, 0, 1 << 20).unwrap(), grown, "what was added is no part of the file when it grows");
}

#[test]
fn every_change_takes_the_seal_off() {
    type Change = fn(&Volume, Ino, &mut Vec<u8>);
    let changes: [(&str, Change); 7] = [
        ("overwrite", |v, ino, b| {
            overwrite(v, ino, 5, b"other").unwrap();
            b[5..10].copy_from_slice(b"other");
        }),
        ("append", |v, ino, b| {
            overwrite(v, ino, b.len() as u64, b"longer").unwrap();
            b.extend_from_slice(b"longer");
        }),
        ("shorter", |v, ino, b| {
            v.setattr(ino, &SetAttr { size: Some(70_000), ..SetAttr::default() }).unwrap();
            b.truncate(70_000);
        }),
        ("longer", |v, ino, b| {
            v.setattr(ino, &SetAttr { size: Some(250_000), ..SetAttr::default() }).unwrap();
            b.resize(250_000, 0);
        }),
        ("emptied", |v, ino, b| {
            v.setattr(ino, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
            b.clear();
        }),
        ("punched", |v, ino, b| {
            v.allocate(ino, AllocateMode::Punch, ByteRange::at(65_536, 65_536)).unwrap();
            b[65_536..131_072].fill(0);
        }),
        ("reserved", |v, ino, b| {
            v.allocate(ino, AllocateMode::Extend, ByteRange::at(0, 300_000)).unwrap();
            b.resize(300_000, 0);
        }),
    ];
    let workers = Arc::new(Workers::new(1));
    for (name, change) in changes {
        let disk = fresh();
        let volume = mount(&disk, &workers);
        let mut content = noise(3, 200_000);
        let ino = put(&volume, "a", &content).ino;
        seal_all(&volume);
        change(&volume, ino, &mut content);
        assert_eq!(read(&volume, ino, 0, 1 << 20).unwrap(), content, "{name}");
        seal_all(&volume);
        volume.close().unwrap();
        drop(volume);
        let volume = mount(&disk, &workers);
        assert_eq!(read(&volume, ino, 0, 1 << 20).unwrap(), content, "{name} after a remount");
        code_all(&volume, || ()).unwrap();
        assert_eq!((volume.backlog().files, read(&volume, ino, 0, 1 << 20).unwrap()), (0, content), "{name} coded");
    }
}

/// The old bytes were synced and sealed; the write after them was not. Whatever the disk kept of it, a read gives bytes.
#[test]
fn no_power_cut_makes_an_error_of_good_bytes() {
    let workers = Arc::new(Workers::new(1));
    let (old, new) = (noise(4, 200_000), noise(5, 90_000));
    let run = |cut: Option<u64>| {
        let disk = fresh();
        let volume = mount(&disk, &workers);
        let ino = put(&volume, "a", &old).ino;
        volume.fsync(ino, false).unwrap();
        seal_all(&volume);
        volume.flush().unwrap();
        let before = disk.syncs();
        if let Some(n) = cut {
            disk.cut_power_at_sync(before + n);
        }
        let done = overwrite(&volume, ino, 60_000, &new).and_then(|()| volume.fsync(ino, false));
        (disk.clone(), ino, done.is_ok(), disk.syncs() - before)
    };
    let (_, _, whole, syncs) = run(None);
    assert!(whole && syncs >= 2, "taking the seal off is a sync of its own");
    for cut in (1..=syncs).map(Some).chain([None]) {
        let (disk, ino, whole, _) = run(cut);
        let mut images = vec![Survival::Synced, Survival::Kernel];
        images.extend((0..20).flat_map(|seed| [Survival::Random(seed), Survival::Ordered(seed)]));
        for image in images {
            let volume = mount(&disk.survivor(image), &workers);
            let got = read(&volume, ino, 0, 1 << 20).unwrap_or_else(|e| panic!("cut {cut:?}, {image:?}: {e}"));
            let fits = got.iter().enumerate().all(|(at, byte)| {
                let newer = at.checked_sub(60_000).and_then(|n| new.get(n));
                (*byte == old[at] && !(whole && newer.is_some())) || newer == Some(byte)
            });
            assert!(got.len() == old.len() && fits, "cut {cut:?}, {image:?}");
        }
    }
}

#[test]
fn sparse_files_are_sealed_by_what_they_hold() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = mount(&disk, &workers);
    let data = noise(6, 10_000);
    let (attr, opened) = volume.create(Ino::ROOT, b"sparse", 0o644, &CALLER, WRITE).unwrap();
    for at in [1u64 << 21, 1 << 33, 1 << 42] {
        volume.write(attr.ino, opened.handle, at, &data).unwrap();
    }
    volume.release(attr.ino, opened.handle).unwrap();
    volume.close().unwrap();
    drop(volume);
    let path = staging_of(&disk, attr.ino);
    assert!(disk.rot(&path, (1 << 33) + 77, 1));
    let volume = mount(&disk, &workers);
    assert_eq!(read(&volume, attr.ino, 1 << 42, 10_000).unwrap(), data);
    assert_eq!(read(&volume, attr.ino, 1 << 30, 100).unwrap(), [0; 100]);
    assert!(read(&volume, attr.ino, 1 << 33, 10_000).is_err());
}
