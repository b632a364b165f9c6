//! The last price of a feed, in a file: a number in decimal digits.

use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::journal::sync_directory;

/// Where the last price is kept.
#[derive(Debug)]
pub(super) struct Memory {
    file: PathBuf,
}

impl Memory {
    pub(super) const fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// The last price; none if there never was one.
    pub(super) fn recall(&self) -> std::io::Result<Option<u128>> {
        match std::fs::read_to_string(&self.file) {
            Ok(text) => text.trim_end().parse().map(Some).map_err(|_| {
                let message = format!(
                    "{} holds no price: take it away if the next one is to be believed",
                    self.file.display()
                );
                Error::new(ErrorKind::InvalidData, message)
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces it, at once or not at all.
    pub(super) fn remember(&self, price: u128) -> std::io::Result<()> {
        // The whole name, and more: feeds side by side differ in it.
        let mut temporary = self.file.clone().into_os_string();
        temporary.push(".tmp");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{price}")?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.file)?;
        // A bare name has an empty parent.
        let directory = self.file.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(directory.unwrap_or_else(|| Path::new(".")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_file_of_this_directory() {
        let name = format!("surety-price-{}.last", std::process::id());
        let memory = Memory::new(PathBuf::from(&name));
        let kept = memory.remember(7).and_then(|()| memory.recall());
        std::fs::remove_file(&name).unwrap();
        assert_eq!(kept.unwrap(), Some(7));
    }
}
