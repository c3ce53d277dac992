//! Published suites on a mounted volume, and an exerciser of one file that is coded or remounted between its operations.
//!
//! `TERSEFS_FSX_OPS` sets the number of operations of each run (8,000 of fsx, a quarter of it of the exerciser),
//! `TERSEFS_SEED` the seed.

mod mounted;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};

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
    let dir = open_temp();
    let config = dir.path().join("fsx.toml");
    fs::write(
        &config,
        "flen = 1048576\n[opsize]\nmax = 131072\n[weights]\nclose_open = 2\nread = 10\nwrite = 10\nmapread = 10\n\
         mapwrite = 10\ninvalidate = 1\ntruncate = 5\nfsync = 0.2\nfdatasync = 0.2\nposix_fallocate = 2\n\
         punch_hole = 5\nsendfile = 5\nposix_fadvise = 2\ncopy_file_range = 5\n",
    )
    .unwrap();
    for (n, flags) in [&[][..], &["--no-passthrough"], &["--writeback-cache"]].into_iter().enumerate() {
        let mount = Mount::new(dir.path(), &[&FAST[..], flags].concat());
        let file = mount.path("file");
        let seed = (seed + n as u64).to_string();
        let args = ["-f", arg(&config), "-N", &ops, "-S", &seed, "-P", arg(dir.path()), arg(&file)];
        let outcome = run(arg(&program), &args, 36_000);
        assert_eq!(outcome.code, Some(0), "{flags:?}, seed {seed}: {}{}", outcome.out, outcome.err);
        let last = fs::read(&file).unwrap();
        mount.wait();
        assert!(fs::read(&file).unwrap() == last, "{flags:?}: coded");
        mount.done();
    }
}

/// Bytes of the file at most: a few segments.
const FILE_BYTES: u64 = 1_500_000;

/// What happens between operations, with the file closed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Between {
    /// Everything is coded.
    Coded,
    /// Unmounted and mounted, by turns coded, not coded, and killed after a sync.
    Remounted,
}

struct Exerciser {
    mount: Option<Mount>,
    flags: Vec<&'static str>,
    dir: tempfile::TempDir,
    file: Option<File>,
    good: Vec<u8>,
    dice: Dice,
    trace: Vec<String>,
}

impl Exerciser {
    fn new(flags: &[&'static str], seed: u64) -> Exerciser {
        let dir = open_temp();
        let flags = [&FAST[..], flags].concat();
        let mount = Mount::new(dir.path(), &flags);
        let mut it = Exerciser {
            mount: Some(mount),
            flags,
            dir,
            file: None,
            good: Vec::new(),
            dice: Dice(seed),
            trace: Vec::new(),
        };
        it.open();
        it
    }

    fn mount(&self) -> &Mount {
        self.mount.as_ref().expect("a mount")
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
        let len = [1, 4096, 1 + self.dice.below(10_000), 1 + self.dice.below(300_000)][self.dice.below(4) as usize];
        (start, len.min(FILE_BYTES.saturating_sub(start)))
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
        let kind = self.dice.below(16);
        let (start, len) = self.range();
        let size = self.good.len() as u64;
        self.trace.push(format!("{kind}: {start}+{len} of {size}"));
        let file = self.file.take().expect("an open file");
        let inside = len.min(size.saturating_sub(start));
        match kind {
            0..=3 => {
                let data =
                    if self.dice.below(3) == 0 { self.dice.noise(len as usize) } else { self.dice.text(len as usize) };
                // Linux appends whatever the offset, when a file is open so.
                let at = if sys::appends(&file) { size } else { start };
                let data = &data[..data.len().min(FILE_BYTES.saturating_sub(at) as usize)];
                file.write_all_at(data, start).unwrap();
                self.put(at, data);
            }
            4..=6 => {
                let mut got = vec![0; len as usize];
                let n = file.read_at(&mut got, start).unwrap();
                assert_eq!(n as u64, inside, "length of a read of {start}+{len} of {size}");
                assert!(got[..n] == self.good[start as usize..][..n], "read of {start}+{len}");
            }
            7 if size > 0 => {
                let mut map = sys::Mapping::shared(&file, size as usize).unwrap();
                assert!(map.bytes() == self.good, "mapping of {size}");
            }
            8 if inside > 0 => {
                let data = self.dice.text(inside as usize);
                let mut map = sys::Mapping::shared(&file, size as usize).unwrap();
                map.bytes()[start as usize..][..inside as usize].copy_from_slice(&data);
                if self.dice.below(2) == 0 {
                    map.sync().unwrap();
                }
                drop(map);
                self.put(start, &data);
            }
            9 => {
                let to = self.dice.below(FILE_BYTES);
                let to = if self.dice.below(3) == 0 { start } else { to.min(size + 100_000) };
                file.set_len(to.min(FILE_BYTES)).unwrap();
                self.good.resize(to.min(FILE_BYTES) as usize, 0);
            }
            10 if len > 0 => {
                let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let mode = [punch, libc::FALLOC_FL_ZERO_RANGE][self.dice.below(2) as usize];
                sys::allocate(&file, mode, start as i64, len as i64).unwrap();
                if mode != punch {
                    self.good.resize(self.good.len().max((start + len) as usize), 0);
                }
                let end = self.good.len().min((start + len) as usize);
                self.good[start as usize..end].fill(0);
            }
            11 if len > 0 => {
                sys::allocate(&file, 0, start as i64, len as i64).unwrap();
                self.good.resize(self.good.len().max((start + len) as usize), 0);
            }
            12 if inside > 0 && !sys::appends(&file) => {
                let to = self.dice.below(FILE_BYTES - inside);
                let to = if self.dice.below(2) == 0 { to.min(size) } else { to };
                if to + inside <= start || start + inside <= to {
                    let n = sys::copy_range(&file, start, &file, to, inside).unwrap();
                    assert!(n > 0 && n <= inside);
                    let data = self.good[start as usize..][..n as usize].to_vec();
                    self.put(to, &data);
                }
            }
            13 => file.sync_data().unwrap(),
            14 => sys::forget_pages(&file).unwrap(),
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
        self.trace.push(format!("{how:?} {kind}"));
        match (how, kind) {
            (Between::Coded, _) => {
                drop(file);
                self.mount().wait();
            }
            (Between::Remounted, 0) => {
                // Nothing synced may be lost.
                file.sync_all().unwrap();
                self.mount.take().expect("a mount").kill();
            }
            (Between::Remounted, kind) => {
                drop(file);
                self.mount.take().expect("a mount").umount(if kind == 1 { &["--now"] } else { &[] });
            }
        }
        if self.mount.is_none() {
            self.mount = Some(Mount::new(self.dir.path(), &self.flags));
        }
        self.open();
        let got = fs::read(self.mount().path("file")).unwrap();
        assert_eq!(got.len(), self.good.len(), "length");
        assert!(got == self.good, "differs at {:?}", got.iter().zip(&self.good).position(|(a, b)| a != b));
    }
}

fn exercise(how: Between, flags: &[&'static str], each: u64) {
    let (ops, seed) = (setting("TERSEFS_FSX_OPS", 8_000) / 4, setting("TERSEFS_SEED", 1));
    let mut it = Exerciser::new(flags, seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for n in 1..=ops {
            it.step();
            if n % each == 0 {
                it.between(how);
            }
        }
    }));
    if let Err(panic) = outcome {
        let last = it.trace.len().saturating_sub(30);
        eprintln!("{how:?} {flags:?}, seed {seed}: the last operations:\n  {}", it.trace[last..].join("\n  "));
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
