//! Golden stores: what earlier builds wrote as a whole is opened, checked, read and written on by this one.
//!
//! `tests/golden/store-N.tar.zst` is a store, `store-N.txt` what is in it. `tests/golden/README.md` says how one is added.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{Dice, code_all, options, packed, read, shut};
use tersefs::base::{ByteRange, Ino, MethodId};
use tersefs::codec::{DECODE_MS_MAX, Policy};
use tersefs::format::{FileKind, Time};
use tersefs::host::RealDisk;
use tersefs::store::{IndexEngine, ParityShape, Store};
use tersefs::tools;
use tersefs::volume::{
    Adjustable, AllocateMode, Caller, OpenFor, ScrubOptions, SetAttr, SetTime, Volume, VolumeOptions, XattrMode,
};
use tersefs::workers::Workers;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CALLER: Caller = Caller { uid: 1000, gid: 100 };
/// When all of a new golden store was last changed, seconds since 1970.
const MODIFIED: i64 = 1_700_000_000;

fn settings(only: Option<MethodId>) -> VolumeOptions {
    VolumeOptions {
        policy: policy(only),
        parity: Some(ParityShape { data: 10, parity: 1 }),
        pack_bytes_max: 16 << 10,
        seal_ms: 0,
        ..options(None)
    }
}

fn policy(only: Option<MethodId>) -> Policy {
    // However slow the machine is now.
    Policy { only, decode_ms: Some(DECODE_MS_MAX), ..Policy::default() }
}

fn open(store: &Path, options: VolumeOptions) -> Arc<Volume> {
    let disk = RealDisk::open(store, false).unwrap();
    Volume::open(disk, options, Arc::new(Workers::new(2))).unwrap().0
}

fn write(volume: &Volume, parent: Ino, name: &str, parts: &[(u64, &[u8])]) -> Ino {
    let mode = OpenFor { write: true, ..OpenFor::default() };
    let (attr, opened) = volume.create(parent, name.as_bytes(), 0o640, &CALLER, mode).unwrap();
    for (at, bytes) in parts {
        volume.write(attr.ino, opened.handle, *at, bytes).unwrap();
    }
    volume.release(attr.ino, opened.handle).unwrap();
    attr.ino
}

fn sample(name: &str, from: usize, len: usize) -> Vec<u8> {
    fs::read(format!("{ROOT}/tests/data/{name}")).unwrap()[from..from + len].to_vec()
}

/// Reads of nucleotides with qualities, by chance.
fn reads(dice: &mut Dice, many: usize) -> Vec<u8> {
    let mut out = String::new();
    for n in 0..many {
        let mut line = |letters: &[u8], len: usize| -> String {
            (0..len).map(|_| char::from(*dice.pick(letters).unwrap())).collect()
        };
        let (bases, qualities) = (line(b"ACGT", 80), line(b"FFFFF:,#", 80));
        out += &format!("@run.{n} {n}/1\n{bases}\n+\n{qualities}\n");
    }
    out.into_bytes()
}

/// A file of sound: a wave in 16 bits with noise.
fn wave(dice: &mut Dice, samples: u32) -> Vec<u8> {
    let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x22\x56\0\0\x44\xac\0\0\x02\0\x10\0data".to_vec();
    out.extend_from_slice(&(2 * samples).to_le_bytes());
    let (mut x, mut speed) = (9000i32, 0);
    for _ in 0..samples {
        speed -= x / 300;
        x += speed / 2 + dice.roll(40) as i32 - 20;
        out.extend_from_slice(&(x as i16).to_le_bytes());
    }
    out
}

/// A picture in grey: light with noise.
fn pixels(dice: &mut Dice) -> Vec<u8> {
    let light = (0..20_000u64).map(|n| (60 + n % 200 / 3 + n / 200 + dice.roll(5)) as u8);
    b"P5 200 100 255\n".iter().copied().chain(light).collect()
}

/// Frames in grey: light that moves, with noise.
fn moving(dice: &mut Dice) -> Vec<u8> {
    let mut file = b"YUV4MPEG2 W80 H60 Cmono\n".to_vec();
    for frame in 0..5u64 {
        file.extend_from_slice(b"FRAME\n");
        file.extend((0..4800u64).map(|n| (60 + (n % 80 + frame) * 5 % 97 + n / 80 + dice.roll(5)) as u8));
    }
    file
}

