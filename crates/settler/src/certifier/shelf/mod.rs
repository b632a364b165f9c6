//! Certificates that are ready to be handed out, on disk: memory holds where those of the newest segment are, and a line for each
//! older one. `FORMAT.md` has the bytes.
//!
//! What stands behind the last checkpoint's mark is set aside at a start, and cut off: the stream tells it again, or it is put back. What
//! stands before must be there, and sound.

mod behind;
mod group;
mod index;
mod segment;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use settlement::{Domain, Hash, KeptLock, LockId};
use surety_protocol::{Seq, ShardId, Time, sabotage};

use crate::certificate::CertificateFile;
use behind::Behind;
use group::Group;
use index::{Index, Span};
use segment::{Groups, Segment};

/// Bytes after which a new segment is begun, however few locks it is about: they may be raised again and again.
const SEGMENT_BYTES: u64 = 1 << 30;

/// Why the shelf cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The file system's word.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: std::io::Error,
    },
    /// What must be whole is not.
    #[error("{} is missing, or damaged at {offset}: take the directory away, and what the engine still has is certified anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

/// A segment, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its number.
    pub segment: u64,
    /// Its length.
    pub bytes: u64,
}

/// How much of the shelf a checkpoint covers: all of it must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The complete segments, oldest first.
    pub sealed: Vec<Extent>,
    /// The newest segment, and how long it was.
    pub open: Extent,
}

/// What came back to the shelf because the stream does not tell it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Locks whose certificates came back.
    pub locks: Vec<LockId>,
    /// The last record that one of them is of.
    pub through: Seq,
}

/// Where in a segment a lock's certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where its group begins.
    pub(crate) offset: u32,
    /// Which of the group it is.
    pub(crate) index: u16,
    pub(crate) version: u16,
}

/// Signed groups, and where each lock is in them. Shared between who signs and who hands out.
#[derive(Debug)]
pub struct Shelf {
    domain: Domain,
    directory: PathBuf,
    /// Locks after which a new segment is begun.
    segment_locks: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Oldest first.
    sealed: Arc<Vec<Arc<Index>>>,
    /// Segments whose files are still there.
    forgotten: Vec<u64>,
    open: Segment,
    places: HashMap<LockId, Place>,
    span: Span,
    behind: Option<Behind>,
}

impl Shelf {
    /// Opens the shelf of a directory, as far as a checkpoint covers it; without one it begins anew, if nothing was ever on it.
    ///
    /// # Errors
    /// [`ShelfError`]; nothing that counts is changed then.
    pub fn open(
        directory: &Path,
        domain: Domain,
        segment_locks: usize,
        mark: Option<Mark>,
    ) -> Result<Self, ShelfError> {
        let separator = domain.separator();
        let found = segment::found(directory)?;
        let Some(mark) = mark else {
            check_unused(directory, &found)?;
            let open = Segment::create(directory, 1, &separator)?;
            return Ok(Self::with(directory, domain, segment_locks, State::new(open)));
        };
        check_sealed(directory, &mark)?;
        let mut state = State::new(Segment::open(directory, mark.open, &separator)?);
        let State { open, places, span, .. } = &mut state;
        open.groups().each(|offset, group| index::note(places, span, offset, &group.kept))?;
        state.behind = set_aside(directory, &found, &state.open, &separator)?;
        let is_live = |number: &u64| mark.sealed.iter().any(|extent| extent.segment == *number);
        for number in found.iter().filter(|number| !is_live(number)) {
            if *number == mark.open.segment {
                segment::remove_index(directory, *number)?;
            } else {
                segment::remove(directory, *number)?;
            }
        }
        state.open.cut()?;
        let sealed = mark.sealed.iter().map(|extent| {
            let damaged =
                || ShelfError::Damaged { path: segment::path(directory, extent.segment), offset: 0 };
            Index::open(directory, *extent, &separator)?.map(Arc::new).ok_or_else(damaged)
        });
        state.sealed = Arc::new(sealed.collect::<Result<_, _>>()?);
        Ok(Self::with(directory, domain, segment_locks, state))
    }

