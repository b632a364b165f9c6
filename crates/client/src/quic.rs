//! Links over QUIC: one connection per shard, a stream for each link, TLS 1.3 with a client certificate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ConnectionError, Endpoint, EndpointConfig, IdleTimeout, ReadError, RecvStream, SendStream, VarInt,
    WriteError,
};
use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{
    ALPN, CURSORS_HAVE_EPOCHS, CloseCode, Cursor, EngineId, Epoch, FrameError, FrameHeader, FrameKind, Hello,
    HelloReply, QUERY_HEAD_BYTES, QUERY_VERSION, Record, Reply, ShardId, StateQuery, Subscribe, TailHead,
    TailStatus, TenantId, Token, write_query,
};

use crate::error::ConnectError;
use crate::frames::{BodyRange, FrameBuffer, read_records, read_replies};
use crate::identity::{Identity, IdentityFault};
use crate::query::{Parts, QueryError};
use crate::transport::{
    Batch, BoxFuture, Closed, Connector, Event, Link, LinkReceiver, LinkSender, OpenError, StateSource,
    TailSource,
};
use crate::udp::UdpRuntime;

/// Bytes of a stream that may be unread: a full frame fits.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of all streams of a connection that may be unread.
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes that may be written and not acknowledged.
const SEND_WINDOW: u64 = 2 * 1024 * 1024;
/// Silence after which a connection is given up. Shorter than an engine's: payments wait behind a dead link.
const IDLE: Duration = Duration::from_secs(4);
/// Keeps an idle connection from being given up.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(20);
/// The round trip to assume before one was measured: a lost first packet is sent again after three of them.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// Whom to dial, and as whom.
#[derive(Clone, Debug)]
pub struct QuicOptions {
    /// Addresses of the engine; the port may be any shard's. The next one is tried when one does not answer.
    pub addresses: Vec<SocketAddr>,
    /// The name that the engine's certificate must carry.
    pub server_name: String,
    /// Who dials.
    pub identity: Identity,
    /// A name for the engine's logs, at most 32 bytes.
    pub name: String,
    /// How long one attempt to open a link may take, handshake included.
    pub connect_timeout: Duration,
}

impl QuicOptions {
    /// Options for one address, the server name `localhost` and a timeout of two seconds.
    #[must_use]
    pub fn new(address: SocketAddr, identity: Identity) -> Self {
        Self {
            addresses: vec![address],
            server_name: "localhost".into(),
            identity,
            name: env!("CARGO_PKG_NAME").into(),
            connect_timeout: Duration::from_secs(2),
        }
    }
}

/// Opens links over QUIC.
pub struct QuicConnector {
    addresses: Vec<SocketAddr>,
    server_name: String,
    hello: Hello,
    connect_timeout: Duration,
    config: quinn::ClientConfig,
    known: Mutex<Known>,
}

/// What earlier hellos have taught.
#[derive(Default)]
struct Known {
    engine: Option<EngineId>,
    /// Index of the address in use.
    address: usize,
    /// The shard map of that address; empty while unknown.
    ports: Vec<u16>,
    /// Live connections by shard.
    connections: Vec<Option<quinn::Connection>>,
    /// Those with connections, live or about to end.
    endpoints: Vec<Endpoint>,
}

/// The transport settings of a client: the limits of an engine's, mirrored.
#[must_use]
pub fn transport_config() -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT);
    config
}

/// TLS and transport of a client, also those of the benchmarks.
///
/// # Errors
/// [`ConnectError::Identity`] if TLS does not accept the identity.
pub fn client_config(identity: &Identity) -> Result<quinn::ClientConfig, ConnectError> {
    let refused = ConnectError::Identity(IdentityFault::NotForTls);
    let tls = tls_config(identity).ok_or(refused)?;
    let tls = QuicClientConfig::try_from(tls).map_err(|_| refused)?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport_config()));
    Ok(config)
}

