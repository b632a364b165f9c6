//! One payment, from its lock to its last step.

use std::ops::ControlFlow;
use std::time::Instant;

use surety_client::{Client, Draft, LockRef, LockRequest, NotExecuted, Outcome, SubmitError};
use surety_protocol::{Amount, Code, Kind, Record, Reply};

use crate::making::{Making, make_all};
use crate::money::Seen;
use crate::recorder::{Recorder, Sample};
use crate::scenario::Draw;
use crate::step::{Action, Step, WHOLE_BPS};

/// A payment on its way.
struct Payment<'a> {
    client: &'a Client,
    recorder: &'a Recorder,
    draw: Draw,
    lock: LockRef,
    /// What is guaranteed.
    total: Amount,
    /// The lock's version, as it was last seen.
    version: u16,
    /// The capture that was made last.
    capture: u16,
    /// What it claimed.
    captured: Amount,
    /// The last reply about the lock. None if there is none, or if something happened to the lock that no reply has told.
    last: Option<Reply>,
}

/// Runs the steps of one payment. Latency counts from `intended`, and for later steps as [`make_all`] has it.
pub(crate) async fn pay(client: &Client, recorder: &Recorder, steps: &[Step], draw: Draw, intended: Instant) {
    let mut payment = Payment {
        client,
        recorder,
        draw,
        lock: LockRef::new(draw.partition, client.new_id()),
        total: Amount::ZERO,
        version: 0,
        capture: 0,
        captured: Amount::ZERO,
        last: None,
    };
    make_all(&mut payment, steps, draw.lot, intended).await;
    if let Some(reply) = payment.last {
        recorder.push(Sample::Seen(Seen { lock: payment.lock, reply, is_whole: true }));
    }
}

impl Making for Payment<'_> {
    async fn make(&mut self, step: &Step, intended: Instant) -> ControlFlow<()> {
        let request = self.request(step.action).into_record(|| self.client.new_id());
        let first = match send(self.client, self.recorder, request, intended).await {
            Sent::Answered(reply) => reply,
            Sent::NotExecuted => return ControlFlow::Break(()),
            Sent::Found(reply) if step.action == Action::Lock => reply,
            // What it has done to the lock is not known, or only that it did something: a look-up does not tell what the next
            // step would need.
            Sent::Found(_) | Sent::Unknown => {
                self.last = None;
                return ControlFlow::Break(());
            }
        };
        if !first.code().is_success() {
            return ControlFlow::Break(());
        }
        self.note(step.action, &first);
        for _ in 1..step.times {
            match send(self.client, self.recorder, request, Instant::now()).await {
                Sent::Answered(again) if first.kind == request.kind && !repeats(&first, &again) => {
                    self.recorder.push(Sample::Contradicted);
                }
                Sent::Answered(_) | Sent::Found(_) => {}
                // It was executed before; that this sending was not, or not known to be, changes nothing.
                Sent::NotExecuted | Sent::Unknown => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }
}

impl Payment<'_> {
    fn request(&self, action: Action) -> Draft {
        let Self { draw, lock, .. } = *self;
        let lock_request = LockRequest {
            id: Some(lock.id),
            is_sale: action == Action::Sale,
            ..LockRequest::new(draw.partition, draw.amount, draw.merchant)
        };
        match action {
            Action::Lock | Action::Sale => lock_request.into(),
            Action::Advise { share_bps } => lock.advise(part(draw.amount, share_bps)),
            Action::Increase { share_bps } => lock.increase(part(draw.amount, share_bps), self.version),
            Action::Capture { share_bps, last: false } => lock.capture(part(self.total, share_bps)),
            Action::Capture { share_bps, last: true } => lock.capture_last(part(self.total, share_bps)),
            Action::Reverse => lock.reverse(self.capture),
            Action::Refund { share_bps } => lock.refund(self.capture, part(self.captured, share_bps)),
            Action::Release => lock.release(),
            Action::Settle => lock.settle(),
            Action::Consume => lock.consume_capture(self.capture),
        }
    }

    fn note(&mut self, action: Action, reply: &Reply) {
        self.version = reply.version;
        self.last = Some(*reply);
        match action {
            Action::Lock => self.total = reply.approved,
            Action::Increase { .. } => self.total = Amount(self.total.0.saturating_add(reply.approved.0)),
            Action::Sale | Action::Capture { .. } | Action::Advise { .. } => {
                (self.capture, self.captured) = (reply.capture, reply.approved);
            }
            Action::Reverse | Action::Refund { .. } | Action::Release | Action::Settle | Action::Consume => {}
        }
    }
}

/// A part of an amount, at least one unit.
pub(crate) fn part(amount: Amount, share_bps: u32) -> Amount {
    Amount((amount.0 * u128::from(share_bps) / u128::from(WHOLE_BPS)).max(1))
}

