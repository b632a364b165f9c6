//! The data directory as the commands use it: where things are, who serves it, and why it cannot be opened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use storage::{DataDirectory, LockError, OpenDirectoryError, StorageError};
use surety_protocol::ShardId;

use crate::exit::{Exit, Failure};

/// Where a running server tells its addresses; gone after it has drained.
const READY_FILE: &str = "ready.json";
/// Where the development certificates are.
const PKI: &str = "pki";

/// The directory of the development certificates.
pub(crate) fn pki(data: &Path) -> PathBuf {
    data.join(PKI)
}

/// A development identity.
pub(crate) fn identity(data: &Path, name: &str) -> PathBuf {
    pki(data).join(name).with_extension("pem")
}

/// What other commands need to know about a running server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Serving {
    /// UDP address of shard 0.
    pub(crate) listen: SocketAddr,
    /// TCP address of the admin listener.
    pub(crate) admin: Option<SocketAddr>,
    /// TCP address of the console.
    #[serde(default)]
    pub(crate) console: Option<SocketAddr>,
    /// The console speaks TLS.
    #[serde(default)]
    pub(crate) console_tls: bool,
    /// The process.
    pub(crate) pid: u32,
}

impl Serving {
    /// Leaves word in the data directory, at once or not at all.
    pub(crate) fn announce(&self, data: &Path) -> std::io::Result<()> {
        let temporary = data.join(format!("{READY_FILE}.tmp"));
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(temporary, data.join(READY_FILE))
    }

    /// Takes the word back. A killed server leaves it; whoever dials then gets no answer.
    pub(crate) fn retract(data: &Path) {
        let _ = std::fs::remove_file(data.join(READY_FILE));
    }

    /// Finds the server of a data directory in use.
    pub(crate) fn find(data: &Path) -> Result<Self, Failure> {
        DataDirectory::inspect(data).map_err(|error| open_failure(&error))?;
        let idle = || {
            let data = data.display();
            Failure::new(
                Exit::Unreachable,
                format!("nobody serves {data}: start `surety serve --data {data}`"),
            )
        };
        let text = std::fs::read(data.join(READY_FILE)).map_err(|_| idle())?;
        serde_json::from_slice(&text).map_err(|_| idle())
    }
}

/// Opens a data directory for this process alone.
pub(crate) fn open(data: &Path) -> Result<DataDirectory, Failure> {
    DataDirectory::open(data).map_err(|error| open_failure(&error))
}

/// Why a data directory was not opened, with its exit code.
pub(crate) fn open_failure(error: &OpenDirectoryError) -> Failure {
    let exit = match error {
        OpenDirectoryError::Missing(_)
        | OpenDirectoryError::Foreign { .. }
        | OpenDirectoryError::HalfRestored(_)
        | OpenDirectoryError::Copied(_) => Exit::Foreign,
        OpenDirectoryError::Newer { .. } => Exit::Newer,
        OpenDirectoryError::ShardMissing(_) => Exit::Corrupt,
        OpenDirectoryError::Lock(LockError::Busy { .. }) => Exit::InUse,
        OpenDirectoryError::Lock(LockError::Io { .. }) | OpenDirectoryError::Io { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}

/// Why a shard's log cannot be read, with its exit code. `path` is the shard's directory.
pub(crate) fn log_failure(path: &Path, error: &wal::RecoverError<StorageError>) -> Failure {
    let exit = match error {
        wal::RecoverError::Io(_) => Exit::Failure,
        wal::RecoverError::Missing { .. } | wal::RecoverError::Gap { .. } | wal::RecoverError::Rot { .. } => {
            Exit::Corrupt
        }
        wal::RecoverError::ForeignEngine { .. } | wal::RecoverError::WrongShard { .. } => Exit::Foreign,
        wal::RecoverError::Newer { .. } => Exit::Newer,
    };
    Failure::caused(exit, path.display(), error)
}

/// Why a shard's files cannot be used at all.
pub(crate) fn storage_failure(error: &StorageError) -> Failure {
    Failure::new(Exit::Failure, error)
}

/// Which shards a command looks at.
pub(crate) fn chosen(directory: &DataDirectory, shard: Option<u16>) -> Result<Vec<ShardId>, Failure> {
    let all: Vec<ShardId> = directory.shards().collect();
    match shard {
        None => Ok(all),
        Some(shard) if all.contains(&ShardId(shard)) => Ok(vec![ShardId(shard)]),
        Some(shard) => {
            let count = all.len();
            Err(Failure::new(Exit::Usage, format!("no shard {shard}: there are {count}, counted from 0")))
        }
    }
}
