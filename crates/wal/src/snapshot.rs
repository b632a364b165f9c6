//! The container of a snapshot: typed entries in checked blocks, written and read as a stream.
//!
//! What the entries mean is the engine's. A snapshot counts only once it has its final name, and it gets that after it
//! was synced and read back.

use alloc::vec::Vec;
use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64, U128},
};

use surety_protocol::limits::{BLOCK_BYTES_MAX, SNAPSHOT_ENTRY_BYTES_MAX};
use surety_protocol::{EngineId, Epoch, Seq, ShardId, Time, sabotage};

use crate::{ChainHash, FileName, Identity, PageBuffer, Storage, format};

const MAGIC: [u8; 8] = *b"SURETYSN";
const BLOCK_MAGIC: [u8; 4] = *b"SNBK";
const FOOTER_MAGIC: [u8; 4] = *b"SNFT";
/// The highest version that is read and written. A snapshot has that of the log which it is of.
const VERSION: u16 = 2;
const _: () = assert!(VERSION == format::VERSION);
const HEADER_BYTES: usize = size_of::<RawHeader>();
const BLOCK_HEADER_BYTES: usize = size_of::<RawBlock>();
const FOOTER_BYTES: usize = size_of::<RawFooter>();
const PAYLOAD_BYTES_MAX: usize = BLOCK_BYTES_MAX - BLOCK_HEADER_BYTES;
const ENTRY_HEADER_BYTES: usize = 3;

const _: () = {
    assert!(HEADER_BYTES == 256 && BLOCK_HEADER_BYTES == 24 && FOOTER_BYTES == 64);
    assert!(SNAPSHOT_ENTRY_BYTES_MAX + ENTRY_HEADER_BYTES <= PAYLOAD_BYTES_MAX);
    assert!(PAYLOAD_BYTES_MAX == 262_120);
};

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Format version of the log that it is of, and its own.
    pub version: u16,
    /// Engine and shard.
    pub identity: Identity,
    /// Epoch of the last record included.
    pub epoch: Epoch,
    /// The last record included.
    pub seq: Seq,
    /// Time of that record's block.
    pub time: Time,
    /// Chain hash after the block that ends with it.
    pub chain: ChainHash,
    /// The ledger's state hash after it.
    pub state_hash: u128,
}

/// One entry of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is, by the engine's numbering.
    pub kind: u8,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A whole snapshot, in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// What it is of.
    pub header: SnapshotHeader,
    /// Entries in it.
    pub entries: u64,
    /// Length of the file.
    pub bytes: u64,
    /// BLAKE3 of all but the footer.
    pub hash: ChainHash,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError<E> {
    /// The disk failed.
    #[error("snapshot input or output failed; the log is untouched, try again later")]
    Io(#[from] E),
    /// The file is damaged or incomplete.
    #[error("{file} is damaged at offset {offset}: {part}; use the older snapshot")]
    Damaged {
        /// The file.
        file: FileName,
        /// Where.
        offset: u64,
        /// What does not hold there.
        part: SnapshotPart,
    },
    /// The file belongs to another engine or shard.
    #[error("{file} belongs to engine {} shard {}; put the right files back", found.engine, found.shard)]
    Foreign {
        /// The file.
        file: FileName,
        /// Whose it is.
        found: Identity,
    },
    /// A newer program wrote it.
    #[error("{file} has format version {version}, this program reads up to {VERSION}; run the newer program")]
    Newer {
        /// The file.
        file: FileName,
        /// Its version.
        version: u16,
    },
}

/// A part of a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotPart {
    /// The first 256 bytes.
    #[error("its header does not hold")]
    Header,
    /// A block's header or contents.
    #[error("block {0} does not hold")]
    Block(u32),
    /// The last 64 bytes.
    #[error("its footer does not hold")]
    Footer,
    /// The hash over the whole.
    #[error("its hash does not hold")]
    Hash,
}

/// Writes a snapshot entry by entry.
#[derive(Debug)]
pub struct SnapshotWriter {
    header: SnapshotHeader,
    buffer: PageBuffer,
    payload_bytes: usize,
    block_entries: u32,
    blocks: u32,
    entries: u64,
    offset: u64,
    hasher: blake3::Hasher,
}

