//! Flags, assembly of the daemon, commands, exit codes.
//!
//! Must not know: anything that another room decides. It puts rooms together and shows what they report.
//!
//! Exit codes, but for those of `helper`: 0 done; 1 it failed, the reason is on standard error; 2 wrong usage; 3 a check found damage; 4 `umount
//! --now` left files uncoded; 5 damage was found and repaired.

mod args;
mod client;
mod config;
mod daemon;
#[cfg(test)]
mod documents;
mod helper;
mod manager;
mod manual;
mod measure;
mod model;
mod offline;
mod plot;
mod replica;
mod report;
mod show;
mod train;
mod watch;

use std::ffi::OsString;
use std::io::Write;

use crate::tools;
use crate::volume::ScrubOptions;
use args::{BenchVerb, ModelVerb, Verb};

/// Something went wrong; the sentence says what, where, and what to do.
#[derive(Debug)]
struct Failure(String);

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(e: E) -> Failure {
        Failure(e.to_string())
    }
}

/// Exit code for flags and files that make no sense: trying again does not help.
const WRONG_USAGE: i32 = 2;

/// Outcome of a command: an exit code, or a failure.
type Outcome = Result<i32, Failure>;

/// Runs the program; returns its exit code.
pub fn run() -> i32 {
    let line: Vec<OsString> = std::env::args_os().collect();
    if let Some(call) = helper::called(&line) {
        log_to_stderr(log::LevelFilter::Info);
        return helper::run(call);
    }
    let args = match args::parse(&line) {
        Ok(args) => args,
        Err(e) => {
            // Help goes to standard output and is no error.
            let _ = e.print();
            return e.exit_code();
        }
    };
    let level = match args.verbose {
        0 => log::LevelFilter::Info,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    if !matches!(args.verb, Verb::Mount(_)) {
        // A pipe that is closed (`| head`) ends a command quietly.
        crate::host::end_on_closed_pipe();
    }
    log_to_stderr(level);
    let outcome = match args.verb {
        Verb::Mkfs { store } => offline::mkfs(&store),
        Verb::Mount(mount) => match config::read(&line, &mount) {
            Ok(settings) => daemon::mount(&settings, &line),
            Err(Failure(why)) => {
                eprintln!("tersefs: {why}");
                Ok(WRONG_USAGE)
            }
        },
        Verb::Umount { mountpoint, now, json } => client::umount(&mountpoint, now, json),
        Verb::Status { path, watch: true, json } => watch::watch(path.as_deref(), json),
        Verb::Status { path, watch: false, json } => client::status(path.as_deref(), json),
        Verb::Report { path, top, depth, html, json } => {
            report::report(&path, &report::Options { top, depth, html: html.as_deref(), json })
        }
        Verb::Stat { file, json } => client::stat(&file, json),
        Verb::Explain { file, path: None, json } => client::explain(&file, json),
        Verb::Explain { file: store, path: Some(path), json } => offline::explain(&store, &path, json),
        Verb::WhatIf { file, tier, decode_ms, sample_mib, json } => {
            measure::what_if(&file, tier.map(args::TierArg::tier), decode_ms, sample_mib, json)
        }
        Verb::Wait { path } => client::wait(path.as_deref()),
        Verb::Sync { path } => client::sync(path.as_deref()),
        Verb::Pause { path } => client::pause(path.as_deref(), true),
        Verb::Resume { path } => client::pause(path.as_deref(), false),
        Verb::Fsck { store, repair, dry_run, drop_damaged, rebuild_index, json } => {
            offline::fsck(&store, tools::FsckOptions { repair, dry_run, rebuild_index, drop_damaged }, json)
        }
        Verb::Gc { path, dry_run, json } => client::gc(&path, dry_run, json),
        Verb::Scrub { store, mib_per_s, max_age, quick, json } => {
            let options = |default_mib: u64| ScrubOptions {
                quick,
                bytes_per_s: mib_per_s.unwrap_or(default_mib).saturating_mul(1 << 20),
                max_age_s: max_age.map(|days| days.saturating_mul(86_400)),
            };
            client::scrub(&store, &options, json)
        }
        Verb::Train { builtin: Some(recipe), from: Some(from), to: Some(to), .. } => {
            train::builtin(&recipe, &from, &to)
        }
        Verb::Train { path: Some(path), dry_run, json, .. } => client::train(&path, dry_run, json),
        Verb::Train { .. } => Err(Failure("give a store, a mountpoint or a path below it".into())),
        Verb::Recode { path, saves_percent, json } => client::recode(&path, saves_percent, json),
        Verb::Estimate { path, sample_mib, model, json } => {
            measure::estimate(&path, sample_mib, model.as_deref(), json)
        }
        Verb::Bench { of: Some(BenchVerb::Media { paths, model, json }), .. } => {
            measure::bench_media(&paths, &model, json)
        }
        Verb::Bench { files, model, svg, json, .. } => measure::bench(&files, model.as_deref(), svg.as_deref(), json),
        Verb::Model { verb: ModelVerb::Show { model, adapter, json } } => model::show(&model, adapter.as_deref(), json),
        Verb::Model { verb: ModelVerb::Add { path, model, adapter, json } } => {
            model::add(&path, &model, adapter.as_deref(), json)
        }
        Verb::Model { verb: ModelVerb::List { path, json } } => model::list(&path, json),
        Verb::Model { verb: ModelVerb::Remove { path, id } } => model::remove(&path, id),
        Verb::Model { verb: ModelVerb::Verify { path, id } } => model::verify(&path, id),
        Verb::Model { verb: ModelVerb::Export { path, id, to } } => model::export(&path, id, &to),
        #[cfg(feature = "lora")]
        Verb::Model { verb: ModelVerb::Adapt(args) } => model::adapt(&args),
        #[cfg(feature = "lora")]
        Verb::Model { verb: ModelVerb::Pretrain(args) } => model::pretrain(&args),
        Verb::Model {
            verb: ModelVerb::Check { model, adapter, files, sample_kib, segment_kib, lane_kib, sizes_only, json },
        } => model::check(&model, adapter.as_deref(), &files, sample_kib, segment_kib, lane_kib, sizes_only, json),
        Verb::Doctor { path, json } => client::doctor(path.as_deref(), json),
        Verb::Completions { shell } => manual::completions(shell),
        Verb::Man { directory } => manual::pages(&directory),
        Verb::Export { store, paths } => offline::export(&store, &paths),
        Verb::Import { store, into, json } => offline::import(&store, &into, json),
        Verb::CatRaw { store, path } => offline::cat_raw(&store, &path),
        Verb::Send { store, have } => replica::send(&store, have.as_deref()),
        Verb::Receive { store, have: true, .. } => replica::held(&store),
        Verb::Receive { store, finish: true, .. } => replica::finish(&store),
        Verb::Receive { store, promote: true, .. } => replica::promote(&store),
        Verb::Receive { store, json, .. } => replica::receive(&store, json),
        Verb::Inspect { store, json } => offline::inspect(&store, json),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure(why)) => {
            eprintln!("tersefs: {why}");
            1
        }
    }
}

/// Has sentences go to the standard error.
fn log_to_stderr(level: log::LevelFilter) {
    let mut logger = env_logger::Builder::new();
    if crate::host::stderr_is_journal() {
        // It knows the time itself, and takes the priority from the start of the line.
        logger.format(|out, record| {
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            writeln!(out, "<{priority}>{}", record.args())
        });
    }
    logger
        .filter_level(log::LevelFilter::Warn)
        .filter_module("tersefs", level)
        // It warns when a volume was unmounted by somebody else, which is the usual way.
        .filter_module("fuser::session", log::LevelFilter::Error)
        // And when an answer comes too late for a caller that was interrupted, which is nobody's error.
        .filter_module("fuser::reply", log::LevelFilter::Off)
        .parse_default_env()
        .init();
}
