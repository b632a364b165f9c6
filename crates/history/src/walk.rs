//! One page of a walk: what the shards have, merged in the order of time, shard and seq, and how far each has been looked at.

use std::collections::VecDeque;

use surety_protocol::{Epoch, Seq, ShardId, Time};

use crate::codec::Position;
use crate::cursor::Progress;
use crate::error::{HistoryError, QueryError};
use crate::horizon::Told;
use crate::plan::{Budget, Plan, Prune, Step, Work, zone};
use crate::query::{Order, Page, Place};
use crate::reader::block;
use crate::row::Row;
use crate::store::View;

/// How far the shards of a view are indexed.
#[derive(Clone)]
pub(crate) struct Bounds {
    shards: Vec<ShardBounds>,
    /// False where nobody has said how many shards there are: one that is not begun would not be missed.
    are_all: bool,
}

#[derive(Clone, Copy)]
struct ShardBounds {
    /// The next record.
    next: Seq,
    /// The time of the last one: what comes is not older.
    logged: Time,
    /// The moment before which all is there that was decided so far.
    complete: Time,
}

impl Bounds {
    /// `told` was read before the view was taken, and is by shard.
    pub(crate) fn of(view: &View, told: &[Told]) -> Result<Self, HistoryError> {
        let known = view.shards()?;
        let noted = view.shards_noted()?;
        let highest = known.iter().map(|shard| usize::from(shard.0) + 1).max().unwrap_or(0);
        let count = highest.max(told.len()).max(usize::from(noted));
        let none = ShardBounds { next: Seq(1), logged: Time::ZERO, complete: Time::ZERO };
        let mut shards = vec![none; count];
        let mut epochs = vec![Epoch(0); count];
        for shard in known {
            if let Some(position) = view.position(shard)? {
                let Position { next, time, epoch, .. } = position;
                shards[usize::from(shard.0)] = ShardBounds { next, logged: time, complete: time };
                epochs[usize::from(shard.0)] = epoch;
            }
        }
        for ((bounds, epoch), told) in shards.iter_mut().zip(epochs).zip(told) {
            // What an epoch has said is over once the index has records of a later one.
            if told.epoch >= epoch {
                bounds.complete = bounds.complete.max(told.before);
            }
        }
        Ok(Self { shards, are_all: noted > 0 || !told.is_empty() })
    }

    /// Everything that was decided so far before this moment is there, in every shard.
    pub(crate) fn complete_before(&self) -> Time {
        self.least(|bounds| bounds.complete)
    }

    /// Everything that is ever logged before this moment is there, in every shard.
    pub(crate) fn logged_before(&self) -> Time {
        self.least(|bounds| bounds.logged)
    }

    /// The same of one shard.
    pub(crate) fn logged_before_in(&self, shard: ShardId) -> Time {
        self.shards.get(usize::from(shard.0)).map_or(Time::ZERO, |bounds| bounds.logged)
    }

    /// Everything that a shard decided so far before this moment is there.
    pub(crate) fn complete_before_in(&self, shard: ShardId) -> Time {
        self.shards.get(usize::from(shard.0)).map_or(Time::ZERO, |bounds| bounds.complete)
    }

    /// By shard: everything that it decided so far before this moment is there.
    pub(crate) fn complete(&self) -> impl Iterator<Item = Time> + '_ {
        self.shards.iter().map(|bounds| bounds.complete)
    }

    fn least(&self, moment: impl Fn(&ShardBounds) -> Time) -> Time {
        let least = self.shards.iter().map(moment).min();
        least.filter(|_| self.are_all).unwrap_or(Time::ZERO)
    }

    /// The next record of a shard.
    pub(crate) fn next(&self, shard: ShardId) -> Seq {
        self.shards.get(usize::from(shard.0)).map_or(Seq(1), |bounds| bounds.next)
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0..self.shards.len()).filter_map(|number| u16::try_from(number).ok().map(ShardId))
    }

    /// Where a walk begins.
    pub(crate) fn begin(&self, order: Order) -> Progress {
        let seqs = self.shards.iter().map(|bounds| match order {
            Order::Ascending => Seq(0),
            // What is indexed from now on does not belong to it.
            Order::Descending => bounds.next,
        });
        Progress::new(order, seqs.collect())
    }

    /// # Errors
    /// [`QueryError::CursorOrder`], [`QueryError::CursorShards`], [`QueryError::CursorAhead`].
    fn check(&self, progress: &Progress, asked: Order) -> Result<(), QueryError> {
        if progress.order != asked {
            return Err(QueryError::CursorOrder { cursor: progress.order, asked });
        }
        let (found, shards) = (progress.shards(), self.shards.len());
        if found > shards {
            return Err(QueryError::CursorShards { found, shards });
        }
        // A descending walk begins behind the last record, an ascending one ends at it.
        let is_ahead = |shard: &ShardId| match asked {
            Order::Ascending => progress.looked_at(*shard) >= self.next(*shard),
            Order::Descending => progress.looked_at(*shard) > self.next(*shard),
        };
        match self.shards().find(is_ahead) {
            Some(shard) => Err(QueryError::CursorAhead { shard }),
            None => Ok(()),
        }
    }
}

/// What a walk shows, and where it goes on.
pub(crate) struct Walk {
    pub(crate) order: Order,
    /// How far it has come; none where it begins.
    pub(crate) from: Option<Progress>,
    /// Rows of the page, at most.
    pub(crate) limit: usize,
    /// Blocks that they leave in are looked into.
    pub(crate) prunes: Vec<Prune>,
    /// Of times, both included.
    pub(crate) span: (Time, Time),
    pub(crate) work: Work,
}

