//! Giving space of packs back: it comes back, and no byte is lost by it whatever happens meanwhile.

mod common;
#[path = "common/until.rs"]
mod until;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Dice, code_all, fresh, gc_all, open, options, put, read, remove, setting, shut};
use tersefs::base::{ByteRange, Ino, MethodId};
use tersefs::host::{Disk, SimDisk, Survival};
use tersefs::volume::{
    AllocateMode, Caller, Error, GcAction, GcRun, HotOptions, OpenFor, Volume, VolumeOptions, is_hot_copy,
};
use tersefs::workers::Workers;
use until::Until;

const CALLER: Caller = Caller { uid: 0, gid: 0 };

/// What every file must hold.
type Files = BTreeMap<String, Vec<u8>>;

fn noise(dice: &mut Dice, len: usize) -> Vec<u8> {
    (0..len).map(|_| dice.next() as u8).collect()
}

/// Large files of noise and small ones of text, coded.
fn fill(volume: &Arc<Volume>, large: usize, small: usize) -> Files {
    let mut dice = Dice::new(9);
    let mut files = Files::new();
    for n in 0..large {
        let len = 60_000 + dice.roll(120_000) as usize;
        files.insert(format!("large {n}"), noise(&mut dice, len));
    }
    for n in 0..small {
        let len = 1 + dice.roll(3000) as usize;
        files.insert(format!("small {n}"), dice.text(len));
    }
    for (n, (name, data)) in files.iter().enumerate() {
        put(volume, name, data).unwrap();
        if n % 100 == 99 {
            code_all(volume, || ()).unwrap();
        }
    }
    code_all(volume, || ()).unwrap();
    volume.flush().unwrap();
    files
}

fn holds(volume: &Arc<Volume>, files: &Files) {
    for (name, data) in files {
        let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}")).ino;
        let found = read(volume, ino, 0, data.len() as u64 + 1).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(found == *data, "{name} is not what it was");
    }
    assert_eq!(volume.audit().unwrap(), [""; 0]);
}

/// Bytes of data packs on the disk itself.
fn packs(disk: &SimDisk) -> u64 {
    disk.files().iter().filter(|(path, _)| path.starts_with("packs/")).map(|(_, bytes)| bytes).sum()
}

