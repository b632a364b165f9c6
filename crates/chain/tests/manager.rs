//! The collateral manager: every rule, and every error that breaks one.

#![allow(clippy::unwrap_used)]

mod support;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use chain::bindings::Manager::ManagerErrors as E;
use chain::bindings::{Batch, Lock, Manager, Receiver};
use chain::{DigestSigner, Terms};
use support::books::{Books, Sealed, certify, release};
use support::{Refusal, TOKENS, World, key};

const HOUR: u64 = 3600;

/// A pool with 1,000 tokens of Alice and 200 locked.
fn funded() -> (World, Books, B256) {
    funded_with(Terms::default(), 0)
}

fn funded_with(terms: Terms, cap: u128) -> (World, Books, B256) {
    let mut world = World::with(terms);
    let manager = world.at.manager;
    let pool = world.pool(1);
    world.add_partition(pool, manager, cap);
    world.supply(&key(7), pool, manager, 1000 * TOKENS).unwrap();
    let mut books = Books::new(&world);
    books.partition(pool).locked = 200 * TOKENS;
    books.partition(pool).units = 1000;
    books.suppliers.insert((pool, world.alice.address()), (600, 0));
    books.suppliers.insert((pool, world.bob.address()), (400, 0));
    (world, books, pool)
}

fn commit(world: &mut World, batch: &Batch) -> Result<chain::Receipt, Refusal> {
    world.manage(&key(4), Manager::commitBatchCall { batch: batch.clone() })
}

fn seal(world: &mut World, books: &mut Books) -> Sealed {
    let sealed = books.seal();
    commit(world, &sealed.batch).unwrap();
    sealed
}

fn claim(
    world: &mut World,
    sealed: &Sealed,
    partition: B256,
    payee: Address,
) -> Result<chain::Receipt, Refusal> {
    let call = Manager::claimCall { leaf: sealed.credit(partition, payee), rest: sealed.rest };
    world.manage(&key(9), call)
}

fn lock(world: &World, partition: B256, n: u8, amount: u128) -> Lock {
    Lock {
        lockId: B256::repeat_byte(n),
        version: 1,
        shard: 3,
        seq: 100,
        partition,
        payee: world.merchant.address(),
        amount,
        deadline: world.now() + 24 * HOUR,
        releaseKey: world.merchant.address(),
    }
}

fn call(world: &mut World, lock: &Lock) -> Result<chain::Receipt, Refusal> {
    call_as(world, &key(5), lock)
}

fn call_as(world: &mut World, signer: &chain::LocalKey, lock: &Lock) -> Result<chain::Receipt, Refusal> {
    let other = Lock { lockId: B256::repeat_byte(0xee), ..lock.clone() };
    let (paths, signature) = certify(world, signer, &[lock.clone(), other.clone(), other]);
    let call = Manager::callGuaranteeCall {
        lock: lock.clone(),
        path: paths[0].clone(),
        signature: signature.into(),
    };
    world.manage(&key(6), call)
}

fn settle(world: &mut World, lock: &Lock) -> Result<chain::Receipt, Refusal> {
    world.manage(&key(9), Manager::settleGuaranteeCall { lockId: lock.lockId })
}

fn dismiss(
    world: &mut World,
    by: u8,
    lock: &Lock,
    version: u32,
    still_owed: u128,
) -> Result<chain::Receipt, Refusal> {
    let signature = release(world, &key(by), lock.lockId, version, still_owed);
    let call = Manager::dismissGuaranteeCall {
        lockId: lock.lockId,
        version,
        stillOwed: still_owed,
        index: U256::ZERO,
        path: Vec::new(),
        signature: signature.into(),
    };
    world.manage(&key(9), call)
}

macro_rules! refuses {
    ($result:expr, $error:ident) => {
        assert!(matches!($result, Err(E::$error(_))), "expected {}", stringify!($error))
    };
}

