//! Language models of a volume, and those of images and bytes: where their files come from, and where they are loaded from.
//!
//! The last two are a file of tensors each, by whose name in a store it is known what they are. A checkpoint of PyTorch is kept as
//! a file of safetensors with the same tensors.

use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Volume;
use super::types::Error;
use crate::base::{MethodId, ModelId};
use crate::codec::{self, Facts, LanguageModel, Loader, ModelKind, Open, Shelf};
use crate::host::{self, Disk, DiskFile, FileReader, RealDisk, SplicedFile};
use crate::store::{self, Error as StoreError, LanguageEntry, Told};

/// A read of a model's file fetches so many bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// The name that a file of GGUF has in a store, whatever it was called.
const GGUF: &str = "model.gguf";
/// Files of a checkpoint beside its tensors, of which the last is there only where these are in parts.
const CHECKPOINT: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors.index.json"];

/// The name in a store of the tensors of a model of images or bytes.
const TENSORS: [(ModelKind, &str); 2] =
    [(ModelKind::Image, "igpt.safetensors"), (ModelKind::Bytes, "bgpt.safetensors")];
const CONFIG: &str = "config.json";
/// Tensors of such a model in a directory: the first of these, or else the only file that ends as tensors do.
const BROUGHT: [&str; 4] = ["igpt.safetensors", "bgpt.safetensors", "model.safetensors", "pytorch_model.bin"];
/// How files of tensors end.
pub const TENSORS_ENDS: [&str; 3] = [".safetensors", ".pth", ".bin"];
/// How files begin: GGUF, and the archives that PyTorch saves.
const GGUF_MAGIC: &[u8] = b"GGUF";
const ARCHIVE_MAGIC: &[u8] = b"PK\x03\x04";

/// Files of an adapter, as PEFT writes them.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// A language model that the volume keeps.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct LanguageReport {
    pub id: String,
    /// What it is a model of: `text`, `image` or `bytes`.
    pub kind: String,
    /// The one of a kind that came last has the highest, and codes.
    pub serial: u64,
    /// All of its files, bytes.
    pub bytes: u64,
    pub files: Vec<String>,
    pub codes: bool,
}

/// Files of a model by their names.
type Files = Vec<(String, Arc<dyn DiskFile>)>;

fn reading(file: Arc<dyn DiskFile>) -> BufReader<FileReader> {
    BufReader::with_capacity(BUFFER_BYTES, FileReader::new(file))
}

/// What model hubs keep is symbolic links.
fn open_brought(path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    host::open_file(&host::canonical(path)?)
}

/// What a model is of, by the names that its files have in a store.
fn kind_of<'a>(mut names: impl Iterator<Item = &'a str>) -> ModelKind {
    let of = |name| TENSORS.iter().find(|(_, tensors)| *tensors == name).map(|(kind, _)| *kind);
    names.find_map(of).unwrap_or(ModelKind::Text)
}

/// The tensors of a model of images or bytes, as a store keeps them.
fn tensors(file: Arc<dyn DiskFile>) -> Result<(String, Arc<dyn DiskFile>), codec::LoadError> {
    let mut magic = [0; 4];
    let read = file.read_at(&mut magic, 0).map_err(codec::LoadError::Read)?;
    let file: Arc<dyn DiskFile> = if magic.get(..read) == Some(ARCHIVE_MAGIC) {
        let codec::Spliced { head, parts } = codec::as_safetensors(reading(file.clone()))?;
        Arc::new(SplicedFile::new(head, &parts, file))
    } else {
        file
    };
    let kind = codec::kind_of_tensors(reading(file.clone()))?;
    let name = TENSORS.iter().find(|(of, _)| *of == kind).map_or(GGUF, |(_, name)| *name);
    Ok((name.to_string(), file))
}

/// True for a file that begins as one of safetensors: with the length of a header, and the header.
fn begins_with_tensors(file: &dyn DiskFile) -> io::Result<bool> {
    let mut begin = [0; 9];
    let read = file.read_at(&mut begin, 0)?;
    let [len @ .., brace] = &begin;
    let len = len.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    Ok(read == begin.len() && *brace == b'{' && len <= file.len()?)
}

