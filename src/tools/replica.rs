//! A store in another place that follows one: `send` writes what the other lacks as a stream, `receive` takes it in.
//!
//! ```text
//! tersefs stream 1 LF
//! hash of the list of what the receiver had           BLAKE3-256 of `list_to_text`, of an empty one where nobody asked
//! volume                                              UUID, 16 bytes
//! list of all files of the store                      length (u64), text
//! of each of them how it comes                        0 stays, 1 whole, 2 grows from a byte (u64) on
//! hash of all this                                    BLAKE3-256
//! of each that does not stay, its bytes:
//!     pieces                                          length (u32), bytes; with the highest bit set so many zeros
//!     end                                             0 (u32), BLAKE3-256 of the bytes, and of the lengths of zeros
//! tersefs end LF
//! ```
//! Numbers are little-endian. All that came is checked before any of it gets to its place.

use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::Serialize;

use super::Progress;
use crate::base::Uuid;
use crate::host::{Disk, DiskFile, OpenMode, Seek};
use crate::store::{self, Comes, LIST_BYTES_MAX, Receiver, StoreFile};

const MAGIC: &[u8] = b"tersefs stream 1\n";
const END: &[u8] = b"tersefs end\n";
/// Most bytes of a piece.
const PIECE_BYTES: usize = 1 << 20;
/// Set in the length of a piece of zeros.
const ZEROS: u32 = 1 << 31;

/// What went through a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplicaReport {
    /// Of the store, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Of these in the stream.
    pub sent_files: u64,
    pub sent_bytes: u64,
}

impl ReplicaReport {
    fn of(files: &[StoreFile], comes: &[Comes]) -> ReplicaReport {
        let mut report = ReplicaReport::default();
        for (file, comes) in files.iter().zip(comes) {
            let sent = match comes {
                Comes::Stays => None,
                Comes::Grows(from) => Some(file.len.saturating_sub(*from)),
                Comes::Whole => Some(file.len),
            };
            report.files += 1;
            report.bytes = report.bytes.saturating_add(file.len);
            report.sent_files += u64::from(sent.is_some());
            report.sent_bytes = report.sent_bytes.saturating_add(sent.unwrap_or(0));
        }
        report
    }
}

fn written(e: io::Error) -> String {
    format!("the stream cannot be written: {e}")
}

fn cut_off(e: io::Error) -> String {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            "the stream ends before its end. What came whole is kept: the next stream, made with a new list of what is there, goes \
             on from it"
                .into()
        }
        _ => format!("the stream cannot be read: {e}"),
    }
}

fn damaged(what: &str) -> String {
    format!("the stream is damaged: {what}. Nothing was put in its place; send it again")
}

/// What a store that follows another has, as text for `send`.
///
/// # Errors
/// A sentence: the store is in use, or of its own.
pub fn held(disk: &dyn Disk) -> Result<String, String> {
    Ok(store::list_to_text(&store::replica_files(disk).map_err(|e| e.to_string())?))
}

