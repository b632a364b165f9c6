//! Requests of our own, repeated after a fault: a repeat of what was answered gets the same answer.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use surety_client::{Client, Identity, LockRef, LockRequest, Options, QuicOptions};
use surety_protocol::{Amount, Code, MerchantId, PartitionHandle, Record, Reply, ShardId};
use tokio::runtime::{Builder, Runtime};

use crate::report::Report;

/// Locks of one testimony; every second one is captured as well.
const LOCKS: u128 = 16;

/// What was asked and answered before a fault.
#[derive(Debug)]
pub(crate) struct Testimony(Vec<(Record, Reply)>);

/// A client of the development tenant.
pub(crate) async fn connect(address: SocketAddr, data: &Path, who: &str) -> Result<Client> {
    let options = Options { deadline: Duration::from_secs(30), ..Options::default() };
    connect_with(address, data, who, options).await
}

/// The same with another patience.
pub(crate) async fn connect_with(
    address: SocketAddr,
    data: &Path,
    who: &str,
    options: Options,
) -> Result<Client> {
    let identity = Identity::from_file(data.join("pki").join(who).with_extension("pem"))?;
    Ok(Client::connect_with(QuicOptions::new(address, identity), options).await?)
}

/// A runtime for a few calls.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// The first partition that the load has made on a shard.
pub(crate) fn partition(shard: u16) -> Result<PartitionHandle> {
    let scenario = loadtest::Scenario::load("tap")?;
    let handles = scenario.partition_handles(shard + 1);
    handles.into_iter().find(|handle| handle.shard() == ShardId(shard)).context("a partition")
}

/// Locks and captures, and keeps the answers.
pub(crate) fn testify(address: SocketAddr, data: &Path) -> Result<Testimony> {
    runtime()?.block_on(async {
        let client = connect(address, data, "authorizer").await?;
        let mut heard = Vec::new();
        for index in 0..LOCKS {
            let shard = u16::try_from(index % u128::from(client.shards().max(1)))?;
            let partition = partition_of(&client, shard)?;
            let lock = LockRequest::new(partition, Amount(1_000 + index), MerchantId(7));
            let lock = surety_client::Draft::from(lock).into_record(|| client.new_id());
            let reply = client.submit(lock).await?;
            heard.push((lock, reply));
            if index % 2 == 0 && reply.code() == Code::Approved {
                let capture = LockRef::new(partition, lock.id).capture(Amount(10));
                let capture = capture.into_record(|| client.new_id());
                heard.push((capture, client.submit(capture).await?));
            }
        }
        client.close();
        Ok(Testimony(heard))
    })
}

/// Repeats every request; the answers must be those of the first time.
pub(crate) fn repeat(
    testimony: &Testimony,
    address: SocketAddr,
    data: &Path,
    report: &mut Report,
) -> Result<()> {
    runtime()?.block_on(async {
        let client = connect(address, data, "authorizer").await?;
        for (request, first) in &testimony.0 {
            match client.submit(*request).await {
                Ok(again) => {
                    report.expect(is_same(first, &again), || {
                        format!("a repeat is answered otherwise: {first:?}, then {again:?}")
                    });
                    report.add("repeats", 1);
                }
                // On a machine that is very slow the window of ids has passed; that is no answer at all.
                Err(error) if error.refusal() == Some(Code::StaleId) => report.add("repeats_too_late", 1),
                Err(error) => report.fault(format!("a repeat is not answered: {error}")),
            }
        }
        client.close();
        Ok(())
    })
}

/// What a repeat tells again; the rest of a reply is the present state.
fn is_same(first: &Reply, again: &Reply) -> bool {
    let told = |reply: &Reply| {
        (
            reply.id,
            reply.code,
            reply.approved,
            reply.extra,
            reply.seq,
            reply.shard,
            reply.deadline,
            reply.capture,
        )
    };
    again.is_replayed() && told(first) == told(again)
}

fn partition_of(client: &Client, shard: u16) -> Result<PartitionHandle> {
    let scenario = loadtest::Scenario::load("tap")?;
    let mut handles = scenario.partition_handles(client.shards()).into_iter();
    handles.find(|handle| handle.shard() == ShardId(shard)).context("a partition")
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{REPLAYED, Seq};

    #[test]
    fn a_repeat_is_told_from_a_second_execution() {
        let first = Reply { approved: Amount(5), seq: Seq(9), version: 1, ..Reply::default() };
        let check = |again: Reply, expect| assert_eq!(is_same(&first, &again), expect, "{again:?}");
        check(Reply { flags: REPLAYED, ..first }, true);
        check(Reply { flags: REPLAYED, version: 3, free: Amount(1), ..first }, true);
        check(first, false);
        check(Reply { flags: REPLAYED, seq: Seq(10), ..first }, false);
        check(Reply { flags: REPLAYED, approved: Amount(6), ..first }, false);
    }
}
