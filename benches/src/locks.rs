//! The real thing: a server in this process, the client of the SDK, payments over QUIC on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use server::pki::DevelopmentPki;
use server::{Config, Durability, IoMode, Running, Server};
use surety_client::{Client, Identity};
use surety_protocol::{Amount, ChangeBody, Code, Id, Kind, Record, Reply, Roles, ShardId, TenantId, Time};

use crate::echo::on_client;
use crate::figures::{Latency, Recorder};
use crate::machine::cpu_of_threads;
use crate::mix::{Mix, Numbers, TENANT, furnish_one, partition_of, tenant};

/// The core of the server's one shard: it pins itself to the first.
pub const SHARD_CORE: usize = 0;
/// The core of a client that does not share the shard's.
pub const CLIENT_CORE: usize = 1;

/// Partitions that are made at the same time.
const FURNISHED_AT_ONCE: usize = 512;

/// A server on a fresh data directory.
pub struct Bench {
    running: Option<Running>,
    directory: tempfile::TempDir,
    address: SocketAddr,
}

/// How a server is run.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// What stands behind a reply.
    pub durability: Durability,
    /// How the log is written.
    pub io: IoMode,
    /// Records between two snapshots.
    pub snapshot_records: u64,
    /// Shards.
    pub shards: u16,
    /// Partitions with collateral, on each shard.
    pub partitions: u64,
    /// Locks for which memory is taken at the start.
    pub reserve_locks: usize,
    /// How long the shard looks for the next request before it goes to sleep.
    pub busy_poll: Duration,
}

impl Setting {
    /// No snapshots, 1,000 partitions, memory for the locks of a whole run: growth is paid once in a server's life, and a run of
    /// seconds would be little else. Snapshots fall into such a run or not, as chance has it, and what they cost has a row of its
    /// own.
    #[must_use]
    pub const fn new(durability: Durability) -> Self {
        Self {
            durability,
            io: IoMode::Direct,
            snapshot_records: u64::MAX / 2,
            shards: 1,
            partitions: 1_000,
            reserve_locks: 1 << 23,
            busy_poll: Duration::ZERO,
        }
    }
}

