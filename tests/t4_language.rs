//! Language models of a volume, and those of images and bytes: what they code is read back, part by part, and is read by nothing else than them.

mod common;
#[path = "common/gpt.rs"]
mod gpt;
#[path = "common/llama.rs"]
mod llama;

use std::sync::Arc;

use common::{code_all, fresh, holds, open, options, put, read, shut};
use tersefs::base::{Ino, MethodId, ModelId};
use tersefs::codec::{DECODE_MS_MAX, Policy, Tier};
use tersefs::format::INCOMPAT_LANGUAGES;
use tersefs::host::{Disk, SimDisk, Survival};
use tersefs::store::{IndexEngine, Store, StoreOptions};
use tersefs::tools;
use tersefs::volume::{Error, HotOptions, ScrubOptions, Volume, VolumeOptions, XattrMode};
use tersefs::workers::Workers;

/// Text of the words that the small model knows, which repeat as words do.
fn words(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = common::Dice::new(seed);
    let known = [" the", " and", " in", "\n", " a", "an", "thin", " hand", " then"];
    let mut out = Vec::new();
    while out.len() < len {
        let word = dice.roll(known.len() as u64) as usize;
        (0..=dice.roll(3)).for_each(|_| out.extend_from_slice(known[word].as_bytes()));
    }
    out.truncate(len);
    out
}

/// Coded with a language model where there is one, however slow it is here.
fn by_language() -> VolumeOptions {
    let policy = Policy { tier: Tier::Deep, decode_ms: Some(DECODE_MS_MAX), ..Policy::default() };
    VolumeOptions { policy: Policy { only: Some(MethodId::Language), ..policy }, ..options(None) }
}

/// The file of a model on this machine.
fn brought(model: &llama::File) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), model.bytes()).unwrap();
    file
}

/// Another model than `tiny`.
fn other() -> llama::File {
    let mut file = llama::tiny();
    file.metadata.retain(|(name, _)| name != "llama.rope.freq_base");
    file.float("llama.rope.freq_base", 20_000.0);
    file
}

fn add(volume: &Volume, model: &llama::File) -> ModelId {
    let report = volume.add_language(brought(model).path(), None, &mut |_, _| ()).unwrap();
    ModelId::parse(&report.id).unwrap()
}

fn ino(volume: &Volume, name: &str) -> Ino {
    volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino
}

/// Methods of the segments of a file.
fn methods(volume: &Volume, name: &str) -> Vec<String> {
    volume.report(ino(volume, name)).unwrap().segments.into_iter().map(|s| s.method).collect()
}

fn features(disk: &SimDisk) -> u64 {
    let disk: Arc<dyn Disk> = Arc::new(disk.survivor(Survival::Kernel));
    let options = StoreOptions { engine: IndexEngine::Memory, read_only: true, ..StoreOptions::default() };
    Store::open(disk, options).unwrap().0.superblock().incompat
}

#[test]
fn text_is_coded_by_the_model_and_read_back_part_by_part() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(2)));
    let volume = open(&disk, by_language(), &workers).unwrap();
    assert_eq!(features(&disk) & INCOMPAT_LANGUAGES, 0, "older builds may open what they can read");
    let id = add(&volume, &llama::tiny());
    assert_eq!(features(&disk) & INCOMPAT_LANGUAGES, INCOMPAT_LANGUAGES);
    let text = words(1, 150_000);
    put(&volume, "f text", &text).unwrap();
    code_all(&volume, || ()).unwrap();
    let report = volume.report(ino(&volume, "f text")).unwrap();
    assert!(report.segments.iter().all(|s| s.method == "language" && s.part_bytes < s.segment_bytes), "{report:?}");
    shut(volume);
    // Cold: only what is asked for is decoded, and other readers share in it.
    let volume = open(&disk, by_language(), &workers).unwrap();
    let file = ino(&volume, "f text");
    let decoded = |volume: &Volume| volume.status().unwrap().decodes;
    assert_eq!(read(&volume, file, 70_000, 10).unwrap(), &text[70_000..70_010]);
    assert_eq!(decoded(&volume), 1);
    assert_eq!(read(&volume, file, 70_000, 10).unwrap(), &text[70_000..70_010]);
    assert_eq!(decoded(&volume), 1, "it is in the cache");
    std::thread::scope(|scope| {
        for n in 0..8u64 {
            let (volume, text) = (&volume, &text);
            scope.spawn(move || {
                for k in 0..6u64 {
                    let (from, len) = ((n * 7919 + k * 20_011) % 140_000, 1 + n * 3001);
                    let to = text.len().min((from + len) as usize);
                    assert!(read(volume, file, from, len).unwrap() == text[from as usize..to], "{from} {len}");
                }
            });
        }
    });
    assert!(read(&volume, file, 0, 1 << 20).unwrap() == text);
    assert_eq!(volume.languages().unwrap().iter().map(|l| l.id.clone()).collect::<Vec<_>>(), [id.to_string()]);
    shut(volume);
    let report = tools::fsck(Arc::new(disk.clone()), false, &mut |_, _| ()).unwrap();
    assert!(report.problems.is_empty() && report.notes.is_empty(), "{report:?}");
}

