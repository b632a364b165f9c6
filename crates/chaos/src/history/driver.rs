//! Many clients at once, on the same locks, and what each of them was told.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use surety_client::{Client, Draft, LockRef, LockRequest, Outcome, SubmitError, request};
use surety_protocol::{
    Address, Amount, ChangeBody, Code, Flags, Id, Kind, MerchantId, PartitionHandle, Record, Reply,
};

use super::model::LOCK_MAX;
use super::order::{Answer, Operation};
use crate::random::Random;

/// Locks that everybody knows and changes.
const TARGETS: usize = 256;
/// How long an unknown outcome may stay so; kills and their recoveries lie within.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(60);

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) partitions: Vec<PartitionHandle>,
    /// Of the operator, for deposits.
    pub(crate) settler: Client,
    /// Operations that are still to be begun.
    pub(crate) left: AtomicI64,
    /// Operations that have been answered.
    pub(crate) done: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) resolved: AtomicU64,
    pub(crate) burned: AtomicU64,
    pub(crate) repeats: AtomicU64,
    pub(crate) begun: Instant,
    pub(crate) nonces: AtomicU64,
    pub(crate) targets: Mutex<Vec<Target>>,
    pub(crate) faults: Mutex<Vec<String>>,
}

/// A lock as somebody has last seen it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    lock: LockRef,
    version: u16,
    total: u128,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn fault(&self, what: String) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn target(&self, random: &mut Random) -> Option<Target> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        (!targets.is_empty()).then(|| *random.pick(&targets))
    }

    /// Notes what a reply tells of a lock.
    fn learn(&self, random: &mut Random, lock: LockRef, kind: Kind, reply: &Reply) {
        if reply.is_replayed() || reply.version == 0 {
            return;
        }
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = targets.iter().position(|target| target.lock.id == lock.id);
        let is_over = reply.end() != surety_protocol::End::Live && random.once_in(3);
        match known {
            Some(at) if is_over => drop(targets.swap_remove(at)),
            Some(at) => targets[at].version = reply.version,
            None if kind == Kind::Lock => {
                let target = Target { lock, version: reply.version, total: reply.approved.0 };
                if targets.len() < TARGETS {
                    targets.push(target);
                } else {
                    let at = usize::try_from(random.below(TARGETS as u64)).unwrap_or(0);
                    targets[at] = target;
                }
            }
            None => {}
        }
    }
}

/// One worker: one operation after the other, until there are enough.
pub(crate) async fn work(client: Client, shared: Arc<Shared>, seed: u64) -> Result<Vec<Operation>> {
    let mut random = Random::new(seed);
    let mut operations = Vec::new();
    let mut spent: Vec<(PartitionHandle, Id)> = Vec::new();
    let mut burned_or_released = HashSet::new();
    while shared.left.fetch_sub(1, Ordering::Relaxed) > 0 {
        let request = draw(&client, &shared, &mut random, &mut spent);
        let is_spent = burned_or_released.remove(&request.id);
        let is_deposit = request.kind() == Some(Kind::Deposit);
        let sender = if is_deposit { &shared.settler } else { &client };
        let called = shared.now();
        let answer = ask(sender, &shared, request, is_spent).await?;
        if answer.is_none() {
            // What was to spend it may not have been executed: no lock comes under this id.
            spent.clear();
        }
        burned_or_released.extend(spent.last().map(|(_, id)| *id));
        let returned = shared.now();
        shared.done.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = answer else { continue };
        operations.push(Operation { request, called, returned, answer });
        if let Answer::Reply(reply) = answer {
            note(&shared, &mut random, &request, &reply);
            if random.once_in(50) && request.kind() != Some(Kind::Lookup) {
                repeat(sender, &shared, request, &reply).await;
            }
        }
    }
    Ok(operations)
}

fn note(shared: &Shared, random: &mut Random, request: &Record, reply: &Reply) {
    let Some(kind) = request.kind() else { return };
    let id = match kind {
        Kind::Lock => request.id,
        Kind::Deposit | Kind::Lookup | Kind::Consume => return,
        _ => request.body::<ChangeBody>().lock,
    };
    shared.learn(random, LockRef::new(request.partition, id), kind, reply);
}

/// Sends a request and makes its outcome definite. None if it certainly was not executed, or nobody can tell and it makes no
/// difference: a lock whose id was spent before is declined either way, and a look-up finds what had spent it.
async fn ask(client: &Client, shared: &Shared, request: Record, is_spent: bool) -> Result<Option<Answer>> {
    let error = match client.submit(request).await {
        Ok(reply) => return Ok(Some(Answer::Reply(reply))),
        Err(error) => error,
    };
    let is_look_up = request.kind() == Some(Kind::Lookup);
    let is_burn = is_look_up && request.flags().has(Flags::BURN);
    if matches!(error, SubmitError::NotExecuted { .. }) || is_look_up && !is_burn {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        return Ok(None);
    }
    shared.resolved.fetch_add(1, Ordering::Relaxed);
    // Of a burn the question is what became of the id that it burns.
    let id = if is_burn { request.body::<ChangeBody>().lock } else { request.id };
    let outcome = resolve(client, request.partition, id).await?;
    let reply = *outcome.reply();
    Ok(match outcome {
        _ if is_spent => None,
        Outcome::Burned(_) if is_burn => Some(Answer::Resolved { seq: reply.seq, code: Code::NotFound }),
        Outcome::Burned(_) => {
            shared.burned.fetch_add(1, Ordering::Relaxed);
            Some(Answer::Burned { seq: reply.seq })
        }
        Outcome::Executed(_) | Outcome::Declined(_) if !is_burn => {
            Some(Answer::Resolved { seq: reply.seq, code: reply.code() })
        }
        Outcome::Executed(_) | Outcome::Declined(_) | Outcome::Refused(_) => None,
    })
}

