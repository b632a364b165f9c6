//! The watches of one asset, judged by the chain that it lives on. Pure: blocks in, decisions out.
//!
//! Only confirmed blocks count, one after the other: a block is *n times confirmed* when n - 1 others stand on it. A payment
//! is in time if the chain's clock, which is the latest time of any block so far, has not passed the deadline in its block. So
//! a watch is decided by a prefix of the chain that is n deep: as soon as the payments in it reach the amount (settle), or as
//! soon as its clock has passed the deadline (consume). A reorganization of less than n blocks changes no decision. One of n or
//! more takes payments back that were counted, and tells of every decision that it has made baseless; one that goes below
//! everything that is kept stops the track, and what it has not decided is left to the engine's settle-by time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::follower::{Base, Follower, Kept, Offered};
use crate::json;
use crate::payment::{Account, BlockRef, CONFIRMATIONS_MAX, SeenBlock, Watch, WatchError, WatchKey};

/// Blocks that are kept beyond the most confirmations: how far back the payments of a new watch are looked for.
const LOOK_BACK: usize = 16;
/// Blocks with payments to one address that are told apart; older ones become one. More than are ever kept: what was paid up to
/// the base is told by itself.
const PARTS_MAX: usize = CONFIRMATIONS_MAX as usize + 2 * LOOK_BACK;
/// The most watches of one asset.
pub const WATCHES_MAX: usize = 1 << 20;

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is final: the guarantee is no longer needed.
    Settle,
    /// It failed: the merchant is owed the collateral.
    Consume,
}

/// What a track tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A watch is decided, for good.
    Decided {
        /// Which.
        key: WatchKey,
        /// How.
        verdict: Verdict,
        /// What was paid in time, which may be less or more than was asked for.
        paid: u128,
    },
    /// A payment came that decides nothing: after the deadline, or once more. It belongs to the payer, and somebody has to
    /// give it back.
    Stray {
        /// For which watch.
        key: WatchKey,
        /// How much.
        amount: u128,
        /// In which block.
        block: BlockRef,
    },
    /// The block that decided a watch is no longer in the chain. Nothing can be taken back: somebody has to look.
    Undone {
        /// Which watch.
        key: WatchKey,
        /// How it was decided.
        verdict: Verdict,
    },
    /// A block was taken back.
    TookBack {
        /// Which.
        block: BlockRef,
    },
}

/// The chain took back more than is kept of it. Somebody has to look, and to say from where to read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {} ({}), long confirmed, is no longer in the chain", .0.number, .0.hash)]
pub struct Halt(pub BlockRef);

/// Why a watch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// It makes no sense.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The lock is watched with other terms.
    #[error("the lock is watched already, and otherwise")]
    Conflict,
    /// The address belongs to another watch, so nobody could tell whose payment it is.
    #[error("the address is another watch's")]
    AddressTaken,
    /// There are [`WATCHES_MAX`] already.
    #[error("too many watches")]
    Full,
}

/// Where a track stands, for the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Everything up to this block has been read with every count of confirmations, and some blocks beyond it: reading goes on
    /// from here, so that a new watch is paid by what came shortly before it, also across a restart.
    pub base: Base,
    /// Up to this block payments were judged with every count: what is judged again is told once.
    #[serde(default)]
    pub read: u64,
    /// What undecided watches were paid up to it.
    pub paid: Vec<Paid>,
}

/// What a watch has been paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paid {
    /// Which watch.
    pub key: WatchKey,
    /// How much.
    #[serde(with = "json::amount")]
    pub amount: u128,
}

#[derive(Clone, Debug)]
struct Entry {
    watch: Watch,
    /// What was paid in time, by block.
    parts: Vec<(u64, u128)>,
    verdict: Option<Verdict>,
    /// In which block; 0 where only the journal knows.
    decided_in: u64,
}

impl Entry {
    const fn new(watch: Watch) -> Self {
        Self { watch, parts: Vec::new(), verdict: None, decided_in: 0 }
    }

    fn paid(&self) -> u128 {
        self.parts.iter().fold(0, |sum, (_, amount)| sum.saturating_add(*amount))
    }

    fn pay(&mut self, block: u64, amount: u128) {
        match self.parts.last_mut() {
            Some((last, sum)) if *last == block => *sum = sum.saturating_add(amount),
            _ => self.parts.push((block, amount)),
        }
        if self.parts.len() > PARTS_MAX {
            let (_, oldest) = self.parts.remove(0);
            self.parts[0].1 = self.parts[0].1.saturating_add(oldest);
        }
    }
}

