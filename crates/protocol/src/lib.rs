//! The vocabulary of Surety and its bytes: ids, amounts, requests, replies, frames, and every limit.
//!
//! A request is 128 bytes on the wire, and the same 128 bytes, completed with their outcome, are its record in the log and
//! its item in the change stream. [`Record`] is that; [`Kind`] says what it asks; [`Reply`] is the answer; [`FrameHeader`]
//! wraps many of either. Byte tables, and all that is needed to write a client in another language, are in `WIRE.md`.
//!
//! This crate is pure: no clock, no file, no socket, no randomness.
#![doc = include_str!("../WIRE.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod archive;
mod code;
mod frame;
mod hello;
mod ids;
mod kind;
pub mod limits;
pub mod long;
mod operation;
mod policy;
mod query;
mod record;
mod release_group;
mod reply;
mod sabotage;
mod state;
mod tail;
mod token;
pub mod trace;

pub use code::{Code, CodeClass, End};
pub use frame::{CloseCode, FrameError, FrameHeader, FrameKind};
pub use hello::{
    ALPN, CURSORS_HAVE_EPOCHS, HELLO_BYTES, HELLO_MAGIC, HELLO_REPLY_BYTES, Hello, HelloReply,
    PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, QUOTAS_HAVE_CODES, shard_map,
};
pub use ids::{
    ActorId, Address, Amount, AssetId, EngineId, Epoch, Id, MerchantId, PartitionHandle, QuoteId, Seq,
    ShardId, TenantId, Time,
};
pub use kind::{Flags, Kind, Origin, Rights, Roles};
pub use operation::{Caller, Operations, Sight, admit};
pub use policy::{CategoryRule, POLICY_BYTES, Policy, ReleaseRule, SettleByAction};
pub use query::{
    ANSWER_HEAD_BYTES, AnswerHead, QUERY_HEAD_BYTES, QUERY_PART_BYTES_MAX, QUERY_VERSION, QueryHead,
    QueryRefusal, read_answer, read_query, write_answer, write_query,
};
pub use record::{
    ALL_CAPTURES, ArchivedRecord, Body, ChangeBody, ConsumeBody, ControlBody, GrantBody, LockBody, LossBody,
    MerchantBody, PartitionBody, PriceBody, Record, RecordError, Request, StakeBody, TenantBody,
};
pub use release_group::{ReleaseEntry, ReleaseGroup, ReleaseGroupError};
pub use reply::{MerchantKey, REPLAYED, Reply, UNRECONCILED};
#[cfg(sabotage)]
pub use sabotage::is_sabotaged;
pub use state::{
    PartitionRow, STATE_HEAD_BYTES, STATE_QUERY_BYTES, StateHead, StateKind, StateQuery, StateRow,
    SupplierRow, TenantRow, WithdrawalRow, read_state_page,
};
pub use tail::{Cursor, SUBSCRIBE_BYTES, Subscribe, TAIL_HEAD_BYTES, TailHead, TailStatus};
pub use token::Token;

/// The README's example, run by the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
