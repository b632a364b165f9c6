//! An engine in this process, a chain in this process, and a settler between them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test may stop, and each file uses its part"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use chain::bindings::{Amp, Manager, Swappable};
use chain::{
    At, Backend, BackendError, Block, Call, CallError, Deployment, DevChain, DevConfig, DigestSigner,
    LocalKey, LogFilter, LoggedEvent, Receipt, SendError, Setup, SignedTransaction, Tag, Terms, deploy_all,
    send_and_mine,
};
use server::{Durability, Embedded};
use settlement::life::{DataPolicy, FeePolicy, FlushPolicy, Policy};
use settlement::{CertifiedLock, Domain, LockGroup, LockId};
use settler::{Config, Place, Published, Report, Settler, SettlerError};
use surety_client::{Client, Draft, LockRef, LockRequest, Options, request};
use surety_protocol::{
    ActorId, Address, Amount, AssetId, Caller, Code, Id, Kind, MerchantBody, MerchantId, PartitionHandle,
    Policy as Rules, Record, ReleaseEntry, ReleaseGroup, Reply, Rights, Roles, Seq, ShardId, TenantBody,
    TenantId, Time, long,
};
use tempfile::TempDir;

pub const TOKENS: u128 = 1_000_000_000_000_000_000;
pub const PARTITION: PartitionHandle = PartitionHandle(1);
pub const TENANT: TenantId = TenantId(1);
pub const MERCHANT: MerchantId = MerchantId(7);
/// Blocks after which nothing is under way any more, once the engine has answered what it was asked.
pub const TURNS: usize = 120;
/// The engine answers within this time, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Keys by what they are for.
pub const OWNER: u8 = 2;
pub const GUARDIAN: u8 = 3;
pub const POSTER: u8 = 4;
pub const SIGNER: u8 = 5;
pub const MERCHANT_KEY: u8 = 6;
pub const ALICE: u8 = 7;
pub const ANSWERER: u8 = 8;
pub const STRANGER: u8 = 9;

pub fn key(seed: u8) -> LocalKey {
    LocalKey::from_bytes(&[seed; 32]).unwrap()
}

pub fn address(seed: u8) -> Address {
    Address(key(seed).address().into_array())
}

