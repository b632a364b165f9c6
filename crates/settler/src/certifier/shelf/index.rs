//! Where each lock of a complete segment is: a sorted file, of which memory holds a line.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use settlement::{Hash, KeptLock, LockId, Word};
use surety_protocol::{ShardId, Time};

use super::segment::{self, Groups};
use super::{Extent, Place, ShelfError, open};
use crate::codec::{Damaged, Put, Take};
use crate::durable;

const MAGIC: &[u8; 8] = b"SURETYSI";
const VERSION: u32 = 1;
/// Magic, version, number of the segment, locks, earliest and latest moment of an id, shards. The last deadline of each follows, and
/// the sum of all that.
const HEAD_BYTES: usize = 8 + 4 + 8 + 8 + 16 + 2;
/// Shard, deadline.
const DEADLINE_BYTES: usize = 2 + 8;
/// Name, offset, index, version.
const ENTRY_BYTES: usize = 32 + 4 + 2 + 2;

/// What a segment is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The moments inside the locks' ids: a lock of another is not here.
    made_min: Time,
    made_max: Time,
    /// The last deadline of each shard: whether it is past only that shard's own records tell.
    deadlines: BTreeMap<ShardId, Time>,
}

impl Default for Span {
    fn default() -> Self {
        Self { made_min: Time(u64::MAX), made_max: Time::ZERO, deadlines: BTreeMap::new() }
    }
}

impl Span {
    pub(super) fn widen(&mut self, kept: &KeptLock) {
        let made = kept.statement().lock.id.time();
        self.made_min = self.made_min.min(made);
        self.made_max = self.made_max.max(made);
        let deadline = self.deadlines.entry(kept.statement().shard).or_default();
        *deadline = kept.deadline().max(*deadline);
    }

    /// True if the last deadline of every shard was so long ago by that shard's own time.
    pub(super) fn is_over(&self, times: impl Fn(ShardId) -> Time, claim_span: Time) -> bool {
        self.deadlines.iter().all(|(shard, deadline)| deadline.plus(claim_span) < times(*shard))
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
        let head = head(number, places.len(), &span);
        let mut to = Put(Vec::with_capacity(head.len() + places.len() * ENTRY_BYTES + 4));
        to.raw(&head);
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
        let file = open(&segment::index_path(directory, number))?;
        match file.and_then(|file| read_head(&file, number).ok()) {
            Some((locks, span)) => Ok(Some(Self::with(directory, extent, locks, span, false))),
            None => Self::again(directory, extent, separator),
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

    /// Where the entries begin.
    fn head_bytes(&self) -> usize {
        head_bytes(self.span.deadlines.len())
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
            file.read_exact_at(&mut entry, (self.head_bytes() + middle * ENTRY_BYTES) as u64).map_err(io)?;
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
        let is_whole = bytes.len() == self.head_bytes() + self.locks * ENTRY_BYTES + 4
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
    to.u64(span.made_min.0).u64(span.made_max.0);
    to.raw(&u16::try_from(span.deadlines.len()).unwrap_or(u16::MAX).to_be_bytes());
    for (shard, deadline) in &span.deadlines {
        to.raw(&shard.0.to_be_bytes()).u64(deadline.0);
    }
    let checksum = crc32c::crc32c(&to.0);
    to.u32(checksum);
    to.0
}

const fn head_bytes(shards: usize) -> usize {
    HEAD_BYTES + shards * DEADLINE_BYTES + size_of::<u32>()
}

fn read_head(file: &File, number: u64) -> Result<(usize, Span), Damaged> {
    let mut fixed = [0; HEAD_BYTES];
    file.read_exact_at(&mut fixed, 0).map_err(|_| Damaged)?;
    let shards = *fixed.last_chunk::<2>().ok_or(Damaged)?;
    let mut bytes = vec![0; head_bytes(u16::from_be_bytes(shards).into())];
    file.read_exact_at(&mut bytes, 0).map_err(|_| Damaged)?;
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(Damaged)?;
    let mut from = Take(body);
    let is_ours = from.array::<8>()? == *MAGIC && from.u32()? == VERSION && from.u64()? == number;
    if !is_ours || crc32c::crc32c(body).to_be_bytes() != *sum {
        return Err(Damaged);
    }
    let locks = usize::try_from(from.u64()?).map_err(|_| Damaged)?;
    // What a sound sum says may still be more than there is.
    let len = locks.checked_mul(ENTRY_BYTES).and_then(|len| len.checked_add(bytes.len() + size_of::<u32>()));
    if len.map(|len| len as u64) != file.metadata().ok().map(|metadata| metadata.len()) {
        return Err(Damaged);
    }
    let (made_min, made_max) = (Time(from.u64()?), Time(from.u64()?));
    let mut deadlines = BTreeMap::new();
    for _ in 0..u16::from_be_bytes(from.array()?) {
        deadlines.insert(ShardId(u16::from_be_bytes(from.array()?)), Time(from.u64()?));
    }
    Ok((locks, Span { made_min, made_max, deadlines }))
}

fn read_place(bytes: &[u8]) -> Result<Place, Damaged> {
    let mut from = Take(bytes);
    let offset = from.u32()?;
    Ok(Place { offset, index: u16::from_be_bytes(from.array()?), version: u16::from_be_bytes(from.array()?) })
}
