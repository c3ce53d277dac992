//! Manual pages and completions of shells, made from the table of flags.

use std::io::{self, Write};
use std::path::Path;

use super::{Failure, Outcome, args};
use crate::host;

/// Writes completions to the standard output.
pub(super) fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "tersefs", &mut out);
    io::stdout().write_all(&out)?;
    Ok(0)
}

/// Writes a page for the program and for each of its verbs, and one for the helper of mount(8).
pub(super) fn pages(directory: &Path) -> Outcome {
    host::make_directory(directory)?;
    let failed = |e: io::Error| Failure(format!("{}: {e}", directory.display()));
    clap_mangen::generate_to(args::command(), directory).map_err(failed)?;
    host::write_file(&directory.join("mount.tersefs.8"), b".so man1/tersefs-mount.1\n").map_err(failed)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_every_flag_has_a_page() {
        let dir = host::scratch().unwrap();
        assert_eq!(pages(dir.path()).unwrap(), 0);
        let read = |name: &str| host::read_text(&dir.path().join(name), 1 << 20).unwrap().replace("\\-", "-");
        let command = args::command();
        for verb in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let page = read(&format!("tersefs-{}.1", verb.get_name()));
            for arg in verb.get_arguments().filter(|a| !a.is_hide_set()) {
                if let Some(long) = arg.get_long() {
                    assert!(page.contains(&format!("--{long}")), "{}: --{long}", verb.get_name());
                }
            }
        }
        assert!(read("tersefs.1").contains("tersefs-mount(1)") && read("tersefs-model-add.1").contains("--adapter"));
        assert!(!host::exists(&dir.path().join("tersefs-man.1")));
    }
}
