//! The table of a batch's life, row by row: what is done in which state of log and chain.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use settlement::life::*;
use settlement::{Domain, Hash, NettingConfig, Sealer};
use surety_protocol::{Address, EngineId, Record, Seq, ShardId, Time};

const DOMAIN: Domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };
const NETTING: NettingConfig = NettingConfig { shards: 1, salt_key: [3; 32], claim_span: Time(0) };
const START: Time = Time::from_secs(1_000);
const POLICY: Policy = Policy {
    fees: FeePolicy {
        tip: 2,
        tip_max: 1 << 40,
        cap_max: 1 << 60,
        gas: 100,
        replace_after: Time::from_secs(48),
        replace_after_blocks: 3,
        wei_per_whole: 1 << 60,
        target_age: Time::from_secs(60),
        deadline_age: Time::from_secs(600),
        daily_budget: 1 << 60,
    },
    flush: FlushPolicy {
        age_max: Time::from_secs(600),
        value_max: 1_000,
        records_max: 100,
        cheap_age: Time::from_secs(60),
        retry_after: Time::from_secs(60),
    },
    data: DataPolicy::NONE,
};

/// A log of so many sealed batches, and a view of a chain that has none of them.
struct Bench {
    log: Log,
    heads: Vec<Hash>,
    view: View,
}

impl Bench {
    fn new(batches: u64) -> Self {
        let mut sealer = Sealer::new(NETTING, &DOMAIN);
        let mut log = Log::new(DOMAIN.separator());
        let mut heads = vec![DOMAIN.separator()];
        for seq in 1..=batches {
            sealer.read(ShardId(0), Seq(seq), &Record::from_bytes(&[0; 128])).unwrap();
            let sealed = Box::new(sealer.seal(u128::MAX).unwrap());
            heads.push(sealed.batch.head());
            log.append(Entry::Sealed { sealed, at: START }).unwrap();
        }
        let head = ContractHead { seq: 0, head: heads[0] };
        let view = View {
            now: START.plus(Time::from_secs(60)),
            is_right_chain: true,
            block: 100,
            latest: head,
            finalized_block: 90,
            finalized: head,
            nonce: 7,
            finalized_nonce: 7,
            is_frozen: false,
            base_fee: 10,
            base_fee_mean: 10,
            balance: 1 << 70,
            spent_today: 0,
            transactions: Vec::new(),
            refusal: None,
            pile: Pile::default(),
            credit_max: 5_000,
        };
        Self { log, heads, view }
    }

    fn head(&self, seq: u64) -> ContractHead {
        ContractHead { seq, head: self.heads[usize::try_from(seq).unwrap()] }
    }

    fn signed(&mut self, seq: u64, purpose: Purpose, nonce: u64, cap: u128) -> Hash {
        let hash = [u8::try_from(self.log.attempts().len() + 1).unwrap(); 32];
        let fees = Fees { cap, tip: cap / 10 };
        let at = self.view.now;
        let attempt = Attempt { seq, purpose, nonce, fees, at, block: 100, hash, raw: vec![1, 2] };
        self.log.append(Entry::Attempt(attempt)).unwrap();
        hash
    }

    #[track_caller]
    fn expect(&self, action: Action, alarm: Option<Alarm>) {
        assert_eq!(next_action(&self.log, &self.view, &POLICY), Decision { action, alarm });
    }

    #[track_caller]
    fn expect_signing(&self, seq: u64, purpose: Purpose, nonce: u64) {
        let found = next_action(&self.log, &self.view, &POLICY).action;
        let Action::Sign { seq: s, purpose: p, nonce: n, .. } = found else { panic!("{found:?}") };
        assert_eq!((s, p, n), (seq, purpose, nonce));
    }
}

const SIGN_FIRST: Action =
    Action::Sign { seq: 1, purpose: Purpose::Commit, nonce: 7, fees: Fees { cap: 22, tip: 2 } };

