//! `surety init`: makes a data directory.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use server::{InitError, InitOptions};
use storage::{CreateDirectoryError, LockError};
use surety_protocol::Time;
use surety_protocol::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES};

use crate::exit::{self, Exit, Failure, say};

/// Makes a data directory: engine id, logs, keys, development certificates
///
/// Refuses a directory that exists and is not empty. The number of shards is for ever: a shard is one thread, one log and
/// one UDP port. One shard is the default, since it serves more than most networks need and leaves a second core to the
/// kernel and to clients; take as many as there are cores to spare.
///
/// Identities for development are in DIR/pki: admin.pem, settler.pem and reader.pem of the operator, authorizer.pem of
/// tenant 1.
///
/// Example: surety init --data DIR --shards 2
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// The directory to make
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Threads, logs and UDP ports
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: u16,
    /// Bytes of the first segment of each log: a multiple of 4096, at least 524288
    #[arg(long, value_name = "BYTES", default_value_t = SEGMENT_BYTES, value_parser = segment_bytes)]
    segment_bytes: u64,
    /// How old the id of a request may be; 10s to 24h, for ever, since the log is decided by it
    #[arg(long, value_name = "SPAN", default_value = "120s", value_parser = crate::values::span)]
    id_window: Time,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let data = args.data.display();
    let Args { shards, segment_bytes, id_window, .. } = *args;
    let options = InitOptions { shards, segment_bytes, id_window };
    check_space(&args.data, u64::from(shards).saturating_mul(segment_bytes))?;
    let metadata = server::init_with(&args.data, &options).map_err(|error| failure(&error))?;
    say(format_args!("engine {} with {} shard(s) in {data}", metadata.engine, metadata.shards))?;
    say(format_args!("next: surety serve --data {data}"))?;
    Ok(())
}

/// Refuses to fill a disk. What cannot be learned is left to the attempt itself.
fn check_space(data: &Path, wanted: u64) -> Result<(), Failure> {
    let mut place = data.parent().unwrap_or(data);
    if place.as_os_str().is_empty() {
        place = Path::new(".");
    }
    match rustix::fs::statvfs(place) {
        Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) < wanted => Err(Failure::new(
            Exit::Failure,
            format!(
                "no data directory was made: its segments take {wanted} bytes, and {} are free on {}",
                stat.f_bavail.saturating_mul(stat.f_frsize),
                place.display()
            ),
        )),
        _ => Ok(()),
    }
}

/// Reads the length of a segment.
pub(crate) fn segment_bytes(text: &str) -> Result<u64, String> {
    let bytes = crate::values::amount(text)?.0;
    let least = 2 * BLOCK_BYTES_MAX as u64;
    match u64::try_from(bytes) {
        Ok(bytes) if bytes.is_multiple_of(4096) && bytes >= least => Ok(bytes),
        _ => Err(format!("a segment is a multiple of 4096 bytes, at least {least}")),
    }
}

/// Why no data directory was made.
pub(crate) fn failure(error: &InitError) -> Failure {
    let exit = match error {
        InitError::Directory(CreateDirectoryError::Lock(LockError::Busy { .. })) => Exit::InUse,
        InitError::Directory(CreateDirectoryError::Shards(_) | CreateDirectoryError::IdWindow(_)) => {
            Exit::Usage
        }
        _ => Exit::Failure,
    };
    Failure::caused(exit, "no data directory was made", error)
}
