//! The store on a real directory with sled: what an index may suffer, and that packs alone restore everything.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::Dice;
use tersefs::base::{
    ByteRange, Class, Generation, Ino, MethodId, PackId, SegmentRef, crc32c, crc32c_append, plain_hash,
};
use tersefs::format::{
    Coding, Dentry, Extent, FileKind, InodeRecord, MetaOp, Owner, Place, RecordKind, SegmentHeader, Time, encode_ops,
    encode_record,
};
use tersefs::host::{Disk, RealDisk};
use tersefs::store::{Error, IndexEngine, RecordSummary, Store, StoreOptions, Survey};

const FILES: u64 = 300;

fn disk(dir: &Path) -> Arc<dyn Disk> {
    RealDisk::open(dir, true).unwrap()
}

fn options(engine: IndexEngine) -> StoreOptions {
    StoreOptions { engine, pack_bytes_max: 1 << 20, ..StoreOptions::default() }
}

fn inode(ino: u64, size: u64) -> InodeRecord {
    let t = Time { secs: 1_700_000_000 + ino as i64, nanos: 1 };
    InodeRecord {
        ino: Ino(ino),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 1,
        gid: 2,
        nlink: 1,
        rdev: 0,
        size,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        generation: Generation(1),
        staging: None,
        coded: true,
        stored_bytes: size,
        target: Vec::new(),
        parent: Ino::ROOT,
    }
}

fn segment(store: &Store, ino: u64, payload: &[u8]) -> SegmentRef {
    let coding = Coding {
        method: MethodId::Raw as u16,
        revision: 1,
        profile: 0,
        class: Class::Unknown,
        raw_len: payload.len() as u32,
        model: [0; 16],
        plain_hash: plain_hash(payload),
        reference: None,
    };
    let owners = vec![Owner { ino: Ino(ino), file_offset: 0, segment_offset: 0, len: payload.len() as u32 }];
    store.append_segment(&SegmentHeader { coding, owners }, payload).unwrap()
}

/// A store with files, xattrs, removed names and cut extents.
fn fill(dir: &Path) {
    let disk = disk(dir);
    Store::create(&disk, 1 << 20).unwrap();
    let (store, _) = Store::open(disk, options(IndexEngine::Sled)).unwrap();
    let mut dice = Dice::new(4);
    for n in 0..FILES {
        let ino = store.allocate_ino();
        let len = 1000 + dice.roll(9000);
        let at = segment(&store, ino.0, &dice.text(len as usize));
        let extent = Extent {
            file_offset: 0,
            len: len as u32,
            segment: at,
            segment_offset: 0,
            segment_bytes: len as u32,
            method: 0,
            reference: None,
        };
        let dentry = Dentry { ino, kind: FileKind::Regular, cookie: store.allocate_serial() };
        store
            .commit(&[
                MetaOp::PutInode(inode(ino.0, len)),
                MetaOp::PutDentry { parent: Ino::ROOT, name: format!("f{n}").into_bytes(), dentry },
                MetaOp::PutExtent { ino, extent },
            ])
            .unwrap();
        if n % 3 == 0 {
            let value = vec![n as u8; 50];
            store.commit(&[MetaOp::PutXattr { ino, name: b"user.n".to_vec(), value }]).unwrap();
        }
        if n % 5 == 0 {
            store.commit(&[MetaOp::RemoveExtents { ino, start: 100, end: 300 }]).unwrap();
        }
        if n % 7 == 0 {
            let name = format!("f{n}").into_bytes();
            store.commit(&[MetaOp::RemoveDentry { parent: Ino::ROOT, name }, MetaOp::RemoveInode(ino)]).unwrap();
        }
        if n == FILES / 2 {
            store.checkpoint().unwrap();
        }
    }
    store.sync_segments().unwrap();
    store.sync_meta().unwrap();
    store.close().unwrap();
}

