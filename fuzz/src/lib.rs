//! What is fuzzed: any bytes open to what closes to them, or not at all, and any recipe closes to bytes of the length that is asked
//! for, or to an error. So with what is coded as sound, pictures and video, and payloads of these. Nothing panics, and what comes out is
//! bounded.

use tersefs::base::{Class, MethodId, ModelId};
use tersefs::containers::{self, CutLimits, Kind, Limits, Stream};
use tersefs::models::{self, Basis};

const LIMITS: Limits = Limits { text_bytes: 256 << 10 };

/// Containers and media, and what bytes have to begin with to be taken for them.
pub const TARGETS: [(&str, &[&[u8]]); 13] = [
    ("deflate", &[b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x78\x9c", b"PK\x03\x04\x14\0\0\0\x08\0"]),
    ("png", &[b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"]),
    ("jpeg", &[b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01", b"\xff\xd8\xff\xdb"]),
    ("flac", &[b"\xff\xf8\xc9\x18", b"\xff\xf8\x69\x08"]),
    ("bzip2", &[b"BZh9\x31\x41\x59\x26\x53\x59", b"\x31\x41\x59\x26\x53\x59"]),
    ("xz", &[b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46\x02\0\x21\x01\x16\0\0\0\x74\x2f\xe5\xa3"]),
    ("zstd", &[b"\x28\xb5\x2f\xfd"]),
    ("members", &[b"070701", b"!<arch>\n", b""]),
    ("base64", &[b"data:image/png;base64,", b""]),
    ("nested", &[b""]),
    ("recipe", &[b""]),
    ("media", &[b"RIFF", b"FORM", b".snd", b"P5 ", b"P6 ", b"YUV4MPEG2 ", b""]),
    ("payload", &[b""]),
];

/// Methods of media, with a class that each is for.
const MEDIA: [(MethodId, Class); 3] =
    [(MethodId::Sound, Class::Sound), (MethodId::Picture, Class::Picture), (MethodId::Video, Class::Video)];

/// Runs a target on some bytes.
///
/// # Panics
/// When what it holds true is not, or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    let (_, fronts) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of the table");
    match target {
        "recipe" => return closed(data),
        "media" => return coded(data),
        "payload" => return decoded(data),
        _ => {}
    }
    // As it is too, as it may begin with its own.
    opened(data);
    // A byte of it says which.
    if let Some((which, rest)) = data.split_first() {
        opened(&[fronts[usize::from(*which) % fronts.len()], rest].concat());
    }
}

/// Cuts some bytes, opens each part, and closes it.
fn opened(bytes: &[u8]) {
    let limits = CutLimits { min: 1_000, text_bytes: 64 << 10 };
    let (mut at, mut before) = (0, None);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let looked_at = rest.len().min(128 << 10);
        let cut = containers::cut(&rest[..looked_at], before.as_ref(), limits, looked_at == rest.len());
        assert!(cut.len > 0 && cut.len <= looked_at);
        let part = &rest[..cut.len];
        if let Ok(opened) = containers::open(part, before.as_ref(), LIMITS) {
            let text: usize = opened.streams.iter().map(|stream| stream.bytes.len()).sum();
            assert!(text <= 2 * (LIMITS.text_bytes + part.len()), "{text} bytes of {}", part.len());
            let again = containers::close(&opened.recipe, &opened.streams, part.len(), LIMITS.text_bytes);
            assert!(again.as_deref() == Ok(part), "{:?}", again.err());
        }
        (at, before) = (at + cut.len, cut.before);
    }
}

/// Closes what no opening made: three bytes say how long it is to be and where the recipe ends; each stream is led by its kind and
/// its length.
fn closed(data: &[u8]) {
    let [a, b, recipe, rest @ ..] = data else { return };
    let len = usize::from(u16::from_le_bytes([*a, *b]));
    let (recipe, mut rest) = rest.split_at(rest.len().min(usize::from(*recipe)));
    let mut streams = Vec::new();
    while let [kind, low, high, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(behind.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
        let kind = match (streams.len(), kind % 8) {
            (0, _) => Kind::Frame,
            (1, _) => Kind::Packed,
            (2, _) => Kind::Corrections,
            (_, 0) => Kind::Pixels { row: u32::from(kind / 8) + 1, pixel: 1 + kind / 64 },
            (_, 1) => Kind::Lepton,
            (_, 2) => Kind::Samples { channels: 1 + kind / 8 % 2, width: 1 + kind / 16 % 3 },
            _ => Kind::Text,
        };
        streams.push(Stream { kind, bytes: bytes.to_vec() });
        rest = behind;
    }
    if let Ok(bytes) = containers::close(recipe, &streams, len, LIMITS.text_bytes) {
        assert_eq!(bytes.len(), len);
    }
}

/// Bytes for the target `recipe` of what opening made, so that there is something to change.
pub fn recipe_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let opened = containers::open(bytes, None, LIMITS).ok()?;
    let mut out = u16::try_from(bytes.len()).ok()?.to_le_bytes().to_vec();
    out.push(u8::try_from(opened.recipe.len()).ok()?);
    out.extend_from_slice(&opened.recipe);
    for stream in &opened.streams {
        let kind = match stream.kind {
            Kind::Pixels { row, pixel } => (u8::try_from(row - 1).ok()? % 32 * 8) | (pixel - 1) / 4 * 64,
            Kind::Lepton => 1,
            Kind::Samples { channels, width } => 2 | (channels - 1) % 2 * 8 | (width - 1) * 16,
            Kind::Frame | Kind::Packed | Kind::Corrections | Kind::Text => 3,
        };
        out.push(kind);
        out.extend_from_slice(&u16::try_from(stream.bytes.len()).ok()?.to_le_bytes());
        out.extend_from_slice(&stream.bytes);
    }
    Some(out)
}

/// Codes some bytes by each method of media that takes them, and decodes them.
fn coded(data: &[u8]) {
    for (method, class) in MEDIA {
        let model = models::model(method);
        let Ok(coded) = model.encode(data, class, Basis::default()) else { continue };
        assert!(coded.payload.len() < data.len());
        let back = model.decode(&coded.payload, data.len(), model.revision(), ModelId::NONE, Basis::default());
        assert!(back.as_deref() == Ok(data), "{}: {:?}", method.name(), back.err());
    }
}

/// Decodes what no method wrote: a byte says by which and which revision, two how long it is to be.
fn decoded(data: &[u8]) {
    let [which, low, high, payload @ ..] = data else { return };
    let (method, _) = MEDIA[usize::from(which % 4) % MEDIA.len()];
    let len = usize::from(u16::from_le_bytes([*low, *high]));
    let plain = models::model(method).decode(payload, len, u16::from(which / 4 % 4), ModelId::NONE, Basis::default());
    assert!(plain.is_err() || plain.is_ok_and(|plain| plain.len() == len));
}

/// Bytes for the target `payload` of what coding made.
pub fn payload_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(bytes.len()).ok()?.to_le_bytes();
    MEDIA.iter().enumerate().find_map(|(which, (method, class))| {
        let model = models::model(*method);
        let payload = model.encode(bytes, *class, Basis::default()).ok()?.payload;
        Some([&[which as u8 + 4 * model.revision() as u8][..], &len, &payload].concat())
    })
}
