//! The QUIC links against an engine's end that is played frame by frame over real UDP.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use surety_client::protocol::{
    ALPN, ANSWER_HEAD_BYTES, Amount, CloseCode, Code, Cursor, EngineId, Epoch, FrameHeader, FrameKind, Hello,
    HelloReply, Id, Kind, LockBody, PartitionHandle, Record, Reply, Seq, ShardId, Subscribe, TailHead,
    TenantId, Time, Token, read_query, shard_map, write_answer,
};
use surety_client::transport::{Batch, Closed, Connector, Event, LinkReceiver, LinkSender, OpenError};
use surety_client::{
    Client, ConnectError, Identity, IdentityError, IdentityFault, Options, QueryError, QuicConnector,
    QuicOptions,
};

/// An authority and what it signs.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate with these names and its key, as PEM.
    fn sign(&self, names: Vec<SanType>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn identity_pem(&self, uri: &str) -> String {
        let (certificate, key) = self.sign(vec![SanType::URI(uri.try_into().unwrap())]);
        format!("{certificate}{key}{}", self.certificate)
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(self.identity_pem("surety://tenant/7/authorizer").as_bytes()).unwrap()
    }

    /// An engine's endpoint on a free port.
    fn endpoint(&self) -> Endpoint {
        let (certificate, key) = self.sign(vec![SanType::DnsName("localhost".try_into().unwrap())]);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap()
    }
}

/// A stream's engine end.
struct Stream {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    next_number: u64,
}

impl Stream {
    async fn accept(endpoint: &Endpoint) -> Self {
        Self::accept_on(endpoint.accept().await.unwrap().await.unwrap()).await
    }

    async fn accept_on(connection: Connection) -> Self {
        let (send, recv) = connection.accept_bi().await.unwrap();
        Self { connection, send, recv, next_number: 0 }
    }

    async fn read(&mut self) -> (FrameHeader, Vec<u8>) {
        let mut header = [0; 16];
        self.recv.read_exact(&mut header).await.unwrap();
        let header = FrameHeader::from_bytes(&header).unwrap();
        let mut body = vec![0; header.body_bytes()];
        self.recv.read_exact(&mut body).await.unwrap();
        (header, body)
    }

    async fn read_requests(&mut self) -> Vec<Record> {
        let (header, body) = self.read().await;
        assert_eq!(header.kind, FrameKind::Requests);
        body.as_chunks().0.iter().map(Record::from_bytes).collect()
    }

    fn frame(&mut self, kind: FrameKind, count: usize, body: &[u8]) -> Vec<u8> {
        let header = FrameHeader { kind, count: count as u16, number: self.next_number };
        self.next_number += 1;
        [&header.to_bytes()[..], body].concat()
    }

    async fn write(&mut self, kind: FrameKind, count: usize, body: &[u8]) {
        let frame = self.frame(kind, count, body);
        self.send.write_all(&frame).await.unwrap();
    }

    /// Reads the hello and answers it.
    async fn greet(&mut self, reply: &HelloReply) -> (Hello, Vec<Token>) {
        let (header, body) = self.read().await;
        assert_eq!((header.kind, header.number), (FrameKind::Hello, 0));
        self.write(FrameKind::HelloReply, 1, &reply.to_bytes()).await;
        Hello::from_body(&body).unwrap()
    }

    async fn answer(&mut self, requests: &[Record]) {
        let body = replies(requests);
        self.write(FrameKind::Replies, requests.len(), &body).await;
    }
}

fn token() -> Token {
    Token::sign(&[3; 32], EngineId(5), ShardId(0), Epoch(1), Seq(9))
}

fn replies(requests: &[Record]) -> Vec<u8> {
    let reply = |request: &Record| {
        let reply = Reply {
            id: request.id,
            code: Code::Approved as u8,
            kind: request.kind,
            seq: Seq(1),
            ..Reply::default()
        };
        reply.to_bytes()
    };
    let mut body = token().to_bytes().to_vec();
    requests.iter().for_each(|request| body.extend_from_slice(&reply(request)));
    body
}

fn hello_of(shard: u16, endpoints: &[&Endpoint]) -> HelloReply {
    let ports: Vec<u16> = endpoints.iter().map(|endpoint| endpoint.local_addr().unwrap().port()).collect();
    HelloReply {
        engine: EngineId(5),
        now: Time(0),
        acked: Seq(0),
        synced: Seq(0),
        epoch: Epoch(1),
        tenant: TenantId(7),
        version: 1,
        shard: ShardId(shard),
        shards: ports.len() as u16,
        frame_records_max: 1024,
        in_flight_max: 16 * 1024,
        roles: 1,
        durability: 0,
        reserved: [0; 2],
        ports: shard_map(&ports),
    }
}

