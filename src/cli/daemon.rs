//! `mount`: assembly of the daemon, and its life from first to last request.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::args::{self, MountArgs, Verb};
use super::manager::Manager;
use super::{Failure, Outcome, config, helper};
use crate::background::{Background, BackgroundOptions, Changes, Manners, Reload, Unmount, protocol};
use crate::base::PACK_BYTES_MAX;
use crate::codec::Policy;
use crate::fuse::{self, MountOptions, Mounted};
use crate::host::{self, Disk, RealDisk};
use crate::store::{self, IndexEngine, Store};
use crate::tools;
use crate::volume::{Adjustable, HotOptions, Rules, Volume, VolumeOptions};
use crate::workers::Workers;

/// What the detached process writes to its standard output when it serves.
const READY: &str = "ready";
/// What connects a filesystem with the kernel.
const DEVICE: &str = "/dev/fuse";
/// Where a detached daemon writes its messages.
const LOG_FILE: &str = "daemon.log";
/// The kernel reads this far ahead, KiB: two requests of the largest size.
const READAHEAD_KIB: u32 = 2048;
/// A daemon that puts the store away is waited for, so long at most, and looked for so often.
const CLOSING_MAX: Duration = Duration::from_secs(600);
const READER_CLOSING_MAX: Duration = Duration::from_secs(2);
const CLOSING_PAUSE: Duration = Duration::from_millis(20);
/// A mount that is in use is tried again so often, and after such a pause.
const BUSY_TRIES: u32 = 3;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Arenas of the allocator: more are faster when all threads allocate at once, and each keeps what was freed in it.
const ARENAS: usize = 2;

/// Runs `mount` with the settings that `line`, the command line, and files give.
pub(super) fn mount(args: &MountArgs, line: &[OsString]) -> Outcome {
    if args.daemon {
        return detach(args, line.get(1..).unwrap_or_default(), true);
    }
    let manager = Manager::new();
    check_mountpoint(args.mountpoint())?;
    let disk = RealDisk::open(args.store(), !args.read_only)
        .map_err(|e| Failure(format!("cannot use {} as a store: {e}", args.store().display())))?;
    let root = disk.native_path().unwrap_or(args.store()).to_path_buf();
    let mountpoint = host::canonical(args.mountpoint())?;
    let config = args.config.as_ref().map(|file| host::canonical(file)).transpose()?;
    let hot = hot_copies(args, &root, &mountpoint)?;
    if args.detached {
        // Paths were taken from where it was started; a service keeps no directory from being unmounted.
        std::env::set_current_dir("/")?;
    }
    if mountpoint.starts_with(&root) {
        return Err(Failure("the mountpoint lies inside the store; choose another directory".into()));
    }
    wait_for_closing(&*disk, &root, args.read_only)?;
    let disk: Arc<dyn Disk> = disk;
    let fresh = !Store::exists(&disk)?;
    if fresh {
        if args.read_only {
            return Err(Failure(format!("there is no store in {}", root.display())));
        }
        let uuid = tools::mkfs(&disk, PACK_BYTES_MAX)?;
        log::info!("made a new store {uuid} in {}", root.display());
    }
    host::limit_arenas(ARENAS);
    let files = host::raise_open_files_limit();
    log::debug!("up to {files} open files");
    let threads = if args.threads == 0 { host::cores() } else { args.threads };
    let workers = Arc::new(Workers::new(threads));
    let volume = open_volume(args, &disk, &root, &workers, threads, hot)?;
    // What is read again later is found from anywhere.
    let args = &MountArgs { config, ..args.clone() };
    serve(args, line, &manager, volume, workers, &root, &mountpoint, fresh)
}

/// What can be changed while the volume is mounted.
fn adjustable(args: &MountArgs) -> Adjustable {
    let ms = |seconds: f64| (seconds.clamp(0.0, 1e9) * 1000.0) as u64;
    Adjustable {
        quiet_ms: ms(args.quiet_seconds),
        seal_ms: ms(args.seal_seconds),
        policy: Policy {
            tier: args.tier.tier(),
            decode_ms: args.decode_ms,
            only: args.method.only(),
            ..Policy::default()
        },
        // More than there may be were refused when they were read.
        rules: Arc::new(Rules::new(args.rule.clone()).unwrap_or_default()),
    }
}

