//! Certificates that are called on chain, and what the engine and the contract make of it together.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod world;

use alloy_primitives::B256;
use chain::bindings::Manager;
use chain::{At, Backend, DigestSigner, LoggedEvent, Tag};
use settlement::{Domain, LockId};
use settler::{Config, NotAnswered, Notice, Point, Report, Settler, SettlerError};
use surety_client::request;
use surety_protocol::{Amount, Code, ControlBody, Kind, Policy, Time};
use world::{
    ALICE, ANSWERER, Liar, MERCHANT_KEY, PARTITION, STRANGER, TENANT, TOKENS, World, address, done, key,
    on_chain,
};

async fn supplied() -> (World, Settler, Domain) {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    let domain = *settler.domain();
    (world, settler, domain)
}

/// The same, and it answers calls.
async fn answering() -> (World, Settler, Domain) {
    let (world, mut settler, domain) = supplied().await;
    settler.answer_with(Box::new(key(ANSWERER))).unwrap();
    (world, settler, domain)
}

async fn pass_finality(world: &mut World, settler: &mut Settler) {
    for _ in 0..8 {
        world.chain.mine_after(12);
        settler.turn(&mut world.chain).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_called_guarantee_stops_the_lock_and_is_booked_when_it_is_paid() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    let lock = world.certified_lock(200 * TOKENS).await;
    let name = LockId { tenant: TENANT, partition: PARTITION, id: lock };
    let is_known =
        |_: &World, settler: &Settler, _: &Report| settler.sealer().netting().certified(&name).is_some();
    world.settle_until(&mut settler, is_known).await.unwrap();
    let statement = settler.sealer().netting().certified(&name).unwrap();
    // What is locked is proven, so that as much can be guaranteed.
    world.settle_all(&mut settler).await;
    world.prove_partition();
    let domain = *settler.domain();
    world.call_lock(&statement, &domain);
    for _ in 0..8 {
        world.chain.mine_after(12);
        settler.turn(&mut world.chain).await.unwrap();
    }
    let release = surety_client::LockRef::new(PARTITION, lock).release();
    let reply = world.authorizer.send(release).await.unwrap();
    world::assert_code(&reply, surety_protocol::Code::GuaranteeCalled);

    world.chain.mine_after(200);
    world.manage(STRANGER, Manager::settleGuaranteeCall { lockId: settlement::Word::word(&name).into() });
    assert_eq!(world.purse(MERCHANT_KEY), 200 * TOKENS);
    world.settle_until_credited(&mut settler, 800 * TOKENS).await;
    // The next batches acknowledge it, or the contract would refuse them.
    for _ in 0..6 {
        world.lock(TOKENS).await;
        world.settle_all(&mut settler).await;
    }
    let info = world.ask(Manager::guaranteeInfoCall {});
    assert_eq!((info.paid.to::<u128>(), info.acknowledged.to::<u128>()), (200 * TOKENS, 200 * TOKENS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_paid_for_no_lock_is_a_loss_and_the_batches_go_on() {
    let (mut world, mut settler, domain) = supplied().await;
    let forged = world.forged(TOKENS);
    world.call_lock(&forged, &domain);
    let is_told = |_: &World, _: &Settler, report: &Report| {
        report.notices.iter().any(|notice| matches!(notice, Notice::UnknownGuarantee { .. }))
    };
    world.settle_until(&mut settler, is_told).await.unwrap();
    world.pay_called(&forged);
    assert_eq!(world.purse(STRANGER), TOKENS);
    let is_booked = |_: &World, _: &Settler, report: &Report| {
        report.notices.iter().any(|notice| matches!(notice, Notice::PaidForNoLock(_)))
    };
    world.settle_until(&mut settler, is_booked).await.unwrap();
    assert_eq!(on_chain(&settler), 999 * TOKENS);
    // Somebody has to look before anything is locked there again.
    let lock = surety_client::LockRequest::new(PARTITION, Amount(TOKENS), world::MERCHANT);
    world::assert_code(&world.authorizer.send(lock).await.unwrap(), Code::Frozen);
    done(world.order(request::unfreeze(PARTITION)).await);
    // More batches than the contract waits for the acknowledgement; a restart in between books nothing again.
    for round in 0..6 {
        let lock = world.lock(10 * TOKENS).await;
        world.consume(lock, TOKENS).await;
        world.settle_all(&mut settler).await;
        if round == 3 {
            drop(settler);
            settler = world.settler().await;
        }
    }
    let info = world.ask(Manager::guaranteeInfoCall {});
    assert_eq!((info.paid.to::<u128>(), info.acknowledged.to::<u128>()), (TOKENS, TOKENS));
    assert_eq!(on_chain(&settler), 993 * TOKENS);
    let losses = world.records(Kind::Deficit).await;
    assert_eq!(losses.len(), 1);
    assert_ne!(losses[0].body::<ControlBody>().reference, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_dismissed_while_the_settler_was_down_is_over() {
    let (mut world, mut settler, domain) = supplied().await;
    let statement = world.stated_lock(&mut settler, 200 * TOKENS).await;
    world.call_lock(&statement, &domain);
    let is_called = |_: &World, _: &Settler, report: &Report| report.notices.is_empty();
    world.settle_until(&mut settler, is_called).await.unwrap();
    pass_finality(&mut world, &mut settler).await;
    assert_eq!(world.records(Kind::GuaranteeCalled).await.len(), 1);
    drop(settler);
    world.dismiss(&statement, &domain);
    for _ in 0..8 {
        world.chain.mine_after(12);
    }
    let mut settler = world.settler().await;
    settler.turn(&mut world.chain).await.unwrap();
    assert_eq!(world.records(Kind::GuaranteeDismissed).await.len(), 1, "told in the first turn");
    let reply =
        world.authorizer.send(surety_client::LockRef::new(PARTITION, statement.lock.id).release()).await;
    done(reply.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_caps_after_a_restart_are_no_higher_than_the_last_before() {
    let (mut world, settler, _) = supplied().await;
    drop(settler);
    let config = Config { allowance: Some(100 * TOKENS), cap_span: Time::from_secs(3600), ..world.config() };
    let mut settler = world.try_settler(config.clone()).await.unwrap();
    let lock = world.lock(90 * TOKENS).await;
    world.consume(lock, 40 * TOKENS).await;
    world.settle_all(&mut settler).await;
    drop(settler);
    let mut settler = world.try_settler(config).await.unwrap();
    settler.turn(&mut world.chain).await.unwrap();
    let money = settler.sealer().netting().money(PARTITION).unwrap();
    let cap = world.records(Kind::RiskCap).await.last().unwrap().amount.0;
    // Nothing is under way: what is covered is what is locked.
    assert_eq!(cap, money.locked + 100 * TOKENS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hides_what_was_asked_or_paid_is_noticed() {
    fn is(event: &LoggedEvent, hash: B256) -> bool {
        event.topics[0] == hash
    }
    let lies: [fn(&mut Vec<LoggedEvent>); 3] = [
        |events| {
            let hash = <Manager::ExitRequested as alloy_sol_types::SolEvent>::SIGNATURE_HASH;
            events.retain(|event| !is(event, hash));
        },
        |events| {
            let hash = <Manager::GuaranteeCalled as alloy_sol_types::SolEvent>::SIGNATURE_HASH;
            events.retain(|event| !is(event, hash));
        },
        |events| {
            let hash = <Manager::GuaranteePaid as alloy_sol_types::SolEvent>::SIGNATURE_HASH;
            events.retain(|event| !is(event, hash));
        },
    ];
    let (mut world, mut settler, domain) = supplied().await;
    for (number, alter) in lies.into_iter().enumerate() {
        match number {
            0 => {
                let partition = B256::from(world.onchain(1));
                world.manage(ALICE, Manager::requestExitCall { partition });
            }
            1 => world.call_lock(&world.forged(TOKENS), &domain),
            _ => {
                let forged = world.forged(TOKENS);
                world.call_lock(&forged, &domain);
                world.pay_called(&forged);
            }
        }
        let mut was_told = false;
        for _ in 0..8 {
            world.chain.mine_after(12);
            let mut liar = Liar { chain: &mut world.chain, alter, is_deaf: false, swallows: 0 };
            let report = settler.turn(&mut liar).await.unwrap();
            was_told |= report.notices.iter().any(|told| matches!(told, Notice::ChainDisagrees { .. }));
        }
        assert!(was_told, "lie {number}");
        // Another node is believed.
        pass_finality(&mut world, &mut settler).await;
    }
    assert_eq!(settler.sealer().netting().exit_nonce(PARTITION), 1);
    assert_eq!(world.records(Kind::Deficit).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_asks_only_for_what_does_not_wait_to_leave_already() {
    let (mut world, mut settler, _) = supplied().await;
    let day = Time::from_secs(24 * 3600);
    let rules = Policy {
        life_default: day,
        life_max: day,
        settlement_window: day,
        settle_by: day,
        unbonding: day,
        ..Policy::default()
    };
    let admin = &world.admin;
    done(admin.submit_long(&request::set_policy(admin.new_id(), PARTITION, &rules)).await.unwrap());
    let units = settler.sealer().netting().units(PARTITION, address(ALICE));
    let part = world.order(request::withdraw(PARTITION, address(ALICE), Amount(units / 4))).await;
    world::assert_code(&part, Code::Queued);
    let partition = B256::from(world.onchain(1));
    world.manage(ALICE, Manager::requestExitCall { partition });
    let is_answered =
        |_: &World, settler: &Settler, _: &Report| settler.sealer().netting().exit_nonce(PARTITION) == 1;
    world.settle_until(&mut settler, is_answered).await.unwrap();
    let asked = world.records(Kind::Withdraw).await;
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[1].amount.0, asked[1].code()), (units - units / 4, Some(Code::Queued)));
    assert_eq!(settler.sealer().netting().units_to_ask(PARTITION, address(ALICE)), 0);
}

/// A lock of which some was paid by batches that are on chain, and then it is called.
async fn paid_and_called(world: &mut World, settler: &mut Settler, paid: u128) -> settlement::CertifiedLock {
    let statement = world.stated_lock(settler, 200 * TOKENS).await;
    world.consume(statement.lock.id, paid).await;
    world.settle_all(settler).await;
    let domain = *settler.domain();
    world.call_lock(&statement, &domain);
    assert_eq!(world.called(&statement), (1, 200 * TOKENS));
    statement
}

fn settle_called(lock: &settlement::CertifiedLock) -> Manager::settleGuaranteeCall {
    Manager::settleGuaranteeCall { lockId: settlement::Word::word(&lock.lock).into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_credited_is_not_paid_again_by_a_call() {
    let (mut world, mut settler, _) = answering().await;
    let statement = paid_and_called(&mut world, &mut settler, 200 * TOKENS).await;
    let is_told = |_: &World, _: &Settler, report: &Report| {
        report.notices.iter().any(|notice| matches!(notice, Notice::AnswerSent { owed: 0, .. }))
    };
    world.settle_until(&mut settler, is_told).await.unwrap();
    // A kill right after: the answer is in the pool, and the next settler need not know of it.
    drop(settler);
    let mut settler = world.answering_settler().await;
    pass_finality(&mut world, &mut settler).await;
    assert_eq!(world.called(&statement), (2, 0), "dismissed");
    assert_eq!(world.chain.nonce(key(ANSWERER).address(), At::Tag(Tag::Latest)), Ok(1), "once");
    world.settle_all(&mut settler).await;
    world.claim(world.batches_on_chain());
    assert!(world.simulate(settle_called(&statement)).is_err());
    assert_eq!(world.purse(MERCHANT_KEY), 200 * TOKENS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_not_credited_is_paid_by_a_call() {
    let (mut world, mut settler, _) = answering().await;
    let statement = paid_and_called(&mut world, &mut settler, 120 * TOKENS).await;
    let is_reduced = |world: &World, _: &Settler, _: &Report| world.called(&statement) == (1, 80 * TOKENS);
    world.settle_until(&mut settler, is_reduced).await.unwrap();
    pass_finality(&mut world, &mut settler).await;
    world.settle_all(&mut settler).await;
    world.prove_partition();
    world.claim(world.batches_on_chain());
    world.pay_called(&statement);
    assert_eq!(world.purse(MERCHANT_KEY), 200 * TOKENS, "the whole lock, once");
    world.settle_until_credited(&mut settler, 800 * TOKENS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_a_node_loses_are_sent_again_and_each_call_has_its_own() {
    let (mut world, mut settler, domain) = answering().await;
    let mut statements = Vec::new();
    for _ in 0..3 {
        let statement = world.stated_lock(&mut settler, 50 * TOKENS).await;
        world.consume(statement.lock.id, 50 * TOKENS).await;
        statements.push(statement);
    }
    world.settle_all(&mut settler).await;
    for statement in &statements {
        world.call_lock(statement, &domain);
    }
    let mut swallows = 4;
    for _ in 0..world::TURNS {
        let mut node = Liar { chain: &mut world.chain, alter: |_| {}, is_deaf: false, swallows };
        settler.turn(&mut node).await.unwrap();
        swallows = node.swallows;
        world.chain.mine_after(12);
        if statements.iter().all(|statement| world.called(statement) == (2, 0)) {
            break;
        }
    }
    assert_eq!(swallows, 0);
    assert!(statements.iter().all(|statement| world.called(statement) == (2, 0)));
    assert_eq!(world.chain.nonce(key(ANSWERER).address(), At::Tag(Tag::Latest)), Ok(3), "one for each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merchant_who_has_let_go_is_not_paid_for_it() {
    let (mut world, settler, domain) = supplied().await;
    drop(settler);
    world.restart_engine().await;
    let mut settler = world.answering_settler().await;
    let statement = world.stated_lock(&mut settler, 200 * TOKENS).await;
    let release = surety_client::LockRef::new(PARTITION, statement.lock.id).release();
    done(world.authorizer.send(release).await.unwrap());
    done(world.let_go(&statement, 0, &domain).await);
    world.read_all(&mut settler).await;
    // What is known of a release outlives the process that has read it.
    world.settle_all(&mut settler).await;
    drop(settler);
    world.call_lock(&statement, &domain);
    let mut settler = world.answering_settler().await;
    let is_dismissed = |world: &World, _: &Settler, _: &Report| world.called(&statement) == (2, 0);
    world.settle_until(&mut settler, is_dismissed).await.unwrap();
    world.chain.mine_after(200);
    assert!(world.simulate(settle_called(&statement)).is_err());
    assert_eq!(world.purse(MERCHANT_KEY), 0);
    assert_eq!(on_chain(&settler), 1000 * TOKENS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_nobody_may_answer_is_told() {
    let (mut world, mut settler, _) = supplied().await;
    paid_and_called(&mut world, &mut settler, 200 * TOKENS).await;
    let mut told = Vec::new();
    let is_told = |_: &World, _: &Settler, report: &Report| {
        told.extend(report.notices.clone());
        told.iter().any(|notice| matches!(notice, Notice::CallNotAnswered { why: NotAnswered::NoKey, .. }))
    };
    world.settle_until(&mut settler, is_told).await.unwrap();
    let is_unknown = |notice: &Notice| matches!(notice, Notice::UnknownGuarantee { .. });
    assert!(!told.iter().any(is_unknown), "the engine knows the lock: {told:?}");
    let poster = settler.answer_with(Box::new(key(world::POSTER)));
    assert!(matches!(poster, Err(SettlerError::PosterAnswers)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_told_once_whatever_is_killed() {
    for point in [Point::Noted, Point::Asked, Point::Answered] {
        let (mut world, mut settler, domain) = supplied().await;
        let forged = world.forged(TOKENS);
        world.call_lock(&forged, &domain);
        world.pay_called(&forged);
        settler.watch(Box::new(move |at| at != point));
        let error = world.settle_until(&mut settler, |_, _, _| false).await.unwrap_err();
        assert!(matches!(error, SettlerError::Stopped(at) if at == point), "{error}");
        drop(settler);
        let mut settler = world.settler().await;
        let losses = |report: &Report| {
            report.notices.iter().filter(|notice| matches!(notice, Notice::PaidForNoLock(_))).count()
        };
        let mut told = 0;
        let is_told = |_: &World, _: &Settler, report: &Report| {
            told += losses(report);
            told > 0
        };
        world.settle_until(&mut settler, is_told).await.unwrap();
        // Nobody asked for another turn: whether somebody has read the report is not known.
        drop(settler);
        let mut settler = world.settler().await;
        let mut again = 0;
        for restart in 0..2 {
            for _ in 0..8 {
                again += losses(&settler.turn(&mut world.chain).await.unwrap());
                world.chain.mine_after(12);
            }
            assert_eq!((told, again), (1, 1), "{point:?}, restart {restart}");
            drop(settler);
            settler = world.settler().await;
        }
        assert_eq!(world.records(Kind::Deficit).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_a_partition_without_any_other_event_is_missed() {
    let (mut world, mut settler, domain) = supplied().await;
    world.add_partition(2);
    world.furnish(surety_protocol::PartitionHandle(2), 2).await;
    world.read_all(&mut settler).await;
    let forged = world.forged(TOKENS);
    let lock = settlement::LockId { partition: surety_protocol::PartitionHandle(2), ..forged.lock };
    world.call_lock(&settlement::CertifiedLock { lock, partition: world.onchain(2), ..forged }, &domain);
    let mut was_told = false;
    for _ in 0..8 {
        world.chain.mine_after(12);
        let alter: fn(&mut Vec<LoggedEvent>) = |events| {
            let hash = <Manager::GuaranteeCalled as alloy_sol_types::SolEvent>::SIGNATURE_HASH;
            events.retain(|event| event.topics[0] != hash);
        };
        let mut liar = Liar { chain: &mut world.chain, alter, is_deaf: false, swallows: 0 };
        let report = settler.turn(&mut liar).await.unwrap();
        was_told |= report.notices.iter().any(|told| matches!(told, Notice::ChainDisagrees { .. }));
    }
    assert!(was_told);
    let is_believed = |_: &World, _: &Settler, report: &Report| {
        report.notices.iter().any(|notice| matches!(notice, Notice::UnknownGuarantee { .. }))
    };
    world.settle_until(&mut settler, is_believed).await.unwrap();
}
