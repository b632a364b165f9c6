//! Every limit of the wire, the ledger and the log, in one place, tied together at compile time.
//!
//! A limit that a peer can run into has a [`crate::Code`] or a [`crate::CloseCode`]; none of them ever turns into a
//! stall or into growth without bound.

use crate::Time;

/// Bytes of a request, of a log record and of a reply.
pub const RECORD_BYTES: usize = 128;
/// Bytes of the kind-specific part of a record.
pub const BODY_BYTES: usize = 56;
/// Bytes of payload in one continuation record.
pub const CONTINUATION_BYTES: usize = 120;
/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Bytes of a rollback token.
pub const TOKEN_BYTES: usize = 48;
/// Records in one frame.
pub const FRAME_RECORDS_MAX: usize = 1024;
/// Bytes of a frame's body, the largest being a full reply frame with its token.
pub const FRAME_BODY_BYTES_MAX: usize = FRAME_RECORDS_MAX * RECORD_BYTES + TOKEN_BYTES;
/// Bytes of a question to the history.
pub const QUERY_BYTES_MAX: usize = 64 << 10;
/// Bytes of an answer of the history.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Unanswered questions to the history on one connection; past it they are answered `BUSY`.
pub const CONNECTION_QUERIES_MAX: usize = 4;
/// Unanswered requests on one connection; past it requests are answered `OVERLOADED`.
pub const CONNECTION_IN_FLIGHT_MAX: usize = 16 * 1024;
/// Records of one long operation: its head and its continuations.
pub const LONG_RECORDS_MAX: usize = 128;
/// Requests of one linked chain.
pub const CHAIN_MAX: usize = 64;
/// Records in one block of the log: at most 256 KiB with the header.
pub const BLOCK_RECORDS_MAX: usize = 2046;
/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 256;
/// Blocks are padded to this many bytes.
pub const BLOCK_ALIGN: usize = 4096;
/// Bytes of the largest block.
pub const BLOCK_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a preallocated segment of the log.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Segments kept in reserve; below this new locks are declined with `STORAGE_LOW`.
pub const SEGMENTS_RESERVE: usize = 2;
/// Full blocks that may wait behind the one in flight; past it requests are answered `OVERLOADED`.
pub const BLOCKS_QUEUED_MAX: usize = 8;
/// Slots of the guard ring.
pub const GUARD_SLOTS: u64 = 8;
/// Snapshots kept.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Bytes of one entry of a snapshot.
pub const SNAPSHOT_ENTRY_BYTES_MAX: usize = u16::MAX as usize;
/// Expiries and other time-driven records logged in one turn.
pub const DUE_RECORDS_PER_TURN_MAX: usize = 1024;
/// Shards of one engine.
pub const SHARDS_MAX: usize = 256;
/// Captures of one lock.
pub const CAPTURES_PER_LOCK_MAX: usize = 16;
/// Losses that one shard may live on after. What has to leap over lost lives leaps once for each, and has room for so many.
pub const LOSSES_MAX: usize = 3;
/// How far the versions of all locks leap at a loss: further than a lock that is kept can have changed in the life that is lost,
/// unless it changed 16,384 times.
pub const VERSION_LEAP: u16 = 1 << 14;
/// How far the epoch leaps at least at a loss: more starts than the life that is lost can have made.
pub const EPOCH_LEAP: u32 = 1 << 16;
/// Amounts are below this: 2^104 base units, 200 times the supply of AMP, which leaves room for sums and units.
pub const AMOUNT_MAX: u128 = (1 << 104) - 1;
/// Units that one withdrawal may name: suppliers get 10^6 units for each base unit while nothing has been lost, so units
/// need more room than amounts.
pub const UNITS_MAX: u128 = AMOUNT_MAX << 20;
/// Prices are below this (fixed point, 1e18).
pub const PRICE_MAX: u128 = (1 << 104) - 1;
/// Over-capture and headroom rules of one policy, one per merchant category.
pub const CATEGORY_RULES_MAX: usize = 16;
/// Rollback tokens in one hello.
pub const HELLO_TOKENS_MAX: usize = SHARDS_MAX;
/// Entries of one merchant-signed group release.
pub const RELEASE_GROUP_ENTRIES_MAX: usize = 32;
/// Hashes of one path in a group release: groups of up to 256 locks.
pub const RELEASE_GROUP_PATH_MAX: usize = 8;
/// Bytes of the largest group release: its head, and entries of 40 bytes with a full path each.
pub const RELEASE_GROUP_BYTES_MAX: usize =
    120 + RELEASE_GROUP_ENTRIES_MAX * (40 + 32 * RELEASE_GROUP_PATH_MAX);
