//! Clock, cores, memory, mounts: facts about the machine and this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::sys;

/// Seconds and nanoseconds since 1970.
pub fn now() -> (i64, u32) {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(d) => (d.as_secs() as i64, d.subsec_nanos()),
        Err(_) => (0, 0),
    }
}

/// Milliseconds of a clock that never goes back, from some moment before the first call. Never 0.
pub fn monotonic_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

/// Processors this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Resident memory of this process and its highest value so far, bytes; 0 where unknown.
pub fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> u64 {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |kib| kib << 10)
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// A number that grows while this process works: its processor time, hundredths of a second, and the pages that it has
/// read from disks and written. 0 where unknown.
pub fn effort() -> u64 {
    // After the name, which may hold anything, in parentheses: utime and stime are the 12th and 13th field.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let moved = |name: &str| -> u64 {
        let field = io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        field.unwrap_or(0)
    };
    ticks + (moved("read_bytes:") + moved("write_bytes:")) / 4096
}

/// Whether a process is in a group, or may keep the setgid bit of files of any (CAP_FSETID). No for one that is not there.
pub fn may_set_group(pid: u32, gid: u32) -> bool {
    const CAP_FSETID: u64 = 1 << 4;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("");
    let member = field("Groups:").split_whitespace().any(|g| g.parse() == Ok(gid));
    member || u64::from_str_radix(field("CapEff:").trim(), 16).is_ok_and(|held| held & CAP_FSETID != 0)
}

/// Sixteen random bytes.
pub fn random_id() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    sys::random(&mut id)?;
    Ok(id)
}

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub device: (u32, u32),
    pub mountpoint: PathBuf,
    /// Type, with subtype: "fuse.tersefs".
    pub kind: String,
    /// What is mounted, as its filesystem named it.
    pub source: String,
}

/// All mounts that this process sees, in the order in which they were made.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse_mount).collect())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let device = left.nth(2)?.split_once(':')?;
    let mountpoint = left.nth(1)?;
    let mut right = right.split(' ');
    Some(Mount {
        device: (device.0.parse().ok()?, device.1.parse().ok()?),
        mountpoint: PathBuf::from(unescape(mountpoint)),
        kind: right.next()?.to_string(),
        source: unescape(right.next()?),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|d| {
            d.iter().try_fold(0u32, |n, c| (b'0'..=b'7').contains(c).then(|| n * 8 + u32::from(c - b'0')))
        });
        match code {
            Some(c) => {
                out.push(c as u8);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The last mount whose mountpoint is `path` or above it.
pub fn mount_of(path: &Path) -> io::Result<Option<Mount>> {
    let path = fs::canonicalize(path)?;
    Ok(mounts()?
        .into_iter()
        .rev()
        .filter(|m| path.starts_with(&m.mountpoint))
        .max_by_key(|m| m.mountpoint.components().count()))
}

/// Asks the kernel to read ahead up to `kib` KiB in files of the filesystem mounted at `path`. Only root may.
pub fn set_readahead(path: &Path, kib: u32) -> io::Result<()> {
    let (major, minor) = sys::device_of(path)?;
    fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kib.to_string())
}

/// Has the kernel write out all dirty pages of the filesystem mounted at `path`.
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    sys::syncfs(fs::File::open(path)?.as_raw_fd())
}

/// Where processes of this user keep sockets while the machine runs; `None` where there is no such place.
pub fn runtime_directory() -> Option<PathBuf> {
    if sys::effective_uid() == 0 {
        return Some(PathBuf::from("/run/tersefs"));
    }
    std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(|dir| Path::new(&dir).join("tersefs"))
}

/// Removes a socket that a process before us left behind.
pub fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// True when what this process writes to its standard error goes to the journal of the machine.
pub fn stderr_is_journal() -> bool {
    use std::os::unix::fs::MetadataExt;
    // A child may have it from its parent and write elsewhere.
    let Ok(said) = std::env::var("JOURNAL_STREAM") else { return false };
    fs::metadata("/proc/self/fd/2").is_ok_and(|m| said == format!("{}:{}", m.dev(), m.ino()))
}

/// Reads a text file of at most `bytes_max` bytes.
///
/// # Errors
/// `FileTooLarge` for one that is longer, `InvalidData` for one that is not UTF-8, and what the machine says.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {bytes_max} bytes")));
    }
    Ok(text)
}

