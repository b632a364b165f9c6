//! What shards have noted of sampled requests, on its way to a collector as spans.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use surety_protocol::trace::{Sampling, SpanRole, TraceId};
use surety_protocol::{Code, Id, Kind, Seq, ShardId, TenantId, Time};
use telemetry::Gauge;
use telemetry::otlp::{Exported, Side, Span, SpanSource, Value};

/// Requests that wait to be carried; past it those that come are dropped and counted.
const NOTED_MAX: usize = 4096;

/// What a shard has noted of one request. Times are the engine's, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    pub(crate) trace: TraceId,
    pub(crate) id: Id,
    /// The lock that it is about; zero for none.
    pub(crate) lock: Id,
    pub(crate) tenant: TenantId,
    pub(crate) shard: ShardId,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// Its record; 0 where nothing was recorded.
    pub(crate) seq: Seq,
    pub(crate) received: Time,
    pub(crate) decided: Time,
    /// None where nothing was appended.
    pub(crate) written: Option<Time>,
    pub(crate) synced: Option<Time>,
    pub(crate) replied: Time,
}

/// Which requests are traced, and what was noted of them.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(crate) sampling: Sampling,
    noted: ArrayQueue<Noted>,
    /// Requests of which nothing is told, since there was no room.
    pub(crate) dropped: Gauge,
    /// What became of spans.
    pub(crate) exported: Arc<Exported>,
}

impl Traces {
    pub(crate) fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            noted: ArrayQueue::new(NOTED_MAX),
            dropped: Gauge::default(),
            exported: Arc::default(),
        }
    }

    /// Leaves a request for the collector. Never waits.
    pub(crate) fn note(&self, noted: Noted) {
        if self.noted.push(noted).is_err() {
            self.dropped.raise();
        }
    }
}

/// Makes spans of what was noted.
pub(crate) struct Told(pub(crate) Arc<Traces>);

impl SpanSource for Told {
    fn drain(&mut self, spans: &mut Vec<Span>, at_most: usize) {
        while spans.len() < at_most
            && let Some(noted) = self.0.noted.pop()
        {
            log(&noted);
            tell(&noted, spans);
        }
    }
}

/// The same for whoever reads logs: a line for each request that is traced, at `debug`.
fn log(noted: &Noted) {
    tracing::debug!(
        request = %noted.id,
        lock = %noted.lock,
        tenant = noted.tenant.0,
        shard = noted.shard.0,
        op = name_of(noted.kind),
        code = code_of(noted.code),
        seq = noted.seq.0,
        took_us = noted.replied.minus(noted.received).0 / 1_000,
        "answered"
    );
}

fn tell(noted: &Noted, spans: &mut Vec<Span>) {
    let around = noted.trace.span(SpanRole::Engine);
    let client = noted.trace.span(SpanRole::Client);
    let mut put = |role: SpanRole, parent: u64, name, begun: Time, ended: Time| {
        spans.push(Span {
            trace: noted.trace.0,
            span: noted.trace.span(role).0,
            parent,
            name,
            side: if role == SpanRole::Engine { Side::Server } else { Side::Internal },
            begun_ns: begun.0,
            ended_ns: ended.0,
            attributes: if role == SpanRole::Engine { attributes(noted) } else { Vec::new() },
            has_failed: false,
        });
    };
    put(SpanRole::Engine, client.0, name_of(noted.kind), noted.received, noted.replied);
    put(SpanRole::Decide, around.0, "decide", noted.received, noted.decided);
    let mut may_leave = noted.decided;
    if let Some(written) = noted.written {
        put(SpanRole::Write, around.0, "write", noted.decided, written);
        may_leave = written;
        if let Some(synced) = noted.synced {
            put(SpanRole::Sync, around.0, "sync", written, synced);
        }
    }
    put(SpanRole::Reply, around.0, "reply", may_leave, noted.replied);
}

fn attributes(noted: &Noted) -> Vec<(&'static str, Value)> {
    let mut attributes = vec![
        ("surety.request", Value::Text(noted.id.to_string())),
        ("surety.tenant", Value::Number(i64::from(noted.tenant.0))),
        ("surety.shard", Value::Number(i64::from(noted.shard.0))),
        ("surety.code", Value::Text(code_of(noted.code).to_owned())),
    ];
    if noted.lock != Id(0) {
        attributes.push(("surety.lock", Value::Text(noted.lock.to_string())));
    }
    if noted.seq > Seq(0) {
        attributes.push(("surety.seq", Value::Number(i64::try_from(noted.seq.0).unwrap_or(i64::MAX))));
    }
    attributes
}

fn code_of(code: u8) -> &'static str {
    Code::from_byte(code).map_or("?", Code::name)
}

fn name_of(kind: u8) -> &'static str {
    Kind::from_byte(kind).map_or("?", Kind::name)
}
