//! What a volume keeps for decoding beside what the program has itself: priors, which its own files taught, and language
//! models, which somebody brought.

use std::sync::Arc;

use super::lm::Shelf;
use super::primed::{Priors, VolumePrior};
use super::{Error, primed};
use crate::base::{Class, ModelId};

/// What a volume keeps for decoding.
#[derive(Default)]
pub struct Library {
    pub(super) priors: Priors,
    /// Language models.
    pub languages: Shelf,
}

impl Library {
    /// Takes a prior's file in; segments may name it and start from it from now on.
    ///
    /// # Errors
    /// `Corrupt` when it is not one, or one of a later version.
    pub fn add(&self, file: &[u8]) -> Result<ModelId, Error> {
        self.priors.add(file)
    }

    /// The same priors, their tables shared, and one more; without language models.
    ///
    /// # Errors
    /// As `add`.
    pub fn with(&self, file: &[u8]) -> Result<Library, Error> {
        Ok(Library { priors: self.priors.with(file)?, languages: Shelf::default() })
    }

    /// Every prior, ascending by serial.
    pub fn priors(&self) -> Vec<Arc<VolumePrior>> {
        self.priors.priors()
    }

    /// True when there is a prior for a class.
    pub fn knows(&self, class: Class) -> bool {
        self.priors.knows(class)
    }

    /// The prior of the volume that a segment would start from.
    pub fn prior_for(&self, raw: &[u8], class: Class) -> ModelId {
        primed::prior_for(raw, class, &self.priors)
    }
}
