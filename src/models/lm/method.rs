//! The method: segments coded with a language model of the volume, or one of images or bytes, in lanes that are read alone.

use std::ops::Range;
use std::sync::Arc;

use super::lanes::{LANE_BYTES_MAX, LANE_BYTES_MIN};
use super::shelf::Shelf;
use super::{LanguageModel, lane_bytes, lane_check};
use crate::base::{Class, MethodId, ModelId};
use crate::models::{Basis, Coded, Declined, Error, Library, Model};

/// Revision of the payload; that of the arithmetic is part of a model's name.
const REVISION: u16 = 1;
/// Lanes of segments that nobody asked for others for, bytes: read alone in some seconds by the smallest models.
const LANE_BYTES: usize = 4 << 10;

/// Codes with the models of a volume: of each kind that suits the data with the one that came last.
pub struct Language;

/// What a segment is coded to.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// Bytes of a lane, a power of two from `LANE_BYTES_MIN` to `LANE_BYTES_MAX`.
    pub lane_bytes: usize,
    /// Bytes that the payload must stay below.
    pub below: usize,
}

impl Language {
    /// Codes a segment with the models of the library that suit its class, and takes the smallest. Gives up one as soon as it is
    /// clear that it does not come below what is aimed at.
    ///
    /// # Errors
    /// `Stopped` when the volume is closing; `Foreign` where the library has no such model; `Failed` where none can be loaded.
    ///
    /// # Blocking
    /// Minutes for each MiB.
    pub fn encode_for(raw: &[u8], class: Class, library: &Library, aim: Aim) -> Result<Coded, Declined> {
        let shelf = &library.languages;
        let lane = aim.lane_bytes.clamp(LANE_BYTES_MIN, LANE_BYTES_MAX);
        let mut below = aim.below.min(raw.len());
        let mut outcome = Err(Declined::Foreign);
        for model in shelf.coding(class) {
            let model = match model {
                Err(e) => {
                    log::error!("nothing is coded with a language model: {e}");
                    outcome = outcome.or(Err(Declined::Failed));
                    continue;
                }
                Ok(model) => model,
            };
            let payload = model.encode(raw, lane, below, shelf.stopping());
            if shelf.is_stopping() {
                return Err(Declined::Stopped);
            }
            outcome = match payload {
                None => outcome.or(Err(Declined::DoesNotShrink)),
                Some(payload) => {
                    below = payload.len();
                    Ok(Coded { payload, model: model.facts().id, refers: false })
                }
            };
        }
        outcome
    }

    fn open(payload: &[u8], revision: u16, model: ModelId, basis: Basis<'_>) -> Result<Arc<LanguageModel>, Error> {
        if revision != REVISION {
            return Err(Error::UnknownRevision(revision));
        }
        if basis.reference.is_some() {
            return Err(Error::Corrupt("it names a reference, and its method uses none"));
        }
        let _ = lane_bytes(payload).ok_or(Error::Corrupt("its lanes do not fit it"))?;
        basis.library.languages.open(model)
    }
}

/// Why a payload was not decoded: that the volume is closing comes before what became of it so.
fn stopped_or(shelf: &Shelf, e: Error) -> Error {
    if shelf.is_stopping() { Error::Stopped } else { e }
}

impl Model for Language {
    fn id(&self) -> MethodId {
        MethodId::Language
    }

    fn revision(&self) -> u16 {
        REVISION
    }

    fn memory_bytes(&self) -> u64 {
        super::DECODE_BYTES_MAX
    }

    fn decode_rate_guess(&self) -> u64 {
        1
    }

    fn prepare(&self, _payload: &[u8], model: ModelId, basis: Basis<'_>) {
        // A failure is told by who decodes.
        let _ = basis.library.languages.open(model);
    }

    fn encode(&self, raw: &[u8], class: Class, basis: Basis<'_>) -> Result<Coded, Declined> {
        Language::encode_for(raw, class, basis.library, Aim { lane_bytes: LANE_BYTES, below: raw.len() })
    }

    fn decode(
        &self,
        payload: &[u8],
        raw_len: usize,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        let language = Language::open(payload, revision, model, basis)?;
        let shelf = &basis.library.languages;
        language.decode(payload, raw_len, shelf.stopping()).map_err(|e| stopped_or(shelf, e))
    }

    fn part_bytes(&self, payload: &[u8], raw_len: usize) -> usize {
        lane_bytes(payload).unwrap_or(raw_len)
    }

    fn part_check(&self, payload: &[u8], raw_len: usize, part: usize) -> Option<u32> {
        lane_check(payload, raw_len, part)
    }

    fn decode_parts(
        &self,
        payload: &[u8],
        raw_len: usize,
        parts: Range<usize>,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        let language = Language::open(payload, revision, model, basis)?;
        let shelf = &basis.library.languages;
        language.decode_lanes(payload, raw_len, parts, shelf.stopping()).map_err(|e| stopped_or(shelf, e))
    }
}
