//! Scrub: finds every kind of damage and tells it by the files that need the bytes now; keeps to its rate; goes on where
//! it was stopped; leaves out what was verified.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Dice, code_all, fresh, open, options};
use tersefs::base::{ByteRange, Ino, MethodId};
use tersefs::format::{Extent, Stream};
use tersefs::host::{Disk, OpenMode, SimDisk, Survival};
use tersefs::store::{IndexEngine, Store, StoreOptions, Survey};
use tersefs::tools;
use tersefs::volume::{self, Caller, OpenFor, ScrubOptions, ScrubReport, Volume};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const FULL: ScrubOptions = ScrubOptions { quick: false, bytes_per_s: 0, max_age_s: None };
const QUICK: ScrubOptions = ScrubOptions { quick: true, ..FULL };

fn put(volume: &Arc<Volume>, name: &str, bytes: &[u8]) -> Ino {
    let write = OpenFor { write: true, truncate: true, ..OpenFor::default() };
    let (ino, handle) = match volume.lookup(Ino::ROOT, name.as_bytes()) {
        Ok(attr) => (attr.ino, volume.open_file(attr.ino, write).unwrap().handle),
        Err(_) => {
            let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o640, &CALLER, write).unwrap();
            (attr.ino, opened.handle)
        }
    };
    volume.write(ino, handle, 0, bytes).unwrap();
    volume.release(ino, handle).unwrap();
    ino
}

fn small_packs() -> volume::VolumeOptions {
    volume::VolumeOptions { pack_bytes_max: 64 << 10, ..options(Some(MethodId::Raw)) }
}

/// Three files of several packs, of which /b was written twice.
fn base(workers: &Arc<Workers>) -> SimDisk {
    let disk = fresh();
    let volume = open(&disk, small_packs(), workers).unwrap();
    let mut dice = Dice::new(3);
    for name in ["a", "b", "c", "b"] {
        put(&volume, name, &dice.text(700_000));
        code_all(&volume, || ()).unwrap();
    }
    volume.close().unwrap();
    drop(volume);
    disk.survivor(Survival::Kernel)
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn store(disk: &SimDisk) -> Store {
    let options = StoreOptions { engine: IndexEngine::Memory, read_only: true, peek: true, ..StoreOptions::default() };
    Store::open(shared(disk), options).unwrap().0
}

fn extents(disk: &SimDisk, name: &str) -> Vec<Extent> {
    let store = store(disk);
    let ino = store.dentry(Ino::ROOT, name.as_bytes()).unwrap().unwrap().ino;
    store.extents(ino, ByteRange { start: 0, end: u64::MAX }, 1000).unwrap()
}

fn pack_path(id: u64) -> String {
    format!("packs/{:02x}/pack-{id:016x}.tpk", id & 0xff)
}

fn scrub(disk: &SimDisk, options: ScrubOptions) -> ScrubReport {
    tools::scrub(shared(disk), options, &mut |_, _| ()).unwrap()
}

fn files(report: &ScrubReport) -> Vec<&str> {
    let mut files: Vec<&str> = report.damaged.iter().flat_map(|d| d.files.iter().map(String::as_str)).collect();
    files.sort();
    files.dedup();
    files
}

#[test]
fn every_damage_is_told_by_the_files_that_need_the_bytes() {
    let workers = Arc::new(Workers::new(1));
    let whole = base(&workers);
    let clean = scrub(&whole.survivor(Survival::Kernel), FULL);
    assert!(clean.complete && clean.damaged.is_empty() && clean.segments > 6, "{clean:?}");
    let b = extents(&whole, "b");
    let last = b.last().unwrap().segment;
    let path = pack_path(last.pack.0);
    let edit = |f: &dyn Fn(&SimDisk)| {
        let disk = whole.survivor(Survival::Kernel);
        f(&disk);
        disk
    };
    let cases = [
        ("payload", edit(&|d| assert!(d.rot(&path, last.offset + u64::from(last.stored_len) / 2, 1)))),
        ("header", edit(&|d| assert!(d.rot(&path, last.offset + 9, 1)))),
        ("zeros", edit(&|d| d.open(&path, OpenMode::Write).unwrap().write_at(&[0; 4096], last.offset).unwrap())),
        ("cut", edit(&|d| d.open(&path, OpenMode::Write).unwrap().set_len(last.offset + 100).unwrap())),
        ("cut at a record", edit(&|d| d.open(&path, OpenMode::Write).unwrap().set_len(last.offset).unwrap())),
        ("gone", edit(&|d| d.remove(&path).unwrap())),
    ];
    for (case, disk) in &cases {
        for options in [FULL, QUICK] {
            let report = scrub(disk, options);
            assert!(report.complete && report.damaged_count > 0, "{case}: {report:?}");
            assert!(files(&report).contains(&"/b"), "{case}: {report:?}");
            // It is found again, however often it was found.
            assert_eq!(scrub(disk, options).damaged_count, report.damaged_count, "{case}");
        }
    }
    // The first version of /b: its segments are there, but no file needs them.
    let live: Vec<_> = ["a", "b", "c"].iter().flat_map(|n| extents(&whole, n)).map(|e| e.segment).collect();
    let mut dead = None;
    let survey = Survey::open(shared(&whole)).unwrap();
    for (id, _, _) in survey.packs().unwrap().into_iter().filter(|(_, s, _)| *s == Some(Stream::Data)) {
        survey
            .walk(id, false, |_, _, record| {
                if let tersefs::store::RecordSummary::Segment { at, .. } = record
                    && !live.contains(&at)
                {
                    dead.get_or_insert(at);
                }
                Ok(())
            })
            .unwrap();
    }
    if let Some(dead) = dead {
        let disk = whole.survivor(Survival::Kernel);
        assert!(disk.rot(&pack_path(dead.pack.0), dead.offset + 200, 1));
        let report = scrub(&disk, FULL);
        // At the end of a pack it may as well be a write that was cut off, so it is damage or none; but nobody's.
        assert!(report.complete && files(&report).is_empty(), "{report:?}");
    }
}

/// A record whose checksum is right and whose segment does not decode: only decoding finds it.
#[test]
fn what_was_verified_is_left_out_and_quick_is_not_full() {
    let workers = Arc::new(Workers::new(1));
    let disk = base(&workers);
    let first = scrub(&disk, QUICK);
    assert!(first.complete && first.packs > 3 && first.packs_skipped == 0);
    let young = Some(3600);
    let again = scrub(&disk, ScrubOptions { max_age_s: young, ..QUICK });
    assert_eq!((again.packs, again.packs_skipped, again.segments), (0, first.packs, 0), "{again:?}");
    let full = scrub(&disk, ScrubOptions { max_age_s: young, ..FULL });
    assert_eq!((full.packs, full.packs_skipped), (first.packs, 0), "a quick look is no full one");
    assert_eq!(scrub(&disk, ScrubOptions { max_age_s: young, ..FULL }).packs, 0);
    // New bytes in a pack are read, the others are not.
    let volume = open(&disk, small_packs(), &workers).unwrap();
    assert!(volume.scrub_status().last_full.is_some());
    put(&volume, "d", &Dice::new(9).text(5_000));
    code_all(&volume, || ()).unwrap();
    volume.close().unwrap();
    drop(volume);
    let after = scrub(&disk.survivor(Survival::Kernel), ScrubOptions { max_age_s: young, ..FULL });
    assert!(after.segments == 1 && after.packs <= 2, "{after:?}");
    // Whatever happens to what is remembered, a scrub is only longer for it.
    for bytes in [&b"{"[..], b"", b"null", &[0; 5000]] {
        let file = disk.open("scrub.json", OpenMode::Create).unwrap();
        file.set_len(0).unwrap();
        file.write_at(bytes, 0).unwrap();
        let report = scrub(&disk.survivor(Survival::Kernel), ScrubOptions { max_age_s: young, ..FULL });
        assert!(report.complete && report.packs_skipped == 0);
    }
}

#[test]
fn a_scrub_that_was_stopped_goes_on_where_it_was() {
    let workers = Arc::new(Workers::new(1));
    let disk = base(&workers);
    let whole = scrub(&disk.survivor(Survival::Kernel), QUICK);
    let store = store(&disk);
    let mut segments = 0;
    let mut rounds = 0;
    loop {
        // Stopped after the first record of each run; the memory is written at the end of it.
        let stop = AtomicBool::new(false);
        let report = volume::scrub(
            &shared(&disk),
            &store,
            &volume::library_of(&shared(&disk), &store),
            QUICK,
            false,
            &stop,
            &mut |s| {
                stop.store(s.done_bytes > 0 && s.running, Ordering::Release);
            },
        )
        .unwrap();
        segments += report.segments;
        rounds += 1;
        if report.complete {
            break;
        }
        assert!(rounds < 200, "no progress: {report:?}");
    }
    assert!(rounds > 5, "{rounds} rounds");
    assert_eq!(segments, whole.segments, "no segment is read twice, none is left out");
}

#[test]
fn a_scrub_keeps_to_its_rate() {
    let workers = Arc::new(Workers::new(1));
    let disk = base(&workers);
    let bytes = scrub(&disk.survivor(Survival::Kernel), QUICK).stored_bytes;
    let started = Instant::now();
    scrub(&disk, ScrubOptions { bytes_per_s: bytes * 2, ..QUICK });
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(450) && took < Duration::from_secs(20), "{took:?}");
}

