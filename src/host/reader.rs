//! A file as a stream, for libraries that read.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::DiskFile;

/// A file that is read from anywhere.
pub struct FileReader {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl FileReader {
    /// From its beginning.
    pub fn new(file: Arc<dyn DiskFile>) -> FileReader {
        FileReader { file, at: 0 }
    }
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.file.len()?.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
