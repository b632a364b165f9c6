//! Reading a log back after whatever happened: every block checked, the end decided by rule.
//!
//! Nothing is written here. The caller takes the blocks one by one, so that gigabytes need no memory; when they end the
//! verdict has been given, and [`Recovery::finish`] hands over what [`Recovered::open`] needs.

use alloc::vec::Vec;

use surety_protocol::{EngineId, Epoch, Seq, ShardId, Time};

use crate::block::{Block, BlockReader, Found, Place, Stranger, stranger};
use crate::format::{self, Header, HeaderFault, Kind};
use crate::guard::{self, GuardEntry};
use crate::retention::segment_names;
use crate::verdict::{self, Tail, TornTail};
use crate::{ChainHash, FileName, Identity, SegmentSpan, Storage};

/// A point that the log must reach, and from which its records are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Records after this one are wanted.
    pub seq: Seq,
    /// Chain hash after the block that ends with it; checked if a block does end there.
    pub chain: ChainHash,
}

impl Anchor {
    /// The beginning of the log.
    pub const GENESIS: Self = Self { seq: Seq(0), chain: format::GENESIS };
}

/// Why a log is damaged beyond what a crash can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rot {
    /// A later block was written when this one was already durable.
    #[error("block {number} at {file}:{offset} proves that it was durable")]
    LaterBlock {
        /// Segment of the proof.
        file: FileName,
        /// Its place there.
        offset: u64,
        /// Its number.
        number: u64,
    },
    /// The guard ring speaks for this block or a later one, or for another history.
    #[error("the guard ring proves that block {number} was durable with another content")]
    Guard {
        /// The block that the entry speaks for.
        number: u64,
    },
    /// A sound header stands here that does not continue the log.
    #[error("the block here does not continue the log")]
    Discontinuous,
    /// There is more damage than the one block in flight explains.
    #[error("{file}:{offset} holds data that no block in flight explains")]
    BeyondWindow {
        /// Where the unexplained bytes are.
        file: FileName,
        /// Their place, to the page.
        offset: u64,
    },
    /// The first block that is read does not hold.
    #[error("the first block of the segment is damaged")]
    FirstBlock,
    /// The log ends before the record that a snapshot already includes.
    #[error("the log ends before seq {0}, which a snapshot includes")]
    BeforeAnchor(Seq),
    /// The last block's numbers are the highest that a header holds. No engine comes so far.
    #[error("its numbers are the highest there are, so that no start could follow")]
    NoNextStart,
    /// The log has another history than the snapshot was made from.
    #[error("the chain hash differs from the snapshot's")]
    AnchorChain,
}

/// Why a log cannot be read to its end. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError<E> {
    /// The disk failed.
    #[error("reading the log failed; check the disk, then start again")]
    Io(#[from] E),
    /// There is no segment that holds a seq that is needed.
    #[error("no segment holds seq {needed}; restore the missing files, or the directory from a backup")]
    Missing {
        /// The lowest seq that is needed.
        needed: Seq,
    },
    /// A segment between two others is missing.
    #[error(
        "segment {file} with seq {expected} is missing, the next one begins at {found}; restore it from a backup or mirror"
    )]
    Gap {
        /// The missing file.
        file: FileName,
        /// Its first seq.
        expected: Seq,
        /// First seq of the next segment.
        found: Seq,
    },
    /// The files belong to another engine.
    #[error(
        "{file}:{offset} belongs to engine {found}; this directory holds files of another engine, put the right ones back"
    )]
    ForeignEngine {
        /// Where.
        file: FileName,
        /// Where in it.
        offset: u64,
        /// Whose it is.
        found: EngineId,
    },
    /// The files belong to another shard of this engine.
    #[error(
        "{file}:{offset} belongs to shard {found}; shard directories were mixed up, put them back in order"
    )]
    WrongShard {
        /// Where.
        file: FileName,
        /// Where in it.
        offset: u64,
        /// Whose it is.
        found: ShardId,
    },
    /// A newer program wrote these files.
    #[error(
        "{file}:{offset} has format version {version}, this program reads up to {}; run the newer program",
        format::VERSION
    )]
    Newer {
        /// Where.
        file: FileName,
        /// Where in it.
        offset: u64,
        /// Its version.
        version: u16,
    },
    /// Durable data is damaged.
    #[error(
        "rot in {file} at offset {offset}, seq {seq}: {reason}; restore this file from a backup or mirror"
    )]
    Rot {
        /// The segment.
        file: FileName,
        /// Where the damaged block begins.
        offset: u64,
        /// Its first seq.
        seq: Seq,
        /// How we know.
        reason: Rot,
    },
}

