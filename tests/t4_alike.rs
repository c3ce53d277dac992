//! What is like something in the volume is coded from it, at next to no cost, and no byte is lost by it whatever happens to what
//! it was coded from.

mod common;

use std::sync::Arc;

use common::{Dice, Files, check, code_all, fresh, gc_all, holds, open, options, packs, put, read, remove};
use tersefs::base::{ByteRange, Ino, MethodId, SegmentRef};
use tersefs::codec::Policy;
use tersefs::format::{Extent, INCOMPAT_REFERENCES, MetaOp, Reference, SegmentHeader, Stream};
use tersefs::host::{Disk, SimDisk, Survival};
use tersefs::store::{IndexEngine, RecordSummary, Store, StoreOptions, Survey};
use tersefs::tools::{self, FsckOptions, FsckReport, Kind, fsck, fsck_with};
use tersefs::volume::{Error, OpenFor, ScrubOptions, Volume, VolumeOptions};
use tersefs::workers::Workers;

const REPAIR: FsckOptions = FsckOptions { repair: true, dry_run: false, rebuild_index: false, drop_damaged: false };

/// Digits at random: they shrink to half, and repeat nothing.
fn noise(dice: &mut Dice, len: usize) -> Vec<u8> {
    (0..len).map(|_| b"0123456789abcdef"[dice.roll(16) as usize]).collect()
}

/// A tree of small files, and a few of several segments.
fn tree(seed: u64, small: usize, large: usize) -> Files {
    let mut dice = Dice::new(seed);
    let mut files = Files::new();
    for n in 0..small {
        let len = 3000 + dice.roll(20_000) as usize;
        files.insert(format!("small {n:02}"), noise(&mut dice, len));
    }
    for n in 0..large {
        let len = 500_000 + dice.roll(400_000) as usize;
        files.insert(format!("large {n:02}"), noise(&mut dice, len));
    }
    files
}

/// The next version: something is changed, put in, or taken out in every file and in every segment of it.
fn next(files: &Files, version: u64) -> Files {
    let mut dice = Dice::new(version);
    let mut change = |data: &Vec<u8>| {
        let mut data = data.clone();
        let mut at = dice.roll(2000) as usize;
        while at + 100 < data.len() {
            let gone = dice.roll(80) as usize;
            data.splice(at..at + gone, format!("version {version} at {at}").into_bytes());
            at += 50_000;
        }
        data
    };
    files.iter().map(|(name, data)| (name.clone(), change(data))).collect()
}

fn copy(volume: &Arc<Volume>, files: &Files, prefix: &str) {
    for (name, data) in files {
        put(volume, &format!("{prefix} {name}"), data).unwrap();
    }
    code_all(volume, || ()).unwrap();
}

fn clear(volume: &Arc<Volume>, files: &Files, prefix: &str) {
    for name in files.keys() {
        remove(volume, &format!("{prefix} {name}")).unwrap();
    }
    volume.flush().unwrap();
}

