//! Priors: what a predictor knows before the first byte of a segment.
//!
//! A prior is a text, coded by the swift profile of the predictor itself, starting from nothing. Decoding it is training on
//! it: when the text has come out, tables, weights and match history are those of a predictor that has read it. The other
//! profiles read the text then. So the program holds a tenth of a megabyte for each prior, and builds the tables, megabytes,
//! when they are first needed.
//!
//! A prior's number is on disk, in each payload; so its bytes, and the predictor's, are part of the format. The files
//! are rebuilt by `tersefs train --builtin` from `recipe.txt` beside them, which names their sources.
//!
//! ```text
//! kind of contexts  u8
//! length of text    u32, little-endian, bytes; at most TEXT_BYTES_MAX
//! code              to the end
//! ```

use std::sync::{Arc, Mutex};

use super::contexts::Kind;
use super::layout::Form;
use super::predictor::Tables;
use super::profile::{Held, Profile, Snapshots, Swift};
use super::{decode_with, encode_with, read_with};
use crate::base::Class;

/// Longest text of a prior, bytes: what is decoded before the first segment can be.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Priors that revision 1 of the methods had; a payload of it names none of the later ones.
pub(super) const OF_REVISION_1: u8 = 12;

/// One prior of this build.
struct Prior {
    name: &'static str,
    file: &'static [u8],
}

/// Every prior by its number, which is on disk: never reused, never renumbered. Number 0 knows nothing.
static PRIORS: [Prior; 12] = [
    Prior { name: "none", file: &[Kind::Binary as u8, 0, 0, 0, 0] },
    Prior { name: "prose", file: include_bytes!("priors/prose.prior") },
    Prior { name: "manual", file: include_bytes!("priors/manual.prior") },
    Prior { name: "python", file: include_bytes!("priors/python.prior") },
    Prior { name: "rust", file: include_bytes!("priors/rust.prior") },
    Prior { name: "markup", file: include_bytes!("priors/markup.prior") },
    Prior { name: "json", file: include_bytes!("priors/json.prior") },
    Prior { name: "log", file: include_bytes!("priors/log.prior") },
    Prior { name: "exec", file: include_bytes!("priors/exec.prior") },
    Prior { name: "c", file: include_bytes!("priors/c.prior") },
    Prior { name: "web", file: include_bytes!("priors/web.prior") },
    Prior { name: "table", file: include_bytes!("priors/table.prior") },
];

/// Words of the languages whose priors there are.
const LANGUAGES: [(u8, [&[u8]; 5]); 4] = [
    (3, [b"def ", b"self.", b"import ", b"None", b"elif "]),
    (4, [b"fn ", b"let ", b"impl ", b"pub ", b"::"]),
    (9, [b"#include", b"#define", b"->", b"int ", b"struct "]),
    (10, [b"function", b"const ", b"var ", b"=> ", b"this."]),
];
/// Bytes that are searched for them.
const LANGUAGE_BYTES: usize = 16384;

/// Priors that a segment of a class may start from; the first is taken for segments that are too small to try them.
pub(super) fn candidates(class: Class, raw: &[u8]) -> Vec<u8> {
    match class {
        Class::Unknown | Class::Text => vec![1, 2],
        Class::Source => {
            let sample = raw.get(..LANGUAGE_BYTES).unwrap_or(raw);
            let count = |words: &[&[u8]]| -> usize {
                words.iter().map(|word| sample.windows(word.len()).filter(|w| w == word).count()).sum()
            };
            let mut languages: Vec<(usize, u8)> = LANGUAGES.iter().map(|(prior, w)| (count(w), *prior)).collect();
            languages.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
            // The two that are likely, and what describes programs rather than being one.
            languages.into_iter().take(2).map(|(_, prior)| prior).chain([2]).collect()
        }
        Class::Markup => vec![5],
        Class::Json => vec![6],
        Class::Log => vec![7, 11],
        Class::Exec => vec![8],
        Class::Binary | Class::Incompressible => vec![0, 8],
    }
}

static SNAPSHOTS: [Snapshots; PRIORS.len()] = [const { Snapshots::new() }; PRIORS.len()];

/// Priors that the strong profile keeps tables for at a time: each takes forty megabytes, and two seconds to make.
const STRONG_MAX: usize = 4;
/// Those, the one used last at the end.
static STRONG_USED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The predictor that has read a prior; `None` when there is no such prior. The first call for each takes the time to
/// decode its text, and for the profiles but the swift one to read it: a second or two.
pub(super) fn snapshot<M: Held>(number: u8) -> Option<Arc<M>> {
    let prior = PRIORS.get(usize::from(number))?;
    let snapshots = SNAPSHOTS.get(usize::from(number))?;
    let swift = snapshots.get(|| Some(read(prior.file).unwrap_or_else(|| Swift::new(Kind::Binary))))?;
    let snapshot = snapshots.get(|| {
        let mut predictor = M::new(swift.kind());
        read_with(&mut *predictor, swift.history());
        Some(predictor)
    });
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

/// Decodes the text of a prior; `None` when it is not a prior.
fn read(file: &[u8]) -> Option<Box<Swift>> {
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

/// Codes a text as a prior: the bytes of its file.
///
/// # Errors
/// Says so when the text is longer than `TEXT_BYTES_MAX`.
pub fn train(kind: Kind, text: &[u8]) -> Result<Vec<u8>, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("a prior has at most {TEXT_BYTES_MAX} bytes of text, not {}", text.len()));
    }
    let mut file = vec![kind as u8];
    file.extend_from_slice(&(text.len() as u32).to_le_bytes());
    let text = if kind == Kind::Code { Form::Code.forward(text) } else { text.to_vec() };
    let code = encode_with(&mut *Swift::new(kind), &text, usize::MAX).unwrap_or_default();
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

    /// A prior that changes makes every segment that names it unreadable: add a new one instead.
    #[test]
    fn priors_are_pinned() {
        let hashes: Vec<(&str, String)> = PRIORS
            .iter()
            .map(|p| (p.name, plain_hash(p.file).iter().take(8).map(|b| format!("{b:02x}")).collect()))
            .collect();
        let hashes: Vec<(&str, &str)> = hashes.iter().map(|(n, h)| (*n, h.as_str())).collect();
        assert_eq!(hashes, PINNED);
        let bytes: usize = PRIORS.iter().map(|p| p.file.len()).sum();
        assert!(bytes < 8 << 20, "{bytes}");
    }

    const PINNED: [(&str, &str); 12] = [
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
    ];

    #[test]
    fn a_prior_is_read_as_it_was_trained() {
        let text = b"the same text is read again, and the same text is known".repeat(20);
        let file = train(Kind::Text, &text).unwrap();
        assert!(file.len() < text.len() / 8);
        let (mut trained, mut reread) = (Swift::new(Kind::Text), read(&file).unwrap());
        encode_with(&mut *trained, &text, usize::MAX).unwrap();
        let code = |p: &mut Swift| {
            p.begin(Kind::Text);
            encode_with(p, b"and the same text is coded by both", usize::MAX).unwrap()
        };
        assert_eq!(code(&mut trained), code(&mut reread));
        assert!(train(Kind::Text, &vec![0; TEXT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn what_is_not_a_prior_is_refused() {
        assert!(read(&[]).is_none() && read(&[0, 1, 0]).is_none() && read(&[9, 0, 0, 0, 0, 1]).is_none());
        assert!(read(&[0, 0xff, 0xff, 0xff, 0xff]).is_none());
        assert!(snapshot::<Swift>(PRIORS.len() as u8).is_none());
    }
}