/// A log that is being read from its files.
#[derive(Debug)]
pub struct Recovery {
    identity: Identity,
    anchor: Anchor,
    reader: BlockReader,
    names: Vec<FileName>,
    /// First seqs of all segments, ascending.
    segments: Vec<Seq>,
    guard: Vec<GuardEntry>,
    place: Place,
    place_bytes: u64,
    last: Option<Header>,
    /// The last block and what lies behind it, once the verdict is given.
    end: Option<(Header, Tail)>,
}

/// A log that was read to its end, to be opened.
#[derive(Debug)]
pub struct Recovered {
    pub(crate) identity: Identity,
    pub(crate) names: Vec<FileName>,
    pub(crate) segments: Vec<Seq>,
    pub(crate) place: Place,
    pub(crate) place_bytes: u64,
    pub(crate) last: Header,
    pub(crate) tail: Tail,
}

impl Recovery {
    /// Finds the segment to begin with and makes sure that everything is read from the disk.
    ///
    /// # Errors
    /// [`RecoverError::Missing`] if no segment reaches back to the anchor, and whatever is wrong with the guard ring.
    pub fn begin<S: Storage>(
        storage: &mut S,
        identity: Identity,
        anchor: Anchor,
    ) -> Result<Self, RecoverError<S::Error>> {
        let segments = segment_names(&storage.list()?);
        let needed = Seq(anchor.seq.0.max(1));
        let begin = segments.partition_point(|first| *first <= needed);
        let skipped = begin.checked_sub(1).ok_or(RecoverError::Missing { needed })?;
        Self::begin_with(storage, identity, anchor, skipped)
    }

    /// Begins with the oldest segment that retention has left, for those who want every record that is there and rebuild
    /// nothing from it.
    ///
    /// # Errors
    /// As [`Recovery::begin`]; [`RecoverError::Missing`] if there is no segment at all.
    pub fn begin_with_oldest<S: Storage>(
        storage: &mut S,
        identity: Identity,
    ) -> Result<Self, RecoverError<S::Error>> {
        let segments = segment_names(&storage.list()?);
        let oldest = *segments.first().ok_or(RecoverError::Missing { needed: Seq(1) })?;
        // Its chain is not checked: no block of this log ends there any more.
        let anchor = Anchor { seq: Seq(oldest.0.saturating_sub(1)), ..Anchor::GENESIS };
        Self::begin_with(storage, identity, anchor, 0)
    }

    fn begin_with<S: Storage>(
        storage: &mut S,
        identity: Identity,
        anchor: Anchor,
        skipped: usize,
    ) -> Result<Self, RecoverError<S::Error>> {
        let names = storage.list()?;
        let mut segments = segment_names(&names);
        for first_seq in &segments[skipped..] {
            storage.sync(FileName::Segment { first_seq: *first_seq })?;
        }
        let guard = read_guard(storage, &names, identity)?;
        let mut recovery = Self {
            identity,
            anchor,
            reader: BlockReader::new(),
            names,
            place: Place { file: segments[skipped], ..Place::GENESIS },
            place_bytes: 0,
            segments: core::mem::take(&mut segments),
            guard,
            last: None,
            end: None,
        };
        recovery.place_bytes = storage.len(recovery.place.file_name())?;
        recovery.adopt_place(storage)?;
        Ok(recovery)
    }

