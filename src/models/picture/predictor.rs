//! Predicts the values of pixels, plane by plane, from those around them.

use super::around::{Around, COLUMNS};
use super::decisions::{self, COUNTERS, Decisions, KEYS, Outlook};
use super::errors::{self, ENERGIES, Errors, Missed, blend, size};
use super::same::{self, Same, hash};
use crate::entropy::Channel;
use crate::models::values::{GUESSES, quarters, scale_of, within_f32};

/// Inputs of least squares, and those of the short form.
const INPUTS: usize = 24;
const FEW: usize = 12;
/// Columns beside a picture, and rows above and below it, that are filled with what is next to them.
const BESIDE: usize = 4;
const ABOVE: usize = 3;
const BELOW: usize = 1;
/// Predictions that are weighed.
const PREDICTIONS: usize = 6;
/// Least squares have values of at most this range.
const RANGE_MAX: f32 = 511.0;
/// Errors around, and of the pixel itself, by which it counts in least squares.
const WEIGHT_FLOOR: f32 = 2.0;
const OWN_ERROR: f32 = 0.2;
/// Places by what was around them, in pictures that are drawn.
const PLACES: usize = 1 << 16;

/// What a picture is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Raster {
    pub width: usize,
    /// Pixels of the first row that are not there.
    pub skip: usize,
    pub planes: usize,
    /// Every value is one of these.
    pub least: i32,
    pub most: i32,
    /// Values are likely to be just those of other pixels.
    pub drawn: bool,
}

/// Bytes of the predictor of a plane, for rows of so many pixels.
pub const fn bytes(width: usize) -> u64 {
    decisions::BYTES
        + same::BYTES
        + Around::<INPUTS, FEW>::bytes(width)
        + 2 * (width * PREDICTIONS * 4) as u64
        + (1 << 19)
}

/// The plane itself, the last one before it, and the one before that.
const OWN: usize = 0;
const LAST: usize = 1;
const FIRST: usize = 2;

/// Neighbours that a value is weighed from: plane, columns to the right, rows down. The first `FEW` are those of the short form.
type Neighbours = [(usize, isize, isize); INPUTS];

#[rustfmt::skip]
const ALONE: Neighbours = [
    (OWN, -1, 0), (OWN, 0, -1), (OWN, -1, -1), (OWN, 1, -1), (OWN, -2, 0), (OWN, 0, -2),
    (OWN, 1, -2), (OWN, -1, -2), (OWN, 2, -1), (OWN, -2, -1), (OWN, 2, -2), (OWN, -2, -2),
    (OWN, -3, 0), (OWN, 0, -3), (OWN, 3, -1), (OWN, -3, -1), (OWN, -1, -3), (OWN, 1, -3),
    (OWN, 3, -2), (OWN, -3, -2), (OWN, 2, -3), (OWN, -2, -3), (OWN, 4, -1), (OWN, -4, 0),
];
#[rustfmt::skip]
const BESIDE_ONE: Neighbours = [
    (OWN, -1, 0), (OWN, 0, -1), (LAST, 0, 0), (OWN, -1, -1), (OWN, 1, -1), (LAST, -1, 0),
    (LAST, 0, -1), (LAST, 1, 0), (LAST, 0, 1), (OWN, -2, 0), (OWN, 0, -2), (OWN, 1, -2),
    (LAST, -1, -1), (LAST, 1, -1), (LAST, 1, 1), (LAST, -1, 1), (OWN, 2, -1), (OWN, -2, -1),
    (OWN, -1, -2), (OWN, 2, -2), (LAST, -2, 0), (LAST, 2, 0), (LAST, 0, -2), (OWN, -2, -2),
];
#[rustfmt::skip]
const BESIDE_TWO: Neighbours = [
    (OWN, -1, 0), (OWN, 0, -1), (LAST, 0, 0), (FIRST, 0, 0), (OWN, -1, -1), (OWN, 1, -1),
    (LAST, -1, 0), (LAST, 0, -1), (LAST, 1, 0), (LAST, 0, 1), (FIRST, -1, 0), (FIRST, 0, -1),
    (FIRST, 1, 0), (FIRST, 0, 1), (OWN, -2, 0), (OWN, 0, -2), (OWN, 1, -2), (OWN, 2, -1),
    (LAST, -1, -1), (LAST, 1, -1), (LAST, 1, 1), (LAST, -1, 1), (OWN, -2, -1), (OWN, -1, -2),
];

