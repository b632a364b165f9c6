//! What may be asked: predicates in every combination, in either order, a page at a time.

use surety_protocol::{
    Address, Code, End, Id, Kind, MerchantId, PartitionHandle, Seq, ShardId, TenantId, Time,
};

use crate::cursor::Cursor;
use crate::error::QueryError;
use crate::row::{Lock, Row};

/// Rows of a page, at most.
pub const PAGE_ROWS_MAX: usize = 1000;
/// Predicates of a question, those of its alternatives counted.
pub const PREDICATES_MAX: usize = 64;

/// Something that a record is held against. The lock's merchant, payee and state are those that the record left; a group release is
/// held against each of the locks that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// The record makes or names this lock, or is a group release that does.
    Lock(Id),
    /// The lock guarantees this merchant.
    Merchant(MerchantId),
    /// The lock's merchant is paid at this address.
    Payee(Address),
    /// It happened in this partition.
    Partition(PartitionHandle),
    /// It is this tenant's.
    Tenant(TenantId),
    /// It names this supplier.
    Supplier(Address),
    /// It was answered so.
    Code(Code),
    /// It is of this kind.
    Kind(Kind),
    /// It left the lock in this state.
    State(End),
    /// What was asked lies between these amounts, both included, in base units (of the quote currency for a lock in one).
    Amount {
        /// The least.
        min: u128,
        /// The most.
        max: u128,
    },
    /// It was decided between these moments, the second not included.
    Time {
        /// From then on.
        from: Time,
        /// Until before then.
        until: Time,
    },
    /// One of these holds at least. There are no alternatives within alternatives.
    AnyOf(Vec<Predicate>),
}

/// In which order rows come: by time, then shard, then seq.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// The oldest first.
    Ascending = 0,
    /// The newest first.
    #[default]
    Descending = 1,
}

/// A row's place in the order of all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) time: Time,
    pub(crate) shard: ShardId,
    pub(crate) seq: Seq,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// All of these hold; without any, every record is meant.
    pub predicates: Vec<Predicate>,
    /// In which order.
    pub order: Order,
    /// Only what comes behind this; of a walk in the same order.
    pub cursor: Option<Cursor>,
    /// Rows of the page, at most [`PAGE_ROWS_MAX`].
    pub limit: usize,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<R, C = Cursor> {
    /// In the order that was asked for. The order holds within a page, and over the pages of a walk for what every shard had logged when the
    /// first was made: a row of a shard that is indexed late comes late, but it comes.
    pub rows: Vec<R>,
    /// Where to go on: behind it is everything that has not been looked at. Of an ascending walk that has come to its end it leads to
    /// what is indexed later; a descending walk shows what was indexed when it began. None only of live locks, if there were none.
    /// To whoever asked it tells nothing.
    pub cursor: Option<C>,
    /// False if the end was reached. True also where a page has fewer rows than were asked for, even none: one call looks at
    /// so much and no more.
    pub has_more: bool,
    /// Everything that was decided so far before this moment is indexed, in every shard. Of an idle shard the engine says so itself: it
    /// goes back if that starts again by a clock that was set back. Zero where nobody has said how many shards there are.
    pub complete_before: Time,
}

impl core::fmt::Display for Order {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Ascending => "ascending",
            Self::Descending => "descending",
        })
    }
}

impl Default for Query {
    fn default() -> Self {
        Self { predicates: Vec::new(), order: Order::default(), cursor: None, limit: 100 }
    }
}

impl Query {
    /// Everything that these hold of, the newest first.
    #[must_use]
    pub fn new(predicates: Vec<Predicate>) -> Self {
        Self { predicates, ..Self::default() }
    }

    /// # Errors
    /// What is wrong with the question.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        if self.limit == 0 || self.limit > PAGE_ROWS_MAX {
            return Err(QueryError::Limit { found: self.limit, max: PAGE_ROWS_MAX });
        }
        let count = |predicate: &Predicate| match predicate {
            Predicate::AnyOf(any) => 1 + any.len(),
            _ => 1,
        };
        let found = self.predicates.iter().map(count).sum();
        if found > PREDICATES_MAX {
            return Err(QueryError::TooManyPredicates { found, max: PREDICATES_MAX });
        }
        self.predicates.iter().try_for_each(Predicate::check)
    }
}