fn check(disk: &SimDisk) {
    let report = tersefs::tools::fsck(Arc::new(disk.survivor(Survival::Kernel)), false, &mut |_, _| ()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// Nothing is kept decoded, so that every read goes to the packs.
fn uncached(method: MethodId) -> VolumeOptions {
    VolumeOptions { cache_bytes: Some(1), ..options(Some(method)) }
}

#[test]
fn deleting_nine_tenths_gives_nine_tenths_back() {
    let workers = Arc::new(Workers::new(1));
    for method in [MethodId::Raw, MethodId::Zstd] {
        let disk = fresh();
        let volume = open(&disk, uncached(method), &workers).unwrap();
        let mut files = fill(&volume, 60, 1500);
        let before = (packs(&disk), volume.status().unwrap().data_pack_bytes);
        let mut dice = Dice::new(2);
        let gone: Vec<String> = files.keys().filter(|_| dice.roll(10) > 0).cloned().collect();
        for name in &gone {
            remove(&volume, name).unwrap();
            files.remove(name);
        }
        volume.flush().unwrap();
        let report = gc_all(&volume, 100_000, || ()).unwrap();
        assert!(report.kept.is_empty() && report.packs_deleted > 0, "{report:?}");
        assert!(report.segments_recoded > 3, "small files that were left of a bundle were put together: {report:?}");
        let status = volume.status().unwrap();
        assert!(
            status.data_pack_bytes < before.1 * 15 / 100 + 130_000,
            "{} of {} bytes are left",
            status.data_pack_bytes,
            before.1
        );
        assert_eq!((status.gc_packs_deleted, status.gc_bytes_deleted), (report.packs_deleted, report.bytes_deleted));
        holds(&volume, &files);
        volume.close().unwrap();
        assert!(packs(&disk) < before.0 * 15 / 100 + 300_000, "{} of {} on disk", packs(&disk), before.0);
        check(&disk);
        drop(volume);
        // From the packs alone, and all of it gone.
        let volume = open(&disk.survivor(Survival::Kernel), uncached(method), &workers).unwrap();
        holds(&volume, &files);
        for name in files.keys() {
            remove(&volume, name).unwrap();
        }
        gc_all(&volume, u64::MAX, || ()).unwrap();
        assert!(volume.status().unwrap().data_pack_bytes < 65_536 + 1000, "an empty volume takes next to nothing");
    }
}

#[test]
fn readers_meet_no_pack_that_is_gone() {
    let workers = Arc::new(Workers::new(2));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let files = fill(&volume, 40, 300);
    let (kept, gone): (Files, Files) =
        files.into_iter().partition(|(name, _)| name.ends_with('3') || name.ends_with('7'));
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|s| {
        for seed in 0..3 {
            let (volume, kept, stop, reads) = (&volume, &kept, &stop, &reads);
            s.spawn(move || {
                let mut dice = Dice::new(seed);
                let names: Vec<&String> = kept.keys().collect();
                while !stop.load(Ordering::Acquire) {
                    let name = dice.pick(&names).unwrap();
                    let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
                    let found = read(volume, ino, 0, 1 << 20).unwrap_or_else(|e| panic!("{name}: {e}"));
                    assert!(found == kept[*name], "{name} is not what it was");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _until = Until(&stop);
        for name in gone.keys() {
            remove(&volume, name).unwrap();
        }
        let mut deleted = 0;
        // What is left is made sparse and moved again and again.
        for round in 0..6 {
            deleted += gc_all(&volume, 50_000, || ()).unwrap().packs_deleted;
            let mut dice = Dice::new(round);
            for n in 0..25 {
                put(&volume, &format!("passing {n}"), &noise(&mut dice, 100_000)).unwrap();
            }
            code_all(&volume, || ()).unwrap();
            for n in 0..25 {
                remove(&volume, &format!("passing {n}")).unwrap();
            }
        }
        assert!(deleted > 8, "{deleted} packs deleted prove nothing");
    });
    assert!(reads.load(Ordering::Relaxed) > 50, "readers got through");
    holds(&volume, &kept);
}

#[test]
fn a_damaged_segment_keeps_its_pack() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let mut files = fill(&volume, 8, 0);
    let victim = "large 3";
    let ino = volume.lookup(Ino::ROOT, victim.as_bytes()).unwrap().ino;
    let at = volume.report(ino).unwrap().segments.remove(0);
    let path = format!("packs/{:02x}/pack-{:016x}.tpk", at.pack & 0xff, at.pack);
    assert!(disk.rot(&path, at.pack_offset + 2000, 4));
    for n in [0, 1, 2, 4, 5, 6] {
        remove(&volume, &format!("large {n}")).unwrap();
        files.remove(&format!("large {n}"));
    }
    let report = gc_all(&volume, u64::MAX, || ()).unwrap();
    assert!(report.kept.iter().any(|k| k.pack == at.pack && k.reason.contains("damaged")), "{report:?}");
    let status = volume.status().unwrap();
    assert!(status.gc_kept.iter().any(|k| k.pack == at.pack), "{:?}", status.gc_kept);
    assert!(disk.files().iter().any(|(p, _)| *p == path), "a pack with damage in it is never deleted");
    assert!(matches!(read(&volume, ino, 0, 100), Err(Error::Damaged { .. })));
    files.remove(victim);
    holds(&volume, &files);
    // Nothing is lost for good: the bits come back, and with them the file.
    assert!(disk.rot(&path, at.pack_offset + 2000, 4));
    assert!(read(&volume, ino, 0, 100).is_ok());
}

#[test]
fn a_full_disk_is_said_and_dead_packs_go_all_the_same() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let mut files = fill(&volume, 40, 0);
    for n in (0..40).filter(|n| n % 5 > 0) {
        remove(&volume, &format!("large {n}")).unwrap();
        files.remove(&format!("large {n}"));
    }
    volume.flush().unwrap();
    // Less is free than what lives of a pack takes beside the space that is kept for coding.
    disk.set_capacity(1 << 30);
    let used = (1 << 30) - disk.space().unwrap().available_bytes;
    disk.set_capacity(used + 1_200_000);
    let plan = volume.plan_gc().unwrap();
    assert!(plan.short && plan.packs.iter().all(|p| p.action == GcAction::Rewrite), "{plan:?}");
    let report = gc_all(&volume, u64::MAX, || ()).unwrap();
    assert!(report.kept.iter().any(|k| k.reason.contains("does not fit")), "{report:?}");
    assert!(!volume.status().unwrap().gc_kept.is_empty());
    holds(&volume, &files);
    for name in files.keys() {
        remove(&volume, name).unwrap();
    }
    let report = gc_all(&volume, u64::MAX, || ()).unwrap();
    assert!(report.packs_deleted > 2 && report.kept.is_empty(), "{report:?}");
    assert!(packs(&disk) < 1_300_000, "{} bytes of packs are left", packs(&disk));
}

/// A volume of many deletes, whose log is not synced, that is given back in small steps with reads, writes and coding
/// between them. What is left after a cut must hold every file that was not removed.
struct Play {
    disk: SimDisk,
    /// Files that must be there, and others that may be.
    files: Files,
    removed: Files,
    outcome: Result<(), Error>,
}

fn play(workers: &Arc<Workers>, seed: u64, prepare: impl FnOnce(&SimDisk)) -> Play {
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), workers).unwrap();
    let mut files = fill(&volume, 14, 60);
    volume.checkpoint().unwrap();
    prepare(&disk);
    let mut removed = Files::new();
    let mut dice = Dice::new(seed);
    let mut body = || -> Result<(), Error> {
        for round in 0..4 {
            let more: Files = (0..5).map(|n| (format!("more {round} {n}"), noise(&mut dice, 90_000))).collect();
            for (name, data) in &more {
                put(&volume, name, data)?;
            }
            code_all(&volume, || ())?;
            files.extend(more);
            let names: Vec<String> = files.keys().cloned().collect();
            for name in names {
                if !name.starts_with("new") && dice.roll(10) < 6 {
                    removed.insert(name.clone(), files.remove(&name).unwrap());
                    remove(&volume, &name)?;
                }
            }
            let mut run = GcRun::new(&volume.plan_gc()?);
            let mut steps = 0;
            while !run.is_done() {
                volume.gc_step(&mut run, 1 + dice.roll(100_000))?;
                steps += 1;
                if steps % 4 == 1 {
                    let name = format!("new {round} {steps}");
                    let data = noise(&mut dice, 9000);
                    put(&volume, &name, &data)?;
                    code_all(&volume, || ())?;
                    files.insert(name, data);
                }
                if steps % 7 == 3 {
                    volume.checkpoint()?;
                }
                let names: Vec<&String> = files.keys().collect();
                if let Some(name) = dice.pick(&names) {
                    let ino = volume.lookup(Ino::ROOT, name.as_bytes())?.ino;
                    assert!(read(&volume, ino, 0, 1 << 20)? == files[*name], "{name}");
                }
            }
        }
        volume.close()
    };
    let outcome = body();
    Play { disk, files, removed, outcome }
}

#[test]
fn a_power_cut_at_every_sync_loses_nothing() {
    let workers = Arc::new(Workers::new(1));
    for seed in 1..=setting("TERSEFS_RUNS").unwrap_or(2) {
        let mut start = 0;
        let whole = play(&workers, seed, |d| start = d.syncs());
        whole.outcome.expect("the script runs");
        assert!(whole.disk.syncs() > start + 30, "{} syncs prove nothing", whole.disk.syncs() - start);
        let mut cases = 0;
        for n in start + 1..=whole.disk.syncs() {
            let cut = play(&workers, seed, |d| d.cut_power_at_sync(n));
            if cut.outcome.is_ok() {
                continue;
            }
            let images = [
                Survival::Synced,
                Survival::Kernel,
                Survival::Ordered(n),
                Survival::Random(n),
                Survival::Random(n + 1000),
            ];
            for image in images {
                let case = format!("seed {seed}, sync {n}, {image:?}");
                let left = cut.disk.survivor(image);
                let volume = open(&left, uncached(MethodId::Raw), &workers).unwrap_or_else(|e| panic!("{case}: {e}"));
                let judge = |volume: &Arc<Volume>| {
                    for (name, data, must) in cut
                        .files
                        .iter()
                        .map(|(n, d)| (n, d, !n.starts_with("new")))
                        .chain(cut.removed.iter().map(|(n, d)| (n, d, false)))
                    {
                        match volume.lookup(Ino::ROOT, name.as_bytes()) {
                            Ok(attr) => {
                                let found = read(volume, attr.ino, 0, 1 << 20)
                                    .unwrap_or_else(|e| panic!("{case}: {name}: {e}"));
                                // One that was never synced may have come without its bytes.
                                assert!(found == *data || name.starts_with("new"), "{case}: {name} is not what it was");
                            }
                            Err(Error::NotFound) => assert!(!must, "{case}: {name} is lost"),
                            Err(e) => panic!("{case}: {name}: {e}"),
                        }
                    }
                };
                judge(&volume);
                // It goes on: all that is worth it is given back, and still nothing is lost.
                let report = gc_all(&volume, u64::MAX, || ()).unwrap_or_else(|e| panic!("{case}: {e}"));
                assert!(report.kept.is_empty(), "{case}: {report:?}");
                judge(&volume);
                volume.close().unwrap();
                check(&left);
                cases += 1;
            }
        }
        assert!(cases > 100, "{cases} cuts prove nothing");
    }
}

#[test]
fn cut_and_overwritten_files_are_moved_as_they_are() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let mut files = fill(&volume, 30, 0);
    let mut dice = Dice::new(77);
    let mut inos = BTreeMap::new();
    for (name, data) in files.iter_mut() {
        let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
        inos.insert(name.clone(), ino);
        // Most of each segment is punched out, and parts are overwritten and stay plain.
        for _ in 0..3 {
            let at = dice.roll(data.len() as u64 / 2);
            let len = data.len() as u64 / 3;
            volume.allocate(ino, AllocateMode::Punch, ByteRange::at(at, len)).unwrap();
            data[at as usize..(at + len) as usize].fill(0);
        }
        let open = OpenFor { read: true, write: true, append: false, truncate: false };
        let handle = volume.open_file(ino, open).unwrap().handle;
        let at = dice.roll(data.len() as u64 - 5000);
        let patch = noise(&mut dice, 5000);
        volume.write(ino, handle, at, &patch).unwrap();
        data[at as usize..at as usize + 5000].copy_from_slice(&patch);
        // Kept open, and some without a name.
        if dice.roll(3) == 0 {
            volume.unlink(Ino::ROOT, name.as_bytes()).unwrap();
        }
    }
    let report = gc_all(&volume, 60_000, || ()).unwrap();
    assert!(report.segments_recoded > 0 && report.packs_deleted > 0, "{report:?}");
    for (name, data) in &files {
        let found = read(&volume, inos[name], 0, 1 << 20).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(found == *data, "{name} is not what it was");
    }
    assert_eq!(volume.audit().unwrap(), [""; 0]);
    volume.flush().unwrap();
    for (name, data) in &files {
        assert!(read(&volume, inos[name], 0, 1 << 20).unwrap() == *data, "{name} after the flush");
    }
    volume.close().unwrap();
}