pub struct World {
    pub chain: DevChain,
    pub at: Deployment,
    pub place: Place,
    pub admin: Client,
    pub authorizer: Client,
    pub engine: Option<Embedded>,
    pub data: TempDir,
    pub own: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Terms { claim_delay: 60, dispute_time: 120, ..Terms::default() }).await
    }

    pub async fn with(terms: Terms) -> Self {
        let data = tempfile::tempdir().unwrap();
        server::init(data.path(), 1, 1 << 20).unwrap();
        let engine = start(&data, None);
        let admin = client(&engine, TenantId(0), Roles::ADMIN).await;
        let authorizer = client(&engine, TENANT, Roles::AUTHORIZER).await;
        let mut chain = DevChain::new(DevConfig { time: seconds() - 1000, ..DevConfig::default() });
        for seed in 1..=9 {
            chain.fund(key(seed).address(), U256::from(1000 * TOKENS));
        }
        let setup = Setup {
            engine_id: admin.hello().engine.0,
            owner: key(OWNER).address(),
            guardian: key(GUARDIAN).address(),
            poster: key(POSTER).address(),
            signer: key(SIGNER).address(),
            terms,
        };
        let at = deploy_all(&mut chain, &key(1), &setup).unwrap();
        let place = Place {
            chain_id: 31337,
            manager: at.manager,
            code_hash: keccak256(chain.code(at.manager, At::Tag(Tag::Latest)).unwrap()),
            since_block: 0,
        };
        let own = tempfile::tempdir().unwrap();
        let mut world = Self { chain, at, place, admin, authorizer, engine: Some(engine), data, own };
        world.add_partition(1);
        world.furnish(PARTITION, 1).await;
        world.fill_purse(ALICE);
        world
    }

    pub fn onchain(&self, number: u64) -> [u8; 32] {
        let mut id = [0xcc; 32];
        id[4..12].copy_from_slice(&number.to_be_bytes());
        id[12..].copy_from_slice(self.at.manager.as_slice());
        id
    }

    /// A pool of the contract.
    pub fn add_partition(&mut self, number: u64) {
        let partition = B256::from(self.onchain(number));
        let cap = TOKENS.try_into().unwrap();
        let call = Manager::addPartitionCall { partition, holder: self.at.manager, guaranteeCap: cap };
        self.manage(OWNER, call);
    }

    /// The engine's partition for it, with everything that a payment needs.
    pub async fn furnish(&self, partition: PartitionHandle, number: u64) {
        let shard = PartitionHandle(0);
        let quotas = TenantBody {
            tenant: TENANT,
            locks_max: 1_000_000,
            ids_max: 1_000_000,
            tombstones_max: 1000,
            advices_max: 1000,
            enabled: 1,
            ..TenantBody::default()
        };
        let merchant = MerchantBody {
            merchant: MERCHANT,
            payee: address(MERCHANT_KEY),
            release_key: address(MERCHANT_KEY),
            enabled: 1,
            ..MerchantBody::default()
        };
        let admin = &self.admin;
        done(admin.send(request::set_tenant(shard, &quotas)).await.unwrap());
        done(admin.send(request::set_merchant(shard, TENANT, &merchant)).await.unwrap());
        let create = request::create_partition(partition, self.onchain(number), AssetId(1), false);
        done(admin.send(create).await.unwrap());
        let day = Time::from_secs(24 * 3600);
        let rules = Rules {
            life_default: day,
            life_max: day,
            settlement_window: day,
            settle_by: day,
            unbonding: Time::ZERO,
            ..Rules::default()
        };
        done(admin.submit_long(&request::set_policy(admin.new_id(), partition, &rules)).await.unwrap());
        done(admin.send(request::grant(partition, TENANT, Rights::KNOWN)).await.unwrap());
    }

    /// A million tokens.
    pub fn fill_purse(&mut self, seed: u8) {
        let (from, value) = (key(seed), U256::from(1_000_000 * TOKENS));
        let to = from.address();
        self.send(seed, self.at.swap_token, Swappable::mintCall { to, value }.abi_encode());
        let spender = self.at.amp;
        self.send(seed, self.at.swap_token, Swappable::approveCall { spender, value }.abi_encode());
        self.send(seed, self.at.amp, Amp::swapCall { from: to }.abi_encode());
    }

    /// Tokens of a purse become collateral of a pool.
    pub fn supply(&mut self, seed: u8, number: u64, amount: u128) {
        let call = Amp::transferByPartitionCall {
            partition: B256::ZERO,
            from: key(seed).address(),
            to: self.at.manager,
            value: U256::from(amount),
            data: chain::flexa::change_partition(B256::from(self.onchain(number))),
            operatorData: Bytes::new(),
        };
        self.send(seed, self.at.amp, call.abi_encode());
    }

    pub fn send(&mut self, seed: u8, to: alloy_primitives::Address, input: Vec<u8>) -> Receipt {
        send_and_mine(&mut self.chain, &key(seed), to, input.into()).unwrap()
    }

    pub fn manage(&mut self, seed: u8, call: impl SolCall) -> Receipt {
        self.send(seed, self.at.manager, call.abi_encode())
    }

    /// What a call would come to.
    pub fn simulate(&self, call: impl SolCall) -> Result<Bytes, Bytes> {
        let call =
            Call { from: key(STRANGER).address(), to: self.at.manager, input: call.abi_encode().into() };
        match self.chain.call(&call, At::Tag(Tag::Latest)) {
            Ok(output) => Ok(output),
            Err(CallError::Reverted(data)) => Err(data),
            Err(error) => panic!("{error}"),
        }
    }

    pub fn ask<C: SolCall>(&self, call: C) -> C::Return {
        C::abi_decode_returns(&self.simulate(call).unwrap()).unwrap()
    }

    pub fn batches_on_chain(&self) -> u64 {
        self.ask(Manager::headInfoCall {}).seq.to()
    }

    /// Tokens of an account outside any pool.
    pub fn purse(&self, seed: u8) -> u128 {
        let call = Amp::balanceOfByPartitionCall { partition: B256::ZERO, holder: key(seed).address() };
        let input = call.abi_encode().into();
        let call = Call { from: key(STRANGER).address(), to: self.at.amp, input };
        let output = self.chain.call(&call, At::Tag(Tag::Latest)).unwrap();
        Amp::balanceOfByPartitionCall::abi_decode_returns(&output).unwrap().to()
    }

    pub fn config(&self) -> Config {
        Config {
            policy: Policy { fees: FEES, flush: FLUSH, data: DataPolicy::NONE },
            // As soon as that halves it.
            log_bytes_max: 0,
            ..Config::new(self.own.path(), self.place)
        }
    }

    pub async fn settler(&self) -> Settler {
        self.try_settler(self.config()).await.unwrap()
    }

    pub async fn try_settler(&self, config: Config) -> Result<Settler, SettlerError> {
        let engine = self.engine.as_ref().unwrap();
        let tokens = Settler::tokens(&config.directory)?;
        let caller = Caller { tenant: TenantId(0), roles: Roles::SETTLER, actor: ActorId(1) };
        let client =
            Client::over(Arc::new(engine.connector(caller)), Options::default(), &tokens).await.unwrap();
        Settler::open(config, client, Box::new(key(POSTER))).await
    }

    /// A settler that answers calls.
    pub async fn answering_settler(&self) -> Settler {
        let mut settler = self.settler().await;
        settler.answer_with(Box::new(key(ANSWERER))).unwrap();
        settler
    }

    pub async fn restart_engine(&mut self) {
        self.engine.take().unwrap().shutdown();
        let engine = start(&self.data, Some(&self.place));
        self.admin = client(&engine, TenantId(0), Roles::ADMIN).await;
        self.authorizer = client(&engine, TENANT, Roles::AUTHORIZER).await;
        self.engine = Some(engine);
    }

    pub async fn lock(&self, amount: u128) -> Id {
        let lock = LockRequest::new(PARTITION, Amount(amount), MERCHANT);
        done(self.authorizer.send(lock).await.unwrap()).id
    }

    pub async fn certified_lock(&self, amount: u128) -> Id {
        let lock =
            LockRequest { is_certified: true, ..LockRequest::new(PARTITION, Amount(amount), MERCHANT) };
        done(self.authorizer.send(lock).await.unwrap()).id
    }

    /// A lock that the engine never had, as a thief of the signer's key would state it.
    pub fn forged(&self, amount: u128) -> CertifiedLock {
        let id = Id::from_parts(self.admin.now(), 12345);
        CertifiedLock {
            lock: LockId { tenant: TENANT, partition: PARTITION, id },
            version: 1,
            shard: ShardId(0),
            seq: Seq(3),
            partition: self.onchain(1),
            payee: address(STRANGER),
            amount,
            deadline_secs: self.chain.block(Tag::Latest).unwrap().unwrap().time + 3600,
            release_key: address(STRANGER),
        }
    }

    /// Calls a lock on chain that the signer's key states.
    pub fn call_lock(&mut self, lock: &CertifiedLock, domain: &Domain) {
        let group = LockGroup::new(vec![*lock]).unwrap();
        let signature = key(SIGNER).sign(&B256::from(group.digest(domain))).unwrap();
        let certificate = group.sign(signature).next().unwrap();
        let lock = chain::bindings::Lock {
            lockId: settlement::Word::word(&certificate.lock.lock).into(),
            version: certificate.lock.version,
            shard: certificate.lock.shard.0,
            seq: certificate.lock.seq.0,
            partition: certificate.lock.partition.into(),
            payee: certificate.lock.payee.0.into(),
            amount: certificate.lock.amount,
            deadline: certificate.lock.deadline_secs,
            releaseKey: certificate.lock.release_key.0.into(),
        };
        let path = certificate.path.iter().map(|hash| B256::from(*hash)).collect();
        let signature = certificate.signature.to_vec().into();
        self.manage(STRANGER, Manager::callGuaranteeCall { lock, path, signature });
    }

    /// The merchant lets go of a released lock, but for what is still owed, and the engine is told.
    pub async fn let_go(&self, lock: &CertifiedLock, still_owed: u128, domain: &Domain) -> Reply {
        // The release before it has raised the lock's version.
        let lock = CertifiedLock { version: lock.version + 1, ..*lock };
        let (entry, root, signature) = signed_release(&lock, still_owed, domain);
        let group = ReleaseGroup { key: lock.release_key, root, signature, entries: vec![entry] };
        let id = self.authorizer.new_id();
        let records = long::split(Kind::ReleaseGroup, id, PARTITION, MERCHANT.0, &group.to_bytes());
        self.authorizer.submit_long(&records).await.unwrap()
    }

    /// What the contract says of a called lock: its state and what is owed.
    pub fn called(&self, lock: &CertifiedLock) -> (u8, u128) {
        let lock_id = settlement::Word::word(&lock.lock).into();
        let info = self.ask(Manager::calledInfoCall { lockId: lock_id });
        (info.state, info.owed.to())
    }

    /// The merchant lets go of all of a called lock.
    pub fn dismiss(&mut self, lock: &CertifiedLock, domain: &Domain) {
        let (entry, _, signature) = signed_release(lock, 0, domain);
        let call = Manager::dismissGuaranteeCall {
            lockId: settlement::Word::word(&lock.lock).into(),
            version: entry.version,
            stillOwed: 0,
            index: U256::ZERO,
            path: Vec::new(),
            signature: signature.to_vec().into(),
        };
        self.manage(STRANGER, call);
    }

    /// Pays a called lock, once nobody can answer the call any more.
    pub fn pay_called(&mut self, lock: &CertifiedLock) {
        self.chain.mine_after(200);
        self.manage(
            STRANGER,
            Manager::settleGuaranteeCall { lockId: settlement::Word::word(&lock.lock).into() },
        );
    }

    /// A certified lock, as the stream states it.
    pub async fn stated_lock(&mut self, settler: &mut Settler, amount: u128) -> CertifiedLock {
        let lock = self.certified_lock(amount).await;
        let name = LockId { tenant: TENANT, partition: PARTITION, id: lock };
        self.read_all(settler).await;
        settler.sealer().netting().certified(&name).unwrap()
    }

    /// Everything that the engine has recorded of a kind, with its outcome.
    pub async fn records(&self, kind: Kind) -> Vec<Record> {
        let end = self.admin.lookup(PARTITION, self.admin.new_id(), true).await.unwrap().seq;
        let mut tail = self.admin.tail(ShardId(0), Seq(1));
        let mut found = Vec::new();
        loop {
            let (seq, record) = tail.next().await.unwrap();
            if record.kind() == Some(kind) {
                found.push(record);
            }
            if seq >= end {
                return found;
            }
        }
    }

    /// The payer's asset failed.
    pub async fn consume(&self, lock: Id, amount: u128) {
        let lock = LockRef::new(PARTITION, lock);
        done(self.authorizer.send(lock.consume_held(Amount(amount))).await.unwrap());
    }

    pub async fn order(&self, draft: Draft) -> Reply {
        self.admin.send(draft).await.unwrap()
    }

    /// Turns and blocks, until `is_done`; every turn's report goes to it.
    pub async fn settle_until(
        &mut self,
        settler: &mut Settler,
        mut is_done: impl FnMut(&World, &Settler, &Report) -> bool,
    ) -> Result<(), SettlerError> {
        let begun = Instant::now();
        let mut turns = 0;
        loop {
            let report = settler.turn(&mut self.chain).await?;
            if is_done(self, settler, &report) {
                return Ok(());
            }
            settler.wait(Duration::from_millis(20)).await;
            self.chain.mine_after(12);
            turns += 1;
            assert!(turns < TURNS || begun.elapsed() < PATIENCE, "not done after {turns} turns: {settler:?}");
        }
    }

    /// Until the engine has so much collateral in the partition.
    pub async fn settle_until_credited(&mut self, settler: &mut Settler, amount: u128) {
        let is_there = |_: &World, settler: &Settler, _: &Report| on_chain(settler) == amount;
        self.settle_until(settler, is_there).await.unwrap();
    }

    pub async fn settle_until_booked(&mut self, settler: &mut Settler, batch: u64) {
        let is_booked = |_: &World, settler: &Settler, _: &Report| settler.progress().2 >= batch;
        self.settle_until(settler, is_booked).await.unwrap();
    }

    /// Until the settler has read all that the engine has.
    pub async fn read_all(&self, settler: &mut Settler) {
        // A burned id is recorded, and tells how far the engine has come.
        let burned = self.admin.lookup(PARTITION, self.admin.new_id(), true).await.unwrap();
        while settler.sealer().netting().positions().0[0] < burned.seq {
            settler.wait(Duration::from_millis(50)).await;
            settler.drain().unwrap();
        }
    }

    /// Until nothing is owed that is not booked.
    pub async fn settle_all(&mut self, settler: &mut Settler) {
        self.read_all(settler).await;
        let is_done = |_: &World, settler: &Settler, _: &Report| {
            let (sealed, _, booked) = settler.progress();
            sealed == booked && settler.sealer().netting().unpublished() == 0 && owed(settler) == 0
        };
        self.settle_until(settler, is_done).await.unwrap();
    }

    /// What the newest batch's proofs come to.
    pub fn published(&self, batch: Option<u64>) -> Published {
        let published = Published::read(self.own.path(), batch).unwrap().unwrap();
        assert!(published.is_sound());
        published
    }

    /// Tells the contract what the partition has locked by the newest batch that it knows: so much can be guaranteed.
    pub fn prove_partition(&mut self) {
        let published = self.published(Some(self.batches_on_chain()));
        let call = Manager::provePartitionCall {
            batch: settler::batch_of(&published.batch),
            parts: published.join(),
            leaf: published.partition(self.onchain(1)).unwrap(),
        };
        self.manage(STRANGER, call);
    }

    /// The merchant takes what it was credited.
    pub fn claim(&mut self, batch: u64) -> Receipt {
        self.chain.mine_after(3700);
        let published = self.published(Some(batch));
        self.manage(STRANGER, Manager::matureHeadCall { batch: settler::batch_of(&published.batch) });
        let leaf = published.credit(self.onchain(1), address(MERCHANT_KEY)).unwrap();
        self.manage(STRANGER, Manager::claimCall { leaf, rest: published.roots.rest().into() })
    }
}

