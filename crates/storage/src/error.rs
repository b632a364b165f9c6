//! What a disk reports, with the file, the operation and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// An operation of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Listing a directory.
    List,
    /// Opening a file or directory.
    Open,
    /// Creating and preallocating a file.
    Create,
    /// Asking for a length or for free space.
    Stat,
    /// Reading.
    Read,
    /// Writing to a file that must not lose what it holds.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDirectory,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "listing",
            Self::Open => "opening",
            Self::Create => "creating",
            Self::Stat => "examining",
            Self::Read => "reading",
            Self::Write => "writing",
            Self::Sync => "syncing",
            Self::SyncDirectory => "syncing the directory",
            Self::Rename => "renaming",
            Self::Remove => "removing",
        })
    }
}

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("{operation} {} failed (offset {offset}): {source}; check the disk", path.display())]
    Io {
        /// What was tried.
        operation: Operation,
        /// On what.
        path: PathBuf,
        /// Where in it; 0 where that makes no sense.
        offset: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no room for a file that is not part of the log yet. Nothing is lost.
    #[error("no space for {} ({bytes} bytes); free some, then try again", path.display())]
    NoSpace {
        /// The file that was not created or completed.
        path: PathBuf,
        /// Bytes that it needs.
        bytes: u64,
    },
    /// The file system cannot do direct I/O (tmpfs, some network file systems).
    #[error("the file system of {} refuses direct I/O; use `--io sync`", path.display())]
    DirectRefused {
        /// The file.
        path: PathBuf,
    },
}

impl StorageError {
    /// True if what is on the disk is now unknown: the process must abort, at once and without another reply.
    ///
    /// That is a failed write, sync or rename of files that may hold the log. It is never retried: after a failed sync
    /// the kernel may have dropped the pages and reports success the next time.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Io {
                operation: Operation::Write | Operation::Sync | Operation::SyncDirectory | Operation::Rename,
                ..
            }
        )
    }

    /// True if what is on the disk is what it was: a want of space, or a failed look. Anything else in housekeeping may have
    /// been a sync that failed (creating a file syncs it), and nothing is tried again after that.
    #[must_use]
    pub const fn is_survivable(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::DirectRefused { .. } => false,
            Self::Io { operation, .. } => match operation {
                Operation::List | Operation::Open | Operation::Stat | Operation::Read => true,
                Operation::Create
                | Operation::Write
                | Operation::Sync
                | Operation::SyncDirectory
                | Operation::Rename
                | Operation::Remove => false,
            },
        }
    }

    /// True for want of space.
    #[must_use]
    pub const fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_is_both_fatal_and_survivable() {
        let path = PathBuf::from("file");
        let check = |error: &StorageError, survivable: bool, fatal: bool| {
            assert_eq!((error.is_survivable(), error.is_fatal()), (survivable, fatal), "{error}");
        };
        check(&StorageError::NoSpace { path: path.clone(), bytes: 1 }, true, false);
        check(&StorageError::DirectRefused { path: path.clone() }, false, false);
        for (operation, survivable, fatal) in [
            (Operation::List, true, false),
            (Operation::Open, true, false),
            (Operation::Stat, true, false),
            (Operation::Read, true, false),
            // It writes zeros and syncs them.
            (Operation::Create, false, false),
            (Operation::Remove, false, false),
            (Operation::Write, false, true),
            (Operation::Sync, false, true),
            (Operation::SyncDirectory, false, true),
            (Operation::Rename, false, true),
        ] {
            let source = io::Error::other("for the test");
            check(&StorageError::Io { operation, path: path.clone(), offset: 0, source }, survivable, fatal);
        }
    }
}
