//! Who may open an index and put another into its place: one process at a time, by a lock beside it. The store's own lock lies in the
//! directory that a rebuild moves aside.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::HistoryError;

/// How often, and how long in between, the lock is tried: who only looks whether it is held has it for an instant.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

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
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        Err(HistoryError::InUse(path.to_owned()))
    }

    /// True if somebody holds the place of the index in `path`, or nobody can tell.
    pub(crate) fn is_taken(path: &Path) -> bool {
        match File::open(beside(path)) {
            // Shared, so that no two who look are in each other's way.
            Ok(file) => file.try_lock_shared().is_err(),
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_place_is_seen_and_not_disturbed() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("history");
        assert!(!Held::is_taken(&place), "nobody ever was there");
        let held = Held::take(&place).unwrap();
        assert!(Held::is_taken(&place));
        assert!(matches!(Held::take(&place), Err(HistoryError::InUse(_))));
        drop(held);
        assert!(!Held::is_taken(&place), "the file stays, and says nothing");
        let looking = File::open(beside(&place)).unwrap();
        looking.try_lock_shared().unwrap();
        assert!(!Held::is_taken(&place), "who looks holds nothing");
        let taken = std::thread::spawn({
            let place = place.clone();
            move || Held::take(&place)
        });
        drop(looking);
        taken.join().unwrap().unwrap();
    }
}
