//! Power cuts and failing disks under operations by chance, judged byte by byte.
//!
//! What counts: a file that was synced is exactly as it was; any other byte is one that the file had at that place since
//! its last sync, zero only where the file once ended before it; names are those of one moment since the log was last
//! synced; a check finds nothing wrong. `TERSEFS_SEED` runs one script alone, `TERSEFS_RUNS` sets their number.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Dice, code_all, fresh, open, options, read, setting};
use tersefs::base::{ByteRange, Ino, MethodId};
use tersefs::host::{Fault, SimDisk, Survival};
use tersefs::volume::{AllocateMode, Caller, Error, GcRun, OpenFor, RenameMode, SetAttr, Volume, XattrMode};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
/// Steps of one script.
const STEPS: u64 = 50;
const RUNS: u64 = 12;

type Names = BTreeMap<Vec<u8>, Ino>;

/// A volume under a script, and all that a disk may hold of it.
struct Script {
    dice: Dice,
    volume: Arc<Volume>,
    /// What each file was since it was last synced, oldest first.
    history: BTreeMap<Ino, Vec<Vec<u8>>>,
    /// What the names were since the log was last synced, oldest first.
    names: Vec<Names>,
    /// Bytes that were on disk before a file got a name that was another's.
    replaced: BTreeMap<(Vec<u8>, Ino), Vec<u8>>,
    trace: Vec<String>,
}

