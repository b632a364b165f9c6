//! Copying one shard: a snapshot that holds, and the log from it on, up to a mark below which nothing can be missing.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use storage::{FileStorage, StorageError};
use surety_protocol::limits::BLOCK_ALIGN;
use surety_protocol::{Epoch, Record, Seq, ShardId, Time};
use wal::{
    Anchor, FileName, Header, HeaderFault, Identity, Recovery, SnapshotError, Storage, TailError, TailReader,
};

use crate::pinned::Pinned;
use crate::{Depot, DepotError, FilePart, ShardPart};

/// How often files are looked for that retention takes away meanwhile.
const PIN_ATTEMPTS: usize = 32;
/// Bytes that are read at a time: the end of a segment is looked for in pieces of so many, and so often the log's disk is looked at.
const PIECE_BYTES: usize = 1 << 20;

/// Where the copy of a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nobody writes to it, by a lock that was taken at this time: where recovery finds its end.
    Closed(Time),
    /// An engine writes to it, and has said that everything up to here is synced.
    Synced(Seq),
}

/// How much of a log is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The newest snapshot that holds, and the log from there on: all that serving needs.
    Newest,
    /// Everything that there is.
    Whole,
}

/// Why a shard was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log cannot be read to its end.
    #[error(transparent)]
    Log(#[from] wal::RecoverError<StorageError>),
    /// The log of a running engine does not hold below its own mark.
    #[error(transparent)]
    Tail(#[from] TailError<StorageError>),
    /// The log ends before the engine's mark, or within a block of it.
    #[error(
        "shard {shard}: the log ends at seq {found}, and the engine has said that seq {synced} is on the disk; run `surety verify` as soon as it is down"
    )]
    Short {
        /// Which shard.
        shard: ShardId,
        /// The last seq that was read.
        found: Seq,
        /// The engine's mark.
        synced: Seq,
    },
    /// Neither a beginning nor a snapshot that holds.
    #[error("shard {shard}: no snapshot holds, and the log begins at seq {oldest}; run `surety verify`")]
    NoBase {
        /// Which shard.
        shard: ShardId,
        /// The first seq that is there.
        oldest: Seq,
    },
    /// Every snapshot is of records that the mark does not cover yet.
    #[error(
        "shard {shard}: every snapshot is newer than seq {synced}, up to which the log was to be copied; try again"
    )]
    Behind {
        /// Which shard.
        shard: ShardId,
        /// The engine's mark.
        synced: Seq,
    },
    /// Files went while they were being opened, again and again.
    #[error(
        "shard {0}: retention removes files faster than they can be opened; try again, or keep more by log.retain_records"
    )]
    Retention(ShardId),
    /// A snapshot could not be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError<StorageError>),
    /// The place that it goes to.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// A block of a format that this program does not know.
    #[error(
        "shard {shard}: {file} has a block of format {version} at offset {offset}, this program reads up to {}; run the newer program",
        wal::format::VERSION
    )]
    Newer {
        /// Which shard.
        shard: ShardId,
        /// The segment.
        file: FileName,
        /// Where the block begins.
        offset: u64,
        /// Its format.
        version: u16,
    },
    /// The disk of the log runs full of what retention has removed and the copy still holds.
    #[error(
        "shard {shard}: {free_bytes} bytes are free where the log is, and removed files that are still to be copied hold more; the copy has let go of them: make room, or take the backup while less is written"
    )]
    LowSpace {
        /// Which shard.
        shard: ShardId,
        /// What is left.
        free_bytes: u64,
    },
}

/// What is copied of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How far.
    pub mark: Mark,
    /// From where on.
    pub extent: Extent,
    /// Bytes that are to stay free where the log is: with fewer, a copy that holds removed files lets go of them and fails.
    pub free_bytes_min: u64,
}

/// What was copied of a shard.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The shard, for the manifest.
    pub part: ShardPart,
    /// Its files.
    pub files: Vec<FilePart>,
    /// The highest format of a block in them: nothing lowers it within a log.
    pub log_format: u16,
}

/// The end of the copy.
struct End {
    file: FileName,
    /// Bytes of that file.
    bytes: u64,
    last_seq: Seq,
    epoch: Epoch,
    time: Time,
    complete_until: Time,
    log_format: u16,
}

