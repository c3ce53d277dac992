//! Half-open byte ranges and ordered sets of them.

use std::collections::BTreeMap;

/// Bytes `start..end` of a file. Empty when `start >= end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ByteRange {
    pub start: u64,
    pub end: u64,
}

impl ByteRange {
    /// `len` bytes from `start`; the end saturates at the largest offset.
    pub fn at(start: u64, len: u64) -> ByteRange {
        ByteRange { start, end: start.saturating_add(len) }
    }

    /// Bytes in the range.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// True when no byte is in the range.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The bytes that both ranges hold; empty when they do not meet.
    pub fn intersect(&self, other: &ByteRange) -> ByteRange {
        let start = self.start.max(other.start);
        ByteRange { start, end: self.end.min(other.end).max(start) }
    }
}

/// A set of bytes kept as disjoint, merged ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// start -> end
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds all bytes of `range`.
    pub fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        let touching: Vec<u64> =
            self.ranges.range(..=end).rev().take_while(|(_, e)| **e >= start).map(|(s, _)| *s).collect();
        for s in touching {
            if let Some(e) = self.ranges.remove(&s) {
                start = start.min(s);
                end = end.max(e);
            }
        }
        self.ranges.insert(start, end);
    }

    /// Removes all bytes of `range`.
    pub fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let touching: Vec<(u64, u64)> = self
            .ranges
            .range(..range.end)
            .rev()
            .take_while(|(_, e)| **e > range.start)
            .map(|(s, e)| (*s, *e))
            .collect();
        for (s, e) in touching {
            self.ranges.remove(&s);
            if s < range.start {
                self.ranges.insert(s, range.start);
            }
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
        }
    }

    /// The parts of `range` that are in the set, ascending.
    pub fn within(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut out: Vec<ByteRange> = self
            .ranges
            .range(..range.end)
            .rev()
            .take_while(|(_, e)| **e > range.start)
            .map(|(s, e)| ByteRange { start: *s, end: *e }.intersect(&range))
            .collect();
        out.reverse();
        out
    }

    /// The parts of `range` that are not in the set, ascending.
    pub fn gaps(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut out = Vec::new();
        let mut at = range.start;
        for r in self.within(range) {
            if r.start > at {
                out.push(ByteRange { start: at, end: r.start });
            }
            at = r.end;
        }
        if at < range.end {
            out.push(ByteRange { start: at, end: range.end });
        }
        out
    }

    /// All ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().map(|(s, e)| ByteRange { start: *s, end: *e })
    }

    /// Number of disjoint ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True when no byte is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Forgets all bytes.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks insert, remove, within and gaps against a plain bitmap under a fixed pseudo-random sequence.
    #[test]
    fn agrees_with_a_bitmap() {
        let mut bits = [false; 200];
        let mut set = RangeSet::default();
        let mut x = 12345u64;
        let mut next = |n: u64| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) % n
        };
        for _ in 0..20_000 {
            let a = next(200);
            let r = ByteRange::at(a, next(20).min(200 - a));
            let put = next(2) == 0;
            if put {
                set.insert(r)
            } else {
                set.remove(r)
            }
            bits[r.start as usize..r.end as usize].fill(put);
            let q = ByteRange { start: next(100), end: 100 + next(100) };
            let covered: u64 = set.within(q).iter().map(ByteRange::len).sum();
            let expected = bits[q.start as usize..q.end as usize].iter().filter(|b| **b).count() as u64;
            assert_eq!(covered, expected);
            let open: u64 = set.gaps(q).iter().map(ByteRange::len).sum();
            assert_eq!(open + covered, q.len());
        }
        for w in set.iter().collect::<Vec<_>>().windows(2) {
            assert!(w[0].end < w[1].start, "ranges are merged");
        }
    }
}
