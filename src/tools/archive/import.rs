//! Into a store.

use std::io::Read;
use std::sync::Arc;

use super::members::{Kind, Member, Members};
use super::{
    ACCESSED, ACLS, ArchiveReport, BLOCK, MODIFIED, PIECE_BYTES, SPARSE_MAJOR, SPARSE_NAME, SPARSE_SIZE, XATTR,
    decoded, find, names, shown, time_of, walk,
};
use crate::base::{ByteRange, Ino};
use crate::format::{FileKind, Time};
use crate::host;
use crate::tools::Progress;
use crate::volume::{
    Attr, Caller, Error, HandleId, OpenFor, RenameMode, SetAttr, SetTime, Volume, XattrMode, acl_from_text,
};

const ROOT: Caller = Caller { uid: 0, gid: 0 };
/// Most parts of a file with holes.
const PARTS_MAX: u64 = 1 << 22;
/// Longest line of the map of such a file: a number.
const LINE_BYTES_MAX: usize = 24;
/// Members after which what came is made part of the log, so that memory follows from its bound.
const FLUSH_EVERY: u64 = 4096;
/// The name, in its directory, of what is to take another's place, until it is whole.
const PENDING: &[u8] = b".tersefs-import";

/// Takes a tar stream in, below a directory of the volume, which exists. What is there is replaced, but for directories, which
/// are added to. Told: bytes of files so far.
///
/// # Durability
/// Of the volume that is closed afterwards. When this fails, what came before is there, and what was to be replaced by what did
/// not come.
///
/// # Errors
/// A sentence that says which entry: the stream is damaged or ends early, a name leads out of the directory, or the volume
/// takes no more.
pub fn import(
    volume: &Arc<Volume>,
    below: &[u8],
    stream: &mut dyn Read,
    progress: Progress<'_>,
) -> Result<ArchiveReport, String> {
    let below_said = |e: Error| format!("{}: {e}", shown(below));
    let base = find(volume, below).map_err(below_said)?;
    if base.kind != FileKind::Directory {
        return Err(below_said(Error::NotDirectory));
    }
    let mut into = Into {
        volume,
        base: base.ino,
        report: ArchiveReport::default(),
        progress,
        directories: Vec::new(),
        path: Vec::new(),
    };
    let (mut members, mut count) = (Members::new(stream), 0u64);
    while let Some(mut member) = members.next()? {
        if let Some(name) = member.records.get(SPARSE_NAME) {
            member.path.clone_from(name);
        }
        into.member(&mut members, &member).map_err(|e| format!("{}: {e}", shown(&member.path)))?;
        count += 1;
        if count % FLUSH_EVERY == 0 {
            volume.flush().map_err(|e| format!("what came cannot be kept: {e}"))?;
        }
    }
    // What was put into them moved their times.
    let directories = std::mem::take(&mut into.directories);
    for (ino, set) in directories.into_iter().rev() {
        volume.setattr(ino, &set).map_err(|e| format!("inode {ino}: {e}"))?;
    }
    Ok(into.report)
}

struct Into<'a> {
    volume: &'a Arc<Volume>,
    base: Ino,
    report: ArchiveReport,
    progress: Progress<'a>,
    /// Attributes that directories get at the end.
    directories: Vec<(Ino, SetAttr)>,
    /// Of the entry that is taken in.
    path: Vec<u8>,
}

/// The times alone.
fn times(set: &SetAttr) -> SetAttr {
    SetAttr { atime: set.atime, mtime: set.mtime, ..SetAttr::default() }
}

/// What cannot be taken in, said without its path.
type Refusal = String;

fn refused(e: Error) -> Refusal {
    e.to_string()
}

fn damaged(e: std::io::Error) -> Refusal {
    format!("the stream is damaged, or ends early: {e}")
}

/// Reads a number of the map of a file with holes, which is a line; counts its bytes.
fn number(data: &mut dyn Read, taken: &mut u64) -> Result<u64, Refusal> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        data.read_exact(&mut byte).map_err(damaged)?;
        *taken += 1;
        if byte == *b"\n" {
            break;
        }
        line.extend(byte);
        if line.len() > LINE_BYTES_MAX {
            return Err("the map of its holes is damaged".to_string());
        }
    }
    let text = std::str::from_utf8(&line).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| "the map of its holes is damaged".to_string())
}

