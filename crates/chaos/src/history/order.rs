//! Strict serializability, checked: every shard's operations in the order of their seqs, against the model and the clock.
//!
//! Each operation touches one partition, and a partition never changes its shard. Strict serializability of single
//! operations is linearizability, which is local: a history is linearizable if each shard's part of it is. So each shard is
//! checked by itself: its order must be one that the model can execute with exactly the answers that were given, and no
//! operation may stand before another one that had ended before it began. Look-ups leave no record; for each of them there
//! must be a moment between its call and its answer at which the model shows exactly what it was told.

use std::collections::{BTreeMap, HashMap};

use surety_protocol::{Amount, ChangeBody, Code, Flags, Id, Kind, PartitionHandle, Record, Reply, Seq};

use super::model::{Expected, Model};

/// Faults that are told; the others are counted.
const FAULTS_MAX: usize = 10;

/// One operation of one client. Times are nanoseconds of one clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) request: Record,
    pub(crate) called: u64,
    pub(crate) returned: u64,
    pub(crate) answer: Answer,
}

/// What the client was told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// Its reply. One that was given before tells its first outcome and the present state.
    Reply(Reply),
    /// Nothing, and then by a look-up that it was executed or declined there, with this code.
    Resolved { seq: Seq, code: Code },
    /// Nothing, and then by a look-up that its id was burned there, before it came.
    Burned { seq: Seq },
}

/// What was checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) events: u64,
    pub(crate) reads: u64,
    pub(crate) faults: Vec<String>,
    /// All faults, also those that are not told.
    pub(crate) faults_found: u64,
}

/// Checks the operations of one shard, whose partitions began with the models given.
pub(crate) fn check(operations: &[Operation], models: &mut HashMap<PartitionHandle, Model>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut events: Vec<(Seq, Event)> = Vec::new();
    let mut reads = Vec::new();
    for operation in operations {
        match Event::of(operation) {
            Some((seq, event)) => events.push((seq, event)),
            None => reads.push(operation),
        }
    }
    events.sort_by_key(|(seq, _)| *seq);
    verdict.events = events.len() as u64;
    verdict.reads = reads.len() as u64;
    seqs_differ(&events, &mut verdict);
    real_time(&events, &mut verdict);
    marks_rise(&events, &mut verdict);
    let mut open = Reads::new(&events, &reads);
    open.try_at(0, models);
    for (index, (seq, event)) in events.iter().enumerate() {
        event.execute(*seq, models, &mut verdict);
        open.changed(index + 1, event.request.partition, models);
        open.try_at(index + 1, models);
    }
    open.finish(&mut verdict);
    verdict
}

/// Something that the log holds.
struct Event {
    /// What was executed: the request, or the look-up that burned its id.
    request: Record,
    called: u64,
    returned: u64,
    told: Told,
}

enum Told {
    All(Reply),
    /// Code and what was moved; the state is that of a later moment.
    Outcome(Reply),
    Code(Code),
}

impl Event {
    /// The event of an operation at its seq; none for a look-up that changed nothing.
    fn of(operation: &Operation) -> Option<(Seq, Self)> {
        let Operation { request, called, returned, answer } = *operation;
        let (seq, request, told) = match answer {
            Answer::Reply(reply) if request.kind() == Some(Kind::Lookup) => {
                match reply.code() {
                    Code::NotFound if reply.seq > Seq(0) => (reply.seq, request, Told::All(reply)),
                    // Its answer was lost; sent again, it finds what it has done itself. Nobody else burns that id.
                    Code::Burned if request.flags().has(Flags::BURN) => {
                        (reply.seq, request, Told::Code(Code::NotFound))
                    }
                    _ => return None,
                }
            }
            Answer::Reply(reply) if reply.is_replayed() => (reply.seq, request, Told::Outcome(reply)),
            Answer::Reply(reply) => (reply.seq, request, Told::All(reply)),
            Answer::Resolved { seq, code } => (seq, request, Told::Code(code)),
            Answer::Burned { seq } => (seq, burn_of(&request), Told::Code(Code::NotFound)),
        };
        Some((seq, Self { request, called, returned, told }))
    }

    fn execute(&self, seq: Seq, models: &mut HashMap<PartitionHandle, Model>, verdict: &mut Verdict) {
        let Some(model) = models.get_mut(&self.request.partition) else {
            return verdict.fault(format!("{seq}: a partition that is not part of the history"));
        };
        let Some(expected) = model.execute(&self.request) else {
            return verdict.fault(format!("{seq}: a request that is not part of the history"));
        };
        let holds = match &self.told {
            Told::All(reply) => expected.is(reply),
            Told::Outcome(reply) => (expected.code, expected.approved) == (reply.code(), reply.approved.0),
            Told::Code(code) => expected.code == *code,
        };
        if !holds {
            let told = match &self.told {
                Told::All(reply) | Told::Outcome(reply) => format!("{:?}", Expected::of(reply)),
                Told::Code(code) => code.to_string(),
            };
            verdict.fault(format!("{seq}: {:?} was told {told}, expected {expected:?}", self.request.kind()));
        }
    }
}