impl QuicConnector {
    /// Prepares TLS and transport; dials nothing yet.
    ///
    /// # Errors
    /// If there is no address, or TLS does not accept the identity.
    pub fn new(options: QuicOptions) -> Result<Self, ConnectError> {
        if options.addresses.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        let config = client_config(&options.identity)?;
        Ok(Self {
            addresses: options.addresses,
            server_name: options.server_name,
            hello: Hello::new(options.identity.tenant(), &options.name),
            connect_timeout: options.connect_timeout,
            config,
            known: Mutex::new(Known::default()),
        })
    }

    /// True while nothing that it has opened is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.known.lock().endpoints.iter().all(|endpoint| endpoint.open_connections() == 0)
    }

    /// The tenant of the identity.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.hello.tenant
    }

    /// Opens a stream on the shard's connection and exchanges hellos. The answer may come from another shard than the one
    /// that was asked for, if the map was unknown or wrong.
    async fn open_stream(&self, shard: ShardId, tokens: &[Token]) -> Result<Opened, OpenError> {
        let connection = self.connection(shard).await?;
        let (mut send, recv) = connection.open_bi().await.map_err(closed_by)?;
        let count = u16::try_from(tokens.len()).unwrap_or(u16::MAX);
        let header = FrameHeader { kind: FrameKind::Hello, count, number: 0 };
        let frame = [&header.to_bytes()[..], &self.hello.to_body(tokens)].concat();
        send.write_all(&frame).await.map_err(write_closed)?;
        let mut reader = FrameReader::new(recv);
        let (header, body) = std::future::poll_fn(|cx| reader.poll_frame(cx)).await?;
        let hello = match header.kind {
            FrameKind::HelloReply => HelloReply::from_body(reader.body(&body)).map_err(Closed::BadFrame)?,
            FrameKind::Goodbye => return Err(Closed::ByServer(CloseCode::Draining).into()),
            other => return Err(Closed::UnexpectedFrame(other).into()),
        };
        Ok(Opened { hello, send, reader, connection })
    }

    /// The live connection to a shard, or a new one.
    async fn connection(&self, shard: ShardId) -> Result<quinn::Connection, OpenError> {
        let index = usize::from(shard.0);
        let remote = {
            let known = self.known.lock();
            let live = known.connections.get(index).and_then(Option::as_ref);
            if let Some(connection) = live.filter(|connection| connection.close_reason().is_none()) {
                return Ok(connection.clone());
            }
            let mut remote = self.addresses[known.address];
            if !known.ports.is_empty() {
                remote.set_port(*known.ports.get(index).ok_or(OpenError::NoSuchShard(shard))?);
            }
            remote
        };
        let any: IpAddr =
            if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let endpoint =
            open_endpoint(SocketAddr::new(any, 0)).map_err(|error| OpenError::Socket(error.kind()))?;
        let connecting = endpoint
            .connect_with(self.config.clone(), remote, &self.server_name)
            .map_err(|_| OpenError::BadAddress)?;
        {
            let endpoints = &mut self.known.lock().endpoints;
            endpoints.retain(|endpoint| endpoint.open_connections() > 0);
            endpoints.push(endpoint);
        }
        Ok(connecting.await.map_err(closed_by)?)
    }

    /// Notes what a hello taught. True if the answer comes from the shard that was wanted.
    fn learn(&self, wanted: ShardId, opened: &Opened) -> Result<bool, OpenError> {
        let mut known = self.known.lock();
        let hello = &opened.hello;
        if *known.engine.get_or_insert(hello.engine) != hello.engine {
            return Err(OpenError::OtherEngine);
        }
        if wanted.0 >= hello.shards {
            return Err(OpenError::NoSuchShard(wanted));
        }
        known.ports = hello.shard_map().to_vec();
        let shards = known.ports.len().max(known.connections.len());
        known.connections.resize(shards, None);
        let index = usize::from(hello.shard.0);
        if let Some(place) = known.connections.get_mut(index) {
            *place = Some(opened.connection.clone());
        }
        if hello.shard == wanted {
            return Ok(true);
        }
        // Whatever was taken for the wanted shard is not.
        let wanted = usize::from(wanted.0);
        let is_same = |other: &quinn::Connection| other.stable_id() == opened.connection.stable_id();
        if known.connections[wanted].as_ref().is_some_and(is_same) {
            known.connections[wanted] = None;
        }
        Ok(false)
    }

    /// Opens a stream to exactly the wanted shard, following the shard map.
    async fn open_shard(&self, shard: ShardId, tokens: &[Token]) -> Result<Opened, OpenError> {
        let attempt = async {
            // The first answer may come from another shard; it brings the map, and the second must be right.
            for _ in 0..2 {
                let opened = self.open_stream(shard, tokens).await?;
                if self.learn(shard, &opened)? {
                    return Ok(opened);
                }
            }
            Err(OpenError::OtherEngine)
        };
        let result = match tokio::time::timeout(self.connect_timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(OpenError::TimedOut),
        };
        if result.is_err() {
            self.turn_to_next_address();
        }
        result
    }

    fn turn_to_next_address(&self) {
        let mut known = self.known.lock();
        known.address = (known.address + 1) % self.addresses.len();
        // The map belongs to the address, and may be why nothing answered.
        known.ports.clear();
    }
}

