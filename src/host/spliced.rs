//! A file that is put together of some bytes and of parts of another file, to be read.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::{DiskFile, Seek};

/// Bytes in memory, then parts of another file, as one.
pub struct SplicedFile {
    head: Vec<u8>,
    /// Where each part begins here, where it is in the other file, and its length, bytes.
    parts: Vec<(u64, u64, u64)>,
    len: u64,
    source: Arc<dyn DiskFile>,
}

impl SplicedFile {
    /// Parts are places in `source` and lengths, bytes.
    pub fn new(head: Vec<u8>, parts: &[(u64, u64)], source: Arc<dyn DiskFile>) -> SplicedFile {
        let mut len = head.len() as u64;
        let place = |(at, bytes): &(u64, u64)| {
            let from = len;
            len = len.saturating_add(*bytes);
            (from, *at, *bytes)
        };
        let parts = parts.iter().map(place).collect();
        SplicedFile { head, parts, len, source }
    }

    /// Reads from one of the parts, or the head: fewer bytes at its end.
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(rest) = usize::try_from(offset).ok().and_then(|at| self.head.get(at..)).filter(|r| !r.is_empty()) {
            let count = rest.len().min(buf.len());
            buf.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
            return Ok(count);
        }
        let after = self.parts.partition_point(|(from, ..)| *from <= offset);
        // Of several that begin at the same place the last has bytes, unless it is the end.
        let Some((from, at, len)) = after.checked_sub(1).and_then(|n| self.parts.get(n)) else { return Ok(0) };
        let within = offset - from;
        let count = len.saturating_sub(within).min(buf.len() as u64) as usize;
        let at = at.checked_add(within).ok_or(io::ErrorKind::InvalidInput)?;
        match buf.get_mut(..count).filter(|buf| !buf.is_empty()) {
            Some(buf) => self.source.read_at(buf, at),
            None => Ok(0),
        }
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "a file that is put together of parts is not written"))
}

impl DiskFile for SplicedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_some(rest, offset + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> io::Result<()> {
        read_only()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        read_only()
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        read_only()
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        read_only()
    }

    fn seek(&self, offset: u64, what: Seek) -> io::Result<Option<u64>> {
        Ok(match what {
            Seek::Data => (offset < self.len).then_some(offset),
            Seek::Hole => (offset <= self.len).then_some(self.len),
        })
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn modified(&self) -> io::Result<(i64, u32)> {
        self.source.modified()
    }

    fn is_shared(&self) -> io::Result<bool> {
        self.source.is_shared()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Disk, OpenMode, SimDisk};

    #[test]
    fn reads_go_on_from_part_to_part() {
        let disk = SimDisk::new();
        let source = disk.open("a", OpenMode::CreateNew).unwrap();
        source.write_at(b"0123456789", 0).unwrap();
        let file = SplicedFile::new(b"head".to_vec(), &[(7, 2), (0, 0), (1, 3), (9, 4)], source);
        // The last part is longer than what there is.
        assert_eq!(file.len().unwrap(), 4 + 2 + 3 + 4);
        let read = |offset: u64, len: usize| {
            let mut buf = vec![b'.'; len];
            let got = file.read_at(&mut buf, offset).unwrap();
            buf.truncate(got);
            String::from_utf8(buf).unwrap()
        };
        assert_eq!(read(0, 100), "head781239");
        assert_eq!(
            (read(2, 3), read(5, 2), read(6, 2), read(10, 5), read(99, 1)),
            ("ad7".into(), "81".into(), "12".into(), String::new(), String::new())
        );
        assert!(file.write_at(b"x", 0).is_err());
    }
}