/// A volume in use: the scrub runs beside writers and coders, sees what is damaged meanwhile, and can be stopped.
#[test]
fn a_volume_in_use_is_scrubbed() {
    let workers = Arc::new(Workers::new(1));
    let disk = base(&workers);
    let volume = open(&disk, small_packs(), &workers).unwrap();
    let scrubbing = {
        let volume = volume.clone();
        std::thread::spawn(move || (0..5).map(|_| volume.scrub(FULL).unwrap()).collect::<Vec<_>>())
    };
    let mut dice = Dice::new(5);
    for n in 0..10 {
        put(&volume, &format!("new-{}", n % 4), &dice.text(90_000));
        code_all(&volume, || ()).unwrap();
    }
    for report in scrubbing.join().unwrap() {
        assert!(report.complete && report.damaged.is_empty(), "{report:?}");
    }
    let segment = extents(&disk, "c")[0].segment;
    assert!(disk.rot(&pack_path(segment.pack.0), segment.offset + 500, 8));
    let report = volume.scrub(FULL).unwrap();
    assert_eq!(files(&report), ["/c"], "{report:?}");
    let status = volume.status().unwrap().scrub;
    assert!(!status.running && status.damaged == 1 && status.last_full.is_some());
    // Stopped: a slow one gives way at once.
    let slow = {
        let volume = volume.clone();
        std::thread::spawn(move || volume.scrub(ScrubOptions { bytes_per_s: 1, ..FULL }).unwrap())
    };
    while !volume.scrub_status().running {
        std::thread::sleep(Duration::from_millis(5));
    }
    let started = Instant::now();
    volume.stop_scrub();
    assert!(!slow.join().unwrap().complete && started.elapsed() < Duration::from_secs(5));
    volume.close().unwrap();
}
