//! Words as numbers: a word that a prior's text uses often becomes one byte or two, and the space between two such words
//! is left out. A text has half as many bytes then, which takes half the time to predict; contexts reach twice as far back,
//! and fewer of them fill the tables.
//!
//! Which words have numbers is found out from the text of the prior, so it takes no space of its own, and is part of the
//! format as the text is. Any bytes come back:
//!
//! ```text
//! 01 to 08, 0e to 1f  2 to 27 spaces
//! 00 to 7f            itself, where it is none of the above and no capital
//! 80 to bb            one of the 60 most frequent words
//! bc to fb, then 80 to ff   one of 8192 others
//! fc                  the word that follows, number or letters, begins with a capital
//! fd                  it is in capitals
//! fe                  what follows stands for itself: a byte below 80; one character of UTF-8; or fe and any byte
//! ff                  the number that follows belongs to the same word: no space is left out, and it begins with a capital
//! ```
//! Before a number that follows on another a space was left out, unless ff says that there was none.
//!
//! Idea: W. Teahan, and P. Skibinski, Sz. Grabowski and S. Deorowicz, "Revisiting dictionary-based compression" (2005); the
//! code is our own.

use std::collections::HashMap;

use crate::models::Error;

/// First byte of the words of two bytes, and how many words there are of one byte and of two.
const LEAD: u8 = 0xbc;
const SHORT: usize = 60;
const LONG: usize = 64 * SECONDS;
/// Second bytes, from this one on.
const SECOND: u8 = 0x80;
const SECONDS: usize = 128;
const CAPITAL: u8 = 0xfc;
const CAPITALS: u8 = 0xfd;
const ESCAPE: u8 = 0xfe;
const JOINED: u8 = 0xff;

/// Longest word that has a number, and how often it must be there.
const LEN_MAX: usize = 32;
const COUNT_MIN: u32 = 8;

/// Spaces that a byte stands for; 0 where it is another.
pub(super) const fn spaces(byte: u8) -> u32 {
    match byte {
        1..=8 => byte as u32 + 1,
        0x0e..=0x1f => byte as u32 - 4,
        _ => 0,
    }
}

const SPACES_MAX: usize = 27;

/// The byte that stands for so many spaces, 2 to `SPACES_MAX`.
fn of_spaces(count: usize) -> u8 {
    if count < 10 { count as u8 - 1 } else { count as u8 + 4 }
}

/// Bytes of a character of UTF-8 that begins so; 0 where none does.
fn character(first: u8) -> usize {
    match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 0,
    }
}

/// What a byte of a coded text is, for contexts. Bytes that have no meaning where they stand may be taken for anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    /// The last byte of a word's number.
    Number,
    /// The first of two.
    Lead,
    /// Says how the word that follows is written.
    Case,
    /// Part of what stands for itself though its bytes have another meaning.
    Escaped,
    /// Stands for itself, or for spaces.
    Plain,
}

/// What came before a byte, as far as it decides what the byte is.
#[derive(Clone, Copy, Default)]
pub(super) struct Reader {
    /// First byte of a word's number; 0 where there is none.
    pub lead: u8,
    /// Bytes that stand for themselves; `ESCAPE` where the next one tells how many.
    escaped: u8,
}

