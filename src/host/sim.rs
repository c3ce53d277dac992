//! `SimDisk`: a disk in memory that knows what would survive.
//!
//! It keeps two things of every file: what the kernel holds (what reads see) and what is on disk (as of the last sync).
//! Changes since then are pending, one by one. A test can cut the power at any step and ask for a disk that could be left:
//! none of the pending changes, all of them, or any subset, with the last write torn. Names are pending until their
//! directory is synced, as POSIX has it. Faults can be ordered for any step.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::{Disk, DiskFile, OpenMode, Seek, Space};

/// Unit of holes, bytes.
const PAGE: u64 = 4096;
/// Where a torn write may be cut, bytes.
const SECTOR: usize = 512;
const ENOSPC: i32 = 28;

/// What may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A write (half of it is written), a cut, a hole or a new file.
    Write,
    /// A sync of a file or a directory.
    Sync,
    /// A read of a file.
    Read,
    /// The opening of a file, or of a directory for its sync.
    Open,
}

/// A fault that was ordered.
#[derive(Clone, Debug)]
struct Order {
    fault: Fault,
    /// Strikes files whose paths begin like this.
    prefix: String,
    /// Matching steps to let pass, and then to strike.
    skip: u64,
    strikes: u64,
    errno: i32,
}

/// Which pending changes a disk keeps when the power is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// Only what was synced.
    Synced,
    /// Everything the kernel held: the process died, not the machine.
    Kernel,
    /// Of each file's and each directory's changes the first few, chosen by a seed, the last one possibly torn: a disk
    /// that keeps order within a file.
    Ordered(u64),
    /// Any subset, chosen by a seed; of each file's writes any subset, the last one possibly torn.
    Random(u64),
}

/// A pending change of a file.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
    Punch { offset: u64, len: u64 },
}

