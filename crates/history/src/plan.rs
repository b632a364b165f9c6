//! Which blocks to look into: postings and zones leave out those that cannot hold anything that is asked for, and no others.

use std::time::{Duration, Instant};

use surety_protocol::{Seq, ShardId, Time};

use crate::codec::Zone;
use crate::error::HistoryError;
use crate::keys::{BlockNumber, Term};
use crate::query::{Order, Predicate};
use crate::store::{Table, View};

/// Work of one call, at most, in units of one look into the store; what is begun is finished.
pub(crate) const WORK_MAX: u32 = 40_000;
/// What reading and unpacking a block costs of that.
const BLOCK_WORK: u32 = 16;

/// How long one call may go on, at most; what is begun is finished. Less than anybody waits for an answer, so that on a slow disk
/// too a page comes, with the cursor to go on with.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(2);

/// What one call may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Looks into the store.
    looks: u32,
    /// Until when.
    until: Instant,
}

impl Work {
    /// That of a call that begins now.
    pub(crate) fn begin(looks: u32) -> Self {
        Self { looks, until: Instant::now() + CALL_MAX }
    }

    /// Half as many looks, in the same time.
    pub(crate) const fn half(self) -> Self {
        Self { looks: self.looks / 2, ..self }
    }
}

/// What one call may still do in one shard. Past it a page says where it has come to.
#[derive(Debug)]
pub(crate) struct Budget(Work);

impl Budget {
    /// The share of one shard of so many.
    pub(crate) fn share(work: Work, shards: usize) -> Self {
        let shards = u32::try_from(shards.max(1)).unwrap_or(u32::MAX);
        Self(Work { looks: work.looks / shards, ..work })
    }

    /// A key that was looked for.
    pub(crate) const fn seek(&mut self) {
        self.0.looks = self.0.looks.saturating_sub(1);
    }

    /// A block that was read.
    pub(crate) const fn block(&mut self) {
        self.0.looks = self.0.looks.saturating_sub(BLOCK_WORK);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.0.looks == 0 || Instant::now() >= self.0.until
    }
}

/// What a predicate lets leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prune {
    /// Blocks where none of these terms occurs.
    Terms(Vec<Term>),
    /// Blocks whose amounts all lie outside.
    Amount { min: u128, max: u128 },
}

impl Prune {
    /// What a predicate lets leave out; none if it lets nothing.
    pub(crate) fn of(predicate: &Predicate) -> Option<Self> {
        match predicate {
            Predicate::Amount { min, max } => Some(Self::Amount { min: *min, max: *max }),
            // Of times, the range of blocks takes care.
            Predicate::Time { .. } => None,
            Predicate::AnyOf(any) => {
                // One alternative that no term tells, and every block may hold something.
                any.iter().map(term).collect::<Option<Vec<_>>>().map(Self::Terms)
            }
            predicate => term(predicate).map(|term| Self::Terms(vec![term])),
        }
    }
}

const fn term(predicate: &Predicate) -> Option<Term> {
    Some(match predicate {
        Predicate::Lock(id) => Term::Lock(*id),
        Predicate::Merchant(merchant) => Term::Merchant(*merchant),
        Predicate::Payee(payee) => Term::Payee(*payee),
        Predicate::Partition(partition) => Term::Partition(*partition),
        Predicate::Tenant(tenant) => Term::Tenant(*tenant),
        Predicate::Supplier(supplier) => Term::Supplier(*supplier),
        Predicate::Code(code) => Term::Code(*code),
        Predicate::Kind(kind) => Term::Kind(*kind),
        Predicate::State(end) => Term::State(*end),
        Predicate::Amount { .. } | Predicate::Time { .. } | Predicate::AnyOf(_) => return None,
    })
}

/// The blocks of one shard that may hold what is asked for, in order.
pub(crate) struct Plan {
    shard: ShardId,
    order: Order,
    prunes: Vec<Prune>,
    /// The next block to be looked at, and the last one; none if nothing is left.
    left: Option<(BlockNumber, BlockNumber)>,
}

/// What one step comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This block may hold something.
    Block(BlockNumber),
    /// Nothing that lies before this block holds anything.
    Skipped(BlockNumber),
    /// Nothing is left.
    End,
}

