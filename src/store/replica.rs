//! A store that follows another one: which files a store is made of, and how new ones of it get to their places, all or
//! none.
//!
//! ```text
//! replica                  the store follows another: it is opened for reading alone, and takes what the other sends
//! PATH.new                 what came for PATH, whole and checked; it is called PATH.part.new while it comes, and what is to be
//!                          added to the end of PATH is called PATH.tail.new
//! replica.commit           all of it is there: what it lists is being put in its places, and nothing else is a state of the store
//! ```
//! What comes lies beside its place, since a rename from one directory to another may be on disk in one of them alone.
//!
//! Packs are only appended to; but what a crash tore at the end of one is written anew, and a store that has such an end is not
//! sent before it was opened. So a pack is known by its length, its first 4 KiB and its last 64 KiB, without all of it being
//! read. Whether its middle is whole is what scrub tells, on either side. Other files are known by all of their bytes.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::draft::write_whole;
use super::error::Error;
use super::languages::LANGUAGES_DIR;
use super::models::MODELS_DIR;
use super::{IndexEngine, Store, StoreOptions, index, lock, pack, recovery, superblock};
use crate::base::{PackId, Uuid, crc32c};
use crate::host::{Disk, DiskFile, OpenMode, Seek};

/// The lock of any store.
const LOCK_FILE: &str = "LOCK";
/// Says that a store follows another.
const REPLICA_FILE: &str = "replica";
/// Says that what came is being put in its places: text, a list of all files and how they come.
pub(super) const COMMIT_FILE: &str = "replica.commit";
/// How the names end of files that are not in their places; of those that come; and of what is to be added to a file.
const DRAFT: &str = ".new";
const PART: &str = ".part.new";
const TAIL: &str = ".tail.new";
/// Files of the store's directory itself that go with it: what it is, and what its volume knows of itself.
const ALONE: [&str; 4] = [superblock::FORMAT_FILE, superblock::COPY_FILE, recovery::LOST_FILE, "trained"];
/// Files that are not coded yet.
const STAGING_DIR: &str = "staging";
/// What is looked at of a pack: so many bytes of its beginning and of its end.
const HEAD_BYTES: u64 = 4 << 10;
const END_BYTES: u64 = 64 << 10;
/// Bytes copied at a time.
const STEP_BYTES: usize = 1 << 20;
/// Longest path of a file of a store, bytes.
const PATH_BYTES_MAX: usize = 300;
/// Longest list of files, bytes.
pub const LIST_BYTES_MAX: u64 = 4 << 30;
/// Blocks by which files with holes are hashed: those of zeros alone are passed over.
const BLOCK_BYTES: u64 = 64 << 10;
const HEAD: &str = "tersefs files 1";

/// A file of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFile {
    /// Below the store's directory.
    pub path: String,
    /// Bytes.
    pub len: u64,
    /// BLAKE3-256 of it; of a pack, of its beginning and its end.
    pub print: [u8; 32],
}

/// How a file gets to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comes {
    /// It is there.
    Stays,
    /// It is there up to this byte.
    Grows(u64),
    /// It is not there, or is another one.
    Whole,
}

/// A path that comes from outside: one that a file of a store may have.
pub fn is_store_path(path: &str) -> bool {
    let plain = |name: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        // Names of drafts, and what is left of them without their end, are no names of files.
        let draft = [DRAFT, ".part", ".tail"].iter().any(|end| name.ends_with(end));
        !name.is_empty() && !name.starts_with('.') && name.chars().all(good) && !draft
    };
    let names: Vec<&str> = path.split('/').collect();
    path.len() <= PATH_BYTES_MAX
        && names.iter().all(|name| plain(name))
        && match names.as_slice() {
            [name] => ALONE.contains(name),
            [dir, _] => [MODELS_DIR, STAGING_DIR].contains(dir),
            [dir, sub, _] => [pack::PACKS_DIR, LANGUAGES_DIR].contains(dir) && !sub.contains('.'),
            _ => false,
        }
}

