//! Suppliers who have asked on chain to leave.

use surety_client::request::Draft;
use surety_protocol::{Amount, Kind, PartitionHandle, StakeBody};

use crate::chain_facts::PutOff;
use crate::error::{Notice, SettlerError};
use crate::scan::ExitAsked;
use crate::settler::Settler;

impl Settler {
    /// Asks for the withdrawals that suppliers have asked for on chain, in their order.
    pub(crate) async fn answer_exits(&mut self) -> Result<(), SettlerError> {
        self.resolve_open_request().await?;
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

    /// All that the supplier has and that does not wait to leave already. False if the partition is frozen, which answers
    /// nothing.
    async fn ask_exit(&mut self, partition: PartitionHandle, exit: &ExitAsked) -> Result<bool, SettlerError> {
        // An earlier settler may have asked, from a directory that is gone.
        self.catch_up_with(partition).await?;
        if self.is_answered(partition, exit.nonce) {
            return Ok(true);
        }
        let units = self.sealer.netting().units_to_ask(partition, exit.supplier);
        // Whoever has none is answered as well, or its request would end in a freeze.
        let units = Amount(units.max(1));
        let body = StakeBody { supplier: exit.supplier, nonce: exit.nonce, ..StakeBody::default() };
        self.ask_once(Draft::new(Kind::Withdraw, partition, units, &body)).await?;
        Ok(self.is_answered(partition, exit.nonce))
    }
}