#[test]
fn a_batch_follows_the_one_before_or_is_refused() {
    let (mut world, mut books, pool) = funded();
    let first = books.seal();
    let check = |world: &mut World, alter: fn(&mut Batch)| {
        let mut batch = first.batch.clone();
        alter(&mut batch);
        commit(world, &batch)
    };
    refuses!(world.manage(&key(9), Manager::commitBatchCall { batch: first.batch.clone() }), NotPoster);
    refuses!(check(&mut world, |batch| batch.seq = 2), BadSequence);
    refuses!(check(&mut world, |batch| batch.seq = 0), BadSequence);
    refuses!(check(&mut world, |batch| batch.prevHead = B256::repeat_byte(1)), BadPrev);
    refuses!(check(&mut world, |batch| batch.lsnTo = 0), LsnNotIncreasing);
    refuses!(check(&mut world, |batch| batch.sumLocked = 1001 * TOKENS), Insolvent);
    refuses!(check(&mut world, |batch| batch.sumLocked = u128::MAX), Insolvent);
    refuses!(check(&mut world, |batch| batch.guaranteedAck = 1), BadAck);
    let receipt = commit(&mut world, &first.batch).unwrap();
    assert_eq!(receipt.events[0].topics[2], first.head());
    refuses!(commit(&mut world, &first.batch), BadSequence);

    books.consume(pool, Address::repeat_byte(1), 50 * TOKENS);
    let second = seal(&mut world, &mut books);
    let third = books.seal();
    let mut less = third.batch.clone();
    less.sumCredit -= 1;
    refuses!(commit(&mut world, &less), CreditDecreased);
    let info = world.ask(Manager::headInfoCall {});
    assert_eq!((info.seq, info.head), (U256::from(2), second.head()));
    assert_eq!(info.sumCredit, U256::from(50 * TOKENS));
}

#[test]
fn a_batch_with_data_needs_the_data() {
    let (mut world, mut books, _) = funded();
    let sealed = books.seal();
    let call = |data: &'static [u8]| Manager::commitBatchWithDataCall {
        batch: sealed.batch.clone(),
        data: Bytes::from_static(data),
    };
    refuses!(world.manage(&key(4), call(b"other")), BadProof);
    world.manage(&key(4), call(b"data")).unwrap();
}

#[test]
fn new_credit_is_limited_in_any_hour() {
    // 100 tokens an hour: half of it at once.
    let terms = Terms { credit_per_hour: 100_000_000_000, ..Terms::default() };
    let (mut world, mut books, pool) = funded_with(terms, 0);
    let payee = Address::repeat_byte(1);
    let mut attempt = books.clone();
    attempt.consume(pool, payee, 51 * TOKENS);
    refuses!(commit(&mut world, &attempt.seal().batch), PayoutLimit);
    books.consume(pool, payee, 50 * TOKENS);
    seal(&mut world, &mut books);
    let mut attempt = books.clone();
    attempt.consume(pool, payee, TOKENS);
    refuses!(commit(&mut world, &attempt.seal().batch), PayoutLimit);
    // A batch without new credit always passes.
    seal(&mut world, &mut books);
    world.wait(HOUR / 2);
    books.consume(pool, payee, 25 * TOKENS);
    seal(&mut world, &mut books);
    let mut attempt = books.clone();
    attempt.consume(pool, payee, TOKENS);
    refuses!(commit(&mut world, &attempt.seal().batch), PayoutLimit);
}

