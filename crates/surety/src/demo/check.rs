//! The money check: four parties that each know the money from a source of their own, and who differs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use surety_protocol::Id;

use super::account::Account;

/// Differences that are told of one party; the rest are counted.
const TOLD_MAX: usize = 3;

/// The outcome: `ok`, or what differs, for each party.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MoneyCheck {
    /// A plain tally of the replies as they were received.
    pub(crate) replies: String,
    /// A look-up over QUIC of every lock, at the end.
    pub(crate) lookups: String,
    /// The log of the closed directory, replayed and verified.
    pub(crate) log: String,
    /// The contracts and tokens, when everything was settled and the engine gone.
    pub(crate) chain: String,
}

/// The parties, in the order of their accounts.
const PARTIES: usize = 4;

/// What a party has got wrong.
#[derive(Debug, Default)]
struct Differences {
    told: Vec<String>,
    count: usize,
}

impl MoneyCheck {
    /// Compares what the parties say. Where two agree whoever says something else differs; where none agree, all do.
    ///
    /// A party that could not be heard at all brings its reason instead of an account.
    pub(crate) fn compare(
        replies: Result<&Account, &str>,
        lookups: Result<&Account, &str>,
        log: Result<&Account, &str>,
        chain: Result<&Account, &str>,
    ) -> Self {
        let parties = [replies, lookups, log, chain];
        let accounts = parties.map(Result::ok);
        let mut differences: [Differences; PARTIES] = Default::default();
        // The chain knows no lock: that is what it is for.
        let [replies, lookups, log, _] = accounts;
        compare_locks(&[replies, lookups, log, None], &mut differences);
        compare_partitions(&accounts, &mut differences);
        let mut texts = parties.iter().zip(&differences).map(|(party, differences)| match party {
            Ok(_) => differences.to_text(),
            Err(reason) => (*reason).to_owned(),
        });
        let mut next = || texts.next().unwrap_or_default();
        Self { replies: next(), lookups: next(), log: next(), chain: next() }
    }

    /// True if all parties agree.
    pub(crate) fn is_ok(&self) -> bool {
        [&self.replies, &self.lookups, &self.log, &self.chain].into_iter().all(|party| party == "ok")
    }
}

fn compare_locks(accounts: &[Option<&Account>; PARTIES], differences: &mut [Differences; PARTIES]) {
    let ids: BTreeSet<Id> =
        accounts.iter().flatten().flat_map(|account| account.locks.keys().copied()).collect();
    for id in ids {
        let views = accounts.map(|account| account.map(|account| account.locks.get(&id)));
        judge(&views, differences, |view, others| {
            let say = |view: &Option<&super::account::LockView>| match view {
                Some(view) => format!("{} total {} remaining {}", view.end, view.total, view.remaining),
                None => "nothing".to_owned(),
            };
            format!("lock {id}: {}, others say {}", say(view), others.map_or_else(String::new, say))
        });
    }
}

fn compare_partitions(accounts: &[Option<&Account>; PARTIES], differences: &mut [Differences; PARTIES]) {
    let handles: BTreeSet<_> =
        accounts.iter().flatten().flat_map(|account| account.partitions.keys().copied()).collect();
    for handle in handles {
        let sums = accounts.map(|account| {
            account.map(|account| account.partitions.get(&handle).copied().unwrap_or_default().named())
        });
        for index in 0..super::account::Sums::default().named().len() {
            let name = super::account::Sums::default().named()[index].0;
            let views = sums.map(|sums| sums.and_then(|sums| sums[index].1));
            judge(&views, differences, |sum, others| {
                let others = others.map_or_else(String::new, u128::to_string);
                format!("partition {handle}: {name} {sum}, others say {others}")
            });
        }
    }
}

/// Names whoever differs from two that agree, or everybody if none agree.
fn judge<T: PartialEq>(
    views: &[Option<T>; PARTIES],
    differences: &mut [Differences; PARTIES],
    tell: impl Fn(&T, Option<&T>) -> String,
) {
    let known: Vec<(usize, &T)> = views
        .iter()
        .enumerate()
        .filter_map(|(party, view)| view.as_ref().map(|view| (party, view)))
        .collect();
    let Some((_, first)) = known.first() else { return };
    if known.iter().all(|(_, view)| view == first) {
        return;
    }
    let majority = known
        .iter()
        .map(|(_, view)| *view)
        .find(|view| known.iter().filter(|(_, other)| other == view).count() >= 2);
    for (party, view) in &known {
        let other = majority.or_else(|| known.iter().map(|(_, other)| *other).find(|other| other != view));
        if Some(*view) != majority {
            differences[*party].note(|| tell(view, other));
        }
    }
}

