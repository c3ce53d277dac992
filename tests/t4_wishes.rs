//! What attributes ask for: found on a file or on the nearest directory above it, and kept to.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{Dice, code_all, fresh, open, options, read};
use tersefs::base::Ino;
use tersefs::codec::Policy;
use tersefs::host::SimDisk;
use tersefs::volume::{Caller, Error, FileReport, OpenFor, RenameMode, Volume, VolumeOptions, XattrMode};
use tersefs::workers::Workers;

const ROOT: Caller = Caller { uid: 0, gid: 0 };
const DECODE_MS: &str = "user.tersefs.decode_ms";
const TIER: &str = "user.tersefs.tier";
const NOCOMPRESS: &str = "user.tersefs.nocompress";

struct Fixture {
    volume: Arc<Volume>,
    disk: SimDisk,
    dice: Dice,
}

impl Fixture {
    fn new() -> Fixture {
        let disk = fresh();
        Fixture { volume: opened(&disk), disk, dice: Dice::new(7) }
    }

    fn remount(self) -> Fixture {
        let Fixture { volume, disk, dice } = self;
        volume.close().unwrap();
        drop(volume);
        Fixture { volume: opened(&disk), disk, dice }
    }

    fn mkdir(&self, parent: Ino, name: &str) -> Ino {
        self.volume.mkdir(parent, name.as_bytes(), 0o755, &ROOT).unwrap().ino
    }

    fn file(&mut self, parent: Ino, name: &str, len: usize) -> Ino {
        let open = OpenFor { read: true, write: true, append: false, truncate: false };
        let (attr, opened) = self.volume.create(parent, name.as_bytes(), 0o644, &ROOT, open).unwrap();
        let text = self.dice.text(len);
        self.volume.write(attr.ino, opened.handle, 0, &text).unwrap();
        self.volume.release(attr.ino, opened.handle).unwrap();
        attr.ino
    }

    fn set(&self, ino: Ino, name: &str, value: &str) {
        self.volume.setxattr(ino, name.as_bytes(), value.as_bytes(), XattrMode::Set).unwrap();
    }

    fn code(&self) {
        code_all(&self.volume, || ()).unwrap();
    }

    fn report(&self, ino: Ino) -> FileReport {
        self.volume.report(ino).unwrap()
    }

    fn methods(&self, ino: Ino) -> BTreeSet<String> {
        self.report(ino).segments.into_iter().map(|s| s.method).collect()
    }

    /// All of the file is coded by one method.
    fn is_coded_by(&self, ino: Ino, method: &str) {
        assert_eq!(self.methods(ino), BTreeSet::from([method.to_string()]), "inode {ino}");
    }

    fn is_staged(&self, ino: Ino) {
        self.is_coded_by(ino, "staged or hole");
    }

    /// Segments that hold bytes of the file.
    fn places(&self, ino: Ino) -> BTreeSet<(u64, u64)> {
        self.report(ino).segments.into_iter().map(|s| (s.pack, s.pack_offset)).collect()
    }
}

fn opened(disk: &SimDisk) -> Arc<Volume> {
    let options = VolumeOptions { policy: Policy::default(), ..options(None) };
    open(disk, options, &Arc::new(Workers::new(1))).unwrap()
}

