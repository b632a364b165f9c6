//! A real server on a directory of its own, and a peer that speaks the wire without manners.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ApplicationClose, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use server::pki::DevelopmentPki;
use server::{Config, Durability, Limits, Running, Server, StartError, StartFailure, pki_path};
use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{
    ALPN, Address, Amount, AssetId, CloseCode, Code, Epoch, FrameHeader, FrameKind, GrantBody, Hello,
    HelloReply, Id, Kind, LockBody, PartitionBody, PartitionHandle, Policy, Record, Reply, Rights, Roles,
    Seq, ShardId, StakeBody, Subscribe, TAIL_HEAD_BYTES, TailHead, TailStatus, TenantBody, TenantId, Time,
    Token, long,
};
use tempfile::TempDir;

/// Long enough for anything that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A small segment: tests must not fill the disk.
pub const SEGMENT: u64 = 1 << 20;
/// The tenant of the development identity `authorizer`.
pub const TENANT: TenantId = TenantId(1);

/// A data directory and the server on it.
pub struct Rig {
    // Ends before its directory goes.
    pub running: Option<Running>,
    pub directory: TempDir,
    shards: u16,
    is_furnished: bool,
}

impl Rig {
    /// A directory with a server of so many shards, in `os` mode.
    pub fn start(shards: u16) -> Self {
        Self::start_with(shards, |_| {})
    }

    pub fn start_with(shards: u16, change: impl FnOnce(&mut Config)) -> Self {
        let mut rig = Self::stopped(shards);
        rig.restart_with(change);
        rig
    }

    pub fn stopped(shards: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        server::init(directory.path(), shards, SEGMENT).unwrap();
        Self::of(directory, shards)
    }

    /// A directory that was made in another way, with no server on it.
    pub fn of(directory: TempDir, shards: u16) -> Self {
        Self { running: None, directory, shards, is_furnished: false }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn config(&self) -> Config {
        Config {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            durability: Durability::Os,
            segment_bytes: SEGMENT,
            pin_threads: false,
            free_bytes_min: 0,
            limits: Limits {
                connections_per_s_address: 0,
                // A test that waits for the end does not read its answers meanwhile.
                drain: Duration::from_millis(200),
                ..Limits::default()
            },
            ..Config::new(self.path())
        }
    }

    pub fn restart(&mut self) {
        self.restart_with(|_| {});
    }

    pub fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.running = None;
        let mut config = self.config();
        change(&mut config);
        self.running = Some(start_at_its_port(&config));
        if !std::mem::replace(&mut self.is_furnished, true) {
            // On a thread of its own, since the test may already be inside a runtime.
            std::thread::scope(|scope| scope.spawn(|| in_runtime(self.furnish())).join().unwrap());
        }
    }

    /// A partition with collateral in each shard, for the tenant.
    async fn furnish(&self) {
        for shard in 0..self.shards {
            let partition = partition(shard);
            let whole = PartitionHandle::new(ShardId(shard), 0);
            let mut onchain = [7; 32];
            onchain[..8].copy_from_slice(&partition.0.to_be_bytes());
            let create = PartitionBody { onchain, asset: AssetId(1), ..PartitionBody::default() };
            let tenant = tenant_body();
            let grant = GrantBody { tenant: TENANT, rights: Rights::KNOWN.0, ..GrantBody::default() };
            let policy = Policy { merchants_listed: 0, ..Policy::default() };
            let mut admin = self.operator("admin", shard).await;
            let none = Amount::ZERO;
            admin.order(&[Record::new(Kind::TenantSet, id(), whole, none, &tenant)]).await;
            admin.order(&[Record::new(Kind::PartitionCreate, id(), partition, none, &create)]).await;
            admin.order(&long::split(Kind::Policy, id(), partition, 0, &policy.to_bytes())).await;
            admin.order(&[Record::new(Kind::Grant, id(), partition, none, &grant)]).await;
            let deposit = StakeBody { supplier: Address([3; 20]), nonce: 1, ..StakeBody::default() };
            let amount = Amount(1_000_000_000_000);
            let mut settler = self.operator("settler", shard).await;
            settler.order(&[Record::new(Kind::Deposit, id(), partition, amount, &deposit)]).await;
        }
    }

