//! What lies behind the last good block: nothing, a torn tail, or rot. Decided by the rule in `FORMAT.md`.

use alloc::vec::Vec;

use surety_protocol::limits::{BLOCK_ALIGN, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES};
use surety_protocol::{Epoch, Seq, sabotage};

use crate::block::{BlockReader, Place, stranger};
use crate::format::{Header, HeaderFault};
use crate::recovery::rot_at;
use crate::storage::SECTOR_BYTES;
use crate::{Durability, FileName, Identity, RecoverError, Rot, Storage};

/// What a crash left of blocks that were not acked (in `os` mode: not synced).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment in which the log ends.
    pub file: FileName,
    /// Where it ends there.
    pub offset: u64,
    /// The first seq that is lost.
    pub first_seq: Seq,
    /// The highest seq that a header in the tail speaks of; none if no header is left, or only of empty blocks.
    pub last_seq: Option<Seq>,
    /// Bytes between the end of the log and the last byte that is not zero, over all segments.
    pub bytes: u64,
}

/// The end of a log, as preparing needs it.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) torn: Option<TornTail>,
    /// End of what must be zeroed in the last segment.
    pub(crate) dirty_end: u64,
    /// Segments behind it, which must go.
    pub(crate) later: Vec<Seq>,
}

/// All that the verdict depends on.
pub(crate) struct Search<'a> {
    pub(crate) identity: Identity,
    pub(crate) place: Place,
    pub(crate) place_bytes: u64,
    pub(crate) later: &'a [Seq],
    pub(crate) durability: Durability,
}

/// What was found from a place to the end of its file.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// First offset that is searched.
    from: u64,
    /// End of the last page that is not zero; `from` if all is zero.
    dirty_end: u64,
    /// Highest seq that a header speaks of.
    last_seq: Option<Seq>,
    /// Bytes of the block whose sound header stands at `from`.
    block_bytes: Option<u64>,
}

impl Extent {
    fn is_clean(&self) -> bool {
        self.dirty_end == self.from
    }

    /// End of what one block in flight could have written here.
    fn window_end(&self) -> u64 {
        self.from + self.block_bytes.unwrap_or(BLOCK_BYTES_MAX as u64)
    }
}

