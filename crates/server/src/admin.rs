//! What the admin listener tells of an engine.

use surety_protocol::PROTOCOL_VERSION;
use telemetry::{Counter, Histogram, Page, Sort, Source};

use crate::metrics::ShardMetrics;
use crate::shared::{Life, Shared};
use crate::traces::Traces;

impl Source for Shared {
    fn ready(&self) -> Result<(), &'static str> {
        match self.life() {
            // What is attached tells its own numbers; payments go on without it.
            Life::Serving => Ok(()),
            Life::Starting => Err("starting"),
            Life::Draining => Err("draining"),
            Life::Forked => Err("forked: a client holds a token that this data cannot have issued"),
        }
    }

    fn version(&self) -> String {
        format!(
            "{{\"version\":\"{}\",\"protocol\":{PROTOCOL_VERSION},\"engine\":\"{}\",\"shards\":{}}}",
            env!("CARGO_PKG_VERSION"),
            self.engine,
            self.shards.len()
        )
    }

    fn metrics(&self, page: &mut Page) {
        tell_shards(self, page);
        tell_durations(self, page);
        tell_money(self, page);
        if let Some(traces) = &self.traces {
            tell_traces(traces, page);
        }
        self.attached.0.read().iter().for_each(|attached| attached.metrics(page));
        let ready = u8::from(self.life() == Life::Serving);
        page.single("surety_ready", Sort::Gauge, "1 while requests are executed", ready);
        page.build(env!("CARGO_PKG_VERSION"), PROTOCOL_VERSION);
    }
}

/// Names a counter or gauge, says what it is, and finds it.
type Series = (&'static str, Sort, &'static str, fn(&ShardMetrics) -> &Counter);

/// The same for durations.
type Durations = (&'static str, &'static str, fn(&ShardMetrics) -> &Histogram);

const SERIES: [Series; 28] = [
    ("surety_frames_total", Sort::Counter, "request frames executed", |m| &m.frames),
    ("surety_blocks_total", Sort::Counter, "blocks written to the log", |m| &m.blocks),
    ("surety_records_total", Sort::Counter, "records written to the log", |m| &m.records),
    ("surety_connections_total", Sort::Counter, "connections accepted", |m| &m.connections),
    ("surety_connections_open", Sort::Gauge, "connections open", |m| &m.connections_open),
    ("surety_connections_refused_total", Sort::Counter, "connections refused", |m| &m.connections_refused),
    ("surety_reloads_total", Sort::Counter, "times that the certificates were read again and taken", |m| {
        &m.reloads
    }),
    (
        "surety_reload_failures_total",
        Sort::Counter,
        "times that they were read again and stayed as they were",
        |m| &m.reload_failures,
    ),
    ("surety_closed_by_fault_total", Sort::Counter, "connections closed over a bad frame", |m| {
        &m.closed_by_fault
    }),
    (
        "surety_closed_slow_readers_total",
        Sort::Counter,
        "connections closed because their replies were not read",
        |m| &m.closed_slow_readers,
    ),
    ("surety_forwarded_total", Sort::Counter, "requests forwarded to another shard", |m| &m.forwarded),
    ("surety_subscribers", Sort::Gauge, "readers of the change stream", |m| &m.subscribers),
    ("surety_queries_total", Sort::Counter, "questions to the history that came over the wire", |m| {
        &m.queries
    }),
    (
        "surety_queries_refused_total",
        Sort::Counter,
        "those of them that the history was not asked, or did not answer",
        |m| &m.queries_refused,
    ),
    ("surety_in_flight", Sort::Gauge, "requests taken and not answered", |m| &m.in_flight),
    ("surety_appended_seq", Sort::Gauge, "last record decided", |m| &m.appended),
    ("surety_acked_seq", Sort::Gauge, "last record that replies may speak of", |m| &m.acked),
    ("surety_synced_seq", Sort::Gauge, "last record on the disk", |m| &m.synced),
    ("surety_waiting_records", Sort::Gauge, "records waiting for the log", |m| &m.waiting_records),
    ("surety_storage_low", Sort::Gauge, "1 while new locks are declined for want of space", |m| {
        &m.storage_low
    }),
    ("surety_snapshot_seq", Sort::Gauge, "last record of the newest snapshot", |m| &m.snapshot_seq),
    ("surety_archived_seq", Sort::Gauge, "last record that the archive has, of this run's work", |m| {
        &m.archived_seq
    }),
    ("surety_archive_failures_total", Sort::Counter, "times that a segment could not be archived", |m| {
        &m.archive_failures
    }),
    (
        "surety_archive_waiting_seconds",
        Sort::Gauge,
        "how long the segment that is archived next has waited, not counting a look at what was there at the start",
        |m| &m.archive_waiting_s,
    ),
    ("surety_open_locks", Sort::Gauge, "locks that are live", |m| &m.open_locks),
    (
        "surety_kept_locks",
        Sort::Gauge,
        "locks in memory: live, and ended ones that may still be changed",
        |m| &m.kept_locks,
    ),
    ("surety_expired_locks_total", Sort::Counter, "locks that have ended by their deadline", |m| &m.expired),
    (
        "surety_invariant_violations_total",
        Sort::Counter,
        "times that a partition's money was found not to add up",
        |m| &m.violations,
    ),
];

