//! The reply gate: holds every reply back until what it speaks of may be told.

use alloc::collections::VecDeque;

use surety_protocol::{Reply, Seq, TenantId, sabotage};

use crate::Route;

/// Replies on their way out, in the order in which they may leave.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Replies that speak of no record: they may leave at once.
    ready: VecDeque<(Route, Reply)>,
    /// Replies that wait for a seq to be acked. The seqs never fall from front to back.
    held: VecDeque<Held>,
}

/// A reply that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) seq: Seq,
    pub(crate) route: Route,
    pub(crate) reply: Reply,
    /// The tenant among whose unanswered requests this one is counted.
    pub(crate) counted: Option<TenantId>,
}

impl Gate {
    /// Lets a reply go at once: it means that nothing was executed.
    pub(crate) fn pass(&mut self, route: Route, reply: Reply) {
        self.ready.push_back((route, reply));
    }

    /// Holds a reply back until everything up to its seq is acked.
    pub(crate) fn hold(&mut self, held: Held) {
        debug_assert!(self.held.back().is_none_or(|last| last.seq <= held.seq), "the gate opens in order");
        self.held.push_back(held);
    }

    /// The next reply that may leave, and the tenant for whom it was counted.
    pub(crate) fn next(&mut self, acked: Seq) -> Option<(Route, Reply, Option<TenantId>)> {
        if let Some((route, reply)) = self.ready.pop_front() {
            return Some((route, reply, None));
        }
        if self.held.front()?.seq > acked && !sabotage!("reply-before-its-record-is-durable") {
            return None;
        }
        self.held.pop_front().map(|held| (held.route, held.reply, held.counted))
    }

    /// Replies that wait.
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_replies_leave_in_order_and_never_early() {
        let mut gate = Gate::default();
        let reply = |n: u64| Reply { seq: Seq(n), ..Reply::default() };
        let tenant = Some(TenantId(7));
        let held = |seq, route, n| Held { seq: Seq(seq), route, reply: reply(n), counted: tenant };
        gate.hold(held(1, 10, 1));
        gate.hold(held(3, 11, 3));
        gate.hold(held(3, 12, 2));
        gate.pass(13, reply(0));
        assert_eq!(gate.len(), 4);
        assert_eq!(gate.next(Seq(0)), Some((13, reply(0), None)), "an admission code does not wait");
        assert_eq!(gate.next(Seq(0)), None);
        assert_eq!(gate.next(Seq(2)), Some((10, reply(1), tenant)));
        assert_eq!(gate.next(Seq(2)), None);
        assert_eq!(gate.next(Seq(3)), Some((11, reply(3), tenant)));
        assert_eq!(gate.next(Seq(3)), Some((12, reply(2), tenant)));
        assert_eq!(gate.next(Seq(9)), None);
    }
}
