//! Places for backups as people name them, and what goes wrong there with its exit code.

use std::path::Path;

use backup::{CopyError, Depot, DirectoryDepot, FetchError, ManifestError};

use crate::directory;
use crate::exit::{Exit, Failure};

/// Opens a place: a directory, or `file://` and one.
pub(crate) fn open(place: &str) -> Result<Box<dyn Depot>, Failure> {
    let path = match place.split_once("://") {
        None => place,
        Some(("file", path)) => path,
        Some((scheme, _)) => {
            let message =
                format!("{place}: no backups are kept by `{scheme}`; give a directory, or file:// and one");
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    if path.is_empty() {
        return Err(Failure::new(Exit::Usage, "which place for backups? give a directory"));
    }
    Ok(Box::new(DirectoryDepot::new(Path::new(path))))
}

/// Why a shard was not copied, with its exit code. `path` is the shard's directory.
pub(crate) fn copy_failure(path: &Path, error: &CopyError) -> Failure {
    let exit = match error {
        CopyError::Log(error) => return directory::log_failure(path, error),
        CopyError::Storage(error) => return directory::storage_failure(error),
        CopyError::Tail(wal::TailError::Rot { .. }) | CopyError::Short { .. } | CopyError::NoBase { .. } => {
            Exit::Corrupt
        }
        CopyError::Snapshot(wal::SnapshotError::Foreign { .. }) => Exit::Foreign,
        CopyError::Snapshot(wal::SnapshotError::Newer { .. }) => Exit::Newer,
        CopyError::Snapshot(_)
        | CopyError::Tail(_)
        | CopyError::Retention(_)
        | CopyError::Behind { .. }
        | CopyError::Depot(_)
        | CopyError::Differs { .. } => Exit::Failure,
    };
    Failure::caused(exit, path.display(), error)
}

/// Why a backup was not read, with its exit code.
pub(crate) fn fetch_failure(error: &FetchError) -> Failure {
    let exit = match error {
        FetchError::NoBackup(_) => Exit::Foreign,
        FetchError::Manifest { source: ManifestError::Newer(_), .. } => Exit::Newer,
        FetchError::Manifest { .. } | FetchError::Damaged { .. } => Exit::Corrupt,
        FetchError::Depot(_) | FetchError::Io { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}
