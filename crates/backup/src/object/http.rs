//! HTTP to an object store: one request on a connection of its own, each with its time; the same TLS as everywhere.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::handshake;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_RANGE, HOST, HeaderMap, HeaderValue, IF_NONE_MATCH, USER_AGENT,
};
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, pem};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::Patience;
use super::settings::is_visible;

/// Bytes of an answer that is no object: a page of a thousand names, who a machine is, or why something failed.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// How many times as long as another answer that to the end of an upload may take.
const ASSEMBLY_ANSWERS: u32 = 10;

/// After so long the next of several addresses is tried as well.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Why the authorities that are to vouch for a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file is not there, or is no PEM.
    #[error("AWS_CA_BUNDLE: {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What is wrong.
        source: pem::Error,
    },
    /// It holds a certificate that is none, or none at all.
    #[error("AWS_CA_BUNDLE: {0} holds no certificate of an authority, or one that makes no sense")]
    Certificate(String),
}

/// No answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct Late(Duration);

/// The address is not to be spoken to without TLS.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not asked without TLS")]
struct Plain(String);

/// More came than an answer has.
#[derive(Debug, thiserror::Error)]
#[error("an answer of more than {ANSWER_BYTES_MAX} bytes")]
struct Long;

/// A part of an object came that is none of it.
#[derive(Debug, thiserror::Error)]
#[error("an answer whose Content-Range is {0:?}, which is no part of an object")]
struct NoPart(String);

/// What a container shows when it asks who it is cannot be shown.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {path}: {source}")]
    File { path: String, source: io::Error },
    #[error("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {0} holds what no header takes: give one line of text")]
    Text(String),
}

/// What a machine's own service says goes into the next question, and cannot.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} tells this machine who it is in words that make no sense: one of a role or a token was expected"
)]
struct Senseless(String);

/// A list is not given to this caller. Of other questions the crate says so by an error of its own, of a list in words alone.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {said}")]
struct Refused {
    status: StatusCode,
    said: String,
}

/// True if what failed is that no answer came in time.
pub(super) fn is_late(error: &object_store::Error) -> bool {
    is_caused_by(error, |error| {
        let is_timeout = |error: &HttpError| error.kind() == HttpErrorKind::Timeout;
        error.is::<Late>() || error.downcast_ref().is_some_and(is_timeout)
    })
}

/// True if the store does not let the caller list.
pub(super) fn is_refused(error: &object_store::Error) -> bool {
    is_caused_by(error, |error| error.is::<Refused>())
}

/// What sort of failure of the way to the store: no answer in time, a connection that is refused, a certificate that does not hold.
pub(super) fn kind(error: &object_store::Error) -> io::ErrorKind {
    if is_late(error) {
        return io::ErrorKind::TimedOut;
    }
    let found = causes(error).find_map(|error| error.downcast_ref::<io::Error>());
    found.map_or(io::ErrorKind::Other, io::Error::kind)
}

fn is_caused_by(error: &object_store::Error, is_meant: impl Fn(&Cause) -> bool) -> bool {
    causes(error).any(is_meant)
}

type Cause = dyn std::error::Error + 'static;

fn causes(error: &object_store::Error) -> impl Iterator<Item = &Cause> {
    std::iter::successors(Some(error as &Cause), |error| error.source())
}

/// With a question whose answer is an object, of any length. Every other answer is a short one.
#[derive(Clone, Copy, Debug)]
pub(super) struct IsObject;

/// What sort of answer, which says how long it may take and how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// As long as something comes.
    Object,
    /// To the end of an upload: blanks come while the store puts the object together.
    Assembly,
    Other,
}

impl Sort {
    /// When an answer is late of which nothing has come since `last`.
    fn late_at(self, answer: Duration, begun: Instant, last: Instant) -> Instant {
        match self {
            Self::Object => last + answer,
            Self::Assembly => (last + answer).min(begun + answer * ASSEMBLY_ANSWERS),
            Self::Other => begun + answer,
        }
    }
}

/// What speaks to stores.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tls: Arc<ClientConfig>,
    token_file: Option<Arc<str>>,
    patience: Patience,
}

