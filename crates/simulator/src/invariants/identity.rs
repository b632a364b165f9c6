//! `K + D = F + H + U + P + W`; a deficit leaves nothing free and stops locks; what is guaranteed is covered; and from scratch
//! after each recovery.

use ledger::{Ledger, Totals};

use super::{Violation, hold};

const NAME: &str = "identity";

pub(super) fn check(totals: &Totals) -> Result<(), Violation> {
    let guaranteed = [totals.held, totals.captured, totals.pending, totals.owed];
    let sum = guaranteed.iter().try_fold(0_u128, |sum, part| sum.checked_add(*part));
    let left = totals.on_chain.checked_add(totals.deficit);
    let right = sum.and_then(|sum| sum.checked_add(totals.free));
    hold(NAME, left.is_some() && left == right, || format!("K + D is not F + H + U + P + W: {totals:?}"))?;
    hold(NAME, totals.deficit == 0 || totals.free == 0 && totals.is_frozen, || {
        format!("a deficit with something free, or not frozen: {totals:?}")
    })?;
    hold(NAME, sum <= left, || format!("H + U + P + W is more than K + D: {totals:?}"))
}

/// Sums over locks and captures, units, counts and the state hash, all added up again.
pub(super) fn check_whole(ledger: &Ledger) -> Result<(), Violation> {
    ledger.verify().map_err(|violation| Violation::new(NAME, violation.to_string()))
}