/// An id is accepted up to this long after its time, unless the shard is configured otherwise.
pub const ID_WINDOW_DEFAULT: Time = Time::from_secs(120);
/// No shard is configured to accept an id later than this after its time. Who reads a stream may count on it.
pub const ID_WINDOW_MAX: Time = Time::from_secs(24 * 3600);
/// An id is accepted up to this long before its time.
pub const ID_FUTURE_MAX: Time = Time::from_secs(5);
/// Advices and reversals are accepted and remembered this long.
pub const ADVICE_WINDOW: Time = Time::from_secs(7 * 24 * 3600);
/// The longest life that a policy may grant a lock.
pub const LIFE_MAX: Time = Time::from_secs(400 * 24 * 3600);
/// Ids remembered by one shard; a full table answers `OVERLOADED`.
pub const IDS_PER_SHARD_MAX: usize = 64 << 20;
/// Locks kept by one shard, open and finished; a full table answers `OVERLOADED`.
pub const LOCKS_PER_SHARD_MAX: usize = 128 << 20;
/// Partitions of one shard.
pub const PARTITIONS_PER_SHARD_MAX: usize = 1 << 20;
/// Withdrawals queued in one partition.
pub const WITHDRAWALS_QUEUED_MAX: usize = 1 << 16;

const _: () = {
    assert!(BLOCK_HEADER_BYTES + BLOCK_RECORDS_MAX * RECORD_BYTES <= BLOCK_BYTES_MAX);
    assert!(BLOCK_BYTES_MAX.is_multiple_of(BLOCK_ALIGN));
    assert!(SEGMENT_BYTES.is_multiple_of(BLOCK_ALIGN as u64) && SEGMENT_BYTES >= 2 * BLOCK_BYTES_MAX as u64);
    assert!(BLOCK_HEADER_BYTES.is_multiple_of(RECORD_BYTES));
    // A turn of expiries, a chain and a long operation each fit into one block.
    assert!(DUE_RECORDS_PER_TURN_MAX < BLOCK_RECORDS_MAX);
    assert!(CHAIN_MAX <= FRAME_RECORDS_MAX && CHAIN_MAX <= BLOCK_RECORDS_MAX);
    assert!(LONG_RECORDS_MAX <= FRAME_RECORDS_MAX && LONG_RECORDS_MAX <= BLOCK_RECORDS_MAX);
    // A full frame fits into one stream window of 256 KiB.
    assert!(FRAME_BODY_BYTES_MAX + FRAME_HEADER_BYTES <= 256 * 1024);
    assert!(HELLO_TOKENS_MAX * TOKEN_BYTES <= FRAME_BODY_BYTES_MAX);
    // A question that is too long still fits into a frame, and is answered.
    assert!(QUERY_BYTES_MAX < FRAME_RECORDS_MAX * RECORD_BYTES);
    // What leaps for the last time is still told from what leapt before it.
    assert!((LOSSES_MAX + 1) * VERSION_LEAP as usize <= 1 << 16);
    // Each loss takes the captures' indices of one life; the last byte means none.
    assert!(CAPTURES_PER_LOCK_MAX * (LOSSES_MAX + 1) < u8::MAX as usize);
    assert!(ADVICE_WINDOW.0 >= ID_WINDOW_MAX.0, "a loss reaches back as far as any id is accepted");
    // Sums of a million amounts, and units a million times an amount, stay below u128.
    assert!(AMOUNT_MAX.checked_mul(1 << 20).is_some() && UNITS_MAX >> 20 == AMOUNT_MAX);
    // The largest group of signed releases fits into one long operation.
    assert!(RELEASE_GROUP_BYTES_MAX <= (LONG_RECORDS_MAX - 1) * CONTINUATION_BYTES);
    assert!(IDS_PER_SHARD_MAX < 1 << 31 && LOCKS_PER_SHARD_MAX < 1 << 31);
};
