//! The store: tables of one embedded database, and batches that change them all at once or not at all.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy, RestartIntervalPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable, Snapshot};
use surety_protocol::{EngineId, MerchantId, PartitionHandle, Seq, ShardId, TenantId};

use crate::codec::{self, Position, Zone};
use crate::error::HistoryError;
use crate::held::Held;
use crate::horizon::Horizon;
use crate::journal;
use crate::keys::{self, BLOCK_ROWS_MAX, BlockNumber, Blocks};
use crate::reader::Reader;
use crate::row::{Balances, Lock, LockKey, MerchantTotals, Row};
use crate::seal::{KEY_BYTES, Key, random};

/// Version of what stands in the store.
const FORMAT: u16 = 3;
/// Memory for what is read again and again.
const CACHE_BYTES: u64 = 64 << 20;
/// The store's own log, at most: what is in it is in the tables soon after.
const JOURNAL_BYTES: u64 = 128 << 20;
/// What is written before it goes to a table's files.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Memory of a store, at most: its cache, and of each table what is written while as much goes to the files. Beside it stand the replica,
/// a ledger as large as the engine's own, and what is asked at the moment: of each question one unpacked block a shard, some 80 kB.
pub const MEMORY_BYTES: u64 = CACHE_BYTES + 2 * MEMTABLE_BYTES * (Table::ALL.len() as u64 + 1);
/// Bytes of postings that are packed together: they are read many at a time.
const POSTINGS_BYTES: u32 = 16 << 10;
/// One posting of so many is written whole, the others as what they differ in from the one before.
const POSTINGS_WHOLE_EVERY: u8 = 64;
/// Bytes of a table's file.
const FILE_BYTES: u64 = 8 << 20;
/// A merge of tables writes as much again before it takes the old files away: the database merges with no more than 50 files of the next
/// level at a time, and there is one thread for it.
const MERGE_BYTES: u64 = 512 << 20;
const _: () = assert!(50 * FILE_BYTES <= MERGE_BYTES, "what a merge writes has room");
/// What a store may still write after it was asked whether there is room: its log grows and is turned over, what waits in memory goes to
/// files, and files are merged.
const WRITTEN_LATER_BYTES: u64 = JOURNAL_BYTES + MEMTABLE_BYTES * (Table::ALL.len() as u64 + 1) + MERGE_BYTES;

/// How a store is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes that the index may take on the disk; past them nothing more is indexed. None for as much as there is.
    pub bytes_max: Option<u64>,
    /// Bytes that stay free on the disk, or nothing more is indexed. See [`StoreOptions::beside`].
    pub free_bytes_min: u64,
    /// Bytes of a table that are written before they go to its files. Small ones make files soon.
    pub memtable_bytes: u64,
    /// Records of a block, 1 to 128: of a store that is begun; one that is there has its own.
    pub block_rows: u16,
}

impl StoreOptions {
    /// Those of an index on the disk of an engine that declines new locks below so many free bytes, `log.free_bytes_min`: indexing stops at
    /// twice as many, and what the store writes by itself later. So an index never shuts a ledger.
    #[must_use]
    pub const fn beside(engine_free_bytes_min: u64) -> Self {
        Self {
            bytes_max: None,
            free_bytes_min: engine_free_bytes_min.saturating_mul(2).saturating_add(WRITTEN_LATER_BYTES),
            memtable_bytes: MEMTABLE_BYTES,
            block_rows: BLOCK_ROWS_MAX,
        }
    }
}

/// What an engine has that nothing was configured of.
const ENGINE_FREE_BYTES_MIN: u64 = 256 << 20;

/// Why nothing more is indexed. It goes on when there is room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The index has become as large as it may.
    #[error("the history takes {bytes} bytes and may take {bytes_max}: allow it more")]
    Full {
        /// What it takes.
        bytes: u64,
        /// What it may.
        bytes_max: u64,
    },
    /// The disk is nearly full.
    #[error("{free} bytes are free on the history's disk, {free_bytes_min} have to stay: make room")]
    Disk {
        /// What is free.
        free: u64,
        /// What has to stay.
        free_bytes_min: u64,
    },
}

