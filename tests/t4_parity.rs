//! Parity: every damage of one shard is mended on reading and by scrub, more than parity covers is an error, and neither a
//! damaged parity file nor a power cut ever makes wrong bytes of right ones.

mod common;

use std::sync::Arc;

use common::{Dice, code_all, fresh, gc_all, open, options, read, shut};
use tersefs::base::{ByteRange, Ino, MethodId, PackId, crc32c};
use tersefs::format::{Extent, ParityHeader};
use tersefs::host::{Disk, Fault, OpenMode, SimDisk, Survival};
use tersefs::store::{IndexEngine, ParityShape, Store, StoreOptions};
use tersefs::tools::{FsckOptions, fsck_with};
use tersefs::volume::{Caller, Error, OpenFor, ScrubOptions, ScrubReport, Volume, VolumeOptions};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
/// Bytes of a file, which has a pack to itself, and the shape of parity: one stripe, and three of which two are not full.
const SMALL: (usize, ParityShape) = (90_000, ParityShape { data: 10, parity: 1 });
const LARGE: (usize, ParityShape) = (450_000, ParityShape { data: 3, parity: 1 });
const READ: u64 = 1 << 20;
const FULL: ScrubOptions = ScrubOptions { quick: false, bytes_per_s: 0, max_age_s: None };

fn with_parity(of: (usize, ParityShape)) -> VolumeOptions {
    VolumeOptions {
        pack_bytes_max: of.0 as u64 - 30_000,
        parity: Some(of.1),
        // The second file of the same content is to fill the next pack.
        sharing: false,
        ..options(Some(MethodId::Raw))
    }
}

/// A file whose bytes lie in a full pack with parity.
struct Base {
    of: (usize, ParityShape),
    disk: SimDisk,
    workers: Arc<Workers>,
    bytes: Vec<u8>,
    ino: Ino,
    pack: PackId,
}

fn fill(of: (usize, ParityShape), workers: &Arc<Workers>) -> (SimDisk, Arc<Volume>, Ino, Vec<u8>) {
    let disk = fresh();
    let volume = open(&disk, with_parity(of), workers).unwrap();
    let bytes = Dice::new(7).text(of.0);
    let mut first = None;
    for name in ["file", "next"] {
        let ino = put(&volume, name, &bytes);
        first.get_or_insert(ino);
    }
    (disk, volume, first.unwrap(), bytes)
}

/// A new file, coded.
fn put(volume: &Arc<Volume>, name: &str, bytes: &[u8]) -> Ino {
    let write = OpenFor { write: true, ..OpenFor::default() };
    let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o600, &CALLER, write).unwrap();
    volume.write(attr.ino, opened.handle, 0, bytes).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    code_all(volume, || ()).unwrap();
    attr.ino
}

fn base(of: (usize, ParityShape)) -> Base {
    let workers = Arc::new(Workers::new(1));
    let (disk, volume, ino, bytes) = fill(of, &workers);
    while volume.make_parity().unwrap() {}
    shut(volume);
    let disk = disk.survivor(Survival::Kernel);
    let pack = extents(&disk, ino)[0].segment.pack;
    assert!(disk.open(&par(pack), OpenMode::Read).is_ok(), "{:?}", disk.files());
    Base { of, disk, workers, bytes, ino, pack }
}

fn peek() -> StoreOptions {
    StoreOptions {
        engine: IndexEngine::Memory,
        read_only: true,
        peek: true,
        pack_bytes_max: 64 << 10,
        ..StoreOptions::default()
    }
}

fn extents(disk: &SimDisk, ino: Ino) -> Vec<Extent> {
    let store = Store::open(Arc::new(disk.clone()), peek()).unwrap().0;
    store.extents(ino, ByteRange { start: 0, end: u64::MAX }, 1000).unwrap()
}

fn tpk(pack: PackId) -> String {
    format!("packs/{:02x}/pack-{:016x}.tpk", pack.0 & 0xff, pack.0)
}

