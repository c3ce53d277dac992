//! System calls that the standard library does not offer.

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{Seek, Space};

/// What fallocate(2) does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Allocate {
    KeepSize,
    Punch,
}

fn check(ret: libc::c_int) -> io::Result<()> {
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn offset(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Takes a lock of the file without waiting. `WouldBlock` when another open file holds one that conflicts.
pub(crate) fn lock(fd: RawFd, shared: bool) -> io::Result<()> {
    let kind = if shared { libc::LOCK_SH } else { libc::LOCK_EX };
    // JUSTIFICATION: File::try_lock cannot be told from other locks of this process; flock belongs to the open file.
    // SAFETY: flock takes no pointers; a bad descriptor gives EBADF.
    check(unsafe { libc::flock(fd, kind | libc::LOCK_NB) })
}

/// Makes everything written to the filesystem of `fd` durable.
pub(crate) fn syncfs(fd: RawFd) -> io::Result<()> {
    // JUSTIFICATION: no safe call syncs a filesystem. SAFETY: no pointers; a bad descriptor gives EBADF.
    check(unsafe { libc::syncfs(fd) })
}

/// fallocate(2). `Unsupported` where the filesystem cannot.
pub(crate) fn fallocate(fd: RawFd, what: Allocate, start: u64, len: u64) -> io::Result<()> {
    let mode = match what {
        Allocate::KeepSize => libc::FALLOC_FL_KEEP_SIZE,
        Allocate::Punch => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
    };
    let (start, len) = (offset(start)?, offset(len)?);
    // JUSTIFICATION: no safe call punches holes. SAFETY: no pointers; a bad descriptor gives EBADF.
    check(unsafe { libc::fallocate(fd, mode, start, len) })
}

/// lseek(2) with SEEK_DATA or SEEK_HOLE; `None` past the end.
pub(crate) fn seek(fd: RawFd, from: u64, what: Seek) -> io::Result<Option<u64>> {
    let whence = match what {
        Seek::Data => libc::SEEK_DATA,
        Seek::Hole => libc::SEEK_HOLE,
    };
    let from = offset(from)?;
    // JUSTIFICATION: std's Seek has no data and hole. SAFETY: no pointers. The file position it moves is never used:
    // all reads and writes name their offset.
    let at = unsafe { libc::lseek(fd, from, whence) };
    if at >= 0 {
        return Ok(Some(at as u64));
    }
    let e = io::Error::last_os_error();
    if e.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(e) }
}

/// Says which signal the breaking of a lease sends; libc does not have it. The same on all architectures of Linux.
const F_SETSIG: libc::c_int = 10;

/// True when the file is open, or mapped, through anything but `fd`. `Unsupported` where the filesystem cannot tell.
pub(crate) fn is_shared(fd: RawFd) -> io::Result<bool> {
    // The kernel grants an exclusive lease only to who is alone. Whoever opens the file before it is given back waits for
    // that, and the word we get of it must not be SIGIO, which would end the process; SIGURG is ignored.
    // JUSTIFICATION: std has no leases. SAFETY: fcntl takes no pointers in these commands; a bad descriptor gives EBADF.
    let taken = unsafe {
        check(libc::fcntl(fd, F_SETSIG, libc::SIGURG))?;
        check(libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK))
    };
    match taken {
        Ok(()) => {
            // It fails where another thread that asked through the same descriptor was faster: the lease is gone as well.
            // JUSTIFICATION: as above. SAFETY: as above.
            unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
            Ok(false)
        }
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        Err(e) => Err(io::Error::new(io::ErrorKind::Unsupported, e)),
    }
}

/// statvfs(3) of the filesystem that holds `path`.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let path = c_path(path)?;
    // JUSTIFICATION: std has no statvfs. SAFETY: all-zero bytes are a valid statvfs, and the call fills it.
    let mut s: libc::statvfs = unsafe { std::mem::zeroed() };
    // JUSTIFICATION: as above. SAFETY: `path` is a C string that outlives the call, `s` is writable.
    check(unsafe { libc::statvfs(path.as_ptr(), &mut s) })?;
    Ok(Space {
        total_bytes: s.f_blocks * s.f_frsize,
        free_bytes: s.f_bfree * s.f_frsize,
        available_bytes: s.f_bavail * s.f_frsize,
        total_files: s.f_files,
        free_files: s.f_ffree,
    })
}