impl Connector for QuicConnector {
    fn open<'a>(&'a self, shard: ShardId, tokens: &'a [Token]) -> BoxFuture<'a, Result<Link, OpenError>> {
        Box::pin(async move {
            let Opened { hello, send, reader, connection } = self.open_shard(shard, tokens).await?;
            let sender = QuicSender { send, next_number: 1 };
            let receiver = QuicReceiver { reader, _connection: connection };
            Ok(Link { hello, sender: Box::new(sender), receiver: Box::new(receiver) })
        })
    }

    fn subscribe<'a>(
        &'a self,
        shard: ShardId,
        from: Cursor,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn TailSource>, OpenError>> {
        Box::pin(async move {
            let mut opened = self.open_shard(shard, tokens).await?;
            let header = FrameHeader { kind: FrameKind::Subscribe, count: 1, number: 1 };
            let (next, version) = (from.next, opened.hello.version);
            // Version 1 has no epoch there, and closes the connection where it finds one.
            let epoch = if version < CURSORS_HAVE_EPOCHS { Epoch(0) } else { from.epoch };
            let subscribe = Subscribe { from: next, shard, reserved: [0; 2], epoch };
            let frame = [&header.to_bytes()[..], &subscribe.to_bytes()].concat();
            opened.send.write_all(&frame).await.map_err(write_closed)?;
            let Opened { send, reader, connection, .. } = opened;
            let tail = QuicTail { version, reader, _send: send, _connection: connection };
            Ok(Box::new(tail) as Box<dyn TailSource>)
        })
    }

