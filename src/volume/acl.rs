//! POSIX ACLs: their bytes, what they make of a mode, and what a mode makes of them. Pure: nothing is stored here.
//!
//! The kernel checks permissions with them and who may change them; what it leaves to a filesystem is to keep the mode and
//! the ACL in step, and to pass default ACLs on.
//!
//! ```text
//! version u32 = 2 │ entry, entry, ...          the value of system.posix_acl_access and system.posix_acl_default
//! entry: tag u16 │ permissions u16 │ id u32    little-endian, in the order of tags
//! ```

use super::types::Error;

/// ACL that decides who may use the inode.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// ACL of a directory that new inodes in it begin with.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// Entries of one ACL: what fits the page that the kernel passes on.
const ENTRIES_MAX: usize = (4096 - HEADER_BYTES) / ENTRY_BYTES;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Read, write, execute.
const RWX: u16 = 0o7;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct AclEntry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A valid ACL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acl(Vec<AclEntry>);

/// What a new inode begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Inherited {
    /// Permission bits, 0o777 of them from the ACL.
    pub mode: u16,
    /// The ACL of the inode; `None` when its mode says the same.
    pub access: Option<Acl>,
}

/// The value of an ACL's xattr in words, as archives have it. `None` where it is none.
pub fn acl_to_text(value: &[u8]) -> Option<String> {
    Acl::decode(value).ok().map(|acl| acl.text())
}

/// The other way. `number` tells that of a user's name, or of a group's.
///
/// # Errors
/// `Invalid` when it is no ACL, or has names without numbers.
pub fn acl_from_text(text: &str, number: impl Fn(&str, bool) -> Option<u32>) -> Result<Vec<u8>, Error> {
    Acl::of_text(text, number).map(|acl| acl.encode())
}

impl Acl {
    /// Reads the value of an xattr.
    ///
    /// # Errors
    /// `Invalid` when it is not version 2, not in the order of tags, or lacks one of the three entries of the mode or the
    /// mask that named entries need.
    pub fn decode(value: &[u8]) -> Result<Acl, Error> {
        let bad = Error::Invalid("not a POSIX ACL of version 2");
        let Some((version, entries)) = value.split_first_chunk::<HEADER_BYTES>() else { return Err(bad) };
        let count = entries.len() / ENTRY_BYTES;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_BYTES != 0 || count > ENTRIES_MAX {
            return Err(bad);
        }
        let entries = entries
            .chunks_exact(ENTRY_BYTES)
            .map(|e| match *e {
                [t0, t1, p0, p1, i0, i1, i2, i3] => AclEntry {
                    tag: u16::from_le_bytes([t0, t1]),
                    permissions: u16::from_le_bytes([p0, p1]),
                    id: u32::from_le_bytes([i0, i1, i2, i3]),
                },
                _ => AclEntry { tag: 0, permissions: 0, id: 0 },
            })
            .collect();
        let acl = Acl(entries);
        acl.check()?;
        Ok(acl)
    }

    fn check(&self) -> Result<(), Error> {
        let count = |tag: u16| self.0.iter().filter(|e| e.tag == tag).count();
        let named = count(USER) + count(GROUP) > 0;
        let whole = [OWNER, OWNING_GROUP, OTHER].into_iter().all(|tag| count(tag) == 1);
        let mask = count(MASK) == 1 || count(MASK) == 0 && !named;
        let known = self
            .0
            .iter()
            .all(|e| matches!(e.tag, OWNER | USER | OWNING_GROUP | GROUP | MASK | OTHER) && e.permissions & !RWX == 0);
        let sorted = self.0.is_sorted_by_key(|e| e.tag);
        if whole && mask && known && sorted { Ok(()) } else { Err(Error::Invalid("entries of the ACL")) }
    }

    /// Entries as `getfacl` writes them, with numbers for names, between commas.
    fn text(&self) -> String {
        let entry = |e: &AclEntry| {
            let (tag, id) = match e.tag {
                OWNER => ("user", String::new()),
                USER => ("user", e.id.to_string()),
                OWNING_GROUP => ("group", String::new()),
                GROUP => ("group", e.id.to_string()),
                MASK => ("mask", String::new()),
                _ => ("other", String::new()),
            };
            let may: String = [(4, 'r'), (2, 'w'), (1, 'x')]
                .map(|(bit, letter)| if e.permissions & bit != 0 { letter } else { '-' })
                .into_iter()
                .collect();
            format!("{tag}:{id}:{may}")
        };
        self.0.iter().map(entry).collect::<Vec<_>>().join(",")
    }

