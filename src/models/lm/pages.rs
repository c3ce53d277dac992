//! Large memory: where the system grants it, it lies in huge pages. Weights and what streams have read are gone through once
//! for each token, and in small pages a processor waits for their addresses as long as for themselves: decoding is a tenth
//! faster in huge ones.

use memmap2::MmapMut;

/// What a kernel takes at a time: sixteen rows of four unsigned bytes.
pub(super) type Line = [u8; 64];

/// Lines that start as zeros. What was not yet written takes no memory.
#[derive(Debug)]
pub(super) enum Pages {
    Mapped(MmapMut),
    Heap(Vec<[u64; 8]>),
}

impl Pages {
    pub fn zeroed(lines: usize) -> Pages {
        match MmapMut::map_anon(lines * size_of::<Line>()) {
            Ok(pages) => {
                // Refused where huge pages are switched off: it is then as slow as any memory.
                #[cfg(target_os = "linux")]
                pages.advise(memmap2::Advice::HugePage).ok();
                Pages::Mapped(pages)
            }
            Err(_) => Pages::Heap(vec![[0; 8]; lines]),
        }
    }

    #[inline(always)]
    pub fn lines(&self) -> &[Line] {
        let bytes: &[u8] = match self {
            Pages::Mapped(pages) => pages,
            Pages::Heap(words) => bytemuck::cast_slice(words),
        };
        bytes.as_chunks().0
    }

    #[inline(always)]
    pub fn lines_mut(&mut self) -> &mut [Line] {
        let bytes: &mut [u8] = match self {
            Pages::Mapped(pages) => pages,
            Pages::Heap(words) => bytemuck::cast_slice_mut(words),
        };
        bytes.as_chunks_mut().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_zeros_and_keep_what_is_put() {
        for lines in [0, 1, 5, 1 << 16] {
            let mut pages = Pages::zeroed(lines);
            assert!(pages.lines().len() == lines && pages.lines().iter().all(|line| *line == [0; 64]));
            pages.lines_mut().iter_mut().for_each(|line| line[63] = 7);
            assert!(pages.lines().iter().all(|line| line[63] == 7));
            let floats: &[f32] = bytemuck::cast_slice(pages.lines().as_flattened());
            assert_eq!(floats.len(), lines * 16);
        }
    }
}
