//! Language models on real mounts: a small one that the test makes, and once a real one.
//!
//! Needs root (or fusermount3) and /dev/fuse, and fails with that word where they are missing.

#[path = "common/gpt.rs"]
mod gpt;
#[cfg(feature = "hub")]
#[path = "common/hub.rs"]
mod hub;
#[path = "common/llama.rs"]
mod llama;
mod mounted;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mounted::{BINARY, Mount, arg, ok, run, tools};
use serde_json::Value;

const QUIET: &str = "--quiet-seconds=0.3";
/// However slow the machine is now.
const PATIENT: &str = "--decode-ms=3600000";

/// Text of the words that the small model knows.
fn words(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0.. {
        out.extend_from_slice([" the", " and", " hand", " in", "\n", " a thin"][n * n % 7 % 6].as_bytes());
        if n % 13 == 0 {
            out.extend_from_slice(format!(" {n}").as_bytes());
        }
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out
}

fn methods(v: &Mount, name: &str) -> Vec<String> {
    let stat = v.stat(name);
    stat["segments"].as_array().unwrap().iter().map(|s| s["method"].as_str().unwrap().to_string()).collect()
}

fn json(args: &[&str]) -> Value {
    let text = ok(BINARY, args, 600);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_model_is_brought_used_shown_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("tiny.gguf");
    fs::write(&model, llama::tiny().bytes()).unwrap();
    let v = Mount::new(dir.path(), &[QUIET, PATIENT, "--method=language"]);
    // Nothing codes with a model that is not there.
    fs::write(v.path("before"), words(40_000)).unwrap();
    v.wait();
    assert_eq!(methods(&v, "before"), ["raw"]);
    let added = json(&["model", "add", "--json", arg(&v.point), arg(&model)]);
    let id = added["id"].as_str().unwrap().to_string();
    assert_eq!(json(&["model", "list", "--json", arg(&v.point)])[0]["id"], added["id"]);
    assert_eq!(v.status()["languages"][0]["id"], added["id"]);
    let text = words(600_000);
    fs::write(v.path("text"), &text).unwrap();
    v.wait();
    let stat = v.stat("text");
    assert!(stat["segments"].as_array().unwrap().iter().all(|s| s["method"] == "language"), "{stat}");
    let shown = ok(BINARY, &["stat", arg(&v.path("text"))], 10);
    assert!(shown.contains("a cold read of some bytes takes about"), "{shown}");
    let store = v.store.clone();
    let point = v.point.clone();
    v.is_sound();
    v.done();

    let v = Mount::of(&store, &point, &[QUIET, PATIENT, "--method=language"]);
    let file = fs::File::open(v.path("text")).unwrap();
    for at in [599_990, 0, 123_456, 300_000] {
        let mut buf = [0; 10];
        file.read_exact_at(&mut buf, at as u64).unwrap();
        assert_eq!(buf, text[at..at + 10]);
    }
    drop(file);
    assert!(ok("grep", &["-c", "hand", arg(&v.path("text"))], 60).trim().parse::<u64>().unwrap() > 100);
    assert!(fs::read(v.path("text")).unwrap() == text);
    // What is coded from now on is coded without, and so is what is there.
    ok("setfattr", &["-n", "user.tersefs.tier", "-v", "balanced", arg(&v.point)], 10);
    let refused = run(BINARY, &["model", "remove", arg(&v.point), &id], 60);
    assert!(refused.code == Some(1), "a mounted store is in use: {refused:?}");
    ok(BINARY, &["recode", arg(&v.point)], 120);
    assert!(methods(&v, "text").iter().all(|m| m == "primed"), "{:?}", methods(&v, "text"));
    assert!(fs::read(v.path("text")).unwrap() == text);
    ok(BINARY, &["gc", arg(&v.point)], 120);
    v.done();
    let out = dir.path().join("out");
    ok(BINARY, &["model", "export", arg(&store), &id, arg(&out)], 60);
    assert!(fs::read(out.join("model.gguf")).unwrap() == fs::read(&model).unwrap());
    ok(BINARY, &["model", "verify", arg(&store)], 60);
    ok(BINARY, &["model", "remove", arg(&store), &id], 60);
    assert!(json(&["model", "list", "--json", arg(&store)]).as_array().unwrap().is_empty());
    let v = Mount::of(&store, &point, &[]);
    assert!(fs::read(v.path("text")).unwrap() == text);
    v.is_sound();
    v.done();
}

#[test]
fn a_model_of_bytes_is_brought_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("weights-audio.pth");
    fs::write(&model, gpt::pth(&gpt::bgpt_of_places(), Some("model"))).unwrap();
    let v = Mount::new(dir.path(), &[QUIET, PATIENT, "--tier=deep"]);
    let added = json(&["model", "add", "--json", arg(&v.point), arg(&model)]);
    assert_eq!(added["kind"], "bytes");
    let shown = ok(BINARY, &["model", "show", arg(&model)], 60);
    assert!(shown.contains(added["id"].as_str().unwrap()) && shown.contains("of bytes"), "{shown}");
    let known = gpt::places(3, 30_000);
    fs::write(v.path("known"), &known).unwrap();
    v.wait();
    assert_eq!(methods(&v, "known"), ["language"]);
    let (store, point) = (v.store.clone(), v.point.clone());
    v.is_sound();
    v.done();
    let v = Mount::of(&store, &point, &[QUIET]);
    let file = fs::File::open(v.path("known")).unwrap();
    let mut buf = [0; 100];
    file.read_exact_at(&mut buf, 29_000).unwrap();
    assert_eq!(buf, known[29_000..29_100]);
    drop(file);
    assert!(fs::read(v.path("known")).unwrap() == known);
    v.done();
}