impl Reader {
    #[inline(always)]
    pub fn read(&mut self, byte: u8) -> Piece {
        if self.escaped == ESCAPE {
            self.escaped = if byte == ESCAPE { 1 } else { (character(byte) as u8).saturating_sub(1) };
            return Piece::Escaped;
        }
        if self.escaped > 0 {
            self.escaped -= 1;
            return Piece::Escaped;
        }
        if self.lead != 0 {
            self.lead = 0;
            return Piece::Number;
        }
        match byte {
            0..0x80 => Piece::Plain,
            0x80..LEAD => Piece::Number,
            LEAD..CAPITAL => {
                self.lead = byte;
                Piece::Lead
            }
            ESCAPE => {
                self.escaped = ESCAPE;
                Piece::Escaped
            }
            CAPITAL | CAPITALS | JOINED => Piece::Case,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Small,
    Capital,
    Capitals,
}

/// Letters from the start of `text` that are one word, and how they are written: small, or one capital and small ones, or
/// capitals. 0 where there is no letter. `getHTTPName` is three words.
fn word(text: &[u8]) -> (usize, Case) {
    let count = |from: usize, is: fn(&u8) -> bool| text.iter().skip(from).take_while(|b| is(b)).count();
    let capitals = count(0, u8::is_ascii_uppercase);
    match capitals {
        0 => (count(0, u8::is_ascii_lowercase), Case::Small),
        1 => (1 + count(1, u8::is_ascii_lowercase), Case::Capital),
        _ if text.get(capitals).is_some_and(u8::is_ascii_lowercase) => {
            let len = capitals - 1;
            (len, if len == 1 { Case::Capital } else { Case::Capitals })
        }
        _ => (capitals, Case::Capitals),
    }
}

/// Writes letters as a case says.
fn write(out: &mut Vec<u8>, small: &[u8], case: Case) {
    let from = out.len();
    out.extend_from_slice(small);
    let written = out.get_mut(from..).unwrap_or_default();
    match case {
        Case::Small => {}
        Case::Capital => written.iter_mut().take(1).for_each(|b| b.make_ascii_uppercase()),
        Case::Capitals => written.make_ascii_uppercase(),
    }
}

const NO_WORDS: Error = Error::Corrupt("words are coded as no words are");

/// Words with numbers.
#[derive(Debug)]
pub(super) struct Words {
    /// In the order of their numbers: those of one byte, then the others. In small letters.
    words: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u16>,
}

impl Words {
    /// The words of a text that are worth a number: the more frequent the shorter, among equals in the order of their bytes.
    pub fn of(text: &[u8]) -> Words {
        let mut counts: HashMap<Box<[u8]>, u32> = HashMap::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let (len, _) = word(rest);
            if (1..=LEN_MAX).contains(&len) {
                let small = rest.get(..len).unwrap_or_default().to_ascii_lowercase();
                *counts.entry(small.into()).or_default() += 1;
            }
            at += len.max(1);
        }
        let mut ranked: Vec<(Box<[u8]>, u32)> = counts.into_iter().filter(|(_, count)| *count >= COUNT_MIN).collect();
        ranked.sort_unstable_by(|(a, many), (b, few)| few.cmp(many).then_with(|| a.cmp(b)));
        let mut ranked = ranked.into_iter().map(|(word, _)| word);
        let mut words: Vec<Box<[u8]>> = ranked.by_ref().take(SHORT).collect();
        words.extend(ranked.filter(|word| word.len() > 1).take(LONG));
        let numbers = words.iter().zip(0..).map(|(word, number)| (word.clone(), number)).collect();
        Words { words, numbers }
    }

    /// Bytes of memory in use, about.
    pub fn memory_bytes(&self) -> u64 {
        self.words.iter().map(|word| 2 * (word.len() + size_of::<Box<[u8]>>()) as u64 + 16).sum()
    }

    /// The number of the word that `text` begins with, its length and how it is written; `None` where it has no number.
    fn number(&self, text: &[u8]) -> Option<(u16, usize, Case)> {
        let (len, case) = word(text);
        let mut small = [0; LEN_MAX];
        let small = small.get_mut(..len)?;
        small.copy_from_slice(text.get(..len)?);
        small.make_ascii_lowercase();
        self.numbers.get(&*small).map(|number| (*number, len, case))
    }

    /// Codes a text; `None` where it becomes longer, as that of another language does.
    pub fn forward_if_it_fits(&self, text: &[u8]) -> Option<Vec<u8>> {
        Some(self.forward(text)).filter(|coded| coded.len() <= text.len())
    }

    /// Codes a text.
    pub fn forward(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        // A number is the last that was written.
        let mut numbered = false;
        while let [first, behind @ ..] = rest {
            let spaced = numbered && *first == b' ';
            if let Some((number, len, case)) = self.number(if spaced { behind } else { rest }) {
                match case {
                    // Words that touch begin with a capital, or they were one.
                    Case::Capital if numbered && !spaced => out.push(JOINED),
                    Case::Capitals if numbered && !spaced => out.extend([JOINED, CAPITALS]),
                    Case::Small => {}
                    Case::Capital => out.push(CAPITAL),
                    Case::Capitals => out.push(CAPITALS),
                }
                match usize::from(number).checked_sub(SHORT) {
                    None => out.push(0x80 + number as u8),
                    Some(long) => out.extend([LEAD + (long / SECONDS) as u8, SECOND + (long % SECONDS) as u8]),
                }
                rest = rest.get(len + usize::from(spaced)..).unwrap_or_default();
                numbered = true;
                continue;
            }
            numbered = false;
            let (len, case) = word(rest);
            let taken = if len > 0 {
                match case {
                    Case::Small => {}
                    Case::Capital => out.push(CAPITAL),
                    Case::Capitals => out.push(CAPITALS),
                }
                out.extend(rest.iter().take(len).map(u8::to_ascii_lowercase));
                len
            } else {
                Self::plain(*first, rest, &mut out)
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        out
    }

    /// Codes what is no word at the start of `rest`: how many bytes it is.
    fn plain(first: u8, rest: &[u8], out: &mut Vec<u8>) -> usize {
        let count = rest.iter().take(SPACES_MAX).take_while(|b| **b == b' ').count();
        if count > 1 {
            out.push(of_spaces(count));
            return count;
        }
        let len = character(first);
        match rest.get(..len) {
            _ if first < 0x80 => {
                if spaces(first) > 0 {
                    out.push(ESCAPE);
                }
                out.push(first);
                1
            }
            Some(bytes) if len > 0 && bytes.iter().skip(1).all(|b| *b & 0xc0 == 0x80) => {
                out.push(ESCAPE);
                out.extend_from_slice(bytes);
                len
            }
            _ => {
                out.extend([ESCAPE, ESCAPE, first]);
                1
            }
        }
    }

    /// The text of a code, which has `len` bytes.
    ///
    /// # Errors
    /// `Corrupt` when it is the code of no such text.
    pub fn back(&self, code: &[u8], len: usize) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(len);
        let mut rest = code;
        // A number is the last that was read.
        let mut numbered = false;
        while let [byte, behind @ ..] = rest {
            if out.len() > len {
                break;
            }
            let taken = match *byte {
                0..0x80 => {
                    match spaces(*byte) {
                        0 => out.push(*byte),
                        count => out.extend(std::iter::repeat_n(b' ', count as usize)),
                    }
                    numbered = false;
                    1
                }
                ESCAPE => {
                    let (raw, skipped) = match behind {
                        [ESCAPE, raw @ ..] => (raw.get(..1), 2),
                        [first, ..] => (behind.get(..character(*first).max(1)), 1),
                        [] => (None, 1),
                    };
                    let raw = raw.ok_or(NO_WORDS)?;
                    out.extend_from_slice(raw);
                    numbered = false;
                    skipped + raw.len()
                }
                _ => {
                    let (joined, case, flags) = match rest {
                        [JOINED, CAPITALS, ..] => (true, Case::Capitals, 2),
                        [JOINED, ..] => (true, Case::Capital, 1),
                        [CAPITALS, ..] => (false, Case::Capitals, 1),
                        [CAPITAL, ..] => (false, Case::Capital, 1),
                        _ => (false, Case::Small, 0),
                    };
                    let word = rest.get(flags..).unwrap_or_default();
                    let letters = word.iter().take_while(|b| b.is_ascii_lowercase()).count();
                    let (number, len) = match word {
                        _ if letters > 0 && !joined => (None, letters),
                        [short @ 0x80..LEAD, ..] => (Some(usize::from(short - 0x80)), 1),
                        [lead @ LEAD..CAPITAL, second @ SECOND..=u8::MAX, ..] => {
                            (Some(SHORT + usize::from(lead - LEAD) * SECONDS + usize::from(second - SECOND)), 2)
                        }
                        _ => return Err(NO_WORDS),
                    };
                    if number.is_some() && numbered && !joined {
                        out.push(b' ');
                    }
                    numbered = number.is_some();
                    let small = match number {
                        Some(number) => self.words.get(number).ok_or(NO_WORDS)?,
                        None => word.get(..len).unwrap_or_default(),
                    };
                    write(&mut out, small, case);
                    flags + len
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        if out.len() == len { Ok(out) } else { Err(NO_WORDS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words::of(&b"the word of a name is the name of the word, and get the http name \n".repeat(9))
    }

    #[test]
    fn frequent_words_are_numbers_and_spaces_between_them_are_left_out() {
        let words = words();
        assert_eq!(
            words.words.iter().map(|w| &**w).take(4).collect::<Vec<_>>(),
            [&b"the"[..], b"name", b"of", b"word"]
        );
        let code = |text: &str| words.forward(text.as_bytes());
        assert_eq!(code("the name of the word"), [0x80, 0x81, 0x82, 0x80, 0x83]);
        assert_eq!(code("The NAME,  of"), [CAPITAL, 0x80, CAPITALS, 0x81, b',', 1, 0x82]);
        assert_eq!(code("nameName"), [0x81, JOINED, 0x81]);
        assert_eq!(code("nameNAMEName"), [0x81, JOINED, CAPITALS, 0x81, JOINED, 0x81]);
        assert_eq!(code("word x Word"), [0x83, b' ', b'x', b' ', CAPITAL, 0x83]);
        assert_eq!(code("Foo\u{e9} \x02"), [CAPITAL, b'f', b'o', b'o', ESCAPE, 0xc3, 0xa9, b' ', ESCAPE, 2]);
        assert_eq!(words.forward(&[0xc3, b'a', 0x80]), [ESCAPE, ESCAPE, 0xc3, 0x84, ESCAPE, ESCAPE, 0x80]);
        assert_eq!(words.forward(&[b' '; 28]), [0x1f, b' ']);
    }

    #[test]
    fn any_bytes_come_back() {
        let words = words();
        let mut x = 7u64;
        let mut next = |below: usize| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) as usize % below
        };
        let parts: [&[u8]; 24] = [
            b"the",
            b"Name",
            b"OF",
            b"get",
            b"HTTP",
            b"x",
            b"Y",
            b"zQ",
            b"foo",
            b"BAR",
            b" ",
            b"  ",
            b"          ",
            b"\n",
            b",",
            b"7",
            b"\x01",
            b"\x0e",
            b"\xc3",
            b"\xa9",
            b"\xe2\x82\xac",
            b"\xfe",
            b"\xff",
            b"\x80",
        ];
        let mut shorter = 0;
        for n in 0..4000 {
            let mut text = Vec::new();
            for _ in 0..next(30) {
                match n % 5 {
                    0 => text.push(next(256) as u8),
                    _ => text.extend_from_slice(parts[next(parts.len())]),
                }
            }
            let code = words.forward(&text);
            shorter += usize::from(code.len() < text.len());
            assert_eq!(words.back(&code, text.len()).unwrap(), text, "{code:x?}");
            assert!(code.len() <= 3 * text.len());
            assert!(words.back(&code, text.len() + 1).is_err());
            // Any code gives bytes or an error, and no more than it was asked for.
            let junk: Vec<u8> = (0..next(40)).map(|_| next(256) as u8).collect();
            let _ = words.back(&junk, next(60));
            let mut reader = Reader::default();
            code.iter().chain(&junk).for_each(|byte| {
                reader.read(*byte);
            });
        }
        assert!(shorter > 1000, "{shorter}");
    }

    #[test]
    fn pieces_of_a_code_are_told_apart() {
        let words = words();
        let mut reader = Reader::default();
        let pieces: Vec<Piece> =
            words.forward("name Name Z\u{e9}a".as_bytes()).iter().map(|b| reader.read(*b)).collect();
        use Piece::*;
        assert_eq!(pieces, [Number, Case, Number, Plain, Case, Plain, Escaped, Escaped, Escaped, Number]);
        assert_eq!(reader.read(LEAD), Lead);
        assert_eq!((reader.read(0x80), reader.read(b'a')), (Number, Plain));
    }
}