#[test]
fn a_credit_is_claimed_once_and_after_its_delay() {
    let (mut world, mut books, pool) = funded();
    let merchant = world.merchant.address();
    let before = world.balance(B256::ZERO, merchant);
    books.consume(pool, merchant, 30 * TOKENS);
    let first = seal(&mut world, &mut books);
    refuses!(claim(&mut world, &first, pool, merchant), TooEarly);
    books.consume(pool, merchant, 20 * TOKENS);
    let second = seal(&mut world, &mut books);
    refuses!(claim(&mut world, &second, pool, merchant), UnknownRoot);
    world.wait(HOUR);
    claim(&mut world, &first, pool, merchant).unwrap();
    refuses!(claim(&mut world, &first, pool, merchant), NothingDue);
    assert_eq!(world.balance(B256::ZERO, merchant), before + 30 * TOKENS);

    let mut forged = first.credit(pool, merchant);
    forged.credit += 1;
    refuses!(world.manage(&key(9), Manager::claimCall { leaf: forged, rest: first.rest }), UnknownRoot);
    let mut long = first.credit(pool, merchant);
    long.path = vec![B256::ZERO; 33];
    refuses!(world.manage(&key(9), Manager::claimCall { leaf: long, rest: first.rest }), BadProof);

    // No batch follows: the newest root is matured by anyone.
    let mature = Manager::matureHeadCall { batch: second.batch.clone() };
    refuses!(world.manage(&key(9), Manager::matureHeadCall { batch: first.batch.clone() }), UnknownRoot);
    world.manage(&key(9), mature).unwrap();
    claim(&mut world, &second, pool, merchant).unwrap();
    assert_eq!(world.balance(B256::ZERO, merchant), before + 50 * TOKENS);
    let third = seal(&mut world, &mut books);
    refuses!(world.manage(&key(9), Manager::matureHeadCall { batch: third.batch.clone() }), TooEarly);
    let info = world.ask(Manager::headInfoCall {});
    assert_eq!((info.claimed, info.pool), (U256::from(50 * TOKENS), U256::from(950 * TOKENS)));
}

#[test]
fn a_payee_is_paid_out_of_its_own_partition_alone() {
    let (mut world, mut books, pool) = funded();
    let (alice, merchant) = (world.alice.address(), world.merchant.address());
    let (in_place, poor) = (world.in_place(2), world.pool(3));
    let manager = world.at.manager;
    world.add_partition(in_place, alice, 0);
    world.add_partition(poor, manager, 0);
    world.supply(&key(7), in_place, alice, 100 * TOKENS).unwrap();
    for partition in [in_place, poor] {
        books.partition(partition).locked = 40 * TOKENS;
        books.consume(partition, merchant, 40 * TOKENS);
    }
    let sealed = seal(&mut world, &mut books);
    world.wait(HOUR);
    claim(&mut world, &sealed, in_place, merchant).unwrap();
    assert_eq!(world.balance(in_place, alice), 60 * TOKENS, "taken from where the holder keeps it");
    refuses!(claim(&mut world, &sealed, poor, merchant), Insolvent);
    assert_eq!(world.balance(pool, manager), 1000 * TOKENS);
}

#[test]
fn one_receiver_does_not_spoil_the_claims_of_others() {
    let (mut world, mut books, pool) = funded();
    let merchant = world.merchant.address();
    let refuses_it = world.receiver(1, Address::ZERO, Bytes::new());
    let burns = world.receiver(2, Address::ZERO, Bytes::new());
    for payee in [refuses_it, burns, merchant] {
        books.consume(pool, payee, 10 * TOKENS);
    }
    let sealed = seal(&mut world, &mut books);
    world.wait(HOUR);
    refuses!(claim(&mut world, &sealed, pool, refuses_it), PayFailed);
    let leaves = [refuses_it, burns, merchant].map(|payee| sealed.credit(pool, payee)).to_vec();
    let receipt = world.manage(&key(9), Manager::claimManyCall { leaves, rest: sealed.rest }).unwrap();
    let count = |event: &str| {
        let topic = keccak256(event);
        receipt.events.iter().filter(|logged| logged.topics[0] == topic).count()
    };
    assert_eq!(count("ClaimFailed(bytes32,address)"), 2);
    assert_eq!(count("Paid(bytes32,address,uint256)"), 1);
    let info = world.ask(Manager::headInfoCall {});
    assert_eq!(info.claimed, U256::from(10 * TOKENS));
    // What was refused is still owed, and paid once the receiver takes it.
    let set = Receiver::setCall { mood_: 0, target_: Address::ZERO, call_: Bytes::new() };
    world.send(&key(1), refuses_it, set.abi_encode().into()).unwrap();
    claim(&mut world, &sealed, pool, refuses_it).unwrap();
    refuses!(claim(&mut world, &sealed, pool, refuses_it), NothingDue);
}

