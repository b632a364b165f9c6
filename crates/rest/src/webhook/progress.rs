//! How far an endpoint is, in a file that is there whole or as it was before, whenever the power goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How far an endpoint is, and how it fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Everything before was taken by the endpoint.
    pub(crate) cursor: String,
    /// Failures in a row.
    #[serde(default)]
    pub(crate) failures: u32,
    /// Since when it fails, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) failing_since_ms: Option<u64>,
    /// Why nothing is sent, until somebody resumes it.
    #[serde(default)]
    pub(crate) paused: Option<String>,
    /// The last failure.
    #[serde(default)]
    pub(crate) last_error: Option<String>,
}

/// Why it cannot be told, or kept, how far endpoints are.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {error}", file = file.display())]
pub struct OpenError {
    /// Which file or directory.
    pub file: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl Progress {
    /// Reads a file; none if there is none.
    pub(crate) fn load(file: &Path) -> Result<Option<Self>, OpenError> {
        let failed = |error| OpenError { file: file.to_owned(), error };
        match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into())),
        }
    }

    /// Writes the file, so that it outlives a power cut.
    pub(crate) fn save(&self, file: &Path) -> Result<(), OpenError> {
        let write = || {
            let bytes = serde_json::to_vec(self)?;
            let new = file.with_extension("new");
            let mut handle = File::create(&new)?;
            handle.write_all(&bytes)?;
            handle.sync_all()?;
            fs::rename(&new, file)?;
            File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|error| OpenError { file: file.to_owned(), error })
    }
}

/// Makes the directory, if it is not there.
pub(crate) fn prepare(directory: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError { file: directory.to_owned(), error };
    fs::create_dir_all(directory).map_err(failed)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all()).map_err(failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        prepare(&state).unwrap();
        let file = state.join("1-shop.json");
        assert_eq!(Progress::load(&file).unwrap(), None);
        let progress = Progress {
            cursor: "5.7".to_owned(),
            failures: 2,
            failing_since_ms: Some(9),
            ..Progress::default()
        };
        progress.save(&file).unwrap();
        // One that was being written when the power went is not looked at.
        fs::write(file.with_extension("new"), "{").unwrap();
        assert_eq!(Progress::load(&file).unwrap(), Some(progress.clone()));
        progress.save(&file).unwrap();
        fs::write(&file, "{").unwrap();
        assert!(Progress::load(&file).unwrap_err().to_string().contains("1-shop.json"));
    }
}
