//! What a shard notes of sampled requests. It takes a hash of each id; for those that are sampled also the time, now and then. It waits for
//! nobody, and takes no memory after the start.

use std::sync::Arc;

use engine::Marks;
use surety_protocol::trace::TraceId;
use surety_protocol::{Caller, Id, Record, Reply, Seq, ShardId, Time};

use crate::traces::{Noted, Traces};

/// Sampled requests of a shard that are not done; past it those that come are dropped and counted.
const OPEN_MAX: usize = 256;

/// The sampled requests of a shard that are not done.
#[derive(Debug)]
pub(super) struct Tracer {
    traces: Arc<Traces>,
    shard: ShardId,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    noted: Noted,
    /// What the log has to reach before a reply may leave; none where nothing was appended.
    end: Option<Seq>,
    is_replied: bool,
}

/// A request that was chosen, before it is decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen(TraceId);

impl Tracer {
    pub(super) fn new(traces: Arc<Traces>, shard: ShardId) -> Self {
        Self { traces, shard, open: Vec::with_capacity(OPEN_MAX) }
    }

    /// Whether an operation is traced: by the id of its first record.
    pub(super) fn choose(&self, id: Id) -> Option<Chosen> {
        let trace = TraceId::of(id);
        self.traces.sampling.takes(trace).then_some(Chosen(trace))
    }

    /// A request was decided; `end` is the last record if it has appended any.
    pub(super) fn on_decided(
        &mut self,
        Chosen(trace): Chosen,
        caller: &Caller,
        record: &Record,
        end: Option<Seq>,
        (received, decided): (Time, Time),
    ) {
        if self.open.len() == OPEN_MAX {
            return self.traces.dropped.raise();
        }
        let noted = Noted {
            trace,
            id: record.id,
            lock: record.lock(),
            tenant: caller.tenant,
            shard: self.shard,
            kind: record.kind,
            code: 0,
            seq: Seq(0),
            received,
            decided,
            written: None,
            synced: None,
            replied: Time::ZERO,
        };
        self.open.push(Open { noted, end, is_replied: false });
    }

    /// True if nothing is open: then nobody has to take the time.
    pub(super) const fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// True if a reply is of a request that is open.
    pub(super) fn awaits(&self, reply: &Reply) -> bool {
        !self.open.is_empty() && self.choose(reply.id).is_some()
    }

    /// The reply was put on its stream.
    pub(super) fn on_reply(&mut self, reply: &Reply, now: Time) {
        let is_its = |open: &&mut Open| open.noted.id == reply.id && !open.is_replied;
        if let Some(Open { noted, is_replied, .. }) = self.open.iter_mut().find(is_its) {
            (noted.code, noted.seq, noted.replied) = (reply.code, reply.seq, now);
            *is_replied = true;
        }
    }

    /// The log has come so far. What is done is left for the collector.
    pub(super) fn on_marks(&mut self, marks: Marks, now: Time) {
        for Open { noted, end, .. } in &mut self.open {
            let Some(end) = *end else { continue };
            if marks.acked >= end {
                noted.written.get_or_insert(now);
            }
            if marks.synced >= end {
                noted.synced.get_or_insert(now);
            }
        }
        let traces = &self.traces;
        self.open.retain(|Open { noted, end, is_replied }| {
            let is_done = *is_replied && (end.is_none() || noted.synced.is_some());
            if is_done {
                traces.note(*noted);
            }
            !is_done
        });
    }
}

#[cfg(test)]
mod tests {
    use surety_protocol::trace::Sampling;
    use surety_protocol::{Amount, Kind, LockBody, PartitionHandle};
    use telemetry::otlp::{Span, SpanSource};

    use super::*;
    use crate::traces::Told;

    const CALLER: Caller = Caller {
        tenant: surety_protocol::TenantId(7),
        roles: surety_protocol::Roles::AUTHORIZER,
        actor: surety_protocol::ActorId(1),
    };

    fn lock(id: u128) -> Record {
        Record::new(Kind::Lock, Id(id), PartitionHandle(1), Amount(1), &LockBody::default())
    }

    fn reply(id: u128) -> Reply {
        Reply { id: Id(id), kind: Kind::Lock as u8, seq: Seq(9), ..Reply::default() }
    }

    fn marks(acked: u64, synced: u64) -> Marks {
        Marks { appended: Seq(9), acked: Seq(acked), synced: Seq(synced) }
    }

    fn told(traces: &Arc<Traces>) -> Vec<Span> {
        let mut spans = Vec::new();
        Told(Arc::clone(traces)).drain(&mut spans, usize::MAX);
        spans
    }

    #[test]
    fn a_request_is_told_once_it_is_answered_and_synced() {
        let traces = Arc::new(Traces::new(Sampling::per_million(1_000_000)));
        let mut tracer = Tracer::new(Arc::clone(&traces), ShardId(3));
        let chosen = tracer.choose(Id(5)).unwrap();
        tracer.on_decided(chosen, &CALLER, &lock(5), Some(Seq(9)), (Time(10), Time(11)));
        tracer.on_marks(marks(8, 8), Time(12));
        tracer.on_marks(marks(9, 8), Time(13));
        assert!(tracer.awaits(&reply(5)));
        tracer.on_reply(&reply(5), Time(14));
        tracer.on_marks(marks(9, 8), Time(15));
        assert!(told(&traces).is_empty(), "it is not on the disk");
        tracer.on_marks(marks(9, 9), Time(20));
        assert!(tracer.is_idle());
        let spans = told(&traces);
        let times: Vec<_> = spans.iter().map(|span| (span.name, span.begun_ns, span.ended_ns)).collect();
        let expected =
            [("lock", 10, 14), ("decide", 10, 11), ("write", 11, 13), ("sync", 13, 20), ("reply", 13, 14)];
        assert_eq!(times, expected);
        assert!(spans.iter().all(|span| span.trace == TraceId::of(Id(5)).0));
        assert!(spans[1..].iter().all(|span| span.parent == spans[0].span));
    }

    #[test]
    fn what_appends_nothing_waits_for_no_disk_and_what_has_no_room_is_counted() {
        let traces = Arc::new(Traces::new(Sampling::per_million(1_000_000)));
        let mut tracer = Tracer::new(Arc::clone(&traces), ShardId(3));
        let begin = |tracer: &mut Tracer, id: u128| {
            let chosen = tracer.choose(Id(id)).unwrap();
            tracer.on_decided(chosen, &CALLER, &lock(id), None, (Time(1), Time(2)));
        };
        (0..OPEN_MAX as u128 + 3).for_each(|id| begin(&mut tracer, id));
        assert_eq!(traces.dropped.get(), 3);
        tracer.on_reply(&reply(0), Time(4));
        // One that was dropped is answered too.
        tracer.on_reply(&reply(OPEN_MAX as u128), Time(4));
        tracer.on_marks(marks(0, 0), Time(5));
        assert_eq!(told(&traces).len(), 3, "no write, and no sync");
        let none = Tracer::new(Arc::new(Traces::new(Sampling::per_million(0))), ShardId(3));
        assert!(none.choose(Id(5)).is_none() && !none.awaits(&reply(5)));
    }
}