/// The tables of an index. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    options: StoreOptions,
    blocks_of: Blocks,
    cursors: Key,
    tables: Tables,
    /// None of one that is not in its place yet. Let go of when the tables are closed.
    _held: Option<Held>,
}

struct Tables {
    database: Database,
    meta: Keyspace,
    blocks: Keyspace,
    zones: Keyspace,
    postings: Keyspace,
    locks: Keyspace,
    open: Keyspace,
    stakes: Keyspace,
    merchants: Keyspace,
    partitions: Keyspace,
}

impl core::fmt::Debug for Store {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Store").field("path", &self.path()).finish()
    }
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Blocks,
    Zones,
    Postings,
    Locks,
    Open,
    Stakes,
    Merchants,
    Partitions,
}

impl Table {
    pub(crate) const ALL: [(&'static str, Self); 8] = [
        ("blocks", Self::Blocks),
        ("zones", Self::Zones),
        ("postings", Self::Postings),
        ("locks", Self::Locks),
        ("open", Self::Open),
        ("stakes", Self::Stakes),
        ("merchants", Self::Merchants),
        ("partitions", Self::Partitions),
    ];
}

impl Store {
    /// Opens the index of an engine in a directory of its own, or begins one: beside an engine that keeps 256 MiB free, as it does unless
    /// configured otherwise. Whoever feeds it says what is configured, to [`Store::open_with`].
    ///
    /// # Errors
    /// If another process has it, it is another engine's, of another format, or damaged.
    pub fn open(path: &Path, engine: EngineId) -> Result<Self, HistoryError> {
        Self::open_with(path, engine, StoreOptions::beside(ENGINE_FREE_BYTES_MIN))
    }

    /// The same, kept in another way.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(path: &Path, engine: EngineId, options: StoreOptions) -> Result<Self, HistoryError> {
        let held = Held::take(path)?;
        crate::rebuild::finish(path)?;
        Self::open_held(path, engine, options, Some(held))
    }

    /// Begins one that is to be put into the place that the caller holds.
    pub(crate) fn begin(path: &Path, engine: EngineId, options: StoreOptions) -> Result<Self, HistoryError> {
        Self::open_held(path, engine, options, None)
    }

    fn open_held(
        path: &Path,
        engine: EngineId,
        options: StoreOptions,
        held: Option<Held>,
    ) -> Result<Self, HistoryError> {
        let tables = Tables::open(path, &options)?;
        let known = match tables.identity(path)? {
            Some(found) => found,
            None => tables.begin(path, engine, options.block_rows)?,
        };
        let found = known.engine;
        if found != engine {
            return Err(HistoryError::Foreign { path: path.to_owned(), found, wanted: engine });
        }
        let Identity { rows, key, .. } = known;
        let damaged = HistoryError::Damaged {
            what: "the number of a block's records",
            shard: ShardId(0),
            at: rows.into(),
        };
        let blocks_of = Blocks::new(rows).ok_or(damaged)?;
        let inner =
            Inner { path: path.to_owned(), options, blocks_of, cursors: Key::of(key), tables, _held: held };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Notes how many shards its engine has. Until that is known an index is complete up to no moment: a shard that is not begun would
    /// not be missed. There never become fewer.
    ///
    /// # Errors
    /// The store's own.
    pub fn note_shards(&self, shards: u16) -> Result<(), HistoryError> {
        if self.view().shards_noted()? >= shards {
            return Ok(());
        }
        let mut batch = self.batch();
        batch.insert(&self.inner.tables.meta, *b"shards", shards.to_le_bytes());
        batch.commit().map_err(|source| self.failed(source))?;
        self.persist()
    }

    /// The key of its cursors.
    pub(crate) fn cursors(&self) -> &Key {
        &self.inner.cursors
    }

    /// Whether more may be indexed.
    ///
    /// # Errors
    /// Why not. A disk that cannot be asked counts as one with room: whoever writes to it is told.
    pub fn room(&self) -> Result<(), NoRoom> {
        self.room_for(0)
    }

    /// Whether there is room for so many bytes more.
    fn room_for(&self, more: u64) -> Result<(), NoRoom> {
        let StoreOptions { bytes_max, free_bytes_min, .. } = self.inner.options;
        let bytes = self.bytes().unwrap_or(0);
        if let Some(bytes_max) = bytes_max.filter(|bytes_max| bytes >= *bytes_max) {
            return Err(NoRoom::Full { bytes, bytes_max });
        }
        let Ok(disk) = rustix::fs::statvfs(&self.inner.path) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let free_bytes_min = free_bytes_min.saturating_add(more);
        if free < free_bytes_min { Err(NoRoom::Disk { free, free_bytes_min }) } else { Ok(()) }
    }

    /// Asks it.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.clone(), None)
    }

