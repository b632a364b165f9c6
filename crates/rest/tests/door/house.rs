//! A front door before an engine in this process, and an application that holds every answer against the description.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rest::{Asset, Rest, RestConfig, RestLimits, Tenant, TenantConfig, TokenHash, new_token};
use serde_json::{Value, json};
use server::Embedded;
use surety_client::protocol::{
    ActorId, AssetId, Caller, PartitionHandle, Roles, ShardId, TenantBody, TenantId,
};
use surety_client::{Client, Options, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::schema::Description;
use crate::stage;

/// A whole unit of the asset.
pub(crate) const AMP: u128 = 1_000_000_000_000_000_000;
/// Another tenant, without any right.
pub(crate) const OTHER: TenantId = TenantId(2);

/// An engine with two partitions, one on each shard, and a front door for two tenants.
pub(crate) struct House {
    pub(crate) door: Rest,
    pub(crate) engine: Embedded,
    pub(crate) operator: Client,
    pub(crate) partitions: Vec<PartitionHandle>,
    pub(crate) app: App,
    pub(crate) other: App,
    _directory: tempfile::TempDir,
}

pub(crate) async fn connect(engine: &Embedded, tenant: TenantId, roles: Roles) -> Client {
    let caller = Caller { tenant, roles, actor: ActorId(1) };
    Client::over(Arc::new(engine.connector(caller)), Options::default(), &[]).await.unwrap()
}

pub(crate) fn config() -> RestConfig {
    RestConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: None,
        assets: vec![Asset { name: "AMP".to_owned(), id: AssetId(1), decimals: 18, scale: 2 }],
        certificates: None,
        webhooks: None,
        limits: RestLimits::default(),
    }
}

pub(crate) fn tokens(token: &str) -> TenantConfig {
    TenantConfig { tokens: vec![("test".to_owned(), TokenHash::of(token))], webhooks: Vec::new() }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: RestConfig) -> Self {
        let directory = stage::directory().unwrap();
        let engine = Embedded::start(stage::config(directory.path())).unwrap();
        let operator = connect(&engine, TenantId(0), Roles::ADMIN).await;
        let partitions = stage::stake(&operator, &[1000 * AMP, 1000 * AMP]).await.unwrap();
        let body = TenantBody {
            tenant: OTHER,
            locks_max: 1000,
            ids_max: 1000,
            tombstones_max: 1000,
            advices_max: 1000,
            enabled: 1,
            ..TenantBody::default()
        };
        for shard in 0..operator.shards() {
            let shard = PartitionHandle::new(ShardId(shard), 0);
            stage::approved(operator.send(request::set_tenant(shard, &body)).await.unwrap()).unwrap();
        }
        let (door, [app, other]) = open(&engine, config).await;
        Self { door, engine, operator, partitions, app, other, _directory: directory }
    }

    pub(crate) async fn close(self) {
        self.door.stop().await;
        self.engine.shutdown();
    }
}

/// Opens a front door for both tenants.
pub(crate) async fn open(engine: &Embedded, config: RestConfig) -> (Rest, [App; 2]) {
    let shown = [new_token([1; 32]), new_token([2; 32])];
    let mut tenants = Vec::new();
    for (tenant, token) in [stage::TENANT, OTHER].into_iter().zip(&shown) {
        let client = connect(engine, tenant, Roles::AUTHORIZER).await;
        tenants.push(Tenant { client, config: tokens(token) });
    }
    let door = Rest::start(config, tenants).await.unwrap();
    let description = Arc::new(Description::read(door.address()).await);
    let address = door.address();
    let app = |token| App { address, token: Some(token), description: description.clone() };
    let [one, two] = shown;
    (door, [app(one), app(two)])
}

/// An application with a token.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<String>,
    pub(crate) description: Arc<Description>,
}

/// A reply, whole.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find(|line| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name)))?;
        Some(line.split_once(':')?.1.trim())
    }

    pub(crate) fn is_replayed(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// A problem, whose code is the answer.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.header("x-request-id"), self.body["request_id"].as_str());
        self.body
    }
}

impl App {
    pub(crate) async fn get(&self, path: &str) -> Told {
        self.send("GET", path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: Value) -> Told {
        self.send("POST", path, &[("Idempotency-Key", key)], Some(&body)).await
    }

    /// Sends a request, and holds the reply against the description.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Told {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: door\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let body = body.map(Value::to_string);
        if let Some(body) = &body {
            head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        let told = exchange(self.address, format!("{head}\r\n{}", body.unwrap_or_default()).as_bytes()).await;
        self.description.check(method, path, &told);
        told
    }

    /// Locks so much, under a key.
    pub(crate) async fn lock(&self, partition: PartitionHandle, key: &str, amount: &str) -> Told {
        let body =
            json!({"partition": partition.to_string(), "amount": amount, "asset": "AMP", "merchant": 501});
        self.post("/v1/locks", key, body).await
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let told = self.get(path).await;
            if told.status == 200 && is_it(&told.body) {
                return told.body;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{path}: {}", told.body);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends bytes, and reads all that comes back.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Told {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A front door that has heard enough may close before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut reply = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut reply)).await.unwrap();
    told(&reply)
}

pub(crate) fn told(reply: &[u8]) -> Told {
    let text = String::from_utf8_lossy(reply);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Told { status, head: head.to_owned(), body }
}

/// A new key of now.
pub(crate) fn key(client: &Client) -> String {
    client.new_id().to_string()
}