/// Everything a store knows, as text.
fn dump(store: &Store) -> Vec<String> {
    let mut out = Vec::new();
    for rec in store.inodes(Ino(0), 100_000).unwrap() {
        out.push(format!("{rec:?}"));
        for e in store.extents(rec.ino, ByteRange { start: 0, end: u64::MAX }, 1000).unwrap() {
            out.push(format!("{} {e:?}", rec.ino));
        }
        for name in store.xattr_names(rec.ino).unwrap() {
            out.push(format!("{} {name:?} {:?}", rec.ino, store.xattr(rec.ino, &name).unwrap()));
        }
        for (name, dentry) in store.dentries(rec.ino, 0, 10_000).unwrap() {
            out.push(format!("{} {name:?} {dentry:?}", rec.ino));
        }
    }
    out.push(format!("{:?}", store.usage().inodes));
    out.push(format!("{:?}", store.ledger()));
    assert_eq!(store.audit().unwrap(), [""; 0], "the sums are those of the extents");
    out
}

fn open(dir: &Path, engine: IndexEngine) -> (Store, tersefs::store::Recovery) {
    Store::open(disk(dir), options(engine)).unwrap()
}

#[test]
fn the_index_follows_from_the_packs() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (store, recovery) = open(dir.path(), IndexEngine::Sled);
    assert!(!recovery.rebuilt && recovery.replayed < 5, "{recovery:?}");
    let known = dump(&store);
    assert!(known.len() > FILES as usize * 2);
    drop(store);
    // Deleted, replaced by garbage, of an older time: the same is found again.
    let index = dir.path().join("index");
    let older = dir.path().join("older");
    copy(&index, &older);
    for damage in ["deleted", "garbage", "cut", "older", "flipped"] {
        match damage {
            "deleted" => std::fs::remove_dir_all(&index).unwrap(),
            "garbage" => each_file(&index, |p| std::fs::write(p, vec![0xa5; 5000]).unwrap()),
            "cut" => each_file(&index, |p| {
                let bytes = std::fs::read(p).unwrap();
                std::fs::write(p, &bytes[..bytes.len() / 2]).unwrap();
            }),
            "older" => {
                std::fs::remove_dir_all(&index).unwrap();
                copy(&older, &index);
            }
            _ => each_file(&index, |p| {
                let mut bytes = std::fs::read(p).unwrap();
                for at in (100..bytes.len()).step_by(997) {
                    bytes[at] ^= 0x11;
                }
                std::fs::write(p, bytes).unwrap();
            }),
        }
        let (store, _) = open(dir.path(), IndexEngine::Sled);
        assert_eq!(dump(&store), known, "{damage}");
        store.close().unwrap();
    }
    let (store, _) = open(dir.path(), IndexEngine::Memory);
    assert_eq!(dump(&store), known, "in memory");
}

/// A log that is longer than what may wait in memory is taken in by parts, and wherever that ends the next open goes on.
#[test]
fn a_long_log_is_taken_in_by_parts() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let known = {
        let (store, _) = open(dir.path(), IndexEngine::Sled);
        // Enough that the log begins with a snapshot, of which the parts are taken too.
        for n in 0..120 {
            let value = vec![n as u8; 2000];
            store.commit(&[MetaOp::PutXattr { ino: Ino(4), name: b"user.long".to_vec(), value }]).unwrap();
        }
        store.close().unwrap();
        dump(&store)
    };
    let small = StoreOptions { overlay_bytes: 4096, ..options(IndexEngine::Sled) };
    let rebuild = StoreOptions { rebuild: true, ..small };
    let (store, recovery) = Store::open(disk(dir.path()), rebuild).unwrap();
    assert!(recovery.rebuilt && store.overlay_bytes() < 8192, "{recovery:?}, {} bytes", store.overlay_bytes());
    assert_eq!(dump(&store), known);
    drop(store);
    // The process dies somewhere on the way: what of the log lies behind is damaged, so that the open fails or ends there.
    let at = dir.path().join("index");
    std::fs::remove_dir_all(&at).unwrap();
    let (id, path) = pack(dir.path(), true);
    let whole = std::fs::read(&path).unwrap();
    for part in [3, 5, 8] {
        std::fs::write(&path, &whole[..whole.len() * part / 10]).unwrap();
        let (store, _) = Store::open(disk(dir.path()), small).unwrap();
        drop(store);
        std::fs::write(&path, &whole).unwrap();
    }
    let (store, recovery) = Store::open(disk(dir.path()), small).unwrap();
    assert!(!recovery.rebuilt, "pack {id}: {recovery:?}");
    assert_eq!(dump(&store), known, "gone on with");
}

