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

/// When the oldest file was left that nobody has taken yet, in seconds since the Unix epoch; none if there is none.
pub(crate) fn oldest_left_s(directory: &Path) -> std::io::Result<Option<u64>> {
    let spool = directory.join(SPOOL);
    std::fs::create_dir_all(&spool)?;
    let mut oldest: Option<u64> = None;
    for file in std::fs::read_dir(&spool)? {
        let left = file?.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        oldest = Some(oldest.map_or(left, |oldest| oldest.min(left)));
    }
    Ok(oldest)
}

/// What was left: the file, and the watch, if it is one.
pub(crate) fn left(directory: &Path) -> std::io::Result<Vec<(PathBuf, Option<Watch>)>> {
    let spool = directory.join(SPOOL);
    std::fs::create_dir_all(&spool)?;
    let mut found = Vec::new();
    for file in std::fs::read_dir(&spool)? {
        let path = file?.path();
        let is_whole = path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
        if is_whole && found.len() < FILES_PER_TURN_MAX {
            let watch = serde_json::from_slice(&std::fs::read(&path)?).ok();
            found.push((path, watch));
        }
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
