//! The listener: takes connections, bounds them, and ends them together.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use surety_client::TailError;
use surety_client::protocol::TenantId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service;
use trust::{Crowd, Standing, Tls, TlsError, lost};

use crate::config::RestLimits;
use crate::guard::{Peer, TokenTwice};
use crate::metrics::Numbers;
use crate::patient::Patient;
use crate::tls::certified_by;
use crate::webhook::{EndpointError, OpenError};

/// After a failed `accept` (no descriptors left) the next one waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Heads of a request.
const HEADERS_MAX: usize = 64;
/// A connection is asked to end after this, and comes back if it likes: nobody holds one for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(15 * 60);
/// A peer over HTTP/2 that is silent is asked for a sign of life after this, and dropped after as long again.
const PING_AFTER: Duration = Duration::from_secs(20);
/// How long after its requests have had their time a connection may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection that is cut off may take to end: for an answer that is on its way.
const CUT_WITHIN: Duration = Duration::from_millis(200);

/// Why a front door does not open.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// What locks there are cannot be learned.
    #[error("cannot read the change stream: {0}")]
    Stream(#[from] TailError),
    /// Connections cannot be protected.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A webhook's name is no name, is there twice, or nothing says how webhooks are carried.
    #[error(
        "webhook `{0}`: small letters, digits and hyphens, each name once, and `rest.webhooks` says how they are carried"
    )]
    WebhookName(String),
    /// A webhook's address is not taken.
    #[error("webhook `{name}`: {error}")]
    Webhook {
        /// Which one.
        name: String,
        /// Why.
        error: EndpointError,
    },
    /// How far webhooks are cannot be read or kept.
    #[error(transparent)]
    Webhooks(#[from] OpenError),
    /// Two identities are of one tenant.
    #[error("two identities are of tenant {0}")]
    Twice(TenantId),
    /// A token is there twice.
    #[error(transparent)]
    Token(#[from] TokenTwice),
}

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Floor {
    pub(crate) router: Router,
    /// None for plain HTTP.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) limits: Arc<RestLimits>,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) reloads: watch::Receiver<()>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Takes connections until the front door closes, then waits for those that are open.
pub(crate) async fn accept(listener: TcpListener, floor: Floor) {
    let (limits, mut stopping) = (floor.limits.clone(), floor.stopping.clone());
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let crowd = Crowd::new(limits.connections_per_address_max);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection taken");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            tracing::warn!("closed: too many connections");
            floor.numbers.connections_refused.raise();
            continue;
        };
        let Some(own_place) = crowd.place(from.ip()) else {
            tracing::warn!(from = %from.ip(), "closed: too many connections of one address");
            floor.numbers.connections_refused.raise();
            continue;
        };
        let floor = floor.clone();
        connections.spawn(async move {
            let numbers = floor.numbers.clone();
            numbers.connections.raise();
            let _open = numbers.connections_open.hold();
            serve(stream, floor).await;
            drop((place, own_place));
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until the front door closes, or its owner is gone.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn serve(stream: TcpStream, mut floor: Floor) {
    // Replies are small, and somebody waits for each.
    let _ = stream.set_nodelay(true);
    let Some(tls) = floor.tls.clone() else {
        return talk(stream, None, floor).await;
    };
    let shaken = tokio::select! {
        shaken = timeout(floor.limits.head_within, tls.accept(stream)) => shaken,
        // It has asked for nothing yet.
        () = stopped(&mut floor.stopping) => return,
    };
    match shaken {
        Ok(Ok((stream, standing))) => talk(stream, Some(standing), floor).await,
        Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
        Err(_) => tracing::debug!("TLS took too long"),
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    standing: Option<Standing>,
    floor: Floor,
) {
    let Floor { router, limits, reloads, mut stopping, .. } = floor;
    let certified = standing.as_ref().and_then(Standing::certificate).map(certified_by);
    if certified == Some(None) {
        return tracing::debug!("closed: the client's certificate is no identity");
    }
    let peer = Peer { certified: certified.flatten(), known: watch::Sender::default() };
    let asking = peer.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(asking.clone());
        let mut router = router.clone();
        async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|never| match never {})) }
    });
    let builder = builder(&limits);
    let stream = TokioIo::new(Patient::new(stream, limits.head_within, limits.write_within));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let end_within = tokio::select! {
        ended = connection.as_mut() => return ended_with(ended),
        () = stopped(&mut stopping) => limits.answer_within + END_WITHIN,
        () = sleep(CONNECTION_LIFE) => limits.answer_within + END_WITHIN,
        () = nobody_comes_in(&peer, limits.head_within) => END_WITHIN,
        () = nobody_is_left(&peer, reloads) => cut_off("the tokens that it has shown are there no more"),
        () = lost(standing) => cut_off("its client's certificate is accepted no more"),
    };
    connection.as_mut().graceful_shutdown();
    ended_with(timeout(end_within, connection).await.unwrap_or(Ok(())));
}

/// Both versions of HTTP, within these limits.
fn builder(limits: &RestLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .max_buf_size(limits.head_bytes_max)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_AFTER);
    builder
}

/// Comes back only if nobody has shown who it is within this.
async fn nobody_comes_in(peer: &Peer, within: Duration) {
    let mut known = peer.known.subscribe();
    if timeout(within, known.wait_for(|known| !known.is_empty())).await.is_ok() {
        std::future::pending().await
    }
}

/// Comes back once settings were taken under which nobody of this connection could come in any more.
async fn nobody_is_left(peer: &Peer, mut reloads: watch::Receiver<()>) {
    let mut known = peer.known.subscribe();
    while !peer.is_nobody_left() {
        // Whoever came in while the settings were being taken is found too.
        let told = tokio::select! {
            told = reloads.changed() => told,
            told = known.changed() => told,
        };
        if told.is_err() {
            std::future::pending().await
        }
    }
}

/// How long a connection may take that has to end at once.
fn cut_off(why: &str) -> Duration {
    tracing::info!(why, "a connection is cut off");
    CUT_WITHIN
}

fn ended_with(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
