//! What is told of an index to whoever watches: by the process that keeps it, or by the engine that has it kept.

use std::sync::Arc;

use history::{History, Status};
use telemetry::{Page, Sort};

use crate::watched::Numbers;

/// How an index is doing, as gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gauges {
    /// True while it is kept, and goes on by itself.
    pub(super) is_up: bool,
    /// For how long it has not been complete, in milliseconds.
    pub(super) lag_ms: u64,
    /// Records that were decided and are not indexed.
    pub(super) lag_records: u64,
    /// Bytes on the disk.
    pub(super) bytes: u64,
    /// Times that its process has been started again.
    pub(super) restarts: u64,
}

impl Gauges {
    /// Of a process that says so itself.
    pub(super) fn of(status: &Status) -> Self {
        Self {
            is_up: status.state.goes_on(),
            // Who keeps it knows both.
            lag_ms: status.lag_ms.unwrap_or_default(),
            lag_records: status.lag_records.unwrap_or_default(),
            bytes: status.bytes,
            restarts: 0,
        }
    }

    pub(super) fn tell(self, page: &mut Page) {
        let Self { is_up, lag_ms, lag_records, bytes, restarts } = self;
        let seconds = format!("{}.{:03}", lag_ms / 1000, lag_ms % 1000);
        page.single(
            "surety_history_up",
            Sort::Gauge,
            "1 while the history is kept and goes on by itself",
            u8::from(is_up),
        );
        page.single(
            "surety_history_lag_seconds",
            Sort::Gauge,
            "for how long the history has not been complete",
            seconds,
        );
        page.single(
            "surety_history_lag_records",
            Sort::Gauge,
            "records decided and not in the history, when it was asked last",
            lag_records,
        );
        page.single("surety_history_bytes", Sort::Gauge, "bytes that the history takes on the disk", bytes);
        page.single(
            "surety_history_restarts_total",
            Sort::Counter,
            "times that the history's process was started again",
            restarts,
        );
    }
}

/// What the process tells of its own index.
pub(super) struct Own(pub(super) Arc<History>);

impl Numbers for Own {
    fn tell(&self, page: &mut Page) {
        Gauges::of(&self.0.status()).tell(page);
    }
}
