//! The one place where an error of the volume becomes an errno, and where it is decided what is logged.

use fuser::Errno;

use crate::volume::Error;

/// The errno of an error. What an administrator must know is logged here, once per failed request; segments that fail
/// their checks were logged by the volume already, with their path.
pub(super) fn errno(op: &str, error: &Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::IsDirectory => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::Invalid(_) => Errno::EINVAL,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::TooBig => Errno::EFBIG,
        Error::TooManyLinks => Errno::EMLINK,
        Error::NoXattr => Errno::ENODATA,
        Error::NoData => Errno::ENXIO,
        Error::NotPermitted => Errno::EPERM,
        Error::Unsupported => Errno::EOPNOTSUPP,
        Error::BadHandle => Errno::EBADF,
        // That the filesystem is full was logged when it became so.
        Error::NoSpace | Error::Store(crate::volume::StoreError::NoSpace { .. }) => Errno::ENOSPC,
        // Not EMFILE: the limit is not the caller's own.
        Error::TooManyFiles | Error::Store(crate::volume::StoreError::TooManyFiles { .. }) => {
            log::warn!("{op}: {error}");
            Errno::ENFILE
        }
        // The change of state was logged when it happened.
        Error::ReadOnly | Error::Store(crate::volume::StoreError::ReadOnly) => Errno::EROFS,
        Error::Damaged { .. } => Errno::EIO,
        Error::Io { .. } | Error::Store(_) => {
            log::error!("{op}: {error}");
            Errno::EIO
        }
    }
}
