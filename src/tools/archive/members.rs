//! The members of a tar stream: pax, ustar, GNU's long names, and what came before them.
//!
//! Read here rather than by the library that writes them, which takes a line feed in the value of a pax record for the end of
//! the record: attributes are bytes, and GNU tar writes ACLs in lines.

use std::collections::HashMap;
use std::io::{self, Read};

use super::{BLOCK, LINK, PATH};

/// Longest records or name of one member, bytes: attributes have 64 KiB at most.
const RECORDS_BYTES_MAX: u64 = 16 << 20;

/// What a member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// Its letter.
    Other(u8),
}

/// A member of a stream, without its data.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u16,
    pub uid: u64,
    pub gid: u64,
    /// Seconds; records may say it better.
    pub mtime: u64,
    pub major: u32,
    pub minor: u32,
    /// Bytes of data that follow.
    pub size: u64,
    pub records: HashMap<String, Vec<u8>>,
}

impl Member {
    /// A record that is text.
    pub fn text(&self, record: &str) -> Option<&str> {
        std::str::from_utf8(self.records.get(record)?).ok()
    }
}

/// Reads members one after the other, and the data of the last one.
pub(super) struct Members<'a> {
    stream: &'a mut dyn Read,
    /// Data of this member that was not read, and what it is padded with.
    left: u64,
    padding: u64,
}

fn damaged(what: &str) -> String {
    format!("the stream is damaged, or none of tar: {what}")
}

/// A number of a header: octal digits, or where the first bit is set, the bits that follow.
fn number(field: &[u8]) -> Result<u64, String> {
    let out_of_bounds = || damaged("a number is out of bounds");
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        let mut value = u64::from(first & 0x7f);
        for byte in rest {
            value = value.checked_mul(256).ok_or_else(out_of_bounds)? + u64::from(*byte);
        }
        return Ok(value);
    }
    let digits = field.iter().skip_while(|b| **b == b' ').take_while(|b| !matches!(b, b' ' | 0));
    digits.into_iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).map(|v| v + u64::from(digit - b'0')).ok_or_else(out_of_bounds),
        _ => Err(damaged("a number of a header has other digits than octal ones")),
    })
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// The records of a pax header: for each its length in digits, a blank, name, equals sign, value, line feed.
fn parse(mut bytes: &[u8], out: &mut HashMap<String, Vec<u8>>) -> Result<(), String> {
    let bad = || damaged("a pax record is");
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let digits = bytes.get(..blank).and_then(|d| std::str::from_utf8(d).ok()).ok_or_else(bad)?;
        let len: usize = digits.parse().map_err(|_| bad())?;
        let (record, rest) = bytes.split_at_checked(len).ok_or_else(bad)?;
        let record = record.get(blank + 1..).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (name, value) = record.split_at(equals);
        // A name that is no text is none that is known.
        if let Ok(name) = std::str::from_utf8(name) {
            out.insert(name.to_string(), value.get(1..).unwrap_or_default().to_vec());
        }
        bytes = rest;
    }
    Ok(())
}

