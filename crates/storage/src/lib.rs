//! The log's files on a real disk: data directories, direct and synchronous I/O, the writer and syncer threads.
//!
//! Nothing here decides about contents; `wal` does. Nothing here is asynchronous; completions go to a callback, on the
//! thread that made them.

mod data_directory;
mod error;
mod file;
mod lock;
mod syncer;
mod writer;

pub use data_directory::{
    COPIED_METADATA_FILE, CreateDirectoryError, DataDirectory, FORMAT_VERSION, METADATA_FILE, Metadata,
    MetadataFault, OpenDirectoryError, RESTORING_FILE, RestoringDirectory,
};
pub use error::{Operation, StorageError};
pub use file::{FileStorage, IoMode};
pub use lock::{DirectoryLock, LOCK_FILE, LockError};
pub use syncer::{SYNC_INTERVAL, Synced, Syncer};
pub use writer::{LogWriter, WriterStopped};