/// The look-up with burn that took the place of a request.
fn burn_of(request: &Record) -> Record {
    let body = ChangeBody { lock: request.id, ..ChangeBody::default() };
    Record::new(Kind::Lookup, Id(0), request.partition, Amount::ZERO, &body)
}

impl Verdict {
    fn fault(&mut self, what: String) {
        self.faults_found += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(what);
        }
    }
}

fn seqs_differ(events: &[(Seq, Event)], verdict: &mut Verdict) {
    for pair in events.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        verdict.fault(format!("{} is the place of two operations", pair[0].0));
    }
}

/// No operation stands before one that had ended before it began.
fn real_time(events: &[(Seq, Event)], verdict: &mut Verdict) {
    let mut latest_call = 0;
    for (seq, event) in events {
        if event.returned < latest_call {
            verdict.fault(format!("{seq} had ended before an operation began that stands before it"));
        }
        latest_call = latest_call.max(event.called);
    }
}

/// Epochs and times never fall along the log.
fn marks_rise(events: &[(Seq, Event)], verdict: &mut Verdict) {
    let mut last = None;
    for (seq, event) in events {
        if let Told::All(reply) = &event.told {
            let marks = (reply.epoch, reply.time);
            if last.is_some_and(|last| marks < last) {
                verdict.fault(format!("{seq}: epoch and time fall"));
            }
            last = Some(marks);
        }
    }
}

/// Look-ups that have not been shown yet what they were told. Position `n` is the moment behind the first `n` events.
struct Reads<'a> {
    /// By the first position at which they may stand.
    waiting: BTreeMap<usize, Vec<Read<'a>>>,
    open: HashMap<PartitionHandle, Vec<Read<'a>>>,
    failed: Vec<&'a Operation>,
}

struct Read<'a> {
    operation: &'a Operation,
    last: usize,
}

