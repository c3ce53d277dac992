//! The house: which room may import which, and where outside crates live. Reads the sources as text.

use std::fs;
use std::path::{Path, PathBuf};

/// Room -> rooms it may import.
const ROOMS: [(&str, &[&str]); 15] = [
    ("base", &[]),
    ("format", &["base"]),
    ("entropy", &["base"]),
    ("host", &["base"]),
    ("telemetry", &["base"]),
    ("containers", &["base", "entropy", "telemetry"]),
    // One of them codes what is in containers, which know nothing of models.
    ("models", &["base", "entropy", "telemetry", "containers"]),
    ("store", &["base", "format", "host", "telemetry"]),
    ("workers", &["base", "host", "telemetry"]),
    ("codec", &["base", "format", "host", "telemetry", "models", "containers"]),
    ("volume", &["base", "format", "host", "telemetry", "store", "workers", "codec"]),
    ("fuse", &["base", "telemetry", "volume"]),
    ("background", &["base", "host", "telemetry", "workers", "volume"]),
    ("tools", &["base", "format", "host", "telemetry", "store", "codec", "volume"]),
    (
        "cli",
        &[
            "base",
            "format",
            "entropy",
            "host",
            "telemetry",
            "containers",
            "models",
            "store",
            "workers",
            "codec",
            "volume",
            "fuse",
            "background",
            "tools",
        ],
    ),
];

/// Words that may stand only where the paths begin like this.
const HOMES: &[(&str, &[&str])] = &[
    ("archmage::", &["models/lm/", "models/picture/", "models/sound/", "models/values/", "models/video/"]),
    ("candle_core::", &["models/lm/adapt/", "models/lm/pretrain/", "models/lm/training/", "models/lm/peers.rs"]),
    ("candle_transformers::", &["models/lm/adapt/tests.rs", "models/lm/peers.rs"]),
    ("candle_nn::", &["models/lm/adapt/", "models/lm/pretrain/", "models/lm/training/", "models/lm/peers.rs"]),
    ("preflate_rs::", &["containers/deflate/"]),
    ("bzip2::", &["containers/bz2/"]),
    ("liblzma::", &["containers/xz/"]),
    ("zlib_rs::", &["containers/deflate/"]),
    ("lepton_jpeg::", &["containers/jpeg/"]),
    ("miniz_oxide::", &["containers/deflate/"]),
    ("adler2::", &["containers/"]),
    ("crc32fast::", &["containers/"]),
    ("fastcdc::", &["codec/bounds.rs"]),
    ("fuser::", &["fuse/"]),
    ("glob::", &["volume/rules.rs"]),
    ("memmap2::", &["models/primed/memory.rs", "models/lm/pages.rs"]),
    ("prefetch_index::", &["models/primed/", "models/picture/", "models/genome/", "models/lm/", "entropy/"]),
    ("sled::", &["store/index.rs"]),
    ("tokenizers::", &["models/lm/tokens.rs"]),
    ("zip::", &["models/lm/pickle.rs"]),
    ("reed_solomon_simd::", &["store/parity.rs"]),
    ("clap_complete::", &["cli/"]),
    ("clap_mangen::", &["cli/manual.rs"]),
    ("toml::", &["cli/config.rs"]),
    ("sd_notify::", &["cli/manager.rs"]),
    ("tokio::", &["background/", "cli/"]),
    ("libc::", &["host/", "fuse/"]),
    ("std::fs", &["host/"]),
    ("SystemTime::now", &["host/"]),
    ("unsafe ", &["host/"]),
    ("clap::", &["cli/"]),
    ("indicatif::", &["cli/"]),
    ("sha2::", &["tools/hub.rs"]),
    ("ureq::", &["tools/hub.rs"]),
    ("wide::", &["entropy/"]),
    ("tar::", &["tools/archive/"]),
    ("zstd::", &["containers/zst/", "models/zstd/", "store/", "codec/mod.rs", "models/mod.rs"]),
];

