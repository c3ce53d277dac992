//! Samples that are alike, put together: pure, from what they are like to which of them one prior is made for.
//!
//! Parts are halved, by means of two on directions (bisecting spherical k-means, as in "A comparison of document clustering
//! techniques", Steinbach, Karypis and Kumar, 2000), as long as the halves hold together better than the whole.

use crate::codec::Likeness;

/// Parts at most: each has a prior that takes space, and memory while it is used.
const PARTS_MAX: usize = 4;
/// Samples must be nearer to the middle of their half by this than to that of the whole, on average. Chapters of one book
/// gain 0.001, manuals by several authors 0.008, logs or JSON of several programs 0.01 to 0.04.
const GAIN_MIN: f32 = 0.01;
/// Samples from which halves are grown, each with some of those farthest from it: this part of all is yet farther, since the
/// farthest of all is often like no other.
const SEEDS: usize = 6;
const FARTHEST: [usize; 3] = [usize::MAX, 8, 4];
/// Rounds in which samples go to the half they are nearer to.
const ROUNDS: usize = 8;

type Direction = Vec<f32>;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The direction in the middle of some.
fn middle(all: &[Direction], of: &[usize]) -> Direction {
    let mut sum: Direction = vec![0.0; Likeness::BYTES];
    for direction in of.iter().filter_map(|n| all.get(*n)) {
        sum.iter_mut().zip(direction).for_each(|(s, d)| *s += d);
    }
    let length = dot(&sum, &sum).sqrt().max(f32::MIN_POSITIVE);
    sum.iter().map(|s| s / length).collect()
}

/// How near they are to a direction, added up.
fn nearness(all: &[Direction], of: &[usize], to: &[f32]) -> f32 {
    of.iter().filter_map(|n| all.get(*n)).map(|d| dot(d, to)).sum()
}

/// Two halves of a part.
struct Halves {
    /// How much nearer samples are to the middle of their half than to that of the whole, on average.
    gain: f32,
    a: Vec<usize>,
    b: Vec<usize>,
}

/// The best halves of a part, each of `least` samples or more. `None` where it has no such halves.
fn halve(all: &[Direction], part: &[usize], least: usize) -> Option<Halves> {
    let whole = nearness(all, part, &middle(all, part));
    let mut best: Option<Halves> = None;
    let seeds = part.iter().step_by(part.len().div_ceil(SEEDS).max(1)).filter_map(|n| all.get(*n));
    for (seed, nth) in seeds.flat_map(|seed| FARTHEST.map(|nth| (seed, nth))) {
        let mut a = seed.clone();
        let mut far: Vec<&Direction> = part.iter().filter_map(|n| all.get(*n)).collect();
        far.sort_by(|x, y| dot(x, seed).total_cmp(&dot(y, seed)));
        let mut b = (*far.get(part.len() / nth)?).clone();
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let nearer = |n: &usize| all.get(*n).is_some_and(|d| dot(d, &a) >= dot(d, &b));
            (of_a, of_b) = part.iter().copied().partition(nearer);
            (a, b) = (middle(all, &of_a), middle(all, &of_b));
        }
        let gain = (nearness(all, &of_a, &a) + nearness(all, &of_b, &b) - whole) / part.len() as f32;
        let enough = of_a.len() >= least && of_b.len() >= least;
        if enough && best.as_ref().is_none_or(|halves| gain > halves.gain) {
            best = Some(Halves { gain, a: of_a, b: of_b });
        }
    }
    best
}

/// The parts that samples fall into, each of `least` or more where there is more than one; numbers of samples, ascending.
pub(super) fn parts(samples: &[Likeness], least: usize) -> Vec<Vec<usize>> {
    let all: Vec<Direction> = samples.iter().map(Likeness::direction).collect();
    let cut = |part: Vec<usize>| (halve(&all, &part, least.max(1)), part);
    let mut found = vec![cut((0..samples.len()).collect())];
    while found.len() < PARTS_MAX {
        // The part that gains most by being halved.
        let gain = |(halves, part): &(Option<Halves>, Vec<usize>)| {
            halves.as_ref().filter(|h| h.gain >= GAIN_MIN).map(|h| h.gain * part.len() as f32)
        };
        let most = found.iter().enumerate().filter_map(|(n, part)| Some((n, gain(part)?)));
        let Some((n, _)) = most.max_by(|(_, a), (_, b)| a.total_cmp(b)) else { break };
        if let (Some(Halves { a, b, .. }), _) = found.swap_remove(n) {
            found.extend([cut(a), cut(b)]);
        }
    }
    let mut parts: Vec<Vec<usize>> = found.into_iter().map(|(_, part)| part).collect();
    parts.sort();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(bytes: &[u8]) -> Vec<Likeness> {
        bytes.chunks_exact(bytes.len() / 12).take(12).map(Likeness::of).collect()
    }

    #[test]
    fn kinds_are_told_apart_and_one_kind_is_left_whole() {
        let english = cuts(include_bytes!("../../tests/data/eng"));
        assert_eq!(parts(&english, 4), [(0..12).collect::<Vec<_>>()]);
        let mut mixed = Vec::new();
        let kinds =
            [english, cuts(include_bytes!("../../tests/data/nci")), cuts(include_bytes!("../../tests/data/json"))];
        for n in 0..12 {
            mixed.extend(kinds.iter().map(|kind| kind[n].clone()));
        }
        let found = parts(&mixed, 4);
        assert!(found.len() >= 3 && found.iter().all(|part| part.len() >= 4), "{found:?}");
        assert!(found.iter().all(|part| part.iter().all(|n| n % 3 == part[0] % 3)), "no part has two kinds: {found:?}");
        let mut all: Vec<usize> = found.concat();
        all.sort();
        assert_eq!(all, (0..36).collect::<Vec<_>>());
        // Too few of each.
        assert_eq!(parts(&mixed[..6], 4).len(), 1);
    }

    #[test]
    fn what_is_like_no_other_does_not_hide_a_kind() {
        let mut samples = cuts(include_bytes!("../../tests/data/eng"));
        samples.extend(samples.clone());
        samples.extend(cuts(include_bytes!("../../tests/data/nci")).into_iter().take(6));
        samples.extend([Likeness::of(b""), Likeness::of(&[7; 3000])]);
        let found = parts(&samples, 5);
        assert!(found.len() == 2 && found.iter().any(|part| part.starts_with(&[0])), "{found:?}");
        assert!(found.iter().any(|part| (24..30).all(|n| part.contains(&n)) && !part.contains(&0)), "{found:?}");
    }

    #[test]
    fn few_or_empty_samples_are_one_part() {
        assert_eq!(parts(&[], 4), [Vec::<usize>::new()]);
        let empty = vec![Likeness::of(b""); 20];
        assert_eq!(parts(&empty, 4).len(), 1);
    }
}
