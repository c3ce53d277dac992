//! `picture`: pixels that nobody has compressed, of one to eight values of 8 or 16 bits: PNM, PAM, BMP, TIFF, NPY, FITS, NIfTI,
//! DICOM, and pixels alone.
//!
//! Each plane of colour is coded after the other, so that all of those before it are known around a pixel. A value is predicted
//! from those around it by least squares over what lies near in the picture (`around`), predictions are weighed by how far off
//! they were (`predictor`), and what the value is is decided in a few steps (`decisions`) by distributions, counters of how such
//! decisions went and counters of which values there are at all. In pictures that are drawn, values that are just those of other
//! pixels are told first (`same`). What pixels are like is told by the head of a file; a segment from the middle of one has none,
//! so that it is found (`format`). Bytes that are no pixels stay as they are. Every segment stands alone.
//!
//! What was found with photographs: all that was learned of six others (16 MB of tables) saves 0.5 % of six, the weights of mixers alone
//! (1.5 MB) 0.26 %, weights by decision (12 KB) cost 0.07 %; what the plane before has learned saves 0.1 %. So no prior is told.
//!
//! Idea: least squares around a pixel, B. Meyer and P. Tischer, Glicbawls; X. Wu and others, EDP; mixing of distributions and
//! counters, M. Pais and others, paq8px. Limits: memory as `memory_bytes` says, taken for a segment and given back; decoding is
//! as fast as encoding.

pub(super) mod around;
pub(super) mod decisions;
pub(super) mod errors;
mod format;
mod layout;
mod predictor;
mod same;

use super::zstd::pack;
use super::{Basis, Coded, Declined, Error, InUse, Model, stands_alone};
use crate::base::{Class, MethodId, ModelId, SEGMENT_BYTES_MAX};
use crate::entropy::{Decoder, Encoder};
use format::{Format, Found, WIDTH_MAX};
use layout::{Parts, Plan};
use predictor::Raster;

/// Revision of the payloads that are written.
const REVISION: u16 = 1;
/// Values of a whole segment with the errors of each, and the predictor of one plane.
const BYTES: u64 = predictor::bytes(WIDTH_MAX) + 24 * SEGMENT_BYTES_MAX as u64;
/// Bytes that are tried, and rows at least.
const TRIAL_BYTES: usize = 24 << 10;
const TRIAL_ROWS: usize = 6;
/// Bytes of a sample of a file that are looked at to tell pictures from other data.
const SNIFF_BYTES_MIN: usize = 4 << 10;
/// What zstd's quick level makes of a part must be this much larger, 1/100, than what pixels are coded to.
const QUICK_PART: usize = 120;
/// A part of rows that are drawn must take this much of what zstd's quick level makes of it, 1/100: of screenshots methods for text make
/// less otherwise. 180 parts of 94 drawings were coded both ways: nothing is gained on those above, and 40 % of the others.
const DRAWN_PART_MAX: usize = 85;
/// In rows of another length pixels must take this much more, 1/100.
const ROWS_PART: usize = 104;
/// Values that are just those of other pixels are decoded so many times as fast.
const SAME_PART: usize = 5;
/// Of values at least this part, 1/100, are those of the pixel before or above in a picture that is drawn.
const DRAWN_PART: usize = 40;

/// Pictures.
pub(crate) struct Picture;

fn raster(plan: &Plan) -> Raster {
    let Plan { found: Found { format, skip, .. }, drawn, least, most } = *plan;
    Raster { width: format.width(), skip, planes: format.planes, least, most, drawn }
}

/// What values are between, and whether they are drawn.
fn plan(found: Found, values: &[i32]) -> Plan {
    let (least, most) = values.iter().fold((i32::MAX, 0), |(least, most), value| (least.min(*value), most.max(*value)));
    let Found { format, .. } = found;
    let (left, above) = (format.planes, format.planes * format.width());
    let same = |n: &usize| {
        let back = |by: usize| n.checked_sub(by).and_then(|n| values.get(n));
        let value = values.get(*n);
        value == back(left) || value == back(above)
    };
    let count = values.len().div_ceil(7);
    let drawn = (0..values.len()).step_by(7).filter(same).count() * 100 >= count * DRAWN_PART;
    Plan { found, drawn, least, most }
}