#[test]
fn a_hook_cannot_begin_another_payout() {
    let (mut world, mut books, pool) = funded();
    let manager = world.at.manager;
    let merchant = world.merchant.address();
    let payee = world.receiver(0, Address::ZERO, Bytes::new());
    books.consume(pool, payee, 10 * TOKENS);
    books.consume(pool, merchant, 10 * TOKENS);
    let sealed = seal(&mut world, &mut books);
    world.wait(HOUR);
    let inner = Manager::claimCall { leaf: sealed.credit(pool, merchant), rest: sealed.rest };
    let set = Receiver::setCall { mood_: 3, target_: manager, call_: inner.abi_encode().into() };
    world.send(&key(1), payee, set.abi_encode().into()).unwrap();
    claim(&mut world, &sealed, pool, payee).unwrap();
    let ask = |call: Vec<u8>| world.simulate(Address::ZERO, payee, call.into()).unwrap();
    let answer =
        Receiver::answerCall::abi_decode_returns(&ask(Receiver::answerCall {}.abi_encode())).unwrap();
    assert!(matches!(support::refusal(&answer), E::Reentered(_)));
    assert_eq!(world.ask(Manager::headInfoCall {}).claimed, U256::from(10 * TOKENS));
}

#[test]
fn a_certificate_alone_is_enough_to_be_paid() {
    let (mut world, mut books, pool) = funded_with(Terms::default(), 100 * TOKENS);
    let merchant = world.merchant.address();
    let before = world.balance(B256::ZERO, merchant);
    seal(&mut world, &mut books);
    let lock = lock(&world, pool, 1, 60 * TOKENS);
    call(&mut world, &lock).unwrap();
    refuses!(call(&mut world, &lock), LockState);
    refuses!(settle(&mut world, &lock), TooEarly);
    world.wait(24 * HOUR);
    settle(&mut world, &lock).unwrap();
    refuses!(settle(&mut world, &lock), LockState);
    let again = Lock { version: 2, deadline: world.now() + HOUR, ..lock.clone() };
    refuses!(call(&mut world, &again), LockState);
    assert_eq!(world.balance(B256::ZERO, merchant), before + 60 * TOKENS);

    // The engine books it within four batches; until then its books may still hold the lock.
    for _ in 0..4 {
        seal(&mut world, &mut books);
    }
    let mut late = books.clone();
    refuses!(commit(&mut world, &late.seal().batch), BadAck);
    books.acknowledge(pool, 60 * TOKENS);
    let mut less = books.clone();
    seal(&mut world, &mut books);
    less.seal();
    less.acknowledged -= 1;
    refuses!(commit(&mut world, &less.seal().batch), BadAck);
    let info = world.ask(Manager::guaranteeInfoCall {});
    assert_eq!((info.paid, info.acknowledged), (U256::from(60 * TOKENS), U256::from(60 * TOKENS)));
}

