//! A block as it was read: checked, with its records in place; and the one routine that reads a block.

use alloc::{vec, vec::Vec};

use surety_protocol::limits::{BLOCK_ALIGN, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES};
use surety_protocol::{Epoch, Seq, sabotage};

use crate::format::{self, Header, HeaderFault, Kind, PAGE_BYTES};
use crate::{ChainHash, FileName, Identity, PageBuffer, RecordBytes, Storage};

/// A block of the log whose checksums hold and which continues the log.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its header.
    pub header: Header,
    /// The segment that holds it; its place there is in the header.
    pub file: FileName,
    /// Chain hash over all blocks up to and including this one.
    pub chain_after: ChainHash,
    records: &'a [RecordBytes],
}

/// A record and its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRecord<'a> {
    /// Its seq.
    pub seq: Seq,
    /// Its bytes.
    pub bytes: &'a RecordBytes,
}

impl<'a> Block<'a> {
    /// Its records; the first one has seq `header.first_seq`.
    #[must_use]
    pub const fn records(&self) -> &'a [RecordBytes] {
        self.records
    }

    /// Its records from a seq on, each with its seq.
    pub fn records_from(&self, from: Seq) -> impl Iterator<Item = BlockRecord<'a>> + use<'a> {
        let first = self.header.first_seq.0;
        (first..)
            .zip(self.records)
            .filter(move |(seq, _)| *seq >= from.0)
            .map(|(seq, bytes)| BlockRecord { seq: Seq(seq), bytes })
    }
}

impl Block<'_> {
    /// The bytes of this block with no record behind `last`: for a copy of the log that ends there. It continues the log as
    /// this one does, and nothing continues it.
    ///
    /// # Panics
    /// If `last` is not the seq of one of its records.
    #[must_use]
    pub fn ending_with(&self, last: Seq) -> Vec<u8> {
        assert!((self.header.first_seq..=self.header.last_seq()).contains(&last), "a record of the block");
        let kept = usize::try_from(last.0 + 1 - self.header.first_seq.0).unwrap_or(usize::MAX);
        let records = &self.records[..kept];
        let mut bytes = vec![0; format::block_bytes(kept)];
        bytes[BLOCK_HEADER_BYTES..format::used_bytes(kept)].copy_from_slice(records.as_flattened());
        let body_crc = crc32c::crc32c(&bytes[BLOCK_HEADER_BYTES..]);
        let records = u32::try_from(kept).unwrap_or(u32::MAX);
        Header { records, body_crc, ..self.header }.encode(&mut bytes);
        bytes
    }
}

/// Where the log goes on, and what the next block must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Name of the segment: the first seq in it.
    pub(crate) file: Seq,
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Offset in the segment.
    pub(crate) offset: u64,
    /// Number of the next block.
    pub(crate) number: u64,
    /// Seq of the next record.
    pub(crate) seq: Seq,
    /// Hash over all blocks before.
    pub(crate) chain: ChainHash,
    /// Epoch of the last block.
    pub(crate) epoch: Epoch,
    /// Its format version.
    pub(crate) version: u16,
}

impl Place {
    /// Before the first block of a log.
    pub(crate) const GENESIS: Self = Self {
        file: Seq(1),
        segment: 1,
        offset: 0,
        number: 1,
        seq: Seq(1),
        chain: format::GENESIS,
        epoch: Epoch(0),
        version: format::VERSION_FIRST,
    };

    pub(crate) const fn file_name(&self) -> FileName {
        FileName::Segment { first_seq: self.file }
    }

    /// The beginning of the next segment.
    pub(crate) const fn rolled(&self) -> Self {
        Self { file: self.seq, segment: self.segment + 1, offset: 0, ..*self }
    }

    /// True if the segment holds a record, so that a next segment would have another name.
    pub(crate) fn can_roll(&self) -> bool {
        self.file < self.seq
    }

    /// True if the start block of another run could be read again, here or in the next segment.
    pub(crate) fn takes_a_start(&self) -> bool {
        let next = self.rolled();
        format::are_in_range(Epoch(self.epoch.0 + 1), next.segment, self.number, self.seq)
    }

