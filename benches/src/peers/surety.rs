//! Surety itself, over QUIC, as its own process would be: server thread and client thread on a core each.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use server::Durability;
use surety_client::{Client, PackedLink};
use surety_protocol::{Amount, ChangeBody, Id, Kind, LockBody, MerchantId, Record, Reply, Roles, ShardId};

use super::{Link, PARTITIONS, Payment, Peer};
use crate::locks::{Bench, Setting};
use crate::mix::{TENANT, partition};

/// A server of its own.
pub struct Surety {
    bench: Bench,
    identity: surety_client::Identity,
    durability: Durability,
    busy_poll: Duration,
}

/// A connection.
pub struct SuretyLink {
    link: PackedLink,
    /// Opened the link, and keeps its endpoint.
    client: Client,
    replies: Vec<Reply>,
}

impl Surety {
    /// Starts a server on a fresh directory and furnishes it. It looks for the next request for so long before it goes to sleep.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(parent: &Path, durability: Durability, busy_poll: Duration) -> anyhow::Result<Self> {
        let setting = Setting { partitions: PARTITIONS, busy_poll, ..Setting::new(durability) };
        let bench = Bench::start(parent, setting)?;
        let identity = bench.identity(TENANT, Roles::AUTHORIZER)?;
        Ok(Self { bench, identity, durability, busy_poll })
    }
}

impl Peer for Surety {
    type Link = SuretyLink;

    async fn connect(&self) -> anyhow::Result<SuretyLink> {
        let client = Client::connect(self.bench.address(), self.identity.clone()).await?;
        let link = client.packed(ShardId(0)).await?;
        Ok(SuretyLink { link, client, replies: Vec::new() })
    }

    fn settings(&self) -> String {
        let durability = match self.durability {
            Durability::Fsync => "fsync",
            Durability::Os => "os",
        };
        let polling = match self.busy_poll {
            Duration::ZERO => String::new(),
            span => format!(" --busy-poll {span:?}"),
        };
        format!(
            "surety --durability {durability}{polling} --io direct, one shard, QUIC with TLS 1.3, requests of one connection in one frame"
        )
    }
}

impl SuretyLink {
    async fn run(&mut self, count: usize) -> anyhow::Result<()> {
        self.link.flush().await?;
        self.replies.clear();
        while self.replies.len() < count {
            self.link.receive(&mut self.replies).await?;
        }
        let other = self.replies.iter().find(|reply| !reply.code().is_success());
        ensure!(other.is_none(), "Surety answered {other:?}");
        Ok(())
    }
}

impl Link for SuretyLink {
    async fn lock(&mut self, payments: &[Payment]) -> anyhow::Result<()> {
        let body = LockBody { merchant: MerchantId(1), ..LockBody::default() };
        for payment in payments {
            let amount = Amount(payment.amount.into());
            let lock = Record::new(Kind::Lock, Id(payment.id), partition(payment.partition), amount, &body);
            self.link.push(&lock.to_bytes());
        }
        self.run(payments.len()).await
    }

    async fn release(&mut self, payments: &[Payment]) -> anyhow::Result<()> {
        for payment in payments {
            let body = ChangeBody { lock: Id(payment.id), ..ChangeBody::default() };
            let handle = partition(payment.partition);
            let release = Record::new(Kind::Release, self.client.new_id(), handle, Amount::ZERO, &body);
            self.link.push(&release.to_bytes());
        }
        self.run(payments.len()).await
    }
}
