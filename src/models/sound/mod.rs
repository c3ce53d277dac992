//! `sound`: samples that nobody has compressed, whole numbers of 8 to 32 bits and floats, up to eight channels: WAV, AIFF, AU, and
//! samples alone.
//!
//! Samples are taken for numbers (`numbers`). One is predicted from those before it in its channel and in the one beside it (`predictor`), and what it is beside
//! the predictions is decided bit by bit (`values`). What samples are like is told by the head of a file; a segment from the
//! middle of one has none, so the likely formats are tried on a part of it (`search`). Bytes that are no samples, before and
//! behind them, stay as they are. Every segment stands alone.
//!
//! What was found, in segments of 1 MiB: the least squares over five hundred samples alone cost 3 to 5 % more than all stages
//! together; weighing samples by the errors around them gives 0.7 % of music; the channel beside, from its last sample on, 2 %;
//! solving four times as often gives less than 0.1 %. The second cascade gives 0.6 % of music, up to 2 % of a voice or an
//! instrument alone, and 0.2 % of speech; with 1024 samples 0.1 % more of music, and less of speech. What is learned of how decisions went, kept from another segment, would give 0.05 % of music
//! and 0.1 % of speech: predictors are what begins anew, within a thousand samples. So no prior is told.
//!
//! Idea: cascades, F. Ghido, OptimFROG, and S. Lehmann, Sac; T. Liebchen and others, MPEG-4 ALS (RLS-LMS). Limits: memory as
//! `memory_bytes` says, taken for a segment and given back; decoding is as fast as encoding, about a megabyte a second.

mod format;
mod layout;
mod numbers;
mod predictor;
mod search;

use super::zstd::pack;
use super::{Basis, Coded, Declined, Error, InUse, Model, stands_alone};
use crate::base::{Class, MethodId, ModelId, SEGMENT_BYTES_MAX};
use crate::entropy::{Decoder, Encoder};
use format::{CHANNELS_MAX, Format, Found, Head, WIDTH_MAX};
use numbers::{Numbers, Sample};

/// Revision of the payloads that are written.
const REVISION: u16 = 2;
/// The largest segment of eight channels, its samples as numbers, and their predictors.
const BYTES: u64 =
    CHANNELS_MAX as u64 * predictor::CHANNEL_BYTES + size_of::<Sample>() as u64 * SEGMENT_BYTES_MAX as u64;
/// Bytes that formats are tried on, in so many parts.
const TRIAL_BYTES: usize = 32 << 10;
const TRIAL_PARTS: usize = 2;
/// As many formats at most, which are the best on so many bytes.
const TRIED: usize = 3;
const FIRST_TRIAL_BYTES: usize = 8 << 10;
/// Bytes of a sample of a file that are looked at to tell sound from other data.
const SNIFF_BYTES_MIN: usize = 16 << 10;
/// What one channel must be better by than two after a trial, millionths.
const MONO_PENALTY: usize = 15_000;
/// What samples must be better by than the longest ones, millionths: halves of these are told as well as channels of their own, in twice
/// the time.
const HALVES_PENALTY: usize = 15_000;
/// Channels that are tried as the first one.
const SHIFTS: usize = 3;
/// What zstd's quick level makes of a part must be this much larger, 1/100, than what sound is coded to.
const QUICK_PART: usize = 115;

/// Bytes that are looked at in each of two places before any trial, and what a guess at them must be below, 1/100 of what zstd
/// makes of them.
const GLANCE_BYTES: usize = 8 << 10;
const GLANCE_PART: u64 = 87;

/// Sound.
pub(crate) struct Sound;

/// The range code of samples, and how they are taken for numbers.
fn code(format: &Format, bytes: &[u8]) -> (Numbers, Vec<u8>) {
    let numbers = Numbers::of(*format, bytes);
    let mut samples: Vec<Sample> = bytes.chunks_exact(format.width).map(|bytes| numbers.apart(bytes)).collect();
    let mut coder = Encoder::new(bytes.len());
    predictor::pass(&mut coder, &mut samples, &numbers, true);
    (numbers, coder.finish())
}

/// The payload of bytes that have samples.
fn coded(raw: &[u8], found: &Found) -> Result<Coded, Declined> {
    let (numbers, code) = code(&found.format, raw.get(found.from..found.to).unwrap_or_default());
    let payload = layout::join(found, &numbers, raw, &code);
    if payload.len() < raw.len() { Ok(Coded::alone(payload)) } else { Err(Declined::DoesNotShrink) }
}

/// Some samples, of so many bytes, that are tried.
fn parts(raw: &[u8], found: &Found, bytes: usize) -> Vec<u8> {
    let samples = raw.get(found.from..found.to).unwrap_or_default();
    let frame = found.format.frame();
    if samples.len() <= bytes {
        return samples.to_vec();
    }
    let part = bytes / TRIAL_PARTS / frame * frame;
    let step = (samples.len() - part) / TRIAL_PARTS / frame * frame;
    (1..=TRIAL_PARTS).flat_map(|n| samples.get(n * step..n * step + part).unwrap_or_default()).copied().collect()
}

