//! Commands that talk to a running daemon over its control socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, Outcome, config, offline, show};
use crate::background::protocol::{LINE_BYTES_MAX, Request, Response, SOCKET, Work, socket_of_reader};
use crate::host::{self, Disk, RealDisk};
use crate::tools::{self, Finding, Health};
use crate::volume::{Backlog, Explanation, LanguageReport, ScrubOptions, Status, VolumeReport};

/// A daemon is given this long to put a store away, seconds.
const CLOSE_SECONDS_MAX: u64 = 600;
/// Longest pause between looks whether it is done.
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(50);
/// Rate of a scrub of a mounted volume when none is given, MiB/s: readers keep most of any disk.
const ONLINE_MIB_PER_S: u64 = 32;
/// Exit code when `umount --now` left files uncoded.
const LEFT: i32 = 4;

/// A conversation with a daemon.
pub(super) struct Client {
    store: PathBuf,
    stream: BufReader<UnixStream>,
}

/// The store that a path belongs to: itself, or the source of the mount it lies in.
pub(super) fn store_of(path: &Path) -> Result<PathBuf, Failure> {
    let superblock = ["FORMAT", "FORMAT.copy"].iter().any(|name| host::exists(&path.join(name)));
    if superblock && host::exists(&path.join("packs")) {
        return Ok(path.to_path_buf());
    }
    if !host::exists(path)
        && let Some(store) = config::store_named(path)?
    {
        return Ok(store);
    }
    match host::mount_of(path).map_err(|e| Failure(format!("{}: {e}", path.display())))? {
        Some(m) if m.kind == "fuse.tersefs" => Ok(PathBuf::from(m.source)),
        _ => Err(Failure(format!("{} is neither a store nor in a mounted tersefs volume", path.display()))),
    }
}

/// The store to talk about when no path is given: the only one that is mounted.
fn only_store() -> Result<PathBuf, Failure> {
    let mut stores: Vec<String> =
        host::mounts()?.into_iter().filter(|m| m.kind == "fuse.tersefs").map(|m| m.source).collect();
    stores.dedup();
    match stores.as_slice() {
        [one] => Ok(PathBuf::from(one)),
        [] => Err(Failure("no tersefs volume is mounted".into())),
        _ => Err(Failure("several volumes are mounted; say which: give a mountpoint or a store".into())),
    }
}

/// Connects with the daemon that serves a path, of a mount itself where it lies in one; of a store the one that writes, or any
/// that reads. Else what went wrong, and where.
fn connect(path: Option<&Path>, store: &Path) -> Result<UnixStream, (PathBuf, std::io::Error)> {
    let root = host::canonical(store).unwrap_or_else(|_| store.to_path_buf());
    let ours = |m: &host::Mount| m.kind == "fuse.tersefs" && Path::new(&m.source) == root;
    let inside = path.and_then(|path| host::mount_of(path).ok().flatten()).filter(ours);
    let others = host::mounts().unwrap_or_default().into_iter().filter(ours);
    let of_writer = store.join(SOCKET);
    let of_readers = others.filter_map(|m| socket_of_reader(m.device));
    let sockets = inside.and_then(|m| socket_of_reader(m.device)).into_iter().chain([of_writer.clone()]);
    let mut failure = None;
    for socket in sockets.chain(of_readers) {
        match UnixStream::connect(&socket) {
            Ok(stream) => return Ok(stream),
            // What is said is of the place where a daemon mostly is.
            Err(e) if socket == of_writer => failure = Some((socket, e)),
            Err(_) => {}
        }
    }
    Err(failure.unwrap_or((of_writer, ErrorKind::NotFound.into())))
}

impl Client {
    pub(super) fn connect(path: Option<&Path>) -> Result<Client, Failure> {
        let store = match path {
            Some(path) => store_of(path)?,
            None => only_store()?,
        };
        let stream = connect(path, &store).map_err(|(socket, e)| {
            Failure(format!("no daemon answers at {}: {e}; is {} mounted?", socket.display(), store.display()))
        })?;
        Ok(Client { store, stream: BufReader::new(stream) })
    }

    fn send(&mut self, request: &Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Response, Failure> {
        let mut line = String::new();
        if (&mut self.stream).take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Err(Failure("the daemon ended the conversation".into()));
        }
        match serde_json::from_str(&line)? {
            Response::Error { message } => Err(Failure(message)),
            other => Ok(other),
        }
    }

    pub(super) fn ask(&mut self, request: &Request) -> Result<Response, Failure> {
        self.send(request)?;
        self.receive()
    }

