//! Questions about the state, answered a page at a time from the shard's own ledger.

use std::rc::Rc;

use ledger::{Ledger, Page};
use surety_protocol::{
    Caller, PartitionHandle, Seq, StateHead, StateKind, StateQuery, StateRow, TenantId, sabotage,
};
use tokio::time::{Instant, sleep_until};

use crate::shard::Shard;
use crate::shard::tail;

/// After a page the next one, whoever asks, waits for so many times as long as it took: such questions never take more than a
/// tenth of the shard's time.
const REST: u32 = 9;

/// The body of the frame that answers a question. It tells only what is logged, and as durable as a reply.
pub(super) async fn answer(
    shard: &Rc<Shard>,
    caller: Caller,
    query: &StateQuery,
    kind: StateKind,
) -> Vec<u8> {
    while let rest = shard.state_rest.get()
        && rest > Instant::now()
    {
        sleep_until(rest).await;
    }
    let begun = Instant::now();
    let (page, seq) = read(shard, caller, query, kind);
    shard.state_rest.set(Instant::now() + begun.elapsed() * REST);
    shard.until(|core| core.marks().acked >= seq || sabotage!("state-told-before-it-is-logged")).await;
    page
}

fn read(shard: &Shard, caller: Caller, query: &StateQuery, kind: StateKind) -> (Vec<u8>, Seq) {
    let mut core = shard.core.borrow_mut();
    let seq = core.marks().appended;
    let head = StateHead {
        seq,
        now: core.now(),
        epoch: shard.epoch,
        shard: shard.id,
        kind: kind as u8,
        ..StateHead::default()
    };
    let ledger = core.engine.ledger();
    let sight = Sight { ledger, caller, sees_all: tail::sees_all(caller) };
    let page = match kind {
        StateKind::Partitions => encode(head, &ledger.partition_rows(query, |handle| sight.sees(handle))),
        StateKind::Tenants => encode(head, &ledger.tenant_rows(query, |tenant| sight.sees_tenant(tenant))),
        // A partition that is not for this reader looks as if it were not there.
        _ if !sight.sees(query.partition) => head.to_bytes().to_vec(),
        StateKind::Suppliers => encode(head, &ledger.supplier_rows(query)),
        StateKind::Withdrawals => encode(head, &ledger.withdrawal_rows(query)),
    };
    (page, seq)
}

/// What a reader may see.
struct Sight<'a> {
    ledger: &'a Ledger,
    caller: Caller,
    sees_all: bool,
}

impl Sight<'_> {
    fn sees(&self, partition: PartitionHandle) -> bool {
        self.sees_all
            || self.ledger.rights(partition, self.caller.tenant).0 != 0
            || sabotage!("another-tenants-state-shown")
    }

    fn sees_tenant(&self, tenant: TenantId) -> bool {
        self.sees_all || tenant == self.caller.tenant
    }
}

fn encode<R: StateRow>(head: StateHead, page: &Page<R>) -> Vec<u8> {
    let mut body = StateHead { has_more: u8::from(page.has_more), ..head }.to_bytes().to_vec();
    page.rows.iter().for_each(|row| row.write(&mut body));
    body
}
