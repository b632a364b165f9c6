//! The admin listener: plain HTTP for probes and metrics, on a thread of its own.

mod process;

use std::fmt::Write;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use surety_protocol::PROTOCOL_VERSION;
use tokio::sync::oneshot;

use crate::bounded::Bounded;
use crate::metrics::{Counter, Histogram, ShardMetrics};
use crate::shared::{Life, Shared};
use crate::threads::AbortOnPanic;

/// How long a connection may last, whatever it does: probes and scrapes take milliseconds, and connect again.
const CONNECTION_LIFE: Duration = Duration::from_secs(10);

/// The listener, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    pub(crate) fn start(listener: TcpListener, shared: Arc<Shared>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let _guard = AbortOnPanic;
            runtime.block_on(serve(listener, shared, stopped));
        };
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(run)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has aborted the process.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .with_state(shared);
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

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    match shared.life() {
        Life::Serving => (StatusCode::OK, "ready\n"),
        Life::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Life::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Life::Forked => (
            StatusCode::SERVICE_UNAVAILABLE,
            "forked: a client holds a token that this data cannot have issued\n",
        ),
    }
}

async fn version(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let body = format!(
        "{{\"version\":\"{}\",\"protocol\":{PROTOCOL_VERSION},\"engine\":\"{}\",\"shards\":{}}}\n",
        env!("CARGO_PKG_VERSION"),
        shared.engine,
        shared.shards.len()
    );
    ([(header::CONTENT_TYPE, "application/json")], body)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], render(&shared))
}

/// Names a counter or gauge, says what it is, and finds it.
type Series = (&'static str, &'static str, &'static str, fn(&ShardMetrics) -> &Counter);

/// The same for durations.
type Durations = (&'static str, &'static str, fn(&ShardMetrics) -> &Histogram);

const SERIES: [Series; 25] = [
    ("surety_frames_total", "counter", "request frames executed", |m| &m.frames),
    ("surety_blocks_total", "counter", "blocks written to the log", |m| &m.blocks),
    ("surety_records_total", "counter", "records written to the log", |m| &m.records),
    ("surety_connections_total", "counter", "connections accepted", |m| &m.connections),
    ("surety_connections_open", "gauge", "connections open", |m| &m.connections_open),
    ("surety_connections_refused_total", "counter", "connections refused", |m| &m.connections_refused),
    ("surety_reloads_total", "counter", "times that the certificates were read again and taken", |m| {
        &m.reloads
    }),
    (
        "surety_reload_failures_total",
        "counter",
        "times that they were read again and stayed as they were",
        |m| &m.reload_failures,
    ),
    ("surety_closed_by_fault_total", "counter", "connections closed over a bad frame", |m| {
        &m.closed_by_fault
    }),
    (
        "surety_closed_slow_readers_total",
        "counter",
        "connections closed because their replies were not read",
        |m| &m.closed_slow_readers,
    ),
    ("surety_forwarded_total", "counter", "requests forwarded to another shard", |m| &m.forwarded),
    ("surety_subscribers", "gauge", "readers of the change stream", |m| &m.subscribers),
    ("surety_in_flight", "gauge", "requests taken and not answered", |m| &m.in_flight),
    ("surety_appended_seq", "gauge", "last record decided", |m| &m.appended),
    ("surety_acked_seq", "gauge", "last record that replies may speak of", |m| &m.acked),
    ("surety_synced_seq", "gauge", "last record on the disk", |m| &m.synced),
    ("surety_waiting_records", "gauge", "records waiting for the log", |m| &m.waiting_records),
    ("surety_storage_low", "gauge", "1 while new locks are declined for want of space", |m| &m.storage_low),
    ("surety_snapshot_seq", "gauge", "last record of the newest snapshot", |m| &m.snapshot_seq),
    ("surety_archived_seq", "gauge", "last record that the archive has, of this run's work", |m| {
        &m.archived_seq
    }),
    ("surety_archive_failures_total", "counter", "times that a segment could not be archived", |m| {
        &m.archive_failures
    }),
    ("surety_open_locks", "gauge", "locks that are live", |m| &m.open_locks),
    ("surety_kept_locks", "gauge", "locks in memory: live, and ended ones that may still be changed", |m| {
        &m.kept_locks
    }),
    ("surety_expired_locks_total", "counter", "locks that have ended by their deadline", |m| &m.expired),
    (
        "surety_invariant_violations_total",
        "counter",
        "times that a partition's money was found not to add up",
        |m| &m.violations,
    ),
];

/// Writes everything in the text format of Prometheus.
fn render(shared: &Shared) -> String {
    let mut text = String::new();
    let shards = || shared.shards.iter().enumerate();
    for (name, kind, help, counter) in SERIES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (shard, state) in shards() {
            let _ = writeln!(text, "{name}{{shard=\"{shard}\"}} {}", counter(&state.metrics).get());
        }
    }
    let name = "surety_requests_total";
    let _ = writeln!(text, "# HELP {name} requests answered\n# TYPE {name} counter");
    for (shard, state) in shards() {
        for (kind, code, count) in state.metrics.answers() {
            let _ = writeln!(text, "{name}{{shard=\"{shard}\",op=\"{kind}\",code=\"{code}\"}} {count}");
        }
    }
    let histograms: [Durations; 2] = [
        ("surety_request_duration_seconds", "from decision to reply", |m| &m.latency),
        (
            "surety_write_duration_seconds",
            "from a block's submission to its completion; with `fsync` it is on the disk then",
            |m| &m.write,
        ),
    ];
    for (name, help, histogram) in histograms {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (shard, state) in shards() {
            render_histogram(&mut text, name, shard, histogram(&state.metrics));
        }
    }
    render_money(&mut text, shared);
    process::render(&mut text);
    let ready = u8::from(shared.life() == Life::Serving);
    let _ = writeln!(text, "# HELP surety_ready 1 while requests are executed\n# TYPE surety_ready gauge");
    let _ = writeln!(text, "surety_ready {ready}");
    let name = "surety_build_info";
    let _ = writeln!(text, "# HELP {name} 1, with what is running\n# TYPE {name} gauge");
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(text, "{name}{{version=\"{version}\",protocol=\"{PROTOCOL_VERSION}\"}} 1");
    text
}

