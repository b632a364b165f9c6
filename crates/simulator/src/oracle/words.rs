//! What the oracle is asked and what it answers.

use surety_protocol::{
    ALL_CAPTURES, Code, End, Id, Kind, PartitionHandle, Record, Reply, Seq, ShardId, TenantId, Time,
};

use super::Account;

/// What is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Intake {
    /// Everything.
    #[default]
    All,
    /// Nothing that locks collateral.
    NoLocks,
    /// Nothing new.
    Nothing,
}

/// What the oracle is told once.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Which shard it speaks for.
    pub shard: ShardId,
    /// How old an id may be.
    pub id_window: Time,
    /// Ids remembered.
    pub ids_max: usize,
    /// Locks kept.
    pub locks_max: usize,
}

/// An id that is no lock's, with the first answer.
#[derive(Clone, Debug)]
pub(crate) struct Spent {
    /// The request as it was sent, with its tenant named; none if something else spent the id.
    pub(crate) request: Option<Vec<Record>>,
    pub(crate) kind: Kind,
    pub(crate) is_tombstone: bool,
    /// It is remembered for as long as an advice, with the lock that it was about.
    pub(crate) lasting: Option<Id>,
    pub(crate) answer: Answer,
}

impl Spent {
    /// Counted by the quota of advices, and kept as long as one.
    pub(crate) fn is_advice(&self) -> bool {
        self.lasting.is_some() || matches!(self.kind, Kind::Advice | Kind::Reverse)
    }
}

/// The first answer, as far as repeats tell it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) code: Code,
    pub(crate) approved: u128,
    pub(crate) extra: u128,
    pub(crate) deadline: Time,
    pub(crate) capture: u16,
    pub(crate) seq: Seq,
}

/// A price of an asset in a currency.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Price {
    pub(crate) price: u128,
    pub(crate) ratio_bps: u32,
    pub(crate) observed: Time,
    pub(crate) seq: Seq,
}

/// What the engine must do with one operation.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Its records, if it is logged.
    pub logged: Vec<Record>,
    /// What follows it in the log.
    pub follow: Vec<Record>,
    /// One for each request.
    pub replies: Vec<Reply>,
    /// The reply is about an id that is no lock's: only its code, seq, capture and end are promised.
    pub is_loose: bool,
}

/// A request that may be executed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    pub(crate) id: Id,
    pub(crate) tenant: TenantId,
    /// Where its id lives.
    pub(crate) home: Account,
    pub(crate) partition: PartitionHandle,
    pub(crate) seq: Seq,
    pub(crate) is_operator: bool,
    /// The id is good for as long as an advice's.
    pub(crate) is_lasting: bool,
    /// It is a lock and no sale.
    pub(crate) opens_lock: bool,
}

/// What a request came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Code,
    pub(crate) approved: u128,
    pub(crate) extra: u128,
    pub(crate) deadline: Time,
    pub(crate) capture: u16,
    /// The end that is shown where there is no lock.
    pub(crate) end: End,
    /// The lock that is shown.
    pub(crate) lock: Option<Id>,
    /// False for what leaves no record.
    pub(crate) is_logged: bool,
    /// True if the id is remembered by the lock that it made.
    pub(crate) made_lock: bool,
    /// Look-ups: the record that is shown.
    pub(crate) seq: Seq,
    /// Look-ups of a lasting id: the lock that it was about.
    pub(crate) about: Option<Id>,
}

impl Outcome {
    pub(crate) const fn new(code: Code) -> Self {
        Self {
            code,
            approved: 0,
            extra: 0,
            deadline: Time::ZERO,
            capture: ALL_CAPTURES,
            end: End::None,
            lock: None,
            is_logged: true,
            made_lock: false,
            seq: Seq(0),
            about: None,
        }
    }

    pub(crate) const fn of(code: Code, lock: Id) -> Self {
        let mut outcome = Self::new(code);
        outcome.lock = Some(lock);
        outcome
    }
}
