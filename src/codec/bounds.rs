//! Where large files are cut into segments: at places that their content chooses, so that a copy that is shifted, or changed
//! in one place, is cut at the same ones and finds the segments that are there. What was cut once stays as it is: the places
//! are no part of the format.

use fastcdc::v2020::FastCDC;

use super::policy::{self, Policy};
use crate::base::{Class, MethodId, SEGMENT_BYTES_MAX};
use crate::containers::{self, Before, CutLimits, MemberBefore};
use crate::models::{classify, video_frames_end};

/// Bytes of the segments of a class when the content chooses where they end: at least, usually, and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub min: u32,
    pub usual: u32,
    pub max: u32,
    pub ends: Ends,
}

/// What says where segments end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Their content.
    Content,
    /// The containers in them: so many bytes may come out of those in one.
    Containers { text_bytes: u32 },
    /// Frames of video, and where there are none their content.
    Frames,
    /// Their content, but for the last two, which are equally long: a short one learns too little.
    Halves,
}

impl Bounds {
    /// Bytes that any segment of a long file has but the last.
    pub fn shortest(&self) -> u32 {
        if self.ends == Ends::Halves { self.min.min(self.max / 2) } else { self.min }
    }
}

/// Bytes by which the class of a member is told, as that of a file is.
const SAMPLE_BYTES: usize = 64 << 10;
/// Text of a segment of containers is not bounded below this, bytes: a member of an archive, or a block of a stream.
const TEXT_BYTES_MIN: u32 = 128 << 10;
/// Segments of containers are not cut shorter between members, bytes.
const CONTAINER_BYTES_MIN: u32 = 64 << 10;

/// The first segment of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstCut {
    pub len: usize,
    /// What it looks like, where that is not what all of the bytes are.
    pub class: Option<Class>,
    /// The next segment goes on with a stream that began in this one or before it.
    pub before: Option<Before>,
}

/// Around what the policy leads to: half of it to twice as much, and half of that where twice as much is more than a segment
/// may have, or takes longer to decode than the policy allows; of pixels and samples five eighths of the most and that.
pub fn bounds(class: Class, policy: &Policy) -> Bounds {
    let (method, usual) = policy::plan(class, policy);
    // What is in it by the strongest method that the policy has.
    let text = policy::rooms(policy).first().map_or(0, |room| room.text_bytes as u32);
    // Pictures are whole.
    if matches!(class, Class::Container | Class::Jpeg) && policy.allows(MethodId::Opened) && text >= TEXT_BYTES_MIN {
        let ends = Ends::Containers { text_bytes: text };
        return Bounds { min: CONTAINER_BYTES_MIN, usual, max: SEGMENT_BYTES_MAX, ends };
    }
    let bounds = around(usual, |bytes| policy::keeps(policy, method, bytes));
    if method == MethodId::Video {
        return Bounds { ends: Ends::Frames, ..bounds };
    }
    // Each segment begins to learn anew: shorter ones cost 1 % of a photograph, and copies that are shifted are rare among pixels and
    // samples.
    if matches!(method, MethodId::Picture | MethodId::Sound) {
        return Bounds { min: bounds.max / 8 * 5, usual: bounds.max / 4 * 3, ends: Ends::Halves, ..bounds };
    }
    bounds
}

fn around(usual: u32, keeps: impl Fn(u32) -> bool) -> Bounds {
    let longer = usual <= SEGMENT_BYTES_MAX / 2 && keeps(usual * 2);
    let usual = if longer { usual } else { usual / 2 };
    Bounds { min: usual / 2, usual, max: usual * 2, ends: Ends::Content }
}

