//! Records of one length: tables, images in rows, samples. Found by how often a byte is that of so many bytes before.

/// Longest record, bytes.
pub(super) const LEN_MAX: usize = 4096;
/// From this length on, contexts without record lengths do not reach.
const LONG: usize = 8;
/// Places that are looked at.
const PLACES: usize = 1500;

/// Lengths worth a trial: the best that is short, the best that is long.
pub(super) fn lengths(raw: &[u8]) -> Vec<u16> {
    let longest = LEN_MAX.min(raw.len() / 4);
    // Where bytes repeat, every length agrees: such places say nothing.
    let every = ((raw.len() - longest) / (2 * PLACES)).max(1);
    let places: Vec<usize> =
        (longest.max(1)..raw.len()).step_by(every).filter(|at| raw[*at] != raw[at - 1]).take(PLACES).collect();
    let agree = |len: usize| places.iter().filter(|at| raw[**at] == raw[*at - len]).count();
    let counts: Vec<usize> = (0..=longest).map(|len| if len < 2 { 0 } else { agree(len) }).collect();
    let usual = counts.iter().sum::<usize>() / counts.len();
    let best = |range: std::ops::Range<usize>| {
        let count = |len: usize| counts.get(len).copied().unwrap_or(0);
        let most = range.clone().map(count).max().unwrap_or(0);
        // Of a length and its multiples, which agree almost as often or more, the first is taken.
        let enough = (most - most / 16).max(usual + usual / 4 + places.len() / 100);
        let best = range.clone().find(|len| count(*len) >= enough).unwrap_or(0);
        best as u16
    };
    [best(2..LONG), best(LONG..longest + 1)].into_iter().filter(|len| *len > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_records_is_found() {
        let mut x = 9u64;
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 56) as u8
        };
        for len in [3, 20, 1024, 3000] {
            let mut bytes: Vec<u8> = (0..len).map(|_| next()).collect();
            while bytes.len() < 60_000 {
                let above = bytes[bytes.len() - len];
                let new = next();
                bytes.push(if new < 128 { above } else { new });
            }
            assert!(lengths(&bytes).contains(&(len as u16)), "{len}: {:?}", lengths(&bytes));
        }
        let noise: Vec<u8> = (0..50_000).map(|_| next()).collect();
        assert!(lengths(&noise).is_empty());
        for len in 0..20 {
            lengths(&noise[..len]);
            lengths(&vec![7; len]);
        }
    }
}
