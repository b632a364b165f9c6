//! Shard threads and listeners.