#[test]
fn open_is_sealed_when_it_is_due_and_three_at_most_are_under_way() {
    let mut bench = Bench::new(0);
    bench.expect(Action::Wait, None);
    bench.view.pile = Pile { records: 100, ..Pile::default() };
    bench.expect(Action::Seal { credit_max: 5_000 }, None);
    let mut bench = Bench::new(3);
    bench.view.pile = Pile { records: 100, ..Pile::default() };
    for seq in 1..=3 {
        bench.expect_signing(seq, Purpose::Commit, 6 + seq);
        let hash = bench.signed(seq, Purpose::Commit, 6 + seq, 100);
        bench.expect(Action::Broadcast { hash }, None);
        bench.view.transactions.push((hash, TxState::Pending));
    }
    bench.expect(Action::Wait, None);
    bench.view.latest = bench.head(1);
    bench.view.nonce = 8;
    bench.expect(Action::Seal { credit_max: 5_000 }, None);
}

#[test]
fn sealed_is_signed_with_the_nonce_that_the_chain_implies() {
    let mut bench = Bench::new(1);
    bench.expect(SIGN_FIRST, None);
    let hash = bench.signed(1, Purpose::Commit, 7, 100);
    bench.expect(Action::Broadcast { hash }, None);
    // Somebody used the nonce: a new attempt with the next one.
    bench.view.nonce = 8;
    bench.expect_signing(1, Purpose::Commit, 8);
}

#[test]
fn sent_is_sent_again_with_the_same_bytes_and_replaced_when_it_is_stuck() {
    let mut bench = Bench::new(1);
    let hash = bench.signed(1, Purpose::Commit, 7, 100);
    bench.expect(Action::Broadcast { hash }, None);
    bench.view.transactions = vec![(hash, TxState::Pending)];
    bench.expect(Action::Wait, None);
    // While no block is made, none has passed it over: paying more would get nothing in.
    bench.view.now = bench.view.now.plus(Time::from_secs(48));
    bench.expect(Action::Wait, None);
    bench.view.block += 1;
    let more = Fees { cap: 114, tip: 13 };
    let bump = Action::Sign { seq: 1, purpose: Purpose::Commit, nonce: 7, fees: more };
    bench.expect(bump, None);
    bench.view.now = bench.view.now.minus(Time::from_secs(1));
    bench.expect(Action::Wait, None);
    bench.view.block += 2;
    bench.expect(bump, None);
    bench.view.block -= 2;
    bench.view.transactions = vec![(hash, TxState::Underpriced)];
    bench.expect(bump, None);
    // The one that is to replace it is refused too: a third before the next block would be no better.
    bench.view.block -= 1;
    bench.expect(bump, None);
    let hash = bench.signed(1, Purpose::Commit, 7, 140);
    bench.view.transactions = vec![(hash, TxState::Underpriced)];
    bench.expect(Action::Wait, None);
    bench.view.block += 1;
    bench.expect_signing(1, Purpose::Commit, 7);
}

#[test]
fn what_cannot_be_paid_is_said() {
    let mut bench = Bench::new(1);
    bench.view.balance = 100 * 22 - 1;
    bench.expect(Action::Wait, Some(Alarm::InsufficientFunds));
    bench.view.balance += 1;
    bench.expect(SIGN_FIRST, None);
    bench.view.spent_today = 1 << 60;
    bench.expect(Action::Wait, Some(Alarm::TooDear));
    bench.view.now = START.plus(Time::from_secs(600));
    bench.expect(SIGN_FIRST, Some(Alarm::CeilingPassed));
}

#[test]
fn included_is_final_then_booked_and_a_reorg_sends_it_again() {
    let mut bench = Bench::new(1);
    let hash = bench.signed(1, Purpose::Commit, 7, 100);
    (bench.view.latest, bench.view.nonce) = (bench.head(1), 8);
    bench.expect(Action::Wait, None);
    (bench.view.latest, bench.view.nonce) = (bench.head(0), 7);
    bench.expect(Action::Broadcast { hash }, None);
    (bench.view.latest, bench.view.nonce) = (bench.head(1), 8);
    (bench.view.finalized, bench.view.finalized_nonce) = (bench.head(1), 8);
    bench.expect(Action::Finalise { seq: 1, block: 90, nonce: 8 }, None);
    bench.log.append(Entry::Final { seq: 1, block: 90, nonce: 8 }).unwrap();
    assert_eq!(bench.log.attempts(), []);
    bench.expect(Action::Book { seq: 1 }, None);
    bench.log.append(Entry::Booked { seq: 1 }).unwrap();
    bench.expect(Action::Wait, None);
    // A node that is behind what was seen before is not believed, and nothing is undone.
    bench.view.finalized_block = 89;
    (bench.view.latest, bench.view.finalized) = (bench.head(0), bench.head(0));
    bench.expect(Action::Wait, Some(Alarm::StaleView));
    bench.view.finalized_block = 91;
    bench.expect(Action::Halt(Halt::FinalityBroken), Some(Alarm::Halted(Halt::FinalityBroken)));
}

