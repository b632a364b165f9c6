//! What is netted of a stream is what the ledger that wrote it has: random requests, batches at random moments, restarts from
//! snapshots, any interleaving of shards.
#![allow(clippy::unwrap_used, clippy::large_enum_variant, reason = "a test stops at what it did not expect")]

#[path = "../../ledger/tests/world/mod.rs"]
mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use settlement::*;
use surety_protocol::*;
use world::*;

const DOMAIN: Domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };
const CONFIG: NettingConfig =
    NettingConfig { shards: 1, salt_key: [3; 32], claim_span: Time::from_secs(1 << 30) };
const PAYEE: Address = Address([5; 20]);

/// Reads what the sealer has not read yet.
fn follow(sealer: &mut Sealer, shard: ShardId, log: &[Record]) {
    let from = sealer.netting().positions().0[usize::from(shard.0)].0;
    for (seq, record) in (from + 1..).zip(&log[usize::try_from(from).unwrap()..]) {
        sealer.read(shard, Seq(seq), record).unwrap();
    }
}

/// Holds a statement of each supplier against what the ledger says of it.
fn compare_statements(world: &World, sealer: &Sealer) {
    for who in [SUPPLIER, Address([1; 20]), Address([2; 20]), Address([3; 20])] {
        let mut statement = Statement::new(1, who);
        let mut last = BTreeMap::new();
        for (seq, record) in (1..).zip(&world.log) {
            if let Some(line) = statement.read(SHARD, Seq(seq), record).unwrap() {
                last.insert(line.partition, line.stake);
            }
        }
        let sums: BTreeMap<_, _> = statement.sums().collect();
        for totals in world.ledger.partitions() {
            let known = world.ledger.suppliers(totals.handle).into_iter().find(|state| state.supplier == who);
            let known = known.map_or((0, 0, 0), |state| (state.units, state.queued, state.value));
            let sum = sums.get(&totals.handle).copied().unwrap_or_default();
            assert_eq!((sum.stake.units, sum.stake.queued, sum.stake.value), known, "{who:?}");
            assert_eq!(last.get(&totals.handle).copied().unwrap_or_default(), sum.stake, "the last line");
            assert!(sum.adds_up(), "{sum:?}");
            let leaf = sealer.trees().prove_supplier(sum.onchain, who).map(|proof| proof.leaf);
            let leaf = leaf.map_or((0, 0), |leaf| (leaf.units, leaf.paid_out));
            assert_eq!(leaf, (sum.stake.units, sum.stake.paid_out));
        }
    }
}

/// Follows published batches, as anybody can.
#[derive(Default)]
struct Follower {
    trees: Trees,
    head: Option<Hash>,
    finals: BTreeMap<PartitionHandle, u128>,
}

impl Follower {
    fn follow(&mut self, sealed: &Sealed) {
        let data = BatchData::from_bytes(&sealed.data).unwrap();
        let batch = &sealed.batch;
        assert_eq!(batch.prev_head, self.head.unwrap_or(DOMAIN.separator()));
        assert_eq!(batch.data_hash, keccak(&[&sealed.data]));
        self.trees.update(&data);
        let roots = self.trees.roots(&data.positions);
        assert_eq!(roots.state(), batch.state_root);
        let sums = roots.partitions.sums;
        assert_eq!((sums.locked, sums.debit), (batch.sum_locked, batch.sum_credit + batch.guaranteed_ack));
        let credits: u128 = self.trees.payees().iter().map(|leaf| leaf.credit).sum();
        assert_eq!(credits, batch.sum_credit);
        for leaf in self.trees.partitions() {
            let proof = self.trees.prove_partition(leaf.partition).unwrap();
            let node = SumNode { hash: proof.leaf.hash(), sums: proof.leaf.sums() };
            assert_eq!(sum_root(node, proof.index, &proof.path), Some(roots.partitions));
        }
        for leaf in self.trees.payees() {
            let proof = self.trees.prove_payee(leaf.partition, leaf.payee).unwrap();
            assert_eq!(plain_root(&proof.leaf.hash(), &proof.path), roots.payees);
        }
        for leaf in self.trees.suppliers() {
            let proof = self.trees.prove_supplier(leaf.partition, leaf.supplier).unwrap();
            assert_eq!(plain_root(&proof.leaf.hash(), &proof.path), roots.suppliers);
        }
        for leaf in self.trees.consumed() {
            let proof = self.trees.prove_consumed(leaf.lock).unwrap();
            assert_eq!(plain_root(&proof.leaf.hash(), &proof.path), roots.consumed);
        }
        for (handle, amount) in &sealed.finals {
            *self.finals.entry(*handle).or_default() += amount;
        }
        self.head = Some(batch.head());
    }
}