fn lock(number: u128) -> Record {
    Record::new(Kind::Lock, Id(number), PartitionHandle(1), Amount(1), &LockBody::default())
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_addr().unwrap()
}

async fn connector(authority: &Authority, endpoint: &Endpoint) -> QuicConnector {
    QuicConnector::new(QuicOptions::new(address(endpoint), authority.identity())).unwrap()
}

async fn receive(receiver: &mut Box<dyn LinkReceiver>, replies: &mut Vec<Reply>) -> Event {
    std::future::poll_fn(|cx| receiver.poll_receive(cx, replies)).await
}

async fn send(sender: &mut Box<dyn LinkSender>, batch: &mut Batch) -> Result<(), Closed> {
    std::future::poll_fn(|cx| sender.poll_send(cx, batch)).await
}

#[tokio::test]
async fn a_client_greets_sends_and_gets_its_reply() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    let client = Client::connect(address(&endpoint), authority.identity());
    let serve = async {
        let mut stream = Stream::accept(&endpoint).await;
        let (hello, tokens) = stream.greet(&hello_of(0, &[&endpoint])).await;
        assert_eq!((hello.tenant, hello.name(), tokens.len()), (TenantId(7), "surety-client", 0));
        stream
    };
    let (client, mut stream) = tokio::join!(client, serve);
    let client = client.unwrap();
    assert_eq!((client.tenant(), client.shards()), (TenantId(7), 1));
    for number in 1..=3_u64 {
        let (reply, ()) = tokio::join!(client.submit(lock(number.into())), async {
            let (header, body) = stream.read().await;
            assert_eq!((header.kind, header.count, header.number), (FrameKind::Requests, 1, number));
            stream.answer(&[Record::from_bytes(body.as_chunks().0.first().unwrap())]).await;
        });
        assert_eq!(reply.unwrap().id, Id(number.into()));
    }
    assert_eq!(client.tokens(), [token()]);

    // The next link of the same shard presents the token.
    stream.connection.close(VarInt::from_u32(CloseCode::Draining as u32), b"");
    let mut stream = Stream::accept(&endpoint).await;
    assert_eq!(stream.greet(&hello_of(0, &[&endpoint])).await.1, [token()]);
}

#[tokio::test]
async fn frames_are_put_together_from_any_pieces() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    let connector = connector(&authority, &endpoint).await;
    let serve = async {
        let mut stream = Stream::accept(&endpoint).await;
        stream.greet(&hello_of(0, &[&endpoint])).await;
        stream
    };
    let (link, mut stream) = tokio::join!(connector.open(ShardId(0), &[]), serve);
    let mut link = link.unwrap();
    let requests: Vec<Record> = (0..1024).map(lock).collect();
    let mut batch = Batch::new();
    requests.iter().for_each(|request| batch.push(&[request.to_bytes()]));
    send(&mut link.sender, &mut batch).await.unwrap();
    assert_eq!(stream.read_requests().await, requests);
    // One full frame and one small one, in pieces that fit neither.
    let mut bytes = stream.frame(FrameKind::Replies, 1024, &replies(&requests));
    bytes.extend(stream.frame(FrameKind::Replies, 1, &replies(&requests[..1])));
    bytes.extend(stream.frame(FrameKind::Goodbye, 0, &[]));
    let write = async {
        for piece in bytes.chunks(977) {
            stream.send.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut replies = Vec::new();
    let read = async {
        assert_eq!(receive(&mut link.receiver, &mut replies).await, Event::Replies(Some(token())));
        assert_eq!(replies.len(), 1024);
        assert_eq!(receive(&mut link.receiver, &mut replies).await, Event::Replies(Some(token())));
        assert_eq!(receive(&mut link.receiver, &mut replies).await, Event::Goodbye);
    };
    tokio::join!(write, read);
    assert!(replies.iter().zip(&requests).all(|(reply, request)| reply.id == request.id));
    assert_eq!(replies[1024].id, requests[0].id);
}

#[tokio::test]
async fn a_bad_frame_closes_the_link_with_its_reason() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    let good = replies(&[lock(1)]);
    let mut undecided = good.clone();
    undecided[48 + 114] = 0;
    let header = |kind, count, number| FrameHeader { kind, count, number }.to_bytes().to_vec();
    let cases: [(Vec<u8>, &str); 6] = [
        ([header(FrameKind::Replies, 1, 2), good.clone()].concat(), "frame 2 where frame 1 belongs"),
        ([header(FrameKind::Replies, 1, 1), undecided].concat(), "body of a Replies frame"),
        ([header(FrameKind::Requests, 1, 1), vec![0; 128]].concat(), "Requests frame where none belongs"),
        (vec![99; 16], "unknown frame kind 99"),
        ([header(FrameKind::Replies, 1, 1), vec![0; 10]].concat(), "ended the stream"),
        (Vec::new(), "ended the stream"),
    ];
    for (bytes, expect) in cases {
        let connector = connector(&authority, &endpoint).await;
        let serve = async {
            let mut stream = Stream::accept(&endpoint).await;
            stream.greet(&hello_of(0, &[&endpoint])).await;
            stream.send.write_all(&bytes).await.unwrap();
            stream.send.finish().unwrap();
            stream
        };
        let (link, _stream) = tokio::join!(connector.open(ShardId(0), &[]), serve);
        let mut replies = Vec::new();
        let Event::Closed(closed) = receive(&mut link.unwrap().receiver, &mut replies).await else {
            panic!("{expect}");
        };
        assert!(closed.to_string().contains(expect), "{closed}");
        assert!(replies.is_empty());
    }
}