impl SnapshotWriter {
    /// Begins the snapshot, under its temporary name.
    ///
    /// # Errors
    /// The storage's own.
    pub fn begin<S: Storage>(
        storage: &mut S,
        header: SnapshotHeader,
    ) -> Result<Self, SnapshotError<S::Error>> {
        let mut writer = Self {
            header,
            buffer: PageBuffer::for_block(),
            payload_bytes: 0,
            block_entries: 0,
            blocks: 0,
            entries: 0,
            offset: 0,
            hasher: blake3::Hasher::new(),
        };
        storage.create(writer.temp(), 0)?;
        writer.put(storage, RawHeader::write(&header).as_bytes())?;
        Ok(writer)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The storage's own.
    ///
    /// # Panics
    /// If the entry is longer than [`SNAPSHOT_ENTRY_BYTES_MAX`].
    pub fn push<S: Storage>(
        &mut self,
        storage: &mut S,
        kind: u8,
        bytes: &[u8],
    ) -> Result<(), SnapshotError<S::Error>> {
        let length = u16::try_from(bytes.len()).expect("entries are at most SNAPSHOT_ENTRY_BYTES_MAX long");
        if self.payload_bytes + ENTRY_HEADER_BYTES + bytes.len() > PAYLOAD_BYTES_MAX {
            self.flush(storage)?;
        }
        let at = BLOCK_HEADER_BYTES + self.payload_bytes;
        let entry = &mut self.buffer.as_mut_bytes()[at..at + ENTRY_HEADER_BYTES + bytes.len()];
        entry[0] = kind;
        entry[1..ENTRY_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        entry[ENTRY_HEADER_BYTES..].copy_from_slice(bytes);
        self.payload_bytes += entry.len();
        self.block_entries += 1;
        self.entries += 1;
        Ok(())
    }

    /// Completes the file, syncs it, reads it back, and gives it its name for good.
    ///
    /// # Errors
    /// The storage's own, and [`SnapshotError::Damaged`] if it does not read back as it was written.
    pub fn finish<S: Storage>(mut self, storage: &mut S) -> Result<SnapshotSummary, SnapshotError<S::Error>> {
        self.flush(storage)?;
        let hash = *self.hasher.finalize().as_bytes();
        let bytes = self.offset + FOOTER_BYTES as u64;
        let footer = RawFooter::write(self.blocks, self.entries, bytes, hash);
        storage.write_at(self.temp(), self.offset, footer.as_bytes())?;
        let summary = SnapshotSummary { header: self.header, entries: self.entries, bytes, hash };
        // The reader syncs the file before it reads.
        let read_back = verify_snapshot(storage, self.temp(), self.header.identity)?;
        if read_back != summary && !sabotage!("snapshot-damage-not-noticed") {
            return Err(SnapshotError::Damaged { file: self.temp(), offset: 0, part: SnapshotPart::Hash });
        }
        storage.rename(self.temp(), FileName::Snapshot { seq: self.header.seq })?;
        storage.sync_directory()?;
        Ok(summary)
    }

    /// Gives up and removes the temporary file.
    ///
    /// # Errors
    /// The storage's own.
    pub fn abandon<S: Storage>(self, storage: &mut S) -> Result<(), SnapshotError<S::Error>> {
        Ok(storage.remove(self.temp())?)
    }

    const fn temp(&self) -> FileName {
        FileName::SnapshotTemp { seq: self.header.seq }
    }

    /// Writes the block that was filled.
    fn flush<S: Storage>(&mut self, storage: &mut S) -> Result<(), SnapshotError<S::Error>> {
        if self.block_entries == 0 {
            return Ok(());
        }
        self.blocks += 1;
        let length = BLOCK_HEADER_BYTES + self.payload_bytes;
        let block = &mut self.buffer.as_mut_bytes()[..length];
        let header = RawBlock::write(self.blocks, self.block_entries, &block[BLOCK_HEADER_BYTES..]);
        block[..BLOCK_HEADER_BYTES].copy_from_slice(header.as_bytes());
        storage.write_at(FileName::SnapshotTemp { seq: self.header.seq }, self.offset, block)?;
        self.hasher.update(block);
        self.offset += length as u64;
        self.payload_bytes = 0;
        self.block_entries = 0;
        Ok(())
    }

    fn put<S: Storage>(&mut self, storage: &mut S, bytes: &[u8]) -> Result<(), S::Error> {
        storage.write_at(self.temp(), self.offset, bytes)?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a snapshot entry by entry.
#[derive(Debug)]
pub struct SnapshotReader {
    file: FileName,
    file_bytes: u64,
    header: SnapshotHeader,
    buffer: Vec<u8>,
    /// The part of the buffer that was not handed out yet.
    cursor: usize,
    block_entries_left: u32,
    blocks: u32,
    entries: u64,
    offset: u64,
    hasher: blake3::Hasher,
    summary: Option<SnapshotSummary>,
}

impl SnapshotReader {
    /// Syncs a snapshot, so that it is read from the disk, and checks its header.
    ///
    /// # Errors
    /// A [`SnapshotError`] if it is not a sound snapshot of this engine and shard.
    pub fn open<S: Storage>(
        storage: &mut S,
        file: FileName,
        identity: Identity,
    ) -> Result<Self, SnapshotError<S::Error>> {
        storage.sync(file)?;
        let file_bytes = storage.len(file)?;
        let header = read_header(storage, file, file_bytes, identity)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(RawHeader::write(&header).as_bytes());
        Ok(Self {
            file,
            file_bytes,
            header,
            buffer: Vec::new(),
            cursor: 0,
            block_entries_left: 0,
            blocks: 0,
            entries: 0,
            offset: HEADER_BYTES as u64,
            hasher,
            summary: None,
        })
    }

    /// What the snapshot is of.
    #[must_use]
    pub const fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The next entry; none when all were read and the footer holds.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`]: what was handed out before must then not be used.
    pub fn next_entry<S: Storage>(
        &mut self,
        storage: &S,
    ) -> Result<Option<Entry<'_>>, SnapshotError<S::Error>> {
        if self.block_entries_left == 0 && !self.read_block(storage)? {
            return Ok(None);
        }
        let damaged = self.damaged(SnapshotPart::Block(self.blocks));
        let Some((entry, length)) = split_entry(&self.buffer[self.cursor..]) else { return Err(damaged) };
        self.cursor += length;
        self.block_entries_left -= 1;
        self.entries += 1;
        if self.block_entries_left == 0 && self.cursor != self.buffer.len() {
            return Err(damaged);
        }
        Ok(Some(entry))
    }

    /// The figures, once all entries were read.
    #[must_use]
    pub const fn summary(&self) -> Option<&SnapshotSummary> {
        self.summary.as_ref()
    }

    /// Reads the next block; false if the footer is reached.
    fn read_block<S: Storage>(&mut self, storage: &S) -> Result<bool, SnapshotError<S::Error>> {
        if self.summary.is_some() {
            return Ok(false);
        }
        if self.offset + FOOTER_BYTES as u64 == self.file_bytes {
            self.read_footer(storage)?;
            return Ok(false);
        }
        let part = SnapshotPart::Block(self.blocks + 1);
        let mut raw = RawBlock::new_zeroed();
        storage.read_at(self.file, self.offset, raw.as_mut_bytes())?;
        let length = raw.payload_bytes.get() as usize;
        let end = self.offset + (BLOCK_HEADER_BYTES + length) as u64;
        let fits = length <= PAYLOAD_BYTES_MAX && end + FOOTER_BYTES as u64 <= self.file_bytes;
        if !raw.holds(self.blocks + 1) || !fits {
            return Err(self.damaged(part));
        }
        self.buffer.resize(length, 0);
        storage.read_at(self.file, self.offset + BLOCK_HEADER_BYTES as u64, &mut self.buffer)?;
        if crc32c::crc32c(&self.buffer) != raw.payload_crc.get() && !sabotage!("snapshot-damage-not-noticed")
        {
            return Err(self.damaged(part));
        }
        self.hasher.update(raw.as_bytes()).update(&self.buffer);
        self.offset = end;
        self.cursor = 0;
        self.blocks += 1;
        self.block_entries_left = raw.entries.get();
        Ok(true)
    }

    fn read_footer<S: Storage>(&mut self, storage: &S) -> Result<(), SnapshotError<S::Error>> {
        let mut raw = RawFooter::new_zeroed();
        storage.read_at(self.file, self.offset, raw.as_mut_bytes())?;
        let expected = RawFooter::write(self.blocks, self.entries, self.file_bytes, raw.hash);
        if raw.as_bytes() != expected.as_bytes() {
            return Err(self.damaged(SnapshotPart::Footer));
        }
        let hash = *self.hasher.finalize().as_bytes();
        if raw.hash != hash && !sabotage!("snapshot-damage-not-noticed") {
            return Err(self.damaged(SnapshotPart::Hash));
        }
        let summary =
            SnapshotSummary { header: self.header, entries: self.entries, bytes: self.file_bytes, hash };
        self.summary = Some(summary);
        Ok(())
    }

    fn damaged<E>(&self, part: SnapshotPart) -> SnapshotError<E> {
        SnapshotError::Damaged { file: self.file, offset: self.offset, part }
    }
}

/// Reads a snapshot from its first to its last byte.
///
/// # Errors
/// A [`SnapshotError`] if anything in it does not hold.
pub fn verify_snapshot<S: Storage>(
    storage: &mut S,
    file: FileName,
    identity: Identity,
) -> Result<SnapshotSummary, SnapshotError<S::Error>> {
    let mut reader = SnapshotReader::open(storage, file, identity)?;
    while reader.next_entry(storage)?.is_some() {}
    Ok(reader.summary.expect("the footer was read"))
}

fn read_header<S: Storage>(
    storage: &S,
    file: FileName,
    file_bytes: u64,
    identity: Identity,
) -> Result<SnapshotHeader, SnapshotError<S::Error>> {
    let damaged = SnapshotError::Damaged { file, offset: 0, part: SnapshotPart::Header };
    let mut raw = RawHeader::new_zeroed();
    if file_bytes < (HEADER_BYTES + FOOTER_BYTES) as u64 {
        return Err(damaged);
    }
    storage.read_at(file, 0, raw.as_mut_bytes())?;
    if raw.magic != MAGIC || raw.crc.get() != raw.computed_crc() {
        return Err(damaged);
    }
    if raw.version.get() > VERSION {
        return Err(SnapshotError::Newer { file, version: raw.version.get() });
    }
    let header = raw.read();
    if header.identity != identity {
        return Err(SnapshotError::Foreign { file, found: header.identity });
    }
    let named =
        matches!(file, FileName::Snapshot { seq } | FileName::SnapshotTemp { seq } if seq == header.seq);
    let named = named && header.version >= format::VERSION_FIRST;
    if named && raw.as_bytes() == RawHeader::write(&header).as_bytes() { Ok(header) } else { Err(damaged) }
}

/// The first entry of a payload, and its length there.
fn split_entry(payload: &[u8]) -> Option<(Entry<'_>, usize)> {
    let (&[kind, low, high], rest) = payload.split_first_chunk()?;
    let length = usize::from(u16::from_le_bytes([low, high]));
    let bytes = rest.get(..length)?;
    Some((Entry { kind, bytes }, ENTRY_HEADER_BYTES + length))
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    log_version: U16,
    shard: U16,
    zero_a: [u8; 2],
    engine: U128,
    epoch: U32,
    zero_b: [u8; 4],
    seq: U64,
    time: U64,
    zero_c: [u8; 8],
    chain: ChainHash,
    state_hash: U128,
    zero_d: [u8; 140],
    crc: U32,
}

impl RawHeader {
    fn write(header: &SnapshotHeader) -> Self {
        let mut raw = Self::new_zeroed();
        raw.magic = MAGIC;
        raw.version = header.version.into();
        raw.log_version = header.version.into();
        raw.shard = header.identity.shard.0.into();
        raw.engine = header.identity.engine.0.into();
        raw.epoch = header.epoch.0.into();
        raw.seq = header.seq.0.into();
        raw.time = header.time.0.into();
        raw.chain = header.chain;
        raw.state_hash = header.state_hash.into();
        raw.crc = raw.computed_crc().into();
        raw
    }

    fn read(&self) -> SnapshotHeader {
        SnapshotHeader {
            version: self.version.get(),
            identity: Identity { engine: EngineId(self.engine.get()), shard: ShardId(self.shard.get()) },
            epoch: Epoch(self.epoch.get()),
            seq: Seq(self.seq.get()),
            time: Time(self.time.get()),
            chain: self.chain,
            state_hash: self.state_hash.get(),
        }
    }

    fn computed_crc(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..HEADER_BYTES - 4])
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBlock {
    magic: [u8; 4],
    number: U32,
    entries: U32,
    payload_bytes: U32,
    payload_crc: U32,
    crc: U32,
}

impl RawBlock {
    fn write(number: u32, entries: u32, payload: &[u8]) -> Self {
        let length = u32::try_from(payload.len()).expect("a payload fits into its buffer");
        let mut raw = Self {
            magic: BLOCK_MAGIC,
            number: number.into(),
            entries: entries.into(),
            payload_bytes: length.into(),
            payload_crc: crc32c::crc32c(payload).into(),
            crc: 0.into(),
        };
        raw.crc = raw.computed_crc().into();
        raw
    }

    fn holds(&self, number: u32) -> bool {
        self.magic == BLOCK_MAGIC
            && self.crc.get() == self.computed_crc()
            && self.number.get() == number
            && self.entries.get() > 0
    }

    fn computed_crc(&self) -> u32 {
        crc32c::crc32c(&self.as_bytes()[..BLOCK_HEADER_BYTES - 4])
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFooter {
    magic: [u8; 4],
    blocks: U32,
    entries: U64,
    file_bytes: U64,
    zero: [u8; 4],
    crc: U32,
    hash: ChainHash,
}

impl RawFooter {
    fn write(blocks: u32, entries: u64, file_bytes: u64, hash: ChainHash) -> Self {
        let mut raw = Self {
            magic: FOOTER_MAGIC,
            blocks: blocks.into(),
            entries: entries.into(),
            file_bytes: file_bytes.into(),
            zero: [0; 4],
            crc: 0.into(),
            hash,
        };
        let crc = crc32c::crc32c(&raw.as_bytes()[..28]);
        raw.crc = crc32c::crc32c_append(crc, &hash).into();
        raw
    }
}