/// The money of each asset, as of the shards' last passes over their partitions.
fn render_money(text: &mut String, shared: &Shared) {
    let name = "surety_collateral_base_units";
    let help = "collateral by asset and state, of all partitions; exposure and deficit have no collateral behind them";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    let holdings: Vec<_> = shared.shards.iter().map(|shard| shard.money.read()).collect();
    for (shard, holdings) in holdings.iter().enumerate() {
        for (asset, sums) in holdings {
            for (state, amount) in sums.states() {
                let labels = format!("shard=\"{shard}\",asset=\"{}\",state=\"{state}\"", asset.0);
                let _ = writeln!(text, "{name}{{{labels}}} {amount}");
            }
        }
    }
    let name = "surety_partitions";
    let _ = writeln!(text, "# HELP {name} partitions, and how many of them are frozen\n# TYPE {name} gauge");
    for (shard, holdings) in holdings.iter().enumerate() {
        for (asset, sums) in holdings {
            for (state, count) in [("open", sums.partitions - sums.frozen), ("frozen", sums.frozen)] {
                let _ = writeln!(
                    text,
                    "{name}{{shard=\"{shard}\",asset=\"{}\",state=\"{state}\"}} {count}",
                    asset.0
                );
            }
        }
    }
}

fn render_histogram(text: &mut String, name: &str, shard: usize, histogram: &Histogram) {
    let (buckets, sum) = histogram.read();
    let mut total = 0;
    for (bound, count) in buckets {
        total = count;
        let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
        let _ = writeln!(text, "{name}_bucket{{shard=\"{shard}\",le=\"{bound}\"}} {count}");
    }
    let _ =
        writeln!(text, "{name}_sum{{shard=\"{shard}\"}} {sum}\n{name}_count{{shard=\"{shard}\"}} {total}");
}
