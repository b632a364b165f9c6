//! A real node for development in a process of its own: Anvil, from npm (`npm ci` in `tests/anvil`).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use chain::{JsonRpc, RpcChain};
use serde_json::{Value, json};

/// A node that mines only when it is told to; it ends with this value.
pub struct Anvil {
    process: Child,
    pub url: String,
    control: JsonRpc,
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a node, or says loudly why there is none.
pub fn start() -> Option<Anvil> {
    let Some(program) = program() else {
        eprintln!("SKIPPED: no Anvil here; run `npm ci` in crates/chain/tests/anvil");
        return None;
    };
    let mut process = Command::new(program)
        .args(["--port", "0", "--no-mining", "--hardfork", "osaka", "--accounts", "1", "--chain-id", "31337"])
        .args(["--timestamp", "1700000000", "--gas-limit", "36000000"])
        .args(["--block-base-fee-per-gas", "1000000000", "--slots-in-an-epoch", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("Anvil starts");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let told = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("Listening on ").map(|address| format!("http://{address}")));
    // What it goes on to say is read, so that it never waits for a reader.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let url = told.expect("Anvil tells its address");
    Some(Anvil { process, control: JsonRpc::new(&url, PATIENCE), url })
}

/// The program itself, not its launcher, which would outlive a kill with its child.
fn program() -> Option<PathBuf> {
    // Beside whichever crate includes this file.
    let crates = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let modules = crates.join("chain/tests/anvil/node_modules/@foundry-rs");
    let mut packages = std::fs::read_dir(modules).ok()?.filter_map(Result::ok);
    packages.find_map(|package| Some(package.path().join("bin/anvil")).filter(|program| program.is_file()))
}

impl Anvil {
    pub fn backend(&self) -> RpcChain {
        RpcChain::new(&self.url, PATIENCE)
    }

    pub fn mine_at(&self, time: u64) {
        self.tell("evm_mine", &json!([{ "timestamp": time }]));
    }

    pub fn mine(&self) {
        self.tell("evm_mine", &json!([]));
    }

    pub fn fund(&self, account: Address, wei: U256) {
        self.tell("anvil_setBalance", &json!([account, wei]));
    }

    pub fn set_code(&self, account: Address, code: &[u8]) {
        let code = alloy_primitives::Bytes::copy_from_slice(code);
        self.tell("anvil_setCode", &json!([account, code]));
    }

    /// Replaces the newest blocks by others that hold nothing.
    pub fn reorg(&self, depth: u64) {
        self.tell("anvil_reorg", &json!([depth, []]));
    }

    pub fn lose(&self, transaction: B256) {
        self.tell("anvil_dropTransaction", &json!([transaction]));
    }

    pub fn set_base_fee(&self, wei: u128) {
        self.tell("anvil_setNextBlockBaseFeePerGas", &json!([U256::from(wei)]));
    }

    pub fn tell(&self, method: &str, parameters: &Value) -> Value {
        self.control.ask(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
