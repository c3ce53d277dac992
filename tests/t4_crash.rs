//! Power cuts at every sync, process deaths, failing writes and syncs, rot: rules 1 to 3 of the volume.
//!
//! A script of operations runs on a simulated disk. Every file's bytes tell which version they are, so that what is found
//! after a cut can be judged: what was synced is there, everything else is an old version, a new one or (never synced)
//! zeros and missing ends, never anything else.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Dice, code_all, fresh, gc_all, open, options, read, remove};
use tersefs::base::{ByteRange, Ino, MethodId};
use tersefs::host::{Fault, SimDisk, Survival};
use tersefs::volume::{AllocateMode, Caller, Error, OpenFor, RenameMode, SetAttr, Status, Volume};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
/// Bytes that share one version mark.
const MARK: usize = 16;

/// `len` bytes of version `version` of a file: each mark says file, version and place.
fn content(file: u8, version: u8, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + MARK);
    while out.len() < len {
        out.extend_from_slice(format!("{}{:03}@{:010}\n", file as char, version, out.len()).as_bytes());
    }
    out.truncate(len);
    out
}

/// What is known of one file.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Every version that was ever written, whole.
    versions: Vec<Vec<u8>>,
    /// Index of the version that was synced last, if any was.
    synced: Option<usize>,
    /// Names were synced while the file had this name.
    named: bool,
    /// The file was removed after that: either state may be found.
    removing: bool,
}

struct Script {
    volume: Arc<Volume>,
    files: BTreeMap<String, Known>,
}

impl Script {
    fn ino(&self, name: &str) -> Result<Ino, Error> {
        self.volume.lookup(Ino::ROOT, name.as_bytes()).map(|a| a.ino)
    }

    fn known(&mut self, name: &str) -> &mut Known {
        self.files.entry(name.to_string()).or_default()
    }

    /// Creates or overwrites a file with a new version, in two writes.
    fn put(&mut self, name: &str, version: u8, len: usize, truncate: bool) -> Result<(), Error> {
        let data = content(name.as_bytes()[0], version, len);
        let known = self.known(name);
        let mut whole = data.clone();
        if let (Some(last), false) = (known.versions.last(), truncate) {
            whole.extend_from_slice(last.get(len..).unwrap_or_default());
        }
        if truncate {
            known.versions.push(Vec::new());
        }
        known.versions.push(whole);
        let open = OpenFor { read: true, write: true, append: false, truncate };
        let (ino, handle) = match self.ino(name) {
            Ok(ino) => (ino, self.volume.open_file(ino, open)?.handle),
            Err(Error::NotFound) => {
                let (attr, opened) = self.volume.create(Ino::ROOT, name.as_bytes(), 0o644, &CALLER, open)?;
                (attr.ino, opened.handle)
            }
            Err(e) => return Err(e),
        };
        let half = len / 2;
        self.volume.write(ino, handle, 0, &data[..half])?;
        self.volume.write(ino, handle, half as u64, &data[half..])?;
        self.volume.release(ino, handle)
    }

    fn fsync(&mut self, name: &str) -> Result<(), Error> {
        self.volume.fsync(self.ino(name)?, false)?;
        for known in self.files.values_mut() {
            // The log is one: what was named before is named now.
            known.named |= !known.versions.is_empty();
        }
        let known = self.known(name);
        known.synced = known.versions.len().checked_sub(1);
        Ok(())
    }