impl<'a> Reads<'a> {
    fn new(events: &[(Seq, Event)], reads: &[&'a Operation]) -> Self {
        let mut by_return: Vec<(u64, usize)> =
            events.iter().enumerate().map(|(at, (_, event))| (event.returned, at + 1)).collect();
        by_return.sort_unstable();
        // What had ended by then is before the read: the latest of them counts.
        let mut latest = 0;
        for (_, position) in &mut by_return {
            latest = latest.max(*position);
            *position = latest;
        }
        let mut by_call: Vec<(u64, usize)> =
            events.iter().enumerate().map(|(at, (_, event))| (event.called, at)).collect();
        by_call.sort_unstable();
        // What began only then is behind it: the earliest of them counts.
        let mut earliest = events.len();
        for (_, position) in by_call.iter_mut().rev() {
            earliest = earliest.min(*position);
            *position = earliest;
        }
        let mut waiting: BTreeMap<usize, Vec<Read<'a>>> = BTreeMap::new();
        for operation in reads {
            let before = by_return.partition_point(|(returned, _)| *returned < operation.called);
            let first = before.checked_sub(1).map_or(0, |at| by_return[at].1);
            let behind = by_call.partition_point(|(called, _)| *called <= operation.returned);
            let last = by_call.get(behind).map_or(events.len(), |(_, position)| *position);
            waiting.entry(first).or_default().push(Read { operation, last });
        }
        Self { waiting, open: HashMap::new(), failed: Vec::new() }
    }

    /// Those whose time begins here are tried, and stay open if this is not their moment.
    fn try_at(&mut self, position: usize, models: &HashMap<PartitionHandle, Model>) {
        for read in self.waiting.remove(&position).unwrap_or_default() {
            let partition = read.operation.request.partition;
            if position <= read.last && !read.is_shown(models) {
                self.open.entry(partition).or_default().push(read);
            } else if position > read.last {
                self.failed.push(read.operation);
            }
        }
    }

    /// The partition has changed: those that are open on it are tried again.
    fn changed(
        &mut self,
        position: usize,
        partition: PartitionHandle,
        models: &HashMap<PartitionHandle, Model>,
    ) {
        let Some(open) = self.open.get_mut(&partition) else { return };
        let failed = &mut self.failed;
        open.retain(|read| {
            let is_late = position > read.last;
            if is_late {
                failed.push(read.operation);
            }
            !is_late && !read.is_shown(models)
        });
    }

    fn finish(self, verdict: &mut Verdict) {
        let open = self.open.into_values().flatten().map(|read| read.operation);
        for operation in self.failed.into_iter().chain(open) {
            let Answer::Reply(reply) = operation.answer else { continue };
            let told = Expected::of(&reply);
            verdict.fault(format!("a look-up was told {told:?}, which never was between call and answer"));
        }
    }
}

impl Read<'_> {
    fn is_shown(&self, models: &HashMap<PartitionHandle, Model>) -> bool {
        let Answer::Reply(reply) = self.operation.answer else { return false };
        let id = self.operation.request.body::<ChangeBody>().lock;
        let model = models.get(&self.operation.request.partition);
        model.is_some_and(|model| model.look(id).is(&reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_client::{Draft, LockRef, LockRequest};
    use surety_protocol::{ALL_CAPTURES, MerchantId};

    const PARTITION: PartitionHandle = PartitionHandle(1);

    /// An operation between two moments, and the seq and free collateral that it was told.
    fn operation(draft: Draft, (called, returned): (u64, u64), seq: u64, reply: Reply) -> Operation {
        let request = draft.into_record(|| Id(99));
        let reply = Reply { seq: Seq(seq), ..reply };
        Operation { request, called, returned, answer: Answer::Reply(reply) }
    }

    fn lock(id: u128, amount: u128, times: (u64, u64), seq: u64, free: u128) -> Operation {
        let request =
            LockRequest { id: Some(Id(id)), ..LockRequest::new(PARTITION, Amount(amount), MerchantId(1)) };
        operation(request.into(), times, seq, live(amount, free))
    }

    fn live(remaining: u128, free: u128) -> Reply {
        Reply {
            code: Code::Approved as u8,
            approved: Amount(remaining),
            remaining: Amount(remaining),
            free: Amount(free),
            version: 1,
            end: 1,
            capture: ALL_CAPTURES,
            ..Reply::default()
        }
    }

    fn look(id: u128, times: (u64, u64), reply: Reply) -> Operation {
        let body = ChangeBody { lock: Id(id), ..ChangeBody::default() };
        operation(
            Draft::new(Kind::Lookup, PARTITION, Amount(0), &body),
            times,
            1,
            Reply { capture: 0, ..reply },
        )
    }

    #[track_caller]
    fn faults(operations: &[Operation]) -> u64 {
        let mut models = HashMap::from([(PARTITION, Model::with(100))]);
        check(operations, &mut models).faults_found
    }

    #[test]
    fn overlapping_operations_may_stand_in_any_order_and_others_may_not() {
        let first = |times| lock(1, 10, times, 5, 90);
        let second = |times| lock(2, 20, times, 6, 70);
        assert_eq!(faults(&[first((0, 10)), second((5, 15))]), 0);
        assert_eq!(faults(&[first((5, 15)), second((0, 10))]), 0);
        assert_eq!(
            faults(&[first((11, 15)), second((0, 10))]),
            1,
            "the second had ended before the first began"
        );
    }

    #[test]
    fn answers_that_the_model_does_not_give_are_faults() {
        let first = lock(1, 10, (0, 10), 5, 90);
        assert_eq!(faults(&[first, lock(2, 20, (0, 10), 6, 80)]), 1, "sold twice");
        assert_eq!(faults(&[first, lock(2, 20, (0, 10), 5, 70)]), 1, "one place for two");
        assert_eq!(faults(&[first, lock(2, 95, (0, 10), 6, 0)]), 1, "more than there is");
        let release = operation(
            LockRef::new(PARTITION, Id(1)).release(),
            (11, 12),
            6,
            Reply { version: 2, end: 3, remaining: Amount(0), ..live(10, 100) },
        );
        assert_eq!(faults(&[first, release]), 0);
    }

    #[test]
    fn a_look_up_sees_a_moment_between_its_call_and_its_answer() {
        let (first, second) = (lock(1, 10, (0, 10), 5, 90), lock(2, 20, (20, 30), 6, 70));
        assert_eq!(faults(&[first, second, look(1, (12, 18), live(10, 90))]), 0);
        assert_eq!(faults(&[first, second, look(1, (12, 25), live(10, 70))]), 0);
        assert_eq!(faults(&[first, second, look(1, (31, 32), live(10, 90))]), 1, "stale");
        assert_eq!(faults(&[first, second, look(1, (12, 18), live(10, 70))]), 1, "from the future");
    }

    #[test]
    fn what_was_resolved_has_its_place() {
        let first = lock(1, 10, (0, 10), 5, 90);
        let lost = Operation { answer: Answer::Burned { seq: Seq(6) }, ..lock(2, 20, (11, 30), 0, 0) };
        let third = |free| lock(3, 5, (40, 50), 8, free);
        assert_eq!(faults(&[first, lost, third(85)]), 0);
        let told = Answer::Resolved { seq: Seq(6), code: Code::Approved };
        let found = Operation { answer: told, ..lost };
        assert_eq!(faults(&[first, found, third(65)]), 0);
        assert_eq!(faults(&[first, found, third(85)]), 1, "it was executed, and its collateral is free");
    }
}
