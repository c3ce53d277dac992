//! Content that is in the volume already is not coded again, and no byte is lost by it whatever happens to what is shared.

mod common;

use std::sync::Arc;

use common::{Dice, Files, check, code_all, fresh, gc_all, holds, open, options, packed, packs, put, remove};
use tersefs::base::{Ino, MethodId};
use tersefs::codec::DECODE_MS_MAX;
use tersefs::host::Survival;
use tersefs::store::IndexEngine;
use tersefs::volume::{OpenFor, Volume, VolumeOptions};
use tersefs::workers::Workers;

/// A tree of small files, and a few of several segments.
fn tree(seed: u64) -> Files {
    let mut dice = Dice::new(seed);
    let mut files = Files::new();
    for n in 0..120 {
        let len = 600 + dice.roll(6000) as usize;
        files.insert(format!("small {n}"), dice.text(len));
    }
    for n in 0..4 {
        let len = 70_000 + dice.roll(900_000) as usize;
        files.insert(format!("large {n}"), dice.text(len));
    }
    files
}

fn copy(volume: &Arc<Volume>, files: &Files, prefix: &str) {
    for (name, data) in files {
        put(volume, &format!("{prefix} {name}"), data).unwrap();
    }
}

fn uncached(method: MethodId) -> VolumeOptions {
    VolumeOptions { cache_bytes: Some(1), ..options(Some(method)) }
}

fn bytes(files: &Files) -> u64 {
    files.values().map(|data| data.len() as u64).sum()
}

#[test]
fn a_second_copy_of_a_tree_costs_next_to_nothing() {
    let workers = Arc::new(Workers::new(1));
    for method in [MethodId::Raw, MethodId::Zstd] {
        let disk = fresh();
        let volume = open(&disk, uncached(method), &workers).unwrap();
        let files = tree(1);
        copy(&volume, &files, "a");
        code_all(&volume, || ()).unwrap();
        let first = packs(&volume);
        copy(&volume, &files, "b");
        code_all(&volume, || ()).unwrap();
        let both = packs(&volume);
        assert!((both - first) * 100 < first, "{first} bytes of packs and {} for the second copy", both - first);
        let status = volume.status().unwrap();
        assert_eq!(status.found_bytes, bytes(&files));
        assert_eq!(status.shared_plain_bytes, bytes(&files));
        assert!(status.shared_stored_bytes > first * 9 / 10, "{status:?}");
        let ino = volume.lookup(Ino::ROOT, b"b large 0").unwrap().ino;
        assert_eq!(volume.report(ino).unwrap().shared_bytes, files["large 0"].len() as u64);
        volume.checkpoint().unwrap();
        volume.close().unwrap();
        check(&disk);
        drop(volume);
        // The first copy goes, and its space with it: nothing.
        let volume = open(&disk.survivor(Survival::Synced), uncached(method), &workers).unwrap();
        holds(&volume, &files, "a");
        holds(&volume, &files, "b");
        for name in files.keys() {
            remove(&volume, &format!("a {name}")).unwrap();
        }
        volume.flush().unwrap();
        gc_all(&volume, 50_000, || ()).unwrap();
        holds(&volume, &files, "b");
        assert_eq!(volume.status().unwrap().shared_plain_bytes, 0);
        for name in files.keys() {
            remove(&volume, &format!("b {name}")).unwrap();
        }
        volume.flush().unwrap();
        gc_all(&volume, u64::MAX, || ()).unwrap();
        assert!(packs(&volume) < 70_000, "what is shared lives no longer than its files: {}", packs(&volume));
    }
}