/// What coding in the background makes room for.
fn manners(args: &MountArgs) -> Manners {
    Manners {
        pressure: [args.cpu_pressure, args.io_pressure, args.memory_pressure],
        hours: args.coding_hours.clone().unwrap_or_default(),
        on_battery: args.coding_on_battery,
        cpu_percent: args.coding_cpu,
    }
}

/// Names of the settings that a reload changes.
const RELOADED: [&str; 15] = [
    "coding-cpu",
    "coding-hours",
    "coding-on-battery",
    "cpu-pressure",
    "decode-ms",
    "io-pressure",
    "memory-pressure",
    "method",
    "no-coding",
    "no-training",
    "quiet-seconds",
    "rule",
    "scrub-days",
    "seal-seconds",
    "tier",
];

/// Settings by name, with a text that is another for another value.
fn settings(args: &MountArgs) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in format!("{args:#?}").lines() {
        // A field begins four spaces in; its value may go on in further lines.
        if let Some(field) = line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', ')', '}', ']'])) {
            name = field.split(':').next().unwrap_or_default().replace('_', "-");
        }
        *found.entry(name.clone()).or_default() += line.trim();
    }
    found
}

/// Where what the command line names was found: relative paths lead elsewhere once the daemon has left its directory.
struct Found {
    store: PathBuf,
    config: Option<PathBuf>,
}

/// Reads flags and files again, changes what can be changed while the volume is mounted, and says what cannot.
fn reload(line: &[OsString], now: &Mutex<MountArgs>, found: &Found, volume: &Volume) -> Result<Changes, Failure> {
    let parsed = match args::parse(line).map_err(|e| Failure(args::first_sentence(&e)))?.verb {
        Verb::Mount(mount) => mount,
        _ => return Err(Failure("this is not a mount".into())),
    };
    // Of a mount by its name alone, that names the file.
    let named = parsed.mountpoint.is_none() && parsed.config.is_none();
    let store = if named { parsed.store.clone() } else { parsed.store.as_ref().map(|_| found.store.clone()) };
    let config = parsed.config.as_ref().and(found.config.clone());
    let new = config::read(line, &MountArgs { store, config, ..parsed })?;
    let mut now = now.lock().unwrap_or_else(|e| e.into_inner());
    let old = settings(&now);
    let changed: Vec<String> =
        settings(&new).into_iter().filter(|(k, v)| old.get(k) != Some(v)).map(|(k, _)| k).collect();
    let (at_once, later): (Vec<_>, Vec<_>) = changed.into_iter().partition(|name| RELOADED.contains(&name.as_str()));
    if !at_once.is_empty() {
        log::info!("settings were read again: {} changed", at_once.join(", "));
    }
    if !later.is_empty() {
        log::warn!("{} changed too, which needs a new mount", later.join(", "));
    }
    volume.adjust(adjustable(&new));
    let changes = Changes {
        // Only when it is set otherwise: `tersefs pause` is not taken back by something else.
        coding: (new.no_coding != now.no_coding).then_some(!new.no_coding),
        scrub_days: new.scrub_days,
        training: !new.no_training && !new.no_coding,
        manners: manners(&new),
    };
    *now = new;
    Ok(changes)
}

fn options(args: &MountArgs, threads: usize) -> VolumeOptions {
    let Adjustable { policy, quiet_ms, seal_ms, rules } = adjustable(args);
    VolumeOptions {
        read_only: args.read_only,
        rebuild_index: args.rebuild_index,
        engine: IndexEngine::Sled,
        memory_bytes: args.memory << 20,
        cache_bytes: args.cache_mib.map(|mib| mib << 20),
        quiet_ms,
        seal_ms,
        policy,
        rules,
        sharing: !args.no_sharing,
        pack_bytes_max: PACK_BYTES_MAX,
        tidy_later: true,
        parity: args.parity,
        ahead: threads,
        atime: args.atime.policy(),
        hot: HotOptions::default(),
    }
}