    /// All steps. Ends at the first failure.
    fn run(&mut self) -> Result<(), Error> {
        self.put("a", 1, 50_000, false)?;
        self.fsync("a")?;
        self.put("b", 1, 3_000, false)?;
        self.put("c", 1, 700_000, false)?;
        self.volume.flush()?;
        code_all(&self.volume, || ())?;
        // What is coded is synced.
        for name in ["a", "b", "c"] {
            let known = self.known(name);
            (known.synced, known.named) = (Some(0), true);
        }
        // Overwrite coded ranges, with and without fsync.
        self.put("a", 2, 20_000, false)?;
        self.put("c", 2, 300_000, false)?;
        self.fsync("c")?;
        self.volume.checkpoint()?;
        // Truncate, then grow.
        let ino = self.ino("c")?;
        let shorter = self.known("c").versions.last().map(|v| v[..100_000].to_vec()).unwrap_or_default();
        self.known("c").versions.push(shorter);
        self.volume.setattr(ino, &SetAttr { size: Some(100_000), ..SetAttr::default() })?;
        self.fsync("c")?;
        self.put("c", 3, 150_000, false)?;
        self.volume.flush()?;
        code_all(&self.volume, || ())?;
        let last = self.known("c").versions.len() - 1;
        self.known("c").synced = Some(last);
        // Write new, rename over old, no fsync.
        self.put("d", 9, 80_000, false)?;
        let new = self.known("d").versions.last().cloned().unwrap_or_default();
        self.known("b").versions.push(new);
        self.known("d").removing = true;
        self.volume.rename(Ino::ROOT, b"d", Ino::ROOT, b"b", RenameMode::Replace)?;
        // Replace by truncating, punch, remove.
        self.put("a", 3, 60_000, true)?;
        self.fsync("a")?;
        let ino = self.ino("a")?;
        let mut holed = self.known("a").versions.last().cloned().unwrap_or_default();
        holed[8192..24_576].fill(0);
        self.known("a").versions.push(holed);
        self.volume.allocate(ino, AllocateMode::Punch, ByteRange::at(8192, 16_384))?;
        self.put("e", 1, 9_000, false)?;
        self.fsync("e")?;
        self.known("e").removing = true;
        self.volume.unlink(Ino::ROOT, b"e")?;
        self.volume.flush()?;
        code_all(&self.volume, || ())?;
        self.volume.checkpoint()?;
        self.volume.close()
    }
}

impl Script {
    /// Files with the same bytes: waiting together, coming later, while the first of them go, and while gc moves them.
    fn run_twins(&mut self) -> Result<(), Error> {
        self.put("a1", 1, 50_000, false)?;
        self.put("a2", 1, 50_000, false)?;
        self.put("c1", 1, 700_000, false)?;
        self.volume.flush()?;
        code_all(&self.volume, || ())?;
        self.coded(&["a1", "a2", "c1"]);
        self.put("a3", 1, 50_000, false)?;
        self.put("c2", 1, 700_000, false)?;
        self.fsync("a3")?;
        code_all(&self.volume, || ())?;
        self.coded(&["a3", "c2"]);
        self.put("a4", 1, 50_000, false)?;
        self.put("c3", 1, 700_000, false)?;
        self.fsync("c3")?;
        // One of two that share is changed; the others go while their bytes are being looked for.
        self.put("c2", 2, 300_000, false)?;
        for name in ["a1", "a2", "a3", "c1"] {
            self.known(name).removing = true;
        }
        let mut gone = false;
        let volume = self.volume.clone();
        code_all(&volume, || {
            if !std::mem::replace(&mut gone, true) {
                for name in [b"a1", b"a2", b"a3", b"c1"] {
                    // What fails here fails the commit too.
                    let _ = volume.unlink(Ino::ROOT, name);
                }
            }
        })?;
        self.coded(&["a4", "c2", "c3"]);
        self.volume.flush()?;
        self.put("a5", 1, 50_000, false)?;
        gc_all(&self.volume, 100_000, || ())?;
        code_all(&self.volume, || ())?;
        self.coded(&["a5"]);
        self.volume.checkpoint()?;
        self.volume.close()
    }

