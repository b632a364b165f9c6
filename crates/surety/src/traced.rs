//! `--otlp`: which requests are traced, and what a front door tells of those that it sends.

use std::sync::Arc;

use clap::Args as ClapArgs;
use surety_client::{Client, Observer, SubmitError};
use surety_protocol::trace::{Sampling, SpanRole, TraceId};
use surety_protocol::{Id, Kind, Record, Reply, TenantId, Time};
use telemetry::otlp::{Exported, Exporter, Side, Span, SpanSource, Value};
use telemetry::{Gauge, Page, Sort};

use crate::exit::Failure;
use crate::values::{self, CollectorText, ShareText};

/// One request in a thousand, where nobody says otherwise.
pub(crate) const SAMPLE_DEFAULT: ShareText = ShareText(1_000);
/// Spans that wait for the exporter; past it those that come are dropped and counted.
const WAITING_MAX: usize = 4096;

/// Traces of sampled requests.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct TraceArgs {
    /// Send spans of sampled requests to this collector: OTLP over HTTP, in protobuf [default: none are sent]
    #[arg(long, value_name = "URL", value_parser = values::collector)]
    pub(crate) otlp: Option<CollectorText>,
    /// The share of requests that is traced. A hash of its id says whether one is, so an engine and front doors with the same share
    /// trace the same requests [default: 0.001]
    #[arg(long, value_name = "SHARE", value_parser = values::share)]
    pub(crate) trace_sample: Option<ShareText>,
}

impl TraceArgs {
    /// Which requests are traced.
    fn sampling(&self) -> Sampling {
        Sampling::per_million(self.trace_sample.unwrap_or(SAMPLE_DEFAULT).0)
    }
}

/// Tells what clients have sent, until it is dropped: in logs, and in spans if a collector is named.
pub(crate) struct ClientTraces {
    watcher: Arc<Watcher>,
    _exporter: Option<Exporter>,
}

/// What clients have sent, of the requests that are traced.
pub(crate) struct Watcher {
    /// None if no collector is named.
    sampling: Option<Sampling>,
    waiting: parking_lot::Mutex<Vec<Span>>,
    dropped: Gauge,
    exported: Arc<Exported>,
}

impl ClientTraces {
    /// Begins. `service` is what the process is called in traces.
    pub(crate) fn start(args: &TraceArgs, service: &'static str) -> Result<Self, Failure> {
        let watcher = Arc::new(Watcher {
            sampling: args.otlp.is_some().then(|| args.sampling()),
            waiting: parking_lot::Mutex::default(),
            dropped: Gauge::default(),
            exported: Arc::default(),
        });
        let exporter = match args.otlp.clone() {
            None => None,
            Some(CollectorText(collector)) => {
                let source = Waiting(watcher.clone());
                Some(Exporter::start(collector, service, source, watcher.exported.clone())?)
            }
        };
        Ok(Self { watcher, _exporter: exporter })
    }

    /// Tells of the requests of a client.
    pub(crate) fn watch(&self, client: &Client) {
        client.set_observer(Arc::new(OfTenant { tenant: client.tenant(), watcher: self.watcher.clone() }));
    }

    /// What is counted.
    pub(crate) fn watcher(&self) -> Arc<Watcher> {
        self.watcher.clone()
    }
}

impl Watcher {
    /// Writes what became of spans.
    pub(crate) fn tell(&self, page: &mut Page) {
        let counters = [
            ("surety_spans_sent_total", "spans that the collector has taken", &self.exported.sent),
            ("surety_spans_lost_total", "spans that it has not", &self.exported.lost),
            (
                "surety_traces_dropped_total",
                "sampled requests of which nothing is told, since there was no room",
                &self.dropped,
            ),
        ];
        for (name, help, number) in counters {
            page.single(name, Sort::Counter, help, number.get());
        }
    }
}

/// The requests of one tenant.
struct OfTenant {
    tenant: TenantId,
    watcher: Arc<Watcher>,
}

impl Observer for OfTenant {
    fn on_outcome(&self, request: &Record, begun: Time, ended: Time, outcome: &Result<Reply, SubmitError>) {
        let trace = TraceId::of(request.id);
        let is_traced = self.watcher.sampling.is_some_and(|sampling| sampling.takes(trace));
        let is_known = !matches!(outcome, Err(SubmitError::Unknown { .. }));
        if is_known && !is_traced {
            return;
        }
        self.log(request, ended.minus(begun), outcome);
        if is_traced {
            self.watcher.push(span_of(trace, request, (begun, ended), outcome));
        }
    }
}

impl OfTenant {
    /// A line with everything that finds the request elsewhere: at `debug` if it is traced, at `warn` if its outcome is not known.
    fn log(&self, request: &Record, took: Time, outcome: &Result<Reply, SubmitError>) {
        let (tenant, shard) = (self.tenant.0, request.partition.shard().0);
        let (op, took_us) = (name_of(request), took.0 / 1_000);
        let (lock, code) = (request.lock(), told(outcome));
        let request = request.id;
        match outcome {
            Err(error @ SubmitError::Unknown { .. }) => {
                tracing::warn!(%request, %lock, tenant, shard, op, code, took_us, %error, "no answer of the engine");
            }
            _ => tracing::debug!(%request, %lock, tenant, shard, op, code, took_us, "answered by the engine"),
        }
    }
}

impl Watcher {
    fn push(&self, span: Span) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push(span);
        } else {
            self.dropped.raise();
        }
    }
}

fn name_of(request: &Record) -> &'static str {
    request.kind().map_or("?", Kind::name)
}

/// What came of a request.
fn told(outcome: &Result<Reply, SubmitError>) -> &'static str {
    match outcome {
        Ok(reply) => reply.code().name(),
        Err(SubmitError::NotExecuted { .. }) => "not executed",
        Err(SubmitError::Unknown { .. }) => "unknown",
    }
}

fn span_of(
    trace: TraceId,
    request: &Record,
    (begun, ended): (Time, Time),
    outcome: &Result<Reply, SubmitError>,
) -> Span {
    let mut attributes = vec![("surety.request", Value::Text(request.id.to_string()))];
    let lock = request.lock();
    if lock != Id(0) {
        attributes.push(("surety.lock", Value::Text(lock.to_string())));
    }
    attributes.push(("surety.code", Value::Text(told(outcome).to_owned())));
    Span {
        trace: trace.0,
        span: trace.span(SpanRole::Client).0,
        parent: 0,
        name: name_of(request),
        side: Side::Client,
        begun_ns: begun.0,
        ended_ns: ended.0,
        attributes,
        has_failed: outcome.is_err(),
    }
}

/// Where the exporter takes spans from.
struct Waiting(Arc<Watcher>);

impl SpanSource for Waiting {
    fn drain(&mut self, spans: &mut Vec<Span>, at_most: usize) {
        let mut waiting = self.0.waiting.lock();
        let count = waiting.len().min(at_most);
        spans.extend(waiting.drain(..count));
    }
}
