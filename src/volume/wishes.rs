//! What is asked for by extended attributes: tier, decode budget, no coding at all. Set on a file or on a directory; a
//! directory's value holds for everything below it that has none of its own. They count before the rules of the
//! configuration; all of the order is in rules.rs.
//!
//! A file with several names takes what holds in the directory where it was made or last moved to. Values are looked up
//! when a file is planned for coding, so a change is for what is coded from then on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::inode::InodeState;
use super::rules::{Rules, Said};
use super::types::{Error, PolicyReport};
use super::{FileKind, Time, Volume};
use crate::base::{Class, Ino};
use crate::codec::{DECODE_MS_MAX, ModelKind, Policy, Tier};

/// Longest time one segment may take to decode, decimal milliseconds.
const DECODE_MS: &[u8] = b"user.tersefs.decode_ms";
/// Name of a tier.
const TIER: &[u8] = b"user.tersefs.tier";
/// Whether compressed formats are opened.
const CONTAINERS: &[u8] = b"user.tersefs.containers";
/// Any value but 0: the bytes stay plain.
const NOCOMPRESS: &[u8] = b"user.tersefs.nocompress";

/// Directories whose wishes are remembered; beyond it all are forgotten.
const DIRECTORIES_MAX: usize = 4096;
/// Directories climbed from a file; what is set above is not seen from further below.
const DEPTH_MAX: usize = 4096;

/// One attribute, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    DecodeMs(u32),
    Tier(Tier),
    Closed(bool),
    Plain(bool),
}

/// Reads an attribute; `None` when it is none of ours.
///
/// # Errors
/// What may stand there instead.
fn parse(name: &[u8], value: &[u8]) -> Option<Result<Wish, &'static str>> {
    let text = std::str::from_utf8(value).unwrap_or("");
    match name {
        DECODE_MS => {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let ms = text.parse().ok().filter(|ms| plain && (1..=DECODE_MS_MAX).contains(ms));
            Some(ms.map(Wish::DecodeMs).ok_or("user.tersefs.decode_ms is a whole number of milliseconds, 1 to 3600000"))
        }
        TIER => Some(text.parse().map(Wish::Tier).map_err(|()| "user.tersefs.tier is fast, balanced or deep")),
        CONTAINERS => Some(match text {
            "on" => Ok(Wish::Closed(false)),
            "off" => Ok(Wish::Closed(true)),
            _ => Err("user.tersefs.containers is on or off"),
        }),
        NOCOMPRESS => Some(Ok(Wish::Plain(value != b"0"))),
        _ => None,
    }
}

/// What holds for a file or a directory, each with the inode that it is set on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wishes {
    decode_ms: Option<(u32, Ino)>,
    tier: Option<(Tier, Ino)>,
    closed: Option<bool>,
    plain: Option<(bool, Ino)>,
}

impl Wishes {
    fn add(&mut self, wish: Wish, on: Ino) {
        match wish {
            Wish::DecodeMs(ms) => self.decode_ms = Some((ms, on)),
            Wish::Tier(tier) => self.tier = Some((tier, on)),
            Wish::Closed(closed) => self.closed = Some(closed),
            Wish::Plain(plain) => self.plain = Some((plain, on)),
        }
    }

    /// What is not set here is as it is above.
    fn or(self, above: Wishes) -> Wishes {
        Wishes {
            decode_ms: self.decode_ms.or(above.decode_ms),
            tier: self.tier.or(above.tier),
            closed: self.closed.or(above.closed),
            plain: self.plain.or(above.plain),
        }
    }

    /// The file stays plain, whatever rules say.
    pub fn stays_plain(&self) -> bool {
        self.plain.is_some_and(|(plain, _)| plain)
    }

    /// The file stays plain, of which rules say so much.
    pub fn stays_plain_by(&self, said: &Said) -> bool {
        self.plain.map(|(plain, _)| plain).or(said.plain.map(|(plain, _)| plain)).unwrap_or(false)
    }

