//! Compressed files on a mount: opened, coded, closed again bit for bit, and read in the middle.
//!
//! Needs root (or fusermount3) and /dev/fuse, and fails with that word where they are missing.

mod common;
mod mounted;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use common::Dice;
use common::packed::{self, JPEG, Zip};
use mounted::{Mount, arg, ok};

/// What an uncached read has to decode is bounded by the budget, not by the file.
const SEGMENTS_MIN: usize = 2;

#[test]
fn compressed_files_come_back_bit_for_bit_and_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let (store, point) = (dir.path().join("store"), dir.path().join("mnt"));
    // Short segments, so that little data makes several.
    let flags = ["--quiet-seconds=0.3", "--decode-ms=600"];
    let mount = Mount::of(&store, &point, &flags);
    let mut dice = Dice::new(4);
    let mut files: Vec<(&str, Vec<u8>)> = vec![("notice.jpg", JPEG.to_vec())];
    files.push(("drawing.png", packed::png(&mut dice, 200, 150, packed::Png::Plain)));
    files.push(("document.pdf", packed::pdf(&mut dice, 30)));
    let text = packed::prose(&mut dice, 150_000);
    files.push(("small.gz", packed::gzip(&text, 6)));
    files.push(("cut-off.gz", packed::gzip(&text, 6)[..40_000].to_vec()));
    // Longer than a segment: cut between blocks, and between members.
    files.push(("long.gz", packed::gzip(&packed::prose(&mut dice, 1 << 20), 6)));
    let members: Vec<(String, Vec<u8>)> =
        (0..24).map(|n| (format!("m{n}.txt"), packed::prose(&mut dice, 40_000))).collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, text)| (name.as_str(), &text[..])).collect();
    files.push(("long.zip", packed::zip(&members, Zip::Descriptors)));
    fs::create_dir(mount.path("closed")).unwrap();
    ok("setfattr", &["-n", "user.tersefs.containers", "-v", "off", arg(&mount.path("closed"))], 10);
    // Other bytes: equal ones would lie in one segment.
    files.push(("closed/long.zip", packed::zip(&members[1..6], Zip::Plain)));
    for (name, bytes) in &files {
        fs::write(mount.path(name), bytes).unwrap();
    }
    mount.wait();
    for (name, bytes) in &files {
        let stat = mount.stat(name);
        let stored = stat["stored_bytes"].as_u64().unwrap();
        let segments = stat["segments"].as_array().unwrap();
        println!("{name}: {stored} of {} bytes in {} segments", bytes.len(), segments.len());
        let opened = segments.iter().all(|s| s["method"] == "opened");
        assert_eq!(opened, !name.starts_with("closed"), "{name}: {segments:?}");
        let percent = if opened { 93 } else { 101 };
        assert!(stored * 100 < bytes.len() as u64 * percent, "{name}: {stored} of {}", bytes.len());
        assert!(!name.starts_with("long") || segments.len() >= SEGMENTS_MIN, "{name}: {segments:?}");
    }
    mount.done();
    let mount = Mount::of(&store, &point, &flags);
    for (name, bytes) in &files {
        // In the middle first, while nothing is in the cache.
        let at = bytes.len() / 2;
        let mut part = vec![0; 4096.min(bytes.len() - at)];
        File::open(mount.path(name)).unwrap().read_exact_at(&mut part, at as u64).unwrap();
        assert!(part == bytes[at..at + part.len()], "{name}");
        assert!(fs::read(mount.path(name)).unwrap() == *bytes, "{name}");
    }
    mount.done();
}
