//! How bGPT reads bytes ("Beyond Language Models: Byte Models are Digital World Simulators", S. Wu et al., 2024): one network reads
//! patches of bytes, and says of each what the next is like; another reads that and then the bytes of the patch, and says of each
//! what the next is.
//!
//! A stream of both reads tokens as a stream of one network does, so that lanes need not know: the first is a beginning, which is a
//! patch of its own, then bytes. What ends a patch is read by the first network; its state takes the place of the token for the
//! second, which knows nothing of other patches.

use super::cache::{Streams, page_bytes};
use super::kernels::Path;
use super::lanes::LANES_AT_ONCE;
use super::step::{Network, ROWS_MAX, Row, Work};
use super::weights::Matrix;

/// What a place in a patch can be: a byte, or `PADDING`.
pub(super) const CLASSES: usize = 257;
/// Fills patches that have fewer bytes. Tokens from it on are beginnings.
pub(super) const PADDING: u32 = 256;
/// What a stream can begin with: the extension of the file that a network was shown patches of.
pub(super) const BEGINNINGS: [&[u8]; 2] = [b"wav", b"bmp"];
/// Longest patch, bytes.
pub(super) const PATCH_BYTES_MAX: usize = 64;

/// What reads patches.
#[derive(Debug)]
pub(super) struct Patches {
    pub network: Network,
    /// For each place of a patch, for each of `CLASSES`: what is added for it.
    pub embeddings: Matrix,
    /// Added for every patch.
    pub biases: Vec<f32>,
    /// Bytes of a patch.
    pub len: usize,
}

/// What streams have read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Of the network that reads patches, or else of the only one.
    long: Streams,
    parts: Option<Parts>,
}

/// What streams have read of the patches that they are in.
#[derive(Debug)]
struct Parts {
    /// Of the network that reads bytes.
    short: Streams,
    each: Vec<Part>,
    /// Streams of `short` that are of nobody.
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Part {
    /// Tokens that were read, in all.
    tokens: usize,
    /// Those of the patch.
    bytes: Vec<u32>,
    /// The stream of `short` that reads them, and whether it has read any in this step.
    stream: usize,
    is_read: bool,
}

impl Reading {
    pub fn new(count: usize, network: &Network, patches: Option<&Patches>) -> Reading {
        let Some(patches) = patches else { return Reading { long: network.streams(count), parts: None } };
        // Each row of a step may end a patch, and what began the next stays until the step is done.
        let parts = Parts {
            short: network.streams(count + ROWS_MAX),
            each: (0..count).map(|stream| Part { stream, ..Part::default() }).collect(),
            free: (count..count + ROWS_MAX).collect(),
        };
        Reading { long: patches.network.streams(count), parts: Some(parts) }
    }

    /// Streams of the only network.
    pub fn only(&mut self) -> &mut Streams {
        &mut self.long
    }

    /// Lowers the pages that there may be.
    #[cfg(test)]
    pub fn limit(&mut self, pages_max: usize) {
        self.long.limit(pages_max);
    }

    /// Pages that streams can still take.
    pub fn room(&self) -> usize {
        self.long.room()
    }

    /// Pages that a stream takes at most when it reads so many tokens more.
    pub fn wants(&self, stream: usize, tokens: usize) -> usize {
        self.long.wants(stream, tokens)
    }

    fn part(&mut self, stream: usize) -> Option<(&mut Part, &mut Streams)> {
        let Parts { short, each, .. } = self.parts.as_mut()?;
        Some((each.get_mut(stream)?, short))
    }

    /// Tokens that a stream has read.
    pub fn len(&self, stream: usize) -> usize {
        let part = self.parts.as_ref().and_then(|parts| parts.each.get(stream));
        part.map_or_else(|| self.long.len(stream), |part| part.tokens)
    }

    /// Makes a stream forget what it has read, and keep its memory.
    pub fn clear(&mut self, stream: usize) {
        self.long.clear(stream);
        if let Some((part, _)) = self.part(stream) {
            (part.tokens, part.bytes) = (0, Vec::new());
        }
    }