    fn farewell(&self) -> BoxFuture<'_, ()> {
        let endpoints = std::mem::take(&mut self.known.lock().endpoints);
        Box::pin(async move {
            for endpoint in endpoints {
                endpoint.close(VarInt::from_u32(CloseCode::Done as u32), b"done");
                // The close leaves at once; that the engine has heard it is not worth more of a wait.
                let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
            }
        })
    }

    fn state<'a>(
        &'a self,
        shard: ShardId,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn StateSource>, OpenError>> {
        Box::pin(async move {
            let Opened { send, reader, connection, .. } = self.open_shard(shard, tokens).await?;
            let state = QuicState { reader, send, next_number: 1, is_asking: false, _connection: connection };
            Ok(Box::new(state) as Box<dyn StateSource>)
        })
    }

    fn query<'a>(
        &'a self,
        question: &'a [u8],
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Vec<u8>, QueryError>> {
        Box::pin(async move {
            let shard = ShardId(0);
            let own: Vec<Token> = tokens.iter().copied().filter(|token| token.shard == shard).collect();
            let opened = self.open_shard(shard, &own).await.map_err(QueryError::Open)?;
            let Opened { hello, mut send, mut reader, connection: _connection } = opened;
            if hello.version < QUERY_VERSION {
                // It would take the question for a fault, and close the connection, with everything on it.
                return Err(QueryError::OldEngine(hello.version));
            }
            let body = write_query(question);
            let count = u16::try_from((body.len() - QUERY_HEAD_BYTES) / RECORD_BYTES).unwrap_or(u16::MAX);
            let header = FrameHeader { kind: FrameKind::Query, count, number: 1 };
            send.write_all(&[&header.to_bytes()[..], &body].concat()).await.map_err(write_closed)?;
            // There is one question to a stream. One that is gone already says so to whoever reads.
            let _ = send.finish();
            let mut parts = Parts::default();
            loop {
                let (header, body) = std::future::poll_fn(|cx| reader.poll_frame(cx)).await?;
                match header.kind {
                    FrameKind::Answer => {
                        if let Some(answer) = parts.take(reader.body(&body))? {
                            return Ok(answer);
                        }
                    }
                    FrameKind::Goodbye => return Err(Closed::ByServer(CloseCode::Draining).into()),
                    other => return Err(Closed::UnexpectedFrame(other).into()),
                }
            }
        })
    }
}

/// A stream after its hellos.
struct Opened {
    hello: HelloReply,
    send: SendStream,
    reader: FrameReader,
    connection: quinn::Connection,
}

struct QuicSender {
    send: SendStream,
    next_number: u64,
}

impl LinkSender for QuicSender {
    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<Result<(), Closed>> {
        use std::pin::Pin;
        loop {
            let rest = batch.unwritten(self.next_number);
            match Pin::new(&mut self.send).poll_write(cx, rest) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(write_closed(error))),
                Poll::Ready(Ok(count)) => {
                    if batch.advance(count) {
                        self.next_number += 1;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

struct QuicReceiver {
    reader: FrameReader,
    _connection: quinn::Connection,
}

impl LinkReceiver for QuicReceiver {
    fn poll_receive(&mut self, cx: &mut Context<'_>, replies: &mut Vec<Reply>) -> Poll<Event> {
        let (header, body) = match self.reader.poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(closed)) => return Poll::Ready(Event::Closed(closed)),
            Poll::Ready(Ok(frame)) => frame,
        };
        Poll::Ready(match header.kind {
            FrameKind::Replies => match read_replies(self.reader.body(&body), replies) {
                Some(token) => Event::Replies(Some(token)),
                None => Event::Closed(Closed::BadFrame(FrameError::Body(FrameKind::Replies))),
            },
            FrameKind::Goodbye => Event::Goodbye,
            other => Event::Closed(Closed::UnexpectedFrame(other)),
        })
    }
}

struct QuicTail {
    version: u16,
    reader: FrameReader,
    // An engine may take the end of the client's half for the end of the subscription.
    _send: SendStream,
    _connection: quinn::Connection,
}

impl TailSource for QuicTail {
    fn version(&self) -> u16 {
        self.version
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        records: &mut Vec<Record>,
    ) -> Poll<Result<(TailHead, TailStatus), Closed>> {
        let (header, body) = match self.reader.poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(closed)) => return Poll::Ready(Err(closed)),
            Poll::Ready(Ok(frame)) => frame,
        };
        let result = match header.kind {
            FrameKind::Records => read_records(self.reader.body(&body), records).map_err(Closed::BadFrame),
            FrameKind::Goodbye => Err(Closed::ByServer(CloseCode::Draining)),
            other => Err(Closed::UnexpectedFrame(other)),
        };
        Poll::Ready(result)
    }
}