fn is_pack(path: &str) -> bool {
    path.ends_with(".tpk")
}

/// All that lies where files of a store may, ascending: paths of files, and of drafts of them.
fn all_paths(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    let list = |path: &str| disk.list(path).map_err(Error::io(format!("list {path}")));
    let alone = |name: &String| ALONE.contains(&name.strip_suffix(DRAFT).unwrap_or(name));
    let mut out: Vec<String> = list("")?.into_iter().filter(alone).collect();
    for dir in [MODELS_DIR, STAGING_DIR] {
        out.extend(list(dir)?.into_iter().map(|name| format!("{dir}/{name}")));
    }
    for dir in [pack::PACKS_DIR, LANGUAGES_DIR] {
        for sub in list(dir)? {
            // A model that is being brought or replaced is none of it.
            if !sub.contains('.') {
                out.extend(list(&format!("{dir}/{sub}"))?.into_iter().map(|name| format!("{dir}/{sub}/{name}")));
            }
        }
    }
    out.sort();
    Ok(out)
}

/// The paths of a store's files, ascending.
fn paths(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    Ok(all_paths(disk)?.into_iter().filter(|path| is_store_path(path)).collect())
}

/// The paths of the files that came whole and are not in their places, ascending.
fn came(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    let whole = |path: &String| path.strip_suffix(DRAFT).filter(|path| is_store_path(path)).map(str::to_string);
    let mut out: Vec<String> = all_paths(disk)?.iter().filter_map(whole).collect();
    out.sort();
    Ok(out)
}

/// What the first `len` bytes of a file are known by.
fn print(file: &dyn DiskFile, path: &str, len: u64) -> Result<[u8; 32], Error> {
    let mut hash = blake3::Hasher::new();
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    let mut block = |hash: &mut blake3::Hasher, at: u64, end: u64| -> Result<(), Error> {
        let piece = buffer.get_mut(..(end - at) as usize).unwrap_or_default();
        let got = file.read_at(piece, at).map_err(Error::io(format!("read {path}")))?;
        if got != piece.len() {
            return Err(Error::Unusable(format!("{path} became shorter while it was read")));
        }
        if piece.iter().any(|byte| *byte != 0) {
            hash.update(&at.to_le_bytes());
            hash.update(piece);
        }
        Ok(())
    };
    if is_pack(path) && len > HEAD_BYTES + END_BYTES {
        block(&mut hash, 0, HEAD_BYTES)?;
        block(&mut hash, len - END_BYTES, len)?;
    } else {
        let mut at = 0;
        while at < len {
            block(&mut hash, at, (at + BLOCK_BYTES).min(len))?;
            let next = (at + BLOCK_BYTES).min(len);
            // Files that are not coded yet may be holes for the most part.
            let data = if next < len { file.seek(next, Seek::Data) } else { Ok(None) };
            let data = data.map_err(Error::io(format!("read {path}")))?.unwrap_or(len);
            at = if data >= len { len } else { (data / BLOCK_BYTES * BLOCK_BYTES).max(next) };
        }
    }
    hash.update(&len.to_le_bytes());
    Ok(*hash.finalize().as_bytes())
}

fn open(disk: &dyn Disk, path: &str) -> Result<Arc<dyn DiskFile>, Error> {
    disk.open(path, OpenMode::Read).map_err(Error::io(format!("open {path}")))
}

/// What a file is known by, that lies at its path with an end.
fn file_at(disk: &dyn Disk, path: &str, end: &str) -> Result<StoreFile, Error> {
    let at = format!("{path}{end}");
    let file = open(disk, &at)?;
    let len = file.len().map_err(Error::io(format!("stat {at}")))?;
    Ok(StoreFile { path: path.to_string(), len, print: print(&*file, path, len)? })
}

fn files(disk: &dyn Disk) -> Result<Vec<StoreFile>, Error> {
    paths(disk)?.iter().map(|path| file_at(disk, path, "")).collect()
}

