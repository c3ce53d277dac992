//! Plain containers: members one behind the other, each behind a head. Nothing is coded in them, but a head that is told by the
//! one before it takes a tenth, and data that stands alone is coded beside what is like it.
//!
//! A head goes to the frame stream, as far as it is not foretold: by the last one of its form, and by how long its data is.

mod ar;
mod cpio;
mod ustar;

/// Forms of plain containers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `ustar`, as POSIX, GNU and most others write it.
    Tar,
    /// `newc`, as in images that a kernel boots from.
    Cpio,
    /// As in Debian's packages, and libraries of objects.
    Ar,
}

/// The head of a member, as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub form: Form,
    /// Bytes from its first to the first of the data.
    pub len: usize,
    /// Bytes of data, as it says.
    pub data: u64,
}

/// The head that begins some bytes.
pub(super) fn head(bytes: &[u8]) -> Option<Head> {
    ustar::head(bytes).or_else(|| cpio::head(bytes)).or_else(|| ar::head(bytes))
}

/// True for the first bytes of a plain container that is cut between its members. Libraries of objects are cut as other
/// programs are: libX11.a came out 4 % larger, as what does not gain by being opened was not taken for machine code any more.
pub fn begins_plain(bytes: &[u8]) -> bool {
    match bytes.strip_prefix(ar::MAGIC) {
        Some(rest) => rest.starts_with(ar::PACKAGE),
        None => head(bytes).is_some(),
    }
}

/// The head of which the byte at `at` is the first of what heads of its form have alike, and where it begins, not before `from`.
pub(super) fn found(bytes: &[u8], from: usize, at: usize) -> Option<(usize, Head)> {
    let start = begins(bytes, at).filter(|start| *start >= from)?;
    Some((start, head(bytes.get(start..)?)?))
}

/// Where a head may begin, of which the byte at `at` is the first of what heads of its form have alike.
fn begins(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    if rest.starts_with(ustar::MAGIC) {
        return at.checked_sub(ustar::MAGIC_AT);
    }
    if rest.starts_with(ar::END) {
        return at.checked_sub(ar::END_AT);
    }
    rest.starts_with(cpio::MAGIC).then_some(at)
}

/// True for the first byte of what heads have alike.
pub(super) fn is_mark(byte: u8) -> bool {
    matches!(byte, b'u' | b'0' | b'`')
}

impl Form {
    /// What stands behind a member whose head and data are so many bytes.
    pub fn padding(self, bytes: usize) -> impl Iterator<Item = u8> {
        let (unit, byte) = match self {
            Form::Tar => (ustar::RECORD_BYTES, 0),
            Form::Cpio => (4, 0),
            Form::Ar => (2, b'\n'),
        };
        std::iter::repeat_n(byte, bytes.next_multiple_of(unit) - bytes)
    }
}

/// The last heads, which tell of the next.
#[derive(Clone, Default)]
pub(super) struct Heads {
    tar: ustar::Record,
    cpio: cpio::Fields,
}

/// A head that waits for how long its data is.
pub(super) enum Unfinished {
    Tar(Box<ustar::Unfinished>),
    Cpio(cpio::Unfinished),
    Ar(ar::Unfinished),
}

impl Heads {
    /// Appends what is not foretold of a head, of a member of which `len` bytes of data are there. False where it is of no usual
    /// shape: nothing is appended then.
    pub fn put(&mut self, form: Form, head: &[u8], len: usize, out: &mut Vec<u8>) -> bool {
        match form {
            Form::Tar => self.tar.put(head, len, out),
            Form::Cpio => self.cpio.put(head, len, out),
            Form::Ar => ar::put(head, len, out),
        }
    }

    /// Takes from the front what `put` appended.
    pub fn take(&mut self, form: Form, from: &mut &[u8]) -> Option<Unfinished> {
        match form {
            Form::Tar => self.tar.take(from).map(|head| Unfinished::Tar(Box::new(head))),
            Form::Cpio => self.cpio.take(from).map(Unfinished::Cpio),
            Form::Ar => ar::take_head(from).map(Unfinished::Ar),
        }
    }
}

