//! What mount(8) calls: `mount.tersefs STORE MOUNTPOINT [-sfnv] [-o OPTIONS]`, for a line of fstab or a unit of systemd.
//!
//! The program is called by that name (or by `mount.fuse.tersefs`), through a link beside the other helpers; mount.fuse3, for a
//! volume of type `fuse.tersefs`, calls `tersefs STORE MOUNTPOINT -o OPTIONS`. Options are the flags of `tersefs mount`
//! without their dashes, so that both have one definition, and those that mount(8) knows for every filesystem.
//!
//! Exit codes are those of mount(8): 0 mounted, 1 wrong call or options, 32 the mount failed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::args::{self, Args, MountArgs, Verb};
use super::{Failure, config, daemon};
use crate::host::{self, MountFlags};

/// Names that mount(8) calls the program by.
const NAMES: [&str; 2] = ["mount.tersefs", "mount.fuse.tersefs"];
/// Exit codes of mount(8).
const WRONG_CALL: i32 = 1;
const MOUNT_FAILED: i32 = 32;
/// Options that are for mount(8) and systemd, or say what is so in any case.
const OF_OTHERS: [&str; 21] = [
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "async",
    "loud",
    "silent",
    "atime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "norelatime",
    "nostrictatime",
    "nomand",
];
/// The same with a value, or a name that begins like this.
const OF_OTHERS_BEGIN: [&str; 6] = ["x-", "X-", "comment=", "user=", "helper=", "uhelper="];
/// Options that the kernel keeps for a mount, which a remount can change.
const OF_THE_KERNEL: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];
/// What the kernel shows of a mount of FUSE, and mount(8) gives back for a remount.
const OF_FUSE_BEGIN: [&str; 3] = ["user_id=", "group_id=", "max_read="];
/// Flags of `tersefs mount` that are options of another name, or none.
const NOT_OPTIONS: [&str; 4] = ["daemon", "detached", "read-only", "help"];

/// What a helper is asked for.
#[derive(Debug, PartialEq)]
struct Call {
    store: OsString,
    mountpoint: PathBuf,
    /// Each with its value, as given.
    options: Vec<String>,
    /// Only see whether it could be done.
    fake: bool,
    /// Leave options out that nobody knows.
    sloppy: bool,
    verbose: bool,
}

/// The arguments of a helper, when the program was called as one.
pub(super) fn called(args: &[OsString]) -> Option<&[OsString]> {
    let name = Path::new(args.first()?).file_name()?;
    if NAMES.iter().any(|n| name == *n) {
        return args.get(1..);
    }
    // mount.fuse3 names no verb, and no verb has a slash.
    let first = args.get(1)?.to_string_lossy();
    (first.contains('/') && !first.starts_with('-') && args.len() > 2).then(|| &args[1..])
}

/// Does what mount(8) asks for; returns its exit code.
pub(super) fn run(args: &[OsString]) -> i32 {
    match mounted(args) {
        Ok(()) => 0,
        Err((code, why)) => {
            eprintln!("mount.tersefs: {why}");
            code
        }
    }
}

fn mounted(args: &[OsString]) -> Result<(), (i32, String)> {
    let wrong = |why: String| (WRONG_CALL, why);
    let failed = |Failure(why): Failure| (MOUNT_FAILED, why);
    let call = parse(args).map_err(wrong)?;
    let (line, mut unknown) = command_line(&call);
    let remounts = call.options.iter().any(|o| o == "remount");
    if remounts {
        unknown.retain(|option| !OF_FUSE_BEGIN.iter().any(|start| option.starts_with(start)));
    }
    if call.sloppy {
        unknown.clear();
    }
    if let Some(option) = unknown.first() {
        return Err(wrong(format!(
            "there is no option `{option}`; those of `tersefs mount --help` are options without their dashes, like \
             memory=1024"
        )));
    }
    let mount = arguments(&line).map_err(wrong)?;
    if remounts {
        return remount(&call).map_err(failed);
    }
    if call.fake {
        return Ok(());
    }
    let mount = config::read(&line, &mount).map_err(|Failure(why)| wrong(why))?;
    if call.verbose {
        let words: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
        println!("mount.tersefs: tersefs {}", words[1..].join(" "));
    }
    daemon::detach(&mount, &line[1..], call.verbose).map_err(failed).map(drop)
}