    /// Versions of files that are coded from the first of them, while that goes, is overwritten, and gc moves it.
    fn run_versions(&mut self) -> Result<(), Error> {
        self.put("a1", 1, 50_000, false)?;
        self.put("c1", 1, 400_000, false)?;
        self.noise("x1", 600_000)?;
        self.volume.flush()?;
        code_all(&self.volume, || ())?;
        self.coded(&["a1", "c1", "x1"]);
        for (name, version) in [("a2", 2), ("c2", 2)] {
            self.version(name, version)?;
        }
        self.fsync("a2")?;
        code_all(&self.volume, || ())?;
        self.coded(&["a2", "c2"]);
        // The first versions go while the third are being coded from them.
        for (name, version) in [("a3", 3), ("c3", 3)] {
            self.version(name, version)?;
        }
        self.fsync("c3")?;
        for name in ["a1", "c1", "x1"] {
            self.known(name).removing = true;
        }
        let mut gone = false;
        let volume = self.volume.clone();
        code_all(&volume, || {
            if !std::mem::replace(&mut gone, true) {
                for name in ["a1", "c1", "x1"] {
                    // What fails here fails the commit too.
                    let _ = remove(&volume, name);
                }
            }
        })?;
        self.coded(&["a3", "c3"]);
        self.volume.flush()?;
        gc_all(&self.volume, 100_000, || ())?;
        self.version("a4", 4)?;
        self.put("c2", 9, 100_000, false)?;
        self.fsync("c2")?;
        code_all(&self.volume, || ())?;
        self.coded(&["a4", "c2"]);
        self.volume.checkpoint()?;
        self.volume.close()
    }

    /// A new file that takes space.
    fn noise(&mut self, name: &str, len: usize) -> Result<(), Error> {
        let mut dice = Dice::new(len as u64);
        self.create(name, (0..len).map(|_| dice.next() as u8).collect())
    }

    /// A new file: what its first version had, with something changed every 40,000 bytes.
    fn version(&mut self, name: &str, version: u8) -> Result<(), Error> {
        let mut data = self.known(&format!("{}1", &name[..1])).versions.last().cloned().unwrap_or_default();
        for at in (1000..data.len() - 100).step_by(40_000) {
            data[at..at + 60].fill(version);
        }
        self.create(name, data)
    }

    fn create(&mut self, name: &str, data: Vec<u8>) -> Result<(), Error> {
        self.known(name).versions.push(data.clone());
        let open = OpenFor { read: true, write: true, ..OpenFor::default() };
        let (attr, opened) = self.volume.create(Ino::ROOT, name.as_bytes(), 0o644, &CALLER, open)?;
        self.volume.write(attr.ino, opened.handle, 0, &data)?;
        self.volume.release(attr.ino, opened.handle)
    }

    /// What is coded is synced, and so is its name.
    fn coded(&mut self, names: &[&str]) {
        for name in names {
            let known = self.known(name);
            (known.synced, known.named) = (known.versions.len().checked_sub(1), true);
        }
    }
}

/// Holds what a disk gives back against what is known.
fn judge(disk: &SimDisk, files: &BTreeMap<String, Known>, workers: &Arc<Workers>, case: &str, strict_names: bool) {
    let volume = open(disk, options(Some(MethodId::Zstd)), workers).unwrap_or_else(|e| panic!("{case}: no mount: {e}"));
    for (name, known) in files {
        let found = match volume.lookup(Ino::ROOT, name.as_bytes()) {
            Ok(attr) => read(&volume, attr.ino, 0, attr.size + 1).unwrap_or_else(|e| panic!("{case}: {name}: {e}")),
            Err(Error::NotFound) => {
                let lost = strict_names && known.named && known.synced.is_some() && !known.removing;
                assert!(!lost, "{case}: {name} is lost");
                continue;
            }
            Err(e) => panic!("{case}: {name}: {e}"),
        };
        let first = known.synced.unwrap_or(0);
        let allowed = &known.versions[first.min(known.versions.len().saturating_sub(1))..];
        let mut sources: Vec<&[u8]> = allowed.iter().map(Vec::as_slice).collect();
        if known.synced.is_none() {
            sources.push(&[]);
        }
        // Lengths: none beyond the longest; below the shortest only when nothing was synced.
        let longest = sources.iter().map(|s| s.len()).max().unwrap_or(0);
        assert!(found.len() <= longest, "{case}: {name} has {} bytes, at most {longest} were written", found.len());
        if known.synced.is_some() {
            let shortest = sources.iter().map(|s| s.len()).min().unwrap_or(0);
            assert!(found.len() >= shortest, "{case}: {name} has {} of at least {shortest} bytes", found.len());
        }
        for (at, byte) in found.iter().enumerate() {
            let old_or_new = sources.iter().any(|s| s.get(at).copied().unwrap_or(0) == *byte);
            // Bytes written after the last sync may be missing where that version was longer than the synced one.
            let unsynced_zero = *byte == 0
                && known.synced.is_none_or(|s| at >= known.versions[s].len() || known.versions.len() > s + 1);
            assert!(old_or_new || unsynced_zero, "{case}: {name}: byte {at} is {byte}, which nobody wrote there");
        }
        if known.synced.is_some_and(|s| s + 1 == known.versions.len()) {
            assert!(
                found == known.versions[known.versions.len() - 1],
                "{case}: {name} was synced and is not what it was"
            );
        }
    }
    // And it goes on working.
    let (attr, opened) =
        volume.create(Ino::ROOT, b"after", 0o600, &CALLER, OpenFor { write: true, ..OpenFor::default() }).unwrap();
    volume.write(attr.ino, opened.handle, 0, b"still alive").unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    code_all(&volume, || ()).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(read(&volume, attr.ino, 0, 100).unwrap(), b"still alive");
}

