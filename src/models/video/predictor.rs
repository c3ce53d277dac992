//! Predicts the values of pixels, frame by frame and plane by plane, from those around them, those of the frames before where
//! they moved from, and those of the planes before.

use super::motion::{self, BLOCK, Vector};
use crate::entropy::Channel;
use crate::models::picture::around::{Around, COLUMNS};
use crate::models::picture::decisions::{self, COUNTERS, Decisions, KEYS, Outlook};
use crate::models::picture::errors::{self, ENERGIES, Errors, Missed, blend, size};
use crate::models::values::{GUESSES, quarters, scale_of, within_f32};

/// Inputs of least squares, and those of the short form.
const INPUTS: usize = 24;
const FEW: usize = 12;
/// Columns and rows around a plane that are filled with what is next to them: blocks move as far beyond its edges as that.
pub(super) const MARGIN: usize = 12;
/// Predictions that are weighed.
const PREDICTIONS: usize = 7;
/// Least squares have values of at most this range.
const RANGE_MAX: f32 = 511.0;
/// Errors around, and of the pixel itself, by which it counts in least squares.
const WEIGHT_FLOOR: f32 = 2.0;
const OWN_ERROR: f32 = 0.2;
/// Frames that are kept: the one that is coded, and those before it.
const KEPT: usize = 3;
/// Columns for which weights are found together.
const FIND_COLUMNS: usize = 2 * COLUMNS;

/// The size of a plane, and how many columns and rows of the first plane one of its own stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plane {
    pub width: usize,
    pub rows: usize,
    pub wide: usize,
    pub high: usize,
}

/// What frames are like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clip {
    pub planes: Vec<Plane>,
    /// Every value is one of these.
    pub least: i32,
    pub most: i32,
}

impl Clip {
    /// Values of a frame.
    pub fn frame(&self) -> usize {
        self.planes.iter().map(|plane| plane.width * plane.rows).sum()
    }
}

/// Where inputs are taken from: the plane itself, in the frame before and in the one before that; the plane before it, and that in
/// the frame before; the first plane likewise.
const OWN: usize = 0;
const PREV: usize = 1;
const OLDER: usize = 2;
const SIDE: usize = 3;
const SIDE_PREV: usize = 4;
const FIRST: usize = 5;
const FIRST_PREV: usize = 6;
const SOURCES: usize = 7;

/// Neighbours that a value is weighed from: source, columns to the right, rows down. The first `FEW` are those of the short form.
type Neighbours = [(usize, isize, isize); INPUTS];

