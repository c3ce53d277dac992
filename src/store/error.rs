//! What can go wrong in the store.

use std::fmt;
use std::io;

use crate::base::PackId;
use crate::host;

/// What can go wrong in the store.
#[derive(Debug)]
pub enum Error {
    /// The disk failed. `what` names the step.
    Io { what: String, source: io::Error },
    /// The disk is full, or the quota of it. Nothing was changed, and the store goes on. `what` names the step.
    NoSpace { what: String },
    /// Too many files are open in this process or on this machine. Nothing was changed, and the store goes on.
    TooManyFiles { what: String },
    /// Bytes on disk fail a check.
    Corrupt { what: &'static str, pack: PackId, offset: u64 },
    /// The index gave something it cannot have been given. The next mount rebuilds it from the packs.
    Index(String),
    /// There is no store here, or it cannot be used; the sentence says why and what to do.
    Unusable(String),
    /// A transaction or record larger than the format allows.
    TooLarge { what: &'static str, bytes: u64 },
    /// A write or sync failed before; the store takes no more changes until it is opened again.
    ReadOnly,
    /// Housekeeping was given up because the store is to be closed. Nothing was changed.
    Closing,
    /// Another process holds the store.
    Locked,
}

impl Error {
    /// Any step but a write. A sync that says "no space" has lost what was written: that is a failure of the disk.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| {
            if host::is_out_of_files(&source) { Error::TooManyFiles { what } } else { Error::Io { what, source } }
        }
    }

    /// A write, or the making of a file or directory: these may find the disk full and leave all as it was.
    pub(crate) fn write(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| {
            if host::is_out_of_space(&source) { Error::NoSpace { what } } else { Error::io(what)(source) }
        }
    }

    /// True when a step was not to be had now: nothing was changed, and it may be tried again.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::NoSpace { .. } | Error::TooManyFiles { .. } | Error::Closing => true,
            Error::Io { .. }
            | Error::Corrupt { .. }
            | Error::Index(_)
            | Error::Unusable(_)
            | Error::TooLarge { .. }
            | Error::ReadOnly
            | Error::Locked => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { what, source } => write!(f, "{what}: {source}"),
            Error::NoSpace { what } => write!(f, "{what}: no space left in the store's filesystem"),
            Error::TooManyFiles { what } => write!(f, "{what}: too many open files; raise the limit (`ulimit -n`)"),
            Error::Corrupt { what, pack, offset } => write!(f, "damaged {what} in pack {pack} at offset {offset}"),
            Error::Index(why) => write!(f, "the index is damaged ({why}); mount again to rebuild it from the packs"),
            Error::Unusable(why) => f.write_str(why),
            Error::TooLarge { what, bytes } => write!(f, "{what} of {bytes} bytes is larger than the format allows"),
            Error::ReadOnly => {
                f.write_str("the store is read-only after a failed write; mend the disk and mount again")
            }
            Error::Closing => f.write_str("it is done another time: the volume is about to be unmounted"),
            Error::Locked => f.write_str("the store is in use by another process"),
        }
    }
}

impl std::error::Error for Error {}
