//! What of some samples is worth remembering: pure, from samples of files to the pieces of them that the others repeat most.
//!
//! A prior's text is followed where a segment repeats it. Bytes that many files have are worth more there than any others,
//! and worth nothing a second time; so pieces are taken one after the other, each time the one whose windows most other
//! samples have and no piece taken has yet. Source of the idea: the dictionary builder of zstd, after K. Liao, M. Petri,
//! A. Moffat and A. Wirth, "Effective construction of relative Lempel-Ziv dictionaries" (2016).

use std::collections::{BinaryHeap, HashMap, HashSet};

use super::similar;

/// Bytes of a piece that is taken or left.
const PIECE_BYTES: usize = 2048;
/// One window in eight is looked at; as a shift of 64 bits.
const SAMPLED_SHIFT: u32 = 61;

/// A piece of a sample: which, and which part of it.
type Piece = (usize, usize);

/// Pieces of samples with about `bytes` bytes in all, in the order of the samples, that the other samples repeat most; less
/// where nothing else is repeated.
pub(super) fn choose(samples: &[&[u8]], bytes: usize) -> Vec<u8> {
    let windows = |bytes| similar::windows(bytes, SAMPLED_SHIFT);
    let mut samples_with: HashMap<u64, u32> = HashMap::new();
    for sample in samples {
        let distinct: HashSet<u64> = windows(sample).collect();
        distinct.into_iter().for_each(|window| *samples_with.entry(window).or_default() += 1);
    }
    let piece = |(sample, part): Piece| -> &[u8] {
        let parts = samples.get(sample).map(|bytes| bytes.chunks(PIECE_BYTES));
        parts.and_then(|mut parts| parts.nth(part)).unwrap_or_default()
    };
    let mut covered: HashSet<u64> = HashSet::new();
    // How often other samples have what a piece would add.
    let gain = |at: Piece, covered: &HashSet<u64>| -> u32 {
        let fresh: HashSet<u64> = windows(piece(at)).filter(|window| !covered.contains(window)).collect();
        fresh.iter().filter_map(|window| samples_with.get(window)).map(|with| with - 1).sum()
    };
    let pieces = samples
        .iter()
        .enumerate()
        .flat_map(|(n, bytes)| (0..bytes.len().div_ceil(PIECE_BYTES)).map(move |part| (n, part)));
    let mut heap: BinaryHeap<(u32, Piece)> = pieces.map(|at| (gain(at, &covered), at)).collect();
    let (mut taken, mut len) = (Vec::new(), 0);
    while let Some((before, at)) = heap.pop()
        && before > 0
        && len < bytes
    {
        // Gains only fall, so what is still the largest after another look is it.
        let now = gain(at, &covered);
        if now < before {
            heap.push((now, at));
            continue;
        }
        covered.extend(windows(piece(at)));
        len += piece(at).len();
        taken.push(at);
    }
    taken.sort_unstable();
    taken.into_iter().flat_map(piece).take(bytes).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut x = seed;
        let mut byte = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 56) as u8
        };
        (0..len).map(|_| byte()).collect()
    }

    #[test]
    fn what_others_repeat_is_taken_once() {
        let (common, rare) = (noise(1, PIECE_BYTES), noise(2, PIECE_BYTES));
        let samples: Vec<Vec<u8>> = (10..20)
            .map(|n| {
                let of_two = if n < 12 { rare.clone() } else { noise(n + 100, PIECE_BYTES) };
                [noise(n, PIECE_BYTES), common.clone(), of_two].concat()
            })
            .collect();
        let samples: Vec<&[u8]> = samples.iter().map(Vec::as_slice).collect();
        assert!(choose(&samples, PIECE_BYTES) == common);
        // In the order of the samples, of which the last that have them are taken.
        assert!(choose(&samples, 1 << 20) == [rare, common].concat(), "nothing else is repeated");
        assert!(choose(&[], 100).is_empty() && choose(&[&noise(3, 10_000)], 1 << 20).is_empty());
    }
}