    /// Waits until everything is coded, with a progress bar of files.
    fn wait(&mut self) -> Result<Backlog, Failure> {
        self.send(&Request::Wait)?;
        let bar = ProgressBar::new(0);
        bar.set_style(
            ProgressStyle::with_template("coding [{bar:30}] {pos}/{len} files, {msg} coded, {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let mut first: Option<(u64, u64)> = None;
        loop {
            match self.receive()? {
                Response::Progress { backlog, encoded_bytes } => {
                    let (files, bytes) = *first.get_or_insert((backlog.files, encoded_bytes));
                    let files = files.max(backlog.files);
                    first = Some((files, bytes));
                    bar.set_length(files);
                    bar.set_position(files - backlog.files);
                    bar.set_message(show::bytes(encoded_bytes - bytes));
                }
                Response::Ok { backlog } => {
                    bar.finish_and_clear();
                    return Ok(backlog);
                }
                _ => return Err(Failure("the daemon answered something else".into())),
            }
        }
    }

    /// Waits until the daemon has given the store back.
    fn until_gone(self) -> Result<(), Failure> {
        drop(self.stream);
        let disk = RealDisk::open(&self.store, false)?;
        let asked = Instant::now();
        let mut pause = Duration::from_millis(1);
        while asked.elapsed() < Duration::from_secs(CLOSE_SECONDS_MAX) {
            match disk.lock(true) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(pause),
                other => return other.map(drop).map_err(Failure::from),
            }
            pause = (pause * 2).min(LOCK_PAUSE_MAX);
        }
        Err(Failure(format!("the daemon still holds the store after {CLOSE_SECONDS_MAX} s; see its log")))
    }
}

pub(super) fn status(path: Option<&Path>, json: bool) -> Outcome {
    match Client::connect(path)?.ask(&Request::Status)? {
        Response::Status { status, work } => {
            if json {
                print_status(&status, &work, true)?;
            } else {
                show::status(&status, &work);
            }
            Ok(0)
        }
        _ => Err(Failure("the daemon answered something else".into())),
    }
}

/// Both as one JSON object, in one line or in many.
pub(super) fn print_status(status: &Status, work: &Work, pretty: bool) -> Result<(), serde_json::Error> {
    let mut value = serde_json::to_value(status)?;
    if let (Some(map), serde_json::Value::Object(work)) = (value.as_object_mut(), serde_json::to_value(work)?) {
        map.extend(work);
    }
    let text = if pretty { serde_json::to_string_pretty(&value)? } else { value.to_string() };
    println!("{text}");
    Ok(())
}

/// What a volume takes and how it is; of the daemon what it has done, where one serves the store.
pub(super) fn survey(path: &Path, depth: usize, top: usize) -> Result<(VolumeReport, Status, Option<Work>), Failure> {
    let store = store_of(path)?;
    let Some(mut client) = daemon_of(&store) else {
        return offline::survey(&store, depth, top).map(|(report, status)| (report, status, None));
    };
    match (client.ask(&Request::Survey { depth, top })?, client.ask(&Request::Status)?) {
        (Response::Surveyed { report }, Response::Status { status, work }) => Ok((report, *status, Some(work))),
        _ => Err(Failure("the daemon answered something else".into())),
    }
}

/// Looks at the machine, at a store, and at what the daemon that serves it says.
pub(super) fn doctor(path: Option<&Path>, json: bool) -> Outcome {
    // A store that has lost its superblock is none to `store_of`, and one to look at all the same.
    let store = path.map(|path| store_of(path).unwrap_or_else(|_| path.to_path_buf()));
    let mut found = tools::doctor(store.as_deref());
    if let Some(mut client) = store.as_deref().and_then(daemon_of)
        && let Ok(Response::Status { status, work }) = client.ask(&Request::Status)
    {
        found.extend(of_daemon(&status, &work));
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        show::findings(&found);
    }
    Ok(if found.iter().any(|f| f.health == Health::Bad) { offline::DAMAGED } else { 0 })
}

/// What a daemon says of the volume that it serves.
fn of_daemon(s: &Status, work: &Work) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |health: Health, says: String, advice: &str| {
        found.push(Finding { what: "volume", health, says, advice: Some(advice.to_string()) });
    };
    if s.decode_failures > 0 || s.quarantined > 0 || s.damaged_staged > 0 {
        let places = s.decode_failures.max(s.quarantined) + s.damaged_staged;
        add(Health::Bad, format!("{places} reads met damage"), "`tersefs scrub` lists it by path");
    }
    if s.stuck_files > 0 {
        let why = s.stuck_reason.as_deref().unwrap_or("no reason is known");
        add(
            Health::Warn,
            format!("{} files cannot be coded: {why}", s.stuck_files),
            "mend that; `tersefs wait` tries again",
        );
    }
    if let Some(why) = &s.coding_waits {
        add(Health::Warn, format!("nothing is coded: {why}"), "make room");
    }
    if work.jobs_panicked > 0 {
        add(
            Health::Bad,
            format!("{} jobs of the daemon panicked", work.jobs_panicked),
            "its log says where; that is a bug",
        );
    }
    if found.is_empty() {
        let says = format!("is mounted{}; {} files wait", if s.read_only { " read-only" } else { "" }, s.queue_files);
        found.push(Finding { what: "volume", health: Health::Ok, says, advice: None });
    }
    found
}

