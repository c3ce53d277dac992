//! Parity: every damage of one shard is mended on reading and by scrub, more than parity covers is an error, and neither a
//! damaged parity file nor a power cut ever makes wrong bytes of right ones.

mod common;

use std::sync::Arc;

use common::{Dice, code_all, fresh, open, options, read};
use tersefs::base::{ByteRange, Ino, MethodId, PackId, crc32c};
use tersefs::format::{Extent, ParityHeader};
use tersefs::host::{Disk, OpenMode, SimDisk, Survival};
use tersefs::store::{IndexEngine, ParityShape, Store, StoreOptions};
use tersefs::volume::{Caller, Error, OpenFor, ScrubOptions, Volume, VolumeOptions};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const SHAPE: ParityShape = ParityShape { data: 10, parity: 1 };
const FULL: ScrubOptions = ScrubOptions { quick: false, bytes_per_s: 0, max_age_s: None };

fn with_parity() -> VolumeOptions {
    VolumeOptions { pack_bytes_max: 64 << 10, parity: Some(SHAPE), ..options(Some(MethodId::Raw)) }
}

/// A file whose bytes lie in a full pack with parity.
struct Base {
    disk: SimDisk,
    workers: Arc<Workers>,
    bytes: Vec<u8>,
    ino: Ino,
    pack: PackId,
}

fn fill(workers: &Arc<Workers>) -> (SimDisk, Arc<Volume>, Ino, Vec<u8>) {
    let disk = fresh();
    let volume = open(&disk, with_parity(), workers).unwrap();
    let bytes = Dice::new(7).text(90_000);
    let mut first = None;
    for name in ["file", "next"] {
        let write = OpenFor { write: true, ..OpenFor::default() };
        let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o600, &CALLER, write).unwrap();
        volume.write(attr.ino, opened.handle, 0, &bytes).unwrap();
        volume.release(attr.ino, opened.handle).unwrap();
        code_all(&volume, || ()).unwrap();
        first.get_or_insert(attr.ino);
    }
    (disk, volume, first.unwrap(), bytes)
}

fn base() -> Base {
    let workers = Arc::new(Workers::new(1));
    let (disk, volume, ino, bytes) = fill(&workers);
    while volume.make_parity().unwrap() {}
    volume.close().unwrap();
    drop(volume);
    let disk = disk.survivor(Survival::Kernel);
    let pack = extents(&disk, ino)[0].segment.pack;
    assert!(disk.open(&par(pack), OpenMode::Read).is_ok(), "{:?}", disk.files());
    Base { disk, workers, bytes, ino, pack }
}

fn extents(disk: &SimDisk, ino: Ino) -> Vec<Extent> {
    let options = StoreOptions {
        engine: IndexEngine::Memory,
        read_only: true,
        peek: true,
        rebuild: false,
        pack_bytes_max: 1 << 20,
    };
    let store = Store::open(Arc::new(disk.clone()), options).unwrap().0;
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
        let volume = open(disk, with_parity(), &self.workers).unwrap();
        let got = read(&volume, self.ino, 0, 100_000);
        volume.close().unwrap();
        got
    }
}

#[test]
fn one_damaged_shard_is_mended_on_reading_and_by_scrub() {
    let base = base();
    let h = base.header();
    let whole = content(&base.disk, &tpk(base.pack));
    assert!(h.shards() > 5 && h.pack_bytes == whole.len() as u64);
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
            let volume = open(&disk, with_parity(), &base.workers).unwrap();
            let report = volume.scrub(FULL).unwrap();
            assert!(report.damaged.is_empty() && report.mended <= 1, "shard {shard}, {how}: {report:?}");
            volume.close().unwrap();
            assert!(content(&disk, &tpk(base.pack)) == whole, "shard {shard}, {how}: the pack is as it was");
        }
    }
    // The end of the pack is cut off, by up to a shard.
    let last = u64::from(h.shard_bytes).min(h.pack_bytes - (h.shards() - 1) * u64::from(h.shard_bytes));
    for cut in [1, last / 2, last] {
        let disk = base.copy();
        disk.open(&tpk(base.pack), OpenMode::Write).unwrap().set_len(h.pack_bytes - cut).unwrap();
        assert!(base.read(&disk).unwrap() == base.bytes, "cut by {cut}");
        assert!(content(&disk, &tpk(base.pack)) == whole, "cut by {cut}: the pack is as it was");
    }
}

#[test]
fn more_than_parity_covers_is_an_error() {
    let base = base();
    let h = base.header();
    let disk = base.copy();
    // Two shards of stripe 0, both in the middle of the segment.
    for shard in [2 * h.stripes(), 4 * h.stripes()] {
        assert!(disk.rot(&tpk(base.pack), shard * u64::from(h.shard_bytes) + 9, 1));
    }
    assert!(matches!(base.read(&disk), Err(Error::Damaged { .. })));
    let volume = open(&disk, with_parity(), &base.workers).unwrap();
    let report = volume.scrub(FULL).unwrap();
    assert_eq!((report.damaged[0].files.as_slice(), report.mended), (&["/file".to_string()][..], 0));
    volume.close().unwrap();
}

/// Whatever is wrong with the parity file: a whole pack is read as ever, and the parity is made anew.
#[test]
fn damaged_parity_harms_nothing_and_is_made_anew() {
    let base = base();
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
        let volume = open(&disk, with_parity(), &base.workers).unwrap();
        assert!(volume.scrub(FULL).unwrap().damaged.is_empty());
        while volume.make_parity().unwrap() {}
        volume.close().unwrap();
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
        let (disk, volume, ino, bytes) = fill(&workers);
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
            let volume = open(&left, with_parity(), &workers).unwrap();
            assert!(read(&volume, ino, 0, 100_000).unwrap() == bytes, "cut {n}, {survival:?}");
            while volume.make_parity().unwrap() {}
            volume.close().unwrap();
        }
    }
    let base = base();
    let h = base.header();
    let damaged = || {
        let disk = base.copy();
        write(&disk, &tpk(base.pack), u64::from(h.shard_bytes) * 3, &vec![0xee; h.shard_bytes as usize]);
        disk
    };
    for seed in 0..8 {
        let disk = damaged();
        let volume = open(&disk, with_parity(), &base.workers).unwrap();
        disk.cut_power_at_sync(disk.syncs() + 1);
        // The bytes are answered although they cannot be written back.
        assert!(read(&volume, base.ino, 0, 100_000).unwrap() == base.bytes);
        drop(volume);
        assert!(base.read(&disk.survivor(Survival::Random(seed))).unwrap() == base.bytes, "seed {seed}");
    }
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