/// Runs the script with something in its way; what is known at the end, and the disk.
fn play(
    workers: &Arc<Workers>,
    prepare: impl FnOnce(&SimDisk),
) -> (SimDisk, BTreeMap<String, Known>, Result<(), Error>) {
    play_with(MethodId::Zstd, workers, prepare)
}

fn play_with(
    method: MethodId,
    workers: &Arc<Workers>,
    prepare: impl FnOnce(&SimDisk),
) -> (SimDisk, BTreeMap<String, Known>, Result<(), Error>) {
    let disk = fresh();
    prepare(&disk);
    let mut script = match open(&disk, options(Some(method)), workers) {
        Ok(volume) => Script { volume, files: BTreeMap::new() },
        Err(e) => return (disk, BTreeMap::new(), Err(e)),
    };
    let outcome = script.run();
    (disk, script.files, outcome)
}

#[test]
fn power_cut_at_every_sync() {
    let workers = Arc::new(Workers::new(2));
    let (disk, _, outcome) = play(&workers, |_| ());
    outcome.expect("the script runs");
    let before = fresh().syncs();
    let syncs = disk.syncs();
    assert!(syncs > before + 15, "the script syncs often enough to prove something: {syncs}");
    for n in before + 1..=syncs {
        let (disk, files, outcome) = play(&workers, |d| d.cut_power_at_sync(n));
        assert!(outcome.is_err(), "sync {n} was never reached");
        judge(&disk.survivor(Survival::Synced), &files, &workers, &format!("cut at sync {n}, synced only"), true);
        for seed in 0..6 {
            let left = disk.survivor(Survival::Random(seed));
            judge(&left, &files, &workers, &format!("cut at sync {n}, seed {seed}"), true);
        }
    }
}

/// The same for files that share their segments.
#[test]
fn power_cut_at_every_sync_with_twins() {
    cut_at_every_sync(Script::run_twins, |status| {
        let found = status.found_bytes;
        assert!(found >= 3 * 50_000 + 700_000, "the script shares: {found}");
    });
}

/// The same for files whose segments were coded from others.
#[test]
fn power_cut_at_every_sync_with_versions() {
    cut_at_every_sync(Script::run_versions, |status| {
        assert!(status.referring_segments >= 5, "the script codes from others: {status:?}");
        assert!(status.gc_packs_deleted > 0, "and moves them: {status:?}");
    });
}