    /// Asks it, beside whoever feeds it and moves the horizon on.
    #[must_use]
    pub fn reader_with(&self, horizon: Horizon) -> Reader {
        Reader::new(self.clone(), Some(horizon))
    }

    /// Opens an index that is there, to be asked.
    pub(crate) fn open_existing(path: &Path, engine: EngineId) -> Result<Self, HistoryError> {
        let missing = || HistoryError::Missing(path.to_owned());
        let parent = path.parent().ok_or_else(missing)?;
        if !parent.is_dir() {
            return Err(missing());
        }
        // Who only asks leaves nothing where there is nothing, and nothing that its keeper may not open.
        if !path.is_dir() && !crate::rebuild::is_cut_off(path) {
            return Err(missing());
        }
        check_owner(parent)?;
        let held = Held::take(path)?;
        crate::rebuild::finish(path)?;
        if !path.is_dir() {
            return Err(missing());
        }
        Self::open_held(path, engine, StoreOptions::beside(ENGINE_FREE_BYTES_MIN), Some(held))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    pub(crate) fn failed(&self, source: fjall::Error) -> HistoryError {
        HistoryError::Store { path: self.inner.path.clone(), source }
    }

    fn batch(&self) -> OwnedWriteBatch {
        self.inner.tables.database.batch()
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// The disk's own; the store takes no more changes then.
    pub fn persist(&self) -> Result<(), HistoryError> {
        self.inner.tables.database.persist(PersistMode::SyncAll).map_err(|source| self.failed(source))
    }

    /// Bytes on the disk.
    pub(crate) fn bytes(&self) -> Result<u64, HistoryError> {
        self.inner.tables.database.disk_space().map_err(|source| self.failed(source))
    }

    /// Brings everything that was written into the tables' files, and merges those of each table for whose second copy there is room: that
    /// saves bytes and looks, and changes nothing else.
    ///
    /// # Errors
    /// The disk's own.
    pub fn compact(&self) -> Result<(), HistoryError> {
        for (name, table) in Table::ALL.map(|(name, table)| (name, self.table(table))) {
            table.rotate_memtable_and_wait().map_err(|source| self.failed(source))?;
            if let Err(no_room) = self.room_for(table.disk_space()) {
                tracing::warn!(table = name, "the history's files are left as they are: {no_room}");
                continue;
            }
            table.major_compact().map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// Bytes of each table's files.
    pub(crate) fn table_bytes(&self) -> Vec<(&'static str, u64)> {
        Table::ALL.iter().map(|(name, table)| (*name, self.table(*table).disk_space())).collect()
    }

    fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Blocks => &self.inner.tables.blocks,
            Table::Zones => &self.inner.tables.zones,
            Table::Postings => &self.inner.tables.postings,
            Table::Locks => &self.inner.tables.locks,
            Table::Open => &self.inner.tables.open,
            Table::Stakes => &self.inner.tables.stakes,
            Table::Merchants => &self.inner.tables.merchants,
            Table::Partitions => &self.inner.tables.partitions,
        }
    }

    /// A lock as of the last change.
    pub(crate) fn lock(&self, key: &LockKey) -> Result<Option<Lock>, HistoryError> {
        let found = self.inner.tables.locks.get(keys::lock(key)).map_err(|source| self.failed(source))?;
        found.map(|bytes| read_lock(key, &bytes)).transpose()
    }

    /// What there is of a merchant's locks, as of the last change.
    pub(crate) fn merchant(
        &self,
        shard: ShardId,
        tenant: TenantId,
        merchant: MerchantId,
    ) -> Result<MerchantTotals, HistoryError> {
        let key = keys::merchant(shard, tenant, merchant);
        let found = self.inner.tables.merchants.get(key).map_err(|source| self.failed(source))?;
        read_merchant(shard, merchant, found.as_deref())
    }

    /// All tables as they are now.
    pub(crate) fn view(&self) -> View {
        View { store: self.clone(), snapshot: self.inner.tables.database.snapshot() }
    }

    /// What block a record is in.
    pub(crate) fn blocks(&self) -> Blocks {
        self.inner.blocks_of
    }

    /// Begins a change.
    pub(crate) fn change(&self) -> Change<'_> {
        Change { store: self, batch: self.batch() }
    }
}

impl Tables {
    fn open(path: &Path, options: &StoreOptions) -> Result<Self, HistoryError> {
        let failed = |source| match source {
            fjall::Error::Locked => HistoryError::InUse(path.to_owned()),
            source => HistoryError::Store { path: path.to_owned(), source },
        };
        let open = || {
            let builder = Database::builder(path)
                .cache_size(CACHE_BYTES)
                .max_journaling_size(JOURNAL_BYTES)
                // A batch is in the journal whole, and batches stand in order: what a crash leaves is a beginning of the stream.
                .manual_journal_persist(true)
                .worker_threads(1);
            builder.open()
        };
        let database = match open() {
            Err(torn @ fjall::Error::JournalRecovery(_)) => match journal::cut(path) {
                Ok(Some(at)) => {
                    tracing::warn!(path = %path.display(), at, "a crash has torn the history's log: it goes on before that");
                    open()
                }
                _ => Err(torn),
            },
            opened => opened,
        };
        let database = database.map_err(failed)?;
        let table =
            |name: &str, options: KeyspaceCreateOptions| database.keyspace(name, || options).map_err(failed);
        let kept = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(FILE_BYTES)))
        };
        // Nobody looks in them for what may not be there: they are read in order, or at a key that another table names. So a filter would
        // save no reading, and takes a byte and a quarter of each key.
        let ordered = || kept().filter_policy(FilterPolicy::disabled());
        let long_packs = || {
            let sizes = BlockSizePolicy::all(POSTINGS_BYTES);
            let starts = RestartIntervalPolicy::all(POSTINGS_WHOLE_EVERY);
            ordered().data_block_size_policy(sizes).data_block_restart_interval_policy(starts)
        };
        let packed_already = || ordered().data_block_compression_policy(CompressionPolicy::disabled());
        Ok(Self {
            meta: table("meta", kept())?,
            blocks: table("blocks", packed_already())?,
            zones: table("zones", ordered())?,
            postings: table("postings", long_packs())?,
            locks: table("locks", kept())?,
            open: table("open", ordered())?,
            stakes: table("stakes", ordered())?,
            merchants: table("merchants", kept())?,
            partitions: table("partitions", kept())?,
            database,
        })
    }

    /// What is noted; none of a store that was just made.
    fn identity(&self, path: &Path) -> Result<Option<Identity>, HistoryError> {
        let failed = |source| HistoryError::Store { path: path.to_owned(), source };
        let read = |name: &str| self.meta.get(name).map_err(failed);
        let damaged = |at| HistoryError::Damaged { what: "the note of whose it is", shard: ShardId(0), at };
        let Some(format) = read("format")? else {
            return if read("engine")?.is_none() { Ok(None) } else { Err(damaged(0)) };
        };
        match number(&format).ok_or_else(|| damaged(1))? {
            // A newer format may note other things, and an older one did.
            found if found > FORMAT => {
                Err(HistoryError::Newer { path: path.to_owned(), found, known: FORMAT })
            }
            found if found < FORMAT => {
                Err(HistoryError::Older { path: path.to_owned(), found, known: FORMAT })
            }
            _ => {
                let (engine, rows, key) = (read("engine")?, read("rows")?, read("key")?);
                let engine = engine.and_then(|bytes| Some(u128::from_le_bytes(*bytes.first_chunk()?)));
                Ok(Some(Identity {
                    engine: engine.map(EngineId).ok_or_else(|| damaged(2))?,
                    rows: rows.as_deref().and_then(number).ok_or_else(|| damaged(3))?,
                    key: key.and_then(|bytes| bytes.first_chunk().copied()).ok_or_else(|| damaged(4))?,
                }))
            }
        }
    }

    fn begin(&self, path: &Path, engine: EngineId, rows: u16) -> Result<Identity, HistoryError> {
        let failed = |source| HistoryError::Store { path: path.to_owned(), source };
        let key = random()?;
        let mut batch = self.database.batch();
        batch.insert(&self.meta, *b"format", FORMAT.to_le_bytes());
        batch.insert(&self.meta, *b"engine", engine.0.to_le_bytes());
        batch.insert(&self.meta, *b"rows", rows.to_le_bytes());
        batch.insert(&self.meta, *b"key", key);
        batch.commit().map_err(failed)?;
        self.database.persist(PersistMode::SyncAll).map_err(failed)?;
        Ok(Identity { engine, rows, key })
    }
}

