//! The demo's chain, in this process, and everything that happens on it: collateral comes in by supply, what was consumed is paid
//! out to merchants, and a certificate is enforced when the engine is gone. The fourth party of the money check reads it alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use chain::bindings::{Amp, Manager, Swappable};
use chain::{
    At, Backend, Call, Deployment, DevChain, DevConfig, DigestSigner, LocalKey, Setup, Tag, Terms,
    deploy_all, send_and_mine,
};
use settlement::LockGroup;
use settler::{CertificateFile, Config, Place, Published, Settler};
use surety_client::Client;
use surety_protocol::{Amount, EngineId, PartitionHandle};

use super::account::{Account, Sums};
use super::world::{MERCHANTS, PARTITIONS, RETAIL, STAKE, payee};
use crate::exit::{Exit, Failure};
use crate::remote;

const CHAIN_ID: u64 = 31_337;
const BLOCK_SECONDS: u64 = 12;
/// A root waits so long before its credits can be claimed, and a called guarantee before it is paid.
const CLAIM_DELAY_SECONDS: u32 = 60;
const DISPUTE_SECONDS: u32 = 120;
/// The chain begins so long ago: it must not overtake the deadlines of certificates.
const BEGAN_SECONDS_AGO: u64 = 2_000;
/// Claims of one transaction.
const CLAIMS_AT_ONCE: usize = 8;
/// After so many turns, each with a block, nothing can be under way any more.
const TURNS_MAX: usize = 200;
/// Between two looks into the stream.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the stream may take to tell what the engine has.
const PATIENCE: Duration = Duration::from_secs(60);

const ETHER: u128 = 1_000_000_000_000_000_000;

/// Keys of the chain, by what they are for.
#[derive(Clone, Copy)]
enum Part {
    Owner = 1,
    Guardian,
    Poster,
    Signer,
    Supplier,
    /// Whoever calls what anybody may call: here the merchant.
    Merchant,
}

/// The chain, its contracts, and where the settler keeps its log.
pub(crate) struct OnChain {
    chain: DevChain,
    at: Deployment,
    place: Place,
    directory: PathBuf,
}

impl OnChain {
    /// A chain with the contracts of an engine, with a pool for each partition.
    pub(crate) fn deploy(engine: EngineId, directory: PathBuf) -> Result<Self, Failure> {
        let began = remote::now().0 / 1_000_000_000 - BEGAN_SECONDS_AGO;
        let mut chain = DevChain::new(DevConfig { chain_id: CHAIN_ID, time: began, ..DevConfig::default() });
        let parts = [Part::Owner, Part::Guardian, Part::Poster, Part::Signer, Part::Supplier, Part::Merchant];
        for part in parts {
            chain.fund(address(part)?, U256::from(1_000 * ETHER));
        }
        let setup = Setup {
            engine_id: engine.0,
            owner: address(Part::Owner)?,
            guardian: address(Part::Guardian)?,
            poster: address(Part::Poster)?,
            signer: address(Part::Signer)?,
            terms: Terms {
                claim_delay: CLAIM_DELAY_SECONDS,
                dispute_time: DISPUTE_SECONDS,
                ..Terms::default()
            },
        };
        let at = deploy_all(&mut chain, &key(Part::Owner)?, &setup).map_err(failed)?;
        let code = chain.code(at.manager, At::Tag(Tag::Latest)).map_err(failed)?;
        let place =
            Place { chain_id: CHAIN_ID, manager: at.manager, code_hash: keccak256(code), since_block: 0 };
        let mut on_chain = Self { chain, at, place, directory };
        for (handle, _) in PARTITIONS {
            let partition = B256::from(on_chain.onchain(handle));
            let call = Manager::addPartitionCall {
                partition,
                holder: at.manager,
                // Nothing can be guaranteed but what a proven root has locked.
                guaranteeCap: alloy_primitives::Uint::ZERO,
            };
            on_chain.manage(Part::Owner, &call)?;
        }
        Ok(on_chain)
    }

    /// A partition's name on chain.
    pub(crate) fn onchain(&self, handle: PartitionHandle) -> [u8; 32] {
        let mut id = [0xcc; 32];
        id[4..12].copy_from_slice(&handle.0.to_be_bytes());
        id[12..].copy_from_slice(self.at.manager.as_slice());
        id
    }