/// Values of all planes and what predictions of them missed, with what is filled in around them.
struct Field {
    stride: usize,
    rows: usize,
    area: usize,
    values: Vec<f32>,
    missed: Vec<f32>,
}

impl Field {
    /// Before a row: what is to its left.
    fn begin(&mut self, own: usize, first: usize) {
        let edge = self.values[own + first - self.stride];
        self.values[own + first - BESIDE..own + first].fill(edge);
    }

    /// Behind a row, which may end early.
    fn end(&mut self, own: usize, behind: usize, row_end: usize) {
        let edge = self.values[own + behind - 1];
        if behind < row_end {
            let above = own + behind - self.stride..own + row_end - self.stride;
            self.values.copy_within(above, own + behind);
        }
        self.values[own + row_end..own + row_end + BESIDE].fill(edge);
    }

    /// Below the last row.
    fn close(&mut self, own: usize) {
        let last = own + (self.rows + ABOVE - 1) * self.stride;
        self.values.copy_within(last..last + self.stride, last + self.stride);
    }
}

/// What is known of a plane beside its values.
struct Plane {
    raster: Raster,
    /// What values are multiplied by for least squares.
    unit: f32,
    around: Around<INPUTS, FEW>,
    decisions: Decisions,
    errors: Errors,
    /// Where values of each plane that is looked at begin.
    begins: [usize; 3],
    /// How many planes are known.
    turn: usize,
    neighbours: &'static Neighbours,
    offsets: [isize; INPUTS],
}

/// What was the same in pictures that are drawn.
struct Drawn {
    same: Same,
    /// The last place in whose surroundings the same values were.
    places: Vec<u32>,
    /// By place: the one that it was held to be like, and by plane whether it was.
    sources: Vec<u32>,
    hits: Vec<bool>,
    source: usize,
    run: usize,
}

impl Plane {
    fn new(raster: &Raster, field: &Field, turn: usize, begins: [usize; 3]) -> Plane {
        let neighbours = match turn {
            0 => &ALONE,
            1 => &BESIDE_ONE,
            _ => &BESIDE_TWO,
        };
        let mut first = [0.0; INPUTS];
        first[..2].fill(0.5);
        let mut unit = 1.0f32;
        while (raster.most - raster.least) as f32 * unit > RANGE_MAX {
            unit *= 0.5;
        }
        Plane {
            raster: *raster,
            unit,
            around: Around::new(raster.width, first),
            decisions: Decisions::new(),
            errors: Errors::new(),
            begins,
            turn,
            neighbours,
            offsets: neighbours.map(|(of, right, down)| begins[of] as isize + right + down * field.stride as isize),
        }
    }

