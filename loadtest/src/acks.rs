//! The file of acknowledgements: every reply that a client has received, as it received it.
//!
//! Format: replies of 128 bytes each ([`surety_protocol::Reply`], request id at offset 0), one behind the other, nothing
//! else. The file is only appended to, by `write(2)` and before the reply is counted anywhere; it is not synced, so it
//! survives a kill of either process and not a power cut. A last part of less than 128 bytes is the write that a kill cut.
//! Several processes may append to one file at once: each holds its lock (`flock`) while it writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use surety_protocol::Reply;
use surety_protocol::limits::RECORD_BYTES;

/// Why acknowledgements could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AcksError {
    /// The file system failed.
    #[error("acknowledgements in {}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// The content is not that of such a file.
    #[error("{} holds no reply at offset {offset}: it is not a file of acknowledgements, or damaged", path.display())]
    NotAReply {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

/// Appends replies.
#[derive(Debug)]
pub(crate) struct AckWriter {
    path: PathBuf,
    file: File,
    bytes: Vec<u8>,
}

impl AckWriter {
    pub(crate) fn open(path: &Path) -> Result<Self, AcksError> {
        let io = |error| AcksError::Io { path: path.to_owned(), error };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
        let mut writer = Self { path: path.to_owned(), file, bytes: Vec::new() };
        writer.write().map_err(io)?;
        Ok(writer)
    }

    /// Writes replies; once this returns they are with the operating system.
    pub(crate) fn append<'a>(&mut self, replies: impl Iterator<Item = &'a Reply>) -> Result<(), AcksError> {
        self.bytes.clear();
        replies.for_each(|reply| self.bytes.extend_from_slice(&reply.to_bytes()));
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.write().map_err(|error| AcksError::Io { path: self.path.clone(), error })
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.lock()?;
        // What a kill has cut, here or in another process, would put everything behind it out of step.
        let cut = self.file.metadata()?.len() % RECORD_BYTES as u64;
        if cut > 0 {
            self.file.set_len(self.file.metadata()?.len() - cut)?;
        }
        self.file.write_all(&self.bytes)?;
        self.file.unlock()
    }
}

/// Reads all replies of a file.
///
/// # Errors
/// If it cannot be read, or holds something else.
pub fn read_acks(path: &Path) -> Result<Vec<Reply>, AcksError> {
    let bytes = std::fs::read(path).map_err(|error| AcksError::Io { path: path.to_owned(), error })?;
    parse_acks(&bytes).map_err(|offset| AcksError::NotAReply { path: path.to_owned(), offset })
}

/// Bytes behind the last whole reply of a file.
pub(crate) fn cut_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len() % RECORD_BYTES as u64)
}

/// Reads all replies in a file's bytes.
///
/// # Errors
/// The offset of the first thing that is no reply.
pub fn parse_acks(bytes: &[u8]) -> Result<Vec<Reply>, u64> {
    let (replies, _cut) = bytes.as_chunks::<RECORD_BYTES>();
    let read = |(index, bytes)| Reply::from_bytes(bytes).ok_or((index * RECORD_BYTES) as u64);
    replies.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{Code, Id};

    fn reply(id: u128) -> Reply {
        Reply { id: Id(id), code: Code::Approved as u8, ..Reply::default() }
    }

    #[test]
    fn appended_replies_are_read_back_and_a_cut_one_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acks");
        AckWriter::open(&path).unwrap().append([reply(1), reply(2)].iter()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..200]).unwrap();
        assert_eq!(read_acks(&path).unwrap(), [reply(1)]);
        AckWriter::open(&path).unwrap().append([reply(3)].iter()).unwrap();
        assert_eq!(read_acks(&path).unwrap(), [reply(1), reply(3)]);
        std::fs::write(&path, [0xff; 256]).unwrap();
        assert!(matches!(read_acks(&path), Err(AcksError::NotAReply { offset: 0, .. })));
        assert!(matches!(read_acks(directory.path()), Err(AcksError::Io { .. })));
    }

    #[test]
    fn several_writers_of_a_file_leave_whole_replies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acks");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let mut acks = AckWriter::open(path).unwrap();
                    for batch in 0..100 {
                        let replies: Vec<_> =
                            (0..7).map(|at| reply(writer * 1000 + batch * 7 + at)).collect();
                        acks.append(replies.iter()).unwrap();
                    }
                });
            }
        });
        let ids: std::collections::BTreeSet<_> =
            read_acks(&path).unwrap().iter().map(|reply| reply.id).collect();
        assert_eq!(ids.len(), 4 * 700);
    }
}
