//! What looks alike: pure, from the first bytes of content to an order in which small files are bundled, and from the bytes
//! of a segment to the one that it repeats most.
//!
//! Files that share most of their bytes (versions of one, say) repeat each other only where they lie in one segment. A sketch
//! is made of the smallest values that hash functions give on windows of the bytes (N-transform super-features, as in
//! "Application-specific delta-encoding via resemblance detection", Douglis and Iyengar, 2003): two files with nine tenths of
//! their windows in common share one of three super-features nearly always, two with a fifth nearly never.
//!
//! Segments have less in common: files of one program or site repeat parts of each other. Their traces are single smallest
//! values, so that of `TRACES` as many agree as the part of their windows that both have (min-wise hashing, Broder, 1997). Only
//! windows that a segment has once count: what it repeats itself needs no other segment, and is what most others have too.

use std::collections::{HashMap, HashSet};

use super::policy::SmallFile;
use crate::base::Class;
use crate::codec::Policy;
use crate::store::Looks;

/// Super-features of a file.
const SUPERS: usize = 3;
/// Bytes that a sketch is made of, from the first on.
pub(super) const SKETCH_BYTES: u64 = 64 << 10;
/// Smallest values in each of them: the more, the more alike files must be.
const VALUES: usize = 3;
/// One window in so many is looked at, chosen by its hash; as a shift of 64 bits.
const SAMPLED_SHIFT: u32 = 60;
/// Below this many sampled windows a sketch says nothing.
const WINDOWS_MIN: usize = 8;

/// Features by which segments are compared, of which each of two with a tenth of their windows in common share three; and
/// how many must be shared.
const TRACES: usize = 32;
pub(super) const TRACES_MIN: usize = 2;
/// Of the windows that a segment has once, so many percent must be in another for it to be coded from that.
const REPEATED_PERCENT: usize = 10;

/// What files that look alike have in common; zeros where nothing is known.
pub(super) type Sketch = [u32; SUPERS];

const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A random number for each byte.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        table[n] = mix(n as u64);
        n += 1;
    }
    table
};

/// Odd multipliers: each gives one more order of the windows.
const FUNCTIONS: [u64; TRACES] = {
    let mut out = [0; TRACES];
    let mut n = 0;
    while n < out.len() {
        out[n] = mix(n as u64 + 1000) | 1;
        n += 1;
    }
    out
};

/// Bytes of a window, each of which moves a hash of 64 bits on by two.
const WINDOW_BYTES: usize = 32;

/// Hashes of the windows that are looked at, one in 2^(64 - `shift`): the same windows wherever they lie.
pub(super) fn windows(bytes: &[u8], shift: u32) -> impl Iterator<Item = u64> {
    let mut hash = 0u64;
    bytes.iter().enumerate().filter_map(move |(n, byte)| {
        hash = (hash << (64 / WINDOW_BYTES)).wrapping_add(GEAR[usize::from(*byte)]);
        (n + 1 >= WINDOW_BYTES && hash >> shift == 0).then_some(hash)
    })
}

/// The smallest value of each of `N` functions on hashes, and how many there are.
fn smallest<const N: usize>(hashes: impl Iterator<Item = u64>) -> ([u32; N], usize) {
    let mut smallest = [u32::MAX; N];
    let mut count = 0;
    for hash in hashes {
        count += 1;
        for (value, by) in smallest.iter_mut().zip(FUNCTIONS) {
            *value = (*value).min((hash.wrapping_mul(by) >> 32) as u32);
        }
    }
    (smallest, count)
}

/// Windows that some bytes have once.
fn once(bytes: &[u8]) -> Vec<u64> {
    let mut all: Vec<u64> = windows(bytes, SAMPLED_SHIFT).collect();
    all.sort_unstable();
    all.chunk_by(|a, b| a == b).filter_map(|same| if let [one] = same { Some(*one) } else { None }).collect()
}

/// What a segment looks like: features of which those that repeat each other share some. None where there is too little.
pub(super) fn traces(bytes: &[u8]) -> Looks {
    let (smallest, count) = smallest::<TRACES>(once(bytes).into_iter());
    if count < WINDOWS_MIN {
        return Looks::new();
    }
    // Behind those of the sketches of files, which they are not compared with.
    [0; SUPERS].into_iter().chain(smallest.map(|value| value | 1)).collect()
}

/// True where enough of a segment is in another, and not elsewhere in itself.
pub(super) fn repeats(bytes: &[u8], other: &[u8]) -> bool {
    let there: HashSet<u64> = windows(other, SAMPLED_SHIFT).collect();
    let once = once(bytes);
    let repeated = once.iter().filter(|window| there.contains(window)).count();
    repeated * 100 > once.len() * REPEATED_PERCENT
}

