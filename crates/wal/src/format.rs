//! Bytes of a block: its header, its length, its checksums and its place in the chain.

use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64, U128},
};

use surety_protocol::limits::{
    BLOCK_ALIGN, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_RECORDS_MAX, RECORD_BYTES,
};
use surety_protocol::{EngineId, Epoch, Seq, ShardId, Time};

use crate::{ChainHash, Identity};

/// First bytes of a block.
pub const MAGIC: [u8; 8] = *b"SURETYWL";
/// The highest format version that this crate reads and writes.
pub const VERSION: u16 = 2;
/// The format version of a log without a loss, which older programs read, too. One that goes on after a loss is of version 2: what
/// its records say needs a program that knows it.
pub const VERSION_FIRST: u16 = 1;
/// Bytes of a page: blocks begin and end on one.
pub const PAGE_BYTES: u64 = BLOCK_ALIGN as u64;
/// The chain hash before the first block.
pub const GENESIS: ChainHash = [0; 32];

const CRC_AT: usize = BLOCK_HEADER_BYTES - 4;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds records.
    Data,
    /// Opens an epoch; empty.
    Start,
    /// Proves the block before it; empty.
    Seal,
}

/// What stands behind an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The block is on the disk.
    Fsync,
    /// The block is with the operating system: it survives a killed process, not a power cut.
    Os,
}

/// Why bytes are not a block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// No magic: nothing was written here, or not by this program.
    #[error("no block begins here")]
    Magic,
    /// The header's checksum does not hold.
    #[error("the block header's checksum does not hold")]
    Checksum,
    /// Sound, but of a later format.
    #[error("format version {0} is newer than this program's")]
    Newer(u16),
    /// The checksum holds, the contents make no sense.
    #[error("the block header contradicts itself")]
    Malformed,
}

/// A block's header, all but its magic and own checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the format, which only a start block raises.
    pub version: u16,
    /// What the block is for.
    pub kind: Kind,
    /// Mode of the run that wrote it.
    pub durability: Durability,
    /// Engine and shard that it belongs to.
    pub identity: Identity,
    /// The run that wrote it.
    pub epoch: Epoch,
    /// Records in it.
    pub records: u32,
    /// Number of its segment, from 1.
    pub segment: u64,
    /// Its own place in that segment, in bytes.
    pub offset: u64,
    /// Its number in the log, from 1.
    pub number: u64,
    /// Seq of its first record, or of the next record if it is empty.
    pub first_seq: Seq,
    /// When it was submitted.
    pub time: Time,
    /// Highest seq known to be synced then.
    pub durable_upto: Seq,
    /// Highest block number known to be synced then.
    pub durable_block: u64,
    /// Hash over all blocks before it.
    pub chain: ChainHash,
    /// CRC-32C of everything after the header.
    pub body_crc: u32,
}

impl Header {
    /// Reads a header; its length may be trusted if this succeeds.
    ///
    /// # Errors
    /// A [`HeaderFault`] if the bytes are not a sound header of a known version.
    ///
    /// # Panics
    /// If `bytes` is shorter than a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bytes = &bytes[..BLOCK_HEADER_BYTES];
        if bytes[..8] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        let raw = RawHeader::ref_from_bytes(bytes).map_err(|_| HeaderFault::Malformed)?;
        if crc32c::crc32c(&bytes[..CRC_AT]) != raw.header_crc.get() {
            return Err(HeaderFault::Checksum);
        }
        if raw.version.get() > VERSION {
            return Err(HeaderFault::Newer(raw.version.get()));
        }
        raw.read().ok_or(HeaderFault::Malformed)
    }

    /// Writes the header to the first bytes of a block.
    ///
    /// # Panics
    /// If `bytes` is shorter than a header.
    pub fn encode(&self, bytes: &mut [u8]) {
        let mut raw = RawHeader::write(self);
        raw.header_crc = crc32c::crc32c(&raw.as_bytes()[..CRC_AT]).into();
        bytes[..BLOCK_HEADER_BYTES].copy_from_slice(raw.as_bytes());
    }

    /// Seq of the last record up to and including this block; 0 if there is none.
    #[must_use]
    pub const fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + self.records as u64 - 1)
    }

    /// Seq of the first record after this block.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        Seq(self.first_seq.0 + self.records as u64)
    }

    /// Bytes of the block without its padding.
    #[must_use]
    pub const fn used_bytes(&self) -> usize {
        used_bytes(self.records as usize)
    }

    /// Bytes of the block.
    #[must_use]
    pub const fn block_bytes(&self) -> usize {
        block_bytes(self.records as usize)
    }

    /// True if `block` (this header and what follows it) has the body that the header promises.
    #[must_use]
    pub fn body_holds(&self, block: &[u8]) -> bool {
        crc32c::crc32c(&block[BLOCK_HEADER_BYTES..self.block_bytes()]) == self.body_crc
    }
}

