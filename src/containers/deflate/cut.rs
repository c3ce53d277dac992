//! Where a long stream may be cut, so that each slice expands to no more than a limit: between blocks.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

use super::WINDOW_BYTES;

/// Text that is held while blocks are passed over, bytes.
const PASSED_BYTES: usize = 8 * WINDOW_BYTES;

/// What was before a block: what it may repeat, and its first bits, which lie in a byte before.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Before {
    /// Text before it, at most 32 KiB.
    pub window: Vec<u8>,
    /// Bits of the last byte before the slice that belong to it, 0 to 7.
    pub bits: u8,
    /// Those bits, lowest first.
    pub lead: u8,
}

/// Why a walk from block to block stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The stream ends.
    Done,
    /// The bytes end.
    Bytes,
    /// There is as much text as was asked for.
    Text,
    /// The next block is none.
    Damaged,
}

/// Where a walk from block to block stopped.
pub struct Walk {
    /// Bytes of the stream up to the last block's end that was reached, the byte that it lies in among them.
    pub consumed: usize,
    /// Text up to there.
    pub text_bytes: usize,
    pub end: End,
    /// What was before the next block.
    pub before: Before,
}

/// Walks along a stream that goes on with `bytes`, as far as they and `text_max` bytes of text go, block by block.
///
/// # Errors
/// Bytes of stream and text that were looked at in vain, where it is none.
pub fn walk(before: &Before, bytes: &[u8], text_max: usize) -> Result<Walk, usize> {
    walk_text(before, bytes, text_max).map(|(walk, _)| walk)
}

/// As `walk`, with all text that was walked along, behind that before it.
pub fn walk_text(before: &Before, bytes: &[u8], text_max: usize) -> Result<(Walk, Vec<u8>), usize> {
    let mut text = before.window.clone();
    let window = text.len();
    let begin = BlockBoundaryState { num_bits: before.bits, bit_buf: before.lead, ..BlockBoundaryState::default() };
    let mut state = Box::new(DecompressorOxide::from_block_boundary_state(&begin));
    let (mut read, mut written) = (0, window);
    let mut at = (0, window, begin);
    let flags =
        TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_HAS_MORE_INPUT;
    let room = window.saturating_add(text_max);
    let end = loop {
        if written == text.len() {
            if written >= room {
                break End::Text;
            }
            text.resize((2 * written).max(64 << 10).min(room), 0);
        }
        let (status, took, gave) =
            decompress(&mut state, bytes.get(read..).unwrap_or_default(), &mut text, written, flags);
        read += took;
        written += gave;
        match status {
            TINFLStatus::BlockBoundary => match state.block_boundary_state() {
                Some(state) => at = (read, written, state),
                None => return Err(read + written - window),
            },
            TINFLStatus::Done => {
                at = (read, written, BlockBoundaryState::default());
                break End::Done;
            }
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::NeedsMoreInput => {
                break End::Bytes;
            }
            _ if at.0 > 0 => break End::Damaged,
            _ => return Err(read + written - window),
        }
    };
    let (consumed, text_end, state) = at;
    text.truncate(text_end);
    let window = text.get(text.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default().to_vec();
    let before_next = Before { window, bits: state.num_bits, lead: state.bit_buf };
    let walk = Walk { consumed, text_bytes: text_end - before.window.len(), end, before: before_next };
    Ok((walk, text))
}

/// Passes over blocks that have more text than is to be opened, to the end of the first that ends `len_min` bytes on or later, or
/// of the stream, or else of the last that is there. `None` where no block ends. Holds no more than what the next may repeat.
///
/// # Cost
/// That of inflating: text a thousand times as long as `bytes`, at most.
pub fn pass_over(before: &Before, bytes: &[u8], len_min: usize) -> Option<Walk> {
    let begin = BlockBoundaryState { num_bits: before.bits, bit_buf: before.lead, ..BlockBoundaryState::default() };
    let mut state = Box::new(DecompressorOxide::from_block_boundary_state(&begin));
    let mut text = before.window.clone();
    let (mut read, mut written, mut passed) = (0, text.len(), 0);
    text.resize(PASSED_BYTES, 0);
    let flags =
        TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_HAS_MORE_INPUT;
    let mut last = None;
    loop {
        let (status, took, gave) =
            decompress(&mut state, bytes.get(read..).unwrap_or_default(), &mut text, written, flags);
        (read, written, passed) = (read + took, written + gave, passed + gave);
        let next = match status {
            TINFLStatus::BlockBoundary => Some(state.block_boundary_state()?),
            TINFLStatus::Done => Some(BlockBoundaryState::default()),
            TINFLStatus::HasMoreOutput => None,
            _ => return last,
        };
        if let Some(next) = next {
            let window = text.get(written.saturating_sub(WINDOW_BYTES)..written).unwrap_or_default().to_vec();
            let before = Before { window, bits: next.num_bits, lead: next.bit_buf };
            let end = if status == TINFLStatus::Done { End::Done } else { End::Text };
            last = Some(Walk { consumed: read, text_bytes: passed, end, before });
            if end == End::Done || read >= len_min {
                return last;
            }
        } else {
            text.copy_within(written - WINDOW_BYTES..written, 0);
            written = WINDOW_BYTES;
        }
    }
}
