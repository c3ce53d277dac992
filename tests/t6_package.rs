//! What the Debian package holds is there, and what the documents name exists.

mod mounted;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mounted::{BINARY, arg, ok, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where each asset comes from, and where it goes.
fn assets() -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap();
    let table = toml::de::DeTable::parse(&text).unwrap().into_inner();
    let deb = ["package", "metadata", "deb", "assets"].iter().fold(None, |at: Option<&toml::de::DeValue>, key| {
        let found = match at {
            None => table.get(*key),
            Some(value) => value.as_table().unwrap().get(*key),
        };
        Some(found.unwrap_or_else(|| panic!("{key}")).get_ref())
    });
    let each = |asset: &toml::de::DeValue| {
        let words = asset.as_array().unwrap();
        let word = |n: usize| words.get(n).unwrap().get_ref().as_str().unwrap().to_string();
        (word(0), word(1))
    };
    deb.unwrap().as_array().unwrap().iter().map(|asset| each(asset.get_ref())).collect()
}

/// Files of a name with at most one star.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap().to_str().unwrap();
    let Some((start, end)) = name.split_once('*') else {
        return if fs::symlink_metadata(pattern).is_ok() { vec![pattern.into()] } else { Vec::new() };
    };
    let entries = fs::read_dir(pattern.parent().unwrap()).unwrap().flatten();
    let names = entries.map(|e| e.path());
    names
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(start) && n.ends_with(end)))
        .collect()
}

#[test]
fn everything_in_the_package_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("package");
    ok(&format!("{ROOT}/packaging/prepare"), &[BINARY, arg(&made)], 60);
    let assets = assets();
    assert!(assets.len() > 15, "{assets:?}");
    for (from, to) in &assets {
        let from = match (from.strip_prefix("target/package/"), from.strip_prefix("target/release/")) {
            (Some(rest), _) => made.join(rest),
            (_, Some(_)) => PathBuf::from(BINARY),
            _ => Path::new(ROOT).join(from),
        };
        let found = matching(&from);
        assert!(!found.is_empty(), "{}", from.display());
        assert!(found.iter().all(|f| fs::symlink_metadata(f).unwrap().len() > 0), "{found:?}");
        assert!(!to.starts_with('/'), "{to}");
    }
    // Every unit that is no example, and links that lead to where the program goes.
    for unit in ["tersefs@.service", "tersefs-scrub@.service", "tersefs-scrub@.timer"] {
        let placed = assets.iter().find(|(from, _)| from.ends_with(&format!("systemd/{unit}")));
        assert_eq!(placed.unwrap().1, "usr/lib/systemd/system/", "{unit}");
    }
    for (from, _) in assets.iter().filter(|(from, _)| from.starts_with("packaging/mount.")) {
        assert_eq!(fs::read_link(format!("{ROOT}/{from}")).unwrap(), Path::new("/usr/bin/tersefs"));
    }
    // Pages that man(1) shows, and completions that a shell reads.
    let page = ok("sh", &["-c", "zcat \"$0\"", arg(&made.join("man/tersefs-mount.1.gz"))], 30);
    assert!(page.starts_with(".ie") || page.contains(".TH tersefs-mount"), "{}", &page[..200.min(page.len())]);
    let checked = run("bash", &["-n", arg(&made.join("completions/bash"))], 30);
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""));
    assert!(fs::read_to_string(made.join("completions/fish")).unwrap().contains("quiet-seconds"));
    let mode = fs::metadata(format!("{ROOT}/packaging/prepare")).unwrap().permissions().mode();
    assert!(mode & 0o111 != 0);
}

/// Words of a text between backquotes, and the lines of its blocks of shell.
fn commands(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut block = false;
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            block = !block && kind == "sh";
        } else if block {
            out.extend(line.split([';', '|', '#']).take(2).map(|c| c.trim().to_string()));
        } else {
            out.extend(line.split('`').skip(1).step_by(2).map(str::to_string));
        }
    }
    out
}

