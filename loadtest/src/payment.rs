//! One payment, from its lock to its last step.

use std::time::Instant;

use surety_client::{Client, Draft, LockRef, LockRequest, NotExecuted, Outcome, SubmitError};
use surety_protocol::{Amount, Code, Kind, Record, Reply};

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
}

/// Runs the steps of one payment. Latency counts from `intended`, and for later steps from the reply before, or from the end
/// of the wait that the step begins with.
pub(crate) async fn pay(
    client: &Client,
    recorder: &Recorder,
    steps: &[Step],
    draw: Draw,
    mut intended: Instant,
) {
    let mut payment = Payment {
        client,
        recorder,
        draw,
        lock: LockRef::new(draw.partition, client.new_id()),
        total: Amount::ZERO,
        version: 0,
        capture: 0,
        captured: Amount::ZERO,
    };
    for step in steps.iter().filter(|step| step.is_for(draw.lot)) {
        if !step.after.is_zero() {
            intended = intended.max(Instant::now()) + step.after;
            tokio::time::sleep_until(intended.into()).await;
        }
        let request = payment.request(step.action).into_record(|| client.new_id());
        let Some(reply) = payment.send(&request, step.times, intended).await else { return };
        let is_found = reply.kind == Kind::Lookup as u8;
        if is_found && step.action != Action::Lock {
            // The outcome is known by a look-up, which does not tell what the next step would need of it.
            return;
        }
        payment.note(step.action, &reply);
        intended = Instant::now();
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

    /// Sends a request so often, one after the other. The answer, if it was a success each time.
    async fn send(&self, request: &Record, times: u32, intended: Instant) -> Option<Reply> {
        let first = send(self.client, self.recorder, *request, intended).await?;
        for _ in 1..times {
            let again = send(self.client, self.recorder, *request, Instant::now()).await?;
            let is_comparable = [first, again].iter().all(|reply| reply.kind == request.kind);
            if is_comparable && !repeats(&first, &again) {
                self.recorder.push(Sample::Contradicted);
            }
        }
        first.code().is_success().then_some(first)
    }

    fn note(&mut self, action: Action, reply: &Reply) {
        self.version = reply.version;
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
fn part(amount: Amount, share_bps: u32) -> Amount {
    Amount((amount.0 * u128::from(share_bps) / u128::from(WHOLE_BPS)).max(1))
}

/// True if `again` answers the same request as `first`, as the protocol says: what was decided stays.
fn repeats(first: &Reply, again: &Reply) -> bool {
    let decided =
        |reply: &Reply| (reply.id, reply.kind, reply.code, reply.approved, reply.seq, reply.deadline);
    again.is_replayed() && decided(first) == decided(again)
}

/// Sends one request and records what becomes of it. The recorded answer, if there is one.
async fn send(client: &Client, recorder: &Recorder, request: Record, intended: Instant) -> Option<Reply> {
    let started = Instant::now();
    let result = client.submit(request).await;
    let done = Instant::now();
    match result {
        Ok(reply) => {
            let (latency, service) = (done - intended, done - started);
            let is_sound = is_sound(&request, &reply);
            recorder.push(Sample::Answered { reply, latency, service, is_sound });
            Some(reply)
        }
        Err(SubmitError::NotExecuted { why: NotExecuted::Refused { code, .. }, .. }) => {
            recorder.push(Sample::Refused(code));
            None
        }
        Err(SubmitError::NotExecuted { .. }) => {
            recorder.push(Sample::Unsent);
            None
        }
        Err(SubmitError::Unknown { .. }) => resolve(client, recorder, &request).await,
    }
}

async fn resolve(client: &Client, recorder: &Recorder, request: &Record) -> Option<Reply> {
    match client.resolve(request.partition, request.id).await {
        Ok(outcome) => {
            recorder.push(Sample::Resolved(*outcome.reply()));
            matches!(outcome, Outcome::Executed(_)).then_some(*outcome.reply())
        }
        Err(_) => {
            recorder.push(Sample::Unknown);
            None
        }
    }
}

/// False if a reply cannot be that of its request.
fn is_sound(request: &Record, reply: &Reply) -> bool {
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
