//! Streams of an encoder that is at hand, where preflate finds none or needs much: its level, and nothing else. What crates are
//! packed by is such a one. Versions of it that end a stream otherwise differ in its last bytes alone, which are kept.

use zlib_rs::{Deflate, DeflateFlush, Status};

use super::WINDOW_BITS_MAX;
use crate::base::{put_varint, take_varint};
use crate::containers::Error;
use crate::containers::guard::guarded;

/// Levels, the likely ones first.
const LEVELS: [u8; 10] = [9, 6, QUICK_APART, 1, 8, 7, 5, 4, 3, 2];
/// Level 1 where the end is told behind all text, as by a file that is written bit by bit: else its first block is the last one.
const QUICK_APART: u8 = 10;
/// Text by which a level is tried before all of it is.
const SAMPLE_BYTES: usize = 128 << 10;
/// Bytes at the end that may be others.
const TAIL_BYTES_MAX: usize = 16;

/// What the encoder makes of a text; to its end, or as far as it has come by then.
fn deflated(text: &[u8], level: u8, ends: bool) -> Option<Vec<u8>> {
    let made = guarded(|| {
        let apart = level == QUICK_APART;
        let mut encoder = Deflate::new(if apart { 1 } else { level.into() }, false, WINDOW_BITS_MAX as u8);
        let mut out = vec![0; text.len() / 2 + 1024];
        loop {
            let (read, wrote) = (encoder.total_in() as usize, encoder.total_out() as usize);
            let room = out.get_mut(wrote..)?;
            let all = ends && (!apart || read == text.len());
            let flush = if all { DeflateFlush::Finish } else { DeflateFlush::NoFlush };
            let status = encoder.compress(text.get(read..)?, room, flush).ok()?;
            let written = encoder.total_out() as usize;
            let is_done = if ends { status == Status::StreamEnd } else { encoder.total_in() as usize == text.len() };
            if is_done && (ends || written < out.len()) {
                out.truncate(written);
                return Some(out);
            }
            if written == out.len() {
                out.resize(out.len() * 2, 0);
            } else if (encoder.total_in() as usize, written) == (read, wrote) {
                return None;
            }
        }
    });
    made.flatten()
}

/// What closing needs for a stream of that text. `None` where the encoder makes another of it at any level.
pub(in crate::containers) fn open(stream: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    LEVELS.into_iter().find_map(|level| {
        if let Some(sample) = text.get(..SAMPLE_BYTES).filter(|_| level != 1)
            && !deflated(sample, level, false).is_some_and(|begins| stream.starts_with(&begins))
        {
            return None;
        }
        let made = deflated(text, level, true)?;
        if made == stream {
            return Some(vec![level]);
        }
        let same = made.iter().zip(stream).take_while(|(a, b)| a == b).count();
        let near = |len: usize| len - same <= TAIL_BYTES_MAX;
        (near(made.len()) && near(stream.len()) && stream.len() > 4 * TAIL_BYTES_MAX).then(|| {
            let mut told = vec![level];
            put_varint(&mut told, same as u64);
            told.extend_from_slice(stream.get(same..).unwrap_or_default());
            told
        })
    })
}

/// The stream that `open` was given.
///
/// # Errors
/// When it is told of no such stream.
pub(in crate::containers) fn close(text: &[u8], told: &[u8]) -> Result<Vec<u8>, Error> {
    const OTHER: Error = Error("a deflate stream is told of that its encoder does not make");
    let (level, mut tail) = told.split_first().filter(|(level, _)| LEVELS.contains(level)).ok_or(OTHER)?;
    let mut made = deflated(text, *level, true).ok_or(OTHER)?;
    if !tail.is_empty() {
        let same = take_varint(&mut tail, 5).and_then(|same| usize::try_from(same).ok()).ok_or(OTHER)?;
        if same > made.len() || tail.len() > TAIL_BYTES_MAX {
            return Err(OTHER);
        }
        made.truncate(same);
        made.extend_from_slice(tail);
    }
    Ok(made)
}
