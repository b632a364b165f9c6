//! The invariants of chain and settlement together. They look at the engine's synced records and totals and at the chain's own
//! blocks, and know nothing of the settler.

use std::collections::BTreeMap;

use ledger::Ledger;
use settlement::Hash;
use surety_protocol::{Code, Kind, PartitionBody, PartitionHandle, Record};

use super::Violation;
use super::certified_paid::CertifiedPaid;
use super::conservation::Conservation;
use super::credited_once::CreditedOnce;
use super::settled_fully::SettledFully;
use super::settled_once::SettledOnce;
use crate::chain::{Chain, Event};

/// All of them, with what they remember.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    /// On-chain ids.
    homes: BTreeMap<PartitionHandle, Hash>,
    /// Final events that were looked at.
    events: usize,
    batches: SettledOnce,
    supplies: CreditedOnce,
    conservation: Conservation,
    credits: SettledFully,
    certified: CertifiedPaid,
}

impl Settlement {
    /// The next record of the engine's synced log.
    ///
    /// # Errors
    /// The first invariant that it breaks.
    pub fn on_synced(&mut self, record: &Record) -> Result<(), Violation> {
        let Some(kind) = record.kind().filter(|kind| *kind != Kind::Continuation) else { return Ok(()) };
        if !record.code().is_some_and(Code::is_success) {
            return Ok(());
        }
        if kind == Kind::PartitionCreate {
            self.homes.insert(record.partition, record.body::<PartitionBody>().onchain);
        }
        let onchain = self.homes.get(&record.partition).copied().unwrap_or_default();
        match kind {
            Kind::Deposit => self.supplies.on_deposit(onchain, record)?,
            Kind::Consume | Kind::AutoConsume => self.certified.on_consumed(record),
            _ => {}
        }
        self.credits.on_record(kind, onchain, record);
        self.conservation.on_record(kind, record)
    }

    /// The chain has a new block.
    ///
    /// # Errors
    /// The first invariant that it breaks.
    pub fn on_block(&mut self, chain: &Chain) -> Result<(), Violation> {
        let events = chain.events(chain.finalized(0));
        for event in events.get(self.events..).unwrap_or_default() {
            match event {
                Event::Supplied { partition, supplier, amount, nonce } => {
                    self.supplies.on_final(*partition, *supplier, *amount, *nonce);
                }
                Event::Committed(applied) => self.batches.on_final(applied)?,
                Event::Touched(_) | Event::Paid { .. } => {}
            }
        }
        self.events = self.events.max(events.len());
        self.batches.check(&chain.newest().state)
    }

    /// All that the engine has appended is synced and was told.
    ///
    /// # Errors
    /// If chain and ledger do not hold the same, or somebody is credited too much.
    pub fn check(&self, chain: &Chain, ledger: &Ledger) -> Result<(), Violation> {
        let newest = chain.newest();
        let events = chain.events(newest);
        for (handle, onchain) in &self.homes {
            let Some(totals) = ledger.partition(*handle) else { continue };
            self.conservation.check((*onchain, &totals), &newest.state, events, &self.supplies)?;
        }
        self.credits.check(&newest.state)
    }

    /// Nothing goes wrong any more, and there was time for everything.
    ///
    /// # Errors
    /// If something is left that was to be settled or paid.
    pub fn check_end(&self, chain: &Chain, ledger: &Ledger) -> Result<(), Violation> {
        self.check(chain, ledger)?;
        self.credits.check_end(&chain.newest().state)?;
        self.certified.check_end(&chain.newest().state)
    }
}
