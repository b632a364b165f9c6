//! What a record says that it moved, by plain rules over its kind, its code and its amounts: what a statement's lines are held against.
//! The ledger has no part in this.

use surety_protocol::limits::UNITS_MAX;
use surety_protocol::{ALL_CAPTURES, ChangeBody, Code, ConsumeBody, Flags, Kind, Origin, Record, StakeBody};

use crate::row::{Balances, MerchantTotals};

/// What a record, or all of a linked chain, moved of a partition's money. Where a record does not say how much came from which of two
/// amounts there is none, and the identity has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    /// K.
    on_chain: i128,
    /// F less D: a credit pays a deficit first.
    net: i128,
    /// H.
    held: Option<i128>,
    /// U.
    captured: Option<i128>,
    /// W.
    owed: i128,
    /// X.
    exposure: i128,
    /// Units of all suppliers.
    units: i128,
}

/// What it moved of a merchant's totals; none where a record does not say how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MerchantEffect {
    held: Option<i128>,
    captured: Option<i128>,
    settled: Option<i128>,
    refunded: Option<i128>,
    released: Option<i128>,
    expired: i128,
    consumed: i128,
    guarantees: i128,
    /// How much more there is of all of these but what was paid.
    added: Option<i128>,
}

/// Above every amount and every number of units, and low enough that one record's can be added up: what stands in a damaged store must
/// not stop anybody.
const BOUND: u128 = 1 << 125;
const _: () = assert!(UNITS_MAX < BOUND);

fn bounded(amount: u128) -> i128 {
    amount.min(BOUND).cast_signed()
}

fn bounded_signed(amount: i128) -> i128 {
    amount.clamp(-BOUND.cast_signed(), BOUND.cast_signed())
}

/// True if the next record belongs to the same linked chain.
pub(crate) fn is_continued(record: &Record) -> bool {
    let is_request =
        record.kind().is_some_and(|kind| !matches!(kind.origin(), Origin::Engine | Origin::Part));
    is_request && record.is_linked() && record.continuations() == 0
}

