//! What became of one supplier's stake, record by record: made of the change stream alone, so that anybody can make it again.

use alloc::collections::BTreeMap;

use surety_protocol::{Address, Code, Kind, PartitionHandle, Record, Seq, ShardId, StakeBody, Time};

use crate::hash::Hash;
use crate::netting::{Netting, NettingConfig, NettingError, Stake};

/// Records between two moments at which certified locks that have ended are forgotten: a statement needs none of them.
const FORGET_EVERY: u32 = 1 << 16;

/// Reads the change stream and tells what of it concerns one supplier.
#[derive(Clone, Debug)]
pub struct Statement {
    supplier: Address,
    netting: Netting,
    accounts: BTreeMap<PartitionHandle, Sums>,
    unforgotten: u32,
}

/// One line of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementLine {
    /// Where.
    pub partition: PartitionHandle,
    /// The record that did it, in the stream of the partition's shard.
    pub seq: Seq,
    /// When it was decided.
    pub time: Time,
    /// What happened.
    pub event: StakeEvent,
    /// What it has added to the value of the supplier's units beyond what was supplied and withdrawn by it, in base units; negative
    /// for a loss. What is rounded off in a supply or a withdrawal stays in the pool, and shows here.
    pub gain: i128,
    /// How the supplier stands after it.
    pub stake: Stake,
}

/// What a line is about. Amounts are in base units of the collateral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StakeEvent {
    /// The supplier has put collateral in.
    Supplied {
        /// How much.
        amount: u128,
        /// The units it was given for that.
        units: u128,
    },
    /// The supplier has asked for units to leave, which wait: they still bear losses.
    Unbonding {
        /// How many.
        units: u128,
        /// Before then they are not paid.
        due: Time,
    },
    /// Units have left, at their value of that moment.
    Withdrawn {
        /// What was owed for them from then on.
        amount: u128,
        /// How many.
        units: u128,
    },
    /// A reward for all suppliers of the partition.
    Rewarded {
        /// All of it.
        amount: u128,
    },
    /// The partition has lost collateral: a payment failed, a guarantee was paid, or a loss was booked.
    Lost {
        /// All that the units lost of it.
        amount: u128,
    },
    /// What a supply or withdrawal of somebody else was rounded by.
    Rounded,
    /// All units were worth nothing, and somebody else has supplied: the old units are forgotten.
    Forgotten {
        /// How many.
        units: u128,
    },
}

/// What a statement comes to in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatementSum {
    /// The on-chain id of the partition.
    pub onchain: Hash,
    /// How the supplier stands.
    pub stake: Stake,
    /// All that was ever supplied.
    pub supplied: u128,
    /// All rewards, and remainders in the supplier's favour.
    pub gained: u128,
    /// All losses, and remainders at the supplier's cost.
    pub lost: u128,
}

/// The running sums of one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    supplied: u128,
    gained: u128,
    lost: u128,
}

impl Statement {
    /// Nothing read yet.
    #[must_use]
    pub fn new(shards: u16, supplier: Address) -> Self {
        let config = NettingConfig { shards, salt_key: [0; 32], claim_span: Time::ZERO };
        Self { supplier, netting: Netting::new(config), accounts: BTreeMap::new(), unforgotten: 0 }
    }