/// The files of a model that somebody brings: a file of GGUF, the directory of a checkpoint, or the tensors of a model of images or
/// bytes, or a directory with them.
fn files_of(path: &Path) -> Result<Files, codec::LoadError> {
    let unread = codec::LoadError::Read;
    if !host::is_directory(path) {
        let file = open_brought(path).map_err(unread)?;
        let mut magic = [0; 4];
        let read = file.read_at(&mut magic, 0).map_err(unread)?;
        let is_gguf = magic.get(..read) == Some(GGUF_MAGIC);
        if !is_gguf && (magic == ARCHIVE_MAGIC || begins_with_tensors(&*file).map_err(unread)?) {
            return Ok(vec![tensors(file)?]);
        }
        return Ok(vec![(GGUF.to_string(), file)]);
    }
    let mut names: Vec<String> = RealDisk::open(path, false).map_err(unread)?.list("").map_err(unread)?;
    // Text is cut by what says how.
    if !names.iter().any(|name| CHECKPOINT[1..].contains(&name.as_str())) {
        let known =
            BROUGHT.iter().find(|brought| names.iter().any(|name| name == *brought)).map(|name| name.to_string());
        let ends =
            |name: &&String| TENSORS_ENDS.iter().any(|end| name.ends_with(end)) && !ADAPTER.contains(&name.as_str());
        let mut ending = names.iter().filter(ends);
        let only = ending.next().filter(|_| ending.next().is_none()).cloned();
        if let Some(name) = known.or(only) {
            let mut files = vec![tensors(open_brought(&path.join(name)).map_err(unread)?)?];
            if names.iter().any(|name| name == CONFIG) {
                files.push((CONFIG.to_string(), open_brought(&path.join(CONFIG)).map_err(unread)?));
            }
            return Ok(files);
        }
    }
    names.retain(|name| CHECKPOINT.contains(&name.as_str()) || name.ends_with(".safetensors"));
    names.retain(|name| !ADAPTER.contains(&name.as_str()));
    names.sort();
    let open = |name: String| open_brought(&path.join(&name)).map(|file| (name, file)).map_err(unread);
    names.into_iter().map(open).collect()
}

/// Loads a model from files by their names.
fn load(
    has: impl Fn(&str) -> bool,
    open: &dyn Fn(&str) -> io::Result<Arc<dyn DiskFile>>,
    adapter: Option<Open<'_, BufReader<FileReader>>>,
) -> Result<LanguageModel, codec::LoadError> {
    if let Some((_, name)) = TENSORS.iter().find(|(_, name)| has(name)) {
        if adapter.is_some() {
            let what = "adapters are to language models, and it is a model of images or bytes";
            return Err(codec::LoadError::Unsupported(what.into()));
        }
        let opened = |name: &str| open(name).map(reading).map_err(codec::LoadError::Read);
        codec::load_tensors(opened(name)?, has(CONFIG).then(|| opened(CONFIG)).transpose()?)
    } else if has(GGUF) {
        codec::load_language_model(reading(open(GGUF).map_err(codec::LoadError::Read)?), adapter)
    } else {
        codec::load_checkpoint(&|name| Ok(reading(open(name)?)), adapter)
    }
}

/// Loads a model that somebody brings: a file of GGUF, the directory of a checkpoint, or the tensors of a model of images or bytes;
/// with an adapter from a directory.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
///
/// # Blocking
/// Reads all of it: a second or two for each GiB.
pub fn load_brought(path: &Path, adapter: Option<&Path>) -> Result<LanguageModel, String> {
    let named = |e: &dyn std::fmt::Display| match adapter {
        Some(adapter) => format!("{} with {}: {e}", path.display(), adapter.display()),
        None => format!("{}: {e}", path.display()),
    };
    let files = files_of(path).map_err(|e| named(&e))?;
    let find = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, file)| file.clone());
    let open = |name: &str| find(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    let adapter = adapter.map(|directory| |name: &str| open_brought(&directory.join(name)).map(reading));
    let adapter = adapter.as_ref().map(|open| open as Open<'_, BufReader<FileReader>>);
    load(|name| find(name).is_some(), &open, adapter).map_err(|e| named(&e))
}

/// Reads a model of images or bytes that somebody brings, as `load_brought` takes it, to be trained further; of images one of colours of a
/// palette too.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
///
/// # Blocking
/// Reads all of it.
#[cfg(feature = "lora")]
pub fn learned_of(path: &Path) -> Result<codec::Learned, String> {
    let named = |e: codec::LoadError| format!("{}: {e}", path.display());
    let files = files_of(path).map_err(named)?;
    let find = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, file)| reading(file.clone()));
    let Some(tensors) = TENSORS.iter().find_map(|(_, name)| find(name)) else {
        return Err(format!("{}: it is no model of images or bytes", path.display()));
    };
    codec::Learned::read(tensors, find(CONFIG)).map_err(named)
}