impl Bench {
    /// Starts and furnishes it.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(parent: &Path, setting: Setting) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(parent)?;
        let data = directory.path().join("data");
        server::init(&data, setting.shards, 64 << 20)?;
        let mut config = Config::new(&data);
        config.listen = Some(([127, 0, 0, 1], 0).into());
        config.durability = setting.durability;
        config.io = Some(setting.io);
        config.limits.reserve_locks = setting.reserve_locks;
        config.snapshot_records = setting.snapshot_records;
        config.busy_poll = setting.busy_poll;
        // The one shard is pinned to the first core, its helpers are not.
        let running = Server::start(config)?;
        let address = running.addresses()[0];
        let bench = Self { running: Some(running), directory, address };
        bench.furnish(setting.shards, setting.partitions)?;
        Ok(bench)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its certificates are.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        server::pki_path(&self.directory.path().join("data"))
    }

    /// The same TLS and transport for a bare echo.
    ///
    /// # Errors
    /// If the directory has no certificates.
    pub fn echo_config(&self) -> anyhow::Result<quinn::ServerConfig> {
        Ok(server::server_config(&self.pki(), &server::Limits::default())?)
    }

    /// A client identity.
    ///
    /// # Errors
    /// If the directory has no authority.
    pub fn identity(&self, tenant: TenantId, roles: Roles) -> anyhow::Result<Identity> {
        identity(&self.pki(), tenant, roles)
    }

    fn furnish(&self, shards: u16, partitions: u64) -> anyhow::Result<()> {
        let identity = self.identity(TenantId(0), Roles::KNOWN)?;
        let address = self.address;
        on_client(CLIENT_CORE, move || async move {
            let client = Client::connect(address, identity).await?;
            for shard in (0..shards).map(ShardId) {
                submit_all(&client, &[tenant(shard, client.now())]).await?;
                // Of one partition in their order, of several at once.
                stream::iter(0..partitions)
                    .map(|number| {
                        let client = client.clone();
                        async move { submit_all(&client, &furnish_one(shard, number, client.now())).await }
                    })
                    .buffer_unordered(FURNISHED_AT_ONCE)
                    .try_collect::<()>()
                    .await?;
            }
            Ok(())
        })
    }

    /// Round trips of one lock in flight.
    ///
    /// # Errors
    /// If a lock is not approved.
    pub fn one_in_flight(&self, core: usize, rounds: u32) -> anyhow::Result<Latency> {
        lock_round_trips(self.address, self.identity(TENANT, Roles::AUTHORIZER)?, core, rounds)
    }

    /// What comes through one link that is kept full.
    ///
    /// # Errors
    /// If a request is not approved.
    pub fn packed(&self, packed: Packed) -> anyhow::Result<Throughput> {
        packed_load(self.address, self.identity(TENANT, Roles::AUTHORIZER)?, packed)
    }

    /// Latencies of so many locks in flight, each a call of its own of one client, which packs what is there at the same moment.
    ///
    /// # Errors
    /// If a lock is not approved.
    pub fn independent(&self, core: usize, in_flight: usize, lasting: Duration) -> anyhow::Result<Latency> {
        let identity = self.identity(TENANT, Roles::AUTHORIZER)?;
        let address = self.address;
        on_client(core, move || async move {
            let client = Client::connect(address, identity).await?;
            let start = Instant::now();
            let callers: Vec<_> = (0..in_flight as u64)
                .map(|caller| {
                    let client = client.clone();
                    tokio::task::spawn_local(async move {
                        let mut mix = Mix::new(18 + caller, 1_000);
                        let mut took = Vec::new();
                        while start.elapsed() < lasting {
                            let lock = mix.lock(client.now());
                            let begun = Instant::now();
                            let reply = client.submit(lock).await?;
                            if !is_refused(&reply, "a lock")? {
                                took.push(begun.elapsed());
                            }
                        }
                        anyhow::Ok(took)
                    })
                })
                .collect();
            let mut recorder = Recorder::default();
            for caller in callers {
                // The first of each is that of a start with everybody at once.
                caller.await??.into_iter().skip(1).for_each(|took| recorder.add(took));
            }
            Ok(recorder.latency())
        })
    }

    /// What comes through `connections` connections with one lock in flight on each.
    ///
    /// # Errors
    /// If a lock is not approved.
    pub fn many_connections(
        &self,
        core: usize,
        connections: usize,
        lasting: Duration,
    ) -> anyhow::Result<Throughput> {
        let identity = self.identity(TENANT, Roles::AUTHORIZER)?;
        let address = self.address;
        on_client(core, move || async move {
            let mut links = Vec::new();
            for _ in 0..connections {
                let client = Client::connect(address, identity.clone()).await?;
                links.push((client.packed(ShardId(0)).await?, client));
            }
            let (start, before) = (Instant::now(), EngineTime::now());
            let tasks: Vec<_> = links
                .into_iter()
                .enumerate()
                .map(|(index, (mut link, client))| {
                    tokio::task::spawn_local(async move {
                        let mut template = Mix::new(14, 1_000).lock(client.now());
                        let mut numbers = Numbers::new(15 + index as u64);
                        let mut replies = Vec::new();
                        let mut answered = 0_usize;
                        while start.elapsed() < lasting {
                            vary(&mut template, &mut numbers, 1_000, client.now());
                            link.push(&template.to_bytes());
                            link.flush().await?;
                            replies.clear();
                            link.receive(&mut replies).await?;
                            ensure!(replies.iter().all(|reply| reply.code().is_success()), "{replies:?}");
                            answered += replies.len();
                        }
                        Ok(answered)
                    })
                })
                .collect();
            let mut answered = 0;
            for task in tasks {
                answered += task.await??;
            }
            Ok(Throughput::new(answered, start, before))
        })
    }

    /// Percentiles at a steady rate of frames of 16 locks, from the moment at which each was to be sent. Who keeps to a schedule
    /// whatever the engine does is refused while it is behind, a stalled disk for one: those are counted, not measured.
    ///
    /// # Errors
    /// If a lock is neither approved nor refused for load, or the engine ends the connection: it does so with who falls behind with its
    /// replies.
    pub fn at_rate(&self, core: usize, per_s: f64, lasting: Duration) -> anyhow::Result<Steady> {
        const FRAME: usize = 16;
        let identity = self.identity(TENANT, Roles::AUTHORIZER)?;
        let address = self.address;
        on_client(core, move || async move {
            let client = Client::connect(address, identity).await?;
            let (mut sender, mut receiver) = client.packed(ShardId(0)).await?.split();
            let start = Instant::now();
            let total = (per_s * lasting.as_secs_f64()) as usize / FRAME;
            let intended = move |frame: usize| Duration::from_secs_f64((frame * FRAME) as f64 / per_s);
            let sending = {
                let client = client.clone();
                tokio::task::spawn_local(async move {
                    let mut template = Mix::new(16, 1_000).lock(client.now());
                    let mut numbers = Numbers::new(17);
                    for frame in 0..total {
                        while start.elapsed() < intended(frame) {
                            tokio::task::yield_now().await;
                        }
                        for _ in 0..FRAME {
                            vary(&mut template, &mut numbers, 1_000, client.now());
                            // The frame's number comes back with each reply's id.
                            template.id = mark(template.id, frame);
                            sender.push_record(&template);
                        }
                        sender.flush().await?;
                        // Behind its schedule it would not wait for anything: the replies must be read all the same.
                        tokio::task::yield_now().await;
                    }
                    anyhow::Ok(sender)
                })
            };
            let mut recorder = Recorder::default();
            let mut replies = Vec::new();
            let (mut answered, mut refused) = (0, 0);
            while answered < total * FRAME {
                replies.clear();
                receiver.receive(&mut replies).await?;
                let now = start.elapsed();
                for reply in &replies {
                    if is_refused(reply, "a lock")? {
                        refused += 1;
                    } else {
                        recorder.add(now.saturating_sub(intended(marked(reply.id))));
                    }
                }
                answered += replies.len();
            }
            let _sender = sending.await.context("the sender")??;
            Ok(Steady { latency: recorder.latency(), refused })
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
    }
}

/// An identity out of an engine's directory of certificates.
///
/// # Errors
/// If there is no authority.
pub fn identity(pki: &Path, tenant: TenantId, roles: Roles) -> anyhow::Result<Identity> {
    let pki = DevelopmentPki::open(pki)?;
    Ok(Identity::from_pem(pki.client(tenant, roles, "bench")?.as_bytes())?)
}

/// Round trips of one lock in flight, over 1,000 partitions of any engine.
///
/// # Errors
/// If a lock is not approved.
pub fn lock_round_trips(
    address: SocketAddr,
    identity: Identity,
    core: usize,
    rounds: u32,
) -> anyhow::Result<Latency> {
    on_client(core, move || async move {
        let client = Client::connect(address, identity).await?;
        let mut mix = Mix::new(client.now().0, 1_000);
        let mut recorder = Recorder::default();
        for round in 0..rounds + rounds / 10 {
            let lock = mix.lock(client.now());
            let start = Instant::now();
            let reply = client.submit(lock).await?;
            let took = start.elapsed();
            ensure!(reply.code().is_success(), "a lock was answered {}", reply.code());
            if round >= rounds / 10 {
                recorder.add(took);
            }
        }
        Ok(recorder.latency())
    })
}

/// What comes through one link that is kept full, to any engine.
///
/// # Errors
/// If a request is not approved.
pub fn packed_load(address: SocketAddr, identity: Identity, packed: Packed) -> anyhow::Result<Throughput> {
    on_client(packed.core, move || async move {
        let client = Client::connect(address, identity).await?;
        let (mut sender, mut receiver) = client.packed(packed.shard).await?.split();
        let mut source = Source::new(&packed, client.now());
        let mut replies: Vec<Reply> = Vec::new();
        let (start, before) = (Instant::now(), EngineTime::now());
        let (mut sent, mut answered, mut refused) = (0_usize, 0_usize, 0_usize);
        let window = packed.frames * packed.requests;
        let goes_on = |sent: usize| match packed.until {
            Until::Elapsed(lasting) => start.elapsed() < lasting,
            Until::Sent(requests) => sent < requests,
        };
        while goes_on(sent) || answered < sent {
            // As soon as a frame's worth is answered the next one leaves.
            while sent + packed.requests <= answered + window
                && goes_on(sent)
                && start.elapsed() >= packed.due(sent)
            {
                let now = client.now();
                for _ in 0..packed.requests {
                    sender.push_record(source.next(now));
                }
                sender.flush().await?;
                sent += packed.requests;
            }
            if answered == sent {
                tokio::time::sleep_until((start + packed.due(sent)).into()).await;
                continue;
            }
            replies.clear();
            receiver.receive(&mut replies).await?;
            answered += replies.len();
            for reply in &replies {
                // Whose lock was refused has none to release.
                let is_of_refused = packed.releases && refused > 0 && reply.code() == Code::UnknownLock;
                refused += usize::from(is_of_refused || is_refused(reply, "a request")?);
            }
        }
        if refused > 0 {
            eprintln!("  {refused} of {answered} requests were refused for load, and do not count");
        }
        Ok(Throughput::new(answered - refused, start, before))
    })
}

/// A run at a steady rate.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// Of the locks that were approved.
    pub latency: Latency,
    /// Locks that the engine was too far behind to take.
    pub refused: usize,
}