#[test]
fn what_is_no_certificate_of_ours_is_refused() {
    let (mut world, mut books, pool) = funded_with(Terms::default(), 100 * TOKENS);
    seal(&mut world, &mut books);
    let good = lock(&world, pool, 1, 60 * TOKENS);
    let with = |alter: fn(&mut Lock)| {
        let mut lock = good.clone();
        alter(&mut lock);
        lock
    };
    refuses!(call_as(&mut world, &key(9), &good), BadSig);
    refuses!(call(&mut world, &with(|lock| lock.deadline -= 25 * HOUR)), TooLate);
    refuses!(call(&mut world, &with(|lock| lock.deadline += 365 * 24 * HOUR)), TooLate);
    refuses!(call(&mut world, &with(|lock| lock.amount = 0)), TooLarge);
    refuses!(call(&mut world, &with(|lock| lock.amount = 1 << 96)), TooLarge);
    refuses!(call(&mut world, &with(|lock| lock.partition = B256::repeat_byte(7))), UnknownPartition);
    refuses!(call(&mut world, &with(|lock| lock.seq = u64::MAX)), BadSig);
    // Another lock's path, and signatures in other forms than the one.
    let (paths, signature) = certify(&world, &key(5), &[good.clone(), with(|lock| lock.amount += 1)]);
    let mut send = |lock: &Lock, path: &[B256], signature: &[u8]| {
        let (lock, path) = (lock.clone(), path.to_vec());
        world.manage(&key(6), Manager::callGuaranteeCall { lock, path, signature: signature.to_vec().into() })
    };
    refuses!(send(&with(|lock| lock.amount += 2), &paths[0], &signature), BadSig);
    refuses!(send(&good, &paths[1], &signature), BadSig);
    refuses!(send(&good, &paths[0], &signature[..64]), BadSig);
    let mut high = signature.clone();
    high[32] |= 0x80;
    refuses!(send(&good, &paths[0], &high), BadSig);
    let mut v = signature.clone();
    v[64] -= 27;
    refuses!(send(&good, &paths[0], &v), BadSig);
    send(&good, &paths[0], &signature).unwrap();
}

#[test]
fn a_false_call_is_answered_with_the_merchants_release() {
    let (mut world, mut books, pool) = funded_with(Terms::default(), 100 * TOKENS);
    seal(&mut world, &mut books);
    let lock = Lock { version: 3, ..lock(&world, pool, 1, 60 * TOKENS) };
    refuses!(dismiss(&mut world, 6, &lock, 3, 0), LockState);
    call(&mut world, &lock).unwrap();
    refuses!(dismiss(&mut world, 9, &lock, 3, 0), BadSig);
    refuses!(dismiss(&mut world, 6, &lock, 2, 0), LockState);
    refuses!(dismiss(&mut world, 6, &lock, 3, 60 * TOKENS), LockState);
    dismiss(&mut world, 6, &lock, 3, 20 * TOKENS).unwrap();
    dismiss(&mut world, 6, &lock, 4, 0).unwrap();
    world.wait(24 * HOUR);
    refuses!(settle(&mut world, &lock), LockState);
    // A later version may be called after that; the same one may not.
    let renewed = Lock { deadline: world.now() + HOUR, ..lock.clone() };
    refuses!(call(&mut world, &renewed), LockState);
    call(&mut world, &Lock { version: 5, ..renewed }).unwrap();
}

#[test]
fn a_lock_pays_by_credit_or_by_guarantee() {
    let (mut world, mut books, pool) = funded_with(Terms::default(), 100 * TOKENS);
    let merchant = world.merchant.address();
    let before = world.balance(B256::ZERO, merchant);
    let lock = lock(&world, pool, 1, 60 * TOKENS);
    books.consume(pool, merchant, 45 * TOKENS);
    books.consumed.insert(lock.lockId, (pool, merchant, 45 * TOKENS));
    books.consumed.insert(B256::repeat_byte(2), (pool, merchant, 60 * TOKENS));
    let sealed = seal(&mut world, &mut books);
    let dismissal = |sealed: &Sealed| Manager::dismissPaidCall {
        batch: sealed.batch.clone(),
        parts: sealed.join.clone(),
        leaf: sealed.consumed_lock(lock.lockId),
    };
    refuses!(world.manage(&key(9), dismissal(&sealed)), LockState);
    call(&mut world, &lock).unwrap();
    let mut forged = dismissal(&sealed);
    forged.leaf.amount = 60 * TOKENS;
    refuses!(world.manage(&key(9), forged), BadProof);
    let mut foreign = dismissal(&sealed);
    foreign.batch.seq += 1;
    refuses!(world.manage(&key(9), foreign), UnknownRoot);
    world.manage(&key(9), dismissal(&sealed)).unwrap();
    refuses!(world.manage(&key(9), dismissal(&sealed)), LockState);
    world.wait(24 * HOUR);
    settle(&mut world, &lock).unwrap();
    claim(&mut world, &sealed, pool, merchant).unwrap();
    assert_eq!(world.balance(B256::ZERO, merchant), before + 60 * TOKENS, "the whole lock, once");
}