impl Search<'_> {
    /// Searches every sector behind the end of the log.
    pub(crate) fn run<S: Storage>(
        &self,
        storage: &S,
        reader: &mut BlockReader,
    ) -> Result<Tail, RecoverError<S::Error>> {
        let here =
            self.search_file(storage, reader, self.place.file, self.place.offset, self.place_bytes, true)?;
        let mut later = Vec::new();
        for &first_seq in self.later {
            let bytes = storage.len(FileName::Segment { first_seq })?;
            later.push(self.search_file(storage, reader, first_seq, 0, bytes, here.is_clean())?);
        }
        if self.durability == Durability::Fsync && !sabotage!("rot-taken-for-a-torn-tail") {
            self.check_window(&here, &later)?;
        }
        Ok(Tail { torn: self.torn(&here, &later), dirty_end: here.dirty_end, later: self.later.to_vec() })
    }

    fn search_file<S: Storage>(
        &self,
        storage: &S,
        reader: &mut BlockReader,
        file: Seq,
        from: u64,
        bytes: u64,
        is_clean_so_far: bool,
    ) -> Result<Extent, RecoverError<S::Error>> {
        let mut extent = Extent { from, dirty_end: from, last_seq: None, block_bytes: None };
        let name = FileName::Segment { first_seq: file };
        let mut window_at = from;
        while window_at < bytes {
            let window = reader.window();
            let length =
                usize::try_from(bytes - window_at).map_or(BLOCK_BYTES_MAX, |left| left.min(BLOCK_BYTES_MAX));
            storage.read_at(name, window_at, &mut window[..length])?;
            for (page, offset) in window[..length].chunks(BLOCK_ALIGN).zip((window_at..).step_by(BLOCK_ALIGN))
            {
                if is_zero(page) {
                    continue;
                }
                extent.dirty_end = offset + page.len() as u64;
                // Blocks begin on pages, but a disk may put any sector in another's place: a header that is found there was
                // written all the same, and proves what it says.
                for (sector, offset) in page.chunks(SECTOR_BYTES).zip((offset..).step_by(SECTOR_BYTES)) {
                    let Some(header) = self.read_header(sector, name, offset)? else { continue };
                    self.weigh(&header, file, offset, is_clean_so_far)?;
                    extent.last_seq = extent.last_seq.max((header.records > 0).then(|| header.last_seq()));
                    if offset == from {
                        extent.block_bytes = Some(header.block_bytes() as u64);
                    }
                }
            }
            window_at += length as u64;
        }
        Ok(extent)
    }

    /// The header in a sector, if it is ours and not stale.
    fn read_header<E>(
        &self,
        sector: &[u8],
        file: FileName,
        offset: u64,
    ) -> Result<Option<Header>, RecoverError<E>> {
        if sector.len() < BLOCK_HEADER_BYTES {
            return Ok(None);
        }
        match Header::decode(sector) {
            Ok(header) => {
                let is_ours = stranger(header.identity, self.identity).is_none();
                Ok((is_ours && header.epoch >= self.epoch()).then_some(header))
            }
            Err(HeaderFault::Newer(version)) => Err(RecoverError::Newer { file, offset, version }),
            Err(_) => Ok(None),
        }
    }

    /// A header proves rot if it was written when the missing block was durable, or if it tells another history.
    fn weigh<E>(
        &self,
        header: &Header,
        file: Seq,
        offset: u64,
        is_clean_so_far: bool,
    ) -> Result<(), RecoverError<E>> {
        let place = &self.place;
        let was_durable = header.durable_upto >= place.seq || header.durable_block >= place.number;
        let is_other = header.number == place.number && header.chain != place.chain;
        if !was_durable && !is_other || sabotage!("rot-taken-for-a-torn-tail") {
            return Ok(());
        }
        // If nothing is left here and the next segment begins later, a whole segment is gone.
        let first_later = self.later.first().copied();
        if is_clean_so_far && first_later == Some(file) && file > place.seq {
            return Err(self.gap(file));
        }
        let proof = FileName::Segment { first_seq: file };
        Err(rot_at(place, Rot::LaterBlock { file: proof, offset, number: header.number }))
    }

    /// In `fsync` mode a crash touches one block: here, or at the beginning of the next segment.
    fn check_window<E>(&self, here: &Extent, later: &[Extent]) -> Result<(), RecoverError<E>> {
        let beyond = |file: Seq, offset: u64| {
            let file = FileName::Segment { first_seq: file };
            rot_at(&self.place, Rot::BeyondWindow { file, offset })
        };
        if here.dirty_end > here.window_end() {
            return Err(beyond(self.place.file, here.dirty_end - 1));
        }
        for (&file, extent) in self.later.iter().zip(later) {
            // A segment gets its name only once everything before is synced.
            if file > self.place.seq {
                return Err(self.gap(file));
            }
            let window_end = if here.is_clean() { extent.window_end() } else { 0 };
            if extent.dirty_end > window_end {
                return Err(beyond(file, extent.dirty_end - 1));
            }
        }
        Ok(())
    }

    fn gap<E>(&self, found: Seq) -> RecoverError<E> {
        let expected = self.place.seq;
        RecoverError::Gap { file: FileName::Segment { first_seq: expected }, expected, found }
    }

    fn torn(&self, here: &Extent, later: &[Extent]) -> Option<TornTail> {
        let extents = || core::iter::once(here).chain(later);
        let bytes = extents().map(|extent| extent.dirty_end - extent.from).sum();
        (bytes > 0).then(|| TornTail {
            file: self.place.file_name(),
            offset: self.place.offset,
            first_seq: self.place.seq,
            last_seq: extents()
                .filter_map(|extent| extent.last_seq)
                .max()
                .filter(|last| *last >= self.place.seq),
            bytes,
        })
    }

    fn epoch(&self) -> Epoch {
        self.place.epoch
    }
}

fn is_zero(page: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK_ALIGN] = [0; BLOCK_ALIGN];
    *page == ZEROS[..page.len()]
}
