//! Which packs are worth giving back, and why: pure, from sums to a plan.
//!
//! A pack without a used segment is deleted. One whose live part is small is rewritten: its live segments go to the active
//! pack, then it is deleted. Dead packs come first, since they cost nothing, then the oldest: what was dead long is settled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ledger::PackUse;
use crate::base::PackId;

/// A pack is rewritten when less than this share of it is live, percent; and when space is short.
const LIVE_SHARE: u64 = 50;
const LIVE_SHARE_SHORT: u64 = 85;
/// Rewriting a pack must give back at least this, bytes, or a sixteenth of a full pack where that is less.
const GAIN_BYTES_MIN: u64 = 1 << 20;

/// What is done with a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GcAction {
    /// Nothing in it is used.
    Delete,
    /// Its live part is copied first.
    Rewrite,
}

/// One pack of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcPack {
    pub pack: u64,
    pub bytes: u64,
    /// Bytes that are kept, about: segments of which little is used are coded anew and may come out a little larger.
    pub live_bytes: u64,
    pub action: GcAction,
}

/// A data pack as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackState {
    pub pack: PackId,
    pub bytes: u64,
    /// Segments are appended to it: it is closed before it is given back.
    pub active: bool,
}

/// Chooses packs. `short` asks for more: space is short.
pub fn plan(packs: &[PackState], used: &BTreeMap<PackId, PackUse>, short: bool, pack_bytes_max: u64) -> Vec<GcPack> {
    let share = if short { LIVE_SHARE_SHORT } else { LIVE_SHARE };
    let gain_min = GAIN_BYTES_MIN.min(pack_bytes_max / 16);
    let mut chosen: Vec<GcPack> = packs
        .iter()
        .filter_map(|p| {
            let used = used.get(&p.pack).copied().unwrap_or_default();
            let worth = p.bytes.saturating_sub(used.live_bytes) >= gain_min
                && u128::from(used.live_bytes) * 100 < u128::from(p.bytes) * u128::from(share);
            let action = match (used.segments, p.active) {
                (0, false) => GcAction::Delete,
                (0, true) if worth => GcAction::Delete,
                (_, _) if worth => GcAction::Rewrite,
                (_, _) => return None,
            };
            Some(GcPack { pack: p.pack.0, bytes: p.bytes, live_bytes: used.live_bytes, action })
        })
        .collect();
    chosen.sort_by_key(|p| (p.action == GcAction::Rewrite, p.pack));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_packs_first_then_the_oldest_that_are_worth_it() {
        const MIB: u64 = 1 << 20;
        let pack = |n, mib, active| PackState { pack: PackId(n), bytes: mib * MIB, active };
        let packs =
            [pack(2, 100, false), pack(3, 100, false), pack(4, 100, false), pack(5, 1, false), pack(9, 100, true)];
        let used = |n, mib: u64| (PackId(n), PackUse { segments: 7, live_bytes: mib * MIB, ..PackUse::default() });
        let live: BTreeMap<_, _> = [used(2, 49), used(3, 80), used(5, 1), used(9, 40)].into();
        let chosen = |short| -> Vec<(u64, GcAction)> {
            plan(&packs, &live, short, 256 * MIB).iter().map(|p| (p.pack, p.action)).collect()
        };
        use GcAction::{Delete, Rewrite};
        assert_eq!(chosen(false), [(4, Delete), (2, Rewrite), (9, Rewrite)]);
        assert_eq!(chosen(true), [(4, Delete), (2, Rewrite), (3, Rewrite), (9, Rewrite)]);
        // An active pack with nothing in it is left alone, and one that gives too little back.
        let few = [PackState { pack: PackId(9), bytes: 64, active: true }, pack(10, 1, false)];
        let live: BTreeMap<_, _> =
            [(PackId(10), PackUse { segments: 1, live_bytes: 400_000, ..PackUse::default() })].into();
        assert_eq!(plan(&few, &live, true, 256 * MIB), []);
    }
}
