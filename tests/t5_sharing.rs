//! A tree that is copied twice costs once, through a mount, and stays exact when the first copy goes and the index is lost.
//!
//! Needs root and /dev/fuse.

mod mounted;

use std::fs;
use std::path::Path;

use mounted::{Mount, arg, ok, plant_tree, same_trees, tersefs};

fn live(mount: &Mount) -> u64 {
    mount.status()["data_live_bytes"].as_u64().unwrap()
}

fn fsck(store: &Path, flags: &[&str]) {
    let outcome = tersefs(&[&["fsck", arg(store)], flags].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

#[test]
fn the_second_copy_of_a_tree_is_found_in_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    plant_tree(&tree, 200);
    let store = dir.path().join("store");
    let mount = Mount::new(dir.path(), &["--quiet-seconds=0.2", "--method=zstd", "--cache-mib=1"]);
    let copy = |mount: &Mount, name: &str| {
        ok("cp", &["-a", arg(&tree), arg(&mount.path(name))], 120);
        mount.wait();
    };
    copy(&mount, "first");
    let once = live(&mount);
    copy(&mount, "second");
    let twice = live(&mount);
    let status = mount.status();
    assert!((twice - once) * 20 < once, "{once} bytes of segments once, {twice} twice: {status}");
    assert!(status["found_bytes"].as_u64() > Some(500_000) && status["shared_stored_bytes"].as_u64() > Some(0));
    let out = tersefs(&["status", arg(&mount.point)]).out;
    assert!(out.contains("named more often"), "{out}");
    same_trees(&tree, &mount.path("first"));
    same_trees(&tree, &mount.path("second"));
    mount.done();
    fsck(&store, &[]);
    // The index knows it after a remount.
    let mount = Mount::new(dir.path(), &["--quiet-seconds=0.2", "--method=zstd", "--cache-mib=1"]);
    copy(&mount, "third");
    assert!((live(&mount) - once) * 20 < once, "{} after a third copy: {}", live(&mount), mount.status());
    same_trees(&tree, &mount.path("third"));
    fs::remove_dir_all(mount.path("first")).unwrap();
    fs::remove_dir_all(mount.path("third")).unwrap();
    assert_eq!(tersefs(&["gc", arg(&mount.point)]).code, Some(0));
    same_trees(&tree, &mount.path("second"));
    mount.is_sound();
    mount.done();
    fsck(&store, &[]);
    // Without the index nothing is lost but what it knew of bundles.
    fs::remove_dir_all(store.join("index")).unwrap();
    let mount = Mount::new(dir.path(), &["--quiet-seconds=0.2", "--method=zstd", "--no-sharing"]);
    same_trees(&tree, &mount.path("second"));
    let before = live(&mount);
    copy(&mount, "fourth");
    let status = mount.status();
    assert!(status["found_bytes"] == 0 && live(&mount) > before + once / 2, "it was turned off: {status}");
    same_trees(&tree, &mount.path("fourth"));
    same_trees(&tree, &mount.path("second"));
    mount.done();
    fsck(&store, &["--rebuild-index"]);
}