impl Unfinished {
    /// The head of a member with `len` bytes of data.
    pub fn finish(self, len: usize) -> Vec<u8> {
        match self {
            Unfinished::Tar(head) => head.finish(len),
            Unfinished::Cpio(head) => head.finish(len),
            Unfinished::Ar(head) => head.finish(len),
        }
    }
}

/// Takes `len` bytes from the front.
pub(super) fn take<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(front)
}

/// Takes bytes up to a zero from the front, and the zero; `max` at most.
fn take_string<'a>(from: &mut &'a [u8], max: usize) -> Option<&'a [u8]> {
    match from.iter().take(max).position(|b| *b == 0) {
        Some(len) => {
            let text = take(from, len)?;
            take(from, 1)?;
            Some(text)
        }
        None => take(from, max),
    }
}

/// Two bytes that say by a bit for each field whether it is given.
fn take_flags(from: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(*take(from, 2)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_head(name: &str, len: usize) -> Vec<u8> {
        let mut out = vec![0u8; 512];
        let mut put = |at: usize, text: &str| out[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000644\0");
        put(108, "0001750\0");
        put(116, "0001750\0");
        put(124, &format!("{len:011o}"));
        put(136, "14700000000");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        put(265, "someone");
        let sum: u32 = out.iter().map(|b| u32::from(*b)).sum();
        out[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out
    }

    fn cpio_head(name: &str, ino: u32, len: usize) -> Vec<u8> {
        let fields = [ino, 0o100644, 0, 0, 1, 7, len as u32, 8, 1, 0, 0, name.len() as u32 + 1, 0];
        let mut out = b"070701".to_vec();
        fields.iter().for_each(|n| out.extend_from_slice(format!("{n:08X}").as_bytes()));
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn ar_head(name: &str, len: usize) -> Vec<u8> {
        format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{len:<10}`\n", 1_700_000_000, 0, 0, 100_644).into_bytes()
    }

    /// Heads, what they say, and bytes that two of them take.
    fn check(form: Form, made: impl Fn(&str, usize) -> Vec<u8>, bytes_max: usize) {
        let (mut writer, mut reader) = (Heads::default(), Heads::default());
        let (mut out, mut all) = (Vec::new(), Vec::new());
        for (name, len, there) in [("src/main.rs", 1234, 1234), ("src/lib.rs", 99, 99), ("cut-off", 5000, 70)] {
            let head = made(name, len);
            assert_eq!(super::head(&head), Some(Head { form, len: head.len(), data: len as u64 }));
            assert!(writer.put(form, &head, there, &mut out));
            all.push((head, there));
        }
        assert!(out.len() < bytes_max, "{} bytes", out.len());
        let mut rest = &out[..];
        for (head, there) in &all {
            assert!(reader.take(form, &mut rest).unwrap().finish(*there) == *head);
        }
        assert!(rest.is_empty());
        for cut in 0..out.len() {
            let (mut reader, mut rest) = (Heads::default(), &out[..cut]);
            (0..3).map_while(|_| reader.take(form, &mut rest)).for_each(|head| assert!(head.finish(3).len() < 600));
        }
        // One that is damaged is none, or comes back as it is.
        for at in 0..all[0].0.len() {
            let mut bad = all[0].0.clone();
            bad[at] ^= 0x11;
            if super::head(&bad).is_some_and(|head| head.len == bad.len()) {
                let mut out = Vec::new();
                if Heads::default().put(form, &bad, 1234, &mut out) {
                    let back = Heads::default().take(form, &mut &out[..]).unwrap().finish(1234);
                    assert!(back == bad, "{form:?} {at}");
                }
            }
        }
    }

    #[test]
    fn heads_come_back_and_take_little() {
        check(Form::Tar, tar_head, 170);
        check(Form::Cpio, |name, len| cpio_head(name, 7, len), 110);
        check(Form::Ar, ar_head, 181);
    }

    #[test]
    fn an_empty_name_or_none_is_no_head() {
        for bytes in [&b""[..], &[0; 512], &[b' '; 512], b"070701", b"!<arch>\n", &[b'`'; 60]] {
            assert_eq!(head(bytes), None);
        }
    }
}
