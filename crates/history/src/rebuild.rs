//! The index out of log and archive, beside no engine: the same, byte for byte, as one that was fed while they were written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use backup::Depot;
use engine::Config;
use ledger::Ledger;
use storage::{DataDirectory, FileStorage};
use surety_protocol::{Record, Seq, ShardId};
use wal::{FileName, Storage, TailError, TailReader};

use crate::error::HistoryError;
use crate::held::Held;
use crate::indexer::Indexer;
use crate::reader::digest;
use crate::replica::log_error;
use crate::store::{Store, StoreOptions};

/// What was made.
#[derive(Debug)]
pub struct Rebuilt {
    /// The last record of each shard.
    pub shards: Vec<(ShardId, Seq)>,
    /// See [`crate::Reader::digest`].
    pub digest: String,
    /// Bytes on the disk.
    pub bytes: u64,
}

/// Segments are fetched into directories of the data directory that are called so: beside the index, where there is room for it.
const FETCHED: &str = "history.fetched-";

/// Makes the index of a closed data directory anew in the place of the one that is there, which stays until the new one is whole: a crash
/// leaves the one or the other. The disk holds both until then, and `options` say how much has to stay free. `ends` has the last sound
/// record of each shard. `progress` is told how far a shard has come, at the end of each at least. Cursors of the old index are of no use
/// with the new one.
///
/// # Errors
/// A [`HistoryError`], [`HistoryError::InUse`] if somebody has the index open; the index is then as it was before, and what was made of the new one is gone.
pub fn rebuild(
    directory: &DataDirectory,
    options: &StoreOptions,
    ends: &[(ShardId, Seq)],
    archive: Option<&dyn Depot>,
    mut progress: impl FnMut(ShardId, Seq),
) -> Result<Rebuilt, HistoryError> {
    let path = crate::place(directory.path());
    // Until the new one is in its place: whoever opened the old one meanwhile would go on to be asked.
    let _held = Held::take(&path)?;
    finish(&path)?;
    let new = beside(&path, "new");
    let made = make(directory, (&new, options), ends, archive, &mut progress);
    let made = made.and_then(|rebuilt| replace(&path).map(|()| rebuilt));
    if made.is_err() && path.exists() {
        // It takes room that is wanted. What went wrong is worse than that it stays.
        let _ = remove(&new);
    }
    made
}

fn make(
    directory: &DataDirectory,
    (new, options): (&Path, &StoreOptions),
    ends: &[(ShardId, Seq)],
    archive: Option<&dyn Depot>,
    progress: &mut impl FnMut(ShardId, Seq),
) -> Result<Rebuilt, HistoryError> {
    let store = Store::begin(new, directory.metadata().engine, options.clone())?;
    store.note_shards(directory.metadata().shards)?;
    for (shard, end) in ends {
        index(directory, &store, *shard, *end, archive, progress)?;
    }
    store.compact()?;
    store.persist()?;
    Ok(Rebuilt { shards: ends.to_vec(), digest: digest(&store.view())?, bytes: store.bytes()? })
}

/// Puts the new index, which is whole, into the place of the old one. If it cannot be, the old one comes back.
fn replace(path: &Path) -> Result<(), HistoryError> {
    let (new, old) = (beside(path, "new"), beside(path, "old"));
    let failed =
        |source| HistoryError::Io { doing: format!("putting {} in its place", path.display()), source };
    remove(&old)?;
    if path.exists() {
        fs::rename(path, &old).map_err(failed)?;
        sync_parent(path).map_err(failed)?;
    }
    if let Err(source) = fs::rename(&new, path) {
        // Where that fails too, the next one who opens the index puts the new one into its place.
        let _ = fs::rename(&old, path);
        return Err(failed(source));
    }
    sync_parent(path).map_err(failed)?;
    remove(&old)
}

/// Ends a rebuild that a crash has cut off, for whoever holds the place of the index. That there is an old index says that the new one is whole;
/// without it, what there is of a new one is of no use, and takes room that the engine wants.
pub(crate) fn finish(path: &Path) -> Result<(), HistoryError> {
    let (new, old) = (beside(path, "new"), beside(path, "old"));
    if !path.exists() && old.exists() {
        let failed =
            |source| HistoryError::Io { doing: format!("putting {} in its place", path.display()), source };
        let whole = if new.exists() { &new } else { &old };
        fs::rename(whole, path).map_err(failed)?;
        sync_parent(path).map_err(failed)?;
    }
    remove(&old)?;
    remove(&new)?;
    path.parent().map_or(Ok(()), remove_fetched)
}

