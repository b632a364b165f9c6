//! Connections to a REST front door: one request at a time on each, as many as are needed, kept open.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;

use super::answer::Heard;
use super::asset::Asset;
use crate::door_faults::{DoorFaults, Exchange, Failed};
use crate::inject::Injection;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long an answer may take, the connecting included, before the request is said again: longer than the door's own limit on it (20 s by
/// its own settings).
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Where a door is, and how to be let in.
#[derive(Clone)]
pub struct DoorOptions {
    /// Its address.
    pub address: SocketAddr,
    /// The bearer token. Never printed.
    pub token: String,
    /// The asset of the scenario's partitions.
    pub asset: Asset,
    /// TLS, if it speaks that.
    pub tls: Option<DoorTls>,
    /// Faults on the way.
    pub injection: Option<Injection>,
    /// Decides when they come.
    pub seed: u64,
}

/// Whom TLS expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorTls {
    /// The authorities of its certificate: a PEM file.
    pub authority: PathBuf,
    /// The name in it: a DNS name or an address.
    pub name: String,
}

/// Why a door cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The authorities cannot be read.
    #[error(transparent)]
    Authority(#[from] trust::TlsError),
    /// What its certificate should name is no name.
    #[error("`{0}` is neither a DNS name nor an address")]
    Name(String),
    /// A token that no header can carry.
    #[error("the token holds what no HTTP header can carry")]
    Token,
    /// Nobody answers.
    #[error("{address}: {error}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// It answers, and not as a door should.
    #[error("{address} answers {status} to whoever asks for the partitions: check address and token")]
    Closed {
        /// Where.
        address: SocketAddr,
        /// What it said.
        status: u16,
    },
}

type Sender = SendRequest<Full<Bytes>>;

/// A connection that waits for the next request.
struct Line {
    sender: Sender,
    /// When it is to be killed, if it is.
    dies: Option<Instant>,
}

/// A REST front door, as an application sees it.
pub struct Door {
    options: DoorOptions,
    bearer: header::HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Line>>,
    faults: DoorFaults,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.options.address).finish_non_exhaustive()
    }
}

impl Door {
    /// Asks the door for the partitions, to see that it lets this token in.
    ///
    /// # Errors
    /// [`DoorError`].
    pub async fn open(options: DoorOptions) -> Result<Self, DoorError> {
        let bearer = format!("Bearer {}", options.token).parse();
        let mut bearer: header::HeaderValue = bearer.map_err(|_| DoorError::Token)?;
        bearer.set_sensitive(true);
        let tls = options.tls.as_ref().map(connector).transpose()?;
        let faults = DoorFaults::new(options.injection, options.seed);
        let door = Self { options, bearer, tls, idle: Mutex::default(), faults };
        let address = door.options.address;
        let until = Instant::now() + ANSWER_WITHIN;
        let line = door.dial_until(until).await.map_err(|error| DoorError::Connect { address, error })?;
        let closed = |status| DoorError::Closed { address, status };
        let request = door.request(hyper::Method::GET, "/v1/partitions?limit=1", None, Bytes::new());
        match door.exchange_on(line, request.ok_or(DoorError::Token)?, until).await {
            Ok(Heard { status: 200, .. }) => Ok(door),
            Ok(heard) => Err(closed(heard.status)),
            Err(_) => Err(closed(0)),
        }
    }

    /// The asset of its amounts.
    pub(super) const fn asset(&self) -> &Asset {
        &self.options.asset
    }

    /// What the smallest amount that it tells holds of base units.
    pub(crate) const fn step(&self) -> u128 {
        self.options.asset.step()
    }

    /// The faults on the way.
    pub(crate) const fn faults(&self) -> &DoorFaults {
        &self.faults
    }

    /// Says a request under a key, and hears the answer to it. If it goes out twice, the other answer is for `on_double`.
    pub(super) async fn post(
        self: &Arc<Self>,
        path: &str,
        key: &str,
        body: &Bytes,
        on_double: impl FnOnce(&Heard) + Send + 'static,
    ) -> Exchange<Heard> {
        let say = || {
            let (door, path, key, body) = (self.clone(), path.to_owned(), key.to_owned(), body.clone());
            async move { door.say(&path, &key, body).await }
        };
        self.faults.exchange(say, on_double).await
    }

    async fn say(&self, path: &str, key: &str, body: Bytes) -> Result<Heard, Failed> {
        let until = Instant::now() + ANSWER_WITHIN;
        let request = self.request(hyper::Method::POST, path, Some(key), body);
        let request = request.ok_or_else(|| Failed::NotSent(io::ErrorKind::InvalidInput.into()))?;
        let line = match self.take() {
            Some(line) => line,
            None => self.dial_until(until).await.map_err(Failed::NotSent)?,
        };
        self.exchange_on(line, request, until).await
    }

