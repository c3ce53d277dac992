//! Language models that segments name: a directory for each in `languages/`, with the files as they were brought and a list
//! of them. They are large, and can be had again from where they came from, so there is one copy of each.
//!
//! ```text
//! languages/0123456789abcdef0123456789abcdef/     called by the model's name
//!     MANIFEST                                    what is there
//!     model.gguf                                  or config.json, tokenizer.json, *.safetensors
//!     adapter_model.safetensors.zst               a file that zstd makes a quarter smaller at least is kept so
//! languages/.../MANIFEST, one line each:
//!     tersefs language model 1                    2 where a file is kept by zstd, whose line begins with `zstd`
//!     serial 3                                    among models of a store, the one that came last has the highest
//!     file 92345678 <BLAKE3-256, 64 hexadecimal digits> model.gguf        bytes and hash of the file as it was brought
//!     end <CRC32C of what is above, 8 hexadecimal digits>
//! ```
//! A model is written under another name, synced, and renamed: it is there whole or not at all. It is on disk before any segment
//! names it, and is removed only when none does. A file that another model has too, as one that was adapted has the weights of
//! the one it was made of, is one file with two names, where the filesystem has such: none is ever written to again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::write_whole;
use super::{Error, Store};
use crate::base::{ModelId, crc32c};
use crate::format::INCOMPAT_LANGUAGES;
use crate::host::{Disk, DiskFile, OpenMode, SplicedFile};

pub(super) const LANGUAGES_DIR: &str = "languages";
const MANIFEST: &str = "MANIFEST";
/// How the name of a model ends that is not there as a whole.
const DRAFT: &str = ".new";
/// How that of one ends that is being replaced.
const ASIDE: &str = ".old";
const HEAD: &str = "tersefs language model 1";
const HEAD_PACKED: &str = "tersefs language model 2";
/// How the name of a file ends on disk that is kept by zstd.
const PACKED: &str = ".zst";
/// Longer files are kept as they are, bytes: they are opened in memory.
const PACKED_BYTES_MAX: u64 = 64 << 20;
const PACKED_LEVEL: i32 = 19;
/// Longest manifest, bytes, and most files of a model.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 4096;
/// Bytes copied or hashed in one step.
const STEP_BYTES: usize = 1 << 20;
/// Segments looked up in one step.
const SEGMENTS_PER_STEP: usize = 1024;

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageFile {
    pub name: String,
    /// Bytes.
    pub len: u64,
    /// BLAKE3-256.
    pub hash: [u8; 32],
    /// It is kept by zstd. What is said of it, and what it gives when it is opened, is the file as it was brought.
    pub is_packed: bool,
}

/// What a store keeps of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageEntry {
    pub id: ModelId,
    /// The one that came last has the highest.
    pub serial: u64,
    pub files: Vec<LanguageFile>,
}

/// Told: bytes done, of how many.
pub type Told<'a> = &'a mut dyn FnMut(u64, u64);

impl LanguageEntry {
    /// All files, bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, f| sum.saturating_add(f.len))
    }

    fn to_text(&self) -> String {
        let head = if self.files.iter().any(|f| f.is_packed) { HEAD_PACKED } else { HEAD };
        let mut out = format!("{head}\nserial {}\n", self.serial);
        for f in &self.files {
            let hash = blake3::Hash::from_bytes(f.hash).to_hex();
            let kept = if f.is_packed { "zstd" } else { "file" };
            out += &format!("{kept} {} {hash} {}\n", f.len, f.name);
        }
        out += &format!("end {:08x}\n", crc32c(out.as_bytes()));
        out
    }

    fn from_text(id: ModelId, text: &str) -> Option<LanguageEntry> {
        let (body, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let crc = u32::from_str_radix(end.strip_prefix("end ")?, 16).ok()?;
        let covered = text.get(..body.len() + 1)?;
        let mut lines = body.lines();
        let may_pack = lines.next().and_then(|head| [HEAD, HEAD_PACKED].iter().position(|known| *known == head))? == 1;
        if crc32c(covered.as_bytes()) != crc {
            return None;
        }
        let serial = lines.next()?.strip_prefix("serial ")?.parse().ok()?;
        let mut files = Vec::new();
        for line in lines {
            let mut parts = line.splitn(4, ' ');
            let is_packed = match parts.next()? {
                "file" => false,
                "zstd" if may_pack => true,
                _ => return None,
            };
            let (len, hash, name) = (parts.next()?, parts.next()?, parts.next()?);
            let hash = *blake3::Hash::from_hex(hash).ok()?.as_bytes();
            files.push(LanguageFile { name: name.to_string(), len: len.parse().ok()?, hash, is_packed });
        }
        Some(LanguageEntry { id, serial, files })
    }
}