    /// The next block that holds a record after the anchor, or is empty and stands at or after it.
    ///
    /// None at the end of the log, when all that lies behind it was searched and found to be no more than a crash explains.
    ///
    /// # Errors
    /// A [`RecoverError`]; what was handed out before must then not be used.
    pub fn next_block<S: Storage>(
        &mut self,
        storage: &S,
    ) -> Result<Option<Block<'_>>, RecoverError<S::Error>> {
        let header = loop {
            let Some(header) = self.advance(storage)? else { return Ok(None) };
            if header.next_seq() > self.anchor.seq
                && (header.records == 0 || header.last_seq() > self.anchor.seq)
            {
                break header;
            }
        };
        Ok(Some(self.reader.block(header, self.place.file_name(), self.place.chain)))
    }

    /// Reads what is left, and hands over the log's end.
    ///
    /// # Errors
    /// As [`Recovery::next_block`].
    pub fn finish<S: Storage>(mut self, storage: &S) -> Result<Recovered, RecoverError<S::Error>> {
        let (last, tail) = loop {
            if let Some(end) = self.end.take() {
                break end;
            }
            self.advance(storage)?;
        };
        Ok(Recovered {
            identity: self.identity,
            names: self.names,
            segments: self.segments,
            place: self.place,
            place_bytes: self.place_bytes,
            last,
            tail,
        })
    }

    /// Seq of the next record to be read.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        self.place.seq
    }

    /// When the log is not read from its beginning, the place of the first block is what its header says: number, epoch
    /// and chain hash are checked from there on, and against the anchor.
    fn adopt_place<S: Storage>(&mut self, storage: &S) -> Result<(), RecoverError<S::Error>> {
        if self.place.file == Place::GENESIS.file {
            return Ok(());
        }
        self.place.seq = self.place.file;
        let file = self.place.file_name();
        match self.reader.read_header(storage, file, self.place_bytes, 0)? {
            Some(Ok(header)) => {
                self.check_owner(&header, file, 0)?;
                self.place.segment = header.segment;
                self.place.number = header.number;
                self.place.chain = header.chain;
                self.place.version = header.version;
                // A start block must raise the epoch, any other must keep it.
                let raised = u32::from(header.kind == Kind::Start);
                self.place.epoch = Epoch(header.epoch.0.saturating_sub(raised));
                Ok(())
            }
            Some(Err(HeaderFault::Newer(version))) => Err(RecoverError::Newer { file, offset: 0, version }),
            Some(Err(_)) | None => Err(self.rot(Rot::FirstBlock)),
        }
    }

    /// Accepts the next block into the buffer, or gives the verdict on the tail.
    fn advance<S: Storage>(&mut self, storage: &S) -> Result<Option<Header>, RecoverError<S::Error>> {
        if self.end.is_some() {
            return Ok(None);
        }
        match self.read_here(storage, self.place, self.place_bytes)? {
            Found::Sound(header) => return self.accept(header).map(Some),
            Found::Nothing(_) | Found::End if self.roll(storage)? => return self.advance(storage),
            Found::Damaged(_) | Found::Nothing(_) | Found::End => self.judge(storage)?,
        }
        Ok(None)
    }

    /// Reads the block at a place, and refuses a sound header that does not belong there. Stale epochs count as nothing.
    fn read_here<S: Storage>(
        &mut self,
        storage: &S,
        place: Place,
        bytes: u64,
    ) -> Result<Found, RecoverError<S::Error>> {
        let file = place.file_name();
        let found = self.reader.read(storage, file, bytes, place.offset)?;
        let header = match found {
            Found::Sound(header) | Found::Damaged(header) => header,
            Found::Nothing(HeaderFault::Newer(version)) => {
                return Err(RecoverError::Newer { file, offset: place.offset, version });
            }
            Found::Nothing(_) | Found::End => return Ok(found),
        };
        self.check_owner(&header, file, place.offset)?;
        if header.epoch < place.epoch {
            return Ok(Found::Nothing(HeaderFault::Malformed));
        }
        if !place.is_continued_by(&header) {
            return Err(rot_at(&place, Rot::Discontinuous));
        }
        Ok(found)
    }

    /// Goes to the next segment if its first block continues the log.
    fn roll<S: Storage>(&mut self, storage: &S) -> Result<bool, RecoverError<S::Error>> {
        if self.last.is_none() || !self.place.can_roll() || !self.segments.contains(&self.place.seq) {
            return Ok(false);
        }
        let place = self.place.rolled();
        let bytes = storage.len(place.file_name())?;
        let Found::Sound(_) = self.read_here(storage, place, bytes)? else { return Ok(false) };
        self.place = place;
        self.place_bytes = bytes;
        Ok(true)
    }

    fn accept<E>(&mut self, header: Header) -> Result<Header, RecoverError<E>> {
        let chain = self.reader.chain_after(&header);
        let disagrees = |entry: &&GuardEntry| {
            entry.number == header.number && (entry.chain != chain || entry.epoch != header.epoch)
        };
        if let Some(entry) = self.guard.iter().find(disagrees) {
            return Err(self.rot(Rot::Guard { number: entry.number }));
        }
        if header.records > 0 && header.last_seq() == self.anchor.seq && chain != self.anchor.chain {
            return Err(self.rot(Rot::AnchorChain));
        }
        self.place = self.place.after(&header, chain);
        self.last = Some(header);
        Ok(header)
    }

    /// Decides about what lies behind the last good block.
    fn judge<S: Storage>(&mut self, storage: &S) -> Result<(), RecoverError<S::Error>> {
        let Some(last) = self.last else { return Err(self.rot(Rot::FirstBlock)) };
        let later = self.segments.partition_point(|first| *first <= self.place.file);
        let search = verdict::Search {
            identity: self.identity,
            place: self.place,
            place_bytes: self.place_bytes,
            later: &self.segments[later..],
            durability: last.durability,
        };
        let tail = search.run(storage, &mut self.reader)?;
        let number = self.place.number;
        if let Some(entry) = self.guard.iter().find(|entry| entry.number >= number) {
            return Err(self.rot(Rot::Guard { number: entry.number }));
        }
        if self.place.seq <= self.anchor.seq {
            return Err(self.rot(Rot::BeforeAnchor(self.anchor.seq)));
        }
        if !self.place.takes_a_start() {
            return Err(self.rot(Rot::NoNextStart));
        }
        self.end = Some((last, tail));
        Ok(())
    }

    fn check_owner<E>(&self, header: &Header, file: FileName, offset: u64) -> Result<(), RecoverError<E>> {
        check_owner(header.identity, self.identity, file, offset)
    }

    fn rot<E>(&self, reason: Rot) -> RecoverError<E> {
        rot_at(&self.place, reason)
    }
}