    /// The policy of the file, of which rules say so much, on a volume of policy `volume`. A tier that is set by an attribute
    /// or a rule takes the place of a method that the volume is told to use.
    pub fn policy(&self, said: &Said, volume: &Policy) -> Policy {
        let tier = self.tier.map(|(tier, _)| tier).or(said.tier.map(|(tier, _)| tier));
        let decode_ms = self.decode_ms.map(|(ms, _)| ms).or(said.decode_ms.map(|(ms, _)| ms));
        Policy {
            tier: tier.unwrap_or(volume.tier),
            decode_ms: decode_ms.or(volume.decode_ms),
            only: if tier.is_some() { None } else { volume.only },
            language: volume.language,
            bytes: volume.bytes,
            closed: self.closed.unwrap_or(volume.closed),
        }
    }
}

/// Wishes of directories, those of their parents included, and a count of changes.
#[derive(Debug, Default)]
pub(super) struct WishMemory {
    directories: HashMap<Ino, Wishes>,
    /// What was looked up before a change is not remembered after it.
    changes: u64,
}

pub(super) type SharedWishes = Mutex<WishMemory>;

impl Volume {
    fn wish_memory(&self) -> MutexGuard<'_, WishMemory> {
        self.wishes.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Changes of wishes so far: what was looked up is true as long as it has not moved.
    pub(super) fn wish_changes(&self) -> u64 {
        self.wish_memory().changes
    }

    /// Refuses a value that makes no sense, and says so in the log.
    pub(super) fn check_wish(&self, ino: Ino, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let Some(Err(why)) = parse(name, value) else { return Ok(()) };
        let shown = value.get(..VALUE_SHOWN_BYTES).unwrap_or(value);
        let file = self.path_of(ino).unwrap_or_else(|| format!("inode {ino}"));
        log::warn!("{file}: \"{}\" is refused: {why}", String::from_utf8_lossy(shown).escape_debug());
        Err(Error::Invalid(why))
    }

    /// Attributes of one inode. Those that make no sense, as an older build let them be set, count for nothing.
    fn own_wishes(&self, ino: Ino) -> Result<Wishes, Error> {
        let mut own = Wishes::default();
        for name in self.store.xattr_names(ino).map_err(Error::Store)? {
            if !is_wish(&name) {
                continue;
            }
            if let Some(value) = self.store.xattr(ino, &name).map_err(Error::Store)?
                && let Some(Ok(wish)) = parse(&name, &value)
            {
                own.add(wish, ino);
            }
        }
        Ok(own)
    }

    /// What holds in a directory: its own attributes and those above. From the log, which knows of every rename, so no inode
    /// is locked.
    fn directory_wishes(&self, directory: Ino) -> Result<Wishes, Error> {
        let mut climbed: Vec<(Ino, Wishes)> = Vec::new();
        let mut at = directory;
        let before = self.wish_changes();
        let mut found = loop {
            if let Some(known) = self.wish_memory().directories.get(&at) {
                break *known;
            }
            // A directory that is gone has nothing above it: its files have lost the name they were made by.
            let Some(rec) = self.store.inode(at).map_err(Error::Store)? else { break Wishes::default() };
            climbed.push((at, self.own_wishes(at)?));
            if at == Ino::ROOT || climbed.len() >= DEPTH_MAX {
                break Wishes::default();
            }
            at = rec.parent;
        };
        let mut memory = self.wish_memory();
        for (ino, own) in climbed.into_iter().rev() {
            found = own.or(found);
            if memory.changes == before {
                if memory.directories.len() >= DIRECTORIES_MAX {
                    memory.directories.clear();
                }
                memory.directories.insert(ino, found);
            }
        }
        Ok(found)
    }

    /// What holds for a file that was made in, or last moved to, `parent`. Locks no inode.
    pub(super) fn wishes_of(&self, ino: Ino, parent: Ino) -> Result<Wishes, Error> {
        Ok(self.own_wishes(ino)?.or(self.directory_wishes(parent)?))
    }