#[test]
fn what_is_shared_stays_shared() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let mut files = fill(&volume, 20, 0);
    // Each file has two copies of most of itself, one of them in two places.
    let mut copies = Files::new();
    for (name, data) in &files {
        let source = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
        for (copy, ranges) in [("first", vec![(1000, 0)]), ("second", vec![(20_000, 7), (22_000, 40_000)])] {
            let copy = format!("{copy} of {name}");
            let open = OpenFor { read: true, write: true, append: false, truncate: false };
            let (attr, opened) = volume.create(Ino::ROOT, copy.as_bytes(), 0o644, &CALLER, open).unwrap();
            let mut bytes = Vec::new();
            for (at, to) in ranges {
                let len = 8_000;
                volume.clone_range(source, at, attr.ino, opened.handle, to, len).unwrap();
                bytes.resize(bytes.len().max((to + len) as usize), 0);
                bytes[to as usize..(to + len) as usize].copy_from_slice(&data[at as usize..(at + len) as usize]);
            }
            volume.release(attr.ino, opened.handle).unwrap();
            copies.insert(copy, bytes);
        }
    }
    code_all(&volume, || ()).unwrap();
    let before = volume.status().unwrap();
    // The originals go; a part of each of their segments is still used, by two files.
    for name in std::mem::take(&mut files).keys() {
        remove(&volume, name).unwrap();
    }
    holds(&volume, &copies);
    let report = gc_all(&volume, 80_000, || ()).unwrap();
    assert!(report.packs_deleted > 1 && report.segments_copied + report.segments_recoded > 10, "{report:?}");
    let after = volume.status().unwrap();
    assert!(after.data_pack_bytes < before.data_pack_bytes * 3 / 4, "{before:?} {after:?}");
    assert!(
        after.data_pack_bytes < after.coded_plain_bytes + 100_000,
        "bytes that two files use are there once: {after:?}"
    );
    holds(&volume, &copies);
    volume.close().unwrap();
    check(&disk);
}

