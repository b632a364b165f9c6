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
        let temporary = self.file.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{price}")?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.file)?;
        sync_directory(self.file.parent().unwrap_or_else(|| Path::new(".")))
    }
}
