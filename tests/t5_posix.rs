//! What programs may expect of a filesystem, promise by promise, on a mounted volume. Needs root.

mod mounted;

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mounted::{Dice, Mount, Outcome, arg, ok, run, sys};

const FAST: [&str; 4] = ["--method", "zstd", "--quiet-seconds", "0.1"];
/// Fast for large files.
const RAW: [&str; 4] = ["--method", "raw", "--quiet-seconds", "0.1"];
const PLAIN: [&str; 1] = ["--no-coding"];

fn errno<T: std::fmt::Debug>(outcome: io::Result<T>) -> Option<i32> {
    outcome.expect_err("it should have failed").raw_os_error()
}

/// A directory that other users may enter.
fn open_temp() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs a shell line as another user (1, group 1, and the groups named).
fn as_user(groups: &str, line: &str) -> Outcome {
    let groups = if groups.is_empty() { "--clear-groups".to_string() } else { format!("--groups={groups}") };
    run("setpriv", &["--reuid=1", "--regid=1", &groups, "sh", "-c", line], 60)
}

/// Something that Debian has in a package of its own.
fn need(program: &str, package: &str) {
    let found = std::env::var("PATH").unwrap_or_default().split(':').any(|d| Path::new(d).join(program).exists());
    assert!(found, "there is no {program}: install the package {package}");
}

/// Long enough that a later time is a later time.
/// Waits until the next stamp must be later than every stamp so far. The kernel stamps by its coarse clock, which stands
/// between its ticks (longer than 5 ms, where a virtual machine is not given its processor); the daemon by the fine one.
fn tick() {
    let clock = |which| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: clock_gettime writes one timespec, which lives here.
        assert_eq!(unsafe { libc::clock_gettime(which, &mut time) }, 0);
        (time.tv_sec, time.tv_nsec)
    };
    let now = clock(libc::CLOCK_REALTIME);
    while clock(libc::CLOCK_REALTIME_COARSE) <= now {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn times(path: &Path) -> [(i64, i64); 3] {
    let m = fs::symlink_metadata(path).unwrap();
    [(m.atime(), m.atime_nsec()), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec())]
}

fn acl(path: &Path) -> String {
    ok("getfacl", &["-cnE", arg(path)], 10).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn acls_decide_and_follow_modes() {
    need("setfacl", "acl");
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &PLAIN);
    let f = mount.path("f");
    fs::write(&f, b"text").unwrap();
    chmod(&f, 0o640);
    let read = format!("cat {}", arg(&f));
    let write = format!("echo more >> {}", arg(&f));
    assert_ne!(as_user("", &read).code, Some(0), "others may not read");
    ok("setfacl", &["-m", "u:1:rw", arg(&f)], 10);
    assert_eq!(acl(&f), "user::rw- user:1:rw- group::r-- mask::rw- other::---");
    assert_eq!(mode(&f), 0o660, "the middle digit is the mask");
    assert_eq!((as_user("", &read).code, as_user("", &write).code), (Some(0), Some(0)), "the named user may");
    chmod(&f, 0o644);
    assert_eq!(acl(&f), "user::rw- user:1:rw- group::r-- mask::r-- other::r--");
    assert_ne!(as_user("", &write).code, Some(0), "the mask forbids it");
    // A copy has it, and it survives a remount.
    ok("cp", &["-a", arg(&f), arg(&mount.path("copy"))], 10);
    mount.done();
    let mount = Mount::new(dir.path(), &PLAIN);
    let copy = mount.path("copy");
    assert_eq!(acl(&copy), acl(&mount.path("f")));
    assert!(sys::list_xattr(&copy).unwrap().contains(&"system.posix_acl_access".to_string()));
    // An ACL that a mode can say is a mode.
    ok("setfacl", &["-b", arg(&copy)], 10);
    assert_eq!((acl(&copy).as_str(), mode(&copy)), ("user::rw- group::r-- other::r--", 0o644));
    assert!(sys::list_xattr(&copy).unwrap().is_empty());
    assert_eq!(errno(sys::get_xattr(&copy, "system.posix_acl_access")), Some(libc::ENODATA));
    assert_eq!(
        errno(sys::set_xattr(&copy, "system.posix_acl_access", &[2, 0, 0, 0, 9, 0, 7, 0, 0, 0, 0, 0], 0)),
        Some(libc::EINVAL)
    );
    // The setgid bit goes when the caller is not of the group, as with chmod.
    for (groups, left) in [("", 0o755), ("60", 0o2775)] {
        let g = mount.path("g");
        fs::write(&g, b"").unwrap();
        std::os::unix::fs::chown(&g, Some(1), Some(60)).unwrap();
        chmod(&g, 0o2755);
        let set =
            as_user(groups, &format!("setfacl -m u:2:rwx,m::{} {}", if left == 0o755 { "rx" } else { "rwx" }, arg(&g)));
        assert_eq!(set.code, Some(0), "{set:?}");
        assert_eq!(mode(&g), left, "groups {groups:?}");
    }
    mount.done();
}

