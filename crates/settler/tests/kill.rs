//! Stopped at every point where something has just become durable or has just left, and started again: everything still
//! happens, and nothing twice.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::B256;
use chain::Backend;
use chain::bindings::Manager;
use settlement::life::Entry;
use settler::{Note, Point, Report, Settler, SettlerError};
use surety_protocol::Kind;
use world::{ALICE, MERCHANT_KEY, PARTITION, TOKENS, World, on_chain, owed};

/// What has to be the same however often the settler was killed.
#[derive(Debug, PartialEq, Eq)]
struct End {
    on_chain: u128,
    owed: u128,
    credit: u128,
    deposits: usize,
    withdrawals: usize,
    losses: usize,
    bookings_add_up: bool,
}

/// A settler that stops when it passes a point for the n-th time.
async fn fragile(world: &World, stop: Option<(Point, usize)>, passed: Arc<AtomicUsize>) -> Settler {
    let mut settler = world.settler().await;
    if let Some((point, nth)) = stop {
        settler.watch(Box::new(move |at| at != point || passed.fetch_add(1, Ordering::SeqCst) + 1 != nth));
    }
    settler
}

/// Supply, payment, exit, and a guarantee that was paid for no lock; says how often the settler was stopped.
async fn play(stop: Option<(Point, usize)>) -> (End, usize) {
    let mut world = World::new().await;
    let (passed, mut stops) = (Arc::new(AtomicUsize::new(0)), 0);
    let mut settler = fragile(&world, stop, passed.clone()).await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    for stage in 0..4 {
        match stage {
            1 => {
                let lock = world.lock(300 * TOKENS).await;
                world.consume(lock, 120 * TOKENS).await;
            }
            2 => {
                let partition = B256::from(world.onchain(1));
                world.manage(ALICE, Manager::requestExitCall { partition });
            }
            3 => {
                let forged = world.forged(TOKENS);
                world.call_lock(&forged, settler.domain());
                world.pay_called(&forged);
            }
            _ => {}
        }
        let is_done = |_: &World, settler: &Settler, _: &Report| {
            let (sealed, _, booked) = settler.progress();
            let is_quiet =
                sealed == booked && settler.sealer().netting().unpublished() == 0 && owed(settler) == 0;
            is_quiet
                && match stage {
                    0 => on_chain(settler) == 1000 * TOKENS,
                    1 => on_chain(settler) == 880 * TOKENS,
                    3 => on_chain(settler) == 879 * TOKENS,
                    // The rest of the lock stays.
                    _ => settler.sealer().netting().exit_nonce(PARTITION) == 1,
                }
        };
        loop {
            match world.settle_until(&mut settler, is_done).await {
                Ok(()) => break,
                Err(SettlerError::Stopped(point)) => {
                    assert_eq!(Some(point), stop.map(|(point, _)| point));
                    stops += 1;
                    drop(settler);
                    settler = fragile(&world, stop, passed.clone()).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    (end(&world, &settler).await, stops)
}

/// Read from the engine's own stream and from the chain.
async fn end(world: &World, settler: &Settler) -> End {
    let mut tail = world.admin.tail(surety_protocol::ShardId(0), surety_protocol::Seq(1));
    let through = settler.sealer().netting().positions().0[0];
    let (mut deposits, mut withdrawals, mut losses, mut booked) = (0, 0, 0, 0);
    loop {
        let (seq, record) = tail.next().await.unwrap();
        let is_done = record.code().is_some_and(surety_protocol::Code::is_success);
        match record.kind() {
            Some(Kind::Deposit) if is_done => deposits += 1,
            // Every one that was asked for, whatever it came to.
            Some(Kind::Withdraw) => withdrawals += 1,
            Some(Kind::Deficit) => losses += 1,
            Some(Kind::BatchFinal) if is_done => booked += record.result.0,
            _ => {}
        }
        if seq >= through {
            break;
        }
    }
    let credit = world.ask(Manager::headInfoCall {}).sumCredit.to::<u128>();
    let bookings_add_up = booked == credit;
    let (on_chain, owed) = (on_chain(settler), owed(settler));
    End { on_chain, owed, credit, deposits, withdrawals, losses, bookings_add_up }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_point_everything_happens_once() {
    let (sound, _) = play(None).await;
    assert_eq!((sound.deposits, sound.withdrawals, sound.losses), (1, 1, 1));
    assert!(sound.bookings_add_up);
    for point in Point::ALL {
        for nth in [1, 2, 3] {
            let (end, stops) = play(Some((point, nth))).await;
            assert_eq!(end, sound, "stopped at {point:?} for the {nth}. time");
            assert!(stops > 0 || nth > 1, "{point:?} was never passed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_that_the_log_does_not_hold() {
    let mut world = World::new().await;
    let mut settler = fragile(&world, Some((Point::Sent, 1)), Arc::default()).await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    let never = |_: &World, _: &Settler, _: &Report| false;
    let error = world.settle_until(&mut settler, never).await.unwrap_err();
    assert!(matches!(error, SettlerError::Stopped(Point::Sent)), "{error}");
    let notes = settler::Journal::read(world.own.path()).unwrap().unwrap().notes;
    let logged = notes.iter().rev().find_map(|note| match note {
        Note::Life(Entry::Attempt(attempt)) => Some(B256::from(attempt.hash)),
        _ => None,
    });
    let logged = logged.expect("an attempt in the log");
    assert!(world.chain.is_pending(logged).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_may_restart_under_the_settler() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    let lock = world.lock(300 * TOKENS).await;
    world.consume(lock, 120 * TOKENS).await;
    drop(settler);
    world.restart_engine().await;
    let mut settler = world.settler().await;
    world.settle_all(&mut settler).await;
    assert_eq!(on_chain(&settler), 880 * TOKENS);
    let batch = settler.progress().0;
    world.claim(batch);
    assert_eq!(world.purse(MERCHANT_KEY), 120 * TOKENS);
}
