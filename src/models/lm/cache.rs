//! What streams have read, as attention wants it: keys and values of every layer and head, in eight bits with a scale for
//! each token and head.
//!
//! It grows by pages of `PAGE` tokens of all heads, which streams that end give back to the others. Within a page, keys stand
//! as rows of a matrix do and values as columns, so that the kernels of weights serve both:
//!
//! ```text
//! for each layer:
//! keys          for each head, for each 16 tokens, for each 4 elements: 16 tokens of 4 elements
//! values        for each head, for each 32 elements, for each 4 tokens: twice 16 elements of 4 tokens
//! scales        for each head: of keys, PAGE times 4 bytes, and of values
//! ```
//! Heads that are read together stand together: a processor reads 24 KiB that lie side by side half as fast again as thrice
//! 8 KiB in different places.

use super::pages::{Line, Pages};
use super::weights::{Grain, cut};

/// Tokens of a page.
pub(super) const PAGE: usize = 128;
/// Elements of a value that a kernel takes at a time.
pub(super) const VALUE_PART: usize = 32;
/// All that streams have read that are read at the same time, bytes: the most that a hostile payload can make it. Sixteen
/// lanes of 4 KiB of text take 190 MB with the smallest models.
///
/// A model's context is no longer than one stream fits, so that this is part of the arithmetic.
pub(super) const STREAMS_BYTES_MAX: usize = 256 << 20;
/// Memory is asked for in parts of about this size, bytes: some huge pages.
const PART_BYTES: usize = 16 << 20;

/// Lines of the keys of a page, and of its values.
const fn half(elements: usize) -> usize {
    PAGE * elements / size_of::<Line>()
}

/// Lines of the scales of keys, and of values.
const SCALES: usize = PAGE * 4 / size_of::<Line>();

/// Bytes of a page, of so many heads in all layers together.
pub(super) const fn page_bytes(heads: usize, elements: usize) -> usize {
    heads * 2 * (half(elements) + SCALES) * size_of::<Line>()
}

/// Tokens that one stream can read.
pub(super) const fn tokens_max(heads: usize, elements: usize) -> usize {
    STREAMS_BYTES_MAX / page_bytes(heads, elements) * PAGE
}

/// `PAGE` tokens of one head of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    /// `PAGE / 16` times elements / 4.
    pub keys: &'a [Line],
    pub key_scales: &'a [f32],
    /// Elements / 32 times `PAGE / 4` pairs.
    pub values: &'a [Line],
    pub value_scales: &'a [f32],
}

#[derive(Debug, Default)]
struct Stream {
    /// Tokens read.
    len: usize,
    pages: Vec<usize>,
}

/// What streams have read.
#[derive(Debug)]
pub struct Streams {
    layers: usize,
    /// Of a layer.
    heads: usize,
    elements: usize,
    each: Vec<Stream>,
    parts: Vec<Pages>,
    pages_of_part: usize,
    /// Pages that no stream has, and how many there may be in all.
    free: Vec<usize>,
    pages_max: usize,
}

impl Streams {
    /// Some that have read nothing, of `heads` heads in each layer.
    pub(super) fn new(count: usize, layers: usize, heads: usize, elements: usize) -> Streams {
        let bytes = page_bytes(layers * heads, elements);
        Streams {
            layers,
            heads,
            elements,
            each: (0..count).map(|_| Stream::default()).collect(),
            parts: Vec::new(),
            pages_of_part: (PART_BYTES / bytes).max(1),
            free: Vec::new(),
            pages_max: STREAMS_BYTES_MAX / bytes,
        }
    }

    /// Lowers the pages that there may be.
    #[cfg(test)]
    pub(super) fn limit(&mut self, pages_max: usize) {
        self.pages_max = pages_max;
    }

    /// Pages that streams can still take.
    pub(super) fn room(&self) -> usize {
        self.free.len() + self.pages_max.saturating_sub(self.parts.len() * self.pages_of_part)
    }

    /// Pages that a stream takes when it reads so many tokens more.
    pub(super) fn wants(&self, stream: usize, tokens: usize) -> usize {
        let stream = &self.each[stream];
        (stream.len + tokens).div_ceil(PAGE).saturating_sub(stream.pages.len())
    }

    /// Tokens that a stream has read.
    pub(super) fn len(&self, stream: usize) -> usize {
        self.each[stream].len
    }

