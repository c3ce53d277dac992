//! One test for each kind of inconsistency: it is found under its name, looking changes nothing, the repair mends it and
//! touches nothing else, a second check finds nothing, and a power cut anywhere in the repair costs nothing.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Dice, code_all, fresh, open, options, read};
use tersefs::base::{ByteRange, Ino, MethodId, PackId, SegmentRef};
use tersefs::format::{Dentry, Extent, FileKind, InodeRecord, MetaOp, Stream};
use tersefs::host::{Disk, OpenMode, SimDisk, Survival};
use tersefs::store::{IndexEngine, RecordSummary, Store, StoreOptions, Survey};
use tersefs::tools::{FsckOptions, FsckReport, Kind, fsck, fsck_with};
use tersefs::volume::{Caller, Error, OpenFor, Volume, XattrMode};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const REPAIR: FsckOptions = FsckOptions { repair: true, dry_run: false, rebuild_index: false, drop_damaged: false };
const DROP: FsckOptions = FsckOptions { drop_damaged: true, ..REPAIR };

fn put(volume: &Arc<Volume>, dir: Ino, name: &str, bytes: &[u8]) -> Ino {
    let write = OpenFor { write: true, ..OpenFor::default() };
    let (attr, opened) = volume.create(dir, name.as_bytes(), 0o640, &CALLER, write).unwrap();
    volume.write(attr.ino, opened.handle, 0, bytes).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    attr.ino
}

/// A volume to damage, and what is in it.
struct Base {
    disk: SimDisk,
    workers: Arc<Workers>,
    inos: BTreeMap<&'static str, Ino>,
    bytes: BTreeMap<&'static str, Vec<u8>>,
}

const FILES: [(&str, usize); 5] =
    [("/top", 100_000), ("/dir/one", 3_000), ("/dir/sub/two", 5_000), ("/dir/sub/large", 700_000), ("/plain", 20_000)];

fn base() -> Base {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, options(Some(MethodId::Zstd)), &workers).unwrap();
    let dir = volume.mkdir(Ino::ROOT, b"dir", 0o755, &CALLER).unwrap().ino;
    let sub = volume.mkdir(dir, b"sub", 0o755, &CALLER).unwrap().ino;
    let mut inos = BTreeMap::from([("/dir", dir), ("/dir/sub", sub)]);
    let mut bytes = BTreeMap::new();
    let mut dice = Dice::new(11);
    for (path, len) in FILES {
        if path == "/plain" {
            // Everything before is coded, this one stays in staging.
            code_all(&volume, || ()).unwrap();
        }
        let (above, name) = path.rsplit_once('/').unwrap();
        let parent = inos.get(above).copied().unwrap_or(Ino::ROOT);
        let text = dice.text(len);
        inos.insert(path, put(&volume, parent, name, &text));
        bytes.insert(path, text);
    }
    volume.setxattr(inos["/top"], b"user.note", b"kept", XattrMode::Set).unwrap();
    volume.fsync(inos["/plain"], false).unwrap();
    volume.close().unwrap();
    Base { disk, workers, inos, bytes }
}

fn lookup(volume: &Volume, path: &str) -> Result<Ino, Error> {
    path.split('/')
        .filter(|p| !p.is_empty())
        .try_fold(Ino::ROOT, |dir, name| volume.lookup(dir, name.as_bytes()).map(|attr| attr.ino))
}

fn content(volume: &Arc<Volume>, path: &str) -> Result<Vec<u8>, Error> {
    let ino = lookup(volume, path)?;
    let size = volume.getattr(ino)?.size;
    read(volume, ino, 0, size + 1)
}