impl Predicate {
    fn check(&self) -> Result<(), QueryError> {
        match self {
            Self::Amount { min, max } if min > max => Err(QueryError::EmptyRange("amount")),
            Self::Time { from, until } if from >= until => Err(QueryError::EmptyRange("time")),
            Self::AnyOf(any) if any.is_empty() => Err(QueryError::EmptyAlternative),
            Self::AnyOf(any) => any.iter().try_for_each(|predicate| match predicate {
                Self::AnyOf(_) => Err(QueryError::Nested),
                predicate => predicate.check(),
            }),
            _ => Ok(()),
        }
    }

    /// True if it holds of a row. This alone decides what an answer has; everything else only saves looking.
    #[must_use]
    pub fn holds(&self, row: &Row) -> bool {
        let of_lock = |holds: &dyn Fn(&crate::row::LockAfter) -> bool| row.afters().any(holds);
        match self {
            Self::Lock(id) => row.locks().any(|lock| lock == *id),
            Self::Merchant(merchant) => of_lock(&|lock| lock.merchant == *merchant),
            Self::Payee(payee) => of_lock(&|lock| lock.payee == *payee),
            Self::Partition(partition) => row.record.partition == *partition,
            Self::Tenant(tenant) => row.record.tenant == *tenant,
            Self::Supplier(supplier) => row.supplier() == Some(*supplier),
            Self::Code(code) => row.record.code() == Some(*code),
            Self::Kind(kind) => row.record.kind() == Some(*kind),
            Self::State(end) => of_lock(&|lock| lock.end == *end),
            Self::Amount { min, max } => (*min..=*max).contains(&row.record.amount.0),
            Self::Time { from, until } => (*from..*until).contains(&row.time),
            Self::AnyOf(any) => any.iter().any(|predicate| predicate.holds(row)),
        }
    }

    /// # Errors
    /// [`QueryError::NotOfLocks`] of what locks do not have.
    pub(crate) fn check_of_locks(&self) -> Result<(), QueryError> {
        match self {
            Self::Supplier(_) => Err(QueryError::NotOfLocks("supplier")),
            Self::Kind(_) => Err(QueryError::NotOfLocks("kind")),
            Self::AnyOf(any) => any.iter().try_for_each(Self::check_of_locks),
            _ => Ok(()),
        }
    }

    /// True if it holds of a lock: of what was asked for it, and of how it stands now.
    pub(crate) fn holds_of_lock(&self, lock: &Lock) -> bool {
        match self {
            Self::Lock(id) => lock.key.id == *id,
            Self::Merchant(merchant) => lock.merchant == *merchant,
            Self::Payee(payee) => lock.payee == *payee,
            Self::Partition(partition) => lock.key.partition == *partition,
            Self::Tenant(tenant) => lock.key.tenant == *tenant,
            Self::Code(code) => lock.code == *code,
            Self::State(end) => lock.end == *end,
            Self::Amount { min, max } => (*min..=*max).contains(&lock.asked),
            Self::Time { from, until } => (*from..*until).contains(&lock.created),
            // Such questions are refused before.
            Self::Supplier(_) | Self::Kind(_) => false,
            Self::AnyOf(any) => any.iter().any(|predicate| predicate.holds_of_lock(lock)),
        }
    }
}

impl Place {
    pub(crate) const fn of(row: &Row) -> Self {
        Self { time: row.time, shard: row.shard, seq: row.seq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_refused_with_what_is_wrong_with_it() {
        let ask = |predicates| Query::new(predicates).check();
        assert!(ask(vec![]).is_ok());
        let amount = Predicate::Amount { min: 2, max: 1 };
        assert!(matches!(ask(vec![amount]), Err(QueryError::EmptyRange("amount"))));
        let time = Predicate::Time { from: Time(1), until: Time(1) };
        assert!(matches!(ask(vec![time.clone()]), Err(QueryError::EmptyRange("time"))));
        assert!(matches!(ask(vec![Predicate::AnyOf(vec![])]), Err(QueryError::EmptyAlternative)));
        let nested = Predicate::AnyOf(vec![Predicate::AnyOf(vec![time])]);
        assert!(matches!(ask(vec![nested]), Err(QueryError::Nested)));
        let many = vec![Predicate::Kind(Kind::Lock); PREDICATES_MAX + 1];
        assert!(matches!(ask(many), Err(QueryError::TooManyPredicates { .. })));
        for limit in [0, PAGE_ROWS_MAX + 1] {
            assert!(matches!(Query { limit, ..Query::default() }.check(), Err(QueryError::Limit { .. })));
        }
    }
}
