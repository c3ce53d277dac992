//! One file per verb that works on a store that is not mounted (or only looks): mkfs, fsck, scrub, inspect.
//!
//! Must not know: flags, printing, the kernel. Each gives back a report that can be shown as text or as JSON; progress is
//! told through a function.

mod fsck;
mod inspect;
mod mkfs;
mod scrub;

pub use fsck::{FsckOptions, FsckReport, Kind, Problem, fsck, fsck_with};
pub use inspect::{InspectLine, inspect};
pub use mkfs::mkfs;
pub use scrub::scrub;

/// Told now and then: done, of how many, in the unit of the verb.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
