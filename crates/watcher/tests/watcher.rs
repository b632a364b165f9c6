//! A watcher against a real engine: what is decided is done once, wherever the watcher is killed and whatever fails.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::engine::{COLLATERAL, Engine, TENANT, rules};
use support::{ASSET, Elsewhere, Forgetful, Scripted, account, time_of};
use surety_client::LockRef;
use surety_protocol::{Code, End, PartitionHandle, ShardId, TenantId};
use watcher::source::{SecondOpinion, SourceError};
use watcher::track::{Event, Verdict};
use watcher::{Config, Turn, Watch, WatchKey, Watcher, WatcherError, spool};

type Watching = Watcher<Scripted>;

fn open(directory: &Path, chain: &Scripted, engine: &Engine) -> Watching {
    let config = Config { directory: directory.to_owned(), asset: ASSET, from_block: None };
    Watcher::open(config, chain.clone(), engine.settler.clone()).unwrap()
}

/// A payment of 100 to `to`, by block 20, with 3 confirmations.
fn watch(lock: LockRef, to: &str) -> Watch {
    let key = WatchKey { tenant: TENANT, partition: lock.partition, lock: lock.id };
    Watch {
        key,
        asset: ASSET,
        to: account(to),
        amount: 100,
        confirmations: 3,
        deadline_s: time_of(20),
        owes_held: false,
    }
}

/// Turns until nothing new is read and nothing waits.
async fn settle_down(watcher: &mut Watching) -> Turn {
    let mut all = Turn::default();
    for _ in 0..20 {
        let turn = watcher.turn().await.unwrap();
        let is_idle = turn.blocks == 0 && turn.waiting == 0;
        all.events.extend(turn.events);
        all.delivered.extend(turn.delivered);
        all.trouble = turn.trouble;
        if is_idle {
            return all;
        }
    }
    panic!("it does not come to rest");
}

#[tokio::test]
async fn a_paid_lock_is_settled_and_an_unpaid_one_is_consumed() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let mut watcher = open(directory.path(), &chain, &engine);
    let paid = engine.lock(100, &[100]).await;
    let unpaid = engine.lock(300, &[100, 50]).await;
    let held = engine.lock(70, &[30]).await;
    watcher.watch(watch(paid, "alice")).unwrap().unwrap();
    watcher.watch(watch(unpaid, "bob")).unwrap().unwrap();
    watcher.watch(Watch { owes_held: true, ..watch(held, "carol") }).unwrap().unwrap();
    settle_down(&mut watcher).await;
    assert_eq!(engine.free().await, COLLATERAL - 470);

    chain.mine_empty(3);
    chain.mine(&[("alice", 100)]);
    chain.mine_empty(2);
    let turn = settle_down(&mut watcher).await;
    assert_eq!(turn.delivered, [watch(paid, "alice").key]);
    assert_eq!(engine.show(paid).await.end(), End::Settled);
    assert_eq!(engine.free().await, COLLATERAL - 370);

    chain.mine_empty(20);
    let turn = settle_down(&mut watcher).await;
    assert_eq!(turn.delivered.len(), 2);
    // Of the second both captures are owed, and it still holds the rest; of the third everything is.
    assert_eq!(engine.show(unpaid).await.remaining.0, 150);
    assert_eq!(engine.send(unpaid.consume_capture(0)).await.code(), Code::NotOpen);
    assert_eq!(engine.send(unpaid.consume_capture(1)).await.code(), Code::NotOpen);
    assert_eq!(engine.show(held).await.remaining.0, 0);
    assert_eq!(engine.free().await, COLLATERAL - 370);
}

