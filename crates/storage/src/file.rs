//! The files of one shard: `wal::Storage` on a directory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, fdatasync, fstatvfs};
use rustix::io::Errno;
use surety_protocol::limits::BLOCK_ALIGN;
use wal::{FileName, PageBuffer, Storage};

use crate::{Operation, StorageError};

/// Pages of zeros that are written at a time when a file is created: 1 MiB.
const ZERO_PAGES: usize = 256;
/// Files that are kept open.
const FILES_OPEN_MAX: usize = 8;

/// How durable writes reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMode {
    /// Past the page cache, written and durable in one call (`O_DIRECT | O_DSYNC`).
    Direct,
    /// Through the page cache, then `fdatasync`.
    Sync,
}

impl IoMode {
    /// The mode for a directory for which nobody has chosen one: direct where the file system takes it.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the directory does not exist or may not be read.
    pub fn for_directory(path: &Path) -> Result<Self, StorageError> {
        let storage = FileStorage::open_with(path, Self::Direct, false)?;
        let takes_direct = match storage.try_direct() {
            Ok(()) => true,
            // Refused only for want of space: the mode was taken.
            Err(error) => is_no_space(&error),
        };
        Ok(if takes_direct { Self::Direct } else { Self::Sync })
    }
}

/// The files of one shard. A thread that needs them opens its own.
#[derive(Debug)]
pub struct FileStorage {
    path: PathBuf,
    directory: File,
    mode: IoMode,
    is_read_only: bool,
    open: RefCell<BTreeMap<FileName, Handles>>,
}

/// A file, opened as often as it takes.
#[derive(Clone, Debug)]
struct Handles {
    buffered: Arc<File>,
    direct: Option<Arc<File>>,
}

impl FileStorage {
    /// Opens a shard's directory, which must exist.
    ///
    /// # Errors
    /// [`StorageError::DirectRefused`] if direct I/O is wanted and the file system cannot do it.
    pub fn open(path: &Path, mode: IoMode) -> Result<Self, StorageError> {
        let storage = Self::open_with(path, mode, false)?;
        if mode == IoMode::Direct {
            storage.probe_direct()?;
        }
        Ok(storage)
    }