impl Connector {
    /// Trusts the authorities that the web trusts, or those of this file alone.
    pub(super) fn new(
        ca_bundle: Option<&str>,
        token_file: Option<&str>,
        patience: Patience,
    ) -> Result<Self, CaError> {
        let roots = match ca_bundle {
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            Some(path) => authorities(path)?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS);
        let Ok(builder) = builder else { unreachable!("ring has every version that is built in") };
        let tls = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        Ok(Self { tls, token_file: token_file.map(Arc::from), patience })
    }

    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri().clone();
        complete_once(&mut request);
        self.show_token(&mut request).await?;
        let stream = match timeout(self.patience.connect, connect(&uri)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(HttpError::new(HttpErrorKind::Connect, Late(self.patience.connect))),
        };
        if uri.scheme_str() == Some("http") {
            return self.exchange(stream, request).await;
        }
        let name = ServerName::try_from(host(&uri).to_owned())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        self.exchange(stream.map_err(no_tls)?, request).await
    }

    /// Shows what a container shows: the crate has left the room for it. The file is read anew each time, since it is replaced now and then.
    async fn show_token(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let shown = request.headers_mut().get_mut(AUTHORIZATION).filter(|shown| shown.is_empty());
        let (Some(shown), Some(path)) = (shown, &self.token_file) else { return Ok(()) };
        let failed = |error: TokenError| HttpError::new(HttpErrorKind::Unknown, error);
        let path = Arc::clone(path);
        let read = spawn_blocking(move || token(&path)).await;
        *shown = read.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?.map_err(failed)?;
        Ok(())
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        let uri = std::mem::take(request.uri_mut());
        let (is_list, is_word) = (is_list(&uri), is_word(&uri));
        let mut sort = match request.extensions().get::<IsObject>() {
            Some(IsObject) => Sort::Object,
            None if is_assembly(request.method(), &uri) => Sort::Assembly,
            None => Sort::Other,
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let invalid = |error| HttpError::new(HttpErrorKind::Unknown, error);
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(invalid)?);
        headers.insert(USER_AGENT, HeaderValue::from_static("surety"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        *request.uri_mut() = uri.path_and_query().map_or_else(Uri::default, |path| path.clone().into());
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the body of the answer, or when nobody wants that any more.
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        if parts.status.is_success() {
            check_part(&parts.headers)?;
        } else {
            sort = Sort::Other;
        }
        let body = HttpResponseBody::new(Flowing::new(body, sort, self.patience.answer));
        if is_list && matches!(parts.status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) {
            let said = String::from_utf8_lossy(&body.bytes().await?).into_owned();
            return Err(HttpError::new(HttpErrorKind::Unknown, Refused { status: parts.status, said }));
        }
        if is_word && parts.status.is_success() {
            let body = word(&uri, &body.bytes().await?)?;
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        Ok(HttpResponse::from_parts(parts, body))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.patience.answer;
        let late = |_| HttpError::new(HttpErrorKind::Timeout, Late(answer));
        timeout(answer, self.send(request)).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

fn authorities(path: &str) -> Result<RootCertStore, CaError> {
    let file = |source| CaError::File { path: path.to_owned(), source };
    let wrong = || CaError::Certificate(path.to_owned());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(file)? {
        roots.add(certificate.map_err(file)?).map_err(|_| wrong())?;
    }
    if roots.is_empty() { Err(wrong()) } else { Ok(roots) }
}

/// What ends an upload in pieces makes the object only if there is none of its name, as S3 can and the crate does not ask. Headers beyond
/// its own need not be signed.
fn complete_once(request: &mut HttpRequest) {
    if is_assembly(request.method(), request.uri()) {
        request.headers_mut().insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
}

/// True of what ends an upload in pieces.
fn is_assembly(method: &Method, uri: &Uri) -> bool {
    let is_upload = |query: &str| query.split('&').any(|part| part.starts_with("uploadId="));
    method == Method::POST && uri.query().is_some_and(is_upload)
}

/// The token in a file, without the end of its line.
fn token(path: &str) -> Result<HeaderValue, TokenError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| TokenError::File { path: path.to_owned(), source })?;
    let token = Some(text.trim_end()).filter(|token| is_visible(token));
    let token = token.and_then(|token| HeaderValue::from_str(token).ok());
    let mut token = token.ok_or_else(|| TokenError::Text(path.to_owned()))?;
    token.set_sensitive(true);
    Ok(token)
}

/// True if the crate makes the next question out of the answer to this one: a machine asks for a token, then for its role.
fn is_word(uri: &Uri) -> bool {
    ["/latest/api/token", "/security-credentials/"].iter().any(|end| uri.path().ends_with(end))
}

/// What may stand in an address and in a header.
fn word(uri: &Uri, answer: &[u8]) -> Result<String, HttpError> {
    let said = str::from_utf8(answer).unwrap_or_default().trim();
    let is_word =
        !said.is_empty() && is_visible(said) && format!("http://localhost/{said}").parse::<Uri>().is_ok();
    if is_word {
        return Ok(said.to_owned());
    }
    Err(HttpError::new(HttpErrorKind::Decode, Senseless(host(uri).to_owned())))
}

fn is_list(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("list-type=")))
}

/// The crate adds one to the last byte of a part, whatever it is told that this is, and asks itself how long the part is.
fn check_part(headers: &HeaderMap) -> Result<(), HttpError> {
    let Some(told) = headers.get(CONTENT_RANGE) else { return Ok(()) };
    let text = String::from_utf8_lossy(told.as_bytes());
    let is_part = || {
        let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(first <= last && last < size.parse().ok()?)
    };
    if is_part() == Some(true) {
        return Ok(());
    }
    Err(HttpError::new(HttpErrorKind::Decode, NoPart(text.into_owned())))
}

async fn connect(uri: &Uri) -> Result<TcpStream, HttpError> {
    let is_plain = uri.scheme_str() == Some("http");
    let host = host(uri);
    if is_plain && !is_near(host) {
        return Err(HttpError::new(HttpErrorKind::Unknown, Plain(host.to_owned())));
    }
    let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
    let failed = |error| HttpError::new(HttpErrorKind::Connect, error);
    first_of(lookup_host((host, port)).await.map_err(failed)?).await.map_err(failed)
}

/// The first connection that is made: one address that does not answer keeps nobody from another, and each has all the time that there is.
async fn first_of(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let begin = |(number, address)| async move {
        sleep(NEXT_ADDRESS * number).await;
        TcpStream::connect(address).await
    };
    let mut begun: FuturesUnordered<_> = (0..).zip(addresses).map(begin).collect();
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    while let Some(connected) = begun.next().await {
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A certificate that does not hold is no fault that passes; a connection that ends is.
fn no_tls(error: io::Error) -> HttpError {
    let is_of_tls = error.get_ref().is_some_and(|error| error.is::<rustls::Error>());
    HttpError::new(if is_of_tls { HttpErrorKind::Unknown } else { HttpErrorKind::Connect }, error)
}

/// Without the brackets of an IPv6 address.
fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// This machine, or what hands out its credentials (169.254.169.254 and its like).
fn is_near(host: &str) -> bool {
    host == "localhost"
        || match host.parse() {
            Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_loopback(),
            Err(_) => false,
        }
}

fn broken(error: hyper::Error) -> HttpError {
    let kind = if error.is_parse() { HttpErrorKind::Decode } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error)
}

/// The body of an answer, within its time and its length.
struct Flowing {
    body: Incoming,
    sort: Sort,
    answer: Duration,
    begun: Instant,
    late_at: Pin<Box<Sleep>>,
    /// The next part is waited for; a reader that takes its time costs the store none.
    is_awaited: bool,
    /// Bytes that may still come; of an object as many as it has.
    left: Option<u64>,
}

impl Flowing {
    fn new(body: Incoming, sort: Sort, answer: Duration) -> Self {
        let left = (sort != Sort::Object).then_some(ANSWER_BYTES_MAX);
        let begun = Instant::now();
        let late_at = Box::pin(sleep_until(sort.late_at(answer, begun, begun)));
        Self { body, sort, answer, begun, late_at, is_awaited: true, left }
    }

    /// Counts what came.
    fn flow(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, HttpError> {
        self.is_awaited = false;
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        if let Some(left) = &mut self.left {
            let rest = left.checked_sub(bytes);
            *left = rest.ok_or_else(|| HttpError::new(HttpErrorKind::Decode, Long))?;
        }
        Ok(frame)
    }
}

impl Body for Flowing {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| self.flow(frame.map_err(broken)?)));
        }
        if !std::mem::replace(&mut self.is_awaited, true) {
            let late_at = self.sort.late_at(self.answer, self.begun, Instant::now());
            self.late_at.as_mut().reset(late_at);
        }
        let answer = self.answer;
        let late = self.late_at.as_mut().poll(cx);
        late.map(|()| Some(Err(HttpError::new(HttpErrorKind::Timeout, Late(answer)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Whoever collects an answer makes room for as much as it says that it has.
        if self.left.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[test]
    fn an_object_takes_its_time_an_assembly_ten_answers_and_all_else_one() {
        let (begun, minute) = (Instant::now(), Duration::from_secs(60));
        for (sort, last, late_at) in [
            (Sort::Object, 0, 1),
            (Sort::Object, 300, 301),
            (Sort::Assembly, 0, 1),
            (Sort::Assembly, 8, 9),
            (Sort::Assembly, 9, 10),
            (Sort::Assembly, 10, 10),
            (Sort::Other, 0, 1),
            (Sort::Other, 1, 1),
        ] {
            let late = sort.late_at(minute, begun, begun + minute * last);
            assert_eq!(late, begun + minute * late_at, "{sort:?} {last}");
        }
    }

    #[test]
    fn addresses_that_do_not_answer_keep_nobody_from_one_that_does() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Whoever comes when the queue is full is not heard.
            let silent = TcpSocket::new_v4().unwrap();
            silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let silent = silent.listen(1).unwrap();
            let nobody = silent.local_addr().unwrap();
            let mut queue = Vec::new();
            while let Ok(stream) = timeout(Duration::from_secs(1), TcpStream::connect(nobody)).await {
                queue.push(stream.unwrap());
            }
            let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = here.local_addr().unwrap();
            let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let addresses = [refused, nobody, nobody, nobody, nobody, nobody, nobody, address];
            let connected = timeout(Duration::from_secs(60), first_of(addresses.into_iter())).await;
            let stream = connected.expect("none of them has to give up first").unwrap();
            assert_eq!(stream.peer_addr().unwrap(), address);
            let failed = first_of([refused, refused].into_iter()).await.unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::ConnectionRefused);
            let nowhere = first_of([].into_iter()).await.unwrap_err();
            assert_eq!(nowhere.kind(), io::ErrorKind::AddrNotAvailable);
        });
    }

    #[test]
    fn a_part_of_an_object_lies_within_it() {
        assert!(check_part(&HeaderMap::new()).is_ok());
        for (told, expected) in [
            ("bytes 0-0/1", true),
            ("bytes 5-9/10", true),
            ("bytes 0-18446744073709551614/18446744073709551615", true),
            ("bytes 0-18446744073709551615/18446744073709551615", false),
            ("bytes 9-5/10", false),
            ("bytes 5-10/10", false),
            ("bytes 0-9/*", false),
            ("bytes */10", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(told))]);
            assert_eq!(check_part(&headers).is_ok(), expected, "{told}");
        }
    }

    #[test]
    fn what_ends_an_upload_is_told_from_what_begins_one() {
        for (method, uri, expected) in [
            (Method::POST, "/b/x?uploadId=1", true),
            (Method::POST, "/b/x?uploads=", false),
            (Method::PUT, "/b/x?partNumber=1&uploadId=1", false),
            (Method::DELETE, "/b/x?uploadId=1", false),
        ] {
            assert_eq!(is_assembly(&method, &uri.parse().unwrap()), expected, "{method} {uri}");
        }
    }
}
