//! Heads of cpio in its portable form, `newc`: thirteen numbers of eight hexadecimal digits, and the name. The form: `initramfs
//! buffer format` of Linux.

use super::{Form, Head, take, take_flags, take_string};

/// The next digit is 1, or 2 where files have a checksum.
pub const MAGIC: &[u8] = b"07070";
const MAGIC_BYTES: usize = 6;
const FIELDS: usize = 13;
const FIELD_BYTES: usize = 8;
const NUMBERS_BYTES: usize = MAGIC_BYTES + FIELDS * FIELD_BYTES;
const INO: usize = 0;
const SIZE: usize = 6;
const NAME_SIZE: usize = 11;
/// Bytes of a name, with the zero behind it.
const NAME_BYTES_MAX: usize = 4096;
/// What flags say beside fields that are given.
const LOWER_CASE: u16 = 1 << 13;
const CHECKED: u16 = 1 << 14;

/// The numbers of the last head.
#[derive(Clone, Default)]
pub struct Fields([u32; FIELDS]);

/// The numbers of a head.
fn numbers(bytes: &[u8]) -> Option<[u32; FIELDS]> {
    let mut out = [0; FIELDS];
    let mut digits = bytes.get(MAGIC_BYTES..NUMBERS_BYTES)?;
    for number in &mut out {
        let field = take(&mut digits, FIELD_BYTES)?;
        if !field.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        *number = u32::from_str_radix(str::from_utf8(field).ok()?, 16).ok()?;
    }
    Some(out)
}

/// Magic, numbers, name, and zeroes up to a multiple of four.
fn written(numbers: &[u32; FIELDS], name: &[u8], flags: u16) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(if flags & CHECKED != 0 { b'2' } else { b'1' });
    for n in numbers {
        let digits = if flags & LOWER_CASE != 0 { format!("{n:08x}") } else { format!("{n:08X}") };
        out.extend_from_slice(digits.as_bytes());
    }
    out.extend_from_slice(name);
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

pub fn head(bytes: &[u8]) -> Option<Head> {
    let rest = bytes.strip_prefix(MAGIC)?;
    if !matches!(rest.first()?, b'1' | b'2') {
        return None;
    }
    let numbers = numbers(bytes)?;
    let [.., name_bytes, _] = numbers;
    let name_bytes = name_bytes as usize;
    if name_bytes == 0 || name_bytes > NAME_BYTES_MAX {
        return None;
    }
    let len = (NUMBERS_BYTES + name_bytes).next_multiple_of(4);
    if bytes.get(NUMBERS_BYTES + name_bytes - 1..len)?.iter().any(|b| *b != 0) {
        return None;
    }
    Some(Head { form: Form::Cpio, len, data: numbers.get(SIZE).copied()?.into() })
}

impl Fields {
    /// The number that a field has unless it is given.
    fn foretold(&self, n: usize, len: usize, name: &[u8]) -> u32 {
        let last = self.0.get(n).copied().unwrap_or(0);
        match n {
            INO => last.wrapping_add(1),
            SIZE => len as u32,
            NAME_SIZE => name.len() as u32 + 1,
            _ => last,
        }
    }

    pub fn put(&mut self, head: &[u8], len: usize, out: &mut Vec<u8>) -> bool {
        let Some(numbers) = numbers(head) else { return false };
        let name = head.get(NUMBERS_BYTES..).unwrap_or_default();
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        let mut flags = 0;
        if head.get(..NUMBERS_BYTES).is_some_and(|digits| digits.iter().any(|b| matches!(b, b'a'..=b'f'))) {
            flags |= LOWER_CASE;
        }
        if head.get(MAGIC.len()) == Some(&b'2') {
            flags |= CHECKED;
        }
        if written(&numbers, name, flags) != head {
            return false;
        }
        let mut given = Vec::new();
        for (n, number) in numbers.iter().enumerate() {
            if *number != self.foretold(n, len, name) {
                flags |= 1 << n;
                given.extend_from_slice(&number.to_be_bytes());
            }
        }
        out.extend_from_slice(&flags.to_le_bytes());
        out.append(&mut given);
        out.extend_from_slice(name);
        out.push(0);
        self.0 = numbers;
        true
    }

    pub fn take(&mut self, from: &mut &[u8]) -> Option<Unfinished> {
        let flags = take_flags(from)?;
        let mut numbers = [None; FIELDS];
        for (n, number) in numbers.iter_mut().enumerate() {
            if flags & 1 << n != 0 {
                *number = Some(u32::from_be_bytes(*take(from, 4)?.first_chunk()?));
            }
        }
        let name = take_string(from, NAME_BYTES_MAX)?.to_vec();
        let last = self.clone();
        for (n, (kept, number)) in self.0.iter_mut().zip(&numbers).enumerate() {
            *kept = number.unwrap_or(last.foretold(n, 0, &name));
        }
        Some(Unfinished { numbers: self.0, sized: flags & 1 << SIZE != 0, flags, name })
    }
}

pub struct Unfinished {
    numbers: [u32; FIELDS],
    /// Its length is given.
    sized: bool,
    flags: u16,
    name: Vec<u8>,
}

impl Unfinished {
    pub fn finish(mut self, len: usize) -> Vec<u8> {
        if let Some(size) = self.numbers.get_mut(SIZE).filter(|_| !self.sized) {
            *size = len as u32;
        }
        written(&self.numbers, &self.name, self.flags)
    }
}
