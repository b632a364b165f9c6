//! A lock pays its merchant by batch or by guarantee, never both; what was captured is not paid twice.

use std::collections::BTreeMap;

use surety_protocol::{ChangeBody, Code, Id, Kind, PartitionHandle, Record, TenantId};

use super::{Violation, hold};

const NAME: &str = "a lock pays once";

#[derive(Clone, Debug, Default)]
pub(super) struct AtMostOnce {
    /// Locks whose guarantee the chain has paid.
    closed: BTreeMap<(TenantId, PartitionHandle, Id), ()>,
}

impl AtMostOnce {
    pub(super) fn on_record(&mut self, record: &Record) -> Result<(), Violation> {
        if !record.code().is_some_and(Code::is_success) {
            return Ok(());
        }
        let key = |record: &Record| (record.tenant, record.partition, record.body::<ChangeBody>().lock);
        match record.kind() {
            Some(Kind::GuaranteePaid) => {
                let before = self.closed.insert(key(record), ());
                hold(NAME, before.is_none(), || format!("a guarantee is paid again: {record:?}"))
            }
            Some(Kind::Consume | Kind::AutoConsume) => {
                let is_closed = self.closed.contains_key(&key(record));
                hold(NAME, !is_closed, || format!("consumed after its guarantee was paid: {record:?}"))
            }
            _ => Ok(()),
        }
    }
}
