//! No certified lock stays unpaid: what its certificate states was credited to its merchant by batches, or is paid when it is called.

use std::collections::BTreeMap;

use settlement::LockId;
use surety_protocol::{ConsumeBody, Record};

use super::{Violation, hold};
use crate::chain::{CallState, State};

const NAME: &str = "a certified lock is paid";

#[derive(Clone, Debug, Default)]
pub(super) struct CertifiedPaid {
    /// What the engine has consumed of each lock.
    consumed: BTreeMap<LockId, u128>,
}

impl CertifiedPaid {
    /// A consumption in the synced log.
    pub(super) fn on_consumed(&mut self, record: &Record) {
        let ConsumeBody { lock, .. } = record.body();
        let lock = LockId { tenant: record.tenant, partition: record.partition, id: lock };
        *self.consumed.entry(lock).or_default() += record.result.0;
    }

    /// Every call has come to its end; all that it was about was paid or credited.
    pub(super) fn check_end(&self, state: &State) -> Result<(), Violation> {
        for (lock, call) in &state.calls {
            let consumed = self.consumed.get(lock).copied().unwrap_or(0);
            let paid = match call.state {
                CallState::Waits => None,
                CallState::Dismissed => Some(0),
                CallState::Paid(amount) => Some(amount),
            };
            hold(NAME, paid.is_some_and(|paid| paid + consumed >= call.certificate.amount), || {
                format!("{lock:?}: {consumed} credited, {call:?}")
            })?;
        }
        Ok(())
    }
}