/// The range code of pixels, and how many values were predicted for it.
fn code(plan: &Plan, values: &mut [i32], limit: usize) -> (Vec<u8>, usize) {
    let mut coder = Encoder::new(limit);
    let predicted = predictor::pass(&mut coder, values, raster(plan));
    (coder.finish(), predicted)
}

/// Some rows that are tried, as pixels.
struct Trial<'a> {
    part: &'a [u8],
    plan: Plan,
    values: Vec<i32>,
}

impl Trial<'_> {
    fn of<'a>(raw: &'a [u8], found: &Found) -> Trial<'a> {
        let row = found.format.row;
        let rows = (TRIAL_BYTES / row).max(TRIAL_ROWS);
        let at = (found.to - found.from).saturating_sub(rows * row) / 2 / row * row;
        let to = (found.from + at + rows * row).min(found.to);
        let part = raw.get(found.from + at..to).unwrap_or_default();
        let found = Found { from: 0, to: part.len(), ..*found };
        let (values, _) = layout::apart(&found, part);
        Trial { part, plan: plan(found, &values), values }
    }

    /// Bytes that they take.
    fn bytes(self) -> usize {
        self.coded().0
    }

    /// Bytes that they take, and bytes that are predicted for them.
    fn coded(mut self) -> (usize, usize) {
        let (code, predicted) = code(&self.plan, &mut self.values, usize::MAX);
        (code.len(), predicted * self.plan.found.format.bytes)
    }

    /// Bytes that zstd makes of them.
    fn quick(&self) -> usize {
        pack(self.part, 1).map_or(self.part.len(), |quick| quick.len())
    }

    /// A guess at the bits that they take.
    fn guessed_bits(&self) -> u64 {
        let Found { format, .. } = self.plan.found;
        let (left, above) = (format.planes, format.planes * format.width());
        let bits = |n: usize| {
            let back = |by: usize| self.values.get(n - by).copied().unwrap_or(0);
            let missed =
                (back(0) - back(left)).abs().min((back(0) - back(left) - back(above) + back(above + left)).abs());
            u64::from((2 * missed as u32 + 1).ilog2()) + 1
        };
        (above + left..self.values.len()).map(bits).sum()
    }

    /// True where it is worth trying them: they are drawn, or a guess at what they take is below what zstd makes of them. To try
    /// takes a hundred times as long.
    fn may_pay(&self, quick: usize) -> bool {
        self.plan.drawn || self.guessed_bits() < 8 * quick as u64
    }
}

/// The pixels that bytes without a head are coded by to the fewest bytes, if it is worth anything, and to what part, millionths.
fn found_in(raw: &[u8]) -> Option<(usize, Found)> {
    let share = |found: Found| {
        let trial = Trial::of(raw, &found);
        let (quick, len) = (trial.quick(), trial.part.len());
        let bytes = Some(trial).filter(|trial| trial.may_pay(quick))?.bytes();
        (bytes * QUICK_PART < quick * 100).then_some((bytes * 1_000_000 / len.max(1), found))
    };
    format::likely(raw).into_iter().filter_map(share).min_by_key(|(share, _)| *share)
}

/// True for the first bytes of a file of a picture that this method codes.
pub fn begins_as_picture(sample: &[u8]) -> bool {
    format::head(sample).is_some()
}

/// The part, millionths, that bytes are coded to as pixels, where that is much less than otherwise and by their rows; too few are
/// not looked at.
pub fn picture_part(sample: &[u8]) -> Option<usize> {
    let in_rows = |found: &Found| {
        let bytes = Trial::of(sample, found).bytes();
        let other = format::in_other_rows(found).map_or(usize::MAX, |other| Trial::of(sample, &other).bytes());
        bytes * ROWS_PART < other.saturating_mul(100)
    };
    let found = if sample.len() >= SNIFF_BYTES_MIN { found_in(sample) } else { None };
    found.filter(|(_, found)| in_rows(found)).map(|(part, _)| part)
}

/// A payload, and the bytes that were predicted for it.
fn encoded(raw: &[u8], found: Found) -> Result<(Coded, usize), Declined> {
    found.count().ok_or(Declined::Foreign)?;
    let (mut values, others) = layout::apart(&found, raw);
    let plan = plan(found, &values);
    let (code, predicted) = code(&plan, &mut values, raw.len());
    let payload = layout::join(&plan, raw.len(), &others, &code);
    let coded = (payload.len() < raw.len()).then(|| Coded::alone(payload)).ok_or(Declined::DoesNotShrink)?;
    Ok((coded, predicted * found.format.bytes))
}