/// What came through, and what the engine has spent on it.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Requests that were answered.
    pub requests: usize,
    /// The same, a second.
    pub per_s: f64,
    /// Time of the engine's threads.
    pub spent: EngineTime,
}

impl Throughput {
    fn new(requests: usize, start: Instant, before: EngineTime) -> Self {
        let per_s = requests as f64 / start.elapsed().as_secs_f64();
        Self { requests, per_s, spent: EngineTime::now().since(before) }
    }
}

/// Time that the threads of the engines in this process have had on the cores.
#[derive(Clone, Copy, Debug)]
pub struct EngineTime {
    /// The shards' own threads, which decide and talk.
    pub shards: Duration,
    /// Those that write and sync logs and make snapshots.
    pub beside: Duration,
}

impl EngineTime {
    fn now() -> Self {
        let beside = ["log-", "sync-", "keep-"].into_iter().map(cpu_of_threads).sum();
        Self { shards: cpu_of_threads("shard-"), beside }
    }

    fn since(self, before: Self) -> Self {
        Self {
            shards: self.shards.saturating_sub(before.shards),
            beside: self.beside.saturating_sub(before.beside),
        }
    }
}

/// A link that is kept full.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// Where the client runs.
    pub core: usize,
    /// Whose link.
    pub shard: ShardId,
    /// Frames in flight.
    pub frames: usize,
    /// Requests of a frame.
    pub requests: usize,
    /// Partitions that take turns by chance.
    pub partitions: u64,
    /// Each lock is released by the next request, so that the log grows and the state does not.
    pub releases: bool,
    /// Requests a second at most; as many as come through without it.
    pub per_s: Option<f64>,
    /// When no more is sent.
    pub until: Until,
}

