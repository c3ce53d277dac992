//! Hashed contexts: a table of nibbles.
//!
//! A context and the first or second half of a byte lead to one row of sixteen bytes: a check, and the fifteen bit
//! histories of the nibble's binary tree. Four rows share a cache line; a context looks at three of them and takes the one
//! that has seen least when none is its own (as in lpaq1). A row costs one cache miss for four bits.

use crate::entropy::History;

/// Rows of sixteen bytes.
const ROWS: usize = 1 << 20;

type Row = [History; 16];

/// Table of rows, shared by all contexts.
pub(super) struct Slots {
    rows: Box<[Row; ROWS]>,
    mask: usize,
}

impl Default for Slots {
    fn default() -> Slots {
        let rows = vec![[0; 16]; ROWS].into_boxed_slice();
        match rows.try_into() {
            Ok(rows) => Slots { rows, mask: ROWS - 1 },
            Err(_) => unreachable!("a vector of ROWS rows is an array of as many"),
        }
    }
}

impl Slots {
    pub const BYTES: u64 = ROWS as u64 * 16;

    /// Clears the part that `raw_len` bytes will use: small segments need few rows, and clear few.
    pub fn reset(&mut self, raw_len: usize) {
        let rows = (raw_len * 2).next_power_of_two().clamp(1 << 12, ROWS);
        self.mask = rows - 1;
        self.rows.iter_mut().take(rows).for_each(|r| *r = [0; 16]);
    }

    /// The first of the rows that a context may have, and its check.
    #[inline]
    pub fn place(&self, hash: u32) -> (usize, u8) {
        ((hash.wrapping_mul(0x9E37_79B9) >> 7) as usize & self.mask, (hash >> 24) as u8 | 1)
    }

    /// Reads a byte of a row: done for all contexts before any is looked up, so that their cache misses overlap instead
    /// of waiting for each other's branches.
    #[inline]
    pub fn touch(&self, base: usize) -> u8 {
        self.rows[base & (ROWS - 1)][0]
    }

    /// The row of a context: its number, for `get` and `set`.
    #[inline]
    pub fn find(&mut self, (base, check): (usize, u8)) -> usize {
        let mut worst = base;
        let mut least = u8::MAX;
        for i in [base, base ^ 1, base ^ 2] {
            let row = &self.rows[i & (ROWS - 1)];
            if row[0] == check {
                return i;
            }
            let seen = if row[0] == 0 { 0 } else { row[1].max(1) };
            if seen < least {
                (least, worst) = (seen, i);
            }
        }
        let row = &mut self.rows[worst & (ROWS - 1)];
        *row = [0; 16];
        row[0] = check;
        worst
    }

    /// The history at a node (1 to 15) of a row.
    #[inline]
    pub fn get(&self, row: usize, node: usize) -> History {
        self.rows[row & (ROWS - 1)][node & 15]
    }

    #[inline]
    pub fn set(&mut self, row: usize, node: usize, history: History) {
        self.rows[row & (ROWS - 1)][node & 15] = history;
    }
}