impl Script {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice.roll(sides.max(1))
    }

    fn now(&self, ino: Ino) -> Vec<u8> {
        self.history.get(&ino).and_then(|h| h.last()).cloned().unwrap_or_default()
    }

    fn becomes(&mut self, ino: Ino, bytes: Vec<u8>) {
        self.history.entry(ino).or_insert_with(|| vec![Vec::new()]).push(bytes);
    }

    fn named(&self) -> Names {
        self.names.last().cloned().unwrap_or_default()
    }

    fn log_synced(&mut self) {
        self.names = vec![self.named()];
    }

    fn synced(&mut self, ino: Ino) {
        let now = self.now(ino);
        self.history.insert(ino, vec![now]);
    }

    fn pick(&mut self) -> Option<(Vec<u8>, Ino)> {
        let names = self.named();
        let at = self.roll(names.len() as u64) as usize;
        names.into_iter().nth(at)
    }

    fn bytes(&mut self, max: u64) -> Vec<u8> {
        let most = if self.roll(4) == 0 { max } else { max / 20 };
        let len = 1 + self.roll(most);
        match self.roll(3) {
            0 => self.dice.text(len as usize),
            _ => (0..len).map(|_| self.dice.next() as u8).collect(),
        }
    }

    fn say(&mut self, what: String) {
        self.trace.push(what);
    }

    /// One operation. What it may leave on the disk is noted before it begins.
    fn step(&mut self) -> Result<(), Error> {
        match self.roll(100) {
            0..=19 => self.put(),
            20..=44 => self.overwrite(),
            45..=57 => {
                let Some((_, ino)) = self.pick() else { return Ok(()) };
                self.say(format!("fsync {ino}"));
                self.volume.fsync(ino, false)?;
                self.synced(ino);
                self.log_synced();
                Ok(())
            }
            58..=64 => {
                let Some((_, ino)) = self.pick() else { return Ok(()) };
                let mut bytes = self.now(ino);
                let size = self.roll(bytes.len() as u64 + 20_000);
                self.say(format!("truncate {ino} from {} to {size}", bytes.len()));
                bytes.resize(size as usize, 0);
                self.becomes(ino, bytes);
                self.volume.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }).map(drop)
            }
            65..=68 => {
                let Some((_, ino)) = self.pick() else { return Ok(()) };
                let mut bytes = self.now(ino);
                if bytes.is_empty() {
                    return Ok(());
                }
                let at = self.roll(bytes.len() as u64);
                let len = 1 + self.roll(bytes.len() as u64 - at);
                self.say(format!("punch {ino} {at}+{len} of {}", bytes.len()));
                bytes[at as usize..(at + len) as usize].fill(0);
                self.becomes(ino, bytes);
                self.volume.allocate(ino, AllocateMode::Punch, ByteRange::at(at, len))
            }
            69..=74 => self.rename(),
            75..=78 => {
                let Some((name, ino)) = self.pick() else { return Ok(()) };
                self.say(format!("unlink {ino}"));
                let mut names = self.named();
                names.remove(&name);
                self.names.push(names);
                self.volume.unlink(Ino::ROOT, &name)?;
                self.volume.forget(ino);
                Ok(())
            }
            79..=82 => {
                self.say("flush".into());
                self.volume.flush()?;
                self.log_synced();
                Ok(())
            }
            83..=87 => {
                let limit = 1 + self.roll(4) as usize;
                let tasks = self.volume.plan_coding(limit, true);
                self.say(format!("code {} segments", tasks.len()));
                let coded = tasks.into_iter().map(|t| self.volume.code(t)).collect();
                self.volume.commit_coded(coded)
            }
            88..=89 => {
                let more = self.volume.seal_quiet()?;
                self.say(format!("seal, more to come: {more}"));
                Ok(())
            }
            90..=92 => {
                self.say("code all".into());
                code_all(&self.volume, || ())?;
                self.volume.flush()?;
                self.log_synced();
                // A file that could not be coded waits, and is no more durable than before.
                if self.volume.backlog().files == 0 {
                    for ino in self.history.keys().copied().collect::<Vec<_>>() {
                        self.synced(ino);
                    }
                }
                Ok(())
            }
            93 => {
                self.say("checkpoint".into());
                self.volume.checkpoint()
            }
            94..=95 => {
                let mut run = GcRun::new(&self.volume.plan_gc()?);
                let (steps, bytes) = (self.roll(12), 1 + self.roll(200_000));
                self.say(format!("gc, {steps} steps of {bytes}: {run:?}"));
                (0..steps).try_for_each(|_| self.volume.gc_step(&mut run, bytes).map(drop))
            }
            96..=97 => self.clone_range(),
            _ => {
                // Makes the log long, so that checkpoints compact it.
                self.say("attribute".into());
                let value: Vec<u8> = (0..60_000).map(|_| self.dice.next() as u8).collect();
                self.volume.setxattr(Ino::ROOT, b"user.large", &value, XattrMode::Set)
            }
        }
    }

    /// A new file, or a file emptied and written anew.
    fn put(&mut self) -> Result<(), Error> {
        let name = format!("file {}", self.roll(8)).into_bytes();
        let bytes = self.bytes(200_000);
        let old = self.named().get(&name).copied();
        let open = OpenFor { read: true, write: true, append: false, truncate: old.is_some() };
        self.say(format!("put {} bytes, over {old:?}", bytes.len()));
        let (ino, handle) = match old {
            Some(ino) => {
                self.becomes(ino, Vec::new());
                self.becomes(ino, bytes.clone());
                (ino, self.volume.open_file(ino, open)?.handle)
            }
            None => {
                let (attr, opened) = self.volume.create(Ino::ROOT, &name, 0o644, &CALLER, open)?;
                self.becomes(attr.ino, bytes.clone());
                let mut names = self.named();
                names.insert(name, attr.ino);
                self.names.push(names);
                (attr.ino, opened.handle)
            }
        };
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let written = self.volume.write(ino, handle, 0, first);
        let written = written.and_then(|_| self.volume.write(ino, handle, first.len() as u64, second));
        written.map(drop).and(self.volume.release(ino, handle))
    }

    fn overwrite(&mut self) -> Result<(), Error> {
        let Some((_, ino)) = self.pick() else { return Ok(()) };
        let mut bytes = self.now(ino);
        let data = self.bytes(60_000);
        let beyond = self.roll(3) == 0;
        let at = if beyond { bytes.len() as u64 + self.roll(20_000) } else { self.roll(bytes.len() as u64 + 1) };
        self.say(format!("write {ino} {at}+{} of {}", data.len(), bytes.len()));
        let end = at as usize + data.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[at as usize..end].copy_from_slice(&data);
        self.becomes(ino, bytes);
        let open = OpenFor { read: true, write: true, append: false, truncate: false };
        let handle = self.volume.open_file(ino, open)?.handle;
        let written = self.volume.write(ino, handle, at, &data);
        written.map(drop).and(self.volume.release(ino, handle))
    }

    /// Bytes of one file become those of another, as `cp --reflink` has it.
    fn clone_range(&mut self) -> Result<(), Error> {
        let (Some((_, from)), Some((_, to))) = (self.pick(), self.pick()) else { return Ok(()) };
        let (source, mut bytes) = (self.now(from), self.now(to));
        if from == to || source.is_empty() {
            return Ok(());
        }
        let at = self.roll(source.len() as u64) as usize;
        let len = 1 + self.roll((source.len() - at) as u64) as usize;
        let place = self.roll(bytes.len() as u64 + 1) as usize;
        self.say(format!("clone {from} {at}+{len} to {to} {place} of {}", bytes.len()));
        let before = bytes.clone();
        bytes.resize(bytes.len().max(place + len), 0);
        bytes[place..place + len].copy_from_slice(&source[at..at + len]);
        self.becomes(to, bytes);
        let open = OpenFor { read: true, write: true, append: false, truncate: false };
        let handle = self.volume.open_file(to, open)?.handle;
        let cloned = self.volume.clone_range(from, at as u64, to, handle, place as u64, len as u64);
        self.volume.release(to, handle)?;
        let cloned = cloned? as usize;
        if cloned < len {
            let mut shorter = before;
            shorter.resize(shorter.len().max(place + cloned), 0);
            shorter[place..place + cloned].copy_from_slice(&source[at..at + cloned]);
            self.becomes(to, shorter);
        }
        Ok(())
    }

    fn rename(&mut self) -> Result<(), Error> {
        let (Some((from, moved)), Some((to, target))) = (self.pick(), self.pick()) else { return Ok(()) };
        if moved == target {
            return Ok(());
        }
        let mode = if self.roll(3) == 0 { RenameMode::Exchange } else { RenameMode::Replace };
        self.say(format!("rename {moved} over {target} {mode:?}"));
        let mut names = self.named();
        names.remove(&from);
        match mode {
            RenameMode::Exchange => {
                names.insert(from.clone(), target);
            }
            RenameMode::Replace | RenameMode::NoReplace => {
                if self.names.iter().all(|n| n.get(&to) != Some(&moved)) {
                    self.replaced.insert((to.clone(), moved), self.now(moved));
                }
            }
        }
        names.insert(to.clone(), moved);
        self.names.push(names);
        self.volume.rename(Ino::ROOT, &from, Ino::ROOT, &to, mode)?;
        if mode == RenameMode::Replace {
            self.volume.forget(target);
        }
        Ok(())
    }

    /// Takes in what an operation left that was refused in its middle: names and bytes of before or of after it, or of a
    /// file the first part of what was written.
    fn resync(&mut self) {
        let entries = self.volume.readdir(Ino::ROOT, 2, 1000).expect("the names are read");
        let names: Names = entries.into_iter().map(|e| (e.name, e.ino)).collect();
        let known = self.names.iter().rev().take(2).any(|n| *n == names);
        assert!(known, "names {names:?} are neither old nor new: {:#?}", self.trace);
        self.names.push(names.clone());
        for ino in names.into_values() {
            let size = self.volume.getattr(ino).expect("attributes").size;
            let found = read(&self.volume, ino, 0, size).expect("the bytes are read");
            let versions = self.history.entry(ino).or_insert_with(|| vec![Vec::new()]);
            let last: Vec<&Vec<u8>> = versions.iter().rev().take(3).collect();
            let strange = |(at, byte): (usize, &u8)| !last.iter().any(|v| v.get(at).copied().unwrap_or(0) == *byte);
            let at = found.iter().enumerate().position(strange);
            assert_eq!(at, None, "inode {ino} has a byte that is neither old nor new: {:#?}", self.trace);
            if versions.last() != Some(&found) {
                versions.push(found);
            }
        }
    }

    /// Holds a disk that is left against what it may hold.
    fn judge(&self, left: &SimDisk, workers: &Arc<Workers>) -> Result<(), String> {
        let volume = open(left, options(Some(MethodId::Raw)), workers).map_err(|e| format!("no mount: {e}"))?;
        let entries = volume.readdir(Ino::ROOT, 2, 1000).map_err(|e| e.to_string())?;
        // A file whose making was cut off may have its name all the same.
        let names: Names =
            entries.into_iter().filter(|e| self.history.contains_key(&e.ino)).map(|e| (e.name, e.ino)).collect();
        if !self.names.contains(&names) {
            return Err(format!("names {names:?} are none of {:?}", self.names));
        }
        let mut seen = BTreeMap::new();
        for (name, ino) in &names {
            let size = volume.getattr(*ino).map_err(|e| format!("inode {ino}: {e}"))?.size;
            let found = read(&volume, *ino, 0, size).map_err(|e| format!("inode {ino}: {e}"))?;
            let mut versions: &[Vec<u8>] = self.history.get(ino).map_or(&[], Vec::as_slice);
            if let Some(bytes) = self.replaced.get(&(name.clone(), *ino)) {
                let first = versions.iter().rposition(|v| v == bytes).unwrap_or(0);
                versions = versions.get(first..).unwrap_or_default();
            }
            let lens = || versions.iter().map(Vec::len);
            let (min, max) = (lens().min().unwrap_or(0), lens().max().unwrap_or(0));
            if found.len() < min || found.len() > max {
                return Err(format!("inode {ino} has {} bytes, not {min} to {max}", found.len()));
            }
            let strange = found
                .iter()
                .enumerate()
                .find(|(at, byte)| !versions.iter().any(|v| v.get(*at).copied().unwrap_or(0) == **byte));
            if let Some((at, byte)) = strange {
                let had: Vec<_> = versions.iter().map(|v| (v.len(), v.get(at).copied())).collect();
                return Err(format!(
                    "inode {ino} byte {at} of {}: {byte}, but lengths and bytes were {had:?}",
                    found.len()
                ));
            }
            seen.insert(*ino, found);
        }
        // It goes on working, and nothing changes by it.
        code_all(&volume, || ()).map_err(|e| format!("coding: {e}"))?;
        for (ino, bytes) in &seen {
            let again = read(&volume, *ino, 0, bytes.len() as u64 + 1).map_err(|e| format!("inode {ino}: {e}"))?;
            if again != *bytes {
                return Err(format!("inode {ino} was changed by coding"));
            }
        }
        volume.close().map_err(|e| format!("close: {e}"))?;
        drop(volume);
        let end = left.survivor(Survival::Kernel);
        let report = tersefs::tools::fsck(Arc::new(end), false, &mut |_, _| ()).map_err(|e| e.to_string())?;
        if report.problems.is_empty() { Ok(()) } else { Err(format!("fsck: {:?}", report.problems)) }
    }
}

