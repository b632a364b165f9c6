//! The transactions: a commit, or one that only spends a nonce.

use alloy_primitives::{TxKind, U256};
use alloy_sol_types::SolCall;
use chain::Transaction;
use chain::bindings::Manager;
use settlement::life::{Attempt, Fees, Purpose};

use crate::contract::batch_of;
use crate::error::SettlerError;
use crate::settler::Settler;

/// More than any commit uses; what is not used is not paid.
const COMMIT_GAS: u64 = 200_000;
/// Gas of a transfer of nothing.
const CANCEL_GAS: u64 = 21_000;

impl Settler {
    /// Signs, with exactly this nonce. Nothing is sent.
    pub(crate) fn sign(
        &self,
        seq: u64,
        purpose: Purpose,
        nonce: u64,
        fees: Fees,
    ) -> Result<Attempt, SettlerError> {
        let (to, gas_limit, input) = match purpose {
            Purpose::Cancel => (self.poster.address(), CANCEL_GAS, Vec::new()),
            Purpose::Commit => {
                let (gas_limit, input) = self.commit(seq);
                (self.config.place.manager, gas_limit, input)
            }
        };
        let transaction = Transaction {
            chain_id: self.config.place.chain_id,
            nonce,
            tip: fees.tip,
            cap: fees.cap,
            gas_limit,
            to: TxKind::Call(to),
            value: U256::ZERO,
            input: input.into(),
        };
        let signed = transaction.sign(self.poster.as_ref())?;
        Ok(Attempt {
            seq,
            purpose,
            nonce,
            fees,
            at: self.client.now(),
            block: self.seen_block,
            hash: signed.hash.0,
            raw: signed.raw.to_vec(),
        })
    }

    /// The call, and the gas that it may use.
    fn commit(&self, seq: u64) -> (u64, Vec<u8>) {
        let Some(sealed) = self.log.sealed(seq) else { return (COMMIT_GAS, Vec::new()) };
        let batch = batch_of(&sealed.batch);
        if let Some(gas) = self.config.policy.data.gas(sealed.data.len()) {
            let call = Manager::commitBatchWithDataCall { batch, data: sealed.data.clone().into() };
            return (COMMIT_GAS + gas, call.abi_encode());
        }
        (COMMIT_GAS, Manager::commitBatchCall { batch }.abi_encode())
    }
}
