//! Stores that are not mounted, by the program: `export`, `import` and `cat-raw`, held against GNU tar on a directory, and
//! against a mount of the same store. Needs root and /dev/fuse for the last.

mod mounted;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use mounted::{BINARY, Dice, Mount, arg, ok};

/// Runs a command between two files.
fn piped(command: &[&str], from: Option<&Path>, to: Option<&Path>) {
    let (program, args) = command.split_first().unwrap();
    let stdin = from.map_or(Stdio::null(), |path| File::open(path).unwrap().into());
    let stdout = to.map_or(Stdio::null(), |path| File::create(path).unwrap().into());
    let run = Command::new(program).args(args).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
    assert!(run.status.success(), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
}

fn plant(dir: &Path) {
    let text = Dice(5).text(900_000);
    fs::create_dir_all(dir.join("deep/er")).unwrap();
    fs::write(dir.join("deep/text"), &text).unwrap();
    fs::write(dir.join("deep/er").join("n".repeat(180)), b"long name").unwrap();
    fs::hard_link(dir.join("deep/text"), dir.join("again")).unwrap();
    symlink("deep/text", dir.join("way")).unwrap();
    let sparse = File::create(dir.join("holes")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &text[..100_000], 3 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    fs::set_permissions(dir.join("deep"), fs::Permissions::from_mode(0o750)).unwrap();
    ok("setfattr", &["-n", "user.kind", "-v", "letters", arg(&dir.join("deep/text"))], 10);
    ok("setfacl", &["-m", "u:1000:r", arg(&dir.join("deep/text"))], 10);
    ok("touch", &["-d", "2001-02-03 04:05:06.789", arg(&dir.join("deep/text"))], 10);
}

/// What `getfacl`, `getfattr` and `find` say of a tree.
fn seen(dir: &Path) -> String {
    let shell = "find . -mindepth 1 -printf '%P %y %m %U:%G %s %n %T@ %l\\n' | sort; \
                 getfattr -R -d -m '^user' . | sort; getfacl -R . ; find . -type f | sort | xargs md5sum";
    let run = Command::new("sh").args(["-c", shell]).current_dir(dir).output().unwrap();
    // Sizes of directories are the filesystem's own.
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let fields = |line: &str| -> String {
        let mut fields: Vec<&str> = line.split(' ').collect();
        if fields.get(1) == Some(&"d") && fields.len() > 4 {
            fields[4] = "-";
        }
        fields.join(" ")
    };
    text.lines().map(fields).collect::<Vec<_>>().join("\n")
}

#[test]
fn streams_are_those_of_gnu_tar_and_stores_need_no_mount() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    // Directories that keep attributes and ACLs, whatever the filesystem below does.
    let directory = |name: &str| {
        let (store, point) = (dir.path().join(format!("{name}-store")), dir.path().join(name));
        fs::create_dir(&point).unwrap();
        Mount::of(&store, &point, &["--no-coding"])
    };
    let (of_source, of_back) = (directory("source"), directory("back"));
    let (source, back) = (&of_source.point, &of_back.point);
    plant(source);
    let (theirs, ours) = (dir.path().join("theirs.tar"), dir.path().join("ours.tar"));
    let tar = ["tar", "--format=posix", "--sparse", "--xattrs", "--acls", "-C", arg(source), "-cf", arg(&theirs), "."];
    piped(&tar, None, None);
    piped(&[BINARY, "import", arg(&store)], Some(&theirs), None);
    let text = dir.path().join("text");
    piped(&[BINARY, "cat-raw", arg(&store), "deep/text"], None, Some(&text));
    assert!(fs::read(&text).unwrap() == fs::read(source.join("deep/text")).unwrap());
    // Coded by a mount, which shows what the directory has; then out again, for tar.
    let expected = seen(source);
    {
        let point = dir.path().join("point");
        fs::create_dir(&point).unwrap();
        let v = Mount::of(&store, &point, &["--quiet-seconds=0.1"]);
        v.wait();
        assert_eq!(seen(&v.point), expected);
    }
    piped(&[BINARY, "export", arg(&store)], None, Some(&ours));
    piped(&["tar", "--xattrs", "--acls", "-C", arg(back), "-xpf", arg(&ours)], None, None);
    assert_eq!(seen(back), expected);
    assert!(fs::metadata(back.join("holes")).unwrap().blocks() * 512 < 1 << 20);
    assert!(fs::metadata(&ours).unwrap().len() < 1_300_000);
    piped(&[BINARY, "cat-raw", arg(&store), "/again"], None, Some(&text));
    assert!(fs::read(&text).unwrap() == fs::read(source.join("again")).unwrap());
    let missing = Command::new(BINARY).args(["cat-raw", arg(&store), "none"]).output().unwrap();
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("none: no such file"));
}

#[test]
fn a_store_in_another_place_follows() {
    let dir = tempfile::tempdir().unwrap();
    let (store, there) = (dir.path().join("store"), dir.path().join("there"));
    let (point, other) = (dir.path().join("point"), dir.path().join("other"));
    fs::create_dir(&point).unwrap();
    fs::create_dir(&other).unwrap();
    let send = format!(
        "{BINARY} receive --have {1} | {BINARY} send --have - {0} | {BINARY} receive --json {1}",
        arg(&store),
        arg(&there)
    );
    let bytes = |shell: &str| -> u64 {
        let report: serde_json::Value = serde_json::from_str(&ok("sh", &["-c", shell], 60)).unwrap();
        report["sent_bytes"].as_u64().unwrap()
    };
    let mount = Mount::of(&store, &point, &["--quiet-seconds=0.1"]);
    plant(&point);
    mount.wait();
    // What is mounted is not sent.
    let refused = Command::new("sh").args(["-c", &send]).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    mount.done();
    let all = bytes(&send);
    assert_eq!(bytes(&send), 0, "nothing is new");
    let mount = Mount::of(&store, &point, &["--no-coding"]);
    fs::write(point.join("deep/new"), b"new").unwrap();
    fs::remove_file(point.join("again")).unwrap();
    let expected = seen(&point);
    mount.done();
    let little = bytes(&send);
    assert!(little * 5 < all, "{little} of {all}");
    let mount = Mount::of(&there, &other, &[]);
    assert_eq!(seen(&other), expected);
    let e = fs::write(other.join("mine"), b"x").unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::EROFS));
    mount.done();
    ok(BINARY, &["scrub", arg(&there)], 60);
    ok(BINARY, &["receive", "--promote", arg(&there)], 10);
    let mount = Mount::of(&there, &other, &["--quiet-seconds=0.1"]);
    fs::write(other.join("mine"), b"x").unwrap();
    mount.wait();
    mount.done();
    let refused = Command::new("sh").args(["-c", &send]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("one of its own"), "{refused:?}");
}