#[test]
fn the_tier_deep_takes_it_where_it_is_smaller_and_recode_brings_it_and_takes_it_away() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let policy = Policy { decode_ms: Some(DECODE_MS_MAX), ..Policy::of(Tier::Deep) };
    let deep = || VolumeOptions { policy, ..options(None) };
    let volume = open(&disk, deep(), &workers).unwrap();
    add(&volume, &llama::tiny());
    // A model of noise does not beat a trained predictor.
    put(&volume, "f deep", &words(2, 40_000)).unwrap();
    code_all(&volume, || ()).unwrap();
    assert!(methods(&volume, "f deep").iter().all(|m| m == "strong"), "{:?}", methods(&volume, "f deep"));
    shut(volume);
    // Asked for alone it takes over what is there, and gives it back when it is asked for no more.
    let volume = open(&disk, by_language(), &workers).unwrap();
    let recode = |volume: &Volume, percent: u32| {
        let mut run = volume.plan_recode(percent);
        while !run.is_done() {
            volume.recode_step(&mut run).unwrap();
        }
        run.report.segments_recoded
    };
    assert_eq!(recode(&volume, 0), 0, "what would grow stays");
    put(&volume, "f language", &words(3, 40_000)).unwrap();
    code_all(&volume, || ()).unwrap();
    assert_eq!(methods(&volume, "f language"), ["language"]);
    volume.setxattr(ino(&volume, "f language"), b"user.tersefs.tier", b"balanced", XattrMode::Set).unwrap();
    assert_eq!(recode(&volume, 3), 1);
    assert!(methods(&volume, "f language").iter().all(|m| m == "primed"), "{:?}", methods(&volume, "f language"));
    let files = [("language".to_string(), words(3, 40_000)), ("deep".to_string(), words(2, 40_000))];
    holds(&volume, &files.into_iter().collect(), "f");
}

/// What takes minutes does not hold up the rest: it waits by itself, and comes in its turn.
#[test]
fn quick_files_are_planned_beside_slow_ones() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let policy = Policy { decode_ms: Some(DECODE_MS_MAX), ..Policy::of(Tier::Deep) };
    let volume = open(&disk, VolumeOptions { policy, ..options(None) }, &workers).unwrap();
    add(&volume, &llama::tiny());
    for n in 0..40 {
        put(&volume, &format!("text {n}"), &words(n, 3000)).unwrap();
    }
    put(&volume, "long text", &words(99, 600_000)).unwrap();
    put(&volume, "quick", &[[7, 0, 9, 1]; 20_000].concat()).unwrap();
    let quick: Vec<_> = volume.plan_coding_beside(8, 0, true);
    assert!(quick.len() == 1 && !quick[0].takes_minutes(), "{quick:?}");
    let coded = quick.into_iter().map(|task| volume.code(task)).collect::<Vec<_>>();
    assert!(coded.iter().all(|c| !c.took_minutes()));
    volume.commit_coded(coded).unwrap();
    assert!(volume.plan_coding_beside(8, 0, true).is_empty());
    let slow = volume.plan_coding_beside(8, 1, false);
    assert!(slow.len() <= 1 && slow.iter().all(|task| task.takes_minutes()));
    volume.commit_coded(slow.into_iter().map(|task| volume.code(task)).collect()).unwrap();
    code_all(&volume, || ()).unwrap();
}