const DURATIONS: [Durations; 3] = [
    ("surety_request_duration_seconds", "from decision to reply", |m| &m.latency),
    (
        "surety_write_duration_seconds",
        "from a block's submission to its completion; with `fsync` it is on the disk then",
        |m| &m.write,
    ),
    (
        "surety_sync_duration_seconds",
        "of syncs behind the writes with durability `os`; with `fsync` there are none, a write is one",
        |m| &m.sync,
    ),
];

fn tell_shards(shared: &Shared, page: &mut Page) {
    let shards = || shared.shards.iter().enumerate();
    for (name, sort, help, counter) in SERIES {
        page.family(name, sort, help);
        for (shard, state) in shards() {
            page.sample(name, &[("shard", &shard)], counter(&state.metrics).get());
        }
    }
    let name = "surety_requests_total";
    page.family(name, Sort::Counter, "requests answered");
    for (shard, state) in shards() {
        for (kind, code, count) in state.metrics.answers() {
            page.sample(name, &[("shard", &shard), ("op", &kind), ("code", &code)], count);
        }
    }
}

fn tell_durations(shared: &Shared, page: &mut Page) {
    for (name, help, histogram) in DURATIONS {
        page.family(name, Sort::Histogram, help);
        for (shard, state) in shared.shards.iter().enumerate() {
            page.histogram(name, &[("shard", &shard)], histogram(&state.metrics));
        }
    }
}

fn tell_traces(traces: &Traces, page: &mut Page) {
    let counters = [
        ("surety_spans_sent_total", "spans that the collector has taken", &traces.exported.sent),
        ("surety_spans_lost_total", "spans that it has not", &traces.exported.lost),
        (
            "surety_traces_dropped_total",
            "sampled requests of which nothing is told, since there was no room",
            &traces.dropped,
        ),
    ];
    for (name, help, number) in counters {
        page.single(name, Sort::Counter, help, number.get());
    }
}

/// The money of each asset, as of the shards' last passes over their partitions.
fn tell_money(shared: &Shared, page: &mut Page) {
    let holdings: Vec<_> = shared.shards.iter().map(|shard| shard.money.read()).collect();
    let name = "surety_collateral_base_units";
    let help = "collateral by asset and state, of all partitions; exposure and deficit have no collateral behind them";
    page.family(name, Sort::Gauge, help);
    for (shard, holdings) in holdings.iter().enumerate() {
        for (asset, sums) in holdings {
            for (state, amount) in sums.states() {
                page.sample(name, &[("shard", &shard), ("asset", &asset.0), ("state", &state)], amount);
            }
        }
    }
    let name = "surety_partitions";
    page.family(name, Sort::Gauge, "partitions, and how many of them are frozen");
    for (shard, holdings) in holdings.iter().enumerate() {
        for (asset, sums) in holdings {
            for (state, count) in [("open", sums.partitions - sums.frozen), ("frozen", sums.frozen)] {
                page.sample(name, &[("shard", &shard), ("asset", &asset.0), ("state", &state)], count);
            }
        }
    }
    // No third state: a partition that is frozen may be unreconciled as well.
    let name = "surety_partitions_unreconciled";
    let help =
        "partitions that were not reconciled since a loss: nothing moves there, and no request is taken";
    page.family(name, Sort::Gauge, help);
    for (shard, holdings) in holdings.iter().enumerate() {
        for (asset, sums) in holdings {
            page.sample(name, &[("shard", &shard), ("asset", &asset.0)], sums.unreconciled);
        }
    }
}
