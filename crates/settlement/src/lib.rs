//! Carrying net changes to the chain: what is netted, proven, signed, sent, and when it is safe.
//!
//! This crate is pure: no clock, no file, no socket, no randomness. `FORMAT.md` has the bytes.
#![doc = include_str!("../FORMAT.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod batch;
mod book;
mod bytes;
mod certificate;
mod data;
mod hash;
mod kept;
mod leaf;
pub mod life;
mod money;
mod netting;
mod release;
mod sealer;
mod statement;
mod tree;
mod trees;
mod typed_data;

pub use batch::{Batch, Positions, Roots};
pub use book::{Book, Released, Unstated};
pub use certificate::{Certificate, CertifiedLock, GroupSize, LOCK_GROUP_MAX, LOCK_PATH_MAX, LockGroup};
pub use data::{BatchData, DataError};
pub use hash::{Hash, NO_HASH, Word, keccak};
pub use kept::KeptLock;
pub use leaf::{ConsumedLeaf, LockId, PartitionLeaf, PayeeLeaf, Sums, SupplierLeaf, loss_reference};
pub use money::Money;
pub use netting::{Answers, Netting, NettingConfig, NettingError, Stake};
pub use release::{release_leaf, release_node, release_root};
pub use sealer::{Sealed, Sealer, SnapshotError};
pub use statement::{StakeEvent, Statement, StatementLine, StatementSum};
pub use tree::{Node, PlainTree, SumNode, SumTree, Tree, plain_root, sum_root};
pub use trees::{Proof, SumProof, Trees};
pub use typed_data::Domain;
