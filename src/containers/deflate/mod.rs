//! Deflate streams by preflate: their text, and how an encoder of the zlib family, with parameters that are found, would have
//! to be corrected to make the same of it.
//!
//! A stream that goes on behind the bytes that are there, or that expands to more than the limit, is opened up to the end of
//! a block. One that began before them is opened from a block's start where what was before is known (`Before`).

mod cut;
pub(super) mod known;
mod slice;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use preflate_rs::{
    ExitCode, PreflateConfig, PreflateStreamProcessor, TokenPredictorParameters, recreate_whole_deflate_stream,
};

use super::guard::guarded;
use super::{Declined, Error};
pub use cut::{Before, End, Walk, walk};
pub(super) use cut::{pass_over, walk_text};
pub(super) use slice::{close_slice, open_slice};

/// Bytes that matches reach back.
pub(super) const WINDOW_BYTES: usize = 32 << 10;
/// Places that are looked up for a match: what zlib does at most. More would take minutes for bytes that repeat.
const CHAIN_MAX: u32 = 4096;
/// The largest window of deflate.
const WINDOW_BITS_MAX: u32 = 15;
/// Bits of corrections that a byte of their code may stand for: adaptive ones take a quarter of a bit each where there are many.
const BITS_OF_BYTE: usize = 32;
/// Bytes that a stream must have to be worth a recipe.
const STREAM_BYTES_MIN: usize = 40;

/// Text may be this many times as long as its stream: what expands to more is made to.
const EXPANSION_MAX: usize = 200;

/// True where a stream has far more text than any that was not made to.
pub(super) fn expands(text_bytes: usize, consumed: usize) -> bool {
    text_bytes > EXPANSION_MAX.saturating_mul(consumed.max(64))
}

/// A stream, opened.
pub(super) struct Stream {
    /// Bytes of the stream, from its start, that come back.
    pub consumed: usize,
    pub text: Vec<u8>,
    pub corrections: Vec<u8>,
    /// It ends there.
    pub whole: bool,
    /// `corrections` are what `known` tells.
    pub known: bool,
}

/// What a look at a stream found.
pub(super) struct Glance {
    pub consumed: usize,
    pub text: Vec<u8>,
    /// It ends there; else more bytes are needed, or more room.
    pub whole: bool,
}

/// The text of a whole zlib stream, of `room` bytes at most.
pub(super) fn inflated(bytes: &[u8], room: usize) -> Option<Vec<u8>> {
    let glance = glance(bytes.get(2..)?, room).ok()?;
    glance.whole.then_some(glance.text)
}

/// Inflates a stream as far as its bytes and `room` go.
///
/// # Errors
/// Bytes of stream and text that were looked at in vain, where it is none.
pub(super) fn glance(bytes: &[u8], room: usize) -> Result<Glance, usize> {
    let mut text = vec![0; room.min(bytes.len().saturating_mul(4)).max(64)];
    let mut state = Box::<DecompressorOxide>::default();
    let (mut consumed, mut written) = (0, 0);
    loop {
        let rest = bytes.get(consumed..).unwrap_or_default();
        let (status, read, wrote) =
            decompress(&mut state, rest, &mut text, written, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
        consumed += read;
        written += wrote;
        match status {
            TINFLStatus::HasMoreOutput if text.len() < room => {
                let longer = text.len().saturating_mul(2).min(room);
                text.resize(longer, 0);
            }
            TINFLStatus::Done | TINFLStatus::HasMoreOutput | TINFLStatus::FailedCannotMakeProgress => {
                text.truncate(written);
                return Ok(Glance { consumed, text, whole: status == TINFLStatus::Done });
            }
            _ => return Err(consumed + written),
        }
    }
}

/// What preflate keeps beside a text, as it lies.
#[derive(bitcode::Decode)]
struct Kept {
    parameters: TokenPredictorParameters,
    corrections: Vec<u8>,
}

/// Bits of the code of corrections for a text. Files of packages and sources need a tenth of its bytes at most; pixels of photographs,
/// of which encoders see few matches and choose otherwise among them, more, and then the code is long, too. Without a bound, a few bytes
/// could tell of millions of empty blocks.
fn correction_bits(text: &[u8], corrections: &[u8]) -> u32 {
    let told = corrections.len().saturating_mul(BITS_OF_BYTE).min(text.len().saturating_mul(2));
    u32::try_from((text.len() / 4 + 8192).saturating_add(told)).unwrap_or(u32::MAX)
}

/// Opens the stream at the start of some bytes, as far as `room` bytes of text go.
pub(super) fn open(bytes: &[u8], room: usize) -> Result<Stream, Declined> {
    let config = PreflateConfig { max_chain_length: CHAIN_MAX, plain_text_limit: room, verify_compression: false };
    // What it is for its text is looked at when that is known.
    let opened = cabac::bounded(u32::try_from(room).unwrap_or(u32::MAX).saturating_add(8192), || {
        guarded(|| {
            let mut processor = PreflateStreamProcessor::new(&config);
            let result = processor.decompress(bytes);
            result.map(|chunk| Stream {
                consumed: chunk.compressed_size,
                corrections: chunk.corrections,
                whole: processor.is_done(),
                known: false,
                text: processor.plain_text().text().to_vec(),
            })
        })
    });
    let stream = opened.ok_or(Declined::Failed)?.map_err(|e| match e.exit_code() {
        ExitCode::PlainTextLimit => Declined::TooLarge,
        ExitCode::RoundtripMismatch => Declined::Differs,
        _ => Declined::Foreign,
    })?;
    if stream.consumed < STREAM_BYTES_MIN || stream.consumed > bytes.len() || stream.text.is_empty() {
        return Err(Declined::Foreign);
    }
    if stream.text.len() > room {
        return Err(Declined::TooLarge);
    }
    // By the bounds of closing, which are tighter.
    match close(&stream.text, &stream.corrections) {
        Ok(again) if bytes.get(..stream.consumed) == Some(&again) => Ok(stream),
        Ok(_) | Err(_) => Err(Declined::Differs),
    }
}

/// The bytes of a stream.
pub(super) fn close(text: &[u8], corrections: &[u8]) -> Result<Vec<u8>, Error> {
    const BEYOND: Error = Error("a deflate stream was made by parameters that are not used");
    let kept = guarded(|| bitcode::decode::<Kept>(corrections).ok()).flatten().ok_or(BEYOND)?;
    if kept.parameters.max_chain > CHAIN_MAX || kept.parameters.window_bits > WINDOW_BITS_MAX {
        return Err(BEYOND);
    }
    drop(kept.corrections);
    let made = cabac::bounded(correction_bits(text, corrections), || {
        guarded(|| recreate_whole_deflate_stream(text, corrections))
    });
    match made {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(_)) => Err(Error("a deflate stream is not made again")),
        None => Err(Error("making a deflate stream again failed")),
    }
}