fn home(id: ModelId) -> String {
    format!("{LANGUAGES_DIR}/{id}")
}

/// True for names that a file of a model may have: they come from outside.
fn is_plain(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.chars().all(good) && name != MANIFEST
}

fn unusable(id: ModelId, what: &str) -> Error {
    Error::Unusable(format!("languages/{id}: {what}; bring the model again with `tersefs model add`"))
}

/// Reads the manifest of a model.
fn entry(disk: &dyn Disk, id: ModelId) -> Result<LanguageEntry, Error> {
    let path = format!("{}/{MANIFEST}", home(id));
    let file = disk.open(&path, OpenMode::Read).map_err(Error::io(format!("open {path}")))?;
    let len = file.len().map_err(Error::io(format!("stat {path}")))?;
    let mut bytes = vec![0; len.min(MANIFEST_BYTES_MAX + 1) as usize];
    let got = file.read_at(&mut bytes, 0).map_err(Error::io(format!("read {path}")))?;
    bytes.truncate(got);
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MANIFEST_BYTES_MAX);
    let entry = text.and_then(|text| LanguageEntry::from_text(id, &text));
    entry.filter(|e| e.files.iter().all(|f| is_plain(&f.name))).ok_or_else(|| unusable(id, "its MANIFEST is damaged"))
}

/// Opens a file of a model that a store keeps in `disk`. Its bytes are not checked.
///
/// # Errors
/// When it is not there.
pub fn open_language_file(disk: &dyn Disk, id: ModelId, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
    if !is_plain(name) {
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, format!("no file of a model is called {name}")));
    }
    let path = format!("{}/{name}", home(id));
    match disk.open(&format!("{path}{PACKED}"), OpenMode::Read) {
        Ok(packed) => unpacked(packed),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => disk.open(&path, OpenMode::Read),
        Err(e) => Err(e),
    }
}

/// A file that is kept by zstd, as it was brought.
fn unpacked(file: Arc<dyn DiskFile>) -> std::io::Result<Arc<dyn DiskFile>> {
    let bytes = whole(&*file)?;
    let plain = zstd::bulk::decompress(&bytes, PACKED_BYTES_MAX as usize)?;
    Ok(Arc::new(SplicedFile::new(plain, &[], file)))
}

/// All bytes of a file that is to be held in memory.
fn whole(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > PACKED_BYTES_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "longer than what is kept by zstd"));
    }
    let mut bytes = vec![0; len as usize];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, done as u64)? {
            0 => break,
            got => done += got,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// A file and what zstd makes of it, where that is worth it.
fn packed(file: &dyn DiskFile) -> std::io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    if file.len()? > PACKED_BYTES_MAX {
        return Ok(None);
    }
    let plain = whole(file)?;
    let packed = zstd::bulk::compress(&plain, PACKED_LEVEL)?;
    Ok((packed.len() * 4 <= plain.len() * 3).then_some((plain, packed)))
}

/// Goes over the bytes of a file in steps, in order: their number and hash.
fn each_step(
    file: &dyn DiskFile,
    mut step: impl FnMut(u64, &[u8]) -> Result<(), Error>,
) -> Result<(u64, [u8; 32]), Error> {
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; STEP_BYTES];
    let mut at = 0;
    loop {
        let got = file.read_at(&mut buf, at).map_err(Error::io("read a model"))?;
        let Some(bytes) = buf.get(..got).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        step(at, bytes)?;
        at += got as u64;
    }
    Ok((at, *hasher.finalize().as_bytes()))
}