/// Nothing is kept decoded, and however slow a busy machine is two segments may be decoded for a read.
fn uncached(method: MethodId) -> VolumeOptions {
    let policy = Policy { only: Some(method), decode_ms: Some(3_600_000), ..Policy::default() };
    VolumeOptions { cache_bytes: Some(1), policy, ..options(Some(method)) }
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn store(disk: &SimDisk, read_only: bool) -> Store {
    let options = StoreOptions { engine: IndexEngine::Memory, read_only, peek: read_only, ..StoreOptions::default() };
    Store::open(shared(disk), options).unwrap().0
}

/// Extents of a file, by its whole name.
fn extents(disk: &SimDisk, name: &str) -> Vec<Extent> {
    let store = store(disk, true);
    let ino = store.dentry(Ino::ROOT, name.as_bytes()).unwrap().unwrap().ino;
    store.extents(ino, ByteRange { start: 0, end: u64::MAX }, 1000).unwrap()
}

fn refers(volume: &Arc<Volume>, name: &str) -> bool {
    let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
    let segments = volume.report(ino).unwrap().segments;
    assert!(!segments.is_empty());
    segments.iter().all(|s| s.reference.is_some())
}

/// A store with two versions of a tree, closed.
fn two_versions(method: MethodId, workers: &Arc<Workers>) -> (SimDisk, Files, Files) {
    let disk = fresh();
    let volume = open(&disk, uncached(method), workers).unwrap();
    let first = tree(1, 30, 2);
    copy(&volume, &first, "a");
    let second = next(&first, 2);
    copy(&volume, &second, "b");
    assert!(refers(&volume, "b small 03") && refers(&volume, "b large 00"));
    volume.close().unwrap();
    (disk.survivor(Survival::Kernel), first, second)
}

#[test]
fn the_second_version_of_a_tree_costs_what_changed() {
    let workers = Arc::new(Workers::new(1));
    for (method, small, large) in [(MethodId::Zstd, 60, 2), (MethodId::Primed, 16, 0)] {
        let disk = fresh();
        let volume = open(&disk, uncached(method), &workers).unwrap();
        let first = tree(1, small, large);
        copy(&volume, &first, "a");
        let once = packs(&volume);
        assert_eq!(store_features(&disk) & INCOMPAT_REFERENCES, 0, "older builds may open what they can read");
        let second = next(&first, 2);
        copy(&volume, &second, "b");
        let added = packs(&volume) - once;
        assert!(added * 20 < once, "{}: {once} bytes of packs, {added} for the next version", method.name());
        assert_eq!(store_features(&disk) & INCOMPAT_REFERENCES, INCOMPAT_REFERENCES);
        let status = volume.status().unwrap();
        assert!(status.referring_segments > 0 && status.referring_stored_bytes <= added, "{status:?}");
        let bytes: u64 = second.values().map(|data| data.len() as u64).sum();
        assert!(status.referring_plain_bytes * 10 > bytes * 9, "{status:?}");
        // The third is coded from what the second was, or from new segments of that: never from what refers itself.
        let third = next(&second, 3);
        copy(&volume, &third, "c");
        let added = packs(&volume) - once;
        assert!(added * 10 < once, "{}: {once} bytes of packs, {added} for two more", method.name());
        for (files, prefix) in [(&first, "a"), (&second, "b"), (&third, "c")] {
            holds(&volume, files, prefix);
        }
        volume.close().unwrap();
        check(&disk);
        drop(volume);
        let left = disk.survivor(Survival::Synced);
        for prefix in ["a", "b", "c"] {
            for e in first.keys().flat_map(|name| extents(&left, &format!("{prefix} {name}"))) {
                let coding = store(&left, true).segment_header(e.segment).unwrap().coding;
                assert_eq!(coding.reference.is_some(), e.reference.is_some());
                if let Some(r) = e.reference {
                    let of = store(&left, true).segment_header(r.segment).unwrap().coding;
                    assert!(of.reference.is_none() && Some(of.plain_hash) == coding.reference);
                    assert_eq!(of.raw_len, r.segment_bytes);
                }
            }
        }
        let volume = open(&left, uncached(method), &workers).unwrap();
        for (files, prefix) in [(&first, "a"), (&second, "b"), (&third, "c")] {
            holds(&volume, files, prefix);
        }
    }
}

fn store_features(disk: &SimDisk) -> u64 {
    Survey::open(shared(&disk.survivor(Survival::Kernel))).unwrap().superblock.incompat
}

#[test]
fn a_reference_lives_as_long_as_what_was_coded_from_it() {
    let workers = Arc::new(Workers::new(1));
    let (disk, first, second) = two_versions(MethodId::Zstd, &workers);
    let volume = open(&disk, uncached(MethodId::Zstd), &workers).unwrap();
    let both = packs(&volume);
    clear(&volume, &first, "a");
    gc_all(&volume, 50_000, || holds(&volume, &second, "b")).unwrap();
    holds(&volume, &second, "b");
    assert!(packs(&volume) * 10 > both * 8, "nothing of it is given back");
    // Content that is only kept for others is found as well, what an index that was made anew knows of it.
    let before = volume.status().unwrap().found_bytes;
    copy(&volume, &first, "c");
    holds(&volume, &first, "c");
    let found = volume.status().unwrap().found_bytes - before;
    let large: u64 =
        first.iter().filter(|(name, _)| name.starts_with("large")).map(|(_, data)| data.len() as u64).sum();
    assert_eq!(found, large);
    volume.close().unwrap();
    check(&disk);
    drop(volume);
    let volume = open(&disk.survivor(Survival::Synced), uncached(MethodId::Zstd), &workers).unwrap();
    holds(&volume, &first, "c");
    clear(&volume, &first, "c");
    clear(&volume, &second, "b");
    gc_all(&volume, u64::MAX, || ()).unwrap();
    assert!(packs(&volume) < 70_000, "and no longer: {}", packs(&volume));
}

/// Half of what shares packs with them goes, so that gc copies references and what was coded from them, in one order and the
/// other, while everything is read.
#[test]
fn gc_moves_references_and_what_was_coded_from_them() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Zstd), &workers).unwrap();
    let (mut kept, mut junk) = (Vec::new(), Vec::new());
    for n in 0..6 {
        let (files, other) = (tree(10 + n, 8, 1), tree(50 + n, 0, 3));
        copy(&volume, &other, &format!("junk {n}"));
        junk.push(other);
        copy(&volume, &files, &format!("a {n}"));
        kept.push((format!("b {n}"), next(&files, n)));
        kept.push((format!("a {n}"), files));
    }
    for (prefix, files) in kept.iter().filter(|(prefix, _)| prefix.starts_with('b')) {
        copy(&volume, files, prefix);
    }
    assert!(volume.status().unwrap().referring_segments > 12, "{:?}", volume.status());
    for (n, files) in junk.iter().enumerate() {
        clear(&volume, files, &format!("junk {n}"));
    }
    let mut turn = 0;
    let report = gc_all(&volume, 30_000, || {
        turn += 1;
        let (prefix, files) = &kept[turn % kept.len()];
        holds(&volume, files, prefix);
    })
    .unwrap();
    assert!(report.packs_deleted > 3 && report.segments_copied > 12, "{report:?}");
    kept.iter().for_each(|(prefix, files)| holds(&volume, files, prefix));
    // The next versions find what was moved.
    let before = packs(&volume);
    for (prefix, files) in kept.iter().filter(|(prefix, _)| prefix.starts_with('a')) {
        copy(&volume, &next(files, 99), &prefix.replace('a', "c"));
    }
    assert!((packs(&volume) - before) * 12 < before, "{before} and then {}", packs(&volume));
    // The originals go; then what is left is moved once more.
    for (prefix, files) in kept.iter().filter(|(prefix, _)| prefix.starts_with('a')) {
        clear(&volume, files, prefix);
    }
    gc_all(&volume, 30_000, || ()).unwrap();
    volume.close().unwrap();
    check(&disk);
    drop(volume);
    let volume = open(&disk.survivor(Survival::Synced), uncached(MethodId::Zstd), &workers).unwrap();
    kept.iter().filter(|(p, _)| p.starts_with('b')).for_each(|(prefix, files)| holds(&volume, files, prefix));
}

