//! Range coder, probabilities, adaptive counters, mixers, adaptive probability stages. Integers only.
//!
//! Must not know: what is predicted. Every function gives the same bits on every machine: there is no float in this room,
//! tables are computed by integer arithmetic at compile time and pinned by tests.
//!
//! Units: a probability is that of a 1 bit, in 1/65536, 1 to 65535. The logistic domain ("stretched") is
//! ln(p / (1 - p)) in 1/256.

mod apm;
mod chain;
mod channel;
mod coder;
mod history;
mod layers;
mod logistic;
mod mixer;
mod shares;
mod stage;

pub use apm::{Apm, StateMap};
pub use chain::Link;
pub use channel::Channel;
pub use coder::{Decoder, Encoder};
pub use history::{HISTORIES, History};
pub use layers::{LANES, Lanes, Layers};
pub use logistic::{STRETCH_MAX, squash, squash_within, stretch};
pub use mixer::{INPUTS, Mixer};
pub use shares::{ShareDecoder, ShareEncoder, TOTAL_MAX};
pub use stage::{Outcomes, Stage};

/// `N` copies of a value on the heap, never on the stack.
pub fn boxed<T: Clone, const N: usize>(value: T) -> Box<[T; N]> {
    match vec![value; N].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("a vector of N is an array of N"),
    }
}