    /// Takes all of a shelf away on which nothing stands that is not to be had elsewhere.
    pub(super) fn clear(directory: &Path) -> Result<(), ShelfError> {
        segment::found(directory)?.into_iter().try_for_each(|number| segment::remove(directory, number))
    }

    fn with(directory: &Path, domain: Domain, segment_locks: usize, state: State) -> Self {
        let directory = directory.to_owned();
        Self { domain, directory, segment_locks: segment_locks.max(1), state: Mutex::new(state) }
    }

    /// Takes a signed group in, its locks in the group's order.
    ///
    /// # Errors
    /// [`ShelfError`]; the shelf must not be used any more then.
    pub fn put(&self, kept: Vec<KeptLock>, signature: [u8; 65]) -> Result<(), ShelfError> {
        self.append(&Group { kept, path: Vec::new(), signature })
    }

    /// The newest certificate of a lock.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn certificate(&self, lock: &LockId) -> Result<Option<CertificateFile>, ShelfError> {
        let found = self.find(lock)?;
        let certificate = found.and_then(|(group, index)| group.certificate(index));
        Ok(certificate.map(|certificate| CertificateFile { domain: self.domain, certificate }))
    }

    /// What was kept of a lock beside its newest certificate.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub(crate) fn kept(&self, lock: &LockId) -> Result<Option<KeptLock>, ShelfError> {
        Ok(self.find(lock)?.and_then(|(group, index)| group.kept.get(index).copied()))
    }

    /// Keeps something else beside a lock's newest certificate, which stays the same.
    ///
    /// # Errors
    /// [`ShelfError`]; the shelf must not be used any more then.
    pub(crate) fn keep(&self, kept: &KeptLock) -> Result<(), ShelfError> {
        let Some((group, index)) = self.find(&kept.statement().lock)? else { return Ok(()) };
        let Some(certificate) = group.certificate(index) else { return Ok(()) };
        let kept = vec![kept.under(certificate.lock)];
        self.append(&Group { kept, path: certificate.path, signature: certificate.signature })
    }

    /// How many locks it has one of. A lock that was raised long after it was made counts twice.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.state();
        state.sealed.iter().map(|index| index.locks()).sum::<usize>() + state.places.len()
    }

    /// True if it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes all of it durable. Says how much that is.
    ///
    /// # Errors
    /// [`ShelfError`]; the shelf must not be used any more then.
    pub fn sync(&self) -> Result<Mark, ShelfError> {
        let (sync, mark) = {
            let state = self.state();
            let sealed = state.sealed.iter().map(|index| index.extent()).collect();
            (state.open.syncing(), Mark { sealed, open: state.open.extent() })
        };
        // Nobody waits for the disk who wants to look something up.
        if !sabotage!("certificates-not-synced") {
            sync()?;
        }
        Ok(mark)
    }

    /// Knows no more of the segments in which nothing can be used any more: `claim_span` after the last deadline in them, of each shard by
    /// its own time as far as it was read. Their files are there until [`Shelf::sweep`], for the checkpoint that still counts on them.
    pub fn forget(&self, times: impl Fn(ShardId) -> Time, claim_span: Time) {
        let is_over = |index: &Arc<Index>| index.span().is_over(&times, claim_span);
        let mut state = self.state();
        let (over, left): (Vec<_>, Vec<_>) = state.sealed.iter().cloned().partition(is_over);
        if !over.is_empty() {
            state.sealed = Arc::new(left);
            state.forgotten.extend(over.iter().map(|index| index.number()));
        }
    }

    /// Takes away what the checkpoint that was just written does not count on: the segments that were forgotten, and what was set aside
    /// at the start, if each shard was read past all of it, or that was restored.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn sweep(&self, positions: impl Fn(ShardId) -> Seq) -> Result<(), ShelfError> {
        let forgotten = std::mem::take(&mut self.state().forgotten);
        forgotten.into_iter().try_for_each(|number| segment::remove(&self.directory, number))?;
        let passed = self.state().behind.take_if(|behind| behind.is_passed(positions));
        passed.map_or(Ok(()), |behind| behind.remove())
    }

    /// Puts what was handed out before the last start back, of a shard's records from a position on: the stream does not tell those again.
    ///
    /// # Errors
    /// [`ShelfError`]; the shelf must not be used any more then.
    pub fn restore(&self, shard: ShardId, from: Seq) -> Result<Restored, ShelfError> {
        let Some(behind) = self.state().behind.clone() else { return Ok(Restored::default()) };
        let mut restored = Restored::default();
        behind.each_since(shard, from, |group| {
            for kept in &group.kept {
                restored.locks.push(kept.statement().lock);
                restored.through = restored.through.max(kept.statement().seq);
            }
            self.append(&group)
        })?;
        if let Some(behind) = &mut self.state().behind {
            behind.restored(shard);
        }
        Ok(restored)
    }

    fn append(&self, group: &Group) -> Result<(), ShelfError> {
        let mut state = self.state();
        let is_long = state.open.extent().bytes >= SEGMENT_BYTES;
        if state.places.len() >= self.segment_locks || is_long {
            self.seal(&mut state)?;
        }
        let State { open, places, span, .. } = &mut *state;
        let offset = open.append(group)?;
        index::note(places, span, offset.into(), &group.kept);
        Ok(())
    }

    /// Ends the open segment, durably and with its index, and begins the next.
    fn seal(&self, state: &mut State) -> Result<(), ShelfError> {
        let extent = state.open.extent();
        if !sabotage!("full-segment-not-synced") {
            state.open.syncing()()?;
        }
        let places = std::mem::take(&mut state.places);
        let index = Index::write(&self.directory, extent, places, std::mem::take(&mut state.span))?;
        let mut sealed = state.sealed.as_ref().clone();
        sealed.push(Arc::new(index));
        state.sealed = Arc::new(sealed);
        state.open = Segment::create(&self.directory, extent.segment + 1, &self.domain.separator())?;
        Ok(())
    }

    /// The group that holds the newest certificate of a lock, and which of it that is.
    fn find(&self, lock: &LockId) -> Result<Option<(Group, usize)>, ShelfError> {
        let Some((number, place)) = self.look_up(lock)? else { return Ok(None) };
        self.fetch(lock, number, place)
    }

    fn look_up(&self, lock: &LockId) -> Result<Option<(u64, Place)>, ShelfError> {
        let sealed = {
            let state = self.state();
            if let Some(place) = state.places.get(lock) {
                return Ok(Some((state.open.extent().segment, *place)));
            }
            state.sealed.clone()
        };
        for index in sealed.iter().rev().filter(|index| index.span().covers(lock)) {
            if let Some(place) = index.find(lock, &self.domain.separator())? {
                return Ok(Some((index.number(), place)));
            }
        }
        Ok(None)
    }

    /// `None` if the segment was forgotten since.
    fn fetch(&self, lock: &LockId, number: u64, place: Place) -> Result<Option<(Group, usize)>, ShelfError> {
        let damaged = || {
            let path = segment::path(&self.directory, number);
            ShelfError::Damaged { path, offset: place.offset.into() }
        };
        let Some(group) = segment::read(&self.directory, number, place.offset)? else {
            return if self.is_live(number) { Err(damaged()) } else { Ok(None) };
        };
        let index = usize::from(place.index);
        match group.statement(index) {
            Some(statement) if statement.lock == *lock => Ok(Some((group, index))),
            _ => Err(damaged()),
        }
    }

    fn is_live(&self, number: u64) -> bool {
        let state = self.state();
        state.open.extent().segment == number || state.sealed.iter().any(|index| index.number() == number)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(open: Segment) -> Self {
        let (sealed, forgotten) = (Arc::default(), Vec::new());
        Self { sealed, forgotten, open, places: HashMap::new(), span: Span::default(), behind: None }
    }
}

