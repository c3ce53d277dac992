//! Commands that the documents show are read by the table of flags.

use std::ffi::OsString;

use clap::error::ErrorKind;

use super::args;

const DOCUMENTS: [(&str, &str); 4] = [
    ("README.md", include_str!("../../README.md")),
    ("OPERATIONS.md", include_str!("../../OPERATIONS.md")),
    ("SECURITY.md", include_str!("../../SECURITY.md")),
    ("CHANGELOG.md", include_str!("../../CHANGELOG.md")),
];

/// What a shell would run of a line, without redirections and comments.
fn of_line(line: &str) -> impl Iterator<Item = String> {
    let line = line.split(" #").next().unwrap_or_default();
    let parts =
        line.split([';', '|', '&']).map(|part| part.split(['<', '>']).next().unwrap_or_default().trim().to_string());
    parts.collect::<Vec<_>>().into_iter()
}

/// Commands in blocks of shell, and those between backquotes that leave nothing out.
fn commands(text: &str) -> Vec<String> {
    let (mut out, mut block, mut shell) = (Vec::new(), false, false);
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            (block, shell) = (!block, !block && kind == "sh");
        } else if shell {
            out.extend(of_line(line));
        } else if !block {
            let whole = line.split('`').skip(1).step_by(2).filter(|part| !part.contains(['[', '|', '\\', '…']));
            out.extend(whole.flat_map(of_line));
        }
    }
    out.retain(|command| command.starts_with("tersefs "));
    out
}

#[test]
fn commands_in_documents_are_read() {
    let mut read = 0;
    for (name, text) in DOCUMENTS {
        for command in commands(text) {
            let words = command.split_whitespace().map(|word| if word == "SHELL" { "bash" } else { word });
            let words: Vec<OsString> = words.map(OsString::from).collect();
            // Of a verb alone only its name is told: `tersefs estimate`.
            let verb = words.get(1).and_then(|w| w.to_str()).unwrap_or_default().to_string();
            if verb.starts_with(|c: char| !c.is_ascii_lowercase()) {
                continue;
            }
            let known = args::command();
            let names_verb = |words: &[OsString]| {
                let mut at = &known;
                words.iter().skip(1).all(|word| {
                    let below = word.to_str().and_then(|word| at.find_subcommand(word));
                    below.is_some_and(|below| {
                        at = below;
                        true
                    })
                })
            };
            if names_verb(&words) {
                read += 1;
                continue;
            }
            // Built without what it needs.
            let trains = ["adapt", "pretrain"].iter().any(|verb| command.starts_with(&format!("tersefs model {verb}")));
            if cfg!(not(feature = "lora")) && trains {
                continue;
            }
            match args::parse(&words) {
                Ok(_) => {}
                // Its operands are left out.
                Err(e) if e.kind() == ErrorKind::MissingRequiredArgument => {}
                Err(e) => panic!("{name}: `{command}`: {e}"),
            }
            read += 1;
        }
    }
    assert!(read > 30, "{read}");
}
