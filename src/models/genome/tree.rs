//! A row of values as a tree of bits, in which frequent ones take few steps and neighbours stay together: each node parts its
//! values where both sides are nearest to being equally frequent (weight balanced, as in E. Gilbert and E. Moore, 1959).

use super::layout::Weight;

/// Most values; qualities are printable bytes.
#[cfg(test)]
const VALUES_MAX: usize = 128;

/// What a bit leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Node(u8),
    /// The number of a value.
    Value(u8),
}

/// The tree. Nodes are numbered from 1 on, those near the root first; there is one less than values, and at least one.
pub(super) struct Tree {
    values: Vec<u8>,
    /// By node; the first is not used.
    steps: Vec<[Step; 2]>,
    /// By node: the first number that a 1 leads to.
    parts: Vec<u8>,
}

impl Tree {
    /// Of 1 to 128 values in rising order.
    pub fn new(weights: &[Weight]) -> Tree {
        let sums: Vec<u64> = std::iter::once(0)
            .chain(weights.iter().scan(0, |sum, weight| {
                *sum += weight.count();
                Some(*sum)
            }))
            .collect();
        let mut steps = vec![[Step::Value(0); 2]; 2];
        let mut parts = vec![0; 2];
        // Ranges of values whose nodes are to be made, in the order of their numbers.
        let mut ranges = std::collections::VecDeque::from([(0, weights.len())]);
        let mut node = 0;
        let mut next = 2;
        while let Some((from, to)) = ranges.pop_front() {
            node += 1;
            let middle = (sums[from] + sums[to]) / 2;
            let at = (from + 1..to).min_by_key(|at| sums[*at].abs_diff(middle)).unwrap_or(to);
            let mut step = |from: usize, to: usize| match to - from {
                0 | 1 => Step::Value(from.min(weights.len() - 1) as u8),
                _ => {
                    ranges.push_back((from, to));
                    next += 1;
                    Step::Node((next - 1) as u8)
                }
            };
            let both = [step(from, at), step(at, to)];
            if steps.len() <= node {
                steps.resize(node + 1, both);
                parts.resize(node + 1, 0);
            }
            (steps[node], parts[node]) = (both, at as u8);
        }
        Tree { values: weights.iter().map(|weight| weight.value).collect(), steps, parts }
    }

    /// Values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The value of a number.
    pub fn value(&self, number: u8) -> u8 {
        self.values.get(usize::from(number)).copied().unwrap_or(0)
    }

    /// The bit at a node on the way to a number.
    #[inline(always)]
    pub fn bit(&self, node: usize, number: u8) -> u8 {
        u8::from(self.parts.get(node).is_some_and(|part| number >= *part))
    }

    /// Where a bit leads to.
    #[inline(always)]
    pub fn step(&self, node: usize, bit: u8) -> Step {
        self.steps.get(node).map_or(Step::Value(0), |steps| steps[usize::from(bit & 1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_found_and_frequent_ones_soon() {
        for values in [1, 2, 3, 5, 40, 94, VALUES_MAX] {
            let counts = |n: usize| if n == 2 { 100_000 } else { 1 + n as u64 };
            let weights: Vec<Weight> = (0..values).map(|n| Weight::new(n as u8, counts(n))).collect();
            let tree = Tree::new(&weights);
            assert!(tree.len() == values && tree.steps.len() <= VALUES_MAX.max(2));
            for number in 0..values as u8 {
                let (mut node, mut taken) = (1, 0);
                let found = loop {
                    taken += 1;
                    match tree.step(node, tree.bit(node, number)) {
                        Step::Node(next) => node = usize::from(next),
                        Step::Value(found) => break found,
                    }
                };
                assert!(found == number && tree.value(found) == number, "{number} of {values}");
                assert!(number != 2 || taken <= 3, "{taken}");
            }
        }
    }
}
