//! Tiers, budgets and estimates on real mounts: attributes as setfattr sets them, sizes as a mount then has them.
//!
//! Needs root (or fusermount3) and /dev/fuse, and fails with that word where they are missing.

mod mounted;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mounted::{BINARY, Dice, Mount, arg, ok, run, tersefs};
use serde_json::Value;

const QUIET: &str = "--quiet-seconds=0.3";

fn set(path: &Path, name: &str, value: &str) {
    ok("setfattr", &["-n", name, "-v", value, arg(path)], 10);
}

fn methods(stat: &Value) -> BTreeSet<&str> {
    stat["segments"].as_array().unwrap().iter().map(|s| s["method"].as_str().unwrap()).collect()
}

#[test]
fn directories_say_how_their_files_are_coded() {
    let dir = tempfile::tempdir().unwrap();
    // What a busy machine measures of the usual segments is nothing to cut by. All files have the same content: each is to be
    // coded by what is said of it.
    let v = Mount::new(dir.path(), &[QUIET, "--decode-ms=3600000", "--no-coding", "--no-sharing"]);
    for name in ["fast", "quick", "quick/inner", "plain", "there"] {
        fs::create_dir(v.path(name)).unwrap();
    }
    set(&v.path("fast"), "user.tersefs.tier", "fast");
    set(&v.path("quick"), "user.tersefs.decode_ms", "20");
    set(&v.path("quick/inner"), "user.tersefs.decode_ms", "100000");
    set(&v.path("plain"), "user.tersefs.nocompress", "1");
    let text = Dice(3).text(600_000);
    let files = ["fast/large", "fast/small", "quick/large", "quick/inner/large", "plain/large", "there/moved", "large"];
    for name in files {
        let len = if name.ends_with("small") { 3000 } else { text.len() };
        fs::write(v.path(name), &text[..len]).unwrap();
    }
    fs::rename(v.path("there/moved"), v.path("fast/moved")).unwrap();
    // They are attributes like others.
    let shown = ok("getfattr", &["-d", arg(&v.path("quick"))], 10);
    assert!(shown.contains("user.tersefs.decode_ms=\"20\""), "{shown}");
    ok("cp", &["-a", arg(&v.path("fast")), arg(&v.path("copy"))], 60);
    ok(BINARY, &["resume", arg(&v.point)], 60);
    v.wait();

    for name in ["fast/large", "fast/small", "fast/moved", "copy/large"] {
        assert_eq!(methods(&v.stat(name)), BTreeSet::from(["zstd"]), "{name}");
    }
    for name in ["quick/inner/large", "large"] {
        let stat = v.stat(name);
        assert_eq!(methods(&stat), BTreeSet::from(["primed"]), "{name}");
        let bytes = stat["segments"][0]["segment_bytes"].as_u64().unwrap();
        assert!((128 << 10..=512 << 10).contains(&bytes), "{name}: {bytes}");
    }
    let quick = v.stat("quick/large");
    for s in quick["segments"].as_array().unwrap() {
        // Cut far below the usual length, or zstd: what time that takes is known only after the first ones.
        let (ms, bytes) = (s["predicted_decode_ms"].as_u64().unwrap(), s["segment_bytes"].as_u64().unwrap());
        assert!(if s["method"] == "zstd" { ms <= 20 } else { bytes <= 64 << 10 }, "{s}");
    }
    assert_eq!(quick["policy"]["decode_ms_from"], "inherited from /quick");
    assert_eq!(v.stat("fast/moved")["policy"]["tier_from"], "inherited from /fast");
    let shown = ok(BINARY, &["stat", arg(&v.path("fast/moved"))], 10);
    assert!(shown.contains("tier fast (inherited from /fast), 3600000 ms to decode a segment (volume)"), "{shown}");

    // Staged, and nobody waits for it.
    let plain = v.stat("plain/large");
    assert_eq!(methods(&plain), BTreeSet::from(["staged or hole"]));
    assert!(plain["policy"]["stays_plain"] == true && plain["stored_bytes"] == 0, "{plain}");
    assert_eq!(v.status()["queue_files"], 0);
    ok("setfattr", &["-x", "user.tersefs.nocompress", arg(&v.path("plain"))], 10);
    v.wait();
    assert_eq!(methods(&v.stat("plain/large")), BTreeSet::from(["primed"]));
    for name in files.iter().filter(|n| !n.ends_with("small") && !n.starts_with("there")) {
        assert!(fs::read(v.path(name)).unwrap() == text, "{name}");
    }

    for (name, value) in [("user.tersefs.decode_ms", "0"), ("user.tersefs.tier", "slow")] {
        let refused = run("setfattr", &["-n", name, "-v", value, arg(&v.path("large"))], 10);
        assert!(refused.code == Some(1) && refused.err.contains("Invalid argument"), "{refused:?}");
    }
    let log = v.log();
    assert!(log.contains("/large") && log.contains("user.tersefs.tier is fast, balanced or deep"), "{log}");
    v.is_sound();
    v.done();
}

