//! Rot: bytes of a real store flipped, zeroed and cut off, file by file, between mounts and below a running one. What is read
//! is right or an error; nothing hangs, nothing panics. `TERSEFS_SEED` and `TERSEFS_CASES` (positions per file and kind).

mod common;
mod mounted;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::setting;
use mounted::{Dice, Mount, arg, ok, run, tersefs};

const EIO: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Flip,
    Zero,
    Truncate,
}

/// Damages a file at a place; false when that changes nothing.
fn damage(path: &Path, kind: Kind, at: u64, dice: &mut Dice) -> io::Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut bytes = vec![0; (len - at).min(if kind == Kind::Flip { 1 } else { 600 }) as usize];
    file.read_exact_at(&mut bytes, at)?;
    match kind {
        Kind::Flip => bytes.iter_mut().for_each(|b| *b ^= 1 << dice.below(8)),
        Kind::Zero if bytes.iter().all(|b| *b == 0) => return Ok(false),
        Kind::Zero => bytes.fill(0),
        Kind::Truncate => {
            file.set_len(at)?;
            return Ok(at < len);
        }
    }
    file.write_all_at(&bytes, at)?;
    Ok(true)
}

/// All files of a store, without sockets.
fn files_of(dir: &Path, below: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir.join(below)).unwrap().flatten() {
        let path = below.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_of(dir, &path, out);
        } else if kind.is_file() {
            out.push(path);
        }
    }
    out.sort();
}

/// A store with coded files, bundles, sealed and unsealed staging, overwritten and cut files, and what is in it.
fn plant(dir: &Path) -> (PathBuf, BTreeMap<String, Vec<u8>>) {
    let (store, point) = (dir.join("store"), dir.join("mnt"));
    let mut dice = Dice(5);
    let mut files = BTreeMap::new();
    let mount = Mount::of(&store, &point, &["--method=zstd"]);
    for n in 0..6 {
        files.insert(format!("coded {n}"), dice.text(200_000 * n + 1000));
    }
    for n in 0..20 {
        files.insert(format!("small {n}"), dice.text(2000));
    }
    for (name, data) in &files {
        fs::write(mount.path(name), data).unwrap();
    }
    mount.wait();
    ok(mounted::BINARY, &["pause", arg(&point)], 30);
    for n in 0..4 {
        let data = dice.noise(50_000 * n + 500);
        fs::write(mount.path(&format!("staged {n}")), &data).unwrap();
        files.insert(format!("staged {n}"), data);
    }
    // Partly coded, partly staged.
    let mixed = files.get_mut("coded 3").unwrap();
    let patch = dice.noise(30_000);
    mixed[100_000..130_000].copy_from_slice(&patch);
    OpenOptions::new().write(true).open(mount.path("coded 3")).unwrap().write_all_at(&patch, 100_000).unwrap();
    drop(mount.umount(&["--now"]));
    (store, files)
}

/// Reads every file. Right bytes, or EIO; with `metadata_lost` names may be missing and files be as they were before, or
/// zero where their bytes are nowhere any more.
fn compare(mount: &Mount, files: &BTreeMap<String, Vec<u8>>, case: &str, metadata_lost: bool) -> (u32, u32) {
    let (mut right, mut failed) = (0, 0);
    for (name, data) in files {
        match fs::read(mount.path(name)) {
            Ok(found) if found == *data => right += 1,
            Ok(found) => {
                let old = metadata_lost
                    && found.len() <= data.len()
                    && (name == "coded 3" || found.iter().zip(data).all(|(f, d)| f == d || *f == 0));
                assert!(old, "{case}: {name} has wrong bytes: {}", mount.log());
                failed += 1;
            }
            Err(e) if e.raw_os_error() == Some(EIO) => failed += 1,
            Err(e) if metadata_lost && e.kind() == io::ErrorKind::NotFound => failed += 1,
            Err(e) => panic!("{case}: {name}: {e}: {}", mount.log()),
        }
    }
    assert!(!mount.log().contains("panicked"), "{case}: {}", mount.log());
    (right, failed)
}

fn is_metadata(store: &Path, path: &Path) -> bool {
    let text = path.to_string_lossy();
    if !text.starts_with("packs/") {
        return false;
    }
    // The kind of a pack stands in its first record; `inspect` tells it.
    let shown = run(mounted::BINARY, &["inspect", arg(store)], 60).out;
    let number = text.rsplit("pack-").next().and_then(|n| n.strip_suffix(".tpk")).unwrap_or_default();
    let number = u64::from_str_radix(number, 16).unwrap();
    let line = shown.lines().find(|l| l.starts_with(&format!("pack {number}:"))).unwrap_or_default().to_string();
    !line.to_lowercase().contains("data")
}