/// Copies a file to a new one, and makes its bytes durable: their number and hash. Told of the bytes of each step.
fn copy(source: &dyn DiskFile, to: &dyn Disk, path: &str, mut told: impl FnMut(u64)) -> Result<(u64, [u8; 32]), Error> {
    let file = to.open(path, OpenMode::CreateNew).map_err(Error::write(format!("create {path}")))?;
    let copied = each_step(source, |at, bytes| {
        file.write_at(bytes, at).map_err(Error::write(format!("write {path}")))?;
        told(bytes.len() as u64);
        Ok(())
    })?;
    file.sync_data().map_err(Error::io(format!("sync {path}")))?;
    Ok(copied)
}

/// Copies the files of a model of the store in `disk` to another directory. Told of bytes copied.
///
/// # Errors
/// When there is no such model, it is damaged, or a file of that name is there.
///
/// # Durability
/// The bytes are on disk at return.
pub fn export_language(disk: &dyn Disk, id: ModelId, to: &dyn Disk, told: Told<'_>) -> Result<(), Error> {
    let entry = entry(disk, id)?;
    let (total, mut done) = (entry.bytes(), 0);
    for f in &entry.files {
        let source = open_language_file(disk, id, &f.name).map_err(Error::io(format!("open {}", f.name)))?;
        let copied = copy(&*source, to, &f.name, |bytes| {
            done += bytes;
            told(done, total);
        })?;
        if copied != (f.len, f.hash) {
            return Err(Error::Unusable(format!("{} is damaged in the store: its copy is not what came", f.name)));
        }
    }
    Ok(())
}

/// Language models of the store in `disk`, in the order in which they came. One whose manifest is damaged is told and left out.
///
/// # Errors
/// When they cannot be listed.
pub fn languages(disk: &dyn Disk) -> Result<Vec<LanguageEntry>, Error> {
    let mut out = Vec::new();
    for id in language_names(disk)? {
        match entry(disk, id) {
            Ok(entry) => out.push(entry),
            Err(e) => log::error!("{e}"),
        }
    }
    out.sort_by_key(|e| (e.serial, e.id));
    Ok(out)
}

/// Names of all models whose directories are there, whether or not they can be used.
///
/// # Errors
/// When they cannot be listed.
pub fn language_names(disk: &dyn Disk) -> Result<Vec<ModelId>, Error> {
    let names = disk.list(LANGUAGES_DIR).map_err(Error::io("list languages"))?;
    let mut ids = Vec::new();
    for id in names.iter().filter_map(|name| ModelId::parse(name)) {
        // One that another store sends has drafts alone, as long as not all of it came.
        let files = disk.list(&home(id)).map_err(Error::io(format!("list {}", home(id))))?;
        if files.iter().any(|name| !name.ends_with(DRAFT)) {
            ids.push(id);
        }
    }
    ids.sort();
    Ok(ids)
}

/// Holds the files of a model against its manifest: a sentence for each that is damaged. Told of bytes read.
///
/// # Errors
/// When its manifest is damaged or missing.
///
/// # Blocking
/// Reads all of it.
pub fn verify_language(disk: &dyn Disk, id: ModelId, told: Told<'_>) -> Result<Vec<String>, Error> {
    let entry = entry(disk, id)?;
    let (total, mut done) = (entry.bytes(), 0);
    let mut wrong = Vec::new();
    for f in &entry.files {
        let file = match open_language_file(disk, id, &f.name) {
            Ok(file) => file,
            Err(e) => {
                wrong.push(format!("languages/{id}/{}: {e}", f.name));
                continue;
            }
        };
        let read = each_step(&*file, |_, bytes| {
            done += bytes.len() as u64;
            told(done, total);
            Ok(())
        });
        match read {
            Ok((len, hash)) if (len, hash) == (f.len, f.hash) => {}
            Ok(_) => wrong.push(format!("languages/{id}/{}: its bytes are not those that came", f.name)),
            Err(e) => wrong.push(format!("languages/{id}/{}: {e}", f.name)),
        }
    }
    Ok(wrong)
}