/// The files that a store is made of, ascending. Its index is none: packs say all of it.
///
/// # Errors
/// `Locked` while it is mounted, or something else writes to it. `Unusable` where there is none, or only half of one; where a
/// crash tore the end of a pack that the next opening cuts off; and where metadata is lost, which a follower may have still.
///
/// # Locks
/// The store's, shared, as long as the store that comes with them lives: until then all stays as it is.
pub fn store_files(disk: &Arc<dyn Disk>) -> Result<(Vec<StoreFile>, Store), Error> {
    let options = StoreOptions { engine: IndexEngine::Memory, read_only: true, ..StoreOptions::default() };
    let (store, recovery) = Store::open(disk.clone(), options)?;
    if recovery.has_lost_metadata() {
        return Err(Error::Unusable(
            "metadata of the store is lost, and the other store may have it still: look at it with `tersefs fsck` first".into(),
        ));
    }
    let ends = |id, end: u64| Ok::<bool, Error>(store.file_len(id)? == end);
    let log = store.log_lock();
    let (last, position) = (log.packs.last().copied(), log.position);
    drop(log);
    let log_ends = last.is_some_and(|id| id.0 == position.pack) && ends(PackId(position.pack), position.next_offset)?;
    let data = store.data_lock().closed.keys().last().copied();
    let data_ends = match data {
        Some(id) => ends(id, recovery::tail_of(&store.reader, id)?)?,
        None => true,
    };
    if recovery.cut || !log_ends || !data_ends {
        return Err(Error::Unusable(
            "a pack of the store has an end that a crash tore: mount the store and unmount it, and send it then".into(),
        ));
    }
    Ok((files(&**disk)?, store))
}

/// What a store that follows another has, also of what it was sent in part: of two files of a path the one that came last.
/// Nothing, where there is no store yet.
///
/// # Errors
/// As those of `Receiver::open`.
pub fn replica_files(disk: &dyn Disk) -> Result<Vec<StoreFile>, Error> {
    check_follows(disk)?;
    let _held = lock(disk, true)?;
    held(disk)
}

fn held(disk: &dyn Disk) -> Result<Vec<StoreFile>, Error> {
    check_follows(disk)?;
    check_not_half_placed(disk)?;
    let came = came(disk)?;
    let mut files = files(disk)?;
    files.retain(|file| came.binary_search(&file.path).is_err());
    for path in &came {
        files.push(file_at(disk, path, DRAFT)?);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// What has to come of a file for somebody who has others.
///
/// # Errors
/// When it cannot be read.
pub fn comes(disk: &dyn Disk, file: &StoreFile, there: Option<&StoreFile>) -> Result<Comes, Error> {
    Ok(match there {
        Some(there) if there == file => Comes::Stays,
        Some(there)
            if is_pack(&file.path)
                && (1..file.len).contains(&there.len)
                && print(&*open(disk, &file.path)?, &file.path, there.len)? == there.print =>
        {
            Comes::Grows(there.len)
        }
        _ => Comes::Whole,
    })
}

/// The volume that a store is; `None` where there is none yet.
///
/// # Errors
/// When it cannot be read.
pub fn volume_of(disk: &dyn Disk) -> Result<Option<Uuid>, Error> {
    match superblock::exists(disk)? {
        true => Ok(Some(superblock::find(disk)?.block.uuid)),
        false => Ok(None),
    }
}

/// True for a store that follows another.
pub fn is_replica(disk: &dyn Disk) -> Result<bool, Error> {
    let names = disk.list("").map_err(Error::io("list the store"))?;
    Ok(names.iter().any(|name| name == REPLICA_FILE))
}

/// A store that follows another may take what it sends; so may an empty directory. Another may hold anything.
fn check_follows(disk: &dyn Disk) -> Result<(), Error> {
    let names = disk.list("").map_err(Error::io("list the store"))?;
    let what = match superblock::exists(disk)? {
        _ if names.iter().all(|name| name == LOCK_FILE) || is_replica(disk)? => return Ok(()),
        true => "the store here is one of its own, and does not follow another: give a new directory",
        false => "the directory is not empty: give a new one",
    };
    Err(Error::Unusable(what.into()))
}

/// Refuses a store in which files are being put in their places.
pub(super) fn check_not_half_placed(disk: &dyn Disk) -> Result<(), Error> {
    let what =
        "what was sent to this store is put in its places in part: `tersefs receive --finish STORE` does the rest";
    let names = disk.list("").map_err(Error::io("list the store"))?;
    if names.iter().any(|name| name == COMMIT_FILE) { Err(Error::Unusable(what.into())) } else { Ok(()) }
}

/// A list of files as text: a line each, and a checksum.
pub fn list_to_text(files: &[StoreFile]) -> String {
    let mut out = format!("{HEAD}\n");
    for file in files {
        out += &format!("{} {} {}\n", file.len, blake3::Hash::from_bytes(file.print).to_hex(), file.path);
    }
    out += &format!("end {:08x}\n", crc32c(out.as_bytes()));
    out
}

/// The other way. `None` where the text is no list, or not all of one.
pub fn list_from_text(text: &str) -> Option<Vec<StoreFile>> {
    let (body, end) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let crc = u32::from_str_radix(end.strip_prefix("end ")?, 16).ok()?;
    let mut lines = body.lines();
    if crc32c(text.get(..body.len() + 1)?.as_bytes()) != crc || lines.next()? != HEAD {
        return None;
    }
    let mut files: Vec<StoreFile> = Vec::new();
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (len, print, path) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let print = *blake3::Hash::from_hex(print).ok()?.as_bytes();
        let ascends = files.last().is_none_or(|last| *last.path < *path);
        if !is_store_path(path) || !ascends {
            return None;
        }
        files.push(StoreFile { path: path.to_string(), len, print });
    }
    Some(files)
}

/// Takes what another store sends.
pub struct Receiver<'a> {
    disk: &'a dyn Disk,
    _held: Box<dyn Send + Sync>,
}

