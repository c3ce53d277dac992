//! Volumes in fstab: mount(8) finds the helper, its options are flags, dead mounts are repaired, and users mount too.
//!
//! Needs root, /dev/fuse and fusermount3; for as long as a test runs /sbin/mount.tersefs is a link to the program under test.

mod mounted;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mounted::{BINARY, Outcome, arg, ok, run};

const HELPER: &str = "/sbin/mount.tersefs";
/// A user that no machine gives to somebody.
const NOBODY: u32 = 65534;

/// The helper in its place, and a line of fstab.
struct Fstab {
    dir: tempfile::TempDir,
    helper: bool,
}

impl Fstab {
    fn new(helper: bool) -> Fstab {
        if helper {
            // One that a test left which was killed goes; one that was installed does not.
            if fs::read_link(HELPER).is_ok_and(|to| to == Path::new(BINARY)) || !Path::new(HELPER).exists() {
                let _ = fs::remove_file(HELPER);
            }
            symlink(BINARY, HELPER).unwrap_or_else(|e| panic!("{HELPER}: {e}: is one installed?"));
        }
        let fstab = Fstab { dir: tempfile::tempdir().unwrap(), helper };
        fs::create_dir(fstab.point()).unwrap();
        fstab
    }

    fn point(&self) -> PathBuf {
        self.dir.path().join("a mountpoint")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Mounts by a line with these options, as `mount MOUNTPOINT` does.
    fn mount(&self, kind: &str, options: &str) -> Outcome {
        let tab = self.dir.path().join("fstab");
        // A space is written like this there.
        let point = arg(&self.point()).replace(' ', "\\040");
        fs::write(&tab, format!("{} {point} {kind} {options} 0 0\n", arg(&self.store()))).unwrap();
        run("mount", &["-T", arg(&tab), arg(&self.point())], 60)
    }

    /// What the kernel shows of the mount.
    fn shown(&self) -> Option<String> {
        let point = arg(&self.point()).replace(' ', "\\040");
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        mounts.lines().rfind(|line| line.contains(&format!(" {point} "))).map(str::to_string)
    }

    /// The process that serves it.
    fn pid(&self) -> i32 {
        let is_ours = |line: &[u8]| {
            let line = String::from_utf8_lossy(line).into_owned();
            line.contains("--detached") && line.contains(arg(&self.store()))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| is_ours(&line)))
            .find_map(|entry| entry.file_name().to_str()?.parse().ok())
            .expect("a daemon")
    }
}

impl Drop for Fstab {
    fn drop(&mut self) {
        // Some tests mount once more, or elsewhere below it.
        for point in [self.point(), self.point(), self.dir.path().join("home/mnt")] {
            let _ = Command::new("umount").args(["-q", "-l"]).arg(point).stderr(Stdio::null()).status();
        }
        if self.helper {
            let _ = fs::remove_file(HELPER);
        }
    }
}

fn good(outcome: Outcome) {
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{outcome:?}");
}

