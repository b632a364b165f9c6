//! The model check: random schedules of reorgs, dropped and replaced transactions, lost replies, fee spikes, crashes, refusals and
//! foreign transactions, against a small chain. Nothing is applied twice, and in the end everything is settled.
//!
//! `SETTLEMENT_SCHEDULES=100000 cargo test --release -p settlement --test schedules` runs more of them, from `SETTLEMENT_SEED` on.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod chain;

use std::env;

use chain::{Chain, Rules};
use settlement::life::{
    Action, Attempt, DataPolicy, Entry, FeePolicy, FlushPolicy, Fold, Halt, Log, Pile, Policy, Purpose,
    Refusal, next_action,
};
use settlement::{Domain, NettingConfig, Sealer, keccak};
use surety_protocol::{Address, EngineId, Record, Seq, ShardId, Time};

const DOMAIN: Domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };
const NETTING: NettingConfig = NettingConfig { shards: 1, salt_key: [3; 32], claim_span: Time(0) };
const POLICY: Policy = Policy {
    fees: FeePolicy {
        tip: 2,
        tip_max: 1 << 100,
        cap_max: 1 << 100,
        gas: 66_000,
        replace_after: Time::from_secs(48),
        replace_after_blocks: 3,
        wei_per_whole: 1 << 60,
        target_age: Time::from_secs(60),
        deadline_age: Time::from_secs(3600),
        daily_budget: u128::MAX,
    },
    flush: FlushPolicy {
        age_max: Time::ZERO,
        value_max: 1,
        records_max: 1,
        cheap_age: Time::ZERO,
        retry_after: Time::from_secs(30),
    },
    data: DataPolicy::NONE,
};

/// SplitMix64: the schedule is the seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// The settler's process: what it knows is what its log says.
struct Settler {
    log: Log,
    sealer: Sealer,
    /// The last record of the change stream.
    stream: Seq,
    /// What is durable: all before some entry in one piece, and the entries since.
    folded: Option<Vec<u8>>,
    disk: Vec<Vec<u8>>,
    /// Snapshots of the sealer, by the batch that they stand behind.
    snapshots: Vec<Vec<u8>>,
}

impl Settler {
    fn new() -> Self {
        let sealer = Sealer::new(NETTING, &DOMAIN);
        let snapshots = vec![sealer.snapshot()];
        Self {
            log: Log::new(DOMAIN.separator()),
            sealer,
            stream: Seq(0),
            folded: None,
            disk: Vec::new(),
            snapshots,
        }
    }

    fn append(&mut self, entry: Entry) {
        self.disk.push(entry.to_bytes());
        self.log.append(entry).unwrap();
    }

    /// Kill -9, and start again from what is durable.
    fn crash(&mut self) {
        self.log = self.recovered();
        let seq = usize::try_from(self.log.sealed_head().0).unwrap();
        self.snapshots.truncate(seq + 1);
        self.sealer = Sealer::restore(NETTING, &self.snapshots[seq]).unwrap();
        assert_eq!(self.sealer.head(), self.log.sealed_head());
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.disk.iter().map(|bytes| Entry::from_bytes(bytes).unwrap())
    }

    fn recovered(&self) -> Log {
        match &self.folded {
            None => Log::recover(DOMAIN.separator(), self.entries()).unwrap(),
            Some(folded) => {
                Fold::from_bytes(folded).unwrap().log().clone().followed_by(self.entries()).unwrap()
            }
        }
    }

    /// Puts one piece in the place of all entries. False if no batch was booked since the last one.
    fn fold(&mut self) -> bool {
        let before = self.folded.as_deref().map(|folded| Fold::from_bytes(folded).unwrap());
        let base = before.as_ref().map(Fold::base);
        let mut sealed = before.as_ref().map(|before| before.sealed().clone()).unwrap_or_default();
        for entry in self.entries() {
            match entry {
                Entry::Sealed { sealed: batch, .. } => _ = sealed.insert(batch.batch.seq, *batch),
                Entry::Dropped { from } => drop(sealed.split_off(&from)),
                _ => {}
            }
        }
        let log = self.recovered();
        let batch = log.booked_seq();
        let Some(fold) = Fold::new(log.clone(), base, sealed, batch).unwrap() else {
            assert_eq!(batch, base.map_or(0, |base| base.batch.seq), "only what is booked is folded");
            return false;
        };
        let bytes = fold.to_bytes();
        let again = Fold::from_bytes(&bytes).unwrap();
        assert_eq!((&again, again.log()), (&fold, &log));
        (self.folded, self.disk) = (Some(bytes), Vec::new());
        true
    }

