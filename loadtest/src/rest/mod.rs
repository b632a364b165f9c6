//! Payments as an application makes them: over HTTP, at a REST front door.
//!
//! The steps of a scenario become the door's requests, each under a key of its own. What is not answered is said again under
//! the same key, as the door's guide asks for; latency counts from the intended start, repeats included.

mod answer;
mod asset;
mod door;
mod money;
mod pay;

pub(crate) use answer::Asked;
pub use asset::{Asset, AssetError};
pub use door::{Door, DoorError, DoorOptions, DoorTls};
pub(crate) use money::{Marks, Measure, check};
pub(crate) use pay::pay;

use crate::scenario::Scenario;
use crate::step::Action;

/// A step that a front door does not offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "scenario {scenario}: `{step}` cannot be said at a REST front door; run it over quic, or leave the step out"
)]
pub struct Unsaid {
    /// Which scenario.
    pub scenario: String,
    /// What its file calls the step.
    pub step: &'static str,
}

/// Whether every step can be said.
///
/// # Errors
/// The first that cannot.
pub(crate) fn can_say(scenario: &Scenario) -> Result<(), Unsaid> {
    let is_advice = |action: Action| matches!(action, Action::Advise { .. });
    match scenario.steps.iter().any(|step| is_advice(step.action)) {
        true => Err(Unsaid { scenario: scenario.name.clone(), step: "advise" }),
        false => Ok(()),
    }
}
