//! What was done to files and what was promised about it, held against what is found after the end of a daemon or a machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// A file or directory as it was meant to be from a moment on.
#[derive(Clone, Debug)]
pub struct Version {
    /// `None`: no such name.
    pub bytes: Option<Vec<u8>>,
    /// It takes the place of what was before as a whole.
    pub whole: bool,
    /// Places in time, however they are counted: before the first call of the change, and when it was promised to last.
    pub begun: usize,
    pub promised: Option<usize>,
}

#[derive(Default)]
pub struct Journal {
    pub files: BTreeMap<String, Vec<Version>>,
    /// Directories and when they were promised.
    pub dirs: BTreeMap<String, usize>,
    pub promises: usize,
}

impl Journal {
    pub fn now(&self, name: &str) -> Option<Vec<u8>> {
        self.files.get(name)?.last()?.bytes.clone()
    }

    pub fn begin(&mut self, name: &str, bytes: Option<Vec<u8>>, whole: bool, begun: usize) {
        let version = Version { bytes, whole, begun, promised: None };
        self.files.entry(name.to_string()).or_default().push(version);
    }

    pub fn promise(&mut self, name: &str, at: usize) {
        if let Some(version) = self.files.get_mut(name).and_then(|v| v.last_mut()) {
            version.promised = Some(at);
            self.promises += 1;
        }
    }

    pub fn live(&self) -> Vec<String> {
        self.files.keys().filter(|n| self.now(n).is_some()).cloned().collect()
    }

    /// What is wrong below a mountpoint after the end came at a place in time.
    pub fn compare(&self, root: &Path, at: usize) -> Result<(), String> {
        for name in self.files.keys() {
            let found = match fs::read(root.join(name)) {
                Ok(found) => Some(found),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(format!("{name}: {e}")),
            };
            self.judge(name, found.as_deref(), at).map_err(|e| format!("{name} {e}"))?;
        }
        match self.dirs.iter().find(|(name, promised)| **promised <= at && !root.join(name).is_dir()) {
            Some((name, _)) => Err(format!("directory {name} is not there")),
            None => Ok(()),
        }
    }

    /// What is wrong with a file that was found after the end came at a place in time.
    pub fn judge(&self, name: &str, found: Option<&[u8]>, at: usize) -> Result<(), String> {
        let Some(versions) = self.files.get(name) else { return Ok(()) };
        let floor = versions.iter().rposition(|v| v.promised.is_some_and(|p| p <= at));
        let begun = versions.iter().take_while(|v| v.begun <= at).count();
        // Before the first promise the name may not be there.
        let absent = Version { bytes: None, whole: true, begun: 0, promised: None };
        let mut allowed: Vec<&Version> =
            versions[floor.unwrap_or(0)..begun.max(floor.map_or(0, |f| f + 1))].iter().collect();
        if floor.is_none() {
            allowed.insert(0, &absent);
        }
        let Some(found) = found else {
            let gone = allowed.iter().any(|v| v.bytes.is_none());
            return if gone { Ok(()) } else { Err("is not there".into()) };
        };
        // A whole version mixes with none before it, one that was written in place with the one it was written over.
        let starts: Vec<usize> = (0..allowed.len()).filter(|n| *n == 0 || allowed[*n].whole).collect();
        let fits = |group: &[&Version]| -> bool {
            let texts: Vec<&[u8]> = group.iter().filter_map(|v| v.bytes.as_deref()).collect();
            let (Some(min), Some(max)) = (texts.iter().map(|t| t.len()).min(), texts.iter().map(|t| t.len()).max())
            else {
                return false;
            };
            // A new file is empty before it is written.
            let min = if group[0].bytes.is_none() { 0 } else { min };
            let fresh = group[0].bytes.is_none();
            found.len() >= min
                && found.len() <= max
                && found.iter().enumerate().all(|(n, byte)| {
                    fresh && *byte == 0 || texts.iter().any(|t| t.get(n).copied().unwrap_or(0) == *byte)
                })
        };
        let mut groups = starts.iter().enumerate().map(|(n, start)| {
            let end = starts.get(n + 1).copied().unwrap_or(allowed.len());
            &allowed[*start..end]
        });
        if groups.any(fits) {
            return Ok(());
        }
        let lens: Vec<_> = allowed.iter().map(|v| (v.bytes.as_ref().map(Vec::len), v.whole)).collect();
        Err(format!(
            "has {} bytes that are none of what it was (lengths {lens:?}, first of them promised: {})",
            found.len(),
            floor.is_some()
        ))
    }
}