#[test]
fn a_damaged_lane_is_never_returned_and_takes_no_other_with_it() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = open(&disk, by_language(), &workers).unwrap();
    add(&volume, &llama::tiny());
    let text = words(4, 200_000);
    put(&volume, "f", &text).unwrap();
    code_all(&volume, || ()).unwrap();
    let report = volume.report(ino(&volume, "f")).unwrap();
    let (first, parts) =
        (&report.segments[0], report.segments[0].segment_bytes.div_ceil(report.segments[0].part_bytes));
    assert!(parts > 2);
    // A bit near the end of the record is in its last lane.
    let path = format!("packs/{:02x}/pack-{:016x}.tpk", first.pack & 0xff, first.pack);
    let at = first.pack_offset + first.stored_bytes - 40;
    shut(volume);
    assert!(disk.rot(&path, at, 4));
    let volume = open(&disk, by_language(), &workers).unwrap();
    let f = ino(&volume, "f");
    let last = (parts - 1) * first.part_bytes;
    for from in [last, first.segment_bytes - 100] {
        assert!(matches!(read(&volume, f, from, 10), Err(Error::Damaged { .. })), "{from}");
    }
    assert!(read(&volume, f, 0, last).unwrap() == text[..last as usize]);
    for s in &report.segments[1..] {
        let at = s.file_offset as usize;
        assert!(read(&volume, f, s.file_offset, s.bytes).unwrap() == text[at..at + s.bytes as usize]);
    }
    assert!(matches!(read(&volume, f, 0, first.segment_bytes), Err(Error::Damaged { .. })));
    assert!(volume.status().unwrap().decode_failures > 0);
}

#[test]
fn a_model_that_is_missing_or_damaged_is_told_and_can_be_brought_again() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = open(&disk, by_language(), &workers).unwrap();
    let id = add(&volume, &llama::tiny());
    put(&volume, "f", &words(5, 30_000)).unwrap();
    code_all(&volume, || ()).unwrap();
    assert!(volume.remove_language(id).unwrap_err().to_string().contains("tersefs recode"));
    // Another one that codes nothing can go.
    let unused = add(&volume, &other());
    assert_ne!(id, unused);
    assert_eq!(volume.languages().unwrap().iter().map(|l| l.codes).collect::<Vec<_>>(), [false, true]);
    shut(volume);
    (40_000..40_004).for_each(|at| assert!(disk.rot(&format!("languages/{id}/model.gguf"), at, 0x40)));
    let wrong = tools::model_verify(&disk, None, &mut |_, _| ()).unwrap();
    assert!(wrong.len() == 1 && wrong[0].contains(&id.to_string()), "{wrong:?}");
    let volume = open(&disk, by_language(), &workers).unwrap();
    let f = ino(&volume, "f");
    let why = read(&volume, f, 0, 10).unwrap_err().to_string();
    assert!(why.contains(&id.to_string()), "{why}");
    let scrubbed = volume.scrub(ScrubOptions::default()).unwrap();
    assert!(scrubbed.damaged_count > 0 && scrubbed.not_decoded > 0, "{scrubbed:?}");
    assert_eq!(add(&volume, &llama::tiny()), id);
    assert!(read(&volume, f, 0, 1 << 20).unwrap() == words(5, 30_000));
    volume.remove_language(unused).unwrap();
    shut(volume);
    assert!(tools::model_verify(&disk, None, &mut |_, _| ()).unwrap().is_empty());
    disk.remove_dir_all(&format!("languages/{id}")).unwrap();
    let report = tools::fsck(Arc::new(disk.clone()), false, &mut |_, _| ()).unwrap();
    assert!(report.problems.iter().any(|p| p.at.contains(&id.to_string())), "{:?}", report.problems);
    let volume = open(&disk, by_language(), &workers).unwrap();
    let why = read(&volume, ino(&volume, "f"), 0, 10).unwrap_err().to_string();
    assert!(why.contains(&id.to_string()) && why.contains("model add"), "{why}");
}

