//! What bounds the choice of a method, and how long the segments are that it leads to. Pure but for the measured speeds.

use std::fmt;
use std::str::FromStr;

use super::{Basis, encode, predicted_decode_ms, rate, segment_bytes};
use crate::base::{Class, MethodId, SEGMENT_BYTES_MAX};
use crate::models::{BY_STRENGTH, LANE_BYTES_MAX, LANE_BYTES_MIN, ModelKind, OPENED_TEXT_BYTES_MAX, Room, suits};

/// Longest decode budget that may be asked for, milliseconds: an hour.
pub const DECODE_MS_MAX: u32 = 3_600_000;
/// Segments are not made shorter than this for a budget, bytes: each starts anew, and its header takes a hundred bytes.
pub const SEGMENT_BYTES_MIN: u32 = 16 << 10;

/// The strong profile is given no shorter segments than this for a budget, bytes: half as long ones cost more than it gains
/// on the usual one, which is twice as fast.
const STRONG_BYTES_MIN: u32 = 256 << 10;

/// Language models are given no longer segments than this, bytes: half an hour of one core for some, and lost when it is cut
/// off. They gain nothing by longer ones, as lanes stand alone.
const LANGUAGE_BYTES_MAX: u32 = 256 << 10;

/// How much time is given for how much space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// zstd alone: decodes at hundreds of MB/s.
    Fast,
    /// The default method, segments as long as the class of the data is worth.
    #[default]
    Balanced,
    /// The strongest method of this build in the longest segments, whatever a read of a few bytes then costs; and for text a
    /// language model, for other data a model of images or bytes, where the volume has one.
    Deep,
}

impl Tier {
    /// Every tier, the fastest first.
    pub const ALL: [Tier; 3] = [Tier::Fast, Tier::Balanced, Tier::Deep];