pub(super) fn stat(file: &Path, json: bool) -> Outcome {
    let ino = host::inode_of(file).map_err(|e| Failure(format!("{}: {e}", file.display())))?;
    if host::mount_of(file)?.is_none_or(|m| m.kind != "fuse.tersefs") {
        return Err(Failure(format!("{} is not in a mounted tersefs volume", file.display())));
    }
    match Client::connect(Some(file))?.ask(&Request::Stat { ino })? {
        Response::Stat { report } => {
            if json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                show::file(&file.display().to_string(), &report);
            }
            Ok(0)
        }
        _ => Err(Failure("the daemon answered something else".into())),
    }
}

pub(super) fn explain(file: &Path, json: bool) -> Outcome {
    let report = explained(file)?;
    show::explanation(&file.display().to_string(), &report, json)?;
    Ok(0)
}

/// What the daemon says of a file in a mounted volume.
pub(super) fn explained(file: &Path) -> Result<Explanation, Failure> {
    let ino = host::inode_of(file).map_err(|e| Failure(format!("{}: {e}", file.display())))?;
    if host::mount_of(file)?.is_none_or(|m| m.kind != "fuse.tersefs") {
        let what = format!("{} is not in a mounted tersefs volume", file.display());
        return Err(Failure(format!("{what}; of a store that is not mounted give the store, then the path in it")));
    }
    match Client::connect(Some(file))?.ask(&Request::Explain { ino })? {
        Response::Explained { explanation } => Ok(explanation),
        _ => Err(Failure("the daemon answered something else".into())),
    }
}

pub(super) fn wait(path: Option<&Path>) -> Outcome {
    let left = Client::connect(path)?.wait()?;
    tell_left(&left);
    Ok(if left.stuck > 0 { 1 } else { 0 })
}

fn tell_left(left: &Backlog) {
    if left.stuck > 0 {
        let why = left.reason.as_deref().unwrap_or("no reason is known");
        eprintln!("{} files could not be coded and stay plain: {why}", left.stuck);
    }
    if let (true, 0, Some(why)) = (left.files > 0, left.stuck, &left.reason) {
        eprintln!("{} files are not coded: {why}", left.files);
    } else if left.files > left.stuck {
        eprintln!("{} files are open for writing or changed meanwhile; they are coded later", left.files - left.stuck);
    }
}

/// The daemon that serves a store; `None` where none does.
fn daemon_of(store: &Path) -> Option<Client> {
    let stream = connect(None, store).ok()?;
    Some(Client { store: store.to_path_buf(), stream: BufReader::new(stream) })
}

/// Gives space back: by the daemon where one serves the store, else on the store itself.
pub(super) fn gc(path: &Path, dry_run: bool, json: bool) -> Outcome {
    let store = store_of(path)?;
    let Some(mut client) = daemon_of(&store) else { return offline::gc(&store, dry_run, json) };
    let Response::GcPlan { plan } = client.ask(&Request::GcPlan)? else {
        return Err(Failure("the daemon answered something else".into()));
    };
    if dry_run || !json {
        show::gc_plan(&plan, json)?;
    }
    if dry_run {
        return Ok(0);
    }
    match client.ask(&Request::Gc)? {
        Response::Gc { report } => show::gc_report(&report, json)?,
        _ => return Err(Failure("the daemon answered something else".into())),
    }
    Ok(0)
}

