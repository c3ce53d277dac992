//! One segment, coded and decoded by the clock: what `estimate` and `bench` have in common.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::base::{Class, Ino};
use crate::codec::{self, Basis, Before, Policy};
use crate::format::{HEADER_FIXED_BYTES, Owner, RECORD_ALIGN, SegmentHeader};
use crate::host;

/// Bytes coded before a class of data is measured on a thread: what is built once is no part of the speed.
const WARM_BYTES: usize = 8 << 10;

thread_local! {
    /// Classes that were coded on this thread, and how.
    static WARM: RefCell<BTreeSet<(Class, Policy)>> = const { RefCell::new(BTreeSet::new()) };
}

fn warm(raw: &[u8], class: Class, policy: &Policy) {
    if WARM.with_borrow_mut(|warm| warm.insert((class, *policy))) {
        // A failure shows when the whole is coded.
        let _ = codec::encode(raw.get(..WARM_BYTES).unwrap_or(raw), class, policy, Basis::default());
    }
}

/// A segment that was coded, decoded and compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub plain_bytes: u64,
    /// The whole record as a pack would hold it.
    pub coded_bytes: u64,
    /// Processor time of one core, the proof that it decodes included.
    pub encode_s: f64,
    pub decode_s: f64,
}

/// Codes and decodes the bytes of a segment that belong to files of these lengths; `before` says what was before it in a stream
/// that it goes on with.
///
/// # Errors
/// A sentence: the bytes are no segment, or do not come back.
pub(super) fn measure(
    raw: &[u8],
    class: Class,
    policy: &Policy,
    owners: &[u32],
    before: Option<&Before>,
) -> Result<Measured, String> {
    warm(raw, class, policy);
    let started = host::thread_cpu_seconds();
    // What a volume has learned of its own files is not known here.
    let basis = Basis { before, ..Basis::default() };
    let encoded = codec::encode(raw, class, policy, basis).map_err(|e| e.to_string())?;
    let coded = host::thread_cpu_seconds();
    let plain = codec::decode(&encoded.coding, &encoded.payload, Basis::default()).map_err(|e| e.to_string())?;
    let decode_s = host::thread_cpu_seconds() - coded;
    if plain != raw {
        return Err("a segment does not decode to what was coded".to_string());
    }
    let mut segment_offset = 0;
    let owner = |(n, len): (usize, &u32)| {
        let owner = Owner { ino: Ino(n as u64 + 1000), file_offset: 0, segment_offset, len: *len };
        segment_offset += len;
        owner
    };
    let owners = owners.iter().enumerate().map(owner).collect();
    let fields = SegmentHeader { coding: encoded.coding, owners }.encode().len();
    let record = (HEADER_FIXED_BYTES + fields + encoded.payload.len()) as u64;
    Ok(Measured {
        plain_bytes: raw.len() as u64,
        coded_bytes: record.next_multiple_of(RECORD_ALIGN),
        encode_s: coded - started,
        decode_s,
    })
}
