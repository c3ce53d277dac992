//! `send` and `receive`: a store in another place that follows one.

use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use super::offline::{bar, disk, store_to_open, with_bar};
use super::{Failure, Outcome, show};
use crate::{host, store, tools};

const BAR: &str = "[{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";

fn told(store: &Path) -> impl Fn(String) -> Failure {
    move |why| Failure(format!("{}: {why}", store.display()))
}

fn failed(store: &Path) -> impl Fn(store::Error) -> Failure {
    move |e| Failure(format!("{}: {e}", store.display()))
}

pub(super) fn send(path: &Path, have: Option<&Path>) -> Outcome {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        return Err(Failure(
            "a stream is not for a terminal: write it to a file or a pipe (`| tersefs receive STORE`)".into(),
        ));
    }
    let mut text = String::new();
    match have {
        None => {}
        Some(have) if have.as_os_str() == "-" => {
            io::stdin().lock().read_to_string(&mut text)?;
        }
        Some(have) => {
            text =
                host::read_text(have, store::LIST_BYTES_MAX).map_err(|e| Failure(format!("{}: {e}", have.display())))?
        }
    }
    let path = store_to_open(path)?;
    let disk = disk(&path, false)?;
    let report = with_bar(bar(BAR), |progress| {
        tools::send(&disk, have.map(|_| text.as_str()), &mut out, progress).map_err(told(&path))
    })?;
    eprintln!("sent {}", line(&report));
    Ok(0)
}

fn line(report: &tools::ReplicaReport) -> String {
    let (sent, all) = (show::bytes(report.sent_bytes), show::bytes(report.bytes));
    format!("{} of {} files, {sent} of {all}", report.sent_files, report.files)
}

pub(super) fn receive(path: &Path, json: bool) -> Outcome {
    let mut stream = io::stdin().lock();
    if stream.is_terminal() {
        return Err(Failure(
            "a stream does not come from a terminal: `tersefs send STORE | tersefs receive STORE`".into(),
        ));
    }
    let path = store_to_open(path)?;
    let disk = disk(&path, true)?;
    let report = with_bar(bar(BAR), |progress| tools::receive(&*disk, &mut stream, progress).map_err(told(&path)))?;
    match json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => eprintln!("received {}", line(&report)),
    }
    Ok(0)
}

pub(super) fn held(path: &Path) -> Outcome {
    let path = store_to_open(path)?;
    let text = match host::exists(&path) {
        true => tools::held(&*disk(&path, false)?).map_err(told(&path))?,
        false => store::list_to_text(&[]),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(0)
}

pub(super) fn finish(path: &Path) -> Outcome {
    let path = store_to_open(path)?;
    match store::finish(&*disk(&path, false)?).map_err(failed(&path))? {
        true => println!("{} is as the other store was when it was sent", path.display()),
        false => println!("{}: nothing was left to be done", path.display()),
    }
    Ok(0)
}

pub(super) fn promote(path: &Path) -> Outcome {
    let path = store_to_open(path)?;
    match store::promote(&*disk(&path, false)?).map_err(failed(&path))? {
        true => println!("{} is a store of its own from now on", path.display()),
        false => println!("{} followed no other", path.display()),
    }
    Ok(0)
}