/// Reads `STORE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`, in any order.
fn parse(args: &[OsString]) -> Result<Call, String> {
    let usage = || "usage: mount.tersefs STORE MOUNTPOINT [-sfnv] [-o OPTIONS]".to_string();
    let (mut paths, mut options) = (Vec::new(), Vec::new());
    let (mut fake, mut sloppy, mut verbose) = (false, false, false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let text = arg.to_string_lossy();
        let Some(flags) = text.strip_prefix('-') else {
            paths.push(arg.clone());
            continue;
        };
        match flags {
            "o" => options.extend(split(&rest.next().ok_or_else(usage)?.to_string_lossy())),
            // It is known by now that it is ours.
            "t" => drop(rest.next().ok_or_else(usage)?),
            "N" => return Err("mounting in another namespace is not supported: use nsenter(1)".into()),
            letters => {
                for letter in letters.chars() {
                    match letter {
                        'f' => fake = true,
                        's' => sloppy = true,
                        'v' => verbose = true,
                        // There is no mtab to be written.
                        'n' => {}
                        _ => return Err(format!("there is no flag -{letter}; {}", usage())),
                    }
                }
            }
        }
    }
    match <[OsString; 2]>::try_from(paths) {
        Ok([store, mountpoint]) => Ok(Call { store, mountpoint: mountpoint.into(), options, fake, sloppy, verbose }),
        Err(_) => Err(usage()),
    }
}

/// Options at their commas; those between double quotes are part of a value.
fn split(options: &str) -> Vec<String> {
    let mut quoted = false;
    let at_comma = |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    let mut out: Vec<String> = options.split(at_comma).map(|option| option.replace('"', "")).collect();
    out.retain(|option| !option.is_empty());
    out
}

/// The command line of `tersefs mount` that options stand for, and those that stand for nothing.
fn command_line(call: &Call) -> (Vec<OsString>, Vec<String>) {
    let command = args::command();
    let known: Vec<String> = command
        .find_subcommand("mount")
        .into_iter()
        .flat_map(|mount| mount.get_arguments())
        .filter_map(|arg| arg.get_long().map(str::to_string))
        .filter(|long| !NOT_OPTIONS.contains(&long.as_str()))
        .collect();
    let mut line: Vec<OsString> = ["tersefs", "mount", "--daemon"].map(OsString::from).to_vec();
    let mut unknown = Vec::new();
    for option in &call.options {
        let (name, _) = option.split_once('=').unwrap_or((option, ""));
        match option.as_str() {
            "ro" => line.push("--read-only".into()),
            // What comes later counts: mount(8) puts the options of its command line behind those of fstab.
            "rw" => line.retain(|flag| flag != "--read-only"),
            "dev" | "suid" | "exec" => line.retain(|flag| *flag != *format!("--no{option}")),
            "noatime" | "relatime" | "strictatime" => line.push(format!("--atime={option}").into()),
            "remount" => {}
            of_others if OF_OTHERS.contains(&of_others) => {}
            of_others if OF_OTHERS_BEGIN.iter().any(|start| of_others.starts_with(start)) => {}
            // As FUSE spells it.
            "allow_other" => line.push("--allow-other".into()),
            // They are checked in any case.
            "default_permissions" => {}
            _ if known.iter().any(|long| long == name) => line.push(format!("--{option}").into()),
            _ => unknown.push(option.clone()),
        }
    }
    line.extend(["--".into(), call.store.clone(), call.mountpoint.clone().into()]);
    (line, unknown)
}

/// Reads a command line as `tersefs mount` does; what is wrong is said of the option.
fn arguments(line: &[OsString]) -> Result<MountArgs, String> {
    match args::parse(line) {
        Ok(Args { verb: Verb::Mount(mount), .. }) => Ok(mount),
        Ok(_) => Err("this is not a mount".into()),
        Err(e) => Err(format!("option {}", args::first_sentence(&e))),
    }
}

/// Changes what the kernel keeps of a mount; all else needs a new daemon, and is as it was.
fn remount(call: &Call) -> Result<(), Failure> {
    let shown = call.mountpoint.display();
    let path = host::canonical(&call.mountpoint).map_err(|e| Failure(format!("{shown}: {e}")))?;
    if !host::mounts()?.iter().any(|m| m.mountpoint == path && m.kind == "fuse.tersefs") {
        return Err(Failure(format!("no tersefs volume is mounted on {shown}")));
    }
    let has = |name: &str| call.options.iter().any(|o| o == name);
    let kept = |option: &&String| {
        !OF_THE_KERNEL.contains(&option.as_str())
            && !["rw", "dev", "suid", "exec", "remount"].contains(&option.as_str())
            && !OF_OTHERS.contains(&option.as_str())
            && !OF_OTHERS_BEGIN.iter().any(|start| option.starts_with(start))
    };
    let left: Vec<&str> = call.options.iter().filter(kept).map(String::as_str).collect();
    if !left.is_empty() && call.verbose {
        println!("mount.tersefs: {} stay as they are until {shown} is unmounted and mounted anew", left.join(", "));
    }
    if call.fake {
        return Ok(());
    }
    let flags =
        MountFlags { read_only: has("ro"), no_suid: has("nosuid"), no_dev: has("nodev"), no_exec: has("noexec") };
    host::remount(&path, flags).map_err(|e| Failure(format!("cannot remount {shown}: {e}")))
}

