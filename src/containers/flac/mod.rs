//! FLAC, frame by frame: samples for a model of sound, and beside them how each frame is predicted and coded, from which it is
//! written again bit for bit. No encoder is run: what one decided is kept, as far as it does not follow from the samples
//! (`side`).
//!
//! Frames stand alone, so a row of them is opened wherever it begins, and files are cut between them. A frame that is damaged,
//! has more than 24 bits a sample, or tells its bits elsewhere ends the row.

mod bits;
mod frame;
mod linear;
mod side;

use super::{Declined, Error};
use crate::entropy::{Decoder, Encoder};
use frame::{CHANNELS_MAX, Frame, Head};
use side::Side;

/// Fewer bytes are not worth a model of sound.
const BYTES_MIN: usize = 4 << 10;

/// A row of frames, opened.
pub(super) struct Row {
    /// Bytes of them.
    pub len: usize,
    pub frames: usize,
    pub form: Samples,
    pub side: Vec<u8>,
    /// Their samples, channel after channel for each time, the lowest byte first, with signs.
    pub samples: Vec<u8>,
}

/// What samples of a row are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Samples {
    pub channels: u8,
    /// Bytes of a sample, 1 to 3.
    pub width: u8,
}

impl Samples {
    fn of(head: &Head) -> Option<Samples> {
        Some(Samples { channels: head.channels() as u8, width: head.bits()?.div_ceil(8) as u8 })
    }

    fn frame_bytes(self) -> usize {
        usize::from(self.channels) * usize::from(self.width)
    }
}

/// True where a frame may begin.
pub(super) fn is_mark(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xf8 | 0xf9, ..])
}

/// True where the head of a frame is.
pub(super) fn begins(bytes: &[u8]) -> bool {
    is_mark(bytes) && frame::head(bytes).is_some()
}

/// The frame at the start of some bytes, of at most `room` bytes of samples, which are like others.
fn next(bytes: &[u8], room: usize, form: Option<Samples>) -> Option<(Frame, Samples)> {
    if !is_mark(bytes) {
        return None;
    }
    let frame = frame::read(bytes, room)?;
    let own = Samples::of(&frame.head)?;
    let fits = frame.head.size as usize * own.frame_bytes() <= room && form.is_none_or(|form| form == own);
    fits.then_some((frame, own))
}

/// How far frames go.
pub(super) struct Walk {
    pub consumed: usize,
    pub text_bytes: usize,
    /// More follows than there is room for.
    pub full: bool,
}

/// Walks along frames, as far as `text_max` bytes of samples go.
pub(super) fn walk(bytes: &[u8], text_max: usize) -> Walk {
    let mut walk = Walk { consumed: 0, text_bytes: 0, full: false };
    let mut form = None;
    loop {
        let rest = bytes.get(walk.consumed..).unwrap_or_default();
        let left = text_max.saturating_sub(walk.text_bytes);
        let Some((frame, own)) = next(rest, left, form) else {
            let head = if is_mark(rest) { frame::head(rest) } else { None };
            let needed = |head: Head| Some(head.size as usize * Samples::of(&head)?.frame_bytes());
            walk.full = head.and_then(needed).is_some_and(|needed| needed > left);
            return walk;
        };
        form = Some(own);
        walk.consumed += frame.len;
        walk.text_bytes += frame.head.size as usize * own.frame_bytes();
    }
}

/// Opens the row of frames at the start of some bytes, of at most `room` bytes of samples.
///
/// # Errors
/// Where there is none; and how many bytes were looked at.
pub(super) fn open(bytes: &[u8], room: usize) -> Result<Row, (Declined, usize)> {
    let mut row =
        Row { len: 0, frames: 0, form: Samples { channels: 1, width: 1 }, side: Vec::new(), samples: Vec::new() };
    let mut coder = Encoder::new(bytes.len());
    let mut side = Side::new();
    loop {
        let rest = bytes.get(row.len..).unwrap_or_default();
        let left = room.saturating_sub(row.samples.len());
        let Some((frame, form)) = next(rest, left, (row.frames > 0).then_some(row.form)) else { break };
        let Some(mut samples) = joined(&frame, form) else { break };
        row.form = form;
        side.head(&mut coder, &frame.head);
        for (channel, (subframe, samples)) in frame.subframes.iter().zip(frame.samples).enumerate() {
            let told = side.subframe(&mut coder, channel, Some(subframe), |_| samples);
            if told.is_none_or(|(told, ..)| told != *subframe) {
                return Err((Declined::Failed, row.len + frame.len));
            }
        }
        row.samples.append(&mut samples);
        row.frames += 1;
        row.len += frame.len;
    }
    if row.len < BYTES_MIN {
        return Err((if row.len > 0 { Declined::NothingFound } else { Declined::Foreign }, row.len));
    }
    row.side = coder.finish();
    match close(&row.side, row.frames, row.form, &row.samples, row.len) {
        Ok(again) if bytes.get(..row.len) == Some(&again) => Ok(row),
        Ok(_) | Err(_) => Err((Declined::Differs, 4 * row.len)),
    }
}

