//! The engine inside the payment network's own process: the same client, without a network in between.
//!
//! Run it with `cargo run -p surety-client --example embedded`. It starts the shard threads in this process, makes a client
//! over memory for each role, and pays with the same calls as over QUIC. The log is as durable, and `surety verify` reads
//! it as it reads any other.

mod stage;

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use server::Embedded;
use surety_client::protocol::{ActorId, Amount, Caller, MerchantId, Roles, TenantId};
use surety_client::{Client, LockRef, LockRequest, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = stage::directory()?;
    let engine = Embedded::start(stage::config(directory.path()))?;

    // Over the network a certificate says who calls; here the embedder does.
    let operator = client(&engine, TenantId(0), Roles::ADMIN).await?;
    let acquirer = client(&engine, stage::TENANT, Roles::AUTHORIZER).await?;
    let partition = stage::stake(&operator, &[1_000_000]).await?[0];

    let started = Instant::now();
    let payments: u32 = 1_000;
    for _ in 0..payments {
        let lock = LockRequest::new(partition, Amount(100), MerchantId(7));
        let reply = stage::approved(acquirer.send(lock).await?)?;
        stage::approved(acquirer.send(LockRef::new(partition, reply.id).release()).await?)?;
    }
    let each = started.elapsed() / (2 * payments);
    println!("{payments} payments locked and released, one at a time, {each:?} for each request");

    let ends = engine.shutdown();
    println!("sealed: {} shards, the first at seq {}", ends.len(), ends[0].seq);
    Ok(())
}

async fn client(engine: &Embedded, tenant: TenantId, roles: Roles) -> Result<Client, Box<dyn Error>> {
    let caller = Caller { tenant, roles, actor: ActorId(1) };
    Ok(Client::over(Arc::new(engine.connector(caller)), Options::default(), &[]).await?)
}