    /// True if a block with this header goes exactly here.
    pub(crate) fn is_continued_by(&self, header: &Header) -> bool {
        let epoch_fits = match header.kind {
            Kind::Start => header.epoch > self.epoch && header.version >= self.version,
            Kind::Data | Kind::Seal => header.epoch == self.epoch && header.version == self.version,
        };
        epoch_fits
            && header.segment == self.segment
            && header.offset == self.offset
            && header.number == self.number
            && header.first_seq == self.seq
            && (header.chain == self.chain || sabotage!("chain-hash-not-checked"))
    }

    /// The place after a block.
    pub(crate) const fn after(&self, header: &Header, chain: ChainHash) -> Self {
        Self {
            offset: header.offset + header.block_bytes() as u64,
            number: header.number + 1,
            seq: header.next_seq(),
            chain,
            epoch: header.epoch,
            version: header.version,
            ..*self
        }
    }
}

/// What stands at a place of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// The segment ends here.
    End,
    /// No header.
    Nothing(HeaderFault),
    /// A sound header whose body does not hold, or lies beyond the end of the file.
    Damaged(Header),
    /// A sound block, now in the buffer.
    Sound(Header),
}

/// Reads one block at a time.
#[derive(Debug)]
pub(crate) struct BlockReader {
    buffer: PageBuffer,
}

impl BlockReader {
    pub(crate) fn new() -> Self {
        Self { buffer: PageBuffer::for_block() }
    }

    /// Reads what stands at `offset` of a segment of `bytes` bytes.
    pub(crate) fn read<S: Storage>(
        &mut self,
        storage: &S,
        file: FileName,
        bytes: u64,
        offset: u64,
    ) -> Result<Found, S::Error> {
        let header = match self.read_header(storage, file, bytes, offset)? {
            None => return Ok(Found::End),
            Some(Err(fault)) => return Ok(Found::Nothing(fault)),
            Some(Ok(header)) => header,
        };
        let length = header.block_bytes();
        if offset + length as u64 > bytes {
            return Ok(Found::Damaged(header));
        }
        let block = &mut self.buffer.as_mut_bytes()[..length];
        if length > BLOCK_ALIGN {
            storage.read_at(file, offset + PAGE_BYTES, &mut block[BLOCK_ALIGN..])?;
        }
        Ok(if header.body_holds(block) || sabotage!("block-checksum-not-checked") {
            Found::Sound(header)
        } else {
            Found::Damaged(header)
        })
    }

    /// Reads the header at `offset` alone; none at the end of the segment.
    pub(crate) fn read_header<S: Storage>(
        &mut self,
        storage: &S,
        file: FileName,
        bytes: u64,
        offset: u64,
    ) -> Result<Option<Result<Header, HeaderFault>>, S::Error> {
        if offset + PAGE_BYTES > bytes {
            return Ok(None);
        }
        let page = &mut self.buffer.as_mut_bytes()[..BLOCK_ALIGN];
        storage.read_at(file, offset, page)?;
        Ok(Some(Header::decode(page)))
    }

    /// Chain hash after the block in the buffer.
    pub(crate) fn chain_after(&self, header: &Header) -> ChainHash {
        format::chain_after(&self.buffer.as_bytes()[..header.used_bytes()])
    }

    /// The block in the buffer.
    pub(crate) fn block(&self, header: Header, file: FileName, chain_after: ChainHash) -> Block<'_> {
        let used = &self.buffer.as_bytes()[BLOCK_HEADER_BYTES..header.used_bytes()];
        let (records, rest) = used.as_chunks();
        debug_assert!(rest.is_empty(), "used bytes are whole records");
        Block { header, file, chain_after, records }
    }

    /// The buffer, for reading many pages at once.
    pub(crate) fn window(&mut self) -> &mut [u8; BLOCK_BYTES_MAX] {
        self.buffer.as_mut_bytes().try_into().expect("the buffer holds the largest block")
    }
}

/// A file's header that belongs to another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    Engine,
    Shard,
}

/// Who a sound header belongs to, if not to us.
pub(crate) fn stranger(found: Identity, expected: Identity) -> Option<Stranger> {
    if found.engine != expected.engine {
        Some(Stranger::Engine)
    } else if found.shard != expected.shard {
        Some(Stranger::Shard)
    } else {
        None
    }
}