#[test]
fn default_acls_are_handed_on_and_the_umask_then_has_no_say() {
    need("setfacl", "acl");
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &PLAIN);
    let (with, without) = (mount.path("with"), mount.path("without"));
    for d in [&with, &without] {
        fs::create_dir(d).unwrap();
    }
    ok("setfacl", &["-d", "-m", "u:1:rwx,g::rx,o::-", arg(&with)], 10);
    let make = |d: &Path| {
        let d = arg(d);
        ok("sh", &["-c", &format!("umask 077; touch {d}/f; mkdir {d}/d; mkfifo {d}/p; ln -s x {d}/l")], 10);
        ["f", "d", "p"].map(|n| mode(&PathBuf::from(d).join(n)))
    };
    assert_eq!(make(&without), [0o600, 0o700, 0o600]);
    assert_eq!(make(&with), [0o660, 0o770, 0o660]);
    assert_eq!(acl(&with.join("f")), "user::rw- user:1:rwx group::r-x mask::rw- other::---");
    assert!(
        acl(&with.join("d")).ends_with("default:user:1:rwx default:group::r-x default:mask::rwx default:other::---")
    );
    assert!(!acl(&with.join("p")).contains("default"));
    // Three entries are a mask of the mode and leave no ACL.
    let three = mount.path("three");
    fs::create_dir(&three).unwrap();
    ok("setfacl", &["-d", "-m", "u::rw,g::r,o::-", arg(&three)], 10);
    fs::write(three.join("f"), b"").unwrap();
    assert_eq!(mode(&three.join("f")), 0o640);
    assert!(sys::list_xattr(&three.join("f")).unwrap().is_empty());
    assert_ne!(run("setfacl", &["-d", "-m", "u:1:r", arg(&three.join("f"))], 10).code, Some(0), "not a directory");
    mount.done();
}

/// Whether reading moved the time of access.
fn moves(path: &Path, read: impl FnOnce(&Path)) -> bool {
    let before = times(path)[0];
    tick();
    read(path);
    times(path)[0] != before
}

