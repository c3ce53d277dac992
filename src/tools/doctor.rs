//! Looks whether a machine, and a store, have what a mount needs; changes nothing.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::{bench_method, builtin_samples};
use crate::base::{Class, MethodId};
use crate::host::{self, Disk, RealDisk};
use crate::store::{self, Marks};

/// Oldest kernel that it is tried on, and the first that serves hot files by itself.
const KERNEL_MIN: (u32, u32) = (5, 15);
const KERNEL_PASSTHROUGH: (u32, u32) = (6, 9);
/// Open files that a daemon with many readers and writers needs.
const OPEN_FILES_WANTED: u64 = 16_384;
/// Bytes of the sample that every method codes.
const SAMPLE_BYTES: usize = 16 << 10;
/// Filesystems that forget at a reboot, and those whose locks and syncs are as good as a server's.
const FORGETFUL: [&str; 2] = ["tmpfs", "ramfs"];
const REMOTE: [&str; 6] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph"];
/// Longest file of settings of FUSE, bytes.
const FUSE_CONF_BYTES_MAX: u64 = 64 << 10;
const DEVICE: &str = "/dev/fuse";

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Ok,
    /// It works, and not as well as it could, or not for everybody.
    Warn,
    /// A mount does not work, or data is in danger.
    Bad,
}

/// What was found of one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub health: Health,
    /// How it is.
    pub says: String,
    /// What to do, where there is something.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, says: impl Into<String>) -> Finding {
        Finding { what, health: Health::Ok, says: says.into(), advice: None }
    }

    fn not(what: &'static str, health: Health, says: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { what, health, says: says.into(), advice: Some(advice.into()) }
    }
}

/// Looks at the machine, at the methods, and at a store when one is given.
///
/// # Blocking
/// About a second of one core for the methods, and a few reads of the store.
pub fn doctor(store: Option<&Path>) -> Vec<Finding> {
    let mut found = vec![kernel(host::kernel_release().as_deref()), device()];
    found.extend(helpers());
    found.push(open_files(host::open_files_limit()));
    found.extend(dead_mounts());
    found.extend(methods());
    if let Some(store) = store {
        found.extend(of_store(store));
    }
    found
}