/// Decoded copies on disk serve what was read before, also once gc has moved it, and nothing else; they are no part of the
/// store, and make room.
#[test]
fn hot_copies_are_never_stale_and_never_in_the_way() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let with = |bytes| {
        let hot = HotOptions { bytes, slow_ms_min: 0, ..HotOptions::default() };
        open(&disk, VolumeOptions { hot, ahead: 0, ..uncached(MethodId::Zstd) }, &workers).unwrap()
    };
    let copies = || -> Vec<String> {
        let inside = |path: &str| path.strip_prefix("cache/").map(|name| assert!(is_hot_copy(name))).is_some();
        disk.files().into_iter().map(|(path, _)| path).filter(|path| inside(path)).collect()
    };
    let decodes = |volume: &Volume| volume.status().unwrap().decodes;
    let volume = with(4 << 20);
    let mut files = fill(&volume, 12, 300);
    (0..2).for_each(|_| holds(&volume, &files));
    let before = decodes(&volume);
    holds(&volume, &files);
    assert_eq!(decodes(&volume), before, "all of it has copies");
    // What gc moves keeps them; what takes the place of something else does not get those of that.
    let gone: Vec<String> = files.keys().step_by(2).cloned().collect();
    for name in &gone {
        remove(&volume, name).unwrap();
        files.remove(name);
    }
    volume.flush().unwrap();
    let report = gc_all(&volume, 100_000, || ()).unwrap();
    assert!(report.segments_copied > 0 && report.packs_deleted > 0, "{report:?}");
    let large: Files =
        files.iter().filter(|(name, _)| name.starts_with("large")).map(|(n, d)| (n.clone(), d.clone())).collect();
    holds(&volume, &large);
    assert_eq!(decodes(&volume), before, "moved segments have theirs");
    let mut dice = Dice::new(77);
    for (name, data) in &mut files {
        *data = noise(&mut dice, data.len());
        put(&volume, name, data).unwrap();
    }
    code_all(&volume, || ()).unwrap();
    (0..3).for_each(|_| holds(&volume, &files));
    check(&disk);
    // df does not count them.
    disk.set_capacity(256 << 20);
    let (total, free) = {
        let s = Disk::space(&disk).unwrap();
        (s.total_bytes, s.free_bytes)
    };
    let lent = volume.status().unwrap().hot.bytes;
    assert!(lent > 500_000 && volume.statfs().unwrap().free_bytes == free + lent, "{lent} of {free}");
    // New data comes first: there is room for it where they were.
    disk.set_capacity(total - free + (3 << 20) + (100 << 10));
    let more = noise(&mut dice, 300_000);
    put(&volume, "more", &more).unwrap();
    assert_eq!((copies().len(), volume.status().unwrap().hot.bytes), (0, 0));
    files.insert("more".into(), more);
    disk.set_capacity(1 << 40);
    code_all(&volume, || ()).unwrap();
    (0..2).for_each(|_| holds(&volume, &files));
    shut(volume);
    // A new mount finds them, and what rot has changed in them harms nobody.
    let volume = with(4 << 20);
    holds(&volume, &files);
    assert_eq!(decodes(&volume), 0);
    for path in copies() {
        assert!(disk.rot(&path, 20, 1));
    }
    holds(&volume, &files);
    let hot = volume.status().unwrap().hot;
    assert!(hot.wrong > 0 && decodes(&volume) > 0, "{hot:?}");
    shut(volume);
    // After a kill, and for a reader that may change nothing.
    let left = disk.survivor(Survival::Kernel);
    let hot = HotOptions { bytes: 4 << 20, slow_ms_min: 0, ..HotOptions::default() };
    let reader = open(&left, VolumeOptions { hot, read_only: true, ..uncached(MethodId::Zstd) }, &workers).unwrap();
    let there = left.files();
    (0..3).for_each(|_| holds(&reader, &files));
    assert!(left.files() == there && reader.status().unwrap().hot.frozen);
    shut(reader);
    // Turned off, they go.
    shut(with(0));
    assert_eq!(copies(), [""; 0]);
    check(&disk);
}
