//! Priors: what a predictor knows before the first byte of a segment.
//!
//! A prior is a text. The tables of a predictor that has read it, megabytes, are built when they are first needed. Most of it
//! is only skimmed, which teaches what follows which contexts; its end is read in full, which teaches what such knowledge is
//! worth. So two megabytes take some tenths of a second, and the program holds some hundred kilobytes for each prior.
//!
//! A prior's number is on disk, in each payload; so its bytes, and the predictor's, are part of the format. The files
//! are rebuilt by `tersefs train --builtin` from recipes beside them, which name their sources.
//!
//! ```text
//! kind of contexts  u8
//! length of text    u32, little-endian, bytes; at most PACKED_BYTES_MAX
//! read in full      u32, bytes at the end of the text as it is coded; at most TEXT_BYTES_MAX
//! text              by zstd, to the end; of machine code in the form that is coded
//! ```
//!
//! Where the contexts are those of words, the text says which words have numbers (`words`), and is read as they code it.
//!
//! Those of revision 1 are coded by the swift profile of the predictor, starting from nothing. Decoding them is training on
//! them; the other profiles read the text then, in full.
//!
//! ```text
//! kind of contexts  u8
//! length of text    u32, little-endian, bytes; at most TEXT_BYTES_MAX
//! code              to the end
//! ```

use std::sync::{Arc, Mutex, OnceLock};

use super::contexts::Kind;
use super::layout::Form;
use super::predictor::Tables;
use super::profile::{Held, Profile, Snapshots, Swift};
use super::words::Words;
use super::{decode_with, encode_with, learn_with, read_with};
use crate::base::{Class, MethodId, ModelId};
use crate::models::{Basis, keep, model};

/// Longest text of a prior that is remembered, bytes: of a volume's prior, and of the program's the end.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Longest text of a prior of the program, bytes.
pub const PACKED_BYTES_MAX: usize = 2 << 20;

/// Priors that revision 1 of the methods had; a payload of it names none of the later ones.
pub(super) const OF_REVISION_1: u8 = 12;

/// One prior of this build.
struct Prior {
    name: &'static str,
    file: File,
}

