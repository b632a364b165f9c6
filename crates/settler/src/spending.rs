//! What blocks cost of late, which this process alone remembers, and what was spent, which its log does.

use std::collections::VecDeque;

use alloy_primitives::B256;
use surety_protocol::Time;

use crate::note::Note;

const HOUR: Time = Time::from_secs(3600);
const DAY: Time = Time::from_secs(24 * 3600);
/// Samples of an hour at one a second.
const SAMPLES_MAX: usize = 3600;

#[derive(Debug, Default)]
pub(crate) struct Spending {
    base_fees: VecDeque<(Time, u128)>,
    spent: VecDeque<(Time, B256, u128)>,
    /// Payments that are not in the log yet.
    unnoted: Vec<Note>,
    /// Attempts that the node refused for what they pay, until the next look.
    pub(crate) underpriced: Vec<B256>,
}

impl Spending {
    /// Takes the base fee of a block, and tells the mean of the last hour.
    pub(crate) fn mean_with(&mut self, now: Time, base_fee: u128) -> u128 {
        self.base_fees.push_back((now, base_fee));
        while self.base_fees.len() > SAMPLES_MAX
            || self.base_fees.front().is_some_and(|(at, _)| now.minus(*at) > HOUR)
        {
            self.base_fees.pop_front();
        }
        let sum = self.base_fees.iter().fold(0_u128, |sum, (_, fee)| sum.saturating_add(*fee));
        sum / u128::try_from(self.base_fees.len().max(1)).unwrap_or(1)
    }

    /// Notes what a mined transaction has cost, once.
    pub(crate) fn pay(&mut self, now: Time, transaction: B256, wei: u128) {
        if !self.spent.iter().any(|(_, known, _)| *known == transaction) {
            self.spent.push_back((now, transaction, wei));
            self.unnoted.push(Note::Spent { at: now, transaction: transaction.0, wei });
        }
    }

    /// Takes a payment from the log.
    pub(crate) fn remember(&mut self, at: Time, transaction: settlement::Hash, wei: u128) {
        self.spent.push_back((at, B256::from(transaction), wei));
        self.today(at);
    }

    /// All payments of the last day that the log has: when each was seen, its transaction, wei.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = (Time, settlement::Hash, u128)> + '_ {
        self.spent.iter().map(|(at, transaction, wei)| (*at, transaction.0, *wei))
    }

    /// What is to be appended to the log.
    pub(crate) fn unnoted(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.unnoted)
    }

    /// Wei of the last day.
    pub(crate) fn today(&mut self, now: Time) -> u128 {
        while self.spent.front().is_some_and(|(at, ..)| now.minus(*at) > DAY) {
            self.spent.pop_front();
        }
        self.spent.iter().fold(0, |sum, (.., wei)| sum.saturating_add(*wei))
    }
}
