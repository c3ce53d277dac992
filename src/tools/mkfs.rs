//! `mkfs`: an empty store.

use std::sync::Arc;

use crate::base::Uuid;
use crate::host::Disk;
use crate::store::{Error, Store};

/// What a directory may hold besides a store: what this program puts there before there is one.
const IGNORED: [&str; 4] = ["LOCK", "daemon.log", "lost+found", "packs"];

/// Makes a store in an empty directory.
///
/// # Errors
/// `Unusable` when the directory holds a store or anything else.
///
/// # Durability
/// The store is on disk at return.
pub fn mkfs(disk: &Arc<dyn Disk>, pack_bytes_max: u64) -> Result<Uuid, Error> {
    let names = disk.list("").map_err(|source| Error::Io { what: "list the directory of the store".into(), source })?;
    if let Some(other) = names.iter().find(|n| !IGNORED.contains(&n.as_str()) && !n.starts_with("FORMAT")) {
        return Err(Error::Unusable(format!("the directory is not empty: it holds {other}; give an empty one")));
    }
    Store::create(disk, pack_bytes_max)
}