    /// What rules say of a file that was made in, or last moved to, `parent`. Locks no inode.
    pub(super) fn said_of(&self, ino: Ino, parent: Ino, class: Option<Class>, modified: Time) -> Result<Said, Error> {
        let rules = self.adjustable().rules;
        if rules.is_empty() {
            return Ok(Said::default());
        }
        let path = if rules.ask_paths() { self.path_in(ino, parent)? } else { None };
        Ok(rules.say(path.as_deref(), class, self.now().secs.saturating_sub(modified.secs)))
    }

    /// The policy of a file for data of a class; that of the volume for one that is gone.
    pub(super) fn policy_of(&self, ino: Ino, class: Class) -> Result<Policy, Error> {
        let Some(rec) = self.store.inode(ino).map_err(Error::Store)? else { return Ok(self.policy()) };
        let said = self.said_of(ino, rec.parent, Some(class), rec.mtime)?;
        Ok(self.wishes_of(ino, rec.parent)?.policy(&said, &self.policy()))
    }

    /// Rules have changed: what is planned by the old ones is looked at again, and what stayed plain.
    pub(super) fn rules_changed(&self, rules: &Rules) {
        self.wish_memory().changes += 1;
        self.queue_lock().look_again();
        log::debug!("rules are now {rules:?}");
    }

    /// What holds where no attribute says otherwise.
    pub(super) fn policy(&self) -> Policy {
        let shelf = &self.library.languages;
        Policy {
            language: shelf.has_kind(|kind| kind == ModelKind::Text),
            bytes: shelf.has_kind(|kind| kind != ModelKind::Text),
            ..self.adjustable().policy
        }
    }

    /// An attribute was set or removed: what is remembered is dropped, and what may be coded now is looked for.
    pub(super) fn wish_changed(&self, state: &mut InodeState, name: &[u8]) {
        if !is_wish(name) {
            return;
        }
        {
            let mut memory = self.wish_memory();
            memory.changes += 1;
            if state.is_directory() {
                memory.directories.clear();
            }
        }
        if name == NOCOMPRESS {
            self.reconsider(state);
        }
    }

    /// An inode has moved from one directory to another.
    pub(super) fn wishes_moved(&self, state: &mut InodeState, from: Ino, kind: FileKind) {
        // Where it cannot be told, looking again does no harm.
        let was_plain = self.directory_wishes(from).map_or(true, |wishes| wishes.stays_plain());
        if kind == FileKind::Directory {
            let mut memory = self.wish_memory();
            memory.changes += 1;
            memory.directories.clear();
        }
        if was_plain {
            self.wish_memory().changes += 1;
            self.reconsider(state);
        }
    }

    /// Has a file that stayed plain, or those below a directory, looked at again.
    fn reconsider(&self, state: &mut InodeState) {
        if state.is_directory() {
            self.queue_lock().look_again();
        } else if state.is_regular() && state.rec.staging.is_some() {
            self.queue_lock().plain_no_more(state.rec.ino);
            self.enqueue(state);
        }
    }

    /// Tier and budget of a file and where they come from.
    pub(super) fn policy_report(
        &self,
        ino: Ino,
        parent: Ino,
        class: Option<Class>,
        modified: Time,
    ) -> Result<PolicyReport, Error> {
        let wishes = self.wishes_of(ino, parent)?;
        let said = self.said_of(ino, parent, class, modified)?;
        let policy = wishes.policy(&said, &self.policy());
        let from = |on: Option<Ino>, rule: Option<usize>, otherwise: &str| match (on, rule) {
            (Some(on), _) if on == ino => "own".to_string(),
            (Some(on), _) => {
                format!("inherited from {}", self.path_of(on).unwrap_or_else(|| format!("directory inode {on}")))
            }
            (None, Some(rule)) => format!("rule {rule}"),
            (None, None) => otherwise.to_string(),
        };
        let by_tier = if self.adjustable().policy.decode_ms.is_some() { "volume" } else { "tier" };
        Ok(PolicyReport {
            tier: policy.tier.name().to_string(),
            tier_from: from(wishes.tier.map(|(_, on)| on), said.tier.map(|(_, n)| n), "volume"),
            method: policy.only.map(|id| id.name().to_string()),
            decode_ms: policy.decode_ms_max(),
            decode_ms_from: from(wishes.decode_ms.map(|(_, on)| on), said.decode_ms.map(|(_, n)| n), by_tier),
            stays_plain: wishes.stays_plain_by(&said),
            stays_plain_from: from(wishes.plain.map(|(_, on)| on), said.plain.map(|(_, n)| n), "volume"),
        })
    }
}