/// True if a rebuild was cut off between two names: there is an index, under another one.
pub(crate) fn is_cut_off(path: &Path) -> bool {
    beside(path, "old").exists()
}

/// A directory beside another one, of its name and more.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// What a rebuild that was killed has fetched.
fn remove_fetched(data: &Path) -> Result<(), HistoryError> {
    let failed = |source| HistoryError::Io { doing: format!("listing {}", data.display()), source };
    for entry in fs::read_dir(data).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(FETCHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), HistoryError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HistoryError::Io { doing: format!("removing {}", path.display()), source })
        }
        _ => Ok(()),
    }
}

fn index(
    directory: &DataDirectory,
    store: &Store,
    shard: ShardId,
    end: Seq,
    archive: Option<&dyn Depot>,
    progress: &mut impl FnMut(ShardId, Seq),
) -> Result<(), HistoryError> {
    let metadata = directory.metadata();
    let config = Config { id_window: metadata.id_window, ..Config::new(metadata.engine, shard) };
    let mut indexer = Indexer::new(store.clone(), shard, Ledger::new(config.ledger()))?;
    let storage = FileStorage::open_read_only(&directory.shard_path(shard))?;
    let oldest = wal::list_segments(&storage)?.first().map_or(Seq(1), |segment| segment.first_seq);
    if oldest > Seq(1) {
        let Some(archive) = archive else {
            return Err(HistoryError::Gone { shard, wanted: Seq(1), oldest });
        };
        let archived = Archived { archive, data: directory.path(), shard };
        archived.index(&config, (store, &mut indexer), (&storage, oldest), progress)?;
    }
    read(&config, (store, &mut indexer), &storage, end, log_error, progress)?;
    store.room()?;
    indexer.commit()?;
    progress(shard, Seq(indexer.wanted().0 - 1));
    Ok(())
}

/// A shard's segments in an archive, and a data directory to fetch them into.
struct Archived<'a> {
    archive: &'a dyn Depot,
    data: &'a Path,
    shard: ShardId,
}

impl Archived<'_> {
    /// Reads every archived segment before the log's oldest one, each in a directory of its own for as long as it is read.
    fn index(
        &self,
        config: &Config,
        (store, indexer): (&Store, &mut Indexer),
        (log, oldest): (&FileStorage, Seq),
        progress: &mut impl FnMut(ShardId, Seq),
    ) -> Result<(), HistoryError> {
        let shard = self.shard;
        let segments = self.segments_before(oldest)?;
        for (index, first) in segments.iter().enumerate() {
            if *first > indexer.wanted() {
                break;
            }
            let until = segments.get(index + 1).copied();
            let (place, storage) = self.fetch(*first)?;
            let last = Seq(until.unwrap_or(oldest).0 - 1);
            let unread = |shard, wanted, error| match error {
                TailError::Rot { file, offset, seq } => {
                    let is_read = storage.len(file).is_ok_and(|bytes| bytes == offset);
                    let is_whole = || self.is_whole(config, (*first, &storage), until, (log, oldest));
                    match if is_read { is_whole() } else { Ok(false) } {
                        Ok(true) => HistoryError::Gone { shard, wanted: seq, oldest: last.next() },
                        Ok(false) => {
                            let (place, name) = (self.archive.place(), self.name(*first));
                            HistoryError::Archived { place, name, offset, seq }
                        }
                        Err(error) => error,
                    }
                }
                error => log_error(shard, wanted, error),
            };
            read(config, (store, indexer), &storage, last, unread, progress)?;
            drop((storage, place));
        }
        if indexer.wanted() < oldest {
            return Err(HistoryError::Gone { shard, wanted: indexer.wanted(), oldest });
        }
        Ok(())
    }

    /// True if a segment that was read to its file's end has lost nothing: it has records, and what there is behind it, archived or of the log, is
    /// not the segment of the next number.
    fn is_whole(
        &self,
        config: &Config,
        (first, storage): (Seq, &FileStorage),
        behind: Option<Seq>,
        (log, oldest): (&FileStorage, Seq),
    ) -> Result<bool, HistoryError> {
        let next = match behind {
            Some(behind) => {
                let (_place, it) = self.fetch(behind)?;
                number(config, &it, behind)
            }
            None => number(config, log, oldest),
        };
        // One behind it that cannot be read says nothing.
        let next = next.zip(number(config, storage, first));
        Ok(next.is_some_and(|(next, number)| next != number + 1))
    }

    /// The first seqs of the segments that begin before one.
    fn segments_before(&self, oldest: Seq) -> Result<Vec<Seq>, HistoryError> {
        let prefix = format!("shard-{}/", self.shard);
        let first_seq = |name: &String| match FileName::parse(name.strip_prefix(&prefix)?) {
            Some(FileName::Segment { first_seq }) if first_seq < oldest => Some(first_seq),
            _ => None,
        };
        let mut segments: Vec<Seq> =
            self.archive.names_in(&format!("shard-{}", self.shard))?.iter().filter_map(first_seq).collect();
        segments.sort_unstable();
        Ok(segments)
    }

    fn name(&self, first_seq: Seq) -> String {
        format!("shard-{}/{}", self.shard, FileName::Segment { first_seq })
    }

    fn fetch(&self, first_seq: Seq) -> Result<(tempfile::TempDir, FileStorage), HistoryError> {
        let name = self.name(first_seq);
        let failed = |source| HistoryError::Io { doing: format!("fetching {name}"), source };
        let place = tempfile::Builder::new().prefix(FETCHED).tempdir_in(self.data).map_err(failed)?;
        let path: PathBuf = place.path().join(FileName::Segment { first_seq }.to_text());
        let mut from = self.archive.get(&name)?;
        let mut to = fs::File::create(path).map_err(failed)?;
        io::copy(&mut from, &mut to).map_err(failed)?;
        let storage = FileStorage::open_read_only(place.path())?;
        Ok((place, storage))
    }
}

