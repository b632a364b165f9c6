//! Logs that were folded: they stay beside the one that has taken their place, for proofs of their batches.

use std::path::{Path, PathBuf};

use super::{Head, Journal, JournalError, Scan, read_file};

const PREFIX: &str = "settlement-";
const SUFFIX: &str = ".log";

impl Journal {
    /// The log that has the data of a batch which the present one has no more, and the last batch that it was folded up to; `None` if
    /// nobody has kept it. What it has of later batches may have been dropped since. `head` is the present one's.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn read_older(
        directory: &Path,
        batch: u64,
        head: &Head,
    ) -> Result<Option<(u64, Scan)>, JournalError> {
        let older = found(directory)?.into_iter().find(|(until, _)| *until >= batch);
        let Some((until, path)) = older else { return Ok(None) };
        let scan = read_file(&path)?;
        if scan.as_ref().is_some_and(|scan| scan.head != *head) {
            return Err(JournalError::Other(path));
        }
        Ok(scan.map(|scan| (until, scan)))
    }
}

/// Where a log goes that is folded up to a batch.
pub(super) fn path(directory: &Path, batch: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{batch}{SUFFIX}"))
}

/// All of them, with the batch that each was folded up to, the oldest first.
fn found(directory: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let io = |source| JournalError::Io { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let batch =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        found.extend(batch.map(|batch: u64| (batch, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}
