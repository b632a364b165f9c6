//! Where each lock of a complete segment is: a sorted file, of which memory holds a line.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use settlement::{Hash, KeptLock, LockId, Word};
use surety_protocol::Time;

use super::segment::{self, Groups};
use super::{Extent, Place, ShelfError, open};
use crate::codec::{Damaged, Put, Take};
use crate::durable;

const MAGIC: &[u8; 8] = b"SURETYSI";
const VERSION: u32 = 1;
/// Magic, version, number of the segment, locks, span, sum of these.
const HEAD_BYTES: usize = 8 + 4 + 8 + 8 + 24 + 4;
/// Name, offset, index, version.
const ENTRY_BYTES: usize = 32 + 4 + 2 + 2;

/// What a segment is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The moments inside the locks' ids: a lock of another is not here.
    made_min: Time,
    made_max: Time,
    /// The last deadline.
    pub(super) deadline_max: Time,
}

impl Default for Span {
    fn default() -> Self {
        Self { made_min: Time(u64::MAX), made_max: Time::ZERO, deadline_max: Time::ZERO }
    }
}

impl Span {
    pub(super) fn widen(&mut self, kept: &KeptLock) {
        let made = kept.statement().lock.id.time();
        self.made_min = self.made_min.min(made);
        self.made_max = self.made_max.max(made);
        self.deadline_max = self.deadline_max.max(kept.deadline());
    }

    /// True if the lock may be here.
    pub(super) fn covers(&self, lock: &LockId) -> bool {
        (self.made_min..=self.made_max).contains(&lock.id.time())
    }
}

/// The index of a complete segment.
#[derive(Debug)]
pub(super) struct Index {
    directory: PathBuf,
    /// Its segment.
    extent: Extent,
    locks: usize,
    span: Span,
    /// All of it was read once and found sound.
    is_sound: Mutex<bool>,
}

impl Index {
    /// Writes the index of a segment, durably, at once or not at all.
    pub(super) fn write(
        directory: &Path,
        extent: Extent,
        places: HashMap<LockId, Place>,
        span: Span,
    ) -> Result<Self, ShelfError> {
        let number = extent.segment;
        let mut places: Vec<(LockId, Place)> = places.into_iter().collect();
        places.sort_unstable_by_key(|(lock, _)| *lock);
        let mut to = Put(Vec::with_capacity(HEAD_BYTES + places.len() * ENTRY_BYTES + 4));
        to.raw(&head(number, places.len(), &span));
        for (lock, place) in &places {
            to.raw(&lock.word()).u32(place.offset);
            to.raw(&place.index.to_be_bytes()).raw(&place.version.to_be_bytes());
        }
        let checksum = crc32c::crc32c(&to.0);
        to.u32(checksum);
        let path = segment::index_path(directory, number);
        // Of its own: another thread may be writing the index of another segment.
        let temporary = directory.join(format!("index-{number}.tmp"));
        durable::replace(&path, &temporary, &to.0).map_err(|source| ShelfError::Io { path, source })?;
        Ok(Self::with(directory, extent, places.len(), span, true))
    }

    /// The index of a segment, made again if it is missing or its head is damaged. `None` if the segment is not there.
    pub(super) fn open(
        directory: &Path,
        extent: Extent,
        separator: &Hash,
    ) -> Result<Option<Self>, ShelfError> {
        let number = extent.segment;
        let mut found = [0; HEAD_BYTES];
        let file = open(&segment::index_path(directory, number))?;
        let is_read = file.is_some_and(|file| file.read_exact_at(&mut found, 0).is_ok());
        match read_head(&found, number) {
            Ok((locks, span)) if is_read => Ok(Some(Self::with(directory, extent, locks, span, false))),
            _ => Self::again(directory, extent, separator),
        }
    }

    fn with(directory: &Path, extent: Extent, locks: usize, span: Span, is_sound: bool) -> Self {
        Self { directory: directory.to_owned(), extent, locks, span, is_sound: Mutex::new(is_sound) }
    }

    /// Made of the segment itself, whose groups have sums of their own. `None` if that is not there.
    fn again(directory: &Path, extent: Extent, separator: &Hash) -> Result<Option<Self>, ShelfError> {
        let number = extent.segment;
        let path = segment::path(directory, number);
        let Some(groups) = Groups::open(&path, number, separator)? else { return Ok(None) };
        tracing::warn!(segment = number, "the index of a segment of certificates is made again");
        let (mut places, mut span) = (HashMap::new(), Span::default());
        groups.each(|offset, group| note(&mut places, &mut span, offset, &group.kept))?;
        Self::write(directory, extent, places, span).map(Some)
    }

