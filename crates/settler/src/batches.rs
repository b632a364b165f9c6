//! What became of the last batches, step by step, for whoever watches a settler. Nothing is decided by it.

use std::collections::BTreeMap;

use settlement::Hash;
use settlement::life::{Attempt, Log, Purpose, Refusal, Unbooked};
use surety_protocol::{Seq, Time};

use crate::look::{MinedIn, Sight};

/// Booked batches beyond this are forgotten, the oldest first.
pub const BATCHES_KEPT: usize = 64;

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It stands in the settler's log.
    Sealed,
    /// A transaction that commits it is signed, and is sent until a block has it.
    Posted,
    /// The contract has it, in a block that may still go.
    Mined,
    /// A final block has it.
    Final,
    /// The engine has its part for each partition.
    Booked,
}

/// A batch, and what became of it. Moments are by the settler's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLife {
    /// Its number: 1, 2, 3, ...
    pub seq: u64,
    /// Its head. A batch that was dropped has another than the one that was sealed in its place.
    pub head: Hash,
    /// How far it has come.
    pub stage: Stage,
    /// Why the contract refuses it, if it does.
    pub held: Option<Refusal>,
    /// Records that were netted.
    pub records: u32,
    /// What it takes out of all partitions, in base units.
    pub credited: u128,
    /// Partitions that it takes something out of.
    pub partitions: usize,
    /// Collateral that guaranteed something when it was sealed, in base units.
    pub locked: u128,
    /// How far each shard's stream was read for it; empty if that is not to be read.
    pub read: Vec<Seq>,
    /// When it was sealed.
    pub sealed_at: Time,
    /// The transaction that commits it: the one that a block has, or else the last that was signed. None for a final batch if it was never
    /// seen which.
    pub transaction: Option<Hash>,
    /// When the first was signed.
    pub posted_at: Option<Time>,
    /// The block that has it.
    pub block: Option<u64>,
    /// When that was seen.
    pub mined_at: Option<Time>,
    /// When it was seen in a final block; none if that was before the settler's start.
    pub final_at: Option<Time>,
    /// When the engine had all of it.
    pub booked_at: Option<Time>,
}

/// What the chain has of batches, as of one look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// The contract's last batch.
    last: u64,
    /// Transactions that a block has, and its number.
    mined: Vec<MinedIn>,
}

impl Taken {
    pub(crate) fn of(sight: &Sight) -> Self {
        Self { last: sight.view.latest.seq, mined: sight.mined.clone() }
    }
}

/// The last batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batches(BTreeMap<u64, BatchLife>);

impl Batches {
    /// What an opened log says: all that is not booked.
    pub(crate) fn new(log: &Log, now: Time) -> Self {
        let mut batches = Self::default();
        batches.follow(log, None, now);
        batches
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &BatchLife> {
        self.0.values()
    }

    /// Takes in how the log stands now, and what the last look at the chain has shown, if there was one: once before the log notes what
    /// follows from that look, since it forgets the transactions of what is final, and once after.
    pub(crate) fn follow(&mut self, log: &Log, taken: Option<&Taken>, now: Time) {
        for unbooked in log.unbooked() {
            let seq = unbooked.sealed.batch.seq;
            let head = unbooked.sealed.batch.head();
            let before = self.0.remove(&seq).filter(|life| life.head == head);
            let mut life = before.unwrap_or_else(|| BatchLife::new(&unbooked));
            life.post(log.attempts(), taken);
            life.advance(&unbooked, taken, now);
            self.0.insert(seq, life);
        }
        let (sealed, booked) = (log.sealed_head().0, log.booked_seq());
        // What was dropped is no batch any more.
        self.0.retain(|seq, _| *seq <= sealed);
        for life in self.0.values_mut().filter(|life| life.seq <= booked && life.stage != Stage::Booked) {
            (life.stage, life.held, life.booked_at) = (Stage::Booked, None, Some(now));
        }
        let is_booked = |life: &BatchLife| life.stage == Stage::Booked;
        while self.0.values().filter(|life| is_booked(life)).count() > BATCHES_KEPT {
            self.0.pop_first();
        }
    }
}

impl BatchLife {
    fn new(unbooked: &Unbooked<'_>) -> Self {
        let (sealed, at) = (unbooked.sealed, unbooked.at);
        let credited = sealed.finals.iter().fold(0_u128, |sum, (_, amount)| sum.saturating_add(*amount));
        Self {
            seq: sealed.batch.seq,
            head: sealed.batch.head(),
            stage: Stage::Sealed,
            held: None,
            records: sealed.batch.count,
            credited,
            partitions: sealed.finals.len(),
            locked: sealed.batch.sum_locked,
            read: sealed.positions().map(|read| read.0).unwrap_or_default(),
            sealed_at: at,
            transaction: None,
            posted_at: None,
            block: None,
            mined_at: None,
            final_at: None,
            booked_at: None,
        }
    }