struct QuicState {
    reader: FrameReader,
    send: SendStream,
    next_number: u64,
    /// A question is out and not answered.
    is_asking: bool,
    _connection: quinn::Connection,
}

impl StateSource for QuicState {
    fn ask<'a>(&'a mut self, query: &'a StateQuery) -> BoxFuture<'a, Result<Vec<u8>, Closed>> {
        Box::pin(async move {
            // A question that was given up half-way would take the next one's answer for its own.
            if std::mem::replace(&mut self.is_asking, true) {
                return Err(Closed::Local);
            }
            let header = FrameHeader { kind: FrameKind::StateQuery, count: 1, number: self.next_number };
            let frame = [&header.to_bytes()[..], &query.to_bytes()].concat();
            self.send.write_all(&frame).await.map_err(write_closed)?;
            self.next_number += 1;
            let (header, body) = std::future::poll_fn(|cx| self.reader.poll_frame(cx)).await?;
            self.is_asking = false;
            match header.kind {
                FrameKind::State => Ok(self.reader.body(&body).to_vec()),
                FrameKind::Goodbye => Err(Closed::ByServer(CloseCode::Draining)),
                other => Err(Closed::UnexpectedFrame(other)),
            }
        })
    }
}

/// The frames of a stream, as they arrive.
struct FrameReader {
    recv: RecvStream,
    frames: FrameBuffer,
}

impl FrameReader {
    fn new(recv: RecvStream) -> Self {
        Self { recv, frames: FrameBuffer::default() }
    }

    fn body(&self, range: &BodyRange) -> &[u8] {
        self.frames.body(range)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(FrameHeader, BodyRange), Closed>> {
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) => return Poll::Ready(Ok(frame)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(Closed::BadFrame(error))),
            }
            match self.recv.poll_read(cx, self.frames.room()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Closed::Ended)),
                Poll::Ready(Ok(count)) => self.frames.filled(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(read_closed(error))),
            }
        }
    }
}

fn tls_config(identity: &Identity) -> Option<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in &identity.authorities {
        roots.add(authority.clone()).ok()?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .ok()?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Some(config)
}

/// An endpoint that dials, on a socket of its own.
fn open_endpoint(address: SocketAddr) -> std::io::Result<Endpoint> {
    Endpoint::new(EndpointConfig::default(), None, UdpSocket::bind(address)?, Arc::new(UdpRuntime))
}

fn closed_by(error: ConnectionError) -> Closed {
    match error {
        ConnectionError::ApplicationClosed(close) => close_code(close.error_code),
        ConnectionError::ConnectionClosed(close) => transport_code(u64::from(close.error_code)),
        ConnectionError::TransportError(error) => transport_code(u64::from(error.code)),
        ConnectionError::TimedOut => Closed::TimedOut,
        ConnectionError::Reset => Closed::Reset,
        ConnectionError::LocallyClosed => Closed::Local,
        // INTERNAL_ERROR of RFC 9000: what remains cannot happen to a client of one version with ids to spare.
        ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => Closed::Transport(0x1),
    }
}

fn close_code(code: VarInt) -> Closed {
    let code = code.into_inner();
    CloseCode::from_code(code).map_or(Closed::ByServerUnknown(code), Closed::ByServer)
}

/// CRYPTO_ERROR, 0x0100 to 0x01ff, carries a TLS alert (RFC 9001, section 4.8).
fn transport_code(code: u64) -> Closed {
    match code {
        0x100..=0x1ff => Closed::Tls(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        _ => Closed::Transport(code),
    }
}

fn read_closed(error: ReadError) -> Closed {
    match error {
        ReadError::ConnectionLost(error) => closed_by(error),
        ReadError::Reset(code) => close_code(code),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Closed::Ended,
    }
}

fn write_closed(error: WriteError) -> Closed {
    match error {
        WriteError::ConnectionLost(error) => closed_by(error),
        WriteError::Stopped(code) => close_code(code),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => Closed::Ended,
    }
}