/// Writes what a store has and another lacks: `have` is the list that `held` gave there, or nothing for all of it. Told: bytes
/// written, of how many.
///
/// # Errors
/// A sentence. The store is mounted, or cannot be read; or the stream cannot be written.
///
/// # Blocking
/// Reads all that is sent, and of the rest what it is known by. The store cannot be mounted for writing meanwhile.
pub fn send(
    disk: &Arc<dyn Disk>,
    have: Option<&str>,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<ReplicaReport, String> {
    let fail = |e: store::Error| e.to_string();
    let have = match have {
        Some(text) => store::list_from_text(text)
            .ok_or("the list of what is there is none, or not all of one: `tersefs receive --have STORE` writes it")?,
        None => Vec::new(),
    };
    let (files, held) = store::store_files(disk).map_err(fail)?;
    let volume = held.uuid();
    let disk = &**disk;
    let there =
        |file: &StoreFile| have.binary_search_by(|held| held.path.cmp(&file.path)).ok().and_then(|at| have.get(at));
    let comes: Vec<Comes> =
        files.iter().map(|file| store::comes(disk, file, there(file))).collect::<Result<_, _>>().map_err(fail)?;
    let report = ReplicaReport::of(&files, &comes);

    let mut head = MAGIC.to_vec();
    head.extend_from_slice(blake3::hash(store::list_to_text(&have).as_bytes()).as_bytes());
    head.extend_from_slice(&volume.0);
    let list = store::list_to_text(&files);
    head.extend_from_slice(&(list.len() as u64).to_le_bytes());
    head.extend_from_slice(list.as_bytes());
    for comes in &comes {
        match comes {
            Comes::Stays => head.push(0),
            Comes::Whole => head.push(1),
            Comes::Grows(from) => {
                head.push(2);
                head.extend_from_slice(&from.to_le_bytes());
            }
        }
    }
    let hash = blake3::hash(&head);
    out.write_all(&head).and_then(|()| out.write_all(hash.as_bytes())).map_err(written)?;
    let mut done = 0;
    for (file, comes) in files.iter().zip(&comes) {
        let from = match comes {
            Comes::Stays => continue,
            Comes::Grows(from) => *from,
            Comes::Whole => 0,
        };
        let opened = disk.open(&file.path, OpenMode::Read).map_err(|e| format!("open {}: {e}", file.path))?;
        write_file(&*opened, file, from, out, &mut |bytes| progress(done + bytes, report.sent_bytes))?;
        done += file.len - from;
    }
    out.write_all(END).and_then(|()| out.flush()).map_err(written)?;
    Ok(report)
}

fn write_file(
    opened: &dyn DiskFile,
    file: &StoreFile,
    from: u64,
    out: &mut dyn Write,
    told: &mut dyn FnMut(u64),
) -> Result<(), String> {
    let failed = |e: io::Error| format!("read {}: {e}", file.path);
    let (mut hash, mut at, mut buffer) = (blake3::Hasher::new(), from, vec![0; PIECE_BYTES]);
    while at < file.len {
        // Holes of files that are not coded yet stay holes.
        let data = opened.seek(at, Seek::Data).map_err(failed)?.unwrap_or(file.len).min(file.len);
        while at < data {
            let zeros = (data - at).min(u64::from(ZEROS - 1));
            let word = (zeros as u32 | ZEROS).to_le_bytes();
            out.write_all(&word).map_err(written)?;
            hash.update(&word);
            at += zeros;
        }
        if at == file.len {
            break;
        }
        let hole = opened.seek(at, Seek::Hole).map_err(failed)?.unwrap_or(file.len).clamp(at + 1, file.len);
        let wanted = (hole - at).min(PIECE_BYTES as u64) as usize;
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let got = opened.read_at(piece, at).map_err(failed)?;
        if got != wanted {
            return Err(format!("{} became shorter while it was sent", file.path));
        }
        out.write_all(&(got as u32).to_le_bytes()).and_then(|()| out.write_all(piece)).map_err(written)?;
        hash.update(piece);
        at += got as u64;
        told(at - from);
    }
    out.write_all(&0u32.to_le_bytes()).and_then(|()| out.write_all(hash.finalize().as_bytes())).map_err(written)
}

/// Reads, and hashes what was read.
struct Hashed<'a> {
    stream: &'a mut dyn Read,
    hash: blake3::Hasher,
}

impl Hashed<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).map_err(cut_off)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }
}

/// What a stream says before the first byte of a file.
struct Head {
    made_for: [u8; 32],
    volume: Uuid,
    files: Vec<StoreFile>,
    comes: Vec<Comes>,
}

fn read_head(stream: &mut dyn Read) -> Result<Head, String> {
    let mut from = Hashed { stream, hash: blake3::Hasher::new() };
    if from.array::<{ MAGIC.len() }>()? != *MAGIC {
        return Err("this is no stream of `tersefs send`".into());
    }
    let made_for = from.array()?;
    let volume = Uuid(from.array()?);
    let len = u64::from_le_bytes(from.array()?);
    if len > LIST_BYTES_MAX {
        return Err(damaged("its list of files is longer than one can be"));
    }
    let mut text = Vec::new();
    // As much memory as came, whatever was promised.
    from.stream.take(len).read_to_end(&mut text).map_err(cut_off)?;
    if (text.len() as u64) < len {
        return Err(cut_off(io::ErrorKind::UnexpectedEof.into()));
    }
    from.hash.update(&text);
    let text = String::from_utf8(text).map_err(|_| damaged("its list of files is no text"))?;
    let files = store::list_from_text(&text).ok_or_else(|| damaged("its list of files fails its check"))?;
    let mut comes = Vec::with_capacity(files.len());
    for file in &files {
        comes.push(match from.array()? {
            [0] => Comes::Stays,
            [1] => Comes::Whole,
            [2] => match u64::from_le_bytes(from.array()?) {
                at if at < file.len => Comes::Grows(at),
                _ => return Err(damaged("a file grows that is whole")),
            },
            _ => return Err(damaged("it does not say how a file comes")),
        });
    }
    let hash = *from.hash.finalize().as_bytes();
    if from.array()? != hash {
        return Err(damaged("its head fails its hash"));
    }
    Ok(Head { made_for, volume, files, comes })
}