/// A store with everything that a store can hold but language models, which are large.
fn make(store: &Path, teaches: bool) {
    let disk = RealDisk::open(store, true).unwrap();
    Store::create(&(disk as Arc<dyn tersefs::host::Disk>), 16 << 10).unwrap();
    let volume = open(store, settings(None));
    let by = |only: Option<MethodId>| {
        volume.adjust(Adjustable { policy: policy(only), quiet_ms: 0, seal_ms: 0, rules: Arc::default() });
    };
    let methods = volume.mkdir(Ino::ROOT, b"methods", 0o755, &CALLER).unwrap().ino;
    let texts = ["eng", "html", "json", "log", "py", "rs"];
    for (n, method) in MethodId::ALL.into_iter().filter(|m| *m != MethodId::Language).enumerate() {
        by(Some(method));
        let text = match method {
            MethodId::Opened => packed::gzip(&packed::prose(&mut Dice::new(7), 9000), 6),
            MethodId::Genome => reads(&mut Dice::new(7), 60),
            MethodId::Sound => wave(&mut Dice::new(7), 8000),
            MethodId::Picture => pixels(&mut Dice::new(7)),
            MethodId::Video => moving(&mut Dice::new(7)),
            _ => sample(texts[n % texts.len()], n * 9000, 9000),
        };
        write(&volume, methods, method.name(), &[(0, &text)]);
        code_all(&volume, || ()).unwrap();
    }
    by(None);
    // Bundled small files, a large one, what nothing shrinks.
    let small = volume.mkdir(Ino::ROOT, "kleine Dateien, \u{e4}\u{f6}\u{fc}".as_bytes(), 0o1777, &CALLER).unwrap().ino;
    for n in 0..20usize {
        write(&volume, small, &format!("file {n}"), &[(0, &sample("eng", n * 900, 700 + n))]);
    }
    let large = sample("eng", 20_000, 40_000);
    write(&volume, Ino::ROOT, "large", &[(0, &large)]);
    let mut dice = Dice::new(3);
    let noise: Vec<u8> = (0..3000).map(|_| dice.roll(256) as u8).collect();
    write(&volume, Ino::ROOT, "noise", &[(0, &noise)]);
    code_all(&volume, || ()).unwrap();
    // The same content once more, and what is like it: shared, and coded from a reference.
    write(&volume, Ino::ROOT, "the same", &[(0, &large)]);
    write(
        &volume,
        Ino::ROOT,
        "alike",
        &[(0, &[&large[..20_000], b" put in ", &large[20_000..39_000], b" another end\n"].concat())],
    );
    code_all(&volume, || ()).unwrap();
    // Holes, an overwrite amid what is coded, and reserved space.
    let holes = write(&volume, Ino::ROOT, "holes", &[(5000, &large[..3000]), (900_000, b"the end")]);
    code_all(&volume, || ()).unwrap();
    let opened = volume.open_file(holes, OpenFor { write: true, ..OpenFor::default() }).unwrap();
    volume.write(holes, opened.handle, 6000, b"overwritten").unwrap();
    volume.allocate(holes, AllocateMode::Punch, ByteRange::at(7000, 100)).unwrap();
    volume.release(holes, opened.handle).unwrap();
    // Names of every kind, links, attributes.
    let noisy = volume.lookup(Ino::ROOT, b"noise").unwrap().ino;
    volume.link(noisy, small, b"another name").unwrap();
    volume.symlink(Ino::ROOT, b"symlink", b"no/where", &CALLER).unwrap();
    for (name, kind, rdev) in [("pipe", FileKind::Fifo, 0), ("device", FileKind::CharDevice, 0x103)] {
        volume.mknod(Ino::ROOT, name.as_bytes(), kind, 0o600, rdev, &CALLER).unwrap();
    }
    volume.setxattr(noisy, b"user.note", b"\x00\xffany bytes", XattrMode::Set).unwrap();
    volume.setxattr(small, b"user.tersefs.tier", b"fast", XattrMode::Set).unwrap();
    if teaches {
        // A prior of its own, and one segment that names it; what taught it goes.
        let words = |seed: u64| -> Vec<u8> {
            let mut dice = Dice::new(seed);
            let word =
                |word: u64| format!("qx{:x}{} ", word * 7919 + 99_991, if word.is_multiple_of(7) { "\n" } else { "" });
            (0..14_000).map(|_| word(dice.roll(700))).collect::<String>().into_bytes()
        };
        by(Some(MethodId::Primed));
        let taught: Vec<String> = (0..40).map(|n| format!("taught {n}")).collect();
        for (n, name) in taught.iter().enumerate() {
            write(&volume, Ino::ROOT, name, &[(0, &words(n as u64))]);
        }
        let report = volume.train(false).unwrap();
        assert!(report.classes.iter().any(|class| class.prior.is_some()), "{report:?}");
        for name in &taught {
            common::remove(&volume, name).unwrap();
        }
        write(&volume, Ino::ROOT, "by a prior of the volume", &[(0, &words(99)[..30_000])]);
        code_all(&volume, || ()).unwrap();
        by(None);
    }
    // What stays staged, and is sealed.
    let plain = write(&volume, Ino::ROOT, "plain", &[(0, &large[..2000])]);
    volume.setxattr(plain, b"user.tersefs.nocompress", b"1", XattrMode::Set).unwrap();
    code_all(&volume, || ()).unwrap();
    for entry in volume.readdir(Ino::ROOT, 2, 1000).unwrap() {
        let time = SetTime::To(Time { secs: MODIFIED, nanos: 5 });
        volume.setattr(entry.ino, &SetAttr { mtime: Some(time), ..SetAttr::default() }).unwrap();
    }
    common::gc_all(&volume, 1 << 20, || ()).unwrap();
    while volume.seal_quiet().unwrap() {}
    volume.flush().unwrap();
    while volume.make_parity().unwrap() {}
    shut(volume);
}