/// Runs the script of a seed on a disk that `prepare` has done something to. True when it came to its end.
fn play(seed: u64, workers: &Arc<Workers>, prepare: impl FnOnce(&SimDisk)) -> (SimDisk, Option<Script>, bool) {
    let disk = fresh();
    prepare(&disk);
    let Ok(volume) = open(&disk, options(Some(MethodId::Raw)), workers) else { return (disk, None, false) };
    let mut script = Script {
        dice: Dice::new(seed),
        volume,
        history: BTreeMap::new(),
        names: vec![Names::new()],
        replaced: BTreeMap::new(),
        trace: Vec::new(),
    };
    let mut ended = None;
    let whole = (0..STEPS).all(|_| match script.step() {
        Ok(()) => true,
        Err(e) => {
            ended = Some(e);
            false
        }
    });
    script.trace.extend(ended.map(|e| format!("ended: {e}")));
    (disk, Some(script), whole)
}

fn seeds() -> Vec<u64> {
    match setting("TERSEFS_SEED") {
        Some(seed) => vec![seed],
        None => (1..=setting("TERSEFS_RUNS").unwrap_or(RUNS)).collect(),
    }
}

fn hold(script: &Script, left: &SimDisk, workers: &Arc<Workers>, case: &str) {
    if let Err(why) = script.judge(left, workers) {
        let last: Vec<&String> = script.trace.iter().rev().take(15).rev().collect();
        panic!("{case}: {why}\nthe last operations: {last:#?}");
    }
}