/// Directories that a file is in, the outermost first.
fn dirs_of(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| path.get(..at).unwrap_or_default())
}

impl<'a> Receiver<'a> {
    /// Takes the lock of a store that follows another, or is to.
    ///
    /// # Errors
    /// `Locked` while somebody uses it; `Unusable` for a store of its own.
    ///
    /// # Durability
    /// That it follows another is on disk at return.
    pub fn open(disk: &'a dyn Disk) -> Result<Receiver<'a>, Error> {
        // Before there is a lock file in a directory that is somebody else's.
        check_follows(disk)?;
        let held = lock(disk, false)?;
        check_follows(disk)?;
        check_not_half_placed(disk)?;
        if !is_replica(disk)? {
            write_whole(disk, "", REPLICA_FILE, REPLICA_FILE, b"This store follows another one.\n")?;
        }
        Ok(Receiver { disk, _held: held })
    }

    /// As `replica_files`, under the lock that is held.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn held(&self) -> Result<Vec<StoreFile>, Error> {
        held(self.disk)
    }

    /// Removes what earlier streams brought and this one has no use for: their space may be needed.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn tidy(&self, files: &[StoreFile], comes: &[Comes]) -> Result<(), Error> {
        let used = |path: &str| {
            let at = files.binary_search_by(|file| (*file.path).cmp(path)).ok();
            at.and_then(|at| comes.get(at)).is_some_and(|comes| *comes != Comes::Whole)
        };
        remove_drafts(self.disk, &|path| is_store_path(path) && used(path))
    }

    /// Opens the file for what comes of one: its bytes from the first that is not there on, at offset 0.
    ///
    /// # Errors
    /// `NoSpace` and such; the store is as it was.
    pub fn begin(&self, path: &str) -> Result<Arc<dyn DiskFile>, Error> {
        for dir in dirs_of(path) {
            self.disk.create_dir(dir).map_err(Error::write(format!("make a directory for {path}")))?;
        }
        let part = format!("{path}{PART}");
        let file = self.disk.open(&part, OpenMode::Create).map_err(Error::write(format!("create {part}")))?;
        file.set_len(0).map_err(Error::write(format!("empty {part}")))?;
        Ok(file)
    }

    /// Gives what came its name, when all of it is there and is what was sent.
    ///
    /// # Errors
    /// As `begin`; `Unusable` when it is not what the list says of it.
    ///
    /// # Durability
    /// On disk at return: a later stream need not bring it again.
    pub fn end(&self, file: &StoreFile, comes: Comes, came: &dyn DiskFile) -> Result<(), Error> {
        let path = &file.path;
        came.sync_data().map_err(Error::io(format!("sync what came of {path}")))?;
        let end = match comes {
            Comes::Grows(_) => TAIL,
            Comes::Stays | Comes::Whole => DRAFT,
        };
        if comes == Comes::Whole && print(came, path, file.len)? != file.print {
            return Err(Error::Unusable(format!("{path} came otherwise than its list says: send it again")));
        }
        let (part, whole) = (format!("{path}{PART}"), format!("{path}{end}"));
        self.disk.rename(&part, &whole).map_err(Error::io(format!("name what came of {path}")))?;
        dirs_of(path).chain([""]).try_for_each(|dir| sync_dir(self.disk, dir))
    }

    /// Puts all that came in its place, and removes what the other store has not. From then on the store is as the other
    /// was when it was sent.
    ///
    /// # Errors
    /// After a failure, or a crash, the store is as it was, or it is opened by nobody before `finish`.
    ///
    /// # Durability
    /// On disk at return.
    pub fn place(&self, files: &[StoreFile], comes: &[Comes]) -> Result<(), Error> {
        for (file, comes) in files.iter().zip(comes) {
            self.ready(file, *comes)?;
        }
        let mut text = list_to_text(files);
        for comes in comes {
            text += &match comes {
                Comes::Stays => "stays\n".to_string(),
                Comes::Grows(from) => format!("grows {from}\n"),
                Comes::Whole => "whole\n".to_string(),
            };
        }
        text += &format!("{:08x}\n", crc32c(text.as_bytes()));
        write_whole(self.disk, "", COMMIT_FILE, COMMIT_FILE, text.as_bytes())?;
        put_in_place(self.disk, files, comes)
    }

    /// All that placing a file needs is there, with the space for it.
    fn ready(&self, file: &StoreFile, comes: Comes) -> Result<(), Error> {
        let path = &file.path;
        let draft = format!("{path}{DRAFT}");
        let there = self.disk.open(&draft, OpenMode::Write).or_else(|_| self.disk.open(path, OpenMode::Write));
        let base = match comes {
            Comes::Whole => self.disk.open(&draft, OpenMode::Write),
            Comes::Stays | Comes::Grows(_) => there,
        };
        let base = base.map_err(Error::io(format!("open what came of {path}")))?;
        let mut len = base.len().map_err(Error::io(format!("stat what came of {path}")))?;
        if let Comes::Grows(from) = comes {
            let tail = open(self.disk, &format!("{path}{TAIL}"))?;
            let tail = tail.len().map_err(Error::io(format!("stat what came of {path}")))?;
            // Once files are being put in their places there is no way back.
            match base.allocate(from, tail) {
                Err(e) if e.kind() != io::ErrorKind::Unsupported => {
                    return Err(Error::write(format!("take space to add to {path}"))(e));
                }
                Ok(()) | Err(_) => {}
            }
            len = if len == from { from.saturating_add(tail) } else { len };
        }
        if len == file.len {
            Ok(())
        } else {
            Err(Error::Unusable(format!("what came of {path} has {len} bytes and not {}: send it again", file.len)))
        }
    }
}

