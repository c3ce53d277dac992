//! tersefs: a filesystem that understands what it stores.
//!
//! Files written into a mounted volume are kept plain in staging, coded in the background as segments by predictive
//! models and a range coder, and read back at any offset, bit for bit. The rooms below are ordered by floor; a room
//! imports only rooms named for it in the table of `tests/architecture.rs`.

pub mod base;

pub mod entropy;
pub mod format;
pub mod host;
pub mod telemetry;

pub mod models;
pub mod store;
pub mod workers;

pub mod codec;

pub mod volume;

pub mod background;
pub mod fuse;
pub mod tools;

pub mod cli;