    /// The supplier puts the stake of every partition into its pool.
    pub(crate) fn supply(&mut self) -> Result<(), Failure> {
        let (from, stake) = (address(Part::Supplier)?, U256::from(STAKE.0));
        let value = stake * U256::from(PARTITIONS.len());
        let Deployment { swap_token, amp, manager, .. } = self.at;
        self.send(Part::Supplier, swap_token, &Swappable::mintCall { to: from, value })?;
        self.send(Part::Supplier, swap_token, &Swappable::approveCall { spender: amp, value })?;
        self.send(Part::Supplier, amp, &Amp::swapCall { from })?;
        for (handle, _) in PARTITIONS {
            let call = Amp::transferByPartitionCall {
                partition: B256::ZERO,
                from,
                to: manager,
                value: stake,
                data: chain::flexa::change_partition(B256::from(self.onchain(handle))),
                operatorData: Bytes::new(),
            };
            self.send(Part::Supplier, amp, &call)?;
        }
        Ok(())
    }

    /// A settler between this chain and the engine.
    pub(crate) async fn settler(&self, client: Client) -> Result<Settler, Failure> {
        let mut config = Config::new(&self.directory, self.place);
        config.keeps_statements = true;
        // Batches as soon as there is something, whatever they cost: the wei are of no value here.
        config.policy.flush.age_max = surety_protocol::Time::ZERO;
        config.policy.fees.target_age = surety_protocol::Time(1);
        config.policy.fees.wei_per_whole = ETHER;
        config.policy.fees.daily_budget = 1_000 * ETHER;
        let settler = Settler::open(config, client, Box::new(key(Part::Poster)?)).await.map_err(failed)?;
        settler.check(&self.chain).map_err(failed)?;
        Ok(settler)
    }

    /// Carries the supplies to the engine, once they are final.
    pub(crate) async fn credit(&mut self, settler: &mut Settler, client: &Client) -> Result<(), Failure> {
        let credited = |settler: &Settler| {
            let netting = settler.sealer().netting();
            PARTITIONS
                .iter()
                .all(|(handle, _)| netting.money(*handle).is_some_and(|money| money.on_chain == STAKE.0))
        };
        self.turn_until(settler, client, credited).await
    }

    /// Carries everything that was consumed to the chain, and makes the certificate of the certified lock.
    pub(crate) async fn settle(&mut self, settler: &mut Settler, client: &Client) -> Result<(), Failure> {
        let settled = |settler: &Settler| {
            let (sealed, _, booked) = settler.progress();
            let netting = settler.sealer().netting();
            sealed == booked && netting.partitions().all(|(_, money)| money.owed == 0)
        };
        self.turn_until(settler, client, settled).await?;
        self.certify(settler)
    }

    /// The merchants take what they were credited; whoever likes may do it for them.
    pub(crate) fn pay_out(&mut self) -> Result<(), Failure> {
        self.chain.mine_after(u64::from(CLAIM_DELAY_SECONDS));
        let published = Published::read(&self.directory, None).map_err(failed)?;
        let published = published.filter(Published::is_sound);
        let published = published.ok_or_else(|| failed("no sound batch to claim from"))?;
        let batch = settler::batch_of(&published.batch);
        self.manage(Part::Merchant, &Manager::matureHeadCall { batch: batch.clone() })?;
        let rest = published.roots.rest().into();
        let credit_of = |leaf: &settlement::PayeeLeaf| published.credit(leaf.partition, leaf.payee);
        let leaves: Vec<_> = published.trees.payees().iter().filter_map(credit_of).collect();
        for leaves in leaves.chunks(CLAIMS_AT_ONCE) {
            self.manage(Part::Merchant, &Manager::claimManyCall { leaves: leaves.to_vec(), rest })?;
        }
        // What is locked there is what can be guaranteed.
        let leaf = published.partition(self.onchain(RETAIL)).ok_or_else(|| failed("no such partition"))?;
        let parts = published.join();
        self.manage(Part::Merchant, &Manager::provePartitionCall { batch, parts, leaf })
    }

    /// With nothing but its file and the chain, the merchant is paid.
    pub(crate) fn enforce(&mut self) -> Result<(), Failure> {
        let text = std::fs::read(self.certificate())?;
        let file = CertificateFile::from_json(&text).map_err(failed)?;
        let lock_id = file.lock_id();
        self.manage(Part::Merchant, &file.call())?;
        self.chain.mine_after(u64::from(DISPUTE_SECONDS));
        self.manage(Part::Merchant, &Manager::settleGuaranteeCall { lockId: lock_id })
    }