impl Recovered {
    /// Seq of the next record.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        self.place.seq
    }

    /// Epoch of the last block; the next start takes the one above.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.place.epoch
    }

    /// The format version of the last block.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.place.version
    }

    /// Chain hash over the whole log.
    #[must_use]
    pub const fn chain(&self) -> ChainHash {
        self.place.chain
    }

    /// Time of the last block.
    #[must_use]
    pub const fn time(&self) -> Time {
        self.last.time
    }

    /// Header of the last block.
    #[must_use]
    pub const fn last_block(&self) -> &Header {
        &self.last
    }

    /// What a crash left behind and [`Recovered::open`] will drop; none if the log ends cleanly.
    #[must_use]
    pub const fn torn(&self) -> Option<&TornTail> {
        self.tail.torn.as_ref()
    }

    /// The segments of the log, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSpan> {
        let end = self.segments.partition_point(|first| *first <= self.place.file);
        SegmentSpan::from_names(&self.segments[..end])
    }
}

/// Refuses a header that belongs to another log.
pub(crate) fn check_owner<E>(
    found: Identity,
    expected: Identity,
    file: FileName,
    offset: u64,
) -> Result<(), RecoverError<E>> {
    match stranger(found, expected) {
        None => Ok(()),
        Some(Stranger::Engine) => Err(RecoverError::ForeignEngine { file, offset, found: found.engine }),
        Some(Stranger::Shard) => Err(RecoverError::WrongShard { file, offset, found: found.shard }),
    }
}

pub(crate) fn rot_at<E>(place: &Place, reason: Rot) -> RecoverError<E> {
    RecoverError::Rot { file: place.file_name(), offset: place.offset, seq: place.seq, reason }
}

fn read_guard<S: Storage>(
    storage: &mut S,
    names: &[FileName],
    identity: Identity,
) -> Result<Vec<GuardEntry>, RecoverError<S::Error>> {
    if !names.contains(&FileName::Guard) {
        return Ok(Vec::new());
    }
    storage.sync(FileName::Guard)?;
    let (entries, newer) = guard::read_ring(storage)?;
    if let Some(version) = newer {
        return Err(RecoverError::Newer { file: FileName::Guard, offset: 0, version });
    }
    for entry in &entries {
        check_owner(entry.identity, identity, FileName::Guard, entry.slot_offset())?;
    }
    Ok(entries)
}
