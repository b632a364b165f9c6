//! A supply is credited once, as it was made, and not before it is final.

use std::collections::{BTreeMap, BTreeSet};

use settlement::Hash;
use surety_protocol::{Address, Record, StakeBody};

use super::{Violation, hold};

const NAME: &str = "a supply is credited once, and once it is final";

#[derive(Clone, Debug, Default)]
pub(super) struct CreditedOnce {
    /// Final supplies by their number.
    supplied: BTreeMap<u64, (Hash, Address, u128)>,
    credited: BTreeSet<u64>,
}

impl CreditedOnce {
    /// A supply is in a final block.
    pub(super) fn on_final(&mut self, partition: Hash, supplier: Address, amount: u128, nonce: u64) {
        self.supplied.insert(nonce, (partition, supplier, amount));
    }

    /// The engine has credited one.
    pub(super) fn on_deposit(&mut self, partition: Hash, record: &Record) -> Result<(), Violation> {
        let StakeBody { supplier, nonce, .. } = record.body();
        let found = (partition, supplier, record.result.0);
        let supplied = self.supplied.get(&nonce).copied();
        hold(NAME, supplied == Some(found), || format!("final is {supplied:?}, credited {record:?}"))?;
        hold(NAME, self.credited.insert(nonce), || format!("credited again: {record:?}"))
    }

    pub(super) fn is_credited(&self, nonce: u64) -> bool {
        self.credited.contains(&nonce)
    }
}
