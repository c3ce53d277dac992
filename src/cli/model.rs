//! `tersefs model`: language models.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

#[cfg(feature = "lora")]
use super::args::{AdaptArgs, CourseArgs, PretrainArgs};
use super::show::bytes;
use super::{Failure, Outcome, client, offline};
use crate::base::ModelId;
use crate::host;
use crate::tools::{self, ModelReport};

pub(super) fn show(path: &Path, adapter: Option<&Path>, json: bool) -> Outcome {
    let report = tools::model_show(path, adapter).map_err(Failure)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show_report(&report);
    }
    Ok(0)
}

pub(super) fn add(path: &Path, model: &Path, adapter: Option<&Path>, json: bool) -> Outcome {
    // What cannot take a model is said before gigabytes are fetched.
    client::store_of(path)?;
    let fetched = fetched(model)?;
    let model = fetched.as_ref().map_or(model, |fetched| &fetched.path);
    let report = client::add_language(path, model, adapter)?;
    if let Some(fetched) = &fetched {
        // The store has a copy.
        fetched.remove().unwrap_or_else(|e| log::warn!("what was fetched is left there: {e}"));
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let (what, data) = match report.kind.as_str() {
            "image" => ("model of images", "images and other binary data"),
            "bytes" => ("model of bytes", "binary data"),
            _ => ("language model", "text"),
        };
        println!("{what} {} ({}) is in the volume", report.id, bytes(report.bytes));
        println!(
            "{data} of the tier deep is coded with it from now on where that is smaller, and `tersefs recode` codes what is there \
             already"
        );
    }
    Ok(0)
}

/// A model from a hub, where what was given is no path here and can be the name of one.
#[cfg(feature = "hub")]
fn fetched(model: &Path) -> Result<Option<tools::Fetched>, Failure> {
    let name = model.to_str().and_then(tools::HubName::parse).filter(|_| !host::exists(model));
    let Some(name) = name else { return Ok(None) };
    let hub = tools::Hub::of_environment().map_err(Failure)?;
    let bar = offline::bar("fetching [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left");
    offline::with_bar(bar, |progress| hub.fetch(&name, progress)).map(Some).map_err(Failure)
}

#[cfg(not(feature = "hub"))]
fn fetched(model: &Path) -> Result<Option<Fetched>, Failure> {
    if host::exists(model) {
        return Ok(None);
    }
    let model = model.display();
    Err(Failure(format!("{model}: no such file or directory; this build cannot fetch from a hub (feature `hub`)")))
}

/// What a build without a hub never has.
#[cfg(not(feature = "hub"))]
struct Fetched {
    path: PathBuf,
}

#[cfg(not(feature = "hub"))]
impl Fetched {
    fn remove(&self) -> Result<(), String> {
        Ok(())
    }
}

pub(super) fn list(path: &Path, json: bool) -> Outcome {
    let reports = tools::model_list(&*offline::look_at(&client::store_of(path)?)?).map_err(Failure)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
        return Ok(0);
    }
    for r in &reports {
        let codes = if r.codes { ", codes the tier deep" } else { "" };
        println!("{} {}, {}{codes}: {}", r.id, r.kind, bytes(r.bytes), r.files.join(", "));
    }
    if reports.is_empty() {
        println!("no language models: `tersefs model add` brings one");
    }
    Ok(0)
}

pub(super) fn remove(path: &Path, id: ModelId) -> Outcome {
    let store = client::store_of(path)?;
    offline::remove_language(&store, id)?;
    println!("language model {id} is removed from {}", store.display());
    Ok(0)
}

pub(super) fn verify(path: &Path, id: Option<ModelId>) -> Outcome {
    let disk = offline::look_at(&client::store_of(path)?)?;
    let wrong = offline::with_bar(copy_bar("reading"), |progress| tools::model_verify(&*disk, id, progress))
        .map_err(Failure)?;
    wrong.iter().for_each(|what| println!("{what}"));
    if wrong.is_empty() {
        println!("all files are what came");
    }
    Ok(if wrong.is_empty() { 0 } else { offline::DAMAGED })
}

pub(super) fn export(path: &Path, id: ModelId, to: &Path) -> Outcome {
    let disk = offline::look_at(&client::store_of(path)?)?;
    offline::with_bar(copy_bar("copying"), |progress| tools::model_export(&*disk, id, to, progress))
        .map_err(Failure)?;
    println!("language model {id} is in {}", to.display());
    Ok(0)
}

fn copy_bar(what: &str) -> ProgressBar {
    offline::bar(&format!("{what} [{{bar:30}}] {{bytes}}/{{total_bytes}}, {{elapsed}}"))
}

