//! The thread that syncs behind the writes in `os` mode and moves the synced mark.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use handoff::Pending;
use wal::{FileName, Mark};

use crate::{FileStorage, StorageError};

/// Pause between two syncs. With the sync itself it keeps the synced mark within 50 ms of the acks.
pub const SYNC_INTERVAL: Duration = Duration::from_millis(20);

/// A thread that syncs what was written, over and over. Dropping it syncs the rest.
#[derive(Debug)]
pub struct Syncer {
    pending: Arc<Pending<FileName, Mark>>,
    thread: Option<JoinHandle<()>>,
}

/// A sync that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The log is on the disk up to there.
    pub mark: Mark,
    /// How long it took, over all files that were written since the one before.
    pub took: Duration,
}

impl Syncer {
    /// Starts the thread. `complete` is called on it with each sync that is done.
    ///
    /// After an error `complete` is called once with it and never again: the caller aborts the process.
    ///
    /// # Errors
    /// If the operating system grants no thread.
    pub fn spawn(
        name: &str,
        storage: FileStorage,
        interval: Duration,
        complete: impl FnMut(Result<Synced, StorageError>) + Send + 'static,
    ) -> io::Result<Self> {
        let pending = Arc::new(Pending::new());
        let theirs = Arc::clone(&pending);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            sync_all(&theirs, storage, interval, complete);
        })?;
        Ok(Self { pending, thread: Some(thread) })
    }

    /// A write to `file` was performed; with it the log is written up to `mark`.
    pub fn written(&self, file: FileName, mark: Mark) {
        self.pending.note(file, mark);
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.pending.close();
        if let Some(thread) = self.thread.take() {
            // A panic there was the panic of `complete`, and aborts in release builds.
            let _ = thread.join();
        }
    }
}

fn sync_all(
    pending: &Pending<FileName, Mark>,
    mut storage: FileStorage,
    interval: Duration,
    mut complete: impl FnMut(Result<Synced, StorageError>),
) {
    while let Some((files, mark)) = pending.take() {
        let begun = Instant::now();
        let synced = files.into_iter().try_for_each(|file| storage.flush(file));
        let is_over = synced.is_err();
        complete(synced.map(|()| Synced { mark, took: begun.elapsed() }));
        if is_over {
            return;
        }
        pending.pause(interval);
    }
}
