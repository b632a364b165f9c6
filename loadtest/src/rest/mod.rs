//! Payments as an application makes them: over HTTP, at a REST front door.
//!
//! The steps of a scenario become the door's requests, each under a key of its own. What is not answered is said again under
//! the same key, as the door's guide asks for; latency counts from the intended start, repeats included.

mod answer;
mod asset;
mod door;
mod pay;

pub use asset::{Asset, AssetError};
pub(crate) use door::connector;
pub use door::{Door, DoorError, DoorOptions, DoorTls};
pub(crate) use pay::pay;

use crate::front::Unsaid;
use crate::scenario::Scenario;
use crate::step::Action;

/// Whether every step can be said.
///
/// # Errors
/// The first that cannot.
pub(crate) fn can_say(scenario: &Scenario) -> Result<(), Unsaid> {
    let is_advice = |action: Action| matches!(action, Action::Advise { .. });
    match scenario.steps.iter().any(|step| is_advice(step.action)) {
        true => {
            let scenario = scenario.name.clone();
            Err(Unsaid { scenario, step: "advise", door: "a REST front door" })
        }
        false => Ok(()),
    }
}
