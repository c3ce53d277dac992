//! Priors of a volume: what its own files taught.
//!
//! A volume's prior is a text too, samples of files of one class, but coded by the usual profile of the predictor, after it
//! has read a prior of the program: so it knows both. The other profiles learn from both texts. Its file is immutable and
//! named by its hash, and segments name it.
//!
//! ```text
//! offset  width  field
//!      0      8  magic "TERSEPRI"
//!      8      1  version, 2; of version 1, the other profiles read all of the text in full
//!      9      1  class of the data
//!     10      1  number of the program's prior that it goes on from; with version 1 one of revision 1
//!     11      1  (zero)
//!     12      4  serial: among priors of one class the latest has the highest
//!     16      4  length of text as it is coded, bytes; at most TEXT_BYTES_MAX
//!     20    256  what the text is like (`likeness`): which of many priors a segment starts from
//!    276         code, to the end
//! ```
//! Numbers are little-endian.

use std::sync::{Arc, Mutex, RwLock};

use super::likeness::Likeness;
use super::predictor::Tables;
use super::priors::{self, TEXT_BYTES_MAX};
use super::profile::{Held, Profile, Snapshots, Usual};
use super::words::Words;
use super::{decode_with, encode_with, learn_with, read_with};
use crate::base::{Class, ModelId, plain_hash};
use crate::models::Error;

const MAGIC: &[u8; 8] = b"TERSEPRI";
const VERSION: u8 = 2;
/// Bytes at the end of a text that the profiles which have not decoded it read in full.
const FULL_BYTES: usize = 192 << 10;
const HEADER_BYTES: usize = 20 + Likeness::BYTES;
/// Longest file of a prior, bytes: a text that does not shrink, and its header.
const PRIOR_BYTES_MAX: usize = TEXT_BYTES_MAX + TEXT_BYTES_MAX / 8 + 64;
/// Priors of a volume whose tables are kept in memory at a time.
const TABLES_MAX: usize = 4;
/// Priors of a class that a segment may start from: those that are most like it.
const CANDIDATES_MAX: usize = 2;

/// A prior of a volume.
pub struct VolumePrior {
    pub id: ModelId,
    pub class: Class,
    /// Among priors of one class the latest has the highest.
    pub serial: u32,
    /// Bytes of its text, and of its file.
    pub text_bytes: u32,
    pub file_bytes: u32,
    likeness: Likeness,
    version: u8,
    base: u8,
    code: Vec<u8>,
    tables: Snapshots,
}

impl VolumePrior {
    fn decode(file: &[u8]) -> Option<VolumePrior> {
        let (header, code) = file.split_first_chunk::<HEADER_BYTES>()?;
        let (magic, rest) = header.split_first_chunk::<8>()?;
        let [version, class, base, zero, rest @ ..] = rest else { return None };
        let (serial, text) = rest.split_first_chunk::<4>()?;
        let (text, likeness) = text.split_first_chunk::<4>()?;
        let text_bytes = u32::from_le_bytes(*text);
        let has_base = match *version {
            1 => *base < priors::OF_REVISION_1,
            VERSION => priors::prior_name(*base).is_some(),
            _ => false,
        };
        let known = magic == MAGIC && has_base && *zero == 0;
        if !known || text_bytes as usize > TEXT_BYTES_MAX || file.len() > PRIOR_BYTES_MAX {
            return None;
        }
        Some(VolumePrior {
            id: ModelId(plain_hash(file)),
            class: Class::from_u8(*class),
            serial: u32::from_le_bytes(*serial),
            text_bytes,
            file_bytes: file.len() as u32,
            likeness: Likeness::from_bytes(*likeness.first_chunk()?),
            version: *version,
            base: *base,
            code: code.to_vec(),
            tables: Snapshots::new(),
        })
    }