#[test]
fn rot_between_mounts_gives_right_bytes_or_errors() {
    let seed = setting("TERSEFS_SEED").unwrap_or(1);
    let per_kind = setting("TERSEFS_CASES").unwrap_or(2);
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let (store, files) = plant(dir.path());
    let mut parts = Vec::new();
    files_of(&store, Path::new(""), &mut parts);
    let has = |what: &str| parts.iter().any(|p| p.to_string_lossy().starts_with(what));
    for what in ["packs/", "index/", "staging/", "FORMAT", "LOCK"] {
        assert!(has(what), "{what} is not in {parts:?}");
    }
    let mut dice = Dice(seed);
    let (mut cases, mut failed_in_all, mut refused) = (0, 0, 0);
    for part in &parts {
        let text = part.to_string_lossy().into_owned();
        if text == "daemon.log" {
            continue;
        }
        let metadata = is_metadata(&store, part);
        let len = fs::metadata(store.join(part)).unwrap().len();
        for kind in [Kind::Flip, Kind::Zero, Kind::Truncate] {
            for n in 0..per_kind {
                // Near the start, where headers are, then anywhere.
                let at = if n == 0 { dice.below(len.min(100)) } else { dice.below(len) };
                if len == 0 {
                    continue;
                }
                let case = format!("seed {seed}, {text} {kind:?} at {at} of {len}");
                let hurt = dir.path().join("hurt");
                let _ = fs::remove_dir_all(&hurt);
                ok("cp", &["-a", arg(&store), arg(&hurt)], 60);
                if !damage(&hurt.join(part), kind, at, &mut dice).unwrap() {
                    continue;
                }
                let point = dir.path().join("again");
                let _ = fs::remove_file(point.with_extension("log"));
                cases += 1;
                match Mount::try_of(&hurt, &point, &["--no-coding"]) {
                    Ok(mount) => {
                        let (_, failed) = compare(&mount, &files, &case, metadata);
                        failed_in_all += failed;
                        // Everything that is not a segment, staged bytes or metadata costs nothing.
                        let harmless = !text.starts_with("packs/") && !text.starts_with("staging/");
                        assert!(!harmless || failed == 0, "{case}: {failed} files failed: {}", mount.log());
                        drop(mount.umount(&["--now"]));
                    }
                    Err(why) => {
                        refused += 1;
                        assert!(why.contains("tersefs:") && !why.contains("panicked"), "{case}: {why}");
                    }
                }
                let fsck = tersefs(&["fsck", arg(&hurt)]);
                assert!(fsck.code.is_some() && !fsck.err.contains("panicked"), "{case}: {fsck:?}");
            }
        }
    }
    println!("{cases} cases, {failed_in_all} files failed, {refused} mounts refused");
    assert!(cases > 40 && failed_in_all > 5, "the rot hit nothing: {cases} cases, {failed_in_all} files failed");
}

#[test]
fn rot_below_a_running_mount_gives_right_bytes_or_errors() {
    let seed = setting("TERSEFS_SEED").unwrap_or(2);
    let dir = tempfile::tempdir().unwrap();
    let (store, files) = plant(dir.path());
    let mut dice = Dice(seed);
    let mut failed_in_all = 0;
    for kind in [Kind::Flip, Kind::Zero, Kind::Truncate] {
        let hurt = dir.path().join("hurt");
        let _ = fs::remove_dir_all(&hurt);
        ok("cp", &["-a", arg(&store), arg(&hurt)], 60);
        let mount = Mount::of(&hurt, &dir.path().join("again"), &["--no-coding"]);
        let mut parts = Vec::new();
        files_of(&hurt, Path::new(""), &mut parts);
        for part in &parts {
            let text = part.to_string_lossy().into_owned();
            let len = fs::metadata(hurt.join(part)).unwrap().len();
            if text.starts_with("packs/") || text.starts_with("staging/") || text.starts_with("FORMAT") {
                for _ in 0..5 {
                    if len > 0 && kind != Kind::Truncate {
                        damage(&hurt.join(part), kind, dice.below(len), &mut dice).unwrap();
                    }
                }
                if kind == Kind::Truncate {
                    damage(&hurt.join(part), kind, len / 2 + dice.below(len / 2 + 1), &mut dice).unwrap();
                }
            }
        }
        let (right, failed) = compare(&mount, &files, &format!("seed {seed}, {kind:?} below a mount"), false);
        println!("{kind:?}: {right} right, {failed} failed");
        failed_in_all += failed;
        mount.is_sound();
        mount.end();
    }
    assert!(failed_in_all > 5, "the rot hit nothing");
}
