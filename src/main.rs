//! The `tersefs` binary: hands its arguments to `cli`.

fn main() {
    std::process::exit(tersefs::cli::run());
}