#[test]
fn times_of_access_by_policy() {
    let read = |p: &Path| drop(fs::read(p).unwrap());
    for (policy, first, again) in [("relatime", true, false), ("noatime", false, false), ("strictatime", true, true)] {
        for coded in [false, true] {
            let dir = open_temp();
            let mount = Mount::new(dir.path(), &[&FAST[..], &["--atime", policy]].concat());
            let f = mount.path("f");
            fs::write(&f, Dice(1).text(100_000)).unwrap();
            if coded {
                mount.wait();
            }
            assert_eq!(moves(&f, read), first, "{policy}, first read, coded {coded}");
            assert_eq!(moves(&f, read), again, "{policy}, second read, coded {coded}");
            let quiet = |p: &Path| {
                let mut text = Vec::new();
                File::options()
                    .read(true)
                    .custom_flags(libc::O_NOATIME)
                    .open(p)
                    .unwrap()
                    .read_to_end(&mut text)
                    .unwrap();
            };
            fs::OpenOptions::new().append(true).open(&f).unwrap().write_all(b"x").unwrap();
            assert!(!moves(&f, quiet), "{policy}, O_NOATIME");
            assert_eq!(moves(&f, read), first, "{policy}, read after a change");
            let opened = |p: &Path| drop(File::open(p).unwrap());
            fs::OpenOptions::new().append(true).open(&f).unwrap().write_all(b"x").unwrap();
            assert!(!moves(&f, opened), "{policy}, open alone");
            // Directories and symlinks.
            fs::create_dir(mount.path("d")).unwrap();
            symlink("f", mount.path("l")).unwrap();
            assert_eq!(
                moves(&mount.path("d"), |p| assert_eq!(fs::read_dir(p).unwrap().count(), 0)),
                first,
                "{policy}, readdir"
            );
            assert_eq!(moves(&mount.path("l"), |p| drop(fs::read_link(p).unwrap())), first, "{policy}, readlink");
            let kept = times(&f);
            mount.done();
            let mount = Mount::new(dir.path(), &["--read-only"]);
            assert_eq!(times(&mount.path("f")), kept, "{policy}: logged");
            assert!(!moves(&mount.path("f"), read), "{policy}: not on a volume that is read-only");
            mount.umount(&[]);
        }
    }
}

#[test]
fn times_of_all_centuries() {
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &PLAIN);
    let f = mount.path("f");
    fs::write(&f, b"").unwrap();
    let all = [
        "1901-01-01 00:00:00.123456789 +0000",
        "1969-12-31 23:59:59.999999999 +0000",
        "1970-01-01 00:00:00.000000001 +0000",
        "2038-01-19 03:14:08.500000000 +0000",
        "2446-05-10 22:38:56.000000001 +0000",
    ];
    for (n, time) in all.into_iter().enumerate() {
        ok("touch", &["-d", time, arg(&f)], 10);
        ok("cp", &["-p", arg(&f), arg(&mount.path(&n.to_string()))], 10);
        let shown = |path: &Path| ok("env", &["TZ=UTC", "stat", "-c", "%x|%y", arg(path)], 10).trim().to_string();
        assert_eq!(shown(&f), format!("{time}|{time}"));
        assert_eq!(shown(&mount.path(&n.to_string())), format!("{time}|{time}"), "copied");
    }
    let before: Vec<_> = (0..all.len()).map(|n| times(&mount.path(&n.to_string()))[1]).collect();
    mount.done();
    let mount = Mount::new(dir.path(), &PLAIN);
    let after: Vec<_> = (0..all.len()).map(|n| times(&mount.path(&n.to_string()))[1]).collect();
    assert_eq!(before, after, "after a remount");
    mount.done();
}

