//! Certificates against a chain, by real processes: handed out, verified with every outcome, called though their merchant was
//! paid, and answered.

use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, U256, Uint, keccak256};
use alloy_sol_types::SolCall;
use chain::bindings::{self, Amp, Manager, Swappable};
use chain::{
    At, Backend, Call, CallError, Deployment, DigestSigner, LocalKey, Setup, Tag, Terms, deploy_all,
};
use serde_json::{Value, json};
use settlement::{LockId, Word};
use settler::CertificateFile;
use surety_client::{Client, Identity, LockRef, LockRequest, QuicOptions};
use surety_protocol::{Amount, Code, MerchantId, PartitionHandle, ShardId, TenantId};

use crate::node::DevNode;
use crate::process::{Data, Ended, Engine, ctl, surety, surety_with};

const PATIENCE: Duration = Duration::from_secs(120);
const WHOLE: u128 = 1_000_000_000_000_000_000;
const PARTITION: PartitionHandle = PartitionHandle::new(ShardId(0), 1);
const POSTER: u8 = 4;
const SIGNER: u8 = 5;
const MERCHANT: u8 = 6;
const SUPPLIER: u8 = 7;
const ANSWERER: u8 = 8;

#[test]
fn a_certificate_is_verified_called_and_answered() {
    let world = World::start();
    let credited = world.certified_lock();
    let called = world.certified_lock();
    let _settler = world.settler();
    let certificates = world.certificates(&[credited, called]);
    let [first, second] = &certificates[..] else { panic!("two") };
    world.verify_outcomes(first);

    // Its merchant is paid by a batch, and calls it nevertheless.
    world.consume(credited);
    world.mine_until(|| world.credit() == WHOLE / 2);
    world.call(first);
    let called_now = world.verify(first, &[]).fails(1, "called already").json();
    assert_eq!((&called_now["on_chain"], &called_now["ok"]), (&json!("called"), &json!(false)));
    world.mine_until(|| world.state(credited) == 2);
    world.verify(first, &[]).fails(1, "nothing of it is owed");
    let answers = world.node.chain().nonce(key(ANSWERER).address(), At::Tag(Tag::Latest)).unwrap();
    assert_eq!(answers, 1, "by the answerer, once");

    // Nobody has paid the other one: it is paid by its guarantee.
    world.call(second);
    world.node.chain().mine_after(Terms::default().dispute_time.into());
    let settle = Manager::settleGuaranteeCall { lockId: B256::from(called.word()) };
    // Where nothing may be guaranteed beyond what was proven, anybody proves it first, with nothing but the published file.
    let no_cap = Manager::setGuaranteeCapCall { partition: world.onchain(), guaranteeCap: Uint::ZERO };
    world.node.send(&key(1), world.at.manager, no_cap.abi_encode());
    assert!(world.try_ask(settle.clone()).is_err());
    world.prove_partition();
    world.node.send(&key(MERCHANT), world.at.manager, settle.abi_encode());
    world.verify(second, &[]).fails(1, "paid by guarantee");
}