/// The engine is opened anew while others read and commit: nobody notices.
#[test]
fn an_index_that_is_opened_anew_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (store, _) = open(dir.path(), IndexEngine::Sled);
    let known = dump(&store);
    std::thread::scope(|s| {
        let work = s.spawn(|| {
            for n in 0..400u64 {
                let rec = inode(1_000_000 + n, n);
                store.commit(&[MetaOp::PutInode(rec.clone())]).unwrap();
                assert_eq!(store.inode(rec.ino).unwrap(), Some(rec));
                if n % 50 == 0 {
                    store.checkpoint().unwrap();
                }
                store.commit(&[MetaOp::RemoveInode(Ino(1_000_000 + n))]).unwrap();
            }
        });
        let mut times = 0;
        // It has ended, too, where it failed.
        while !work.is_finished() || times == 0 {
            store.reopen_index();
            times += 1;
        }
    });
    assert_eq!(dump(&store), known);
    drop(store);
    let (store, recovery) = open(dir.path(), IndexEngine::Sled);
    assert!(!recovery.rebuilt, "{recovery:?}");
    assert_eq!(dump(&store), known);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn each_file(dir: &Path, f: impl Fn(&Path) + Copy) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() { each_file(&entry.path(), f) } else { f(&entry.path()) }
    }
}

/// The only pack of a stream.
fn pack(dir: &Path, meta: bool) -> (PackId, std::path::PathBuf) {
    let survey = Survey::open(disk(dir)).unwrap();
    let stream = if meta { tersefs::format::Stream::Meta } else { tersefs::format::Stream::Data };
    let found = survey.packs().unwrap().into_iter().rfind(|(_, s, _)| *s == Some(stream)).unwrap();
    let path = dir.join(format!("packs/{:02x}/pack-{:016x}.tpk", found.0.0 & 0xff, found.0.0));
    (found.0, path)
}

#[test]
fn a_torn_tail_is_cut_and_a_damaged_middle_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (_, path) = pack(dir.path(), true);
    let bytes = std::fs::read(&path).unwrap();
    for cut in [1, 5, 9, 20, 44, 60, 100] {
        std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        let (store, recovery) = open(dir.path(), IndexEngine::Memory);
        assert!(recovery.damage.is_empty(), "{recovery:?}");
        // What comes next is found again.
        store.commit(&[MetaOp::PutInode(inode(9999, 1))]).unwrap();
        store.sync_meta().unwrap();
        drop(store);
        let (store, recovery) = open(dir.path(), IndexEngine::Memory);
        assert!(recovery.damage.is_empty() && store.inode(Ino(9999)).unwrap().is_some());
    }
    let mut bad = bytes.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x80;
    std::fs::write(&path, &bad).unwrap();
    let (store, recovery) = open(dir.path(), IndexEngine::Memory);
    assert_eq!(recovery.damage.len(), 1, "{recovery:?}");
    assert!(store.inodes(Ino(0), 10_000).unwrap().len() as u64 > FILES / 2);
}