#[tokio::test]
async fn a_watcher_that_is_killed_anywhere_goes_on_and_the_engine_acts_once() {
    let engine = Engine::start(rules()).await;
    let chain = Scripted::new();
    let whole = tempfile::tempdir().unwrap();
    let locks = [engine.lock(100, &[100]).await, engine.lock(130, &[60, 40]).await];
    let watches = [watch(locks[0], "alice"), Watch { owes_held: true, ..watch(locks[1], "bob") }];
    let mut watcher = open(whole.path(), &chain, &engine);
    watcher.turn().await.unwrap();
    for watch in &watches {
        watcher.watch(watch.clone()).unwrap().unwrap();
    }
    settle_down(&mut watcher).await;
    chain.mine(&[("alice", 100), ("bob", 30)]);
    // So far that whoever has forgotten where to read on does not see the payments any more.
    chain.mine_empty(60);
    settle_down(&mut watcher).await;
    drop(watcher);
    let free = engine.free().await;
    assert_eq!(free, COLLATERAL - 130);

    // Every prefix of the journal is what a kill may have left.
    let journal = std::fs::read_to_string(whole.path().join("journal")).unwrap();
    let lines: Vec<&str> = journal.split_inclusive('\n').collect();
    assert!(lines.len() > 8, "watches, progress, decisions, attempts, deliveries");
    for kept in 0..=lines.len() {
        let directory = tempfile::tempdir().unwrap();
        let mut text = lines[..kept].concat();
        // Half of the next line was on its way.
        text.push_str(lines.get(kept).map_or("", |line| &line[..line.len() / 2]));
        std::fs::write(directory.path().join("journal"), text).unwrap();
        let is_told = |what: &str, watch: &Watch| {
            let mut told = lines[..kept].iter();
            told.any(|line| line.contains(what) && line.contains(&watch.key.lock.to_string()))
        };
        let is_watched = watches.iter().all(|watch| is_told("{\"watch\"", watch));
        let is_delivered = watches.iter().any(|watch| is_told("delivered", watch));
        // The engine has acted on all of it; or, as long as nothing says otherwise, on nothing.
        let other = if is_watched && !is_delivered { Some(Engine::start(rules()).await) } else { None };
        if let Some(other) = &other {
            other.lock_as(locks[0], 100, &[100]).await;
            other.lock_as(locks[1], 130, &[60, 40]).await;
        }
        for engine in other.iter().chain(std::iter::once(&engine)) {
            let own = tempfile::tempdir().unwrap();
            std::fs::copy(directory.path().join("journal"), own.path().join("journal")).unwrap();
            let mut again = open(own.path(), &chain, engine);
            for watch in &watches {
                // Whoever asked for it and got no answer asks again; one that is delivered is not wanted any more.
                if !is_watched && !is_told("{\"watch\"", watch) {
                    again.watch(watch.clone()).unwrap().unwrap();
                }
            }
            settle_down(&mut again).await;
            assert_eq!(engine.free().await, free, "after {kept} lines");
            assert_eq!(again.open_watches(), 0);
            if is_watched {
                assert_eq!(engine.show(locks[0]).await.end(), End::Settled, "after {kept} lines");
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_stalls_lies_or_disagrees_decides_nothing() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let other = Scripted::new();
    let directory = tempfile::tempdir().unwrap();
    let config = Config { directory: directory.path().to_owned(), asset: ASSET, from_block: None };
    let pair = SecondOpinion::new(chain.clone(), other.clone());
    let mut watcher = Watcher::open(config, pair, engine.settler.clone()).unwrap();
    let lock = engine.lock(100, &[100]).await;
    watcher.watch(watch(lock, "alice")).unwrap().unwrap();
    watcher.turn().await.unwrap();
    // One says that it was paid.
    chain.mine_empty(2);
    other.mine_empty(2);
    chain.mine(&[("alice", 100)]);
    other.mine(&[]);
    chain.mine_empty(30);
    other.mine_empty(30);
    for _ in 0..3 {
        let turn = watcher.turn().await.unwrap();
        assert_eq!(turn.trouble, Some(SourceError::Disagreement(3)));
    }
    // One is silent, one is behind: far beyond the deadline nothing is decided.
    for trouble in [SourceError::Unreachable("no".to_owned()), SourceError::Nonsense("x".to_owned())] {
        other.fail(Some(trouble.clone()));
        assert_eq!(watcher.turn().await.unwrap().trouble, Some(trouble));
        other.fail(None);
    }
    other.take_back(31);
    let turn = watcher.turn().await.unwrap();
    assert_eq!((turn.trouble, turn.blocks), (None, 0));
    assert_eq!(engine.show(lock).await.end(), End::Live);
    assert_eq!(watcher.open_watches(), 1);
    // They agree again.
    other.mine(&[("alice", 100)]);
    other.mine_empty(30);
    let turn = watcher.turn().await.unwrap();
    assert_eq!(turn.delivered.len(), 1);
    assert_eq!(engine.show(lock).await.end(), End::Settled);
}

#[tokio::test]
async fn an_address_about_which_two_nodes_disagree_is_not_refused_for_good() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let config = || Config { directory: directory.path().to_owned(), asset: ASSET, from_block: None };
    let lock = engine.lock(100, &[100]).await;
    spool::leave(directory.path(), &watch(lock, "alice")).unwrap();
    let pair = SecondOpinion::new(chain.clone(), Forgetful(chain.clone()));
    let mut watcher = Watcher::open(config(), pair, engine.settler.clone()).unwrap();
    for _ in 0..2 {
        let trouble = SourceError::AccountDisagreement("alice".to_owned());
        assert_eq!(watcher.turn().await.unwrap().trouble, Some(trouble));
        assert_eq!(watcher.open_watches(), 0);
    }
    drop(watcher);
    let pair = SecondOpinion::new(chain.clone(), chain.clone());
    let mut watcher = Watcher::open(config(), pair, engine.settler.clone()).unwrap();
    assert_eq!(watcher.turn().await.unwrap().trouble, None);
    assert_eq!(watcher.open_watches(), 1, "it has waited in the spool");
}

#[tokio::test]
async fn a_wrong_chain_is_not_read() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let wrong = SourceError::OtherChain { expected: "1".to_owned(), found: "5".to_owned() };
    chain.fail(Some(wrong.clone()));
    let mut watcher = open(directory.path(), &chain, &engine);
    assert_eq!(watcher.turn().await.unwrap().trouble, Some(wrong));
}

#[tokio::test]
async fn reorganizations_reach_the_engine_only_once_they_are_over() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let mut watcher = open(directory.path(), &chain, &engine);
    let (alice, bob) = (engine.lock(100, &[100]).await, engine.lock(100, &[100]).await);
    watcher.watch(watch(alice, "alice")).unwrap().unwrap();
    watcher.watch(watch(bob, "bob")).unwrap().unwrap();
    settle_down(&mut watcher).await;
    chain.mine_empty(3);
    chain.mine(&[("alice", 100)]);
    chain.mine_empty(1);
    settle_down(&mut watcher).await;
    chain.take_back(2);
    for _ in 0..3 {
        chain.mine_on("other", &[]);
    }
    let turn = settle_down(&mut watcher).await;
    assert!(turn.events.iter().all(|event| matches!(event, Event::TookBack { .. })));
    assert_eq!(engine.show(alice).await.end(), End::Live);

    chain.mine(&[("bob", 100)]);
    chain.mine_empty(2);
    settle_down(&mut watcher).await;
    assert_eq!(engine.show(bob).await.end(), End::Settled);
    // Deeper than the confirmations: what was settled stays settled, and somebody is told.
    chain.take_back(3);
    for _ in 0..5 {
        chain.mine_on("third", &[]);
    }
    let turn = settle_down(&mut watcher).await;
    let undone = Event::Undone { key: watch(bob, "bob").key, verdict: Verdict::Settle };
    assert!(turn.events.contains(&undone), "{:?}", turn.events);
}

