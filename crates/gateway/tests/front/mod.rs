//! A link over real sockets, with an engine in this process behind it, and an acquirer's host in front.
#![allow(dead_code, reason = "not every test program asks for all of it")]

#[path = "../../../client/examples/stage/mod.rs"]
pub(crate) mod stage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Gateway, Limits, LinkConfig};
use iso8583::payment::{Currency, IdKey, Mark, Route, Rules, Scale, sent_at};
use iso8583::{Codec, Cut, Dialect, Draft, LengthHeader, Message, Mti, Profile};
use server::Embedded;
use surety_client::protocol::{ActorId, Caller, Id, PartitionHandle, Roles, TenantId, Time};
use surety_client::{Client, Options};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const CODEC: Codec = Codec { dialect: Dialect::V1987, profile: Profile::BINARY };
pub(crate) const HEADER: LengthHeader = LengthHeader::Binary2;
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const STAKE: u128 = 1_000_000;

/// An engine, a link in front of it, and what a test asks of both.
pub(crate) struct Front {
    pub(crate) engine: Embedded,
    pub(crate) gateway: Gateway,
    pub(crate) client: Client,
    pub(crate) config: LinkConfig,
    pub(crate) partition: PartitionHandle,
    _directory: TempDir,
}

pub(crate) type Fields = BTreeMap<u8, String>;

pub(crate) async fn connect(engine: &Embedded, tenant: TenantId, roles: Roles) -> Client {
    let caller = Caller { tenant, roles, actor: ActorId(1) };
    Client::over(Arc::new(engine.connector(caller)), Options::default(), &[]).await.unwrap()
}

impl Front {
    pub(crate) async fn new(limits: Limits) -> Self {
        Self::with(|config| LinkConfig { limits, ..config }).await
    }

    /// A link that differs from the usual one.
    pub(crate) async fn with(differs: impl FnOnce(LinkConfig) -> LinkConfig) -> Self {
        let directory = stage::directory().unwrap();
        let engine = Embedded::start(stage::config(directory.path())).unwrap();
        let operator = connect(&engine, TenantId(0), Roles::ADMIN).await;
        let partition = stage::stake(&operator, &[STAKE]).await.unwrap()[0];
        let client = connect(&engine, stage::TENANT, Roles::AUTHORIZER).await;
        let config = LinkConfig {
            name: "test".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            header: HEADER,
            profile: CODEC.profile,
            rules: rules(partition),
            needs_sign_on: true,
            mac: None,
            tls: None,
            book_file: Some(directory.path().join("link.book")),
            limits: Limits::default(),
        };
        let config = differs(config);
        let gateway = Gateway::start(client.clone(), config.clone()).await.unwrap();
        Self { engine, gateway, client, config, partition, _directory: directory }
    }

    /// Stops the link, and starts it again after something else was done.
    pub(crate) async fn restart(&mut self, between: impl FnOnce()) {
        // One that is in nobody's way takes its place meanwhile.
        let idle = LinkConfig { book_file: None, ..self.config.clone() };
        let idle = Gateway::start(self.client.clone(), idle).await.unwrap();
        std::mem::replace(&mut self.gateway, idle).stop().await;
        between();
        let again = Gateway::start(self.client.clone(), self.config.clone()).await.unwrap();
        std::mem::replace(&mut self.gateway, again).stop().await;
    }

    pub(crate) async fn host(&self) -> Host {
        Host::connect(self.gateway.address()).await
    }

    pub(crate) async fn signed_on(&self) -> Host {
        let mut host = self.host().await;
        assert_eq!(host.ask(&self.network(1, "001")).await[&39], "00");
        host
    }

    pub(crate) fn sent(&self) -> String {
        String::from_utf8(sent_at(self.client.now()).to_vec()).unwrap()
    }

    pub(crate) fn network(&self, trace: u32, code: &str) -> (&'static str, Fields) {
        ("0800", [(7, self.sent()), (11, format!("{trace:06}")), (70, code.to_owned())].into())
    }

