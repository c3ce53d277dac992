//! Where a file of containers is cut into segments, so that each opens by its own bytes and what comes out of it stays below a
//! limit: between members where they are small, else between the blocks of a deflate stream. What the next segment then has to
//! know of the stream goes on with it (`Before`).

use super::deflate::{End, Walk, expands, pass_over, walk};
use super::layout::weight;
use super::scan::{Start, next_mark, starts_at, work_for};
use super::{Before, Kind, MemberBefore, StreamBefore, bz2, flac, jpeg, plain, png, xz};

/// Times the text of a segment that the pixels of a picture have at least for it to be cut into slices.
const PIXELS_FACTOR: usize = 3;
/// Pixels of a slice, of the text that a segment has room for, 1/100: decoding them as what they are takes longer.
const PIXELS_PART: usize = 75;
/// Data of a member that is cut as the same file alone would be, so that equal segments are found, bytes.
const MEMBER_BYTES_MIN: usize = 256 << 10;
/// What stays closed in a stream is no shorter than this, bytes, unless the stream ends.
const CLOSED_BYTES_MIN: usize = 16 << 10;

/// The first segment of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub len: usize,
    /// The next segment goes on with a stream.
    pub before: Option<Before>,
}

/// How long a segment may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutLimits {
    /// Shorter ones are not made for the sake of a whole member, bytes.
    pub min: usize,
    /// Text that comes out of it, bytes.
    pub text_bytes: usize,
}