#[test]
fn a_line_of_fstab_mounts_a_volume() {
    let f = Fstab::new(true);
    let file = f.point().join("file");
    good(f.mount("tersefs", "rw,noauto,nofail,_netdev,x-systemd.automount,noatime,nosuid,memory=100,no-coding"));
    let shown = f.shown().unwrap();
    assert!(shown.contains("fuse.tersefs rw,nosuid,") && shown.contains("default_permissions,allow_other"), "{shown}");
    fs::write(&file, b"kept").unwrap();
    let text = ok(BINARY, &["status", "--json", arg(&f.point())], 60);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&status["memory_budget_bytes"], &status["coding_paused"]), (&(100 << 20).into(), &true.into()));
    // It is mounted, and not a second time.
    let again = run(HELPER, &[arg(&f.store()), arg(&f.point())], 60);
    assert!(again.code == Some(32) && again.err.contains("mounted there already"), "{again:?}");

    // A daemon that was killed leaves a mount that answers nothing; the next mount takes it away.
    // SAFETY: the id is that of a daemon of this test.
    unsafe { libc::kill(f.pid(), libc::SIGKILL) };
    let begun = Instant::now();
    while fs::metadata(f.point()).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the mount dies with its daemon");
        std::thread::sleep(Duration::from_millis(10));
    }
    let repaired = f.mount("tersefs", "defaults");
    assert!(repaired.code == Some(0) && repaired.err.contains("took a dead mount away"), "{repaired:?}");
    assert_eq!(fs::read(&file).unwrap(), b"kept");

    // Flags of the kernel can be changed, and the rest stays as it is.
    let remount = |options: &str| run("mount", &["-t", "tersefs", "-o", options, arg(&f.point())], 60);
    good(remount("remount,ro"));
    assert_eq!(File::create(&file).unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    good(remount("remount,rw,noexec"));
    fs::write(&file, b"changed").unwrap();
    let shown = f.shown().unwrap();
    assert!(shown.contains("rw,") && shown.contains("noexec"), "{shown}");

    // Anew at once: what the daemon before still does is waited for.
    ok("umount", &[arg(&f.point())], 60);
    good(f.mount("tersefs", "ro"));
    assert_eq!(fs::read(&file).unwrap(), b"changed");
    assert_eq!(File::create(&file).unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    ok("umount", &[arg(&f.point())], 60);
}

#[test]
fn what_an_option_should_be_is_said() {
    let f = Fstab::new(false);
    // By its path, since only one test at a time can be the helper.
    let call = f.dir.path().join("mount.tersefs");
    symlink(BINARY, &call).unwrap();
    let call = |args: &[&str]| {
        let mut all = vec![arg(&f.store()).to_string(), arg(&f.point()).to_string()];
        all.extend(args.iter().map(|a| a.to_string()));
        run(arg(&call), &all.iter().map(String::as_str).collect::<Vec<_>>(), 60)
    };
    for (options, says) in [
        ("memroy=64", "there is no option `memroy=64`"),
        ("memory=some", "option invalid value 'some' for 'memory <MIB>'"),
        ("daemon", "there is no option `daemon`"),
        ("sync", "there is no option `sync`"),
    ] {
        let refused = call(&["-o", options]);
        assert!(refused.code == Some(1) && refused.err.contains(says), "{refused:?}");
    }
    assert!(!f.store().exists() && f.shown().is_none());
    // Only tried; then with what nobody knows left out.
    good(call(&["-f", "-o", "rw,memory=64"]));
    assert!(!f.store().exists());
    let none = call(&["-o", "remount,ro"]);
    assert!(none.code == Some(32) && none.err.contains("no tersefs volume is mounted on"), "{none:?}");
    let sloppy = call(&["-sv", "-o", "no-coding,memroy=64"]);
    assert!(sloppy.code == Some(0) && sloppy.out.contains("tersefs mount --daemon --no-coding -- "), "{sloppy:?}");
    assert!(f.shown().is_some());
    ok(BINARY, &["umount", arg(&f.point())], 60);
    fs::remove_dir(f.point()).unwrap();
    let missing = call(&[]);
    assert!(missing.code == Some(32) && missing.err.contains("make it with mkdir"), "{missing:?}");
    fs::create_dir(f.point()).unwrap();
}

#[test]
fn a_volume_of_type_fuse_is_mounted_by_the_helper_of_libfuse() {
    let f = Fstab::new(false);
    let program = f.dir.path().join("tersefs");
    symlink(BINARY, &program).unwrap();
    let path = format!("{}:{}", arg(f.dir.path()), std::env::var("PATH").unwrap());
    let by_name = format!("{}#{}", arg(&program), arg(&f.store()));
    let (store, point) = (f.store(), f.point());
    let calls = [
        // mount(8) leaves no PATH to it but the usual one, where a program under test is not.
        ("/sbin/mount.fuse3", [arg(&store), arg(&point), "-t", "fuse.tersefs", "-o", "rw,nofail,memory=100"]),
        ("mount", ["-t", "fuse", "-o", "rw,nofail,memory=100", &by_name, arg(&point)]),
    ];
    for (program, args) in calls {
        let done = Command::new(program).env("PATH", &path).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        assert!(f.shown().unwrap().contains("fuse.tersefs rw,"), "{:?}", f.shown());
        ok(BINARY, &["umount", arg(&point)], 60);
    }
}

#[test]
fn a_user_mounts_for_himself() {
    let f = Fstab::new(false);
    fs::set_permissions(f.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let home = f.dir.path().join("home");
    fs::create_dir(&home).unwrap();
    // A program that a user may run, wherever this one lies.
    let program = f.dir.path().join("mount.tersefs");
    fs::copy(BINARY, &program).unwrap();
    let (store, point) = (home.join("store"), home.join("mnt"));
    fs::create_dir(&point).unwrap();
    for path in [&home, &point] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let user = |args: &[&str]| {
        let mut all = vec!["--reuid=65534", "--regid=65534", "--clear-groups"];
        all.extend(args);
        run("setpriv", &all, 60)
    };
    // Its mode where a machine was set up by udev; a bare container may have another.
    fs::set_permissions("/dev/fuse", PermissionsExt::from_mode(0o666)).unwrap();
    let mount = |options: &str| user(&[arg(&program), arg(&store), arg(&point), "-o", options]);
    let done = mount("rw,noexec,nosuid,nodev,user,noauto");
    assert_eq!(done.code, Some(0), "{done:?}");
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let shown = mounts.lines().find(|line| line.contains(arg(&point))).unwrap().to_string();
    assert!(["nosuid", "nodev", "noexec", "user_id=65534"].iter().all(|o| shown.contains(o)), "{shown}");
    assert!(!shown.contains("allow_other"), "{shown}");
    let file = arg(&point.join("file")).to_string();
    assert_eq!(user(&["sh", "-c", "echo mine > \"$0\"", &file]).code, Some(0));
    // It is his alone.
    assert_eq!(File::open(&file).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(store.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let gone = user(&["fusermount3", "-u", arg(&point)]);
    assert_eq!(gone.code, Some(0), "{gone:?}");
    // What only root may allow is refused, unless it has: by a sentence that says where.
    if !fs::read_to_string("/etc/fuse.conf").unwrap_or_default().lines().any(|l| l.trim() == "user_allow_other") {
        let refused = mount("allow_other");
        assert!(refused.code == Some(32) && refused.err.contains("user_allow_other"), "{refused:?}");
    }
}