#[tokio::test]
async fn a_chain_that_takes_back_what_was_long_confirmed_stops_the_watcher() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let mut watcher = open(directory.path(), &chain, &engine);
    let lock = engine.lock(100, &[100]).await;
    let patient = Watch { deadline_s: time_of(1_000), ..watch(lock, "alice") };
    watcher.watch(patient).unwrap().unwrap();
    settle_down(&mut watcher).await;
    chain.mine_empty(80);
    settle_down(&mut watcher).await;
    chain.take_back(60);
    for _ in 0..70 {
        chain.mine_on("other", &[]);
    }
    let halted = async |watcher: &mut Watching| {
        for _ in 0..10 {
            match watcher.turn().await {
                Err(WatcherError::Halt(_)) => return true,
                Ok(_) => {}
                Err(other) => panic!("{other}"),
            }
        }
        false
    };
    assert!(halted(&mut watcher).await);
    drop(watcher);
    let mut again = open(directory.path(), &chain, &engine);
    assert!(halted(&mut again).await, "a restart alone changes nothing");
    drop(again);
    let config = Config { directory: directory.path().to_owned(), asset: ASSET, from_block: Some(15) };
    let mut told = Watcher::open(config, chain.clone(), engine.settler.clone()).unwrap();
    chain.mine(&[("alice", 100)]);
    chain.mine_empty(2);
    settle_down(&mut told).await;
    assert_eq!(engine.show(lock).await.end(), End::Settled);
}