impl<'a> Members<'a> {
    pub fn new(stream: &'a mut dyn Read) -> Members<'a> {
        Members { stream, left: 0, padding: 0 }
    }

    /// The next member, after what is left of the data of the one before; `None` at the end, which a block of zeros is. A stream
    /// without one was cut off.
    ///
    /// # Errors
    /// A sentence.
    pub fn next(&mut self) -> Result<Option<Member>, String> {
        let mut records = HashMap::new();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let mut header = [0u8; BLOCK as usize];
            self.block(&mut header)?;
            if header.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            if records.values().map(Vec::len).sum::<usize>() as u64 > RECORDS_BYTES_MAX {
                return Err(damaged("records are longer than anything that is kept here"));
            }
            let field = |at: usize, len: usize| header.get(at..at + len).unwrap_or_default();
            let sum: u64 =
                (0..).zip(&header).map(|(n, b)| if (148..156).contains(&n) { 32 } else { u64::from(*b) }).sum();
            if number(field(148, 8))? != sum {
                return Err(damaged("a header has another checksum than it says"));
            }
            let size = number(field(124, 12))?;
            self.begin(size);
            match field(156, 1).first().copied().unwrap_or(0) {
                b'x' => parse(&self.all(size)?, &mut records)?,
                b'g' => {}
                b'L' => long_path = Some(until_zero(&self.all(size)?).to_vec()),
                b'K' => long_link = Some(until_zero(&self.all(size)?).to_vec()),
                b'S' | b'M' => {
                    // Of the first kind more headers follow than its size counts: what comes next cannot be told for sure.
                    let why = "it has files with holes, or in several volumes, in GNU's older form; make it with --format=posix";
                    return Err(format!("the stream cannot be read: {why}"));
                }
                letter => {
                    let ustar = field(257, 6) == b"ustar\0";
                    let (prefix, name) = (until_zero(field(345, 155)), until_zero(field(0, 100)));
                    let short = match ustar && !prefix.is_empty() {
                        true => [prefix, b"/", name].concat(),
                        false => name.to_vec(),
                    };
                    let record = |name: &str| records.get(name).cloned();
                    let path = record(PATH).or(long_path).unwrap_or(short);
                    let link = record(LINK).or(long_link).unwrap_or_else(|| until_zero(field(157, 100)).to_vec());
                    let said = |name: &str, at: usize, len: usize| -> Result<u64, String> {
                        match records.get(name).map(|v| std::str::from_utf8(v).ok().and_then(|text| text.parse().ok()))
                        {
                            Some(Some(value)) => Ok(value),
                            Some(None) => Err(damaged("a pax record that is to be a number is none")),
                            None => number(field(at, len)),
                        }
                    };
                    let kind = match letter {
                        // Before there were letters, directories ended so.
                        0 if path.ends_with(b"/") => Kind::Directory,
                        b'0' | 0 | b'7' => Kind::File,
                        b'1' => Kind::HardLink,
                        b'2' => Kind::Symlink,
                        b'3' => Kind::CharDevice,
                        b'4' => Kind::BlockDevice,
                        b'5' => Kind::Directory,
                        b'6' => Kind::Fifo,
                        other => Kind::Other(other),
                    };
                    let size = match kind {
                        Kind::File | Kind::Other(_) => said("size", 124, 12)?,
                        // Some say the size of what they link to, and have no data.
                        _ => 0,
                    };
                    self.begin(size);
                    let member = Member {
                        mode: (number(field(100, 8))? & 0o7777) as u16,
                        uid: said("uid", 108, 8)?,
                        gid: said("gid", 116, 8)?,
                        mtime: number(field(136, 12)).unwrap_or(0),
                        major: number(field(329, 8)).unwrap_or(0) as u32,
                        minor: number(field(337, 8)).unwrap_or(0) as u32,
                        path,
                        link,
                        kind,
                        size,
                        records,
                    };
                    return Ok(Some(member));
                }
            }
        }
    }

    fn begin(&mut self, size: u64) {
        (self.left, self.padding) = (size, size.next_multiple_of(BLOCK) - size);
    }

    /// Passes over what is left of a member.
    fn skip(&mut self) -> Result<(), String> {
        let rest = self.left.saturating_add(self.padding);
        let passed =
            io::copy(&mut (&mut *self.stream).take(rest), &mut io::sink()).map_err(|e| damaged(&e.to_string()))?;
        (self.left, self.padding) = (0, 0);
        if passed == rest { Ok(()) } else { Err(damaged("it ends early")) }
    }

    /// Reads a header.
    fn block(&mut self, header: &mut [u8]) -> Result<(), String> {
        self.stream.read_exact(header).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends early"),
            _ => damaged(&e.to_string()),
        })
    }

    /// All data of a member that has nothing but records.
    fn all(&mut self, size: u64) -> Result<Vec<u8>, String> {
        if size > RECORDS_BYTES_MAX {
            return Err(damaged("records are longer than anything that is kept here"));
        }
        let mut out = vec![0; size as usize];
        self.read_exact(&mut out).map_err(|_| damaged("it ends early"))?;
        Ok(out)
    }
}

impl Read for Members<'_> {
    /// Data of the last member.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (&mut *self.stream).take(self.left).read(buf)?;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_any_bytes() {
        let mut out = HashMap::new();
        parse(b"12 a=b\nc=d\ne\n9 path=\n", &mut out).unwrap_err();
        out.clear();
        parse(b"13 a=b\nc=d\ne\n8 path=\n", &mut out).unwrap();
        assert_eq!((out["a"].as_slice(), out["path"].as_slice()), (&b"b\nc=d\ne"[..], &b""[..]));
        for junk in
            [&b"5 a=b"[..], b"x a=b\n", b"99999999999999999999999 a=b\n", b"6 a=b\n\n", b"4 ab\n", b"0 a=b\n", b"6"]
        {
            assert!(parse(junk, &mut HashMap::new()).is_err(), "{junk:?}");
        }
    }

    #[test]
    fn numbers_are_octal_or_bits() {
        assert_eq!(number(b" 0000644\0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0"), Ok(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]), Ok((2 << 32) + 1));
        assert!(number(b"0000689\0").is_err() && number(&[0xff; 12]).is_err());
    }
}
