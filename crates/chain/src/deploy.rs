//! Putting the contracts on a chain.

use alloy_primitives::{Address, Bytes, FixedBytes, TxKind, U256};
use alloy_sol_types::{SolCall, SolValue};

use crate::artifacts;
use crate::backend::{At, Backend, BackendError, Receipt, SendError, Tag};
use crate::bindings::{Amp, ManagerSetup};
use crate::devchain::{DevChain, INTERFACE_REGISTRY};
use crate::key::{DigestSigner, KeyError};
use crate::transaction::{SignedTransaction, Transaction};

/// Seconds that a certificate's deadline can lie ahead, where nothing else is asked for.
pub const DEV_LIFE: u32 = 7 * 24 * 3600;

/// Prefixes of partitions, with the strategies that the token has for them.
const POOL: [u8; 4] = [0xcc; 4];
const IN_PLACE: [u8; 4] = [0xaa; 4];
/// Gas for a deployment; what is not used is not paid.
const DEPLOY_GAS: u64 = 8_000_000;
const BLOCK_SECONDS: u64 = 12;
/// Wei per gas for whoever makes the block.
const TIP: u128 = 1_000_000_000;

/// The contracts of a development chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// What is swapped for the token.
    pub swap_token: Address,
    /// The token.
    pub amp: Address,
    /// Its strategy for stake in place.
    pub in_place_strategy: Address,
    /// The collateral manager.
    pub manager: Address,
}

/// Who has which role, and by which terms the manager works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Whose certificates count.
    pub engine_id: u128,
    /// Appoints the others.
    pub owner: Address,
    /// Pauses payouts.
    pub guardian: Address,
    /// Commits batches.
    pub poster: Address,
    /// Signs certificates.
    pub signer: Address,
    /// The rest.
    pub terms: Terms,
}

/// Times in seconds, and the hourly limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The most new credit in an hour, in units of 10^9 base units.
    pub credit_per_hour: u64,
    /// How long a pause lasts.
    pub pause_time: u32,
    /// How long a root waits before its credits can be claimed.
    pub claim_delay: u32,
    /// How far ahead a certificate's deadline can be.
    pub life_max: u32,
    /// How long a called guarantee can be answered.
    pub dispute_time: u32,
    /// Within which time a batch must answer a requested exit.
    pub exit_delay: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            // A billion tokens of 18 places.
            credit_per_hour: 1_000_000_000_000_000_000,
            pause_time: 2 * 24 * 3600,
            claim_delay: 3600,
            life_max: DEV_LIFE,
            dispute_time: 24 * 3600,
            exit_delay: DEV_LIFE + 3 * 24 * 3600,
        }
    }
}

/// A transaction that did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The node did not take it.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The node cannot be read.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The key does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is in no block.
    #[error("the transaction is in no block")]
    NotMined,
    /// It was reverted.
    #[error("the transaction was reverted")]
    Reverted,
}

/// Puts everything on a development chain: registry, token with both strategies, and the manager.
///
/// # Errors
///
/// [`DeployError`], for a deployer without wei above all.
pub fn deploy_all(
    chain: &mut DevChain,
    deployer: &dyn DigestSigner,
    setup: &Setup,
) -> Result<Deployment, DeployError> {
    let registry =
        chain.initialized(artifacts::interface_registry().bytecode).ok_or(DeployError::Reverted)?;
    chain.set_code(INTERFACE_REGISTRY, registry);
    let swap_token = create(chain, deployer, artifacts::swap_token().bytecode, &[])?;
    let names = (swap_token, "Amp".to_owned(), "AMP".to_owned()).abi_encode_params();
    let amp = create(chain, deployer, artifacts::amp_token().bytecode, &names)?;
    let pool_strategy = create(chain, deployer, artifacts::pool_strategy().bytecode, &amp.abi_encode())?;
    let in_place_strategy =
        create(chain, deployer, artifacts::in_place_strategy().bytecode, &amp.abi_encode())?;
    for (prefix, implementation) in [(POOL, pool_strategy), (IN_PLACE, in_place_strategy)] {
        let call = Amp::setPartitionStrategyCall { prefix: FixedBytes(prefix), implementation };
        send_and_mine(chain, deployer, amp, call.abi_encode().into())?;
    }
    let terms = setup.terms;
    let arguments = ManagerSetup {
        amp,
        inPlaceStrategy: in_place_strategy,
        engineId: setup.engine_id,
        owner: setup.owner,
        guardian: setup.guardian,
        poster: setup.poster,
        signer: setup.signer,
        creditPerHour: terms.credit_per_hour,
        pauseTime: terms.pause_time,
        claimDelay: terms.claim_delay,
        lifeMax: terms.life_max,
        disputeTime: terms.dispute_time,
        exitDelay: terms.exit_delay,
    };
    let bytecode = artifacts::collateral_manager().bytecode;
    let manager = create(chain, deployer, bytecode, &arguments.abi_encode())?;
    Ok(Deployment { swap_token, amp, in_place_strategy, manager })
}

/// Sends a call and makes the block that holds it.
///
/// # Errors
///
/// [`DeployError::Reverted`] if the contract refused it.
pub fn send_and_mine(
    chain: &mut DevChain,
    signer: &dyn DigestSigner,
    to: Address,
    input: Bytes,
) -> Result<Receipt, DeployError> {
    finish(chain, signer, TxKind::Call(to), input)
}

fn create(
    chain: &mut DevChain,
    signer: &dyn DigestSigner,
    bytecode: Bytes,
    arguments: &[u8],
) -> Result<Address, DeployError> {
    let mut input = bytecode.to_vec();
    input.extend_from_slice(arguments);
    finish(chain, signer, TxKind::Create, input.into())?.created.ok_or(DeployError::NotMined)
}

fn finish(
    chain: &mut DevChain,
    signer: &dyn DigestSigner,
    to: TxKind,
    input: Bytes,
) -> Result<Receipt, DeployError> {
    let signed = sign(chain, signer, to, input)?;
    chain.send(&signed.raw)?;
    chain.mine_after(BLOCK_SECONDS);
    let receipt = chain.receipt(signed.hash)?.ok_or(DeployError::NotMined)?;
    if receipt.succeeded { Ok(receipt) } else { Err(DeployError::Reverted) }
}

fn sign(
    chain: &DevChain,
    signer: &dyn DigestSigner,
    to: TxKind,
    input: Bytes,
) -> Result<SignedTransaction, DeployError> {
    let latest = At::Tag(Tag::Latest);
    let base_fee = chain.block(Tag::Latest)?.map_or(0, |block| block.base_fee);
    let transaction = Transaction {
        chain_id: chain.chain_id()?,
        nonce: chain.nonce(signer.address(), latest)?,
        tip: TIP,
        cap: 2 * base_fee + TIP,
        gas_limit: DEPLOY_GAS,
        to,
        value: U256::ZERO,
        input,
    };
    Ok(transaction.sign(signer)?)
}