#[rustfmt::skip]
const STILL: [Neighbours; 3] = [
    [
        (OWN, -1, 0), (OWN, 0, -1), (OWN, -1, -1), (OWN, 1, -1), (OWN, -2, 0), (OWN, 0, -2),
        (OWN, 1, -2), (OWN, -1, -2), (OWN, 2, -1), (OWN, -2, -1), (OWN, 2, -2), (OWN, -2, -2),
        (OWN, -3, 0), (OWN, 0, -3), (OWN, 3, -1), (OWN, -3, -1), (OWN, -1, -3), (OWN, 1, -3),
        (OWN, 3, -2), (OWN, -3, -2), (OWN, 2, -3), (OWN, -2, -3), (OWN, 4, -1), (OWN, -4, 0),
    ],
    [
        (OWN, -1, 0), (OWN, 0, -1), (SIDE, 0, 0), (OWN, -1, -1), (OWN, 1, -1), (SIDE, -1, 0),
        (SIDE, 0, -1), (SIDE, 1, 0), (SIDE, 0, 1), (OWN, -2, 0), (OWN, 0, -2), (OWN, 1, -2),
        (SIDE, -1, -1), (SIDE, 1, -1), (SIDE, 1, 1), (SIDE, -1, 1), (OWN, 2, -1), (OWN, -2, -1),
        (OWN, -1, -2), (OWN, 2, -2), (SIDE, -2, 0), (SIDE, 2, 0), (SIDE, 0, -2), (OWN, -2, -2),
    ],
    [
        (OWN, -1, 0), (OWN, 0, -1), (SIDE, 0, 0), (FIRST, 0, 0), (OWN, -1, -1), (OWN, 1, -1),
        (SIDE, -1, 0), (SIDE, 0, -1), (SIDE, 1, 0), (SIDE, 0, 1), (FIRST, -1, 0), (FIRST, 0, -1),
        (FIRST, 1, 0), (FIRST, 0, 1), (OWN, -2, 0), (OWN, 0, -2), (OWN, 1, -2), (OWN, 2, -1),
        (SIDE, -1, -1), (SIDE, 1, -1), (SIDE, 1, 1), (SIDE, -1, 1), (OWN, -2, -1), (OWN, -1, -2),
    ],
];
#[rustfmt::skip]
const MOVED: [Neighbours; 3] = [
    [
        (OWN, -1, 0), (OWN, 0, -1), (PREV, 0, 0), (OWN, -1, -1), (OWN, 1, -1), (PREV, -1, 0),
        (PREV, 0, -1), (PREV, 1, 0), (PREV, 0, 1), (OWN, -2, 0), (OWN, 0, -2), (OLDER, 0, 0),
        (PREV, -1, -1), (PREV, 1, -1), (PREV, -1, 1), (PREV, 1, 1), (OWN, 2, -1), (OWN, -2, -1),
        (PREV, 2, 0), (PREV, 0, 2), (OLDER, -1, 0), (OLDER, 0, -1), (OLDER, 1, 0), (OLDER, 0, 1),
    ],
    [
        (OWN, -1, 0), (OWN, 0, -1), (PREV, 0, 0), (SIDE, 0, 0), (SIDE_PREV, 0, 0), (OWN, -1, -1),
        (OWN, 1, -1), (PREV, -1, 0), (PREV, 0, -1), (PREV, 1, 0), (PREV, 0, 1), (OLDER, 0, 0),
        (SIDE, -1, 0), (SIDE, 0, -1), (SIDE, 1, 0), (SIDE, 0, 1), (SIDE_PREV, -1, 0), (SIDE_PREV, 0, -1),
        (PREV, -1, -1), (PREV, 1, -1), (PREV, -1, 1), (PREV, 1, 1), (OWN, -2, 0), (OWN, 0, -2),
    ],
    [
        (OWN, -1, 0), (OWN, 0, -1), (PREV, 0, 0), (SIDE, 0, 0), (SIDE_PREV, 0, 0), (FIRST, 0, 0),
        (OWN, -1, -1), (OWN, 1, -1), (PREV, -1, 0), (PREV, 0, -1), (PREV, 1, 0), (PREV, 0, 1),
        (SIDE, -1, 0), (SIDE, 0, -1), (SIDE, 1, 0), (SIDE, 0, 1), (SIDE_PREV, -1, 0), (SIDE_PREV, 0, -1),
        (FIRST_PREV, 0, 0), (OLDER, 0, 0), (FIRST, -1, 0), (FIRST, 0, -1), (OWN, -2, 0), (OWN, 0, -2),
    ],
];

/// Where the values of a plane of a frame lie, with what is filled in around them.
#[derive(Clone, Copy)]
struct Field {
    first: usize,
    width: usize,
    rows: usize,
    stride: usize,
}

impl Field {
    /// One that begins where others end.
    fn new((width, rows): (usize, usize), end: &mut usize) -> Field {
        let (first, stride) = (*end, width + 2 * MARGIN);
        *end += stride * (rows + 2 * MARGIN);
        Field { first, width, rows, stride }
    }

    fn at(&self, x: usize, y: usize) -> usize {
        self.first + (y + MARGIN) * self.stride + MARGIN + x
    }

    /// Before a row: what is to its left.
    fn begin(&self, values: &mut [f32], y: usize) {
        let first = self.at(0, y);
        let edge = values[first - self.stride];
        values[first - MARGIN..first].fill(edge);
    }

