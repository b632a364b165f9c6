//! The front doors that payments can be made at.

use std::sync::Arc;

use iso8583::Dialect;

use crate::door_faults::DoorFaults;
use crate::iso::{self, Host};
use crate::rest::{self, Door};
use crate::scenario::Scenario;

/// Where payments go instead of the engine's own links.
#[derive(Clone, Debug)]
pub enum Front {
    /// A REST front door, as an application sees it.
    Rest(Arc<Door>),
    /// A link over ISO 8583, as an acquirer's host sees it.
    Iso(Arc<Host>),
}

/// Something that cannot be said at a front door.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scenario {scenario}: `{step}` cannot be said at {door}; run it over quic, or change the scenario")]
pub struct Unsaid {
    /// Which scenario.
    pub scenario: String,
    /// What its file calls the step, or the value.
    pub step: &'static str,
    /// What kind of front door it is.
    pub door: &'static str,
}

impl Front {
    /// What reports call it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Rest(_) => "rest",
            Self::Iso(_) => "iso8583",
        }
    }

    /// Whether all of a scenario can be said there.
    pub(crate) fn can_say(&self, scenario: &Scenario, shards: u16) -> Result<(), Unsaid> {
        match self {
            Self::Rest(_) => rest::can_say(scenario),
            Self::Iso(host) => match host.foreign(&scenario.partition_handles(shards)) {
                None => iso::can_say(scenario),
                Some(_) => {
                    let scenario = scenario.name.clone();
                    Err(Unsaid {
                        scenario,
                        step: "partitions",
                        door: "a link that holds some of them in another currency",
                    })
                }
            },
        }
    }

    /// What 1 of an amount that is recorded of it holds of base units.
    pub(crate) fn step(&self) -> u128 {
        match self {
            Self::Rest(door) => door.step(),
            Self::Iso(_) => 1,
        }
    }

    /// The edition whose codes it tells; none if it tells the engine's own.
    pub(crate) fn edition(&self) -> Option<Dialect> {
        match self {
            Self::Rest(_) => None,
            Self::Iso(host) => Some(host.dialect()),
        }
    }

    /// The faults on the way.
    pub(crate) fn faults(&self) -> &DoorFaults {
        match self {
            Self::Rest(door) => door.faults(),
            Self::Iso(host) => host.faults(),
        }
    }
}