#[test]
fn a_refused_batch_is_held_and_sealed_anew_when_nothing_of_it_can_land() {
    let mut bench = Bench::new(2);
    bench.view.refusal = Some((1, Refusal::PayoutLimit));
    let held = Some(Alarm::Held(Refusal::PayoutLimit));
    bench.expect(Action::Hold { seq: 1, refusal: Refusal::PayoutLimit }, held);
    bench.log.append(Entry::Held { seq: 1, refusal: Refusal::PayoutLimit }).unwrap();
    bench.expect(Action::Reseal { from: 1 }, held);
    // The same with transactions that may still land.
    let mut bench = Bench::new(2);
    bench.signed(1, Purpose::Commit, 7, 100);
    bench.signed(2, Purpose::Commit, 8, 100);
    bench.log.append(Entry::Held { seq: 1, refusal: Refusal::Insolvent }).unwrap();
    let held = Some(Alarm::Held(Refusal::Insolvent));
    bench.expect_signing(1, Purpose::Cancel, 7);
    let hash = bench.signed(1, Purpose::Cancel, 7, 200);
    bench.expect(Action::Broadcast { hash }, held);
    bench.view.nonce = 8;
    bench.expect_signing(1, Purpose::Cancel, 8);
    bench.view.nonce = 9;
    bench.expect(Action::Wait, held);
    bench.view.finalized_nonce = 9;
    bench.expect(Action::Reseal { from: 1 }, held);
    bench.log.append(Entry::Dropped { from: 1 }).unwrap();
    assert_eq!(bench.log.sealed_head(), (0, DOMAIN.separator()));
    // It landed all the same: then it is held no longer.
    let mut bench = Bench::new(2);
    bench.log.append(Entry::Held { seq: 1, refusal: Refusal::Paused }).unwrap();
    bench.view.latest = bench.head(1);
    bench.expect_signing(2, Purpose::Commit, 7);
}

#[test]
fn what_is_not_ours_halts() {
    let halts = |halt| (Action::Halt(halt), Some(Alarm::Halted(halt)));
    let check = |alter: fn(&mut Bench), halt| {
        let mut bench = Bench::new(2);
        alter(&mut bench);
        let (action, alarm) = halts(halt);
        bench.expect(action, alarm);
        bench.log.append(Entry::Halted(halt)).unwrap();
        bench.expect(Action::Wait, alarm);
        assert_eq!(bench.log.append(Entry::Dropped { from: 1 }), Err(LogError::Halted));
    };
    check(|bench| bench.view.is_right_chain = false, Halt::WrongChain);
    check(|bench| bench.view.is_frozen = true, Halt::Frozen);
    check(|bench| bench.view.latest.head = [1; 32], Halt::UnknownHead);
    check(|bench| bench.view.latest = ContractHead { seq: 1, head: [1; 32] }, Halt::UnknownHead);
    check(|bench| bench.view.latest = ContractHead { seq: 3, head: [1; 32] }, Halt::UnknownHead);
    check(|bench| bench.view.finalized = ContractHead { seq: 1, head: [1; 32] }, Halt::UnknownHead);
}

#[test]
fn a_log_takes_what_follows_and_nothing_else() {
    let check = |entries: &[Entry], error| {
        let mut bench = Bench::new(2);
        let (last, before) = entries.split_last().unwrap();
        before.iter().for_each(|entry| bench.log.append(entry.clone()).unwrap());
        let kept = bench.log.clone();
        assert_eq!(bench.log.append(last.clone()), Err(error));
        assert_eq!(bench.log, kept);
    };
    let fin = |seq| Entry::Final { seq, block: 1, nonce: 0 };
    check(&[fin(2)], LogError::NotNext(2));
    check(&[fin(1), fin(1)], LogError::NotNext(1));
    check(&[Entry::Booked { seq: 1 }], LogError::NotOpen(1));
    check(&[fin(1), fin(2), Entry::Booked { seq: 2 }], LogError::NotNext(2));
    check(&[fin(1), Entry::Dropped { from: 1 }], LogError::NotOpen(1));
    check(&[Entry::Held { seq: 3, refusal: Refusal::Other }], LogError::NotOpen(3));
    let mut bench = Bench::new(1);
    bench.signed(1, Purpose::Commit, 7, 100);
    let cheap = Attempt { fees: Fees { cap: 110, tip: 20 }, ..bench.log.attempts()[0].clone() };
    assert_eq!(bench.log.append(Entry::Attempt(cheap)), Err(LogError::Attempt(7)));
}