/// When a run sends no more.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After a time.
    Elapsed(Duration),
    /// After so many requests, rounded up to whole frames.
    Sent(usize),
}

impl Packed {
    /// Locks over 1,000 partitions of shard 0.
    #[must_use]
    pub const fn new(core: usize, frames: usize, requests: usize, until: Until) -> Self {
        let shard = ShardId(0);
        Self { core, shard, frames, requests, partitions: 1_000, releases: false, per_s: None, until }
    }

    /// When the request behind so many is sent at the earliest, counted from the start.
    fn due(&self, sent: usize) -> Duration {
        self.per_s.map_or(Duration::ZERO, |per_s| Duration::from_secs_f64(sent as f64 / per_s))
    }
}

/// Makes requests out of one that is kept: making them must not be what is measured.
struct Source {
    lock: Record,
    release: Record,
    numbers: Numbers,
    shard: ShardId,
    partitions: u64,
    releases: bool,
    is_locked: bool,
}

impl Source {
    fn new(packed: &Packed, now: Time) -> Self {
        let lock = Mix::new(12, packed.partitions).lock(now);
        Self {
            lock,
            release: lock,
            numbers: Numbers::new(13 ^ now.0),
            shard: packed.shard,
            partitions: packed.partitions,
            releases: packed.releases,
            is_locked: false,
        }
    }

    fn next(&mut self, now: Time) -> &Record {
        if self.is_locked {
            let body = ChangeBody { lock: self.lock.id, ..ChangeBody::default() };
            let id = self.numbers.id(now);
            self.release = Record::new(Kind::Release, id, self.lock.partition, Amount(0), &body);
            self.is_locked = false;
            return &self.release;
        }
        self.lock.id = self.numbers.id(now);
        self.lock.partition = partition_of(self.shard, self.numbers.below(self.partitions));
        self.is_locked = self.releases;
        &self.lock
    }
}

async fn submit_all(client: &Client, operations: &[Vec<Record>]) -> anyhow::Result<()> {
    for operation in operations {
        let reply = client.submit_long(operation).await?;
        ensure!(reply.code().is_success(), "furnishing was answered {}", reply.code());
    }
    Ok(())
}

/// True if the engine was too far behind to take it: its log had no room, since the disk was slower than the load.
fn is_refused(reply: &Reply, what: &str) -> anyhow::Result<bool> {
    match reply.code() {
        Code::Overloaded => Ok(true),
        code if code.is_success() => Ok(false),
        code => bail!("{what} was answered {code}"),
    }
}

/// Makes the next lock out of the one before: another id, another partition.
fn vary(lock: &mut Record, numbers: &mut Numbers, partitions: u64, now: Time) {
    lock.id = numbers.id(now);
    lock.partition = crate::mix::partition(numbers.below(partitions));
}

/// Writes a frame's number into the low bits of an id, which are random.
fn mark(id: Id, frame: usize) -> Id {
    Id(id.0 & !0xff_ffff | frame as u128 & 0xff_ffff)
}

fn marked(id: Id) -> usize {
    (id.0 & 0xff_ffff) as usize
}
