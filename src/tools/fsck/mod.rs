//! `fsck`: holds all metadata of a store against itself and against the packs, and repairs what is wrong.
//!
//! A check changes nothing. It gives problems, each of a named kind, with the repair that would be made; `repair` makes
//! them, by ordinary metadata transactions, so that a power cut in the middle leaves a store like any other and the next
//! run goes on. Repairs may bring other problems to light (a directory taken out of a cycle has no name), so check and
//! repair take turns until a check finds nothing more to mend.
//!
//! What is never done: bytes that a file still names are not given up, even when they cannot be read today, unless
//! `drop_damaged` says so. A disk may be read better by another controller, a pack may be found on another copy; zeros
//! in the place of the bytes would be an answer that is wrong for ever.
//!
//! # Limits
//! 40 bytes of memory for each inode and about 100 for each segment, besides the index, which is held in memory when
//! nothing may be written.

mod files;
mod lost;
mod names;
mod stray;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::Progress;
use crate::base::{Ino, MethodId, PACK_BYTES_MAX, PlainHash, SegmentRef};
use crate::format::{InodeRecord, MetaOp, Reference};
use crate::host::Disk;
use crate::store::{self, Error, Recovery, Store, StoreOptions};

use lost::Lost;
use names::Nodes;

/// Problems listed; more are counted in the last line.
const LISTED_MAX: usize = 100_000;
/// Turns of check and repair. Each mends all it found, so more than a few mean that something does not end.
const ROUNDS_MAX: usize = 64;
/// Problems whose path is looked up; the rest are told by their inode.
const PATHS_MAX: usize = 1000;
/// Operations in one transaction of a repair.
const OPS_PER_COMMIT: usize = 2048;

/// What can be wrong. The names are part of the JSON output and stay as they are.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The superblock or its copy is missing, damaged, or not the same as the other.
    Superblock,
    /// Bytes of the metadata log are damaged; what they said is lost.
    DamagedMetadata,
    MissingRoot,
    /// A name in a directory that does not exist.
    NameInNoDirectory,
    NameToNothing,
    /// A name says file where the inode says directory, or the like.
    WrongKindInName,
    /// A directory does not list a name that it has.
    UnlistedName,
    DirectoryTwoNames,
    /// Directories that contain each other and cannot be reached.
    DirectoryCycle,
    WrongParent,
    InodeWithoutName,
    WrongLinkCount,
    ExtentBeyondSize,
    OverlappingExtents,
    /// A segment is not as long, or not coded as, or not coded from what an extent says.
    WrongSegmentLength,
    /// A segment that a file needs, or that such a one was coded from, is missing or damaged.
    DamagedSegment,
    /// A model that segments may name is lost; where one of its two files is good, a repair writes the other anew.
    DamagedModel,
    /// Extents, segments or staged bytes of a file whose inode is lost.
    LostFile,
    /// Segments that a file may have named before metadata was lost.
    LostExtents,
    XattrsOfNoInode,
    /// Unlinked while it was open; the next mount removes it.
    OrphanInode,
    /// A staging file of no inode; the next mount removes it.
    StaleStaging,
    /// A file that an interrupted step left in the store.
    StaleFile,
    /// A file in the store's directory that is not ours.
    ForeignFile,
    /// What a file is charged for its bytes in packs is not what its extents say.
    WrongCharge,
    /// Sums that the index keeps of the use of packs are wrong.
    WrongSums,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Problem {
    pub kind: Kind,
    /// Path of the file, or what part of the store.
    pub at: String,
    pub what: String,
    /// What a repair does about it; `None` when it can do nothing.
    pub repair: Option<String>,
    /// Bytes of the file that cannot be read: first, and first behind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<(u64, u64)>,
    /// It has been repaired.
    pub repaired: bool,
}

/// What a check may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckOptions {
    /// Make the repairs.
    pub repair: bool,
    /// With `repair`: only say what would be done.
    pub dry_run: bool,
    /// Make the index anew from the packs. A repair does it in any case.
    pub rebuild_index: bool,
    /// With `repair`: bytes whose segment is lost become a hole.
    pub drop_damaged: bool,
}

