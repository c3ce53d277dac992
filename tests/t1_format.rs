//! The memory of the format: golden bytes of every layout, and round trips of everything that is kept.
//!
//! A change of these bytes is a change of the format: it needs a new version or feature bit, and the old reader.

mod common;

use common::Dice;
use tersefs::base::{Class, Generation, Ino, PackId, SegmentRef, Uuid, crc32c};
use tersefs::format::{
    Coding, Dentry, Extent, FileKind, InodeRecord, MetaHeader, MetaOp, Owner, PackHeader, Place, RecordKind, Reference,
    SegmentHeader, SnapshotEnd, Staging, Stream, Superblock, Time, decode_extent, decode_ops, encode_extent,
    encode_ops, encode_record,
};

const UUID: Uuid = Uuid(*b"tersefs-golden-1");

fn inode(ino: u64) -> InodeRecord {
    InodeRecord {
        ino: Ino(ino),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        nlink: 1,
        rdev: 0,
        size: 4321,
        atime: Time { secs: 1_700_000_000, nanos: 5 },
        mtime: Time { secs: 1_700_000_000, nanos: 5 },
        ctime: Time { secs: 1_700_000_001, nanos: 999_999_999 },
        btime: Time { secs: -3, nanos: 1 },
        generation: Generation(9),
        staging: Some(Staging { epoch: 77, growing: true, sealed: false }),
        coded: true,
        stored_bytes: 1234,
        target: Vec::new(),
        parent: Ino(1),
    }
}

fn extent(file_offset: u64) -> Extent {
    Extent {
        file_offset,
        len: 65_536,
        segment: SegmentRef { pack: PackId(2), offset: 4096, stored_len: 20_000 },
        segment_offset: 100,
        segment_bytes: 262_144,
        method: 2,
        reference: None,
    }
}

fn every_op() -> Vec<MetaOp> {
    vec![
        MetaOp::PutInode(inode(7)),
        MetaOp::PutInode(InodeRecord { kind: FileKind::Symlink, target: b"a/b".to_vec(), nlink: 2, ..inode(8) }),
        MetaOp::PutInode(InodeRecord {
            kind: FileKind::CharDevice,
            rdev: 0x103,
            coded: false,
            stored_bytes: 0,
            ..inode(9)
        }),
        MetaOp::RemoveInode(Ino(6)),
        MetaOp::PutDentry {
            parent: Ino(1),
            name: b"name".to_vec(),
            dentry: Dentry { ino: Ino(7), kind: FileKind::Regular, cookie: 12 },
        },
        MetaOp::RemoveDentry { parent: Ino(1), name: b"\xff\xfe".to_vec() },
        MetaOp::PutExtent { ino: Ino(7), extent: extent(0) },
        MetaOp::PutExtent { ino: Ino(7), extent: Extent { segment_offset: 65_636, ..extent(65_536) } },
        MetaOp::RemoveExtents { ino: Ino(7), start: 10, end: u64::MAX },
        MetaOp::PutXattr { ino: Ino(7), name: b"user.x".to_vec(), value: vec![0, 255] },
        MetaOp::RemoveXattr { ino: Ino(7), name: b"user.y".to_vec() },
    ]
}

fn header() -> SegmentHeader {
    let coding = Coding {
        method: 2,
        revision: 1,
        profile: 0,
        class: Class::Text,
        raw_len: 300,
        model: [0; 16],
        plain_hash: *b"0123456789abcdef",
        reference: None,
    };
    let owner = |ino, segment_offset| Owner { ino: Ino(ino), file_offset: 0, segment_offset, len: 150 };
    SegmentHeader { coding, owners: vec![owner(7, 0), owner(9, 150)] }
}

fn place(offset: u64) -> Place {
    Place { uuid: UUID, pack: PackId(3), offset }
}

/// One check: the bytes have this length and checksum.
fn check(name: &str, bytes: &[u8], expected: (usize, u32)) {
    assert_eq!((bytes.len(), crc32c(bytes)), expected, "{name}: the format has changed");
}

