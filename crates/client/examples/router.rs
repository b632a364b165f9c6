//! A payment router: each payment is guaranteed by the first partition that has room, at most once, whatever breaks.
//!
//! Run it with `cargo run -p surety-client --example router`. It starts a development engine, stakes three partitions of
//! which the first two are too small, and routes payments over them over QUIC. Then it retries one of them, as a router
//! that was restarted would, and finds the lock that is there instead of making another.

mod stage;

use std::error::Error;

use surety_client::protocol::{Amount, MerchantId, PartitionHandle};
use surety_client::{LockRequest, Router, Routing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = stage::directory()?;
    let running = stage::serve(directory.path())?;
    let admin = stage::connect(&running, directory.path(), "admin").await?;
    let partitions = stage::stake(&admin, &[50, 250, 1_000_000]).await?;

    let client = stage::connect(&running, directory.path(), "authorizer").await?;
    let router = Router::new(client.clone(), partitions.clone());
    // Partition and id of the terms are the router's to fill in.
    let terms = LockRequest::new(PartitionHandle(0), Amount(100), MerchantId(7));

    let mut first = None;
    for number in 1..=4 {
        let payment = client.new_id();
        match router.pay(payment, &terms).await? {
            Routing::Locked { lock, reply, declined } => {
                println!(
                    "payment {number}: {} locked in partition {} after {} declines",
                    reply.approved,
                    lock.partition,
                    declined.len()
                );
                first.get_or_insert((payment, lock));
            }
            Routing::Declined(attempts) => println!("payment {number}: declined by all {}", attempts.len()),
            Routing::Cancelled(_) => println!("payment {number}: cancelled before"),
            Routing::Ended { reply, .. } => println!("payment {number}: {} before", reply.end()),
        }
    }

    let (payment, lock) = first.ok_or("at least one payment has found room")?;
    let again = router.pay(payment, &terms).await?;
    let Routing::Locked { lock: found, .. } = again else {
        return Err("a retry must find the lock of its payment".into());
    };
    assert_eq!(found, lock, "a retry never locks twice");
    println!("retry: found the lock of the first call in partition {}", found.partition);

    router.cancel(payment).await?;
    let state = client.lookup(lock.partition, lock.id, false).await?;
    println!("cancelled: the lock is {}", state.end());
    if !matches!(router.pay(payment, &terms).await?, Routing::Cancelled(_)) {
        return Err("a released lock is no guarantee".into());
    }
    running.shutdown();
    Ok(())
}
