//! Questions about the state, answered a page at a time from the shard's own ledger.

use std::rc::Rc;
use std::sync::Arc;

use ledger::Page;
use surety_protocol::{Caller, PartitionHandle, Seq, StateHead, StateKind, StateQuery, StateRow, sabotage};
use tokio::time::{Instant, sleep};

use crate::shard::Shard;
use crate::shard::tenants::Counted;
use crate::threads;

/// After a page the next one, whoever asks, waits for so many times as long as it took to put together: that never takes more
/// than a tenth of the shard's time.
const REST: u32 = 9;

/// Counts somebody who asks; none if there are as many as there may be, of the tenant or of all. As many may ask as may read
/// the change stream, and neither takes the other's place.
pub(super) fn count_asker(shard: &Shard, caller: Caller) -> Option<Counted> {
    let limits = &shard.shared.limits;
    let has_room = shard.tenant_askers.total() < limits.subscriptions;
    has_room.then(|| shard.tenant_askers.take(caller.tenant, limits.subscriptions_tenant)).flatten()
}

/// The body of the frame that answers a question. It tells only what is logged, and as durable as a reply.
pub(super) async fn answer(
    shard: &Rc<Shard>,
    caller: Caller,
    query: &StateQuery,
    kind: StateKind,
    version: u16,
) -> Vec<u8> {
    // Who has asked first is answered first.
    let turn = Arc::clone(&shard.state_turn).acquire_owned().await;
    let begun = Instant::now();
    let (page, seq) = read(shard, caller, query, kind, version);
    let rest = begun.elapsed() * REST;
    threads::spawn_task(async move {
        sleep(rest).await;
        drop(turn);
    });
    shard.until(|core| core.marks().acked >= seq || sabotage!("state-told-before-it-is-logged")).await;
    page
}

fn read(shard: &Shard, caller: Caller, query: &StateQuery, kind: StateKind, version: u16) -> (Vec<u8>, Seq) {
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
    let sees_all = caller.sees_all() || sabotage!("another-tenants-state-shown");
    let reader = (!sees_all).then_some(caller.tenant);
    let sees = |partition: PartitionHandle| reader.is_none_or(|tenant| ledger.may_read(tenant, partition));
    let page = match kind {
        StateKind::Partitions => encode(head, &ledger.partition_rows(query, reader)),
        StateKind::Tenants => {
            let mut page = ledger.tenant_rows(query, reader);
            page.rows.iter_mut().for_each(|row| *row = row.in_version(version));
            encode(head, &page)
        }
        // A partition that is not for this reader looks as if it were not there.
        _ if !sees(query.partition) => head.to_bytes().to_vec(),
        StateKind::Suppliers => encode(head, &ledger.supplier_rows(query)),
        StateKind::Withdrawals => encode(head, &ledger.withdrawal_rows(query)),
    };
    (page, seq)
}

fn encode<R: StateRow>(head: StateHead, page: &Page<R>) -> Vec<u8> {
    let mut body = StateHead { has_more: u8::from(page.has_more), ..head }.to_bytes().to_vec();
    page.rows.iter().for_each(|row| row.write(&mut body));
    body
}
