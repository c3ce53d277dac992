//! Out of a store.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use tar::{Builder, EntryType, Header};

use super::{
    ACCESSED, ACLS, ArchiveReport, BLOCK, LINK, MODIFIED, PATH, PIECE_BYTES, SPARSE_MAJOR, SPARSE_MINOR, SPARSE_NAME,
    SPARSE_SIZE, XATTR, encoded, find, is_device, read, shown, time_text,
};
use crate::base::{ByteRange, Ino};
use crate::format::FileKind;
use crate::tools::Progress;
use crate::volume::{Attr, Error, SeekFor, Volume, acl_to_text};

/// Entries of a directory that are looked at together.
const ENTRIES: usize = 1000;
/// Files up to this size are read before their header is written: one that is damaged is left out, and the stream goes on.
const AHEAD_BYTES: u64 = 64 << 20;
/// Name and link in a header, without pax records.
const NAME_BYTES: usize = 100;

/// Writes the bytes of a file, by its path from the root of the volume.
///
/// # Errors
/// A sentence: there is no such file, it is damaged (what comes before that was written), or `out` took no more.
pub fn cat(volume: &Arc<Volume>, path: &[u8], out: &mut dyn Write) -> Result<u64, String> {
    let said = |e: &dyn std::fmt::Display| format!("{}: {e}", shown(path));
    let attr = find(volume, path).map_err(|e| said(&e))?;
    if attr.kind != FileKind::Regular {
        return Err(said(&"it is no regular file"));
    }
    for at in (0..attr.size).step_by(PIECE_BYTES as usize) {
        let range = ByteRange { start: at, end: attr.size.min(at + PIECE_BYTES) };
        let piece = read(volume, attr.ino, range).map_err(|e| said(&e))?;
        out.write_all(&piece).map_err(|e| format!("cannot write what was read: {e}"))?;
    }
    Ok(attr.size)
}

/// Writes trees, by their paths from the root of the volume, as a tar stream. Told: bytes of files so far, of how many there
/// seem to be. A file of up to 64 MiB that is damaged is left out, and so said.
///
/// # Errors
/// A sentence: there is no such path, a larger file or a directory is damaged (the stream then has no end), or `out` took no
/// more.
pub fn export(
    volume: &Arc<Volume>,
    paths: &[Vec<u8>],
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<ArchiveReport, String> {
    let total = volume.status().map(|s| s.coded_plain_bytes).map_err(|e| e.to_string())?;
    let mut stream = Stream {
        volume,
        out: Builder::new(out),
        links: HashMap::new(),
        report: ArchiveReport::default(),
        progress,
        total,
    };
    match stream.trees(paths) {
        Ok(()) => {
            stream.out.finish().map_err(taken)?;
            Ok(stream.report)
        }
        Err(e) => {
            // When it is dropped it writes what ends a stream: this one has no end, so that nobody takes it for whole.
            std::mem::forget(stream.out);
            Err(e)
        }
    }
}

fn taken(e: io::Error) -> String {
    format!("the stream cannot be written: {e}")
}

struct Stream<'a> {
    volume: &'a Arc<Volume>,
    out: Builder<&'a mut dyn Write>,
    /// First name of each file that has several.
    links: HashMap<Ino, Vec<u8>>,
    report: ArchiveReport,
    progress: Progress<'a>,
    total: u64,
}

/// Why a file could not be written.
enum Fault {
    /// Nothing of it was.
    LeftOut(Error),
    Ended(String),
}

