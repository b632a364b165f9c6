//! The log as it grows, kept elsewhere: each segment once it is complete, under its own name, never written twice.

use std::io::{self, Read};
use std::path::Path;

use storage::{COPIED_METADATA_FILE, StorageError};
use surety_protocol::{Seq, sabotage};
use wal::{FileName, Identity, TailError, TailReader};

use crate::copy::{Hashed, put, used_part};
use crate::pinned::Pinned;
use crate::{CopyError, Depot, DepotError, MANIFEST_FILE};

/// Metadata has no more than this.
const METADATA_BYTES_MAX: u64 = 1 << 16;

/// Why something was not archived. What is there already is untouched.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The log's own files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The segment could not be kept.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The place.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// The place belongs to somebody else.
    #[error(
        "{0} is no archive of this engine: its {COPIED_METADATA_FILE} is another one's, or it holds other things; archive to a place of its own"
    )]
    Foreign(String),
    /// The segment does not hold, or is not continued by the log behind it.
    #[error(
        "{file} is damaged at offset {offset}, seq {seq}, and is not archived: what replies were given for is in it; do not restart the engine before `surety backup` has been tried and the machine looked at, then run `surety verify`"
    )]
    Rot {
        /// The segment, or the one behind it.
        file: FileName,
        /// Where the block begins.
        offset: u64,
        /// Its first seq.
        seq: Seq,
    },
    /// Another object has the segment's name.
    #[error(
        "{name} in {place} is not the segment of this log: it is of another life of this engine, or damaged; it is left as it is: find out why, or archive to another place"
    )]
    Differs {
        /// Where.
        place: String,
        /// Which.
        name: String,
    },
}

/// Makes sure that a place is the archive of the engine with this metadata. An empty place becomes it.
///
/// # Errors
/// [`ArchiveError::Foreign`], or the place's own.
pub fn claim_archive(depot: &dyn Depot, metadata: &str) -> Result<(), ArchiveError> {
    let foreign = || ArchiveError::Foreign(depot.place());
    // A backup holds segments of the same names, the last of which is cut: it is whole, and stays as it is.
    match depot.get(MANIFEST_FILE).map(drop) {
        Err(DepotError::Missing { .. }) => {}
        Ok(()) => return Err(foreign()),
        // What does not answer is nobody's to judge.
        Err(error) => return Err(error.into()),
    }
    match owner(depot)? {
        Some(text) if text == metadata || sabotage!("foreign-archive-taken") => {}
        Some(_) => return Err(foreign()),
        None => put_owner(depot, metadata)?,
    }
    Ok(depot.check_keeps(COPIED_METADATA_FILE, metadata.as_bytes())?)
}

/// Makes a place ours that is nobody's.
fn put_owner(depot: &dyn Depot, metadata: &str) -> Result<(), ArchiveError> {
    let foreign = || ArchiveError::Foreign(depot.place());
    // What another shard of this engine has begun to write is no stranger's.
    if depot.has_any(&|name| !name.starts_with(COPIED_METADATA_FILE))? {
        return Err(foreign());
    }
    match depot.put(COPIED_METADATA_FILE, &mut metadata.as_bytes()) {
        // Somebody was faster: another shard of this engine, or another engine.
        Err(exists @ DepotError::Exists { .. }) => match owner(depot)? {
            Some(text) if text == metadata => Ok(()),
            Some(_) => Err(foreign()),
            None => Err(exists.into()),
        },
        put => Ok(put?),
    }
}

/// Whose place it is.
fn owner(depot: &dyn Depot) -> Result<Option<String>, ArchiveError> {
    let from = match depot.get(COPIED_METADATA_FILE) {
        Err(DepotError::Missing { .. }) => return Ok(None),
        from => from?,
    };
    let mut text = String::new();
    let read = from.take(METADATA_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|source| reading(depot, COPIED_METADATA_FILE, source))?;
    Ok(Some(text))
}