/// Cuts the first segment from bytes, which are as many as one may have, or all that are left. `before` says that they go on
/// with a stream.
pub fn cut(bytes: &[u8], before: Option<&Before>, limits: CutLimits, all: bool) -> Cut {
    let whole = Cut { len: bytes.len(), before: None };
    let (mut at, mut text) = (0, 0);
    if let Some(Before::Picture(before)) = before {
        match jpeg::walk(Some(before), bytes) {
            Some(jpeg::Walk { consumed, before: None }) => (at, text) = (consumed, weight(Kind::Lepton, consumed)),
            Some(jpeg::Walk { consumed, before: Some(before) }) if !all => {
                return Cut { len: consumed, before: Some(Before::Picture(before)) };
            }
            Some(_) | None => return whole,
        }
    }
    if let Some(Before::Pixels(before)) = before {
        match png::walk(Some(before), bytes, pixels_max(limits.text_bytes)) {
            Some(png::Walk { consumed, text_bytes, before: None }) => (at, text) = (consumed, text_bytes),
            Some(png::Walk { consumed, before: Some(before), .. }) => {
                return Cut { len: consumed, before: Some(Before::Pixels(before)) };
            }
            None => return whole,
        }
    }
    if let Some(Before::Member(member)) = before {
        // Whoever knows more of it cuts it as it is.
        return Cut { len: bytes.len().min(usize::try_from(member.bytes).unwrap_or(usize::MAX)), before: None };
    }
    if let Some(Before::Stream(before)) = before {
        match walk(before, bytes, limits.text_bytes) {
            Ok(walked) if expands(walked.text_bytes, walked.consumed) => {
                return closed(bytes, 0, before).unwrap_or(whole);
            }
            Ok(walked) if walked.end == End::Done => (at, text) = (walked.consumed, walked.text_bytes),
            Ok(walked) if walked.consumed > 0 && !(all && walked.end == End::Bytes) => {
                return Cut { len: walked.consumed, before: Some(Before::Stream(walked.before)) };
            }
            Ok(walked) if walked.end == End::Text => return closed(bytes, 0, before).unwrap_or(whole),
            Ok(_) | Err(_) => return whole,
        }
    }
    if before.is_none()
        && let Some(missing) = bz2::missing(bytes)
    {
        let walked = bz2::walk(bytes, missing, limits.text_bytes);
        if walked.full && walked.consumed > 0 {
            return Cut { len: walked.consumed, before: None };
        }
        (at, text) = (walked.consumed, walked.text_bytes);
    }
    if before.is_none() && xz::is_block(bytes) {
        let walked = xz::walk(bytes, limits.text_bytes);
        if walked.full && walked.consumed > 0 {
            return Cut { len: walked.consumed, before: None };
        }
        (at, text) = (walked.consumed, walked.text_bytes);
    }
    // The end of the last member that ended, and the head that a plain container is cut before.
    let mut border = at;
    // What is like another segment is coded from that: both are decoded within the time.
    let plain_max = limits.text_bytes / 2;
    let mut heads = Heads::new(bytes.len().min(plain_max));
    let mut work = work_for(bytes);
    while let Some((found, start)) = next_start(bytes, at, &mut work) {
        let left = limits.text_bytes.saturating_sub(text);
        // A head that is large enough to end a segment before it.
        let enough = found >= limits.min || text * 4 >= limits.text_bytes;
        match start {
            Start::Whole { len, text_bytes } => {
                if text_bytes > left && found > 0 && enough {
                    return Cut { len: found, before: None };
                }
                if text_bytes > PIXELS_FACTOR * limits.text_bytes
                    && let Some(cut) = pixels(bytes, found, left)
                {
                    return cut;
                }
                (at, text) = (found + len, text + text_bytes);
            }
            // It does not end here; what comes may be put with it.
            Start::CutOff | Start::Picture if enough && !all => return Cut { len: found, before: None },
            Start::CutOff => match pixels(bytes, found, left) {
                Some(cut) if !all => return cut,
                Some(_) | None => at = found + 1,
            },
            Start::Picture => match jpeg::walk(None, bytes.get(found..).unwrap_or_default()) {
                None => {
                    work = work.saturating_sub(bytes.len() - found);
                    at = found + 1;
                }
                Some(jpeg::Walk { consumed, before: None }) => {
                    (at, text) = (found + consumed, text + weight(Kind::Lepton, consumed));
                }
                Some(_) if all => return whole,
                Some(jpeg::Walk { consumed, before: Some(before) }) => {
                    return Cut { len: found + consumed, before: Some(Before::Picture(before)) };
                }
            },
            Start::Frames => {
                let flac::Walk { consumed, text_bytes, full } =
                    flac::walk(bytes.get(found..).unwrap_or_default(), left);
                let len = found + consumed;
                text += text_bytes;
                if full && len > 0 && (consumed > 0 || enough) {
                    return Cut { len, before: None };
                }
                if consumed == 0 {
                    // No place to cut at.
                    at = found + 1;
                    continue;
                }
                at = len;
            }
            Start::Member(head) => {
                let data = usize::try_from(head.data).unwrap_or(usize::MAX);
                heads.met(found, bytes.get(found..found + head.len).unwrap_or_default());
                if data >= MEMBER_BYTES_MIN {
                    let before = MemberBefore { bytes: head.data, ..MemberBefore::default() };
                    return Cut { len: found + head.len, before: Some(Before::Member(before)) };
                }
                let ends = found.saturating_add(head.len).saturating_add(data);
                if (text.saturating_add(data) > plain_max || (ends > bytes.len() && !all))
                    && let Some(len) = heads.chosen()
                {
                    return Cut { len, before: None };
                }
                (at, text) = (found + head.len, text.saturating_add(data));
            }
            Start::Blocks(head) | Start::Lzma(head) => {
                let rest = bytes.get(found + head..).unwrap_or_default();
                let (consumed, text_bytes, full) = if matches!(start, Start::Blocks(_)) {
                    let bz2::Walk { consumed, text_bytes, full } = bz2::walk(rest, 0, left);
                    (consumed, text_bytes, full)
                } else {
                    let xz::Walk { consumed, text_bytes, full } = xz::walk(rest, left);
                    (consumed, text_bytes, full)
                };
                text += text_bytes;
                if full && consumed > 0 {
                    return Cut { len: found + head + consumed, before: None };
                }
                if full && found > 0 && enough {
                    return Cut { len: found, before: None };
                }
                if consumed == 0 {
                    work = work.saturating_sub(rest.len().min(1 << 20));
                    at = found + 1;
                    continue;
                }
                at = found + head + consumed;
            }
            Start::Stream { at: stream, tail } => {
                match walk(&StreamBefore::default(), bytes.get(stream..).unwrap_or_default(), left) {
                    Err(looked_at) => {
                        work = work.saturating_sub(looked_at);
                        at = found + 1;
                    }
                    // Nor is it worth a segment where it soon breaks off.
                    Ok(walked)
                        if (walked.end != End::Text && expands(walked.text_bytes, walked.consumed))
                            || (walked.end == End::Damaged && walked.consumed < limits.min) =>
                    {
                        work = work.saturating_sub(walked.text_bytes);
                        at = found + 1;
                    }
                    Ok(walked) if walked.end == End::Done => {
                        at = (stream + walked.consumed + tail).min(bytes.len());
                        text += walked.text_bytes;
                    }
                    Ok(walked) if walked.end == End::Bytes && all => return whole,
                    Ok(_) if found > 0 && enough => return Cut { len: found, before: None },
                    Ok(walked) if walked.consumed > 0 && !expands(walked.text_bytes, walked.consumed) => {
                        return Cut { len: stream + walked.consumed, before: Some(Before::Stream(walked.before)) };
                    }
                    // One block is too much, or a few are far too much.
                    Ok(_) => return closed(bytes, stream, &StreamBefore::default()).unwrap_or(whole),
                }
            }
        }
        border = at;
    }
    if !all && let Some(len) = heads.chosen() {
        return Cut { len, before: None };
    }
    // What is behind the last member may be the head of the next.
    if all || border < limits.min { whole } else { Cut { len: border, before: None } }
}