#[test]
fn an_estimate_is_what_a_mount_then_takes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    ok("cp", &["-a", concat!(env!("CARGO_MANIFEST_DIR"), "/src"), arg(&tree)], 60);
    let mut dice = Dice(5);
    fs::write(tree.join("text"), dice.text(900_000)).unwrap();
    fs::write(tree.join("noise"), dice.noise(400_000)).unwrap();
    fs::hard_link(tree.join("text"), tree.join("again")).unwrap();
    std::os::unix::fs::symlink("/", tree.join("away")).unwrap();
    let estimate = |mib: &str| -> Value {
        let text = ok(BINARY, &["estimate", "--json", "--sample-mib", mib, arg(&tree)], 600);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let coded = |e: &Value, n: usize| e["tiers"][n]["coded_bytes"].as_u64().unwrap();
    let whole = estimate("16");
    assert!(whole["whole"] == true && whole["hard_links"] == 1 && whole["symlinks"] == 1, "{whole}");
    assert_eq!(whole["unreadable"], 0);
    let classes = whole["classes"].as_array().unwrap();
    let sum = |what: &str| classes.iter().map(|c| c[what].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("files"), sum("bytes")), (whole["files"].as_u64().unwrap(), whole["bytes"].as_u64().unwrap()));

    for (n, tier) in ["fast", "balanced"].into_iter().enumerate() {
        assert_eq!(whole["tiers"][n]["tier"], tier);
        let at = dir.path().join(tier);
        fs::create_dir(&at).unwrap();
        let v = Mount::new(&at, &[QUIET, "--decode-ms=3600000", "--no-coding", "--tier", tier]);
        ok("cp", &["-a", arg(&tree), arg(&v.path("tree"))], 60);
        ok(BINARY, &["resume", arg(&v.point)], 60);
        v.wait();
        let took = v.status()["coded_stored_bytes"].as_u64().unwrap();
        let off = coded(&whole, n).abs_diff(took);
        println!("{tier}: {} estimated, {took} taken", coded(&whole, n));
        assert!(off * 100 <= took * 15, "{tier}: {} estimated, {took} taken", coded(&whole, n));
        v.done();
    }

    // From a part of it: the same each time, and not further off than three times what it says.
    let part = estimate("1");
    assert_eq!(part["whole"], false);
    for n in 0..2 {
        let (margin, off) =
            (part["tiers"][n]["margin_bytes"].as_u64().unwrap(), coded(&part, n).abs_diff(coded(&whole, n)));
        println!("{} of {} from a part, +- {margin}", coded(&part, n), coded(&whole, n));
        assert!(margin > 0 && off <= 3 * margin, "{off} off, margin {margin}");
    }
    assert_eq!(coded(&estimate("1"), 0), coded(&part, 0));
    let shown = ok(BINARY, &["estimate", "--sample-mib", "1", arg(&tree)], 600);
    assert!(shown.contains("balanced: ") && shown.contains("  plain     ####"), "{shown}");
    let none = tersefs(&["estimate", arg(&dir.path().join("none"))]);
    assert!(none.code == Some(1) && none.err.contains("none"), "{none:?}");
}

#[test]
fn settings_say_when_and_how_files_are_coded_and_a_reload_changes_it() {
    let dir = tempfile::tempdir().unwrap();
    // Some hours of the day after tomorrow: not now, however long this takes.
    let day: usize = ok("date", &["+%u"], 10).trim().parse().unwrap();
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][(day + 1) % 7];
    let config = dir.path().join("settings.toml");
    let rules = "[[rule]]\nmatch = 'logs/**/*.log'\ntier = 'fast'\n[[rule]]\nmatch = '*.iso'\nnocompress = true\n\
                 [[rule]]\nolder = '3s'\ntier = 'balanced'\n";
    let set = |hours: &str, rules: &str| {
        let text = format!("coding-hours = '{hours}'\ncoding-on-battery = true\nquiet-seconds = 0.2\n{rules}");
        fs::write(&config, text).unwrap();
    };
    set(&format!("{day} 10:00-11:00"), rules);
    let v = Mount::new(dir.path(), &[&format!("--config={}", arg(&config)), "--decode-ms=3600000"]);
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let started = std::time::Instant::now();
        while !is() {
            assert!(started.elapsed().as_secs() < 60, "{what}: {}", v.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    let waits = || v.status()["coding_waits"].as_str().unwrap_or_default().to_string();
    fs::create_dir_all(v.path("logs/old")).unwrap();
    let text = Dice(8).text(100_000);
    for name in ["logs/old/a.log", "a.txt", "a.iso"] {
        fs::write(v.path(name), &text).unwrap();
    }
    until("it says why", &|| waits().contains("coding-hours"));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(methods(&v.stat("a.txt")), BTreeSet::from(["staged or hole"]), "it is not the time for coding");
    // A reader waits for nothing, and whoever asks for coding gets it.
    assert!(fs::read(v.path("a.txt")).unwrap() == text);
    v.wait();
    assert_ne!(methods(&v.stat("a.txt")), BTreeSet::from(["staged or hole"]));
    assert_eq!(methods(&v.stat("a.iso")), BTreeSet::from(["staged or hole"]));
    assert_eq!(v.stat("logs/old/a.log")["policy"]["decode_ms_from"], "volume");

    // From now on at all hours; and a log that is some seconds old is coded better, by itself.
    set("Mon-Sun 00:00-24:00", rules);
    ok("kill", &["-HUP", &v.pid().to_string()], 10);
    until("it goes on", &|| waits().is_empty());
    fs::write(v.path("logs/b.log"), Dice(9).text(100_000)).unwrap();
    until("it is coded", &|| methods(&v.stat("logs/b.log")) != BTreeSet::from(["staged or hole"]));
    until("it comes of age", &|| methods(&v.stat("logs/b.log")) == BTreeSet::from(["primed"]));
    assert!(fs::read(v.path("logs/b.log")).unwrap() == Dice(9).text(100_000));
    // What is wrong changes nothing, and is said with its line.
    set("Mon-Sun 00:00-24:00", "[[rule]]\nolder = '3 days'\ntier = 'deep'\n");
    ok("kill", &["-HUP", &v.pid().to_string()], 10);
    until("it is refused", &|| v.log().contains("settings.toml:5: \"3 days\" is no age"));
    assert_eq!(v.stat("a.iso")["policy"]["stays_plain_from"], "rule 2");
    v.is_sound();
    v.done();
}