/// Bytes of values and values of a pixel that pixels of so many bytes may have.
fn shapes(pixel: usize) -> &'static [(usize, usize)] {
    match pixel {
        1 => &[(1, 1)],
        2 => &[(1, 2), (2, 1)],
        3 => &[(1, 3)],
        4 => &[(1, 4), (2, 2)],
        6 => &[(2, 3)],
        8 => &[(2, 4)],
        _ => &[],
    }
}

/// Rows of pixels, coded.
pub(super) struct Rows {
    pub coded: Coded,
    /// Bytes of them.
    pub len: usize,
    /// Bytes that take as much time as they do, by what decoding pixels usually takes.
    pub work: usize,
    /// Few values are just those of other pixels.
    pub is_photograph: bool,
}

/// What bytes take, of which so many are predicted.
fn work(bytes: usize, predicted: usize) -> usize {
    predicted + (bytes - predicted.min(bytes)) / SAME_PART
}

/// Codes pixels of which the bytes are known, `row` of a row and `pixel` of a pixel, the higher byte of a value first: of whole rows
/// as many as there are `room` bytes of work for, and `SEGMENT_BYTES_MAX` at most.
///
/// # Errors
/// `Foreign` where there are no such pixels, or a part of them says that other methods make less of them.
pub(super) fn encode_rows(raw: &[u8], row: usize, pixel: usize, room: usize) -> Result<Rows, Declined> {
    let found = |(bytes, planes): &(usize, usize)| {
        let format = Format { bytes: *bytes, planes: *planes, big: *bytes == 2, signed: false, row }.checked()?;
        let whole = row.is_multiple_of(pixel) && raw.len().is_multiple_of(row) && !raw.is_empty();
        whole.then_some(Found { format, from: 0, to: raw.len(), skip: 0 })
    };
    let _in_use = InUse::new(BYTES);
    let trials = shapes(pixel).iter().filter_map(found).map(|found| (Trial::of(raw, &found), found));
    let (trial, found) = trials.min_by_key(|(trial, _)| trial.guessed_bits()).ok_or(Declined::Foreign)?;
    let (quick, tried) = (trial.quick(), trial.part.len());
    if !trial.may_pay(quick) {
        return Err(Declined::Foreign);
    }
    let is_photograph = !trial.plan.drawn;
    let usual = if is_photograph {
        raw.len()
    } else {
        let (bytes, predicted) = trial.coded();
        if bytes * 100 > quick * DRAWN_PART_MAX {
            return Err(Declined::Foreign);
        }
        (raw.len() as u64 * work(tried, predicted) as u64 / tried.max(1) as u64) as usize
    };
    let most = (raw.len() as u64 * room as u64 / usual.max(1) as u64).min(SEGMENT_BYTES_MAX.into()) as usize;
    let len = raw.len().min(most / row * row);
    let rows = raw.get(..len).filter(|rows| !rows.is_empty()).ok_or(Declined::Foreign)?;
    let (coded, predicted) = encoded(rows, Found { to: len, ..found })?;
    Ok(Rows { coded, len, work: work(len, predicted), is_photograph })
}

impl Model for Picture {
    fn id(&self) -> MethodId {
        MethodId::Picture
    }

    fn revision(&self) -> u16 {
        REVISION
    }

    fn memory_bytes(&self) -> u64 {
        BYTES
    }

    fn decode_rate_guess(&self) -> u64 {
        700
    }

    fn encode(&self, raw: &[u8], _class: Class, _basis: Basis<'_>) -> Result<Coded, Declined> {
        let _in_use = InUse::new(BYTES);
        let found = format::head(raw).or_else(|| found_in(raw).map(|(_, found)| found)).ok_or(Declined::Foreign)?;
        encoded(raw, found).map(|(coded, _)| coded)
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
        if revision != REVISION {
            return Err(Error::UnknownRevision(revision));
        }
        let _in_use = InUse::new(BYTES);
        let Parts { plan, pixels, others, code } = layout::split(payload, raw_len)?;
        let mut values = vec![0; pixels * plan.found.format.planes];
        predictor::pass(&mut Decoder::new(code), &mut values, raster(&plan));
        layout::together(&plan.found, &values, &others, raw_len).ok_or(Error::Corrupt("picture payload is damaged"))
    }
}