/// A segment that stays closed, as blocks of the stream at a place of it have too much text. Those behind them need not.
fn closed(bytes: &[u8], stream: usize, before: &StreamBefore) -> Option<Cut> {
    let passed = pass_over(before, bytes.get(stream..)?, CLOSED_BYTES_MIN)?;
    let before = (passed.end != End::Done).then_some(Before::Stream(passed.before));
    Some(Cut { len: stream + passed.consumed, before })
}

/// What comes behind a segment goes on with, where it ends with a block of a stream of deflate, that it goes on with itself
/// (`before`) or that begins in it. For who does not know any more how it was cut.
pub fn before_behind(bytes: &[u8], before: Option<&StreamBefore>) -> Option<Before> {
    let ends = |walked: Walk, at: usize| (at + walked.consumed == bytes.len()).then_some(Before::Stream(walked.before));
    let mut at = 0;
    if let Some(before) = before {
        let walked = pass_over(before, bytes, bytes.len())?;
        if walked.end != End::Done {
            return ends(walked, 0);
        }
        at = walked.consumed;
    }
    let mut work = work_for(bytes);
    while let Some((found, start)) = next_start(bytes, at, &mut work) {
        at = found + 1;
        match start {
            Start::Whole { len, .. } => at = found + len,
            Start::Member(head) => at = found + head.len,
            Start::Stream { at: stream, tail } => {
                let rest = bytes.get(stream..).unwrap_or_default();
                match pass_over(&StreamBefore::default(), rest, rest.len()) {
                    Some(walked) if walked.end == End::Done => at = (stream + walked.consumed + tail).min(bytes.len()),
                    walked => {
                        work = work.saturating_sub(rest.len());
                        if let Some(before) = walked.and_then(|walked| ends(walked, stream)) {
                            return Some(before);
                        }
                    }
                }
            }
            Start::CutOff | Start::Picture | Start::Frames | Start::Blocks(_) | Start::Lzma(_) => {}
        }
    }
    None
}

/// Pixels of a slice where there is room for so much text, bytes.
fn pixels_max(text_bytes: usize) -> usize {
    text_bytes * PIXELS_PART / 100
}

/// The first slice of a picture in PNG that is too large to be opened as a whole.
fn pixels(bytes: &[u8], found: usize, text_max: usize) -> Option<Cut> {
    let walk = png::walk(None, bytes.get(found..)?, pixels_max(text_max))?;
    Some(Cut { len: found + walk.consumed, before: Some(Before::Pixels(walk.before?)) })
}

/// Heads of members, of which one is chosen to be cut before: by itself and not by how many were before it, so that another
/// container with some of the same members is cut at the same places.
struct Heads {
    /// A segment is not shorter for its sake.
    min: usize,
    /// The smallest hash, and where it is.
    best: Option<(u32, usize)>,
}

impl Heads {
    /// For a segment of `max` bytes at most.
    fn new(max: usize) -> Heads {
        Heads { min: max / 3, best: None }
    }

    fn met(&mut self, at: usize, head: &[u8]) {
        let hash = crc32fast::hash(head);
        if at > 0 && at >= self.min && self.best.is_none_or(|(best, _)| hash < best) {
            self.best = Some((hash, at));
        }
    }

    fn chosen(&self) -> Option<usize> {
        self.best.map(|(_, at)| at)
    }
}

/// The next place from `at` on where something known begins, as long as there is `work` left to look for it.
fn next_start(bytes: &[u8], mut at: usize, work: &mut usize) -> Option<(usize, Start)> {
    let from = at;
    while *work > 0 {
        at = next_mark(bytes, at)?;
        if let Some((found, head)) = plain::found(bytes, from, at) {
            return Some((found, Start::Member(head)));
        }
        if let Some(start) = starts_at(bytes, at, work) {
            return Some((at, start));
        }
        at += 1;
    }
    None
}