#[test]
fn power_cut_at_every_sync_of_random_scripts() {
    let workers = Arc::new(Workers::new(1));
    let mut cases = 0;
    for seed in seeds() {
        let before = fresh().syncs();
        let syncs = play(seed, &workers, |_| ()).0.syncs();
        for n in before + 1..=syncs {
            let (disk, script, whole) = play(seed, &workers, |d| d.cut_power_at_sync(n));
            let Some(script) = script.filter(|_| !whole) else { continue };
            let mut images = vec![Survival::Synced, Survival::Kernel];
            images.extend((0..3).map(|s| Survival::Ordered(s * 1000 + n)));
            images.extend((0..3).map(|s| Survival::Random(s * 1000 + n)));
            for image in images {
                hold(&script, &disk.survivor(image), &workers, &format!("seed {seed}, sync {n}, {image:?}"));
                cases += 1;
            }
        }
    }
    assert!(cases > 50, "{cases} cuts prove nothing");
}

#[test]
fn failing_syncs_and_writes_of_random_scripts() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let workers = Arc::new(Workers::new(1));
    for seed in seeds() {
        let (syncs, writes) = (fresh().syncs(), fresh().writes());
        let whole = play(seed, &workers, |_| ()).0;
        // Each write of some scripts, some writes of each.
        let each = if seed <= 3 { 1 } else { 5 };
        let faults = (syncs + 1..=whole.syncs())
            .map(|n| (Fault::Sync, n))
            .chain((writes + 1..=whole.writes()).step_by(each).map(|n| (Fault::Write, n)));
        for (fault, n) in faults {
            for errno in [EIO, ENOSPC] {
                let (disk, script, whole) = play(seed, &workers, |d| d.fail_at(fault, n, errno));
                let Some(script) = script else { continue };
                let case = format!("seed {seed}, {fault:?} {n} fails with {errno}");
                if fault == Fault::Sync && !whole {
                    assert!(
                        script.volume.is_read_only(),
                        "{case}: a sync failed and changes go on: {:?}",
                        script.trace.last()
                    );
                }
                for image in [Survival::Synced, Survival::Kernel] {
                    hold(&script, &disk.survivor(image), &workers, &format!("{case}, {image:?}"));
                }
            }
        }
    }
}

