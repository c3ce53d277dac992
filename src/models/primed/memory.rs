//! Large tables: where the system grants it they lie in huge pages, since a random access to megabytes in small pages
//! misses the page tables as often as the cache.

use memmap2::MmapMut;

/// `BYTES` bytes that start as zeros.
pub(super) enum Memory<const BYTES: usize> {
    Pages(MmapMut),
    Heap(Box<[u8]>),
}

impl<const BYTES: usize> Memory<BYTES> {
    pub fn zeroed() -> Memory<BYTES> {
        match MmapMut::map_anon(BYTES) {
            Ok(pages) => {
                // Refused where huge pages are switched off: the table is then as slow as any.
                #[cfg(target_os = "linux")]
                pages.advise(memmap2::Advice::HugePage).ok();
                Memory::Pages(pages)
            }
            Err(_) => Memory::Heap(vec![0; BYTES].into_boxed_slice()),
        }
    }

    #[inline(always)]
    pub fn bytes(&self) -> &[u8; BYTES] {
        let bytes: &[u8] = match self {
            Memory::Pages(pages) => pages,
            Memory::Heap(bytes) => bytes,
        };
        bytes.try_into().unwrap_or_else(|_| unreachable!("a table of BYTES bytes has BYTES bytes"))
    }

    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8; BYTES] {
        let bytes: &mut [u8] = match self {
            Memory::Pages(pages) => pages,
            Memory::Heap(bytes) => bytes,
        };
        bytes.try_into().unwrap_or_else(|_| unreachable!("a table of BYTES bytes has BYTES bytes"))
    }
}
