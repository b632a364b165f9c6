//! The chain side of settlement: the contracts, typed bindings to them, and chains that run them.
//!
//! `contracts/` holds the Solidity sources and what they compile to; [`artifacts`] carries the bytes, [`bindings`] the types.
//! A settler needs little of a chain: [`Backend`] says what, and [`RpcChain`] asks a node for it. [`DevChain`] is a whole chain
//! in process, with the pool rules of a real node, so that a fresh machine needs none. [`flexa`] reads
//! the collateral manager that is deployed today.

pub mod artifacts;
pub mod bindings;
pub mod flexa;

mod backend;
mod deploy;
mod devchain;
mod json_rpc;
mod key;
mod rpc;
mod second_opinion;
mod transaction;

pub use backend::{
    At, Backend, BackendError, Block, Call, CallError, LogFilter, LoggedEvent, Receipt, SendError, Tag,
};
pub use deploy::{DEV_LIFE, DeployError, Deployment, Setup, Terms, deploy_all, send_and_mine};
pub use devchain::{DevChain, DevConfig, INTERFACE_REGISTRY, TooDeep};
pub use json_rpc::{JsonRpc, Refusal, RpcError};
pub use key::{DigestSigner, KeyError, LocalKey, complete_signature, password_from_file, signer_of};
pub use rpc::RpcChain;
pub use second_opinion::SecondOpinion;
pub use transaction::{SignedTransaction, Transaction, TransactionError};