impl Stream<'_> {
    fn trees(&mut self, paths: &[Vec<u8>]) -> Result<(), String> {
        for path in paths {
            let attr = find(self.volume, path).map_err(|e| format!("{}: {e}", shown(path)))?;
            let names = super::names(path).unwrap_or_default();
            self.tree(names.join(&b'/'), attr)?;
        }
        Ok(())
    }

    /// A tree, whose root has this path; empty for that of the volume.
    fn tree(&mut self, path: Vec<u8>, attr: Attr) -> Result<(), String> {
        let mut waiting = vec![(path, attr)];
        while let Some((path, attr)) = waiting.pop() {
            match self.entry(&path, &attr) {
                Ok(()) => {}
                Err(Fault::LeftOut(e)) => self.report.left_out.push(format!("{}: {e}", shown(&path))),
                Err(Fault::Ended(e)) => return Err(e),
            }
            if attr.kind != FileKind::Directory {
                continue;
            }
            let from = waiting.len();
            let mut cookie = 2;
            loop {
                let page =
                    self.volume.readdir(attr.ino, cookie, ENTRIES).map_err(|e| format!("{}: {e}", shown(&path)))?;
                let Some(last) = page.last() else { break };
                cookie = last.cookie;
                for entry in page {
                    let inside = if path.is_empty() { entry.name } else { [&path[..], b"/", &entry.name].concat() };
                    match self.volume.getattr(entry.ino) {
                        Ok(attr) => waiting.push((inside, attr)),
                        Err(e) => self.report.left_out.push(format!("{}: {e}", shown(&inside))),
                    }
                }
            }
            if let Some(added) = waiting.get_mut(from..) {
                added.reverse();
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], attr: &Attr) -> Result<(), Fault> {
        let several = attr.kind != FileKind::Directory && attr.nlink > 1;
        if several && let Some(first) = self.links.get(&attr.ino).cloned() {
            self.report.others += 1;
            let pax = vec![(LINK.to_string(), first.clone())];
            return self.plain(path, attr, EntryType::Link, &first, pax);
        }
        match attr.kind {
            FileKind::Socket => {
                let why = "a socket has no place in a tar stream";
                return Err(Fault::LeftOut(Error::Invalid(why)));
            }
            FileKind::Regular => self.file(path, attr)?,
            FileKind::Directory => {
                self.report.directories += 1;
                let inside = [path, b"/"].concat();
                let named = if path.is_empty() { b"./" } else { &inside[..] };
                let pax = self.records(attr)?;
                self.plain(named, attr, EntryType::Directory, b"", pax)?;
            }
            FileKind::Symlink => {
                self.report.others += 1;
                let target = self.volume.readlink(attr.ino).map_err(Fault::LeftOut)?;
                let mut pax = self.records(attr)?;
                pax.push((LINK.to_string(), target.clone()));
                self.plain(path, attr, EntryType::Symlink, &target, pax)?;
            }
            FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => {
                self.report.others += 1;
                let kind = match attr.kind {
                    FileKind::CharDevice => EntryType::Char,
                    FileKind::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                };
                let pax = self.records(attr)?;
                self.plain(path, attr, kind, b"", pax)?;
            }
        }
        if several {
            self.links.insert(attr.ino, path.to_vec());
        }
        Ok(())
    }

    /// Times and extended attributes.
    fn records(&self, attr: &Attr) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let mut pax = vec![
            (MODIFIED.to_string(), time_text(attr.mtime).into_bytes()),
            (ACCESSED.to_string(), time_text(attr.atime).into_bytes()),
        ];
        for name in self.volume.listxattr(attr.ino).map_err(Fault::LeftOut)? {
            let value = self.volume.getxattr(attr.ino, &name).map_err(Fault::LeftOut)?;
            let name = String::from_utf8(name);
            let name = name.map_err(|_| Fault::LeftOut(Error::Invalid("the name of an attribute is no text")))?;
            let acl = ACLS.iter().find(|(_, kept)| *kept == name).zip(acl_to_text(&value));
            pax.push(match acl {
                Some(((record, _), text)) => (record.to_string(), text.into_bytes()),
                None => (format!("{XATTR}{}", encoded(&name)), value),
            });
        }
        Ok(pax)
    }

    /// An entry that is its header alone.
    fn plain(
        &mut self,
        path: &[u8],
        attr: &Attr,
        kind: EntryType,
        link: &[u8],
        pax: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Fault> {
        self.header(path, attr, kind, link, pax, 0, io::empty())
    }

    #[allow(clippy::too_many_arguments)]
    fn header(
        &mut self,
        path: &[u8],
        attr: &Attr,
        kind: EntryType,
        link: &[u8],
        mut pax: Vec<(String, Vec<u8>)>,
        size: u64,
        data: impl Read,
    ) -> Result<(), Fault> {
        let mut header = Header::new_ustar();
        let plain = |name: &[u8]| name.len() <= NAME_BYTES && name.is_ascii();
        if link.is_empty() || plain(link) {
            pax.retain(|(name, _)| name != LINK);
        }
        if !plain(path) {
            pax.push((PATH.to_string(), path.to_vec()));
        }
        let old = header.as_old_mut();
        for (field, name) in [(&mut old.name, path), (&mut old.linkname, link)] {
            field.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        }
        header.set_entry_type(kind);
        header.set_mode(u32::from(attr.mode));
        header.set_uid(u64::from(attr.uid));
        header.set_gid(u64::from(attr.gid));
        header.set_mtime(u64::try_from(attr.mtime.secs).unwrap_or(0));
        header.set_size(size);
        if is_device(attr.kind) {
            // As the kernel has them in 32 bits.
            let (major, minor) = (attr.rdev >> 8 & 0xfff, attr.rdev & 0xff | attr.rdev >> 12 & 0xfff00);
            header
                .set_device_major(major)
                .and_then(|()| header.set_device_minor(minor))
                .map_err(|e| Fault::Ended(taken(e)))?;
        }
        header.set_cksum();
        let records = pax.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.out.append_pax_extensions(records).map_err(|e| Fault::Ended(taken(e)))?;
        self.out.append(&header, data).map_err(|e| Fault::Ended(format!("{}: {e}", shown(path))))
    }

    fn file(&mut self, path: &[u8], attr: &Attr) -> Result<(), Fault> {
        let parts = self.parts(attr).map_err(Fault::LeftOut)?;
        let mut pax = self.records(attr)?;
        let whole = [ByteRange { start: 0, end: attr.size }];
        let mut map = Vec::new();
        let mut name = path.to_vec();
        if parts != whole && attr.size > 0 {
            // Number of parts, then where each begins and how long it is, before the data. A hole at the end is told by a part
            // of nothing: tar makes the file no longer than the last one.
            let end = ByteRange { start: attr.size, end: attr.size };
            let told = parts.iter().copied().chain((parts.last().is_none_or(|p| p.end < attr.size)).then_some(end));
            let told: Vec<ByteRange> = told.collect();
            let mut text = format!("{}\n", told.len());
            told.iter().for_each(|part| text += &format!("{}\n{}\n", part.start, part.len()));
            map = text.into_bytes();
            map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
            pax.extend([
                (SPARSE_MAJOR.to_string(), b"1".to_vec()),
                (SPARSE_MINOR.to_string(), b"0".to_vec()),
                (SPARSE_NAME.to_string(), path.to_vec()),
                (SPARSE_SIZE.to_string(), attr.size.to_string().into_bytes()),
            ]);
            // What programs that know nothing of holes take it for.
            let last = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            name = [b"GNUSparseFile.0/", last].concat();
        }
        let bytes: u64 = parts.iter().map(ByteRange::len).sum();
        let size = map.len() as u64 + bytes;
        let mut data = Data { volume: self.volume, ino: attr.ino, parts, at: 0, piece: map, used: 0 };
        if size <= AHEAD_BYTES {
            let mut ahead = Vec::with_capacity(size as usize);
            while data.next().map_err(Fault::LeftOut)? {
                ahead.extend_from_slice(data.piece.get(data.used..).unwrap_or_default());
                data.used = data.piece.len();
            }
            self.header(&name, attr, EntryType::Regular, b"", pax, size, &ahead[..])?;
        } else {
            self.header(&name, attr, EntryType::Regular, b"", pax, size, data)?;
        }
        self.report.files += 1;
        self.report.bytes += bytes;
        (self.progress)(self.report.bytes, self.total.max(self.report.bytes));
        Ok(())
    }

    /// Parts of a file that are data.
    fn parts(&self, attr: &Attr) -> Result<Vec<ByteRange>, Error> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < attr.size {
            let start = match self.volume.seek(attr.ino, at, SeekFor::Data) {
                Ok(start) => start,
                Err(Error::NoData) => break,
                Err(e) => return Err(e),
            };
            at = self.volume.seek(attr.ino, start, SeekFor::Hole)?.max(start + 1);
            parts.push(ByteRange { start, end: at });
        }
        Ok(parts)
    }
}

/// The data of a file, read piece by piece.
struct Data<'a> {
    volume: &'a Arc<Volume>,
    ino: Ino,
    parts: Vec<ByteRange>,
    /// The part that comes next.
    at: usize,
    /// What was read last, and how much of it is used up.
    piece: Vec<u8>,
    used: usize,
}

impl Data<'_> {
    /// Reads on where all is used up; false at the end.
    fn next(&mut self) -> Result<bool, Error> {
        if self.used < self.piece.len() {
            return Ok(true);
        }
        let Some(part) = self.parts.get_mut(self.at) else { return Ok(false) };
        let range = ByteRange { start: part.start, end: part.end.min(part.start + PIECE_BYTES) };
        part.start = range.end;
        if part.start == part.end {
            self.at += 1;
        }
        self.piece = read(self.volume, self.ino, range)?;
        self.used = 0;
        if (self.piece.len() as u64) < range.len() {
            return Err(Error::Invalid("it became shorter while it was read"));
        }
        Ok(true)
    }
}

impl Read for Data<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.next().map_err(|e| io::Error::other(e.to_string()))? {
            return Ok(0);
        }
        let rest = self.piece.get(self.used..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.used += n;
        Ok(n)
    }
}