/// Bytes that a small disk holds: some of the files of a script, not all.
const SMALL_DISK: u64 = 900 << 10;

/// A disk that is full again and again: what makes room always works, what was synced is there, and the disk can be
/// mounted at any moment. What was refused has changed nothing, or a part of the bytes it was to write.
#[test]
fn a_full_disk_refuses_new_data_and_nothing_else() {
    let workers = Arc::new(Workers::new(1));
    let (mut refused, mut judged) = (0, 0);
    for seed in seeds() {
        let capacity = SMALL_DISK + seed % 7 * 50_000;
        let disk = fresh();
        disk.set_capacity(capacity);
        let volume = open(&disk, options(Some(MethodId::Raw)), &workers).expect("it mounts");
        let mut script = Script {
            dice: Dice::new(seed + 1000),
            volume,
            history: BTreeMap::new(),
            names: vec![Names::new()],
            replaced: BTreeMap::new(),
            trace: Vec::new(),
        };
        for n in 0..STEPS * 4 {
            match script.step() {
                Ok(()) => {}
                Err(Error::NoSpace) => {
                    let what = script.trace.last().cloned().unwrap_or_default();
                    let makes_room = ["fsync", "truncate", "punch", "rename", "unlink", "flush", "checkpoint"];
                    let refusable = !makes_room.iter().any(|w| what.starts_with(w));
                    assert!(refusable, "seed {seed}, step {n}: no space for `{what}`");
                    refused += 1;
                    script.resync();
                }
                Err(e) => panic!("seed {seed}, step {n}: {e}: {:#?}", script.trace),
            }
            assert!(!script.volume.is_read_only(), "seed {seed}, step {n}: a full disk ends nothing");
            if n % 20 == 19 {
                for image in [Survival::Synced, Survival::Kernel, Survival::Ordered(n)] {
                    let left = disk.survivor(image);
                    let case = format!("seed {seed}, step {n}, {image:?}");
                    // As full as it is; then with room, so that everything can be coded.
                    open(&left, options(Some(MethodId::Raw)), &workers).unwrap_or_else(|e| panic!("{case}: {e}"));
                    let left = disk.survivor(image);
                    left.set_capacity(1 << 30);
                    hold(&script, &left, &workers, &case);
                    judged += 1;
                }
            }
        }
        // Room again, as when the administrator made some: all goes on without a mount.
        disk.set_capacity(1 << 30);
        script.volume.flush().expect("flush");
        assert!(
            disk.files().iter().any(|(path, len)| path == "reserve" && *len == (1 << 30) / 50),
            "{:?}",
            disk.files()
        );
        code_all(&script.volume, || ()).expect("coding goes on");
        assert_eq!(script.volume.backlog().files, 0, "seed {seed}: {:?}", script.volume.backlog());
        script.volume.close().expect("close");
        hold(&script, &disk.survivor(Survival::Synced), &workers, &format!("seed {seed}, at the end"));
    }
    assert!(refused > 12 && judged > 100, "{refused} refusals and {judged} images prove nothing");
}

