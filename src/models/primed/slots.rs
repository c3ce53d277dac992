//! Hashed contexts: a table of nibbles.
//!
//! A context and half a byte lead to one row of sixteen bytes: a check, and the fifteen bit histories of the nibble's
//! binary tree. Four rows are one cache line; a context looks at all of them and takes the one that has seen least when
//! none is its own (as in lpaq1). The row of the second nibble lies in the same KiB as that of the first, so that it
//! costs a cache miss but no miss of the page tables, which cost as much with sixteen megabytes in small pages.

use crate::entropy::{History, boxed};

/// Cache lines: 16 MiB.
const LINES: usize = 1 << 18;
/// Lines that the second nibbles of one context are spread over.
const NEAR: u32 = 16;

/// A check that is never 0, then histories 1 to 15.
pub(super) type Row = [History; 16];

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([Row; 4]);

/// Where a context's row may lie, and its check.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    line: u32,
    check: u8,
}

impl Place {
    /// For the first nibble of a byte.
    #[inline(always)]
    pub fn first(hash: u32) -> Place {
        Place { line: hash >> 8, check: (hash.wrapping_mul(0x2F0B_4C47) >> 24) as u8 }
    }

    /// For the second, after the first: its four bits with a leading 1.
    #[inline(always)]
    pub fn second(hash: u32, nibble: u32) -> Place {
        let spread = (nibble ^ hash >> 3) & (NEAR - 1);
        let check = (hash ^ nibble.wrapping_mul(0x9E37_79B1)).wrapping_mul(0x2F0B_4C47) >> 24;
        Place { line: hash >> 8 ^ spread, check: check as u8 }
    }
}

/// Table of rows, shared by all contexts.
pub(super) struct Slots {
    lines: Box<[Line; LINES]>,
}

impl Default for Slots {
    fn default() -> Slots {
        Slots { lines: boxed(Line([[0; 16]; 4])) }
    }
}

impl Slots {
    pub const BYTES: u64 = LINES as u64 * 64;

    /// Takes the rows of another table: milliseconds.
    pub fn copy_from(&mut self, other: &Slots) {
        self.lines.as_mut_slice().copy_from_slice(other.lines.as_slice());
    }

    /// Reads a byte of a line: done for all contexts before any is looked up, so that their cache misses overlap instead
    /// of waiting for each other's branches.
    #[inline(always)]
    pub fn touch(&self, place: Place) -> u8 {
        self.lines[place.line as usize & (LINES - 1)].0[0][0]
    }

    /// Finds or makes the row at a place, copies it to `row` and returns its number, for `store`.
    #[inline]
    pub fn find(&mut self, place: Place, row: &mut Row) -> u32 {
        let number = place.line & (LINES as u32 - 1);
        let line = &mut self.lines[number as usize & (LINES - 1)].0;
        let check = place.check.max(1);
        for (i, own) in line.iter().enumerate() {
            if own[0] == check {
                *row = *own;
                return number * 4 + i as u32;
            }
        }
        // Histories are numbered by how much they have seen. The search starts at different rows, lest the first go first.
        let start = usize::from(check);
        let (mut worst, mut least) = (0, u32::MAX);
        for k in 0..4 {
            let i = (start + k) & 3;
            let seen = if line[i][0] == 0 { 0 } else { 1 + u32::from(line[i][1]) };
            if seen < least {
                (worst, least) = (i, seen);
            }
        }
        *row = [0; 16];
        row[0] = check;
        line[worst & 3] = *row;
        number * 4 + worst as u32
    }

    /// Puts a row back.
    #[inline(always)]
    pub fn store(&mut self, number: u32, row: &Row) {
        self.lines[(number >> 2) as usize & (LINES - 1)].0[(number & 3) as usize] = *row;
    }
}
