//! A development engine on a directory of its own, a tenant with collateral, and what becomes of its locks.

use std::net::SocketAddr;

use server::{Config, Durability, Running, Server};
use surety_client::{Client, Draft, Identity, LockRef, LockRequest, request};
use surety_protocol::{
    Address, Amount, AssetId, Code, MerchantId, PartitionHandle, Policy, Reply, Rights, ShardId, TenantBody,
    TenantId, Time,
};
use tempfile::TempDir;

/// The tenant of the development identity `authorizer`.
pub const TENANT: TenantId = TenantId(1);
const SEGMENT_BYTES: u64 = 4 << 20;
pub const COLLATERAL: u128 = 1_000_000;

pub struct Engine {
    directory: TempDir,
    running: Option<Running>,
    pub admin: Client,
    pub settler: Client,
    pub shop: Client,
    pub partition: PartitionHandle,
}

impl Engine {
    /// An engine of one shard, with one partition under this policy.
    pub async fn start(policy: Policy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        server::init(directory.path(), 1, SEGMENT_BYTES).unwrap();
        let running = serve(&directory);
        let admin = connect(&running, &directory, "admin").await;
        let settler = connect(&running, &directory, "settler").await;
        let shop = connect(&running, &directory, "authorizer").await;
        let partition = PartitionHandle::new(ShardId(0), 1);
        let engine = Self { directory, running: Some(running), admin, settler, shop, partition };
        engine.stake(&policy).await;
        engine
    }

    async fn stake(&self, policy: &Policy) {
        let (admin, partition) = (&self.admin, self.partition);
        let body = TenantBody {
            tenant: TENANT,
            locks_max: 1_000,
            ids_max: 1_000,
            tombstones_max: 1_000,
            advices_max: 1_000,
            enabled: 1,
            ..TenantBody::default()
        };
        let shard = PartitionHandle::new(ShardId(0), 0);
        approved(admin.send(request::set_tenant(shard, &body)).await.unwrap());
        approved(
            admin.send(request::create_partition(partition, [0xee; 32], AssetId(1), false)).await.unwrap(),
        );
        approved(admin.submit_long(&request::set_policy(admin.new_id(), partition, policy)).await.unwrap());
        approved(admin.send(request::grant(partition, TENANT, Rights::KNOWN)).await.unwrap());
        let deposit = request::deposit(partition, Address([7; 20]), Amount(COLLATERAL), 1);
        approved(admin.send(deposit).await.unwrap());
    }

    /// A lock of which so much is captured at once, in so many parts.
    pub async fn lock(&self, amount: u128, captures: &[u128]) -> LockRef {
        let lock = LockRequest::new(self.partition, Amount(amount), MerchantId(9));
        let reply = approved(self.shop.send(lock).await.unwrap());
        let lock = LockRef::new(self.partition, reply.id);
        for capture in captures {
            approved(self.shop.send(lock.capture(Amount(*capture))).await.unwrap());
        }
        lock
    }

    /// The same lock as another engine has, under its id.
    pub async fn lock_as(&self, lock: LockRef, amount: u128, captures: &[u128]) {
        let draft = Draft::from(LockRequest::new(self.partition, Amount(amount), MerchantId(9)));
        approved(self.shop.submit(draft.into_record(|| lock.id)).await.unwrap());
        for capture in captures {
            approved(self.shop.send(lock.capture(Amount(*capture))).await.unwrap());
        }
    }

    /// What is free in the partition.
    pub async fn free(&self) -> u128 {
        let lock = LockRequest::new(self.partition, Amount(1), MerchantId(9));
        let probe = approved(self.shop.send(lock).await.unwrap());
        let released = self.shop.send(LockRef::new(self.partition, probe.id).release()).await.unwrap();
        approved(released).free.0
    }

    pub async fn show(&self, lock: LockRef) -> Reply {
        self.shop.lookup(self.partition, lock.id, false).await.unwrap()
    }

    pub async fn send(&self, draft: impl Into<Draft>) -> Reply {
        self.shop.send(draft).await.unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
        let _ = &self.directory;
    }
}

pub fn rules() -> Policy {
    Policy { life_default: Time::from_secs(3600), ..Policy::default() }
}

fn serve(directory: &TempDir) -> Running {
    let config = Config {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        durability: Durability::Os,
        segment_bytes: SEGMENT_BYTES,
        free_bytes_min: 0,
        ..Config::new(directory.path())
    };
    Server::start(config).unwrap()
}

async fn connect(running: &Running, directory: &TempDir, who: &str) -> Client {
    let file = server::pki_path(directory.path()).join(who).with_extension("pem");
    Client::connect(running.addresses()[0], Identity::from_file(file).unwrap()).await.unwrap()
}

pub fn approved(reply: Reply) -> Reply {
    assert_eq!(reply.code(), Code::Approved);
    reply
}