/// Holds what was netted against the ledger.
fn compare(world: &World, sealer: &Sealer) {
    for totals in world.ledger.partitions() {
        let money = sealer.netting().money(totals.handle).unwrap();
        let sums = world::Sums::from(&totals);
        assert_eq!(
            (money.on_chain, money.deficit, money.free, money.locked, money.owed, money.exposure),
            (sums.on_chain, sums.deficit, sums.free, sums.locked, sums.owed, sums.exposure)
        );
    }
}

fn leaf_of(trees: &Trees, partition: PartitionHandle) -> PartitionLeaf {
    let mut id = [0xcc; 32];
    id[31] = u8::try_from(partition.number()).unwrap();
    trees.prove_partition(id).unwrap().leaf
}

#[derive(Clone, Debug)]
enum Event {
    Ask(Ask),
    Wait(u64),
    Deposit(u8, u128),
    Withdraw(u8, u128),
    Reward(u128),
    Group(Vec<(&'static str, u128, u32)>),
    /// With this payout limit.
    Seal(u128),
    Restart,
    /// The oldest batch that is not booked becomes final.
    Final,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let names = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let flags =
        prop::sample::select(vec![Flags(0), Flags::CERTIFIED, Flags::CERTIFIED, Flags::FINAL, Flags::SALE]);
    let ask = |kinds: Vec<Kind>| (prop::sample::select(kinds), names(), 1..300_u128, flags.clone(), 0..4_u16);
    let kinds = vec![
        Kind::Lock,
        Kind::Lock,
        Kind::Increase,
        Kind::Decrease,
        Kind::Capture,
        Kind::Capture,
        Kind::Release,
        Kind::Reverse,
        Kind::Refund,
        Kind::Settle,
        Kind::Consume,
        Kind::Consume,
        Kind::Advice,
    ];
    let lock = ask(kinds).prop_map(|(kind, name, amount, flags, capture)| {
        let is_lock = kind == Kind::Lock;
        let takes_none = matches!(kind, Kind::Release | Kind::Reverse | Kind::Settle);
        let capture = if capture == 3 { ALL_CAPTURES } else { capture };
        let of_capture = kind == Kind::Consume && capture != ALL_CAPTURES;
        let (name, lock) = if is_lock { (name, "") } else { ("", name) };
        let amount = if takes_none || of_capture { 0 } else { amount };
        let version = if kind == Kind::Increase { 1 } else { 0 };
        Event::Ask(Ask { lock, capture, version, flags, ..ask_of(kind, name, amount) })
    });
    let chain = ask(vec![Kind::GuaranteeCalled, Kind::GuaranteePaid, Kind::GuaranteeDismissed]).prop_map(
        |(kind, name, amount, ..)| {
            let amount = if kind == Kind::GuaranteePaid { amount } else { 0 };
            Event::Ask(guarantee(kind, name, amount))
        },
    );
    let event = prop_oneof![
        12 => lock,
        2 => chain,
        1 => (prop::sample::select(vec![Kind::Deficit, Kind::Cover, Kind::WriteOff]), 1..400_u128)
            .prop_map(|(kind, amount)| Event::Ask(operate(kind, amount))),
        2 => (1..400_000_u64).prop_map(Event::Wait),
        2 => (1..4_u8, 1..500_u128).prop_map(|(who, amount)| Event::Deposit(who, amount)),
        2 => (1..4_u8, 1..500_u128).prop_map(|(who, amount)| Event::Withdraw(who, amount)),
        1 => (1..500_u128).prop_map(Event::Reward),
        1 => prop::collection::vec((names(), 0..100_u128, 0..6_u32), 1..4).prop_map(Event::Group),
        2 => prop::sample::select(vec![0, 50, u128::MAX, u128::MAX]).prop_map(Event::Seal),
        1 => Just(Event::Restart),
        1 => Just(Event::Final),
    ];
    prop::collection::vec(event, 1..80)
}

fn ask_of(kind: Kind, name: &'static str, amount: u128) -> Ask {
    world::ask(kind, name, amount)
}

/// Batches that are sealed and not booked, as a settler would have them.
#[derive(Default)]
struct Booking {
    sealed: Vec<Sealed>,
}

impl Booking {
    fn finalise(&mut self, world: &mut World) {
        if self.sealed.is_empty() {
            return;
        }
        let sealed = self.sealed.remove(0);
        for (handle, amount) in sealed.finals {
            let body = ControlBody { number: sealed.batch.seq, ..ControlBody::default() };
            let id = world.fresh_id();
            let record = Record::new(Kind::BatchFinal, id, handle, Amount(amount), &body);
            let (_, replies) = world.execute(&operator(), vec![record]);
            assert_eq!(replies[0].code(), Code::Approved, "what is booked is owed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn what_is_netted_is_what_the_ledger_has(events in events()) {
        let policy = Policy {
            settle_by: Time::from_secs(300),
            unbonding: Time::from_secs(100),
            edge_unit: Amount(10),
            ..Policy::default()
        };
        let mut world = World::with_policy(&policy);
        world.is_strict = false;
        let mut sealer = Sealer::new(CONFIG, &DOMAIN);
        let mut follower = Follower::default();
        let mut booking = Booking::default();
        for event in events {
            match event {
                Event::Ask(ask) => _ = world.send(&ask),
                Event::Wait(ms) => world.wait(ms),
                Event::Deposit(who, amount) => _ = world.deposit_by(Address([who; 20]), amount),
                Event::Withdraw(who, amount) => {
                    let body = StakeBody { supplier: Address([who; 20]), nonce: u64::try_from(world.next).unwrap(), ..StakeBody::default() };
                    let id = world.fresh_id();
                    let units = Amount(amount * 1_000_000);
                    let record = Record::new(Kind::Withdraw, id, P1, units, &body);
                    world.execute(&operator(), vec![record]);
                }
                Event::Reward(amount) => {
                    let body = StakeBody { nonce: u64::try_from(world.next).unwrap(), ..StakeBody::default() };
                    let record = Record::new(Kind::Reward, world.fresh_id(), P1, Amount(amount), &body);
                    world.execute(&operator(), vec![record]);
                }
                Event::Group(entries) => _ = world.release_group(RELEASE_KEY, &entries),
                Event::Final => booking.finalise(&mut world),
                Event::Restart => {
                    let snapshot = sealer.snapshot();
                    let restored = Sealer::restore(CONFIG, &snapshot).unwrap();
                    prop_assert_eq!(restored.state_hash(), sealer.state_hash());
                    sealer = restored;
                }
                Event::Seal(credit_max) => {
                    follow(&mut sealer, SHARD, &world.log);
                    if let Some(sealed) = sealer.seal(credit_max) {
                        let credited: u128 = sealed.finals.iter().map(|(_, amount)| amount).sum();
                        prop_assert!(credited <= credit_max);
                        follower.follow(&sealed);
                        booking.sealed.push(sealed);
                    }
                }
            }
        }
        world.advance();
        world.checkpoint();
        follow(&mut sealer, SHARD, &world.log);
        compare(&world, &sealer);
        let sealed = sealer.seal(u128::MAX).unwrap();
        follower.follow(&sealed);
        compare_statements(&world, &sealer);
        prop_assert_eq!(sealer.netting().unpublished(), 0);
        // What is owed is what was credited and is not booked yet, for each partition.
        booking.sealed.push(sealed);
        for totals in world.ledger.partitions() {
            let open = booking.sealed.iter().flat_map(|sealed| &sealed.finals);
            let open: u128 = open.filter(|(handle, _)| *handle == totals.handle).map(|(_, amount)| amount).sum();
            prop_assert_eq!(totals.owed, open);
            let leaf = leaf_of(&follower.trees, totals.handle);
            prop_assert_eq!(leaf.locked, totals.held + totals.captured + totals.pending);
            prop_assert_eq!(leaf.units, totals.units);
            let paid = |record: &&Record| {
                let is_paid = record.kind() == Some(Kind::GuaranteePaid) && record.code() == Some(Code::Approved);
                is_paid && record.partition == totals.handle
            };
            let guaranteed: u128 = world.log.iter().filter(paid).map(|record| record.amount.0).sum();
            let credits = follower.trees.payees().iter().filter(|payee| payee.partition == leaf.partition);
            prop_assert_eq!(leaf.debit, credits.map(|payee| payee.credit).sum::<u128>() + guaranteed);
            let of = |leaf: &&SupplierLeaf| leaf.partition[31] == u8::try_from(totals.handle.number()).unwrap();
            let units: u128 = follower.trees.suppliers().iter().filter(of).map(|leaf| leaf.units).sum();
            prop_assert_eq!(units, totals.units);
        }
        // One go from the start gives the same as all the batches and restarts did: the last leaves and the same money.
        let mut whole = Sealer::new(CONFIG, &DOMAIN);
        follow(&mut whole, SHARD, &world.log);
        whole.seal(u128::MAX).unwrap();
        prop_assert_eq!(whole.trees().payees().len(), follower.trees.payees().len());
        for leaf in whole.trees().payees() {
            let other = follower.trees.prove_payee(leaf.partition, leaf.payee).unwrap().leaf;
            prop_assert_eq!(*leaf, other);
        }
        prop_assert_eq!(leaf_of(whole.trees(), P1), leaf_of(&follower.trees, P1));
        prop_assert_eq!(whole.trees().consumed(), follower.trees.consumed());
    }
}

/// A log as a second shard would have written it.
fn elsewhere(log: &[Record]) -> Vec<Record> {
    let moved = |record: &Record| {
        let mut record = *record;
        if record.kind() == Some(Kind::Continuation) {
            return record;
        }
        record.partition = PartitionHandle::new(ShardId(1), record.partition.number());
        if record.kind() == Some(Kind::PartitionCreate) {
            let mut body: PartitionBody = record.body();
            body.onchain[30] = 1;
            record.set_body(&body);
        }
        record
    };
    log.iter().map(moved).collect()
}

fn busy() -> World {
    let mut world = World::new();
    world.send(&lock("a", 300).flag(Flags::CERTIFIED));
    world.send(&capture("a", 100));
    world.send(&consume("a", 0, 0));
    world.send(&lock("b", 200));
    world.send(&consume("b", ALL_CAPTURES, 50));
    world
}

#[test]
fn what_a_merchant_has_let_go_of_is_known_wherever_a_reader_stops() {
    let mut world = World::new();
    world.send(&lock("a", 300).flag(Flags::CERTIFIED));
    world.send(&lock("b", 200).flag(Flags::CERTIFIED));
    world.send(&release("a"));
    world.send(&release("b"));
    let first = Seq(world.log.len() as u64 + 1);
    assert_eq!(world.release_group(RELEASE_KEY, &[("a", 100, 2), ("b", 0, 2)]).code(), Code::Approved);
    let second = Seq(world.log.len() as u64 + 1);
    assert_eq!(world.release_group(RELEASE_KEY, &[("a", 40, 3)]).code(), Code::Approved);
    // A statement that says less than one before it is none.
    world.release_group(RELEASE_KEY, &[("a", 90, 3)]);
    for stop in first.0 - 1..=world.log.len() as u64 {
        let mut sealer = Sealer::new(CONFIG, &DOMAIN);
        follow(&mut sealer, SHARD, &world.log[..usize::try_from(stop).unwrap()]);
        let mut sealer = Sealer::restore(CONFIG, &sealer.snapshot()).unwrap();
        follow(&mut sealer, SHARD, &world.log);
        let mut released = |name| {
            let lock = LockId { tenant: T1, partition: P1, id: world.id(name) };
            sealer.netting().answers(&lock).unwrap().released
        };
        assert_eq!(
            released("a"),
            Some(Released { seq: second, version: 3, still_owed: 40 }),
            "stop at {stop}"
        );
        assert_eq!(released("b"), Some(Released { seq: first, version: 2, still_owed: 0 }), "stop at {stop}");
    }
}

#[test]
fn a_group_of_another_key_lets_nothing_go() {
    let mut world = World::new();
    world.send(&lock("a", 300).flag(Flags::CERTIFIED));
    world.send(&release("a"));
    let genuine = Seq(world.log.len() as u64 + 1);
    assert_eq!(world.release_group(RELEASE_KEY, &[("a", 0, 2)]).code(), Code::Approved);
    // The ledger passes over the locks of others in a group of which it takes something.
    let lock = LockId { tenant: T1, partition: P1, id: world.id("a") };
    let entry =
        ReleaseEntry { lock: lock.id, still_owed: Amount(0), version: u32::MAX, index: 0, path: Vec::new() };
    let group =
        ReleaseGroup { key: Address([1; 20]), root: [1; 32], signature: [2; 65], entries: vec![entry] };
    let id = world.fresh_id();
    let mut records = long::split(Kind::ReleaseGroup, id, P1, MERCHANT.0, &group.to_bytes());
    records[0].tenant = T1;
    records[0].code = Code::Partial as u8;
    let mut sealer = Sealer::new(CONFIG, &DOMAIN);
    follow(&mut sealer, SHARD, &[&world.log[..], &records].concat());
    let released = sealer.netting().answers(&lock).unwrap().released;
    assert_eq!(released, Some(Released { seq: genuine, version: 2, still_owed: 0 }));
}

#[test]
fn a_loss_that_is_booked_twice_is_acknowledged_once() {
    let mut world = World::new();
    let mut book = |reference| {
        let body = ControlBody { reference, ..ControlBody::default() };
        let record = Record::new(Kind::Deficit, world.fresh_id(), P1, Amount(10), &body);
        assert_eq!(world.execute(&operator(), vec![record]).1[0].code(), Code::Approved);
        let mut sealer = Sealer::new(CONFIG, &DOMAIN);
        follow(&mut sealer, SHARD, &world.log);
        let mut restored = Sealer::restore(CONFIG, &sealer.snapshot()).unwrap();
        compare(&world, &restored);
        restored.seal(u128::MAX).unwrap().batch.guaranteed_ack
    };
    assert_eq!([book(7), book(7), book(0), book(8)], [10, 10, 10, 20]);
}

#[test]
fn the_interleaving_of_shards_does_not_matter() {
    let world = busy();
    let logs = [world.log.clone(), elsewhere(&world.log)];
    let config = NettingConfig { shards: 2, ..CONFIG };
    let seal = |order: &[u16]| {
        let mut sealer = Sealer::new(config, &DOMAIN);
        let mut read = [0_usize; 2];
        for shard in order.iter().copied().cycle() {
            let at = &mut read[usize::from(shard)];
            if let Some(record) = logs[usize::from(shard)].get(*at) {
                *at += 1;
                sealer.read(ShardId(shard), Seq(*at as u64), record).unwrap();
            }
            if read == [logs[0].len(), logs[1].len()] {
                return sealer.seal(u128::MAX).unwrap();
            }
        }
        unreachable!("a cycle ends when both are read")
    };
    let first = seal(&[0, 1]);
    assert_eq!(seal(&[1, 0]), first);
    assert_eq!(seal(&[1, 1, 1, 0, 0]), first);
    assert_eq!(first.batch.sum_credit, 2 * 150);
    assert_eq!(first.finals.len(), 2);
}

#[test]
fn a_stream_that_is_none_stops_the_settler() {
    let world = busy();
    let mut sealer = Sealer::new(CONFIG, &DOMAIN);
    let expected = Seq(1);
    let gap = NettingError::OutOfTurn { shard: SHARD, expected, found: Seq(2) };
    assert_eq!(sealer.read(SHARD, Seq(2), &world.log[0]), Err(gap));
    let unknown = NettingError::UnknownShard(ShardId(1));
    assert_eq!(sealer.read(ShardId(1), Seq(1), &world.log[0]), Err(unknown));
    follow(&mut sealer, SHARD, &world.log);
    let again = NettingError::OutOfTurn { shard: SHARD, expected: world.next_seq(), found: Seq(3) };
    assert_eq!(sealer.read(SHARD, Seq(3), &world.log[2]), Err(again));
    // A consumption that nothing held.
    let consumed = world.log.iter().rfind(|record| record.kind() == Some(Kind::Consume)).unwrap();
    let next = world.next_seq();
    let mut huge = *consumed;
    huge.result = Amount(1 << 90);
    let unbalanced = NettingError::Unbalanced(P1, next);
    assert_eq!(sealer.clone().read(SHARD, next, &huge), Err(unbalanced));
    let mut astray = *consumed;
    astray.partition = PartitionHandle(77);
    let unknown = NettingError::UnknownPartition(PartitionHandle(77), next);
    assert_eq!(sealer.clone().read(SHARD, next, &astray), Err(unknown));
    // A second handle for one balance on chain.
    let created = world.log.iter().find(|record| record.kind() == Some(Kind::PartitionCreate)).unwrap();
    let mut twin = *created;
    twin.partition = PartitionHandle(9);
    let shared = NettingError::SharedPartition(PartitionHandle(9));
    assert_eq!(sealer.clone().read(SHARD, next, &twin), Err(shared));
}

/// The merchant moves to another address; certificates of before are for the old one.
fn move_merchant(world: &mut World) {
    let body =
        MerchantBody { merchant: MERCHANT, payee: Address([6; 20]), enabled: 1, ..MerchantBody::default() };
    let id = world.fresh_id();
    let mut record = Record::new(Kind::MerchantSet, id, PartitionHandle(0), Amount::ZERO, &body);
    record.tenant = T1;
    world.execute(&operator(), vec![record]);
}

#[test]
fn what_is_consumed_after_a_downtime_is_paid_to_whom_the_certificate_names() {
    let mut world = World::with_policy(&Policy { settle_by: Time::from_secs(600), ..Policy::default() });
    for name in ["a", "b", "c"] {
        world.send(&lock(name, 300).flag(Flags::CERTIFIED).life(60_000));
        world.send(&capture(name, 70));
    }
    move_merchant(&mut world);
    // Away for weeks: all that has ended meanwhile is written down one after the other, with the time of the return.
    world.wait(40 * 24 * 3_600_000);
    let consumed = world.log.iter().filter(|record| record.kind() == Some(Kind::AutoConsume)).count();
    assert_eq!(consumed, 3);
    let mut sealer = Sealer::new(NettingConfig { claim_span: Time::from_secs(24 * 3600), ..CONFIG }, &DOMAIN);
    for (seq, record) in (1..).zip(&world.log) {
        sealer.read(SHARD, Seq(seq), record).unwrap();
        sealer.seal(u128::MAX).unwrap();
    }
    let credits: Vec<_> = sealer.trees().payees().iter().map(|leaf| (leaf.payee, leaf.credit)).collect();
    assert_eq!(credits, [(PAYEE, 210)]);
    // With the next lock it is known that nothing more of them is to come.
    assert_eq!(sealer.trees().consumed().len(), 3);
    world.send(&lock("d", 10));
    follow(&mut sealer, SHARD, &world.log);
    sealer.seal(u128::MAX).unwrap();
    assert_eq!(sealer.trees().consumed().len(), 0);
}

#[test]
fn a_certificate_states_what_was_approved_and_its_payee_stays() {
    let mut world = World::new();
    let mut sealer = Sealer::new(CONFIG, &DOMAIN);
    let mut stated = Vec::new();
    world.send(&lock("a", 300).flag(Flags::CERTIFIED));
    world.send(&ask_of(Kind::Lock, "plain", 100));
    world.send(&Ask { lock: "a", version: 1, ..ask_of(Kind::Increase, "", 400) });
    move_merchant(&mut world);
    world.send(&consume("a", ALL_CAPTURES, 70));
    world.send(&consume("plain", ALL_CAPTURES, 30));
    for (seq, record) in (1..).zip(&world.log) {
        stated.extend(sealer.read(SHARD, Seq(seq), record).unwrap());
    }
    let brief: Vec<_> = stated.iter().map(|lock| (lock.version, lock.amount, lock.payee)).collect();
    assert_eq!(brief, [(1, 300, PAYEE), (2, 400, PAYEE)]);
    assert!(stated.iter().all(|lock| lock.release_key == RELEASE_KEY && lock.deadline_secs > 0));
    let sealed = sealer.seal(60).unwrap();
    assert_eq!(sealed.finals, [(P1, 60)]);
    // 70 are consumed of the lock and not all of it is credited: nothing is said of it yet.
    assert_eq!(sealer.trees().consumed(), []);
    world.checkpoint();
    follow(&mut sealer, SHARD, &world.log);
    sealer.seal(u128::MAX).unwrap();
    let [consumed] = sealer.trees().consumed() else { panic!("one certified lock") };
    assert_eq!((consumed.amount, consumed.payee), (70, PAYEE));
    let credits: Vec<_> = sealer.trees().payees().iter().map(|leaf| (leaf.payee, leaf.credit)).collect();
    assert_eq!(credits, [(PAYEE, 70), (Address([6; 20]), 30)]);
}

#[test]
fn a_payee_that_is_not_known_yet_is_owed_until_it_is() {
    let mut world = World::new();
    let stranger = MerchantId(99);
    world.send(&Ask { merchant: stranger, ..lock("a", 300).flag(Flags::CERTIFIED) });
    world.send(&consume("a", ALL_CAPTURES, 70));
    let mut sealer = Sealer::new(CONFIG, &DOMAIN);
    follow(&mut sealer, SHARD, &world.log);
    let sealed = sealer.seal(u128::MAX).unwrap();
    assert_eq!((sealed.batch.sum_credit, sealed.batch.sum_locked), (0, 300));
    assert_eq!(sealer.netting().unpublished(), 70);
    world.set_merchant(T1, stranger);
    follow(&mut sealer, SHARD, &world.log);
    assert_eq!((sealer.creditable(50), sealer.creditable(u128::MAX)), (50, 70));
    let sealed = sealer.seal(40).unwrap();
    assert_eq!((sealed.batch.sum_credit, sealed.batch.sum_locked), (40, 260));
    // The rest waits for the stream to go on, and be it with a record that changes nothing.
    assert_eq!((sealer.netting().publishable(), sealer.creditable(u128::MAX)), (30, 0));
    assert_eq!(sealer.seal(u128::MAX), None);
    world.set_merchant(T1, stranger);
    follow(&mut sealer, SHARD, &world.log);
    assert_eq!(sealer.creditable(u128::MAX), 30);
    let sealed = sealer.seal(u128::MAX).unwrap();
    assert_eq!((sealed.batch.sum_credit, sealed.batch.sum_locked), (70, 230));
}

#[test]
fn damaged_data_and_snapshots_are_refused() {
    let world = busy();
    let mut sealer = Sealer::new(CONFIG, &DOMAIN);
    follow(&mut sealer, SHARD, &world.log);
    let data = sealer.seal(u128::MAX).unwrap().data;
    let snapshot = sealer.snapshot();
    for cut in 0..data.len() {
        assert!(BatchData::from_bytes(&data[..cut]).is_err(), "cut at {cut}");
    }
    for cut in 0..snapshot.len() {
        assert!(Sealer::restore(CONFIG, &snapshot[..cut]).is_err(), "cut at {cut}");
    }
    let other = NettingConfig { shards: 2, ..CONFIG };
    assert!(matches!(Sealer::restore(other, &snapshot), Err(SnapshotError::Damaged)));
    // Whatever is in them, they are read or refused.
    for at in 0..data.len() {
        let mut flipped = data.clone();
        flipped[at] ^= 1 << (at % 8);
        if let Ok(read) = BatchData::from_bytes(&flipped) {
            assert_eq!(read.to_bytes(), flipped);
        }
    }
    for at in 0..snapshot.len() {
        let mut flipped = snapshot.clone();
        flipped[at] ^= 1 << (at % 8);
        if let Ok(read) = Sealer::restore(CONFIG, &flipped) {
            let _ = read.state_hash();
        }
    }
}

#[test]
fn units_that_have_lost_everything_are_forgotten() {
    let mut world = World::new();
    world.send(&lock("a", 1000));
    world.send(&consume("a", ALL_CAPTURES, 1000));
    world.deposit_by(Address([4; 20]), 500);
    let mut sealer = Sealer::new(CONFIG, &DOMAIN);
    follow(&mut sealer, SHARD, &world.log);
    sealer.seal(u128::MAX).unwrap();
    let units: Vec<_> = sealer.trees().suppliers().iter().map(|leaf| (leaf.supplier, leaf.units)).collect();
    let all = world.ledger.partition(P1).unwrap().units;
    assert_eq!(units, [(Address([4; 20]), all), (SUPPLIER, 0)]);
    assert_eq!(leaf_of(sealer.trees(), P1).units, all);
}

#[test]
fn an_answered_exit_is_acknowledged() {
    let mut world = World::with_policy(&Policy { unbonding: Time::ZERO, ..Policy::default() });
    let mut withdraw = |nonce, units| {
        let body = StakeBody { supplier: SUPPLIER, nonce, ..StakeBody::default() };
        let id = world.fresh_id();
        let record = Record::new(Kind::Withdraw, id, P1, Amount(units), &body);
        world.execute(&operator(), vec![record]).1[0].code()
    };
    assert_eq!(withdraw(3, 1_000_000), Code::Approved);
    assert_eq!(withdraw(5, u128::MAX >> 20), Code::Insufficient);
    world.send(&operate(Kind::Freeze, 0));
    let body = StakeBody { supplier: SUPPLIER, nonce: 8, ..StakeBody::default() };
    let id = world.fresh_id();
    let record = Record::new(Kind::Withdraw, id, P1, Amount(1_000_000), &body);
    assert_eq!(world.execute(&operator(), vec![record]).1[0].code(), Code::Frozen);
    let mut sealer = Sealer::new(CONFIG, &DOMAIN);
    follow(&mut sealer, SHARD, &world.log);
    sealer.seal(u128::MAX).unwrap();
    let leaf = leaf_of(sealer.trees(), P1);
    assert_eq!((leaf.exit_nonce, leaf.exits, leaf.debit), (5, 1, 1));
}

#[test]
fn a_statement_tells_what_became_of_a_stake() {
    let policy = Policy { unbonding: Time::from_secs(100), ..Policy::default() };
    let mut world = World::with_policy(&policy);
    let who = Address([4; 20]);
    world.deposit_by(who, 1000);
    let units = world.ledger.suppliers(P1).iter().find(|state| state.supplier == who).unwrap().units;
    let stake = |world: &mut World, kind, amount, supplier| {
        let body = StakeBody { supplier, nonce: u64::try_from(world.next).unwrap(), ..StakeBody::default() };
        let record = Record::new(kind, world.fresh_id(), P1, Amount(amount), &body);
        assert!(world.execute(&operator(), vec![record]).1[0].code().is_success());
    };
    stake(&mut world, Kind::Reward, 400, Address([0; 20]));
    world.send(&lock("a", 200));
    world.send(&consume("a", ALL_CAPTURES, 200));
    stake(&mut world, Kind::Withdraw, units / 2, who);
    world.wait(200_000);
    world.advance();
    let mut statement = Statement::new(1, who);
    let mut lines = Vec::new();
    for (seq, record) in (1..).zip(&world.log) {
        lines.extend(statement.read(SHARD, Seq(seq), record).unwrap());
    }
    let events: Vec<_> = lines.iter().map(|line| line.event).collect();
    let due = lines.iter().find_map(|line| match line.event {
        StakeEvent::Unbonding { due, .. } => Some(due),
        _ => None,
    });
    let Some(StakeEvent::Withdrawn { amount, .. }) = events.last().copied() else { panic!("{events:?}") };
    let expected = [
        StakeEvent::Supplied { amount: 1000, units },
        StakeEvent::Rewarded { amount: 400 },
        StakeEvent::Lost { amount: 200 },
        StakeEvent::Unbonding { units: units / 2, due: due.unwrap() },
        StakeEvent::Withdrawn { amount, units: units / 2 },
    ];
    assert_eq!(events, expected);
    assert!(lines[1].gain > 0 && lines[2].gain < 0, "{lines:?}");
    assert_eq!(statement.positions().0, [Seq(world.log.len() as u64)]);
    let [(P1, sum)] = statement.sums().collect::<Vec<_>>()[..] else { panic!("one partition") };
    assert_eq!((sum.supplied, sum.stake.paid_out, sum.stake.queued), (1000, amount, 0));
    assert!(sum.adds_up() && sum.stake.value > 0);
    let mut nobodys = Statement::new(1, Address([8; 20]));
    let lines = (1..).zip(&world.log).map(|(seq, record)| nobodys.read(SHARD, Seq(seq), record).unwrap());
    assert_eq!((lines.flatten().count(), nobodys.sums().count()), (0, 0));
}
