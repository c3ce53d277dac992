//! Range coder, probabilities, adaptive counters, mixers, adaptive probability stages. Integers only.
//!
//! Must not know: what is predicted. Every function gives the same bits on every machine: there is no float in this room,
//! tables are computed by integer arithmetic at compile time and pinned by tests.
//!
//! Units: a probability is that of a 1 bit, in 1/65536, 1 to 65535. The logistic domain ("stretched") is
//! ln(p / (1 - p)) in 1/256.

mod apm;
mod coder;
mod history;
mod logistic;
mod mixer;

pub use apm::{Apm, StateMap};
pub use coder::{Decoder, Encoder};
pub use history::{HISTORIES, History};
pub use logistic::{STRETCH_MAX, squash, stretch};
pub use mixer::{INPUTS, Mixer};
