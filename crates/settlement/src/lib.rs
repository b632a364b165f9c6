//! Carrying net changes to the chain: what is netted, proven, signed, sent, and when it is safe.
//!
//! This crate is pure: no clock, no file, no socket, no randomness. `FORMAT.md` has the bytes.
#![doc = include_str!("../FORMAT.md")]
#![no_std]
#![forbid(unsafe_code)]

mod hash;
mod leaf;

pub use hash::{Hash, NO_HASH, Word, keccak};
pub use leaf::{ConsumedLeaf, LockId, PartitionLeaf, PayeeLeaf, Sums, SupplierLeaf};