    pub(crate) fn payment(&self, trace: u32, amount: u32) -> Fields {
        payment(&self.sent(), trace, amount)
    }

    /// A reversal of an authorization.
    pub(crate) fn reversal(&self, trace: u32, of: u32, original: &Fields) -> (&'static str, Fields) {
        let mut fields = self.payment(trace, 100);
        fields.extend([(37, original[&37].clone()), (39, "68".into())]);
        fields.insert(90, format!("0100{of:06}{}{:011}{:011}", original[&7], 123_456, 0));
        ("0400", fields)
    }

    /// What is free, as a look-up of nothing tells.
    pub(crate) async fn free(&self) -> u128 {
        let unknown = Id::from_parts(Time(0), 1);
        self.client.lookup(self.partition, unknown, false).await.unwrap().free.0
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
        self.engine.shutdown();
    }
}

pub(crate) fn rules(partition: PartitionHandle) -> Rules {
    Rules {
        dialect: Dialect::V1987,
        id_key: IdKey([5; 32]),
        currencies: vec![Currency { number: 840, scale: Scale { asset_decimals: 2, edge_decimals: 2 } }],
        held_in: BTreeMap::new(),
        routes: vec![Route { prefix: b"4".to_vec(), partitions: vec![partition], former: Vec::new() }],
        merchants: BTreeMap::new(),
        partial: Mark { field: 60, at: 0, unit: b'1' },
        increase: Mark { field: 60, at: 1, unit: b'1' },
    }
}

pub(crate) fn payment(sent: &str, trace: u32, amount: u32) -> Fields {
    let fields = [
        (2, "4111111111111111"),
        (3, "000000"),
        (7, sent),
        (12, "120000"),
        (13, "0101"),
        (18, "5411"),
        (22, "051"),
        (25, "00"),
        (32, "123456"),
        (41, "TERM0001"),
        (42, "000000000000501"),
        (49, "840"),
    ];
    let mut fields: Fields = fields.iter().map(|(field, text)| (*field, (*text).to_owned())).collect();
    fields.insert(4, format!("{amount:012}"));
    fields.insert(11, format!("{trace:06}"));
    fields.insert(37, format!("REF{trace:09}"));
    fields
}

pub(crate) fn bytes(mti: &str, fields: &Fields) -> Vec<u8> {
    let mut draft = Draft::new(CODEC.dialect);
    draft.reset(Mti::from_digits(mti.as_bytes().try_into().unwrap()).unwrap());
    fields.iter().for_each(|(field, text)| draft.set(*field, text.as_bytes()));
    let mut bytes = Vec::new();
    HEADER
        .write(&mut bytes, |out| {
            draft.encode(CODEC, out).unwrap();
            Ok::<(), iso8583::FrameError>(())
        })
        .unwrap();
    bytes
}

/// An acquirer's host.
pub(crate) struct Host {
    pub(crate) stream: TcpStream,
    pub(crate) read: Vec<u8>,
    /// The last message as it came.
    pub(crate) last: Vec<u8>,
}

impl Host {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new(), last: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message, with its type as field 0. None at the end of the socket.
    pub(crate) async fn next(&mut self) -> Option<Fields> {
        loop {
            if let Cut::Message { bytes, used } = HEADER.cut(&self.read, 9999).unwrap() {
                let message = Message::parse(CODEC, bytes).unwrap();
                // Codes of messages are no text.
                let text = |field| {
                    String::from_utf8_lossy(&message.units(field).unwrap().collect::<Vec<_>>()).into_owned()
                };
                let mut fields: Fields =
                    message.fields().fields().map(|field| (field, text(field))).collect();
                fields.insert(0, message.mti().to_string());
                self.last = bytes.to_vec();
                self.read.drain(..used);
                return Some(fields);
            }
            match timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("a reply in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub(crate) async fn ask(&mut self, (mti, fields): &(&str, Fields)) -> Fields {
        self.write(&bytes(mti, fields)).await;
        self.next().await.expect("a reply")
    }
}