/// What a store notes of itself when it is begun.
struct Identity {
    engine: EngineId,
    /// Records of a block.
    rows: u16,
    /// Of its cursors.
    key: [u8; KEY_BYTES],
}

fn number(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

/// A change of all tables, which happens whole or not at all.
pub(crate) struct Change<'a> {
    store: &'a Store,
    batch: OwnedWriteBatch,
}

impl Change<'_> {
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.batch.insert(self.store.table(table), key, value);
    }

    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) {
        self.batch.remove(self.store.table(table), key);
    }

    /// Makes it, together with the position that it leads to.
    pub(crate) fn commit(mut self, shard: ShardId, position: &Position) -> Result<(), HistoryError> {
        self.batch.insert(&self.store.inner.tables.meta, keys::position(shard), position.encode());
        // With the operating system at once: a kill takes nothing back.
        self.batch.durability(Some(PersistMode::Buffer)).commit().map_err(|source| self.store.failed(source))
    }
}

/// The tables as of a moment.
#[derive(Clone)]
pub(crate) struct View {
    store: Store,
    snapshot: Snapshot,
}

impl View {
    pub(crate) fn blocks(&self) -> Blocks {
        self.store.blocks()
    }

    pub(crate) fn position(&self, shard: ShardId) -> Result<Option<Position>, HistoryError> {
        let found = self.snapshot.get(&self.store.inner.tables.meta, keys::position(shard));
        let Some(bytes) = found.map_err(|source| self.store.failed(source))? else { return Ok(None) };
        let damaged = HistoryError::Damaged { what: "the position", shard, at: 0 };
        Position::decode(&bytes).map(Some).ok_or(damaged)
    }