/// Blanks comments, strings and characters, keeping lines.
fn code_only(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut chars = source.chars().peekable();
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                for c in chars.by_ref() {
                    if c == '\n' {
                        out.push('\n');
                        break;
                    }
                }
            }
            '"' => {
                out.push(' ');
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => {
                            chars.next().into_iter().for_each(|c| out.push(blank(c)));
                        }
                        '"' => break,
                        c => out.push(blank(c)),
                    }
                }
            }
            '\'' => {
                // A character, or a lifetime: a character ends within three.
                let ahead: Vec<char> = chars.clone().take(3).collect();
                let skip = match ahead.as_slice() {
                    ['\\', _, '\''] => 3,
                    [_, '\'', ..] => 2,
                    _ => 0,
                };
                for _ in 0..skip {
                    chars.next();
                }
                out.push(' ');
            }
            c => out.push(c),
        }
    }
    out
}

/// Rooms named after `crate::` in a source, with their lines; `use crate::{a, b::c}` too.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let names: Vec<String> = if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut names = vec![String::new()];
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(String::new()),
                    c if depth == 0 => names.last_mut().unwrap().push(c),
                    _ => {}
                }
            }
            names
        } else {
            vec![rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()]
        };
        for name in names {
            let room = name.trim().split("::").next().unwrap_or("").trim().to_string();
            if !room.is_empty() {
                found.push((line, room));
            }
        }
    }
    found
}

/// What is wrong with one file, each with its line.
fn check(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let mut wrong = Vec::new();
    let room = path.split('/').next().unwrap_or("").trim_end_matches(".rs");
    if let Some((_, allowed)) = ROOMS.iter().find(|(r, _)| *r == room) {
        for (line, import) in imports(&code) {
            let known = ROOMS.iter().any(|(r, _)| *r == import);
            if known && import != room && !allowed.contains(&import.as_str()) {
                wrong.push(format!("src/{path}:{line}: {room} must not import {import}"));
            }
        }
    } else if !matches!(room, "lib" | "main") {
        wrong.push(format!("src/{path}:1: {room} is not a room of the table"));
    }
    for (word, homes) in HOMES.iter().copied() {
        if homes.iter().any(|h| path.starts_with(h)) {
            continue;
        }
        for (n, line) in code.lines().enumerate() {
            let inner = |c: char| c.is_alphanumeric() || c == '_' || (c == ':' && word.ends_with("::"));
            let alone = line.match_indices(word).any(|(at, _)| !line[..at].ends_with(inner));
            if alone {
                wrong.push(format!("src/{path}:{}: `{}` belongs to {}", n + 1, word.trim(), homes.join(", ")));
            }
        }
    }
    for (n, line) in code.lines().enumerate() {
        if line.contains("super::super") && line.matches("super::").count() > path.matches('/').count() {
            wrong.push(format!("src/{path}:{}: leaves its room by super", n + 1));
        }
    }
    wrong
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 40, "the sources were found");
    let mut wrong = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        wrong.extend(check(&path, &fs::read_to_string(&file).unwrap()));
    }
    wrong.sort();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_table_is_a_house_with_floors() {
    // A room names only rooms above it in the table, so there are no circles.
    for (n, (room, allowed)) in ROOMS.iter().enumerate() {
        for other in *allowed {
            let at = ROOMS.iter().position(|(r, _)| r == other).expect("a room of the table");
            assert!(at < n, "{room} -> {other}");
        }
    }
}

#[test]
fn wrong_imports_are_found() {
    let bad = |path: &str, source: &str| check(path, source).len();
    assert_eq!(bad("store/x.rs", "use crate::base::Ino;\nuse crate::format::{Extent, MetaOp};"), 0);
    assert_eq!(bad("store/x.rs", "use crate::volume::Volume;"), 1);
    assert_eq!(bad("store/x.rs", "fn f() { crate::codec::decode() }"), 1);
    assert_eq!(bad("models/cm/x.rs", "use crate::{base::Ino, store::{Store, Error}};"), 1);
    assert_eq!(bad("volume/x.rs", "// crate::fuse is elsewhere\nlet s = \"crate::fuse\";"), 0);
    assert_eq!(bad("volume/x.rs", "use std::fs;"), 1);
    assert_eq!(bad("volume/x.rs", "let x = unsafe { y };"), 1);
    assert_eq!(bad("codec/x.rs", "let t = std::time::SystemTime::now();"), 1);
    assert_eq!(bad("cellar/x.rs", ""), 1);
    assert_eq!(check("store/x.rs", "\n\nuse crate::cli;")[0], "src/store/x.rs:3: store must not import cli");
}