    /// Passes a value on, or gets it: of the pixel at a place. `above` and `here` are what predictions missed in the row above and
    /// in this one.
    #[inline(always)]
    fn pass(
        &mut self,
        channel: &mut impl Channel,
        field: &mut Field,
        (at, column): (usize, usize),
        (above, here): (&[[f32; PREDICTIONS]], &mut [[f32; PREDICTIONS]]),
        came: i32,
    ) -> i32 {
        let Plane { raster, unit, .. } = *self;
        let (least, most) = (raster.least as f32, raster.most as f32);
        let [own, last, first] = self.begins;
        let stride = field.stride;
        let values = &field.values[..];
        let of = |plane: usize, right: isize, down: isize| {
            values[(plane + at).wrapping_add_signed(right + down * stride as isize)]
        };
        let missed_at = |plane: usize, right: isize, down: isize| {
            field.missed[(plane + at).wrapping_add_signed(right + down * stride as isize)]
        };
        let bound = |x: f32| within_f32(x, least, most);
        let (w, n, nw, ne) = (of(own, -1, 0), of(own, 0, -1), of(own, -1, -1), of(own, 1, -1));
        let (ww, nn, nne) = (of(own, -2, 0), of(own, 0, -2), of(own, 1, -2));
        let c = [last, first].map(|plane| of(plane, 0, 0));
        // All is taken from the middle of what is left and above, in each plane.
        let bases = [own, last, first].map(|plane| (of(plane, -1, 0) + of(plane, 0, -1)) * 0.5);
        let mut inputs = [0.0; INPUTS];
        for i in 0..INPUTS {
            let value = values[at.wrapping_add_signed(self.offsets[i])];
            inputs[i] = (value - bases[self.neighbours[i].0]) * unit;
        }
        let placed = |x: f32| bound(x / unit + bases[OWN]);
        let [near, few, long] = self.around.predict(&inputs);
        let [near, few, long] = [placed(near), placed(few), placed(long)];
        let gradient = w + n - nw;
        let beside = if self.turn > 0 { bases[OWN] + c[0] - bases[LAST] } else { bases[OWN] + (ne - nw) * 0.25 };
        let steep = (n + ne) * 0.5 + (w - nw) * 0.5;
        let predictions = [near, few, long, bound(gradient), bound(beside), bound(steep)];

        let blend = blend(&predictions, unit, column, (above, here));

        // How far the best was off around, and in the planes before.
        let own_missed = Missed::around(|right, down| missed_at(own, right, down));
        let energy = own_missed.energy;
        let e_last = if self.turn > 0 { missed_at(last, 0, 0) } else { 0.0 };
        let e_first = if self.turn > 1 { missed_at(first, 0, 0) } else { 0.0 };
        let last_around = if self.turn > 0 { errors::beside(|right, down| missed_at(last, right, down)) } else { 0.0 };
        let quarter_octaves = quarters(energy * unit * 2.0).min(ENERGIES - 1);
        // Sizes by half octaves.
        let q = |x: f32, most: usize| (quarters(size(x) * unit) / 2).saturating_sub(4).min(most);
        let signed = |x: f32| if x < 0.0 { 7 - q(x, 7) } else { 8 + q(x, 7) };
        let texture = [w, n, nw, ne, ww, nn].into_iter().rev().fold(0, |bits, x| bits << 1 | usize::from(x > blend));
        let bias_at = [
            texture << 4 | (quarter_octaves / 4).min(15),
            signed(e_last) << 4 | signed(own_missed.left),
            signed(near - few) << 4 | signed(near - long),
        ];
        let best = bound(blend + self.errors.shift(bias_at));

        // How far it will be off.
        let highest = [n, nw, ne].into_iter().fold(w, |a, b| if b > a { b } else { a });
        let lowest = [n, nw, ne].into_iter().fold(w, |a, b| if b < a { b } else { a });
        let size_at = [
            quarter_octaves * 16 + q(e_last, 15),
            q(highest - lowest, 15) * 64 + q(last_around, 7) * 8 + q(e_first, 7),
            q(near - long, 7) * 128 + q(near - few, 7) * 16 + (quarter_octaves / 3).min(15),
        ];
        let expected = self.errors.expected(size_at, energy, quarter_octaves);
        let scales = expected.all().map(scale_of);
        let middles: [f32; GUESSES] = [best, best, best, best, near, few, long, predictions[4]];

        let scale = scales[0];
        let level = quarters(scale).min(47);
        let fraction = ((best - (best as i32) as f32) * 4.0) as i32 as usize & 3;
        let off = |other: f32| (within_f32((other - best) / scale * 3.0, -8.0, 7.0) as i32 + 8) as usize;
        let error = |x: f32| {
            let size = quarters(size(x)) as i32 - level as i32;
            (size + 8).clamp(0, 15) as usize * 2 + usize::from(x < 0.0)
        };
        let contexts: [usize; COUNTERS] = [
            level * 4 + fraction,
            off(few) * 16 + off(long),
            off(gradient) * 16 + off(beside),
            error(own_missed.left) * 32 + error(own_missed.above),
            error(e_last) * 16 + (level / 3).min(15),
            off(n) * 16 + off(w),
            off(ne) * 16 + off(nw),
            (((best - least) * unit) as i32 as usize / 4).min(127) * 8 + (level / 4).min(7),
            error(e_last) * 32 + error(e_first),
            texture * 16 + (level / 3).min(15),
            (best - least) as i32 as usize,
            off(n + ne - nne) * 16 + off(w + ne - n),
            off(w * 2.0 - ww) * 16 + off(n * 2.0 - nn),
            quarter_octaves * 16 + q(last_around, 15),
        ];
        let [a, b] = c.map(|c| c as i32);
        let (left, up) = (w as i32, n as i32);
        let keys: [i32; KEYS] = match self.turn {
            0 => [raster.least, left, up, ne as i32, left + up - nw as i32],
            1 => [raster.least, a, left, up, 2 * a],
            _ => [raster.least, a, b, 2 * a - b, a + b],
        };
        let weights = [q(e_last, 15), off(long)];
        let outlook = Outlook { middles, scales, contexts, keys, weights, least: raster.least, most: raster.most };
        let came = self.decisions.pass(channel, &outlook, came);

        let value = came as f32;
        let missed = value - best;
        for i in 0..PREDICTIONS {
            here[column][i] = size(value - predictions[i]);
        }
        let [.., near_by, few_by, long_by, other_by] = middles;
        let singly = [near_by, few_by, long_by, other_by].map(|middle| value - middle);
        self.errors.take_single(quarter_octaves, expected.mean, singly);
        self.errors.take_size(size_at, missed);
        self.errors.take_shift(bias_at, value - blend);
        let off = (energy + size(value - near) * OWN_ERROR) * unit + WEIGHT_FLOOR;
        self.around.observe(&inputs, (value - bases[OWN]) * unit, 1.0 / (off * off));
        field.values[own + at] = value;
        field.missed[own + at] = missed;
        came
    }
}

