//! What every example needs: a development engine on a directory of its own, and a tenant with collateral.
//!
//! In production the engine is `surety serve`, identities come from `surety cert`, and the operator makes partitions with
//! `surety ctl`; an acquirer's code begins where these functions end.
#![allow(dead_code, reason = "each example uses its part")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use server::{Config, Durability, Running, Server};
use surety_client::protocol::{
    Address, Amount, AssetId, Code, PartitionHandle, Policy, Reply, Rights, ShardId, TenantBody, TenantId,
    Time,
};
use surety_client::{Client, Draft, Identity, request};
use tempfile::TempDir;

/// The tenant of the development identity `authorizer`.
pub(crate) const TENANT: TenantId = TenantId(1);

/// Bytes of a log segment: small, examples must not fill the disk; but all that one of them writes, a block of 4 KiB for each
/// request that comes alone, fits into the first. On a busy machine the next segment may come late, and a request that finds no
/// room is answered OVERLOADED.
const SEGMENT_BYTES: u64 = 16 << 20;

/// A data directory that is deleted with this value.
pub(crate) fn directory() -> Result<TempDir, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    server::init(directory.path(), 2, SEGMENT_BYTES)?;
    Ok(directory)
}

/// How the examples serve a directory: loopback, free ports, replies once the log is with the operating system.
pub(crate) fn config(directory: &Path) -> Config {
    Config {
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        durability: Durability::Os,
        segment_bytes: SEGMENT_BYTES,
        free_bytes_min: 0,
        ..Config::new(directory)
    }
}

/// Serves a directory over QUIC.
pub(crate) fn serve(directory: &Path) -> Result<Running, Box<dyn Error>> {
    Ok(Server::start(config(directory))?)
}

/// Connects as one of the identities that `init` has made: admin, settler, authorizer, reader.
pub(crate) async fn connect(
    running: &Running,
    directory: &Path,
    who: &str,
) -> Result<Client, Box<dyn Error>> {
    let file = server::pki_path(directory).join(who).with_extension("pem");
    Ok(Client::connect(running.addresses()[0], Identity::from_file(file)?).await?)
}

/// Makes partitions with so much collateral each, open to the tenant; even ones on shard 0, odd ones on shard 1.
pub(crate) async fn stake(admin: &Client, amounts: &[u128]) -> Result<Vec<PartitionHandle>, Box<dyn Error>> {
    let body = TenantBody {
        tenant: TENANT,
        locks_max: 1_000_000,
        ids_max: 1_000_000,
        tombstones_max: 1_000,
        advices_max: 1_000,
        enabled: 1,
        ..TenantBody::default()
    };
    for shard in 0..admin.shards() {
        let shard = PartitionHandle::new(ShardId(shard), 0);
        approved(admin.send(request::set_tenant(shard, &body)).await?)?;
    }
    let mut partitions = Vec::new();
    for (index, amount) in (0_u8..).zip(amounts) {
        let partition =
            PartitionHandle::new(ShardId(u16::from(index) % admin.shards()), 1 + u64::from(index));
        let mut onchain = [index; 32];
        onchain[0] = 0xee;
        approved(admin.send(request::create_partition(partition, onchain, AssetId(1), false)).await?)?;
        let policy = Policy { life_default: Time::from_secs(60), ..Policy::default() };
        approved(admin.submit_long(&request::set_policy(admin.new_id(), partition, &policy)).await?)?;
        approved(admin.send(request::grant(partition, TENANT, Rights::KNOWN)).await?)?;
        let deposit: Draft = request::deposit(partition, Address([7; 20]), Amount(*amount), 1);
        approved(admin.send(deposit).await?)?;
        partitions.push(partition);
    }
    Ok(partitions)
}

/// The reply, if it is an approval.
pub(crate) fn approved(reply: Reply) -> Result<Reply, Box<dyn Error>> {
    match reply.code() {
        Code::Approved => Ok(reply),
        code => Err(format!("a request that should have been approved was answered {code}").into()),
    }
}