fn kernel(release: Option<&str>) -> Finding {
    let what = "kernel";
    let Some(release) = release else {
        return Finding::not(what, Health::Warn, "its version is not known", "mount /proc");
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < KERNEL_MIN {
        let wants = format!("use {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1);
        Finding::not(what, Health::Bad, format!("{release} is older than any that this was tried on"), wants)
    } else if version < KERNEL_PASSTHROUGH {
        Finding::ok(what, format!("{release}; from 6.9 on hot files are written at the speed of the disk"))
    } else {
        Finding::ok(what, format!("{release}, which serves hot files of root's mounts by itself"))
    }
}

fn device() -> Finding {
    let what = "device";
    if !host::exists(Path::new(DEVICE)) {
        return Finding::not(
            what,
            Health::Bad,
            format!("there is no {DEVICE}"),
            "load the kernel module (`modprobe fuse`), or give the container the device (`--device /dev/fuse`)",
        );
    }
    if host::may_open(DEVICE) {
        Finding::ok(what, format!("{DEVICE} can be opened"))
    } else {
        let says = format!("{DEVICE} cannot be opened by this user");
        Finding::not(what, Health::Bad, says, format!("`chmod 666 {DEVICE}`, or mount as root"))
    }
}

/// What users need, and fstab.
fn helpers() -> Vec<Finding> {
    let is_root = host::effective_uid() == 0;
    let what = "fusermount3";
    let first = match (host::find_program("fusermount3"), is_root) {
        (Some((path, true)), _) => Finding::ok(what, format!("{} mounts for users", path.display())),
        (Some((path, false)), _) => {
            let says = format!("{} is not setuid root, and so of no use", path.display());
            let health = if is_root { Health::Warn } else { Health::Bad };
            Finding::not(what, health, says, "install the package fuse3 anew")
        }
        (None, true) => Finding::ok(what, "is not installed; only users need it (package fuse3)"),
        (None, false) => {
            Finding::not(what, Health::Bad, "is not installed", "install the package fuse3, or mount as root")
        }
    };
    let what = "user_allow_other";
    let conf = host::read_text(Path::new("/etc/fuse.conf"), FUSE_CONF_BYTES_MAX).unwrap_or_default();
    let second = match (allows_others(&conf), is_root) {
        (true, _) => Finding::ok(what, "users may let others use their mounts (--allow-other)"),
        (false, true) => Finding::ok(what, "is not set; root's mounts are for all users in any case"),
        (false, false) => Finding::not(
            what,
            Health::Warn,
            "is not set: what you mount is for you alone",
            "add the line user_allow_other to /etc/fuse.conf if others are to use it",
        ),
    };
    let what = "mount helper";
    let links = ["/sbin/mount.tersefs", "/usr/sbin/mount.tersefs"];
    let third = match links.iter().find(|link| host::exists(Path::new(link))) {
        Some(link) => Finding::ok(what, format!("{link} serves lines of fstab")),
        None => Finding::ok(what, "is not there; lines of fstab need `ln -s /usr/bin/tersefs /sbin/mount.tersefs`"),
    };
    vec![first, second, third]
}

/// True where the settings of FUSE let users use `allow_other`.
fn allows_others(conf: &str) -> bool {
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

fn open_files(limit: u64) -> Finding {
    let what = "open files";
    if limit >= OPEN_FILES_WANTED {
        return Finding::ok(what, format!("up to {limit}"));
    }
    let advice = "raise the hard limit: `LimitNOFILE=1048576` in a unit, or `nofile` in /etc/security/limits.conf";
    Finding::not(what, Health::Warn, format!("at most {limit}: programs with more files open get errors"), advice)
}

fn dead_mounts() -> Vec<Finding> {
    let mounts = host::mounts().unwrap_or_default();
    let ours = mounts.iter().filter(|m| m.kind == "fuse.tersefs" && host::is_disconnected(&m.mountpoint));
    ours.map(|m| {
        let at = m.mountpoint.display();
        let says = format!("the daemon of {at} was killed: every call there fails");
        Finding::not("mount", Health::Bad, says, format!("mount it again, or `umount -l {at}`"))
    })
    .collect()
}

/// A wave in 16 bits, by whole numbers, with a little noise.
fn sound() -> Vec<u8> {
    let (mut x, mut speed, mut noise) = (12_000i32, 0i32, 1u32);
    let sample = |_| {
        speed -= x / 256;
        x += speed / 2;
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x + (noise >> 27) as i32) as i16
    };
    (0..SAMPLE_BYTES / 2).map(sample).flat_map(i16::to_le_bytes).collect()
}

/// A picture in grey, by whole numbers, whose rows differ a little.
fn picture() -> Vec<u8> {
    const WIDTH: usize = 128;
    let mut noise = 1u32;
    let value = |at: usize| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (x, y) = (at % WIDTH, at / WIDTH);
        (40 + x * y / 96 % 128 + (noise >> 29) as usize) as u8
    };
    let head = format!("P5 {WIDTH} {} 255\n", SAMPLE_BYTES / WIDTH).into_bytes();
    head.into_iter().chain((0..SAMPLE_BYTES).map(value)).take(SAMPLE_BYTES).collect()
}

/// Frames of that picture, each a row further down.
fn video() -> Vec<u8> {
    const SIDES: (usize, usize) = (64, 32);
    let picture = picture();
    let head = format!("YUV4MPEG2 W{} H{} Cmono\n", SIDES.0, SIDES.1).into_bytes();
    let frame = |n: usize| picture.iter().skip((n + 1) * SIDES.0).take(SIDES.0 * SIDES.1).copied();
    let frames = (0..).flat_map(|n: usize| b"FRAME\n".iter().copied().chain(frame(n % 8)));
    head.into_iter().chain(frames).take(SAMPLE_BYTES).collect()
}

/// Every method codes a sample and gives it back.
fn methods() -> Vec<Finding> {
    let samples = builtin_samples();
    let nucleotides: Vec<u8> =
        (0..SAMPLE_BYTES as u32).map(|n| b"ACGT"[(n.wrapping_mul(2_654_435_761) >> 30) as usize]).collect();
    let text = samples.first().map_or(&[][..], |(_, bytes)| bytes.get(..SAMPLE_BYTES).unwrap_or(bytes));
    let (sound, picture, video) = (sound(), picture(), video());
    let mut good = Vec::new();
    let mut found = Vec::new();
    // A language model codes nothing unless a volume has been given one: `tersefs model check`. What is in containers is
    // coded by the others.
    for method in MethodId::ALL.into_iter().filter(|m| !matches!(m, MethodId::Language | MethodId::Opened)) {
        let (sample, class) = match method {
            MethodId::Genome => (&nucleotides[..], Class::Nucleotides),
            MethodId::Sound => (&sound[..], Class::Sound),
            MethodId::Picture => (&picture[..], Class::Picture),
            MethodId::Video => (&video[..], Class::Video),
            _ => (text, Class::Source),
        };
        match bench_method(sample, class, method, SAMPLE_BYTES as u32) {
            Ok(_) => good.push(method.name()),
            Err(why) => found.push(Finding::not(
                "methods",
                Health::Bad,
                format!("{}: {why}", method.name()),
                "do not code on this machine: test its memory and its processor",
            )),
        }
    }
    found.insert(0, Finding::ok("methods", format!("what they code comes back exact: {}", good.join(", "))));
    found
}

fn of_store(path: &Path) -> Vec<Finding> {
    let what = "store";
    let shown = path.display();
    let disk: Arc<dyn Disk> = match RealDisk::open(path, false) {
        Ok(disk) => disk,
        Err(e) => {
            let says = format!("{shown}: {e}");
            return vec![Finding::not(what, Health::Bad, says, "give the directory of a store")];
        }
    };
    let health = match store::health(&disk) {
        Ok(health) => health,
        Err(e) => {
            let says = format!("{shown}: {e}");
            return vec![Finding::not(what, Health::Bad, says, format!("`tersefs fsck {shown}` says more"))];
        }
    };
    let mut found = Vec::new();
    if health.wrong.is_empty() {
        found.push(Finding::ok(what, format!("{shown}: the superblock and its copy are good")));
    }
    for why in &health.wrong {
        let advice =
            "the next mount writes it anew from its copy; a disk that loses bytes is worth a look (`smartctl`)";
        found.push(Finding::not(what, Health::Warn, format!("{shown}: {why}"), advice));
    }
    match host::mode_of(path) {
        Ok(mode) if mode & 0o077 != 0 => found.push(Finding::not(
            "privacy",
            Health::Warn,
            format!(
                "{shown} has mode {mode:04o}: other users can look into it, past the permissions of the files in it"
            ),
            format!("`chmod 700 {shown}`"),
        )),
        _ => found.push(Finding::ok("privacy", "nobody but its owner can look into the store")),
    }
    found.push(space(health.space, health.marks));
    found.push(reserve(health.reserve_bytes, health.marks.reserve));
    let kind = host::mount_of(path).ok().flatten().map(|m| m.kind).unwrap_or_default();
    found.push(filesystem(&kind));
    found
}

fn space(space: host::Space, marks: Marks) -> Finding {
    let what = "space";
    let mib = |bytes: u64| bytes >> 20;
    let says = format!("{} MiB of {} MiB are free", mib(space.available_bytes), mib(space.total_bytes));
    let advice = "delete something, or `tersefs gc` gives back what was deleted";
    if space.available_bytes < marks.data {
        Finding::not(what, Health::Bad, format!("{says}: new data is refused"), advice)
    } else if space.available_bytes < space.total_bytes / 20 {
        Finding::not(what, Health::Warn, format!("{says}; below {} MiB new data is refused", mib(marks.data)), advice)
    } else if space.total_files > 0 && space.free_files < space.total_files / 20 {
        let says = format!("only {} more files can be made on the filesystem of the store", space.free_files);
        Finding::not(what, Health::Warn, says, "files that wait for coding take one each: let them be coded")
    } else {
        Finding::ok(what, says)
    }
}

fn reserve(bytes: u64, wanted: u64) -> Finding {
    let what = "reserve";
    if bytes >= wanted / 2 {
        return Finding::ok(what, format!("{} MiB are held back for deletes and repairs on a full disk", bytes >> 20));
    }
    let says = format!("{} MiB of {} MiB are held back for a full disk", bytes >> 20, wanted >> 20);
    Finding::not(what, Health::Warn, says, "it is filled again while the volume is mounted and the disk has space")
}

fn filesystem(kind: &str) -> Finding {
    let what = "filesystem";
    if FORGETFUL.contains(&kind) {
        let says = format!("the store is on {kind}, which is empty after a reboot");
        Finding::not(what, Health::Warn, says, "keep stores on a disk")
    } else if REMOTE.contains(&kind) {
        let says =
            format!("the store is on {kind}: what is synced is as safe as its server makes it, and so is the lock");
        Finding::not(what, Health::Warn, says, "mount a store on one machine at a time")
    } else {
        Finding::ok(what, format!("the store is on {}", if kind.is_empty() { "an unknown one" } else { kind }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        for (release, health) in [
            ("6.18.44-fc", Health::Ok),
            ("6.1.0-28-amd64", Health::Ok),
            ("5.15.0", Health::Ok),
            ("5.10.0-32", Health::Bad),
            ("4.19", Health::Bad),
            ("", Health::Bad),
        ] {
            assert_eq!(kernel(Some(release)).health, health, "{release}");
        }
        assert_eq!(kernel(None).health, Health::Warn);
    }

    #[test]
    fn what_is_wrong_comes_with_advice() {
        let marks = Marks::of(1 << 30);
        let of = |available_bytes, free_files| {
            let (total_bytes, free_bytes) = (1 << 30, available_bytes);
            space(host::Space { total_bytes, free_bytes, available_bytes, total_files: 1000, free_files }, marks)
        };
        let found = [
            of(1 << 29, 500),
            of(1 << 29, 10),
            of(40 << 20, 500),
            of(marks.data - 1, 500),
            reserve(marks.reserve, marks.reserve),
            reserve(0, marks.reserve),
            filesystem("ext4"),
            filesystem("tmpfs"),
            filesystem("nfs4"),
            open_files(1024),
            open_files(1 << 20),
        ];
        use Health::{Bad, Ok, Warn};
        let health: Vec<Health> = found.iter().map(|f| f.health).collect();
        assert_eq!(health, [Ok, Warn, Warn, Bad, Ok, Warn, Ok, Warn, Warn, Warn, Ok]);
        assert!(found.iter().all(|f| (f.health == Ok) == f.advice.is_none()));
        assert!(allows_others("# x\n user_allow_other \n") && !allows_others("#user_allow_other"));
    }

    #[test]
    fn methods_are_tried() {
        let found = methods();
        assert!(found.len() == 1 && found[0].health == Health::Ok, "{found:?}");
        assert!(["zstd", "primed", "genome", "strong"].iter().all(|m| found[0].says.contains(m)), "{found:?}");
    }
}
