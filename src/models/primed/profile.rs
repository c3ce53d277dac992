//! Profiles: how much of the predictor is used. One predictor, with more or fewer contexts, rows and stages, and tables of
//! another size; each is a method of its own on disk, so that what a segment costs to decode is known before it is read.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::LocalKey;

use super::predictor::{Mixing, Tables};
use super::priors::{PACKED_BYTES_MAX, TEXT_BYTES_MAX};
use crate::base::MethodId;
use crate::models::{keep, release};

/// How much of the predictor is used. What a weaker one codes, a stronger one codes smaller and slower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Profile {
    /// Few contexts, in tables that stay in the cache of a core or near it.
    Swift,
    /// The default.
    Usual,
    /// As much as makes segments smaller, where time is of no concern.
    Strong,
}

impl Profile {
    /// Its method.
    pub fn method(self) -> MethodId {
        match self {
            Profile::Swift => MethodId::Swift,
            Profile::Usual => MethodId::Primed,
            Profile::Strong => MethodId::Strong,
        }
    }
}

/// What a profile has, besides the sizes of its tables.
pub(super) struct Spec {
    /// Hashed contexts, the first of those that `Contexts` makes.
    pub hashed: usize,
    /// Whether there is a context of nothing but the bits of this byte.
    pub order0: bool,
    /// What comes after a history is learned in one byte of so many, a power of two.
    pub learn_every: u32,
    /// Step of the mixer, 1/256 of an error.
    pub rate: i32,
    /// Length of a match from which on the whole byte is asked for, before its bits.
    pub sure_len: u32,
    /// Bytes at the end of a prior's text that it learns from. Small tables have no room for more: the second megabyte would
    /// make segments of the swift profile 0.2 % smaller, and its start half as long again.
    pub text_bytes: usize,
}

/// The profile of each number that a `Mixing` may have, and what it has.
pub(super) const PROFILES: [Profile; 3] = [Profile::Swift, Profile::Usual, Profile::Strong];
pub(super) const SPECS: [Spec; 3] = [
    Spec { hashed: 5, order0: false, learn_every: 4, rate: 64, sure_len: 32, text_bytes: TEXT_BYTES_MAX },
    Spec { hashed: 10, order0: true, learn_every: 1, rate: 64, sure_len: 400, text_bytes: PACKED_BYTES_MAX },
    Spec { hashed: 10, order0: true, learn_every: 1, rate: 64, sure_len: 1000, text_bytes: PACKED_BYTES_MAX },
];

pub(super) type Swift = Mixing<0, { 4 << 20 }, { 256 << 10 }, 1, 1, 1024, 0, 1>;
pub(super) type Usual = Mixing<1, { 16 << 20 }, { 1 << 20 }, 2, 3, 65536, 0, 1>;
pub(super) type Strong = Mixing<2, { 32 << 20 }, { 2 << 20 }, 3, 6, 65536, 5, 65536>;

/// A predictor of one of the profiles, with its tables in their places.
pub(super) trait Held: Tables {
    /// The tables of this thread: megabytes that are overwritten and used again.
    fn local() -> &'static LocalKey<RefCell<Option<Box<Self>>>>;

    /// Where the one that has read a prior is kept.
    fn slot(snapshots: &Snapshots) -> &Mutex<Option<Arc<Self>>>;
}

macro_rules! held {
    ($profile:ty, $slot:ident) => {
        impl Held for $profile {
            fn local() -> &'static LocalKey<RefCell<Option<Box<Self>>>> {
                thread_local! {
                    static TABLES: RefCell<Option<Box<$profile>>> = const { RefCell::new(None) };
                }
                &TABLES
            }

            fn slot(snapshots: &Snapshots) -> &Mutex<Option<Arc<Self>>> {
                &snapshots.$slot
            }
        }
    };
}

held!(Swift, swift);
held!(Usual, usual);
held!(Strong, strong);

/// The predictors that have read one prior, by profile, each built when it is first needed.
#[derive(Default)]
pub(super) struct Snapshots {
    swift: Mutex<Option<Arc<Swift>>>,
    usual: Mutex<Option<Arc<Usual>>>,
    strong: Mutex<Option<Arc<Strong>>>,
}

fn lock<M: Held>(snapshots: &Snapshots) -> MutexGuard<'_, Option<Arc<M>>> {
    M::slot(snapshots).lock().unwrap_or_else(|e| e.into_inner())
}

impl Snapshots {
    pub const fn new() -> Snapshots {
        Snapshots { swift: Mutex::new(None), usual: Mutex::new(None), strong: Mutex::new(None) }
    }

    /// The one of a profile, which `build` makes where there is none.
    pub fn get<M: Held>(&self, build: impl FnOnce() -> Option<Box<M>>) -> Option<Arc<M>> {
        let mut slot = lock(self);
        if slot.is_none() {
            let built: Arc<M> = Arc::from(build()?);
            keep(built.memory_bytes());
            *slot = Some(built);
        }
        slot.clone()
    }

    /// Lets that of a profile go.
    pub fn forget<M: Held>(&self) {
        if let Some(tables) = lock::<M>(self).take() {
            release(tables.memory_bytes());
        }
    }

    /// The same for a profile that is told by its name.
    pub fn forget_profile(&self, profile: Profile) {
        match profile {
            Profile::Swift => self.forget::<Swift>(),
            Profile::Usual => self.forget::<Usual>(),
            Profile::Strong => self.forget::<Strong>(),
        }
    }

    /// True when that of a profile is there.
    pub fn has<M: Held>(&self) -> bool {
        lock::<M>(self).is_some()
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        PROFILES.into_iter().for_each(|profile| self.forget_profile(profile));
    }
}