/// A member that is longer than a segment is cut as the file alone would be, wherever in the archive it lies.
#[test]
fn a_long_member_of_an_archive_finds_the_file_itself() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, options(None), &workers).unwrap();
    let mut dice = Dice::new(61);
    let [file, a, b] = [300_000, 9_000, 3_000].map(|len| packed::prose(&mut dice, len));
    put(&volume, "file", &file).unwrap();
    code_all(&volume, || ()).unwrap();
    let first = packs(&volume);
    let archives = [
        ("tree.tar", packed::tar(&[("a", &a), ("file", &file), ("b", &b)])),
        ("tree.cpio", packed::cpio(&[("file", &file), ("a", &a)])),
        ("tree.deb", packed::ar(&[("debian-binary", b"2.0\n"), ("file", &file), ("b", &b)])),
    ];
    let archives: Files = archives.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect();
    copy(&volume, &archives, "x");
    code_all(&volume, || ()).unwrap();
    let found = volume.status().unwrap().found_bytes;
    println!("{first} bytes of packs, {} more for three archives of it, {found} bytes found", packs(&volume) - first);
    assert!(found > 3 * file.len() as u64 * 9 / 10, "{found}");
    assert!((packs(&volume) - first) * 4 < first);
    holds(&volume, &archives, "x");
}

/// An archive that was changed in places is coded from what it was, though both are opened.
#[test]
fn a_changed_archive_is_coded_from_what_it_was() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, options(None), &workers).unwrap();
    let mut dice = Dice::new(62);
    let mut texts: Vec<(String, Vec<u8>)> =
        (0..30).map(|n| (format!("file-{n}"), packed::prose(&mut dice, 4_000))).collect();
    let made = |texts: &[(String, Vec<u8>)]| {
        packed::tar(&texts.iter().map(|(name, text)| (name.as_str(), &text[..])).collect::<Vec<_>>())
    };
    let before = made(&texts);
    put(&volume, "x before", &before).unwrap();
    code_all(&volume, || ()).unwrap();
    let first = packs(&volume);
    texts.iter_mut().step_by(9).for_each(|(_, text)| drop(text.splice(100..120, *b"what was changed")));
    texts.insert(7, ("new".into(), packed::prose(&mut dice, 2_000)));
    let after = made(&texts);
    put(&volume, "x after", &after).unwrap();
    code_all(&volume, || ()).unwrap();
    println!("{first} bytes of packs, {} more for the changed one", packs(&volume) - first);
    assert!((packs(&volume) - first) * 3 < first);
    holds(&volume, &[("before".into(), before), ("after".into(), after)].into(), "x");
}

#[test]
fn copies_that_wait_together_end_in_one_segment() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let files = tree(2);
    for prefix in ["a", "b", "c"] {
        copy(&volume, &files, prefix);
    }
    code_all(&volume, || ()).unwrap();
    let status = volume.status().unwrap();
    assert_eq!(status.found_bytes, 2 * bytes(&files), "{status:?}");
    assert!(status.data_pack_bytes < bytes(&files) * 21 / 20);
    ["a", "b", "c"].iter().for_each(|prefix| holds(&volume, &files, prefix));
}

#[test]
fn sharing_can_be_turned_off_and_tiny_files_are_left_alone() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let off = VolumeOptions { sharing: false, ..uncached(MethodId::Raw) };
    let volume = open(&disk, off, &workers).unwrap();
    let files = tree(3);
    copy(&volume, &files, "a");
    copy(&volume, &files, "b");
    code_all(&volume, || ()).unwrap();
    assert_eq!(volume.status().unwrap().found_bytes, 0);
    assert!(packs(&volume) > 2 * bytes(&files));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let tiny: Files = (0..200).map(|n| (format!("{n}"), vec![b'x'; 500])).collect();
    copy(&volume, &tiny, "a");
    code_all(&volume, || ()).unwrap();
    assert_eq!(volume.status().unwrap().found_bytes, 0);
    holds(&volume, &tiny, "a");
}

/// One of many files of a bundle is not decoded for when that takes longer than coding it.
#[test]
fn a_small_file_does_not_cost_the_decode_of_a_large_segment() {
    let workers = Arc::new(Workers::new(1));
    let volume = open(&fresh(), uncached(MethodId::Raw), &workers).unwrap();
    let files = tree(4);
    copy(&volume, &files, "a");
    code_all(&volume, || ()).unwrap();
    let decodes = volume.status().unwrap().decodes;
    put(&volume, "one", &files["small 5"][..]).unwrap();
    code_all(&volume, || ()).unwrap();
    let status = volume.status().unwrap();
    assert!(files["small 5"].len() < 4096 && status.decodes == decodes && status.found_bytes == 0, "{status:?}");
    // With all its neighbours it is worth it.
    copy(&volume, &files, "b");
    code_all(&volume, || ()).unwrap();
    assert_eq!(volume.status().unwrap().found_bytes, bytes(&files));
}

