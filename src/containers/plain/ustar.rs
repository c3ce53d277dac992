//! Heads of tar: records of 512 bytes. The form: POSIX.1-2017, `pax`, ustar interchange format.

use super::{Form, Head, take, take_flags, take_string};

pub const RECORD_BYTES: usize = 512;
pub const MAGIC: &[u8] = b"ustar";
pub const MAGIC_AT: usize = 257;

/// Bytes of the fields: name, mode, owner, group, length, time, checksum, kind, link, magic, version, names of owner and group,
/// numbers of a device, and the prefix of the name with what is left.
const FIELDS: [usize; 16] = [100, 8, 8, 8, 12, 12, 8, 1, 100, 6, 2, 32, 32, 8, 8, 167];
const SIZE: usize = 4;
const CHECKSUM: usize = 6;
const SIZE_AT: usize = 124;
const CHECKSUM_AT: usize = 148;
const KIND_AT: usize = 156;

/// A number in octal digits, as fields have it.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_start();
    let len = digits.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(len)?;
    if digits.is_empty() || rest.iter().any(|b| !matches!(b, 0 | b' ')) {
        return None;
    }
    u64::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()
}

/// The sum of all bytes, those of the checksum taken for spaces.
fn checksum(record: &[u8]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
    let own = record.get(CHECKSUM_AT..CHECKSUM_AT + 8).unwrap_or_default();
    sum(record) - sum(own) + 8 * u64::from(b' ')
}

fn checksum_field(record: &[u8]) -> [u8; 8] {
    field_of(&format!("{:06o}\0 ", checksum(record)))
}

/// The length of data as most write it; `last` is what the field before it ended with.
fn size_field(len: usize, last: u8) -> [u8; 12] {
    let mut out = field_of::<12>(&format!("{len:011o}"));
    let [.., end] = &mut out;
    *end = last;
    out
}

/// The first bytes of a text, and zeroes.
fn field_of<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    out
}

pub fn head(bytes: &[u8]) -> Option<Head> {
    let record = bytes.get(..RECORD_BYTES)?;
    if !record.get(MAGIC_AT..)?.starts_with(MAGIC) || *record.first()? == 0 {
        return None;
    }
    if octal(record.get(CHECKSUM_AT..CHECKSUM_AT + 8)?)? != checksum(record) {
        return None;
    }
    let size = octal(record.get(SIZE_AT..SIZE_AT + 12)?)?;
    // Links, devices and directories have no data, whatever they say.
    let data = if matches!(record.get(KIND_AT)?, b'1'..=b'6') { 0 } else { size };
    Some(Head { form: Form::Tar, len: RECORD_BYTES, data })
}

/// Splits a record into its fields.
fn fields(mut record: &[u8]) -> impl Iterator<Item = &[u8]> {
    FIELDS.into_iter().map_while(move |len| take(&mut record, len))
}

/// The last head.
#[derive(Clone)]
pub struct Record([u8; RECORD_BYTES]);

impl Default for Record {
    fn default() -> Record {
        Record([0; RECORD_BYTES])
    }
}

/// Cuts zeroes off the end.
fn trimmed(field: &[u8]) -> &[u8] {
    let len = field.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    field.get(..len).unwrap_or(field)
}

impl Record {
    /// What the length field of the last one ended with.
    fn size_end(&self) -> u8 {
        self.0.get(SIZE_AT + 11).copied().unwrap_or(0)
    }

    pub fn put(&mut self, head: &[u8], len: usize, out: &mut Vec<u8>) -> bool {
        let Some(record) = head.first_chunk::<RECORD_BYTES>() else { return false };
        let (size, sum) = (size_field(len, self.size_end()), checksum_field(record));
        let (mut flags, mut given) = (0u16, Vec::new());
        for (n, (field, last)) in fields(record).zip(fields(&self.0)).enumerate() {
            let foretold = match n {
                SIZE => &size[..],
                CHECKSUM => &sum[..],
                _ => last,
            };
            if field == foretold {
                continue;
            }
            flags |= 1 << n;
            let text = trimmed(field);
            if text.contains(&0) {
                return false;
            }
            given.extend_from_slice(text);
            if text.len() < field.len() {
                given.push(0);
            }
        }
        out.extend_from_slice(&flags.to_le_bytes());
        out.append(&mut given);
        self.0 = *record;
        true
    }

    pub fn take(&mut self, from: &mut &[u8]) -> Option<Unfinished> {
        let flags = take_flags(from)?;
        let mut at = 0;
        for (n, len) in FIELDS.into_iter().enumerate() {
            if flags & 1 << n != 0 {
                let text = take_string(from, len)?;
                let field = self.0.get_mut(at..at + len)?;
                field.fill(0);
                field.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
            }
            at += len;
        }
        Some(Unfinished { record: self.0, sized: flags & 1 << SIZE != 0, summed: flags & 1 << CHECKSUM != 0 })
    }
}

pub struct Unfinished {
    record: [u8; RECORD_BYTES],
    /// Its length and its checksum are given.
    sized: bool,
    summed: bool,
}

impl Unfinished {
    pub fn finish(self, len: usize) -> Vec<u8> {
        let Unfinished { record, sized, summed } = self;
        let mut out = record.to_vec();
        let end = out.get(SIZE_AT + 11).copied().unwrap_or(0);
        let mut put = |at: usize, field: &[u8]| {
            out.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
        };
        if !sized {
            put(SIZE_AT, &size_field(len, end));
        }
        if !summed {
            let sum = checksum_field(&out);
            out.iter_mut().skip(CHECKSUM_AT).zip(sum).for_each(|(to, from)| *to = from);
        }
        out
    }
}
