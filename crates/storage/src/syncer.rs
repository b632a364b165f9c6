//! The thread that syncs behind the writes in `os` mode and moves the synced mark.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wal::{FileName, Mark};

use crate::{FileStorage, StorageError};

/// Pause between two syncs. With the sync itself it keeps the synced mark within 50 ms of the acks.
pub const SYNC_INTERVAL: Duration = Duration::from_millis(20);

/// A thread that syncs what was written, over and over. Dropping it syncs the rest.
#[derive(Debug)]
pub struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

/// What was written since the last sync.
#[derive(Debug, Default)]
struct Pending {
    files: Vec<FileName>,
    mark: Option<Mark>,
    is_closing: bool,
}

impl Syncer {
    /// Starts the thread. `complete` is called on it with each mark that a sync has reached.
    ///
    /// After an error `complete` is called once with it and never again: the caller aborts the process.
    ///
    /// # Errors
    /// If the operating system grants no thread.
    pub fn spawn(
        name: &str,
        storage: FileStorage,
        interval: Duration,
        complete: impl FnMut(Result<Mark, StorageError>) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            sync_all(&theirs, storage, interval, complete);
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A write to `file` was performed; with it the log is written up to `mark`.
    pub fn written(&self, file: FileName, mark: Mark) {
        let mut pending = self.shared.lock();
        if !pending.files.contains(&file) {
            pending.files.push(file);
        }
        // With a mark already there the thread will come for it; waking it for each write costs more than the write.
        let is_first = pending.mark.replace(mark).is_none();
        drop(pending);
        if is_first {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was the panic of `complete`, and aborts in release builds.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // The guarded values are whole at every point where a panic could happen.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to sync; none when closing and nothing is left.
    fn take(&self) -> Option<(Vec<FileName>, Mark)> {
        let idle = |pending: &mut Pending| pending.mark.is_none() && !pending.is_closing;
        let mut pending = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let mark = pending.mark.take()?;
        Some((std::mem::take(&mut pending.files), mark))
    }

    fn pause(&self, interval: Duration) {
        let running = |pending: &mut Pending| !pending.is_closing;
        drop(self.changed.wait_timeout_while(self.lock(), interval, running));
    }
}

fn sync_all(
    shared: &Shared,
    mut storage: FileStorage,
    interval: Duration,
    mut complete: impl FnMut(Result<Mark, StorageError>),
) {
    while let Some((files, mark)) = shared.take() {
        let synced = files.into_iter().try_for_each(|file| storage.flush(file));
        let is_over = synced.is_err();
        complete(synced.map(|()| mark));
        if is_over {
            return;
        }
        shared.pause(interval);
    }
}