#[tokio::test]
async fn close_codes_arrive_by_name() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    for (code, expect) in [
        (CloseCode::Fork as u32, Closed::ByServer(CloseCode::Fork)),
        (CloseCode::BadCertificate as u32, Closed::ByServer(CloseCode::BadCertificate)),
        (0x999, Closed::ByServerUnknown(0x999)),
    ] {
        let connector = connector(&authority, &endpoint).await;
        let serve = async {
            let mut stream = Stream::accept(&endpoint).await;
            stream.read().await;
            stream.connection.close(VarInt::from_u32(code), b"");
        };
        let (link, ()) = tokio::join!(connector.open(ShardId(0), &[]), serve);
        assert_eq!(link.unwrap_err(), OpenError::Closed(expect));
    }
}

#[tokio::test]
async fn the_shard_map_is_followed_from_any_port() {
    let authority = Authority::new();
    let endpoints = [authority.endpoint(), authority.endpoint()];
    let [zero, one] = &endpoints;
    // Dialled at shard 1, asked for shard 0.
    let connector = connector(&authority, one).await;
    let (link, _streams) = tokio::join!(connector.open(ShardId(0), &[]), async {
        let mut first = Stream::accept(one).await;
        first.greet(&hello_of(1, &[zero, one])).await;
        let mut second = Stream::accept(zero).await;
        second.greet(&hello_of(0, &[zero, one])).await;
        (first, second)
    });
    assert_eq!(link.unwrap().hello.shard, ShardId(0));
    assert_eq!(connector.open(ShardId(2), &[]).await.unwrap_err(), OpenError::NoSuchShard(ShardId(2)));
}

#[tokio::test]
async fn a_shard_uses_its_connection_again() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    let connector = connector(&authority, &endpoint).await;
    let hello = hello_of(0, &[&endpoint]);
    let (first, connection) = tokio::join!(connector.open(ShardId(0), &[]), async {
        let mut stream = Stream::accept(&endpoint).await;
        stream.greet(&hello).await;
        stream
    });
    let _first = first.unwrap();
    // To version 1 those bytes are zero: any other ends the whole connection.
    check_tail(&connector, &connection, HelloReply { version: 1, ..hello }, 7, 0).await;
    check_tail(&connector, &connection, HelloReply { version: 1, ..hello }, Cursor::ANEW.0, 0).await;
    check_tail(&connector, &connection, HelloReply { version: 2, ..hello }, 7, 7).await;
    check_tail(&connector, &connection, HelloReply { version: 2, ..hello }, Cursor::ANEW.0, Cursor::ANEW.0)
        .await;
}

