//! What messages ask of an engine, and what they are answered.
//!
//! [`Intent::read`] turns a message into what it means; [`Work`] turns that into requests, one after another, until there is an
//! [`Outcome`]; [`answer`] and [`refuse`] turn that into the reply. Nothing here remembers anything: all ids come from what
//! the message itself carries, so that a repeat, also one after a restart, asks for the same and is answered the same.
//! `MAPPING.md` has the tables.
#![doc = include_str!("../../MAPPING.md")]

mod answer;
mod calendar;
mod codes;
mod ids;
mod intent;
mod originals;
mod reconcile;
mod rules;
mod totals;
mod work;

pub use answer::{answer, approval_code, refuse};
pub use calendar::{Day, sent_at};
pub use codes::{EdgeCode, Refusal, edge_code};
pub use ids::{Handle, Keys};
pub use intent::{Ask, Intent, Named, Network, Original};
pub use originals::Originals;
pub use reconcile::{Figures, Statement, reconciled};
pub use rules::{Currency, IdKey, Mark, Partitions, ROUTE_MAX, Rounding, Route, Rules, Scale};
pub use totals::Totals;
pub use work::{Outcome, Place, Step, Verdict, Work};