/// Bytes of the first segment of `left` bytes, of which `bytes` are the first, `bounds.max` of them or all there are: the last segment is
/// not a scrap. `before` says that they go on with a stream, or with a member that is cut as a file of its
/// own by the policy.
pub fn first_cut(bytes: &[u8], bounds: Bounds, left: u64, (before, policy): (Option<&Before>, &Policy)) -> FirstCut {
    if let Some(Before::Member(member)) = before {
        return member_cut(bytes, left, member, policy);
    }
    let looked_at = bytes.get(..bounds.max as usize).unwrap_or(bytes);
    let ends = looked_at.len() as u64 == left;
    let of = |len| FirstCut { len, class: None, before: None };
    match bounds.ends {
        Ends::Containers { text_bytes } => {
            let limits = CutLimits { min: bounds.min as usize, text_bytes: text_bytes as usize };
            let cut = containers::cut(looked_at, before, limits, ends);
            return FirstCut { len: cut.len, class: None, before: cut.before };
        }
        Ends::Frames => {
            if let Some(len) = video_frames_end(looked_at) {
                return of(if ends { looked_at.len() } else { len });
            }
        }
        Ends::Halves if ends => return of(looked_at.len()),
        Ends::Halves if left.div_ceil(2) <= looked_at.len() as u64 => return of(left.div_ceil(2) as usize),
        Ends::Halves | Ends::Content => {}
    }
    let cut = FastCDC::new(looked_at, bounds.min as usize, bounds.usual as usize, bounds.max as usize)
        .next()
        .map_or(looked_at.len(), |chunk| chunk.length);
    let len = if ends && looked_at.len() - cut < bounds.min as usize / 2 { looked_at.len() } else { cut };
    of(len)
}

/// As `first_cut`, of what is left of a member.
fn member_cut(bytes: &[u8], left: u64, member: &MemberBefore, policy: &Policy) -> FirstCut {
    let data = bytes.get(..member.bytes as usize).unwrap_or(bytes);
    let class = member.class.unwrap_or_else(|| classify(data.get(..SAMPLE_BYTES).unwrap_or(data)));
    let bounds = bounds(class, policy);
    let data = data.get(..bounds.max as usize).unwrap_or(data);
    let cut = first_cut(data, bounds, left.min(member.bytes), (member.before.as_deref(), policy));
    let left = member.bytes - cut.len as u64;
    let before = MemberBefore { bytes: left, class: Some(class), before: cut.before.map(Box::new) };
    let before = (left > 0).then_some(Before::Member(before));
    FirstCut { len: cut.len, class: Some(cut.class.unwrap_or(class)), before }
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
            let (first, rest) =
                bytes.split_at(first_cut(bytes, bounds, bytes.len() as u64, (None, &Policy::default())).len);
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
                assert!(
                    b.min <= b.usual && b.usual < b.max || matches!(b.ends, Ends::Containers { .. }) && b.min < b.max,
                    "{b:?}"
                );
                assert!(b.max <= SEGMENT_BYTES_MAX, "{b:?}");
            }
        }
        assert_eq!(
            around(256 << 10, |_| true),
            Bounds { min: 128 << 10, usual: 256 << 10, max: 512 << 10, ends: Ends::Content }
        );
        assert_eq!(
            around(256 << 10, |_| false),
            Bounds { min: 64 << 10, usual: 128 << 10, max: 256 << 10, ends: Ends::Content }
        );
        assert_eq!(
            around(1 << 20, |_| true),
            Bounds { min: 256 << 10, usual: 512 << 10, max: 1 << 20, ends: Ends::Content }
        );
    }

    #[test]
    fn a_shifted_copy_is_cut_at_the_same_places() {
        let bounds = Bounds { min: 4 << 10, usual: 8 << 10, max: 16 << 10, ends: Ends::Content };
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
    fn the_last_two_are_halves_where_that_is_wanted() {
        let bounds = Bounds { min: 10 << 10, usual: 12 << 10, max: 16 << 10, ends: Ends::Halves };
        for len in [1, 16 << 10, (16 << 10) + 1, 20_001, 32 << 10, 40_000, 100_000] {
            let bytes = noise(len, 3);
            let lens: Vec<usize> = cuts(&bytes, bounds).iter().map(|cut| cut.len()).collect();
            assert!(lens.iter().all(|n| *n <= 16 << 10), "{lens:?}");
            if let [.., last, end] = lens[..] {
                assert!(last - end <= 1 && end * 2 >= 16 << 10, "{lens:?}");
            }
            assert_eq!(lens.len() > 1, len > 16 << 10);
            // What is known of how much there is does not have to be at hand.
            let first = first_cut(&bytes[..len.min(16 << 10)], bounds, len as u64, (None, &Policy::default()));
            assert_eq!(first.len, lens[0]);
        }
    }

    #[test]
    fn short_and_dull_data_is_cut_too() {
        let bounds = Bounds { min: 4 << 10, usual: 8 << 10, max: 16 << 10, ends: Ends::Content };
        assert_eq!(first_cut(b"x", bounds, 1, (None, &Policy::default())).len, 1);
        assert_eq!(first_cut(&vec![0; 100_000], bounds, 100_000, (None, &Policy::default())).len, 16 << 10);
    }
}
