//! Names: where each leads, how often each inode is named, and that every directory hangs below the root once.

use std::collections::BTreeMap;

use super::{Check, Findings, Fix, Kind};
use crate::base::Ino;
use crate::format::{Dentry, FileKind, InodeRecord, MetaOp};
use crate::store::{Error, Store};

/// Names and inodes read at a time.
const PAGE: usize = 4096;
/// Directories climbed to find a path for a message.
const DEPTH_MAX: usize = 4096;

/// How a directory hangs together with the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    Unknown,
    /// On the way up from where a climb began.
    Climbing,
    /// Below the root, or below a directory without a name, which is a problem of its own.
    Settled,
}

/// What is kept of an inode: no more than is needed, since there may be millions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    ino: Ino,
    /// Parent that the record names.
    says: Ino,
    /// Directory of the name that counts: the one in `says` if there is any, else the first.
    parent: Ino,
    nlink: u32,
    pub names: u32,
    /// Directories named in this one.
    subdirs: u32,
    pub kind: FileKind,
    reach: Reach,
}

/// All inodes, ascending.
#[derive(Debug, Default)]
pub(super) struct Nodes(Vec<Node>);

impl Nodes {
    fn at(&self, ino: Ino) -> Option<usize> {
        self.0.binary_search_by_key(&ino, |n| n.ino).ok()
    }

    pub fn get(&self, ino: Ino) -> Option<&Node> {
        self.0.get(self.at(ino)?)
    }

    fn change(&mut self, ino: Ino, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.at(ino).and_then(|at| self.0.get_mut(at)) {
            change(node);
        }
    }

    fn is_directory(&self, ino: Ino) -> bool {
        self.get(ino).is_some_and(|n| n.kind == FileKind::Directory)
    }

    /// A path that leads to an inode; `None` when none does. Looks through every directory on the way.
    pub fn path(&self, store: &Store, ino: Ino) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let parent = self.get(at).filter(|n| n.names > 0 && parts.len() < DEPTH_MAX)?.parent;
            parts.push(String::from_utf8_lossy(&name_of(store, parent, at)?).into_owned());
            at = parent;
        }
        parts.reverse();
        Some(format!("/{}", parts.join("/")))
    }

    /// A path of a name in a directory.
    fn path_in(&self, store: &Store, parent: Ino, name: &[u8]) -> String {
        let above = self.path(store, parent).unwrap_or_else(|| format!("inode {parent}"));
        format!("{}/{}", above.trim_end_matches('/'), String::from_utf8_lossy(name))
    }
}

fn name_of(store: &Store, parent: Ino, ino: Ino) -> Option<Vec<u8>> {
    let mut after = Vec::new();
    loop {
        let page = store.names(Some((parent, &after)), PAGE).ok()?;
        for (dir, name, dentry) in &page {
            if *dir != parent {
                return None;
            }
            if dentry.ino == ino {
                return Some(name.clone());
            }
        }
        after = page.last()?.1.clone();
    }
}

/// Calls `f` with every name of a store.
fn each_name(store: &Store, mut f: impl FnMut(Ino, &[u8], Dentry) -> Result<(), Error>) -> Result<(), Error> {
    let mut after: Option<(Ino, Vec<u8>)> = None;
    loop {
        let page = store.names(after.as_ref().map(|(parent, name)| (*parent, name.as_slice())), PAGE)?;
        let Some((parent, name, _)) = page.last() else { return Ok(()) };
        after = Some((*parent, name.clone()));
        for (parent, name, dentry) in page {
            f(parent, &name, dentry)?;
        }
    }
}

