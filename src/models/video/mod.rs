//! `video`: frames that nobody has compressed: Y4M (grey, 4:2:0, 4:2:2, 4:4:4, 4:1:1; 8 to 16 bits) and AVI.
//!
//! A value is predicted by least squares as in `picture`, from those around it, and from those around where it was in the frame before
//! and in the one before that: for each block of the first plane the coder looks for where it moved from (`motion`) and says so. The
//! other planes are told from the first as well, which is shrunk to their size. What a value is is decided as in `picture`. Frames of a
//! segment are told by what stands between them, and what they are like by the head of a file, or found from pixels where there is
//! none (`format`). What is no pixel stays as it is. Segments end with a frame, and each stands alone, so that one frame costs at most
//! a segment.
//!
//! Idea: least squares over space and time, as in lossless video coders since D. Brunello and others (2003); motion by blocks as in every
//! standard since H.261. Limits: frames that are longer than a segment are not for this method; memory as `memory_bytes` says;
//! decoding is as fast as encoding but for the search.

mod format;
mod layout;
mod motion;
mod predictor;

use super::{Basis, Coded, Declined, Error, InUse, Model, stands_alone};
use crate::base::{Class, MethodId, ModelId, SEGMENT_BYTES_MAX};
use crate::entropy::{Decoder, Encoder};
use layout::Parts;
use motion::Vector;
use predictor::Clip;

/// Revision of the payloads that are written.
const REVISION: u16 = 1;
/// Values of a whole segment, and what predictors of its planes take where it is one frame.
const BYTES: u64 = predictor::bytes(SEGMENT_BYTES_MAX as u64, format::SIDE_MAX) + 16 * SEGMENT_BYTES_MAX as u64;

/// Video.
pub(crate) struct Video;

/// True for the first bytes of a file of frames that this method codes, or that are longer than a segment: parts of those are pictures.
pub fn begins_as_video(sample: &[u8]) -> bool {
    format::head(sample).is_some()
}

/// Bytes up to the end of the last whole frame of some that begin where a segment of video does; `None` where there is none.
pub fn video_frames_end(raw: &[u8]) -> Option<usize> {
    format::frames_end(raw)
}

/// Where the blocks of all frames but the first moved from.
fn vectors(clip: &Clip, values: &[i32]) -> Vec<Vector> {
    let Some(luma) = clip.planes.first() else { return Vec::new() };
    let (frames, blocks) = (values.len() / clip.frame(), motion::blocks(luma));
    let mut all = vec![Vector::default(); blocks * frames.saturating_sub(1)];
    let pairs = values.chunks_exact(clip.frame()).zip(values.chunks_exact(clip.frame()).skip(1));
    for (vectors, (before, now)) in all.chunks_mut(blocks).zip(pairs) {
        motion::search(now, before, luma, vectors);
    }
    all
}

impl Model for Video {
    fn id(&self) -> MethodId {
        MethodId::Video
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
        let found = format::found(raw).ok_or(Declined::Foreign)?;
        let (mut values, others) = layout::apart(&found, raw);
        let ends = values.iter().fold((i32::MAX, 0), |(least, most), value| (least.min(*value), most.max(*value)));
        let clip = layout::clip(&found.format, ends.0, ends.1);
        let mut vectors = vectors(&clip, &values);
        let mut coder = Encoder::new(raw.len());
        predictor::pass(&mut coder, &mut values, &clip, &mut vectors);
        let payload = layout::join(&found, ends, &others, &coder.finish());
        if payload.len() < raw.len() { Ok(Coded::alone(payload)) } else { Err(Declined::DoesNotShrink) }
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
        let Parts { found, least, most, others, code } = layout::split(payload, raw_len)?;
        let clip = layout::clip(&found.format, least, most);
        let frames = found.starts.len();
        let mut values = vec![0; clip.frame() * frames];
        let blocks = clip.planes.first().map_or(0, motion::blocks);
        let mut vectors = vec![Vector::default(); blocks * (frames - 1)];
        predictor::pass(&mut Decoder::new(code), &mut values, &clip, &mut vectors);
        layout::together(&found, &values, &others, raw_len).ok_or(Error::Corrupt("video payload is damaged"))
    }
}