/// All that a user sees of a volume, a line each.
fn listing(volume: &Arc<Volume>) -> Vec<String> {
    let mut out = Vec::new();
    let mut waiting = vec![(String::new(), Ino::ROOT)];
    while let Some((path, ino)) = waiting.pop() {
        let a = volume.getattr(ino).unwrap();
        let mut line = format!("{:?} {:o} {}:{} {} {path}", a.kind, a.mode, a.uid, a.gid, a.nlink);
        match a.kind {
            FileKind::Regular => {
                let bytes = read(volume, ino, 0, a.size).unwrap();
                assert_eq!(bytes.len() as u64, a.size, "{path}");
                line += &format!(" {} {} {}", a.mtime.secs, a.size, blake3::hash(&bytes));
            }
            FileKind::Symlink => line += &format!(" {}", String::from_utf8(volume.readlink(ino).unwrap()).unwrap()),
            FileKind::Directory => {
                for entry in volume.readdir(ino, 2, 1000).unwrap() {
                    waiting.push((format!("{path}/{}", String::from_utf8(entry.name).unwrap()), entry.ino));
                }
            }
            FileKind::CharDevice | FileKind::BlockDevice => line += &format!(" {:#x}", a.rdev),
            FileKind::Fifo | FileKind::Socket => {}
        }
        for name in volume.listxattr(ino).unwrap() {
            let value = volume.getxattr(ino, &name).unwrap();
            line += &format!(" {}={}", String::from_utf8(name).unwrap(), value.escape_ascii());
        }
        out.push(line);
    }
    out.sort();
    out
}

/// Methods of segments in a store, and which of them were coded with what the volume learned.
fn methods(store: &Path) -> Vec<String> {
    let mut found = Vec::new();
    tools::inspect(RealDisk::open(store, false).unwrap(), |line| {
        if let tools::InspectLine::Segment { method, revision, .. } = line {
            found.push(format!("{method}.{revision}"));
        }
    })
    .unwrap();
    found.sort();
    found.dedup();
    found
}

