//! What one payment does, as a TOML file with a fixed seed.

use std::path::Path;

use serde::Deserialize;
use surety_protocol::{Amount, MerchantId, PartitionHandle, ShardId};

/// Scenarios that come with the generator.
const BUILT_IN: [(&str, &str); 2] = [
    ("tap", include_str!("../scenarios/tap.toml")),
    ("lock-release", include_str!("../scenarios/lock-release.toml")),
];

/// The number of a scenario's first partition within its shard; kept away from those that people number by hand.
const FIRST_PARTITION: u64 = 0x10_ad00_0000;

/// A payment, described.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What reports call it.
    pub name: String,
    /// Decides every draw: amounts, merchants, partitions, arrivals.
    pub seed: u64,
    /// Partitions, spread evenly over the shards.
    pub partitions: u32,
    /// Merchants, numbered from 1.
    pub merchants: u64,
    /// The least that a payment asks for, in base units.
    pub amount_min: u64,
    /// The most that a payment asks for, in base units.
    pub amount_max: u64,
    /// What a payment does, in order. The first step is a lock; a payment ends early where a step is declined.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// One request of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Locks the payment's amount.
    Lock {},
    /// Claims a part of what was approved.
    Capture {
        /// Which part, in basis points.
        share_bps: u32,
        /// Nothing more is claimed after it.
        last: bool,
    },
    /// Gives the rest back.
    Release {},
    /// The payer's asset is final.
    Settle {},
    /// The payer's asset failed: the merchant is owed the first capture.
    Consume {},
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

    /// Draws the next payment.
    pub(crate) fn draw(&self, random: &mut Random, partitions: &[PartitionHandle]) -> Draw {
        let partition = partitions[random.below(partitions.len() as u64)];
        let amount = self.amount_min + random.up_to(self.amount_max - self.amount_min);
        Draw {
            partition,
            merchant: MerchantId(1 + random.up_to(self.merchants - 1)),
            amount: Amount(u128::from(amount)),
        }
    }

    fn broken_rule(&self) -> Option<&'static str> {
        let share_is_sound = |step: &Step| !matches!(step, Step::Capture { share_bps, .. } if *share_bps == 0 || *share_bps > 10_000);
        let rules = [
            (self.partitions >= 1, "partitions must be at least 1"),
            (self.merchants >= 1, "merchants must be at least 1"),
            (
                1 <= self.amount_min && self.amount_min <= self.amount_max,
                "1 <= amount_min <= amount_max must hold",
            ),
            (matches!(self.steps.first(), Some(Step::Lock {})), "the first step must be a lock"),
            (
                self.steps.iter().filter(|step| matches!(step, Step::Lock {})).count() <= 1,
                "only the first step may be a lock",
            ),
            (self.steps.iter().all(share_is_sound), "share_bps must lie between 1 and 10000"),
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
}

/// splitmix64: every run of one seed draws the same.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `max`, both included.
    fn up_to(&mut self, max: u64) -> u64 {
        let wide = u128::from(self.next()) * (u128::from(max) + 1);
        u64::try_from(wide >> 64).unwrap_or(max)
    }

    /// A number below `count`, which is not 0.
    fn below(&mut self, count: u64) -> usize {
        usize::try_from(self.up_to(count - 1)).unwrap_or(0)
    }

    /// A number above 0 and up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // 53 bits fit
        let numerator = ((self.next() >> 11) + 1) as f64;
        numerator / 9_007_199_254_740_992.0
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
    fn unsound_scenarios_are_refused() {
        let tap = BUILT_IN[0].1;
        let check = |from: &str, to: &str, expect: &str| {
            let text = tap.replace(from, to);
            assert_ne!(text, tap, "{from}");
            let message = Scenario::parse("x", &text).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        };
        check("partitions = 16", "partitions = 0", "partitions must be");
        check("amount_min = 1_000", "amount_min = 0", "amount_min");
        check("amount_min = 1_000", "amount_min = 2_000_000", "amount_min");
        check("do = \"lock\"", "do = \"release\"", "first step");
        check("do = \"settle\"", "do = \"lock\"", "only the first");
        check("share_bps = 10_000", "share_bps = 10_001", "share_bps");
        check("seed = 1", "sed = 1", "sed");
        check("do = \"settle\"", "do = \"fly\"", "fly");
    }

    #[test]
    fn a_seed_draws_the_same_within_its_bounds() {
        let scenario = Scenario::load("tap").unwrap();
        let partitions = scenario.partition_handles(3);
        assert_eq!(partitions.len(), 16);
        assert_eq!(partitions[4].shard(), ShardId(1));
        let draws = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| scenario.draw(&mut random, &partitions)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        for draw in draws(3) {
            assert!((1_000..=1_000_000).contains(&draw.amount.0));
            assert!((1..=1000).contains(&draw.merchant.0));
        }
        let mut random = Random::new(9);
        assert!((0..1000).map(|_| random.unit()).all(|unit| unit > 0.0 && unit <= 1.0));
    }
}