/// One page: the rows of which `keep` makes something.
pub(crate) fn walk<R>(
    view: &View,
    bounds: &Bounds,
    asked: &Walk,
    keep: impl Fn(&Row, &mut Budget) -> Result<Option<R>, HistoryError>,
) -> Result<Page<R, Progress>, QueryError> {
    let order = asked.order;
    let begin = asked.from.clone().unwrap_or_else(|| bounds.begin(order));
    bounds.check(&begin, order)?;
    let mut lanes = Vec::new();
    for shard in bounds.shards() {
        let budget = Budget::share(asked.work, bounds.shards().count());
        let seqs = (begin.looked_at(shard), bounds.next(shard));
        let what = (asked.prunes.clone(), asked.span);
        let mut lane = Lane::new(view, (shard, order), what, seqs, budget)?;
        let head = lane.next(view, &keep)?;
        lanes.push((lane, head));
    }
    let mut rows = Vec::new();
    let mut has_more = false;
    while let Some((lane, head)) = next_lane(&mut lanes, order) {
        match core::mem::replace(head, Head::End) {
            Head::Row(place, row) if rows.len() < asked.limit => {
                rows.push(row);
                lane.looked_at = place.seq;
                *head = lane.next(view, &keep)?;
            }
            _ => {
                has_more = true;
                break;
            }
        }
    }
    let cursor = Progress::new(order, lanes.iter().map(|(lane, _)| lane.looked_at).collect());
    Ok(Page { rows, cursor: Some(cursor), has_more, complete_before: bounds.complete_before() })
}

/// One shard's rows that are kept, in order.
struct Lane {
    order: Order,
    plan: Plan,
    budget: Budget,
    rows: VecDeque<Row>,
    /// How far it has been looked at, as in a [`Cursor`].
    looked_at: Seq,
    /// Where that was when the call began.
    begun_at: Seq,
    /// Where it is when nothing is left.
    end: Seq,
}

/// What a lane comes to next.
enum Head<R> {
    Row(Place, R),
    /// Nothing before this place is left; there is no budget to look further.
    Paused(Place),
    End,
}

impl Lane {
    fn new(
        view: &View,
        (shard, order): (ShardId, Order),
        (prunes, span): (Vec<Prune>, (Time, Time)),
        (looked_at, next): (Seq, Seq),
        mut budget: Budget,
    ) -> Result<Self, HistoryError> {
        let last = Seq(next.0.saturating_sub(1));
        let (looked_at, end, seqs) = match order {
            Order::Ascending => (looked_at, looked_at.max(last), (Seq(looked_at.0.saturating_add(1)), last)),
            Order::Descending => {
                let looked_at = looked_at.max(Seq(1));
                (looked_at, Seq(1), (Seq(1), last.min(Seq(looked_at.0.saturating_sub(1)))))
            }
        };
        let plan = Plan::new(view, shard, order, prunes, seqs, span, &mut budget)?;
        Ok(Self { order, plan, budget, rows: VecDeque::new(), looked_at, begun_at: looked_at, end })
    }

    fn next<R>(
        &mut self,
        view: &View,
        keep: &impl Fn(&Row, &mut Budget) -> Result<Option<R>, HistoryError>,
    ) -> Result<Head<R>, HistoryError> {
        loop {
            while let Some(row) = self.rows.front() {
                let (place, is_part) = (Place::of(row), row.is_part());
                if !self.is_new(place.seq) {
                    self.rows.pop_front();
                    continue;
                }
                let kept = if is_part { None } else { keep(row, &mut self.budget)? };
                self.rows.pop_front();
                match kept {
                    Some(kept) => return Ok(Head::Row(place, kept)),
                    None => self.looked_at = place.seq,
                }
            }
            if let (Some(number), true) = (self.plan.at(), self.is_spent()) {
                let zone = zone(view, self.plan.shard(), number.0)?;
                let time = if self.order == Order::Ascending { zone.time_min } else { zone.time_max };
                return Ok(Head::Paused(Place { time, shard: self.plan.shard(), seq: self.looked_at }));
            }
            match self.plan.step(view, &mut self.budget)? {
                Step::End => {
                    self.looked_at = self.end;
                    return Ok(Head::End);
                }
                Step::Skipped(number) => self.skip_to(match self.order {
                    Order::Ascending => Seq(view.blocks().first_seq(number).0 - 1),
                    Order::Descending => view.blocks().last_seq(number).next(),
                }),
                Step::Block(number) => {
                    self.budget.block();
                    self.rows = block(view, self.plan.shard(), number)?.into();
                    if self.order == Order::Descending {
                        self.rows.make_contiguous().reverse();
                    }
                }
            }
        }
    }

    /// True once the call has done its work. Every call comes on in every shard that has anything left, or a walk would never end.
    fn is_spent(&self) -> bool {
        self.budget.is_spent() && self.looked_at != self.begun_at
    }

    /// True of what has not been looked at.
    fn is_new(&self, seq: Seq) -> bool {
        match self.order {
            Order::Ascending => seq > self.looked_at,
            Order::Descending => seq < self.looked_at,
        }
    }

    fn skip_to(&mut self, seq: Seq) {
        if self.is_new(seq) {
            self.looked_at = seq;
        }
    }
}

/// The lane that comes first in the order, of those that have not ended.
fn next_lane<R>(lanes: &mut [(Lane, Head<R>)], order: Order) -> Option<(&mut Lane, &mut Head<R>)> {
    let place = |head: &Head<R>| match head {
        Head::Row(place, _) | Head::Paused(place) => Some(*place),
        Head::End => None,
    };
    let left = lanes.iter_mut().filter(|(_, head)| place(head).is_some());
    let first = match order {
        Order::Ascending => left.min_by_key(|(_, head)| place(head)),
        Order::Descending => left.max_by_key(|(_, head)| place(head)),
    };
    first.map(|(lane, head)| (lane, head))
}
