//! One process per data directory, by `flock`: the kernel lets go when the process ends, however it ends.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use surety_protocol::sabotage;

/// Name of the lock file.
pub const LOCK_FILE: &str = "LOCK";

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by process {holder}; stop that one first", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
        /// The process id that the holder left in the lock file, as text.
        holder: String,
    },
    /// The operating system refused.
    #[error("locking {} failed: {source}; check its permissions", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock, or says who has it.
    ///
    /// # Errors
    /// [`LockError::Busy`] if another process (or another lock in this one) holds it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(LOCK_FILE);
        let io = |source| LockError::Io { path: path.clone(), source };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(_) if sabotage!("two-processes-on-one-directory") => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Busy { path: directory.to_owned(), holder: read_holder(&mut file) });
            }
            Err(errno) => return Err(io(errno.into())),
        }
        write_holder(&mut file).map_err(io)?;
        Ok(Self { _file: file })
    }
}

fn read_holder(file: &mut File) -> String {
    let mut text = String::new();
    // The lock is what counts; the id is for the message only.
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