    /// The predictor that has read it. The first call, and one after its tables went, decodes its text: a second or two.
    fn snapshot<M: Held>(&self) -> Option<Arc<M>> {
        if M::PROFILE != Profile::Usual && self.tables.has::<M>() {
            return self.tables.get(|| None);
        }
        let usual = self.tables.get(|| {
            let mut predictor = after::<Usual>(self.base)?;
            decode_with(&mut *predictor, &self.code, self.text_bytes as usize);
            Some(predictor)
        })?;
        self.tables.get(|| {
            let mut predictor = after::<M>(self.base)?;
            let history = usual.history();
            let text = history.get(history.len().saturating_sub(self.text_bytes as usize)..)?;
            match self.version {
                1 => read_with(&mut *predictor, text),
                _ => learn_with(&mut *predictor, text, FULL_BYTES),
            }
            Some(predictor)
        })
    }
}

/// A predictor of its own that has read a prior of the program.
fn after<M: Held>(base: u8) -> Option<Box<M>> {
    let known = priors::snapshot::<M>(base)?;
    let mut predictor = M::new(known.kind());
    predictor.copy_from(&known);
    Some(predictor)
}

/// Codes a text as a prior of a volume: the bytes of its file, going on from the program's prior that codes it best.
///
/// # Errors
/// Says so when the text is longer than `TEXT_BYTES_MAX`.
pub fn train_from(class: Class, serial: u32, text: &[u8]) -> Result<Vec<u8>, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("a prior has at most {TEXT_BYTES_MAX} bytes of text, not {}", text.len()));
    }
    // As it is coded, so it is learned.
    let mut bytes = super::choose_form(text, class).forward(text);
    let likeness = Likeness::of(&bytes);
    let mut base = super::choose_own(&bytes, class);
    if let Some(words) = priors::words(base) {
        match words.forward_if_it_fits(&bytes) {
            Some(coded) => bytes = coded,
            None => base = 0,
        }
    }
    let mut predictor = after::<Usual>(base).ok_or("the program lacks a prior that it had")?;
    let code = encode_with(&mut *predictor, &bytes, usize::MAX).unwrap_or_default();
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&[VERSION, class as u8, base, 0]);
    file.extend_from_slice(&serial.to_le_bytes());
    file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    file.extend_from_slice(&likeness.to_bytes());
    file.extend_from_slice(&code);
    Ok(file)
}

/// The priors of a volume.
#[derive(Default)]
pub struct Priors {
    /// Ascending by serial.
    priors: RwLock<Vec<Arc<VolumePrior>>>,
    /// Those with tables, by profile, the one used last at the end. One bound for all that share tables.
    used: Arc<Mutex<Vec<(ModelId, Profile)>>>,
}

impl Priors {
    /// Takes a prior's file in; segments may name it and start from it from now on.
    ///
    /// # Errors
    /// `Corrupt` when it is not one, or one of a later version.
    pub fn add(&self, file: &[u8]) -> Result<ModelId, Error> {
        let prior = VolumePrior::decode(file).ok_or(Error::Corrupt("it is no prior that this build knows"))?;
        let id = prior.id;
        let mut priors = self.priors.write().unwrap_or_else(|e| e.into_inner());
        if priors.iter().all(|p| p.id != id) {
            let at = priors.partition_point(|p| p.serial <= prior.serial);
            priors.insert(at, Arc::new(prior));
        }
        Ok(id)
    }

    /// The same priors, their tables shared, and one more.
    ///
    /// # Errors
    /// As `add`.
    pub fn with(&self, file: &[u8]) -> Result<Priors, Error> {
        let library = Priors { priors: RwLock::new(self.priors()), used: self.used.clone() };
        library.add(file)?;
        Ok(library)
    }

