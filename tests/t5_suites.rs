//! Published suites on a mounted volume, and an exerciser of one file that is coded or remounted between its operations.
//!
//! `TERSEFS_FSX_OPS` sets the number of operations of each run (8,000 of fsx, a quarter of it of the exerciser),
//! `TERSEFS_FSX_EACH` how many of them lie between two codings or two mounts in the mean (50 and 100), `TERSEFS_FSX_KIB`
//! the size of the file at most (1,024 of fsx, 1,464 of the exerciser), and `TERSEFS_SEED` the seed. A long run is fastest
//! with a small file, many operations between two mounts, and `TMPDIR` in memory.

mod mounted;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::Instant;

use mounted::{Dice, Mount, arg, ok, run, sys, tools};

const FAST: [&str; 4] = ["--method", "zstd", "--quiet-seconds", "0.1"];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} is not a number: {v}")))
}

/// Other users must reach the mount.
fn open_temp() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Every case that ext4 passes, and no more skips than are pinned with their reasons.
#[test]
fn pjdfstest_passes_as_on_ext4() {
    let program = tools::tool("pjdfstest", "0.2.2");
    let dir = open_temp();
    let config = dir.path().join("pjdfstest.toml");
    fs::write(
        &config,
        "[features]\nposix_fallocate = {}\nutime_now = {}\nutimensat = {}\nrename_ctime = {}\n\n\
         [settings]\nnaptime = 0.01\nallow_remount = false\n\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"games\", \"games\"]]\n",
    )
    .unwrap();
    let skips: BTreeSet<String> = include_str!("data/pjdfstest.skips")
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(str::to_string)
        .collect();
    for flags in [&["--quiet-seconds", "0.1"][..], &["--no-passthrough"], &["--writeback-cache"]] {
        let mount = Mount::new(dir.path(), flags);
        let (here, other) = (mount.path("pjdfstest"), dir.path().join("other"));
        fs::create_dir(&here).unwrap();
        fs::create_dir_all(&other).unwrap();
        let args = ["-c", arg(&config), "-p", arg(&here), "-s", arg(&other)];
        let outcome = run(arg(&program), &args, 300);
        let named = |how: &str| -> BTreeSet<String> {
            let lines = outcome.out.lines().filter(|l| l.ends_with(how));
            lines.filter_map(|l| l.split_whitespace().next()).map(str::to_string).collect()
        };
        let failed = named("FAILED");
        let why = outcome.out.find("FAILED").map_or("", |at| outcome.out.get(at..).unwrap_or("").trim());
        let why: String = why.chars().take(1000).collect();
        assert!(outcome.code == Some(0) && failed.is_empty(), "{flags:?}: {failed:?}\n{why}");
        let skipped = named("skipped");
        assert_eq!(skipped, skips, "{flags:?}: what is skipped is pinned");
        assert!(outcome.out.contains("398 total"), "{}", outcome.out);
        fs::remove_dir_all(&here).unwrap();
        mount.done();
        fs::remove_dir_all(dir.path().join("store")).unwrap();
    }
}