/// Which hot copies there are to be. A directory for them is opened, and made where it is missing.
fn hot_copies(args: &MountArgs, root: &Path, mountpoint: &Path) -> Result<HotOptions, Failure> {
    let Some(directory) = args.hot_cache_dir.as_deref().filter(|_| args.hot_cache_mib > 0) else {
        if args.hot_cache_dir.is_some() {
            log::warn!("`hot-cache-dir` is of no use without `hot-cache-mib`");
        }
        return Ok(HotOptions { bytes: args.hot_cache_mib << 20, ..HotOptions::default() });
    };
    let shown = directory.display();
    let disk = RealDisk::open(directory, true).map_err(|e| Failure(format!("hot copies: {shown}: {e}")))?;
    let at = disk.native_path().unwrap_or(directory);
    for (place, what) in [(mountpoint, "mountpoint"), (root, "store")] {
        if at.starts_with(place) {
            return Err(Failure(format!("hot copies: {shown} lies inside the {what}; choose another directory")));
        }
    }
    Ok(HotOptions { bytes: args.hot_cache_mib << 20, elsewhere: Some(disk), ..HotOptions::default() })
}

/// Opens the volume; where nothing can be written it is opened read-only, and this is said.
fn open_volume(
    args: &MountArgs,
    disk: &Arc<dyn Disk>,
    root: &Path,
    workers: &Arc<Workers>,
    threads: usize,
    hot: HotOptions,
) -> Result<Arc<Volume>, Failure> {
    let mut wanted = VolumeOptions { hot, ..options(args, threads) };
    let opened = match Volume::open(disk.clone(), wanted.clone(), workers.clone()) {
        Err(e) if !wanted.read_only && is_read_only(&e) => {
            eprintln!("tersefs: {}: {e}; mounting read-only", root.display());
            wanted.read_only = true;
            Volume::open(disk.clone(), wanted, workers.clone())
        }
        other => other,
    };
    let (volume, recovery) = opened.map_err(|e| Failure(format!("{}: {e}", root.display())))?;
    // The first mount of a new store builds its index too; only a rebuild is worth a word.
    if recovery.rebuilt && recovery.replayed > 1 {
        log::info!("the index was made anew from the packs ({} transactions)", recovery.replayed);
    }
    for damage in &recovery.damage {
        log::warn!("{damage}");
    }
    Ok(volume)
}

fn is_read_only(e: &crate::volume::Error) -> bool {
    let kind = match e {
        crate::volume::Error::Store(store::Error::Io { source, .. }) | crate::volume::Error::Io { source, .. } => {
            source.kind()
        }
        _ => return false,
    };
    matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Waits for a daemon that puts the store away: whoever unmounts a volume and mounts it again finds it at that. Those of
/// read-only mounts have no socket in the store, and little to put away.
fn wait_for_closing(disk: &dyn Disk, root: &Path, read_only: bool) -> Result<(), Failure> {
    let asked = Instant::now();
    loop {
        let mounted = host::mounts()?.iter().any(|m| m.kind == "fuse.tersefs" && Path::new(&m.source) == root);
        // It takes its socket away last.
        let most = if host::exists(&root.join(protocol::SOCKET)) { CLOSING_MAX } else { READER_CLOSING_MAX };
        if mounted || asked.elapsed() >= most {
            return Ok(());
        }
        match disk.lock(read_only) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // It was killed. What is wrong otherwise is said by whoever opens the store.
            _ => return Ok(()),
        }
        std::thread::sleep(CLOSING_PAUSE);
    }
}