/// The number of the segment that begins with a record; none if it has none that can be read.
fn number(config: &Config, storage: &FileStorage, first_seq: Seq) -> Option<u64> {
    let mut tail = TailReader::new(config.identity(), first_seq);
    let block = tail.next_block(storage, Seq(u64::MAX)).ok()??;
    Some(block.header.segment)
}

fn read<S: Storage<Error = storage::StorageError>>(
    config: &Config,
    (store, indexer): (&Store, &mut Indexer),
    storage: &S,
    end: Seq,
    unread: impl Fn(ShardId, Seq, TailError<storage::StorageError>) -> HistoryError,
    progress: &mut impl FnMut(ShardId, Seq),
) -> Result<(), HistoryError> {
    let shard = config.shard;
    let mut tail = TailReader::new(config.identity(), indexer.wanted());
    while indexer.wanted() <= end {
        let wanted = indexer.wanted();
        let block = tail.next_block(storage, end).map_err(|error| unread(shard, wanted, error))?;
        let Some(block) = block else { return Err(HistoryError::Ahead { shard, indexed: wanted, end }) };
        let records: Vec<Record> =
            block.records_from(wanted).map(|record| Record::from_bytes(record.bytes)).collect();
        indexer.take(wanted, block.header.epoch, &records)?;
        if indexer.is_full() {
            store.room()?;
            indexer.commit()?;
            progress(shard, Seq(indexer.wanted().0 - 1));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crash between any two steps leaves an index in its place, and the new one once the old one has gone aside.
    #[test]
    fn a_replacement_that_was_cut_off_is_ended() {
        // What stands there: the index, the new one, the old one; and which one stands in the place afterwards.
        let cases = [
            ([true, true, false], "index"),
            ([false, true, true], "new"),
            ([true, false, true], "index"),
            ([true, true, true], "index"),
            ([false, false, true], "old"),
        ];
        for (there, expected) in cases {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("history");
            let places = [path.clone(), beside(&path, "new"), beside(&path, "old")];
            for ((place, name), _) in
                places.iter().zip(["index", "new", "old"]).zip(there).filter(|(_, is)| *is)
            {
                fs::create_dir(place).unwrap();
                fs::write(place.join("name"), name).unwrap();
            }
            fs::create_dir(directory.path().join("history.fetched-x")).unwrap();
            finish(&path).unwrap();
            assert!(!directory.path().join("history.fetched-x").exists());
            assert_eq!(fs::read_to_string(path.join("name")).unwrap(), expected, "{there:?}");
            assert!(!places[1].exists() && !places[2].exists(), "{there:?}");
        }
    }

    /// A new index that cannot be put into the place leaves the old one there.
    #[test]
    fn a_replacement_that_fails_takes_nothing_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("name"), "index").unwrap();
        // There is no new one.
        let failed = replace(&path);
        assert!(matches!(failed, Err(HistoryError::Io { .. })), "{failed:?}");
        assert_eq!(fs::read_to_string(path.join("name")).unwrap(), "index");
        assert!(!beside(&path, "old").exists());
    }
}