impl Differences {
    fn note(&mut self, tell: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(tell());
        }
    }

    fn to_text(&self) -> String {
        if self.count == 0 {
            return "ok".to_owned();
        }
        let mut text = self.told.join("; ");
        if self.count > self.told.len() {
            let _ = write!(text, "; and {} more", self.count - self.told.len());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::{LockView, Sums};
    use super::*;
    use surety_protocol::{End, PartitionHandle};

    fn account() -> Account {
        let view = |remaining| LockView { end: End::Live, total: 10, remaining };
        let sums = Sums { free: Some(80), held: Some(15), captured: Some(5), ..Sums::default() };
        Account {
            locks: [(Id(1), view(10)), (Id(2), view(5))].into(),
            partitions: [(PartitionHandle(1), sums)].into(),
        }
    }

    /// Changes one party's account and expects that this party, and no other, is named.
    fn check(party: usize, change: impl Fn(&mut Account), named: &str) {
        let mut accounts = [account(), account(), account(), account()];
        change(&mut accounts[party]);
        let [replies, lookups, log, chain] = &accounts;
        let check = MoneyCheck::compare(Ok(replies), Ok(lookups), Ok(log), Ok(chain));
        assert!(!check.is_ok());
        let texts = [&check.replies, &check.lookups, &check.log, &check.chain];
        for (index, text) in texts.into_iter().enumerate() {
            if index == party {
                assert!(text.contains(named), "{text}");
            } else {
                assert_eq!(text, "ok", "party {index}");
            }
        }
    }

    #[test]
    fn parties_that_agree_are_ok() {
        let account = account();
        assert!(MoneyCheck::compare(Ok(&account), Ok(&account), Ok(&account), Ok(&account)).is_ok());
    }

    #[test]
    fn whoever_differs_is_named() {
        check(
            PARTIES - 1,
            |account| account.partitions.get_mut(&PartitionHandle(1)).unwrap().free = Some(79),
            "free 79, others say 80",
        );
        // The others know locks too.
        for party in 0..PARTIES - 1 {
            check(
                party,
                |account| account.locks.get_mut(&Id(1)).unwrap().remaining += 1,
                "remaining 11, others say",
            );
            check(party, |account| account.locks.get_mut(&Id(2)).unwrap().end = End::Final, "final");
            check(party, |account| account.locks.retain(|id, _| *id != Id(2)), "nothing, others say live");
            check(
                party,
                |account| account.partitions.get_mut(&PartitionHandle(1)).unwrap().free = Some(79),
                "free 79, others say 80",
            );
            check(
                party,
                |account| {
                    account.locks.insert(Id(3), LockView { end: End::Live, total: 1, remaining: 1 });
                },
                "others say nothing",
            );
        }
    }

    #[test]
    fn where_only_two_know_a_sum_both_are_named() {
        let mut accounts = [account(), account(), account(), account()];
        accounts[0].partitions.get_mut(&PartitionHandle(1)).unwrap().consumed = Some(1);
        accounts[3].partitions.get_mut(&PartitionHandle(1)).unwrap().consumed = Some(2);
        let [replies, lookups, log, chain] = &accounts;
        let check = MoneyCheck::compare(Ok(replies), Ok(lookups), Ok(log), Ok(chain));
        assert!(check.replies.contains("consumed 1, others say 2"), "{}", check.replies);
        assert!(check.chain.contains("consumed 2, others say 1"), "{}", check.chain);
        assert_eq!((check.lookups.as_str(), check.log.as_str()), ("ok", "ok"));
    }

    #[test]
    fn a_party_that_cannot_be_heard_fails_alone() {
        let account = account();
        let check = MoneyCheck::compare(Ok(&account), Ok(&account), Err("rot in a.wal"), Ok(&account));
        assert_eq!((check.log.as_str(), check.is_ok()), ("rot in a.wal", false));
        assert_eq!((check.replies.as_str(), check.lookups.as_str()), ("ok", "ok"));
    }
}
