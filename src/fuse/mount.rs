//! A session with the kernel, from mount to unmount.

use std::io;
use std::path::Path;
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};

use super::adapter::Adapter;
use crate::volume::Volume;

/// Threads that talk to the kernel. None of them decodes, so a few serve any number of readers.
const THREADS: usize = 4;

/// How a volume is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What `mount` and `df` show as the source: the path of the store.
    pub source: String,
    pub read_only: bool,
    /// Users other than the one who mounts may use it; permissions are checked by the kernel.
    pub allow_other: bool,
    /// Device nodes count. For root only, as setuid bits are: a hostile store could carry any.
    pub dev: bool,
    pub suid: bool,
    /// Programs may be run.
    pub exec: bool,
    /// The kernel may serve hot files from staging by itself, where it can.
    pub passthrough: bool,
    /// The kernel collects writes in its pages: what it acknowledged before a flush is lost with this process.
    pub writeback_cache: bool,
}

/// A mounted volume whose requests are not served yet.
pub struct Mounted {
    session: Session<Adapter>,
}

/// Mounts. At return the kernel has agreed on the protocol; requests wait until `serve`.
///
/// # Errors
/// What mount(2) or fusermount3 says; `NotFound` when fusermount3 is needed and missing.
pub fn mount(volume: Arc<Volume>, mountpoint: &Path, options: &MountOptions) -> io::Result<Mounted> {
    let mut config = Config::default();
    // The option parser of the kernel knows no way to write these characters.
    let source = options.source.replace([',', '\\'], "_");
    config.mount_options = vec![
        MountOption::FSName(source),
        // As a plain option: fuser forgets `Subtype` when it mounts without a helper.
        MountOption::CUSTOM("subtype=tersefs".into()),
        MountOption::DefaultPermissions,
        if options.read_only { MountOption::RO } else { MountOption::RW },
        if options.dev { MountOption::Dev } else { MountOption::NoDev },
        if options.suid { MountOption::Suid } else { MountOption::NoSuid },
        if options.exec { MountOption::Exec } else { MountOption::NoExec },
    ];
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    Ok(Mounted { session: Session::new(Adapter::new(volume, options), mountpoint, &config)? })
}

impl Mounted {
    /// Serves requests until the volume is unmounted, by whomever.
    ///
    /// # Blocking
    /// For the life of the mount.
    pub fn serve(self) -> io::Result<()> {
        match self.session.run() {
            // The connection was aborted from outside, as after a forced unmount: the mount has ended all the same.
            Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            other => other,
        }
    }
}