    /// Makes a stream forget what it has read, and gives its memory to the others.
    pub fn end(&mut self, stream: usize) {
        self.clear(stream);
        self.long.end(stream);
        if let Some((part, short)) = self.part(stream) {
            short.end(part.stream);
        }
    }
}

impl Patches {
    /// Tokens that a stream may have read: those of all patches but the last two, of which one is the beginning and the other the
    /// end, which a network was shown and never reads.
    pub fn context(&self) -> usize {
        (self.network.shape.context.saturating_sub(2)).max(1) * self.len
    }

    /// What a patch is read as.
    fn embed(&self, patch: &[u32], scratch: &mut [f32], state: &mut [f32]) {
        state.copy_from_slice(&self.biases);
        for (place, byte) in patch.iter().enumerate() {
            self.embeddings.row(place * CLASSES + *byte as usize, scratch);
            state.iter_mut().zip(&*scratch).for_each(|(x, y)| *x += *y);
        }
    }

    /// As `Network::step`, where `bytes` reads the bytes of patches. Tokens are bytes, and from `PADDING` on beginnings, each as the
    /// first of its stream.
    pub fn step<'n>(
        &'n self,
        path: Path,
        bytes: &'n Network,
        rows: &[Row],
        reading: &mut Reading,
        work: &mut Work<'n>,
    ) {
        let Reading { long, parts: Some(parts) } = reading else { return };
        let (mut ends, mut patches) = (Vec::new(), Vec::new());
        let (mut of_rows, mut left) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let part = &mut parts.each[row.stream];
            part.tokens += 1;
            match BEGINNINGS.get((row.token as usize).wrapping_sub(PADDING as usize)) {
                Some(extension) => {
                    part.bytes.clear();
                    part.bytes.extend(extension.iter().take(self.len).map(|byte| u32::from(*byte)));
                    part.bytes.resize(self.len, PADDING);
                }
                None => part.bytes.push(row.token.min(PADDING)),
            }
            let is_end = part.bytes.len() == self.len;
            if is_end {
                ends.push(row.stream);
                patches.append(&mut part.bytes);
                // What rows before this one have read stays until all of them are computed.
                if part.is_read {
                    left.push(part.stream);
                    part.stream = parts.free.pop().unwrap_or_else(|| unreachable!("no more patches end than rows"));
                } else {
                    parts.short.end(part.stream);
                }
            }
            part.is_read = true;
            of_rows.push((part.stream, is_end));
        }
        let width = self.network.shape.width;
        let mut states = Vec::new();
        if !ends.is_empty() {
            let mut scratch = vec![0.0; width];
            let enter = |n: usize, state: &mut [f32]| {
                self.embed(&patches[n * self.len..][..self.len], &mut scratch, state);
            };
            self.network.advance(path, ends.iter().copied(), enter, long, work);
            states.extend_from_slice(work.states());
        }
        let mut states = states.chunks_exact(width);
        let enter = |n: usize, state: &mut [f32]| match of_rows.get(n) {
            Some((_, true)) => state.copy_from_slice(states.next().unwrap_or(&[])),
            _ => bytes.embed(rows[n].token, state),
        };
        bytes.advance(path, of_rows.iter().map(|(stream, _)| *stream), enter, &mut parts.short, work);
        bytes.conclude(path, work);
        rows.iter().for_each(|row| parts.each[row.stream].is_read = false);
        for stream in left {
            parts.short.end(stream);
            parts.free.push(stream);
        }
    }

    /// Bytes of memory that what is read of patches takes at most, beside what is read of the long streams, where `bytes` reads them.
    pub fn parts_bytes(bytes: &Network) -> usize {
        let shape = &bytes.shape;
        (LANES_AT_ONCE + ROWS_MAX).saturating_mul(page_bytes(shape.layers * shape.key_heads, shape.elements))
    }

    /// Feeds all that its shares depend on to a hash.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&(self.len as u64).to_le_bytes());
        self.embeddings.hash(hasher);
        self.biases.iter().for_each(|x| {
            hasher.update(&x.to_bits().to_le_bytes());
        });
        self.network.hash(hasher);
    }
}
