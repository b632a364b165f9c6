//! Random calls by everybody, honest and not: whatever comes, the contract's invariants hold.

#![allow(clippy::unwrap_used)]

mod support;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use chain::bindings::{Batch, Lock, Manager, Receiver};
use chain::{DigestSigner, Receipt, Terms};
use proptest::prelude::*;
use support::books::{Books, Sealed, certify, release};
use support::{Refusal, TOKENS, World, key};

const HOUR: u64 = 3600;

/// A lock of the honest engine.
#[derive(Clone, Debug)]
struct Promise {
    lock: Lock,
    /// What H, U and P hold of it.
    held: u128,
    credited: u128,
    is_called: bool,
    is_released: bool,
    guaranteed: u128,
    booked: u128,
}

struct Play {
    world: World,
    books: Books,
    sealed: Vec<Sealed>,
    partitions: [(B256, Address); 3],
    payees: [Address; 3],
    supplied: u128,
    exited: u128,
    promises: Vec<Promise>,
    is_frozen: bool,
    seen: (u64, u64, u128, u64),
}

type Step = (u8, u8, u8, u16);

impl Play {
    fn new() -> Self {
        let terms = Terms { credit_per_hour: 2_000_000_000_000, ..Terms::default() };
        let mut world = World::with(terms);
        let (manager, alice, merchant) = (world.at.manager, world.alice.address(), world.merchant.address());
        let partitions = [(world.pool(1), manager), (world.pool(2), manager), (world.in_place(3), alice)];
        for (partition, holder) in partitions {
            world.add_partition(partition, holder, 20 * TOKENS);
        }
        let refuses = world.receiver(1, Address::ZERO, Bytes::new());
        let calls = world.receiver(3, manager, Manager::pauseCall {}.abi_encode().into());
        let books = Books::new(&world);
        Self {
            world,
            books,
            sealed: Vec::new(),
            partitions,
            payees: [merchant, refuses, calls],
            supplied: 0,
            exited: 0,
            promises: Vec::new(),
            is_frozen: false,
            seen: (0, 0, 0, 0),
        }
    }

    fn manage<C: SolCall>(&mut self, by: u8, call: C) -> Result<Receipt, Refusal> {
        self.world.manage(&key(by), call)
    }

    fn step(&mut self, (action, who, which, amount): Step) {
        let amount = u128::from(amount % 200 + 1) * TOKENS;
        let (partition, holder) = self.partitions[usize::from(who) % 3];
        let promise = (!self.promises.is_empty()).then(|| usize::from(which) % self.promises.len());
        match action % 22 {
            0 | 1 => self.supply(7 + who % 2, partition, holder, amount),
            2 | 3 => self.promise(partition, self.payees[usize::from(which) % 3], amount),
            4 => _ = promise.map(|at| self.consume(at, amount)),
            5..=7 => self.commit(),
            8 => self.commit_falsely(which, amount),
            9 => self.claim(usize::from(which), partition, self.payees[usize::from(who) % 3]),
            10 => self.claim_many(),
            11 | 12 => _ = promise.map(|at| self.call(at)),
            13 => _ = promise.map(|at| self.release(at)),
            14 => _ = promise.map(|at| self.settle(at)),
            15 => self.world.wait(u64::from(which) * HOUR / 4),
            16 => self.prove(partition),
            17 => {
                let _ = self.manage(7 + which % 3, Manager::requestExitCall { partition });
            }
            18 => self.freeze(partition, which),
            19 => self.leave(partition),
            20 => {
                let _ = self.manage(3, Manager::pauseCall {});
            }
            _ => self.steal(who, partition, holder, amount),
        }
    }

    fn supply(&mut self, by: u8, partition: B256, holder: Address, amount: u128) {
        let result = self.world.supply(&key(by), partition, holder, amount);
        assert_eq!(result.is_err(), self.is_frozen);
        if result.is_err() {
            return;
        }
        self.supplied += amount;
        let leaf = self.books.partition(partition);
        leaf.units += amount;
        let supplier = if holder == self.world.at.manager { key(by).address() } else { holder };
        self.books.suppliers.entry((partition, supplier)).or_default().0 += amount;
    }

