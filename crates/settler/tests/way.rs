//! The whole way of the money: in at finality, locked, consumed, settled, paid out on chain; and out again.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod world;

use std::time::Instant;

use alloy_primitives::B256;
use chain::DigestSigner;
use chain::bindings::Manager;
use settler::{Config, Notice, Settler};
use surety_client::LockRequest;
use surety_protocol::{Amount, Code, PartitionHandle, Time};
use world::{ALICE, MERCHANT, MERCHANT_KEY, PARTITION, POSTER, TOKENS, World, address, key, on_chain, owed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_kept_only_for_who_takes_them() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    let lock = world.certified_lock(TOKENS).await;
    world.read_all(&mut settler).await;
    assert_eq!(settler.statements(), []);
    drop(settler);
    let config = Config { keeps_statements: true, ..world.config() };
    let mut settler = world.try_settler(config).await.unwrap();
    world.read_all(&mut settler).await;
    let stated: Vec<_> = settler.statements().iter().map(|statement| statement.lock.id).collect();
    assert_eq!(stated, [lock]);
    assert_eq!(settler.statements(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_goes_in_and_out() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    settler.check(&world.chain).unwrap();
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;

    let lock = world.lock(300 * TOKENS).await;
    world.consume(lock, 120 * TOKENS).await;
    world.settle_all(&mut settler).await;
    let batch = settler.progress().0;
    assert_eq!(world.batches_on_chain(), batch);
    assert_eq!((on_chain(&settler), owed(&settler)), (880 * TOKENS, 0));
    let info = world.ask(Manager::headInfoCall {});
    assert_eq!(info.sumCredit.to::<u128>(), 120 * TOKENS);

    let before = world.purse(MERCHANT_KEY);
    world.claim(batch);
    assert_eq!(world.purse(MERCHANT_KEY), before + 120 * TOKENS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposit_is_credited_at_finality_and_not_before() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    for _ in 0..8 {
        settler.turn(&mut world.chain).await.unwrap();
        world.chain.mine_after(12);
    }
    world.supply(ALICE, 1, 500 * TOKENS);
    // Four blocks on top of it make a block final.
    for block in 0..4 {
        settler.turn(&mut world.chain).await.unwrap();
        settler.wait(std::time::Duration::from_millis(50)).await;
        settler.drain().unwrap();
        assert_eq!(on_chain(&settler), 0, "credited {block} blocks after the supply");
        world.chain.mine_after(12);
    }
    world.settle_until_credited(&mut settler, 500 * TOKENS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supply_that_was_reorganized_away_is_not_credited() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    for _ in 0..6 {
        world.chain.mine_after(12);
    }
    world.supply(ALICE, 1, 500 * TOKENS);
    world.chain.mine_after(12);
    settler.turn(&mut world.chain).await.unwrap();
    world.chain.reorg_and_lose(2).unwrap();
    for _ in 0..10 {
        world.chain.mine_after(12);
        settler.turn(&mut world.chain).await.unwrap();
    }
    assert_eq!(on_chain(&settler), 0);
    assert_eq!(world.batches_on_chain(), settler.progress().0.min(world.batches_on_chain()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supplier_leaves_by_asking_on_chain() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;

    let partition = B256::from(world.onchain(1));
    world.manage(ALICE, Manager::requestExitCall { partition });
    let is_answered = |_: &World, settler: &Settler, _: &settler::Report| {
        settler.sealer().netting().exit_nonce(PARTITION) == 1
    };
    world.settle_until(&mut settler, is_answered).await.unwrap();
    world.settle_all(&mut settler).await;
    assert_eq!(on_chain(&settler), 0);

    let batch = settler.progress().0;
    let published = world.published(Some(batch));
    let leaf = published.partition(world.onchain(1)).unwrap();
    let call = Manager::completeExitCall {
        batch: settler::batch_of(&published.batch),
        parts: published.join(),
        leaf,
    };
    world.manage(world::STRANGER, call);
    let info = world.ask(Manager::partitionInfoCall { partition });
    assert_eq!((info.exitsRequested, info.exitsAnswered), (info.exitsAnswered, info.exitsRequested));

    let before = world.purse(ALICE);
    world.chain.mine_after(3700);
    // Two batches may have come within the delay: only the first of them is in the slot of the pending root.
    world.manage(world::STRANGER, Manager::matureHeadCall { batch: settler::batch_of(&published.batch) });
    let leaf = published.credit(world.onchain(1), address(ALICE)).unwrap();
    world.manage(world::STRANGER, Manager::claimCall { leaf, rest: published.roots.rest().into() });
    // Whoever was first to deposit leaves the virtual base unit behind.
    assert!(world.purse(ALICE) >= before + 1000 * TOKENS - 1);

    // Asked again with nothing left: answered as well, or it would end in a freeze.
    world.manage(ALICE, Manager::requestExitCall { partition });
    let is_answered = |_: &World, settler: &Settler, _: &settler::Report| {
        settler.sealer().netting().exit_nonce(PARTITION) == 2
    };
    world.settle_until(&mut settler, is_answered).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_treasury_supplies_is_everybodys() {
    let mut world = World::new().await;
    let treasury = world::OWNER;
    world.fill_purse(treasury);
    let config = Config { treasury: Some(key(treasury).address()), ..world.config() };
    let mut settler = world.try_settler(config).await.unwrap();
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    let units = settler.sealer().netting().units(PARTITION, address(ALICE));
    world.supply(treasury, 1, 50 * TOKENS);
    world.settle_until_credited(&mut settler, 1050 * TOKENS).await;
    assert_eq!(settler.sealer().netting().units(PARTITION, address(ALICE)), units);
    assert_eq!(settler.sealer().netting().units(PARTITION, address(treasury)), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supply_to_a_partition_that_the_engine_does_not_know_waits_for_it() {
    let mut world = World::new().await;
    world.add_partition(2);
    let mut settler = world.settler().await;
    world.supply(ALICE, 2, 10 * TOKENS);
    world.supply(ALICE, 1, 20 * TOKENS);
    let mut was_told = false;
    let both = |_: &World, settler: &Settler, report: &settler::Report| {
        was_told |= report.notices.iter().any(|notice| matches!(notice, Notice::NotCredited { .. }));
        was_told && on_chain(settler) == 20 * TOKENS
    };
    world.settle_until(&mut settler, both).await.unwrap();
    let second = PartitionHandle(2);
    world.furnish(second, 2).await;
    // A restart tries at once what it would try again in ten seconds.
    drop(settler);
    let mut settler = world.settler().await;
    let is_there = |_: &World, settler: &Settler, _: &settler::Report| {
        settler.sealer().netting().money(second).is_some_and(|money| money.on_chain == 10 * TOKENS)
    };
    world.settle_until(&mut settler, is_there).await.unwrap();
    assert_eq!(on_chain(&settler), 20 * TOKENS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_settler_stops_new_locks() {
    let mut world = World::new().await;
    let span = Time::from_millis(1500);
    let config = Config { allowance: Some(100 * TOKENS), cap_span: span, ..world.config() };
    let mut settler = world.try_settler(config).await.unwrap();
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    settler.turn(&mut world.chain).await.unwrap();
    let lock = |amount| LockRequest::new(PARTITION, Amount(amount), MERCHANT);
    // Past what may be at risk; then within it.
    let refused = world.authorizer.send(lock(101 * TOKENS)).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Code::ChainStale));
    lock_under_a_fresh_cap(&mut world, &mut settler, 100 * TOKENS).await;
    // Once that is on chain, as much again may be.
    world.settle_all(&mut settler).await;
    lock_under_a_fresh_cap(&mut world, &mut settler, 90 * TOKENS).await;

    let until = world.authorizer.now().plus(span).plus(Time::from_millis(200));
    while world.authorizer.now() < until {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let refused = world.authorizer.send(lock(1)).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Code::ChainStale));
    lock_under_a_fresh_cap(&mut world, &mut settler, 1).await;
}

/// A turn of the settler tells the engine how much may be at risk; on a busy machine that may be over before the lock comes.
async fn lock_under_a_fresh_cap(world: &mut World, settler: &mut Settler, amount: u128) {
    let begun = Instant::now();
    loop {
        settler.turn(&mut world.chain).await.unwrap();
        match world.authorizer.send(LockRequest::new(PARTITION, Amount(amount), MERCHANT)).await {
            Ok(reply) => {
                world::done(reply);
                return;
            }
            Err(error) => assert_eq!(error.refusal(), Some(Code::ChainStale)),
        }
        assert!(begun.elapsed() < world::PATIENCE, "the settler speaks, and is not heard");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_full_is_sealed_and_does_not_stop_the_reader() {
    let mut world = World::new().await;
    let mut config = Config { changes_max: 1, ..world.config() };
    // Its age alone is no reason for a batch.
    config.policy.flush.age_max = Time::from_secs(3600);
    let mut settler = world.try_settler(config).await.unwrap();
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    let lock = world.lock(300 * TOKENS).await;
    world.consume(lock, 120 * TOKENS).await;
    // More than one leaf has changed, and nobody has sealed anything: it is read all the same.
    world.read_all(&mut settler).await;
    assert!(settler.sealer().netting().changes() > 1);
    assert_eq!(owed(&settler), 120 * TOKENS);
    world.settle_all(&mut settler).await;
    assert_eq!(on_chain(&settler), 880 * TOKENS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_engine_costs_nothing() {
    let mut world = World::new().await;
    let config = Config { allowance: Some(TOKENS), cap_span: Time::from_millis(1), ..world.config() };
    let mut settler = world.try_settler(config).await.unwrap();
    world.supply(ALICE, 1, 10 * TOKENS);
    world.settle_until_credited(&mut settler, 10 * TOKENS).await;
    world.settle_all(&mut settler).await;
    let batches = settler.progress().0;
    for _ in 0..30 {
        settler.turn(&mut world.chain).await.unwrap();
        world.chain.mine_after(12);
    }
    assert_eq!(settler.progress().0, batches, "caps and bookings alone are no reason for a batch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_carry_their_data_if_they_are_to() {
    let mut world = World::new().await;
    let mut config = world.config();
    config.policy.data = settlement::life::DataPolicy::ON_CHAIN;
    let mut settler = world.try_settler(config).await.unwrap();
    world.supply(ALICE, 1, 10 * TOKENS);
    world.settle_until_credited(&mut settler, 10 * TOKENS).await;
    world.settle_all(&mut settler).await;
    assert!(world.batches_on_chain() > 0);
    assert_eq!(key(POSTER).address(), world.ask(Manager::posterCall {}));
    let published = world.published(None);
    let json = published.to_json();
    assert_eq!(json["batch"]["seq"], settler.progress().0);
    assert_eq!(json["partitions"].as_array().unwrap().len(), 1);
    assert_eq!(json["suppliers"][0]["supplier"].as_str().unwrap(), key(ALICE).address().to_string());
}
