//! The settler: carries an engine's net changes to the chain, and the chain's facts to the engine.
//!
//! A loop around one pure function of `settlement`: [`Settler::turn`] reads what the engine's change stream has, looks at the
//! chain at one block, asks `next_action` what to do, does that, and appends what came of it to a log of its own before
//! anything follows from it. After a crash, at whichever point, it goes on from that log, a snapshot and the stream.
//! `FORMAT.md` has the bytes of its directory, `RUNBOOK.md` what to do when it stops.
#![doc = include_str!("../FORMAT.md")]
#![forbid(unsafe_code)]

mod answer;
mod batch_file;
mod batches;
mod certificate;
mod certifier;
mod chain_facts;
mod codec;
mod config;
mod contract;
mod deploy;
mod durable;
mod engine;
mod error;
mod exits;
mod facts;
mod figures;
mod fold;
mod guarantees;
mod journal;
mod look;
mod note;
mod once;
mod points;
mod proofs;
mod recovery;
mod scan;
mod settler;
mod sign;
mod snapshot;
mod spending;
mod stream;

pub use batch_file::{BatchFile, BatchFileError, BatchStake, BatchesError};
pub use batches::{BATCHES_KEPT, BatchLife, Stage};
pub use certificate::{CertificateError, CertificateFile, Standing};
pub use certifier::{
    Certifier, CertifierConfig, CertifierTurn, Counter, Desk, Extent, Gap, Mark, Missed, Restored, Shelf,
    ShelfError,
};
pub use codec::Damaged;
pub use config::Config;
pub use contract::{Place, batch_of};
pub use deploy::{DeployFailure, Deployed, Token, deploy};
pub use error::{NotAnswered, NotCredited, Notice, SettlerError};
pub use figures::{Figures, Seen, Sending};
pub use fold::Folded;
pub use journal::{Head, Journal, JournalError, LOG_FILE, Scan};
pub use note::{Note, NoteError};
pub use points::{Point, Witness};
pub use proofs::Published;
pub use scan::{ExitAsked, PaidOnChain, Supply};
pub use settler::{Report, Settler};
pub use stream::StreamError;
