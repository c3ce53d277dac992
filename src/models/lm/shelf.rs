//! The language models of a volume: each is loaded when it is first needed, and stays.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use super::{LanguageModel, LoadError, ModelKind};
use crate::base::{Class, ModelId};
use crate::models::Error;

/// Loads a model from where the volume keeps it.
pub type Loader = Box<dyn Fn() -> Result<LanguageModel, LoadError> + Send + Sync>;

/// A model that the volume keeps.
struct Kept {
    id: ModelId,
    kind: ModelKind,
    load: Loader,
    /// Held while it is loaded: who else needs it waits for that.
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
enum Loaded {
    #[default]
    No,
    Yes(Arc<LanguageModel>),
    /// Why not, and when: it is not tried again for a while, as that may read gigabytes.
    Failed(Error, Instant),
}

/// A model that could not be loaded is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl Kept {
    fn open(&self) -> Result<Arc<LanguageModel>, Error> {
        let mut loaded = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        match &*loaded {
            Loaded::Yes(model) => return Ok(model.clone()),
            Loaded::Failed(e, at) if at.elapsed() < RETRY_AFTER => return Err(e.clone()),
            Loaded::Failed(..) | Loaded::No => {}
        }
        let outcome = self.load();
        *loaded = match &outcome {
            Ok(model) => Loaded::Yes(model.clone()),
            Err(e) => Loaded::Failed(e.clone(), Instant::now()),
        };
        outcome
    }

    fn load(&self) -> Result<Arc<LanguageModel>, Error> {
        let unusable = |why: String| Error::NoLanguageModel(self.id, why);
        let model = (self.load)().map_err(|e| unusable(e.to_string()))?;
        let is = model.facts().id;
        if is != self.id || model.facts().kind != self.kind {
            // Its files were changed, or this build computes otherwise: what comes out would not be what was coded.
            return Err(unusable(format!("its files hold another model, {is}, or this build computes otherwise")));
        }
        crate::models::keep(model.facts().bytes);
        Ok(Arc::new(model))
    }

    fn is_loaded(&self) -> bool {
        matches!(*self.loaded.lock().unwrap_or_else(|e| e.into_inner()), Loaded::Yes(_))
    }
}

/// The language models of a volume.
#[derive(Default)]
pub struct Shelf {
    /// In the order in which they came: the last one of each kind codes.
    kept: RwLock<Vec<Arc<Kept>>>,
    stop: AtomicBool,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl Shelf {
    /// Takes a model in, which is loaded when it is first needed. New segments are coded with the one of its kind that came last;
    /// one that is there already comes last again.
    pub fn add(&self, id: ModelId, kind: ModelKind, load: Loader) {
        let mut kept = self.kept.write().unwrap_or_else(|e| e.into_inner());
        let known = kept.iter().position(|k| k.id == id).map(|at| kept.remove(at));
        // One that could not be loaded may have other files now.
        let known = known.filter(|known| known.is_loaded());
        kept.push(known.unwrap_or_else(|| Arc::new(Kept { id, kind, load, loaded: Mutex::default() })));
    }

    /// Takes a model away: nothing is coded or read with it any more, but what is on its way.
    pub fn remove(&self, id: ModelId) {
        self.kept.write().unwrap_or_else(|e| e.into_inner()).retain(|k| k.id != id);
    }

    /// True where a model is there, loaded or not.
    pub fn has(&self, id: ModelId) -> bool {
        self.kept.read().unwrap_or_else(|e| e.into_inner()).iter().any(|k| k.id == id)
    }

    /// The models that code data of a class: of each kind that suits it the one that came last.
    fn coding_kept(&self, class: Class) -> Vec<Arc<Kept>> {
        let kept = self.kept.read().unwrap_or_else(|e| e.into_inner());
        let last = |kind: ModelKind| kept.iter().rfind(|k| k.kind == kind).cloned();
        ModelKind::ALL.into_iter().filter(|kind| kind.suits(class)).filter_map(last).collect()
    }

    /// True where a model is one that codes data of a class.
    pub fn codes(&self, class: Class, id: ModelId) -> bool {
        self.coding_kept(class).iter().any(|k| k.id == id)
    }

    /// The name of the model of a kind that codes.
    pub fn coding_id(&self, kind: ModelKind) -> Option<ModelId> {
        self.kept.read().unwrap_or_else(|e| e.into_inner()).iter().rfind(|k| k.kind == kind).map(|k| k.id)
    }

    /// True where there is a model of some of these kinds.
    pub fn has_kind(&self, is_one: impl Fn(ModelKind) -> bool) -> bool {
        self.kept.read().unwrap_or_else(|e| e.into_inner()).iter().any(|k| is_one(k.kind))
    }

    /// Names of all, in the order in which they came.
    pub fn ids(&self) -> Vec<ModelId> {
        self.kept.read().unwrap_or_else(|e| e.into_inner()).iter().map(|k| k.id).collect()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.read().unwrap_or_else(|e| e.into_inner()).is_empty()
    }

    /// A model, loaded.
    ///
    /// # Errors
    /// `NoLanguageModel` when it is not there, or cannot be loaded: says what to do.
    ///
    /// # Blocking
    /// The first call for a model reads its files: a second or two for each GiB.
    pub fn open(&self, id: ModelId) -> Result<Arc<LanguageModel>, Error> {
        let kept = self.kept.read().unwrap_or_else(|e| e.into_inner()).iter().find(|k| k.id == id).cloned();
        let missing =
            || Error::NoLanguageModel(id, "the volume lacks it: add it again with `tersefs model add`".into());
        kept.ok_or_else(missing)?.open()
    }

    /// The models that code data of a class, loaded, or why one cannot be; none where there are none.
    pub fn coding(&self, class: Class) -> Vec<Result<Arc<LanguageModel>, Error>> {
        self.coding_kept(class).iter().map(|kept| kept.open()).collect()
    }

    /// Ends all coding and decoding within a step, and lets none begin: the volume is closing.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// True after `stop`.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Set by `stop`.
    pub(super) fn stopping(&self) -> &AtomicBool {
        &self.stop
    }
}
