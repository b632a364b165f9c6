//! The listener: plain HTTP for probes and numbers, on a thread of its own, so that neither waits for what the process does. It asks nobody
//! who he is.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::oneshot;

use crate::bounded::Bounded;
use crate::page::Page;
use crate::process;

/// How long a connection may last, whatever it does: probes and scrapes take milliseconds, and connect again.
const CONNECTION_LIFE: Duration = Duration::from_secs(10);

/// What a process tells.
pub trait Source: Send + Sync + 'static {
    /// Whether it serves; if not, a word that says why.
    ///
    /// # Errors
    /// It does not serve.
    fn ready(&self) -> Result<(), &'static str>;

    /// What is running, as one JSON object.
    fn version(&self) -> String;

    /// Its numbers; those of the process itself are written beside them.
    fn metrics(&self, page: &mut Page);

    /// What it tells at an address of its own, as one JSON object; none where there is no such address, or nothing yet.
    fn document(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Answers probes and scrapes until it is dropped.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Answers on a socket that is bound.
    ///
    /// # Errors
    /// The system gives no thread, or the socket cannot be used.
    pub fn start(listener: TcpListener, source: Arc<dyn Source>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let run = move || runtime.block_on(serve(listener, source, stopped));
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(run)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was told, and nothing is left to be done about it.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, source: Arc<dyn Source>, stopped: oneshot::Receiver<()>) {
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/{document}", get(document))
        .with_state(source);
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => Bounded::new(listener, CONNECTION_LIFE),
        Err(error) => return tracing::error!("the admin listener cannot serve: {error}"),
    };
    // Connections that are still open end with the runtime: a probe must not hold up the end.
    tokio::select! {
        served = axum::serve(listener, router) => {
            if let Err(error) = served {
                tracing::error!("the admin listener has stopped: {error}");
            }
        }
        _ = stopped => {}
    }
}

async fn ready(State(source): State<Arc<dyn Source>>) -> (StatusCode, String) {
    match source.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn version(State(source): State<Arc<dyn Source>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], source.version() + "\n")
}

async fn document(State(source): State<Arc<dyn Source>>, Path(name): Path<String>) -> Response {
    match source.document(&name) {
        Some(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> impl IntoResponse {
    let mut page = Page::default();
    source.metrics(&mut page);
    process::render(&mut page);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.into_text())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::page::Sort;

    #[derive(Default)]
    struct Door(AtomicBool);

    impl Source for Door {
        fn ready(&self) -> Result<(), &'static str> {
            self.0.load(Ordering::SeqCst).then_some(()).ok_or("starting")
        }

        fn version(&self) -> String {
            "{}".to_owned()
        }

        fn metrics(&self, page: &mut Page) {
            page.single("doors", Sort::Gauge, "doors", 1);
        }

        fn document(&self, name: &str) -> Option<String> {
            (name == "keys").then(|| "{\"keys\":2}".to_owned())
        }
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn probes_and_scrapes_are_answered_until_the_end() {
        let door = Arc::new(Door::default());
        let listener = Listener::start(TcpListener::bind("127.0.0.1:0").unwrap(), door.clone()).unwrap();
        let address = listener.address();
        let check = |path: &str, status: &str, body: &str| {
            let text = ask(address, &format!("GET {path} HTTP/1.0\r\n\r\n"));
            assert!(text.starts_with(&format!("HTTP/1.0 {status}")) && text.contains(body), "{path}: {text}");
        };
        check("/livez", "200", "alive\n");
        check("/readyz", "503", "starting\n");
        door.0.store(true, Ordering::SeqCst);
        check("/readyz", "200", "ready\n");
        check("/version", "200", "{}\n");
        check("/metrics", "200", "\ndoors 1\n");
        check("/metrics", "200", "\nprocess_resident_memory_bytes ");
        check("/keys", "200", "\r\n\r\n{\"keys\":2}\n");
        check("/nothing", "404", "");
        let posted = ask(address, "POST /metrics HTTP/1.0\r\n\r\n");
        assert!(posted.starts_with("HTTP/1.0 405"), "{posted}");
        drop(listener);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}