/// Loads a model that a store keeps, when it is needed.
fn loader(disk: Arc<dyn Disk>, entry: &LanguageEntry) -> Loader {
    let (id, names): (ModelId, Vec<String>) = (entry.id, entry.files.iter().map(|f| f.name.clone()).collect());
    Box::new(move || {
        let has = |name: &str| names.iter().any(|n| n == name);
        let open = |name: &str| store::open_language_file(&*disk, id, name);
        let adapter = |name: &str| open(name).map(reading);
        let adapter: Option<Open<'_, BufReader<FileReader>>> = if has(ADAPTER[0]) { Some(&adapter) } else { None };
        let model = load(has, &open, adapter);
        // What its vocabulary and its rows were read by.
        host::give_memory_back();
        if let Ok(model) = &model {
            let Facts { bytes, path, .. } = model.facts();
            log::info!("model {id} is loaded: {} MiB, computes by {path}", bytes >> 20);
        }
        model
    })
}

/// Puts the models that a store keeps on a shelf, none of them loaded yet.
pub(super) fn fill(shelf: &Shelf, disk: &Arc<dyn Disk>) {
    match store::languages(&**disk) {
        Ok(entries) => entries.iter().for_each(|entry| shelf.add(entry.id, kind(entry), loader(disk.clone(), entry))),
        Err(e) => log::error!("{e}"),
    }
}

impl Volume {
    /// Takes a model in, as `load_brought` loads it; and an adapter to it, with which it is a model of its own. What the tier deep codes
    /// from then on, of data that such a model is for, is coded with it. Told of bytes copied.
    ///
    /// # Errors
    /// When it cannot be loaded, or the store cannot take it.
    ///
    /// # Durability
    /// It is on disk at return.
    ///
    /// # Blocking
    /// Reads it twice, and writes it.
    pub fn add_language(&self, path: &Path, adapter: Option<&Path>, told: Told<'_>) -> Result<LanguageReport, Error> {
        self.writable()?;
        let bad = |what: String| Error::Io { what: "bring a language model".into(), source: io::Error::other(what) };
        let Facts { id, kind, .. } = load_brought(path, adapter).map_err(bad)?.facts();
        let mut files = files_of(path).map_err(|e| bad(format!("{}: {e}", path.display())))?;
        for name in ADAPTER.iter().filter(|_| adapter.is_some()) {
            let path = adapter.unwrap_or(path).join(name);
            files.push((name.to_string(), open_brought(&path).map_err(|e| bad(format!("{}: {e}", path.display())))?));
        }
        let entry = self.store.add_language(id, &files, told).map_err(|e| self.store_failed(e))?;
        if self.library.languages.coding_id(kind) != Some(id) {
            codec::forget_rate(MethodId::Language);
        }
        self.library.languages.add(id, kind, loader(self.disk.clone(), &entry));
        Ok(report(&entry, true))
    }

    /// Removes a language model that no segment names.
    ///
    /// # Errors
    /// When one does, or it is not there. A volume that is coding must not be asked: what is on its way names models too.
    pub fn remove_language(&self, id: ModelId) -> Result<(), Error> {
        self.writable()?;
        self.store.remove_language(id).map_err(|e| self.store_failed(e))?;
        self.library.languages.remove(id);
        Ok(())
    }

    /// Language models of the volume, in the order in which they came.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn languages(&self) -> Result<Vec<LanguageReport>, Error> {
        language_reports(&*self.disk).map_err(Error::Store)
    }
}

/// Language models of the store in `disk`, mounted or not, in the order in which they came.
///
/// # Errors
/// When they cannot be listed.
pub fn language_reports(disk: &dyn Disk) -> Result<Vec<LanguageReport>, StoreError> {
    let entries = store::languages(disk)?;
    let last = |of: ModelKind| entries.iter().rfind(|e| kind(e) == of).map(|e| e.id);
    Ok(entries.iter().map(|e| report(e, Some(e.id) == last(kind(e)))).collect())
}

/// What a model of a store is of.
fn kind(entry: &LanguageEntry) -> ModelKind {
    kind_of(entry.files.iter().map(|file| file.name.as_str()))
}

fn report(entry: &LanguageEntry, codes: bool) -> LanguageReport {
    LanguageReport {
        id: entry.id.to_string(),
        kind: kind(entry).name().to_string(),
        serial: entry.serial,
        bytes: entry.bytes(),
        files: entry.files.iter().map(|f| f.name.clone()).collect(),
        codes,
    }
}