/// Wherever the machine stops while a model comes, it is there whole or not at all, and what is coded with it is read.
#[test]
fn a_model_comes_whole_or_not_at_all() {
    let model = brought(&llama::tiny());
    let workers = Arc::new(Workers::new(1));
    let (before, after) = {
        let disk = fresh();
        let volume = open(&disk, by_language(), &workers).unwrap();
        let before = disk.syncs();
        volume.add_language(model.path(), None, &mut |_, _| ()).unwrap();
        (before, disk.syncs())
    };
    let mut whole = 0;
    let cuts = (before + 1..=after).flat_map(|cut| {
        [Survival::Synced, Survival::Kernel, Survival::Random(cut), Survival::Ordered(cut)].map(|image| (cut, image))
    });
    for (cut, image) in cuts {
        let disk = fresh();
        disk.cut_power_at_sync(cut);
        let volume = open(&disk, by_language(), &workers).unwrap();
        volume.add_language(model.path(), None, &mut |_, _| ()).unwrap_err();
        let left = disk.survivor(image);
        let kept = tools::model_list(&left).unwrap();
        whole += kept.len();
        assert!(tools::model_verify(&left, None, &mut |_, _| ()).unwrap().is_empty());
        let volume = open(&left, by_language(), &workers).unwrap();
        put(&volume, "f", &words(6, 20_000)).unwrap();
        let id = add(&volume, &llama::tiny());
        code_all(&volume, || ()).unwrap();
        assert_eq!(methods(&volume, "f"), ["language"]);
        assert!(read(&volume, ino(&volume, "f"), 0, 1 << 20).unwrap() == words(6, 20_000));
        assert_eq!(volume.languages().unwrap().len(), 1, "{id}");
    }
    assert!(whole > 0, "the last of them find it there");
    // Nor does one that takes the place of a damaged one leave nothing.
    let damaged = || {
        let disk = fresh();
        let volume = open(&disk, by_language(), &workers).unwrap();
        let id = add(&volume, &llama::tiny());
        put(&volume, "f", &words(6, 20_000)).unwrap();
        code_all(&volume, || ()).unwrap();
        shut(volume);
        assert!(disk.rot(&format!("languages/{id}/model.gguf"), 40_000, 1));
        disk
    };
    let disk = damaged();
    let volume = open(&disk, by_language(), &workers).unwrap();
    let before = disk.syncs();
    volume.add_language(model.path(), None, &mut |_, _| ()).unwrap();
    for cut in before + 1..=disk.syncs() {
        let disk = damaged();
        let volume = open(&disk, by_language(), &workers).unwrap();
        disk.cut_power_at_sync(cut);
        let _ = volume.add_language(model.path(), None, &mut |_, _| ());
        for image in [Survival::Synced, Survival::Kernel, Survival::Random(cut)] {
            let volume = open(&disk.survivor(image), by_language(), &workers).unwrap();
            assert_eq!(volume.languages().unwrap().len(), 1);
            // Rot that touches no weight as it is computed with is none.
            assert!(read(&volume, ino(&volume, "f"), 0, 1 << 20).unwrap() == words(6, 20_000));
        }
    }
}

/// Files of a directory on this machine.
fn directory(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(dir.path().join(name), bytes).unwrap());
    dir
}

/// Adds the model of a file of a directory, or of all of it.
fn add_of(volume: &Volume, dir: &tempfile::TempDir, name: &str) -> tersefs::volume::LanguageReport {
    volume.add_language(&dir.path().join(name), None, &mut |_, _| ()).unwrap()
}

