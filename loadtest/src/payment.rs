//! One payment, from its lock to its last step.

use std::time::Instant;

use surety_client::{Client, Draft, LockRef, LockRequest, NotExecuted, Outcome, SubmitError};
use surety_protocol::{Amount, Code, Kind, Record, Reply};

use crate::recorder::{Recorder, Sample};
use crate::scenario::{Draw, Step};

/// Runs the steps of one payment. Latency counts from `intended`, and for later steps from the reply before.
pub(crate) async fn pay(
    client: &Client,
    recorder: &Recorder,
    steps: &[Step],
    draw: Draw,
    mut intended: Instant,
) {
    let mut approved = Amount::ZERO;
    let lock = LockRef::new(draw.partition, client.new_id());
    for step in steps {
        let request = request(client, *step, &draw, lock, approved);
        let Some(reply) = send(client, recorder, request, intended).await else { return };
        if !reply.code().is_success() {
            return;
        }
        if matches!(step, Step::Lock {}) {
            approved = reply.approved;
        }
        intended = Instant::now();
    }
}

fn request(client: &Client, step: Step, draw: &Draw, lock: LockRef, approved: Amount) -> Record {
    let draft: Draft = match step {
        Step::Lock {} => {
            LockRequest { id: Some(lock.id), ..LockRequest::new(draw.partition, draw.amount, draw.merchant) }
                .into()
        }
        Step::Capture { share_bps, last } => {
            let part = Amount((approved.0 * u128::from(share_bps) / 10_000).max(1));
            if last { lock.capture_last(part) } else { lock.capture(part) }
        }
        Step::Release {} => lock.release(),
        Step::Settle {} => lock.settle(),
        Step::Consume {} => lock.consume_capture(0),
    };
    draft.into_record(|| client.new_id())
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