#[cfg(feature = "lora")]
#[test]
fn a_model_is_trained_and_then_trained_further() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("data"), gpt::places(3, 20_000)).unwrap();
    let train = |network: &str, out: &str, more: &[&str]| {
        let (data, out) = (path("data"), path(out));
        let all = ["model", "pretrain", "--json", network, "--data", arg(&data), "--out", arg(&out), "--window", "256"];
        run(BINARY, &[&all[..], &["--steps", "6", "--batch-bytes", "512"], more].concat(), 300)
    };
    let report = |done: &mounted::Outcome| -> Value { serde_json::from_str(&done.out).unwrap() };
    let first = train("bgpt", "first", &["--layers", "1", "--width", "64", "--heads", "2"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    let made = path("first/bgpt.safetensors");
    assert_eq!(json(&["model", "show", "--json", arg(&made)])["kind"], "bytes");
    let further = train("bgpt", "further", &["--from", arg(&made)]);
    assert_eq!(further.code, Some(0), "{further:?}");
    let bits = |done: &mounted::Outcome, name: &str| report(done)[name].as_f64().unwrap();
    let (reached, begins) = (bits(&first, "bits_per_byte"), bits(&further, "first_bits_per_byte"));
    assert!((reached - begins).abs() < 1e-3, "it ended with {reached} and goes on with {begins}");
    assert!(bits(&further, "bits_per_byte") < begins);

    let refused = |done: mounted::Outcome, code: i32, word: &str| {
        assert!(done.code == Some(code) && done.err.contains(word), "{word}: {done:?}");
    };
    refused(train("bgpt", "other", &["--from", arg(&made), "--width", "64"]), 2, "--width");
    refused(train("igpt", "other", &["--from", arg(&made)]), 1, "not of image");
    // One that knows colours of a palette, as published, but looks back 200 of them only.
    fs::write(path("igpt.safetensors"), gpt::safetensors(&gpt::igpt_of(512))).unwrap();
    let palette = path("igpt.safetensors");
    refused(run(BINARY, &["model", "show", arg(&palette)], 60), 1, "palette");
    refused(train("igpt", "other", &["--from", arg(&palette)]), 1, "at most");
    refused(train("igpt", "other", &["--from", arg(&path("data"))]), 1, "no model of images");
}

#[cfg(feature = "hub")]
#[test]
fn a_model_is_fetched_from_a_hub() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cache) = (dir.path().join("store"), dir.path().join("cache"));
    ok(BINARY, &["mkfs", arg(&store)], 60);
    let add = |endpoint: &str, name: &str| {
        let set = [format!("HF_ENDPOINT={endpoint}"), format!("XDG_CACHE_HOME={}", arg(&cache))];
        run("env", &[&set[0], &set[1], BINARY, "model", "add", arg(&store), name], 120)
    };
    let served = hub::Served::new("org/tiny", [("tiny.gguf".to_string(), llama::tiny().bytes())].into());
    let added = add(&served.endpoint, "org/tiny");
    assert_eq!(added.code, Some(0), "{added:?}");
    let model = dir.path().join("tiny.gguf");
    fs::write(&model, llama::tiny().bytes()).unwrap();
    let listed = json(&["model", "list", "--json", arg(&store)]);
    assert_eq!(listed[0]["id"], json(&["model", "show", "--json", arg(&model)])["id"]);
    assert_eq!(fs::read_dir(cache.join("tersefs/hub")).unwrap().count(), 0, "the store's copy is enough");
    // A model of bytes is named by its file.
    let weights = gpt::pth(&gpt::bgpt_of_places(), Some("model"));
    let of_bytes = hub::Served::new("org/bytes", [("weights-audio.pth".to_string(), weights)].into());
    let added = add(&of_bytes.endpoint, "org/bytes/weights-audio.pth");
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(json(&["model", "list", "--json", arg(&store)])[1]["kind"], "bytes");
    let refused = add(&of_bytes.endpoint, "org/bytes/weights-image.pth");
    assert!(refused.code == Some(1) && refused.err.contains("weights-audio.pth"), "{refused:?}");
    let closed = served.endpoint.clone();
    drop(served);
    let refused = add(&closed, "org/tiny");
    assert!(refused.code == Some(1) && refused.err.contains("Without a network"), "{refused:?}");
}