#[test]
fn the_nearest_directory_says_how_a_file_is_coded() {
    let mut f = Fixture::new();
    let outer = f.mkdir(Ino::ROOT, "outer");
    let inner = f.mkdir(outer, "inner");
    f.set(outer, TIER, "fast");
    f.set(outer, DECODE_MS, "700");
    f.set(inner, TIER, "balanced");
    let files = [(Ino::ROOT, "primed"), (outer, "zstd"), (inner, "primed")];
    let files = files.map(|(dir, method)| (f.file(dir, "large", 100_000), f.file(dir, "small", 900), method));
    let own = f.file(inner, "own", 100_000);
    f.set(own, TIER, "fast");
    f.code();
    for (large, small, method) in files {
        f.is_coded_by(large, method);
        f.is_coded_by(small, method);
    }
    f.is_coded_by(own, "zstd");
    let p = f.report(files[2].0).policy;
    assert_eq!((p.tier.as_str(), p.tier_from.as_str()), ("balanced", "inherited from /outer/inner"));
    assert_eq!((p.decode_ms, p.decode_ms_from.as_str()), (700, "inherited from /outer"));
    let p = f.report(own).policy;
    assert_eq!((p.tier.as_str(), p.tier_from.as_str()), ("fast", "own"));
    f.volume.removexattr(own, TIER.as_bytes()).unwrap();
    assert_eq!(f.report(own).policy.tier_from, "inherited from /outer/inner");
    f.is_coded_by(own, "zstd");
    // As the volume has it, and after a remount still.
    let f = f.remount();
    let p = f.report(files[0].0).policy;
    assert_eq!((p.tier_from.as_str(), p.decode_ms, p.decode_ms_from.as_str()), ("volume", 2000, "tier"));
    assert_eq!(f.report(files[1].0).policy.tier_from, "inherited from /outer");
    assert!(f.volume.listxattr(outer).unwrap().contains(&TIER.as_bytes().to_vec()));
}

#[test]
fn a_budget_cuts_segments_shorter() {
    let mut f = Fixture::new();
    let outside = f.file(Ino::ROOT, "f", 700_000);
    f.code();
    let usual = f.report(outside).segments.iter().map(|s| s.predicted_decode_ms).max().unwrap();
    let dir = f.mkdir(Ino::ROOT, "quick");
    f.set(dir, DECODE_MS, &(usual / 2).max(1).to_string());
    f.set(dir, TIER, "deep");
    let inside = f.file(dir, "f", 700_000);
    f.code();
    let longest = |f: &Fixture, ino| f.report(ino).segments.iter().map(|s| s.segment_bytes).max().unwrap();
    assert!(longest(&f, inside) < 256 << 10, "{} in {} ms", longest(&f, inside), usual / 2);
    // The content says where, around 256 KiB.
    assert!((128 << 10..=512 << 10).contains(&longest(&f, outside)), "{}", longest(&f, outside));
    // The strong profile where a shorter segment leaves time for it.
    assert!(f.methods(inside).is_subset(&BTreeSet::from(["primed", "strong"].map(String::from))));
    let text = read(&f.volume, inside, 0, 700_000).unwrap();
    assert_eq!(text.len(), 700_000);
    let dir = f.mkdir(Ino::ROOT, "deep");
    f.set(dir, TIER, "deep");
    // However busy the machine is.
    f.set(dir, DECODE_MS, "3600000");
    let deep = f.file(dir, "f", 1_100_000);
    f.code();
    assert!(f.report(deep).segments.len() <= 3 && longest(&f, deep) > 360 << 10, "{}", longest(&f, deep));
}

#[test]
fn small_files_of_different_policies_share_no_segment() {
    let mut f = Fixture::new();
    let dirs = ["fast", "balanced", "deep"].map(|tier| {
        let dir = f.mkdir(Ino::ROOT, tier);
        f.set(dir, TIER, tier);
        dir
    });
    let mut files = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..20 {
        for (dir, files) in dirs.iter().zip(&mut files) {
            files.push(f.file(*dir, &format!("f{n}"), 500));
        }
    }
    f.code();
    let places: Vec<BTreeSet<_>> =
        files.iter().map(|files| files.iter().flat_map(|ino| f.places(*ino)).collect()).collect();
    assert!(places.iter().all(|p| p.len() <= 2), "bundled: {places:?}");
    for (n, one) in places.iter().enumerate() {
        assert!(places.iter().skip(n + 1).all(|other| one.is_disjoint(other)), "{places:?}");
    }
}