/// What was chosen as a reference loses its last file, or is moved by gc, between coding and commit.
#[test]
fn a_reference_may_go_before_the_commit() {
    let workers = Arc::new(Workers::new(1));
    for collect in [false, true] {
        for all in [false, true] {
            let disk = fresh();
            let volume = open(&disk, uncached(MethodId::Zstd), &workers).unwrap();
            let first = tree(3, 20, 1);
            copy(&volume, &first, "a");
            copy(&volume, &tree(4, 0, 2), "junk");
            let second = next(&first, 5);
            for (name, data) in &second {
                put(&volume, &format!("b {name}"), data).unwrap();
            }
            volume.flush().unwrap();
            let mut gone = false;
            code_all(&volume, || {
                if !std::mem::replace(&mut gone, true) {
                    clear(&volume, &tree(4, 0, 2), "junk");
                    if all {
                        clear(&volume, &first, "a");
                    }
                    if collect {
                        gc_all(&volume, 10_000, || ()).unwrap();
                    }
                }
            })
            .unwrap();
            holds(&volume, &second, "b");
            volume.close().unwrap();
            check(&disk);
            drop(volume);
            for survival in [Survival::Synced, Survival::Kernel] {
                let volume = open(&disk.survivor(survival), uncached(MethodId::Zstd), &workers).unwrap();
                holds(&volume, &second, "b");
                gc_all(&volume, 10_000, || ()).unwrap();
                holds(&volume, &second, "b");
            }
        }
    }
}

