//! The thread that makes blocks durable in `fsync` mode, so that the shard's thread never waits for the disk.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use surety_protocol::sabotage;
use wal::{Storage, Write};

/// The writer has met an error and told so; the process is about to abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log writer has stopped after an error; the process must abort")]
pub struct WriterStopped;

/// A thread that performs one [`Write`] after the other.
///
/// The log has one block in flight, so the queue never holds more than one. Dropping it waits for that one.
#[derive(Debug)]
pub struct LogWriter {
    sender: Option<SyncSender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts the thread. `complete` is called on it with each write that was performed, in order.
    ///
    /// After an error `complete` is called once with it and never again: the caller aborts the process.
    ///
    /// # Errors
    /// If the operating system grants no thread.
    pub fn spawn<S>(
        name: &str,
        storage: S,
        complete: impl FnMut(Result<Write, S::Error>) + Send + 'static,
    ) -> io::Result<Self>
    where
        S: Storage + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            write_all(storage, receiver, complete);
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Hands a write over.
    ///
    /// # Errors
    /// [`WriterStopped`] if the thread has stopped after an error.
    pub fn submit(&self, write: Write) -> Result<(), WriterStopped> {
        let sender = self.sender.as_ref().ok_or(WriterStopped)?;
        sender.send(write).map_err(|_| WriterStopped)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was the panic of `complete`, and aborts in release builds.
            let _ = thread.join();
        }
    }
}

fn write_all<S: Storage>(
    mut storage: S,
    receiver: Receiver<Write>,
    mut complete: impl FnMut(Result<Write, S::Error>),
) {
    while let Ok(write) = receiver.recv() {
        match write.perform(&mut storage) {
            Ok(()) => complete(Ok(write)),
            Err(_) if sabotage!("disk-error-tried-again") => {
                complete(write.perform(&mut storage).map(|()| write));
            }
            Err(error) => {
                // Whoever hears of the error must not be able to hand over another write.
                drop(receiver);
                return complete(Err(error));
            }
        }
    }
}