#[test]
fn every_entry_survives_and_damage_is_refused() {
    let mut bench = Bench::new(1);
    bench.signed(1, Purpose::Cancel, 7, 100);
    let entries = [
        Entry::Sealed { sealed: Box::new(bench.log.sealed(1).unwrap().clone()), at: START },
        Entry::Attempt(bench.log.attempts()[0].clone()),
        Entry::Final { seq: 1, block: 2, nonce: 3 },
        Entry::Booked { seq: 4 },
        Entry::Held { seq: 5, refusal: Refusal::Paused },
        Entry::Dropped { from: 6 },
        Entry::Halted(Halt::FinalityBroken),
    ];
    for entry in entries {
        let bytes = entry.to_bytes();
        assert_eq!(Entry::from_bytes(&bytes), Ok(entry));
        for cut in 0..bytes.len() {
            assert!(Entry::from_bytes(&bytes[..cut]).is_err());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Entry::from_bytes(&longer), Err(EntryError::Damaged));
        longer[0] = 2;
        assert_eq!(Entry::from_bytes(&longer), Err(EntryError::Version(2)));
    }
}

#[test]
fn what_was_refused_is_sealed_anew_later_and_later() {
    let mut bench = Bench::new(1);
    let sealed = bench.log.sealed(1).unwrap().clone();
    bench.view.pile = Pile { records: 1, is_urgent: true, ..Pile::default() };
    let mut at = START;
    for minutes in [1, 2, 4, 8, 16, 32, 64, 64] {
        bench.log.append(Entry::Dropped { from: 1 }).unwrap();
        let due = at.plus(Time::from_secs(60 * minutes));
        bench.view.now = Time(due.0 - 1);
        assert_eq!(next_action(&bench.log, &bench.view, &POLICY).action, Action::Wait, "{minutes}");
        bench.view.now = due;
        let action = next_action(&bench.log, &bench.view, &POLICY).action;
        assert_eq!(action, Action::Seal { credit_max: 5_000 }, "{minutes}");
        at = due;
        bench.log.append(Entry::Sealed { sealed: Box::new(sealed.clone()), at }).unwrap();
    }
    // Once the number is final, the next is sealed at once.
    bench.log.append(Entry::Final { seq: 1, block: 90, nonce: 7 }).unwrap();
    bench.log.append(Entry::Booked { seq: 1 }).unwrap();
    bench.view.latest = bench.head(1);
    bench.view.finalized = bench.head(1);
    assert_eq!(next_action(&bench.log, &bench.view, &POLICY).action, Action::Seal { credit_max: 5_000 });
}

#[test]
fn data_that_is_published_is_paid_for() {
    let bench = Bench::new(1);
    let bytes = bench.log.sealed(1).unwrap().data.len();
    let signs = |policy: &Policy, balance: u128| {
        let view = View { balance, ..bench.view.clone() };
        matches!(next_action(&bench.log, &view, policy).action, Action::Sign { .. })
    };
    let Action::Sign { fees, .. } = next_action(&bench.log, &bench.view, &POLICY).action else { panic!() };
    let plain = fees.cap * POLICY.fees.gas;
    assert!(signs(&POLICY, plain) && !signs(&POLICY, plain - 1));
    let data = DataPolicy { bytes_max: bytes, gas_per_byte: 40 };
    let published = Policy { data, ..POLICY };
    let whole = fees.cap * (POLICY.fees.gas + 40 * bytes as u128);
    assert!(signs(&published, whole) && !signs(&published, whole - 1));
    // What is too long is not published.
    let too_long = Policy { data: DataPolicy { bytes_max: bytes - 1, ..data }, ..POLICY };
    assert!(signs(&too_long, plain));
}
