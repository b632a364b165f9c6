//! Learning from the change stream which locks payments have: all that the engine still keeps before the first message is
//! served, and whatever is new from then on, also what other front doors do.

use std::sync::Arc;
use std::time::Duration;

use surety_client::protocol::{Cursor, Seq, ShardId};
use surety_client::{Tail, TailError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::desk::Desk;
use crate::gateway::StartError;

/// Before a stream that was refused is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two savings of the book.
const BOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads every shard up to what it has acknowledged by now, and follows it until the tasks are dropped. So does whatever keeps the book of
/// totals.
pub(crate) async fn follow(desk: &Arc<Desk>) -> Result<JoinSet<()>, StartError> {
    let mut ends = Vec::new();
    for shard in (0..desk.client().shards()).map(ShardId) {
        let link = desk.client().packed(shard).await;
        let until = link.map_err(|error| TailError::Refused { shard, error })?.hello().acked;
        desk.books().begin(shard, until);
        ends.push((shard, until));
    }
    let counted = desk.books().counted();
    let comparing = async { Ok(desk.books().compare(desk.client(), counted).await?) };
    // What is counted meanwhile is not written before this has come to its end.
    let ((), mut followers) = tokio::try_join!(comparing, read_all(desk, ends))?;
    desk.books().begun()?;
    followers.spawn(keep_book(desk.clone()));
    Ok(followers)
}

/// Reads each shard up to a seq, and lets it be followed from there.
async fn read_all(desk: &Arc<Desk>, ends: Vec<(ShardId, Seq)>) -> Result<JoinSet<()>, StartError> {
    let mut followers = JoinSet::new();
    for (shard, until) in ends {
        let tail = read(desk, shard, until).await?;
        followers.spawn(keep(desk.clone(), shard, tail));
    }
    Ok(followers)
}

/// Writes the book from time to time, so that a new start has less to read, and has it where retention has taken the records.
async fn keep_book(desk: Arc<Desk>) {
    loop {
        sleep(BOOK_EVERY).await;
        desk.books().save().await;
    }
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
                desk.forget(shard, oldest);
                tail = desk.client().tail(shard, Cursor::anew(oldest));
            }
            Err(error) => return Err(error),
        }
    }
}

async fn next(desk: &Desk, shard: ShardId, tail: &mut Tail) -> Result<Seq, TailError> {
    let batch = tail.next_batch().await?;
    let through = batch.through;
    desk.observe(shard, &batch);
    desk.abreast().heard(shard, through);
    Ok(through)
}

/// Follows a shard for good, or until the engine goes on without what was read of it.
async fn keep(desk: Arc<Desk>, shard: ShardId, mut tail: Tail) {
    loop {
        let from = match next(&desk, shard, &mut tail).await {
            Ok(_) => continue,
            Err(TailError::Lost { oldest, wanted, .. }) if oldest > wanted => {
                desk.forget(shard, oldest);
                Cursor::anew(oldest)
            }
            Err(error @ (TailError::Parted { .. } | TailError::OtherHistory { .. })) => {
                tracing::error!(%shard, %error, "what was learned is not what the engine has");
                desk.metrics().stream_failures.raise();
                return desk.part(error);
            }
            Err(error) => {
                tracing::warn!(%shard, %error, "the change stream is not read");
                desk.metrics().stream_failures.raise();
                sleep(PAUSE).await;
                tail.position()
            }
        };
        tail = desk.client().tail(shard, from);
    }
}