#[test]
fn files_that_were_coded_from_others_are_changed_cut_and_cloned() {
    let workers = Arc::new(Workers::new(1));
    let (disk, first, second) = two_versions(MethodId::Zstd, &workers);
    let volume = open(&disk, uncached(MethodId::Zstd), &workers).unwrap();
    let mut changed = second.clone();
    for (n, (name, data)) in changed.iter_mut().enumerate() {
        let at = data.len() / 3;
        let ino = volume.lookup(Ino::ROOT, format!("b {name}").as_bytes()).unwrap().ino;
        let handle = volume.open_file(ino, OpenFor { write: true, ..OpenFor::default() }).unwrap().handle;
        volume.write(ino, handle, at as u64, b"changed in the middle").unwrap();
        data[at..at + 21].copy_from_slice(b"changed in the middle");
        volume.release(ino, handle).unwrap();
        if n % 3 == 0 {
            put(&volume, &format!("a {name}"), b"now something else").unwrap();
        }
    }
    volume.flush().unwrap();
    holds(&volume, &changed, "b");
    code_all(&volume, || ()).unwrap();
    holds(&volume, &changed, "b");
    for name in first.keys() {
        remove(&volume, &format!("a {name}")).unwrap();
    }
    gc_all(&volume, 20_000, || ()).unwrap();
    holds(&volume, &changed, "b");
    volume.close().unwrap();
    check(&disk);
}

fn data_path(disk: &SimDisk, at: SegmentRef) -> String {
    let survey = Survey::open(shared(disk)).unwrap();
    let (id, _, _) = survey.packs().unwrap().into_iter().find(|(id, _, _)| *id == at.pack).unwrap();
    format!("packs/{:02x}/pack-{:016x}.tpk", id.0 & 0xff, id.0)
}

fn problems(report: &FsckReport, kind: Kind) -> Vec<&str> {
    report.problems.iter().filter(|p| p.kind == kind).map(|p| p.at.as_str()).collect()
}