fn cut_at_every_sync(run: fn(&mut Script) -> Result<(), Error>, proves: fn(&Status)) {
    let workers = Arc::new(Workers::new(2));
    let play = |prepare: &dyn Fn(&SimDisk)| {
        let disk = fresh();
        prepare(&disk);
        let volume = open(&disk, options(Some(MethodId::Zstd)), &workers).expect("a new store is mounted");
        let mut script = Script { volume, files: BTreeMap::new() };
        let outcome = run(&mut script);
        let status = script.volume.status().unwrap_or_default();
        (disk, script.files, outcome, status)
    };
    let mounted = {
        let disk = fresh();
        let volume = open(&disk, options(Some(MethodId::Zstd)), &workers).expect("a new store is mounted");
        let syncs = disk.syncs();
        drop(volume);
        syncs
    };
    let (disk, _, outcome, status) = play(&|_| ());
    outcome.expect("the script runs");
    proves(&status);
    let syncs = disk.syncs();
    assert!(syncs > mounted + 10, "the script syncs often enough to prove something: {syncs}");
    for n in mounted + 1..=syncs {
        let (disk, files, outcome, _) = play(&|d| d.cut_power_at_sync(n));
        assert!(outcome.is_err(), "sync {n} was never reached");
        judge(&disk.survivor(Survival::Synced), &files, &workers, &format!("cut at sync {n}, synced only"), true);
        judge(&disk.survivor(Survival::Kernel), &files, &workers, &format!("killed at sync {n}"), true);
        for seed in 0..4 {
            let left = disk.survivor(Survival::Random(seed));
            judge(&left, &files, &workers, &format!("cut at sync {n}, seed {seed}"), true);
        }
    }
}

#[test]
fn the_process_dies_at_every_sync() {
    let workers = Arc::new(Workers::new(2));
    let before = fresh().syncs();
    let (disk, _, _) = play(&workers, |_| ());
    for n in before + 1..=disk.syncs() {
        let (disk, files, _) = play(&workers, |d| d.cut_power_at_sync(n));
        judge(&disk.survivor(Survival::Kernel), &files, &workers, &format!("killed at sync {n}"), true);
    }
}

#[test]
fn a_failed_sync_or_write_ends_changes_and_loses_nothing() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let workers = Arc::new(Workers::new(2));
    let (whole, _, _) = play_with(MethodId::Raw, &workers, |_| ());
    let (syncs, writes) = (fresh().syncs(), fresh().writes());
    for n in syncs + 1..=whole.syncs() {
        let (disk, files, outcome) = play_with(MethodId::Raw, &workers, |d| d.fail_at(Fault::Sync, n, EIO));
        // The last syncs belong to housekeeping whose failure is told in the log only.
        if outcome.is_ok() {
            assert!(n > whole.syncs() - 6, "the failure of sync {n} was swallowed");
        }
        judge(&disk.survivor(Survival::Synced), &files, &workers, &format!("sync {n} failed"), true);
    }
    for n in writes + 1..=whole.writes() {
        for errno in [EIO, ENOSPC] {
            let (disk, files, _) = play_with(MethodId::Raw, &workers, |d| d.fail_at(Fault::Write, n, errno));
            judge(&disk.survivor(Survival::Kernel), &files, &workers, &format!("write {n} failed with {errno}"), true);
        }
    }
}

#[test]
fn after_a_failed_sync_the_volume_is_read_only() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    let volume = open(&disk, options(Some(MethodId::Raw)), &workers).unwrap();
    let open_for = OpenFor { write: true, ..OpenFor::default() };
    let (attr, opened) = volume.create(Ino::ROOT, b"x", 0o600, &CALLER, open_for).unwrap();
    volume.write(attr.ino, opened.handle, 0, b"data").unwrap();
    disk.fail_at(Fault::Sync, disk.syncs() + 1, 5);
    assert!(volume.fsync(attr.ino, false).is_err());
    assert!(matches!(volume.write(attr.ino, opened.handle, 0, b"more"), Err(Error::ReadOnly)));
    assert!(matches!(volume.fsync(attr.ino, false), Err(Error::ReadOnly)), "it never says done afterwards");
    assert!(matches!(volume.mkdir(Ino::ROOT, b"y", 0o700, &CALLER), Err(Error::ReadOnly)));
    assert_eq!(read(&volume, attr.ino, 0, 10).unwrap(), b"data", "what was there is still read");
}