impl Into<'_> {
    fn member(&mut self, data: &mut dyn Read, member: &Member) -> Result<(), Refusal> {
        let (path, kind) = (&member.path, member.kind);
        self.path.clone_from(path);
        let names = names(path).ok_or("its name leads out of the directory")?;
        let Some((last, above)) = names.split_last() else {
            return match kind {
                Kind::Directory => self.directory(self.base, member),
                _ => Err("it has no name".into()),
            };
        };
        let mut parent = self.base;
        for name in above {
            parent = match self.volume.lookup(parent, name) {
                Ok(attr) => attr.ino,
                Err(Error::NotFound) => self.volume.mkdir(parent, name, 0o755, &ROOT).map_err(refused)?.ino,
                Err(e) => return Err(refused(e)),
            };
        }
        let there = match self.volume.lookup(parent, last) {
            Ok(attr) => Some(attr),
            Err(Error::NotFound) => None,
            Err(e) => return Err(refused(e)),
        };
        if kind == Kind::Directory {
            let ino = match there {
                Some(Attr { ino, kind: FileKind::Directory, .. }) => ino,
                Some(_) => return Err("something else has its name".to_string()),
                None => self.volume.mkdir(parent, last, 0o700, &ROOT).map_err(refused)?.ino,
            };
            return self.directory(ino, member);
        }
        if let Kind::Other(letter) = kind {
            self.report.left_out.push(format!("{}: its kind, `{}`, is not known", shown(path), char::from(letter)));
            return Ok(());
        }
        let Some(there) = there else {
            return self.put(parent, last, data, member);
        };
        if there.kind == FileKind::Directory {
            return Err("a directory has its name".to_string());
        }
        if kind == Kind::HardLink && self.target(member)? == there.ino {
            return Ok(());
        }
        // What is there goes when the other is whole.
        match self.volume.unlink(parent, PENDING) {
            Ok(()) | Err(Error::NotFound) => {}
            Err(e) => return Err(refused(e)),
        }
        self.put(parent, PENDING, data, member)?;
        self.volume.rename(parent, PENDING, parent, last, RenameMode::Replace).map_err(refused)
    }

    /// What a hard link leads to.
    fn target(&self, member: &Member) -> Result<Ino, Refusal> {
        let target = self.find_below(&member.link);
        target.map_err(|e| format!("what it is a link to, {}: {e}", shown(&member.link)))
    }

    /// Makes what a member is, but for directories, where nothing has its name. What fails leaves nothing.
    fn put(&mut self, parent: Ino, name: &[u8], data: &mut dyn Read, member: &Member) -> Result<(), Refusal> {
        let set = attributes(member)?;
        let Member { major, minor, .. } = member;
        let rdev = minor & 0xff | major << 8 & 0xfff00 | (minor & !0xff) << 12;
        let node = |kind: FileKind, rdev: u32| {
            self.volume.mknod(parent, name, kind, 0o600, rdev, &ROOT).map_err(refused).map(|attr| attr.ino)
        };
        let ino = match member.kind {
            Kind::File => return self.file(parent, name, &set, data, member),
            Kind::HardLink => {
                self.volume.link(self.target(member)?, parent, name).map_err(refused)?;
                self.report.others += 1;
                return Ok(());
            }
            Kind::Symlink => self.volume.symlink(parent, name, &member.link, &ROOT).map_err(refused)?.ino,
            Kind::CharDevice => node(FileKind::CharDevice, rdev)?,
            Kind::BlockDevice => node(FileKind::BlockDevice, rdev)?,
            Kind::Fifo => node(FileKind::Fifo, 0)?,
            Kind::Directory | Kind::Other(_) => return Err("it is made otherwise".to_string()),
        };
        self.report.others += 1;
        let finished = self.finish(ino, &set, member).and_then(|()| self.set_times(ino, &set));
        if finished.is_err() {
            let _ = self.volume.unlink(parent, name);
        }
        finished
    }

    /// What a path of the stream leads to; no symlink is followed.
    fn find_below(&self, path: &[u8]) -> Result<Ino, Error> {
        let names = names(path).ok_or(Error::NotFound)?;
        walk(self.volume, self.base, &names).map(|attr| attr.ino)
    }

    fn directory(&mut self, ino: Ino, member: &Member) -> Result<(), Refusal> {
        let set = attributes(member)?;
        self.finish(ino, &set, member)?;
        self.set_times(ino, &set)?;
        self.directories.push((ino, times(&set)));
        self.report.directories += 1;
        Ok(())
    }

    /// Gives an inode its owner, permissions and attributes. What is still to be done to it moves its times.
    fn finish(&mut self, ino: Ino, set: &SetAttr, member: &Member) -> Result<(), Refusal> {
        // An owner takes permissions away, and an ACL is one.
        self.volume.setattr(ino, &SetAttr { uid: set.uid, gid: set.gid, ..SetAttr::default() }).map_err(refused)?;
        self.volume.setattr(ino, &SetAttr { mode: set.mode, ..SetAttr::default() }).map_err(refused)?;
        for (name, value) in member.records.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?, value))) {
            let name = decoded(name);
            match self.volume.setxattr(ino, name.as_bytes(), value, XattrMode::Set) {
                Err(e @ (Error::Unsupported | Error::Invalid(_) | Error::TooBig)) => {
                    self.report.left_out.push(format!("attribute {name} of {}: {e}", shown(&self.path)));
                }
                set => set.map_err(|e| format!("attribute {name}: {e}"))?,
            }
        }
        for (record, name) in ACLS {
            let Some(text) = member.records.get(record) else { continue };
            let acl = std::str::from_utf8(text).map_err(|_| "its ACL is no text".to_string())?;
            match acl_from_text(acl, host::number_of_name) {
                Ok(acl) => self.volume.setxattr(ino, name.as_bytes(), &acl, XattrMode::Set).map_err(refused)?,
                Err(e) => self.report.left_out.push(format!("the ACL of {}: {e}", shown(&self.path))),
            }
        }
        Ok(())
    }

    fn set_times(&self, ino: Ino, set: &SetAttr) -> Result<(), Refusal> {
        self.volume.setattr(ino, &times(set)).map_err(refused)?;
        Ok(())
    }

    fn file(
        &mut self,
        parent: Ino,
        name: &[u8],
        set: &SetAttr,
        data: &mut dyn Read,
        member: &Member,
    ) -> Result<(), Refusal> {
        let open = OpenFor { write: true, ..OpenFor::default() };
        let (attr, opened) = self.volume.create(parent, name, 0o600, &ROOT, open).map_err(refused)?;
        let put = self.data(attr.ino, opened.handle, data, member);
        // Attributes ask for what becomes of the data: before it is anybody's turn.
        let finished = put.and_then(|()| self.finish(attr.ino, set, member));
        let released = self.volume.release(attr.ino, opened.handle).map_err(refused);
        if finished.is_err() {
            // Half a file is none.
            let _ = self.volume.unlink(parent, name);
        }
        finished.and(released)?;
        // The end of writing moved it.
        self.set_times(attr.ino, set)?;
        self.report.files += 1;
        Ok(())
    }

    fn data(&mut self, ino: Ino, handle: HandleId, data: &mut dyn Read, member: &Member) -> Result<(), Refusal> {
        let (parts, size) = match member.text(SPARSE_MAJOR) {
            None if member.records.contains_key("GNU.sparse.size") => {
                return Err("its holes are written in a form that is no longer in use (GNU.sparse 0)".to_string());
            }
            None => (vec![ByteRange { start: 0, end: member.size }], member.size),
            Some("1") => {
                let size = member.text(SPARSE_SIZE).and_then(|n| n.parse().ok()).ok_or("it does not say its size")?;
                (map(data, size)?, size)
            }
            Some(other) => return Err(format!("its holes are written in a form that is not known, {other}")),
        };
        let mut buf = vec![0; PIECE_BYTES as usize];
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                let len = (part.end - at).min(PIECE_BYTES) as usize;
                let piece = buf.get_mut(..len).unwrap_or_default();
                data.read_exact(piece).map_err(damaged)?;
                self.volume.write(ino, handle, at, piece).map_err(refused)?;
                at += len as u64;
                self.report.bytes += len as u64;
                (self.progress)(self.report.bytes, 0);
            }
        }
        self.volume.setattr(ino, &SetAttr { size: Some(size), ..SetAttr::default() }).map_err(refused)?;
        Ok(())
    }
}

