//! Certificates that are ready to be handed out, on disk: memory holds where those of the newest segment are, and a line for each
//! older one. `FORMAT.md` has the bytes.
//!
//! What stands behind the last checkpoint's mark is cut off at a start: the stream tells it again. What stands before must be sound.

mod group;
mod index;
mod segment;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use settlement::{Domain, KeptLock, LockId};
use surety_protocol::Time;

use crate::certificate::CertificateFile;
use crate::journal::sync_directory;
use group::Group;
use index::{Index, Span};
use segment::Segment;

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
    #[error("{} is damaged at {offset}: take the directory away, and what the engine still has is certified anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

/// How much of the shelf a checkpoint covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The newest segment.
    pub segment: u64,
    /// How long it was.
    pub bytes: u64,
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
    open: Segment,
    places: HashMap<LockId, Place>,
    span: Span,
}

impl Shelf {
    /// Opens the shelf of a directory, as far as a checkpoint covers it; without one it begins anew.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn open(
        directory: &Path,
        domain: Domain,
        segment_locks: usize,
        mark: Option<Mark>,
    ) -> Result<Self, ShelfError> {
        let separator = domain.separator();
        let Some(mark) = mark else {
            for number in segment::found(directory)? {
                segment::remove(directory, number)?;
            }
            let open = Segment::create(directory, 1, &separator)?;
            return Ok(Self::with(directory, domain, segment_locks, State::new(Vec::new(), open)));
        };
        let mut sealed = Vec::new();
        for number in segment::found(directory)? {
            match number.cmp(&mark.segment) {
                std::cmp::Ordering::Less => {
                    sealed.extend(Index::open(directory, number, &separator)?.map(Arc::new));
                }
                std::cmp::Ordering::Equal => segment::remove_index(directory, number)?,
                std::cmp::Ordering::Greater => segment::remove(directory, number)?,
            }
        }
        let open = Segment::open_at(directory, mark, &separator)?;
        let mut state = State::new(sealed, open);
        let State { open, places, span, .. } = &mut state;
        open.each_group(|offset, group| index::note(places, span, offset, &group.kept))?;
        Ok(Self::with(directory, domain, segment_locks, state))
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
        let (file, mark) = {
            let state = self.state();
            (state.open.file(), state.open.mark())
        };
        // Nobody waits for the disk who wants to look something up.
        file.sync_data().map_err(|source| self.io(source))?;
        sync_directory(&self.directory).map_err(|source| self.io(source))?;
        Ok(mark)
    }

    /// Throws away the segments in which nothing can be used any more: `claim_span` after the last deadline in them.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn forget(&self, now: Time, claim_span: Time) -> Result<(), ShelfError> {
        let is_over = |index: &Arc<Index>| index.span().deadline_max.plus(claim_span) < now;
        let over: Vec<u64> = {
            let mut state = self.state();
            let (over, left): (Vec<_>, Vec<_>) = state.sealed.iter().cloned().partition(is_over);
            if !over.is_empty() {
                state.sealed = Arc::new(left);
            }
            over.iter().map(|index| index.number()).collect()
        };
        over.into_iter().try_for_each(|number| segment::remove(&self.directory, number))
    }

    fn append(&self, group: &Group) -> Result<(), ShelfError> {
        let mut state = self.state();
        let is_long = state.open.mark().bytes >= SEGMENT_BYTES;
        if state.places.len() >= self.segment_locks || is_long {
            self.seal(&mut state)?;
        }
        let State { open, places, span, .. } = &mut *state;
        let offset = open.append(group)?;
        index::note(places, span, offset, &group.kept);
        Ok(())
    }

    /// Ends the open segment, durably and with its index, and begins the next.
    fn seal(&self, state: &mut State) -> Result<(), ShelfError> {
        let number = state.open.mark().segment;
        state.open.file().sync_data().map_err(|source| self.io(source))?;
        let places = std::mem::take(&mut state.places);
        let index = Index::write(&self.directory, number, places, std::mem::take(&mut state.span))?;
        let mut sealed = state.sealed.as_ref().clone();
        sealed.push(Arc::new(index));
        state.sealed = Arc::new(sealed);
        state.open = Segment::create(&self.directory, number + 1, &self.domain.separator())?;
        Ok(())
    }

    /// The group that holds the newest certificate of a lock, and which of it that is.
    fn find(&self, lock: &LockId) -> Result<Option<(Group, usize)>, ShelfError> {
        let (sealed, here) = {
            let state = self.state();
            (state.sealed.clone(), state.places.get(lock).map(|place| (state.open.mark().segment, *place)))
        };
        let mut found = here;
        for index in sealed.iter().rev().filter(|index| index.span().covers(lock)) {
            if found.is_some() {
                break;
            }
            found = index.find(lock, &self.domain.separator())?.map(|place| (index.number(), place));
        }
        let Some((number, place)) = found else { return Ok(None) };
        let Some(group) = segment::read(&self.directory, number, place.offset)? else { return Ok(None) };
        Ok(Some((group, usize::from(place.index))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io(&self, source: std::io::Error) -> ShelfError {
        ShelfError::Io { path: self.directory.clone(), source }
    }
}

impl State {
    fn new(sealed: Vec<Arc<Index>>, open: Segment) -> Self {
        Self { sealed: Arc::new(sealed), open, places: HashMap::new(), span: Span::default() }
    }
}

/// A file of the shelf, with its name for whoever has to be told.
fn open(path: &Path) -> Result<Option<File>, ShelfError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ShelfError::Io { path: path.to_owned(), source }),
    }
}