/// Operations and whose times they move: (name, operation, path, mtime too).
#[test]
fn every_change_moves_the_right_times() {
    let dir = open_temp();
    for flags in [&PLAIN[..], &["--no-coding", "--no-passthrough"], &["--no-coding", "--writeback-cache"]] {
        let mount = Mount::new(dir.path(), flags);
        fs::create_dir(mount.path("d")).unwrap();
        fs::write(mount.path("d/f"), b"text").unwrap();
        let (d, f) = (mount.path("d"), mount.path("d/f"));
        let p = |name: &str| mount.path(name);
        let check = |what: &str, path: &Path, mtime: bool, change: &dyn Fn()| {
            let before = times(path);
            tick();
            change();
            let after = times(path);
            assert!(after[2] > before[2], "{flags:?} {what}: ctime of {}", path.display());
            assert_eq!(after[1] > before[1], mtime, "{flags:?} {what}: mtime of {}", path.display());
        };
        check("chmod", &f, false, &|| chmod(&f, 0o600));
        check("chown", &f, false, &|| std::os::unix::fs::chown(&f, Some(5), None).unwrap());
        check("chown to the same", &f, false, &|| std::os::unix::fs::chown(&f, Some(5), None).unwrap());
        check("setxattr", &f, false, &|| sys::set_xattr(&f, "user.x", b"1", 0).unwrap());
        check("removexattr", &f, false, &|| sys::remove_xattr(&f, "user.x").unwrap());
        check("link", &f, false, &|| fs::hard_link(&f, p("d/g")).unwrap());
        check("unlink of another name", &f, false, &|| fs::remove_file(p("d/g")).unwrap());
        check("rename", &f, false, &|| fs::rename(&f, p("d/h")).and_then(|()| fs::rename(p("d/h"), &f)).unwrap());
        let open = || File::options().write(true).open(&f).unwrap();
        check("write", &f, true, &|| open().write_all(b"!").unwrap());
        check("truncate", &f, true, &|| open().set_len(2).unwrap());
        check("truncate to the same size", &f, true, &|| open().set_len(2).unwrap());
        check("O_TRUNC", &f, true, &|| drop(File::create(&f).unwrap()));
        check("O_TRUNC of an empty file", &f, true, &|| drop(File::create(&f).unwrap()));
        check("fallocate", &f, true, &|| sys::allocate(&open(), 0, 0, 100).unwrap());
        check("create", &d, true, &|| fs::write(p("d/new"), b"").unwrap());
        check("mkdir", &d, true, &|| fs::create_dir(p("d/sub")).unwrap());
        check("symlink", &d, true, &|| symlink("x", p("d/l")).unwrap());
        check("link into", &d, true, &|| fs::hard_link(&f, p("d/2")).unwrap());
        check("unlink", &d, true, &|| fs::remove_file(p("d/2")).unwrap());
        check("rename within", &d, true, &|| fs::rename(p("d/l"), p("d/m")).unwrap());
        check("rename away", &d, true, &|| fs::rename(p("d/m"), p("m")).unwrap());
        check("rename into", &d, true, &|| fs::rename(p("m"), p("d/m")).unwrap());
        check("rmdir", &d, true, &|| fs::remove_dir(p("d/sub")).unwrap());
        assert_eq!(fs::metadata(&d).unwrap().nlink(), 2);
        mount.done();
        fs::remove_dir_all(dir.path().join("store")).unwrap();
    }
}

#[test]
fn setuid_and_setgid_bits_go_when_others_write() {
    let dir = open_temp();
    for flags in [&PLAIN[..], &["--no-coding", "--no-passthrough"], &["--no-coding", "--writeback-cache"]] {
        let mount = Mount::new(dir.path(), flags);
        let f = mount.path("f");
        let fresh = || {
            fs::write(&f, b"text").unwrap();
            std::os::unix::fs::chown(&f, Some(1), Some(1)).unwrap();
            chmod(&f, 0o6777);
        };
        for line in ["printf x >> F", "truncate -s 2 F", "chown 1:1 F", "printf x | dd of=F conv=notrunc 2>/dev/null"] {
            fresh();
            let line = line.replace('F', arg(&f));
            let done = as_user("", &line);
            assert_eq!((done.code, mode(&f)), (Some(0), 0o777), "{flags:?} {line}: {done:?}");
        }
        fresh();
        File::options().write(true).open(&f).unwrap().write_all(b"root").unwrap();
        assert_eq!(mode(&f), 0o6777, "root keeps them");
        mount.done();
        fs::remove_dir_all(dir.path().join("store")).unwrap();
    }
}

#[test]
fn a_running_program_is_not_written_to() {
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &FAST);
    let program = mount.path("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    for coded in [false, true] {
        if coded {
            mount.wait();
        }
        let mut running = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let size = fs::metadata(&program).unwrap().len();
        assert_eq!(errno(File::options().write(true).open(&program)), Some(libc::ETXTBSY));
        for _ in 0..20 {
            let cut = File::options().read(true).custom_flags(libc::O_TRUNC).open(&program);
            assert_eq!(errno(cut), Some(libc::ETXTBSY));
        }
        assert_eq!(fs::metadata(&program).unwrap().len(), size);
        assert!(running.try_wait().unwrap().is_none(), "it still runs");
        running.kill().unwrap();
        running.wait().unwrap();
    }
    mount.done();
}