/// A store is sound, holds what it should, and can be written on; with an index and without.
fn sound(store: &Path, expected: &[String]) {
    let report = tools::fsck(RealDisk::open(store, false).unwrap(), true, &mut |_, _| ()).unwrap();
    assert_eq!((report.problems.len(), report.left()), (0, 0), "{:?}", report.problems);
    for engine in [IndexEngine::Memory, IndexEngine::Sled, IndexEngine::Sled] {
        let volume = open(store, VolumeOptions { engine, ..settings(None) });
        let found = listing(&volume);
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected);
        }
        assert_eq!(found.len(), expected.len());
        let scrubbed = volume.scrub(ScrubOptions { quick: false, bytes_per_s: 0, max_age_s: None }).unwrap();
        assert_eq!(scrubbed.damaged_count, 0, "{:?}", scrubbed.damaged);
        assert_eq!(volume.audit().unwrap(), [""; 0]);
        shut(volume);
    }
    let volume = open(store, settings(None));
    write(&volume, Ino::ROOT, "written later", &[(0, &sample("rs", 0, 30_000))]);
    code_all(&volume, || ()).unwrap();
    shut(volume);
    let volume = open(store, settings(None));
    let later = volume.lookup(Ino::ROOT, b"written later").unwrap().ino;
    assert!(read(&volume, later, 0, 40_000).unwrap() == sample("rs", 0, 30_000));
    let found = listing(&volume);
    let left: Vec<&String> = found.iter().filter(|line| !line.contains("/written later")).collect();
    assert_eq!(left.len(), expected.len());
    shut(volume);
}

fn unpack(archive: &[u8], to: &Path) {
    tar::Archive::new(zstd::Decoder::new(archive).unwrap()).unpack(to).unwrap();
}

#[test]
fn stores_of_earlier_builds_are_read_and_written_on() {
    let mut stores = 0;
    for entry in fs::read_dir(format!("{ROOT}/tests/golden")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let Some(number) = name.strip_prefix("store-").and_then(|rest| rest.strip_suffix(".tar.zst")) else { continue };
        let archive = fs::read(entry.path()).unwrap();
        assert!(archive.len() < 300_000, "{name} is small");
        let text = fs::read_to_string(format!("{ROOT}/tests/golden/store-{number}.txt")).unwrap();
        let mut lines = text.lines().map(str::to_string);
        let told = lines.next().unwrap();
        let dir = tempfile::tempdir().unwrap();
        unpack(&archive, dir.path());
        let store = dir.path().join("store");
        assert_eq!(format!("methods {}", methods(&store).join(" ")), told, "{name}");
        sound(&store, &lines.collect::<Vec<_>>());
        stores += 1;
    }
    assert!(stores > 0, "there are golden stores");
}

/// What would be the next golden store is as good as those that are there; and is kept where TERSEFS_GOLDEN says, as
/// PATH.tar.zst and PATH.txt.
#[test]
fn a_golden_store_is_made() {
    let kept = std::env::var("TERSEFS_GOLDEN").ok();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    make(&store, kept.is_some());
    let volume = open(&store, settings(None));
    let found = listing(&volume);
    let refers = |name: &str| {
        let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap().ino;
        let report = volume.report(ino).unwrap();
        (report.segments.iter().any(|s| s.reference.is_some()), report.shared_bytes > 0, report.staged_bytes > 0)
    };
    assert_eq!((refers("alike").0, refers("the same").1, refers("plain").2), (true, true, true));
    shut(volume);
    let used = methods(&store);
    for method in MethodId::ALL.into_iter().filter(|m| *m != MethodId::Language) {
        assert!(used.iter().any(|name| name.starts_with(method.name())), "{} in {used:?}", method.name());
    }
    if let Some(path) = &kept {
        for derived in ["index", "reserve", "LOCK"] {
            let _ = fs::remove_dir_all(store.join(derived)).or_else(|_| fs::remove_file(store.join(derived)));
        }
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all("store", &store).unwrap();
        let mut packed = zstd::Encoder::new(Vec::new(), 19).unwrap();
        packed.long_distance_matching(true).unwrap();
        std::io::Write::write_all(&mut packed, &archive.into_inner().unwrap()).unwrap();
        fs::write(format!("{path}.tar.zst"), packed.finish().unwrap()).unwrap();
        fs::write(format!("{path}.txt"), format!("methods {}\n{}\n", used.join(" "), found.join("\n"))).unwrap();
    }
    sound(&store, &found);
}
