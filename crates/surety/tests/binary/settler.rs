//! `settle`: contracts put on a real node, and a settler process that is killed again and again between it and an engine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use chain::bindings::{Amp, Manager, Swappable};
use chain::{
    At, Backend, Call, DevChain, DevConfig, DigestSigner, INTERFACE_REGISTRY, JsonRpc, LocalKey, RpcChain,
    Tag, Transaction, artifacts,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use texts::batches::{self, Batch, Stage, Told};

use crate::console;
use crate::process::{Data, Engine, ctl, send, surety, surety_with};

const PATIENCE: Duration = Duration::from_secs(300);
const WHOLE: u128 = 1_000_000_000_000_000_000;
const DEPLOYER: [u8; 32] = [1; 32];
const POSTER: [u8; 32] = [4; 32];
const SUPPLIER: [u8; 32] = [7; 32];

#[test]
fn wrong_use_of_the_settler_is_told() {
    let data = Data::empty();
    let place = data.file("settlement.json");
    std::fs::write(&place, "{\"chain_id\": 1}").unwrap();
    let dir = data.file("settler");
    let (dir, place) = (dir.to_str().unwrap(), place.to_str().unwrap());
    let run = [
        "settle",
        "run",
        "--dir",
        dir,
        "--contract",
        place,
        "--rpc",
        "http://127.0.0.1:9",
        "--data",
        data.path(),
    ];
    surety_with(&run, &[("SURETY_POSTER_KEY", "12")]).fails(2, "manager");
    surety(&["settle", "proofs", "--dir", dir, "--out", dir]).fails(4, "no settler's log");
    surety(&["settle", "resume", "--dir", dir]).fails(4, "no settler's log");
    assert!(!std::path::Path::new(dir).exists(), "nothing is made");
    std::fs::create_dir_all(dir).unwrap();
    surety(&["settle", "resume", "--dir", dir]).fails(4, "no settler's log");
    let address = Address::ZERO.to_string();
    let deploy = ["settle", "deploy", "--rpc", "http://127.0.0.1:9", "--engine", "12", "--poster", &address];
    surety(&[&deploy[..], &["--signer", &address, "--out", "x.json"]].concat()).exits(2);
}

#[test]
fn a_settler_that_is_killed_again_and_again_settles_once() {
    let Some(node) = Node::start() else { return };
    let data = Data::init(1);
    let engine = Engine::start(&data, "fsync");
    let contracts = Contracts::deploy(&node, &engine, &data);
    let manager = contracts.manager;
    contracts.supply(&node, SUPPLIER, 1000);

    let dir = data.file("settler");
    let dir = dir.to_str().unwrap();
    let settling = || Settling::start(&node.url, dir, &contracts.place, &data, "127.0.0.1:0");
    let whole = (1000 * WHOLE).to_string();
    let shown = |name: &str| ctl(&data, &["partition", "show", "0:1"])[name].as_str().unwrap().to_owned();
    kill_until(&settling, || shown("free") == whole);
    let supplier = key(SUPPLIER).address().to_string();
    let units = ctl(&data, &["supplier", "0:1"])["suppliers"][0]["units"].as_str().unwrap().to_owned();
    ctl(&data, &["withdraw", "0:1", &units, "--supplier", &supplier.to_lowercase()]);
    kill_until(&settling, || shown("collateral") == "0");
    assert_eq!(node.credit(manager), 1000 * WHOLE);

    // Somebody else supplies, so that one that nobody kills has a batch to tell of.
    let mut last = settling();
    contracts.supply(&node, DEPLOYER, 1);
    check_batches(last.metrics);

    // One that ends by itself says so, and a second one on the same directory is refused.
    let second = settling();
    assert_eq!(second.ends(), 5);
    send(&last.child, Signal::TERM);
    assert_eq!(last.child.wait().unwrap().code(), Some(0));
    let out = data.file("proofs");
    let file = surety(&["settle", "proofs", "--dir", dir, "--out", out.to_str().unwrap()]).exits(0).stdout;
    let proofs: Value = serde_json::from_str(&std::fs::read_to_string(file.trim()).unwrap()).unwrap();
    assert_eq!(proofs["payees"][0]["credit"], whole);
    assert_eq!(engine.terminate(Signal::TERM), 0);
    surety(&["verify", "--data", data.path()]).exits(0);
    check_statement(&data, dir, &supplier, proofs["batch"]["seq"].as_u64().unwrap());
}

#[test]
fn the_console_shows_a_batch_of_a_real_settler_to_its_end() {
    let Some(node) = Node::start() else { return };
    let data = Data::init(1);
    // Known before anybody listens there, and no address that the system gives to others.
    let [.., high, low] = std::process::id().to_be_bytes();
    let metrics = format!("127.77.{high}.{low}:9105");
    let served = ["--console", "127.0.0.1:0", "--console-settler", &metrics];
    let engine = Engine::start_at(&data, "fsync", "127.0.0.1:0", &served);
    let session = Session::open(&data, &engine);
    let shown = session.settlement_when("nobody listens there yet", |shown| !shown["trouble"].is_null());
    assert_eq!((&shown["named"], &shown["told"], &shown["ages"]), (&json!(true), &json!(null), &json!(null)));
    assert!(shown["trouble"].as_str().unwrap().contains(&metrics), "{shown}");

    let contracts = Contracts::deploy(&node, &engine, &data);
    let dir = data.file("settler");
    let mut settler = Settling::start(&node.url, dir.to_str().unwrap(), &contracts.place, &data, &metrics);
    let shown = session.settlement_when("the settler is not found", |shown| shown["trouble"].is_null());
    assert_eq!((&shown["told"]["interval_ms"], &shown["turn_age_max_ms"]), (&json!(200), &json!(30_200)));
    contracts.supply(&node, SUPPLIER, 1000);
    let mut last = json!(null);
    session.settlement_when("no batch comes to its end", |shown| {
        let told = shown["told"]["batches"].as_array().and_then(|batches| batches.last());
        let Some(told) = told.map(|batch| serde_json::from_value::<Batch>(batch.clone()).unwrap()) else {
            return false;
        };
        check_batch(&told);
        let step = json!(told.stage);
        assert!(place_of(&step) >= place_of(&last), "{last} became {step}: {told:?}");
        last = step;
        let times = [Some(told.sealed_ms), told.posted_ms, told.mined_ms, told.final_ms, told.booked_ms];
        assert!(times.iter().flatten().is_sorted(), "{told:?}");
        told.stage == Stage::Booked && told.final_ms.is_some() && told.block.is_some()
    });

    // What was known stays, and it is said that nobody tells any more.
    send(&settler.child, Signal::TERM);
    assert_eq!(settler.child.wait().unwrap().code(), Some(0));
    let shown = session.settlement_when("its end is not noticed", |shown| !shown["trouble"].is_null());
    assert_eq!(shown["told"]["batches"].as_array().unwrap().last().unwrap()["stage"], "booked", "{shown}");
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

/// Where a stage stands among all; nothing is before the first.
fn place_of(stage: &Value) -> Option<usize> {
    ["sealed", "posted", "mined", "final", "booked"].iter().position(|known| stage == known)
}

/// Somebody who is signed in at an engine's console.
struct Session {
    base: String,
    cookie: String,
    token: String,
}

impl Session {
    fn open(data: &Data, engine: &Engine) -> Self {
        let base = engine.ready["console"].as_str().unwrap().to_owned();
        let link = ["ctl", "--data", data.path(), "--json", "console-link", "--as", "reader"];
        let link = surety(&link).exits(0).json();
        let (_, fragment) = link["url"].as_str().unwrap().split_once('#').unwrap();
        let opened = json!({ "link": fragment }).to_string();
        let (status, body, cookie) = console::ask(&base, "POST", "session", ("", ""), &opened);
        assert_eq!(status, 200, "{body}");
        let me: Value = serde_json::from_str(&body).unwrap();
        Self { base, cookie: cookie.unwrap(), token: me["token"].as_str().unwrap().to_owned() }
    }

    /// What the console shows of batches, once it is as wanted.
    fn settlement_when(&self, what: &str, mut is_wanted: impl FnMut(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let (status, body, _) =
                console::ask(&self.base, "GET", "settlement", (&self.cookie, &self.token), "");
            assert_eq!(status, 200, "{body}");
            let shown: Value = serde_json::from_str(&body).unwrap();
            if is_wanted(&shown) {
                return shown;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {shown}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// The contracts of an engine, with one partition that both know.
struct Contracts {
    /// The file that says where they are.
    place: String,
    manager: Address,
    amp: Address,
    swap_token: Address,
    partition: B256,
}

impl Contracts {
    fn deploy(node: &Node, engine: &Engine, data: &Data) -> Self {
        let engine_id = engine.ready["engine"].as_str().unwrap();
        let place = data.file("settlement.json").to_str().unwrap().to_owned();
        let poster = key(POSTER).address().to_string();
        let deploy = ["settle", "deploy", "--rpc", &node.url, "--engine", engine_id, "--poster", &poster];
        let deploy = [&deploy[..], &["--signer", &poster, "--out", &place]].concat();
        let deployed = surety_with(&deploy, &[("SURETY_DEPLOYER_KEY", &text(DEPLOYER))]).exits(0).json();
        let address = |name: &str| deployed[name].as_str().unwrap().parse::<Address>().unwrap();
        let (manager, amp, swap_token) = (address("manager"), address("amp"), address("swap_token"));
        let mut onchain = [0xcc; 32];
        onchain[4..12].copy_from_slice(&1_u64.to_be_bytes());
        onchain[12..].copy_from_slice(manager.as_slice());
        let partition = B256::from(onchain);
        ctl(data, &["partition", "create", "0:1", "--asset", "1", "--onchain", &partition.to_string()]);
        ctl(data, &["policy", "set", "0:1", "unbonding=0"]);
        let add = Manager::addPartitionCall { partition, holder: manager, guaranteeCap: U256::ZERO.to() };
        node.transact(DEPLOYER, manager, add.abi_encode());
        Self { place, manager, amp, swap_token, partition }
    }

    /// Has somebody put collateral into the partition.
    fn supply(&self, node: &Node, secret: [u8; 32], whole: u128) {
        let Self { manager, amp, swap_token, partition, .. } = *self;
        let (to, value) = (key(secret).address(), U256::from(whole * WHOLE));
        node.transact(secret, swap_token, Swappable::mintCall { to, value }.abi_encode());
        node.transact(secret, swap_token, Swappable::approveCall { spender: amp, value }.abi_encode());
        node.transact(secret, amp, Amp::swapCall { from: to }.abi_encode());
        let supply = Amp::transferByPartitionCall {
            partition: B256::ZERO,
            from: to,
            to: manager,
            value,
            data: chain::flexa::change_partition(partition),
            operatorData: Bytes::new(),
        };
        node.transact(secret, amp, supply.abi_encode());
    }
}

/// How far batches are is told until one is with the engine, as a console reads it.
fn check_batches(metrics: SocketAddr) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "no batch is told of to its end");
        let told = batches_of(metrics);
        told.batches.iter().for_each(check_batch);
        let is_whole =
            |batch: &Batch| batch.stage == Stage::Booked && batch.block.is_some() && batch.final_ms.is_some();
        if told.batches.iter().any(is_whole) {
            assert!(told.chain.as_ref().is_some_and(|chain| chain.final_block <= chain.block), "{told:?}");
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Of a final batch it may not be known any more which transaction a block has taken.
#[track_caller]
fn check_batch(batch: &Batch) {
    let (is_named, is_in_block) = (batch.transaction.is_some(), batch.block.is_some());
    assert_eq!(batch.read.len(), 1, "{batch:?}");
    assert!(!is_named || batch.posted_ms.is_some(), "{batch:?}");
    match batch.stage {
        Stage::Sealed => assert!(!is_named, "{batch:?}"),
        Stage::Posted => assert!(is_named && !is_in_block, "{batch:?}"),
        Stage::Mined => assert!(is_named && is_in_block, "{batch:?}"),
        Stage::Final | Stage::Booked => assert_eq!(is_named, is_in_block, "{batch:?}"),
    }
}

fn batches_of(metrics: SocketAddr) -> Told {
    let mut stream = TcpStream::connect(metrics).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET /{} HTTP/1.0\r\n\r\n", batches::DOCUMENT).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the supplier had, made again of the log and of all batches, and refused where one of them is missing or another's.
fn check_statement(data: &Data, dir: &str, supplier: &str, last: u64) {
    let out = data.file("proofs");
    let batches = out.to_str().unwrap();
    for number in 1..=last {
        let number = number.to_string();
        surety(&["settle", "proofs", "--dir", dir, "--out", batches, "--batch", &number]).exits(0);
    }
    let supplier = supplier.to_lowercase();
    let own = ["settle", "statement", "--supplier", &supplier, "--json", "--batches", batches];
    let of_all = || surety(&[&own[..], &["--log", data.path()]].concat());
    let told = of_all().exits(0).json();
    assert_eq!((told["batches"].as_u64(), &told["partitions"][0]["units"]), (Some(last), &json!("0")));
    let left = told["partitions"][0]["withdrawn"].as_str().unwrap().to_owned();
    assert_eq!(left, (1000 * WHOLE).to_string());
    let alone = surety(&own).exits(0);
    let lines: Vec<Value> = alone.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_units: Vec<&Value> = lines.iter().filter(|line| line["units"].is_string()).collect();
    assert_eq!(of_units.last().unwrap()["paid_out"], left);
    assert_eq!(lines.last().unwrap()["last"], last);

    let altered = out.join(format!("batch-{last}.json"));
    let sound = std::fs::read_to_string(&altered).unwrap();
    std::fs::write(&altered, sound.replacen(&left, "1", 1)).unwrap();
    surety(&own).fails(3, &format!("batch-{last}.json"));
    std::fs::write(&altered, sound).unwrap();
}

/// Starts settlers and kills them after ever longer spans, until it is done.
fn kill_until(settling: &dyn Fn() -> Settling, is_done: impl Fn() -> bool) {
    let begun = Instant::now();
    let mut span = Duration::from_millis(300);
    while !is_done() {
        assert!(begun.elapsed() < PATIENCE, "not done in time");
        let mut settler = settling();
        let until = Instant::now() + span;
        while Instant::now() < until && !is_done() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        // SIGKILL.
        settler.child.kill().unwrap();
        settler.child.wait().unwrap();
        span = (span * 2).min(Duration::from_secs(20));
    }
}

/// A `surety settle run`.
struct Settling {
    child: Child,
    /// Where it tells how it is; nobody listens there if it has ended at once.
    metrics: SocketAddr,
}

impl Settling {
    fn start(url: &str, dir: &str, place: &str, data: &Data, metrics: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_surety"))
            .args(["settle", "run", "--dir", dir, "--contract", place, "--rpc", url, "--data", data.path()])
            .args(["--seal-after", "500ms", "--interval", "200ms", "--metrics", metrics])
            .env("SURETY_POSTER_KEY", text(POSTER))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It begins, or has ended.
        let begun = lines.next().and_then(Result::ok).unwrap_or_default();
        let begun: Value = serde_json::from_str(&begun).unwrap_or_default();
        let metrics = begun["metrics"].as_str().and_then(|address| address.parse().ok());
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, metrics: metrics.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))) }
    }

    fn ends(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Anvil, with a block every second.
struct Node {
    process: Child,
    url: String,
}

impl Node {
    fn start() -> Option<Self> {
        let Some(program) = anvil() else {
            eprintln!("SKIPPED: no Anvil here; run `npm ci` in crates/chain/tests/anvil");
            return None;
        };
        let mut process = Command::new(program)
            .args(["--port", "0", "--hardfork", "osaka", "--accounts", "1", "--chain-id", "31337"])
            .args(["--block-time", "1", "--slots-in-an-epoch", "2", "--block-base-fee-per-gas", "1000000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let told = lines.by_ref().map_while(Result::ok);
        let url =
            { told }.find_map(|line| line.strip_prefix("Listening on ").map(|at| format!("http://{at}")));
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let node = Self { process, url: url.unwrap() };
        for secret in [DEPLOYER, POSTER, SUPPLIER] {
            let wei = format!("{:#x}", U256::from(1000 * WHOLE));
            node.control().ask("anvil_setBalance", &json!([key(secret).address().to_string(), wei])).unwrap();
        }
        // What stands at a fixed address on every public chain.
        let registry = artifacts::interface_registry().bytecode;
        let code = DevChain::new(DevConfig::default()).initialized(registry).unwrap();
        let registry = json!([INTERFACE_REGISTRY.to_string(), code.to_string()]);
        node.control().ask("anvil_setCode", &registry).unwrap();
        Some(node)
    }

    fn control(&self) -> JsonRpc {
        JsonRpc::new(&self.url, PATIENCE)
    }

    fn chain(&self) -> RpcChain {
        RpcChain::new(&self.url, PATIENCE)
    }

    fn transact(&self, secret: [u8; 32], to: Address, input: Vec<u8>) {
        let (mut chain, key) = (self.chain(), key(secret));
        let transaction = Transaction {
            chain_id: 31337,
            nonce: chain.nonce(key.address(), At::Tag(Tag::Latest)).unwrap(),
            tip: 1_000_000_000,
            cap: 20_000_000_000,
            gas_limit: 2_000_000,
            to: alloy_primitives::TxKind::Call(to),
            value: U256::ZERO,
            input: input.into(),
        };
        let signed = transaction.sign(&key).unwrap();
        chain.send(&signed.raw).unwrap();
        let begun = Instant::now();
        loop {
            if let Some(receipt) = chain.receipt(signed.hash).unwrap() {
                return assert!(receipt.succeeded);
            }
            assert!(begun.elapsed() < PATIENCE, "no block takes it");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    fn credit(&self, manager: Address) -> u128 {
        let input = Manager::headInfoCall {}.abi_encode().into();
        let call = Call { from: Address::ZERO, to: manager, input };
        let output = self.chain().call(&call, At::Tag(Tag::Latest)).unwrap();
        Manager::headInfoCall::abi_decode_returns(&output).unwrap().sumCredit.to()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program itself, not its launcher, which would outlive a kill with its child.
fn anvil() -> Option<PathBuf> {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chain/tests/anvil/node_modules/@foundry-rs");
    let mut packages = std::fs::read_dir(modules).ok()?.filter_map(Result::ok);
    packages.find_map(|package| Some(package.path().join("bin/anvil")).filter(|program| program.is_file()))
}

fn key(secret: [u8; 32]) -> LocalKey {
    LocalKey::from_bytes(&secret).unwrap()
}

fn text(secret: [u8; 32]) -> String {
    B256::from(secret).to_string()
}
