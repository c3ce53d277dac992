//! Trees as tar streams, from and into a store that is not mounted: `export`, `import`; and the bytes of one file.
//!
//! The streams are of the pax format as GNU tar writes it: names and numbers of any length, times to the nanosecond, extended
//! attributes (`SCHILY.xattr.`, which `tar --xattrs --xattrs-include='*'` reads) and ACLs (`SCHILY.acl.`, `tar --acls`), holes (`GNU.sparse`, 1.0), hard
//! links, devices. Sockets have no place in them.

mod export;
mod import;
mod members;

use std::sync::Arc;

use serde::Serialize;

pub use export::{cat, export};
pub use import::import;

use crate::base::{ByteRange, Ino};
use crate::format::{FileKind, Time};
use crate::volume::{Attr, Error, Explanation, Volume};

/// What went through a stream.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ArchiveReport {
    pub files: u64,
    pub directories: u64,
    /// Hard links beyond the first name, symlinks, devices.
    pub others: u64,
    /// Bytes of files, without holes.
    pub bytes: u64,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// Most bytes that are read or written in one call.
const PIECE_BYTES: u64 = 1 << 20;

/// Records of pax headers.
const PATH: &str = "path";
const LINK: &str = "linkpath";
const MODIFIED: &str = "mtime";
const ACCESSED: &str = "atime";
const XATTR: &str = "SCHILY.xattr.";
/// ACLs in words, and the attributes that they are kept as.
const ACLS: [(&str, &str); 2] =
    [("SCHILY.acl.access", "system.posix_acl_access"), ("SCHILY.acl.default", "system.posix_acl_default")];
const SPARSE_MAJOR: &str = "GNU.sparse.major";
const SPARSE_MINOR: &str = "GNU.sparse.minor";
const SPARSE_NAME: &str = "GNU.sparse.name";
const SPARSE_SIZE: &str = "GNU.sparse.realsize";

/// Bytes that headers and data are padded to.
const BLOCK: u64 = 512;

/// A path as it is shown.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// The names of a path from the root of the volume on. `None` where it leads out of it.
fn names(path: &[u8]) -> Option<Vec<&[u8]>> {
    let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    (!names.contains(&&b".."[..])).then_some(names)
}

/// What a path from the root of the volume leads to. No symlink is followed.
fn find(volume: &Volume, path: &[u8]) -> Result<Attr, Error> {
    let names = names(path).ok_or(Error::Invalid("a path from the root of the volume has no `..`"))?;
    walk(volume, Ino::ROOT, &names)
}

/// What a file costs and why, by its path from the root of the volume.
///
/// # Errors
/// A sentence: there is no such file, or it is no regular one.
pub fn explain(volume: &Volume, path: &[u8]) -> Result<Explanation, String> {
    let found = find(volume, path).and_then(|attr| volume.explain(attr.ino));
    found.map_err(|e| format!("{}: {e}", shown(path)))
}

/// What names lead to from a directory, one after the other. No symlink is followed.
fn walk(volume: &Volume, from: Ino, names: &[&[u8]]) -> Result<Attr, Error> {
    names.iter().try_fold(volume.getattr(from)?, |at, name| volume.lookup(at.ino, name))
}

/// Bytes of a file, at most `PIECE_BYTES`.
fn read(volume: &Arc<Volume>, ino: Ino, range: ByteRange) -> Result<Vec<u8>, Error> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    volume.read(
        ino,
        range,
        Box::new(move |outcome| {
            // Who asked waits for it.
            let _ = sender.send(outcome.map(<[u8]>::to_vec));
        }),
    );
    receiver.recv().unwrap_or(Err(Error::Invalid("the read was given up")))
}

/// Seconds with a fraction, as pax has them.
fn time_text(time: Time) -> String {
    // The fraction counts forward, also before 1970.
    match (time.secs, time.nanos) {
        (secs @ ..0, nanos @ 1..) => {
            let sign = if secs == -1 { "-" } else { "" };
            format!("{sign}{}.{:09}", secs + 1, 1_000_000_000 - nanos)
        }
        (secs, 0) => secs.to_string(),
        (secs, nanos) => format!("{secs}.{nanos:09}"),
    }
}

/// The other way.
fn time_of(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = if fraction.is_empty() { 0 } else { digits.parse().ok()? };
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some(Time { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos }),
        _ => Some(Time { secs, nanos }),
    }
}

/// The name of an attribute within that of a record, which ends at the first equals sign: as GNU tar writes it.
fn encoded(name: &str) -> String {
    name.replace('%', "%25").replace('=', "%3D")
}

/// The other way.
fn decoded(name: &str) -> String {
    name.replace("%3D", "=").replace("%25", "%")
}

fn is_device(kind: FileKind) -> bool {
    matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        for (secs, nanos, text) in [
            (0, 0, "0"),
            (1_790_000_000, 5, "1790000000.000000005"),
            (-1, 500_000_000, "-0.500000000"),
            (-2, 999_999_999, "-1.000000001"),
            (-7, 0, "-7"),
        ] {
            let time = Time { secs, nanos };
            assert_eq!(time_text(time), text);
            assert_eq!(time_of(text), Some(time), "{text}");
        }
        assert_eq!(time_of("12.5"), Some(Time { secs: 12, nanos: 500_000_000 }));
        assert_eq!(time_of("12.1234567891"), Some(Time { secs: 12, nanos: 123_456_789 }));
        for junk in ["", ".", "x", "1.x", "1.-3", "9999999999999999999"] {
            assert_eq!(time_of(junk), None, "{junk}");
        }
    }

    #[test]
    fn names_of_attributes_come_back() {
        for name in ["user.plain", "user.a=b", "user.50%", "user.%3D", "user.=%25="] {
            assert!(!encoded(name).contains('='));
            assert_eq!(decoded(&encoded(name)), name);
        }
    }

    #[test]
    fn no_path_leads_out() {
        assert_eq!(names(b"/a//./b/"), Some(vec![&b"a"[..], b"b"]));
        assert_eq!(names(b"./"), Some(vec![]));
        assert_eq!(names(b"a/../../b"), None);
    }
}
