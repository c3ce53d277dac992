//! Files in the store's directories that belong to nothing.

use std::sync::Arc;

use super::names::Nodes;
use super::{Check, Findings, Fix, Kind};
use crate::base::{Ino, ModelId};
use crate::host::{Disk, OpenMode};
use crate::store::{Error, Store};
use crate::volume::is_hot_copy;

/// Names in the store's directory that are ours, whole or by how they begin.
const OURS: [&str; 15] = [
    "FORMAT",
    "FORMAT.copy",
    "LOCK",
    "cache",
    "packs",
    "staging",
    "index",
    "models",
    "languages",
    "control.sock",
    "daemon.log",
    "lost+found",
    "replica",
    "replica.commit",
    "tersefs.toml",
];
const OURS_BY_START: [&str; 7] =
    ["index.bad-", "reserve", "scrub.json", "ladder.json", "index.", "metadata-lost", "trained"];
/// How the names of files end that are renamed when they are whole.
const DRAFT: &str = ".new";

fn list(disk: &Arc<dyn Disk>, path: &str) -> Result<Vec<String>, Error> {
    let mut names = disk.list(path).map_err(|source| Error::Io { what: format!("list {path}"), source })?;
    names.sort();
    Ok(names)
}

/// Staging files by their names: inode, epoch, name. Foreign files are left out.
pub(super) fn staging(disk: &Arc<dyn Disk>) -> Result<Vec<(Ino, u64, String)>, Error> {
    let names = list(disk, "staging")?.into_iter();
    Ok(names
        .filter_map(|name| {
            let (ino, epoch) = name.split_once('.')?;
            Some((Ino(ino.parse().ok()?), epoch.parse().ok()?, name.clone()))
        })
        .collect())
}

impl Check<'_> {
    /// Staging, packs, models and the directory itself.
    pub(super) fn stray(&mut self, nodes: &Nodes, found: &mut Findings) -> Result<(), Error> {
        let known = staging(self.disk)?;
        for name in list(self.disk, "staging")? {
            let path = format!("staging/{name}");
            let Some((ino, epoch, _)) = known.iter().find(|(_, _, n)| *n == name) else {
                stray_file(found, path);
                continue;
            };
            let rec = self.store.inode(*ino)?;
            if rec.is_some_and(|r| r.staging.is_some_and(|s| s.epoch == *epoch)) {
                continue;
            }
            // While metadata is lost it may be all that is left of a file: `lost` decides.
            if self.may_be_lost(nodes, *ino, *epoch)? {
                continue;
            }
            let what = format!("inode {ino} does not use it any more");
            let fix = ("remove it".to_string(), Fix::RemoveFile(path.clone()));
            found.note(Kind::StaleStaging, path, what, Some(fix));
        }
        for sub in list(self.disk, "packs")? {
            for name in list(self.disk, &format!("packs/{sub}"))? {
                let parity_of = name.strip_suffix(".par").and_then(|n| Store::pack_of(&sub, &format!("{n}.tpk")));
                if parity_of.is_some_and(|id| {
                    self.disk.open(&format!("packs/{sub}/pack-{:016x}.tpk", id.0), OpenMode::Read).is_ok()
                }) {
                    continue;
                }
                if parity_of.is_some() {
                    let path = format!("packs/{sub}/{name}");
                    let fix = ("remove it".to_string(), Fix::RemoveFile(path.clone()));
                    found.note(Kind::StaleFile, path, "it is the parity of a pack that is gone".into(), Some(fix));
                    continue;
                }
                if Store::pack_of(&sub, &name).is_none() {
                    stray_file(found, format!("packs/{sub}/{name}"));
                }
            }
        }
        for name in list(self.disk, "models")? {
            if ModelId::parse(name.strip_suffix(".copy").unwrap_or(&name)).is_none() {
                stray_file(found, format!("models/{name}"));
            }
        }
        for name in list(self.disk, "languages")? {
            if ModelId::parse(&name).is_some() {
                continue;
            }
            // What is left of a copy that was cut off is a directory, which the next model that comes takes away.
            let what = match name.ends_with(DRAFT) {
                true => {
                    "the copy of a language model that was cut off left it; the next `tersefs model add` removes it"
                }
                false => "it is not a file of this store; it is left alone",
            };
            found.note(Kind::ForeignFile, format!("languages/{name}"), what.into(), None);
        }
        // Copies are held against what they are to be whenever they are read; here they are of no interest.
        for name in list(self.disk, "cache")?.into_iter().filter(|name| !is_hot_copy(name)) {
            stray_file(found, format!("cache/{name}"));
        }
        for name in list(self.disk, "")? {
            let ours = OURS.contains(&name.as_str()) || OURS_BY_START.iter().any(|start| name.starts_with(start));
            if !ours || name.ends_with(DRAFT) {
                stray_file(found, name);
            }
        }
        Ok(())
    }
}

/// A file that is no part of the store: left by a step that was cut off, or somebody else's.
fn stray_file(found: &mut Findings, path: String) {
    if path.ends_with(DRAFT) {
        let what = "a step that was cut off left it".to_string();
        let fix = ("remove it".to_string(), Fix::RemoveFile(path.clone()));
        found.note(Kind::StaleFile, path, what, Some(fix));
    } else {
        found.note(Kind::ForeignFile, path, "it is not a file of this store; it is left alone".into(), None);
    }
}
