//! The tree of names of a store, walked once: paths of inodes, and what is wrong with the names.

use std::collections::{BTreeMap, VecDeque};

use crate::base::Ino;
use crate::format::FileKind;
use crate::store::{Error, Store};

/// Entries and inodes read at a time.
const PAGE: usize = 4096;

/// Names of a store.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// One path of each inode that has a name.
    pub paths: BTreeMap<Ino, String>,
    /// Names that point to each inode, subdirectories' ".." included.
    pub links: BTreeMap<Ino, u64>,
    /// Names that point to nothing, or directories that are reached twice.
    pub wrong: Vec<(String, String)>,
}

/// Walks all directories from the root.
pub(super) fn walk(store: &Store) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    tree.paths.insert(Ino::ROOT, "/".to_string());
    tree.links.insert(Ino::ROOT, 2);
    let mut waiting = VecDeque::from([Ino::ROOT]);
    while let Some(dir) = waiting.pop_front() {
        let above = tree.paths.get(&dir).cloned().unwrap_or_default();
        let mut after = 0;
        loop {
            let page = store.dentries(dir, after, PAGE)?;
            let Some((_, last)) = page.last() else { break };
            after = last.cookie;
            for (name, dentry) in page {
                let path = format!("{}/{}", above.trim_end_matches('/'), String::from_utf8_lossy(&name));
                match store.inode(dentry.ino)? {
                    None => {
                        let what = format!("the name points to inode {}, which does not exist", dentry.ino);
                        tree.wrong.push((path, what));
                        continue;
                    }
                    Some(rec) if rec.kind != dentry.kind => {
                        tree.wrong
                            .push((path.clone(), format!("the name says {:?}, the inode {:?}", dentry.kind, rec.kind)));
                    }
                    Some(_) => {}
                }
                let seen = tree.paths.contains_key(&dentry.ino);
                if dentry.kind == FileKind::Directory {
                    if seen {
                        tree.wrong.push((path, format!("directory {} has a second name", dentry.ino)));
                        continue;
                    }
                    *tree.links.entry(dir).or_default() += 1;
                    *tree.links.entry(dentry.ino).or_default() += 1;
                    waiting.push_back(dentry.ino);
                }
                *tree.links.entry(dentry.ino).or_default() += 1;
                tree.paths.entry(dentry.ino).or_insert(path);
            }
        }
    }
    Ok(tree)
}

/// Calls `f` with every inode.
pub(super) fn each_inode(
    store: &Store,
    mut f: impl FnMut(crate::format::InodeRecord) -> Result<(), Error>,
) -> Result<(), Error> {
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