impl Drawn {
    fn new(field: &Field, planes: usize) -> Drawn {
        Drawn {
            same: Same::new(),
            places: vec![0; PLACES],
            sources: vec![0; field.area],
            hits: vec![false; field.area * planes],
            source: 0,
            run: 0,
        }
    }

    /// Passes on whether a value is the same as another, or gets that; gives back the value if it is.
    #[inline(always)]
    fn pass(&mut self, channel: &mut impl Channel, field: &Field, plane: &Plane, at: usize, came: i32) -> Option<i32> {
        let [own, last, first] = plane.begins;
        let stride = field.stride;
        let of = |plane: usize, place: usize| field.values[plane + place] as i32;
        let (w, n, nw, ne) =
            (of(own, at - 1), of(own, at - stride), of(own, at - stride - 1), of(own, at - stride + 1));
        let (ww, nn) = (of(own, at - 2), of(own, at - 2 * stride));
        let near = [at - 1, at - stride, at - stride - 1, at - stride + 1];
        let (mut kind, mut like) = (0, if w == nw { n } else { w });
        let around = hash(&[w, n, nw, ne, ww, nn]) as usize >> 16 & (PLACES - 1);
        if plane.turn == 0 {
            self.source = if self.run > 0 { self.source + 1 } else { self.places[around] as usize };
            self.places[around] = at as u32;
            if self.source > 0 {
                (kind, like) = (1, of(own, self.source));
            }
            self.sources[at] = self.source as u32;
        } else {
            let source = self.sources[at] as usize;
            let alike = |place: &usize| {
                *place > 0
                    && of(last, *place) == of(last, at)
                    && (plane.turn == 1 || of(first, *place) == of(first, at))
            };
            let places = [source, near[0], near[1], near[2], near[3]];
            if let Some(which) = places.iter().position(alike) {
                (kind, like) = (2 + which, of(own, places[which]));
            }
        }
        let bit = |is: bool, n: u32| u32::from(is) << n;
        let hit = |plane: usize, place: usize| self.hits[plane + place];
        let before = bit(plane.turn > 0 && hit(last, at), 0) | bit(plane.turn > 1 && hit(first, at), 1);
        let hits = before | bit(hit(own, near[0]), 2) | bit(hit(own, near[1]), 3) | bit(hit(own, near[3]), 4);
        let alike = bit(w == n, 0)
            | bit(n == ne, 1)
            | bit(w == nw, 2)
            | bit(ww == w, 3)
            | bit(nn == n, 4)
            | bit(like == w, 5)
            | bit(like == n, 6);
        let run = (usize::BITS - self.run.leading_zeros()).min(15);
        let ahead = bit(plane.turn > 0 && hit(last, at + 1), 0) | bit(plane.turn > 0 && hit(last, at + stride), 1);
        let contexts = [
            (kind as u32) << 9 | run << 5 | hits,
            1 << 16 | alike << 3 | kind as u32,
            hash(&[2, like, w, n]),
            hash(&[3, w, n, nw, ne, ww, nn]),
            4 << 16 | alike << 7 | ahead << 5 | hits,
            hash(&[5, like, of(last, at), kind as i32]),
        ];
        let same =
            self.same.pass(channel, contexts, [kind << 5 | hits as usize, (alike << 2 | ahead) as usize], came == like);
        self.hits[own + at] = same;
        if plane.turn == 0 {
            self.run = if same && self.source > 0 { self.run + 1 } else { 0 };
        }
        same.then_some(like)
    }
}