    /// Takes the next record of a shard, and returns a line if the record has changed what the supplier has.
    ///
    /// # Errors
    /// The stream is not one that a ledger writes.
    pub fn read(
        &mut self,
        shard: ShardId,
        seq: Seq,
        record: &Record,
    ) -> Result<Option<StatementLine>, NettingError> {
        let partition = record.partition;
        let before = self.netting.stake(partition, self.supplier);
        let money = self.netting.money(partition).unwrap_or_default();
        self.netting.read(shard, seq, record)?;
        self.forget();
        let Some(kind) = record.kind().filter(|kind| *kind != Kind::Continuation) else { return Ok(None) };
        if !record.code().is_some_and(Code::is_success) {
            return Ok(None);
        }
        let lost =
            money.equity().saturating_sub(self.netting.money(partition).map_or(0, |money| money.equity()));
        let stake = self.netting.stake(partition, self.supplier);
        let Some(event) = event(kind, record, self.supplier, &before, &stake, lost) else {
            return Ok(None);
        };
        let (supplied, withdrawn) = match event {
            StakeEvent::Supplied { amount, .. } => (amount, 0),
            StakeEvent::Withdrawn { amount, .. } => (0, amount),
            _ => (0, 0),
        };
        // All of these are amounts of the ledger, which are below 2^120.
        let signed = |amount: u128| i128::try_from(amount).unwrap_or(i128::MAX);
        let gain = signed(stake.value) + signed(withdrawn) - signed(before.value) - signed(supplied);
        let sums = self.accounts.entry(partition).or_default();
        sums.supplied = sums.supplied.saturating_add(supplied);
        if gain > 0 {
            sums.gained = sums.gained.saturating_add(gain.unsigned_abs());
        } else {
            sums.lost = sums.lost.saturating_add(gain.unsigned_abs());
        }
        Ok(Some(StatementLine { partition, seq, time: record.time, event, gain, stake }))
    }

    /// What it has come to so far, for each partition in which the supplier ever had anything.
    pub fn sums(&self) -> impl Iterator<Item = (PartitionHandle, StatementSum)> + '_ {
        self.accounts.iter().map(|(partition, sums)| {
            let sum = StatementSum {
                onchain: self.netting.onchain_of(*partition).unwrap_or_default(),
                stake: self.netting.stake(*partition, self.supplier),
                supplied: sums.supplied,
                gained: sums.gained,
                lost: sums.lost,
            };
            (*partition, sum)
        })
    }

    /// The on-chain id of a partition.
    #[must_use]
    pub fn onchain_of(&self, partition: PartitionHandle) -> Option<Hash> {
        self.netting.onchain_of(partition)
    }

    /// How far each shard was read.
    #[must_use]
    pub const fn positions(&self) -> &crate::batch::Positions {
        self.netting.positions()
    }

    fn forget(&mut self) {
        self.unforgotten += 1;
        if self.unforgotten == FORGET_EVERY {
            self.unforgotten = 0;
            self.netting.forget_ended();
        }
    }
}

impl StatementSum {
    /// True if what went in and was gained is what went out, was lost, and is still there.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let came = self.supplied.checked_add(self.gained);
        let went =
            self.stake.paid_out.checked_add(self.lost).and_then(|sum| sum.checked_add(self.stake.value));
        came.is_some() && came == went
    }
}

/// What a record that succeeded was for the supplier. `lost` is what all units together have lost by it.
fn event(
    kind: Kind,
    record: &Record,
    supplier: Address,
    before: &Stake,
    after: &Stake,
    lost: u128,
) -> Option<StakeEvent> {
    let is_stake = matches!(kind, Kind::Deposit | Kind::Withdraw | Kind::WithdrawPaid);
    let StakeBody { units, supplier: named, due, .. } =
        if is_stake { record.body() } else { StakeBody::default() };
    let is_own = is_stake && named == supplier;
    match kind {
        Kind::Deposit if is_own => Some(StakeEvent::Supplied { amount: record.result.0, units }),
        Kind::Withdraw if is_own && after.queued > before.queued => {
            Some(StakeEvent::Unbonding { units: record.amount.0, due })
        }
        Kind::Withdraw | Kind::WithdrawPaid if is_own => {
            Some(StakeEvent::Withdrawn { amount: record.result.0, units })
        }
        _ if before == after => None,
        Kind::Deposit if after.units < before.units => Some(StakeEvent::Forgotten { units: before.units }),
        Kind::Reward => Some(StakeEvent::Rewarded { amount: record.result.0 }),
        _ if is_stake => Some(StakeEvent::Rounded),
        _ => Some(StakeEvent::Lost { amount: lost }),
    }
}