/// Samples of a frame as bytes; `None` where one has more bits than the frame tells.
fn joined(frame: &Frame, form: Samples) -> Option<Vec<u8>> {
    let bits = frame.head.bits()?;
    let half = 1i64 << (bits - 1);
    let mut out = Vec::with_capacity(frame.head.size as usize * form.frame_bytes());
    let mut row = [0i64; CHANNELS_MAX];
    for n in 0..frame.head.size as usize {
        for ((to, samples), subframe) in row.iter_mut().zip(&frame.samples).zip(&frame.subframes) {
            *to = i64::from(*samples.get(n)?) << subframe.wasted;
        }
        let [a, b, ..] = row;
        match frame.head.assignment {
            8 => row[1] = a - b,
            9 => row[0] = a + b,
            10 => (row[0], row[1]) = (((a << 1 | b & 1) + b) >> 1, ((a << 1 | b & 1) - b) >> 1),
            _ => {}
        }
        for sample in row.iter().take(form.channels.into()) {
            if !(-half..half).contains(sample) {
                return None;
            }
            out.extend_from_slice(sample.to_le_bytes().get(..form.width.into())?);
        }
    }
    Some(out)
}

/// One channel of a frame as it is coded, without its lowest `wasted` bits, from bytes of samples.
fn parted(head: &Head, form: Samples, bytes: &[u8], channel: usize, wasted: u8) -> Vec<i32> {
    let (width, unused) = (usize::from(form.width), 64 - 8 * u32::from(form.width));
    let sample = |frame: &[u8], channel: usize| {
        let bytes = frame.get(channel * width..).and_then(|rest| rest.get(..width)).unwrap_or_default();
        let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        (value << unused) as i64 >> unused
    };
    let coded = |frame: &[u8]| {
        let value = match (head.assignment, channel) {
            (8, 1) | (9, 0) | (10, 1) => sample(frame, 0) - sample(frame, 1),
            (10, _) => (sample(frame, 0) + sample(frame, 1)) >> 1,
            _ => sample(frame, channel),
        };
        (value >> wasted) as i32
    };
    bytes.chunks_exact(form.frame_bytes().max(1)).map(coded).collect()
}

/// Writes so many frames again: `room` bytes at most.
///
/// # Errors
/// When what is said of them does not go with the samples, or they take more.
pub(super) fn close(side: &[u8], frames: usize, form: Samples, samples: &[u8], room: usize) -> Result<Vec<u8>, Error> {
    const DIFFERS: Error = Error("a frame of sound does not go with its samples");
    let mut coder = Decoder::new(side);
    let mut side = Side::new();
    let (mut out, mut rest) = (Vec::new(), samples);
    for _ in 0..frames {
        let left = room.checked_sub(out.len()).filter(|left| *left > 0).ok_or(DIFFERS)?;
        let head = side.head(&mut coder, &Head::default());
        if !head.is_sound() || Samples::of(&head) != Some(form) {
            return Err(DIFFERS);
        }
        let (own, behind) = rest.split_at_checked(head.size as usize * form.frame_bytes()).ok_or(DIFFERS)?;
        rest = behind;
        out.append(&mut written(&mut side, &mut coder, &head, form, own, left).ok_or(DIFFERS)?);
    }
    if rest.is_empty() { Ok(out) } else { Err(DIFFERS) }
}

/// One frame.
fn written(
    side: &mut Side,
    coder: &mut Decoder<'_>,
    head: &Head,
    form: Samples,
    bytes: &[u8],
    room: usize,
) -> Option<Vec<u8>> {
    let mut writer = frame::begin(head, room)?;
    for channel in 0..head.channels() {
        let (subframe, samples, residual) =
            side.subframe(coder, channel, None, |wasted| parted(head, form, bytes, channel, wasted))?;
        let bits = head.bits_of(channel)?.checked_sub(subframe.wasted.into()).filter(|bits| *bits > 0)?;
        frame::put(&mut writer, &subframe, bits, &samples, &residual)?;
    }
    frame::end(writer)
}