/// A model of bytes and one of text are in a volume at the same time; each codes what it is for, where it is smaller.
#[test]
fn a_model_of_bytes_codes_binary_data_beside_one_of_text() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(2)));
    let policy = Policy { decode_ms: Some(DECODE_MS_MAX), ..Policy::of(Tier::Deep) };
    let deep = || VolumeOptions { policy, ..options(None) };
    let volume = open(&disk, deep(), &workers).unwrap();
    put(&volume, "before", &gpt::places(1, 6000)).unwrap();
    code_all(&volume, || ()).unwrap();
    assert!(!methods(&volume, "before").contains(&"language".into()));
    let brought = directory(&[("weights-audio.pth", gpt::pth(&gpt::bgpt_of_places(), Some("model")))]);
    let of_bytes = add_of(&volume, &brought, "weights-audio.pth");
    assert_eq!(
        (of_bytes.kind.as_str(), of_bytes.codes, of_bytes.files.as_slice()),
        ("bytes", true, &["bgpt.safetensors".to_string()][..])
    );
    let of_text = add(&volume, &llama::tiny());
    let codes = |volume: &Volume| -> Vec<bool> { volume.languages().unwrap().iter().map(|l| l.codes).collect() };
    assert_eq!(codes(&volume), [true, true], "the last of its kind");
    let mut dice = common::Dice::new(9);
    let mut noise = |len: usize| -> Vec<u8> { (0..len).map(|_| dice.next() as u8).collect() };
    let (known, noise, text) = (gpt::places(2, 20_000), noise(20_000), words(2, 9000));
    put(&volume, "known", &known).unwrap();
    put(&volume, "text", &text).unwrap();
    put(&volume, "noise", &noise).unwrap();
    code_all(&volume, || ()).unwrap();
    assert_eq!(methods(&volume, "known"), ["language"]);
    assert_ne!(
        methods(&volume, "text"),
        ["language"],
        "a model of noise beats nothing, and that of bytes is not for text"
    );
    assert_eq!(methods(&volume, "noise"), ["raw"]);
    let stored: u64 = volume.report(ino(&volume, "known")).unwrap().segments.iter().map(|s| s.stored_bytes).sum();
    assert!(stored < 10_700, "{stored} bytes of 10,000 that it has of information");
    // What was there before it came is coded with it when it is asked for, and what it coded is read by nothing else.
    let mut run = volume.plan_recode(3);
    while !run.is_done() {
        volume.recode_step(&mut run).unwrap();
    }
    assert_eq!(methods(&volume, "before"), ["language"]);
    let of_bytes = ModelId::parse(&of_bytes.id).unwrap();
    assert!(volume.remove_language(of_bytes).is_err());
    volume.remove_language(of_text).unwrap();
    shut(volume);
    let volume = open(&disk, deep(), &workers).unwrap();
    assert!(read(&volume, ino(&volume, "known"), 17_000, 500).unwrap() == known[17_000..17_500]);
    let files = [("known", known), ("text", text), ("noise", noise), ("before", gpt::places(1, 6000))];
    for (name, bytes) in files {
        assert!(read(&volume, ino(&volume, name), 0, 1 << 20).unwrap() == bytes, "{name}");
    }
    shut(volume);
    // The copy in the store is the whole model.
    let out = tempfile::tempdir().unwrap();
    tools::model_export(&disk, of_bytes, out.path(), &mut |_, _| ()).unwrap();
    assert_eq!(tools::model_show(out.path(), None).unwrap().id, of_bytes.to_string());
    assert!(tools::model_verify(&disk, None, &mut |_, _| ()).unwrap().is_empty());
    let report = tools::fsck(Arc::new(disk.clone()), false, &mut |_, _| ()).unwrap();
    assert!(report.problems.is_empty() && report.notes.is_empty(), "{report:?}");
}

/// However the tensors of an image model are brought, with what says its heads beside them; and those that lose something are refused.
#[test]
fn a_model_of_images_is_brought_in_any_of_its_forms() {
    let config = || ("config.json", gpt::CONFIG.as_bytes().to_vec());
    let as_tensors = directory(&[config(), ("model.safetensors", gpt::safetensors(&gpt::igpt()))]);
    let as_archive =
        directory(&[config(), ("pytorch_model.bin", gpt::pth(&gpt::igpt(), None)), ("merges.txt", vec![])]);
    let show = |path: &std::path::Path| tools::model_show(path, None);
    let shown = show(as_tensors.path()).unwrap();
    assert_eq!((shown.kind, shown.vocabulary, shown.context_tokens), ("image", 256, gpt::PIXELS));
    assert_eq!(show(as_archive.path()).unwrap().id, shown.id);
    // Without its config it has heads of 64 elements, and is another.
    assert_ne!(show(&as_tensors.path().join("model.safetensors")).unwrap().id, shown.id);
    let palette = directory(&[config(), ("pytorch_model.bin", gpt::pth(&gpt::igpt_of(512), None))]);
    let why = show(palette.path()).unwrap_err();
    assert!(why.contains("palette") && why.contains(&palette.path().display().to_string()), "{why}");
    let why = tools::model_show(as_tensors.path(), Some(palette.path())).unwrap_err();
    assert!(why.contains("adapters"), "{why}");
    for (name, bytes) in [("none.safetensors", b"\x02\0\0\0\0\0\0\0{}".to_vec()), ("x.pth", b"PK\x03\x04".to_vec())] {
        let bad = directory(&[(name, bytes)]);
        for path in [bad.path().to_path_buf(), bad.path().join(name)] {
            assert!(show(&path).is_err_and(|why| why.contains(&path.display().to_string())), "{name}");
        }
    }
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    let volume = open(&disk, by_language(), &workers).unwrap();
    assert_eq!(add_of(&volume, &as_archive, "").kind, "image");
    let image: Vec<u8> = (0..9000u32).flat_map(|n| [n / 40, n / 3 % 97 + 20, n * n / 5000].map(|x| x as u8)).collect();
    put(&volume, "image", &image).unwrap();
    code_all(&volume, || ()).unwrap();
    assert!(read(&volume, ino(&volume, "image"), 0, 1 << 20).unwrap() == image);
}