#[test]
fn rot_in_what_is_there_is_never_shared() {
    let workers = Arc::new(Workers::new(1));
    for large in [false, true] {
        let disk = fresh();
        let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
        let files: Files = tree(5).into_iter().filter(|(name, _)| name.starts_with("large") == large).collect();
        copy(&volume, &files, "a");
        code_all(&volume, || ()).unwrap();
        volume.close().unwrap();
        drop(volume);
        let disk = disk.survivor(Survival::Kernel);
        // Every pack of segments rots in its first segment, behind the header.
        let largest = disk.files().into_iter().filter(|(p, _)| p.starts_with("packs/")).max_by_key(|(_, len)| *len);
        let (path, len) = largest.unwrap();
        for at in (30_000..len).step_by(40_000) {
            assert!(disk.rot(&path, at, 0x10));
        }
        let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
        copy(&volume, &files, "b");
        code_all(&volume, || ()).unwrap();
        holds(&volume, &files, "b");
        let status = volume.status().unwrap();
        assert!(status.quarantined > 0 || !large, "{status:?}");
        // And what was coded instead is what is found from now on.
        copy(&volume, &files, "c");
        code_all(&volume, || ()).unwrap();
        holds(&volume, &files, "c");
        assert!(volume.status().unwrap().found_bytes >= bytes(&files), "large: {large}");
    }
}

/// The last owner of a segment goes, or gc moves it, between the comparison and the commit.
#[test]
fn what_was_found_may_go_before_the_commit() {
    let workers = Arc::new(Workers::new(1));
    for method in [MethodId::Raw, MethodId::Zstd] {
        for collect in [false, true] {
            let disk = fresh();
            let volume = open(&disk, uncached(method), &workers).unwrap();
            let files = tree(6);
            copy(&volume, &files, "a");
            code_all(&volume, || ()).unwrap();
            copy(&volume, &files, "b");
            volume.flush().unwrap();
            let mut gone = false;
            code_all(&volume, || {
                if !std::mem::replace(&mut gone, true) {
                    for name in files.keys() {
                        remove(&volume, &format!("a {name}")).unwrap();
                    }
                    if collect {
                        gc_all(&volume, 10_000, || ()).unwrap();
                    }
                }
            })
            .unwrap();
            holds(&volume, &files, "b");
            volume.close().unwrap();
            check(&disk);
            drop(volume);
            let volume = open(&disk.survivor(Survival::Synced), uncached(method), &workers).unwrap();
            holds(&volume, &files, "b");
        }
    }
}

/// Entries move with their segments: after gc copied them, and after it put what was left of bundles together.
#[test]
fn what_gc_moved_is_found_where_it_is() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let mut files = Files::new();
    for seed in 70..75 {
        files.extend(tree(seed).into_iter().map(|(name, data)| (format!("{seed} {name}"), data)));
    }
    copy(&volume, &files, "a");
    code_all(&volume, || ()).unwrap();
    let number = |name: &str| name.rsplit(' ').next().and_then(|n| n.parse::<u32>().ok()).unwrap();
    let gone: Vec<String> = files.keys().filter(|name| number(name) % 4 > 0).cloned().collect();
    for name in &gone {
        remove(&volume, &format!("a {name}")).unwrap();
        files.remove(name);
    }
    volume.flush().unwrap();
    let report = gc_all(&volume, 50_000, || ()).unwrap();
    assert!(report.packs_deleted > 0 && report.segments_copied > 0 && report.segments_recoded > 0, "{report:?}");
    copy(&volume, &files, "b");
    code_all(&volume, || ()).unwrap();
    assert_eq!(volume.status().unwrap().found_bytes, bytes(&files));
    holds(&volume, &files, "b");
    holds(&volume, &files, "a");
}