/// Writes a file that anybody may read, in place of one that is there. Not durable.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)
}

/// Makes a directory, and those above it that are missing.
pub fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Lets only the owner use a socket.
pub fn restrict_to_owner(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// Absolute path without symlinks.
pub fn canonical(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// True when `path` is a socket.
pub fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

/// True when `path` is a directory.
pub fn is_directory(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_dir())
}

/// Inode number of a file.
pub fn inode_of(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(path)?.ino())
}

/// The number of a user, or of a `group`, that this machine knows by a name: asks `getent`, and so whatever directory the machine
/// asks.
pub fn number_of_name(name: &str, group: bool) -> Option<u32> {
    let database = if group { "group" } else { "passwd" };
    let told = std::process::Command::new("getent").arg(database).arg("--").arg(name).output().ok()?;
    // Name, password, number.
    String::from_utf8(told.stdout).ok()?.split(':').nth(2)?.parse().ok()
}

/// Opens a file for appending, made for its owner only: where a daemon logs.
pub fn open_log(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Version of the kernel, as it names itself; `None` where it is not known.
pub fn kernel_release() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().to_string())
}

/// Where a program is, and whether it runs as root whoever calls it.
pub fn find_program(name: &str) -> Option<(PathBuf, bool)> {
    use std::os::unix::fs::MetadataExt;
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Helpers of mounts are looked for where root has them, too.
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find_map(|file| {
        let meta = fs::metadata(&file).ok().filter(|m| m.is_file() && m.mode() & 0o111 != 0)?;
        Some((file, meta.uid() == 0 && meta.mode() & 0o4000 != 0))
    })
}

/// Permission bits of a file.
pub fn mode_of(path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(path)?.mode() & 0o7777)
}

/// True when this process may read and write a file.
pub fn may_open(path: &str) -> bool {
    fs::OpenOptions::new().read(true).write(true).open(path).is_ok()
}

/// True when there is something at `path`.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A directory for files that are needed for a while; it goes with this value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

/// Makes a directory of a name that nobody else has, for its owner only, where this machine keeps what is temporary.
pub fn scratch() -> io::Result<Scratch> {
    use std::os::unix::fs::DirBuilderExt;
    let id: String = random_id()?.iter().map(|b| format!("{b:02x}")).collect();
    let path = std::env::temp_dir().join(format!("tersefs-{id}"));
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(Scratch(path))
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Last line of a text file that is not empty.
pub fn last_line(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().rev().find(|l| !l.trim().is_empty()).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let line =
            r"36 35 98:0 / /mnt/with\040space rw,noatime master:1 - fuse.tersefs /data/st\134ore rw,errors=continue";
        let m = parse_mount(line).unwrap();
        assert_eq!(m.mountpoint, PathBuf::from("/mnt/with space"));
        assert_eq!((m.kind.as_str(), m.source.as_str(), m.device), ("fuse.tersefs", r"/data/st\ore", (98, 0)));
        assert!(parse_mount("garbage").is_none());
    }

    #[test]
    fn this_machine_has_a_root_and_memory() {
        assert!(mounts().unwrap().iter().any(|m| m.mountpoint == Path::new("/")));
        let before = effort();
        let started = Instant::now();
        while effort() == before {
            assert!(started.elapsed().as_secs() < 20, "this is work");
        }
        assert!(memory().0 > 0 && monotonic_ms() > 0 && now().0 > 1_600_000_000);
    }
}