/// Outcome of a check.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FsckReport {
    pub inodes: u64,
    pub extents: u64,
    pub segments: u64,
    /// Metadata transactions read from the packs.
    pub replayed: u64,
    pub index_rebuilt: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is untidy and costs nothing: the next mount puts most of it right.
    pub notes: Vec<Problem>,
    /// Problems and notes beyond those that are listed.
    pub unlisted: u64,
}

impl FsckReport {
    /// Problems that are still there.
    pub fn left(&self) -> usize {
        self.problems.iter().filter(|p| !p.repaired).count()
    }

    /// Problems and notes that were repaired.
    pub fn repaired(&self) -> usize {
        self.problems.iter().chain(&self.notes).filter(|p| p.repaired).count()
    }
}

/// How a problem is mended.
enum Fix {
    Ops(Vec<MetaOp>),
    /// Give an inode a name in lost+found.
    Attach(Ino),
    /// Put a file together from what is left of it.
    Restore(Box<Lost>),
    RemoveFile(String),
    /// Make the root. Last of all: while it is missing a run knows that metadata was lost.
    Root(Box<InodeRecord>),
    /// Part of the inode's record in `Findings::records`.
    InRecord,
}

/// A problem and its repair.
struct Found {
    problem: Problem,
    harmless: bool,
    fix: Option<Fix>,
}

/// Everything one check finds.
#[derive(Default)]
struct Findings {
    list: Vec<Found>,
    /// Records of inodes as they should be: one for all that is wrong with an inode.
    records: Vec<MetaOp>,
    unlisted: u64,
    paths: usize,
}

impl Findings {
    fn add(&mut self, kind: Kind, at: String, what: String, fix: Option<(String, Fix)>) {
        self.push(kind, at, what, fix, false);
    }

    fn note(&mut self, kind: Kind, at: String, what: String, fix: Option<(String, Fix)>) {
        self.push(kind, at, what, fix, true);
    }

    fn push(&mut self, kind: Kind, at: String, what: String, fix: Option<(String, Fix)>, harmless: bool) {
        if self.list.len() >= LISTED_MAX {
            self.unlisted += 1;
            return;
        }
        let (repair, fix) = fix.unzip();
        let problem = Problem { kind, at, what, repair, ranges: Vec::new(), repaired: false };
        self.list.push(Found { problem, harmless, fix });
    }

    /// The path of an inode for a message, while few were asked for.
    fn path(&mut self, store: &Store, nodes: &Nodes, ino: Ino) -> String {
        self.paths += 1;
        let path = if self.paths <= PATHS_MAX { nodes.path(store, ino) } else { None };
        path.unwrap_or_else(|| format!("inode {ino}"))
    }

    fn fixable(&self) -> bool {
        self.list.iter().any(|f| f.fix.is_some())
    }
}

/// What is known of a store while it is checked.
struct Check<'a> {
    disk: &'a Arc<dyn Disk>,
    store: &'a Store,
    options: FsckOptions,
    /// Metadata was lost: what nobody owns may be all that is left of a file.
    metadata_lost: bool,
    /// Segments read and found whole, in this run.
    whole: BTreeSet<(SegmentRef, Option<SegmentRef>)>,
    /// Where plain bytes lie that segments were coded from, by their hash; made when the first is looked for.
    references: Option<HashMap<PlainHash, Reference>>,
    /// When metadata was lost: inodes that what is left of the log calls removed.
    removed: HashSet<Ino>,
}

fn options(read_only: bool, rebuild: bool) -> StoreOptions {
    StoreOptions { read_only, rebuild, ..StoreOptions::default() }
}

/// Checks a store that is not mounted, and changes nothing but the index, when it is to be rebuilt. See `fsck_with`.
pub fn fsck(disk: Arc<dyn Disk>, rebuild_index: bool, progress: Progress<'_>) -> Result<FsckReport, Error> {
    fsck_with(disk, FsckOptions { rebuild_index, ..FsckOptions::default() }, progress)
}