    pub(super) const fn number(&self) -> u64 {
        self.extent.segment
    }

    pub(super) const fn extent(&self) -> Extent {
        self.extent
    }

    pub(super) const fn locks(&self) -> usize {
        self.locks
    }

    pub(super) const fn span(&self) -> &Span {
        &self.span
    }

    /// Where a lock is; `None` also if the segment was thrown away. All of the file is checked before its first use.
    pub(super) fn find(&self, lock: &LockId, separator: &Hash) -> Result<Option<Place>, ShelfError> {
        let path = segment::index_path(&self.directory, self.extent.segment);
        if !self.check(&path, separator)? {
            return Ok(None);
        }
        let Some(file) = open(&path)? else { return Ok(None) };
        let io = |source| ShelfError::Io { path: path.clone(), source };
        let (name, mut from, mut to) = (lock.word(), 0, self.locks);
        while from < to {
            let middle = from + (to - from) / 2;
            let mut entry = [0; ENTRY_BYTES];
            file.read_exact_at(&mut entry, (HEAD_BYTES + middle * ENTRY_BYTES) as u64).map_err(io)?;
            match entry[..32].cmp(&name[..]) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => return Ok(read_place(&entry[32..]).ok()),
            }
        }
        Ok(None)
    }

    /// Whether there is a sound one.
    fn check(&self, path: &Path, separator: &Hash) -> Result<bool, ShelfError> {
        let mut is_sound = self.is_sound.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_sound {
            return Ok(true);
        }
        let bytes = segment::whole(path)?.unwrap_or_default();
        let sum = bytes.split_last_chunk::<4>();
        let is_whole = bytes.len() == HEAD_BYTES + self.locks * ENTRY_BYTES + 4
            && sum.is_some_and(|(body, sum)| crc32c::crc32c(body).to_be_bytes() == *sum);
        if !is_whole {
            let Some(again) = Self::again(&self.directory, self.extent, separator)? else { return Ok(false) };
            // Its head was sound, or it would have been made again at the start.
            if again.locks != self.locks {
                return Err(ShelfError::Damaged { path: path.to_owned(), offset: 0 });
            }
        }
        *is_sound = true;
        Ok(true)
    }
}

/// Takes a group's locks into an index that is being made: the newest version of each.
pub(super) fn note(places: &mut HashMap<LockId, Place>, span: &mut Span, offset: u64, kept: &[KeptLock]) {
    // A group begins where an append has found room for its offset.
    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
    for (index, kept) in (0..).zip(kept) {
        let (lock, version) = (kept.statement().lock, kept.statement().version);
        if places.get(&lock).is_none_or(|known| known.version <= version) {
            places.insert(lock, Place { offset, index, version });
        }
        span.widen(kept);
    }
}

fn head(number: u64, locks: usize, span: &Span) -> Vec<u8> {
    let mut to = Put::default();
    to.raw(MAGIC).u32(VERSION).u64(number).u64(locks as u64);
    to.u64(span.made_min.0).u64(span.made_max.0).u64(span.deadline_max.0);
    let checksum = crc32c::crc32c(&to.0);
    to.u32(checksum);
    to.0
}

fn read_head(bytes: &[u8; HEAD_BYTES], number: u64) -> Result<(usize, Span), Damaged> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(Damaged)?;
    let mut from = Take(body);
    let is_ours = from.array::<8>()? == *MAGIC && from.u32()? == VERSION && from.u64()? == number;
    if !is_ours || crc32c::crc32c(body).to_be_bytes() != *sum {
        return Err(Damaged);
    }
    let locks = usize::try_from(from.u64()?).map_err(|_| Damaged)?;
    let span =
        Span { made_min: Time(from.u64()?), made_max: Time(from.u64()?), deadline_max: Time(from.u64()?) };
    Ok((locks, span))
}

fn read_place(bytes: &[u8]) -> Result<Place, Damaged> {
    let mut from = Take(bytes);
    let offset = from.u32()?;
    Ok(Place { offset, index: u16::from_be_bytes(from.array()?), version: u16::from_be_bytes(from.array()?) })
}
