//! How open handles are served: by us from the kernel's pages, or by the kernel itself from the staging file.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use fuser::BackingId;

use crate::base::Ino;
use crate::volume::{HandleId, OpenFor, Opened, Volume};

/// How the open handles of an inode are served: all in one way, as the kernel has it.
struct Service {
    handles: usize,
    /// The staging file, registered with the kernel, when it serves them by itself.
    backing: Option<Arc<BackingId>>,
}

/// How a handle is opened, and by whom.
#[derive(Clone, Copy)]
pub(super) struct Opening {
    pub open: OpenFor,
    pub thread: u32,
    /// O_SYNC or O_DSYNC: every write is durable when it returns. The kernel alone can make the bytes so, not the name and
    /// what the log must know of the file: such a handle is served by us, unless others are not.
    pub syncs: bool,
}

#[derive(Default)]
struct Handles {
    inodes: HashMap<Ino, Service>,
    /// Handles that only read a file with coded parts, with the thread that opened them, and how many each thread has.
    reading: HashMap<HandleId, u32>,
    readers: HashMap<u32, usize>,
}

/// The handles of all inodes.
///
/// The kernel does not write by itself for a thread that has a coded file open for reading: what it writes may be a copy
/// (`cp`), which shares the segments if it passes through us, and reading is not the faster half of anything else it does.
pub(super) struct Served {
    /// The kernel can serve handles by itself, and we may let it.
    pub passthrough: bool,
    handles: Mutex<Handles>,
}

impl Served {
    pub fn new(passthrough: bool) -> Served {
        Served { passthrough, handles: Mutex::new(Handles::default()) }
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Decides how a new handle is served, and counts it. `register` makes the staging file known to the kernel.
    pub fn begin(
        &self,
        volume: &Volume,
        n: Ino,
        opened: Opened,
        Opening { open, thread, syncs }: Opening,
        register: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let mut handles = self.lock();
        let copies = handles.readers.contains_key(&thread);
        let handle = opened.handle;
        let backing = match handles.inodes.get(&n) {
            Some(Service { backing: None, .. }) => None,
            Some(Service { backing: Some(id), .. }) => {
                // From now on the staging file is all that changes. A failure ends all changes of the volume.
                if syncs {
                    let _ = volume.fsync(n, false);
                }
                // What serves the others must serve this one; the volume agrees as long as there are others.
                volume.bypass(n, handle).ok().flatten().map(|_| id.clone())
            }
            None if self.passthrough && open.write && !copies && !syncs => {
                volume.bypass(n, handle).ok().flatten().and_then(|file| {
                    let id = file.fd().and_then(|fd| register(fd).ok());
                    if id.is_none() {
                        volume.end_bypass(n, handle);
                    }
                    id.map(Arc::new)
                })
            }
            None => None,
        };
        if self.passthrough && opened.coded && open.read && !open.write {
            handles.reading.insert(handle, thread);
            *handles.readers.entry(thread).or_default() += 1;
        }
        handles.inodes.entry(n).or_insert_with(|| Service { handles: 0, backing: backing.clone() }).handles += 1;
        backing
    }

    /// A handle ends. To be called before the volume lets go of it: as long as a staging file is known here as the one that
    /// serves an inode, the volume must have a handle that keeps it.
    pub fn end(&self, n: Ino, handle: HandleId) {
        let mut handles = self.lock();
        if let Some(service) = handles.inodes.get_mut(&n) {
            service.handles -= 1;
            if service.handles == 0 {
                handles.inodes.remove(&n);
            }
        }
        if let Some(thread) = handles.reading.remove(&handle)
            && let Some(count) = handles.readers.get_mut(&thread)
        {
            *count -= 1;
            if *count == 0 {
                handles.readers.remove(&thread);
            }
        }
    }
}