/// Takes dead mounts away from where a volume is to be mounted: those that a daemon left that was killed. Every call on them
/// fails, and so would a mount.
pub(super) fn clear_dead(mountpoint: &Path) -> Result<(), Failure> {
    /// More than a few on top of each other are no accident.
    const DEAD_MAX: usize = 16;
    for _ in 0..DEAD_MAX {
        if !host::is_disconnected(mountpoint) {
            return Ok(());
        }
        let shown = mountpoint.display();
        let path = absolute(mountpoint)?;
        if !host::mounts()?.iter().any(|m| m.mountpoint == path && m.kind == "fuse.tersefs") {
            return Err(Failure(format!(
                "{shown} is a dead mount of another filesystem; take it away first: `umount -l {shown}`"
            )));
        }
        daemon::unmount(&path, true)
            .map_err(|e| Failure(format!("{shown} is a dead mount, and cannot be taken away: {e}")))?;
        log::warn!("took a dead mount away from {shown}: its daemon was killed");
    }
    Ok(())
}

/// Path of a mountpoint that cannot be looked at itself.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let whole = std::path::absolute(path)?;
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => Ok(host::canonical(parent)?.join(name)),
        _ => Ok(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn line_of(text: &str) -> (String, Vec<String>) {
        let (line, unknown) = command_line(&parse(&words(text)).unwrap());
        (line.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "), unknown)
    }

    #[test]
    fn it_knows_when_it_is_called_as_a_helper() {
        let called = |text: &str| called(&words(text)).map(|args| args.len());
        assert_eq!(called("/sbin/mount.tersefs /s /m -o rw"), Some(4));
        assert_eq!(called("mount.fuse.tersefs s m"), Some(2));
        // By mount.fuse3, which has looked for the program in PATH.
        assert_eq!(called("tersefs /s /m -o rw,dev,suid"), Some(4));
        for other in ["tersefs mount /s /m", "tersefs -v mount /s /m", "tersefs mkfs a/b", "tersefs", "tersefs /s"] {
            assert_eq!(called(other), None, "{other}");
        }
    }

    #[test]
    fn options_are_flags() {
        let ordinary = "/s /m -o rw,noauto,nofail,_netdev,x-systemd.automount,X-mount.mkdir,user=me,defaults,relatime";
        let (line, unknown) = line_of(&format!("{ordinary},memory=64,no-coding,parity=10+1 -n -t fuse.tersefs"));
        assert_eq!(line, "tersefs mount --daemon --atime=relatime --memory=64 --no-coding --parity=10+1 -- /s /m");
        assert!(unknown.is_empty());
        let (line, unknown) = line_of("/s -sv /m -o ro,nosuid,nodev,noexec,memroy=64,daemon");
        assert_eq!(line, "tersefs mount --daemon --read-only --nosuid --nodev --noexec -- /s /m");
        assert_eq!(unknown, ["memroy=64", "daemon"]);
        let mount = arguments(&words(&line)).unwrap();
        assert!(mount.read_only && mount.nosuid && mount.nodev && mount.noexec && mount.daemon);
        // The last of several counts.
        let (line, _) = line_of("/s /m -o ro,memory=64,noexec,nosuid,user,rw,exec,memory=65");
        let mount = arguments(&words(&line)).unwrap();
        assert_eq!((mount.read_only, mount.memory, mount.noexec, mount.nosuid), (false, 65, false, true));
        // Whatever a path looks like, it is one.
        assert_eq!(parse(&words("-o a /s /m -v")).unwrap().options, ["a"]);
        assert_eq!(split(r#"a="b,c",,d"#), ["a=b,c", "d"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (call, says) in [
            ("/s", "usage"),
            ("/s /m /n", "usage"),
            ("/s /m -o", "usage"),
            ("/s /m -x", "-x"),
            ("/s /m -N 7", "nsenter"),
        ] {
            let why = parse(&words(call)).unwrap_err();
            assert!(why.contains(says), "{call}: {why}");
        }
        for (options, says) in
            [("memory=lots", "memory"), ("memory", "memory"), ("no-coding=1", "no-coding"), ("tier=cheap", "balanced")]
        {
            let (line, unknown) = command_line(&parse(&words(&format!("/s /m -o {options}"))).unwrap());
            assert!(unknown.is_empty());
            let why = arguments(&line).unwrap_err();
            assert!(why.starts_with("option ") && why.contains(says) && !why.contains("--"), "{options}: {why}");
        }
    }
}