/// Keeps a complete segment, unless it is kept already. It must be synced, with all that was written to it, and so must the record
/// behind its last one.
///
/// # Errors
/// [`ArchiveError::Rot`] if it does not hold to its end; [`ArchiveError::Differs`] if there is another object of its name. Nothing is
/// overwritten.
pub fn archive_segment(
    depot: &dyn Depot,
    identity: Identity,
    path: &Path,
    segment: FileName,
    last_seq: Seq,
) -> Result<(), ArchiveError> {
    let name = format!("shard-{}/{segment}", identity.shard);
    let behind = FileName::Segment { first_seq: last_seq.next() };
    let pinned = Pinned::open(path, &[segment, behind])?;
    // Nobody removes what is not archived: without it the error names the file.
    let pinned = match pinned {
        Some(pinned) => pinned,
        None => Pinned::empty(path),
    };
    check_sound(&pinned, identity, segment, last_seq)?;
    let there = match depot.get(&name) {
        Ok(from) => Some(hash_of(from).map_err(|source| reading(depot, &name, source))?),
        Err(DepotError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let part = used_part(&pinned, segment)?;
    match there {
        None => Ok(put(depot, &name, part).map(|_| ())?),
        Some(there) => {
            let ours = hash_of(part).map_err(|source| reading(depot, &name, source))?;
            if ours == there { Ok(()) } else { Err(ArchiveError::Differs { place: depot.place(), name }) }
        }
    }
}

/// Reads every block of a segment, and the one that continues it: an archive is to hold no damage that a copy of the disk would not.
fn check_sound(
    pinned: &Pinned,
    identity: Identity,
    segment: FileName,
    last_seq: Seq,
) -> Result<(), ArchiveError> {
    let FileName::Segment { first_seq } = segment else { return Ok(()) };
    let mut reader = TailReader::new(identity, first_seq);
    loop {
        match reader.next_block(pinned, last_seq.next()) {
            Ok(Some(block)) if block.header.last_seq() <= last_seq => {}
            // The block behind the last one continues it, whether or not it goes further than was asked for.
            Ok(_) => return Ok(()),
            Err(TailError::Rot { .. }) if sabotage!("rot-archived") => return Ok(()),
            Err(TailError::Rot { file, offset, seq }) => return Err(ArchiveError::Rot { file, offset, seq }),
            Err(error) => return Err(CopyError::from(error).into()),
        }
    }
}

fn hash_of(from: impl io::Read) -> io::Result<(u64, blake3::Hash)> {
    let mut hashed = Hashed::new(from);
    io::copy(&mut hashed, &mut io::sink())?;
    Ok(hashed.finish())
}

fn reading(depot: &dyn Depot, name: &str, source: io::Error) -> DepotError {
    DepotError::Io { doing: "reading", place: depot.place(), name: name.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectoryDepot;
    use std::fs;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn an_archive_belongs_to_one_engine() {
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(&directory.path().join("archive"));
        claim_archive(&depot, "one").unwrap();
        claim_archive(&depot, "one").unwrap();
        assert!(matches!(claim_archive(&depot, "other"), Err(ArchiveError::Foreign(_))));
        let other = DirectoryDepot::new(&directory.path().join("other"));
        other.put("holiday.jpg", &mut &b"x"[..]).unwrap();
        assert!(matches!(claim_archive(&other, "one"), Err(ArchiveError::Foreign(_))));
        // Of the same engine, and an archive all the same not.
        depot.put(MANIFEST_FILE, &mut &b"{}"[..]).unwrap();
        assert!(matches!(claim_archive(&depot, "one"), Err(ArchiveError::Foreign(_))));
    }

    #[test]
    fn shards_that_claim_a_new_archive_at_once_all_get_it_and_a_stranger_does_not() {
        /// Lets go when all have looked into the empty place.
        #[derive(Debug)]
        struct Together(DirectoryDepot, Barrier);
        impl Depot for Together {
            fn put(&self, name: &str, from: &mut dyn Read) -> Result<(), DepotError> {
                self.1.wait();
                self.0.put(name, from)
            }
            fn get(&self, name: &str) -> Result<Box<dyn Read>, DepotError> {
                self.0.get(name)
            }
            fn names(&self) -> Result<Vec<String>, DepotError> {
                self.0.names()
            }
            fn place(&self) -> String {
                self.0.place()
            }
        }
        for engines in [["one", "one", "one"], ["one", "two", "two"]] {
            let directory = tempfile::tempdir().unwrap();
            let depot = Together(DirectoryDepot::new(directory.path()), Barrier::new(3));
            let claimed: Vec<&str> = thread::scope(|scope| {
                let claims = engines.map(|engine| (engine, scope.spawn(|| claim_archive(&depot, engine))));
                let claimed = claims.into_iter().filter_map(|(engine, claim)| match claim.join().unwrap() {
                    Ok(()) => Some(engine),
                    Err(ArchiveError::Foreign(_)) => None,
                    Err(error) => panic!("{error}"),
                });
                claimed.collect()
            });
            let owner = fs::read_to_string(directory.path().join(COPIED_METADATA_FILE)).unwrap();
            let expected: Vec<&str> = engines.into_iter().filter(|engine| *engine == owner).collect();
            assert_eq!(claimed, expected);
        }
    }

    #[test]
    fn a_data_directory_is_no_archive() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("engine.toml"), "one").unwrap();
        let depot = DirectoryDepot::new(directory.path());
        assert!(matches!(claim_archive(&depot, "one"), Err(ArchiveError::Foreign(_))));
    }
}
