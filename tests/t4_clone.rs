//! Ranges that share segments: what they cost, what they hold, and what a power cut leaves of them.

mod common;

use std::sync::Arc;

use common::{code_all, fresh, open, options, read};
use tersefs::base::{Ino, MethodId};
use tersefs::host::{SimDisk, Survival};
use tersefs::volume::{Caller, Error, HandleId, OpenFor, SeekFor, SetAttr, Volume};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const BOTH: OpenFor = OpenFor { read: true, write: true, append: false, truncate: false };

struct Bench {
    disk: SimDisk,
    volume: Arc<Volume>,
    workers: Arc<Workers>,
}

impl Bench {
    fn new() -> Bench {
        let (disk, workers) = (fresh(), Arc::new(Workers::new(1)));
        let volume = open(&disk, options(Some(MethodId::Raw)), &workers).unwrap();
        Bench { disk, volume, workers }
    }

    /// What is left after the machine or the process died.
    fn after(&self, survival: Survival) -> Bench {
        let disk = self.disk.survivor(survival);
        let volume = open(&disk, options(Some(MethodId::Raw)), &self.workers).unwrap();
        Bench { disk, volume, workers: self.workers.clone() }
    }

    fn create(&self, name: &str, data: &[u8]) -> (Ino, HandleId) {
        let (attr, opened) = self.volume.create(Ino::ROOT, name.as_bytes(), 0o644, &CALLER, BOTH).unwrap();
        if !data.is_empty() {
            self.volume.write(attr.ino, opened.handle, 0, data).unwrap();
        }
        (attr.ino, opened.handle)
    }

    fn coded(&self, name: &str, data: &[u8]) -> Ino {
        let (ino, handle) = self.create(name, data);
        self.volume.release(ino, handle).unwrap();
        code_all(&self.volume, || ()).unwrap();
        ino
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let attr = self.volume.lookup(Ino::ROOT, name.as_bytes()).unwrap();
        read(&self.volume, attr.ino, 0, attr.size).unwrap()
    }

    /// As the kernel does it: again until all is copied.
    fn clone_all(&self, from: Ino, to: (Ino, HandleId), mut len: u64, mut at: u64, mut place: u64) {
        while len > 0 {
            let n = self.volume.clone_range(from, at, to.0, to.1, place, len).unwrap();
            assert!(n > 0 && n <= len);
            (len, at, place) = (len - n, at + n, place + n);
        }
    }
}

fn content(len: usize, seed: u64) -> Vec<u8> {
    common::Dice::new(seed).text(len)
}

#[test]
fn a_copy_of_a_coded_file_takes_no_space_and_no_decode() {
    let bench = Bench::new();
    let data = content(3_000_000, 1);
    let a = bench.coded("a", &data);
    let before = bench.volume.status().unwrap();
    let b = bench.create("b", b"");
    // One call: a coded range costs an extent for each segment, whatever its length.
    assert_eq!(bench.volume.clone_range(a, 0, b.0, b.1, 0, u64::MAX).unwrap(), data.len() as u64);
    let after = bench.volume.status().unwrap();
    assert_eq!((after.data_pack_bytes, after.decodes), (before.data_pack_bytes, before.decodes));
    assert_eq!(after.coded_plain_bytes, 2 * before.coded_plain_bytes);
    let (of_a, of_b) = (bench.volume.getattr(a).unwrap(), bench.volume.getattr(b.0).unwrap());
    assert_eq!((of_a.size, of_a.blocks), (of_b.size, of_b.blocks), "both are charged");
    assert_eq!(bench.bytes("b"), data);
    // The original changes and goes; the copy does not.
    let opened = bench.volume.open_file(a, BOTH).unwrap();
    bench.volume.write(a, opened.handle, 1000, b"changed").unwrap();
    assert_eq!(bench.bytes("b"), data);
    bench.volume.release(a, opened.handle).unwrap();
    bench.volume.unlink(Ino::ROOT, b"a").unwrap();
    bench.volume.forget(a);
    assert_eq!(bench.bytes("b"), data);
    bench.volume.release(b.0, b.1).unwrap();
    code_all(&bench.volume, || ()).unwrap();
    bench.volume.close().unwrap();
    let again = bench.after(Survival::Synced);
    assert_eq!(again.bytes("b"), data, "after a remount");
}

