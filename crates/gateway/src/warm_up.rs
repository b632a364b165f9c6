//! Learning from the change stream which locks payments have, before the first message is served.

use std::sync::Arc;

use surety_client::protocol::{Seq, ShardId, Time};
use surety_client::{Tail, TailError};

use crate::desk::Desk;

/// Reads what the engine still keeps of every shard, up to what is new since now.
pub(crate) async fn warm_up(desk: &Arc<Desk>) -> Result<(), TailError> {
    let begun = desk.now();
    for shard in (0..desk.client().shards()).map(ShardId) {
        let mut from = Seq(1);
        loop {
            match read(desk, desk.client().tail(shard, from), begun).await {
                // Retention has taken what is older.
                Err(TailError::Lost { oldest, .. }) if oldest > from => from = oldest,
                other => break other?,
            }
        }
    }
    Ok(())
}

async fn read(desk: &Desk, mut tail: Tail, until: Time) -> Result<(), TailError> {
    loop {
        let batch = tail.next_batch().await?;
        desk.observe(batch.records);
        // A frame without records is sent when there is nothing new.
        if batch.records.last().is_none_or(|record| record.time >= until) {
            return Ok(());
        }
    }
}
