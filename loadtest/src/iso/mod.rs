//! Payments as an acquirer's host makes them: ISO 8583 messages over the sockets of a link.
//!
//! | step | message |
//! |---|---|
//! | `lock` | 0100 |
//! | `sale` | 0200 |
//! | `advise` | 0120, and the 0220 that completes it |
//! | `capture`, the last | 0220 |
//! | `release` | 0400 of the authorization |
//! | `reverse` | 0400 of the completion or the sale |
//! | `settle`, `consume` | none: they are the chain's, and go to the engine itself |
//!
//! Field 102 names the partition, so that no card has to lead there. What is not answered is said again for a minute as a
//! repeat (0101, 0121, 0201, 0221, 0401) with the same fields, as the link's guide asks for, and is unknown after that; latency counts from the intended start, repeats included.
//! Every other step is refused before the run.

mod answer;
mod direct;
mod host;
mod message;
mod pay;
mod socket;
mod trail;

use iso8583::{Codec, Draft, EncodeError, LengthHeader, Message, payment::Rules};

pub use host::{Host, HostError, HostOptions};
pub(crate) use pay::pay;

use crate::front::Unsaid;
use crate::scenario::Scenario;
use crate::step::{Action, Step, WHOLE_BPS};

/// What field 4 can hold.
const MINOR_MAX: u128 = 999_999_999_999;

/// How a link speaks, as its settings have it.
#[derive(Clone, Debug)]
pub struct Speech {
    /// How messages are cut off the stream.
    pub header: LengthHeader,
    /// Edition and encoding.
    pub codec: Codec,
    /// Currencies, marks, and the key of ids.
    pub rules: Rules,
}

/// Proves who has written a message, where a link asks for that.
pub trait Seal: Send + Sync {
    /// Gives a draft its code.
    ///
    /// # Errors
    /// If it cannot be written.
    fn seal(&self, draft: &mut Draft, codec: Codec) -> Result<(), EncodeError>;

    /// True if the code of a message, which is `bytes`, is right.
    fn is_right(&self, message: &Message<'_>, bytes: &[u8]) -> bool;
}

/// What a payment has come to, as far as it decides what can be said next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begun,
    Held,
    Captured,
    Ended,
}

/// Whether every step of every payment can be said.
///
/// # Errors
/// The first that cannot, or amounts beyond field 4.
pub(crate) fn can_say(scenario: &Scenario) -> Result<(), Unsaid> {
    let unsaid = |step| Unsaid { scenario: scenario.name.clone(), step, door: "an ISO 8583 link" };
    let lots = scenario.steps.iter().flat_map(|step| [step.lots.0, step.lots.1]);
    for lot in lots.chain([0]).filter(|lot| *lot < WHOLE_BPS) {
        if let Some(step) = unsaid_of(scenario.steps.iter().filter(|step| step.is_for(lot))) {
            return Err(unsaid(step));
        }
    }
    let most = u128::from(scenario.amount_max) * u128::from(share_max(scenario)) / u128::from(WHOLE_BPS);
    if most > MINOR_MAX { Err(unsaid("amount_max")) } else { Ok(()) }
}

/// What of a payment with these steps cannot be said.
fn unsaid_of<'a>(steps: impl Iterator<Item = &'a Step>) -> Option<&'static str> {
    let mut stage = Stage::Begun;
    for step in steps {
        stage = match (step.action, stage) {
            (Action::Lock, _) => Stage::Held,
            (Action::Sale | Action::Advise { .. }, _) => Stage::Captured,
            (Action::Capture { last: true, .. }, Stage::Held) => Stage::Captured,
            (Action::Capture { .. }, _) => return Some("capture"),
            (Action::Release, Stage::Held) | (Action::Reverse, Stage::Captured) => Stage::Ended,
            (Action::Release, _) => return Some("release"),
            (Action::Reverse, _) => return Some("reverse"),
            (Action::Settle | Action::Consume, Stage::Held) => Stage::Ended,
            (Action::Settle | Action::Consume, stage) => stage,
            (Action::Increase { .. }, _) => return Some("increase"),
            (Action::Refund { .. }, _) => return Some("refund"),
        };
    }
    None
}

/// The largest part of its amount that a payment says.
fn share_max(scenario: &Scenario) -> u32 {
    let share = |step: &Step| match step.action {
        Action::Capture { share_bps, .. } | Action::Advise { share_bps } => share_bps,
        _ => WHOLE_BPS,
    };
    scenario.steps.iter().map(share).max().unwrap_or(WHOLE_BPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_cannot_say_is_refused() {
        let check = |name: &str, expect: Option<&str>| {
            let unsaid = can_say(&Scenario::load(name).unwrap()).err();
            assert_eq!(unsaid.map(|unsaid| unsaid.step), expect, "{name}");
        };
        for name in ["tap", "tip", "fuel", "lock-release", "timeout-storm", "standin", "failure-wave"] {
            check(name, None);
        }
        check("hotel", Some("increase"));
        check("split-ship", Some("capture"));
        check("refund-day", Some("refund"));
        let with = |steps: &str, amount_max: u64| {
            let text = format!(
                "name = \"x\"\nseed = 1\npartitions = 1\nmerchants = 1\namount_min = 1\namount_max = {amount_max}\n{steps}"
            );
            can_say(&Scenario::parse("x", &text).unwrap()).err().map(|unsaid| unsaid.step)
        };
        let (lock, tip) =
            ("[[step]]\ndo = \"lock\"\n", "[[step]]\ndo = \"capture\"\nshare_bps = 20_000\nlast = true\n");
        let (release, reverse) = ("[[step]]\ndo = \"release\"\n", "[[step]]\ndo = \"reverse\"\n");
        assert_eq!(with(&[lock, tip].concat(), 499_999_999_999), None);
        assert_eq!(with(&[lock, tip].concat(), 500_000_000_000), Some("amount_max"));
        assert_eq!(with(&[lock, tip, tip].concat(), 1), Some("capture"));
        assert_eq!(with(&[lock, tip, release].concat(), 1), Some("release"));
        assert_eq!(with(&[lock, reverse].concat(), 1), Some("reverse"));
        let some = "[[step]]\ndo = \"release\"\nlots = [4_000, 6_000]\n";
        assert_eq!(with(&[lock, some, tip].concat(), 1), Some("capture"), "of some payments");
    }
}