    /// The name that flags, attributes and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Fast => "fast",
            Tier::Balanced => "balanced",
            Tier::Deep => "deep",
        }
    }

    /// Budget for decoding one segment where nobody asked for another, milliseconds.
    pub fn decode_ms_max(self) -> u32 {
        match self {
            Tier::Fast | Tier::Balanced => 2_000,
            Tier::Deep => 10_000,
        }
    }

    /// True when the tier codes with a method. The older form of the default method is written on demand only.
    fn allows(self, method: MethodId) -> bool {
        match method {
            MethodId::Raw | MethodId::Zstd => true,
            // Opened files are closed at some ten MB/s, which is not what the fast tier promises.
            MethodId::Primed
            | MethodId::Swift
            | MethodId::Genome
            | MethodId::Opened
            | MethodId::Sound
            | MethodId::Picture
            | MethodId::Video => self != Tier::Fast,
            MethodId::Strong | MethodId::Language => self == Tier::Deep,
            MethodId::Cm => false,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tier {
    type Err = ();

    fn from_str(name: &str) -> Result<Tier, ()> {
        Tier::ALL.into_iter().find(|t| t.name() == name).ok_or(())
    }
}

/// What bounds the choice of a method. Files of different policies never share a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    pub tier: Tier,
    /// Longest time one segment may take to decode on this machine, milliseconds; `None` for the budget of the tier.
    pub decode_ms: Option<u32>,
    /// Use this method only (still falling back to raw when it does not shrink), whatever the tier; `None` tries all of the
    /// tier and takes the smallest.
    pub only: Option<MethodId>,
    /// The volume has a language model, which the tiers that allow it use.
    pub language: bool,
    /// It has a model of images or bytes, likewise.
    pub bytes: bool,
    /// Compressed formats stay closed: they are coded as they are.
    pub closed: bool,
}

impl Policy {
    /// The policy of a tier with nothing else asked for.
    pub fn of(tier: Tier) -> Policy {
        Policy { tier, ..Policy::default() }
    }

    /// What data of files of this and another policy may be coded by: the faster tier and the shorter budget.
    pub fn weaker_of(&self, other: &Policy) -> Policy {
        let ms = |policy: &Policy| policy.decode_ms_max();
        Policy {
            tier: self.tier.min(other.tier),
            decode_ms: Some(ms(self).min(ms(other))),
            only: if self.only == other.only { self.only } else { self.only.or(other.only) },
            language: self.language && other.language,
            bytes: self.bytes && other.bytes,
            closed: self.closed || other.closed,
        }
    }

    /// Longest time one segment may take to decode on this machine, milliseconds.
    pub fn decode_ms_max(&self) -> u32 {
        self.decode_ms.unwrap_or(self.tier.decode_ms_max())
    }

    /// True when a segment that is there may take the place of one that the policy would have coded: it is of a method that
    /// the policy has tried, of its older form, or raw, and decodes within the budget.
    pub fn accepts(&self, method: MethodId, bytes: u32) -> bool {
        let alike = match method {
            MethodId::Raw => true,
            MethodId::Cm => self.allows(MethodId::Cm) || self.allows(MethodId::Primed),
            // The smaller one of two that keep the budget.
            MethodId::Strong => self.allows(MethodId::Strong) || self.allows(MethodId::Primed),
            MethodId::Zstd
            | MethodId::Primed
            | MethodId::Swift
            | MethodId::Genome
            | MethodId::Language
            | MethodId::Opened
            | MethodId::Sound
            | MethodId::Picture
            | MethodId::Video => self.allows(method),
        };
        // How long containers take says what is in them: whoever asks decodes them.
        let in_time = || predicted_decode_ms(method, cold_bytes(method, bytes)) <= self.decode_ms_max();
        alike && (method == MethodId::Opened || in_time())
    }

    /// True when a segment of some bytes may be coded from one that is there: decoding both takes no longer than the policy
    /// allows. Each was cut so that it takes that long alone with time to spare.
    pub fn may_refer(&self, class: Class, bytes: u32, (method, reference_bytes): (MethodId, u32)) -> bool {
        let planned = plan(class, &self.without_models()).0;
        // What would be opened is coded as it is where it is coded from another.
        let planned = if planned == MethodId::Opened { plan(Class::Binary, &self.without_models()).0 } else { planned };
        let own = predicted_decode_ms(planned, bytes);
        if method == MethodId::Opened {
            // Plain containers are like others. How long one takes is seen when it is decoded.
            return class == Class::Container && self.accepts(method, reference_bytes) && own <= self.opened_ms_max();
        }
        let ms = predicted_decode_ms(method, reference_bytes).saturating_add(own);
        self.accepts(method, reference_bytes) && ms <= self.decode_ms_max()
    }

    /// Longest time that a segment which was opened may take to decode for another to be coded from it, milliseconds.
    pub fn opened_ms_max(&self) -> u32 {
        self.decode_ms_max() / 2
    }

    /// True when the policy has a method tried at all.
    pub fn allows(&self, method: MethodId) -> bool {
        let by_tier = || {
            let language = self.language || self.bytes || method != MethodId::Language;
            self.tier.allows(method) && language && !(self.closed && method == MethodId::Opened)
        };
        self.only.map_or_else(by_tier, |only| only == method)
    }

    /// True when the policy has a method tried on data of a class.
    pub fn tries(&self, method: MethodId, class: Class) -> bool {
        let has_model = || if ModelKind::Text.suits(class) { self.language } else { self.bytes };
        let can = method != MethodId::Language || self.only == Some(method) || has_model();
        self.allows(method) && suits(method, class) && can
    }

    /// The same where the volume has no models: none of them uses a reference, so that what has one is coded by the next weaker
    /// method.
    pub fn without_models(&self) -> Policy {
        Policy { language: false, bytes: false, ..*self }
    }
}

/// Plain bytes that a read of a few of them decodes at least, of a segment of so many.
pub(super) fn cold_bytes(method: MethodId, segment_bytes: u32) -> u32 {
    if method == MethodId::Language { segment_bytes.min(LANE_BYTES_MIN as u32) } else { segment_bytes }
}

/// Plain bytes of the lanes that a language model codes under a policy: the longest that keeps the budget with a quarter to
/// spare, as a longer one costs less to begin and knows more. `None` where none does, or the policy uses none for the class.
pub(super) fn lane_bytes(class: Class, policy: &Policy) -> Option<usize> {
    let lanes = std::iter::successors(Some(LANE_BYTES_MAX), |n| Some(n / 2)).take_while(|n| *n >= LANE_BYTES_MIN);
    lanes.filter(|_| policy.tries(MethodId::Language, class)).find(|n| keeps(policy, MethodId::Language, *n as u32))
}

/// Plain bytes per segment of a class under a policy: a power of two from `SEGMENT_BYTES_MIN` to `SEGMENT_BYTES_MAX`. The
/// longest segment of the strongest method that keeps the budget with a quarter to spare, as speeds vary between now and the
/// day it is read; where no segment of it does, that of the next weaker method.
pub fn cut(class: Class, policy: &Policy) -> u32 {
    plan(class, policy).1
}

/// As `cut`, for segments that are coded from one of `reference_bytes`: the longest with which both are decoded within the
/// budget. `None` where none is.
pub fn cut_beside(class: Class, policy: &Policy, reference_bytes: u32) -> Option<u32> {
    let (method, longest) = plan(class, &policy.without_models());
    std::iter::successors(Some(longest), |n| Some(n / 2))
        .take_while(|n| *n >= SEGMENT_BYTES_MIN)
        .find(|len| policy.may_refer(class, *len, (method, reference_bytes)))
}

/// How much text of opened containers each method decodes within a policy's budget, with a quarter to spare and a tenth for
/// closing them again, the strongest first; and how many samples and pixels.
pub(super) fn rooms(policy: &Policy) -> Vec<Room> {
    let methods =
        [MethodId::Strong, MethodId::Primed, MethodId::Swift, MethodId::Zstd, MethodId::Sound, MethodId::Picture];
    let room = |method| {
        let ms = u64::from(predicted_decode_ms(method, SEGMENT_BYTES_MAX)).max(1);
        // Pixels take so long that closing them is little beside it.
        let part = if method == MethodId::Picture { 78 } else { 70 };
        let text_bytes = u64::from(SEGMENT_BYTES_MAX) * u64::from(policy.decode_ms_max()) * part / 100 / ms;
        Room { method, text_bytes: text_bytes.min(OPENED_TEXT_BYTES_MAX as u64) as usize }
    };
    methods.into_iter().filter(|method| policy.tier.allows(*method)).map(room).collect()
}

/// The method that a policy leads to, and the plain bytes of its segments.
pub(super) fn plan(class: Class, policy: &Policy) -> (MethodId, u32) {
    let longest = match policy.tier {
        Tier::Deep if !matches!(class, Class::Incompressible | Class::Container) => SEGMENT_BYTES_MAX,
        Tier::Fast | Tier::Balanced | Tier::Deep => segment_bytes(class),
    };
    plan_by(longest, class, policy, predicted_decode_ms)
}

/// The method that a policy leads to for a class: the strongest that keeps the budget in some length of segments.
pub fn planned(class: Class, policy: &Policy) -> MethodId {
    plan(class, policy).0
}

/// True when a policy leads to a stronger method than the one that a segment of a class is coded by.
pub fn climbs(class: Class, from: MethodId, policy: &Policy) -> bool {
    let rank = |method| BY_STRENGTH.iter().position(|m| *m == method).unwrap_or(BY_STRENGTH.len());
    // Containers that do not open are stored raw.
    !matches!(class, Class::Incompressible | Class::Container | Class::Jpeg)
        && rank(planned(class, policy)) < rank(from)
}

/// True when a segment was cut too long for the budget, as this machine decodes slower than it was taken to: rather than
/// coded by a weaker method it should be cut anew. Where a budget was asked for and nothing was measured yet, this is the
/// time to do so.
///
/// # Blocking
/// Codes and decodes some of the bytes, once.
pub fn outgrows(raw: &[u8], class: Class, policy: &Policy) -> bool {
    let (method, len) = plan(class, policy);
    // What is opened was cut by the text that is in it, and is timed when it is coded.
    if raw.len() <= SEGMENT_BYTES_MIN as usize || method == MethodId::Opened {
        return false;
    }
    if policy.decode_ms.is_some() && !rate::is_known(method) && method != MethodId::Language {
        let only = Policy { only: Some(method), decode_ms: Some(DECODE_MS_MAX), ..*policy };
        // The first fills tables for the first time, and is too short to be taken for a measurement.
        for units in [1, 4, 4, 4] {
            let bytes = units * SEGMENT_BYTES_MIN as usize / 2;
            let _ = encode(raw.get(..bytes).unwrap_or(raw), class, &only, Basis::default());
        }
        return outgrows_by(raw.len(), plan(class, policy), policy);
    }
    outgrows_by(raw.len(), (method, len), policy)
}

fn outgrows_by(raw_len: usize, (method, len): (MethodId, u32), policy: &Policy) -> bool {
    raw_len > len as usize && predicted_decode_ms(method, raw_len as u32) > policy.decode_ms_max()
}

/// True when a segment of a method keeps the budget with a quarter to spare.
pub(super) fn keeps(policy: &Policy, method: MethodId, bytes: u32) -> bool {
    predicted_decode_ms(method, bytes).saturating_mul(5) / 4 <= policy.decode_ms_max()
}

fn plan_by(longest: u32, class: Class, policy: &Policy, predicted: impl Fn(MethodId, u32) -> u32) -> (MethodId, u32) {
    let sizes = |id| {
        let shortest = if id == MethodId::Strong { STRONG_BYTES_MIN } else { SEGMENT_BYTES_MIN };
        let longest = if id == MethodId::Language { longest.min(LANGUAGE_BYTES_MAX) } else { longest };
        std::iter::successors(Some(longest), |n| Some(n / 2)).take_while(move |n| *n >= shortest)
    };
    let methods = BY_STRENGTH.into_iter().filter(|id| policy.tries(*id, class));
    let fits =
        |id: MethodId, len: u32| predicted(id, cold_bytes(id, len)).saturating_mul(5) / 4 <= policy.decode_ms_max();
    let mut fitting = methods.filter_map(|id| sizes(id).find(|len| fits(id, *len)).map(|len| (id, len)));
    fitting.next().unwrap_or((MethodId::Raw, SEGMENT_BYTES_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One millisecond per KiB for models, a hundredth for the rest.
    fn slow(id: MethodId, len: u32) -> u32 {
        match id {
            MethodId::Strong => len >> 9,
            MethodId::Genome => len >> 11,
            MethodId::Language => len,
            MethodId::Cm
            | MethodId::Primed
            | MethodId::Opened
            | MethodId::Sound
            | MethodId::Picture
            | MethodId::Video => len >> 10,
            MethodId::Swift => len >> 12,
            MethodId::Raw | MethodId::Zstd => (len >> 10).div_ceil(100),
        }
    }

    fn check(policy: Policy, expected: u32) {
        assert_eq!(plan_by(256 << 10, Class::Text, &policy, slow).1 >> 10, expected, "{policy:?}");
    }

    #[test]
    fn segments_are_halved_until_the_strongest_method_keeps_the_budget() {
        let budget = |ms| Policy { decode_ms: Some(ms), ..Policy::default() };
        check(Policy::default(), 256);
        check(budget(320), 256);
        check(budget(319), 128);
        check(budget(80), 64);
        check(budget(79), 32);
        check(budget(20), 16);
        // No segment of the usual profile keeps this: the swift one.
        check(budget(19), 32);
        check(budget(5), 16);
        // Nor does that: zstd, in segments as long as it may have.
        check(budget(4), 256);
        check(budget(2), 128);
        check(Policy { tier: Tier::Fast, ..budget(100) }, 256);
        // The strong profile, and where it would be in short segments, the usual one.
        let deep = |ms| plan_by(1 << 20, Class::Text, &Policy { tier: Tier::Deep, ..budget(ms) }, slow);
        assert_eq!(deep(2560), (MethodId::Strong, 1 << 20));
        assert_eq!(deep(640), (MethodId::Strong, 256 << 10));
        assert_eq!(deep(639), (MethodId::Primed, 256 << 10));
        // A language model is bounded by its lanes, of which the shortest takes a second here.
        let language =
            |ms| plan_by(1 << 20, Class::Text, &Policy { tier: Tier::Deep, language: true, ..budget(ms) }, slow);
        assert_eq!(language(2560), (MethodId::Language, 256 << 10));
        assert_eq!(language(1279), (MethodId::Strong, 256 << 10));
        let binary =
            plan_by(1 << 20, Class::Binary, &Policy { tier: Tier::Deep, language: true, ..budget(2560) }, slow);
        assert_eq!(binary, (MethodId::Strong, 1 << 20));
        // Nor does a model of bytes code text, or machine code.
        let by_bytes = |class| plan_by(1 << 20, class, &Policy { tier: Tier::Deep, bytes: true, ..budget(2560) }, slow);
        assert_eq!(by_bytes(Class::Binary), (MethodId::Language, 256 << 10));
        assert_eq!([Class::Text, Class::Exec].map(by_bytes), [(MethodId::Strong, 1 << 20); 2]);
        check(Policy { language: true, ..budget(320) }, 256);
        check(Policy { only: Some(MethodId::Cm), ..budget(40) }, 32);
        // The one method that is wanted cannot: then the shortest segments, which are stored raw.
        check(Policy { only: Some(MethodId::Cm), ..budget(3) }, 16);
    }

    #[test]
    fn what_two_policies_allow_is_what_both_do() {
        let (fast, deep) = (Policy { decode_ms: Some(5000), ..Policy::of(Tier::Fast) }, Policy::of(Tier::Deep));
        let both = Policy { decode_ms: Some(5000), ..fast };
        assert_eq!((fast.weaker_of(&deep), deep.weaker_of(&fast)), (both, both));
        let zstd = Policy { only: Some(MethodId::Zstd), ..deep };
        assert_eq!(deep.weaker_of(&zstd).only, Some(MethodId::Zstd));
    }

    #[test]
    fn segments_climb_to_stronger_methods_only() {
        let free = |tier| Policy { decode_ms: Some(DECODE_MS_MAX), ..Policy::of(tier) };
        assert!(climbs(Class::Text, MethodId::Zstd, &free(Tier::Balanced)));
        assert!(climbs(Class::Text, MethodId::Primed, &free(Tier::Deep)));
        assert!(climbs(Class::Text, MethodId::Strong, &Policy { language: true, ..free(Tier::Deep) }));
        assert!(!climbs(Class::Text, MethodId::Primed, &free(Tier::Balanced)));
        assert!(!climbs(Class::Text, MethodId::Strong, &free(Tier::Deep)));
        assert!(!climbs(Class::Text, MethodId::Strong, &free(Tier::Fast)));
        assert!(!climbs(Class::Incompressible, MethodId::Raw, &free(Tier::Deep)));
    }

    /// A picture is one segment, whatever other methods would take for so many bytes.
    #[test]
    fn what_is_opened_is_not_cut_by_its_own_length() {
        let policy = Policy { decode_ms: Some(500), ..Policy::default() };
        assert_eq!(planned(Class::Jpeg, &policy), MethodId::Opened);
        assert!(!outgrows(&vec![7; SEGMENT_BYTES_MAX as usize], Class::Jpeg, &policy));
        assert!(!policy.may_refer(Class::Jpeg, 1000, (MethodId::Opened, 1000)));
    }

    #[test]
    fn a_file_that_is_to_be_fast_shares_nothing_slow() {
        let (fast, free) = (Policy::of(Tier::Fast), Policy::default());
        assert!(free.accepts(MethodId::Primed, 1) && free.accepts(MethodId::Cm, 1) && free.accepts(MethodId::Zstd, 1));
        assert!(fast.accepts(MethodId::Zstd, 1) && fast.accepts(MethodId::Raw, 1 << 20));
        assert!(!fast.accepts(MethodId::Primed, 1) && !fast.accepts(MethodId::Cm, 1));
        let hurried = Policy { decode_ms: Some(0), ..free };
        assert!(!hurried.accepts(MethodId::Primed, 1 << 20));
    }

    #[test]
    fn cuts_are_powers_of_two_within_bounds() {
        for class in Class::ALL {
            for tier in Tier::ALL {
                for decode_ms in [None, Some(1), Some(20), Some(100), Some(DECODE_MS_MAX)] {
                    let len = cut(class, &Policy { decode_ms, ..Policy::of(tier) });
                    assert!(len.is_power_of_two() && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&len));
                }
                assert_eq!(tier.name().parse(), Ok(tier));
            }
            let unbounded = Policy { decode_ms: Some(DECODE_MS_MAX), ..Policy::default() };
            assert_eq!(cut(class, &unbounded), segment_bytes(class));
        }
        assert!("quick".parse::<Tier>().is_err());
    }
}