/// Runs `f` on a thread that shares no open files with the others, but those of standard input and output.
///
/// This is for asking a filesystem that this very process serves: a process that is killed closes its files when all who share
/// them have ended, and whoever waits for an answer ends when the connection to the kernel is closed. With files shared, neither
/// would happen, and nobody could use the mount any more.
///
/// # Blocking
/// Until `f` has ended.
pub fn without_files<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    let alone = move || {
        // JUSTIFICATION: std cannot unshare files. SAFETY: this thread has just begun and owns none of those that are closed in its
        // own table; in that of the others they stay open. An old kernel refuses, and nothing is closed.
        unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
        f()
    };
    std::thread::scope(|scope| match scope.spawn(alone).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Asks the filesystem at `path` something that the kernel keeps no answer to.
///
/// # Blocking
/// Until it answers.
pub fn ask_filesystem(path: &Path) -> io::Result<()> {
    space(path).map(drop)
}

/// Fills `buf` with random bytes from the kernel.
pub(crate) fn random(buf: &mut [u8]) -> io::Result<()> {
    // JUSTIFICATION: std has no random bytes. SAFETY: the pointer and length are those of a writable slice.
    let n = unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), 0) };
    if n == buf.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lowers the scheduling priority of the calling thread: `nice` from 0 to 19, and as a batch job when `batch`.
/// A refusal is ignored: it only means less politeness.
pub fn lower_priority(nice: i32, batch: bool) {
    // JUSTIFICATION: no safe call. SAFETY: no pointers; 0 names the calling thread on Linux.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if batch {
        // JUSTIFICATION: no safe call. SAFETY: all-zero bytes are a valid sched_param; the pointer is to a local.
        unsafe {
            let param: libc::sched_param = std::mem::zeroed();
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &param);
        }
    }
}

/// Day of the week, 0 is Monday, and minutes since midnight at a time, seconds since 1970, by the clock of this machine. That of
/// Greenwich where its own is not known.
pub(crate) fn local_time(secs: i64) -> (u32, u32) {
    let minutes = secs.div_euclid(60);
    // 1970 began on a Thursday.
    let mut found = ((minutes.div_euclid(1440) + 3).rem_euclid(7) as u32, minutes.rem_euclid(1440) as u32);
    let time = secs as libc::time_t;
    // JUSTIFICATION: std knows no time zones. SAFETY: all-zero bytes are a valid tm; both pointers are to locals of the right
    // types, and the result points to the second or is null.
    unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        if !libc::localtime_r(&time, &mut parts).is_null() {
            found = ((parts.tm_wday + 6).rem_euclid(7) as u32, (parts.tm_hour * 60 + parts.tm_min) as u32);
        }
    }
    found
}

/// Processor time that the calling thread has used, seconds.
pub fn thread_cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // JUSTIFICATION: std has no clock of processor time. SAFETY: the pointer is to a local of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ran {
    pub out: Vec<u8>,
    /// Processor time, user and system.
    pub cpu_seconds: f64,
    pub memory_peak_bytes: u64,
}

/// Runs a program on the bytes of `input`, and measures it.
///
/// # Errors
/// `NotFound` when it is not installed; it failed.
///
/// # Blocking
/// Until it has ended.
pub fn run_measured(program: &str, args: &[&str], input: &[u8]) -> io::Result<Ran> {
    use std::io::{Read, Write};
    use std::process::Stdio;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut out = Vec::new();
    let read = std::thread::scope(|scope| {
        scope.spawn(move || {
            // One that ends before it has read all of it says so by its status.
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(input);
            }
        });
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut out))
    });
    let mut status = 0;
    // JUSTIFICATION: std tells nothing of what a child used. SAFETY: all-zero bytes are a valid rusage; both pointers are to
    // locals; the child was not waited for, so its number is still its own.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        while libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) < 0 {
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
        usage
    };
    read?;
    if status != 0 {
        return Err(io::Error::other(format!("{program} failed")));
    }
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    let cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Ok(Ran { out, cpu_seconds, memory_peak_bytes: usage.ru_maxrss as u64 * 1024 })
}