async fn resolve(client: &Client, partition: PartitionHandle, id: Id) -> Result<Outcome> {
    let begun = Instant::now();
    loop {
        match client.resolve(partition, id).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) if begun.elapsed() > RESOLVE_PATIENCE => bail!("an outcome stays unknown: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A repeat of what was answered gets the first answer, whatever has happened since.
async fn repeat(client: &Client, shared: &Shared, request: Record, first: &Reply) {
    let Ok(again) = client.submit(request).await else { return };
    shared.repeats.fetch_add(1, Ordering::Relaxed);
    let told =
        |reply: &Reply| (reply.code, reply.approved, reply.extra, reply.seq, reply.capture, reply.deadline);
    if !again.is_replayed() || told(first) != told(&again) {
        shared.fault(format!("a repeat is answered otherwise: {first:?}, then {again:?}"));
    }
}

fn draw(
    client: &Client,
    shared: &Shared,
    random: &mut Random,
    spent: &mut Vec<(PartitionHandle, Id)>,
) -> Record {
    let partition = *random.pick(&shared.partitions);
    let id = client.new_id();
    let turn = random.below(100);
    if turn >= 98 {
        let nonce = shared.nonces.fetch_add(1, Ordering::Relaxed);
        let amount = Amount(u128::from(1 + random.below(900)));
        return request::deposit(partition, Address([9; 20]), amount, nonce).into_record(|| id);
    }
    if turn >= 96 {
        return spend(client, random, partition, spent);
    }
    let target = if turn < 30 { None } else { shared.target(random) };
    match target {
        None => lock(random, partition, id).into_record(|| id),
        Some(target) => change(random, turn, target).into_record(|| id),
    }
}

fn lock(random: &mut Random, partition: PartitionHandle, id: Id) -> Draft {
    let most = if random.once_in(50) { 2 * LOCK_MAX } else { 1_000 };
    let amount = 1 + random.below(u64::try_from(most).unwrap_or(1_000));
    let floor = if random.once_in(3) { 1 + amount / 4 } else { 0 };
    let request = LockRequest {
        id: Some(id),
        floor: Amount(floor.into()),
        ..LockRequest::new(partition, Amount(amount.into()), MerchantId(1 + random.below(9)))
    };
    request.into()
}

fn change(random: &mut Random, turn: u64, target: Target) -> Draft {
    let Target { lock, version, total } = target;
    let amount = |random: &mut Random, most: u64| Amount(u128::from(1 + random.below(most)));
    let capture = u16::try_from(random.below(3)).unwrap_or(0);
    match turn {
        30..50 if random.once_in(4) => lock.capture_last(amount(random, 400)),
        30..50 => lock.capture(amount(random, 300)),
        50..57 => lock.release(),
        57..63 => lock.increase(Amount(total + amount(random, 300).0), version),
        63..68 => lock.decrease(Amount((total * 3 / 4).max(1)), if random.once_in(2) { 0 } else { version }),
        68..73 => lock.reverse(capture),
        73..78 => lock.refund(capture, amount(random, 200)),
        78..82 => lock.settle(),
        82..85 => lock.settle_capture(capture),
        85..88 => lock.consume_capture(capture),
        88..90 => lock.consume_held(amount(random, 100)),
        _ => {
            let body = ChangeBody { lock: lock.id, ..ChangeBody::default() };
            Draft::new(Kind::Lookup, lock.partition, Amount::ZERO, &body)
        }
    }
}

/// Ids that are spent before their lock comes: released, or burned; later the lock comes.
fn spend(
    client: &Client,
    random: &mut Random,
    partition: PartitionHandle,
    spent: &mut Vec<(PartitionHandle, Id)>,
) -> Record {
    if let Some((partition, id)) = spent.pop() {
        return lock(random, partition, id).into_record(|| id);
    }
    let id = client.new_id();
    spent.push((partition, id));
    if random.once_in(2) {
        return LockRef::new(partition, id).release().into_record(|| client.new_id());
    }
    let body = ChangeBody { lock: id, ..ChangeBody::default() };
    let burn = Draft::new(Kind::Lookup, partition, Amount::ZERO, &body).flags(Flags::BURN);
    burn.into_record(|| client.new_id())
}