/// Checks a store that is not mounted, and repairs it when the options say so.
///
/// # Errors
/// Only when the check itself cannot go on: no store, in use, the disk fails.
///
/// # Durability
/// All repairs are on disk at return.
pub fn fsck_with(disk: Arc<dyn Disk>, wanted: FsckOptions, progress: Progress<'_>) -> Result<FsckReport, Error> {
    let repair = wanted.repair && !wanted.dry_run;
    if (repair || wanted.rebuild_index) && store::is_replica(&*disk)? {
        let what = "the store follows another: repair that one, and have it sent; or make this one a store of its own first, with \
                    `tersefs receive --promote`";
        return Err(Error::Unusable(what.into()));
    }
    let mut report = FsckReport::default();
    if let Some(why) = store::superblocks_lost(&disk)? {
        report.problems.push(Problem {
            kind: Kind::Superblock,
            at: "FORMAT".into(),
            what: why,
            repair: Some("make both anew from what the packs say".into()),
            ranges: Vec::new(),
            repaired: repair,
        });
        if !repair {
            // Nothing can be read without it.
            return Ok(report);
        }
        Store::rescue_superblock(&disk, PACK_BYTES_MAX)?;
    }
    if wanted.rebuild_index && !wanted.repair {
        let (store, recovery) = Store::open(disk.clone(), options(false, true))?;
        store.close()?;
        report.index_rebuilt = true;
        opened(&recovery, &mut report, true, false);
    }
    // Without repairs from the packs alone: what the index says must follow from them.
    let (store, recovery) = Store::open(disk.clone(), options(!repair, repair))?;
    if repair {
        // What parity can still give back is not lost.
        let mended = store.mend_packs()?;
        if mended > 0 {
            log::warn!("{mended} damaged parts of packs were computed again from parity");
        }
    }
    report.replayed = recovery.replayed;
    report.index_rebuilt |= repair;
    opened(&recovery, &mut report, repair, repair);
    for what in store.audit()? {
        report.problems.push(Problem {
            kind: Kind::WrongSums,
            at: "sums of the index".into(),
            what,
            // The index in hand was made from the packs just now.
            repair: None,
            ranges: Vec::new(),
            repaired: false,
        });
    }
    let missing_root = store.inode(Ino::ROOT)?.is_none();
    let mut check = Check {
        disk: &disk,
        store: &store,
        options: wanted,
        metadata_lost: recovery.has_lost_metadata() || missing_root,
        whole: BTreeSet::new(),
        references: None,
        removed: HashSet::new(),
    };
    for round in 0..ROUNDS_MAX {
        let counts = (report.inodes, report.extents, report.segments);
        let found = check.run(&mut report, progress)?;
        if round > 0 {
            (report.inodes, report.extents, report.segments) = counts;
        }
        let fixable = repair && found.fixable();
        if fixable {
            check.apply(&found)?;
        }
        for Found { mut problem, harmless, fix } in found.list {
            problem.repaired = fixable && fix.is_some();
            let list = if harmless { &mut report.notes } else { &mut report.problems };
            // What cannot be mended is found again in each round.
            if problem.repaired || !list.iter().any(|p| p.kind == problem.kind && p.at == problem.at) {
                list.push(problem);
            }
        }
        report.unlisted = found.unlisted;
        if !fixable {
            break;
        }
    }
    if repair {
        if check.metadata_lost {
            store.renew_log()?;
        }
        store.close()?;
    }
    Ok(report)
}

/// What opening the store found. A writable open mends the superblock; the log is renewed at the end of a repair.
fn opened(recovery: &Recovery, report: &mut FsckReport, mended: bool, renewed: bool) {
    let superblock = recovery
        .superblock
        .iter()
        .map(|what| (Kind::Superblock, "FORMAT", what, "write both again from the good one", mended));
    let damage = recovery.damage.iter().map(|what| {
        let repair = "write the metadata that is left into a new log, and delete the damaged one";
        (Kind::DamagedMetadata, "packs", what, repair, renewed)
    });
    for (kind, at, what, repair, repaired) in superblock.chain(damage) {
        if report.problems.iter().any(|p| p.what == *what) {
            continue;
        }
        report.problems.push(Problem {
            kind,
            at: at.into(),
            what: what.clone(),
            repair: Some(repair.into()),
            ranges: Vec::new(),
            repaired,
        });
    }
}