/// The only leaf of a tree that the merchant has signed.
fn signed_release(
    lock: &CertifiedLock,
    still_owed: u128,
    domain: &Domain,
) -> (ReleaseEntry, [u8; 32], [u8; 65]) {
    let entry = ReleaseEntry {
        lock: lock.lock.id,
        still_owed: Amount(still_owed),
        version: u32::from(lock.version),
        index: 0,
        path: Vec::new(),
    };
    let root = settlement::release_root(lock.lock.tenant, lock.lock.partition, &entry);
    let digest = B256::from(domain.release_group_digest(&root));
    (entry, root, key(MERCHANT_KEY).sign(&digest).unwrap())
}

pub fn on_chain(settler: &Settler) -> u128 {
    settler.sealer().netting().money(PARTITION).map_or(0, |money| money.on_chain)
}

pub fn owed(settler: &Settler) -> u128 {
    settler.sealer().netting().money(PARTITION).map_or(0, |money| money.owed)
}

pub fn done(reply: Reply) -> Reply {
    assert!(reply.code().is_success(), "{:?}", reply.code());
    reply
}

pub fn assert_code(reply: &Reply, code: Code) {
    assert_eq!(reply.code(), code);
}

/// The engine, which knows the contract that merchants sign releases for once there is one.
fn start(data: &TempDir, place: Option<&Place>) -> Embedded {
    let config = server::Config {
        chain_id: place.map_or(0, |place| place.chain_id),
        contract: place.map_or_else(Address::default, |place| Address(place.manager.into_array())),
        durability: Durability::Fsync,
        segment_bytes: 1 << 20,
        pin_threads: false,
        free_bytes_min: 0,
        limits: server::Limits { drain: Duration::from_millis(200), ..server::Limits::default() },
        ..server::Config::new(data.path())
    };
    Embedded::start(config).unwrap()
}