    /// The other way. Of a user or group that is written by its name, a fourth field says the number (as star writes it), or
    /// `number` does.
    fn of_text(text: &str, number: impl Fn(&str, bool) -> Option<u32>) -> Result<Acl, Error> {
        let bad =
            || Error::Invalid("an ACL in a form that is not known, or with a name that this machine does not know");
        let mut entries = Vec::new();
        for line in text.split([',', '\n']) {
            let line = line.split(['#', '\t', ' ']).next().unwrap_or_default();
            if line.is_empty() {
                continue;
            }
            let fields: Vec<&str> = line.split(':').collect();
            let [tag, name, may, rest @ ..] = fields.as_slice() else { return Err(bad()) };
            let (unnamed, named) = match *tag {
                "user" | "u" => (OWNER, USER),
                "group" | "g" => (OWNING_GROUP, GROUP),
                "mask" | "m" => (MASK, MASK),
                "other" | "o" => (OTHER, OTHER),
                _ => return Err(bad()),
            };
            let (tag, id) = if name.is_empty() {
                (unnamed, u32::MAX)
            } else {
                let said = name.parse().ok().or_else(|| rest.first()?.parse().ok());
                (named, said.or_else(|| number(name, named == GROUP)).ok_or_else(bad)?)
            };
            let mut permissions = 0;
            for letter in may.bytes() {
                permissions |= match letter {
                    b'r' => 4,
                    b'w' => 2,
                    b'x' => 1,
                    b'-' => 0,
                    _ => return Err(bad()),
                };
            }
            entries.push(AclEntry { tag, permissions, id });
        }
        entries.sort_by_key(|e| (e.tag, e.id));
        if entries.len() > ENTRIES_MAX {
            return Err(bad());
        }
        let acl = Acl(entries);
        acl.check()?;
        Ok(acl)
    }