    /// Every prior, ascending by serial.
    pub fn priors(&self) -> Vec<Arc<VolumePrior>> {
        self.priors.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// True when a prior is there.
    pub(super) fn has(&self, id: ModelId) -> bool {
        self.priors.read().unwrap_or_else(|e| e.into_inner()).iter().any(|p| p.id == id)
    }

    /// The words that have numbers after a prior; `None` where none have.
    pub(super) fn words(&self, id: ModelId) -> Option<Arc<Words>> {
        let priors = self.priors.read().unwrap_or_else(|e| e.into_inner());
        priors.iter().find(|p| p.id == id).and_then(|p| priors::words(p.base))
    }

    /// True when there is a prior for a class.
    pub fn knows(&self, class: Class) -> bool {
        self.priors.read().unwrap_or_else(|e| e.into_inner()).iter().any(|p| kin(p.class) == kin(class))
    }

    /// Priors that a segment of a class may start from: those whose text is most like it, the latest first among equals.
    pub(super) fn candidates(&self, class: Class, raw: &[u8]) -> Vec<Arc<VolumePrior>> {
        let mut of_class: Vec<Arc<VolumePrior>> =
            self.priors().into_iter().rev().filter(|p| kin(p.class) == kin(class)).collect();
        if of_class.len() > CANDIDATES_MAX {
            let like = Likeness::of(raw);
            of_class.sort_by(|a, b| b.likeness.cosine(&like).total_cmp(&a.likeness.cosine(&like)));
            of_class.truncate(CANDIDATES_MAX);
        }
        of_class
    }

    /// The predictor that has read a prior; `None` when the library lacks it.
    pub(super) fn snapshot<M: Held>(&self, id: ModelId) -> Option<Arc<M>> {
        let prior = {
            let priors = self.priors.read().unwrap_or_else(|e| e.into_inner());
            priors.iter().find(|p| p.id == id).cloned()?
        };
        let snapshot = prior.snapshot::<M>()?;
        let unused = {
            let mut used = self.used.lock().unwrap_or_else(|e| e.into_inner());
            used.retain(|u| *u != (id, M::PROFILE));
            used.push((id, M::PROFILE));
            if used.len() > TABLES_MAX { Some(used.remove(0)) } else { None }
        };
        if let Some((id, profile)) = unused {
            let priors = self.priors.read().unwrap_or_else(|e| e.into_inner());
            if let Some(prior) = priors.iter().find(|p| p.id == id) {
                prior.tables.forget_profile(profile);
            }
        }
        Some(snapshot)
    }
}

/// Text that is known as such and text of which nothing is known start from the same priors.
fn kin(class: Class) -> Class {
    if class == Class::Unknown { Class::Text } else { class }
}

#[cfg(test)]
mod tests {
    use super::super::{NAMED, STRONG, SWIFT, USUAL, layout, layout::Form, with_predictor};
    use super::*;
    use crate::models::{Basis, Coded, Library};

    fn words(seed: u64, len: usize) -> Vec<u8> {
        let mut x = seed;
        let mut out = Vec::new();
        while out.len() < len {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Words that no prior of the program has seen.
            out.extend_from_slice(format!("zq{:x} ", (x >> 33) % 700 * 7919).as_bytes());
        }
        out.truncate(len);
        out
    }

    fn decode(payload: &[u8], raw: &[u8], id: ModelId, library: &Library) -> Result<Vec<u8>, Error> {
        USUAL.decode(payload, raw.len(), USUAL.revision(), id, Basis::of(library))
    }

    #[test]
    fn a_segment_starts_from_what_the_volume_taught() {
        let library = Library::default();
        let (text, raw) = (words(1, 60_000), words(2, 30_000));
        let before = USUAL.encode(&raw, Class::Text, Basis::default()).unwrap().payload;
        let id = library.add(&train_from(Class::Text, 1, &text).unwrap()).unwrap();
        let Coded { payload, model, .. } = USUAL.encode(&raw, Class::Unknown, Basis::of(&library)).unwrap();
        assert_eq!(model, id);
        assert!(payload.len() * 10 < before.len() * 9, "{} of {}", payload.len(), before.len());
        assert_eq!(decode(&payload, &raw, id, &library).unwrap(), raw);
        let other = Library::default();
        assert!(decode(&payload, &raw, id, &other).is_err(), "the prior is not there");
        assert!(decode(&payload, &raw, ModelId::NONE, &library).is_err(), "no prior is named");
        // What the program knows better does not start from it.
        let other = USUAL.encode(include_bytes!("library.rs"), Class::Source, Basis::of(&library)).unwrap();
        assert_eq!(other.model, ModelId::NONE);
    }