    /// Sets the tenant's quotas in a shard.
    pub async fn set_tenant(&self, shard: u16, change: impl FnOnce(&mut TenantBody)) {
        let mut body = tenant_body();
        change(&mut body);
        let whole = PartitionHandle::new(ShardId(shard), 0);
        let mut admin = self.operator("admin", shard).await;
        admin.order(&[Record::new(Kind::TenantSet, id(), whole, Amount::ZERO, &body)]).await;
    }

    /// One of the numbers that the admin listener tells of a shard.
    pub async fn metric(&self, name: &str, shard: u16) -> u64 {
        metric(self.running().admin().unwrap(), name, shard).await
    }

    /// A peer with one of the operator's identities.
    pub async fn operator(&self, name: &str, shard: u16) -> Raw {
        let mut raw = Raw::connect(self.address(shard), &self.identity(name)).await.unwrap();
        raw.greet(TenantId(0), &[]).await.unwrap();
        raw
    }

    pub fn try_start(&self) -> Result<Running, StartError> {
        Server::start(self.config())
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn address(&self, shard: u16) -> SocketAddr {
        self.running().addresses()[usize::from(shard)]
    }

    pub fn pki(&self) -> DevelopmentPki {
        DevelopmentPki::open(&pki_path(self.path())).unwrap()
    }

    /// One of the identities that `init` has made.
    pub fn identity(&self, name: &str) -> String {
        std::fs::read_to_string(pki_path(self.path()).join(name).with_extension("pem")).unwrap()
    }

    /// Seals and ends.
    pub fn shutdown(&mut self) -> Vec<server::ShardEnd> {
        self.running.take().unwrap().shutdown()
    }

    /// Ends without a seal.
    pub fn kill(&mut self) {
        self.running.take().unwrap().kill();
    }

    /// A peer with the authorizer's certificate, its hello exchanged.
    pub async fn authorizer(&self, shard: u16) -> Raw {
        let mut raw = Raw::connect(self.address(shard), &self.identity("authorizer")).await.unwrap();
        raw.greet(TENANT, &[]).await.unwrap();
        raw
    }
}

/// Starts a server. While one is away, the system may give its port to a client that dials it, until that gives up.
fn start_at_its_port(config: &Config) -> Running {
    let begun = Instant::now();
    loop {
        match Server::start(config.clone()) {
            Err(error) if error.failure() == StartFailure::PortTaken && begun.elapsed() < PATIENCE => {}
            started => return started.unwrap(),
        }
    }
}

/// A peer that speaks frames by hand.
pub struct Raw {
    pub endpoint: Endpoint,
    pub connection: Connection,
    pub send: SendStream,
    pub recv: RecvStream,
    pub number: u64,
}

/// What ended a connection.
#[derive(Debug)]
pub enum Ended {
    /// The server's code.
    Code(CloseCode),
    /// Something else.
    Other(String),
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => {
                match CloseCode::from_code(error_code.into_inner()) {
                    Some(code) => Self::Code(code),
                    None => Self::Other(format!("code {error_code}")),
                }
            }
            other => Self::Other(other.to_string()),
        }
    }
}

/// A client's TLS: an identity's PEM, as its files hold it.
pub fn client_config(identity: &str) -> quinn::ClientConfig {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(identity.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.as_bytes()).unwrap();
    let (authority, chain) = chain.split_last().unwrap();
    let builder = client_builder(authority);
    finish(builder.with_client_auth_cert(chain.to_vec(), key).unwrap())
}

