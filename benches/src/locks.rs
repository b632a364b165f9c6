//! The real thing: a server in this process, the client of the SDK, payments over QUIC on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use server::pki::DevelopmentPki;
use server::{Config, Durability, IoMode, Running, Server};
use surety_client::{Client, Identity};
use surety_protocol::{Id, Record, Reply, Roles, ShardId, TenantId, Time};

use crate::echo::on_client;
use crate::figures::{Latency, Recorder};
use crate::mix::{Mix, Numbers, TENANT, furnish};

/// The core of the server's one shard: it pins itself to the first.
pub const SHARD_CORE: usize = 0;
/// The core of a client that does not share the shard's.
pub const CLIENT_CORE: usize = 1;

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
    /// Partitions with collateral.
    pub partitions: u64,
    /// Locks for which memory is taken at the start.
    pub reserve_locks: usize,
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
            partitions: 1_000,
            reserve_locks: 1 << 23,
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
        server::init(&data, 1, 64 << 20)?;
        let mut config = Config::new(&data);
        config.listen = Some(([127, 0, 0, 1], 0).into());
        config.durability = setting.durability;
        config.io = Some(setting.io);
        config.limits.reserve_locks = setting.reserve_locks;
        config.snapshot_records = setting.snapshot_records;
        // The one shard is pinned to the first core, its helpers are not.
        let running = Server::start(config)?;
        let address = running.addresses()[0];
        let bench = Self { running: Some(running), directory, address };
        bench.furnish(setting.partitions)?;
        Ok(bench)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same TLS and transport for a bare echo.
    ///
    /// # Errors
    /// If the directory has no certificates.
    pub fn echo_config(&self) -> anyhow::Result<quinn::ServerConfig> {
        let pki = server::pki_path(&self.directory.path().join("data"));
        Ok(server::server_config(&pki, &server::Limits::default())?)
    }

    /// A client identity.
    ///
    /// # Errors
    /// If the directory has no authority.
    pub fn identity(&self, tenant: TenantId, roles: Roles) -> anyhow::Result<Identity> {
        let pki = DevelopmentPki::open(&server::pki_path(&self.directory.path().join("data")))?;
        Ok(Identity::from_pem(pki.client(tenant, roles, "bench")?.as_bytes())?)
    }

    fn furnish(&self, partitions: u64) -> anyhow::Result<()> {
        let identity = self.identity(TenantId(0), Roles::KNOWN)?;
        let address = self.address;
        on_client(CLIENT_CORE, move || async move {
            let client = Client::connect(address, identity).await?;
            for operation in furnish(partitions, client.now()) {
                let reply = client.submit_long(&operation).await?;
                ensure!(reply.code().is_success(), "furnishing was answered {}", reply.code());
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

    /// Requests per second with `frames` frames of `requests` locks in flight, over one link.
    ///
    /// # Errors
    /// If a lock is not approved.
    pub fn packed(
        &self,
        core: usize,
        frames: usize,
        requests: usize,
        partitions: u64,
        lasting: Duration,
    ) -> anyhow::Result<f64> {
        let identity = self.identity(TENANT, Roles::AUTHORIZER)?;
        let address = self.address;
        on_client(core, move || async move {
            let client = Client::connect(address, identity).await?;
            let (mut sender, mut receiver) = client.packed(ShardId(0)).await?.split();
            let mut template = Mix::new(12, partitions).lock(client.now());
            let mut numbers = Numbers::new(13);
            let mut replies: Vec<Reply> = Vec::new();
            let start = Instant::now();
            let (mut sent, mut answered) = (0_usize, 0_usize);
            let window = frames * requests;
            while start.elapsed() < lasting || answered < sent {
                // As soon as a frame's worth is answered the next one leaves.
                while sent + requests <= answered + window && start.elapsed() < lasting {
                    let now = client.now();
                    for _ in 0..requests {
                        vary(&mut template, &mut numbers, partitions, now);
                        sender.push_record(&template);
                    }
                    sender.flush().await?;
                    sent += requests;
                }
                replies.clear();
                receiver.receive(&mut replies).await?;
                answered += replies.len();
                let declined = replies.iter().find(|reply| !reply.code().is_success());
                ensure!(declined.is_none(), "a lock was answered {declined:?}");
            }
            Ok(answered as f64 / start.elapsed().as_secs_f64())
        })
    }

    /// Requests per second over `connections` connections with one lock in flight on each.
    ///
    /// # Errors
    /// If a lock is not approved.
    pub fn many_connections(
        &self,
        core: usize,
        connections: usize,
        lasting: Duration,
    ) -> anyhow::Result<f64> {
        let identity = self.identity(TENANT, Roles::AUTHORIZER)?;
        let address = self.address;
        on_client(core, move || async move {
            let mut links = Vec::new();
            for _ in 0..connections {
                let client = Client::connect(address, identity.clone()).await?;
                links.push((client.packed(ShardId(0)).await?, client));
            }
            let start = Instant::now();
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
            Ok(answered as f64 / start.elapsed().as_secs_f64())
        })
    }

    /// Percentiles at a steady rate of frames of 16 locks, from the moment at which each was to be sent.
    ///
    /// # Errors
    /// If a lock is not approved, or the engine ends the connection: it does so with who falls behind with its replies.
    pub fn at_rate(&self, core: usize, per_s: f64, lasting: Duration) -> anyhow::Result<Latency> {
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
            let mut answered = 0;
            while answered < total * FRAME {
                replies.clear();
                receiver.receive(&mut replies).await?;
                let now = start.elapsed();
                for reply in &replies {
                    ensure!(reply.code().is_success(), "a lock was answered {}", reply.code());
                    recorder.add(now.saturating_sub(intended(marked(reply.id))));
                }
                answered += replies.len();
            }
            let _sender = sending.await.context("the sender")??;
            Ok(recorder.latency())
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
