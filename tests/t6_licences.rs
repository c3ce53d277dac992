//! Every dependency, whatever it is for and whatever feature brings it, has a licence that `deny.toml` allows.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// True where an SPDX expression can be met by what is allowed: `A OR B`, `A AND B`, brackets, and `A/B` of old manifests.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    let met = either(&words, &mut at, allowed);
    met && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at, allowed);
    }
    met
}

fn both(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let met = either(words, at, allowed);
        *at += 1;
        return met && words.get(*at - 1) == Some(&")");
    }
    let mut licence = word.to_string();
    if words.get(*at) == Some(&"WITH") {
        licence += &format!(" WITH {}", words.get(*at + 1).copied().unwrap_or(""));
        *at += 2;
    }
    allowed.contains(&licence)
}

#[test]
fn expressions_are_read() {
    let allowed: BTreeSet<String> = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(String::from).into();
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "MIT AND Zlib",
        "(GPL-3.0 OR MIT) AND Zlib",
        "GPL-3.0 OR MIT AND Zlib",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_met(good, &allowed), "{good}");
    }
    for bad in
        ["", "GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "(MIT", "MIT Zlib", "GPL-3.0 OR AGPL-3.0", "MIT AND (GPL-3.0)"]
    {
        assert!(!is_met(bad, &allowed), "{bad}");
    }
}

#[test]
fn dependencies_have_licences_that_are_allowed() {
    let text = fs::read_to_string(format!("{ROOT}/deny.toml")).unwrap();
    let table = toml::de::DeTable::parse(&text).unwrap().into_inner();
    let licences = table.get("licenses").unwrap().get_ref().as_table().unwrap();
    let list = licences.get("allow").unwrap().get_ref().as_array().unwrap();
    let allowed: BTreeSet<String> = list.iter().map(|l| l.get_ref().as_str().unwrap().to_string()).collect();
    // Of this machine's kind alone: what others need was not fetched by the build.
    let host = Command::new("rustc").arg("-vV").output().expect("rustc, as the build has it");
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host").to_string();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--offline", "--format-version=1", "--filter-platform", &host])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    let mut wrong = Vec::new();
    for package in packages {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let licence = package["license"].as_str().unwrap_or("");
        if !is_met(licence, &allowed) {
            wrong.push(format!("{name} {version}: \"{licence}\""));
        }
        // From the registry, or of this repository: the package and the coder of corrections, by the name that it takes.
        let source = package["source"].as_str();
        assert!(
            source.is_none_or(|s| s.starts_with("registry+"))
                && (source.is_some() || ["tersefs", "cabac"].contains(&name)),
            "{name}: {source:?}"
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