/// Calls `f` with every inode of a store.
pub(super) fn each_inode(store: &Store, mut f: impl FnMut(InodeRecord) -> Result<(), Error>) -> Result<(), Error> {
    let mut after = Ino(0);
    loop {
        let page = store.inodes(after, PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.ino;
        for rec in page {
            f(rec)?;
        }
    }
}

fn remove(parent: Ino, name: &[u8]) -> Fix {
    Fix::Ops(vec![MetaOp::RemoveDentry { parent, name: name.to_vec() }])
}

impl Check<'_> {
    /// Checks all names; gives back what else is to be checked of inodes.
    pub(super) fn names(&mut self, found: &mut Findings) -> Result<Nodes, Error> {
        let store = self.store;
        let mut nodes = Nodes::default();
        each_inode(store, |rec| {
            let root = rec.ino == Ino::ROOT;
            nodes.0.push(Node {
                ino: rec.ino,
                says: rec.parent,
                parent: Ino(0),
                nlink: rec.nlink,
                // The root needs no name; any that leads to it is one too many.
                names: u32::from(root),
                subdirs: 0,
                kind: rec.kind,
                reach: if root { Reach::Settled } else { Reach::Unknown },
            });
            Ok(())
        })?;
        if !nodes.is_directory(Ino::ROOT) {
            let root = super::lost::directory(Ino::ROOT, 0o755, Ino::ROOT);
            let fix = ("make an empty root directory".to_string(), Fix::Root(Box::new(root)));
            found.add(Kind::MissingRoot, "/".into(), "there is no root directory".into(), Some(fix));
        }
        let mut twice = false;
        each_name(store, |parent, name, dentry| self.name(&mut nodes, found, &mut twice, parent, name, dentry))?;
        if twice {
            self.second_names(&mut nodes, found)?;
        }
        self.reach(&mut nodes, found)?;
        Ok(nodes)
    }

    /// One name, on the first pass.
    fn name(
        &self,
        nodes: &mut Nodes,
        found: &mut Findings,
        twice: &mut bool,
        parent: Ino,
        name: &[u8],
        dentry: Dentry,
    ) -> Result<(), Error> {
        let store = self.store;
        let shown = || String::from_utf8_lossy(name).into_owned();
        if !nodes.is_directory(parent) && parent != Ino::ROOT {
            let what = format!("the name {} is in a directory {parent}, which does not exist", shown());
            let fix = ("remove the name".to_string(), remove(parent, name));
            found.add(Kind::NameInNoDirectory, format!("inode {parent}"), what, Some(fix));
            return Ok(());
        }
        let Some(target) = nodes.get(dentry.ino).copied() else {
            let what = format!("the name points to inode {}, which does not exist", dentry.ino);
            let fix = ("remove the name".to_string(), remove(parent, name));
            found.add(Kind::NameToNothing, nodes.path_in(store, parent, name), what, Some(fix));
            return Ok(());
        };
        if target.kind != dentry.kind {
            let what = format!("the name says {:?}, the inode {:?}", dentry.kind, target.kind);
            let mended = Dentry { kind: target.kind, ..dentry };
            let op = MetaOp::PutDentry { parent, name: name.to_vec(), dentry: mended };
            let fix = (format!("let the name say {:?}", target.kind), Fix::Ops(vec![op]));
            found.add(Kind::WrongKindInName, nodes.path_in(store, parent, name), what, Some(fix));
        } else if store.name_at(parent, dentry.cookie)?.as_deref() != Some(name) {
            let mended = Dentry { cookie: store.allocate_serial(), ..dentry };
            let op = MetaOp::PutDentry { parent, name: name.to_vec(), dentry: mended };
            let fix = ("give the name a place of its own".to_string(), Fix::Ops(vec![op]));
            let what = "the directory does not list this name".to_string();
            found.add(Kind::UnlistedName, nodes.path_in(store, parent, name), what, Some(fix));
        }
        *twice |= target.kind == FileKind::Directory && target.names > 0;
        nodes.change(dentry.ino, |node| {
            if node.names == 0 || (parent == node.says && node.parent != node.says) {
                node.parent = parent;
            }
            node.names += 1;
        });
        if target.kind == FileKind::Directory {
            nodes.change(parent, |node| node.subdirs += 1);
        }
        Ok(())
    }

    /// Directories with several names keep the one that counts.
    fn second_names(&self, nodes: &mut Nodes, found: &mut Findings) -> Result<(), Error> {
        let mut kept: BTreeMap<Ino, ()> = BTreeMap::new();
        let mut dropped: Vec<(Ino, Ino)> = Vec::new();
        each_name(self.store, |parent, name, dentry| {
            let Some(node) = nodes.get(dentry.ino).filter(|n| n.kind == FileKind::Directory && n.names > 1) else {
                return Ok(());
            };
            let counts = node.ino != Ino::ROOT && parent == node.parent && kept.insert(node.ino, ()).is_none();
            if !counts && nodes.is_directory(parent) {
                let what = format!("directory {} has another name", dentry.ino);
                let fix = ("remove this name, keep the other".to_string(), remove(parent, name));
                found.add(Kind::DirectoryTwoNames, nodes.path_in(self.store, parent, name), what, Some(fix));
                dropped.push((parent, dentry.ino));
            }
            Ok(())
        })?;
        for (parent, ino) in dropped {
            nodes.change(parent, |n| n.subdirs = n.subdirs.saturating_sub(1));
            nodes.change(ino, |n| n.names = n.names.saturating_sub(1));
        }
        Ok(())
    }

    /// Every directory climbs to the root, or to one without a name.
    fn reach(&self, nodes: &mut Nodes, found: &mut Findings) -> Result<(), Error> {
        for start in 0..nodes.0.len() {
            let Some(first) = nodes.0.get(start).filter(|n| n.kind == FileKind::Directory) else { continue };
            let mut climbed = Vec::new();
            let mut at = first.ino;
            let cycle = loop {
                let Some(node) = nodes.get(at) else { break None };
                match node.reach {
                    Reach::Settled => break None,
                    Reach::Climbing => break Some(at),
                    Reach::Unknown => {}
                }
                climbed.push(at);
                let (named, up) = (node.names > 0, node.parent);
                nodes.change(at, |n| n.reach = Reach::Climbing);
                if !named {
                    break None;
                }
                at = up;
            };
            for ino in climbed {
                nodes.change(ino, |n| n.reach = Reach::Settled);
            }
            let Some(in_cycle) = cycle else { continue };
            let Some(parent) = nodes.get(in_cycle).map(|n| n.parent) else { continue };
            let Some(name) = name_of(self.store, parent, in_cycle) else { continue };
            let what =
                format!("directory {in_cycle} lies below itself, under the name {}", String::from_utf8_lossy(&name));
            let fix = ("remove this name; the directory goes to lost+found".to_string(), remove(parent, &name));
            found.add(Kind::DirectoryCycle, format!("inode {in_cycle}"), what, Some(fix));
        }
        Ok(())
    }

    /// Names, links and parent of an inode against its record; changes the record to what it should be.
    pub(super) fn links(&self, nodes: &Nodes, found: &mut Findings, rec: &mut InodeRecord) -> bool {
        let Some(node) = nodes.get(rec.ino).copied() else { return false };
        let directory = rec.kind == FileKind::Directory;
        let wanted = if directory { 2 + node.subdirs } else { node.names };
        if node.names == 0 && rec.nlink == 0 {
            let what = format!("inode {} was unlinked while it was open", rec.ino);
            let fix = ("remove it".to_string(), Fix::Ops(vec![MetaOp::RemoveInode(rec.ino)]));
            found.note(Kind::OrphanInode, format!("inode {}", rec.ino), what, Some(fix));
            return false;
        }
        if node.names == 0 {
            let what = format!("inode {} has no name", rec.ino);
            let fix = (format!("name it lost+found/{}", rec.ino), Fix::Attach(rec.ino));
            found.add(Kind::InodeWithoutName, format!("inode {}", rec.ino), what, Some(fix));
            return false;
        }
        let mut changed = false;
        if node.nlink != wanted {
            let at = found.path(self.store, nodes, rec.ino);
            let what = format!("inode {} has {wanted} links, its record says {}", rec.ino, node.nlink);
            // Written with whatever else of the record is wrong.
            found.add(Kind::WrongLinkCount, at, what, Some((format!("let it say {wanted}"), Fix::InRecord)));
            rec.nlink = wanted;
            changed = true;
        }
        let parent = if rec.ino == Ino::ROOT { Ino::ROOT } else { node.parent };
        if directory && rec.parent != parent {
            let at = found.path(self.store, nodes, rec.ino);
            let what = format!("directory {} lies in {parent}, its record says {}", rec.ino, rec.parent);
            found.add(Kind::WrongParent, at, what, Some((format!("let it say {parent}"), Fix::InRecord)));
            rec.parent = parent;
            changed = true;
        }
        changed
    }
}