fn check_mountpoint(mountpoint: &Path) -> Result<(), Failure> {
    let shown = mountpoint.display();
    helper::clear_dead(mountpoint)?;
    if let Ok(path) = host::canonical(mountpoint)
        && host::mounts()?.iter().any(|m| m.mountpoint == path && m.kind == "fuse.tersefs")
    {
        return Err(Failure(format!("{shown}: a tersefs volume is mounted there already")));
    }
    if !host::is_directory(mountpoint) {
        return Err(Failure(format!("{shown} is not a directory; make it with mkdir")));
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)] // All that was put together, once.
/// Mounts, serves, and puts everything away in the right order.
fn serve(
    args: &MountArgs,
    line: &[OsString],
    manager: &Manager,
    volume: Arc<Volume>,
    workers: Arc<Workers>,
    root: &Path,
    mountpoint: &Path,
    fresh: bool,
) -> Outcome {
    let is_root = host::effective_uid() == 0;
    let read_only = volume.is_read_only();
    let mounted = fuse::mount(
        volume.clone(),
        mountpoint,
        &MountOptions {
            source: root.to_string_lossy().into_owned(),
            read_only,
            allow_other: args.allow_other || is_root,
            dev: is_root && !args.nodev,
            suid: is_root && !args.nosuid,
            exec: !args.noexec,
            passthrough: !args.no_passthrough,
            writeback_cache: args.writeback_cache,
        },
    )
    .map_err(|e| mount_failure(&e, mountpoint))?;
    let socket = control_socket(root, mountpoint, read_only)?;
    let (tell, told) = mpsc::channel();
    let (point, stopping, asked) = (mountpoint.to_path_buf(), manager.stopping(), tell.clone());
    let end: Unmount = Arc::new(move |at_once| {
        if at_once {
            stopping();
            // The end may be under way already.
            let _ = asked.send(Event::Asked);
            // What programs have stored through mappings and nobody flushed yet.
            if let Err(e) = host::sync_filesystem(&point) {
                log::debug!("dirty pages of the mount: {e}");
            }
        }
        unmount(&point, at_once)
    });
    let (line, now, reloading) = (line.to_vec(), Mutex::new(args.clone()), manager.reloading());
    let found = Found { store: root.to_path_buf(), config: args.config.clone() };
    let reloaded = volume.clone();
    let reload: Reload = Arc::new(move |apply| {
        let _until_done = reloading();
        match self::reload(&line, &now, &found, &reloaded) {
            Ok(changes) => apply(changes),
            Err(Failure(why)) => log::error!("settings stay as they are: {why}"),
        }
    });
    let started = Background::start(
        volume.clone(),
        workers.clone(),
        &BackgroundOptions {
            socket: socket.clone(),
            mountpoint: mountpoint.to_path_buf(),
            coding: !args.no_coding && !read_only,
            scrub_days: args.scrub_days,
            training: !args.no_training,
            manners: manners(args),
            metrics: args.metrics.clone(),
            pulse_every: manager.pulse_every(),
        },
        end,
        reload,
    );
    let background = match started {
        Ok(background) => background,
        Err(e) => {
            // Without a control socket the volume can still be used, but nobody could ask it anything: rather not.
            unmount(mountpoint, true)?;
            volume.close()?;
            return Err(Failure(format!("cannot start background work: {e}")));
        }
    };
    let own_socket = host::inode_of(&socket).ok();
    // The first request to the mountpoint is answered only when it is served: from another thread.
    let (point, ready) = (mountpoint.to_path_buf(), manager.ready(&volume, background.pulse()));
    std::thread::spawn(move || {
        let answer = host::without_files(|| {
            if let Err(e) = host::set_readahead(&point, READAHEAD_KIB) {
                log::debug!("read-ahead stays as the kernel has it: {e}");
            }
            host::ask_filesystem(&point)
        });
        match answer {
            Ok(()) => ready(),
            Err(e) => log::warn!("the mount does not answer: {e}"),
        }
    });
    greet(args, root, mountpoint, fresh, read_only)?;
    let served = until_unmounted(mounted, tell, &told, Duration::from_secs(args.stop_seconds.into()));
    // Whoever asked for it: putting things away may take longer than a watchdog waits for a pulse.
    (manager.stopping())();
    volume.hurry();
    background.stop();
    let closed = volume.close();
    drop(workers);
    // The process ends, and its memory with it; piece by piece that takes seconds for a million files.
    std::mem::forget(volume);
    // Another reader may have the number of this mount by now, and its socket that name.
    if own_socket.is_some() && host::inode_of(&socket).ok() == own_socket {
        let _ = host::remove_socket(&socket);
    }
    served.map_err(|e| Failure(format!("the connection to the kernel failed: {e}")))?;
    closed.map_err(|e| Failure(format!("closing the store: {e}")))?;
    log::info!("{} is unmounted", mountpoint.display());
    Ok(0)
}

/// Where commands are taken: in the store, which has one writer; of a read-only mount where this machine keeps sockets, and in
/// the store only where a user has no such place.
fn control_socket(root: &Path, mountpoint: &Path, read_only: bool) -> Result<PathBuf, Failure> {
    let own =
        || host::mounts().ok()?.into_iter().rev().find(|m| m.mountpoint == mountpoint && m.kind == "fuse.tersefs");
    let elsewhere = if read_only { own().and_then(|m| protocol::socket_of_reader(m.device)) } else { None };
    let Some(socket) = elsewhere else { return Ok(root.join(protocol::SOCKET)) };
    if let Some(directory) = socket.parent() {
        host::make_directory(directory).map_err(|e| Failure(format!("{}: {e}", directory.display())))?;
    }
    Ok(socket)
}