    /// Behind a row: what is to its right.
    fn end(&self, values: &mut [f32], y: usize) {
        let behind = self.at(self.width, y);
        let edge = values[behind - 1];
        values[behind..behind + MARGIN].fill(edge);
    }

    /// When all of it is known.
    fn close(&self, values: &mut [f32]) {
        for y in 0..self.rows {
            let first = self.at(0, y);
            let edge = values[first];
            values[first - MARGIN..first].fill(edge);
        }
        let row = |y: usize| self.first + y * self.stride..self.first + (y + 1) * self.stride;
        for n in 0..MARGIN {
            values.copy_within(row(MARGIN), row(n).start);
            values.copy_within(row(MARGIN + self.rows - 1), row(MARGIN + self.rows + n).start);
        }
    }

    /// Takes from a finer plane the means of what each pixel stands for.
    fn shrink(&self, values: &mut [f32], of: &Field, (wide, high): (usize, usize)) {
        let part = 1.0 / (wide * high) as f32;
        for y in 0..self.rows {
            for x in 0..self.width {
                let mut sum = 0.0;
                for row in 0..high {
                    let at = of.at(x * wide, (y * high + row).min(of.rows - 1));
                    for column in 0..wide {
                        sum += values[at + column];
                    }
                }
                values[self.at(x, y)] = sum * part;
            }
            self.end(values, y);
        }
        self.close(values);
    }
}

/// What is known of a plane beside its values.
struct Predictor {
    clip: (f32, f32),
    least: i32,
    most: i32,
    /// What values are multiplied by for least squares.
    unit: f32,
    around: Around<INPUTS, FEW>,
    decisions: Decisions,
    errors: Errors,
    /// How many planes are known.
    turn: usize,
    moved: bool,
    neighbours: &'static Neighbours,
    width: usize,
}

/// Values of all planes of all frames that are kept, and what predictions of them missed.
struct Store {
    values: Vec<f32>,
    missed: Vec<f32>,
}

impl Predictor {
    fn new(clip: &Clip, plane: &Plane, turn: usize) -> Predictor {
        let mut first = [0.0; INPUTS];
        first[..2].fill(0.5);
        let mut unit = 1.0f32;
        while (clip.most - clip.least) as f32 * unit > RANGE_MAX {
            unit *= 0.5;
        }
        Predictor {
            clip: (clip.least as f32, clip.most as f32),
            least: clip.least,
            most: clip.most,
            unit,
            around: Around::new(plane.width, first),
            decisions: Decisions::new(),
            errors: Errors::new(),
            turn,
            moved: false,
            neighbours: &STILL[turn.min(2)],
            width: plane.width,
        }
    }

    /// From now on there is a frame before.
    fn follow(&mut self) {
        let mut first = [0.0; INPUTS];
        first[2] = 1.0;
        self.around = Around::new(self.width, first);
        self.neighbours = &MOVED[self.turn.min(2)];
        self.moved = true;
    }