/// Passes pixels on, or gets them: each has a value of every plane. How many values were not just those of other pixels, which
/// take nearly all of the time.
pub fn pass(channel: &mut impl Channel, samples: &mut [i32], raster: Raster) -> usize {
    let Raster { width, skip, planes, least, most, drawn } = raster;
    let pixels = samples.len() / planes;
    let rows = (skip + pixels).div_ceil(width);
    let stride = width + 2 * BESIDE;
    let area = stride * (rows + ABOVE + BELOW);
    let middle = ((least + most) / 2) as f32;
    let mut field = Field { stride, rows, area, values: vec![middle; area * planes], missed: vec![0.0; area * planes] };
    // Green first, where there are colours.
    let order: Vec<usize> =
        if planes > 2 { [1, 0].into_iter().chain(2..planes).collect() } else { (0..planes).collect() };
    let mut drawn = drawn.then(|| Drawn::new(&field, planes));
    let mut predicted = 0;
    for (turn, &number) in order.iter().enumerate() {
        let before = |n: usize| turn.checked_sub(n).and_then(|n| order.get(n)).map_or(number, |n| *n) * area;
        let mut plane = Plane::new(&raster, &field, turn, [number * area, before(1), before(2)]);
        let own = number * area;
        let mut missed = [vec![[0.0f32; PREDICTIONS]; stride], vec![[0.0f32; PREDICTIONS]; stride]];
        if let Some(drawn) = &mut drawn {
            drawn.same = Same::new();
            (drawn.source, drawn.run) = (0, 0);
        }
        for y in 0..rows {
            let begin = (y + ABOVE) * stride + BESIDE;
            let from = if y == 0 { skip } else { 0 };
            let to = (skip + pixels - y * width).min(width);
            field.begin(own, begin + from);
            let [above, here] = &mut missed;
            std::mem::swap(above, here);
            let mut known = usize::MAX;
            for x in from..to {
                let (at, column) = (begin + x, BESIDE + x);
                let Some(sample) = samples.get_mut((y * width + x - skip) * planes + number) else { continue };
                let same = drawn.as_mut().and_then(|drawn| drawn.pass(channel, &field, &plane, at, *sample));
                if let Some(value) = same {
                    *sample = value;
                    field.values[own + at] = value as f32;
                    here[column] = [0.0; PREDICTIONS];
                } else {
                    if known != x / COLUMNS {
                        known = x / COLUMNS;
                        plane.around.find(x);
                    }
                    *sample = plane.pass(channel, &mut field, (at, column), (above, here), *sample);
                    predicted += 1;
                }
                if known == x / COLUMNS && (x % COLUMNS == COLUMNS - 1 || x + 1 == to) {
                    plane.around.close(x);
                }
            }
            field.end(own, begin + to, begin + width);
            here[width + BESIDE] = here[width + BESIDE - 1];
        }
        field.close(own);
    }
    predicted
}