/// What the thread that leads the daemon waits for.
enum Event {
    /// The daemon is to end.
    Asked,
    /// The last user of the mount has left it.
    Served(io::Result<()>),
}

/// Serves until nothing uses the mount any more, and for `grace` at most once the end was asked for: a program that keeps a
/// file open must not hold up a machine that shuts down. What it has written is in staging by then, and stays there.
fn until_unmounted(
    mounted: Mounted,
    tell: mpsc::Sender<Event>,
    told: &mpsc::Receiver<Event>,
    grace: Duration,
) -> io::Result<()> {
    let serve = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| mounted.serve()))
            .unwrap_or_else(|_| Err(io::Error::other("the thread that serves it panicked")));
        // Nobody listens once the patience has ended.
        let _ = tell.send(Event::Served(outcome));
    };
    std::thread::Builder::new().name("serve".into()).spawn(serve)?;
    let mut until: Option<Instant> = None;
    loop {
        let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        match told.recv_timeout(left) {
            Ok(Event::Served(outcome)) => return outcome,
            Ok(Event::Asked) => until = until.or_else(|| Instant::now().checked_add(grace)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                log::warn!("files of the mount are still open after {} s; ending all the same", grace.as_secs());
                return Ok(());
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(io::Error::other("nobody serves it any more")),
        }
    }
}

fn mount_failure(e: &io::Error, mountpoint: &Path) -> Failure {
    let shown = mountpoint.display();
    if host::effective_uid() != 0 && e.kind() == io::ErrorKind::NotFound {
        return Failure("mounting as a user needs fusermount3: install the package fuse3 (or mount as root)".into());
    }
    if host::effective_uid() != 0 && e.kind() == io::ErrorKind::PermissionDenied && !host::may_open(DEVICE) {
        return Failure(format!("users may not open {DEVICE} on this machine: `chmod 666 {DEVICE}`, or mount as root"));
    }
    if !host::exists(Path::new(DEVICE)) {
        return Failure("there is no /dev/fuse: load the kernel module fuse (`modprobe fuse`)".into());
    }
    Failure(format!("cannot mount on {shown}: {e}"))
}

/// Unmounts; `at_once` detaches a mount that is in use.
pub(super) fn unmount(mountpoint: &Path, at_once: bool) -> io::Result<()> {
    let mut tries = 0;
    let outcome = loop {
        match host::unmount(mountpoint, false) {
            // It may be the pulse that uses it, which takes a moment.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            other => break other,
        }
    };
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy && at_once => host::unmount(mountpoint, true),
        // Users unmount through the helper.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let flag = if at_once { "-uz" } else { "-u" };
            let output = Command::new("fusermount3").arg(flag).arg(mountpoint).output()?;
            if output.status.success() {
                Ok(())
            } else {
                Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_string()))
            }
        }
        other => other,
    }
}

fn greet(args: &MountArgs, root: &Path, mountpoint: &Path, fresh: bool, read_only: bool) -> Result<(), Failure> {
    if args.detached {
        let mut out = io::stdout();
        writeln!(out, "{READY}")?;
        out.flush()?;
        return Ok(());
    }
    let more = "Press Ctrl-C to unmount, or run the commands above in another terminal.\n";
    tell(&(hints(root, mountpoint, fresh, read_only) + more));
    Ok(())
}

