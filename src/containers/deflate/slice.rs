//! A stream from one of its blocks on. It is opened as one that begins with the bytes before in a stored block, so that
//! matches reach back into them, and then has the slice's own blocks, moved by some bits to where a byte begins. Closing drops
//! the stored block and moves them back. Blocks that are stored do not bear to be moved: the slice ends before one.

use super::{Before, End, Stream, WINDOW_BYTES, expands, walk};
use crate::containers::{Declined, Error};

/// Bytes of a stored block's head.
const STORED_HEAD_BYTES: usize = 5;

/// The stored block that holds a window.
fn stored(window: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(window.len()).ok().filter(|len| usize::from(*len) <= WINDOW_BYTES)?;
    let mut out = Vec::with_capacity(STORED_HEAD_BYTES + window.len());
    out.push(0);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&(!len).to_le_bytes());
    out.extend_from_slice(window);
    Some(out)
}

/// Appends `bits` lowest bits of a byte and then bytes, as one row of bits.
fn append_shifted(out: &mut Vec<u8>, bits: u8, lead: u8, bytes: &[u8]) {
    if bits == 0 {
        out.extend_from_slice(bytes);
        return;
    }
    let mut carry = u16::from(lead) & ((1 << bits) - 1);
    for byte in bytes {
        carry |= u16::from(*byte) << bits;
        out.push(carry as u8);
        carry >>= 8;
    }
    out.push(carry as u8);
}

/// Opens the stream whose next block begins with the bits of `before`, and goes on with `bytes`. Its text has the window of
/// `before` in front. `consumed` counts those of `bytes` that come back.
pub fn open_slice(before: &Before, bytes: &[u8], room: usize) -> Result<Stream, Declined> {
    // Where it ends, what comes behind would be moved into the bits that have to be zero.
    let bytes = match walk(before, bytes, room) {
        Ok(walked) if expands(walked.text_bytes, walked.consumed) => return Err(Declined::TooLarge),
        Ok(walked) if walked.end == End::Done => bytes.get(..walked.consumed).unwrap_or(bytes),
        Ok(_) | Err(_) => bytes,
    };
    let mut whole = stored(&before.window).ok_or(Declined::Foreign)?;
    append_shifted(&mut whole, before.bits, before.lead, bytes);
    let mut stream = super::open(&whole, room)?;
    let head = STORED_HEAD_BYTES + before.window.len();
    let of_whole = stream.consumed;
    let own = of_whole.checked_sub(head).ok_or(Declined::Foreign)?;
    // The last byte that was made of the lead's bits may be one of the shift alone.
    stream.consumed = (if before.bits == 0 { own } else { own.saturating_sub(1) }).min(bytes.len());
    // That the whole comes back was seen when it was opened.
    let again = whole.get(..of_whole).unwrap_or_default();
    match own_of(again, before.window.len(), before.bits, stream.consumed) {
        Ok(again) if bytes.get(..stream.consumed) == Some(&again) => Ok(stream),
        Ok(_) | Err(_) => Err(Declined::Differs),
    }
}

/// The `len` bytes of a slice, of whose text the first `window` bytes are those before it; and what was before it.
pub fn close_slice(
    text: &[u8],
    corrections: &[u8],
    window: usize,
    bits: u8,
    len: usize,
) -> Result<(Vec<u8>, Before), Error> {
    let whole = super::close(text, corrections)?;
    let own = own_of(&whole, window, bits, len)?;
    let lead = whole.get(STORED_HEAD_BYTES + window).copied().unwrap_or_default() & ((1 << bits) - 1);
    Ok((own, Before { window: text.get(..window).unwrap_or_default().to_vec(), bits, lead }))
}

/// The bytes of a slice in the stream that was made of it.
fn own_of(whole: &[u8], window: usize, bits: u8, len: usize) -> Result<Vec<u8>, Error> {
    const SHORT: Error = Error("a slice of a deflate stream is too short");
    let own = whole.get(STORED_HEAD_BYTES.checked_add(window).ok_or(SHORT)?..).ok_or(SHORT)?;
    if bits == 0 {
        return own.get(..len).map(<[u8]>::to_vec).ok_or(SHORT);
    }
    // Byte n has its lowest bits in the top of one byte and the others in the next.
    let out: Vec<u8> = own.iter().zip(own.iter().skip(1)).take(len).map(|(a, b)| a >> bits | b << (8 - bits)).collect();
    if out.len() == len && bits < 8 { Ok(out) } else { Err(SHORT) }
}
