//! The listener: takes connections, bounds them, and ends them together.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service;
use trust::{Crowd, Standing, Tls, lost};

use crate::refused::Refused;

/// Connections at a time: a browser opens up to six for a page.
const CONNECTIONS_MAX: usize = 128;
/// Connections at a time of one address, where any may come.
const CONNECTIONS_OWN_MAX: usize = 32;
/// After a failed `accept` (no descriptors left) the next one waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A connection is asked to end after this, and comes back if it likes: nobody holds one for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(15 * 60);
/// So long may a request's head take, and a connection be silent between two requests.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection that was asked to end may take.
const END_WITHIN: Duration = Duration::from_secs(1);
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;

/// The certificates that a browser has shown, its own first; none without TLS, or if it has none to show.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown(pub(crate) Arc<[CertificateDer<'static>]>);

/// Takes connections until the console ends.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<Tls>>,
    refused: &Arc<Refused>,
    mut stopping: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The loopback is one address, of everybody who is let in there.
    let crowd = Crowd::new(if tls.is_some() { CONNECTIONS_OWN_MAX } else { CONNECTIONS_MAX });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the console takes no connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            refused.note("CONNECTIONS_FULL");
            continue;
        };
        let Some(own_place) = crowd.place(from.ip()) else {
            refused.note("CONNECTIONS_OF_ONE_ADDRESS");
            continue;
        };
        let (router, tls, stopping) = (router.clone(), tls.clone(), stopping.clone());
        let refused = Arc::clone(refused);
        connections.spawn(async move {
            meet(stream, tls, router, &refused, stopping).await;
            drop((place, own_place));
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Shakes hands where TLS is spoken, and talks.
async fn meet(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    router: Router,
    refused: &Refused,
    mut stopping: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return talk(stream, None, router, stopping).await;
    };
    let shaken = tokio::select! {
        shaken = timeout(HEAD_WITHIN, tls.accept(stream)) => shaken,
        // It has asked for nothing yet.
        _ = stopping.wait_for(|stopping| *stopping) => return,
    };
    match shaken {
        Ok(Ok((stream, standing))) => talk(stream, Some(standing), router, stopping).await,
        Ok(Err(error)) => {
            tracing::debug!(%error, "no TLS at the console");
            refused.note("HANDSHAKE");
        }
        Err(_) => refused.note("HANDSHAKE_TOO_SLOW"),
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    standing: Option<Standing>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let shown = Shown(standing.as_ref().map_or(&[][..], Standing::chain).into());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(shown.clone());
        let mut router = router.clone();
        async move { Ok::<_, Infallible>(router.call(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = sleep(CONNECTION_LIFE) => {}
        () = lost(standing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(END_WITHIN, connection).await;
}