    /// Where the merchant's certificate is.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.join("certificate.json")
    }

    /// What the contracts say, and the tokens bear out.
    pub(crate) fn account(&self, tamper: bool) -> Result<Account, String> {
        let mut account = Account::default();
        let mut paid = 0_u128;
        for (handle, _) in PARTITIONS {
            let partition = B256::from(self.onchain(handle));
            let info = self.ask(self.place.manager, &Manager::partitionInfoCall { partition })?;
            let held = Amp::balanceOfByPartitionCall { partition, holder: self.place.manager };
            let mut tokens = narrow(self.ask(self.at.amp, &held)?)?;
            let (claimed, guaranteed) = (narrow(info.claimed)?, narrow(info.guaranteed)?);
            if tokens != narrow(info.balance)? {
                return Err(format!(
                    "partition {handle}: {tokens} tokens, the contract says {}",
                    info.balance
                ));
            }
            if tamper && handle == RETAIL {
                tokens += 1;
            }
            paid += claimed + guaranteed;
            let sums = Sums {
                supplied: Some(tokens + claimed + guaranteed),
                consumed: Some(claimed),
                enforced: Some(guaranteed),
                left: Some(tokens + guaranteed),
                ..Sums::default()
            };
            account.partitions.insert(handle, sums);
        }
        let mut received = 0_u128;
        for merchant in 1..=MERCHANTS {
            let holder = Address::from(payee(merchant).0);
            let purse = Amp::balanceOfByPartitionCall { partition: B256::ZERO, holder };
            received += narrow(self.ask(self.at.amp, &purse)?)?;
        }
        if received != paid {
            return Err(format!(
                "merchants have {received} tokens, the contract says that it has paid {paid}"
            ));
        }
        Ok(account)
    }

    fn certify(&self, settler: &mut Settler) -> Result<(), Failure> {
        let group = LockGroup::new(settler.statements()).map_err(failed)?;
        let domain = *settler.domain();
        let signature = key(Part::Signer)?.sign(&B256::from(group.digest(&domain))).map_err(failed)?;
        let certificate = group.sign(signature).next().ok_or_else(|| failed("no certified lock"))?;
        let file = CertificateFile { domain, certificate };
        Ok(std::fs::write(self.certificate(), format!("{:#}\n", file.to_json()))?)
    }

    async fn turn_until(
        &mut self,
        settler: &mut Settler,
        client: &Client,
        is_done: impl Fn(&Settler) -> bool,
    ) -> Result<(), Failure> {
        let mut last = Vec::new();
        for _ in 0..TURNS_MAX {
            // Blocks do not wait for the stream, nor does the chain's time: so the turn does.
            read_all(settler, client).await?;
            if is_done(settler) {
                return Ok(());
            }
            last = settler.turn(&mut self.chain).await.map_err(failed)?.notices;
            self.chain.mine_after(BLOCK_SECONDS);
        }
        let last: Vec<String> = last.iter().map(ToString::to_string).collect();
        Err(failed(format!("the settler does not come to an end: {}", last.join("; "))))
    }

    fn manage(&mut self, part: Part, call: &impl SolCall) -> Result<(), Failure> {
        self.send(part, self.at.manager, call)
    }

    fn send(&mut self, part: Part, to: Address, call: &impl SolCall) -> Result<(), Failure> {
        send_and_mine(&mut self.chain, &key(part)?, to, call.abi_encode().into()).map_err(failed)?;
        Ok(())
    }

    fn ask<C: SolCall>(&self, to: Address, call: &C) -> Result<C::Return, String> {
        let call = Call { from: Address::ZERO, to, input: call.abi_encode().into() };
        let output = self.chain.call(&call, At::Tag(Tag::Latest)).map_err(|error| error.to_string())?;
        C::abi_decode_returns(&output).map_err(|error| error.to_string())
    }
}

/// Until the settler has read all that the engine has.
async fn read_all(settler: &mut Settler, client: &Client) -> Result<(), Failure> {
    // A burned id is recorded, and tells how far the engine has come.
    let end = client.lookup(RETAIL, client.new_id(), true).await.map_err(failed)?.seq;
    let begun = Instant::now();
    loop {
        settler.drain().map_err(failed)?;
        let positions = &settler.sealer().netting().positions().0;
        if positions.first().is_some_and(|position| *position >= end) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(failed("the change stream does not tell what the engine has"));
        }
        settler.wait(PAUSE).await;
    }
}

/// The settler's directory beside an engine's data.
pub(crate) fn directory(data: &Path) -> PathBuf {
    data.join("settlement")
}

/// The lock whose certificate is enforced at the end.
pub(crate) const ENFORCED: Amount = Amount(250 * ETHER);

fn key(part: Part) -> Result<LocalKey, Failure> {
    LocalKey::from_bytes(&[part as u8; 32]).map_err(failed)
}

fn address(part: Part) -> Result<Address, Failure> {
    Ok(key(part)?.address())
}

fn narrow(number: U256) -> Result<u128, String> {
    u128::try_from(number).map_err(|_| format!("{number} tokens"))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("the demo's chain: {error}"))
}
