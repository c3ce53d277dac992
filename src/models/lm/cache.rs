//! What a stream has read, as attention wants it: keys and values of every layer and head, in eight bits with a scale for
//! each token and head.
//!
//! It grows by pages of `PAGE` tokens. Within a page, keys stand as rows of a matrix do and values as columns, so that the
//! kernels of weights serve both:
//!
//! ```text
//! keys    for each 16 tokens, for each 4 elements: 16 tokens of 4 elements
//! values  for each 32 elements, for each 4 tokens: twice 16 elements of 4 tokens
//! ```

use super::kernels::Bytes;
use super::weights::{Grain, cut};

/// Tokens of a page.
pub(super) const PAGE: usize = 128;
/// Elements of a value that a kernel takes at a time.
pub(super) const VALUE_PART: usize = 32;

/// `PAGE` tokens of one head of one layer.
#[derive(Debug)]
pub(super) struct Page {
    /// `PAGE / 16` times elements / 4.
    pub keys: Vec<[Bytes; 1]>,
    pub key_scales: [f32; PAGE],
    /// Elements / 32 times `PAGE / 4`.
    pub values: Vec<[Bytes; 2]>,
    pub value_scales: [f32; PAGE],
}

impl Page {
    fn new(elements: usize) -> Page {
        Page {
            keys: vec![[Bytes([0; 64])]; PAGE / 16 * (elements / 4)],
            key_scales: [0.0; PAGE],
            values: vec![[Bytes([0; 64]); 2]; elements / VALUE_PART * (PAGE / 4)],
            value_scales: [0.0; PAGE],
        }
    }

    /// Bytes of one.
    pub const fn bytes(elements: usize) -> usize {
        size_of::<Page>() + 2 * PAGE * elements
    }
}

/// What one stream has read.
#[derive(Debug)]
pub struct Stream {
    /// Tokens read.
    pub(super) len: usize,
    elements: usize,
    /// For each layer and head.
    pages: Vec<Vec<Page>>,
}

impl Stream {
    /// One that has read nothing, of `heads` heads in all layers together.
    pub(super) fn new(heads: usize, elements: usize) -> Stream {
        Stream { len: 0, elements, pages: (0..heads).map(|_| Vec::new()).collect() }
    }

    /// Forgets what it has read, and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Pages of a head, of those tokens that were ever read: the caller knows how many count.
    pub(super) fn pages(&self, head: usize) -> &[Page] {
        &self.pages[head]
    }

    /// Takes in the key and the value of the token at a position, which is at most one beyond those that are there.
    #[inline(always)]
    pub(super) fn put(&mut self, head: usize, position: usize, key: &[f32], value: &[f32], bytes: &mut [i8]) {
        let pages = &mut self.pages[head];
        let (page, slot) = (position / PAGE, position % PAGE);
        if page == pages.len() {
            pages.push(Page::new(self.elements));
        }
        let page = &mut pages[page];
        let unsigned = |q: i8| (q as u8) ^ 128;
        page.key_scales[slot] = cut(key, Grain::Coarse, bytes, &mut [0]);
        let (tile, lane) = (slot / 16, slot % 16);
        let steps = self.elements / 4;
        for (step, four) in page.keys[tile * steps..][..steps].iter_mut().zip(bytes.as_chunks::<4>().0) {
            step[0].0.as_chunks_mut::<4>().0[lane] = four.map(unsigned);
        }
        page.value_scales[slot] = cut(value, Grain::Coarse, bytes, &mut [0]);
        let (step, lane) = (slot / 4, slot % 4);
        for (part, elements) in bytes.as_chunks::<VALUE_PART>().0.iter().enumerate() {
            let both = &mut page.values[part * (PAGE / 4) + step];
            for (half, sixteen) in both.iter_mut().zip(elements.as_chunks::<16>().0) {
                for (four, q) in half.0.as_chunks_mut::<4>().0.iter_mut().zip(sixteen) {
                    four[lane] = unsigned(*q);
                }
            }
        }
    }
}