/// All files of the store's directory.
fn image(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (path, len) in disk.files() {
        let mut bytes = vec![0; len as usize];
        disk.open(&path, OpenMode::Read).unwrap().read_at(&mut bytes, 0).unwrap();
        all.insert(path, bytes);
    }
    all
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn store_of(disk: &SimDisk) -> Store {
    let options = StoreOptions { engine: IndexEngine::Memory, pack_bytes_max: 1 << 20, ..StoreOptions::default() };
    Store::open(shared(disk), options).unwrap().0
}

fn commit(disk: &SimDisk, ops: &[MetaOp]) {
    let store = store_of(disk);
    store.commit(ops).unwrap();
    store.sync_meta().unwrap();
}

fn record(disk: &SimDisk, ino: Ino) -> InodeRecord {
    store_of(disk).inode(ino).unwrap().unwrap()
}

fn extents(disk: &SimDisk, ino: Ino) -> Vec<Extent> {
    store_of(disk).extents(ino, ByteRange { start: 0, end: u64::MAX }, 1000).unwrap()
}

fn name(parent: Ino, name: &str) -> MetaOp {
    MetaOp::RemoveDentry { parent, name: name.as_bytes().to_vec() }
}

fn names(parent: Ino, name: &str, ino: Ino, kind: FileKind, cookie: u64) -> MetaOp {
    MetaOp::PutDentry { parent, name: name.as_bytes().to_vec(), dentry: Dentry { ino, kind, cookie } }
}

fn packs(disk: &SimDisk, stream: Stream) -> Vec<(PackId, String)> {
    let survey = Survey::open(shared(disk)).unwrap();
    let of = survey.packs().unwrap().into_iter().filter(|(_, s, _)| *s == Some(stream));
    of.map(|(id, _, _)| (id, format!("packs/{:02x}/pack-{:016x}.tpk", id.0 & 0xff, id.0))).collect()
}

fn run(disk: &SimDisk, options: FsckOptions) -> FsckReport {
    // A worker may hold a closed volume for a moment after its last read.
    for _ in 0..1000 {
        match disk.lock(false) {
            Ok(_) => break,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    fsck_with(shared(disk), options, &mut |_, _| ()).unwrap()
}

fn kinds(report: &FsckReport) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = report.problems.iter().chain(&report.notes).map(|p| p.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Damages a store, checks it, repairs it, and looks at what became of it.
fn check(expected: &[Kind], how: FsckOptions, damage: impl Fn(&Base, &SimDisk), mended: impl Fn(&Base, &Arc<Volume>)) {
    let base = base();
    let damaged = || {
        let disk = base.disk.survivor(Survival::Kernel);
        damage(&base, &disk);
        disk.survivor(Survival::Kernel)
    };
    let clean = |disk: &SimDisk, case: &str| {
        let again = run(disk, FsckOptions::default());
        assert!(again.problems.is_empty() && again.notes.is_empty(), "{case}: {again:#?}");
        let volume = open(disk, options(Some(MethodId::Zstd)), &base.workers).unwrap();
        mended(&base, &volume);
        volume.close().unwrap();
    };
    let disk = damaged();
    let before = image(&disk);
    let found = run(&disk, FsckOptions::default());
    assert_eq!(image(&disk), before, "a check changes nothing");
    for kind in expected {
        assert!(kinds(&found).contains(kind), "{kind:?} is not found: {found:#?}");
    }
    let plan = run(&disk, FsckOptions { dry_run: true, ..how });
    assert_eq!(image(&disk), before, "a dry run changes nothing");
    assert_eq!(kinds(&plan), kinds(&found));
    assert!(plan.problems.iter().chain(&plan.notes).all(|p| p.repair.is_some() && !p.repaired), "{plan:#?}");
    let report = run(&disk, how);
    assert_eq!(report.left(), 0, "{report:#?}");
    assert!(report.repaired() >= expected.len());
    clean(&disk, "repaired");
    // Cut off at every sync, and repaired again.
    let mut cuts = 0;
    for n in 1.. {
        let disk = damaged();
        disk.cut_power_at_sync(n);
        if fsck_with(shared(&disk), how, &mut |_, _| ()).is_ok() {
            break;
        }
        cuts += 1;
        for survival in [Survival::Synced, Survival::Kernel, Survival::Random(n), Survival::Random(n + 1000)] {
            let left = disk.survivor(survival);
            let report = run(&left, how);
            assert_eq!(report.left(), 0, "cut at sync {n}, {survival:?}: {report:#?}");
            clean(&left, &format!("cut at sync {n}, {survival:?}"));
        }
    }
    assert!(cuts > 0, "the repair syncs");
}

/// All files but those named have the bytes they had.
fn untouched(base: &Base, volume: &Arc<Volume>, but: &[&str]) {
    for (path, bytes) in base.bytes.iter().filter(|(path, _)| !but.contains(path)) {
        assert!(content(volume, path).unwrap_or_else(|e| panic!("{path}: {e}")) == *bytes, "{path} has other bytes");
    }
}

fn found_again(base: &Base, volume: &Arc<Volume>, path: &str) {
    let at = format!("/lost+found/{}", base.inos[path]);
    let found = content(volume, &at).unwrap_or_else(|e| panic!("{at}: {e}"));
    let wanted = &base.bytes[path];
    let same = found.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    assert!(
        found == *wanted,
        "{at}, once {path}: {} bytes of {}, {same} are right, then {:?}",
        found.len(),
        wanted.len(),
        String::from_utf8_lossy(&found[same..(same + 40).min(found.len())])
    );
    let dir = volume.getattr(lookup(volume, "/lost+found").unwrap()).unwrap();
    assert_eq!((dir.kind, dir.mode), (FileKind::Directory, 0o700));
}

#[test]
fn a_sound_store_has_no_problems() {
    let base = base();
    let report = fsck(shared(&base.disk), false, &mut |_, _| ()).unwrap();
    assert!(report.problems.is_empty() && report.notes.is_empty(), "{report:#?}");
    assert_eq!(report.inodes, 8);
    assert!(report.segments > 2 && report.extents >= report.segments);
    let repaired = run(&base.disk, REPAIR);
    assert_eq!((repaired.problems.len(), repaired.repaired()), (0, 0));
}

#[test]
fn name_to_nothing() {
    let damage = |_: &Base, d: &SimDisk| commit(d, &[names(Ino::ROOT, "ghost", Ino(9999), FileKind::Regular, 500)]);
    check(&[Kind::NameToNothing], REPAIR, damage, |b, v| {
        untouched(b, v, &[]);
        assert!(matches!(lookup(v, "/ghost"), Err(Error::NotFound)));
    });
}

#[test]
fn name_in_no_directory() {
    let damage = |b: &Base, d: &SimDisk| {
        let in_nothing = names(Ino(7777), "x", b.inos["/top"], FileKind::Regular, 500);
        commit(d, &[in_nothing, names(b.inos["/top"], "y", b.inos["/dir/one"], FileKind::Regular, 501)]);
    };
    check(&[Kind::NameInNoDirectory], REPAIR, damage, |b, v| untouched(b, v, &[]));
}

#[test]
fn inode_without_a_name() {
    let damage = |_: &Base, d: &SimDisk| commit(d, &[name(Ino::ROOT, "top")]);
    check(&[Kind::InodeWithoutName], REPAIR, damage, |b, v| {
        untouched(b, v, &["/top"]);
        found_again(b, v, "/top");
        let ino = lookup(v, &format!("/lost+found/{}", b.inos["/top"])).unwrap();
        assert_eq!(v.getxattr(ino, b"user.note").unwrap(), b"kept");
    });
}

#[test]
fn directory_without_a_name_comes_back_with_all_below() {
    let damage = |_: &Base, d: &SimDisk| commit(d, &[name(Ino::ROOT, "dir")]);
    check(&[Kind::InodeWithoutName, Kind::WrongLinkCount], REPAIR, damage, |b, v| {
        let below = |path: &str| format!("/lost+found/{}{}", b.inos["/dir"], &path["/dir".len()..]);
        for path in ["/dir/one", "/dir/sub/two", "/dir/sub/large"] {
            assert!(content(v, &below(path)).unwrap() == b.bytes[path], "{path}");
        }
        untouched(b, v, &["/dir/one", "/dir/sub/two", "/dir/sub/large"]);
    });
}

#[test]
fn a_file_that_is_called_lost_and_found_keeps_its_bytes() {
    let damage = |b: &Base, d: &SimDisk| {
        let moved = names(Ino::ROOT, "lost+found", b.inos["/plain"], FileKind::Regular, 600);
        commit(d, &[name(Ino::ROOT, "plain"), moved, name(Ino::ROOT, "top")]);
    };
    check(&[Kind::InodeWithoutName], REPAIR, damage, |b, v| {
        found_again(b, v, "/top");
        assert!(content(v, "/lost+found.1").unwrap() == b.bytes["/plain"]);
    });
}

#[test]
fn wrong_link_count() {
    for nlink in [7, 0] {
        let damage = move |b: &Base, d: &SimDisk| {
            let rec = InodeRecord { nlink, ..record(d, b.inos["/top"]) };
            let dir = InodeRecord { nlink: 9, ..record(d, b.inos["/dir"]) };
            commit(d, &[MetaOp::PutInode(rec), MetaOp::PutInode(dir)]);
        };
        check(&[Kind::WrongLinkCount], REPAIR, damage, |b, v| {
            untouched(b, v, &[]);
            assert_eq!(v.getattr(b.inos["/top"]).unwrap().nlink, 1);
            assert_eq!(v.getattr(b.inos["/dir"]).unwrap().nlink, 3);
        });
    }
}

#[test]
fn wrong_kind_in_a_name() {
    let damage = |b: &Base, d: &SimDisk| {
        commit(
            d,
            &[
                names(Ino::ROOT, "top", b.inos["/top"], FileKind::Directory, 500),
                names(b.inos["/dir"], "sub", b.inos["/dir/sub"], FileKind::Symlink, 501),
            ],
        );
    };
    check(&[Kind::WrongKindInName], REPAIR, damage, |b, v| untouched(b, v, &[]));
}

#[test]
fn a_name_that_is_not_listed() {
    let damage = |b: &Base, d: &SimDisk| {
        let one = store_of(d).dentry(b.inos["/dir"], b"one").unwrap().unwrap();
        commit(d, &[names(b.inos["/dir"], "other", b.inos["/top"], FileKind::Regular, one.cookie)]);
    };
    check(&[Kind::UnlistedName], REPAIR, damage, |b, v| {
        untouched(b, v, &[]);
        assert!(content(v, "/dir/other").unwrap() == b.bytes["/top"]);
        assert_eq!(v.getattr(b.inos["/top"]).unwrap().nlink, 2);
    });
}

#[test]
fn a_directory_with_two_names() {
    let damage = |b: &Base, d: &SimDisk| {
        commit(
            d,
            &[
                names(Ino::ROOT, "again", b.inos["/dir/sub"], FileKind::Directory, 500),
                names(b.inos["/dir"], "root", Ino::ROOT, FileKind::Directory, 501),
            ],
        );
    };
    check(&[Kind::DirectoryTwoNames], REPAIR, damage, |b, v| {
        untouched(b, v, &[]);
        assert!(lookup(v, "/again").is_err() && lookup(v, "/dir/root").is_err());
        assert_eq!(v.getattr(Ino::ROOT).unwrap().nlink, 3);
    });
}

#[test]
fn directories_that_contain_each_other() {
    let damage = |b: &Base, d: &SimDisk| {
        commit(d, &[name(Ino::ROOT, "dir"), names(b.inos["/dir/sub"], "up", b.inos["/dir"], FileKind::Directory, 500)]);
    };
    check(&[Kind::DirectoryCycle], REPAIR, damage, |b, v| {
        let lost = lookup(v, "/lost+found").unwrap();
        let top =
            [b.inos["/dir"], b.inos["/dir/sub"]].into_iter().find(|i| v.lookup(lost, i.to_string().as_bytes()).is_ok());
        let two = match top.unwrap() {
            ino if ino == b.inos["/dir"] => format!("/lost+found/{ino}/sub/two"),
            ino => format!("/lost+found/{ino}/two"),
        };
        assert!(content(v, &two).unwrap() == b.bytes["/dir/sub/two"]);
        untouched(b, v, &["/dir/one", "/dir/sub/two", "/dir/sub/large"]);
    });
}

#[test]
fn wrong_parent() {
    let damage = |b: &Base, d: &SimDisk| {
        let rec = InodeRecord { parent: Ino::ROOT, ..record(d, b.inos["/dir/sub"]) };
        commit(d, &[MetaOp::PutInode(rec)]);
    };
    check(&[Kind::WrongParent], REPAIR, damage, |b, v| untouched(b, v, &[]));
}

#[test]
fn extent_beyond_the_size() {
    let damage = |b: &Base, d: &SimDisk| {
        let rec = InodeRecord { size: 50_000, ..record(d, b.inos["/top"]) };
        commit(d, &[MetaOp::PutInode(rec)]);
    };
    check(&[Kind::ExtentBeyondSize], REPAIR, damage, |b, v| {
        untouched(b, v, &["/top"]);
        assert!(content(v, "/top").unwrap() == b.bytes["/top"][..50_000]);
    });
}

/// No writer makes such extents: they are longer than a segment may be, so that the index does not see them meet.
#[test]
fn overlapping_extents() {
    const LONG: u32 = (1 << 20) + 8192;
    let damage = |b: &Base, d: &SimDisk| {
        let ino = b.inos["/top"];
        let good = extents(d, ino)[0];
        let long = Extent { len: LONG, segment_bytes: LONG, segment_offset: 0, file_offset: 0, ..good };
        let late = Extent { file_offset: u64::from(LONG) - 4096, len: 4096, ..good };
        let rec = InodeRecord { size: 2 << 20, ..record(d, ino) };
        commit(
            d,
            &[MetaOp::PutInode(rec), MetaOp::PutExtent { ino, extent: long }, MetaOp::PutExtent { ino, extent: late }],
        );
    };
    check(&[Kind::OverlappingExtents, Kind::DamagedSegment], DROP, damage, |b, v| {
        untouched(b, v, &["/top"]);
        let found = content(v, "/top").unwrap();
        assert!(found[LONG as usize - 4096..][..4096] == b.bytes["/top"][..4096]);
        assert!(found[..LONG as usize - 4096].iter().all(|b| *b == 0));
    });
}

#[test]
fn wrong_segment_length() {
    let damage = |b: &Base, d: &SimDisk| {
        for path in ["/top", "/dir/sub/large"] {
            let ino = b.inos[path];
            let e = extents(d, ino)[0];
            let wrong = match path {
                "/top" => Extent { segment_bytes: e.segment_bytes + 1, ..e },
                _ => {
                    Extent { segment: SegmentRef { stored_len: e.segment.stored_len + 8, ..e.segment }, method: 0, ..e }
                }
            };
            commit(d, &[MetaOp::PutExtent { ino, extent: wrong }]);
        }
    };
    check(&[Kind::WrongSegmentLength], REPAIR, damage, |b, v| untouched(b, v, &[]));
}

/// What cannot be read is listed with its bytes and stays an error, until somebody gives it up.
#[test]
fn damaged_and_missing_segments() {
    let base = base();
    for missing in [false, true] {
        let disk = base.disk.survivor(Survival::Kernel);
        let segments = extents(&disk, base.inos["/dir/sub/large"]);
        let last = segments.last().copied().unwrap();
        let (pack, path) = packs(&disk, Stream::Data).into_iter().find(|(id, _)| *id == last.segment.pack).unwrap();
        if missing {
            disk.remove(&path).unwrap();
        } else {
            assert!(disk.rot(&path, last.segment.offset + u64::from(last.segment.stored_len) / 2, 0x20));
        }
        let lost: Vec<(u64, u64)> = segments
            .iter()
            .filter(|e| if missing { e.segment.pack == pack } else { e.segment == last.segment })
            .map(|e| (e.file_offset, e.file_offset + u64::from(e.len)))
            .collect();
        let report = run(&disk, REPAIR);
        let large = report.problems.iter().find(|p| p.at == "/dir/sub/large").unwrap();
        assert_eq!((large.kind, large.repaired, &large.repair), (Kind::DamagedSegment, false, &None));
        assert_eq!((large.ranges[0].0, large.ranges.last().unwrap().1), (lost[0].0, 700_000));
        assert_eq!(report.left(), report.problems.len());
        let volume = open(&disk, options(Some(MethodId::Zstd)), &base.workers).unwrap();
        assert!(matches!(content(&volume, "/dir/sub/large"), Err(Error::Damaged { .. } | Error::Store(_))));
        volume.close().unwrap();
        drop(volume);
        let dropped = run(&disk, DROP);
        assert_eq!(dropped.left(), 0, "{dropped:#?}");
        assert!(run(&disk, FsckOptions::default()).problems.is_empty());
        let volume = open(&disk, options(Some(MethodId::Zstd)), &base.workers).unwrap();
        let found = content(&volume, "/dir/sub/large").unwrap();
        let whole = &base.bytes["/dir/sub/large"];
        assert_eq!(found.len(), whole.len());
        for (at, (found, whole)) in found.iter().zip(whole).enumerate() {
            let gone = lost.iter().any(|(start, end)| (*start..*end).contains(&(at as u64)));
            assert_eq!(*found, if gone { 0 } else { *whole }, "byte {at}");
        }
        if !missing {
            untouched(&base, &volume, &["/dir/sub/large"]);
        }
    }
}

#[test]
fn missing_root() {
    let damage = |_: &Base, d: &SimDisk| commit(d, &[MetaOp::RemoveInode(Ino::ROOT)]);
    check(&[Kind::MissingRoot], REPAIR, damage, |b, v| untouched(b, v, &[]));
}

#[test]
fn orphan_inode() {
    let damage = |b: &Base, d: &SimDisk| {
        let rec = InodeRecord { nlink: 0, ..record(d, b.inos["/top"]) };
        commit(d, &[name(Ino::ROOT, "top"), MetaOp::PutInode(rec)]);
    };
    check(&[Kind::OrphanInode], REPAIR, damage, |b, v| {
        untouched(b, v, &["/top"]);
        assert!(lookup(v, "/top").is_err() && lookup(v, "/lost+found").is_err());
    });
}

#[test]
fn xattrs_of_no_inode() {
    let op = MetaOp::PutXattr { ino: Ino(5555), name: b"user.x".to_vec(), value: b"y".to_vec() };
    check(&[Kind::XattrsOfNoInode], REPAIR, |_, d| commit(d, std::slice::from_ref(&op)), |b, v| untouched(b, v, &[]));
}

#[test]
fn wrong_charge() {
    let damage = |b: &Base, d: &SimDisk| {
        let rec = InodeRecord { stored_bytes: 1 << 30, ..record(d, b.inos["/top"]) };
        let other = InodeRecord { stored_bytes: 0, coded: false, ..record(d, b.inos["/dir/sub/large"]) };
        commit(d, &[MetaOp::PutInode(rec), MetaOp::PutInode(other)]);
    };
    check(&[Kind::WrongCharge], REPAIR, damage, |b, v| {
        untouched(b, v, &[]);
        assert!(v.getattr(b.inos["/top"]).unwrap().blocks < 200);
    });
}

#[test]
fn stale_files() {
    let damage = |_: &Base, d: &SimDisk| {
        for path in ["staging/999.77", "FORMAT.copy.new", "packs/01/pack-0000000000000001.tpk.new"] {
            let file = d.open(path, OpenMode::CreateNew).unwrap();
            file.write_at(b"left behind", 0).unwrap();
            file.sync_data().unwrap();
        }
        for dir in ["staging", "", "packs/01"] {
            d.sync_dir(dir).unwrap();
        }
    };
    check(&[Kind::StaleStaging, Kind::StaleFile], REPAIR, damage, |b, v| untouched(b, v, &[]));
}

#[test]
fn foreign_files_are_noted_and_left_alone() {
    let base = base();
    for path in ["notes.txt", "staging/readme", "packs/01/x"] {
        base.disk.open(path, OpenMode::CreateNew).unwrap().write_at(b"mine", 0).unwrap();
    }
    let report = run(&base.disk, REPAIR);
    assert_eq!((kinds(&report), report.problems.len(), report.notes.len()), (vec![Kind::ForeignFile], 0, 3));
    assert!(base.disk.open("notes.txt", OpenMode::Read).is_ok());
}

#[test]
fn superblock_damaged_or_lost() {
    for damaged in [&["FORMAT"][..], &["FORMAT.copy"], &["FORMAT", "FORMAT.copy"]] {
        let damage = move |_: &Base, d: &SimDisk| damaged.iter().for_each(|path| assert!(d.rot(path, 80, 1)));
        check(&[Kind::Superblock], REPAIR, damage, |b, v| untouched(b, v, &[]));
    }
    let gone = |_: &Base, d: &SimDisk| ["FORMAT", "FORMAT.copy"].iter().for_each(|path| d.remove(path).unwrap());
    check(&[Kind::Superblock], REPAIR, gone, |b, v| untouched(b, v, &[]));
}

/// Extents without their inode: the file is put together from them.
#[test]
fn extents_of_no_inode() {
    let damage = |b: &Base, d: &SimDisk| {
        let ino = b.inos["/dir/sub/large"];
        let mut ops = vec![MetaOp::RemoveInode(ino), name(b.inos["/dir/sub"], "large")];
        ops.extend(extents(d, ino).into_iter().map(|extent| MetaOp::PutExtent { ino, extent }));
        ops.push(MetaOp::PutXattr { ino, name: b"user.x".to_vec(), value: b"still".to_vec() });
        commit(d, &ops);
    };
    check(&[Kind::LostFile], REPAIR, damage, |b, v| {
        untouched(b, v, &["/dir/sub/large"]);
        found_again(b, v, "/dir/sub/large");
        assert_eq!(v.getxattr(b.inos["/dir/sub/large"], b"user.x").unwrap(), b"still");
    });
}

/// All metadata is gone: segments name the inodes they belong to, and so do staging files. The bytes come back.
#[test]
fn everything_but_the_segments_is_lost() {
    let damage = |_: &Base, d: &SimDisk| {
        for (_, path) in packs(d, Stream::Meta) {
            let file = d.open(&path, OpenMode::Write).unwrap();
            let len = file.len().unwrap();
            // The first record of the pack stays: whatever is behind it does not.
            file.write_at(&vec![0xdb; len as usize - 64], 64).unwrap();
            file.sync_data().unwrap();
        }
    };
    check(&[Kind::MissingRoot, Kind::LostFile], REPAIR, damage, |b, v| {
        for (path, _) in FILES {
            found_again(b, v, path);
        }
        // What is new gets numbers that nothing old has.
        let ino = put(v, Ino::ROOT, "new", b"new");
        assert!(b.inos.values().all(|old| *old != ino));
        assert_eq!(content(v, "/new").unwrap(), b"new");
        v.unlink(Ino::ROOT, b"new").unwrap();
    });
}

/// As before, with every meta pack deleted or damaged from its first byte on.
#[test]
fn the_metadata_packs_are_gone() {
    for gone in [true, false] {
        let damage = move |_: &Base, d: &SimDisk| {
            for (_, path) in packs(d, Stream::Meta) {
                if gone {
                    d.remove(&path).unwrap();
                    d.sync_dir(path.rsplit_once('/').unwrap().0).unwrap();
                } else {
                    let file = d.open(&path, OpenMode::Write).unwrap();
                    file.write_at(&vec![0; file.len().unwrap() as usize], 0).unwrap();
                    file.sync_data().unwrap();
                }
            }
        };
        check(&[Kind::LostFile], REPAIR, damage, |b, v| FILES.iter().for_each(|(path, _)| found_again(b, v, path)));
    }
}

/// Offset of the transaction that has an operation, in the only pack of metadata.
fn transaction(disk: &SimDisk, wanted: impl Fn(&MetaOp) -> bool) -> (String, u64, u64) {
    let survey = Survey::open(shared(disk)).unwrap();
    for (id, path) in packs(disk, Stream::Meta) {
        let mut found = None;
        survey
            .walk(id, false, |offset, len, record| {
                if let RecordSummary::Meta { ops, .. } = record
                    && ops.iter().any(&wanted)
                {
                    found.get_or_insert((offset, len));
                }
                Ok(())
            })
            .unwrap();
        if let Some((offset, len)) = found {
            return (path, offset, len);
        }
    }
    panic!("no such transaction");
}

/// The transaction that made a file is lost; names and extents made later, and segments, are still there.
#[test]
fn a_transaction_of_the_log_is_damaged() {
    let damage = |b: &Base, d: &SimDisk| {
        let ino = b.inos["/top"];
        let (path, offset, len) =
            transaction(d, |op| matches!(op, MetaOp::PutDentry { dentry, .. } if dentry.ino == ino));
        assert!(d.rot(&path, offset + len / 2, 1));
    };
    check(&[Kind::DamagedMetadata], REPAIR, damage, |b, v| {
        untouched(b, v, &["/top"]);
        found_again(b, v, "/top");
    });
}

/// The transaction that named the segments of a file is lost: the file reads as zeros, its bytes are kept beside it.
#[test]
fn extents_are_lost_but_not_their_segments() {
    let damage = |b: &Base, d: &SimDisk| {
        let top = b.inos["/top"];
        let (path, offset, len) = transaction(d, |op| matches!(op, MetaOp::PutExtent { ino, .. } if *ino == top));
        assert!(d.rot(&path, offset + len / 2, 1));
    };
    check(&[Kind::DamagedMetadata, Kind::LostExtents], REPAIR, damage, |b, v| {
        found_again(b, v, "/top");
        untouched(b, v, &["/top", "/dir/one", "/dir/sub/two", "/dir/sub/large"]);
    });
}

#[test]
fn the_names_of_kinds_stay() {
    let report = {
        let base = base();
        commit(&base.disk, &[name(Ino::ROOT, "top")]);
        run(&base.disk, FsckOptions::default())
    };
    let json = serde_json::to_value(&report).unwrap();
    let kinds: Vec<&str> = json["problems"].as_array().unwrap().iter().map(|p| p["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["inode_without_name"]);
    assert_eq!(json["problems"][0]["repaired"], false);
    assert!(json["problems"][0]["repair"].as_str().unwrap().contains("lost+found"));
}