/// Bytes with holes: pages that were written.
#[derive(Clone, Debug, Default)]
struct Bytes {
    len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Bytes {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, data } => {
                let mut at = *offset;
                let mut rest = data.as_slice();
                while !rest.is_empty() {
                    let (page, skip) = (at / PAGE, (at % PAGE) as usize);
                    let n = rest.len().min(PAGE as usize - skip);
                    let bytes = self.pages.entry(page).or_insert_with(|| vec![0; PAGE as usize]);
                    bytes[skip..skip + n].copy_from_slice(&rest[..n]);
                    rest = &rest[n..];
                    at += n as u64;
                }
                self.len = self.len.max(at);
            }
            Change::SetLen(len) => {
                if *len < self.len {
                    self.zero(*len, self.len - len);
                    let first_free = len.div_ceil(PAGE);
                    self.pages.split_off(&first_free);
                }
                self.len = *len;
            }
            Change::Punch { offset, len } => {
                let len = (*len).min(self.len.saturating_sub(*offset));
                self.zero(*offset, len);
                let pages = offset.div_ceil(PAGE)..(offset + len) / PAGE;
                for page in pages {
                    self.pages.remove(&page);
                }
            }
        }
    }

    fn zero(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        if len == 0 {
            return;
        }
        for (page, bytes) in self.pages.range_mut(offset / PAGE..end.div_ceil(PAGE)) {
            let start = page * PAGE;
            let from = offset.saturating_sub(start).min(PAGE) as usize;
            let to = (end - start).min(PAGE) as usize;
            bytes[from..to].fill(0);
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = (buf.len() as u64).min(self.len.saturating_sub(offset)) as usize;
        let mut done = 0;
        while done < n {
            let at = offset + done as u64;
            let (page, skip) = (at / PAGE, (at % PAGE) as usize);
            let part = (n - done).min(PAGE as usize - skip);
            match self.pages.get(&page) {
                Some(bytes) => buf[done..done + part].copy_from_slice(&bytes[skip..skip + part]),
                None => buf[done..done + part].fill(0),
            }
            done += part;
        }
        n
    }

    fn seek(&self, offset: u64, what: Seek) -> Option<u64> {
        if offset >= self.len {
            return None;
        }
        match what {
            Seek::Data => {
                let (page, _) = self.pages.range(offset / PAGE..).next()?;
                let at = (page * PAGE).max(offset);
                (at < self.len).then_some(at)
            }
            Seek::Hole => {
                let mut page = offset / PAGE;
                while self.pages.contains_key(&page) {
                    page += 1;
                }
                Some((page * PAGE).max(offset).min(self.len))
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Node {
    kernel: Bytes,
    disk: Bytes,
    pending: Vec<Change>,
    /// Bytes from the start that have space of their own, written or not.
    reserved: u64,
}

impl Node {
    /// Pages that the file takes.
    fn pages(&self) -> u64 {
        let reserved = self.reserved.div_ceil(PAGE);
        let written_there = self.kernel.pages.range(..reserved).count() as u64;
        self.kernel.pages.len() as u64 + reserved - written_there
    }

    /// Pages that a write would take beyond those.
    fn pages_wanted(&self, offset: u64, len: u64) -> u64 {
        let first = (offset / PAGE).max(self.reserved.div_ceil(PAGE));
        let end = (offset + len).div_ceil(PAGE);
        if first >= end { 0 } else { end - first - self.kernel.pages.range(first..end).count() as u64 }
    }
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    File(u64),
    Directory,
}

/// A pending change of names: in `dir`.
#[derive(Clone, Debug)]
struct NameChange {
    dir: String,
    path: String,
    to: Option<Target>,
    /// The name in the same directory that it had before: a rename within one is on disk, or it is not.
    before: Option<String>,
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Target>) {
        if let Some(before) = &self.before {
            move_name(names, before, &self.path);
        }
        match self.to {
            Some(target) => names.insert(self.path.clone(), target),
            None => names.remove(&self.path),
        };
    }
}

/// Moves a name, with all that is below it.
fn move_name(names: &mut BTreeMap<String, Target>, from: &str, to: &str) {
    let below = format!("{from}/");
    let inside: Vec<String> = names
        .range(below.clone()..)
        .map(|(path, _)| path.clone())
        .take_while(|path| path.starts_with(&below))
        .collect();
    for path in std::iter::once(from.to_string()).chain(inside) {
        if let Some(target) = names.remove(&path) {
            names.insert(format!("{to}{}", &path[from.len()..]), target);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Node>,
    next: u64,
    kernel_names: BTreeMap<String, Target>,
    disk_names: BTreeMap<String, Target>,
    pending_names: Vec<NameChange>,
    writes: u64,
    syncs: u64,
    /// Power goes at this sync: it and all later calls fail.
    cut_at_sync: Option<u64>,
    off: bool,
    orders: Vec<Order>,
    /// Bytes the disk holds; `None` for more than any test writes.
    capacity: Option<u64>,
}

/// A disk in memory. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Lock of the store: held while this is alive elsewhere.
    holder: Arc<Mutex<Weak<()>>>,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn power_is_out() -> io::Error {
    io::Error::other("the power is out (simulated)")
}

/// Pseudo-random numbers from a seed (SplitMix64, G. Steele and others, 2014): near seeds give unrelated rolls.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % sides.max(1)
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State::default())), holder: Arc::new(Mutex::new(Weak::new())) }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Syncs so far, of files and directories.
    pub fn syncs(&self) -> u64 {
        self.lock_state().syncs
    }

    /// Writes so far: everything that `Fault::Write` can hit.
    pub fn writes(&self) -> u64 {
        self.lock_state().writes
    }

    /// Cuts the power at sync number `n` (the first is 1), before it takes effect.
    pub fn cut_power_at_sync(&self, n: u64) {
        self.lock_state().cut_at_sync = Some(n);
    }

    /// Makes write or sync number `n` (counted from 1 over the disk's life) fail with an errno.
    pub fn fail_at(&self, fault: Fault, n: u64, errno: i32) {
        let mut state = self.lock_state();
        let before = match fault {
            Fault::Write => state.writes,
            Fault::Sync => state.syncs,
            Fault::Read | Fault::Open => 0,
        };
        let skip = n.saturating_sub(before + 1);
        state.orders.push(Order { fault, prefix: String::new(), skip, strikes: 1, errno });
    }

    /// Makes steps on files whose paths begin with `prefix` fail: after `skip` of them, `strikes` times.
    pub fn fail_on(&self, fault: Fault, prefix: &str, skip: u64, strikes: u64, errno: i32) {
        self.lock_state().orders.push(Order { fault, prefix: prefix.to_string(), skip, strikes, errno });
    }

    /// Ends all faults.
    pub fn mend(&self) {
        self.lock_state().orders.clear();
    }

    /// Gives the disk a size, bytes: writes beyond it fail with ENOSPC after what fits.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock_state().capacity = Some(bytes);
    }

    /// Flips bits of a byte in the kernel and on disk: rot. False when there is no such byte.
    pub fn rot(&self, path: &str, offset: u64, xor: u8) -> bool {
        let mut state = self.lock_state();
        let Some(Target::File(id)) = state.kernel_names.get(path).copied() else { return false };
        let Some(node) = state.files.get_mut(&id) else { return false };
        let mut byte = [0];
        if node.kernel.read(&mut byte, offset) == 0 {
            return false;
        }
        let change = Change::Write { offset, data: vec![byte[0] ^ xor] };
        node.kernel.apply(&change);
        node.disk.apply(&change);
        true
    }

    /// Paths of all files, ascending, with their bytes.
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.lock_state();
        state
            .kernel_names
            .iter()
            .filter_map(|(path, t)| match t {
                Target::File(id) => state.files.get(id).map(|n| (path.clone(), n.kernel.len)),
                Target::Directory => None,
            })
            .collect()
    }

    /// A new disk that holds what could be left of this one now.
    pub fn survivor(&self, survival: Survival) -> SimDisk {
        let state = self.lock_state();
        let mut dice = match survival {
            Survival::Random(seed) | Survival::Ordered(seed) => Dice(seed),
            Survival::Synced | Survival::Kernel => Dice(0),
        };
        let mut names = match survival {
            Survival::Kernel => state.kernel_names.clone(),
            Survival::Synced | Survival::Ordered(_) | Survival::Random(_) => state.disk_names.clone(),
        };
        if matches!(survival, Survival::Ordered(_)) {
            // Directories are independent of each other; each keeps its order.
            let mut kept: BTreeMap<&str, u64> = BTreeMap::new();
            for change in &state.pending_names {
                *kept.entry(change.dir.as_str()).or_default() += 1;
            }
            kept.values_mut().for_each(|count| *count = dice.roll(*count + 1));
            for change in &state.pending_names {
                match kept.get_mut(change.dir.as_str()) {
                    None | Some(0) => continue,
                    Some(left) => *left -= 1,
                }
                change.apply(&mut names);
            }
        }
        if matches!(survival, Survival::Random(_)) {
            for change in &state.pending_names {
                if dice.roll(2) == 0 {
                    change.apply(&mut names);
                }
            }
        }
        // A name whose directory did not survive is gone with it.
        let all: Vec<String> = names.keys().cloned().collect();
        for path in all {
            let dir = parent(&path);
            if !dir.is_empty() && !names.contains_key(dir) {
                names.remove(&path);
            }
        }
        let mut files = BTreeMap::new();
        for target in names.values() {
            let Target::File(id) = target else { continue };
            let Some(node) = state.files.get(id) else { continue };
            let bytes = match survival {
                Survival::Kernel => node.kernel.clone(),
                Survival::Synced => node.disk.clone(),
                Survival::Ordered(_) => {
                    let mut bytes = node.disk.clone();
                    let kept = dice.roll(node.pending.len() as u64 + 1) as usize;
                    for (n, change) in node.pending.iter().take(kept).enumerate() {
                        match change {
                            Change::Write { offset, data } if n + 1 == kept => {
                                let cut = dice.roll((data.len() / SECTOR) as u64 + 2) as usize * SECTOR;
                                let data = data[..cut.min(data.len())].to_vec();
                                bytes.apply(&Change::Write { offset: *offset, data });
                            }
                            change => bytes.apply(change),
                        }
                    }
                    bytes
                }
                Survival::Random(_) => {
                    let mut bytes = node.disk.clone();
                    let last = node.pending.len().saturating_sub(1);
                    for (n, change) in node.pending.iter().enumerate() {
                        match (dice.roll(3), change) {
                            (0, _) => {}
                            (1, Change::Write { offset, data }) if n == last && data.len() > SECTOR => {
                                let keep = dice.roll((data.len() / SECTOR) as u64 + 1) as usize * SECTOR;
                                let data = data[..keep.min(data.len())].to_vec();
                                bytes.apply(&Change::Write { offset: *offset, data });
                            }
                            (_, change) => bytes.apply(change),
                        }
                    }
                    bytes
                }
            };
            files
                .insert(*id, Node { kernel: bytes.clone(), disk: bytes, pending: Vec::new(), reserved: node.reserved });
        }
        let left = State {
            files,
            next: state.next,
            kernel_names: names.clone(),
            disk_names: names,
            capacity: state.capacity,
            ..State::default()
        };
        SimDisk { state: Arc::new(Mutex::new(left)), holder: Arc::new(Mutex::new(Weak::new())) }
    }
}