/// The same without a certificate of its own.
pub fn anonymous_config(identity: &str) -> quinn::ClientConfig {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(identity.as_bytes()).collect::<Result<_, _>>().unwrap();
    finish(client_builder(chain.last().unwrap()).with_no_client_auth())
}

fn client_builder(
    authority: &CertificateDer<'static>,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}

fn finish(mut tls: rustls::ClientConfig) -> quinn::ClientConfig {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = true;
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

impl Raw {
    pub async fn connect(address: SocketAddr, identity: &str) -> Result<Self, Ended> {
        Self::connect_with(address, client_config(identity)).await
    }

    pub async fn connect_with(address: SocketAddr, config: quinn::ClientConfig) -> Result<Self, Ended> {
        let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let connection = endpoint.connect_with(config, address, "localhost").unwrap().await?;
        let (send, recv) = connection.open_bi().await?;
        Ok(Self { endpoint, connection, send, recv, number: 0 })
    }

    /// A further stream of the same connection.
    pub async fn another_stream(&self) -> Self {
        let (send, recv) = self.connection.open_bi().await.unwrap();
        Self { endpoint: self.endpoint.clone(), connection: self.connection.clone(), send, recv, number: 0 }
    }

    pub async fn greet(&mut self, tenant: TenantId, tokens: &[Token]) -> Result<HelloReply, Ended> {
        let body = Hello::new(tenant, "test").to_body(tokens);
        self.frame(FrameKind::Hello, u16::try_from(tokens.len()).unwrap(), &body).await?;
        let (header, body) = self.receive().await?;
        assert_eq!(header.kind, FrameKind::HelloReply);
        Ok(HelloReply::from_body(&body).unwrap())
    }

    /// Sends a frame, right or wrong.
    pub async fn frame(&mut self, kind: FrameKind, count: u16, body: &[u8]) -> Result<(), Ended> {
        let header = FrameHeader { kind, count, number: self.number };
        self.number += 1;
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(body);
        self.bytes(&bytes).await
    }

    pub async fn bytes(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        match self.send.write_all(bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await),
        }
    }

    pub async fn requests(&mut self, records: &[Record]) -> Result<(), Ended> {
        let body: Vec<u8> = records.iter().flat_map(Record::to_bytes).collect();
        self.frame(FrameKind::Requests, u16::try_from(records.len()).unwrap(), &body).await
    }

    pub async fn receive(&mut self) -> Result<(FrameHeader, Vec<u8>), Ended> {
        let mut header = [0; 16];
        let read = tokio::time::timeout(PATIENCE, self.recv.read_exact(&mut header)).await;
        if read.expect("an answer or an end").is_err() {
            return Err(self.ended().await);
        }
        let header = FrameHeader::from_bytes(&header).unwrap();
        let mut body = vec![0; header.body_bytes()];
        if self.recv.read_exact(&mut body).await.is_err() {
            return Err(self.ended().await);
        }
        Ok((header, body))
    }

    /// So many replies, and the last token.
    pub async fn replies(&mut self, count: usize) -> Result<(Vec<Reply>, Token), Ended> {
        let mut replies = Vec::new();
        loop {
            let (header, body) = self.receive().await?;
            assert_eq!(header.kind, FrameKind::Replies);
            let (token, records) = body.split_at(48);
            let records = records.as_chunks::<RECORD_BYTES>().0;
            replies.extend(records.iter().map(|bytes| Reply::from_bytes(bytes).unwrap()));
            if replies.len() >= count {
                return Ok((replies, Token::from_slice(token).unwrap()));
            }
        }
    }

    pub async fn ask(&mut self, record: Record) -> Result<(Reply, Token), Ended> {
        self.requests(&[record]).await?;
        let (replies, token) = self.replies(1).await?;
        Ok((replies[0], token))
    }

    pub async fn subscribe(&mut self, shard: u16, from: u64) -> Result<(), Ended> {
        self.resume(shard, from, 0).await
    }

    pub async fn resume(&mut self, shard: u16, from: u64, epoch: u32) -> Result<(), Ended> {
        let (from, epoch) = (Seq(from), Epoch(epoch));
        let subscribe = Subscribe { from, shard: ShardId(shard), reserved: [0; 2], epoch };
        self.frame(FrameKind::Subscribe, 1, &subscribe.to_bytes()).await
    }

    /// Sends one operation, which must be approved.
    pub async fn order(&mut self, operation: &[Record]) {
        self.requests(operation).await.unwrap();
        let (replies, _) = self.replies(1).await.unwrap();
        assert_eq!(replies[0].code(), Code::Approved, "{:?}", operation[0].kind());
    }

    /// Waits for the end of the connection.
    pub async fn ended(&self) -> Ended {
        tokio::time::timeout(PATIENCE, self.connection.closed()).await.expect("an end").into()
    }

    pub async fn expect_close(&self, code: CloseCode) {
        match self.ended().await {
            Ended::Code(found) => assert_eq!(found, code, "{} instead of {}", found.name(), code.name()),
            Ended::Other(other) => panic!("{other} instead of {}", code.name()),
        }
    }
}

/// A frame of a change stream.
pub struct Tail {
    pub head: TailHead,
    pub status: TailStatus,
    pub records: Vec<Record>,
}

impl Raw {
    pub async fn tail(&mut self) -> Result<Tail, Ended> {
        let (header, body) = self.receive().await?;
        assert_eq!(header.kind, FrameKind::Records);
        let (head, status) = TailHead::from_slice(&body[..TAIL_HEAD_BYTES]).unwrap();
        let records = body[TAIL_HEAD_BYTES..].as_chunks::<RECORD_BYTES>().0;
        Ok(Tail { head, status, records: records.iter().map(Record::from_bytes).collect() })
    }

    /// Every record up to a seq, each with its own.
    pub async fn tail_through(&mut self, through: Seq) -> Vec<(Seq, Record)> {
        let mut all = Vec::new();
        loop {
            let tail = self.tail().await.unwrap();
            assert_eq!(tail.status, TailStatus::Records);
            all.extend((tail.head.first.0..).map(Seq).zip(tail.records));
            if tail.head.through >= through {
                return all;
            }
        }
    }
}

/// A fresh id.
pub fn id() -> Id {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut entropy = [0; 16];
    getrandom::fill(&mut entropy).unwrap();
    Id::from_parts(Time(u64::try_from(wall.as_nanos()).unwrap()), u128::from_le_bytes(entropy))
}

fn in_runtime(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

fn tenant_body() -> TenantBody {
    TenantBody {
        tenant: TENANT,
        locks_max: 1 << 20,
        ids_max: 1 << 20,
        tombstones_max: 1 << 10,
        advices_max: 1 << 10,
        enabled: 1,
        ..TenantBody::default()
    }
}

/// The furnished partition of a shard.
pub fn partition(shard: u16) -> PartitionHandle {
    PartitionHandle::new(ShardId(shard), 1)
}

/// A lock of 1 in partition 1 of a shard.
pub fn lock(shard: u16) -> Record {
    lock_in(partition(shard), 1)
}

pub fn lock_in(partition: PartitionHandle, amount: u128) -> Record {
    Record::new(Kind::Lock, id(), partition, Amount(amount), &LockBody::default())
}

/// Asks the admin listener; returns the status and the body.
pub async fn http(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap();
    (status, body)
}

/// One of the numbers that an admin listener tells of a shard.
pub async fn metric(admin: SocketAddr, name: &str, shard: u16) -> u64 {
    let (_, text) = http(admin, "/metrics").await;
    let start = format!("{name}{{shard=\"{shard}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Roles by which `init` makes no identity.
pub fn identity(rig: &Rig, tenant: u32, roles: Roles) -> String {
    rig.pki().client(TenantId(tenant), roles, "test").unwrap()
}
