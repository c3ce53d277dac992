//! `tersefs train`: builds priors from texts.

use std::path::Path;

use super::{Failure, Outcome};
use crate::host::{Disk, OpenMode, RealDisk};
use crate::models::{Kind, PACKED_BYTES_MAX, train};

/// Largest recipe, bytes.
const RECIPE_BYTES_MAX: u64 = 1 << 20;

/// One prior of a recipe.
#[derive(Debug)]
struct Prior {
    name: String,
    kind: Kind,
    /// Bytes at the end of the text that are read in full; `None` for a prior of revision 1.
    full: Option<usize>,
    /// File, offset, bytes.
    cuts: Vec<(String, u64, usize)>,
}

/// Reads a recipe: lines `prior NAME KIND FULL`, or `prior NAME KIND` for a prior of revision 1, each followed by lines
/// `cut FILE OFFSET LENGTH`; `#` begins a comment.
fn parse(recipe: &str) -> Result<Vec<Prior>, String> {
    let mut priors: Vec<Prior> = Vec::new();
    for (n, line) in recipe.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bad = || format!("line {}: `{line}` is neither `prior NAME KIND FULL` nor `cut FILE OFFSET LENGTH`", n + 1);
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["prior", name, kind, full @ ..] if full.len() < 2 => {
                let kind = match *kind {
                    "text" => Kind::Text,
                    "nested" => Kind::Nested,
                    "words" => Kind::Words,
                    "fields" => Kind::Fields,
                    "lines" => Kind::Lines,
                    "binary" => Kind::Binary,
                    "code" => Kind::Code,
                    _ => {
                        return Err(format!(
                            "line {}: kind is words, fields, text, nested, lines, binary or code, not `{kind}`",
                            n + 1
                        ));
                    }
                };
                if !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    return Err(format!(
                        "line {}: the name of a prior has letters and digits only, not `{name}`",
                        n + 1
                    ));
                }
                let full = full.first().map(|full| full.parse()).transpose().map_err(|_| bad())?;
                priors.push(Prior { name: name.to_string(), kind, full, cuts: Vec::new() });
            }
            ["cut", file, offset, len] => {
                let prior = priors.last_mut().ok_or_else(bad)?;
                let offset = offset.parse().map_err(|_| bad())?;
                let len = len.parse().ok().filter(|l| *l <= PACKED_BYTES_MAX).ok_or_else(bad)?;
                prior.cuts.push((file.to_string(), offset, len));
            }
            _ => return Err(bad()),
        }
    }
    Ok(priors)
}

/// Bytes of a file.
fn read(disk: &dyn Disk, file: &str, offset: u64, len: usize) -> Result<Vec<u8>, Failure> {
    let open = disk.open(file, OpenMode::Read).map_err(|e| Failure(format!("cannot open {file}: {e}")))?;
    let mut bytes = vec![0; len];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match open.read_at(rest, offset + done as u64) {
            Ok(0) => return Err(Failure(format!("{file} ends before byte {}", offset + len as u64))),
            Ok(n) => done += n,
            Err(e) => return Err(Failure(format!("cannot read {file}: {e}"))),
        }
    }
    Ok(bytes)
}

/// Builds the priors that a recipe names, from files below `from`, as `to`/NAME.prior.
pub(super) fn builtin(recipe: &Path, from: &Path, to: &Path) -> Outcome {
    let (parent, name) = match (recipe.parent(), recipe.file_name().and_then(|n| n.to_str())) {
        (Some(parent), Some(name)) => (if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, name),
        _ => return Err(Failure(format!("{} is not a file", recipe.display()))),
    };
    let open = |path: &Path, create: bool| {
        RealDisk::open(path, create).map_err(|e| Failure(format!("cannot use {}: {e}", path.display())))
    };
    let home = open(parent, false)?;
    let len = home
        .open(name, OpenMode::Read)
        .and_then(|f| f.len())
        .map_err(|e| Failure(format!("cannot open {}: {e}", recipe.display())))?;
    if len > RECIPE_BYTES_MAX {
        return Err(Failure(format!("{} has {len} bytes; a recipe has at most {RECIPE_BYTES_MAX}", recipe.display())));
    }
    let text = String::from_utf8(read(home.as_ref(), name, 0, len as usize)?)?;
    let priors = parse(&text).map_err(|e| Failure(format!("{}: {e}", recipe.display())))?;
    let (corpus, target) = (open(from, false)?, open(to, true)?);
    for Prior { name, kind, full, cuts } in priors {
        let mut text = Vec::new();
        for (file, offset, len) in cuts {
            text.extend(read(corpus.as_ref(), &file, offset, len)?);
        }
        let prior = train(kind, &text, full).map_err(|e| Failure(format!("prior {name}: {e}")))?;
        let path = format!("{name}.prior");
        let written = target.open(&path, OpenMode::Create).and_then(|file| {
            file.set_len(0)?;
            file.write_at(&prior, 0)?;
            file.sync_data()
        });
        written.map_err(|e| Failure(format!("cannot write {path} in {}: {e}", to.display())))?;
        println!("{path}: {} bytes of text in {} bytes", text.len(), prior.len());
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(recipe: &str, expected: Result<usize, &str>) {
        match (parse(recipe), expected) {
            (Ok(priors), Ok(n)) => assert_eq!(priors.iter().map(|p| p.cuts.len()).sum::<usize>(), n),
            (Err(e), Err(part)) => assert!(e.contains(part), "{e}"),
            (found, _) => panic!("{recipe}: {found:?}"),
        }
    }

    #[test]
    fn recipes_are_read_or_refused() {
        check("# nothing\n\n", Ok(0));
        check("prior a text\ncut x 0 10\ncut y 5 6\nprior b binary\ncut z 1 2", Ok(3));
        check("cut x 0 10", Err("line 1"));
        check("prior a text\ncut x 0", Err("line 2"));
        check("prior a text\ncut x 0 99999999", Err("line 2"));
        check("prior a text 5\ncut x 0 10", Ok(1));
        check("prior a text five", Err("line 1"));
        check("prior a text 5 6", Err("line 1"));
        check("prior a verse", Err("verse"));
        check("prior ../a text", Err("letters"));
    }

    #[test]
    fn a_recipe_makes_the_same_prior_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), true).unwrap();
        for (name, bytes) in [
            ("recipe", &b"prior a text\ncut t 3 900\nprior b text 90\ncut t 3 1000"[..]),
            ("t", &b"some text, some other text; ".repeat(40)[..]),
        ] {
            disk.open(name, OpenMode::Create).unwrap().write_at(bytes, 0).unwrap();
        }
        for to in ["one", "two"] {
            let to = dir.path().join(to);
            assert_eq!(builtin(&dir.path().join("recipe"), dir.path(), &to).unwrap(), 0);
        }
        let file = |d: &str, name: &str| {
            let path = format!("{d}/{name}.prior");
            let len = disk.open(&path, OpenMode::Read).unwrap().len().unwrap();
            read(disk.as_ref(), &path, 0, len as usize).unwrap()
        };
        for name in ["a", "b"] {
            assert!(file("one", name).len() > 9 && file("one", name) == file("two", name));
        }
        assert!(read(disk.as_ref(), "t", 1000, 900).is_err());
    }
}