/// Copies the files of a shard, and reads each of them back. `progress` is told the bytes of each file.
///
/// # Errors
/// [`CopyError`]; what was copied until then is of no use.
pub fn copy_shard(
    path: &Path,
    identity: Identity,
    wanted: Wanted,
    depot: &dyn Depot,
    progress: &mut dyn FnMut(u64),
) -> Result<Copied, CopyError> {
    let shard = identity.shard;
    let Wanted { mark, extent, free_bytes_min } = wanted;
    let (mut pinned, base) = pin_with_base(path, identity, mark, extent)?;
    let end = match mark {
        Mark::Closed(at) => recovered_end(&mut pinned, identity, base, at)?,
        Mark::Synced(synced) => synced_end(&pinned, identity, base, synced)?,
    };
    let segments = segments_between(&pinned, base.seq, extent, end.file)?;
    let snapshot = (base.seq > Seq(0)).then_some(FileName::Snapshot { seq: base.seq });
    let names: Vec<FileName> = snapshot.into_iter().chain(segments.iter().copied()).collect();
    pinned.let_go(|name| !names.contains(&name));
    let mut files = Vec::new();
    for name in names {
        let room = Room { pinned: &pinned, free_bytes_min, found: Cell::new(None) };
        let bytes = match name {
            name if name == end.file => end.bytes,
            FileName::Segment { .. } => used_bytes(&pinned, name)?,
            _ => pinned.len(name)?,
        };
        let source = Section { file: pinned.file(name)?, at: 0, end: bytes };
        let copied =
            put(depot, &format!("shard-{shard}/{name}"), Watched { inner: source, room: &room, left: 0 });
        if let Some(free_bytes) = room.found.get() {
            return Err(CopyError::LowSpace { shard, free_bytes });
        }
        files.push(copied?);
        // A file that retention has removed takes up space for as long as it is held.
        pinned.let_go(|held| held == name);
        progress(bytes);
    }
    let first_seq = match segments.first() {
        Some(FileName::Segment { first_seq }) => first_seq.0,
        _ => 1,
    };
    let part = ShardPart {
        shard: shard.0,
        epoch: end.epoch.0,
        first_seq,
        last_seq: end.last_seq.0,
        time: end.time.0,
        complete_until: end.complete_until.0,
        snapshot: (base.seq > Seq(0)).then_some(base.seq.0),
        state_hash: None,
    };
    Ok(Copied { part, files, log_format: end.log_format })
}

/// Copies one file beside the shards, and reads it back.
///
/// # Errors
/// [`CopyError::Depot`].
pub fn copy_file(name: &str, contents: &[u8], depot: &dyn Depot) -> Result<FilePart, CopyError> {
    put(depot, name, contents)
}

pub(crate) fn put(depot: &dyn Depot, name: &str, source: impl Read) -> Result<FilePart, CopyError> {
    let mut hashed = Hashed::new(source);
    depot.put(name, &mut hashed)?;
    let (bytes, written) = hashed.finish();
    Ok(FilePart { name: name.to_owned(), bytes, blake3: written.to_hex().to_string() })
}

/// What is left where the log is, while removed files are held.
struct Room<'a> {
    pinned: &'a Pinned,
    free_bytes_min: u64,
    /// What was left when it was too little.
    found: Cell<Option<u64>>,
}

impl Room<'_> {
    /// Refuses to go on where the engine would soon decline for want of what the copy holds.
    fn check(&self) -> io::Result<()> {
        if !self.pinned.holds_removed().map_err(io::Error::other)? {
            return Ok(());
        }
        let free_bytes = self.pinned.free_bytes().map_err(io::Error::other)?;
        if free_bytes >= self.free_bytes_min {
            return Ok(());
        }
        self.found.set(Some(free_bytes));
        Err(io::Error::other("the disk of the log runs full"))
    }
}

/// What is copied, looked after on the way: a large file may take long to go where it goes.
struct Watched<'a, R> {
    inner: R,
    room: &'a Room<'a>,
    /// Bytes until the next look.
    left: usize,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.room.check()?;
            self.left = PIECE_BYTES;
        }
        let read = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}

/// Holds what a copy needs, and says what it begins with. In a closed directory what an engine has left in memory is written first: a
/// backup is not to know more than the disk that it is of.
fn pin_with_base(
    path: &Path,
    identity: Identity,
    mark: Mark,
    extent: Extent,
) -> Result<(Pinned, Anchor), CopyError> {
    let held = |pinned_extent| -> Result<(Pinned, Anchor), CopyError> {
        let mut pinned = pin(path, identity.shard, pinned_extent)?;
        if matches!(mark, Mark::Closed(_)) {
            pinned.sync_all()?;
        }
        let base = base(&mut pinned, identity, mark, extent)?;
        Ok((pinned, base))
    };
    match held(extent) {
        // Without a snapshot that holds, the log may still be there from its beginning.
        Err(CopyError::NoBase { .. }) if extent == Extent::Newest => held(Extent::Whole),
        held => held,
    }
}