#[allow(clippy::too_many_arguments)]
pub(super) fn check(
    path: &Path,
    adapter: Option<&Path>,
    files: &[PathBuf],
    sample_kib: u64,
    segment_kib: usize,
    lane_kib: usize,
    sizes_only: bool,
    json: bool,
) -> Outcome {
    if !lane_kib.is_power_of_two() {
        return Err(Failure(format!("lanes have a power of two of KiB, not {lane_kib}")));
    }
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let bar = offline::bar("coding [{bar:30}] {bytes}/{total_bytes}, {elapsed}");
    let (report, checks) = offline::with_bar(bar, |progress| {
        let (sample, segment, lane) = (sample_kib << 10, segment_kib << 10, lane_kib << 10);
        tools::model_check(path, adapter, &paths, sample, segment, lane, sizes_only, progress)
    })
    .map_err(Failure)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "model": report, "files": checks }))?);
        return Ok(0);
    }
    show_report(&report);
    println!("{:>11} {:>11} {:>7} {:>9} {:>9} {:>9}", "bytes", "coded", "bpb", "tokens", "code t/s", "read t/s");
    for c in &checks {
        println!(
            "{:>11} {:>11} {:>7.3} {:>9} {:>9.0} {:>9.0}  {}",
            c.plain_bytes, c.coded_bytes, c.bits_per_byte, c.tokens, c.encode_tokens_s, c.decode_tokens_s, c.name
        );
    }
    Ok(0)
}

#[cfg(feature = "lora")]
fn training(args: &CourseArgs, learning_rate: f64, window: usize, batch_tokens: usize) -> tools::TrainOptions {
    let CourseArgs { steps, minutes, judged_steps, seed, resume } = *args;
    tools::TrainOptions { learning_rate, window, batch_tokens, steps, minutes, judged_steps, seed, resume }
}

#[cfg(feature = "lora")]
pub(super) fn adapt(args: &AdaptArgs) -> Outcome {
    let options = tools::AdaptOptions {
        rank: args.rank,
        alpha: args.alpha,
        matrices: args.matrices.clone(),
        training: training(&args.course, args.learning_rate, args.window, args.batch_tokens),
    };
    train("adapter", args.json, |tell| tools::model_adapt(&args.model, &args.data, &args.out, &options, tell))
}

#[cfg(feature = "lora")]
pub(super) fn pretrain(args: &PretrainArgs) -> Outcome {
    let options = tools::PretrainOptions {
        from: args.from.clone(),
        layers: args.layers,
        width: args.width,
        heads: args.heads,
        training: training(&args.course, args.learning_rate, args.window, args.batch_bytes),
    };
    train("model", args.json, |tell| tools::model_pretrain(&args.network, &args.data, &args.out, &options, tell))
}

/// Shows a training and what came of it.
#[cfg(feature = "lora")]
fn train(
    what: &str,
    json: bool,
    run: impl FnOnce(&mut dyn FnMut(tools::News)) -> Result<tools::TrainReport, String>,
) -> Outcome {
    let bar = offline::bar("training [{bar:30}] {pos}/{len} steps, {elapsed}, {eta} left {msg}");
    let report = run(&mut |news| match news {
        tools::News::Step { step, steps, bits_per_byte, tokens_s } => {
            bar.set_length(steps);
            bar.set_position(step);
            bar.set_message(format!("({bits_per_byte:.3} bpb, {tokens_s:.0} tokens/s)"));
        }
        tools::News::Judged { step, bits_per_byte, first, is_best } => bar.suspend(|| {
            let gain = (1.0 - bits_per_byte / first) * 100.0;
            let best = if is_best { "" } else { ", not the best" };
            eprintln!("step {step}: {bits_per_byte:.4} bpb held out, {gain:.2} % less than at first{best}");
        }),
    });
    bar.finish_and_clear();
    let r = report.map_err(Failure)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&r)?);
        return Ok(0);
    }
    println!("{what:<9} {} parameters, {}, best after step {}", r.parameters, bytes(r.bytes), r.best_step);
    println!(
        "held out  {:.4} bpb with it, {:.4} without, on {} windows",
        r.bits_per_byte, r.first_bits_per_byte, r.held_windows
    );
    println!("trained   {} tokens in {} steps, {:.0} tokens/s", r.tokens, r.steps, r.tokens_s);
    if !r.is_done {
        println!("stopped   by the clock; go on with --resume");
    }
    Ok(0)
}

fn show_report(r: &ModelReport) {
    println!("model     {}, of {}", r.id, if r.kind == "image" { "images" } else { r.kind });
    println!(
        "network   {} layers of {} elements, {} tokens, context {}",
        r.layers, r.width, r.vocabulary, r.context_tokens
    );
    println!("memory    {}, and {} for each lane of 1,024 tokens", bytes(r.weights_bytes), bytes(r.lane_memory_bytes));
    println!("computes  by {}, exactly as other machines do; loaded in {:.1} s", r.instructions, r.load_s);
}