/// Does the rest of what a `place` left that was cut off. False where nothing was left.
///
/// # Errors
/// As `Receiver::place`.
pub fn finish(disk: &dyn Disk) -> Result<bool, Error> {
    let _held = lock(disk, false)?;
    if check_not_half_placed(disk).is_ok() {
        return Ok(false);
    }
    let path = COMMIT_FILE;
    let bad = || Error::Unusable(format!("{path} is damaged: remove the store, and have all of it sent again"));
    let file = open(disk, path)?;
    let len = file.len().map_err(Error::io(format!("stat {path}")))?;
    let mut bytes = vec![0; len.min(LIST_BYTES_MAX) as usize];
    let got = file.read_at(&mut bytes, 0).map_err(Error::io(format!("read {path}")))?;
    bytes.truncate(got);
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (files, comes) = commit_from_text(&text).ok_or_else(bad)?;
    put_in_place(disk, &files, &comes)?;
    Ok(true)
}

fn commit_from_text(text: &str) -> Option<(Vec<StoreFile>, Vec<Comes>)> {
    let (body, crc) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let covered = text.get(..body.len() + 1)?;
    if crc32c(covered.as_bytes()) != u32::from_str_radix(crc, 16).ok()? {
        return None;
    }
    let end = covered.find("\nend ")? + 1;
    let end = end + covered.get(end..)?.find('\n')? + 1;
    let files = list_from_text(covered.get(..end)?)?;
    let comes: Vec<Comes> = covered
        .get(end..)?
        .lines()
        .map(|line| match line.split_once(' ') {
            Some(("grows", from)) => from.parse().ok().map(Comes::Grows),
            None if line == "stays" => Some(Comes::Stays),
            None if line == "whole" => Some(Comes::Whole),
            _ => None,
        })
        .collect::<Option<_>>()?;
    (files.len() == comes.len()).then_some((files, comes))
}

