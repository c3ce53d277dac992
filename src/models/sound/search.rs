//! What samples are like, found from bytes alone, wherever a segment was cut.

use super::format::{CHANNELS_MAX, Format, Found, WIDTH_MAX};
use super::numbers::Numbers;

/// Bytes that are looked at, and the most formats of a width that are worth a trial.
const LOOK_BYTES: usize = 12 << 10;
const TRIALS: usize = 3;
/// Longest samples that data of no known kind is taken for: longer ones are as likely the numbers of a table, of which other methods
/// make less.
pub(super) const SNIFF_WIDTH_MAX: usize = 3;
/// What samples may differ by from what the two before lead to expect, 1/16 of a bit on average: as much as their own
/// sizes less this.
const GAIN_MIN: u64 = 4;

/// What a sample takes beyond the octaves of its difference, 1/16 of a bit: its sign, and that sizes differ.
const SPREAD: u64 = 48;

/// Octaves of a difference, 1/16.
fn octaves(x: i32) -> u64 {
    let size = u64::from(x.unsigned_abs()) * 16 + 16;
    let whole = size.ilog2();
    u64::from(whole - 4) * 16 + ((size << 4 >> whole) - 16)
}

/// What a sample takes where one guess is made for all of them, 1/16 of a bit: where the guess is right, and beyond the octaves of
/// its difference where it is not.
const GUESS_RIGHT: u64 = 8;
const GUESS_SPREAD: u64 = 24;

/// Formats of one channel that bytes without head may have, each with what comes before its first whole sample, bytes.
fn of_one_channel(width_max: usize) -> impl Iterator<Item = (usize, Format)> {
    let usual = Format { width: 1, channels: 1, big: false, signed: false, float: false };
    let of = move |width: usize, big: bool| Format { width, big, ..usual };
    let floats = |format: Format| Format { float: true, ..format };
    [
        usual,
        Format { signed: true, ..usual },
        of(2, false),
        of(2, true),
        of(3, false),
        of(3, true),
        of(4, false),
        of(4, true),
        floats(of(4, false)),
        floats(of(4, true)),
    ]
    .into_iter()
    .filter(move |format| format.width <= width_max)
    .flat_map(|format| (0..format.width).map(move |phase| (phase, format)))
}

/// Bytes as numbers, from silence on, and the bits that are left of them.
fn numbers(bytes: &[u8], phase: usize, format: &Format) -> (Vec<i32>, u64) {
    let bytes = bytes.get(phase..).unwrap_or_default();
    let plan = Numbers::of(*format, bytes);
    let (zero, mut left) = (plan.range().zero, 0);
    let samples = bytes.chunks_exact(format.width).map(|bytes| plan.apart(bytes));
    let number = |sample| {
        left += u64::from(plan.left_bits(&sample));
        sample.number - zero
    };
    (samples.map(number).collect(), left)
}

/// About what bytes take as samples of one channel or two, of the format that suits them best: bits. Each is guessed from the one
/// before, or from the line through two, whichever is better for all of them.
pub(super) fn guessed_bits(bytes: &[u8]) -> u64 {
    let guesses = of_one_channel(SNIFF_WIDTH_MAX).flat_map(|(phase, mono)| {
        let (samples, _) = numbers(bytes, phase, &mono);
        (1..=2).map(move |channels| {
            let taken = |off: i32| if off == 0 { GUESS_RIGHT } else { octaves(off) + GUESS_SPREAD };
            let (mut step, mut line) = (0, 0);
            for row in samples.windows(2 * channels + 1) {
                let (Some(a), Some(b), Some(c)) = (row.first(), row.get(channels), row.last()) else { continue };
                step += taken(c - b);
                line += taken(c - 2 * b + a);
            }
            step.min(line) / 16
        })
    });
    guesses.min().unwrap_or(u64::MAX)
}

/// Formats that the bytes of a segment without head may have, those first whose samples are nearest to a line through the two
/// before, and where the first frame begins. Each is worth a trial. None has longer samples than so many bytes.
pub(super) fn likely(raw: &[u8], width_max: usize) -> Vec<Found> {
    let mut costs: Vec<(u64, Found)> = Vec::new();
    let mut unsigned = u64::MAX;
    let looked_at = raw.get((raw.len().saturating_sub(LOOK_BYTES)) / 2 / 24 * 24..).unwrap_or(raw);
    let looked_at = looked_at.get(..LOOK_BYTES).unwrap_or(looked_at);
    for (phase, mono) in of_one_channel(width_max) {
        let (width, signed) = (mono.width, mono.signed);
        let (samples, left) = numbers(looked_at, phase, &mono);
        let sizes: u64 = samples.iter().map(|number| octaves(*number)).sum();
        // Samples of a byte are nearer to silence by their right sign.
        if width == 1 && !signed {
            unsigned = sizes;
        } else if signed && sizes >= unsigned {
            continue;
        }
        let mut least = u64::MAX;
        for channels in 1..=CHANNELS_MAX {
            let frame = width * channels;
            // From a line, from the sample before, or from that of the channel beside.
            let lines = samples.windows(2 * channels + 1).map(|row| match row {
                [a, .., beside, c] => {
                    let b = row.get(channels).unwrap_or(beside);
                    octaves(c - 2 * b + a).min(octaves(c - b)).min(octaves(c - beside))
                }
                _ => 0,
            });
            let count = (samples.len().saturating_sub(2 * channels)) as u64;
            let cost: u64 = lines.sum();
            if count < 64 || cost + GAIN_MIN * count > sizes {
                continue;
            }
            // Of a byte. More channels than need be must be worth it: samples of two are as near in four.
            let cost = (cost + SPREAD * count + 16 * left) * 1000 / (count * width as u64);
            if channels > 2 && cost >= least - least / 50 {
                continue;
            }
            least = cost.min(least);
            let found = Found::new(Format { channels, ..mono }, phase, raw.len());
            costs.extend(found.filter(|_| frame <= raw.len()).map(|found| (cost, found)));
        }
    }
    costs.sort_by_key(|(cost, _)| *cost);
    let of_width = |width| costs.iter().filter(move |(_, found)| found.format.width == width).take(TRIALS);
    (1..=WIDTH_MAX).flat_map(of_width).map(|(_, found)| *found).collect()
}

/// The same samples, a channel later.
pub(super) fn shifted(found: Found, channels: usize, len: usize) -> Option<Found> {
    Found::new(found.format, found.from + channels * found.format.width, len)
}