pub async fn client(engine: &Embedded, tenant: TenantId, roles: Roles) -> Client {
    let caller = Caller { tenant, roles, actor: ActorId(1) };
    Client::over(Arc::new(engine.connector(caller)), Options::default(), &[]).await.unwrap()
}

pub fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Whatever it costs.
pub const FEES: FeePolicy = FeePolicy {
    tip: 1_000_000_000,
    tip_max: 1 << 80,
    cap_max: 1 << 80,
    gas: 80_000,
    replace_after: Time::from_secs(3600),
    replace_after_blocks: 3,
    wei_per_whole: TOKENS,
    target_age: Time(1),
    deadline_age: Time::from_secs(3600),
    daily_budget: 1000 * TOKENS,
};

/// As soon as there is something.
pub const FLUSH: FlushPolicy = FlushPolicy {
    age_max: Time::ZERO,
    value_max: u128::MAX,
    records_max: u64::MAX,
    cheap_age: Time::from_secs(3600),
    retry_after: Time::ZERO,
};

/// A node that alters what the chain says.
pub struct Liar<'a> {
    pub chain: &'a mut chain::DevChain,
    pub alter: fn(&mut Vec<LoggedEvent>),
    pub is_deaf: bool,
    /// So many transactions of the answerer are taken and thrown away.
    pub swallows: usize,
}