    /// Passes a value on, or gets it: of the pixel at a place, which moved from a place so far on in the frame before and in the
    /// one before that. `above` and `here` are what predictions missed in the row above and in this one.
    #[inline(always)]
    fn pass(
        &mut self,
        channel: &mut impl Channel,
        store: &mut Store,
        (at, column, stride): (usize, usize, isize),
        (offsets, moves): (&[isize; INPUTS], &[isize; SOURCES]),
        (above, here): (&[[f32; PREDICTIONS]], &mut [[f32; PREDICTIONS]]),
        came: i32,
    ) -> i32 {
        let Predictor { unit, moved, .. } = *self;
        let (least, most) = self.clip;
        let (values, all_missed) = (&store.values[..], &store.missed[..]);
        let of = |source: usize, right: isize, down: isize| {
            values[at.wrapping_add_signed(moves[source] + right + down * stride)]
        };
        let missed_at = |source: usize, right: isize, down: isize| {
            all_missed[at.wrapping_add_signed(moves[source] + right + down * stride)]
        };
        let bound = |x: f32| within_f32(x, least, most);
        let (w, n, nw, ne) = (of(OWN, -1, 0), of(OWN, 0, -1), of(OWN, -1, -1), of(OWN, 1, -1));
        let (ww, nn, nne) = (of(OWN, -2, 0), of(OWN, 0, -2), of(OWN, 1, -2));
        let base = (w + n) * 0.5;
        let sides = if self.turn > 0 { (of(SIDE, -1, 0) + of(SIDE, 0, -1)) * 0.5 } else { 0.0 };
        let firsts = if self.turn > 1 { (of(FIRST, -1, 0) + of(FIRST, 0, -1)) * 0.5 } else { 0.0 };
        let bases: [f32; SOURCES] = [base, base, base, sides, sides, firsts, firsts];
        let mut inputs = [0.0; INPUTS];
        for i in 0..INPUTS {
            let (source, _, _) = self.neighbours[i];
            inputs[i] = (values[at.wrapping_add_signed(offsets[i])] - bases[source]) * unit;
        }
        let placed = |x: f32| bound(x / unit + base);
        let [near, few, long] = self.around.predict(&inputs);
        let [near, few, long] = [placed(near), placed(few), placed(long)];
        let gradient = w + n - nw;
        let c = if self.turn > 0 { of(SIDE, 0, 0) } else { 0.0 };
        let beside = if self.turn > 0 { base + c - sides } else { base + (ne - nw) * 0.25 };
        let steep = (n + ne) * 0.5 + (w - nw) * 0.5;
        let p = if moved { of(PREV, 0, 0) } else { steep };
        let p_base = if moved { (of(PREV, -1, 0) + of(PREV, 0, -1)) * 0.5 } else { base };
        let stepped = if moved { p + base - p_base } else { n };
        let older = if moved { of(OLDER, 0, 0) } else { w };
        let predictions = [near, few, long, bound(gradient), bound(beside), bound(p), bound(stepped)];

        let blend = blend(&predictions, unit, column, (above, here));

        // How far the best was off around, in the frame before, and in the planes before.
        let own_missed = Missed::around(|right, down| missed_at(OWN, right, down));
        let energy = own_missed.energy;
        let e_last = if self.turn > 0 { missed_at(SIDE, 0, 0) } else { 0.0 };
        let e_first = if self.turn > 1 { missed_at(FIRST, 0, 0) } else { 0.0 };
        let around = |source: usize| errors::beside(|right, down| missed_at(source, right, down));
        let last_around = if self.turn > 0 { around(SIDE) } else { 0.0 };
        let e_prev = if moved { missed_at(PREV, 0, 0) } else { 0.0 };
        let prev_around = if moved { around(PREV) + size(e_prev) } else { 0.0 };
        let quarter_octaves = quarters(energy * unit * 2.0).min(ENERGIES - 1);
        // Sizes by half octaves.
        let q = |x: f32, most: usize| (quarters(size(x) * unit) / 2).saturating_sub(4).min(most);
        let signed = |x: f32| if x < 0.0 { 7 - q(x, 7) } else { 8 + q(x, 7) };
        let texture = [w, n, nw, ne, ww, nn].into_iter().rev().fold(0, |bits, x| bits << 1 | usize::from(x > blend));
        let bias_at = [
            texture << 4 | (quarter_octaves / 4).min(15),
            signed(if self.turn > 0 { e_last } else { e_prev }) << 4 | signed(own_missed.left),
            signed(near - few) << 4 | signed(near - if moved { p } else { long }),
        ];
        let best = bound(blend + self.errors.shift(bias_at));

        // How far it will be off.
        let highest = [n, nw, ne].into_iter().fold(w, |a, b| if b > a { b } else { a });
        let lowest = [n, nw, ne].into_iter().fold(w, |a, b| if b < a { b } else { a });
        let size_at = [
            quarter_octaves * 16 + q(if self.turn > 0 { e_last } else { prev_around * 0.3 }, 15),
            q(if moved { prev_around } else { highest - lowest }, 15) * 64 + q(last_around, 7) * 8 + q(e_first, 7),
            q(near - if moved { p } else { long }, 7) * 128 + q(near - few, 7) * 16 + (quarter_octaves / 3).min(15),
        ];
        let expected = self.errors.expected(size_at, energy, quarter_octaves);
        let scales = expected.all().map(scale_of);
        let other = if moved { predictions[6] } else { predictions[4] };
        let middles: [f32; GUESSES] = [best, best, best, best, near, few, long, other];

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
            error(e_last) * 32 + error(if self.turn > 1 { e_first } else { e_prev }),
            texture * 16 + (level / 3).min(15),
            (best - least) as i32 as usize,
            if moved { off(p) * 16 + off(stepped) } else { off(n + ne - nne) * 16 + off(w + ne - n) },
            if moved { off(older) * 16 + off(2.0 * p - older) } else { off(w * 2.0 - ww) * 16 + off(n * 2.0 - nn) },
            quarter_octaves * 16 + q(if moved { prev_around } else { last_around }, 15),
        ];
        let (left, up) = (w as i32, n as i32);
        let keys: [i32; KEYS] = match (moved, self.turn) {
            (false, 0) => [self.least, left, up, ne as i32, left + up - nw as i32],
            (false, _) => [self.least, c as i32, left, up, left + up - nw as i32],
            (true, 0) => [self.least, p as i32, left, up, older as i32],
            (true, _) => [self.least, p as i32, left, up, c as i32],
        };
        let weights = [q(if self.turn > 0 { e_last } else { e_prev }, 15), off(if moved { p } else { long })];
        let outlook = Outlook { middles, scales, contexts, keys, weights, least: self.least, most: self.most };
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
        self.around.observe(&inputs, (value - base) * unit, 1.0 / (off * off));
        store.values[at] = value;
        store.missed[at] = missed;
        came
    }
}

