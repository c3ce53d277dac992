//! Contexts of the next byte: what came before it, seen in several ways, by kind of data.

use super::records::LEN_MAX;
use super::samples::{Differences, Shape};
use super::words::{self, Piece, Reader};

/// Hashed contexts: some orders, and others by kind, the more useful first.
pub(super) const HASHED_MAX: usize = 10;
/// The first of them are of growing order: 2, 3, 4 and 6 bytes; or where words are numbers 2 and 3 bytes and two others. How
/// many of them are known tells how new this is.
pub(super) const ORDERS: usize = 4;

/// Which contexts are used. Numbers are in files of priors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Prose, documentation, program text: words, lines above, indentation.
    Text = 0,
    /// Markup and JSON: what encloses, what was the last key.
    Nested = 1,
    /// Logs and tables: column and field.
    Lines = 2,
    /// Records and what is not known: bytes further back, without those between.
    Binary = 3,
    /// The same for machine code, whose prior is read with addresses instead of distances.
    Code = 4,
    /// Records of one length: what stands above. Without a prior; the length is told by the payload.
    Records = 5,
    /// Samples: how large the differences around are. Without a prior; their shape is told by the payload.
    Samples = 6,
    /// Text whose words are numbers (`words`).
    Words = 16,
    /// The same of markup, JSON and what else has fields.
    Fields = 17,
}

impl Kind {
    /// Reads a number of a file.
    pub fn from_u8(value: u8) -> Option<Kind> {
        [Kind::Text, Kind::Nested, Kind::Lines, Kind::Binary, Kind::Code, Kind::Words, Kind::Fields]
            .into_iter()
            .find(|k| *k as u8 == value)
    }

    /// Whether words are numbers.
    pub fn has_words(self) -> bool {
        matches!(self, Kind::Words | Kind::Fields)
    }
}

/// Bytes that are remembered of records: two of the longest, and those beside them.
const RECENT: usize = 4 * LEN_MAX;
/// Longest line whose columns are remembered.
const COLUMNS_MAX: usize = 4096;

/// Sorts of bytes, for contexts that see only the shape of a text.
pub(super) static SORTS: [u8; 256] = sorts();

const fn sorts() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = match i as u8 {
            b'a'..=b'z' => 1,
            b'A'..=b'Z' => 2,
            b'0'..=b'9' => 3,
            b' ' | b'\t' => 4,
            b'\n' | b'\r' => 5,
            b'.' | b',' | b';' | b':' | b'!' | b'?' => 6,
            128..=255 => 7,
            b'<' | b'>' | b'(' | b')' | b'{' | b'}' | b'[' | b']' => 8,
            b'"' | b'\'' | b'`' => 9,
            b'=' | b'+' | b'-' | b'*' | b'/' | b'&' | b'|' => 10,
            b'_' => 11,
            0 => 12,
            1..=31 => 13,
            _ => 14,
        };
        i += 1;
    }
    table
}

#[inline(always)]
pub(super) fn hash(a: u32, b: u32) -> u32 {
    let h = (a ^ b.rotate_left(15)).wrapping_mul(0x85EB_CA6B);
    (h ^ h >> 15).wrapping_mul(0xC2B2_AE35)
}