impl Backend for Liar<'_> {
    fn chain_id(&self) -> Result<u64, BackendError> {
        if self.is_deaf { Err(BackendError::Unreachable("stalled".into())) } else { self.chain.chain_id() }
    }
    fn block(&self, tag: Tag) -> Result<Option<Block>, BackendError> {
        self.chain.block(tag)
    }
    fn nonce(&self, account: alloy_primitives::Address, at: At) -> Result<u64, BackendError> {
        self.chain.nonce(account, at)
    }
    fn balance(&self, account: alloy_primitives::Address, at: At) -> Result<U256, BackendError> {
        self.chain.balance(account, at)
    }
    fn code(&self, account: alloy_primitives::Address, at: At) -> Result<Bytes, BackendError> {
        self.chain.code(account, at)
    }
    fn call(&self, call: &Call, at: At) -> Result<Bytes, CallError> {
        self.chain.call(call, at)
    }
    fn send(&mut self, raw: &[u8]) -> Result<B256, SendError> {
        let is_answer = SignedTransaction::from_bytes(raw).unwrap().sender == key(ANSWERER).address();
        if is_answer && self.swallows > 0 {
            self.swallows -= 1;
            return Ok(keccak256(raw));
        }
        self.chain.send(raw)
    }
    fn receipt(&self, transaction: B256) -> Result<Option<Receipt>, BackendError> {
        self.chain.receipt(transaction)
    }
    fn is_pending(&self, transaction: B256) -> Result<bool, BackendError> {
        self.chain.is_pending(transaction)
    }
    fn logs(&self, filter: &LogFilter) -> Result<Vec<LoggedEvent>, BackendError> {
        let mut events = self.chain.logs(filter)?;
        (self.alter)(&mut events);
        Ok(events)
    }
}
