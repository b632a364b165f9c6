//! Another boot clock, as after a reboot or a migration: a day ahead, then back again, in a time namespace. Whatever it
//! reads, locks keep their deadlines.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use surety_client::LockRequest;
use surety_protocol::{Amount, End, MerchantId, Reply};

use crate::bench::Bench;
use crate::report::Report;
use crate::surety::Surety;
use crate::witness;

/// A day, which is more than the long lock lives.
const AHEAD_S: &str = "86400";
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(1);
/// How long the expiry of a short lock is waited for.
const EXPIRY_PATIENCE: Duration = Duration::from_secs(20);

/// Restarts an engine with another boot clock, and with the first one again.
pub(super) fn run(surety: &Surety, report: &mut Report) -> Result<()> {
    if !can_shift() {
        report.skip("a shifted boot clock", "no time namespaces (they need root, unshare and Linux 5.6)");
        return Ok(());
    }
    let mut bench = Bench::new(surety, 1, 1 << 20)?;
    let mut engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    let data = bench.data().to_owned();
    let address = engine.address()?;
    let long = witness::runtime()?.block_on(lock(address, &data, LONG))?;
    for is_ahead in [true, false] {
        engine.terminate()?;
        bench.serve.inside = if is_ahead { shifted() } else { Vec::new() };
        engine = bench.start()?;
        bench.load()?.wait_for(200, || Ok(false))?;
        witness::runtime()?.block_on(async {
            let short = lock(address, &data, SHORT).await?;
            let lives = look(address, &data, &long).await?;
            report.expect(lives.end() == End::Live && lives.deadline == long.deadline, || {
                format!("with another boot clock a lock ended early: {long:?}, then {lives:?}")
            });
            let begun = Instant::now();
            while look(address, &data, &short).await?.end() == End::Live {
                if begun.elapsed() > EXPIRY_PATIENCE {
                    report.fault("with another boot clock a lock lives on behind its deadline");
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        })?;
        report.add("boot_clocks", 1);
    }
    bench.finish(engine, report)
}

/// A command line that runs what follows it with a boot clock that is ahead.
fn shifted() -> Vec<OsString> {
    let line = ["unshare", "-T", "--fork", "--kill-child", "--boottime", AHEAD_S, "--monotonic", AHEAD_S];
    line.map(OsString::from).to_vec()
}

fn can_shift() -> bool {
    let mut line = shifted().into_iter();
    let Some(program) = line.next() else { return false };
    let status =
        Command::new(program).args(line).arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

async fn lock(address: std::net::SocketAddr, data: &std::path::Path, life: Duration) -> Result<Reply> {
    let client = witness::connect(address, data, "authorizer").await?;
    let request = LockRequest { life, ..LockRequest::new(witness::partition(0)?, Amount(7), MerchantId(3)) };
    let reply = client.send(request).await.context("a lock")?;
    client.close();
    Ok(reply)
}

async fn look(address: std::net::SocketAddr, data: &std::path::Path, lock: &Reply) -> Result<Reply> {
    let client = witness::connect(address, data, "authorizer").await?;
    let reply = client.lookup(witness::partition(0)?, lock.id, false).await.context("a look-up")?;
    client.close();
    Ok(reply)
}