/// Without anything coded a deleted file gives all of its space back at once.
#[test]
fn what_is_deleted_on_a_full_disk_can_be_written_again() {
    let workers = Arc::new(Workers::new(1));
    let disk = fresh();
    disk.set_capacity(8 << 20);
    let volume = open(&disk, options(Some(MethodId::Raw)), &workers).expect("it mounts");
    let open_for = OpenFor { write: true, ..OpenFor::default() };
    let data = [7; 100_000];
    for round in 0..20 {
        let mut files = Vec::new();
        let full = loop {
            let name = format!("{round} {}", files.len());
            let (attr, opened) = match volume.create(Ino::ROOT, name.as_bytes(), 0o600, &CALLER, open_for) {
                Ok(made) => made,
                Err(e) => break e,
            };
            files.push((name, attr.ino));
            let written = volume.write(attr.ino, opened.handle, 0, &data);
            volume.release(attr.ino, opened.handle).expect("release");
            if let Err(e) = written {
                break e;
            }
        };
        assert!(matches!(full, Error::NoSpace), "round {round}: {full}");
        assert!(files.len() > 50, "round {round}: full after {} files: the space did not come back", files.len());
        for (name, ino) in files {
            volume.unlink(Ino::ROOT, name.as_bytes()).expect("unlink");
            volume.forget(ino);
        }
    }
    volume.close().expect("close");
}