#[tokio::test]
async fn what_others_did_meanwhile_is_as_good() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let mut watcher = open(directory.path(), &chain, &engine);
    let settled = engine.lock(100, &[100]).await;
    let refunded = engine.lock(100, &[60, 40]).await;
    let unknown = LockRef::new(engine.partition, engine.shop.new_id());
    for (lock, to) in [(settled, "alice"), (refunded, "bob"), (unknown, "carol")] {
        watcher.watch(watch(lock, to)).unwrap().unwrap();
    }
    assert_eq!(engine.send(settled.settle()).await.code(), Code::Approved);
    assert_eq!(engine.send(refunded.reverse(0)).await.code(), Code::Approved);
    watcher.turn().await.unwrap();
    chain.mine(&[("alice", 100)]);
    chain.mine_empty(30);
    // The lock that nobody knows is reported, and given up in the turn after the pause.
    let turn = watcher.turn().await.unwrap();
    assert_eq!((turn.delivered.len(), turn.waiting), (2, 1));
    assert_eq!(engine.send(refunded.consume_capture(1)).await.code(), Code::NotOpen);
    assert_eq!(engine.show(settled).await.end(), End::Settled);
}

#[tokio::test]
async fn watches_are_left_in_the_spool_by_others() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let lock = engine.lock(100, &[100]).await;
    let good = watch(lock, "alice");
    spool::leave(directory.path(), &good).unwrap();
    spool::leave(directory.path(), &good).unwrap();
    let mut watcher = open(directory.path(), &chain, &engine);
    watcher.turn().await.unwrap();
    assert_eq!(watcher.open_watches(), 1);
    spool::leave(directory.path(), &good).unwrap();
    let other_key = WatchKey { lock: surety_protocol::Id(5), ..good.key };
    spool::leave(directory.path(), &Watch { key: other_key, ..good.clone() }).unwrap();
    let other_asset = WatchKey { lock: surety_protocol::Id(6), ..good.key };
    let strange =
        Watch { key: other_asset, asset: surety_protocol::AssetId(1), to: account("bob"), ..good.clone() };
    spool::leave(directory.path(), &strange).unwrap();
    std::fs::write(directory.path().join("spool/nonsense"), "{").unwrap();
    watcher.turn().await.unwrap();
    assert_eq!(watcher.open_watches(), 1);
    let count = |name: &str| std::fs::read_dir(directory.path().join(name)).unwrap().count();
    assert_eq!((count("spool"), count("refused")), (0, 3), "same address, other asset, no watch");
    // An address that the chain does not have is refused; as long as the node cannot be asked, nothing is.
    let far = WatchKey { lock: surety_protocol::Id(7), ..good.key };
    spool::leave(directory.path(), &Watch { key: far, to: account("bob2"), ..good.clone() }).unwrap();
    chain.fail(Some(SourceError::Unreachable("no".to_owned())));
    watcher.turn().await.unwrap();
    assert_eq!((count("spool"), count("refused")), (1, 3));
    chain.fail(None);
    watcher.turn().await.unwrap();
    assert_eq!((count("spool"), count("refused")), (0, 4));
    drop(watcher);
    assert_eq!(open(directory.path(), &chain, &engine).open_watches(), 1);
}

