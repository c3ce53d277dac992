//! Trees as tar streams: what goes out of a volume goes into another one as it was, holes, links and attributes too; damage is
//! left out and named; a hostile stream is refused.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Dice, code_all, fresh, open, options, read};
use tersefs::base::{Ino, MethodId};
use tersefs::format::{FileKind, Time};
use tersefs::host::SimDisk;
use tersefs::tools::{ArchiveReport, cat, export, import};
use tersefs::volume::{Attr, Caller, OpenFor, SeekFor, SetAttr, SetTime, Volume, XattrMode};
use tersefs::workers::Workers;

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const WRITE: OpenFor = OpenFor { read: false, write: true, append: false, truncate: false };

fn volume(disk: &SimDisk) -> Arc<Volume> {
    open(disk, options(Some(MethodId::Zstd)), &Arc::new(Workers::new(1))).unwrap()
}

fn write(volume: &Arc<Volume>, parent: Ino, name: &[u8], parts: &[(u64, &[u8])], size: u64) -> Ino {
    let (attr, opened) = volume.create(parent, name, 0o640, &CALLER, WRITE).unwrap();
    for (at, data) in parts {
        volume.write(attr.ino, opened.handle, *at, data).unwrap();
    }
    volume.setattr(attr.ino, &SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    attr.ino
}

/// A tree of all there is.
fn planted() -> (SimDisk, Arc<Volume>) {
    let disk = fresh();
    let v = volume(&disk);
    let mut dice = Dice::new(9);
    let dir = v.mkdir(Ino::ROOT, b"a directory", 0o751, &CALLER).unwrap().ino;
    let deep = v.mkdir(dir, &[b'd'; 200], 0o700, &CALLER).unwrap().ino;
    let text = dice.text(700_000);
    let coded = write(&v, dir, b"coded", &[(0, &text)], text.len() as u64);
    write(&v, Ino::ROOT, b"coded with holes", &[(1 << 20, &text[..300_000]), (5 << 20, b"x")], 7 << 20);
    code_all(&v, || ()).unwrap();
    write(&v, deep, &[b'f'; 255], &[(0, b"small")], 5);
    write(&v, deep, b"\xff\xfe no text", &[(0, &text[..5000])], 5000);
    write(&v, Ino::ROOT, b"empty", &[], 0);
    write(&v, Ino::ROOT, b"all hole", &[], 1 << 30);
    v.link(coded, deep, b"another name").unwrap();
    v.symlink(dir, b"link", &[b"../", &[b'x'; 150][..]].concat(), &CALLER).unwrap();
    v.mknod(dir, b"pipe", FileKind::Fifo, 0o604, 0, &CALLER).unwrap();
    v.mknod(dir, b"disk", FileKind::BlockDevice, 0o660, 0x0123_4567, &CALLER).unwrap();
    v.setxattr(coded, b"user.50%=a", b"v", XattrMode::Set).unwrap();
    v.setxattr(coded, b"user.note", &[10; 3000], XattrMode::Set).unwrap();
    v.setxattr(dir, b"user.tersefs.tier", b"fast", XattrMode::Set).unwrap();
    // An ACL: owner rwx, user 1000 r, group rx, mask rx, others none.
    let acl = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0],
        &[4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255],
    ];
    v.setxattr(dir, b"system.posix_acl_access", &acl.concat(), XattrMode::Set).unwrap();
    let (uid, gid) = (Some(1234), Some(4_000_000_000));
    v.setattr(coded, &SetAttr { uid, gid, ..SetAttr::default() }).unwrap();
    v.setattr(coded, &SetAttr { mode: Some(0o4755), ..SetAttr::default() }).unwrap();
    for (ino, secs, nanos) in [(coded, -5, 250_000_000), (deep, 1_000_000_000, 123_456_789), (dir, 77, 0)] {
        let time = Some(SetTime::To(Time { secs, nanos }));
        v.setattr(ino, &SetAttr { mtime: time, atime: time, ..SetAttr::default() }).unwrap();
    }
    (disk, v)
}

/// All that a stream keeps, by path: attributes, extended attributes, where data is, and what.
type Tree = BTreeMap<Vec<u8>, (Attr, Vec<(Vec<u8>, Vec<u8>)>, Vec<u64>, Vec<u8>)>;

