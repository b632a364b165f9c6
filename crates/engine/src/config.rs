//! What an engine is told once, at its start.

use surety_protocol::{EngineId, ShardId, Time, limits};
pub use wal::Durability;

/// Configuration of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The data directory's engine.
    pub engine: EngineId,
    /// Which shard of it.
    pub shard: ShardId,
    /// When a reply may leave.
    pub durability: Durability,
    /// Prove the last block by a second file, at the price of a second sync.
    pub guard: bool,
    /// Length of a log segment in bytes.
    pub segment_bytes: u64,
    /// How old an id may be.
    pub id_window: Time,
    /// Ids remembered.
    pub ids_max: usize,
    /// Locks kept, open and finished.
    pub locks_max: usize,
    /// Keys the ledger's index of ids; changes no outcome. A random number, for each start another.
    pub index_secret: u64,
    /// Records between two state hashes in the log.
    pub checkpoint_records: u64,
    /// Idle time after which the last block is sealed.
    pub seal_idle: Time,
    /// Idle time after which a state hash is logged for its moment alone: whoever reads the log then knows that nothing came before it, and
    /// no start of a clock that was set back can begin earlier.
    pub checkpoint_idle: Time,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub const fn new(engine: EngineId, shard: ShardId) -> Self {
        Self {
            engine,
            shard,
            durability: Durability::Fsync,
            guard: false,
            segment_bytes: 64 << 20,
            id_window: limits::ID_WINDOW_DEFAULT,
            ids_max: limits::IDS_PER_SHARD_MAX,
            locks_max: limits::LOCKS_PER_SHARD_MAX,
            index_secret: 0,
            checkpoint_records: 1 << 16,
            seal_idle: Time::from_millis(200),
            checkpoint_idle: Time::from_secs(300),
        }
    }

    /// The part that the log checks.
    #[must_use]
    pub const fn identity(&self) -> wal::Identity {
        wal::Identity { engine: self.engine, shard: self.shard }
    }

    /// The part that the ledger needs.
    #[must_use]
    pub const fn ledger(&self) -> ledger::Config {
        ledger::Config {
            shard: self.shard,
            id_window: self.id_window,
            ids_max: self.ids_max,
            locks_max: self.locks_max,
            index_secret: self.index_secret,
        }
    }
}
