//! One file per verb that works on a store that is not mounted (or only looks): mkfs, fsck, scrub, inspect, export, import, send, receive; and
//! those that measure: estimate, bench, model; and doctor, which looks at the machine.
//!
//! Must not know: flags, printing, the kernel. Each gives back a report that can be shown as text or as JSON; progress is
//! told through a function.

mod archive;
mod bench;
mod doctor;
mod estimate;
mod fsck;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
mod language;
mod measure;
mod media;
mod mkfs;
mod model;
mod replica;
mod scrub;
#[cfg(feature = "lora")]
mod training;

pub use archive::{ArchiveReport, cat, explain, export, import};
pub use bench::{
    BENCH_FILE_BYTES_MAX, BENCH_SEGMENT_BYTES, BenchFile, BenchReport, BenchRow, Peer, Taken, bench, bench_method,
    builtin_samples,
};
pub use doctor::{Finding, Health, doctor};
pub use estimate::{ClassCount, ClassEstimate, EstimateReport, TierEstimate, estimate, estimate_under};
pub use fsck::{FsckOptions, FsckReport, Kind, Problem, fsck, fsck_with};
#[cfg(feature = "hub")]
pub use hub::{Fetched, Hub, HubName};
pub use inspect::{InspectLine, inspect};
pub use language::{LanguageClass, LanguageEstimate};
pub use media::{MediaKind, MediaReport, MediaRow, bench_media};
pub use mkfs::mkfs;
pub use model::{ModelCheck, ModelReport, model_check, model_export, model_list, model_show, model_verify};
pub use replica::{ReplicaReport, held, receive, send};
pub use scrub::scrub;
#[cfg(feature = "lora")]
pub use training::{
    AdaptOptions, News, PRETRAINED, PretrainOptions, TrainOptions, TrainReport, model_adapt, model_pretrain,
};

/// Told now and then: done, of how many, in the unit of the verb.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
