//! Exact opening and closing of compressed formats: what was deflated or coded as JPEG is taken apart into streams that models
//! can predict, and put together again bit for bit.
//!
//! Streams are looked for in any bytes, by what they begin with (`scan`): gzip and zlib, members of zip archives, pictures in
//! PNG and JPEG, frames of FLAC, blocks of bzip2 (`bz2`) and xz (`xz`), frames of zstd (`zst`), wherever they lie. What is deflated is opened by `deflate`, down to `DEPTH_MAX` layers;
//! JPEG by `jpeg`, FLAC by `flac`; the chunks of PNG are `png`'s. All the rest are bytes between them. Members of tar, cpio and ar
//! are told apart by `plain`, and bytes that were written as letters are `base64`'s: what is in them is looked through in turn.
//!
//! Must not know: models, segments, files. A recipe names what closing needs beside the streams (`layout`).
//!
//! # Invariants
//! 1. `close` gives the bytes that were opened, or an error. It is given anything: it never panics, and its work and memory
//!    are bounded by `Limits`. What the libraries below panic about is an error here (`guard`).
//! 2. Closing depends on the exact versions of those libraries and of what they keep things by (bitcode, `corrections/`): they
//!    are pinned, and `REVISION` names them. It is raised when one of them changes what it makes of a recipe, or when a bound that
//!    holds for closing is lowered.
//!
//! # Limits
//! Bytes of text that may come out of all streams together, and the work of looking for them, are bounded: what expands to
//! more stays as it is.

mod base64;
mod bz2;
mod cut;
mod deflate;
mod flac;
mod guard;
mod jpeg;
mod layout;
mod plain;
mod png;
mod scan;
mod xz;
mod zst;

use std::fmt;

use crate::base::Class;

pub use base64::holds as holds_base64;
pub use cut::{Cut, CutLimits, before_behind, cut};
pub use deflate::{Before as StreamBefore, End, Walk, walk};
pub use jpeg::Before as PictureBefore;
pub use layout::{close, close_slice, text_bytes};
pub use plain::begins_plain;
pub use png::Before as PixelsBefore;
pub use scan::open;

/// Names what wrote a recipe: preflate-rs 0.7.6, whose corrections the crate in `corrections/` codes, lepton_jpeg 0.5.8,
/// zlib-rs 0.6.8, bzip2 0.6.1, libzstd 1.5.7 and XZ Utils 5.8.4. Revisions 2 and 3 know more steps;
/// in payloads of revision 4 pixels may be coded as such, and corrections of photographs have more bits.
pub const REVISION: u8 = 4;

/// Layers of containers in containers that are opened.
pub const DEPTH_MAX: u8 = 4;

/// What bytes go on with that began before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    Stream(StreamBefore),
    Picture(PictureBefore),
    Pixels(PixelsBefore),
    Member(MemberBefore),
}

/// What is left of the data of a member that is cut as a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MemberBefore {
    pub bytes: u64,
    /// What it looks like, once its first bytes were looked at.
    pub class: Option<Class>,
    /// What its next bytes go on with.
    pub before: Option<Box<Before>>,
}

/// What opening may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all streams together that are no more than bytes of what was opened.
    pub text_bytes: usize,
}

/// Why nothing was opened. Numbers are counted and never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Declined {
    /// No stream was found that opens.
    NothingFound = 1,
    /// Its form is not known, or damaged, or no stream that its library knows.
    Foreign = 2,
    /// It would expand to more than the limit.
    TooLarge = 3,
    /// Closing did not give the same bytes.
    Differs = 4,
    /// A library panicked.
    Failed = 5,
    /// A picture of more components than lepton codes, which printers use.
    FourColours = 60,
    /// A library was given no memory.
    OutOfMemory = 61,
}

/// A recipe or a stream that does not close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(pub &'static str);

/// Nothing is wrong with what was to be closed.
pub const OUT_OF_MEMORY: Error = Error("there is not enough memory to close a container again");

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Error {}

/// What a stream holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Kind {
    /// Bytes between streams: headers, names, checksums.
    Frame,
    /// Bytes that did not open and that no model shrinks.
    Packed,
    /// What re-creating deflate streams needs beside their text.
    Corrections,
    /// What was deflated.
    Text,
    /// Rows of pixels. The filters that they had are in the frame.
    Pixels {
        /// Bytes of a row, and one for its filter.
        row: u32,
        /// Bytes from a pixel to the next, at least one.
        pixel: u8,
    },
    /// A picture as lepton codes it.
    Lepton,
    /// Samples of sound, the lowest byte first, with signs.
    Samples {
        /// Samples of one time, 1 to 8.
        channels: u8,
        /// Bytes of a sample, 1 to 3.
        width: u8,
    },
}

/// A stream of an opened container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

/// A container taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// What `close` needs beside the streams, in their order.
    pub recipe: Vec<u8>,
    /// The first three are those of `Frame`, `Packed` and `Corrections`.
    pub streams: Vec<Stream>,
    /// Bytes that were taken out of their containers.
    pub opened_bytes: usize,
}
