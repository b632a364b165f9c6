//! What chains, nodes, keys and other people do to a settler, and what it does then.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod world;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use alloy_primitives::{Address, B256, Bytes, U256};
use chain::bindings::Manager;
use chain::{At, Backend, BackendError, DigestSigner, LoggedEvent, Tag, Terms, Transaction};
use settlement::life::{Action, Alarm, Halt, Refusal};
use settler::{Config, LOG_FILE, Notice, Report, Settler, SettlerError};
use world::{ALICE, Liar, MERCHANT_KEY, OWNER, POSTER, STRANGER, TOKENS, World, key, on_chain, owed};

/// Directories whose names were made durable, in order.
static SYNCED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Hears of them.
struct Heard;

impl tracing::Subscriber for Heard {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "settler::durable"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if field.name() == "directory" {
                SYNCED.lock().unwrap().push(format!("{value:?}").into());
            }
        });
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// A world with collateral and a consumed payment that is not settled.
async fn owing() -> (World, Settler) {
    owing_with(Terms { claim_delay: 60, dispute_time: 120, ..Terms::default() }).await
}

async fn owing_with(terms: Terms) -> (World, Settler) {
    let mut world = World::with(terms).await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    world.settle_all(&mut settler).await;
    let lock = world.lock(300 * TOKENS).await;
    world.consume(lock, 120 * TOKENS).await;
    world.read_all(&mut settler).await;
    (world, settler)
}

/// Turns without blocks, until it does something of a kind.
async fn turn_until(world: &mut World, settler: &mut Settler, is_it: impl Fn(&Action) -> bool) -> Action {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < world::PATIENCE, "it never does: {settler:?}");
        let report = settler.turn(&mut world.chain).await.unwrap();
        if is_it(&report.action) {
            return report.action;
        }
        settler.wait(std::time::Duration::from_millis(20)).await;
    }
}

async fn finish(mut world: World, mut settler: Settler) {
    world.settle_all(&mut settler).await;
    assert_eq!((on_chain(&settler), owed(&settler)), (880 * TOKENS, 0));
    let batch = settler.progress().0;
    world.claim(batch);
    assert_eq!(world.purse(MERCHANT_KEY), 120 * TOKENS);
}