impl State {
    /// Fails when the power is out.
    fn on(&self) -> io::Result<()> {
        if self.off { Err(power_is_out()) } else { Ok(()) }
    }

    /// Fails when a fault was ordered for this step.
    fn strike(&mut self, fault: Fault, path: &str) -> io::Result<()> {
        for order in self.orders.iter_mut().filter(|o| o.fault == fault && path.starts_with(&o.prefix)) {
            if order.skip > 0 {
                order.skip -= 1;
            } else if order.strikes > 0 {
                order.strikes -= 1;
                return Err(io::Error::from_raw_os_error(order.errno));
            }
        }
        Ok(())
    }

    fn before_write(&mut self, path: &str) -> io::Result<()> {
        self.on()?;
        self.writes += 1;
        self.strike(Fault::Write, path)
    }

    fn before_sync(&mut self, path: &str) -> io::Result<()> {
        self.on()?;
        self.syncs += 1;
        if self.cut_at_sync == Some(self.syncs) {
            self.off = true;
        }
        self.on()?;
        self.strike(Fault::Sync, path)
    }

    /// Pages that are free; files without a name do not count, as if nobody had them open.
    fn free_pages(&self) -> u64 {
        let Some(capacity) = self.capacity else { return u64::MAX };
        let named: BTreeSet<u64> = self
            .kernel_names
            .values()
            .filter_map(|t| match t {
                Target::File(id) => Some(*id),
                Target::Directory => None,
            })
            .collect();
        let used: u64 = named.iter().filter_map(|id| self.files.get(id)).map(Node::pages).sum();
        (capacity / PAGE).saturating_sub(used)
    }