impl Check<'_> {
    /// One look at everything.
    fn run(&mut self, report: &mut FsckReport, progress: Progress<'_>) -> Result<Findings, Error> {
        let mut found = Findings::default();
        let nodes = self.names(&mut found)?;
        self.files(&nodes, &mut found, report, progress)?;
        self.lost(&nodes, &mut found)?;
        for id in self.store.models()? {
            if let Err(e) = self.store.model(id) {
                found.add(Kind::DamagedModel, format!("models/{id}"), e.to_string(), None);
            }
        }
        self.languages(&mut found)?;
        self.stray(&nodes, &mut found)?;
        Ok(found)
    }

    /// Files of language models, and whether those that segments name are there.
    fn languages(&self, found: &mut Findings) -> Result<(), Error> {
        let kept = store::language_names(&**self.disk)?;
        for id in &kept {
            let wrong = store::verify_language(&**self.disk, *id, &mut |_, _| ());
            for what in wrong.unwrap_or_else(|e| vec![e.to_string()]) {
                let what = format!("{what}; bring the model again with `tersefs model add`");
                found.add(Kind::DamagedModel, format!("languages/{id}"), what, None);
            }
        }
        let coded = self.store.ledger().methods.contains_key(&(MethodId::Language as u16));
        // What cannot be read was found with its file.
        let named = if coded { self.store.models_named(&mut |_| Ok(()))? } else { Default::default() };
        let priors = self.store.models()?;
        for id in named.iter().filter(|id| !priors.contains(id) && !kept.contains(id)) {
            let what = "segments were coded by it, and it is not in the store: bring it with `tersefs model add`";
            found.add(Kind::DamagedModel, format!("languages/{id}"), what.into(), None);
        }
        Ok(())
    }

    /// Makes the repairs of one look.
    ///
    /// # Durability
    /// All of them are on disk at return; a crash before leaves some.
    fn apply(&self, found: &Findings) -> Result<(), Error> {
        let mut pending: Vec<MetaOp> = Vec::new();
        let fixes = || found.list.iter().filter_map(|f| f.fix.as_ref());
        let of_problems = fixes().filter_map(|fix| match fix {
            Fix::Ops(ops) => Some(ops.as_slice()),
            Fix::Attach(_) | Fix::Restore(_) | Fix::RemoveFile(_) | Fix::Root(_) | Fix::InRecord => None,
        });
        for ops in of_problems.chain(found.records.chunks(1)) {
            if pending.len() + ops.len() > OPS_PER_COMMIT && !pending.is_empty() {
                self.store.commit(&std::mem::take(&mut pending))?;
            }
            pending.extend(ops.iter().cloned());
        }
        if !pending.is_empty() {
            self.store.commit(&pending)?;
        }
        // After the others: these read records as they are then.
        let mut restored = Vec::new();
        for fix in fixes() {
            match fix {
                Fix::Attach(ino) => self.attach(*ino)?,
                Fix::Restore(lost) => {
                    let ino = lost.number(self.store);
                    self.restore_extents(lost, ino)?;
                    restored.push((lost, ino));
                }
                Fix::Ops(_) | Fix::RemoveFile(_) | Fix::Root(_) | Fix::InRecord => {}
            }
        }
        if !restored.is_empty() {
            self.store.sync_meta()?;
        }
        for (lost, ino) in restored {
            self.restore(lost, ino)?;
        }
        self.store.sync_meta()?;
        for fix in fixes() {
            if let Fix::Root(rec) = fix {
                self.store.commit(&[MetaOp::PutInode((**rec).clone())])?;
                self.store.sync_meta()?;
            }
        }
        // Only what the log on disk does not need any more.
        for fix in fixes() {
            if let Fix::RemoveFile(path) = fix {
                self.disk.remove(path).map_err(|source| Error::Io { what: format!("remove {path}"), source })?;
            }
        }
        Ok(())
    }
}
