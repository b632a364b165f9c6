//! The socket of an index and what goes over it: documents behind their length, bounded both ways.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use surety_protocol::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Bytes of a question, at most: what an engine's wire carries.
pub const QUESTION_BYTES_MAX: usize = limits::QUERY_BYTES_MAX;
/// Bytes of an answer, at most.
pub const ANSWER_BYTES_MAX: usize = limits::ANSWER_BYTES_MAX;
/// Bytes of the length in front of a document: u32, little-endian.
pub(crate) const LENGTH_BYTES: usize = 4;

/// What the socket is called in the data directory.
const NAME: &str = "history.sock";

/// Where a data directory's index is asked.
#[must_use]
pub fn socket(data: &Path) -> PathBuf {
    data.join(NAME)
}

/// A path of a file in a directory that is open: short, however long the directory's own is, as the addresses of sockets have to be.
fn short(directory: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// Listens in a data directory, for its owner alone. Whoever holds the index's store may: what is there is left over then.
///
/// # Errors
/// The system's own.
pub fn bind(data: &Path) -> io::Result<UnixListener> {
    let directory = File::open(data)?;
    // It gets its name when nobody else can open it any more.
    let (new, name) = (short(&directory, "history.sock.new"), short(&directory, NAME));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, &name)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Takes the socket away.
pub fn unbind(data: &Path) {
    let _ = fs::remove_file(socket(data));
}

/// Connects to it.
pub(crate) async fn dial(data: &Path) -> io::Result<UnixStream> {
    let directory = File::open(data)?;
    UnixStream::connect(short(&directory, NAME)).await
}

/// Reads the length of the next document; none at the end.
pub(crate) async fn read_length(stream: &mut UnixStream) -> io::Result<Option<usize>> {
    let mut bytes = [0; LENGTH_BYTES];
    match stream.read_exact(&mut bytes).await {
        Ok(_) => Ok(Some(u32::from_le_bytes(bytes) as usize)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a document of this length, which has been found to be bounded.
pub(crate) async fn read_body(stream: &mut UnixStream, length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Writes a document. It is shorter than 4 GiB: both sides have bounded it.
pub(crate) async fn write(stream: &mut UnixStream, body: &[u8]) -> io::Result<()> {
    stream.write_all(&frame(body)).await
}

/// A document behind its length.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], body].concat()
}