#[test]
fn records_inside_users_data_are_never_taken_for_ours() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    // A file that holds a whole pack of this very volume, stored raw.
    let (_, meta_path) = pack(dir.path(), true);
    let inner = std::fs::read(&meta_path).unwrap();
    let (store, _) = open(dir.path(), IndexEngine::Sled);
    let at = segment(&store, 4242, &inner[..inner.len().min(1 << 20)]);
    store.sync_segments().unwrap();
    store.close().unwrap();
    drop(store);
    // Its header is destroyed: the search for the next record goes through its payload.
    let data_path = dir.path().join(format!("packs/{:02x}/pack-{:016x}.tpk", at.pack.0 & 0xff, at.pack.0));
    let mut bytes = std::fs::read(&data_path).unwrap();
    bytes[at.offset as usize + 3] ^= 0xff;
    std::fs::write(&data_path, bytes).unwrap();
    let survey = Survey::open(disk(dir.path())).unwrap();
    let mut damage = 0;
    survey
        .walk(at.pack, true, |offset, _, record| {
            match record {
                RecordSummary::Damage { .. } => damage += 1,
                RecordSummary::Meta { .. } | RecordSummary::Snapshot { .. } => {
                    panic!("a record at {offset} inside data")
                }
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(damage, 1);
}

#[test]
fn one_writer_and_no_newer_format() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (store, _) = open(dir.path(), IndexEngine::Sled);
    assert!(matches!(Store::open(disk(dir.path()), options(IndexEngine::Sled)), Err(Error::Locked)));
    drop(store);
    let format = dir.path().join("FORMAT");
    let good = std::fs::read(&format).unwrap();
    let mut block = tersefs::format::Superblock::decode(&good).unwrap();
    block.version = 7;
    std::fs::write(&format, block.encode()).unwrap();
    match Store::open(disk(dir.path()), options(IndexEngine::Sled)) {
        Err(Error::Unusable(why)) => assert!(why.contains("version 7"), "{why}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
    (block.version, block.ro_compat) = (1, 8);
    std::fs::write(&format, block.encode()).unwrap();
    let (store, _) = open(dir.path(), IndexEngine::Sled);
    assert!(store.is_read_only() && matches!(store.commit(&[]), Err(Error::ReadOnly)));
}

/// Adds three inodes that nobody syncs, one transaction each; returns where in the log each of them ends.
fn add_unsynced(store: &Store, path: &Path) -> Vec<u64> {
    let len = || std::fs::metadata(path).unwrap().len();
    let mut ends = vec![len()];
    for ino in [9002, 9003, 9004] {
        store.commit(&[MetaOp::PutInode(inode(ino, 1))]).unwrap();
        ends.push(len());
    }
    ends
}

fn zero(path: &Path, from: u64, to: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[from as usize..to as usize].fill(0);
    std::fs::write(path, bytes).unwrap();
}

fn which(store: &Store) -> Vec<u64> {
    (9001..9009).filter(|n| store.inode(Ino(*n)).unwrap().is_some()).collect()
}

#[test]
fn a_gap_in_what_was_never_synced_ends_the_log() {
    for engine in [IndexEngine::Memory, IndexEngine::Sled] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let (_, path) = pack(dir.path(), true);
        let (store, _) = open(dir.path(), engine);
        store.commit(&[MetaOp::PutInode(inode(9001, 1))]).unwrap();
        store.sync_meta().unwrap();
        let ends = add_unsynced(&store, &path);
        drop(store);
        // A disk that writes out of order: the second of three is lost, the third is there.
        zero(&path, ends[1], ends[2]);
        let (store, recovery) = open(dir.path(), engine);
        assert!(recovery.cut && recovery.damage.is_empty(), "{recovery:?}");
        assert_eq!(which(&store), [9001, 9002], "what was synced, and what came before the gap");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), ends[1], "what lies behind the gap cannot come back");
        store.commit(&[MetaOp::PutInode(inode(9005, 1))]).unwrap();
        drop(store);
        let (store, recovery) = open(dir.path(), IndexEngine::Memory);
        assert!(!recovery.cut && recovery.damage.is_empty(), "{recovery:?}");
        assert_eq!(which(&store), [9001, 9002, 9005]);
    }
}