/// Subscribes with an epoch, on a connection that is there; the engine, by its version, must be told `told`.
async fn check_tail(
    connector: &QuicConnector,
    connection: &Stream,
    hello: HelloReply,
    epoch: u32,
    told: u32,
) {
    let from = Cursor { next: Seq(4), epoch: Epoch(epoch) };
    let (tail, mut stream) = tokio::join!(connector.subscribe(ShardId(0), from, &[]), async {
        let mut stream = Stream::accept_on(connection.connection.clone()).await;
        stream.greet(&hello).await;
        let (header, body) = stream.read().await;
        assert_eq!((header.kind, header.number), (FrameKind::Subscribe, 1));
        let asked = Subscribe::from_body(&body).unwrap();
        assert_eq!((asked.from, asked.epoch), (Seq(4), Epoch(told)));
        stream
    });
    let mut tail = tail.unwrap();
    assert_eq!(tail.version(), hello.version);
    let head = TailHead {
        first: Seq(4),
        through: Seq(5),
        epoch: Epoch(1),
        shard: ShardId(0),
        status: 0,
        reserved: [0; 9],
    };
    let body = [&head.to_bytes()[..], &lock(1).to_bytes(), &lock(2).to_bytes()].concat();
    stream.write(FrameKind::Records, 2, &body).await;
    let mut records = Vec::new();
    let (found, _) = std::future::poll_fn(|cx| tail.poll_next(cx, &mut records)).await.unwrap();
    assert_eq!((found, records), (head, vec![lock(1), lock(2)]));
}

#[tokio::test]
async fn another_engine_behind_the_address_is_not_taken_for_the_first() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    let connector = connector(&authority, &endpoint).await;
    for (engine, is_taken) in [(5, true), (6, false)] {
        let (link, stream) = tokio::join!(connector.open(ShardId(0), &[]), async {
            let mut stream = Stream::accept(&endpoint).await;
            let hello = HelloReply { engine: EngineId(engine), ..hello_of(0, &[&endpoint]) };
            stream.greet(&hello).await;
            stream
        });
        assert_eq!(link.is_ok(), is_taken);
        if let Err(error) = link {
            assert_eq!(error, OpenError::OtherEngine);
        }
        stream.connection.close(VarInt::from_u32(0), b"");
        stream.connection.closed().await;
        // The client hears of it before it opens the next.
        endpoint.wait_idle().await;
    }
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    // A socket that nobody reads.
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let options = QuicOptions {
        addresses: vec![silent.local_addr().unwrap(), address(&endpoint)],
        connect_timeout: Duration::from_millis(200),
        ..QuicOptions::new(address(&endpoint), authority.identity())
    };
    let connector = QuicConnector::new(options).unwrap();
    assert_eq!(connector.open(ShardId(0), &[]).await.unwrap_err(), OpenError::TimedOut);
    let hello = hello_of(0, &[&endpoint]);
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let mut stream = Stream::accept_on(incoming.await.unwrap()).await;
                stream.greet(&hello).await;
                stream.connection.closed().await
            });
        }
    });
    // A busy machine may need longer for a handshake than the span in which silence is to show: then it is asked again.
    let answered = async {
        while let Err(error) = connector.open(ShardId(0), &[]).await {
            assert_eq!(error, OpenError::TimedOut);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("an answer of the second address");
}

#[tokio::test]
async fn tls_refusals_are_typed() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let endpoint = authority.endpoint();
    tokio::spawn({
        let endpoint = endpoint.clone();
        async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move { incoming.await });
            }
        }
    });
    let check = async |identity: Identity, server_name: &str| {
        let options =
            QuicOptions { server_name: server_name.into(), ..QuicOptions::new(address(&endpoint), identity) };
        let error = Client::connect_with(options, Options::default()).await.unwrap_err();
        let is_typed = matches!(
            error,
            ConnectError::Open { error: OpenError::Closed(closed @ Closed::Tls(_)), .. } if closed.is_refusal()
        );
        assert!(is_typed, "{error}");
    };
    // Neither side trusts the other's authority.
    check(stranger.identity(), "localhost").await;
    // The client trusts the engine, and not the other way round.
    let (certificate, key) =
        stranger.sign(vec![SanType::URI("surety://tenant/7/authorizer".try_into().unwrap())]);
    let mixed =
        Identity::from_parts(certificate.as_bytes(), key.as_bytes(), authority.certificate.as_bytes());
    check(mixed.unwrap(), "localhost").await;
    check(authority.identity(), "elsewhere").await;
}