#[test]
fn guarantees_stay_within_what_is_locked_and_the_cap() {
    let (mut world, mut books, pool) = funded_with(Terms::default(), 10 * TOKENS);
    let sealed = seal(&mut world, &mut books);
    let first = lock(&world, pool, 1, 10 * TOKENS);
    let second = lock(&world, pool, 2, 200 * TOKENS);
    let third = lock(&world, pool, 3, 1);
    for lock in [&first, &second, &third] {
        call(&mut world, lock).unwrap();
    }
    world.wait(24 * HOUR);
    settle(&mut world, &first).unwrap();
    refuses!(settle(&mut world, &third), GuaranteeLimit);
    let proof = |sealed: &Sealed| Manager::provePartitionCall {
        batch: sealed.batch.clone(),
        parts: sealed.join.clone(),
        leaf: sealed.partition(pool),
    };
    let mut forged = proof(&sealed);
    forged.leaf.locked += 1;
    refuses!(world.manage(&key(9), forged), BadProof);
    world.manage(&key(9), proof(&sealed)).unwrap();
    refuses!(world.manage(&key(9), proof(&sealed)), UnknownRoot);
    settle(&mut world, &second).unwrap();
    refuses!(settle(&mut world, &third), GuaranteeLimit);
    // Booked guarantees no longer count once a later root is proven.
    for _ in 0..4 {
        seal(&mut world, &mut books);
    }
    books.partition(pool).locked += 10 * TOKENS;
    books.acknowledge(pool, 210 * TOKENS);
    books.partition(pool).locked = 5;
    let later = seal(&mut world, &mut books);
    world.manage(&key(9), proof(&later)).unwrap();
    settle(&mut world, &third).unwrap();
}

#[test]
fn a_voided_signer_certifies_nothing_not_even_what_was_called() {
    let (mut world, mut books, pool) = funded_with(Terms::default(), 100 * TOKENS);
    seal(&mut world, &mut books);
    let called = lock(&world, pool, 1, 60 * TOKENS);
    call(&mut world, &called).unwrap();
    let signer = world.signer.address();
    let void = |shard, from, to| Manager::setSignerCall { signer, shard, from, to };
    refuses!(world.manage(&key(9), void(3, 50, 50)), NotAllowed);
    world.manage(&key(2), void(3, 50, 100)).unwrap();
    world.wait(24 * HOUR);
    refuses!(settle(&mut world, &called), BadSig);
    let earlier = Lock { seq: 99, ..lock(&world, pool, 2, 1) };
    call(&mut world, &earlier).unwrap();
    let elsewhere = Lock { shard: 4, ..lock(&world, pool, 3, 1) };
    call(&mut world, &elsewhere).unwrap();
    refuses!(
        {
            let later = lock(&world, pool, 4, 1);
            call(&mut world, &later)
        },
        BadSig
    );
}

#[test]
fn the_guardian_can_delay_payouts_but_not_stop_them() {
    let (mut world, mut books, pool) = funded();
    let merchant = world.merchant.address();
    books.consume(pool, merchant, 10 * TOKENS);
    let sealed = seal(&mut world, &mut books);
    world.wait(HOUR);
    refuses!(world.manage(&key(9), Manager::pauseCall {}), NotAllowed);
    world.manage(&key(3), Manager::pauseCall {}).unwrap();
    refuses!(claim(&mut world, &sealed, pool, merchant), NotLive);
    world.wait(48 * HOUR);
    refuses!(world.manage(&key(3), Manager::pauseCall {}), TooEarly);
    claim(&mut world, &sealed, pool, merchant).unwrap();
    world.wait(48 * HOUR);
    world.manage(&key(3), Manager::pauseCall {}).unwrap();
}

