//! Paths of files, for rules that go by them.
//!
//! An inode knows its directory and not its name there. So names are looked for in the directory and remembered, each
//! held against the index before it is used. Directories are gone through where the last search ended: files that are
//! planned in the order in which they were made cost one pass together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Volume;
use super::types::Error;
use crate::base::Ino;

/// Names that are remembered; beyond it all are forgotten.
const NAMES_MAX: usize = 64 << 10;
/// Names looked at under one read of the index.
const NAMES_PER_PAGE: usize = 1024;
/// Directories climbed from a file.
const DEPTH_MAX: usize = 4096;

/// Names of one directory.
#[derive(Debug, Default)]
struct Listed {
    names: HashMap<Ino, Vec<u8>>,
    /// Cookie of the last entry that was looked at.
    upto: u64,
}

#[derive(Debug, Default)]
pub(super) struct Paths {
    directories: HashMap<Ino, Listed>,
    names: usize,
}

pub(super) type SharedPaths = Mutex<Paths>;

impl Volume {
    /// A path of a file that was made in, or last moved to, `parent`, without its first slash; bytes that are not UTF-8 are
    /// replaced. `None` where it has no name there. Locks no inode.
    pub(super) fn path_in(&self, ino: Ino, parent: Ino) -> Result<Option<String>, Error> {
        let mut parts = Vec::new();
        let (mut ino, mut parent) = (ino, parent);
        while parts.len() < DEPTH_MAX {
            let Some(name) = self.name_in(parent, ino)? else { return Ok(None) };
            parts.push(String::from_utf8_lossy(&name).into_owned());
            if parent == Ino::ROOT {
                parts.reverse();
                return Ok(Some(parts.join("/")));
            }
            let Some(above) = self.store.inode(parent).map_err(Error::Store)? else { return Ok(None) };
            (ino, parent) = (parent, above.parent);
        }
        Ok(None)
    }

    /// A name that an inode has in a directory.
    fn name_in(&self, directory: Ino, ino: Ino) -> Result<Option<Vec<u8>>, Error> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = paths.directories.get(&directory).and_then(|listed| listed.names.get(&ino)) {
            let entry = self.store.dentry(directory, name).map_err(Error::Store)?;
            if entry.is_some_and(|entry| entry.ino == ino) {
                return Ok(Some(name.clone()));
            }
        }
        let from = paths.directories.get(&directory).map_or(0, |listed| listed.upto);
        // From where the last search ended, and then what lies before.
        for (mut after, end) in [(from, u64::MAX), (0, from)] {
            while after < end {
                let page = self.store.dentries(directory, after, NAMES_PER_PAGE).map_err(Error::Store)?;
                let Some((_, last)) = page.last() else { break };
                after = last.cookie;
                if paths.names + page.len() > NAMES_MAX {
                    paths.directories.values_mut().for_each(|listed| listed.names.clear());
                    paths.directories.retain(|known, _| *known == directory);
                    paths.names = 0;
                }
                let listed = paths.directories.entry(directory).or_default();
                let before = listed.names.len();
                let mut found = None;
                for (name, entry) in page {
                    if entry.ino == ino {
                        found = Some(name.clone());
                    }
                    listed.names.insert(entry.ino, name);
                }
                listed.upto = after;
                let more = listed.names.len() - before;
                paths.names += more;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }
}
