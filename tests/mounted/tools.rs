//! Published test programs, built once into `target/tools` when they are not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The program of a published crate in exactly this version. The first call builds it: minutes, and it needs the network.
pub fn tool(name: &str, version: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let program = root.join("bin").join(name);
    // Cargo keeps a list of what it installed there.
    let installed = fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
    if program.exists() && installed.contains(&format!("\"{name} {version} ")) {
        return program;
    }
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["install", "--locked", "--quiet", name, "--version", version, "--root"])
        .arg(&root)
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .unwrap_or_else(|e| panic!("cargo, to build {name}: {e}"));
    assert!(
        built.success(),
        "cannot build {name} {version}: run `cargo install --locked {name} --version {version} --root target/tools`"
    );
    program
}