fn tree(v: &Arc<Volume>) -> Tree {
    let mut out = Tree::new();
    let mut waiting = vec![(Vec::new(), Ino::ROOT)];
    while let Some((path, ino)) = waiting.pop() {
        let attr = v.getattr(ino).unwrap();
        let mut names = v.listxattr(ino).unwrap();
        names.sort();
        let xattrs = names.into_iter().map(|n| (n.clone(), v.getxattr(ino, &n).unwrap())).collect();
        let (mut holes, mut content) = (Vec::new(), Vec::new());
        match attr.kind {
            FileKind::Directory => {
                for entry in v.readdir(ino, 2, 10_000).unwrap() {
                    waiting.push(([&path[..], b"/", &entry.name].concat(), entry.ino));
                }
            }
            FileKind::Regular => {
                let mut at = 0;
                while let Ok(data) = v.seek(ino, at, SeekFor::Data) {
                    at = v.seek(ino, data, SeekFor::Hole).unwrap();
                    // Holes of the filesystem below are whole pages, and so may begin a little later.
                    holes.extend([data / 4096, at.div_ceil(4096)]);
                    for from in (data..at).step_by(1 << 20) {
                        content.extend(read(v, ino, from, (at - from).min(1 << 20)).unwrap());
                    }
                }
            }
            FileKind::Symlink => content = v.readlink(ino).unwrap(),
            _ => {}
        }
        // What a stream does not say.
        let zero = Time::default();
        let attr = Attr { ino: Ino(0), blocks: 0, ctime: zero, btime: zero, ..attr };
        let attr = if path.is_empty() { Attr { mtime: zero, atime: zero, ..attr } } else { attr };
        out.insert(path, (attr, xattrs, holes, content));
    }
    out
}

fn exported(v: &Arc<Volume>, paths: &[&[u8]]) -> (Vec<u8>, ArchiveReport) {
    let mut out = Vec::new();
    let paths: Vec<Vec<u8>> = paths.iter().map(|p| p.to_vec()).collect();
    let report = export(v, &paths, &mut out, &mut |_, _| ()).unwrap();
    (out, report)
}

fn imported(v: &Arc<Volume>, below: &[u8], mut stream: &[u8]) -> Result<ArchiveReport, String> {
    import(v, below, &mut stream, &mut |_, _| ())
}

fn same(a: &Tree, b: &Tree) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, one) in a {
        let (path, other) = (String::from_utf8_lossy(path), &b[path]);
        assert_eq!((one.0, &one.2), (other.0, &other.2), "{path}");
        assert!(one.1 == other.1 && one.3 == other.3, "{path}: attributes {:?} and {:?}", one.1, other.1);
    }
}

#[test]
fn a_tree_goes_through_a_stream_as_it_is() {
    let (_disk, v) = planted();
    let (stream, report) = exported(&v, &[b"/"]);
    assert_eq!((report.files, report.directories, report.others), (6, 3, 4), "{report:?}");
    assert!(report.left_out.is_empty(), "{report:?}");
    // Holes take no space in it.
    assert!(stream.len() < 1_200_000, "{} bytes", stream.len());
    let other = fresh();
    let w = volume(&other);
    let taken = imported(&w, b"/", &stream).unwrap();
    assert_eq!((taken.files, taken.directories, taken.others), (6, 3, 4));
    assert_eq!(taken.bytes, report.bytes);
    same(&tree(&v), &tree(&w));
    // Once more, over itself; and after it was coded.
    imported(&w, b"/", &stream).unwrap();
    same(&tree(&v), &tree(&w));
    code_all(&w, || ()).unwrap();
    same(&tree(&v), &tree(&w));
    // Files that hold nothing but their name in the first volume share it there.
    let two = w.lookup(w.lookup(Ino::ROOT, b"a directory").unwrap().ino, b"coded").unwrap();
    assert_eq!(two.nlink, 2);
    common::shut(w);
    same(&tree(&v), &tree(&volume(&other)));
}

#[test]
fn parts_of_a_tree_are_taken_alone_and_put_below_a_directory() {
    let (_disk, v) = planted();
    let (stream, report) = exported(&v, &[b"a directory/coded", b"empty"]);
    assert_eq!((report.files, report.directories), (2, 0));
    let w = volume(&fresh());
    w.mkdir(Ino::ROOT, b"old", 0o755, &CALLER).unwrap();
    imported(&w, b"/old", &stream).unwrap();
    let there = tree(&w);
    assert!(there.contains_key(&b"/old/a directory/coded"[..]) && there.contains_key(&b"/old/empty"[..]));
    let mut plain = Vec::new();
    let path = b"/old/a directory/coded";
    assert_eq!(cat(&w, path, &mut plain).unwrap(), 700_000);
    assert_eq!(plain, there[&path[..]].3);
    for (path, why) in
        [(&b"old"[..], "no regular file"), (b"old/none", "no such"), (b"../x", "`..`"), (b"old/empty/x", "not a dir")]
    {
        assert!(cat(&w, path, &mut Vec::new()).unwrap_err().contains(why));
    }
    let mut cut = Vec::new();
    let paths = [b"empty".to_vec(), b"none".to_vec()];
    assert!(export(&v, &paths, &mut cut, &mut |_, _| ()).unwrap_err().contains("none: no such"));
    assert!(imported(&w, b"/", &cut).unwrap_err().contains("ends early"), "it has no end");
    assert!(imported(&w, b"/none", &stream).unwrap_err().contains("none: no such"));
}

