//! Pixels of a segment as `picture` codes them, as far as there is time for it.

use super::layout::Part;
use crate::base::MethodId;
use crate::models::picture::{self, encode_rows};
use crate::models::zstd::quick_bytes;

/// Less of a picture is not coded apart from the rest of it.
const PART_BYTES_MIN: usize = 64 << 10;
/// What photographs must be coded to so that no method for text need be tried, 1/100 of what zstd's quick level makes of them.
const SURE_PART: usize = 85;

/// What a segment has time for: bytes of text in it, and bytes of pixels that `picture` decodes in the time that it has.
pub struct Time {
    /// Of pixels, too.
    pub text: usize,
    pub pixels: usize,
}

impl Time {
    /// Bytes of pixels that there is time for where all the rest is coded by a method that has time for `text_max`.
    pub fn room_beside(&self, text_max: usize) -> usize {
        if self.text <= self.pixels {
            return self.pixels;
        }
        let (spare, longer) = (text_max.saturating_sub(self.text), text_max.saturating_sub(self.pixels));
        (spare as u64 * self.pixels as u64 / longer.max(1) as u64) as usize
    }

    /// How much longer rows take than if they were coded as the rest is, by a method that has time for `text_max`, in bytes of that.
    pub fn more_than_text(&self, rows: &Rows, text_max: usize) -> i64 {
        (rows.work as u64 * text_max as u64 / self.pixels.max(1) as u64) as i64 - rows.len as i64
    }

    /// Bytes for which such a method has time beside all text, of which some rows are coded by `picture`.
    pub fn spare(&self, rows: &[&Rows], text_max: usize) -> i64 {
        let more: i64 = rows.iter().map(|rows| self.more_than_text(rows, text_max)).sum();
        text_max as i64 - self.text as i64 - more
    }
}

/// Rows of pixels, coded.
pub struct Rows {
    pub part: Part,
    /// Bytes of them.
    pub len: usize,
    /// Bytes that take as much time as they do, by what decoding pixels usually takes.
    pub work: usize,
    /// No other method need be tried.
    pub sure: bool,
}

/// The rows of a group, from its first on, `row` bytes each with its filter, as far as there is room for them.
pub fn coded(bytes: &[u8], row: u32, pixel: u8, room: &mut usize) -> Vec<Rows> {
    let row = (row as usize).saturating_sub(1).max(1);
    let mut rest = bytes;
    let mut out = Vec::new();
    while !rest.is_empty()
        && *room >= PART_BYTES_MIN.min(rest.len())
        && let Ok(picture::Rows { coded, len, work, is_photograph }) = encode_rows(rest, row, pixel.into(), *room)
        && let Some((rows, behind)) = rest.split_at_checked(len)
    {
        let quick = quick_bytes(rows).unwrap_or(len);
        let sure = is_photograph && coded.payload.len() * 100 < quick * SURE_PART;
        *room = room.saturating_sub(work);
        out.push(Rows { part: Part { method: MethodId::Picture, payload: coded.payload }, len, work, sure });
        rest = behind;
    }
    out
}