/// Bytes of a block of so many records, without padding.
#[must_use]
pub const fn used_bytes(records: usize) -> usize {
    BLOCK_HEADER_BYTES + records * RECORD_BYTES
}

/// Bytes of a block of so many records.
#[must_use]
pub const fn block_bytes(records: usize) -> usize {
    used_bytes(records).next_multiple_of(BLOCK_ALIGN)
}

/// The chain hash after a block, of its used bytes.
#[must_use]
pub fn chain_after(used: &[u8]) -> ChainHash {
    *blake3::hash(used).as_bytes()
}

/// The offset table of `FORMAT.md`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    kind: u8,
    durability: u8,
    shard: U16,
    zero: [u8; 2],
    engine: U128,
    epoch: U32,
    records: U32,
    segment: U64,
    offset: U64,
    number: U64,
    first_seq: U64,
    time: U64,
    durable_upto: U64,
    durable_block: U64,
    chain: ChainHash,
    zeros: [u8; 120],
    body_crc: U32,
    header_crc: U32,
}

const _: () = {
    assert!(size_of::<RawHeader>() == BLOCK_HEADER_BYTES);
    assert!(block_bytes(BLOCK_RECORDS_MAX) == BLOCK_BYTES_MAX);
};

impl RawHeader {
    fn write(header: &Header) -> Self {
        let mut raw = Self::new_zeroed();
        raw.magic = MAGIC;
        raw.version = header.version.into();
        raw.kind = kind_code(header.kind);
        raw.durability = durability_code(header.durability);
        raw.shard = header.identity.shard.0.into();
        raw.engine = header.identity.engine.0.into();
        raw.epoch = header.epoch.0.into();
        raw.records = header.records.into();
        raw.segment = header.segment.into();
        raw.offset = header.offset.into();
        raw.number = header.number.into();
        raw.first_seq = header.first_seq.0.into();
        raw.time = header.time.0.into();
        raw.durable_upto = header.durable_upto.0.into();
        raw.durable_block = header.durable_block.into();
        raw.chain = header.chain;
        raw.body_crc = header.body_crc.into();
        raw
    }

    fn read(&self) -> Option<Header> {
        let header = Header {
            version: self.version.get(),
            kind: kind_of(self.kind)?,
            durability: durability_of(self.durability)?,
            identity: Identity { engine: EngineId(self.engine.get()), shard: ShardId(self.shard.get()) },
            epoch: Epoch(self.epoch.get()),
            records: self.records.get(),
            segment: self.segment.get(),
            offset: self.offset.get(),
            number: self.number.get(),
            first_seq: Seq(self.first_seq.get()),
            time: Time(self.time.get()),
            durable_upto: Seq(self.durable_upto.get()),
            durable_block: self.durable_block.get(),
            chain: self.chain,
            body_crc: self.body_crc.get(),
        };
        (self.is_canonical() && is_plausible(&header)).then_some(header)
    }

    fn is_canonical(&self) -> bool {
        self.zero == [0; 2] && self.zeros == [0; 120]
    }
}

const NUMBER_END: u64 = u64::MAX / 2;

/// What holds for every header, wherever it stands.
fn is_plausible(header: &Header) -> bool {
    let records = header.records as usize;
    let count_fits = match header.kind {
        Kind::Data => (1..=BLOCK_RECORDS_MAX).contains(&records),
        Kind::Start | Kind::Seal => records == 0,
    };
    (VERSION_FIRST..=VERSION).contains(&header.version)
        && count_fits
        && are_in_range(header.epoch, header.segment, header.number, header.first_seq)
        && header.offset.is_multiple_of(PAGE_BYTES)
        && header.offset < NUMBER_END
        && header.durable_upto < header.first_seq
        && header.durable_block < header.number
}

/// True for numbers that a header may hold: sums with the largest block stay far below overflow.
pub(crate) fn are_in_range(epoch: Epoch, segment: u64, number: u64, first_seq: Seq) -> bool {
    epoch.0 < u32::MAX / 2
        && segment < NUMBER_END
        && (1..NUMBER_END).contains(&number)
        && (1..NUMBER_END).contains(&first_seq.0)
}

const fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Data => 1,
        Kind::Start => 2,
        Kind::Seal => 3,
    }
}

const fn kind_of(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::Data),
        2 => Some(Kind::Start),
        3 => Some(Kind::Seal),
        _ => None,
    }
}

const fn durability_code(durability: Durability) -> u8 {
    match durability {
        Durability::Fsync => 1,
        Durability::Os => 2,
    }
}

const fn durability_of(code: u8) -> Option<Durability> {
    match code {
        1 => Some(Durability::Fsync),
        2 => Some(Durability::Os),
        _ => None,
    }
}