fn par(pack: PackId) -> String {
    format!("packs/{:02x}/pack-{:016x}.par", pack.0 & 0xff, pack.0)
}

fn content(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn write(disk: &SimDisk, path: &str, at: u64, bytes: &[u8]) {
    disk.open(path, OpenMode::Write).unwrap().write_at(bytes, at).unwrap();
}

impl Base {
    fn copy(&self) -> SimDisk {
        self.disk.survivor(Survival::Kernel)
    }

    fn header(&self) -> ParityHeader {
        ParityHeader::decode(&content(&self.disk, &par(self.pack))).unwrap()
    }

    fn read(&self, disk: &SimDisk) -> Result<Vec<u8>, Error> {
        let volume = open(disk, with_parity(self.of), &self.workers).unwrap();
        let got = read(&volume, self.ino, 0, READ);
        shut(volume);
        got
    }

    /// Scrubs, and makes what parity is missing.
    fn scrub(&self, disk: &SimDisk) -> ScrubReport {
        let volume = open(disk, with_parity(self.of), &self.workers).unwrap();
        let report = volume.scrub(FULL).unwrap();
        while volume.make_parity().unwrap() {}
        shut(volume);
        report
    }
}

#[test]
fn one_damaged_shard_is_mended_on_reading_and_by_scrub() {
    one_damaged_shard(&base(SMALL));
    one_damaged_shard(&base(LARGE));
}

fn one_damaged_shard(base: &Base) {
    let h = base.header();
    let whole = content(&base.disk, &tpk(base.pack));
    assert!(
        h.shards() > 5 && h.stripes() == if base.of == SMALL { 1 } else { 3 } && h.pack_bytes == whole.len() as u64
    );
    for shard in 0..h.shards() {
        let at = shard * u64::from(h.shard_bytes);
        let len = u64::from(h.shard_bytes).min(h.pack_bytes - at);
        for how in ["flip", "zero"] {
            let damaged = || {
                let disk = base.copy();
                match how {
                    "flip" => assert!(disk.rot(&tpk(base.pack), at + len / 2, 0x40)),
                    _ => write(&disk, &tpk(base.pack), at, &vec![0; len as usize]),
                }
                disk
            };
            let disk = damaged();
            assert!(base.read(&disk).unwrap() == base.bytes, "shard {shard}, {how}");
            let disk = damaged();
            let report = base.scrub(&disk);
            // The first record of a pack is mended when the store is opened.
            let by_scrub = u64::from(shard > 0 || how == "flip");
            assert!(report.damaged.is_empty() && report.mended == by_scrub, "shard {shard}, {how}: {report:?}");
            assert!(content(&disk, &tpk(base.pack)) == whole, "shard {shard}, {how}: the pack is as it was");
        }
    }
    // The end of the pack is cut off, by up to a shard.
    let last = u64::from(h.shard_bytes).min(h.pack_bytes - (h.shards() - 1) * u64::from(h.shard_bytes));
    for cut in [1, last / 2, last] {
        let disk = base.copy();
        disk.open(&tpk(base.pack), OpenMode::Write).unwrap().set_len(h.pack_bytes - cut).unwrap();
        assert!(base.read(&disk).unwrap() == base.bytes, "cut by {cut}");
        // A reader does not miss what is only padding.
        let report = base.scrub(&disk);
        assert!(report.damaged.is_empty(), "cut by {cut}: {report:?}");
        assert!(content(&disk, &tpk(base.pack)) == whole, "cut by {cut}: the pack is as it was");
    }
}

#[test]
fn more_than_parity_covers_is_an_error() {
    let base = base(LARGE);
    let h = base.header();
    let disk = base.copy();
    // Two shards of one stripe.
    for shard in [1, 1 + h.stripes()] {
        assert!(disk.rot(&tpk(base.pack), shard * u64::from(h.shard_bytes) + 9, 1));
    }
    assert!(matches!(base.read(&disk), Err(Error::Damaged { .. })));
    let report = base.scrub(&disk);
    assert_eq!((report.damaged[0].files.as_slice(), report.mended), (&["/file".to_string()][..], 0));
    assert!(matches!(base.read(&disk), Err(Error::Damaged { .. })));
}

/// Whatever is wrong with the parity file: a whole pack is read as ever, and the parity is made anew.
#[test]
fn damaged_parity_harms_nothing_and_is_made_anew() {
    let base = base(LARGE);
    let good = content(&base.disk, &par(base.pack));
    let h = base.header();
    let places = [
        0,
        20,
        64,
        h.head_bytes() - 1,
        h.head_bytes() + 5,
        good.len() as u64 - h.head_bytes() + 3,
        good.len() as u64 - 1,
    ];
    for at in places {
        let disk = base.copy();
        assert!(disk.rot(&par(base.pack), at, 2));
        assert!(base.read(&disk).unwrap() == base.bytes, "byte {at}");
        // One copy of the head is enough, and so is any parity shard that is not needed.
        if at < h.head_bytes() || at >= good.len() as u64 - h.head_bytes() {
            assert!(disk.rot(&tpk(base.pack), h.pack_bytes / 2, 2));
            assert!(base.read(&disk).unwrap() == base.bytes, "byte {at}, and the pack");
        }
        assert!(base.scrub(&disk).damaged.is_empty());
        assert!(content(&disk, &par(base.pack)) == good, "byte {at}: made anew");
    }
    let disk = base.copy();
    disk.open(&par(base.pack), OpenMode::Write).unwrap().set_len(100).unwrap();
    assert!(base.read(&disk).unwrap() == base.bytes);
    disk.remove(&par(base.pack)).unwrap();
    assert!(base.read(&disk).unwrap() == base.bytes);
}

#[test]
fn power_cuts_while_parity_is_made_and_while_a_pack_is_mended() {
    let workers = Arc::new(Workers::new(1));
    for n in 1.. {
        let (disk, volume, ino, bytes) = fill(LARGE, &workers);
        disk.cut_power_at_sync(disk.syncs() + n);
        let mut made = volume.make_parity();
        while let Ok(true) = made {
            made = volume.make_parity();
        }
        if made.is_ok() {
            assert!(n > 2, "parity is synced");
            break;
        }
        for survival in [Survival::Synced, Survival::Random(n), Survival::Random(n + 100)] {
            let left = disk.survivor(survival);
            let volume = open(&left, with_parity(LARGE), &workers).unwrap();
            assert!(read(&volume, ino, 0, READ).unwrap() == bytes, "cut {n}, {survival:?}");
            while volume.make_parity().unwrap() {}
            volume.close().unwrap();
        }
    }
    let base = base(LARGE);
    let h = base.header();
    let damaged = || {
        let disk = base.copy();
        write(&disk, &tpk(base.pack), u64::from(h.shard_bytes) * 3, &vec![0xee; h.shard_bytes as usize]);
        disk
    };
    for seed in 0..8 {
        let disk = damaged();
        let volume = open(&disk, with_parity(LARGE), &base.workers).unwrap();
        disk.cut_power_at_sync(disk.syncs() + 1);
        // The bytes are answered although they cannot be written back.
        assert!(read(&volume, base.ino, 0, 200_000).unwrap() == base.bytes[..200_000]);
        assert!(base.read(&disk.survivor(Survival::Random(seed))).unwrap() == base.bytes, "seed {seed}");
    }
    // Scrub, cut at each sync, of damage in two stripes: two repairs.
    let mut cuts = 0;
    for n in 1.. {
        let disk = damaged();
        assert!(disk.rot(&tpk(base.pack), u64::from(h.shard_bytes) * 4 + 1, 1));
        let volume = open(&disk, with_parity(LARGE), &base.workers).unwrap();
        let cut = disk.syncs() + n;
        disk.cut_power_at_sync(cut);
        let outcome = volume.scrub(FULL);
        if disk.syncs() < cut {
            assert_eq!(outcome.unwrap().mended, 2);
            break;
        }
        let left: Vec<SimDisk> = (0..4).map(|seed| disk.survivor(Survival::Random(seed))).collect();
        for disk in left.into_iter().chain([disk.survivor(Survival::Synced)]) {
            assert!(base.read(&disk).unwrap() == base.bytes, "cut {n}");
            assert!(base.scrub(&disk).damaged.is_empty(), "cut {n}");
        }
        cuts += 1;
    }
    assert!(cuts >= 2, "each repair is synced: {cuts}");
}

/// Metadata is mended before it is replayed.
#[test]
fn a_damaged_snapshot_is_mended_when_the_volume_is_opened() {
    let workers = Arc::new(Workers::new(1));
    let (disk, volume, ino, bytes) = fill(LARGE, &workers);
    shut(volume);
    let options = StoreOptions { read_only: false, peek: false, ..peek() };
    let store = Store::open(Arc::new(disk.clone()), options).unwrap().0;
    store.renew_log().unwrap();
    while store.make_parity(LARGE.1).unwrap() {}
    store.close().unwrap();
    drop(store);
    let meta = |path: &String| content(&disk, &format!("{path}.tpk")).len() < 60_000;
    let parity: Vec<String> = disk.files().iter().filter_map(|f| Some(f.0.strip_suffix(".par")?.to_string())).collect();
    let snapshot = parity.into_iter().find(meta).expect("a metadata pack with parity");
    let whole = content(&disk, &format!("{snapshot}.tpk"));
    for with in [true, false] {
        let mut lost = 0;
        for at in (10..whole.len() as u64).step_by(61) {
            let disk = disk.survivor(Survival::Kernel);
            assert!(disk.rot(&format!("{snapshot}.tpk"), at, 0x10));
            if !with {
                disk.remove(&format!("{snapshot}.par")).unwrap();
            }
            let (volume, recovery) = Volume::open(Arc::new(disk.clone()), with_parity(LARGE), workers.clone()).unwrap();
            lost += recovery.damage.len();
            if with {
                assert!(recovery.damage.is_empty(), "byte {at}: {:?}", recovery.damage);
                assert!(read(&volume, ino, 0, READ).unwrap() == bytes, "byte {at}");
                assert!(content(&disk, &format!("{snapshot}.tpk")) == whole, "byte {at}");
            }
            shut(volume);
        }
        assert!(with == (lost == 0), "without parity the same damage is noticed");
    }
}

/// Parity says what a pack was. Where a pack is gone on with it would take what is new for damage.
#[test]
fn parity_goes_with_its_pack_and_before_a_pack_is_gone_on_with() {
    let base = base(LARGE);
    // The last data pack is full for some kilobytes and has room for 4 MiB.
    let disk = base.copy();
    let volume = open(&disk, with_parity(LARGE), &base.workers).unwrap();
    let next = volume.lookup(Ino::ROOT, b"next").unwrap().ino;
    while volume.make_parity().unwrap() {}
    shut(volume);
    let last = extents(&disk, next)[0].segment.pack;
    assert!(last > base.pack && disk.open(&par(last), OpenMode::Read).is_ok());
    let whole = content(&disk, &tpk(last));
    // What it can mend it mends before it goes.
    assert!(disk.rot(&tpk(last), 5000, 1));
    let roomy = VolumeOptions { pack_bytes_max: 4 << 20, parity: None, ..with_parity(LARGE) };
    let volume = open(&disk, roomy, &base.workers).unwrap();
    for disk in [disk.clone(), disk.survivor(Survival::Synced)] {
        assert!(disk.open(&par(last), OpenMode::Read).is_err());
        assert!(content(&disk, &tpk(last)) == whole);
    }
    let third = put(&volume, "third", &base.bytes);
    assert!(read(&volume, next, 0, READ).unwrap() == base.bytes);
    assert!(volume.scrub(FULL).unwrap().damaged.is_empty());
    assert!(read(&volume, third, 0, READ).unwrap() == base.bytes);
    shut(volume);
    assert_eq!(extents(&disk, third)[0].segment.pack, last);

    // Giving back a pack takes its parity.
    let disk = base.copy();
    let volume = open(&disk, with_parity(LARGE), &base.workers).unwrap();
    volume.lookup(Ino::ROOT, b"file").unwrap();
    volume.unlink(Ino::ROOT, b"file").unwrap();
    volume.forget(base.ino);
    for name in ["third", "fourth"] {
        put(&volume, name, &base.bytes);
    }
    assert!(gc_all(&volume, 1 << 20, || ()).unwrap().packs_deleted > 0);
    for disk in [disk.survivor(Survival::Kernel), disk.survivor(Survival::Synced)] {
        assert!(disk.open(&tpk(base.pack), OpenMode::Read).is_err());
        assert!(disk.open(&par(base.pack), OpenMode::Read).is_err());
    }
    shut(volume);
}

#[test]
fn fsck_knows_parity_and_mends_by_it() {
    let base = base(LARGE);
    let run = |disk: &SimDisk, repair| {
        let options = FsckOptions { repair, ..FsckOptions::default() };
        fsck_with(Arc::new(disk.clone()), options, &mut |_, _| ()).unwrap()
    };
    let report = run(&base.copy(), false);
    assert!(report.problems.is_empty() && report.notes.is_empty(), "{report:?}");
    let disk = base.copy();
    // The header of the first segment.
    assert!(disk.rot(&tpk(base.pack), 64 + 9, 1));
    // A check reads through parity and changes nothing.
    assert!(run(&disk, false).problems.is_empty());
    assert!(content(&disk, &tpk(base.pack)) != content(&base.disk, &tpk(base.pack)));
    let report = run(&disk, true);
    assert!(report.problems.is_empty(), "{report:?}");
    assert!(content(&disk, &tpk(base.pack)) == content(&base.disk, &tpk(base.pack)));
    // Parity without its pack is left of an interrupted deletion.
    disk.remove(&tpk(base.pack)).unwrap();
    assert!(run(&disk, false).notes.iter().any(|n| n.at == par(base.pack)));
}

#[test]
fn a_full_disk_keeps_no_draft_of_parity() {
    let (disk, volume, ino, bytes) = fill(LARGE, &Arc::new(Workers::new(1)));
    disk.fail_on(Fault::Write, "packs/", 2, 1, 28);
    assert!(volume.make_parity().is_err());
    assert!(disk.files().iter().all(|(path, _)| !path.contains(".par")), "{:?}", disk.files());
    assert!(volume.make_parity().unwrap() && !volume.make_parity().unwrap());
    assert!(read(&volume, ino, 0, READ).unwrap() == bytes);
    shut(volume);
}

#[test]
fn golden_parity_header() {
    let uuid = tersefs::base::Uuid(*b"tersefs-golden-1");
    let h = ParityHeader { data: 10, parity: 1, shard_bytes: 65_536, pack: PackId(3), pack_bytes: 268_435_500, uuid };
    let bytes = h.encode();
    assert_eq!(ParityHeader::decode(&bytes), Ok(h));
    assert_eq!((h.shards(), h.stripes(), h.head_bytes()), (4097, 410, 64 + 4 * 4097 + 4 * 410 + 4));
    assert_eq!(
        &bytes[..24],
        b"\x8btersePX\x01\0\0\0\x0a\0\x01\0\0\0\x01\0\0\0\0\0".map(|b| if b == b'X' { 10 } else { b }).as_slice()
    );
    assert_eq!(bytes.len(), 64);
    assert_eq!(crc32c(&bytes[..60]).to_le_bytes(), bytes[60..64]);
    for at in 0..64 {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        assert!(ParityHeader::decode(&bad).is_err(), "byte {at}");
    }
}