    fn name(&mut self, path: &str, to: Option<Target>) {
        match to {
            Some(target) => self.kernel_names.insert(path.to_string(), target),
            None => self.kernel_names.remove(path),
        };
        self.pending_names.push(NameChange { dir: parent(path).to_string(), path: path.to_string(), to, before: None });
    }

    /// Gives a file or directory another name.
    fn rename(&mut self, from: &str, to: &str, target: Target) {
        let within = parent(from) == parent(to);
        if !within {
            self.name(from, None);
        }
        move_name(&mut self.kernel_names, from, to);
        // What is pending in a directory stays pending in it, whatever it is called.
        let below = format!("{from}/");
        for change in &mut self.pending_names {
            if change.dir == from || change.dir.starts_with(&below) {
                change.dir = format!("{to}{}", &change.dir[from.len()..]);
                change.path = format!("{to}{}", &change.path[from.len()..]);
                change.before = change.before.take().map(|path| format!("{to}{}", &path[from.len()..]));
            }
        }
        self.name(to, Some(target));
        if let Some(change) = self.pending_names.last_mut() {
            change.before = within.then(|| from.to_string());
        }
    }

    fn node(&mut self, id: u64) -> io::Result<&mut Node> {
        self.files.get_mut(&id).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn change(&mut self, id: u64, path: &str, change: Change) -> io::Result<()> {
        self.on()?;
        if let Change::Write { offset, data } = &change {
            let free = self.free_pages();
            if self.node(id)?.pages_wanted(*offset, data.len() as u64) > free {
                // What fits is written.
                self.writes += 1;
                let node = self.node(id)?;
                let mut fits = data.len();
                while fits > 0 && node.pages_wanted(*offset, fits as u64) > free {
                    fits = fits.saturating_sub(PAGE as usize);
                }
                let part = Change::Write { offset: *offset, data: data[..fits].to_vec() };
                node.kernel.apply(&part);
                node.pending.push(part);
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
        }
        if let Err(error) = self.before_write(path) {
            // A full disk takes a part of a write before it says so.
            if let Change::Write { offset, mut data } = change {
                data.truncate(data.len() / 2);
                let node = self.node(id)?;
                let half = Change::Write { offset, data };
                node.kernel.apply(&half);
                node.pending.push(half);
            }
            return Err(error);
        }
        let node = self.node(id)?;
        node.kernel.apply(&change);
        match &change {
            Change::SetLen(len) => node.reserved = node.reserved.min(*len),
            Change::Punch { offset, len } if offset + len >= node.reserved => {
                node.reserved = node.reserved.min(*offset);
            }
            Change::Write { .. } | Change::Punch { .. } => {}
        }
        node.pending.push(change);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock_state();
        state.on()?;
        state.strike(Fault::Open, path)?;
        let found = state.kernel_names.get(path).copied();
        let id = match (found, mode) {
            (Some(Target::Directory), _) => return Err(io::Error::from(io::ErrorKind::IsADirectory)),
            (Some(Target::File(_)), OpenMode::CreateNew) => return Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            (Some(Target::File(id)), _) => id,
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::Error::from(io::ErrorKind::NotFound)),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                let dir = parent(path);
                if !dir.is_empty() && state.kernel_names.get(dir) != Some(&Target::Directory) {
                    return Err(io::Error::from(io::ErrorKind::NotFound));
                }
                if state.free_pages() == 0 {
                    return Err(io::Error::from_raw_os_error(ENOSPC));
                }
                state.before_write(path)?;
                state.next += 1;
                let id = state.next;
                state.files.insert(id, Node::default());
                state.name(path, Some(Target::File(id)));
                id
            }
        };
        let path = path.to_string();
        Ok(Arc::new(SimFile { disk: self.clone(), id, path, writable: mode != OpenMode::Read }))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock_state();
        state.on()?;
        match state.kernel_names.get(path) {
            Some(Target::File(_)) => {
                state.name(path, None);
                Ok(())
            }
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock_state();
        state.on()?;
        let target = state.kernel_names.get(from).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        state.rename(from, to, target);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock_state();
        state.before_write(to)?;
        let Some(Target::File(id)) = state.kernel_names.get(from).copied() else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        if state.kernel_names.contains_key(to) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        state.name(to, Some(Target::File(id)));
        Ok(())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock_state();
        state.on()?;
        if !state.kernel_names.contains_key(path) {
            state.name(path, Some(Target::Directory));
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock_state();
        state.on()?;
        let below = format!("{path}/");
        let gone: Vec<String> =
            state.kernel_names.keys().filter(|p| *p == path || p.starts_with(&below)).cloned().collect();
        gone.iter().for_each(|p| state.name(p, None));
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let state = self.lock_state();
        state.on()?;
        Ok(state
            .kernel_names
            .keys()
            .filter(|p| parent(p) == path)
            .map(|p| p.rsplit('/').next().unwrap_or(p).to_string())
            .collect())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock_state();
        state.strike(Fault::Open, path)?;
        state.before_sync(path)?;
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.pending_names).into_iter().partition(|c| c.dir == path);
        state.pending_names = later;
        for change in now {
            change.apply(&mut state.disk_names);
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.lock_state();
        state.before_sync("")?;
        state.pending_names.clear();
        state.disk_names = state.kernel_names.clone();
        for node in state.files.values_mut() {
            node.disk = node.kernel.clone();
            node.pending.clear();
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.lock_state();
        state.on()?;
        let total = state.capacity.unwrap_or(1 << 40);
        let free = state.free_pages().saturating_mul(PAGE).min(total);
        Ok(Space {
            total_bytes: total,
            free_bytes: free,
            available_bytes: free,
            total_files: 1 << 30,
            free_files: 1 << 30,
        })
    }

    fn lock(&self, _shared: bool) -> io::Result<Box<dyn Send + Sync>> {
        self.lock_state().on()?;
        let mut holder = self.holder.lock().unwrap_or_else(|e| e.into_inner());
        if holder.upgrade().is_some() {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        let mine = Arc::new(());
        *holder = Arc::downgrade(&mine);
        Ok(Box::new(mine))
    }

    fn native_path(&self) -> Option<&Path> {
        None
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
    path: String,
    writable: bool,
}

impl SimFile {
    fn change(&self, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        self.disk.lock_state().change(self.id, &self.path, change)
    }

    fn kernel<T>(&self, look: impl FnOnce(&Bytes) -> T) -> io::Result<T> {
        let mut state = self.disk.lock_state();
        state.on()?;
        Ok(look(&state.node(self.id)?.kernel))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.lock_state().strike(Fault::Read, &self.path)?;
        self.kernel(|b| b.read(buf, offset))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write { offset, data: data.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        state.before_sync(&self.path)?;
        let node = state.node(self.id)?;
        node.disk = node.kernel.clone();
        node.pending.clear();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.kernel(|b| b.len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Change::Punch { offset, len })
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        state.before_write(&self.path)?;
        let free = state.free_pages();
        let node = state.node(self.id)?;
        // Only what begins with the file is kept account of: the reserve.
        if offset == 0 {
            if node.pages_wanted(0, len) > free {
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            node.reserved = node.reserved.max(len);
        }
        Ok(())
    }

    fn seek(&self, offset: u64, what: Seek) -> io::Result<Option<u64>> {
        self.kernel(|b| b.seek(offset, what))
    }

    fn allocated(&self) -> io::Result<u64> {
        let mut state = self.disk.lock_state();
        state.on()?;
        Ok(state.node(self.id)?.pages() * PAGE)
    }

    fn modified(&self) -> io::Result<(i64, u32)> {
        self.disk.lock_state().on()?;
        Ok((0, 0))
    }

    fn is_shared(&self) -> io::Result<bool> {
        // Nothing is mapped in a simulation.
        Ok(false)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(path, OpenMode::Read).ok()?;
        let mut buf = vec![0; file.len().ok()? as usize];
        file.read_at(&mut buf, 0).ok()?;
        Some(buf)
    }

    #[test]
    fn only_what_was_synced_survives_a_power_cut() {
        let disk = SimDisk::new();
        let file = disk.open("a", OpenMode::Create).unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(content(&disk.survivor(Survival::Synced), "a"), None, "its name was not synced");
        disk.sync_dir("").unwrap();
        file.write_at(b"two", 0).unwrap();
        assert_eq!(content(&disk.survivor(Survival::Synced), "a").unwrap(), b"one");
        assert_eq!(content(&disk.survivor(Survival::Kernel), "a").unwrap(), b"two");
        let seen: std::collections::BTreeSet<_> =
            (0..40).map(|s| content(&disk.survivor(Survival::Random(s)), "a").unwrap()).collect();
        assert_eq!(seen.len(), 2, "old or new");
    }

    #[test]
    fn faults_and_power_cuts_strike_where_told() {
        let disk = SimDisk::new();
        let file = disk.open("a", OpenMode::Create).unwrap();
        disk.fail_at(Fault::Write, 2, 28);
        assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(28));
        file.write_at(b"x", 0).unwrap();
        disk.cut_power_at_sync(2);
        file.sync_data().unwrap();
        assert!(file.sync_data().is_err() && file.write_at(b"y", 0).is_err() && disk.list("").is_err());
    }

    #[test]
    fn a_disk_of_a_size_is_full_at_its_end_and_reserved_space_is_its_owners() {
        let disk = SimDisk::new();
        disk.set_capacity(4 * PAGE);
        let (a, b) = (disk.open("a", OpenMode::Create).unwrap(), disk.open("b", OpenMode::Create).unwrap());
        a.allocate(0, 2 * PAGE).unwrap();
        assert_eq!(disk.space().unwrap().available_bytes, 2 * PAGE);
        assert_eq!(b.write_at(&[1; 12_000], 0).unwrap_err().raw_os_error(), Some(ENOSPC));
        assert_eq!((b.len().unwrap(), disk.space().unwrap().free_bytes), (12_000 - PAGE, 0));
        a.write_at(&[1; 8192], 0).unwrap();
        assert!(disk.open("c", OpenMode::Create).is_err());
        disk.remove("b").unwrap();
        assert_eq!(disk.space().unwrap().available_bytes, 2 * PAGE);
    }

    #[test]
    fn holes_are_kept() {
        let disk = SimDisk::new();
        let file = disk.open("a", OpenMode::Create).unwrap();
        file.write_at(&[7; 100], 20_000).unwrap();
        assert_eq!(file.seek(0, Seek::Data).unwrap(), Some(16_384));
        assert_eq!(file.seek(20_000, Seek::Hole).unwrap(), Some(20_100));
        file.set_len(20_050).unwrap();
        file.set_len(30_000).unwrap();
        let mut buf = [1; 200];
        assert_eq!(file.read_at(&mut buf, 20_000).unwrap(), 200);
        assert!(buf[..50] == [7; 50] && buf[50..] == [0; 150]);
        file.punch(16_384, 8192).unwrap();
        assert_eq!(file.seek(0, Seek::Data).unwrap(), None);
    }
}
