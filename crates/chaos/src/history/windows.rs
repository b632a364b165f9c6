//! Small windows for a checker that is not ours: a few clients on a partition of their own, judged without any seq.
//!
//! Our own check takes the order from the replies. This one gets calls and answers alone and searches for an order, so the
//! two can only agree by being right (or by a fault of the model, which both use).

use std::time::Instant;

use anyhow::Result;
use surety_client::{Client, LockRef, LockRequest};
use surety_protocol::{Amount, ChangeBody, Code, Id, Kind, MerchantId, PartitionHandle, Record, Reply, Seq};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::model::{Expected, Model};
use crate::random::Random;

/// Collateral of each window's partition: scarce.
pub(crate) const COLLATERAL: u128 = 1_000;
/// Clients of a window, and what each of them does.
const CLIENTS: usize = 5;
const OPERATIONS: usize = 8;

/// A partition with its answers.
struct Window;

/// A request and, once it is known, its answer.
#[derive(Clone, Debug)]
struct Step {
    request: Record,
    told: Option<Reply>,
}

impl Specification for Window {
    type State = Model;
    type Operation = Step;

    fn init() -> Model {
        Model::with(COLLATERAL)
    }

    fn apply(step: &Step, state: &Model) -> (bool, Model) {
        let Some(told) = step.told else { return (false, state.clone()) };
        let is_look = step.request.kind() == Some(Kind::Lookup);
        if is_look && (told.code() != Code::NotFound || told.seq == Seq(0)) {
            let id = step.request.body::<ChangeBody>().lock;
            return (state.look(id).is(&told), state.clone());
        }
        let mut next = state.clone();
        let agrees = next.execute(&step.request).is_some_and(|expected| {
            let outcome = (expected.code, expected.approved) == (told.code(), told.approved.0);
            if told.is_replayed() { outcome } else { expected == Expected::of(&told) }
        });
        (agrees, if agrees { next } else { state.clone() })
    }
}

/// One answered operation of a client.
#[derive(Clone, Copy, Debug)]
struct Answered {
    client: usize,
    request: Record,
    reply: Reply,
    called: u64,
    returned: u64,
}

/// Runs a window and has it judged. None if an answer was lost on the way: a look-up for it would be another operation.
pub(crate) async fn run(clients: &[Client], partition: PartitionHandle, seed: u64) -> Result<Option<bool>> {
    let begun = Instant::now();
    let locks: Vec<Id> = (0..CLIENTS).map(|_| clients[0].new_id()).collect();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = clients[number % clients.len()].clone();
            tokio::spawn(one_client(client, number, partition, locks.clone(), seed, begun))
        })
        .collect();
    let mut answered = Vec::new();
    for task in tasks {
        match task.await? {
            Some(operations) => answered.extend(operations),
            None => return Ok(None),
        }
    }
    // The search takes its time and must not hold up the clients.
    Ok(Some(tokio::task::spawn_blocking(move || is_linearizable(&answered)).await?))
}

async fn one_client(
    client: Client,
    number: usize,
    partition: PartitionHandle,
    locks: Vec<Id>,
    seed: u64,
    begun: Instant,
) -> Option<Vec<Answered>> {
    let mut random = Random::new(seed ^ (number as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
    let now = || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut answered = Vec::new();
    let mut has_locked = false;
    for turn in 0..OPERATIONS {
        let is_lock = !has_locked && (turn == OPERATIONS / 2 || random.once_in(3));
        has_locked |= is_lock;
        let request = draw(&client, &mut random, partition, &locks, is_lock.then_some(locks[number]));
        let called = now();
        let reply = client.submit(request).await.ok()?;
        answered.push(Answered { client: number, request, reply, called, returned: now() });
    }
    Some(answered)
}

/// Each client locks under one id of its own; everybody changes everybody's locks, before they are there, too.
fn draw(
    client: &Client,
    random: &mut Random,
    partition: PartitionHandle,
    locks: &[Id],
    lock: Option<Id>,
) -> Record {
    let amount = |random: &mut Random, most: u64| Amount(u128::from(1 + random.below(most)));
    if let Some(id) = lock {
        let floor = Amount(u128::from(random.below(2)) * 50);
        let request = LockRequest {
            id: Some(id),
            floor,
            ..LockRequest::new(partition, amount(random, 600), MerchantId(1))
        };
        return surety_client::Draft::from(request).into_record(|| id);
    }
    let other = locks[usize::try_from(random.below(locks.len() as u64)).unwrap_or(0)];
    let lock = LockRef::new(partition, other);
    let draft = match random.below(8) {
        0 => lock.release(),
        1 => lock.capture_last(amount(random, 100)),
        2 | 3 => lock.capture(amount(random, 200)),
        4 => lock.increase(amount(random, 900), 1),
        5 => lock.decrease(amount(random, 300), 0),
        6 => lock.settle(),
        _ => {
            let body = ChangeBody { lock: other, ..ChangeBody::default() };
            surety_client::Draft::new(Kind::Lookup, partition, Amount::ZERO, &body)
        }
    };
    draft.into_record(|| client.new_id())
}

fn is_linearizable(answered: &[Answered]) -> bool {
    let mut moments: Vec<(u64, bool, usize, Step)> = Vec::new();
    for operation in answered {
        let Answered { client, request, reply, called, returned } = *operation;
        moments.push((called, false, client, Step { request, told: None }));
        moments.push((returned, true, client, Step { request, told: Some(reply) }));
    }
    // At one moment calls stand first: what touches may overlap.
    moments.sort_by_key(|(at, is_return, ..)| (*at, *is_return));
    let action = |(_, is_return, client, step): (u64, bool, usize, Step)| {
        (client, if is_return { Action::Response(step) } else { Action::Call(step) })
    };
    WGLChecker::<Window>::is_linearizable(History::from_actions(moments.into_iter().map(action).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::ALL_CAPTURES;

    const PARTITION: PartitionHandle = PartitionHandle(1);

    fn lock(client: usize, id: u128, amount: u128, free: u128, times: (u64, u64)) -> Answered {
        let request =
            LockRequest { id: Some(Id(id)), ..LockRequest::new(PARTITION, Amount(amount), MerchantId(1)) };
        let reply = Reply {
            code: Code::Approved as u8,
            approved: Amount(amount),
            remaining: Amount(amount),
            free: Amount(free),
            version: 1,
            end: 1,
            capture: ALL_CAPTURES,
            ..Reply::default()
        };
        let request = surety_client::Draft::from(request).into_record(|| Id(id));
        Answered { client, request, reply, called: times.0, returned: times.1 }
    }

    #[test]
    fn the_other_checker_finds_orders_and_their_absence() {
        let first = |times| lock(0, 1, 100, 900, times);
        let second = |free, times| lock(1, 2, 200, free, times);
        assert!(is_linearizable(&[first((0, 10)), second(700, (5, 15))]));
        assert!(is_linearizable(&[first((5, 15)), second(700, (0, 10))]));
        assert!(!is_linearizable(&[first((11, 15)), second(700, (0, 10))]), "against the clock");
        assert!(!is_linearizable(&[first((0, 10)), second(800, (5, 15))]), "sold twice");
    }
}