impl Store {
    /// Takes a model in, from files as they were brought; one that is there and whole becomes the one that came last. Told of
    /// bytes copied.
    ///
    /// # Errors
    /// When a file cannot be read, or the store has no room. Then nothing has changed.
    ///
    /// # Durability
    /// It is on disk at return, and the superblock says that older builds must not open the store.
    ///
    /// # Blocking
    /// Copies all of it.
    pub fn add_language(
        &self,
        id: ModelId,
        files: &[(String, Arc<dyn DiskFile>)],
        told: Told<'_>,
    ) -> Result<LanguageEntry, Error> {
        self.writable()?;
        if files.is_empty() || files.len() > FILES_MAX || files.iter().any(|(name, _)| !is_plain(name)) {
            return Err(Error::Unusable(format!("a model has 1 to {FILES_MAX} files, with plain names")));
        }
        self.set_incompat(INCOMPAT_LANGUAGES)?;
        let disk = &*self.disk;
        let _one = self.languages.lock().unwrap_or_else(|e| e.into_inner());
        if let Ok(wrong) = verify_language(disk, id, &mut |_, _| ())
            && wrong.is_empty()
        {
            let known = LanguageEntry { serial: self.next_serial()?, ..entry(disk, id)? };
            let path = format!("{}/{MANIFEST}", home(id));
            write_whole(disk, &home(id), &path, "a model", known.to_text().as_bytes())?;
            // Its name may never have been made durable.
            disk.sync_dir(LANGUAGES_DIR).map_err(Error::io("name a model"))?;
            return Ok(known);
        }
        disk.create_dir(LANGUAGES_DIR).map_err(Error::write("create languages"))?;
        disk.sync_dir("").map_err(Error::io("create languages"))?;
        // What copies that were cut off have left.
        for name in disk.list(LANGUAGES_DIR).map_err(Error::io("list languages"))? {
            if name.ends_with(DRAFT) {
                disk.remove_dir_all(&format!("{LANGUAGES_DIR}/{name}")).map_err(Error::io("remove a draft"))?;
            }
        }
        let draft = format!("{LANGUAGES_DIR}/{id}{DRAFT}");
        let copied = self.copy_language(&draft, id, files, told).inspect_err(|_| {
            let _ = disk.remove_dir_all(&draft);
        })?;
        // What was there is damaged, and may yet be better than nothing: it goes last.
        let aside = format!("{LANGUAGES_DIR}/{id}{ASIDE}");
        disk.remove_dir_all(&aside).map_err(Error::io("replace a model"))?;
        match disk.rename(&home(id), &aside) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(Error::io("replace a model"))?,
        }
        disk.rename(&draft, &home(id)).map_err(Error::io("name a model"))?;
        disk.sync_dir(LANGUAGES_DIR).map_err(Error::io("name a model"))?;
        disk.remove_dir_all(&aside).map_err(Error::io("replace a model"))?;
        Ok(copied)
    }

    /// Ends what replacing a model has left when it was cut off.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settle_languages(&self) -> Result<(), Error> {
        let disk = &*self.disk;
        let names = disk.list(LANGUAGES_DIR).map_err(Error::io("list languages"))?;
        for aside in names.iter().filter(|name| name.ends_with(ASIDE)) {
            let name = aside.trim_end_matches(ASIDE);
            let (from, to) = (format!("{LANGUAGES_DIR}/{aside}"), format!("{LANGUAGES_DIR}/{name}"));
            if names.iter().any(|n| n == name) {
                disk.remove_dir_all(&from).map_err(Error::io("settle a model"))?;
            } else {
                disk.rename(&from, &to).map_err(Error::io("settle a model"))?;
            }
            disk.sync_dir(LANGUAGES_DIR).map_err(Error::io("settle a model"))?;
        }
        Ok(())
    }

    fn next_serial(&self) -> Result<u64, Error> {
        Ok(languages(&*self.disk)?.last().map_or(1, |last| last.serial.saturating_add(1)))
    }

    fn copy_language(
        &self,
        draft: &str,
        id: ModelId,
        files: &[(String, Arc<dyn DiskFile>)],
        told: Told<'_>,
    ) -> Result<LanguageEntry, Error> {
        let disk = &*self.disk;
        let serial = self.next_serial()?;
        disk.remove_dir_all(draft).map_err(Error::io("begin a model"))?;
        disk.create_dir(draft).map_err(Error::write("begin a model"))?;
        let mut total = 0;
        for (_, file) in files {
            total += file.len().map_err(Error::io("stat a model"))?;
        }
        let mut entry = LanguageEntry { id, serial, files: Vec::new() };
        let mut done = 0;
        for (name, source) in files {
            let path = format!("{draft}/{name}");
            let file = match packed(&**source).map_err(Error::io("read a model"))? {
                Some((plain, packed)) => {
                    let packed = SplicedFile::new(packed, &[], source.clone());
                    copy(&packed, disk, &format!("{path}{PACKED}"), |_| ())?;
                    done += plain.len() as u64;
                    told(done, total);
                    let hash = *blake3::hash(&plain).as_bytes();
                    LanguageFile { name: name.clone(), len: plain.len() as u64, hash, is_packed: true }
                }
                None => {
                    let (len, hash) = match self.link_twin(&**source, &path)? {
                        Some(twin) => {
                            done += twin.0;
                            told(done, total);
                            twin
                        }
                        None => copy(&**source, disk, &path, |bytes| {
                            done += bytes;
                            told(done, total);
                        })?,
                    };
                    LanguageFile { name: name.clone(), len, hash, is_packed: false }
                }
            };
            entry.files.push(file);
        }
        write_whole(disk, draft, &format!("{draft}/{MANIFEST}"), "a model", entry.to_text().as_bytes())?;
        Ok(entry)
    }

    /// Gives a file of another model that has the same bytes another name: their number and hash, or `None` where there is no
    /// such file, or it is damaged, or may have no other name.
    fn link_twin(&self, source: &dyn DiskFile, path: &str) -> Result<Option<(u64, [u8; 32])>, Error> {
        let disk = &*self.disk;
        let len = source.len().map_err(Error::io("stat a model"))?;
        let others = languages(disk)?;
        let of_other = |other: &LanguageEntry| {
            let alike = other.files.iter().filter(|f| !f.is_packed && f.len == len);
            alike.map(|f| (format!("{}/{}", home(other.id), f.name), f.hash)).collect::<Vec<_>>()
        };
        let alike: Vec<(String, [u8; 32])> = others.iter().flat_map(of_other).collect();
        if alike.is_empty() {
            return Ok(None);
        }
        let found = each_step(source, |_, _| Ok(()))?;
        for (twin, _) in alike.iter().filter(|(_, hash)| *hash == found.1) {
            if let Err(e) = disk.link(twin, path) {
                log::debug!("{twin} is copied, as it cannot have another name: {e}");
                continue;
            }
            let linked = disk.open(path, OpenMode::Read).map_err(Error::io("open a model"))?;
            match each_step(&*linked, |_, _| Ok(())) {
                Ok(bytes) if bytes == found => return Ok(Some(found)),
                _ => disk.remove(path).map_err(Error::io("remove a damaged file"))?,
            }
        }
        Ok(None)
    }

    /// Models that used segments name: all headers of the store are looked at. A function decides whether one that cannot be read
    /// ends it.
    ///
    /// # Errors
    /// When the index fails, or the function says so.
    ///
    /// # Blocking
    /// A read of the disk for each segment.
    pub fn models_named(&self, unread: &mut dyn FnMut(Error) -> Result<(), Error>) -> Result<BTreeSet<ModelId>, Error> {
        let mut named = BTreeSet::new();
        for pack in self.data_packs() {
            let mut from = 0;
            loop {
                let page = self.segments_of(pack.pack, from, SEGMENTS_PER_STEP)?;
                for (at, _) in page.iter().filter(|(_, used)| used.is_used()) {
                    match self.segment_header(*at) {
                        Ok(header) => drop(named.insert(ModelId(header.coding.model))),
                        Err(e) => unread(e)?,
                    }
                }
                let Some((last, _)) = page.last() else { break };
                from = last.offset + 1;
            }
        }
        named.remove(&ModelId::NONE);
        Ok(named)
    }

    /// Removes a model that no used segment names.
    ///
    /// # Errors
    /// `Unusable` when one does.
    pub fn remove_language(&self, id: ModelId) -> Result<(), Error> {
        self.writable()?;
        let _one = self.languages.lock().unwrap_or_else(|e| e.into_inner());
        // What the log on disk names may be more than what is named now, until it says so.
        self.sync_segments()?;
        self.sync_meta()?;
        if self.models_named(&mut Err)?.contains(&id) {
            return Err(Error::Unusable(format!(
                "segments were coded by the model {id}, and could not be read without it: code them anew in another tier \
                 (`tersefs recode`), or remove their files, first"
            )));
        }
        // Renamed first: a directory of which half is gone is not one of a model.
        let gone = format!("{LANGUAGES_DIR}/{id}{DRAFT}");
        self.disk.remove_dir_all(&gone).map_err(Error::io("remove a model"))?;
        self.disk.rename(&home(id), &gone).map_err(Error::io(format!("remove the model {id}")))?;
        self.disk.sync_dir(LANGUAGES_DIR).map_err(Error::io("remove a model"))?;
        self.disk.remove_dir_all(&gone).map_err(Error::io("remove a model"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SimDisk;

    #[test]
    fn manifests_are_read_back_or_refused() {
        let id = ModelId([7; 16]);
        let file = |name: &str| LanguageFile { name: name.into(), len: 12, hash: [9; 32], is_packed: false };
        let entry = LanguageEntry { id, serial: 3, files: vec![file("config.json"), file("model-1.safetensors")] };
        let text = entry.to_text();
        assert_eq!(LanguageEntry::from_text(id, &text), Some(entry));
        for n in 0..text.len() {
            assert_eq!(LanguageEntry::from_text(id, &text[..n]), None, "cut at {n}");
        }
        assert_eq!(LanguageEntry::from_text(id, &text.replace("12", "13")), None);
        assert_eq!(LanguageEntry::from_text(id, ""), None);
        let mut packed = LanguageEntry::from_text(id, &text).unwrap();
        packed.files[1].is_packed = true;
        let text = packed.to_text();
        assert_eq!(LanguageEntry::from_text(id, &text), Some(packed));
        let older = text.replace(HEAD_PACKED, HEAD);
        let (body, _) = older.rsplit_once("end ").unwrap();
        let signed = format!("{body}end {:08x}\n", crc32c(body.as_bytes()));
        assert_eq!(LanguageEntry::from_text(id, &signed), None, "the first version knows no such line");
    }

    #[test]
    fn what_zstd_makes_smaller_is_kept_so_and_comes_back() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let put = |name: &str, bytes: &[u8]| {
            let file = disk.open(name, OpenMode::Create).unwrap();
            file.write_at(bytes, 0).unwrap();
            file
        };
        let (text, noise) = (b"rows of text ".repeat(500), blake3::hash(b"noise").as_bytes().to_vec());
        let (path, id) = (home(ModelId([7; 16])), ModelId([7; 16]));
        disk.create_dir(LANGUAGES_DIR).unwrap();
        disk.create_dir(&path).unwrap();
        for (name, bytes, is_packed) in [("text", &text, true), ("noise", &noise, false)] {
            let source = put(name, bytes);
            assert_eq!(packed(&*source).unwrap().map(|(plain, _)| plain), is_packed.then(|| bytes.clone()), "{name}");
        }
        let (_, small) = packed(&*put("text", &text)).unwrap().unwrap();
        put(&format!("{path}/text{PACKED}"), &small);
        put(&format!("{path}/noise"), &noise);
        for (name, bytes) in [("text", &text), ("noise", &noise)] {
            assert_eq!(&whole(&*open_language_file(&*disk, id, name).unwrap()).unwrap(), bytes);
        }
        // What is damaged is told, and what claims too much takes no memory.
        put(&format!("{path}/text{PACKED}"), b"what zstd never writes");
        assert!(open_language_file(&*disk, id, "text").is_err());
        let bomb = zstd::bulk::compress(&vec![0; PACKED_BYTES_MAX as usize + 1], 1).unwrap();
        put(&format!("{path}/bomb{PACKED}"), &bomb);
        assert!(open_language_file(&*disk, id, "bomb").is_err());
    }

    #[test]
    fn names_from_outside_stay_in_their_directory() {
        for bad in ["", ".", "..", "../x", "a/b", "MANIFEST", ".hidden", "a\0b", "a b"] {
            assert!(!is_plain(bad), "{bad:?}");
        }
        assert!(is_plain("model-00001-of-00003.safetensors") && is_plain("model.gguf"));
    }
}