/// Writes whatever is sound behind a mark to a file of its own. What was set aside before stays with it.
fn set_aside(
    directory: &Path,
    found: &[u64],
    open: &Segment,
    separator: &Hash,
) -> Result<Option<Behind>, ShelfError> {
    let mut tail = vec![open.rest()];
    for number in found.iter().filter(|number| **number > open.extent().segment) {
        match Groups::open(&segment::path(directory, *number), *number, separator) {
            Ok(groups) => tail.extend(groups),
            // One whose head is torn has nothing in it.
            Err(ShelfError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Behind::set_aside(directory, separator, tail)
}

/// Without a checkpoint there is at most what a first start leaves that was killed before its first one.
fn check_unused(directory: &Path, found: &[u64]) -> Result<(), ShelfError> {
    let first = segment::len(&segment::path(directory, 1))?.unwrap_or_default();
    let is_unused = found.iter().all(|number| *number == 1) && first <= segment::HEAD_BYTES as u64;
    if is_unused && !directory.join(behind::FILE).exists() {
        return Ok(());
    }
    Err(ShelfError::Damaged { path: directory.join("book"), offset: 0 })
}

/// Every complete segment is there, as long as it was.
fn check_sealed(directory: &Path, mark: &Mark) -> Result<(), ShelfError> {
    for extent in &mark.sealed {
        let path = segment::path(directory, extent.segment);
        let len = segment::len(&path)?.unwrap_or_default();
        if len != extent.bytes || extent.segment >= mark.open.segment {
            return Err(ShelfError::Damaged { path, offset: len.min(extent.bytes) });
        }
    }
    Ok(())
}

/// A file of the shelf, with its name for whoever has to be told.
fn open(path: &Path) -> Result<Option<File>, ShelfError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ShelfError::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settlement::{Book, LockGroup};
    use surety_protocol::{
        Address, Amount, AssetId, Code, EngineId, Flags, Id, Kind, LockBody, MerchantBody, MerchantId,
        PartitionBody, PartitionHandle, Record, TenantId,
    };

    /// Lets the group of one lock be put on a shelf.
    fn kept() -> (KeptLock, LockId) {
        let partition = PartitionHandle(1);
        let mut book = Book::default();
        let payee = Address([4; 20]);
        let merchant = MerchantBody { merchant: MerchantId(1), payee, ..MerchantBody::default() };
        let home = PartitionBody { asset: AssetId(1), ..PartitionBody::default() };
        let lock = LockBody { merchant: MerchantId(1), ..LockBody::default() };
        let lock = Record::new(Kind::Lock, Id(3), partition, Amount(5), &lock).with_flags(Flags::CERTIFIED);
        let records = [
            Record::new(Kind::PartitionCreate, Id(1), partition, Amount(0), &home),
            Record::new(Kind::MerchantSet, Id(2), partition, Amount(0), &merchant),
            Record { result: Amount(5), ..lock },
        ];
        for (seq, record) in (1..).zip(records) {
            let approved = Record { code: Code::Approved as u8, tenant: TenantId(1), ..record };
            book.read(ShardId(0), Seq(seq), &approved);
        }
        let name = LockId { tenant: TenantId(1), partition, id: Id(3) };
        (*book.kept(&name).expect("certified"), name)
    }

    #[test]
    fn what_is_forgotten_while_it_is_looked_up_is_not_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };
        let (kept, lock) = kept();
        let shelf = Shelf::open(directory.path(), domain, 1, None).expect("a shelf");
        // A second group begins the next segment.
        for _ in 0..2 {
            LockGroup::new(vec![*kept.statement()]).expect("a group");
            shelf.put(vec![kept], [0; 65]).expect("on the shelf");
        }
        let mark = shelf.sync().expect("synced");
        drop(shelf);
        let shelf = Shelf::open(directory.path(), domain, 1, Some(mark)).expect("a shelf");
        let index = shelf.state().sealed.first().cloned().expect("one");
        let place = Place { offset: 56, index: 0, version: 1 };
        assert!(shelf.fetch(&lock, 1, place).expect("read").is_some());
        shelf.forget(|_| Time::from_secs(1), Time::ZERO);
        shelf.sweep(|_| Seq(0)).expect("swept");
        assert!(shelf.fetch(&lock, 1, place).expect("forgotten").is_none());
        assert_eq!(index.find(&lock, &domain.separator()).expect("forgotten"), None);
        assert!(!segment::index_path(directory.path(), 1).exists(), "and no index is made of nothing");
    }
}
