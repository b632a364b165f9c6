//! Starting and ending a console: its socket, its thread, its router.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use history::Asker;
use parking_lot::Mutex;
use serde_json::Value;
use server::{Authority, Inside};
use tokio::sync::{Semaphore, watch};
use trust::TlsError;

use crate::config::{Asset, ConsoleConfig, PolicyWords};
use crate::guard::{bound, watch as watched};
use crate::live::{self, Frame};
use crate::overview::Overview;
use crate::proposals::{self, Proposals};
use crate::refused::Refused;
use crate::sessions::Sessions;
use crate::settlement::{Settlement, settlement};
use crate::site::Site;
use crate::{actions, approvals, assets, listener, past, reads};

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Within this a request has come in whole and is answered; a live stream has begun.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Questions of all tenants to the history at a time, of the 32 that it takes.
const TENANTS_QUESTIONS_MAX: usize = 16;
/// Live streams at a time.
const STREAMS_MAX: usize = 64;

/// Why a console does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its address is not the loopback's.
    #[error(
        "without TLS the console is for the loopback alone, so {0} is refused: give it a certificate and a key, or an address of the \
         loopback (127.0.0.1 or [::1]), which is reached from elsewhere through a tunnel (ssh -L)"
    )]
    NotLoopback(SocketAddr),
    /// Its TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {source}; choose another address or stop what uses it")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the console's thread: {0}")]
    Thread(io::Error),
}

/// Everything that handlers share.
pub(crate) struct Desk {
    pub(crate) inside: Inside,
    pub(crate) sessions: Sessions,
    pub(crate) overview: Mutex<Overview>,
    pub(crate) frames: watch::Sender<Frame>,
    /// Live streams that may still be opened.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) proposals: Mutex<Proposals>,
    pub(crate) assets: Vec<Asset>,
    pub(crate) policy: PolicyWords,
    /// How batches stand.
    pub(crate) settlement: Settlement,
    /// How the history is asked; none: nobody is.
    pub(crate) history: Option<Asker>,
    /// Questions that tenants may still ask it: the operator's and whoever watches it find a place beside them.
    pub(crate) tenants_questions: Arc<Semaphore>,
    /// Who was turned away since it was told last.
    pub(crate) refused: Arc<Refused>,
    pub(crate) site: Arc<Site>,
}

impl Desk {
    /// True if there is a history to ask, though maybe nobody to answer. One may be begun beside a running engine.
    pub(crate) fn has_history(&self) -> bool {
        self.history.as_ref().is_some_and(Asker::is_known)
    }
}

/// A running console. Dropping it closes every page's connection.
#[derive(Debug)]
pub struct Console {
    address: SocketAddr,
    site: Arc<Site>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Starts a console for an engine in this process. Certificates are judged by `authority`, which whoever owns it reads again.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        inside: Inside,
        authority: Arc<Authority>,
        config: ConsoleConfig,
    ) -> Result<Self, StartError> {
        if config.tls.is_none() && !config.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(config.listen));
        }
        let failed = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let site = match &config.tls {
            Some(files) => Site::secured(address.port(), files)?,
            None => Site::plain(address.port()),
        };
        let site = Arc::new(site);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Thread)?;
        let (stop, stopping) = watch::channel(false);
        let frames = watch::Sender::new(Frame::from("{}"));
        let desk = Arc::new(Desk {
            sessions: Sessions::new(inside.clone(), authority),
            inside,
            overview: Mutex::default(),
            frames: frames.clone(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            proposals: Mutex::default(),
            assets: config.assets,
            policy: config.policy,
            settlement: Settlement::new(config.settler),
            history: config.history,
            tenants_questions: Arc::new(Semaphore::new(TENANTS_QUESTIONS_MAX)),
            refused: Arc::default(),
            site: Arc::clone(&site),
        });
        let serve = async move {
            let beat = tokio::spawn(live::beat(Arc::clone(&desk), frames));
            let settled = Arc::clone(&desk);
            let settled = tokio::spawn(async move { settled.settlement.follow().await });
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let (refused, tls) = (Arc::clone(&desk.refused), desk.site.tls());
                    listener::accept(listener, router(desk), tls, &refused, stopping).await;
                }
                Err(error) => tracing::error!("the console cannot serve: {error}"),
            }
            beat.abort();
            settled.abort();
        };
        let thread = thread::Builder::new().name("console".to_owned());
        let thread = thread.spawn(move || runtime.block_on(serve)).map_err(StartError::Thread)?;
        Ok(Self { address, site, stop, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for a browser.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}/console/", self.site.scheme(), self.address)
    }

    /// Reads the files of its TLS again, if it has any.
    ///
    /// # Errors
    /// [`TlsError`]; then they stay as they were.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.site.reload()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there was told, and nothing is left to be done about it.
            let _ = thread.join();
        }
    }
}

fn router(desk: Arc<Desk>) -> Router {
    // Whoever signs in shows a certificate that may be another one than that of the session before.
    let doors = Router::new()
        .route("/session", post(actions::sign_in))
        .route("/session/look", post(actions::look))
        .route("/session/end", post(actions::sign_out));
    let within = Router::new()
        .route("/session", get(reads::session))
        .route("/history", post(past::ask))
        .route("/overview", get(reads::overview))
        .route("/live", get(live::live))
        .route("/settlement", get(settlement))
        .route("/id", get(reads::new_id))
        .route("/partitions", get(reads::partitions))
        .route("/partitions/{partition}", get(reads::partition_whole))
        .route("/partitions/{partition}/suppliers", get(reads::suppliers))
        .route("/partitions/{partition}/freeze", post(actions::freeze))
        .route("/partitions/{partition}/unfreeze", post(actions::unfreeze))
        .route("/partitions/{partition}/policy/preview", post(proposals::preview))
        .route("/partitions/{partition}/policy/propose", post(proposals::propose))
        .route("/partitions/{partition}/locks/{lock}", get(reads::lock))
        .route("/partitions/{partition}/locks/{lock}/release", post(actions::release))
        .route("/proposals", get(proposals::list))
        .route("/proposals/{number}/approve", post(approvals::approve))
        .route("/proposals/{number}/withdraw", post(approvals::withdraw))
        .route("/tenants", get(reads::tenants))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&desk), bound));
    assets::add(Router::new().nest("/console/api", within.merge(doors)))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn(in_time))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&desk), watched))
        .with_state(desk)
}

/// Gives a request up that takes too long, such as one whose body never comes.
async fn in_time(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let answered = tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await;
    answered.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response())
}

/// An answer in JSON.
pub(crate) fn json_answer(value: &Value) -> Response {
    json_text(value.to_string())
}

/// An answer that is JSON as it stands.
pub(crate) fn json_text(text: String) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], text).into_response()
}
