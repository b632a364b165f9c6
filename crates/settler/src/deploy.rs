//! Putting the contracts on any chain: all of them, or the manager alone beside a token that is there already.

use alloy_primitives::{Address, B256, Bytes, FixedBytes, TxKind, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use chain::bindings::{Amp, ManagerSetup};
use chain::{
    At, Backend, BackendError, DigestSigner, INTERFACE_REGISTRY, KeyError, Receipt, SendError, Setup, Tag,
    Transaction, artifacts,
};

use crate::contract::Place;

/// Gas of the largest deployment; what is not used is not paid.
const DEPLOY_GAS: u64 = 8_000_000;
/// Wei per gas for whoever makes the block.
const TIP: u128 = 1_000_000_000;
/// How often a block is waited for.
const WAITS_MAX: usize = 600;
const POOL: [u8; 4] = [0xcc; 4];
const IN_PLACE: [u8; 4] = [0xaa; 4];

/// A token that is on the chain already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Amp, or one that behaves like it.
    pub amp: Address,
    /// Its strategy for stake in place.
    pub in_place_strategy: Address,
}

/// What is on the chain now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// The manager.
    pub place: Place,
    /// The token.
    pub token: Token,
    /// What is swapped for a token that was deployed with it.
    pub swap_token: Option<Address>,
}

/// Why the contracts are not there.
#[derive(Debug, thiserror::Error)]
pub enum DeployFailure {
    /// The node did not take a transaction.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The node cannot be read.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The key does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No block has taken the transaction for a long time.
    #[error("transaction {0} is in no block")]
    NotMined(B256),
    /// It was reverted.
    #[error("transaction {0} was reverted")]
    Reverted(B256),
    /// The token asks a registry at a fixed address, which every public chain has.
    #[error("there is no ERC-1820 registry at {INTERFACE_REGISTRY}; a development chain has to be given one")]
    NoRegistry,
}

/// Deploys the manager, and without a `token` a token for development. `wait` lets time pass until there may be another block.
///
/// # Errors
/// [`DeployFailure`]; what was deployed by then stays.
pub fn deploy<B: Backend>(
    chain: &mut B,
    deployer: &dyn DigestSigner,
    setup: &Setup,
    token: Option<Token>,
    wait: impl FnMut(&mut B),
) -> Result<Deployed, DeployFailure> {
    if chain.code(INTERFACE_REGISTRY, At::Tag(Tag::Latest))?.is_empty() {
        return Err(DeployFailure::NoRegistry);
    }
    let since_block = chain.block(Tag::Latest)?.map_or(0, |block| block.number);
    let mut works = Works { chain, deployer, wait };
    let (token, swap_token) = match token {
        Some(token) => (token, None),
        None => works.token().map(|(token, swap_token)| (token, Some(swap_token)))?,
    };
    let terms = setup.terms;
    let arguments = ManagerSetup {
        amp: token.amp,
        inPlaceStrategy: token.in_place_strategy,
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
    let manager = works.create(&artifacts::collateral_manager().bytecode, &arguments.abi_encode())?;
    let code_hash = keccak256(chain.code(manager, At::Tag(Tag::Latest))?);
    let place = Place { chain_id: chain.chain_id()?, manager, code_hash, since_block };
    Ok(Deployed { place, token, swap_token })
}

struct Works<'a, B, W> {
    chain: &'a mut B,
    deployer: &'a dyn DigestSigner,
    wait: W,
}

impl<B: Backend, W: FnMut(&mut B)> Works<'_, B, W> {
    /// A token for development, with both strategies.
    fn token(&mut self) -> Result<(Token, Address), DeployFailure> {
        let swap_token = self.create(&artifacts::swap_token().bytecode, &[])?;
        let names = (swap_token, "Amp".to_owned(), "AMP".to_owned()).abi_encode_params();
        let amp = self.create(&artifacts::amp_token().bytecode, &names)?;
        let pool = self.create(&artifacts::pool_strategy().bytecode, &amp.abi_encode())?;
        let in_place_strategy = self.create(&artifacts::in_place_strategy().bytecode, &amp.abi_encode())?;
        for (prefix, implementation) in [(POOL, pool), (IN_PLACE, in_place_strategy)] {
            let call = Amp::setPartitionStrategyCall { prefix: FixedBytes(prefix), implementation };
            self.send(TxKind::Call(amp), call.abi_encode().into())?;
        }
        Ok((Token { amp, in_place_strategy }, swap_token))
    }

    fn create(&mut self, bytecode: &Bytes, arguments: &[u8]) -> Result<Address, DeployFailure> {
        let input = [bytecode, arguments].concat();
        let receipt = self.send(TxKind::Create, input.into())?;
        receipt.created.ok_or(DeployFailure::Reverted(receipt.transaction))
    }

    fn send(&mut self, to: TxKind, input: Bytes) -> Result<Receipt, DeployFailure> {
        let base_fee = self.chain.block(Tag::Latest)?.map_or(0, |block| block.base_fee);
        let transaction = Transaction {
            chain_id: self.chain.chain_id()?,
            nonce: self.chain.nonce(self.deployer.address(), At::Tag(Tag::Latest))?,
            tip: TIP,
            cap: 2 * base_fee + TIP,
            gas_limit: DEPLOY_GAS,
            to,
            value: U256::ZERO,
            input,
        };
        let signed = transaction.sign(self.deployer)?;
        self.chain.send(&signed.raw)?;
        for _ in 0..WAITS_MAX {
            (self.wait)(self.chain);
            match self.chain.receipt(signed.hash)? {
                Some(receipt) if receipt.succeeded => return Ok(receipt),
                Some(_) => return Err(DeployFailure::Reverted(signed.hash)),
                None => {}
            }
        }
        Err(DeployFailure::NotMined(signed.hash))
    }
}