fn halts(report: &Report, halt: Halt) -> bool {
    report.notices.contains(&Notice::Batch(Alarm::Halted(halt)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_transaction_is_sent_again() {
    let (mut world, mut settler) = owing().await;
    let Action::Broadcast { hash } =
        turn_until(&mut world, &mut settler, |action| matches!(action, Action::Broadcast { .. })).await
    else {
        panic!()
    };
    assert!(world.chain.lose(B256::from(hash)));
    let again =
        turn_until(&mut world, &mut settler, |action| matches!(action, Action::Broadcast { .. })).await;
    assert_eq!(again, Action::Broadcast { hash }, "the same bytes");
    finish(world, settler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_fee_spike_is_outbid() {
    let (mut world, mut settler) = owing().await;
    turn_until(&mut world, &mut settler, |action| matches!(action, Action::Broadcast { .. })).await;
    let mut replaced = 0;
    for _ in 0..12 {
        world.chain.set_base_fee(40_000_000_000);
        world.chain.mine_after(12);
        let report = settler.turn(&mut world.chain).await.unwrap();
        replaced += usize::from(matches!(report.action, Action::Sign { .. }));
    }
    assert!(replaced > 0, "what blocks do not take is replaced");
    finish(world, settler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_underpriced_transaction_is_outbid() {
    let (mut world, mut settler) = owing().await;
    // Somebody with the same key has a dearer one in the pool.
    let transaction = Transaction {
        chain_id: 31337,
        nonce: world.chain.nonce(key(POSTER).address(), At::Tag(Tag::Latest)).unwrap(),
        tip: 5_000_000_000,
        cap: 60_000_000_000,
        gas_limit: 21_000,
        to: alloy_primitives::TxKind::Call(Address::ZERO),
        value: U256::ZERO,
        input: Bytes::new(),
    };
    let signed = transaction.sign(&key(POSTER)).unwrap();
    world.chain.send(&signed.raw).unwrap();
    let Action::Sign { fees, .. } =
        turn_until(&mut world, &mut settler, |action| matches!(action, Action::Sign { .. })).await
    else {
        panic!()
    };
    turn_until(&mut world, &mut settler, |action| matches!(action, Action::Broadcast { .. })).await;
    let Action::Sign { fees: dearer, .. } =
        turn_until(&mut world, &mut settler, |action| matches!(action, Action::Sign { .. })).await
    else {
        panic!()
    };
    assert!(dearer.cap > fees.cap && dearer.tip > fees.tip);
    // The other one lands first, and takes the nonce; then the batch gets the next one.
    finish(world, settler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reorg_above_finality_is_waited_out() {
    let (mut world, mut settler) = owing().await;
    turn_until(&mut world, &mut settler, |action| matches!(action, Action::Broadcast { .. })).await;
    let batches = world.batches_on_chain();
    world.chain.mine_after(12);
    world.chain.mine_after(12);
    assert_eq!(world.batches_on_chain(), batches + 1);
    settler.turn(&mut world.chain).await.unwrap();
    world.chain.reorg_and_lose(2).unwrap();
    assert_eq!(world.batches_on_chain(), batches);
    finish(world, settler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reorg_below_finality_halts_for_good() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    let before = world.chain.clone();
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    world.settle_all(&mut settler).await;
    let height = world.chain.block(Tag::Latest).unwrap().unwrap().number;
    world.chain = before;
    // Another branch, as high as the one that was final.
    while world.chain.block(Tag::Latest).unwrap().unwrap().number < height + 5 {
        world.chain.mine_after(12);
    }
    let report = settler.turn(&mut world.chain).await.unwrap();
    assert_eq!(report.action, Action::Halt(Halt::FinalityBroken));
    drop(settler);
    // A halt outlives the process.
    let mut settler = world.settler().await;
    let report = settler.turn(&mut world.chain).await.unwrap();
    assert_eq!(report.action, Action::Wait);
    assert!(halts(&report, Halt::FinalityBroken), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_has_one_settler() {
    let world = World::new().await;
    let _settler = world.settler().await;
    assert!(matches!(world.try_settler(world.config()).await, Err(SettlerError::Lock(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlers_directory_is_durable_before_what_is_in_it() {
    tracing::subscriber::set_global_default(Heard).unwrap();
    let world = World::new().await;
    let own = world.own.path();
    let config = Config { directory: own.join("of/its/own"), ..world.config() };
    let before_it = || {
        let mut synced = std::mem::take(&mut *SYNCED.lock().unwrap());
        synced.retain(|path| path.starts_with(own));
        let first = synced.iter().position(|path| path.ends_with("own")).unwrap();
        synced[..first].to_vec()
    };
    let settler = world.try_settler(config.clone()).await.unwrap();
    assert_eq!(before_it(), [own.to_owned(), own.join("of"), own.join("of/its")]);
    drop(settler);
    // It may have been killed before that was done.
    world.try_settler(config).await.unwrap();
    assert_eq!(before_it(), [own.join("of/its")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_posters_stop_at_each_other() {
    let (mut world, mut settler) = owing().await;
    // Another settler of the same engine with the same key, from a directory of its own.
    let elsewhere = tempfile::tempdir().unwrap();
    let config = Config { directory: elsewhere.path().to_owned(), ..world.config() };
    let mut other = world.try_settler(config).await.unwrap();
    // The contract has batches that the other one has not sealed.
    let report = other.turn(&mut world.chain).await.unwrap();
    assert_eq!(report.action, Action::Halt(Halt::UnknownHead));
    world.settle_all(&mut settler).await;
    assert_eq!(on_chain(&settler), 880 * TOKENS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_the_log_halts_at_the_newer_root() {
    let (mut world, settler) = owing().await;
    drop(settler);
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(world.own.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let mut settler = world.settler().await;
    world.settle_all(&mut settler).await;
    let config = Config { directory: copy.path().to_owned(), ..world.config() };
    let mut old = world.try_settler(config).await.unwrap();
    let report = old.turn(&mut world.chain).await.unwrap();
    assert_eq!(report.action, Action::Halt(Halt::UnknownHead));
    assert_eq!(world.batches_on_chain(), settler.progress().0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_batch_halts() {
    let (mut world, mut settler) = owing().await;
    let info = world.ask(Manager::headInfoCall {});
    let batch = chain::bindings::Batch {
        seq: info.seq.to::<u64>() + 1,
        lsnTo: info.lsn.to::<u64>() + 1,
        prevHead: info.head,
        sumCredit: info.sumCredit.to(),
        ..chain::bindings::Batch::default()
    };
    world.manage(POSTER, Manager::commitBatchCall { batch });
    let is_halted =
        |_: &World, _: &Settler, report: &Report| report.action == Action::Halt(Halt::UnknownHead);
    world.settle_until(&mut settler, is_halted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_place_or_key_is_noticed_before_anything_is_done() {
    let mut world = World::new().await;
    let place = world.place;
    for wrong in [
        settler::Place { chain_id: 1, ..place },
        settler::Place { code_hash: B256::repeat_byte(1), ..place },
        settler::Place { manager: world.at.amp, ..place },
    ] {
        let elsewhere = tempfile::tempdir().unwrap();
        let config = Config { directory: elsewhere.path().to_owned(), place: wrong, ..world.config() };
        let mut settler = world.try_settler(config).await.unwrap();
        assert!(matches!(settler.check(&world.chain), Err(SettlerError::WrongChain)), "{wrong:?}");
        let report = settler.turn(&mut world.chain).await.unwrap();
        assert_eq!(report.action, Action::Halt(Halt::WrongChain), "{wrong:?}");
    }
    // A directory is of one contract for ever.
    drop(world.settler().await);
    let moved = settler::Place { manager: world.at.amp, ..place };
    let log = world.own.path().join(LOG_FILE);
    let torn = [std::fs::read(&log).unwrap(), b"SLE1".to_vec()].concat();
    std::fs::write(&log, &torn).unwrap();
    let error = world.try_settler(Config { place: moved, ..world.config() }).await.unwrap_err();
    assert!(matches!(error, SettlerError::Foreign), "{error}");
    assert_eq!(std::fs::read(&log).unwrap(), torn, "nothing was done to it");
    let settler = world.settler().await;
    let poster = Manager::setPosterCall { poster_: key(STRANGER).address(), creditPerHour_: 1_000_000 };
    world.manage(OWNER, poster);
    assert!(matches!(settler.check(&world.chain), Err(SettlerError::NotPoster)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beyond_the_payout_limit_waits_for_the_next_hour() {
    // 100 tokens an hour, half of it at once.
    let terms = Terms { claim_delay: 60, credit_per_hour: 100_000_000_000, ..Terms::default() };
    let (mut world, mut settler) = owing_with(terms).await;
    for _ in 0..20 {
        settler.turn(&mut world.chain).await.unwrap();
        settler.wait(std::time::Duration::from_millis(10)).await;
        world.chain.mine_after(12);
    }
    let credited = world.ask(Manager::headInfoCall {}).sumCredit.to::<u128>();
    assert!(credited > 0 && credited < 60 * TOKENS, "{credited}");
    assert!(settler.sealer().netting().unpublished() > 0);
    let mut hours = 0;
    while settler.sealer().netting().unpublished() > 0 {
        hours += 1;
        assert!(hours < 6);
        // Nothing happens meanwhile: what was left over is a reason for a batch by itself.
        world.chain.mine_after(3600);
        for _ in 0..14 {
            settler.turn(&mut world.chain).await.unwrap();
            settler.wait(std::time::Duration::from_millis(10)).await;
            world.chain.mine_after(12);
        }
    }
    finish(world, settler).await;
}

/// A batch has to read further than the one before it, and until that one is booked the engine may have nothing to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_over_is_not_sealed_before_the_stream_goes_on() {
    let terms = Terms { claim_delay: 60, credit_per_hour: 100_000_000_000, ..Terms::default() };
    let (mut world, mut settler) = owing_with(terms).await;
    turn_until(&mut world, &mut settler, |action| matches!(action, Action::Broadcast { .. })).await;
    // It lands, and an hour later there is room again, but it is not final.
    world.chain.mine_after(12);
    world.chain.mine_after(3600);
    assert!(settler.sealer().netting().publishable() > 0);
    let mut waited = 0;
    for _ in 0..20 {
        let sealed = settler.progress().0;
        let report = settler.turn(&mut world.chain).await.unwrap();
        waited += usize::from(report.action == Action::Wait);
        let is_seal = matches!(report.action, Action::Seal { .. });
        assert_eq!(settler.progress().0 > sealed, is_seal, "{settler:?}");
    }
    assert!(waited > 0, "{settler:?}");
    finish(world, settler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_is_held_cleared_away_and_sealed_again() {
    let (mut world, mut settler) = owing().await;
    turn_until(&mut world, &mut settler, |action| matches!(action, Action::Broadcast { .. })).await;
    // Before it lands the owner lowers the limit below what it credits.
    let low = Manager::setPosterCall { poster_: key(POSTER).address(), creditPerHour_: 10_000_000_000 };
    // The owner's transaction pays more, so that the block takes it first.
    let raw = owner_call(&world, low);
    world.chain.send(&raw).unwrap();
    world.chain.mine_after(12);
    let mut seen = Vec::new();
    for _ in 0..40 {
        let report = settler.turn(&mut world.chain).await.unwrap();
        seen.push(report.action);
        world.chain.mine_after(12);
        if matches!(report.action, Action::Reseal { .. }) {
            break;
        }
    }
    assert!(
        seen.iter().any(|action| matches!(action, Action::Hold { refusal: Refusal::PayoutLimit, .. })),
        "{seen:?}"
    );
    assert!(seen.iter().any(|action| matches!(action, Action::Reseal { .. })), "{seen:?}");
    let high = Manager::setPosterCall { poster_: key(POSTER).address(), creditPerHour_: 1_000_000_000_000 };
    let raw = owner_call(&world, high);
    world.chain.send(&raw).unwrap();
    world.chain.mine_after(12);
    finish(world, settler).await;
}

fn owner_call(world: &World, call: impl alloy_sol_types::SolCall) -> Bytes {
    let transaction = Transaction {
        chain_id: 31337,
        nonce: world.chain.nonce(key(OWNER).address(), At::Tag(Tag::Latest)).unwrap(),
        tip: 50_000_000_000,
        cap: 200_000_000_000,
        gas_limit: 200_000,
        to: alloy_primitives::TxKind::Call(world.at.manager),
        value: U256::ZERO,
        input: call.abi_encode().into(),
    };
    transaction.sign(&key(OWNER)).unwrap().raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_purse_is_told_and_waited_for() {
    let (mut world, mut settler) = owing().await;
    let poor = Transaction {
        chain_id: 31337,
        nonce: world.chain.nonce(key(POSTER).address(), At::Tag(Tag::Latest)).unwrap(),
        tip: 1_000_000_000,
        cap: 2_000_000_000,
        gas_limit: 21_000,
        to: alloy_primitives::TxKind::Call(Address::repeat_byte(1)),
        value: world.chain.balance(key(POSTER).address(), At::Tag(Tag::Latest)).unwrap()
            - U256::from(21_000_u128 * 2_000_000_000),
        input: Bytes::new(),
    };
    let raw = poor.sign(&key(POSTER)).unwrap().raw;
    world.chain.send(&raw).unwrap();
    world.chain.mine_after(12);
    let is_told = |_: &World, _: &Settler, report: &Report| {
        report.notices.contains(&Notice::Batch(Alarm::InsufficientFunds))
    };
    world.settle_until(&mut settler, is_told).await.unwrap();
    world.chain.fund(key(POSTER).address(), U256::from(10 * TOKENS));
    finish(world, settler).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lies_about_supplies_credits_nothing() {
    let supplied = <Manager::Supplied as alloy_sol_types::SolEvent>::SIGNATURE_HASH;
    assert_ne!(supplied, B256::ZERO);
    fn is_supply(event: &LoggedEvent) -> bool {
        event.topics[0] == <Manager::Supplied as alloy_sol_types::SolEvent>::SIGNATURE_HASH
    }
    let lies: [fn(&mut Vec<LoggedEvent>); 4] = [
        // Left out.
        |events| events.retain(|event| !is_supply(event)),
        // Told twice.
        |events| {
            let again: Vec<_> = events.iter().filter(|event| is_supply(event)).cloned().collect();
            events.extend(again);
        },
        // More than there was.
        |events| {
            for event in events.iter_mut().filter(|event| is_supply(event)) {
                let mut data = event.data.to_vec();
                data[31] ^= 1;
                event.data = data.into();
            }
        },
        // Of another contract.
        |events| events.iter_mut().for_each(|event| event.address = Address::repeat_byte(3)),
    ];
    for (number, alter) in lies.into_iter().enumerate() {
        let mut world = World::new().await;
        let mut settler = world.settler().await;
        world.supply(ALICE, 1, 1000 * TOKENS);
        let mut was_told = false;
        for _ in 0..12 {
            world.chain.mine_after(12);
            let mut liar = Liar { chain: &mut world.chain, alter, is_deaf: false, swallows: 0 };
            match settler.turn(&mut liar).await {
                Ok(report) => {
                    was_told |=
                        report.notices.iter().any(|told| matches!(told, Notice::ChainDisagrees { .. }));
                }
                Err(SettlerError::Chain(BackendError::Nonsense(_))) => was_told = true,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(was_told, "lie {number}");
        assert_eq!(on_chain(&settler), 0, "lie {number}");
        world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stalls_is_asked_again() {
    let (mut world, mut settler) = owing().await;
    let mut deaf = Liar { chain: &mut world.chain, alter: |_| {}, is_deaf: true, swallows: 0 };
    let error = settler.turn(&mut deaf).await.unwrap_err();
    assert!(error.may_pass(), "{error}");
    finish(world, settler).await;
}
