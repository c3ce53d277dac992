//! Models that segments name: immutable files in `models/`, called by the BLAKE3-128 of their bytes, and a copy of each.
//!
//! ```text
//! models/0123456789abcdef0123456789abcdef         the bytes
//! models/0123456789abcdef0123456789abcdef.copy    the same bytes
//! ```
//! Every segment that names a model is lost with it, so the copy is there from the start, and whichever of the two is
//! damaged is written anew from the other when it is read. A model is on disk before any segment names it, and is never
//! removed: segments that name it may be in packs that nobody has looked at yet.

use super::draft::write_whole;
use super::{Error, Store};
use crate::base::{ModelId, plain_hash};
use crate::format::INCOMPAT_MODELS;
use crate::host::{Disk, OpenMode};

pub(super) const MODELS_DIR: &str = "models";
/// Longest model, bytes.
const MODEL_BYTES_MAX: u64 = 8 << 20;
/// Suffixes of the two files.
const COPIES: [&str; 2] = ["", ".copy"];

fn path(id: ModelId, copy: &str) -> String {
    format!("{MODELS_DIR}/{id}{copy}")
}

fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<(), Error> {
    write_whole(disk, MODELS_DIR, path, path, bytes)
}

/// The bytes of one of the two files; `None` when it is missing, too long, or not what its name says.
fn read(disk: &dyn Disk, id: ModelId, copy: &str) -> Result<Option<Vec<u8>>, Error> {
    let path = path(id, copy);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("open {path}"))(e)),
    };
    let len = file.len().map_err(Error::io(format!("stat {path}")))?;
    if len > MODEL_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; len as usize];
    match file.read_at(&mut bytes, 0) {
        Ok(got) => bytes.truncate(got),
        // A sector that cannot be read is what the copy is for.
        Err(e) => {
            log::warn!("{path} cannot be read: {e}");
            return Ok(None);
        }
    }
    Ok((ModelId(plain_hash(&bytes)) == id).then_some(bytes))
}

impl Store {
    /// Names of all models, ascending.
    pub fn models(&self) -> Result<Vec<ModelId>, Error> {
        let names = self.disk.list(MODELS_DIR).map_err(Error::io("list models"))?;
        let mut ids: Vec<ModelId> =
            names.iter().filter_map(|name| ModelId::parse(name.strip_suffix(COPIES[1]).unwrap_or(name))).collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The bytes of a model. A damaged or missing file of the two is written anew.
    ///
    /// # Errors
    /// `Unusable` when neither is good; the sentence says what to do.
    pub fn model(&self, id: ModelId) -> Result<Vec<u8>, Error> {
        let [first, second] = [read(&*self.disk, id, COPIES[0])?, read(&*self.disk, id, COPIES[1])?];
        let (bytes, bad) = match (first, second) {
            (Some(bytes), Some(_)) => return Ok(bytes),
            (Some(bytes), None) => (bytes, COPIES[1]),
            (None, Some(bytes)) => (bytes, COPIES[0]),
            (None, None) => {
                return Err(Error::Unusable(format!(
                    "{} is damaged or missing, and its copy too: segments that name it cannot be read until a good copy of \
                     it lies there",
                    path(id, COPIES[0])
                )));
            }
        };
        if !self.is_read_only() {
            log::warn!("{} was damaged or missing; it is written anew", path(id, bad));
            if let Err(e) = write(&*self.disk, &path(id, bad), &bytes) {
                log::warn!("{e}; the next mount tries again");
            }
        }
        Ok(bytes)
    }

    /// Takes a model in.
    ///
    /// # Durability
    /// It is on disk twice at return, and the superblock says that older builds must not open the store.
    pub fn add_model(&self, bytes: &[u8]) -> Result<ModelId, Error> {
        self.writable()?;
        if bytes.len() as u64 > MODEL_BYTES_MAX {
            return Err(Error::TooLarge { what: "model", bytes: bytes.len() as u64 });
        }
        self.set_incompat(INCOMPAT_MODELS)?;
        self.disk.create_dir(MODELS_DIR).map_err(Error::write("create models"))?;
        self.disk.sync_dir("").map_err(Error::io("create models"))?;
        let id = ModelId(plain_hash(bytes));
        for copy in COPIES {
            if read(&*self.disk, id, copy)?.is_none() {
                write(&*self.disk, &path(id, copy), bytes)?;
            }
        }
        Ok(id)
    }
}