    /// The engine locks no more than is free.
    fn promise(&mut self, partition: B256, payee: Address, amount: u128) {
        let info = self.world.ask(Manager::partitionInfoCall { partition });
        let brought: u128 = (info.balance + info.claimed + info.guaranteed).to();
        let leaf = self.books.partition(partition).clone();
        if self.is_frozen || leaf.locked + leaf.debit + amount > brought {
            return;
        }
        self.books.partition(partition).locked += amount;
        let lock = Lock {
            lockId: keccak256(self.promises.len().to_be_bytes()),
            version: 1,
            shard: 1,
            seq: 10,
            partition,
            payee,
            amount,
            deadline: self.world.now() + 5 * 24 * HOUR,
            releaseKey: self.world.merchant.address(),
        };
        let promise = Promise {
            lock,
            held: amount,
            credited: 0,
            is_called: false,
            is_released: false,
            guaranteed: 0,
            booked: 0,
        };
        self.promises.push(promise);
    }

    fn consume(&mut self, at: usize, amount: u128) {
        let promise = &mut self.promises[at];
        if promise.is_called || promise.held == 0 || promise.guaranteed > 0 || self.is_frozen {
            return;
        }
        let part = amount.min(promise.held);
        promise.held -= part;
        promise.credited += part;
        let (lock, credited) = (promise.lock.clone(), promise.credited);
        self.books.consume(lock.partition, lock.payee, part);
        self.books.consumed.insert(lock.lockId, (lock.partition, lock.payee, credited));
    }

    /// Books every guarantee that was paid, answers exits, and commits.
    fn commit(&mut self) {
        let mut books = self.books.clone();
        let mut promises = self.promises.clone();
        for promise in &mut promises {
            let part = promise.guaranteed - promise.booked;
            books.acknowledge(promise.lock.partition, part);
            promise.booked += part;
            promise.held -= part;
        }
        for (partition, _) in self.partitions {
            let info = self.world.ask(Manager::partitionInfoCall { partition });
            if self.seen.0.is_multiple_of(3) {
                books.partition(partition).exitNonce = info.exitsRequested.to();
            }
        }
        let sealed = books.seal();
        if self.manage(4, Manager::commitBatchCall { batch: sealed.batch.clone() }).is_err() {
            return;
        }
        assert!(!self.is_frozen, "a batch after the freeze");
        (self.books, self.promises) = (books, promises);
        for (partition, _) in self.partitions {
            let call = Manager::completeExitCall {
                batch: sealed.batch.clone(),
                parts: sealed.join.clone(),
                leaf: sealed.partition(partition),
            };
            let _ = self.manage(9, call);
        }
        self.sealed.push(sealed);
    }

    /// A batch that is wrong in one way is refused, whoever sends it.
    fn commit_falsely(&mut self, which: u8, amount: u128) {
        let mut batch = self.books.clone().seal().batch;
        let pool = self.world.ask(Manager::headInfoCall {}).pool.to::<u128>();
        let alterations: [fn(&mut Batch, u128, u128); 7] = [
            |batch, pool, amount| batch.sumLocked += pool + amount,
            |batch, pool, amount| batch.sumCredit += pool + amount,
            |batch, _, _| batch.seq += 1,
            |batch, _, _| batch.seq -= 1,
            |batch, _, _| batch.prevHead.0[7] ^= 1,
            |batch, _, _| batch.lsnTo = 0,
            |batch, pool, amount| batch.guaranteedAck += pool + amount,
        ];
        alterations[usize::from(which) % 7](&mut batch, pool, amount);
        assert!(self.manage(4, Manager::commitBatchCall { batch: batch.clone() }).is_err());
        assert!(self.manage(9, Manager::commitBatchCall { batch }).is_err());
    }

    fn claim(&mut self, which: usize, partition: B256, payee: Address) {
        let Some(sealed) = self.sealed.get(which % self.sealed.len().max(1)).cloned() else { return };
        if sealed.books.payees.contains_key(&(partition, payee)) {
            let call = Manager::claimCall { leaf: sealed.credit(partition, payee), rest: sealed.rest };
            let _ = self.manage(9, call);
        }
    }

    fn claim_many(&mut self) {
        let Some(sealed) = self.sealed.last().cloned() else { return };
        let _ = self.manage(9, Manager::matureHeadCall { batch: sealed.batch.clone() });
        let keys = sealed.books.payees.keys();
        let mut leaves: Vec<_> = keys.map(|(partition, payee)| sealed.credit(*partition, *payee)).collect();
        leaves.extend(leaves.clone());
        let _ = self.manage(9, Manager::claimManyCall { leaves, rest: sealed.rest });
    }

