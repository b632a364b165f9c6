//! Carrying the chain's facts to the engine: supplies, exits, guarantees. Only what is final, and each once.

use alloy_primitives::B256;
use chain::bindings::Manager::ManagerEvents;
use chain::{At, Backend, Block};
use settlement::LockId;
use surety_client::request::Draft;
use surety_client::{DefiniteError, Outcome, ResolveError};
use surety_protocol::{Address, Amount, ChangeBody, Code, Kind, PartitionHandle, StakeBody, Time};

use crate::contract::{Called, HeadInfo, narrow};
use crate::error::{NotCredited, Notice, SettlerError};
use crate::note::Note;
use crate::points::Point;
use crate::scan::{ExitAsked, Scan, Supply};
use crate::settler::Settler;

/// How often what the engine has declined is tried again.
const RETRY: Time = Time::from_secs(10);

/// What the engine did not take a moment ago, by its number on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PutOff {
    /// A supply.
    Supply(u64),
    /// An exit.
    Exit(u64),
}

/// What the events of some blocks say of guarantees.
#[derive(Debug, Default)]
struct Guarantees {
    /// Locks that were called, or whose call was answered.
    touched: Vec<B256>,
    paid: Vec<(B256, u128)>,
}

impl Settler {
    /// Reads the contract's events up to a finalized block, and tells the engine of them.
    pub(crate) async fn carry_facts(
        &mut self,
        chain: &dyn Backend,
        block: Block,
        head: &HeadInfo,
    ) -> Result<(), SettlerError> {
        let from = self.scan.block.saturating_add(1).max(self.config.place.since_block);
        if from <= block.number {
            let at = At::Hash(block.hash);
            let (scan, guarantees) = self.read_events(chain, from, block.number)?;
            if !self.adds_up(chain, &scan, head, at)? {
                self.notices.push(Notice::ChainDisagrees { block: block.number });
                return Ok(());
            }
            self.tell_guarantees(chain, &guarantees, at).await?;
            self.scan = Scan { block: block.number, ..scan };
        }
        // What the engine did not take is tried again now and then: each time is a record of its log.
        let now = self.client.now();
        if now >= self.retry_due {
            self.put_off.clear();
            self.retry_due = now.plus(RETRY);
        }
        self.credit_supplies().await?;
        self.answer_exits().await
    }

    /// What the scan comes to with these blocks. Nothing has changed yet.
    fn read_events(
        &self,
        chain: &dyn Backend,
        from: u64,
        to: u64,
    ) -> Result<(Scan, Guarantees), SettlerError> {
        let (mut scan, mut guarantees) = (self.scan.clone(), Guarantees::default());
        for event in self.contract(chain).events(from, to)? {
            match event {
                ManagerEvents::Supplied(event) => {
                    let supply = Supply {
                        partition: event.partition.0,
                        supplier: Address(event.supplier.into_array()),
                        amount: narrow(event.amount)?,
                        nonce: narrow(event.nonce)?,
                    };
                    let sum = scan.supplied.entry(supply.partition).or_default();
                    *sum = sum.saturating_add(supply.amount);
                    // A gap in the numbers stays one: see `adds_up`.
                    scan.nonce = if supply.nonce == scan.nonce + 1 { supply.nonce } else { u64::MAX - 1 };
                    scan.supplies.push(supply);
                }
                ManagerEvents::ExitRequested(event) => scan.exits.push(ExitAsked {
                    partition: event.partition.0,
                    supplier: Address(event.supplier.into_array()),
                    nonce: narrow(event.nonce)?,
                }),
                ManagerEvents::GuaranteeCalled(event) => guarantees.touched.push(event.lockId),
                ManagerEvents::GuaranteeReduced(event) => guarantees.touched.push(event.lockId),
                ManagerEvents::GuaranteePaid(event) => {
                    guarantees.paid.push((event.lockId, narrow(event.amount)?));
                }
                _ => {}
            }
        }
        Ok((scan, guarantees))
    }