/// Opens the snapshots, and the log from the oldest of them on.
fn pin(path: &Path, shard: ShardId, extent: Extent) -> Result<Pinned, CopyError> {
    for _ in 0..PIN_ATTEMPTS {
        let names = FileStorage::open_read_only(path)?.list()?;
        if let Some(pinned) = Pinned::open(path, &wanted(names, extent))? {
            return Ok(pinned);
        }
    }
    Err(CopyError::Retention(shard))
}

fn wanted(names: Vec<FileName>, extent: Extent) -> Vec<FileName> {
    let snapshot = |name: &FileName| if let FileName::Snapshot { seq } = name { Some(*seq) } else { None };
    let oldest = match extent {
        Extent::Newest => names.iter().filter_map(snapshot).min().unwrap_or_default(),
        Extent::Whole => Seq(0),
    };
    let segment =
        |name: &FileName| if let FileName::Segment { first_seq } = name { Some(*first_seq) } else { None };
    let firsts = names.iter().filter_map(segment);
    let from = firsts.filter(|first| *first <= Seq(oldest.0.max(1))).max().unwrap_or_default();
    let is_wanted = |name: &FileName| match name {
        FileName::Segment { first_seq } => *first_seq >= from,
        FileName::Snapshot { .. } | FileName::Guard => true,
        FileName::Reserve { .. } | FileName::SnapshotTemp { .. } => false,
    };
    names.into_iter().filter(is_wanted).collect()
}