/// The watches of one asset.
#[derive(Clone, Debug, Default)]
pub struct Track {
    follower: Option<Follower>,
    /// For each count of confirmations, the newest block that has been read with it; none before the first.
    read: BTreeMap<u32, Option<BlockRef>>,
    entries: BTreeMap<WatchKey, Entry>,
    accounts: HashMap<Account, WatchKey>,
    /// Undecided watches of each count by deadline.
    due: BTreeSet<(u32, u64, WatchKey)>,
    /// Blocks up to this one were judged before a restart.
    told: u64,
}

impl Track {
    /// A track that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on where a journal says that an earlier one stopped. Watches are added before, with [`Track::add`].
    pub fn resume(&mut self, progress: &Progress) {
        for paid in &progress.paid {
            if let Some(entry) = self.entries.get_mut(&paid.key).filter(|entry| entry.verdict.is_none()) {
                entry.parts = vec![(progress.base.at.number, paid.amount)];
            }
        }
        self.follower = Some(Follower::after(progress.base));
        self.told = progress.read;
        self.read.values_mut().for_each(|read| *read = Some(progress.base.at));
        self.keep();
    }

    /// Begins to read with this block, unless the track goes on from an earlier one.
    pub fn begin(&mut self, number: u64) {
        self.follower.get_or_insert_with(|| Follower::from_number(number));
        self.keep();
    }

    /// Takes a watch. Payments in the last blocks count at once. The same watch again changes nothing.
    ///
    /// # Errors
    ///
    /// [`AddError`].
    pub fn add(&mut self, watch: Watch) -> Result<Vec<Event>, AddError> {
        watch.check()?;
        if let Some(known) = self.entries.get(&watch.key) {
            return if known.watch == watch { Ok(Vec::new()) } else { Err(AddError::Conflict) };
        }
        if self.accounts.contains_key(&watch.to) {
            return Err(AddError::AddressTaken);
        }
        if self.entries.len() >= WATCHES_MAX {
            return Err(AddError::Full);
        }
        let (key, count) = (watch.key, watch.confirmations);
        self.accounts.insert(watch.to.clone(), key);
        self.due.insert((count, watch.deadline_s, key));
        self.entries.insert(key, Entry::new(watch));
        let read = *self.read.entry(count).or_insert(None);
        self.keep();
        let mut events = Vec::new();
        if let Some(read) = read {
            let blocks = self.follower.iter().flat_map(Follower::blocks);
            let seen: Vec<Kept> =
                blocks.filter(|kept| kept.block.at.number <= read.number).cloned().collect();
            for kept in &seen {
                self.pay(count, kept, Some(key), &mut events);
                self.judge_due(count, kept, &mut events);
            }
        }
        self.advance(&mut events);
        Ok(events)
    }

    /// Marks a watch as decided, as a journal says.
    pub fn mark_decided(&mut self, key: WatchKey, verdict: Verdict) {
        self.decide(key, verdict, 0);
    }

    /// Forgets a watch that is decided and delivered. Its address may be used again.
    pub fn forget(&mut self, key: WatchKey) {
        if let Some(entry) = self.entries.remove(&key) {
            self.accounts.remove(&entry.watch.to);
            self.due.remove(&(entry.watch.confirmations, entry.watch.deadline_s, key));
        }
    }

    /// The number of the block that is wanted next; none before [`Track::begin`].
    #[must_use]
    pub fn wanted(&self) -> Option<u64> {
        self.follower.as_ref().map(Follower::wanted)
    }

    /// Takes the wanted block.
    ///
    /// # Errors
    ///
    /// [`Halt`] if that takes back what is no longer kept.
    pub fn offer(&mut self, block: SeenBlock) -> Result<Vec<Event>, Halt> {
        let mut events = Vec::new();
        match self.follower.as_mut().map(|follower| follower.offer(block)) {
            Some(Offered::Added) => self.advance(&mut events),
            Some(Offered::TookBack(gone)) => self.take_back(gone, &mut events),
            Some(Offered::BelowBase(gone)) => return Err(Halt(gone)),
            Some(Offered::Unasked) | None => {}
        }
        Ok(events)
    }