#[test]
fn copies_of_coded_files_share() {
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &RAW);
    let text = Dice(5).text(64 << 20);
    fs::write(mount.path("a"), &text).unwrap();
    mount.wait();
    let packs = |m: &Mount| m.status()["data_pack_bytes"].as_u64().unwrap();
    let before = packs(&mount);
    let started = Instant::now();
    // copy_file_range with a file that the same thread has open for reading.
    assert_eq!(fs::copy(mount.path("a"), mount.path("b")).unwrap(), text.len() as u64);
    let took = started.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    let stat = mount.stat("b");
    assert_eq!((packs(&mount), &stat["staged_bytes"]), (before, &0.into()), "{stat}");
    assert!(fs::read(mount.path("b")).unwrap() == text);
    // One changes, the other does not; a program without any coded file open copies too.
    File::options().write(true).open(mount.path("a")).unwrap().write_all_at(b"changed", 1 << 20).unwrap();
    assert!(fs::read(mount.path("b")).unwrap() == text);
    let (from, to) = (File::open(mount.path("b")).unwrap(), File::create_new(mount.path("c")).unwrap());
    to.write_all_at(&[9; 10_000], 0).unwrap();
    let mut copied = 0;
    while copied < 1_000_000 {
        copied += sys::copy_range(&from, 500 + copied, &to, 5_000 + copied, 1_000_000 - copied).unwrap();
    }
    to.sync_all().unwrap();
    drop((from, to));
    mount.kill();
    let mount = Mount::new(dir.path(), &RAW);
    let got = fs::read(mount.path("c")).unwrap();
    assert!(got == [&[9; 5_000][..], &text[500..1_000_500]].concat(), "after fsync and a kill");
    // Hot files, served by the kernel.
    fs::write(mount.path("hot"), &text[..100_000]).unwrap();
    let (from, to) = (
        File::options().read(true).write(true).open(mount.path("hot")).unwrap(),
        File::create_new(mount.path("hot 2")).unwrap(),
    );
    assert_eq!(sys::copy_range(&from, 0, &to, 0, 100_000).unwrap(), 100_000);
    assert!(fs::read(mount.path("hot 2")).unwrap() == text[..100_000]);
    drop((from, to));
    mount.done();
}

#[test]
fn attributes_have_the_errno_of_ext4() {
    need("getfattr", "attr");
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &PLAIN);
    let f = mount.path("f");
    fs::write(&f, b"").unwrap();
    symlink("f", mount.path("l")).unwrap();
    sys::set_xattr(&f, "user.a", b"1", libc::XATTR_CREATE).unwrap();
    assert_eq!(errno(sys::set_xattr(&f, "user.a", b"1", libc::XATTR_CREATE)), Some(libc::EEXIST));
    assert_eq!(errno(sys::set_xattr(&f, "user.b", b"1", libc::XATTR_REPLACE)), Some(libc::ENODATA));
    assert_eq!(errno(sys::get_xattr(&f, "user.b")), Some(libc::ENODATA));
    assert_eq!(errno(sys::remove_xattr(&f, "user.b")), Some(libc::ENODATA));
    assert_eq!(errno(sys::set_xattr(&f, "user.", b"1", 0)), Some(libc::EINVAL));
    assert_eq!(errno(sys::set_xattr(&f, "system.other", b"1", 0)), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(sys::set_xattr(&f, "nonsense", b"1", 0)), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(sys::set_xattr(&f, &format!("user.{}", "n".repeat(251)), b"1", 0)), Some(libc::ERANGE));
    assert_eq!(errno(sys::set_xattr(&f, "user.big", &[0; 65_537], 0)), Some(libc::E2BIG));
    sys::set_xattr(&f, &format!("user.{}", "n".repeat(250)), &[3; 65_536], 0).unwrap();
    assert_eq!(errno(sys::set_xattr(&mount.path("l"), "user.a", b"1", 0)), Some(libc::EPERM));
    sys::set_xattr(&mount.path("l"), "trusted.a", b"1", 0).unwrap();
    sys::set_xattr(&f, "trusted.t", b"1", 0).unwrap();
    sys::set_xattr(&f, "security.s", b"1", 0).unwrap();
    assert!(sys::list_xattr(&f).unwrap().contains(&"trusted.t".to_string()));
    let seen = as_user("", &format!("getfattr -m - {}", arg(&f)));
    assert!(seen.out.contains("user.a") && !seen.out.contains("trusted."), "{seen:?}");
    assert_ne!(as_user("", &format!("getfattr -n trusted.t {}", arg(&f))).code, Some(0));
    mount.done();
}

