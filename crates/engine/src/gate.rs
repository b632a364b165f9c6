//! The reply gate: holds every reply back until what it speaks of may be told.

use alloc::collections::VecDeque;

use surety_protocol::{Reply, Seq};

use crate::Route;

/// Replies on their way out, in the order in which they may leave.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Replies that speak of no record: they may leave at once.
    ready: VecDeque<(Route, Reply)>,
    /// Replies that wait for a seq to be acked. The seqs never fall from front to back.
    held: VecDeque<(Seq, Route, Reply)>,
}

impl Gate {
    /// Lets a reply go at once: it means that nothing was executed.
    pub(crate) fn pass(&mut self, route: Route, reply: Reply) {
        self.ready.push_back((route, reply));
    }

    /// Holds a reply until everything up to `seq` is acked.
    pub(crate) fn hold(&mut self, seq: Seq, route: Route, reply: Reply) {
        debug_assert!(self.held.back().is_none_or(|(last, ..)| *last <= seq), "the gate opens in order");
        self.held.push_back((seq, route, reply));
    }

    /// The next reply that may leave.
    pub(crate) fn next(&mut self, acked: Seq) -> Option<(Route, Reply)> {
        if let Some(passed) = self.ready.pop_front() {
            return Some(passed);
        }
        let (seq, ..) = self.held.front()?;
        if *seq > acked {
            return None;
        }
        self.held.pop_front().map(|(_, route, reply)| (route, reply))
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
        gate.hold(Seq(1), 10, reply(1));
        gate.hold(Seq(3), 11, reply(3));
        gate.hold(Seq(3), 12, reply(2));
        gate.pass(13, reply(0));
        assert_eq!(gate.len(), 4);
        assert_eq!(gate.next(Seq(0)), Some((13, reply(0))), "an admission code does not wait");
        assert_eq!(gate.next(Seq(0)), None);
        assert_eq!(gate.next(Seq(2)), Some((10, reply(1))));
        assert_eq!(gate.next(Seq(2)), None);
        assert_eq!(gate.next(Seq(3)), Some((11, reply(3))));
        assert_eq!(gate.next(Seq(3)), Some((12, reply(2))));
        assert_eq!(gate.next(Seq(9)), None);
    }
}
