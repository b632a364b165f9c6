//! Where backups are kept: named files that are there whole or not at all. Nobody but their owner reads those of a directory: a log
//! tells of everybody's payments, and one of the files is a key.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

/// A place for files.
pub trait Depot: fmt::Debug + Send + Sync {
    /// Keeps a file under a name, durably and whole when this returns; over the one that is there.
    ///
    /// # Errors
    /// [`DepotError::Io`].
    fn put(&self, name: &str, from: &mut dyn Read) -> Result<(), DepotError>;

    /// The contents of a file, from the medium rather than from memory.
    ///
    /// # Errors
    /// [`DepotError::Missing`] if there is none of this name.
    fn get(&self, name: &str) -> Result<Box<dyn Read>, DepotError>;

    /// The names of all files, in any order, finished or not.
    ///
    /// # Errors
    /// [`DepotError::Io`].
    fn names(&self) -> Result<Vec<String>, DepotError>;

    /// The place, to be shown.
    fn place(&self) -> String;

    /// The directory that the files are in, if they can be read there.
    fn directory(&self) -> Option<&Path> {
        None
    }
}

/// Why a place for files does not do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    /// There is no such file.
    #[error("{place} has no {name}")]
    Missing {
        /// Where.
        place: String,
        /// Which.
        name: String,
    },
    /// The file system or the network.
    #[error("{doing} {name} in {place} failed: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        place: String,
        /// On which file; empty for the place itself.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// A directory of a file system.
#[derive(Debug)]
pub struct DirectoryDepot {
    path: PathBuf,
}

impl DirectoryDepot {
    /// A directory, which is made when the first file comes.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn error(&self, doing: &'static str, name: &str, source: io::Error) -> DepotError {
        if source.kind() == io::ErrorKind::NotFound && doing == "reading" {
            return DepotError::Missing { place: self.place(), name: name.to_owned() };
        }
        DepotError::Io { doing, place: self.place(), name: name.to_owned(), source }
    }

    fn write(&self, name: &str, from: &mut dyn Read) -> io::Result<()> {
        let path = self.path.join(name);
        let directory = path.parent().unwrap_or(&self.path);
        make_directory(directory)?;
        let mut temp = path.clone().into_os_string();
        temp.push(".tmp");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        io::copy(from, &mut file)?;
        file.sync_all()?;
        // What is read back is then what is on the disk. Advice: where it is not taken, nothing is lost but that.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        fs::rename(&temp, &path)?;
        File::open(directory)?.sync_all()
    }
}

/// Makes a directory with those above it; what is new is durable.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make_directory(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

impl Depot for DirectoryDepot {
    fn put(&self, name: &str, from: &mut dyn Read) -> Result<(), DepotError> {
        self.write(name, from).map_err(|source| self.error("writing", name, source))
    }

    fn get(&self, name: &str) -> Result<Box<dyn Read>, DepotError> {
        let file = File::open(self.path.join(name)).map_err(|source| self.error("reading", name, source))?;
        Ok(Box::new(file))
    }

    fn names(&self) -> Result<Vec<String>, DepotError> {
        let mut names = Vec::new();
        match list(&self.path, "", &mut names) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.error("listing", "", error)),
            Ok(()) => Ok(names),
        }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

fn list(path: &Path, before: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = format!("{before}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_there_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(&directory.path().join("a/b"));
        assert!(depot.names().unwrap().is_empty());
        assert!(matches!(depot.get("x"), Err(DepotError::Missing { .. })));
        depot.put("x", &mut &b"one"[..]).unwrap();
        depot.put("d/y", &mut &b"two"[..]).unwrap();
        depot.put("x", &mut &b"three"[..]).unwrap();
        let mut names = depot.names().unwrap();
        names.sort();
        assert_eq!(names, ["d/y", "x"]);
        let mut text = String::new();
        depot.get("x").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "three");
    }

    #[test]
    fn a_file_that_cannot_be_read_to_its_end_is_not_kept() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("for the test"))
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(directory.path());
        assert!(matches!(depot.put("x", &mut Broken), Err(DepotError::Io { .. })));
        assert!(matches!(depot.get("x"), Err(DepotError::Missing { .. })));
    }
}
