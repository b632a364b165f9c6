//! One effect for each tenant, partition and id: the log never holds the same request twice.

use std::collections::BTreeMap;

use surety_protocol::{Id, Kind, Origin, PartitionHandle, Record, Seq, TenantId};

use super::{Violation, hold};

const NAME: &str = "one effect per id";

#[derive(Clone, Debug, Default)]
pub(super) struct OneEffect {
    seen: BTreeMap<(TenantId, PartitionHandle, Id), Seq>,
}

impl OneEffect {
    pub(super) fn on_record(&mut self, seq: Seq, record: &Record) -> Result<(), Violation> {
        let Some(kind) = record.kind() else { return Ok(()) };
        // The id of a look-up is only for matching; what the engine logs has the id of what it is about.
        if matches!(kind.origin(), Origin::Engine | Origin::Part) || kind == Kind::Lookup {
            return Ok(());
        }
        // What concerns the whole shard, or makes a partition, has its ids with the shard.
        let is_shards =
            matches!(kind, Kind::TenantSet | Kind::MerchantSet | Kind::Price | Kind::PartitionCreate);
        let home =
            if is_shards { PartitionHandle::new(record.partition.shard(), 0) } else { record.partition };
        let before = self.seen.insert((record.tenant, home, record.id), seq);
        hold(NAME, before.is_none(), || format!("{seq} repeats {before:?}: {record:?}"))
    }
}