    /// Opens a shard's directory for reading: a tail reader beside the writer, or a check.
    ///
    /// # Errors
    /// [`StorageError::Io`] if it does not exist or may not be read.
    pub fn open_read_only(path: &Path) -> Result<Self, StorageError> {
        Self::open_with(path, IoMode::Sync, true)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that this process may still take on the file system.
    ///
    /// # Errors
    /// [`StorageError::Io`] if the file system does not say.
    pub fn free_bytes(&self) -> Result<u64, StorageError> {
        let stat =
            fstatvfs(&self.directory).map_err(|errno| self.directory_error(Operation::Stat, errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes a file's data durable and leaves it in the page cache, where [`Storage::sync`] drops it.
    ///
    /// # Errors
    /// [`StorageError::Io`], fatal.
    pub fn flush(&mut self, name: FileName) -> Result<(), StorageError> {
        let handles = self.handles(name)?;
        fdatasync(&*handles.buffered).map_err(|errno| self.error(Operation::Sync, name, 0, errno.into()))
    }

    fn open_with(path: &Path, mode: IoMode, is_read_only: bool) -> Result<Self, StorageError> {
        let directory = File::open(path).map_err(|source| io_error(Operation::Open, path, 0, source))?;
        Ok(Self { path: path.to_owned(), directory, mode, is_read_only, open: RefCell::new(BTreeMap::new()) })
    }

    /// Writes a page to a nameless file, to learn now rather than at the first block whether direct I/O works.
    fn probe_direct(&self) -> Result<(), StorageError> {
        match self.try_direct() {
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Err(StorageError::DirectRefused { path: self.path.clone() })
            }
            // Without nameless files there is no probe; the first direct write tells.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn try_direct(&self) -> io::Result<()> {
        let flags = OFlags::TMPFILE | OFlags::DIRECT | OFlags::DSYNC;
        let probe = File::options().read(true).write(true).custom_flags(bits(flags)).open(&self.path)?;
        probe.write_all_at(PageBuffer::with_pages(1).as_bytes(), 0)
    }

    fn file_path(&self, name: FileName) -> PathBuf {
        self.path.join(name.to_text())
    }

    fn handles(&self, name: FileName) -> Result<Handles, StorageError> {
        if let Some(handles) = self.open.borrow().get(&name) {
            return Ok(handles.clone());
        }
        let handles = self.open_file(name)?;
        let mut open = self.open.borrow_mut();
        // Few files are in use at a time; a reader that goes through a long log must not keep them all.
        if open.len() >= FILES_OPEN_MAX {
            open.clear();
        }
        open.insert(name, handles.clone());
        Ok(handles)
    }

    fn open_file(&self, name: FileName) -> Result<Handles, StorageError> {
        let path = self.file_path(name);
        let open = |flags: OFlags| {
            let mut options = File::options();
            options.read(true).write(!self.is_read_only).custom_flags(bits(flags)).open(&path).map(Arc::new)
        };
        let buffered =
            open(OFlags::empty()).map_err(|source| self.error(Operation::Open, name, 0, source))?;
        let holds_blocks = matches!(name, FileName::Segment { .. } | FileName::Guard);
        // Read-only storages are of this mode, too.
        if self.mode == IoMode::Sync || !holds_blocks {
            return Ok(Handles { buffered, direct: None });
        }
        let direct = open(OFlags::DIRECT | OFlags::DSYNC).map_err(|source| {
            match source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
                true => StorageError::DirectRefused { path: path.clone() },
                false => self.error(Operation::Open, name, 0, source),
            }
        })?;
        Ok(Handles { buffered, direct: Some(direct) })
    }

    fn forget(&self, name: FileName) {
        self.open.borrow_mut().remove(&name);
    }

    /// Fills a new file with zeros, so that later writes change no metadata that would have to be journaled.
    fn preallocate(&self, path: &Path, file: &File, name: FileName, bytes: u64) -> io::Result<()> {
        if bytes > 0 {
            // The length grows with the zeros: a file whose making was cut short is recognised by it.
            match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // Past the page cache where the log goes that way, too: copying zeros would take a part of a core from the shard.
        let direct = match self.mode {
            IoMode::Direct => File::options().write(true).custom_flags(bits(OFlags::DIRECT)).open(path).ok(),
            IoMode::Sync => None,
        };
        let zeros = PageBuffer::with_pages(ZERO_PAGES);
        let mut offset = 0;
        while offset < bytes {
            let chunk = zeros.as_bytes();
            let length = usize::try_from(bytes - offset).map_or(chunk.len(), |left| left.min(chunk.len()));
            match &direct {
                Some(direct) if length.is_multiple_of(BLOCK_ALIGN) => {
                    direct.write_all_at(&chunk[..length], offset)?
                }
                _ => file.write_all_at(&chunk[..length], offset)?,
            }
            offset += length as u64;
        }
        file.sync_all()?;
        debug_assert_eq!(file.metadata().map(|metadata| metadata.len()).ok(), Some(bytes), "{name}");
        Ok(())
    }

    fn create_file(&self, name: FileName, bytes: u64) -> io::Result<()> {
        let path = self.file_path(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        self.preallocate(&path, &file, name, bytes).inspect_err(|_| {
            // Half a file is of no use, and its space is wanted. If this fails, too, opening the log removes it.
            let _ = fs::remove_file(&path);
        })
    }

    fn write_direct(
        &self,
        file: &File,
        name: FileName,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let source = match file.write_at(bytes, offset) {
            Ok(written) if written == bytes.len() => return Ok(()),
            // The rest might no longer be aligned; and a disk that writes half a block is not to be trusted.
            Ok(_) => io::Error::from(io::ErrorKind::WriteZero),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return self.write_direct(file, name, offset, bytes);
            }
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                return Err(StorageError::DirectRefused { path: self.file_path(name) });
            }
            Err(error) => error,
        };
        Err(self.error(Operation::Write, name, offset, source))
    }

    fn error(&self, operation: Operation, name: FileName, offset: u64, source: io::Error) -> StorageError {
        io_error(operation, &self.file_path(name), offset, source)
    }

    fn directory_error(&self, operation: Operation, source: io::Error) -> StorageError {
        io_error(operation, &self.path, 0, source)
    }
}

impl Storage for FileStorage {
    type Error = StorageError;

    fn list(&self) -> Result<Vec<FileName>, StorageError> {
        let error = |source| self.directory_error(Operation::List, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(error)? {
            let file_name = entry.map_err(error)?.file_name();
            names.extend(file_name.to_str().and_then(FileName::parse));
        }
        Ok(names)
    }

    fn create(&mut self, name: FileName, bytes: u64) -> Result<(), StorageError> {
        self.forget(name);
        self.create_file(name, bytes).map_err(|source| match is_no_space(&source) {
            true => StorageError::NoSpace { path: self.file_path(name), bytes },
            false => self.error(Operation::Create, name, 0, source),
        })
    }

    fn len(&self, name: FileName) -> Result<u64, StorageError> {
        let metadata = self.handles(name)?.buffered.metadata();
        Ok(metadata.map_err(|source| self.error(Operation::Stat, name, 0, source))?.len())
    }

    fn read_at(&self, name: FileName, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let handles = self.handles(name)?;
        let read = handles.buffered.read_exact_at(buffer, offset);
        read.map_err(|source| self.error(Operation::Read, name, offset, source))
    }

    fn write_at(&mut self, name: FileName, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let handles = self.handles(name)?;
        handles.buffered.write_all_at(bytes, offset).map_err(|source| {
            let is_draft = matches!(name, FileName::SnapshotTemp { .. } | FileName::Reserve { .. });
            match is_draft && is_no_space(&source) {
                true => StorageError::NoSpace { path: self.file_path(name), bytes: bytes.len() as u64 },
                false => self.error(Operation::Write, name, offset, source),
            }
        })
    }

    /// `fdatasync`, then drops the file from the page cache, so that what is read next is what is on the disk.
    fn sync(&mut self, name: FileName) -> Result<(), StorageError> {
        self.flush(name)?;
        let handles = self.handles(name)?;
        let advised = fadvise(&*handles.buffered, 0, None, Advice::DontNeed);
        advised.map_err(|errno| self.error(Operation::Sync, name, 0, errno.into()))
    }

    fn sync_directory(&mut self) -> Result<(), StorageError> {
        self.directory.sync_all().map_err(|source| self.directory_error(Operation::SyncDirectory, source))
    }

    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), StorageError> {
        self.forget(from);
        self.forget(to);
        let renamed = fs::rename(self.file_path(from), self.file_path(to));
        renamed.map_err(|source| self.error(Operation::Rename, from, 0, source))
    }

    fn remove(&mut self, name: FileName) -> Result<(), StorageError> {
        self.forget(name);
        let removed = fs::remove_file(self.file_path(name));
        removed.map_err(|source| self.error(Operation::Remove, name, 0, source))
    }

    fn write_synced(&mut self, name: FileName, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        match self.handles(name)?.direct {
            Some(direct) if is_aligned(offset, bytes) => self.write_direct(&direct, name, offset, bytes),
            _ => {
                self.write_at(name, offset, bytes)?;
                self.flush(name)
            }
        }
    }
}

fn is_aligned(offset: u64, bytes: &[u8]) -> bool {
    offset.is_multiple_of(BLOCK_ALIGN as u64)
        && bytes.len().is_multiple_of(BLOCK_ALIGN)
        && bytes.as_ptr().addr().is_multiple_of(BLOCK_ALIGN)
}

fn is_no_space(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT, Errno::FBIG]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn bits(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

pub(crate) fn io_error(operation: Operation, path: &Path, offset: u64, source: io::Error) -> StorageError {
    StorageError::Io { operation, path: path.to_owned(), offset, source }
}