impl Effect {
    /// What all of these moved.
    pub(crate) fn of_all<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        records.map(Self::of).fold(Self::NONE, Self::then)
    }

    pub(crate) const NONE: Self =
        Self { on_chain: 0, net: 0, held: Some(0), captured: Some(0), owed: 0, exposure: 0, units: 0 };

    pub(crate) fn of(record: &Record) -> Self {
        let none = Self::NONE;
        let Some(kind) = record.kind().filter(|_| record.code().is_some_and(Code::is_success)) else {
            return none;
        };
        let (amount, result) = (bounded(record.amount.0), bounded(record.result.0));
        let change: ChangeBody = if kind.changes_a_lock() { record.body() } else { ChangeBody::default() };
        let freed = bounded_signed(change.freed);
        match kind {
            Kind::Lock if record.flags().has(Flags::SALE) => {
                Self { net: -result, captured: Some(result), ..none }
            }
            Kind::Lock => Self { net: -result, held: Some(result), ..none },
            Kind::Increase => Self { net: -result, held: Some(result), ..none },
            Kind::Decrease | Kind::Release | Kind::Expire => Self { net: freed, held: Some(-result), ..none },
            Kind::Capture | Kind::Advice => {
                let is_final = record.flags().has(Flags::FINAL);
                let held = if is_final { None } else { Some(-(result + freed)) };
                let exposure = if kind == Kind::Advice { amount - result } else { 0 };
                Self { net: freed, held, captured: Some(result), exposure, ..none }
            }
            Kind::Reverse => Self { net: freed, held: None, captured: Some(-result), ..none },
            Kind::Refund | Kind::AutoSettle => Self { net: freed, captured: Some(-result), ..none },
            Kind::Settle if change.capture == ALL_CAPTURES => {
                Self { net: freed, held: None, captured: None, ..none }
            }
            Kind::Settle => Self { net: freed, captured: Some(-result), ..none },
            Kind::Consume | Kind::AutoConsume => Self::of_consume(record, result),
            Kind::ReleaseGroup => Self { net: result, ..none },
            Kind::Mature => Self { net: freed, ..none },
            Kind::Deposit => {
                let units = bounded(record.body::<StakeBody>().units);
                Self { on_chain: amount, net: amount, units, ..none }
            }
            Kind::Reward => Self { on_chain: amount, net: amount, ..none },
            // What is queued moves nothing, and has no units in its body.
            Kind::Withdraw => {
                let units = bounded(record.body::<StakeBody>().units);
                Self { net: -result, owed: result, units: -units, ..none }
            }
            Kind::WithdrawPaid => Self { net: -result, owed: result, units: -amount, ..none },
            Kind::BatchFinal => Self { on_chain: -amount, owed: -amount, ..none },
            Kind::GuaranteePaid => {
                Self { on_chain: -amount, net: freed - (amount - result), held: None, captured: None, ..none }
            }
            Kind::Deficit => Self { on_chain: -amount, net: -amount, ..none },
            Kind::Cover | Kind::WriteOff => Self { exposure: -amount, ..none },
            _ => none,
        }
    }

    fn of_consume(record: &Record, paid: i128) -> Self {
        let body: ConsumeBody = record.body();
        let freed = bounded_signed(body.freed);
        let is_short = record.flags().has(Flags::EXPOSED);
        // A shortfall stands where else stands what was freed, and moved nothing.
        let (net, exposure) = if is_short { (0, -freed) } else { (freed, 0) };
        let is_of_held = body.capture == ALL_CAPTURES;
        Self {
            net,
            exposure,
            owed: paid,
            held: if is_of_held { None } else { Some(0) },
            captured: if is_of_held { Some(0) } else { None },
            ..Self::NONE
        }
    }

    /// Both after each other.
    pub(crate) fn then(self, next: Self) -> Self {
        let both =
            |one: Option<i128>, two: Option<i128>| one.zip(two).map(|(one, two)| one.wrapping_add(two));
        Self {
            on_chain: self.on_chain.wrapping_add(next.on_chain),
            net: self.net.wrapping_add(next.net),
            held: both(self.held, next.held),
            captured: both(self.captured, next.captured),
            owed: self.owed.wrapping_add(next.owed),
            exposure: self.exposure.wrapping_add(next.exposure),
            units: self.units.wrapping_add(next.units),
        }
    }

    /// Whether it leads from what there was to what there is.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn check(&self, before: &Balances, after: &Balances) -> Result<(), String> {
        let sum = |parts: &[u128]| parts.iter().fold(0_u128, |sum, part| sum.wrapping_add(*part));
        let parts = [after.free, after.held, after.captured, after.pending, after.owed];
        let is_balanced = sum(&[after.on_chain, after.deficit]) == sum(&parts);
        if !is_balanced || after.deficit > 0 && after.free > 0 {
            return Err("K + D = F + H + U + P + W does not hold".into());
        }
        let change = |of: fn(&Balances) -> u128| of(after).wrapping_sub(of(before)).cast_signed();
        let net = change(|money| money.free).wrapping_sub(change(|money| money.deficit));
        // A deposit where all was lost begins new units.
        let is_anew = before.equity() == 0 && self.units > 0 && after.units.cast_signed() == self.units;
        let units = if is_anew { self.units } else { change(|money| money.units) };
        let told = [
            ("on_chain", Some(self.on_chain), change(|money| money.on_chain)),
            ("free less deficit", Some(self.net), net),
            ("held", self.held, change(|money| money.held)),
            ("captured", self.captured, change(|money| money.captured)),
            ("owed", Some(self.owed), change(|money| money.owed)),
            ("exposure", Some(self.exposure), change(|money| money.exposure)),
            ("units", Some(self.units), units),
        ];
        compare(&told)
    }
}