#[test]
fn a_file_takes_what_holds_where_it_is_when_it_is_coded() {
    let mut f = Fixture::new();
    let (fast, normal) = (f.mkdir(Ino::ROOT, "fast"), f.mkdir(Ino::ROOT, "normal"));
    f.set(fast, TIER, "fast");
    let below = f.mkdir(normal, "below");
    let (moved, carried) = (f.file(normal, "f", 50_000), f.file(below, "g", 50_000));
    // Looked up once, and remembered.
    assert_eq!(f.report(carried).policy.tier_from, "volume");
    f.volume.rename(normal, b"f", fast, b"f", RenameMode::Replace).unwrap();
    f.volume.rename(normal, b"below", fast, b"below", RenameMode::NoReplace).unwrap();
    assert_eq!(f.report(carried).policy.tier_from, "inherited from /fast");
    // Of two names that of the last move counts.
    let linked = f.file(fast, "one", 50_000);
    f.volume.link(linked, normal, b"other").unwrap();
    f.code();
    for ino in [moved, carried, linked] {
        f.is_coded_by(ino, "zstd");
    }
    // Coded files stay as they are.
    f.volume.rename(fast, b"f", normal, b"f", RenameMode::Replace).unwrap();
    f.code();
    f.is_coded_by(moved, "zstd");
    assert_eq!(f.report(moved).policy.tier, "balanced");
}

#[test]
fn what_is_not_to_be_coded_stays_staged_until_it_may() {
    let mut f = Fixture::new();
    let plain = f.mkdir(Ino::ROOT, "plain");
    let below = f.mkdir(plain, "below");
    f.set(plain, NOCOMPRESS, "1");
    let files = ["a", "b", "c"].map(|name| f.file(below, name, 40_000));
    let (own, coded) = (f.file(Ino::ROOT, "own", 40_000), f.file(plain, "coded", 40_000));
    f.set(own, NOCOMPRESS, "");
    f.set(coded, NOCOMPRESS, "0");
    f.code();
    files.iter().chain([&own]).for_each(|ino| f.is_staged(*ino));
    f.is_coded_by(coded, "primed");
    let left = f.volume.backlog();
    assert_eq!((left.files, left.stuck), (0, 0), "nothing is waited for");
    assert_eq!(f.volume.status().unwrap().plain_files, 4);
    assert!(f.report(files[0]).policy.stays_plain);
    assert_eq!(f.report(files[0]).policy.stays_plain_from, "inherited from /plain");

    // A file, then a directory that moves out, then the attribute of a directory that goes.
    f.volume.rename(below, b"a", Ino::ROOT, b"a", RenameMode::Replace).unwrap();
    f.volume.removexattr(own, NOCOMPRESS.as_bytes()).unwrap();
    f.code();
    f.is_coded_by(files[0], "primed");
    f.is_coded_by(own, "primed");
    f.is_staged(files[1]);
    f.volume.rename(plain, b"below", Ino::ROOT, b"below", RenameMode::Replace).unwrap();
    f.code();
    f.is_coded_by(files[1], "primed");
    let last = f.file(plain, "last", 40_000);
    f.code();
    f.is_staged(last);

    // Found again by a mount, and left alone by it.
    let f = f.remount();
    f.code();
    f.is_staged(last);
    assert_eq!(f.volume.backlog().files, 0);
    f.set(plain, NOCOMPRESS, "0");
    assert!(f.volume.backlog().files > 0, "it is looked for");
    f.code();
    f.is_coded_by(last, "primed");
    assert_eq!(f.volume.backlog().files, 0);
    assert_eq!(f.volume.status().unwrap().plain_files, 0);
    assert_eq!(read(&f.volume, last, 0, 50_000).unwrap().len(), 40_000);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let mut f = Fixture::new();
    let file = f.file(Ino::ROOT, "f", 10);
    let try_set = |name: &str, value: &str| f.volume.setxattr(file, name.as_bytes(), value.as_bytes(), XattrMode::Set);
    for (name, value) in [(DECODE_MS, "0"), (DECODE_MS, "soon"), (DECODE_MS, ""), (TIER, "slow"), (TIER, "")] {
        assert!(matches!(try_set(name, value), Err(Error::Invalid(why)) if why.contains(name)), "{name}={value}");
    }
    assert!(f.volume.listxattr(file).unwrap().is_empty());
    try_set("user.tersefs.of_another_time", "x").unwrap();
}