/// Each step may be done again after any of them was cut off.
fn put_in_place(disk: &dyn Disk, files: &[StoreFile], comes: &[Comes]) -> Result<(), Error> {
    let mut touched: BTreeSet<String> = BTreeSet::from([String::new()]);
    let came = came(disk)?;
    for (file, comes) in files.iter().zip(comes) {
        let path = &file.path;
        let fail = || Error::io(format!("put {path} in its place"));
        for dir in dirs_of(path) {
            disk.create_dir(dir).map_err(fail())?;
            touched.insert(dir.to_string());
        }
        // What stays, or grows, may have come with an earlier stream that was not placed.
        if came.binary_search(path).is_ok() {
            disk.rename(&format!("{path}{DRAFT}"), path).map_err(fail())?;
        }
        match comes {
            Comes::Grows(from) => append(disk, path, *from)?,
            Comes::Stays | Comes::Whole => {}
        }
        let len = open(disk, path)?.len().map_err(fail())?;
        if len != file.len {
            return Err(Error::Unusable(format!(
                "{path} has {len} bytes and not {}: remove the store, and have all of it sent again",
                file.len
            )));
        }
    }
    for path in paths(disk)? {
        if files.binary_search_by(|file| file.path.cmp(&path)).is_err() {
            disk.remove(&path).map_err(Error::io(format!("remove {path}")))?;
            touched.insert(parent(&path).to_string());
        }
    }
    remove_empty_languages(disk)?;
    touched.insert(LANGUAGES_DIR.to_string());
    // What it says is of packs that are gone.
    for dir in [index::INDEX_DIR, index::NEW_DIR] {
        disk.remove_dir_all(dir).map_err(Error::io("remove the index"))?;
    }
    for dir in &touched {
        sync_dir(disk, dir)?;
    }
    disk.remove(COMMIT_FILE).map_err(Error::io(format!("remove {COMMIT_FILE}")))?;
    sync_dir(disk, "")?;
    remove_drafts(disk, &|_| false)
}

/// Makes names in a directory durable, where it is there.
fn sync_dir(disk: &dyn Disk, dir: &str) -> Result<(), Error> {
    match disk.sync_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io(format!("sync the directory `{dir}`"))),
    }
}