#[test]
fn limits_have_the_errno_of_ext4() {
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &["--no-coding", "--no-passthrough"]);
    let p = |name: &str| mount.path(name);
    // Any bytes but NUL and slash.
    let odd = std::ffi::OsString::from(String::from_utf8(vec![b'\n'; 255]).unwrap());
    fs::write(mount.point.join(&odd), b"").unwrap();
    assert_eq!(errno(fs::write(p(&"n".repeat(256)), b"")), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(symlink("t".repeat(4096), p("l"))), Some(libc::ENAMETOOLONG));
    symlink("t".repeat(4095), p("l")).unwrap();
    symlink("loop", p("loop")).unwrap();
    assert_eq!(errno(File::open(p("loop"))), Some(libc::ELOOP));
    let file = File::options().read(true).write(true).create_new(true).open(p("f")).unwrap();
    file.set_len(i64::MAX as u64).unwrap();
    assert_eq!(fs::metadata(p("f")).unwrap().len(), i64::MAX as u64);
    assert_eq!(errno(file.write_all_at(b"x", i64::MAX as u64 - 1)), Some(libc::EFBIG));
    assert_eq!(file.read_at(&mut [1; 5], i64::MAX as u64 - 5).unwrap(), 5);
    file.set_len(0).unwrap();
    // A position that the filesystem below cannot hold.
    let far = file.write_all_at(b"x", 1 << 60);
    assert!(far.is_ok() || errno(far) == Some(libc::EFBIG));
    assert_eq!(errno(sys::allocate(&file, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096)), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(sys::allocate(&file, libc::FALLOC_FL_PUNCH_HOLE, 0, 4096)), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(sys::allocate(&file, 0, 0, 0)), Some(libc::EINVAL));
    fs::write(p("a"), b"").unwrap();
    assert_eq!(errno(sys::rename(&p("a"), &p("b"), libc::RENAME_WHITEOUT)), Some(libc::EINVAL));
    let unnamed = File::options().write(true).custom_flags(libc::O_TMPFILE).open(&mount.point);
    assert_eq!(errno(unnamed), Some(libc::EOPNOTSUPP));
    assert_eq!(errno(sys::get_flags(&file)), Some(libc::ENOTTY));
    drop(file);
    mount.done();
}

#[test]
fn a_directory_is_read_whole_while_it_changes() {
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &PLAIN);
    let d = mount.path("d");
    fs::create_dir(&d).unwrap();
    let count = 4_000;
    for n in 0..count {
        File::create(d.join(format!("stays {n}"))).unwrap();
        if n % 2 == 0 {
            File::create(d.join(format!("goes {n}"))).unwrap();
        }
    }
    // While it is read with small buffers, half of it goes and as much comes.
    let mut reader = sys::Directory::open(&d).unwrap();
    let (mut seen, mut steps, mut place) = (Vec::new(), 0, None);
    loop {
        let names = reader.next(1024).unwrap();
        if names.is_empty() {
            break;
        }
        seen.extend(names.into_iter().map(|(name, _)| name).filter(|n| n.starts_with("stays")));
        for n in steps * 40..(steps + 1) * 40 {
            let _ = fs::remove_file(d.join(format!("goes {n}")));
            if n % 4 == 0 && n < count {
                File::create(d.join(format!("came {n}"))).unwrap();
            }
        }
        steps += 1;
        if steps == 20 {
            place = Some((reader.place().unwrap(), seen.len()));
        }
    }
    let total = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((total, seen.len()), (count, count), "each exactly once");
    // Going back to a place, as seekdir does.
    let (place, before) = place.unwrap();
    reader.go(place).unwrap();
    let mut rest = 0;
    loop {
        let names = reader.next(32 << 10).unwrap();
        if names.is_empty() {
            break;
        }
        rest += names.iter().filter(|(n, _)| n.starts_with("stays")).count();
    }
    assert_eq!(before + rest, count, "the rest from a place remembered");
    drop(reader);
    // ".." follows a rename at once.
    fs::create_dir(mount.path("x")).unwrap();
    fs::create_dir(mount.path("y")).unwrap();
    fs::create_dir(mount.path("x/sub")).unwrap();
    let parent = |p: &Path| {
        let names = sys::Directory::open(p).unwrap().next(4096).unwrap();
        names.into_iter().find(|(n, _)| n == "..").unwrap().1
    };
    assert_eq!(parent(&mount.path("x/sub")), fs::metadata(mount.path("x")).unwrap().ino());
    fs::rename(mount.path("x/sub"), mount.path("y/sub")).unwrap();
    assert_eq!(parent(&mount.path("y/sub")), fs::metadata(mount.path("y")).unwrap().ino());
    assert_eq!(fs::metadata(mount.path("y/sub/..")).unwrap().ino(), fs::metadata(mount.path("y")).unwrap().ino());
    mount.done();
}