    /// Makes a stream forget what it has read, and keep its memory.
    pub(super) fn clear(&mut self, stream: usize) {
        self.each[stream].len = 0;
    }

    /// Makes a stream forget what it has read, and gives its memory to the others.
    pub(super) fn end(&mut self, stream: usize) {
        let stream = &mut self.each[stream];
        stream.len = 0;
        self.free.append(&mut stream.pages);
    }

    /// Makes room for the next token of a stream, of which the caller knows that there is.
    pub(super) fn push(&mut self, stream: usize) {
        if self.wants(stream, 1) > 0 {
            if self.free.is_empty() {
                let first = self.parts.len() * self.pages_of_part;
                let pages = self.pages_of_part.min(self.pages_max.saturating_sub(first));
                let lines = page_bytes(self.layers * self.heads, self.elements) / size_of::<Line>();
                self.parts.push(Pages::zeroed(pages * lines));
                self.free.extend((first..first + pages).rev());
            }
            let page = self.free.pop();
            self.each[stream]
                .pages
                .push(page.unwrap_or_else(|| unreachable!("streams read more than there is room for")));
        }
        self.each[stream].len += 1;
    }

    /// Where the lines of a page of a head of a layer are: a part, and in it the first lines of keys, values and scales.
    #[inline(always)]
    fn place(&self, stream: usize, layer: usize, head: usize, page: usize) -> (usize, [usize; 3]) {
        let page = self.each[stream].pages[page];
        let (part, page) = (page / self.pages_of_part, page % self.pages_of_part);
        let half = half(self.elements);
        let first = (page * self.layers + layer) * self.heads * 2 * (half + SCALES);
        let values = first + self.heads * half;
        let scales = values + self.heads * half;
        (part, [first + head * half, values + head * half, scales + head * 2 * SCALES])
    }

    /// A page of a head of a layer, which the stream has.
    #[inline(always)]
    pub(super) fn page(&self, stream: usize, layer: usize, head: usize, page: usize) -> Page<'_> {
        let (part, [keys, values, scales]) = self.place(stream, layer, head, page);
        let (lines, half) = (self.parts[part].lines(), half(self.elements));
        let (key_scales, value_scales) = lines[scales..][..2 * SCALES].split_at(SCALES);
        Page {
            keys: &lines[keys..][..half],
            key_scales: bytemuck::cast_slice(key_scales.as_flattened()),
            values: &lines[values..][..half],
            value_scales: bytemuck::cast_slice(value_scales.as_flattened()),
        }
    }

    /// Pages that a stream has.
    pub(super) fn pages(&self, stream: usize) -> usize {
        self.each[stream].pages.len()
    }

    /// Takes in the key and the value of the token at a position that there is room for.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn put(
        &mut self,
        stream: usize,
        layer: usize,
        head: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
        bytes: &mut [i8],
    ) {
        let (page, slot) = (position / PAGE, position % PAGE);
        let (part, [keys, values, scales]) = self.place(stream, layer, head, page);
        let (lines, half) = (self.parts[part].lines_mut(), half(self.elements));
        let unsigned = |q: i8| (q as u8) ^ 128;
        let of_key = cut(key, Grain::Coarse, bytes, &mut [0]);
        let (tile, lane) = (slot / 16, slot % 16);
        let steps = self.elements / 4;
        for (line, four) in lines[keys + tile * steps..][..steps].iter_mut().zip(bytes.as_chunks::<4>().0) {
            line.as_chunks_mut::<4>().0[lane] = four.map(unsigned);
        }
        let of_value = cut(value, Grain::Coarse, bytes, &mut [0]);
        let (step, lane) = (slot / 4, slot % 4);
        for (part, elements) in bytes.as_chunks::<VALUE_PART>().0.iter().enumerate() {
            let both = &mut lines[values..][..half].as_chunks_mut::<2>().0[part * (PAGE / 4) + step];
            for (half, sixteen) in both.iter_mut().zip(elements.as_chunks::<16>().0) {
                for (four, q) in half.as_chunks_mut::<4>().0.iter_mut().zip(sixteen) {
                    four[lane] = unsigned(*q);
                }
            }
        }
        let scales: &mut [f32] = bytemuck::cast_slice_mut(lines[scales..][..2 * SCALES].as_flattened_mut());
        (scales[slot], scales[PAGE + slot]) = (of_key, of_value);
    }
}
