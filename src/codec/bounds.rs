//! Where large files are cut into segments: at places that their content chooses, so that a copy that is shifted, or changed
//! in one place, is cut at the same ones and finds the segments that are there. What was cut once stays as it is: the places
//! are no part of the format.

use fastcdc::v2020::FastCDC;

use super::policy::{self, Policy};
use crate::base::{Class, SEGMENT_BYTES_MAX};

/// Bytes of the segments of a class when the content chooses where they end: at least, usually, and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub min: u32,
    pub usual: u32,
    pub max: u32,
}

/// Around what the policy leads to: half of it to twice as much, and half of that where twice as much is more than a segment
/// may have, or takes longer to decode than the policy allows.
pub fn bounds(class: Class, policy: &Policy) -> Bounds {
    let (method, usual) = policy::plan(class, policy);
    around(usual, |bytes| policy::keeps(policy, method, bytes))
}

fn around(usual: u32, keeps: impl Fn(u32) -> bool) -> Bounds {
    let longer = usual <= SEGMENT_BYTES_MAX / 2 && keeps(usual * 2);
    let usual = if longer { usual } else { usual / 2 };
    Bounds { min: usual / 2, usual, max: usual * 2 }
}

/// Bytes of the first segment of `bytes`, of which `bounds.max` are looked at. `all` says that nothing comes behind them: then
/// the last segment is not a scrap.
pub fn first_cut(bytes: &[u8], bounds: Bounds, all: bool) -> usize {
    let looked_at = bytes.get(..bounds.max as usize).unwrap_or(bytes);
    let ends = all && looked_at.len() == bytes.len();
    let cut = FastCDC::new(looked_at, bounds.min as usize, bounds.usual as usize, bounds.max as usize)
        .next()
        .map_or(looked_at.len(), |chunk| chunk.length);
    if ends && looked_at.len() - cut < bounds.min as usize / 2 { looked_at.len() } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, mut x: u64) -> Vec<u8> {
        (0..len)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 40) as u8
            })
            .collect()
    }

    fn cuts(mut bytes: &[u8], bounds: Bounds) -> Vec<&[u8]> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (first, rest) = bytes.split_at(first_cut(bytes, bounds, true));
            out.push(first);
            bytes = rest;
        }
        out
    }

    #[test]
    fn bounds_stay_within_segments_and_the_time_to_decode() {
        for class in Class::ALL {
            for decode_ms in [None, Some(1), Some(50)] {
                let b = bounds(class, &Policy { decode_ms, ..Policy::default() });
                assert!(b.min <= b.usual && b.usual < b.max && b.max <= SEGMENT_BYTES_MAX, "{b:?}");
            }
        }
        assert_eq!(around(256 << 10, |_| true), Bounds { min: 128 << 10, usual: 256 << 10, max: 512 << 10 });
        assert_eq!(around(256 << 10, |_| false), Bounds { min: 64 << 10, usual: 128 << 10, max: 256 << 10 });
        assert_eq!(around(1 << 20, |_| true), Bounds { min: 256 << 10, usual: 512 << 10, max: 1 << 20 });
    }

    #[test]
    fn a_shifted_copy_is_cut_at_the_same_places() {
        let bounds = Bounds { min: 4 << 10, usual: 8 << 10, max: 16 << 10 };
        let whole = noise(500_000, 1);
        let before = cuts(&whole, bounds);
        assert!(before.iter().rev().skip(1).all(|c| (4 << 10..=16 << 10).contains(&c.len())), "bounds");
        assert!(before.iter().all(|c| c.len() >= 2 << 10), "the last one is no scrap");
        let mut shifted = noise(777, 2);
        shifted.extend_from_slice(&whole[..200_000]);
        shifted.extend_from_slice(b"something else in the middle");
        shifted.extend_from_slice(&whole[200_000..]);
        let same = cuts(&shifted, bounds).iter().filter(|c| before.contains(c)).map(|c| c.len()).sum::<usize>();
        assert!(same > 440_000, "{same} bytes of 500,000 are found again");
    }

    #[test]
    fn short_and_dull_data_is_cut_too() {
        let bounds = Bounds { min: 4 << 10, usual: 8 << 10, max: 16 << 10 };
        assert_eq!(first_cut(b"x", bounds, true), 1);
        assert_eq!(first_cut(&vec![0; 100_000], bounds, true), 16 << 10);
    }
}