#[test]
fn a_gap_in_what_was_synced_is_rot_and_loses_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (_, path) = pack(dir.path(), true);
    let (store, _) = open(dir.path(), IndexEngine::Memory);
    let ends = add_unsynced(&store, &path);
    store.sync_meta().unwrap();
    // Only this one says that those before it were on disk.
    store.commit(&[MetaOp::PutInode(inode(9005, 1))]).unwrap();
    drop(store);
    zero(&path, ends[1], ends[2]);
    let (store, recovery) = open(dir.path(), IndexEngine::Memory);
    assert!(!recovery.cut && recovery.damage.len() == 1, "{recovery:?}");
    assert_eq!(which(&store), [9002, 9004, 9005]);
    // A store that was closed says so of its last transactions too.
    store.commit(&[MetaOp::PutInode(inode(9006, 1))]).unwrap();
    let ends = add_unsynced(&store, &path);
    store.close().unwrap();
    drop(store);
    let (_, path) = pack(dir.path(), true);
    if std::fs::metadata(&path).unwrap().len() > ends[3] {
        zero(&path, ends[0], ends[1]);
        let (store, recovery) = open(dir.path(), IndexEngine::Memory);
        assert!(!recovery.cut && recovery.damage.len() == 2, "{recovery:?}");
        assert_eq!(which(&store), [9002, 9003, 9004, 9005, 9006]);
    } else {
        panic!("the log was compacted; make it shorter");
    }
}

#[test]
fn a_gap_in_a_log_of_an_older_build_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (id, path) = pack(dir.path(), true);
    let uuid = Survey::open(disk(dir.path())).unwrap().uuid();
    let (store, _) = open(dir.path(), IndexEngine::Memory);
    let txid = store.commit(&[MetaOp::PutInode(inode(9001, 1))]).unwrap().0;
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    for (n, ino) in [9002, 9003, 9004].into_iter().enumerate() {
        let place = Place { uuid, pack: id, offset: bytes.len() as u64 };
        let body = encode_ops(&[MetaOp::PutInode(inode(ino, 1))]);
        let mut record = encode_record(place, RecordKind::Meta, txid + 1 + n as u64, &[], &body, None);
        if ino == 9003 {
            record.fill(0);
        }
        bytes.extend(record);
    }
    std::fs::write(&path, bytes).unwrap();
    let (store, recovery) = open(dir.path(), IndexEngine::Memory);
    assert!(!recovery.cut && recovery.damage.len() == 1, "{recovery:?}");
    assert_eq!(which(&store), [9001, 9002, 9004]);
}

/// Where the log is known to the index, among its keys.
const POSITION: &[u8] = b"Sposition";

fn index_keys(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let db = sled::open(dir.join("index")).unwrap();
    change(&db);
    db.flush().unwrap();
}

/// A value as the index keeps it.
fn checked(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = crc32c_append(crc32c(key), value).to_le_bytes().to_vec();
    out.extend_from_slice(value);
    out
}

#[test]
fn sums_of_an_index_whose_checkpoint_was_cut_off_are_counted_anew() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (store, _) = open(dir.path(), IndexEngine::Sled);
    let known = dump(&store);
    drop(store);
    index_keys(dir.path(), |db| {
        // As it is left by a crash while keys are written: marked, with keys of another time.
        let mut position = db.get(POSITION).unwrap().unwrap()[4..].to_vec();
        assert_eq!(position.len(), 72);
        position[56] = 1;
        db.insert(POSITION, checked(POSITION, &position)).unwrap();
        let of = |tag: u8| db.scan_prefix([tag]).map(|pair| pair.unwrap().0.to_vec()).collect::<Vec<_>>();
        for (n, key) in of(b'R').into_iter().enumerate() {
            match n % 3 {
                0 => drop(db.remove(&key).unwrap()),
                1 => {
                    let mut other = key.clone();
                    other[12] ^= 0x40;
                    db.insert(&*other, checked(&other, &[])).unwrap();
                }
                _ => {}
            }
        }
        for key in of(b'G').iter().step_by(2).chain(of(b'L').iter()) {
            let mut value = db.get(key).unwrap().unwrap()[4..].to_vec();
            value[8] ^= 3;
            db.insert(&**key, checked(key, &value)).unwrap();
        }
    });
    let (store, recovery) = open(dir.path(), IndexEngine::Sled);
    assert!(!recovery.rebuilt);
    assert_eq!(dump(&store), known);
    store.commit(&[MetaOp::RemoveInode(Ino(5))]).unwrap();
    store.close().unwrap();
    let known = dump(&store);
    drop(store);
    let (store, recovery) = open(dir.path(), IndexEngine::Sled);
    assert!(!recovery.rebuilt);
    assert_eq!(dump(&store), known, "what was mended was written");
}