    /// Two accounts of the same: the events, and the contract's own numbers. A node that leaves an event out, makes one up or
    /// changes one has to lie about these as well.
    fn adds_up(
        &self,
        chain: &dyn Backend,
        scan: &Scan,
        head: &HeadInfo,
        at: At,
    ) -> Result<bool, SettlerError> {
        if scan.nonce != head.deposit_nonce {
            return Ok(false);
        }
        for (partition, supplied) in &scan.supplied {
            if self.contract(chain).holding(*partition, at)?.supplied != *supplied {
                return Ok(false);
            }
        }
        Ok(true)
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

    async fn tell_guarantees(
        &mut self,
        chain: &dyn Backend,
        guarantees: &Guarantees,
        at: At,
    ) -> Result<(), SettlerError> {
        // What a call has come to counts, not the steps on the way: these may be read again after a crash.
        for name in &guarantees.touched {
            let Some(lock) = LockId::from_word(&name.0) else {
                self.unknown_guarantee(name, Code::UnknownLock);
                continue;
            };
            match self.contract(chain).called(*name, at)? {
                Called::Waits if !self.facts.is_called(&lock) => {
                    let code = self.tell_guarantee(Kind::GuaranteeCalled, &lock, 0).await?;
                    if !matches!(code, Code::Approved | Code::GuaranteeCalled) {
                        self.unknown_guarantee(name, code);
                    }
                }
                Called::Dismissed if self.facts.is_called(&lock) => {
                    self.tell_guarantee(Kind::GuaranteeDismissed, &lock, 0).await?;
                }
                _ => {}
            }
        }
        for (name, amount) in &guarantees.paid {
            let lock = LockId::from_word(&name.0);
            let code = match lock {
                Some(lock) if self.facts.is_paid(&lock) => continue,
                Some(lock) => self.tell_guarantee(Kind::GuaranteePaid, &lock, *amount).await?,
                None => Code::UnknownLock,
            };
            let is_known = lock.is_some_and(|lock| self.facts.is_paid(&lock));
            if code != Code::Approved && !is_known {
                self.unknown_guarantee(name, code);
            }
        }
        Ok(())
    }

    /// Tells it, and reads the stream up to the answer, so that the next question knows of it.
    async fn tell_guarantee(
        &mut self,
        kind: Kind,
        lock: &LockId,
        amount: u128,
    ) -> Result<Code, SettlerError> {
        let body = ChangeBody { lock: lock.id, ..ChangeBody::default() };
        let draft = Draft::new(kind, lock.partition, Amount(amount), &body).tenant(lock.tenant);
        let known = self.sealer.netting().onchain_of(lock.partition).is_some();
        if !known || !lock.id.is_uuid_v7() {
            return Ok(Code::UnknownLock);
        }
        let reply = self.tell(draft).await?;
        self.catch_up(lock.partition.shard(), reply.seq).await?;
        Ok(reply.code())
    }

    fn unknown_guarantee(&mut self, name: &B256, code: Code) {
        self.notices.push(Notice::UnknownGuarantee { lock: name.to_string(), code });
    }

    /// Asks for the withdrawals that suppliers have asked for on chain, in their order.
    async fn answer_exits(&mut self) -> Result<(), SettlerError> {
        self.resolve_open_exit().await?;
        for exit in self.scan.exits.clone() {
            let name = (exit.partition, PutOff::Exit(exit.nonce));
            if self.put_off.contains(&name) {
                continue;
            }
            let handle = self.sealer.netting().handle(&exit.partition);
            let is_answered = match handle {
                Some(partition) => {
                    self.is_answered(partition, exit.nonce) || self.ask_exit(partition, &exit).await?
                }
                None => false,
            };
            if !is_answered {
                if handle.is_some() {
                    self.put_off.insert(name);
                }
                self.notices.push(Notice::ExitNotAnswered(exit));
                continue;
            }
            self.scan.exits.retain(|waiting| *waiting != exit);
        }
        Ok(())
    }

    fn is_answered(&self, partition: PartitionHandle, nonce: u64) -> bool {
        let noted = self.answered.get(&partition).copied().unwrap_or(0);
        noted.max(self.sealer.netting().exit_nonce(partition)) >= nonce
    }

    /// All that the supplier has. The request is noted before it is sent: a withdrawal has no number that the ledger would
    /// take once only. False if the partition is frozen, which answers nothing.
    async fn ask_exit(&mut self, partition: PartitionHandle, exit: &ExitAsked) -> Result<bool, SettlerError> {
        // An earlier settler may have asked, from a directory that is gone.
        self.catch_up_with(partition).await?;
        if self.is_answered(partition, exit.nonce) {
            return Ok(true);
        }
        let units = self.sealer.netting().units(partition, exit.supplier);
        // Whoever has none is answered as well, or its request would end in a freeze.
        let units = Amount(units.max(1));
        let body = StakeBody { supplier: exit.supplier, nonce: exit.nonce, ..StakeBody::default() };
        let request =
            Draft::new(Kind::Withdraw, partition, units, &body).into_record(|| self.client.new_id());
        self.journal.append(&Note::Exit(Box::new(request)))?;
        self.open_exit = Some(request);
        self.pass(Point::ExitNoted)?;
        self.resolve_open_exit().await
    }

    /// Makes the outcome of a noted withdrawal definite, and notes that. False if it has had none: it may be asked again.
    async fn resolve_open_exit(&mut self) -> Result<bool, SettlerError> {
        let Some(request) = self.open_exit else { return Ok(true) };
        let StakeBody { nonce, .. } = request.body();
        match self.client.submit_definite(request).await {
            Ok(Outcome::Executed(reply) | Outcome::Declined(reply)) => {
                self.pass(Point::ExitAsked)?;
                self.catch_up(request.partition.shard(), reply.seq).await?;
            }
            // Burned: it never will be executed. Forgotten: if it ever was, the stream says so.
            Ok(Outcome::Burned(_) | Outcome::Refused(_))
            | Err(DefiniteError::Unresolved(ResolveError::Forgotten { .. })) => {
                self.catch_up_with(request.partition).await?;
            }
            Err(error) => return Err(error.into()),
        }
        self.open_exit = None;
        if self.sealer.netting().exit_nonce(request.partition) < nonce {
            return Ok(false);
        }
        self.journal.append(&Note::ExitAnswered { partition: request.partition, nonce })?;
        self.answered.insert(request.partition, nonce);
        self.pass(Point::ExitAnswered)?;
        Ok(true)
    }
}
