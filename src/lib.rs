//! tersefs: a filesystem that understands what it stores.
//!
//! Files written into a mounted volume are kept plain in staging, coded in the background as segments by predictive
//! models and a range coder, and read back at any offset, bit for bit.
//!
//! # The house
//! The rooms below stand on floors; a room imports only rooms below it that the table of `tests/architecture.rs` names for
//! it, and every outside crate has one home. Each room opens with what it is, what it must not know, and its invariants.
//!
//! | floor | room | what it is |
//! | --- | --- | --- |
//! | 6 | [`cli`] | flags, settings in files, assembly of the daemon, signals, exit codes |
//! | 5 | [`fuse`] | requests of the kernel as calls of the volume, and errno |
//! | | [`background`] | when something is done: coding, giving back, scrubs, metrics, the control socket |
//! | | [`tools`] | verbs that work on a store or measure: fsck, scrub, inspect, export, estimate, bench, doctor |
//! | 4 | [`volume`] | inodes, names, extents, staging, cache; read, write, fsync, commit |
//! | 3 | [`codec`] | one segment: classify, choose, encode, verify, decode |
//! | 2 | [`models`] | predictors, a folder each |
//! | | [`store`] | packs, the index, recovery; sees opaque bytes |
//! | | [`workers`] | a bounded pool that computes, readers first |
//! | 1 | [`format`] | every byte of the envelope on disk (`FORMAT.md`) |
//! | | [`entropy`] | range coder, counters, mixers; whole numbers only |
//! | | [`host`] | files, clock, cores, and a disk that fails for tests |
//! | | [`telemetry`] | counters |
//! | 0 | [`base`] | ids, ranges, checksums; no I/O |
//!
//! # A read
//! `fuse` makes plain types of the request and calls [`volume::Volume::read`] with a closure that owns the reply; the thread goes back
//! to the kernel. Bytes that are staged or in the cache are answered at once. A miss joins the decode that is under way
//! for its segment, or queues one: a worker fetches the record, checks it, decodes it, holds it against the hash of its plain
//! bytes, and calls the closure. Calls go down; only values come up.
//!
//! # A write
//! Bytes go to staging and the reply goes out. `fsync` makes staging and the record of metadata durable, and waits for no model. When
//! a file is quiet, the volume plans segments of it; a worker encodes, decodes, compares; segments are appended and synced;
//! then extents are swapped if the generation of the inode has not moved. Staging goes once the swap is durable.
//!
//! # What must stay true
//! 1. Data durable, then the pointer to it, then the old copy may go.
//! 2. Plain bytes are not given up until the segment has been decoded and compared.
//! 3. The index is derived: packs and the log of metadata describe themselves.
//! 4. Coder and decoder step a model through the same function; no float reaches the range coder.
//! 5. Bytes that fail a check are never returned, and after a failed sync nothing is written.
//! 6. Raw storage is always legal: a model that declines loses nothing but time.
//! 7. Every queue, cache, field and loop over bytes from outside has a bound with a name.
//!
//! Nothing below floor 5 is `async`: tokio waits, workers compute, and threads that talk to the kernel do neither.

pub mod base;

pub mod entropy;
pub mod format;
pub mod host;
pub mod telemetry;

pub mod containers;
pub mod models;
pub mod store;
pub mod workers;

pub mod codec;

pub mod volume;

pub mod background;
pub mod fuse;
pub mod tools;

pub mod cli;