/// The snapshot to begin with; the beginning of the log if there is none.
fn base(pinned: &mut Pinned, identity: Identity, mark: Mark, extent: Extent) -> Result<Anchor, CopyError> {
    let oldest = wal::list_segments(pinned)?.first().map_or(Seq(1), |span| span.first_seq);
    if extent == Extent::Whole && oldest <= Seq(1) {
        return Ok(Anchor::GENESIS);
    }
    let mut snapshots = wal::list_snapshots(pinned)?;
    if extent == Extent::Whole {
        snapshots.reverse();
    }
    // A snapshot may have become newer than the mark that was asked for before; its record need not be the last of a block.
    let synced = if let Mark::Synced(synced) = mark { synced } else { Seq(u64::MAX) };
    let is_behind = snapshots.iter().any(|seq| *seq > synced);
    for seq in snapshots.into_iter().filter(|seq| *seq >= oldest && *seq <= synced) {
        match wal::verify_snapshot(pinned, FileName::Snapshot { seq }, identity) {
            Ok(summary) => return Ok(Anchor { seq, chain: summary.header.chain }),
            Err(SnapshotError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if oldest <= Seq(1) {
        Ok(Anchor::GENESIS)
    } else if is_behind {
        Err(CopyError::Behind { shard: identity.shard, synced })
    } else {
        Err(CopyError::NoBase { shard: identity.shard, oldest })
    }
}

fn recovered_end(pinned: &mut Pinned, identity: Identity, base: Anchor, at: Time) -> Result<End, CopyError> {
    let recovered = Recovery::begin(pinned, identity, base)?.finish(pinned)?;
    let last = *recovered.last_block();
    // The last block is in the segment where the log goes on.
    let file =
        recovered.segments().last().map_or(FileName::Segment { first_seq: Seq(1) }, |span| span.file());
    // The next life decides nothing before its clock, nor before the time of this block.
    Ok(End { complete_until: before(at.max(last.time)), ..end_of(file, &last) })
}

/// Reads every block up to the mark: none of them may be missing or damaged.
fn synced_end(pinned: &Pinned, identity: Identity, base: Anchor, synced: Seq) -> Result<End, CopyError> {
    let mut reader = TailReader::new(identity, base.seq);
    let mut end = None;
    let newer = |error| newer_or(error, pinned, identity.shard);
    while let Some(block) = reader.next_block(pinned, synced).map_err(newer)? {
        let last = block.records().last().map_or(Time::ZERO, |record| Record::from_bytes(record).time);
        // The next record may be of the same moment.
        end = Some(End { complete_until: before(last), ..end_of(block.file, &block.header) });
    }
    let end = match end {
        Some(end) => end,
        None => only_a_start(pinned).map_err(newer)?,
    };
    if end.last_seq == synced {
        return Ok(end);
    }
    Err(CopyError::Short { shard: identity.shard, found: end.last_seq, synced })
}

/// A log without a record is its first block.
fn only_a_start(pinned: &Pinned) -> Result<End, TailError<StorageError>> {
    let file = FileName::Segment { first_seq: Seq(1) };
    let mut page = vec![0; BLOCK_ALIGN];
    pinned.read_at(file, 0, &mut page)?;
    let damaged = |_: HeaderFault| TailError::Rot { file, offset: 0, seq: Seq(1) };
    Ok(end_of(file, &Header::decode(&page).map_err(damaged)?))
}

/// What a reader takes for rot may be a block of a program that came later.
fn newer_or(error: TailError<StorageError>, pinned: &Pinned, shard: ShardId) -> CopyError {
    let TailError::Rot { file, offset, .. } = error else { return error.into() };
    let mut page = vec![0; BLOCK_ALIGN];
    match pinned.read_at(file, offset, &mut page).map(|()| Header::decode(&page)) {
        Ok(Err(HeaderFault::Newer(version))) => CopyError::Newer { shard, file, offset, version },
        _ => error.into(),
    }
}

const fn before(time: Time) -> Time {
    Time(time.0.saturating_sub(1))
}

fn end_of(file: FileName, last: &Header) -> End {
    End {
        file,
        bytes: last.offset + last.block_bytes() as u64,
        last_seq: last.last_seq(),
        epoch: last.epoch,
        time: last.time,
        complete_until: Time::ZERO,
        log_format: last.version,
    }
}

/// The segments from the one that holds the base's record to the one with the end.
fn segments_between(
    pinned: &Pinned,
    base: Seq,
    extent: Extent,
    end: FileName,
) -> Result<Vec<FileName>, CopyError> {
    let spans = wal::list_segments(pinned)?;
    let is_after_base = |span: &&wal::SegmentSpan| {
        extent == Extent::Whole || span.last_seq.is_none_or(|last| last >= Seq(base.0.max(1)))
    };
    let files = spans.iter().filter(is_after_base).map(wal::SegmentSpan::file);
    Ok(files.filter(|file| *file <= end).collect())
}

/// A segment that goes no further, without the zeros behind its last block.
pub(crate) fn used_part(pinned: &Pinned, name: FileName) -> Result<impl Read, CopyError> {
    Ok(Section { file: pinned.file(name)?, at: 0, end: used_bytes(pinned, name)? })
}

/// Bytes of a segment that goes no further: all but the zeros that it ends with, in whole pages.
fn used_bytes(pinned: &Pinned, name: FileName) -> Result<u64, CopyError> {
    let mut end = pinned.len(name)?;
    let mut piece = vec![0; PIECE_BYTES];
    while end > 0 {
        let begin = end.saturating_sub(PIECE_BYTES as u64);
        let length = usize::try_from(end - begin).map_or(PIECE_BYTES, |length| length.min(PIECE_BYTES));
        pinned.read_at(name, begin, &mut piece[..length])?;
        if let Some(last) = piece[..length].iter().rposition(|byte| *byte != 0) {
            return Ok((begin + last as u64 + 1).next_multiple_of(BLOCK_ALIGN as u64));
        }
        end = begin;
    }
    Ok(0)
}

/// The first bytes of a held file.
struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 {
            // A log's file never becomes shorter.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// What goes through is counted and hashed.
pub(crate) struct Hashed<R> {
    inner: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    pub(crate) fn finish(self) -> (u64, blake3::Hash) {
        (self.bytes, self.hasher.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_copy_lets_go_in_the_middle_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let name = FileName::Segment { first_seq: Seq(1) };
        let path = directory.path().join(name.to_text());
        for free_bytes_min in [0, u64::MAX] {
            fs::write(&path, vec![1; 3 * PIECE_BYTES]).unwrap();
            let pinned = Pinned::open(directory.path(), &[name]).unwrap().unwrap();
            let room = Room { pinned: &pinned, free_bytes_min, found: Cell::new(None) };
            let inner = Section { file: pinned.file(name).unwrap(), at: 0, end: 3 * PIECE_BYTES as u64 };
            let mut watched = Watched { inner, room: &room, left: 0 };
            let mut piece = vec![0; PIECE_BYTES];
            watched.read_exact(&mut piece).unwrap();
            fs::remove_file(&path).unwrap();
            let rest = watched.read_to_end(&mut piece);
            assert_eq!(rest.is_ok(), free_bytes_min == 0, "{rest:?}");
            assert_eq!(room.found.get().is_some(), free_bytes_min > 0);
        }
    }
}