impl MerchantEffect {
    /// What all of these moved.
    pub(crate) fn of_all<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        records.map(Self::of).fold(Self::NONE, Self::then)
    }

    pub(crate) const NONE: Self = Self {
        held: Some(0),
        captured: Some(0),
        settled: Some(0),
        refunded: Some(0),
        released: Some(0),
        expired: 0,
        consumed: 0,
        guarantees: 0,
        added: Some(0),
    };

    pub(crate) fn of(record: &Record) -> Self {
        let money = Effect::of(record);
        let none = Self { held: money.held, captured: money.captured, ..Self::NONE };
        let Some(kind) = record.kind().filter(|_| record.code().is_some_and(Code::is_success)) else {
            return none;
        };
        let (amount, result) = (bounded(record.amount.0), bounded(record.result.0));
        let change: ChangeBody = if kind.changes_a_lock() { record.body() } else { ChangeBody::default() };
        match kind {
            Kind::Lock | Kind::Increase => Self { added: Some(result), ..none },
            Kind::Decrease | Kind::Release => Self { released: Some(result), ..none },
            Kind::Expire => Self { expired: result, ..none },
            // What was drawn from F joins; what the last capture gives back hides how much that was.
            Kind::Capture | Kind::Advice if record.flags().has(Flags::FINAL) => {
                Self { released: None, added: None, ..none }
            }
            Kind::Capture | Kind::Advice => Self { added: Some(-bounded_signed(change.freed)), ..none },
            Kind::Reverse => Self { released: None, ..none },
            Kind::Refund => Self { refunded: Some(result), ..none },
            Kind::AutoSettle => Self { settled: Some(result), ..none },
            Kind::Settle if change.capture == ALL_CAPTURES => Self { settled: None, released: None, ..none },
            Kind::Settle => Self { settled: Some(result), ..none },
            // What was paid leaves; of a lock in a quote currency more than that may have been used up or given back.
            Kind::Consume | Kind::AutoConsume => {
                Self { consumed: result, refunded: None, added: None, ..none }
            }
            Kind::GuaranteePaid => {
                Self { guarantees: amount, settled: None, released: None, added: None, ..none }
            }
            _ => none,
        }
    }

    /// Both after each other.
    pub(crate) fn then(self, next: Self) -> Self {
        let both =
            |one: Option<i128>, two: Option<i128>| one.zip(two).map(|(one, two)| one.wrapping_add(two));
        Self {
            held: both(self.held, next.held),
            captured: both(self.captured, next.captured),
            settled: both(self.settled, next.settled),
            refunded: both(self.refunded, next.refunded),
            released: both(self.released, next.released),
            expired: self.expired.wrapping_add(next.expired),
            consumed: self.consumed.wrapping_add(next.consumed),
            guarantees: self.guarantees.wrapping_add(next.guarantees),
            added: both(self.added, next.added),
        }
    }

    /// Whether the changes of a merchant's totals are these.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn check(&self, changes: &[i128; MerchantTotals::LEN]) -> Result<(), String> {
        let [held, captured, _, settled, refunded, consumed, released, expired, guarantees] = *changes;
        let parts = [held, captured, settled, refunded, released, expired];
        let added = parts.iter().fold(0_i128, |sum, part| sum.wrapping_add(*part));
        compare(&[
            ("held", self.held, held),
            ("captured", self.captured, captured),
            ("settled", self.settled, settled),
            ("refunded", self.refunded, refunded),
            ("released", self.released, released),
            ("expired", Some(self.expired), expired),
            ("consumed", Some(self.consumed), consumed),
            ("guarantees", Some(self.guarantees), guarantees),
            ("all but what was paid", self.added, added),
        ])
    }
}

fn compare(told: &[(&str, Option<i128>, i128)]) -> Result<(), String> {
    for (name, expected, found) in told {
        if expected.is_some_and(|expected| expected != *found) {
            let expected = expected.unwrap_or_default();
            return Err(format!("the record moves {expected} of {name}, the row moved {found}"));
        }
    }
    Ok(())
}