/// Trains priors: by the daemon where one serves the store, else on the store itself.
pub(super) fn train(path: &Path, dry_run: bool, json: bool) -> Outcome {
    let store = store_of(path)?;
    let spinner = spinner("training on samples of the volume");
    let report = match daemon_of(&store) {
        None => offline::train(&store, dry_run)?,
        Some(mut client) => match client.ask(&Request::Train { dry_run })? {
            Response::Trained { report } => report,
            _ => return Err(Failure("the daemon answered something else".into())),
        },
    };
    spinner.finish_and_clear();
    show::train_report(&report, json)?;
    Ok(0)
}

/// Codes segments anew: by the daemon where one serves the store, else on the store itself.
pub(super) fn recode(path: &Path, saves_percent: u32, json: bool) -> Outcome {
    let store = store_of(path)?;
    let spinner = spinner("coding anew");
    let report = match daemon_of(&store) {
        None => offline::recode(&store, saves_percent)?,
        Some(mut client) => match client.ask(&Request::Recode { saves_percent })? {
            Response::Recoded { report } => report,
            _ => return Err(Failure("the daemon answered something else".into())),
        },
    };
    spinner.finish_and_clear();
    show::recode_report(&report, json)?;
    Ok(0)
}

/// Takes a language model in: by the daemon where one serves the store, else on the store itself.
pub(super) fn add_language(path: &Path, model: &Path, adapter: Option<&Path>) -> Result<LanguageReport, Failure> {
    let store = store_of(path)?;
    let Some(mut client) = daemon_of(&store) else { return offline::add_language(&store, model, adapter) };
    let named = |path: &Path| host::canonical(path).map_err(|e| Failure(format!("{}: {e}", path.display())));
    let request = Request::AddLanguage { path: named(model)?, adapter: adapter.map(named).transpose()? };
    let spinner = spinner("loading and copying the model");
    let report = match client.ask(&request)? {
        Response::LanguageAdded { report } => report,
        _ => return Err(Failure("the daemon answered something else".into())),
    };
    spinner.finish_and_clear();
    Ok(report)
}

/// Shows that something takes its time.
fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg}, {elapsed}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

pub(super) fn pause(path: Option<&Path>, pause: bool) -> Outcome {
    Client::connect(path)?.ask(if pause { &Request::Pause } else { &Request::Resume })?;
    Ok(0)
}

/// The kernel's dirty pages of the mounts first, so that they have reached the daemon, then what the daemon holds.
pub(super) fn sync(path: Option<&Path>) -> Outcome {
    let mut client = Client::connect(path)?;
    let store = host::canonical(&client.store)?;
    for mount in host::mounts()?.iter().filter(|m| m.kind == "fuse.tersefs" && Path::new(&m.source) == store) {
        host::sync_filesystem(&mount.mountpoint)
            .map_err(|e| Failure(format!("cannot sync {}: {e}", mount.mountpoint.display())))?;
    }
    client.ask(&Request::Sync)?;
    Ok(0)
}

/// Scrubs through the daemon that serves a store, or the store itself when there is none.
pub(super) fn scrub(path: &Path, options: &dyn Fn(u64) -> ScrubOptions, json: bool) -> Outcome {
    let Ok(mut client) = Client::connect(Some(path)) else {
        return offline::scrubbed(&offline::scrub(&store_of(path)?, options(0))?, json);
    };
    client.send(&Request::Scrub { options: options(ONLINE_MIB_PER_S) })?;
    let bar = offline::scrub_bar();
    let report = loop {
        match client.receive()? {
            Response::Scrubbing { scrub } => {
                bar.set_length(scrub.total_bytes);
                bar.set_position(scrub.done_bytes);
            }
            Response::Scrubbed { report } => break report,
            _ => return Err(Failure("the daemon answered something else".into())),
        }
    };
    bar.finish_and_clear();
    offline::scrubbed(&report, json)
}

pub(super) fn umount(mountpoint: &Path, now: bool, json: bool) -> Outcome {
    let mut client = Client::connect(Some(mountpoint))?;
    if !now {
        client.ask(&Request::Resume)?;
        let left = client.wait()?;
        tell_left(&left);
    }
    let left = match client.ask(&Request::Unmount { lazy: false })? {
        Response::Ok { backlog } => backlog,
        _ => return Err(Failure("the daemon answered something else".into())),
    };
    // The store is closed when the daemon is gone, not before.
    client.until_gone()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&left)?);
    } else if now && left.files > 0 {
        println!(
            "{} files are not coded yet; they are safe in the store and are coded after the next mount",
            left.files
        );
    }
    Ok(if now && left.files > 0 { LEFT } else { 0 })
}