/// The fields of a plane, of each frame that is kept.
#[derive(Clone, Copy)]
struct Fields {
    plane: Plane,
    own: [Field; KEPT],
    /// The first plane in the size of this one, where that is another; planes behind each other of one size share it.
    first: Option<[Field; KEPT]>,
}

impl Fields {
    fn new(plane: Plane, before: Option<&Fields>, end: &mut usize) -> Fields {
        let mut fields = || std::array::from_fn(|_| Field::new((plane.width, plane.rows), end));
        let own = fields();
        let same = before.filter(|before| before.plane == plane).and_then(|before| before.first);
        Fields { plane, own, first: same.or_else(|| (plane.wide > 1 || plane.high > 1).then(fields)) }
    }
}

/// Passes frames on, or gets them: plane after plane, row after row. `vectors` says where blocks moved from.
pub fn pass(channel: &mut impl Channel, samples: &mut [i32], clip: &Clip, vectors: &mut [Vector]) {
    let Some(luma) = clip.planes.first().copied() else { return };
    let mut end = 0;
    let mut fields: Vec<Fields> = Vec::new();
    for plane in &clip.planes {
        fields.push(Fields::new(*plane, fields.last(), &mut end));
    }
    let middle = ((clip.least + clip.most) / 2) as f32;
    let mut store = Store { values: vec![middle; end], missed: vec![0.0; end] };
    let planes = clip.planes.iter().enumerate();
    let mut predictors: Vec<Predictor> = planes.map(|(turn, plane)| Predictor::new(clip, plane, turn)).collect();
    let mut coder = motion::Coder::new();
    let mut vectors = vectors.chunks_mut(motion::blocks(&luma).max(1));
    for (frame, samples) in samples.chunks_mut(clip.frame().max(1)).enumerate() {
        let no_vectors = &mut [][..];
        let vectors = if frame > 0 { vectors.next().unwrap_or(no_vectors) } else { no_vectors };
        coder.pass(channel, &luma, vectors);
        if frame == 1 {
            predictors.iter_mut().for_each(Predictor::follow);
        }
        let older = if frame > 1 { frame - 2 } else { frame.saturating_sub(1) };
        let which = [frame, frame.saturating_sub(1), older].map(|frame| frame % KEPT);
        let mut rest = samples;
        for (turn, predictor) in predictors.iter_mut().enumerate() {
            let Some(of_plane) = fields.get(turn) else { break };
            let (own, behind) = rest.split_at_mut((of_plane.plane.width * of_plane.plane.rows).min(rest.len()));
            rest = behind;
            pass_plane(channel, own, (&fields, turn), &mut store, (predictor, vectors), which);
            if turn == 0 {
                // What planes behind this one are told from.
                if let Some(Fields { plane, first: Some(first), .. }) = fields.get(1) {
                    let (into, from) = (&first[which[0]], &of_plane.own[which[0]]);
                    into.shrink(&mut store.values, from, (plane.wide, plane.high));
                    into.shrink(&mut store.missed, from, (plane.wide, plane.high));
                }
            }
        }
    }
}

