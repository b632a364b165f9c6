//! Following a log that another thread writes: whole blocks, never beyond the synced mark.

use surety_protocol::{Epoch, Seq, sabotage};

use crate::block::{Block, BlockReader, Found, Place, stranger};
use crate::format::{Header, Kind};
use crate::retention::segment_names;
use crate::{FileName, Identity, Storage};

/// Why a tail reader cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TailError<E> {
    /// The disk failed.
    #[error("reading the log failed")]
    Io(#[from] E),
    /// The wanted records were removed by retention.
    #[error(
        "seq {wanted} is no longer in the log, which begins at {oldest}; start again from a snapshot or the archive"
    )]
    Removed {
        /// The seq that was asked for.
        wanted: Seq,
        /// The first seq that is there; 0 if there is no segment.
        oldest: Seq,
    },
    /// A block below the synced mark does not hold.
    #[error("rot in {file} at offset {offset}, seq {seq}; stop and run `surety verify`")]
    Rot {
        /// The segment.
        file: FileName,
        /// Where the block begins.
        offset: u64,
        /// Its first seq.
        seq: Seq,
    },
}

/// Reads the blocks of a log from a seq on, as far as they are synced.
#[derive(Debug)]
pub struct TailReader {
    identity: Identity,
    from: Seq,
    reader: BlockReader,
    place: Option<Place>,
}

impl TailReader {
    /// Begins with the block that holds `from`.
    #[must_use]
    pub fn new(identity: Identity, from: Seq) -> Self {
        Self { identity, from: Seq(from.0.max(1)), reader: BlockReader::new(), place: None }
    }

    /// The next block with records, if all of it is at or below `synced`.
    ///
    /// The first block may begin before the seq that was asked for: see [`Block::records_from`].
    ///
    /// # Errors
    /// [`TailError::Removed`] if the records are gone, [`TailError::Rot`] if a synced block does not hold.
    pub fn next_block<S: Storage>(
        &mut self,
        storage: &S,
        synced: Seq,
    ) -> Result<Option<Block<'_>>, TailError<S::Error>> {
        let header = loop {
            let Some(header) = self.advance(storage, synced)? else { return Ok(None) };
            if header.records > 0 && header.last_seq() >= self.from {
                break header;
            }
        };
        let place = self.place.expect("a block was read");
        Ok(Some(self.reader.block(header, place.file_name(), place.chain)))
    }

    /// Seq of the next record that will be read.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.place.map_or(self.from, |place| place.seq.max(self.from))
    }

    fn advance<S: Storage>(
        &mut self,
        storage: &S,
        synced: Seq,
    ) -> Result<Option<Header>, TailError<S::Error>> {
        // The segment may have been removed while it was looked for or read: then nothing is wrong with the log.
        self.read_next(storage, synced).map_err(|error| self.removed(storage).unwrap_or(error))
    }

    /// That the record which is wanted next is gone, if it is.
    fn removed<S: Storage>(&self, storage: &S) -> Option<TailError<S::Error>> {
        let oldest = *segment_names(&storage.list().ok()?).first()?;
        let wanted = self.next_seq();
        (oldest > wanted).then_some(TailError::Removed { wanted, oldest })
    }

    fn read_next<S: Storage>(
        &mut self,
        storage: &S,
        synced: Seq,
    ) -> Result<Option<Header>, TailError<S::Error>> {
        if self.next_seq() > synced && !sabotage!("tail-runs-past-the-synced-mark") {
            return Ok(None);
        }
        let place = match self.place {
            Some(place) => place,
            None => self.find(storage)?,
        };
        // The block with `place.seq` is synced, and so is every empty block before it.
        let header = match self.read(storage, place)? {
            Some(header) => header,
            None => match self.read_rolled(storage, place)? {
                Some(header) => header,
                None => return Err(rot(&place)),
            },
        };
        if header.last_seq() > synced && !sabotage!("tail-runs-past-the-synced-mark") {
            return Ok(None);
        }
        let place = if header.offset == 0 && place.offset != 0 { place.rolled() } else { place };
        self.place = Some(place.after(&header, self.reader.chain_after(&header)));
        Ok(Some(header))
    }

    /// The beginning of the segment that holds the first wanted record.
    fn find<S: Storage>(&mut self, storage: &S) -> Result<Place, TailError<S::Error>> {
        let segments = segment_names(&storage.list()?);
        let after = segments.partition_point(|first| *first <= self.from);
        let Some(index) = after.checked_sub(1) else {
            let oldest = segments.first().copied().unwrap_or_default();
            return Err(TailError::Removed { wanted: self.from, oldest });
        };
        let file = segments[index];
        if file == Place::GENESIS.file {
            return Ok(Place::GENESIS);
        }
        let blank = Place { file, seq: file, ..Place::GENESIS };
        let bytes = storage.len(blank.file_name())?;
        match self.reader.read_header(storage, blank.file_name(), bytes, 0)? {
            Some(Ok(header)) if stranger(header.identity, self.identity).is_none() => {
                let raised = u32::from(header.kind == Kind::Start);
                let epoch = Epoch(header.epoch.0.saturating_sub(raised));
                Ok(Place {
                    segment: header.segment,
                    number: header.number,
                    chain: header.chain,
                    epoch,
                    version: header.version,
                    ..blank
                })
            }
            _ => Err(rot(&blank)),
        }
    }

    /// The block at a place, if it continues the log there.
    fn read<S: Storage>(&mut self, storage: &S, place: Place) -> Result<Option<Header>, TailError<S::Error>> {
        let file = place.file_name();
        let bytes = storage.len(file)?;
        Ok(match self.reader.read(storage, file, bytes, place.offset)? {
            Found::Sound(header) if self.fits(&header, &place) => Some(header),
            _ => None,
        })
    }

    /// The first block of the next segment, if there is one and it continues the log.
    fn read_rolled<S: Storage>(
        &mut self,
        storage: &S,
        place: Place,
    ) -> Result<Option<Header>, TailError<S::Error>> {
        let next = place.rolled();
        if !place.can_roll() || !storage.list()?.contains(&next.file_name()) {
            return Ok(None);
        }
        self.read(storage, next)
    }

    fn fits(&self, header: &Header, place: &Place) -> bool {
        stranger(header.identity, self.identity).is_none() && place.is_continued_by(header)
    }
}

fn rot<E>(place: &Place) -> TailError<E> {
    TailError::Rot { file: place.file_name(), offset: place.offset, seq: place.seq }
}