/// All kinds of operations that fsx knows, served by the kernel from staging, through the daemon, and collected.
#[test]
fn fsx_on_hot_files() {
    let program = tools::tool("fsx", "0.3.2");
    let (ops, seed) = (setting("TERSEFS_FSX_OPS", 8_000).to_string(), setting("TERSEFS_SEED", 1));
    let file_bytes = setting("TERSEFS_FSX_KIB", 1024) << 10;
    let dir = open_temp();
    let config = dir.path().join("fsx.toml");
    fs::write(
        &config,
        format!(
            // It takes the refusal of posix_fallocate to allocate nothing for one to allocate anything: no empty operations.
            "flen = {file_bytes}\n[opsize]\nmin = 1\nmax = {}\n[weights]\nclose_open = 2\nread = 10\nwrite = 10\nmapread = 10\n\
             mapwrite = 10\ninvalidate = 1\ntruncate = 5\nfsync = 0.2\nfdatasync = 0.2\nposix_fallocate = 2\n\
             punch_hole = 5\nsendfile = 5\nposix_fadvise = 2\ncopy_file_range = 5\n",
            file_bytes / 8
        ),
    )
    .unwrap();
    for (n, flags) in [&[][..], &["--no-passthrough"], &["--writeback-cache"]].into_iter().enumerate() {
        let mount = Mount::new(dir.path(), &[&FAST[..], flags].concat());
        let file = mount.path("file");
        let seed = (seed + n as u64).to_string();
        let args = ["-f", arg(&config), "-N", &ops, "-S", &seed, "-P", arg(dir.path()), arg(&file)];
        let started = Instant::now();
        let outcome = run(arg(&program), &args, 36_000);
        assert_eq!(outcome.code, Some(0), "{flags:?}, seed {seed}: {}{}", outcome.out, outcome.err);
        let last = fs::read(&file).unwrap();
        mount.wait();
        assert!(fs::read(&file).unwrap() == last, "{flags:?}: coded");
        mount.done();
        println!("fsx {flags:?}, seed {seed}: {ops} operations in {:?}", started.elapsed());
    }
}

/// Operations of which the trace is kept: more than lie between two mounts.
const TRACE_MAX: usize = 5_000;
/// Bytes that writes are cut from, from a place by chance: making them anew for each would take most of the time.
const POOL_BYTES: u64 = 4 << 20;

/// What happens between operations, with the file closed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Between {
    /// Everything is coded, and sometimes collected.
    Coded,
    /// Unmounted and mounted, by turns coded, not coded, and killed after a sync.
    Remounted,
}

struct Exerciser {
    mount: Option<Mount>,
    flags: Vec<&'static str>,
    dir: tempfile::TempDir,
    file: Option<File>,
    file_bytes: u64,
    good: Vec<u8>,
    /// What the copy of the file must hold, which shares segments with it.
    copy: Option<Vec<u8>>,
    text: Vec<u8>,
    noise: Vec<u8>,
    dice: Dice,
    trace: VecDeque<String>,
    codings: u64,
    mounts: u64,
}

