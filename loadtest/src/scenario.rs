//! What one payment does, as a TOML file with a fixed seed.

use std::path::Path;

use serde::Deserialize;
use surety_protocol::{Amount, MerchantId, PartitionHandle, ShardId};

use crate::random::Random;
use crate::spread::{Choice, Spread};
use crate::step::{Action, Step, WHOLE_BPS};

/// Scenarios that come with the generator.
const BUILT_IN: [(&str, &str); 13] = [
    ("tap", include_str!("../scenarios/tap.toml")),
    ("lock-release", include_str!("../scenarios/lock-release.toml")),
    ("tip", include_str!("../scenarios/tip.toml")),
    ("fuel", include_str!("../scenarios/fuel.toml")),
    ("hotel", include_str!("../scenarios/hotel.toml")),
    ("split-ship", include_str!("../scenarios/split-ship.toml")),
    ("timeout-storm", include_str!("../scenarios/timeout-storm.toml")),
    ("standin", include_str!("../scenarios/standin.toml")),
    ("hot-1", include_str!("../scenarios/hot-1.toml")),
    ("zipf-0.99", include_str!("../scenarios/zipf-0.99.toml")),
    ("refund-day", include_str!("../scenarios/refund-day.toml")),
    ("failure-wave", include_str!("../scenarios/failure-wave.toml")),
    ("cold-to-hot", include_str!("../scenarios/cold-to-hot.toml")),
];

/// The number of a scenario's first partition within its shard; kept away from those that people number by hand.
const FIRST_PARTITION: u64 = 0x10_ad00_0000;

/// A payment, described.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What reports call it.
    pub name: String,
    /// Decides every draw: amounts, merchants, partitions, arrivals.
    pub seed: u64,
    /// Partitions, spread evenly over the shards.
    pub partitions: u32,
    /// How payments are spread over them.
    #[serde(default)]
    pub spread: Spread,
    /// Merchants, numbered from 1.
    pub merchants: u64,
    /// The least that a payment asks for, in base units.
    pub amount_min: u64,
    /// The most that a payment asks for, in base units.
    pub amount_max: u64,
    /// What the partitions' policy says, where it is not the usual.
    #[serde(default)]
    pub policy: Terms,
    /// What a payment does, in order. It begins with a lock, a sale or an advice, and ends early where a step is declined.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// What a scenario needs of its partitions' policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// Collateral held beyond the approved amount, in basis points.
    pub headroom_bps: u32,
    /// How far captures may exceed the approved amount, in basis points.
    pub tolerance_bps: u32,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Neither built in nor a file.
    #[error("no scenario {name}: not one of {} and not a file that can be read ({error})", built_in_names())]
    Unknown {
        /// What was asked for.
        name: String,
        /// What reading it as a file said.
        error: std::io::Error,
    },
    /// The file is not a scenario.
    #[error("scenario {name}: {error}")]
    Syntax {
        /// Which.
        name: String,
        /// What is wrong, and in which line.
        error: Box<toml::de::Error>,
    },
    /// The values make no sense.
    #[error("scenario {name}: {rule}")]
    Rule {
        /// Which.
        name: String,
        /// What does not hold.
        rule: &'static str,
    },
}

impl Scenario {
    /// The scenarios that come with the generator: name, and the text of the file.
    pub fn built_in() -> impl Iterator<Item = (&'static str, &'static str)> {
        BUILT_IN.into_iter()
    }

    /// Finds a built-in scenario by its name, or reads a file.
    ///
    /// # Errors
    /// If it is neither, or makes no sense.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let text = std::fs::read_to_string(Path::new(name))
            .map_err(|error| ScenarioError::Unknown { name: name.into(), error })?;
        Self::parse(name, &text)
    }

    /// Reads a scenario; `name` is for messages.
    ///
    /// # Errors
    /// If the text is no scenario, or one that makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|error| ScenarioError::Syntax { name: name.into(), error: Box::new(error) })?;
        match scenario.broken_rule() {
            Some(rule) => Err(ScenarioError::Rule { name: name.into(), rule }),
            None => Ok(scenario),
        }
    }

    /// The partitions on an engine with so many shards.
    #[must_use]
    pub fn partition_handles(&self, shards: u16) -> Vec<PartitionHandle> {
        let shards = shards.max(1);
        let handle = |index: u32| {
            let shard = u16::try_from(index % u32::from(shards)).unwrap_or(0);
            PartitionHandle::new(ShardId(shard), FIRST_PARTITION + u64::from(index / u32::from(shards)))
        };
        (0..self.partitions).map(handle).collect()
    }

    fn broken_rule(&self) -> Option<&'static str> {
        // Which steps a payment makes changes only where the lots of a step begin or end.
        let bounds =
            || self.steps.iter().flat_map(|step| [step.lots.0, step.lots.1]).filter(|lot| *lot < WHOLE_BPS);
        let begins_once = |lot| {
            let mut actions = self.steps.iter().filter(|step| step.is_for(lot)).map(|step| step.action);
            actions.next().is_some_and(Action::begins) && !actions.any(Action::begins)
        };
        let rules = [
            (self.partitions >= 1, "partitions must be at least 1"),
            (self.merchants >= 1, "merchants must be at least 1"),
            (
                1 <= self.amount_min && self.amount_min <= self.amount_max,
                "1 <= amount_min <= amount_max must hold",
            ),
            (self.spread.is_sound(), "zipf must be an exponent between 0 and 10"),
            (
                bounds().chain([0]).all(begins_once),
                "the first step of every payment, and no other, must be a lock, a sale or an advice",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map(|(_, rule)| *rule)
    }
}

