//! The log as it grows, kept elsewhere: each segment once it is complete, under its own name, never written twice.

use std::io::{self, Read};
use std::path::Path;

use storage::{COPIED_METADATA_FILE, StorageError};
use surety_protocol::{Seq, ShardId, sabotage};
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

/// Which archived segments are compared byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// All that the log still has.
    Every,
    /// The one that has this record.
    With(Seq),
}

/// Looks whether a place is the archive of this log and not of another life of its engine: every segment that it has of those that
/// the log begins with or goes on to is in the log, byte for byte. What retention has removed here cannot be compared. An empty place
/// is anybody's.
///
/// It reads what is archived of the log that is still here, as far as `read` says, and nobody writes to the log meanwhile. That a segment
/// is archived which the log does not have is found out by its name, whatever is read.
///
/// # Errors
/// [`ArchiveError::Differs`], or whatever reading needs.
pub fn compare_archive(
    depot: &dyn Depot,
    shard: ShardId,
    path: &Path,
    segments: &[FileName],
    read: Compared,
) -> Result<(), ArchiveError> {
    let holds = match read {
        Compared::Every => None,
        // Segments are named by their first record: the last one that begins at or before it has it.
        Compared::With(seq) => segments
            .iter()
            .filter(|name| matches!(name, FileName::Segment { first_seq } if *first_seq <= seq))
            .max(),
    };
    let is_read = |segment: &FileName| read == Compared::Every || holds == Some(segment);
    let prefix = format!("shard-{shard}/");
    let parsed = |name: &String| FileName::parse(name.strip_prefix(&prefix)?);
    let oldest = segments.iter().min();
    let archived = depot.names_in(&format!("shard-{shard}"))?;
    let archived = archived.iter().filter_map(parsed).filter(|name| matches!(name, FileName::Segment { .. }));
    for segment in archived.filter(|segment| oldest.is_none_or(|oldest| segment >= oldest)) {
        let name = format!("{prefix}{segment}");
        let is_ours = match segments.contains(&segment) {
            false => false,
            true if !is_read(&segment) => true,
            true => match Pinned::open(path, &[segment])? {
                None => false,
                Some(pinned) => is_same(depot, &name, used_part(&pinned, segment)?)?,
            },
        };
        if !is_ours && !sabotage!("archive-of-another-life-taken") {
            return Err(ArchiveError::Differs { place: depot.place(), name });
        }
    }
    Ok(())
}

/// Whether an object that is there holds these bytes.
fn is_same(depot: &dyn Depot, name: &str, part: impl Read) -> Result<bool, ArchiveError> {
    let failed = |source| reading(depot, name, source);
    let there = hash_of(depot.get(name)?).map_err(failed)?;
    Ok(there == hash_of(part).map_err(failed)?)
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
    fn an_archive_of_another_life_is_told_from_ours() {
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(&directory.path().join("archive"));
        let shard = directory.path().join("shard");
        fs::create_dir(&shard).unwrap();
        let segment = |first: u64| FileName::Segment { first_seq: Seq(first) };
        let write = |first: u64, byte: u8| {
            let mut bytes = vec![byte; 4096];
            bytes.resize(1 << 20, 0);
            fs::write(shard.join(segment(first).to_text()), bytes).unwrap();
        };
        let archive = |first: u64, byte: u8| {
            depot.put(&format!("shard-0/{}", segment(first)), &mut &vec![byte; 4096][..]).unwrap();
        };
        let ours = [segment(1), segment(50), segment(90)];
        let compare = |ours: &[FileName]| compare_archive(&depot, ShardId(0), &shard, ours, Compared::Every);
        assert!(compare(&ours).is_ok(), "an empty place is anybody's");
        for (first, byte) in [(1, 1), (50, 2), (90, 3)] {
            write(first, byte);
            archive(first, byte);
        }
        assert!(compare(&ours).is_ok());
        // What retention has removed here is compared by what comes behind it.
        assert!(compare(&ours[2..]).is_ok());
        // It has been further than we are, or has what we have not.
        let differs = |ours: &[FileName]| matches!(compare(ours), Err(ArchiveError::Differs { .. }));
        for ours in [&ours[..2], &[], &[ours[0], ours[2]]] {
            assert!(differs(ours), "{ours:?}");
        }
        // And any of them has other bytes, not the newest alone.
        for (first, byte) in [(1, 1), (50, 2), (90, 3)] {
            write(first, 9);
            assert!(differs(&ours), "{first}");
            write(first, byte);
        }
        assert!(compare(&ours).is_ok());
        // Once they were compared the one with the loss tells, and the names of the others.
        let compare =
            |ours: &[FileName]| compare_archive(&depot, ShardId(0), &shard, ours, Compared::With(Seq(60)));
        let differs = |ours: &[FileName]| matches!(compare(ours), Err(ArchiveError::Differs { .. }));
        for (first, byte, is_seen) in [(1, 1, false), (50, 2, true), (90, 3, false)] {
            write(first, 9);
            assert_eq!(differs(&ours), is_seen, "{first}");
            write(first, byte);
        }
        for ours in [&ours[..2], &[], &[ours[0], ours[2]]] {
            assert!(differs(ours), "{ours:?}");
        }
        // Retention has removed it here.
        assert!(compare(&ours[2..]).is_ok());
    }

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