#[test]
fn a_damaged_file_is_left_out_and_named() {
    let (disk, v) = planted();
    common::shut(v);
    let largest = disk.files().into_iter().filter(|(p, _)| p.starts_with("packs/")).max_by_key(|(_, len)| *len);
    let (pack, len) = largest.unwrap();
    // Amid the segments of the first file that was coded.
    assert!(disk.rot(&pack, len / 3, 0x10));
    let v = volume(&disk);
    let (stream, report) = exported(&v, &[b"/"]);
    assert!(!report.left_out.is_empty() && report.left_out.len() <= 3, "{:?}", report.left_out);
    assert!(report.left_out.iter().any(|what| what.contains("damaged")), "{:?}", report.left_out);
    let w = volume(&fresh());
    imported(&w, b"/", &stream).unwrap();
    let (whole, rest) = (planted().1, tree(&w));
    for (path, (attr, _, _, content)) in tree(&whole) {
        if let Some(other) = rest.get(&path).filter(|_| attr.kind == FileKind::Regular) {
            assert!(other.3 == content, "{}", String::from_utf8_lossy(&path));
        }
    }
}

/// A header of an old kind, with nothing but these.
fn header(name: &[u8], kind: u8, link: &[u8], size: usize) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn hostile_streams_are_refused() {
    let end = vec![0; 1024];
    let file = |name: &[u8]| [header(name, b'0', b"", 4), b"evil".to_vec(), vec![0; 508]].concat();
    let symlink = header(b"way", b'2', b"/etc", 0);
    let below = volume(&fresh());
    below.mkdir(Ino::ROOT, b"in", 0o755, &CALLER).unwrap();
    for (stream, why) in [
        (file(b"../out"), "leads out"),
        (file(b"a/../../out"), "leads out"),
        ([symlink.clone(), file(b"way/passwd")].concat(), "not a directory"),
        (header(b"hard", b'1', b"../in", 0), "link"),
        (header(b"hard", b'1', b"nothing", 0), "no such"),
        (file(b""), "name"),
    ] {
        let stream = [stream, end.clone()].concat();
        let refused = imported(&below, b"in", &stream).unwrap_err();
        assert!(refused.contains(why), "{refused}: {why}");
    }
    let inside = tree(&below);
    assert_eq!(inside.keys().map(|k| &k[..]).collect::<Vec<_>>(), [&b""[..], b"/in", b"/in/way"], "nothing else");
    // From the root on names are names.
    imported(&below, b"in", &[file(b"/absolute"), end.clone()].concat()).unwrap();
    assert!(tree(&below).contains_key(&b"/in/absolute"[..]));
    // What is there stays until the other is whole, and what is not known harms nothing.
    let whole = [file(b"kept"), end.clone()].concat();
    imported(&below, b"in", &whole).unwrap();
    for bad in [
        [header(b"kept", b'0', b"", 4000), b"half".to_vec()].concat(),
        [header(b"kept", b'1', b"nothing", 0), end.clone()].concat(),
        [header(b"kept", b'S', b"", 0), end.clone()].concat(),
        [header(b"kept", b'V', b"", 0), end.clone()].concat(),
        file(b"kept"),
    ] {
        let outcome = imported(&below, b"in", &bad);
        assert!(outcome.is_err() || !outcome.unwrap().left_out.is_empty());
        let now = tree(&below);
        assert_eq!(now[&b"/in/kept"[..]].3, b"evil");
        assert!(!now.keys().any(|path| path.ends_with(b"-import")));
    }
    // Cut off anywhere, and with bytes changed: an error or not, and no half file.
    let (_disk, v) = planted();
    let (stream, _) = exported(&v, &[b"a directory", b"coded with holes"]);
    let whole = tree(&v);
    let mut dice = Dice::new(4);
    for n in 0..60 {
        let w = volume(&fresh());
        let mut bad = stream.clone();
        match n % 2 {
            0 => bad.truncate(dice.roll(stream.len() as u64) as usize),
            _ => (0..3).for_each(|_| bad[dice.roll(20_000) as usize] ^= 1 << dice.roll(8)),
        }
        let outcome = imported(&w, b"/", &bad);
        if n % 2 == 0 {
            assert!(outcome.is_err(), "a stream that was cut off");
            for (path, (_, _, _, content)) in tree(&w) {
                assert!(whole[&path].3 == content, "{outcome:?}: {}", String::from_utf8_lossy(&path));
            }
        }
    }
}
