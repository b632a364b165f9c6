//! An acquirer: locks, captures and settles card payments over QUIC, and books them from the change stream.
//!
//! Run it with `cargo run -p surety-client --example acquirer`. It starts a development engine, sends payments the way a
//! busy front end does (many at once; the client packs them into frames), shows what a decline and an unanswered request
//! look like, and reads its own records back from the durable stream, where bookkeeping belongs.

mod stage;

use std::error::Error;

use surety_client::protocol::{Amount, Code, Kind, MerchantId, Record, Seq};
use surety_client::{Client, Draft, LockRef, LockRequest, Outcome, SubmitError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = stage::directory()?;
    let running = stage::serve(directory.path())?;
    let admin = stage::connect(&running, directory.path(), "admin").await?;
    let partition = stage::stake(&admin, &[1_000_000]).await?[0];
    let client = stage::connect(&running, directory.path(), "authorizer").await?;

    // A hundred shoppers at once. Ids are made here, once per payment, and kept for every repeat.
    let locks: Vec<Record> = (1..=100)
        .map(|merchant| {
            let lock = LockRequest::new(partition, Amount(250), MerchantId(merchant));
            Draft::from(lock).into_record(|| client.new_id())
        })
        .collect();
    let mut held = Vec::new();
    for answer in client.submit_all(locks).await {
        held.push(stage::approved(answer?)?);
    }
    println!("{} locks of {} each", held.len(), held[0].approved);

    // The first is captured in two parts, as for two parcels; then the payer's asset is final.
    let lock = LockRef::new(partition, held[0].id);
    stage::approved(client.send(lock.capture(Amount(100))).await?)?;
    stage::approved(client.send(lock.capture_last(Amount(150))).await?)?;
    let settled = stage::approved(client.send(lock.settle()).await?)?;
    println!("captured and settled: {} are free again", settled.approved);

    // The second was never picked up; the third's payer failed, so that the merchant is owed the collateral.
    stage::approved(client.send(LockRef::new(partition, held[1].id).release()).await?)?;
    let failed = LockRef::new(partition, held[2].id);
    stage::approved(client.send(failed.capture_last(Amount(250))).await?)?;
    let consumed = stage::approved(client.send(failed.consume_capture(0)).await?)?;
    println!("consumed: {} are owed to the merchant", consumed.approved);

    // A decline is an answer, not an error.
    let greedy = client.send(LockRequest::new(partition, Amount(10_000_000), MerchantId(1))).await?;
    assert_eq!(greedy.code(), Code::Insufficient);
    println!("ten million: {}", greedy.code());

    let lock = LockRequest::new(partition, Amount(1), MerchantId(1));
    println!("one more: {}", definite(&client, Draft::from(lock).into_record(|| client.new_id())).await?);

    // The books are written from the stream: durable, in order, each record once. Keep the cursor with them.
    let mut stream = client.tail(partition.shard(), Seq(0));
    let (mut locked, mut captured) = (0, 0);
    while captured < 3 {
        let (_, record) = stream.next().await?;
        let is_success = record.code().is_some_and(Code::is_success);
        match record.kind() {
            Some(Kind::Lock) if is_success => locked += 1,
            Some(Kind::Capture) if is_success => captured += 1,
            _ => {}
        }
    }
    println!("the stream up to seq {} tells of {locked} locks and {captured} captures", stream.cursor());
    running.shutdown();
    Ok(())
}

/// How to treat a request whose answer may be lost: the type says whether it is.
async fn definite(client: &Client, request: Record) -> Result<&'static str, Box<dyn Error>> {
    match client.submit(request).await {
        Ok(reply) if reply.code().is_success() => Ok("guaranteed"),
        Ok(_) => Ok("declined"),
        // Nothing happened, and nothing will: another acquirer, or another id, may be tried.
        Err(SubmitError::NotExecuted { .. }) => Ok("not executed"),
        // It may have happened. Looking the id up, and burning it if it is not there, makes it definite.
        Err(SubmitError::Unknown { id, .. }) => match client.resolve(request.partition, id).await? {
            Outcome::Executed(_) => Ok("guaranteed, as the look-up says"),
            Outcome::Declined(_) | Outcome::Burned(_) | Outcome::Refused(_) => Ok("not guaranteed, for good"),
        },
    }
}