#[test]
fn rotten_packs_give_errors_and_never_wrong_bytes() {
    let workers = Arc::new(Workers::new(2));
    let (clean, files, outcome) = play(&workers, |_| ());
    outcome.unwrap();
    let clean = clean.survivor(Survival::Kernel);
    let packs: Vec<(String, u64)> = clean.files().into_iter().filter(|(p, _)| p.starts_with("packs/")).collect();
    assert!(packs.len() >= 2);
    let (mut damaged, mut fine) = (0, 0);
    for (path, len) in packs {
        // Every eleventh byte at first, then sparser: headers of records lie at the start.
        let mut at = 0;
        while at < len {
            let disk = clean.survivor(Survival::Kernel);
            assert!(disk.rot(&path, at, 0x20));
            match open(&disk, options(Some(MethodId::Zstd)), &workers) {
                Err(e) => panic!("{path} byte {at}: {e}"),
                Ok(volume) => {
                    for (name, known) in &files {
                        let Ok(attr) = volume.lookup(Ino::ROOT, name.as_bytes()) else { continue };
                        match read(&volume, attr.ino, 0, attr.size + 1) {
                            Ok(found) => {
                                let right = known.versions.contains(&found);
                                // Metadata that was lost may leave an older state of a file, or a part of one.
                                let older = path_is_meta(&clean, &path)
                                    && found
                                        .iter()
                                        .enumerate()
                                        .all(|(i, b)| *b == 0 || known.versions.iter().any(|v| v.get(i) == Some(b)));
                                assert!(right || older, "{path} byte {at}: {name} has wrong bytes");
                                fine += 1;
                            }
                            Err(Error::Damaged { .. }) => damaged += 1,
                            Err(e) => panic!("{path} byte {at}: {name}: {e}"),
                        }
                    }
                }
            }
            at += if at < 1000 { 11 } else { len / 150 + 7 };
        }
    }
    assert!(damaged > 20 && fine > 100, "the rot hit something: {damaged} damaged, {fine} fine");
}

fn path_is_meta(disk: &SimDisk, path: &str) -> bool {
    // The first pack of a store is one of metadata; segments are in the larger ones.
    let largest = disk.files().into_iter().filter(|(p, _)| p.starts_with("packs/")).max_by_key(|(_, len)| *len);
    largest.is_none_or(|(p, _)| p != path)
}

/// Many names, so that the metadata log is worth compacting, and a cut at every sync of the compaction.
#[test]
fn compaction_survives_a_cut_at_every_sync() {
    const FILES: usize = 1500;
    let workers = Arc::new(Workers::new(1));
    let fill = || -> (SimDisk, Arc<Volume>) {
        let disk = fresh();
        let volume = open(&disk, options(Some(MethodId::Raw)), &workers).unwrap();
        for n in 0..FILES {
            let name = format!("a file with a rather long name, number {n:06}");
            volume.mkdir(Ino::ROOT, name.as_bytes(), 0o700, &CALLER).unwrap();
        }
        volume.fsync_dir(Ino::ROOT).unwrap();
        (disk, volume)
    };
    let count = |volume: &Volume| {
        let (mut seen, mut at) = (0, 2);
        loop {
            let page = volume.readdir(Ino::ROOT, at, 500).unwrap();
            let Some(last) = page.last() else { return seen };
            at = last.cookie;
            seen += page.len();
        }
    };
    let (disk, volume) = fill();
    let before = disk.syncs();
    let log = |v: &Volume| v.status().unwrap().meta_pack_bytes;
    let grown = log(&volume);
    volume.checkpoint().unwrap();
    assert!(log(&volume) * 3 < grown, "the log was compacted: {grown} -> {}", log(&volume));
    assert_eq!(count(&volume), FILES);
    let after = disk.syncs();
    assert!(after > before + 4);
    for n in before + 1..=after {
        let (disk, volume) = fill();
        disk.cut_power_at_sync(n);
        let _ = volume.checkpoint();
        for survival in [Survival::Synced, Survival::Kernel, Survival::Random(n), Survival::Random(n + 1000)] {
            let left = disk.survivor(survival);
            let volume = open(&left, options(Some(MethodId::Raw)), &workers)
                .unwrap_or_else(|e| panic!("cut at sync {n}, {survival:?}: {e}"));
            assert_eq!(count(&volume), FILES, "cut at sync {n}, {survival:?}");
            assert_eq!(volume.getattr(Ino::ROOT).unwrap().nlink as usize, FILES + 2);
            volume.mkdir(Ino::ROOT, b"one more", 0o700, &CALLER).unwrap();
        }
    }
}