    fn read_to(&self) -> Seq {
        self.sealer.netting().positions().0[0]
    }

    fn seal(&mut self, credit_max: u128, at: Time) {
        // Records that move nothing: what matters here is how batches travel.
        while self.read_to() < self.stream {
            self.sealer.read(ShardId(0), self.read_to().next(), &Record::from_bytes(&[0; 128])).unwrap();
        }
        let sealed = self.sealer.seal(credit_max).unwrap();
        self.snapshots.push(self.sealer.snapshot());
        self.append(Entry::Sealed { sealed: Box::new(sealed), at });
    }
}

/// How often what is hard has happened: a campaign in which it has not shows nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    crashes: u64,
    folded: u64,
    batches_reorged_out: u64,
    foreign: u64,
    replaced: u64,
    cancelled: u64,
    resealed: u64,
    booked: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.folded += other.folded;
        self.batches_reorged_out += other.batches_reorged_out;
        self.foreign += other.foreign;
        self.replaced += other.replaced;
        self.cancelled += other.cancelled;
        self.resealed += other.resealed;
        self.booked += other.booked;
    }

    fn is_complete(&self, rules: Rules) -> bool {
        let common = [self.crashes, self.folded, self.batches_reorged_out, self.replaced, self.booked];
        let interfered = [self.foreign, self.cancelled, self.resealed];
        common.iter().all(|count| *count > 0)
            && (rules == Rules::Unchecked || interfered.iter().all(|count| *count > 0))
    }
}

