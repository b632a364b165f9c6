//! The load generator: scenarios, open and closed loops, latency from the intended start, acknowledgements on file and the
//! check that every one of them is in the log.
//!
//! [`run`] drives any [`surety_client::Client`], whatever its transport, or what stands at a front door ([`Front`]); [`check()`] reads the closed data directory.
#![forbid(unsafe_code)]

mod acks;
mod alarm;
mod check;
mod comparison;
mod distribution;
mod door_check;
mod door_faults;
mod door_request;
mod front;
mod hlog;
mod inject;
mod interval;
pub mod iso;
mod knee;
pub mod machine;
mod making;
mod merge;
mod money;
mod page;
mod payment;
pub mod plot;
mod progress;
mod random;
mod recorder;
mod report;
pub mod rest;
mod run;
mod scenario;
mod schedule;
mod setup;
mod share;
mod spread;
mod step;

pub use acks::{AcksError, parse_acks, read_acks};
pub use check::{CheckError, CheckReport, Fault, check};
pub use comparison::{Comparison, Row, compare};
pub use distribution::{Distribution, DistributionError};
pub use front::{Front, Unsaid};
pub use hlog::HlogError;
pub use inject::{Faulty, Injected, Injection, InjectionError};
pub use interval::Interval;
pub use knee::{Knee, Search, Step as KneeStep, find_knee};
pub use merge::{MergeError, Merging, merge, were_made_together};
pub use money::MoneyCheck;
pub use progress::{OnSecond, Progress};
pub use recorder::RecordError;
pub use report::Report;
pub use run::{Clients, LoadError, Options, prepare_with, run, watch_machine};
pub use scenario::{Scenario, ScenarioError, Terms};
pub use schedule::{Pace, Rate, RateError, Schedule};
pub use setup::SetupError;
pub use share::Share;
pub use spread::Spread;
pub use step::{Action, Step};