/// Bytes of a refused value that the log shows.
const VALUE_SHOWN_BYTES: usize = 40;

fn is_wish(name: &[u8]) -> bool {
    [DECODE_MS, TIER, CONTAINERS, NOCOMPRESS].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MethodId;

    #[test]
    fn values_are_read_or_refused() {
        let ms = |value: &[u8]| parse(DECODE_MS, value).unwrap();
        assert_eq!(ms(b"20"), Ok(Wish::DecodeMs(20)));
        assert_eq!(ms(b"3600000"), Ok(Wish::DecodeMs(DECODE_MS_MAX)));
        for bad in
            [&b""[..], b"0", b"3600001", b"20ms", b"+20", b" 20", b"20\n", b"1.5", b"-1", b"99999999999", b"\xff"]
        {
            assert!(ms(bad).is_err_and(|why| why.contains("3600000")), "{bad:?}");
        }
        for tier in Tier::ALL {
            assert_eq!(parse(TIER, tier.name().as_bytes()), Some(Ok(Wish::Tier(tier))));
        }
        assert!(parse(TIER, b"Fast").unwrap().is_err() && parse(TIER, b"").unwrap().is_err());
        assert_eq!(parse(CONTAINERS, b"off"), Some(Ok(Wish::Closed(true))));
        assert!(parse(CONTAINERS, b"0").unwrap().is_err());
        assert_eq!(parse(NOCOMPRESS, b"0"), Some(Ok(Wish::Plain(false))));
        assert_eq!(parse(NOCOMPRESS, b""), Some(Ok(Wish::Plain(true))));
        assert_eq!(parse(b"user.tersefs.other", b"x"), None);
    }

    #[test]
    fn the_nearest_value_holds_each_for_itself() {
        let (near, far) = (Ino(9), Ino(2));
        let mut above = Wishes::default();
        for wish in [Wish::Tier(Tier::Fast), Wish::DecodeMs(500), Wish::Closed(true), Wish::Plain(true)] {
            above.add(wish, far);
        }
        let mut own = Wishes::default();
        own.add(Wish::DecodeMs(20), near);
        let both = own.or(above);
        assert_eq!((both.decode_ms, both.tier), (Some((20, near)), Some((Tier::Fast, far))));
        assert!(both.stays_plain());
        own.add(Wish::Plain(false), near);
        assert!(!own.or(above).stays_plain());
        let volume = Policy {
            decode_ms: Some(700),
            only: Some(MethodId::Cm),
            tier: Tier::Deep,
            language: true,
            bytes: true,
            closed: false,
        };
        let silent = Said::default();
        let of_both =
            Policy { tier: Tier::Fast, decode_ms: Some(20), only: None, language: true, bytes: true, closed: true };
        assert_eq!(both.policy(&silent, &volume), of_both);
        assert_eq!(Wishes::default().policy(&silent, &volume), volume);
        assert_eq!(own.policy(&silent, &volume), Policy { decode_ms: Some(20), ..volume });
        // Attributes count before rules, and these before the volume.
        let said = Said { tier: Some((Tier::Balanced, 1)), decode_ms: Some((5, 2)), plain: Some((true, 3)) };
        assert_eq!(both.policy(&said, &volume), of_both);
        assert!(!own.stays_plain_by(&said) && Wishes::default().stays_plain_by(&said));
        let by_rules =
            Policy { tier: Tier::Balanced, decode_ms: Some(5), only: None, language: true, bytes: true, closed: false };
        assert_eq!(Wishes::default().policy(&said, &volume), by_rules);
    }
}