/// `TERSEFS_ENTRIES` sets the number of entries that stay (20,000; making them takes most of the time).
#[test]
fn a_large_directory_is_read_by_several_while_others_change_it() {
    const PASSES: usize = 8;
    let entries = std::env::var("TERSEFS_ENTRIES").map_or(20_000, |n| n.parse().expect("a number in TERSEFS_ENTRIES"));
    let dir = open_temp();
    let mount = Mount::new(dir.path(), &PLAIN);
    let d = mount.path("d");
    fs::create_dir(&d).unwrap();
    for n in 0..entries {
        File::create(d.join(format!("stays {n}"))).unwrap();
        if n % 10 == 0 {
            File::create(d.join(format!("goes {n}"))).unwrap();
        }
    }
    let read_whole = |buffer_bytes: usize| {
        let mut reader = sys::Directory::open(&d).unwrap();
        let (mut names, mut total, mut stay) = (HashSet::new(), 0, 0);
        loop {
            let some = reader.next(buffer_bytes).unwrap();
            if some.is_empty() {
                break;
            }
            total += some.len();
            stay += some.iter().filter(|(name, _)| name.starts_with("stays ")).count();
            names.extend(some.into_iter().map(|(name, _)| name));
        }
        // No name is used twice, so none may be told twice.
        assert_eq!(names.len(), total, "each at most once, with {buffer_bytes} bytes at a time");
        assert_eq!(stay, entries, "what was there all the time exactly once, with {buffer_bytes} bytes at a time");
        names
    };
    let stop = AtomicBool::new(false);
    let (changes, mut left) = std::thread::scope(|s| {
        let changers: Vec<_> = (0..2)
            .map(|who| {
                let (d, stop) = (&d, &stop);
                s.spawn(move || {
                    let mut goes = (who * 10..entries).step_by(20).map(|n| format!("goes {n}"));
                    let mut came = VecDeque::new();
                    let mut changes = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let name = format!("came {who} {changes}");
                        File::create(d.join(&name)).unwrap();
                        came.push_back(name);
                        let old = goes.next().or_else(|| came.pop_front()).unwrap();
                        fs::remove_file(d.join(old)).unwrap();
                        changes += 1;
                    }
                    (changes, goes.chain(came).collect::<Vec<String>>())
                })
            })
            .collect();
        let readers: Vec<_> = [600, 4096, 32 << 10]
            .into_iter()
            .map(|bytes| {
                s.spawn(move || {
                    for _ in 0..PASSES {
                        read_whole(bytes);
                    }
                })
            })
            .collect();
        let read: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        stop.store(true, Ordering::Relaxed);
        read.into_iter().for_each(|r| r.unwrap());
        let (mut changes, mut left) = (0, Vec::new());
        for changer in changers {
            let (n, names) = changer.join().unwrap();
            changes += n;
            left.extend(names);
        }
        (changes, left)
    });
    println!("{changes} files came and went while {entries} were read {} times", PASSES * 3);
    assert!(changes > 200, "{changes} changes are too few");
    let now = read_whole(32 << 10);
    left.extend(["..", "."].map(String::from));
    left.extend((0..entries).map(|n| format!("stays {n}")));
    assert_eq!(now, left.into_iter().collect(), "what is left");
    mount.done();
    let mount = Mount::new(dir.path(), &PLAIN);
    assert!(read_whole(32 << 10) == now, "after a remount");
    mount.done();
}

