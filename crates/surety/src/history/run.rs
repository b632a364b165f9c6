//! `surety history run`: the process that keeps the index of an engine and answers questions about it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use history::{Answerer, Dial, History, Scope, Settings, Store, StoreOptions};
use serde_json::json;
use storage::DataDirectory;
use surety_client::Client;
use surety_client::transport::Connector;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::{ENGINE_FREE_BYTES_MIN, failure};
use crate::directory::{self, Serving};
use crate::exit::{Exit, Failure, say};
use crate::priority;
use crate::remote::{self, Role};
use crate::serve::forbid_core_dumps;
use crate::watched::{Life, MetricsArgs, Watched};

/// How long what was taken may take to be written at the end. It is all made again from the log.
const STOP_MAX: Duration = Duration::from_millis(1500);

/// An index that is kept.
#[derive(Debug, ClapArgs)]
pub(super) struct Run {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Identity to read the engine with: a PEM file with certificate, key and authority, of an operator's reader [default: the development identity in DIR]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Stop taking records when the index has this many bytes, and go on when there is room [default: only the disk's free space counts]
    #[arg(long, value_name = "BYTES")]
    bytes_max: Option<u64>,
    /// What the engine keeps free on the disk, its `log.free_bytes_min`: the index stops taking records below twice as many bytes and 784 MiB, which
    /// it may still write by itself
    #[arg(long, value_name = "BYTES", default_value_t = ENGINE_FREE_BYTES_MIN)]
    free_bytes_min: u64,
    /// End when standard input closes: `serve --history` starts it so
    #[arg(long)]
    attached: bool,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// Runs the command.
pub(super) fn run(args: &Run) -> Result<(), Failure> {
    priority::step_back();
    priority::take_little_memory();
    forbid_core_dumps();
    remote::run(keep(args))
}

async fn keep(args: &Run) -> Result<(), Failure> {
    // Listen for signals before anybody can be told that we are ready.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut closed = args.attached.then(stdin_closed);
    let watched = Watched::start(args.metrics, "history")?;
    let metadata = DataDirectory::inspect(&args.data).map_err(|error| directory::open_failure(&error))?;
    let settings = Settings {
        data: args.data.clone(),
        engine: metadata.engine,
        shards: metadata.shards,
        id_window: metadata.id_window,
    };
    let store = open(args, &settings)?;
    let history = History::start(&settings, store, &dial(args)).map_err(|error| failure(&error))?;
    let history = Arc::new(history);
    let (stop, stopped) = watch::channel(false);
    // The store is ours, so nobody else's is the socket.
    let listener = history::bind(&args.data)
        .map_err(|error| Failure::caused(Exit::Failure, history::socket(&args.data).display(), &error))?;
    let service = tokio::spawn(history::serve(listener, answerer(&history), stopped));
    watched.tell(super::numbers::Own(Arc::clone(&history)));
    watched.set_life(Life::Serving);
    let ready = json!({
        "ready": true,
        "engine": settings.engine.to_string(),
        "socket": history::socket(&args.data),
        "metrics": watched.address().map(|address| address.to_string()),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    // Who does not read it has the process all the same.
    let _ = say(ready);
    let broken = tokio::select! {
        _ = terminate.recv() => { tracing::info!("SIGTERM: stopping"); None }
        _ = interrupt.recv() => { tracing::info!("SIGINT: stopping"); None }
        () = until(&mut closed) => { tracing::info!("the engine is gone: stopping"); None }
        why = history.broken() => Some(why),
    };
    watched.set_life(Life::Stopping);
    history::unbind(&args.data);
    stop.send_replace(true);
    let _ = service.await;
    let stopped = history.stop(STOP_MAX);
    match broken {
        Some(why) => Err(Failure::new(Exit::Failure, why)),
        None => stopped.map_err(|error| failure(&error)),
    }
}

fn open(args: &Run, settings: &Settings) -> Result<Store, Failure> {
    let options = StoreOptions { bytes_max: args.bytes_max, ..StoreOptions::beside(args.free_bytes_min) };
    let store = Store::open_with(&history::place(&settings.data), settings.engine, options);
    store.map_err(|error| failure(&error))
}

/// Finds the engine that serves the directory, each time anew: it may be at another address after a restart.
fn dial(args: &Run) -> Dial {
    let (data, identity) = (args.data.clone(), args.identity.clone());
    Arc::new(move || {
        let (data, identity) = (data.clone(), identity.clone());
        Box::pin(async move { connect(&data, identity).await.map_err(|failure| failure.to_string()) })
    })
}

async fn connect(data: &Path, identity: Option<PathBuf>) -> Result<Client, Failure> {
    let file = identity.unwrap_or_else(|| remote::own_identity(data, Role::Reader));
    let address = Serving::find(data)?.listen;
    let connector: Arc<dyn Connector> = Arc::new(remote::connector(address, remote::identity(&file)?)?);
    remote::client_over(address, connector).await
}

fn answerer(history: &Arc<History>) -> Answerer {
    let history = Arc::clone(history);
    Arc::new(move |question| {
        history::answer(&history.reader(Scope::Operator), || Ok(history.status()), question)
    })
}

/// Tells when nobody holds the other end of standard input any more. A thread of its own waits for that: such a read cannot be taken back.
fn stdin_closed() -> oneshot::Receiver<()> {
    let (closing, closed) = oneshot::channel();
    let wait = move || {
        let mut stdin = std::io::stdin().lock();
        let mut bytes = [0; 64];
        while matches!(stdin.read(&mut bytes), Ok(read) if read > 0) {}
        let _ = closing.send(());
    };
    // Without it the process would outlive its engine: it ends at once.
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(wait);
    closed
}

async fn until(closed: &mut Option<oneshot::Receiver<()>>) {
    match closed {
        Some(closed) => drop(closed.await),
        None => std::future::pending().await,
    }
}