/// One plane of a frame. `frames` says which of those that are kept are it, the one before, and the one before that.
fn pass_plane(
    channel: &mut impl Channel,
    samples: &mut [i32],
    (fields, turn): (&[Fields], usize),
    store: &mut Store,
    (predictor, vectors): (&mut Predictor, &[Vector]),
    frames: [usize; KEPT],
) {
    let Some(Fields { plane, own, first }) = fields.get(turn) else { return };
    let Plane { width, rows, wide, high } = *plane;
    let [now, before, older] = frames;
    let field = own[now];
    let stride = field.stride;
    let first = first.as_ref().or(fields.first().map(|first| &first.own)).unwrap_or(own);
    let side = if turn > 1 { fields.get(turn - 1).map_or(own, |side| &side.own) } else { first };
    let sources = [own[now], own[before], own[older], side[now], side[before], first[now], first[before]];
    let places = sources.map(|source| source.first as isize - field.first as isize);
    let across = motion::across(fields.first().map_or(0, |luma| luma.plane.width));
    if predictor.moved {
        // The first row is told from what is above it in the frame before.
        let from = own[before].first;
        store.values.copy_within(from..from + MARGIN * stride, field.first);
    }
    let mut errors = [vec![[0.0f32; PREDICTIONS]; width + 4], vec![[0.0f32; PREDICTIONS]; width + 4]];
    for y in 0..rows {
        field.begin(&mut store.values, y);
        let [above, here] = &mut errors;
        std::mem::swap(above, here);
        let (mut known, mut block) = (usize::MAX, usize::MAX);
        let (mut moves, mut offsets) = (places, [0isize; INPUTS]);
        for x in 0..width {
            let in_block = y * high / BLOCK * across + x * wide / BLOCK;
            if block != in_block {
                block = in_block;
                let vector = vectors.get(block).copied().unwrap_or_default();
                let far = |times: i32| vector.places(times, (x, y), plane, stride);
                let (near, twice) = (far(1), far(2));
                let [own, prev, older, side, side_prev, first, first_prev] = places;
                moves = [own, prev + near, older + twice, side, side_prev + near, first, first_prev + near];
                for (offset, (source, right, down)) in offsets.iter_mut().zip(predictor.neighbours) {
                    *offset = moves[*source] + right + down * stride as isize;
                }
            }
            if known != x / FIND_COLUMNS {
                known = x / FIND_COLUMNS;
                predictor.around.find(x);
            }
            let Some(sample) = samples.get_mut(y * width + x) else { continue };
            let at = (field.at(x, y), x + 2, stride as isize);
            *sample = predictor.pass(channel, store, at, (&offsets, &moves), (above, here), *sample);
            if x % COLUMNS == COLUMNS - 1 || x + 1 == width {
                predictor.around.close(x);
            }
        }
        field.end(&mut store.values, y);
        here[width + 2] = here[width + 1];
    }
    field.close(&mut store.values);
}

/// Bytes of tables and fields, for frames of so many values and columns. Fields are wider than planes, and in each size there is what the
/// first plane is shrunk to.
pub const fn bytes(frame: u64, width: usize) -> u64 {
    4 * (decisions::BYTES + Around::<INPUTS, FEW>::bytes(width) + (1 << 19)) + 40 * frame
}