/// A reference that is damaged, or whose pack is gone: clear errors, by the names of all files that need it.
#[test]
fn a_lost_reference_is_told_as_damage_of_all_that_need_it() {
    let workers = Arc::new(Workers::new(1));
    let (whole, first, second) = two_versions(MethodId::Zstd, &workers);
    let r = extents(&whole, "b large 00")[0].reference.unwrap();
    let needs: Vec<String> = ["a", "b"]
        .iter()
        .flat_map(|prefix| first.keys().map(move |name| format!("{prefix} {name}")))
        .filter(|name| extents(&whole, name).iter().any(|e| e.segment == r.segment || e.reference == Some(r)))
        .collect();
    assert!(needs.len() >= 2 && needs.iter().any(|n| n.starts_with('a')) && needs.iter().any(|n| n.starts_with('b')));
    for gone in [false, true] {
        let disk = whole.survivor(Survival::Kernel);
        let path = data_path(&disk, r.segment);
        if gone {
            disk.remove(&path).unwrap();
        } else {
            assert!(disk.rot(&path, r.segment.offset + u64::from(r.segment.stored_len) / 2, 4));
        }
        let report = fsck(shared(&disk.survivor(Survival::Kernel)), false, &mut |_, _| ()).unwrap();
        let found = problems(&report, Kind::DamagedSegment);
        assert!(needs.iter().all(|name| found.contains(&format!("/{name}").as_str())), "{found:?} of {needs:?}");
        assert!(gone || found.len() == needs.len(), "{found:?} of {needs:?}");
        let bytes = |report: &FsckReport| report.problems.iter().any(|p| p.what.contains("it was coded from is lost"));
        assert!(bytes(&report) || gone, "{:?}", report.problems);
        let scrubbed =
            tools::scrub(shared(&disk.survivor(Survival::Kernel)), ScrubOptions::default(), &mut |_, _| ()).unwrap();
        let listed: Vec<&str> = scrubbed.damaged.iter().flat_map(|d| d.files.iter().map(String::as_str)).collect();
        assert!(needs.iter().all(|name| listed.contains(&format!("/{name}").as_str())), "{listed:?} of {needs:?}");
        // A repair gives nothing up by itself.
        let repaired = fsck_with(shared(&disk), REPAIR, &mut |_, _| ()).unwrap();
        assert_eq!(problems(&repaired, Kind::DamagedSegment).len(), found.len());
        let volume = open(&disk, uncached(MethodId::Zstd), &workers).unwrap();
        for (files, prefix) in [(&first, "a"), (&second, "b")] {
            for (name, data) in files {
                let name = format!("{prefix} {name}");
                let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
                match read(&volume, ino, 0, data.len() as u64 + 1) {
                    Ok(found) => assert!(found == *data && !needs.contains(&name), "{name}"),
                    Err(Error::Damaged { what, .. }) => {
                        assert!(gone || needs.contains(&name), "{name}: {what}");
                        let of_reference = what.contains(&format!("it was coded from {}", r.segment));
                        assert!(gone || name.starts_with('a') || of_reference, "{name}: {what}");
                    }
                    Err(e) => panic!("{name}: {e}"),
                }
            }
        }
        // What comes is coded without it.
        copy(&volume, &next(&first, 77), "d");
        holds(&volume, &next(&first, 77), "d");
    }
}

/// Extents that name no reference, or a wrong one: reads fail by name, and fsck finds the right one by its header.
#[test]
fn fsck_mends_extents_that_name_a_wrong_reference() {
    let workers = Arc::new(Workers::new(1));
    let (whole, _, second) = two_versions(MethodId::Zstd, &workers);
    let good = extents(&whole, "b small 03")[0];
    let r = good.reference.unwrap();
    let other = extents(&whole, "a large 01")[0];
    assert_ne!(other.segment, r.segment);
    let wrong = [
        None,
        Some(Reference { segment: other.segment, segment_bytes: other.segment_bytes }),
        Some(Reference { segment: SegmentRef { offset: r.segment.offset + 8, ..r.segment }, ..r }),
        Some(Reference { segment: good.segment, ..r }),
    ];
    for reference in wrong {
        let disk = whole.survivor(Survival::Kernel);
        {
            let store = store(&disk, false);
            let ino = store.dentry(Ino::ROOT, b"b small 03").unwrap().unwrap().ino;
            // Every extent of the segment: any of them is asked.
            let mut ops: Vec<MetaOp> = store
                .owners_of(good.segment, 1000)
                .unwrap()
                .into_iter()
                .map(|(ino, extent)| MetaOp::PutExtent { ino, extent: Extent { reference, ..extent } })
                .collect();
            ops.push(MetaOp::PutExtent { ino, extent: Extent { reference, ..good } });
            store.commit(&ops).unwrap();
            store.close().unwrap();
        }
        {
            let volume = open(&disk.survivor(Survival::Kernel), uncached(MethodId::Zstd), &workers).unwrap();
            let ino = volume.lookup(Ino::ROOT, b"b small 03").unwrap().ino;
            assert!(matches!(read(&volume, ino, 0, 100), Err(Error::Damaged { .. })), "{reference:?}");
        }
        let report = fsck(shared(&disk.survivor(Survival::Kernel)), false, &mut |_, _| ()).unwrap();
        assert!(problems(&report, Kind::WrongSegmentLength).contains(&"/b small 03"), "{:?}", report.problems);
        fsck_with(shared(&disk), REPAIR, &mut |_, _| ()).unwrap();
        check(&disk);
        let volume = open(&disk, uncached(MethodId::Zstd), &workers).unwrap();
        holds(&volume, &second, "b");
    }
}