/// The part that some samples are coded to, millionths, as it counts beside others, and bytes that they take.
fn share(found: &Found, parts: &[u8]) -> (usize, usize) {
    let (_, code) = code(&found.format, parts);
    // Two channels know little of each other by then.
    let alone = if found.format.channels == 1 { MONO_PENALTY } else { 0 };
    let penalty = alone + if found.format.width < WIDTH_MAX { HALVES_PENALTY } else { 0 };
    // Parts have whole frames, and so not all the same length.
    (code.len() * (1_000_000 + penalty) / parts.len().max(1), code.len())
}

/// The format that bytes without a head are coded by to the fewest bytes, if it is worth anything, and to what part, millionths; none of
/// longer samples than so many bytes.
fn found_in(raw: &[u8], width_max: usize) -> Option<(usize, Found)> {
    let mut likely = search::likely(raw, width_max);
    if likely.len() > TRIED {
        likely.sort_by_cached_key(|found| share(found, &parts(raw, found, FIRST_TRIAL_BYTES)).0);
        likely.truncate(TRIED);
    }
    let tried = |found: Found| {
        let parts = parts(raw, &found, TRIAL_BYTES);
        let (share, bytes) = share(&found, &parts);
        let quick = pack(&parts, 1).map_or(parts.len(), |quick| quick.len());
        let worth = bytes * QUICK_PART < quick.min(parts.len()) * 100;
        worth.then_some((share, found))
    };
    let best = likely.into_iter().filter_map(tried).min_by_key(|(share, _)| *share)?;
    // Which channel is the first.
    let (_, found) = best;
    let shifted = (1..found.format.channels.min(SHIFTS)).filter_map(|n| search::shifted(found, n, raw.len()));
    shifted.filter_map(tried).chain([best]).min_by_key(|(share, _)| *share)
}

/// True for the first bytes of a file of sound that this method codes.
pub fn begins_as_sound(sample: &[u8]) -> bool {
    matches!(format::head(sample), Head::Samples(_))
}

/// True where bytes may be samples: a guess at what they take is well below what zstd makes of them. It is 0.31 to 0.79 of that
/// for speech and music, 0.9 for what is compressed, and more than 1 for most programs and texts; a trial of formats takes a
/// hundred times as long.
fn may_be_sound(sample: &[u8]) -> bool {
    [sample.len() / 3, sample.len() / 3 * 2].into_iter().any(|at| {
        let piece = sample.get(at..(at + GLANCE_BYTES).min(sample.len())).unwrap_or_default();
        let packed = pack(piece, 1).map_or(piece.len(), |packed| packed.len()) as u64;
        search::guessed_bits(piece) * 100 < packed * 8 * GLANCE_PART
    })
}

/// The part, millionths, that bytes are coded to as samples of one channel or two, where that is much less than otherwise; too few
/// are not looked at. More channels are as likely the fields of records.
pub fn sound_part(sample: &[u8]) -> Option<usize> {
    let worth = matches!(format::head(sample), Head::None) && sample.len() >= SNIFF_BYTES_MIN && may_be_sound(sample);
    let found = if worth { found_in(sample, search::SNIFF_WIDTH_MAX) } else { None };
    found.filter(|(_, found)| found.format.channels <= 2).map(|(part, _)| part)
}

/// Codes samples of which the format is known: whole frames, the lowest byte first, with signs.
pub(super) fn encode_samples(raw: &[u8], channels: u8, width: u8) -> Result<Coded, Declined> {
    let format =
        Format { width: width.into(), channels: channels.into(), big: false, signed: width == 1, float: false };
    let sizes = (1..=WIDTH_MAX).contains(&format.width) && (1..=CHANNELS_MAX).contains(&format.channels);
    if !sizes || !raw.len().is_multiple_of(format.frame()) {
        return Err(Declined::Foreign);
    }
    let _in_use = InUse::new(BYTES);
    coded(raw, &Found { format, from: 0, to: raw.len() })
}

impl Model for Sound {
    fn id(&self) -> MethodId {
        MethodId::Sound
    }

    fn revision(&self) -> u16 {
        REVISION
    }

    fn memory_bytes(&self) -> u64 {
        BYTES
    }

    fn decode_rate_guess(&self) -> u64 {
        900
    }

    fn encode(&self, raw: &[u8], _class: Class, _basis: Basis<'_>) -> Result<Coded, Declined> {
        let _in_use = InUse::new(BYTES);
        let found = match format::head(raw) {
            Head::Samples(found) => found,
            Head::Foreign => return Err(Declined::Foreign),
            Head::None => found_in(raw, WIDTH_MAX).ok_or(Declined::Foreign)?.1,
        };
        coded(raw, &found)
    }

    fn decode(
        &self,
        payload: &[u8],
        raw_len: usize,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        stands_alone(model, basis)?;
        if !(1..=REVISION).contains(&revision) {
            return Err(Error::UnknownRevision(revision));
        }
        let _in_use = InUse::new(BYTES);
        let layout::Parts { numbers, before: mut raw, behind, samples, code } =
            layout::split(payload, raw_len, revision)?;
        let mut samples = vec![Sample::default(); samples];
        predictor::pass(&mut Decoder::new(code), &mut samples, &numbers, revision > 1);
        raw.reserve(raw_len - raw.len());
        samples.into_iter().for_each(|sample| numbers.together(sample, &mut raw));
        raw.extend_from_slice(&behind);
        Ok(raw)
    }
}
