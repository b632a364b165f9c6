//! No payee is ever credited more than the log owes it; and once nothing goes wrong any more, each is credited all of it.

use std::collections::BTreeMap;

use settlement::Hash;
use surety_protocol::{
    Address, ConsumeBody, Flags, Id, Kind, LockBody, MerchantBody, MerchantId, PartitionHandle, Record,
    StakeBody, TenantId,
};

use super::{Violation, hold};
use crate::chain::State;

const NAME: &str = "everybody is credited what is owed, and no more";

type Lock = (TenantId, PartitionHandle, Id);
type Merchant = (TenantId, MerchantId);

#[derive(Clone, Debug, Default)]
pub(super) struct SettledFully {
    /// Where merchants are paid now.
    payees: BTreeMap<Merchant, Address>,
    /// Where a certificate says that its lock is paid.
    certified: BTreeMap<Lock, Address>,
    /// Owed to payees, ever, by on-chain id.
    owed: BTreeMap<(Hash, Address), u128>,
    /// Owed to merchants whose payee is not known.
    unnamed: BTreeMap<(Hash, Merchant), u128>,
}

impl SettledFully {
    /// A record of the synced log, which succeeded; its partition's on-chain id.
    pub(super) fn on_record(&mut self, kind: Kind, onchain: Hash, record: &Record) {
        let amount = record.result.0;
        match kind {
            Kind::MerchantSet => self.name(record),
            Kind::Lock if record.flags().has(Flags::CERTIFIED) => {
                let merchant = (record.tenant, record.body::<LockBody>().merchant);
                if let Some(payee) = self.payees.get(&merchant) {
                    self.certified.insert((record.tenant, record.partition, record.id), *payee);
                }
            }
            Kind::Consume | Kind::AutoConsume => {
                let ConsumeBody { lock, merchant, .. } = record.body();
                let merchant = (record.tenant, merchant);
                let certified = self.certified.get(&(record.tenant, record.partition, lock));
                match certified.or_else(|| self.payees.get(&merchant)).copied() {
                    Some(payee) => *self.owed.entry((onchain, payee)).or_default() += amount,
                    None => *self.unnamed.entry((onchain, merchant)).or_default() += amount,
                }
            }
            Kind::Withdraw | Kind::WithdrawPaid => {
                let StakeBody { supplier, .. } = record.body();
                *self.owed.entry((onchain, supplier)).or_default() += amount;
            }
            _ => {}
        }
    }

    pub(super) fn check(&self, state: &State) -> Result<(), Violation> {
        for (key, credit) in &state.credits {
            let owed = self.owed.get(key).copied().unwrap_or(0);
            hold(NAME, credit.credited <= owed, || format!("{key:?} has {credit:?}, owed is {owed}"))?;
        }
        Ok(())
    }

    pub(super) fn check_end(&self, state: &State) -> Result<(), Violation> {
        let waiting = self.unnamed.iter().find(|(_, amount)| **amount > 0);
        hold(NAME, waiting.is_none(), || format!("nobody knows the payee of {waiting:?}"))?;
        for (key, owed) in &self.owed {
            let credit = state.credits.get(key).copied().unwrap_or_default();
            hold(NAME, credit.credited == *owed, || format!("{key:?} has {credit:?}, owed is {owed}"))?;
            hold(NAME, credit.claimed == *owed, || format!("{key:?} could not take all of {credit:?}"))?;
        }
        self.check(state)
    }

    /// What was owed to a merchant without a payee goes to the one that it has now.
    fn name(&mut self, record: &Record) {
        let MerchantBody { merchant, payee, .. } = record.body();
        let named = (record.tenant, merchant);
        if payee == Address::default() {
            self.payees.remove(&named);
            return;
        }
        self.payees.insert(named, payee);
        for ((onchain, _), amount) in self.unnamed.extract_if(.., |(_, whose), _| *whose == named) {
            *self.owed.entry((onchain, payee)).or_default() += amount;
        }
    }
}
