//! Disks made of an input, and checksums put right so that changed bytes get past them.

use surety_protocol::limits::{BLOCK_ALIGN, BLOCK_HEADER_BYTES, BLOCK_RECORDS_MAX};
use surety_protocol::{EngineId, ShardId};
use wal::format::{GENESIS, MAGIC, block_bytes, chain_after, used_bytes};
use wal::{ChainHash, Identity};

/// Whose files they are.
pub(crate) const IDENTITY: Identity = Identity { engine: EngineId(0xabc), shard: ShardId(0) };
/// A page is given by its first bytes, the rest is zeros: there is more to find in what the input says.
pub(crate) const GIVEN_BYTES: usize = 1024;

const CHAIN: core::ops::Range<usize> = 96..128;
const RECORDS: core::ops::Range<usize> = 36..40;
const BODY_CRC: core::ops::Range<usize> = BLOCK_HEADER_BYTES - 8..BLOCK_HEADER_BYTES - 4;
const HEADER_CRC: core::ops::Range<usize> = BLOCK_HEADER_BYTES - 4..BLOCK_HEADER_BYTES;

/// Pages from what is given of them.
pub(crate) fn pages(given: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; given.len().div_ceil(GIVEN_BYTES) * BLOCK_ALIGN];
    for (page, given) in bytes.chunks_mut(BLOCK_ALIGN).zip(given.chunks(GIVEN_BYTES)) {
        page[..given.len()].copy_from_slice(given);
    }
    bytes
}

/// What is to be given for these pages; none if they hold more than can be given.
pub(crate) fn given(pages: &[u8]) -> Option<Vec<u8>> {
    let used = pages.len() - pages.iter().rev().take_while(|byte| **byte == 0).count();
    let pages = &pages[..used.next_multiple_of(BLOCK_ALIGN)];
    let is_given = |page: &[u8]| page[GIVEN_BYTES..].iter().all(|byte| *byte == 0);
    let all = pages.chunks(BLOCK_ALIGN).all(is_given);
    all.then(|| pages.chunks(BLOCK_ALIGN).flat_map(|page| page[..GIVEN_BYTES].to_vec()).collect())
}

/// Writes right checksums into every block that a header announces, and joins them to one chain.
pub(crate) fn repair_blocks(segment: &mut [u8], mut chain: ChainHash) -> ChainHash {
    let mut at = 0;
    while at + BLOCK_ALIGN <= segment.len() {
        let records = number(&segment[at..], RECORDS);
        let is_block = segment[at..].starts_with(&MAGIC) && records <= BLOCK_RECORDS_MAX;
        let length = if is_block { block_bytes(records) } else { BLOCK_ALIGN };
        if is_block && at + length <= segment.len() {
            let block = &mut segment[at..at + length];
            block[CHAIN].copy_from_slice(&chain);
            let body = crc32c::crc32c(&block[BLOCK_HEADER_BYTES..]);
            block[BODY_CRC].copy_from_slice(&body.to_le_bytes());
            let header = crc32c::crc32c(&block[..HEADER_CRC.start]);
            block[HEADER_CRC].copy_from_slice(&header.to_le_bytes());
            chain = chain_after(&block[..used_bytes(records)]);
        }
        at += length;
    }
    chain
}

/// The chain before the first block.
pub(crate) const FIRST_CHAIN: ChainHash = GENESIS;

/// Writes the right checksum into every page of a guard ring.
pub(crate) fn repair_ring(ring: &mut [u8]) {
    for page in ring.chunks_exact_mut(BLOCK_ALIGN) {
        let crc = crc32c::crc32c(&page[..BLOCK_ALIGN - 4]);
        page[BLOCK_ALIGN - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}

const SNAPSHOT_HEADER: usize = 256;
const SNAPSHOT_BLOCK: usize = 24;
const SNAPSHOT_FOOTER: usize = 64;

/// Writes right checksums and the right hash into a snapshot, as far as it has the form of one.
pub(crate) fn repair_snapshot(file: &mut [u8]) {
    if file.len() < SNAPSHOT_HEADER + SNAPSHOT_FOOTER {
        return;
    }
    seal(&mut file[..SNAPSHOT_HEADER]);
    let footer_at = file.len() - SNAPSHOT_FOOTER;
    let mut at = SNAPSHOT_HEADER;
    while at + SNAPSHOT_BLOCK <= footer_at {
        let length = number(&file[at..], 12..16);
        let Some(end) = (at + SNAPSHOT_BLOCK).checked_add(length).filter(|end| *end <= footer_at) else {
            break;
        };
        let payload = crc32c::crc32c(&file[at + SNAPSHOT_BLOCK..end]);
        file[at + 16..at + 20].copy_from_slice(&payload.to_le_bytes());
        seal(&mut file[at..at + SNAPSHOT_BLOCK]);
        at = end;
    }
    let hash = blake3::hash(&file[..footer_at]);
    let footer = &mut file[footer_at..];
    footer[32..].copy_from_slice(hash.as_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&footer[..28]), hash.as_bytes());
    footer[28..32].copy_from_slice(&crc.to_le_bytes());
}

/// The last four bytes become the checksum of the others.
fn seal(bytes: &mut [u8]) {
    let (rest, crc) = bytes.split_at_mut(bytes.len() - 4);
    crc.copy_from_slice(&crc32c::crc32c(rest).to_le_bytes());
}

fn number(bytes: &[u8], range: core::ops::Range<usize>) -> usize {
    let bytes: [u8; 4] = bytes[range].try_into().expect("four bytes");
    usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
}
