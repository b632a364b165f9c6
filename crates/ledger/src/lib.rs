//! Money rules of one shard.