    /// What starts from a prior of the volume has the words of the program's prior that it goes on from.
    #[test]
    fn words_are_those_of_the_first_prior() {
        let library = Library::default();
        let mut x = 1u64;
        let mut text = |len: usize| {
            let names = ["the", "of", "and", "Quorzle", "was", "frobnitz", "with", "MIXOLYD", "by"];
            let mut out = Vec::new();
            while out.len() < len {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                out.extend_from_slice(format!("{} ", names[(x >> 33) as usize % names.len()]).as_bytes());
            }
            out
        };
        let id = library.add(&train_from(Class::Text, 1, &text(40_000)).unwrap()).unwrap();
        assert!(library.priors.words(id).is_some());
        let (raw, other) = (text(20_000), text(20_000));
        for reference in [None, Some(&other[..])] {
            let basis = Basis { library: &library, reference, before: None };
            for model in [USUAL, SWIFT, STRONG] {
                let Coded { payload, model: named, .. } = model.encode(&raw, Class::Text, basis).unwrap();
                assert_eq!(named, id);
                assert!(matches!(layout::split(&payload).unwrap(), (NAMED, Form::Words(len), _, _) if len < 20_000));
                assert_eq!(model.decode(&payload, raw.len(), model.revision(), id, basis).unwrap(), raw);
                assert!(model.decode(&payload, raw.len() - 1, model.revision(), id, basis).is_err());
            }
        }
    }

    #[test]
    fn tables_are_bounded_and_come_back() {
        let library = Library::default();
        let ids: Vec<ModelId> = (0..TABLES_MAX as u32 + 2)
            .map(|n| library.add(&train_from(Class::Log, n, &words(u64::from(n), 2000)).unwrap()).unwrap())
            .collect();
        let raw = words(9, 3000);
        for _ in 0..2 {
            for id in &ids {
                let snapshot = library.priors.snapshot::<Usual>(*id).unwrap();
                let code = with_predictor(&*snapshot, |p| encode_with(p, &raw, usize::MAX)).unwrap();
                let payload = layout::join(NAMED, Form::Plain, false, &code);
                assert_eq!(decode(&payload, &raw, *id, &library).unwrap(), raw);
                let held = library.priors().iter().filter(|p| p.tables.has::<Usual>()).count();
                assert!((1..=TABLES_MAX).contains(&held), "{held}");
            }
        }
    }

    #[test]
    fn a_segment_starts_from_what_is_most_like_it() {
        let library = Library::default();
        let kinds: Vec<Vec<u8>> = (0..4u8)
            .map(|kind| words(1, 60_000).iter().map(|b| if *b == b' ' { b'0' + kind } else { *b ^ kind }).collect())
            .collect();
        let add = |(n, text): (u32, &Vec<u8>)| {
            library.add(&train_from(Class::Text, n, text.get(..30_000).unwrap()).unwrap()).unwrap()
        };
        let ids: Vec<ModelId> = (0..).zip(&kinds).map(add).collect();
        for (id, text) in ids.iter().zip(&kinds) {
            let raw = &text[30_000..];
            assert_eq!(library.priors.candidates(Class::Text, raw).first().map(|p| p.id), Some(*id));
            assert!(library.priors.candidates(Class::Text, raw).len() <= CANDIDATES_MAX);
        }
        assert!(library.priors.candidates(Class::Json, b"{}").is_empty());
    }

    #[test]
    fn what_is_not_a_prior_is_refused() {
        let file = train_from(Class::Json, 7, b"{\"a\": 1}").unwrap();
        let library = Library::default();
        for at in 0..HEADER_BYTES - Likeness::BYTES {
            let mut bad = file.clone();
            bad[at] ^= 0x80;
            // Class, serial and a length within bounds may be anything: what they belong to is named by the hash.
            assert_eq!(library.add(&bad).is_ok(), matches!(at, 9 | 12..=17), "{at}");
            assert!(library.add(&file[..at]).is_err());
        }
        // Version 1 knew none of the priors that new ones go on from.
        let mut bad = file.clone();
        bad[8] = 1;
        assert!(library.add(&bad).is_err());
        bad[10] = 6;
        assert!(library.add(&bad).is_ok());
        assert!(library.add(&vec![0; PRIOR_BYTES_MAX + 1]).is_err());
        assert!(train_from(Class::Text, 1, &vec![0; TEXT_BYTES_MAX + 1]).is_err());
        assert_eq!(library.add(&file).unwrap(), library.add(&file).unwrap());
    }
}