impl Plan {
    /// The blocks that hold the seqs from `first` to `last`, both included and indexed, and times that meet `from <= time <= until`.
    pub(crate) fn new(
        view: &View,
        shard: ShardId,
        order: Order,
        prunes: Vec<Prune>,
        (first, last): (Seq, Seq),
        (from, until): (Time, Time),
        budget: &mut Budget,
    ) -> Result<Self, HistoryError> {
        let mut plan = Self { shard, order, prunes, left: None };
        if first > last {
            return Ok(plan);
        }
        let (mut low, mut after) = (view.blocks().of(first).0, view.blocks().of(last).0 + 1);
        if from > Time::ZERO {
            low = search((low, after), budget, |number| Ok(zone(view, shard, number)?.time_max >= from))?;
        }
        if until < Time(u64::MAX) {
            after = search((low, after), budget, |number| Ok(zone(view, shard, number)?.time_min > until))?;
        }
        if low < after {
            let (low, high) = (BlockNumber(low), BlockNumber(after - 1));
            plan.left = Some(if order == Order::Ascending { (low, high) } else { (high, low) });
        }
        Ok(plan)
    }

    pub(crate) const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The block where the next step begins.
    pub(crate) fn at(&self) -> Option<BlockNumber> {
        self.left.map(|(at, _)| at)
    }

    /// One step: past blocks that cannot hold anything, or into one that may.
    pub(crate) fn step(&mut self, view: &View, budget: &mut Budget) -> Result<Step, HistoryError> {
        let Some((at, last)) = self.left else { return Ok(Step::End) };
        Ok(match self.candidate(view, at, last, budget)? {
            None => {
                self.left = None;
                Step::End
            }
            Some(number) if number != at => {
                self.left = Some((number, last));
                Step::Skipped(number)
            }
            Some(number) => {
                self.left = self.behind(number, last);
                Step::Block(number)
            }
        })
    }

    /// The first block from `at` on that every term leaves in, as far as one look at each tells.
    fn candidate(
        &self,
        view: &View,
        at: BlockNumber,
        last: BlockNumber,
        budget: &mut Budget,
    ) -> Result<Option<BlockNumber>, HistoryError> {
        let mut number = at;
        for prune in &self.prunes {
            let found = match prune {
                Prune::Terms(terms) => self.first_of(view, terms, (number, last), budget)?,
                Prune::Amount { min, max } => {
                    budget.seek();
                    let Zone { amount_min, amount_max, .. } = zone(view, self.shard, number.0)?;
                    let is_in = amount_min <= *max && amount_max >= *min;
                    if is_in { Some(number) } else { self.behind(number, last).map(|(next, _)| next) }
                }
            };
            match found {
                None => return Ok(None),
                Some(found) => number = found,
            }
        }
        Ok(Some(number))
    }

    /// The first block from `at` on that one of the terms leads to.
    fn first_of(
        &self,
        view: &View,
        terms: &[Term],
        (at, last): (BlockNumber, BlockNumber),
        budget: &mut Budget,
    ) -> Result<Option<BlockNumber>, HistoryError> {
        let mut best: Option<BlockNumber> = None;
        let is_descending = self.order == Order::Descending;
        for term in terms {
            budget.seek();
            let (low, high) = if is_descending { (last, at) } else { (at, last) };
            let range = term.posting(self.shard, low)..=term.posting(self.shard, high);
            let Some(key) = view.first_key(Table::Postings, range, is_descending)? else { continue };
            let damaged = HistoryError::Damaged { what: "a posting", shard: self.shard, at: at.0 };
            let bytes = key.last_chunk().ok_or(damaged)?;
            let found = BlockNumber(u64::from_be_bytes(*bytes));
            best = Some(match best {
                Some(best) if is_descending => best.max(found),
                Some(best) => best.min(found),
                None => found,
            });
        }
        Ok(best)
    }

    fn behind(&self, number: BlockNumber, last: BlockNumber) -> Option<(BlockNumber, BlockNumber)> {
        match self.order {
            _ if number == last => None,
            Order::Ascending => Some((BlockNumber(number.0 + 1), last)),
            Order::Descending => Some((BlockNumber(number.0 - 1), last)),
        }
    }
}

pub(crate) fn zone(view: &View, shard: ShardId, number: u64) -> Result<Zone, HistoryError> {
    let damaged = HistoryError::Damaged { what: "a zone that should be there", shard, at: number };
    view.zone(shard, BlockNumber(number))?.ok_or(damaged)
}

/// The first number in a range from which on something holds; its end if it never does.
fn search(
    (mut low, mut high): (u64, u64),
    budget: &mut Budget,
    mut holds: impl FnMut(u64) -> Result<bool, HistoryError>,
) -> Result<u64, HistoryError> {
    while low < high {
        budget.seek();
        let middle = low + (high - low) / 2;
        if holds(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}
