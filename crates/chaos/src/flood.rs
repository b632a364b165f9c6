//! Floods: garbage, half-open handshakes, readers that do not read, streams with gaps, frames that never end. Meanwhile a
//! client that behaves is answered, memory stays flat, and the process lives.

mod packets;
mod peers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use surety_client::{Client, Identity, LockRequest, QuicOptions};
use surety_protocol::{Amount, Code, MerchantId};

use crate::bench::Bench;
use crate::engine::Engine;
use crate::report::Report;
use crate::surety::Surety;
use crate::witness;

/// How much memory a flood may take beyond what the engine had before, all its bounded queues together.
const GROWTH_MAX_BYTES: u64 = 192 << 20;
/// Replies that one connection may leave unread; small, so that many slow readers fit.
const BACKLOG_BYTES: &str = "1048576";
/// An answer that takes longer is none, even on a busy machine.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// How much.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Half-open handshakes, each from an address of its own
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    handshakes: u32,
    /// Packets of garbage, and as many that look like the first ones of a connection
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    packets: u32,
    /// Connections with a certificate that misbehave, of each kind
    #[arg(long, value_name = "N", default_value_t = 16)]
    peers: u32,
}

/// What a flood is given.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    identity: Identity,
    seed: u64,
}

/// Runs all floods, one after the other.
pub(crate) fn run(surety: &Surety, settings: &Settings, report: &mut Report) -> Result<()> {
    let mut bench = Bench::new(surety, 1, 4 << 20)?;
    bench.in_flight = 16;
    bench.serve.environment.push(("SURETY__LIMITS__BACKLOG_BYTES", BACKLOG_BYTES.to_owned()));
    // Every peer of this test has the same certificate and address.
    bench.serve.environment.push(("SURETY__LIMITS__CONNECTIONS_PER_S_CERTIFICATE", "0".to_owned()));
    bench.serve.environment.push(("SURETY__LIMITS__CONNECTIONS_PER_S_ADDRESS", "0".to_owned()));
    let engine = bench.start()?;
    bench.load()?.wait_for(2_000, || Ok(false))?;
    let identity = Identity::from_file(bench.data().join("pki/authorizer.pem"))?;
    let target = Target { address: engine.address()?, identity, seed: report.random.next() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (packets, handshakes, peers) = (settings.packets, settings.handshakes, settings.peers);
    for flood in Flood::ALL {
        let one = One { engine: &engine, target: &target, data: bench.data().to_owned() };
        let work = target.clone();
        let done = runtime.block_on(one.run(*flood, report, async move {
            match flood {
                Flood::Garbage => packets::garbage(&work, packets).await,
                Flood::Initials => packets::initials(&work, packets).await,
                Flood::HalfOpen => packets::half_open(&work, handshakes).await,
                Flood::SlowReaders => peers::slow_readers(&work, peers).await,
                Flood::Gaps => peers::gaps(&work, peers).await,
                Flood::SlowFrames => peers::slow_frames(&work, peers).await,
            }
        }))?;
        eprintln!("flood: {} done ({done}), {} faults", flood.name(), report.faults());
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)
}

#[derive(Clone, Copy, Debug)]
enum Flood {
    Garbage,
    Initials,
    HalfOpen,
    SlowReaders,
    Gaps,
    SlowFrames,
}

impl Flood {
    const ALL: &'static [Self] =
        &[Self::Garbage, Self::Initials, Self::HalfOpen, Self::SlowReaders, Self::Gaps, Self::SlowFrames];

    const fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Initials => "initials",
            Self::HalfOpen => "half_open",
            Self::SlowReaders => "slow_readers",
            Self::Gaps => "gaps",
            Self::SlowFrames => "slow_frames",
        }
    }
}

/// One flood and what is watched meanwhile.
struct One<'a> {
    engine: &'a Engine,
    target: &'a Target,
    data: PathBuf,
}

impl One<'_> {
    /// Floods, while a client that was there before is answered, and another one gets in.
    async fn run(
        &self,
        flood: Flood,
        report: &mut Report,
        work: impl Future<Output = Result<u64>> + Send + 'static,
    ) -> Result<u64> {
        let name = flood.name();
        let good = witness::connect(self.target.address, &self.data, "authorizer").await?;
        let before = self.engine.resident_bytes()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let client = tokio::spawn(behave(good.clone(), is_over.clone(), answered.clone()));
        let working = tokio::spawn(work);
        let mut most = before;
        while !working.is_finished() {
            most = most.max(self.engine.resident_bytes().context("the engine is gone")?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let done = working.await??;
        // It is over for the attacker; who comes now is let in.
        let newcomer = self.newcomer().await;
        report.expect(newcomer.is_ok(), || format!("{name}: nobody gets in any more: {}", cause(&newcomer)));
        is_over.store(true, Ordering::Relaxed);
        let slowest = client.await?;
        report.expect(slowest.is_ok(), || {
            format!("{name}: a client that behaves is not answered: {}", cause(&slowest))
        });
        good.close();
        let grown = most.saturating_sub(before);
        report.expect(grown <= GROWTH_MAX_BYTES, || format!("{name}: the engine has grown by {grown} bytes"));
        report.set(&format!("{name}_sent"), done);
        report.set(&format!("{name}_answers_meanwhile"), answered.load(Ordering::Relaxed));
        report.set(&format!("{name}_growth_mib"), grown >> 20);
        let slowest = slowest.unwrap_or_default();
        report.set(&format!("{name}_slowest_answer_ms"), u64::try_from(slowest.as_millis())?);
        Ok(done)
    }

    async fn newcomer(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match witness::connect(self.target.address, &self.data, "reader").await {
                Ok(client) => {
                    client.close();
                    return Ok(());
                }
                Err(error) if begun.elapsed() > ANSWER_PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn cause<T>(result: &Result<T>) -> String {
    result.as_ref().err().map_or_else(String::new, |error| format!("{error:#}"))
}

/// Locks, one after the other. The slowest answer. Somebody may ask for more than the disk takes: then "overloaded" is an
/// answer, too, but not the only one.
async fn behave(client: Client, is_over: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> Result<Duration> {
    let partition = witness::partition(0)?;
    let mut slowest = Duration::ZERO;
    let mut approved = 0;
    while !is_over.load(Ordering::Relaxed) || approved == 0 {
        let begun = Instant::now();
        let lock = client.send(LockRequest::new(partition, Amount(1), MerchantId(5)));
        match tokio::time::timeout(ANSWER_PATIENCE, lock).await.context("no answer in time")? {
            Ok(reply) if reply.code() == Code::Approved => approved += 1,
            Ok(reply) => anyhow::bail!("a lock is answered {}", reply.code()),
            Err(error) if error.refusal() == Some(Code::Overloaded) => {}
            Err(error) => return Err(error.into()),
        }
        slowest = slowest.max(begun.elapsed());
        answered.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(slowest)
}

impl Target {
    /// Options to dial it as somebody with a certificate.
    fn dial(&self) -> QuicOptions {
        QuicOptions::new(self.address, self.identity.clone())
    }
}
