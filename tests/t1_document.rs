//! FORMAT.md says what the code does: its numbers are the code's constants, its layouts those beside the code.

use std::collections::BTreeMap;
use std::fs;

use tersefs::base::{Class, Generation, Ino, MethodId, PACK_BYTES_MAX, PackId, SEGMENT_BYTES_MAX, SegmentRef};
use tersefs::format::{self, Dentry, Extent, FileKind, InodeRecord, MetaOp, RecordKind, Stream, Time};
use tersefs::models;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn document() -> String {
    fs::read_to_string(format!("{ROOT}/FORMAT.md")).unwrap()
}

/// The first two cells of each row of the table whose first heading is this, without backquotes.
fn table(heading: &str) -> BTreeMap<String, Vec<String>> {
    let text = document();
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("| {heading} |")));
    assert!(lines.next().is_some(), "FORMAT.md has a table of `{heading}`");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> {
        row.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_string()).collect()
    };
    rows.map(cells).map(|mut row| (row.remove(0), row)).collect()
}

/// Holds the second column of a table against the code: nothing is missing, and nothing more is there.
fn same(heading: &str, code: impl IntoIterator<Item = (&'static str, u64)>) {
    let code: BTreeMap<String, u64> = code.into_iter().map(|(name, n)| (name.to_string(), n)).collect();
    let told = table(heading).into_iter().map(|(name, row)| {
        let number = row[0].parse().unwrap_or_else(|e| panic!("{heading} {name}: {}: {e}", row[0]));
        (name, number)
    });
    assert_eq!(told.collect::<BTreeMap<String, u64>>(), code, "the table of `{heading}` in FORMAT.md and the code");
}

#[test]
fn numbers_are_those_of_the_code() {
    same(
        "name",
        [
            ("FORMAT_VERSION", u64::from(format::FORMAT_VERSION)),
            ("SUPERBLOCK_BYTES", format::SUPERBLOCK_BYTES as u64),
            ("HEADER_FIXED_BYTES", format::HEADER_FIXED_BYTES as u64),
            ("HEADER_BYTES_MAX", format::HEADER_BYTES_MAX as u64),
            ("BODY_BYTES_MAX", format::BODY_BYTES_MAX as u64),
            ("RECORD_ALIGN", format::RECORD_ALIGN),
            ("SEGMENT_BYTES_MAX", u64::from(SEGMENT_BYTES_MAX)),
            ("PACK_BYTES_MAX", PACK_BYTES_MAX),
            ("PARITY_HEADER_BYTES", format::PARITY_HEADER_BYTES as u64),
            ("SHARD_BYTES_MAX", u64::from(format::SHARD_BYTES_MAX)),
            ("SHARDS_MAX", u64::from(format::SHARDS_MAX)),
            ("SEAL_GRAIN_BYTES", format::SEAL_GRAIN_BYTES),
            ("SEAL_GRAINS", format::SEAL_GRAINS),
        ],
    );
    same(
        "feature",
        [
            ("INCOMPAT_SEALS", format::INCOMPAT_SEALS),
            ("INCOMPAT_MODELS", format::INCOMPAT_MODELS),
            ("INCOMPAT_REFERENCES", format::INCOMPAT_REFERENCES),
            ("INCOMPAT_LANGUAGES", format::INCOMPAT_LANGUAGES),
        ],
    );
    // All that this build knows are told of.
    let known = format::Superblock::claiming_all(Default::default(), 0, 0);
    let told: u64 = table("feature").values().map(|row| row[0].parse::<u64>().unwrap()).sum();
    assert_eq!((known.incompat, known.ro_compat), (told, 0));
    let kinds =
        [RecordKind::Pack, RecordKind::Segment, RecordKind::Meta, RecordKind::Snapshot, RecordKind::SnapshotEnd];
    let name = |kind: &RecordKind| match kind {
        RecordKind::Pack => "Pack",
        RecordKind::Segment => "Segment",
        RecordKind::Meta => "Meta",
        RecordKind::Snapshot => "Snapshot",
        RecordKind::SnapshotEnd => "SnapshotEnd",
    };
    same("kind", kinds.iter().map(|kind| (name(kind), *kind as u64)));
    same("stream", [("Meta", Stream::Meta as u64), ("Data", Stream::Data as u64)]);
    same("class", Class::ALL.map(|class| (class.name(), class as u64)));
    same("method", MethodId::ALL.map(|method| (method.name(), method as u64)));
    let revisions = table("method");
    for method in MethodId::ALL {
        let told = &revisions[method.name()][1];
        assert_eq!(*told, models::model(method).revision().to_string(), "revision of {}", method.name());
    }
    use FileKind::{BlockDevice, CharDevice, Directory, Fifo, Regular, Socket, Symlink};
    let name = |kind: &FileKind| match kind {
        Regular => "Regular",
        Directory => "Directory",
        Symlink => "Symlink",
        Fifo => "Fifo",
        Socket => "Socket",
        CharDevice => "CharDevice",
        BlockDevice => "BlockDevice",
    };
    let kinds = [Regular, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice];
    same("type of an inode", kinds.iter().map(|kind| (name(kind), *kind as u64)));
}

#[test]
fn operations_have_the_tags_that_are_told() {
    let extent = Extent {
        file_offset: 0,
        len: 1,
        segment: SegmentRef { pack: PackId(1), offset: 8, stored_len: 8 },
        segment_offset: 0,
        segment_bytes: 1,
        method: 0,
        reference: None,
    };
    let (ino, name) = (Ino(7), || b"n".to_vec());
    let dentry = Dentry { ino, kind: FileKind::Regular, cookie: 3 };
    let mut inode = InodeRecord::new(ino, FileKind::Regular, Time::default());
    inode.generation = Generation(1);
    let ops = [
        MetaOp::PutInode(inode),
        MetaOp::RemoveInode(ino),
        MetaOp::PutDentry { parent: ino, name: name(), dentry },
        MetaOp::RemoveDentry { parent: ino, name: name() },
        MetaOp::PutExtent { ino, extent },
        MetaOp::RemoveExtents { ino, start: 0, end: 1 },
        MetaOp::PutXattr { ino, name: name(), value: name() },
        MetaOp::RemoveXattr { ino, name: name() },
        MetaOp::PutSeal { ino, group: 0, sums: vec![1] },
        MetaOp::RemoveSeals { ino },
    ];
    let told = |op: &MetaOp| match op {
        MetaOp::PutInode(_) => "PutInode",
        MetaOp::RemoveInode(_) => "RemoveInode",
        MetaOp::PutDentry { .. } => "PutDentry",
        MetaOp::RemoveDentry { .. } => "RemoveDentry",
        MetaOp::PutExtent { .. } => "PutExtent",
        MetaOp::RemoveExtents { .. } => "RemoveExtents",
        MetaOp::PutXattr { .. } => "PutXattr",
        MetaOp::RemoveXattr { .. } => "RemoveXattr",
        MetaOp::PutSeal { .. } => "PutSeal",
        MetaOp::RemoveSeals { .. } => "RemoveSeals",
    };
    same("operation", ops.iter().map(|op| (told(op), u64::from(format::encode_ops(std::slice::from_ref(op))[0]))));
}

/// Blocks of plain text in the documentation at the head of a source.
fn layouts(source: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("{ROOT}/src/{source}")).unwrap();
    let (mut found, mut block) = (Vec::new(), None::<String>);
    for line in text.lines().map_while(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        match (&mut block, line) {
            (None, "```text") => block = Some(String::new()),
            (None, _) => {}
            (Some(_), "```") => found.extend(block.take()),
            (Some(text), line) => *text += &format!("{line}\n"),
        }
    }
    found
}

