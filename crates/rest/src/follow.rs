//! Reading a tenant's change stream: all that the engine still keeps before the first request is served, and whatever is new from
//! then on, also what other front doors do.

use std::sync::Arc;
use std::time::Duration;

use surety_client::protocol::{Cursor, Seq, ShardId};
use surety_client::{Tail, TailError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::desk::Desk;
use crate::metrics::Numbers;

/// Before a stream that was refused is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads every shard up to what it has acknowledged by now, and follows it until the tasks are dropped.
pub(crate) async fn follow(
    desk: &Arc<Desk>,
    numbers: &Arc<Numbers>,
    followers: &mut JoinSet<()>,
) -> Result<(), TailError> {
    for shard in (0..desk.client().shards()).map(ShardId) {
        let link = desk.client().packed(shard).await;
        let until = link.map_err(|error| TailError::Refused { shard, error })?.hello().acked;
        let tail = read(desk, shard, until).await?;
        followers.spawn(keep(desk.clone(), numbers.clone(), shard, tail));
    }
    Ok(())
}

/// From the oldest record that retention has left.
async fn read(desk: &Desk, shard: ShardId, until: Seq) -> Result<Tail, TailError> {
    let mut tail = desk.client().tail(shard, Seq(1));
    loop {
        match next(desk, shard, &mut tail).await {
            Ok(through) if through >= until => return Ok(tail),
            // Frames without records come in between too: of others' records nothing is told but that there were some.
            Ok(_) => {}
            Err(TailError::Lost { oldest, wanted, .. }) if oldest > wanted => {
                desk.skip(shard, Seq(oldest.0 - 1));
                tail = desk.client().tail(shard, Cursor::anew(oldest));
            }
            Err(error) => return Err(error),
        }
    }
}

async fn next(desk: &Desk, shard: ShardId, tail: &mut Tail) -> Result<Seq, TailError> {
    let batch = tail.next_batch().await?;
    desk.observe(shard, &batch);
    Ok(batch.through)
}

async fn keep(desk: Arc<Desk>, numbers: Arc<Numbers>, shard: ShardId, mut tail: Tail) {
    loop {
        let error = match next(&desk, shard, &mut tail).await {
            Ok(_) => continue,
            Err(error) => error,
        };
        numbers.stream_failures.raise();
        let from = match error {
            TailError::Lost { oldest, wanted, .. } if oldest > wanted => {
                desk.skip(shard, Seq(oldest.0 - 1));
                Cursor::anew(oldest)
            }
            TailError::Ahead { .. }
            | TailError::Parted { .. }
            | TailError::OtherHistory { .. }
            | TailError::OutOfOrder { .. } => {
                tracing::error!(%shard, %error, "the engine has another history: it is read anew");
                desk.start_over(shard);
                sleep(PAUSE).await;
                Seq(1).into()
            }
            TailError::Lost { .. } | TailError::Refused { .. } => {
                tracing::warn!(%shard, %error, "the change stream is not read");
                sleep(PAUSE).await;
                tail.position()
            }
        };
        tail = desk.client().tail(shard, from);
    }
}