/// Two models that have a file in common have it once on disk; each goes, and is mended, without the other.
#[test]
fn a_file_of_two_models_is_there_once() {
    let tensors = gpt::safetensors(&gpt::igpt());
    let of_config =
        directory(&[("config.json", gpt::CONFIG.as_bytes().to_vec()), ("model.safetensors", tensors.clone())]);
    let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
    disk.set_capacity(1 << 30);
    let volume = open(&disk, by_language(), &workers).unwrap();
    let free = || disk.space().unwrap().free_bytes;
    let damaged = || tools::model_verify(&disk, None, &mut |_, _| ()).unwrap().len();
    let taken = |name: &str| {
        let before = free();
        let id = add_of(&volume, &of_config, name).id;
        (ModelId::parse(&id).unwrap(), before - free())
    };
    let (first, of_first) = taken("");
    let (second, of_second) = taken("model.safetensors");
    assert_ne!(first, second);
    assert!(of_first > tensors.len() as u64 / 2, "{of_first} bytes: tensors of noise are kept as they are");
    assert!(of_second < of_first / 8, "{of_second} bytes, {of_first} of the first");
    assert_eq!(damaged(), 0);
    let of_second = disk.files().into_iter().map(|(path, _)| path);
    let tensors = of_second.into_iter().find(|p| p.contains(&second.to_string()) && p.contains("safetensors")).unwrap();
    // What is brought again because it is damaged is not what is damaged under another name.
    assert!(disk.rot(&tensors, 5000, 1));
    assert_eq!(damaged(), 2);
    taken("");
    assert_eq!(damaged(), 1);
    taken("model.safetensors");
    assert_eq!(damaged(), 0);
    volume.remove_language(first).unwrap();
    assert_eq!((damaged(), volume.languages().unwrap().len()), (0, 1));
    shut(volume);
    let out = tempfile::tempdir().unwrap();
    tools::model_export(&disk, second, out.path(), &mut |_, _| ()).unwrap();
    assert_eq!(tools::model_show(out.path(), None).unwrap().id, second.to_string());
}

/// A part that was read twice from cold has a decoded copy on disk, which is held against the checksum that the segment has of
/// that part.
#[test]
fn parts_have_hot_copies_of_their_own() {
    let (disk, workers) = (fresh(), Arc::new(Workers::new(2)));
    let hot = HotOptions { bytes: 1 << 20, slow_ms_min: 0, ..HotOptions::default() };
    let with =
        || open(&disk, VolumeOptions { hot: hot.clone(), cache_bytes: Some(0), ..by_language() }, &workers).unwrap();
    let volume = with();
    add(&volume, &llama::tiny());
    let text = words(4, 60_000);
    put(&volume, "f text", &text).unwrap();
    code_all(&volume, || ()).unwrap();
    let file = ino(&volume, "f text");
    let decodes = |volume: &Volume| volume.status().unwrap().decodes;
    let right = |volume: &Arc<Volume>| assert_eq!(read(volume, file, 50_000, 10).unwrap(), &text[50_000..50_010]);
    (0..2).for_each(|_| right(&volume));
    assert_eq!(decodes(&volume), 2);
    // It is made after the reader has its bytes.
    for _ in 0..1000 {
        if volume.status().unwrap().hot.copies > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    right(&volume);
    assert_eq!(decodes(&volume), 2);
    shut(volume);
    let volume = with();
    right(&volume);
    assert_eq!(decodes(&volume), 0);
    let copies: Vec<String> =
        disk.files().into_iter().map(|(path, _)| path).filter(|path| path.starts_with("cache/")).collect();
    assert_eq!(copies.len(), 1, "of one part, not of its segment");
    assert!(disk.rot(&copies[0], 3, 8));
    right(&volume);
    assert_eq!((decodes(&volume), volume.status().unwrap().hot.wrong), (1, 1));
    assert!(read(&volume, file, 0, 1 << 20).unwrap() == text);
    shut(volume);
}
