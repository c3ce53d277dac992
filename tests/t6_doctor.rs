//! `tersefs doctor` on this machine, on stores that are well, and on stores that are not.

mod mounted;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use mounted::{BINARY, Mount, arg, ok, run};

/// What was found of a thing: its health, for each finding.
fn found(outcome: &mounted::Outcome, what: &str) -> Vec<String> {
    let all: Vec<serde_json::Value> = serde_json::from_str(&outcome.out).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    all.iter().filter(|f| f["what"] == what).map(|f| f["health"].as_str().unwrap().to_string()).collect()
}

/// A dead mount is found wherever it is: the test that makes one keeps the others from looking meanwhile.
static LOOKS: Mutex<()> = Mutex::new(());

fn doctor(path: &Path) -> mounted::Outcome {
    run(BINARY, &["doctor", "--json", arg(path)], 120)
}

#[test]
fn a_machine_that_mounts_is_well_and_its_store_too() {
    let _alone = LOOKS.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), &[]);
    let store = dir.path().join("store");
    let outcome = doctor(&mount.point);
    assert!(outcome.code == Some(0) || outcome.out.contains("was killed"), "{outcome:?}");
    for what in ["kernel", "device", "fusermount3", "user_allow_other", "methods", "store", "privacy", "volume"] {
        assert_eq!(found(&outcome, what), ["ok"], "{what}: {outcome:?}");
    }
    assert_eq!(found(&outcome, "reserve").len() + found(&outcome, "space").len(), 2);
    mount.done();
    // For people: a line each.
    let text = run(BINARY, &["doctor", arg(&store)], 120).out;
    assert!(text.lines().any(|l| l.starts_with("ok    kernel ")) && text.contains("come"), "{text}");
    assert!(
        text.lines().filter(|l| !l.starts_with(' ')).all(|l| ["ok ", "warn ", "bad "].iter().any(|h| l.starts_with(h)))
    );
}

#[test]
fn what_is_wrong_with_a_store_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    ok(BINARY, &["mkfs", arg(&store)], 60);
    fs::set_permissions(&store, PermissionsExt::from_mode(0o755)).unwrap();
    let copy = fs::read(store.join("FORMAT.copy")).unwrap();
    fs::write(store.join("FORMAT.copy"), &copy[..100]).unwrap();
    fs::remove_file(store.join("reserve")).unwrap();
    let outcome = doctor(&store);
    assert_eq!(found(&outcome, "privacy"), ["warn"], "{outcome:?}");
    assert_eq!((found(&outcome, "store"), found(&outcome, "reserve")), (vec!["warn".into()], vec!["warn".into()]));
    fs::write(store.join("FORMAT"), b"x").unwrap();
    let outcome = doctor(&store);
    assert_eq!((outcome.code, found(&outcome, "store")), (Some(3), vec!["bad".into()]), "{outcome:?}");
    assert!(outcome.out.contains("tersefs fsck"), "{outcome:?}");
    let outcome = doctor(&dir.path().join("nothing"));
    assert_eq!((outcome.code, found(&outcome, "store")), (Some(3), vec!["bad".into()]), "{outcome:?}");
}

#[test]
fn a_dead_mount_is_found() {
    let _alone = LOOKS.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), &[]);
    mount.strike();
    let begun = std::time::Instant::now();
    while fs::metadata(&mount.point).is_ok() {
        assert!(begun.elapsed().as_secs() < 20, "it dies with its daemon");
    }
    let outcome = run(BINARY, &["doctor", "--json"], 120);
    assert!(outcome.code == Some(3) && found(&outcome, "mount").contains(&"bad".to_string()), "{outcome:?}");
    assert!(outcome.out.contains(arg(&mount.point)) && outcome.out.contains("umount -l"), "{outcome:?}");
    mount.kill();
}

/// A daemon asks its own mount whether it answers. Killed while it waits for that, with its answers held up, it leaves a mount
/// that says that it is dead, and does not keep whoever looks at it for ever.
#[test]
fn a_daemon_that_is_killed_while_it_asks_itself_leaves_nobody_waiting() {
    let _alone = LOOKS.lock().unwrap_or_else(|e| e.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let (store, point) = (dir.path().join("store"), dir.path().join("mnt"));
    fs::create_dir(&point).unwrap();
    let slow = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=writev", "-e", "inject=writev:delay_enter=1500000"];
    let mut strace = std::process::Command::new("strace")
        .args(slow)
        .args([BINARY, "mount", arg(&store), arg(&point)])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("strace");
    let begun = std::time::Instant::now();
    while !fs::read_to_string("/proc/mounts").unwrap().contains(arg(&point)) {
        assert!(begun.elapsed().as_secs() < 60, "it mounts");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // The kernel is answered after one delay, and then the daemon's own question after another.
    std::thread::sleep(std::time::Duration::from_millis(2200));
    let of_strace = strace.id().to_string();
    ok("pkill", &["-9", "-P", &of_strace], 10);
    let looked = run("timeout", &["-s", "KILL", "20", "stat", arg(&point)], 60);
    strace.kill().unwrap();
    strace.wait().unwrap();
    run("umount", &["-l", arg(&point)], 30);
    // By a kernel that has just closed the connection, or that has done so.
    let dead = ["not connected", "connection abort"].iter().any(|how| looked.err.contains(how));
    assert!(looked.code == Some(1) && dead, "{looked:?}");
}
