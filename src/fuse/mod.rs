//! Kernel requests to volume calls and back; errno.
//!
//! Must not know: how bytes are kept. Each operation turns the request into plain types, calls the volume, and answers.
//! Reads hand their reply to the volume, which answers from a worker: no thread that talks to the kernel ever decodes.
//!
//! Limits: requests of at most 1 MiB; four threads with a descriptor each, which is enough since none of them waits for
//! a decode. Flags that fuser 0.18 accepts but does not serve (killpriv v2, security contexts, id maps, file locks,
//! which the kernel keeps itself) are not negotiated.

mod adapter;
mod convert;
mod errno;
mod mount;
mod served;

pub use mount::{MountOptions, Mounted, mount};