/// True if `again` answers the same request as `first`, as the protocol says: what was decided stays.
pub(crate) fn repeats(first: &Reply, again: &Reply) -> bool {
    let decided =
        |reply: &Reply| (reply.id, reply.kind, reply.code, reply.approved, reply.seq, reply.deadline);
    again.is_replayed() && decided(first) == decided(again)
}

/// What became of a request.
enum Sent {
    /// It was answered.
    Answered(Reply),
    /// Its answer was lost; a look-up found that it was executed.
    Found(Reply),
    /// It was definitely not executed, or declined as a look-up found.
    NotExecuted,
    /// Nobody knows.
    Unknown,
}

/// Sends one request and records what becomes of it.
async fn send(client: &Client, recorder: &Recorder, request: Record, intended: Instant) -> Sent {
    let started = Instant::now();
    let result = client.submit(request).await;
    let done = Instant::now();
    match result {
        Ok(reply) => {
            let (latency, service) = (done - intended, done - started);
            let is_sound = is_sound(&request, &reply);
            recorder.push(Sample::Answered { reply, latency, service, is_sound });
            Sent::Answered(reply)
        }
        Err(SubmitError::NotExecuted { why: NotExecuted::Refused { code, .. }, .. }) => {
            recorder.push(Sample::Refused(code));
            Sent::NotExecuted
        }
        Err(SubmitError::NotExecuted { .. }) => {
            recorder.push(Sample::Unsent);
            Sent::NotExecuted
        }
        Err(SubmitError::Unknown { .. }) => resolve(client, recorder, &request).await,
    }
}

async fn resolve(client: &Client, recorder: &Recorder, request: &Record) -> Sent {
    match client.resolve(request.partition, request.id).await {
        Ok(outcome) => {
            recorder.push(Sample::Resolved(*outcome.reply()));
            match outcome {
                Outcome::Executed(reply) => Sent::Found(reply),
                Outcome::Declined(_) | Outcome::Burned(_) | Outcome::Refused(_) => Sent::NotExecuted,
            }
        }
        Err(_) => {
            recorder.push(Sample::Unknown);
            Sent::Unknown
        }
    }
}

/// False if a reply cannot be that of its request.
pub(crate) fn is_sound(request: &Record, reply: &Reply) -> bool {
    let answers_it = reply.id == request.id
        && reply.kind == request.kind
        && reply.shard == request.partition.shard()
        && reply.seq.0 > 0;
    let asks_for_all = matches!(request.kind(), Some(Kind::Lock | Kind::Capture));
    let amount_fits = match reply.code() {
        Code::Approved if asks_for_all => reply.approved == request.amount,
        Code::Partial if asks_for_all => reply.approved < request.amount,
        code if code.is_success() => true,
        _ => reply.approved == Amount::ZERO,
    };
    answers_it && amount_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{Id, MerchantId, PartitionHandle, Seq, ShardId};

    #[test]
    fn repeats_say_the_same() {
        let first = Reply { id: Id(7), approved: Amount(10), seq: Seq(3), ..Reply::default() };
        let again = Reply { flags: surety_protocol::REPLAYED, remaining: Amount(4), ..first };
        assert!(repeats(&first, &again));
        assert!(!repeats(&first, &first), "executed twice");
        assert!(!repeats(&first, &Reply { seq: Seq(4), ..again }));
        assert!(!repeats(&first, &Reply { approved: Amount(9), ..again }));
        assert!(!repeats(&first, &Reply { code: Code::Insufficient as u8, ..again }));
    }

    #[test]
    fn contradictions_are_seen() {
        let partition = PartitionHandle::new(ShardId(2), 5);
        let draft = Draft::from(LockRequest::new(partition, Amount(10), MerchantId(1)));
        let request = draft.into_record(|| Id(7));
        let good = Reply {
            id: Id(7),
            approved: Amount(10),
            seq: Seq(3),
            shard: ShardId(2),
            code: Code::Approved as u8,
            kind: Kind::Lock as u8,
            ..Reply::default()
        };
        let check = |reply: Reply, expect| assert_eq!(is_sound(&request, &reply), expect, "{reply:?}");
        check(good, true);
        check(Reply { id: Id(8), ..good }, false);
        check(Reply { approved: Amount(9), ..good }, false);
        check(Reply { approved: Amount(9), code: Code::Partial as u8, ..good }, true);
        check(Reply { code: Code::Partial as u8, ..good }, false);
        check(Reply { code: Code::Insufficient as u8, ..good }, false);
        check(Reply { approved: Amount::ZERO, code: Code::Insufficient as u8, ..good }, true);
        check(Reply { shard: ShardId(0), ..good }, false);
        check(Reply { seq: Seq(0), ..good }, false);
        check(Reply { kind: Kind::Capture as u8, ..good }, false);
    }
}
