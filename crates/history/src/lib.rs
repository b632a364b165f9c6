//! An index of everything that happened, fed by the durable change stream and asked by any combination of predicates.
//!
//! It never is the truth: nothing in the engine reads it, and it can be made again from log and archive at any time. The money rules
//! are not told twice: an [`Indexer`] replays each record with the ledger's own code and keeps what the ledger then says.
//!
//! ```text
//! change stream -> replica of the ledger -> rows in blocks, postings, locks -> Reader
//! ```
//!
//! What an answer holds is decided by [`Predicate::holds`] on each row alone. Postings and zones only leave out blocks in which no row
//! can be meant.
#![doc = include_str!("../FORMAT.md")]
#![forbid(unsafe_code)]

mod answer;
mod ask;
mod asker;
mod bytes;
mod codec;
mod cursor;
mod effect;
mod error;
mod feed;
mod frames;
mod held;
mod horizon;
mod indexer;
mod journal;
mod keys;
mod plan;
mod query;
mod reader;
mod rebuild;
mod replica;
mod row;
mod seal;
mod service;
mod statement;
mod statement_text;
mod store;
mod tell;
mod walk;

pub use answer::{Fault, answer, refusal, told};
pub use ask::{
    Ask, AskError, ByName, Conditions, Nothing, OfLock, OfMoment, OfPeriod, OrderName, Question, code, kind,
    state,
};
pub use asker::{Asker, AskerError, read_answer};
pub use codec::Position;
pub use cursor::{Cursor, OpenCursor, StatementCursor};
pub use error::{HistoryError, QueryError};
pub use feed::{Dial, History, Settings};
pub use frames::{ANSWER_BYTES_MAX, QUESTION_BYTES_MAX, bind, socket, unbind};
pub use horizon::Horizon;
pub use indexer::Indexer;
pub use keys::OpenBy;
pub use query::{Order, PAGE_ROWS_MAX, PREDICATES_MAX, Page, Predicate, Query};
pub use reader::{AsOf, Reader, Scope};
pub use rebuild::{Rebuilt, rebuild};
pub use row::{Balances, Lock, LockAfter, LockKey, MerchantTotals, Named, Row, Stake};
pub use service::{Answerer, CONNECTIONS_MAX, serve};
pub use statement::{Account, Line, StatementPage, StatementQuery};
pub use store::{MEMORY_BYTES, NoRoom, Store, StoreOptions};
pub use tell::{ShardStatus, State, Status};

use std::path::{Path, PathBuf};

/// Where the index of a data directory is.
#[must_use]
pub fn place(data: &Path) -> PathBuf {
    data.join("history")
}