#[test]
fn identities_say_what_they_lack() {
    let authority = Authority::new();
    let whole = authority.identity_pem("surety://tenant/42/authorizer,settler");
    let (certificate, rest) = whole.split_at(whole.find("-----BEGIN PRIVATE").unwrap());
    let (key, ca) = rest.split_at(rest.find("-----BEGIN CERT").unwrap());
    assert_eq!(Identity::from_pem(whole.as_bytes()).unwrap().tenant(), TenantId(42));
    assert!(!format!("{:?}", Identity::from_pem(whole.as_bytes()).unwrap()).contains("PRIVATE"));
    let check = |pem: &str, expect: IdentityFault| {
        let error = Identity::from_pem(pem.as_bytes()).unwrap_err();
        assert!(matches!(error, IdentityError::Content { fault, .. } if fault == expect), "{error}");
    };
    check("", IdentityFault::NoCertificate);
    check(key, IdentityFault::NoCertificate);
    check(&format!("{certificate}{ca}"), IdentityFault::NoKey);
    check(&format!("{certificate}{key}"), IdentityFault::NoAuthority);
    check(&authority.identity_pem("https://example.org"), IdentityFault::NoTenant);
    check(&whole.replace("BEGIN CERTIFICATE-----\nM", "BEGIN CERTIFICATE-----\n!"), IdentityFault::NotPem);
    assert!(matches!(Identity::from_file("/no/such/file"), Err(IdentityError::Read { .. })));
}

#[tokio::test]
async fn an_engine_of_version_1_is_not_shown_a_question() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    let connector = connector(&authority, &endpoint).await;
    let serve = async {
        let mut link = Stream::accept(&endpoint).await;
        let (hello, _) = link.greet(&hello_of(0, &[&endpoint])).await;
        assert_eq!((hello.version_min, hello.version_max), (1, 2), "both are offered");
        link
    };
    let (link, mut open) = tokio::join!(connector.open(ShardId(0), &[]), serve);
    let mut link = link.unwrap();
    let serve = async {
        let mut stream = Stream::accept_on(open.connection.clone()).await;
        stream.greet(&hello_of(0, &[&endpoint])).await;
        // The client gives the stream up without a word: an engine of that version would close everything over the question.
        assert!(stream.recv.read_to_end(1 << 10).await.is_ok_and(|sent| sent.is_empty()));
    };
    let (refused, ()) = tokio::join!(connector.query(b"{}", &[]), serve);
    assert_eq!(refused, Err(QueryError::OldEngine(1)));
    let mut batch = Batch::new();
    batch.push(&[lock(1).to_bytes()]);
    send(&mut link.sender, &mut batch).await.unwrap();
    assert_eq!(open.read_requests().await, [lock(1)], "requests go on");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let authority = Authority::new();
    let endpoint = authority.endpoint();
    let part = |text: &[u8], has_more| write_answer(None, 200, text, has_more);
    let check = async |frames: Vec<(FrameKind, Vec<u8>)>| {
        let connector = connector(&authority, &endpoint).await;
        let serve = async {
            let mut stream = Stream::accept(&endpoint).await;
            stream.greet(&HelloReply { version: 2, ..hello_of(0, &[&endpoint]) }).await;
            let (header, body) = stream.read().await;
            assert_eq!((header.kind, header.number), (FrameKind::Query, 1));
            assert_eq!(read_query(&body), Ok(&b"what?"[..]));
            for (kind, body) in &frames {
                let head = if *kind == FrameKind::Answer { ANSWER_HEAD_BYTES } else { 0 };
                stream.write(*kind, (body.len() - head) / 128, body).await;
            }
            stream.send.finish().unwrap();
            stream
        };
        let (answer, _stream) = tokio::join!(connector.query(b"what?", &[]), serve);
        answer
    };
    let (first, last) = (part(&[1; 128], true), part(&[2; 72], false));
    let answer = |body: &Vec<u8>| (FrameKind::Answer, body.clone());
    let whole = check(vec![answer(&first), answer(&last)]).await.unwrap();
    assert_eq!(whole, [[1; 128].as_slice(), &[2; 72]].concat());
    assert_eq!(check(vec![answer(&first)]).await, Err(QueryError::Closed(Closed::Ended)));
    assert_eq!(check(Vec::new()).await, Err(QueryError::Closed(Closed::Ended)));
    let drained = check(vec![answer(&first), (FrameKind::Goodbye, Vec::new())]).await;
    assert_eq!(drained, Err(QueryError::Closed(Closed::ByServer(CloseCode::Draining))));
    let twice = check(vec![answer(&first), answer(&first), answer(&last)]).await;
    assert!(matches!(twice, Err(QueryError::Closed(Closed::BadFrame(_)))), "{twice:?}");
}
