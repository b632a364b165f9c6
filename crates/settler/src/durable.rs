//! What makes files outlive a power cut.
//!
//! Each step is told to `tracing` once it is done: the tests of power cuts keep what was made durable, and throw the rest away.

use std::fs::File;
use std::io::{Result, Write};
use std::path::Path;

/// Makes what a file holds durable.
pub(crate) fn sync_file(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map(|()| tell(path))
}

/// The same, without the moment of the change.
pub(crate) fn sync_data(file: &File, path: &Path) -> Result<()> {
    file.sync_data().map(|()| tell(path))
}

fn tell(path: &Path) {
    tracing::trace!(target: "settler::durable", file = %path.display());
}

/// Makes a directory if it is not there, and its name durable.
pub(crate) fn make_directory(directory: &Path) -> Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = directory.ancestors().take_while(is_missing).collect();
    std::fs::create_dir_all(directory)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(|parent| {
        sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    })
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)?.sync_all()?;
    tracing::trace!(target: "settler::durable", directory = %directory.display());
    Ok(())
}

/// Puts a file in the place of another, at once or not at all.
pub(crate) fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    sync_file(&file, temporary)?;
    std::fs::rename(temporary, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}