pub(crate) struct World {
    node: DevNode,
    at: Deployment,
    place: String,
    pub(crate) data: Data,
    pub(crate) engine: Engine,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub(crate) fn start() -> Self {
        let (node, data) = (DevNode::start(), Data::init(1));
        let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &["--admin", "127.0.0.1:0"]);
        let engine_id = u128::from_str_radix(engine.ready["engine"].as_str().unwrap(), 16).unwrap();
        let address = |seed| key(seed).address();
        let setup = Setup {
            engine_id,
            owner: address(1),
            guardian: address(1),
            poster: address(POSTER),
            signer: address(SIGNER),
            terms: Terms::default(),
        };
        (1..=8).for_each(|seed| node.chain().fund(address(seed), U256::from(1000 * WHOLE)));
        let at = deploy_all(&mut node.chain(), &key(1), &setup).unwrap();
        let code_hash = keccak256(node.chain().code(at.manager, At::Tag(Tag::Latest)).unwrap());
        let contract = json!({
            "chain_id": 31337, "manager": at.manager.to_string(), "code_hash": code_hash.to_string(),
            "since_block": 0,
        });
        let place = data.file("settlement.json");
        std::fs::write(&place, contract.to_string()).unwrap();
        let place = place.to_str().unwrap().to_owned();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let world = Self { node, at, place, data, engine, runtime };
        world.furnish();
        world
    }

    fn onchain(&self) -> B256 {
        let mut onchain = [0xcc; 32];
        onchain[4..12].copy_from_slice(&1_u64.to_be_bytes());
        onchain[12..].copy_from_slice(self.at.manager.as_slice());
        B256::from(onchain)
    }

    /// A pool with a thousand tokens, of which the engine has been told.
    fn furnish(&self) {
        let (partition, manager) = (self.onchain(), self.at.manager);
        let cap = WHOLE.try_into().unwrap();
        let add = Manager::addPartitionCall { partition, holder: manager, guaranteeCap: cap };
        self.node.send(&key(1), manager, add.abi_encode());
        let (to, value, supplier) = (key(SUPPLIER).address(), U256::from(1000 * WHOLE), key(SUPPLIER));
        let (swap, amp) = (self.at.swap_token, self.at.amp);
        self.node.send(&supplier, swap, Swappable::mintCall { to, value }.abi_encode());
        self.node.send(&supplier, swap, Swappable::approveCall { spender: amp, value }.abi_encode());
        self.node.send(&supplier, amp, Amp::swapCall { from: to }.abi_encode());
        let supply = Amp::transferByPartitionCall {
            partition: B256::ZERO,
            from: to,
            to: manager,
            value,
            data: chain::flexa::change_partition(partition),
            operatorData: Bytes::new(),
        };
        self.node.send(&supplier, amp, supply.abi_encode());

        let data = &self.data;
        ctl(data, &["partition", "create", "0:1", "--asset", "1", "--onchain", &partition.to_string()]);
        ctl(data, &["policy", "set", "0:1", "life_default=2d", "life_max=2d"]);
        ctl(data, &["tenant", "set", "1", "--locks-max", "100"]);
        ctl(data, &["grant", "0:1", "1", "authorize,read,settle,consume"]);
        let payee = key(MERCHANT).address().to_string().to_lowercase();
        ctl(data, &["merchant", "4", "--tenant", "1", "--payee", &payee, "--release-key", &payee]);
        // The settler credits the supply; once it is there a lock can be had.
        let _settler = self.settler();
        let free = || ctl(data, &["partition", "show", "0:1"])["free"].as_str().unwrap().to_owned();
        self.mine_until(|| free() == (1000 * WHOLE).to_string());
    }

    fn client(&self) -> Client {
        self.runtime.block_on(async {
            let identity = Identity::from_file(self.data.file("pki").join("authorizer.pem")).unwrap();
            let address: SocketAddr = self.engine.listen().parse().unwrap();
            let options = QuicOptions::new(address, identity);
            Client::connect_with(options, surety_client::Options::default()).await.unwrap()
        })
    }

    pub(crate) fn certified_lock(&self) -> LockId {
        let own = LockRequest::new(PARTITION, Amount(WHOLE / 2), MerchantId(4));
        let lock = LockRequest { is_certified: true, ..own };
        let reply = self.runtime.block_on(self.client().send(lock)).unwrap();
        assert_eq!(reply.code(), Code::Approved);
        LockId { tenant: TenantId(1), partition: PARTITION, id: reply.id }
    }

    pub(crate) fn consume(&self, lock: LockId) {
        let consume = LockRef::new(PARTITION, lock.id).consume_held(Amount(WHOLE / 2));
        assert_eq!(self.runtime.block_on(self.client().send(consume)).unwrap().code(), Code::Approved);
    }

    pub(crate) fn settler(&self) -> Process {
        let dir = self.data.file("settler");
        let keys = [("SURETY_POSTER_KEY", POSTER), ("SURETY_ANSWERER_KEY", ANSWERER)];
        let more = ["--rpc", &self.node.url, "--seal-after", "500ms", "--interval", "100ms"];
        let more = [&more[..], &WATCHED].concat();
        Process::start("run", &dir, self, &more, &keys)
    }

    /// A certificate service.
    pub(crate) fn certifier(&self) -> Process {
        let dir = self.data.file("certifier");
        let more = [&["--listen", "127.0.0.1:0"][..], &WATCHED].concat();
        Process::start("certify", &dir, self, &more, &[("SURETY_SIGNER_KEY", SIGNER)])
    }

    /// What a certificate service hands out, which has asked the chain whether it may sign.
    fn certificates(&self, locks: &[LockId]) -> Vec<String> {
        let (dir, out) = (self.data.file("certifier"), self.data.file("certificates"));
        let more = ["--rpc", &self.node.url, "--listen", "127.0.0.1:0", "--out", out.to_str().unwrap()];
        let certify = [
            "settle",
            "certify",
            "--dir",
            dir.to_str().unwrap(),
            "--contract",
            &self.place,
            "--data",
            self.data.path(),
        ];
        let wrong = [("SURETY_SIGNER_KEY", &*text(MERCHANT))];
        surety_with(&[&certify[..], &more].concat(), &wrong).fails(4, "it is no signer");
        let _service = Process::start("certify", &dir, self, &more, &[("SURETY_SIGNER_KEY", SIGNER)]);
        let file = |lock: &LockId| out.join(format!("{}.json", B256::from(lock.word())));
        self.mine_until(|| locks.iter().all(|lock| file(lock).exists()));
        locks.iter().map(|lock| file(lock).to_str().unwrap().to_owned()).collect()
    }

    fn verify(&self, file: &str, more: &[&str]) -> Ended {
        let own = ["cert", "verify", file, "--json", "--rpc", &self.node.url];
        surety(&[&own[..], more].concat())
    }

    /// Everything that can be said of a certificate that was not called.
    fn verify_outcomes(&self, file: &str) {
        let trusted = self.verify(file, &["--contract", &self.place]).exits(0).json();
        assert_eq!((&trusted["on_chain"], &trusted["trusted"]), (&json!("enforceable"), &json!(true)));
        let untrusted = self.verify(file, &[]).exits(0).json();
        assert_eq!(untrusted["trusted"], false);
        let signer = key(SIGNER).address().to_string();
        assert_eq!(self.verify(file, &["--signer", &signer]).exits(0).json()["trusted"], true);
        let other = key(MERCHANT).address().to_string();
        self.verify(file, &["--signer", &other]).fails(1, "not by");
        surety(&["cert", "verify", file, "--rpc", "http://127.0.0.1:1"]).fails(9, "127.0.0.1:1");

        let beside = |name: &str, text: &str| {
            let path = self.data.file(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let sound: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let altered = |field: &str, value: Value| {
            let mut altered = sound.clone();
            altered[field] = value;
            beside("altered.json", &altered.to_string())
        };
        let refused = self.verify(&altered("amount", json!("7")), &[]).fails(1, "refuses it").json();
        assert_eq!(refused["on_chain"], "refused");
        let elsewhere = self.verify(&altered("chainId", json!(1)), &[]).fails(4, "not those").json();
        assert_eq!((&elsewhere["on_chain"], &elsewhere["ok"]), (&json!("elsewhere"), &json!(false)));
        let contract: Value = serde_json::from_str(&std::fs::read_to_string(&self.place).unwrap()).unwrap();
        let of = |field: &str, value: Value| {
            let mut other = contract.clone();
            other[field] = value;
            beside("other.json", &other.to_string())
        };
        let manager = of("manager", json!(Address::repeat_byte(9).to_string()));
        self.verify(file, &["--contract", &manager]).fails(4, "not for the contract");
        let code = of("code_hash", json!(B256::repeat_byte(9).to_string()));
        self.verify(file, &["--contract", &code]).fails(4, "not those");
        let none = self.verify(&beside("none.json", "{}"), &[]).fails(3, "no certificate").json();
        assert_eq!((&none["exit"], &none["ok"]), (&json!(3), &json!(false)));
        self.verify(&self.data.file("nowhere.json").display().to_string(), &[]).fails(2, "nowhere.json");
        self.verify(file, &["--contract", &beside("no-place.json", "{}")]).fails(2, "no-place.json");
    }

    fn call(&self, file: &str) {
        let file = CertificateFile::from_json(&std::fs::read(file).unwrap()).unwrap();
        self.node.send(&key(MERCHANT), self.at.manager, file.call().abi_encode());
    }

    pub(crate) fn credit(&self) -> u128 {
        self.ask(Manager::headInfoCall {}).sumCredit.to()
    }

    /// Of a called lock: 1 it waits, 2 nothing is owed, 3 it was paid.
    fn state(&self, lock: LockId) -> u8 {
        self.ask(Manager::calledInfoCall { lockId: B256::from(lock.word()) }).state
    }

    /// Tells the contract what the partition has locked, as the proofs of its newest batch say.
    fn prove_partition(&self) {
        let (dir, out) = (self.data.file("settler"), self.data.file("proofs"));
        let batch = self.ask(Manager::headInfoCall {}).seq.to_string();
        let own = ["settle", "proofs", "--dir", dir.to_str().unwrap(), "--batch", &batch];
        let file = surety(&[&own[..], &["--out", out.to_str().unwrap()]].concat()).exits(0).stdout;
        let file: Value = serde_json::from_str(&std::fs::read_to_string(file.trim()).unwrap()).unwrap();
        let call = Manager::provePartitionCall {
            batch: batch_of(&file["batch"]),
            parts: join_of(&file["join"]),
            leaf: partition_of(&file["partitions"][0]),
        };
        self.node.send(&key(MERCHANT), self.at.manager, call.abi_encode());
    }

    fn ask<C: SolCall>(&self, call: C) -> C::Return {
        C::abi_decode_returns(&self.try_ask(call).unwrap()).unwrap()
    }

    fn try_ask(&self, call: impl SolCall) -> Result<Bytes, CallError> {
        let call = Call { from: Address::ZERO, to: self.at.manager, input: call.abi_encode().into() };
        self.node.chain().call(&call, At::Tag(Tag::Latest))
    }

    /// Blocks, one after the other, until something holds that the processes bring about.
    pub(crate) fn mine_until(&self, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "not done in time");
            // One second a block: the chain's clock must not reach the locks' deadlines.
            self.node.chain().mine_after(1);
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// A `surety settle` that goes on until it is dropped.
pub(crate) struct Process {
    child: Child,
    /// Its first line.
    pub(crate) ready: Value,
}

/// Tells how it is.
const WATCHED: [&str; 2] = ["--metrics", "127.0.0.1:0"];

impl Process {
    fn start(what: &str, dir: &Path, world: &World, more: &[&str], keys: &[(&str, u8)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_surety"))
            .args(["settle", what, "--dir", dir.to_str().unwrap(), "--contract", &world.place])
            .args(["--data", world.data.path()])
            .args(more)
            .envs(keys.iter().map(|(name, seed)| (*name, text(*seed))))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(first["settling"] == true || first["certifying"] == true, "{first}");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, ready: first }
    }

    /// Waits until it has ended by itself, and gives its exit code.
    pub(crate) fn ends(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number, a decimal text, or hexadecimal digits.
fn read<T: FromStr<Err: Debug>>(value: &Value) -> T {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse().unwrap()
}

fn batch_of(file: &Value) -> bindings::Batch {
    bindings::Batch {
        seq: read(&file["seq"]),
        lsnTo: read(&file["lsnTo"]),
        prevHead: read(&file["prevHead"]),
        stateRoot: read(&file["stateRoot"]),
        sumLocked: read(&file["sumLocked"]),
        sumCredit: read(&file["sumCredit"]),
        guaranteedAck: read(&file["guaranteedAck"]),
        count: read(&file["count"]),
        dataHash: read(&file["dataHash"]),
    }
}

fn join_of(file: &Value) -> bindings::Join {
    bindings::Join {
        payeesRoot: read(&file["payeesRoot"]),
        top: read(&file["top"]),
        suppliersRoot: read(&file["suppliersRoot"]),
        consumedRoot: read(&file["consumedRoot"]),
        positionsHash: read(&file["positionsHash"]),
    }
}

fn partition_of(file: &Value) -> bindings::PartitionLeaf {
    let node = |node: &Value| bindings::SumNode { hash: read(&node["hash"]), sums: read(&node["sums"]) };
    bindings::PartitionLeaf {
        partition: read(&file["partition"]),
        locked: read(&file["locked"]),
        debit: read(&file["debit"]),
        exits: read(&file["exits"]),
        exitNonce: read(&file["exitNonce"]),
        units: read(&file["units"]),
        salt: read(&file["salt"]),
        index: read(&file["index"]),
        path: file["path"].as_array().unwrap().iter().map(node).collect(),
    }
}

fn key(seed: u8) -> LocalKey {
    LocalKey::from_bytes(&[seed; 32]).unwrap()
}

fn text(seed: u8) -> String {
    B256::from([seed; 32]).to_string()
}
