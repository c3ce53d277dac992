//! The superblock and its copy as files.
//!
//! `FORMAT` and `FORMAT.copy` hold the same 4,096 bytes (format/superblock.rs). Both are written by rename, `FORMAT` first:
//! so a crash leaves two good ones, of which `FORMAT` is the newer, which is no damage. Where one is missing or damaged the other counts, and
//! the next writable open writes it again. Where both are lost the first record of any pack names the volume.

use std::collections::BTreeMap;
use std::io;

use super::draft::write_whole;
use super::error::Error;
use super::pack;
use crate::base::Uuid;
use crate::format::{SUPERBLOCK_BYTES, Superblock, uuid_of_first_record};
use crate::host::{self, Disk, OpenMode};

/// Superblock.
pub(crate) const FORMAT_FILE: &str = "FORMAT";
/// Its copy: made with the store, or at the first writable open of a store that has none.
pub(crate) const COPY_FILE: &str = "FORMAT.copy";
/// Bytes read of a pack's first record to learn the volume it belongs to.
const FIRST_RECORD_BYTES: usize = 4096;

/// What was found of the two.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub block: Superblock,
    /// Sentences: what is wrong with either. A store made before there were copies has nothing wrong.
    pub wrong: Vec<String>,
    /// The two are not the same good one: to be written again.
    pub write: bool,
}

/// `None` when there is no such file.
fn read_one(disk: &dyn Disk, path: &str) -> Result<Option<Result<Superblock, String>>, Error> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io(format!("open the superblock {path}")))?,
    };
    let mut bytes = vec![0; SUPERBLOCK_BYTES];
    match file.read_at(&mut bytes, 0) {
        Ok(got) => bytes.truncate(got),
        // A sector that cannot be read is damage like any other: the copy lies elsewhere.
        Err(e) => return Ok(Some(Err(e.to_string()))),
    }
    Ok(Some(Superblock::decode(&bytes).map_err(|e| e.to_string())))
}

/// Reads both.
///
/// # Errors
/// `Unusable` when there is no store, or neither is good.
pub(crate) fn find(disk: &dyn Disk) -> Result<Found, Error> {
    let (first, copy) = (read_one(disk, FORMAT_FILE)?, read_one(disk, COPY_FILE)?);
    let found = |block, wrong, write| Ok(Found { block, wrong, write });
    match (first, copy) {
        (None, None) if pack::list(disk)?.is_empty() => {
            Err(Error::Unusable("there is no tersefs store here; make one with `tersefs mkfs`".into()))
        }
        (Some(Ok(block)), Some(Ok(copy))) if block == copy => found(block, Vec::new(), false),
        (Some(Ok(block)), None) => found(block, Vec::new(), true),
        (Some(Ok(block)), Some(Ok(copy))) if block.follows(&copy) => found(block, Vec::new(), true),
        (Some(Ok(block)), Some(Ok(_))) => {
            let what = format!("the copy of the superblock, {COPY_FILE}, differs from {FORMAT_FILE}, which counts");
            found(block, vec![what], true)
        }
        (Some(Ok(block)), Some(Err(why))) => {
            found(block, vec![format!("the copy of the superblock, {COPY_FILE}, is damaged: {why}")], true)
        }
        (first, Some(Ok(block))) => {
            let why = match first {
                Some(Err(why)) => format!("damaged: {why}"),
                _ => "missing".to_string(),
            };
            found(block, vec![format!("the superblock {FORMAT_FILE} is {why}; its copy {COPY_FILE} is used")], true)
        }
        (first @ (None | Some(Err(_))), copy @ (None | Some(Err(_)))) => {
            let say = |one: Option<Result<_, String>>| one.and_then(Result::err).unwrap_or_else(|| "missing".into());
            Err(Error::Unusable(format!(
                "the superblock {FORMAT_FILE} ({}) and its copy {COPY_FILE} ({}) are lost; \
                 `tersefs fsck --repair` makes a new one from what the packs say",
                say(first),
                say(copy)
            )))
        }
    }
}

/// Writes the superblock, then its copy, each whole or not at all.
///
/// # Durability
/// Both are on disk at return.
pub(crate) fn write(disk: &dyn Disk, block: &Superblock) -> Result<(), Error> {
    let bytes = block.encode();
    for path in [FORMAT_FILE, COPY_FILE] {
        write_whole(disk, "", path, &format!("the superblock {path}"), &bytes)?;
    }
    Ok(())
}

/// True when the directory holds a superblock or its copy, good or not.
pub(crate) fn exists(disk: &dyn Disk) -> Result<bool, Error> {
    let names = disk.list("").map_err(Error::io("list the store"))?;
    Ok(names.iter().any(|n| n == FORMAT_FILE || n == COPY_FILE))
}

/// Makes a superblock from what the packs say, for a store that has neither any more. It claims every feature that this
/// build knows, since the packs may use any of them.
///
/// # Errors
/// `Unusable` when no pack is left that names its volume, or packs of two volumes lie here in equal number.
pub(crate) fn from_packs(disk: &dyn Disk, pack_bytes_max: u64) -> Result<Superblock, Error> {
    let mut votes: BTreeMap<[u8; 16], u64> = BTreeMap::new();
    for id in pack::list(disk)? {
        let file = disk.open(&pack::path(id), OpenMode::Read).map_err(Error::io(format!("open pack {id}")))?;
        let mut bytes = vec![0; FIRST_RECORD_BYTES];
        let got = file.read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(got);
        if let Some(Uuid(uuid)) = uuid_of_first_record(id, &bytes) {
            *votes.entry(uuid).or_default() += 1;
        }
    }
    let most = votes.values().max().copied().unwrap_or(0);
    let mut winners = votes.iter().filter(|(_, n)| **n == most);
    match (winners.next(), winners.next()) {
        (Some((uuid, _)), None) => {
            let (now, _) = host::now();
            Ok(Superblock::claiming_all(Uuid(*uuid), now, pack_bytes_max))
        }
        (None, _) => Err(Error::Unusable("no pack is left that names its volume: nothing can be read here".into())),
        (Some(_), Some(_)) => {
            Err(Error::Unusable("packs of two volumes lie here in equal number; move those of one of them away".into()))
        }
    }
}
