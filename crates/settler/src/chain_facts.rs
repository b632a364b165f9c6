//! Carrying the chain's facts to the engine: supplies here, guarantees and exits beside. Only what is final, and each once.

use std::collections::BTreeSet;

use chain::{At, Backend, Block};
use surety_client::request::Draft;
use surety_protocol::{Address, Amount, Code, Kind, StakeBody, Time};

use crate::contract::HeadInfo;
use crate::error::{NotCredited, Notice, SettlerError};
use crate::points::Point;
use crate::scan::{Scan, Supply};
use crate::settler::Settler;

/// How often what the engine has declined is tried again.
const RETRY: Time = Time::from_secs(10);

/// Partitions without events that are asked for with one block.
const SILENT_AT_ONCE: usize = 64;

/// What the engine, or the contract, did not take a moment ago, by its number on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PutOff {
    /// A supply.
    Supply(u64),
    /// An exit.
    Exit(u64),
    /// The booking of a guarantee.
    Paid(settlement::Hash),
    /// The answer to a call, by the lock's name on chain.
    Answer,
}

impl Settler {
    /// Reads the contract's events up to a finalized block, and tells the engine of them.
    pub(crate) async fn carry_facts(
        &mut self,
        chain: &dyn Backend,
        block: Block,
        head: &HeadInfo,
    ) -> Result<(), SettlerError> {
        let at = At::Hash(block.hash);
        let from = self.scan.block.saturating_add(1).max(self.config.place.since_block);
        if from <= block.number {
            let mut scan = Scan { block: block.number, ..self.scan.clone() };
            for event in self.contract(chain).events(from, block.number)? {
                scan.read(event)?;
            }
            if !self.adds_up(chain, &scan, head, &block)? {
                self.notices.push(Notice::ChainDisagrees { block: block.number });
                return Ok(());
            }
            self.scan = scan;
        }
        self.tell_calls(chain, at).await?;
        self.book_guarantees().await?;
        self.credit_supplies().await?;
        self.answer_exits().await
    }

    /// What was not taken is tried again now and then: each time may be a record of the engine's log.
    pub(crate) fn forget_what_was_put_off(&mut self) {
        let now = self.client.now();
        if now >= self.retry_due {
            self.put_off.clear();
            self.retry_due = now.plus(RETRY);
        }
    }

    /// Two accounts of the same: the events, and the contract's own numbers. A node that leaves an event out, makes one up or
    /// changes one has to lie about these as well.
    fn adds_up(
        &self,
        chain: &dyn Backend,
        scan: &Scan,
        head: &HeadInfo,
        block: &Block,
    ) -> Result<bool, SettlerError> {
        let at = At::Hash(block.hash);
        if scan.nonce != head.deposit_nonce {
            return Ok(false);
        }
        let known = scan.partitions();
        for partition in self.some_without_events(&known, block).into_iter().chain(known) {
            if !scan.adds_up(&partition, &self.contract(chain).holding(partition, at)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Partitions of the engine of which the chain has told nothing: a node may have left out the only event of one. Some of them
    /// with each block, others with another, so that many cost no more than a few.
    fn some_without_events(
        &self,
        known: &BTreeSet<settlement::Hash>,
        block: &Block,
    ) -> Vec<settlement::Hash> {
        let netting = self.sealer.netting();
        let own = netting.partitions().filter_map(|(handle, _)| netting.onchain_of(handle));
        let silent: Vec<settlement::Hash> = own.filter(|own| !known.contains(own)).collect();
        let chance = block.hash.0.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk));
        let first = usize::try_from(chance % silent.len().max(1) as u64).unwrap_or(0);
        silent.iter().cycle().skip(first).take(SILENT_AT_ONCE.min(silent.len())).copied().collect()
    }

    /// Credits what waits, in the order of the chain. What the engine does not take goes on to wait.
    async fn credit_supplies(&mut self) -> Result<(), SettlerError> {
        for supply in self.scan.supplies.clone() {
            let name = (supply.partition, PutOff::Supply(supply.nonce));
            if self.put_off.contains(&name) {
                continue;
            }
            match self.credit(&supply).await? {
                None => self.scan.supplies.retain(|waiting| *waiting != supply),
                Some(why) => {
                    if matches!(why, NotCredited::Declined(_)) {
                        self.put_off.insert(name);
                    }
                    self.notices.push(Notice::NotCredited { supply, why });
                }
            }
        }
        Ok(())
    }

    /// Credits one supply; says why if it is not credited.
    async fn credit(&mut self, supply: &Supply) -> Result<Option<NotCredited>, SettlerError> {
        let Some(partition) = self.sealer.netting().handle(&supply.partition) else {
            return Ok(Some(NotCredited::UnknownPartition));
        };
        let treasury = self.config.treasury.map(|treasury| Address(treasury.into_array()));
        let is_reward = treasury == Some(supply.supplier);
        let supplier = if is_reward { Address::default() } else { supply.supplier };
        let is_same = |(whose, amount): (Address, u128)| (whose, amount) == (supplier, supply.amount);
        if let Some(known) = self.facts.deposit(partition, supply.nonce) {
            return Ok((!is_same(known)).then_some(NotCredited::OtherDeposit));
        }
        let kind = if is_reward { Kind::Reward } else { Kind::Deposit };
        let body = StakeBody { supplier, nonce: supply.nonce, ..StakeBody::default() };
        let reply = self.tell(Draft::new(kind, partition, Amount(supply.amount), &body)).await?;
        self.pass(Point::Credited)?;
        if reply.code() == Code::Approved {
            return Ok(None);
        }
        // It may have been credited by this settler before a crash: then the stream says so.
        self.catch_up(partition.shard(), reply.seq).await?;
        Ok(match self.facts.deposit(partition, supply.nonce) {
            Some(known) if is_same(known) => None,
            Some(_) => Some(NotCredited::OtherDeposit),
            None => Some(NotCredited::Declined(reply.code())),
        })
    }
}