    fn call(&mut self, at: usize) {
        let lock = self.promises[at].lock.clone();
        let (paths, signature) = certify(&self.world, &key(5), core::slice::from_ref(&lock));
        let call = Manager::callGuaranteeCall { lock, path: paths[0].clone(), signature: signature.into() };
        if self.manage(6, call).is_ok() {
            self.promises[at].is_called = true;
        }
    }

    /// The merchant releases a lock: the engine frees it, and answers a call with the release.
    fn release(&mut self, at: usize) {
        let promise = &mut self.promises[at];
        if promise.guaranteed == 0 && !promise.is_released {
            promise.is_released = true;
            let (held, partition) = (core::mem::take(&mut promise.held), promise.lock.partition);
            self.books.partition(partition).locked -= held;
        }
        self.dismiss(at);
    }

    fn dismiss(&mut self, at: usize) {
        let promise = self.promises[at].clone();
        if promise.is_released {
            let lock_id = promise.lock.lockId;
            let call = Manager::dismissGuaranteeCall {
                lockId: lock_id,
                version: 1,
                stillOwed: 0,
                index: U256::ZERO,
                path: Vec::new(),
                signature: release(&self.world, &key(6), lock_id, 1, 0).into(),
            };
            let _ = self.manage(9, call);
        }
        let published = self.sealed.last().cloned();
        let is_in = |sealed: &Sealed| sealed.books.consumed.contains_key(&promise.lock.lockId);
        if let Some(sealed) = published.filter(is_in) {
            let leaf = sealed.consumed_lock(promise.lock.lockId);
            let _ =
                self.manage(9, Manager::dismissPaidCall { batch: sealed.batch, parts: sealed.join, leaf });
        }
    }

    /// The operator answers what it can before anybody settles.
    fn settle(&mut self, at: usize) {
        self.commit();
        self.dismiss(at);
        let lock_id = self.promises[at].lock.lockId;
        let owed = self.world.ask(Manager::calledInfoCall { lockId: lock_id }).owed;
        let paid = self.world.ask(Manager::guaranteeInfoCall {}).paid;
        if self.manage(9, Manager::settleGuaranteeCall { lockId: lock_id }).is_ok() {
            let part = self.world.ask(Manager::guaranteeInfoCall {}).paid - paid;
            assert!(part <= owed && part > U256::ZERO);
            self.promises[at].guaranteed += part.to::<u128>();
        }
    }

    fn prove(&mut self, partition: B256) {
        let Some(sealed) = self.sealed.last().cloned() else { return };
        if sealed.books.partitions.iter().any(|leaf| leaf.partition == partition) {
            let leaf = sealed.partition(partition);
            let _ =
                self.manage(9, Manager::provePartitionCall { batch: sealed.batch, parts: sealed.join, leaf });
        }
    }

    fn freeze(&mut self, partition: B256, which: u8) {
        if which.is_multiple_of(8) {
            self.world.wait(u64::from(Terms::default().exit_delay) + HOUR);
        }
        self.is_frozen |= self.manage(9, Manager::freezeCall { partition }).is_ok();
    }

    fn leave(&mut self, partition: B256) {
        let Some(sealed) = self.sealed.last().cloned() else { return };
        let Sealed { batch, join: parts, .. } = sealed.clone();
        let leaf = sealed.partition(partition);
        let open = Manager::openExitCall { batch: batch.clone(), parts: parts.clone(), leaf };
        let is_open = self.manage(9, open).is_ok();
        assert!(self.is_frozen || !is_open);
        let own: Vec<Address> =
            sealed.books.suppliers.keys().filter(|key| key.0 == partition).map(|key| key.1).collect();
        for supplier in own {
            let leaf = sealed.supplier(partition, supplier);
            let exit = Manager::frozenExitCall { batch: batch.clone(), parts: parts.clone(), leaf };
            let before = self.world.balance(B256::ZERO, supplier);
            if self.manage(9, exit).is_ok() {
                assert!(self.is_frozen);
                self.exited += self.world.balance(B256::ZERO, supplier) - before;
            }
        }
    }

