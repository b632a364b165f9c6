//! What the front door counts, for whoever watches it.

use std::sync::Arc;

use axum::extract::MatchedPath;
use axum::http::{Method, StatusCode};
use telemetry::{Gauge, Histogram, Page, Sort, Tally};
use tokio::time::Instant;

use crate::cursor::Cursor;
use crate::guard::Shared;
use crate::webhook::Hook;

/// Numbers since the start. No token, tenant, lock or merchant is named.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// The templates of all paths.
    routes: Vec<&'static str>,
    /// By route, method and hundreds of the status.
    answered: Tally<(&'static str, &'static str, u16)>,
    /// From the head of a request to the head of its reply.
    duration: Histogram,
    pub(crate) connections: Gauge,
    pub(crate) connections_open: Gauge,
    pub(crate) connections_refused: Gauge,
    pub(crate) stream_failures: Gauge,
}

impl Numbers {
    pub(crate) fn new(routes: Vec<&'static str>) -> Self {
        Self {
            routes,
            answered: Tally::default(),
            duration: Histogram::default(),
            connections: Gauge::default(),
            connections_open: Gauge::default(),
            connections_refused: Gauge::default(),
            stream_failures: Gauge::default(),
        }
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(
        &self,
        path: Option<&MatchedPath>,
        method: &Method,
        status: StatusCode,
        begun: Instant,
    ) {
        let path = path.map_or("", MatchedPath::as_str);
        // What somebody has made up has no number of its own: neither a path nor a method.
        let route = self.routes.iter().find(|route| **route == path).copied().unwrap_or("other");
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            _ => "other",
        };
        self.answered.count((route, method, status.as_u16() / 100));
        self.duration.observe(begun.elapsed());
    }
}

/// What a front door tells of itself; it may outlive it.
#[derive(Clone)]
pub struct Metrics(pub(crate) Arc<Shared>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Metrics").field(&self.0.numbers).finish()
    }
}

impl Metrics {
    /// Writes all of it.
    pub fn tell(&self, page: &mut Page) {
        self.tell_requests(page);
        self.tell_crowd(page);
        self.tell_webhooks(page);
    }

    fn tell_requests(&self, page: &mut Page) {
        let numbers = &self.0.numbers;
        let name = "surety_rest_requests_total";
        page.family(name, Sort::Counter, "requests answered, by path, method and hundreds of the status");
        for ((route, method, hundreds), count) in numbers.answered.read() {
            let status = format!("{hundreds}xx");
            page.sample(name, &[("route", &route), ("method", &method), ("status", &status)], count);
        }
        let name = "surety_rest_request_duration_seconds";
        page.family(name, Sort::Histogram, "from the head of a request to that of its reply");
        page.histogram(name, &[], &numbers.duration);
    }

    fn tell_crowd(&self, page: &mut Page) {
        let Shared { numbers, desks, limits, .. } = &*self.0;
        let (mut in_flight, mut streams) = (0, 0);
        for desk in desks {
            in_flight += limits.in_flight_max.saturating_sub(desk.in_flight.available_permits());
            streams += limits.live_max.saturating_sub(desk.live.available_permits());
        }
        let open = numbers.connections_open.get();
        page.single("surety_rest_in_flight", Sort::Gauge, "requests that are being served", in_flight);
        page.single("surety_rest_streams_open", Sort::Gauge, "live streams of events", streams);
        page.single("surety_rest_connections_open", Sort::Gauge, "connections that are open", open);
        let counters: [(&str, &str, &Gauge); 3] = [
            ("surety_rest_connections_total", "connections taken", &numbers.connections),
            (
                "surety_rest_connections_refused_total",
                "connections closed since there were too many, of all or of one address",
                &numbers.connections_refused,
            ),
            (
                "surety_rest_stream_failures_total",
                "times that the engine's change stream could not be read on",
                &numbers.stream_failures,
            ),
        ];
        for (name, help, number) in counters {
            page.single(name, Sort::Counter, help, number.get());
        }
    }

    fn tell_webhooks(&self, page: &mut Page) {
        let hooks = &self.0.hooks;
        let name = "surety_rest_webhook_deliveries_total";
        page.family(
            name,
            Sort::Counter,
            "pages of events that endpoints have taken, and those they have not",
        );
        let sum = |number: fn(&Hook) -> &Gauge| hooks.iter().map(|hook| number(hook).get()).sum::<u64>();
        page.sample(name, &[("outcome", &"delivered")], sum(|hook| &hook.delivered));
        page.sample(name, &[("outcome", &"failed")], sum(|hook| &hook.failed));
        let (mut states, mut behind) = ([("active", 0), ("failing", 0), ("paused", 0)], 0);
        for hook in hooks {
            let progress = hook.progress();
            let state = if progress.paused.is_some() { 2 } else { usize::from(progress.failures > 0) };
            states[state].1 += 1;
            behind += hook.behind(&progress.cursor);
        }
        let name = "surety_rest_webhooks";
        page.family(name, Sort::Gauge, "endpoints, by how they fare");
        for (state, count) in states {
            page.sample(name, &[("state", &state)], count);
        }
        let help = "records of the change stream that endpoints have not been told of, of all together";
        page.single("surety_rest_webhook_behind_records", Sort::Gauge, help, behind);
    }
}

/// Records between a cursor and what is known.
pub(crate) fn distance(behind: &Cursor, known: &Cursor) -> u64 {
    behind.seqs().zip(known.seqs()).map(|(at, end)| end.0.saturating_sub(at.0)).sum()
}