/// What an index made anew can learn: segments of one piece, from their headers.
#[test]
fn an_index_made_anew_knows_large_files_again() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    assert_eq!(uncached(MethodId::Raw).engine, IndexEngine::Memory, "made anew at each open");
    let files = tree(8);
    copy(&volume, &files, "a");
    code_all(&volume, || ()).unwrap();
    volume.close().unwrap();
    drop(volume);
    let volume = open(&disk.survivor(Survival::Kernel), uncached(MethodId::Raw), &workers).unwrap();
    copy(&volume, &files, "b");
    code_all(&volume, || ()).unwrap();
    let large: u64 = files.iter().filter(|(n, _)| n.starts_with("large")).map(|(_, d)| d.len() as u64).sum();
    assert_eq!(volume.status().unwrap().found_bytes, large);
    holds(&volume, &files, "b");
}

/// A file that shares is overwritten in part: the other keeps its bytes.
#[test]
fn a_shared_file_is_changed_alone() {
    let workers = Arc::new(Workers::new(1));
    let volume = open(&fresh(), uncached(MethodId::Zstd), &workers).unwrap();
    let mut files = tree(9);
    copy(&volume, &files, "a");
    copy(&volume, &files, "b");
    code_all(&volume, || ()).unwrap();
    let before = files.clone();
    for (name, data) in &mut files {
        let at = data.len() / 2;
        let ino = volume.lookup(Ino::ROOT, format!("b {name}").as_bytes()).unwrap().ino;
        let handle = volume.open_file(ino, OpenFor { write: true, ..OpenFor::default() }).unwrap().handle;
        volume.write(ino, handle, at as u64, b"changed").unwrap();
        volume.release(ino, handle).unwrap();
        data[at..at + 7].copy_from_slice(b"changed");
    }
    holds(&volume, &files, "b");
    code_all(&volume, || ()).unwrap();
    holds(&volume, &files, "b");
    holds(&volume, &before, "a");
}

/// Something before and in the middle of a large file moves what is behind it; its segments are found all the same.
#[test]
fn a_shifted_copy_of_a_large_file_is_found() {
    let workers = Arc::new(Workers::new(1));
    let volume = open(&fresh(), uncached(MethodId::Raw), &workers).unwrap();
    let mut dice = Dice::new(10);
    let old: Vec<u8> = (0..12_000_000).map(|_| dice.next() as u8).collect();
    let new = [b"a header", &old[..5_000_000], b"something new", &old[5_000_000..], b"and an end"].concat();
    let files = |data: &[u8]| Files::from([("archive".to_string(), data.to_vec())]);
    copy(&volume, &files(&old), "old");
    code_all(&volume, || ()).unwrap();
    let before = packs(&volume);
    copy(&volume, &files(&new), "new");
    code_all(&volume, || ()).unwrap();
    let added = packs(&volume) - before;
    assert!(added < 2_500_000, "{added} bytes for what is mostly there");
    holds(&volume, &files(&old), "old");
    holds(&volume, &files(&new), "new");
    let ino = volume.lookup(Ino::ROOT, b"new archive").unwrap().ino;
    let report = volume.report(ino).unwrap();
    assert!(report.segments.iter().all(|s| s.segment_bytes <= 1 << 20), "no segment is too long");
}

/// Pixels are not left over for a last segment that is too short to learn from.
#[test]
fn a_picture_ends_with_two_halves() {
    let workers = Arc::new(Workers::new(1));
    let mut patient = uncached(MethodId::Picture);
    (patient.policy.only, patient.policy.decode_ms) = (None, Some(DECODE_MS_MAX));
    let volume = open(&fresh(), patient, &workers).unwrap();
    let mut dice = Dice::new(12);
    let light = (0..1100 * 1000).map(|n| (n / 1100 / 5 + n % 1100 / 9 + dice.roll(4) as usize) as u8);
    let picture: Vec<u8> = b"P5 1100 1000 255\n".iter().copied().chain(light).collect();
    let files = Files::from([("picture".to_string(), picture.clone())]);
    copy(&volume, &files, "a");
    code_all(&volume, || ()).unwrap();
    let ino = volume.lookup(Ino::ROOT, b"a picture").unwrap().ino;
    let segments = volume.report(ino).unwrap().segments;
    assert_eq!(
        segments.iter().map(|s| s.bytes as usize).collect::<Vec<_>>(),
        [picture.len().div_ceil(2), picture.len() / 2]
    );
    assert!(segments.iter().all(|s| s.method == MethodId::Picture.name()), "{segments:?}");
    holds(&volume, &files, "a");
}

