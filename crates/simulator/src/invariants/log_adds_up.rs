//! A reader of the log alone comes to the same money: the table of `RECORDS.md`, applied record by record.

use std::collections::BTreeMap;

use ledger::Totals;
use surety_protocol::{ChangeBody, Code, ConsumeBody, Flags, Kind, PartitionHandle, Record};

use super::{Violation, hold};

const NAME: &str = "the log adds up";

/// K, D, F, L = H + U + P, W, X of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    k: i128,
    d: i128,
    f: i128,
    l: i128,
    w: i128,
    x: i128,
}

impl Sums {
    fn credit(&mut self, amount: i128) {
        let repaid = amount.min(self.d);
        self.d -= repaid;
        self.f += amount - repaid;
    }

    fn free(&mut self, freed: i128) {
        self.l -= freed;
        if freed < 0 { self.f += freed } else { self.credit(freed) }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct LogAddsUp {
    partitions: BTreeMap<PartitionHandle, Sums>,
}

impl LogAddsUp {
    pub(super) fn partitions(&self) -> Vec<PartitionHandle> {
        self.partitions.keys().copied().filter(|handle| handle.number() != 0).collect()
    }

    pub(super) fn on_record(&mut self, record: &Record) -> Result<(), Violation> {
        let kind = record.kind().ok_or_else(|| Violation::new(NAME, format!("no kind: {record:?}")))?;
        if matches!(kind, Kind::Continuation) || !record.code().is_some_and(Code::is_success) {
            return Ok(());
        }
        let sums = self.partitions.entry(record.partition).or_default();
        let amount = i128::try_from(record.amount.0).unwrap_or(i128::MAX);
        let result = i128::try_from(record.result.0).unwrap_or(i128::MAX);
        let freed = record.body::<ChangeBody>().freed;
        let is_exposed = record.flags().has(Flags::EXPOSED);
        match kind {
            Kind::Lock => {
                sums.f -= result;
                sums.l += result;
            }
            Kind::Increase
            | Kind::Decrease
            | Kind::Capture
            | Kind::Release
            | Kind::Reverse
            | Kind::Refund
            | Kind::Settle
            | Kind::Expire
            | Kind::AutoSettle
            | Kind::Mature => sums.free(freed),
            Kind::Advice => {
                sums.free(freed);
                sums.x += if is_exposed { amount - result } else { 0 };
            }
            Kind::Consume | Kind::AutoConsume => {
                let freed = record.body::<ConsumeBody>().freed;
                sums.l -= result;
                sums.w += result;
                if is_exposed { sums.x -= freed } else { sums.free(freed) }
            }
            Kind::ReleaseGroup => sums.free(result),
            Kind::Deposit | Kind::Reward => {
                sums.k += result;
                sums.credit(result);
            }
            Kind::Withdraw | Kind::WithdrawPaid => {
                sums.f -= result;
                sums.w += result;
            }
            Kind::BatchFinal => {
                sums.w -= result;
                sums.k -= result;
            }
            Kind::GuaranteePaid => {
                sums.k -= amount;
                sums.d += amount - result;
                if freed >= 0 {
                    sums.l -= result;
                    sums.free(freed);
                } else {
                    sums.l -= result + freed;
                    sums.f += freed;
                }
            }
            Kind::Deficit => {
                sums.k -= amount;
                sums.f -= result;
                sums.d += amount - result;
            }
            Kind::Cover | Kind::WriteOff => sums.x -= result,
            _ => {}
        }
        let all = *sums;
        let is_sound = [all.k, all.d, all.f, all.l, all.w, all.x].iter().all(|part| *part >= 0);
        hold(NAME, is_sound && all.k + all.d == all.f + all.l + all.w, || format!("{all:?} after {record:?}"))
    }

    pub(super) fn check(&self, totals: &Totals) -> Result<(), Violation> {
        let sums = self.partitions.get(&totals.handle).copied().unwrap_or_default();
        let signed = |amount: u128| i128::try_from(amount).unwrap_or(i128::MAX);
        let found = Sums {
            k: signed(totals.on_chain),
            d: signed(totals.deficit),
            f: signed(totals.free),
            l: signed(totals.held + totals.captured + totals.pending),
            w: signed(totals.owed),
            x: signed(totals.exposure),
        };
        hold(NAME, sums == found, || {
            format!("{}: the log says {sums:?}, the engine {found:?}", totals.handle)
        })
    }
}
