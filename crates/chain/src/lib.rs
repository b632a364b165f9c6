//! The chain side of settlement: the contracts, typed bindings to them, and chains that run them.
//!
//! `contracts/` holds the Solidity sources and what they compile to; [`artifacts`] carries the bytes, [`bindings`] the types.
//! A settler needs little of a chain: [`Backend`] says what. [`DevChain`] is a whole chain in process, with the pool rules of
//! a real node, so that a fresh machine needs none. [`flexa`] reads the collateral manager that is deployed today.

pub mod artifacts;
pub mod bindings;
pub mod flexa;

mod backend;
mod deploy;
mod devchain;
mod key;
mod transaction;

pub use backend::{
    At, Backend, BackendError, Block, Call, CallError, LogFilter, LoggedEvent, Receipt, SendError, Tag,
};
pub use deploy::{DEV_LIFE, DeployError, Deployment, Setup, Terms, deploy_all, send_and_mine};
pub use devchain::{DevChain, DevConfig, INTERFACE_REGISTRY, TooDeep};
pub use key::{DigestSigner, KeyError, LocalKey};
pub use transaction::{SignedTransaction, Transaction, TransactionError};