#[tokio::test]
async fn what_was_paid_long_before_the_first_start_is_found_also_after_a_kill() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let lock = engine.lock(100, &[100]).await;
    let left = Watch { deadline_s: time_of(960), ..watch(lock, "alice") };
    spool::leave(directory.path(), &left).unwrap();
    let file = std::fs::read_dir(directory.path().join("spool")).unwrap().next().unwrap().unwrap().path();
    let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time_of(900));
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(moment).unwrap();
    // Left again: it is as old as it was.
    spool::leave(directory.path(), &left).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), moment);
    chain.mine_empty(904);
    chain.mine(&[("alice", 100)]);
    chain.mine_empty(95);
    let mut first = open(directory.path(), &chain, &engine);
    first.turn().await.unwrap();
    assert_eq!(first.open_watches(), 1);
    drop(first);
    let mut watcher = open(directory.path(), &chain, &engine);
    let all = settle_down(&mut watcher).await;
    assert_eq!(all.delivered, [left.key]);
    assert_eq!(engine.show(lock).await.end(), End::Settled);
}

#[tokio::test]
async fn nothing_begins_with_a_node_of_another_chain() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let lock = engine.lock(100, &[100]).await;
    spool::leave(directory.path(), &watch(lock, "alice")).unwrap();
    let elsewhere = Scripted::new();
    elsewhere.mine_empty(100);
    let config = Config { directory: directory.path().to_owned(), asset: ASSET, from_block: None };
    let mut astray = Watcher::open(config, Elsewhere(elsewhere), engine.settler.clone()).unwrap();
    let turn = astray.turn().await.unwrap();
    assert!(matches!(turn.trouble, Some(SourceError::OtherChain { .. })), "{turn:?}");
    assert_eq!((turn.blocks, astray.open_watches()), (0, 0));
    drop(astray);
    // The right node is behind the other one's blocks, and the watch is still there to be taken.
    chain.mine(&[("alice", 100)]);
    chain.mine_empty(3);
    let mut watcher = open(directory.path(), &chain, &engine);
    let all = settle_down(&mut watcher).await;
    assert_eq!(all.delivered.len(), 1);
    assert_eq!(engine.show(lock).await.end(), End::Settled);
}

#[tokio::test]
async fn an_engine_that_refuses_is_asked_again() {
    let (engine, chain) = (Engine::start(rules()).await, Scripted::new());
    let directory = tempfile::tempdir().unwrap();
    let lock = engine.lock(100, &[100]).await;
    // A partition that the engine does not have, and a client without the right.
    let nowhere = LockRef::new(PartitionHandle::new(ShardId(0), 77), lock.id);
    let config = Config { directory: directory.path().to_owned(), asset: ASSET, from_block: None };
    let mut watcher = Watcher::open(config, chain.clone(), engine.shop.clone()).unwrap();
    watcher.watch(watch(nowhere, "alice")).unwrap().unwrap();
    let foreign = WatchKey { tenant: TenantId(5), ..watch(lock, "bob").key };
    watcher.watch(Watch { key: foreign, ..watch(lock, "bob") }).unwrap().unwrap();
    watcher.turn().await.unwrap();
    chain.mine(&[("alice", 100), ("bob", 100)]);
    chain.mine_empty(2);
    let turn = watcher.turn().await.unwrap();
    assert_eq!((turn.delivered.len(), turn.waiting), (0, 2));
    assert_eq!(engine.show(lock).await.end(), End::Live);
}
