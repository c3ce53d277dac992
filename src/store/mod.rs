//! Packs, index, recovery. Sees opaque bytes only: what a payload means is not known here.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::base::{ByteRange, Ino, PackId, SegmentRef, TxId, Uuid};
use crate::format::{Dentry, Extent, InodeRecord, MetaOp, SegmentHeader};
use crate::host::Disk;

/// What can go wrong in the store.
#[derive(Debug)]
pub enum Error {
    /// The disk failed. `what` names the step.
    Io { what: String, source: io::Error },
    /// Bytes on disk fail a check.
    Corrupt { what: &'static str, pack: PackId, offset: u64 },
    /// There is no store here, or it cannot be used; the sentence says why and what to do.
    Unusable(String),
    /// A write or sync failed before; the store takes no more changes until it is opened again.
    ReadOnly,
    /// Another process holds the store.
    Locked,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { what, source } => write!(f, "{what}: {source}"),
            Error::Corrupt { what, pack, offset } => write!(f, "damaged {what} in pack {pack} at offset {offset}"),
            Error::Unusable(why) => f.write_str(why),
            Error::ReadOnly => {
                f.write_str("the store is read-only after a failed write; restart after mending the disk")
            }
            Error::Locked => f.write_str("the store is in use by another process"),
        }
    }
}

impl std::error::Error for Error {}

/// Which engine keeps the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexEngine {
    /// sled in `index/`, opened again at the next start.
    Sled,
    /// Ordered map in memory, rebuilt from packs at each open. For read-only media and for simulations.
    Memory,
}

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreOptions {
    pub engine: IndexEngine,
    /// Take no lock for writing, change nothing on disk.
    pub read_only: bool,
    /// Forget the index and rebuild it from the packs.
    pub rebuild: bool,
    /// A pack is closed when it grows beyond this, bytes.
    pub pack_bytes_max: u64,
}

/// What opening found and did.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Metadata transactions applied from packs.
    pub replayed: u64,
    /// True when the index was made anew.
    pub rebuilt: bool,
    /// Sentences about damage found on the way, one each: what, pack, offset.
    pub damage: Vec<String>,
}

/// Bytes used on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packs of segments.
    pub data_bytes: u64,
    /// Packs of metadata.
    pub meta_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// An open store.
///
/// # Locks
/// Calls may come from any thread; commits are ordered by one internal lock, held over one `write_at`, never over a sync.
pub struct Store {}

impl Store {
    /// Creates an empty store (superblock, root directory, first packs) in an empty directory.
    ///
    /// # Durability
    /// All of it is on disk at return.
    pub fn create(_disk: &Arc<dyn Disk>) -> Result<Uuid, Error> {
        todo!()
    }

    /// True when the directory holds a store (of any version).
    pub fn exists(_disk: &Arc<dyn Disk>) -> Result<bool, Error> {
        todo!()
    }

    /// Opens a store: takes the lock, checks the superblock, opens or rebuilds the index, replays what it has not seen.
    pub fn open(_disk: Arc<dyn Disk>, _options: StoreOptions) -> Result<(Store, Recovery), Error> {
        todo!()
    }

    /// Identity of the volume.
    pub fn uuid(&self) -> Uuid {
        todo!()
    }

    /// True when no change is accepted (opened so, or after a failure).
    pub fn is_read_only(&self) -> bool {
        todo!()
    }

    /// Appends a coded segment to the active data pack.
    ///
    /// # Durability
    /// None until `sync_segments`.
    pub fn append_segment(&self, _header: &SegmentHeader, _payload: &[u8]) -> Result<SegmentRef, Error> {
        todo!()
    }

    /// Makes all segments appended so far durable. A failure makes the store read-only.
    pub fn sync_segments(&self) -> Result<(), Error> {
        todo!()
    }

    /// Reads one segment record and checks it: header check, body check, and that the record is the one named.
    pub fn fetch_segment(&self, _at: SegmentRef) -> Result<(SegmentHeader, Vec<u8>), Error> {
        todo!()
    }

    /// Appends one transaction to the metadata log and applies it to the index: all steps or none, visible at return.
    ///
    /// # Durability
    /// Survives the death of this process at return (it is in the kernel); survives power loss after `sync_meta`.
    pub fn commit(&self, _ops: &[MetaOp]) -> Result<TxId, Error> {
        todo!()
    }

    /// Makes all transactions committed before the call durable; callers at the same time share one sync.
    pub fn sync_meta(&self) -> Result<(), Error> {
        todo!()
    }

    /// A number never used for an inode before.
    pub fn allocate_ino(&self) -> Ino {
        todo!()
    }

    /// A number larger than any given before: staging epochs, directory cookies.
    pub fn allocate_serial(&self) -> u64 {
        todo!()
    }

    /// Attributes of an inode.
    pub fn inode(&self, _ino: Ino) -> Result<Option<InodeRecord>, Error> {
        todo!()
    }

    /// What a name points to.
    pub fn dentry(&self, _parent: Ino, _name: &[u8]) -> Result<Option<Dentry>, Error> {
        todo!()
    }

    /// Up to `limit` entries of a directory whose cookie is larger than `after`, in the order of cookies.
    pub fn dentries(&self, _parent: Ino, _after: u64, _limit: usize) -> Result<Vec<(Vec<u8>, Dentry)>, Error> {
        todo!()
    }

    /// Up to `limit` extents that meet `range`, ascending.
    pub fn extents(&self, _ino: Ino, _range: ByteRange, _limit: usize) -> Result<Vec<Extent>, Error> {
        todo!()
    }

    /// One extended attribute.
    pub fn xattr(&self, _ino: Ino, _name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        todo!()
    }

    /// Names of all extended attributes of an inode.
    pub fn xattr_names(&self, _ino: Ino) -> Result<Vec<Vec<u8>>, Error> {
        todo!()
    }

    /// Up to `limit` inodes with a number larger than `after`, ascending.
    pub fn inodes(&self, _after: Ino, _limit: usize) -> Result<Vec<InodeRecord>, Error> {
        todo!()
    }

    /// Up to `limit` inodes without a name (unlinked while open), to be removed at start.
    pub fn orphans(&self, _limit: usize) -> Result<Vec<Ino>, Error> {
        todo!()
    }

    /// Brings the index on disk up to date, so that the next open replays little. Compacts the metadata log when worth it.
    pub fn checkpoint(&self) -> Result<(), Error> {
        todo!()
    }

    /// Bytes used on disk.
    pub fn usage(&self) -> Usage {
        todo!()
    }

    /// Checkpoints and marks the index as cleanly closed. The lock is given back when the store is dropped.
    pub fn close(&self) -> Result<(), Error> {
        todo!()
    }
}