    /// The value of the xattr.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.0.len() * ENTRY_BYTES);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for e in &self.0 {
            out.extend_from_slice(&e.tag.to_le_bytes());
            out.extend_from_slice(&e.permissions.to_le_bytes());
            out.extend_from_slice(&e.id.to_le_bytes());
        }
        out
    }

    fn get(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|e| e.tag == tag).map(|e| e.permissions)
    }

    fn set(&mut self, tag: u16, permissions: u16) {
        self.0.iter_mut().filter(|e| e.tag == tag).for_each(|e| e.permissions = permissions);
    }

    /// The entry that the middle digit of a mode stands for: the mask where there is one.
    fn group_class(&self) -> u16 {
        if self.get(MASK).is_some() { MASK } else { OWNING_GROUP }
    }

    /// The permission bits that `stat` shows of an inode with this ACL, 0o777 of them.
    pub fn mode(&self) -> u16 {
        let digit = |tag: u16| self.get(tag).unwrap_or(0);
        digit(OWNER) << 6 | digit(self.group_class()) << 3 | digit(OTHER)
    }

    /// True when a mode says all that the ACL says.
    pub fn is_mode_only(&self) -> bool {
        self.0.len() == 3
    }

    /// The ACL after chmod: the classes of the mode change, named entries stay.
    pub fn with_mode(mut self, mode: u16) -> Acl {
        self.set(OWNER, mode >> 6 & RWX);
        self.set(self.group_class(), mode >> 3 & RWX);
        self.set(OTHER, mode & RWX);
        self
    }

    /// What an inode begins with that is made with `mode` in a directory with this default ACL: of each class what both
    /// allow. The umask has no say.
    pub fn inherit(&self, mode: u16) -> Inherited {
        let both = self.mode() & mode & 0o777;
        let access = self.clone().with_mode(both);
        Inherited { mode: mode & !0o777 | both, access: (!access.is_mode_only()).then_some(access) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, permissions, id)| AclEntry { tag, permissions, id }).collect())
    }

    const NOBODY: u32 = u32::MAX;

    fn rich() -> Acl {
        acl(&[
            (OWNER, 7, NOBODY),
            (USER, 6, 1000),
            (USER, 4, 1001),
            (OWNING_GROUP, 5, NOBODY),
            (GROUP, 7, 50),
            (MASK, 6, NOBODY),
            (OTHER, 1, NOBODY),
        ])
    }

    fn plain() -> Acl {
        acl(&[(OWNER, 6, NOBODY), (OWNING_GROUP, 4, NOBODY), (OTHER, 4, NOBODY)])
    }

    #[test]
    fn words_say_the_same() {
        let text = "user::rwx,user:7:r--,user:1000:rw-,group::r-x,group:5:---,mask::rwx,other::--x";
        let number = |name: &str, group: bool| (name == "ann" && !group).then_some(7);
        let value = acl_from_text(text, number).unwrap();
        assert_eq!(acl_to_text(&value).as_deref(), Some(text));
        // As getfacl and star have it.
        let other =
            "other::--x\nuser:joe:rw-:1000\nuser::rwx\nu:ann:r--\t#effective:r--\ngroup::r-x\ng:5:\nmask::rwx\n";
        assert_eq!(acl_from_text(other, number).unwrap(), value);
        for junk in ["", "user::rwx", "user:joe:r--", "user::q", "user", "default:user::rwx", &"user:1:r,".repeat(600)]
        {
            assert!(acl_from_text(junk, number).is_err(), "{junk}");
        }
        assert_eq!(acl_to_text(b"junk"), None);
    }

    #[test]
    fn bytes_of_version_2_and_back() {
        assert_eq!(
            plain().encode(),
            [
                [2, 0, 0, 0].as_slice(),
                &[1, 0, 6, 0, 255, 255, 255, 255],
                &[4, 0, 4, 0, 255, 255, 255, 255],
                &[32, 0, 4, 0, 255, 255, 255, 255]
            ]
            .concat()
        );
        for a in [plain(), rich()] {
            assert_eq!(Acl::decode(&a.encode()).unwrap(), a);
        }
    }

    #[test]
    fn what_is_not_an_acl_is_refused() {
        let good = rich().encode();
        for len in 0..good.len() {
            // Cut between two entries it lacks one that it needs.
            assert!(Acl::decode(&good[..len]).is_err(), "cut to {len}");
        }
        let without = |tag: u16| {
            let mut a = rich();
            a.0.retain(|e| e.tag != tag);
            a
        };
        for tag in [OWNER, OWNING_GROUP, MASK, OTHER] {
            assert!(Acl::decode(&without(tag).encode()).is_err(), "without {tag:#x}");
        }
        let changed = |change: fn(&mut Vec<AclEntry>)| {
            let mut a = rich();
            change(&mut a.0);
            a.encode()
        };
        assert!(Acl::decode(&changed(|e| e.swap(2, 3))).is_err(), "unsorted");
        assert!(Acl::decode(&changed(|e| e[2].tag = OWNER)).is_err(), "two owners");
        assert!(Acl::decode(&changed(|e| e[0].permissions = 8)).is_err(), "strange permission");
        assert!(Acl::decode(&changed(|e| e[6].tag = 64)).is_err(), "strange tag");
        let mut other_version = good;
        other_version[0] = 3;
        assert!(Acl::decode(&other_version).is_err());
    }

    #[test]
    fn modes_and_acls_follow_each_other() {
        assert_eq!((plain().mode(), plain().is_mode_only()), (0o644, true));
        // The middle digit is the mask.
        assert_eq!((rich().mode(), rich().is_mode_only()), (0o761, false));
        let after = rich().with_mode(0o4750);
        assert_eq!(after.mode(), 0o750);
        assert_eq!(after.get(OWNING_GROUP), Some(5), "chmod changes the mask, not the owning group");
        assert_eq!(plain().with_mode(0o600), acl(&[(OWNER, 6, NOBODY), (OWNING_GROUP, 0, NOBODY), (OTHER, 0, NOBODY)]));
    }

    #[test]
    fn new_inodes_get_what_both_the_acl_and_the_mode_allow() {
        let Inherited { mode, access } = rich().inherit(0o2666);
        assert_eq!(mode, 0o2660);
        let access = access.unwrap();
        assert_eq!((access.mode(), access.get(USER), access.get(OWNING_GROUP)), (0o660, Some(6), Some(5)));
        // A default ACL of three entries is a mask of the mode and leaves no ACL.
        assert_eq!(plain().inherit(0o777), Inherited { mode: 0o644, access: None });
    }
}
