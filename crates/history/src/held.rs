//! Who may open an index and put another into its place: one process at a time, by a lock beside it. The store's own lock lies in the
//! directory that a rebuild moves aside.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::HistoryError;

/// The place of an index, held until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "the kernel lets go of the lock when it closes")] File);

impl Held {
    /// Takes hold of the place of the index in `path`, which need not be there.
    pub(crate) fn take(path: &Path) -> Result<Self, HistoryError> {
        let lock = beside(path);
        let failed = |source| HistoryError::Io { doing: format!("locking {}", lock.display()), source };
        // Nothing is ever in it, and it is never removed: two could hold one of the name each.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(HistoryError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    path.with_file_name(name)
}