/// What chance decides about a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) partition: PartitionHandle,
    pub(crate) merchant: MerchantId,
    pub(crate) amount: Amount,
    /// Below 10,000: decides which steps the payment makes.
    pub(crate) lot: u32,
}

/// A scenario's payments on an engine, to be drawn one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Payments {
    pub(crate) scenario: Scenario,
    partitions: Vec<PartitionHandle>,
    choice: Choice,
}

impl Payments {
    pub(crate) fn new(scenario: Scenario, shards: u16) -> Self {
        let partitions = scenario.partition_handles(shards);
        let choice = Choice::new(scenario.spread, partitions.len());
        Self { scenario, partitions, choice }
    }

    /// Draws the next payment. `progress` is the part of the run that is over, from 0 to 1.
    pub(crate) fn draw(&self, random: &mut Random, progress: f64) -> Draw {
        let Scenario { amount_min, amount_max, merchants, .. } = self.scenario;
        Draw {
            partition: self.partitions[self.choice.draw(random, progress)],
            amount: Amount(u128::from(amount_min + random.up_to(amount_max - amount_min))),
            merchant: MerchantId(1 + random.up_to(merchants - 1)),
            lot: u32::try_from(random.up_to(u64::from(WHOLE_BPS) - 1)).unwrap_or(0),
        }
    }
}

fn built_in_names() -> String {
    BUILT_IN.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_scenarios_are_sound() {
        for (name, _) in BUILT_IN {
            assert_eq!(Scenario::load(name).unwrap().name, name);
        }
        assert!(matches!(Scenario::load("no-such"), Err(ScenarioError::Unknown { .. })));
    }

    #[test]
    fn the_page_s_example_is_a_scenario() {
        let page = include_str!("../SCENARIOS.md");
        let (_, rest) = page.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let scenario = Scenario::parse("dinner", text).unwrap();
        assert_eq!(scenario.steps.len(), 4);
        for name in
            ["lock", "sale", "advise", "increase", "capture", "reverse", "refund", "release", "settle"]
        {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn unsound_scenarios_are_refused() {
        let tap = BUILT_IN[0].1;
        let check = |from: &str, to: &str, expect: &str| {
            let text = tap.replace(from, to);
            assert_ne!(text, tap, "{from}");
            let message = Scenario::parse("x", &text).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        };
        check("partitions = 16", "partitions = 0", "partitions must be");
        check("partitions = 16", "partitions = 16\nspread = { zipf = -1.0 }", "zipf must be");
        check("partitions = 16", "partitions = 16\nspread = \"odd\"", "odd");
        check("amount_min = 1_000", "amount_min = 0", "amount_min");
        check("amount_min = 1_000", "amount_min = 2_000_000", "amount_min");
        check("do = \"lock\"", "do = \"release\"", "a lock, a sale");
        check("do = \"lock\"", "do = \"lock\"\nlots = [0, 5_000]", "a lock, a sale");
        check("do = \"settle\"", "do = \"lock\"", "and no other");
        check("do = \"lock\"", "do = \"lock\"\nlots = [5_000, 5_000]", "lots must be");
        check("do = \"lock\"", "do = \"lock\"\ntimes = 0", "times must");
        check("do = \"lock\"", "do = \"lock\"\nafter_ms = 60_001", "after_ms must");
        check("do = \"lock\"", "do = \"lock\"\nshare_bps = 1", "share_bps belongs to");
        check("share_bps = 10_000", "share_bps = 100_001", "share_bps must");
        check("share_bps = 10_000", "", "share_bps belongs to");
        check("last = true", "", "last belongs to");
        check("seed = 1", "sed = 1", "sed");
        check("do = \"settle\"", "do = \"fly\"", "fly");
        check("do = \"settle\"", "do = \"settle\"\nwhen = 3", "when");
    }

    #[test]
    fn a_seed_draws_the_same_within_its_bounds() {
        let payments = Payments::new(Scenario::load("tap").unwrap(), 3);
        assert_eq!(payments.partitions.len(), 16);
        assert_eq!(payments.partitions[4].shard(), ShardId(1));
        let draws = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| payments.draw(&mut random, 0.0)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        for draw in draws(3) {
            assert!((1_000..=1_000_000).contains(&draw.amount.0));
            assert!((1..=1000).contains(&draw.merchant.0));
            assert!(draw.lot < WHOLE_BPS);
        }
    }
}