#[test]
fn only_the_owner_appoints() {
    let (mut world, mut books, pool) = funded();
    let stranger = world.stranger.address();
    refuses!(world.manage(&key(9), Manager::setOwnerCall { owner_: stranger }), NotAllowed);
    refuses!(
        world.manage(&key(4), Manager::setPosterCall { poster_: stranger, creditPerHour_: 1 }),
        NotAllowed
    );
    refuses!(world.manage(&key(9), Manager::setGuardianCall { guardian_: stranger }), NotAllowed);
    let cap = 5u64.try_into().unwrap();
    refuses!(
        world.manage(&key(9), Manager::setGuaranteeCapCall { partition: pool, guaranteeCap: cap }),
        NotAllowed
    );
    let again = Manager::addPartitionCall { partition: pool, holder: world.at.manager, guaranteeCap: cap };
    refuses!(world.manage(&key(2), again.clone()), UnknownPartition);
    refuses!(world.manage(&key(9), again), NotAllowed);
    // A lost poster key is replaced.
    world.manage(&key(2), Manager::setPosterCall { poster_: stranger, creditPerHour_: 1 << 60 }).unwrap();
    let sealed = books.seal();
    refuses!(commit(&mut world, &sealed.batch), NotPoster);
    world.manage(&key(9), Manager::commitBatchCall { batch: sealed.batch }).unwrap();
    world.manage(&key(2), Manager::setOwnerCall { owner_: stranger }).unwrap();
    refuses!(world.manage(&key(2), Manager::setOwnerCall { owner_: stranger }), NotAllowed);
}

#[test]
fn an_exit_is_answered_or_the_contract_freezes_for_good() {
    let (mut world, mut books, pool) = funded();
    let (alice, bob, merchant) = (world.alice.address(), world.bob.address(), world.merchant.address());
    let request = Manager::requestExitCall { partition: pool };
    refuses!(world.manage(&key(9), request.clone()), NotAllowed);
    world.manage(&key(7), request.clone()).unwrap();
    refuses!(world.manage(&key(7), request.clone()), TooEarly);
    // The answer: a batch with the request's number.
    let unanswered = seal(&mut world, &mut books);
    let complete = |sealed: &Sealed| Manager::completeExitCall {
        batch: sealed.batch.clone(),
        parts: sealed.join.clone(),
        leaf: sealed.partition(pool),
    };
    refuses!(world.manage(&key(9), complete(&unanswered)), NothingDue);
    books.partition(pool).exitNonce = 1;
    let answered = seal(&mut world, &mut books);
    world.manage(&key(9), complete(&answered)).unwrap();
    refuses!(world.manage(&key(9), Manager::freezeCall { partition: pool }), TooEarly);

    // The next one is not answered.
    world.manage(&key(7), request.clone()).unwrap();
    books.consume(pool, merchant, 50 * TOKENS);
    let last = seal(&mut world, &mut books);
    let exit_delay = u64::from(Terms::default().exit_delay);
    world.wait(exit_delay - HOUR);
    refuses!(world.manage(&key(9), Manager::freezeCall { partition: pool }), TooEarly);
    world.wait(HOUR);
    world.manage(&key(9), Manager::freezeCall { partition: pool }).unwrap();
    refuses!(world.manage(&key(9), Manager::freezeCall { partition: pool }), Frozen);
    refuses!(commit(&mut world, &books.clone().seal().batch), Frozen);
    refuses!(world.manage(&key(7), request), Frozen);
    let supply = world.supply(&key(7), pool, world.at.manager, 5).unwrap_err();
    assert!(matches!(support::refusal(&supply), E::Frozen(_)));

    // A certificate from before the freeze is still good; its payment is reserved.
    let lock = lock(&world, pool, 1, 150 * TOKENS);
    let late = Lock { deadline: world.now() + 8 * 24 * HOUR, ..lock.clone() };
    refuses!(call(&mut world, &late), TooLate);
    call(&mut world, &lock).unwrap();
    let open = |sealed: &Sealed| Manager::openExitCall {
        batch: sealed.batch.clone(),
        parts: sealed.join.clone(),
        leaf: sealed.partition(pool),
    };
    let exit = |sealed: &Sealed, supplier| Manager::frozenExitCall {
        batch: sealed.batch.clone(),
        parts: sealed.join.clone(),
        leaf: sealed.supplier(pool, supplier),
    };
    refuses!(world.manage(&key(9), open(&last)), TooEarly);
    refuses!(world.manage(&key(9), exit(&last, alice)), TooEarly);
    world.wait(8 * 24 * HOUR + HOUR);
    refuses!(world.manage(&key(9), open(&answered)), UnknownRoot);
    world.manage(&key(9), open(&last)).unwrap();
    refuses!(world.manage(&key(9), open(&last)), LockState);
    // 1,000 less 50 that a merchant was credited and 150 that are called.
    let residual = world.ask(Manager::residualCall { partition: pool });
    assert_eq!(residual.amount.to::<u128>(), 800 * TOKENS);
    let before = [alice, bob, merchant].map(|who| world.balance(B256::ZERO, who));
    world.manage(&key(9), exit(&last, alice)).unwrap();
    refuses!(world.manage(&key(9), exit(&last, alice)), NothingDue);
    settle_after_cap(&mut world, &last, pool, &lock);
    let mature = Manager::matureHeadCall { batch: last.batch.clone() };
    world.manage(&key(9), mature).unwrap();
    claim(&mut world, &last, pool, merchant).unwrap();
    world.manage(&key(9), exit(&last, bob)).unwrap();
    let after = [alice, bob, merchant].map(|who| world.balance(B256::ZERO, who));
    let got: Vec<u128> = after.iter().zip(before).map(|(after, before)| (after - before) / TOKENS).collect();
    assert_eq!(got, [480, 320, 200]);
    assert_eq!(world.balance(pool, world.at.manager), 0);
}

