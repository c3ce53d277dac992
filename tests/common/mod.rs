//! What several tests share: a volume on a simulated disk, reads that wait, coding on demand, dice.

#![allow(dead_code)]

pub mod packed;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use tersefs::base::{ByteRange, Ino, MethodId};
use tersefs::codec::Policy;
use tersefs::host::{Disk, SimDisk, Survival};
use tersefs::store::{IndexEngine, Store};
use tersefs::volume::{Caller, Error, GcReport, GcRun, OpenFor, Volume, VolumeOptions};
use tersefs::workers::Workers;

/// Pseudo-random numbers from a seed (the constants of Knuth's MMIX generator).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = self.0 >> 17;
        x ^ x >> 23
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.roll(of.len() as u64) as usize) }
    }

    /// Bytes that look like text, so that models have something to do.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 12] = [
            "the ", "segment ", "pack ", "of ", "bytes\n", "is ", "coded ", "and ", "read ", "again ", "42 ", "never ",
        ];
        let mut out = Vec::with_capacity(len + 10);
        while out.len() < len {
            out.extend_from_slice(WORDS[self.roll(12) as usize].as_bytes());
        }
        out.truncate(len);
        out
    }
}

pub fn options(only: Option<MethodId>) -> VolumeOptions {
    VolumeOptions {
        engine: IndexEngine::Memory,
        quiet_ms: 0,
        seal_ms: 0,
        cache_bytes: Some(4 << 20),
        policy: Policy { only, ..Policy::default() },
        pack_bytes_max: 1 << 20,
        ..VolumeOptions::default()
    }
}

/// A fresh store on a simulated disk.
pub fn fresh() -> SimDisk {
    let disk = SimDisk::new();
    let store: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::create(&store, 1 << 20).expect("mkfs");
    disk
}

pub fn open(disk: &SimDisk, options: VolumeOptions, workers: &Arc<Workers>) -> Result<Arc<Volume>, Error> {
    Volume::open(Arc::new(disk.clone()), options, workers.clone()).map(|(v, _)| v)
}

/// A read that waits for its answer.
pub fn read(volume: &Arc<Volume>, ino: Ino, start: u64, len: u64) -> Result<Vec<u8>, Error> {
    let (tx, rx) = mpsc::channel();
    volume.read(
        ino,
        ByteRange::at(start, len),
        Box::new(move |outcome| {
            let _ = tx.send(outcome.map(<[u8]>::to_vec));
        }),
    );
    rx.recv_timeout(std::time::Duration::from_secs(60)).expect("a read is always answered")
}

/// Codes whatever can be coded; `between` runs after the segments were coded and before they are committed.
pub fn code_all(volume: &Arc<Volume>, mut between: impl FnMut()) -> Result<usize, Error> {
    let mut segments = 0;
    loop {
        let tasks = volume.plan_coding(8, true);
        if tasks.is_empty() {
            return Ok(segments);
        }
        let coded: Vec<_> = tasks.into_iter().map(|t| volume.code(t)).collect();
        segments += coded.len();
        between();
        volume.commit_coded(coded)?;
        if segments > 10_000 {
            panic!("coding does not come to an end");
        }
    }
}

/// Gives back whatever is worth it, in steps of `bytes` each; `between` runs after each step.
pub fn gc_all(volume: &Arc<Volume>, bytes: u64, mut between: impl FnMut()) -> Result<GcReport, Error> {
    let mut report = GcReport::default();
    for _ in 0..100 {
        let plan = volume.plan_gc()?;
        if plan.packs.is_empty() {
            return Ok(report);
        }
        let mut run = GcRun::new(&plan);
        let mut steps = 0;
        while !run.is_done() {
            volume.gc_step(&mut run, bytes)?;
            between();
            steps += 1;
            assert!(steps < 100_000, "a plan does not come to an end");
        }
        report.packs_deleted += run.report.packs_deleted;
        report.bytes_deleted += run.report.bytes_deleted;
        report.segments_copied += run.report.segments_copied;
        report.segments_recoded += run.report.segments_recoded;
        report.bytes_written += run.report.bytes_written;
        report.kept.extend(run.report.kept);
    }
    panic!("giving back does not come to an end: {:?}", volume.plan_gc());
}

/// Closes a volume and waits until nobody holds it, so that it can be opened again.
pub fn shut(volume: Arc<Volume>) {
    volume.close().unwrap();
    for _ in 0..10_000 {
        if Arc::strong_count(&volume) == 1 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("a closed volume is still held");
}

/// A number from the environment.
pub fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

/// Writes a file in the root anew, closed.
pub fn put(volume: &Arc<Volume>, name: &str, data: &[u8]) -> Result<(), Error> {
    let open = OpenFor { read: true, write: true, append: false, truncate: true };
    let (ino, handle) = match volume.lookup(Ino::ROOT, name.as_bytes()) {
        Ok(attr) => (attr.ino, volume.open_file(attr.ino, open)?.handle),
        Err(_) => {
            let (attr, opened) = volume.create(Ino::ROOT, name.as_bytes(), 0o644, &Caller { uid: 0, gid: 0 }, open)?;
            (attr.ino, opened.handle)
        }
    };
    volume.write(ino, handle, 0, data)?;
    volume.release(ino, handle)
}

/// Removes a file of the root.
pub fn remove(volume: &Arc<Volume>, name: &str) -> Result<(), Error> {
    let ino = volume.lookup(Ino::ROOT, name.as_bytes())?.ino;
    volume.unlink(Ino::ROOT, name.as_bytes())?;
    volume.forget(ino);
    Ok(())
}

/// Names and content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Holds the files of which the names begin so against what was written, and the index against itself.
pub fn holds(volume: &Arc<Volume>, files: &Files, prefix: &str) {
    for (name, data) in files {
        let name = format!("{prefix} {name}");
        let ino = volume.lookup(Ino::ROOT, name.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}")).ino;
        let found = read(volume, ino, 0, data.len() as u64 + 1).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(found == *data, "{name} is not what it was");
    }
    assert_eq!(volume.audit().unwrap(), [""; 0]);
}

/// What a kill would leave now is sound.
pub fn check(disk: &SimDisk) {
    let report = tersefs::tools::fsck(Arc::new(disk.survivor(Survival::Kernel)), false, &mut |_, _| ()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// Bytes of the packs of segments.
pub fn packs(volume: &Volume) -> u64 {
    volume.status().unwrap().data_pack_bytes
}
