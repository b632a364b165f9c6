//! Places for backups as people name them, and what goes wrong there with its exit code.

use std::path::Path;

use backup::{
    CopyError, Depot, DepotError, DirectoryDepot, FetchError, MANIFEST_FILE, ManifestError, ObjectDepot,
    OpenObjectError, Patience,
};

use crate::directory;
use crate::exit::{Exit, Failure};

/// Opens a place for a command that copies: a directory, `file://` and one, or `s3://BUCKET/PREFIX` in the store that the environment says.
pub(crate) fn open(place: &str) -> Result<Box<dyn Depot>, Failure> {
    open_with(place, Patience::of_a_copy())
}

/// Opens a place for an engine, which tries again by itself.
pub(crate) fn open_archive(place: &str) -> Result<Box<dyn Depot>, Failure> {
    open_with(place, Patience::default())
}

/// Refuses a place that holds a backup where an archive is asked for: the log of a backup ends where it was taken, and what the archive
/// has of it after that would be given up.
///
/// # Errors
/// [`Exit::Usage`] of a backup; the place's own.
pub(crate) fn refuse_backup(depot: &dyn Depot) -> Result<(), Failure> {
    match depot.get(MANIFEST_FILE) {
        Err(DepotError::Missing { .. }) => Ok(()),
        Err(error) => Err(failure(&error)),
        Ok(_) => {
            let place = depot.place();
            let message = format!(
                "{place} holds a backup ({MANIFEST_FILE}) and is no archive: give the place where `serve` keeps complete segments of \
                 the log (`archive` of [log])"
            );
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

fn open_with(place: &str, patience: Patience) -> Result<Box<dyn Depot>, Failure> {
    if ObjectDepot::is_named(place) {
        // What is no text is no setting of ours.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let variables = std::env::vars_os().filter_map(text);
        let depot = ObjectDepot::open(place, variables, patience);
        return depot.map(|depot| Box::new(depot) as Box<dyn Depot>).map_err(|error| open_failure(&error));
    }
    let path = match place.split_once("://") {
        None => place,
        Some(("file", path)) => path,
        Some((scheme, _)) => {
            let message = format!(
                "{place}: no backups are kept by `{scheme}`; give a directory, or s3://BUCKET/PREFIX"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    if path.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "which place for backups? give a directory, or s3://BUCKET/PREFIX",
        ));
    }
    Ok(Box::new(DirectoryDepot::new(Path::new(path))))
}

fn open_failure(error: &OpenObjectError) -> Failure {
    let exit = match error {
        OpenObjectError::System(_) => Exit::Failure,
        OpenObjectError::Name(_)
        | OpenObjectError::Setting { .. }
        | OpenObjectError::Plain(_)
        | OpenObjectError::Ca(_) => Exit::Usage,
    };
    Failure::new(exit, error)
}

/// Why a place does not do what is asked, with its exit code.
pub(crate) fn failure(error: &DepotError) -> Failure {
    Failure::new(depot_exit(error), error)
}

const fn depot_exit(error: &DepotError) -> Exit {
    match error {
        // Somebody else is writing there.
        DepotError::Exists { .. } => Exit::InUse,
        DepotError::NoBucket { .. } | DepotError::Denied { .. } | DepotError::Overwrites { .. } => {
            Exit::Usage
        }
        DepotError::Missing { .. }
        | DepotError::Differs { .. }
        | DepotError::Full { .. }
        | DepotError::Io { .. } => Exit::Failure,
    }
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
        CopyError::Snapshot(wal::SnapshotError::Newer { .. }) | CopyError::Newer { .. } => Exit::Newer,
        CopyError::Depot(error) => depot_exit(error),
        CopyError::Snapshot(_)
        | CopyError::Tail(_)
        | CopyError::Retention(_)
        | CopyError::Behind { .. }
        | CopyError::LowSpace { .. } => Exit::Failure,
    };
    Failure::caused(exit, path.display(), error)
}

/// Why a backup was not read, with its exit code.
pub(crate) fn fetch_failure(error: &FetchError) -> Failure {
    let exit = match error {
        FetchError::NoBackup(_) => Exit::Foreign,
        FetchError::Manifest { source: ManifestError::Newer(_), .. } => Exit::Newer,
        FetchError::Manifest { .. } | FetchError::Damaged { .. } | FetchError::Diverges { .. } => {
            Exit::Corrupt
        }
        FetchError::Depot(error) => depot_exit(error),
        FetchError::Io { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}
