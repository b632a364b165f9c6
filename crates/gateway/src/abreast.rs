//! How far the change stream has been read, and whether that is up to now.

use surety_client::Client;
use surety_client::protocol::{Seq, ShardId};
use surety_client::transport::OpenError;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// The shards' change streams, as far as they have been read.
pub(crate) struct Abreast {
    through: watch::Sender<Vec<Seq>>,
    /// When the engine was last asked how far it is, and its answer.
    asked: Mutex<Option<(Instant, Vec<Seq>)>>,
}

impl Abreast {
    pub(crate) fn new(shards: u16) -> Self {
        Self { through: watch::Sender::new(vec![Seq(0); usize::from(shards)]), asked: Mutex::new(None) }
    }

    /// A shard's records have been read up to here, but for those that are not for this reader.
    pub(crate) fn heard(&self, shard: ShardId, through: Seq) {
        self.through.send_modify(|all| {
            if let Some(known) = all.get_mut(usize::from(shard.0)) {
                *known = through.max(*known);
            }
        });
    }

    /// Waits until everything has been read that any reply may have spoken of before this was called. How many frames have come since
    /// says nothing: they may have been sent before.
    pub(crate) async fn catch_up(&self, client: &Client) -> Result<(), OpenError> {
        let acked = self.acked_by_now(client).await?;
        let is_read =
            |through: &Vec<Seq>| through.iter().zip(&acked).all(|(through, acked)| through >= acked);
        // The sender lives as long as this does.
        let _ = self.through.subscribe().wait_for(is_read).await;
        Ok(())
    }

    /// Of each shard the last seq that any reply may have spoken of before this was called.
    pub(crate) async fn acked_by_now(&self, client: &Client) -> Result<Vec<Seq>, OpenError> {
        self.acked(client, Instant::now()).await
    }

    /// How far the engine was at some moment since: one question serves all that wait meanwhile.
    async fn acked(&self, client: &Client, since: Instant) -> Result<Vec<Seq>, OpenError> {
        let mut asked = self.asked.lock().await;
        if let Some((at, acked)) = &*asked
            && *at >= since
        {
            return Ok(acked.clone());
        }
        let at = Instant::now();
        let mut acked = Vec::new();
        for shard in (0..client.shards()).map(ShardId) {
            acked.push(client.packed(shard).await?.hello().acked);
        }
        *asked = Some((at, acked.clone()));
        Ok(acked)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use std::time::Duration;

    use server::Embedded;
    use surety_client::protocol::{Amount, Code, Kind, LockBody, Record, Roles, TenantId};
    use tokio::time::timeout;

    use super::*;
    use crate::ask::tests::connect;
    use crate::stage;

    #[tokio::test]
    async fn what_was_read_before_is_not_up_to_now() {
        let directory = stage::directory().unwrap();
        let engine = Embedded::start(stage::config(directory.path())).unwrap();
        let operator = connect(&engine, TenantId(0), Roles::ADMIN).await;
        let partition = stage::stake(&operator, &[1000]).await.unwrap()[0];
        let client = connect(&engine, stage::TENANT, Roles::AUTHORIZER).await;
        let abreast = Abreast::new(client.shards());
        let is_up_to_now =
            async || timeout(Duration::from_millis(200), abreast.catch_up(&client)).await.is_ok();
        // The engine may log something of its own at any time.
        let reads_up_to_now = async || {
            for _ in 0..150 {
                for shard in (0..client.shards()).map(ShardId) {
                    abreast.heard(shard, client.packed(shard).await.unwrap().hello().acked);
                }
                if is_up_to_now().await {
                    return true;
                }
            }
            false
        };
        assert!(!is_up_to_now().await, "nothing has been read");
        assert!(reads_up_to_now().await);
        // Another front door locks; what is heard again is what was heard before.
        let body = LockBody::default();
        let lock = Record::new(Kind::Lock, client.new_id(), partition, Amount(100), &body);
        let reply = client.submit(lock).await.unwrap();
        assert_eq!(reply.code(), Code::Approved);
        for _ in 0..3 {
            abreast.heard(partition.shard(), Seq(reply.seq.0 - 1));
        }
        assert!(!is_up_to_now().await, "the lock has not been read");
        assert!(reads_up_to_now().await);
        engine.shutdown();
    }
}
