//! How open handles are served: by us from the kernel's pages, or by the kernel itself from the staging file.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use fuser::BackingId;

use crate::base::Ino;
use crate::volume::{HandleId, OpenFor, Volume};

/// How the open handles of an inode are served: all in one way, as the kernel has it.
struct Service {
    handles: usize,
    /// The staging file, registered with the kernel, when it serves them by itself.
    backing: Option<Arc<BackingId>>,
}

/// The handles of all inodes.
pub(super) struct Served {
    /// The kernel can serve handles by itself, and we may let it.
    pub passthrough: bool,
    inodes: Mutex<HashMap<Ino, Service>>,
}

impl Served {
    pub fn new(passthrough: bool) -> Served {
        Served { passthrough, inodes: Mutex::new(HashMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Service>> {
        self.inodes.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Decides how a new handle is served, and counts it. `register` makes the staging file known to the kernel.
    pub fn begin(
        &self,
        volume: &Volume,
        n: Ino,
        handle: HandleId,
        open: OpenFor,
        register: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let mut inodes = self.lock();
        let backing = match inodes.get(&n) {
            Some(Service { backing: None, .. }) => None,
            Some(Service { backing: Some(id), .. }) => {
                // What serves the others must serve this one; the volume agrees as long as there are others.
                volume.bypass(n, handle).ok().flatten().map(|_| id.clone())
            }
            None if self.passthrough && open.write => volume.bypass(n, handle).ok().flatten().and_then(|file| {
                let id = file.fd().and_then(|fd| register(fd).ok());
                if id.is_none() {
                    volume.end_bypass(n, handle);
                }
                id.map(Arc::new)
            }),
            None => None,
        };
        inodes.entry(n).or_insert_with(|| Service { handles: 0, backing: backing.clone() }).handles += 1;
        backing
    }

    /// A handle ends.
    pub fn end(&self, n: Ino) {
        let mut inodes = self.lock();
        if let Some(service) = inodes.get_mut(&n) {
            service.handles -= 1;
            if service.handles == 0 {
                inodes.remove(&n);
            }
        }
    }
}