#[test]
fn appends_of_two_processes_lose_nothing() {
    let dir = open_temp();
    for flags in [&PLAIN[..], &["--no-coding", "--no-passthrough"], &["--no-coding", "--writeback-cache"]] {
        let mount = Mount::new(dir.path(), flags);
        let log = mount.path("log");
        let line = format!("for i in $(seq 500); do echo \"$0 $i\"; done >> {}", arg(&log));
        let start = |name: &str| std::process::Command::new("sh").args(["-c", &line, name]).spawn().unwrap();
        let mut all = [start("a"), start("b"), start("c")];
        for child in &mut all {
            assert!(child.wait().unwrap().success());
        }
        let text = fs::read_to_string(&log).unwrap();
        for name in ["a", "b", "c"] {
            let numbers: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(name)).collect();
            assert_eq!(numbers.len(), 500, "{flags:?}");
        }
        mount.done();
        fs::remove_dir_all(dir.path().join("store")).unwrap();
    }
}

#[test]
fn files_open_across_changes_of_names() {
    let dir = open_temp();
    for flags in [&FAST[..], &["--quiet-seconds", "0.1", "--no-passthrough"]] {
        let mount = Mount::new(dir.path(), flags);
        let p = |name: &str| mount.path(name);
        let mut file = File::options().read(true).write(true).create_new(true).open(p("f")).unwrap();
        file.write_all(b"before").unwrap();
        fs::remove_file(p("f")).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all(b" and after").unwrap();
        file.sync_all().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before and after");
        let way_back = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
        assert_eq!(errno(sys::link_open(&way_back, &p("back"))), Some(libc::ENOENT));
        drop(file);
        // Renamed over while open, staged and coded.
        for coded in [false, true] {
            fs::write(p("old"), Dice(1).text(50_000)).unwrap();
            fs::write(p("new"), b"new").unwrap();
            if coded {
                mount.wait();
            }
            let old = File::open(p("old")).unwrap();
            fs::rename(p("new"), p("old")).unwrap();
            let mut bytes = vec![0; 50_000];
            old.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes == Dice(1).text(50_000), "{flags:?}, coded {coded}");
            assert_eq!(fs::read(p("old")).unwrap(), b"new");
        }
        // A shared mapping is what others read.
        let file = File::options().read(true).write(true).create_new(true).open(p("map")).unwrap();
        file.set_len(10_000).unwrap();
        let mut map = sys::Mapping::shared(&file, 10_000).unwrap();
        map.bytes()[5_000..5_004].copy_from_slice(b"here");
        map.sync().unwrap();
        let mut seen = [0; 4];
        File::open(p("map")).unwrap().read_exact_at(&mut seen, 5_000).unwrap();
        assert_eq!(&seen, b"here");
        file.write_all_at(b"back", 6_000).unwrap();
        assert_eq!(&map.bytes()[6_000..6_004], b"back");
        drop(map);
        // O_DIRECT needs no alignment here, and sees what others wrote.
        let direct = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(p("text"));
        drop(direct);
        fs::write(p("text"), Dice(2).text(100_001)).unwrap();
        if let Ok(direct) = File::options().read(true).custom_flags(libc::O_DIRECT).open(p("text")) {
            let mut bytes = vec![0; 8192];
            direct.read_exact_at(&mut bytes, 4096).unwrap();
            assert!(bytes[..] == Dice(2).text(100_001)[4096..12_288]);
        }
        drop(file);
        mount.done();
        fs::remove_dir_all(dir.path().join("store")).unwrap();
    }
}
