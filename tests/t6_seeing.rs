//! What a volume and its files cost, and why: explain, what-if, report, status --watch, mounted and not.

mod mounted;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use mounted::{BINARY, Dice, Mount, arg, ok, run};
use serde_json::Value;

fn json(args: &[&str]) -> Value {
    let text = ok(BINARY, args, 120);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
}

#[test]
fn what_a_file_costs_and_why_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), &["--quiet-seconds=0.3"]);
    let hostile = "<script>alert(1)<br>";
    for name in ["mail", hostile] {
        fs::create_dir(mount.path(name)).unwrap();
    }
    ok("setfattr", &["-n", "user.tersefs.tier", "-v", "fast", arg(&mount.path("mail"))], 30);
    ok(BINARY, &["pause", arg(&mount.point)], 30);
    let text = Dice(3).text(300_000);
    fs::write(mount.path("text"), &text).unwrap();
    fs::write(mount.path("mail/letter"), Dice(4).text(300_000)).unwrap();
    fs::write(mount.path("noise"), Dice(5).noise(300_000)).unwrap();
    fs::write(mount.path(hostile).join("f"), Dice(6).text(50_000)).unwrap();
    let explain = |name: &str| json(&["explain", "--json", arg(&mount.path(name))]);
    let waits = explain("text");
    assert!(waits["waiting"]["why"].as_str().unwrap().contains("paused"), "{waits}");
    assert_eq!((waits["kinds"].as_array().unwrap().len(), waits["staged_bytes"].as_u64().unwrap() > 0), (0, true));
    ok(BINARY, &["resume", arg(&mount.point)], 30);
    mount.wait();

    // The default method, and what stands against those of the tier deep.
    let found = explain("text");
    let kind = &found["kinds"][0];
    let against = |kind: &Value, method: &str| {
        let all = kind["against"].as_array().unwrap();
        let of = all.iter().find(|a| a["method"] == method);
        of.map(|a| a["why"].as_str().unwrap().to_string())
    };
    assert_eq!((&kind["method"], &kind["bytes"]), (&Value::from("primed"), &Value::from(300_000)), "{found}");
    assert_eq!(against(kind, "strong").as_deref(), Some("the tier does not have it"), "{found}");
    assert_eq!(against(kind, "primed"), None);
    assert!(kind["coded_before"].as_i64().unwrap() > 1_600_000_000 && kind["cold_read_ms"].as_u64().unwrap() > 0);
    assert_eq!(found["stored_bytes"], mount.stat("text")["stored_bytes"], "as stat and du have it");
    // A directory's wish, and who had it.
    let letter = explain("mail/letter");
    assert_eq!(letter["kinds"][0]["method"], "zstd", "{letter}");
    assert_eq!(letter["policy"]["tier_from"], "inherited from /mail");
    // Noise that nothing shrinks.
    let noise = explain("noise");
    assert_eq!(noise["kinds"][0]["method"], "raw", "{noise}");
    assert_eq!(against(&noise["kinds"][0], "zstd").as_deref(), Some("it makes this data no smaller"));
    let told = ok(BINARY, &["explain", arg(&mount.path("mail/letter"))], 30);
    for part in ["coded by zstd", "not by primed: the tier does not have it", "tier fast (inherited from /mail)"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let wrong = run(BINARY, &["explain", "/etc/passwd"], 30);
    assert!(wrong.code == Some(1) && wrong.err.contains("give the store, then the path"), "{wrong:?}");

    // The same file under another tier: measured, and as the volume made of it.
    let what_if = json(&["what-if", "--json", arg(&mount.path("mail/letter")), "balanced"]);
    let (now, then) =
        (what_if["now"]["stored_bytes"].as_u64().unwrap(), what_if["tiers"][0]["coded_bytes"].as_u64().unwrap());
    assert!(then < now && what_if["tiers"].as_array().unwrap().len() == 1, "{what_if}");
    let balanced = found["stored_bytes"].as_u64().unwrap();
    assert!(then.abs_diff(balanced) < balanced / 5, "{then} and {balanced}, of text of one kind");
    let tight = json(&["what-if", "--json", "--decode-ms", "1", arg(&mount.path("text")), "balanced"]);
    assert_eq!(tight["tiers"][0]["decode_ms_max"], 1);
    assert!(tight["tiers"][0]["coded_bytes"].as_u64().unwrap() > balanced, "{tight}");
    let told = ok(BINARY, &["what-if", arg(&mount.path("text"))], 120);
    assert!(["now", "fast", "balanced", "deep"].iter().all(|word| told.contains(&format!("\n  {word} "))), "{told}");

    // All of it.
    let report = json(&["report", "--json", arg(&mount.point)]);
    let sum = |of: &str, what: &str| -> u64 {
        report[of].as_array().unwrap().iter().map(|u| u[what].as_u64().unwrap()).sum()
    };
    let status = mount.status();
    assert_eq!(sum("classes", "plain_bytes"), 950_000, "{report}");
    assert_eq!(sum("methods", "stored_bytes"), sum("classes", "stored_bytes"));
    assert_eq!(sum("methods", "stored_bytes"), status["data_live_bytes"].as_u64().unwrap());
    assert_eq!((&report["all"]["files"], &report["all"]["bytes"]), (&Value::from(4), &Value::from(950_000)));
    let named: Vec<&str> =
        report["directories"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect();
    assert!(named.contains(&"/mail") && named.len() == 2, "{named:?}");
    let told = ok(BINARY, &["report", "--top", "1", arg(&mount.point)], 60);
    assert!(told.contains("\nprimed ") && told.contains("/mail") && told.contains("and 1 smaller"), "{told}");
    let page_at = dir.path().join("page.html");
    ok(BINARY, &["report", arg(&mount.point), "--html", arg(&page_at)], 60);
    let page = fs::read_to_string(&page_at).unwrap();
    assert!(page.contains("<svg") && page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");

    // What is not a terminal gets a line a second.
    let mut watch =
        Command::new(BINARY).args(["status", "--watch", arg(&mount.point)]).stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(watch.stdout.take().unwrap()).lines().take(2).map(|line| line.unwrap()).collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(lines.iter().all(|l| l.starts_with("idle: queue 0 files, 0 B; coded 927.7 KiB in ")), "{lines:?}");

    // And without a mount.
    let store = mount.store.clone();
    mount.done();
    let apart = json(&["explain", "--json", arg(&store), "mail/letter"]);
    assert_eq!((&apart["kinds"][0]["method"], &apart["stored_bytes"]), (&Value::from("zstd"), &letter["stored_bytes"]));
    assert_eq!(
        json(&["report", "--json", arg(&store)])["classes"][0]["plain_bytes"],
        report["classes"][0]["plain_bytes"]
    );
    let wrong = run(BINARY, &["explain", arg(&store), "no/such"], 30);
    assert!(wrong.code == Some(1) && wrong.err.contains("no/such: no such file"), "{wrong:?}");
}