/// The sketch of a file's first bytes.
pub(super) fn sketch(bytes: &[u8]) -> Sketch {
    let first = bytes.get(..SKETCH_BYTES as usize).unwrap_or(bytes);
    let (smallest, windows) = smallest::<{ SUPERS * VALUES }>(windows(first, SAMPLED_SHIFT));
    let mut out = Sketch::default();
    if windows >= WINDOWS_MIN {
        for (sum, values) in out.iter_mut().zip(smallest.chunks(VALUES)) {
            let folded = values.iter().fold(0u64, |sum, value| mix(sum ^ u64::from(*value)));
            *sum = (folded >> 32) as u32 | 1;
        }
    }
    out
}

/// Puts files of one class and policy side by side in the order of their creation, and each that looks like an earlier one behind it.
pub(super) fn order(files: &mut Vec<SmallFile>) {
    files.sort_by_key(|f| (f.class, f.policy, f.ino));
    // Class, policy, which super-feature, its value -> the first file that has it, and those like it.
    let mut first: HashMap<(Class, Policy, usize, u32), usize> = HashMap::new();
    let mut places: Vec<usize> = Vec::with_capacity(files.len());
    for (n, file) in files.iter().enumerate() {
        let keys = || {
            (0..)
                .zip(file.sketch)
                .filter(|(_, value)| *value != 0)
                .map(|(k, value)| (file.class, file.policy, k, value))
        };
        let place = keys().find_map(|key| first.get(&key).copied()).unwrap_or(n);
        keys().for_each(|key| {
            first.entry(key).or_insert(place);
        });
        places.push(place);
    }
    let mut placed: Vec<(usize, SmallFile)> = places.into_iter().zip(std::mem::take(files)).collect();
    // Stable, and a place is never behind one of a later class.
    placed.sort_by_key(|(place, _)| *place);
    files.extend(placed.into_iter().map(|(_, file)| file));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Ino;

    fn text(seed: u64, len: usize) -> Vec<u8> {
        (0u64..).flat_map(|n| format!("{:x} ", mix(seed ^ mix(n)) >> 44).into_bytes()).take(len).collect()
    }

    fn file(ino: u64, class: Class, bytes: &[u8]) -> SmallFile {
        SmallFile {
            ino: Ino(ino),
            class,
            policy: Policy::default(),
            pieces: Vec::new(),
            bytes: 1,
            hash: None,
            sketch: sketch(bytes),
            reference: None,
        }
    }

    #[test]
    fn versions_share_a_sketch_and_strangers_do_not() {
        let (mut near, mut far) = (0, 0);
        for seed in 0..200 {
            let one = text(seed, 6000);
            let mut two = one.clone();
            two.splice(3000..3050, *b"a line that was changed");
            let alike = |a: Sketch, b: Sketch| a.iter().zip(b).any(|(a, b)| *a == b && b != 0);
            near += u32::from(alike(sketch(&one), sketch(&two)));
            far += u32::from(alike(sketch(&one), sketch(&text(seed + 1000, 6000))));
        }
        assert!(near >= 190 && far <= 2, "{near} of 200 versions, {far} of 200 strangers");
        assert_eq!(sketch(b"too short to say anything"), [0; SUPERS]);
    }

    #[test]
    fn segments_that_repeat_a_part_of_each_other_share_traces() {
        let shared = |a: &[u8], b: &[u8]| {
            let (a, b) = (traces(a), traces(b));
            a.iter().zip(&b).skip(SUPERS).filter(|(a, b)| a == b).count()
        };
        let (mut near, mut far) = (0, 0);
        for seed in 0..100 {
            let one = text(seed, 100_000);
            // A quarter of it, behind what both have many times.
            let common = text(7777, 200).repeat(200);
            let two = [&common[..], &one[20_000..45_000], &text(seed + 1000, 75_000)].concat();
            let strange = [&common[..], &text(seed + 2000, 100_000)].concat();
            near += usize::from(shared(&one, &two) >= TRACES_MIN && repeats(&two, &one));
            far += usize::from(shared(&strange, &two) >= TRACES_MIN || repeats(&two, &strange));
        }
        assert!(near >= 85 && far == 0, "{near} of 100 that repeat, {far} of 100 that do not");
        assert!(traces(b"too short to say anything").is_empty());
    }

    #[test]
    fn files_that_look_alike_lie_side_by_side_and_the_others_where_they_were() {
        let (a, b) = (text(1, 5000), text(2, 5000));
        let changed = |bytes: &[u8]| [b"new first line\n", bytes].concat();
        let mut files = vec![
            file(1, Class::Text, &a),
            file(2, Class::Text, &text(3, 900)),
            file(3, Class::Text, &b),
            file(4, Class::Text, b""),
            file(5, Class::Json, &changed(&a)),
            file(6, Class::Text, &changed(&b)),
            file(7, Class::Text, b""),
            file(8, Class::Text, &changed(&a)),
        ];
        order(&mut files);
        assert_eq!(files.iter().map(|f| f.ino.0).collect::<Vec<_>>(), [1, 8, 2, 3, 6, 4, 7, 5]);
    }
}