/// Steps that meet a fault which ends with them: one of `fault` on files of `prefix`, `strikes` times.
fn trouble(seed: u64, workers: &Arc<Workers>, fault: Fault, prefix: &str, strikes: u64, errno: i32) -> u64 {
    let case = format!("seed {seed}, {fault:?} on {prefix:?} fails {strikes} times with {errno}");
    let disk = fresh();
    let volume = open(&disk, options(Some(MethodId::Raw)), workers).expect("it mounts");
    let mut script = Script {
        dice: Dice::new(seed),
        volume,
        history: BTreeMap::new(),
        names: vec![Names::new()],
        replaced: BTreeMap::new(),
        trace: Vec::new(),
    };
    let mut chance = Dice::new(seed + 77);
    let mut met = 0;
    for _ in 0..STEPS {
        disk.fail_on(fault, prefix, chance.roll(3), strikes, errno);
        let outcome = script.step();
        disk.mend();
        let names = script.named();
        if let (true, Some(ino)) = (outcome.is_ok(), chance.pick(&names.into_values().collect::<Vec<_>>())) {
            let expected = script.now(*ino);
            disk.fail_on(fault, prefix, 0, strikes, errno);
            match read(&script.volume, *ino, 0, u64::MAX / 2) {
                Ok(found) => assert!(found == expected, "{case}: inode {ino} is read wrong"),
                Err(_) => met += 1,
            }
            disk.mend();
            let again = read(&script.volume, *ino, 0, u64::MAX / 2);
            assert!(again.is_ok_and(|found| found == expected), "{case}: inode {ino} is not read again");
        }
        if let Err(e) = outcome {
            let told = match (fault, &e) {
                (Fault::Write, Error::NoSpace) | (Fault::Open, Error::TooManyFiles) => true,
                // A segment that cannot be read is told as damage of the file, whatever the reason.
                (Fault::Open | Fault::Read, Error::Damaged { .. }) => true,
                (Fault::Open, Error::Store(e)) => e.is_refusal(),
                (Fault::Read, Error::Io { .. } | Error::Store(_)) => true,
                (_, _) => false,
            };
            assert!(told, "{case}: {e:?}: {:?}", script.trace.last());
            met += 1;
            script.resync();
        }
        assert!(!script.volume.is_read_only(), "{case}: it ends nothing: {:?}", script.trace.last());
    }
    script.volume.flush().unwrap_or_else(|e| panic!("{case}: {e}"));
    script.log_synced();
    for image in [Survival::Synced, Survival::Kernel] {
        hold(&script, &disk.survivor(image), workers, &format!("{case}, {image:?}"));
    }
    script.volume.close().unwrap_or_else(|e| panic!("{case}: {e}"));
    script.history.keys().copied().collect::<Vec<_>>().into_iter().for_each(|ino| script.synced(ino));
    hold(&script, &disk.survivor(Survival::Synced), workers, &format!("{case}, closed"));
    met
}

/// A disk without space, a process without descriptors, reads that fail: at each operation in turn, for a moment or for all
/// of it. The volume goes on, what was refused changed nothing, what was synced is there.
#[test]
fn passing_trouble_ends_nothing_and_loses_nothing() {
    const EIO: i32 = 5;
    const EMFILE: i32 = 24;
    const ENOSPC: i32 = 28;
    let workers = Arc::new(Workers::new(1));
    let mut met = BTreeMap::new();
    for seed in seeds() {
        for prefix in ["packs/", "staging", "reserve", ""] {
            for strikes in [1, 3, u64::MAX] {
                for (fault, errno) in [(Fault::Write, ENOSPC), (Fault::Open, EMFILE), (Fault::Read, EIO)] {
                    if fault == Fault::Write && strikes > 1 && !matches!(prefix, "packs/" | "reserve") {
                        // The cut after a write that was refused would fail too, which no full disk does.
                        continue;
                    }
                    *met.entry((prefix, errno)).or_insert(0) += trouble(seed, &workers, fault, prefix, strikes, errno);
                }
            }
        }
    }
    for at in [("staging", ENOSPC), ("staging", EMFILE), ("packs/", ENOSPC), ("packs/", EIO)] {
        assert!(met.get(&at).is_some_and(|n| *n > 5), "{at:?} was hardly met: {met:?}");
    }
}