#[test]
fn golden_bytes() {
    check("superblock", &Superblock::new(UUID, 1_700_000_000, 1 << 28).encode(), GOLDEN[0]);
    let pack = PackHeader { pack: PackId(3), stream: Stream::Data, uuid: UUID }.encode();
    check("pack record", &encode_record(place(0), RecordKind::Pack, 0, &pack, &[], None), GOLDEN[1]);
    let segment = encode_record(place(64), RecordKind::Segment, 5, &header().encode(), b"payload", None);
    check("segment record", &segment, GOLDEN[2]);
    check(
        "meta record",
        &encode_record(place(128), RecordKind::Meta, 6, &[], &encode_ops(&every_op()), None),
        GOLDEN[3],
    );
    let end = SnapshotEnd { records: 3, next_ino: 1000, next_serial: 2000 }.encode();
    check("snapshot end", &encode_record(place(8), RecordKind::SnapshotEnd, 7, &end, &[], None), GOLDEN[4]);
    let meta = MetaHeader { unsynced: 300 }.encode();
    check("meta fields", &encode_record(place(8), RecordKind::Meta, 7, &meta, b"body", None), GOLDEN[6]);
    check("compressed body", &encode_record(place(8), RecordKind::Snapshot, 7, &[], b"zstd", Some(100)), GOLDEN[5]);
}

/// What came to the format later: the bytes of the operations before it are still those of `GOLDEN`.
fn seal_ops() -> Vec<MetaOp> {
    let sealed = Staging { epoch: 78, growing: false, sealed: true };
    vec![
        MetaOp::RemoveSeals { ino: Ino(7) },
        MetaOp::PutSeal { ino: Ino(7), group: 3, sums: vec![0xdead_beef, 1] },
        MetaOp::PutInode(InodeRecord { staging: Some(sealed), ..inode(7) }),
    ]
}

#[test]
fn seals_byte_by_byte() {
    let bytes = encode_ops(&seal_ops());
    assert_eq!(bytes[..2], [10, 7], "forget");
    assert_eq!(bytes[2..14], [9, 7, 3, 2, 0xef, 0xbe, 0xad, 0xde, 1, 0, 0, 0], "group 3, two checksums");
    assert_eq!(
        bytes[14..17],
        [1, 0b1010_1001, 0b1100],
        "an inode: its atime is its mtime, staged, coded, one link, sealed"
    );
    assert_eq!(decode_ops(&bytes).unwrap(), seal_ops());
    let sums: Vec<u32> = (0..33).collect();
    assert!(decode_ops(&encode_ops(&[MetaOp::PutSeal { ino: Ino(1), group: 0, sums }])).is_err(), "too many");
}

/// Extents of two segments that were coded from one, of a third that was coded from none, and of the first again.
fn reference_ops() -> Vec<MetaOp> {
    let reference = |offset| Reference {
        segment: SegmentRef { pack: PackId(1), offset, stored_len: 30_000 },
        segment_bytes: 262_144,
    };
    let at = |n: u64, reference| Extent {
        segment: SegmentRef { pack: PackId(2), offset: 4096 + n * 500, stored_len: 500 },
        reference,
        segment_offset: 0,
        ..extent(n * 65_536)
    };
    let second = Extent { segment_offset: 65_536, file_offset: 65_536, ..at(0, Some(reference(64))) };
    [at(0, Some(reference(64))), second, at(2, Some(reference(64))), at(3, None), at(4, Some(reference(70_000)))]
        .map(|extent| MetaOp::PutExtent { ino: Ino(7), extent })
        .into()
}

#[test]
fn references_byte_by_byte() {
    let bytes = encode_ops(&reference_ops());
    assert_eq!(decode_ops(&bytes).unwrap(), reference_ops());
    check("extents with references", &bytes, REFERENCES[0]);
    let first = encode_ops(&reference_ops()[..1]);
    assert_eq!(
        first[..7],
        [5, 14, 0, 0x80, 0x80, 4, 2],
        "an extent of inode 7 at 0, 65536 bytes, of another that refers"
    );
    let second = encode_ops(&reference_ops()[..2]);
    assert_eq!(second[first.len()..], [5, 0, 0, 0x80, 0x80, 4, 1, 0], "of the same: nothing more");
    for op in reference_ops() {
        let MetaOp::PutExtent { extent, .. } = op else { continue };
        assert_eq!(decode_extent(&encode_extent(&extent)).unwrap(), extent);
    }
    let mut refers = header();
    refers.coding.reference = Some([7; 16]);
    let bytes = refers.encode();
    assert_eq!(SegmentHeader::decode(&bytes).unwrap(), refers);
    check("header with a reference", &bytes, REFERENCES[1]);
    refers.coding.model = [9; 16];
    let bytes = refers.encode();
    assert_eq!(bytes[6], 3, "model and reference");
    assert_eq!((&bytes[7..23], &bytes[23..39]), (&[9; 16][..], &[7; 16][..]));
    assert_eq!(SegmentHeader::decode(&bytes).unwrap(), refers);
}