/// Coded files that are appended to and overwritten, again and again, keep the number of their segments in bounds.
#[test]
fn rewritten_files_are_put_together_again() {
    let workers = Arc::new(Workers::new(1));
    let volume = open(&fresh(), uncached(MethodId::Raw), &workers).unwrap();
    let mut dice = Dice::new(11);
    let mut data = dice.text(1_000_000);
    put(&volume, "a file", &data).unwrap();
    code_all(&volume, || ()).unwrap();
    let ino = volume.lookup(Ino::ROOT, b"a file").unwrap().ino;
    for n in 0..60 {
        let at = if n % 2 == 0 { data.len() } else { dice.roll(data.len() as u64) as usize };
        let len = 1 + dice.roll(20_000) as usize;
        let piece = dice.text(len);
        let handle = volume.open_file(ino, OpenFor { write: true, ..OpenFor::default() }).unwrap().handle;
        volume.write(ino, handle, at as u64, &piece).unwrap();
        volume.release(ino, handle).unwrap();
        let end = at + piece.len();
        data.resize(data.len().max(end), 0);
        data[at..end].copy_from_slice(&piece);
        code_all(&volume, || ()).unwrap();
    }
    let report = volume.report(ino).unwrap();
    assert!(report.segments.len() <= 20, "{} segments of {} bytes", report.segments.len(), data.len());
    let files = Files::from([("file".to_string(), data)]);
    holds(&volume, &files, "a");
}

/// Versions of small files that wait together are bundled side by side.
#[test]
fn versions_that_wait_together_cost_little() {
    let workers = Arc::new(Workers::new(1));
    let mut cost = Vec::new();
    for alike in [false, true] {
        let volume = open(&fresh(), uncached(MethodId::Zstd), &workers).unwrap();
        let mut dice = Dice::new(12);
        let files: Files = (0..80).map(|n| (format!("{n}"), noise(&mut dice, 20_000))).collect();
        let mut written = Files::new();
        for version in 0..4 {
            for (name, data) in &files {
                let mut data = if alike { data.clone() } else { noise(&mut dice, data.len()) };
                data.splice(9000..9010, format!("version {version}").into_bytes());
                written.insert(format!("{version} {name}"), data);
            }
        }
        copy(&volume, &written, "v");
        code_all(&volume, || ()).unwrap();
        holds(&volume, &written, "v");
        cost.push(packs(&volume));
    }
    assert!(cost[1] * 3 < cost[0], "{cost:?}");
}

/// Text of random digits: it shrinks by a part, and repeats nothing.
fn noise(dice: &mut Dice, len: usize) -> Vec<u8> {
    (0..len).map(|_| b"0123456789abcdef"[dice.roll(16) as usize]).collect()
}

/// Cells end anywhere, and checksums of staged bytes stand for 64 KiB each: what is left of one is still told from rot.
#[test]
fn a_sealed_file_is_coded_by_parts_that_end_anywhere() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, uncached(MethodId::Raw), &workers).unwrap();
    let files = Files::from([("file".to_string(), Dice::new(13).text(5_000_000))]);
    copy(&volume, &files, "a");
    while volume.seal_quiet().unwrap() {}
    let mut parts = 0;
    loop {
        let task = volume.plan_coding(1, true);
        if task.is_empty() {
            break;
        }
        volume.commit_coded(task.into_iter().map(|t| volume.code(t)).collect()).unwrap();
        holds(&volume, &files, "a");
        let left = disk.survivor(if parts % 2 == 0 { Survival::Synced } else { Survival::Kernel });
        holds(&open(&left, uncached(MethodId::Raw), &workers).unwrap(), &files, "a");
        check(&left);
        parts += 1;
    }
    assert!(parts > 8, "{parts}");
}
