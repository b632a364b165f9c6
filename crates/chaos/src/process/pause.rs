//! SIGSTOP: for the process no time passes, for everybody else it does.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use surety_client::{Client, LockRequest};
use surety_protocol::{Amount, End, MerchantId, Reply};

use crate::bench::Bench;
use crate::report::Report;
use crate::surety::Surety;
use crate::witness;

/// How much longer than the stop the long lock lives, even on a slow machine.
const MARGIN: Duration = Duration::from_secs(60);
/// How long the expiry of the short lock is waited for.
const EXPIRY_PATIENCE: Duration = Duration::from_secs(20);

/// Stops and continues an engine under load.
pub(super) fn run(surety: &Surety, seconds: u64, report: &mut Report) -> Result<()> {
    let stop = Duration::from_secs(seconds);
    let mut bench = Bench::new(surety, 1, 1 << 20)?;
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    let address = engine.address()?;
    let data = bench.data().to_owned();
    witness::runtime()?.block_on(async {
        let client = witness::connect(address, &data, "authorizer").await?;
        let short = lock(&client, stop / 2).await?;
        let long = lock(&client, stop + MARGIN).await?;
        engine.signal(Signal::STOP)?;
        // That time passes is the fault.
        tokio::time::sleep(stop).await;
        engine.signal(Signal::CONT)?;
        let lives = look(&client, &long).await?;
        report.expect(lives.end() == End::Live && lives.deadline == long.deadline, || {
            format!("a lock ended early: {long:?}, then {lives:?}")
        });
        let begun = std::time::Instant::now();
        loop {
            let ended = look(&client, &short).await?;
            if ended.end() == End::Expired {
                report.expect(ended.time >= short.deadline, || format!("expired early: {ended:?}"));
                break;
            }
            if begun.elapsed() > EXPIRY_PATIENCE {
                report.fault(format!("a lock lives on behind its deadline: {ended:?}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        client.close();
        anyhow::Ok(())
    })?;
    report.set("stopped_s", seconds);
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)?;
    Ok(())
}

async fn lock(client: &Client, life: Duration) -> Result<Reply> {
    let request = LockRequest { life, ..LockRequest::new(witness::partition(0)?, Amount(7), MerchantId(3)) };
    client.send(request).await.context("a lock")
}

async fn look(client: &Client, lock: &Reply) -> Result<Reply> {
    client.lookup(witness::partition(0)?, lock.id, false).await.context("a look-up")
}
