//! Files that are there whole or not at all: written under another name, synced, and renamed.

use super::Error;
use crate::host::{Disk, OpenMode};

/// Writes a file of the store. `dir` is the directory it is in, "" for the store itself; `what` names it in errors.
///
/// # Durability
/// The bytes and the name are on disk at return; before, the old file is there, or none.
pub fn write_whole(disk: &dyn Disk, dir: &str, path: &str, what: &str, bytes: &[u8]) -> Result<(), Error> {
    let fail = |step: &str| Error::io(format!("{step} {what}"));
    let no_room = |step: &str| Error::write(format!("{step} {what}"));
    let draft = format!("{path}.new");
    let file = disk.open(&draft, OpenMode::Create).map_err(no_room("create"))?;
    file.set_len(0).map_err(no_room("create"))?;
    file.write_at(bytes, 0).map_err(no_room("write"))?;
    file.sync_data().map_err(fail("sync"))?;
    disk.rename(&draft, path).map_err(fail("name"))?;
    disk.sync_dir(dir).map_err(fail("name"))
}
