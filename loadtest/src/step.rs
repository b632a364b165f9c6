//! One request of a payment, as a scenario's file describes it.

use std::time::Duration;

use serde::Deserialize;

/// All of something, in basis points.
pub(crate) const WHOLE_BPS: u32 = 10_000;
/// More than this no policy tolerates.
const SHARE_BPS_MAX: u32 = 100_000;
/// How often one request may be sent.
const TIMES_MAX: u32 = 100;
/// The longest that a payment may wait between two of its steps.
const AFTER_MS_MAX: u64 = 60_000;

/// A request, who makes it, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawStep")]
pub struct Step {
    /// What is asked.
    pub action: Action,
    /// The payments that do it: those whose lot, a number below 10,000 that each payment draws once, lies within.
    pub lots: (u32, u32),
    /// How long the payment waits before it: a night at the hotel, say.
    pub after: Duration,
    /// How often it is sent under the same id; the answer must be the same each time.
    pub times: u32,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Locks the payment's amount.
    Lock,
    /// Locks and captures it in one request.
    Sale,
    /// Records a capture that happened without asking, under a lock that nobody made.
    Advise {
        /// Of the payment's amount, in basis points.
        share_bps: u32,
    },
    /// Raises the lock.
    Increase {
        /// The new total, of the payment's amount, in basis points.
        share_bps: u32,
    },
    /// Claims a part of what is guaranteed.
    Capture {
        /// Which part, in basis points; above 10,000 is a tip.
        share_bps: u32,
        /// Nothing more is claimed after it.
        last: bool,
    },
    /// Takes the last capture back.
    Reverse,
    /// Gives a part of the last capture back.
    Refund {
        /// Which part, in basis points.
        share_bps: u32,
    },
    /// Gives the rest of the lock back.
    Release,
    /// The payer's asset is final.
    Settle,
    /// The payer's asset failed: the merchant is owed the last capture.
    Consume,
}

/// A step as it is written: one table with everything that a step may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    #[serde(rename = "do")]
    name: Name,
    share_bps: Option<u32>,
    last: Option<bool>,
    #[serde(default = "all_lots")]
    lots: (u32, u32),
    #[serde(default)]
    after_ms: u64,
    #[serde(default = "once")]
    times: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Name {
    Lock,
    Sale,
    Advise,
    Increase,
    Capture,
    Reverse,
    Refund,
    Release,
    Settle,
    Consume,
}

const fn all_lots() -> (u32, u32) {
    (0, WHOLE_BPS)
}

const fn once() -> u32 {
    1
}

impl Step {
    /// True if a payment with this lot makes this step.
    #[must_use]
    pub const fn is_for(&self, lot: u32) -> bool {
        self.lots.0 <= lot && lot < self.lots.1
    }
}

impl Action {
    /// True for what a payment may begin with.
    #[must_use]
    pub const fn begins(self) -> bool {
        matches!(self, Self::Lock | Self::Sale | Self::Advise { .. })
    }
}

impl TryFrom<RawStep> for Step {
    type Error = &'static str;

    fn try_from(raw: RawStep) -> Result<Self, Self::Error> {
        let takes_share = matches!(raw.name, Name::Advise | Name::Increase | Name::Capture | Name::Refund);
        let takes_last = matches!(raw.name, Name::Capture);
        let rules = [
            (
                raw.share_bps.is_some() == takes_share,
                "share_bps belongs to advise, increase, capture and refund, and to no other step",
            ),
            (raw.last.is_some() == takes_last, "last belongs to capture, and to no other step"),
            (
                raw.share_bps.is_none_or(|share| (1..=SHARE_BPS_MAX).contains(&share)),
                "share_bps must lie between 1 and 100000",
            ),
            (
                raw.lots.0 < raw.lots.1 && raw.lots.1 <= WHOLE_BPS,
                "lots must be two numbers, the first below the second, up to 10000",
            ),
            ((1..=TIMES_MAX).contains(&raw.times), "times must lie between 1 and 100"),
            (raw.after_ms <= AFTER_MS_MAX, "after_ms must be at most 60000"),
        ];
        if let Some((_, rule)) = rules.iter().find(|(holds, _)| !holds) {
            return Err(rule);
        }
        let share_bps = raw.share_bps.unwrap_or(0);
        let action = match raw.name {
            Name::Lock => Action::Lock,
            Name::Sale => Action::Sale,
            Name::Advise => Action::Advise { share_bps },
            Name::Increase => Action::Increase { share_bps },
            Name::Capture => Action::Capture { share_bps, last: raw.last.unwrap_or(false) },
            Name::Reverse => Action::Reverse,
            Name::Refund => Action::Refund { share_bps },
            Name::Release => Action::Release,
            Name::Settle => Action::Settle,
            Name::Consume => Action::Consume,
        };
        Ok(Self { action, lots: raw.lots, after: Duration::from_millis(raw.after_ms), times: raw.times })
    }
}