    /// Where the track stands; none before it has read anything.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let follower = self.follower.as_ref()?;
        let lowest = self.read.values().map(|read| read.map_or(0, |read| read.number)).min();
        let lowest = lowest.unwrap_or_else(|| follower.newest().map_or(0, |newest| newest.at.number));
        let base = follower.base_at(lowest.saturating_sub(LOOK_BACK as u64))?;
        let up_to_base = |entry: &Entry| -> u128 {
            let parts = entry.parts.iter().filter(|(block, _)| *block <= base.at.number);
            parts.map(|(_, amount)| amount).sum()
        };
        let open = self.entries.values().filter(|entry| entry.verdict.is_none());
        let paid = open.map(|entry| Paid { key: entry.watch.key, amount: up_to_base(entry) });
        Some(Progress {
            base,
            read: lowest.max(self.told),
            paid: paid.filter(|paid| paid.amount > 0).collect(),
        })
    }

    /// A watch that has been taken.
    #[must_use]
    pub fn watch(&self, key: WatchKey) -> Option<&Watch> {
        self.entries.get(&key).map(|entry| &entry.watch)
    }

    /// Watches that are not decided.
    #[must_use]
    pub fn open(&self) -> usize {
        self.due.len()
    }

    fn keep(&mut self) {
        let deepest = self.read.keys().max().copied().unwrap_or(1) as usize;
        if let Some(follower) = &mut self.follower {
            follower.keep(deepest + LOOK_BACK);
        }
    }

    /// Reads every block that has become confirmed.
    fn advance(&mut self, events: &mut Vec<Event>) {
        let Some(newest) = self.follower.as_ref().and_then(Follower::newest) else { return };
        for count in self.read.keys().copied().collect::<Vec<_>>() {
            let confirmed = (newest.at.number + 1).saturating_sub(u64::from(count));
            while let Some(kept) = self.next_of(count).filter(|kept| kept.block.at.number <= confirmed) {
                self.read.insert(count, Some(kept.block.at));
                self.pay(count, &kept, None, events);
                self.judge_due(count, &kept, events);
            }
        }
    }

    /// The block that a count reads next.
    fn next_of(&self, count: u32) -> Option<Kept> {
        let follower = self.follower.as_ref()?;
        match self.read.get(&count)? {
            Some(read) => follower.block(read.number + 1).cloned(),
            None => follower.blocks().next().cloned(),
        }
    }

    /// Takes back what a lost block had told.
    fn take_back(&mut self, gone: BlockRef, events: &mut Vec<Event>) {
        events.push(Event::TookBack { block: gone });
        let newest = self.follower.as_ref().and_then(Follower::newest).map(|newest| newest.at);
        let mut reached = Vec::new();
        for (count, read) in &mut self.read {
            if read.is_some_and(|read| read.number >= gone.number) {
                *read = newest;
                reached.push(*count);
            }
        }
        if reached.is_empty() {
            return;
        }
        for entry in self.entries.values_mut().filter(|entry| reached.contains(&entry.watch.confirmations)) {
            match entry.verdict {
                None => entry.parts.retain(|(block, _)| *block < gone.number),
                Some(verdict) if entry.decided_in >= gone.number => {
                    events.push(Event::Undone { key: entry.watch.key, verdict });
                    // Told once.
                    entry.decided_in = 0;
                }
                Some(_) => {}
            }
        }
    }

    /// Books the payments of a confirmed block, of one watch or of all with this count.
    fn pay(&mut self, count: u32, kept: &Kept, only: Option<WatchKey>, events: &mut Vec<Event>) {
        let SeenBlock { at, payments, .. } = &kept.block;
        for payment in payments {
            let Some(key) = self.accounts.get(&payment.to).copied() else { continue };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.watch.confirmations != count || only.is_some_and(|only| only != key) {
                continue;
            }
            if entry.verdict.is_some() || kept.clock_s > entry.watch.deadline_s {
                if at.number > self.told {
                    events.push(Event::Stray { key, amount: payment.amount, block: *at });
                }
                continue;
            }
            entry.pay(at.number, payment.amount);
            let paid = entry.paid();
            if paid >= entry.watch.amount {
                self.decide(key, Verdict::Settle, at.number);
                events.push(Event::Decided { key, verdict: Verdict::Settle, paid });
            }
        }
    }

    /// Gives up the watches whose deadline the clock has passed.
    fn judge_due(&mut self, count: u32, kept: &Kept, events: &mut Vec<Event>) {
        let late = self.due.range((count, 0, WatchKey::FIRST)..(count, kept.clock_s, WatchKey::FIRST));
        for key in late.map(|(_, _, key)| *key).collect::<Vec<_>>() {
            let paid = self.entries.get(&key).map_or(0, Entry::paid);
            self.decide(key, Verdict::Consume, kept.block.at.number);
            events.push(Event::Decided { key, verdict: Verdict::Consume, paid });
        }
    }

    fn decide(&mut self, key: WatchKey, verdict: Verdict, block: u64) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.verdict = Some(verdict);
            entry.decided_in = block;
            self.due.remove(&(entry.watch.confirmations, entry.watch.deadline_s, key));
        }
    }
}

impl WatchKey {
    /// Before every other.
    const FIRST: Self = Self {
        tenant: surety_protocol::TenantId(0),
        partition: surety_protocol::PartitionHandle(0),
        lock: surety_protocol::Id(0),
    };
}