    /// How many shards the engine has; 0 if nobody has said so.
    pub(crate) fn shards_noted(&self) -> Result<u16, HistoryError> {
        let found = self.snapshot.get(&self.store.inner.tables.meta, "shards");
        let Some(bytes) = found.map_err(|source| self.store.failed(source))? else { return Ok(0) };
        let damaged = HistoryError::Damaged { what: "the number of shards", shard: ShardId(0), at: 0 };
        number(&bytes).ok_or(damaged)
    }

    /// Shards that have a position, by number.
    pub(crate) fn shards(&self) -> Result<Vec<ShardId>, HistoryError> {
        let mut shards = Vec::new();
        for item in self.snapshot.prefix(&self.store.inner.tables.meta, b"p") {
            let key = item.key().map_err(|source| self.store.failed(source))?;
            if let [b'p', high, low] = *key {
                shards.push(ShardId(u16::from_be_bytes([high, low])));
            }
        }
        Ok(shards)
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<fjall::Slice>, HistoryError> {
        self.snapshot.get(self.store.table(table), key).map_err(|source| self.store.failed(source))
    }

    /// The first key of a range, from its beginning or from its end.
    pub(crate) fn first_key(
        &self,
        table: Table,
        range: core::ops::RangeInclusive<Vec<u8>>,
        from_end: bool,
    ) -> Result<Option<fjall::Slice>, HistoryError> {
        let mut items = self.snapshot.range(self.store.table(table), range);
        let item = if from_end { items.next_back() } else { items.next() };
        item.map(fjall::Guard::key).transpose().map_err(|source| self.store.failed(source))
    }

    /// What lies in a range, in the order of keys.
    pub(crate) fn range(
        &self,
        table: Table,
        range: impl core::ops::RangeBounds<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<(fjall::Slice, fjall::Slice), HistoryError>> + '_ {
        let items = self.snapshot.range(self.store.table(table), range);
        items.map(|item| item.into_inner().map_err(|source| self.store.failed(source)))
    }

    pub(crate) fn block(
        &self,
        shard: ShardId,
        number: BlockNumber,
    ) -> Result<Option<Vec<Row>>, HistoryError> {
        let Some(bytes) = self.get(Table::Blocks, &keys::block(shard, number))? else { return Ok(None) };
        let damaged = HistoryError::Damaged { what: "a block", shard, at: number.0 };
        let rows = codec::decode_block(shard, &bytes).ok_or(damaged)?;
        Ok(Some(rows))
    }

    pub(crate) fn zone(&self, shard: ShardId, number: BlockNumber) -> Result<Option<Zone>, HistoryError> {
        let Some(bytes) = self.get(Table::Zones, &keys::block(shard, number))? else { return Ok(None) };
        let damaged = HistoryError::Damaged { what: "a zone", shard, at: number.0 };
        Zone::decode(&bytes).map(Some).ok_or(damaged)
    }

    pub(crate) fn lock(&self, key: &LockKey) -> Result<Option<Lock>, HistoryError> {
        let Some(bytes) = self.get(Table::Locks, &keys::lock(key))? else { return Ok(None) };
        read_lock(key, &bytes).map(Some)
    }

    /// The lock that a record made and that another has taken the place of.
    pub(crate) fn replaced_lock(&self, key: &LockKey, made: Seq) -> Result<Option<Lock>, HistoryError> {
        let Some(bytes) = self.get(Table::Locks, &keys::replaced_lock(key, made))? else { return Ok(None) };
        read_lock(key, &bytes).map(Some)
    }

    /// What there is of a merchant's locks in a shard.
    pub(crate) fn merchant(
        &self,
        shard: ShardId,
        tenant: TenantId,
        merchant: MerchantId,
    ) -> Result<MerchantTotals, HistoryError> {
        let found = self.get(Table::Merchants, &keys::merchant(shard, tenant, merchant))?;
        read_merchant(shard, merchant, found.as_deref())
    }

    /// A partition's money; none if there is no such partition.
    pub(crate) fn partition(&self, partition: PartitionHandle) -> Result<Option<Balances>, HistoryError> {
        let Some(bytes) = self.get(Table::Partitions, &keys::partition(partition))? else { return Ok(None) };
        let shard = partition.shard();
        let damaged = HistoryError::Damaged { what: "the money of partition", shard, at: partition.0 };
        codec::decode_money(&bytes).map(Some).ok_or(damaged)
    }
}

fn read_merchant(
    shard: ShardId,
    merchant: MerchantId,
    found: Option<&[u8]>,
) -> Result<MerchantTotals, HistoryError> {
    let damaged = HistoryError::Damaged { what: "the totals of merchant", shard, at: merchant.0 };
    found.map_or(Ok(MerchantTotals::default()), |bytes| codec::decode_merchant(bytes).ok_or(damaged))
}

fn read_lock(key: &LockKey, bytes: &[u8]) -> Result<Lock, HistoryError> {
    let damaged = HistoryError::Damaged { what: "a lock", shard: key.partition.shard(), at: 0 };
    codec::decode_lock(*key, bytes).ok_or(damaged)
}

/// Refuses who is not the directory's owner: what the store writes on the way would be another user's.
fn check_owner(directory: &Path) -> Result<(), HistoryError> {
    let failed = |source| HistoryError::Io { doing: format!("looking at {}", directory.display()), source };
    let owner = std::fs::metadata(directory).map_err(failed)?.uid();
    let own = rustix::process::geteuid().as_raw();
    if own == owner { Ok(()) } else { Err(HistoryError::Owner { path: directory.to_owned(), owner, own }) }
}
