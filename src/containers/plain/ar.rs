//! Heads of ar: sixty bytes of text. The form: `ar.h` of System V.

use super::{Form, Head, take};

/// What a container begins with.
pub const MAGIC: &[u8] = b"!<arch>\n";
/// What the first member of a Debian package is called.
pub const PACKAGE: &[u8] = b"debian-binary";
const HEAD_BYTES: usize = 60;
const NAME_BYTES: usize = 16;
const SIZE_AT: usize = 48;
const SIZE_BYTES: usize = 10;
/// What a head ends with.
pub const END: &[u8] = b"`\n";
pub const END_AT: usize = HEAD_BYTES - END.len();

fn size_of(head: &[u8]) -> Option<&[u8]> {
    head.get(SIZE_AT..SIZE_AT + SIZE_BYTES)
}

pub fn head(bytes: &[u8]) -> Option<Head> {
    let head = bytes.get(..HEAD_BYTES)?;
    // Name, time, owner, group, mode and length: in printed letters, and from the second on in digits.
    let name = head.get(..NAME_BYTES)?;
    let numbers = head.get(NAME_BYTES..END_AT)?;
    let fits = name.iter().all(|b| matches!(b, b' '..=b'~')) && numbers.iter().all(|b| matches!(b, b' ' | b'0'..=b'9'));
    if !head.ends_with(END) || !fits {
        return None;
    }
    let data = str::from_utf8(size_of(head)?.trim_ascii_end()).ok()?.parse().ok()?;
    Some(Head { form: Form::Ar, len: HEAD_BYTES, data })
}

/// The head as it is, with spaces in the place of a length that is foretold.
pub fn put(head: &[u8], len: usize, out: &mut Vec<u8>) -> bool {
    if head.len() != HEAD_BYTES || size_of(head).is_none_or(|size| size.iter().all(|b| *b == b' ')) {
        return false;
    }
    let at = out.len() + SIZE_AT;
    out.extend_from_slice(head);
    if size_of(head) == Some(format!("{len:<10}").as_bytes()) {
        out.iter_mut().skip(at).take(SIZE_BYTES).for_each(|b| *b = b' ');
    }
    true
}

pub fn take_head(from: &mut &[u8]) -> Option<Unfinished> {
    take(from, HEAD_BYTES).map(|head| Unfinished(head.to_vec()))
}

pub struct Unfinished(Vec<u8>);

impl Unfinished {
    pub fn finish(self, len: usize) -> Vec<u8> {
        let Unfinished(mut head) = self;
        if size_of(&head).is_some_and(|size| size.iter().all(|b| *b == b' ')) {
            let size = format!("{len:<10}");
            head.iter_mut().skip(SIZE_AT).take(SIZE_BYTES).zip(size.bytes()).for_each(|(to, from)| *to = from);
        }
        head
    }
}