    async fn dial_until(&self, until: Instant) -> io::Result<Line> {
        timeout_at(until, self.dial()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn take(&self) -> Option<Line> {
        let mut idle = self.idle.lock();
        while let Some(line) = idle.pop() {
            if line.sender.is_ready() && line.dies.is_none_or(|dies| Instant::now() < dies) {
                return Some(line);
            }
            if line.dies.is_some_and(|dies| Instant::now() >= dies) {
                self.faults.count_killed();
            }
        }
        None
    }

    fn request(
        &self,
        method: hyper::Method,
        path: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> Option<hyper::Request<Full<Bytes>>> {
        let host = match &self.options.tls {
            Some(tls) => tls.name.clone(),
            None => self.options.address.to_string(),
        };
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, &self.bearer)
            .header(header::CONTENT_TYPE, "application/json");
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        request.body(Full::new(body)).ok()
    }

    async fn dial(&self) -> io::Result<Line> {
        let stream = TcpStream::connect(self.options.address).await?;
        stream.set_nodelay(true)?;
        let sender = match &self.tls {
            None => begin(stream).await?,
            Some((connector, name)) => begin(connector.connect(name.clone(), stream).await?).await?,
        };
        let dies = self.faults.death();
        Ok(Line { sender, dies })
    }

    /// Sends a request, and keeps the connection if it is of further use.
    async fn exchange_on(
        &self,
        mut line: Line,
        request: hyper::Request<Full<Bytes>>,
        until: Instant,
    ) -> Result<Heard, Failed> {
        let dies = line.dies;
        let exchange = timeout_at(until, exchange(&mut line.sender, request));
        let killed = async {
            match dies {
                Some(dies) => sleep_until(dies).await,
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            heard = exchange => heard.map_err(|_| Failed::Lost)??,
            () = killed => {
                // Its connection ends with the sender.
                self.faults.count_killed();
                return Err(Failed::Lost);
            }
        };
        self.idle.lock().push(line);
        Ok(heard)
    }
}

/// Begins to speak HTTP; the connection is driven until nobody sends on it any more.
async fn begin(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(sender: &mut Sender, request: hyper::Request<Full<Bytes>>) -> Result<Heard, Failed> {
    sender.ready().await.map_err(|error| Failed::NotSent(io::Error::other(error)))?;
    let response = sender.send_request(request).await.map_err(|_| Failed::Lost)?;
    let (head, body) = response.into_parts();
    let is_replayed = head.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| Failed::Lost)?;
    Ok(Heard { status: head.status.as_u16(), is_replayed, body: body.to_bytes().to_vec() })
}

pub(crate) fn connector(tls: &DoorTls) -> Result<(TlsConnector, ServerName<'static>), DoorError> {
    let name = ServerName::try_from(tls.name.clone()).map_err(|_| DoorError::Name(tls.name.clone()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder =
        builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(trust::TlsError::from)?;
    let config = builder.with_root_certificates(trust::roots(&tls.authority)?).with_no_client_auth();
    Ok((Arc::new(config).into(), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    /// Answers each request with `{}`, so many connections long.
    async fn answer(listener: TcpListener, connections: usize) {
        let mut serving = JoinSet::new();
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.unwrap();
            serving.spawn(async move {
                let mut stream = BufReader::new(stream);
                let (mut line, mut length) = (String::new(), 0);
                while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.trim().parse().unwrap();
                    }
                    if line == "\r\n" {
                        let mut body = vec![0; length];
                        stream.read_exact(&mut body).await.unwrap();
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                    }
                    line.clear();
                }
            });
        }
        drop(listener);
        while serving.join_next().await.is_some() {}
    }

    async fn open(connections: usize, injection: Option<&str>) -> (Arc<Door>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = DoorOptions {
            address: listener.local_addr().unwrap(),
            token: "t".to_owned(),
            asset: "AMP:18:2".parse().unwrap(),
            tls: None,
            injection: injection.map(|text| text.parse().unwrap()),
            seed: 1,
        };
        let serving = tokio::spawn(answer(listener, connections));
        (Arc::new(Door::open(options).await.unwrap()), serving)
    }

    #[tokio::test]
    async fn what_goes_out_twice_is_told_and_both_answers_are_heard() {
        let (door, serving) = open(2, Some("double=0.5")).await;
        let (tell, told) = std::sync::mpsc::channel();
        let mut doubled = 0;
        for _ in 0..50 {
            let tell = tell.clone();
            let on_double = move |heard: &Heard| tell.send(heard.body.clone()).unwrap();
            let exchange = door.post("/v1/locks", "k", &Bytes::from_static(b"{}"), on_double).await;
            doubled += usize::from(exchange.is_doubled);
            assert!(exchange.heard.is_ok_and(|heard| heard.body == b"{}"));
            door.faults.wait_for_doubles().await;
        }
        drop(tell);
        assert!(doubled > 0);
        assert_eq!(
            (told.into_iter().count(), door.faults.injected().map(|injected| injected.doubled)),
            (doubled, Some(doubled as u64))
        );
        drop(door);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn what_never_left_is_not_taken_for_lost() {
        let (door, serving) = open(1, None).await;
        // From here on nobody listens.
        door.idle.lock().clear();
        serving.await.unwrap();
        let exchange = door.post("/v1/locks", "k", &Bytes::from_static(b"{}"), |_| {}).await;
        assert!(matches!(exchange.heard, Err(Failed::NotSent(_))) && !exchange.is_doubled);
    }
}