/// The guarantee is above the cap (0), and so needs the proof of what was locked.
fn settle_after_cap(world: &mut World, last: &Sealed, pool: B256, lock: &Lock) {
    refuses!(settle(world, lock), GuaranteeLimit);
    let proof = Manager::provePartitionCall {
        batch: last.batch.clone(),
        parts: last.join.clone(),
        leaf: last.partition(pool),
    };
    world.manage(&key(9), proof).unwrap();
    settle(world, lock).unwrap();
}

#[test]
fn a_stolen_poster_key_takes_no_more_than_the_limit_and_only_after_the_delay() {
    let terms = Terms { credit_per_hour: 100_000_000_000, ..Terms::default() };
    let (mut world, mut books, pool) = funded_with(terms, 0);
    let thief = world.stranger.address();
    let before = world.balance(B256::ZERO, thief);
    // All at once is refused; what fits the limit is committed, and waits.
    let mut greedy = books.clone();
    greedy.partition(pool).locked = 1000 * TOKENS;
    greedy.consume(pool, thief, 1000 * TOKENS);
    refuses!(commit(&mut world, &greedy.seal().batch), PayoutLimit);
    books.consume(pool, thief, 50 * TOKENS);
    let stolen = seal(&mut world, &mut books);
    refuses!(claim(&mut world, &stolen, pool, thief), TooEarly);
    // The guardian sees it within the delay, and the owner appoints another poster while payouts stand still.
    world.manage(&key(3), Manager::pauseCall {}).unwrap();
    world.manage(&key(2), Manager::setPosterCall { poster_: key(8).address(), creditPerHour_: 1 }).unwrap();
    world.wait(HOUR);
    refuses!(claim(&mut world, &stolen, pool, thief), NotLive);
    refuses!(commit(&mut world, &books.clone().seal().batch), NotPoster);
    assert_eq!(world.balance(B256::ZERO, thief), before);
}