#[test]
fn an_index_of_an_older_build_is_made_anew_once() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (store, _) = open(dir.path(), IndexEngine::Sled);
    let known = dump(&store);
    drop(store);
    index_keys(dir.path(), |db| {
        let position = db.get(POSITION).unwrap().unwrap()[4..60].to_vec();
        db.insert(POSITION, checked(POSITION, &position)).unwrap();
        for tag in [b'G', b'L', b'M', b'R'] {
            db.scan_prefix([tag]).for_each(|pair| drop(db.remove(pair.unwrap().0).unwrap()));
        }
    });
    for rebuilt in [true, false] {
        let (store, recovery) = open(dir.path(), IndexEngine::Sled);
        assert_eq!(recovery.rebuilt, rebuilt);
        assert_eq!(dump(&store), known);
        store.close().unwrap();
    }
}

#[test]
fn an_index_that_has_grown_is_copied_and_the_copy_used() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let size = || -> u64 {
        let mut total = 0;
        let mut waiting = vec![dir.path().join("index")];
        while let Some(at) = waiting.pop() {
            for entry in std::fs::read_dir(at).unwrap().flatten() {
                let meta = entry.metadata().unwrap();
                if meta.is_dir() { waiting.push(entry.path()) } else { total += meta.len() }
            }
        }
        total
    };
    let grow = |first: u64| {
        let (store, _) = open(dir.path(), IndexEngine::Sled);
        for round in 0..12 {
            let value = vec![round as u8; 2000];
            for n in 0..300 {
                let name = format!("user.{n}").into_bytes();
                store.commit(&[MetaOp::PutXattr { ino: Ino(first), name, value: value.clone() }]).unwrap();
            }
            store.checkpoint().unwrap();
        }
        for n in 0..300 {
            store.commit(&[MetaOp::RemoveXattr { ino: Ino(first), name: format!("user.{n}").into_bytes() }]).unwrap();
        }
        store.checkpoint().unwrap();
        store
    };
    let store = grow(3);
    assert!(!store.vacuum_index(1 << 40).unwrap(), "one that is not large stays");
    let (before, known) = (size(), dump(&store));
    store.hurry();
    assert!(!store.vacuum_index(0).unwrap(), "given up when the store is to be closed");
    assert_eq!(size(), before);
    store.close().unwrap();
    assert!(store.vacuum_index(0).unwrap(), "{before} bytes");
    assert!(size() < before / 2, "{} bytes of {before}", size());
    assert_eq!(dump(&store), known, "the copy is in use at once");
    drop(store);
    // Each state that a crash leaves: complete copy; the old one moved away; the new one in place, with the old beside it.
    let at = |name: &str| dir.path().join(name);
    for state in 0..4 {
        match state {
            1 => std::fs::rename(at("index"), at("index.new")).unwrap(),
            2 => copy(&at("index"), &at("index.old")),
            3 => {
                std::fs::create_dir(at("index.draft")).unwrap();
                std::fs::write(at("index.draft/db"), b"half of it").unwrap();
            }
            _ => {}
        }
        let (store, recovery) = open(dir.path(), IndexEngine::Sled);
        assert!(!recovery.rebuilt, "state {state}");
        assert_eq!(dump(&store), known, "state {state}");
        store.close().unwrap();
        drop(store);
        assert!(["index.new", "index.old", "index.draft"].iter().all(|n| !at(n).exists()), "state {state}");
    }
    // What changes after the copy is read from the log again.
    let store = grow(4);
    assert!(store.vacuum_index(0).unwrap());
    store.commit(&[MetaOp::RemoveInode(Ino(5))]).unwrap();
    store.checkpoint().unwrap();
    let known = dump(&store);
    store.sync_meta().unwrap();
    drop(store);
    let (store, _) = open(dir.path(), IndexEngine::Sled);
    assert_eq!(dump(&store), known);
}
