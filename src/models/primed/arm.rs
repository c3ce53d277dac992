//! Machine code of 64-bit ARM with the addresses that calls, jumps and loads of pages lead to, instead of their distances,
//! as `code` has them for x86.
//!
//! An instruction is a word of four bytes. Of those that hold a distance only the distance is changed, and by where the word
//! stands alone: what says that it is one stays, so each word comes back by itself, whatever the bytes are. A segment that
//! does not begin at a word of its file gains nothing, and is coded as it is.

use super::code::saved;

const WORD: usize = 4;

/// A distance in an instruction: so many bits, in words or pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operand {
    /// Of `b` and `bl`: 26 bits, in words.
    Branch,
    /// Of `adrp`: 21 bits, in pages of 4 KiB; the lowest two are apart from the others.
    Page,
}

/// What distance an instruction holds.
fn operand(word: u32) -> Option<Operand> {
    if word & 0x7c00_0000 == 0x1400_0000 {
        Some(Operand::Branch)
    } else if word & 0x9f00_0000 == 0x9000_0000 {
        Some(Operand::Page)
    } else {
        None
    }
}

impl Operand {
    /// The number that an instruction holds.
    fn read(self, word: u32) -> u32 {
        match self {
            Operand::Branch => word & 0x3ff_ffff,
            Operand::Page => word >> 3 & 0x1f_fffc | word >> 29 & 3,
        }
    }

    /// The instruction with another number.
    fn write(self, word: u32, number: u32) -> u32 {
        match self {
            Operand::Branch => word & !0x3ff_ffff | number & 0x3ff_ffff,
            Operand::Page => word & !0x60ff_ffe0 | (number & 3) << 29 | (number & 0x1f_fffc) << 3,
        }
    }

    /// Where an instruction stands, in units of its distance.
    fn place(self, at: usize) -> u32 {
        match self {
            Operand::Branch => (at / WORD) as u32,
            Operand::Page => (at >> 12) as u32,
        }
    }
}

/// Changes every number by where it stands.
fn change(bytes: &mut [u8], new: impl Fn(u32, u32) -> u32) {
    for (n, bytes) in bytes.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
        let word = u32::from_le_bytes(*bytes);
        if let Some(operand) = operand(word) {
            let number = new(operand.read(word), operand.place(n * WORD));
            *bytes = operand.write(word, number).to_le_bytes();
        }
    }
}

/// Turns distances into addresses.
pub(super) fn forward(bytes: &mut [u8]) {
    change(bytes, u32::wrapping_add);
}

/// Turns addresses into distances.
pub(super) fn back(bytes: &mut [u8]) {
    change(bytes, u32::wrapping_sub);
}

/// How many more distances there are than addresses, where a segment looks like code; 0 where it does not.
pub(super) fn saves(bytes: &[u8]) -> usize {
    let operands = bytes.as_chunks::<WORD>().0.iter().enumerate().filter_map(|(n, bytes)| {
        let word = u32::from_le_bytes(*bytes);
        let operand = operand(word)?;
        let kind = u32::from(operand == Operand::Page) << 31;
        let distance = operand.read(word);
        let address = operand.read(operand.write(word, distance.wrapping_add(operand.place(n * WORD))));
        Some((kind | distance, kind | address))
    });
    saved(operands, bytes.len())
}

#[cfg(test)]
mod tests {
    use super::super::code::tests::come_back;
    use super::*;

    #[test]
    fn any_bytes_come_back() {
        let mut x = 5u64;
        let mut changed = 0;
        for n in 0..400 {
            let plain: Vec<u8> = (0..n)
                .map(|at| {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    // Of the last bytes of words many are those of branches and pages.
                    if at % 4 == 3 {
                        [0x94, 0x17, 0x90, 0xf0, 0xd0, 0x52][(x >> 33) as usize % 6]
                    } else {
                        (x >> 56) as u8
                    }
                })
                .collect();
            let mut bytes = plain.clone();
            forward(&mut bytes);
            assert!(
                bytes
                    .iter()
                    .zip(&plain)
                    .skip(3)
                    .step_by(4)
                    .all(|(a, b)| operand(u32::from(*a) << 24).is_none() || a & 0x1c == b & 0x1c)
            );
            changed += usize::from(come_back(&plain, forward, back));
        }
        assert!(changed > 300, "{changed}");
    }

    #[test]
    fn calls_of_one_function_become_alike_and_pay() {
        let mut bytes = Vec::new();
        for n in 0..2000u32 {
            // bl to one of three functions; adrp of one page; something else.
            let words = [0x9400_0000 | (5000 + n % 3).wrapping_sub(3 * n) & 0x3ff_ffff, 0, 0xd65f_03c0];
            let at = bytes.len() + WORD;
            let page = Operand::Page.write(0x9000_0007, 100u32.wrapping_sub((at >> 12) as u32));
            for word in [words[0], page, words[2]] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        assert!(saves(&bytes) > 1900 && saves(&[0; 5000]) == 0 && saves(b"text") == 0);
        let mut coded = bytes.clone();
        forward(&mut coded);
        for (n, words) in coded.as_chunks::<12>().0.iter().enumerate() {
            assert_eq!(words[..4], (0x9400_0000 | (5000 + n as u32 % 3)).to_le_bytes());
            assert_eq!(words[4..8], Operand::Page.write(0x9000_0007, 100).to_le_bytes());
        }
        // Cut within a word, nothing is gained.
        assert_eq!(saves(&bytes[1..]), 0);
    }
}