#[test]
fn ranges_of_all_kinds_into_files_of_all_kinds() {
    let bench = Bench::new();
    // Coded, overwritten in part, a hole, staged.
    let mut source = content(1_500_000, 2);
    let a = bench.coded("a", &source);
    let opened = bench.volume.open_file(a, BOTH).unwrap();
    bench.volume.write(a, opened.handle, 400_000, &[7; 5000]).unwrap();
    source[400_000..405_000].fill(7);
    bench.volume.write(a, opened.handle, 2_000_000, &[9; 100_000]).unwrap();
    source.resize(2_000_000, 0);
    source.resize(2_100_000, 9);
    bench.volume.setattr(a, &SetAttr { size: Some(2_300_000), ..SetAttr::default() }).unwrap();
    source.resize(2_300_000, 0);
    for (n, old) in [b"".to_vec(), content(3_000_000, 3), content(10_000, 4)].into_iter().enumerate() {
        for coded in [false, true] {
            for (start, len, place) in
                [(0, 2_300_000, 0), (123, 1_999_999, 77_777), (399_999, 10, 5), (1_400_000, 900_000, 2_500_000)]
            {
                let name = format!("{n} {coded} {start}");
                let ino = if coded { bench.coded(&name, &old) } else { bench.create(&name, &old).0 };
                let handle = bench.volume.open_file(ino, BOTH).unwrap().handle;
                bench.clone_all(a, (ino, handle), len, start, place);
                let mut expected = old.clone();
                let end = (place + len) as usize;
                expected.resize(expected.len().max(end), 0);
                expected[place as usize..end].copy_from_slice(&source[start as usize..(start + len) as usize]);
                assert!(bench.bytes(&name) == expected, "{name}");
                bench.volume.fsync(ino, false).unwrap();
                let lost = bench.after(Survival::Synced);
                assert!(lost.bytes(&name) == expected, "{name}, after fsync and a power cut");
            }
        }
    }
    // Holes stay holes.
    let b = bench.create("holes", b"");
    bench.clone_all(a, b, 2_300_000, 0, 0);
    assert!(bench.volume.seek(b.0, 1_500_000, SeekFor::Data).unwrap() >= 1_990_000);
    // Coded again, all the same.
    bench.volume.release(b.0, b.1).unwrap();
    code_all(&bench.volume, || ()).unwrap();
    assert!(bench.bytes("holes") == source);
}

#[test]
fn a_power_cut_leaves_the_old_bytes_or_the_new() {
    let bench = Bench::new();
    let (new, old) = (content(600_000, 5), content(600_000, 6));
    let a = bench.coded("a", &new);
    let b = bench.create("b", &old);
    bench.volume.fsync(b.0, false).unwrap();
    bench.clone_all(a, b, 600_000, 0, 0);
    for seed in 0..20 {
        for survival in [Survival::Ordered(seed), Survival::Random(seed), Survival::Synced] {
            let found = bench.after(survival).bytes("b");
            assert!(found == old || found == new, "{survival:?}: a mixture");
        }
    }
    assert!(bench.after(Survival::Kernel).bytes("b") == new, "the death of the process costs nothing");
}

#[test]
fn what_is_sealed_is_checked_and_copied_into() {
    let bench = Bench::new();
    let data = content(300_000, 7);
    let a = bench.coded("a", &data);
    let staged = content(200_000, 8);
    let s = bench.create("s", &staged);
    bench.volume.release(s.0, s.1).unwrap();
    // An unmount seals what is staged.
    bench.volume.close().unwrap();
    let bench = bench.after(Survival::Synced);
    let c = bench.create("c", b"");
    bench.clone_all(s.0, c, 200_000, 0, 0);
    assert!(bench.bytes("c") == staged);
    let handle = bench.volume.open_file(s.0, BOTH).unwrap().handle;
    bench.clone_all(a, (s.0, handle), 100_000, 0, 50_000);
    let expected = [&staged[..50_000], &data[..100_000], &staged[150_000..]].concat();
    assert!(bench.bytes("s") == expected);
    assert!(bench.after(Survival::Kernel).bytes("s") == expected);
}

#[test]
fn what_cannot_be_is_refused() {
    let bench = Bench::new();
    let a = bench.coded("a", &content(300_000, 9));
    let handle = bench.volume.open_file(a, BOTH).unwrap().handle;
    let refused = |from: Ino, at: u64, to: Ino, handle: HandleId, place: u64| {
        bench.volume.clone_range(from, at, to, handle, place, 100_000)
    };
    assert!(matches!(refused(a, 0, a, handle, 99_999), Err(Error::Invalid(_))), "overlap");
    assert_eq!(refused(a, 0, a, handle, 100_000).unwrap(), 100_000);
    assert_eq!(refused(a, 300_000, a, handle, 0).unwrap(), 0, "at the end");
    assert!(matches!(refused(a, 0, a, handle, i64::MAX as u64), Err(Error::TooBig)));
    assert!(matches!(refused(a, 0, a, HandleId(u64::MAX), 200_000), Err(Error::BadHandle)));
    assert!(matches!(refused(Ino::ROOT, 0, a, handle, 0), Err(Error::IsDirectory)));
    let reading = bench.volume.open_file(a, OpenFor { read: true, ..OpenFor::default() }).unwrap().handle;
    assert!(matches!(refused(a, 0, a, reading, 200_000), Err(Error::BadHandle)));
}
