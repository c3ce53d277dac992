//! Operations by chance on a mounted volume, with what they promise noted in a journal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::journal::Journal;
use super::{Dice, Mount, sys};

/// What an operation has to have done so that it survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lasts {
    /// The daemon dies: what returned lasts; of an overwrite of what may be coded, what was closed.
    Returned,
    /// The machine loses its power: what was synced lasts.
    Synced,
}

pub struct Workload<'a> {
    pub dice: Dice,
    pub journal: Journal,
    pub lasts: Lasts,
    /// The place in time, however it is counted; never goes back.
    pub clock: Box<dyn FnMut() -> usize + 'a>,
    /// Files and directories made so far.
    names: u64,
}

/// Closes a file; the error of close(2) is not lost, as it is when a file is dropped.
fn close(file: File) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is this file's own, given up by it.
    if unsafe { libc::close(file.into_raw_fd()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl<'a> Workload<'a> {
    pub fn new(seed: u64, lasts: Lasts, clock: impl FnMut() -> usize + 'a) -> Workload<'a> {
        Workload { dice: Dice(seed), journal: Journal::default(), lasts, clock: Box::new(clock), names: 0 }
    }

    fn name(&mut self, kind: char) -> String {
        self.names += 1;
        format!("{kind}{}", self.names)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let most = if self.dice.below(5) == 0 { 500_000 } else { 25_000 };
        let len = 1 + self.dice.below(most) as usize;
        if self.dice.below(2) == 0 { self.dice.text(len) } else { self.dice.noise(len) }
    }

    fn returned(&mut self, name: &str) {
        if self.lasts == Lasts::Returned {
            self.synced(name);
        }
    }

    fn synced(&mut self, name: &str) {
        let now = (self.clock)();
        self.journal.promise(name, now);
    }

    fn sync_names(mount: &Mount) -> io::Result<()> {
        File::open(&mount.point).and_then(|d| d.sync_all())
    }

    /// Makes a file.
    pub fn create(&mut self, mount: &Mount, data: Vec<u8>, sync: bool) -> io::Result<String> {
        let (name, begun) = (self.name('f'), (self.clock)());
        self.journal.begin(&name, Some(data.clone()), false, begun);
        let mut file = File::create(mount.path(&name))?;
        file.write_all(&data)?;
        self.returned(&name);
        if sync {
            file.sync_all()?;
            self.synced(&name);
        }
        Ok(name)
    }

    pub fn remove(&mut self, mount: &Mount, name: &str, sync: bool) -> io::Result<()> {
        let begun = (self.clock)();
        self.journal.begin(name, None, true, begun);
        fs::remove_file(mount.path(name))?;
        self.returned(name);
        if sync {
            Self::sync_names(mount)?;
            self.synced(name);
        }
        Ok(())
    }

    /// One operation. Returns the number of syncs that were asked for and done.
    ///
    /// # Errors
    /// Of any call: the daemon is dead, or it is a find.
    pub fn step(&mut self, mount: &Mount) -> io::Result<u32> {
        let live = self.journal.live();
        let sync = self.dice.below(2) == 0;
        let kind = self.dice.below(100);
        let Some(name) = live.get(self.dice.below(live.len() as u64) as usize).cloned() else {
            let data = self.bytes();
            return self.create(mount, data, sync).map(|_| u32::from(sync));
        };
        let now = self.journal.now(&name).unwrap_or_default();
        match kind {
            0..=32 => {
                let data = self.bytes();
                self.create(mount, data, sync)?;
            }
            33..=52 => {
                let (mut after, data) = (now, self.bytes());
                let at = self.dice.below(after.len() as u64 + 1) as usize;
                after.resize(after.len().max(at + data.len()), 0);
                after[at..at + data.len()].copy_from_slice(&data);
                let begun = (self.clock)();
                self.journal.begin(&name, Some(after), false, begun);
                let file = OpenOptions::new().write(true).open(mount.path(&name))?;
                file.write_all_at(&data, at as u64)?;
                if sync {
                    file.sync_data()?;
                    self.synced(&name);
                } else {
                    close(file)?;
                    self.returned(&name);
                }
            }
            53..=67 => {
                // As programs save: a new file, renamed over the old one, and nobody calls fsync on it.
                let (data, begun) = (self.bytes(), (self.clock)());
                self.journal.begin(&name, Some(data.clone()), true, begun);
                fs::write(mount.path("new"), &data)?;
                fs::rename(mount.path("new"), mount.path(&name))?;
                self.returned(&name);
                if sync {
                    Self::sync_names(mount)?;
                    self.synced(&name);
                }
            }
            68..=76 => {
                let mut after = now;
                let len = self.dice.below(after.len() as u64 + 5000);
                after.resize(len as usize, 0);
                let begun = (self.clock)();
                self.journal.begin(&name, Some(after), false, begun);
                let file = OpenOptions::new().write(true).open(mount.path(&name))?;
                file.set_len(len)?;
                self.returned(&name);
                if sync {
                    file.sync_all()?;
                    self.synced(&name);
                }
            }
            77..=83 => self.remove(mount, &name, sync)?,
            84..=88 => {
                let name = self.name('d');
                fs::create_dir(mount.path(&name))?;
                if sync {
                    Self::sync_names(mount)?;
                }
                if sync || self.lasts == Lasts::Returned {
                    let done = (self.clock)();
                    self.journal.dirs.insert(name, done);
                }
            }
            89..=92 => {
                Self::sync_names(mount)?;
                return Ok(1);
            }
            _ => {
                self.annotate(mount, &name)?;
                return Ok(0);
            }
        }
        Ok(u32::from(sync))
    }

    /// Gives a file a long attribute, which makes the log long, so that it is worth compacting.
    pub fn annotate(&mut self, mount: &Mount, name: &str) -> io::Result<()> {
        let value = vec![self.dice.below(256) as u8; 30_000];
        sys::set_xattr(&mount.path(name), "user.note", &value, 0)
    }
}
