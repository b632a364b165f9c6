//! How watches reach a watcher that runs in another process: files in a directory, each written whole before it is seen.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::journal::sync_directory;
use crate::payment::Watch;

/// Files looked at in one turn.
const FILES_PER_TURN_MAX: usize = 256;
const SPOOL: &str = "spool";
const REFUSED: &str = "refused";

/// Leaves a watch for the watcher of a directory. It is on the disk when this returns; the same watch may be left again.
///
/// # Errors
///
/// If the file system says no.
pub fn leave(directory: &Path, watch: &Watch) -> std::io::Result<()> {
    let spool = directory.join(SPOOL);
    std::fs::create_dir_all(&spool)?;
    let key = watch.key;
    let name = format!("{}-{:016x}-{}", key.tenant, key.partition.0, key.lock);
    let hidden = spool.join(format!(".{name}.{}", std::process::id()));
    let mut file = std::fs::File::create(&hidden)?;
    file.write_all(serde_json::to_string(watch)?.as_bytes())?;
    // Left again: what counts is when it was left first, since it may be paid from then on.
    if let Ok(before) = std::fs::metadata(spool.join(&name)) {
        file.set_modified(before.modified()?)?;
    }
    file.sync_all()?;
    std::fs::rename(&hidden, spool.join(name))?;
    sync_directory(&spool)
}

/// Files that were left whole. One that is being written is not there yet, and its name begins with a dot.
fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let spool = directory.join(SPOOL);
    std::fs::create_dir_all(&spool)?;
    let mut files = Vec::new();
    for file in std::fs::read_dir(&spool)? {
        let file = file?;
        if !file.file_name().to_string_lossy().starts_with('.') {
            files.push(file.path());
        }
    }
    Ok(files)
}

/// `None` for what somebody has taken away since it was seen.
fn unless_gone<T>(found: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// When the oldest file was left that nobody has taken yet, in seconds since the Unix epoch; none if there is none.
pub(crate) fn oldest_left_s(directory: &Path) -> std::io::Result<Option<u64>> {
    let mut oldest: Option<u64> = None;
    for file in files(directory)? {
        let Some(metadata) = unless_gone(std::fs::metadata(&file))? else { continue };
        let left = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        oldest = Some(oldest.map_or(left, |oldest| oldest.min(left)));
    }
    Ok(oldest)
}

/// What was left: the file, and the watch, if it is one.
pub(crate) fn left(directory: &Path) -> std::io::Result<Vec<(PathBuf, Option<Watch>)>> {
    let mut found = Vec::new();
    for path in files(directory)? {
        if found.len() == FILES_PER_TURN_MAX {
            break;
        }
        let Some(bytes) = unless_gone(std::fs::read(&path))? else { continue };
        found.push((path, serde_json::from_slice(&bytes).ok()));
    }
    // Directories have no order; ours is that of the names.
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Keeps a file that was not taken where somebody can look at it.
pub(crate) fn refuse(directory: &Path, file: &Path) -> std::io::Result<()> {
    let refused = directory.join(REFUSED);
    std::fs::create_dir_all(&refused)?;
    file.file_name().map_or(Ok(()), |name| std::fs::rename(file, refused.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_written_is_not_there_yet() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = directory.path().join(SPOOL);
        assert_eq!(oldest_left_s(directory.path()).expect("read"), None);
        std::fs::write(spool.join(".half"), "{").expect("written");
        assert_eq!(oldest_left_s(directory.path()).expect("read"), None);
        assert_eq!(left(directory.path()).expect("read").len(), 0);
        // Gone between the look at the directory and the look at the file: here a link to nowhere.
        std::os::unix::fs::symlink(spool.join("nowhere"), spool.join("gone")).expect("linked");
        assert_eq!(oldest_left_s(directory.path()).expect("read"), None);
        assert_eq!(left(directory.path()).expect("read").len(), 0);
        std::fs::write(spool.join("whole"), "{").expect("written");
        assert!(oldest_left_s(directory.path()).expect("read").is_some());
        assert_eq!(left(directory.path()).expect("read").len(), 1);
    }
}