    /// Nobody without a role gets anywhere.
    fn steal(&mut self, who: u8, partition: B256, holder: Address, amount: u128) {
        let thief = key(9).address();
        let transfer = chain::bindings::Amp::transferByPartitionCall {
            partition,
            from: holder,
            to: thief,
            value: U256::from(amount),
            data: chain::flexa::change_partition(B256::ZERO),
            operatorData: Bytes::new(),
        };
        let amp = self.world.at.amp;
        assert!(self.world.send(&key(7 + who % 3), amp, transfer.abi_encode().into()).is_err());
        assert!(self.manage(9, Manager::setPosterCall { poster_: thief, creditPerHour_: 1 }).is_err());
        let signer = Manager::setSignerCall { signer: thief, shard: 1, from: 0, to: 99 };
        assert!(self.manage(9, signer).is_err());
        let reentering = self.payees[2];
        let set = Receiver::setCall { mood_: who % 4, target_: amp, call_: Bytes::new() };
        self.world.send(&key(1), reentering, set.abi_encode().into()).unwrap();
    }

    fn check(&mut self) {
        let head = self.world.ask(Manager::headInfoCall {});
        let guarantees = self.world.ask(Manager::guaranteeInfoCall {});
        let mut sums = [U256::ZERO; 3];
        for (partition, holder) in self.partitions {
            let info = self.world.ask(Manager::partitionInfoCall { partition });
            assert_eq!(info.balance, U256::from(self.world.balance(partition, holder)), "its own books");
            for (sum, part) in sums.iter_mut().zip([info.balance, info.claimed, info.guaranteed]) {
                *sum += part;
            }
        }
        assert_eq!(sums, [head.pool, head.claimed, guarantees.paid]);
        assert_eq!(
            U256::from(self.supplied),
            sums.iter().sum::<U256>() + U256::from(self.exited),
            "in is out"
        );
        if self.exited == 0 {
            let unbooked = guarantees.paid - guarantees.acknowledged;
            assert!(head.sumLocked + head.sumCredit - head.claimed <= head.pool + unbooked, "solvency");
        }
        let seen = (head.seq.to(), head.lsn.to(), head.sumCredit.to(), head.depositNonce.to());
        assert!(seen.0 == self.seen.0 || seen.0 == self.seen.0 + 1 && seen.1 > self.seen.1);
        assert!(seen.2 >= self.seen.2 && seen.3 >= self.seen.3);
        self.seen = seen;
        for promise in &self.promises {
            let published =
                self.sealed.last().and_then(|sealed| sealed.books.consumed.get(&promise.lock.lockId));
            let credited = published.map_or(0, |(_, _, amount)| *amount);
            assert!(credited + promise.guaranteed <= promise.lock.amount, "a lock pays at most once");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_whatever_is_called(steps in prop::collection::vec(any::<Step>(), 60..160)) {
        let mut play = Play::new();
        for step in steps {
            play.step(step);
            play.check();
        }
    }
}

/// The random calls reach what they are to try: else the property would say little.
#[test]
fn the_calls_reach_every_end() {
    let mut play = Play::new();
    let pool = play.partitions[0].0;
    let script: [Step; 18] = [
        (0, 0, 0, 199),
        (2, 0, 0, 40),
        (2, 0, 0, 30),
        (2, 0, 0, 10),
        (4, 0, 0, 9),
        (5, 0, 0, 0),
        (11, 0, 0, 0),
        (11, 0, 1, 0),
        (13, 0, 1, 0),
        (17, 0, 0, 0),
        (5, 0, 0, 0),
        (5, 0, 0, 0),
        (15, 0, 120, 0),
        (16, 0, 0, 0),
        (14, 0, 0, 0),
        (14, 0, 1, 0),
        (15, 0, 8, 0),
        (10, 0, 0, 0),
    ];
    for step in script {
        play.step(step);
        play.check();
    }
    assert!(play.promises[0].guaranteed > 0 && play.promises[0].credited > 0, "both ways of paying");
    assert_eq!(play.promises[1].guaranteed, 0, "a release");
    assert!(play.world.ask(Manager::headInfoCall {}).claimed > U256::ZERO);
    let mut answered = 0;
    for _ in 0..4 {
        play.step((5, 0, 0, 0));
        play.check();
        answered = play.world.ask(Manager::partitionInfoCall { partition: pool }).exitsAnswered.to::<u64>();
    }
    assert_eq!(answered, 1);
    play.seen.0 = 1;
    play.step((17, 0, 0, 0));
    play.step((18, 0, 0, 0));
    assert!(play.is_frozen);
    play.world.wait(9 * 24 * HOUR);
    play.step((19, 0, 0, 0));
    assert!(play.exited > 0);
}