/// Reads where the data of a file with holes goes, from before it.
fn map(data: &mut dyn Read, size: u64) -> Result<Vec<ByteRange>, Refusal> {
    let mut taken = 0;
    let count = number(data, &mut taken)?;
    if count > PARTS_MAX {
        return Err(format!("it has {count} parts between holes; at most {PARTS_MAX} are known"));
    }
    let mut parts = Vec::new();
    let mut before = 0;
    for _ in 0..count {
        let (start, len) = (number(data, &mut taken)?, number(data, &mut taken)?);
        let end = start.checked_add(len).filter(|end| start >= before && *end <= size);
        let end = end.ok_or("the map of its holes is damaged")?;
        parts.push(ByteRange { start, end });
        before = end;
    }
    let rest = taken.next_multiple_of(BLOCK) - taken;
    std::io::copy(&mut data.take(rest), &mut std::io::sink()).map_err(damaged)?;
    Ok(parts)
}

/// Owner, permissions and times.
fn attributes(member: &Member) -> Result<SetAttr, Refusal> {
    let time = |record: &str| member.text(record).and_then(time_of);
    let secs = i64::try_from(member.mtime).unwrap_or(i64::MAX);
    let modified = time(MODIFIED).unwrap_or(Time { secs, nanos: 0 });
    let id =
        |what: &str, number: u64| u32::try_from(number).map_err(|_| format!("its {what} is {number}, which is none"));
    Ok(SetAttr {
        mode: Some(member.mode),
        uid: Some(id("owner", member.uid)?),
        gid: Some(id("group", member.gid)?),
        mtime: Some(SetTime::To(modified)),
        atime: Some(SetTime::To(time(ACCESSED).unwrap_or(modified))),
        ..SetAttr::default()
    })
}