/// All metadata is lost: segments are put together again, each with its reference, which is found by its header.
#[test]
fn what_is_left_without_metadata_is_read_from_references() {
    let workers = Arc::new(Workers::new(1));
    let (disk, first, second) = two_versions(MethodId::Zstd, &workers);
    let survey = Survey::open(shared(&disk)).unwrap();
    for (id, stream, _) in survey.packs().unwrap() {
        if stream == Some(Stream::Meta) {
            disk.remove(&format!("packs/{:02x}/pack-{:016x}.tpk", id.0 & 0xff, id.0)).unwrap();
        }
    }
    fsck_with(shared(&disk), REPAIR, &mut |_, _| ()).unwrap();
    let volume = open(&disk, uncached(MethodId::Zstd), &workers).unwrap();
    let found = volume.lookup(Ino::ROOT, b"lost+found").unwrap().ino;
    let names: Vec<Vec<u8>> = volume.readdir(found, 0, 1000).unwrap().into_iter().map(|e| e.name).collect();
    let mut wanted: Vec<&Vec<u8>> = first.values().chain(second.values()).collect();
    for name in names.iter().filter(|name| name.first() != Some(&b'.')) {
        let ino = volume.lookup(found, name).unwrap().ino;
        let bytes = read(&volume, ino, 0, 2_000_000).unwrap();
        let at = wanted.iter().position(|data| **data == bytes).expect("one of the files");
        wanted.swap_remove(at);
    }
    assert!(wanted.is_empty(), "{} files are lost", wanted.len());
    assert_eq!(volume.audit().unwrap(), [""; 0]);
}

#[test]
fn it_can_be_turned_off_and_keeps_the_time_to_decode() {
    let workers = Arc::new(Workers::new(1));
    let first = tree(6, 10, 1);
    let slow = Policy { decode_ms: Some(1), only: Some(MethodId::Primed), ..Policy::default() };
    let cases = [
        VolumeOptions { sharing: false, ..uncached(MethodId::Zstd) },
        // No segment is decoded within this.
        VolumeOptions { policy: slow, ..uncached(MethodId::Primed) },
        uncached(MethodId::Raw),
    ];
    for options in cases {
        let disk = fresh();
        let volume = open(&disk, options, &workers).unwrap();
        copy(&volume, &first, "a");
        let second = next(&first, 7);
        copy(&volume, &second, "b");
        assert_eq!(volume.status().unwrap().referring_segments, 0);
        holds(&volume, &second, "b");
        assert_eq!(store_features(&disk) & INCOMPAT_REFERENCES, 0);
    }
    // A policy of less time than two segments take shares what takes one, and codes the rest alone.
    let allows = |ms, class| {
        let policy = Policy { decode_ms: Some(ms), ..Policy::default() };
        policy.may_refer(class, 100_000, (MethodId::Primed, 100_000))
    };
    assert!(allows(3_600_000, tersefs::base::Class::Text) && !allows(1, tersefs::base::Class::Text));
}

/// Headers and extents agree after everything, and what lies in a pack says itself from what it was coded.
#[test]
fn headers_name_what_they_were_coded_from() {
    let workers = Arc::new(Workers::new(1));
    let (disk, ..) = two_versions(MethodId::Zstd, &workers);
    let mut headers: Vec<SegmentHeader> = Vec::new();
    let survey = Survey::open(shared(&disk)).unwrap();
    for (id, _, _) in survey.packs().unwrap() {
        survey
            .walk(id, false, |_, _, record| {
                if let RecordSummary::Segment { header, .. } = record {
                    headers.push(header);
                }
                Ok(())
            })
            .unwrap();
    }
    let alone: Vec<_> = headers.iter().filter(|h| h.coding.reference.is_none()).map(|h| h.coding.plain_hash).collect();
    let referring: Vec<_> = headers.iter().filter_map(|h| h.coding.reference).collect();
    assert!(!referring.is_empty() && referring.iter().all(|hash| alone.contains(hash)));
}