#[test]
fn a_real_model_codes_what_was_written_since_it_was_trained() {
    let Some(model) = tools::language_model() else { return };
    let dir = tempfile::tempdir().unwrap();
    let v = Mount::new(dir.path(), &[QUIET, PATIENT, "--tier=deep"]);
    ok(BINARY, &["model", "add", arg(&v.point), arg(&model)], 120);
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let text = &text[..text.len().min(6000)];
    fs::write(v.path("deep"), text).unwrap();
    fs::create_dir(v.path("balanced")).unwrap();
    ok("setfattr", &["-n", "user.tersefs.tier", "-v", "balanced", arg(&v.path("balanced"))], 10);
    fs::write(v.path("balanced/file"), text).unwrap();
    v.wait();
    assert_eq!(methods(&v, "deep"), ["language"]);
    let stored = |name: &str| v.stat(name)["segments"][0]["stored_bytes"].as_u64().unwrap();
    assert!(stored("deep") * 100 < stored("balanced/file") * 90, "{} {}", stored("deep"), stored("balanced/file"));
    let (store, point) = (v.store.clone(), v.point.clone());
    v.done();
    // However slow a busy machine is found to be: in lanes as short as that would ask for the model may gain nothing.
    let v = Mount::of(&store, &point, &[QUIET, PATIENT]);
    assert!(fs::read(v.path("deep")).unwrap() == text);
    // Closing does not wait for what takes minutes.
    fs::create_dir(v.path("slow")).unwrap();
    ok("setfattr", &["-n", "user.tersefs.tier", "-v", "deep", arg(&v.path("slow"))], 10);
    let sources = ["volume/coding.rs", "volume/data.rs", "volume/names.rs", "store/mod.rs", "tools/estimate.rs"];
    let read = |name: &&str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)).unwrap();
    let long = sources.iter().map(read).collect::<Vec<_>>().concat();
    fs::write(v.path("slow/file"), &long).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(v.umount(&["--now"]).code, Some(4));
    let v = Mount::of(&store, &point, &["--no-coding"]);
    assert!(fs::read(v.path("slow/file")).unwrap() == long);
    assert_eq!(v.umount(&["--now"]).code, Some(4));
}