    /// Transactions are forgotten once their batch is final; what they were stays here.
    fn post(&mut self, attempts: &[Attempt], taken: Option<&Taken>) {
        let is_own = |attempt: &&Attempt| {
            attempt.seq == self.seq && attempt.purpose == Purpose::Commit && attempt.at >= self.sealed_at
        };
        let own: Vec<&Attempt> = attempts.iter().filter(is_own).collect();
        let (Some(first), Some(last)) = (own.first(), own.last()) else { return };
        self.posted_at = self.posted_at.or(Some(first.at));
        // After a replacement, any of them may be the one that a block has.
        let block_of = |attempt: &&Attempt| {
            let (_, block) = taken?.mined.iter().find(|(hash, _)| *hash == attempt.hash)?;
            Some((attempt.hash, *block))
        };
        match own.iter().find_map(block_of) {
            Some((hash, block)) => (self.transaction, self.block) = (Some(hash), Some(block)),
            None if self.block.is_none() => self.transaction = Some(last.hash),
            None => {}
        }
    }

    fn advance(&mut self, unbooked: &Unbooked<'_>, taken: Option<&Taken>, now: Time) {
        self.held = unbooked.held.filter(|_| !unbooked.is_final);
        if unbooked.is_final {
            // Of what an opened log has, nobody knows any more since when it is final.
            self.final_at = self.final_at.or(taken.filter(|_| self.stage < Stage::Final).map(|_| now));
            self.stage = Stage::Final;
            // Any of those that were signed may be the one.
            self.transaction = self.transaction.filter(|_| self.block.is_some());
        } else if taken.is_some_and(|taken| taken.last >= self.seq) {
            self.stage = Stage::Mined;
            self.mined_at = self.mined_at.or(Some(now));
        } else {
            // A block that is not final can go again.
            (self.block, self.mined_at) = (None, None);
            self.stage = if self.posted_at.is_some() { Stage::Posted } else { Stage::Sealed };
        }
    }
}

#[cfg(test)]
mod tests {
    use settlement::life::{Entry, Fees};
    use settlement::{Batch, Sealed};
    use surety_protocol::PartitionHandle;

    use super::*;

    fn sealed(seq: u64, prev_head: Hash) -> Sealed {
        let batch = Batch {
            seq,
            lsn_to: seq,
            prev_head,
            state_root: [1; 32],
            sum_locked: 7,
            sum_credit: 5,
            guaranteed_ack: 0,
            count: 3,
            data_hash: [2; 32],
        };
        let finals = vec![(PartitionHandle(1), 2), (PartitionHandle(2), 3)];
        Sealed { batch, credit_max: u128::MAX, finals, data: Vec::new() }
    }

    fn attempt(seq: u64, nonce: u64, hash: u8, at: u64, cap: u128) -> Entry {
        let fees = Fees { cap, tip: cap };
        Entry::Attempt(Attempt {
            seq,
            purpose: Purpose::Commit,
            nonce,
            fees,
            at: Time(at),
            block: 1,
            hash: [hash; 32],
            raw: Vec::new(),
        })
    }

    struct Watched {
        log: Log,
        batches: Batches,
    }

    impl Watched {
        fn new() -> Self {
            Self { log: Log::new([0; 32]), batches: Batches::default() }
        }

        fn seal(&mut self, seq: u64, at: u64) {
            let sealed = Box::new(sealed(seq, self.log.sealed_head().1));
            self.log.append(Entry::Sealed { sealed, at: Time(at) }).unwrap();
        }

        #[track_caller]
        fn check(&mut self, last: u64, mined: &[(u8, u64)], now: u64, expected: Stage) -> BatchLife {
            let mined = mined.iter().map(|(hash, block)| ([*hash; 32], *block)).collect();
            self.batches.follow(&self.log, Some(&Taken { last, mined }), Time(now));
            let life = self.batches.all().last().unwrap().clone();
            assert_eq!(life.stage, expected);
            life
        }
    }

