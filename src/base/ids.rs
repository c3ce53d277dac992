//! Newtypes for everything that is counted, and the closed sets that go to disk.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Inode number. 1 is the root directory; 0 is never used. Numbers are never reused within a volume.
    Ino
);
id!(
    /// Number of a pack; packs are created in ascending order and a number is never reused.
    PackId
);
id!(
    /// Version of an inode's data: raised by every write, truncate and punch, so that a coder can tell that it lost a race.
    Generation
);
id!(
    /// Number of a transaction of the metadata log, ascending over the life of the volume.
    TxId
);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
}

/// Identity of a volume, in the superblock and folded into every record checksum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the record of one coded segment lies: pack, byte offset of the record, and bytes of the whole record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentRef {
    pub pack: PackId,
    /// Offset of the record in the pack, bytes, a multiple of 8.
    pub offset: u64,
    /// Whole record with header, checks and padding, bytes.
    pub stored_len: u32,
}

impl fmt::Display for SegmentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pack {} offset {}", self.pack, self.offset)
    }
}

/// How a segment is coded. Numbers are on disk: never reused, never renumbered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u16)]
pub enum MethodId {
    /// The plain bytes.
    Raw = 0,
    /// zstd frame without dictionary.
    Zstd = 1,
    /// Context mixing and a binary range coder.
    Cm = 2,
    /// The same, better, starting from a trained prior.
    Primed = 3,
    /// Fewer contexts of it, and small tables: several times as fast.
    Swift = 4,
    /// More contexts of it, and large tables: smaller, and slower.
    Strong = 5,
    /// Nucleotides: sequences, and reads with their qualities.
    Genome = 6,
    /// Text by a language model that the volume keeps, other data by one of images or bytes.
    Language = 7,
    /// Compressed formats, opened: what is in them by the other methods, and how they are closed again.
    Opened = 8,
    /// Sound that nobody has compressed.
    Sound = 9,
    /// Pictures that nobody has compressed.
    Picture = 10,
    /// Frames that nobody has compressed.
    Video = 11,
}

impl MethodId {
    /// Every method this build decodes, in the order of their numbers.
    pub const ALL: [MethodId; 12] = [
        MethodId::Raw,
        MethodId::Zstd,
        MethodId::Cm,
        MethodId::Primed,
        MethodId::Swift,
        MethodId::Strong,
        MethodId::Genome,
        MethodId::Language,
        MethodId::Opened,
        MethodId::Sound,
        MethodId::Picture,
        MethodId::Video,
    ];

    /// One more than the largest number of a method: numbers may have gaps.
    pub const NUMBERS: usize = MethodId::ALL[MethodId::ALL.len() - 1] as usize + 1;

    /// Reads a number from disk; `None` for a method this build does not know.
    pub fn from_u16(value: u16) -> Option<MethodId> {
        MethodId::ALL.into_iter().find(|m| *m as u16 == value)
    }

    /// The name that `stat` and flags use.
    pub fn name(self) -> &'static str {
        match self {
            MethodId::Raw => "raw",
            MethodId::Zstd => "zstd",
            MethodId::Cm => "cm",
            MethodId::Primed => "primed",
            MethodId::Swift => "swift",
            MethodId::Strong => "strong",
            MethodId::Genome => "genome",
            MethodId::Language => "language",
            MethodId::Opened => "opened",
            MethodId::Sound => "sound",
            MethodId::Picture => "picture",
            MethodId::Video => "video",
        }
    }
}

/// Name of a prior or a language model that a volume keeps: BLAKE3-128 of its file, or of what decoding takes from it. All zero where a segment needs none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModelId(pub [u8; 16]);

impl ModelId {
    /// No model beside the program's own.
    pub const NONE: ModelId = ModelId([0; 16]);

    /// Reads the 32 hexadecimal digits of `Display`.
    pub fn parse(text: &str) -> Option<ModelId> {
        let digits = Some(text.as_bytes()).filter(|d| d.len() == 32)?;
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(ModelId(id))
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What kind of data a segment holds, by its content. Decides segment size and contexts. Numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Nothing known; mixed or tiny.
    Unknown = 0,
    /// Natural-language text.
    Text = 1,
    /// XML, HTML.
    Markup = 2,
    /// Program text.
    Source = 3,
    /// JSON, NDJSON.
    Json = 4,
    /// Line-oriented logs, CSV, TSV.
    Log = 5,
    /// Machine code.
    Exec = 6,
    /// Other binary data that compresses.
    Binary = 7,
    /// Data that no model shrinks: compressed or encrypted.
    Incompressible = 8,
    /// FASTA, FASTQ, bare sequences of nucleotides.
    Nucleotides = 9,
    /// Compressed formats that can be opened: gzip, zip, PNG, PDF.
    Container = 10,
    /// JPEG pictures.
    Jpeg = 11,
    /// Samples of sound that nobody has compressed.
    Sound = 12,
    /// Pixels of pictures that nobody has compressed.
    Picture = 13,
    /// Frames of video that nobody has compressed.
    Video = 14,
}

impl Class {
    /// Every class, in the order of their numbers.
    pub const ALL: [Class; 15] = [
        Class::Unknown,
        Class::Text,
        Class::Markup,
        Class::Source,
        Class::Json,
        Class::Log,
        Class::Exec,
        Class::Binary,
        Class::Incompressible,
        Class::Nucleotides,
        Class::Container,
        Class::Jpeg,
        Class::Sound,
        Class::Picture,
        Class::Video,
    ];

    /// Reads a number from disk; an unknown number is `Unknown`, since decoding never depends on the class.
    pub fn from_u8(value: u8) -> Class {
        Class::ALL.into_iter().find(|c| *c as u8 == value).unwrap_or(Class::Unknown)
    }

    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Class::Unknown => "unknown",
            Class::Text => "text",
            Class::Markup => "markup",
            Class::Source => "source",
            Class::Json => "json",
            Class::Log => "log",
            Class::Exec => "exec",
            Class::Binary => "binary",
            Class::Incompressible => "incompressible",
            Class::Nucleotides => "nucleotides",
            Class::Container => "container",
            Class::Jpeg => "jpeg",
            Class::Sound => "sound",
            Class::Picture => "picture",
            Class::Video => "video",
        }
    }
}
