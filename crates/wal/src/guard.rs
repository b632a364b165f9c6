//! The guard ring: proof, outside the log, that the last acked block was durable.

use alloc::vec::Vec;
use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64, U128},
};

use surety_protocol::limits::{BLOCK_ALIGN, GUARD_SLOTS};
use surety_protocol::{EngineId, Epoch, Seq, ShardId};

use crate::format::PAGE_BYTES;
use crate::{ChainHash, FileName, HeaderFault, Identity, Storage};

const MAGIC: [u8; 8] = *b"SURETYRG";
const VERSION: u16 = 1;
const CRC_AT: usize = BLOCK_ALIGN - 4;

/// Bytes of the ring file.
pub(crate) const RING_BYTES: u64 = GUARD_SLOTS * PAGE_BYTES;

/// Evidence that a block was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardEntry {
    /// Engine and shard of the block.
    pub identity: Identity,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number.
    pub number: u64,
    /// The last seq up to and including it.
    pub last_seq: Seq,
    /// Number of its segment.
    pub segment: u64,
    /// Its place there.
    pub offset: u64,
    /// Chain hash after it.
    pub chain: ChainHash,
}

impl GuardEntry {
    /// Its place in the ring file.
    #[must_use]
    pub const fn slot_offset(&self) -> u64 {
        self.number % GUARD_SLOTS * PAGE_BYTES
    }

    /// Writes the entry to a page.
    ///
    /// # Panics
    /// If `page` is shorter than a page.
    pub fn encode(&self, page: &mut [u8]) {
        let mut raw = RawEntry::new_zeroed();
        raw.magic = MAGIC;
        raw.version = VERSION.into();
        raw.shard = self.identity.shard.0.into();
        raw.epoch = self.epoch.0.into();
        raw.engine = self.identity.engine.0.into();
        raw.number = self.number.into();
        raw.last_seq = self.last_seq.0.into();
        raw.segment = self.segment.into();
        raw.offset = self.offset.into();
        raw.chain = self.chain;
        raw.crc = crc32c::crc32c(&raw.as_bytes()[..CRC_AT]).into();
        page[..BLOCK_ALIGN].copy_from_slice(raw.as_bytes());
    }

    /// Reads a page of the ring.
    ///
    /// # Errors
    /// A [`HeaderFault`] if it holds no sound entry of a known version.
    ///
    /// # Panics
    /// If `page` is shorter than a page.
    pub fn decode(page: &[u8]) -> Result<Self, HeaderFault> {
        let page = &page[..BLOCK_ALIGN];
        let raw = RawEntry::ref_from_bytes(page).map_err(|_| HeaderFault::Malformed)?;
        if raw.magic != MAGIC {
            return Err(HeaderFault::Magic);
        }
        if crc32c::crc32c(&page[..CRC_AT]) != raw.crc.get() {
            return Err(HeaderFault::Checksum);
        }
        match raw.version.get() {
            VERSION => Ok(raw.read()),
            newer if newer > VERSION => Err(HeaderFault::Newer(newer)),
            _ => Err(HeaderFault::Malformed),
        }
    }
}

/// The page of `FORMAT.md`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    magic: [u8; 8],
    version: U16,
    shard: U16,
    epoch: U32,
    engine: U128,
    number: U64,
    last_seq: U64,
    segment: U64,
    offset: U64,
    chain: ChainHash,
    zeros: [u8; 3996],
    crc: U32,
}

const _: () = assert!(size_of::<RawEntry>() == BLOCK_ALIGN);

impl RawEntry {
    fn read(&self) -> GuardEntry {
        GuardEntry {
            identity: Identity { engine: EngineId(self.engine.get()), shard: ShardId(self.shard.get()) },
            epoch: Epoch(self.epoch.get()),
            number: self.number.get(),
            last_seq: Seq(self.last_seq.get()),
            segment: self.segment.get(),
            offset: self.offset.get(),
            chain: self.chain,
        }
    }
}

/// Reads the sound entries of the ring, and the version of one that is too new.
pub(crate) fn read_ring<S: Storage>(storage: &S) -> Result<(Vec<GuardEntry>, Option<u16>), S::Error> {
    let mut entries = Vec::new();
    let mut newer = None;
    let slots = storage.len(FileName::Guard)?.min(RING_BYTES) / PAGE_BYTES;
    let mut page = [0; BLOCK_ALIGN];
    for slot in 0..slots {
        storage.read_at(FileName::Guard, slot * PAGE_BYTES, &mut page)?;
        match GuardEntry::decode(&page) {
            Ok(entry) => entries.push(entry),
            Err(HeaderFault::Newer(version)) => newer = Some(version),
            Err(_) => {}
        }
    }
    Ok((entries, newer))
}