/// Writes to the standard output, which nobody need read to the end: what is mounted is served all the same.
fn tell(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn hints(root: &Path, mountpoint: &Path, fresh: bool, read_only: bool) -> String {
    let how = if read_only { ", read-only" } else { "" };
    let new = if fresh { "new store" } else { "store" };
    let at = mountpoint.display();
    format!(
        "{new} {} is mounted on {at}{how}.\n  \
         cp -a FILES {at}/          copy something in; it is coded in the background once it is quiet\n  \
         tersefs status {at}        see what waits, what was saved\n  \
         tersefs wait {at}          wait until everything is coded\n  \
         tersefs umount {at}        finish and unmount\n",
        root.display()
    )
}

/// The arguments of the process that serves: those of the one that starts it, so that no flag is lost on the way.
fn detached(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    let exchange = |arg: OsString| {
        // What follows are paths, whatever they look like.
        flags &= arg != "--";
        if flags && arg == "--daemon" { "--detached".into() } else { arg }
    };
    args.map(exchange).collect()
}

/// Starts this program again in a session of its own, by the command line that `args` were read from, and waits until it
/// serves. Says what to do next when it is to be `chatty`.
pub(super) fn detach(args: &MountArgs, line: &[OsString], chatty: bool) -> Outcome {
    check_mountpoint(args.mountpoint())?;
    let disk = RealDisk::open(args.store(), !args.read_only)
        .map_err(|e| Failure(format!("cannot use {} as a store: {e}", args.store().display())))?;
    let root: PathBuf = disk.native_path().unwrap_or(args.store()).to_path_buf();
    let disk: Arc<dyn Disk> = disk;
    let fresh = !Store::exists(&disk)?;
    if fresh && !args.read_only {
        // Before the log file is there: mkfs wants an empty directory.
        tools::mkfs(&disk, PACK_BYTES_MAX)?;
    }
    let log = if args.read_only { None } else { host::open_log(&root.join(LOG_FILE)).ok() };
    let mut command = Command::new(std::env::current_exe()?);
    command
        // By whatever name this one was called.
        .arg0("tersefs")
        .args(detached(line.iter().cloned()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.map_or_else(Stdio::null, Stdio::from));
    host::in_new_session(&mut command);
    let mut child = command.spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.trim() == READY {
        if chatty {
            tell(&hints(&root, args.mountpoint(), fresh, args.read_only));
        }
        return Ok(0);
    }
    let status = child.wait()?;
    let log = root.join(LOG_FILE);
    let why = host::last_line(&log).unwrap_or_else(|| format!("it ended with {status}"));
    Err(Failure(format!("{} (more in {})", why.trim_start_matches("tersefs: "), log.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Args;

    fn parsed(args: impl IntoIterator<Item = OsString>) -> MountArgs {
        match args::parse(&std::iter::once("tersefs".into()).chain(args).collect::<Vec<_>>()) {
            Ok(Args { verb: Verb::Mount(mount), .. }) => mount,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_reaches_the_process_that_serves() {
        let command = args::command();
        let mount = command.find_subcommand("mount").unwrap();
        let mut args: Vec<OsString> = ["-v", "mount", "a store", "a mountpoint"].map(OsString::from).to_vec();
        let mut flags = 0;
        for arg in mount.get_arguments().filter(|a| a.get_long().is_some_and(|l| l != "detached")) {
            let long = arg.get_long().unwrap();
            let value = match arg.get_possible_values().last() {
                _ if !arg.get_action().takes_values() => None,
                _ if arg.get_num_args().is_some_and(|n| n.min_values() == 0) => None,
                Some(last) => Some(last.get_name().to_string()),
                None if long == "metrics" => Some("127.0.0.1:77".to_string()),
                None if long == "parity" => Some("7+3".to_string()),
                None if long == "rule" => Some("tier = 'deep'".to_string()),
                None if long == "coding-hours" => Some("Sat 01:00-02:00".to_string()),
                None => Some("77".to_string()),
            };
            args.push(value.map_or(format!("--{long}"), |v| format!("--{long}={v}")).into());
            flags += 1;
        }
        assert!(flags > 12, "{args:?}");
        let mut asked = parsed(args.clone());
        let served = parsed(detached(args.into_iter()));
        assert!(asked.daemon && served.detached && !served.daemon);
        let plain = parsed(["mount", "a store", "a mountpoint"].map(OsString::from));
        (asked.daemon, asked.detached) = (served.daemon, served.detached);
        assert_eq!(settings(&asked), settings(&served));
        // Each of them is a setting by itself, and those that a reload changes are among them.
        let (all, none) = (settings(&served), settings(&plain));
        let changed = |name: &str| all.get(name) != none.get(name);
        assert_eq!(all.keys().filter(|name| changed(name)).count(), flags, "{all:?}");
        assert!(RELOADED.iter().all(|name| changed(name)), "{all:?}");
        // It is nothing but a flag: with a value it would not be exchanged.
        assert!(args::parse(&["tersefs", "mount", "--daemon=true", "a", "b"].map(OsString::from)).is_err());
        // A store of that name.
        let odd = ["mount", "--daemon", "--", "--daemon", "b"].map(OsString::from);
        assert_eq!(detached(odd.into_iter()), ["mount", "--detached", "--", "--daemon", "b"].map(OsString::from));
    }
}
