//! Hashed contexts: a table of nibbles.
//!
//! A context and half a byte lead to one row: a check, and the fifteen bit histories of the nibble's binary tree. A cache
//! line is four checks and then four rows of histories; a context looks at all checks at once and takes the row that has
//! seen least when none is its own (as in lpaq1). The line of the second nibble is told by the first three of the four bits before it,
//! so that it is fetched while the fourth is coded; and it lies in the same KiB as the line of the first nibble, so that
//! it costs no miss of the page tables.

use prefetch_index::prefetch_index;

use super::memory::Memory;
use crate::entropy::{HISTORIES, History};

const LINE: usize = 64;
/// Histories of a row.
const NODES: usize = 15;
/// Lines that the second nibbles of one context are spread over.
const NEAR: u32 = 16;

/// Where a context's row may lie, and its check.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub line: u32,
    check: u8,
}

impl Place {
    /// For the first nibble of a byte.
    #[inline(always)]
    pub fn first(hash: u32) -> Place {
        Place { line: hash >> 8, check: ((hash.wrapping_mul(0x2F0B_4C47) >> 24) as u8).max(1) }
    }

    /// For the second, after the first: its four bits with a leading 1.
    #[inline(always)]
    pub fn second(hash: u32, nibble: u32) -> Place {
        let check = (hash ^ nibble.wrapping_mul(0x9E37_79B1)).wrapping_mul(0x2F0B_4C47) >> 24;
        Place { line: Place::line_of_second(hash, nibble >> 1), check: (check as u8).max(1) }
    }

    /// The line of the second nibble, when three bits of the first are known: with a leading 1.
    #[inline(always)]
    pub fn line_of_second(hash: u32, three: u32) -> u32 {
        hash >> 8 ^ ((three << 1 ^ hash >> 3) & (NEAR - 1))
    }
}

/// Table of rows, of `TABLE` bytes, a power of two; shared by all contexts.
pub(super) struct Slots<const TABLE: usize> {
    table: Memory<TABLE>,
}

impl<const TABLE: usize> Default for Slots<TABLE> {
    fn default() -> Self {
        const { assert!(TABLE.is_power_of_two()) };
        Slots { table: Memory::zeroed() }
    }
}

impl<const TABLE: usize> Slots<TABLE> {
    pub const BYTES: u64 = TABLE as u64;

    /// Takes the rows of another table: milliseconds.
    pub fn copy_from(&mut self, other: &Self) {
        self.table.bytes_mut().copy_from_slice(other.table.bytes());
    }

    /// Starts fetching a line.
    #[inline(always)]
    pub fn fetch(&self, line: u32) {
        prefetch_index(self.table.bytes(), (line as usize * LINE) & (TABLE - 1));
    }

    /// Finds or makes the row of a place; returns a number for `get` and `set`.
    #[inline(always)]
    pub fn find(&mut self, place: Place) -> u32 {
        let start = (place.line as usize * LINE) & (TABLE - 1);
        let Some(line) = self.table.bytes_mut().get_mut(start..start + LINE) else { return 0 };
        let Some((checks, histories)) = line.split_first_chunk_mut::<4>() else { return 0 };
        // A byte of zeros where a check is the same; those above the lowest may be wrong, and are not looked at.
        let differ = u32::from_le_bytes(*checks) ^ (u32::from(place.check) * 0x0101_0101);
        let same = differ.wrapping_sub(0x0101_0101) & !differ & 0x8080_8080;
        let mut i = same.trailing_zeros() as usize / 8;
        if i == 4 {
            // Histories are numbered by how much they have seen. The search starts at different rows, lest the first go
            // first.
            let mut least = u32::MAX;
            for k in 0..4 {
                let turn = k as u32 ^ u32::from(place.check) & 3;
                let seen = (u32::from(histories[NODES * k]) << 2 | turn) * u32::from(checks[k] != 0);
                i = if seen < least { k } else { i };
                least = least.min(seen);
            }
            i &= 3;
            checks[i] = place.check;
            histories[NODES * i..NODES * i + NODES].fill(0);
        }
        (start + 3 + NODES * i) as u32
    }

    /// Learns half a byte (0 to 15) in the row of a place.
    #[inline(always)]
    pub fn learn(&mut self, place: Place, nibble: u32) {
        let row = self.find(place);
        let table = self.table();
        let path = nibble as usize | 16;
        for k in (0..4).rev() {
            let history = &mut table[Self::at(row, path >> (k + 1))];
            *history = HISTORIES.after(*history, (path >> k & 1) as u8);
        }
    }

    /// Fades all histories.
    pub fn fade(&mut self) {
        for line in self.table.bytes_mut().chunks_exact_mut(LINE) {
            line.iter_mut().skip(4).for_each(|history| *history = HISTORIES.fade(*history));
        }
    }

    /// The table, for many looks at once: see `at`.
    #[inline(always)]
    pub fn table(&mut self) -> &mut [History; TABLE] {
        self.table.bytes_mut()
    }

    /// Where in the table the history at a node (1 to 15) of a row is.
    #[inline(always)]
    pub fn at(row: u32, node: usize) -> usize {
        (row as usize + node) & (TABLE - 1)
    }
}
