//! Running transactions and calls on the state behind a block.

use alloy_primitives::{B256, Bytes, TxKind, U256};
use revm::context::result::{EVMError, ExecutionResult};
use revm::context::{BlockEnv, CfgEnv, TxEnv};
use revm::primitives::hardfork::SpecId;
use revm::{Context, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext};

use super::DevConfig;
use super::state::Link;
use crate::backend::{BackendError, Call, CallError, LoggedEvent, Receipt};
use crate::transaction::SignedTransaction;

/// Gas that a simulated call may use.
const CALL_GAS: u64 = 1 << 24;
const TYPE_1559: u8 = 2;

impl Link {
    /// Runs a transaction in this block. Returns the gas it used, or none if it can be in no block as things stand.
    pub(super) fn execute(&mut self, transaction: &SignedTransaction, config: &DevConfig) -> Option<u64> {
        let asked = &transaction.transaction;
        let environment = TxEnv {
            tx_type: TYPE_1559,
            caller: transaction.sender,
            gas_limit: asked.gas_limit,
            gas_price: asked.cap,
            gas_priority_fee: Some(asked.tip),
            kind: asked.to,
            value: asked.value,
            data: asked.input.clone(),
            nonce: asked.nonce,
            chain_id: Some(asked.chain_id),
            ..TxEnv::default()
        };
        let block = self.environment(config, self.block.base_fee);
        let mut evm = Context::mainnet()
            .with_db(&mut self.state)
            .with_cfg(rules(config))
            .with_block(block)
            .build_mainnet();
        let result = evm.transact_commit(environment).ok()?;
        let gas_used = result.tx_gas_used();
        let receipt = Receipt {
            transaction: transaction.hash,
            block: B256::ZERO,
            number: self.block.number,
            succeeded: result.is_success(),
            gas_used,
            gas_price: asked.cap.min(self.block.base_fee + asked.tip),
            created: result.created_address(),
            events: self.events(transaction, &result),
        };
        self.append(transaction, receipt);
        Some(gas_used)
    }

    /// Runs a call on what the block left, in a block of its own behind it, free of charge.
    pub(super) fn simulate(&self, call: &Call, config: &DevConfig) -> Result<Bytes, CallError> {
        let environment = TxEnv {
            caller: call.from,
            gas_limit: CALL_GAS,
            gas_price: 0,
            kind: TxKind::Call(call.to),
            data: call.input.clone(),
            nonce: self.nonce(call.from),
            chain_id: Some(config.chain_id),
            ..TxEnv::default()
        };
        let mut evm = Context::mainnet()
            .with_ref_db(&self.state)
            .with_cfg(rules(config))
            .with_block(self.environment(config, 0))
            .build_mainnet();
        let result = evm
            .transact(environment)
            .map_err(|error: EVMError<_>| CallError::Backend(BackendError::Nonsense(error.to_string())))?;
        match result.result {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            ExecutionResult::Revert { output, .. } => Err(CallError::Reverted(output)),
            ExecutionResult::Halt { .. } => Err(CallError::Reverted(Bytes::new())),
        }
    }

    /// The code that an initialization leaves.
    pub(super) fn initialized(&self, bytecode: Bytes, config: &DevConfig) -> Option<Bytes> {
        let environment = TxEnv {
            gas_limit: CALL_GAS,
            kind: TxKind::Create,
            data: bytecode,
            chain_id: Some(config.chain_id),
            ..TxEnv::default()
        };
        let mut evm = Context::mainnet()
            .with_ref_db(&self.state)
            .with_cfg(rules(config))
            .with_block(self.environment(config, 0))
            .build_mainnet();
        let result = evm.transact(environment).ok()?.result;
        if result.is_success() { result.into_output() } else { None }
    }

    fn environment(&self, config: &DevConfig, base_fee: u128) -> BlockEnv {
        BlockEnv {
            number: U256::from(self.block.number),
            timestamp: U256::from(self.block.time),
            gas_limit: config.block_gas_limit,
            basefee: u64::try_from(base_fee).unwrap_or(u64::MAX),
            prevrandao: Some(self.block.parent),
            ..BlockEnv::default()
        }
    }

    fn events(&self, transaction: &SignedTransaction, result: &ExecutionResult) -> Vec<LoggedEvent> {
        let logs = if result.is_success() { result.logs() } else { &[] };
        let event = |log: &revm::primitives::Log| LoggedEvent {
            address: log.address,
            topics: log.topics().to_vec(),
            data: log.data.data.clone(),
            block: B256::ZERO,
            number: self.block.number,
            transaction: transaction.hash,
        };
        logs.iter().map(event).collect()
    }
}

fn rules(config: &DevConfig) -> CfgEnv {
    CfgEnv::new_with_spec(SpecId::OSAKA).with_chain_id(config.chain_id)
}