/// Takes in what `send` wrote: from then on the store is as the other was. It is opened for reading alone, until it is made a store
/// of its own (`store::promote`). Told: bytes taken in, of how many.
///
/// # Errors
/// A sentence: the stream ends early or is damaged, was made for what another store has, or is of another volume; the store
/// is mounted, or one of its own. It is as it was before then; what came whole is kept for the next stream.
///
/// # Durability
/// All of it is on disk at return. After a crash the store is as before or as after; or, for the moment in which files are
/// put in their places, nobody opens it before `store::finish`.
pub fn receive(disk: &dyn Disk, stream: &mut dyn Read, progress: Progress<'_>) -> Result<ReplicaReport, String> {
    let fail = |e: store::Error| e.to_string();
    let head = read_head(stream)?;
    let receiver = Receiver::open(disk).map_err(fail)?;
    let needs = head.comes.iter().any(|comes| *comes != Comes::Whole);
    let held = store::list_to_text(&receiver.held().map_err(fail)?);
    if needs && *blake3::hash(held.as_bytes()).as_bytes() != head.made_for {
        return Err("the stream was made for what another store has, or this one had: make a list of it anew with `tersefs receive \
                    --have STORE`, and send again"
            .into());
    }
    if let Some(volume) = store::volume_of(disk).map_err(fail)?.filter(|volume| *volume != head.volume) {
        return Err(format!("the store follows the volume {volume}, and the stream is of {}", head.volume));
    }
    receiver.tidy(&head.files, &head.comes).map_err(fail)?;
    let report = ReplicaReport::of(&head.files, &head.comes);
    let mut done = 0;
    for (file, comes) in head.files.iter().zip(&head.comes) {
        let bytes = match comes {
            Comes::Stays => continue,
            Comes::Grows(from) => file.len - from,
            Comes::Whole => file.len,
        };
        let target = receiver.begin(&file.path).map_err(fail)?;
        read_file(&*target, &file.path, bytes, stream, &mut |at| progress(done + at, report.sent_bytes))?;
        receiver.end(file, *comes, &*target).map_err(fail)?;
        done += bytes;
    }
    let mut end = [0; END.len()];
    stream.read_exact(&mut end).map_err(cut_off)?;
    if end != *END {
        return Err(damaged("it does not end as it should"));
    }
    receiver.place(&head.files, &head.comes).map_err(fail)?;
    Ok(report)
}

fn read_file(
    target: &dyn DiskFile,
    path: &str,
    bytes: u64,
    stream: &mut dyn Read,
    told: &mut dyn FnMut(u64),
) -> Result<(), String> {
    let failed = |e: io::Error| format!("write what comes of {path}: {e}");
    let (mut hash, mut at, mut buffer) = (blake3::Hasher::new(), 0u64, vec![0; PIECE_BYTES]);
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len).map_err(cut_off)?;
        let word = u32::from_le_bytes(len);
        let (zeros, len) = (word & ZEROS != 0, u64::from(word & !ZEROS));
        if at + len > bytes || (!zeros && len > PIECE_BYTES as u64) {
            return Err(damaged(&format!("{path} has more bytes than its list says")));
        }
        if zeros {
            hash.update(&word.to_le_bytes());
        } else if len == 0 {
            break;
        } else {
            let piece = buffer.get_mut(..len as usize).unwrap_or_default();
            stream.read_exact(piece).map_err(cut_off)?;
            hash.update(piece);
            target.write_at(piece, at).map_err(failed)?;
        }
        at += len;
        told(at);
    }
    let mut said = [0; 32];
    stream.read_exact(&mut said).map_err(cut_off)?;
    if at != bytes || *hash.finalize().as_bytes() != said {
        return Err(damaged(&format!("{path} fails its hash")));
    }
    target.set_len(bytes).map_err(failed)
}