/// A language model without files is none.
fn remove_empty_languages(disk: &dyn Disk) -> Result<(), Error> {
    for sub in disk.list(LANGUAGES_DIR).map_err(Error::io("list languages"))? {
        let dir = format!("{LANGUAGES_DIR}/{sub}");
        if !sub.contains('.') && disk.list(&dir).map_err(Error::io(format!("list {dir}")))?.is_empty() {
            disk.remove_dir_all(&dir).map_err(Error::io(format!("remove {dir}")))?;
        }
    }
    Ok(())
}

/// Removes what lies beside its place, but for drafts of paths that are kept.
///
/// # Durability
/// On disk at return.
fn remove_drafts(disk: &dyn Disk, kept: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let mut touched = BTreeSet::new();
    for path in all_paths(disk)? {
        if path.strip_suffix(DRAFT).is_some_and(|of| !kept(of)) {
            disk.remove(&path).map_err(Error::io(format!("remove {path}")))?;
            touched.insert(parent(&path).to_string());
        }
    }
    remove_empty_languages(disk)?;
    touched.insert(LANGUAGES_DIR.to_string());
    touched.iter().try_for_each(|dir| sync_dir(disk, dir))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Adds what came to the end of a file.
fn append(disk: &dyn Disk, path: &str, from: u64) -> Result<(), Error> {
    let tail = open(disk, &format!("{path}{TAIL}"))?;
    let target = disk.open(path, OpenMode::Write).map_err(Error::io(format!("open {path}")))?;
    let (mut buffer, mut at) = (vec![0; STEP_BYTES], 0);
    loop {
        let got = tail.read_at(&mut buffer, at).map_err(Error::io(format!("read what came of {path}")))?;
        if got == 0 {
            break;
        }
        target
            .write_at(buffer.get(..got).unwrap_or_default(), from + at)
            .map_err(Error::write(format!("add to {path}")))?;
        at += got as u64;
    }
    target.sync_data().map_err(Error::io(format!("sync {path}")))
}

/// Makes a store that followed another one of its own: it may be written from then on, and takes nothing more. False where it
/// was that already.
///
/// # Errors
/// `Locked` while somebody uses it; `Unusable` where what came is put in its places in part.
///
/// # Durability
/// On disk at return.
pub fn promote(disk: &dyn Disk) -> Result<bool, Error> {
    let _held = lock(disk, false)?;
    check_not_half_placed(disk)?;
    superblock::find(disk)?;
    let was = is_replica(disk)?;
    remove_drafts(disk, &|_| false)?;
    if was {
        disk.remove(REPLICA_FILE).map_err(Error::io(format!("remove {REPLICA_FILE}")))?;
    }
    sync_dir(disk, "")?;
    Ok(was)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_store_have_paths() {
        for path in [
            "FORMAT",
            "packs/02/pack-0000000000000002.tpk",
            "staging/21.40",
            "models/00ff.copy",
            "languages/aa/MANIFEST",
        ] {
            assert!(is_store_path(path), "{path}");
        }
        for path in [
            "",
            "LOCK",
            "replica",
            "index/db",
            "packs/../FORMAT",
            "/etc/passwd",
            "packs//x",
            "staging/x.new",
            "staging/a/b",
            "models/.x",
        ] {
            assert!(!is_store_path(path), "{path}");
        }
    }

    #[test]
    fn lists_come_back_or_are_refused() {
        let file = |path: &str, len| StoreFile { path: path.into(), len, print: [7; 32] };
        let files = vec![file("FORMAT", 4096), file("staging/1.2", 0)];
        let text = list_to_text(&files);
        assert_eq!(list_from_text(&text), Some(files.clone()));
        assert_eq!(list_from_text(&list_to_text(&[])), Some(Vec::new()));
        for end in 0..text.len() {
            assert_eq!(list_from_text(&text[..end]), None, "{end}");
        }
        assert_eq!(list_from_text(&text.replace("4096", "4097")), None);
        let backwards: Vec<StoreFile> = files.into_iter().rev().collect();
        assert_eq!(list_from_text(&list_to_text(&backwards)), None);
        assert_eq!(list_from_text(&list_to_text(&[file("../x", 1)])), None);
    }
}
