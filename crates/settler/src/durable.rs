//! What makes files outlive a power cut.
//!
//! Each step is told to `tracing` once it is done: the tests of power cuts keep what was made durable, and throw the rest away.

use std::fs::File;
use std::io::{Result, Write};
use std::path::Path;

/// Makes what a file holds durable.
pub(crate) fn sync_file(file: &File, path: &Path) -> Result<()> {
    file.sync_all()?;
    tracing::trace!(target: "settler::durable", file = %path.display());
    Ok(())
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