#[test]
fn layouts_stand_beside_the_code_word_for_word() {
    let document = document();
    for source in
        ["format/mod", "format/superblock", "format/record", "format/parity", "store/models", "store/languages"]
    {
        let found = layouts(&format!("{source}.rs"));
        assert!(!found.is_empty(), "{source}");
        for layout in found {
            assert!(
                document.contains(&format!("```text\n{layout}```")),
                "FORMAT.md lacks this, of {source}:\n{layout}"
            );
        }
    }
}

/// What a table of a layout says of a place: `offset width` of the first row with these words.
fn place(layout: &str, words: &str) -> (usize, usize) {
    let row = layout.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {layout}"));
    let mut numbers = row.split_whitespace().map(|n| n.parse().unwrap_or_else(|e| panic!("{row}: {e}")));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn bytes_lie_where_the_layouts_say() {
    let block = format::Superblock {
        version: 0x0102_0304,
        compat: 0x1111,
        ro_compat: 0x2222,
        incompat: 0x3333,
        uuid: tersefs::base::Uuid([9; 16]),
        created: 0x4444,
        pack_bytes_max: 0x5555,
    };
    let bytes = block.encode();
    let layout = &layouts("format/superblock.rs")[0];
    let at = |words: &str| {
        let (offset, width) = place(layout, words);
        bytes[offset..offset + width].to_vec()
    };
    assert_eq!(at("magic"), b"TERSEFS\n");
    assert_eq!(at("format version"), 0x0102_0304u32.to_le_bytes());
    for (words, value) in [
        ("  compat features", 0x1111u64),
        ("ro-compat", 0x2222),
        ("incompat", 0x3333),
        ("time of", 0x4444),
        ("pack is closed", 0x5555),
    ] {
        assert_eq!(at(words), value.to_le_bytes(), "{words}");
    }
    assert_eq!(at("volume UUID"), [9; 16]);
    let (end, width) = place(layout, "CRC32C");
    assert_eq!(end + width, format::SUPERBLOCK_BYTES);

    let place_of = format::Place { uuid: block.uuid, pack: PackId(3), offset: 64 };
    let record = format::encode_record(place_of, RecordKind::Segment, 0x0607_0809, b"fields", b"a body", None);
    let layout = &layouts("format/record.rs")[0];
    let at = |words: &str| {
        let (offset, width) = place(layout, words);
        record[offset..offset + width].to_vec()
    };
    assert_eq!(at("magic"), format::RECORD_MAGIC);
    assert_eq!(at("  kind"), [RecordKind::Segment as u8]);
    assert_eq!(at("header length h"), 38u32.to_le_bytes());
    assert_eq!(at("body length b"), 6u32.to_le_bytes());
    assert_eq!(at("txid: the"), 0x0607_0809u64.to_le_bytes());
    assert_eq!(&record[format::HEADER_FIXED_BYTES..][..6], b"fields");
    assert_eq!(&record[38 + 4..][..6], b"a body");
    assert_eq!(record[38 + 8 + 6..][..4], (38u32 + 6 + 12).to_le_bytes());
    assert_eq!(record.len(), (38 + 6 + 12usize).next_multiple_of(8));
}