/// One schedule.
struct World {
    random: Random,
    chain: Chain,
    settler: Settler,
    now: Time,
    tally: Tally,
    faults: bool,
    may_interfere: bool,
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        Self {
            random: Random(seed),
            chain: Chain::new(rules, DOMAIN.separator()),
            settler: Settler::new(),
            now: Time::from_secs(1_000_000),
            tally: Tally::default(),
            faults: true,
            may_interfere: rules == Rules::Checked,
        }
    }

    /// Runs with faults, then without, and looks at what became of it.
    fn run(mut self, seed: u64) -> Tally {
        for _ in 0..120 {
            self.happen();
            self.step();
        }
        self.faults = false;
        self.chain.calm();
        for _ in 0..400 {
            self.chain.mine(&mut |_| true);
            self.now = self.now.plus(Time::from_secs(12));
            self.step();
            if self.is_settled() {
                break;
            }
        }
        assert_eq!(self.chain.doubles(), 0, "seed {seed}: a batch was applied twice");
        assert_eq!(self.settler.log.halt(), None, "seed {seed}: halted");
        assert!(self.is_settled(), "seed {seed}: not everything is settled");
        self.tally
    }

    /// Every record of the stream is in a booked batch.
    fn is_settled(&self) -> bool {
        let log = &self.settler.log;
        let is_booked = log.booked_seq() > 0 && log.booked_seq() == log.sealed_head().0;
        is_booked && self.settler.read_to() == self.settler.stream
    }

    /// What the world does in between.
    fn happen(&mut self) {
        self.now = self.now.plus(Time::from_secs(self.random.below(20)));
        match self.random.below(20) {
            0..=8 => {
                let random = &mut self.random;
                self.chain.mine(&mut |_| !random.one_in(4));
            }
            9 => {
                let depth = self.random.below(6);
                let keep = self.random.below(3) != 0;
                self.tally.batches_reorged_out += self.chain.reorg(depth, keep);
            }
            10 => self.chain.drop_one(self.random.next()),
            11 => self.chain.set_base_fee([5, 20, 80, 300][usize::try_from(self.random.below(4)).unwrap()]),
            12 => self.crash(),
            13 if self.may_interfere => {
                self.tally.foreign += 1;
                self.chain.foreign();
            }
            14 if self.may_interfere => self.chain.refuse(self.random.one_in(2)),
            _ => {}
        }
    }

    /// One turn of the settler, which may be killed in the middle.
    fn step(&mut self) {
        let pile = Pile {
            records: u64::from(self.settler.stream < Seq(6) && self.faults),
            is_urgent: true,
            ..Pile::default()
        };
        let lag = if self.faults { self.random.below(3) } else { 0 };
        let is_blind = self.faults && self.random.one_in(6);
        let Some(mut view) = self.chain.view(lag, self.now, self.settler.log.attempts(), is_blind) else {
            return;
        };
        view.pile = pile;
        if let Some(sealed) = self.settler.log.sealed(view.latest.seq + 1) {
            let is_refused = self.chain.refuses(sealed.batch.prev_head);
            view.refusal = is_refused.then_some((sealed.batch.seq, Refusal::Paused));
        }
        let action = next_action(&self.settler.log, &view, &POLICY).action;
        self.act(action, view.block);
    }

    fn act(&mut self, action: Action, block: u64) {
        let killed_before = self.faults && self.random.one_in(25);
        let killed_after = self.faults && self.random.one_in(25);
        if killed_before {
            return self.crash();
        }
        match action {
            Action::Wait => {}
            Action::Seal { credit_max } => {
                self.settler.stream = self.settler.stream.next();
                self.settler.seal(credit_max, self.now);
            }
            Action::Sign { seq, purpose, nonce, fees } => {
                let head = self.settler.log.sealed(seq).map(|sealed| sealed.batch.head()).unwrap_or_default();
                let raw = chain::sign(&self.settler.log, seq, purpose, nonce, fees);
                let hash = keccak(&[&raw, &head]);
                let at = self.now;
                self.tally.replaced +=
                    u64::from(self.settler.log.attempts().iter().any(|old| old.nonce == nonce));
                self.tally.cancelled += u64::from(purpose == Purpose::Cancel);
                let attempt = Attempt { seq, purpose, nonce, fees, at, block, hash, raw };
                self.settler.append(Entry::Attempt(attempt));
            }
            Action::Broadcast { hash } => {
                let attempt = self.settler.log.attempt_of(&hash).unwrap();
                let is_lost = self.faults && self.random.one_in(8);
                if !is_lost {
                    self.chain.send(attempt);
                }
            }
            Action::Finalise { seq, block, nonce } => self.settler.append(Entry::Final { seq, block, nonce }),
            Action::Book { seq } => {
                let head = self.settler.log.sealed(seq).unwrap().batch.head();
                assert!(self.chain.is_final(seq, head), "batch {seq} is booked before it is final");
                self.tally.booked += 1;
                self.settler.append(Entry::Booked { seq });
            }
            Action::Hold { seq, refusal } => self.settler.append(Entry::Held { seq, refusal }),
            Action::Reseal { from } => {
                self.tally.resealed += 1;
                let before = usize::try_from(from - 1).unwrap();
                self.settler.append(Entry::Dropped { from });
                self.settler.snapshots.truncate(before + 1);
                self.settler.sealer = Sealer::restore(NETTING, &self.settler.snapshots[before]).unwrap();
                // What was netted for them is sealed again.
                self.settler.seal(u128::MAX, self.now);
            }
            Action::Halt(halt) => self.settler.append(Entry::Halted(halt)),
        }
        if killed_after {
            self.crash();
        }
    }

    fn crash(&mut self) {
        self.tally.crashes += 1;
        if self.random.one_in(4) {
            self.tally.folded += u64::from(self.settler.fold());
        }
        self.settler.crash();
    }
}

fn schedules(rules: Rules) {
    let number = |name: &str, default: u64| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, count) = (number("SETTLEMENT_SEED", 1), number("SETTLEMENT_SCHEDULES", 5_000));
    let mut tally = Tally::default();
    for seed in first..first + count {
        tally.add(World::new(seed, rules).run(seed));
    }
    println!("{count} schedules, {rules:?}: {tally:?}");
    assert!(count < 1_000 || tally.is_complete(rules), "something never happened: {tally:?}");
}

#[test]
fn whatever_the_chain_does_everything_is_settled_once() {
    schedules(Rules::Checked);
}

/// The nonces alone must prevent doubles, as far as nobody else uses the account: the contract's check is the second guard.
#[test]
fn nonces_alone_apply_nothing_twice() {
    schedules(Rules::Unchecked);
}

#[test]
fn a_batch_of_somebody_else_halts_the_settler() {
    let mut world = World::new(1, Rules::Checked);
    world.faults = false;
    world.chain.commit_foreign_batch();
    for _ in 0..3 {
        world.chain.mine(&mut |_| true);
        world.step();
    }
    assert_eq!(world.settler.log.halt(), Some(Halt::UnknownHead));
}
