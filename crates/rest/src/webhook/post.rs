//! One delivery: a request on a connection of its own, and what the endpoint answers. Redirects are not followed.

use std::pin::pin;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::http::{Request, header};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::WebhookRules;
use super::address::Endpoint;

/// What is sent.
pub(super) struct Delivery<'a> {
    pub(super) webhook: &'a str,
    pub(super) signature: &'a str,
    pub(super) body: Vec<u8>,
}

/// Why it was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// No answer in time; the endpoint may have taken it all the same.
    #[error("no answer in time")]
    Late,
    /// No connection, or one that broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What came back is no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be written.
    #[error("{0}")]
    Request(#[from] axum::http::Error),
    /// The endpoint answered something else than that it has taken it.
    #[error("answered {0}")]
    Status(u16),
}

/// Sends it. Any status from 200 to 299 says that it was taken; nothing else does.
pub(super) async fn post(
    endpoint: &Endpoint,
    rules: &WebhookRules,
    delivery: Delivery<'_>,
) -> Result<(), PostError> {
    let sent = timeout(rules.answer_within, send(endpoint, rules, delivery)).await;
    match sent.map_err(|_| PostError::Late)?? {
        200..=299 => Ok(()),
        status => Err(PostError::Status(status)),
    }
}

async fn send(endpoint: &Endpoint, rules: &WebhookRules, delivery: Delivery<'_>) -> Result<u16, PostError> {
    let addresses = endpoint.resolve(rules.allow_private).await?;
    let stream = TcpStream::connect(&addresses[..]).await?;
    if !endpoint.is_tls {
        return exchange(stream, endpoint, delivery).await;
    }
    let wrong = |error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
    let name = ServerName::try_from(endpoint.host.clone()).map_err(wrong)?;
    let stream = TlsConnector::from(TLS.clone()).connect(name, stream).await?;
    exchange(stream, endpoint, delivery).await
}

/// The authorities that the web trusts.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS);
    let Ok(builder) = builder else { unreachable!("ring has every version that is built in") };
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
});

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    endpoint: &Endpoint,
    delivery: Delivery<'_>,
) -> Result<u16, PostError> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let request = Request::post(&endpoint.path)
        .header(header::HOST, endpoint.authority())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, "surety")
        .header("surety-webhook", delivery.webhook)
        .header("surety-signature", delivery.signature)
        .body(Body::from(delivery.body))?;
    let mut reply = pin!(sender.send_request(request));
    // What it says beside its status is nothing to us.
    let reply = tokio::select! {
        biased;
        reply = reply.as_mut() => reply?,
        // An endpoint may close with its answer.
        ended = connection => match reply.await {
            Ok(reply) => reply,
            Err(error) => return Err(ended.err().unwrap_or(error).into()),
        },
    };
    Ok(reply.status().as_u16())
}