#[inline(always)]
pub(super) fn hash_bytes(bytes: u64, salt: u32) -> u32 {
    let h = (bytes ^ u64::from(salt) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (h >> 32) as u32 ^ (h >> 12) as u32 & 0xfff
}

/// What is remembered of the bytes so far, but for lines and records.
#[derive(Clone, Copy)]
pub(super) struct Now {
    /// The last eight bytes, latest lowest.
    pub last: u64,
    /// Hash of the word so far, and of the two before it.
    words: [u32; 3],
    /// Sorts of the last eight bytes.
    shape: u32,
    /// By kind: hash of the enclosing tag or the last key.
    scope: u32,
    /// Hash of the separators of this line.
    field: u32,
    column: usize,
    /// White space at the line's start, and the first byte after it; 0 while there is none.
    indent: u32,
    first: u32,
    /// Sorts of the last byte and the one before it, four bits each, the last one highest.
    pub sorts: u8,
    /// Where words are numbers: what bytes mean, and a hash of what stands between the last word and here.
    reader: Reader,
    between: u32,
}

impl Default for Now {
    fn default() -> Now {
        Now {
            last: 0,
            words: [0; 3],
            shape: 0,
            scope: 0,
            field: 0,
            column: 0,
            indent: 0,
            first: 0,
            sorts: SORTS[0] << 4 | SORTS[0],
            reader: Reader::default(),
            between: 0,
        }
    }
}

/// Sorts of bytes that are no characters where words are numbers: numbers of one byte, first and second bytes of others,
/// what says how a word is written.
const SORT_SHORT: u8 = 7;
const SORT_LEAD: u8 = 13;
const SORT_LONG: u8 = 0;
const SORT_CASE: u8 = 15;

impl Now {
    /// After these bytes, of which nothing else matters.
    fn of(last: u64) -> Now {
        let [latest, before, ..] = last.to_le_bytes();
        Now { last, sorts: SORTS[usize::from(latest)] << 4 | SORTS[usize::from(before)], ..Now::default() }
    }

    /// One byte later.
    #[inline(always)]
    fn after(mut self, byte: u8) -> Now {
        self.last = self.last << 8 | u64::from(byte);
        let sort = SORTS[usize::from(byte)];
        self.shape = self.shape << 4 | u32::from(sort);
        self.sorts = sort << 4 | self.sorts >> 4;
        let lower = byte.to_ascii_lowercase();
        if lower.is_ascii_alphabetic() || byte >= 128 {
            self.words[0] = hash(self.words[0], u32::from(lower) + 0x100);
        } else if byte.is_ascii_digit() {
            self.words[0] = hash(self.words[0], 0x30);
        } else if self.words[0] != 0 {
            self.words = [0, self.words[0], self.words[1]];
        }
        self.in_line(byte, if matches!(byte, b' ' | b'\t') { 1 } else { 0 });
        self
    }

    /// One byte later, where words are numbers.
    #[inline(always)]
    fn after_of_words(mut self, byte: u8) -> Now {
        self.last = self.last << 8 | u64::from(byte);
        let lead = u32::from(self.reader.lead);
        let piece = self.reader.read(byte);
        let code = u32::from(byte);
        let sort = match piece {
            Piece::Number if lead != 0 => SORT_LONG,
            Piece::Number => SORT_SHORT,
            Piece::Lead => SORT_LEAD,
            Piece::Case => SORT_CASE,
            Piece::Escaped | Piece::Plain => SORTS[usize::from(byte)],
        };
        // A number counts as one.
        if sort != SORT_LONG {
            self.shape <<= 4;
        }
        self.shape = self.shape & !15 | u32::from(sort);
        self.sorts = sort << 4 | self.shape as u8 >> 4;
        match piece {
            Piece::Number => {
                (self.words, self.between) = ([0, hash(lead, code + 0x300), self.words[1]], 0);
            }
            Piece::Lead => self.words[0] = hash(code, 0x400),
            Piece::Case => {}
            Piece::Escaped => self.words[0] = hash(self.words[0], code + 0x100),
            Piece::Plain if byte.is_ascii_alphabetic() => self.words[0] = hash(self.words[0], code + 0x100),
            Piece::Plain if byte.is_ascii_digit() => self.words[0] = hash(self.words[0], 0x30),
            Piece::Plain => {
                if self.words[0] != 0 {
                    (self.words, self.between) = ([0, self.words[0], self.words[1]], 0);
                }
                self.between = hash(self.between, code);
            }
        }
        let spaces = match piece {
            Piece::Plain if matches!(byte, b' ' | b'\t') => 1,
            Piece::Plain => words::spaces(byte),
            _ => 0,
        };
        self.in_line(byte, spaces);
        self
    }

    /// Where a byte, which is so many spaces, leads to within its line.
    #[inline(always)]
    fn in_line(&mut self, byte: u8, spaces: u32) {
        if byte == b'\n' {
            (self.column, self.field, self.indent, self.first) = (0, 0, 0, 0);
        } else {
            self.column += 1;
            if self.first == 0 {
                if spaces > 0 {
                    self.indent = (self.indent + spaces).min(255);
                } else {
                    self.first = u32::from(byte);
                }
            }
            if matches!(byte, b' ' | b',' | b'\t' | b';' | b'|' | b':' | b'[' | b']' | b'=') {
                self.field = hash(self.field, u32::from(byte));
            }
        }
        match byte {
            b'<' | b'{' | b'[' => self.scope = hash(u32::from(byte), self.scope >> 20),
            b'>' | b'"' | b':' | b'=' => self.scope = hash(self.words[1], u32::from(byte)),
            _ => {}
        }
    }
}

/// The last two, three, four and six bytes.
#[inline(always)]
fn orders(last: u64) -> [u32; ORDERS] {
    [
        hash_bytes(last & 0xffff, 1),
        hash_bytes(last & 0xff_ffff, 2),
        hash_bytes(last & 0xffff_ffff, 3),
        hash_bytes(last & 0xffff_ffff_ffff, 5),
    ]
}

/// What is remembered of the bytes so far.
pub(super) struct Contexts {
    pub kind: Kind,
    pub now: Now,
    /// Length of records; the last bytes of two records and a little more, and how many bytes there were in all.
    record: usize,
    recent: Vec<u8>,
    place: usize,
    /// Of samples.
    differences: Option<Box<Differences>>,
    /// The line before and this one.
    above: Vec<u8>,
    line: Vec<u8>,
}

impl Contexts {
    /// At the start of a text, of a kind that needs nothing else.
    pub fn new(kind: Kind) -> Contexts {
        Contexts {
            kind,
            now: Now::default(),
            record: 1,
            recent: Vec::new(),
            place: 0,
            differences: None,
            above: Vec::new(),
            line: Vec::new(),
        }
    }

    /// At the start of records of a length, at most `LEN_MAX`.
    pub fn of_records_of(len: usize) -> Contexts {
        Contexts { record: len.clamp(1, LEN_MAX), recent: vec![0; RECENT], ..Contexts::new(Kind::Records) }
    }

    /// At the start of the differences of samples.
    pub fn of_samples(shape: Shape) -> Contexts {
        let differences = Differences::new(shape);
        let now = Now::of(differences.last());
        Contexts { now, differences: Some(Box::new(differences)), ..Contexts::new(Kind::Samples) }
    }

    /// Hashes of the contexts of the next byte.
    #[inline(always)]
    pub fn hashes(&self) -> [u32; HASHED_MAX] {
        self.hashes_of(&self.now, &self.above)
    }

    /// What they will be if the byte is this one; `None` where that cannot be told.
    #[inline(always)]
    pub fn hashes_after(&self, byte: u8) -> Option<[u32; HASHED_MAX]> {
        let above = if byte == b'\n' { &self.line } else { &self.above };
        (!matches!(self.kind, Kind::Records | Kind::Samples)).then(|| self.hashes_of(&self.now_after(byte), above))
    }

    #[inline(always)]
    fn now_after(&self, byte: u8) -> Now {
        if self.kind.has_words() { self.now.after_of_words(byte) } else { self.now.after(byte) }
    }

    #[inline(always)]
    fn hashes_of(&self, now: &Now, line_above: &[u8]) -> [u32; HASHED_MAX] {
        let last = now.last;
        let c1 = (last & 0xff) as u32;
        let above = line_above.get(now.column).map_or(0, |b| u32::from(*b));
        let above_next = line_above.get(now.column + 1).map_or(0, |b| u32::from(*b));
        let [word, word1, word2] = now.words;
        let by_kind = match self.kind {
            Kind::Text => [
                hash(word, hash(c1, 6)),
                hash(word, hash(word1, 7)),
                hash(word, hash(word2, 8)),
                hash(above, hash(c1, hash(word, 10))),
                hash(now.shape, hash(c1, 11)),
                hash(now.indent << 8 | now.first, hash(word, 12)),
            ],
            Kind::Nested => [
                hash(word, hash(c1, 6)),
                hash(word, hash(word1, 7)),
                hash(word, hash(word2, 8)),
                hash(now.scope, hash_bytes(last & 0xffff, 10)),
                hash(above, hash(c1, hash(now.indent, 11))),
                hash(now.shape, hash(c1, 12)),
            ],
            Kind::Lines => [
                hash(word, hash(c1, 6)),
                hash(word, hash(word1, 7)),
                hash(now.field, hash(word, hash(c1, 8))),
                hash(above << 8 | above_next, hash(c1, 10)),
                hash(now.shape, hash(c1, 11)),
                hash(now.scope, hash_bytes(last & 0xffff, 12)),
            ],
            Kind::Words | Kind::Fields => return self.of_words(now, line_above),
            Kind::Records => self.of_records(),
            Kind::Samples => self.differences.as_ref().map_or([0; HASHED_MAX - ORDERS], |d| d.hashes()),
            Kind::Binary | Kind::Code => [
                hash_bytes(last >> 8 & 0xffff, 11),
                hash_bytes(last & 0xff00_ffff, 12),
                hash_bytes(last & 0xff00_00ff, 13),
                hash_bytes(last & 0xffff_0000, 14),
                hash_bytes(last & 0xf0f0_f0f0_f0f0, 15),
                hash_bytes(last & 0xff_0000_ff00, 16),
            ],
        };
        let [o2, o3, o4, o6] = orders(last);
        let [k0, k1, k2, k3, k4, k5] = by_kind;
        [o2, o3, o4, o6, k0, k1, k2, k3, k4, k5]
    }

    /// Contexts where words are numbers. The first few are what the swift profile has.
    #[inline(always)]
    fn of_words(&self, now: &Now, line_above: &[u8]) -> [u32; HASHED_MAX] {
        let c1 = (now.last & 0xff) as u32;
        let [o2, o3, o4, o6] = orders(now.last);
        let [word, word1, _] = now.words;
        let here = hash(word, c1 | 0x700);
        let others = if self.kind == Kind::Words {
            [hash(now.scope, here), hash(now.between | 1, word), hash(now.indent << 8 | now.first, here ^ 0x3000)]
        } else {
            let at = |column: usize| line_above.get(column).map_or(0, |b| u32::from(*b));
            let above = at(now.column) << 8 | at(now.column + 1);
            [hash(now.field, here), hash(now.between | 1, word), hash(above, here ^ 0x3000)]
        };
        let [k0, k1, k2] = others;
        [o2, o3, here, hash(now.shape, word ^ 0x5000), hash(word1 ^ 0x9000, word), o4, o6, k0, k1, k2]
    }

    /// Contexts within records: the byte above, what is left of it and right, the column.
    fn of_records(&self) -> [u32; HASHED_MAX - ORDERS] {
        let up =
            |n: usize| self.recent.get(self.place.wrapping_sub(n) & (RECENT - 1)).map_or(0, |byte| u32::from(*byte));
        let len = self.record;
        let (above, twice, left, left2, right) = (up(len), up(2 * len), up(len + 1), up(len + 2), up(len - 1));
        let (c1, c2) = ((self.now.last & 0xff) as u32, (self.now.last >> 8 & 0xff) as u32);
        let column = (self.place % len) as u32;
        // Of samples of two bytes: the one before, changed as those above are.
        let slope = above.wrapping_add(c2).wrapping_sub(left2) & 0xff;
        [
            hash(above << 8 | twice, hash(column, 11)),
            hash(above << 8 | c1, hash(left, 12)),
            hash(column, hash(c1, 13)),
            hash(above, hash(column, 14)),
            hash(slope, hash(c2 >> 3, hash(c1, 15))),
            hash(above << 16 | right << 8 | c2, 16),
        ]
    }

    /// Takes a whole byte.
    pub fn observe(&mut self, byte: u8) {
        if let Some(differences) = &mut self.differences {
            self.now = Now::of(differences.observe(byte));
            return;
        }
        if let Some(slot) = self.recent.get_mut(self.place & (RECENT - 1)) {
            *slot = byte;
        }
        self.place += 1;
        self.now = self.now_after(byte);
        if byte == b'\n' {
            std::mem::swap(&mut self.above, &mut self.line);
            self.line.clear();
        } else if self.line.len() < COLUMNS_MAX {
            self.line.push(byte);
        }
    }
}