const REFERENCES: [(usize, u32); 2] = [(87, 230491866), (50, 1638093662)];

/// Length and CRC32C of each layout.
const GOLDEN: [(usize, u32); 7] = [
    (4096, 1214729159),
    (64, 1683172520),
    (88, 712022840),
    (208, 3559052543),
    (56, 4060519756),
    (48, 3215908381),
    (56, 3540923866),
];

#[test]
fn the_first_record_of_a_pack_byte_by_byte() {
    let pack = PackHeader { pack: PackId(3), stream: Stream::Meta, uuid: UUID }.encode();
    let bytes = encode_record(place(0), RecordKind::Pack, 0x0102, &pack, &[], None);
    assert_eq!(&bytes[..8], &[0x8b, b't', b'e', b'r', b's', b'e', b'R', 0x0a]);
    assert_eq!((bytes[8], bytes[9], bytes[10], bytes[11]), (1, 1, 0, 0), "kind, version, flags");
    assert_eq!(bytes[12..16], 50u32.to_le_bytes(), "header length");
    assert_eq!(bytes[16..24], [0; 8], "body lengths");
    assert_eq!(bytes[24..32], 0x0102u64.to_le_bytes(), "txid");
    assert_eq!(bytes[32..34], [1, 3], "stream, pack");
    assert_eq!(&bytes[34..50], &UUID.0);
}

#[test]
fn operations_come_back() {
    let ops = every_op();
    assert_eq!(decode_ops(&encode_ops(&ops)).unwrap(), ops);
    assert_eq!(decode_ops(&[]).unwrap(), []);
}

#[test]
fn meta_records_without_fields_are_of_an_older_build() {
    assert_eq!(MetaHeader::decode(&[]), Ok(None));
    for unsynced in [1, 127, 128, u64::MAX] {
        assert_eq!(MetaHeader::decode(&MetaHeader { unsynced }.encode()), Ok(Some(MetaHeader { unsynced })));
    }
    assert!(MetaHeader::decode(&[1, 1]).is_err(), "more than is known");
}

#[test]
fn segment_headers_come_back() {
    let plain = header();
    assert_eq!(SegmentHeader::decode(&plain.encode()).unwrap(), plain);
    let mut named = header();
    named.coding.model = [9; 16];
    named.owners.clear();
    assert_eq!(SegmentHeader::decode(&named.encode()).unwrap(), named);
    let mut beyond = header();
    beyond.coding.raw_len = 299;
    assert!(SegmentHeader::decode(&beyond.encode()).is_err(), "an owner beyond the plain bytes");
}

#[test]
fn any_bytes_give_a_value_or_an_error() {
    let mut dice = Dice::new(1);
    let all: Vec<MetaOp> = every_op().into_iter().chain(seal_ops()).chain(reference_ops()).collect();
    let (ops, header) = (encode_ops(&all), header().encode());
    for _ in 0..200_000 {
        let mut bytes = if dice.roll(2) == 0 { ops.clone() } else { header.clone() };
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(bytes.len() as u64) as usize;
            bytes[at] = dice.next() as u8;
        }
        bytes.truncate(dice.roll(bytes.len() as u64 + 1) as usize);
        let _ = decode_ops(&bytes);
        let _ = SegmentHeader::decode(&bytes);
        let _ = PackHeader::decode(&bytes);
        let _ = SnapshotEnd::decode(&bytes);
        let _ = MetaHeader::decode(&bytes);
        let _ = Superblock::decode(&bytes);
    }
}

#[test]
fn a_small_file_costs_few_bytes() {
    // What creating, coding and naming a file adds to a snapshot before compression.
    let mut ops = Vec::new();
    for n in 0..1000u64 {
        let rec = InodeRecord { staging: None, btime: inode(0).ctime, size: 1000 + n % 7, ..inode(10 + n) };
        ops.push(MetaOp::PutInode(rec));
        let extent = Extent { file_offset: 0, len: 1000, segment_offset: (n % 200) as u32 * 1000, ..extent(0) };
        ops.push(MetaOp::PutExtent { ino: Ino(10 + n), extent });
        let dentry = Dentry { ino: Ino(10 + n), kind: FileKind::Regular, cookie: 50 + n };
        ops.push(MetaOp::PutDentry { parent: Ino(1), name: format!("file-{n:05}").into_bytes(), dentry });
    }
    let each = encode_ops(&ops).len() / 1000;
    assert!(each < 70, "{each} bytes a file");
}
