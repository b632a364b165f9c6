//! What the payments of a time come to, added up from the records of the change stream.

use surety_protocol::{Code, Flags, Kind, Record};

/// Sums in base units, and counts. They are the ledger's: what was captured and what of that went back, whoever asked for it.
///
/// A debit is a capture, with what of it could not be covered; it is taken back by a reversal or a refund. An authorization is a lock
/// that is no sale, or an increase of one; it is taken back by a release or a decrease that moved something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Locks that are no sales, and increases.
    pub authorizations: u64,
    /// Releases and decreases.
    pub authorization_reversals: u64,
    /// Captures.
    pub debits: u64,
    /// Captures taken back, whole or in part.
    pub debit_reversals: u64,
    /// Captured, or told and not covered.
    pub debited: u128,
    /// What of captures went back.
    pub debited_back: u128,
}

impl Totals {
    /// Adds what a record has done; nothing for a decline.
    pub fn add(&mut self, record: &Record) {
        let (result, amount) = (record.result.0, record.amount.0);
        let is_success = record.code().is_some_and(Code::is_success);
        let moved = u64::from(result > 0);
        match record.kind().filter(|_| is_success) {
            Some(Kind::Lock) if record.flags().has(Flags::SALE) => self.debit(result),
            Some(Kind::Capture) => self.debit(result),
            // All of it was told to be so, whatever of it is covered.
            Some(Kind::Advice) => self.debit(amount),
            Some(Kind::Lock | Kind::Increase) => self.authorizations += 1,
            Some(Kind::Release | Kind::Decrease) => self.authorization_reversals += moved,
            Some(Kind::Reverse | Kind::Refund) => {
                self.debit_reversals += moved;
                self.debited_back = self.debited_back.saturating_add(result);
            }
            _ => {}
        }
    }

    fn debit(&mut self, amount: u128) {
        self.debits += 1;
        self.debited = self.debited.saturating_add(amount);
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            authorizations: self.authorizations + other.authorizations,
            authorization_reversals: self.authorization_reversals + other.authorization_reversals,
            debits: self.debits + other.debits,
            debit_reversals: self.debit_reversals + other.debit_reversals,
            debited: self.debited.saturating_add(other.debited),
            debited_back: self.debited_back.saturating_add(other.debited_back),
        }
    }
}

#[cfg(test)]
mod tests {
    use surety_protocol::{Amount, ChangeBody, Id, PartitionHandle};

    use super::*;

    #[test]
    fn records_are_counted_for_what_they_did() {
        let check = |kind, flags, code: Code, expect: Totals| {
            let body = ChangeBody::default();
            let record = Record::new(kind, Id(1), PartitionHandle(1), Amount(100), &body);
            let record = Record { result: Amount(60), code: code as u8, ..record.with_flags(flags) };
            let mut totals = Totals::default();
            totals.add(&record);
            assert_eq!(totals, expect, "{kind:?} {code:?}");
        };
        let none = Totals::default();
        let debit = |debited| Totals { debits: 1, debited, ..none };
        let back = Totals { debit_reversals: 1, debited_back: 60, ..none };
        check(Kind::Lock, Flags(0), Code::Partial, Totals { authorizations: 1, ..none });
        check(Kind::Lock, Flags::SALE, Code::Approved, debit(60));
        check(Kind::Lock, Flags::SALE, Code::Insufficient, none);
        check(Kind::Increase, Flags(0), Code::Approved, Totals { authorizations: 1, ..none });
        check(Kind::Capture, Flags(0), Code::Approved, debit(60));
        check(Kind::Advice, Flags::FINAL, Code::Approved, debit(100));
        check(Kind::Reverse, Flags(0), Code::Approved, back);
        check(Kind::Refund, Flags(0), Code::Approved, back);
        check(Kind::Release, Flags(0), Code::Approved, Totals { authorization_reversals: 1, ..none });
        check(Kind::Settle, Flags(0), Code::Approved, none);
        assert_eq!(debit(60).and(back), Totals { debits: 1, debited: 60, ..back });
    }
}