    #[test]
    fn a_batch_is_followed_from_its_seal_to_the_engine() {
        let mut watched = Watched::new();
        watched.seal(1, 10);
        let life = watched.check(0, &[], 11, Stage::Sealed);
        assert_eq!((life.records, life.credited, life.partitions, life.locked), (3, 5, 2, 7));
        watched.log.append(attempt(1, 0, 1, 12, 100)).unwrap();
        assert_eq!(watched.check(0, &[], 13, Stage::Posted).transaction, Some([1; 32]));
        // A replacement, and the first of the two that a block takes.
        watched.log.append(attempt(1, 0, 2, 14, 200)).unwrap();
        assert_eq!(watched.check(0, &[], 15, Stage::Posted).transaction, Some([2; 32]));
        let life = watched.check(1, &[(1, 77)], 16, Stage::Mined);
        assert_eq!((life.transaction, life.block, life.mined_at), (Some([1; 32]), Some(77), Some(Time(16))));
        // The block goes, and another one takes the other.
        let life = watched.check(0, &[], 17, Stage::Posted);
        assert_eq!((life.block, life.mined_at, life.posted_at), (None, None, Some(Time(12))));
        let life = watched.check(1, &[(2, 79)], 18, Stage::Mined);
        assert_eq!((life.transaction, life.block), (Some([2; 32]), Some(79)));
        watched.log.append(Entry::Final { seq: 1, block: 80, nonce: 1 }).unwrap();
        assert_eq!(watched.check(1, &[], 19, Stage::Final).final_at, Some(Time(19)));
        watched.log.append(Entry::Booked { seq: 1 }).unwrap();
        let life = watched.check(1, &[], 20, Stage::Booked);
        assert_eq!((life.transaction, life.block), (Some([2; 32]), Some(79)));
        assert_eq!((life.sealed_at, life.booked_at), (Time(10), Some(Time(20))));
    }

    /// A batch that was posted, replaced and mined while nobody looked, as the first look of an opened log shows it.
    #[track_caller]
    fn final_at_first_look(mined: &[(u8, u64)]) -> BatchLife {
        let mut watched = Watched::new();
        watched.seal(1, 10);
        watched.log.append(attempt(1, 0, 1, 11, 100)).unwrap();
        watched.log.append(attempt(1, 0, 2, 12, 200)).unwrap();
        watched.batches = Batches::new(&watched.log, Time(50));
        assert_eq!(watched.batches.all().next().unwrap().transaction, Some([2; 32]));
        watched.check(1, mined, 51, Stage::Mined);
        watched.log.append(Entry::Final { seq: 1, block: 90, nonce: 1 }).unwrap();
        assert!(watched.log.attempts().is_empty());
        watched.check(1, mined, 51, Stage::Final);
        watched.log.append(Entry::Booked { seq: 1 }).unwrap();
        watched.check(1, &[], 52, Stage::Booked)
    }

    #[test]
    fn a_batch_that_is_final_at_the_first_look_has_the_transaction_that_a_block_has() {
        let life = final_at_first_look(&[(1, 77)]);
        assert_eq!((life.transaction, life.block), (Some([1; 32]), Some(77)));
        assert_eq!((life.posted_at, life.final_at), (Some(Time(11)), Some(Time(51))));
        let life = final_at_first_look(&[(2, 78)]);
        assert_eq!((life.transaction, life.block), (Some([2; 32]), Some(78)));
    }

    #[test]
    fn a_final_batch_names_no_transaction_that_no_block_was_seen_to_have() {
        let life = final_at_first_look(&[]);
        assert_eq!((life.transaction, life.block, life.posted_at), (None, None, Some(Time(11))));
    }

    #[test]
    fn a_batch_that_was_dropped_leaves_nothing_to_the_one_in_its_place() {
        let mut watched = Watched::new();
        watched.seal(1, 10);
        watched.log.append(attempt(1, 0, 1, 11, 100)).unwrap();
        watched.log.append(Entry::Held { seq: 1, refusal: Refusal::Paused }).unwrap();
        assert_eq!(watched.check(0, &[], 12, Stage::Posted).held, Some(Refusal::Paused));
        watched.log.append(Entry::Dropped { from: 1 }).unwrap();
        watched.batches.follow(&watched.log, None, Time(13));
        assert_eq!(watched.batches.all().count(), 0);
        watched.seal(1, 14);
        let life = watched.check(0, &[], 15, Stage::Sealed);
        assert_eq!((life.transaction, life.held), (None, None));
    }

    #[test]
    fn what_is_kept_has_an_end_and_an_opened_log_tells_what_is_open() {
        let mut watched = Watched::new();
        for seq in 1..=100 {
            watched.seal(seq, seq * 10);
            watched.log.append(Entry::Final { seq, block: seq, nonce: 0 }).unwrap();
            watched.batches.follow(&watched.log, None, Time(seq * 10 + 1));
            watched.log.append(Entry::Booked { seq }).unwrap();
        }
        watched.seal(101, 1010);
        watched.check(100, &[], 1011, Stage::Sealed);
        assert_eq!(watched.batches.all().count(), BATCHES_KEPT + 1);
        assert_eq!(watched.batches.all().next().unwrap().seq, 37);
        let opened = Batches::new(&watched.log, Time(2000));
        let open: Vec<_> = opened.all().map(|life| (life.seq, life.stage)).collect();
        assert_eq!(open, [(101, Stage::Sealed)]);
    }
}