/// Keeps the allocator from holding on to memory: few arenas for the many threads, as each keeps what was freed in it.
pub fn limit_arenas(arenas: usize) {
    #[cfg(target_env = "gnu")]
    // JUSTIFICATION: std knows no arenas. SAFETY: numbers only; a value it does not take is refused.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas.try_into().unwrap_or(libc::c_int::MAX));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = arenas;
}

/// Gives freed memory back to the machine.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // JUSTIFICATION: std cannot. SAFETY: takes no pointers and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Effective user of this process.
pub fn effective_uid() -> u32 {
    // JUSTIFICATION: std has no geteuid. SAFETY: it cannot fail and takes nothing.
    unsafe { libc::geteuid() }
}

/// Effective group of this process.
pub fn effective_gid() -> u32 {
    // JUSTIFICATION: std has no getegid. SAFETY: it cannot fail and takes nothing.
    unsafe { libc::getegid() }
}

/// Has a command run in a session of its own, so that it outlives the terminal it is started from.
pub fn in_new_session(command: &mut Command) {
    // JUSTIFICATION: only pre_exec runs between fork and exec. SAFETY: setsid is async-signal-safe and takes nothing.
    unsafe {
        command.pre_exec(|| if libc::setsid() >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) });
    }
}

/// Lets a write to a closed pipe end the process, as other commands do.
pub fn end_on_closed_pipe() {
    // JUSTIFICATION: std ignores SIGPIPE and has no way back. SAFETY: SIG_DFL is a valid action; no other thread runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The limits of open files of this process; `None` where they are not known.
fn open_files() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // JUSTIFICATION: std has no rlimits. SAFETY: the pointer is to a local of the right type.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    known.then_some(limit)
}

/// The most files that this process may be allowed to have open.
pub fn open_files_limit() -> u64 {
    open_files().map_or(0, |limit| limit.rlim_max)
}

/// Raises the limit of open files to the most this process may have; returns it.
pub fn raise_open_files_limit() -> u64 {
    let Some(mut limit) = open_files() else { return 0 };
    limit.rlim_cur = limit.rlim_max;
    // JUSTIFICATION: std has no rlimits. SAFETY: the pointer is to a local of the right type.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    limit.rlim_cur
}

/// Unmounts; `lazy` detaches a busy mount that ends when its last user does.
pub fn unmount(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let path = c_path(mountpoint)?;
    // JUSTIFICATION: std has no umount. SAFETY: `path` is a C string that outlives the call.
    check(unsafe { libc::umount2(path.as_ptr(), if lazy { libc::MNT_DETACH } else { 0 }) })
}

/// What the kernel keeps of a mount and can change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MountFlags {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_dev: bool,
    pub no_exec: bool,
}

/// Gives a mount these flags in place of those that it has.
pub fn remount(mountpoint: &Path, flags: MountFlags) -> io::Result<()> {
    let path = c_path(mountpoint)?;
    let bits = [
        (flags.read_only, libc::MS_RDONLY),
        (flags.no_suid, libc::MS_NOSUID),
        (flags.no_dev, libc::MS_NODEV),
        (flags.no_exec, libc::MS_NOEXEC),
    ];
    let bits = bits.iter().filter(|(set, _)| *set).fold(libc::MS_REMOUNT, |all, (_, bit)| all | bit);
    let none = std::ptr::null();
    // JUSTIFICATION: std has no mount. SAFETY: `path` is a C string that outlives the call, and a remount that changes flags
    // alone takes no source, type or data.
    check(unsafe { libc::mount(none, path.as_ptr(), none, bits, none.cast()) })
}

/// True when `path` is a mount whose filesystem is gone.
pub fn is_disconnected(path: &Path) -> bool {
    matches!(std::fs::metadata(path), Err(e) if e.raw_os_error() == Some(libc::ENOTCONN))
}

/// Device number (major, minor) of the filesystem at `path`.
pub fn device_of(path: &Path) -> io::Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let dev = std::fs::metadata(path)?.dev();
    Ok((libc::major(dev), libc::minor(dev)))
}
