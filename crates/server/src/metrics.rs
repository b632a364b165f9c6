//! Counters of one shard: written by its thread with relaxed stores, read by the admin listener.

use surety_protocol::{Code, Kind, Reply};
use telemetry::{Counter, Histogram};

/// Codes stay below this.
const CODES: usize = 96;
/// Kinds stay below this.
const KINDS: usize = 128;

/// What a shard counts.
#[derive(Debug)]
pub(crate) struct ShardMetrics {
    answered: Box<[Counter]>,
    /// From the decision's batch to the reply's frame.
    pub(crate) latency: Histogram,
    /// From a block's submission to its completion.
    pub(crate) write: Histogram,
    /// Syncs behind the writes, in `os` mode; by the thread that syncs, and no other.
    pub(crate) sync: Histogram,
    pub(crate) blocks: Counter,
    pub(crate) records: Counter,
    pub(crate) frames: Counter,
    pub(crate) connections: Counter,
    pub(crate) connections_open: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) closed_by_fault: Counter,
    pub(crate) closed_slow_readers: Counter,
    pub(crate) reloads: Counter,
    pub(crate) reload_failures: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) subscribers: Counter,
    pub(crate) queries: Counter,
    pub(crate) queries_refused: Counter,
    pub(crate) in_flight: Counter,
    pub(crate) appended: Counter,
    pub(crate) acked: Counter,
    pub(crate) synced: Counter,
    pub(crate) waiting_records: Counter,
    pub(crate) storage_low: Counter,
    pub(crate) snapshot_seq: Counter,
    pub(crate) archived_seq: Counter,
    pub(crate) archive_failures: Counter,
    pub(crate) archive_waiting_s: Counter,
    pub(crate) kept_locks: Counter,
    pub(crate) open_locks: Counter,
    pub(crate) expired: Counter,
    pub(crate) violations: Counter,
}

impl Default for ShardMetrics {
    fn default() -> Self {
        Self {
            answered: (0..KINDS * CODES).map(|_| Counter::default()).collect(),
            latency: Histogram::default(),
            write: Histogram::default(),
            sync: Histogram::default(),
            blocks: Counter::default(),
            records: Counter::default(),
            frames: Counter::default(),
            connections: Counter::default(),
            connections_open: Counter::default(),
            connections_refused: Counter::default(),
            closed_by_fault: Counter::default(),
            closed_slow_readers: Counter::default(),
            reloads: Counter::default(),
            reload_failures: Counter::default(),
            forwarded: Counter::default(),
            subscribers: Counter::default(),
            queries: Counter::default(),
            queries_refused: Counter::default(),
            in_flight: Counter::default(),
            appended: Counter::default(),
            acked: Counter::default(),
            synced: Counter::default(),
            waiting_records: Counter::default(),
            storage_low: Counter::default(),
            snapshot_seq: Counter::default(),
            archived_seq: Counter::default(),
            archive_failures: Counter::default(),
            archive_waiting_s: Counter::default(),
            kept_locks: Counter::default(),
            open_locks: Counter::default(),
            expired: Counter::default(),
            violations: Counter::default(),
        }
    }
}

impl ShardMetrics {
    pub(crate) fn count_answer(&self, reply: &Reply) {
        let index = usize::from(reply.kind) * CODES + usize::from(reply.code);
        if let Some(counter) = self.answered.get(index) {
            counter.add(1);
        }
    }

    /// Every kind and code that was answered at least once.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (Kind, Code, u64)> + '_ {
        let pairs = Kind::ALL.iter().flat_map(|kind| Code::ALL.iter().map(move |code| (*kind, *code)));
        pairs
            .map(|(kind, code)| {
                let index = usize::from(kind as u8) * CODES + usize::from(code as u8);
                (kind, code, self.answered[index].get())
            })
            .filter(|(_, _, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_code_has_a_counter_of_its_own() {
        let metrics = ShardMetrics::default();
        for kind in Kind::ALL {
            for code in Code::ALL {
                metrics.count_answer(&Reply { kind: *kind as u8, code: *code as u8, ..Reply::default() });
            }
        }
        assert_eq!(metrics.answers().count(), Kind::ALL.len() * Code::ALL.len());
        assert!(metrics.answers().all(|(_, _, count)| count == 1));
    }
}