/// The tour of the README, run as it stands but for its places.
#[test]
fn the_tour_of_the_readme_does_what_it_says() {
    let readme = fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let tour = readme.split_once("## Five minutes").expect("a tour").1.split_once("\n## ").unwrap().0;
    let mut blocks = tour.split("```").skip(1).step_by(2);
    let script = blocks.next().unwrap().strip_prefix("sh\n").expect("commands").to_string();
    let shown = blocks.next().expect("what they say");
    let dir = tempfile::tempdir().unwrap();
    let documents = dir.path().join("documents");
    fs::create_dir(&documents).unwrap();
    for name in ["eng", "html", "json", "log"] {
        fs::copy(format!("{ROOT}/tests/data/{name}"), documents.join(name)).unwrap();
    }
    fs::rename(documents.join("eng"), documents.join("some-file")).unwrap();
    let (build, rest) = script.split_once('\n').unwrap();
    assert!(build.starts_with("cargo build --release; export PATH="), "{build}");
    let (store, point) = (dir.path().join("store"), dir.path().join("mnt"));
    let places = rest.replace("/mnt/cold", arg(&point)).replace("/srv/store", arg(&store));
    let path = format!("{}:{}", Path::new(BINARY).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let whole = format!("set -eu; export HOME={} PATH={path}\n{places}", arg(dir.path()));
    let outcome = run("bash", &["-c", &whole], 300);
    if outcome.code != Some(0) {
        run("umount", &["-l", arg(&point)], 30);
        panic!("{outcome:?}");
    }
    // What the README shows is what is said, but for numbers: each line begins as one of them.
    let first = |line: &str| line.split_whitespace().next().map(str::to_string);
    let said: Vec<Option<String>> = outcome.out.lines().map(first).collect();
    for line in shown.lines().skip(1).filter(|line| !line.trim().is_empty() && !line.starts_with('/')) {
        assert!(said.contains(&first(line)), "the README shows `{line}`: {}", outcome.out);
    }
    assert!(shown.lines().count() > 10, "{shown}");
    assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(arg(&point)));
}

/// Pictures that the README shows are there, whole, and load nothing.
#[test]
fn pictures_of_the_readme_are_there() {
    let readme = fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let shown: Vec<&str> =
        readme.split("![").skip(1).map(|rest| rest.split_once("](").unwrap().1.split(')').next().unwrap()).collect();
    assert!(!shown.is_empty());
    for path in shown {
        let picture = fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n") && picture.len() < 100_000, "{path}");
        assert!(!picture.contains("href") && !picture.contains("<script") && picture.contains("primed"), "{path}");
        // The README says how it is made.
        assert!(readme.contains(&format!("tersefs bench --svg {path}")), "{path}");
    }
    // And that makes one, of other numbers.
    let dir = tempfile::tempdir().unwrap();
    let (made, data) = (dir.path().join("made.svg"), dir.path().join("data"));
    fs::write(&data, &fs::read(format!("{ROOT}/tests/data/log")).unwrap()[..8000]).unwrap();
    ok(BINARY, &["bench", "--json", "--svg", arg(&made), arg(&data)], 120);
    let made = fs::read_to_string(made).unwrap();
    assert!(made.starts_with("<svg ") && made.contains("8000 bytes, log") && made.contains(">primed<"), "{made}");
}

#[test]
fn verbs_and_flags_that_documents_name_exist() {
    let mut named = 0;
    for document in ["README.md", "OPERATIONS.md", "SECURITY.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(format!("{ROOT}/{document}")).unwrap();
        for command in commands(&text).iter().filter(|c| c.starts_with("tersefs ")) {
            let words: Vec<&str> = command.split_whitespace().skip(1).collect();
            let verb = words.iter().find(|w| !w.starts_with('-')).copied().unwrap_or("");
            // `tersefs VERB`, or the settings of a volume.
            if verb.is_empty() || !verb.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            let below = if verb == "model" { words.get(1).copied() } else { None };
            let mut call = vec![verb];
            call.extend(below.filter(|w| w.starts_with(|c: char| c.is_ascii_lowercase())));
            call.push("--help");
            let help = run(BINARY, &call, 30);
            assert_eq!(help.code, Some(0), "{document}: `{command}`: {help:?}");
            for flag in words.iter().filter(|w| w.starts_with("--") && w.len() > 2) {
                let flag = flag.split(['=', ']', '[', ',']).next().unwrap();
                assert!(help.out.contains(flag), "{document}: `{command}`: no {flag} in {}", help.out);
            }
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
}