/// The bytes of a prior's file.
#[derive(Clone, Copy)]
enum File {
    /// A text coded by the swift profile.
    Coded(&'static [u8]),
    /// A text packed by zstd.
    Packed(&'static [u8]),
}

/// Every prior by its number, which is on disk: never reused, never renumbered. Number 0 knows nothing.
static PRIORS: [Prior; 25] = [
    Prior { name: "none", file: File::Coded(&[Kind::Binary as u8, 0, 0, 0, 0]) },
    Prior { name: "prose", file: File::Coded(include_bytes!("priors/prose.prior")) },
    Prior { name: "manual", file: File::Coded(include_bytes!("priors/manual.prior")) },
    Prior { name: "python", file: File::Coded(include_bytes!("priors/python.prior")) },
    Prior { name: "rust", file: File::Coded(include_bytes!("priors/rust.prior")) },
    Prior { name: "markup", file: File::Coded(include_bytes!("priors/markup.prior")) },
    Prior { name: "json", file: File::Coded(include_bytes!("priors/json.prior")) },
    Prior { name: "log", file: File::Coded(include_bytes!("priors/log.prior")) },
    Prior { name: "exec", file: File::Coded(include_bytes!("priors/exec.prior")) },
    Prior { name: "c", file: File::Coded(include_bytes!("priors/c.prior")) },
    Prior { name: "web", file: File::Coded(include_bytes!("priors/web.prior")) },
    Prior { name: "table", file: File::Coded(include_bytes!("priors/table.prior")) },
    Prior { name: "prose2", file: File::Packed(include_bytes!("priors/prose2.prior")) },
    Prior { name: "manual2", file: File::Packed(include_bytes!("priors/manual2.prior")) },
    Prior { name: "python2", file: File::Packed(include_bytes!("priors/python2.prior")) },
    Prior { name: "rust2", file: File::Packed(include_bytes!("priors/rust2.prior")) },
    Prior { name: "markup2", file: File::Packed(include_bytes!("priors/markup2.prior")) },
    Prior { name: "json2", file: File::Packed(include_bytes!("priors/json2.prior")) },
    Prior { name: "log2", file: File::Packed(include_bytes!("priors/log2.prior")) },
    Prior { name: "exec2", file: File::Packed(include_bytes!("priors/exec2.prior")) },
    Prior { name: "c2", file: File::Packed(include_bytes!("priors/c2.prior")) },
    Prior { name: "web2", file: File::Packed(include_bytes!("priors/web2.prior")) },
    Prior { name: "table2", file: File::Packed(include_bytes!("priors/table2.prior")) },
    Prior { name: "articles", file: File::Packed(include_bytes!("priors/articles.prior")) },
    Prior { name: "go", file: File::Packed(include_bytes!("priors/go.prior")) },
];

/// Words of the languages whose priors there are.
const LANGUAGES: [(u8, [&[u8]; 5]); 5] = [
    (14, [b"def ", b"self.", b"import ", b"None", b"elif "]),
    (15, [b"fn ", b"let ", b"impl ", b"pub ", b"::"]),
    (20, [b"#include", b"#define", b"->", b"int ", b"struct "]),
    (21, [b"function", b"const ", b"var ", b"=> ", b"this."]),
    (24, [b"func ", b":= ", b"package ", b"nil", b"err "]),
];
/// Bytes that are searched for them.
const LANGUAGE_BYTES: usize = 16384;

/// Of a text with a letter of another alphabet among so many bytes, priors without words as numbers are tried too: each such
/// letter takes a byte more beside them.
const FOREIGN: usize = 32;

/// Priors that a new segment of a class may start from; the first is taken for segments that are too small to try them.
pub(super) fn candidates(class: Class, raw: &[u8]) -> Vec<u8> {
    let sample = raw.get(..LANGUAGE_BYTES).unwrap_or(raw);
    let foreign = || sample.iter().filter(|byte| **byte >= 0x80).count() > sample.len() / FOREIGN;
    match class {
        Class::Unknown | Class::Text if foreign() => vec![1, 12, 23],
        Class::Markup if foreign() => vec![5, 16],
        Class::Json if foreign() => vec![6, 17],
        Class::Unknown | Class::Text => vec![12, 13, 23],
        Class::Source => {
            let count = |words: &[&[u8]]| -> usize {
                words.iter().map(|word| sample.windows(word.len()).filter(|w| w == word).count()).sum()
            };
            let mut languages: Vec<(usize, u8)> = LANGUAGES.iter().map(|(prior, w)| (count(w), *prior)).collect();
            languages.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
            // The two that are likely, and what describes programs rather than being one.
            languages.into_iter().take(2).map(|(_, prior)| prior).chain([13]).collect()
        }
        Class::Markup => vec![16],
        Class::Json => vec![17],
        Class::Log => vec![18, 22],
        Class::Exec => vec![19],
        Class::Binary
        | Class::Incompressible
        | Class::Container
        | Class::Jpeg
        | Class::Sound
        | Class::Picture
        | Class::Video => {
            vec![0, 19]
        }
        // Texts teach nothing about nucleotides.
        Class::Nucleotides => vec![0, 18],
    }
}

static SNAPSHOTS: [Snapshots; PRIORS.len()] = [const { Snapshots::new() }; PRIORS.len()];

/// Priors that the strong profile keeps tables for at a time: each takes forty megabytes, and a second or two to make.
const STRONG_MAX: usize = 4;
/// Those, the one used last at the end.
static STRONG_USED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The predictor that has read a prior; `None` when there is no such prior. The first call for each takes half a second or
/// two thirds, and for those of revision 1 the time to decode the text and, for the profiles but the swift one, to read it: a
/// second or two.
pub(super) fn snapshot<M: Held>(number: u8) -> Option<Arc<M>> {
    let prior = PRIORS.get(usize::from(number))?;
    let snapshots = SNAPSHOTS.get(usize::from(number))?;
    let snapshot = match prior.file {
        File::Coded(file) => {
            let swift = snapshots.get(|| Some(decode(file).unwrap_or_else(|| Swift::new(Kind::Binary))))?;
            snapshots.get(|| {
                let mut predictor = M::new(swift.kind());
                read_with(&mut *predictor, swift.history());
                Some(predictor)
            })
        }
        File::Packed(file) => {
            let words = words(number);
            snapshots.get(|| Some(learn(file, words.as_deref()).unwrap_or_else(|| M::new(Kind::Binary))))
        }
    };
    if M::PROFILE == Profile::Strong {
        let mut used = STRONG_USED.lock().unwrap_or_else(|e| e.into_inner());
        used.retain(|n| *n != number);
        used.push(number);
        if used.len() > STRONG_MAX
            && let Some(unused) = SNAPSHOTS.get(usize::from(used.remove(0)))
        {
            unused.forget::<M>();
        }
    }
    snapshot
}

static WORDS: [OnceLock<Option<Arc<Words>>>; PRIORS.len()] = [const { OnceLock::new() }; PRIORS.len()];

/// The words that have numbers after a prior; `None` where none have. The first call takes some hundredths of a second.
pub(super) fn words(number: u8) -> Option<Arc<Words>> {
    let words = WORDS.get(usize::from(number))?;
    let find = || match PRIORS.get(usize::from(number))?.file {
        File::Coded(_) => None,
        File::Packed(file) => words_of(file),
    };
    words.get_or_init(find).clone()
}

/// The words of a packed text.
fn words_of(file: &[u8]) -> Option<Arc<Words>> {
    let (kind, _) = file.split_first()?;
    if !Kind::from_u8(*kind)?.has_words() {
        return None;
    }
    let words = Words::of(&unpack(file)?.text);
    keep(words.memory_bytes());
    Some(Arc::new(words))
}

/// A file that is packed.
struct Unpacked {
    kind: Kind,
    text: Vec<u8>,
    full: usize,
}

/// Unpacks a text; `None` when it is not a prior.
fn unpack(file: &[u8]) -> Option<Unpacked> {
    let (kind, rest) = file.split_first()?;
    let kind = Kind::from_u8(*kind)?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (full, packed) = rest.split_first_chunk::<4>()?;
    let [len, full] = [len, full].map(|n| u32::from_le_bytes(*n) as usize);
    if len > PACKED_BYTES_MAX || full > TEXT_BYTES_MAX {
        return None;
    }
    let zstd = model(MethodId::Zstd);
    let text = zstd.decode(packed, len, zstd.revision(), ModelId::NONE, Basis::default()).ok()?;
    Some(Unpacked { kind, text, full })
}

/// The predictor that has read a packed text; `None` when it is not a prior.
fn learn<M: Held>(file: &[u8], words: Option<&Words>) -> Option<Box<M>> {
    let Unpacked { kind, text, full } = unpack(file)?;
    let text = words.map(|words| words.forward(&text)).unwrap_or(text);
    let mut predictor = M::new(kind);
    learn_with(&mut *predictor, &text, full);
    Some(predictor)
}

/// Decodes the text of a prior of revision 1; `None` when it is not one.
fn decode(file: &[u8]) -> Option<Box<Swift>> {
    let (kind, rest) = file.split_first()?;
    let kind = Kind::from_u8(*kind)?;
    let (len, code) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > TEXT_BYTES_MAX {
        return None;
    }
    let mut predictor = Swift::new(kind);
    decode_with(&mut *predictor, code, len);
    Some(predictor)
}

/// Makes a prior of a text: the bytes of its file. `full` bytes of its end are read in full; where that is not said the
/// file is that of a prior of revision 1.
///
/// # Errors
/// Says so when the text is too long, or does not shrink.
pub fn train(kind: Kind, text: &[u8], full: Option<usize>) -> Result<Vec<u8>, String> {
    let longest = if full.is_some() { PACKED_BYTES_MAX } else { TEXT_BYTES_MAX };
    if text.len() > longest {
        return Err(format!("a prior has at most {longest} bytes of text, not {}", text.len()));
    }
    let mut file = vec![kind as u8];
    file.extend_from_slice(&(text.len() as u32).to_le_bytes());
    let text = if kind == Kind::Code { Form::Code.forward(text) } else { text.to_vec() };
    let code = match full {
        Some(full) => {
            file.extend_from_slice(&(full.min(TEXT_BYTES_MAX) as u32).to_le_bytes());
            let coded = model(MethodId::Zstd).encode(&text, Class::Unknown, Basis::default());
            coded.map_err(|_| "a text that does not shrink teaches nothing")?.payload
        }
        None => encode_with(&mut *Swift::new(kind), &text, usize::MAX).unwrap_or_default(),
    };
    file.extend_from_slice(&code);
    Ok(file)
}

/// Name of a prior, for reports.
pub fn prior_name(number: u8) -> Option<&'static str> {
    PRIORS.get(usize::from(number)).map(|p| p.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::plain_hash;

    fn bytes(prior: &Prior) -> &'static [u8] {
        match prior.file {
            File::Coded(file) | File::Packed(file) => file,
        }
    }

    /// A prior that changes makes every segment that names it unreadable: add a new one instead.
    #[test]
    fn priors_are_pinned() {
        let hashes: Vec<(&str, String)> = PRIORS
            .iter()
            .map(|p| (p.name, plain_hash(bytes(p)).iter().take(8).map(|b| format!("{b:02x}")).collect()))
            .collect();
        let hashes: Vec<(&str, &str)> = hashes.iter().map(|(n, h)| (*n, h.as_str())).collect();
        assert_eq!(hashes, PINNED);
        let all: usize = PRIORS.iter().map(|p| bytes(p).len()).sum();
        assert!(all < 8 << 20, "{all}");
    }

    const PINNED: [(&str, &str); 25] = [
        ("none", "8f207d1aed1814b8"),
        ("prose", "6f02848f0360bdac"),
        ("manual", "9f3b52f45f905461"),
        ("python", "66c7e531e5917330"),
        ("rust", "5257de03a490f42a"),
        ("markup", "95eacffec7ea0d5b"),
        ("json", "a0478f816bbcfadc"),
        ("log", "197b20a902aba779"),
        ("exec", "0f07360930b317f2"),
        ("c", "d20dd152d0f3a60e"),
        ("web", "1c27fc7701d212dc"),
        ("table", "338fdcf3a2954d8b"),
        ("prose2", "b833f7d39d775374"),
        ("manual2", "4435074c1162eae5"),
        ("python2", "d87ab56afce0d498"),
        ("rust2", "d31f6ca82f39a8a6"),
        ("markup2", "12101101188da387"),
        ("json2", "6fcc8c2a2f39a4c8"),
        ("log2", "a5dea970dbae0c38"),
        ("exec2", "df5315b009f6dad0"),
        ("c2", "582c7edef8d7ec3d"),
        ("web2", "0c60736011c3a8c9"),
        ("table2", "0f43189186b88dc1"),
        ("articles", "dd9692c80ec1d000"),
        ("go", "b22379c6f4995d98"),
    ];

    #[test]
    fn a_prior_is_read_as_it_was_trained() {
        let text = b"the same text is read again, and the same text is known".repeat(20);
        let code = |p: &mut Swift| {
            p.begin(Kind::Text);
            encode_with(p, b"and the same text is coded by both", usize::MAX).unwrap()
        };
        let file = train(Kind::Text, &text, None).unwrap();
        assert!(file.len() < text.len() / 8);
        let (mut trained, mut reread) = (Swift::new(Kind::Text), decode(&file).unwrap());
        encode_with(&mut *trained, &text, usize::MAX).unwrap();
        assert_eq!(code(&mut trained), code(&mut reread));
        for full in [0, 100, text.len(), text.len() + 1] {
            let file = train(Kind::Text, &text, Some(full)).unwrap();
            assert!(file.len() < text.len() / 8);
            let (mut trained, mut reread) = (Swift::new(Kind::Text), learn::<Swift>(&file, None).unwrap());
            learn_with(&mut *trained, &text, full);
            assert_eq!(reread.history(), text);
            assert_eq!(code(&mut trained), code(&mut reread));
        }
        assert!(train(Kind::Text, &vec![0; TEXT_BYTES_MAX + 1], None).is_err());
        assert!(train(Kind::Text, &vec![0; PACKED_BYTES_MAX + 1], Some(9)).is_err());
        assert!(train(Kind::Text, b"short", Some(9)).is_err());
    }

    /// What was skimmed is known nearly as well as what was read.
    #[test]
    fn a_text_may_be_skimmed() {
        let text = include_bytes!("../../../tests/data/eng");
        let (text, raw) = text.split_at(text.len() - 8000);
        let size = |full: Option<usize>| {
            let mut predictor = Swift::new(Kind::Text);
            if let Some(full) = full {
                learn_with(&mut *predictor, text, full);
            }
            predictor.begin(Kind::Text);
            encode_with(&mut *predictor, raw, usize::MAX).unwrap().len()
        };
        let (nothing, skimmed, read) = (size(None), size(Some(20_000)), size(Some(text.len())));
        assert!(skimmed * 100 < read * 102 && read * 100 < nothing * 85, "{nothing} {skimmed} {read}");
    }

    /// Of a long text the end is remembered.
    #[test]
    fn histories_are_bounded() {
        let text: Vec<u8> = (0..TEXT_BYTES_MAX as u32 / 4 + 1000).flat_map(u32::to_le_bytes).collect();
        for full in [0, 3000] {
            let mut predictor = Swift::new(Kind::Binary);
            learn_with(&mut *predictor, &text, full);
            assert!(predictor.history() == &text[4000..]);
        }
    }

    #[test]
    fn what_is_not_a_prior_is_refused() {
        assert!(decode(&[]).is_none() && decode(&[0, 1, 0]).is_none() && decode(&[9, 0, 0, 0, 0, 1]).is_none());
        assert!(decode(&[0, 0xff, 0xff, 0xff, 0xff]).is_none());
        let file = train(Kind::Text, &b"some text ".repeat(9), Some(20)).unwrap();
        assert!(learn::<Swift>(&file, None).is_some());
        for len in 0..file.len() {
            assert!(learn::<Swift>(&file[..len], None).is_none(), "{len}");
        }
        for (at, byte) in [(0, 9), (1, 91), (4, 1), (8, 1)] {
            let mut bad = file.clone();
            bad[at] = byte;
            assert!(learn::<Swift>(&bad, None).is_none(), "{at}");
        }
        assert!(snapshot::<Swift>(PRIORS.len() as u8).is_none());
    }
}
