//! Files of a shard that are held open: what retention removes meanwhile can still be read to the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};
use storage::{FileStorage, Operation, StorageError};
use wal::{FileName, Storage};

/// Held files, to read. It refuses to write: what is held belongs to an engine.
#[derive(Debug)]
pub(crate) struct Pinned {
    path: PathBuf,
    files: BTreeMap<FileName, File>,
}

impl Pinned {
    /// Opens these files of a shard's directory; none if one of them is not there any more.
    pub(crate) fn open(path: &Path, names: &[FileName]) -> Result<Option<Self>, StorageError> {
        let mut pinned = Self::empty(path);
        for &name in names {
            match File::open(path.join(name.to_text())) {
                Ok(file) => _ = pinned.files.insert(name, file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(pinned.error(Operation::Open, name, 0, error)),
            }
        }
        Ok(Some(pinned))
    }

    /// No file at all.
    pub(crate) fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), files: BTreeMap::new() }
    }

    /// Closes the files that are not needed any more.
    pub(crate) fn let_go(&mut self, is_done: impl Fn(FileName) -> bool) {
        self.files.retain(|&name, _| !is_done(name));
    }

    /// Makes what an engine may have left in memory durable, and has it read from the disk.
    pub(crate) fn sync_all(&self) -> Result<(), StorageError> {
        for (&name, file) in &self.files {
            file.sync_data().map_err(|source| self.error(Operation::Sync, name, 0, source))?;
            // Advice: where it is not taken, the copy is of the same bytes.
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    /// True if one of the files has no name any more: it takes up its space for as long as it is held.
    pub(crate) fn holds_removed(&self) -> Result<bool, StorageError> {
        for (&name, file) in &self.files {
            let metadata = file.metadata().map_err(|source| self.error(Operation::Stat, name, 0, source))?;
            if metadata.nlink() == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Bytes that are free where the files are.
    pub(crate) fn free_bytes(&self) -> Result<u64, StorageError> {
        FileStorage::open_read_only(&self.path)?.free_bytes()
    }

    /// A held file.
    pub(crate) fn file(&self, name: FileName) -> Result<&File, StorageError> {
        let gone = || self.error(Operation::Open, name, 0, io::ErrorKind::NotFound.into());
        self.files.get(&name).ok_or_else(gone)
    }

    fn error(&self, operation: Operation, name: FileName, offset: u64, source: io::Error) -> StorageError {
        StorageError::Io { operation, path: self.path.join(name.to_text()), offset, source }
    }

    fn refuse(&self, operation: Operation, name: FileName) -> StorageError {
        self.error(operation, name, 0, io::ErrorKind::PermissionDenied.into())
    }
}

impl Storage for Pinned {
    type Error = StorageError;

    fn list(&self) -> Result<Vec<FileName>, StorageError> {
        Ok(self.files.keys().copied().collect())
    }

    fn create(&mut self, name: FileName, _bytes: u64) -> Result<(), StorageError> {
        Err(self.refuse(Operation::Create, name))
    }

    fn len(&self, name: FileName) -> Result<u64, StorageError> {
        let metadata = self.file(name)?.metadata();
        Ok(metadata.map_err(|source| self.error(Operation::Stat, name, 0, source))?.len())
    }

    fn read_at(&self, name: FileName, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let read = self.file(name)?.read_exact_at(buffer, offset);
        read.map_err(|source| self.error(Operation::Read, name, offset, source))
    }

    fn write_at(&mut self, name: FileName, _offset: u64, _bytes: &[u8]) -> Result<(), StorageError> {
        Err(self.refuse(Operation::Write, name))
    }

    /// Whoever writes a file syncs it; a copy is of what is synced already.
    fn sync(&mut self, _name: FileName) -> Result<(), StorageError> {
        Ok(())
    }

    fn sync_directory(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn rename(&mut self, from: FileName, _to: FileName) -> Result<(), StorageError> {
        Err(self.refuse(Operation::Rename, from))
    }

    fn remove(&mut self, name: FileName) -> Result<(), StorageError> {
        Err(self.refuse(Operation::Remove, name))
    }
}
