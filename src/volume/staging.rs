//! Staging files: the plain bytes of files that are not, or not wholly, coded.
//!
//! A staging file is named `staging/<ino>.<epoch>` and holds bytes at the offsets they have in the file; what is a hole
//! in it is either coded or zero. The epoch is new for each staging file an inode has, so that one whose removal a
//! crash undid is recognised as stale.

use std::io;
use std::sync::Arc;

use super::inode::InodeState;
use super::types::Error;
use crate::base::{ByteRange, Ino};
use crate::format::Staging;
use crate::host::{self, Disk, DiskFile, OpenMode, Seek};

/// Directory of all staging files.
pub(crate) const STAGING_DIR: &str = "staging";

/// Name of a staging file.
pub(crate) fn path(ino: Ino, epoch: u64) -> String {
    format!("{STAGING_DIR}/{ino}.{epoch}")
}

/// Reads a name back; `None` for a file that is not ours.
pub(crate) fn parse(name: &str) -> Option<(Ino, u64)> {
    let (ino, epoch) = name.split_once('.')?;
    Some((Ino(ino.parse().ok()?), epoch.parse().ok()?))
}

pub(crate) fn io_error(what: &str, ino: Ino, source: io::Error) -> Error {
    if host::is_out_of_space(&source) {
        Error::NoSpace
    } else if host::is_out_of_files(&source) {
        Error::TooManyFiles
    } else if source.kind() == io::ErrorKind::FileTooLarge {
        // The filesystem below has an end: 16 TiB on ext4.
        Error::TooBig
    } else {
        Error::Io { what: format!("{what} staging of inode {ino}"), source }
    }
}

/// Opens the staging file of an inode; `None` when it has none, or nothing was written to it yet.
pub(crate) fn open(disk: &dyn Disk, state: &InodeState) -> Result<Option<Arc<dyn DiskFile>>, Error> {
    if let Some(file) = &state.file {
        return Ok(Some(file.clone()));
    }
    let Some(staging) = state.rec.staging else { return Ok(None) };
    match disk.open(&path(state.rec.ino, staging.epoch), OpenMode::Write) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem || e.kind() == io::ErrorKind::PermissionDenied => {
            match disk.open(&path(state.rec.ino, staging.epoch), OpenMode::Read) {
                Ok(file) => Ok(Some(file)),
                Err(e) => Err(io_error("open", state.rec.ino, e)),
            }
        }
        Err(e) => Err(io_error("open", state.rec.ino, e)),
    }
}

/// Opens or creates the staging file of an inode whose record has an epoch; keeps it open while the inode has handles.
pub(crate) fn create(disk: &dyn Disk, state: &mut InodeState, staging: Staging) -> Result<Arc<dyn DiskFile>, Error> {
    if let Some(file) = &state.file {
        return Ok(file.clone());
    }
    let path = path(state.rec.ino, staging.epoch);
    let file = match disk.open(&path, OpenMode::Write) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Whatever was synced before, this name was not there.
            state.name_synced = false;
            disk.open(&path, OpenMode::Create)
        }
        other => other,
    };
    let file = file.map_err(|e| io_error("create", state.rec.ino, e))?;
    if !state.handles.is_empty() {
        state.file = Some(file.clone());
    }
    Ok(file)
}

/// True when somebody may change staging, or look at it, without a word to us: a program that mapped it into memory while
/// the kernel served a handle by itself, and closed the handle since. Where the filesystem cannot tell there are none,
/// since no handle is served so there.
pub(crate) fn is_shared(file: Option<&dyn DiskFile>) -> bool {
    file.is_some_and(|file| file.is_shared().unwrap_or(false))
}

/// Reads `buf.len()` bytes at `offset`; what lies beyond the end is zero.
pub(crate) fn read(file: &dyn DiskFile, ino: Ino, mut buf: &mut [u8], mut offset: u64) -> Result<(), Error> {
    while !buf.is_empty() {
        let n = file.read_at(buf, offset).map_err(|e| io_error("read", ino, e))?;
        if n == 0 {
            buf.fill(0);
            return Ok(());
        }
        let rest = buf;
        buf = rest.get_mut(n..).unwrap_or_default();
        offset += n as u64;
    }
    Ok(())
}

/// Runs of data in a staging file within `range`, ascending.
pub(crate) fn data_runs(
    file: &dyn DiskFile,
    ino: Ino,
    range: ByteRange,
    runs_max: usize,
) -> Result<Vec<ByteRange>, Error> {
    let mut runs = Vec::new();
    let mut at = range.start;
    while at < range.end && runs.len() < runs_max {
        let Some(start) = file.seek(at, Seek::Data).map_err(|e| io_error("seek in", ino, e))? else { break };
        if start >= range.end {
            break;
        }
        let end = file.seek(start, Seek::Hole).map_err(|e| io_error("seek in", ino, e))?.unwrap_or(range.end);
        let run = ByteRange { start: start.max(range.start), end: end.min(range.end) };
        at = run.end.max(at + 1);
        runs.push(run);
    }
    Ok(runs)
}