impl Exerciser {
    fn new(flags: &[&'static str], seed: u64) -> Exerciser {
        let dir = open_temp();
        let flags = [&FAST[..], flags].concat();
        let mount = Mount::new(dir.path(), &flags);
        let mut dice = Dice(seed);
        let mut it = Exerciser {
            mount: Some(mount),
            flags,
            dir,
            file: None,
            // A few segments.
            file_bytes: setting("TERSEFS_FSX_KIB", 1464) << 10,
            good: Vec::new(),
            copy: None,
            text: dice.text(POOL_BYTES as usize),
            noise: dice.noise(POOL_BYTES as usize),
            dice,
            trace: VecDeque::new(),
            codings: 0,
            mounts: 0,
        };
        it.open();
        it
    }

    fn mount(&self) -> &Mount {
        self.mount.as_ref().expect("a mount")
    }

    fn note(&mut self, what: String) {
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(what);
    }

    fn open(&mut self) {
        let path = self.mount().path("file");
        let append = self.dice.below(8) == 0;
        let mut options = File::options();
        self.file =
            Some(options.read(true).write(true).create(true).truncate(false).append(append).open(path).unwrap());
    }

    fn range(&mut self) -> (u64, u64) {
        let size = self.good.len() as u64;
        let start = match self.dice.below(4) {
            0 => size,
            1 => self.dice.below(size / 4096 + 1) * 4096,
            _ => self.dice.below(size + 1),
        };
        let few = [1, 4096, 1 + self.dice.below(10_000), 1 + self.dice.below(self.file_bytes / 5)];
        let len = few[self.dice.below(4) as usize];
        (start, len.min(self.file_bytes.saturating_sub(start)))
    }

    fn data(&mut self, len: u64) -> Vec<u8> {
        let pool = if self.dice.below(3) == 0 { &self.noise } else { &self.text };
        let at = self.dice.below(POOL_BYTES - len) as usize;
        pool[at..][..len as usize].to_vec()
    }

    fn put(&mut self, start: u64, data: &[u8]) {
        let end = start as usize + data.len();
        if !data.is_empty() {
            self.good.resize(self.good.len().max(end), 0);
            self.good[start as usize..end].copy_from_slice(data);
        }
    }

    /// One operation; the bytes that it reads are compared.
    fn step(&mut self) {
        let kind = self.dice.below(17);
        let (start, len) = self.range();
        let size = self.good.len() as u64;
        self.note(format!("{kind}: {start}+{len} of {size}"));
        let file = self.file.take().expect("an open file");
        let inside = len.min(size.saturating_sub(start));
        let (from, to) = (start as usize, (start + inside) as usize);
        match kind {
            0..=3 => {
                let data = self.data(len);
                // Linux appends whatever the offset, when a file is open so.
                let at = if sys::appends(&file) { size } else { start };
                let data = &data[..data.len().min(self.file_bytes.saturating_sub(at) as usize)];
                file.write_all_at(data, start).unwrap();
                self.put(at, data);
            }
            4..=6 => {
                let mut got = vec![0; len as usize];
                let n = file.read_at(&mut got, start).unwrap();
                assert_eq!(n as u64, inside, "length of a read of {start}+{len} of {size}");
                assert!(got[..n] == self.good[from..to], "read of {start}+{len}");
            }
            7 if inside > 0 => {
                let mut map = sys::Mapping::shared(&file, size as usize).unwrap();
                assert!(map.bytes()[from..to] == self.good[from..to], "mapped read of {start}+{inside}");
            }
            8 if inside > 0 => {
                let data = self.data(inside);
                let mut map = sys::Mapping::shared(&file, size as usize).unwrap();
                map.bytes()[from..to].copy_from_slice(&data);
                if self.dice.below(2) == 0 {
                    map.sync().unwrap();
                }
                drop(map);
                self.put(start, &data);
            }
            9 => {
                let to = self.dice.below(self.file_bytes);
                let to = if self.dice.below(3) == 0 { start } else { to.min(size + 100_000) };
                file.set_len(to.min(self.file_bytes)).unwrap();
                self.good.resize(to.min(self.file_bytes) as usize, 0);
            }
            10 if len > 0 => {
                let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let mode = [punch, libc::FALLOC_FL_ZERO_RANGE][self.dice.below(2) as usize];
                sys::allocate(&file, mode, start as i64, len as i64).unwrap();
                if mode != punch {
                    self.good.resize(self.good.len().max((start + len) as usize), 0);
                }
                let end = self.good.len().min((start + len) as usize);
                self.good[from..end].fill(0);
            }
            11 if len > 0 => {
                sys::allocate(&file, 0, start as i64, len as i64).unwrap();
                self.good.resize(self.good.len().max((start + len) as usize), 0);
            }
            12 if inside > 0 && !sys::appends(&file) => {
                let place = self.dice.below(self.file_bytes - inside);
                let place = if self.dice.below(2) == 0 { place.min(size) } else { place };
                if place + inside <= start || start + inside <= place {
                    let n = sys::copy_range(&file, start, &file, place, inside).unwrap();
                    assert!(n > 0 && n <= inside);
                    let data = self.good[from..][..n as usize].to_vec();
                    self.put(place, &data);
                }
            }
            13 => match self.dice.below(2) {
                0 => file.sync_data().unwrap(),
                _ => file.sync_all().unwrap(),
            },
            14 => sys::forget_pages(&file).unwrap(),
            15 if inside > 0 => {
                let got = sys::sent(&file, start, inside as usize).unwrap();
                assert!(!got.is_empty() && self.good[from..to].starts_with(&got), "sent of {start}+{inside}");
            }
            _ => {
                drop(file);
                return self.open();
            }
        }
        self.file = Some(file);
    }

    fn between(&mut self, how: Between) {
        let file = self.file.take().expect("an open file");
        let kind = self.dice.below(3);
        self.note(format!("{how:?} {kind}"));
        match (how, kind) {
            (Between::Coded, _) => {
                drop(file);
                self.mount().wait();
                self.codings += 1;
                if self.dice.below(8) == 0 {
                    ok(mounted::BINARY, &["gc", arg(&self.mount().point)], 300);
                }
            }
            (Between::Remounted, 0) => {
                // Nothing synced may be lost.
                file.sync_all().unwrap();
                self.mount.take().expect("a mount").kill();
            }
            (Between::Remounted, kind) => {
                drop(file);
                let left = self.mount.take().expect("a mount").umount(if kind == 1 { &["--now"] } else { &[] });
                assert!(left.code == Some(0) || kind == 1 && left.code == Some(4), "{left:?}");
            }
        }
        if self.mount.is_none() {
            self.mount = Some(Mount::new(self.dir.path(), &self.flags));
            self.mounts += 1;
        }
        self.open();
        self.compare("file", &self.good);
        if let Some(copy) = &self.copy {
            self.compare("copy", copy);
        }
        if self.dice.below(4) == 0 {
            self.note("copy".into());
            fs::copy(self.mount().path("file"), self.mount().path("copy")).unwrap();
            // The daemon may be killed before it is looked at.
            File::open(self.mount().path("copy")).and_then(|f| f.sync_all()).unwrap();
            self.copy = Some(self.good.clone());
        }
    }

    fn compare(&self, name: &str, good: &[u8]) {
        let got = fs::read(self.mount().path(name)).unwrap();
        assert_eq!(got.len(), good.len(), "length of {name}");
        assert!(got == good, "{name} differs at {:?}", got.iter().zip(good).position(|(a, b)| a != b));
    }
}

/// Operations on a file, and every `each` of them in the mean what comes between.
fn exercise(how: Between, flags: &[&'static str], each: u64) {
    let (ops, seed) = (setting("TERSEFS_FSX_OPS", 8_000) / 4, setting("TERSEFS_SEED", 1));
    let each = setting("TERSEFS_FSX_EACH", each).max(1);
    let started = Instant::now();
    let mut it = Exerciser::new(flags, seed);
    let mut done = 0;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while done < ops {
            for _ in 0..(1 + it.dice.below(each * 2 - 1)).min(ops - done) {
                it.step();
                done += 1;
            }
            it.between(how);
        }
    }));
    println!(
        "{how:?} {flags:?}, seed {seed}: {done} operations in {:?}; {} codings, {} mounts",
        started.elapsed(),
        it.codings,
        it.mounts
    );
    if let Err(panic) = outcome {
        let all: Vec<String> = it.trace.iter().cloned().collect();
        let kept = it.dir.keep();
        fs::write(kept.join("trace"), all.join("\n")).unwrap();
        let last = &all[all.len().saturating_sub(30)..];
        eprintln!("the last operations, of which more are in {}:\n  {}", kept.display(), last.join("\n  "));
        std::panic::resume_unwind(panic);
    }
    drop(it.file);
    it.mount.take().expect("a mount").done();
    // The file is still there, and the store is sound.
    ok(mounted::BINARY, &["fsck", arg(&it.dir.path().join("store"))], 300);
}

#[test]
fn a_file_that_is_coded_between_operations() {
    exercise(Between::Coded, &[], 50);
    exercise(Between::Coded, &["--writeback-cache"], 50);
}

#[test]
fn a_file_that_is_remounted_between_operations() {
    exercise(Between::Remounted, &[], 100);
    exercise(Between::Remounted, &["--no-passthrough"], 100);
}
