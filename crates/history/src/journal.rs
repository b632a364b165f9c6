//! The end of the store's own log after a power cut. Commits are with the operating system, which writes them to the disk in any order: behind the last sectors that
//! reached the disk there may be others, with holes between them. The store itself cuts off what it cannot read, but refuses to open over a
//! batch that reads well and has another checksum, even where that is the last one. This cuts the log behind its last whole batch: what
//! comes after it is in the engine's log, and is indexed again.
//!
//! The log's layout is that of fjall 3 (`journal/entry.rs`): batches of a start, items and an end, numbers little-endian.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::bytes::Reader;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// What the end of a batch ends with.
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Cuts the newest log of a store behind its last whole batch. Returns where, or none if nothing is wrong with it: all before it were made durable
/// when it was begun.
///
/// # Errors
/// The disk's own.
pub(crate) fn cut(store: &Path) -> io::Result<Option<usize>> {
    let Some(path) = newest(store)? else { return Ok(None) };
    let bytes = fs::read(&path)?;
    let end = whole(&bytes);
    // The log is made longer than it is filled.
    if bytes[end..].iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let file = File::options().write(true).open(&path)?;
    file.set_len(end as u64)?;
    file.sync_all()?;
    Ok(Some(end))
}

fn newest(store: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            newest = newest.max(number.map(|number| (number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the last batch ends that is whole, and before which all are.
fn whole(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(behind) = behind_batch(rest) {
        rest = behind;
    }
    bytes.len() - rest.len()
}

/// What lies behind the batch that begins here; none if it is not whole.
fn behind_batch(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(bytes);
    if reader.byte()? != START {
        return None;
    }
    let items = u32::from_le_bytes(reader.take()?);
    let _seqno: [u8; 8] = reader.take()?;
    let body = reader.0;
    for _ in 0..items {
        skip_item(&mut reader)?;
    }
    let body = &body[..body.len() - reader.0.len()];
    let is_end = reader.byte()? == END
        && u64::from_le_bytes(reader.take()?) == xxh3_64(body)
        && reader.take()? == TRAILER;
    is_end.then_some(reader.0)
}

fn skip_item(reader: &mut Reader<'_>) -> Option<()> {
    match reader.byte()? {
        ITEM => {
            // Sort of the value, how it is packed, its table.
            let _: [u8; 10] = reader.take()?;
            let key = usize::from(u16::from_le_bytes(reader.take()?));
            let _unpacked: [u8; 4] = reader.take()?;
            let value = u32::from_le_bytes(reader.take()?) as usize;
            reader.0 = reader.0.get(key.checked_add(value)?..)?;
        }
        CLEAR => drop(reader.take::<8>()?),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use surety_protocol::EngineId;

    use super::*;
    use crate::store::Store;

    /// The layout is that of the store's: another one would have its logs cut.
    #[test]
    fn every_batch_of_a_sound_log_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let store = Store::open(&path, EngineId(1)).unwrap();
        for shards in 1..20 {
            store.note_shards(shards).unwrap();
        }
        drop(store);
        let bytes = fs::read(newest(&path).unwrap().unwrap()).unwrap();
        let end = whole(&bytes);
        assert!(end > 20 * 40, "{end}");
        assert!(bytes[end..].iter().all(|byte| *byte == 0), "all of it was read");
        assert_eq!(cut(&path).unwrap(), None);
        for at in [end - 1, end - 5, end / 2] {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert!(whole(&torn) <= at, "{at}");
        }
    }
}
