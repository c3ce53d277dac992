//! Calls of the kernel that std has no way to make. Only the tests of the mounted volume need them.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn done(code: i64) -> io::Result<i64> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

pub fn seek(file: &File, offset: i64, whence: i32) -> io::Result<u64> {
    // SAFETY: an open descriptor and numbers.
    done(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) }).map(|n| n as u64)
}

pub fn allocate(file: &File, mode: i32, offset: i64, len: i64) -> io::Result<()> {
    // SAFETY: an open descriptor and numbers.
    done(i64::from(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) })).map(drop)
}

pub fn rename(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    let (from, to) = (c(from), c(to));
    // SAFETY: both strings end in zero and outlive the call.
    let code = unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags)
    };
    done(code).map(drop)
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8], flags: i32) -> io::Result<()> {
    let (path, name) = (c(path), CString::new(name).unwrap());
    // SAFETY: strings end in zero; the value is given with its length.
    let code = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    done(i64::from(code)).map(drop)
}

pub fn get_xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (c(path), CString::new(name).unwrap());
    let mut value = vec![0u8; 65_536];
    // SAFETY: strings end in zero; the buffer is given with its length.
    let got = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(done(got as i64)? as usize);
    Ok(value)
}

pub fn list_xattr(path: &Path) -> io::Result<Vec<String>> {
    let path = c(path);
    let mut names = vec![0u8; 65_536];
    // SAFETY: the string ends in zero; the buffer is given with its length.
    let got = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(done(got as i64)? as usize);
    Ok(names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| String::from_utf8_lossy(n).into_owned()).collect())
}

pub fn remove_xattr(path: &Path, name: &str) -> io::Result<()> {
    let (path, name) = (c(path), CString::new(name).unwrap());
    // SAFETY: both strings end in zero.
    done(i64::from(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) })).map(drop)
}

/// Total, free and available bytes.
pub fn space(path: &Path) -> io::Result<(u64, u64, u64)> {
    let path = c(path);
    // SAFETY: all zeros is a valid statvfs, and the call fills it.
    let mut v: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the string ends in zero; `v` outlives the call.
    done(i64::from(unsafe { libc::statvfs(path.as_ptr(), &mut v) }))?;
    let unit = v.f_frsize;
    Ok((v.f_blocks * unit, v.f_bfree * unit, v.f_bavail * unit))
}

/// A copy of the first `len` bytes of a file, read through a mapping.
pub fn mapped(file: &File, len: usize) -> io::Result<Vec<u8>> {
    // SAFETY: a fresh private mapping of an open file; it is read within its length and unmapped before return.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let copy = std::slice::from_raw_parts(at.cast::<u8>(), len).to_vec();
        libc::munmap(at, len);
        Ok(copy)
    }
}

/// Writes bytes at the start of a file through a shared mapping, and syncs the mapping.
pub fn write_mapped(file: &File, data: &[u8]) -> io::Result<()> {
    // SAFETY: a fresh shared mapping of an open file at least as long as `data`, which is copied within its length.
    unsafe {
        let flags = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(std::ptr::null_mut(), data.len(), flags, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        std::ptr::copy_nonoverlapping(data.as_ptr(), at.cast::<u8>(), data.len());
        let synced = libc::msync(at, data.len(), libc::MS_SYNC);
        libc::munmap(at, data.len());
        done(i64::from(synced)).map(drop)
    }
}

/// A shared mapping of the start of a file, unmapped when dropped.
pub struct Mapping {
    at: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    pub fn shared(file: &File, len: usize) -> io::Result<Mapping> {
        let flags = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping of an open file, owned by the value that is returned.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, flags, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Mapping { at, len }) }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` bytes long and lives as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast::<u8>(), self.len) }
    }

    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: address and length of a mapping that is alive.
        done(i64::from(unsafe { libc::msync(self.at, self.len, libc::MS_SYNC) })).map(drop)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: address and length of a mapping that nobody uses any more.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

/// Open with O_APPEND.
pub fn appends(file: &File) -> bool {
    // SAFETY: an open descriptor and numbers.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    flags & libc::O_APPEND != 0
}

/// copy_file_range(2), once.
pub fn copy_range(from: &File, at: u64, to: &File, place: u64, len: u64) -> io::Result<u64> {
    let (mut at, mut place) = (at as i64, place as i64);
    // SAFETY: open descriptors; both offsets are locals that outlive the call.
    let n = unsafe { libc::copy_file_range(from.as_raw_fd(), &mut at, to.as_raw_fd(), &mut place, len as usize, 0) };
    done(n as i64).map(|n| n as u64)
}

/// sendfile(2) to a pipe: what the kernel gives of `len` bytes, at most what a pipe holds.
pub fn sent(from: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let (mut reader, writer) = io::pipe()?;
    let mut at = at as i64;
    // SAFETY: open descriptors; the offset is a local that outlives the call.
    let n = unsafe { libc::sendfile(writer.as_raw_fd(), from.as_raw_fd(), &mut at, len.min(PIPE_BYTES)) };
    let mut got = vec![0; done(n as i64)? as usize];
    io::Read::read_exact(&mut reader, &mut got)?;
    Ok(got)
}

/// What a pipe holds unless it was made larger: a call that sends no more does not wait for a reader.
const PIPE_BYTES: usize = 65_536;

/// Lets the kernel drop the clean pages of a file.
pub fn forget_pages(file: &File) -> io::Result<()> {
    // SAFETY: an open descriptor and numbers.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// FS_IOC_GETFLAGS.
pub fn get_flags(file: &File) -> io::Result<i32> {
    let mut flags: libc::c_int = 0;
    // SAFETY: an open descriptor and a local of the type that the request fills.
    done(i64::from(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) }))?;
    Ok(flags)
}

/// linkat(2) of an open file through /proc.
pub fn link_open(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c(from), c(to));
    let follow = libc::AT_SYMLINK_FOLLOW;
    // SAFETY: both strings end in zero and outlive the call.
    done(i64::from(unsafe { libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), follow) }))
        .map(drop)
}

/// A directory read entry by entry with buffers of any size.
pub struct Directory(File);

impl Directory {
    pub fn open(path: &Path) -> io::Result<Directory> {
        File::open(path).map(Directory)
    }

    /// Names and inode numbers of the next entries that fit a buffer; none at the end.
    pub fn next(&mut self, buffer_bytes: usize) -> io::Result<Vec<(String, u64)>> {
        let mut buf = vec![0u8; buffer_bytes];
        // SAFETY: an open descriptor; the buffer is given with its length.
        let n = unsafe { libc::syscall(libc::SYS_getdents64, self.0.as_raw_fd(), buf.as_mut_ptr(), buf.len()) };
        let mut rest = &buf[..done(n)? as usize];
        let mut out = Vec::new();
        // struct linux_dirent64: inode u64, offset i64, length u16, type u8, name up to a zero.
        while rest.len() > 19 {
            let ino = u64::from_ne_bytes(rest[..8].try_into().unwrap());
            let len = usize::from(u16::from_ne_bytes(rest[16..18].try_into().unwrap()));
            let name = rest[19..len].split(|b| *b == 0).next().unwrap_or_default();
            out.push((String::from_utf8_lossy(name).into_owned(), ino));
            rest = &rest[len..];
        }
        Ok(out)
    }

    /// Where reading goes on, as telldir(3) gives it.
    pub fn place(&self) -> io::Result<i64> {
        seek(&self.0, 0, libc::SEEK_CUR).map(|n| n as i64)
    }

    pub fn go(&mut self, place: i64) -> io::Result<()> {
        seek(&self.0, place, libc::SEEK_SET).map(drop)
    }
}
